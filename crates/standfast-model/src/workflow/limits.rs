//! What of `metadata.standfast` of a workflow says how many of its runs go on at a time, how often one begins, and whose turn it is.

use serde_json::Value;

use super::period::{Period, period};
use super::value::{Template, TextTemplate};
use crate::shape::{Context, Fields, Object, Shape, Whole};
use crate::yaml::Node;

/// Most runs with one key that a document may let go on at a time.
const SLOTS_MAX: u32 = 100_000;
/// Most runs with one key that a document may let begin within one window.
const STARTS_MAX: u32 = 100_000;
/// Longest window, in seconds: a day. What began within one is kept.
const WINDOW_SECONDS_MAX: u64 = 86_400;

/// How many runs go on at a time.
#[derive(Debug, Clone, PartialEq)]
pub struct ConcurrencyLimit {
    /// At most so many with the same key.
    pub limit: u32,
    /// Of a run, about its input; all runs of the workflow have the same when there is none.
    pub key: Option<Template>,
}

/// How often runs begin.
#[derive(Debug, Clone, PartialEq)]
pub struct StartRate {
    /// At most so many with the same key in a window.
    pub limit: u32,
    /// How long a window is.
    pub every: Period,
    /// As of [`ConcurrencyLimit`].
    pub key: Option<Template>,
}

/// How many runs of a workflow go on at a time.
pub(super) const CONCURRENCY: Object<ConcurrencyLimit> = Object {
    doc: "How many runs go on at a time.",
    read: |f: &mut Fields<'_, '_>| {
        let limit =
            f.required("limit", "At most so many with the same key.", Whole { min: 1, max: SLOTS_MAX });
        let key = f.optional("key", "What runs must share to be counted together.", RunKey);
        Some(ConcurrencyLimit { limit: limit?, key })
    },
};

/// How often runs of a workflow begin.
pub(super) const RATE: Object<StartRate> = Object {
    doc: "How often runs begin.",
    read: |f: &mut Fields<'_, '_>| {
        let limit = f.required("limit", "At most so many in a window.", Whole { min: 1, max: STARTS_MAX });
        let every = f.required("every", "How long a window is.", window());
        let key = f.optional("key", "What runs must share to be counted together.", RunKey);
        Some(StartRate { limit: limit?, every: every?, key })
    },
};

/// Whose turn it is when not all runs can go on.
pub(super) const FAIRNESS: Object<Template> = Object {
    doc: "Between whom runs take turns.",
    read: |f: &mut Fields<'_, '_>| f.required("key", "Runs with the same key share one turn.", RunKey),
};

fn window() -> impl Shape<Value = Period> {
    period().and_then(|period, span, cx| {
        let is_right = period.months == 0
            && !period.rest.is_zero()
            && period.rest.as_secs_f64() <= WINDOW_SECONDS_MAX as f64;
        if !is_right {
            let message =
                format!("{} is {period}, a window is longer than nothing and at most a day", cx.subject());
            cx.reports.error_hint(span, message, "write `PT1S`, `PT1M` or `seconds: 10`");
        }
        is_right.then_some(period)
    })
}

/// An expression about a run's input, whose value names those that are counted together.
struct RunKey;

impl Shape for RunKey {
    type Value = Template;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Template> {
        let key = TextTemplate.decode(node, cx)?;
        let (message, hint) = match &key {
            Template::Expression(expression) if expression.text().contains("$secrets") => (
                "the key cannot name `$secrets`: it is kept with the run, and shown",
                "use something else of the input",
            ),
            Template::Expression(_) => return Some(key),
            _ => (
                "the key is the same text for every run",
                "write an expression about the run's input: `${ .customer }`; without a key all runs of the workflow count together",
            ),
        };
        cx.reports.error_hint(node.span, message, hint);
        None
    }

    fn schema(&self) -> Value {
        TextTemplate.schema()
    }
}
