//! What one worker knows of a service and its replicas, and which replica it takes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use standfast_model::{Balance, Instance, ServiceName, Stamp, Traffic, ZoneName};
use standfast_runtime::{Clock, Rng};

use crate::balance::{self, Candidate, SCAN_MAX};
use crate::budget::Budget;
use crate::door::Door;
use crate::gray::{self, Gray, Pace};
use crate::kept::Store;
use crate::latency::{DecayedPeak, Penalty};
use crate::outlier::{Evidence, Health, Room, Standing};
use crate::quantile::Recent;
use crate::ring::{self, Node};
use crate::slow_start;
use crate::snapshot::{self, EndpointState};
use crate::stats::{EndpointCounters, ServiceCounters};
use crate::upstream::h1::Connected;
use crate::upstream::h2::Connections;
use crate::upstream::transport::Transport;

/// A connection that has rested for less is taken for what it was, as long as the runtime has not heard that it was closed.
const MOMENT: Duration = Duration::from_millis(50);
/// Hedging earlier than this would be about the machine's noise.
const HEDGE_MIN: Duration = Duration::from_millis(2);

/// How many unused connections are kept, and how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct IdleLimits {
    pub(crate) connections_max: usize,
    pub(crate) idle_max: Duration,
}

/// One replica.
pub(crate) struct Endpoint {
    pub(crate) instance: Instance,
    pub(crate) address: std::net::SocketAddr,
    zone: ZoneName,
    state: Cell<EndpointState>,
    in_flight: Cell<u32>,
    latency: Cell<DecayedPeak>,
    penalty: Cell<Penalty>,
    pub(crate) health: Cell<Health>,
    pace: Cell<Pace>,
    gray: Cell<Gray>,
    /// When it became ready.
    ready_since: Cell<Stamp>,
    /// Of its name: what consistent hashing knows it by.
    identity: u64,
    last_answer: Cell<Stamp>,
    /// When the newest of the requests was sent that it has answered.
    answered_from: Cell<Stamp>,
    #[expect(clippy::vec_box, reason = "a connection is hundreds of bytes and moves with every request")]
    idle: RefCell<Vec<Box<Connected>>>,
    pub(crate) h2: Connections,
    idle_limits: IdleLimits,
    clock: Clock,
    pub(crate) counters: Arc<EndpointCounters>,
}

impl Endpoint {
    fn new(seen: &snapshot::Endpoint, idle_limits: IdleLimits, clock: Clock) -> Rc<Self> {
        let endpoint = Rc::new(Self {
            instance: seen.instance.clone(),
            address: seen.address,
            zone: seen.zone.clone(),
            state: Cell::new(seen.state),
            in_flight: Cell::default(),
            latency: Cell::default(),
            penalty: Cell::default(),
            health: Cell::default(),
            pace: Cell::default(),
            gray: Cell::default(),
            ready_since: Cell::default(),
            identity: ring::stable_hash(seen.instance.replica.to_string().as_bytes()),
            last_answer: Cell::default(),
            answered_from: Cell::default(),
            idle: RefCell::default(),
            h2: Connections::default(),
            idle_limits,
            clock,
            counters: Arc::new(EndpointCounters::new(seen.address, seen.zone.clone())),
        });
        endpoint.counters.is_ready.set(u64::from(endpoint.is_ready()));
        endpoint
    }

    fn is_ready(&self) -> bool {
        self.state.get() == EndpointState::Ready
    }

    /// Takes the state that a newer snapshot has. Ready again means a clean record: somebody looked.
    fn take_state(&self, state: EndpointState) {
        if state == EndpointState::Ready && !self.is_ready() {
            self.health.set(Health::default());
            self.gray.set(Gray::default());
            self.ready_since.set(self.clock.now());
        }
        self.state.set(state);
        self.counters.is_ready.set(u64::from(self.is_ready()));
        if state == EndpointState::Draining {
            self.let_go();
        }
    }

    /// Gives up the connections that are not in use, and the others with their last request.
    fn let_go(&self) {
        self.idle.borrow_mut().clear();
        self.h2.clear();
    }

