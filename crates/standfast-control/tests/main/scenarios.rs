//! Each rule of the planner in a scene of its own.

use std::time::Duration;

use standfast_control::{
    Blueprint, DRAIN, Occasion, PlannedIntent, Policy, QUICK, RestartTarget, StepKind, plan,
};
use standfast_model::{DependsOn, RestartCondition, UpdateOrder};
use standfast_platform::{ExitReason, ReplicaState};

use crate::support::{Drive, ROUND, after, generation, name, service, stack, tell, version};

const LONG: Option<Duration> = Some(Duration::from_secs(60));

#[test]
fn the_first_start_spreads_replicas_and_fills_slots_from_nought() {
    let mut drive = Drive::new(&stack(&["a", "b", "c"], vec![service("orders", 4)]));
    let plan = drive.tick();
    assert!(plan.report.steps.iter().all(|step| step.kind == StepKind::Start));
    let replicas: Vec<String> = plan.report.steps.iter().map(|step| step.replica.to_string()).collect();
    assert_eq!(replicas, ["orders-0.1", "orders-1.1", "orders-2.1", "orders-3.1"]);
    let mut spread = drive.spread("orders");
    spread.sort_unstable();
    assert_eq!(spread, [1, 1, 2]);
    drive.settle(10);
    assert_eq!(drive.world.serving("orders").len(), 4);
}

#[test]
fn a_plan_of_a_steady_state_is_its_parent() {
    let drive = Drive::running(&stack(&["a", "b"], vec![service("orders", 3)]));
    let again = plan(&drive.policy, &drive.world.inventory(), &drive.blueprint, drive.world.now);
    assert_eq!(again.blueprint, drive.blueprint);
    assert!(again.report.steps.is_empty() && again.report.changes.is_empty());
}

#[test]
fn dependencies_gate_the_first_start_only() {
    let job = {
        let mut job = service("migrate", 1);
        job.deploy.restart.condition = RestartCondition::OnFailure;
        job
    };
    let orders = after(service("orders", 1), "db", DependsOn::ServiceHealthy);
    let orders = after(orders, "migrate", DependsOn::ServiceCompletedSuccessfully);
    let web = after(service("web", 1), "orders", DependsOn::ServiceStarted);
    let all = stack(&["a"], vec![service("db", 1), job.clone(), orders, web]);
    let mut drive = Drive::new(&all);
    drive.world.broken.insert(job.revision(), 0);
    let first = drive.tick();
    assert_eq!(tell(&first), ["start db-0.1 a", "start migrate-0.1 a"]);
    assert_eq!(
        first.report.waiting,
        [
            "1 replica of `db` must get ready",
            "1 replica of `migrate` must get ready",
            "`orders` waits for `db` to be ready",
            "`orders` waits for `migrate` to end with success",
            "`web` waits for `orders` to start",
        ]
    );
    drive.world.pass(ROUND);
    assert!(drive.told().is_empty(), "db starts, and is not ready yet");
    drive.world.pass(ROUND);
    assert_eq!(drive.told(), ["complete migrate-0.1 a"]);
    assert_eq!(drive.told(), ["start orders-0.1 a"]);
    drive.world.pass(ROUND);
    assert_eq!(drive.told(), ["start web-0.1 a"]);
    drive.settle(10);
    drive.world.end("db-0.1", ExitReason::Code(1), LONG);
    drive.world.end("orders-0.1", ExitReason::Code(1), LONG);
    assert_eq!(drive.told(), ["heal db-0.2 a", "heal orders-0.2 a"], "no gate the second time");
}

#[test]
fn an_ended_replica_gets_a_new_attempt_at_once_in_its_slot_and_zone() {
    let mut drive = Drive::running(&stack(&["a", "b", "c"], vec![service("orders", 3)]));
    let before = drive.blueprint.replicas.values().nth(1).unwrap().clone();
    drive.world.end("orders-1.1", ExitReason::Signal(9), LONG);
    let plan = drive.tick();
    let step = &plan.report.steps[0];
    assert_eq!((step.replica.to_string().as_str(), &step.zone), ("orders-1.2", &before.zone));
    assert_eq!(step.reason, "orders-1.1 ended by signal 9");
    assert_eq!(step.impact, "2 of 3 replicas of `orders` are ready");
    let healed = drive.blueprint.replicas.values().nth(1).unwrap();
    assert_eq!((healed.not_before, healed.failures), (drive.world.now, 0));
    assert_eq!(drive.blueprint.services[&name("orders")].restarts, 1);
}

