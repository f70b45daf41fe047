//! Faults: recorded before they are done, ended by the agent itself at their time, and judged by what `/proc` says
//! rather than by what was done.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::{Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use standfast_model::{Instance, Stamp, ZoneName};

use super::api::{FAULT_LIFE_MAX, FaultKind, FaultOrder, FaultSeen, FaultTarget};
use super::core::Core;
use super::procfs::{self, ProcessId};
use super::state::State;
use crate::decide::Life;

/// A signal's effect shows within microseconds; a loaded machine gets this long.
const EFFECT_WITHIN: Duration = Duration::from_secs(2);
const EFFECT_GAP: Duration = Duration::from_millis(1);
/// Ended faults that are remembered.
const ENDED_MAX: usize = 256;
/// With no fault to end, the next look.
const IDLE: Duration = Duration::from_secs(3_600);

/// A fault in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FaultRecord {
    pub(crate) order: FaultOrder,
    pub(crate) since: Stamp,
    pub(crate) ended: Option<Stamp>,
    pub(crate) targets: Vec<FaultTarget>,
    /// Replicas whose start was refused since the zone is lost.
    pub(crate) refused: BTreeSet<Instance>,
    /// Recorded only: a planted bug.
    pub(crate) is_inert: bool,
}

/// Why a fault was not injected or healed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FaultError {
    #[error("faults are not allowed here: start the stack with faults allowed")]
    Forbidden,
    #[error("{0}")]
    Malformed(String),
    #[error("{0}")]
    NotFound(String),
    #[error("another fault has the id `{0}`")]
    Conflict(String),
    #[error(transparent)]
    Ledger(#[from] super::ledger::LedgerError),
}

impl FaultRecord {
    /// The zone that this fault takes away now.
    pub(crate) fn lost_zone(&self) -> Option<&ZoneName> {
        match &self.order.kind {
            FaultKind::LoseZone { zone } if self.ended.is_none() && !self.is_inert => Some(zone),
            _ => None,
        }
    }

    pub(crate) fn count_refusal(&mut self, zone: &ZoneName, instance: &Instance) {
        if self.lost_zone() == Some(zone) && !self.refused.contains(instance) {
            self.refused.insert(instance.clone());
        }
    }

    fn signal(&self) -> Signal {
        match self.order.kind {
            FaultKind::FreezeInstance { .. } => Signal::STOP,
            FaultKind::KillInstance { .. } | FaultKind::LoseZone { .. } => Signal::KILL,
        }
    }

    /// Whether a target shows the effect now.
    fn shows_on(&self, process: ProcessId) -> bool {
        match self.order.kind {
            FaultKind::FreezeInstance { .. } => matches!(process.state(), Some('T' | 't')),
            FaultKind::KillInstance { .. } | FaultKind::LoseZone { .. } => !process.is_alive(),
        }
    }

    /// Notes on which targets the effect shows for the first time. Says whether it has shown on all.
    fn look(&mut self, now: Stamp) -> bool {
        let shown: Vec<bool> = self.targets.iter().map(|target| self.shows_on(target.process)).collect();
        for (target, shows) in self.targets.iter_mut().zip(shown) {
            if shows && target.hit.is_none() && self.ended.is_none() {
                target.hit = Some(now);
            }
        }
        self.targets.iter().all(|target| target.hit.is_some())
    }
}

/// Injects a fault, or says how it is when it is there already.
pub(crate) async fn inject(core: &Core, order: FaultOrder) -> Result<FaultSeen, FaultError> {
    let now = core.clock().now();
    check(core, &order, now)?;
    let id = order.id.clone();
    let existing = core.state().faults.get(&id).cloned();
    if let Some(record) = existing {
        return if record.order == order { Ok(seen(core, record)) } else { Err(FaultError::Conflict(id)) };
    }
    let is_inert = is_inert(core);
    let (recorded, number) = core.change(|state| {
        let recorded = targets(state, &order.kind).map(|targets| {
            let record =
                FaultRecord { order, since: now, ended: None, targets, refused: BTreeSet::new(), is_inert };
            forget_old(state);
            state.faults.insert(id.clone(), record);
        });
        let is_visible = recorded.is_ok();
        (recorded, is_visible)
    });
    recorded?;
    if let Err(error) = core.durable(number).await {
        core.change(|state| (state.faults.remove(&id), true));
        return Err(error.into());
    }
    let number = carry_out(core, &id).await;
    core.wake_faults();
    core.wake_keeper();
    // What was seen must be known after a crash too. If it cannot be written, the fault is done all the same, and its
    // end is in the ledger.
    let _done_all_the_same = core.durable(number).await;
    verify(core, &id)
}

