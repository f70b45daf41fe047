//! Verdicts, their exit codes, and the reasons for them.

use serde::{Deserialize, Serialize};

/// What a run proves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All that was promised held, and every fault was there and is gone.
    Held,
    /// Something that was promised did not hold.
    Broke,
    /// Nothing is proved.
    NotRun,
    /// A fault was not there, so its experiment proves nothing.
    FaultDidNotBite,
    /// A fault may still be there.
    NotRestored,
}

/// The exit code of a stack or option that could not be read: no run, no verdict.
pub const EXIT_BAD_INPUT: u8 = 2;

impl Verdict {
    /// The process's exit code: 0 held, 1 broke, 3 not run, 4 a fault did not bite, 5 not restored. 2 is
    /// [`EXIT_BAD_INPUT`].
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Held => 0,
            Self::Broke => 1,
            Self::NotRun => 3,
            Self::FaultDidNotBite => 4,
            Self::NotRestored => 5,
        }
    }

    /// In words: `HELD`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Held => "HELD",
            Self::Broke => "BROKE",
            Self::NotRun => "NOT RUN",
            Self::FaultDidNotBite => "A FAULT DID NOT BITE",
            Self::NotRestored => "NOT RESTORED",
        }
    }
}

/// What a reason weighs: the weightiest decides, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// Work was lost, doubled or done unasked.
    Unsafe,
    /// The run proves nothing.
    Void,
    /// A fault may still be there.
    NotRestored,
    /// A promise about requests or healing did not hold.
    Broke,
    /// A fault was not there.
    DidNotBite,
}

impl Weight {
    pub(crate) const fn verdict(self) -> Verdict {
        match self {
            Self::Unsafe | Self::Broke => Verdict::Broke,
            Self::Void => Verdict::NotRun,
            Self::NotRestored => Verdict::NotRestored,
            Self::DidNotBite => Verdict::FaultDidNotBite,
        }
    }
}

/// Why a verdict is not "held".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// What it weighs.
    pub weight: Weight,
    /// The number of the fault that it is about.
    pub fault: Option<u32>,
    /// The place of the invariant that it is about.
    pub invariant: Option<usize>,
    /// A sentence.
    pub text: String,
}
