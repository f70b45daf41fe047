//! Runs go over to another version of their document.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Engine, Refused};
use crate::decide::{Cause, Remark, Verdict, judge};
use crate::program::{Program, WorkflowName};
use crate::run::{Digest, Run, RunId, Status};

/// Whether a run can go over to another version of its document, and why not.
#[derive(Debug, Clone, PartialEq)]
pub struct Migration {
    /// Which run.
    pub id: RunId,
    /// How it stood.
    pub status: Status,
    /// What it was of.
    pub workflow: WorkflowName,
    /// By which document it went on: its digest.
    pub definition: Digest,
    /// The version that it was to go over to.
    pub version: String,
    /// That document's digest.
    pub to: Digest,
    /// Why it cannot, task by task; nothing when it can.
    pub reasons: Vec<Remark>,
    /// What there is to know of tasks, if it can.
    pub notes: Vec<Remark>,
    /// Where tasks that the run names stand in the other document, by where they stood; those that stand elsewhere.
    pub places: BTreeMap<Arc<str>, Arc<str>>,
}

impl Migration {
    /// Whether it goes by that document already, so that there is nothing to do.
    pub fn is_done_before(&self) -> bool {
        self.definition == self.to
    }

    /// Whether it went over, or can.
    pub fn goes(&self) -> bool {
        self.reasons.is_empty()
    }

    fn of(run: &Run, before: &Program, after: &Program) -> Self {
        let verdict = (run.definition != after.digest).then(|| judge(run, before, after));
        let (reasons, notes, places) = match verdict {
            Some(Verdict { reasons, notes, migrated }) => (reasons, notes, migrated.places),
            None => (Vec::new(), Vec::new(), BTreeMap::new()),
        };
        Self {
            id: run.id,
            status: run.status,
            workflow: before.name().clone(),
            definition: run.definition.clone(),
            version: after.name().version.clone(),
            to: after.digest.clone(),
            reasons,
            notes,
            places,
        }
    }
}

impl Engine {
    /// Has a run go on by another version of its document, `latest` for the newest; done when that is written. When it cannot nothing
    /// changes, and it is told why. With `is_dry` nothing changes either way: what is told is what would be at this moment.
    ///
    /// # Errors
    /// See [`Refused`]: the run has ended, there is none, or there is no such version.
    pub async fn migrate(&self, id: RunId, version: &str, is_dry: bool) -> Result<Migration, Refused> {
        self.check_driven()?;
        let run = match self.look(id).await {
            Ok((run, _)) => run,
            Err(Refused::NoRun(_)) if self.journal().ended(id).await?.is_some() => {
                return Err(Refused::Ended(id));
            }
            Err(why) => return Err(why),
        };
        let before = self.program_of(&run).await?;
        let name = WorkflowName { version: version.to_owned(), ..before.name().clone() };
        let after = self.program_named(&name)?;
        if is_dry {
            return Ok(Migration::of(&run, &before, &after));
        }
        // It may have got on since it was looked at: what was decided about is told.
        let run = self.tell(id, Cause::Migrate { to: Arc::clone(&after) }).await?;
        let before = self.program_of(&run).await?;
        Ok(Migration::of(&run, &before, &after))
    }
}
