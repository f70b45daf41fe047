//! The last look at a blueprint before it can become the target: rules that no plan may break, whatever planned it.

use std::collections::{BTreeMap, BTreeSet};

use standfast_model::{
    Deploy, Generation, Instance, ReplicaId, Revision, ServiceName, UpdateOrder, ZoneName,
};
use standfast_platform::{Inventory, SeenReplica};

use crate::blueprint::{Blueprint, BlueprintId, PlannedIntent, PlannedReplica};
use crate::policy::Policy;

/// A rule that a blueprint breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CheckError {
    /// It was made from another blueprint.
    #[error("it was made from blueprint {found}, and not from {expected}")]
    Parent {
        /// The parent that it names.
        found: BlueprintId,
        /// The one it is held against.
        expected: BlueprintId,
    },
    /// Its number is not the next one.
    #[error("its generation is {found}, and not {expected}")]
    Generation {
        /// Its number.
        found: Generation,
        /// The next number.
        expected: Generation,
    },
    /// A replica stands under another's name, so that an instance could be there twice.
    #[error("{instance} stands in the place of {place}")]
    Misplaced {
        /// The instance.
        instance: Instance,
        /// Where it stands.
        place: ReplicaId,
    },
    /// An attempt number that was used before.
    #[error("{instance} is not above attempt {used}, which was used before")]
    Backward {
        /// The instance.
        instance: Instance,
        /// The highest number used.
        used: u64,
    },
    /// A running attempt became another thing.
    #[error("{instance} changed its revision or zone without a new attempt")]
    Changed {
        /// The instance.
        instance: Instance,
    },
    /// A new replica where none can be.
    #[error("{instance} is placed in zone `{zone}`, which is not available")]
    Zone {
        /// The instance.
        instance: Instance,
        /// The zone.
        zone: ZoneName,
    },
    /// It is not known how to start a replica.
    #[error("{instance} has revision {revision}, and the blueprint does not say how to start that")]
    Launch {
        /// The instance.
        instance: Instance,
        /// The revision.
        revision: Revision,
    },
    /// More replicas than the update rules allow.
    #[error("`{service}` has {found} replicas, and at most {most} are allowed")]
    Surge {
        /// The service.
        service: ServiceName,
        /// How many it has.
        found: usize,
        /// How many it may have.
        most: usize,
    },
    /// A replica that serves is taken away although too few would be left.
    #[error("`{service}` would keep {kept} replicas that serve, and at least {least} must stay")]
    Budget {
        /// The service.
        service: ServiceName,
        /// How many it keeps.
        kept: usize,
        /// How many it must keep.
        least: usize,
    },
    /// New replicas crowd a zone while another has fewer.
    #[error("`{service}` gets {most} replicas in zone `{zone}`, and another zone has {least}")]
    Spread {
        /// The service.
        service: ServiceName,
        /// The fuller zone.
        zone: ZoneName,
        /// How many there.
        most: usize,
        /// How many in the emptiest.
        least: usize,
    },
}

/// Whether a blueprint may become the target after its parent.
///
/// # Errors
/// The first rule that it breaks.
pub fn check(
    policy: &Policy,
    seen: &Inventory,
    parent: &Blueprint,
    blueprint: &Blueprint,
) -> Result<(), CheckError> {
    if blueprint.parent != parent.id {
        return Err(CheckError::Parent { found: blueprint.parent.clone(), expected: parent.id.clone() });
    }
    let expected = parent.generation.max(seen.generation).next();
    if blueprint.generation != expected {
        return Err(CheckError::Generation { found: blueprint.generation, expected });
    }
    let (before_of, after_of) = (by_service(parent), by_service(blueprint));
    let mut seen_of: BTreeMap<&ServiceName, Vec<&SeenReplica>> = BTreeMap::new();
    for run in seen.replicas.chunk_by(|a, b| a.instance.replica.service == b.instance.replica.service) {
        seen_of.entry(&run[0].instance.replica.service).or_default().extend(run);
    }
    let declared = policy.stack().map(|stack| stack.zones.as_slice()).unwrap_or_default();
    let wanted = policy.stack().map(|stack| &stack.services);
    let mut names: BTreeSet<&ServiceName> = before_of.keys().chain(after_of.keys()).copied().collect();
    names.extend(wanted.iter().flat_map(|services| services.keys()));
    for name in names {
        let service = Service {
            name,
            current: policy.launch(name).map(|(revision, _)| revision),
            before: before_of.get(name).map(Vec::as_slice).unwrap_or_default(),
            after: after_of.get(name).map(Vec::as_slice).unwrap_or_default(),
            seen: seen_of.get(name).map(Vec::as_slice).unwrap_or_default(),
        };
        let floor = |blueprint: &Blueprint| {
            blueprint.services.get(name).map_or(blueprint.attempts_floor, |ledger| ledger.attempts_floor)
        };
        service.check_attempts(floor(parent), floor(blueprint))?;
        service.check_places(seen, parent, declared)?;
        service.check_launches(blueprint)?;
        if let Some(deploy) = wanted.and_then(|services| services.get(name)).map(|service| &service.deploy) {
            service.check_surge(deploy)?;
            service.check_budget(deploy, seen)?;
            service.check_spread(seen, declared)?;
        }
    }
    Ok(())
}

