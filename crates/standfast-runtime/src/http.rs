//! A small HTTP/1.1 client and server for whole messages: admin and agent sockets, probes, the state API, the load generator.
//!
//! Bodies are read whole under a limit. What streams (the gateway) uses hyper itself.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::{HeaderValue, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::{TokioIo, TokioTimer};
use standfast_model::Stamp;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::{Clock, Net, Peer, Stop, Stream};

/// The longest answer that a client reads, unless told otherwise.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Idle connections that a client keeps to one peer.
const IDLE_MAX: usize = 512;
/// A connection idle for longer is not used again: many servers close theirs at 5 s or more.
const IDLE_LIFE: Duration = Duration::from_secs(4);

/// A request that got no whole answer. The variant says what is known about its effect.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection: the request was certainly not carried out.
    #[error("cannot connect to {peer}")]
    Connect {
        /// Whom it was for.
        peer: Peer,
        /// Why.
        source: io::Error,
    },
    /// The connection broke after the request was, or may have been, sent: its effect is unknown.
    #[error("{peer} closed the connection without an answer")]
    Broken {
        /// Whom it was for.
        peer: Peer,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The answer did not come in time: the effect is unknown.
    #[error("no answer from {peer} within {limit:?}")]
    TimedOut {
        /// Whom it was for.
        peer: Peer,
        /// The limit.
        limit: Duration,
    },
    /// The answer is longer than the limit.
    #[error("the answer of {peer} is longer than {limit} bytes")]
    TooLong {
        /// Whom it was for.
        peer: Peer,
        /// The limit in bytes.
        limit: usize,
    },
}

impl ClientError {
    /// Whether the request certainly had no effect, so that it may be repeated whatever it was.
    pub const fn was_not_sent(&self) -> bool {
        matches!(self, Self::Connect { .. })
    }
}

/// An HTTP/1.1 client with kept-alive connections. Cheap to clone; clones share the connections.
#[derive(Debug, Clone)]
pub struct Client(Arc<ClientInner>);

#[derive(Debug)]
struct ClientInner {
    net: Net,
    clock: Clock,
    answer_bytes_max: usize,
    idle: Mutex<BTreeMap<Peer, Vec<Idle>>>,
    drivers: Mutex<JoinSet<()>>,
}

/// A connection and since when nobody used it.
type Idle = (Stamp, SendRequest<Full<Bytes>>);

impl Client {
    /// A client without connections.
    pub fn new(net: Net, clock: Clock) -> Self {
        Self::with_answer_limit(net, clock, ANSWER_BYTES_MAX)
    }

    /// A client that reads answers up to `answer_bytes_max`.
    pub fn with_answer_limit(net: Net, clock: Clock, answer_bytes_max: usize) -> Self {
        let inner =
            ClientInner { net, clock, answer_bytes_max, idle: Mutex::default(), drivers: Mutex::default() };
        Self(Arc::new(inner))
    }

    /// Sends `request` to `peer` and reads the whole answer. `Host` is added when absent.
    ///
    /// # Errors
    /// See [`ClientError`]. Any status is an answer, not an error.
    ///
    /// # Cancellation
    /// Dropping it closes the connection; the effect is then unknown.
    pub async fn send(
        &self,
        peer: &Peer,
        request: Request<Bytes>,
        limit: Duration,
    ) -> Result<Response<Bytes>, ClientError> {
        let work = self.send_unlimited(peer, request);
        self.0
            .clock
            .timeout(limit, work)
            .await
            .unwrap_or_else(|_| Err(ClientError::TimedOut { peer: peer.clone(), limit }))
    }

