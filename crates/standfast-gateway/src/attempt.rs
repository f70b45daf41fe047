//! The request driver: choose a replica, try it, judge what came of it, and finish or go to another, all under one deadline.

use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use http_body::Body as _;
use hyper::body::Incoming;
use standfast_model::{Stamp, ZoneName};

use crate::body::{RequestBody, Upstream};
use crate::error::Refusal;
use crate::headers;
use crate::outlier::Evidence;
use crate::pool::{Endpoint, InFlight, Service, Wish};
use crate::upstream::{Connected, Unanswered};
use crate::worker::Worker;

/// How many times the usual latency an attempt may take before another replica is tried. The usual latency is a decayed peak,
/// so this is far above what any but one in thousands takes.
const PATIENCE: u32 = 4;
/// The least patience: below that, scheduling on a busy machine looks like a frozen replica.
const PATIENCE_MIN: Duration = Duration::from_millis(50);
/// The patience while nothing is known.
const PATIENCE_UNKNOWN: Duration = Duration::from_secs(1);
/// Each further attempt of a request is given so many times more, since perhaps the request is slow and not the replica.
const PATIENCE_GROWTH: u32 = 4;
/// How often an attempt's patience is extended because the gateway itself was not running.
const EXTENSIONS_MAX: u32 = 3;
/// The first wait when every ready replica has failed a request; it doubles each time…
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// …up to this.
const BACKOFF_MAX: Duration = Duration::from_millis(320);

/// A request as it goes to replicas.
pub(crate) struct Outgoing {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: RequestBody,
    /// It may be sent again although it may have been carried out.
    pub(crate) is_repeatable: bool,
}

impl Outgoing {
    /// The request for one attempt. One that is not repeatable is given away, and comes back only by [`Outgoing::restore`].
    fn for_attempt(&mut self, left: Duration) -> Request<RequestBody> {
        let again = if self.is_repeatable { self.body.again() } else { None };
        let (mut headers, body) = match again {
            Some(body) => (self.headers.clone(), body),
            None => {
                (std::mem::take(&mut self.headers), std::mem::replace(&mut self.body, RequestBody::Empty))
            }
        };
        headers.insert(&headers::DEADLINE, headers::deadline_value(left));
        if body.size_hint().exact().is_none() {
            // Hyper would send a GET of unknown length without its body.
            headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = headers;
        request
    }

    fn restore(&mut self, unsent: Request<RequestBody>) {
        if !self.is_repeatable {
            let (head, body) = unsent.into_parts();
            (self.headers, self.body) = (head.headers, body);
        }
    }
}

/// One request for one service.
pub(crate) struct Call {
    pub(crate) worker: Rc<Worker>,
    pub(crate) service: Rc<Service>,
    pub(crate) zone: Option<ZoneName>,
    pub(crate) deadline: Stamp,
}

/// A replica's answer, and the connection that its body comes over.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) upstream: Upstream,
}

impl Answer {
    /// Lets go of an answer that nobody will read; its connection is kept when the answer has arrived whole.
    fn discard(self) {
        self.upstream.finish_with(self.response.into_body());
    }
}

/// What one attempt came to.
enum Outcome {
    Answered(Answer),
    /// Nothing was sent.
    Unsent,
    /// It was sent, and the connection broke.
    Broken,
    /// It was sent, and is given up in favour of another replica.
    GivenUp,
    /// It was sent, and the request's time is over.
    Overdue,
}

/// What a request has been through.
#[derive(Default)]
struct History {
    /// Those that failed it since the last wait.
    tried: Vec<Rc<Endpoint>>,
    sent: u32,
    waits: u32,
    waited: Duration,
}

/// Carries a request to a replica that answers it.
///
/// # Errors
/// Why the gateway must answer itself.
pub(crate) async fn carry(call: &Call, mut outgoing: Outgoing) -> Result<Answer, Refusal> {
    let (worker, service) = (&call.worker, &call.service);
    let attempts_max = service.policy.get().attempts_max.max(1);
    let mut history = History::default();
    service.deposit();
    loop {
        let now = worker.clock.now();
        if now >= call.deadline {
            return Err(Refusal::Deadline(service.name.clone()));
        }
        let wish = Wish {
            now,
            zone: call.zone.as_ref(),
            tried: &history.tried,
            is_repeatable: outgoing.is_repeatable,
        };
        let Some(endpoint) = service.choose(wish, &mut worker.rng.borrow_mut()) else {
            wait_for_replica(call, &mut history).await?;
            continue;
        };
        let may_repeat = outgoing.is_repeatable && service.repeats() && history.sent + 1 < attempts_max;
        let outcome = attempt(call, &endpoint, &mut outgoing, &history, may_repeat).await;
        if !matches!(outcome, Outcome::Unsent) {
            history.sent += 1;
        }
        match outcome {
            Outcome::Answered(answer) => {
                if !(may_repeat && is_temporary(answer.response.status())) {
                    return Ok(answer);
                }
                let now = worker.clock.now();
                if !service.has_another(&history.tried, &endpoint) {
                    // The only one left says when to come again, or its answer is the answer.
                    let Some(wait) = worth_waiting(call, &answer.response, &history, now) else {
                        return Ok(answer);
                    };
                    if !take_token(service, now) {
                        return Ok(answer);
                    }
                    answer.discard();
                    history.waited += wait;
                    worker.clock.sleep(wait).await;
                    history.tried.clear();
                    continue;
                }
                if !take_token(service, now) {
                    return Ok(answer);
                }
                answer.discard();
                history.tried.push(endpoint);
            }
            Outcome::Unsent => {
                if !service.repeats() {
                    return Err(Refusal::NoReplica(service.name.clone()));
                }
                service.counters.repeats_unsent.add(1);
                history.tried.push(endpoint);
            }
            Outcome::GivenUp => history.tried.push(endpoint), // its token was taken when it was given up
            Outcome::Overdue => return Err(Refusal::Deadline(service.name.clone())),
            Outcome::Broken => {
                if !(may_repeat && take_token(service, worker.clock.now())) {
                    return Err(Refusal::Broken(service.name.clone()));
                }
                history.tried.push(endpoint);
            }
        }
    }
}

