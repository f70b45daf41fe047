//! Room on the disk that is kept for Standfast itself, so that healing goes on when services or others have filled the disk.
//!
//! A file in the state folder takes the room. When a decision of control finds the disk full, the file gives its room away: to that
//! decision, and to what follows from it, the agent's ledger and the output of a new replica. From then on services' writes are refused
//! until there is room for the file again; so they never get what was kept for healing.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;
use standfast_store::{
    Batch, CommitError, Committed, Entry, Health, Page, ReadError, Scan, Space, Store, Version,
};
use tokio::sync::watch;

/// The room that is kept: hundreds of decisions of a small stack.
const RESERVE_BYTES: u64 = 8 << 20;
/// The name of the file in a state folder.
const FILE: &str = "reserve";

/// A store with room kept for its `Space::Table`s. What is read, watched and refused is otherwise as in the store inside.
#[derive(Debug)]
pub(crate) struct ReservingStore {
    inner: Arc<dyn Store>,
    reserve: Arc<Reserve>,
}

/// The room, and whether it is there.
#[derive(Debug)]
pub(crate) struct Reserve {
    path: PathBuf,
    bytes: u64,
    is_there: AtomicBool,
    /// One change of the file at a time.
    turn: Mutex<()>,
}

impl Reserve {
    /// Keeps room in a state folder; when there is too little, that is tried again later.
    pub(crate) fn keep(state_dir: &Path) -> Arc<Self> {
        Self::keep_bytes(state_dir, RESERVE_BYTES)
    }

    fn keep_bytes(state_dir: &Path, bytes: u64) -> Arc<Self> {
        let path = state_dir.join(FILE);
        let reserve = Self { path, bytes, is_there: AtomicBool::new(false), turn: Mutex::default() };
        if !reserve.refill() {
            tracing::warn!("the disk has no room to keep for healing");
        }
        Arc::new(reserve)
    }

    /// Takes the room again if it was given away; false when the disk has too little.
    pub(crate) fn refill(&self) -> bool {
        if self.is_there.load(Ordering::Acquire) {
            return true;
        }
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let is_taken = match self.take() {
            Ok(is_taken) => is_taken,
            // Not every file system can promise room. Then none is kept, and nobody is refused for it.
            Err(error) => {
                tracing::warn!(%error, "no room can be kept for healing here");
                true
            }
        };
        self.is_there.store(is_taken, Ordering::Release);
        is_taken
    }