    /// A connection that is not in use, if there is one. The kernel is asked whether it has been closed or said something, but for
    /// one that has rested for a moment only and a request that can be sent again: that would be every second system call.
    pub(crate) fn take_idle(&self, now: Stamp, is_repeatable: bool) -> Option<Box<Connected>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut connected) = idle.pop() {
            let rest = now.since(connected.idle_since);
            let is_fine = if is_repeatable && rest < MOMENT {
                connected.is_reusable()
            } else {
                rest <= self.idle_limits.idle_max && connected.is_still_reusable()
            };
            if is_fine {
                return Some(connected);
            }
        }
        None
    }

    /// Keeps a connection for the next request, unless it cannot take one or enough are kept.
    pub(crate) fn keep(&self, mut connected: Box<Connected>) {
        let mut idle = self.idle.borrow_mut();
        let is_wanted = self.state.get() != EndpointState::Draining;
        if is_wanted && connected.is_reusable() && idle.len() < self.idle_limits.connections_max {
            connected.rest(self.clock.now());
            idle.push(connected);
        }
    }

    /// Closes connections that the replica has closed or that are idle for too long.
    pub(crate) fn sweep(&self, now: Stamp) {
        let limit = self.idle_limits.idle_max;
        self.idle
            .borrow_mut()
            .retain_mut(|connected| now.since(connected.idle_since) <= limit && connected.is_reusable());
        self.h2.sweep(now, limit);
        let is_in = [self.health.get().standing(now), self.gray.get().standing(now)] == [Standing::In; 2];
        self.counters.is_left_out.set(u64::from(!is_in));
    }

    /// Whether it has answered anybody since `since`.
    pub(crate) fn has_answered_since(&self, since: Stamp) -> bool {
        self.last_answer.get() >= since
    }

    /// The share of its requests that it is given: all, but for a while after its start and after it was too slow.
    fn share(&self, slow_start: Duration, now: Stamp) -> f64 {
        let back = self.gray.get().share(now);
        let new = if slow_start.is_zero() {
            1.0
        } else {
            slow_start::share(now.since(self.ready_since.get()), slow_start)
        };
        back.min(new)
    }

    pub(crate) const fn zone(&self) -> &ZoneName {
        &self.zone
    }

    /// Requests that it is working on, but for one.
    pub(crate) fn others_in_flight(&self) -> u32 {
        self.in_flight.get().saturating_sub(1)
    }

    /// What it is chosen by, in milliseconds: the lower the better.
    pub(crate) fn score(&self, now: Stamp) -> f64 {
        let latency = self.latency.get().forgiven(now).unwrap_or_default() / 1e3;
        f64::from(self.in_flight.get().max(1)) * latency * self.penalty.get().at(now)
    }

    fn candidate(&self, index: usize, zone: Option<&ZoneName>, now: Stamp) -> Candidate {
        Candidate {
            index,
            in_flight: self.in_flight.get(),
            latency: self.latency.get().forgiven(now),
            penalty: self.penalty.get().at(now),
            is_local: zone.is_some_and(|zone| *zone == self.zone),
        }
    }
}

/// A request that a replica is working on.
pub(crate) struct InFlight {
    service: Rc<Service>,
    endpoint: Rc<Endpoint>,
    started: Cell<Stamp>,
    is_judged: Cell<bool>,
    /// How long a fault has held it before it was sent: that counts as the replica's time.
    held: Cell<Duration>,
    /// It finds out whether a replica that was too slow is well again.
    is_trial: bool,
}

impl InFlight {
    pub(crate) fn new(service: &Rc<Service>, endpoint: &Rc<Endpoint>, started: Stamp) -> Self {
        endpoint.in_flight.set(endpoint.in_flight.get() + 1);
        endpoint.counters.in_flight.add(1);
        let mut pace = endpoint.pace.get();
        pace.sent(started);
        endpoint.pace.set(pace);
        let is_trial = endpoint.gray.get().standing(started) != Standing::In;
        Self {
            service: Rc::clone(service),
            endpoint: Rc::clone(endpoint),
            started: Cell::new(started),
            is_judged: Cell::new(false),
            held: Cell::default(),
            is_trial,
        }
    }

    pub(crate) const fn endpoint(&self) -> &Rc<Endpoint> {
        &self.endpoint
    }

    /// Since when the replica has had it.
    pub(crate) const fn started(&self) -> Stamp {
        self.started.get()
    }

