//! Carrying the log into the database file, beside the commits.
//!
//! Most of a checkpoint (random writes and the file's fsync, tens of milliseconds) runs on a thread of its own while commits
//! go on. The committer then carries over the little that was committed meanwhile, since only a log that is carried over
//! wholly is begun anew. It does so only after the thread's success: after a failed fsync nothing may be carried over again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::mpsc;

use super::shared::Shared;
use super::table;

/// What the thread is at.
const IDLE: u8 = 0;
const ASKED: u8 = 1;
const CARRIED: u8 = 2;

/// The committer's side.
#[derive(Debug)]
pub(super) struct Checkpoints {
    ask: mpsc::Sender<()>,
    state: Arc<AtomicU8>,
}

/// The thread's side.
#[derive(Debug)]
pub(super) struct Checkpointer {
    asked: mpsc::Receiver<()>,
    state: Arc<AtomicU8>,
}

/// Both sides.
pub(super) fn pair() -> (Checkpoints, Checkpointer) {
    let ((ask, asked), state) = (mpsc::channel(1), Arc::new(AtomicU8::new(IDLE)));
    (Checkpoints { ask, state: Arc::clone(&state) }, Checkpointer { asked, state })
}

impl Checkpoints {
    /// Asks for a checkpoint; false when one is at work.
    pub(super) fn ask(&self) -> bool {
        let is_idle = self.state.compare_exchange(IDLE, ASKED, Ordering::SeqCst, Ordering::SeqCst).is_ok();
        is_idle && self.ask.try_send(()).is_ok()
    }

    /// Whether the thread has carried over what there was; says so once.
    pub(super) fn has_carried(&self) -> bool {
        self.state.compare_exchange(CARRIED, IDLE, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// Carries the log over whenever asked, until the store is dropped or stops.
pub(super) fn run(connection: &Connection, mut checkpointer: Checkpointer, shared: &Shared) {
    while let Some(()) = checkpointer.asked.blocking_recv() {
        match carry(connection, shared, false) {
            Carried::Stopped => return,
            Carried::Yes { .. } => checkpointer.state.store(CARRIED, Ordering::SeqCst),
            Carried::No => checkpointer.state.store(IDLE, Ordering::SeqCst),
        }
    }
}

/// What came of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carried {
    /// All or part, as far as readers allowed; the log has so many pages.
    Yes { log_pages: i64 },
    /// No room in the file's file system, or another program holds the file. The log still has everything.
    No,
    /// The store has stopped.
    Stopped,
}

/// Carries the log over. With `waits_for_readers`, so that it is begun anew for certain.
pub(super) fn carry(connection: &Connection, shared: &Shared, waits_for_readers: bool) -> Carried {
    if shared.stopped().is_some() {
        return Carried::Stopped;
    }
    match table::checkpoint(connection, waits_for_readers) {
        Ok(done) => {
            shared.checkpoints.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(done.log_pages, done.done_pages, "checkpoint");
            Carried::Yes { log_pages: done.log_pages }
        }
        Err(error) => match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull | ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Carried::No,
            _ => {
                shared.stop(&format!("cannot checkpoint: {error}"));
                Carried::Stopped
            }
        },
    }
}
