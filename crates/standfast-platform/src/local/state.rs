//! What the agent holds in memory, and how it looks to others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use standfast_model::{Generation, Instance, Revision, ServiceName, Stamp, ZoneName};
use tokio::sync::watch;

use super::address::{self, Ports};
use super::api::NodeInfo;
use super::doubt::Doubt;
use super::faults::FaultRecord;
use super::listeners::Listening;
use super::procfs::ProcessId;
use crate::decide::{Decision, Life, Waiting, decide};
use crate::{ExitReason, Inventory, Launch, ReplicaState, SeenReplica, Wanted, WantedReplica, ZoneState};

/// One start of a replica that the agent answers for.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) revision: Revision,
    pub(crate) zone: ZoneName,
    pub(crate) generation: Generation,
    pub(crate) launch: Arc<Launch>,
    /// Where it was told to listen.
    pub(crate) address: SocketAddr,
    pub(crate) process: Option<ProcessId>,
    pub(crate) state: ReplicaState,
    /// How long it was ready in its past stretches of readiness; `None` when it never was.
    pub(crate) served: Option<Duration>,
    /// Whether its probe got no answer the last time.
    pub(crate) is_silent: bool,
    /// True once it is asked to stop.
    pub(crate) stop: watch::Sender<bool>,
}

impl Held {
    pub(crate) fn life(&self) -> Life {
        match self.state {
            ReplicaState::Exited { .. } => Life::Ended,
            ReplicaState::Stopping { .. } => Life::Stops,
            _ => Life::Runs,
        }
    }

    /// Where it listens: another place than it was told when it ignores `HOST`.
    pub(crate) fn endpoint(&self) -> SocketAddr {
        match &self.state {
            ReplicaState::Starting { endpoint, .. }
            | ReplicaState::Serving { endpoint, .. }
            | ReplicaState::Unready { endpoint, .. } => *endpoint,
            _ => self.address,
        }
    }

    /// Closes a stretch of readiness at `at`.
    fn count_served(&mut self, at: Stamp) {
        if let ReplicaState::Serving { since, .. } = self.state {
            self.served = Some(self.served.unwrap_or_default() + at.since(since));
        }
    }

    pub(crate) fn turn_ready(&mut self, at: Stamp, endpoint: SocketAddr) {
        self.served.get_or_insert_default();
        self.state = ReplicaState::Serving { since: at, endpoint };
    }

    pub(crate) fn turn_unready(&mut self, at: Stamp, reason: String) {
        let endpoint = self.endpoint();
        self.count_served(at);
        self.state = ReplicaState::Unready { since: at, endpoint, reason };
    }

    pub(crate) fn turn_stopping(&mut self, at: Stamp) {
        self.count_served(at);
        self.state = ReplicaState::Stopping { since: at };
        self.stop.send_replace(true);
    }

    pub(crate) fn turn_exited(&mut self, at: Stamp, reason: ExitReason, last_output: Vec<String>) {
        self.count_served(at);
        self.state = ReplicaState::Exited { at, reason, served: self.served, last_output };
    }
}

/// The node, as held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeldNode {
    pub(crate) info: Option<NodeInfo>,
    /// How many were started so far.
    pub(crate) started: u64,
}

/// All that the agent holds.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) zones: Vec<ZoneName>,
    pub(crate) wanted: Wanted,
    /// Those of the order and those of what still runs.
    pub(crate) launches: BTreeMap<Revision, Arc<Launch>>,
    pub(crate) held: BTreeMap<Instance, Held>,
    pub(crate) waiting: BTreeMap<Instance, Waiting>,
    pub(crate) listeners: BTreeMap<String, Listening>,
    pub(crate) node: HeldNode,
    pub(crate) faults: BTreeMap<String, FaultRecord>,
    pub(crate) lease_until: Option<Stamp>,
    pub(crate) going_down: bool,
    pub(crate) ports: Ports,
    pub(crate) limitations: BTreeSet<String>,
    /// Services that listen on 127.0.0.1 only.
    pub(crate) localhost_only: BTreeSet<ServiceName>,
    pub(crate) doubt: Doubt,
    /// Why the ledger could not be written the last time.
    pub(crate) ledger_trouble: Option<String>,
}