#[test]
fn quick_failures_wait_longer_each_time_and_show_as_a_crash_loop_with_output() {
    let orders = service("orders", 1);
    let mut drive = Drive::new(&stack(&["a"], vec![orders.clone()]));
    drive.world.broken.insert(orders.revision(), 1);
    let mut waits = Vec::new();
    for _ in 0..40 {
        let plan = drive.tick();
        if plan.report.steps.iter().any(|step| step.kind == StepKind::Heal) {
            let replica = drive.blueprint.replicas.values().next().unwrap();
            waits.push(replica.not_before.since(drive.world.now).as_millis());
        }
        drive.world.pass(ROUND);
    }
    assert_eq!(waits[..6], [0, 100, 200, 400, 800, 1_600]);
    let looping = drive.tick().report.crash_loops[0].clone();
    assert!(looping.failures >= 6 && looping.next_try.is_some());
    assert_eq!(
        (looping.reason.as_str(), looping.last_output.as_slice()),
        ("exited with code 1", &["cannot open the database".to_owned()][..])
    );
}

#[test]
fn serving_for_long_enough_forgives_all_failures() {
    let mut drive = Drive::running(&stack(&["a"], vec![service("orders", 1)]));
    let (short, long) = (QUICK / 3, QUICK * 4 / 3);
    for (attempt, served, failures) in [(1, short, 1), (2, short, 2), (3, long, 0), (4, short, 1)] {
        drive.world.end(&format!("orders-0.{attempt}"), ExitReason::Code(1), Some(served));
        drive.tick();
        assert_eq!(drive.blueprint.replicas.values().next().unwrap().failures, failures);
    }
}

#[test]
fn a_replica_is_given_up_after_max_attempts_and_its_last_words_are_kept() {
    let mut orders = service("orders", 1);
    orders.deploy.restart.max_attempts = Some(2);
    let mut drive = Drive::new(&stack(&["a"], vec![orders.clone()]));
    drive.world.broken.insert(orders.revision(), 1);
    drive.settle(20);
    let replica = drive.blueprint.replicas.values().next().unwrap();
    let PlannedIntent::Ended(ending) = &replica.intent else { panic!("{replica:?}") };
    assert!(!ending.success && ending.last_output == ["cannot open the database"]);
    assert!(drive.world.wanted.replicas.is_empty(), "it is in no order, or it would be started again");
    let looping = &drive.tick().report.crash_loops[0];
    assert_eq!((looping.replica.to_string().as_str(), looping.next_try), ("orders-0.2", None));
}

#[test]
fn a_job_that_did_its_work_is_not_started_again_and_one_that_failed_is() {
    let mut job = service("job", 1);
    job.deploy.restart.condition = RestartCondition::OnFailure;
    let mut drive = Drive::running(&stack(&["a"], vec![job]));
    drive.world.end("job-0.1", ExitReason::Code(3), LONG);
    assert_eq!(drive.told(), ["heal job-0.2 a"]);
    drive.world.pass(ROUND);
    drive.world.end("job-0.2", ExitReason::Code(0), None);
    assert_eq!(drive.told(), ["complete job-0.2 a"]);
    drive.settle(5);
}

#[test]
fn a_stop_by_order_is_no_failure() {
    let mut drive = Drive::running(&stack(&["a"], vec![service("orders", 1)]));
    drive.world.end("orders-0.1", ExitReason::Stopped, None);
    assert_eq!(drive.told(), ["heal orders-0.2 a"]);
    assert_eq!(drive.blueprint.replicas.values().next().unwrap().failures, 0);
}

#[test]
fn replicas_of_a_lost_zone_move_at_once_and_come_back_one_at_a_time_without_a_gap() {
    let mut drive = Drive::running(&stack(&["a", "b", "c"], vec![service("orders", 6)]));
    assert_eq!(drive.spread("orders"), [2, 2, 2]);
    drive.world.lose_zone("b");
    let plan = drive.tick();
    assert_eq!(plan.report.steps.len(), 2);
    assert!(plan.report.steps[0].reason.ends_with("was lost with zone `b`"), "{:?}", plan.report.steps[0]);
    drive.settle(10);
    assert_eq!(drive.spread("orders"), [3, 0, 3]);
    drive.world.regain_zone("b");
    let mut least = usize::MAX;
    let mut surge = 0;
    for _ in 0..60 {
        drive.tick();
        drive.world.pass(ROUND);
        let planned = drive.blueprint.replicas.values();
        let ready =
            planned.clone().filter(|p| p.shall_run() && drive.world.replicas[&p.instance].is_serving());
        least = least.min(ready.count());
        surge = surge.max(planned.filter(|p| p.shall_run()).count());
    }
    assert_eq!((least, surge), (6, 7));
    assert_eq!(drive.spread("orders"), [2, 2, 2]);
}

