//! A stack in a few words, and a platform that is a plain value: it carries out orders at once and without fault, except for
//! what a test does to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use standfast_control::{Blueprint, Occasion, Plan, Policy, check, order, plan_for};
use standfast_model::{
    Dependency, DependsOn, Deploy, Generation, HealthCheck, Instance, Limits, Probe, RestartCondition,
    RestartPolicy, Revision, Service, ServiceName, Stack, Stamp, UpdateConfig, UpdateOrder, ZoneName,
};
use standfast_platform::{
    ExitReason, Inventory, PlatformError, ReplicaState, SeenReplica, Wanted, WantedReplica, ZoneState,
};

pub(crate) const ROUND: Duration = Duration::from_millis(500);

pub(crate) fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

pub(crate) fn zone(text: &str) -> ZoneName {
    text.parse().unwrap()
}

pub(crate) fn service(text: &str, replicas: u32) -> Service {
    Service {
        name: name(text),
        build: None,
        command: vec![format!("bin/{text}")],
        working_dir: "/srv".into(),
        environment: BTreeMap::new(),
        depends_on: BTreeMap::new(),
        healthcheck: HealthCheck {
            probe: Probe::Tcp,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            retries: 3,
            start_period: Duration::ZERO,
        },
        deploy: Deploy {
            replicas,
            limits: Limits::default(),
            update: UpdateConfig { parallelism: 1, order: UpdateOrder::StartFirst },
            restart: RestartPolicy { condition: RestartCondition::Any, max_attempts: None },
        },
        stop_grace_period: Duration::from_secs(10),
        ports: Vec::new(),
        traffic: standfast_model::Traffic::default(),
    }
}

/// Another revision of a service.
pub(crate) fn version(mut service: Service, version: &str) -> Service {
    service.environment.insert("VERSION".into(), version.into());
    service
}

pub(crate) fn after(mut service: Service, other: &str, condition: DependsOn) -> Service {
    service.depends_on.insert(name(other), Dependency { condition });
    service
}

pub(crate) fn stack(zones: &[&str], services: Vec<Service>) -> Arc<Stack> {
    Arc::new(Stack {
        name: "shop".parse().unwrap(),
        root: "/srv".into(),
        zones: zones.iter().map(|text| zone(text)).collect(),
        services: services.into_iter().map(|service| (service.name.clone(), service)).collect(),
        externals: BTreeMap::new(),
        workflows: Vec::new(),
        lifecycle: None,
        secrets: BTreeMap::new(),
        edge: standfast_model::Edge::default(),
        routes: Vec::new(),
        load: BTreeMap::new(),
        invariants: Vec::new(),
        experiments: Vec::new(),
    })
}

/// A platform as a value.
#[derive(Debug, Clone)]
pub(crate) struct World {
    pub(crate) now: Stamp,
    pub(crate) wanted: Wanted,
    pub(crate) zones: BTreeMap<ZoneName, bool>,
    pub(crate) replicas: BTreeMap<Instance, SeenReplica>,
    /// Revisions that end with this code right after their start.
    pub(crate) broken: BTreeMap<Revision, i32>,
    /// Revisions that start and never get ready.
    pub(crate) slow: BTreeSet<Revision>,
}

impl World {
    pub(crate) fn new(zones: &[&str]) -> Self {
        Self {
            now: Stamp::from_micros(1_000_000_000),
            wanted: Wanted::default(),
            zones: zones.iter().map(|text| (zone(text), true)).collect(),
            replicas: BTreeMap::new(),
            broken: BTreeMap::new(),
            slow: BTreeSet::new(),
        }
    }

    pub(crate) fn inventory(&self) -> Inventory {
        let state = |available: &bool| ZoneState { available: *available, reason: None };
        Inventory {
            at: self.now,
            generation: self.wanted.generation,
            zones: self.zones.iter().map(|(zone, available)| (zone.clone(), state(available))).collect(),
            replicas: self.replicas.values().cloned().collect(),
            limitations: Vec::new(),
        }
    }

