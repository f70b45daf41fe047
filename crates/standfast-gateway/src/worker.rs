//! One worker: a thread with its own runtime, sockets, connections and scores. Nothing of it is shared but its counters.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use http::{HeaderMap, header};
use hyper::server::conn::http1;
use standfast_model::{ServiceName, Stamp, ZoneName};
use standfast_runtime::{Clock, Net, Rng};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::client::{Client, CoarseClock, Order};
use crate::config::{Config, Limits, SWEEP_PERIOD};
use crate::error::Refusal;
use crate::listener::{self, ListenerKind};
use crate::pool::{Endpoint, IdleLimits, Service};
use crate::routes::RouteTable;
use crate::snapshot::{Pool, Snapshot};
use crate::stats::WorkerCounters;
use crate::upstream::Connected;

/// From one look at the worker's own lag to the next; also the grain of the coarse clock.
const TICK: Duration = Duration::from_millis(20);
/// The same while no client is connected: an idle gateway shall cost next to nothing.
const TICK_IDLE: Duration = Duration::from_millis(200);
/// Lags shorter than this are normal.
const LAG_MIN: Duration = Duration::from_millis(5);
/// How long a probe of a replica that took no connections may take.
const PROBE_MAX: Duration = Duration::from_millis(250);

/// A listening socket for one worker.
pub(crate) struct Socket {
    pub(crate) kind: ListenerKind,
    /// The same number means the same socket.
    pub(crate) identity: u64,
    pub(crate) listener: std::net::TcpListener,
}

/// What a worker is told.
pub(crate) enum Command {
    /// These are the sockets to accept from, and no others.
    Listen(Vec<Socket>, oneshot::Sender<()>),
    /// Accept no more, finish what runs within the limit, and end. The answer is how many connections were cut off.
    Drain(Duration, oneshot::Sender<usize>),
}

/// What a worker starts with.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) sockets: Vec<Socket>,
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(crate) clock: Clock,
    pub(crate) rng: Rng,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) counters: Arc<WorkerCounters>,
}

/// A snapshot as this worker uses it.
#[derive(Default)]
struct View {
    routes: Option<RouteTable<Rc<Service>>>,
    services: BTreeMap<ServiceName, Rc<Service>>,
    gateway_zone: Option<ZoneName>,
}

/// The worker's state, shared by its tasks.
pub(crate) struct Worker {
    pub(crate) limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) net: Net,
    pub(crate) rng: RefCell<Rng>,
    pub(crate) server: http1::Builder,
    pub(crate) coarse_clock: CoarseClock,
    pub(crate) counters: Arc<WorkerCounters>,
    keeps_dead_replicas: bool,
    snapshot: RefCell<watch::Receiver<Arc<Snapshot>>>,
    view: RefCell<Rc<View>>,
    clients: RefCell<BTreeMap<u64, Rc<Client>>>,
    client_left: Notify,
    held: Cell<usize>,
    tunnels: Cell<usize>,
    /// Services that listeners name: they are known before the first snapshot that has them.
    named: RefCell<BTreeSet<ServiceName>>,
    last_tick: Cell<Stamp>,
    /// From the last tick to the next.
    tick: Cell<Duration>,
    /// When a lag worth mentioning was seen last, and how long it was.
    last_lag: Cell<(Stamp, Duration)>,
    tasks: RefCell<JoinSet<()>>,
}

/// Runs a worker until it is told to drain or its gateway is dropped.
pub(crate) async fn run(setup: Setup) {
    let Setup { config, sockets, snapshot, clock, rng, mut commands, counters } = setup;
    let worker = Rc::new(Worker::new(&config, snapshot, clock, rng, counters));
    let mut accepting = BTreeMap::new();
    let mut listeners = JoinSet::new();
    listen(&worker, &mut listeners, &mut accepting, sockets);
    worker.spawn(tend(Rc::clone(&worker)));
    while let Some(command) = commands.recv().await {
        match command {
            Command::Listen(sockets, done) => {
                listen(&worker, &mut listeners, &mut accepting, sockets);
                let _caller_may_have_left = done.send(());
            }
            Command::Drain(limit, done) => {
                listeners.shutdown().await;
                let cut_off = worker.drain(limit).await;
                let _caller_may_have_left = done.send(cut_off);
                break;
            }
        }
    }
    listeners.shutdown().await;
    // The tasks hold the worker: without this it would hold itself.
    let mut tasks = std::mem::take(&mut *worker.tasks.borrow_mut());
    tasks.shutdown().await;
}