    async fn send_unlimited(
        &self,
        peer: &Peer,
        request: Request<Bytes>,
    ) -> Result<Response<Bytes>, ClientError> {
        let broken = |source: Box<dyn std::error::Error + Send + Sync>| ClientError::Broken {
            peer: peer.clone(),
            source,
        };
        let (mut head, body) = request.into_parts();
        if !head.headers.contains_key(header::HOST) {
            let host = match peer {
                Peer::Tcp(address) => {
                    HeaderValue::from_str(&address.to_string()).map_err(|e| broken(e.into()))?
                }
                Peer::Unix(_) => HeaderValue::from_static("localhost"),
            };
            head.headers.insert(header::HOST, host);
        }
        let mut request = Request::from_parts(head, Full::new(body));
        loop {
            let (mut connection, is_reused) = match self.take_idle(peer) {
                Some(connection) => (connection, true),
                None => (self.connect(peer).await?, false),
            };
            if is_reused && connection.ready().await.is_err() {
                continue;
            }
            match connection.try_send_request(request).await {
                Ok(answer) => {
                    let (head, body) = answer.into_parts();
                    let limit = self.0.answer_bytes_max;
                    let body = Limited::new(body, limit).collect().await.map_err(|error| {
                        if error.is::<LengthLimitError>() {
                            ClientError::TooLong { peer: peer.clone(), limit }
                        } else {
                            broken(error)
                        }
                    })?;
                    self.keep(peer, connection);
                    return Ok(Response::from_parts(head, body.to_bytes()));
                }
                Err(mut refused) => match refused.take_message() {
                    // hyper gives the request back only when none of it was written.
                    Some(unsent) if is_reused => request = unsent,
                    _ => return Err(broken(refused.into_error().into())),
                },
            }
        }
    }

    fn take_idle(&self, peer: &Peer) -> Option<SendRequest<Full<Bytes>>> {
        let oldest = self.0.clock.now().minus(IDLE_LIFE);
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.get_mut(peer)?;
        while let Some((since, connection)) = connections.pop() {
            if since >= oldest && !connection.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    fn keep(&self, peer: &Peer, connection: SendRequest<Full<Bytes>>) {
        if connection.is_closed() {
            return;
        }
        let now = self.0.clock.now();
        let mut idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let connections = idle.entry(peer.clone()).or_default();
        connections.retain(|(since, connection)| now.since(*since) < IDLE_LIFE && !connection.is_closed());
        if connections.len() < IDLE_MAX {
            connections.push((now, connection));
        }
    }

    async fn connect(&self, peer: &Peer) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let stream = self
            .0
            .net
            .connect(peer)
            .await
            .map_err(|source| ClientError::Connect { peer: peer.clone(), source })?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ClientError::Broken { peer: peer.clone(), source: error.into() })?;
        let mut drivers = self.0.drivers.lock().unwrap_or_else(PoisonError::into_inner);
        while drivers.try_join_next().is_some() {}
        drivers.spawn(async move {
            // The error reaches the request that waits on this connection; there is nothing else to tell.
            let _told_to_the_request = connection.await;
        });
        Ok(sender)
    }
}

/// Something that accepts connections.
#[derive(Debug)]
pub enum Listener {
    /// On a TCP address.
    Tcp(TcpListener),
    /// On a Unix socket.
    Unix(UnixListener),
}

impl Listener {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

/// What a server allows.
#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// Connections at a time; further ones wait in the kernel's queue.
    pub connections_max: usize,
    /// The longest request body; longer ones are answered with 413.
    pub body_bytes_max: usize,
    /// From the first byte of a request to the end of its head.
    pub head_read_max: Duration,
    /// How long open requests may go on once a stop was asked for.
    pub drain_max: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 1_024,
            body_bytes_max: 16 << 20,
            head_read_max: Duration::from_secs(10),
            drain_max: Duration::from_secs(2),
        }
    }
}

/// Serves until a stop is asked for, then lets open requests end within [`ServerLimits::drain_max`].
///
/// # Cancellation
/// Dropping it closes all its connections.
pub async fn serve<H, F>(listener: Listener, handler: H, limits: ServerLimits, clock: Clock, stop: Stop)
where
    H: Fn(Request<Bytes>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Bytes>> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(limits.connections_max));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let permit = Arc::clone(&permits).acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, stream) = tokio::select! {
            biased;
            () = stop.requested() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = accepted => accepted,
        };
        match stream {
            Ok(stream) => {
                let connection = serve_connection(stream, handler.clone(), limits, stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(permit);
                });
            }
            Err(error) => {
                // Out of descriptors, or a client that left already: neither is a reason to stop serving.
                tracing::warn!(%error, "cannot accept a connection");
                clock.sleep(Duration::from_millis(20)).await;
            }
        }
    }
    drop(listener);
    let drain = async { while connections.join_next().await.is_some() {} };
    if clock.timeout(limits.drain_max, drain).await.is_err() {
        connections.shutdown().await;
    }
}

