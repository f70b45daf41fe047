//! Which events a run could want, told by what is written of them: so an event need not be offered to every run that waits for its
//! type, but only to those that expect its order, customer, ... That is what many runs wait for most of the time.
//!
//! **Invariant.** An event that a task would take fits an interest of its run. What decides is [`super::listen`]; this only says for
//! whom it cannot be, and only of what cannot change while the task waits.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::sight::as_text;
use crate::program::{Events, Form, Listen, Match, Pattern, Program, Step, Until};
use crate::run::{Run, Scope, ScopeId, State};

/// Largest number of which jq and JSON have the same notion.
const INTEGER_MAX: i64 = 1 << 53;

/// Events that could be for a task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Interest {
    /// Of this type; `None` when any could be.
    pub(crate) kind: Option<Arc<str>>,
    /// And with this in it.
    pub(crate) mark: Option<Mark>,
}

/// What must be at a place of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    /// The place, such as `.data.order`.
    pub(crate) path: Arc<str>,
    /// What must be there, as [`sign`] writes it.
    pub(crate) sign: Arc<str>,
}

impl Interest {
    /// Whether an event could be one.
    pub(crate) fn fits(&self, event: &Value) -> bool {
        let is_kind = |kind: &Arc<str>| event.get("type").and_then(Value::as_str) == Some(&**kind);
        let is_marked = |mark: &Mark| at(event, &mark.path).and_then(sign).as_deref() == Some(&*mark.sign);
        self.kind.as_ref().is_none_or(is_kind) && self.mark.as_ref().is_none_or(is_marked)
    }
}

/// The latest task of a run that waits, and what all of them wait for.
pub(crate) fn interests(run: &Run, program: &Program) -> Option<(ScopeId, Vec<Interest>)> {
    let mut found: Option<(ScopeId, Vec<Interest>)> = None;
    for (id, scope) in &run.scopes {
        if !matches!(scope.state, State::Listening(_)) {
            continue;
        }
        let (newest, all) = found.get_or_insert_with(|| (*id, Vec::new()));
        *newest = *id;
        match program.find(&scope.task).map(|task| &program.task(task).step) {
            Some(Step::Listen(listen)) => Waiting { run, program, scope, listen }.add(&listen.to, all),
            _ => all.push(Interest::default()),
        }
    }
    found
}

/// What is at a place of a value.
pub(crate) fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split('.').skip(1).try_fold(value, |value, name| value.get(name))
}

/// What tells simple values apart, and no two that are equal; `None` of those that are not simple.
pub(crate) fn sign(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(format!("\"{text}")),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Number(number) => {
            number.as_i64().filter(|number| number.abs() <= INTEGER_MAX).map(|number| number.to_string())
        }
        _ => None,
    }
}

/// `.a.b`, if that is all that an expression says.
fn simple_path(text: &str) -> Option<&str> {
    let text = text.trim();
    let is_name = |name: &str| {
        name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.chars().all(|it| it.is_ascii_alphanumeric() || it == '_')
    };
    (text.starts_with('.') && text.split('.').skip(1).all(is_name)).then_some(text)
}

/// A task that waits.
struct Waiting<'w> {
    run: &'w Run,
    program: &'w Program,
    scope: &'w Scope,
    listen: &'w Listen,
}

impl Waiting<'_> {
    fn add(&self, to: &Events, all: &mut Vec<Interest>) {
        match to {
            Events::One(pattern) => all.push(self.interest(pattern)),
            Events::All(patterns) => all.extend(patterns.iter().map(|pattern| self.interest(pattern))),
            Events::Any { patterns, until } => {
                all.extend(patterns.iter().map(|pattern| self.interest(pattern)));
                if patterns.is_empty() {
                    all.push(Interest::default());
                }
                if let Some(Until::Events(events)) = until {
                    self.add(events, all);
                }
            }
        }
    }

    fn interest(&self, pattern: &Pattern) -> Interest {
        let literals: BTreeMap<&str, String> = pattern
            .with
            .iter()
            .filter_map(|(name, wanted)| match wanted {
                Match::Value(value, None) => Some((name.as_str(), as_text(value)?)),
                _ => None,
            })
            .collect();
        let correlated = pattern.correlate.iter().find_map(|(_, from, expect)| {
            let path = simple_path(self.program.filter(*from).text())?;
            let sign = sign(&self.expected(expect.as_ref()?)?)?;
            Some(Mark { path: path.into(), sign: sign.into() })
        });
        // Of the attributes that CloudEvents have, these tell events of one type apart.
        let named = ["subject", "source"].into_iter().find_map(|name| {
            let text = literals.get(name)?;
            Some(Mark { path: format!(".{name}").into(), sign: format!("\"{text}").into() })
        });
        Interest { kind: literals.get("type").map(|kind| kind.as_str().into()), mark: correlated.or(named) }
    }

    /// What a correlation expects, when that is a plain value, or one of the task's input, of the context or the run's id.
    fn expected(&self, form: &Form) -> Option<Value> {
        let filter = match form {
            Form::Value(value) => return Some(Value::clone(value)),
            Form::Filter(filter) => self.program.filter(*filter).text().trim(),
            _ => return None,
        };
        if filter == "$workflow.id" {
            return Some(Value::String(self.run.id.to_string()));
        }
        let (data, path) = match filter.strip_prefix('$') {
            None => (&self.scope.input, filter),
            Some(rest) => match rest.split_once('.')? {
                ("input", _) => (&self.scope.input, &rest["input".len()..]),
                // It is as it is as long as nobody else works on it.
                ("context", _) if self.is_alone() => (&self.run.context, &rest["context".len()..]),
                _ => return None,
            },
        };
        at(data, simple_path(path)?).cloned()
    }

    fn is_alone(&self) -> bool {
        self.listen.each.is_none() && self.run.scopes.values().all(|scope| scope.active <= 1)
    }
}
