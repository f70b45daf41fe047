//! The platform from outside: real agents, real processes, and the simulated platform beside them.
#![expect(clippy::disallowed_methods, reason = "tests wait on the real machine")]
#![expect(clippy::unwrap_used, reason = "tests; clippy does not know helpers of tests as such")]

mod conformance;
mod crashes;
mod faults;
mod figures;
mod harness;
mod logs;
mod replicas;
mod sockets;
