use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;

use async_trait::async_trait;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use super::committer::Request;
use super::reader::Read;
use super::shared::{EmbeddedStats, Shared};
use crate::batch::check_key;
use crate::{Batch, CommitError, Committed, Entry, Health, Page, ReadError, Scan, Space, Store, Version};

/// What is reported when a thread of the store has ended though the store is in use.
const THREAD_GONE: &str = "a thread of the store has ended";

/// A store in a folder of this machine. Dropping it waits for the group at hand (one fsync) and frees the folder.
#[derive(Debug)]
pub struct EmbeddedStore {
    /// `None` only while dropping.
    queue: Option<mpsc::Sender<Request>>,
    reads: Option<mpsc::Sender<Read>>,
    shared: Arc<Shared>,
    queue_bytes_max: usize,
    threads: Vec<JoinHandle<()>>,
    /// Held as long as any thread may touch the files.
    lock: File,
}

impl EmbeddedStore {
    pub(super) const fn new(
        queue: mpsc::Sender<Request>,
        reads: mpsc::Sender<Read>,
        shared: Arc<Shared>,
        queue_bytes_max: usize,
        threads: Vec<JoinHandle<()>>,
        lock: File,
    ) -> Self {
        Self { queue: Some(queue), reads: Some(reads), shared, queue_bytes_max, threads, lock }
    }

    /// The version of the last batch that is durable.
    pub fn version(&self) -> Version {
        self.shared.version()
    }

    /// What it has done since it was opened.
    pub fn stats(&self) -> EmbeddedStats {
        self.shared.stats()
    }

    fn stopped(&self) -> Arc<str> {
        self.shared.stop(THREAD_GONE)
    }

    /// Puts a read into the queue and waits for its answer.
    async fn read<T>(
        &self,
        read: impl FnOnce(oneshot::Sender<Result<T, ReadError>>) -> Read,
    ) -> Result<T, ReadError> {
        if let Some(reason) = self.shared.stopped() {
            return Err(ReadError::Stopped { reason });
        }
        let (reply, answer) = oneshot::channel();
        let Some(reads) = &self.reads else { return Err(ReadError::Stopped { reason: self.stopped() }) };
        match reads.try_send(read(reply)) {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(ReadError::Stopped { reason: self.stopped() })),
            Err(TrySendError::Full(_)) => Err(ReadError::Busy),
            Err(TrySendError::Closed(_)) => Err(ReadError::Stopped { reason: self.stopped() }),
        }
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        drop((self.queue.take(), self.reads.take()));
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                self.shared.stop(THREAD_GONE);
            }
        }
        // Closing the file is not enough: a process that this one is just starting has it open too until it runs its program.
        if let Err(error) = self.lock.unlock() {
            tracing::warn!(%error, "cannot give back the lock on the store's folder");
        }
    }
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn commit(&self, batch: Batch) -> Result<Committed, CommitError> {
        batch.check().map_err(CommitError::TooLarge)?;
        if let Some(reason) = self.shared.stopped() {
            return Err(CommitError::Stopped { reason });
        }
        self.shared.now();
        let bytes = batch.bytes();
        let queued = self.shared.queued_bytes.fetch_add(bytes, Ordering::SeqCst) + bytes;
        let (reply, answer) = oneshot::channel();
        let request = Request { batch, bytes, reply };
        let sent = match &self.queue {
            Some(queue) if queued <= self.queue_bytes_max => queue.try_send(request),
            Some(_) => Err(TrySendError::Full(request)),
            None => Err(TrySendError::Closed(request)),
        };
        match sent {
            Ok(()) => answer.await.unwrap_or_else(|_| Err(CommitError::Unknown { reason: self.stopped() })),
            Err(refused) => {
                self.shared.queued_bytes.fetch_sub(bytes, Ordering::SeqCst);
                Err(match refused {
                    TrySendError::Full(_) => CommitError::Busy,
                    TrySendError::Closed(_) => CommitError::Stopped { reason: self.stopped() },
                })
            }
        }
    }

    async fn get(&self, space: &Space, key: &[u8]) -> Result<Option<Entry>, ReadError> {
        check_key(key).map_err(ReadError::TooLarge)?;
        let now = self.shared.now();
        self.read(|reply| Read::Get { space: space.clone(), key: key.into(), now, reply }).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page, ReadError> {
        let now = self.shared.now();
        self.read(|reply| Read::Scan { scan: scan.clone(), now, reply }).await
    }

    fn watch(&self, space: &Space, prefix: &[u8]) -> watch::Receiver<Version> {
        self.shared.watches.subscribe(space, prefix, self.shared.version())
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.shared.health.subscribe()
    }
}
