//! A replica in this process, which can be made to misbehave.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use standfast_runtime::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::rig::listen_and_hold;

/// How a replica treats requests.
#[derive(Debug, Clone)]
pub(crate) enum Mood {
    /// `200`, with the request's body.
    Well,
    /// After a while as [`Mood::Well`].
    Slow(Duration),
    /// This status with these fields.
    Status(StatusCode, Vec<(&'static str, &'static str)>),
    /// Connections are taken, requests are read, nothing is answered.
    Frozen,
    /// The connection is broken off as soon as a request was read.
    Breaks,
}

/// What a replica has seen of one request.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) trailers: Option<HeaderMap>,
}

#[derive(Debug)]
struct Shared {
    mood: watch::Sender<Mood>,
    seen: Mutex<Vec<Seen>>,
    running: AtomicU64,
    connections: AtomicU64,
    /// Lets requests for `/gated` end.
    gate: Notify,
    tasks: Mutex<JoinSet<()>>,
}

/// The replica; it dies when dropped.
#[derive(Debug)]
pub(crate) struct Replica {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _port: socket2::Socket,
}

type Body = BoxBody<Bytes, std::convert::Infallible>;

impl Replica {
    pub(crate) async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into()).await
    }

    /// Starts again where another one died.
    pub(crate) async fn start_at(address: SocketAddr) -> Self {
        let (listener, port) = listen_and_hold(address).await;
        let shared = Arc::new(Shared {
            mood: watch::Sender::new(Mood::Well),
            seen: Mutex::default(),
            running: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            gate: Notify::new(),
            tasks: Mutex::default(),
        });
        let address = listener.local_addr().unwrap();
        let replica = Self { address, shared: Arc::clone(&shared), _port: port };
        let accepting = async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let service = {
                    let shared = Arc::clone(&shared);
                    service_fn(move |request| answer(Arc::clone(&shared), request))
                };
                let connection = async move {
                    let served = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service);
                    let _broken_off = served.with_upgrades().await;
                };
                shared.tasks.lock().unwrap().spawn(connection);
            }
        };
        replica.shared.tasks.lock().unwrap().spawn(accepting);
        replica
    }

    /// As `kill -9`: the port refuses, connections break. All of them are closed when this returns.
    pub(crate) async fn kill(&self) {
        loop {
            let mut tasks = std::mem::take(&mut *self.shared.tasks.lock().unwrap());
            if tasks.is_empty() {
                break;
            }
            // One that accepts may have put a last connection into the new set before it ended.
            tasks.shutdown().await;
        }
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.shared.mood.send_replace(mood);
    }

    /// Everything seen so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn seen_count(&self) -> usize {
        self.shared.seen.lock().unwrap().len()
    }

    /// Requests being worked on.
    pub(crate) fn running(&self) -> u64 {
        self.shared.running.load(Ordering::SeqCst)
    }

    /// Connections taken so far.
    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Lets one request for `/gated` end, or the next part of a `/parts` answer go.
    pub(crate) fn open_gate(&self) {
        self.shared.gate.notify_one();
    }
}

/// Counts a request while it runs.
struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(
    shared: Arc<Shared>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, std::io::Error> {
    shared.running.fetch_add(1, Ordering::SeqCst);
    let running = Running(Arc::clone(&shared));
    if request.headers().contains_key("upgrade") {
        return Ok(echoing_tunnel(&shared, &mut request));
    }
    let (head, body) = request.into_parts();
    let collected = body.collect().await.map_err(std::io::Error::other)?;
    let trailers = collected.trailers().cloned();
    let body = collected.to_bytes();
    shared.seen.lock().unwrap().push(Seen {
        target: head.uri.to_string(),
        headers: head.headers,
        trailers: trailers.clone(),
    });
    let mood = shared.mood.borrow().clone();
    match mood {
        Mood::Well => {}
        Mood::Slow(pause) => Clock::system().sleep(pause).await,
        Mood::Status(status, fields) => {
            let mut response = Response::new(Empty::new().boxed());
            *response.status_mut() = status;
            for (name, value) in fields {
                response.headers_mut().insert(name, value.parse().unwrap());
            }
            return Ok(response);
        }
        Mood::Frozen => std::future::pending().await,
        Mood::Breaks => return Err(std::io::Error::other("broken off")),
    }
    match head.uri.path() {
        "/gated" => shared.gate.notified().await,
        "/parts" => return Ok(Response::new(parts(shared, running))),
        "/bye" => {
            let mut response = Response::new(Full::new(body).boxed());
            response.headers_mut().insert("connection", "close".parse().unwrap());
            return Ok(response);
        }
        "/trailers" => {
            let body = Full::new(body).with_trailers(async move { trailers.map(Ok) });
            let mut response = Response::new(body.boxed());
            response.headers_mut().insert("trailer", "x-sum".parse().unwrap());
            response.headers_mut().insert("transfer-encoding", "chunked".parse().unwrap());
            return Ok(response);
        }
        _ => {}
    }
    let mut response = Response::new(Full::new(body).boxed());
    for (name, value) in
        [("x-replica", "1"), ("keep-alive", "timeout=5"), ("connection", "x-hop"), ("x-hop", "1")]
    {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    Ok(response)
}

/// A body of unknown length whose every part waits for the gate; three parts.
fn parts(shared: Arc<Shared>, running: Running) -> Body {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let tasks = Arc::clone(&shared);
    tasks.tasks.lock().unwrap().spawn(async move {
        let _running = running;
        for part in ["one", "two", "three"] {
            tokio::select! {
                biased;
                () = sender.closed() => return,
                () = shared.gate.notified() => {}
            }
            if sender.send(Bytes::from_static(part.as_bytes())).await.is_err() {
                return;
            }
        }
    });
    Parts(receiver).boxed()
}

struct Parts(tokio::sync::mpsc::Receiver<Bytes>);

impl http_body::Body for Parts {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(cx).map(|part| part.map(http_body::Frame::data).map(Ok))
    }
}

/// Switches protocols and sends back what it gets.
fn echoing_tunnel(shared: &Arc<Shared>, request: &mut Request<Incoming>) -> Response<Body> {
    let headers = request.headers().clone();
    let accept =
        headers.get("sec-websocket-key").map(|key| crate::websocket::accept_of(key.to_str().unwrap()));
    shared.seen.lock().unwrap().push(Seen { target: request.uri().to_string(), headers, trailers: None });
    let upgrade = hyper::upgrade::on(request);
    shared.tasks.lock().unwrap().spawn(async move {
        let mut stream = TokioIo::new(upgrade.await.unwrap());
        let mut buffer = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut buffer).await {
            if stream.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    });
    let mut response = Response::new(Empty::new().boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("connection", "upgrade".parse().unwrap());
    response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    if let Some(accept) = accept {
        response.headers_mut().insert("sec-websocket-accept", accept.parse().unwrap());
    }
    response
}
