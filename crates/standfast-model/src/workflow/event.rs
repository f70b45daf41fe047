//! Which events are waited for.

use serde_json::{Map, Value};

use super::task::{TASKS, Task};
use super::value::{AnyTemplate, Condition, Expression, NAME, OUTPUT, Output, Template};
use crate::shape::{Context, Count, Fields, Keyed, Kinds, List, Object, Shape, TextKeys};
use crate::yaml::Node;

/// What the type of a signal's event begins with, before its name.
pub const SIGNAL_TYPE: &str = "io.standfast.signal.";

/// Which events are waited for.
#[derive(Debug, Clone, PartialEq)]
pub enum Events {
    /// One.
    One(EventFilter),
    /// One of each.
    All(Vec<EventFilter>),
    /// Any of these; of none means any event at all.
    Any {
        /// These.
        filters: Vec<EventFilter>,
        /// The first one ends it when this is absent; else it goes on until then.
        until: Option<Until>,
    },
}

/// When a wait for any event ends.
#[derive(Debug, Clone, PartialEq)]
pub enum Until {
    /// This yields true.
    Condition(Expression),
    /// These have come.
    Events(Box<Events>),
}

/// Which event is meant.
#[derive(Debug, Clone, PartialEq)]
pub struct EventFilter {
    /// By attribute: a value, or an expression that is asked about the attribute's value.
    pub with: Vec<(String, Template)>,
    /// What it must share with what is waited for, by name.
    pub correlate: Vec<(String, Correlation)>,
}

/// What an event must share.
#[derive(Debug, Clone, PartialEq)]
pub struct Correlation {
    /// Takes the value from the event.
    pub from: Expression,
    /// What it must be; by default what the first event's was.
    pub expect: Option<Template>,
}

/// What is done for each event.
#[derive(Debug, Clone, PartialEq)]
pub struct ForEachEvent {
    /// The event's variable; `item` by default.
    pub item: String,
    /// Its number's variable; `index` by default.
    pub at: String,
    /// The tasks.
    pub tasks: Vec<Task>,
    /// What each yields.
    pub output: Output,
    /// What goes into the context.
    pub export: Output,
}

/// Any of the shapes of a consumption strategy.
#[derive(Clone, Copy)]
pub(crate) struct Strategy;

impl Shape for Strategy {
    type Value = Events;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Events> {
        STRATEGY.decode(node, cx)
    }

    fn schema(&self) -> Value {
        Value::Object(Map::new()) // The shapes hold each other.
    }
}

const STRATEGY: Object<Events> = Object {
    doc: "Which events are waited for.",
    read: |f: &mut Fields<'_, '_>| {
        let one = f.optional("one", "One.", FILTER);
        let all = f.optional("all", "One of each.", List { item: FILTER, min: 1 });
        let any = f.optional("any", "Any of these; of none means any event.", List { item: FILTER, min: 0 });
        let until = f.optional("until", "When a wait for any event ends.", until());
        f.count(Count::One, &["one", "all", "any"]);
        if any.is_none()
            && let Some(place) = f.place_of("until")
            && let Some((_, cx)) = f.reading()
        {
            cx.reports.error_hint(
                place,
                "`until` has a meaning only beside `any`",
                "remove it, or wait for `any`",
            );
        }
        one.map(Events::One)
            .or_else(|| all.map(Events::All))
            .or_else(|| any.map(|filters| Events::Any { filters, until }))
    },
};

fn until() -> impl Shape<Value = Until> {
    Kinds::new("an expression, or a mapping with `one`, `all` or `any`")
        .text(Condition.and_then(|condition, _, _| Some(Until::Condition(condition))))
        .mapping(Strategy.and_then(|events, span, cx| {
            if matches!(events, Events::Any { until: Some(_), .. }) {
                cx.reports.error(span, "what ends a wait cannot have an `until` of its own");
                return None;
            }
            Some(Until::Events(Box::new(events)))
        }))
}

pub(crate) const FILTER: Object<EventFilter> = Object {
    doc: "Which event is meant.",
    read: |f: &mut Fields<'_, '_>| {
        let with = f.required("with", "By attribute.", attributes());
        let correlate = f.optional(
            "correlate",
            "What it must share.",
            Keyed { keys: ANY_KEY, item: CORRELATION, min: 1 },
        );
        let correlate = correlate.unwrap_or_default().into_iter();
        let correlate =
            correlate.filter_map(|(name, correlation)| Some((name.value, correlation?))).collect();
        Some(EventFilter { with: with?, correlate })
    },
};

const CORRELATION: Object<Correlation> = Object {
    doc: "What an event must share.",
    read: |f: &mut Fields<'_, '_>| {
        let from = f.required("from", "Takes the value from the event.", Condition);
        let expect = f.optional("expect", "What it must be.", AnyTemplate);
        Some(Correlation { from: from?, expect })
    },
};

/// Names that the user chooses.
pub(crate) const ANY_KEY: TextKeys =
    TextKeys { what: "a name", pattern: ".", matches: |text| !text.trim().is_empty() && text.len() <= 256 };

/// An event's attributes, each a value or an expression.
pub(crate) fn attributes() -> impl Shape<Value = Vec<(String, Template)>> {
    const ATTRIBUTES: TextKeys = TextKeys {
        what: "an attribute of CloudEvents: a–z, A–Z and 0–9",
        pattern: "^[A-Za-z0-9]+$",
        matches: |text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric()),
    };
    Keyed { keys: ATTRIBUTES, item: AnyTemplate, min: 1 }.and_then(|pairs, _, _| {
        Some(pairs.into_iter().filter_map(|(name, value)| Some((name.value, value?))).collect())
    })
}

pub(crate) const FOR_EACH: Object<ForEachEvent> = Object {
    doc: "What is done for each event.",
    read: |f: &mut Fields<'_, '_>| {
        let item = f.or("item", "The event's variable.", NAME, "item".to_owned());
        let at = f.or("at", "Its number's variable.", NAME, "index".to_owned());
        let read = f.naming(&[&item, &at], |f| {
            let tasks = f.optional("do", "The tasks.", TASKS).unwrap_or_default();
            let output = f.optional("output", "What each yields.", OUTPUT).unwrap_or_default();
            let export = f.optional("export", "What goes into the context.", OUTPUT).unwrap_or_default();
            (tasks, output, export)
        });
        let (tasks, output, export) = read;
        Some(ForEachEvent { item, at, tasks, output, export })
    },
};
