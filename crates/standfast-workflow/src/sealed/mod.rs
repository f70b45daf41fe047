//! A store whose values of workflows are sealed by keys of files (AES-256-GCM).
//!
//! **Flow.** The engine writes and reads as ever; here each value of its tables is sealed on its way into the store and opened on its
//! way out. Keys of entries stay as they are, since they are looked for.
//!
//! **Invariants.** A store that was sealed once names the keys that its values may need, and is not used without them: nothing of it is
//! taken for lost or damaged because a key is missing. Values from before are read as they are.

mod keys;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use standfast_store::{
    Batch, CommitError, Committed, Entry, Health, Is, Page, ReadError, Scan, Space, Store, Version, Write,
};
use tokio::sync::watch;

pub use keys::{BadKeyFile, Keys, WrongKeyFile};

/// Which keys the values of a store may need.
const KEYS: Space = Space::Table("workflow-keys");
const NEEDED: &[u8] = b"needed";
/// What the tables of workflows are called, and those of them that hold nothing of anybody's.
const TABLES: &str = "workflow-";
const OPEN_TABLES: [&str; 2] = ["workflow-keys", "workflow-owner"];

/// Why a store of workflows cannot be used with these keys.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Its values are sealed, and no key is given.
    #[error(
        "the records of workflows are sealed by the key {needed}, and no key file is given: give it with --workflow-key FILE"
    )]
    NoKey {
        /// The keys that are needed.
        needed: String,
    },
    /// Its values are sealed by another key.
    #[error(
        "the records of workflows are sealed by the key {needed}; the key files given hold {given}: give its file too, after the new one"
    )]
    OtherKey {
        /// The keys that are needed and not there.
        needed: String,
        /// Those that are there.
        given: String,
    },
    /// It cannot be read.
    #[error("the keys of the records of workflows cannot be looked up")]
    Read(#[from] ReadError),
    /// It cannot be written.
    #[error("the keys of the records of workflows cannot be noted")]
    Commit(#[from] CommitError),
}

/// A store in which values of workflows are sealed from now on, if there are keys.
///
/// # Errors
/// When values in it need keys that are not given: see [`SealError`].
pub async fn sealed(store: Arc<dyn Store>, keys: Option<Keys>) -> Result<Arc<dyn Store>, SealError> {
    let noted = store.get(&KEYS, NEEDED).await?;
    let text = noted.as_ref().map(|entry| String::from_utf8_lossy(&entry.value).into_owned());
    let mut needed: Vec<String> = text.iter().flat_map(|text| text.split(' ')).map(str::to_owned).collect();
    let Some(keys) = keys else {
        return match needed.is_empty() {
            true => Ok(store),
            false => Err(SealError::NoKey { needed: needed.join(", ") }),
        };
    };
    let given = keys.ids();
    let missing: Vec<String> = needed.iter().filter(|id| !given.contains(id)).cloned().collect();
    if !missing.is_empty() {
        return Err(SealError::OtherKey { needed: missing.join(", "), given: given.join(", ") });
    }
    if let Some(first) = keys.first().map(|id| id.to_string())
        && !needed.contains(&first)
    {
        needed.push(first);
        let is = noted.map_or(Is::Absent, |entry| Is::Version(entry.version));
        store.commit(Batch::new().when(&KEYS, NEEDED, is).put(&KEYS, NEEDED, needed.join(" "))).await?;
    }
    Ok(Arc::new(SealedStore { inner: store, keys }))
}

#[derive(Debug)]
struct SealedStore {
    inner: Arc<dyn Store>,
    keys: Keys,
}

fn is_sealed_table(space: &Space) -> bool {
    matches!(space, Space::Table(name) if name.starts_with(TABLES) && !OPEN_TABLES.contains(name))
}

/// Where an entry is, so that none can be put in the place of another.
fn place(space: &Space, key: &[u8]) -> Vec<u8> {
    let mut place = format!("{space} ").into_bytes();
    place.extend_from_slice(key);
    place
}

impl SealedStore {
    fn opened(&self, space: &Space, mut entry: Entry) -> Result<Entry, ReadError> {
        if is_sealed_table(space) && keys::is_sealed(&entry.value) {
            let opened = self.keys.open(&place(space, &entry.key), &entry.value);
            let reason = || format!("an entry of {space} is damaged or was moved: its seal does not fit");
            let opened = opened.ok_or_else(|| ReadError::Stopped { reason: reason().into() })?;
            entry.value = Bytes::from(opened);
        }
        Ok(entry)
    }
}

#[async_trait]
impl Store for SealedStore {
    async fn commit(&self, mut batch: Batch) -> Result<Committed, CommitError> {
        for write in &mut batch.writes {
            if let Write::Put { space, key, value, .. } = write
                && is_sealed_table(space)
            {
                let sealed = self.keys.seal(&place(space, key), value);
                let no_chance = || CommitError::Stopped { reason: "the system gives no random bytes".into() };
                *value = sealed.ok_or_else(no_chance)?.into();
            }
        }
        self.inner.commit(batch).await
    }

    async fn get(&self, space: &Space, key: &[u8]) -> Result<Option<Entry>, ReadError> {
        let entry = self.inner.get(space, key).await?;
        entry.map(|entry| self.opened(space, entry)).transpose()
    }

    async fn scan(&self, scan: &Scan) -> Result<Page, ReadError> {
        let page = self.inner.scan(scan).await?;
        let entries = page.entries.into_iter().map(|entry| self.opened(&scan.space, entry));
        Ok(Page { entries: entries.collect::<Result<_, _>>()?, next: page.next })
    }

    fn watch(&self, space: &Space, prefix: &[u8]) -> watch::Receiver<Version> {
        self.inner.watch(space, prefix)
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.inner.health()
    }
}
