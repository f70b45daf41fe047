//! One client's connection: what it is doing, so that the sweep can close it when it takes too long, without a timer for each
//! request; and the bytes of a client that speaks HTTP/1.1.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use standfast_model::Stamp;

use crate::config::Limits;
use crate::error::Refusal;
use crate::headers::Forwarded;
use crate::kept::Digest;
use crate::listener::ListenerKind;
use crate::wire::{BodyReader, Buffer, Framing, Next, Part, RequestHead, Scanner, Step, Stream};

/// The time as of the worker's last tick: exact enough for limits of seconds, and free.
pub(crate) type CoarseClock = Rc<Cell<Stamp>>;

/// What may remain allocated for what an idle connection wrote last.
const OUT_BYTES_KEPT: usize = 4 << 10;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a connection is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Head,
    Busy,
}

/// What a client's connection is doing, and since when.
#[derive(Debug)]
pub(crate) struct Activity {
    clock: CoarseClock,
    phase: Cell<Phase>,
    since: Cell<Stamp>,
    body_awaited_since: Cell<Option<Stamp>>,
    write_blocked_since: Cell<Option<Stamp>>,
}

/// What is to be done with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    GoOn,
    /// Finish the request that is running, if any.
    Finish,
    /// Close it now.
    Abort,
}

impl Activity {
    pub(crate) fn new(clock: &CoarseClock) -> Self {
        Self {
            since: Cell::new(clock.get()),
            clock: Rc::clone(clock),
            phase: Cell::new(Phase::Idle),
            body_awaited_since: Cell::default(),
            write_blocked_since: Cell::default(),
        }
    }

    /// A request's head is being read.
    pub(crate) fn reads_head(&self) {
        if self.phase.get() == Phase::Idle {
            self.enter(Phase::Head);
        }
    }

    /// A request's head is complete; it runs until [`Activity::ends`].
    pub(crate) fn begins(&self) {
        self.enter(Phase::Busy);
    }

    /// Nothing runs any more.
    pub(crate) fn ends(&self) {
        self.waits_for_body(false);
        self.waits_for_write(false);
        self.enter(Phase::Idle);
    }

    /// Notes whether somebody waits for a part of a body now.
    pub(crate) fn waits_for_body(&self, is_waiting: bool) {
        self.note(&self.body_awaited_since, is_waiting);
    }

    /// Notes whether the client takes nothing at the moment.
    pub(crate) fn waits_for_write(&self, is_waiting: bool) {
        self.note(&self.write_blocked_since, is_waiting);
    }

    /// What the limits demand at `now`.
    pub(crate) fn judge(&self, now: Stamp, limits: &Limits) -> Order {
        let is_over = |since: Stamp, limit: Duration| now.since(since) > limit;
        let stalls =
            |since: &Cell<Option<Stamp>>| since.get().is_some_and(|at| is_over(at, limits.body_stall_max));
        if stalls(&self.write_blocked_since) {
            return Order::Abort;
        }
        match self.phase.get() {
            Phase::Idle if is_over(self.since.get(), limits.client_idle_max) => Order::Finish,
            Phase::Head if is_over(self.since.get(), limits.header_read_max) => Order::Abort,
            Phase::Busy if stalls(&self.body_awaited_since) => Order::Abort,
            _ => Order::GoOn,
        }
    }

    /// Since when nothing has been going on, if nothing is.
    pub(crate) fn idle_since(&self) -> Option<Stamp> {
        (self.phase.get() == Phase::Idle).then(|| self.since.get())
    }

    fn enter(&self, phase: Phase) {
        self.phase.set(phase);
        self.since.set(self.clock.get());
    }

    fn note(&self, since: &Cell<Option<Stamp>>, is_waiting: bool) {
        match (is_waiting, since.get()) {
            (true, None) => since.set(Some(self.clock.get())),
            (true, Some(_)) => {}
            (false, _) => since.set(None),
        }
    }
}

/// A client's connection as the worker sees it.
pub(crate) struct Client {
    pub(crate) kind: Rc<ListenerKind>,
    pub(crate) activity: Activity,
    /// Where the client is: what the connection says, or the PROXY protocol.
    pub(crate) peer: Cell<SocketAddr>,
    /// For whom the connection counts.
    pub(crate) counted_for: Cell<IpAddr>,
    pub(crate) forwarded: RefCell<Forwarded>,
    /// Of the certificate that it has shown.
    pub(crate) certificate: Cell<Option<Digest>>,
    order: Cell<Order>,
    /// Wakes the connection's task; set with its first poll.
    waker: RefCell<Option<Waker>>,
}