/// Tries one replica once, on a connection that is there or on a new one.
async fn attempt(
    call: &Call,
    endpoint: &Rc<Endpoint>,
    outgoing: &mut Outgoing,
    history: &History,
    may_repeat: bool,
) -> Outcome {
    let (worker, service) = (&call.worker, &call.service);
    let started = worker.clock.now();
    let in_flight = InFlight::new(endpoint, started);
    let left = call.deadline.since(started);
    let patience = patience(service, history.sent).min(left);
    let mut request = outgoing.for_attempt(left);
    // Each connection that turns out to have been closed while it lay idle gives the request back unsent.
    loop {
        let pooled = endpoint.take_idle(started);
        let is_new = pooled.is_none();
        let opened = match pooled {
            Some(connected) => Some(connected),
            None => open(call, &in_flight, worker.limits.connect_max.min(patience)).await,
        };
        let Some(mut connected) = opened else {
            outgoing.restore(request);
            return Outcome::Unsent;
        };
        let answered = {
            let mut answering = pin!(connected.send(request));
            wait_for_answer(call, &in_flight, answering.as_mut(), patience, may_repeat, history).await
        };
        match answered {
            Awaited::GivenUp => {
                endpoint.counters.attempts.add(1);
                return Outcome::GivenUp;
            }
            Awaited::Overdue => {
                endpoint.counters.attempts.add(1);
                return Outcome::Overdue;
            }
            Awaited::Done(Err(Unanswered::Unsent(unsent))) => {
                if is_new {
                    endpoint.counters.refused.add(1);
                    service.judge(&in_flight, Evidence::Refused, worker.clock.now(), false);
                    outgoing.restore(*unsent);
                    return Outcome::Unsent;
                }
                request = *unsent;
            }
            Awaited::Done(Err(Unanswered::Broken(error))) => {
                tracing::debug!(instance = %endpoint.instance, %error, "a replica broke off");
                endpoint.counters.attempts.add(1);
                endpoint.counters.broken.add(1);
                service.judge(&in_flight, Evidence::Failed, worker.clock.now(), false);
                return Outcome::Broken;
            }
            Awaited::Done(Ok(response)) => {
                let now = worker.clock.now();
                endpoint.counters.attempts.add(1);
                endpoint.counters.answered.count(response.status());
                endpoint.counters.latency_sum_micros.add_micros(now.since(started));
                let evidence =
                    if is_temporary(response.status()) { Evidence::Failed } else { Evidence::Answered };
                service.judge(&in_flight, evidence, now, false);
                return Outcome::Answered(Answer { response, upstream: Upstream { connected, in_flight } });
            }
        }
    }
}

/// Opens a connection, or judges the replica that does not take one.
async fn open(call: &Call, in_flight: &InFlight, limit: Duration) -> Option<Box<Connected>> {
    let (worker, endpoint, started) = (&call.worker, in_flight.endpoint(), in_flight.started());
    let opened = worker.clock.timeout(limit, Connected::open(worker.net, endpoint.address)).await;
    let now = worker.clock.now();
    let evidence = match opened {
        Ok(Ok(connected)) => {
            in_flight.restart(now);
            return Some(connected);
        }
        Ok(Err(error)) if is_own_trouble(&error) => {
            tracing::error!(%error, "cannot open connections");
            return None;
        }
        Ok(Err(_)) => Evidence::Refused,
        // A refusal is the replica's own word; that a connection took long may be our own slowness.
        Err(_) => Evidence::Silent,
    };
    endpoint.counters.refused.add(1);
    call.service.judge(in_flight, evidence, now, worker.is_lagging(started, limit));
    None
}