    pub(crate) fn give(&mut self, wanted: &Wanted) -> Result<(), PlatformError> {
        let (sent, held) = (wanted.generation, self.wanted.generation);
        if sent < held || (sent == held && *wanted != self.wanted) {
            return Err(PlatformError::Stale { sent, held });
        }
        self.wanted = wanted.clone();
        let ordered: BTreeSet<&Instance> = wanted.replicas.iter().map(|replica| &replica.instance).collect();
        let now = self.now;
        self.replicas.retain(|instance, seen| {
            let runs = seen.endpoint().is_some() || matches!(seen.state, ReplicaState::Stopping { .. });
            if runs && !ordered.contains(instance) {
                seen.state = ReplicaState::Stopping { since: now };
            }
            runs || ordered.contains(instance)
        });
        for replica in &wanted.replicas {
            if !self.replicas.contains_key(&replica.instance) {
                let seen = self.pending(replica);
                self.replicas.insert(replica.instance.clone(), seen);
            }
        }
        Ok(())
    }

    fn pending(&self, replica: &WantedReplica) -> SeenReplica {
        SeenReplica {
            instance: replica.instance.clone(),
            revision: replica.revision.clone(),
            zone: replica.zone.clone(),
            generation: self.wanted.generation,
            pid: None,
            state: ReplicaState::Pending { reason: "soon".into() },
        }
    }

    /// Lets time pass: what is pending starts, what starts gets ready or ends.
    pub(crate) fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        self.replicas.retain(|_, seen| !matches!(seen.state, ReplicaState::Stopping { .. }));
        let due: BTreeSet<Instance> = self
            .wanted
            .replicas
            .iter()
            .filter(|replica| replica.not_before <= self.now)
            .map(|replica| replica.instance.clone())
            .collect();
        for (instance, seen) in &mut self.replicas {
            if !self.zones.get(&seen.zone).copied().unwrap_or(true) {
                continue;
            }
            let endpoint: SocketAddr = ([127, 0, 0, 1], 4000).into();
            seen.state = match &seen.state {
                ReplicaState::Pending { .. } if due.contains(instance) => {
                    ReplicaState::Starting { since: self.now, endpoint }
                }
                ReplicaState::Starting { .. } if self.broken.contains_key(&seen.revision) => {
                    exited(self.now, ExitReason::Code(self.broken[&seen.revision]), None)
                }
                ReplicaState::Starting { .. } if !self.slow.contains(&seen.revision) => {
                    ReplicaState::Serving { since: self.now, endpoint }
                }
                other => other.clone(),
            };
        }
    }

    /// Those that are not being stopped.
    pub(crate) fn kept(&self) -> usize {
        self.replicas.values().filter(|seen| !matches!(seen.state, ReplicaState::Stopping { .. })).count()
    }

    pub(crate) fn serving(&self, service: &str) -> Vec<String> {
        let is_of =
            |seen: &&SeenReplica| seen.instance.replica.service.as_str() == service && seen.is_serving();
        self.replicas.values().filter(is_of).map(|seen| seen.instance.to_string()).collect()
    }

    pub(crate) fn end(&mut self, instance: &str, reason: ExitReason, served: Option<Duration>) {
        let now = self.now;
        let seen = self.replicas.values_mut().find(|seen| seen.instance.to_string() == instance).unwrap();
        seen.state = exited(now, reason, served);
    }

    pub(crate) fn set_unready(&mut self, is: impl Fn(&Instance) -> bool) {
        for seen in self.replicas.values_mut().filter(|seen| is(&seen.instance)) {
            if let ReplicaState::Serving { endpoint, .. } = seen.state {
                seen.state = ReplicaState::Unready { since: self.now, endpoint, reason: "timed out".into() };
            }
        }
    }

    pub(crate) fn lose_zone(&mut self, lost: &str) {
        self.zones.insert(zone(lost), false);
        for seen in self.replicas.values_mut().filter(|seen| seen.zone.as_str() == lost && !seen.has_exited())
        {
            seen.state = exited(self.now, ExitReason::Signal(9), Some(Duration::from_secs(60)));
        }
    }

    pub(crate) fn regain_zone(&mut self, lost: &str) {
        self.zones.insert(zone(lost), true);
    }
}

