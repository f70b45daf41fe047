//! How many attempts beyond the first a worker may make for a service: retries must not be what keeps an overload alive
//! ("Metastable Failures in the Wild", OSDI 2022).

use standfast_model::Stamp;

/// The share of requests that may cause one more attempt.
const SHARE: f64 = 0.2;
/// Attempts a second that are allowed whatever the number of requests, so that a quiet service can retry at all.
const FLOOR_PER_SECOND: f64 = 10.0;
/// What can be saved up.
const TOKENS_MAX: f64 = 100.0;

/// A token bucket: each request puts in [`SHARE`], each second [`FLOOR_PER_SECOND`], each extra attempt takes 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    tokens: f64,
    at: Stamp,
}

impl Budget {
    /// With the floor of one second in it.
    pub(crate) const fn starting(now: Stamp) -> Self {
        Self { tokens: FLOOR_PER_SECOND, at: now }
    }

    /// Counts a request.
    pub(crate) fn deposit(&mut self) {
        self.tokens = (self.tokens + SHARE).min(TOKENS_MAX);
    }

    /// Takes the token for one extra attempt; `false` when there is none.
    pub(crate) fn withdraw(&mut self, now: Stamp) -> bool {
        self.refill(now);
        let has_one = self.tokens >= 1.0;
        if has_one {
            self.tokens -= 1.0;
        }
        has_one
    }

    /// Whether [`Budget::withdraw`] would give one.
    pub(crate) fn has_one(&mut self, now: Stamp) -> bool {
        self.refill(now);
        self.tokens >= 1.0
    }

    /// How many it would give.
    pub(crate) fn left(&mut self, now: Stamp) -> f64 {
        self.refill(now);
        self.tokens
    }

    fn refill(&mut self, now: Stamp) {
        let earned = now.since(self.at).as_secs_f64() * FLOOR_PER_SECOND;
        (self.tokens, self.at) = ((self.tokens + earned).min(TOKENS_MAX), now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_attempts_are_bounded_by_share_and_floor() {
        let mut budget = Budget::starting(Stamp::EPOCH);
        let (mut extra, requests, seconds) = (0_u64, 10_000_u64, 10_u64);
        for request in 0..requests {
            let now = Stamp::from_micros(request * seconds * 1_000_000 / requests);
            budget.deposit();
            for _ in 0..2 {
                extra += u64::from(budget.withdraw(now));
            }
        }
        // 20 % of 10,000, 10 a second for 10 s, and the first second's 10.
        assert!((2_100..=2_111).contains(&extra), "{extra}");
    }
}
