//! What an order means for what is there: a plain function that the local agent and the simulated platform share.

use std::collections::{BTreeMap, BTreeSet};

use standfast_model::{Instance, Stamp, ZoneName};

use crate::{Wanted, WantedReplica};

/// How far a held instance has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Started and not asked to stop.
    Runs,
    /// Asked to stop.
    Stops,
    /// Ended.
    Ended,
}

/// What has to be done.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Decision {
    /// To be started, in the order's order.
    pub(crate) start: Vec<WantedReplica>,
    /// To be asked to stop.
    pub(crate) stop: Vec<Instance>,
    /// Ended and in no order any more.
    pub(crate) forget: Vec<Instance>,
    /// Wanted, but not to be started yet.
    pub(crate) waiting: BTreeMap<Instance, Waiting>,
    /// When to decide again although nothing has happened.
    pub(crate) again_at: Option<Stamp>,
}

/// Why a wanted replica is not started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Waiting {
    /// Its time has not come.
    NotBefore(Stamp),
    /// Its zone is lost.
    ZoneLost(ZoneName),
}

impl std::fmt::Display for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotBefore(at) => write!(f, "it is not to be started before {at}"),
            Self::ZoneLost(zone) => write!(f, "zone `{zone}` is lost"),
        }
    }
}

pub(crate) fn decide(
    wanted: &Wanted,
    held: &BTreeMap<Instance, Life>,
    lost: &BTreeSet<ZoneName>,
    now: Stamp,
) -> Decision {
    let mut decision = Decision::default();
    for replica in wanted.replicas.iter().filter(|replica| !held.contains_key(&replica.instance)) {
        let waiting = if lost.contains(&replica.zone) {
            Waiting::ZoneLost(replica.zone.clone())
        } else if replica.not_before > now {
            decision.again_at =
                Some(decision.again_at.map_or(replica.not_before, |at| at.min(replica.not_before)));
            Waiting::NotBefore(replica.not_before)
        } else {
            decision.start.push(replica.clone());
            continue;
        };
        decision.waiting.insert(replica.instance.clone(), waiting);
    }
    let listed: BTreeSet<&Instance> = wanted.replicas.iter().map(|replica| &replica.instance).collect();
    for (instance, life) in held.iter().filter(|(instance, _)| !listed.contains(instance)) {
        match life {
            Life::Runs => decision.stop.push(instance.clone()),
            Life::Stops => {}
            Life::Ended => decision.forget.push(instance.clone()),
        }
    }
    decision
}

/// Why an order is malformed, if it is.
pub(crate) fn malformed(wanted: &Wanted) -> Option<String> {
    let mut seen = BTreeSet::new();
    for WantedReplica { instance, revision, .. } in &wanted.replicas {
        if !seen.insert(instance) {
            return Some(format!("{instance} is listed twice"));
        }
        let Some(launch) = wanted.launches.get(revision) else {
            return Some(format!("{instance} runs revision {revision}, which the order does not describe"));
        };
        if launch.command.is_empty() {
            return Some(format!("revision {revision} of {} has no command", instance.replica.service));
        }
        if !launch.working_dir.is_absolute() {
            let dir = launch.working_dir.display();
            return Some(format!("`{dir}`, where revision {revision} shall run, is not an absolute path"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use standfast_model::{Generation, ReplicaId, Revision};

    use super::*;
    use crate::Intent;

    fn instance(slot: u32, attempt: u64) -> Instance {
        Instance { replica: ReplicaId { service: "orders".parse().unwrap(), slot }, attempt }
    }

    fn replica(slot: u32, zone: &str, not_before: Stamp) -> WantedReplica {
        WantedReplica {
            instance: instance(slot, 1),
            revision: Revision::of(b"1"),
            zone: zone.parse().unwrap(),
            not_before,
            intent: Intent::Run,
        }
    }

    fn order(replicas: Vec<WantedReplica>) -> Wanted {
        Wanted { generation: Generation(1), replicas, ..Wanted::default() }
    }

    #[test]
    fn what_is_listed_starts_and_what_is_not_stops_or_is_forgotten() {
        let now = Stamp::from_micros(1_000_000);
        let held = [
            (instance(0, 1), Life::Ended),
            (instance(1, 1), Life::Runs),
            (instance(2, 1), Life::Ended),
            (instance(3, 1), Life::Stops),
        ];
        let wanted = order(vec![replica(0, "a", Stamp::EPOCH), replica(4, "a", Stamp::EPOCH)]);
        let decision = decide(&wanted, &held.into(), &BTreeSet::new(), now);
        assert_eq!(decision.start.iter().map(|w| w.instance.clone()).collect::<Vec<_>>(), [instance(4, 1)]);
        assert_eq!(decision.stop, [instance(1, 1)]);
        assert_eq!(decision.forget, [instance(2, 1)]);
    }

    #[test]
    fn a_replica_waits_for_its_time_and_its_zone() {
        let now = Stamp::from_micros(1_000_000);
        let later = now.plus(Duration::from_secs(5));
        let wanted = order(vec![replica(0, "a", later), replica(1, "b", Stamp::EPOCH)]);
        let lost = BTreeSet::from(["b".parse().unwrap()]);
        let decision = decide(&wanted, &BTreeMap::new(), &lost, now);
        assert!(decision.start.is_empty());
        assert_eq!(decision.again_at, Some(later));
        assert_eq!(decision.waiting[&instance(1, 1)].to_string(), "zone `b` is lost");
        assert_eq!(decide(&wanted, &BTreeMap::new(), &BTreeSet::new(), later).start.len(), 2);
    }

    #[test]
    fn an_order_must_describe_what_it_lists() {
        let twice = order(vec![replica(0, "a", Stamp::EPOCH); 2]);
        assert!(malformed(&twice).unwrap().contains("does not describe"));
        assert_eq!(malformed(&order(Vec::new())), None);
    }
}