#[test]
fn with_no_zone_left_the_plan_waits_and_says_so() {
    let mut drive = Drive::running(&stack(&["a"], vec![service("orders", 2)]));
    drive.world.lose_zone("a");
    let plan = drive.tick();
    assert!(plan.report.steps.is_empty());
    assert_eq!(plan.report.waiting, ["2 replicas of `orders` wait for a zone: none is available"]);
    drive.world.regain_zone("a");
    drive.settle(10);
    assert_eq!(drive.world.serving("orders").len(), 2);
}

#[test]
fn an_unready_replica_is_left_to_the_platform() {
    let mut drive = Drive::running(&stack(&["a"], vec![service("orders", 2)]));
    drive.world.set_unready(|instance| instance.replica.slot == 0);
    assert!(drive.told().is_empty());
    drive.world.end("orders-0.1", ExitReason::Unhealthy("timed out".into()), LONG);
    assert_eq!(drive.told(), ["heal orders-0.2 a"]);
}

#[test]
fn when_most_look_dead_at_once_only_what_provably_ended_is_touched() {
    let old = stack(&["a"], vec![service("orders", 5)]);
    let mut drive = Drive::running(&old);
    drive.world.set_unready(|instance| instance.replica.slot < 3);
    drive.want(&stack(&["a"], vec![service("orders", 2)]));
    let plan = drive.tick();
    assert!(plan.report.steps.is_empty(), "{:?}", plan.report.steps);
    assert!(
        plan.report.waiting[0].starts_with("3 of 5 replicas look dead at once"),
        "{:?}",
        plan.report.waiting
    );
    drive.want(&old);
    drive.world.end("orders-4.1", ExitReason::Code(1), LONG);
    assert_eq!(drive.told(), ["heal orders-4.2 a"]);
}

#[test]
fn start_first_never_has_fewer_ready_than_wanted_nor_more_than_one_above() {
    let mut drive = Drive::running(&stack(&["a", "b", "c"], vec![version(service("orders", 3), "1")]));
    drive.want(&stack(&["a", "b", "c"], vec![version(service("orders", 3), "2")]));
    let first = drive.tick();
    assert_eq!(tell(&first).len(), 1);
    assert!(tell(&first)[0].starts_with("update orders-3.1"));
    assert_eq!(
        first.report.steps[0].impact,
        "no request is refused: the old replica serves until the new one is ready"
    );
    assert!(
        first.report.changes[0].what.ends_with("exchange of 3 replicas, 1 at a time"),
        "{:?}",
        first.report.changes
    );
    drive.world.pass(ROUND);
    assert!(drive.told().is_empty(), "not ready yet");
    drive.world.pass(ROUND);
    assert!(drive.told()[0].starts_with("drain orders-"));
    assert!(drive.told().is_empty(), "the next one waits for the drain");
    drive.world.pass(DRAIN);
    let next = drive.told();
    assert!(next[0].starts_with("stop orders-") && next[1].starts_with("update orders-"), "{next:?}");
    let (mut least, mut most) = (usize::MAX, 0);
    for _ in 0..40 {
        drive.tick();
        drive.world.pass(ROUND);
        least = least.min(drive.world.serving("orders").len());
        most = most.max(drive.world.kept());
    }
    assert_eq!((least, most), (3, 4));
    drive.settle(5);
    assert_eq!(drive.spread("orders"), [1, 1, 1]);
}

#[test]
fn stop_first_never_has_more_than_wanted_nor_more_than_one_missing() {
    let stop_first = |text: &str| {
        let mut orders = version(service("orders", 3), text);
        orders.deploy.update.order = UpdateOrder::StopFirst;
        stack(&["a", "b", "c"], vec![orders])
    };
    let mut drive = Drive::running(&stop_first("1"));
    drive.want(&stop_first("2"));
    let (mut least, mut most) = (usize::MAX, 0);
    for _ in 0..40 {
        drive.tick();
        drive.world.pass(ROUND);
        least = least.min(drive.world.serving("orders").len());
        most = most.max(drive.world.replicas.len());
    }
    assert_eq!((least, most), (2, 3));
    drive.settle(5);
    assert_eq!(drive.spread("orders"), [1, 1, 1]);
}

