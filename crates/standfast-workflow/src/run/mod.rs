//! A run: what has become of a workflow so far. It is a fold over its journal, so that what was never interrupted and what was
//! recovered are the same.

mod again;
mod event;
mod evolve;
mod id;
mod lifecycle;
mod limits;
mod migrated;
mod problem;
mod undo;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use standfast_model::Stamp;

pub(crate) use again::{before_fault, before_task, tasks, undone_since};
pub use event::{Event, Record};
pub use id::{BadRunId, Digest, RunId};
pub use lifecycle::lifecycle;
pub(crate) use lifecycle::lifecycle_of;
pub use limits::{Admitted, Limits, RateLimit, SlotHeld, SlotLimit};
pub use migrated::Migrated;
pub use problem::{Problem, Standard};
pub(crate) use undo::COMPENSATE;
pub use undo::{NotUndone, Undo, Undone, undone_by};

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Which.
    pub id: RunId,
    /// By which document: its digest.
    pub definition: Digest,
    /// Where it stands.
    pub status: Status,
    /// How many records its journal has.
    pub records: u64,
    /// How many events its records hold: its measure of work.
    pub steps: u64,
    /// When it was started.
    pub started_at: Stamp,
    /// When something last happened to it.
    pub changed_at: Stamp,
    /// What it was given.
    pub input: Arc<Value>,
    /// By which key it was started, if by one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Arc<str>>,
    /// What `$context` is.
    pub context: Arc<Value>,
    /// What it yielded; only of one that is completed.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub output: Option<Arc<Value>>,
    /// What it failed by; only of one that is faulted or cancelled.
    pub problem: Option<Problem>,
    /// Somebody has it held: nothing new is begun.
    pub is_held: bool,
    /// Why it is not driven on, until somebody resumes it: it broke the process again and again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parked: Option<Arc<str>>,
    /// From which run it goes on, if from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Box<Origin>>,
    /// What limits it besides itself, if anything does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<Box<Limits>>,
    /// Which events it took lately, the latest last.
    #[serde(default)]
    pub taken: VecDeque<Taken>,
    /// What somebody told it and no task has taken yet, in the order in which it came.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<Signal>,
    /// What goes on in it, by number; the workflow itself is [`ScopeId::ROOT`]. Empty when it has ended.
    pub scopes: BTreeMap<ScopeId, Scope>,
    /// What is undone if it fails, in the order in which it was done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undo: Vec<Undo>,
    /// What was undone and may be done again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub undone: Vec<Undone>,
    /// The number of the next scope.
    pub next_scope: u32,
}

/// From which run another goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Which.
    pub run: RunId,
    /// How.
    pub by: Again,
    /// From which task on, by its place in the document.
    pub task: Arc<str>,
    /// Whose keys name its effects, if not its own do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<RunId>,
    /// When the first of the runs was started: events from then on are for it.
    pub since: Stamp,
}

/// How a run goes on from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Again {
    /// What failed is asked again, by the same keys.
    Retry,
    /// What was done is done again, by new keys.
    Redo,
}

/// What somebody told a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Signal {
    /// Which event: the digest of its source and id.
    pub key: Digest,
    /// In the form of `CloudEvents`.
    pub event: Arc<Value>,
}

impl Signal {
    /// What it is called, of an event whose type begins with this.
    pub(crate) fn name(&self, before: &str) -> Option<&str> {
        self.event.get("type").and_then(Value::as_str)?.strip_prefix(before)
    }
}

/// An event that a task took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Which event: the digest of its source and id.
    pub key: Digest,
    /// Which task.
    pub scope: ScopeId,
}

/// Where a run stands, as the language has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Started, and nothing has been done yet.
    Pending,
    /// Something is being done.
    Running,
    /// It waits for a time or an event.
    Waiting,
    /// It is held.
    Suspended,
    /// It broke the process again and again, and is not driven on until somebody resumes it. The language has no word for that: in
    /// its events such a run is suspended.
    Parked,
    /// It was ended before its end.
    Cancelled,
    /// It failed.
    Faulted,
    /// It came to its end.
    Completed,
}

impl Status {
    /// Whether nothing more can become of it.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Cancelled | Self::Faulted | Self::Completed)
    }

    /// The language's word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Suspended => "suspended",
            Self::Parked => "parked",
            Self::Cancelled => "cancelled",
            Self::Faulted => "faulted",
            Self::Completed => "completed",
        }
    }
}

/// A number within a run, never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScopeId(pub u32);

