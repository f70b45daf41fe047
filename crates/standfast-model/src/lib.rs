//! The stack: a folder's bytes in, a checked [`Stack`] or a list of diagnostics out.
//!
//! Everything that two engines share as data is defined here: names, stamps, generations and the stack itself. There is no
//! I/O beyond reading the folder and no async code. A [`Stack`] in hand is valid: nothing downstream checks it again.
//!
//! [`load()`] reads a file, `yaml` makes a tree of it in which everything knows its place, `keys` describes what may be in it
//! (with the means of `shape`) and decodes it, and `check` compares the parts with each other and reads the files that they
//! name. No step stops at the first mistake. [`schema()`] comes from the same descriptions as the decoding.

mod check;
mod diagnostics;
mod dotenv;
mod files;
mod id;
mod interpolate;
mod keys;
mod lifecycle;
mod load;
mod otlp;
mod render;
mod routing;
mod schema;
mod secret;
mod shape;
mod source;
mod stack;
mod stamp;
mod suggest;
mod traffic;
mod units;
mod words;
pub mod workflow;
mod yaml;

pub use diagnostics::{DIAGNOSTICS_MAX, Diagnostic, Diagnostics, Place, Severity};
pub use files::{Disk, FILE_BYTES_MAX, Files};
pub use id::{
    BadName, Generation, Instance, LoadName, ReplicaId, Revision, ServiceName, StackName, ZoneName,
};
pub use lifecycle::{LIFECYCLE_BATCH, LIFECYCLE_TYPES, LifecycleSink};
pub use load::{Loaded, STACK_FILE, WORKFLOWS, is_workflow, load, load_despite_workflows, parse};
pub use otlp::{BadEndpoint, Otlp, OtlpEndpoint};
pub use schema::schema;
pub use secret::{BadSecret, SECRET_BYTES_MAX, Secret, SecretFormat};
pub use stack::{
    Body, Build, Dependency, DependsOn, Deploy, EffectSource, Experiment, Fault, HealthCheck, Invariant,
    Limits, Load, Probe, PublishedPort, RestartCondition, RestartPolicy, Service, Stack, Target,
    UpdateConfig, UpdateOrder, WorkflowFile,
};
pub use stamp::{BadStamp, Stamp, civil_from_days, days_from_civil};
pub use traffic::{
    AccessFormat, AccessLog, Balance, Certificate, Concurrency, Edge, EdgeLimits, External, ExternalAddress,
    FAULT_KEY_BYTES_MIN, FieldMatch, Filters, HashKey, HeaderChanges, KeepAnswers, Mirror, PathMatch,
    PathRewrite, Priority, Protocol, RateLimit, RatePer, Redirect, ReplicaTls, Rewrite, Route, Tls, Traffic,
    ValueMatch, whole,
};
pub use units::{parse_bytes, parse_duration};
