//! The request driver: choose a replica, try it, judge what came of it, and finish, wait on, or go to another as well, all under
//! one deadline and one budget for extra work.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use http::{Method, StatusCode};
use standfast_model::{Priority, Protocol, Stamp, ZoneName};

use crate::body::{AnswerBody, H1Answer, H2Answer, Source};
use crate::client::BodyError;
use crate::door::Inside;
use crate::error::Refusal;
use crate::explain::AttemptEnd;
use crate::fault::Injected;
use crate::headers;
use crate::kept::Key;
use crate::limiter;
use crate::outlier::Evidence;
use crate::pool::{Endpoint, InFlight, Service, Wish};
use crate::spans::SpanId;
use crate::story::{self, Notes};
use crate::trace::{TraceContext, random_id};
use crate::upstream::h1::{Connected, Unanswered};
use crate::upstream::h2::Multiplexed;
use crate::wire::{BodyReader, Known, RequestHead, ResponseHead};
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
/// How long a request waits for a ready replica before it is tried at one whose probe fails: the probe may be what is wrong.
const FAIL_OPEN_AFTER: Duration = Duration::from_secs(1);
/// The first wait when every ready replica has failed a request; it doubles each time…
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// …up to this.
const BACKOFF_MAX: Duration = Duration::from_millis(320);

/// A request as it goes to replicas.
pub(crate) struct Outgoing {
    pub(crate) head: RequestHead,
    pub(crate) source: Source,
    /// It may be sent again although it may have been carried out.
    pub(crate) is_repeatable: bool,
}

/// One request for one service.
pub(crate) struct Call {
    pub(crate) worker: Rc<Worker>,
    pub(crate) service: Rc<Service>,
    pub(crate) zone: Option<ZoneName>,
    pub(crate) deadline: Stamp,
    /// Of the key that the same replica is wanted for, if the service asks for that.
    pub(crate) key_hash: Option<u64>,
    pub(crate) priority: Priority,
    /// Its answer is kept, or was.
    pub(crate) kept: Option<Key>,
    /// The faults that it fits, if there are any.
    pub(crate) injected: Option<Rc<Injected>>,
}

/// A replica's answer, and its body.
pub(crate) struct Answer {
    pub(crate) head: ResponseHead,
    pub(crate) body: AnswerBody,
}

/// A request without an answer.
pub(crate) enum Failure {
    /// The gateway must answer.
    Refused(Refusal),
    /// The client's part failed.
    Client(BodyError),
}

impl Outgoing {
    /// The same, with a replica that works on it under a span of its own.
    fn under(&self, span_id: SpanId) -> Box<Self> {
        let mut head = self.head.clone();
        if let Some(context) = head.fields.get(Known::Traceparent).and_then(TraceContext::parse) {
            head.fields.set(Known::Traceparent, "traceparent", &TraceContext { span_id, ..context }.header());
        }
        Box::new(Self { head, source: self.source.clone(), is_repeatable: self.is_repeatable })
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// What one attempt came to.
pub(crate) enum Outcome {
    Answered(Answer),
    /// Nothing was sent.
    Unsent,
    /// It was sent, and the connection broke.
    Broken,
    /// The client's part failed.
    Client(BodyError),
}

/// An attempt that is under way.
struct Live<'a> {
    endpoint: Rc<Endpoint>,
    /// Its place among the request's notes.
    number: usize,
    started: Stamp,
    /// How long it may take until another replica is asked as well…
    patience: Duration,
    /// …and until that happens although no other replica does better.
    patience_max: Duration,
    extensions: u32,
    /// It has taken longer than it should, and its replica was judged for it.
    is_overdue: bool,
    work: Pin<Box<dyn Future<Output = Outcome> + 'a>>,
}

/// All attempts of one request.
struct Race<'a> {
    call: &'a Call,
    outgoing: &'a Outgoing,
    notes: &'a Notes,
    live: Vec<Live<'a>>,
    /// Those that failed it since the last wait.
    tried: Vec<Rc<Endpoint>>,
    /// Attempts that have ended in which something was sent.
    sent: u32,
    waits: u32,
    waited: Duration,
    /// When something last became of it: what follows at once is of that moment, and reads no clock.
    now: Stamp,
}

