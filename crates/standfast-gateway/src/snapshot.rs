use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use standfast_model::{Edge, Instance, Route, ServiceName, Traffic, ZoneName};

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
    /// How clients from outside are met; `None` leaves everything as [`crate::Config`] says.
    pub edge: Option<Edge>,
    /// What [`crate::tls_config`] made of the edge's certificates; without it, TLS listeners close what they accept.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// What [`crate::ReplicaTlsConfig`] made of the services' `traffic.tls`; a service that wants TLS and has nothing here is not reached.
    pub replica_tls: BTreeMap<ServiceName, Arc<crate::ReplicaTlsConfig>>,
    /// Where requests are written down.
    pub access_log: Option<Arc<crate::AccessLog>>,
    /// Where spans go, and which traces are sampled.
    pub spans: Option<Arc<crate::Spans>>,
    /// By what `Standfast-Fault` is signed; without it, nobody's is obeyed.
    pub fault_key: Option<Arc<crate::FaultKey>>,
}

/// The replicas of one service.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// One for each replica that exists; at most one for an instance.
    pub endpoints: Vec<Endpoint>,
    /// How its requests are treated.
    pub policy: Traffic,
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
