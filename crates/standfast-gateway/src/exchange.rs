//! One request of a client: from its head to its answer's head, whatever protocol it came by.

use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, StatusCode};
use standfast_model::{Balance, HashKey, Priority, RatePer, Stamp};

use crate::attempt::{self, Answer, Call, Failure, Outgoing};
use crate::body::{AnswerBody, Source};
use crate::client::{BodyError, Client};
use crate::error::Refusal;
use crate::fault::{self, Injected};
use crate::filters::HeaderEdits;
use crate::headers::{self, Said};
use crate::kept::{self, Key};
use crate::pool::Service;
use crate::ring;
use crate::routes::Rule;
use crate::story::{self, Asked, Notes, Outcome, Story, Teller};
use crate::trace::{RequestId, TraceContext};
use crate::view::{RoutePlace, Routed};
use crate::wire::{Fields, Framing, Known, RequestHead, ResponseHead};
use crate::worker::Worker;

/// What a client is answered.
pub(crate) struct Reply {
    pub(crate) head: ResponseHead,
    pub(crate) body: AnswerBody,
    /// The connection cannot be used any further.
    pub(crate) ends_connection: bool,
    /// To be told when the answer has gone.
    pub(crate) story: Option<Box<Story>>,
    /// A place in the route's bulkhead, kept until the answer has gone.
    pub(crate) _place: Option<RoutePlace>,
}

