//! Services that others run: where they are, and whether they look ready.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use standfast_gateway::{Endpoint, EndpointState, ReplicaTlsConfig};
use standfast_model::{
    External, HealthCheck, Instance, Probe, ReplicaId, ReplicaTls, ServiceName, Stack, ZoneName,
};
use standfast_runtime::http::Client;
use standfast_runtime::{Clock, Net, Peer, Stop};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::replica_tls;

/// From one look at a name's addresses to the next.
const RESOLVE_EVERY: Duration = Duration::from_secs(30);
/// The same while a name has none.
const RESOLVE_AGAIN: Duration = Duration::from_secs(1);
/// Addresses of one name that are used.
const ADDRESSES_MAX: usize = 64;
/// An answer to a health check is not read beyond this.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Looks that wait to be taken in.
const LOOKS_MAX: usize = 256;

/// The endpoints of each external service.
pub(crate) type ExternalEndpoints = Arc<BTreeMap<ServiceName, Vec<Endpoint>>>;

/// What one watcher saw of one declared address.
struct Look {
    service: ServiceName,
    /// Its place among the service's addresses.
    place: usize,
    seen: Vec<(SocketAddr, bool)>,
}

/// Keeps the endpoints of the stack's external services, from one stack to the next.
pub(crate) async fn follow(
    mut stacks: watch::Receiver<Option<Arc<Stack>>>,
    endpoints: watch::Sender<ExternalEndpoints>,
    clock: Clock,
    net: Net,
    stop: Stop,
) {
    loop {
        let stack = stacks.borrow_and_update().clone();
        let mut watchers = JoinSet::new();
        let (sender, mut looks) = mpsc::channel(LOOKS_MAX);
        let externals = stack.as_ref().map(|stack| stack.externals.clone()).unwrap_or_default();
        for external in externals.values() {
            for place in 0..external.addresses.len() {
                watchers.spawn(watch_address(external.clone(), place, sender.clone(), clock, net));
            }
        }
        let mut known: BTreeMap<(ServiceName, usize), Vec<(SocketAddr, bool)>> = BTreeMap::new();
        loop {
            tokio::select! {
                biased;
                () = stop.requested() => return,
                changed = stacks.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                Some(look) = looks.recv() => {
                    known.insert((look.service, look.place), look.seen);
                    let all = externals.values().map(|external| (external.name.clone(), endpoints_of(external, &known)));
                    endpoints.send_replace(Arc::new(all.collect()));
                }
            }
        }
    }
}

/// Watches one declared address for ever: finds out what it stands for, and asks whether that is ready.
async fn watch_address(external: External, place: usize, looks: mpsc::Sender<Look>, clock: Clock, net: Net) {
    let Some(declared) = external.addresses.get(place) else { return };
    let client = Client::with_answer_limit(net, clock, ANSWER_BYTES_MAX);
    let mut failures: BTreeMap<SocketAddr, u32> = BTreeMap::new();
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let mut resolved_at = None;
    let mut checker = None;
    loop {
        let now = clock.now();
        let pause = if addresses.is_empty() { RESOLVE_AGAIN } else { RESOLVE_EVERY };
        if resolved_at.is_none_or(|at| now.since(at) >= pause) {
            resolved_at = Some(now);
            match tokio::net::lookup_host((declared.host.as_str(), declared.port)).await {
                Ok(found) => {
                    addresses = found.take(ADDRESSES_MAX).collect();
                    addresses.sort_unstable();
                    addresses.dedup();
                }
                // The last known addresses are better than none.
                Err(error) => {
                    tracing::warn!(service = %external.name, address = %declared, %error, "cannot find an address")
                }
            }
            failures.retain(|address, _| addresses.contains(address));
            let tls = external.traffic.tls.as_ref();
            let read = tls.map(|tls| replica_tls::load(tls, external.traffic.protocol)).transpose();
            match read {
                Ok(read) => checker = read,
                Err(error) => {
                    tracing::warn!(service = %external.name, %error, "its health is asked with what was read before")
                }
            }
        }
        let mut seen = Vec::with_capacity(addresses.len());
        for address in &addresses {
            let is_ready = match &external.healthcheck {
                None => true,
                Some(check) => {
                    let failed = failures.entry(*address).or_default();
                    let is_well = match (&external.traffic.tls, &check.probe) {
                        (Some(tls), Probe::Http { path }) => {
                            let asking = asks_through_tls(checker.as_deref(), *address, tls, path, net);
                            matches!(clock.timeout(check.timeout, asking).await, Ok(Ok(true)))
                        }
                        _ => is_well(&client, *address, check, clock, net).await,
                    };
                    if is_well {
                        *failed = 0
                    } else {
                        *failed += 1
                    }
                    *failed < check.retries.max(1)
                }
            };
            seen.push((*address, is_ready));
        }
        let look = Look { service: external.name.clone(), place, seen };
        if looks.send(look).await.is_err() {
            return;
        }
        let interval = external.healthcheck.as_ref().map_or(RESOLVE_AGAIN, |check| check.interval);
        clock.sleep(interval).await;
    }
}

