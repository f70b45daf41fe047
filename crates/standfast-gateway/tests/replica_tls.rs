//! TLS to replicas.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use rustls::ServerConfig;
use standfast_gateway::{ListenerKind, ReplicaTlsConfig, Snapshot};
use standfast_model::{Certificate, Protocol, ReplicaTls};
use standfast_runtime::Net;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::h2_rig::{H2Replica, soon};
use crate::replica::Replica;
use crate::rig::{Rig, endpoint, eventually, get, one_worker, post, snapshot, up};
use crate::tls::{file, server};

/// Speaks TLS before a replica that does not. It dies when dropped.
struct Front {
    address: SocketAddr,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    connections: AtomicUsize,
    refused: AtomicUsize,
    /// What was agreed on, one for each handshake, and whether the client showed a certificate.
    agreed: Mutex<Vec<(Option<Vec<u8>>, bool)>>,
}

impl Front {
    async fn start(config: Arc<ServerConfig>, behind: SocketAddr) -> Self {
        let listener = Net::real().listen_tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (address, shared, mut tasks) =
            (listener.local_addr().unwrap(), Arc::<Shared>::default(), JoinSet::new());
        let accepting = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                let (acceptor, shared) = (TlsAcceptor::from(Arc::clone(&config)), Arc::clone(&accepting));
                connections.spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        shared.refused.fetch_add(1, Ordering::SeqCst);
                        return;
                    };
                    let session = stream.get_ref().1;
                    let agreed = session.alpn_protocol().map(<[u8]>::to_vec);
                    shared.agreed.lock().unwrap().push((agreed, session.peer_certificates().is_some()));
                    let mut replica = Net::real().connect_tcp(behind).await.unwrap();
                    let _broken_off = copy_bidirectional(&mut stream, &mut replica).await;
                });
            }
        });
        Self { address, shared, _tasks: tasks }
    }

    fn agreed(&self) -> Vec<(Option<Vec<u8>>, bool)> {
        self.shared.agreed.lock().unwrap().clone()
    }

    fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

fn settings(name: &str) -> ReplicaTls {
    ReplicaTls { server_name: name.to_owned(), ca: Some(file("authority.pem")), certificate: None }
}

fn config(tls: &ReplicaTls, protocol: Protocol) -> Arc<ReplicaTlsConfig> {
    ReplicaTlsConfig::new(tls, protocol, &|path| std::fs::read(path)).unwrap()
}

/// A snapshot in which [`up`] speaks a protocol through TLS.
fn through_tls(address: SocketAddr, tls: &ReplicaTls, protocol: Protocol) -> Snapshot {
    let mut snapshot = snapshot(vec![endpoint(0, address)]);
    let policy = &mut snapshot.services.get_mut(&up()).unwrap().policy;
    (policy.protocol, policy.tls) = (protocol, Some(tls.clone()));
    policy.hold = std::time::Duration::from_millis(50);
    snapshot.replica_tls.insert(up(), config(tls, protocol));
    snapshot
}

