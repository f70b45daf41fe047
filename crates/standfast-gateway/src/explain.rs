//! Why a request got its answer: one record for each that failed, was repeated, hedged, shed or slow, and for a share of the rest.
//!
//! Each worker writes into a ring of its own ([`Records`]), whose lock is taken only when a record is written or read: most
//! requests write none. Readers are outside of the workers. Both the number of records and their bytes are bounded; the oldest
//! make way.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use standfast_model::{Instance, ServiceName, Stamp, ZoneName};
use standfast_runtime::Rng;

/// Records that one worker keeps.
pub(crate) const RECORDS_MAX: usize = 4_096;
/// What one worker's records may take up in all.
pub(crate) const BYTES_MAX: usize = 8 << 20;
/// Bytes of any text in a record; what is longer is cut.
const TEXT_BYTES_MAX: usize = 512;
/// Attempts in a record; of more, the first ones and the last are kept.
const ATTEMPTS_MAX: usize = 16;
/// Faults in a record.
const INJECTIONS_MAX: usize = 8;

/// What makes a request worth a record and a line in the access log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Marks {
    /// It was answered with 5xx, or by the gateway instead of a service, or not at all.
    pub failed: bool,
    /// It was sent to more than one replica, one after the other.
    pub retried: bool,
    /// It was sent to a second replica beside the first.
    pub hedged: bool,
    /// It was not let in.
    pub shed: bool,
    /// It took much longer than its kind usually does.
    pub slow: bool,
    /// It was given the answer that was kept of an earlier one with the same `Idempotency-Key`.
    pub replayed: bool,
    /// A fault was injected: what is said of it is an experiment.
    pub injected: bool,
}

impl Marks {
    /// Whether there is any.
    pub const fn any(self) -> bool {
        let Self { failed, retried, hedged, shed, slow, replayed, injected } = self;
        failed || retried || hedged || shed || slow || replayed || injected
    }
}

/// Chooses what is written down: whatever is marked, and one in so many of the rest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    one_in: usize,
}

impl Sample {
    /// 0 is none of the rest.
    pub(crate) fn one_in(one_in: u32) -> Self {
        Self { one_in: usize::try_from(one_in).unwrap_or(usize::MAX) }
    }

    pub(crate) fn takes(self, marks: Marks, rng: &mut Rng) -> bool {
        marks.any()
            || match self.one_in {
                0 => false,
                1 => true,
                one_in => rng.below(one_in) == 0,
            }
    }
}

/// What became of one request. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// `Standfast-Request-Id`.
    pub id: String,
    /// What its client calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_request_id: Option<String>,
    /// Its trace, as in `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// When its head had arrived.
    pub at: Stamp,
    /// From then to the end of its answer.
    pub took_ms: f64,
    /// Why there is a record; none is by chance.
    pub marks: Marks,
    /// The name of its route; none between services, or where no route is for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
    /// The service that it was for, when that was found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// Its method.
    pub method: String,
    /// Its path, without the query, which may hold secrets.
    pub path: String,
    /// Who sent it.
    pub client: IpAddr,
    /// What it was answered with; none when the client left before.
    pub status: Option<u16>,
    /// `Standfast-Reason`, where the gateway made the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Cow<'static, str>>,
    /// What was tried, in this order.
    pub attempts: Vec<Attempt>,
    /// Attempts that there was no room for here.
    #[serde(default)]
    pub attempts_left_out: u32,
    /// The request whose answer it was given, when that was kept: its `Standfast-Request-Id`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<String>,
    /// The faults that have hit it on purpose.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub injected: Vec<Injection>,
    /// Further attempts that the service's retry budget would have paid for at the end.
    pub budget_left: f64,
    /// What was left of its time; 0 when that was over.
    pub deadline_left_ms: f64,
    /// How long it waited to be let in, or for a replica to be ready.
    pub waited_ms: f64,
    /// How many requests the service was given at a time when this one came; none when that is not limited.
    pub admission_limit: Option<u32>,
    /// Of its body.
    pub bytes_in: u64,
    /// Of its answer's body.
    pub bytes_out: u64,
}

/// A fault that was injected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injection {
    /// Its name.
    pub id: String,
    /// What it is, as [`crate::Fault`] is written.
    pub fault: String,
}

