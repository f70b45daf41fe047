//! The port to the running stack: what `prove` must be able to see, break, undo and count.
//!
//! `prove` owns the order of things and all judgement; a target only does and tells. Every fault carries its time to live,
//! which the target keeps by itself: when `prove` dies, the fault still ends.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use standfast_model::{EffectSource, Generation, Instance, ServiceName, Stamp, ZoneName};

/// The stack under test while it runs.
///
/// Each call may be repeated; `prove` drops a call that takes longer than [`CALL_MAX`].
#[async_trait]
pub trait Target: Send + Sync {
    /// What runs now, as seen freshly: a survey that repeats what was true a second ago makes healing look faster than it is.
    ///
    /// # Errors
    /// [`TargetError::Unreachable`], which is expected for a moment after a node was killed.
    async fn survey(&self) -> Result<Survey, TargetError>;

    /// Brings the fault about. Its undo is written down, and its time to live runs, before the fault is there. The same
    /// injection again changes nothing.
    ///
    /// # Errors
    /// Nothing was broken.
    async fn inject(&self, injection: &Injection) -> Result<(), TargetError>;

    /// Whether the fault is there, from evidence other than "the call returned": the process is gone, its state is `T`, no
    /// process is left in the zone. Asked again until it bit or [`crate::Pace::verify_max`] passed.
    ///
    /// # Errors
    /// It cannot be told; it is asked again.
    async fn verify(&self, injection: &Injection) -> Result<Bite, TargetError>;

    /// Ends the fault: SIGCONT, the zone takes replicas again. For kills it only forgets the injection. An unknown id is
    /// fine, and so is the same id again.
    ///
    /// # Errors
    /// The fault may still be there; it is tried again.
    async fn heal(&self, id: &InjectionId) -> Result<(), TargetError>;

    /// Whether nothing of the fault is left: the frozen process runs or is gone, the zone is available. For kills it is true
    /// at once. Whether the *system* healed is judged by surveys and by traffic, not by this.
    ///
    /// # Errors
    /// It cannot be told; it is asked again.
    async fn is_restored(&self, injection: &Injection) -> Result<bool, TargetError>;

    /// All effects that a source holds, read past any cache, whole: pages are joined by the target.
    ///
    /// # Errors
    /// They cannot be read; it is tried again.
    async fn effects(&self, source: &EffectSource) -> Result<Vec<Effect>, TargetError>;

    /// All runs of a workflow, `NAMESPACE/NAME` or `NAMESPACE/NAME/VERSION`, those that have ended included.
    ///
    /// # Errors
    /// They cannot be read; it is tried again.
    async fn runs(&self, workflow: &str) -> Result<Vec<RunSeen>, TargetError>;
}

/// How long one call to a target may take.
pub const CALL_MAX: Duration = Duration::from_secs(5);

/// What is seen of the running stack.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survey {
    /// When it was seen.
    pub at: Stamp,
    /// The order that the platform carries out.
    pub generation: Generation,
    /// All replicas that run or are about to, in any order; ended ones may be left out.
    pub replicas: Vec<SurveyedReplica>,
    /// The zones, and whether replicas can run there.
    pub zones: BTreeMap<ZoneName, bool>,
    /// How many replicas each service shall have.
    pub wanted: BTreeMap<ServiceName, u32>,
    /// The node's process, where there is one.
    pub node_pid: Option<u32>,
    /// The agent's process, where there is one.
    pub agent_pid: Option<u32>,
    /// Whether the system itself says that all is as wanted.
    pub all_ready: bool,
    /// Where the gateway takes requests from outside.
    pub public: SocketAddr,
    /// Where the node takes starts of workflows.
    pub starts: SocketAddr,
}

/// A replica in a survey.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SurveyedReplica {
    /// Which start of which replica.
    pub instance: Instance,
    /// Where it runs.
    pub zone: ZoneName,
    /// Its process, where there is one.
    pub pid: Option<u32>,
    /// Whether the system takes it for ready and would send it requests.
    pub is_serving: bool,
}

impl Survey {
    /// Whether an instance counts as ready.
    pub fn is_serving(&self, instance: &Instance) -> bool {
        self.replicas.iter().any(|replica| replica.is_serving && replica.instance == *instance)
    }