    /// Time begins anew: what came before was not the replica's work.
    pub(crate) fn restart(&self, now: Stamp) {
        self.started.set(now.minus(self.held.get()));
    }

    /// A fault has held it for so long before it was sent.
    pub(crate) fn is_held(&self, time: Duration) {
        self.held.set(self.held.get() + time);
    }

    /// What became of it is known: only then does it count as more than a client that left.
    pub(crate) fn is_judged(&self) {
        self.is_judged.set(true);
    }

    /// It ended in a way that tells nothing of the replica's pace.
    pub(crate) fn tells_no_pace(&self) {
        let mut pace = self.endpoint.pace.get();
        pace.lost();
        self.endpoint.pace.set(pace);
    }
}

impl InFlight {
    /// The answer turned out at its end to be none.
    pub(crate) fn fails_late(&self) {
        let endpoint = &self.endpoint;
        let mut penalty = endpoint.penalty.get();
        penalty.charge(endpoint.clock.now());
        endpoint.penalty.set(penalty);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let endpoint = &self.endpoint;
        endpoint.in_flight.set(endpoint.in_flight.get().saturating_sub(1));
        endpoint.counters.in_flight.take_one();
        if !self.is_judged.get() {
            // It was given up. That it took longer than usual is all that is known, and worth knowing.
            let now = endpoint.clock.now();
            let waited = now.since(self.started.get());
            let mut latency = endpoint.latency.get();
            if latency.micros().is_some_and(|usual| waited.as_secs_f64() * 1e6 > usual) {
                latency.observe(waited, now);
                endpoint.latency.set(latency);
            }
            let is_slow = self.service.p50().is_some_and(|p50| waited * 2 > p50 * 3);
            if is_slow && !endpoint.has_answered_since(self.started.get()) {
                // Silent to everybody meanwhile: the next ones go elsewhere, before it is sure.
                let mut penalty = endpoint.penalty.get();
                penalty.charge(now);
                endpoint.penalty.set(penalty);
            }
            self.service.judge_pace(self, waited, false, now, false);
        }
    }
}

/// One service.
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    pub(crate) policy: RefCell<Traffic>,
    transport: RefCell<Transport>,
    endpoints: RefCell<Rc<[Rc<Endpoint>]>>,
    budget: Cell<Budget>,
    pub(crate) door: Door,
    /// What answers took of late: from the attempt to the answer's head.
    recent: RefCell<Recent>,
    /// Whose turn it is next.
    turn: Cell<usize>,
    /// A planted bug: the dead are chosen for ever.
    keeps_dead_replicas: bool,
    /// Where its answers are kept, if they are.
    pub(crate) kept: RefCell<Option<Arc<Store>>>,
    pub(crate) counters: Arc<ServiceCounters>,
}

/// What the choice of a replica depends on, besides the replicas.
#[derive(Clone, Copy)]
pub(crate) struct Wish<'a> {
    pub(crate) now: Stamp,
    pub(crate) zone: Option<&'a ZoneName>,
    /// Those that have failed this request already.
    pub(crate) tried: &'a [Rc<Endpoint>],
    /// A request that can be repeated may try a replica that was left out.
    pub(crate) is_repeatable: bool,
    /// Of what the same replica is wanted for.
    pub(crate) key_hash: Option<u64>,
    /// It has waited for a ready one in vain: one whose probe fails is better than none.
    pub(crate) is_desperate: bool,
}

impl Service {
    pub(crate) fn new(name: ServiceName, now: Stamp, workers: u32, keeps_dead_replicas: bool) -> Rc<Self> {
        Rc::new(Self {
            name,
            policy: RefCell::default(),
            transport: RefCell::default(),
            endpoints: RefCell::new(Rc::new([])),
            budget: Cell::new(Budget::starting(now)),
            door: Door::new(workers, now),
            recent: RefCell::new(Recent::new(now)),
            turn: Cell::default(),
            keeps_dead_replicas,
            kept: RefCell::default(),
            counters: Arc::default(),
        })
    }

