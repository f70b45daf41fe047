//! Runs that do not go on, and why: looked for all the time, each told once in the log, all of them to whoever asks.
//!
//! Of most it is certain. That nobody will ever send an event cannot be known; it is said of a run when nobody is known who could.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use standfast_model::Stamp;

use super::Engine;
use super::locks::deadlocked;
use crate::program::{Form, Step};
use crate::run::RunId;

/// From one look to the next.
const LOOK_PERIOD: Duration = Duration::from_secs(10);
/// So long it may take until a run is told to be stuck: what is short of time or of an event now may not be in a moment.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most runs that are told at a time, of each kind.
const STUCK_MAX: usize = 1_000;

/// A run that does not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// Which.
    pub id: RunId,
    /// Since when, as far as that is known.
    pub since: Stamp,
    /// Of what kind its trouble is.
    pub kind: StuckKind,
    /// What holds it up, as a sentence.
    pub why: String,
    /// What can be done about it.
    pub hint: &'static str,
}

/// Of what kind a run's trouble is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StuckKind {
    /// It cannot be read, written or driven on.
    Broken,
    /// It broke the process again and again, and is not driven on until somebody resumes it.
    Parked,
    /// It and others wait for each other, by locks or by runs that they began.
    Deadlocked,
    /// It waits for nothing that could happen.
    Endless,
    /// It is due, and there is no room for it.
    Overdue,
    /// It waits for an event that nobody is known to send, without a limit.
    Unheard,
}

impl StuckKind {
    /// Its word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Parked => "parked",
            Self::Deadlocked => "deadlocked",
            Self::Endless => "endless",
            Self::Overdue => "overdue",
            Self::Unheard => "unheard",
        }
    }

    const fn hint(self) -> &'static str {
        match self {
            Self::Broken => "restart with the release or the document that it began with, or cancel it",
            Self::Parked => "see what it did last (`workflow show`), then `workflow resume` or `cancel` it",
            Self::Deadlocked => {
                "cancel one of them; take locks always in the same order, or with a `timeout`"
            }
            Self::Endless => "cancel it",
            Self::Overdue => "start fewer runs, or give the services that they wait for more room",
            Self::Unheard => "publish the event, or cancel the run; a `timeout` or a `deadline` would end it",
        }
    }
}

impl Engine {
    /// Runs that do not go on, those of which that is certain first; at most a thousand of each kind.
    pub fn stuck(&self) -> Vec<Stuck> {
        let now = self.clock().now();
        let before = now.minus(PATIENCE);
        let stuck = |id, since, kind: StuckKind, why| Stuck { id, since, kind, why, hint: kind.hint() };
        let (broken, parked, endless, overdue) = {
            let runs = self.runs();
            (
                runs.broken(STUCK_MAX),
                runs.parked(STUCK_MAX),
                runs.endless(STUCK_MAX),
                runs.overdue(before, STUCK_MAX),
            )
        };
        let mut found: Vec<Stuck> = Vec::new();
        found.extend(broken.into_iter().map(|(id, (since, why))| stuck(id, since, StuckKind::Broken, why)));
        found.extend(
            parked
                .into_iter()
                .map(|(id, (since, why))| stuck(id, since, StuckKind::Parked, why.as_ref().to_owned())),
        );
        let deadlocked = deadlocked(self.lock_waits()).into_iter().filter(|wait| wait.since <= before);
        found.extend(deadlocked.take(STUCK_MAX).map(|wait| {
            let holders: Vec<String> = wait.held_by.iter().map(RunId::to_string).collect();
            let holders = holders.join(" and ");
            let why = match &wait.lock {
                Some(lock) => {
                    format!("it waits for the lock `{lock}`, held by {holders}, and they wait for each other")
                }
                None => format!(
                    "it waits for the end of {holders}, which waits for a lock that this one keeps from it"
                ),
            };
            stuck(wait.run, wait.since, StuckKind::Deadlocked, why)
        }));
        found.extend(endless.into_iter().map(|(id, since)| {
            let why = "it waits neither for a time nor for an event nor for an answer";
            stuck(id, since, StuckKind::Endless, why.to_owned())
        }));
        found.extend(overdue.into_iter().map(|(id, since)| {
            let why = format!("it is due since {since}, and there is no room for it");
            stuck(id, since, StuckKind::Overdue, why)
        }));
        found.extend(self.unheard(before).into_iter().map(|(id, since, kinds)| {
            let kinds: Vec<String> = kinds.iter().map(|kind| format!("`{kind}`")).collect();
            let what = if kinds.len() == 1 { "an event" } else { "events" };
            let why = format!(
                "it waits without a limit for {what} of the type {}: none has come, and no workflow here emits one",
                kinds.join(" or ")
            );
            stuck(id, since, StuckKind::Unheard, why)
        }));
        found
    }

    /// Runs that wait, without a limit, for types of events of which none has come lately and which no workflow emits.
    fn unheard(&self, before: Stamp) -> Vec<(RunId, Stamp, BTreeSet<Arc<str>>)> {
        let Some(emitted) = self.emitted_types() else { return Vec::new() };
        let waiting = self.events().unheard(&emitted);
        let runs = self.runs();
        let mut found = Vec::new();
        for (id, kinds) in waiting {
            let since = id.at();
            if since <= before && runs.is_without_limit(id) {
                found.push((id, since, kinds));
                if found.len() == STUCK_MAX {
                    break;
                }
            }
        }
        found
    }

    /// The types of the events that workflows emit; `None` when one of them computes a type.
    fn emitted_types(&self) -> Option<BTreeSet<Arc<str>>> {
        let mut found = BTreeSet::new();
        for program in self.definitions().programs() {
            for task in &program.tasks {
                let Step::Emit(with) = &task.step else { continue };
                match with.iter().find(|(name, _)| name == "type") {
                    Some((_, Form::Value(value))) => found.extend(value.as_str().map(Arc::from)),
                    _ => return None,
                }
            }
        }
        Some(found)
    }

    /// Tells of runs that are stuck, of each once.
    pub(super) async fn watch(self) {
        let mut told: BTreeMap<RunId, StuckKind> = BTreeMap::new();
        loop {
            self.clock().sleep(LOOK_PERIOD).await;
            let stuck = self.stuck();
            for run in &stuck {
                if told.get(&run.id) != Some(&run.kind) {
                    let (why, hint) = (&run.why, run.hint);
                    tracing::warn!(run = %run.id, kind = run.kind.word(), since = %run.since, %why, hint, "a run is stuck");
                }
            }
            told = stuck.into_iter().map(|run| (run.id, run.kind)).collect();
        }
    }
}
