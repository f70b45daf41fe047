//! `switch`: goes on at one of several tasks.

use serde_json::{Value, json};

use super::{Kind, THEN, Then, object, single_entry};
use crate::diagnostics::shown;
use crate::shape::{Context, Fields, Object, Shape};
use crate::source::Span;
use crate::workflow::value::{Condition, Expression};
use crate::yaml::{self, Node};

/// Cases, of which the first that fits counts.
#[derive(Debug, Clone, PartialEq)]
pub struct Switch {
    /// The cases.
    pub cases: Vec<Case>,
}

/// A case.
#[derive(Debug, Clone)]
pub struct Case {
    /// What it is called.
    pub name: String,
    /// When it fits; without this always.
    pub when: Option<Expression>,
    /// What comes next.
    pub then: Then,
    pub(crate) place: Span,
}

/// Two cases are equal wherever they stand.
impl PartialEq for Case {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.when, &self.then) == (&other.name, &other.when, &other.then)
    }
}

pub(super) fn read(f: &mut Fields<'_, '_>) -> Option<Kind> {
    Some(Kind::Switch(f.required("switch", "The cases.", Cases)?))
}

struct Cases;

impl Shape for Cases {
    type Value = Switch;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Switch> {
        const CASE: Object<(Option<Expression>, Then, Option<Span>)> = object("A case.", |f| {
            let when = f.optional("when", "When it fits.", Condition);
            let then = f.required("then", "What comes next.", THEN);
            Some((when, then?, f.value_place_of("then")))
        });
        let yaml::Value::List(items) = &node.value else {
            cx.mismatch(
                node,
                "a list of named cases",
                Some("write `- name:` and below it `when` and `then`".into()),
            );
            return None;
        };
        if items.is_empty() {
            cx.reports.error(cx.place(node), "`switch` needs at least one case");
            return None;
        }
        let mut cases: Vec<Case> = Vec::with_capacity(items.len());
        for item in items {
            let Some((name, node)) = single_entry(item, "a case", cx) else { continue };
            let subject = format!("the case `{}`", shown(&name.value));
            let read = cx.within(subject, name.span, |cx| CASE.decode(&node, cx));
            if let Some(always) = cases.iter().find(|case| case.when.is_none()) {
                let message = format!("the case `{}` is never reached", shown(&name.value));
                let hint = format!(
                    "`{}` before it has no `when`, so it always fits: put it last",
                    shown(&always.name)
                );
                cx.reports.error_hint(name.span, message, hint);
            }
            if let Some((when, then, place)) = read {
                cases.push(Case { name: name.value, when, then, place: place.unwrap_or(name.span) });
            }
        }
        Some(Switch { cases })
    }

    fn schema(&self) -> Value {
        json!({"type": "array"})
    }
}
