//! A small shop in memory behind a real socket: three replicas that are really killed and frozen, a balancer, a prober and a
//! healer, each of which can be told to be wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use standfast_model::{EffectSource, Generation, Instance, ReplicaId, Stamp, ZoneName};
use standfast_runtime::http::{Listener, ServerLimits, plain, serve};
use standfast_runtime::{Clock, Net, OnStop, Tasks};

use crate::target::{
    Act, Bite, Effect, Injection, InjectionId, RunSeen, Survey, SurveyedReplica, Target, TargetError,
};

/// What is wrong with a shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    None,
    /// Each 50th order is acknowledged and forgotten.
    Loses,
    /// Each 50th order is charged twice.
    Doubles,
    /// Each 50th order is refused and charged.
    RefusesAndDoes,
    /// There is a charge that nobody ordered.
    Invents,
    /// Kills and freezes do nothing.
    FaultDoesNothing,
    /// A killed replica is never replaced.
    NeverHeals,
    /// A frozen replica stays frozen.
    NeverThaws,
    /// The prober finds each replica healthy.
    AlwaysHealthy,
    /// The balancer sends requests to whatever was ready once.
    KeepsFrozen,
    /// A killed replica's requests are answered with 503.
    FailsOnKill,
}

/// From a kill to the replacement.
const REPLACED_AFTER: Duration = Duration::from_millis(120);
/// From a freeze to its discovery.
const DISCOVERED_AFTER: Duration = Duration::from_millis(40);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Serving,
    Dead { since: Stamp },
    Frozen { since: Stamp },
}

#[derive(Debug)]
struct Replica {
    attempt: u64,
    zone: ZoneName,
    is: Is,
}

#[derive(Debug)]
struct State {
    replicas: Vec<Replica>,
    lost_zones: BTreeSet<ZoneName>,
    node_pid: u32,
    active: BTreeMap<InjectionId, Act>,
    ledger: Vec<Effect>,
    done: BTreeSet<String>,
    served: usize,
    runs: Vec<RunSeen>,
}