/// What happened next.
enum Event {
    Ended(Rc<Endpoint>, usize, Outcome),
    /// The latest attempt has taken as long as it should.
    Overdue,
    /// The request's own time is over.
    Deadline,
}

/// Carries a request to a replica that answers it.
///
/// # Errors
/// Why there is no answer.
///
/// # Cancellation
/// Attempts that are under way are broken off with their connections.
pub(crate) async fn carry(call: &Call, outgoing: &Outgoing, notes: &Notes) -> Result<Answer, Failure> {
    let mut race = Race {
        call,
        outgoing,
        notes,
        live: Vec::new(),
        tried: Vec::new(),
        sent: 0,
        waits: 0,
        waited: Duration::ZERO,
        now: call.worker.clock.now(),
    };
    call.service.deposit();
    // Who waits for the first replica takes nobody's place.
    while !call.service.is_ready() && !race.is_desperate() {
        race.wait_for_replica().await?;
    }
    let entered = Inside::enter(&call.service, call.priority, call.worker.clock, race.now).await;
    let inside = entered.map_err(|shed| Refusal::Shed(call.service.name.clone(), shed.retry_after))?;
    notes.waited.set(inside.waited);
    if inside.waited > Duration::ZERO {
        notes.admission_limit.set(call.service.door.load().limit);
        call.service.counters.waited(inside.waited);
    }
    let waited_before = race.waited;
    race.now = race.now.plus(inside.waited);
    let started = race.now;
    let ended = race.run().await;
    let outcome = match &ended {
        Ok(answer) if matches!(answer.head.status.as_u16(), 429 | 503) => limiter::Outcome::Overloaded,
        Ok(_) => limiter::Outcome::Answered,
        Err(Failure::Refused(Refusal::Deadline(_))) => limiter::Outcome::Overloaded,
        Err(_) => limiter::Outcome::Ignored,
    };
    let is_pure = race.waited == waited_before && ended.is_ok();
    let now = race.now;
    inside.leave(outcome, is_pure, now, call.worker.was_lagging(started, PATIENCE_MIN, now));
    notes.waited.set(notes.waited.get() + race.waited);
    ended
}

impl<'a> Race<'a> {
    async fn run(&mut self) -> Result<Answer, Failure> {
        loop {
            if self.live.is_empty() {
                self.start().await?;
            }
            match self.next_event().await {
                Event::Ended(endpoint, number, outcome) => {
                    self.note_end(number, &outcome);
                    if let Some(answer) = self.judge(endpoint, outcome).await? {
                        return Ok(answer);
                    }
                }
                Event::Overdue => self.look_elsewhere(),
                Event::Deadline => {
                    self.blame_all();
                    return Err(Refusal::Deadline(self.call.service.name.clone()).into());
                }
            }
        }
    }

    /// Whether it has waited in vain for a ready replica.
    fn is_desperate(&self) -> bool {
        self.waited >= FAIL_OPEN_AFTER
    }

    fn note_end(&self, number: usize, outcome: &Outcome) {
        let (end, status) = match outcome {
            Outcome::Answered(answer) => (AttemptEnd::Answered, Some(answer.head.status.as_u16())),
            Outcome::Unsent => (AttemptEnd::Unsent, None),
            Outcome::Broken => (AttemptEnd::Broken, None),
            Outcome::Client(_) => (AttemptEnd::Abandoned, None),
        };
        self.notes.end(number, self.now, end, status);
    }

    /// Starts an attempt at the best replica, waiting for one if need be.
    async fn start(&mut self) -> Result<(), Failure> {
        loop {
            if self.now >= self.call.deadline {
                return Err(self.out_of_time().into());
            }
            match self.choose(self.now) {
                Some(endpoint) => {
                    self.begin(endpoint, self.now);
                    return Ok(());
                }
                None => self.wait_for_replica().await?,
            }
        }
    }

