//! One node, built from its parts. Read top to bottom: this is what runs in a node process, and in which order it starts and stops.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use standfast_control::{Control, Handle, Parts};
use standfast_gateway::{Config as GatewayConfig, Gateway, Snapshot};
use standfast_model::{ServiceName, Stack};
use standfast_platform::local::{Agent, AgentClient, AgentConfig, AgentError, LocalPlatform};
use standfast_runtime::http::{Listener, ServerLimits, serve};
use standfast_runtime::{Clock, Net, OnError, OnStop, OpenFiles, RealDisk, Rng, TaskFailure, Tasks};
use standfast_store::http::StateApi;
use standfast_store::{EmbeddedOptions, EmbeddedStore, OpenError, Store};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::adapt;
use crate::admin::{self, Admin};
use crate::calls::ThroughGateway;
use crate::client::SOCKET;
use crate::gateway_admin;
use crate::guard::guard;
use crate::reserve::{Reserve, ReservingStore};
use crate::settings::{Settings, SettingsError};
use crate::signals::SpanExports;
use crate::wiring::{WiredPlatform, Wiring};
use crate::workflows::{self, Workflows};
use crate::{edge, externals, fault_key, replica_tls};

/// How long a node waits for its agent, and for the store's file that a killed predecessor may still hold for a moment.
const AGENT_WAIT: Duration = Duration::from_secs(10);
const STORE_WAIT: Duration = Duration::from_secs(5);
/// How long requests under way may go on at a stop.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// How long tasks may take to end after that.
const END_MAX: Duration = Duration::from_secs(3);
/// Connections of services to the state API at a time; further ones wait in the kernel's queue.
const STATE_CONNECTIONS_MAX: usize = 4_096;

