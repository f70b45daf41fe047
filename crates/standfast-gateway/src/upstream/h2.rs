//! Connections to replicas that speak HTTP/2 (RFC 9113), shared by many requests at a time; and HTTP/2 bodies in general.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Uri};
use standfast_model::Stamp;
use standfast_runtime::{Clock, Net};

use crate::body::Outflow;
use crate::client::BodyError;
use crate::error::Refusal;
use crate::flood::Traffic;
use crate::headers;
use crate::upstream::h1::Unanswered;
use crate::upstream::transport::Transport;
use crate::upstream::watch::{self, Heard, Listened};
use crate::wire::{Fields, Framing, Known, Part, RequestHead, ResponseHead, Step};

/// Requests at a time on one connection before another is opened.
const STREAMS_MAX: u32 = 128;
/// What a replica may send ahead on one stream…
const STREAM_WINDOW: u32 = 128 << 10;
/// …and on a whole connection: as much as all its streams. With less, a few clients that do not read would stop everybody's answers.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS_MAX;
/// What the library's bookkeeping for small frames that nobody has taken yet may come to, in its own measure: up to 256 for each. The
/// connection is closed beyond, so it must not be less than a few slow readers of small messages come to.
const SMALL_FRAMES_BUDGET: usize = 64 << 20;
const HEADER_LIST_BYTES_MAX: u32 = 64 << 10;

/// One connection. Cloning gives another handle to the same.
#[derive(Debug, Clone)]
pub(crate) struct Multiplexed {
    send: h2::client::SendRequest<Bytes>,
    scheme: &'static str,
    streams: Rc<Cell<u32>>,
    has_ended: Rc<Cell<bool>>,
    /// Since when no stream has run on it, as far as the sweep knows.
    idle_since: Rc<Cell<Option<Stamp>>>,
}

/// What keeps a connection going; to be polled by a task of the worker.
pub(crate) type Driver = std::pin::Pin<Box<dyn Future<Output = ()>>>;

impl Multiplexed {
    /// Opens a connection, whose driver must be run for anything to happen.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) async fn open(
        transport: Transport,
        net: Net,
        address: SocketAddr,
        silence_max: Duration,
        clock: Clock,
    ) -> io::Result<(Self, Driver)> {
        let stream = transport.open(net, address).await?;
        let scheme = transport.scheme();
        let heard = Heard::default();
        let stream = Listened { stream, heard: Rc::clone(&heard) };
        let (send, mut connection) = h2::client::Builder::new()
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIST_BYTES_MAX)
            .data_frame_budget(SMALL_FRAMES_BUDGET)
            .enable_push(false)
            .handshake::<_, Bytes>(stream)
            .await
            .map_err(io::Error::other)?;
        let has_ended = Rc::new(Cell::new(false));
        let ended = Rc::clone(&has_ended);
        let streams = Rc::<Cell<u32>>::default();
        let pings = connection.ping_pong();
        let counted = Rc::clone(&streams);
        let driver = async move {
            let dying = async {
                match pings {
                    Some(pings) => watch::is_dead(pings, heard, counted, silence_max, clock).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                ended = &mut connection => if let Err(error) = ended {
                    tracing::debug!(%error, "an HTTP/2 connection to a replica broke");
                },
                // Its streams break with it.
                () = dying => tracing::warn!(%address, "a replica's HTTP/2 connection is dead: it answers no PING"),
            }
            ended.set(true);
        };
        let idle_since = Rc::default();
        Ok((Self { send, scheme, streams, has_ended, idle_since }, Box::pin(driver)))
    }

    /// Whether the next request may be put on it.
    pub(crate) fn has_room(&self) -> bool {
        let allowed = u32::try_from(self.send.current_max_send_streams()).unwrap_or(u32::MAX);
        !self.has_ended.get() && self.streams.get() < allowed.clamp(1, STREAMS_MAX)
    }

    /// Whether it takes no more requests; those that run may go on.
    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.get()
    }

    /// Puts a request on it.
    ///
    /// # Errors
    /// [`Unanswered::Unsent`], or [`Unanswered::Client`] for a request that HTTP/2 has no words for.
    pub(crate) async fn begin(
        &self,
        head: &RequestHead,
        left: Duration,
        body: Outflow,
    ) -> Result<Exchange, Unanswered> {
        // Whatever is wrong with a connection that takes no request: the next one is not put on it.
        let unsent = |error: h2::Error| {
            self.has_ended.set(true);
            if is_declined(&error) {
                Unanswered::Declined { error: io::Error::other(error), is_lost: false }
            } else {
                Unanswered::Unsent(io::Error::other(error))
            }
        };
        self.idle_since.set(None);
        let counted = Counted::new(&self.streams);
        let length = match &body {
            Outflow::Kept { data, .. } => Some(data.len() as u64),
            Outflow::Streamed { is_chunked: false, .. } => match head.framing {
                Framing::Length(length) => Some(length),
                _ => None,
            },
            Outflow::Done | Outflow::Streamed { .. } => None,
        };
        // It is the client's fault, and no replica's.
        let no_request = |_| {
            Unanswered::Client(BodyError::Refused(Refusal::BadRequest(
                "the host or target has no form in HTTP/2",
            )))
        };
        let request = request(head, self.scheme, left, length).map_err(no_request)?;
        let mut send = self.send.clone().ready().await.map_err(unsent)?;
        let (answer, stream) = send.send_request(request, body.is_done()).map_err(unsent)?;
        let sending = (!body.is_done()).then_some(Sending { stream, body, unsent: None, has_drawn: false });
        let has_ended = Rc::clone(&self.has_ended);
        Ok(Exchange { answer, sending, has_drawn: false, counted: Some(counted), has_ended })
    }
}