    fn take(&self) -> io::Result<bool> {
        let file = File::options().create(true).truncate(false).write(true).open(&self.path)?;
        // Asked for first: a disk that is nearly full works hard for an allocation that it cannot finish.
        if file.metadata()?.len() < self.bytes && self.available() < self.bytes {
            return Ok(false);
        }
        match fallocate(&file, FallocateFlags::empty(), 0, self.bytes) {
            Ok(()) => Ok(true),
            Err(Errno::NOSPC | Errno::DQUOT) => file.set_len(0).map(|()| false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the room away; false when that was done before.
    pub(crate) fn release(&self) -> bool {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_there.swap(false, Ordering::AcqRel) {
            return false;
        }
        tracing::warn!("the disk is full: what was kept for healing is used from now on");
        let released = File::options().write(true).open(&self.path).and_then(|file| file.set_len(0));
        if let Err(error) = released {
            tracing::error!(%error, "the room that was kept cannot be given away");
        }
        true
    }

    /// Why services cannot write, when the disk is full; `health` is the store's.
    pub(crate) fn trouble(&self, health: &Health) -> Option<String> {
        let is_full = !self.refill() || (*health == Health::Full && self.available() < self.bytes);
        let folder = self.path.parent().unwrap_or(&self.path).display();
        is_full.then(|| {
            format!("the disk of {folder} is full: the state API refuses writes and workflows stand still until there is room; all else goes on")
        })
    }

    fn available(&self) -> u64 {
        let folder = self.path.parent().unwrap_or(&self.path);
        statvfs(folder).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }
}

impl ReservingStore {
    pub(crate) fn new(inner: Arc<dyn Store>, reserve: Arc<Reserve>) -> Self {
        Self { inner, reserve }
    }
}

/// Whether a batch writes for a service; those come after Standfast itself.
fn is_of_services(batch: &Batch) -> bool {
    batch.writes.iter().any(|write| matches!(write.space(), Space::Service(_)))
}

#[async_trait]
impl Store for ReservingStore {
    async fn commit(&self, batch: Batch) -> Result<Committed, CommitError> {
        if batch.writes.is_empty() {
            return self.inner.commit(batch).await;
        }
        if is_of_services(&batch) {
            return if self.reserve.refill() {
                self.inner.commit(batch).await
            } else {
                Err(CommitError::Full)
            };
        }
        match self.inner.commit(batch.clone()).await {
            Err(CommitError::Full) if self.reserve.release() => self.inner.commit(batch).await,
            done => done,
        }
    }

    async fn get(&self, space: &Space, key: &[u8]) -> Result<Option<Entry>, ReadError> {
        self.inner.get(space, key).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page, ReadError> {
        self.inner.scan(scan).await
    }

    fn watch(&self, space: &Space, prefix: &[u8]) -> watch::Receiver<Version> {
        self.inner.watch(space, prefix)
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.inner.health()
    }
}

#[cfg(test)]
mod tests {
    use standfast_runtime::Clock;
    use standfast_store::{Fault, MemoryStore};

    use super::*;

    fn of_a_service() -> Batch {
        Batch::new().put(&Space::Service("orders".parse().unwrap()), "k", "v")
    }

    fn of_ours() -> Batch {
        Batch::new().put(&Space::Table("control"), "k", "v")
    }

    #[tokio::test]
    async fn what_is_kept_goes_to_our_own_writes_and_is_kept_again_before_services_write() {
        let (folder, inner) = (tempfile::tempdir().unwrap(), Arc::new(MemoryStore::new(Clock::system())));
        let reserve = Reserve::keep_bytes(folder.path(), 8_192);
        let store = ReservingStore::new(Arc::clone(&inner) as Arc<dyn Store>, Arc::clone(&reserve));
        let kept = || std::fs::metadata(folder.path().join(FILE)).unwrap().len();
        assert_eq!(kept(), 8_192);
        inner.set_fault(Some(Fault::Full));
        assert_eq!(store.commit(of_a_service()).await, Err(CommitError::Full));
        assert_eq!(kept(), 8_192, "services get nothing of it");
        assert_eq!(store.commit(of_ours()).await, Err(CommitError::Full));
        assert_eq!(kept(), 0);
        inner.set_fault(None);
        store.commit(of_ours()).await.unwrap();
        assert_eq!(kept(), 0);
        store.commit(of_a_service()).await.unwrap();
        assert_eq!(kept(), 8_192);
    }

    #[tokio::test]
    async fn services_are_refused_until_there_is_room_to_keep() {
        let (folder, inner) = (tempfile::tempdir().unwrap(), MemoryStore::new(Clock::system()));
        let reserve = Reserve::keep_bytes(folder.path(), 1 << 60); // no disk has that
        let store = ReservingStore::new(Arc::new(inner), Arc::clone(&reserve));
        assert_eq!(store.commit(of_a_service()).await, Err(CommitError::Full));
        store.commit(of_ours()).await.unwrap();
        store.commit(Batch::new()).await.expect("asking is no write");
        assert!(reserve.trouble(&Health::Serving).is_some_and(|why| why.contains("full")));
    }

    #[test]
    fn a_folder_in_which_no_room_can_be_kept_refuses_nobody() {
        let reserve = Reserve::keep_bytes(Path::new("/proc/self"), 8_192);
        assert!(reserve.refill() && reserve.trouble(&Health::Serving).is_none());
    }
}
