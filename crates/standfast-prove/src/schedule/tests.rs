use std::collections::BTreeMap;

use standfast_model::{Fault, Generation, ReplicaId, Stamp};

use super::*;
use crate::fixtures;

fn survey() -> Survey {
    let replica = |service: &str, slot: u32, zone: &str, is_serving| SurveyedReplica {
        instance: Instance { replica: ReplicaId { service: service.parse().unwrap(), slot }, attempt: 1 },
        zone: zone.parse().unwrap(),
        pid: Some(slot),
        is_serving,
    };
    Survey {
        at: Stamp::EPOCH,
        generation: Generation(1),
        replicas: vec![
            replica("orders", 0, "a", true),
            replica("orders", 1, "b", true),
            replica("orders", 2, "c", false),
            replica("payments", 0, "a", true),
        ],
        zones: ["a", "b", "c", "d"].iter().map(|zone| (zone.parse().unwrap(), *zone != "c")).collect(),
        wanted: BTreeMap::from([("orders".parse().unwrap(), 3)]),
        node_pid: Some(1),
        agent_pid: None,
        all_ready: true,
        public: ([127, 0, 0, 1], 1).into(),
        starts: ([127, 0, 0, 1], 1).into(),
    }
}

fn faults() -> Vec<Fault> {
    vec![
        Fault::ReplicaKill { service: None, times: 3, every: Duration::from_secs(3) },
        Fault::ReplicaFreeze { service: Some("orders".parse().unwrap()), lasts: Duration::from_secs(4) },
        Fault::ZoneLoss { zone: None, lasts: Duration::from_secs(6) },
        Fault::NodeKill,
        Fault::AgentKill,
    ]
}

#[test]
fn a_seed_gives_the_same_plan_and_targets_whatever_the_surveys_order() {
    let stack = fixtures::stack(50.0, faults());
    let first = plan(&stack, 7);
    assert_eq!(first, plan(&stack, 7));
    assert_ne!(first, plan(&stack, 8));
    let mut turned = survey();
    turned.replicas.reverse();
    for step in &first.steps {
        assert_eq!(
            aim(step, &survey()).ok().map(|act| act.object()),
            aim(step, &turned).ok().map(|act| act.object())
        );
    }
}

#[test]
fn repeating_one_experiment_more_often_leaves_the_others_targets() {
    let (mut more, few) = (faults(), fixtures::stack(50.0, faults()));
    more[0] = Fault::ReplicaKill { service: None, times: 9, every: Duration::from_secs(3) };
    let draws = |stack: &Stack| -> Vec<u64> {
        let mut steps = plan(stack, 7).steps;
        steps.split_off(steps.len() - 4).iter().map(|step| step.draw).collect()
    };
    assert_eq!(draws(&few), draws(&fixtures::stack(50.0, more)));
}

#[test]
fn only_what_serves_is_aimed_at_and_nothing_is_an_error() {
    let steps = plan(&fixtures::stack(50.0, faults()), 7).steps;
    for draw in 0..20 {
        let freeze = Step { draw, ..steps[3].clone() };
        let Ok(Act::FreezeInstance { instance, .. }) = aim(&freeze, &survey()) else { panic!("no freeze") };
        assert!(instance.replica.service.as_str() == "orders" && instance.replica.slot < 2);
        let loss = Step { draw, ..steps[4].clone() };
        let Ok(Act::LoseZone { zone, victims }) = aim(&loss, &survey()) else { panic!("no loss") };
        assert!(["a", "b"].contains(&zone.as_str()), "c is lost already and d is empty");
        assert_eq!(victims.len(), if zone.as_str() == "a" { 2 } else { 1 });
    }
    assert!(aim(&steps[6], &survey()).is_err(), "there is no agent");
    let nobody = Strike::KillReplica { service: Some("mail".parse().unwrap()) };
    let error = aim(&Step { strike: nobody, ..steps[0].clone() }, &survey()).unwrap_err();
    assert_eq!(error.to_string(), "there is no serving replica of `mail` to break");
}

#[test]
fn the_shops_plan_takes_about_a_minute_at_most() {
    let plan = plan(&fixtures::stack(50.0, faults()), 7);
    let expected = plan.expected(&Pace::default());
    assert!(expected < Duration::from_secs(60), "{expected:?}");
    assert!(plan.deadline(&Pace::default()) >= expected * 3);
}

#[test]
fn arrivals_repeat_from_the_seed_at_the_declared_rate() {
    let loads = [fixtures::load("checkout", 200.0), fixtures::load("browse", 50.0)];
    for arrival in [Arrival::Poisson, Arrival::Uniform] {
        let take = |seed| -> Vec<Due> {
            Arrivals::new(&loads, arrival, seed).take_while(|due| due.at < Duration::from_secs(40)).collect()
        };
        let all = take(7);
        assert_eq!(all, take(7));
        assert!(all.is_sorted_by_key(|due| due.at));
        for (index, load) in loads.iter().enumerate() {
            let numbers: Vec<u64> =
                all.iter().filter(|due| due.load == index).map(|due| due.number).collect();
            assert!(numbers.iter().copied().eq(0..numbers.len() as u64), "numbers have no gaps");
            let rate = numbers.len() as f64 / 40.0;
            assert!((rate / load.rate_per_second - 1.0).abs() < 0.06, "{arrival:?} {rate}");
        }
    }
    assert_ne!(
        Arrivals::new(&loads, Arrival::Poisson, 1).next().unwrap().at,
        Arrivals::new(&loads, Arrival::Poisson, 2).next().unwrap().at
    );
}

#[test]
fn a_load_without_a_rate_never_arrives() {
    for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert_eq!(Arrivals::new(&[fixtures::load("checkout", rate)], Arrival::Poisson, 7).next(), None);
    }
    let far = Arrivals::new(&[fixtures::load("checkout", 1e-300)], Arrival::Uniform, 7).next().unwrap();
    assert!(far.at >= Duration::from_secs(90_000_000));
}
