//! What can go wrong between a request and a committed blueprint.

use standfast_platform::PlatformError;
use standfast_runtime::Elapsed;
use standfast_store::{CommitError, ReadError};

use crate::blueprint::ReadBlueprintError;
use crate::check::CheckError;
use crate::status::PlanPreview;

/// The platform was not of use.
#[derive(Debug, thiserror::Error)]
pub enum ReachError {
    /// It gave an error.
    #[error("the platform could not be {did}")]
    Failed {
        /// What was tried.
        did: &'static str,
        /// Why it failed.
        source: PlatformError,
    },
    /// It was silent.
    #[error("the platform could not be {did}")]
    Silent {
        /// What was tried.
        did: &'static str,
        /// For how long.
        source: Elapsed,
    },
}

/// The history in the store was not of use.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// It could not be read.
    #[error("the control's state could not be read from the store")]
    Read(#[source] ReadError),
    /// It could not be written.
    #[error("the control's state could not be written to the store")]
    Commit(#[source] CommitError),
    /// A row is missing that another names.
    #[error("the store has no {what}, although {named_by} names it")]
    Missing {
        /// Which row.
        what: String,
        /// Which other.
        named_by: &'static str,
    },
    /// A row cannot be read.
    #[error("the store's {what} is damaged")]
    Damaged {
        /// Which row.
        what: String,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A newer release wrote a row.
    #[error(
        "the store's {what} has format {found}, and this standfast reads format {supported}; use the release that wrote it"
    )]
    Format {
        /// Which row.
        what: String,
        /// The format that it has.
        found: u32,
        /// The format that is known.
        supported: u32,
    },
    /// The blueprint cannot be read.
    #[error(transparent)]
    Blueprint(#[from] ReadBlueprintError),
}

impl HistoryError {
    /// Whether only opening the store again, in a new process if need be, can help.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Read(ReadError::Stopped { .. }) => true,
            Self::Commit(CommitError::Stopped { .. } | CommitError::Unknown { .. }) => true,
            Self::Missing { .. } | Self::Damaged { .. } | Self::Format { .. } | Self::Blueprint(_) => true,
            Self::Read(_) | Self::Commit(_) => false,
        }
    }
}

/// A tick that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum TickError {
    /// The platform was not of use.
    #[error(transparent)]
    Platform(#[from] ReachError),
    /// The store was not of use.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The plan breaks a rule, which is a bug in the planner: nothing was done.
    #[error("the plan was refused by its check")]
    Check(#[from] CheckError),
    /// Other controls were faster each time.
    #[error("another control changed the target {0} times in a row")]
    Races(u32),
}

/// A request that was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The world moved since the plan was shown: look at the new one.
    #[error("the world has changed since plan {shown} was made; now it would be plan {}", now.plan)]
    WorldMoved {
        /// The plan given.
        shown: String,
        /// The plan as it is now.
        now: Box<PlanPreview>,
    },
    /// There is nothing of that name.
    #[error("there is no {0}")]
    Unknown(String),
    /// It failed on the way.
    #[error(transparent)]
    Tick(#[from] TickError),
    /// The loop has ended.
    #[error("the control loop has stopped")]
    Stopped,
}

/// A control loop that cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("the control loop cannot go on")]
pub struct RunError(#[from] pub HistoryError);

/// A stack that is not ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// Time is over.
    #[error("not ready in time: {}", missing.join("; "))]
    TimedOut {
        /// What is missing, in sentences.
        missing: Vec<String>,
    },
    /// It will not become ready by waiting.
    #[error("will not become ready: {}", reasons.join("; "))]
    GivenUp {
        /// Why, in sentences.
        reasons: Vec<String>,
    },
    /// The loop has ended.
    #[error("the control loop has stopped")]
    Stopped,
}