impl ScopeId {
    /// The workflow itself.
    pub const ROOT: Self = Self(0);
}

/// A task that was begun and has not ended, or the workflow itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scope {
    /// Within which; `None` for the workflow itself.
    pub parent: Option<ScopeId>,
    /// Its task's place in the document; empty for the workflow itself.
    pub task: Arc<str>,
    /// Which of its parent's tasks it is, counted from 0 as they were begun. A second attempt counts from 0 again, so that what
    /// is repeated is known as the same.
    pub ordinal: u32,
    /// When it was begun.
    pub at: Stamp,
    /// When it is given up.
    pub deadline: Option<Stamp>,
    /// Its input before `input.from`.
    pub raw: Arc<Value>,
    /// Its input.
    pub input: Arc<Value>,
    /// Of one that consists of tasks: what the last of them yielded, which is what the next is given.
    pub data: Arc<Value>,
    /// How many of its tasks were begun.
    pub begun: u32,
    /// How many of its tasks go on now.
    pub active: u32,
    /// Which of its tasks ended last, since it began its list.
    pub last: Option<Last>,
    /// What is peculiar to its kind.
    pub state: State,
    /// What names it to who is called, if the document says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Arc<str>>,
    /// By which place in a document its effects are named, if that is another one than its task has now: the run has gone over to
    /// another document since it was begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<Arc<str>>,
}

/// The task of a list that ended last.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Last {
    /// Its place in the document.
    pub task: Arc<str>,
    /// Where it leads, if that is something else than what stands at it.
    pub then: Option<Arc<str>>,
}

/// What a scope is doing, by its kind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Tasks one after the other.
    List,
    /// Something outside is asked.
    Asking,
    /// A time is waited for.
    Waiting {
        /// Which.
        until: Stamp,
    },
    /// Tasks for each item.
    Loop {
        /// The items.
        items: Arc<Vec<Value>>,
        /// Which of them it is at.
        index: usize,
    },
    /// Tasks for each item, side by side: each round is a scope of its own.
    Join {
        /// The items.
        items: Arc<Vec<Value>>,
        /// What came of each, once it has.
        #[serde(with = "places")]
        outputs: Vec<Option<Arc<Value>>>,
    },
    /// Tasks for the item whose number is the scope's own.
    Round,
    /// What was done is undone, one after the other.
    Undoing {
        /// Since this happened.
        problem: Problem,
        /// What could not be undone so far.
        failed: Vec<NotUndone>,
        /// How the run ends then; `None` when the error is caught.
        ends: Option<Status>,
    },
    /// What undoes a task.
    Compensating {
        /// The key of that one.
        key: Arc<str>,
    },
    /// Tasks side by side.
    Fork {
        /// What each branch yielded, once it has.
        #[serde(with = "places")]
        outputs: Vec<Option<Arc<Value>>>,
    },
    /// Tasks that may fail.
    Trying {
        /// How many attempts failed before this one.
        failed: u32,
        /// When the first was begun.
        since: Stamp,
        /// When this attempt is given up.
        until: Option<Stamp>,
    },
    /// The time between two attempts.
    Pausing {
        /// How many attempts failed.
        failed: u32,
        /// When the first was begun.
        since: Stamp,
        /// When the next is begun.
        until: Stamp,
    },
    /// What is done on an error.
    Catching {
        /// Which.
        problem: Arc<Value>,
    },
    /// Events are waited for.
    Listening(Listening),
    /// Messages of a channel are received, as long as it is not complete; then the channel is left.
    Receiving(Listening),
    /// Tasks of an extension around a task.
    Extended {
        /// At which it is.
        phase: Phase,
        /// What the extended task yielded, once it has.
        #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
        output: Option<Arc<Value>>,
        /// Where the extended task leads, if that was decided by data.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        then: Option<Arc<str>>,
    },
}

impl State {
    /// What came so far, of one that waits for events or messages.
    pub(crate) fn listening(&self) -> Option<&Listening> {
        match self {
            Self::Listening(listening) | Self::Receiving(listening) => Some(listening),
            _ => None,
        }
    }

    /// As [`State::listening`].
    pub(crate) fn listening_mut(&mut self) -> Option<&mut Listening> {
        match self {
            Self::Listening(listening) | Self::Receiving(listening) => Some(listening),
            _ => None,
        }
    }
}

/// How far a task is around which others are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// What is done before it.
    Before,
    /// It itself.
    Inner,
    /// What is done after it.
    After,
}

