use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};

use super::EmbeddedOptions;
use super::checkpoint::{self, Carried, Checkpoints};
use super::shared::Shared;
use super::table;
use crate::{Batch, CommitError, Committed, Failed, Version};

/// The most batches that share one fsync; further ones wait for the next.
pub const GROUP_BATCHES_MAX: usize = 512;
/// The most writes that share one fsync.
pub const GROUP_WRITES_MAX: usize = 1_024;
/// Keys and values that share one fsync, in bytes. The first batch is taken whatever it weighs.
pub const GROUP_BYTES_MAX: usize = 4 << 20;
/// Expired entries that one group removes at most, besides as many as it writes.
const SWEEP_MAX: usize = 64;
/// When the log is longer than so many times [`EmbeddedOptions::checkpoint_pages`], a checkpoint waits for readers.
const LOG_GROWTH_MAX: i64 = 8;
/// Bytes of a page, for estimates.
const PAGE_BYTES: usize = 4_096;

/// One batch and whom to answer.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) batch: Batch,
    pub(super) bytes: usize,
    pub(super) reply: oneshot::Sender<Result<Committed, CommitError>>,
}

/// What became of a batch within the group's transaction, before that is durable.
pub(super) enum Outcome {
    Done(Version),
    Refused(Vec<Failed>),
}

/// Why a group was not done.
enum Trouble {
    /// No room; nothing was done.
    Full,
    /// Another program holds the file; nothing was done.
    Busy,
    /// The store must stop; nothing was done.
    Before(rusqlite::Error),
    /// The store must stop; the group may be on the disk.
    During(rusqlite::Error),
}

impl Trouble {
    fn before(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::Full,
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            _ => Self::Before(error),
        }
    }

    fn during(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            // The log's last page, which makes a transaction valid, was not written whole: it was not done.
            Some(ErrorCode::DiskFull) => Self::Full,
            _ => Self::During(error),
        }
    }
}

/// The one who writes.
pub(super) struct Committer {
    pub(super) connection: Connection,
    pub(super) queue: mpsc::Receiver<Request>,
    pub(super) shared: Arc<Shared>,
    pub(super) options: EmbeddedOptions,
    /// The version of the last batch in the open transaction, or of the last durable one.
    pub(super) version: Version,
    /// Pages written to the log since the last checkpoint, at most.
    pub(super) log_pages: usize,
    pub(super) checkpoints: Checkpoints,
    #[cfg(feature = "planted-bugs")]
    pub(super) batches: u64,
    #[cfg(feature = "planted-bugs")]
    pub(super) clock: standfast_runtime::Clock,
}

