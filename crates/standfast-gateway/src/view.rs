//! A snapshot as one worker uses it, and what outlives snapshots: what routes have used of their limits.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use standfast_model::{Route, ServiceName, ZoneName};

use crate::fault::FaultKey;
use crate::pool::Service;
use crate::rate::RateLimiter;
use crate::routes::{RouteTable, Rule};
use crate::spans::Spans;

/// A snapshot as a worker uses it.
#[derive(Default)]
pub(crate) struct View {
    pub(crate) routes: Option<RouteTable<Rc<Service>>>,
    /// Of each route, in the order of the snapshot.
    pub(crate) states: Vec<Arc<RouteState>>,
    pub(crate) services: BTreeMap<ServiceName, Rc<Service>>,
    pub(crate) gateway_zone: Option<ZoneName>,
    pub(crate) tls: Option<Arc<rustls::ServerConfig>>,
    pub(crate) expects_proxy_protocol: bool,
    pub(crate) spans: Option<Arc<Spans>>,
    pub(crate) fault_key: Option<Arc<FaultKey>>,
}

/// Where a request goes.
pub(crate) struct Routed {
    service: Rc<Service>,
    zone: Option<ZoneName>,
    /// Its route, if it came from outside.
    rule: Option<(Rc<View>, usize)>,
}

impl Routed {
    pub(crate) const fn to_service(service: Rc<Service>, zone: Option<ZoneName>) -> Self {
        Self { service, zone, rule: None }
    }

    pub(crate) fn by_rule(service: Rc<Service>, view: &Rc<View>, index: usize) -> Self {
        Self { service, zone: view.gateway_zone.clone(), rule: Some((Rc::clone(view), index)) }
    }

    pub(crate) const fn service(&self) -> &Rc<Service> {
        &self.service
    }

    pub(crate) const fn zone(&self) -> Option<&ZoneName> {
        self.zone.as_ref()
    }

    pub(crate) fn rule(&self) -> Option<&Rule<Rc<Service>>> {
        let (view, index) = self.rule.as_ref()?;
        view.routes.as_ref()?.rules().get(*index)
    }

    pub(crate) fn state(&self) -> Option<&Arc<RouteState>> {
        let (view, index) = self.rule.as_ref()?;
        view.states.get(*index)
    }
}

/// What a route has used of its limits, in all workers together.
#[derive(Debug)]
pub(crate) struct RouteState {
    pub(crate) limiters: Vec<RateLimiter>,
    in_flight: AtomicU32,
}

/// The states of all routes, by all that a route says: one that is changed begins anew. Looked at when a snapshot is taken only.
#[derive(Debug)]
pub(crate) struct RouteStates {
    by_route: Mutex<HashMap<String, Arc<RouteState>>>,
    seed: u64,
}

impl RouteStates {
    pub(crate) fn new(seed: u64) -> Self {
        Self { by_route: Mutex::default(), seed }
    }

    /// The states of these routes; those of others are forgotten once no worker uses them.
    pub(crate) fn of(&self, routes: &[Route]) -> Vec<Arc<RouteState>> {
        let mut known = self.by_route.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, state| Arc::strong_count(state) > 1);
        routes
            .iter()
            .map(|route| {
                let key = format!(
                    "{:?}",
                    (
                        (&route.scheme, &route.host),
                        &route.path,
                        &route.method,
                        &route.headers,
                        &route.query,
                        &route.rate_limits
                    )
                );
                let new = || {
                    let limiters = route.rate_limits.iter().map(|limit| RateLimiter::new(limit, self.seed));
                    Arc::new(RouteState { limiters: limiters.collect(), in_flight: AtomicU32::new(0) })
                };
                Arc::clone(known.entry(key).or_insert_with(new))
            })
            .collect()
    }
}

/// One of a route's places, until it is dropped.
pub(crate) struct RoutePlace(Arc<RouteState>);

impl RoutePlace {
    /// `None` when all are taken.
    pub(crate) fn take(state: &Arc<RouteState>, most: u32) -> Option<Self> {
        if state.in_flight.fetch_add(1, Ordering::Relaxed) < most {
            return Some(Self(Arc::clone(state)));
        }
        state.in_flight.fetch_sub(1, Ordering::Relaxed);
        None
    }
}

impl Drop for RoutePlace {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
