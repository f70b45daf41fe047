//! Tests of the control through its public types.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

mod loops;
mod properties;
mod refusals;
mod scenarios;
mod support;