fn request(
    head: &RequestHead,
    scheme: &str,
    left: Duration,
    length: Option<u64>,
) -> Result<Request<()>, http::Error> {
    let authority = if head.host().is_empty() { "localhost" } else { head.host() };
    let target = if head.target() == "*" { "/" } else { head.target() };
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(target).build()?;
    let mut map = head.fields.to_map();
    map.remove(http::header::HOST);
    map.remove(http::header::CONNECTION);
    map.remove(http::header::UPGRADE);
    if map.contains_key("grpc-timeout") {
        map.insert("grpc-timeout", http::HeaderValue::try_from(headers::grpc_timeout(left))?);
    }
    if let Some(length) = length {
        map.insert(http::header::CONTENT_LENGTH, http::HeaderValue::from(length));
    }
    map.insert("standfast-deadline", http::HeaderValue::from(headers::deadline_millis(left)));
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = map;
    Ok(request)
}

/// An answer's head, its body, and what is left to send of the request's.
pub(crate) type Begun = (ResponseHead, Receiving, Option<Sending>);

/// A request on its way.
pub(crate) struct Exchange {
    answer: h2::client::ResponseFuture,
    sending: Option<Sending>,
    /// Some of a body that comes only once was taken from the client.
    has_drawn: bool,
    counted: Option<Counted>,
    /// The connection's.
    has_ended: Rc<Cell<bool>>,
}

impl Exchange {
    /// Sends the request's body and waits for the answer's head.
    pub(crate) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        to_head_request: bool,
    ) -> Poll<Result<Begun, Unanswered>> {
        if let Some(sending) = &mut self.sending {
            let polled = sending.poll(cx);
            self.has_drawn |= sending.has_drawn;
            match polled {
                Poll::Ready(Err(Some(error))) => return Poll::Ready(Err(Unanswered::Client(error))),
                Poll::Ready(_) => self.sending = None,
                Poll::Pending => {}
            }
        }
        let answer = match ready!(std::pin::Pin::new(&mut self.answer).poll(cx)) {
            Ok(answer) => answer,
            Err(error) => return Poll::Ready(Err(self.unanswered(error))),
        };
        let (head, stream) = answer.into_parts();
        let fields = Fields::from_map(&head.headers);
        let framing =
            if to_head_request || stream.is_end_stream() { Framing::None } else { Framing::Chunked };
        let receiving = Receiving {
            stream,
            bytes_max: u64::MAX,
            bytes_read: 0,
            progress: Progress::default(),
            traffic: None,
            _counted: self.counted.take(),
        };
        Poll::Ready(Ok((
            ResponseHead::of_parts(head.status, fields, framing),
            receiving,
            self.sending.take(),
        )))
    }

    /// A stream that the replica refused, or that lies behind the last one it looked at, was not worked on (RFC 9113, 8.7). That
    /// does not help when the body is gone.
    fn unanswered(&self, error: h2::Error) -> Unanswered {
        if error.is_go_away() {
            self.has_ended.set(true);
        }
        if is_declined(&error) {
            return Unanswered::Declined { error: io::Error::other(error), is_lost: self.has_drawn };
        }
        let is_unprocessed = error.is_remote() && error.is_go_away();
        if is_unprocessed && !self.has_drawn {
            Unanswered::Unsent(io::Error::other(error))
        } else {
            Unanswered::Broken(io::Error::other(error))
        }
    }
}