    /// Its time is over while nothing runs. What no replica has taken was certainly not carried out.
    fn out_of_time(&self) -> Refusal {
        let service = self.call.service.name.clone();
        if self.sent == 0 { Refusal::NoReplica(service) } else { Refusal::Deadline(service) }
    }

    fn choose(&self, now: Stamp) -> Option<Rc<Endpoint>> {
        let wish = Wish {
            now,
            zone: self.call.zone.as_ref(),
            tried: &self.tried,
            is_repeatable: self.outgoing.is_repeatable,
            key_hash: self.call.key_hash,
            is_desperate: self.is_desperate(),
        };
        self.call.service.choose(wish, &mut self.call.worker.rng.borrow_mut())
    }

    fn begin(&mut self, endpoint: Rc<Endpoint>, now: Stamp) {
        let patience = self.patience();
        let until_hedged = self.until_hedged(patience);
        let in_flight = InFlight::new(&self.call.service, &endpoint, now);
        let span_id = self.notes.is_traced.then(|| random_id(&mut self.call.worker.rng.borrow_mut()));
        let number = {
            let mut notes = self.notes.attempts.borrow_mut();
            notes.push(story::note(&in_flight, now, !self.live.is_empty(), span_id));
            notes.len() - 1
        };
        let work = Box::pin(attempt(self.call, self.outgoing, in_flight, until_hedged, span_id));
        self.live.push(Live {
            endpoint,
            number,
            started: now,
            patience: until_hedged,
            patience_max: patience,
            extensions: 0,
            is_overdue: false,
            work,
        });
    }

    /// How long the next attempt may take before its replica looks dead.
    fn patience(&self) -> Duration {
        let usual = self.call.service.usual_latency();
        let patience = usual.map_or(PATIENCE_UNKNOWN, |usual| (usual * PATIENCE).max(PATIENCE_MIN));
        patience.saturating_mul(PATIENCE_GROWTH.saturating_pow(self.attempts()))
    }

    /// How long it may take before another replica is asked as well, in case this one is slow.
    fn until_hedged(&self, patience: Duration) -> Duration {
        let service = &self.call.service;
        let is_hedged = self.attempts() == 0
            && service.policy.borrow().hedge
            && matches!(self.outgoing.head.method, Method::GET | Method::HEAD);
        let hedge = if is_hedged { service.hedge_after() } else { None };
        hedge.map_or(patience, |hedge| hedge.min(patience))
    }

    /// Those that were sent and those that are under way.
    fn attempts(&self) -> u32 {
        self.sent + u32::try_from(self.live.len()).unwrap_or(u32::MAX)
    }

    /// Whether one more attempt may follow although something was sent.
    fn may_repeat(&self) -> bool {
        let policy = self.call.service.policy.borrow();
        self.outgoing.is_repeatable && self.call.service.repeats() && self.attempts() < policy.attempts.max(1)
    }

    async fn next_event(&mut self) -> Event {
        let (clock, deadline) = (self.call.worker.clock, self.call.deadline);
        loop {
            let latest = self.live.last();
            let due = latest.filter(|live| !live.is_overdue).map(|live| live.started.plus(live.patience));
            let until = due.map_or(deadline, |due| due.min(deadline));
            let now = self.now;
            let live = &mut self.live;
            let ended = std::future::poll_fn(|cx| {
                for index in 0..live.len() {
                    if let Poll::Ready(outcome) = live[index].work.as_mut().poll(cx) {
                        let ended = live.remove(index);
                        return Poll::Ready((ended.endpoint, ended.number, outcome));
                    }
                }
                Poll::Pending
            });
            let ended = self.call.worker.until(until, now, ended).await;
            self.now = clock.now();
            if let Some((endpoint, number, outcome)) = ended {
                return Event::Ended(endpoint, number, outcome);
            }
            if until == deadline {
                return Event::Deadline;
            }
            let Some(latest) = self.live.last_mut() else { return Event::Deadline };
            if latest.extensions < EXTENSIONS_MAX && self.call.worker.is_lagging(now, latest.patience) {
                // It was the gateway that stood still.
                latest.extensions += 1;
                latest.patience = self.now.since(latest.started) + until.since(now);
                continue;
            }
            if latest.patience < latest.patience_max
                && !self.call.service.is_overtaken(&latest.endpoint, latest.started)
            {
                // All are late, or the gateway is: one more request would make it worse.
                latest.patience = (latest.patience + latest.patience / 2).min(latest.patience_max);
                continue;
            }
            return Event::Overdue;
        }
    }

