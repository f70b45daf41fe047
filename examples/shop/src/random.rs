//! Chance without a dependency: the standard library seeds its hash maps from the operating system.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// 64 random bits.
pub(crate) fn bits() -> u64 {
    RandomState::new().hash_one(0u8)
}

/// An index below `bound`, or 0 when `bound` is 0.
pub(crate) fn below(bound: usize) -> usize {
    let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
    usize::try_from(bits() % bound).unwrap_or(0)
}

/// A name that nothing else in the world has: 128 random bits.
pub(crate) fn unique_id() -> String {
    format!("{:016x}{:016x}", bits(), bits())
}

/// A time between the half and the whole of `whole`, so that those who failed together do not come back together.
pub(crate) fn jittered(whole: Duration) -> Duration {
    let half = whole / 2;
    let span = u64::try_from(half.as_micros()).unwrap_or(u64::MAX - 1);
    half + Duration::from_micros(bits() % (span + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_ids_differ() {
        let ids: std::collections::BTreeSet<_> = (0..1_000).map(|_| unique_id()).collect();
        assert_eq!(ids.len(), 1_000);
    }

    #[test]
    fn jitter_stays_between_half_and_whole() {
        for _ in 0..1_000 {
            let pause = jittered(Duration::from_millis(100));
            assert!((Duration::from_millis(50)..=Duration::from_millis(100)).contains(&pause), "{pause:?}");
        }
        assert_eq!(jittered(Duration::ZERO), Duration::ZERO);
    }
}