/// One attempt to have a request answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which replica.
    pub instance: Instance,
    /// Where it is.
    pub address: SocketAddr,
    /// Its zone.
    pub zone: ZoneName,
    /// When it began, counted from the request's begin.
    pub started_after_ms: f64,
    /// How long it took.
    pub took_ms: f64,
    /// How it ended.
    pub end: AttemptEnd,
    /// What it was chosen by: the lower the better.
    pub score: f64,
    /// Requests that the replica was working on, this one not counted.
    pub in_flight: u32,
    /// Whether it went beside an attempt that was still running.
    pub is_hedge: bool,
    /// What the replica answered.
    pub status: Option<u16>,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AttemptEnd {
    /// Its answer was passed on.
    Answered,
    /// Its answer was dropped, since another replica might have a better one.
    Dropped,
    /// The replica took no connection, or broke it before anything was sent.
    Unsent,
    /// The replica broke the connection before it answered.
    Broken,
    /// It was given up, since the replica took longer than usual.
    TooSlow,
    /// The request's time was over before the answer.
    Overdue,
    /// Another attempt was faster.
    Beaten,
    /// The client left.
    Abandoned,
    /// The client left, and the answer is waited for all the same, to be kept.
    GoesOn,
}

impl AttemptEnd {
    /// The word for programs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Dropped => "dropped",
            Self::Unsent => "unsent",
            Self::Broken => "broken",
            Self::TooSlow => "too-slow",
            Self::Overdue => "overdue",
            Self::Beaten => "beaten",
            Self::Abandoned => "abandoned",
            Self::GoesOn => "goes-on",
        }
    }
}

/// Which records are wanted: those that all of this fits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// For this service.
    pub service: Option<ServiceName>,
    /// By the route of this name.
    pub route: Option<String>,
    /// With this status.
    pub status: Option<u16>,
    /// With this `Standfast-Reason`.
    pub reason: Option<String>,
    /// Of which an attempt went to this replica.
    pub instance: Option<Instance>,
    /// With any mark: none of those that are there by chance.
    pub is_marked: bool,
}

impl Filter {
    /// Whether all of this fits.
    pub fn fits(&self, record: &Record) -> bool {
        fn is<T: PartialEq>(wanted: Option<&T>, found: Option<&T>) -> bool {
            wanted.is_none_or(|wanted| found == Some(wanted))
        }
        is(self.service.as_ref(), record.service.as_ref())
            && is(self.route.as_ref(), record.route.as_ref())
            && is(self.status.as_ref(), record.status.as_ref())
            && self.reason.as_deref().is_none_or(|reason| record.reason.as_deref() == Some(reason))
            && self
                .instance
                .as_ref()
                .is_none_or(|wanted| record.attempts.iter().any(|attempt| attempt.instance == *wanted))
            && (!self.is_marked || record.marks.any())
    }
}

/// The records of one worker. Clones are handles to the same ones.
#[derive(Debug, Clone)]
pub(crate) struct Records(Arc<Mutex<Ring>>);

#[derive(Debug)]
struct Ring {
    records: VecDeque<Record>,
    bytes: usize,
    records_max: usize,
    bytes_max: usize,
}

impl Default for Records {
    fn default() -> Self {
        Self::with_limits(RECORDS_MAX, BYTES_MAX)
    }
}

impl Records {
    pub(crate) fn with_limits(records_max: usize, bytes_max: usize) -> Self {
        Self(Arc::new(Mutex::new(Ring { records: VecDeque::new(), bytes: 0, records_max, bytes_max })))
    }

    /// Keeps a record; the oldest ones make way.
    pub(crate) fn write(&self, mut record: Record) {
        record.cut();
        let bytes = record.bytes();
        let mut dropped = Vec::new();
        let mut ring = self.ring();
        while ring.records.len() + 1 > ring.records_max || ring.bytes + bytes > ring.bytes_max {
            let Some(oldest) = ring.records.pop_front() else { break };
            ring.bytes -= oldest.bytes();
            dropped.push(oldest);
        }
        if ring.records_max > 0 && bytes <= ring.bytes_max {
            ring.bytes += bytes;
            ring.records.push_back(record);
        }
        // Freed after the lock.
        drop(ring);
        drop(dropped);
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The newest record of a request among several workers': by its id, by what its client calls it, or by its trace.
pub(crate) fn find<'a>(workers: impl IntoIterator<Item = &'a Records>, id: &str) -> Option<Record> {
    let is_it = |record: &&Record| {
        let others = [&record.client_request_id, &record.trace_id];
        record.id == id || others.into_iter().flatten().any(|other| other == id)
    };
    let of_worker = |records: &Records| records.ring().records.iter().rev().find(is_it).cloned();
    // Its own id goes before what its client calls it: that one anybody can choose.
    workers.into_iter().filter_map(of_worker).max_by_key(|record| (record.id == id, record.at))
}

/// The newest `limit` records that fit, newest first.
pub(crate) fn recent<'a>(
    workers: impl IntoIterator<Item = &'a Records>,
    limit: usize,
    filter: &Filter,
) -> Vec<Record> {
    let of_worker = |records: &Records| {
        let ring = records.ring();
        ring.records
            .iter()
            .rev()
            .filter(|record| filter.fits(record))
            .take(limit)
            .cloned()
            .collect::<Vec<_>>()
    };
    let mut found: Vec<Record> = workers.into_iter().flat_map(of_worker).collect();
    found.sort_by_key(|record| std::cmp::Reverse(record.at));
    found.truncate(limit);
    found
}