/// What became of a wait for events so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Listening {
    /// What was read of each event that counted.
    pub consumed: Vec<Arc<Value>>,
    /// Which of the patterns (of `all`) have had theirs.
    pub met: Vec<bool>,
    /// The same of the patterns that end the wait.
    pub ended: Vec<bool>,
    /// What events must share, by name, once the first has said so.
    pub shared: BTreeMap<String, Value>,
    /// Events that wait until what is done for those before them is done.
    pub queued: Vec<Arc<Value>>,
    /// What names each of these, if anything does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Option<Digest>>,
    /// Which event something is done for.
    pub index: usize,
    /// What that yielded for each so far.
    pub outputs: Vec<Arc<Value>>,
    /// No more events are waited for.
    pub is_complete: bool,
    /// What a person is asked to do, whose answer is waited for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub human: Option<Arc<HumanTask>>,
}

/// What a person is asked to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HumanTask {
    /// What is to be done, in a line.
    pub title: String,
    /// For whom; for nobody in particular if this is empty.
    #[serde(rename = "for")]
    pub groups: Vec<String>,
}

/// A value that is there though it may be null: of an optional one serde would make nothing out of null.
pub(crate) fn given<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Arc<Value>>, D::Error> {
    Arc::deserialize(from).map(Some)
}

/// Places of which some are filled, perhaps with null: as lists of one value or none.
mod places {
    use super::{Arc, Deserialize, Deserializer, Serialize, Serializer, Value};

    pub(super) fn serialize<S: Serializer>(places: &[Option<Arc<Value>>], to: S) -> Result<S::Ok, S::Error> {
        places.iter().map(Option::as_slice).collect::<Vec<_>>().serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Option<Arc<Value>>>, D::Error> {
        let places: Vec<Vec<Arc<Value>>> = Vec::deserialize(from)?;
        Ok(places.into_iter().map(|place| place.into_iter().next()).collect())
    }
}

impl Run {
    /// Whether it took an event before: a certain task of it, or any.
    pub(crate) fn has_taken(&self, key: &Digest, scope: Option<ScopeId>) -> bool {
        self.taken.iter().any(|taken| taken.key == *key && scope.is_none_or(|scope| scope == taken.scope))
    }

    /// Whether nothing new is begun, since somebody holds it or it is parked.
    pub const fn stands_still(&self) -> bool {
        self.is_held || self.parked.is_some()
    }

    /// The next time at which something is due by itself.
    pub fn due(&self) -> Option<Stamp> {
        if self.status.is_final() || self.parked.is_some() {
            return None;
        }
        let until = self.limits.as_deref().filter(|_| self.is_queued()).and_then(|limits| limits.until);
        self.scopes.values().filter_map(|scope| scope.due(self.is_held)).chain(until).min()
    }

    /// Those scopes that ask something outside.
    pub fn asking(&self) -> impl Iterator<Item = ScopeId> + '_ {
        let asks = |scope: &Scope| match &scope.state {
            State::Asking => true,
            // What has come is done first: so no more is taken than can be done.
            State::Receiving(listening) => listening.queued.is_empty(),
            _ => false,
        };
        self.scopes.iter().filter(move |(_, scope)| asks(scope)).map(|(id, _)| *id)
    }

    /// The tasks that a person is to do, and what is asked.
    pub(crate) fn human_tasks(&self) -> impl Iterator<Item = (ScopeId, &Arc<HumanTask>)> + '_ {
        self.scopes.iter().filter_map(|(id, scope)| match &scope.state {
            State::Listening(listening) if !listening.is_complete => Some((*id, listening.human.as_ref()?)),
            _ => None,
        })
    }

    /// The scopes that hold this one, from within to the workflow itself.
    pub(crate) fn holders(&self, from: ScopeId) -> impl Iterator<Item = (ScopeId, &Scope)> {
        let mut next = Some(from);
        std::iter::from_fn(move || {
            let id = next?;
            let scope = self.scopes.get(&id)?;
            next = scope.parent;
            Some((id, scope))
        })
    }
}

impl Scope {
    /// When it must be looked at by itself. While its run is held nothing new is begun, but what has no time left has none.
    fn due(&self, is_held: bool) -> Option<Stamp> {
        let own = match &self.state {
            State::Waiting { until } | State::Pausing { until, .. } if !is_held => Some(*until),
            State::Trying { until, .. } => *until,
            _ => None,
        };
        [own, self.deadline].into_iter().flatten().min()
    }
}
