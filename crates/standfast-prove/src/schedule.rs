//! From a stack and a seed to what will be broken, and when requests arrive. Pure: the same seed gives the same plan.
//!
//! A target that the stack does not name is drawn here as a number and turned into a replica or zone only when the fault's
//! turn has come ([`aim`]), from a sorted list of what then serves. Faults begin in a steady state only, so that list is the
//! same in each run of a seed.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use standfast_model::{Fault, Instance, Load, ServiceName, Stack, ZoneName};
use standfast_runtime::Rng;

use crate::config::{Arrival, Pace};
use crate::target::{Act, Survey, SurveyedReplica};

/// What will be broken, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The seed that it was drawn from.
    pub seed: u64,
    /// One fault after another.
    pub steps: Vec<Step>,
}

/// One fault that will be brought about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Its number in the plan, counted from 1.
    pub number: u32,
    /// The experiment that it belongs to.
    pub experiment: String,
    /// What is done.
    pub strike: Strike,
    /// The drawn number that picks the target.
    pub draw: u64,
    /// How long the fault is kept, in milliseconds; 0 for kills.
    #[serde(rename = "lasts_ms", with = "crate::millis")]
    pub lasts: Duration,
    /// Not sooner after the step before, in milliseconds.
    #[serde(rename = "after_ms", with = "crate::millis")]
    pub after: Duration,
    /// Whether the experiment ends with it.
    pub is_last: bool,
}

/// What a step does, before it has a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "strike")]
pub enum Strike {
    /// Kill a replica.
    KillReplica {
        /// Of this service; of any when absent.
        service: Option<ServiceName>,
    },
    /// Freeze a replica.
    FreezeReplica {
        /// Of this service; of any when absent.
        service: Option<ServiceName>,
    },
    /// Lose a zone.
    LoseZone {
        /// This one; any when absent.
        zone: Option<ZoneName>,
    },
    /// Kill the node.
    KillNode,
    /// Kill the agent.
    KillAgent,
}

/// Beside a fault's own duration: finding a steady state, healing.
const HEALING_EXPECTED: Duration = Duration::from_millis(2_500);

impl Plan {
    /// How long the run will about take.
    pub fn expected(&self, pace: &Pace) -> Duration {
        let step = |step: &Step| {
            let settle = if step.is_last { pace.settle } else { Duration::ZERO };
            step.lasts.max(step.after) + HEALING_EXPECTED + pace.steady_window + settle
        };
        pace.warm_up + self.steps.iter().map(step).sum::<Duration>() + pace.quiet_window
    }

    /// When it is ended by force.
    pub fn deadline(&self, pace: &Pace) -> Duration {
        pace.deadline.max(self.expected(pace) * 3)
    }
}

/// Draws the plan of a stack's experiments.
pub fn plan(stack: &Stack, seed: u64) -> Plan {
    let mut steps = Vec::new();
    for (index, experiment) in stack.experiments.iter().enumerate() {
        // Own sequences: to repeat one experiment more often does not change the targets of the others.
        let mut rng = Rng::seeded(seed).fork(&format!("experiment {index}"));
        let (strike, times, lasts, every) = match &experiment.fault {
            Fault::ReplicaKill { service, times, every } => {
                (Strike::KillReplica { service: service.clone() }, *times, Duration::ZERO, *every)
            }
            Fault::ReplicaFreeze { service, lasts } => {
                (Strike::FreezeReplica { service: service.clone() }, 1, *lasts, Duration::ZERO)
            }
            Fault::ZoneLoss { zone, lasts } => {
                (Strike::LoseZone { zone: zone.clone() }, 1, *lasts, Duration::ZERO)
            }
            Fault::NodeKill => (Strike::KillNode, 1, Duration::ZERO, Duration::ZERO),
            Fault::AgentKill => (Strike::KillAgent, 1, Duration::ZERO, Duration::ZERO),
        };
        for time in 0..times {
            steps.push(Step {
                number: u32::try_from(steps.len() + 1).unwrap_or(u32::MAX),
                experiment: experiment.name.clone(),
                strike: strike.clone(),
                draw: rng.bits(),
                lasts,
                after: if time == 0 { Duration::ZERO } else { every },
                is_last: time + 1 == times,
            });
        }
    }
    Plan { seed, steps }
}

/// There is nothing that a step could be done to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no {0} to break")]
pub struct NoTarget(String);