#[derive(Debug, Clone)]
pub(crate) struct FakeShop {
    bug: Bug,
    clock: Clock,
    public: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl FakeShop {
    pub(crate) async fn start(bug: Bug, clock: Clock, tasks: &Tasks) -> Self {
        let listener = Net::real().listen_tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let public = listener.local_addr().unwrap();
        let replica = |zone: &str| Replica { attempt: 1, zone: zone.parse().unwrap(), is: Is::Serving };
        let state = State {
            replicas: vec![replica("a"), replica("b"), replica("c")],
            lost_zones: BTreeSet::new(),
            node_pid: 100,
            active: BTreeMap::new(),
            ledger: vec![charge("from-an-earlier-run", 0)],
            done: BTreeSet::new(),
            served: 0,
            runs: Vec::new(),
        };
        let shop = Self { bug, clock, public, state: Arc::new(Mutex::new(state)) };
        if bug == Bug::Invents {
            shop.state.lock().unwrap().ledger.clear();
        }
        let handler = {
            let shop = shop.clone();
            move |request: Request<Bytes>| {
                let shop = shop.clone();
                async move { shop.answer(&request).await }
            }
        };
        let served = serve(Listener::Tcp(listener), handler, ServerLimits::default(), clock, tasks.stop());
        tasks.spawn("shop", OnStop::Abort, served);
        shop
    }

    async fn answer(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let id = request.headers()["x-order"].to_str().unwrap().to_owned();
        let mut pick = { self.state.lock().unwrap().served };
        for _attempt in 0..3 {
            pick += 1;
            let is = self.balance(pick);
            match is {
                Some(Is::Serving) => return self.charge(&id),
                Some(Is::Frozen { .. }) if self.bug == Bug::KeepsFrozen => {
                    std::future::pending::<()>().await;
                }
                Some(Is::Frozen { .. }) => self.clock.sleep(Duration::from_millis(10)).await,
                Some(Is::Dead { .. }) if self.bug == Bug::FailsOnKill => break,
                Some(Is::Dead { .. }) | None => {}
            }
        }
        plain(StatusCode::SERVICE_UNAVAILABLE, "no replica")
    }

    fn balance(&self, pick: usize) -> Option<Is> {
        let mut state = self.state.lock().unwrap();
        self.heal_dead(&mut state);
        let count = state.replicas.len();
        state.replicas.get(pick % count).map(|replica| replica.is)
    }

    fn charge(&self, id: &str) -> Response<Bytes> {
        let mut state = self.state.lock().unwrap();
        state.served += 1;
        let (is_unlucky, number) = (state.served.is_multiple_of(50), state.ledger.len());
        if self.bug == Bug::Loses && is_unlucky {
            return plain(StatusCode::CREATED, "done");
        }
        if state.done.insert(id.to_owned()) {
            state.ledger.push(charge(id, number));
        }
        if self.bug == Bug::Doubles && is_unlucky {
            state.ledger.push(charge(id, number + 1_000_000));
        }
        if self.bug == Bug::Invents && state.served == 30 {
            state.ledger.push(charge("nobody-asked", number + 1));
        }
        if self.bug == Bug::RefusesAndDoes && is_unlucky {
            return plain(StatusCode::CONFLICT, "no");
        }
        plain(StatusCode::CREATED, "done")
    }

    fn heal_dead(&self, state: &mut State) {
        if self.bug == Bug::NeverHeals {
            return;
        }
        let now = self.clock.now();
        let home: Vec<ZoneName> = ["a", "b", "c"].iter().map(|zone| zone.parse().unwrap()).collect();
        let open = home.into_iter().find(|zone| !state.lost_zones.contains(zone));
        for replica in &mut state.replicas {
            if let Is::Dead { since } = replica.is
                && now.since(since) >= REPLACED_AFTER
                && let Some(open) = &open
            {
                let zone = if state.lost_zones.contains(&replica.zone) {
                    open.clone()
                } else {
                    replica.zone.clone()
                };
                *replica = Replica { attempt: replica.attempt + 1, zone, is: Is::Serving };
            }
        }
    }

    fn set(&self, state: &mut State, instance: &Instance, is: Is) {
        if self.bug == Bug::FaultDoesNothing {
            return;
        }
        let replica = &mut state.replicas[instance.replica.slot as usize];
        if replica.attempt == instance.attempt {
            replica.is = is;
        }
    }
}

fn charge(id: &str, number: usize) -> Effect {
    let value = serde_json::json!({"order_id": id, "amount_cents": 100}).to_string().into_bytes();
    Effect { key: format!("ledger/{number}"), value }
}

fn instance(slot: usize, attempt: u64) -> Instance {
    let replica = ReplicaId { service: "orders".parse().unwrap(), slot: u32::try_from(slot).unwrap() };
    Instance { replica, attempt }
}

#[async_trait]
impl Target for FakeShop {
    async fn survey(&self) -> Result<Survey, TargetError> {
        let mut state = self.state.lock().unwrap();
        self.heal_dead(&mut state);
        let now = self.clock.now();
        let seen = |(slot, replica): (usize, &Replica)| {
            let is_serving = match replica.is {
                Is::Serving => true,
                Is::Dead { .. } => false,
                Is::Frozen { since } => self.bug == Bug::AlwaysHealthy || now.since(since) < DISCOVERED_AFTER,
            };
            SurveyedReplica {
                instance: instance(slot, replica.attempt),
                zone: replica.zone.clone(),
                pid: Some(1_000 + u32::try_from(slot).unwrap()),
                is_serving,
            }
        };
        let replicas: Vec<SurveyedReplica> = state.replicas.iter().enumerate().map(seen).collect();
        let zones = ["a", "b", "c"].iter().map(|zone| zone.parse::<ZoneName>().unwrap());
        Ok(Survey {
            at: now,
            generation: Generation(1),
            all_ready: replicas.iter().all(|replica| replica.is_serving),
            replicas,
            zones: zones.map(|zone| (zone.clone(), !state.lost_zones.contains(&zone))).collect(),
            wanted: BTreeMap::from([("orders".parse().unwrap(), 3)]),
            node_pid: Some(state.node_pid),
            agent_pid: None,
            public: self.public,
            starts: self.public,
        })
    }

