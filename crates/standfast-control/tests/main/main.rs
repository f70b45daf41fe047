//! Tests of the control through its public types.

mod loops;
mod properties;
mod refusals;
mod scenarios;
mod support;
