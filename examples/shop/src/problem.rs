//! What a caller is told when a request fails: a status and `{"error": {"code", "message", "retry"}}`, the state API's shape.

use std::time::Duration;

use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// The longest name (of an order, an item) or key that is taken.
const NAME_CHARS_MAX: usize = 128;

/// A request that failed.
#[derive(Debug, Clone)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// A word for programs.
    pub code: &'static str,
    /// A sentence for people.
    pub message: String,
    /// How long the caller had better wait before a repeat; zero when nobody knows.
    pub retry_after: Duration,
}

impl Problem {
    /// A problem.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into(), retry_after: Duration::ZERO }
    }

    /// 400: the request itself is wrong.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 409: the request contradicts what is already stored.
    pub fn conflict(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    /// 502: another service answered what was not agreed.
    pub fn bad_answer(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "bad_answer", message)
    }

    /// 503: something needed is not there now; the same request may be repeated.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
    }

    /// 504: the time that the caller gave is up; the same request may be repeated.
    pub fn out_of_time(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded", message)
    }

    /// Whether the same request may succeed later.
    pub fn retry(&self) -> bool {
        self.status.is_server_error()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = json!({"error": {"code": self.code, "message": self.message, "retry": self.retry()}});
        let mut response = json_text(self.status, body.to_string());
        if !self.retry_after.is_zero() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(self.retry_after.as_secs()));
        }
        response.extensions_mut().insert(self); // For the log line.
        response
    }
}

/// An answer with a JSON text that is already at hand, such as a stored one.
pub fn json_text(status: StatusCode, text: impl Into<axum::body::Body>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], text.into()).into_response()
}

/// The JSON text of a value that always has one.
pub fn to_json(value: &impl Serialize) -> Result<String, Problem> {
    serde_json::to_string(value).map_err(|error| {
        let message = format!("the answer cannot be written as JSON: {error}");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    })
}

/// Reads a request body as JSON, whatever its content type says.
pub fn parse<T: DeserializeOwned>(body: Result<Bytes, BytesRejection>) -> Result<T, Problem> {
    let body = body.map_err(|rejection| {
        let message = format!("the body cannot be read: {}", rejection.body_text());
        Problem::new(rejection.status(), "malformed", message)
    })?;
    serde_json::from_slice(&body)
        .map_err(|error| Problem::malformed(format!("the body is not the JSON expected: {error}")))
}

/// Checks a name that becomes part of a key: letters, digits and `_.:-`, beginning with a letter or digit.
pub fn check_name(field: &str, name: &str) -> Result<(), Problem> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
    let starts_well = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    if starts_well && name.len() <= NAME_CHARS_MAX && name.bytes().all(legal) {
        return Ok(());
    }
    Err(Problem::malformed(format!(
        "`{field}` must have 1 to {NAME_CHARS_MAX} characters, letters, digits and _.:- only, and begin with a letter or digit"
    )))
}

/// Checks an amount of pieces.
pub fn check_quantity(quantity: u32) -> Result<(), Problem> {
    if (1..=1_000).contains(&quantity) {
        return Ok(());
    }
    Err(Problem::malformed("`quantity` must be from 1 to 1000"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_key_are_refused() {
        for good in ["o-1", "0198c9b2-7d", "A.b:c_d", "7"] {
            assert!(check_name("order_id", good).is_ok(), "{good}");
        }
        for bad in ["", ".", "../x", "a/b", "a b", "ä", "-x", &"x".repeat(129)] {
            assert!(check_name("order_id", bad).is_err(), "{bad}");
        }
    }
}
