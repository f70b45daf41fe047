//! What all but a few of the recent answers take, for hedges and for the patience of one attempt. Pure.
//!
//! A histogram on a logarithmic scale, eight buckets to the octave, as HDR histograms and `DDSketch` (Masson, Rim and Lee, 2019)
//! have it; what was counted counts half as much after each [`HALF_LIFE`]. A value is off by less than one part in twenty.

use std::time::Duration;

use standfast_model::Stamp;

/// What was counted so long ago counts half.
const HALF_LIFE: Duration = Duration::from_secs(10);
/// With fewer samples nothing is said.
const SAMPLES_MIN: u32 = 100;
/// How many samples the answer may lag behind.
const STALE_MAX: u32 = 32;
/// Buckets are halves of halves of halves of an octave.
const STEP_BITS: u32 = 3;
/// Everything below 2^this microseconds is in the first bucket…
const LOWEST_BITS: u32 = 6;
/// …and everything from 2^this on in the last: 67 s.
const HIGHEST_BITS: u32 = 26;
const BUCKETS: usize = ((HIGHEST_BITS - LOWEST_BITS) << STEP_BITS) as usize;

/// A histogram of recent times.
#[derive(Debug, Clone)]
pub(crate) struct Recent {
    counts: [u32; BUCKETS],
    total: u32,
    halved: Stamp,
    /// Samples since the values below were worked out.
    stale: u32,
    p50: Option<Duration>,
    p95: Option<Duration>,
    p99: Option<Duration>,
}

impl Recent {
    pub(crate) const fn new(now: Stamp) -> Self {
        Self { counts: [0; BUCKETS], total: 0, halved: now, stale: 0, p50: None, p95: None, p99: None }
    }

    /// Takes in one sample.
    pub(crate) fn observe(&mut self, sample: Duration, now: Stamp) {
        let micros =
            sample.as_secs().saturating_mul(1_000_000).saturating_add(u64::from(sample.subsec_micros()));
        self.counts[bucket(micros)] += 1;
        self.total += 1;
        self.stale += 1;
        if self.stale >= STALE_MAX {
            self.work_out(now);
        }
    }

    /// What half of the recent ones took at most; `None` when there were too few.
    pub(crate) const fn p50(&self) -> Option<Duration> {
        self.p50
    }

    /// What 95 % of the recent ones took at most; `None` when there were too few.
    pub(crate) const fn p95(&self) -> Option<Duration> {
        self.p95
    }

    /// What 99 % of the recent ones took at most; `None` when there were too few.
    pub(crate) const fn p99(&self) -> Option<Duration> {
        self.p99
    }

    fn work_out(&mut self, now: Stamp) {
        self.stale = 0;
        while now.since(self.halved) >= HALF_LIFE {
            if self.total == 0 {
                self.halved = now;
                break;
            }
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
            self.halved = self.halved.plus(HALF_LIFE);
        }
        let at_most = |above| (self.total >= SAMPLES_MIN).then(|| self.at_most(above, 100));
        (self.p50, self.p95, self.p99) = (at_most(50), at_most(5), at_most(1));
    }

    /// The value that a share of `above` in `of` exceed, found from the top, and in its bucket by proportion.
    fn at_most(&self, above: u32, of: u32) -> Duration {
        let wanted = u64::from(self.total) * u64::from(above);
        let mut seen = 0_u64;
        for (index, count) in self.counts.iter().enumerate().rev() {
            let here = u64::from(*count) * u64::from(of);
            if here > 0 && seen + here >= wanted {
                let (from, to) = (lower_bound(index), lower_bound(index + 1));
                let part = (wanted - seen) * (to - from) / here;
                return Duration::from_micros(to - part);
            }
            seen += here;
        }
        Duration::ZERO
    }
}

const fn bucket(micros: u64) -> usize {
    if micros < 1 << LOWEST_BITS {
        return 0;
    }
    let octave = micros.ilog2();
    if octave >= HIGHEST_BITS {
        return BUCKETS - 1;
    }
    let step = (micros >> (octave - STEP_BITS)) as usize & ((1 << STEP_BITS) - 1);
    (((octave - LOWEST_BITS) << STEP_BITS) as usize) + step
}

const fn lower_bound(bucket: usize) -> u64 {
    let (octave, step) = (bucket >> STEP_BITS, (bucket & ((1 << STEP_BITS) - 1)) as u64);
    ((1 << STEP_BITS) + step) << (octave as u32 + LOWEST_BITS - STEP_BITS)
}

#[cfg(test)]
mod tests {
    use standfast_runtime::Rng;

    use super::*;

    fn at(millis: u64) -> Stamp {
        Stamp::from_micros(1_795_000_000_000_000 + millis * 1_000)
    }

    #[test]
    fn buckets_follow_each_other() {
        for index in 1..BUCKETS {
            assert_eq!(bucket(lower_bound(index)), index);
            assert_eq!(bucket(lower_bound(index) - 1), index - 1);
        }
        assert_eq!((bucket(0), bucket(u64::MAX)), (0, BUCKETS - 1));
    }

    #[test]
    fn values_are_right_to_a_twentieth_once_there_are_enough() {
        for mean in [500.0, 10_000.0, 2_000_000.0] {
            let (mut recent, mut rng) = (Recent::new(at(0)), Rng::seeded(11));
            for i in 0..20_000_u64 {
                recent.observe(Duration::from_secs_f64(rng.exponential() * mean / 1e6), at(i / 10));
                assert_eq!(recent.p95().is_some(), i + 1 >= 128, "at {i}");
            }
            // Of an exponential distribution, ln 20 and ln 100 times the mean.
            for (seen, true_value) in [(recent.p95(), 20_f64.ln()), (recent.p99(), 100_f64.ln())] {
                let ratio = seen.unwrap().as_secs_f64() * 1e6 / (true_value * mean);
                assert!((0.93..1.07).contains(&ratio), "{ratio}");
            }
        }
    }

    #[test]
    fn the_past_is_forgotten_within_half_a_minute_or_so() {
        let mut recent = Recent::new(at(0));
        (0..10_000).for_each(|i| recent.observe(Duration::from_millis(100), at(i)));
        (10_000..60_000).for_each(|i| recent.observe(Duration::from_millis(10), at(i)));
        assert!(recent.p95().unwrap() < Duration::from_millis(12));
        (0..STALE_MAX).for_each(|_| recent.observe(Duration::from_millis(10), at(10_000_000)));
        assert_eq!(recent.p95(), None, "too few since");
    }
}
