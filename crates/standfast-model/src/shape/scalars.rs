use std::marker::PhantomData;
use std::str::FromStr;
use std::time::Duration;

use serde_json::{Value, json};

use super::fields::alternatives;
use super::{Context, Referent, Shape};
use crate::id::BadName;
use crate::units;
use crate::yaml::{Kind, Node};

/// A shape that is read from one scalar's text.
pub(crate) trait FromText {
    /// What the text is once read.
    type Value;

    /// Reads the text; the error is a hint, if there is more to say than what was expected.
    fn parse(&self, text: &str) -> Result<Self::Value, Option<String>>;

    /// What messages say was expected: "a whole number from 1 to 9".
    fn expected(&self) -> String;

    /// The shape as JSON Schema.
    fn json_schema(&self) -> Value;

    /// Whether a scalar of this kind may be read.
    fn accepts(&self, kind: Kind) -> bool {
        kind == Kind::Text
    }

    /// See [`Shape::show`].
    fn shown(&self, _value: &Self::Value) -> Value {
        Value::Null
    }
}

impl<S: FromText> Shape for S {
    type Value = S::Value;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<S::Value> {
        let Some(scalar) = cx.scalar(node) else {
            cx.mismatch(node, &self.expected(), None);
            return None;
        };
        let (text, kind) = scalar?;
        if text.contains('\0') {
            let place = cx.place(node);
            let message = format!("{} holds a NUL character", cx.subject());
            cx.reports.error(place, message);
            return None;
        }
        if !self.accepts(kind) {
            let quote = kind != Kind::Null && self.accepts(Kind::Text) && self.parse(&text).is_ok();
            cx.mismatch(node, &self.expected(), quote.then(|| "put it in quotes".to_owned()));
            return None;
        }
        match self.parse(&text) {
            Ok(value) => Some(value),
            Err(hint) => {
                cx.mismatch(node, &self.expected(), hint);
                None
            }
        }
    }

    fn schema(&self) -> Value {
        self.json_schema()
    }

    fn show(&self, value: &S::Value) -> Value {
        self.shown(value)
    }
}

/// A pattern that lets texts with variables through: what they become is not known to an editor.
pub(crate) fn or_variable(pattern: &str) -> String {
    format!(r"(?:{pattern})|\$")
}

/// A text that is not empty.
#[derive(Clone, Copy)]
pub(crate) struct Text {
    /// What it is, for messages: "a path".
    pub(crate) what: &'static str,
    /// Longest, in bytes.
    pub(crate) bytes_max: usize,
}

impl FromText for Text {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, Option<String>> {
        if text.len() > self.bytes_max {
            return Err(Some(format!("at most {} bytes", self.bytes_max)));
        }
        if text.is_empty() { Err(None) } else { Ok(text.to_owned()) }
    }

    fn expected(&self) -> String {
        self.what.to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"type": "string", "minLength": 1})
    }
}

/// Any scalar but null, as it is written.
#[derive(Clone, Copy)]
pub(crate) struct Loose {
    /// What it is, for messages.
    pub(crate) what: &'static str,
}

impl FromText for Loose {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, Option<String>> {
        Ok(text.to_owned())
    }

    fn expected(&self) -> String {
        self.what.to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"type": ["string", "number", "boolean"]})
    }

    fn accepts(&self, kind: Kind) -> bool {
        kind != Kind::Null
    }
}

/// A text that a pattern describes.
#[derive(Clone, Copy)]
pub(crate) struct Pattern {
    /// What it is, for messages.
    pub(crate) what: &'static str,
    /// The description for the JSON Schema.
    pub(crate) pattern: &'static str,
    /// The same for the decoder.
    pub(crate) matches: fn(&str) -> bool,
}

impl FromText for Pattern {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, Option<String>> {
        if (self.matches)(text) { Ok(text.to_owned()) } else { Err(None) }
    }

    fn expected(&self) -> String {
        self.what.to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"type": "string", "pattern": or_variable(self.pattern)})
    }
}

/// The pattern of names: an RFC 1123 label.
pub(crate) const NAME_PATTERN: &str = "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$";

/// A name.
pub(crate) struct Name<T> {
    what: &'static str,
    name: PhantomData<T>,
}

impl<T> Name<T> {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, name: PhantomData }
    }
}

impl<T: FromStr<Err = BadName>> FromText for Name<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Result<T, Option<String>> {
        text.parse().map_err(|_| Some(NAME_HINT.to_owned()))
    }

    fn expected(&self) -> String {
        self.what.to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"type": "string", "pattern": or_variable(NAME_PATTERN)})
    }
}

/// What names are made of.
pub(crate) const NAME_HINT: &str =
    "use 1 to 63 of a–z, 0–9 and `-`, beginning and ending with a letter or digit";