/// Whether an address answers a GET well, through TLS.
async fn asks_through_tls(
    config: Option<&ReplicaTlsConfig>,
    address: SocketAddr,
    tls: &ReplicaTls,
    path: &str,
    net: Net,
) -> io::Result<bool> {
    let Some(config) = config else { return Ok(false) };
    let mut stream = config.connect_for_check(net, address).await?;
    let host = if tls.server_name.contains(':') {
        format!("[{}]", tls.server_name)
    } else {
        tls.server_name.clone()
    };
    let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut start = [0; b"HTTP/1.1 200".len()];
    stream.read_exact(&mut start).await?;
    Ok(start.starts_with(b"HTTP/1.") && matches!(start[9], b'2' | b'3'))
}

async fn is_well(client: &Client, address: SocketAddr, check: &HealthCheck, clock: Clock, net: Net) -> bool {
    match &check.probe {
        Probe::Http { path } => {
            let request = Request::get(path.as_str()).header("host", address.to_string()).body(Bytes::new());
            let Ok(request) = request else { return false };
            let answer = client.send(&Peer::Tcp(address), request, check.timeout).await;
            answer.is_ok_and(|answer| answer.status().is_success() || answer.status().is_redirection())
        }
        _ => matches!(clock.timeout(check.timeout, net.connect_tcp(address)).await, Ok(Ok(_))),
    }
}

/// The endpoints of one service. When more than half of them look dead, rather the looking is at fault: all are used, and their
/// answers tell which are dead (fail-open).
fn endpoints_of(
    external: &External,
    known: &BTreeMap<(ServiceName, usize), Vec<(SocketAddr, bool)>>,
) -> Vec<Endpoint> {
    let mut endpoints: Vec<Endpoint> = Vec::new();
    for (place, declared) in external.addresses.iter().enumerate() {
        for (address, is_ready) in known.get(&(external.name.clone(), place)).into_iter().flatten() {
            if endpoints.iter().any(|other| other.address == *address) {
                continue;
            }
            let slot = u32::try_from(endpoints.len()).unwrap_or(u32::MAX);
            endpoints.push(Endpoint {
                instance: Instance {
                    replica: ReplicaId { service: external.name.clone(), slot },
                    attempt: 1,
                },
                address: *address,
                zone: declared.zone.clone().unwrap_or_else(external_zone),
                state: if *is_ready { EndpointState::Ready } else { EndpointState::Unready },
            });
        }
    }
    let dead = endpoints.iter().filter(|endpoint| endpoint.state == EndpointState::Unready).count();
    if dead * 2 > endpoints.len() {
        endpoints.iter_mut().for_each(|endpoint| endpoint.state = EndpointState::Ready);
    }
    endpoints
}

/// The zone of an address that names none: no caller is in it.
pub(crate) fn external_zone() -> ZoneName {
    "elsewhere".parse().expect("the name is a legal constant")
}

#[cfg(test)]
mod tests {
    use super::*;
    use standfast_model::{ExternalAddress, Traffic};

    #[tokio::test]
    async fn health_is_asked_through_tls_of_who_can_prove_to_be_the_service() {
        let folder =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../standfast-gateway/tests/certificates");
        let certificate =
            standfast_model::Certificate { cert: folder.join("shop.pem"), key: folder.join("shop.key") };
        let own = standfast_model::Tls { port: 0, certificates: vec![certificate], client_ca: None };
        let acceptor = tokio_rustls::TlsAcceptor::from(crate::edge::load(&own).unwrap());
        let listener = Net::real().listen_tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut request = [0; 1_000];
                let count = stream.read(&mut request).await.unwrap();
                let is_well = request[..count].starts_with(b"GET /well HTTP/1.1\r\nhost: shop.test\r\n");
                let status = if is_well { "200 OK" } else { "503 Service Unavailable" };
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await.unwrap();
                let _gone_or_not = stream.shutdown().await;
            }
        });
        let ask = async |name: &str, path: &str, protocol| {
            let ca = Some(folder.join("authority.pem"));
            let tls = ReplicaTls { server_name: name.to_owned(), ca, certificate: None };
            let config = replica_tls::load(&tls, protocol).unwrap();
            asks_through_tls(Some(&*config), address, &tls, path, Net::real()).await.ok()
        };
        use standfast_model::Protocol;
        assert_eq!(ask("shop.test", "/well", Protocol::Http1).await, Some(true));
        assert_eq!(ask("shop.test", "/well", Protocol::Http2).await, Some(true));
        assert_eq!(ask("shop.test", "/ill", Protocol::Http1).await, Some(false));
        assert_eq!(ask("first.test", "/well", Protocol::Http1).await, None);
    }

    #[test]
    fn when_most_look_dead_all_are_used() {
        let address = |port| ExternalAddress { host: "127.0.0.1".to_owned(), port, zone: None };
        let external = External {
            name: "up".parse().unwrap(),
            addresses: vec![address(1), address(2), address(3)],
            healthcheck: None,
            ports: Vec::new(),
            traffic: Traffic::default(),
        };
        let seen = |ready: [bool; 3]| {
            let known = (0..3).map(|place| {
                let address: SocketAddr = format!("127.0.0.1:{}", place + 1).parse().unwrap();
                ((external.name.clone(), place), vec![(address, ready[place])])
            });
            endpoints_of(&external, &known.collect())
                .iter()
                .filter(|e| e.state == EndpointState::Ready)
                .count()
        };
        assert_eq!([seen([true; 3]), seen([true, true, false]), seen([true, false, false])], [3, 2, 3]);
    }
}
