use std::io;
use std::time::Duration;

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
    #[error("the request's head is too long or has too many fields")]
    HeadTooLarge,
    #[error("the request's body is longer than is taken here")]
    BodyTooLarge,
    #[error("only `100-continue` can be expected here")]
    Expectation,
    #[error("only HTTP/1.0 and HTTP/1.1 are spoken in this form")]
    Version,
    #[error("CONNECT is not served here")]
    Connect,
    #[error("no route is for this host and path")]
    NoRoute,
    #[error("no replica of `{0}` is ready")]
    NoReplica(ServiceName),
    #[error("too many requests wait for a replica of `{0}`")]
    TooManyHeld(ServiceName),
    #[error("`{0}` has as much to do as it can")]
    Shed(ServiceName, Duration),
    #[error("this is more often than is allowed here")]
    RateLimited(Duration),
    #[error("too many requests of this route are under way")]
    RouteFull,
    #[error("the request's time was over before a replica of `{0}` answered")]
    Deadline(ServiceName),
    #[error("this `Idempotency-Key` was used for another request to `{0}`; a new request needs a new one")]
    KeyReused(ServiceName),
    #[error("a request with this `Idempotency-Key` is under way at `{0}`; come again for its answer")]
    KeyInUse(ServiceName),
    #[error("the replica of `{0}` broke off after the request was sent; its effect is unknown")]
    Broken(ServiceName),
    #[error("the service did not agree to a WebSocket here")]
    NoWebSocket,
    #[error("{0}")]
    BadFaultToken(&'static str),
    /// With the status, and the one of gRPC.
    #[error("this is not an answer of the service: a fault was injected on purpose")]
    Injected(StatusCode, u8),
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::BadFaultToken(_) => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Connect => StatusCode::NOT_IMPLEMENTED,
            Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoReplica(_) | Self::TooManyHeld(_) | Self::Shed(..) | Self::RouteFull => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::RateLimited(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Deadline(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Broken(_) | Self::NoWebSocket => StatusCode::BAD_GATEWAY,
            Self::KeyReused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::KeyInUse(_) => StatusCode::CONFLICT,
            Self::Injected(status, _) => *status,
        }
    }

    /// The value of `Standfast-Reason`: a word for programs.
    pub(crate) const fn reason(&self) -> &'static str {
        match self {
            Self::BadRequest(_) | Self::Expectation | Self::Version => "bad-request",
            Self::HeadTooLarge => "head-too-large",
            Self::BodyTooLarge => "body-too-large",
            Self::Connect => "connect-not-served",
            Self::NoRoute => "no-route",
            Self::NoReplica(_) => "no-replica-ready",
            Self::TooManyHeld(_) => "too-many-held",
            Self::Shed(..) => "overloaded",
            Self::RateLimited(_) => "rate-limited",
            Self::RouteFull => "route-full",
            Self::Deadline(_) => "deadline",
            Self::Broken(_) => "replica-broke-off",
            Self::NoWebSocket => "no-websocket",
            Self::KeyReused(_) => "key-reused",
            Self::KeyInUse(_) => "key-in-use",
            Self::BadFaultToken(_) => "bad-fault-token",
            Self::Injected(..) => "injected-fault",
        }
    }

    /// When to come again, in seconds, where that is known.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        match self {
            Self::Shed(_, wait) | Self::RateLimited(wait) => {
                Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
            }
            Self::NoReplica(_) | Self::TooManyHeld(_) | Self::RouteFull | Self::KeyInUse(_) => Some(1),
            _ => None,
        }
    }

    /// What gRPC calls it (its status codes; trailers-only answers).
    pub(crate) const fn grpc_status(&self) -> u8 {
        match self {
            Self::BadRequest(_)
            | Self::HeadTooLarge
            | Self::BodyTooLarge
            | Self::Expectation
            | Self::Version
            | Self::BadFaultToken(_) => 13,
            Self::Connect | Self::NoRoute => 12,
            Self::RateLimited(_) | Self::Shed(..) | Self::RouteFull => 8,
            Self::KeyReused(_) => 3,
            Self::Deadline(_) => 4,
            Self::NoReplica(_) | Self::TooManyHeld(_) | Self::Broken(_) | Self::NoWebSocket => 14,
            Self::KeyInUse(_) => 10,
            Self::Injected(_, status) => *status,
        }
    }

    /// The status as which the gateway would take it, had a replica answered so.
    pub(crate) fn seen_as(&self, is_grpc: bool) -> StatusCode {
        match self.grpc_status() {
            14 if is_grpc => StatusCode::SERVICE_UNAVAILABLE,
            _ if is_grpc => StatusCode::OK,
            _ => self.status(),
        }
    }

    /// Whether it cannot be told where the client's next request begins.
    pub(crate) const fn ends_connection(&self) -> bool {
        matches!(
            self,
            Self::BadRequest(_)
                | Self::HeadTooLarge
                | Self::BodyTooLarge
                | Self::Expectation
                | Self::Version
                | Self::Connect
        )
    }
}
