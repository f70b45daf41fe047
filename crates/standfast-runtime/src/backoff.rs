use std::time::Duration;

use crate::Rng;

/// Capped exponential back-off with full jitter on the upper half (after "Exponential Backoff And Jitter", AWS Architecture
/// Blog, 2015): the n-th wait is between half and all of `base × 2ⁿ`, at most `cap`.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// The first wait.
    pub base: Duration,
    /// The longest wait.
    pub cap: Duration,
}

impl Backoff {
    /// The wait after `failures` failures before this one, without jitter.
    pub fn ceiling(&self, failures: u32) -> Duration {
        self.base.saturating_mul(1_u32.checked_shl(failures).unwrap_or(u32::MAX)).min(self.cap)
    }

    /// The wait after `failures` failures before this one.
    pub fn wait(&self, failures: u32, rng: &mut Rng) -> Duration {
        self.ceiling(failures).mul_f64(0.5 + rng.fraction() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        let backoff = Backoff { base: Duration::from_millis(100), cap: Duration::from_secs(30) };
        assert_eq!(backoff.ceiling(0), Duration::from_millis(100));
        assert_eq!(backoff.ceiling(3), Duration::from_millis(800));
        assert_eq!(backoff.ceiling(40), Duration::from_secs(30));
    }
}
