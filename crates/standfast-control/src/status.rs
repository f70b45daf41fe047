//! What is, in the words of the plan: what the console, the command line and the gateway look at.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use standfast_model::{Generation, Instance, Revision, ServiceName, StackName, Stamp, ZoneName};
use standfast_platform::{Inventory, ReplicaState, SeenReplica, ZoneState};

use crate::blueprint::{Blueprint, BlueprintId, Failure, Fingerprint, PlannedIntent, PlannedReplica};
use crate::plan::{CrashLoop, Report};
use crate::policy::{Policy, StackDigest};

/// How all is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Status {
    /// When the platform was looked at last.
    pub at: Stamp,
    /// The target; `None` before the first stack was applied.
    pub target: Option<TargetStatus>,
    /// The services of the stack, and those that are on their way out.
    pub services: BTreeMap<ServiceName, ServiceStatus>,
    /// The zones.
    pub zones: BTreeMap<ZoneName, ZoneState>,
    /// What the platform cannot do here, in sentences.
    pub limitations: Vec<String>,
    /// What is waited for and why, in sentences.
    pub waiting: Vec<String>,
    /// Why the last look at the world did not come to its end, with all causes.
    pub problem: Option<String>,
}

/// Which blueprint holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetStatus {
    /// Its id.
    pub blueprint: BlueprintId,
    /// Its number.
    pub generation: Generation,
    /// The number of the order that the platform holds.
    pub carried_out: Generation,
    /// The stack's name; `None` when nothing shall run.
    pub stack: Option<StackName>,
    /// The stack's digest.
    pub digest: Option<StackDigest>,
    /// When it was made.
    pub created_at: Stamp,
    /// By whom.
    pub author: String,
    /// Why.
    pub reason: String,
}

/// How a service is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Replicas wanted.
    pub wanted: usize,
    /// Replicas that serve, or that did their work and are not started again.
    pub ready: usize,
    /// Replicas that are to be exchanged for current ones.
    pub outdated: usize,
    /// What it is at, in one word.
    pub phase: Phase,
    /// Replicas per zone.
    pub zones: BTreeMap<ZoneName, ZoneCount>,
    /// Replicas replaced after they ended or were lost, ever.
    pub restarts: u64,
    /// The last of those.
    pub last_failure: Option<Failure>,
    /// Its replicas in a crash loop.
    pub crash_loops: Vec<CrashLoop>,
    /// Its replicas.
    pub replicas: Vec<ReplicaStatus>,
}

/// What a service is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing was started yet: it waits for others.
    #[default]
    Waiting,
    /// Some replicas are not ready yet.
    Starting,
    /// As wanted.
    Ready,
    /// As many as wanted are ready, and some are to be exchanged.
    Updating,
    /// Some replicas end again and again.
    CrashLooping,
    /// Some replicas are not started again although they failed.
    GivenUp,
    /// It is not in the stack any more.
    Leaving,
}

/// A service's replicas in a zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ZoneCount {
    /// Those that shall run there.
    pub planned: usize,
    /// Those of them that serve.
    pub ready: usize,
}

/// How a replica is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// Which start of which replica.
    pub instance: Instance,
    /// What it runs.
    pub revision: Revision,
    /// Where.
    pub zone: ZoneName,
    /// What it is for.
    pub role: Role,
    /// How it was seen; `None` when nothing was heard of it yet.
    pub state: Option<ReplicaState>,
    /// Where it listens.
    pub endpoint: Option<SocketAddr>,
    /// Its process, where there is one.
    pub pid: Option<u32>,
    /// Quick failures in a row before this attempt.
    pub failures: u32,
    /// Not started before.
    pub not_before: Stamp,
    /// Why this attempt was made.
    pub why: String,
}

/// What a replica is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It shall serve.
    Run,
    /// It ends what it has, and gets nothing new.
    Drain,
    /// It did its work.
    Completed,
    /// It failed too often.
    GivenUp,
    /// It is in no plan and is being stopped.
    Leaving,
}

/// A plan's name: the same as long as what it was made from stays the same.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PlanId(String);

impl fmt::Display for PlanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// From a text, as a person types it. That it names no plan shows when it is used.
impl From<&str> for PlanId {
    fn from(text: &str) -> Self {
        Self(text.trim().to_owned())
    }
}

