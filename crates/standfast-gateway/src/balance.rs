//! Which replica gets a request. Pure.
//!
//! The score is what the request may expect there: (requests in flight + 1) × decayed peak latency × penalty. Up to
//! [`SCAN_MAX`] candidates all are compared; of more, two random ones ("The Power of Two Choices in Randomized Load
//! Balancing", 2001). The caller's zone comes first until it is clearly worse.

use standfast_runtime::Rng;

/// Up to this many candidates all are looked at: two random picks of three are both the slow one too often.
pub(crate) const SCAN_MAX: usize = 16;
/// Differences below this latency, in microseconds, are the machine's noise.
const LATENCY_FLOOR_MICROS: f64 = 1_000.0;
/// Scores within this ratio count as equal; chance decides, so that equal replicas share the load.
const NEAR: f64 = 1.25;
/// How many times worse the caller's own zone must be before another one takes its requests…
const SPILL_RATIO: f64 = 3.0;
/// …and by how many microseconds at least: below that, crossing zones costs more than it gains.
const SPILL_MICROS: f64 = 2_000.0;

/// What is known of one candidate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Candidate {
    /// Its place in the pool.
    pub(crate) index: usize,
    pub(crate) in_flight: u32,
    /// Microseconds; `None` when it has not answered yet.
    pub(crate) latency: Option<f64>,
    /// At least 1.
    pub(crate) penalty: f64,
    pub(crate) is_local: bool,
}

impl Candidate {
    fn score(&self, unknown_latency: f64) -> f64 {
        let latency = self.latency.unwrap_or(unknown_latency).max(LATENCY_FLOOR_MICROS);
        (f64::from(self.in_flight) + 1.0) * latency * self.penalty
    }
}

/// The `index` of the one to take; `None` when there is no candidate.
pub(crate) fn choose(candidates: &[Candidate], rng: &mut Rng) -> Option<usize> {
    if let [only] = candidates {
        return Some(only.index);
    }
    let unknown = mean_latency(candidates);
    let local = best(candidates.iter().filter(|c| c.is_local), unknown, rng);
    let remote = best(candidates.iter().filter(|c| !c.is_local), unknown, rng);
    match (local, remote) {
        (Some((here, here_score)), Some((there, there_score))) => {
            let is_worse = here_score > there_score * SPILL_RATIO && here_score > there_score + SPILL_MICROS;
            Some(if is_worse { there } else { here })
        }
        (one, other) => one.or(other).map(|(index, _)| index),
    }
}

/// The best of an iterator and its score; among near equals, chance.
fn best<'a>(
    candidates: impl Iterator<Item = &'a Candidate>,
    unknown: f64,
    rng: &mut Rng,
) -> Option<(usize, f64)> {
    let mut scored = [(0, f64::INFINITY); SCAN_MAX];
    let mut count = 0;
    let mut lowest = f64::INFINITY;
    for (place, candidate) in scored.iter_mut().zip(candidates) {
        *place = (candidate.index, candidate.score(unknown));
        lowest = lowest.min(place.1);
        count += 1;
    }
    let near = |scored: &(usize, f64)| scored.1 <= lowest * NEAR;
    let scored = &scored[..count];
    let nth = match scored.iter().filter(|s| near(s)).count() {
        0 | 1 => 0,
        many => rng.below(many),
    };
    scored.iter().filter(|s| near(s)).nth(nth).copied()
}

fn mean_latency(candidates: &[Candidate]) -> f64 {
    let (sum, known) = candidates
        .iter()
        .filter_map(|c| c.latency)
        .fold((0.0, 0.0), |(sum, known), latency| (sum + latency, known + 1.0));
    if known > 0.0 { sum / known } else { LATENCY_FLOOR_MICROS }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(index: usize, in_flight: u32, millis: f64, is_local: bool) -> Candidate {
        Candidate { index, in_flight, latency: Some(millis * 1_000.0), penalty: 1.0, is_local }
    }

    fn shares(candidates: &[Candidate]) -> [usize; SCAN_MAX] {
        let mut rng = Rng::seeded(7);
        let mut counts = [0; SCAN_MAX];
        for _ in 0..1_000 {
            counts[choose(candidates, &mut rng).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn equal_replicas_share_and_a_slow_or_failing_one_gets_nothing() {
        let mut three = [0, 1, 2].map(|i| candidate(i, 0, 10.0, true));
        assert!(shares(&three)[..3].iter().all(|n| *n > 250));
        three[1].latency = Some(1e6);
        assert_eq!(shares(&three)[1], 0);
        three[1] = candidate(1, 0, 0.1, true);
        three[1].penalty = 64.0;
        assert_eq!(shares(&three)[1], 0, "a fast failure is no fast answer");
        assert_eq!(choose(&[], &mut Rng::seeded(1)), None);
    }

    #[test]
    fn a_replica_without_history_gets_its_fair_share() {
        let mut three = [0, 1, 2].map(|i| candidate(i, 0, 10.0, true));
        three[2].latency = None;
        assert!(shares(&three)[2] > 250);
    }

    #[test]
    fn the_own_zone_comes_first_until_it_is_clearly_worse() {
        let pair = |in_flight| [candidate(0, in_flight, 10.0, true), candidate(1, 0, 10.0, false)];
        assert_eq!(shares(&pair(2))[0], 1_000);
        assert_eq!(shares(&pair(3))[1], 1_000);
        // Three times worse, but by less than what crossing zones costs.
        let quick = [candidate(0, 2, 0.3, true), candidate(1, 0, 0.1, false)];
        assert_eq!(shares(&quick)[0], 1_000);
    }
}
