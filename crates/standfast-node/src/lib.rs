//! The composition root: builds a node out of its engines, adapts their ports to each other, and answers on the admin socket; and what starts,
//! finds and proves running stacks. `alone` runs a gateway without the rest.
//!
//! Read `build.rs` first. Engines know nothing of each other: `wiring` gives the gateway its sockets and replicas their addresses, `adapt` turns
//! control's status into the gateway's snapshot, `externals` watches services that others run, `edge` and `replica_tls` certificates, `fault_key`
//! the key of signed faults, `guard` keeps the agent alive, `reserve` keeps room on the disk for healing, `signals` has spans sent, `gateway_admin`
//! gives metrics, `target` shows
//! the running stack to `prove`, `workflows` runs its workflows.

mod adapt;
mod admin;
mod alone;
mod answers;
mod build;
mod calls;
mod client;
mod edge;
mod externals;
mod fault_key;
mod fault_place;
mod gateway_admin;
mod gateway_client;
mod guard;
mod launch;
mod line;
pub mod machine;
#[cfg(feature = "planted-bugs")]
mod plant;
mod preview;
mod replica_tls;
mod reserve;
mod settings;
mod signals;
mod stack_secrets;
mod target;
mod wiring;
mod workflows;

pub use alone::{AloneError, AloneObserver, AloneOptions, run_gateway};
pub use answers::{
    ANSWERS_VERSION, ErrorAnswer, FaultsAnswer, PlanAnswer, ReplicaAnswer, RequestsAnswer, ServiceAnswer,
    StatusAnswer, StepAnswer, ZoneAnswer,
};
pub use build::{BuildError, Node, build, run_agent, run_node};
pub use client::{AdminClient, AdminError};
pub use fault_key::{FaultKeyError, read_fault_key};
pub use gateway_client::GatewayClient;
pub use launch::{LaunchError, LaunchOptions, Running, Scratch, last_words, launch};
pub use machine::limits_limitation;
#[cfg(feature = "planted-bugs")]
pub use plant::PLANTS;
pub use preview::first_start;
pub use settings::{LAYOUT_VERSION, Settings, SettingsError};
pub use signals::otlp_of;
pub use standfast_gateway::{
    BadFault, BadKey, Fault as GatewayFault, FaultKey, FaultState, FaultStatus, Filter as RequestFilter,
    Record as RequestRecord,
};
pub use target::LocalTarget;
