use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use standfast_model::Stamp;
use standfast_runtime::http::{Listener, ServerLimits, serve};
use standfast_runtime::{Clock, Disk, Net, OnStop, Rng};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};

use super::adopt;
use super::cgroup::ControlGroups;
use super::client::reachable;
use super::config::{AgentConfig, STATE_VERSION, StateDir};
use super::core::{Core, Down, Parts, Seams};
use super::faults;
use super::keeper;
use super::ledger::Ledger;
use super::listeners::Listeners;
use super::logs::{Logs, News};
use super::node;
use super::procfs::{self, ProcessId};
use super::server;
use crate::{ReplicaState, Wanted};

/// How long a new agent waits for the lock: a killed one's is free once the kernel has cleared it away.
const LOCK_WITHIN: Duration = Duration::from_secs(1);
const LOCK_GAP: Duration = Duration::from_millis(5);
/// Output is read in batches, at most so often.
const COLLECT_GAP: Duration = Duration::from_millis(50);
/// How often the spools are looked at where nothing tells of writes, and where something does.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOOK_ANYWAY_EVERY: Duration = Duration::from_secs(10);
/// How often old log files are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// How long the end of supervision may take beyond the longest grace period.
const END_MARGIN: Duration = Duration::from_secs(20);
/// How long open requests and tasks may go on at the end.
const DRAIN_MAX: Duration = Duration::from_secs(2);

/// Why an agent could not run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another agent has the state folder: attach to it.
    #[error("an agent runs already for `{}`{}", state_dir.display(), process.map(|id| format!(" (process {})", id.pid)).unwrap_or_default())]
    AlreadyRunning {
        /// The folder.
        state_dir: PathBuf,
        /// The agent, when it could be told.
        process: Option<ProcessId>,
    },
    /// The state folder has another format.
    #[error("`{}` has state of format {found}; this program reads {STATE_VERSION}", state_dir.display())]
    OtherVersion {
        /// The folder.
        state_dir: PathBuf,
        /// Its format.
        found: String,
    },
    /// The ledger cannot be understood.
    #[error("the ledger `{}` cannot be read", path.display())]
    Ledger {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The operating system refused.
    #[error("cannot {doing} `{}`", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The agent: owns replicas and listening sockets, and keeps the node alive.
#[derive(Debug, Clone, Copy)]
pub struct Agent(());

impl Agent {
    /// Runs an agent until it has taken everything down: when asked to, by SIGTERM or SIGINT, or since its lease ran
    /// out.
    ///
    /// It goes on where an agent that was killed stopped. A runtime with one thread is enough and takes the least
    /// memory.
    ///
    /// # Errors
    /// See [`RunError`].
    ///
    /// # Cancellation
    /// Dropping it is like killing the agent: replicas run on, and the next agent adopts them.
    pub async fn run(
        config: AgentConfig,
        clock: Clock,
        net: Net,
        disk: Arc<dyn Disk>,
    ) -> Result<(), RunError> {
        // A session of its own, so that the terminal's end is not ours. Refused to a group's leader, which has its
        // terminal for a reason.
        let _it_may_be_a_leader = rustix::process::setsid();
        let state_dir = StateDir::new(&config.state_dir);
        prepare_folder(&state_dir)?;
        let lock = take_lock(&state_dir, clock).await?;
        check_version(&state_dir, disk.as_ref())?;
        let core = build(config, &state_dir, Seams { clock, net, disk })?;
        let adopted_node = adopt::everything(&core).await;
        let listeners = Arc::new(Listeners::new(core.clone(), adopted_node.is_some()));
        let sockets = (bind(&state_dir.socket())?, bind(&state_dir.sockets())?);
        start_tasks(&core, &listeners, sockets);
        if core.state().going_down {
            core.ask_down();
        }
        if let Some(command) = core.config().node_command.clone() {
            core.tasks().spawn("node", OnStop::Wait, node::keep(core.clone(), command, adopted_node));
        }
        tracing::info!(state_dir = %state_dir.root().display(), "the agent is up");
        until_down(&core).await;
        take_down(&core, lock).await;
        Ok(())
    }
}

fn io_error<'a>(
    doing: &'static str,
    path: &'a std::path::Path,
) -> impl FnOnce(io::Error) -> RunError + use<'a> {
    move |source| RunError::Io { doing, path: path.to_path_buf(), source }
}

fn prepare_folder(state_dir: &StateDir) -> Result<(), RunError> {
    let root = state_dir.root();
    fs::create_dir_all(root).map_err(io_error("make the state folder", root))?;
    fs::set_permissions(root, fs::Permissions::from_mode(0o700))
        .map_err(io_error("keep to this user the state folder", root))?;
    fs::create_dir_all(state_dir.spool()).map_err(io_error("make the log folder", root))
}

