//! Clients and replicas that speak HTTP/2, by the rules and against them.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use standfast_runtime::{Clock, Net};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::replica::Seen;
use crate::rig::listen_and_hold;

/// The result of some work, which must come within 10 s.
pub(crate) async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    let limit = Duration::from_secs(10);
    Clock::system().timeout(limit, work).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// One connection of a client.
pub(crate) struct H2 {
    pub(crate) send: SendRequest<Bytes>,
    /// Ends with the connection.
    pub(crate) driver: JoinSet<Result<(), h2::Error>>,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn trailer(&self, name: &str) -> Option<&str> {
        self.trailers.as_ref()?.get(name).map(|value| value.to_str().unwrap())
    }
}

impl H2 {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(Net::real().connect_tcp(address).await.unwrap()).await
    }

    pub(crate) async fn over(io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Self {
        Self::with(&h2::client::Builder::new(), io).await
    }

    pub(crate) async fn with(
        builder: &h2::client::Builder,
        io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        let (send, connection) = builder.handshake::<_, Bytes>(io).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        Self { send, driver }
    }

    /// Sends a request's head.
    pub(crate) async fn begin(
        &self,
        request: Request<()>,
        is_over: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        self.send.clone().ready().await?.send_request(request, is_over)
    }

    /// Sends a request and reads the whole answer, both at a time.
    pub(crate) async fn try_send(
        &self,
        request: Request<()>,
        body: impl Into<Bytes>,
        trailers: Option<HeaderMap>,
    ) -> Result<Got, h2::Error> {
        let body = body.into();
        let (answer, mut stream) = self.begin(request, body.is_empty() && trailers.is_none()).await?;
        let sending = async {
            if !body.is_empty() {
                // What fails there shows in the answer.
                let _taken_or_not = send_data(&mut stream, body, trailers.is_none()).await;
            }
            if let Some(trailers) = trailers {
                let _taken_or_not = stream.send_trailers(trailers);
            }
        };
        let reading = async {
            let (head, body) = answer.await?.into_parts();
            let (body, trailers) = read_all(body).await?;
            Ok(Got { status: head.status.as_u16(), headers: head.headers, body, trailers })
        };
        soon("an answer", async { tokio::join!(reading, sending).0 }).await
    }

    pub(crate) async fn send(&self, request: Request<()>, body: impl Into<Bytes>) -> Got {
        self.try_send(request, body, None).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        self.send(get(path), Bytes::new()).await
    }

    /// Waits until the connection has ended.
    pub(crate) async fn ended(&mut self) -> Result<(), h2::Error> {
        soon("the connection ends", self.driver.join_next()).await.unwrap().unwrap()
    }
}

pub(crate) fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://shop.test{path}")).body(()).unwrap()
}

pub(crate) fn get(path: &str) -> Request<()> {
    request("GET", path)
}

pub(crate) fn post(path: &str) -> Request<()> {
    request("POST", path)
}

/// Adds a field to a request.
pub(crate) fn with(mut request: Request<()>, name: &'static str, value: &str) -> Request<()> {
    request.headers_mut().append(name, value.parse().unwrap());
    request
}

pub(crate) fn map(fields: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        map.append(*name, value.parse().unwrap());
    }
    map
}

/// Sends data as the other side makes room for it.
pub(crate) async fn send_data(
    stream: &mut SendStream<Bytes>,
    mut data: Bytes,
    is_last: bool,
) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = match stream.capacity() {
            0 => match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                Some(room) => room?,
                None => return Err(Reason::CANCEL.into()),
            },
            room => room,
        };
        let part = data.split_to(room.min(data.len()));
        stream.send_data(part, is_last && data.is_empty())?;
    }
    Ok(())
}

/// The next part of a body.
pub(crate) async fn part(body: &mut RecvStream) -> Option<Result<Bytes, h2::Error>> {
    let part = body.data().await?;
    Some(part.inspect(|part| body.flow_control().release_capacity(part.len()).unwrap()))
}

pub(crate) async fn read_all(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(part) = part(&mut body).await {
        all.extend_from_slice(&part?);
    }
    Ok((all, body.trailers().await?))
}

/// A replica that speaks HTTP/2. What it does depends on the path; see [`answer`]. It dies when dropped.
pub(crate) struct H2Replica {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
    _port: socket2::Socket,
}