impl PlanId {
    /// The name of what comes of these: the parent, the stack, which zones are there and which replicas are alive.
    pub fn of(policy: &Policy, seen: &Inventory, parent: &Blueprint) -> Self {
        let mut hash = Fingerprint::default();
        parent.id.hash(&mut hash);
        policy.digest().hash(&mut hash);
        for (zone, state) in &seen.zones {
            (zone, state.available).hash(&mut hash);
        }
        for replica in seen.replicas.iter().filter(|replica| !replica.has_exited()) {
            replica.instance.hash(&mut hash);
        }
        Self(format!("{:016x}", hash.finish()))
    }
}

/// What applying a stack would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanPreview {
    /// The plan's name, to be given when it is applied.
    pub plan: PlanId,
    /// What it would do.
    pub report: Report,
    /// Whether it would do anything.
    pub changes_anything: bool,
}

impl ReplicaStatus {
    /// Whether new requests may go to it, and where.
    pub fn takes_requests(&self) -> Option<SocketAddr> {
        let serves = self.role == Role::Run && matches!(self.state, Some(ReplicaState::Serving { .. }));
        self.endpoint.filter(|_| serves)
    }
}

impl Status {
    /// Whether all services are as wanted.
    pub fn is_ready(&self) -> bool {
        self.target.is_some() && self.problem.is_none() && self.missing().is_empty()
    }

    /// What is not as wanted, in sentences.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (name, service) in &self.services {
            let words = match service.phase {
                Phase::Ready => continue,
                Phase::Leaving => "is on its way out".to_owned(),
                Phase::Updating => format!("has {} replicas to be exchanged", service.outdated),
                _ => format!("has {} of {} replicas ready", service.ready, service.wanted),
            };
            missing.push(format!("`{name}` {words}"));
        }
        missing
    }

    /// Services that do not become ready by waiting, in sentences.
    pub fn given_up(&self) -> Vec<String> {
        let given_up = |service: &ServiceStatus| service.phase == Phase::GivenUp;
        let words = |(name, service): (&ServiceName, &ServiceStatus)| {
            let why = service.last_failure.as_ref().map_or("it failed", |failure| failure.reason.as_str());
            format!("`{name}` was given up: {why}")
        };
        self.services.iter().filter(|(_, service)| given_up(service)).map(words).collect()
    }

    /// Whether it says the same as another, whenever that was looked at.
    pub(crate) fn says_the_same(&self, other: &Self) -> bool {
        let Self { at: _, target, services, zones, limitations, waiting, problem } = self;
        *target == other.target
            && *services == other.services
            && *zones == other.zones
            && *limitations == other.limitations
            && *waiting == other.waiting
            && *problem == other.problem
    }

    pub(crate) fn of(policy: &Policy, blueprint: &Blueprint, seen: &Inventory, report: &Report) -> Self {
        let mut by_service: BTreeMap<&ServiceName, Joined<'_>> = BTreeMap::new();
        for name in policy.stack().iter().flat_map(|stack| stack.services.keys()) {
            by_service.insert(name, Joined::default());
        }
        for planned in blueprint.replicas.values() {
            by_service.entry(&planned.instance.replica.service).or_default().planned.push(planned);
        }
        for seen in &seen.replicas {
            by_service.entry(&seen.instance.replica.service).or_default().seen.push(seen);
        }
        for looping in &report.crash_loops {
            by_service.entry(&looping.replica.replica.service).or_default().loops.push(looping);
        }
        let services = by_service.into_iter().filter_map(|(name, joined)| {
            let status = joined.status(name, policy, blueprint);
            let is_over = status.phase == Phase::Leaving && status.replicas.is_empty();
            (!is_over).then(|| (name.clone(), status))
        });
        Self {
            at: seen.at,
            services: services.collect(),
            target: Some(TargetStatus {
                blueprint: blueprint.id.clone(),
                generation: blueprint.generation,
                carried_out: seen.generation,
                stack: policy.stack().map(|stack| stack.name.clone()),
                digest: blueprint.stack.clone(),
                created_at: blueprint.created_at,
                author: blueprint.author.clone(),
                reason: blueprint.reason.clone(),
            }),
            zones: seen.zones.clone(),
            limitations: seen.limitations.clone(),
            waiting: report.waiting.clone(),
            problem: None,
        }
    }
}

