//! From control's words to the gateway's and the state API's.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use standfast_control::{ReplicaStatus, Role, Status};
use standfast_gateway::{Endpoint, EndpointState, FaultKey, Pool, Snapshot};
use standfast_model::{ServiceName, Stack};
use standfast_platform::ReplicaState;
use standfast_runtime::Stop;
use tokio::sync::{oneshot, watch};

use crate::alone::external_pools;
use crate::edge::AccessLogs;
use crate::externals::ExternalEndpoints;
use crate::replica_tls;
use crate::signals::SpanExports;
use crate::wiring::Wiring;

/// Renews the gateway's picture of the world whenever control's changes, and lets the gateway accept once there is one.
pub(crate) async fn snapshots(
    mut statuses: watch::Receiver<Arc<Status>>,
    stacks: watch::Receiver<Option<Arc<Stack>>>,
    mut outside: Outside,
    snapshots: watch::Sender<Arc<Snapshot>>,
    wiring: Arc<Wiring>,
    stop: Stop,
) {
    let mut version = 0;
    loop {
        let status = Arc::clone(&statuses.borrow_and_update());
        let stack = stacks.borrow().clone();
        if let (Some(_), Some(stack)) = (&status.target, stack) {
            version += 1;
            let mut next = snapshot(&stack, &status, &outside.externals.borrow_and_update(), version);
            next.access_log = outside.access_logs.of(stack.edge.access_log.as_ref());
            next.spans = outside.spans.of(&stack);
            next.tls = outside.tls.borrow_and_update().clone();
            let files = *outside.replica_tls_files.borrow_and_update();
            next.replica_tls = outside.replica_tls.of(&stack, files);
            next.fault_key = outside.fault_key.borrow_and_update().clone();
            snapshots.send_replace(Arc::new(next));
            if let Err(error) = wiring.open().await {
                tracing::error!(%error, "the gateway cannot accept yet");
            }
        }
        tokio::select! {
            biased;
            () = stop.requested() => return,
            changed = statuses.changed() => if changed.is_err() { return },
            Ok(()) = outside.externals.changed() => {}
            Ok(()) = outside.tls.changed() => {}
            Ok(()) = outside.replica_tls_files.changed() => {}
            Ok(()) = outside.fault_key.changed() => {}
        }
    }
}

/// What comes from beyond the stack.
pub(crate) struct Outside {
    pub(crate) externals: watch::Receiver<ExternalEndpoints>,
    pub(crate) tls: watch::Receiver<Option<Arc<rustls::ServerConfig>>>,
    pub(crate) fault_key: watch::Receiver<Option<Arc<FaultKey>>>,
    pub(crate) access_logs: AccessLogs,
    pub(crate) spans: SpanExports,
    pub(crate) replica_tls: replica_tls::Keeper,
    pub(crate) replica_tls_files: watch::Receiver<u64>,
}

/// Keeps the state API's list of services; says once when there is one.
pub(crate) async fn services(
    mut stacks: watch::Receiver<Option<Arc<Stack>>>,
    services: watch::Sender<BTreeSet<ServiceName>>,
    is_known: oneshot::Sender<()>,
    stop: Stop,
) {
    let mut is_known = Some(is_known);
    loop {
        let stack = stacks.borrow_and_update().clone();
        if let Some(stack) = stack {
            services.send_replace(stack.services.keys().cloned().collect());
            if let Some(is_known) = is_known.take() {
                let _api_has_stopped = is_known.send(()).is_err();
            }
        }
        tokio::select! {
            biased;
            () = stop.requested() => return,
            changed = stacks.changed() => if changed.is_err() { return },
        }
    }
}

/// What the gateway must know.
fn snapshot(stack: &Stack, status: &Status, externals: &ExternalEndpoints, version: u64) -> Snapshot {
    let pool = |name: &ServiceName| {
        let replicas =
            status.services.get(name).map(|service| service.replicas.as_slice()).unwrap_or_default();
        let policy = stack.services.get(name).map(|service| service.traffic.clone()).unwrap_or_default();
        Pool { endpoints: replicas.iter().filter_map(endpoint).collect(), policy }
    };
    let services: BTreeMap<ServiceName, Pool> = stack
        .services
        .keys()
        .map(|name| (name.clone(), pool(name)))
        .chain(external_pools(stack, externals))
        .collect();
    let edge = Some(stack.edge.clone());
    Snapshot { version, routes: stack.routes.clone(), services, edge, ..Snapshot::default() }
}

fn endpoint(replica: &ReplicaStatus) -> Option<Endpoint> {
    let state = match (replica.role, &replica.state) {
        (Role::Run, Some(ReplicaState::Serving { .. })) => EndpointState::Ready,
        (Role::Run, _) => EndpointState::Unready,
        (Role::Drain | Role::Leaving, _) => EndpointState::Draining,
        (Role::Completed | Role::GivenUp, _) => return None,
    };
    Some(Endpoint {
        instance: replica.instance.clone(),
        address: replica.endpoint?,
        zone: replica.zone.clone(),
        state,
    })
}
