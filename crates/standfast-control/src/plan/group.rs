//! The planner's view: each service with its replicas, what was decided about them joined with what was seen of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use standfast_model::{Instance, ReplicaId, Revision, Service, ServiceName, Stamp, ZoneName};
use standfast_platform::{ExitReason, Inventory, ReplicaState, SeenReplica};

use super::{Change, ChangeKind, Occasion, Report, RestartTarget, Step, StepKind};
use crate::blueprint::{Blueprint, PlannedIntent, PlannedReplica, ServiceLedger};
use crate::config::{OUTPUT_CHARS_MAX, OUTPUT_LINES_MAX, QUICK, SUSPECT_MIN};
use crate::policy::Policy;

/// What a plan is made from, and what follows from it for all services.
#[derive(Debug)]
pub(super) struct World<'a> {
    pub(super) policy: &'a Policy,
    pub(super) seen: &'a Inventory,
    pub(super) now: Stamp,
    /// Where replicas may be placed, in the order of the stack.
    pub(super) zones: Vec<&'a ZoneName>,
    /// The platform holds the parent's order, so that what it does not show is not there.
    pub(super) order_was_taken: bool,
    /// The platform holds an order that this history does not know: its state was lost, or restored from a backup.
    pub(super) order_is_unknown: bool,
    /// Most replicas look dead without proof: nothing is taken away on that evidence.
    pub(super) suspects_observer: bool,
    seen_of: BTreeMap<&'a ServiceName, Vec<&'a SeenReplica>>,
}

/// What planning notes down.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) report: Report,
    pub(super) wake_at: Option<Stamp>,
}

impl Notes {
    pub(super) fn wake_at(&mut self, at: Stamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }

    pub(super) fn step(&mut self, kind: StepKind, planned: &PlannedReplica, reason: String, impact: String) {
        let reversible = !matches!(kind, StepKind::Complete | StepKind::GiveUp);
        self.report.steps.push(Step {
            kind,
            service: planned.instance.replica.service.clone(),
            replica: planned.instance.clone(),
            zone: planned.zone.clone(),
            reason,
            impact,
            reversible,
        });
    }

    pub(super) fn wait(&mut self, sentence: String) {
        self.report.waiting.push(sentence);
    }
}

/// One service.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) name: &'a ServiceName,
    /// `None` when it shall not run.
    pub(super) want: Option<Want<'a>>,
    pub(super) ledger: ServiceLedger,
    /// By slot.
    pub(super) members: Vec<Member>,
    /// Perhaps alive, and in no plan any more.
    pub(super) leaving: usize,
    /// Attempts that no plan knows are about: new ones are above all of them.
    pub(super) has_strangers: bool,
}

/// What is wanted of a service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Want<'a> {
    pub(super) service: &'a Service,
    pub(super) revision: &'a Revision,
    pub(super) count: usize,
    pub(super) parallelism: usize,
}

/// One replica.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) planned: Arc<PlannedReplica>,
    pub(super) condition: Condition,
    /// It is what the stack wants: its revision, in a zone of the stack, and not marked for exchange.
    pub(super) is_current: bool,
}

/// How a replica is, as far as planning goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Nothing was heard of it yet, or its time has not come.
    Ordered,
    /// Started.
    Starting,
    /// Ready. It counts in full once it is settled: at once, or after some time when it failed before.
    Serving { is_settled: bool },
    /// Its probe fails: the platform decides when that is its end.
    Unready,
    /// Asked to stop.
    Stopping,
    /// Not there any more.
    Gone(Gone),
    /// Not to be started again.
    Ended,
}

/// Why a replica is not there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) how: How,
    /// Someone saw it end.
    pub(super) is_proven: bool,
    /// A part of a sentence: "exited with code 1".
    pub(super) reason: String,
    pub(super) output: Vec<String>,
}

/// How a replica went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// With exit code 0.
    Done { quickly: bool },
    /// Otherwise.
    Failed { quickly: bool },
    /// As ordered.
    Stopped,
    /// With its zone.
    Lost,
}

