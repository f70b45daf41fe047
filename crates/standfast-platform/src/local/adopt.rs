//! Going on where a killed agent stopped: what the ledger says is compared with what `/proc` shows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use standfast_model::{Instance, Stamp};
use standfast_runtime::OnStop;
use tokio::sync::watch;

use super::address::Ports;
use super::api::FaultKind;
use super::config::AgentConfig;
use super::core::Core;
use super::doubt::Doubt;
use super::ledger::{self, Ledger, ReplicaRecord};
use super::listeners;
use super::node;
use super::process::{self, Process};
use super::procfs::{self, Marked, ProcessId};
use super::state::{Held, HeldNode, State};
use super::supervise;
use crate::decide::Life;
use crate::{ExitReason, Launch, ReplicaState, Wanted};

/// A process that was being started when the agent was killed shows its mark after a moment.
const LATE_MARK: Duration = Duration::from_millis(50);

impl Ledger {
    /// The ledger of a folder that was copied or moved: the processes in it belong to where it was.
    pub(crate) fn without_processes(mut self) -> Self {
        self.replicas.clear();
        self.listeners.clear();
        self.node = None;
        self
    }
}

/// The state that a ledger describes, before anybody has looked at what still runs.
pub(crate) fn state_of(ledger: Option<Ledger>, config: &AgentConfig, chance: u64, now: Stamp) -> State {
    let mut state = State {
        zones: config.zones.clone(),
        wanted: Wanted::default(),
        launches: BTreeMap::new(),
        held: BTreeMap::new(),
        waiting: BTreeMap::new(),
        listeners: BTreeMap::new(),
        node: HeldNode { info: None, started: 0 },
        faults: BTreeMap::new(),
        lease_until: None,
        going_down: false,
        ports: Ports::starting_at(ledger.as_ref().map_or(chance, |ledger| ledger.ports)),
        limitations: BTreeSet::new(),
        localhost_only: BTreeSet::new(),
        doubt: Doubt::default(),
        ledger_trouble: None,
    };
    let Some(ledger) = ledger else { return state };
    let is_this_boot = ledger.boot == procfs::boot_id();
    // Zones keep their numbers; those that the configuration names for the first time come after.
    let new_zones = std::mem::replace(&mut state.zones, ledger.zones);
    for zone in new_zones {
        if !state.zones.contains(&zone) {
            state.zones.push(zone);
        }
    }
    state.launches.extend(ledger.old_launches);
    state.take(ledger.wanted);
    for record in ledger.replicas {
        if let Some(launch) = state.launches.get(&record.revision).cloned() {
            let process = record.process.filter(|_| is_this_boot);
            state.held.insert(record.instance.clone(), held(record, process, launch));
        }
    }
    state.listeners = listeners::expected(ledger.listeners);
    state.node = HeldNode { info: ledger.node.filter(|_| is_this_boot), started: ledger.nodes_started };
    for mut record in ledger.faults {
        if matches!(record.order.kind, FaultKind::KillInstance { .. }) {
            record.ended.get_or_insert(now);
        }
        state.faults.insert(record.order.id.clone(), record);
    }
    state.going_down = ledger.going_down;
    state
}

fn held(record: ReplicaRecord, process: Option<ProcessId>, launch: Arc<Launch>) -> Held {
    let is_stopping = matches!(record.state, ReplicaState::Stopping { .. });
    Held {
        revision: record.revision,
        zone: record.zone,
        generation: record.generation,
        launch,
        address: record.address,
        process,
        state: record.state,
        served: record.served,
        is_silent: false,
        stop: watch::Sender::new(is_stopping),
    }
}

