//! How a proof runs and by which numbers it judges. Both are part of the record, so that a report shows what it went by.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a proof is run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Options {
    /// Fixes targets and arrivals.
    pub seed: u64,
    /// How requests arrive.
    pub arrival: Arrival,
    /// The waits and limits of the run.
    pub pace: Pace,
    /// The numbers by which it is judged.
    pub thresholds: Thresholds,
    /// Where the journal is written, in the place of an older one.
    pub journal: PathBuf,
    /// The command that repeats this run, for the report: `standfast prove examples/shop --seed 7`.
    pub repeat: String,
}

impl Options {
    /// The default pace and thresholds with this seed and this journal.
    pub fn seeded(seed: u64, journal: PathBuf) -> Self {
        Self {
            seed,
            arrival: Arrival::Poisson,
            pace: Pace::default(),
            thresholds: Thresholds::default(),
            journal,
            repeat: String::new(),
        }
    }
}

/// How requests arrive at a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// As independent users send them: exponential gaps.
    Poisson,
    /// Evenly spaced.
    Uniform,
}

/// The waits and limits of a run. In JSON they are milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Load without faults at the beginning, by which "normal latency" is known.
    #[serde(rename = "warm_up_ms", with = "crate::millis")]
    pub warm_up: Duration,
    /// How long all must be ready and no request bad before the next fault.
    #[serde(rename = "steady_window_ms", with = "crate::millis")]
    pub steady_window: Duration,
    /// How long a steady state is waited for.
    #[serde(rename = "steady_max_ms", with = "crate::millis")]
    pub steady_max: Duration,
    /// From one look at the stack to the next.
    #[serde(rename = "poll_ms", with = "crate::millis")]
    pub poll: Duration,
    /// How long a fault may take to be seen.
    #[serde(rename = "verify_max_ms", with = "crate::millis")]
    pub verify_max: Duration,
    /// How long an undo may take to be seen.
    #[serde(rename = "restore_max_ms", with = "crate::millis")]
    pub restore_max: Duration,
    /// How long the system may take to be whole again, counted from the later of the injection and its undo.
    #[serde(rename = "heal_max_ms", with = "crate::millis")]
    pub heal_max: Duration,
    /// Load after each healing.
    #[serde(rename = "settle_ms", with = "crate::millis")]
    pub settle: Duration,
    /// How long the effects' number must stay the same once the load has ended.
    #[serde(rename = "quiet_window_ms", with = "crate::millis")]
    pub quiet_window: Duration,
    /// How long quiet is waited for.
    #[serde(rename = "quiet_max_ms", with = "crate::millis")]
    pub quiet_max: Duration,
    /// After this time no more is broken and the load ends, whatever is left; at least three times the plan's own estimate.
    #[serde(rename = "deadline_ms", with = "crate::millis")]
    pub deadline: Duration,
    /// Added to a fault's duration as its time to live.
    #[serde(rename = "ttl_margin_ms", with = "crate::millis")]
    pub ttl_margin: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            warm_up: Duration::from_secs(3),
            steady_window: Duration::from_millis(500),
            steady_max: Duration::from_secs(20),
            poll: Duration::from_millis(100),
            verify_max: Duration::from_secs(2),
            restore_max: Duration::from_secs(5),
            heal_max: Duration::from_secs(20),
            settle: Duration::from_secs(1),
            quiet_window: Duration::from_secs(1),
            quiet_max: Duration::from_secs(15),
            deadline: Duration::from_secs(120),
            ttl_margin: Duration::from_secs(30),
        }
    }
}

/// The numbers by which a run is judged. Shares are fractions from 0 to 1; times are milliseconds in JSON.
///
/// Defaults are chosen so that a dead replica among up to twenty that still gets its share of requests is seen, and one stray
/// hiccup of a busy machine with two cores is not taken for it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Thresholds {
    /// Requests acknowledged, of all that arrived: at least.
    pub availability_min: f64,
    /// From an injection until requests must succeed again.
    #[serde(rename = "grace_ms", with = "crate::millis")]
    pub grace: Duration,
    /// The same after the node was killed: a process with the whole gateway in it starts again.
    #[serde(rename = "grace_node_ms", with = "crate::millis")]
    pub grace_node: Duration,
    /// The length of the slices in which requests are judged.
    #[serde(rename = "slice_ms", with = "crate::millis")]
    pub slice: Duration,
    /// Requests of a slice that may fail, as a share; one request always may.
    pub failed_share_max: f64,
    /// Requests of a slice that may be slow, as a share; one request always may.
    pub slow_share_max: f64,
    /// A request is slow above this many times the warm-up's 99th percentile …
    pub slow_factor: f64,
    /// … but never below this.
    #[serde(rename = "slow_floor_ms", with = "crate::millis")]
    pub slow_floor: Duration,
    /// Slow slices that one fault may have after its grace: one is a machine's hiccup, two are a replica that gets requests
    /// and does not answer.
    pub slow_slices_max: u32,
    /// A slice in which the generator's own lag has a 99th percentile above this is left out of the latency rules.
    #[serde(rename = "lag_noise_ms", with = "crate::millis")]
    pub lag_noise: Duration,
    /// A generator whose lag has a 99th percentile above this over the whole run proves nothing.
    #[serde(rename = "lag_p99_max_ms", with = "crate::millis")]
    pub lag_p99_max: Duration,
    /// A generator that used more than this share of one core proves nothing.
    pub cpu_share_max: f64,
    /// Added to a probe's interval and two timeouts before "still ready" is a lie.
    #[serde(rename = "probe_slack_ms", with = "crate::millis")]
    pub probe_slack: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            availability_min: 0.99,
            grace: Duration::from_secs(2),
            grace_node: Duration::from_secs(5),
            slice: Duration::from_secs(1),
            failed_share_max: 0.01,
            slow_share_max: 0.05,
            slow_factor: 10.0,
            slow_floor: Duration::from_millis(500),
            slow_slices_max: 1,
            lag_noise: Duration::from_millis(50),
            lag_p99_max: Duration::from_millis(100),
            cpu_share_max: 0.8,
            probe_slack: Duration::from_secs(1),
        }
    }
}

/// Requests on their way at a time. An arrival beyond it is counted as dropped, and a run with dropped arrivals proves nothing.
pub const IN_FLIGHT_MAX: usize = 2_048;
/// Seconds of a run of which a time series is kept; later ones are added to the last.
pub const SECONDS_MAX: usize = 900;