/// Why a node could not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Its settings cannot be read.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The agent would not give it what it needs.
    #[error("the agent did not give the listening sockets")]
    Agent(#[from] AgentError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The runs of workflows cannot be read.
    #[error("cannot go on with the runs of workflows")]
    Workflows(#[from] standfast_workflow::JournalError),
    /// A key of the records of workflows cannot be read.
    #[error(transparent)]
    WorkflowKey(#[from] standfast_workflow::BadKeyFile),
    /// The records of workflows need another key.
    #[error(transparent)]
    Sealed(#[from] standfast_workflow::SealError),
    /// It is not known which program this is.
    #[error("cannot find out where this program is")]
    Program(#[source] std::io::Error),
    /// The gateway cannot start.
    #[error(transparent)]
    Gateway(#[from] standfast_gateway::Error),
    /// A socket cannot be used.
    #[error("cannot listen for {what}")]
    Listen {
        /// What for.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signal(#[source] std::io::Error),
    /// A task that the node cannot do without has ended.
    #[error(transparent)]
    Task(#[from] TaskFailure),
    /// The agent cannot run.
    #[error(transparent)]
    AgentRun(#[from] standfast_platform::local::RunError),
    /// The agent's configuration cannot be read.
    #[error("cannot read the agent's configuration in {}", .0.display())]
    AgentConfig(PathBuf, #[source] std::io::Error),
}

/// A running node. A value: any number of them can live in one process.
pub struct Node {
    clock: Clock,
    tasks: Tasks,
    gateway: Arc<Gateway>,
    store: Arc<dyn Store>,
    control: Handle,
}

/// Builds a node in a state folder whose agent runs.
///
/// # Errors
/// See [`BuildError`].
pub async fn build(state_dir: &Path, net: Net, clock: Clock) -> Result<Node, BuildError> {
    let settings = Settings::read(&RealDisk, state_dir)?;
    let tasks = Tasks::new();
    let mut rng = Rng::from_entropy();

    // Where state is kept.
    let options = store_options(&settings);
    let embedded = EmbeddedStore::open(&state_dir.join("store"), clock, options).await?;
    let reserve = Reserve::keep(state_dir);
    let store: Arc<dyn Store> = Arc::new(ReservingStore::new(Arc::new(embedded), Arc::clone(&reserve)));

    let keys = standfast_workflow::Keys::read(&settings.workflow_keys)?;
    let workflow_store = standfast_workflow::sealed(Arc::clone(&store), keys).await?;

    // Where replicas run.
    let agent = AgentClient::new(state_dir, net, clock);
    agent.wait_until_up(AGENT_WAIT).await?;
    let local = LocalPlatform::connect(agent.clone(), clock, rng.fork("platform"), &tasks);

    // What carries requests. Its sockets are the agent's; its picture of the world is a snapshot that `adapt` renews.
    let (snapshots, snapshot) = watch::channel(Arc::new(Snapshot::default()));
    let open_files = OpenFiles::raise();
    let config = gateway_config(&settings, open_files);
    let plant = settings.plant.clone();
    let (metrics, otlp) = (settings.metrics, settings.otlp.clone());
    let containers = settings.containers.clone();
    let gateway = Arc::new(Gateway::start(config, Vec::new(), snapshot, clock, rng.bits())?);
    let wiring = Arc::new(Wiring::new(agent.clone(), settings, Arc::clone(&gateway)));

    // What decides.
    let (stack_sender, stack) = watch::channel(None::<Arc<Stack>>);
    let platform = WiredPlatform {
        inner: Arc::new(local),
        wiring: Arc::clone(&wiring),
        stack: stack.clone(),
        reserve: Arc::clone(&reserve),
    };
    let parts = Parts { clock, store: Arc::clone(&store), platform: Arc::new(platform), stack: stack_sender };
    let (control, handle) = Control::new(parts);
    // The listeners that every node needs; those of the services come with the first order, which is given again in any case.
    wiring.ensure_base().await?;

    // Who sees to what.
    tasks.spawn_fallible("control", OnError::Stop, OnStop::Wait, control.run(tasks.stop()));
    let (endpoints, externals) = watch::channel(externals::ExternalEndpoints::default());
    let watching = externals::follow(stack.clone(), endpoints, clock, net, tasks.stop());
    tasks.spawn("external services", OnStop::Abort, watching);
    let (configs, tls) = watch::channel(None);
    tasks.spawn("certificates", OnStop::Abort, edge::follow(stack.clone(), configs, clock, tasks.stop()));
    let spans = SpanExports::new(otlp, &mut rng, &tasks, net, clock);
    let (changes, replica_tls_files) = watch::channel(0);
    let watching = replica_tls::follow(stack.clone(), changes, clock, tasks.stop());
    tasks.spawn("certificates of replicas", OnStop::Abort, watching);
    let (keys, fault_key) = watch::channel(None);
    tasks.spawn("key of faults", OnStop::Abort, fault_key::follow(stack.clone(), keys, clock, tasks.stop()));
    let outside = adapt::Outside {
        externals,
        tls,
        fault_key,
        access_logs: edge::AccessLogs::new(clock),
        spans,
        replica_tls: replica_tls::Keeper::default(),
        replica_tls_files,
    };
    let adapting = adapt::snapshots(
        handle.changes(),
        stack.clone(),
        outside,
        snapshots,
        Arc::clone(&wiring),
        tasks.stop(),
    );
    tasks.spawn("snapshots", OnStop::Wait, adapting);
    let program = std::env::current_exe().map_err(BuildError::Program)?;
    let calls = ThroughGateway::new(clock, Arc::clone(&wiring), containers);
    let workflows =
        Workflows::open(workflow_store, calls, program, clock, tasks.clone(), plant.as_deref()).await?;
    tasks.spawn("workflows", OnStop::Abort, workflows.clone().follow(stack.clone(), tasks.stop()));
    start_state_api(&tasks, &wiring, &store, &workflows, stack.clone(), clock)?;
    let admin = Admin {
        control: handle.clone(),
        agent: agent.clone(),
        gateway: Arc::clone(&gateway),
        wiring: Arc::clone(&wiring),
        stack,
        health: store.health(),
        reserve,
        workflows,
    };
    start_admin(&tasks, admin, state_dir, net, clock)?;
    if let Some(address) = metrics {
        let giving = gateway_admin::give_metrics(address, Arc::clone(&gateway), tasks.clone(), net, clock);
        tasks.spawn("metrics", OnStop::Abort, giving);
    }
    let guarding = guard(agent, wiring, open_files, clock, rng.fork("guard"), tasks.stop());
    tasks.spawn("guard of the agent", OnStop::Abort, guarding);
    Ok(Node { clock, tasks, gateway, store, control: handle })
}

impl Node {
    /// The way to the control loop.
    pub const fn control(&self) -> &Handle {
        &self.control
    }

    /// Returns when the node cannot go on.
    pub async fn failed(&self) -> TaskFailure {
        self.tasks.failed().await
    }

    /// Stops in order: no new requests, requests under way end, loops end, the store closes.
    ///
    /// # Cancellation
    /// Not cancel safe: when dropped midway, requests are cut off.
    pub async fn stop(self) {
        let drained = self.gateway.drain(DRAIN_MAX).await;
        if drained.cut_off > 0 {
            tracing::warn!(requests = drained.cut_off, "requests were cut off at the stop");
        }
        let left = self.tasks.shutdown(&self.clock, END_MAX).await;
        if left > 0 {
            tracing::warn!(left, "tasks did not end in time");
        }
        drop(self.store);
    }
}

/// Runs a node until SIGTERM or SIGINT: the process `standfast node`.
///
/// # Errors
/// See [`BuildError`].
pub async fn run_node(state_dir: &Path, net: Net, clock: Clock) -> Result<(), BuildError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(BuildError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(BuildError::Signal)?;
    let node = build(state_dir, net, clock).await?;
    tracing::info!("the node runs");
    let ended = tokio::select! {
        biased;
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        failure = node.failed() => Err(failure),
    };
    node.stop().await;
    tracing::info!("the node has stopped");
    Ok(ended?)
}

/// Runs an agent until it has taken everything down: the process `standfast agent`.
///
/// # Errors
/// See [`BuildError`].
pub async fn run_agent(state_dir: &Path, net: Net, clock: Clock) -> Result<(), BuildError> {
    let disk = RealDisk;
    let config = AgentConfig::read(&disk, state_dir)
        .map_err(|error| BuildError::AgentConfig(state_dir.to_owned(), error))?;
    Ok(Agent::run(config, clock, net, Arc::new(disk)).await?)
}

fn store_options(settings: &Settings) -> EmbeddedOptions {
    #[cfg_attr(not(feature = "planted-bugs"), expect(unused_mut, reason = "only test builds change it"))]
    let mut options = EmbeddedOptions { lock_wait_max: STORE_WAIT, ..EmbeddedOptions::default() };
    #[cfg(feature = "planted-bugs")]
    crate::plant::into_store(settings.plant.as_deref(), &mut options);
    let _only_used_by_test_builds = settings;
    options
}

fn gateway_config(settings: &Settings, open_files: OpenFiles) -> GatewayConfig {
    #[cfg_attr(not(feature = "planted-bugs"), expect(unused_mut, reason = "only test builds change it"))]
    let mut config = GatewayConfig::of(usize::from(settings.workers), open_files.limit());
    #[cfg(feature = "planted-bugs")]
    crate::plant::into_gateway(settings.plant.as_deref(), &mut config);
    config
}

fn start_state_api(
    tasks: &Tasks,
    wiring: &Wiring,
    store: &Arc<dyn Store>,
    workflows: &Workflows,
    stack: watch::Receiver<Option<Arc<Stack>>>,
    clock: Clock,
) -> Result<(), BuildError> {
    let what = "the state API";
    let listen = |source| BuildError::Listen { what, source };
    let socket = wiring.state_socket().unwrap_or_else(|| Err(std::io::ErrorKind::NotConnected.into()));
    let socket = tokio::net::TcpListener::from_std(socket.map_err(listen)?).map_err(listen)?;
    let (sender, services) = watch::channel(BTreeSet::<ServiceName>::new());
    let api = StateApi::new(Arc::clone(store), clock, services);
    let workflows = workflows.clone();
    let handler = move |request| {
        let (api, workflows) = (api.clone(), workflows.clone());
        async move {
            match workflows::is_for(&request) {
                true => workflows.handle(request).await,
                false => api.handle(request).await,
            }
        }
    };
    let limits = ServerLimits {
        connections_max: STATE_CONNECTIONS_MAX,
        body_bytes_max: standfast_store::http::BODY_BYTES_MAX,
        ..ServerLimits::default()
    };
    let serving = serve(Listener::Tcp(socket), handler, limits, clock, tasks.stop());
    let stop = tasks.stop();
    let (is_known, has_services) = tokio::sync::oneshot::channel();
    tasks.spawn(
        "services of the state API",
        OnStop::Wait,
        adapt::services(stack, sender, is_known, tasks.stop()),
    );
    tasks.spawn(what, OnStop::Wait, async move {
        // Before the stack is known every service would be an unknown one; until then requests wait in the kernel's queue.
        tokio::select! {
            biased;
            () = stop.requested() => {}
            Ok(()) = has_services => serving.await,
        }
    });
    Ok(())
}

fn start_admin(
    tasks: &Tasks,
    admin: Admin,
    state_dir: &Path,
    net: Net,
    clock: Clock,
) -> Result<(), BuildError> {
    let what = "the admin interface";
    let path = state_dir.join(SOCKET);
    let bound = || {
        // A killed predecessor's socket file is dead; the store's lock makes sure that there is no living one.
        if path.exists() {
            std::fs::remove_file(&path)?;
        }
        let (short, _folder) = standfast_platform::local::reachable_socket(&path)?;
        net.listen_unix(&short)
    };
    let socket = bound().map_err(|source| BuildError::Listen { what, source })?;
    let admin = Arc::new(admin);
    let handler = move |request| admin::handle(Arc::clone(&admin), request);
    tasks.spawn(
        what,
        OnStop::Wait,
        serve(Listener::Unix(socket), handler, ServerLimits::default(), clock, tasks.stop()),
    );
    Ok(())
}
