//! A platform in memory, on whatever clock it is given: what the planner meets in tests, and in whole simulated worlds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use standfast_model::{Generation, Instance, Revision, Stamp, ZoneName};
use standfast_runtime::{Clock, OnStop, Tasks};
use tokio::sync::{Notify, watch};

use crate::decide::{Life, decide, malformed};
use crate::{
    Applied, ExitReason, Inventory, Platform, PlatformError, ReplicaState, SeenReplica, Wanted, ZoneState,
};

/// How simulated replicas behave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behaviour {
    /// From start to ready; `None`: never.
    pub ready_after: Option<Duration>,
    /// From being asked to stop to the end.
    pub stops_within: Duration,
    /// It ends by itself so long after its start.
    pub ends_after: Option<(Duration, ExitReason)>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            ready_after: Some(Duration::from_millis(50)),
            stops_within: Duration::from_millis(10),
            ends_after: None,
        }
    }
}

/// The simulated platform. Cheap to clone; clones are the same platform.
#[derive(Debug, Clone)]
pub struct SimulatedPlatform(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Clock,
    world: Mutex<World>,
    changes: watch::Sender<u64>,
    woken: Notify,
}

#[derive(Debug, Default)]
struct World {
    zones: BTreeSet<ZoneName>,
    lost: BTreeSet<ZoneName>,
    wanted: Wanted,
    replicas: BTreeMap<Instance, Replica>,
    /// Why what is wanted does not run yet.
    waiting: BTreeMap<Instance, String>,
    usual: Behaviour,
    by_revision: BTreeMap<Revision, Behaviour>,
    failing_applies: u32,
    is_unreachable: bool,
    started: u16,
}

#[derive(Debug)]
struct Replica {
    revision: Revision,
    zone: ZoneName,
    generation: Generation,
    number: u16,
    endpoint: SocketAddr,
    behaviour: Behaviour,
    started: Stamp,
    served: Option<Duration>,
    /// Whether it was made unready, or ready again, by hand.
    forced: Option<Result<(), String>>,
    state: ReplicaState,
}

impl SimulatedPlatform {
    /// A platform with these zones, all available. A task of `tasks` lets time-driven changes wake those who wait.
    pub fn start(clock: Clock, zones: impl IntoIterator<Item = ZoneName>, tasks: &Tasks) -> Self {
        let world = World { zones: zones.into_iter().collect(), ..World::default() };
        let inner =
            Inner { clock, world: Mutex::new(world), changes: watch::Sender::new(0), woken: Notify::new() };
        let platform = Self(Arc::new(inner));
        tasks.spawn("simulated platform", OnStop::Abort, platform.clone().live());
        platform
    }

    /// How replicas behave from now on, unless their revision has its own behaviour. Those that run keep theirs.
    pub fn set_usual(&self, behaviour: Behaviour) {
        self.with(|world, _| world.usual = behaviour);
    }

    /// How replicas of one revision behave.
    pub fn set_revision(&self, revision: Revision, behaviour: Behaviour) {
        self.with(|world, _| world.by_revision.insert(revision, behaviour));
    }

    /// Ends a replica; false when it does not run.
    pub fn end(&self, instance: &Instance, reason: ExitReason) -> bool {
        self.with(|world, now| match world.replicas.get_mut(instance) {
            Some(replica) if replica.life() != Life::Ended => {
                replica.exit(now, reason);
                true
            }
            _ => false,
        })
    }

    /// Makes a running replica's probe fail, or pass again.
    pub fn set_unready(&self, instance: &Instance, reason: Option<&str>) {
        self.with(|world, _| {
            if let Some(replica) = world.replicas.get_mut(instance) {
                replica.forced = Some(reason.map_or(Ok(()), |why| Err(why.to_owned())));
            }
        });
    }

    /// All replicas of the zone die, and none starts there until it is healed.
    pub fn lose_zone(&self, zone: &ZoneName) {
        self.with(|world, now| {
            world.lost.insert(zone.clone());
            let there = world
                .replicas
                .values_mut()
                .filter(|replica| replica.zone == *zone && replica.life() != Life::Ended);
            there.for_each(|replica| replica.exit(now, ExitReason::Signal(9)));
        });
    }

