//! The proof: load the running stack, break it, and judge whether anything was lost.
//!
//! The way through: [`Proof::run`] draws a plan from the seed ([`plan`]), starts the open-model generator and its journal,
//! breaks what the plan says through the [`Target`] port, waits for quiet and writes the effects into the journal. Then
//! [`judge()`], a pure function of the record and the journal, gives the verdict, and [`report`] prints it.
//!
//! - Nothing here starts or stops the stack under test: [`Target`] is implemented by whoever does.
//! - Every claim rests on the journal's file: it is read back from disk before it is judged ([`Journal`] says why that is
//!   sound).
//! - A proof ends by its plan, by its deadline or by a stop; each of them undoes all faults first.

mod config;
mod course;
#[cfg(test)]
mod fixtures;
mod journal;
mod judge;
mod load;
mod meter;
mod millis;
mod oracle;
mod outcome;
mod progress;
mod record;
pub mod report;
mod request;
mod run;
mod schedule;
mod starts;
mod target;
mod verdict;

pub use config::{Arrival, IN_FLIGHT_MAX, Options, Pace, SECONDS_MAX, Thresholds};
pub use journal::{Begin, GROUP_COMMIT, JOURNAL_VERSION, Journal, JournalError, RESERVE_BLOCK, Request};
pub use judge::{FaultFacts, JUDGEMENT_VERSION, Judgement, WARM_UP_MIN, judge};
pub use load::{GeneratorLoad, LoadError};
pub use meter::{Measured, Second, Summary};
pub use oracle::{Cases, Finding, bound_sentence, find};
pub use outcome::{Doubt, Outcome, Refusal};
pub use progress::Progress;
pub use record::{Ended, FaultRecord, LoadFacts, Quiet, RECORD_VERSION, Readiness, Record, ServiceFacts};
pub use request::BadLoad;
pub use run::{Evidence, Proof, ProofError};
pub use schedule::{Arrivals, Due, NoTarget, Plan, Step, Strike, aim, plan};
pub use starts::WorkflowFacts;
pub use target::{
    Act, Bite, CALL_MAX, Effect, Injection, InjectionId, RunSeen, Survey, SurveyedReplica, Target,
    TargetError,
};
pub use verdict::{EXIT_BAD_INPUT, Reason, Verdict, Weight};
