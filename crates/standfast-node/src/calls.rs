//! Requests of workflows to services of the stack: through the gateway, as between services. What a service has no room for waits here
//! in a line instead of failing its run; the run itself stands in the journal all the while, so a crash loses no place in it but the
//! order.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Uri};
use standfast_gateway::{CallError, Caller};
use standfast_model::{Priority, ServiceName};
use standfast_runtime::{Clock, Rng};
use standfast_workflow::{
    ANSWER_BYTES_MAX, Answer, Asked, Direct, Heartbeat, HttpAnswer, HttpRequest, Invoke, Problem, Request,
    Standard,
};

use crate::line::Line;
use crate::wiring::Wiring;

/// The pause before a request that found no room is sent again; the second is twice as long, up to [`PAUSE_MAX`].
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Milliseconds that are left for a request, as the gateway and services beside it understand it.
const DEADLINE: HeaderName = HeaderName::from_static("standfast-deadline");
/// Which requests the gateway lets in first.
const PRIORITY: HeaderName = HeaderName::from_static("standfast-priority");

/// Requests to a service of the stack, `http://payments/charge`, go through the gateway like those of other services: with its budget
/// for retries, its limits and its records. All others go straight where they are sent.
#[derive(Debug)]
pub(crate) struct ThroughGateway {
    direct: Direct,
    clock: Clock,
    caller: Caller,
    wiring: Arc<Wiring>,
    lines: Mutex<BTreeMap<String, Arc<Line>>>,
    chance: Mutex<Rng>,
    /// A planted bug.
    #[cfg(feature = "planted-bugs")]
    pub(crate) changes_keys: bool,
}

impl ThroughGateway {
    pub(crate) fn new(clock: Clock, wiring: Arc<Wiring>) -> Self {
        let chance = Mutex::new(Rng::from_entropy());
        let caller = wiring.caller();
        Self {
            direct: Direct::new(clock),
            clock,
            caller,
            wiring,
            lines: Mutex::default(),
            chance,
            #[cfg(feature = "planted-bugs")]
            changes_keys: false,
        }
    }

    fn line(&self, service: &str) -> Arc<Line> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(lines.entry(service.to_owned()).or_default())
    }

    /// Half of the pause is chance, so that those who were refused together do not come again together.
    fn pause(&self, refused: u32) -> Duration {
        let whole = PAUSE.saturating_mul(1 << refused.min(8)).min(PAUSE_MAX);
        let chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner).fraction();
        whole.mul_f64(0.5 + 0.5 * chance)
    }
}

#[async_trait]
impl Invoke for ThroughGateway {
    async fn invoke(&self, asked: &Asked) -> Result<Answer, Problem> {
        let Some((service, moved)) = self.to_service(asked) else { return self.direct.invoke(asked).await };
        let line = self.line(&service);
        let mut refused = 0;
        // Nobody has it who could give a sign of life.
        let mut excused = asked.heartbeat.as_ref().map(Heartbeat::excuse);
        loop {
            let left = asked.deadline.since(self.clock.now());
            // Without a place in time it is asked nevertheless: the answer then says that the time is over.
            let place = self.clock.timeout(left, line.place(asked)).await.ok();
            if let Some(heartbeat) = &asked.heartbeat {
                heartbeat.beat(self.clock.now());
                excused = None;
            }
            let answer = self.send(&moved).await?;
            let Some(refusal) = Refusal::of(&answer) else {
                line.took_one();
                return Ok(answer);
            };
            let pause = self.pause(refused);
            if self.clock.now().plus(pause) >= asked.deadline {
                return Ok(answer);
            }
            if refusal == Refusal::Full {
                line.was_refused();
            }
            drop(place);
            excused = excused.or_else(|| asked.heartbeat.as_ref().map(Heartbeat::excuse));
            self.clock.sleep(pause).await;
            refused += 1;
        }
    }

    fn waiting(&self) -> usize {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.values().map(|line| line.waiting()).sum()
    }
}

/// A request to a service, as it is sent.
enum Sent<'a> {
    /// Within this process.
    Called(ServiceName, &'a HttpRequest, &'a Asked),
    /// To the gateway's listener: what must show something besides, for which there may be more than one request.
    Moved(Box<Asked>),
}

