//! Which faults hit a request, and doing what they say.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;

use super::body::Tampered;
use super::set::Active;
use super::what::{Abort, Act, Request, Side, Stage};
use crate::attempt::{self, Answer, Call, Failure, Outcome, Outgoing};
use crate::body::AnswerBody;
use crate::client::BodyError;
use crate::error::Refusal;
use crate::exchange::{self, Reply};
use crate::pool::{Endpoint, InFlight};
use crate::story::Notes;
use crate::upstream::h1::Unanswered;
use crate::view::Routed;
use crate::wire::{Known, RequestHead, ResponseHead};
use crate::worker::Worker;

/// The name of a fault that came with a token.
const TOKEN_ID: &str = "token";

/// The faults that one request fits.
pub(crate) struct Injected {
    candidates: Vec<Arc<Active>>,
    /// Those that have hit it.
    hits: RefCell<Vec<Arc<Active>>>,
    is_grpc: bool,
}

/// A fault acts on a request, until this is dropped.
pub(super) struct Acting(Arc<Active>);

impl Drop for Acting {
    fn drop(&mut self) {
        self.0.acting.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Finds out which faults a request fits. A token that is looked at here is taken out of it; one for another hop goes on.
///
/// # Errors
/// A request from outside whose token is not good.
pub(crate) fn of_request(
    worker: &Worker,
    head: &mut RequestHead,
    routed: &Routed,
    has_token: bool,
    is_public: bool,
) -> Result<Option<Rc<Injected>>, Refusal> {
    let in_force = worker.faults.current();
    if in_force.is_none() && !has_token {
        return Ok(None);
    }
    let now = worker.clock.now();
    let is_grpc = head.is_grpc();
    let mut candidates = Vec::new();
    let rule = routed.rule();
    let fits = |head: &RequestHead, active: &Active| {
        active.fault.fits(Request {
            route: rule.map(|rule| &*rule.name),
            service: &routed.service().name,
            zone: routed.zone(),
            fields: &head.fields,
            is_grpc,
        })
    };
    for active in in_force.iter().flat_map(|in_force| &**in_force) {
        if !active.is_over(now) && fits(head, active) {
            candidates.push(Arc::clone(active));
        }
    }
    if has_token
        && let Some(active) = of_token(worker, head, is_public)?
        && fits(head, &active)
    {
        head.fields.remove(Known::Fault);
        candidates.push(active);
    }
    if candidates.is_empty() {
        return Ok(None);
    }
    Ok(Some(Rc::new(Injected { candidates, hits: RefCell::default(), is_grpc })))
}

/// What a request's token asks for. Without a key nobody is obeyed, and nothing gets in from outside.
fn of_token(
    worker: &Worker,
    head: &mut RequestHead,
    is_public: bool,
) -> Result<Option<Arc<Active>>, Refusal> {
    let Some(key) = worker.fault_key() else {
        if is_public {
            head.fields.remove(Known::Fault);
        }
        return Ok(None);
    };
    let mut tokens = head.fields.all(Known::Fault);
    let read = match (tokens.next(), tokens.next()) {
        (Some(token), None) => key.read(token, worker.clock.now()).map_err(|bad| bad.sentence()),
        _ => Err("standfast-fault is there more than once"),
    };
    drop(tokens);
    match read {
        Ok((fault, until)) => Ok(Some(Active::new(TOKEN_ID, fault, until))),
        Err(why) => {
            head.fields.remove(Known::Fault);
            worker.counters.bad_fault_tokens.add(1);
            // Within the stack, a request that was let in does not fail because its token has expired on the way.
            if is_public { Err(Refusal::BadFaultToken(why)) } else { Ok(None) }
        }
    }
}

impl Injected {
    /// The faults that have hit so far, as they are told: name and text.
    pub(crate) fn told(&self) -> Vec<(String, String)> {
        self.hits.borrow().iter().map(|one| (one.id.to_string(), one.fault.to_string())).collect()
    }

    /// Whether any has hit so far.
    pub(crate) fn has_hit(&self) -> bool {
        !self.hits.borrow().is_empty()
    }

    /// Those that hit now: the faults for this side and stage, each by its share.
    fn drawn(
        &self,
        worker: &Worker,
        side: Side,
        stage: Stage,
        endpoint: Option<&Endpoint>,
    ) -> Vec<Arc<Active>> {
        let now = worker.clock.now();
        let is_now = |active: &&Arc<Active>| {
            let fault = &active.fault;
            (fault.side(), fault.stage()) == (side, stage)
                && !active.is_over(now)
                && endpoint.is_none_or(|endpoint| fault.fits_replica(&endpoint.instance, endpoint.zone()))
        };
        let is_drawn = |active: &&Arc<Active>| {
            active.seen.fetch_add(1, Ordering::Relaxed);
            worker.rng.borrow_mut().fraction() < active.fault.share()
        };
        self.candidates.iter().filter(is_now).filter(is_drawn).map(Arc::clone).collect()
    }

    /// A fault hits: it is counted, and the request's story will name it.
    pub(super) fn hit(&self, active: &Arc<Active>) -> Acting {
        active.applied.fetch_add(1, Ordering::Relaxed);
        active.acting.fetch_add(1, Ordering::Relaxed);
        let mut hits = self.hits.borrow_mut();
        if !hits.iter().any(|known| Arc::ptr_eq(known, active)) {
            hits.push(Arc::clone(active));
        }
        Acting(Arc::clone(active))
    }

    /// Carries a request as [`exchange::answered`] does, with what goes wrong between the client and the gateway.
    ///
    /// # Errors
    /// As there, and [`Refusal::Injected`], [`BodyError::Reset`].
    ///
    /// # Cancellation
    /// As there.
    pub(crate) async fn carry(
        self: &Rc<Self>,
        call: &Call,
        outgoing: &Outgoing,
        notes: &Notes,
    ) -> Result<Answer, Failure> {
        self.towards_client(call, Stage::Request).await?;
        let mut answer = exchange::answered(call, outgoing, notes).await?;
        self.towards_client(call, Stage::Head).await?;
        for active in self.drawn(&call.worker, Side::Client, Stage::Body, None) {
            answer.body = self.tamper(call, active, answer.body);
        }
        Ok(answer)
    }

    async fn towards_client(&self, call: &Call, stage: Stage) -> Result<(), Failure> {
        let clock = call.worker.clock;
        for active in self.drawn(&call.worker, Side::Client, stage, None) {
            let _acting = self.hit(&active);
            match active.fault.act() {
                Act::Delay(latency, _) => {
                    let time = latency.sample(&mut call.worker.rng.borrow_mut());
                    active.hold(clock, time).await;
                }
                Act::Abort(abort, _) => return Err(self.aborted(*abort).into()),
                Act::Reset(_) => return Err(Failure::Client(BodyError::Reset)),
                Act::Blackhole(_) => {
                    active.hold(clock, call.deadline.since(clock.now())).await;
                    if clock.now() >= call.deadline {
                        return Err(self.aborted(Abort::Status(StatusCode::GATEWAY_TIMEOUT)).into());
                    }
                }
                Act::Throttle(_) | Act::Truncate(_) | Act::Corrupt(_) | Act::SlowHead(_) => {}
            }
        }
        Ok(())
    }

    /// One attempt as [`attempt::send`] makes it, with what goes wrong between the gateway and the replica.
    ///
    /// # Cancellation
    /// As there.
    pub(crate) async fn attempt(
        self: &Rc<Self>,
        call: &Call,
        outgoing: &Outgoing,
        in_flight: InFlight,
        patience: Duration,
    ) -> Outcome {
        let endpoint = Rc::clone(in_flight.endpoint());
        for active in self.drawn(&call.worker, Side::Upstream, Stage::Request, Some(&endpoint)) {
            if let Some(outcome) = self.towards_replica(call, &in_flight, &active, false, 0).await {
                return outcome;
            }
        }
        let outcome = attempt::send(call, outgoing, in_flight, patience).await;
        let Outcome::Answered(mut answer) = outcome else { return outcome };
        for active in self.drawn(&call.worker, Side::Upstream, Stage::Body, Some(&endpoint)) {
            answer.body = self.tamper(call, active, answer.body);
        }
        Outcome::Answered(answer)
    }

    /// A replica's answer is there, but the gateway has not seen it yet: what it sees instead, if anything.
    ///
    /// # Cancellation
    /// Cancel safe.
    pub(crate) async fn answered(
        &self,
        call: &Call,
        in_flight: &InFlight,
        head: &ResponseHead,
    ) -> Option<Outcome> {
        for active in self.drawn(&call.worker, Side::Upstream, Stage::Head, Some(in_flight.endpoint())) {
            let outcome = self.towards_replica(call, in_flight, &active, true, head.bytes()).await;
            if outcome.is_some() {
                return outcome;
            }
        }
        None
    }

    /// What one fault makes of an attempt; `None` when it goes on.
    async fn towards_replica(
        &self,
        call: &Call,
        in_flight: &InFlight,
        active: &Arc<Active>,
        is_sent: bool,
        head_bytes: u32,
    ) -> Option<Outcome> {
        let _acting = self.hit(active);
        let clock = call.worker.clock;
        let began = clock.now();
        match active.fault.act() {
            Act::Delay(latency, _) => {
                let time = latency.sample(&mut call.worker.rng.borrow_mut());
                active.hold(clock, time).await;
            }
            Act::SlowHead(every) => active.hold(clock, every.saturating_mul(head_bytes)).await,
            Act::Blackhole(_) => active.hold(clock, Duration::MAX).await,
            Act::Reset(_) => {
                let error = io::Error::new(io::ErrorKind::ConnectionReset, "a fault was injected");
                let error = if is_sent { Unanswered::Broken(error) } else { Unanswered::Unsent(error) };
                return Some(attempt::unanswered(call, in_flight, error));
            }
            Act::Abort(abort, _) => {
                let refusal = self.aborted(*abort);
                attempt::answered_well(call, in_flight, refusal.seen_as(self.is_grpc));
                let Reply { head, body, .. } = Reply::refused(&refusal, self.is_grpc);
                return Some(Outcome::Answered(Answer { head, body }));
            }
            Act::Throttle(_) | Act::Truncate(_) | Act::Corrupt(_) => {}
        }
        if !is_sent {
            in_flight.is_held(clock.now().since(began));
        }
        None
    }

    /// The answer that nobody gave.
    fn aborted(&self, abort: Abort) -> Refusal {
        match abort {
            Abort::Status(status) => Refusal::Injected(status, grpc_status(status)),
            Abort::Grpc(grpc) => Refusal::Injected(StatusCode::OK, grpc),
        }
    }

    fn tamper(self: &Rc<Self>, call: &Call, active: Arc<Active>, body: AnswerBody) -> AnswerBody {
        if matches!(body, AnswerBody::Upgraded(..)) {
            return body;
        }
        let rng = call.worker.rng.borrow_mut().fork("tampered body");
        AnswerBody::Tampered(Box::new(Tampered::new(body, active, Rc::clone(self), call.worker.clock, rng)))
    }
}

/// What gRPC takes a status of HTTP for (gRPC, "HTTP to gRPC Status Code Mapping").
const fn grpc_status(status: StatusCode) -> u8 {
    match status.as_u16() {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502..=504 => 14,
        _ => 2,
    }
}
