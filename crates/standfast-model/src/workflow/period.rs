//! Lengths of time: ISO 8601 texts, mappings of units, or expressions that yield one of both.

use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

use super::value::{AnyTemplate, Expression, Template};
use crate::shape::{Context, Fields, Kinds, Object, Shape};
use crate::units;
use crate::yaml::{Kind, Node};

/// Longest length: a hundred years of 366 days.
const SECONDS_MAX: u64 = 100 * 366 * 86_400;
/// As many months.
const MONTHS_MAX: u64 = 1_200;

/// A length of time. Months have no fixed length: they are added by the calendar, in UTC, before the rest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Period {
    /// Whole months; a year has twelve.
    pub months: u32,
    /// What else.
    pub rest: Duration,
}

/// As people read it: `1m30s`, months first.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.months, self.rest.is_zero()) {
            (0, _) => f.write_str(&units::show_duration(self.rest)),
            (months, true) => write!(f, "{months} months"),
            (months, false) => write!(f, "{months} months {}", units::show_duration(self.rest)),
        }
    }
}

/// A length of time, or what yields it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delay {
    /// Known.
    Fixed(Period),
    /// Computed: an ISO 8601 text, or an object of units.
    Computed(Expression),
}

impl Period {
    /// Reads an ISO 8601 duration: `P1DT2H`, `PT0.5S`. A fraction may stand at every unit but years and months.
    ///
    /// # Errors
    /// What is wrong, as a hint.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "write an ISO 8601 duration: `PT30S`, `PT1H30M`, `P1D`";
        let form = || FORM.to_owned();
        let body = text.strip_prefix('P').ok_or_else(form)?;
        let (date, time) = match body.split_once('T') {
            Some((_, "")) => return Err(form()),
            Some((date, time)) => (date, time),
            None => (body, ""),
        };
        if body.is_empty() {
            return Err(form());
        }
        let mut period = Self::default();
        let mut seconds = 0.0;
        for (part, units) in [(date, ["Y", "M", "W", "D"].as_slice()), (time, &["H", "M", "S"])] {
            let is_date = units.len() == 4;
            let (mut rest, mut next) = (part, 0);
            while !rest.is_empty() {
                let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(form)?;
                let (number, from) = rest.split_at(end);
                let (unit, after) = from.split_at_checked(1).ok_or_else(form)?;
                let place = units[next..].iter().position(|known| *known == unit).ok_or_else(form)?;
                let is_number = number.starts_with(|c: char| c.is_ascii_digit())
                    && number.ends_with(|c: char| c.is_ascii_digit());
                let value: f64 = number.parse().ok().filter(|_| is_number).ok_or_else(form)?;
                match (is_date, unit) {
                    (true, "Y" | "M") if number.contains('.') => {
                        return Err("years and months have no fixed length: write days, hours or less for parts of them".into());
                    }
                    (true, "Y") => {
                        period.months = whole_months(number, 12, period.months).ok_or_else(too_long)?
                    }
                    (true, "M") => {
                        period.months = whole_months(number, 1, period.months).ok_or_else(too_long)?
                    }
                    (true, "W") => seconds += value * 7.0 * 86_400.0,
                    (true, _) => seconds += value * 86_400.0,
                    (false, "H") => seconds += value * 3_600.0,
                    (false, "M") => seconds += value * 60.0,
                    (false, _) => seconds += value,
                }
                (rest, next) = (after, next + place + 1);
            }
        }
        if seconds > SECONDS_MAX as f64 {
            return Err(too_long());
        }
        // Microseconds are the grain of the clock; anything finer is an error of the floating point.
        period.rest = Duration::from_micros((seconds * 1e6).round() as u64);
        Ok(period)
    }
}

fn whole_months(number: &str, months: u64, so_far: u32) -> Option<u32> {
    let total = number.parse::<u64>().ok()?.checked_mul(months)?.checked_add(u64::from(so_far))?;
    u32::try_from(total).ok().filter(|_| total <= MONTHS_MAX)
}

fn too_long() -> String {
    "at most 100 years".to_owned()
}

/// A length of time, or what yields it.
pub(crate) fn delay() -> impl Shape<Value = Delay> {
    Kinds::new("a duration: `PT30S`, or a mapping like `seconds: 30`").text(DelayText).mapping(UNITS)
}