/// Whether a connection failed for want of descriptors, ports or memory here: no replica is to blame for that.
fn is_own_trouble(error: &io::Error) -> bool {
    /// `ENFILE` and `EMFILE`, which `io::ErrorKind` has no word for.
    const TOO_MANY_FILES: [i32; 2] = [23, 24];
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory)
        || error.raw_os_error().is_some_and(|code| TOO_MANY_FILES.contains(&code))
}

/// What waiting for an answer came to.
enum Awaited<T> {
    Done(T),
    GivenUp,
    Overdue,
}

/// Waits for an answer: with patience first, then, if the request cannot go elsewhere, until its time is over.
async fn wait_for_answer<T>(
    call: &Call,
    in_flight: &InFlight,
    mut answering: Pin<&mut impl Future<Output = T>>,
    patience: Duration,
    may_repeat: bool,
    history: &History,
) -> Awaited<T> {
    let (worker, service, endpoint) = (&call.worker, &call.service, in_flight.endpoint());
    let left = |now: Stamp| call.deadline.since(now);
    let mut extensions = 0;
    if patience < left(in_flight.started()) {
        loop {
            let since = worker.clock.now();
            if let Ok(done) = worker.clock.timeout(patience.min(left(since)), answering.as_mut()).await {
                return Awaited::Done(done);
            }
            if extensions == EXTENSIONS_MAX || !worker.is_lagging(since, patience) {
                break;
            }
            extensions += 1;
        }
        let now = worker.clock.now();
        let evidence =
            if endpoint.has_answered_since(in_flight.started()) { Evidence::Slow } else { Evidence::Silent };
        service.judge(in_flight, evidence, now, false);
        let can_go_elsewhere = may_repeat && service.has_another(&history.tried, endpoint);
        if can_go_elsewhere && left(now) > Duration::ZERO && take_token(service, now) {
            endpoint.counters.timed_out.add(1);
            return Awaited::GivenUp;
        }
    }
    match worker.clock.timeout(left(worker.clock.now()), answering).await {
        Ok(done) => Awaited::Done(done),
        Err(_) => {
            let now = worker.clock.now();
            let evidence = if endpoint.has_answered_since(in_flight.started()) {
                Evidence::Slow
            } else {
                Evidence::Silent
            };
            service.judge(
                in_flight,
                evidence,
                now,
                worker.is_lagging(in_flight.started(), now.since(in_flight.started())),
            );
            endpoint.counters.timed_out.add(1);
            Awaited::Overdue
        }
    }
}

/// How long the attempt after `sent` others waits before another replica looks better.
fn patience(service: &Service, sent: u32) -> Duration {
    let first =
        service.usual_latency().map_or(PATIENCE_UNKNOWN, |usual| (usual * PATIENCE).max(PATIENCE_MIN));
    first.saturating_mul(PATIENCE_GROWTH.saturating_pow(sent))
}

/// Waits until a replica may take the request: for the next snapshot when none is ready, else for as long as replicas need that
/// have just failed it.
async fn wait_for_replica(call: &Call, history: &mut History) -> Result<(), Refusal> {
    let (worker, service) = (&call.worker, &call.service);
    let since = worker.clock.now();
    let hold_left = service.policy.get().hold_max.saturating_sub(history.waited);
    let left = call.deadline.since(since).min(hold_left);
    if left.is_zero() || !service.repeats() {
        return Err(Refusal::NoReplica(service.name.clone()));
    }
    let Some(_held) = worker.hold() else { return Err(Refusal::TooManyHeld(service.name.clone())) };
    if history.waits == 0 {
        service.counters.held.add(1);
    }
    let backoff = BACKOFF_FIRST.saturating_mul(1 << history.waits.min(8)).min(BACKOFF_MAX);
    let limit = if service.is_ready() { backoff.min(left) } else { left };
    // Over or changed, the loop looks again.
    let _changed_or_over = worker.clock.timeout(limit, worker.newer_snapshot()).await;
    worker.refresh();
    history.waits += 1;
    history.waited += worker.clock.now().since(since);
    history.tried.clear();
    Ok(())
}

/// How long to wait before the only replica is asked again, when it says so and there is time.
fn worth_waiting(
    call: &Call,
    response: &Response<Incoming>,
    history: &History,
    now: Stamp,
) -> Option<Duration> {
    let wait = headers::retry_after(response.headers())
        .filter(|_| response.status() == StatusCode::SERVICE_UNAVAILABLE)?;
    let hold_left = call.service.policy.get().hold_max.saturating_sub(history.waited);
    (wait <= hold_left && now.plus(wait) < call.deadline).then_some(wait.max(BACKOFF_FIRST))
}

/// Takes what one more attempt costs from the service's retry budget.
fn take_token(service: &Service, now: Stamp) -> bool {
    let has_one = service.withdraw(now);
    if has_one {
        service.counters.retries.add(1)
    } else {
        service.counters.budget_empty.add(1)
    }
    has_one
}

/// Statuses that say more of the replica's moment than of the request.
const fn is_temporary(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}
