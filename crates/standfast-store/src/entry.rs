use std::fmt;

use bytes::Bytes;
use standfast_model::{ServiceName, Stamp};

/// The most entries that one page of a scan holds, whatever its limit says.
pub const SCAN_LIMIT_MAX: usize = 1_000;
/// Keys and values of one page together, in bytes. A page holds at least one entry, so it may be longer by one entry.
pub const SCAN_BYTES_MAX: usize = 4 << 20;

/// A set of keys of its own. Keys of different spaces never meet, but one batch may touch many spaces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// What a service keeps through the state API.
    Service(ServiceName),
    /// One of Standfast's own tables. The name is on disk: it never changes its meaning.
    Table(&'static str),
}

/// `service:orders`, `table:runs`: the form on disk.
impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service:{name}"),
            Self::Table(name) => write!(f, "table:{name}"),
        }
    }
}

/// The place of a batch in the order of all batches of a store. It grows with every batch that writes, over restarts too; it is
/// never given twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

impl Version {
    /// Before the first batch.
    pub const ZERO: Self = Self(0);

    /// The version of the next batch.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a store holds under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The version of the batch that wrote it.
    pub version: Version,
    /// From when on it is absent; `None` is never.
    pub expires_at: Option<Stamp>,
}

/// Which entries to read: those of a space whose key begins with a prefix, in the order of the keys' bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Where.
    pub space: Space,
    /// What the keys begin with; empty is all keys.
    pub prefix: Bytes,
    /// Only keys that come after this one in the direction of the scan.
    pub after: Option<Bytes>,
    /// At most so many entries; more than [`SCAN_LIMIT_MAX`] counts as that, 0 as 1.
    pub limit: usize,
    /// From the last key to the first.
    pub reverse: bool,
}

impl Scan {
    /// The first page of all keys of a space that begin with `prefix`.
    pub fn of(space: Space, prefix: impl Into<Bytes>) -> Self {
        Self { space, prefix: prefix.into(), after: None, limit: SCAN_LIMIT_MAX, reverse: false }
    }

    /// Only what comes after `key`.
    #[must_use]
    pub fn after(mut self, key: impl Into<Bytes>) -> Self {
        self.after = Some(key.into());
        self
    }

    /// At most `limit` entries a page.
    #[must_use]
    pub const fn limit(mut self, limit: usize) -> Self {
        self.limit = limit;
        self
    }

    /// From the last key to the first.
    #[must_use]
    pub const fn reverse(mut self) -> Self {
        self.reverse = true;
        self
    }

    /// The limit that holds.
    pub(crate) fn entries_max(&self) -> usize {
        self.limit.clamp(1, SCAN_LIMIT_MAX)
    }

    /// The keys meant, as bounds: from (inclusive when true) and up to but not including; `None` is without end.
    pub(crate) fn bounds(&self) -> Bounds {
        let (mut from, mut from_is_included, mut until) =
            (self.prefix.clone(), true, end_of_prefix(&self.prefix));
        if let Some(after) = &self.after {
            if self.reverse {
                if until.as_ref().is_none_or(|until| after < until) {
                    until = Some(after.clone());
                }
            } else if *after >= from {
                (from, from_is_included) = (after.clone(), false);
            }
        }
        Bounds { from, from_is_included, until }
    }
}

/// A range of keys.
#[derive(Debug)]
pub(crate) struct Bounds {
    pub(crate) from: Bytes,
    pub(crate) from_is_included: bool,
    /// Exclusive; `None` is without end.
    pub(crate) until: Option<Bytes>,
}

/// The first key after all keys that begin with `prefix`; `None` when there is none.
fn end_of_prefix(prefix: &[u8]) -> Option<Bytes> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end.into())
}

/// One page of a scan.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// The entries, in the direction of the scan.
    pub entries: Vec<Entry>,
    /// Where the next page begins, to be given as [`Scan::after`]; `None` when this was the last. It is the key of the last
    /// entry here, so it stays right whatever is written meanwhile.
    pub next: Option<Bytes>,
}

impl Page {
    /// Fills a page from entries in the direction of the scan.
    ///
    /// # Errors
    /// Those of the entries.
    pub(crate) fn fill<E>(scan: &Scan, entries: impl Iterator<Item = Result<Entry, E>>) -> Result<Self, E> {
        let (mut page, mut bytes) = (Self::default(), 0);
        for entry in entries {
            let entry = entry?;
            bytes += entry.key.len() + entry.value.len();
            if let Some(last) = page.entries.last()
                && (page.entries.len() == scan.entries_max() || bytes > SCAN_BYTES_MAX)
            {
                page.next = Some(last.key.clone());
                break;
            }
            page.entries.push(entry);
        }
        Ok(page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_its_last_byte_that_can_grow_does() {
        assert_eq!(end_of_prefix(b"ab").as_deref(), Some(&b"ac"[..]));
        assert_eq!(end_of_prefix(b"a\xff\xff").as_deref(), Some(&b"b"[..]));
        assert_eq!(end_of_prefix(b"\xff"), None);
        assert_eq!(end_of_prefix(b""), None);
    }
}
