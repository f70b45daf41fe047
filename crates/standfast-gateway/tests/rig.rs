//! A gateway before replicas, and clients.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use socket2::{Domain, Socket, Type};
use standfast_gateway::{
    Config, Endpoint, EndpointState, EndpointStats, Gateway, ListenerInput, ListenerKind, Pool, ServiceStats,
    Snapshot,
};
use standfast_model::{Instance, ReplicaId, Route, ServiceName, Target, Traffic, ZoneName};
use standfast_runtime::{Clock, Net};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::replica::Replica;

/// The service that tests use unless they need two.
pub(crate) fn up() -> ServiceName {
    "up".parse().unwrap()
}

pub(crate) fn zone(name: &str) -> ZoneName {
    name.parse().unwrap()
}

/// Waits for a condition, at most 10 s.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let clock = Clock::system();
    let waiting = async {
        while !condition() {
            clock.sleep(Duration::from_millis(2)).await;
        }
    };
    clock.timeout(Duration::from_secs(10), waiting).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// An endpoint of [`up`], ready, in zone `a`.
pub(crate) fn endpoint(slot: u32, address: SocketAddr) -> Endpoint {
    Endpoint {
        instance: Instance { replica: ReplicaId { service: up(), slot }, attempt: 1 },
        address,
        zone: zone("a"),
        state: EndpointState::Ready,
    }
}

/// A snapshot in which everything goes to [`up`], which is at `endpoints`.
pub(crate) fn snapshot(endpoints: Vec<Endpoint>) -> Snapshot {
    Snapshot {
        version: 1,
        routes: vec![Route::prefix("/", vec![Target { service: up(), weight: 1 }])],
        services: BTreeMap::from([(up(), Pool { endpoints, policy: Traffic::default() })]),
        gateway_zone: Some(zone("a")),
        ..Snapshot::default()
    }
}

/// Listens at a port, given one if it is 0, that stays taken while the socket is held, so that no other test is given the
/// port of a replica that died while this test's gateway still asks for it.
pub(crate) async fn listen_and_hold(address: SocketAddr) -> (TcpListener, Socket) {
    let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    held.set_reuse_address(true).unwrap();
    held.bind(&address.into()).unwrap();
    let address = held.local_addr().unwrap().as_socket().unwrap();
    (Net::real().listen_tcp(address).await.unwrap(), held)
}

/// A socket as the agent makes them.
pub(crate) fn socket() -> std::net::TcpListener {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap()
}

pub(crate) fn one_worker() -> Config {
    Config { workers: 1, ..Config::default() }
}

/// A gateway with one public listener.
pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    pub(crate) public: SocketAddr,
    /// Held open, as the agent does.
    pub(crate) socket: std::net::TcpListener,
    snapshots: watch::Sender<Arc<Snapshot>>,
}

impl Rig {
    /// One worker, so that what one request teaches the next one knows.
    pub(crate) fn start(snapshot: Snapshot) -> Self {
        Self::start_with(one_worker(), snapshot)
    }

    pub(crate) fn start_with(config: Config, snapshot: Snapshot) -> Self {
        Self::start_as(ListenerKind::Public, config, snapshot)
    }

    /// With a listener of another kind.
    pub(crate) fn start_as(kind: ListenerKind, config: Config, snapshot: Snapshot) -> Self {
        let socket = socket();
        let public = socket.local_addr().unwrap();
        let (snapshots, receiver) = watch::channel(Arc::new(snapshot));
        let input = ListenerInput { kind, sockets: vec![socket.try_clone().unwrap()] };
        let gateway = Gateway::start(config, vec![input], receiver, Clock::system(), 7).unwrap();
        Self { gateway, public, socket, snapshots }
    }

    /// Before all of these, ready.
    pub(crate) fn before(replicas: &[&Replica]) -> Self {
        Self::start(snapshot(endpoints(replicas)))
    }

    /// Publishes a changed snapshot and waits until every worker has it.
    pub(crate) async fn publish(&self, change: impl FnOnce(&mut Snapshot)) {
        let mut next = Snapshot::clone(&self.snapshots.borrow());
        next.version += 1;
        let version = next.version;
        change(&mut next);
        self.snapshots.send_replace(Arc::new(next));
        eventually("workers have the snapshot", || self.gateway.stats().snapshot_version == version).await;
    }

    pub(crate) async fn publish_endpoints(&self, change: impl FnOnce(&mut Vec<Endpoint>)) {
        self.publish(|snapshot| change(&mut snapshot.services.get_mut(&up()).unwrap().endpoints)).await;
    }

