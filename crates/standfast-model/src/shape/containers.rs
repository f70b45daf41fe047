use std::marker::PhantomData;
use std::str::FromStr;

use serde_json::{Map, Value, json};

use super::scalars::{NAME_HINT, NAME_PATTERN};
use super::{Context, Shape};
use crate::diagnostics::shown;
use crate::id::BadName;
use crate::source::{At, Span};
use crate::suggest;
use crate::yaml::{self, Node};

/// A list. Items that are wrong are reported and left out.
pub(crate) struct List<S> {
    pub(crate) item: S,
    /// Fewest items.
    pub(crate) min: usize,
}

impl<S: Shape> Shape for List<S> {
    type Value = Vec<S::Value>;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Vec<S::Value>> {
        let yaml::Value::List(items) = &node.value else {
            cx.mismatch(node, "a list", None);
            return None;
        };
        if items.len() < self.min {
            let message = format!("{} needs at least {}", cx.subject(), count(self.min, "entry", "entries"));
            cx.reports.error(node.span, message);
            return None;
        }
        let subject = match cx.subject() {
            subject if subject.starts_with("an entry of ") => subject.to_owned(),
            subject => format!("an entry of {subject}"),
        };
        let decode = |item: &Node, cx: &mut Context<'_>| {
            // An empty item has no text of its own: point at the dash before it.
            let span = if item.span.is_empty() { before(item.span) } else { item.span };
            cx.within(subject.clone(), span, |cx| self.item.decode(item, cx))
        };
        Some(items.iter().filter_map(|item| decode(item, cx)).collect())
    }

    fn schema(&self) -> Value {
        let mut schema = json!({"type": "array", "items": self.item.schema()});
        if self.min > 0 {
            schema["minItems"] = self.min.into();
        }
        schema
    }
}

fn before(span: Span) -> Span {
    Span { start: span.start.saturating_sub(1), end: span.end, ..span }
}

pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    if number == 1 { format!("one {one}") } else { format!("{number} {many}") }
}

/// What the keys of a mapping are.
pub(crate) trait Keys {
    /// A key once read.
    type Key;
    /// Reads a key; the error says what it must be, and perhaps a hint.
    fn read(&self, text: &str) -> Result<Self::Key, (String, Option<String>)>;
    /// The pattern of keys, for the JSON Schema.
    fn pattern(&self) -> Option<&'static str>;
}

/// Keys that are names.
pub(crate) struct NameKeys<T> {
    what: &'static str,
    name: PhantomData<T>,
}

impl<T> NameKeys<T> {
    pub(crate) const fn new(what: &'static str) -> Self {
        Self { what, name: PhantomData }
    }
}

impl<T: FromStr<Err = BadName>> Keys for NameKeys<T> {
    type Key = T;

    fn read(&self, text: &str) -> Result<T, (String, Option<String>)> {
        text.parse().map_err(|_| {
            let fixed = text.to_lowercase().replace(['_', '.', ' '], "-");
            let hint = match fixed.parse::<T>() {
                Ok(_) => format!("call it `{fixed}`"),
                Err(_) => NAME_HINT.to_owned(),
            };
            (self.what.to_owned(), Some(hint))
        })
    }

    fn pattern(&self) -> Option<&'static str> {
        Some(NAME_PATTERN)
    }
}

/// Keys that are texts of a certain form.
pub(crate) struct TextKeys {
    pub(crate) what: &'static str,
    pub(crate) pattern: &'static str,
    pub(crate) matches: fn(&str) -> bool,
}

impl Keys for TextKeys {
    type Key = String;

    fn read(&self, text: &str) -> Result<String, (String, Option<String>)> {
        if (self.matches)(text) { Ok(text.to_owned()) } else { Err((self.what.to_owned(), None)) }
    }

    fn pattern(&self) -> Option<&'static str> {
        Some(self.pattern)
    }
}

/// A mapping whose keys the user chooses. A value that is wrong is `None`, so that its key is known all the same.
pub(crate) struct Keyed<K, S> {
    pub(crate) keys: K,
    pub(crate) item: S,
    /// Fewest entries.
    pub(crate) min: usize,
}

/// What [`Keyed`] decodes to.
pub(crate) type Pairs<K, V> = Vec<(At<K>, Option<V>)>;