    /// The latest attempt takes too long: its replica is judged, and another one asked as well, if that is allowed.
    fn look_elsewhere(&mut self) {
        let may_repeat = self.may_repeat();
        let (service, now) = (&self.call.service, self.now);
        let Some(latest) = self.live.last_mut() else { return };
        latest.is_overdue = true;
        let (endpoint, took) = (Rc::clone(&latest.endpoint), now.since(latest.started));
        if took >= PATIENCE_MIN && service.usual_latency().is_none_or(|usual| took >= usual * PATIENCE) {
            service.judge(&endpoint, took, silence(&endpoint, latest.started), now, false);
        }
        if !may_repeat || !service.has_another(&self.tried, &endpoint) || !take_token(service, now) {
            return;
        }
        endpoint.counters.timed_out.add(1);
        self.tried.push(endpoint);
        if let Some(other) = self.choose(now) {
            self.call.service.counters.hedges.add(1);
            self.begin(other, now);
        }
    }

    /// What follows from the end of one attempt: the answer, or another attempt, or none.
    async fn judge(&mut self, endpoint: Rc<Endpoint>, outcome: Outcome) -> Result<Option<Answer>, Failure> {
        let service = &self.call.service;
        let may_repeat = self.may_repeat();
        if !matches!(outcome, Outcome::Unsent) {
            self.sent += 1;
        }
        match outcome {
            Outcome::Answered(answer) => {
                if !is_temporary(status_of(&answer.head)) {
                    return Ok(Some(answer));
                }
                if !self.live.is_empty() {
                    self.tried.push(endpoint); // the other attempt may do better
                    return Ok(None);
                }
                let now = self.now;
                if !may_repeat {
                    return Ok(Some(answer));
                }
                if service.has_another(&self.tried, &endpoint) {
                    if !take_token(service, now) {
                        return Ok(Some(answer));
                    }
                    self.tried.push(endpoint);
                    return Ok(None);
                }
                // The only one left says when to come again, or its answer is the answer.
                let Some(wait) = self.worth_waiting(&answer.head, now) else { return Ok(Some(answer)) };
                if !take_token(service, now) {
                    return Ok(Some(answer));
                }
                drop(answer);
                self.waited += wait;
                self.call.worker.clock.sleep(wait).await;
                self.now = self.call.worker.clock.now();
                self.tried.clear();
                Ok(None)
            }
            Outcome::Unsent => {
                if !service.repeats() {
                    return Err(Refusal::NoReplica(service.name.clone()).into());
                }
                service.counters.repeats_unsent.add(1);
                self.tried.push(endpoint);
                Ok(None)
            }
            Outcome::Broken => {
                self.tried.push(endpoint);
                if !self.live.is_empty() {
                    return Ok(None);
                }
                if !(may_repeat && take_token(service, self.now)) {
                    return Err(Refusal::Broken(service.name.clone()).into());
                }
                Ok(None)
            }
            Outcome::Client(error) => Err(Failure::Client(error)),
        }
    }

    /// The request's time is over: whoever has it has been too slow.
    fn blame_all(&mut self) {
        let (worker, now) = (&self.call.worker, self.now);
        for live in &self.live {
            let took = now.since(live.started);
            let is_lagging = worker.was_lagging(live.started, took, now);
            self.call.service.judge(
                &live.endpoint,
                took,
                silence(&live.endpoint, live.started),
                now,
                is_lagging,
            );
            live.endpoint.counters.timed_out.add(1);
            self.notes.end(live.number, now, AttemptEnd::Overdue, None);
        }
    }

