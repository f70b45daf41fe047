//! From a blueprint to an order: no choices are left.

use standfast_platform::{Intent, Wanted, WantedReplica};

use crate::blueprint::{Blueprint, PlannedIntent};

/// The order that carries a blueprint out. The same blueprint always gives the same order.
pub fn order(blueprint: &Blueprint) -> Wanted {
    let replicas = blueprint.replicas.values().filter_map(|planned| {
        let intent = match &planned.intent {
            PlannedIntent::Run => Intent::Run,
            PlannedIntent::Drain { .. } => Intent::Drain,
            PlannedIntent::Ended(_) => return None,
        };
        Some(WantedReplica {
            instance: planned.instance.clone(),
            revision: planned.revision.clone(),
            zone: planned.zone.clone(),
            not_before: planned.not_before,
            intent,
        })
    });
    let launches =
        blueprint.launches.iter().map(|(revision, launch)| (revision.clone(), launch.as_ref().clone()));
    Wanted {
        generation: blueprint.generation,
        launches: launches.collect(),
        replicas: replicas.collect(),
        ..Wanted::default()
    }
}
