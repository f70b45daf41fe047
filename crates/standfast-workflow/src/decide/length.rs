//! Lengths of time, computed ones too.

use std::sync::Arc;

use serde_json::Value;
use standfast_model::Stamp;
use standfast_model::workflow::Period;

use super::Deciding;
use super::sight::{Seeing, Sight, kind_of};
use crate::program::{Length, WAIT_MAX, after};
use crate::run::{Problem, Standard};

/// The units of an object that is a length of time, in milliseconds.
const UNITS: [(&str, f64); 5] = [
    ("days", 86_400_000.0),
    ("hours", 3_600_000.0),
    ("minutes", 60_000.0),
    ("seconds", 1_000.0),
    ("milliseconds", 1.0),
];

impl Seeing<'_> {
    /// How long something is.
    pub(crate) fn period(
        &self,
        length: Length,
        dot: &Arc<Value>,
        sight: &Sight<'_>,
    ) -> Result<Period, Problem> {
        match length {
            Length::Fixed(period) => Ok(period),
            Length::Filter(id) => read(&self.value(id, dot, sight)?),
        }
    }
}

impl Deciding<'_> {
    /// How long something is.
    pub(crate) fn period(
        &self,
        length: Length,
        dot: &Arc<Value>,
        sight: &Sight<'_>,
    ) -> Result<Period, Problem> {
        self.seeing().period(length, dot, sight)
    }

    /// When something that begins now is given up.
    pub(crate) fn deadline(
        &self,
        timeout: Option<Length>,
        sight: &Sight<'_>,
    ) -> Result<Option<Stamp>, Problem> {
        let Some(length) = timeout else { return Ok(None) };
        let dot = sight.input.clone().unwrap_or_default();
        Ok(Some(after(self.now, self.period(length, &dot, sight)?)))
    }
}

fn read(value: &Value) -> Result<Period, Problem> {
    let wrong = |what: String| Standard::Expression.problem(format!("a duration is needed: {what}"));
    match value {
        Value::String(text) => Period::parse(text).map_err(|hint| wrong(format!("`{text}` is none, {hint}"))),
        Value::Object(fields) => {
            let mut millis = 0.0;
            for (name, value) in fields {
                let unit = UNITS.iter().find(|(unit, _)| unit == name);
                let (Some((_, factor)), Some(count)) = (unit, value.as_f64().filter(|count| *count >= 0.0))
                else {
                    return Err(wrong(format!("`{name}: {value}` is no part of one")));
                };
                millis += count * factor;
            }
            let rest = std::time::Duration::try_from_secs_f64(millis / 1_000.0).unwrap_or(WAIT_MAX);
            Ok(Period { months: 0, rest: rest.min(WAIT_MAX) })
        }
        other => Err(wrong(format!("an expression yields {}", kind_of(other)))),
    }
}
