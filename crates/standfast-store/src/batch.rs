use bytes::Bytes;
use standfast_model::Stamp;

use crate::{Space, TooLarge, Version};

/// The longest key, in bytes. The shortest has 1.
pub const KEY_BYTES_MAX: usize = 1_024;
/// The longest value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 20;
/// The most conditions of one batch.
pub const BATCH_CONDITIONS_MAX: usize = 256;
/// The most writes of one batch.
pub const BATCH_WRITES_MAX: usize = 256;
/// Keys and values of one batch together, in bytes.
pub const BATCH_BYTES_MAX: usize = 4 << 20;

/// What must be true of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    /// There is no entry, or it has expired.
    Absent,
    /// There is an entry.
    Present,
    /// There is an entry and this batch wrote it.
    Version(Version),
}

impl Is {
    /// Whether it holds when the entry that is there has version `found`.
    pub fn holds(self, found: Option<Version>) -> bool {
        match self {
            Self::Absent => found.is_none(),
            Self::Present => found.is_some(),
            Self::Version(version) => found == Some(version),
        }
    }
}

/// What must be true for a batch to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Where.
    pub space: Space,
    /// Of which key.
    pub key: Bytes,
    /// What.
    pub is: Is,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets a key's value, whether or not there was one.
    Put {
        /// Where.
        space: Space,
        /// The key.
        key: Bytes,
        /// The value.
        value: Bytes,
        /// From when on the entry is absent; `None` is never.
        expires_at: Option<Stamp>,
    },
    /// Removes a key; one that is absent is fine.
    Delete {
        /// Where.
        space: Space,
        /// The key.
        key: Bytes,
    },
}

impl Write {
    /// Where it writes.
    pub const fn space(&self) -> &Space {
        match self {
            Self::Put { space, .. } | Self::Delete { space, .. } => space,
        }
    }

    /// Which key it writes.
    pub const fn key(&self) -> &Bytes {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }
}

/// Changes that are made together or not at all, and only when all conditions hold at that moment. Writes are made in their
/// order, so the last of two to one key wins.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// What must hold before the first write.
    pub conditions: Vec<Condition>,
    /// What is changed. A batch without writes only asks whether the conditions hold.
    pub writes: Vec<Write>,
}

impl Batch {
    /// No conditions, no writes.
    pub const fn new() -> Self {
        Self { conditions: Vec::new(), writes: Vec::new() }
    }

    /// Only when this is so.
    #[must_use]
    pub fn when(mut self, space: &Space, key: impl Into<Bytes>, is: Is) -> Self {
        self.conditions.push(Condition { space: space.clone(), key: key.into(), is });
        self
    }

    /// Sets a value that stays.
    #[must_use]
    pub fn put(self, space: &Space, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.put_until(space, key, value, None)
    }

    /// Sets a value that is absent from `expires_at` on.
    #[must_use]
    pub fn put_until(
        mut self,
        space: &Space,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        expires_at: Option<Stamp>,
    ) -> Self {
        let (key, value) = (key.into(), value.into());
        self.writes.push(Write::Put { space: space.clone(), key, value, expires_at });
        self
    }

    /// Removes a key.
    #[must_use]
    pub fn delete(mut self, space: &Space, key: impl Into<Bytes>) -> Self {
        self.writes.push(Write::Delete { space: space.clone(), key: key.into() });
        self
    }

    /// Keys and values together, in bytes.
    pub fn bytes(&self) -> usize {
        let conditions: usize = self.conditions.iter().map(|condition| condition.key.len()).sum();
        let size_of = |write: &Write| match write {
            Write::Put { key, value, .. } => key.len() + value.len(),
            Write::Delete { key, .. } => key.len(),
        };
        conditions + self.writes.iter().map(size_of).sum::<usize>()
    }

    /// Whether it keeps the limits.
    ///
    /// # Errors
    /// Which limit it breaks.
    pub fn check(&self) -> Result<(), TooLarge> {
        let within = |what, found: usize, max: usize| {
            if found <= max { Ok(()) } else { Err(TooLarge::Over { what, found, max }) }
        };
        within("conditions", self.conditions.len(), BATCH_CONDITIONS_MAX)?;
        within("writes", self.writes.len(), BATCH_WRITES_MAX)?;
        let keys =
            self.conditions.iter().map(|condition| &condition.key).chain(self.writes.iter().map(Write::key));
        for key in keys {
            check_key(key)?;
        }
        for write in &self.writes {
            if let Write::Put { value, .. } = write {
                within("bytes of value", value.len(), VALUE_BYTES_MAX)?;
            }
        }
        within("bytes of batch", self.bytes(), BATCH_BYTES_MAX)
    }
}

/// Whether a key keeps the limits.
pub(crate) fn check_key(key: &[u8]) -> Result<(), TooLarge> {
    match key.len() {
        0 => Err(TooLarge::EmptyKey),
        1..=KEY_BYTES_MAX => Ok(()),
        found => Err(TooLarge::Over { what: "bytes of key", found, max: KEY_BYTES_MAX }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_at_its_limits_passes_and_one_over_says_which() {
        let space = Space::Table("t");
        let put = |key: usize, value: usize| Batch::new().put(&space, vec![b'k'; key], vec![0; value]);
        assert_eq!(put(KEY_BYTES_MAX, VALUE_BYTES_MAX).check(), Ok(()));
        assert_eq!(put(0, 0).check(), Err(TooLarge::EmptyKey));
        for (batch, words) in [
            (put(KEY_BYTES_MAX + 1, 0), "1025 bytes of key, at most 1024 are allowed"),
            (put(1, VALUE_BYTES_MAX + 1), "1048577 bytes of value, at most 1048576 are allowed"),
            (
                (0..5).fold(Batch::new(), |batch, _| batch.put(&space, "k", vec![0; 1 << 20])),
                "5242885 bytes of batch, at most 4194304 are allowed",
            ),
            (
                (0..257).fold(Batch::new(), |batch, _| batch.delete(&space, "k")),
                "257 writes, at most 256 are allowed",
            ),
            (
                (0..257).fold(Batch::new(), |batch, _| batch.when(&space, "k", Is::Absent)),
                "257 conditions, at most 256 are allowed",
            ),
        ] {
            assert_eq!(batch.check().unwrap_err().to_string(), words);
        }
    }
}