    /// Waits until a replica may take the request: for the next snapshot when none is ready, else for as long as replicas need
    /// that have just failed it.
    async fn wait_for_replica(&mut self) -> Result<(), Failure> {
        let (worker, service, since) = (&self.call.worker, &self.call.service, self.now);
        let hold_left = service.policy.borrow().hold.saturating_sub(self.waited);
        let left = self.call.deadline.since(since).min(hold_left);
        if left.is_zero() || !service.repeats() {
            return Err(Refusal::NoReplica(service.name.clone()).into());
        }
        let Some(_held) = worker.hold() else {
            return Err(Refusal::TooManyHeld(service.name.clone()).into());
        };
        if self.waits == 0 {
            service.counters.held.add(1);
        }
        let backoff = BACKOFF_FIRST.saturating_mul(1 << self.waits.min(8)).min(BACKOFF_MAX);
        // Until a probe that fails may be what is wrong.
        let until_desperate = FAIL_OPEN_AFTER.saturating_sub(self.waited);
        let limit = match (service.is_ready(), until_desperate.is_zero()) {
            (false, false) => until_desperate.min(left),
            _ => backoff.min(left),
        };
        // Over or changed, the loop looks again.
        let _changed_or_over = worker.clock.timeout(limit, worker.newer_snapshot()).await;
        worker.refresh();
        self.waits += 1;
        self.now = worker.clock.now();
        self.waited += self.now.since(since);
        self.tried.clear();
        Ok(())
    }

    /// How long to wait before the only replica is asked again, when it says so and there is time.
    fn worth_waiting(&self, head: &ResponseHead, now: Stamp) -> Option<Duration> {
        let wait =
            headers::retry_after(&head.fields).filter(|_| head.status == StatusCode::SERVICE_UNAVAILABLE)?;
        let hold_left = self.call.service.policy.borrow().hold.saturating_sub(self.waited);
        (wait <= hold_left && now.plus(wait) < self.call.deadline).then_some(wait.max(BACKOFF_FIRST))
    }
}

/// What the silence of a replica shows.
fn silence(endpoint: &Endpoint, since: Stamp) -> Evidence {
    if endpoint.has_answered_since(since) { Evidence::Slow } else { Evidence::Silent }
}

/// Tries one replica once, with what goes wrong on purpose.
async fn attempt(
    call: &Call,
    outgoing: &Outgoing,
    in_flight: InFlight,
    patience: Duration,
    span_id: Option<SpanId>,
) -> Outcome {
    let traced = span_id.map(|span_id| outgoing.under(span_id));
    let outgoing = traced.as_deref().unwrap_or(outgoing);
    match &call.injected {
        None => send(call, outgoing, in_flight, patience).await,
        Some(injected) => Box::pin(injected.attempt(call, outgoing, in_flight, patience)).await,
    }
}

/// Tries one replica once, on a connection that is there or on a new one.
pub(crate) async fn send(
    call: &Call,
    outgoing: &Outgoing,
    in_flight: InFlight,
    patience: Duration,
) -> Outcome {
    let connect_max = call.worker.limits.get().connect_max.min(patience.max(PATIENCE_MIN));
    if call.service.policy.borrow().protocol == Protocol::Http2 {
        over_h2(call, outgoing, in_flight, connect_max).await
    } else {
        over_h1(call, outgoing, in_flight, connect_max).await
    }
}

