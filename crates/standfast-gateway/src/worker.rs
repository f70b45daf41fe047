//! One worker: a thread with its own runtime, sockets, connections and scores. Nothing of it is shared but its counters.

use std::cell::{Cell, RefCell};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use standfast_model::{Protocol, ServiceName, Stamp, ZoneName};
use standfast_runtime::{Clock, Net, Rng};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::access::{AccessLog, AccessWriter, Entry as AccessEntry};
use crate::alarms::{ALARM_MAX, Alarms};
use crate::call::{self, Incoming};
use crate::client::{Client, CoarseClock, Order};
use crate::config::{Config, Limits, SWEEP_PERIOD};
use crate::error::Refusal;
use crate::explain::Records;
use crate::fault::{FaultKey, Faults, Watched};
use crate::kept::{self, Stores};
use crate::listener::{self, ListenerKind};
use crate::path;
use crate::pool::{Endpoint, IdleLimits, Service};
use crate::routes::RouteTable;
use crate::snapshot::{Pool, Snapshot};
use crate::spans::RequestSpans;
use crate::stats::WorkerCounters;
use crate::upstream::h1::Connected;
use crate::upstream::transport::Transport;
use crate::view::{RouteStates, Routed, View};
use crate::wire::{BufferPool, RequestHead};

/// From one look at the worker's own lag to the next; also the grain of the coarse clock.
const TICK: Duration = Duration::from_millis(20);
/// The same while no client is connected: an idle gateway shall cost next to nothing.
const TICK_IDLE: Duration = Duration::from_millis(200);
/// Lags shorter than this are normal.
const LAG_MIN: Duration = Duration::from_millis(5);
/// Shorter turns of the loop are not told from a service's time.
const OWN_MIN: Duration = Duration::from_millis(1);
/// The longest turn of late falls by this part at each look.
const TURN_FADE: u32 = 16;
/// Of the connections of a worker that has no room, one in so many is closed at a time if it is idle.
const CLOSED_SHARE: usize = 64;
/// From one look for idle connections to the next while there is no room.
const ROOM_LOOK: Duration = Duration::from_millis(100);
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
    pub(crate) calls: mpsc::Receiver<Incoming>,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) records: Records,
    pub(crate) route_states: Arc<RouteStates>,
    pub(crate) kept: Arc<Stores>,
    pub(crate) faults: Faults,
}

/// The worker's state, shared by its tasks.
pub(crate) struct Worker {
    pub(crate) limits: Cell<Limits>,
    base_limits: Limits,
    pub(crate) clock: Clock,
    pub(crate) net: Net,
    pub(crate) rng: RefCell<Rng>,
    pub(crate) buffers: Rc<BufferPool>,
    alarms: Alarms,
    /// The longest turn of the loop of late.
    turn: Cell<Duration>,
    pub(crate) coarse_clock: CoarseClock,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) records: Records,
    pub(crate) faults: Watched,
    all_faults: Faults,
    route_states: Arc<RouteStates>,
    /// Kept answers, shared by all workers.
    kept: Arc<Stores>,
    /// The access log in use, and this worker's end of it.
    access: RefCell<Option<(Arc<AccessLog>, AccessWriter)>>,
    workers: u32,
    keeps_dead_replicas: bool,
    /// Stands where a route has no service.
    nobody: Rc<Service>,
    snapshot: RefCell<watch::Receiver<Arc<Snapshot>>>,
    view: RefCell<Rc<View>>,
    clients: RefCell<BTreeMap<u64, Rc<Client>>>,
    by_address: RefCell<HashMap<IpAddr, usize>>,
    client_left: Notify,
    held: Cell<usize>,
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
    let (worker, sockets, mut commands, calls) = Worker::new(setup);
    let worker = Rc::new(worker);
    let mut accepting = BTreeMap::new();
    let mut listeners = JoinSet::new();
    listen(&worker, &mut listeners, &mut accepting, sockets);
    worker.spawn(tend(Rc::clone(&worker)));
    worker.spawn(take_calls(Rc::clone(&worker), calls));
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

/// Begins the calls from within this process.
async fn take_calls(worker: Rc<Worker>, mut calls: mpsc::Receiver<Incoming>) {
    while let Some(incoming) = calls.recv().await {
        worker.spawn(call::serve(Rc::clone(&worker), incoming));
    }
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
            () = worker.clock.sleep_until(worker.alarms.next(due)) => {}
            () = worker.alarms.earlier() => continue,
            changed = changes.changed(), if is_fed => {
                is_fed = changed.is_ok();
                worker.refresh();
                continue;
            }
        }
        let now = worker.clock.now();
        worker.alarms.ring(now);
        worker.measure_turn(now).await;
        if now < due {
            continue;
        }
        let lag = now.since(due);
        worker.note_tick(now, lag);
        worker.tick.set(if worker.open() == 0 { TICK_IDLE } else { TICK });
        due = now.plus(worker.tick.get());
        worker.probe_due(now);
        worker.tick_doors(now, lag);
        if now.since(swept) >= SWEEP_PERIOD {
            swept = now;
            worker.sweep(now);
        }
    }
}

