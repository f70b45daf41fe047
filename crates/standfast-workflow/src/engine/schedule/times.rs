//! When runs of a schedule are due, and what is done about one that is: plain functions of values.

use std::time::Duration;

use standfast_model::Stamp;

use crate::program::{CatchUp, Overlap, Period, Program, Schedule, ScheduleOptions, after};
use crate::run::Digest;

/// Most runs that wait for the end of the one before; those that are due beyond it are left out.
pub(super) const BUFFERED_MAX: usize = 1_000;
/// The last of the times that were missed is looked for so far back, further if it is not there.
const LOOKED_BACK: [Duration; 3] =
    [Duration::from_secs(3_600), Duration::from_secs(2 * 86_400), Duration::from_secs(62 * 86_400)];
/// The longest month.
const MONTH: Duration = Duration::from_secs(31 * 86_400);

/// The times of a schedule.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times<'p> {
    schedule: &'p Schedule,
    options: &'p ScheduleOptions,
    /// The workflow, all versions of it: what tells its jitter from that of others.
    of: &'p str,
}

/// What is done about a run that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// It begins.
    Start,
    /// It is left out.
    LeaveOut,
    /// It waits for the end of the one before, behind others that do.
    Wait,
    /// It waits for the end of the one before, in place of all others that do.
    WaitAlone,
}

/// What is done about a run that is due while the one before goes on or not, and so many wait for its end.
pub(super) fn turn(overlap: Overlap, goes_on: bool, waiting: usize) -> Turn {
    match overlap {
        Overlap::AllowAll => Turn::Start,
        _ if !goes_on && waiting == 0 => Turn::Start,
        Overlap::Skip => Turn::LeaveOut,
        Overlap::BufferOne if waiting == 0 => Turn::Wait,
        Overlap::BufferAll if waiting < BUFFERED_MAX => Turn::Wait,
        Overlap::BufferOne | Overlap::BufferAll => Turn::LeaveOut,
        Overlap::CancelOther => Turn::WaitAlone,
    }
}

impl<'p> Times<'p> {
    /// Of a program that has a schedule.
    pub(super) fn of(program: &'p Program) -> Option<Self> {
        let schedule = program.schedule.as_ref()?;
        Some(Self { schedule, options: &program.schedule_options, of: &program.share })
    }

    /// When the one after `due` is due.
    pub(super) fn following(&self, due: Stamp) -> Option<Stamp> {
        match self.schedule {
            Schedule::Every(period) => Some(after(due, *period)),
            Schedule::Cron(cron, None) => cron.next(due),
            Schedule::Cron(cron, Some(zone)) => zone.next(cron, due),
            Schedule::After(_) | Schedule::On(_) => None,
        }
    }

    /// When the run that is due then begins: later by a share of the jitter that is always the same for it, but before the next.
    pub(super) fn begins_at(&self, due: Stamp) -> Stamp {
        if self.options.jitter.is_zero() {
            return due;
        }
        let next = self.following(due).map_or(self.options.jitter, |next| next.since(due));
        let most = self.options.jitter.min(next).as_micros();
        let digest = Digest::of(format!("{}/{}", self.of, due.as_micros()).as_bytes());
        let chance = u64::from_str_radix(&digest.as_str()[..16], 16).unwrap_or(0);
        let late = (u128::from(chance) * most) >> 64;
        due.plus(Duration::from_micros(u64::try_from(late).unwrap_or(0)))
    }

    /// Which one is next, of those from `due` on: the times before it were missed and are left out. `None` when none is ever.
    pub(super) fn next(&self, due: Stamp, now: Stamp) -> Option<Stamp> {
        if self.begins_at(due) > now {
            return Some(due);
        }
        match self.options.catch_up {
            CatchUp::All => Some(due),
            CatchUp::Latest => Some(self.last_missed(due, now)),
            CatchUp::Within(period) => {
                let back = MONTH * period.months + period.rest + self.options.jitter;
                let mut next = self.first_from(due, now.minus(back))?;
                while after(self.begins_at(next), period) < now {
                    next = self.following(next)?;
                }
                Some(next)
            }
        }
    }

    /// The last one that should have begun by now, of those from `due` on.
    fn last_missed(&self, due: Stamp, now: Stamp) -> Stamp {
        let is_missed = |due: &Stamp| self.begins_at(*due) <= now;
        let recent = LOOKED_BACK.into_iter().find_map(|back| {
            let from = now.minus(back + self.options.jitter);
            self.first_from(due, from).filter(is_missed)
        });
        let mut last = recent.unwrap_or(due);
        while let Some(next) = self.following(last).filter(|next| *next > last).filter(is_missed) {
            last = next;
        }
        last
    }

