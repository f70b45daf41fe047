//! What holds for any history: no plan is refused, nothing that serves is taken away below the budget, and all comes to rest
//! where the stack says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use standfast_control::{Blueprint, Occasion, RestartTarget};
use standfast_model::{
    DependsOn, Instance, ReplicaId, RestartCondition, Service, Stack, UpdateOrder, ZoneName,
};
use standfast_platform::{ExitReason, ReplicaState, SeenReplica};

use crate::support::{Drive, ROUND, after, name, service, stack, version};

const SERVICES: [&str; 3] = ["db", "orders", "web"];
const ZONES: [&str; 4] = ["a", "b", "c", "d"];
/// The longest back-off, the time until a replica that failed counts again, and then one exchange after the other.
const ROUNDS_MAX: usize = 600;

#[derive(Debug, Clone)]
struct Shape {
    replicas: u32,
    parallelism: u32,
    stop_first: bool,
    version: u8,
    condition: RestartCondition,
    max_attempts: Option<u32>,
}

#[derive(Debug, Clone)]
enum Event {
    End {
        pick: usize,
        code: i32,
        served_ms: u64,
    },
    Vanish {
        pick: usize,
    },
    Unready {
        pick: usize,
    },
    AllUnready,
    Recover,
    LoseZone {
        pick: usize,
    },
    RegainZones,
    Restart {
        pick: usize,
    },
    Change {
        shapes: Vec<Shape>,
        zones: usize,
    },
    /// The platform is not reached for a round: the order stays where it is.
    Break {
        version: u8,
    },
    Pass {
        rounds: usize,
    },
}