    pub(crate) fn stats(&self) -> ServiceStats {
        // A worker that has just started may not have taken its snapshot yet.
        self.gateway.stats().services.get(&up()).cloned().unwrap_or_default()
    }

    pub(crate) fn endpoint_stats(&self, replica: &Replica) -> EndpointStats {
        self.endpoint_stats_at(replica.address)
    }

    pub(crate) fn endpoint_stats_at(&self, address: SocketAddr) -> EndpointStats {
        let stats = self.stats();
        // As above: before the first request nothing may be known of it.
        stats.endpoints.into_values().find(|stats| stats.address == Some(address)).unwrap_or_default()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.public).await
    }
}

pub(crate) fn endpoints(replicas: &[&Replica]) -> Vec<Endpoint> {
    replicas.iter().zip(0..).map(|(replica, slot)| endpoint(slot, replica.address)).collect()
}

/// One connection to a gateway.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    _driver: JoinSet<()>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = Net::real().connect_tcp(address).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            let _broken_off = connection.await;
        });
        Self { sender, _driver: driver }
    }

    /// Sends a request and waits for the answer's head.
    pub(crate) async fn begin(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<Response<hyper::body::Incoming>> {
        self.sender.ready().await?;
        self.sender.send_request(request).await
    }

    /// Sends a request and reads the whole answer.
    pub(crate) async fn try_send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Answer> {
        let (head, body) = self.begin(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Answer {
        self.try_send(request).await.unwrap()
    }

    pub(crate) async fn get(&mut self, path: &str) -> Answer {
        self.send(get(path)).await
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "shop.test").body(Full::default()).unwrap()
}

pub(crate) fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    Request::post(path).header("host", "shop.test").body(Full::new(body.into())).unwrap()
}

/// Adds a field to a request.
pub(crate) fn with(
    mut request: Request<Full<Bytes>>,
    name: &'static str,
    value: &str,
) -> Request<Full<Bytes>> {
    request.headers_mut().insert(name, value.parse().unwrap());
    request
}

/// Sends bytes and reads until the other side closes.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = Net::real().connect_tcp(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let reading = stream.read_to_end(&mut answer);
    let _reset_after_the_answer =
        Clock::system().timeout(Duration::from_secs(10), reading).await.expect("the gateway closes");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Several clients that send requests as fast as they are answered, until told to stop.
pub(crate) struct Load {
    stop: watch::Sender<bool>,
    clients: JoinSet<Vec<Sent>>,
    pub(crate) count: Arc<std::sync::atomic::AtomicUsize>,
}

/// One request of a [`Load`].
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) id: String,
    /// The status, and the reason when the gateway answered itself.
    pub(crate) result: Result<(u16, Option<String>), String>,
    pub(crate) took: Duration,
}

impl Sent {
    pub(crate) fn is_ok(&self) -> bool {
        matches!(self.result, Ok((200, _)))
    }
}

impl Load {
    /// `make` turns a unique id into a request.
    pub(crate) fn start(
        address: SocketAddr,
        clients: usize,
        make: impl Fn(&str) -> Request<Full<Bytes>> + Clone + Send + Sync + 'static,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let count = Arc::<std::sync::atomic::AtomicUsize>::default();
        let mut running = JoinSet::new();
        for number in 0..clients {
            let (make, stopped, count) = (make.clone(), stopped.clone(), Arc::clone(&count));
            running.spawn(async move {
                let (mut client, mut sent, clock) =
                    (Client::connect(address).await, Vec::new(), Clock::system());
                while !*stopped.borrow() {
                    let id = format!("{number}-{}", sent.len());
                    let began = clock.now();
                    let result = client.try_send(make(&id)).await;
                    let result = result.map(|a| (a.status, a.header("standfast-reason").map(str::to_owned)));
                    if result.is_err() {
                        client = Client::connect(address).await;
                    }
                    let took = clock.now().since(began);
                    sent.push(Sent { id, result: result.map_err(|error| format!("{error:?}")), took });
                    count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
                sent
            });
        }
        Self { stop, clients: running, count }
    }

    /// Waits until `more` further requests have been answered.
    pub(crate) async fn more(&self, more: usize) {
        let until = self.count.load(std::sync::atomic::Ordering::SeqCst) + more;
        eventually("the load goes on", || self.count.load(std::sync::atomic::Ordering::SeqCst) >= until)
            .await;
    }

    pub(crate) async fn finish(mut self) -> Vec<Sent> {
        self.stop.send_replace(true);
        let mut all = Vec::new();
        while let Some(sent) = self.clients.join_next().await {
            all.extend(sent.unwrap());
        }
        all
    }
}
