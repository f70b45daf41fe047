//! At most so many requests of a kind in a time. Pure.
//!
//! The generic cell rate algorithm (ITU-T I.371, 1993): for each key one number, the time up to which its requests have used the
//! rate; that may lie in the future by as much as the burst allows. Numbers of many keys are kept as a count-min sketch with
//! conservative update (Cormode and Muthukrishnan 2005; Estan and Varghese 2002) keeps counts: each key has a place in each of
//! [`ROWS`] rows, and the lowest counts. There is nothing to evict, so nobody evades a limit by making the table overflow: a
//! number is never too low. It is too high for a key only if in every row a busier one has the same place: with 1,000 keys that are
//! using their burst at one moment that happens to one in 70,000.
//!
//! The numbers are atomic, so that all workers of a gateway share one limit without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use standfast_model::{RateLimit, RatePer, Stamp};

use crate::ring::mix;

const ROWS: usize = 4;
const COLUMNS: usize = 16_384;
/// The slowest rate: a request an hour.
const SPACING_MAX_NANOS: f64 = 3.6e12;

/// One rate limit of one route.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    /// From one request to the next at the limit.
    spacing_nanos: u64,
    /// How far the used time may be ahead of now before a request.
    ahead_nanos: u64,
    /// One number for a limit that counts all alike, else [`ROWS`] × [`COLUMNS`].
    used_until: Box<[AtomicU64]>,
    /// So that nobody can choose keys that share places.
    seed: u64,
}

impl RateLimiter {
    /// The limit with nothing used.
    pub(crate) fn new(limit: &RateLimit, seed: u64) -> Self {
        let spacing_nanos = (1e9 / limit.rate_per_second).clamp(1.0, SPACING_MAX_NANOS) as u64;
        let places = if limit.per == RatePer::Route { 1 } else { ROWS * COLUMNS };
        Self {
            spacing_nanos,
            ahead_nanos: spacing_nanos.saturating_mul(u64::from(limit.burst.saturating_sub(1))),
            used_until: (0..places).map(|_| AtomicU64::new(0)).collect(),
            seed,
        }
    }

    /// Whether a request may pass.
    ///
    /// `key` is a hash of what is counted by itself; a limit that counts all alike does not look at it.
    ///
    /// # Errors
    /// After which time it may.
    pub(crate) fn take(&self, key: u64, now: Stamp) -> Result<(), Duration> {
        let now = now.as_micros().saturating_mul(1_000);
        if let [all] = &*self.used_until {
            let mut used = all.load(Ordering::Relaxed);
            loop {
                let next = self.next(used, now)?;
                match all.compare_exchange_weak(used, next, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => return Ok(()),
                    Err(other) => used = other,
                }
            }
        }
        let places = self.places(key);
        let used = places.iter().map(|place| place.load(Ordering::Relaxed)).min().unwrap_or_default();
        let next = self.next(used, now)?;
        for place in places {
            // Two workers at the same instant may both pass with one's time: as many too many as there are workers at most.
            place.fetch_max(next, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Up to when the rate is used with one request more.
    const fn next(&self, used_until: u64, now: u64) -> Result<u64, Duration> {
        let ahead = used_until.saturating_sub(now);
        if ahead > self.ahead_nanos {
            return Err(Duration::from_nanos(ahead - self.ahead_nanos));
        }
        Ok(now.saturating_add(ahead).saturating_add(self.spacing_nanos))
    }

    fn places(&self, key: u64) -> [&AtomicU64; ROWS] {
        let (first, second) = (mix(key ^ self.seed), mix(key.wrapping_add(self.seed)) | 1);
        std::array::from_fn(|row| {
            let hash = mix(first.wrapping_add(second.wrapping_mul(row as u64)));
            &self.used_until[row * COLUMNS + (hash % COLUMNS as u64) as usize]
        })
    }
}

#[cfg(test)]
mod tests {
    use standfast_runtime::Rng;

    use super::*;

    const START: u64 = 1_795_000_000_000_000;

    fn limiter(rate_per_second: f64, burst: u32, per: RatePer) -> RateLimiter {
        RateLimiter::new(&RateLimit { rate_per_second, burst, per }, 42)
    }

    fn at(micros: u64) -> Stamp {
        Stamp::from_micros(START + micros)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        for per in [RatePer::Route, RatePer::Client] {
            let limiter = limiter(10.0, 5, per);
            let passed = (0..10).filter(|_| limiter.take(1, at(0)).is_ok()).count();
            assert_eq!(passed, 5);
            assert_eq!(limiter.take(1, at(0)), Err(Duration::from_millis(100)));
            assert_eq!(limiter.take(1, at(99_999)), Err(Duration::from_micros(1)));
            assert!(limiter.take(1, at(100_000)).is_ok());
            let passed = (0..100_000).filter(|i| limiter.take(1, at(100_000 + i * 100)).is_ok()).count();
            assert!((99..=101).contains(&passed), "10 s at 10 a second: {passed}");
        }
    }

    #[test]
    fn a_refused_request_costs_nothing() {
        let limiter = limiter(1.0, 1, RatePer::Route);
        assert!(limiter.take(0, at(0)).is_ok());
        assert!((0..1_000).all(|i| limiter.take(0, at(i)).is_err()));
        assert!(limiter.take(0, at(1_000_000)).is_ok());
    }

    #[test]
    fn keys_do_not_disturb_each_other_and_a_flood_of_keys_frees_nobody() {
        let limiter = limiter(10.0, 10, RatePer::Client);
        let mut rng = Rng::seeded(3);
        let (mut hot, mut quiet_refused, mut quiet) = (0, 0, 0);
        // For 10 s: one key at 1,000 a second, 1,000 others at 2 a second, and 20,000 a second that are never seen again.
        for micros in (0..10_000_000).step_by(50) {
            let _passed = limiter.take(rng.bits(), at(micros));
            if micros % 1_000 == 0 {
                hot += u32::from(limiter.take(7, at(micros)).is_ok());
            }
            if micros % 500 == 0 {
                quiet += 1;
                quiet_refused += u32::from(limiter.take(1_000 + micros / 500 % 1_000, at(micros)).is_err());
            }
        }
        assert!((100..=110).contains(&hot), "{hot}");
        assert!(quiet_refused * 1_000 <= quiet, "{quiet_refused} of {quiet}");
    }

    #[test]
    fn odd_rates_do_no_harm() {
        for rate in [1e-9, 1e12, f64::INFINITY] {
            assert!(limiter(rate, u32::MAX, RatePer::Client).take(u64::MAX, at(0)).is_ok());
        }
    }
}