impl State {
    pub(crate) fn lost_zones(&self) -> BTreeSet<ZoneName> {
        self.faults.values().filter_map(FaultRecord::lost_zone).cloned().collect()
    }

    /// Takes the steps that need no process: what ended and is in no order goes, what is wanted gets its place (to be
    /// started by the keeper once the ledger has it), what is not wanted is asked to stop. Says whether anything
    /// changed.
    pub(crate) fn advance(&mut self, fingerprint: &str, now: Stamp) -> (Decision, bool) {
        let lives = self.held.iter().map(|(instance, held)| (instance.clone(), held.life())).collect();
        let lost = self.lost_zones();
        let mut decision = decide(&self.wanted, &lives, &lost, now);
        if self.going_down {
            decision.start.clear();
        }
        let mut changed =
            !decision.start.is_empty() || !decision.stop.is_empty() || !decision.forget.is_empty();
        for instance in &decision.forget {
            self.held.remove(instance);
        }
        for instance in &decision.stop {
            if let Some(held) = self.held.get_mut(instance) {
                held.turn_stopping(now);
            }
        }
        for replica in &decision.start {
            self.place(replica, fingerprint, now);
        }
        for (instance, waiting) in &decision.waiting {
            if let Waiting::ZoneLost(zone) = waiting {
                self.faults.values_mut().for_each(|fault| fault.count_refusal(zone, instance));
            }
        }
        changed |= self.waiting != decision.waiting;
        self.waiting.clone_from(&decision.waiting);
        self.drop_unused_launches();
        (decision, changed)
    }

    /// Gives a wanted replica its address and port.
    fn place(&mut self, replica: &WantedReplica, fingerprint: &str, now: Stamp) {
        let Some(launch) = self.launches.get(&replica.revision).cloned() else { return };
        let zone = self.zone_index(&replica.zone);
        let live = || self.held.values().filter(|held| held.life() != Life::Ended);
        let numbers =
            live().filter(|held| held.zone == replica.zone).filter_map(|held| last_octet(held.address.ip()));
        let number = address::lowest_free(&numbers.collect());
        let taken = live().map(|held| held.address.port()).collect();
        let port = self.ports.next_free(&taken);
        let address = SocketAddr::new(address::loopback(fingerprint, zone, number), port.unwrap_or_default());
        let mut held = Held {
            revision: replica.revision.clone(),
            zone: replica.zone.clone(),
            generation: self.wanted.generation,
            launch,
            address,
            process: None,
            state: ReplicaState::Starting { since: now, endpoint: address },
            served: None,
            is_silent: false,
            stop: watch::Sender::new(false),
        };
        if port.is_none() {
            held.turn_exited(now, ExitReason::NotStarted("no port is free for it".into()), Vec::new());
        }
        self.held.insert(replica.instance.clone(), held);
    }

    /// The zone's place among the zones, which it gets for good when it is new.
    fn zone_index(&mut self, zone: &ZoneName) -> usize {
        self.zones.iter().position(|known| known == zone).unwrap_or_else(|| {
            self.zones.push(zone.clone());
            self.zones.len() - 1
        })
    }

    /// How many zones there would be with an order.
    pub(crate) fn zones_with(&self, wanted: &Wanted) -> usize {
        let all: BTreeSet<&ZoneName> =
            self.zones.iter().chain(wanted.replicas.iter().map(|replica| &replica.zone)).collect();
        all.len()
    }

    fn drop_unused_launches(&mut self) {
        let used: BTreeSet<Revision> = self.held.values().map(|held| held.revision.clone()).collect();
        let wanted = &self.wanted.launches;
        self.launches.retain(|revision, _| wanted.contains_key(revision) || used.contains(revision));
    }

