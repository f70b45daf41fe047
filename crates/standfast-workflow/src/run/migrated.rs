//! A run goes over to another version of its document: what it names of the one is renamed to what stands there in the other, and
//! what names its effects stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Digest, Listening, Run, ScopeId, State};

/// What changes in a run that goes over to another version of its document: data that was computed before it was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Migrated {
    /// The document from now on: its digest.
    pub definition: Digest,
    /// Its version.
    pub version: Arc<str>,
    /// Where the tasks that the run names stand from now on, by where they stood; those that stand elsewhere.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub places: BTreeMap<Arc<str>, Arc<str>>,
    /// Tasks that wait for events and have taken none, so that they begin to wait anew.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub listening: BTreeMap<ScopeId, Listening>,
}

impl Run {
    pub(super) fn goes_over(&mut self, migrated: &Migrated) {
        let Migrated { definition, places, listening, .. } = migrated;
        let named: Vec<(ScopeId, Arc<str>)> = self.scopes.keys().map(|id| (*id, self.name_of(*id))).collect();
        self.definition = definition.clone();
        let put = |place: &mut Arc<str>| {
            if let Some(now) = places.get(place) {
                *place = Arc::clone(now);
            }
        };
        for scope in self.scopes.values_mut() {
            put(&mut scope.task);
            if let Some(last) = &mut scope.last {
                put(&mut last.task);
                last.then.iter_mut().for_each(put);
            }
            if let State::Extended { then, .. } = &mut scope.state {
                then.iter_mut().for_each(put);
            }
        }
        self.undo.iter_mut().for_each(|undo| put(&mut undo.task));
        // Holders come before what they hold, so what follows from a holder's name need not be said.
        for (id, name) in named {
            let Some(scope) = self.scopes.get(&id) else { continue };
            let Some(parent) = scope.parent else { continue };
            let follows = self.name_within(parent, &scope.task) == name;
            if let Some(scope) = self.scopes.get_mut(&id) {
                scope.named = (!follows).then_some(name);
            }
        }
        for (id, listening) in listening {
            if let Some(scope) = self.scopes.get_mut(id) {
                scope.state = State::Listening(listening.clone());
            }
        }
    }
}