/// Makes `sockets` the ones that are accepted from. Those that stay are not touched, nor are open connections.
fn listen(
    worker: &Rc<Worker>,
    listeners: &mut JoinSet<()>,
    accepting: &mut BTreeMap<(ListenerKind, u64), AbortHandle>,
    sockets: Vec<Socket>,
) {
    let mut wanted = BTreeMap::new();
    *worker.named.borrow_mut() = sockets.iter().filter_map(|socket| socket.kind.service().cloned()).collect();
    worker.take_snapshot();
    for socket in sockets {
        let key = (socket.kind, socket.identity);
        if let Some(handle) = accepting.remove(&key) {
            wanted.insert(key, handle);
            continue;
        }
        match tokio::net::TcpListener::from_std(socket.listener) {
            Ok(listener) => {
                let kind = Rc::new(key.0.clone());
                let handle = listeners.spawn_local(listener::accept(Rc::clone(worker), listener, kind));
                wanted.insert(key, handle);
            }
            Err(error) => tracing::error!(%error, "cannot accept from a socket of the gateway"),
        }
    }
    accepting.values().for_each(AbortHandle::abort);
    *accepting = wanted;
    while listeners.try_join_next().is_some() {}
}

/// What a worker does besides requests: take snapshots, measure its lag, close what is over its limit, probe the dead.
async fn tend(worker: Rc<Worker>) {
    let mut changes = worker.snapshot.borrow().clone();
    let mut is_fed = true;
    let mut swept = worker.clock.now();
    let mut due = swept.plus(TICK);
    loop {
        tokio::select! {
            biased;
            () = worker.clock.sleep_until(due) => {}
            changed = changes.changed(), if is_fed => {
                is_fed = changed.is_ok();
                worker.refresh();
                continue;
            }
        }
        let now = worker.clock.now();
        worker.note_tick(now, now.since(due));
        worker.tick.set(if worker.open() == 0 { TICK_IDLE } else { TICK });
        due = now.plus(worker.tick.get());
        worker.probe_due(now);
        if now.since(swept) >= SWEEP_PERIOD {
            swept = now;
            worker.sweep(now);
        }
    }
}

impl Worker {
    fn new(
        config: &Config,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        clock: Clock,
        rng: Rng,
        counters: Arc<WorkerCounters>,
    ) -> Self {
        let now = clock.now();
        Self {
            limits: config.limits,
            clock,
            net: Net::real(),
            rng: RefCell::new(rng),
            server: server(&config.limits),
            coarse_clock: Arc::new(AtomicU64::new(now.as_micros())),
            counters,
            keeps_dead_replicas: config.keeps_dead_replicas(),
            snapshot: RefCell::new(snapshot),
            view: RefCell::default(),
            clients: RefCell::default(),
            client_left: Notify::new(),
            held: Cell::default(),
            tunnels: Cell::default(),
            named: RefCell::default(),
            last_tick: Cell::new(now),
            tick: Cell::new(TICK),
            last_lag: Cell::default(),
            tasks: RefCell::default(),
        }
    }