/// Whether a replica that is well has not looked at a request: it leaves with good manners, or has enough to do at the moment.
fn is_declined(error: &h2::Error) -> bool {
    let reason = error.reason();
    error.is_remote()
        && (error.is_go_away() && reason == Some(h2::Reason::NO_ERROR)
            || error.is_reset() && reason == Some(h2::Reason::REFUSED_STREAM))
}

/// A body that is being sent as an HTTP/2 stream.
pub(crate) struct Sending {
    stream: SendStream<Bytes>,
    body: Outflow,
    /// What the peer's window has no room for yet.
    unsent: Option<Bytes>,
    /// Something came of a body that comes only once.
    has_drawn: bool,
}

impl Sending {
    /// Sends on. The error is the client's, or none when the replica takes no more.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Option<BodyError>>> {
        loop {
            if let Some(data) = self.unsent.take() {
                match write_some(&mut self.stream, cx, data) {
                    Ok(None) => {}
                    Ok(left) => {
                        self.unsent = left;
                        return Poll::Pending;
                    }
                    Err(_) => return Poll::Ready(Err(None)),
                }
            }
            let end = match &mut self.body {
                Outflow::Done => return Poll::Ready(Ok(())),
                Outflow::Kept { data, trailers } => {
                    if data.is_empty() {
                        Some(trailers.take())
                    } else {
                        self.unsent = Some(std::mem::take(data));
                        None
                    }
                }
                Outflow::Streamed { ahead, .. } if !ahead.is_empty() => {
                    self.unsent = Some(std::mem::take(ahead));
                    None
                }
                Outflow::Streamed { inflow, .. } => {
                    let unsent = &mut self.unsent;
                    let polled = ready!(inflow.poll_next(cx, &mut |part| *unsent = Some(part.into_bytes())));
                    self.has_drawn = true;
                    match polled {
                        Ok(Step::Data) => None,
                        Ok(Step::End(trailers)) => Some(trailers),
                        Err(error) => {
                            self.body = Outflow::Done;
                            self.stream.send_reset(h2::Reason::CANCEL);
                            return Poll::Ready(Err(Some(error)));
                        }
                    }
                }
            };
            if let Some(trailers) = end {
                self.body = Outflow::Done;
                let sent = match trailers {
                    Some(trailers) => self.stream.send_trailers(trailers.to_map()),
                    None => self.stream.send_data(Bytes::new(), true),
                };
                return Poll::Ready(sent.map_err(|_| None));
            }
        }
    }
}

/// Writes as much as the window allows. What is left comes back; the task is then woken when there is room.
///
/// # Errors
/// The stream has ended.
pub(crate) fn write_some(
    stream: &mut SendStream<Bytes>,
    cx: &mut Context<'_>,
    mut data: Bytes,
) -> Result<Option<Bytes>, h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = match stream.capacity() {
            0 => match stream.poll_capacity(cx) {
                Poll::Ready(Some(room)) => room?,
                Poll::Ready(None) => return Err(h2::Reason::CANCEL.into()),
                Poll::Pending => return Ok(Some(data)),
            },
            room => room,
        };
        stream.send_data(data.split_to(room.min(data.len())), false)?;
    }
    Ok(None)
}

/// A body that comes as an HTTP/2 stream.
#[derive(Debug)]
pub(crate) struct Receiving {
    stream: RecvStream,
    bytes_max: u64,
    bytes_read: u64,
    progress: Progress,
    /// Of the client's connection, when it is a client's.
    traffic: Option<Rc<Traffic>>,
    _counted: Option<Counted>,
}

