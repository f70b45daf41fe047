//! What happened, counted: each worker has its own counters, written by its thread only, and [`crate::Gateway::stats`] adds
//! them up.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use serde::{Serialize, Serializer};
use standfast_model::{Instance, ServiceName, ZoneName};

use crate::access;
use crate::admit::Load;
use crate::error::Refusal;
use crate::histogram::{Histogram, Lengths};
use crate::spans;

/// What requests and connections can be refused for; any other word is counted as the last.
const REASONS: [&str; 20] = [
    "bad-request",
    "head-too-large",
    "body-too-large",
    "connect-not-served",
    "no-route",
    "no-replica-ready",
    "too-many-held",
    "overloaded",
    "rate-limited",
    "route-full",
    "deadline",
    "replica-broke-off",
    "no-websocket",
    "key-reused",
    "key-in-use",
    "injected-fault",
    "bad-fault-token",
    TOO_MANY_CONNECTIONS,
    BAD_PROXY_HEADER,
    "other",
];
/// A client has as many connections as it may have.
pub(crate) const TOO_MANY_CONNECTIONS: &str = "too-many-connections";
/// A connection does not begin with the PROXY header that it should have.
pub(crate) const BAD_PROXY_HEADER: &str = "bad-proxy-header";

/// What a gateway has done since its start, all workers together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// The lowest version of a snapshot that a worker still works with.
    pub snapshot_version: u64,
    /// Client connections that are open.
    pub connections: u64,
    /// Client connections accepted.
    pub accepted: u64,
    /// Requests that no service was found for, or that were malformed, and connections that were not served.
    pub refused: u64,
    /// The same by why: the word of `Standfast-Reason` where there is an answer.
    pub refused_by_reason: BTreeMap<&'static str, u64>,
    /// Bytes of requests' bodies that were read, counted when the answer has gone.
    pub body_bytes_in: u64,
    /// Bytes of answers' bodies that were sent, counted when the answer has gone.
    pub body_bytes_out: u64,
    /// Requests whose `Standfast-Fault` was not obeyed: not signed with the stack's key, expired or malformed.
    pub bad_fault_tokens: u64,
    /// The longest that a worker's loop has lagged.
    #[serde(rename = "lag_max_ms", serialize_with = "millis")]
    pub lag_max: Duration,
    /// Lines of the access log; `None` when none is kept.
    pub access_log: Option<access::Counts>,
    /// Spans; `None` when none are sent.
    pub spans: Option<spans::Counts>,
    /// Per service of the newest snapshot.
    pub services: BTreeMap<ServiceName, ServiceStats>,
}

/// What happened to the requests for one service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ServiceStats {
    /// Requests.
    pub requests: u64,
    /// Requests that have no answer's head yet.
    pub in_flight: u64,
    /// Requests by the status they were answered with, whoever made the answer: 2xx (and below), 3xx, 4xx, 5xx.
    pub answered: Answered,
    /// Requests whose client left before the answer's head.
    pub abandoned: u64,
    /// Requests that the gateway answered itself: no replica was ready in time.
    pub no_replica: u64,
    /// Requests that the gateway answered itself: their time was over.
    pub deadline: u64,
    /// Requests that the gateway answered itself: broken off by the replica, and not to be repeated.
    pub broken: u64,
    /// Requests that the gateway answered itself, by why: the word of `Standfast-Reason`.
    pub refused_by_reason: BTreeMap<&'static str, u64>,
    /// Attempts beyond each request's first that were paid from the retry budget, hedges included.
    pub retries: u64,
    /// Attempts that went beside one that was still running.
    pub hedges: u64,
    /// Attempts repeated for nothing, since nothing had been sent.
    pub repeats_unsent: u64,
    /// Answers passed on, or attempts waited for, that would have been repeated had the budget not been empty.
    pub budget_empty: u64,
    /// Further attempts that the retry budget would pay for, all workers together, in thousandths.
    pub budget_left_thousandths: u64,
    /// Requests that waited for a replica.
    pub held: u64,
    /// Requests that were turned away since the service had all it could do.
    pub shed: u64,
    /// What became of requests with an `Idempotency-Key`, where answers are kept.
    pub kept: KeptStats,
    /// Requests that were let in and have no answer's head yet.
    pub admitted: u64,
    /// How many requests the service is given at a time, all workers together; `None` when that is not limited.
    pub limit: Option<u64>,
    /// Requests that wait to be let in.
    pub waiting: u64,
    /// How long requests wait to be let in, on average; the longest of the workers'.
    #[serde(rename = "queue_wait_ms", serialize_with = "millis")]
    pub queue_wait: Duration,
    /// Requests that were let in after a wait.
    pub queued: u64,
    /// The sum of their waits.
    #[serde(rename = "queued_sum_ms", serialize_with = "millis")]
    pub queued_sum: Duration,
    /// The sum of the times from request to answer's head.
    #[serde(rename = "latency_sum_ms", serialize_with = "millis")]
    pub latency_sum: Duration,
    /// The times from request to answer's head, whoever made the answer.
    pub latency: Histogram,
    /// Per replica of the newest snapshot.
    #[serde(serialize_with = "by_name")]
    pub endpoints: BTreeMap<Instance, EndpointStats>,
}