fn by_service(blueprint: &Blueprint) -> BTreeMap<&ServiceName, Vec<(&ReplicaId, &PlannedReplica)>> {
    let all: Vec<(&ReplicaId, &PlannedReplica)> =
        blueprint.replicas.iter().map(|(place, planned)| (place, planned.as_ref())).collect();
    let runs = all.chunk_by(|(a, _), (b, _)| a.service == b.service);
    runs.map(|run| (&run[0].0.service, run.to_vec())).collect()
}

/// One service's side of the rules.
struct Service<'a> {
    name: &'a ServiceName,
    current: Option<&'a Revision>,
    /// By slot.
    before: &'a [Planned<'a>],
    /// By slot.
    after: &'a [Planned<'a>],
    seen: &'a [&'a SeenReplica],
}

type Planned<'a> = (&'a ReplicaId, &'a PlannedReplica);

impl Service<'_> {
    /// Each replica stands in its own place, and its attempts only grow, over its absence too.
    fn check_attempts(&self, floor_before: u64, floor_after: u64) -> Result<(), CheckError> {
        for (place, planned) in self.after {
            let instance = &planned.instance;
            if instance.replica != **place {
                return Err(CheckError::Misplaced { instance: instance.clone(), place: (*place).clone() });
            }
            let before = in_slot(self.before, place.slot);
            if let Some(before) = before.filter(|before| before.instance.attempt == instance.attempt) {
                if before.revision != planned.revision || before.zone != planned.zone {
                    return Err(CheckError::Changed { instance: instance.clone() });
                }
                continue;
            }
            let used = before.map_or(floor_before, |before| before.instance.attempt);
            if instance.attempt <= used {
                return Err(CheckError::Backward { instance: instance.clone(), used });
            }
        }
        for (place, before) in self.before {
            let is_remembered =
                in_slot(self.after, place.slot).is_some() || floor_after >= before.instance.attempt;
            if !is_remembered {
                let used = before.instance.attempt;
                return Err(CheckError::Backward { instance: before.instance.clone(), used });
            }
        }
        Ok(())
    }

    /// What is new can start where it is placed.
    fn check_places(
        &self,
        seen: &Inventory,
        parent: &Blueprint,
        declared: &[ZoneName],
    ) -> Result<(), CheckError> {
        for (_, planned) in self.after {
            let is_known = find(self.before, &planned.instance).is_some();
            let is_available = || declared.contains(&planned.zone) && !is_lost(seen, &planned.zone);
            let runs_already =
                || seen.generation > parent.generation && self.is_taken_over(&planned.instance);
            if !is_known && !is_available() && !runs_already() {
                let (instance, zone) = (planned.instance.clone(), planned.zone.clone());
                return Err(CheckError::Zone { instance, zone });
            }
        }
        Ok(())
    }

    /// All that is ordered can be started.
    fn check_launches(&self, blueprint: &Blueprint) -> Result<(), CheckError> {
        let mut known: Option<&Revision> = None;
        for (_, planned) in self.after {
            let is_ordered = !matches!(planned.intent, PlannedIntent::Ended(_));
            if !is_ordered || known == Some(&planned.revision) {
                continue;
            }
            if !blueprint.launches.contains_key(&planned.revision) {
                let (instance, revision) = (planned.instance.clone(), planned.revision.clone());
                return Err(CheckError::Launch { instance, revision });
            }
            known = Some(&planned.revision);
        }
        Ok(())
    }

    fn check_surge(&self, deploy: &Deploy) -> Result<(), CheckError> {
        let running =
            |planned: &[Planned<'_>]| planned.iter().filter(|(_, planned)| planned.shall_run()).count();
        let surge = if starts_first(deploy) { parallelism(deploy) } else { 0 };
        let found = running(self.after);
        let most = (wanted(deploy) + surge).max(running(self.before));
        if found <= most {
            return Ok(());
        }
        // What is taken over was there before, too.
        let taken_over = self
            .after
            .iter()
            .filter(|(_, planned)| planned.shall_run() && self.is_taken_over(&planned.instance));
        let most = most.max(running(self.before) + taken_over.count());
        if found > most {
            return Err(CheckError::Surge { service: self.name.clone(), found, most });
        }
        Ok(())
    }

    /// What serves may only be taken away by choice if enough that serves stays.
    fn check_budget(&self, deploy: &Deploy, seen: &Inventory) -> Result<(), CheckError> {
        let serving = || self.seen.iter().filter(|seen| seen.is_serving());
        let stays = |serving: &&&SeenReplica| runs_in(self.after, &serving.instance);
        let was_to_run =
            |serving: &SeenReplica| runs_in(self.before, &serving.instance) && !is_lost(seen, &serving.zone);
        let takes_any = serving().any(|serving| was_to_run(serving) && !stays(&serving));
        let completed = self.after.iter().filter(|(_, planned)| planned.has_completed()).count();
        let kept = serving().filter(stays).count() + completed;
        let missing = if starts_first(deploy) { 0 } else { parallelism(deploy) };
        let least = wanted(deploy).saturating_sub(missing);
        if takes_any && kept < least {
            return Err(CheckError::Budget { service: self.name.clone(), kept, least });
        }
        Ok(())
    }

    /// A new replica of the current revision may not make the fuller zone fuller. Those of older revisions are on their way out:
    /// where they stand while they last is no reason to refuse a plan that heals.
    fn check_spread(&self, seen: &Inventory, declared: &[ZoneName]) -> Result<(), CheckError> {
        let is_current = |planned: &PlannedReplica| {
            planned.shall_run() && !planned.replace && self.current == Some(&planned.revision)
        };
        let is_new = |planned: &PlannedReplica| {
            !runs_in(self.before, &planned.instance) && !self.is_taken_over(&planned.instance)
        };
        let current = || self.after.iter().map(|(_, planned)| *planned).filter(|planned| is_current(planned));
        let in_zone = |zone: &ZoneName| current().filter(|planned| planned.zone == *zone).count();
        let has_new = |zone: &ZoneName| current().any(|planned| planned.zone == *zone && is_new(planned));
        let available = || declared.iter().filter(|zone| !is_lost(seen, zone));
        let least = available().map(in_zone).min().unwrap_or_default();
        for zone in available().filter(|zone| has_new(zone)) {
            let most = in_zone(zone);
            if most > least + 1 {
                let (service, zone) = (self.name.clone(), zone.clone());
                return Err(CheckError::Spread { service, zone, most, least });
            }
        }
        Ok(())
    }

    /// It was there before any plan knew it.
    fn is_taken_over(&self, instance: &Instance) -> bool {
        let was_planned = find(self.before, instance).is_some();
        !was_planned && self.seen.binary_search_by(|seen| seen.instance.cmp(instance)).is_ok()
    }
}

fn in_slot<'a>(planned: &[Planned<'a>], slot: u32) -> Option<&'a PlannedReplica> {
    let found = planned.binary_search_by_key(&slot, |(place, _)| place.slot).ok()?;
    Some(planned[found].1)
}

fn find<'a>(planned: &[Planned<'a>], instance: &Instance) -> Option<&'a PlannedReplica> {
    in_slot(planned, instance.replica.slot).filter(|planned| planned.instance.attempt == instance.attempt)
}

fn runs_in(planned: &[Planned<'_>], instance: &Instance) -> bool {
    find(planned, instance).is_some_and(PlannedReplica::shall_run)
}

const fn wanted(deploy: &Deploy) -> usize {
    deploy.replicas as usize
}

fn parallelism(deploy: &Deploy) -> usize {
    deploy.update.parallelism.max(1) as usize
}

fn starts_first(deploy: &Deploy) -> bool {
    deploy.update.order == UpdateOrder::StartFirst
}

fn is_lost(seen: &Inventory, zone: &ZoneName) -> bool {
    seen.zones.get(zone).is_some_and(|state| !state.available)
}
