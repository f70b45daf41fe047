//! What is told of a request afterwards: a line in the access log, and a record that says why it got its answer.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use standfast_model::{ServiceName, Stamp};

use crate::access::Entry;
use crate::attempt::Call;
use crate::body::Source;
use crate::client::Client;
use crate::error::Refusal;
use crate::explain::{Attempt, AttemptEnd, Injection, Marks, Record, Sample};
use crate::fault::Injected;
use crate::pool::InFlight;
use crate::spans::{RequestSpans, SpanId};
use crate::trace::{RequestId, TraceContext, hex_of};
use crate::view::Routed;
use crate::wire::{Fields, RequestHead};
use crate::worker::Worker;

/// Of the requests that nothing happened to, one in so many is told as well.
const SAMPLE: u32 = 1_024;
/// A request that took so many times what 99 % of its kind take is slow…
const SLOW_RATIO: u32 = 3;
/// …if that is more than noise.
const SLOW_MIN: Duration = Duration::from_millis(50);

/// What a request has been through so far.
#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) attempts: RefCell<Vec<Note>>,
    pub(crate) waited: std::cell::Cell<Duration>,
    pub(crate) admission_limit: std::cell::Cell<Option<u32>>,
    /// Its attempt goes on although its client has left.
    pub(crate) goes_on: std::cell::Cell<bool>,
    /// Whose answer it was given, when that was kept.
    pub(crate) replay_of: std::cell::Cell<Option<RequestId>>,
    /// Its spans are sent, so that attempts need names.
    pub(crate) is_traced: bool,
}

/// One attempt.
pub(crate) struct Note {
    pub(crate) endpoint: Rc<crate::pool::Endpoint>,
    pub(crate) started: Stamp,
    pub(crate) in_flight: u32,
    pub(crate) score: f64,
    pub(crate) is_hedge: bool,
    pub(crate) span_id: Option<SpanId>,
    pub(crate) end: Option<(Stamp, AttemptEnd, Option<u16>)>,
}

impl Notes {
    /// An attempt ends.
    pub(crate) fn end(&self, number: usize, at: Stamp, end: AttemptEnd, status: Option<u16>) {
        if let Some(note) = self.attempts.borrow_mut().get_mut(number) {
            note.end.get_or_insert((at, end, status));
        }
    }

    /// Tells what others have written down so far.
    pub(crate) fn take_over(&self, others: &Self) {
        self.attempts.borrow_mut().append(&mut others.attempts.borrow_mut());
        self.waited.set(self.waited.get() + others.waited.get());
        self.admission_limit.set(others.admission_limit.get());
    }
}

/// Who asked, and for what.
pub(crate) struct Asked {
    pub(crate) id: RequestId,
    pub(crate) trace: TraceContext,
    /// The span of whoever sent it.
    pub(crate) parent: Option<SpanId>,
    /// Its spans are sent.
    pub(crate) is_traced: bool,
    pub(crate) client_request_id: Option<String>,
    pub(crate) at: Stamp,
}

/// A request whose story will be told when its answer has gone.
pub(crate) struct Story {
    record: Record,
    host: String,
    target: String,
    protocol: &'static str,
    user_agent: Option<Vec<u8>>,
    referer: Option<Vec<u8>>,
    /// Tells at the end how much of it came.
    source: Source,
    /// Knows at the end which faults have hit it.
    injected: Option<Rc<Injected>>,
    is_record: bool,
    spans: Option<SpanStory>,
}

/// What a request's spans have besides its record.
struct SpanStory {
    trace: TraceContext,
    parent: Option<SpanId>,
    state: Option<String>,
    attempts: Vec<SpanId>,
}

/// What became of a request.
#[derive(Clone, Copy)]
pub(crate) enum Outcome<'a> {
    /// A replica answered, or a route, with this status.
    Answered(u16),
    /// The gateway answered.
    Refused(&'a Refusal),
    /// Its client left before there was an answer.
    Abandoned,
    /// A fault had the client's connection reset.
    Reset,
}

/// What is known of a request while it is worked on.
#[derive(Clone, Copy)]
pub(crate) struct Teller<'a> {
    pub(crate) worker: &'a Worker,
    pub(crate) client: &'a Client,
    pub(crate) asked: &'a Asked,
    pub(crate) notes: &'a Notes,
    /// Where it goes, once that is known.
    pub(crate) routed: Option<&'a Routed>,
    /// How it is carried, once that is known.
    pub(crate) call: Option<&'a Call>,
}

