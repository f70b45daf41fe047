//! What the generator measures while it sends: histograms, a series by seconds, and how the traffic is right now.
//!
//! Everything of a request counts in the second in which it was *due*, and its latency runs from then: a stall shows in all
//! the requests that it delayed, not only in those that were sent ("coordinated omission", Gil Tene).

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use standfast_model::Stamp;

use crate::config::SECONDS_MAX;
use crate::outcome::{Outcome, Refusal};

/// One second of a run. Each number is about the requests that were due in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Second {
    /// How many were due.
    pub offered: u64,
    /// How many were sent.
    pub sent: u64,
    /// How many were not sent since too many were on their way.
    pub dropped: u64,
    /// How many were acknowledged.
    pub ok: u64,
    /// How many were sent and not acknowledged.
    pub failed: u64,
    /// The median latency of the acknowledged, in microseconds.
    pub p50_us: u64,
    /// Their 99th percentile, in microseconds.
    pub p99_us: u64,
    /// The longest of them, in microseconds.
    pub max_us: u64,
    /// The 99th percentile of the generator's own lag (due to sent), in microseconds.
    pub lag_p99_us: u64,
}

/// A distribution of times, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Summary {
    /// How many were measured.
    pub count: u64,
    /// The median.
    pub p50_us: u64,
    /// The 99th percentile.
    pub p99_us: u64,
    /// The 99.9th percentile.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// All that was measured.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Measured {
    /// Latency of the acknowledged requests.
    pub ok: Summary,
    /// Latency of all others that were sent.
    pub failed: Summary,
    /// From due to sent.
    pub lag: Summary,
    /// The series; the first second begins with the load.
    pub seconds: Vec<Second>,
    /// Requests that were due.
    pub offered: u64,
    /// Requests that were sent.
    pub sent: u64,
    /// Requests that were due and not sent.
    pub dropped: u64,
    /// Requests for which this machine had no socket left.
    pub out_of_sockets: u64,
    /// The most requests on their way at a time.
    pub in_flight_peak: u64,
}

/// How the traffic is right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Traffic {
    /// The last time that a request ended badly: not acknowledged, or slow.
    pub(crate) bad_at: Option<Stamp>,
    /// The last time that a request ended well.
    pub(crate) good_at: Option<Stamp>,
    /// When the oldest request on its way was due.
    pub(crate) oldest_due: Option<Stamp>,
    /// Requests acknowledged so far.
    pub(crate) ok: u64,
    /// Requests failed so far.
    pub(crate) failed: u64,
}

/// Takes in what the generator does. Shared by the generator's thread and the run.
#[derive(Debug)]
pub(crate) struct Meter(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    from: Stamp,
    slow: Duration,
    ok: Histogram<u64>,
    failed: Histogram<u64>,
    lag: Histogram<u64>,
    seconds: Vec<Bucket>,
    in_flight: BTreeSet<(Stamp, usize, u64)>,
    in_flight_peak: usize,
    out_of_sockets: u64,
    traffic: Traffic,
}

#[derive(Debug)]
struct Bucket {
    second: Second,
    ok: Histogram<u32>,
    lag: Histogram<u32>,
}

impl Meter {
    /// Nothing measured yet; the first second begins at `from`.
    pub(crate) fn new(from: Stamp) -> Self {
        Self(Mutex::new(Inner {
            from,
            slow: Duration::MAX,
            ok: fine(),
            failed: fine(),
            lag: fine(),
            seconds: Vec::new(),
            in_flight: BTreeSet::new(),
            in_flight_peak: 0,
            out_of_sockets: 0,
            traffic: Traffic::default(),
        }))
    }

    /// From now on, an answer that takes longer is bad.
    pub(crate) fn set_slow(&self, slow: Duration) {
        self.lock().slow = slow;
    }

    pub(crate) fn due(&self, due: Stamp) {
        self.lock().bucket(due).second.offered += 1;
    }

    pub(crate) fn dropped(&self, due: Stamp) {
        self.lock().bucket(due).second.dropped += 1;
    }

    pub(crate) fn sent(&self, due: Stamp, load: usize, number: u64, sent: Stamp) {
        let mut inner = self.lock();
        let lag = micros(sent.since(due));
        inner.lag.saturating_record(lag);
        let bucket = inner.bucket(due);
        bucket.lag.saturating_record(lag);
        bucket.second.sent += 1;
        inner.in_flight.insert((due, load, number));
        inner.in_flight_peak = inner.in_flight_peak.max(inner.in_flight.len());
    }

