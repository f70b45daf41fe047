//! How long things took, counted by length. One thread writes, others read; no lock is waited for.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Serialize, Serializer};
use standfast_model::Stamp;

use crate::stats::{Counter, millis};

/// The upper bounds of the buckets in microseconds, each with what equals it; what is longer falls into one more. From one bound to
/// the next it is never more than half as much again (but for the first ones), so that a quantile read from them is off by 20 %
/// at most, and the round numbers that objectives are made of are bounds.
const BOUNDS_MICROS: [u64; 37] = [
    100, 200, 300, 500, 700, // below a millisecond
    1_000, 1_500, 2_000, 3_000, 4_000, 5_000, 7_000, // milliseconds
    10_000, 15_000, 20_000, 30_000, 40_000, 50_000, 70_000, // tens
    100_000, 150_000, 200_000, 300_000, 400_000, 500_000, 700_000, // hundreds
    1_000_000, 1_500_000, 2_000_000, 3_000_000, 4_000_000, 5_000_000, 7_000_000, // seconds
    10_000_000, 15_000_000, 20_000_000, 30_000_000,
];

/// All buckets, that of the longest included.
const BUCKETS: usize = BOUNDS_MICROS.len() + 1;

/// Counts by length, as they are read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Histogram {
    /// Per bucket, the shortest first; the last is of all that no bound holds. Empty when nothing was added up. As JSON: the buckets that
    /// hold any, each with its upper bound in milliseconds.
    #[serde(rename = "buckets", serialize_with = "only_used")]
    pub counts: Vec<u64>,
    /// The sum of all lengths.
    #[serde(rename = "sum_ms", serialize_with = "millis")]
    pub sum: Duration,
    /// Per bucket, the newest one of which there is a trace.
    #[serde(skip_serializing_if = "no_exemplars", serialize_with = "only_known")]
    pub exemplars: Vec<Option<Exemplar>>,
}

/// One of those that a bucket counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Exemplar {
    /// Its trace, as in `traceparent`.
    pub trace_id: String,
    /// How long it took.
    #[serde(rename = "took_ms", serialize_with = "millis")]
    pub took: Duration,
    /// When it was counted.
    pub at: Stamp,
}

impl Histogram {
    /// The buckets' upper bounds, shortest first; the last bucket has none.
    pub fn bounds() -> impl Iterator<Item = Duration> {
        BOUNDS_MICROS.iter().map(|micros| Duration::from_micros(*micros))
    }

    /// How many there are in all.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

fn only_used<S: Serializer>(counts: &[u64], serializer: S) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Bucket {
        /// `None` for the last.
        up_to_ms: Option<f64>,
        count: u64,
    }
    let bounds = Histogram::bounds().map(|bound| Some(bound.as_secs_f64() * 1e3)).chain([None]);
    let buckets = bounds.zip(counts).map(|(up_to_ms, count)| Bucket { up_to_ms, count: *count });
    serializer.collect_seq(buckets.filter(|bucket| bucket.count > 0))
}

fn no_exemplars(exemplars: &[Option<Exemplar>]) -> bool {
    exemplars.iter().all(Option::is_none)
}

fn only_known<S: Serializer>(exemplars: &[Option<Exemplar>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(exemplars.iter().flatten())
}

/// A histogram that one thread writes and others read.
#[derive(Debug)]
pub(crate) struct Lengths {
    counts: [Counter; BUCKETS],
    sum_micros: Counter,
    /// Touched for sampled traces only.
    exemplars: Mutex<[Option<Exemplar>; BUCKETS]>,
}

impl Default for Lengths {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| Counter::default()),
            sum_micros: Counter::default(),
            exemplars: Mutex::new(std::array::from_fn(|_| None)),
        }
    }
}

impl Lengths {
    pub(crate) fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.counts[bucket(micros)].add(1);
        self.sum_micros.add(micros);
    }

    /// Remembers the trace of one that is, or will be, counted. It is dropped when somebody reads just then.
    pub(crate) fn exemplify(&self, took: Duration, trace_id: &str, at: Stamp) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Ok(mut exemplars) = self.exemplars.try_lock() {
            exemplars[bucket(micros)] = Some(Exemplar { trace_id: trace_id.to_owned(), took, at });
        }
    }

    pub(crate) fn add_to(&self, sum: &mut Histogram) {
        sum.counts.resize(BUCKETS, 0);
        sum.exemplars.resize(BUCKETS, None);
        for (sum, count) in sum.counts.iter_mut().zip(&self.counts) {
            *sum += count.get();
        }
        sum.sum += Duration::from_micros(self.sum_micros.get());
        let exemplars = self.exemplars.lock().unwrap_or_else(PoisonError::into_inner);
        for (newest, one) in sum.exemplars.iter_mut().zip(&*exemplars) {
            if one.as_ref().map(|one| one.at) > newest.as_ref().map(|newest| newest.at) {
                newest.clone_from(one);
            }
        }
    }
}

fn bucket(micros: u64) -> usize {
    BOUNDS_MICROS.partition_point(|bound| *bound < micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket_and_quantiles_are_near() {
        assert_eq!((bucket(0), bucket(100), bucket(101), bucket(u64::MAX)), (0, 0, 1, BUCKETS - 1));
        for pair in BOUNDS_MICROS[5..].windows(2) {
            let [low, high] = [pair[0], pair[1]].map(|bound| Duration::from_micros(bound).as_secs_f64());
            // What is said of all in a bucket is its middle one.
            assert!((high - low) / (high + low) < 0.201, "{pair:?}");
        }
    }

    #[test]
    fn what_several_threads_saw_is_added_up_with_the_newest_trace() {
        let [a, b] = [Lengths::default(), Lengths::default()];
        for millis in [3, 3, 60_000] {
            a.observe(Duration::from_millis(millis));
        }
        b.observe(Duration::from_millis(3));
        a.exemplify(Duration::from_millis(3), "a", Stamp::from_micros(2));
        b.exemplify(Duration::from_millis(3), "b", Stamp::from_micros(1));
        let mut sum = Histogram::default();
        a.add_to(&mut sum);
        b.add_to(&mut sum);
        assert_eq!((sum.count(), sum.counts[bucket(3_000)], sum.counts[BUCKETS - 1]), (4, 3, 1));
        assert_eq!(sum.sum, Duration::from_millis(60_009));
        assert_eq!(sum.exemplars[bucket(3_000)].as_ref().unwrap().trace_id, "a");
        assert_eq!(Histogram::bounds().count() + 1, sum.counts.len());
    }
}