    /// The zone is available again.
    pub fn heal_zone(&self, zone: &ZoneName) {
        self.with(|world, _| world.lost.remove(zone));
    }

    /// The next `count` orders cannot be made durable.
    pub fn fail_applies(&self, count: u32) {
        self.with(|world, _| world.failing_applies = count);
    }

    /// Whether it answers at all.
    pub fn set_reachable(&self, is_reachable: bool) {
        self.with(|world, _| world.is_unreachable = !is_reachable);
    }

    /// The order held.
    pub fn wanted(&self) -> Wanted {
        self.lock().wanted.clone()
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.0.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the world at its present time, and wakes who should know.
    fn with<T>(&self, act: impl FnOnce(&mut World, Stamp) -> T) -> T {
        let mut world = self.lock();
        let now = self.0.clock.now();
        let before = world.inventory(now);
        let _caught_up = world.settle(now);
        let value = act(&mut world, now);
        let _next = world.settle(now);
        let is_changed = world.inventory(now) != before;
        drop(world);
        if is_changed {
            self.0.changes.send_modify(|change| *change += 1);
        }
        self.0.woken.notify_one();
        value
    }

    async fn live(self) {
        /// With nothing to come, the next look.
        const IDLE: Duration = Duration::from_secs(3_600);
        loop {
            let (now, next) = {
                let mut world = self.lock();
                let now = self.0.clock.now();
                let before = world.inventory(now);
                let next = world.settle(now);
                if world.inventory(now) != before {
                    self.0.changes.send_modify(|change| *change += 1);
                }
                (now, next)
            };
            let clock = self.0.clock;
            let until = next.unwrap_or_else(|| now.plus(IDLE));
            let sleep = clock.sleep_until(until);
            tokio::select! {
                biased;
                () = self.0.woken.notified() => {}
                () = sleep => {}
            }
        }
    }
}

#[async_trait]
impl Platform for SimulatedPlatform {
    async fn observe(&self) -> Result<Inventory, PlatformError> {
        self.with(|world, now| {
            world.reachable()?;
            Ok(world.inventory(now))
        })
    }