    async fn inject(&self, injection: &Injection) -> Result<(), TargetError> {
        let mut state = self.state.lock().unwrap();
        let since = self.clock.now();
        match &injection.act {
            Act::KillInstance { instance, .. } => self.set(&mut state, instance, Is::Dead { since }),
            Act::FreezeInstance { instance, .. } => self.set(&mut state, instance, Is::Frozen { since }),
            Act::LoseZone { zone, victims } => {
                state.lost_zones.insert(zone.clone());
                victims.iter().for_each(|victim| self.set(&mut state, victim, Is::Dead { since }));
            }
            Act::KillNode { .. } => state.node_pid += 1,
            Act::KillAgent { .. } => return Err(TargetError::Refused("there is no agent".to_owned())),
        }
        state.active.insert(injection.id.clone(), injection.act.clone());
        Ok(())
    }

    async fn verify(&self, injection: &Injection) -> Result<Bite, TargetError> {
        let mut state = self.state.lock().unwrap();
        self.heal_dead(&mut state);
        let is = |instance: &Instance| {
            let replica = &state.replicas[instance.replica.slot as usize];
            if replica.attempt == instance.attempt { replica.is } else { Is::Dead { since: Stamp::EPOCH } }
        };
        let (bit, evidence) = match &injection.act {
            Act::KillInstance { instance, .. } => {
                (matches!(is(instance), Is::Dead { .. }), format!("{instance} is dead"))
            }
            Act::FreezeInstance { instance, .. } => {
                (matches!(is(instance), Is::Frozen { .. }), format!("{instance} is in state T"))
            }
            Act::LoseZone { zone, victims } => {
                (victims.iter().all(|v| matches!(is(v), Is::Dead { .. })), format!("zone {zone} is empty"))
            }
            Act::KillNode { pid } => (Some(state.node_pid) != *pid, "the pid is gone".to_owned()),
            Act::KillAgent { .. } => (false, String::new()),
        };
        let evidence = if bit { evidence } else { "the process runs as before".to_owned() };
        Ok(Bite { bit, evidence })
    }

    async fn heal(&self, id: &InjectionId) -> Result<(), TargetError> {
        let mut state = self.state.lock().unwrap();
        if self.bug == Bug::NeverThaws {
            return Ok(());
        }
        match state.active.remove(id) {
            Some(Act::FreezeInstance { instance, .. }) => self.set(&mut state, &instance, Is::Serving),
            Some(Act::LoseZone { zone, .. }) => drop(state.lost_zones.remove(&zone)),
            _ => {}
        }
        Ok(())
    }

    async fn is_restored(&self, injection: &Injection) -> Result<bool, TargetError> {
        let state = self.state.lock().unwrap();
        Ok(match &injection.act {
            Act::FreezeInstance { instance, .. } => {
                !matches!(state.replicas[instance.replica.slot as usize].is, Is::Frozen { .. })
            }
            Act::LoseZone { zone, .. } => !state.lost_zones.contains(zone),
            _ => true,
        })
    }

    async fn runs(&self, _workflow: &str) -> Result<Vec<RunSeen>, TargetError> {
        Ok(self.state.lock().unwrap().runs.clone())
    }

    async fn effects(&self, _source: &EffectSource) -> Result<Vec<Effect>, TargetError> {
        Ok(self.state.lock().unwrap().ledger.clone())
    }
}
