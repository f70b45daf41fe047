//! What a replica's answers take, as a value that rises at once and falls slowly: peak EWMA, as Finagle and Linkerd use it
//! (<https://linkerd.io/2016/03/16/beyond-round-robin-load-balancing-for-latency/>).

use std::time::Duration;

use standfast_model::Stamp;

/// The time constant of the fall: long enough to remember the slowest answer of the last seconds, short enough that a replica
/// that has recovered is believed within half a minute.
const DECAY: Duration = Duration::from_secs(5);

/// A decaying peak of samples in microseconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct DecayedPeak {
    /// `None` before the first sample.
    micros: Option<f64>,
    at: Stamp,
}

impl DecayedPeak {
    /// Takes in one sample.
    pub(crate) fn observe(&mut self, sample: Duration, now: Stamp) {
        let sample = sample.as_secs_f64() * 1e6;
        let next = match self.micros {
            Some(old) if old > sample => {
                let kept = share_left(now.since(self.at));
                old * kept + sample * (1.0 - kept)
            }
            _ => sample,
        };
        (self.micros, self.at) = (Some(next), now);
    }

    /// The value as the last sample left it, in microseconds.
    pub(crate) const fn micros(&self) -> Option<f64> {
        self.micros
    }

    /// The value in microseconds, fallen towards 0 since the last sample: who is not asked is forgiven.
    pub(crate) fn forgiven(&self, now: Stamp) -> Option<f64> {
        self.micros.map(|micros| micros * share_left(now.since(self.at)))
    }
}

/// A factor of at least 1 that failures multiply and that time and successes bring back to 1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Penalty {
    factor: f64,
    at: Stamp,
}

impl Default for Penalty {
    fn default() -> Self {
        Self { factor: 1.0, at: Stamp::EPOCH }
    }
}

impl Penalty {
    /// What one failure multiplies the factor by. A failure must never look like a fast answer: a replica that fails at once
    /// would otherwise draw all requests (linkerd2's "load biaser").
    const FAILURE: f64 = 4.0;
    /// After which more failures add nothing.
    const MAX: f64 = 256.0;

    pub(crate) fn at(&self, now: Stamp) -> f64 {
        if self.factor <= 1.0 { 1.0 } else { 1.0 + (self.factor - 1.0) * share_left(now.since(self.at)) }
    }

    pub(crate) fn charge(&mut self, now: Stamp) {
        *self = Self { factor: (self.at(now) * Self::FAILURE).min(Self::MAX), at: now };
    }

    pub(crate) fn relieve(&mut self, now: Stamp) {
        if self.factor > 1.01 {
            *self = Self { factor: 1.0 + (self.at(now) - 1.0) * 0.5, at: now };
        } else {
            self.factor = 1.0;
        }
    }
}

fn share_left(elapsed: Duration) -> f64 {
    (-elapsed.as_secs_f64() / DECAY.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Stamp {
        Stamp::from_micros(millis * 1_000)
    }

    #[test]
    fn a_peak_is_taken_at_once_and_forgotten_slowly() {
        let mut peak = DecayedPeak::default();
        assert_eq!(peak.micros(), None);
        peak.observe(Duration::from_millis(10), at(0));
        peak.observe(Duration::from_millis(100), at(1));
        assert!((peak.micros().unwrap() - 100_000.0).abs() < 1.0);
        peak.observe(Duration::from_millis(10), at(5_001));
        let after = peak.micros().unwrap();
        assert!((40_000.0..46_000.0).contains(&after), "{after}");
        assert!(peak.forgiven(at(65_000)).unwrap() < 10.0);
    }

    #[test]
    fn penalties_grow_to_a_bound_and_fade() {
        let mut penalty = Penalty::default();
        for _ in 0..10 {
            penalty.charge(at(0));
        }
        assert!((penalty.at(at(0)) - Penalty::MAX).abs() < 1e-6);
        assert!(penalty.at(at(60_000)) < 1.01);
        penalty.relieve(at(0));
        assert!(penalty.at(at(0)) < 130.0);
    }
}