impl Worker {
    fn new(setup: Setup) -> (Self, Vec<Socket>, mpsc::Receiver<Command>, mpsc::Receiver<Incoming>) {
        let Setup { config, sockets, snapshot, clock, rng, commands, calls, counters, records, .. } = setup;
        let Setup { route_states, kept, faults, .. } = setup;
        let now = clock.now();
        let worker = Self {
            limits: Cell::new(config.limits),
            base_limits: config.limits,
            clock,
            net: Net::real(),
            rng: RefCell::new(rng),
            buffers: Rc::default(),
            alarms: Alarms::default(),
            turn: Cell::default(),
            coarse_clock: Rc::new(Cell::new(now)),
            counters,
            records,
            faults: faults.watched(),
            all_faults: faults,
            route_states,
            kept,
            access: RefCell::default(),
            workers: u32::try_from(config.workers.max(1)).unwrap_or(u32::MAX),
            keeps_dead_replicas: config.keeps_dead_replicas(),
            nobody: Service::new(nobody(), now, 1, false),
            snapshot: RefCell::new(snapshot),
            view: RefCell::default(),
            clients: RefCell::default(),
            by_address: RefCell::default(),
            client_left: Notify::new(),
            held: Cell::default(),
            named: RefCell::default(),
            last_tick: Cell::new(now),
            tick: Cell::new(TICK),
            last_lag: Cell::default(),
            tasks: RefCell::default(),
        };
        (worker, sockets, commands, calls)
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
        *self.by_address.borrow_mut().entry(client.counted_for.get()).or_default() += 1;
        Registered { worker: Rc::clone(self), number, client: Rc::clone(client) }
    }

    /// Returns when a client may be served.
    pub(crate) async fn has_place_for_client(&self) {
        while self.clients.borrow().len() >= self.limits.get().connections_max {
            self.close_longest_idle();
            // One that becomes idle tells nobody.
            let _left_or_over = self.clock.timeout(ROOM_LOOK, self.client_left.notified()).await;
        }
    }

    /// Makes room for clients at the cost of those that have wanted nothing for longest. Some at a time: looking for them costs a
    /// look at all.
    fn close_longest_idle(&self) {
        let clients = self.clients.borrow();
        let mut idle = Vec::new();
        for (number, client) in &*clients {
            idle.extend(client.activity.idle_since().map(|since| (since, *number)));
        }
        let count = idle.len().min(clients.len().div_ceil(CLOSED_SHARE));
        if count == 0 {
            return;
        }
        idle.select_nth_unstable(count - 1);
        let longest = idle.iter().take(count).filter_map(|(_, number)| clients.get(number));
        longest.for_each(|client| client.tell(Order::Finish));
    }

    /// Whether one more connection of this address may be accepted.
    pub(crate) fn has_place_for(&self, address: IpAddr) -> bool {
        let open = self.by_address.borrow().get(&address.to_canonical()).copied().unwrap_or_default();
        open < self.limits.get().connections_per_client_max
    }

    pub(crate) fn expects_proxy_protocol(&self) -> bool {
        self.view.borrow().expects_proxy_protocol
    }

    /// Counts a connection for whom it speaks, and no longer for who opened it; false when that one has enough of them.
    pub(crate) fn counts_for(&self, client: &Client, address: IpAddr) -> bool {
        if !self.has_place_for(address) {
            return false;
        }
        let address = address.to_canonical();
        *self.by_address.borrow_mut().entry(address).or_default() += 1;
        self.uncount(client.counted_for.replace(address));
        true
    }

    fn uncount(&self, address: IpAddr) {
        if let Entry::Occupied(mut open) = self.by_address.borrow_mut().entry(address) {
            *open.get_mut() -= 1;
            if *open.get() == 0 {
                open.remove();
            }
        }
    }

    /// Where this gateway is, if it was told.
    pub(crate) fn gateway_zone(&self) -> Option<ZoneName> {
        self.view.borrow().gateway_zone.clone()
    }

    /// What accepts TLS, as the newest snapshot has it.
    pub(crate) fn tls_acceptor(&self) -> Option<tokio_rustls::TlsAcceptor> {
        self.refresh();
        self.view.borrow().tls.clone().map(tokio_rustls::TlsAcceptor::from)
    }

