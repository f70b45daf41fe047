//! A client's connection that speaks HTTP/2 (RFC 9113), by ALPN or with prior knowledge: many requests at a time.

use std::cell::{Cell, RefCell};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::body::{AnswerBody, Inflow, Source};
use crate::client::Client;
use crate::error::Refusal;
use crate::exchange::{Reply, exchange};
use crate::flood::Traffic;
use crate::upstream::h2::{Progress, Receiving, write_some};
use crate::websocket::{self, Opening};
use crate::wire::{Buffer, Fields, Framing, Known, Part, RequestHead, Step, Stream, digits, is_host};
use crate::worker::Worker;

/// What a client may send ahead on one stream…
const STREAM_WINDOW: u32 = 256 << 10;
/// …and on a whole connection.
const CONNECTION_WINDOW: u32 = 1 << 20;
/// What the library's bookkeeping for small frames that nobody has taken yet may come to, in its own measure: up to 256 for each. The
/// connection is closed beyond.
const SMALL_FRAMES_BUDGET: usize = 8 << 20;
/// What is kept to be sent on one stream before its answer waits.
const SEND_BUFFER_BYTES: usize = 64 << 10;
/// Streams that a client opened and reset and that nobody has looked at yet ("rapid reset"); then the connection ends.
const RESET_STREAMS_MAX: usize = 32;
/// Streams that a client had us reset by breaking the rules on them ("MadeYouReset"), in a connection's life; then it ends.
const STREAM_ERRORS_MAX: usize = 256;
/// So many requests may be given up before their answers; from then on only if at least as many are not. It costs a client next to
/// nothing to ask and give up, and a replica may work for nothing each time.
const GIVEN_UP_MAX: u32 = 500;
/// How long a client may take to leave once it is told to and nothing runs.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// How an HTTP/2 connection with prior knowledge begins.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves a connection until either side ends it or the worker orders so.
pub(crate) async fn serve(worker: Rc<Worker>, client: Rc<Client>, stream: Stream, buffer: Buffer) {
    let limits = worker.limits.get();
    let mut builder = h2::server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buffer_size(SEND_BUFFER_BYTES)
        .data_frame_budget(SMALL_FRAMES_BUDGET)
        .enable_connect_protocol()
        .max_concurrent_streams(limits.streams_max)
        .max_concurrent_reset_streams(RESET_STREAMS_MAX)
        .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
        .max_local_error_reset_streams(Some(STREAM_ERRORS_MAX))
        .max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX));
    let streams = Rc::new(Streams::default());
    let io = Prefixed { buffer, stream, traffic: Rc::clone(&streams.traffic) };
    let shaken = worker.clock.timeout(limits.header_read_max, builder.handshake::<_, Bytes>(io)).await;
    let Ok(Ok(mut connection)) = shaken else { return };
    client.activity.ends();
    let (mut is_finishing, mut is_thrown_out, mut leaving) = (false, false, None);
    loop {
        let accepted = std::future::poll_fn(|cx| {
            if client.is_finishing() && !is_finishing {
                is_finishing = true;
                connection.graceful_shutdown();
            }
            if !is_thrown_out && streams.are_abused() {
                (is_finishing, is_thrown_out) = (true, true);
                tracing::debug!(client = %client.address(), "a client gives up too many requests, or sends little else than empty frames");
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            }
            if let accepted @ Poll::Ready(_) = connection.poll_accept(cx) {
                return accepted;
            }
            streams.traffic.rests();
            if !is_finishing || streams.running.get() > 0 {
                leaving = None;
                return Poll::Pending;
            }
            // It owes us a last word, and may be taking the end of an answer.
            let limit = if connection.has_streams() { worker.limits.get().body_stall_max } else { LEAVE_MAX };
            let (for_limit, sleep) =
                leaving.take().filter(|(for_limit, _)| *for_limit == limit).unwrap_or_else(|| {
                    let sleep: Pin<Box<dyn Future<Output = ()>>> = Box::pin(worker.clock.sleep(limit));
                    (limit, sleep)
                });
            let (_, sleep) = leaving.insert((for_limit, sleep));
            sleep.as_mut().poll(cx).map(|()| None)
        });
        match accepted.await {
            Some(Ok((request, respond))) => {
                let running = Running::new(&streams, &client);
                let (task_worker, client) = (Rc::clone(&worker), Rc::clone(&client));
                worker.spawn(async move {
                    stream_of(&task_worker, &client, request, respond, &running.streams).await;
                    drop(running);
                });
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "a client's HTTP/2 connection ended early");
                return;
            }
            None => return,
        }
    }
}

