//! Times by five fields of cron: minute, hour, day of the month, month, day of the week.

use standfast_model::{Stamp, civil_from_days};

use super::period::days_of_month;

const MINUTE_MICROS: u64 = 60_000_000;
const DAY_MINUTES: u64 = 24 * 60;
/// How far ahead a time is looked for: the 29th of February may be eight years away, around a century that is no leap year.
const YEARS_MAX: u64 = 9;
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// Times by five fields of cron. Each field is a set of numbers, one bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cron {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Both fields of days say something: a day that fits either counts, as cron has always had it.
    is_either: bool,
}

impl Cron {
    /// Reads five fields that were checked with the document; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let fields: Vec<&str> = text.split_ascii_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else { return None };
        let weekday_bits = bits(weekdays, 0, 7, &WEEKDAYS, 0)?;
        Some(Self {
            minutes: bits(minutes, 0, 59, &[], 0)?,
            hours: bits(hours, 0, 23, &[], 0)?,
            days: bits(days, 1, 31, &[], 0)?,
            months: bits(months, 1, 12, &MONTHS, 1)?,
            // Sunday is 0 and 7.
            weekdays: (weekday_bits | weekday_bits >> 7) & 0x7f,
            is_either: !days.starts_with('*') && !weekdays.starts_with('*'),
        })
    }

    /// The first time after `after`, in UTC; `None` when there is none, as of the 31st of February.
    pub(crate) fn next(&self, after: Stamp) -> Option<Stamp> {
        let minute = self.next_minute(after.as_micros() / MINUTE_MICROS)?;
        Some(Stamp::from_micros(minute * MINUTE_MICROS))
    }

    /// Whether every hour of a day fits.
    pub(super) fn is_hourly(&self) -> bool {
        self.hours == (1 << 24) - 1
    }

    /// The first minute after this one, as clocks show them, since the beginning of 1970.
    pub(super) fn next_minute(&self, after: u64) -> Option<u64> {
        let first = after + 1;
        let (mut day, mut from) = (first / DAY_MINUTES, first % DAY_MINUTES);
        let (first_year, ..) = civil_from_days(day);
        loop {
            let (year, month, of_month) = civil_from_days(day);
            if year > first_year + YEARS_MAX {
                return None;
            }
            if !has(self.months, month) {
                day += days_of_month(year, month) - of_month + 1;
                from = 0;
                continue;
            }
            if self.is_day(day, of_month)
                && let Some(minute) = (from..DAY_MINUTES).find(|minute| self.is_minute(*minute))
            {
                return Some(day * DAY_MINUTES + minute);
            }
            (day, from) = (day + 1, 0);
        }
    }

    fn is_day(&self, day: u64, of_month: u64) -> bool {
        // 1970-01-01 was a Thursday.
        let (fits_date, fits_weekday) = (has(self.days, of_month), has(self.weekdays, (day + 4) % 7));
        if self.is_either { fits_date || fits_weekday } else { fits_date && fits_weekday }
    }

    fn is_minute(&self, of_day: u64) -> bool {
        has(self.hours, of_day / 60) && has(self.minutes, of_day % 60)
    }
}

fn has(bits: u64, number: u64) -> bool {
    bits >> number & 1 == 1
}

