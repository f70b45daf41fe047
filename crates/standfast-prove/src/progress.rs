//! What a run tells while it goes on: for a progress display, and as JSON lines.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Progress {
    /// The load begins.
    Began {
        /// The run's name.
        run: String,
        /// Its seed.
        seed: u64,
        /// How many faults are planned.
        faults: usize,
        /// About how long it will take, in milliseconds.
        expected_ms: u64,
    },
    /// The load goes on. About once a second.
    Tick {
        /// Since the load began, in milliseconds.
        at_ms: u64,
        /// Requests acknowledged so far.
        ok: u64,
        /// Requests failed so far.
        failed: u64,
    },
    /// It is known what normal is.
    WarmedUp {
        /// Above this a request counts as slow, in milliseconds.
        slow_ms: u64,
    },
    /// A fault was ordered.
    Injected {
        /// Its number.
        number: u32,
        /// `kill replica`.
        verb: String,
        /// `orders-1`.
        object: String,
    },
    /// It was looked for.
    Verified {
        /// Its number.
        number: u32,
        /// Whether it is there.
        bit: bool,
        /// What was seen.
        evidence: String,
    },
    /// It was undone.
    Undone {
        /// Its number.
        number: u32,
        /// Whether that was seen.
        is_restored: bool,
    },
    /// All is well again after it.
    Healed {
        /// Its number.
        number: u32,
        /// From its injection, in milliseconds.
        after_ms: u64,
    },
    /// It was waited for in vain.
    NotSteady {
        /// What is amiss.
        amiss: String,
    },
    /// No more requests are due.
    LoadEnded,
    /// Everything came to rest, or did not.
    Quiet {
        /// Whether it did.
        is_reached: bool,
        /// Since the load ended, in milliseconds.
        after_ms: u64,
    },
}

/// One line for people.
impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Began { faults, expected_ms, seed, .. } => {
                write!(
                    f,
                    "load begins: {faults} faults, about {} s, seed {seed}",
                    expected_ms.div_ceil(1_000)
                )
            }
            Self::Tick { at_ms, ok, failed } => write!(f, "{:>3} s: {ok} ok, {failed} failed", at_ms / 1_000),
            Self::WarmedUp { slow_ms } => write!(f, "warmed up: above {slow_ms} ms a request is slow"),
            Self::Injected { number, verb, object } => write!(f, "fault {number}: {verb} {object}"),
            Self::Verified { number, bit: true, evidence } => write!(f, "fault {number}: it bit: {evidence}"),
            Self::Verified { number, evidence, .. } => {
                write!(f, "fault {number}: it did not bite: {evidence}")
            }
            Self::Undone { number, is_restored: true } => write!(f, "fault {number}: undone"),
            Self::Undone { number, .. } => write!(f, "fault {number}: its undo was not seen"),
            Self::Healed { number, after_ms } => {
                write!(f, "fault {number}: healed after {:.1} s", *after_ms as f64 / 1_000.0)
            }
            Self::NotSteady { amiss } => write!(f, "not steady: {amiss}"),
            Self::LoadEnded => write!(f, "load ended; waiting until all is quiet"),
            Self::Quiet { is_reached: true, after_ms } => {
                write!(f, "quiet after {:.1} s", *after_ms as f64 / 1_000.0)
            }
            Self::Quiet { .. } => write!(f, "not quiet in time"),
        }
    }
}
