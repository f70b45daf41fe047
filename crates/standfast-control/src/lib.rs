//! The control: keeps what runs equal to what is wanted.
//!
//! It wakes without data, observes, plans ([`plan()`], a pure function), checks the plan ([`check()`]), makes it the target in the
//! store if its parent still is, and gives the order to the platform. First start, change, healing, scaling, drain and
//! repair are this one path. Read `service.rs` first, then `plan/mod.rs`.
//!
//! Invariants: one blueprint at a time is the target, and each was made from the one before; attempt numbers of a replica only
//! grow; nothing that serves is taken away by choice unless enough that serves stays. The loop stops between two rounds, and
//! nothing that it started stops with it.

mod blueprint;
mod check;
mod config;
mod error;
mod execute;
mod handle;
mod history;
mod plan;
mod policy;
mod service;
mod status;
mod tables;

pub use blueprint::{
    Blueprint, BlueprintId, Ending, FORMAT, Failure, PlannedIntent, PlannedReplica, ReadBlueprintError,
    ServiceLedger,
};
pub use check::{CheckError, check};
pub use config::{CRASH_LOOP, DRAIN, HISTORY_MAX, PERIOD, QUICK};
pub use error::{HistoryError, NotReady, ReachError, RequestError, RunError, TickError};
pub use execute::order;
pub use handle::{Done, Handle, Request};
pub use plan::{
    Change, ChangeKind, CrashLoop, Occasion, Plan, Report, RestartTarget, Step, StepKind, plan, plan_for,
};
pub use policy::{Policy, StackDigest};
pub use service::{Control, Parts};
pub use status::{
    Phase, PlanId, PlanPreview, ReplicaStatus, Role, ServiceStatus, Status, TargetStatus, ZoneCount,
};
pub use tables::Event;