async fn over_h1(call: &Call, outgoing: &Outgoing, in_flight: InFlight, connect_max: Duration) -> Outcome {
    let (worker, endpoint) = (&call.worker, in_flight.endpoint());
    let is_head = outgoing.head.method == Method::HEAD;
    // Each connection that turns out to have been closed while it lay idle gives the request back unsent.
    loop {
        let pooled = endpoint.take_idle(in_flight.started(), outgoing.is_repeatable);
        let is_new = pooled.is_none();
        let opened = match pooled {
            Some(connected) => Some(connected),
            None => {
                let transport = call.service.transport();
                let opening = Connected::open(transport, worker.net, endpoint.address, &worker.buffers);
                open(call, &in_flight, connect_max, opening).await
            }
        };
        let Some(mut connected) = opened else { return Outcome::Unsent };
        let left = call.deadline.since(in_flight.started());
        let mut outflow = outgoing.source.outflow();
        connected.begin(&outgoing.head, outgoing.source.framing(), headers::deadline_millis(left));
        connected.join(&mut outflow);
        let answered = std::future::poll_fn(|cx| connected.poll_answer(cx, &mut outflow, is_head)).await;
        match answered {
            Err(Unanswered::Unsent(_)) if !is_new => {}
            Err(error) => return unanswered(call, &in_flight, error),
            Ok(head) => {
                if let Some(injected) = &call.injected
                    && let Some(outcome) = Box::pin(injected.answered(call, &in_flight, &head)).await
                {
                    return outcome;
                }
                answered_well(call, &in_flight, head.status);
                let body = if head.status == StatusCode::SWITCHING_PROTOCOLS {
                    AnswerBody::Upgraded(connected, in_flight)
                } else {
                    let reader = BodyReader::new(head.framing);
                    let keeps_alive = head.keeps_alive;
                    let answer = H1Answer { connected, reader, outflow, keeps_alive, in_flight };
                    AnswerBody::H1(Box::new(answer))
                };
                return Outcome::Answered(Answer { head, body });
            }
        }
    }
}

async fn over_h2(call: &Call, outgoing: &Outgoing, in_flight: InFlight, connect_max: Duration) -> Outcome {
    let (worker, endpoint) = (&call.worker, in_flight.endpoint());
    let is_head = outgoing.head.method == Method::HEAD;
    loop {
        let mut shared = endpoint.h2.with_room();
        // One at a time opens a connection, unless that takes too long.
        let turn = match shared {
            Some(_) => None,
            None => worker.clock.timeout(connect_max, endpoint.h2.turn()).await.ok(),
        };
        if shared.is_none() {
            shared = endpoint.h2.with_room();
        }
        let is_new = shared.is_none();
        let opened = match shared {
            Some(connection) => Some(connection),
            None => {
                let transport = call.service.transport();
                let silence_max = worker.limits.get().upstream_silence_max;
                let opening =
                    Multiplexed::open(transport, worker.net, endpoint.address, silence_max, worker.clock);
                open(call, &in_flight, connect_max, opening).await.map(|(connection, driver)| {
                    worker.spawn(driver);
                    endpoint.h2.add(connection.clone());
                    connection
                })
            }
        };
        let Some(connection) = opened else { return Outcome::Unsent };
        drop(turn);
        let left = call.deadline.since(in_flight.started());
        let begun = connection.begin(&outgoing.head, left, outgoing.source.outflow()).await;
        let answered = match begun {
            Ok(mut exchange) => std::future::poll_fn(|cx| exchange.poll_answer(cx, is_head)).await,
            Err(error) => Err(error),
        };
        match answered {
            // A connection that has had its time: the next one is new.
            Err(Unanswered::Unsent(_) | Unanswered::Declined { is_lost: false, .. })
                if !is_new && connection.has_ended() => {}
            Err(error) => return unanswered(call, &in_flight, error),
            Ok((head, receiving, sending)) => {
                if let Some(injected) = &call.injected
                    && let Some(outcome) = Box::pin(injected.answered(call, &in_flight, &head)).await
                {
                    return outcome;
                }
                answered_well(call, &in_flight, status_of(&head));
                let body = AnswerBody::H2(Box::new(H2Answer { receiving, sending, in_flight }));
                return Outcome::Answered(Answer { head, body });
            }
        }
    }
}