    /// The service that a listener names, if its connections are passed on as they are.
    pub(crate) fn tcp_service(&self, kind: &ListenerKind) -> Option<Rc<Service>> {
        let name = kind.service()?;
        self.refresh();
        let service = self.view.borrow().services.get(name).cloned()?;
        let is_tcp = service.policy.borrow().protocol == Protocol::Tcp;
        is_tcp.then_some(service)
    }

    /// The right to let a request wait; `None` when too many do.
    pub(crate) fn hold(self: &Rc<Self>) -> Option<Held> {
        if self.held.get() >= self.limits.get().held_max {
            return None;
        }
        self.held.set(self.held.get() + 1);
        Some(Held(Rc::clone(self)))
    }

    /// Where a request goes.
    pub(crate) fn route(&self, kind: &ListenerKind, head: &RequestHead) -> Result<Routed, Refusal> {
        self.refresh();
        let view = Rc::clone(&self.view.borrow());
        if let ListenerKind::Service { service, caller_zone } = kind {
            // Known since it was listened for, but for connections that outlive their listener.
            let found = view.services.get(service).ok_or_else(|| Refusal::NoReplica(service.clone()))?;
            let zone = caller_zone.clone().or_else(|| view.gateway_zone.clone());
            return Ok(Routed::to_service(Rc::clone(found), zone));
        }
        path::check_path(head.path()).map_err(Refusal::BadRequest)?;
        let rule = view
            .routes
            .as_ref()
            .and_then(|routes| routes.find(kind.scheme(), head))
            .ok_or(Refusal::NoRoute)?;
        let index = rule.index;
        let picked = match kept::same_target(rule, head) {
            Some(hash) => rule.pick_by(hash),
            None => rule.pick(&mut self.rng.borrow_mut()),
        };
        match picked.cloned() {
            Some(service) => Ok(Routed::by_rule(service, &view, index)),
            // A redirect asks no service.
            None => {
                Ok(Routed::by_rule(Rc::clone(&self.nobody), &view, index)).and_then(|routed| {
                    match routed.rule() {
                        Some(rule) if rule.filters.redirects() => Ok(routed),
                        _ => Err(Refusal::NoReplica(self.nobody.name.clone())),
                    }
                })
            }
        }
    }

    /// Whether a trace that begins here is sampled. Where nobody collects spans here, services may do so: then all are.
    pub(crate) fn samples_root(&self, rng: &mut Rng) -> bool {
        self.view.borrow().spans.as_ref().is_none_or(|spans| spans.takes_root(rng))
    }

    /// Whether spans of sampled traces are sent.
    pub(crate) fn sends_spans(&self) -> bool {
        self.view.borrow().spans.is_some()
    }

    pub(crate) fn send_spans(&self, spans: RequestSpans) {
        if let Some(queue) = &self.view.borrow().spans {
            queue.send(spans);
        }
    }

    /// By what faults of single requests are signed, if there are any.
    pub(crate) fn fault_key(&self) -> Option<Arc<FaultKey>> {
        self.view.borrow().fault_key.clone()
    }

    /// Whether lines are written for requests.
    pub(crate) fn writes_access_log(&self) -> bool {
        self.access.borrow().is_some()
    }