fn check(core: &Core, order: &FaultOrder, now: Stamp) -> Result<(), FaultError> {
    let is_name = |id: &str| {
        (1..=100).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    if !core.config().faults_allowed {
        return Err(FaultError::Forbidden);
    }
    if !is_name(&order.id) {
        return Err(FaultError::Malformed(format!(
            "`{}` is not an id: use 1 to 100 of a-z, 0-9, `-`, `_`, `.`",
            order.id
        )));
    }
    if order.until.since(now) > FAULT_LIFE_MAX {
        return Err(FaultError::Malformed(format!("a fault may last {FAULT_LIFE_MAX:?} at most")));
    }
    Ok(())
}

fn is_inert(core: &Core) -> bool {
    #[cfg(feature = "planted-bugs")]
    {
        core.config().has_planted(super::config::PlantedBug::FaultDoesNothing)
    }
    #[cfg(not(feature = "planted-bugs"))]
    {
        let _ = core;
        false
    }
}

/// The processes that a fault is for.
fn targets(state: &State, kind: &FaultKind) -> Result<Vec<FaultTarget>, FaultError> {
    let live = state.held.iter().filter(|(_, held)| held.life() != Life::Ended);
    let target = |(instance, held): (&Instance, &super::state::Held)| {
        held.process.map(|process| FaultTarget { instance: instance.clone(), process, hit: None })
    };
    match kind {
        FaultKind::KillInstance { instance } | FaultKind::FreezeInstance { instance } => {
            let found: Vec<_> = live.filter(|(held, _)| *held == instance).filter_map(target).collect();
            if found.is_empty() {
                Err(FaultError::NotFound(format!("{instance} does not run")))
            } else {
                Ok(found)
            }
        }
        FaultKind::LoseZone { zone } if !state.zones.contains(zone) => {
            Err(FaultError::NotFound(format!("there is no zone `{zone}`")))
        }
        FaultKind::LoseZone { zone } => {
            Ok(live.filter(|(_, held)| held.zone == *zone).filter_map(target).collect())
        }
    }
}

/// Sends the signals and waits until they show, for a moment. A kill is over with that. Returns the change's number.
async fn carry_out(core: &Core, id: &str) -> u64 {
    let Some(record) = core.state().faults.get(id).cloned() else { return 0 };
    if !record.is_inert {
        record.targets.iter().for_each(|target| signal(target.process, record.signal()));
    }
    let deadline = core.clock().now().plus(if record.is_inert { Duration::ZERO } else { EFFECT_WITHIN });
    loop {
        let now = core.clock().now();
        let is_shown = core.state().faults.get_mut(id).is_none_or(|record| record.look(now));
        if is_shown || now >= deadline {
            break;
        }
        core.clock().sleep(EFFECT_GAP).await;
    }
    let now = core.clock().now();
    core.change(|state| {
        if let Some(record) = state.faults.get_mut(id).filter(|record| is_one_shot(&record.order.kind)) {
            record.ended.get_or_insert(now);
        }
        ((), true)
    })
    .1
}

const fn is_one_shot(kind: &FaultKind) -> bool {
    matches!(kind, FaultKind::KillInstance { .. })
}

/// Signals the group of a process, if it is still that process.
fn signal(process: ProcessId, signal: Signal) {
    if process.is_alive()
        && let Some(group) = procfs::pid_of(process.pid)
    {
        let _it_may_have_ended_just_now = kill_process_group(group, signal);
    }
}

/// Looks at a fault anew.
pub(crate) fn verify(core: &Core, id: &str) -> Result<FaultSeen, FaultError> {
    let now = core.clock().now();
    let record = core.state().faults.get_mut(id).map(|record| {
        record.look(now);
        record.clone()
    });
    record
        .map(|record| seen(core, record))
        .ok_or_else(|| FaultError::NotFound(format!("there is no fault `{id}`")))
}

/// Looks at all faults anew.
pub(crate) fn all(core: &Core) -> Vec<FaultSeen> {
    let ids: Vec<String> = core.state().faults.keys().cloned().collect();
    ids.iter().filter_map(|id| verify(core, id).ok()).collect()
}

fn seen(core: &Core, record: FaultRecord) -> FaultSeen {
    let mut evidence: Vec<String> = record.targets.iter().map(|target| sentence(&record, target)).collect();
    let mut bit = !record.targets.is_empty() && record.targets.iter().all(|target| target.hit.is_some());
    if let FaultKind::LoseZone { zone } = &record.order.kind {
        let state = core.state();
        let living = state.held.values().filter(|held| held.zone == *zone);
        let living = living.filter(|held| held.process.is_some_and(ProcessId::is_alive)).count();
        let is_refused = state.lost_zones().contains(zone);
        evidence.push(format!("{living} processes live in zone `{zone}`"));
        evidence.push(format!("starts are {}refused there", if is_refused { "" } else { "not " }));
        let hits = record.targets.iter().all(|target| target.hit.is_some());
        // Once it ended, replicas may live there again: what was hit then is what counts.
        bit = if record.ended.is_some() { bit } else { hits && living == 0 && is_refused };
    }
    FaultSeen {
        starts_refused: record.refused.len() as u64,
        order: record.order,
        since: record.since,
        ended: record.ended,
        targets: record.targets,
        bit,
        evidence,
    }
}

fn sentence(record: &FaultRecord, target: &FaultTarget) -> String {
    let FaultTarget { instance, process, hit } = target;
    let now = match process.state() {
        None | Some('Z' | 'X') => "gone".to_owned(),
        Some(state) => format!("in state {state}"),
    };
    match (hit, &record.order.kind) {
        (Some(_), FaultKind::FreezeInstance { .. }) => {
            format!("process {} of {instance} was seen stopped; it is {now}", process.pid)
        }
        (Some(_), _) => format!("process {} of {instance} is gone", process.pid),
        (None, _) => format!("process {} of {instance} is {now}: the fault does not show on it", process.pid),
    }
}

/// Ends a fault and undoes what it did.
pub(crate) async fn heal(core: &Core, id: &str) -> Result<FaultSeen, FaultError> {
    let record = core.state().faults.get(id).cloned();
    let record = record.ok_or_else(|| FaultError::NotFound(format!("there is no fault `{id}`")))?;
    if record.ended.is_none() {
        if matches!(record.order.kind, FaultKind::FreezeInstance { .. }) {
            thaw(core, &record).await;
        }
        let now = core.clock().now();
        let (_, number) = core.change(|state| {
            if let Some(record) = state.faults.get_mut(id) {
                record.look(now);
                record.ended = Some(now);
            }
            ((), true)
        });
        core.wake_keeper();
        core.durable(number).await?;
    }
    verify(core, id)
}

async fn thaw(core: &Core, record: &FaultRecord) {
    let deadline = core.clock().now().plus(EFFECT_WITHIN);
    for target in &record.targets {
        signal(target.process, Signal::CONT);
        while record.shows_on(target.process) && core.clock().now() < deadline {
            core.clock().sleep(EFFECT_GAP).await;
        }
    }
}

/// Ends all faults, at the agent's own end.
pub(crate) async fn heal_all(core: &Core) {
    let active: Vec<String> = {
        let state = core.state();
        state.faults.iter().filter(|(_, record)| record.ended.is_none()).map(|(id, _)| id.clone()).collect()
    };
    for id in active {
        if let Err(error) = heal(core, &id).await {
            tracing::error!(%error, fault = id, "a fault could not be ended");
        }
    }
}

/// Ends each fault at its time.
pub(crate) async fn end_in_time(core: Core) {
    loop {
        let next = {
            let state = core.state();
            let active = state.faults.iter().filter(|(_, record)| record.ended.is_none());
            active.map(|(id, record)| (record.order.until, id.clone())).min()
        };
        let now = core.clock().now();
        if let Some((_, id)) = next.as_ref().filter(|(until, _)| *until <= now) {
            if let Err(error) = heal(&core, id).await {
                tracing::error!(%error, fault = id, "a fault's end could not be written down");
            }
            continue;
        }
        let pause = next.map_or(IDLE, |(until, _)| until.since(now).min(IDLE));
        tokio::select! {
            biased;
            () = core.faults_woken() => {}
            () = core.sleep(pause) => {}
        }
    }
}

/// Makes room for another fault among the ended ones.
fn forget_old(state: &mut State) {
    let mut ended: Vec<(Stamp, String)> =
        state.faults.iter().filter_map(|(id, record)| record.ended.map(|at| (at, id.clone()))).collect();
    ended.sort();
    for (_, id) in ended.iter().take((ended.len() + 1).saturating_sub(ENDED_MAX)) {
        state.faults.remove(id);
    }
}
