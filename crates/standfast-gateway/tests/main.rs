//! What the gateway promises, with real sockets and replicas in this process.
#![expect(clippy::unwrap_used, reason = "helpers of tests count as tests")]

mod bodies;
mod failures;
mod lifecycle;
mod limits;
mod replica;
mod rig;
mod routing;
