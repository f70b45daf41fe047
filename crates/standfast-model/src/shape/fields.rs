use serde_json::{Map, Value, json};

use super::{Context, Dialect, Shape};
use crate::Severity;
use crate::diagnostics::shown;
use crate::source::Span;
use crate::suggest;
use crate::yaml::{self, Entry, Node};

/// A mapping with known keys. `read` asks its [`Fields`] for each of them, which decodes or describes them.
pub(crate) struct Object<T> {
    /// What it is, for whoever hovers over it.
    pub(crate) doc: &'static str,
    /// Reads every key, then makes the value. No key may be asked for only sometimes.
    pub(crate) read: fn(&mut Fields<'_, '_>) -> Option<T>,
}

impl<T> Shape for Object<T> {
    type Value = T;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<T> {
        decode(node, cx, &[], self.read)
    }

    fn schema(&self) -> Value {
        let mut schema = describe(self.read).into_schema();
        schema["description"] = self.doc.into();
        schema
    }
}

/// A mapping whose further keys depend on the value of one.
pub(crate) struct Tagged<T: 'static> {
    /// What it is.
    pub(crate) doc: &'static str,
    /// The key on which the others depend.
    pub(crate) tag: &'static str,
    pub(crate) variants: &'static [Variant<T>],
}

/// One value of a [`Tagged`] mapping's key, and what goes with it.
pub(crate) struct Variant<T> {
    /// The value.
    pub(crate) tag: &'static str,
    /// What it means.
    pub(crate) doc: &'static str,
    /// As in [`Object`].
    pub(crate) read: fn(&mut Fields<'_, '_>) -> Option<T>,
}

impl<T> Shape for Tagged<T> {
    type Value = T;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<T> {
        let yaml::Value::Mapping(entries) = &node.value else {
            cx.mismatch(node, &format!("a mapping with `{}`", self.tag), None);
            return None;
        };
        let tags = self.variants.iter().map(|variant| variant.tag);
        let Some(entry) = entries.iter().find(|entry| &*entry.key.text == self.tag) else {
            let message = format!("the key `{}` is missing", self.tag);
            cx.reports.error_hint(first_line(node, cx), message, suggest::hint("", tags));
            return None;
        };
        let words = format!("one of {}", tags.clone().collect::<Vec<_>>().join(", "));
        let subject = format!("`{}`", self.tag);
        let chosen = cx.within(subject, entry.key.span, |cx| {
            let text = match cx.scalar(&entry.value) {
                Some(scalar) => scalar?.0,
                None => "".into(),
            };
            let chosen = self.variants.iter().find(|variant| variant.tag == text);
            if chosen.is_none() {
                let near = suggest::nearest(&text, tags).map(|near| format!("did you mean `{near}`?"));
                cx.mismatch(&entry.value, &words, near);
            }
            chosen
        })?;
        decode(node, cx, &[self.tag], chosen.read)
    }

    fn schema(&self) -> Value {
        let variant = |variant: &Variant<T>| {
            let mut description = describe(variant.read);
            description
                .properties
                .insert(self.tag.to_owned(), json!({"const": variant.tag, "description": variant.doc}));
            description.required.push(self.tag);
            description.into_schema()
        };
        let variants: Vec<Value> = self.variants.iter().map(variant).collect();
        json!({"description": self.doc, "oneOf": variants})
    }
}

fn decode<T>(
    node: &Node,
    cx: &mut Context<'_>,
    known: &[&'static str],
    read: impl FnOnce(&mut Fields<'_, '_>) -> Option<T>,
) -> Option<T> {
    let yaml::Value::Mapping(entries) = &node.value else {
        cx.mismatch(node, "a mapping", None);
        return None;
    };
    let known = known.iter().map(|name| Known { name, honoured: true }).collect();
    let place = first_line(node, cx);
    let required = Vec::new();
    let mut fields = Fields(Mode::Read(Reading { entries, place, known, required, counted: Vec::new(), cx }));
    let value = read(&mut fields);
    if let Mode::Read(reading) = fields.0 {
        reading.finish();
    }
    value
}

/// Reads a mapping as an [`Object`] does, by what need not be known at compile time.
pub(crate) fn decode_object<T>(
    node: &Node,
    cx: &mut Context<'_>,
    read: impl FnOnce(&mut Fields<'_, '_>) -> Option<T>,
) -> Option<T> {
    decode(node, cx, &[], read)
}

/// Where to point when a mapping lacks something: at the key whose value it is, or at its own beginning.
fn first_line(node: &Node, cx: &Context<'_>) -> Span {
    cx.subject_place().unwrap_or(node.span)
}

fn describe<T>(read: fn(&mut Fields<'_, '_>) -> Option<T>) -> Description {
    let mut fields = Fields(Mode::Describe(Description::default()));
    read(&mut fields);
    match fields.0 {
        Mode::Describe(description) => description,
        Mode::Read(_) => Description::default(),
    }
}

/// The keys of a mapping, while they are read or described.
pub(crate) struct Fields<'a, 'e>(Mode<'a, 'e>);

enum Mode<'a, 'e> {
    Read(Reading<'a, 'e>),
    Describe(Description),
}

struct Reading<'a, 'e> {
    entries: &'a [Entry],
    place: Span,
    known: Vec<Known>,
    required: Vec<&'static str>,
    counted: Vec<(Count, &'static [&'static str])>,
    cx: &'a mut Context<'e>,
}