/// What became of a connection's streams.
#[derive(Debug, Default)]
struct Streams {
    running: Cell<usize>,
    begun: Cell<u32>,
    /// Before their answers.
    given_up: Cell<u32>,
    traffic: Rc<Traffic>,
}

impl Streams {
    fn are_abused(&self) -> bool {
        self.given_up.get() > GIVEN_UP_MAX && self.given_up.get() > self.begun.get() / 2
            || self.traffic.is_flood()
    }
}

/// A stream that is being worked on: the connection is busy as long as one is.
struct Running {
    streams: Rc<Streams>,
    client: Rc<Client>,
}

impl Running {
    fn new(streams: &Rc<Streams>, client: &Rc<Client>) -> Self {
        streams.running.set(streams.running.get() + 1);
        streams.begun.set(streams.begun.get().saturating_add(1));
        streams.traffic.request();
        client.activity.begins();
        Self { streams: Rc::clone(streams), client: Rc::clone(client) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.streams.running.set(self.streams.running.get().saturating_sub(1));
        if self.streams.running.get() == 0 {
            self.client.activity.ends();
        }
    }
}

/// Answers one request.
async fn stream_of(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    streams: &Streams,
) {
    let method = request.method().clone();
    let limits = worker.limits.get();
    let is_grpc = request
        .headers()
        .get("content-type")
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let mut progress = None;
    let mut opening = None;
    let mut body = Source::Empty;
    let mut reply = match read(worker, request, &streams.traffic, &mut opening) {
        Ok((head, source)) => {
            (progress, body) = (source.progress(), source.clone());
            if progress.is_some() && head.expects_continue {
                let mut go_on = Response::new(());
                *go_on.status_mut() = StatusCode::CONTINUE;
                let _gone_or_not = respond.send_informational(go_on);
            }
            let gone = |cx: &mut Context<'_>| {
                let given_up = || streams.given_up.set(streams.given_up.get().saturating_add(1));
                respond.poll_reset(cx).map(|_| given_up())
            };
            let mut done = pin!(exchange(worker, client, head, source, gone));
            match &progress {
                None => done.await,
                Some(progress) => loop {
                    let parts = progress.parts();
                    match worker.clock.timeout(limits.body_stall_max, done.as_mut()).await {
                        Ok(reply) => break reply,
                        Err(_) if progress.is_awaited() && progress.parts() == parts => break None,
                        Err(_) => {}
                    }
                },
            }
        }
        Err(refusal) => {
            worker.counters.refuse(refusal.reason());
            Some(Reply::refused(&refusal, is_grpc))
        }
    };
    if let Some((opening, body)) = opening {
        match reply {
            Some(reply) if opening.is_opened_by(&reply.head) => {
                return tunnel(worker, reply, respond, body, &streams.traffic).await;
            }
            // Whatever else it is, to a client that asked for a tunnel it may not look like one.
            Some(Reply { head, story, .. }) if head.status.is_success() || head.status.is_informational() => {
                let no_websocket = Reply::refused(&Refusal::NoWebSocket, false);
                reply = Some(Reply { story, ..no_websocket });
            }
            other => reply = other,
        }
    }
    match reply {
        Some(mut reply) => {
            let story = reply.story.take();
            let mut sent = 0;
            let sending = Sending { bytes: &mut sent, traffic: &streams.traffic };
            let is_whole =
                answer(worker, &method, reply, respond, limits.body_stall_max, progress, sending).await;
            worker.counters.count_bodies(body.bytes_read(), sent);
            if let Some(story) = story {
                story.end(worker, sent, is_whole);
            }
        }
        None => respond.send_reset(Reason::CANCEL),
    }
}

