//! The exit codes, documented in `docs/cli.md`.

/// Done; for `prove`: it held.
pub(crate) const DONE: u8 = 0;
/// What was run or tested failed: a workflow faulted, a case is not as expected.
pub(crate) const UNDER_TEST: u8 = 1;
/// The user's input, or the machine's state, does not allow it.
pub(crate) const INPUT: u8 = 2;
/// Ours: something failed that the user could not have prevented.
pub(crate) const FAILED: u8 = 3;
/// Ended by Ctrl-C, after cleaning up (128 + SIGINT, as shells count).
pub(crate) const INTERRUPTED: u8 = 130;
