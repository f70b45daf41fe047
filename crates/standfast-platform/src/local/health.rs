//! What probe results mean: a fold without clock or I/O.
//!
//! *Readiness* follows what the replica says: a definite no (refused, reset, an error status, a command that failed)
//! ends it at once; silence only when it is repeated, since a loaded machine is silent now and then and taking replicas
//! out makes the load on the others worse. *Liveness* counts at most one failure per interval, however often we ask,
//! and ends after `retries` of them in a row.

use std::time::Duration;

use standfast_model::{HealthCheck, Probe, Stamp};

/// The first gaps between probes of a replica that is starting: a refusal costs nobody anything, and most programs
/// listen within some ten milliseconds. From [`EAGER_GAP`] on the gap grows with the time it takes.
const FIRST_GAP: Duration = Duration::from_millis(4);
/// The gap after those.
const EAGER_GAP: Duration = Duration::from_millis(15);
/// The same for a probe that costs a process.
const EAGER_COMMAND_GAP: Duration = Duration::from_millis(100);
/// The gap after which silence or a no is asked again.
const CONFIRM_GAP: Duration = Duration::from_millis(50);
/// While it starts, readiness is noticed late by at most this part of the time it took.
const EAGER_PART: u32 = 64;
/// Silences in a row that end readiness.
const SILENCES: u32 = 2;

/// What one probe found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Ready.
    Yes,
    /// It, or its kernel, said no.
    No(String),
    /// It did not answer in time.
    Silent(String),
    /// We were too late ourselves to tell.
    Unsure,
}

/// What follows from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing new.
    Same,
    /// It is ready now.
    Ready,
    /// It is not ready any more.
    Unready(String),
    /// It is dead: too many failures in a row.
    Dead(String),
}

/// The health of one replica.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    started: Stamp,
    was_ready: bool,
    /// Since when it is ready or not.
    turned: Stamp,
    is_ready: bool,
    silences: u32,
    failures: u32,
    /// When the first of them was counted.
    failing_since: Stamp,
    /// The last success or counted failure: the next failure counts an interval later.
    counted: Stamp,
}

impl Health {
    pub(crate) fn new(started: Stamp, ready_since: Option<Stamp>, was_ready: bool) -> Self {
        let turned = ready_since.unwrap_or(started);
        let is_ready = ready_since.is_some();
        Self {
            started,
            was_ready,
            turned,
            is_ready,
            silences: 0,
            failures: 0,
            failing_since: started,
            counted: started,
        }
    }

    /// Whether the present run of failures is silence, which may be our own fault.
    pub(crate) fn is_silent(&self) -> bool {
        self.silences > 0
    }

    pub(crate) fn was_ready(&self) -> bool {
        self.was_ready
    }

    pub(crate) fn observe(&mut self, check: &HealthCheck, outcome: Outcome, at: Stamp) -> Verdict {
        let reason = match outcome {
            Outcome::Unsure => return Verdict::Same,
            Outcome::Yes => {
                (self.silences, self.failures, self.counted) = (0, 0, at);
                let turns = !self.is_ready;
                if turns {
                    (self.is_ready, self.was_ready, self.turned) = (true, true, at);
                }
                return if turns { Verdict::Ready } else { Verdict::Same };
            }
            Outcome::No(reason) => {
                self.silences = 0;
                reason
            }
            Outcome::Silent(reason) => {
                self.silences += 1;
                reason
            }
        };
        if self.count_failure(check, at) {
            return Verdict::Dead(reason);
        }
        let settled = self.silences == 0 || self.silences >= SILENCES.min(check.retries);
        if self.is_ready && settled {
            (self.is_ready, self.turned) = (false, at);
            return Verdict::Unready(reason);
        }
        Verdict::Same
    }

    /// When the first of the failures was counted.
    pub(crate) fn failing_since(&self) -> Stamp {
        self.failing_since
    }

    /// Takes back what was counted against it: it may have been our own fault.
    pub(crate) fn forgive(&mut self, at: Stamp) {
        (self.failures, self.counted) = (0, at);
    }

    /// Counts a failure, when its time has come, and says whether it was the last.
    fn count_failure(&mut self, check: &HealthCheck, at: Stamp) -> bool {
        let is_excused = !self.was_ready && at < self.started.plus(check.start_period);
        // Once ready, a little less than the interval, since the gaps between probes are jittered.
        let spacing = if self.was_ready { check.interval.mul_f64(0.8) } else { check.interval };
        if is_excused || at.since(self.counted) < spacing {
            return self.failures >= check.retries.max(1);
        }
        if self.failures == 0 {
            self.failing_since = at;
        }
        (self.failures, self.counted) = (self.failures + 1, at);
        self.failures >= check.retries.max(1)
    }