    /// Whether each service has its wanted number of ready replicas without counting `victims`, and the system agrees.
    pub fn is_whole_without(&self, victims: &[Instance]) -> bool {
        let serving = |service: &ServiceName| {
            let of_service = |replica: &&SurveyedReplica| {
                replica.is_serving
                    && replica.instance.replica.service == *service
                    && !victims.contains(&replica.instance)
            };
            self.replicas.iter().filter(of_service).count()
        };
        self.all_ready && self.wanted.iter().all(|(service, wanted)| serving(service) >= *wanted as usize)
    }
}

/// The name of one injection: unique within a run and, by the run's own name, across runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InjectionId(pub String);

impl fmt::Display for InjectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A fault with its target, ready to be brought about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injection {
    /// Its name.
    pub id: InjectionId,
    /// What is done, to what.
    pub act: Act,
    /// After this time the target undoes it by itself, in milliseconds.
    #[serde(rename = "ttl_ms", with = "crate::millis")]
    pub ttl: Duration,
}

/// What is done, to what. Process ids are those of the survey by which the target was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "act")]
pub enum Act {
    /// `kill -9` of an instance.
    KillInstance {
        /// Which.
        instance: Instance,
        /// Its process.
        pid: Option<u32>,
    },
    /// SIGSTOP to an instance, until healed.
    FreezeInstance {
        /// Which.
        instance: Instance,
        /// Its process.
        pid: Option<u32>,
    },
    /// All replicas of a zone are killed and none may start there, until healed.
    LoseZone {
        /// Which.
        zone: ZoneName,
        /// The instances that ran there.
        victims: Vec<Instance>,
    },
    /// `kill -9` of the node.
    KillNode {
        /// Its process.
        pid: Option<u32>,
    },
    /// `kill -9` of the agent.
    KillAgent {
        /// Its process.
        pid: Option<u32>,
    },
}

impl Act {
    /// The instances that cannot serve while the fault is there.
    pub fn victims(&self) -> &[Instance] {
        match self {
            Self::KillInstance { instance, .. } | Self::FreezeInstance { instance, .. } => {
                std::slice::from_ref(instance)
            }
            Self::LoseZone { victims, .. } => victims,
            Self::KillNode { .. } | Self::KillAgent { .. } => &[],
        }
    }

    /// Whether the victims never come back as the same instance.
    pub const fn kills_its_victims(&self) -> bool {
        !matches!(self, Self::FreezeInstance { .. })
    }

    /// What is done, in words: `kill replica`.
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::KillInstance { .. } => "kill replica",
            Self::FreezeInstance { .. } => "freeze replica",
            Self::LoseZone { .. } => "lose zone",
            Self::KillNode { .. } => "kill node",
            Self::KillAgent { .. } => "kill agent",
        }
    }

    /// To what, in words that go after the verb: `orders-1`, `b (3 replicas)`, `pid 4711`.
    pub fn object(&self) -> String {
        match self {
            Self::KillInstance { instance, .. } | Self::FreezeInstance { instance, .. } => {
                instance.replica.to_string()
            }
            Self::LoseZone { zone, victims } => format!("{zone} ({} replicas)", victims.len()),
            Self::KillNode { pid: Some(pid) } | Self::KillAgent { pid: Some(pid) } => format!("pid {pid}"),
            Self::KillNode { pid: None } | Self::KillAgent { pid: None } => "its process".to_owned(),
        }
    }
}

/// Whether a fault is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bite {
    /// Whether it is.
    pub bit: bool,
    /// What was seen, in a sentence without a full stop: `pid 4711 is gone`.
    pub evidence: String,
}

/// One recorded effect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Effect {
    /// Its key in the source's space.
    pub key: String,
    /// Its value, as stored.
    pub value: Vec<u8>,
}

/// A run of a workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSeen {
    /// Its id.
    pub id: String,
    /// What it was given.
    pub input: serde_json::Value,
    /// `completed`, `faulted`, `cancelled`, or another word when it goes on.
    pub status: String,
    /// When it was started.
    pub started_at: Stamp,
    /// When something last happened to it: for a run that has ended, when that was.
    pub changed_at: Stamp,
}

impl RunSeen {
    /// Whether it has ended, however.
    pub fn has_ended(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "faulted" | "cancelled")
    }
}

/// What can go wrong between `prove` and the stack under test.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It did not answer, or not legibly: it may be asked again.
    #[error("the stack under test cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It will not do this, and asking again does not help.
    #[error("the stack under test refused: {0}")]
    Refused(String),
}
