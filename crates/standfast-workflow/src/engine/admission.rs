//! Whether a run is started now: not when it would wait for too long behind those that wait for their turn. What is refused at once
//! can be sent elsewhere or later; what is let in and waits for minutes helps nobody, and takes room and disk.
//!
//! By Little's law (Little 1961) who comes last waits as long as those before take to be done: their number by the rate at which
//! places become free.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use standfast_model::{Priority, Stamp};

use super::Refused;

/// So many may always wait: the rate is not known well enough to judge few.
const BACKLOG_MIN: usize = 256;
/// How much of the rate is what was seen last; the rest is from before.
const NEWEST_SHARE: f64 = 0.3;
/// Those of low priority are let in if they would wait for no longer than this part of what others may.
const LOW_SHARE: f64 = 0.2;
/// Those of high priority, which wait behind their like only, are let in up to so many times what others may wait.
const HIGH_SHARE: f64 = 10.0;
/// Longest time after which it is said to start it again.
const AGAIN_MAX: Duration = Duration::from_secs(60);

/// How fast runs are done with.
#[derive(Debug, Default)]
pub(super) struct Admission(Mutex<Option<Rate>>);

#[derive(Debug, Clone, Copy)]
struct Rate {
    at: Stamp,
    /// How many places have become free in all.
    freed: u64,
    /// How many become free in a second; `None` before two looks.
    per_second: Option<f64>,
}

impl Admission {
    /// Notes how many places have become free, from time to time.
    pub(super) fn note(&self, freed: u64, now: Stamp) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let per_second = known.as_ref().and_then(|known| {
            let passed = now.since(known.at).as_secs_f64();
            let newest = freed.saturating_sub(known.freed) as f64 / passed;
            let before = known.per_second.unwrap_or(newest);
            (passed > 0.0).then_some(before + NEWEST_SHARE * (newest - before))
        });
        *known = Some(Rate { at: now, freed, per_second });
    }

    /// Whether a run may be started before which `backlog` wait.
    pub(super) fn check(
        &self,
        priority: Priority,
        backlog: usize,
        wait_max: Duration,
    ) -> Result<(), Refused> {
        let known = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(per_second) = known.and_then(|known| known.per_second) else { return Ok(()) };
        if backlog < BACKLOG_MIN {
            return Ok(());
        }
        let share = match priority {
            Priority::Low => LOW_SHARE,
            Priority::Normal => 1.0,
            Priority::High => HIGH_SHARE,
        };
        let wait = backlog as f64 / per_second.max(f64::MIN_POSITIVE);
        let over = wait - wait_max.as_secs_f64() * share;
        if over <= 0.0 {
            return Ok(());
        }
        let again = over.clamp(1.0, AGAIN_MAX.as_secs_f64());
        Err(Refused::Overloaded { backlog, wait_s: wait.min(1e9) as u64, again_s: again.ceil() as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Stamp {
        Stamp::from_micros(second * 1_000_000)
    }

    #[test]
    fn who_would_wait_too_long_is_refused_and_told_when_to_come_again() {
        let admission = Admission::default();
        let check = |priority, backlog| admission.check(priority, backlog, Duration::from_secs(30));
        assert_eq!(check(Priority::Normal, 1_000_000), Ok(()), "nothing is known yet");
        admission.note(0, at(0));
        admission.note(100, at(1)); // 100 a second
        assert_eq!(check(Priority::Normal, 3_000), Ok(()));
        let refused = Refused::Overloaded { backlog: 4_000, wait_s: 40, again_s: 10 };
        assert_eq!(check(Priority::Normal, 4_000), Err(refused));
        assert_eq!(check(Priority::High, 4_000), Ok(()));
        assert_eq!(check(Priority::Low, 600), Ok(()));
        assert!(check(Priority::Low, 700).is_err());
    }

    #[test]
    fn few_are_let_in_however_slow_it_goes_and_many_not_when_nothing_goes() {
        let admission = Admission::default();
        admission.note(0, at(0));
        admission.note(0, at(1));
        let check = |backlog| admission.check(Priority::Normal, backlog, Duration::from_secs(30));
        assert_eq!(check(BACKLOG_MIN - 1), Ok(()));
        assert!(check(BACKLOG_MIN).is_err());
    }
}