    /// Takes what a newer snapshot says. Who stays keeps his record and connections.
    pub(crate) fn take(&self, pool: &snapshot::Pool, idle_limits: IdleLimits, clock: Clock) {
        self.policy.borrow_mut().clone_from(&pool.policy);
        let old = Rc::clone(&self.endpoints.borrow());
        let mut new: Vec<Rc<Endpoint>> = pool
            .endpoints
            .iter()
            .map(|seen| {
                let is_same =
                    |known: &&Rc<Endpoint>| known.instance == seen.instance && known.address == seen.address;
                let Some(known) = old.iter().find(is_same) else {
                    return Endpoint::new(seen, idle_limits, clock);
                };
                if !(self.keeps_dead_replicas && known.is_ready()) {
                    known.take_state(seen.state);
                }
                Rc::clone(known)
            })
            .collect();
        for known in
            old.iter().filter(|known| !new.iter().any(|kept| Rc::ptr_eq(kept, known))).collect::<Vec<_>>()
        {
            if self.keeps_dead_replicas && known.is_ready() {
                new.push(Rc::clone(known));
            } else {
                known.take_state(EndpointState::Draining);
            }
        }
        *self.counters.endpoints.lock().unwrap_or_else(PoisonError::into_inner) =
            new.iter().map(|endpoint| (endpoint.instance.clone(), Arc::clone(&endpoint.counters))).collect();
        *self.endpoints.borrow_mut() = new.into();
        self.tell_door(clock.now());
    }

    /// How connections to its replicas are opened.
    pub(crate) fn transport(&self) -> Transport {
        self.transport.borrow().clone()
    }

    /// Opens connections in another way from now on. Those that are there serve what they are serving.
    pub(crate) fn take_transport(&self, transport: Transport) {
        if self.transport.borrow().is_same(&transport) {
            return;
        }
        *self.transport.borrow_mut() = transport;
        for endpoint in self.endpoints().iter() {
            endpoint.let_go();
        }
    }

    /// Lets the door know how many replicas carry requests.
    fn tell_door(&self, now: Stamp) {
        let usable =
            |endpoint: &&Rc<Endpoint>| endpoint.is_ready() && self.standing(endpoint, now) == Standing::In;
        let replicas = self.endpoints.borrow().iter().filter(usable).count();
        self.door.set(self.policy.borrow().concurrency, u32::try_from(replicas).unwrap_or(u32::MAX), now);
    }

    pub(crate) fn endpoints(&self) -> Rc<[Rc<Endpoint>]> {
        Rc::clone(&self.endpoints.borrow())
    }

    /// Whether any replica may take requests.
    pub(crate) fn is_ready(&self) -> bool {
        self.endpoints.borrow().iter().any(|endpoint| endpoint.is_ready())
    }

    /// Whether a replica is ready that has not failed this request.
    pub(crate) fn has_another(&self, tried: &[Rc<Endpoint>], except: &Rc<Endpoint>) -> bool {
        let is_other = |endpoint: &Rc<Endpoint>| !Rc::ptr_eq(endpoint, except) && !is_among(endpoint, tried);
        self.endpoints.borrow().iter().any(|endpoint| endpoint.is_ready() && is_other(endpoint))
    }

    /// The replica for a request: one whose time of being left out is over, else the best of those in good standing, else,
    /// since then rather the view than the whole pool is wrong, any that is ready.
    pub(crate) fn choose(&self, wish: Wish<'_>, rng: &mut Rng) -> Option<Rc<Endpoint>> {
        let endpoints = self.endpoints.borrow();
        if endpoints.len() > SCAN_MAX {
            return self.choose_of_many(&endpoints, wish, rng);
        }
        if let Some(turned) = self.choose_by_rule(&endpoints, wish) {
            return Some(turned);
        }
        let slow_start = self.policy.borrow().slow_start;
        let mut candidates = Candidates::default();
        let mut fallback = Candidates::default();
        for (index, endpoint) in endpoints.iter().enumerate() {
            if !endpoint.is_ready() || is_among(endpoint, wish.tried) {
                continue;
            }
            match self.standing(endpoint, wish.now) {
                Standing::In => {
                    let candidate = endpoint.candidate(index, wish.zone, wish.now);
                    let share = endpoint.share(slow_start, wish.now);
                    if share >= 1.0 || slow_start::is_considered(share, rng) {
                        candidates.push(candidate);
                    } else {
                        fallback.push(candidate);
                    }
                }
                Standing::Trial if self.may_try(endpoint, wish) => return Some(Rc::clone(endpoint)),
                _ => fallback.push(endpoint.candidate(index, wish.zone, wish.now)),
            }
        }
        let chosen = balance::choose(candidates.as_slice(), rng)
            .or_else(|| balance::choose(fallback.as_slice(), rng))
            .or_else(|| wish.is_desperate.then(|| unready(&endpoints, wish, rng)).flatten())?;
        endpoints.get(chosen).cloned()
    }