impl<K: Keys, S: Shape> Shape for Keyed<K, S> {
    type Value = Pairs<K::Key, S::Value>;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Self::Value> {
        let yaml::Value::Mapping(entries) = &node.value else {
            cx.mismatch(node, "a mapping", None);
            return None;
        };
        if entries.len() < self.min {
            let message = format!("{} needs at least {}", cx.subject(), count(self.min, "entry", "entries"));
            cx.reports.error(node.span, message);
            return None;
        }
        let mut pairs = Vec::with_capacity(entries.len());
        for entry in entries {
            let span = entry.key.span;
            let subject = format!("`{}`", shown(&entry.key.text));
            let key = self.keys.read(&entry.key.text);
            let value = cx.within(subject.clone(), span, |cx| self.item.decode(&entry.value, cx));
            match key {
                Ok(key) => pairs.push((At { value: key, span }, value)),
                Err((what, hint)) => {
                    let message = format!("{subject} is not {what}");
                    cx.reports.push(crate::Severity::Error, Some(span), message, hint);
                }
            }
        }
        Some(pairs)
    }

    fn schema(&self) -> Value {
        let mut schema = json!({"type": "object", "additionalProperties": self.item.schema()});
        if let Some(pattern) = self.keys.pattern() {
            schema["propertyNames"] = json!({"pattern": pattern});
        }
        if self.min > 0 {
            schema["minProperties"] = self.min.into();
        }
        schema
    }
}

/// A mapping that is one thing where it has a certain key, and another where it has not.
pub(crate) struct ByKey<W, O> {
    pub(crate) key: &'static str,
    /// What it is with the key.
    pub(crate) with: W,
    /// What it is without.
    pub(crate) without: O,
}

impl<T, W: Shape<Value = T>, O: Shape<Value = T>> Shape for ByKey<W, O> {
    type Value = T;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<T> {
        let yaml::Value::Mapping(entries) = &node.value else { return self.without.decode(node, cx) };
        // The key misspelt is the key: it is reported as unknown, and nothing else as missing.
        let is_near = |key: &str| !key.starts_with("x-") && suggest::nearest(key, [self.key]).is_some();
        let is_with = entries.iter().any(|entry| &*entry.key.text == self.key)
            || entries.iter().any(|entry| is_near(&entry.key.text));
        if is_with { self.with.decode(node, cx) } else { self.without.decode(node, cx) }
    }

    fn schema(&self) -> Value {
        json!({
            "if": {"required": [self.key]},
            "then": self.with.schema(),
            "else": self.without.schema(),
        })
    }
}

/// A value that may be written in several ways, told apart by whether it is a scalar, a list or a mapping.
pub(crate) struct Kinds<T> {
    /// What messages say was expected.
    expected: &'static str,
    text: Option<Box<dyn Shape<Value = T>>>,
    list: Option<Box<dyn Shape<Value = T>>>,
    mapping: Option<Box<dyn Shape<Value = T>>>,
}

impl<T> Kinds<T> {
    pub(crate) fn new(expected: &'static str) -> Self {
        Self { expected, text: None, list: None, mapping: None }
    }

    #[must_use]
    pub(crate) fn text(mut self, shape: impl Shape<Value = T> + 'static) -> Self {
        self.text = Some(Box::new(shape));
        self
    }

    #[must_use]
    pub(crate) fn list(mut self, shape: impl Shape<Value = T> + 'static) -> Self {
        self.list = Some(Box::new(shape));
        self
    }

    #[must_use]
    pub(crate) fn mapping(mut self, shape: impl Shape<Value = T> + 'static) -> Self {
        self.mapping = Some(Box::new(shape));
        self
    }
}

impl<T> Shape for Kinds<T> {
    type Value = T;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<T> {
        let shape = match &node.value {
            yaml::Value::Scalar(_) if node.is_null() => &None,
            yaml::Value::Scalar(_) => &self.text,
            yaml::Value::List(_) => &self.list,
            yaml::Value::Mapping(_) => &self.mapping,
        };
        if shape.is_none() {
            cx.mismatch(node, self.expected, None);
        }
        shape.as_ref()?.decode(node, cx)
    }

    fn schema(&self) -> Value {
        let ways = [&self.text, &self.list, &self.mapping];
        let mut schemas: Vec<Value> = ways.into_iter().flatten().map(|shape| shape.schema()).collect();
        if schemas.len() == 1 {
            return schemas.pop().unwrap_or_default();
        }
        Value::Object(Map::from_iter([("anyOf".to_owned(), schemas.into())]))
    }
}