#[test]
fn a_new_revision_that_crashes_pauses_its_rollout_and_the_old_one_keeps_serving() {
    let (old, new) = (version(service("orders", 3), "1"), version(service("orders", 3), "2"));
    let mut drive = Drive::running(&stack(&["a", "b", "c"], vec![old.clone()]));
    let serving = drive.world.serving("orders");
    drive.want(&stack(&["a", "b", "c"], vec![new.clone()]));
    drive.world.broken.insert(new.revision(), 1);
    for _ in 0..40 {
        drive.tick();
        drive.world.pass(ROUND);
        assert_eq!(drive.world.serving("orders"), serving);
    }
    let waiting = drive.tick().report.waiting;
    let said = "fails again and again (exited with code 1); 3 replicas of the old revision still serve";
    assert!(
        waiting.iter().any(|w| w.starts_with("the rollout of `orders` is paused") && w.ends_with(said)),
        "{waiting:?}"
    );
    let victim = serving[0].clone();
    drive.world.end(&victim, ExitReason::Code(1), LONG);
    drive.tick();
    let healed = drive.blueprint.replicas.values().find(|p| p.instance.to_string().starts_with(&victim[..8]));
    assert_eq!(healed.unwrap().revision, old.revision(), "paused: the old revision comes back");
    drive.want(&stack(&["a", "b", "c"], vec![version(service("orders", 3), "3")]));
    drive.settle(60);
    assert_eq!(drive.world.serving("orders").len(), 3);
}

#[test]
fn a_fix_for_a_service_that_never_got_ready_does_not_wait_for_back_off() {
    let broken = version(service("orders", 3), "1");
    let mut drive = Drive::new(&stack(&["a"], vec![broken.clone()]));
    drive.world.broken.insert(broken.revision(), 1);
    for _ in 0..30 {
        drive.tick();
        drive.world.pass(ROUND);
    }
    drive.tick();
    drive.want(&stack(&["a"], vec![version(service("orders", 3), "2")]));
    let plan = drive.tick();
    assert_eq!(plan.report.steps.len(), 3);
    assert!(drive.blueprint.replicas.values().all(|planned| planned.not_before <= drive.world.now));
    drive.world.pass(ROUND);
    drive.world.pass(ROUND);
    assert_eq!(drive.world.serving("orders").len(), 3);
}

#[test]
fn scaling_up_adds_where_there_are_fewest_and_scaling_down_takes_the_newest_of_the_fullest() {
    let of = |replicas| stack(&["a", "b"], vec![service("orders", replicas)]);
    let mut drive = Drive::running(&of(2));
    drive.want(&of(5));
    assert_eq!(drive.told().len(), 3);
    drive.settle(10);
    drive.want(&of(2));
    let plan = drive.tick();
    assert!(plan.report.steps.iter().all(|step| step.kind == StepKind::Drain));
    let gone: Vec<u32> = plan.report.steps.iter().map(|step| step.replica.replica.slot).collect();
    assert_eq!(gone, [4, 3, 2]);
    assert_eq!(plan.report.changes[0].what, "replicas: 5 → 2");
    drive.settle(10);
    assert_eq!(drive.spread("orders"), [1, 1]);
    drive.want(&of(3));
    let again = drive.told();
    assert!(
        again[0].starts_with("start orders-2.2"),
        "a slot is used again with a higher attempt: {again:?}"
    );
}

#[test]
fn a_service_that_left_the_stack_drains_and_going_down_does_not() {
    let both = stack(&["a"], vec![service("orders", 2), service("web", 1)]);
    let mut drive = Drive::running(&both);
    drive.want(&stack(&["a"], vec![service("web", 1)]));
    assert_eq!(drive.told(), ["drain orders-1.1 a", "drain orders-0.1 a"]);
    assert_eq!(drive.world.replicas.len(), 3);
    drive.world.pass(DRAIN);
    assert_eq!(drive.told(), ["stop orders-1.1 a", "stop orders-0.1 a"]);
    drive.settle(5);
    drive.want(&both);
    let again = drive.told();
    assert_eq!(again, ["start orders-0.2 a", "start orders-1.2 a"], "attempts never go backward");
    drive.settle(5);
    drive.policy = Policy::down();
    assert_eq!(drive.told().len(), 3);
    assert!(drive.blueprint.replicas.is_empty() && drive.world.kept() == 0);
    drive.settle(5);
}

