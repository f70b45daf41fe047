use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use standfast_model::{Priority, Stamp};

use super::{Run, RunId};

/// What limits a run besides itself: computed when it is started, so that nobody computes it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Of which workflow it is, all versions counted together.
    pub of: Arc<str>,
    /// Whose turn it is first.
    pub priority: Priority,
    /// It takes one of so many slots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotLimit>,
    /// It begins when so few have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<RateLimit>,
    /// With whom it shares its turns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Arc<str>>,
    /// When it is given up if it has not been let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Stamp>,
    /// Slots of runs that wait for this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub around: Vec<SlotHeld>,
    /// It was let in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admitted: Option<Admitted>,
}

/// How many runs with the same key go on at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotLimit {
    /// The key, if the document has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Arc<str>>,
    /// How many.
    pub limit: u32,
}

/// How many runs with the same key begin within a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// The key, if the document has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Arc<str>>,
    /// How many.
    pub limit: u32,
    /// Within so many microseconds.
    pub every_micros: u64,
}

/// A slot, and the run that took it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotHeld {
    /// Which: see [`Limits::slot_place`].
    pub place: Arc<str>,
    /// Who took it.
    pub run: RunId,
}

/// How a run was let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admitted {
    /// In whose slot, if not in its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<RunId>,
}

impl RateLimit {
    /// Within how much time.
    pub const fn every(&self) -> Duration {
        Duration::from_micros(self.every_micros)
    }
}

impl Limits {
    /// Nothing but whose it is.
    pub fn new(of: Arc<str>, priority: Priority) -> Self {
        Self {
            of,
            priority,
            slot: None,
            rate: None,
            share: None,
            until: None,
            around: Vec::new(),
            admitted: None,
        }
    }

    /// What the runs have in common among which its slot is one.
    pub fn slot_place(&self) -> Option<Arc<str>> {
        self.slot.as_ref().map(|slot| self.place(slot.key.as_deref()))
    }

    /// The same of its rate.
    pub fn rate_place(&self) -> Option<Arc<str>> {
        self.rate.as_ref().map(|rate| self.place(rate.key.as_deref()))
    }

    /// With whom it shares its turns, among all workflows.
    pub fn turns_with(&self) -> Option<Arc<str>> {
        self.share.as_ref().map(|share| self.place(Some(share)))
    }

    fn place(&self, key: Option<&str>) -> Arc<str> {
        // No name of a workflow has a line's end in it.
        key.map_or_else(|| Arc::clone(&self.of), |key| format!("{}\n{key}", self.of).into())
    }

    /// Slots of those that wait when it waits for another run.
    pub(crate) fn held(&self, id: RunId) -> Vec<SlotHeld> {
        let own = self.slot_place().zip(self.admitted);
        let own = own.map(|(place, admitted)| SlotHeld { place, run: admitted.within.unwrap_or(id) });
        self.around.iter().cloned().chain(own).collect()
    }

    fn must_be_let_in(&self) -> bool {
        self.slot.is_some() || self.rate.is_some() || self.until.is_some()
    }
}

impl Run {
    /// Whether it was started and has not been let in.
    pub fn is_queued(&self) -> bool {
        let waits = |limits: &Limits| limits.admitted.is_none() && limits.must_be_let_in();
        !self.status.is_final() && self.limits.as_deref().is_some_and(waits)
    }
}