    /// Takes an order, whose generation was compared before.
    pub(crate) fn take(&mut self, wanted: Wanted) {
        for (revision, launch) in &wanted.launches {
            self.launches.insert(revision.clone(), Arc::new(launch.clone()));
        }
        self.wanted = wanted;
    }

    /// Takes the last order back, since it could not be made durable; what has no process yet goes with it.
    pub(crate) fn take_back(&mut self, before: Wanted) {
        let refused = self.wanted.generation;
        self.held.retain(|_, held| held.generation != refused || held.process.is_some());
        self.take(before);
    }

    /// Those that have their place and no process yet.
    pub(crate) fn unstarted(&self) -> Vec<Instance> {
        self.held
            .iter()
            .filter(|(_, held)| held.process.is_none() && held.life() != Life::Ended)
            .map(|(instance, _)| instance.clone())
            .collect()
    }

    /// Whether most replicas that were ready once are silent, so that the observer is the likeliest culprit.
    pub(crate) fn most_are_silent(&self) -> bool {
        /// With fewer replicas "most" says nothing.
        const CROWD: usize = 4;
        let judged = self.held.values().filter(|held| held.life() == Life::Runs && held.served.is_some());
        let (all, silent) =
            judged.fold((0, 0), |(all, silent), held| (all + 1, silent + usize::from(held.is_silent)));
        all >= CROWD && silent * 2 > all
    }

    pub(crate) fn inventory(&self, now: Stamp) -> Inventory {
        let lost = self.lost_zones();
        let state_of = |zone: &ZoneName| {
            let is_lost = lost.contains(zone);
            ZoneState { available: !is_lost, reason: is_lost.then(|| "a fault: the zone is lost".to_owned()) }
        };
        let named = self.zones.iter().chain(self.wanted.replicas.iter().map(|replica| &replica.zone));
        Inventory {
            at: now,
            generation: self.wanted.generation,
            zones: named.map(|zone| (zone.clone(), state_of(zone))).collect(),
            replicas: self.seen_replicas(),
            limitations: self.all_limitations(),
        }
    }

    fn seen_replicas(&self) -> Vec<SeenReplica> {
        let held = self.held.iter().map(|(instance, held)| SeenReplica {
            instance: instance.clone(),
            revision: held.revision.clone(),
            zone: held.zone.clone(),
            generation: held.generation,
            pid: held.process.map(|process| process.pid).filter(|_| held.life() != Life::Ended),
            state: held.state.clone(),
        });
        let pending =
            self.wanted.replicas.iter().filter(|replica| !self.held.contains_key(&replica.instance)).map(
                |replica| {
                    let reason = self
                        .waiting
                        .get(&replica.instance)
                        .map_or_else(|| "it is next".to_owned(), ToString::to_string);
                    SeenReplica {
                        instance: replica.instance.clone(),
                        revision: replica.revision.clone(),
                        zone: replica.zone.clone(),
                        generation: self.wanted.generation,
                        pid: None,
                        state: ReplicaState::Pending { reason },
                    }
                },
            );
        let mut all: Vec<SeenReplica> = held.chain(pending).collect();
        all.sort_by(|one, other| one.instance.cmp(&other.instance));
        all
    }

    pub(crate) fn all_limitations(&self) -> Vec<String> {
        let localhost = self.localhost_only.iter().map(|service| {
            format!("`{service}` listens on 127.0.0.1 only instead of on HOST: its replicas do not have their zone's address")
        });
        let doubt = self.doubt.since().map(|since| {
            format!("since {since} most replicas do not answer at once: the observer is suspected, and none is killed for it")
        });
        let ledger = self
            .ledger_trouble
            .iter()
            .map(|why| format!("the ledger cannot be written, so nothing new starts: {why}"));
        self.limitations.iter().cloned().chain(localhost).chain(doubt).chain(ledger).collect()
    }
}

fn last_octet(address: IpAddr) -> Option<u8> {
    match address {
        IpAddr::V4(address) => Some(address.octets()[3]),
        IpAddr::V6(_) => None,
    }
}
