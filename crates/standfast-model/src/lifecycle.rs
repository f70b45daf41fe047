//! Where the lifecycle events of workflows are sent (`workflows.lifecycle` of a stack).

use serde::{Deserialize, Serialize};

/// The types of lifecycle events of the language, without `io.serverlessworkflow.` and `.v1`.
pub const LIFECYCLE_TYPES: [&str; 18] = [
    "workflow.started",
    "workflow.suspended",
    "workflow.resumed",
    "workflow.correlation-started",
    "workflow.correlation-completed",
    "workflow.cancelled",
    "workflow.faulted",
    "workflow.completed",
    "workflow.status-changed",
    "task.created",
    "task.started",
    "task.suspended",
    "task.resumed",
    "task.retried",
    "task.cancelled",
    "task.faulted",
    "task.completed",
    "task.status-changed",
];

/// Most events in one request, unless the stack says another number.
pub const LIFECYCLE_BATCH: u32 = 100;

/// Where the lifecycle events of workflows are sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LifecycleSink {
    /// The address: `http://` or `https://`; a service of the stack by its name.
    pub sink: String,
    /// Which of [`LIFECYCLE_TYPES`]; all when there are none.
    pub types: Vec<String>,
    /// Most events in one request; with 1 each is sent by itself.
    pub batch: u32,
    /// The secret of the stack that is shown as a bearer token.
    pub bearer: Option<String>,
}
