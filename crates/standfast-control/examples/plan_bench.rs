//! How long a plan takes for 1,000 services of 10 replicas over 3 zones: from nothing, at rest, and with 1 % of the replicas
//! gone. Run it with `cargo run --release -p standfast-control --example plan_bench`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use standfast_control::{Blueprint, Plan, Policy, check, order, plan};
use standfast_model::{
    Deploy, HealthCheck, Limits, Probe, RestartCondition, RestartPolicy, Service, ServiceName, Stack, Stamp,
    UpdateConfig, UpdateOrder, ZoneName,
};
use standfast_platform::{ExitReason, Inventory, ReplicaState, SeenReplica, Wanted, ZoneState};
use standfast_runtime::Clock;

const SERVICES: usize = 1_000;
const REPLICAS: u32 = 10;
const ZONES: [&str; 3] = ["a", "b", "c"];
const RUNS: usize = 15;

fn main() {
    let clock = Clock::system();
    let stack = Arc::new(big_stack());
    println!("{SERVICES} services x {REPLICAS} replicas over {} zones, median of {RUNS} runs", ZONES.len());
    let policy =
        median(&clock, "policy (digest and revisions, once per stack)", || Policy::of(Arc::clone(&stack)));
    let now = Stamp::from_micros(1_000_000_000);
    let (nothing, genesis) = (inventory(&Wanted::default(), now), Blueprint::genesis());
    let first = median(&clock, "plan from nothing", || plan(&policy, &nothing, &genesis, now));
    assert_eq!(first.report.steps.len(), SERVICES * REPLICAS as usize);
    let refused = median(&clock, "check of that", || check(&policy, &nothing, &genesis, &first.blueprint));
    assert!(refused.is_ok());
    let wanted = median(&clock, "order of that", || order(&first.blueprint));
    let json = median(&clock, "JSON of that", || first.blueprint.to_json().unwrap_or_default());
    println!("  ({} bytes)", json.len());
    let all_serve = inventory(&wanted, now);
    let rest = median(&clock, "plan at rest", || plan(&policy, &all_serve, &first.blueprint, now));
    assert_eq!(rest.blueprint.id, first.blueprint.id);
    let mut some_gone = all_serve;
    for seen in some_gone.replicas.iter_mut().step_by(100) {
        let served = Some(Duration::from_secs(60));
        let (reason, last_output) = (ExitReason::Signal(9), vec!["killed".to_owned()]);
        seen.state = ReplicaState::Exited { at: now, reason, served, last_output };
    }
    let heal: Plan =
        median(&clock, "plan with 1 % gone", || plan(&policy, &some_gone, &first.blueprint, now));
    assert_eq!(heal.report.steps.len(), SERVICES * REPLICAS as usize / 100);
    let refused =
        median(&clock, "check of that", || check(&policy, &some_gone, &first.blueprint, &heal.blueprint));
    assert!(refused.is_ok());
}

/// The median time of some runs, printed, and the last result.
fn median<T>(clock: &Clock, what: &str, run: impl Fn() -> T) -> T {
    let timed = |_| {
        let began = clock.now();
        let result = run();
        (clock.now().since(began), result)
    };
    let mut times = Vec::new();
    let mut last = None;
    for index in 0..RUNS {
        let (time, result) = timed(index);
        times.push(time);
        last = Some(result);
    }
    times.sort_unstable();
    println!("{:9.3} ms (worst {:9.3})  {what}", millis(times[RUNS / 2]), millis(times[RUNS - 1]));
    last.unwrap_or_else(run)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn big_stack() -> Stack {
    let services = (0..SERVICES).filter_map(|index| {
        let name: ServiceName = format!("service-{index:04}").parse().ok()?;
        Some((name.clone(), service(name)))
    });
    Stack {
        name: "big".parse().unwrap_or_else(|_| unreachable!("a valid name")),
        root: "/srv".into(),
        zones: zones().collect(),
        services: services.collect(),
        workflows: Vec::new(),
        lifecycle: None,
        secrets: BTreeMap::new(),
        externals: BTreeMap::new(),
        edge: standfast_model::Edge::default(),
        routes: Vec::new(),
        load: BTreeMap::new(),
        invariants: Vec::new(),
        experiments: Vec::new(),
    }
}

fn zones() -> impl Iterator<Item = ZoneName> {
    ZONES.iter().filter_map(|text| text.parse().ok())
}

fn service(name: ServiceName) -> Service {
    let variables = (0..10).map(|index| (format!("VARIABLE_{index}"), format!("value {index} of {name}")));
    Service {
        build: None,
        command: vec![format!("bin/{name}"), "--serve".into()],
        working_dir: "/srv".into(),
        environment: variables.collect(),
        depends_on: BTreeMap::new(),
        healthcheck: HealthCheck {
            probe: Probe::Http { path: "/healthz".into() },
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            retries: 3,
            start_period: Duration::ZERO,
        },
        deploy: Deploy {
            replicas: REPLICAS,
            limits: Limits::default(),
            update: UpdateConfig { parallelism: 1, order: UpdateOrder::StartFirst },
            restart: RestartPolicy { condition: RestartCondition::Any, max_attempts: None },
        },
        stop_grace_period: Duration::from_secs(10),
        ports: Vec::new(),
        traffic: standfast_model::Traffic::default(),
        name,
    }
}

/// All that is wanted serves.
fn inventory(wanted: &Wanted, now: Stamp) -> Inventory {
    let endpoint: SocketAddr = ([127, 0, 0, 1], 4_000).into();
    let serving = |replica: &standfast_platform::WantedReplica| SeenReplica {
        instance: replica.instance.clone(),
        revision: replica.revision.clone(),
        zone: replica.zone.clone(),
        generation: wanted.generation,
        pid: Some(1),
        state: ReplicaState::Serving { since: now, endpoint },
    };
    Inventory {
        at: now,
        generation: wanted.generation,
        zones: zones().map(|zone| (zone, ZoneState { available: true, reason: None })).collect(),
        replicas: wanted.replicas.iter().map(serving).collect(),
        limitations: Vec::new(),
    }
}
