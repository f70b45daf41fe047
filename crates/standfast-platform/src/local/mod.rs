//! This machine: replicas are process groups, zones are labels with a loopback subnet each, and an *agent* answers for
//! all of it.
//!
//! The agent is a small process of its own (`standfast agent --state DIR`). It owns the replicas, their output and the
//! listening sockets, and keeps the node alive. Nothing else is needed for traffic to flow, so any process may be
//! killed at any time:
//!
//! - *The node dies*: replicas and sockets are untouched; the agent starts the next node, which takes the sockets and
//!   finds the connections that waited.
//! - *The agent dies*: replicas and node run on. The node starts the next agent ([`respawn_agent`]) and gives it the
//!   sockets back; it reads the ledger, adopts the processes that still live, and kills those that carry its mark but
//!   are not in the ledger.
//! - *A replica dies*: its end is in the inventory within milliseconds, and whatever it left behind is killed.
//!
//! Reading order: `agent` (the start and the end), `keeper` (what is wanted becomes what runs), `supervise` (one
//! replica), `adopt` (after a crash), `faults`, `listeners`, `logs`. `state` and `ledger` are what is held and what is
//! written of it; `decide` and `health` decide, without hands.

mod ability;
mod address;
mod adopt;
mod agent;
mod api;
mod cgroup;
mod client;
mod config;
mod core;
mod doubt;
mod environment;
mod faults;
mod health;
mod keeper;
mod ledger;
mod listeners;
mod logs;
mod node;
mod platform;
mod probe;
mod process;
mod procfs;
mod server;
mod sockets;
mod spawn;
mod state;
mod supervise;

pub use ability::limits_limitation;
pub use agent::{Agent, RunError};
pub use api::{
    AgentInfo, BoundListener, DownReport, FAULT_LIFE_MAX, FaultKind, FaultOrder, FaultSeen, FaultTarget,
    LOG_LINES_MAX, ListenerSpec, LogCursor, LogLine, LogPage, LogQuery, LogSource, LogStream, NodeInfo,
    SOCKETS_MAX,
};
pub use client::{AgentClient, AgentError, TakenSockets, reachable as reachable_socket};
#[cfg(feature = "planted-bugs")]
pub use config::PlantedBug;
pub use config::{AgentConfig, LogLimits, STATE_VERSION, StateDir, basic_environment};
pub use platform::LocalPlatform;
pub use procfs::{INSTANCE_VARIABLE, ProcessId, listener_of};
pub use spawn::{respawn_agent, spawn_agent};
