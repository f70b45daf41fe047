use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use standfast_model::Stamp;

use super::{Digest, Limits, Migrated, Problem, Run, RunId, ScopeId, Signal, State, Status, given};

/// What happened to a run at one moment: written together or not at all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Whose.
    pub run: RunId,
    /// Its number in the run, from 0.
    pub number: u64,
    /// When.
    pub at: Stamp,
    /// What.
    pub events: Vec<Event>,
}

/// Something that happened to a run. What is data was computed before it was written: reading a journal computes nothing, so that
/// a newer program cannot come to another result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Event {
    /// It was started.
    Started {
        /// By which document: its digest.
        definition: Digest,
        /// By this.
        input: Arc<Value>,
        /// What the first task is given, if that is something else.
        #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
        given: Option<Arc<Value>>,
        /// By which key of the caller's, if it gave one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Arc<str>>,
        /// When it is given up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Stamp>,
        /// What limits it besides itself.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        limits: Option<Box<Limits>>,
    },
    /// It was let in, and begins.
    Admitted {
        /// In the slot of this run, which waits for it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        within: Option<RunId>,
    },
    /// It goes on from another run.
    Continued {
        /// As that run stood.
        run: Arc<Run>,
    },
    /// A task was begun that takes its time, or consists of tasks.
    Entered {
        /// Its number.
        scope: ScopeId,
        /// Within this.
        parent: ScopeId,
        /// Its place in the document.
        task: Arc<str>,
        /// Its input, if it is another than what its parent gave it.
        #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
        input: Option<Arc<Value>>,
        /// When it is given up.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Stamp>,
        /// What it does first.
        state: State,
        /// What names it to who is called, if the document says so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Arc<str>>,
    },
    /// A task was passed over.
    Skipped {
        /// Within this.
        parent: ScopeId,
        /// Its place in the document.
        task: Arc<str>,
    },
    /// A task that takes no time was done.
    Done {
        /// Within this.
        parent: ScopeId,
        /// Its place in the document.
        task: Arc<str>,
        /// What it yielded, if it is another than what it was given.
        #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
        output: Option<Arc<Value>>,
        /// What the context is from now on, if it changed.
        #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
        context: Option<Arc<Value>>,
        /// Where it leads, if that is decided by data: `continue`, `exit`, `end`, or a task's place in the document.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        then: Option<Arc<str>>,
        /// Its input, if it is undone when what it is a part of fails.
        #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
        owed: Option<Arc<Value>>,
    },
    /// A task that takes no time failed.
    Failed {
        /// Within this.
        parent: ScopeId,
        /// Its place in the document.
        task: Arc<str>,
        /// By this.
        problem: Problem,
    },
    /// A loop goes on with its next item.
    Iterated {
        /// Which.
        scope: ScopeId,
    },
    /// A scope does something else from now on; its list of tasks, if it has one, begins anew.
    Changed {
        /// Which.
        scope: ScopeId,
        /// What.
        state: State,
    },
    /// The same, and its tasks are given what the first was given: another attempt, or what is done on an error.
    Restarted {
        /// Which.
        scope: ScopeId,
        /// What it does.
        state: State,
    },
    /// A task ended.
    Left {
        /// Which.
        scope: ScopeId,
        /// What it yielded.
        output: Arc<Value>,
        /// What the context is from now on, if it changed.
        #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
        context: Option<Arc<Value>>,
        /// Where it leads, if that is decided by data: as of a task that takes no time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        then: Option<Arc<str>>,
        /// It is undone when what it is a part of fails.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_owed: bool,
    },
    /// A task failed, and with it all that went on within it.
    Faulted {
        /// Which.
        scope: ScopeId,
        /// By this.
        problem: Problem,
    },
    /// An event was published.
    Emitted {
        /// In the form of `CloudEvents`.
        event: Arc<Value>,
    },
    /// An event was taken by a task that waits: what that changed and no more, since a wait may take many.
    Consumed {
        /// Which task.
        scope: ScopeId,
        /// What was read of it, if it counted.
        #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
        read: Option<Arc<Value>>,
        /// Something is done for it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_queued: bool,
        /// Which of the patterns (of `all`) have had theirs, if that changed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        met: Vec<bool>,
        /// The same of the patterns that end the wait.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ended: Vec<bool>,
        /// What events must share from now on, by name, besides what they had to before.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        shared: BTreeMap<String, Value>,
        /// No more events are waited for.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        is_complete: bool,
        /// Which event: the digest of its source and id, if it has these.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key: Option<Digest>,
    },
    /// Messages that a task took are not sent again from now on: others may have their keys.
    Acknowledged {
        /// Which task.
        scope: ScopeId,
        /// By what they were known.
        keys: Vec<Digest>,
    },
    /// What is done for an event was done; what is done for the next is given what the first was given.
    Handled {
        /// Of which task.
        scope: ScopeId,
        /// What that yielded.
        output: Arc<Value>,
    },
    /// The context is another from now on.
    Exported {
        /// What it is.
        context: Arc<Value>,
    },
    /// Somebody told it something, for a task that waits or will wait for it.
    Signalled {
        /// What.
        signal: Signal,
    },
    /// It goes on by another version of its document.
    Migrated(Migrated),
    /// Somebody held it.
    Held,
    /// It broke the process again and again: it is not driven on until somebody resumes it.
    Parked {
        /// What is known of that.
        why: Arc<str>,
    },
    /// Somebody let it go on.
    Resumed,
    /// It ended.
    Ended {
        /// How.
        status: Status,
        /// What it yielded.
        #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
        output: Option<Arc<Value>>,
        /// What it failed by.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        problem: Option<Problem>,
    },
}
