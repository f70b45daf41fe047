//! Functions of the catalog `default` that are ours: values by keys, and locks.

use serde_json::{Value, json};

use super::Writing;
use crate::program::{BuiltIn, BuiltInFunction};
use crate::run::{Problem, Standard};

/// Longest key of a value, in bytes.
pub const VALUE_KEY_BYTES_MAX: usize = 200;

/// Most runs that may hold one lock at a time.
const PERMITS_MAX: u64 = 500;

/// What a function of ours is asked.
#[derive(Debug, Clone, PartialEq)]
pub enum BuiltInRequest {
    /// Something is done to the value of a key.
    Value {
        /// The workflow's namespace: its workflows share the key.
        namespace: String,
        /// The key.
        key: String,
        /// What is done.
        operation: ValueOperation,
    },
    /// A lock is taken, when it is the run's turn.
    Lock {
        /// The workflow's namespace: its workflows share the lock.
        namespace: String,
        /// Which lock.
        name: String,
        /// How many runs may hold it at a time.
        permits: usize,
    },
    /// A lock is let go of.
    Unlock {
        /// The workflow's namespace.
        namespace: String,
        /// Which lock.
        name: String,
    },
}

/// What is done to the value of a key. A key without a value has the value null.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueOperation {
    /// It is read.
    Get,
    /// It becomes this.
    Set(Value),
    /// It is removed.
    Delete,
    /// It becomes something else if it is what is expected.
    CompareAndSet {
        /// What is expected; null: the key has none.
        expected: Value,
        /// What it becomes; null: it is removed.
        value: Value,
    },
    /// This is added to it. A key without a value counts as 0.
    Increment(i64),
}

impl ValueOperation {
    /// As a document says it.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set(_) => "set",
            Self::Delete => "delete",
            Self::CompareAndSet { .. } => "compareAndSet",
            Self::Increment(_) => "increment",
        }
    }
}

/// What becomes of a value.
#[derive(Debug, PartialEq)]
pub(crate) struct Applied {
    /// What the task yields.
    pub(crate) answer: Value,
    /// What it is from then on, if it changes: null is none.
    pub(crate) after: Option<Value>,
}

pub(super) fn request(
    writing: &Writing<'_>,
    namespace: &str,
    call: &BuiltIn,
) -> Result<BuiltInRequest, Problem> {
    let with = match &call.with {
        Some(form) => writing.fill(form)?,
        None => std::sync::Arc::default(),
    };
    match call.function {
        BuiltInFunction::Values => {
            let key = key(&with, "key")?;
            Ok(BuiltInRequest::Value { namespace: namespace.to_owned(), key, operation: operation(&with)? })
        }
        BuiltInFunction::Lock => {
            let name = key(&with, "name")?;
            only(&with, &["name", "permits"])?;
            let permits = match with.get("permits").map(Value::as_u64) {
                None => 1,
                Some(Some(permits)) if (1..=PERMITS_MAX).contains(&permits) => permits,
                Some(_) => return Err(bad(format!("`permits` is a whole number from 1 to {PERMITS_MAX}"))),
            };
            let permits = usize::try_from(permits).unwrap_or(1);
            Ok(BuiltInRequest::Lock { namespace: namespace.to_owned(), name, permits })
        }
        BuiltInFunction::Unlock => {
            let name = key(&with, "name")?;
            only(&with, &["name"])?;
            Ok(BuiltInRequest::Unlock { namespace: namespace.to_owned(), name })
        }
    }
}

fn operation(with: &Value) -> Result<ValueOperation, Problem> {
    let value = |name: &str| with.get(name).cloned().unwrap_or_default();
    let (operation, known): (_, &[&str]) = match with.get("operation").and_then(Value::as_str) {
        Some("get") => (ValueOperation::Get, &[]),
        Some("set") => (ValueOperation::Set(value("value")), &["value"]),
        Some("delete") => (ValueOperation::Delete, &[]),
        Some("compareAndSet") => {
            let operation =
                ValueOperation::CompareAndSet { expected: value("expected"), value: value("value") };
            (operation, &["expected", "value"])
        }
        Some("increment") => {
            let by = match with.get("by") {
                None => 1,
                Some(by) => by.as_i64().ok_or_else(|| bad(format!("`by` is a whole number, not {by}")))?,
            };
            (ValueOperation::Increment(by), &["by"])
        }
        _ => {
            return Err(bad(
                "`operation` is one of `get`, `set`, `delete`, `compareAndSet` and `increment`".to_owned()
            ));
        }
    };
    if matches!(operation, ValueOperation::Set(Value::Null)) {
        return Err(bad("`set` has a `value`, and `delete` removes one: null is none".to_owned()));
    }
    only(with, &[&["key", "operation"], known].concat())?;
    Ok(operation)
}