async fn serve_connection<H, F>(stream: Stream, handler: H, limits: ServerLimits, stop: Stop)
where
    H: Fn(Request<Bytes>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<Bytes>> + Send + 'static,
{
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let handler = handler.clone();
        async move {
            let (head, body) = request.into_parts();
            let answer = match Limited::new(body, limits.body_bytes_max).collect().await {
                Ok(body) => handler(Request::from_parts(head, body.to_bytes())).await,
                Err(error) if error.is::<LengthLimitError>() => plain(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("the body is longer than {} bytes\n", limits.body_bytes_max),
                ),
                // The client went away in mid-body: there is nobody to answer.
                Err(error) => return Err(io::Error::other(error)),
            };
            Ok(answer.map(Full::new))
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_read_max)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = connection.as_mut() => ended,
        () = stop.requested() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// A plain-text answer.
pub fn plain(status: StatusCode, text: impl Into<String>) -> Response<Bytes> {
    answer(status, "text/plain; charset=utf-8", text.into().into())
}

/// A JSON answer; a value that cannot be written as JSON becomes a 500.
pub fn json(status: StatusCode, value: &impl serde::Serialize) -> Response<Bytes> {
    match serde_json::to_vec(value) {
        Ok(body) => answer(status, "application/json", body.into()),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot write the answer: {error}\n")),
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StopSource;

    async fn echo_server() -> (Peer, StopSource, tokio::task::JoinHandle<()>) {
        let listener = Net::real().listen_tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let peer = Peer::Tcp(listener.local_addr().unwrap());
        let (source, stop) = StopSource::new();
        let limits = ServerLimits { body_bytes_max: 10, ..ServerLimits::default() };
        let handler = |request: Request<Bytes>| async move { Response::new(request.into_body()) };
        let server = tokio::spawn(serve(Listener::Tcp(listener), handler, limits, Clock::system(), stop));
        (peer, source, server)
    }

    fn post(body: &'static str) -> Request<Bytes> {
        Request::post("/").body(Bytes::from_static(body.as_bytes())).unwrap()
    }

    #[tokio::test]
    async fn a_client_and_a_server_exchange_whole_messages_over_a_kept_connection() {
        let (peer, source, server) = echo_server().await;
        let client = Client::new(Net::real(), Clock::system());
        for _ in 0..3 {
            let answer = client.send(&peer, post("hello"), Duration::from_secs(5)).await.unwrap();
            assert_eq!((answer.status(), answer.body().as_ref()), (StatusCode::OK, b"hello".as_ref()));
        }
        assert_eq!(client.0.idle.lock().unwrap()[&peer].len(), 1);
        let answer = client.send(&peer, post("much too long"), Duration::from_secs(5)).await.unwrap();
        assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        source.stop();
        server.await.unwrap();
        let error = client.send(&peer, post("hello"), Duration::from_secs(5)).await.unwrap_err();
        assert!(error.was_not_sent(), "{error:?}");
    }

    #[tokio::test]
    async fn a_silent_peer_and_a_long_answer_are_told_apart() {
        let listener = Net::real().listen_tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let silent = Peer::Tcp(listener.local_addr().unwrap());
        let client = Client::with_answer_limit(Net::real(), Clock::system(), 3);
        let error = client.send(&silent, post("x"), Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(error, ClientError::TimedOut { .. }));
        let (echo, _source, _server) = echo_server().await;
        let error = client.send(&echo, post("four"), Duration::from_secs(5)).await.unwrap_err();
        assert!(matches!(error, ClientError::TooLong { .. }));
    }
}