impl Committer {
    /// Commits groups until the store is dropped.
    pub(super) fn run(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            #[cfg(feature = "planted-bugs")]
            if self.options.plant == Some(super::Plant::AckBeforeCommit) {
                self.acknowledge_then_commit(first);
                continue;
            }
            let group = self.take_group(first);
            self.serve(group);
            self.tend_log();
        }
    }

    /// Takes what waits, within the limits of a group.
    fn take_group(&mut self, first: Request) -> Vec<Request> {
        let (mut bytes, mut writes) = (first.bytes, first.batch.writes.len());
        let mut group = vec![first];
        while group.len() < GROUP_BATCHES_MAX && bytes < GROUP_BYTES_MAX && writes < GROUP_WRITES_MAX {
            let Ok(next) = self.queue.try_recv() else { break };
            bytes += next.bytes;
            writes += next.batch.writes.len();
            group.push(next);
        }
        self.shared.queued_bytes.fetch_sub(bytes, Ordering::SeqCst);
        group
    }

    /// Does a group and answers it. Watches wake before the answers: who has an answer knows that they did.
    fn serve(&mut self, group: Vec<Request>) {
        if let Some(reason) = self.shared.stopped() {
            return answer_all(group, &CommitError::Stopped { reason });
        }
        let before = self.version;
        let outcomes = match self.commit(&group) {
            Ok(outcomes) => outcomes,
            Err(trouble) => {
                self.version = before;
                let error = self.settle(trouble);
                return answer_all(group, &error);
            }
        };
        self.shared.batches.fetch_add(group.len() as u64, Ordering::Relaxed);
        if self.version > before {
            self.shared.commits.fetch_add(1, Ordering::Relaxed);
            self.shared.set_version(self.version);
            self.shared.set_full(false);
        }
        for (request, outcome) in group.iter().zip(&outcomes) {
            if let Outcome::Done(version) = outcome {
                self.shared.watches.wake(&request.batch.writes, *version);
            }
        }
        for (request, outcome) in group.into_iter().zip(outcomes) {
            answer(request, outcome);
        }
    }

    /// One transaction for the group: each batch's conditions see the batches before it.
    fn commit(&mut self, group: &[Request]) -> Result<Vec<Outcome>, Trouble> {
        let before = self.version;
        self.connection.execute_batch("BEGIN IMMEDIATE").map_err(Trouble::before)?;
        let outcomes = group
            .iter()
            .map(|request| self.apply(&request.batch))
            .collect::<rusqlite::Result<Vec<_>>>()
            .map_err(Trouble::before)?;
        if self.version == before {
            // Nothing to make durable: what the conditions saw, is.
            self.connection.execute_batch("ROLLBACK").map_err(Trouble::before)?;
            return Ok(outcomes);
        }
        self.finish(group.iter().map(|request| request.batch.writes.len()).sum())?;
        self.log_pages += group.iter().map(pages_of).sum::<usize>();
        Ok(outcomes)
    }

    /// Checks a batch's conditions and makes its writes within the open transaction.
    pub(super) fn apply(&mut self, batch: &Batch) -> rusqlite::Result<Outcome> {
        let failed = table::failed_conditions(&self.connection, batch, self.shared.now_seen())?;
        #[cfg(feature = "planted-bugs")]
        let failed =
            if self.options.plant == Some(super::Plant::IgnoreConditions) { Vec::new() } else { failed };
        if !failed.is_empty() {
            return Ok(Outcome::Refused(failed));
        }
        if batch.writes.is_empty() {
            return Ok(Outcome::Done(self.version));
        }
        self.version = self.version.next();
        #[cfg(feature = "planted-bugs")]
        if self.drops_this_one() {
            return Ok(Outcome::Done(self.version));
        }
        table::write(&self.connection, &batch.writes, self.version)?;
        Ok(Outcome::Done(self.version))
    }

    /// Ends the open transaction durably.
    fn finish(&self, writes: usize) -> Result<(), Trouble> {
        table::set_version(&self.connection, self.version).map_err(Trouble::before)?;
        table::sweep(&self.connection, self.shared.now_seen(), SWEEP_MAX + writes)
            .map_err(Trouble::before)?;
        self.connection.execute_batch("COMMIT").map_err(Trouble::during)
    }

    /// Draws the consequence of a group that was not done, and says what its callers hear.
    fn settle(&mut self, trouble: Trouble) -> CommitError {
        match trouble {
            Trouble::Before(error) => {
                CommitError::Stopped { reason: self.shared.stop(&format!("cannot write: {error}")) }
            }
            Trouble::During(error) => {
                CommitError::Unknown { reason: self.shared.stop(&format!("cannot commit: {error}")) }
            }
            Trouble::Full | Trouble::Busy => {
                if let Err(error) = self.roll_back() {
                    return CommitError::Stopped {
                        reason: self.shared.stop(&format!("cannot roll back: {error}")),
                    };
                }
                if matches!(trouble, Trouble::Busy) {
                    return CommitError::Busy;
                }
                self.shared.set_full(true);
                // What the log holds may fit into free pages of the file, and the log can then be used anew.
                checkpoint::carry(&self.connection, &self.shared, false);
                CommitError::Full
            }
        }
    }

    fn roll_back(&self) -> rusqlite::Result<()> {
        // SQLite has rolled back by itself after some errors.
        if self.connection.is_autocommit() { Ok(()) } else { self.connection.execute_batch("ROLLBACK") }
    }

    /// Keeps the log short, between groups.
    fn tend_log(&mut self) {
        if self.checkpoints.has_carried() {
            let longest = i64::from(self.options.checkpoint_pages) * LOG_GROWTH_MAX;
            if let Carried::Yes { log_pages } = checkpoint::carry(&self.connection, &self.shared, false)
                && log_pages > longest
            {
                checkpoint::carry(&self.connection, &self.shared, true);
            }
        }
        if self.log_pages >= self.options.checkpoint_pages as usize && self.checkpoints.ask() {
            self.log_pages = 0;
        }
    }
}

/// Pages that a batch adds to the log, at most: one for each write, its value's own, and the version's.
fn pages_of(request: &Request) -> usize {
    1 + request.batch.writes.len() + request.bytes / PAGE_BYTES
}

/// Answers one batch of a group that is durable. A caller that has gone away wants no answer.
pub(super) fn answer(request: Request, outcome: Outcome) {
    let _gone = request.reply.send(match outcome {
        Outcome::Done(version) => Ok(Committed { version }),
        Outcome::Refused(failed) => Err(CommitError::Conditions { failed }),
    });
}

fn answer_all(group: Vec<Request>, error: &CommitError) {
    for request in group {
        let _gone = request.reply.send(Err(error.clone()));
    }
}
