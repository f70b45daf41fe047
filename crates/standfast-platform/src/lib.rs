//! Where replicas run: the promise ([`Platform`]) and its two keepers, the local agent and a simulated one.

#[cfg(feature = "conformance")]
pub mod conformance;
mod decide;
pub mod local;
mod port;
pub mod simulated;

pub use port::{
    Applied, ExitReason, Intent, Inventory, Launch, Platform, PlatformError, ReplicaState, SeenReplica,
    Wanted, WantedReplica, ZoneState,
};