impl<'a> World<'a> {
    pub(super) fn new(policy: &'a Policy, seen: &'a Inventory, parent: &Blueprint, now: Stamp) -> Self {
        let declared = policy.stack().map(|stack| stack.zones.as_slice()).unwrap_or_default();
        let mut seen_of: BTreeMap<&ServiceName, Vec<&SeenReplica>> = BTreeMap::new();
        for run in seen.replicas.chunk_by(|a, b| a.instance.replica.service == b.instance.replica.service) {
            seen_of.entry(&run[0].instance.replica.service).or_default().extend(run);
        }
        for replicas in seen_of.values_mut() {
            replicas.sort_unstable_by_key(|seen| key(&seen.instance));
        }
        Self {
            policy,
            seen,
            now,
            zones: declared.iter().filter(|zone| !is_lost(seen, zone)).collect(),
            order_was_taken: seen.generation >= parent.generation,
            order_is_unknown: seen.generation > parent.generation,
            suspects_observer: false,
            seen_of,
        }
    }

    pub(super) fn is_lost(&self, zone: &ZoneName) -> bool {
        is_lost(self.seen, zone)
    }

    pub(super) fn seen_of(&self, service: &ServiceName) -> &[&'a SeenReplica] {
        self.seen_of.get(service).map(Vec::as_slice).unwrap_or_default()
    }

    /// Whether a zone is one of the stack's.
    pub(super) fn is_declared(&self, zone: &ZoneName) -> bool {
        self.policy.stack().is_some_and(|stack| stack.zones.contains(zone))
    }

    /// If more than half of at least [`SUSPECT_MIN`] replicas look dead without proof, the fault is probably the observer's.
    pub(super) fn look_for_a_blind_observer(&mut self, groups: &[Group<'_>], notes: &mut Notes) {
        let running =
            || groups.iter().flat_map(|group| &group.members).filter(|member| member.planned.shall_run());
        let doubtful = |member: &&Member| match &member.condition {
            Condition::Unready => true,
            Condition::Gone(gone) => !gone.is_proven,
            _ => false,
        };
        let (all, dead) = (running().count(), running().filter(doubtful).count());
        self.suspects_observer = all >= SUSPECT_MIN && dead * 2 > all;
        if self.suspects_observer {
            notes.wait(format!(
                "{dead} of {all} replicas look dead at once, so the observer is suspected: what still runs is left alone \
                 until it answers or has provably ended"
            ));
        }
    }

    /// How a planned replica is.
    fn condition_of(&self, planned: &PlannedReplica, seen: Option<&SeenReplica>) -> Condition {
        if matches!(planned.intent, PlannedIntent::Ended(_)) {
            return Condition::Ended;
        }
        let is_done = |seen: &SeenReplica| {
            matches!(&seen.state, ReplicaState::Exited { reason: ExitReason::Code(0), .. })
        };
        if self.is_lost(&planned.zone) && !seen.is_some_and(is_done) {
            return Condition::Gone(Gone::with_its_zone(&planned.zone));
        }
        let Some(seen) = seen else {
            return if self.order_was_taken {
                Condition::Gone(Gone::without_trace())
            } else {
                Condition::Ordered
            };
        };
        match &seen.state {
            ReplicaState::Pending { .. } => Condition::Ordered,
            ReplicaState::Starting { .. } => Condition::Starting,
            ReplicaState::Serving { since, .. } => {
                Condition::Serving { is_settled: planned.failures == 0 || self.now.since(*since) >= QUICK }
            }
            ReplicaState::Unready { .. } => Condition::Unready,
            ReplicaState::Stopping { .. } => Condition::Stopping,
            ReplicaState::Exited { reason, served, last_output, .. } => {
                let quickly = served.is_none_or(|served| served < QUICK);
                let how = match reason {
                    ExitReason::Code(0) => How::Done { quickly },
                    ExitReason::Stopped => How::Stopped,
                    _ => How::Failed { quickly },
                };
                let is_proven = *reason != ExitReason::Unknown;
                let output = shortened(last_output);
                Condition::Gone(Gone { how, is_proven, reason: reason.to_string(), output })
            }
        }
    }
}

impl Gone {
    fn with_its_zone(zone: &ZoneName) -> Self {
        let reason = format!("was lost with zone `{zone}`");
        Self { how: How::Lost, is_proven: true, reason, output: Vec::new() }
    }

    fn without_trace() -> Self {
        let reason = "is gone without a trace".into();
        Self { how: How::Failed { quickly: true }, is_proven: false, reason, output: Vec::new() }
    }
}

impl Member {
    /// It shall run and is not known to be gone.
    pub(super) fn is_alive(&self) -> bool {
        self.planned.shall_run() && !self.is_gone()
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.condition, Condition::Gone(_))
    }

