//! Calls to other services and to the state API: kept-alive connections, and repeats under the request's deadline.
//!
//! A call is repeated when the connection broke, when no answer came in time, and after 429, 502, 503 and 504. In some of these
//! cases the receiver may already have done the work, so only calls that are safe to repeat may go through here: reads,
//! conditional batches, and requests whose receiver knows their `Idempotency-Key`.

use std::error::Error;
use std::time::Duration;

use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::{Client as Pool, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

use crate::deadline::{self, Deadline};
use crate::problem::Problem;
use crate::random;

/// Attempts of one call. The deadline ends most calls sooner.
const ATTEMPTS_MAX: u32 = 16;
const BACK_OFF_FIRST: Duration = Duration::from_millis(20);
const BACK_OFF_MAX: Duration = Duration::from_millis(400);
/// The longest `Retry-After` that is waited for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(1);
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
const IDLE_MAX: Duration = Duration::from_secs(20);
const IDLE_CONNECTIONS_MAX: usize = 64;

/// An HTTP client. Clones share their connections.
#[derive(Debug, Clone)]
pub struct Client {
    pool: Pool<HttpConnector, Full<Bytes>>,
}

/// What to ask.
#[derive(Debug, Clone)]
pub struct Call {
    /// The method.
    pub method: Method,
    /// The whole address.
    pub url: String,
    /// The `Idempotency-Key`, which tells the receiver, and every proxy on the way, that a repeat is the same request.
    pub idempotency_key: Option<String>,
    /// The body; JSON, or nothing.
    pub body: Bytes,
}

/// What came back.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

impl Default for Client {
    fn default() -> Self {
        Self::new()
    }
}

impl Client {
    /// A client without connections yet.
    pub fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let pool = Pool::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector);
        Self { pool }
    }

    /// Asks `peer` until an answer comes that repeating would not change. `make` is called for each attempt.
    pub async fn call(
        &self,
        peer: &str,
        deadline: Deadline,
        mut make: impl FnMut() -> Call,
    ) -> Result<Answer, Problem> {
        let mut last = Problem::out_of_time(format!("no time is left to ask {peer}"));
        for attempt in 0..ATTEMPTS_MAX {
            let Some(share) = deadline.attempt() else { break };
            last = match timeout(share, self.once(make(), share)).await {
                Ok(Ok(answer)) if !worth_repeating(answer.status) => return Ok(answer),
                Ok(Ok(answer)) => answer.problem(peer),
                Ok(Err(error)) => {
                    Problem::unavailable(format!("{peer} cannot be reached: {}", chain(&*error)))
                }
                Err(_) => Problem::out_of_time(format!("{peer} did not answer in {share:.0?}")),
            };
            let pause = back_off(attempt).max(last.retry_after);
            if deadline.left() <= pause {
                break;
            }
            sleep(pause).await;
        }
        Err(last)
    }

    async fn once(&self, call: Call, share: Duration) -> Result<Answer, Box<dyn Error + Send + Sync>> {
        let mut request = Request::builder().method(call.method).uri(call.url);
        request = request.header(deadline::HEADER, share.as_millis().to_string());
        if !call.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(key) = call.idempotency_key {
            request = request.header("idempotency-key", key);
        }
        let (head, body) = self.pool.request(request.body(Full::new(call.body))?).await?.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }
}

impl Answer {
    /// The body as JSON.
    pub fn json<T: DeserializeOwned>(&self, peer: &str) -> Result<T, Problem> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Problem::bad_answer(format!("{peer} answered {} with no legible JSON: {error}", self.status))
        })
    }

    /// What to tell the own caller when this was the last attempt.
    fn problem(&self, peer: &str) -> Problem {
        let message = format!("{peer} answered {}", self.status);
        if self.status == StatusCode::GATEWAY_TIMEOUT {
            return Problem::out_of_time(message);
        }
        let seconds =
            self.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let retry_after = Duration::from_secs(seconds.unwrap_or(0)).min(RETRY_AFTER_MAX);
        Problem { retry_after, ..Problem::unavailable(message) }
    }
}

fn worth_repeating(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

fn back_off(attempt: u32) -> Duration {
    random::jittered(BACK_OFF_FIRST.saturating_mul(1 << attempt.min(16)).min(BACK_OFF_MAX))
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_grows_to_its_cap() {
        assert!(back_off(0) <= BACK_OFF_FIRST);
        for attempt in [5, 10, 16, 40] {
            let pause = back_off(attempt);
            assert!(pause >= BACK_OFF_MAX / 2 && pause <= BACK_OFF_MAX, "{attempt}: {pause:?}");
        }
    }
}