/// Begins a request's story, if it is to be told.
pub(crate) fn begin(
    teller: Teller<'_>,
    head: &RequestHead,
    source: &Source,
    outcome: Outcome<'_>,
    now: Stamp,
) -> Option<Box<Story>> {
    let Teller { worker, client, asked, notes, routed, call } = teller;
    let took = now.since(asked.at);
    let attempts = notes.attempts.borrow();
    let is_slow =
        call.and_then(|call| call.service.p99()).is_some_and(|p99| took > (p99 * SLOW_RATIO).max(SLOW_MIN));
    let marks = Marks {
        failed: match outcome {
            Outcome::Answered(status) => status >= 500,
            Outcome::Refused(refusal) => refusal.status().is_server_error(),
            Outcome::Abandoned | Outcome::Reset => true,
        },
        retried: attempts.iter().skip(1).any(|note| !note.is_hedge),
        hedged: attempts.iter().any(|note| note.is_hedge),
        shed: matches!(
            outcome,
            Outcome::Refused(Refusal::Shed(..) | Refusal::RateLimited(_) | Refusal::RouteFull)
        ),
        slow: is_slow,
        replayed: notes.replay_of.get().is_some(),
        injected: call.and_then(|call| call.injected.as_ref()).is_some_and(|injected| injected.has_hit()),
    };
    let is_record = Sample::one_in(SAMPLE).takes(marks, &mut worker.rng.borrow_mut());
    // A fault may still hit the answer's body.
    let injected = call.and_then(|call| call.injected.clone());
    if !is_record && injected.is_none() && !asked.is_traced && !worker.writes_access_log() {
        return None;
    }
    if asked.is_traced
        && let (Some(call), false) = (call, matches!(outcome, Outcome::Abandoned))
    {
        call.service.counters.latency.exemplify(took, &hex_of(&asked.trace.trace_id), now);
    }
    let text = |fields: &Fields, name: &str| fields.named(name).map(<[u8]>::to_vec);
    let service: Option<ServiceName> = call.map(|call| call.service.name.clone());
    let record = Record {
        id: asked.id.as_str().to_owned(),
        client_request_id: asked.client_request_id.clone(),
        trace_id: Some(String::from_utf8_lossy(&asked.trace.trace_id_text()).into_owned()),
        at: asked.at,
        took_ms: 0.0,
        marks,
        route: routed.and_then(Routed::rule).map(|rule| rule.name.to_string()),
        service,
        method: head.method.to_string(),
        path: head.path().to_owned(),
        client: client.address(),
        status: match outcome {
            Outcome::Answered(status) => Some(status),
            Outcome::Refused(refusal) => Some(refusal.status().as_u16()),
            Outcome::Abandoned | Outcome::Reset => None,
        },
        reason: match outcome {
            Outcome::Refused(refusal) => Some(Cow::Borrowed(refusal.reason())),
            Outcome::Reset => Some(Cow::Borrowed("injected-fault")),
            _ => None,
        },
        attempts: told(&attempts, asked.at, now, outcome, notes.goes_on.get()),
        attempts_left_out: 0,
        replay_of: notes.replay_of.get().map(|first| first.to_string()),
        injected: Vec::new(),
        budget_left: call.map_or(0.0, |call| call.service.budget_left(now)),
        deadline_left_ms: call.map_or(0.0, |call| millis(call.deadline.since(now))),
        waited_ms: millis(notes.waited.get()),
        admission_limit: notes.admission_limit.get(),
        bytes_in: 0,
        bytes_out: 0,
    };
    Some(Box::new(Story {
        record,
        host: head.host().to_owned(),
        target: head.target().to_owned(),
        protocol: head.protocol,
        user_agent: text(&head.fields, "user-agent"),
        referer: text(&head.fields, "referer"),
        source: source.clone(),
        injected,
        is_record,
        spans: asked.is_traced.then(|| SpanStory::new(asked, &head.fields, &attempts)),
    }))
}

