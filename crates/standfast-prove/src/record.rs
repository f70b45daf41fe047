//! What happened in a run: everything that judging and reporting need beside the journal. Versioned JSON.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use standfast_model::{Instance, Invariant, LoadName, Probe, ServiceName, Stack, StackName, Stamp};

use crate::config::{Options, Thresholds};
use crate::load::GeneratorLoad;
use crate::meter::Measured;
use crate::request;
use crate::schedule::{Plan, Step};
use crate::starts::WorkflowFacts;
use crate::target::{Bite, Injection};

/// The version of [`Record`] that is written.
pub const RECORD_VERSION: u32 = 1;

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The format's version.
    pub version: u32,
    /// The version of the program that made it.
    pub program: String,
    /// The run's name, with which each request's id begins.
    pub run: String,
    /// The stack.
    pub stack: StackName,
    /// How it was run.
    pub options: Options,
    /// What was to be broken.
    pub plan: Plan,
    /// What was sent.
    pub loads: Vec<LoadFacts>,
    /// The services that were there.
    pub services: Vec<ServiceFacts>,
    /// What must hold.
    pub invariants: Vec<Invariant>,
    /// When the run began.
    pub started_at: Stamp,
    /// When the load began.
    pub load_from: Stamp,
    /// When its last request was due, at most.
    pub load_until: Stamp,
    /// When the run ended.
    pub ended_at: Stamp,
    /// What was broken, in order.
    pub faults: Vec<FaultRecord>,
    /// What was measured.
    pub measured: Measured,
    /// What the generator says of itself; `None` when it died.
    pub generator: Option<GeneratorLoad>,
    /// How the end was.
    pub quiet: Quiet,
    /// Effects that were there before the load began, and are not judged.
    pub effects_before: u64,
    /// What became of the runs of workflows, by load; none in records before 0.3.
    #[serde(default)]
    pub workflows: Vec<WorkflowFacts>,
    /// Why the run ended.
    pub ended: Ended,
}

/// A load, as far as judging needs it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoadFacts {
    /// Its name.
    pub name: LoadName,
    /// Arrivals a second.
    pub rate_per_second: f64,
    /// Whether a request may be repeated by whoever carries it, so that no kill of a replica need show.
    pub is_repeatable: bool,
}

/// A service, as far as judging needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceFacts {
    /// Its name.
    pub name: ServiceName,
    /// How many replicas it shall have.
    pub replicas: u32,
    /// Whether its probe needs the process to run: an open port does not.
    pub probe_sees_a_freeze: bool,
    /// How long a dead or frozen replica may count as ready, in milliseconds; `None` when nothing is probed.
    pub ready_lag_max_ms: Option<u64>,
}

/// One fault of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultRecord {
    /// The planned step.
    pub step: Step,
    /// What was done; `None` when there was no target.
    pub injection: Option<Injection>,
    /// When it was ordered.
    pub injected_at: Stamp,
    /// Whether it was seen to be there.
    pub bite: Bite,
    /// When that was seen.
    pub bit_at: Option<Stamp>,
    /// When its undo was ordered; for kills, directly after the bite.
    pub undone_at: Option<Stamp>,
    /// When nothing of it was left; `None` when that was never seen.
    pub restored_at: Option<Stamp>,
    /// When all wanted replicas were ready again.
    pub whole_at: Option<Stamp>,
    /// When all wanted replicas were ready and requests ended well again; `None` when that was never seen.
    pub healed_at: Option<Stamp>,
    /// Until when its effects on requests are looked for: the end of its settling.
    pub over_at: Stamp,
    /// What surveys said of the victims.
    pub readiness: Readiness,
}

/// What surveys said of victims while the fault was there.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Readiness {
    /// Surveys that had an answer after the bite and before the undo.
    pub surveys: u64,
    /// The last time that a victim still counted as ready, after the bite and before the undo.
    pub last_called_ready_at: Option<Stamp>,
    /// Which victim that was.
    pub victim: Option<Instance>,
    /// The last survey after the bite and before the undo.
    pub last_survey_at: Option<Stamp>,
}

/// How the end of a run was.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quiet {
    /// Whether everything came to rest in time.
    pub is_reached: bool,
    /// How long it took, in milliseconds.
    pub after_ms: u64,
    /// What was still amiss, in a sentence; empty when nothing was.
    pub amiss: String,
}

/// Why a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum Ended {
    /// The plan was carried out.
    Planned,
    /// The caller stopped it.
    Stopped,
    /// The stack was never steady before the first fault.
    NeverSteady {
        /// What was amiss.
        amiss: String,
    },
    /// The stack did not heal, so no more was broken.
    NotHealed {
        /// What was amiss.
        amiss: String,
    },
    /// A fault could not be undone, so no more was broken.
    NotRestored,
    /// The overall deadline passed.
    Deadline,
    /// The run itself failed.
    Failed {
        /// Why.
        reason: String,
    },
}

impl LoadFacts {
    pub(crate) fn of(stack: &Stack) -> Vec<Self> {
        let facts = |load: &standfast_model::Load| Self {
            name: load.name.clone(),
            rate_per_second: load.rate_per_second,
            is_repeatable: request::is_repeatable(load),
        };
        stack.load.values().map(facts).collect()
    }
}

/// So many probes may go unanswered before a replica is unready.
const SILENCES_MAX: u32 = 2;

impl ServiceFacts {
    pub(crate) fn of(stack: &Stack, thresholds: &Thresholds) -> Vec<Self> {
        let facts = |service: &standfast_model::Service| {
            let check = &service.healthcheck;
            // Who says no is unready with the next probe; who is silent is asked a second time, at once, before that is believed. It takes
            // no `retries` failures as liveness does, unless that is one.
            let silence = check.timeout * SILENCES_MAX.min(check.retries.max(1));
            let lag = check.interval + silence + thresholds.probe_slack;
            Self {
                name: service.name.clone(),
                replicas: service.deploy.replicas,
                // The kernel goes on accepting connections for a stopped process.
                probe_sees_a_freeze: matches!(check.probe, Probe::Http { .. }),
                ready_lag_max_ms: (check.probe != Probe::None).then(|| millis(lag)),
            }
        };
        stack.services.values().map(facts).collect()
    }
}

impl FaultRecord {
    /// From the order to the time when all was well again.
    pub fn time_to_heal(&self) -> Option<Duration> {
        self.healed_at.map(|at| at.since(self.injected_at))
    }

    /// What was done, in words: `kill replica`.
    pub fn verb(&self) -> &'static str {
        use crate::schedule::Strike;
        match (&self.injection, &self.step.strike) {
            (Some(injection), _) => injection.act.verb(),
            (None, Strike::KillReplica { .. }) => "kill replica",
            (None, Strike::FreezeReplica { .. }) => "freeze replica",
            (None, Strike::LoseZone { .. }) => "lose zone",
            (None, Strike::KillNode) => "kill node",
            (None, Strike::KillAgent) => "kill agent",
        }
    }

    /// To what, in words: `orders-1`.
    pub fn object(&self) -> String {
        self.injection.as_ref().map_or_else(|| "nothing".to_owned(), |injection| injection.act.object())
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
