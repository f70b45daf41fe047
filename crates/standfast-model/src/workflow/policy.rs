//! When something is given up, and when it is tried again.

use super::period::{Delay, delay};
use super::value::{Condition, Expression, Named, named};
use crate::shape::{Count, Fields, Object, Shape, Whole};
use crate::units;

/// Most attempts that a limit may allow.
const ATTEMPTS_MAX: u32 = 1_000_000;

/// After which time something is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeout {
    /// The time.
    pub after: Delay,
}

/// When a task is tried again.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Retry {
    /// Only if this yields true.
    pub when: Option<Expression>,
    /// Only if this does not yield true.
    pub except_when: Option<Expression>,
    /// The time between attempts, before it is stretched.
    pub delay: Option<Delay>,
    /// How the time between attempts grows.
    pub backoff: Backoff,
    /// How much of it there may be.
    pub limit: Attempts,
    /// How the time between attempts is scattered.
    pub jitter: Option<Jitter>,
}

/// How the time between attempts grows.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Backoff {
    /// Not at all.
    #[default]
    Constant,
    /// By `increment` each time, or by the delay itself.
    Linear {
        /// What is added.
        increment: Option<Delay>,
        /// What it grows to at most.
        max: Option<Delay>,
    },
    /// By a factor.
    Exponential {
        /// By what it is multiplied each time, more than 1.
        factor: f64,
        /// What it grows to at most.
        max: Option<Delay>,
    },
}

/// How many attempts there may be, and for how long.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attempts {
    /// Attempts after the first.
    pub count: Option<u32>,
    /// How long each may take.
    pub each: Option<Delay>,
    /// How long all may take.
    pub total: Option<Delay>,
}

/// A time between two that is added by chance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jitter {
    /// The least.
    pub from: Delay,
    /// The most.
    pub to: Delay,
}

pub(crate) const TIMEOUT: Object<Timeout> = Object {
    doc: "After which time something is given up.",
    read: |f: &mut Fields<'_, '_>| Some(Timeout { after: f.required("after", "The time.", delay())? }),
};

/// A timeout in place, or the name of one.
pub(crate) fn timeout() -> impl Shape<Value = Named<Timeout>> {
    named("a mapping with `after`, or the name of one under `use.timeouts`", "timeouts", TIMEOUT)
}

pub(crate) const RETRY: Object<Retry> = Object {
    doc: "When a task is tried again.",
    read: |f: &mut Fields<'_, '_>| {
        Some(Retry {
            when: f.optional("when", "Only if this yields true.", Condition),
            except_when: f.optional("exceptWhen", "Only if this does not yield true.", Condition),
            delay: f.optional("delay", "The time between attempts.", delay()),
            backoff: f.optional("backoff", "How it grows.", BACKOFF).unwrap_or_default(),
            limit: f.optional("limit", "How much of it there may be.", LIMIT).unwrap_or_default(),
            jitter: f.optional("jitter", "How it is scattered.", JITTER),
        })
    },
};

const BACKOFF: Object<Backoff> = Object {
    doc: "How the time between attempts grows.",
    read: |f: &mut Fields<'_, '_>| {
        let constant = f.optional("constant", "Not at all.", CONSTANT);
        let linear = f.optional("linear", "By a sum.", LINEAR);
        let exponential = f.optional("exponential", "By a factor.", EXPONENTIAL);
        f.count(Count::One, &["constant", "linear", "exponential"]);
        constant.or(linear).or(exponential)
    },
};

const CONSTANT: Object<Backoff> = Object { doc: "Not at all.", read: |_| Some(Backoff::Constant) };

const LINEAR: Object<Backoff> = Object {
    doc: "By a sum.",
    read: |f: &mut Fields<'_, '_>| {
        let increment = f.optional("increment", "What is added. Default: the delay.", delay());
        let max = f.optional("max", "What it grows to at most.", delay());
        Some(Backoff::Linear { increment, max })
    },
};

const EXPONENTIAL: Object<Backoff> = Object {
    doc: "By a factor.",
    read: |f: &mut Fields<'_, '_>| {
        let factor = f.or("factor", "By what it is multiplied. Default: 2.", Factor, 2.0);
        let max = f.optional("max", "What it grows to at most.", delay());
        Some(Backoff::Exponential { factor, max })
    },
};

#[derive(Clone, Copy)]
struct Factor;

impl crate::shape::FromText for Factor {
    type Value = f64;

    fn parse(&self, text: &str) -> Result<f64, Option<String>> {
        text.parse().ok().filter(|factor| (1.0..=1_000.0).contains(factor)).ok_or(None)
    }

    fn expected(&self) -> String {
        "a number from 1 to 1000".to_owned()
    }

    fn json_schema(&self) -> serde_json::Value {
        serde_json::json!({"type": "number", "minimum": 1, "maximum": 1000})
    }

    fn accepts(&self, kind: crate::yaml::Kind) -> bool {
        matches!(kind, crate::yaml::Kind::Integer | crate::yaml::Kind::Float)
    }
}

const LIMIT: Object<Attempts> = Object {
    doc: "How many attempts there may be, and for how long.",
    read: |f: &mut Fields<'_, '_>| {
        const ATTEMPT: Object<Attempts> = Object {
            doc: "Each attempt.",
            read: |f: &mut Fields<'_, '_>| {
                let count =
                    f.optional("count", "Attempts after the first.", Whole { min: 0, max: ATTEMPTS_MAX });
                let each = f.optional("duration", "How long each may take.", delay());
                Some(Attempts { count, each, total: None })
            },
        };
        let attempt = f.optional("attempt", "Each attempt.", ATTEMPT).unwrap_or_default();
        let total = f.optional("duration", "How long all may take.", delay());
        Some(Attempts { total, ..attempt })
    },
};

const JITTER: Object<Jitter> = Object {
    doc: "A time that is added by chance.",
    read: |f: &mut Fields<'_, '_>| {
        let from = f.required("from", "The least.", delay());
        let to = f.required("to", "The most.", delay());
        let jitter = Jitter { from: from?, to: to? };
        if let (Delay::Fixed(from), Delay::Fixed(to)) = (&jitter.from, &jitter.to)
            && (from.months, from.rest) > (to.months, to.rest)
            && let Some((place, cx)) = f.reading()
        {
            let (from, to) = (units::show_duration(from.rest), units::show_duration(to.rest));
            cx.reports.error_hint(place, format!("the jitter is from {from} to less: {to}"), "exchange them");
        }
        Some(jitter)
    },
};

/// A retry policy in place, or the name of one.
pub(crate) fn retry() -> impl Shape<Value = Named<Retry>> {
    named("a mapping, or the name of one under `use.retries`", "retries", RETRY)
}
