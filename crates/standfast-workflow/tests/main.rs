//! Workflows from the outside.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod expressions;
mod suite;