    pub(crate) fn ended(&self, due: Stamp, load: usize, number: u64, at: Stamp, outcome: Outcome) {
        let mut inner = self.lock();
        inner.in_flight.remove(&(due, load, number));
        let latency = at.since(due);
        if outcome.is_acknowledged() {
            inner.ok.saturating_record(micros(latency));
            inner.traffic.ok += 1;
            let bucket = inner.bucket(due);
            bucket.ok.saturating_record(micros(latency));
            bucket.second.ok += 1;
        } else {
            inner.failed.saturating_record(micros(latency));
            inner.traffic.failed += 1;
            inner.bucket(due).second.failed += 1;
            inner.out_of_sockets += u64::from(outcome == Outcome::Refused { why: Refusal::OutOfSockets });
        }
        if outcome.is_acknowledged() && latency <= inner.slow {
            inner.traffic.good_at = Some(at);
        } else {
            inner.traffic.bad_at = Some(at);
        }
    }

    pub(crate) fn traffic(&self) -> Traffic {
        let inner = self.lock();
        Traffic { oldest_due: inner.in_flight.first().map(|(due, _, _)| *due), ..inner.traffic }
    }

    /// The 99th percentile of the acknowledged so far; `None` before there are twenty.
    pub(crate) fn ok_p99(&self) -> Option<Duration> {
        let inner = self.lock();
        (inner.ok.len() >= 20).then(|| Duration::from_micros(inner.ok.value_at_quantile(0.99)))
    }

    pub(crate) fn measured(&self) -> Measured {
        let inner = self.lock();
        let seconds: Vec<Second> = inner.seconds.iter().map(Bucket::finished).collect();
        let sum = |field: fn(&Second) -> u64| seconds.iter().map(field).sum();
        Measured {
            ok: summary(&inner.ok),
            failed: summary(&inner.failed),
            lag: summary(&inner.lag),
            offered: sum(|second| second.offered),
            sent: sum(|second| second.sent),
            dropped: sum(|second| second.dropped),
            out_of_sockets: inner.out_of_sockets,
            in_flight_peak: inner.in_flight_peak as u64,
            seconds,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn bucket(&mut self, due: Stamp) -> &mut Bucket {
        let index =
            usize::try_from(due.since(self.from).as_secs()).unwrap_or(usize::MAX).min(SECONDS_MAX - 1);
        if self.seconds.len() <= index {
            self.seconds.resize_with(index + 1, Bucket::new);
        }
        &mut self.seconds[index]
    }
}

impl Bucket {
    fn new() -> Self {
        Self { second: Second::default(), ok: coarse(), lag: coarse() }
    }

    fn finished(&self) -> Second {
        Second {
            p50_us: self.ok.value_at_quantile(0.5),
            p99_us: self.ok.value_at_quantile(0.99),
            max_us: self.ok.max(),
            lag_p99_us: self.lag.value_at_quantile(0.99),
            ..self.second
        }
    }
}

fn summary(histogram: &Histogram<u64>) -> Summary {
    Summary {
        count: histogram.len(),
        p50_us: histogram.value_at_quantile(0.5),
        p99_us: histogram.value_at_quantile(0.99),
        p999_us: histogram.value_at_quantile(0.999),
        max_us: histogram.max(),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// 1 µs to an hour, to 0.1 %; longer ones count as an hour.
fn fine() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("the bounds are legal constants")
}

/// 1 µs to ten minutes, to 1 %: about 12 KB for each second of a run.
fn coarse() -> Histogram<u32> {
    Histogram::new_with_bounds(1, 600_000_000, 2).expect("the bounds are legal constants")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_runs_from_when_a_request_was_due_and_counts_in_that_second() {
        let from = Stamp::from_micros(1_000_000);
        let at = |millis: u64| from.plus(Duration::from_millis(millis));
        let meter = Meter::new(from);
        meter.set_slow(Duration::from_millis(250));
        meter.due(at(900));
        meter.sent(at(900), 0, 0, at(1_200));
        assert_eq!(meter.traffic().oldest_due, Some(at(900)));
        meter.ended(at(900), 0, 0, at(1_210), Outcome::of_status(201));
        let measured = meter.measured();
        assert_eq!(measured.seconds.len(), 1);
        assert!((309_000..=311_000).contains(&measured.ok.max_us), "{:?}", measured.ok);
        assert!((299_000..=301_000).contains(&measured.lag.max_us), "{:?}", measured.lag);
        let traffic = meter.traffic();
        assert_eq!((traffic.bad_at, traffic.good_at, traffic.oldest_due), (Some(at(1_210)), None, None));
    }

    #[test]
    fn a_run_without_end_stays_within_its_memory() {
        let meter = Meter::new(Stamp::EPOCH);
        meter.due(Stamp::from_micros(u64::MAX));
        assert_eq!(meter.measured().seconds.len(), SECONDS_MAX);
    }
}
