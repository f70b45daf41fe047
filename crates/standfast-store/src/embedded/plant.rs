//! Wrong on purpose: each plant breaks one promise of the store, so that whoever checks the promise can be checked.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::committer::{Committer, Outcome, Request, answer};
use super::table;

/// What is wrong with the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// A batch is acknowledged at once and committed up to 300 ms later: killing the process loses acknowledged batches.
    AckBeforeCommit,
    /// One batch in 1,000 is acknowledged and not done.
    DropOneWriteIn1000,
    /// A batch is done though its conditions do not hold: a repeated one is done twice.
    IgnoreConditions,
}

/// How long after acknowledging the first batch a group is committed.
const LAZY: Duration = Duration::from_millis(300);

impl Committer {
    /// Whether this batch is the one in 1,000.
    pub(super) fn drops_this_one(&mut self) -> bool {
        self.batches += 1;
        self.options.plant == Some(Plant::DropOneWriteIn1000) && self.batches.is_multiple_of(1_000)
    }

    /// Acknowledges what comes within [`LAZY`] and commits then.
    pub(super) fn acknowledge_then_commit(&mut self, first: Request) {
        let end = self.clock.now().plus(LAZY);
        let result = self.connection.execute_batch("BEGIN IMMEDIATE").and_then(|()| {
            self.acknowledge(first)?;
            while self.clock.now() < end {
                match self.queue.try_recv() {
                    Ok(request) => self.acknowledge(request)?,
                    Err(_) => self.clock.block(Duration::from_millis(1)),
                }
            }
            table::set_version(&self.connection, self.version)?;
            self.connection.execute_batch("COMMIT")
        });
        if let Err(error) = result {
            self.shared.stop(&format!("cannot commit: {error}"));
        }
    }

    fn acknowledge(&mut self, request: Request) -> rusqlite::Result<()> {
        self.shared.queued_bytes.fetch_sub(request.bytes, Ordering::SeqCst);
        let outcome = self.apply(&request.batch)?;
        self.shared.set_version(self.version);
        if let Outcome::Done(version) = outcome {
            self.shared.watches.wake(&request.batch.writes, version);
        }
        answer(request, outcome);
        Ok(())
    }
}
