//! What the node's admin interface says: versioned JSON, the same that `--json` prints.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use standfast_gateway::FaultStatus;
use standfast_model::{ServiceName, StackName, Stamp, ZoneName};

/// The version of these answers. Fields may be added within a version; none is removed or changes its meaning.
pub const ANSWERS_VERSION: u32 = 1;

/// How a running stack is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StatusAnswer {
    /// [`ANSWERS_VERSION`].
    pub version: u32,
    /// When this was true.
    pub at: Stamp,
    /// The stack's name.
    pub stack: StackName,
    /// Whether every service has its wanted number of ready replicas, spread as wanted, and nothing is under way.
    pub all_ready: bool,
    /// Why not, in sentences.
    pub waiting: Vec<String>,
    /// The node's process.
    pub node_pid: u32,
    /// The agent's process.
    pub agent_pid: Option<u32>,
    /// The number of the order that the platform holds.
    pub generation: u64,
    /// Where the gateway takes requests from outside.
    pub public: SocketAddr,
    /// Where the state API is.
    pub state_api: SocketAddr,
    /// The zones.
    pub zones: BTreeMap<ZoneName, ZoneAnswer>,
    /// The services.
    pub services: BTreeMap<ServiceName, ServiceAnswer>,
    /// What cannot be done on this machine, in sentences.
    pub limitations: Vec<String>,
}

/// A zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneAnswer {
    /// Whether replicas can run there.
    pub available: bool,
    /// Why not.
    pub reason: Option<String>,
}

/// A service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceAnswer {
    /// Replicas wanted.
    pub wanted: u32,
    /// Replicas ready.
    pub ready: u32,
    /// Ready replicas by zone.
    pub zones: BTreeMap<ZoneName, u32>,
    /// Replacements after a failure since the stack came up.
    pub restarts: u64,
    /// Why the last replica ended or was replaced.
    pub last_reason: Option<String>,
    /// Requests that the gateway carried to it, and what became of them, since this node started.
    pub requests: RequestsAnswer,
    /// Its replicas.
    pub replicas: Vec<ReplicaAnswer>,
}

/// Requests carried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestsAnswer {
    /// Requests.
    pub total: u64,
    /// Answered with 5xx, or not at all.
    pub failed: u64,
    /// Attempts beyond the first.
    pub retried: u64,
}

/// A replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplicaAnswer {
    /// Which start of which replica: `orders-0.3`.
    pub instance: String,
    /// Its service and slot: `orders-0`.
    pub replica: String,
    /// Which start.
    pub attempt: u64,
    /// Where it runs.
    pub zone: ZoneName,
    /// Its process.
    pub pid: Option<u32>,
    /// Whether it is ready.
    pub ready: bool,
    /// How it is, in a few words.
    pub state: String,
    /// Where it listens.
    pub endpoint: Option<SocketAddr>,
    /// Starts in a row that failed.
    pub failures: u32,
    /// Its last output, when it ended badly.
    pub last_output: Vec<String>,
}

/// What would change, or what was changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanAnswer {
    /// [`ANSWERS_VERSION`].
    pub version: u32,
    /// The plan's number: `apply --plan` refuses when the world moved since.
    pub plan: String,
    /// What is done, in order. Empty: nothing would change.
    pub steps: Vec<StepAnswer>,
    /// What must be waited for, in sentences.
    pub waiting: Vec<String>,
    /// Differences between the running stack and this one, in sentences.
    pub changes: Vec<String>,
    /// Whether the stack runs. If not, this is its first start, which `up` carries out; `apply` changes what runs.
    #[serde(default = "runs")]
    pub running: bool,
}

/// Only running stacks had plans before the field was there.
const fn runs() -> bool {
    true
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepAnswer {
    /// What is done: `start`, `drain`, `stop`, …
    pub act: String,
    /// To what: `orders-0 in zone a`.
    pub what: String,
    /// Why, in a sentence.
    pub reason: String,
    /// What users notice, in a sentence.
    pub impact: String,
}

/// Faults that are injected in the gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultsAnswer {
    /// [`ANSWERS_VERSION`].
    pub version: u32,
    /// Those in force, and then those that ended lately.
    pub faults: Vec<FaultStatus>,
}

/// An error of the admin interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// A word that programs can match on: `moved`, `no_stack`, `unavailable`, `refused`.
    pub code: String,
    /// What happened, for people.
    pub message: String,
    /// The causes, outermost first.
    pub causes: Vec<String>,
}