/// What became of requests with an `Idempotency-Key`, where answers are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct KeptStats {
    /// Answers that were kept.
    pub kept: u64,
    /// Requests that were given a kept answer.
    pub replayed: u64,
    /// Requests that waited for another one with the same key.
    pub waited: u64,
    /// Requests that were refused: their key was used for something else.
    pub reused: u64,
    /// Requests that were refused: another one with the same key was under way for too long.
    pub in_use: u64,
    /// Kept answers that made way before their time.
    pub evicted: u64,
    /// Requests whose answers were not kept, since all room was taken by requests under way.
    pub no_room: u64,
    /// Requests that went on although their clients had left.
    pub gone_on: u64,
}

/// What happened at one replica.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct EndpointStats {
    /// Where it is.
    pub address: Option<SocketAddr>,
    /// Its zone.
    pub zone: Option<ZoneName>,
    /// Whether requests may go there, as the newest snapshot says.
    pub is_ready: bool,
    /// How many workers leave it out now, since it fails or is too slow; seen to within half a second.
    pub left_out_by: u64,
    /// Attempts in which a request was sent, or may have been.
    pub attempts: u64,
    /// Requests that it is working on, their answers' bodies included.
    pub in_flight: u64,
    /// Its answers by status.
    pub answered: Answered,
    /// Connections that it did not take, or broke before anything was sent.
    pub refused: u64,
    /// Connections that it broke before it answered.
    pub broken: u64,
    /// Attempts given up because it was too slow.
    pub timed_out: u64,
    /// How often it was left out because of its answers.
    pub ejections: u64,
    /// The sum of the times from attempt to answer's head.
    #[serde(rename = "latency_sum_ms", serialize_with = "millis")]
    pub latency_sum: Duration,
}

/// Answers by class of status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Answered {
    /// 1xx and 2xx.
    pub ok: u64,
    /// 3xx.
    pub redirect: u64,
    /// 4xx.
    pub client_error: u64,
    /// 5xx.
    pub server_error: u64,
}

/// A duration as milliseconds.
pub(crate) fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64() * 1e3)
}

/// Instances are no texts, and keys must be.
fn by_name<S: Serializer>(
    endpoints: &BTreeMap<Instance, EndpointStats>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(endpoints.iter().map(|(instance, stats)| (instance.to_string(), stats)))
}

/// A counter that one thread writes and others read: no locked instruction.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.store(self.get().wrapping_add(more), Ordering::Relaxed);
    }

    pub(crate) fn take_one(&self) {
        self.0.store(self.get().saturating_sub(1), Ordering::Relaxed);
    }

    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn add_micros(&self, duration: Duration) {
        self.add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }
}

#[derive(Debug, Default)]
pub(crate) struct AnsweredCounters([Counter; 4]);

impl AnsweredCounters {
    pub(crate) fn count(&self, status: StatusCode) {
        self.0[usize::from(status.as_u16() / 100).clamp(2, 5) - 2].add(1);
    }

    fn add_to(&self, sum: &mut Answered) {
        let [ok, redirect, client_error, server_error] = &self.0;
        sum.ok += ok.get();
        sum.redirect += redirect.get();
        sum.client_error += client_error.get();
        sum.server_error += server_error.get();
    }
}

/// By [`REASONS`].
#[derive(Debug, Default)]
struct RefusedCounters([Counter; REASONS.len()]);

impl RefusedCounters {
    fn count(&self, reason: &str) {
        let known = REASONS.iter().position(|known| *known == reason);
        self.0[known.unwrap_or(REASONS.len() - 1)].add(1);
    }