/// A name that must resolve once all is decoded.
pub(crate) struct Refers<T> {
    name: Name<T>,
    to: Referent,
}

impl<T> Refers<T> {
    pub(crate) const fn new(what: &'static str, to: Referent) -> Self {
        Self { name: Name::new(what), to }
    }
}

impl<T: FromStr<Err = BadName> + ToString> Shape for Refers<T> {
    type Value = T;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<T> {
        let value = self.name.decode(node, cx)?;
        cx.refer(self.to, &value, node.span);
        Some(value)
    }

    fn schema(&self) -> Value {
        self.name.schema()
    }
}

/// A whole number, which may stand in quotes as in Compose.
#[derive(Clone, Copy)]
pub(crate) struct Whole {
    pub(crate) min: u32,
    pub(crate) max: u32,
}

impl FromText for Whole {
    type Value = u32;

    fn parse(&self, text: &str) -> Result<u32, Option<String>> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let value = if digits { text.parse().ok() } else { None };
        value.filter(|value| (self.min..=self.max).contains(value)).ok_or(None)
    }

    fn expected(&self) -> String {
        format!("a whole number from {} to {}", self.min, self.max)
    }

    fn json_schema(&self) -> Value {
        json!({"anyOf": [
            {"type": "integer", "minimum": self.min, "maximum": self.max},
            {"type": "string", "pattern": or_variable("^[0-9]+$")},
        ]})
    }

    fn accepts(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Integer | Kind::Text)
    }

    fn shown(&self, value: &u32) -> Value {
        (*value).into()
    }
}

/// `true` or `false`.
#[derive(Clone, Copy)]
pub(crate) struct Flag;

impl FromText for Flag {
    type Value = bool;

    fn parse(&self, text: &str) -> Result<bool, Option<String>> {
        text.to_ascii_lowercase().parse().map_err(|_| None)
    }

    fn expected(&self) -> String {
        "`true` or `false`".to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"anyOf": [
            {"type": "boolean"},
            {"type": "string", "pattern": or_variable("^([tT]rue|TRUE|[fF]alse|FALSE)$")},
        ]})
    }

    fn accepts(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Bool | Kind::Text)
    }

    fn shown(&self, value: &bool) -> Value {
        (*value).into()
    }
}

/// One of a few words.
pub(crate) struct Choice<T: 'static>(pub(crate) &'static [(&'static str, T)]);

impl<T> Choice<T> {
    /// The same, where messages shall also say what may be written instead of a word: "a mapping with `hash`".
    pub(crate) const fn or(self, other: &'static str) -> ChoiceOr<T> {
        ChoiceOr { words: self, other }
    }
}

/// See [`Choice::or`].
pub(crate) struct ChoiceOr<T: 'static> {
    words: Choice<T>,
    other: &'static str,
}

impl<T: Clone + PartialEq> FromText for ChoiceOr<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Result<T, Option<String>> {
        self.words.parse(text)
    }

    fn expected(&self) -> String {
        format!("{}, or {}", self.words.expected(), self.other)
    }

    fn json_schema(&self) -> Value {
        self.words.json_schema()
    }
}

impl<T: Clone + PartialEq> FromText for Choice<T> {
    type Value = T;

    fn parse(&self, text: &str) -> Result<T, Option<String>> {
        let found = self.0.iter().find(|(word, _)| *word == text);
        let words = self.0.iter().map(|(word, _)| *word);
        let near = || crate::suggest::nearest(text, words).map(|near| format!("did you mean `{near}`?"));
        found.map(|(_, value)| value.clone()).ok_or_else(near)
    }

    fn expected(&self) -> String {
        alternatives(&self.0.iter().map(|(word, _)| *word).collect::<Vec<_>>())
    }

    fn json_schema(&self) -> Value {
        let words: Vec<&str> = self.0.iter().map(|(word, _)| *word).collect();
        json!({"anyOf": [{"enum": words}, {"type": "string", "pattern": r"\$"}]})
    }

    fn shown(&self, value: &T) -> Value {
        self.0.iter().find(|(_, held)| held == value).map_or(Value::Null, |(word, _)| (*word).into())
    }
}

/// A duration: `1m30s`, `500ms`.
#[derive(Clone, Copy)]
pub(crate) struct Time {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
}

impl FromText for Time {
    type Value = Duration;

    fn parse(&self, text: &str) -> Result<Duration, Option<String>> {
        let number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let value = units::duration(text).ok_or_else(|| {
            Some(if number {
                format!("add a unit: `{}s`", text.chars().take(20).collect::<String>())
            } else {
                units::DURATION_HINT.to_owned()
            })
        })?;
        if (self.min..=self.max).contains(&value) { Ok(value) } else { Err(None) }
    }

