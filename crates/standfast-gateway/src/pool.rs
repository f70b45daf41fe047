//! What one worker knows of a service and its replicas, and which replica it takes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use standfast_model::{Instance, ServiceName, Stamp, ZoneName};
use standfast_runtime::{Clock, Rng};

use crate::balance::{self, Candidate, SCAN_MAX};
use crate::budget::Budget;
use crate::latency::{DecayedPeak, Penalty};
use crate::outlier::{Evidence, Health, Room, Standing};
use crate::snapshot::{self, EndpointState, Policy};
use crate::stats::{EndpointCounters, ServiceCounters};
use crate::upstream::Connected;

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
    last_answer: Cell<Stamp>,
    #[expect(clippy::vec_box, reason = "a connection is hundreds of bytes and moves with every request")]
    idle: RefCell<Vec<Box<Connected>>>,
    idle_limits: IdleLimits,
    clock: Clock,
    pub(crate) counters: Arc<EndpointCounters>,
}

impl Endpoint {
    fn new(seen: &snapshot::Endpoint, idle_limits: IdleLimits, clock: Clock) -> Rc<Self> {
        Rc::new(Self {
            instance: seen.instance.clone(),
            address: seen.address,
            zone: seen.zone.clone(),
            state: Cell::new(seen.state),
            in_flight: Cell::default(),
            latency: Cell::default(),
            penalty: Cell::default(),
            health: Cell::default(),
            last_answer: Cell::default(),
            idle: RefCell::default(),
            idle_limits,
            clock,
            counters: Arc::new(EndpointCounters::new(seen.address)),
        })
    }

    fn is_ready(&self) -> bool {
        self.state.get() == EndpointState::Ready
    }

    /// Takes the state that a newer snapshot has. Ready again means a clean record: somebody looked.
    fn take_state(&self, state: EndpointState) {
        if state == EndpointState::Ready && !self.is_ready() {
            self.health.set(Health::default());
        }
        self.state.set(state);
        if state == EndpointState::Draining {
            self.idle.borrow_mut().clear();
        }
    }

    /// A connection that is not in use, if there is one.
    pub(crate) fn take_idle(&self, now: Stamp) -> Option<Box<Connected>> {
        let mut idle = self.idle.borrow_mut();
        while let Some(connected) = idle.pop() {
            if now.since(connected.idle_since) <= self.idle_limits.idle_max && connected.is_reusable() {
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
            .retain_mut(|connected| now.since(connected.idle_since) <= limit && !connected.has_been_closed());
    }

    /// Whether it has answered anybody since `since`.
    pub(crate) fn has_answered_since(&self, since: Stamp) -> bool {
        self.last_answer.get() >= since
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
    endpoint: Rc<Endpoint>,
    started: Cell<Stamp>,
    is_judged: Cell<bool>,
}

impl InFlight {
    pub(crate) fn new(endpoint: &Rc<Endpoint>, started: Stamp) -> Self {
        endpoint.in_flight.set(endpoint.in_flight.get() + 1);
        endpoint.counters.in_flight.add(1);
        Self { endpoint: Rc::clone(endpoint), started: Cell::new(started), is_judged: Cell::new(false) }
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
        self.started.set(now);
    }

    /// What became of it is known: only then does it count as more than a client that left.
    fn is_judged(&self) {
        self.is_judged.set(true);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let endpoint = &self.endpoint;
        endpoint.in_flight.set(endpoint.in_flight.get().saturating_sub(1));
        endpoint.counters.in_flight.take_one();
        if !self.is_judged.get() {
            // The client gave up. That it waited longer than usual is all that is known, and worth knowing.
            let now = endpoint.clock.now();
            let waited = now.since(self.started.get());
            let mut latency = endpoint.latency.get();
            if latency.micros().is_some_and(|usual| waited.as_secs_f64() * 1e6 > usual) {
                latency.observe(waited, now);
                endpoint.latency.set(latency);
            }
        }
    }
}

/// One service.
pub(crate) struct Service {
    pub(crate) name: ServiceName,
    pub(crate) policy: Cell<Policy>,
    endpoints: RefCell<Rc<[Rc<Endpoint>]>>,
    budget: Cell<Budget>,
    /// A planted bug: the dead are chosen for ever.
    keeps_dead_replicas: bool,
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
}

impl Service {
    pub(crate) fn new(name: ServiceName, now: Stamp, keeps_dead_replicas: bool) -> Rc<Self> {
        Rc::new(Self {
            name,
            policy: Cell::default(),
            endpoints: RefCell::new(Rc::new([])),
            budget: Cell::new(Budget::starting(now)),
            keeps_dead_replicas,
            counters: Arc::default(),
        })
    }

    /// Takes what a newer snapshot says. Who stays keeps his record and connections.
    pub(crate) fn take(&self, pool: &snapshot::Pool, idle_limits: IdleLimits, clock: Clock) {
        self.policy.set(pool.policy);
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
        let mut candidates = Candidates::default();
        let mut fallback = Candidates::default();
        for (index, endpoint) in endpoints.iter().enumerate() {
            if !endpoint.is_ready() || is_among(endpoint, wish.tried) {
                continue;
            }
            match self.standing(endpoint, wish.now) {
                Standing::In => candidates.push(endpoint.candidate(index, wish.zone, wish.now)),
                Standing::Trial if self.may_try(endpoint, wish) => return Some(Rc::clone(endpoint)),
                _ => fallback.push(endpoint.candidate(index, wish.zone, wish.now)),
            }
        }
        let chosen = balance::choose(candidates.as_slice(), rng)
            .or_else(|| balance::choose(fallback.as_slice(), rng))?;
        endpoints.get(chosen).cloned()
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
                .cloned(),
        }
    }

    fn standing(&self, endpoint: &Endpoint, now: Stamp) -> Standing {
        if self.keeps_dead_replicas { Standing::In } else { endpoint.health.get().standing(now) }
    }

    /// One request at a time tries a replica that was left out, and only if its failure can be made good.
    fn may_try(&self, endpoint: &Endpoint, wish: Wish<'_>) -> bool {
        endpoint.in_flight.get() == 0
            && wish.tried.is_empty()
            && (wish.is_repeatable && self.has_budget(wish.now) || endpoint.health.get().is_overdue(wish.now))
    }

    /// Takes in what an attempt showed, and how long it took to show.
    pub(crate) fn judge(&self, in_flight: &InFlight, evidence: Evidence, now: Stamp, is_lagging: bool) {
        let endpoint = &in_flight.endpoint;
        in_flight.is_judged();
        let took = now.since(in_flight.started());
        if evidence == Evidence::Answered {
            endpoint.last_answer.set(now);
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

fn is_among(endpoint: &Rc<Endpoint>, tried: &[Rc<Endpoint>]) -> bool {
    tried.iter().any(|other| Rc::ptr_eq(other, endpoint))
}
