use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde::Serialize;

use crate::{CommitError, ReadError, TooLarge, Version};

/// What a client is told to wait when the store cannot answer now, in seconds.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

/// An answer that is an error.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
    /// Whether the same request may succeed later.
    pub(super) retry: bool,
    /// Of a batch: the conditions that did not hold.
    pub(super) failed: Option<Vec<usize>>,
    /// The version that is there instead.
    pub(super) found: Option<Version>,
    /// The methods that there are.
    pub(super) allow: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry: false, failed: None, found: None, allow: None }
    }

    pub(super) fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", message)
    }

    fn repeatable(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { retry: true, ..Self::new(status, code, message) }
    }

    pub(super) fn into_response(self) -> Response<Bytes> {
        #[derive(Serialize)]
        struct Body<'a> {
            error: ErrorBody<'a>,
            #[serde(skip_serializing_if = "Option::is_none")]
            failed: Option<&'a [usize]>,
        }
        #[derive(Serialize)]
        struct ErrorBody<'a> {
            code: &'a str,
            message: &'a str,
            retry: bool,
        }
        let error = ErrorBody { code: self.code, message: &self.message, retry: self.retry };
        let mut answer = json(&Body { error, failed: self.failed.as_deref() });
        *answer.status_mut() = self.status;
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            answer.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        if let Some(allow) = self.allow {
            answer.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        match self.found {
            Some(version) => with_etag(answer, version),
            None => answer,
        }
    }
}

impl From<TooLarge> for Refusal {
    fn from(error: TooLarge) -> Self {
        match error {
            TooLarge::EmptyKey => Self::malformed(error.to_string()),
            TooLarge::Over { .. } => Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", error.to_string()),
        }
    }
}

impl From<CommitError> for Refusal {
    fn from(error: CommitError) -> Self {
        let unavailable = |code, text: &str| Self::repeatable(StatusCode::SERVICE_UNAVAILABLE, code, text);
        match error {
            CommitError::TooLarge(limit) => limit.into(),
            CommitError::Conditions { failed } => {
                let message = "a condition did not hold, so nothing was done";
                let mut refusal = Self::new(StatusCode::PRECONDITION_FAILED, "precondition_failed", message);
                refusal.found = failed.first().and_then(|failed| failed.found);
                refusal.failed = Some(failed.into_iter().map(|failed| failed.index).collect());
                refusal
            }
            CommitError::Busy => unavailable("busy", "too many writes wait already; nothing was done"),
            CommitError::Full => Self::repeatable(
                StatusCode::INSUFFICIENT_STORAGE,
                "disk_full",
                "the disk is full; nothing was done; reads go on, and writes come back when there is room",
            ),
            // Why it stopped is for the operator's log, not for callers.
            CommitError::Stopped { .. } => unavailable("stopped", "the store has stopped; nothing was done"),
            CommitError::Unknown { .. } => unavailable(
                "unknown",
                "the store stopped in mid-write, which may have been done; repeat it with its condition",
            ),
        }
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        let unavailable = |code, text: &str| Self::repeatable(StatusCode::SERVICE_UNAVAILABLE, code, text);
        match error {
            ReadError::TooLarge(limit) => limit.into(),
            ReadError::Busy => unavailable("busy", "too many reads wait already"),
            ReadError::Stopped { .. } => unavailable("stopped", "the store has stopped"),
        }
    }
}

/// The answer while there is no store to ask: 503 with `Retry-After`.
pub fn unavailable() -> Response<Bytes> {
    Refusal::repeatable(
        StatusCode::SERVICE_UNAVAILABLE,
        "starting",
        "the store is starting; nothing was done",
    )
    .into_response()
}

/// A 200 with a JSON body.
pub(super) fn json<T: Serialize>(body: &T) -> Response<Bytes> {
    let text = serde_json::to_vec(body).expect("strings, numbers and lists always have a JSON text");
    let mut answer = Response::new(text.into());
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// The answer with the entry's version.
pub(super) fn with_etag(mut answer: Response<Bytes>, version: Version) -> Response<Bytes> {
    let etag = HeaderValue::try_from(format!("\"{version}\"")).expect("quotes and digits are a header value");
    answer.headers_mut().insert(header::ETAG, etag);
    answer
}
