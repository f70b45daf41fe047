use std::io;

use http::StatusCode;
use standfast_model::ServiceName;

/// Why the gateway did not start or does not do as told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A worker thread or its runtime could not be made.
    #[error("cannot start gateway worker {worker}")]
    Worker {
        /// Which one, counted from 0.
        worker: usize,
        /// Why.
        source: io::Error,
    },
    /// A listening socket could not be shared among the workers or prepared.
    #[error("cannot use a listening socket of the gateway")]
    Socket {
        /// Why.
        source: io::Error,
    },
    /// The gateway is draining or has ended.
    #[error("the gateway has ended")]
    Ended,
}

/// Why the gateway itself answers a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0}")]
    BadRequest(&'static str),
    #[error("no route is for this host and path")]
    NoRoute,
    #[error("no replica of `{0}` is ready")]
    NoReplica(ServiceName),
    #[error("too many requests wait for a replica of `{0}`")]
    TooManyHeld(ServiceName),
    #[error("the request's time was over before a replica of `{0}` answered")]
    Deadline(ServiceName),
    #[error("the replica of `{0}` broke off after the request was sent; its effect is unknown")]
    Broken(ServiceName),
    #[error("CONNECT is not served here")]
    Connect,
}

impl Refusal {
    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) => StatusCode::BAD_REQUEST,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoReplica(_) | Self::TooManyHeld(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Deadline(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Broken(_) => StatusCode::BAD_GATEWAY,
            Self::Connect => StatusCode::NOT_IMPLEMENTED,
        }
    }

    /// The value of `Standfast-Reason`: a word for programs.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) => "bad-request",
            Self::NoRoute => "no-route",
            Self::NoReplica(_) => "no-replica-ready",
            Self::TooManyHeld(_) => "too-many-held",
            Self::Deadline(_) => "deadline",
            Self::Broken(_) => "replica-broke-off",
            Self::Connect => "connect-not-served",
        }
    }
}