pub(crate) fn exited(at: Stamp, reason: ExitReason, served: Option<Duration>) -> ReplicaState {
    ReplicaState::Exited { at, reason, served, last_output: vec!["cannot open the database".into()] }
}

/// A control without a store: plan, check, order, over and over.
#[derive(Debug, Clone)]
pub(crate) struct Drive {
    pub(crate) world: World,
    pub(crate) policy: Policy,
    pub(crate) blueprint: Blueprint,
}

impl Drive {
    pub(crate) fn new(stack: &Arc<Stack>) -> Self {
        let zones: Vec<&str> = stack.zones.iter().map(ZoneName::as_str).collect();
        Self {
            world: World::new(&zones),
            policy: Policy::of(Arc::clone(stack)),
            blueprint: Blueprint::genesis(),
        }
    }

    /// All of it runs.
    pub(crate) fn running(stack: &Arc<Stack>) -> Self {
        let mut drive = Self::new(stack);
        drive.settle(100);
        drive
    }

    pub(crate) fn want(&mut self, stack: &Arc<Stack>) {
        self.policy = Policy::of(Arc::clone(stack));
    }

    /// One round without time passing.
    pub(crate) fn tick(&mut self) -> Plan {
        self.tick_for(&Occasion::default())
    }

    pub(crate) fn tick_for(&mut self, occasion: &Occasion) -> Plan {
        let seen = self.world.inventory();
        let plan = plan_for(&self.policy, &seen, &self.blueprint, self.world.now, occasion);
        if plan.blueprint.id == self.blueprint.id {
            assert_eq!(plan.blueprint, self.blueprint);
            assert!(plan.report.steps.is_empty(), "steps without a new blueprint: {:?}", plan.report.steps);
            return plan;
        }
        if let Err(error) = check(&self.policy, &seen, &self.blueprint, &plan.blueprint) {
            panic!("{error}\nseen: {seen:#?}\nparent: {:#?}\nplan: {plan:#?}", self.blueprint);
        }
        self.blueprint = plan.blueprint.clone();
        self.world.give(&order(&self.blueprint)).unwrap();
        plan
    }

    /// Rounds until two in a row have nothing to do and nothing is under way. Says how many that took.
    pub(crate) fn settle(&mut self, most: usize) -> usize {
        let mut quiet = 0;
        for round in 0..most {
            let before = self.world.inventory().replicas;
            let plan = self.tick();
            let idle = plan.report.steps.is_empty() && plan.report.waiting.is_empty();
            self.world.pass(ROUND);
            quiet = if idle && before == self.world.inventory().replicas { quiet + 1 } else { 0 };
            if quiet == 2 {
                return round;
            }
        }
        panic!("no rest after {most} rounds: {:#?}\n{:#?}", self.tick().report, self.blueprint.replicas);
    }

    /// A round, told in short: `heal orders-1.2 b`, and what is waited for.
    pub(crate) fn told(&mut self) -> Vec<String> {
        tell(&self.tick())
    }

    pub(crate) fn spread(&self, service: &str) -> Vec<usize> {
        let planned =
            || self.blueprint.replicas_of(&name(service)).filter(|planned| planned.shall_run()).count();
        let in_zone = |zone: &ZoneName| {
            self.blueprint.replicas_of(&name(service)).filter(|p| p.shall_run() && p.zone == *zone).count()
        };
        let counts: Vec<usize> = self.world.zones.keys().map(in_zone).collect();
        assert_eq!(counts.iter().sum::<usize>(), planned(), "a replica is in no zone");
        counts
    }
}

pub(crate) fn tell(plan: &Plan) -> Vec<String> {
    let kind = |step: &standfast_control::Step| format!("{:?}", step.kind).to_lowercase();
    let step = |step: &standfast_control::Step| format!("{} {} {}", kind(step), step.replica, step.zone);
    plan.report.steps.iter().map(step).collect()
}

pub(crate) fn generation(number: u64) -> Generation {
    Generation(number)
}
