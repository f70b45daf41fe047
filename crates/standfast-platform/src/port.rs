use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use standfast_model::{Generation, HealthCheck, Instance, Limits, Revision, ServiceName, Stamp, ZoneName};
use tokio::sync::watch;

/// Where replicas run.
///
/// It never decides: it starts what is wanted, stops what is not, examines what runs, and tells what it saw. It does
/// not start an ended instance again: the planner wants a new attempt.
#[async_trait]
pub trait Platform: Send + Sync {
    /// What is there now. It may be partial and is old when it arrives.
    ///
    /// # Errors
    /// [`PlatformError::Unreachable`] when nothing can be said.
    async fn observe(&self) -> Result<Inventory, PlatformError>;

    /// Takes `wanted` as the new order and starts to carry it out. The order is durable when this returns; carrying it
    /// out shows in later inventories. The same order again changes nothing.
    ///
    /// # Errors
    /// [`PlatformError::Stale`] when a higher generation, or another order of the same one, is held.
    async fn apply(&self, wanted: &Wanted) -> Result<Applied, PlatformError>;

    /// Changes whenever a new inventory would differ. It carries no data: observe again.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// An order: all that shall run. What is not in it is stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Wanted {
    /// The order's number.
    pub generation: Generation,
    /// How to start replicas of a revision.
    pub launches: BTreeMap<Revision, Launch>,
    /// The replicas.
    pub replicas: Vec<WantedReplica>,
    /// Variables that every replica in a zone gets, `<SERVICE>_URL` and `STANDFAST_STATE_URL` among them; those of the
    /// launch come before.
    pub zone_environment: BTreeMap<ZoneName, BTreeMap<String, String>>,
    /// Variables that every replica of a service gets, over those of its zone.
    pub service_environment: BTreeMap<ServiceName, BTreeMap<String, String>>,
}

/// How to start a replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Launch {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where it runs: absolute.
    pub working_dir: PathBuf,
    /// Its own variables.
    pub environment: BTreeMap<String, String>,
    /// How it is examined.
    pub healthcheck: HealthCheck,
    /// What it may use.
    pub limits: Limits,
    /// From SIGTERM to SIGKILL.
    pub stop_grace_period: Duration,
}

/// A replica that shall run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedReplica {
    /// Which start of which replica.
    pub instance: Instance,
    /// What it runs.
    pub revision: Revision,
    /// Where.
    pub zone: ZoneName,
    /// Not to be started before.
    pub not_before: Stamp,
    /// Whether new requests go to it.
    pub intent: Intent,
}

/// What a wanted replica is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// To serve.
    Run,
    /// To finish what it has; it gets nothing new and is stopped soon.
    Drain,
}

/// What a platform saw.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Default)]
pub struct Inventory {
    /// When.
    pub at: Stamp,
    /// The order held.
    pub generation: Generation,
    /// The zones.
    pub zones: BTreeMap<ZoneName, ZoneState>,
    /// All replicas, ended ones too until an order leaves them out; sorted by instance.
    pub replicas: Vec<SeenReplica>,
    /// What this platform cannot do here, in sentences ("memory limits are not enforced: …").
    pub limitations: Vec<String>,
}

/// A zone's state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ZoneState {
    /// Whether replicas can start and serve there.
    pub available: bool,
    /// Why not, in a sentence.
    pub reason: Option<String>,
}

/// A replica as seen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeenReplica {
    /// Which start of which replica.
    pub instance: Instance,
    /// What it runs.
    pub revision: Revision,
    /// Where.
    pub zone: ZoneName,
    /// The order that started it.
    pub generation: Generation,
    /// Its process, where there is one.
    pub pid: Option<u32>,
    /// How it is.
    pub state: ReplicaState,
}

/// How a replica is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum ReplicaState {
    /// Not started yet: its time has not come, or its zone is lost.
    Pending {
        /// Why, in a sentence.
        reason: String,
    },
    /// Started, not ready yet.
    Starting {
        /// When it was started.
        since: Stamp,
        /// Where it will listen.
        endpoint: SocketAddr,
    },
    /// Ready.
    Serving {
        /// When it became ready the last time.
        since: Stamp,
        /// Where it listens.
        endpoint: SocketAddr,
    },
    /// Was ready; its probe fails now.
    Unready {
        /// Since when.
        since: Stamp,
        /// Where it listens.
        endpoint: SocketAddr,
        /// What the probe said.
        reason: String,
    },
    /// Asked to stop.
    Stopping {
        /// When it was asked.
        since: Stamp,
    },
    /// Ended.
    Exited {
        /// When.
        at: Stamp,
        /// Why.
        reason: ExitReason,
        /// How long it had been ready; `None` when it never was.
        served: Option<Duration>,
        /// Its last lines of output, oldest first, at most 20.
        last_output: Vec<String>,
    },
}

/// Why a replica ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// Gone while nobody could watch, or a process that is not our child: no status is known.
    Unknown,
    /// Killed since its probe failed too often.
    Unhealthy(String),
    /// It could not be started.
    NotStarted(String),
    /// Stopped as ordered.
    Stopped,
}

impl std::fmt::Display for ExitReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "ended by signal {signal}"),
            Self::Unknown => write!(f, "ended while nobody watched"),
            Self::Unhealthy(why) => write!(f, "killed as unhealthy: {why}"),
            Self::NotStarted(why) => write!(f, "could not be started: {why}"),
            Self::Stopped => write!(f, "stopped as ordered"),
        }
    }
}

impl SeenReplica {
    /// Where it listens, whether ready or not.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        match &self.state {
            ReplicaState::Starting { endpoint, .. }
            | ReplicaState::Serving { endpoint, .. }
            | ReplicaState::Unready { endpoint, .. } => Some(*endpoint),
            _ => None,
        }
    }

    /// Whether it is ready.
    pub fn is_serving(&self) -> bool {
        matches!(self.state, ReplicaState::Serving { .. })
    }

    /// Whether it has ended.
    pub fn has_exited(&self) -> bool {
        matches!(self.state, ReplicaState::Exited { .. })
    }
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applied {
    /// It is the new order.
    Taken,
    /// It was held already.
    Unchanged,
}

/// What can go wrong between the planner and a platform.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// A newer order is held: plan again.
    #[error("order {sent} is older than order {held}, which is held")]
    Stale {
        /// The order sent.
        sent: Generation,
        /// The order held.
        held: Generation,
    },
    /// The platform did not answer: try again.
    #[error("the platform cannot be reached")]
    Unreachable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The platform could not make the order durable.
    #[error("the order could not be written down")]
    Ledger(#[source] std::io::Error),
    /// The platform refused the order as malformed.
    #[error("the platform refused the order: {0}")]
    Refused(String),
}
