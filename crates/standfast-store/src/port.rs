use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::{Batch, CommitError, Entry, Page, ReadError, Scan, Space, Version};

/// What a batch that was done got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// The version of everything the batch wrote. For a batch without writes, the version of the last batch that had some.
    pub version: Version,
}

/// How a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It reads and writes.
    Serving,
    /// It reads; writes are refused until there is room on the disk.
    Full,
    /// It does nothing any more, for this reason. Open it again, in a new process if need be.
    Stopped(Arc<str>),
}

/// Where state is kept.
///
/// What every implementation promises, and `conformance` checks:
///
/// - **Atomic.** A batch is done wholly or not at all, for readers, for other batches and over a crash at any point.
/// - **Conditional.** Conditions and writes of a batch are one step in the order of all batches. That order is the versions'.
/// - **Durable.** `Ok` from [`Store::commit`] means that the batch outlives the loss of power, as far as the store outlives
///   the process at all.
/// - **Up to date.** A read that begins after a commit was answered sees it, from whichever task. A read never sees what a
///   crash could still undo.
/// - **Ordered.** Keys are bytes and come in the order of bytes. One page of a scan is of one moment; two pages need not be.
/// - **Ending.** An entry with a stamp is absent for reads and conditions from that stamp of the store's clock on. Its room is
///   given back later, in bounded steps. Expiring is no write: it has no version and wakes no watch.
/// - **Watched.** A watch may skip versions but always shows the last one in the end.
#[async_trait]
pub trait Store: Send + Sync + Debug {
    /// Does a batch, if all its conditions hold.
    ///
    /// # Errors
    /// See [`CommitError`]: each says whether anything was done and whether repeating is of use.
    ///
    /// # Cancellation
    /// Dropping it does not take the batch back: it may be done all the same.
    async fn commit(&self, batch: Batch) -> Result<Committed, CommitError>;

    /// Reads one entry; `None` when it is absent. Cancel safe.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn get(&self, space: &Space, key: &[u8]) -> Result<Option<Entry>, ReadError>;

    /// Reads a page of entries in order. Cancel safe.
    ///
    /// # Errors
    /// See [`ReadError`].
    async fn scan(&self, scan: &Scan) -> Result<Page, ReadError>;

    /// Wakes when a batch touched a key of `space` that begins with `prefix`. The value is the version of the last such batch,
    /// or of some batch before the call; look at the entries after waking, and once at the beginning, after this call.
    /// [`watch::Receiver::changed`] fails once the store is gone.
    fn watch(&self, space: &Space, prefix: &[u8]) -> watch::Receiver<Version>;

    /// How the store is, now and from now on.
    fn health(&self) -> watch::Receiver<Health>;
}