    /// How long to wait before the next probe. `jitter` is from 0 up to 1.
    pub(crate) fn gap(&self, check: &HealthCheck, now: Stamp, jitter: f64) -> Duration {
        let eager = match check.probe {
            Probe::Command { .. } => EAGER_COMMAND_GAP,
            _ => EAGER_GAP,
        };
        let growing = |since: Stamp, least: Duration, part: u32| {
            (now.since(since) / part).max(least).min(check.interval)
        };
        let first = (now.since(self.started) / 4).max(FIRST_GAP);
        match (self.was_ready, self.is_ready, self.silences) {
            (false, ..) if eager == EAGER_GAP && first < eager => first.min(check.interval),
            (false, ..) => growing(self.started, eager, EAGER_PART),
            (true, true, 0) => check.interval.mul_f64(0.9 + jitter * 0.2),
            (true, true, _) => CONFIRM_GAP.max(eager).min(check.interval),
            (true, false, _) => growing(self.turned, CONFIRM_GAP.max(eager), 8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check() -> HealthCheck {
        HealthCheck {
            probe: Probe::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            retries: 3,
            start_period: Duration::ZERO,
        }
    }

    fn at(millis: u64) -> Stamp {
        Stamp::from_micros(millis * 1_000)
    }

    fn no() -> Outcome {
        Outcome::No("refused".into())
    }

    #[test]
    fn a_slow_start_is_not_death_however_often_it_is_asked() {
        let mut health = Health::new(at(0), None, false);
        for millis in (0..2_990).step_by(15) {
            assert_eq!(health.observe(&check(), no(), at(millis)), Verdict::Same, "{millis}");
        }
        assert_eq!(health.observe(&check(), Outcome::Yes, at(2_990)), Verdict::Ready);
        assert_eq!(health.observe(&check(), Outcome::Yes, at(3_990)), Verdict::Same);
    }

    #[test]
    fn one_that_never_answers_dies_after_its_start_period_and_its_retries() {
        let check = HealthCheck { start_period: Duration::from_secs(10), ..check() };
        let mut health = Health::new(at(0), None, false);
        let died = (0..60_000)
            .step_by(100)
            .find(|millis| health.observe(&check, no(), at(*millis)) != Verdict::Same);
        assert!((11_900..13_500).contains(&died.unwrap()), "{died:?}");
    }

    #[test]
    fn a_refusal_ends_readiness_at_once_and_silence_when_repeated() {
        let silent = || Outcome::Silent("no answer".into());
        let mut health = Health::new(at(0), Some(at(0)), true);
        assert_eq!(health.observe(&check(), silent(), at(1_000)), Verdict::Same);
        assert_eq!(health.observe(&check(), Outcome::Yes, at(1_050)), Verdict::Same);
        assert_eq!(health.observe(&check(), silent(), at(2_050)), Verdict::Same);
        assert_eq!(health.gap(&check(), at(2_050), 0.5), CONFIRM_GAP);
        assert_eq!(health.observe(&check(), silent(), at(2_550)), Verdict::Unready("no answer".into()));
        let mut health = Health::new(at(0), Some(at(0)), true);
        assert_eq!(health.observe(&check(), no(), at(500)), Verdict::Unready("refused".into()));
    }

    #[test]
    fn death_takes_retries_intervals_and_doubt_does_not_count() {
        let mut health = Health::new(at(0), Some(at(0)), true);
        assert!(matches!(health.observe(&check(), no(), at(1_000)), Verdict::Unready(_)));
        assert_eq!(health.observe(&check(), no(), at(1_050)), Verdict::Same);
        assert_eq!(health.observe(&check(), no(), at(2_000)), Verdict::Same);
        assert_eq!(health.observe(&check(), Outcome::Unsure, at(3_000)), Verdict::Same);
        assert!(matches!(health.observe(&check(), no(), at(3_000)), Verdict::Dead(_)));
        assert!(
            matches!(health.observe(&check(), no(), at(3_010)), Verdict::Dead(_)),
            "a kill that was put off is asked for again"
        );
    }

    #[test]
    fn readiness_is_noticed_within_a_small_part_of_the_start() {
        let health = Health::new(at(0), None, false);
        assert_eq!(health.gap(&check(), at(1), 0.0), FIRST_GAP);
        assert_eq!(health.gap(&check(), at(40), 0.0), Duration::from_millis(10));
        assert_eq!(health.gap(&check(), at(100), 0.0), EAGER_GAP);
        assert_eq!(health.gap(&check(), at(6_400), 0.0), Duration::from_millis(100));
        assert_eq!(health.gap(&check(), at(640_000), 0.0), Duration::from_secs(1));
        let ready = Health::new(at(0), Some(at(0)), true);
        assert_eq!(ready.gap(&check(), at(0), 0.5), Duration::from_secs(1));
    }

    #[test]
    fn what_is_forgiven_does_not_count_when_others_answer_again() {
        let mut health = Health::new(at(0), Some(at(0)), true);
        let silent = || Outcome::Silent("no answer".into());
        let dies = |health: &mut Health, from: u64| {
            (0..20)
                .find(|n| matches!(health.observe(&check(), silent(), at(from + n * 500)), Verdict::Dead(_)))
        };
        let first = dies(&mut health, 1_000).unwrap();
        health.forgive(at(1_000 + first * 500));
        assert!(health.is_silent(), "it is still silent");
        let second = dies(&mut health, 1_000 + first * 500 + 500).unwrap();
        assert!(second >= first, "{second} of {first}");
    }
}
