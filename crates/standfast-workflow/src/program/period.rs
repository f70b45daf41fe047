use standfast_model::Stamp;
use standfast_model::workflow::Period;

use super::{FilterId, WAIT_MAX};

/// A length of time, or what yields it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Length {
    Fixed(Period),
    Filter(FilterId),
}

/// When a period that begins at `from` is over. Months are added by the calendar, in UTC; a day that the month lacks is its last.
pub(crate) fn after(from: Stamp, period: Period) -> Stamp {
    let begun = if period.months == 0 { from } else { months_after(from, period.months) };
    begun.plus(period.rest.min(WAIT_MAX))
}

const DAY_MICROS: u64 = 86_400_000_000;

fn months_after(from: Stamp, months: u32) -> Stamp {
    let (days, of_day) = (from.as_micros() / DAY_MICROS, from.as_micros() % DAY_MICROS);
    let (year, month, day) = standfast_model::civil_from_days(days);
    let total = year * 12 + (month - 1) + u64::from(months);
    let (year, month) = (total / 12, total % 12 + 1);
    let day = day.min(days_of_month(year, month));
    Stamp::from_micros(standfast_model::days_from_civil(year, month, day) * DAY_MICROS + of_day)
}

pub(super) fn days_of_month(year: u64, month: u64) -> u64 {
    let is_leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 => 28 + u64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn months_are_added_by_the_calendar() {
        let at = |year, month, day| {
            Stamp::from_micros(standfast_model::days_from_civil(year, month, day) * DAY_MICROS + 5)
        };
        for (from, months, to) in [
            (at(2026, 1, 31), 1, at(2026, 2, 28)),
            (at(2028, 1, 31), 1, at(2028, 2, 29)),
            (at(2026, 12, 1), 1, at(2027, 1, 1)),
            (at(2026, 3, 30), 12, at(2027, 3, 30)),
        ] {
            assert_eq!(after(from, Period { months, rest: Duration::ZERO }), to);
        }
        let rest = Duration::from_secs(86_400);
        assert_eq!(after(at(2026, 1, 31), Period { months: 1, rest }), at(2026, 3, 1));
    }
}
