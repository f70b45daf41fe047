//! How many attempts beyond the first a worker may make for a service: retries must not be what keeps an overload alive
//! ("Metastable Failures in the Wild", OSDI 2022).

use standfast_model::Stamp;

/// The share of requests that may cause one more attempt. With what was saved up before, a storm stays under a fifth.
const SHARE: f64 = 0.19;
/// Attempts a second that are allowed at least, so that a quiet service can retry at all.
const FLOOR_PER_SECOND: f64 = 10.0;
/// What can be saved up.
const TOKENS_MAX: f64 = 100.0;

/// A token bucket: each request puts in [`SHARE`], time what is missing to [`FLOOR_PER_SECOND`], each extra attempt takes 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    tokens: f64,
    at: Stamp,
    /// By requests, since then.
    put_in: f64,
}

impl Budget {
    /// With the floor of one second in it.
    pub(crate) const fn starting(now: Stamp) -> Self {
        Self { tokens: FLOOR_PER_SECOND, at: now, put_in: 0.0 }
    }

    /// Counts a request.
    pub(crate) fn deposit(&mut self) {
        self.tokens = (self.tokens + SHARE).min(TOKENS_MAX);
        self.put_in += SHARE;
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
        let missing = (now.since(self.at).as_secs_f64() * FLOOR_PER_SECOND - self.put_in).max(0.0);
        (self.tokens, self.at, self.put_in) = ((self.tokens + missing).min(TOKENS_MAX), now, 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is given of 10,000 requests in so many seconds when each wants two.
    fn given(seconds: u64) -> u64 {
        let mut budget = Budget::starting(Stamp::EPOCH);
        let (mut extra, requests) = (0_u64, 10_000_u64);
        for request in 0..requests {
            let now = Stamp::from_micros(request * seconds * 1_000_000 / requests);
            budget.deposit();
            for _ in 0..2 {
                extra += u64::from(budget.withdraw(now));
            }
        }
        extra
    }

    #[test]
    fn extra_attempts_are_bounded_by_the_share_or_the_floor_if_that_is_more() {
        // 19 % of 10,000, and the first second's 10.
        assert!((1_900..=1_911).contains(&given(10)), "{}", given(10));
        // 10 a second: at 10 requests a second that is one each.
        assert!((9_990..=10_011).contains(&given(1_000)), "{}", given(1_000));
    }
}
