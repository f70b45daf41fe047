//! What `$secrets` is, and how its values are kept out of all that is recorded.
//!
//! **Invariants.** An expression that reads `$secrets` may be sent, or decide a way; what it yields is refused where it would be kept
//! and holds a value. What is answered is kept without the values in it. Only exact values of 8 bytes or more are known again: a
//! shorter one would be found everywhere, and one that was changed (encoded, cut) is another text.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use crate::run::Problem;

/// Shortest value that is looked for, in bytes.
const LENGTH_MIN: usize = 8;

/// What an object of the language's authentications holds that is nobody's secret.
const PUBLIC: &[&str] = &[
    "audiences",
    "authentication",
    "authority",
    "encoding",
    "endpoints",
    "grant",
    "id",
    "issuers",
    "scopes",
    "type",
    "username",
];

/// What `$secrets` is. Cheap to clone; its values are in none of its texts.
#[derive(Clone)]
pub struct Secrets {
    value: Arc<Value>,
    /// Texts that are looked for, the longest first, and the names of the secrets that they are of.
    hidden: Arc<[(String, String)]>,
}

impl Default for Secrets {
    fn default() -> Self {
        Self::from(Map::new())
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&String> = self.value.as_object().into_iter().flat_map(Map::keys).collect();
        write!(f, "Secrets({names:?})")
    }
}

impl PartialEq for Secrets {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl From<Map<String, Value>> for Secrets {
    fn from(secrets: Map<String, Value>) -> Self {
        let mut hidden = Vec::new();
        for (name, value) in &secrets {
            gather(name, value, &mut hidden);
        }
        hidden.retain(|(text, _)| text.len() >= LENGTH_MIN);
        hidden.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Self { value: Arc::new(Value::Object(secrets)), hidden: hidden.into() }
    }
}

/// The texts in a secret, and how they are sent as Basic authentication.
fn gather(name: &str, value: &Value, hidden: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) => hidden.push((text.clone(), name.to_owned())),
        Value::Array(items) => items.iter().for_each(|item| gather(name, item, hidden)),
        Value::Object(fields) => {
            let of = |field: &str| fields.get(field).and_then(Value::as_str);
            if let (Some(user), Some(password)) = (of("username"), of("password")) {
                hidden.push((STANDARD.encode(format!("{user}:{password}")), name.to_owned()));
            }
            let own = fields.iter().filter(|(field, _)| !PUBLIC.contains(&field.as_str()));
            own.for_each(|(_, value)| gather(name, value, hidden));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

impl Secrets {
    pub(crate) fn value(&self) -> &Arc<Value> {
        &self.value
    }

    /// Whether any of them is looked for.
    pub(crate) fn hides_any(&self) -> bool {
        !self.hidden.is_empty()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.value.get(name).is_some()
    }

    /// The name of a secret whose value is within this one.
    pub(crate) fn found_in(&self, value: &Value) -> Option<&str> {
        match value {
            Value::String(text) => self.found_in_text(text),
            Value::Array(items) => items.iter().find_map(|item| self.found_in(item)),
            Value::Object(fields) => fields
                .iter()
                .find_map(|(name, value)| self.found_in_text(name).or_else(|| self.found_in(value))),
            Value::Null | Value::Bool(_) | Value::Number(_) => None,
        }
    }

    fn found_in_text(&self, text: &str) -> Option<&str> {
        self.hidden.iter().find(|(hidden, _)| text.contains(hidden)).map(|(_, name)| name.as_str())
    }

    /// A text without the values in it: `[secret NAME]` stands in their place.
    pub(crate) fn without_in_text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut text = Cow::Borrowed(text);
        for (hidden, name) in &*self.hidden {
            if text.contains(hidden) {
                text = Cow::Owned(text.replace(hidden, &format!("[secret {name}]")));
            }
        }
        text
    }

    /// A value without the values in it.
    pub(crate) fn without(&self, value: Arc<Value>) -> Arc<Value> {
        if self.hidden.is_empty() || self.found_in(&value).is_none() {
            return value;
        }
        Arc::new(self.masked(&value))
    }

    fn masked(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.without_in_text(text).into(),
            Value::Array(items) => items.iter().map(|item| self.masked(item)).collect(),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, value)| (self.without_in_text(name).into_owned(), self.masked(value)))
                .collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    /// A problem without the values in it.
    pub(crate) fn without_in_problem(&self, mut problem: Problem) -> Problem {
        problem.kind = self.without_in_text(&problem.kind).into_owned();
        for text in [&mut problem.instance, &mut problem.title, &mut problem.detail].into_iter().flatten() {
            *text = self.without_in_text(text).into_owned();
        }
        problem
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secrets() -> Secrets {
        let all = json!({
            "key": "hunter2-hunter2", "longer": "hunter2-hunter2-longer", "short": "ada",
            "login": {"username": "ada.lovelace", "password": "engine-of-1843", "scopes": ["everything"]},
        });
        Secrets::from(all.as_object().unwrap().clone())
    }

    #[test]
    fn values_are_found_wherever_they_are_and_the_longest_wins() {
        let secrets = secrets();
        assert_eq!(secrets.found_in(&json!({"a": [1, {"b": "x hunter2-hunter2 y"}]})), Some("key"));
        assert_eq!(secrets.found_in(&json!({"engine-of-1843": 1})), Some("login"));
        assert_eq!(secrets.found_in(&json!(["ada", "ada.lovelace", "everything", null, 7])), None);
        let answer = json!({"said": "hunter2-hunter2-longer, hunter2-hunter2", "engine-of-1843": [true]});
        let kept = secrets.without(Arc::new(answer));
        assert_eq!(*kept, json!({"said": "[secret longer], [secret key]", "[secret login]": [true]}));
        let header = format!("Basic {}", STANDARD.encode("ada.lovelace:engine-of-1843"));
        assert_eq!(secrets.without_in_text(&header), "Basic [secret login]");
    }

    #[test]
    fn what_shows_them_shows_their_names() {
        let shown = format!("{:?}", secrets());
        assert_eq!(shown, r#"Secrets(["key", "login", "longer", "short"])"#);
    }
}