/// Answers one request; `None` when there is nobody to answer any more. `gone` is ready when the client has left.
///
/// # Cancellation
/// When the client leaves, attempts that are running are broken off with their connections.
pub(crate) async fn exchange(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    mut head: RequestHead,
    source: Source,
    gone: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> Option<Reply> {
    let started = worker.clock.now();
    let is_public = client.kind.is_public();
    let asked = identify(worker, &head.fields, is_public, started);
    let notes = Notes { is_traced: asked.is_traced, ..Notes::default() };
    let mut teller = Teller { worker, client, asked: &asked, notes: &notes, routed: None, call: None };
    let is_grpc = head.is_grpc();
    let routed = headers::take_in(&mut head, is_public)
        .and_then(|said| Ok((said, worker.route(&client.kind, &head)?)))
        .and_then(|(said, routed)| Ok((admit_to_route(worker, client, &head, &routed)?, said, routed)))
        .and_then(|(place, said, routed)| {
            let injected = fault::of_request(worker, &mut head, &routed, said.has_fault_token, is_public)?;
            Ok((place, said, routed, injected))
        });
    let (place, said, routed, injected) = match routed {
        Ok(routed) => routed,
        Err(refusal) => {
            worker.counters.refuse(refusal.reason());
            let story = story::begin(teller, &head, &source, Outcome::Refused(&refusal), worker.clock.now());
            return Some(Reply { story, ..Reply::refused(&refusal, is_grpc) }.identified(&asked));
        }
    };
    teller.routed = Some(&routed);
    if let Some(reply) = redirect(client, &head, &routed) {
        let outcome = Outcome::Answered(reply.head.status.as_u16());
        let story = story::begin(teller, &head, &source, outcome, worker.clock.now());
        return Some(Reply { story, _place: place, ..reply }.identified(&asked));
    }
    let call = prepare(worker, client, &mut head, &said, &routed, &asked, injected);
    teller.call = Some(&call);
    let tally = Tally::new(&call.service, started);
    let (head, source, carried) = carry(&call, head, source, &said, &routed, &notes, gone).await;
    let now = worker.clock.now();
    let mut reply = match carried {
        Ok(mut answer) => {
            tally.finish(answer.head.status, now);
            headers::strip_answer(&mut answer.head);
            let outcome = Outcome::Answered(answer.head.status.as_u16());
            let story = story::begin(teller, &head, &source, outcome, now);
            Reply { head: answer.head, body: answer.body, ends_connection: false, story, _place: place }
        }
        Err(BodyError::Gone) => {
            if let Some(story) = story::begin(teller, &head, &source, Outcome::Abandoned, now) {
                story.end(worker, 0, false);
            }
            return None;
        }
        Err(BodyError::Reset) => {
            let story = story::begin(teller, &head, &source, Outcome::Reset, now);
            Reply { story, _place: place, ..Reply::reset() }
        }
        Err(BodyError::Refused(refusal)) => {
            call.service.counters.refuse(&refusal);
            tally.finish(refusal.status(), now);
            let story = story::begin(teller, &head, &source, Outcome::Refused(&refusal), now);
            Reply { story, _place: place, ..Reply::refused(&refusal, is_grpc) }
        }
    };
    if let Some(rule) = routed.rule() {
        edit(&mut reply.head.fields, &rule.filters.response);
    }
    Some(reply.identified(&asked))
}

/// Has a request answered by a replica, unless its client leaves before. Gives the request back as it was sent.
async fn carry(
    call: &Call,
    head: RequestHead,
    source: Source,
    said: &Said,
    routed: &Routed,
    notes: &Notes,
    gone: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> (RequestHead, Source, Result<Answer, BodyError>) {
    let is_repeatable = headers::is_repeatable(&head.method, said.has_idempotency_key);
    let bytes_max = call.worker.limits.get().replay_bytes_max;
    let unread = source.clone();
    let source = match if is_repeatable { source.kept(bytes_max).await } else { Ok(source) } {
        Ok(source) => source,
        Err(error) => return (head, unread, Err(error)),
    };
    let is_repeatable = is_repeatable && source.can_be_sent_again() && kept::may_repeat(call, &head.method);
    let outgoing = Outgoing { head, source, is_repeatable };
    if let Some(rule) = routed.rule() {
        mirror(call, &outgoing, rule);
    }
    let carried = match &call.injected {
        None => unless_gone(answered(call, &outgoing, notes), gone).await,
        Some(injected) => unless_gone(Box::pin(injected.carry(call, &outgoing, notes)), gone).await,
    };
    let Outgoing { head, source, .. } = outgoing;
    (head, source, carried)
}

/// Has a request answered by a replica, or by what was kept of its first answer.
///
/// # Errors
/// Why there is no answer.
pub(crate) async fn answered(call: &Call, outgoing: &Outgoing, notes: &Notes) -> Result<Answer, Failure> {
    match &call.kept {
        None => attempt::carry(call, outgoing, notes).await,
        Some(key) => Box::pin(kept::carry(call, outgoing, notes, key)).await,
    }
}

async fn unless_gone(
    carrying: impl Future<Output = Result<Answer, Failure>>,
    mut gone: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> Result<Answer, BodyError> {
    let mut carrying = pin!(carrying);
    let carried = std::future::poll_fn(|cx| match carrying.as_mut().poll(cx) {
        Poll::Ready(Ok(answer)) => Poll::Ready(Ok(answer)),
        Poll::Ready(Err(Failure::Refused(refusal))) => Poll::Ready(Err(BodyError::Refused(refusal))),
        Poll::Ready(Err(Failure::Client(error))) => Poll::Ready(Err(error)),
        Poll::Pending => gone(cx).map(|()| Err(BodyError::Gone)),
    });
    carried.await
}

/// Gives a request its name, and its place in a trace.
fn identify(worker: &Worker, fields: &Fields, is_public: bool, now: Stamp) -> Asked {
    let rng = &mut worker.rng.borrow_mut();
    let (id, said) = RequestId::of_request(fields.get(Known::RequestId), is_public, now, rng);
    let client_request_id = said.map(str::to_owned);
    let mut parents = fields.all(Known::Traceparent);
    let parent = parents.next().filter(|_| parents.next().is_none());
    let is_sampled = worker.samples_root(rng);
    let (trace, parent) = TraceContext::of_request(parent, is_sampled, rng);
    let is_traced = trace.is_sampled() && worker.sends_spans();
    Asked { id, trace, parent, is_traced, client_request_id, at: now }
}

/// Holds a request against its route's limits.
fn admit_to_route(
    worker: &Worker,
    client: &Client,
    head: &RequestHead,
    routed: &Routed,
) -> Result<Option<RoutePlace>, Refusal> {
    let Some((rule, state)) = routed.rule().zip(routed.state()) else { return Ok(None) };
    for (limit, limiter) in rule.rate_limits.iter().zip(&state.limiters) {
        let key = match &limit.per {
            RatePer::Route => 0,
            RatePer::Client => hash_of_client(client),
            RatePer::Header(name) => head.fields.named(name).map_or(0, ring::stable_hash),
        };
        limiter.take(key, worker.clock.now()).map_err(Refusal::RateLimited)?;
    }
    match rule.concurrency_max {
        None => Ok(None),
        Some(most) => RoutePlace::take(state, most).map(Some).ok_or(Refusal::RouteFull),
    }
}

fn hash_of_client(client: &Client) -> u64 {
    match client.address() {
        std::net::IpAddr::V4(address) => ring::stable_hash(&address.octets()),
        std::net::IpAddr::V6(address) => ring::stable_hash(&address.octets()),
    }
}

/// The answer of a route that sends clients elsewhere.
fn redirect(client: &Client, head: &RequestHead, routed: &Routed) -> Option<Reply> {
    let rule = routed.rule()?;
    let scheme = client.kind.scheme();
    let port = if scheme == "https" { 443 } else { 80 };
    let (status, location) = rule.filters.redirect(head, scheme, port)?;
    let mut fields = Fields::default();
    fields.add("location", location.as_bytes());
    edit(&mut fields, &rule.filters.response);
    fields.add("content-length", b"0");
    Some(Reply {
        head: ResponseHead::of_parts(status, fields, Framing::None),
        body: AnswerBody::Empty,
        ends_connection: false,
        story: None,
        _place: None,
    })
}

/// Makes of a client's request one for its service.
fn prepare(
    worker: &Rc<Worker>,
    client: &Client,
    head: &mut RequestHead,
    said: &Said,
    routed: &Routed,
    asked: &Asked,
    injected: Option<Rc<Injected>>,
) -> Call {
    let is_public = client.kind.is_public();
    let service = Rc::clone(routed.service());
    let kept = Key::of(client, head, said, &service, asked.id);
    if !head.fields.has(Known::Host) {
        // HTTP/1.0 needs none, the replica does.
        head.fields.push(Known::Host, "host", service.name.as_str().as_bytes());
    }
    if is_public {
        client.forwarded.borrow_mut().set(&mut head.fields);
    }
    let mut priority = said.priority.unwrap_or_default();
    let mut timeout = service.policy.borrow().timeout;
    if let Some(rule) = routed.rule() {
        // Anyone could ask for more than a route is meant for.
        priority = said.priority.map_or(rule.priority, |said| said.min(rule.priority.max(Priority::Normal)));
        timeout = rule.timeout.unwrap_or(timeout);
        edit(&mut head.fields, &rule.filters.request);
        if let Some(target) = rule.filters.rewrite_target(head.target()) {
            head.set_target(&target);
        }
        if let Some(host) = rule.filters.rewrite_host() {
            head.fields.set(Known::Host, "host", host.as_bytes());
        }
    }
    head.fields.set(Known::RequestId, "standfast-request-id", asked.id.as_str().as_bytes());
    head.fields.set(Known::Traceparent, "traceparent", &asked.trace.header());
    if priority != Priority::Normal || said.priority.is_some() {
        head.fields.set(Known::Priority, "standfast-priority", headers::priority_word(priority));
    }
    // Each connection frames the body in its own way.
    head.fields.remove(Known::ContentLength);
    let allowed = match said.left {
        Some(left) if is_public => left.min(timeout),
        Some(left) => left,
        None => timeout,
    };
    let key_hash = key_of(&service, client, head);
    let zone = routed.zone().cloned();
    let deadline = asked.at.plus(allowed);
    Call { worker: Rc::clone(worker), service, zone, deadline, key_hash, priority, kept, injected }
}

/// The hash of what the same replica is wanted for.
fn key_of(service: &Service, client: &Client, head: &RequestHead) -> Option<u64> {
    match &service.policy.borrow().balance {
        Balance::Hash(HashKey::Header(name)) => head.fields.named(name).map(ring::stable_hash),
        Balance::Hash(HashKey::Cookie(name)) => cookie(&head.fields, name).map(ring::stable_hash),
        Balance::Hash(HashKey::Path) => Some(ring::stable_hash(head.path().as_bytes())),
        Balance::Hash(HashKey::Client) => Some(hash_of_client(client)),
        _ => None,
    }
}

fn cookie<'a>(fields: &'a Fields, name: &str) -> Option<&'a [u8]> {
    let pairs = fields.all(Known::Cookie).flat_map(|value| value.split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

fn edit(fields: &mut Fields, edits: &HeaderEdits) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for name in &edits.remove {
        fields.remove_named(name);
    }
    for (name, value) in &edits.set {
        fields.remove_named(name);
        fields.add(&text(name), value);
    }
    for (name, value) in &edits.add {
        fields.add(&text(name), value);
    }
}

/// Sends a copy of a request to the service that the route mirrors to. Nobody waits for the answer.
fn mirror(call: &Call, outgoing: &Outgoing, rule: &Rule<Rc<Service>>) {
    let Some(service) = rule.mirror(&mut call.worker.rng.borrow_mut()).cloned() else { return };
    if !outgoing.source.can_be_sent_again() {
        return; // a body that is sent as it comes can go to one place only
    }
    let copy =
        Outgoing { head: outgoing.head.clone(), source: outgoing.source.clone(), is_repeatable: false };
    let call = Call {
        worker: Rc::clone(&call.worker),
        service,
        zone: call.zone.clone(),
        deadline: call.deadline,
        key_hash: None,
        priority: Priority::Low,
        kept: None,
        injected: None,
    };
    let worker = Rc::clone(&call.worker);
    worker.spawn(async move {
        let _dropped = attempt::carry(&call, &copy, &Notes::default()).await;
    });
}

impl Reply {
    /// An answer that the gateway makes itself: a word for programs in `Standfast-Reason`, a sentence for people in the body; for
    /// gRPC an answer that has only trailers.
    pub(crate) fn refused(refusal: &Refusal, is_grpc: bool) -> Self {
        let mut fields = Fields::default();
        fields.add("standfast-reason", refusal.reason().as_bytes());
        if let Some(seconds) = refusal.retry_after() {
            fields.add("retry-after", seconds.to_string().as_bytes());
        }
        if is_grpc {
            fields.add("content-type", b"application/grpc");
            fields.add("grpc-status", refusal.grpc_status().to_string().as_bytes());
            fields.add("grpc-message", refusal.to_string().replace('`', "'").as_bytes());
            return Self {
                head: ResponseHead::of_parts(StatusCode::OK, fields, Framing::None),
                body: AnswerBody::Empty,
                ends_connection: false,
                story: None,
                _place: None,
            };
        }
        let body = Bytes::from(format!("standfast: {refusal}\n"));
        fields.add("content-type", b"text/plain; charset=utf-8");
        fields.add("content-length", body.len().to_string().as_bytes());
        let framing = Framing::Length(body.len() as u64);
        Self {
            head: ResponseHead::of_parts(refusal.status(), fields, framing),
            body: AnswerBody::Whole(body),
            ends_connection: refusal.ends_connection(),
            story: None,
            _place: None,
        }
    }

    /// No answer at all: the client's connection ends with a reset, over HTTP/2 its stream.
    fn reset() -> Self {
        Self {
            head: ResponseHead::of_parts(StatusCode::BAD_GATEWAY, Fields::default(), Framing::None),
            body: AnswerBody::Reset,
            ends_connection: true,
            story: None,
            _place: None,
        }
    }

    /// With the name by which `standfast why-request` finds it.
    fn identified(mut self, asked: &Asked) -> Self {
        self.head.fields.set(Known::RequestId, "standfast-request-id", asked.id.as_str().as_bytes());
        self
    }

    /// Whether an answer to this method and with this status has a body at all.
    pub(crate) fn has_no_body(&self, method: &Method) -> bool {
        *method == Method::HEAD
            || matches!(self.head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || self.head.status.is_informational()
    }
}

/// Counts a request, also when its client leaves before the answer.
struct Tally {
    service: Rc<Service>,
    started: Stamp,
    is_finished: bool,
}

impl Tally {
    fn new(service: &Rc<Service>, started: Stamp) -> Self {
        service.counters.requests.add(1);
        service.counters.in_flight.add(1);
        Self { service: Rc::clone(service), started, is_finished: false }
    }

    fn finish(mut self, status: StatusCode, now: Stamp) {
        self.is_finished = true;
        self.service.counters.answered.count(status);
        self.service.counters.latency.observe(now.since(self.started));
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.service.counters.in_flight.take_one();
        if !self.is_finished {
            self.service.counters.abandoned.add(1);
        }
    }
}