/// How many of several keys must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Count {
    /// One, and no other.
    One,
    /// One or more.
    Some,
    /// One or none.
    AtMostOne,
}

struct Known {
    name: &'static str,
    honoured: bool,
}

#[derive(Default)]
struct Description {
    properties: Map<String, Value>,
    required: Vec<&'static str>,
    counted: Vec<Value>,
}

impl Reading<'_, '_> {
    /// Reports unknown keys, and missing ones unless an unknown key is the missing one misspelt.
    fn finish(self) {
        let Self { entries, place, known, required, counted, cx } = self;
        let mut misspelt = Vec::new();
        for entry in entries {
            let key = &*entry.key.text;
            if cx.dialect() == Dialect::Stack && key.starts_with("x-")
                || known.iter().any(|known| known.name == key)
            {
                continue;
            }
            let hint = if cx.reports.is_full() {
                String::new()
            } else if let Some(near) = suggest::nearest(key, known.iter().map(|known| known.name)) {
                misspelt.push(near);
                format!("did you mean `{near}`?")
            } else {
                suggest::hint("", known.iter().filter(|known| known.honoured).map(|known| known.name))
            };
            cx.reports.error_hint(entry.key.span, format!("unknown key `{}`", shown(key)), hint);
        }
        for name in required {
            if !misspelt.contains(&name) && !entries.iter().any(|entry| &*entry.key.text == name) {
                let message = format!("the key `{name}` is missing in {}", cx.subject());
                cx.reports.error(place, message);
            }
        }
        for (count, names) in counted {
            let given: Vec<&Entry> =
                entries.iter().filter(|entry| names.contains(&&*entry.key.text)).collect();
            match given.as_slice() {
                [] if count != Count::AtMostOne && !misspelt.iter().any(|name| names.contains(name)) => {
                    let message = format!("{} needs {}", cx.subject(), alternatives(names));
                    cx.reports.error(place, message);
                }
                [first, second, ..] if count != Count::Some => {
                    let message = format!("`{}` beside `{}`", second.key.text, first.key.text);
                    cx.reports.error_hint(second.key.span, message, "keep one of them");
                }
                _ => {}
            }
        }
    }
}

/// "`a`, `b` or `c`".
pub(super) fn alternatives(names: &[&str]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => "nothing".to_owned(),
    }
}

impl Description {
    fn into_schema(self) -> Value {
        let mut schema = json!({
            "type": "object",
            "properties": self.properties,
            "patternProperties": {"^x-": {}},
            "additionalProperties": false,
        });
        if !self.required.is_empty() {
            schema["required"] = self.required.into();
        }
        if !self.counted.is_empty() {
            schema["allOf"] = self.counted.into();
        }
        schema
    }
}

