//! Durable workflows: documents are compiled, and each run is driven through its journal to an end.
//!
//! The way through: `standfast_model::workflow` reads a document, `program` makes of it what is run, `engine` starts runs and drives
//! them, `decide` says what comes next and `run` folds that in, `ask` writes what a task asks outside and `perform` does it.
//! `expression` is the only place that knows jq.

pub mod api;
mod ask;
mod check;
mod decide;
mod engine;
mod expression;
mod perform;
mod program;
mod rehearse;
mod render;
mod run;
mod sealed;
mod secrets;

pub use ask::{
    ANSWER_BYTES_MAX, ANSWER_TIME_MAX, AgentRequest, Answer, Asked, BuiltInRequest, Client, Credential,
    GrpcRequest, Heartbeat, Hidden, HttpAnswer, HttpRequest, McpRequest, McpTransport, ProcessAnswer,
    ProcessProgram, ProcessRequest, Request, RunRequest, TokenWanted, VALUE_KEY_BYTES_MAX, ValueOperation,
};
pub use check::{check_document, check_text};
pub use decide::{
    Cause, Remark, SIGNAL_TYPE, STEPS_MAX, Turn, UNDO_BYTES_MAX, VALUE_BYTES_MAX, World, decide,
};
pub use engine::{
    BadDefinition, BadTaskRef, Definition, EVENTS_KEPT_FOR, Engine, EngineConfig, Filter, Found, Invoke,
    JournalError, KEPT_FOR, KeptValue, LIFECYCLE_MAX, Lifecycle, LockWait, Migration, OpenTask,
    RUN_BYTES_MAX, Refused, SINK_BATCH, STATUS_WORDS, Scheduled, Shown, Sink, SinkStatus, Stuck, StuckKind,
    Summary, TaskFilter, TaskRef, Told,
};
pub use expression::{Evaluator, EvaluatorConfig, ExpressionFailed, serve_expressions};
#[cfg(feature = "trial")]
pub use expression::{Trial, Variable};
pub use perform::{
    BadResource, Direct, FolderAndNetwork, HttpError, HttpSender, RESOURCE_BYTES_MAX, ReadResource,
};
pub use program::{Incomplete, Program, Resources, Unsupported, WorkflowName, compile, compile_with};
pub use rehearse::{Mismatch, Rehearsed, rehearse};
pub use render::mermaid;
pub use run::{
    Admitted, Again, BadRunId, Digest, Event, Last, Limits, Listening, Migrated, NotUndone, Origin, Phase,
    Problem, RateLimit, Record, Run, RunId, Scope, ScopeId, Signal, SlotHeld, SlotLimit, Standard, State,
    Status, Taken, Undo, Undone, lifecycle, undone_by,
};
pub use sealed::{BadKeyFile, Keys, SealError, WrongKeyFile, sealed};
pub use secrets::Secrets;
