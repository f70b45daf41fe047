//! The gateway by itself, before services that others run: `standfast gateway`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use standfast_gateway::{Config, Gateway, ListenerInput, ListenerKind, Pool, Snapshot};
use standfast_model::{Otlp, Stack};
use standfast_runtime::{Clock, Net, OnStop, OpenFiles, Rng, Tasks};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::fault_key::{self, FaultKeyError, read_fault_key};
use crate::gateway_admin::{self, GatewayAdmin, Phase, Scope};
use crate::signals::SpanExports;
use crate::{edge, externals, replica_tls};

/// How long requests under way may go on at a stop.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// How long tasks may take to end after that.
const END_MAX: Duration = Duration::from_secs(3);

/// How the gateway runs by itself.
#[derive(Debug, Clone)]
pub struct AloneOptions {
    /// Where it takes requests from outside.
    pub listen: SocketAddr,
    /// Its threads, at least 1.
    pub workers: usize,
    /// Where it tells what happens; at an address that is not loopback, metrics only. `None` is nowhere.
    pub admin: Option<SocketAddr>,
    /// Where spans go when the stack says nothing of that.
    pub otlp: Option<Otlp>,
}

/// Why the gateway cannot run by itself.
#[derive(Debug, thiserror::Error)]
pub enum AloneError {
    /// An address cannot be used.
    #[error("cannot listen at {address}")]
    Listen {
        /// Which one.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The address where it is to tell what happens cannot be used.
    #[error("cannot listen at {address}")]
    Admin {
        /// Which one.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] standfast_gateway::TlsError),
    /// The key of faults cannot be used.
    #[error(transparent)]
    FaultKey(#[from] FaultKeyError),
    /// The gateway cannot start.
    #[error(transparent)]
    Gateway(#[from] standfast_gateway::Error),
    /// Signals cannot be received.
    #[error("cannot receive signals")]
    Signal(#[source] std::io::Error),
}

/// What is said of a gateway that runs by itself.
pub trait AloneObserver {
    /// It listens: each address with what for, and where it tells what happens.
    fn listens(&self, at: &[(String, SocketAddr)], admin: Option<SocketAddr>);
    /// The stack was read again. An error means that the last one goes on.
    fn reread(&self, outcome: Result<(), String>);
}

/// Runs the gateway before a stack's external services until SIGTERM or SIGINT. SIGHUP reads the stack again: routes, addresses and
/// certificates change, open connections do not.
///
/// # Errors
/// See [`AloneError`].
pub async fn run_gateway(
    stack: Stack,
    options: AloneOptions,
    reread: impl Fn() -> Result<Stack, String>,
    observer: &impl AloneObserver,
    net: Net,
    clock: Clock,
) -> Result<(), AloneError> {
    let tls = stack.edge.tls.as_ref().map(edge::load).transpose()?;
    let key = stack.edge.fault_key_file.as_deref().map(read_fault_key).transpose()?;
    let mut rng = Rng::from_entropy();
    let tasks = Tasks::new();
    let mut spans = SpanExports::new(options.otlp.clone(), &mut rng, &tasks, net, clock);
    let (workers, admin) = (options.workers, options.admin);
    let mut sockets = Sockets { options, net, held: BTreeMap::new() };
    let inputs = sockets.ensure(&stack)?;
    let admin = match admin {
        Some(address) => Some(listen_for_admin(address, net).await?),
        None => None,
    };
    observer.listens(&sockets.addresses(), admin.as_ref().map(|(_, address)| *address));

    let stacks = watch::Sender::new(Some(Arc::new(stack)));
    let endpoints = watch::Sender::new(externals::ExternalEndpoints::default());
    let (configs, mut config) = watch::channel(tls);
    let mut known = endpoints.subscribe();
    tasks.spawn(
        "external services",
        OnStop::Abort,
        externals::follow(stacks.subscribe(), endpoints, clock, net, tasks.stop()),
    );
    tasks.spawn(
        "certificates",
        OnStop::Abort,
        edge::follow(stacks.subscribe(), configs, clock, tasks.stop()),
    );
    let (changes, mut replica_tls_files) = watch::channel(0);
    tasks.spawn(
        "certificates of replicas",
        OnStop::Abort,
        replica_tls::follow(stacks.subscribe(), changes, clock, tasks.stop()),
    );
    let (keys, mut key) = watch::channel(key.map(Arc::new));
    tasks.spawn(
        "key of faults",
        OnStop::Abort,
        fault_key::follow(stacks.subscribe(), keys, clock, tasks.stop()),
    );
    let (snapshots, snapshot) = watch::channel(Arc::new(Snapshot::default()));
    let settings = Config::of(workers, OpenFiles::raise().limit());
    let gateway = Arc::new(Gateway::start(settings, Vec::new(), snapshot, clock, rng.bits())?);
    let (phases, phase) = watch::channel(Phase::Starting);
    if let Some((listener, address)) = admin {
        let admin = GatewayAdmin { gateway: Arc::clone(&gateway), phase, scope: Scope::at(address) };
        gateway_admin::start(&tasks, admin, listener, clock);
    }

    let (mut terminate, mut interrupt) =
        (listen_for(SignalKind::terminate())?, listen_for(SignalKind::interrupt())?);
    let mut hang_up = listen_for(SignalKind::hangup())?;
    let mut version = 0;
    let mut access_logs = edge::AccessLogs::new(clock);
    let mut replica_tls = replica_tls::Keeper::default();
    let mut inputs = Some(inputs);
    loop {
        let current = stacks.borrow().clone();
        if let Some(stack) = &current {
            version += 1;
            let (external, tls) =
                (Arc::clone(&known.borrow_and_update()), config.borrow_and_update().clone());
            let mut next = snapshot_of(stack, &external, tls, version);
            next.fault_key = key.borrow_and_update().clone();
            next.access_log = access_logs.of(stack.edge.access_log.as_ref());
            next.spans = spans.of(stack);
            next.replica_tls = replica_tls.of(stack, *replica_tls_files.borrow_and_update());
            snapshots.send_replace(Arc::new(next));
            // It accepts once it knows where to send what comes.
            let is_known = stack.externals.keys().all(|name| external.contains_key(name));
            if is_known && let Some(inputs) = inputs.take() {
                gateway.set_listeners(inputs).await?;
                phases.send_replace(Phase::Serving);
            }
        }
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hang_up.recv() => match reread() {
                Ok(stack) => match sockets.ensure(&stack) {
                    Ok(changed) => {
                        access_logs.reopen();
                        inputs = Some(changed);
                        stacks.send_replace(Some(Arc::new(stack)));
                        observer.reread(Ok(()));
                    }
                    Err(error) => observer.reread(Err(error.to_string())),
                },
                Err(error) => observer.reread(Err(error)),
            },
            _ = known.changed() => {}
            _ = config.changed() => {}
            _ = replica_tls_files.changed() => {}
            _ = key.changed() => {}
        }
    }
    phases.send_replace(Phase::Draining);
    gateway.drain(DRAIN_MAX).await;
    tasks.shutdown(&clock, END_MAX).await;
    Ok(())
}

async fn listen_for_admin(
    address: SocketAddr,
    net: Net,
) -> Result<(tokio::net::TcpListener, SocketAddr), AloneError> {
    let listener = net.listen_tcp(address).await.map_err(|source| AloneError::Admin { address, source })?;
    let bound = listener.local_addr().map_err(|source| AloneError::Admin { address, source })?;
    Ok((listener, bound))
}

fn listen_for(kind: SignalKind) -> Result<tokio::signal::unix::Signal, AloneError> {
    signal(kind).map_err(AloneError::Signal)
}

fn snapshot_of(
    stack: &Stack,
    external: &externals::ExternalEndpoints,
    tls: Option<Arc<rustls::ServerConfig>>,
    version: u64,
) -> Snapshot {
    Snapshot {
        version,
        routes: stack.routes.clone(),
        services: external_pools(stack, external).collect(),
        edge: Some(stack.edge.clone()),
        tls,
        ..Snapshot::default()
    }
}

/// The pools of a stack's external services.
pub(crate) fn external_pools<'a>(
    stack: &'a Stack,
    known: &'a externals::ExternalEndpoints,
) -> impl Iterator<Item = (standfast_model::ServiceName, Pool)> + 'a {
    stack.externals.values().map(|external| {
        let endpoints = known.get(&external.name).cloned().unwrap_or_default();
        (external.name.clone(), Pool { endpoints, policy: external.traffic.clone() })
    })
}

/// The sockets that the gateway accepts from, each bound once and kept for as long as it is wanted.
struct Sockets {
    options: AloneOptions,
    net: Net,
    held: BTreeMap<ListenerKind, (SocketAddr, Vec<std::net::TcpListener>)>,
}

impl Sockets {
    /// Binds what a stack needs and is not bound yet, and lets go of the rest.
    fn ensure(&mut self, stack: &Stack) -> Result<Vec<ListenerInput>, AloneError> {
        let mut wanted = vec![(ListenerKind::Public, self.options.listen)];
        if let Some(tls) = &stack.edge.tls {
            wanted.push((ListenerKind::PublicTls, SocketAddr::new(self.options.listen.ip(), tls.port)));
        }
        for external in stack.externals.values() {
            for port in &external.ports {
                let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port.published);
                wanted.push((
                    ListenerKind::Service { service: external.name.clone(), caller_zone: None },
                    address,
                ));
            }
        }
        let mut held = BTreeMap::new();
        for (kind, address) in wanted {
            let is_same = |(bound, _): &(SocketAddr, _)| address.port() == 0 || *bound == address;
            let entry = match self.held.get(&kind).filter(|held| is_same(held)) {
                Some((address, sockets)) => {
                    let copies: std::io::Result<Vec<_>> =
                        sockets.iter().map(std::net::TcpListener::try_clone).collect();
                    (*address, copies.map_err(|source| AloneError::Listen { address: *address, source })?)
                }
                None => self.bind(address).map_err(|source| AloneError::Listen { address, source })?,
            };
            held.insert(kind, entry);
        }
        let inputs = held.iter().map(|(kind, (address, sockets))| {
            let copies: std::io::Result<Vec<_>> =
                sockets.iter().map(std::net::TcpListener::try_clone).collect();
            let sockets = copies.map_err(|source| AloneError::Listen { address: *address, source })?;
            Ok(ListenerInput { kind: kind.clone(), sockets })
        });
        let inputs = inputs.collect::<Result<Vec<_>, AloneError>>()?;
        self.held = held;
        Ok(inputs)
    }

    fn bind(&self, address: SocketAddr) -> std::io::Result<(SocketAddr, Vec<std::net::TcpListener>)> {
        let sockets = self.net.listen_group(address, self.options.workers.max(1))?;
        let bound = sockets.first().map_or(Ok(address), std::net::TcpListener::local_addr)?;
        Ok((bound, sockets))
    }

    fn addresses(&self) -> Vec<(String, SocketAddr)> {
        let name = |kind: &ListenerKind| match kind {
            ListenerKind::Public => "http".to_owned(),
            ListenerKind::PublicTls => "https".to_owned(),
            ListenerKind::Service { service, .. } => service.to_string(),
        };
        self.held.iter().map(|(kind, (address, _))| (name(kind), *address)).collect()
    }
}