impl Client {
    pub(crate) fn new(kind: Rc<ListenerKind>, peer: SocketAddr, clock: &CoarseClock) -> Self {
        let scheme = kind.scheme();
        Self {
            kind,
            activity: Activity::new(clock),
            peer: Cell::new(peer),
            counted_for: Cell::new(peer.ip().to_canonical()),
            forwarded: RefCell::new(Forwarded::new(peer.ip(), scheme)),
            certificate: Cell::default(),
            order: Cell::new(Order::GoOn),
            waker: RefCell::new(None),
        }
    }

    /// The client is not who opened the connection, but whom that one speaks for.
    pub(crate) fn speaks_for(&self, peer: SocketAddr) {
        self.peer.set(peer);
        *self.forwarded.borrow_mut() = Forwarded::new(peer.ip(), self.kind.scheme());
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.peer.get().ip().to_canonical()
    }

    /// Gives an order to the connection's task; a stricter one that was given before stays.
    pub(crate) fn tell(&self, order: Order) {
        if order == Order::GoOn || self.order.get() == Order::Abort || self.order.get() == order {
            return;
        }
        self.order.set(order);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// For the connection's task: the order that stands.
    pub(crate) fn order(&self, cx: &Context<'_>) -> Order {
        if self.waker.borrow().is_none() {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
        }
        self.order.get()
    }

    /// Whether the connection is to end with the request that runs.
    pub(crate) fn is_finishing(&self) -> bool {
        self.order.get() != Order::GoOn
    }
}

/// Why a client's body cannot be read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// The client is gone.
    Gone,
    /// A fault that was injected: its connection is to be reset, over HTTP/2 its stream.
    Reset,
    /// It is to be answered with this, and the connection closed.
    Refused(Refusal),
}

/// A client's HTTP/1.1 connection: what was read, and what is to be written.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) stream: Stream,
    pub(crate) buffer: Buffer,
    pub(crate) out: Vec<u8>,
    written: usize,
    scanner: Scanner,
    reader: BodyReader,
    body_bytes_max: u64,
    body_bytes_read: u64,
    /// What is left to write of `100 Continue`, which is owed before the body is waited for.
    continue_owed: &'static [u8],
    is_reset: bool,
}

/// What came instead of a request.
#[derive(Debug)]
pub(crate) enum NoRequest {
    /// The client is gone, or said nothing more.
    Closed,
    Refused(Refusal),
}

impl Conn {
    pub(crate) fn new(stream: Stream, buffer: Buffer) -> Self {
        Self {
            stream,
            buffer,
            out: Vec::new(),
            written: 0,
            scanner: Scanner::default(),
            reader: BodyReader::Done,
            body_bytes_max: 0,
            body_bytes_read: 0,
            continue_owed: b"",
            is_reset: false,
        }
    }