/// Adopts what lives and is in the ledger, notes what has ended meanwhile, and kills what carries our mark but is not
/// in the ledger. Returns the node, if it lives.
pub(crate) async fn everything(core: &Core) -> Option<Process> {
    core.tasks().spawn("ledger", OnStop::Abort, ledger::write_changes(core.clone()));
    let mut found = scan(core).await;
    let is_in_doubt =
        core.state().held.values().any(|held| held.process.is_none() && held.life() != Life::Ended);
    if is_in_doubt {
        core.clock().sleep(LATE_MARK).await;
        found = scan(core).await;
    }
    let live: Vec<Instance> = {
        let state = core.state();
        state
            .held
            .iter()
            .filter(|(_, held)| held.life() != Life::Ended)
            .map(|(instance, _)| instance.clone())
            .collect()
    };
    let mut kept = BTreeSet::new();
    for instance in live {
        if let Some(mark) = adopt(core, &instance, &found) {
            kept.insert(mark);
        }
    }
    let node = adopt_node(core);
    if node.is_some() {
        kept.insert(node::mark(core, core.state().node.started));
    }
    remove_strays(core, &found, &kept).await;
    node
}

async fn scan(core: &Core) -> Vec<Marked> {
    let suffix = format!("/{}", core.fingerprint());
    tokio::task::spawn_blocking(move || procfs::marked(&suffix)).await.unwrap_or_default()
}

/// Goes on supervising an instance, or notes its end. Returns its mark when it lives.
fn adopt(core: &Core, instance: &Instance, found: &[Marked]) -> Option<String> {
    let (process, generation) = {
        let state = core.state();
        let held = state.held.get(instance)?;
        (held.process, held.generation)
    };
    let mark = core.mark(instance, generation);
    // Number and start time are enough: programs may overwrite their environment. Without them the mark tells, and the
    // group's leader is it.
    let process = process
        .or_else(|| found.iter().find(|one| one.mark == mark && one.group == one.id.pid).map(|one| one.id));
    let adopted = process.and_then(|id| match Process::adopt(id) {
        Ok(adopted) => adopted,
        Err(error) => {
            tracing::error!(%error, %instance, "a replica cannot be watched");
            None
        }
    });
    let Some(process) = adopted else {
        tracing::warn!(%instance, "a replica ended while there was no agent");
        let now = core.clock().now();
        let last = core.logs().last_lines(&instance.to_string(), now);
        core.change_held(instance, |held| {
            let was_asked = matches!(held.state, ReplicaState::Stopping { .. });
            let reason = if was_asked { ExitReason::Stopped } else { ExitReason::Unknown };
            held.turn_exited(now, reason, last);
        });
        return None;
    };
    tracing::info!(%instance, pid = process.id().pid, "a replica is adopted");
    core.change_held(instance, |held| held.process = Some(process.id()));
    let supervised = core.supervise();
    core.tasks().spawn(
        "replica",
        OnStop::Abort,
        supervise::replica(core.clone(), instance.clone(), process, supervised),
    );
    Some(mark)
}

fn adopt_node(core: &Core) -> Option<Process> {
    let info = core.state().node.info?;
    let process = Process::adopt(info.process).ok().flatten();
    if process.is_none() {
        core.change(|state| (state.node.info.take(), false));
    }
    process
}

/// Kills processes with our fingerprint that nothing in the ledger accounts for, older attempts among them, and clears
/// what they left.
async fn remove_strays(core: &Core, found: &[Marked], kept: &BTreeSet<String>) {
    let strays: BTreeSet<&String> =
        found.iter().map(|one| &one.mark).filter(|mark| !kept.contains(*mark)).collect();
    for mark in strays {
        tracing::warn!(mark, "processes that the ledger does not have are killed");
        process::sweep(mark.clone()).await;
    }
    // `<stack>/<instance>/<generation>/<fingerprint>`: what stands second is the writer of spools and the name of
    // groups.
    let live: BTreeSet<String> =
        kept.iter().filter_map(|mark| mark.split('/').nth(1)).map(str::to_owned).collect();
    let core = core.clone();
    let tidied = tokio::task::spawn_blocking(move || {
        for name in core.groups().names().into_iter().filter(|name| !live.contains(name)) {
            core.groups().of(&name).kill_and_remove(core.clock());
        }
        for writer in core.logs().strays(&live) {
            core.logs().close(&writer, core.clock().now());
        }
    });
    if let Err(error) = tidied.await {
        tracing::error!(%error, "clearing up after a predecessor failed");
    }
}