    /// The replica that round robin or consistent hashing want, among those in good standing; `None` where the least loaded is
    /// wanted, or none stands well.
    fn choose_by_rule(&self, endpoints: &[Rc<Endpoint>], wish: Wish<'_>) -> Option<Rc<Endpoint>> {
        let is_usable = |endpoint: &Rc<Endpoint>| {
            endpoint.is_ready()
                && !is_among(endpoint, wish.tried)
                && self.standing(endpoint, wish.now) == Standing::In
        };
        match (&self.policy.borrow().balance, wish.key_hash) {
            (Balance::RoundRobin, _) => {
                let count = endpoints.len();
                let first = self.turn.get();
                let place =
                    (0..count).map(|step| (first + step) % count).find(|at| is_usable(&endpoints[*at]))?;
                self.turn.set((place + 1) % count);
                endpoints.get(place).cloned()
            }
            (Balance::Hash(_), Some(key)) => {
                let nodes = endpoints.iter().enumerate().filter(|(_, endpoint)| is_usable(endpoint));
                let node = |(index, endpoint): (usize, &Rc<Endpoint>)| Node {
                    index,
                    identity: endpoint.identity,
                    weight: 1.0,
                    in_flight: endpoint.in_flight.get(),
                };
                endpoints.get(ring::pick(key, nodes.map(node))?).cloned()
            }
            _ => None,
        }
    }

    /// [`Service::choose`] in a big pool: two of the own zone and two of all, drawn at random. When too many draws miss, the
    /// first that will do from a random place on.
    fn choose_of_many(
        &self,
        endpoints: &[Rc<Endpoint>],
        wish: Wish<'_>,
        rng: &mut Rng,
    ) -> Option<Rc<Endpoint>> {
        const DRAWS: usize = 12;
        let mut candidates = Candidates::default();
        let (mut local, mut remote) = (0, 0);
        for _ in 0..DRAWS {
            let index = rng.below(endpoints.len());
            let endpoint = &endpoints[index];
            let is_usable =
                endpoint.is_ready() && !is_among(endpoint, wish.tried) && !candidates.contains(index);
            if !is_usable {
                continue;
            }
            match self.standing(endpoint, wish.now) {
                Standing::In => {}
                Standing::Trial if self.may_try(endpoint, wish) => return Some(Rc::clone(endpoint)),
                _ => continue,
            }
            let candidate = endpoint.candidate(index, wish.zone, wish.now);
            let count = if candidate.is_local { &mut local } else { &mut remote };
            if *count < 2 {
                *count += 1;
                candidates.push(candidate);
            }
            if remote == 2 && (local == 2 || wish.zone.is_none()) {
                break;
            }
        }
        let start = rng.below(endpoints.len());
        let from_start = || endpoints[start..].iter().chain(&endpoints[..start]);
        let will_do = |endpoint: &&Rc<Endpoint>| endpoint.is_ready() && !is_among(endpoint, wish.tried);
        match balance::choose(candidates.as_slice(), rng) {
            Some(index) => endpoints.get(index).cloned(),
            None => from_start()
                .filter(will_do)
                .find(|endpoint| self.standing(endpoint, wish.now) == Standing::In)
                .or_else(|| from_start().find(will_do))
                .cloned()
                .or_else(|| {
                    let any = wish.is_desperate.then(|| unready(endpoints, wish, rng)).flatten()?;
                    endpoints.get(any).cloned()
                }),
        }
    }

    fn standing(&self, endpoint: &Endpoint, now: Stamp) -> Standing {
        if self.keeps_dead_replicas {
            return Standing::In;
        }
        match endpoint.health.get().standing(now) {
            Standing::In => endpoint.gray.get().standing(now),
            other => other,
        }
    }

