//! Stacks, loads and a whole run for tests.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use standfast_model::{
    Body, Deploy, EffectSource, Experiment, Fault, HealthCheck, Instance, Invariant, Limits, Load, Probe,
    ReplicaId, RestartCondition, RestartPolicy, Service, Stack, Stamp, UpdateConfig, UpdateOrder,
};
use standfast_runtime::Rng;

use crate::config::Options;
use crate::journal::{Begin, JOURNAL_VERSION, Journal, Request};
use crate::load::GeneratorLoad;
use crate::meter::Meter;
use crate::outcome::{Doubt, Outcome};
use crate::record::{Ended, FaultRecord, LoadFacts, Quiet, RECORD_VERSION, Readiness, Record, ServiceFacts};
use crate::schedule::{Arrivals, plan};
use crate::target::{Act, Bite, Effect, Injection, InjectionId};

/// A stranger's text that does harm wherever it is not escaped.
pub(crate) const HOSTILE: &str = "</title></svg><script>alert(\"1\")</script>&'\u{1b}[31m";

pub(crate) fn load(name: &str, rate_per_second: f64) -> Load {
    Load {
        name: name.parse().unwrap(),
        method: "POST".to_owned(),
        path: "/orders?id=${id}".to_owned(),
        workflow: None,
        headers: BTreeMap::from([("x-order".to_owned(), "${id}".to_owned())]),
        body: Some(Body {
            text: r#"{"order_id":"${id}"}"#.to_owned(),
            content_type: "application/json".to_owned(),
        }),
        idempotency_key: true,
        rate_per_second,
        timeout: Duration::from_millis(400),
    }
}

pub(crate) fn service(name: &str, replicas: u32) -> Service {
    Service {
        name: name.parse().unwrap(),
        build: None,
        command: vec!["true".to_owned()],
        working_dir: PathBuf::from("/"),
        environment: BTreeMap::new(),
        depends_on: BTreeMap::new(),
        healthcheck: HealthCheck {
            probe: Probe::Http { path: "/healthz".to_owned() },
            interval: Duration::from_millis(30),
            timeout: Duration::from_millis(30),
            retries: 3,
            start_period: Duration::ZERO,
        },
        deploy: Deploy {
            replicas,
            limits: Limits::default(),
            update: UpdateConfig { parallelism: 1, order: UpdateOrder::StartFirst },
            restart: RestartPolicy { condition: RestartCondition::Any, max_attempts: None },
        },
        stop_grace_period: Duration::from_secs(1),
        ports: Vec::new(),
        traffic: standfast_model::Traffic::default(),
    }
}

pub(crate) fn source() -> EffectSource {
    EffectSource { service: "orders".parse().unwrap(), prefix: "ledger/".to_owned() }
}

pub(crate) fn invariant() -> Invariant {
    Invariant {
        name: "every order is charged once".to_owned(),
        load: "checkout".parse().unwrap(),
        effects: source(),
        per: "order_id".to_owned(),
        exactly: 1,
    }
}

pub(crate) fn stack(rate_per_second: f64, faults: Vec<Fault>) -> Stack {
    let load = load("checkout", rate_per_second);
    Stack {
        name: "shop".parse().unwrap(),
        root: PathBuf::from("/"),
        zones: ["a", "b", "c"].iter().map(|zone| zone.parse().unwrap()).collect(),
        services: BTreeMap::from([("orders".parse().unwrap(), service("orders", 3))]),
        externals: BTreeMap::new(),
        workflows: Vec::new(),
        lifecycle: None,
        secrets: BTreeMap::new(),
        edge: standfast_model::Edge::default(),
        routes: Vec::new(),
        load: BTreeMap::from([(load.name.clone(), load)]),
        invariants: vec![invariant()],
        experiments: faults
            .into_iter()
            .enumerate()
            .map(|(index, fault)| Experiment { name: format!("experiment {index}"), fault })
            .collect(),
    }
}

fn act(index: usize) -> Act {
    let instance = |service: &str, slot| Instance {
        replica: ReplicaId { service: service.parse().unwrap(), slot },
        attempt: 1,
    };
    match index {
        0 | 1 => Act::KillInstance { instance: instance("orders", index as u32), pid: Some(4_711) },
        2 => Act::FreezeInstance { instance: instance("orders", 2), pid: Some(4_712) },
        3 => Act::LoseZone { zone: "b".parse().unwrap(), victims: vec![instance("orders", 1); 3] },
        _ => Act::KillNode { pid: Some(99) },
    }
}