/// A length of time that is known.
pub(crate) fn period() -> impl Shape<Value = Period> {
    delay().and_then(|delay, span, cx| match delay {
        Delay::Fixed(period) => Some(period),
        Delay::Computed(_) => {
            let message =
                format!("{} cannot be computed: it is needed before there is any data", cx.subject());
            cx.reports.error(span, message);
            None
        }
    })
}

#[derive(Clone, Copy)]
struct DelayText;

impl Shape for DelayText {
    type Value = Delay;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Delay> {
        const EXPECTED: &str = "a duration: `PT30S`, or a mapping like `seconds: 30`";
        let (text, kind) = cx.scalar(node)??;
        if kind != Kind::Text {
            cx.mismatch(node, EXPECTED, Some("add a unit: `PT30S` is 30 seconds".to_owned()));
            return None;
        }
        if text.trim_start().starts_with("${") {
            return match AnyTemplate.decode(node, cx)? {
                Template::Expression(expression) => Some(Delay::Computed(expression)),
                _ => {
                    cx.mismatch(node, EXPECTED, None);
                    None
                }
            };
        }
        match Period::parse(&text) {
            Ok(period) => Some(Delay::Fixed(period)),
            Err(hint) => {
                cx.mismatch(node, EXPECTED, Some(hint));
                None
            }
        }
    }

    fn schema(&self) -> Value {
        json!({"type": "string"})
    }
}

const UNITS: Object<Delay> = Object {
    doc: "A length of time by units.",
    read: |f: &mut Fields<'_, '_>| {
        const NAMES: [(&str, u64); 5] = [
            ("days", 86_400_000),
            ("hours", 3_600_000),
            ("minutes", 60_000),
            ("seconds", 1_000),
            ("milliseconds", 1),
        ];
        f.count(crate::shape::Count::Some, &["days", "hours", "minutes", "seconds", "milliseconds"]);
        let mut millis = 0_u64;
        let mut is_whole = true;
        for (name, factor) in NAMES {
            let is_there = f.place_of(name).is_some();
            match f.optional(name, "How many.", UnitCount) {
                Some(count) => millis = millis.saturating_add(count.saturating_mul(factor)),
                None => is_whole &= !is_there,
            }
        }
        if millis > SECONDS_MAX * 1_000 {
            if let Some((place, cx)) = f.reading() {
                cx.reports.error(place, "a duration is at most 100 years");
            }
            return None;
        }
        is_whole.then(|| Delay::Fixed(Period { months: 0, rest: Duration::from_millis(millis) }))
    },
};

#[derive(Clone, Copy)]
struct UnitCount;

impl Shape for UnitCount {
    type Value = u64;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<u64> {
        let count = match cx.scalar(node) {
            Some(scalar) => scalar.and_then(|(text, kind)| match kind {
                Kind::Integer => text.parse().ok(),
                _ => None,
            }),
            None => None,
        };
        if count.is_none() {
            cx.mismatch(node, "a whole number, 0 or more", None);
        }
        count
    }

    fn schema(&self) -> Value {
        json!({"type": "integer", "minimum": 0})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_iso_8601_has_them() {
        let of = |months: u32, millis: u64| Ok(Period { months, rest: Duration::from_millis(millis) });
        for (text, period) in [
            ("PT30S", of(0, 30_000)),
            ("PT0.25S", of(0, 250)),
            ("PT1H30M", of(0, 5_400_000)),
            ("P1D", of(0, 86_400_000)),
            ("P1W2DT3H", of(0, (9 * 24 + 3) * 3_600_000)),
            ("P1Y2M", of(14, 0)),
            ("P1MT1M", of(1, 60_000)),
            ("PT0S", of(0, 0)),
            ("P0.5D", of(0, 43_200_000)),
        ] {
            assert_eq!(Period::parse(text), period, "{text}");
        }
        for text in [
            "",
            "P",
            "PT",
            "30S",
            "PT30",
            "P1S",
            "PT1S1M",
            "PT1.S",
            "PT.5S",
            "P1.5Y",
            "PT1H1H",
            "P1DT",
            "pt1s",
            "PT-1S",
            "P200Y",
            "PT9999999999999999S",
            "P1M1Y",
            "PT1é",
        ] {
            assert!(Period::parse(text).is_err(), "{text}");
        }
    }
}