impl ThroughGateway {
    /// The service that is asked, and how; `None` for a request to elsewhere.
    fn to_service<'a>(&self, asked: &'a Asked) -> Option<(String, Sent<'a>)> {
        let Request::Http(request) = &asked.request else { return None };
        let service = match (request.uri.scheme_str(), request.uri.host(), request.uri.port_u16()) {
            (Some("http"), Some(host), None | Some(80)) => host,
            _ => return None,
        };
        let uri = moved(&request.uri, self.wiring.service(service)?)?;
        let sent = match (&request.credential, service.parse()) {
            (None, Ok(name)) => Sent::Called(name, request, asked),
            _ => {
                let mut asked = asked.clone();
                if let Request::Http(request) = &mut asked.request {
                    request.uri = uri;
                }
                Sent::Moved(Box::new(asked))
            }
        };
        Some((service.to_owned(), sent))
    }

    async fn send(&self, sent: &Sent<'_>) -> Result<Answer, Problem> {
        let (service, request, asked) = match sent {
            Sent::Called(service, request, asked) => (service, request, asked),
            Sent::Moved(asked) => return self.direct.invoke(asked).await,
        };
        let mut call = http::Request::new(request.body.clone());
        *call.method_mut() = request.method.clone();
        *call.uri_mut() = request.uri.clone();
        *call.headers_mut() = request.headers.clone();
        #[cfg(feature = "planted-bugs")]
        if self.changes_keys {
            let chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner).bits();
            call.headers_mut().insert("idempotency-key", HeaderValue::from(chance));
        }
        let left = asked.deadline.since(self.clock.now()).as_millis() as u64;
        call.headers_mut().entry(DEADLINE).or_insert_with(|| left.into());
        let priority = match asked.priority {
            Priority::Low => Some("low"),
            Priority::Normal => None,
            Priority::High => Some("high"),
        };
        if let Some(word) = priority {
            call.headers_mut().entry(PRIORITY).or_insert(HeaderValue::from_static(word));
        }
        match self.caller.call(service, call, ANSWER_BYTES_MAX).await {
            Ok(answer) => {
                let (head, body) = answer.into_parts();
                Ok(Answer::Http(HttpAnswer { status: head.status, headers: head.headers, body }))
            }
            // The process stops: the next one asks again, by the same key.
            Err(CallError::Ended) => std::future::pending().await,
            Err(why) => {
                let place = format!("{} http://{service}{}", request.method, request.uri.path());
                Err(Standard::Communication.problem(format!("{place}: {why}")))
            }
        }
    }
}

fn moved(uri: &Uri, address: SocketAddr) -> Option<Uri> {
    let mut parts = uri.clone().into_parts();
    parts.authority = Some(address.to_string().parse::<Authority>().ok()?);
    Uri::from_parts(parts).ok()
}

/// Why the gateway did not pass a request on: no replica has seen it, so that it can wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// The service has as much to do as it can.
    Full,
    /// No replica is ready, or the same request is still under way: fewer requests would not help.
    Later,
}

impl Refusal {
    /// `None` for an answer of the service, and for refusals that stay.
    fn of(answer: &Answer) -> Option<Self> {
        let Answer::Http(answer) = answer else { return None };
        match answer.headers.get("standfast-reason")?.as_bytes() {
            b"overloaded" | b"too-many-held" | b"rate-limited" | b"route-full" => Some(Self::Full),
            b"no-replica-ready" | b"key-in-use" => Some(Self::Later),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use standfast_workflow::HttpAnswer;

    use super::*;

    #[test]
    fn a_service_is_asked_at_the_gateway_and_its_path_stays() {
        let uri = "http://payments/charge?a=1".parse().unwrap();
        let moved = moved(&uri, "127.0.0.1:4000".parse().unwrap()).unwrap();
        assert_eq!(moved.to_string(), "http://127.0.0.1:4000/charge?a=1");
    }

    #[test]
    fn only_what_no_replica_has_seen_waits() {
        let of = |reason: &str| {
            let headers =
                HeaderMap::from_iter([("standfast-reason".parse().unwrap(), reason.parse().unwrap())]);
            let status = StatusCode::SERVICE_UNAVAILABLE;
            Refusal::of(&Answer::Http(HttpAnswer { status, headers, body: bytes::Bytes::new() }))
        };
        assert_eq!(of("overloaded"), Some(Refusal::Full));
        assert_eq!(of("key-in-use"), Some(Refusal::Later));
        assert_eq!(of("replica-broke-off"), None);
        assert_eq!(of("key-reused"), None);
    }
}