    /// Reads the next request's head.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        activity: &Activity,
        limits: &Limits,
    ) -> Poll<Result<RequestHead, NoRequest>> {
        loop {
            // Some clients end a body with an empty line too many (RFC 9112, 2.2).
            while self.buffer.unread().starts_with(b"\r\n") {
                self.buffer.consume(2);
            }
            let unread = self.buffer.unread();
            if !matches!(unread, [] | [b'\r']) {
                activity.reads_head();
                let refused = |refusal| Poll::Ready(Err(NoRequest::Refused(refusal)));
                match self.scanner.end_of_head(unread) {
                    Err(why) => return refused(Refusal::BadRequest(why)),
                    Ok(Some(length)) if length <= limits.header_bytes_max => {
                        self.scanner = Scanner::default();
                        let head = match RequestHead::parse(&unread[..length], limits.header_count_max) {
                            Ok(head) => head,
                            Err(refusal) => return refused(refusal),
                        };
                        self.buffer.consume(length);
                        self.buffer.release();
                        self.reader = BodyReader::new(head.framing);
                        if matches!(head.framing, Framing::Length(length) if length > limits.body_bytes_max) {
                            return refused(Refusal::BodyTooLarge);
                        }
                        (self.body_bytes_max, self.body_bytes_read) = (limits.body_bytes_max, 0);
                        self.continue_owed = if head.expects_continue { CONTINUE } else { b"" };
                        return Poll::Ready(Ok(head));
                    }
                    Ok(Some(_)) => return refused(Refusal::HeadTooLarge),
                    Ok(None) if unread.len() >= limits.header_bytes_max => {
                        return refused(Refusal::HeadTooLarge);
                    }
                    Ok(None) => {}
                }
            }
            match ready!(self.buffer.poll_fill(cx, &mut self.stream, limits.header_bytes_max)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Err(NoRequest::Closed)),
            }
        }
    }

    /// Reads on in the request's body.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Part<'_>),
    ) -> Poll<Result<Step, BodyError>> {
        let refused = |why| BodyError::Refused(Refusal::BadRequest(why));
        while !self.continue_owed.is_empty() && !self.reader.is_done() {
            match ready!(self.stream.poll_write_some(cx, self.continue_owed)) {
                Ok(count @ 1..) => self.continue_owed = self.continue_owed.get(count..).unwrap_or_default(),
                _ => return Poll::Ready(Err(BodyError::Gone)),
            }
        }
        loop {
            let unread = self.buffer.unread();
            match self.reader.next(unread).map_err(|bad| refused(bad.0))? {
                Next::Data { consumed, data } => {
                    self.body_bytes_read += data as u64;
                    if self.body_bytes_read > self.body_bytes_max {
                        return Poll::Ready(Err(BodyError::Refused(Refusal::BodyTooLarge)));
                    }
                    sink(Part::Slice(&unread[consumed - data..consumed]));
                    self.buffer.consume(consumed);
                    return Poll::Ready(Ok(Step::Data));
                }
                Next::End { consumed, trailers } => {
                    self.buffer.consume(consumed);
                    return Poll::Ready(Ok(Step::End(trailers)));
                }
                Next::More { consumed } => self.buffer.consume(consumed),
            }
            match ready!(self.buffer.poll_fill(cx, &mut self.stream, usize::MAX)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(Err(BodyError::Gone)),
            }
        }
    }

    /// Ready when the client has left while its request is worked on.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.reader.is_done() || !self.buffer.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.buffer.poll_fill(cx, &mut self.stream, usize::MAX)) {
            Ok(1..) => Poll::Pending, // the next request, early
            Ok(0) | Err(_) => Poll::Ready(()),
        }
    }

    /// Has the connection end with a reset instead of an orderly end, as soon as it is dropped.
    pub(crate) fn reset(&mut self) {
        self.is_reset = true;
        if let Err(error) = self.stream.reset_at_end() {
            tracing::debug!(%error, "a client left before its connection was reset");
        }
    }

    /// Whether it ends with a reset.
    pub(crate) const fn is_reset(&self) -> bool {
        self.is_reset
    }

    /// How much of the request's body was read.
    pub(crate) const fn body_bytes_read(&self) -> u64 {
        self.body_bytes_read
    }

    /// Writes out what is to be written.
    pub(crate) fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.out.len() {
            match ready!(self.stream.poll_write_some(cx, &self.out[self.written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.written += count,
            }
        }
        (self.written, _) = (0, self.out.clear());
        if self.stream.is_tls() {
            ready!(tokio::io::AsyncWrite::poll_flush(std::pin::Pin::new(&mut self.stream), cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether the request's body was read to its end, so that the next request can be found.
    pub(crate) const fn is_body_read(&self) -> bool {
        self.reader.is_done()
    }

    /// The answer is to be written: `100 Continue` comes before it or not at all.
    pub(crate) fn owe_no_continue(&mut self) {
        let rest = std::mem::take(&mut self.continue_owed);
        if rest.len() < CONTINUE.len() {
            self.out.splice(..0, rest.iter().copied());
        }
    }

    /// Whether the body's end can be had without waiting for the client.
    pub(crate) fn skip_read_body(&mut self) {
        while !self.reader.is_done() {
            match self.reader.next(self.buffer.unread()) {
                Ok(Next::Data { consumed, .. } | Next::End { consumed, .. }) => self.buffer.consume(consumed),
                _ => return,
            }
        }
    }

    /// Nothing runs: gives memory back.
    pub(crate) fn rest(&mut self) {
        if self.out.capacity() > OUT_BYTES_KEPT {
            self.out = Vec::new();
        }
        self.buffer.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged_after(activity: &Activity, seconds: u64) -> Order {
        activity.judge(Stamp::from_micros((seconds + 1) * 1_000_000), &Limits::default())
    }

    #[test]
    fn each_phase_has_its_limit() {
        let activity = Activity::new(&Rc::new(Cell::new(Stamp::from_micros(1_000_000))));
        assert_eq!(judged_after(&activity, 74), Order::GoOn);
        assert_eq!(judged_after(&activity, 76), Order::Finish);
        activity.reads_head();
        assert_eq!(judged_after(&activity, 11), Order::Abort);
        activity.begins();
        assert_eq!(judged_after(&activity, 1_000), Order::GoOn);
        activity.waits_for_body(true);
        assert_eq!(judged_after(&activity, 61), Order::Abort);
        activity.ends();
        assert_eq!(judged_after(&activity, 61), Order::GoOn);
    }
}
