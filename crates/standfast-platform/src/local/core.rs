//! What all parts of one agent share: its state, its seams, and how a change becomes visible and durable.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use standfast_model::{Instance, Stamp};
use standfast_runtime::{Clock, Disk, Net, Rng, Tasks};
use tokio::sync::{Notify, watch};

use super::api::AgentInfo;
use super::cgroup::ControlGroups;
use super::config::{AgentConfig, StateDir};
use super::ledger::{Ledger, LedgerError, Written};
use super::logs::Logs;
use super::procfs::ProcessId;
use super::state::{Held, State};

/// One running agent. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Core(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: AgentConfig,
    state_dir: StateDir,
    fingerprint: String,
    boot: String,
    own: ProcessId,
    since: Stamp,
    seams: Seams,
    tasks: Tasks,
    logs: Logs,
    groups: ControlGroups,
    state: Mutex<State>,
    rng: Mutex<Rng>,
    /// The number of the present inventory. It begins at the agent's start in microseconds, so that a successor's
    /// numbers are higher.
    changes: watch::Sender<u64>,
    ledger_changes: watch::Sender<u64>,
    written: watch::Sender<Written>,
    keeper: Notify,
    faults: Notify,
    /// Replicas and the node whose end has not been dealt with to the last.
    supervised: watch::Sender<usize>,
    down: watch::Sender<Down>,
}

/// The way to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Down {
    /// Not asked for.
    No,
    /// Asked for.
    Asked,
    /// So many replicas were stopped; nothing is left.
    Done(usize),
}

/// Time, network and disk.
#[derive(Debug, Clone)]
pub(crate) struct Seams {
    pub(crate) clock: Clock,
    pub(crate) net: Net,
    pub(crate) disk: Arc<dyn Disk>,
}

/// What a [`Core`] is made of.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) config: AgentConfig,
    pub(crate) fingerprint: String,
    pub(crate) boot: String,
    pub(crate) own: ProcessId,
    pub(crate) seams: Seams,
    pub(crate) logs: Logs,
    pub(crate) groups: ControlGroups,
    pub(crate) state: State,
    pub(crate) rng: Rng,
}

impl Core {
    pub(crate) fn new(parts: Parts) -> Self {
        let since = parts.seams.clock.now();
        Self(Arc::new(Inner {
            state_dir: StateDir::new(&parts.config.state_dir),
            config: parts.config,
            fingerprint: parts.fingerprint,
            boot: parts.boot,
            own: parts.own,
            since,
            seams: parts.seams,
            tasks: Tasks::new(),
            logs: parts.logs,
            groups: parts.groups,
            state: Mutex::new(parts.state),
            rng: Mutex::new(parts.rng),
            changes: watch::Sender::new(since.as_micros()),
            ledger_changes: watch::Sender::new(1),
            written: watch::Sender::default(),
            keeper: Notify::new(),
            faults: Notify::new(),
            supervised: watch::Sender::new(0),
            down: watch::Sender::new(Down::No),
        }))
    }

    pub(crate) fn config(&self) -> &AgentConfig {
        &self.0.config
    }

    pub(crate) fn state_dir(&self) -> &StateDir {
        &self.0.state_dir
    }

    pub(crate) fn fingerprint(&self) -> &str {
        &self.0.fingerprint
    }

    pub(crate) fn clock(&self) -> Clock {
        self.0.seams.clock
    }

    pub(crate) async fn sleep(&self, pause: Duration) {
        self.clock().sleep(pause).await;
    }

