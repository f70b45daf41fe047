//! The planner: a plain function from what is wanted, seen and decided before to what is decided now.
//!
//! Healing, first start, rollout, scaling, moves between zones and drain are parts of this one function, so that they cannot
//! work against each other; each part is a file here and changes one service's [`group::Group`]. There is no clock, no I/O and
//! no chance in here: the same arguments give the same plan.

mod drain;
mod group;
mod heal;
mod place;
mod report;
mod rollout;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use standfast_model::{ReplicaId, Revision, ServiceName, Stamp};
use standfast_platform::{Inventory, Launch};

pub use report::{Change, ChangeKind, CrashLoop, Report, Step, StepKind};

use crate::blueprint::{Blueprint, FORMAT, PlannedReplica, ServiceLedger};
use crate::config::REMOVED_SERVICES_MAX;
use crate::policy::Policy;
use group::{Group, Notes, World};

/// What comes of planning.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What is decided. It is the parent itself when nothing needs to change.
    pub blueprint: Blueprint,
    /// What it does and what it waits for.
    pub report: Report,
    /// When to plan again although nothing was heard.
    pub wake_at: Option<Stamp>,
}

/// Why a plan is made, when someone asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Occasion {
    /// Who asked; `standfast` when absent.
    pub author: Option<String>,
    /// Why; made up from the steps when absent.
    pub reason: Option<String>,
    /// What is to be exchanged although its revision is current.
    pub restarts: BTreeSet<RestartTarget>,
}

/// What to restart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RestartTarget {
    /// All replicas of a service, one after the other.
    Service(ServiceName),
    /// One replica.
    Replica(ReplicaId),
}

impl std::fmt::Display for RestartTarget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Service(name) => write!(f, "service `{name}`"),
            Self::Replica(id) => write!(f, "replica `{id}`"),
        }
    }
}

/// Decides what shall run next. See [`plan_for`].
pub fn plan(policy: &Policy, seen: &Inventory, parent: &Blueprint, now: Stamp) -> Plan {
    plan_for(policy, seen, parent, now, &Occasion::default())
}

/// Decides what shall run next, on someone's request.
///
/// Repeated with each next inventory it comes to rest: then the blueprint is its parent and there are no steps.
pub fn plan_for(
    policy: &Policy,
    seen: &Inventory,
    parent: &Blueprint,
    now: Stamp,
    occasion: &Occasion,
) -> Plan {
    let mut world = World::new(policy, seen, parent, now);
    let mut notes = Notes::default();
    let mut groups = group::all(&world, parent, occasion);
    world.look_for_a_blind_observer(&groups, &mut notes);
    let gates = place::Gates::of(&groups);
    for group in &mut groups {
        group.note_changes(&mut notes);
        if group.want.is_none() {
            group.retire_all(&world, &mut notes);
        } else {
            group.finish_drains(&world, &mut notes);
            group.adopt(&world, &mut notes);
            group.drop_dead_surplus(&world, &mut notes);
            group.heal(&world, &mut notes);
            group.scale_down(&world, &mut notes);
            group.start_missing(&world, &gates, &mut notes);
            group.roll_out(&world, &mut notes);
            group.rebalance(&world, &mut notes);
            group.note_waits(&world, &mut notes);
        }
    }
    let blueprint = assemble(&world, parent, groups, occasion, &notes.report);
    Plan { blueprint, report: notes.report, wake_at: notes.wake_at }
}

/// Puts the groups together; the parent itself when nothing differs from it.
fn assemble(
    world: &World<'_>,
    parent: &Blueprint,
    groups: Vec<Group<'_>>,
    occasion: &Occasion,
    report: &Report,
) -> Blueprint {
    let (mut services, mut attempts_floor) = (BTreeMap::new(), parent.attempts_floor);
    let mut planned: Vec<Arc<PlannedReplica>> = Vec::with_capacity(parent.replicas.len());
    for group in groups {
        let keeps_its_ledger =
            group.want.is_some() || group.ledger.attempts_floor > 0 || !group.members.is_empty();
        if keeps_its_ledger {
            services.insert(group.name.clone(), group.ledger);
        }
        planned.extend(group.members.into_iter().map(|member| member.planned));
    }
    forget_old_ledgers(world, &planned, &mut services, &mut attempts_floor);
    let is_same = planned.iter().eq(parent.replicas.values())
        && services == parent.services
        && attempts_floor == parent.attempts_floor
        && parent.stack.as_ref() == world.policy.digest()
        && !world.order_is_unknown;
    if is_same {
        return parent.clone();
    }
    let replicas = planned.into_iter().map(|planned| (planned.instance.replica.clone(), planned)).collect();
    let mut blueprint = Blueprint {
        format: FORMAT,
        id: parent.id.clone(),
        parent: parent.id.clone(),
        generation: parent.generation.max(world.seen.generation).next(),
        stack: world.policy.digest().cloned(),
        launches: launches(world, parent, &replicas),
        replicas,
        services,
        attempts_floor,
        created_at: world.now,
        author: occasion.author.clone().unwrap_or_else(|| "standfast".into()),
        reason: occasion.reason.clone().unwrap_or_else(|| report.summary()),
    };
    blueprint.name_it();
    blueprint
}

/// Bounds what is kept of services that are gone: of the rest, only the highest attempt number.
fn forget_old_ledgers(
    world: &World<'_>,
    planned: &[Arc<PlannedReplica>],
    services: &mut BTreeMap<ServiceName, ServiceLedger>,
    attempts_floor: &mut u64,
) {
    let wanted = world.policy.stack().map_or(0, |stack| stack.services.len());
    if services.len() <= wanted + REMOVED_SERVICES_MAX {
        return;
    }
    let planned: BTreeSet<&ServiceName> =
        planned.iter().map(|planned| &planned.instance.replica.service).collect();
    let is_gone = |name: &ServiceName| world.policy.launch(name).is_none() && !planned.contains(name);
    let gone: Vec<ServiceName> = services.keys().filter(|name| is_gone(name)).cloned().collect();
    for name in gone.iter().take(gone.len().saturating_sub(REMOVED_SERVICES_MAX)) {
        if let Some(ledger) = services.remove(name) {
            *attempts_floor = (*attempts_floor).max(ledger.attempts_floor);
        }
    }
}

/// How to start each revision that is in use.
fn launches(
    world: &World<'_>,
    parent: &Blueprint,
    replicas: &BTreeMap<ReplicaId, Arc<PlannedReplica>>,
) -> BTreeMap<Revision, Arc<Launch>> {
    let mut launches = BTreeMap::new();
    for (id, planned) in replicas {
        if matches!(planned.intent, crate::blueprint::PlannedIntent::Ended(_))
            || launches.contains_key(&planned.revision)
        {
            continue;
        }
        let current = world.policy.launch(&id.service).filter(|(revision, _)| *revision == planned.revision);
        let launch = current.map(|(_, launch)| launch).or_else(|| parent.launches.get(&planned.revision));
        if let Some(launch) = launch {
            launches.insert(planned.revision.clone(), Arc::clone(launch));
        }
    }
    launches
}