impl<'e> Fields<'_, 'e> {
    /// A key that may be absent.
    pub(crate) fn optional<S: Shape>(&mut self, name: &'static str, doc: &str, shape: S) -> Option<S::Value> {
        self.key(name, doc, &shape, None)
    }

    /// A key that may not be absent.
    pub(crate) fn required<S: Shape>(&mut self, name: &'static str, doc: &str, shape: S) -> Option<S::Value> {
        match &mut self.0 {
            Mode::Describe(description) => description.required.push(name),
            Mode::Read(reading) => reading.required.push(name),
        }
        self.key(name, doc, &shape, None)
    }

    /// A key with a default.
    pub(crate) fn or<S: Shape>(
        &mut self,
        name: &'static str,
        doc: &str,
        shape: S,
        default: S::Value,
    ) -> S::Value {
        self.key(name, doc, &shape, Some(&default)).unwrap_or(default)
    }

    /// So many of these keys, each of which is asked for as one that may be absent, must be there.
    pub(crate) fn count(&mut self, count: Count, names: &'static [&'static str]) {
        match &mut self.0 {
            Mode::Describe(description) => {
                let each: Vec<Value> = names.iter().map(|name| json!({"required": [name]})).collect();
                description.counted.push(match count {
                    Count::One => json!({"oneOf": each}),
                    Count::Some => json!({"anyOf": each}),
                    Count::AtMostOne => json!({"oneOf": [{"not": {"anyOf": each}}, {"oneOf": each}]}),
                });
            }
            Mode::Read(reading) => reading.counted.push((count, names)),
        }
    }

    fn key<S: Shape>(
        &mut self,
        name: &'static str,
        doc: &str,
        shape: &S,
        default: Option<&S::Value>,
    ) -> Option<S::Value> {
        match &mut self.0 {
            Mode::Describe(description) => {
                let mut schema = shape.schema();
                schema["description"] = doc.into();
                let default = default.map_or(Value::Null, |default| shape.show(default));
                if !default.is_null() {
                    schema["default"] = default;
                }
                description.properties.insert(name.to_owned(), schema);
                None
            }
            Mode::Read(reading) => {
                reading.known.push(Known { name, honoured: true });
                let entry = reading.entries.iter().find(|entry| &*entry.key.text == name)?;
                reading.cx.within(format!("`{name}`"), entry.key.span, |cx| shape.decode(&entry.value, cx))
            }
        }
    }

    /// Keys of Compose, or of Standfast's plans, without which the stack would not be what its writer means.
    pub(crate) fn refused(&mut self, keys: &[(&'static str, &'static str)]) {
        for (name, hint) in keys {
            self.unhonoured(name, Severity::Error, hint);
        }
    }

    /// Keys of Compose whose absence does no harm.
    pub(crate) fn ignored(&mut self, keys: &[(&'static str, &'static str)]) {
        for (name, hint) in keys {
            self.unhonoured(name, Severity::Warning, hint);
        }
    }

    fn unhonoured(&mut self, name: &'static str, severity: Severity, hint: &str) {
        match &mut self.0 {
            Mode::Describe(description) => {
                let schema = match severity {
                    Severity::Error => {
                        json!({"not": {}, "description": format!("Not honoured yet: {hint}.")})
                    }
                    Severity::Warning => json!({"description": format!("Has no effect: {hint}.")}),
                };
                description.properties.insert(name.to_owned(), schema);
            }
            Mode::Read(reading) => {
                reading.known.push(Known { name, honoured: false });
                let Some(entry) = reading.entries.iter().find(|entry| &*entry.key.text == name) else {
                    return;
                };
                let message = match severity {
                    Severity::Error => format!("`{name}` is not honoured yet"),
                    Severity::Warning => format!("`{name}` is not honoured: it has no effect"),
                };
                reading.cx.reports.push(severity, Some(entry.key.span), message, Some(hint.to_owned()));
            }
        }
    }

    /// Keys that mean something for a relative of this mapping, but nothing for `whom`.
    pub(crate) fn excluded(&mut self, names: impl IntoIterator<Item = &'static str>, whom: &str, hint: &str) {
        for name in names {
            match &mut self.0 {
                Mode::Describe(description) => {
                    let schema = json!({"not": {}, "description": format!("Not for {whom}: {hint}.")});
                    description.properties.insert(name.to_owned(), schema);
                }
                Mode::Read(reading) => {
                    reading.known.push(Known { name, honoured: false });
                    if let Some(entry) = reading.entries.iter().find(|entry| &*entry.key.text == name) {
                        let message = format!("`{name}` has no meaning for {whom}");
                        reading.cx.reports.error_hint(entry.key.span, message, hint);
                    }
                }
            }
        }
    }

    /// How many errors were reported so far.
    pub(crate) fn errors(&self) -> usize {
        match &self.0 {
            Mode::Describe(_) => 0,
            Mode::Read(reading) => reading.cx.reports.errors(),
        }
    }

    /// Where a key is, if it is there. While describing, no key is.
    pub(crate) fn place_of(&self, name: &str) -> Option<Span> {
        match &self.0 {
            Mode::Describe(_) => None,
            Mode::Read(reading) => {
                reading.entries.iter().find(|entry| &*entry.key.text == name).map(|entry| entry.key.span)
            }
        }
    }

    /// Where a key's value is, if it is there. While describing, no key is.
    pub(crate) fn value_place_of(&self, name: &str) -> Option<Span> {
        match &self.0 {
            Mode::Describe(_) => None,
            Mode::Read(reading) => {
                reading.entries.iter().find(|entry| &*entry.key.text == name).map(|entry| entry.value.span)
            }
        }
    }

    /// Reads keys whose expressions may ask for these variables, too.
    pub(crate) fn naming<T>(&mut self, names: &[&str], read: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.reading().map(|(_, cx)| {
            let before = cx.named.len();
            cx.named.extend(names.iter().map(|name| (*name).to_owned()));
            before
        });
        let found = read(self);
        if let (Some(before), Some((_, cx))) = (before, self.reading()) {
            cx.named.truncate(before);
        }
        found
    }

    /// Where the mapping is, and the context to report to; none while describing.
    pub(crate) fn reading(&mut self) -> Option<(Span, &mut Context<'e>)> {
        match &mut self.0 {
            Mode::Describe(_) => None,
            Mode::Read(reading) => Some((reading.place, reading.cx)),
        }
    }
}