    pub(crate) fn write_access_log(&self, entry: &AccessEntry<'_>) {
        if let Some((_, writer)) = &mut *self.access.borrow_mut() {
            writer.write(entry, &mut self.rng.borrow_mut());
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
        if let Some(edge) = &snapshot.edge {
            self.limits.set(self.base_limits.with_edge(edge.limits));
        }
        let limits = self.limits.get();
        let idle_limits = IdleLimits {
            connections_max: limits.upstream_idle_connections_max,
            idle_max: limits.upstream_idle_max,
        };
        let known = |name: &ServiceName| match old.services.get(name) {
            Some(service) => Rc::clone(service),
            None => Service::new(name.clone(), now, self.workers, self.keeps_dead_replicas),
        };
        let mut services: BTreeMap<_, _> = snapshot
            .services
            .iter()
            .map(|(name, pool)| {
                let service = known(name);
                service.take(pool, idle_limits, self.clock);
                service.kept.replace(self.kept.of(name, &pool.policy));
                service.take_transport(Transport::new(
                    pool.policy.tls.is_some(),
                    snapshot.replica_tls.get(name),
                ));
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
        self.take_access_log(snapshot.access_log.as_ref());
        let view = View {
            states: self.route_states.of(&snapshot.routes),
            routes: Some(routes),
            services,
            gateway_zone: snapshot.gateway_zone.clone(),
            tls: snapshot.tls.clone(),
            expects_proxy_protocol: snapshot.edge.as_ref().is_some_and(|edge| edge.proxy_protocol),
            spans: snapshot.spans.clone(),
            fault_key: snapshot.fault_key.clone(),
        };
        *self.view.borrow_mut() = Rc::new(view);
    }

    fn take_access_log(&self, log: Option<&Arc<AccessLog>>) {
        let mut access = self.access.borrow_mut();
        let is_same = match (&*access, log) {
            (Some((known, _)), Some(log)) => Arc::ptr_eq(known, log),
            (known, log) => known.is_none() && log.is_none(),
        };
        if !is_same {
            *access = log.map(|log| (Arc::clone(log), log.writer()));
        }
    }

    /// Whether the worker's loop has stood still for more than half of `limit` since `since`: whoever seems slow then may not be.
    pub(crate) fn is_lagging(&self, since: Stamp, limit: Duration) -> bool {
        self.was_lagging(since, limit, self.clock.now())
    }

    /// The same, as of `now`.
    pub(crate) fn was_lagging(&self, since: Stamp, limit: Duration, now: Stamp) -> bool {
        let running = now.since(self.last_tick.get()).saturating_sub(self.tick.get());
        let (at, lag) = self.last_lag.get();
        let noted = if at >= since { lag } else { Duration::ZERO };
        running.max(noted) * 2 > limit.max(LAG_MIN)
    }

    /// How long it takes from one question to the kernel for news to the next: all that is ready runs in between.
    async fn measure_turn(&self, began: Stamp) {
        tokio::task::yield_now().await;
        let turn = self.clock.now().since(began);
        let faded = self.turn.get();
        self.turn.set(turn.max(faded.saturating_sub(faded / TURN_FADE)));
    }

    fn note_tick(&self, now: Stamp, lag: Duration) {
        self.last_tick.set(now);
        self.coarse_clock.set(now);
        if lag >= LAG_MIN {
            self.last_lag.set((now, lag));
            let micros = u64::try_from(lag.as_micros()).unwrap_or(u64::MAX);
            self.counters.lag_max_micros.set(self.counters.lag_max_micros.get().max(micros));
        }
    }

    fn sweep(&self, now: Stamp) {
        self.all_faults.sweep(now);
        let limits = self.limits.get();
        for client in self.clients.borrow().values() {
            client.tell(client.activity.judge(now, &limits));
        }
        for endpoint in self.endpoints() {
            endpoint.sweep(now);
        }
        for service in self.view.borrow().services.values() {
            service.kept.borrow().iter().for_each(|store| store.sweep(now));
        }
        if let Some((_, writer)) = &mut *self.access.borrow_mut() {
            writer.flush();
        }
    }

    /// Lets those in or turns those away whose time has come, and shows how busy services are.
    fn tick_doors(&self, now: Stamp, lag: Duration) {
        let own_lag = if lag >= LAG_MIN { lag } else { Duration::ZERO };
        // It may come just after the kernel was asked for news, and be the last to be read after the next time.
        let own = self.turn.get() * 2;
        let own = if own >= OWN_MIN { own } else { Duration::ZERO };
        let view = Rc::clone(&self.view.borrow());
        for service in view.services.values() {
            service.door.tick(now, own_lag, own);
            service.counters.show(&service.door.load(), service.budget_left(now));
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
                let opening = (service.transport(), self.net, Rc::clone(&self.buffers));
                self.spawn(probe(Rc::clone(endpoint), self.clock, opening));
            }
        }
    }

    /// Runs `work` until `at`; `None` when that came first.
    pub(crate) async fn until<T>(&self, at: Stamp, now: Stamp, work: impl Future<Output = T>) -> Option<T> {
        let wait = at.since(now);
        if wait < ALARM_MAX {
            self.alarms.until(at, work).await
        } else {
            self.clock.timeout(wait, work).await.ok()
        }
    }

    /// How many connections there are.
    fn open(&self) -> usize {
        self.clients.borrow().len()
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

async fn probe(endpoint: Rc<Endpoint>, clock: Clock, opening: (Transport, Net, Rc<BufferPool>)) {
    let (transport, net, buffers) = opening;
    let opened = Connected::open(transport, net, endpoint.address, &buffers);
    let opened = clock.timeout(PROBE_MAX, opened).await;
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

/// A client's entry in the worker's list.
pub(crate) struct Registered {
    worker: Rc<Worker>,
    number: u64,
    client: Rc<Client>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.worker.clients.borrow_mut().remove(&self.number);
        self.worker.uncount(self.client.counted_for.get());
        self.worker.counters.connections.take_one();
        self.worker.client_left.notify_one();
    }
}

/// A request that waits for a replica.
pub(crate) struct Held(Rc<Worker>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.set(self.0.held.get().saturating_sub(1));
    }
}

fn nobody() -> ServiceName {
    "nobody".parse().expect("the name is a legal constant")
}