fn pattern(bytes: usize) -> Bytes {
    (0..bytes).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_pass_through_tls_and_connections_are_used_again() {
    let (old, new) = (Replica::start().await, H2Replica::start().await);
    let h1 = Front::start(server(&["first", "shop"], None), old.address).await;
    let h2 = Front::start(server(&["first", "shop"], None), new.address).await;
    for (front, protocol, alpn) in
        [(&h1, Protocol::Http1, &b"http/1.1"[..]), (&h2, Protocol::Http2, &b"h2"[..])]
    {
        let rig = Rig::start(through_tls(front.address, &settings("shop.test"), protocol));
        let mut client = rig.client().await;
        for bytes in [0, 1, (64 << 10) + 1, 3 << 20, 0, 10] {
            let answer = client.send(post("/", pattern(bytes))).await;
            assert!(answer.status == 200 && answer.body == pattern(bytes), "{protocol:?} {bytes}");
            if client.is_closed() {
                // An answer that begins before its request ends may end the connection.
                client = rig.client().await;
            }
        }
        for _ in 0..20 {
            assert_eq!(rig.client().await.get("/").await.status, 200);
        }
        assert_eq!(front.agreed(), vec![(Some(alpn.to_vec()), false); front.connections()]);
        assert!(front.connections() <= 3, "{protocol:?}: {}", front.connections());
    }
    assert!(new.seen().iter().all(|seen| seen.target == "https://shop.test/"));
    assert!(old.seen().iter().all(|seen| seen.headers["x-forwarded-proto"] == "http"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_cannot_prove_to_be_the_service_gets_no_request() {
    let replica = Replica::start().await;
    let front = Front::start(server(&["shop"], None), replica.address).await;
    let other = Front::start(server(&["shop"], None), replica.address).await;
    let strange = ReplicaTls { ca: Some(file("client-strange.pem")), ..settings("shop.test") };
    for (what, tls, protocol) in [
        ("another name", settings("first.test"), Protocol::Http1),
        ("an address", settings("127.0.0.1"), Protocol::Http1),
        ("another authority", strange, Protocol::Http1),
    ] {
        let rig = Rig::start(through_tls(front.address, &tls, protocol));
        assert_eq!(rig.client().await.get("/").await.status, 503, "{what}");
        assert_eq!(rig.endpoint_stats_at(front.address).attempts, 0, "{what}");
    }
    // Where TLS is wanted and cannot be had, nothing goes plain.
    let mut world = through_tls(replica.address, &settings("shop.test"), Protocol::Http1);
    world.replica_tls.clear();
    let rig = Rig::start(world);
    assert_eq!(rig.client().await.get("/").await.status, 503);
    assert_eq!((replica.seen_count(), replica.connections()), (0, 0));
    // One that speaks HTTP/1.1 only where HTTP/2 is wanted.
    let mut only_h1 = ServerConfig::clone(&server(&["shop"], None));
    only_h1.alpn_protocols = vec![b"http/1.1".to_vec()];
    let old = Front::start(Arc::new(only_h1), replica.address).await;
    let rig = Rig::start(through_tls(old.address, &settings("shop.test"), Protocol::Http2));
    assert_eq!(rig.client().await.get("/").await.status, 503);
    // The right settings, exchanged while it runs.
    let rig = Rig::start(through_tls(other.address, &settings("first.test"), Protocol::Http1));
    assert_eq!(rig.client().await.get("/").await.status, 503);
    let right = settings("shop.test");
    rig.publish(|next| {
        next.replica_tls.insert(up(), config(&right, Protocol::Http1));
    })
    .await;
    let mut client = rig.client().await;
    let mut status = 0;
    for _ in 0..100 {
        status = client.get("/").await.status;
        if status == 200 {
            break;
        }
    }
    assert_eq!(status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_shows_a_certificate_where_one_is_wanted() {
    let replica = Replica::start().await;
    let front = Front::start(server(&["shop"], Some("authority.pem")), replica.address).await;
    let without = Rig::start(through_tls(front.address, &settings("shop.test"), Protocol::Http1));
    assert!(matches!(without.client().await.get("/").await.status, 502 | 503));
    let own = Certificate { cert: file("client.pem"), key: file("client.key") };
    let tls = ReplicaTls { certificate: Some(own), ..settings("shop.test") };
    let rig = Rig::start(through_tls(front.address, &tls, Protocol::Http1));
    assert_eq!(rig.client().await.get("/").await.status, 200);
    assert_eq!(front.agreed().last().unwrap(), &(Some(b"http/1.1".to_vec()), true));
    let missing = Certificate { cert: file("missing.pem"), key: file("client.key") };
    let tls = ReplicaTls { certificate: Some(missing), ..settings("shop.test") };
    let error = ReplicaTlsConfig::new(&tls, Protocol::Http1, &|path| std::fs::read(path)).unwrap_err();
    assert!(error.to_string().contains("missing.pem"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plain_connections_are_passed_on_through_tls() {
    let replica = Replica::start().await;
    let mut anything = ServerConfig::clone(&server(&["shop"], None));
    anything.alpn_protocols.clear();
    let front = Front::start(Arc::new(anything), replica.address).await;
    let kind = ListenerKind::Service { service: up(), caller_zone: None };
    let world = through_tls(front.address, &settings("shop.test"), Protocol::Tcp);
    let rig = Rig::start_as(kind, one_worker(), world);
    let mut stream = Net::real().connect_tcp(rig.public).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    let _reset_behind_the_answer = soon("the answer", stream.read_to_string(&mut answer)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(front.agreed(), [(None, false)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_ends_while_it_lies_idle_is_not_used() {
    let replica = Replica::start().await;
    let front = Front::start(server(&["shop"], None), replica.address).await;
    let rig = Rig::start(through_tls(front.address, &settings("shop.test"), Protocol::Http1));
    let mut client = rig.client().await;
    for round in 1..=5 {
        // The replica says goodbye with its answer.
        assert_eq!(client.send(get("/bye")).await.status, 200);
        assert_eq!(client.get("/").await.status, 200);
        eventually("it is counted", || rig.endpoint_stats_at(front.address).attempts == round * 2).await;
    }
    assert_eq!((rig.stats().retries, rig.endpoint_stats_at(front.address).broken), (0, 0));
}