/// Opens a WebSocket's tunnel, and keeps it until it ends.
async fn tunnel(
    worker: &Worker,
    mut reply: Reply,
    mut respond: SendResponse<Bytes>,
    body: RecvStream,
    traffic: &Rc<Traffic>,
) {
    let AnswerBody::Upgraded(connected, in_flight) = std::mem::replace(&mut reply.body, AnswerBody::Empty)
    else {
        return respond.send_reset(Reason::INTERNAL_ERROR);
    };
    websocket::opened(&mut reply.head);
    let mut response = Response::new(());
    *response.headers_mut() = reply.head.fields.to_map();
    let Ok(stream) = respond.send_response(response, false) else { return };
    let sent = websocket::run(body, stream, *connected, Rc::clone(traffic)).await;
    drop(in_flight);
    if let Some(story) = reply.story.take() {
        story.end(worker, sent, true);
    }
}

/// A request as the rest of the gateway sees it. The body of one for a WebSocket is its tunnel's and not the request's.
fn read(
    worker: &Worker,
    request: Request<RecvStream>,
    traffic: &Rc<Traffic>,
    opening: &mut Option<(Opening, RecvStream)>,
) -> Result<(RequestHead, Source), Refusal> {
    let limits = worker.limits.get();
    let body_bytes_max = limits.body_bytes_max;
    let is_websocket = websocket::is_asked(&request);
    let (mut parts, body) = request.into_parts();
    if parts.method == Method::CONNECT && !is_websocket {
        return Err(Refusal::Connect);
    }
    if parts.headers.len() > limits.header_count_max {
        return Err(Refusal::HeadTooLarge);
    }
    // A replica that goes by the letter would refuse it, and be blamed (RFC 9113, 8.2.1).
    if parts.headers.values().any(|value| value.as_bytes().trim_ascii().len() != value.len()) {
        return Err(Refusal::BadRequest("a field's value begins or ends with a blank"));
    }
    let mut fields = Fields::from_map(&parts.headers);
    if let Some(authority) = parts.uri.authority() {
        let authority = authority.as_str().as_bytes();
        // Either would do, but not two that differ (RFC 9113, 8.3.1).
        if !fields.all(Known::Host).all(|host| host.eq_ignore_ascii_case(authority)) {
            return Err(Refusal::BadRequest("the request names two hosts"));
        }
        fields.set(Known::Host, "host", authority);
    }
    if fields.all(Known::Host).count() != 1 {
        return Err(Refusal::BadRequest("the request names no host, or more than one"));
    }
    if !fields.get(Known::Host).is_some_and(is_host) {
        return Err(Refusal::BadRequest("the host is not a name or address"));
    }
    if fields.all(Known::ContentLength).count() > 1 {
        return Err(Refusal::BadRequest("the content-length is there more than once"));
    }
    let expects_continue = match fields.get(Known::Expect) {
        Some(expected) if expected.eq_ignore_ascii_case(b"100-continue") => true,
        Some(_) => return Err(Refusal::Expectation),
        None => false,
    };
    let length = match fields.get(Known::ContentLength) {
        Some(value) => Some(digits(value).ok_or(Refusal::BadRequest("the content-length is not a number"))?),
        None => None,
    };
    if length.is_some_and(|length| length > body_bytes_max) {
        return Err(Refusal::BodyTooLarge);
    }
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    if !(target.starts_with('/') || target == "*" && parts.method == Method::OPTIONS)
        || !target.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(Refusal::BadRequest("the target is no path"));
    }
    let (framing, source) = if is_websocket {
        if length.is_some() {
            return Err(Refusal::BadRequest("a WebSocket has no content-length"));
        }
        *opening = Some((Opening::new(&mut fields, &mut worker.rng.borrow_mut()), body));
        parts.method = Method::GET;
        (Framing::None, Source::Empty)
    } else if body.is_end_stream() {
        (Framing::None, Source::Empty)
    } else {
        let framing = length.map_or(Framing::Chunked, Framing::Length);
        let receiving = Receiving::of_client(body, body_bytes_max, Rc::clone(traffic));
        let receiving = Rc::new(RefCell::new(receiving));
        (framing, Source::unread(Inflow::H2(receiving), framing))
    };
    // Cookies may come in several fields, which only HTTP/2 allows (RFC 9113, 8.2.3).
    if fields.all(Known::Cookie).count() > 1 {
        let joined = fields.all(Known::Cookie).collect::<Vec<_>>().join(&b"; "[..]);
        fields.set(Known::Cookie, "cookie", &joined);
    }
    let mut head = RequestHead::of_parts(parts.method, target, fields, framing);
    head.expects_continue = expects_continue;
    head.upgrades = is_websocket;
    Ok((head, source))
}