/// Cuts a text to at most `max` bytes.
fn cut(text: &mut String, max: usize) {
    if text.len() > max {
        text.truncate(text.floor_char_boundary(max.saturating_sub('…'.len_utf8())));
        text.push('…');
        text.shrink_to_fit();
    }
}

/// Cuts a text to what is kept of any.
pub(crate) fn cut_text(text: &mut String) {
    cut(text, TEXT_BYTES_MAX);
}

/// Which ones of so many attempts are left out.
pub(crate) fn surplus(attempts: usize) -> Range<usize> {
    let first = attempts.min(ATTEMPTS_MAX - 1);
    first..first + attempts.saturating_sub(ATTEMPTS_MAX)
}

impl Record {
    /// Bounds what it takes up.
    pub(crate) fn cut(&mut self) {
        let texts = [
            Some(&mut self.id),
            self.client_request_id.as_mut(),
            self.trace_id.as_mut(),
            self.route.as_mut(),
        ];
        for text in texts.into_iter().flatten().chain([&mut self.method, &mut self.path]) {
            cut(text, TEXT_BYTES_MAX);
        }
        if let Some(Cow::Owned(reason)) = &mut self.reason {
            cut(reason, TEXT_BYTES_MAX);
        }
        let surplus = surplus(self.attempts.len());
        self.attempts_left_out += u32::try_from(surplus.len()).unwrap_or(u32::MAX);
        self.attempts.drain(surplus);
        self.injected.truncate(INJECTIONS_MAX);
        for Injection { id, fault } in &mut self.injected {
            cut(id, TEXT_BYTES_MAX);
            cut(fault, TEXT_BYTES_MAX);
        }
        self.attempts.shrink_to_fit();
    }

    /// What it takes up, roughly.
    fn bytes(&self) -> usize {
        let texts = [self.client_request_id.as_ref(), self.trace_id.as_ref(), self.route.as_ref()];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        let names: usize = self
            .attempts
            .iter()
            .map(|attempt| attempt.instance.replica.service.as_str().len() + attempt.zone.as_str().len())
            .sum();
        size_of::<Self>()
            + texts
            + self.id.len()
            + self.replay_of.as_ref().map_or(0, String::len)
            + self.method.len()
            + self.path.len()
            + self.service.as_ref().map_or(0, |service| service.as_str().len())
            + size_of_val(&*self.attempts)
            + self
                .injected
                .iter()
                .map(|one| size_of::<Injection>() + one.id.len() + one.fault.len())
                .sum::<usize>()
            + names
    }

    /// The story for people: several lines, the whole first, then each attempt, then why it ended as it did.
    pub fn sentence(&self) -> String {
        let mut lines = vec![self.summary()];
        let mut before: Option<&Attempt> = None;
        for (number, attempt) in self.attempts.iter().enumerate() {
            let is_after_gap = self.attempts_left_out > 0 && number + 1 == self.attempts.len();
            if is_after_gap {
                lines.push(format!("   … {} more attempts …", self.attempts_left_out));
            }
            let shown = number + 1 + if is_after_gap { self.attempts_left_out as usize } else { 0 };
            lines.push(format!("{shown:>2}. {}", attempt.sentence(before.filter(|_| !is_after_gap))));
            before = Some(attempt);
        }
        for Injection { id, fault } in &self.injected {
            lines.push(format!("Injected on purpose: fault `{}` ({}).", visible(id), visible(fault)));
        }
        lines.push(self.verdict());
        lines.push(self.rest());
        lines.join("\n")
    }

    /// Who asked for what, and what came of it.
    fn summary(&self) -> String {
        let mut line =
            format!("{} {} from {} at {}", visible(&self.method), visible(&self.path), self.client, self.at);
        let _strings_take_all = match (&self.route, &self.service) {
            (Some(route), Some(service)) => write!(line, ", by route `{}` to `{service}`", visible(route)),
            (Some(route), None) => write!(line, ", by route `{}`", visible(route)),
            (None, Some(service)) => write!(line, ", for `{service}`"),
            (None, None) => Ok(()),
        };
        let _strings_take_all = match self.status {
            Some(status) => write!(line, ": answered with {status} after {}.", millis(self.took_ms)),
            None if self.reason.is_some() => {
                write!(line, ": its connection was reset after {}.", millis(self.took_ms))
            }
            None => write!(line, ": its client left after {}.", millis(self.took_ms)),
        };
        line
    }

