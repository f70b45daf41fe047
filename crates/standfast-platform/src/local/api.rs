//! What the agent and its clients say to each other over the Unix socket, as JSON.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use standfast_model::{Generation, Instance, ServiceName, StackName, Stamp, ZoneName};

use super::procfs::ProcessId;

/// What an agent says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentInfo {
    /// Its process.
    pub process: ProcessId,
    /// When it was started.
    pub since: Stamp,
    /// The version of its program.
    pub version: String,
    /// Whose replicas it holds.
    pub stack: StackName,
    /// Where it keeps everything.
    pub state_dir: PathBuf,
    /// What marks its processes.
    pub fingerprint: String,
    /// The order it holds.
    pub generation: Generation,
    /// The node it keeps alive, while that runs.
    pub node: Option<NodeInfo>,
    /// Whether it accepts faults.
    pub faults_allowed: bool,
    /// When it takes everything down unless the lease is renewed.
    pub lease_until: Option<Stamp>,
    /// Whether it is taking everything down.
    pub going_down: bool,
    /// What it cannot do here, in sentences.
    pub limitations: Vec<String>,
}

/// The node that an agent keeps alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeInfo {
    /// Its process.
    pub process: ProcessId,
    /// When it was started.
    pub since: Stamp,
    /// How many were started before it.
    pub restarts: u64,
}

/// Listening sockets that the agent shall hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerSpec {
    /// What they are for: `gateway`, `console`.
    pub name: String,
    /// The address.
    pub address: IpAddr,
    /// The port. `None`: the one it had before, else a free one.
    pub port: Option<u16>,
    /// How many sockets share the port, so that each of so many threads has a queue of its own; 1 to [`SOCKETS_MAX`].
    pub sockets: u16,
}

/// The most sockets that one listener may have: they travel in one message, and the kernel's limit is 253.
pub const SOCKETS_MAX: u16 = 250;

/// Sockets that the agent holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundListener {
    /// What they are for.
    pub name: String,
    /// Where they listen.
    pub address: SocketAddr,
}

/// Whose output is asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogSource {
    /// All replicas of a service, past ones included.
    Service(ServiceName),
    /// The node.
    Node,
}

/// A question for log lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogQuery {
    /// Whose.
    pub source: LogSource,
    /// Not older than this.
    pub since: Option<Stamp>,
    /// What follows this place. Without it and without `since`, the last lines are given.
    pub after: Option<LogCursor>,
    /// At most so many lines; the agent gives at most [`LOG_LINES_MAX`].
    pub limit: usize,
}

/// The most lines in one answer.
pub const LOG_LINES_MAX: usize = 10_000;

/// A place in a log, which stays valid when files are closed; lines that were removed meanwhile are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogCursor {
    /// The file's number.
    pub file: u64,
    /// Bytes from its begin.
    pub offset: u64,
}

/// Log lines, oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPage {
    /// The lines.
    pub lines: Vec<LogLine>,
    /// What to send as `after` for those that follow.
    pub next: LogCursor,
}

/// One line of output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// When the agent read it: within about 0.1 s of its being written, while the agent ran.
    pub at: Stamp,
    /// Whose it is: `orders-0.3`.
    pub writer: String,
    /// Where it was written.
    pub stream: LogStream,
    /// The line, without its end.
    pub text: String,
}

/// A process's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogStream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A fault to inject. Its end is kept by the agent, whatever becomes of who asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultOrder {
    /// The caller's name for it: the same order again changes nothing.
    pub id: String,
    /// What is done.
    pub kind: FaultKind,
    /// When it ends; at most [`FAULT_LIFE_MAX`] from now. A kill ends at once.
    pub until: Stamp,
}

/// The longest fault.
pub const FAULT_LIFE_MAX: Duration = Duration::from_secs(3_600);

/// What an agent can break.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum FaultKind {
    /// SIGKILL to the replica's process group, once.
    KillInstance {
        /// Which.
        instance: Instance,
    },
    /// SIGSTOP to the replica's process group, SIGCONT at the end.
    FreezeInstance {
        /// Which.
        instance: Instance,
    },
    /// SIGKILL to all replicas of the zone at once; none is started there until the end.
    LoseZone {
        /// Which.
        zone: ZoneName,
    },
}

/// A fault as the agent sees it now. `bit` is found out by looking at the processes, never by remembering what was
/// done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultSeen {
    /// What was ordered.
    pub order: FaultOrder,
    /// When it was recorded.
    pub since: Stamp,
    /// When it ended, by its time, by being healed, or since a kill is over at once.
    pub ended: Option<Stamp>,
    /// What it was aimed at.
    pub targets: Vec<FaultTarget>,
    /// Starts in a lost zone that were refused: replicas, each counted once.
    pub starts_refused: u64,
    /// Whether it took effect.
    pub bit: bool,
    /// What shows it, in sentences.
    pub evidence: Vec<String>,
}

/// A replica that a fault was aimed at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultTarget {
    /// Which.
    pub instance: Instance,
    /// Its process then.
    pub process: ProcessId,
    /// When it was first seen to be gone (a kill) or stopped (a freeze).
    pub hit: Option<Stamp>,
}

/// What `down` did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DownReport {
    /// Replicas that were stopped.
    pub stopped: usize,
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ErrorBody {
    pub(crate) error: ErrorDetail,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ErrorDetail {
    pub(crate) code: ErrorCode,
    pub(crate) message: String,
    pub(crate) retry: bool,
    /// The order held, when one is refused as stale.
    pub(crate) held: Option<Generation>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ErrorCode {
    Malformed,
    NotFound,
    Forbidden,
    Stale,
    Conflict,
    PortInUse,
    Ledger,
    GoingDown,
}

/// The answer to a wait for a change.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct ChangeBody {
    pub(crate) change: u64,
}