    async fn apply(&self, wanted: &Wanted) -> Result<Applied, PlatformError> {
        self.with(|world, _| {
            world.reachable()?;
            if let Some(why) = malformed(wanted) {
                return Err(PlatformError::Refused(why));
            }
            if *wanted == world.wanted {
                return Ok(Applied::Unchanged);
            }
            let (sent, held) = (wanted.generation, world.wanted.generation);
            if sent <= held {
                return Err(PlatformError::Stale { sent, held });
            }
            if world.failing_applies > 0 {
                world.failing_applies -= 1;
                return Err(PlatformError::Ledger(std::io::Error::other("the simulated disk is full")));
            }
            world.wanted = wanted.clone();
            Ok(Applied::Taken)
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }
}

impl World {
    fn reachable(&self) -> Result<(), PlatformError> {
        if self.is_unreachable {
            Err(PlatformError::Unreachable("it was switched off".into()))
        } else {
            Ok(())
        }
    }

    /// Lets happen what has happened by `now`, and says when something will happen next.
    fn settle(&mut self, now: Stamp) -> Option<Stamp> {
        self.replicas.values_mut().for_each(|replica| replica.settle(now));
        let lives =
            self.replicas.iter().map(|(instance, replica)| (instance.clone(), replica.life())).collect();
        let decision = decide(&self.wanted, &lives, &self.lost, now);
        for instance in &decision.stop {
            if let Some(replica) = self.replicas.get_mut(instance) {
                replica.count_served(now);
                replica.state = ReplicaState::Stopping { since: now };
                replica.settle(now);
            }
        }
        for instance in &decision.forget {
            self.replicas.remove(instance);
        }
        for wanted in &decision.start {
            self.zones.insert(wanted.zone.clone());
            self.started += 1;
            let behaviour = self.by_revision.get(&wanted.revision).unwrap_or(&self.usual).clone();
            let endpoint = SocketAddr::from((Ipv4Addr::new(127, 64, 1, 1), 20_000 + self.started % 10_000));
            let mut replica = Replica {
                revision: wanted.revision.clone(),
                zone: wanted.zone.clone(),
                generation: self.wanted.generation,
                number: self.started,
                endpoint,
                behaviour,
                started: now,
                served: None,
                forced: None,
                state: ReplicaState::Starting { since: now, endpoint },
            };
            replica.settle(now);
            self.replicas.insert(wanted.instance.clone(), replica);
        }
        self.waiting =
            decision.waiting.iter().map(|(instance, why)| (instance.clone(), why.to_string())).collect();
        let gone = |(instance, replica): &(&Instance, &Replica)| {
            replica.life() == Life::Ended
                && !self.wanted.replicas.iter().any(|wanted| wanted.instance == **instance)
        };
        // One that stops in no time is gone in the same breath.
        let gone: Vec<Instance> =
            self.replicas.iter().filter(gone).map(|(instance, _)| instance.clone()).collect();
        gone.iter().for_each(|instance| drop(self.replicas.remove(instance)));
        self.replicas.values().filter_map(Replica::next).chain(decision.again_at).min()
    }

    fn inventory(&self, now: Stamp) -> Inventory {
        let zone = |zone: &ZoneName| {
            let is_lost = self.lost.contains(zone);
            (
                zone.clone(),
                ZoneState { available: !is_lost, reason: is_lost.then(|| "it was lost".to_owned()) },
            )
        };
        let held = self.replicas.iter().map(|(instance, replica)| SeenReplica {
            instance: instance.clone(),
            revision: replica.revision.clone(),
            zone: replica.zone.clone(),
            generation: replica.generation,
            pid: (replica.life() != Life::Ended).then_some(100_000 + u32::from(replica.number)),
            state: replica.state.clone(),
        });
        let pending =
            self.wanted.replicas.iter().filter(|replica| !self.replicas.contains_key(&replica.instance)).map(
                |replica| {
                    let reason =
                        self.waiting.get(&replica.instance).cloned().unwrap_or_else(|| "it is next".into());
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
        let mut replicas: Vec<SeenReplica> = held.chain(pending).collect();
        replicas.sort_by(|one, other| one.instance.cmp(&other.instance));
        Inventory {
            at: now,
            generation: self.wanted.generation,
            zones: self.zones.iter().chain(&self.lost).map(zone).collect(),
            replicas,
            limitations: Vec::new(),
        }
    }
}

impl Replica {
    fn life(&self) -> Life {
        match self.state {
            ReplicaState::Exited { .. } => Life::Ended,
            ReplicaState::Stopping { .. } => Life::Stops,
            _ => Life::Runs,
        }
    }

    /// When it changes by itself the next time.
    fn next(&self) -> Option<Stamp> {
        let ready = self.behaviour.ready_after.map(|after| self.started.plus(after));
        let end = self.behaviour.ends_after.as_ref().map(|(after, _)| self.started.plus(*after));
        match self.state {
            ReplicaState::Exited { .. } | ReplicaState::Pending { .. } => None,
            ReplicaState::Stopping { since } => Some(since.plus(self.behaviour.stops_within)),
            ReplicaState::Starting { .. } => [ready, end].into_iter().flatten().min(),
            ReplicaState::Serving { .. } | ReplicaState::Unready { .. } => end,
        }
    }

    fn settle(&mut self, now: Stamp) {
        if let ReplicaState::Stopping { since } = self.state {
            let at = since.plus(self.behaviour.stops_within);
            if at <= now {
                self.exit(at, ExitReason::Stopped);
            }
            return;
        }
        if self.life() == Life::Ended {
            return;
        }
        self.settle_readiness(now);
        let end = self.behaviour.ends_after.clone().map(|(after, reason)| (self.started.plus(after), reason));
        if let Some((at, reason)) = end.filter(|(at, _)| *at <= now) {
            self.exit(at, reason);
        }
    }

    fn settle_readiness(&mut self, now: Stamp) {
        let ready_at =
            self.behaviour.ready_after.map(|after| self.started.plus(after)).filter(|at| *at <= now);
        let endpoint = self.endpoint;
        match (&self.state, &self.forced, ready_at) {
            (ReplicaState::Starting { .. }, None | Some(Ok(())), Some(since)) => {
                self.served = Some(Duration::ZERO);
                self.state = ReplicaState::Serving { since, endpoint };
            }
            (ReplicaState::Serving { .. }, Some(Err(reason)), _) => {
                let reason = reason.clone();
                self.count_served(now);
                self.state = ReplicaState::Unready { since: now, endpoint, reason };
            }
            (ReplicaState::Unready { .. }, Some(Ok(())), _) => {
                self.state = ReplicaState::Serving { since: now, endpoint }
            }
            _ => {}
        }
    }

    fn count_served(&mut self, at: Stamp) {
        if let ReplicaState::Serving { since, .. } = self.state {
            self.served = Some(self.served.unwrap_or_default() + at.since(since));
        }
    }

    fn exit(&mut self, at: Stamp, reason: ExitReason) {
        self.count_served(at);
        self.state = ReplicaState::Exited { at, reason, served: self.served, last_output: Vec::new() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Intent, WantedReplica};
    use standfast_model::{HealthCheck, Limits, Probe, ReplicaId};

    #[tokio::test(start_paused = true)]
    async fn a_revision_that_never_gets_ready_and_a_crash_loop_show_as_such() {
        let (clock, tasks) = (Clock::starting_at(Stamp::from_micros(1)), Tasks::new());
        let platform = SimulatedPlatform::start(clock, ["a".parse().unwrap()], &tasks);
        let launch = crate::Launch {
            command: vec!["x".into()],
            working_dir: "/".into(),
            environment: BTreeMap::new(),
            healthcheck: HealthCheck {
                probe: Probe::Tcp,
                interval: Duration::from_secs(1),
                timeout: Duration::from_secs(1),
                retries: 3,
                start_period: Duration::ZERO,
            },
            limits: Limits::default(),
            stop_grace_period: Duration::from_secs(1),
        };
        let (good, bad, loops) = (Revision::of(b"good"), Revision::of(b"bad"), Revision::of(b"loops"));
        platform.set_revision(bad.clone(), Behaviour { ready_after: None, ..Behaviour::default() });
        let ends_after = Some((Duration::from_millis(80), ExitReason::Code(1)));
        platform.set_revision(loops.clone(), Behaviour { ends_after, ..Behaviour::default() });
        let replica = |slot, revision: &Revision| WantedReplica {
            instance: Instance {
                replica: ReplicaId { service: "orders".parse().unwrap(), slot },
                attempt: 1,
            },
            revision: revision.clone(),
            zone: "a".parse().unwrap(),
            not_before: Stamp::EPOCH,
            intent: Intent::Run,
        };
        let wanted = Wanted {
            generation: Generation(1),
            launches: [&good, &bad, &loops].map(|revision| (revision.clone(), launch.clone())).into(),
            replicas: vec![replica(0, &good), replica(1, &bad), replica(2, &loops)],
            ..Wanted::default()
        };
        platform.fail_applies(1);
        assert!(matches!(platform.apply(&wanted).await, Err(PlatformError::Ledger(_))));
        platform.apply(&wanted).await.unwrap();
        clock.sleep(Duration::from_secs(1)).await;
        let seen = platform.observe().await.unwrap().replicas;
        assert!(seen[0].is_serving());
        assert!(matches!(seen[1].state, ReplicaState::Starting { .. }));
        let ReplicaState::Exited { reason, served, .. } = &seen[2].state else { panic!("{:?}", seen[2]) };
        assert_eq!((reason, served), (&ExitReason::Code(1), &Some(Duration::from_millis(30))));
        platform.set_reachable(false);
        assert!(platform.observe().await.is_err());
    }
}
