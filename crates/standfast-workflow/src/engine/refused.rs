//! What the engine is asked and does not do, and why.

use serde_json::Value;
use standfast_runtime::with_causes;

use super::JournalError;
use crate::decide::{VALUE_BYTES_MAX, over_limits, size_of};
use crate::program::WorkflowName;
use crate::run::RunId;

/// What the engine is asked and does not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such workflow.
    #[error("there is no workflow {name}; known are: {known}")]
    NoWorkflow {
        /// What was asked for.
        name: WorkflowName,
        /// What there is.
        known: String,
    },
    /// There is no such run.
    #[error("there is no run {0}, or it ended so long ago that it is not kept any more")]
    NoRun(RunId),
    /// Its document has no such query.
    #[error("the workflow {workflow} has no query `{name}`; {known}")]
    NoQuery {
        /// Of which workflow.
        workflow: WorkflowName,
        /// What was asked for.
        name: String,
        /// What there is, as a sentence.
        known: String,
    },
    /// It has ended.
    #[error("the run {0} has ended")]
    Ended(RunId),
    /// Too much happens to the run at the same time. Repeat it after a moment.
    #[error("too much happens to the run {0} at the moment")]
    Busy(RunId),
    /// More is begun than can be done: a run that was started now would have to wait for too long.
    #[error(
        "{backlog} runs wait for their turn, about {wait_s} s: none is started before some of them are done"
    )]
    Overloaded {
        /// How many wait.
        backlog: usize,
        /// For how long a new one would, in seconds.
        wait_s: u64,
        /// When to start it again, in seconds from now.
        again_s: u64,
    },
    /// What was given is too large.
    #[error("{what} is larger than {max} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// This run is not driven on, or cannot be read.
    #[error("the run is not driven on: {0}")]
    Failed(String),
    /// What was given is wrong.
    #[error("{0}")]
    Wrong(String),
    /// It stands so that this cannot be done.
    #[error("{0}")]
    Unfit(String),
    /// A run with this key was started before.
    #[error("a run was started with this key before")]
    StartedBefore,
    /// There is no room on the disk: nothing was begun.
    #[error("the disk is full, so nothing was begun; what has begun goes on when there is room")]
    Full,
    /// There is no room on the disk, so this waits.
    #[error(
        "the disk is full: this is done when there is room, unless the process ends before that; ask again"
    )]
    Delayed,
    /// Nothing is driven any more.
    #[error("runs are not driven any more: {0}")]
    Stopped(String),
}

impl From<JournalError> for Refused {
    fn from(why: JournalError) -> Self {
        match why {
            JournalError::StartedBefore => Self::StartedBefore,
            JournalError::Full => Self::Full,
            // Of one run; the others go on.
            JournalError::RunTooLarge { .. } | JournalError::Unreadable(_) => Self::Failed(with_causes(&why)),
            why => Self::Stopped(with_causes(&why)),
        }
    }
}

pub(super) fn check_limits(what: &'static str, value: &Value) -> Result<(), Refused> {
    if size_of(value) > VALUE_BYTES_MAX {
        return Err(Refused::TooLarge { what, max: VALUE_BYTES_MAX });
    }
    match over_limits(value) {
        Some(found) => Err(Refused::Wrong(format!("{what} {found}"))),
        None => Ok(()),
    }
}

/// An event has what `CloudEvents` 1.0 demands.
pub(super) fn check_event(event: &Value) -> Result<(), Refused> {
    for name in ["id", "source", "type"] {
        if event.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err(Refused::Wrong(format!("an event has a text `{name}` (CloudEvents 1.0)")));
        }
    }
    match event.get("specversion").and_then(Value::as_str) {
        None | Some("1.0") => Ok(()),
        Some(other) => Err(Refused::Wrong(format!("`specversion` is `{other}`, only 1.0 is known"))),
    }
}
