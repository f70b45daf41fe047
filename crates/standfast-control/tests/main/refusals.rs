//! Each rule of the check refuses a plan that breaks just this rule.

use std::sync::Arc;

use standfast_control::{Blueprint, CheckError, PlannedReplica, check, plan};
use standfast_model::{Generation, ReplicaId, Stamp};
use standfast_platform::ExitReason;

use crate::support::{Drive, name, service, stack, version, zone};

/// A plan that heals `orders-1`, and what it is checked against.
fn doctored(change: impl FnOnce(&mut Blueprint)) -> Result<(), CheckError> {
    let mut drive = Drive::running(&stack(&["a", "b", "c"], vec![service("orders", 3)]));
    drive.world.end("orders-1.1", ExitReason::Code(1), None);
    let seen = drive.world.inventory();
    let mut blueprint = plan(&drive.policy, &seen, &drive.blueprint, drive.world.now).blueprint;
    change(&mut blueprint);
    check(&drive.policy, &seen, &drive.blueprint, &blueprint)
}

fn slot(slot: u32) -> ReplicaId {
    ReplicaId { service: name("orders"), slot }
}

fn edit(blueprint: &mut Blueprint, at: u32, change: impl FnOnce(&mut PlannedReplica)) {
    change(Arc::make_mut(blueprint.replicas.get_mut(&slot(at)).unwrap()));
}

#[test]
fn a_sound_plan_passes() {
    assert_eq!(doctored(|_| ()), Ok(()));
}

#[test]
fn a_plan_of_another_parent_or_number_is_refused() {
    let refused = doctored(|blueprint| blueprint.parent = Blueprint::genesis().id);
    assert!(matches!(refused, Err(CheckError::Parent { .. })), "{refused:?}");
    let refused = doctored(|blueprint| blueprint.generation = Generation(99));
    assert!(matches!(refused, Err(CheckError::Generation { .. })), "{refused:?}");
}

#[test]
fn an_instance_in_anothers_place_is_refused() {
    let refused = doctored(|blueprint| {
        let copy = Arc::clone(&blueprint.replicas[&slot(0)]);
        blueprint.replicas.insert(slot(2), copy);
    });
    assert!(matches!(refused, Err(CheckError::Misplaced { .. })), "{refused:?}");
}

#[test]
fn an_attempt_that_goes_backward_or_changes_in_place_is_refused() {
    let refused = doctored(|blueprint| edit(blueprint, 1, |planned| planned.instance.attempt = 0));
    assert!(matches!(refused, Err(CheckError::Backward { used: 1, .. })), "{refused:?}");
    let refused = doctored(|blueprint| edit(blueprint, 0, |planned| planned.zone = zone("z")));
    assert!(matches!(refused, Err(CheckError::Changed { .. })), "{refused:?}");
    let refused = doctored(|blueprint| {
        blueprint.replicas.remove(&slot(1));
        blueprint.services.get_mut(&name("orders")).unwrap().attempts_floor = 0;
    });
    assert!(matches!(refused, Err(CheckError::Backward { .. })), "a forgotten attempt: {refused:?}");
}

#[test]
fn a_zone_that_is_not_there_is_refused() {
    let refused = doctored(|blueprint| edit(blueprint, 1, |planned| planned.zone = zone("z")));
    assert!(matches!(refused, Err(CheckError::Zone { .. })), "{refused:?}");
}

#[test]
fn a_revision_that_nobody_can_start_is_refused() {
    let refused = doctored(|blueprint| {
        edit(blueprint, 1, |planned| planned.revision = version(service("orders", 1), "x").revision());
    });
    assert!(matches!(refused, Err(CheckError::Launch { .. })), "{refused:?}");
}

#[test]
fn more_replicas_than_the_update_rules_allow_are_refused() {
    let refused = doctored(|blueprint| {
        for at in 3..5 {
            let mut more = PlannedReplica::clone(&blueprint.replicas[&slot(1)]);
            more.instance.replica = slot(at);
            more.instance.attempt = 9;
            blueprint.replicas.insert(slot(at), more.into());
        }
    });
    assert!(matches!(refused, Err(CheckError::Surge { found: 5, most: 4, .. })), "{refused:?}");
}

#[test]
fn taking_away_what_serves_below_the_budget_is_refused() {
    let refused = doctored(|blueprint| edit(blueprint, 0, |planned| planned.instance.attempt = 2));
    assert!(matches!(refused, Err(CheckError::Budget { kept: 1, least: 3, .. })), "{refused:?}");
    let refused = doctored(|blueprint| {
        let until = Stamp::from_micros(u64::MAX);
        edit(blueprint, 0, |planned| planned.intent = standfast_control::PlannedIntent::Drain { until });
    });
    assert!(matches!(refused, Err(CheckError::Budget { kept: 1, least: 3, .. })), "{refused:?}");
}

#[test]
fn a_new_replica_in_a_fuller_zone_is_refused() {
    let refused = doctored(|blueprint| {
        let crowded = blueprint.replicas[&slot(0)].zone.clone();
        edit(blueprint, 1, |planned| planned.zone = crowded);
    });
    assert!(matches!(refused, Err(CheckError::Spread { most: 2, least: 0, .. })), "{refused:?}");
}