fn shape() -> impl Strategy<Value = Shape> {
    let condition = prop_oneof![
        4 => Just(RestartCondition::Any),
        1 => Just(RestartCondition::OnFailure),
        1 => Just(RestartCondition::None),
    ];
    let attempts = prop_oneof![3 => Just(None), 1 => (1_u32..4).prop_map(Some)];
    (0_u32..7, 1_u32..4, any::<bool>(), 0_u8..4, condition, attempts).prop_map(
        |(replicas, parallelism, stop_first, version, condition, max_attempts)| Shape {
            replicas,
            parallelism,
            stop_first,
            version,
            condition,
            max_attempts,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let shapes = || proptest::collection::vec(shape(), 0..=SERVICES.len());
    prop_oneof![
        4 => (any::<usize>(), 0..3_i32, 0..6_000_u64)
            .prop_map(|(pick, code, served_ms)| Event::End { pick, code, served_ms }),
        1 => any::<usize>().prop_map(|pick| Event::Vanish { pick }),
        2 => any::<usize>().prop_map(|pick| Event::Unready { pick }),
        1 => Just(Event::AllUnready),
        1 => Just(Event::Recover),
        1 => any::<usize>().prop_map(|pick| Event::LoseZone { pick }),
        1 => Just(Event::RegainZones),
        1 => any::<usize>().prop_map(|pick| Event::Restart { pick }),
        2 => (shapes(), 1..=ZONES.len()).prop_map(|(shapes, zones)| Event::Change { shapes, zones }),
        1 => (0_u8..4).prop_map(|version| Event::Break { version }),
        6 => (1..5_usize).prop_map(|rounds| Event::Pass { rounds }),
    ]
}

fn of_shape(text: &str, shape: &Shape) -> Service {
    let mut made = version(service(text, shape.replicas), &shape.version.to_string());
    made.deploy.update.parallelism = shape.parallelism;
    made.deploy.update.order =
        if shape.stop_first { UpdateOrder::StopFirst } else { UpdateOrder::StartFirst };
    made.deploy.restart.condition = shape.condition;
    made.deploy.restart.max_attempts = shape.max_attempts;
    if text == "web" { after(made, "db", DependsOn::ServiceHealthy) } else { made }
}

fn stack_of(shapes: &[Shape], zones: usize) -> Arc<Stack> {
    let mut services: Vec<Service> =
        SERVICES.iter().zip(shapes).map(|(text, shape)| of_shape(text, shape)).collect();
    services.iter_mut().filter(|_| shapes.is_empty()).for_each(|service| service.depends_on.clear());
    stack(&ZONES[..zones], services)
}

/// A service that must run and can.
fn healthy(shape: &Shape) -> Shape {
    Shape {
        replicas: shape.replicas.max(1),
        version: 9,
        condition: RestartCondition::Any,
        max_attempts: None,
        ..shape.clone()
    }
}

/// What serves in a blueprint's name.
fn serving(drive: &Drive, blueprint: &Blueprint) -> BTreeSet<Instance> {
    let serves =
        |instance: &&Instance| drive.world.replicas.get(*instance).is_some_and(|seen| seen.is_serving());
    let running = blueprint.replicas.values().filter(|planned| planned.shall_run());
    running.map(|planned| &planned.instance).filter(serves).cloned().collect()
}

/// A round, with the budget counted by other means than the planner's.
fn round(drive: &mut Drive, occasion: &Occasion) {
    let available =
        |drive: &Drive, instance: &Instance| drive.world.zones[&drive.world.replicas[instance].zone];
    let before = serving(drive, &drive.blueprint);
    let untouched: BTreeSet<Instance> =
        before.iter().filter(|instance| available(drive, instance)).cloned().collect();
    let world = drive.world.clone();
    drive.tick_for(occasion);
    let seen = Drive { world, ..drive.clone() };
    let left = serving(&seen, &drive.blueprint);
    let services = drive.policy.stack().map(|stack| stack.services.clone()).unwrap_or_default();
    for service in services.values() {
        let of = |all: &BTreeSet<Instance>| all.iter().filter(|i| i.replica.service == service.name).count();
        let taken = untouched.iter().any(|i| i.replica.service == service.name && !left.contains(i));
        let done =
            drive.blueprint.replicas_of(&service.name).filter(|planned| planned.has_completed()).count();
        let missing = match service.deploy.update.order {
            UpdateOrder::StartFirst => 0,
            UpdateOrder::StopFirst => service.deploy.update.parallelism as usize,
        };
        assert!(
            !taken || of(&left) + done + missing >= service.deploy.replicas as usize,
            "{} went from {} to {} by choice",
            service.name,
            of(&before),
            of(&left)
        );
    }
}

fn happen(drive: &mut Drive, event: &Event) {
    let pick = |drive: &Drive, pick: usize| {
        let alive: Vec<Instance> = drive
            .world
            .replicas
            .values()
            .filter(|seen| !seen.has_exited())
            .map(|seen| seen.instance.clone())
            .collect();
        (!alive.is_empty()).then(|| alive[pick % alive.len()].clone())
    };
    let mut occasion = Occasion::default();
    match event {
        Event::End { pick: at, code, served_ms } => {
            let Some(victim) = pick(drive, *at) else { return };
            let served = (*served_ms > 500).then(|| Duration::from_millis(*served_ms));
            let reason = if at % 5 == 0 { ExitReason::Unknown } else { ExitReason::Code(*code) };
            drive.world.end(&victim.to_string(), reason, served);
        }
        Event::Vanish { pick: at } => {
            let Some(victim) = pick(drive, *at) else { return };
            drive.world.replicas.remove(&victim);
        }
        Event::Unready { pick: at } => {
            let Some(victim) = pick(drive, *at) else { return };
            drive.world.set_unready(|instance| *instance == victim);
        }
        Event::AllUnready => drive.world.set_unready(|_| true),
        Event::Recover => recover(drive),
        Event::LoseZone { pick } => drive.world.lose_zone(ZONES[pick % ZONES.len()]),
        Event::RegainZones => ZONES.iter().for_each(|zone| drive.world.regain_zone(zone)),
        Event::Restart { pick } => {
            let service = name(SERVICES[pick % SERVICES.len()]);
            let slot = u32::try_from(pick / 3 % 4).unwrap();
            let target = if pick % 2 == 0 {
                RestartTarget::Service(service)
            } else {
                RestartTarget::Replica(ReplicaId { service, slot })
            };
            occasion.restarts.insert(target);
        }
        Event::Change { shapes, zones } => drive.want(&stack_of(shapes, *zones)),
        Event::Break { version: broken } => {
            drive.world.broken.clear();
            for text in SERVICES {
                let revision = version(service(text, 1), &broken.to_string()).revision();
                drive.world.broken.insert(revision, i32::from(*broken % 2));
            }
        }
        Event::Pass { rounds } => {
            for _ in 0..*rounds {
                drive.world.pass(ROUND);
                round(drive, &occasion);
            }
        }
    }
    round(drive, &occasion);
}

fn recover(drive: &mut Drive) {
    for seen in drive.world.replicas.values_mut() {
        if let ReplicaState::Unready { endpoint, .. } = seen.state {
            seen.state = ReplicaState::Serving { since: drive.world.now, endpoint };
        }
    }
}

/// Rounds until there is nothing to do and nothing under way.
fn come_to_rest(drive: &mut Drive) {
    for _ in 0..ROUNDS_MAX {
        let before = drive.blueprint.id.clone();
        round(drive, &Occasion::default());
        let held = drive.world.replicas.clone();
        drive.world.pass(ROUND);
        let is_quiet = before == drive.blueprint.id && held == drive.world.replicas;
        if is_quiet {
            let report = drive.tick().report;
            if report.waiting.is_empty() && report.steps.is_empty() {
                return;
            }
        }
    }
    panic!("no rest: {:#?}\n{:#?}", drive.tick().report, drive.blueprint.replicas);
}

fn assert_as_wanted(drive: &Drive) {
    let stack = drive.policy.stack().unwrap();
    let counts = |service: &Service, zone: &ZoneName| {
        let planned = drive.blueprint.replicas_of(&service.name);
        planned
            .filter(|planned| planned.zone == *zone && drive.world.replicas[&planned.instance].is_serving())
            .count()
    };
    for service in stack.services.values() {
        let spread: Vec<usize> = stack.zones.iter().map(|zone| counts(service, zone)).collect();
        assert_eq!(spread.iter().sum::<usize>(), service.deploy.replicas as usize, "{}", service.name);
        assert!(
            spread.iter().max().unwrap() - spread.iter().min().unwrap() <= 1,
            "{}: {spread:?}",
            service.name
        );
        assert!(
            drive.blueprint.replicas_of(&service.name).all(|planned| planned.revision == service.revision())
        );
    }
    let wanted: u32 = stack.services.values().map(|service| service.deploy.replicas).sum();
    assert_eq!(drive.world.replicas.len(), wanted as usize, "something is left over");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 2, max_shrink_iters: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn any_history_comes_to_rest_where_the_stack_says_and_no_plan_breaks_a_rule(
        first in proptest::collection::vec(shape(), 1..=SERVICES.len()),
        events in proptest::collection::vec(event(), 0..25),
        last in proptest::collection::vec(shape(), 1..=SERVICES.len()),
        zones in 1..=ZONES.len(),
        unseen in any::<bool>(),
    ) {
        let mut drive = Drive::new(&stack_of(&first, zones));
        ZONES.iter().for_each(|zone| drive.world.regain_zone(zone));
        for event in &events {
            happen(&mut drive, event);
        }
        if unseen {
            // The control's state was lost: it begins again with what it finds.
            drive.blueprint = Blueprint::genesis();
        }
        happen(&mut drive, &Event::RegainZones);
        happen(&mut drive, &Event::Recover);
        drive.world.broken.clear();
        let last: Vec<Shape> = last.iter().map(healthy).collect();
        drive.want(&stack_of(&last, zones));
        come_to_rest(&mut drive);
        assert_as_wanted(&drive);
        if zones > 1 {
            let lost = ZONES[events.len() % zones];
            drive.world.lose_zone(lost);
            come_to_rest(&mut drive);
            drive.world.regain_zone(lost);
            come_to_rest(&mut drive);
            assert_as_wanted(&drive);
        }
        prop_assert!(drive.tick().report.steps.is_empty());
    }

    #[test]
    fn a_rollout_without_faults_keeps_its_budget_at_every_moment(
        shapes in proptest::collection::vec(shape(), 1..=SERVICES.len()),
        zones in 1..=ZONES.len(),
    ) {
        let old: Vec<Shape> = shapes.iter().map(|s| Shape { version: 8, ..healthy(s) }).collect();
        let mut drive = Drive::running(&stack_of(&old, zones));
        let new: Vec<Shape> = shapes.iter().map(healthy).collect();
        let wanted = stack_of(&new, zones);
        drive.want(&wanted);
        for _ in 0..200 {
            drive.tick();
            for service in wanted.services.values() {
                let (count, step) = (service.deploy.replicas as usize, service.deploy.update.parallelism as usize);
                let is_of = |instance: &Instance| instance.replica.service == service.name;
                // What is being stopped counts as there only where the order of things is to stop first.
                let starts_first = service.deploy.update.order == UpdateOrder::StartFirst;
                let is_there = |seen: &&SeenReplica| {
                    let is_leaving = matches!(seen.state, ReplicaState::Stopping { .. });
                    is_of(&seen.instance) && !(starts_first && is_leaving)
                };
                let there = drive.world.replicas.values().filter(is_there).count();
                let running = drive.blueprint.replicas_of(&service.name).filter(|p| p.shall_run());
                let ready = running.filter(|p| drive.world.replicas[&p.instance].is_serving()).count();
                let (least, most) = match service.deploy.update.order {
                    UpdateOrder::StartFirst => (count, count + step),
                    UpdateOrder::StopFirst => (count.saturating_sub(step), count),
                };
                prop_assert!(ready >= least && there <= most, "{}: {ready} ready, {there} there", service.name);
            }
            drive.world.pass(ROUND);
        }
        assert_as_wanted(&drive);
    }
}
