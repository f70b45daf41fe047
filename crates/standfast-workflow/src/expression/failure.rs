//! Why an expression has no value.

use std::io;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Why an expression has no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExpressionFailed {
    /// jq raised an error; its message, shortened.
    #[error("{0}")]
    Raised(String),
    /// It yields more than one value.
    #[error("it yields more than one value: put it in [ ] for an array of them")]
    Several,
    /// It did not end in time.
    #[error("it did not end within {} ms", after.as_millis())]
    Late {
        /// How long it was let run.
        after: Duration,
    },
    /// The process that evaluated it ended.
    #[error("its evaluation broke off: {how}")]
    Ended {
        /// What the process died of.
        how: String,
    },
    /// What it is given, or what it yields, is too large.
    #[error("it is given, or yields, more than {max} bytes")]
    TooLarge {
        /// The most that is allowed, in bytes.
        max: usize,
    },
    /// What it is given, or what it yields, is nested too deeply.
    #[error("it is given, or yields, values within more than {max} others")]
    TooDeep {
        /// The most that is allowed.
        max: usize,
    },
    /// Too many others wait, or this one has waited for too long.
    #[error("the evaluators of expressions are busy")]
    Busy,
    /// The process that evaluates expressions cannot be started.
    #[error("cannot start the process that evaluates expressions")]
    CannotStart(#[source] io::Error),
}

/// What the evaluation itself can fail with, in this process or in a child: the part of [`ExpressionFailed`] that crosses the pipe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Fault {
    Raised(String),
    Several,
    TooLarge,
    TooDeep,
}

impl Fault {
    pub(super) fn of_output(self, output_bytes_max: usize) -> ExpressionFailed {
        match self {
            Self::Raised(message) => ExpressionFailed::Raised(message),
            Self::Several => ExpressionFailed::Several,
            Self::TooLarge => ExpressionFailed::TooLarge { max: output_bytes_max },
            Self::TooDeep => ExpressionFailed::TooDeep { max: super::value::DEPTH_MAX },
        }
    }
}