    fn add_to(&self, sum: &mut BTreeMap<&'static str, u64>) {
        for (reason, count) in REASONS.into_iter().zip(&self.0).filter(|(_, count)| count.get() > 0) {
            *sum.entry(reason).or_default() += count.get();
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct WorkerCounters {
    pub(crate) snapshot_version: Counter,
    pub(crate) connections: Counter,
    pub(crate) accepted: Counter,
    refused: Counter,
    refused_by_reason: RefusedCounters,
    body_bytes_in: Counter,
    body_bytes_out: Counter,
    pub(crate) bad_fault_tokens: Counter,
    pub(crate) lag_max_micros: Counter,
    /// Changed with the snapshot only.
    pub(crate) services: Mutex<BTreeMap<ServiceName, Arc<ServiceCounters>>>,
}

impl WorkerCounters {
    /// Counts what no service is asked for.
    pub(crate) fn refuse(&self, reason: &str) {
        self.refused.add(1);
        self.refused_by_reason.count(reason);
    }

    /// Counts the bodies of a request and its answer, as far as they came.
    pub(crate) fn count_bodies(&self, bytes_in: u64, bytes_out: u64) {
        self.body_bytes_in.add(bytes_in);
        self.body_bytes_out.add(bytes_out);
    }
}

#[derive(Debug, Default)]
pub(crate) struct ServiceCounters {
    pub(crate) requests: Counter,
    pub(crate) in_flight: Counter,
    pub(crate) answered: AnsweredCounters,
    pub(crate) abandoned: Counter,
    pub(crate) no_replica: Counter,
    pub(crate) deadline: Counter,
    pub(crate) broken: Counter,
    refused_by_reason: RefusedCounters,
    pub(crate) retries: Counter,
    pub(crate) hedges: Counter,
    pub(crate) repeats_unsent: Counter,
    pub(crate) budget_empty: Counter,
    budget_left_thousandths: Counter,
    pub(crate) held: Counter,
    pub(crate) shed: Counter,
    pub(crate) kept: KeptCounters,
    admitted: Counter,
    limit: Counter,
    waiting: Counter,
    queue_wait_micros: Counter,
    queued: Counter,
    queued_sum_micros: Counter,
    pub(crate) latency: Lengths,
    /// Changed with the snapshot only.
    pub(crate) endpoints: Mutex<BTreeMap<Instance, Arc<EndpointCounters>>>,
}

#[derive(Debug, Default)]
pub(crate) struct KeptCounters {
    pub(crate) kept: Counter,
    pub(crate) replayed: Counter,
    pub(crate) waited: Counter,
    pub(crate) reused: Counter,
    pub(crate) in_use: Counter,
    pub(crate) evicted: Counter,
    pub(crate) no_room: Counter,
    pub(crate) gone_on: Counter,
}

impl KeptCounters {
    fn add_to(&self, sum: &mut KeptStats) {
        sum.kept += self.kept.get();
        sum.replayed += self.replayed.get();
        sum.waited += self.waited.get();
        sum.reused += self.reused.get();
        sum.in_use += self.in_use.get();
        sum.evicted += self.evicted.get();
        sum.no_room += self.no_room.get();
        sum.gone_on += self.gone_on.get();
    }
}

#[derive(Debug)]
pub(crate) struct EndpointCounters {
    address: SocketAddr,
    zone: ZoneName,
    pub(crate) is_ready: Counter,
    pub(crate) is_left_out: Counter,
    pub(crate) attempts: Counter,
    pub(crate) in_flight: Counter,
    pub(crate) answered: AnsweredCounters,
    pub(crate) refused: Counter,
    pub(crate) broken: Counter,
    pub(crate) timed_out: Counter,
    pub(crate) ejections: Counter,
    pub(crate) latency_sum_micros: Counter,
}

impl EndpointCounters {
    pub(crate) fn new(address: SocketAddr, zone: ZoneName) -> Self {
        Self {
            address,
            zone,
            is_ready: Counter::default(),
            is_left_out: Counter::default(),
            attempts: Counter::default(),
            in_flight: Counter::default(),
            answered: AnsweredCounters::default(),
            refused: Counter::default(),
            broken: Counter::default(),
            timed_out: Counter::default(),
            ejections: Counter::default(),
            latency_sum_micros: Counter::default(),
        }
    }

    fn add_to(&self, sum: &mut EndpointStats) {
        sum.address = Some(self.address);
        sum.zone = Some(self.zone.clone());
        sum.is_ready |= self.is_ready.get() > 0;
        sum.left_out_by += self.is_left_out.get();
        sum.attempts += self.attempts.get();
        sum.in_flight += self.in_flight.get();
        self.answered.add_to(&mut sum.answered);
        sum.refused += self.refused.get();
        sum.broken += self.broken.get();
        sum.timed_out += self.timed_out.get();
        sum.ejections += self.ejections.get();
        sum.latency_sum += Duration::from_micros(self.latency_sum_micros.get());
    }
}

impl ServiceCounters {
    /// Counts an answer that the gateway made itself.
    pub(crate) fn refuse(&self, refusal: &Refusal) {
        self.refused_by_reason.count(refusal.reason());
        match refusal {
            Refusal::Deadline(_) => self.deadline.add(1),
            Refusal::Broken(_) => self.broken.add(1),
            Refusal::Shed(..) => self.shed.add(1),
            Refusal::NoReplica(_) | Refusal::TooManyHeld(_) => self.no_replica.add(1),
            // The client's fault.
            _ => {}
        }
    }

    /// Counts a request that was let in after a wait.
    pub(crate) fn waited(&self, wait: Duration) {
        self.queued.add(1);
        self.queued_sum_micros.add_micros(wait);
    }

    /// Takes in how busy the service is. (The limit is kept plus one, so that 0 means none.)
    pub(crate) fn show(&self, load: &Load, budget_left: f64) {
        self.admitted.set(u64::from(load.in_flight));
        self.budget_left_thousandths.set((budget_left * 1e3) as u64);
        self.limit.set(load.limit.map_or(0, |limit| u64::from(limit) + 1));
        self.waiting.set(load.waiting as u64);
        self.queue_wait_micros.set(u64::try_from(load.wait.as_micros()).unwrap_or(u64::MAX));
    }

    fn add_to(&self, sum: &mut ServiceStats) {
        sum.requests += self.requests.get();
        sum.in_flight += self.in_flight.get();
        self.answered.add_to(&mut sum.answered);
        sum.abandoned += self.abandoned.get();
        sum.no_replica += self.no_replica.get();
        sum.deadline += self.deadline.get();
        sum.broken += self.broken.get();
        self.refused_by_reason.add_to(&mut sum.refused_by_reason);
        sum.retries += self.retries.get();
        sum.hedges += self.hedges.get();
        sum.repeats_unsent += self.repeats_unsent.get();
        sum.budget_empty += self.budget_empty.get();
        sum.budget_left_thousandths += self.budget_left_thousandths.get();
        sum.held += self.held.get();
        sum.shed += self.shed.get();
        self.kept.add_to(&mut sum.kept);
        sum.admitted += self.admitted.get();
        if let Some(limit) = self.limit.get().checked_sub(1) {
            sum.limit = Some(sum.limit.unwrap_or_default() + limit);
        }
        sum.waiting += self.waiting.get();
        sum.queue_wait = sum.queue_wait.max(Duration::from_micros(self.queue_wait_micros.get()));
        sum.queued += self.queued.get();
        sum.queued_sum += Duration::from_micros(self.queued_sum_micros.get());
        self.latency.add_to(&mut sum.latency);
        sum.latency_sum = sum.latency.sum;
        for (instance, counters) in &*self.endpoints.lock().unwrap_or_else(PoisonError::into_inner) {
            counters.add_to(sum.endpoints.entry(instance.clone()).or_default());
        }
    }
}

/// Adds the workers' counters up.
pub(crate) fn merged<'a>(workers: impl Iterator<Item = &'a WorkerCounters>) -> Stats {
    let mut sum = Stats { snapshot_version: u64::MAX, ..Stats::default() };
    for worker in workers {
        sum.snapshot_version = sum.snapshot_version.min(worker.snapshot_version.get());
        sum.connections += worker.connections.get();
        sum.accepted += worker.accepted.get();
        sum.refused += worker.refused.get();
        worker.refused_by_reason.add_to(&mut sum.refused_by_reason);
        sum.body_bytes_in += worker.body_bytes_in.get();
        sum.body_bytes_out += worker.body_bytes_out.get();
        sum.bad_fault_tokens += worker.bad_fault_tokens.get();
        sum.lag_max = sum.lag_max.max(Duration::from_micros(worker.lag_max_micros.get()));
        for (name, counters) in &*worker.services.lock().unwrap_or_else(PoisonError::into_inner) {
            counters.add_to(sum.services.entry(name.clone()).or_default());
        }
    }
    sum
}