/// Takes the lock that says "there is an agent", and writes into it which.
async fn take_lock(state_dir: &StateDir, clock: Clock) -> Result<File, RunError> {
    let path = state_dir.lock();
    let opened = File::options().create(true).truncate(false).read(true).write(true).mode(0o600).open(&path);
    let mut lock = opened.map_err(io_error("open the lock", &path))?;
    let deadline = clock.now().plus(LOCK_WITHIN);
    while let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(io_error("take the lock", &path)(error.into()));
        }
        let mut holder = String::new();
        let _only_for_the_message = lock.rewind().and_then(|()| lock.read_to_string(&mut holder));
        let process: Option<ProcessId> = serde_json::from_str(&holder).ok();
        if clock.now() >= deadline || process.is_some_and(ProcessId::is_alive) {
            return Err(RunError::AlreadyRunning { state_dir: state_dir.root().to_path_buf(), process });
        }
        clock.sleep(LOCK_GAP).await;
    }
    let own = serde_json::to_vec(&ProcessId::of(std::process::id())).unwrap_or_default();
    let written = lock.set_len(0).and_then(|()| lock.rewind()).and_then(|()| lock.write_all(&own));
    written.map_err(io_error("write the lock", &path))?;
    Ok(lock)
}

fn check_version(state_dir: &StateDir, disk: &dyn Disk) -> Result<(), RunError> {
    let path = state_dir.version();
    match disk.read(&path) {
        Ok(found) if found.trim_ascii() == STATE_VERSION.to_string().as_bytes() => Ok(()),
        Ok(found) => Err(RunError::OtherVersion {
            state_dir: state_dir.root().to_path_buf(),
            found: String::from_utf8_lossy(found.trim_ascii()).chars().take(40).collect(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            disk.replace(&path, format!("{STATE_VERSION}\n").as_bytes()).map_err(io_error("write", &path))
        }
        Err(error) => Err(io_error("read", &path)(error)),
    }
}

fn build(config: AgentConfig, state_dir: &StateDir, seams: Seams) -> Result<Core, RunError> {
    let path = state_dir.ledger();
    let ledger = Ledger::read(seams.disk.as_ref(), &path);
    let ledger = ledger.map_err(|source| RunError::Ledger { path, source })?;
    let logs = Logs::open(state_dir, config.logs).map_err(io_error("open the logs in", state_dir.root()))?;
    let (fingerprint, boot) = (state_dir.fingerprint(), procfs::boot_id());
    let groups = if config.control_groups {
        ControlGroups::find(&config.stack, &fingerprint)
    } else {
        ControlGroups::default()
    };
    let mut rng = Rng::from_entropy();
    let now = seams.clock.now();
    // A copied or moved folder is another stack's: it goes on with the order, not with the processes.
    let ledger = ledger
        .map(|ledger| if ledger.fingerprint == fingerprint { ledger } else { ledger.without_processes() });
    let mut state = adopt::state_of(ledger, &config, rng.bits(), now);
    state.lease_until = config.lease_ttl.map(|ttl| now.plus(ttl));
    let own =
        ProcessId::of(std::process::id()).unwrap_or(ProcessId { pid: std::process::id(), started_ticks: 0 });
    Ok(Core::new(Parts { config, fingerprint, boot, own, seams, logs, groups, state, rng }))
}

/// Listens on a Unix socket for this user only. Whoever had it before is dead: we hold the lock.
fn bind(path: &std::path::Path) -> Result<UnixListener, RunError> {
    let bound = || {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (short, _folder) = reachable(path)?;
        let listener = Net::real().listen_unix(&short)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    bound().map_err(io_error("listen on", path))
}

fn start_tasks(core: &Core, listeners: &Arc<Listeners>, (socket, sockets): (UnixListener, UnixListener)) {
    let tasks = core.tasks();
    let (shared, doors, stop) = (core.clone(), Arc::clone(listeners), tasks.stop());
    let handler = move |request| server::handle(shared.clone(), Arc::clone(&doors), stop.clone(), request);
    let limits = ServerLimits { drain_max: DRAIN_MAX, ..ServerLimits::default() };
    tasks.spawn(
        "requests",
        OnStop::Wait,
        serve(Listener::Unix(socket), handler, limits, core.clock(), tasks.stop()),
    );
    tasks.spawn(
        "sockets",
        OnStop::Abort,
        server::serve_sockets(core.clone(), Arc::clone(listeners), sockets),
    );
    let doors = Arc::clone(listeners);
    tasks.spawn("sockets of the predecessor", OnStop::Abort, async move { doors.restore().await });
    tasks.spawn("keeper", OnStop::Abort, keeper::keep(core.clone()));
    tasks.spawn("faults", OnStop::Abort, faults::end_in_time(core.clone()));
    tasks.spawn("logs", OnStop::Abort, collect(core.clone()));
}

async fn collect(core: Core) {
    let clock = core.clock();
    let news = News::of(&core.state_dir().spool());
    let look_every = if news.is_told() { LOOK_ANYWAY_EVERY } else { LOOK_EVERY };
    let mut prune_at = clock.now();
    loop {
        if !core.logs().has_news() {
            tokio::select! {
                biased;
                () = news.arrived() => {}
                () = core.sleep(look_every) => {}
            }
        }
        let now = clock.now();
        let is_pruned = now >= prune_at;
        let logs = core.logs().clone();
        let work = tokio::task::spawn_blocking(move || {
            logs.collect(now);
            if is_pruned {
                logs.prune(now);
            }
            logs.limitation()
        });
        if is_pruned {
            prune_at = now.plus(PRUNE_EVERY);
        }
        match work.await {
            Ok(Some(limitation)) => drop(core.change(|state| ((), state.limitations.insert(limitation)))),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "collecting output failed"),
        }
        core.sleep(COLLECT_GAP).await;
    }
}

/// Returns when everything is to be taken down.
async fn until_down(core: &Core) {
    let (mut asked, clock) = (core.down(), core.clock());
    if core.state().going_down {
        return;
    }
    let lease = async {
        loop {
            let until = core.state().lease_until;
            let Some(until) = until else { return std::future::pending::<()>().await };
            if until <= clock.now() {
                tracing::warn!("the lease ran out");
                return;
            }
            clock.sleep_until(until).await;
        }
    };
    tokio::select! {
        biased;
        _ = async { asked.wait_for(|down| *down != Down::No).await.is_ok() } => {}
        () = asked_by_signal() => {}
        () = lease => {}
    }
}

/// Returns on SIGTERM or SIGINT. SIGHUP is taken and ignored: the terminal's end is not ours.
async fn asked_by_signal() {
    let signals =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()), signal(SignalKind::hangup()));
    let (Ok(mut terminate), Ok(mut interrupt), Ok(_ignored)) = signals else {
        tracing::warn!("signals cannot be watched");
        return std::future::pending().await;
    };
    tokio::select! {
        biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Stops the node, then the replicas, and leaves nothing behind.
async fn take_down(core: &Core, lock: File) {
    tracing::info!("taking everything down");
    let now = core.clock().now();
    let (_, number) = core.change(|state| {
        state.going_down = true;
        ((), true)
    });
    core.ask_down();
    // Written so that a successor finishes what is begun here; when it cannot be written, it is done all the same.
    let _done_all_the_same = core.durable(number).await;
    faults::heal_all(core).await;
    node_gone(core).await;
    let (stopped, grace) = stop_replicas(core, now);
    core.wake_keeper();
    core.none_supervised(grace + END_MARGIN).await;
    let (_, number) = core.change(|state| {
        state.listeners.values_mut().for_each(|held| held.sockets.clear());
        (state.wanted, state.held, state.going_down) =
            (Wanted::default(), std::collections::BTreeMap::new(), false);
        ((), true)
    });
    if core.durable(number).await.is_err() {
        tracing::error!("the ledger's end could not be written");
    }
    core.groups().remove();
    core.down_is_done(stopped);
    core.tasks().shutdown(&core.clock(), DRAIN_MAX * 2).await;
    let state_dir = core.state_dir();
    for socket in [state_dir.socket(), state_dir.sockets()] {
        let _gone_either_way = fs::remove_file(socket);
    }
    if core.config().ephemeral
        && let Err(error) = fs::remove_dir_all(state_dir.root())
    {
        tracing::error!(%error, "the state folder could not be removed");
    }
    drop(lock);
}

/// Waits until the node, which sees that all goes down, has ended.
async fn node_gone(core: &Core) {
    let deadline = core.clock().now().plus(END_MARGIN);
    while core.state().node.info.is_some() && core.clock().now() < deadline {
        core.clock().sleep(LOCK_GAP).await;
    }
}

/// Asks all replicas to stop. Returns how many, and the longest grace period.
fn stop_replicas(core: &Core, now: Stamp) -> (usize, Duration) {
    core.change(|state| {
        let (mut stopped, mut grace) = (0, Duration::ZERO);
        for held in state.held.values_mut() {
            grace = grace.max(held.launch.stop_grace_period);
            if !matches!(held.state, ReplicaState::Exited { .. } | ReplicaState::Stopping { .. }) {
                held.turn_stopping(now);
                stopped += 1;
            }
        }
        ((stopped, grace), true)
    })
    .0
}