/// What counts an answer's bytes.
struct Sending<'a> {
    bytes: &'a mut u64,
    traffic: &'a Traffic,
}

/// Sends an answer.
async fn answer(
    worker: &Worker,
    method: &Method,
    mut reply: Reply,
    mut respond: SendResponse<Bytes>,
    stall_max: Duration,
    progress: Option<Progress>,
    sending: Sending<'_>,
) -> bool {
    if reply.head.status.is_informational() {
        // Nobody can have asked for another protocol.
        respond.send_reset(Reason::INTERNAL_ERROR);
        return false;
    }
    if matches!(reply.body, AnswerBody::Reset) {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return false;
    }
    if let Some(slow) = reply.body.slow_head() {
        slow.wait(&reply.head).await;
    }
    let has_no_body = reply.has_no_body(method);
    for known in [Known::Connection, Known::Upgrade, Known::TransferEncoding] {
        reply.head.fields.remove(known);
    }
    let mut response = Response::new(());
    *response.status_mut() = reply.head.status;
    *response.headers_mut() = reply.head.fields.to_map();
    let is_over = has_no_body || reply.head.framing == Framing::None || reply.body.is_complete();
    let Ok(mut stream) = respond.send_response(response, is_over) else { return false };
    if is_over {
        reply.body.finish();
        return true;
    }
    let mut unsent = None;
    loop {
        let step = std::future::poll_fn(|cx| poll_step(cx, &mut stream, &mut reply.body, &mut unsent));
        let parts = progress.as_ref().map(Progress::parts);
        let reason = match worker.clock.timeout(stall_max, step).await {
            Ok(Sent::More) => {
                let count = unsent.as_ref().map_or(0, Bytes::len) as u64;
                *sending.bytes += count;
                sending.traffic.useful(count);
                continue;
            }
            Ok(Sent::All) => return true,
            Ok(Sent::Broken) => Reason::INTERNAL_ERROR,
            // The request goes on, as long as that may take.
            Err(_) if progress.as_ref().map(Progress::parts) != parts => continue,
            Ok(Sent::Gone) | Err(_) => Reason::CANCEL,
        };
        stream.send_reset(reason);
        return false;
    }
}

/// What a step of sending an answer came to.
enum Sent {
    More,
    All,
    /// The client wants no more of it.
    Gone,
    /// The replica broke off.
    Broken,
}

fn poll_step(
    cx: &mut Context<'_>,
    stream: &mut SendStream<Bytes>,
    body: &mut AnswerBody,
    unsent: &mut Option<Bytes>,
) -> Poll<Sent> {
    if let Some(data) = unsent.take() {
        match write_some(stream, cx, data) {
            Ok(None) => {}
            Ok(left) => {
                *unsent = left;
                // The other direction does not wait for this one.
                body.send_request(cx);
                return Poll::Pending;
            }
            Err(_) => return Poll::Ready(Sent::Gone),
        }
    }
    if stream.poll_reset(cx).is_ready() {
        return Poll::Ready(Sent::Gone);
    }
    let mut sink = |part: Part<'_>| *unsent = Some(part.into_bytes());
    let step = std::task::ready!(body.poll_next(cx, &mut sink));
    match step {
        Ok(Step::Data) => Poll::Ready(Sent::More),
        Ok(Step::End(trailers)) => {
            let sent = match trailers {
                Some(trailers) => stream.send_trailers(trailers.to_map()),
                None => stream.send_data(Bytes::new(), true),
            };
            Poll::Ready(if sent.is_ok() { Sent::All } else { Sent::Gone })
        }
        Err(_) => Poll::Ready(Sent::Broken),
    }
}

/// A stream of which some was read already.
struct Prefixed {
    buffer: Buffer,
    stream: Stream,
    traffic: Rc<Traffic>,
}

impl AsyncRead for Prefixed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let this = self.get_mut();
        if this.buffer.is_empty() {
            let Self { stream, traffic, .. } = this;
            return traffic.poll_read(cx, buf, |cx, buf| Pin::new(stream).poll_read(cx, buf));
        }
        let count = this.buffer.unread().len().min(buf.remaining());
        buf.put_slice(&this.buffer.unread()[..count]);
        this.buffer.consume(count);
        this.buffer.release();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
