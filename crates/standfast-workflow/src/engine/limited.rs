//! What is kept of runs that are let in before they begin: who waits and who has a slot follows from the runs themselves; when runs
//! began is kept besides, since those that have ended count for a while, too.

use std::time::Duration;

use standfast_model::Stamp;
use standfast_store::{Batch, Scan, Space};

use super::gate::rate_key;
use super::journal::{Journal, JournalError, sequence_of};
use crate::run::{Digest, Limits, Run, RunId};

/// By the digest of a key, time and run: runs that began, as long as that counts.
const BEGUN: Space = Space::Table("workflow-begun");
/// Bytes of a name in [`BEGUN`] after the digest: the time and the run.
const REST: usize = 24;

/// A run that is let in before it begins, or takes turns.
#[derive(Debug)]
pub(super) struct Limited {
    pub(super) limits: Limits,
    pub(super) started_at: Stamp,
    pub(super) is_queued: bool,
    /// When it is due, unless it is let in.
    pub(super) due: Option<Stamp>,
}

/// A run began.
#[derive(Debug, Clone)]
pub(super) struct Begun {
    /// The digest of its key.
    pub(super) key: Digest,
    pub(super) at: Stamp,
    /// How long that counts.
    pub(super) every: Duration,
}

impl Limited {
    /// What is to be known of a run; `None` when nothing limits it now.
    pub(super) fn of(run: &Run) -> Option<(RunId, Self)> {
        let limits = run.limits.as_deref()?.clone();
        let (started_at, is_queued, due) = (run.started_at, run.is_queued(), run.due());
        Some((run.id, Self { limits, started_at, is_queued, due }))
    }
}

impl Begun {
    /// What counts, of a run that begins now, for how often others do.
    pub(super) fn of(run: &Run, at: Stamp) -> Option<Self> {
        let limits = run.limits.as_deref()?;
        let (key, rate) = rate_key(limits).zip(limits.rate.as_ref())?;
        Some(Self { key, at, every: rate.every() })
    }

    pub(super) fn put(&self, batch: Batch, run: RunId) -> Batch {
        let Self { key, at, every } = self;
        let name = [key.as_str().as_bytes(), &at.as_micros().to_be_bytes(), &run.to_bytes()].concat();
        let every_micros = u64::try_from(every.as_micros()).unwrap_or(u64::MAX);
        batch.put_until(&BEGUN, name, every_micros.to_be_bytes().to_vec(), Some(at.plus(*every)))
    }
}

impl Journal {
    /// Runs that began lately, by what limits how often.
    pub(super) async fn begun(&self) -> Result<Vec<Begun>, JournalError> {
        let (mut found, mut scan) = (Vec::new(), Scan::of(BEGUN, ""));
        loop {
            let page = self.scan(&scan).await?;
            for entry in &page.entries {
                let Some(key) = entry.key.len().checked_sub(REST) else { continue };
                let (key, rest) = entry.key.split_at(key);
                found.push(Begun {
                    key: Digest::from_text(&String::from_utf8_lossy(key)),
                    at: Stamp::from_micros(sequence_of(rest)),
                    every: Duration::from_micros(sequence_of(&entry.value)),
                });
            }
            let Some(next) = page.next else { return Ok(found) };
            scan = scan.after(next);
        }
    }
}