    /// One request at a time tries a replica that was left out, and only if its failure can be made good.
    fn may_try(&self, endpoint: &Endpoint, wish: Wish<'_>) -> bool {
        endpoint.in_flight.get() == 0
            && wish.tried.is_empty()
            && (wish.is_repeatable && self.has_budget(wish.now)
                || endpoint.health.get().is_overdue(wish.now)
                || endpoint.gray.get().is_overdue(wish.now))
    }

    /// Takes in what an attempt showed, and how long it took to show.
    pub(crate) fn judge(
        &self,
        endpoint: &Endpoint,
        took: Duration,
        evidence: Evidence,
        now: Stamp,
        is_lagging: bool,
    ) {
        if evidence == Evidence::Answered {
            endpoint.last_answer.set(now);
            endpoint.answered_from.set(endpoint.answered_from.get().max(now.minus(took)));
            self.recent.borrow_mut().observe(took, now);
        }
        if self.keeps_dead_replicas {
            return;
        }
        if evidence != Evidence::Refused {
            let mut latency = endpoint.latency.get();
            latency.observe(took, now);
            endpoint.latency.set(latency);
        }
        let mut penalty = endpoint.penalty.get();
        match evidence {
            Evidence::Answered => penalty.relieve(now),
            _ => penalty.charge(now),
        }
        endpoint.penalty.set(penalty);
        let mut health = endpoint.health.get();
        if health.judge(evidence, now, self.room(now, is_lagging)) {
            endpoint.counters.ejections.add(1);
            tracing::warn!(
                service = %self.name, instance = %endpoint.instance, ?evidence, "a replica is left out for a while"
            );
        }
        endpoint.health.set(health);
    }

    fn room(&self, now: Stamp, lagging: bool) -> Room {
        let endpoints = self.endpoints.borrow();
        let ready = endpoints.iter().filter(|endpoint| endpoint.is_ready());
        let (pool, out) = ready.fold((0, 0), |(pool, out), endpoint| {
            (pool + 1, out + usize::from(endpoint.health.get().standing(now) != Standing::In))
        });
        Room { pool, out, lagging }
    }

    /// What an answer's head usually takes here at most: the middle one of the replicas' decayed peaks, so that one slow replica
    /// does not make the gateway patient with it. `None` when nothing has been answered yet.
    pub(crate) fn usual_latency(&self) -> Option<Duration> {
        let endpoints = self.endpoints.borrow();
        let mut peaks = [0.0; SCAN_MAX];
        let mut count = 0;
        let known = endpoints.iter().filter(|e| e.is_ready()).filter_map(|e| e.latency.get().micros());
        for (place, micros) in peaks.iter_mut().zip(known) {
            *place = micros;
            count += 1;
        }
        let known = &mut peaks[..count];
        known.sort_unstable_by(f64::total_cmp);
        known.get(count.saturating_sub(1) / 2).map(|micros| Duration::from_secs_f64(micros / 1e6))
    }

    /// What half of the attempts took of late.
    fn p50(&self) -> Option<Duration> {
        self.recent.borrow().p50()
    }

    /// What 99 % of the attempts took of late.
    pub(crate) fn p99(&self) -> Option<Duration> {
        self.recent.borrow().p99()
    }

    /// Further attempts that the budget would pay for.
    pub(crate) fn budget_left(&self, now: Stamp) -> f64 {
        let mut budget = self.budget.get();
        budget.left(now)
    }

    /// After which time a request that may be hedged is sent to another replica as well: what 95 % take at most ("The Tail at
    /// Scale", 2013), and twice what half take, so that where all take about the same nothing is sent twice for the machine's
    /// noise. `None` while too little is known, and while the service has all it can do.
    pub(crate) fn hedge_after(&self) -> Option<Duration> {
        let recent = self.recent.borrow();
        let (p50, p95) = (recent.p50()?, recent.p95()?);
        (!self.door.is_full()).then_some(p95.max(p50 * 2).max(HEDGE_MIN))
    }

    /// Whether a request that is at `endpoint` since `started` would be better off elsewhere: another replica has answered one that
    /// was sent later, or has nothing to do. When neither is so, what is slow is not this replica: all are, or this gateway, and a
    /// hedge would add to the load that makes them slow.
    pub(crate) fn is_overtaken(&self, endpoint: &Rc<Endpoint>, started: Stamp) -> bool {
        self.endpoints.borrow().iter().any(|other| {
            !Rc::ptr_eq(other, endpoint)
                && other.is_ready()
                && (other.in_flight.get() == 0 || other.answered_from.get() >= started)
        })
    }

