//! One connection to a replica.
//!
//! Hyper splits a connection into a handle that takes requests and a driver that does the I/O. Usually the driver is a task of
//! its own, and each request then costs two wake-ups across tasks. Here whoever waits for the answer polls the driver himself:
//! the client's task is woken by the replica's socket directly. A connection that lies idle is polled by nobody; that the
//! replica has closed it shows when the next request is put on it, and hyper then gives that request back unsent.
//!
//! The handle and the driver also wake each other, which between two parts of one task only costs polls that find nothing, or,
//! on a connection that served another client before, wakes that client's task. So the driver is polled with a [`Gate`].

use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use standfast_model::Stamp;
use standfast_runtime::Net;
use tokio::net::TcpStream;
use tokio::task::coop::unconstrained;

use crate::body::RequestBody;

type Driver = http1::Connection<TokioIo<TcpStream>, RequestBody>;

/// A connection that is in use or idle, and belongs to one worker.
pub(crate) struct Connected {
    sender: http1::SendRequest<RequestBody>,
    /// `None` once the connection has ended.
    driver: Option<Driver>,
    gate: Arc<Gate>,
    /// The gate as hyper wants it.
    waker: Waker,
    /// Since when it has been idle, when it is.
    pub(crate) idle_since: Stamp,
}

/// Passes wake-ups on to the task that uses a connection now, except those that the task causes itself. (All on one thread; the
/// lock and the atomic are what `Wake` demands.)
#[derive(Default)]
struct Gate {
    target: Mutex<Option<Waker>>,
    is_shut: AtomicBool,
}

impl Gate {
    fn lead_to(&self, waker: &Waker) {
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *target {
            Some(known) => known.clone_from(waker),
            None => *target = Some(waker.clone()),
        }
    }

    fn lead_nowhere(&self) {
        *self.target.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Does something whose wake-ups are not needed, since the driver is polled after it anyway.
    fn unheard<T>(&self, act: impl FnOnce() -> T) -> T {
        self.is_shut.store(true, Ordering::Relaxed);
        let result = act();
        self.is_shut.store(false, Ordering::Relaxed);
        result
    }
}

impl Wake for Gate {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_shut.load(Ordering::Relaxed)
            && let Some(waker) = &*self.target.lock().unwrap_or_else(PoisonError::into_inner)
        {
            waker.wake_by_ref();
        }
    }
}

/// A request without an answer.
pub(crate) enum Unanswered {
    /// None of it was written: it may be sent again whatever it is.
    Unsent(Box<Request<RequestBody>>),
    /// It was or may have been sent.
    Broken(hyper::Error),
}

impl Connected {
    /// Opens a connection. It takes as long as the operating system lets it: wrap it in a time limit.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) async fn open(net: Net, address: SocketAddr) -> io::Result<Box<Self>> {
        let stream = net.connect_tcp(address).await?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let gate = Arc::<Gate>::default();
        let waker = Waker::from(Arc::clone(&gate));
        Ok(Box::new(Self { sender, driver: Some(driver), gate, waker, idle_since: Stamp::EPOCH }))
    }

    /// Does what I/O there is to do.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        self.gate.lead_to(cx.waker());
        if let Some(driver) = &mut self.driver
            && Pin::new(driver).poll(&mut Context::from_waker(&self.waker)).is_ready()
        {
            // Its error reaches whoever reads a body on this connection.
            self.driver = None;
        }
    }

    /// Sends a request and waits for the answer's head.
    ///
    /// # Errors
    /// [`Unanswered`].
    ///
    /// # Cancellation
    /// Drop the connection with the future: its state is then unknown.
    pub(crate) async fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, Unanswered> {
        // Unconstrained: out of budget, tokio would wake the waker that it is given, and that one wakes nobody.
        let mut answer = pin!(unconstrained(self.gate.unheard(|| self.sender.try_send_request(request))));
        let (driver, gate, waker) = (&mut self.driver, &self.gate, &self.waker);
        let mut has_ended = false;
        let answered = std::future::poll_fn(|cx| {
            gate.lead_to(cx.waker());
            let driver_cx = &mut Context::from_waker(waker);
            has_ended = driver.as_mut().is_none_or(|driver| Pin::new(driver).poll(driver_cx).is_ready());
            // Only the driver can bring the answer, and it was polled just now: nobody need be woken.
            let cx = &mut Context::from_waker(Waker::noop());
            match answer.as_mut().poll(cx) {
                Poll::Pending if has_ended => {
                    // What the driver still holds comes back when it is dropped.
                    *driver = None;
                    answer.as_mut().poll(cx)
                }
                polled => polled,
            }
        })
        .await;
        let switches_protocols =
            answered.as_ref().is_ok_and(|a| a.status() == StatusCode::SWITCHING_PROTOCOLS);
        if has_ended && !switches_protocols {
            self.driver = None;
        }
        answered.map_err(|mut error| match error.take_message() {
            Some(request) => Unanswered::Unsent(Box::new(request)),
            None => Unanswered::Broken(error.into_error()),
        })
    }

    /// What the driver has put down for the body, without driving it on.
    pub(crate) fn poll_slot(&self, incoming: &mut Incoming) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        // Only the driver can make the body ready, and whoever drives it polls the body after that: nobody need be woken.
        let cx = &mut Context::from_waker(Waker::noop());
        self.gate.unheard(|| Pin::new(incoming).poll_frame(cx))
    }

    /// It is idle from now on: what happens on it wakes nobody.
    pub(crate) fn rest(&mut self, now: Stamp) {
        self.idle_since = now;
        self.gate.lead_nowhere();
    }

    /// Whether the next request may be put on it.
    pub(crate) fn is_reusable(&self) -> bool {
        self.driver.is_some() && self.sender.is_ready()
    }

    /// Looks whether the replica has closed it while it lay idle.
    pub(crate) fn has_been_closed(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        !self.is_reusable()
    }

    /// After an answer that switches protocols: the bare connection, and what was read beyond the answer.
    pub(crate) fn into_stream(self) -> Option<(TcpStream, Bytes)> {
        let parts = self.driver?.into_parts();
        Some((parts.io.into_inner(), parts.read_buf))
    }
}