/// What there is of one service.
#[derive(Default)]
struct Joined<'a> {
    planned: Vec<&'a PlannedReplica>,
    seen: Vec<&'a SeenReplica>,
    loops: Vec<&'a CrashLoop>,
}

impl Joined<'_> {
    fn status(&self, name: &ServiceName, policy: &Policy, blueprint: &Blueprint) -> ServiceStatus {
        let service = policy.stack().and_then(|stack| stack.services.get(name));
        let ledger = blueprint.services.get(name);
        let revision = policy.launch(name).map(|(revision, _)| revision);
        let mut status = ServiceStatus {
            wanted: service.map_or(0, |service| service.deploy.replicas as usize),
            restarts: ledger.map_or(0, |ledger| ledger.restarts),
            last_failure: ledger.and_then(|ledger| ledger.last_failure.clone()),
            crash_loops: self.loops.iter().copied().cloned().collect(),
            ..ServiceStatus::default()
        };
        let (mut given_up, mut draining) = (0, 0);
        for planned in &self.planned {
            let seen = self.seen.binary_search_by(|seen| seen.instance.cmp(&planned.instance));
            let seen = seen.ok().map(|index| self.seen[index]);
            let replica = ReplicaStatus::of(planned, seen);
            let serves = replica.takes_requests().is_some();
            status.ready += usize::from(serves || replica.role == Role::Completed);
            status.outdated += usize::from(
                replica.role != Role::Drain
                    && (planned.replace || revision.is_none_or(|r| *r != planned.revision)),
            );
            given_up += usize::from(replica.role == Role::GivenUp);
            draining += usize::from(replica.role == Role::Drain);
            if replica.role == Role::Run {
                let zone = status.zones.entry(planned.zone.clone()).or_default();
                zone.planned += 1;
                zone.ready += usize::from(serves);
            }
            status.replicas.push(replica);
        }
        let is_planned = |seen: &SeenReplica| {
            self.planned.binary_search_by(|planned| planned.instance.cmp(&seen.instance)).is_ok()
        };
        let leaving = self.seen.iter().filter(|seen| !is_planned(seen) && !seen.has_exited());
        status.replicas.extend(leaving.map(|seen| ReplicaStatus::leaving(seen)));
        status.phase = match () {
            () if service.is_none() => Phase::Leaving,
            () if given_up > 0 => Phase::GivenUp,
            () if !status.crash_loops.is_empty() => Phase::CrashLooping,
            () if ledger.is_none_or(|ledger| !ledger.started) => Phase::Waiting,
            () if status.ready < status.wanted => Phase::Starting,
            () if status.outdated > 0 || draining > 0 => Phase::Updating,
            () => Phase::Ready,
        };
        status
    }
}

impl ReplicaStatus {
    fn of(planned: &PlannedReplica, seen: Option<&SeenReplica>) -> Self {
        Self {
            instance: planned.instance.clone(),
            revision: planned.revision.clone(),
            zone: planned.zone.clone(),
            role: match &planned.intent {
                PlannedIntent::Run => Role::Run,
                PlannedIntent::Drain { .. } => Role::Drain,
                PlannedIntent::Ended(ending) if ending.success => Role::Completed,
                PlannedIntent::Ended(_) => Role::GivenUp,
            },
            state: seen.map(|seen| seen.state.clone()),
            endpoint: seen.and_then(SeenReplica::endpoint),
            pid: seen.and_then(|seen| seen.pid),
            failures: planned.failures,
            not_before: planned.not_before,
            why: planned.why.clone(),
        }
    }

    fn leaving(seen: &SeenReplica) -> Self {
        Self {
            instance: seen.instance.clone(),
            revision: seen.revision.clone(),
            zone: seen.zone.clone(),
            role: Role::Leaving,
            state: Some(seen.state.clone()),
            endpoint: seen.endpoint(),
            pid: seen.pid,
            failures: 0,
            not_before: Stamp::EPOCH,
            why: "no longer planned".into(),
        }
    }
}