#[test]
fn a_restart_exchanges_replicas_of_the_same_revision_one_by_one() {
    let mut drive = Drive::running(&stack(&["a", "b", "c"], vec![service("orders", 3)]));
    let before = drive.world.serving("orders");
    let restarts = [RestartTarget::Service(name("orders"))].into();
    let plan = drive.tick_for(&Occasion { restarts, ..Occasion::default() });
    assert_eq!(
        (plan.report.steps.len(), plan.report.steps[0].reason.as_str()),
        (1, "a restart was asked for")
    );
    let mut least = usize::MAX;
    for _ in 0..40 {
        drive.tick();
        drive.world.pass(ROUND);
        least = least.min(drive.world.serving("orders").len());
    }
    assert_eq!(least, 3);
    drive.settle(5);
    assert!(drive.world.serving("orders").iter().all(|replica| !before.contains(replica)));
}

#[test]
fn a_restart_of_one_replica_touches_no_other() {
    let mut drive = Drive::running(&stack(&["a"], vec![service("orders", 3)]));
    let id = drive.blueprint.replicas.keys().nth(1).unwrap().clone();
    drive.tick_for(&Occasion { restarts: [RestartTarget::Replica(id)].into(), ..Occasion::default() });
    drive.settle(20);
    assert_eq!(drive.world.serving("orders"), ["orders-0.1", "orders-2.1", "orders-3.1"]);
}

#[test]
fn what_runs_under_an_order_that_is_not_known_is_taken_over_untouched() {
    let all = stack(&["a", "b"], vec![service("orders", 3)]);
    let mut drive = Drive::running(&all);
    let serving = drive.world.serving("orders");
    drive.world.wanted.generation = generation(57);
    drive.blueprint = Blueprint::genesis();
    let plan = drive.tick();
    assert!(plan.report.steps.iter().all(|step| step.kind == StepKind::Adopt), "{:?}", tell(&plan));
    assert_eq!(drive.blueprint.generation, generation(58));
    drive.settle(5);
    assert_eq!(drive.world.serving("orders"), serving);
}

#[test]
fn an_order_that_the_platform_has_not_taken_yet_is_not_taken_for_a_loss() {
    let all = stack(&["a"], vec![service("orders", 3)]);
    let mut drive = Drive::new(&all);
    let empty = drive.world.inventory();
    drive.tick();
    let again = plan(&drive.policy, &empty, &drive.blueprint, drive.world.now);
    assert_eq!(again.blueprint, drive.blueprint);
}

#[test]
fn a_replica_that_the_platform_forgot_is_started_again() {
    let mut drive = Drive::running(&stack(&["a"], vec![service("orders", 2)]));
    drive.world.replicas.pop_first();
    assert_eq!(drive.told(), ["heal orders-0.2 a"]);
}

#[test]
fn a_zone_that_left_the_stack_is_emptied_without_a_gap() {
    let mut drive = Drive::running(&stack(&["a", "b"], vec![service("orders", 4)]));
    drive.want(&stack(&["a"], vec![service("orders", 4)]));
    let mut least = usize::MAX;
    for _ in 0..40 {
        drive.tick();
        drive.world.pass(ROUND);
        least = least.min(drive.world.serving("orders").len());
    }
    assert_eq!(least, 4);
    assert_eq!(drive.spread("orders"), [4, 0]);
}

#[test]
fn a_replica_that_failed_before_counts_only_after_it_has_served_for_a_while() {
    let (old, new) = (version(service("orders", 1), "1"), version(service("orders", 1), "2"));
    let mut drive = Drive::running(&stack(&["a"], vec![old]));
    drive.want(&stack(&["a"], vec![new]));
    drive.tick();
    drive.world.pass(ROUND);
    drive.world.end("orders-1.1", ExitReason::Code(1), None);
    drive.tick();
    drive.world.pass(ROUND);
    drive.world.pass(ROUND);
    assert!(matches!(drive.world.replicas.values().nth(1).unwrap().state, ReplicaState::Serving { .. }));
    let plan = drive.tick();
    assert!(plan.report.steps.is_empty(), "it may fail again");
    assert_eq!(plan.wake_at, Some(drive.world.now.plus(QUICK)));
    drive.world.pass(QUICK);
    assert_eq!(drive.told(), ["drain orders-0.1 a"]);
}