    fn expected(&self) -> String {
        let (min, max) = (units::show_duration(self.min), units::show_duration(self.max));
        format!("a duration from {min} to {max}")
    }

    fn json_schema(&self) -> Value {
        json!({"type": "string", "pattern": or_variable(units::DURATION_PATTERN)})
    }

    fn accepts(&self, kind: Kind) -> bool {
        // A number is never a duration, but its error shall say that the unit is missing.
        matches!(kind, Kind::Text | Kind::Integer | Kind::Float)
    }

    fn shown(&self, value: &Duration) -> Value {
        units::show_duration(*value).into()
    }
}

/// An amount of bytes: `256M`, `1gb`, or their number.
#[derive(Clone, Copy)]
pub(crate) struct Bytes {
    /// What they are bytes of, for messages: "memory".
    pub(crate) of: &'static str,
    pub(crate) min: u64,
    pub(crate) max: u64,
}

impl FromText for Bytes {
    type Value = u64;

    fn parse(&self, text: &str) -> Result<u64, Option<String>> {
        let value = units::bytes(text)
            .ok_or_else(|| Some("write a number with the unit b, k, m or g: `256M`, `1gb`".to_owned()))?;
        if (self.min..=self.max).contains(&value) { Ok(value) } else { Err(None) }
    }

    fn expected(&self) -> String {
        let (min, max) = (units::show_bytes(self.min), units::show_bytes(self.max));
        format!("an amount of {} from {min} to {max}", self.of)
    }

    fn json_schema(&self) -> Value {
        json!({"anyOf": [
            {"type": "number", "minimum": self.min, "maximum": self.max},
            {"type": "string", "pattern": or_variable(units::BYTES_PATTERN)},
        ]})
    }

    fn accepts(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Integer | Kind::Float | Kind::Text)
    }

    fn shown(&self, value: &u64) -> Value {
        let text = units::show_bytes(*value).replace(' ', "");
        if units::bytes(&text) == Some(*value) { text.into() } else { (*value).into() }
    }
}

/// A number of processor cores; its value is in thousandths.
#[derive(Clone, Copy)]
pub(crate) struct Cores {
    pub(crate) max: u32,
}

impl FromText for Cores {
    type Value = u32;

    fn parse(&self, text: &str) -> Result<u32, Option<String>> {
        let millis = units::millis_of_cores(text).and_then(|millis| u32::try_from(millis).ok());
        millis.filter(|millis| (1..=self.max * 1_000).contains(millis)).ok_or(None)
    }

    fn expected(&self) -> String {
        format!("a number of cores from 0.001 to {}", self.max)
    }

    fn json_schema(&self) -> Value {
        json!({"anyOf": [
            {"type": "number", "minimum": 0, "maximum": self.max},
            {"type": "string", "pattern": or_variable(units::CORES_PATTERN)},
        ]})
    }

    fn accepts(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Integer | Kind::Float | Kind::Text)
    }
}

/// A rate: `250/s`, `15000/m`, or a number a second.
#[derive(Clone, Copy)]
pub(crate) struct Rate {
    pub(crate) per_second_max: f64,
}

impl FromText for Rate {
    type Value = f64;

    fn parse(&self, text: &str) -> Result<f64, Option<String>> {
        let value =
            units::rate(text).ok_or_else(|| Some("write `250/s`, `15000/m` or a number".to_owned()))?;
        if value > 0.0 && value <= self.per_second_max { Ok(value) } else { Err(None) }
    }

    fn expected(&self) -> String {
        format!("a rate above 0 and up to {}/s", self.per_second_max)
    }

    fn json_schema(&self) -> Value {
        json!({"anyOf": [
            {"type": "number", "exclusiveMinimum": 0, "maximum": self.per_second_max},
            {"type": "string", "pattern": or_variable(units::RATE_PATTERN)},
        ]})
    }

    fn accepts(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Integer | Kind::Float | Kind::Text)
    }
}

/// A share: `10`, `0.5`, `10%`.
#[derive(Clone, Copy)]
pub(crate) struct Percent;

impl FromText for Percent {
    type Value = f64;

    fn parse(&self, text: &str) -> Result<f64, Option<String>> {
        units::percent(text).filter(|share| *share <= 100.0).ok_or(None)
    }

    fn expected(&self) -> String {
        "a share from 0 to 100 percent".to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"anyOf": [
            {"type": "number", "minimum": 0, "maximum": 100},
            {"type": "string", "pattern": or_variable(units::PERCENT_PATTERN)},
        ]})
    }

    fn accepts(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Integer | Kind::Float | Kind::Text)
    }

    fn shown(&self, value: &f64) -> Value {
        (*value).into()
    }
}
