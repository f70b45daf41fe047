//! Values by keys, which workflows of one namespace share. What a task does to a value is written in one commit with the task's end,
//! so that it is done once however often the process dies, and never by a task that failed.
//!
//! **Invariants.** Who drives runs is the only one who writes values: an operation has its key for itself from the moment at which it
//! reads the value until its task's end is written, or given up.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use standfast_model::Stamp;
use standfast_store::{Scan, Space};
use tokio::sync::{Mutex, OwnedMutexGuard};

use super::journal::Change;
use super::{Engine, JournalError, Refused, check_limits};
use crate::ask::{ValueOperation, apply_to_value};
use crate::run::{Event, Problem, Record, RunId, ScopeId, Standard};

/// By namespace and key: values.
const VALUES: Space = Space::Table("workflow-values");
/// Keys that wait for each other without need share one of so many places.
const PLACES: usize = 256;
/// The format of what is written.
const FORMAT: u32 = 1;
/// Most values that are told at a time.
pub(crate) const VALUES_LISTED_MAX: usize = 1_000;

/// Who is at which keys now.
#[derive(Debug)]
pub(super) struct Values {
    places: Vec<Arc<Mutex<()>>>,
}

impl Default for Values {
    fn default() -> Self {
        Self { places: std::iter::repeat_with(Arc::default).take(PLACES).collect() }
    }
}

impl Values {
    async fn alone(&self, key: &[u8]) -> OwnedMutexGuard<()> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        let place = usize::try_from(hash % PLACES as u64).unwrap_or(0);
        Arc::clone(&self.places[place]).lock_owned().await
    }
}

/// What is written in one commit with the end of the task that asked for it.
#[derive(Debug)]
pub(super) struct Effect {
    scope: ScopeId,
    pub(super) change: Option<Change>,
    /// The lock that others may have then.
    wakes: Option<Vec<u8>>,
    /// Nobody else reads or writes it until this is dropped.
    alone: OwnedMutexGuard<()>,
}

impl Effect {
    pub(super) fn new(scope: ScopeId, change: Option<Change>, alone: OwnedMutexGuard<()>) -> Self {
        Self { scope, change, wakes: None, alone }
    }

    /// The same, after which others may have a lock.
    pub(super) fn wakes(self, lock: Vec<u8>) -> Self {
        Self { wakes: Some(lock), ..self }
    }

    /// It is written: from now on others may be at what it is about.
    pub(super) fn written(self, engine: &Engine) {
        let Self { wakes, alone, .. } = self;
        drop(alone);
        if let Some(lock) = wakes {
            engine.0.locks.wake(&lock);
        }
    }

    /// Whether this record holds the end of the task: one that fails changes nothing.
    pub(super) fn is_of(&self, record: &Record) -> bool {
        record.events.iter().any(|event| matches!(event, Event::Left { scope, .. } if *scope == self.scope))
    }
}

/// A value as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    v: u32,
    value: Value,
    /// When it became that, and by which run.
    at: Stamp,
    run: RunId,
}

/// A value of a key.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptValue {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: Value,
    /// When it became that.
    pub changed_at: Stamp,
    /// By which run.
    pub changed_by: RunId,
}

fn place(namespace: &str, key: &str) -> Vec<u8> {
    // A namespace is a label, and has no `/`.
    format!("{namespace}/{key}").into_bytes()
}

fn read(namespace: &str, place: &[u8], bytes: &[u8]) -> Result<KeptValue, JournalError> {
    let unreadable = |why: String| JournalError::Unreadable(format!("a value by its key: {why}"));
    let kept: Kept = serde_json::from_slice(bytes).map_err(|why| unreadable(why.to_string()))?;
    if kept.v != FORMAT {
        return Err(unreadable(format!("format {}", kept.v)));
    }
    let key = String::from_utf8_lossy(place.get(namespace.len() + 1..).unwrap_or_default()).into_owned();
    Ok(KeptValue { key, value: kept.value, changed_at: kept.at, changed_by: kept.run })
}

impl Engine {
    /// The value of a key of a namespace's workflows, if it has one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn value(&self, namespace: &str, key: &str) -> Result<Option<KeptValue>, Refused> {
        let place = place(namespace, key);
        let found = self.journal().store().get(&VALUES, &place).await.map_err(JournalError::from)?;
        Ok(found.map(|entry| read(namespace, &place, &entry.value)).transpose()?)
    }

    /// Values of a namespace's workflows, in the order of their keys: those that begin with `prefix`, after this one; at most `limit`.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn values(
        &self,
        namespace: &str,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<KeptValue>, Refused> {
        let mut scan = Scan::of(VALUES, place(namespace, prefix)).limit(limit);
        if let Some(after) = after {
            scan = scan.after(place(namespace, after));
        }
        let page = self.journal().store().scan(&scan).await.map_err(JournalError::from)?;
        let read = |entry: standfast_store::Entry| read(namespace, &entry.key, &entry.value);
        Ok(page.entries.into_iter().map(read).collect::<Result<_, _>>()?)
    }

    /// Does something to the value of a key for a task: what the task yields, and what is written with its end.
    pub(super) async fn at_value(
        &self,
        (run, scope): (RunId, ScopeId),
        namespace: &str,
        key: &str,
        operation: &ValueOperation,
    ) -> Result<(Value, Effect), Problem> {
        let failed = |why: &dyn std::fmt::Display| {
            Standard::Runtime.problem(format!("the value of `{key}` cannot be had: {why}"))
        };
        let alone = self.0.values.alone(&place(namespace, key)).await;
        let before =
            self.unless_stopped(self.value(namespace, key).await).await.map_err(|why| failed(&why))?;
        let before = before.map_or(Value::Null, |kept| kept.value);
        let applied = apply_to_value(operation, &before)?;
        let bytes = match &applied.after {
            None => None,
            Some(Value::Null) => Some(None),
            Some(value) => {
                check_limits("the value", value)
                    .map_err(|why| Standard::Validation.problem(why.to_string()))?;
                let kept = Kept { v: FORMAT, value: value.clone(), at: self.clock().now(), run };
                Some(Some(serde_json::to_vec(&kept).map_err(|why| failed(&why))?))
            }
        };
        let change = bytes.map(|value| Change { space: &VALUES, key: place(namespace, key), value });
        Ok((applied.answer, Effect::new(scope, change, alone)))
    }
}