#[test]
fn jobs_that_are_done_make_room_for_a_new_revision_only_within_the_wanted_number() {
    let of = |text: &str, replicas, condition, order| {
        let mut job = version(service("job", replicas), text);
        job.deploy.restart.condition = condition;
        job.deploy.update.order = order;
        stack(&["a"], vec![job])
    };
    let mut drive = Drive::running(&of("1", 5, RestartCondition::None, UpdateOrder::StartFirst));
    for slot in 0..4 {
        drive.world.end(&format!("job-{slot}.1"), ExitReason::Code(0), None);
    }
    drive.tick();
    drive.want(&of("2", 4, RestartCondition::Any, UpdateOrder::StopFirst));
    let mut most = 0;
    for _ in 0..20 {
        drive.tick();
        drive.world.pass(ROUND);
        most = most.max(drive.world.replicas.len());
    }
    assert_eq!((most, drive.world.serving("job").len()), (4, 4));
}

#[test]
fn a_move_to_zones_that_are_all_lost_waits_and_plans_nothing() {
    let mut drive = Drive::new(&stack(&["a", "b"], vec![service("orders", 2)]));
    drive.tick();
    drive.world.lose_zone("a");
    drive.want(&stack(&["a"], vec![service("orders", 2)]));
    let plan = drive.tick();
    assert!(plan.report.steps.is_empty(), "{:?}", plan.report.steps);
    drive.world.regain_zone("a");
    drive.settle(20);
    assert_eq!(drive.spread("orders"), [2, 0]);
}

#[test]
fn a_zone_lost_in_the_midst_of_a_rollout_is_healed_wherever_the_old_replicas_stand() {
    let mut drive = Drive::running(&stack(&["a", "b"], vec![version(service("db", 4), "1")]));
    drive.want(&stack(&["a", "b", "c"], vec![version(service("db", 3), "2")]));
    drive.world.regain_zone("c");
    drive.tick();
    drive.world.lose_zone("b");
    drive.tick();
    drive.world.pass(ROUND);
    drive.world.regain_zone("b");
    drive.settle(40);
    assert_eq!(drive.spread("db"), [1, 1, 1]);
}

#[test]
fn a_replica_given_up_keeps_no_place_in_its_zone_from_those_that_start() {
    let mut drive = Drive::new(&stack(&["a"], vec![version(service("db", 2), "1")]));
    drive.tick();
    let mut db = version(service("db", 3), "2");
    db.deploy.update.order = UpdateOrder::StopFirst;
    db.deploy.restart.condition = RestartCondition::None;
    drive.want(&stack(&["a", "b", "c"], vec![db]));
    drive.tick();
    let victim = drive.blueprint.replicas.values().next().unwrap().instance.to_string();
    drive.world.end(&victim, ExitReason::Unknown, None);
    let told = drive.told();
    assert_eq!(told.iter().filter(|step| step.starts_with("start")).count(), 2, "{told:?}");
}

#[test]
fn what_goes_when_fewer_are_wanted_is_never_in_a_zone_emptier_than_where_another_heals() {
    let all = ["a", "b", "c"];
    let of = |text: &str, replicas| {
        let mut db = version(service("db", replicas), text);
        db.deploy.update.parallelism = 2;
        stack(&all, vec![db])
    };
    let mut drive = Drive::new(&of("1", 1));
    drive.world.lose_zone("b");
    drive.world.lose_zone("c");
    drive.settle(10);
    drive.want(&of("2", 3));
    drive.tick();
    for slot in 1..=3 {
        drive.world.end(&format!("db-{slot}.1"), ExitReason::Code(1), None);
    }
    drive.tick();
    drive.world.pass(ROUND);
    drive.world.pass(ROUND);
    drive.world.regain_zone("b");
    drive.world.regain_zone("c");
    drive.want(&of("2", 5));
    drive.tick();
    // Of the four in zone `a` one is old, and three are new: they serve, but failed before and do not count as ready yet.
    assert_eq!(drive.spread("db"), [4, 1, 1]);
    drive.world.end("db-0.1", ExitReason::Code(1), None);
    drive.want(&of("2", 4));
    drive.settle(40);
    let mut spread = drive.spread("db");
    spread.sort_unstable();
    assert_eq!(spread, [1, 1, 2]);
}