    /// Why it ended as it did.
    fn verdict(&self) -> String {
        let last = self.attempts.last();
        let Some(status) = self.status else {
            return if self.reason.is_some() {
                "The gateway reset the client's connection: that is the fault.".to_owned()
            } else {
                "Nobody was there any more to be answered.".to_owned()
            };
        };
        let Some(reason) = self.reason.as_deref() else {
            if let Some(first) = &self.replay_of {
                return format!(
                    "The answer {status} is the one that was kept of request {}: the key is the same.",
                    visible(first)
                );
            }
            let answering = self.attempts.iter().find(|attempt| attempt.end == AttemptEnd::Answered);
            return match answering {
                Some(attempt) => format!("The answer {status} is that of {}.", attempt.instance),
                None => format!("The answer {status} was made without asking a service."),
            };
        };
        let why = match reason {
            "bad-request" => "the request could be understood in more than one way, or not at all",
            "no-route" => "no route is for this host and path",
            "no-replica-ready" if self.attempts.is_empty() => "no replica was ready in time",
            "no-replica-ready" => "no other replica was ready in time",
            "too-many-held" => "too many requests were waiting already",
            "deadline" => "the request's time was over",
            "replica-broke-off" if last.is_some_and(|last| last.end == AttemptEnd::Broken) => {
                "the replica broke off after the request was sent: it may have been carried out, so it could not be \
                 sent again without risk, or its repeats were used up"
            }
            "key-reused" => "its `Idempotency-Key` was used for a request with another body",
            "key-in-use" => "a request with the same `Idempotency-Key` was still under way",
            "injected-fault" => "the fault made this answer, and not the service",
            "bad-fault-token" => {
                "its Standfast-Fault is not signed with this stack's key, malformed or expired"
            }
            "connect-not-served" => "CONNECT is not served here",
            _ if self.marks.shed => "the gateway did not let it in, to keep the others fast",
            _ => "the gateway could not get an answer",
        };
        format!("The gateway answered {status} itself ({}): {why}.", visible(reason))
    }

    /// What was left, and how long it waited.
    fn rest(&self) -> String {
        let mut line = format!(
            "Waited {}; {} of its time left; the retry budget would pay {} more; {} bytes in, {} out",
            millis(self.waited_ms),
            millis(self.deadline_left_ms),
            self.budget_left.max(0.0).floor(),
            self.bytes_in,
            self.bytes_out,
        );
        if let Some(limit) = self.admission_limit {
            let _strings_take_all = write!(line, "; at most {limit} at a time");
        }
        line.push('.');
        let _strings_take_all = write!(line, " Request {}", visible(&self.id));
        for (what, id) in [("its client's", &self.client_request_id), ("trace", &self.trace_id)] {
            if let Some(id) = id {
                let _strings_take_all = write!(line, ", {what} {}", visible(id));
            }
        }
        line.push('.');
        line
    }
}

impl Attempt {
    /// One line: when, where, why there, and how it ended.
    fn sentence(&self, before: Option<&Attempt>) -> String {
        let Self { instance, address, zone, .. } = self;
        let when = millis(self.started_after_ms);
        let what = match before {
            _ if self.is_hedge => "also sent, because the first was slow, to",
            None => "sent to",
            Some(before) if before.instance == *instance => "sent again to",
            Some(_) => "then sent to",
        };
        let load = match self.in_flight {
            0 => "idle".to_owned(),
            1 => "1 in flight".to_owned(),
            many => format!("{many} in flight"),
        };
        let took = millis(self.took_ms);
        let status = self.status.map_or_else(String::new, |status| format!(" {status}"));
        let end = match self.end {
            AttemptEnd::Answered => format!("It answered{status} after {took}."),
            AttemptEnd::Dropped => {
                format!("It answered{status} after {took}; that answer was dropped to try again.")
            }
            AttemptEnd::Unsent => {
                format!("It took no request: the connection failed after {took}, nothing was sent.")
            }
            AttemptEnd::Broken => {
                format!("It broke the connection after {took}; what was sent may have been carried out.")
            }
            AttemptEnd::TooSlow => format!("It was given up after {took}: that is longer than usual."),
            AttemptEnd::Overdue => {
                format!("It had not answered after {took}, when the request's time was over.")
            }
            AttemptEnd::Beaten => format!("It was let go after {took}: another replica was faster."),
            AttemptEnd::GoesOn => {
                format!("It had not answered after {took}, when the client left; its answer will be kept.")
            }
            AttemptEnd::Abandoned => format!("It was broken off after {took}: the client left."),
        };
        format!(
            "After {when} {what} {instance} ({address}, zone {zone}; score {:.1}, {load}). {end}",
            self.score
        )
    }
}

/// A text in which nothing can move a terminal's cursor.
fn visible(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        Cow::Owned(text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

fn millis(millis: f64) -> String {
    if millis >= 10_000.0 {
        format!("{:.1} s", millis / 1_000.0)
    } else if millis >= 10.0 {
        format!("{millis:.0} ms")
    } else {
        format!("{millis:.1} ms")
    }
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