impl Story {
    /// Tells it: the answer has gone, or its client has.
    pub(crate) fn end(mut self: Box<Self>, worker: &Worker, bytes_out: u64, is_whole: bool) {
        let took = worker.clock.now().since(self.record.at);
        self.record.took_ms = millis(took);
        self.record.bytes_in = self.source.bytes_read();
        self.record.bytes_out = bytes_out;
        if !is_whole {
            self.record.marks.failed = true;
        }
        if let Some(injected) = &self.injected {
            self.record.marks.injected = injected.has_hit();
            let told = injected.told().into_iter().map(|(id, fault)| Injection { id, fault });
            self.record.injected = told.collect();
        }
        let record = &self.record;
        let answered = record.attempts.iter().find(|attempt| attempt.end == AttemptEnd::Answered);
        worker.write_access_log(&Entry {
            at: record.at,
            took,
            id: &record.id,
            trace_id: record.trace_id.as_deref(),
            client: record.client,
            method: &record.method,
            host: &self.host,
            target: &self.target,
            protocol: self.protocol,
            status: record.status,
            reason: record.reason.as_deref(),
            bytes_in: record.bytes_in,
            bytes_out,
            route: record.route.as_deref(),
            service: record.service.as_ref().map(ServiceName::as_str),
            instance: answered.map(|attempt| &attempt.instance),
            attempts: u32::try_from(record.attempts.len()).unwrap_or(u32::MAX),
            marks: record.marks,
            replay_of: record.replay_of.as_deref(),
            injected: &record.injected,
            user_agent: self.user_agent.as_deref(),
            referer: self.referer.as_deref(),
        });
        let is_record = self.is_record || self.record.marks.any();
        if let Some(spans) = self.spans {
            let SpanStory { trace, parent, state, attempts } = spans;
            let user_agent = self.user_agent.map(|agent| String::from_utf8_lossy(&agent).into_owned());
            let (host, protocol, record) = (self.host, self.protocol, self.record.clone());
            let spans = RequestSpans { trace, parent, state, host, protocol, user_agent, record, attempts };
            worker.send_spans(spans);
        }
        if is_record {
            worker.records.write(self.record);
        }
    }
}

impl SpanStory {
    fn new(asked: &Asked, fields: &Fields, attempts: &[Note]) -> Self {
        // Without a trace that goes on its state means nothing.
        let state = fields.named("tracestate").filter(|_| asked.parent.is_some());
        Self {
            trace: asked.trace,
            parent: asked.parent,
            state: state.map(|state| String::from_utf8_lossy(state).into_owned()),
            attempts: attempts.iter().map(|note| note.span_id.unwrap_or_default()).collect(),
        }
    }
}

/// All attempts. Of several answers only the last was passed on, and none where the gateway answered itself.
fn told(notes: &[Note], asked_at: Stamp, now: Stamp, outcome: Outcome<'_>, goes_on: bool) -> Vec<Attempt> {
    let has_answered = |note: &Note| matches!(note.end, Some((_, AttemptEnd::Answered, _)));
    let is_passed_on = matches!(outcome, Outcome::Answered(_));
    let passed_on = notes.iter().rposition(has_answered).filter(|_| is_passed_on);
    let unfinished = match outcome {
        Outcome::Abandoned if goes_on => AttemptEnd::GoesOn,
        Outcome::Abandoned => AttemptEnd::Abandoned,
        _ => AttemptEnd::Beaten,
    };
    let attempt = |(number, note): (usize, &Note)| {
        let (at, end, status) = note.end.unwrap_or((now, unfinished, None));
        let is_dropped = end == AttemptEnd::Answered && passed_on != Some(number);
        Attempt {
            instance: note.endpoint.instance.clone(),
            address: note.endpoint.address,
            zone: note.endpoint.zone().clone(),
            started_after_ms: millis(note.started.since(asked_at)),
            took_ms: millis(at.since(note.started)),
            end: if is_dropped { AttemptEnd::Dropped } else { end },
            score: note.score,
            in_flight: note.in_flight,
            is_hedge: note.is_hedge,
            status,
        }
    };
    notes.iter().enumerate().map(attempt).collect()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// A note of an attempt that begins.
pub(crate) fn note(in_flight: &InFlight, now: Stamp, is_hedge: bool, span_id: Option<SpanId>) -> Note {
    let endpoint = Rc::clone(in_flight.endpoint());
    Note {
        started: now,
        in_flight: endpoint.others_in_flight(),
        score: endpoint.score(now),
        endpoint,
        is_hedge,
        span_id,
        end: None,
    }
}
