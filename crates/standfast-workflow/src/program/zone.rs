//! Times of cron by the clocks of a time zone, also in the nights in which these are set.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase};
use standfast_model::workflow::TimeZoneName;
use standfast_model::{Stamp, civil_from_days};

use super::Cron;

const SECOND_MICROS: u64 = 1_000_000;
const DAY_MINUTES: u64 = 24 * 60;
/// Times at which clocks are set, of the years for which a time is looked for. No zone has more than four in a year.
const CHANGES_MAX: usize = 64;

/// A time zone. Its rules come with the program.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Zone(TimeZone);

impl Zone {
    /// The zone of a name that was checked with the document; `None` for any other.
    pub(crate) fn named(name: &TimeZoneName) -> Option<Self> {
        TimeZoneDatabase::bundled().get(name.as_str()).ok().map(Self)
    }

    /// The first time after `after`. A time that the clocks leave out counts when they have been set forward, one that they show
    /// twice counts the first time; but when every hour counts, time goes on as if nobody set them.
    pub(crate) fn next(&self, cron: &Cron, after: Stamp) -> Option<Stamp> {
        if cron.is_hourly() { self.next_by_time(cron, after) } else { self.next_by_clock(cron, after) }
    }

    /// A time as this zone's clocks show it: `2026-03-29T03:00:00+02:00[Europe/Berlin]`.
    pub(crate) fn shown(&self, at: Stamp) -> Option<String> {
        let whole = Timestamp::from_second(seconds(at)).ok()?;
        Some(whole.to_zoned(self.0.clone()).to_string())
    }

    fn next_by_clock(&self, cron: &Cron, after: Stamp) -> Option<Stamp> {
        let mut minute = u64::try_from(self.local(seconds(after))? / 60).unwrap_or(0);
        loop {
            minute = cron.next_minute(minute)?;
            // In the second pass of an hour the minutes of the first one are found again.
            if let Some(at) = stamp(self.when(minute)?).filter(|at| *at > after) {
                return Some(at);
            }
        }
    }

    fn next_by_time(&self, cron: &Cron, after: Stamp) -> Option<Stamp> {
        let mut from = seconds(after) + 1;
        for _ in 0..CHANGES_MAX {
            let offset = self.local(from)? - from;
            let changes = Timestamp::from_second(from).ok()?;
            let changes = self.0.following(changes).next().map(|change| change.timestamp().as_second());
            // The last minute that began before `from`.
            let minute = (from + offset + 59).div_euclid(60) - 1;
            let at = i64::try_from(cron.next_minute(u64::try_from(minute).unwrap_or(0))? * 60).ok()? - offset;
            match changes.filter(|changes| *changes <= at) {
                Some(changes) => from = changes,
                None => return stamp(at),
            }
        }
        None
    }

    /// What the clocks show, in seconds since they would have shown the beginning of 1970.
    fn local(&self, at: i64) -> Option<i64> {
        let offset = self.0.to_offset(Timestamp::from_second(at).ok()?);
        Some(at + i64::from(offset.seconds()))
    }

    /// When the clocks show this minute for the first time, or when it is over without their having shown it.
    fn when(&self, minute: u64) -> Option<i64> {
        let (year, month, day) = civil_from_days(minute / DAY_MINUTES);
        let of_day = minute % DAY_MINUTES;
        let small = |number: u64| i8::try_from(number).ok();
        let shown = DateTime::new(
            i16::try_from(year).ok()?,
            small(month)?,
            small(day)?,
            small(of_day / 60)?,
            small(of_day % 60)?,
            0,
            0,
        );
        let local = i64::try_from(minute * 60).ok()?;
        Some(match self.0.to_ambiguous_timestamp(shown.ok()?).offset() {
            AmbiguousOffset::Unambiguous { offset } => local - i64::from(offset.seconds()),
            AmbiguousOffset::Fold { before, .. } => local - i64::from(before.seconds()),
            AmbiguousOffset::Gap { after, .. } => {
                let before_it = Timestamp::from_second(local - i64::from(after.seconds())).ok()?;
                let mut changes = self.0.following(before_it);
                changes.find(|change| change.offset() == after)?.timestamp().as_second()
            }
        })
    }
}

fn seconds(at: Stamp) -> i64 {
    i64::try_from(at.as_micros() / SECOND_MICROS).unwrap_or(i64::MAX)
}