    /// The first one at `from` or later, of those from `due` on.
    fn first_from(&self, due: Stamp, from: Stamp) -> Option<Stamp> {
        if from <= due {
            return Some(due);
        }
        let just_before = Stamp::from_micros(from.as_micros() - 1);
        match self.schedule {
            Schedule::Every(Period { months: 0, rest }) if !rest.is_zero() => {
                let steps = from.since(due).as_micros().div_ceil(rest.as_micros());
                Some(due.plus(Duration::from_micros(u64::try_from(steps * rest.as_micros()).ok()?)))
            }
            Schedule::Cron(..) => self.following(just_before),
            _ => {
                let mut next = due;
                while next < from {
                    next = self.following(next).filter(|following| *following > next)?;
                }
                Some(next)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use standfast_model::workflow::{WorkflowOptions, parse_document};

    use super::*;
    use crate::program::compile;

    fn program(options: &str, schedule: &str) -> Program {
        let text = format!(
            "document:\n  dsl: '1.0.3'\n  namespace: test\n  name: timed\n  version: 0.1.0\n  metadata: {{standfast: {{schedule: {{{options}}}}}}}\nschedule: {{{schedule}}}\ndo: [a: {{set: {{a: 1}}}}]\n"
        );
        let loaded =
            parse_document("timed.yaml", text, &mut |_, _| Ok(())).unwrap_or_else(|all| panic!("{all}"));
        assert_ne!(loaded.document.options, WorkflowOptions::default());
        compile(&loaded.document).unwrap()
    }

    fn at(seconds: u64) -> Stamp {
        Stamp::from_micros(seconds * 1_000_000)
    }

    /// Which one is next, in seconds, of those from `due` on.
    fn next(options: &str, schedule: &str, due: u64, now: u64) -> Option<u64> {
        let program = program(options, schedule);
        Some(Times::of(&program).unwrap().next(at(due), at(now))?.since(Stamp::EPOCH).as_secs())
    }

    #[test]
    fn of_times_that_were_missed_the_last_one_counts() {
        for (now, last) in [(99, 100), (100, 100), (109, 100), (110, 110), (1_000_005, 1_000_000)] {
            assert_eq!(next("catchUp: latest", "every: PT10S", 100, now), Some(last));
        }
        for (now, last) in [(300, 300), (599, 300), (600, 600), (3_000, 3_000), (100_000_000, 99_999_900)] {
            assert_eq!(next("catchUp: latest", "cron: '*/5 * * * *'", 300, now), Some(last), "{now}");
        }
        let day = 86_400;
        assert_eq!(next("catchUp: latest", "every: P1M", 31 * day, 100 * day), Some(90 * day));
        assert_eq!(next("catchUp: latest", "cron: '0 0 1 jan *'", 0, 800 * day), Some(730 * day));
    }

    #[test]
    fn what_was_missed_is_made_good_as_far_back_as_is_said() {
        for (options, now, expected) in [
            ("catchUp: all", 5_000, 100),
            ("catchUp: none", 105, 100),
            ("catchUp: none", 110, 100),
            ("catchUp: none", 111, 200),
            ("catchUp: none", 199, 200),
            ("catchUp: none", 5_000, 5_000),
            ("catchUp: none", 5_011, 5_100),
            ("catchUp: PT5M", 5_000, 4_700),
            ("catchUp: PT5M", 5_001, 4_800),
            ("catchUp: PT5M", 300, 100),
            ("catchUp: {minutes: 5}", 5_001, 4_800),
        ] {
            assert_eq!(next(options, "every: {seconds: 100}", 100, now), Some(expected), "{options} {now}");
        }
        let (hour, day) = (3_600, 86_400);
        for (options, now, expected) in [
            ("catchUp: PT2H", day + hour, day),
            ("catchUp: PT2H", day + 2 * hour, day),
            ("catchUp: PT2H", day + 2 * hour + 1, 2 * day),
            ("catchUp: P1M", 60 * day, 32 * day),
        ] {
            assert_eq!(next(options, "cron: '0 0 * * *'", day, now), Some(expected), "{options} {now}");
        }
    }

    #[test]
    fn times_of_an_interval_do_not_drift() {
        let program = program("catchUp: latest", "every: PT10S");
        let times = Times::of(&program).unwrap();
        // A run that is started late changes nothing about the next time.
        assert_eq!(times.following(times.next(at(15), at(18)).unwrap()), Some(at(25)));
    }

    #[test]
    fn jitter_is_the_same_for_a_time_and_another_for_each_and_stays_before_the_next() {
        let program = program("jitter: PT30S", "every: PT1M");
        let times = Times::of(&program).unwrap();
        let late: Vec<u128> =
            (0..200).map(|n| times.begins_at(at(n * 60)).since(at(n * 60)).as_millis()).collect();
        assert!(late.iter().all(|late| *late < 30_000), "{late:?}");
        assert!(late.iter().any(|late| *late < 5_000) && late.iter().any(|late| *late > 25_000), "{late:?}");
        let again: Vec<u128> =
            (0..200).map(|n| times.begins_at(at(n * 60)).since(at(n * 60)).as_millis()).collect();
        assert_eq!(late, again);
        // What is not to begin yet is not missed.
        let (due, begins) = (at(60), times.begins_at(at(60)));
        assert_eq!(times.next(due, Stamp::from_micros(begins.as_micros() - 1)), Some(due));
        let wide = self::program("jitter: PT1H", "every: PT1M");
        let wide = Times::of(&wide).unwrap();
        assert!((0..200).all(|n| wide.begins_at(at(n * 60)) < at(n * 60 + 60)));
    }

    #[test]
    fn what_is_done_about_an_overlap_is_in_the_table() {
        use Overlap::{AllowAll, BufferAll, BufferOne, CancelOther, Skip};
        for (overlap, goes_on, waiting, expected) in [
            (AllowAll, true, 0, Turn::Start),
            (Skip, false, 0, Turn::Start),
            (Skip, true, 0, Turn::LeaveOut),
            (BufferOne, true, 0, Turn::Wait),
            (BufferOne, true, 1, Turn::LeaveOut),
            // The one before has ended, and the one that waited for that is about to begin.
            (BufferOne, false, 1, Turn::LeaveOut),
            (BufferAll, true, 7, Turn::Wait),
            (BufferAll, false, 7, Turn::Wait),
            (BufferAll, true, BUFFERED_MAX, Turn::LeaveOut),
            (CancelOther, true, 0, Turn::WaitAlone),
            (CancelOther, true, 1, Turn::WaitAlone),
            (CancelOther, false, 0, Turn::Start),
        ] {
            assert_eq!(turn(overlap, goes_on, waiting), expected, "{overlap:?} {goes_on} {waiting}");
        }
    }
}
