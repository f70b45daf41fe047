//! The store's promises, held against real files, processes and sockets.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests may")]

mod conformance;
mod crash;
mod embedded;
mod faults;
mod http;
mod model;
#[cfg(feature = "planted-bugs")]
mod planted;