    /// Starts a task that ends with the worker at the latest.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_local(work);
    }

    /// Enters a client into the list of those that orders reach, until the result is dropped.
    pub(crate) fn register(self: &Rc<Self>, client: &Rc<Client>) -> Registered {
        let number = self.counters.accepted.get();
        self.counters.accepted.add(1);
        self.counters.connections.add(1);
        self.clients.borrow_mut().insert(number, Rc::clone(client));
        Registered { worker: Rc::clone(self), number }
    }

    /// Returns when a client may be accepted.
    pub(crate) async fn has_place_for_client(&self) {
        while self.clients.borrow().len() >= self.limits.connections_max {
            self.client_left.notified().await;
        }
    }

    /// The right to let a request wait; `None` when too many do.
    pub(crate) fn hold(self: &Rc<Self>) -> Option<Held> {
        if self.held.get() >= self.limits.held_max {
            return None;
        }
        self.held.set(self.held.get() + 1);
        Some(Held(Rc::clone(self)))
    }

    /// The service for a request, and the zone of who sent it.
    pub(crate) fn route(
        &self,
        kind: &ListenerKind,
        headers: &HeaderMap,
        path: &str,
    ) -> Result<(Rc<Service>, Option<ZoneName>), Refusal> {
        self.refresh();
        let view = self.view.borrow();
        match kind {
            ListenerKind::Service { service, caller_zone } => {
                // Known since it was listened for, but for connections that outlive their listener.
                let found = view.services.get(service).ok_or_else(|| Refusal::NoReplica(service.clone()))?;
                Ok((Rc::clone(found), caller_zone.clone().or_else(|| view.gateway_zone.clone())))
            }
            ListenerKind::Public => {
                let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
                let routes = view.routes.as_ref();
                let found = routes.and_then(|routes| routes.find(host, path, &mut self.rng.borrow_mut()));
                let service = found.ok_or(Refusal::NoRoute)?;
                Ok((Rc::clone(service), view.gateway_zone.clone()))
            }
        }
    }

    /// Takes the newest snapshot, if there is one that is newer. Costs one atomic read when there is none.
    pub(crate) fn refresh(&self) {
        let has_changed = self.snapshot.borrow().has_changed().unwrap_or(false);
        if has_changed {
            self.take_snapshot();
        }
    }

    /// Returns when there is a newer snapshot than the one in use; never, when nobody makes them any more.
    pub(crate) async fn newer_snapshot(&self) {
        let mut changes = self.snapshot.borrow().clone();
        if changes.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn take_snapshot(&self) {
        let snapshot = Arc::clone(&self.snapshot.borrow_mut().borrow_and_update());
        let old = Rc::clone(&self.view.borrow());
        let now = self.clock.now();
        let idle_limits = IdleLimits {
            connections_max: self.limits.upstream_idle_connections_max,
            idle_max: self.limits.upstream_idle_max,
        };
        let known = |name: &ServiceName| match old.services.get(name) {
            Some(service) => Rc::clone(service),
            None => Service::new(name.clone(), now, self.keeps_dead_replicas),
        };
        let mut services: BTreeMap<_, _> = snapshot
            .services
            .iter()
            .map(|(name, pool)| {
                let service = known(name);
                service.take(pool, idle_limits, self.clock);
                (name.clone(), service)
            })
            .collect();
        // A service that is named but not there yet: its requests wait for the first replica.
        let absent = |name: &ServiceName| {
            let service = known(name);
            service.take(&Pool::default(), idle_limits, self.clock);
            service
        };
        for name in &*self.named.borrow() {
            services.entry(name.clone()).or_insert_with(|| absent(name));
        }
        let routes = RouteTable::new(&snapshot.routes, |name| {
            Rc::clone(services.entry(name.clone()).or_insert_with(|| absent(name)))
        });
        *self.counters.services.lock().unwrap_or_else(PoisonError::into_inner) =
            services.iter().map(|(name, service)| (name.clone(), Arc::clone(&service.counters))).collect();
        self.counters.snapshot_version.set(snapshot.version);
        // A service that left gives no more replicas to the requests that hold on to it.
        for (_, service) in old.services.iter().filter(|(name, _)| !services.contains_key(name)) {
            service.take(&Pool::default(), idle_limits, self.clock);
        }
        let view = View { routes: Some(routes), services, gateway_zone: snapshot.gateway_zone.clone() };
        *self.view.borrow_mut() = Rc::new(view);
    }

    /// Whether the worker's loop has stood still for more than half of `limit` since `since`: whoever seems slow then may not be.
    pub(crate) fn is_lagging(&self, since: Stamp, limit: Duration) -> bool {
        let now = self.clock.now();
        let running = now.since(self.last_tick.get()).saturating_sub(self.tick.get());
        let (at, lag) = self.last_lag.get();
        let noted = if at >= since { lag } else { Duration::ZERO };
        running.max(noted) * 2 > limit.max(LAG_MIN)
    }

    fn note_tick(&self, now: Stamp, lag: Duration) {
        self.last_tick.set(now);
        self.coarse_clock.store(now.as_micros(), Ordering::Relaxed);
        if lag >= LAG_MIN {
            self.last_lag.set((now, lag));
            let micros = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
            self.counters.lag_max_micros.set(self.counters.lag_max_micros.get().max(micros));
        }
    }

    fn sweep(&self, now: Stamp) {
        for client in self.clients.borrow().values() {
            client.tell(client.activity.judge(now, &self.limits));
        }
        for endpoint in self.endpoints() {
            endpoint.sweep(now);
        }
    }

    fn endpoints(&self) -> Vec<Rc<Endpoint>> {
        let view = self.view.borrow();
        view.services.values().flat_map(|service| service.endpoints().to_vec()).collect()
    }

    /// Looks whether replicas that took no connections do so again.
    fn probe_due(&self, now: Stamp) {
        let view = Rc::clone(&self.view.borrow());
        for service in view.services.values() {
            for endpoint in service.endpoints().iter() {
                let mut health = endpoint.health.get();
                if !health.wants_probe(now) {
                    continue;
                }
                // Not again before this one is back.
                health.probed(false, now.plus(PROBE_MAX));
                endpoint.health.set(health);
                self.spawn(probe(Rc::clone(endpoint), self.clock, self.net));
            }
        }
    }

    /// How many connections and tunnels there are.
    fn open(&self) -> usize {
        self.clients.borrow().len() + self.tunnels.get()
    }

    /// Counts a tunnel until the result is dropped.
    pub(crate) fn count_tunnel(self: &Rc<Self>) -> Tunnel {
        self.tunnels.set(self.tunnels.get() + 1);
        Tunnel(Rc::clone(self))
    }

    /// Lets running requests end, at most for `limit`. Returns how many connections were cut off.
    async fn drain(&self, limit: Duration) -> usize {
        for client in self.clients.borrow().values() {
            client.tell(Order::Finish);
        }
        let all_left = async {
            while self.open() > 0 {
                self.client_left.notified().await;
            }
        };
        let _all_left_or_over = self.clock.timeout(limit, all_left).await;
        self.open()
    }
}