/// Whether a body comes on; shared with who watches over it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress(Rc<Cell<(u64, bool)>>);

impl Progress {
    /// How many parts have come.
    pub(crate) fn parts(&self) -> u64 {
        self.0.get().0
    }

    /// Whether somebody waits for the next one.
    pub(crate) fn is_awaited(&self) -> bool {
        self.0.get().1
    }

    fn note(&self, is_pending: bool) {
        self.0.set((self.parts() + u64::from(!is_pending), is_pending));
    }
}

impl Receiving {
    /// A client's body of at most so many bytes.
    pub(crate) fn of_client(stream: RecvStream, bytes_max: u64, traffic: Rc<Traffic>) -> Self {
        let progress = Progress::default();
        Self { stream, bytes_max, bytes_read: 0, progress, traffic: Some(traffic), _counted: None }
    }

    pub(crate) const fn bytes_read(&self) -> u64 {
        self.bytes_read
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Part<'_>),
    ) -> Poll<Result<Step, BodyError>> {
        let polled = self.poll_part(cx, sink);
        self.progress.note(polled.is_pending());
        polled
    }

    fn poll_part(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Part<'_>),
    ) -> Poll<Result<Step, BodyError>> {
        loop {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    let _gone_if_not = self.stream.flow_control().release_capacity(data.len());
                    self.bytes_read += data.len() as u64;
                    if let Some(traffic) = &self.traffic {
                        traffic.useful(data.len() as u64);
                    }
                    if self.bytes_read > self.bytes_max {
                        return Poll::Ready(Err(BodyError::Refused(Refusal::BodyTooLarge)));
                    }
                    if !data.is_empty() {
                        sink(Part::Whole(data));
                        return Poll::Ready(Ok(Step::Data));
                    }
                }
                Some(Err(_)) => return Poll::Ready(Err(BodyError::Gone)),
                None => {
                    let trailers = match ready!(self.stream.poll_trailers(cx)) {
                        Ok(trailers) => trailers,
                        Err(_) => return Poll::Ready(Err(BodyError::Gone)),
                    };
                    return Poll::Ready(Ok(Step::End(trailers.map(|map| legal_trailers(&map)))));
                }
            }
        }
    }
}

/// Fields that would change what the message is are dropped (RFC 9110, 6.5.1).
fn legal_trailers(map: &HeaderMap) -> Fields {
    let mut fields = Fields::from_map(map);
    fields.retain(|known, name| known == Known::Other && name != b"content-type");
    fields
}

/// Counts a stream until it is dropped.
#[derive(Debug)]
struct Counted(Rc<Cell<u32>>);

impl Counted {
    fn new(streams: &Rc<Cell<u32>>) -> Self {
        streams.set(streams.get() + 1);
        Self(Rc::clone(streams))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// The HTTP/2 connections to one replica.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    open: RefCell<Vec<Multiplexed>>,
    turn: tokio::sync::Mutex<()>,
}

impl Connections {
    /// The right to open one more. Whoever waited for it looks again first: many may go over what one has opened.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// One with room.
    pub(crate) fn with_room(&self) -> Option<Multiplexed> {
        let mut all = self.open.borrow_mut();
        all.retain(|one| !one.has_ended());
        all.iter().find(|one| one.has_room()).cloned()
    }

    pub(crate) fn add(&self, one: Multiplexed) {
        self.open.borrow_mut().push(one);
    }

    /// Lets go of all: each ends with its last stream.
    pub(crate) fn clear(&self) {
        self.open.borrow_mut().clear();
    }

    /// Drops those that have ended, and those on which nothing has run for longer than `idle_max`.
    pub(crate) fn sweep(&self, now: Stamp, idle_max: Duration) {
        self.open.borrow_mut().retain(|one| {
            if one.streams.get() > 0 {
                one.idle_since.set(None);
            }
            let since = one.idle_since.get().unwrap_or(now);
            if one.streams.get() == 0 {
                one.idle_since.set(Some(since));
            }
            !one.has_ended() && now.since(since) <= idle_max
        });
    }
}
