//! What is known of a request's effect from its answer.

use std::fmt;

use bytes::Bytes;
use http::Response;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use standfast_runtime::http::ClientError;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum Outcome {
    /// 2xx: it was done.
    Acknowledged {
        /// The status.
        status: u16,
    },
    /// A definite answer that nothing was done.
    Refused {
        /// Which.
        why: Refusal,
    },
    /// Whether it was done cannot be told.
    Unknown {
        /// Why not.
        why: Doubt,
    },
}

/// Answers that say that nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// 4xx, but for 408.
    Status(u16),
    /// No connection was made.
    NotConnected,
    /// This machine had no file descriptor or port left for it: the generator's fault, not the system's.
    OutOfSockets,
}

/// Why an effect is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// 5xx, 408, and what is not an answer to a request like this (1xx, 3xx).
    Status(u16),
    /// The connection broke after the request was sent.
    Broken,
    /// The answer did not come in time.
    TimedOut,
    /// The answer was longer than is read.
    TooLong,
}

impl Outcome {
    /// Reads an answer, or the lack of one.
    pub(crate) fn of(answer: &Result<Response<Bytes>, ClientError>) -> Self {
        match answer {
            Ok(answer) => Self::of_status(answer.status().as_u16()),
            Err(ClientError::Connect { source, .. }) => {
                let own = [Errno::MFILE, Errno::NFILE, Errno::ADDRNOTAVAIL, Errno::NOBUFS, Errno::NOMEM];
                let is_own = Errno::from_io_error(source).is_some_and(|errno| own.contains(&errno));
                Self::Refused { why: if is_own { Refusal::OutOfSockets } else { Refusal::NotConnected } }
            }
            Err(ClientError::Broken { .. }) => Self::Unknown { why: Doubt::Broken },
            Err(ClientError::TimedOut { .. }) => Self::Unknown { why: Doubt::TimedOut },
            Err(ClientError::TooLong { .. }) => Self::Unknown { why: Doubt::TooLong },
        }
    }

    /// What a status says. 408 is the one 4xx that speaks of the connection and not of the request.
    pub const fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Acknowledged { status },
            408 => Self::Unknown { why: Doubt::Status(status) },
            400..=499 => Self::Refused { why: Refusal::Status(status) },
            _ => Self::Unknown { why: Doubt::Status(status) },
        }
    }

    /// Whether it was done.
    pub const fn is_acknowledged(&self) -> bool {
        matches!(self, Self::Acknowledged { .. })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Acknowledged { status }
            | Self::Refused { why: Refusal::Status(status) }
            | Self::Unknown { why: Doubt::Status(status) } => write!(f, "status {status}"),
            Self::Refused { why: Refusal::NotConnected } => f.write_str("no connection"),
            Self::Refused { why: Refusal::OutOfSockets } => f.write_str("no socket left on this machine"),
            Self::Unknown { why: Doubt::Broken } => f.write_str("connection broken"),
            Self::Unknown { why: Doubt::TimedOut } => f.write_str("timed out"),
            Self::Unknown { why: Doubt::TooLong } => f.write_str("answer too long"),
        }
    }
}
