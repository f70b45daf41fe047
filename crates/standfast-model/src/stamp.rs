use std::fmt;
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

impl std::str::FromStr for Stamp {
    type Err = BadStamp;

    /// Reads what [`Stamp`] prints.
    fn from_str(text: &str) -> Result<Self, BadStamp> {
        let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
        let read = || {
            let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
            let (hours, minutes, seconds) = (number(11..13)?, number(14..16)?, number(17..19)?);
            let is_date = year >= 1970 && (1..=12).contains(&month) && (1..=31).contains(&day);
            let of_day = ((hours * 60 + minutes) * 60 + seconds) * 1_000 + number(20..23)?;
            let millis = is_date.then(|| days_from_civil(year, month, day) * 86_400_000 + of_day)?;
            let stamp = Self::from_micros(millis * 1_000);
            (stamp.to_string() == text).then_some(stamp)
        };
        read().ok_or(BadStamp)
    }
}

/// A text that is no stamp as [`Stamp`] prints it: `2026-03-01T09:29:59.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no time like 2026-03-01T09:29:59.000Z")]
pub struct BadStamp;

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
    fn what_is_printed_is_read() {
        let stamp = Stamp::from_micros(1_772_357_399_123_000);
        assert_eq!(stamp.to_string().parse(), Ok(stamp));
        for wrong in [
            "",
            "2026-03-01",
            "2026-02-31T00:00:00.000Z",
            "2026-03-01T09:29:59.000+",
            "é026-03-01T09:29:59.000Z",
        ] {
            assert_eq!(wrong.parse::<Stamp>(), Err(BadStamp), "{wrong}");
        }
    }
}