/// Takes in an answer's status and time.
pub(crate) fn answered_well(call: &Call, in_flight: &InFlight, status: StatusCode) {
    let (now, endpoint) = (call.worker.clock.now(), in_flight.endpoint());
    let took = now.since(in_flight.started());
    endpoint.counters.attempts.add(1);
    endpoint.counters.answered.count(status);
    endpoint.counters.latency_sum_micros.add_micros(took);
    let evidence = if is_temporary(status) { Evidence::Failed } else { Evidence::Answered };
    in_flight.is_judged();
    call.service.judge(endpoint, took, evidence, now, false);
    let is_lagging = call.worker.was_lagging(in_flight.started(), took, now);
    call.service.judge_pace(in_flight, took, true, now, is_lagging);
}

/// Takes in that there is no answer.
pub(crate) fn unanswered(call: &Call, in_flight: &InFlight, error: Unanswered) -> Outcome {
    let (now, endpoint) = (call.worker.clock.now(), in_flight.endpoint());
    let took = now.since(in_flight.started());
    let instance = &endpoint.instance;
    match error {
        Unanswered::Unsent(error) => {
            tracing::debug!(%instance, %error, "a replica took no request");
            endpoint.counters.refused.add(1);
            in_flight.is_judged();
            in_flight.tells_no_pace();
            call.service.judge(endpoint, took, Evidence::Refused, now, false);
            Outcome::Unsent
        }
        // It does as it should: that is nothing against it.
        Unanswered::Declined { error, is_lost } => {
            tracing::debug!(%instance, %error, "a replica did not look at a request");
            endpoint.counters.refused.add(1);
            in_flight.is_judged();
            in_flight.tells_no_pace();
            if is_lost { Outcome::Broken } else { Outcome::Unsent }
        }
        Unanswered::Client(error) => {
            in_flight.is_judged();
            in_flight.tells_no_pace();
            Outcome::Client(error)
        }
        Unanswered::Broken(_) | Unanswered::Bad(_) => {
            match &error {
                Unanswered::Bad(bad) => tracing::warn!(%instance, %bad, "a replica's answer is not one"),
                Unanswered::Broken(error) => tracing::debug!(%instance, %error, "a replica broke off"),
                _ => {}
            }
            endpoint.counters.attempts.add(1);
            endpoint.counters.broken.add(1);
            in_flight.is_judged();
            in_flight.tells_no_pace();
            call.service.judge(endpoint, took, Evidence::Failed, now, false);
            Outcome::Broken
        }
    }
}

/// Opens a connection, or judges the replica that does not take one.
async fn open<T>(
    call: &Call,
    in_flight: &InFlight,
    limit: Duration,
    opening: impl Future<Output = io::Result<T>>,
) -> Option<T> {
    let (worker, endpoint, started) = (&call.worker, in_flight.endpoint(), in_flight.started());
    let opened = worker.clock.timeout(limit, opening).await;
    let now = worker.clock.now();
    let evidence = match opened {
        Ok(Ok(connection)) => {
            in_flight.restart(now);
            return Some(connection);
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
    in_flight.is_judged();
    in_flight.tells_no_pace();
    call.service.judge(endpoint, now.since(started), evidence, now, worker.was_lagging(started, limit, now));
    None
}

/// Whether a connection failed for want of descriptors, ports or memory here: no replica is to blame for that.
fn is_own_trouble(error: &io::Error) -> bool {
    /// `ENFILE` and `EMFILE`, which `io::ErrorKind` has no word for.
    const TOO_MANY_FILES: [i32; 2] = [23, 24];
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory)
        || error.raw_os_error().is_some_and(|code| TOO_MANY_FILES.contains(&code))
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

/// What an answer is judged by. A call of gRPC that fails before there is anything to send has its status in the head: 14,
/// `UNAVAILABLE`, is what 503 is elsewhere.
fn status_of(head: &ResponseHead) -> StatusCode {
    let is_unavailable = head.fields.named("grpc-status").is_some_and(|status| status == b"14");
    if is_unavailable { StatusCode::SERVICE_UNAVAILABLE } else { head.status }
}

/// Statuses that say more of the replica's moment than of the request.
const fn is_temporary(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}
