//! A new replica is given less than its share for a while: its caches are empty and its code is cold. Pure.
//!
//! The share rises in a line from a tenth, as Envoy's slow start does with its defaults. It works by chance: for a choice that a
//! new replica is not considered in, it is not there. A factor on its score alone would mean none at all where others are idle.

use std::time::Duration;

use standfast_runtime::Rng;

/// The share at the beginning.
const SHARE_FIRST: f64 = 0.1;

/// The share of its requests that a replica of this age is given, from [`SHARE_FIRST`] to 1.
pub(crate) fn share(age: Duration, slow_start: Duration) -> f64 {
    if age >= slow_start {
        return 1.0;
    }
    (age.as_secs_f64() / slow_start.as_secs_f64()).max(SHARE_FIRST)
}

/// Whether a replica that is given this share is considered for one request.
pub(crate) fn is_considered(share: f64, rng: &mut Rng) -> bool {
    share >= 1.0 || rng.fraction() < share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_rises_to_all() {
        let at = |seconds| share(Duration::from_secs(seconds), Duration::from_secs(30));
        assert_eq!((at(0), at(15), at(30), at(300)), (0.1, 0.5, 1.0, 1.0));
        assert_eq!(share(Duration::ZERO, Duration::ZERO), 1.0, "none wanted");
    }

    #[test]
    fn as_many_requests_as_the_share_says() {
        let mut rng = Rng::seeded(5);
        let considered = (0..10_000).filter(|_| is_considered(0.1, &mut rng)).count();
        assert!((900..1_100).contains(&considered), "{considered}");
        assert!((0..100).all(|_| is_considered(1.0, &mut rng)));
    }
}
