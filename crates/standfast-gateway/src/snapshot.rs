use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use standfast_model::{Instance, Route, ServiceName, ZoneName};

/// All that the gateway knows of the world, at one moment. It never changes: a newer one replaces it, and each worker takes the
/// newest before each request. Open connections and running requests are not touched by that.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Grows with each snapshot; only shown, in [`crate::Stats`].
    pub version: u64,
    /// The routes for requests from outside.
    pub routes: Vec<Route>,
    /// The services and where they are.
    pub services: BTreeMap<ServiceName, Pool>,
    /// The zone that this gateway runs in, for requests whose caller's zone is not known.
    pub gateway_zone: Option<ZoneName>,
}

/// The replicas of one service.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// One for each replica that exists; at most one for an instance.
    pub endpoints: Vec<Endpoint>,
    /// How its requests are treated.
    pub policy: Policy,
}

/// One running replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Which start of which replica. Another instance at the same address is another endpoint: it inherits no history.
    pub instance: Instance,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its zone.
    pub zone: ZoneName,
    /// Whether requests may go there.
    pub state: EndpointState,
}

/// Whether requests may go to an endpoint, as its platform and its probes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointState {
    /// They may.
    Ready,
    /// Not now: it is starting, or its probe fails.
    Unready,
    /// No new ones; those that are there go on.
    Draining,
}

/// How the requests for one service are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// From the request's head to the answer's head, all attempts together. A shorter `Standfast-Deadline` wins; a longer one
    /// wins only between services, since from outside anyone could write it.
    pub timeout: Duration,
    /// How often one request may be *sent*, the first time included; at least 1. Attempts in which nothing was sent are free.
    pub attempts_max: u32,
    /// How long one request waits, all its waits together, while no replica can take it; then it is answered with 503.
    pub hold_max: Duration,
}

impl Policy {
    /// [`Policy::timeout`] unless told otherwise.
    pub const TIMEOUT: Duration = Duration::from_secs(10);
    /// [`Policy::attempts_max`] unless told otherwise.
    pub const ATTEMPTS_MAX: u32 = 3;
    /// [`Policy::hold_max`] unless told otherwise.
    pub const HOLD_MAX: Duration = Duration::from_secs(5);
}

impl Default for Policy {
    fn default() -> Self {
        Self { timeout: Self::TIMEOUT, attempts_max: Self::ATTEMPTS_MAX, hold_max: Self::HOLD_MAX }
    }
}
