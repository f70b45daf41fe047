//! Who waits for which events, so that an event is offered only to those that it could be for.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;

use crate::decide::{Interest, at, sign};
use crate::run::RunId;

/// Who waits, by what for.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    by_type: HashMap<Option<Arc<str>>, OfType>,
}

/// Runs that wait for events of one type, or of any.
#[derive(Debug, Default)]
struct OfType {
    /// For all of them.
    all: BTreeSet<RunId>,
    /// By the place that they look at, and what must be there.
    marked: HashMap<Arc<str>, HashMap<Arc<str>, BTreeSet<RunId>>>,
}

impl Waiters {
    pub(super) fn add(&mut self, id: RunId, interest: &Interest) {
        let of_type = self.by_type.entry(interest.kind.clone()).or_default();
        let runs = match &interest.mark {
            None => &mut of_type.all,
            Some(mark) => {
                let by_sign = of_type.marked.entry(Arc::clone(&mark.path)).or_default();
                by_sign.entry(Arc::clone(&mark.sign)).or_default()
            }
        };
        runs.insert(id);
    }

    pub(super) fn remove(&mut self, id: RunId, interest: &Interest) {
        let Some(of_type) = self.by_type.get_mut(&interest.kind) else { return };
        match &interest.mark {
            None => drop(of_type.all.remove(&id)),
            Some(mark) => {
                let Some(by_sign) = of_type.marked.get_mut(&mark.path) else { return };
                if let Some(runs) = by_sign.get_mut(&mark.sign) {
                    runs.remove(&id);
                    if runs.is_empty() {
                        by_sign.remove(&mark.sign);
                    }
                }
                if by_sign.is_empty() {
                    of_type.marked.remove(&mark.path);
                }
            }
        }
        if of_type.all.is_empty() && of_type.marked.is_empty() {
            self.by_type.remove(&interest.kind);
        }
    }

    /// The runs that an event could be for.
    pub(super) fn of(&self, event: &Value) -> Vec<RunId> {
        let kind = event.get("type").and_then(Value::as_str).map(Arc::from);
        let mut found = BTreeSet::new();
        for of_type in [self.by_type.get(&None), self.by_type.get(&kind)].into_iter().flatten() {
            found.extend(&of_type.all);
            for (path, by_sign) in &of_type.marked {
                let sign = at(event, path).and_then(sign);
                found.extend(sign.and_then(|sign| by_sign.get(sign.as_str())).into_iter().flatten());
            }
        }
        found.into_iter().collect()
    }
}
