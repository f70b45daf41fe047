//! One client's connection: what it is doing, so that the sweep can close it when it takes too long, without a timer for each
//! request.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use standfast_model::Stamp;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::config::Limits;
use crate::headers::Forwarded;
use crate::listener::ListenerKind;

/// The time as of the worker's last tick: exact enough for limits of seconds, and free.
pub(crate) type CoarseClock = Arc<AtomicU64>;

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;
/// What an idle connection may keep of the memory for its last head.
const RECENT_BYTES_KEPT: usize = 2 << 10;
/// No wait.
const NEVER: u64 = 0;

/// What a client's connection is doing. (Atomics and a mutex only because hyper wants the stream of a connection that may
/// switch protocols to be `Send`; one thread uses them.)
#[derive(Debug)]
pub(crate) struct Activity {
    clock: CoarseClock,
    phase: AtomicU8,
    since: AtomicU64,
    body_awaited_since: AtomicU64,
    write_blocked_since: AtomicU64,
    recent: Mutex<Recent>,
}

/// The bytes that the head of the current request was read in.
#[derive(Debug, Default)]
struct Recent {
    bytes: Vec<u8>,
    /// A request has been made of them already; what follows in them cannot be told from its body.
    is_used: bool,
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
    pub(crate) fn new(clock: &CoarseClock) -> Arc<Self> {
        Arc::new(Self {
            since: AtomicU64::new(clock.load(Ordering::Relaxed)),
            clock: Arc::clone(clock),
            phase: AtomicU8::new(IDLE),
            body_awaited_since: AtomicU64::new(NEVER),
            write_blocked_since: AtomicU64::new(NEVER),
            recent: Mutex::default(),
        })
    }

    /// A request's head is complete; it runs until the result is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Busy {
        self.enter(BUSY);
        Busy(Arc::clone(self))
    }

    /// Notes whether somebody waits for a part of a body now.
    pub(crate) fn waits_for_body(&self, is_waiting: bool) {
        self.note(&self.body_awaited_since, is_waiting);
    }

    /// Whether the head of the current request had a `Content-Length` beside its `Transfer-Encoding`. Hyper drops the former
    /// silently; but who sends both may have made somebody before us see another request (RFC 9112, 6.1).
    pub(crate) fn head_has_content_length(&self) -> bool {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let head_end = recent.bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let head = &recent.bytes[..head_end.unwrap_or(recent.bytes.len())];
        !recent.is_used
            && head.split(|byte| *byte == b'\n').any(|line| {
                line.get(..15).is_some_and(|start| start.eq_ignore_ascii_case(b"content-length:"))
            })
    }

    /// What the limits demand at `now`.
    pub(crate) fn judge(&self, now: Stamp, limits: &Limits) -> Order {
        let over = |since: &AtomicU64, limit: Duration| {
            let since = since.load(Ordering::Relaxed);
            since != NEVER && now.since(Stamp::from_micros(since)) > limit
        };
        if over(&self.write_blocked_since, limits.body_stall_max) {
            return Order::Abort;
        }
        match self.phase.load(Ordering::Relaxed) {
            IDLE if over(&self.since, limits.client_idle_max) => Order::Finish,
            HEAD if over(&self.since, limits.header_read_max) => Order::Abort,
            BUSY if over(&self.body_awaited_since, limits.body_stall_max) => Order::Abort,
            _ => Order::GoOn,
        }
    }

    fn enter(&self, phase: u8) {
        self.phase.store(phase, Ordering::Relaxed);
        self.since.store(self.clock.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn note(&self, since: &AtomicU64, is_waiting: bool) {
        if !is_waiting {
            since.store(NEVER, Ordering::Relaxed);
        } else if since.load(Ordering::Relaxed) == NEVER {
            since.store(self.clock.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    fn has_read(&self, bytes: &[u8]) {
        let phase = self.phase.load(Ordering::Relaxed);
        if phase == BUSY {
            return;
        }
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if phase == IDLE {
            recent.bytes.clear();
            recent.is_used = false;
            self.enter(HEAD);
        }
        recent.bytes.extend_from_slice(bytes);
    }
}

/// A request that is running on a client's connection.
#[derive(Debug)]
pub(crate) struct Busy(Arc<Activity>);

impl Busy {
    pub(crate) const fn activity(&self) -> &Arc<Activity> {
        &self.0
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        {
            let mut recent = self.0.recent.lock().unwrap_or_else(PoisonError::into_inner);
            recent.is_used = true;
            if recent.bytes.capacity() > RECENT_BYTES_KEPT {
                recent.bytes = Vec::new();
            }
        }
        self.0.waits_for_body(false);
        self.0.enter(IDLE);
    }
}

/// A client's stream that notes what happens on it.
#[derive(Debug)]
pub(crate) struct Watched {
    pub(crate) stream: TcpStream,
    pub(crate) activity: Arc<Activity>,
}

impl AsyncRead for Watched {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(cx, buf);
        if let Some(bytes @ [_, ..]) = buf.filled().get(before..) {
            this.activity.has_read(bytes);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.activity.note(&this.activity.write_blocked_since, polled.is_pending());
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.activity.note(&this.activity.write_blocked_since, polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// A client's connection as the worker sees it.
pub(crate) struct Client {
    pub(crate) kind: Rc<ListenerKind>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) forwarded: RefCell<Forwarded>,
    order: Cell<Order>,
    /// Wakes the connection's task; set with its first poll.
    waker: RefCell<Option<Waker>>,
}

impl Client {
    pub(crate) fn new(kind: Rc<ListenerKind>, peer: SocketAddr, clock: &CoarseClock) -> Self {
        Self {
            kind,
            activity: Activity::new(clock),
            forwarded: RefCell::new(Forwarded::new(peer.ip())),
            order: Cell::new(Order::GoOn),
            waker: RefCell::new(None),
        }
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn activity() -> (Arc<Activity>, CoarseClock) {
        let clock = Arc::new(AtomicU64::new(1_000_000));
        (Activity::new(&clock), clock)
    }

    fn judged_after(activity: &Activity, seconds: u64) -> Order {
        activity.judge(Stamp::from_micros((seconds + 1) * 1_000_000), &Limits::default())
    }

    #[test]
    fn each_phase_has_its_limit() {
        let (activity, _clock) = activity();
        assert_eq!(judged_after(&activity, 74), Order::GoOn);
        assert_eq!(judged_after(&activity, 76), Order::Finish);
        activity.has_read(b"GET / HT");
        assert_eq!(judged_after(&activity, 11), Order::Abort);
        let busy = activity.begin();
        assert_eq!(judged_after(&activity, 1_000), Order::GoOn);
        activity.waits_for_body(true);
        assert_eq!(judged_after(&activity, 61), Order::Abort);
        drop(busy);
        assert_eq!(judged_after(&activity, 61), Order::GoOn);
    }

    #[test]
    fn both_lengths_are_seen_in_the_head_and_nowhere_else() {
        let (activity, _clock) = activity();
        activity.has_read(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nCONTENT-");
        activity.has_read(b"LENGTH: 3\r\n\r\n");
        assert!(activity.head_has_content_length());
        drop(activity.begin());
        activity
            .has_read(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n11\r\ncontent-length: 3\r\n");
        assert!(!activity.head_has_content_length());
    }
}