/// Nothing else is said than these.
fn only(with: &Value, known: &[&str]) -> Result<(), Problem> {
    let names = with.as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let is_known = |name: &&str| known.contains(name);
    match names.into_iter().find(|name| !is_known(name)) {
        Some(unknown) => Err(bad(format!("`{unknown}` means nothing here"))),
        None => Ok(()),
    }
}

/// A name that can stand in an address and a terminal.
fn key(with: &Value, name: &str) -> Result<String, Problem> {
    let found = with.get(name).and_then(Value::as_str).unwrap_or_default();
    match bad_key(found) {
        Some(why) => Err(bad(format!("`{name}` {why}"))),
        None => Ok(found.to_owned()),
    }
}

/// Why a text is no key of a value, as the end of a sentence.
fn bad_key(text: &str) -> Option<String> {
    if text.is_empty() {
        return Some("is a text that is not empty".to_owned());
    }
    if text.len() > VALUE_KEY_BYTES_MAX {
        return Some(format!("has {} bytes, at most {VALUE_KEY_BYTES_MAX} are allowed", text.len()));
    }
    let odd = text.chars().find(|c| !c.is_ascii_graphic())?;
    Some(format!("holds {odd:?}: visible ASCII is allowed"))
}

fn bad(why: String) -> Problem {
    Standard::Validation.problem(why)
}

/// What becomes of a value by an operation; null is none.
pub(crate) fn apply(operation: &ValueOperation, before: &Value) -> Result<Applied, Problem> {
    let after = match operation {
        ValueOperation::Get => None,
        ValueOperation::Set(value) => Some(value.clone()),
        ValueOperation::Delete => Some(Value::Null),
        ValueOperation::CompareAndSet { expected, value } => (expected == before).then(|| value.clone()),
        ValueOperation::Increment(by) => {
            let count = match before {
                Value::Null => Some(0),
                number => number.as_i64(),
            };
            let count =
                count.ok_or_else(|| bad("the value is no whole number: it cannot be added to".to_owned()))?;
            let sum = count.checked_add(*by).ok_or_else(|| bad(format!("{count} + {by} is too large")))?;
            Some(sum.into())
        }
    };
    let answer = json!({
        "value": after.as_ref().unwrap_or(before), "before": before, "changed": after.is_some(),
    });
    Ok(Applied { answer, after })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_becomes_of_a_value_is_in_the_table() {
        use ValueOperation::{CompareAndSet, Delete, Get, Increment, Set};
        let compare = |expected: Value, value: Value| CompareAndSet { expected, value };
        for (operation, before, expected) in [
            (Get, json!({"a": 1}), Some(None)),
            (Get, Value::Null, Some(None)),
            (Set(json!([1])), json!(2), Some(Some(json!([1])))),
            (Delete, json!(2), Some(Some(Value::Null))),
            (compare(json!(1), json!(2)), json!(1), Some(Some(json!(2)))),
            (compare(json!(1), json!(2)), json!(3), Some(None)),
            (compare(Value::Null, json!(2)), Value::Null, Some(Some(json!(2)))),
            (compare(Value::Null, json!(2)), json!(1), Some(None)),
            (compare(json!(1), Value::Null), json!(1), Some(Some(Value::Null))),
            (Increment(5), Value::Null, Some(Some(json!(5)))),
            (Increment(-2), json!(5), Some(Some(json!(3)))),
            (Increment(1), json!(i64::MAX), None),
            (Increment(1), json!("one"), None),
            (Increment(1), json!(1.5), None),
        ] {
            let applied = apply(&operation, &before).ok();
            if let Some(applied) = &applied {
                let value = applied.after.clone().unwrap_or(before.clone());
                let answer = json!({"value": value, "before": before, "changed": applied.after.is_some()});
                assert_eq!(applied.answer, answer, "{operation:?}");
            }
            assert_eq!(applied.map(|applied| applied.after), expected, "{operation:?} of {before}");
        }
    }

    #[test]
    fn what_is_asked_wrongly_is_told() {
        for (with, why) in [
            (json!({}), "`operation` is one of"),
            (json!({"operation": "put"}), "`operation` is one of"),
            (json!({"operation": "set"}), "null is none"),
            (json!({"operation": "get", "value": 1}), "`value` means nothing here"),
            (json!({"operation": "increment", "by": 0.5}), "`by` is a whole number, not 0.5"),
        ] {
            let problem = operation(&with).unwrap_err();
            assert!(problem.detail.as_deref().unwrap_or_default().contains(why), "{with}: {problem}");
        }
        for (text, why) in [("", "not empty"), ("a b", "' '"), ("é", "'é'"), (&"k".repeat(201), "201 bytes")]
        {
            assert!(bad_key(text).unwrap().contains(why), "{text}");
        }
        assert_eq!(bad_key("orders/2026-01/o-1"), None);
    }
}