/// A run of 40 seconds with five faults, as it could have been; `broken` plants failures, losses and a hostile text.
pub(crate) fn sample(broken: bool) -> (Record, Journal) {
    let from = Stamp::from_micros(1_772_357_399_000_000);
    let at = |millis: u64| from.plus(Duration::from_millis(millis));
    let kill = Fault::ReplicaKill { service: None, times: 2, every: Duration::from_secs(3) };
    let freeze = Fault::ReplicaFreeze { service: None, lasts: Duration::from_secs(4) };
    let loss = Fault::ZoneLoss { zone: None, lasts: Duration::from_secs(6) };
    let mut stack = stack(60.0, vec![kill, freeze, loss, Fault::NodeKill]);
    for (experiment, name) in stack.experiments.iter_mut().zip([
        "replicas crash",
        "a replica hangs",
        "a zone is lost",
        "the node dies",
    ]) {
        experiment.name = if broken { format!("{name} {HOSTILE}") } else { name.to_owned() };
    }
    let mut options = Options::seeded(7, PathBuf::from("/tmp/shop/journal.jsonl"));
    options.repeat = "standfast prove examples/shop --seed 7".to_owned();
    let times = [(4_000, 5_150), (8_000, 9_200), (12_300, 16_700), (19_000, 26_100), (29_000, 31_200)];
    let faults: Vec<FaultRecord> = plan(&stack, 7)
        .steps
        .into_iter()
        .enumerate()
        .map(|(index, step)| FaultRecord {
            injection: Some(Injection {
                id: InjectionId(format!("f{index}")),
                act: act(index),
                ttl: Duration::from_secs(30),
            }),
            injected_at: at(times[index].0),
            bite: Bite {
                bit: true,
                evidence: [
                    "pid 4711 is gone",
                    "pid 4713 is gone",
                    "pid 4712 is in state T",
                    "no process is left in zone b",
                    "pid 99 is gone",
                ][index]
                    .to_owned(),
            },
            bit_at: Some(at(times[index].0 + 20)),
            undone_at: Some(at(times[index].0).plus(step.lasts)),
            restored_at: Some(at(times[index].0).plus(step.lasts)),
            whole_at: Some(at(times[index].1)),
            healed_at: Some(at(times[index].1)),
            over_at: at(times[index].1 + 1_000),
            readiness: Readiness { last_survey_at: Some(at(times[index].1)), ..Readiness::default() },
            step,
        })
        .collect();
    let (meter, mut rng) = (Meter::new(from), Rng::seeded(3));
    let mut requests = Vec::new();
    let mut effects = Vec::new();
    for due in
        Arrivals::new(stack.load.values(), options.arrival, 7).take_while(|due| due.at.as_millis() < 40_000)
    {
        let second = due.at.as_secs_f64();
        let is_hit = times.iter().any(|(a, b)| (*a..*b).contains(&(due.at.as_millis() as u64)));
        let slow = if is_hit && rng.fraction() < 0.2 { 40.0 } else { 1.0 };
        let latency = Duration::from_secs_f64(0.003 * slow * (0.5 + rng.exponential()));
        let fails = (29.0..29.2).contains(&second)
            || (broken && (13.0..17.0).contains(&second) && rng.fraction() < 0.3);
        let (due_at, id) = (from.plus(due.at), format!("p7-checkout-{}", due.number));
        let outcome = if fails { Outcome::Unknown { why: Doubt::Broken } } else { Outcome::of_status(201) };
        let ended = due_at.plus(if fails { Duration::from_millis(900) } else { latency });
        meter.due(due_at);
        meter.sent(due_at, due.load, due.number, due_at.plus(Duration::from_micros(700)));
        meter.ended(due_at, due.load, due.number, ended, outcome);
        let is_lost = broken && due.number.is_multiple_of(500);
        if !fails && !is_lost {
            let value = format!(r#"{{"order_id":"{id}"}}"#).into_bytes();
            effects.push(Effect { key: format!("ledger/{}", due.number), value });
        }
        requests.push(Request {
            load: due.load,
            number: due.number,
            id,
            due: due_at,
            outcome: Some((ended, outcome)),
        });
    }
    if broken {
        stack.invariants[0].name = format!("charged once {HOSTILE}");
    }
    let journal = Journal {
        begin: Begin {
            version: JOURNAL_VERSION,
            run: "p7".to_owned(),
            stack: stack.name.clone(),
            seed: 7,
            at: from,
            loads: stack.load.keys().cloned().collect(),
            sources: vec![source()],
        },
        requests,
        effects: [(source(), effects)].into(),
        reserved_below: 8_192,
        is_complete: true,
    };
    let record = Record {
        version: RECORD_VERSION,
        program: "0.1.0".to_owned(),
        run: "p7".to_owned(),
        stack: stack.name.clone(),
        plan: plan(&stack, 7),
        loads: LoadFacts::of(&stack),
        services: ServiceFacts::of(&stack, &options.thresholds),
        invariants: stack.invariants.clone(),
        options,
        started_at: from,
        load_from: from,
        load_until: at(40_000),
        ended_at: at(42_000),
        faults,
        measured: meter.measured(),
        generator: Some(GeneratorLoad { cpu_share: 0.03, given_up: 0, repeated: 0 }),
        quiet: Quiet { is_reached: true, after_ms: 1_200, amiss: String::new() },
        effects_before: 0,
        workflows: Vec::new(),
        ended: Ended::Planned,
    };
    (record, journal)
}