async fn probe(endpoint: Rc<Endpoint>, clock: Clock, net: Net) {
    let opened = clock.timeout(PROBE_MAX, Connected::open(net, endpoint.address)).await;
    let mut health = endpoint.health.get();
    match opened {
        Ok(Ok(connected)) => {
            health.probed(true, clock.now());
            endpoint.keep(connected);
        }
        _ => health.probed(false, clock.now()),
    }
    endpoint.health.set(health);
}

fn server(limits: &Limits) -> http1::Builder {
    /// Hyper counts more than this on the heap.
    const HEADER_COUNT_FREE: usize = 100;
    /// Also what is read of a body at a time.
    const BUFFER_BYTES_MIN: usize = 128 << 10;
    let mut builder = http1::Builder::new();
    // The sweep watches over all times: no timer for each request.
    builder.header_read_timeout(None);
    builder.max_header_size(limits.header_bytes_max);
    builder.max_buf_size(limits.header_bytes_max.max(BUFFER_BYTES_MIN));
    if limits.header_count_max != HEADER_COUNT_FREE {
        builder.max_headers(limits.header_count_max);
    }
    builder
}

/// A client's entry in the worker's list.
pub(crate) struct Registered {
    worker: Rc<Worker>,
    number: u64,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.worker.clients.borrow_mut().remove(&self.number);
        self.worker.counters.connections.take_one();
        self.worker.client_left.notify_one();
    }
}

/// A tunnel that a drain waits for.
pub(crate) struct Tunnel(Rc<Worker>);

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.0.tunnels.set(self.0.tunnels.get().saturating_sub(1));
        self.0.client_left.notify_one();
    }
}

/// A request that waits for a replica.
pub(crate) struct Held(Rc<Worker>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.set(self.0.held.get().saturating_sub(1));
    }
}
