use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A point in time: microseconds since the Unix epoch, as a `Clock` read it.
///
/// Within one process stamps never go backwards; between processes on one machine they are comparable to within the
/// machine's own clock adjustments. Arithmetic saturates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Stamp(u64);

impl Stamp {
    /// The Unix epoch: earlier than anything that happened.
    pub const EPOCH: Self = Self(0);

    /// A stamp from microseconds since the Unix epoch.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Milliseconds since the Unix epoch, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1_000
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// This stamp moved forward by `by`.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }

    /// This stamp moved back by `by`.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-03-01T09:30:00.125Z`.
impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1_000_000;
        let (year, month, day) = civil_from_days(seconds / 86_400);
        let of_day = seconds % 86_400;
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
            of_day / 3_600,
            of_day / 60 % 60,
            of_day % 60,
            self.0 / 1_000 % 1_000
        )
    }
}

/// A text is no point in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time: write a date as `2026-03-01`, or with the time of day as `2026-03-01T09:30:00Z`")]
pub struct BadStamp(String);

/// RFC 3339 from 1970 on, with any offset; a date alone is its midnight in UTC. What is finer than microseconds is cut off.
impl FromStr for Stamp {
    type Err = BadStamp;

    fn from_str(text: &str) -> Result<Self, BadStamp> {
        instant(text).ok_or_else(|| BadStamp(text.chars().take(40).collect()))
    }
}

fn instant(text: &str) -> Option<Stamp> {
    if !text.is_ascii() {
        return None;
    }
    let (date, time) = match text.split_at_checked(10)? {
        (date, "") => (date, "T00:00:00Z"),
        (date, time) => (date, time),
    };
    let [year, month, day] = numbers(date, "-")?;
    let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 => 28 + u64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year < 1970 || !(1..=days).contains(&day) {
        return None;
    }
    let time = time.strip_prefix(['T', 't', ' '])?;
    let end = time.find(['Z', 'z', '+', '-'])?;
    let (clock, offset) = time.split_at(end);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let [hour, minute, second] = numbers(clock, ":")?;
    // A leap second is the first of the next minute.
    if hour > 23 || minute > 59 || second > 60 || fraction.is_empty() {
        return None;
    }
    let digits = fraction.bytes().all(|byte| byte.is_ascii_digit());
    let micros: u64 = format!("{fraction:0<6}").get(..6).filter(|_| digits)?.parse().ok()?;
    let east: i64 = match offset {
        "Z" | "z" => 0,
        _ => {
            let [hours, minutes] = numbers(&offset[1..], ":")?;
            let minutes = i64::try_from(hours * 60 + minutes).ok().filter(|all| *all < 24 * 60)?;
            if offset.starts_with('-') { -minutes } else { minutes }
        }
    };
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    let seconds = seconds.checked_add_signed(-east * 60)?;
    Some(Stamp::from_micros(seconds * 1_000_000 + micros))
}

/// So many numbers with this between them, as wide as RFC 3339 has them.
fn numbers<const N: usize>(text: &str, between: &str) -> Option<[u64; N]> {
    let mut found = [0; N];
    let mut parts = text.split(between);
    for place in &mut found {
        let part = parts.next().filter(|part| matches!(part.len(), 2 | 4))?;
        *place = part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok())??;
    }
    parts.next().is_none().then_some(found)
}

/// Days since 1970-01-01 to a proleptic Gregorian date, after Howard Hinnant's `civil_from_days`
/// ("chrono-Compatible Low-Level Date Algorithms", 2013), for days at or after the epoch: year, month, day.
pub const fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + (month <= 2) as u64, month, day)
}

/// Days since 1970-01-01, after Howard Hinnant's `days_from_civil` (2013), for dates from then on.
pub const fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let of_era = year % 400;
    let shifted = (month + 9) % 12;
    let of_year = (153 * shifted + 2) / 5 + day - 1;
    let day_of_era = of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    (year / 400) * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_prints_as_rfc_3339() {
        assert_eq!(Stamp::EPOCH.to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Stamp::from_micros(951_782_400_125_999).to_string(), "2000-02-29T00:00:00.125Z");
        assert_eq!(Stamp::from_micros(1_772_357_399_000_000).to_string(), "2026-03-01T09:29:59.000Z");
    }
    #[test]
    fn a_stamp_is_read_from_rfc_3339() {
        let of = |text: &str| text.parse::<Stamp>().map(|stamp| stamp.to_string()).ok();
        for (text, expected) in [
            ("2000-02-29", "2000-02-29T00:00:00.000Z"),
            ("2026-03-01T09:29:59Z", "2026-03-01T09:29:59.000Z"),
            ("2026-03-01T09:29:59.1259999+02:30", "2026-03-01T06:59:59.125Z"),
            ("2026-03-01t23:00:00-02:00", "2026-03-02T01:00:00.000Z"),
            ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(of(text).as_deref(), Some(expected), "{text}");
        }
        for bad in [
            "",
            "2026",
            "2026-02-29",
            "2026-13-01",
            "1969-12-31",
            "2026-03-01T09:30",
            "2026-03-01T09:30:00",
            "2026-03-01T24:00:00Z",
            "2026-03-01T09:30:00.Z",
            "2026-03-01T09:30:00.1x2Z",
            "2026-03-01T09:30:00+2500",
            "1970-01-01T00:00:00+01:00",
            "2026-03-01T09:30:00é",
            "20é6-03-01",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