    /// Compares a replica's pace with its peers', after an attempt of it has ended or was given up.
    pub(crate) fn judge_pace(
        &self,
        in_flight: &InFlight,
        took: Duration,
        has_answered: bool,
        now: Stamp,
        lagging: bool,
    ) {
        let endpoint = &in_flight.endpoint;
        let mut pace = endpoint.pace.get();
        if has_answered {
            pace.answered(took, now)
        } else {
            pace.gave_up(took, now)
        }
        endpoint.pace.set(pace);
        if self.keeps_dead_replicas || !(in_flight.is_trial || took >= gray::SLOW_MARGIN) {
            return;
        }
        let endpoints = self.endpoints.borrow();
        let peers = endpoints.iter().filter(|other| {
            !Rc::ptr_eq(other, endpoint) && other.is_ready() && self.standing(other, now) == Standing::In
        });
        let usual = gray::peers_pace(peers.map(|other| other.pace.get()), now);
        let mut standing = endpoint.gray.get();
        let was_in = standing.standing(now) == Standing::In;
        if in_flight.is_trial {
            standing.tried(took, usual, now, &mut pace);
            endpoint.pace.set(pace);
        } else {
            let Room { pool, out, lagging } = self.room(now, lagging);
            if standing.judge(&pace, usual, now, gray::Room { pool, out, lagging }) {
                endpoint.counters.ejections.add(1);
                tracing::warn!(service = %self.name, instance = %endpoint.instance, ?took, ?usual, "a replica is left out for being slow");
            }
        }
        endpoint.gray.set(standing);
        if was_in != (standing.standing(now) == Standing::In) {
            drop(endpoints);
            self.tell_door(now);
        }
    }

    pub(crate) fn deposit(&self) {
        let mut budget = self.budget.get();
        budget.deposit();
        self.budget.set(budget);
    }

    pub(crate) fn has_budget(&self, now: Stamp) -> bool {
        let mut budget = self.budget.get();
        let has_one = budget.has_one(now);
        self.budget.set(budget);
        has_one
    }

    pub(crate) fn withdraw(&self, now: Stamp) -> bool {
        let mut budget = self.budget.get();
        let has_one = budget.withdraw(now);
        self.budget.set(budget);
        has_one
    }

    /// Whether a failed attempt may be followed by another: not with the planted bug.
    pub(crate) const fn repeats(&self) -> bool {
        !self.keeps_dead_replicas
    }
}

/// The few that are compared, without an allocation.
struct Candidates {
    list: [Candidate; SCAN_MAX],
    count: usize,
}

impl Default for Candidates {
    fn default() -> Self {
        let none =
            Candidate { index: usize::MAX, in_flight: 0, latency: None, penalty: 1.0, is_local: false };
        Self { list: [none; SCAN_MAX], count: 0 }
    }
}

impl Candidates {
    fn push(&mut self, candidate: Candidate) {
        if let Some(place) = self.list.get_mut(self.count) {
            *place = candidate;
            self.count += 1;
        }
    }

    fn as_slice(&self) -> &[Candidate] {
        &self.list[..self.count]
    }

    fn contains(&self, index: usize) -> bool {
        self.as_slice().iter().any(|candidate| candidate.index == index)
    }
}

/// Any replica that is not draining, whatever its probe says (fail-open).
fn unready(endpoints: &[Rc<Endpoint>], wish: Wish<'_>, rng: &mut Rng) -> Option<usize> {
    let is_there = |endpoint: &Rc<Endpoint>| {
        endpoint.state.get() == EndpointState::Unready && !is_among(endpoint, wish.tried)
    };
    let there: Vec<usize> = (0..endpoints.len()).filter(|index| is_there(&endpoints[*index])).collect();
    (!there.is_empty()).then(|| there[rng.below(there.len())])
}

fn is_among(endpoint: &Rc<Endpoint>, tried: &[Rc<Endpoint>]) -> bool {
    tried.iter().any(|other| Rc::ptr_eq(other, endpoint))
}
