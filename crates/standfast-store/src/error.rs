use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::Version;

/// A key or batch outside the limits. Repeating it is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TooLarge {
    /// A key has at least one byte.
    #[error("the key is empty")]
    EmptyKey,
    /// More than is allowed.
    #[error("{found} {what}, at most {max} are allowed")]
    Over {
        /// Of what.
        what: &'static str,
        /// How much there is.
        found: usize,
        /// How much may be.
        max: usize,
    },
}

/// A condition that did not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failed {
    /// Its place in the batch, from 0.
    pub index: usize,
    /// What is there instead: the entry's version, or `None` when it is absent.
    pub found: Option<Version>,
}

/// A batch that was not done, or of which that is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Nothing was done, since conditions do not hold. Read again before repeating.
    #[error("{} of the batch's conditions did not hold", failed.len())]
    Conditions {
        /// All that did not hold, in their order.
        failed: Vec<Failed>,
    },
    /// Nothing was done, and repeating the same is of no use.
    #[error("the batch is over the store's limits")]
    TooLarge(#[source] TooLarge),
    /// Nothing was done: too many batches wait already. Repeat after a moment.
    #[error("the store's queue is full")]
    Busy,
    /// Nothing was done: there is no room on the disk. Reads go on; writes come back by themselves when there is room.
    #[error("the store's disk is full")]
    Full,
    /// Nothing was done: the store has stopped and stays so until it is opened again.
    #[error("the store has stopped: {reason}")]
    Stopped {
        /// What made it stop.
        reason: Arc<str>,
    },
    /// The store stopped while it made this batch durable: it was done wholly or not at all, and only opening the store again
    /// tells. Repeat it with conditions that make repeating harmless.
    #[error("whether the batch was done is not known, since the store stopped: {reason}")]
    Unknown {
        /// What made it stop.
        reason: Arc<str>,
    },
}

impl CommitError {
    /// Whether the same batch may succeed later.
    pub const fn may_repeat(&self) -> bool {
        !matches!(self, Self::Conditions { .. } | Self::TooLarge(_))
    }

    /// Whether nothing of the batch was done for certain.
    pub const fn was_not_done(&self) -> bool {
        !matches!(self, Self::Unknown { .. })
    }
}

/// A read that could not be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The key is outside the limits.
    #[error("the key is outside the store's limits")]
    TooLarge(#[source] TooLarge),
    /// Too many reads wait already. Repeat after a moment.
    #[error("the store's queue of reads is full")]
    Busy,
    /// The store has stopped and stays so until it is opened again.
    #[error("the store has stopped: {reason}")]
    Stopped {
        /// What made it stop.
        reason: Arc<str>,
    },
}

/// A store that could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error(
        "the store in `{}` is in use by another process (waited {} ms); stop that process, or give this one another data folder",
        folder.display(), waited.as_millis()
    )]
    Locked {
        /// The store's folder.
        folder: PathBuf,
        /// How long this one waited for the other.
        waited: Duration,
    },
    /// It was written by another release.
    #[error(
        "the store in `{}` has format {found}, and this standfast reads format {supported}; use the standfast release that wrote it, or move the folder away to begin with an empty store",
        folder.display()
    )]
    Format {
        /// The store's folder.
        folder: PathBuf,
        /// The format that it has.
        found: i64,
        /// The format that this release reads and writes.
        supported: i64,
    },
    /// There is an SQLite file, but not one of ours.
    #[error("`{}` is not a standfast store; give another data folder, or move that file away", file.display())]
    NotAStore {
        /// The file.
        file: PathBuf,
    },
    /// The file does not hold together.
    #[error("the store file `{}` is damaged; restore it from a backup", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What SQLite says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The operating system refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
