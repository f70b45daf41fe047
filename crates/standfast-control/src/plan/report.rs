//! What a plan does and what it waits for, in sentences.

use serde::{Deserialize, Serialize};
use standfast_model::{Instance, ServiceName, Stamp, ZoneName};

/// What a plan does, what it waits for, and why.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// What differs between the stack and what is planned, per service: the whole way, of which the steps are the next part.
    pub changes: Vec<Change>,
    /// What is done now.
    pub steps: Vec<Step>,
    /// What is waited for and why, in sentences.
    pub waiting: Vec<String>,
    /// Replicas that end again and again.
    pub crash_loops: Vec<CrashLoop>,
}

/// A difference between the stack and what is planned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Of which service.
    pub service: ServiceName,
    /// What kind it is.
    pub kind: ChangeKind,
    /// What changes: "replicas: 3 → 5".
    pub what: String,
    /// What users of the service notice.
    pub impact: String,
    /// Whether applying the old stack brings back what was.
    pub reversible: bool,
}

/// Kinds of change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// A service comes.
    Add,
    /// A service goes.
    Remove,
    /// Its replicas are exchanged for those of another revision.
    Update,
    /// It gets more or fewer replicas.
    Scale,
}

/// One thing that a plan does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What kind it is.
    pub kind: StepKind,
    /// Of which service.
    pub service: ServiceName,
    /// Which start of which replica it is about.
    pub replica: Instance,
    /// Where that is.
    pub zone: ZoneName,
    /// Why, in a sentence.
    pub reason: String,
    /// What users of the service notice, in a sentence.
    pub impact: String,
    /// Whether it can be undone without a trace.
    pub reversible: bool,
}

/// Kinds of step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// A replica is started: the first time, or since more are wanted.
    Start,
    /// A replica that ended or was lost gets a new attempt.
    Heal,
    /// A replica of the current revision is started, for an old one to go.
    Update,
    /// A replica is started where there are too few, for another to go.
    Rebalance,
    /// A replica gets no new requests and is stopped soon.
    Drain,
    /// A replica is stopped.
    Stop,
    /// A replica did its work and is not started again.
    Complete,
    /// A replica failed too often and is not started again.
    GiveUp,
    /// A replica that runs already is taken over as it is.
    Adopt,
}

/// A replica that ends again and again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashLoop {
    /// The attempt that is to come, or that was given up.
    pub replica: Instance,
    /// Quick failures in a row.
    pub failures: u32,
    /// When it is started again; `None` when it was given up.
    pub next_try: Option<Stamp>,
    /// How its last attempt ended, in a sentence.
    pub reason: String,
    /// The last lines of output of that attempt, oldest first.
    pub last_output: Vec<String>,
}

impl Report {
    /// A sentence for the record of what was done.
    pub fn summary(&self) -> String {
        match self.steps.as_slice() {
            [] => "the order is given again".into(),
            [step] => step.reason.clone(),
            [step, others @ ..] if others.iter().all(|other| other.reason == step.reason) => {
                step.reason.clone()
            }
            [step, others @ ..] => format!("{}; and {} more", step.reason, others.len()),
        }
    }
}