    pub(super) fn is_serving(&self) -> bool {
        self.planned.shall_run() && matches!(self.condition, Condition::Serving { .. })
    }

    /// It counts as ready: it serves and is settled, or has done its work.
    pub(super) fn is_settled(&self) -> bool {
        let serves = self.planned.shall_run() && self.condition == Condition::Serving { is_settled: true };
        serves || self.planned.has_completed()
    }

    pub(super) fn is_draining(&self) -> bool {
        matches!(self.planned.intent, PlannedIntent::Drain { .. })
    }

    /// It takes one of the service's places: all but those that drain.
    pub(super) fn counts(&self) -> bool {
        !self.is_draining()
    }

    /// It has not come to serve, and nobody misses it when it goes.
    pub(super) fn is_not_up_yet(&self) -> bool {
        self.planned.shall_run() && matches!(self.condition, Condition::Ordered | Condition::Starting)
    }
}

impl Group<'_> {
    /// How many members that take a place are of this kind.
    pub(super) fn count(&self, is: impl Fn(&Member) -> bool) -> usize {
        self.members.iter().filter(|member| member.counts() && is(member)).count()
    }

    /// Takes a member out of the plan.
    pub(super) fn remove(&mut self, index: usize) -> Member {
        let member = self.members.remove(index);
        self.leaving += usize::from(!member.is_gone() && member.condition != Condition::Ended);
        self.ledger.attempts_floor = self.ledger.attempts_floor.max(member.planned.instance.attempt);
        member
    }

    /// "2 of 3 replicas are ready".
    pub(super) fn capacity(&self) -> String {
        let wanted = self.want.map_or(0, |want| want.count);
        format!("{} of {wanted} replicas of `{}` are ready", self.count(Member::is_settled), self.name)
    }

    /// Notes what differs between the stack and the plan as a whole.
    pub(super) fn note_changes(&self, notes: &mut Notes) {
        let mut note = |kind, what: String, impact: String| {
            let reversible = kind != ChangeKind::Remove;
            notes.report.changes.push(Change { service: self.name.clone(), kind, what, impact, reversible });
        };
        let Some(want) = self.want else {
            if self.members.iter().any(Member::counts) {
                let impact = format!("requests to `{}` are refused from then on", self.name);
                note(ChangeKind::Remove, format!("{} → none", replicas(self.count(|_| true))), impact);
            }
            return;
        };
        if !self.ledger.started {
            let what = format!("none → {}", replicas(want.count));
            return note(ChangeKind::Add, what, "nothing that runs is touched".into());
        }
        let count = u32::try_from(want.count).unwrap_or(u32::MAX);
        if self.ledger.wanted != count {
            let impact = if count > self.ledger.wanted {
                "capacity grows"
            } else {
                "capacity shrinks; each drains first"
            };
            note(ChangeKind::Scale, format!("replicas: {} → {count}", self.ledger.wanted), impact.into());
        }
        if let Some(old) = self.members.iter().find(|member| member.counts() && !member.is_current) {
            let stale = self.count(|member| !member.is_current);
            let why = if old.planned.revision == *want.revision {
                "same revision".into()
            } else {
                format!("revision {} → {}", old.planned.revision, want.revision)
            };
            let what = format!("{why}: exchange of {}, {} at a time", replicas(stale), want.parallelism);
            note(ChangeKind::Update, what, want.update_impact());
        }
    }
}

impl Want<'_> {
    pub(super) fn starts_first(&self) -> bool {
        self.service.deploy.update.order == standfast_model::UpdateOrder::StartFirst
    }

    /// How many replicas above the wanted number may be there in an update.
    pub(super) fn surge(&self) -> usize {
        if self.starts_first() { self.parallelism } else { 0 }
    }

    fn update_impact(&self) -> String {
        if self.starts_first() {
            "no request is refused: each old replica serves until a new one is ready".into()
        } else {
            format!("up to {} of {} replicas are missing at a time", self.parallelism, self.count)
        }
    }
}