struct Shared {
    seen: Mutex<Vec<Seen>>,
    running: AtomicUsize,
    connections: AtomicU64,
    closed: AtomicUsize,
    /// Bytes that were sent for `/flood` and received for `/echo`.
    moved: AtomicUsize,
    is_open: watch::Sender<bool>,
    /// The `grpc-status` of `/call`.
    grpc_status: watch::Sender<&'static str>,
}

impl H2Replica {
    pub(crate) async fn start() -> Self {
        Self::start_with(h2::server::Builder::new().max_concurrent_streams(1_000)).await
    }

    pub(crate) async fn start_with(builder: &h2::server::Builder) -> Self {
        let (listener, port) = listen_and_hold(([127, 0, 0, 1], 0).into()).await;
        let shared = Arc::new(Shared {
            seen: Mutex::default(),
            running: AtomicUsize::new(0),
            connections: AtomicU64::new(0),
            closed: AtomicUsize::new(0),
            moved: AtomicUsize::new(0),
            is_open: watch::Sender::new(false),
            grpc_status: watch::Sender::new("0"),
        });
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        let (accepting, builder) = (Arc::clone(&shared), builder.clone());
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                connections.spawn(serve(stream, builder.clone(), Arc::clone(&accepting)));
            }
        });
        Self { address, shared, tasks, _port: port }
    }

    pub(crate) async fn kill(&mut self) {
        self.tasks.shutdown().await;
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().clone()
    }

    pub(crate) fn running(&self) -> usize {
        self.shared.running.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Connections that have ended in order.
    pub(crate) fn closed(&self) -> usize {
        self.shared.closed.load(Ordering::SeqCst)
    }

    pub(crate) fn moved(&self) -> usize {
        self.shared.moved.load(Ordering::SeqCst)
    }

    /// Lets all requests for `/gated` end, from now on.
    pub(crate) fn open_gate(&self) {
        self.shared.is_open.send_replace(true);
    }

    pub(crate) fn set_grpc_status(&self, status: &'static str) {
        self.shared.grpc_status.send_replace(status);
    }
}

async fn serve(stream: TcpStream, builder: h2::server::Builder, shared: Arc<Shared>) {
    stream.set_nodelay(true).unwrap();
    let mut streams = JoinSet::new();
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let shared = Arc::clone(&shared);
        streams.spawn(async move {
            shared.running.fetch_add(1, Ordering::SeqCst);
            let _running = Running(Arc::clone(&shared));
            let _broken_off = answer(&shared, request, respond).await;
        });
    }
    shared.closed.fetch_add(1, Ordering::SeqCst);
}

struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn answer(
    shared: &Shared,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let place = {
        let mut seen = shared.seen.lock().unwrap();
        seen.push(Seen { target: head.uri.to_string(), headers: head.headers, trailers: None });
        seen.len() - 1
    };
    match head.uri.path() {
        // Takes nothing and says nothing until the client gives up.
        "/frozen" => {
            std::future::poll_fn(|cx| respond.poll_reset(cx)).await?;
            return Ok(());
        }
        "/gated" => {
            let mut is_open = shared.is_open.subscribe();
            tokio::select! {
                biased;
                _ = std::future::poll_fn(|cx| respond.poll_reset(cx)) => return Ok(()),
                opened = is_open.wait_for(|is_open| *is_open) => drop(opened.unwrap()),
            }
        }
        // Breaks off in the middle.
        "/half" => {
            let mut stream = respond.send_response(Response::new(()), false)?;
            send_data(&mut stream, Bytes::from_static(b"half"), false).await?;
            let mut is_open = shared.is_open.subscribe();
            drop(is_open.wait_for(|is_open| *is_open).await.unwrap());
            stream.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        // 16 MiB, whatever is asked.
        "/flood" => {
            let mut stream = respond.send_response(Response::new(()), false)?;
            for number in 1..=1024 {
                send_data(&mut stream, Bytes::from_static(&[7; 16 << 10]), number == 1024).await?;
                shared.moved.fetch_add(16 << 10, Ordering::SeqCst);
            }
            return Ok(());
        }
        // 200 000 bytes, ten at a time.
        "/drops" => {
            let mut stream = respond.send_response(Response::new(()), false)?;
            for number in 1..=20_000 {
                send_data(&mut stream, Bytes::from_static(b"0123456789"), number == 20_000).await?;
                shared.moved.fetch_add(10, Ordering::SeqCst);
                if number % 100 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            return Ok(());
        }
        // Answers at length before it reads.
        "/early" => {
            let mut stream = respond.send_response(Response::new(()), false)?;
            let sending = send_data(&mut stream, vec![7; 1 << 20].into(), false);
            let (sent, read) = tokio::join!(sending, read_all(body));
            sent?;
            return send_data(&mut stream, read?.0.len().to_string().into(), true).await;
        }
        // A unary call.
        "/call" | "/refused-call" => {
            let (data, _) = read_all(body).await?;
            let status = *shared.grpc_status.borrow();
            let mut response = Response::new(());
            *response.headers_mut() = map(&[("content-type", "application/grpc")]);
            if head.uri.path() == "/refused-call" {
                response.headers_mut().insert("grpc-status", status.parse().unwrap());
                respond.send_response(response, true)?;
                return Ok(());
            }
            let mut stream = respond.send_response(response, false)?;
            send_data(&mut stream, data.into(), false).await?;
            return stream.send_trailers(map(&[("grpc-status", status), ("grpc-message", "as told")]));
        }
        _ => {}
    }
    // Sends back what comes, as it comes.
    let mut response = Response::new(());
    *response.headers_mut() = map(&[("x-replica", "2")]);
    if head.uri.path() == "/chat" {
        response.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    }
    if body.is_end_stream() {
        respond.send_response(response, true)?;
        return Ok(());
    }
    let mut stream = respond.send_response(response, false)?;
    while let Some(part) = part(&mut body).await {
        let part = part?;
        shared.moved.fetch_add(part.len(), Ordering::SeqCst);
        send_data(&mut stream, part, false).await?;
    }
    let trailers = body.trailers().await?;
    shared.seen.lock().unwrap()[place].trailers.clone_from(&trailers);
    match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    }
}

/// Frames as they are on the wire, for what no library does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// `:status: 200`, as the static table has it.
pub(crate) const STATUS_200: &[u8] = &[0x88];

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Fields as literals that enter no table (RFC 7541, 6.2.2); shorter than 127 bytes each.
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in fields.iter().flat_map(|(name, value)| [(true, name), (false, value)]) {
        let (is_name, text) = text;
        if is_name {
            bytes.push(0);
        }
        bytes.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap());
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// The block of a plain request, with more fields.
pub(crate) fn get_block(more: &[(&str, &str)]) -> Vec<u8> {
    let mut fields =
        vec![(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "shop.test")];
    fields.extend_from_slice(more);
    block(&fields)
}

/// A connection whose frames are made by hand.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    /// A client that has said hello.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut raw = Self(Net::real().connect_tcp(address).await.unwrap());
        raw.write(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).await;
        raw
    }

    /// A replica that was greeted.
    pub(crate) async fn accept(listener: &TcpListener) -> Self {
        let (mut stream, _) = soon("a connection", listener.accept()).await.unwrap();
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).await.unwrap();
        assert_eq!(preface, PREFACE);
        let mut raw = Self(stream);
        raw.write(&frame(SETTINGS, 0, 0, &[])).await;
        raw
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// The next frame; `None` at the end.
    pub(crate) async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        soon("a frame", self.0.read_exact(&mut head)).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.0.read_exact(&mut payload).await.ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of a kind; `None` when the connection ends before.
    pub(crate) async fn next(&mut self, kind: u8) -> Option<Frame> {
        loop {
            let frame = self.read().await?;
            if frame.kind == kind {
                return Some(frame);
            }
        }
    }

    /// The reason of the next frame of a kind that ends something, and that the connection ends with it if it was all of it.
    pub(crate) async fn reason(&mut self, kind: u8) -> Option<Reason> {
        let frame = self.next(kind).await?;
        let at = if kind == GOAWAY { 4 } else { 0 };
        Some(u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap()).into())
    }

    /// Answers a stream with 200 and nothing else.
    pub(crate) async fn answer(&mut self, stream: u32) {
        self.write(&frame(HEADERS, END_HEADERS | END_STREAM, stream, STATUS_200)).await;
    }

    /// Says that no stream behind this one is looked at.
    pub(crate) async fn go_away(&mut self, last: u32) {
        self.write(&frame(GOAWAY, 0, 0, &[last.to_be_bytes(), [0; 4]].concat())).await;
    }

    pub(crate) async fn reset(&mut self, stream: u32, reason: Reason) {
        self.write(&frame(RST_STREAM, 0, stream, &u32::from(reason).to_be_bytes())).await;
    }
}

/// A port for a replica made by hand.
pub(crate) async fn listener() -> (TcpListener, SocketAddr) {
    let listener = Net::real().listen_tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}