fn stamp(seconds: i64) -> Option<Stamp> {
    Some(Stamp::from_micros(u64::try_from(seconds).ok()?.checked_mul(SECOND_MICROS)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Stamp {
        text.parse().unwrap()
    }

    fn zone(name: &str) -> Zone {
        Zone(TimeZoneDatabase::bundled().get(name).unwrap())
    }

    /// Fields, a zone, a time, and the times that follow it, in UTC.
    const TABLE: [(&str, &str, &str, &[&str]); 14] = [
        (
            "0 6 * * *",
            "Europe/Berlin",
            "2026-01-01T00:00:00Z",
            &["2026-01-01T05:00:00Z", "2026-01-02T05:00:00Z"],
        ),
        // Forward at 02:00 on 29 March, which is 01:00 in UTC: there is no 02:30, so it is due at 03:00, once.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-03-27T12:00:00Z",
            &["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
        ),
        (
            "*/20 2 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            &["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"],
        ),
        // A time that is due at 03:00 anyway is due then, once.
        (
            "30 2,3 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            &["2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"],
        ),
        (
            "0 2,3 * * *",
            "Europe/Berlin",
            "2026-03-28T12:00:00Z",
            &["2026-03-29T01:00:00Z", "2026-03-30T00:00:00Z"],
        ),
        // Back at 03:00 on 25 October, which is 01:00 in UTC: the first 02:30 counts, the second does not.
        (
            "30 2 * * *",
            "Europe/Berlin",
            "2026-10-24T12:00:00Z",
            &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
        ),
        // Asked between the two.
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T01:10:00Z", &["2026-10-26T01:30:00Z"]),
        (
            "*/30 1-3 * * *",
            "Europe/Berlin",
            "2026-10-25T00:00:00Z",
            &["2026-10-25T00:30:00Z", "2026-10-25T02:00:00Z"],
        ),
        // Every hour: nothing is left out and nothing waits.
        (
            "0 * * * *",
            "Europe/Berlin",
            "2026-10-24T23:30:00Z",
            &["2026-10-25T00:00:00Z", "2026-10-25T01:00:00Z", "2026-10-25T02:00:00Z"],
        ),
        (
            "30 * * * *",
            "Europe/Berlin",
            "2026-03-29T00:00:00Z",
            &["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"],
        ),
        // Midnight itself is left out on 6 September 2026.
        (
            "0 0 * * *",
            "America/Santiago",
            "2026-09-05T12:00:00Z",
            &["2026-09-06T04:00:00Z", "2026-09-07T03:00:00Z"],
        ),
        // Clocks are set by half an hour.
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-02T20:00:00Z",
            &["2026-10-03T15:30:00Z", "2026-10-04T15:15:00Z"],
        ),
        // A day that was left out altogether.
        (
            "0 12 * * *",
            "Pacific/Apia",
            "2011-12-29T22:30:00Z",
            &["2011-12-30T10:00:00Z", "2011-12-30T22:00:00Z"],
        ),
        (
            "0 9 * * mon",
            "America/New_York",
            "2026-03-07T00:00:00Z",
            &["2026-03-09T13:00:00Z", "2026-03-16T13:00:00Z"],
        ),
    ];

    #[test]
    fn times_are_those_of_the_zones_clocks() {
        for (fields, name, from, following) in TABLE {
            let (cron, zone) = (Cron::parse(fields).unwrap(), zone(name));
            let mut now = at(from);
            for expected in following {
                assert_eq!(zone.next(&cron, now), Some(at(expected)), "{fields} in {name} after {now}");
                now = at(expected);
            }
        }
    }

    #[test]
    fn from_any_moment_in_between_the_next_time_is_the_same() {
        for (fields, name, from, _) in TABLE {
            let (cron, zone) = (Cron::parse(fields).unwrap(), zone(name));
            let mut now = at(from);
            for _ in 0..500 {
                let next = zone.next(&cron, now).unwrap();
                assert!(next > now, "{fields} in {name}");
                for share in 1..8 {
                    let between = now.as_micros() + (next.as_micros() - now.as_micros()) / 8 * share;
                    assert_eq!(
                        zone.next(&cron, Stamp::from_micros(between)),
                        Some(next),
                        "{fields} in {name}"
                    );
                }
                now = next;
            }
        }
    }

    #[test]
    fn utc_as_a_zone_is_what_it_is_without_one() {
        for (fields, ..) in TABLE {
            let (cron, zone) = (Cron::parse(fields).unwrap(), zone("UTC"));
            let (mut with, mut without) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:00Z"));
            for _ in 0..100 {
                (with, without) = (zone.next(&cron, with).unwrap(), cron.next(without).unwrap());
                assert_eq!(with, without, "{fields}");
            }
        }
    }

    #[test]
    fn what_never_comes_and_what_is_at_the_beginning_of_time_do_no_harm() {
        for name in ["America/New_York", "Europe/Berlin"] {
            assert_eq!(
                zone(name).next(&Cron::parse("0 0 31 2 *").unwrap(), at("2026-01-01T00:00:00Z")),
                None
            );
            assert_eq!(
                zone(name).next(&Cron::parse("* * 31 2 *").unwrap(), at("2026-01-01T00:00:00Z")),
                None
            );
            for fields in ["* * * * *", "0 0 * * *"] {
                let next = zone(name).next(&Cron::parse(fields).unwrap(), Stamp::EPOCH).unwrap();
                assert!(next > Stamp::EPOCH && next < at("1970-01-03T00:00:00Z"), "{next}");
            }
        }
        let shown = zone("Europe/Berlin").shown(at("2026-03-29T01:00:00Z")).unwrap();
        assert_eq!(shown, "2026-03-29T03:00:00+02:00[Europe/Berlin]");
    }
}