fn bits(field: &str, min: u64, max: u64, words: &[&str], first: u64) -> Option<u64> {
    let number = |text: &str| {
        let word = words.iter().position(|word| word.eq_ignore_ascii_case(text));
        let value = word.map_or_else(|| text.parse().ok(), |at| Some(at as u64 + first))?;
        (min..=max).contains(&value).then_some(value)
    };
    let mut all = 0;
    for part in field.split(',') {
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let (from, to) = match (range, range.split_once('-')) {
            ("*", _) => (min, max),
            (_, Some((from, to))) => (number(from)?, number(to)?),
            // `5/15` begins at 5 and goes on to the end.
            (_, None) => (number(range)?, if step.is_some() { max } else { number(range)? }),
        };
        let step = step.map_or(Some(1), |step| step.parse().ok()).filter(|step| *step > 0)?;
        all |= (from..=to).step_by(step).fold(0, |all, number| all | 1 << number);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use standfast_model::days_from_civil;

    use super::*;

    type Time = (u64, u64, u64, u64, u64);

    /// Fields, a time, and the times that follow it.
    const TABLE: [(&str, Time, &[Time]); 14] = [
        ("* * * * *", (2026, 2, 28, 23, 58), &[(2026, 2, 28, 23, 59), (2026, 3, 1, 0, 0)]),
        ("0 0 * * *", (2026, 12, 31, 0, 0), &[(2027, 1, 1, 0, 0), (2027, 1, 2, 0, 0)]),
        ("*/20 8-9 * * *", (2026, 5, 5, 8, 39), &[(2026, 5, 5, 8, 40), (2026, 5, 5, 9, 0)]),
        ("30 6 * * mon", (2026, 11, 23, 6, 30), &[(2026, 11, 30, 6, 30), (2026, 12, 7, 6, 30)]),
        ("0 12 * * 7", (2026, 11, 23, 0, 0), &[(2026, 11, 29, 12, 0), (2026, 12, 6, 12, 0)]),
        ("0 12 * * 0", (2026, 11, 23, 0, 0), &[(2026, 11, 29, 12, 0)]),
        ("0 0 31 * *", (2026, 1, 31, 0, 0), &[(2026, 3, 31, 0, 0), (2026, 5, 31, 0, 0), (2026, 7, 31, 0, 0)]),
        ("0 0 29 2 *", (2096, 3, 1, 0, 0), &[(2104, 2, 29, 0, 0)]),
        (
            "59 23 28-31 2 *",
            (2028, 2, 1, 0, 0),
            &[(2028, 2, 28, 23, 59), (2028, 2, 29, 23, 59), (2029, 2, 28, 23, 59)],
        ),
        // Either the 13th or a Friday.
        ("0 0 13 * 5", (2026, 11, 7, 0, 0), &[(2026, 11, 13, 0, 0), (2026, 11, 20, 0, 0)]),
        // A star with a step restricts nothing by itself: both must fit.
        ("0 0 */2 * fri", (2026, 11, 7, 0, 0), &[(2026, 11, 13, 0, 0), (2026, 11, 27, 0, 0)]),
        ("15,45 0 1 jan,Jul *", (2026, 1, 1, 0, 15), &[(2026, 1, 1, 0, 45), (2026, 7, 1, 0, 15)]),
        ("5/25 * * * *", (2026, 1, 1, 0, 0), &[(2026, 1, 1, 0, 5), (2026, 1, 1, 0, 30), (2026, 1, 1, 0, 55)]),
        // The clocks of many places go forward in this night; UTC does not.
        ("30 2 * * *", (2026, 3, 28, 2, 30), &[(2026, 3, 29, 2, 30), (2026, 3, 30, 2, 30)]),
    ];

    fn stamp(year: u64, month: u64, day: u64, hour: u64, minute: u64) -> Stamp {
        let minutes = days_from_civil(year, month, day) * DAY_MINUTES + hour * 60 + minute;
        Stamp::from_micros(minutes * MINUTE_MICROS)
    }

    #[test]
    fn the_next_time_is_the_next_in_the_table() {
        let at = |(year, month, day, hour, minute): Time| stamp(year, month, day, hour, minute);
        for (fields, from, following) in TABLE {
            let cron = Cron::parse(fields).unwrap();
            let mut now = at(from);
            for expected in following {
                // A second before the end of a minute is still in it.
                let seen = Stamp::from_micros(now.as_micros() + 59_000_000);
                assert_eq!(cron.next(seen), Some(at(*expected)), "{fields} after {now}");
                now = at(*expected);
            }
        }
    }

    #[test]
    fn a_time_that_never_comes_is_none() {
        assert_eq!(Cron::parse("0 0 31 2 *").unwrap().next(stamp(2026, 1, 1, 0, 0)), None);
        assert_eq!(Cron::parse("0 0 30 feb *").unwrap().next(stamp(2026, 1, 1, 0, 0)), None);
    }

    #[test]
    fn each_time_fits_its_fields_and_none_between_is_missed() {
        for (fields, ..) in TABLE {
            let cron = Cron::parse(fields).unwrap();
            let mut now = stamp(2026, 1, 1, 0, 0);
            for _ in 0..50 {
                let next = cron.next(now).unwrap();
                assert!(next > now, "{fields}");
                // From any moment in between the next time is the same.
                let middle = Stamp::from_micros(now.as_micros().midpoint(next.as_micros() - 1));
                assert_eq!(cron.next(middle), Some(next), "{fields}");
                now = next;
            }
        }
    }
}