    pub(crate) fn net(&self) -> Net {
        self.0.seams.net
    }

    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.0.seams.disk)
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    pub(crate) fn logs(&self) -> &Logs {
        &self.0.logs
    }

    pub(crate) fn groups(&self) -> &ControlGroups {
        &self.0.groups
    }

    pub(crate) fn jitter(&self) -> f64 {
        self.0.rng.lock().unwrap_or_else(PoisonError::into_inner).fraction()
    }

    /// The mark that all processes of an instance carry.
    pub(crate) fn mark(&self, instance: &Instance, generation: standfast_model::Generation) -> String {
        format!("{}/{instance}/{generation}/{}", self.0.config.stack, self.0.fingerprint)
    }

    /// Reads the state. Keep it short: everything waits for this lock.
    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state; `change` says whether the inventory differs by it. The ledger follows. The number returned
    /// can be waited for with [`Core::durable`].
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> (T, bool)) -> (T, u64) {
        let mut state = self.state();
        let (value, is_visible) = change(&mut state);
        // Numbered under the lock: whoever writes this number or a later one has the change in what it writes.
        let mut number = 0;
        self.0.ledger_changes.send_modify(|changes| {
            *changes += 1;
            number = *changes;
        });
        drop(state);
        if is_visible {
            self.0.changes.send_modify(|change| *change += 1);
        }
        (value, number)
    }

    /// Changes the state in a way that often changes nothing: then nobody is woken and nothing is written. `change`
    /// says whether it did.
    pub(crate) fn change_if<T>(&self, change: impl FnOnce(&mut State) -> (T, bool)) -> (T, u64) {
        let mut state = self.state();
        let (value, is_changed) = change(&mut state);
        if !is_changed {
            return (value, *self.0.ledger_changes.borrow());
        }
        drop(state);
        let ((), number) = self.change(|_| ((), true));
        (value, number)
    }

    /// Changes one held instance, visibly; `None` when it is not held any more.
    pub(crate) fn change_held<T>(
        &self,
        instance: &Instance,
        change: impl FnOnce(&mut Held) -> T,
    ) -> Option<T> {
        self.change(|state| {
            let value = state.held.get_mut(instance).map(change);
            let is_visible = value.is_some();
            (value, is_visible)
        })
        .0
    }

    /// Waits until a change is on disk.
    pub(crate) async fn durable(&self, number: u64) -> Result<(), LedgerError> {
        let mut written = self.0.written.subscribe();
        match written.wait_for(|written| written.durable >= number || written.tried >= number).await {
            Ok(written) if written.durable >= number => Ok(()),
            Ok(written) => Err(LedgerError(written.error.clone().unwrap_or_default())),
            Err(_) => Err(LedgerError("the agent ends".into())),
        }
    }

    pub(crate) fn ledger_changes(&self) -> watch::Receiver<u64> {
        self.0.ledger_changes.subscribe()
    }

    pub(crate) fn ledger_now(&self) -> Ledger {
        Ledger::of(&self.state(), &self.0.boot, &self.0.fingerprint)
    }

    pub(crate) fn ledger_was_written(&self, upto: u64, error: Option<String>) {
        let mut state = self.state();
        let is_news = state.ledger_trouble.is_some() != error.is_some();
        state.ledger_trouble.clone_from(&error);
        drop(state);
        self.0.written.send_modify(|written| {
            written.tried = upto;
            if error.is_none() {
                written.durable = upto;
            }
            written.error = error;
        });
        if is_news {
            self.0.changes.send_modify(|change| *change += 1);
        }
    }

    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changes.subscribe()
    }

    /// The keeper looks again.
    pub(crate) fn wake_keeper(&self) {
        self.0.keeper.notify_one();
    }

    pub(crate) async fn keeper_woken(&self) {
        self.0.keeper.notified().await;
    }

    /// The faults' ends are looked at again.
    pub(crate) fn wake_faults(&self) {
        self.0.faults.notify_one();
    }

    pub(crate) async fn faults_woken(&self) {
        self.0.faults.notified().await;
    }

    /// Counts a process as supervised until the guard is dropped.
    pub(crate) fn supervise(&self) -> Supervised {
        self.0.supervised.send_modify(|count| *count += 1);
        Supervised(self.clone())
    }

    /// Waits until no process is supervised any more.
    pub(crate) async fn none_supervised(&self, limit: Duration) {
        let mut supervised = self.0.supervised.subscribe();
        let none = supervised.wait_for(|count| *count == 0);
        if self.clock().timeout(limit, none).await.is_err() {
            tracing::error!("some replicas did not end in time");
        }
    }

    /// The lease runs anew from now.
    pub(crate) fn renew_lease(&self) {
        let until = self.0.config.lease_ttl.map(|ttl| self.0.seams.clock.now().plus(ttl));
        self.state().lease_until = until;
    }

    pub(crate) fn ask_down(&self) {
        self.0.down.send_if_modified(|down| {
            let is_new = *down == Down::No;
            if is_new {
                *down = Down::Asked;
            }
            is_new
        });
    }

    pub(crate) fn down(&self) -> watch::Receiver<Down> {
        self.0.down.subscribe()
    }

    pub(crate) fn down_is_done(&self, stopped: usize) {
        self.0.down.send_replace(Down::Done(stopped));
    }

    pub(crate) fn info(&self) -> AgentInfo {
        let state = self.state();
        AgentInfo {
            process: self.0.own,
            since: self.0.since,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stack: self.0.config.stack.clone(),
            state_dir: PathBuf::from(self.0.state_dir.root()),
            fingerprint: self.0.fingerprint.clone(),
            generation: state.wanted.generation,
            node: state.node.info,
            faults_allowed: self.0.config.faults_allowed,
            lease_until: state.lease_until,
            going_down: state.going_down,
            limitations: state.all_limitations(),
        }
    }
}

/// A process that is supervised.
#[derive(Debug)]
pub(crate) struct Supervised(Core);

impl Drop for Supervised {
    fn drop(&mut self) {
        self.0.0.supervised.send_modify(|count| *count -= 1);
    }
}