/// Finds the target of a step in what runs now.
///
/// # Errors
/// [`NoTarget`] when no replica of the service serves, or the zone is not available.
pub fn aim(step: &Step, survey: &Survey) -> Result<Act, NoTarget> {
    match &step.strike {
        Strike::KillReplica { service } => {
            let replica = pick_replica(step.draw, service.as_ref(), survey)?;
            Ok(Act::KillInstance { instance: replica.instance.clone(), pid: replica.pid })
        }
        Strike::FreezeReplica { service } => {
            let replica = pick_replica(step.draw, service.as_ref(), survey)?;
            Ok(Act::FreezeInstance { instance: replica.instance.clone(), pid: replica.pid })
        }
        Strike::LoseZone { zone } => {
            let zone = pick_zone(step.draw, zone.as_ref(), survey)?;
            let mut victims: Vec<Instance> = survey
                .replicas
                .iter()
                .filter(|replica| replica.zone == zone)
                .map(|replica| replica.instance.clone())
                .collect();
            victims.sort();
            Ok(Act::LoseZone { zone, victims })
        }
        Strike::KillNode => match survey.node_pid {
            Some(pid) => Ok(Act::KillNode { pid: Some(pid) }),
            None => Err(NoTarget("node process".to_owned())),
        },
        Strike::KillAgent => match survey.agent_pid {
            Some(pid) => Ok(Act::KillAgent { pid: Some(pid) }),
            None => Err(NoTarget("agent process".to_owned())),
        },
    }
}

fn pick_replica<'a>(
    draw: u64,
    service: Option<&ServiceName>,
    survey: &'a Survey,
) -> Result<&'a SurveyedReplica, NoTarget> {
    let mut serving: Vec<&SurveyedReplica> = survey
        .replicas
        .iter()
        .filter(|replica| replica.is_serving)
        .filter(|replica| service.is_none_or(|service| replica.instance.replica.service == *service))
        .collect();
    serving.sort_by(|a, b| a.instance.cmp(&b.instance));
    pick(draw, &serving).copied().ok_or_else(|| {
        NoTarget(service.map_or("serving replica".to_owned(), |name| format!("serving replica of `{name}`")))
    })
}

fn pick_zone(draw: u64, zone: Option<&ZoneName>, survey: &Survey) -> Result<ZoneName, NoTarget> {
    let inhabited: BTreeSet<&ZoneName> = survey.replicas.iter().map(|replica| &replica.zone).collect();
    // An empty zone can be lost without anybody's notice: that would prove nothing.
    let candidates: Vec<&ZoneName> = survey
        .zones
        .iter()
        .filter(|(name, is_available)| **is_available && inhabited.contains(name))
        .map(|(name, _)| name)
        .filter(|name| zone.is_none_or(|zone| *name == zone))
        .collect();
    pick(draw, &candidates).map(|name| (*name).clone()).ok_or_else(|| {
        NoTarget(zone.map_or("zone with replicas".to_owned(), |name| format!("zone `{name}` with replicas")))
    })
}

fn pick<T>(draw: u64, items: &[T]) -> Option<&T> {
    let count = u64::try_from(items.len()).ok().filter(|count| *count > 0)?;
    items.get(usize::try_from(draw % count).ok()?)
}

/// No arrival is planned later than this (three years): it keeps the arithmetic of time in range for rates near zero.
const FAR_S: f64 = 1e8;

/// A request that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// When, from the start of the load.
    pub at: Duration,
    /// The index of its load.
    pub load: usize,
    /// Its number within its load, counted from 0.
    pub number: u64,
}

/// The arrivals of all loads together, in order of time, without end.
#[derive(Debug, Clone)]
pub struct Arrivals {
    streams: Vec<ArrivalStream>,
}

#[derive(Debug, Clone)]
struct ArrivalStream {
    load: usize,
    mean_gap_s: f64,
    arrival: Arrival,
    rng: Rng,
    next_s: f64,
    number: u64,
}

impl Arrivals {
    /// The arrivals of these loads, each at its own rate and from its own sequence. Loads without a positive rate have none.
    pub fn new<'a>(loads: impl IntoIterator<Item = &'a Load>, arrival: Arrival, seed: u64) -> Self {
        let stream = |(index, load): (usize, &Load)| {
            if !(load.rate_per_second.is_finite() && load.rate_per_second > 0.0) {
                return None;
            }
            let mut stream = ArrivalStream {
                load: index,
                mean_gap_s: load.rate_per_second.recip(),
                arrival,
                rng: Rng::seeded(seed).fork(&format!("arrivals of {}", load.name)),
                next_s: 0.0,
                number: 0,
            };
            stream.advance();
            Some(stream)
        };
        Self { streams: loads.into_iter().enumerate().filter_map(stream).collect() }
    }
}

impl ArrivalStream {
    fn advance(&mut self) {
        self.next_s += match self.arrival {
            Arrival::Poisson => self.rng.exponential() * self.mean_gap_s,
            Arrival::Uniform => self.mean_gap_s,
        };
    }
}

impl Iterator for Arrivals {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        let stream = self.streams.iter_mut().min_by(|a, b| a.next_s.total_cmp(&b.next_s))?;
        let due = Due {
            at: Duration::from_secs_f64(stream.next_s.min(FAR_S)),
            load: stream.load,
            number: stream.number,
        };
        stream.number += 1;
        stream.advance();
        Some(due)
    }
}

#[cfg(test)]
mod tests;