/// All services that are wanted, planned or remembered, by name.
pub(super) fn all<'a>(world: &World<'a>, parent: &'a Blueprint, occasion: &Occasion) -> Vec<Group<'a>> {
    let wanted = world.policy.stack().map(|stack| &stack.services);
    let mut names: BTreeSet<&ServiceName> = wanted.into_iter().flat_map(|services| services.keys()).collect();
    names.extend(parent.services.keys());
    let mut planned_of: BTreeMap<&ServiceName, Vec<&'a Arc<PlannedReplica>>> = BTreeMap::new();
    let planned: Vec<&Arc<PlannedReplica>> = parent.replicas.values().collect();
    for run in planned.chunk_by(|a, b| a.instance.replica.service == b.instance.replica.service) {
        let name = &run[0].instance.replica.service;
        names.insert(name);
        planned_of.insert(name, run.to_vec());
    }
    names
        .into_iter()
        .map(|name| {
            let planned = planned_of.get(name).map(Vec::as_slice).unwrap_or_default();
            one(world, parent, name, planned, occasion)
        })
        .collect()
}

fn one<'a>(
    world: &World<'a>,
    parent: &Blueprint,
    name: &'a ServiceName,
    planned: &[&Arc<PlannedReplica>],
    occasion: &Occasion,
) -> Group<'a> {
    let seen = world.seen_of(name);
    let want = want_of(world.policy, name);
    let mut ledger = parent.services.get(name).cloned().unwrap_or_else(|| ServiceLedger {
        attempts_floor: parent.attempts_floor,
        ..ServiceLedger::default()
    });
    let whole = occasion.restarts.contains(&RestartTarget::Service(name.clone()));
    let is_marked = |id: &ReplicaId| whole || occasion.restarts.contains(&RestartTarget::Replica(id.clone()));
    let members: Vec<Member> = planned
        .iter()
        .map(|planned| {
            let found = seen.binary_search_by_key(&key(&planned.instance), |seen| key(&seen.instance));
            let mut planned = Arc::clone(planned);
            let may_be_marked =
                !occasion.restarts.is_empty() && !matches!(planned.intent, PlannedIntent::Drain { .. });
            if may_be_marked && !planned.replace && is_marked(&planned.instance.replica) {
                Arc::make_mut(&mut planned).replace = true;
            }
            let condition = world.condition_of(&planned, found.ok().map(|index| seen[index]));
            let is_current = is_current(world, want.as_ref(), &planned);
            Member { planned, condition, is_current }
        })
        .collect();
    let (mut leaving, mut has_strangers) = (0, false);
    for seen in seen {
        let slot = planned
            .binary_search_by_key(&seen.instance.replica.slot, |planned| planned.instance.replica.slot);
        let known = slot.map_or(ledger.attempts_floor, |index| planned[index].instance.attempt);
        leaving += usize::from(!seen.has_exited() && (slot.is_err() || known != seen.instance.attempt));
        if seen.instance.attempt > known {
            has_strangers = true;
            ledger.attempts_floor = ledger.attempts_floor.max(seen.instance.attempt);
        }
    }
    Group { name, want, ledger, members, leaving, has_strangers }
}

fn want_of<'a>(policy: &'a Policy, name: &ServiceName) -> Option<Want<'a>> {
    let service = policy.stack()?.services.get(name)?;
    let (revision, _) = policy.launch(name)?;
    Some(Want {
        service,
        revision,
        count: service.deploy.replicas as usize,
        parallelism: service.deploy.update.parallelism.max(1) as usize,
    })
}

pub(super) fn is_current(world: &World<'_>, want: Option<&Want<'_>>, planned: &PlannedReplica) -> bool {
    let is_in_place = matches!(planned.intent, PlannedIntent::Ended(_)) || world.is_declared(&planned.zone);
    want.is_some_and(|want| planned.revision == *want.revision) && !planned.replace && is_in_place
}

fn is_lost(seen: &Inventory, zone: &ZoneName) -> bool {
    seen.zones.get(zone).is_some_and(|state| !state.available)
}

/// "1 replica", "2 replicas".
pub(super) fn replicas(count: usize) -> String {
    if count == 1 { "1 replica".into() } else { format!("{count} replicas") }
}

/// Within one service.
const fn key(instance: &Instance) -> (u32, u64) {
    (instance.replica.slot, instance.attempt)
}

/// The last lines of output, within the limits of what is kept.
fn shortened(lines: &[String]) -> Vec<String> {
    let from = lines.len().saturating_sub(OUTPUT_LINES_MAX);
    lines[from..].iter().map(|line| line.chars().take(OUTPUT_CHARS_MAX).collect()).collect()
}
