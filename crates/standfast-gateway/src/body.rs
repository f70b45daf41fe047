//! Bodies on their way through, whatever protocol they come by and go by.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;

use crate::client::{BodyError, Client, Conn};
use crate::fault::{SlowHead, Tampered};
use crate::kept::Tee;
use crate::pool::InFlight;
use crate::upstream::h1::Connected;
use crate::upstream::h2::{Progress, Receiving};
use crate::wire::{BodyReader, Fields, Framing, Next, Part, Step};

/// A client's body that comes bit by bit.
#[derive(Clone)]
pub(crate) enum Inflow {
    H1(Rc<RefCell<Conn>>, Rc<Client>),
    H2(Rc<RefCell<Receiving>>),
}

impl Inflow {
    /// Reads on.
    pub(crate) fn poll_next(
        &self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Part<'_>),
    ) -> Poll<Result<Step, BodyError>> {
        match self {
            Self::H1(conn, client) => {
                let polled = conn.borrow_mut().poll_body(cx, sink);
                client.activity.waits_for_body(polled.is_pending());
                polled
            }
            Self::H2(receiving) => receiving.borrow_mut().poll_next(cx, sink),
        }
    }
}

/// The body of a request.
#[derive(Clone)]
pub(crate) enum Source {
    Empty,
    /// Held whole, to be sent again.
    Kept {
        data: Bytes,
        trailers: Option<Fields>,
    },
    /// On its way from the client: it can be sent once.
    Streamed {
        /// What was read already.
        ahead: Bytes,
        inflow: Inflow,
        framing: Framing,
    },
}

impl Source {
    /// A client's body that was not read yet.
    pub(crate) const fn unread(inflow: Inflow, framing: Framing) -> Self {
        Self::Streamed { ahead: Bytes::new(), inflow, framing }
    }

    /// Reads a body whole, so that it can be sent again; one of more than `bytes_max` can be sent once.
    ///
    /// # Errors
    /// The client broke off, or its body is not legal.
    pub(crate) async fn kept(self, bytes_max: usize) -> Result<Self, BodyError> {
        let Self::Streamed { ahead, inflow, framing } = self else { return Ok(self) };
        if matches!(framing, Framing::Length(length) if length > bytes_max as u64) {
            return Ok(Self::Streamed { ahead, inflow, framing });
        }
        let mut data = Vec::from(ahead);
        loop {
            if data.len() > bytes_max {
                return Ok(Self::Streamed { ahead: data.into(), inflow, framing });
            }
            let step = std::future::poll_fn(|cx| {
                inflow.poll_next(cx, &mut |part| data.extend_from_slice(part.as_slice()))
            });
            if let Step::End(trailers) = step.await? {
                return Ok(Self::Kept { data: data.into(), trailers });
            }
        }
    }

    pub(crate) const fn can_be_sent_again(&self) -> bool {
        !matches!(self, Self::Streamed { .. })
    }

    /// How much of it has come from the client.
    pub(crate) fn bytes_read(&self) -> u64 {
        match self {
            Self::Empty => 0,
            Self::Kept { data, .. } => data.len() as u64,
            Self::Streamed { inflow: Inflow::H1(conn, _), .. } => conn.borrow().body_bytes_read(),
            Self::Streamed { inflow: Inflow::H2(receiving), .. } => receiving.borrow().bytes_read(),
        }
    }

    /// Whether a body over HTTP/2 comes on.
    pub(crate) fn progress(&self) -> Option<Progress> {
        match self {
            Self::Streamed { inflow: Inflow::H2(receiving), .. } => Some(receiving.borrow().progress()),
            _ => None,
        }
    }

    /// How the body is framed towards a replica.
    pub(crate) fn framing(&self) -> Framing {
        match self {
            Self::Empty => Framing::None,
            Self::Kept { trailers: Some(_), .. } => Framing::Chunked,
            Self::Kept { data, .. } => Framing::Length(data.len() as u64),
            Self::Streamed { framing, .. } => *framing,
        }
    }

    /// The body for one attempt.
    pub(crate) fn outflow(&self) -> Outflow {
        match self {
            Self::Empty => Outflow::Done,
            Self::Kept { data, trailers } => Outflow::Kept { data: data.clone(), trailers: trailers.clone() },
            Self::Streamed { ahead, inflow, framing } => Outflow::Streamed {
                ahead: ahead.clone(),
                inflow: inflow.clone(),
                is_chunked: *framing == Framing::Chunked,
            },
        }
    }
}

/// What is left to send of a request's body.
pub(crate) enum Outflow {
    Done,
    Kept {
        data: Bytes,
        trailers: Option<Fields>,
    },
    /// What was read ahead, then the rest as it comes.
    Streamed {
        ahead: Bytes,
        inflow: Inflow,
        is_chunked: bool,
    },
}

impl Outflow {
    pub(crate) const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }
}

/// The body of an answer, and what it comes over.
pub(crate) enum AnswerBody {
    Empty,
    /// Made by the gateway, or read whole.
    Whole(Bytes),
    H1(Box<H1Answer>),
    H2(Box<H2Answer>),
    /// Any of these, that is kept as it passes.
    Kept(Box<Tee>),
    /// The replica speaks another protocol now.
    Upgraded(Box<Connected>, InFlight),
    /// A fault changes it on its way.
    Tampered(Box<Tampered>),
    /// There is no answer: a fault has the client's connection reset, over HTTP/2 its stream.
    Reset,
}

/// An answer's body over HTTP/1.1, with what is left of the request's.
pub(crate) struct H1Answer {
    pub(crate) connected: Box<Connected>,
    pub(crate) reader: BodyReader,
    pub(crate) outflow: Outflow,
    pub(crate) keeps_alive: bool,
    pub(crate) in_flight: InFlight,
}

/// An answer's body over HTTP/2, with what is left of the request's.
pub(crate) struct H2Answer {
    pub(crate) receiving: Receiving,
    pub(crate) sending: Option<crate::upstream::h2::Sending>,
    pub(crate) in_flight: InFlight,
}

/// An answer that broke off in its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BrokenOff;

impl AnswerBody {
    /// How slowly its head is to come, if a fault says so.
    pub(crate) fn slow_head(&self) -> Option<SlowHead> {
        match self {
            Self::Tampered(tampered) => tampered.slow_head(),
            _ => None,
        }
    }

    /// Reads on; the connection is given back as soon as the answer is complete.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Part<'_>),
    ) -> Poll<Result<Step, BrokenOff>> {
        let polled = match self {
            Self::Empty | Self::Upgraded(..) => return Poll::Ready(Ok(Step::End(None))),
            Self::Reset => return Poll::Ready(Err(BrokenOff)),
            Self::Whole(data) => {
                let data = std::mem::take(data);
                *self = Self::Empty;
                if data.is_empty() {
                    return Poll::Ready(Ok(Step::End(None)));
                }
                sink(Part::Whole(data));
                return Poll::Ready(Ok(Step::Data));
            }
            Self::H1(answer) => answer.poll_next(cx, sink),
            Self::H2(answer) => answer.poll_next(cx, sink),
            Self::Kept(tee) => tee.poll_next(cx, sink),
            Self::Tampered(tampered) => tampered.poll_next(cx, sink),
        };
        if let Poll::Ready(Ok(Step::End(_)) | Err(_)) = polled {
            self.finish();
        }
        polled
    }

    /// Sends on what is left of the request, while nobody takes the answer.
    pub(crate) fn send_request(&mut self, cx: &mut Context<'_>) {
        match self {
            Self::Empty | Self::Whole(_) | Self::Upgraded(..) | Self::Reset => {}
            Self::H1(answer) => answer.send_request(cx),
            Self::H2(answer) => answer.send_request(cx),
            Self::Kept(tee) => tee.send_request(cx),
            Self::Tampered(tampered) => tampered.send_request(cx),
        }
    }

    /// Lets go of a body; the connection is kept when it can serve another request.
    pub(crate) fn finish(&mut self) {
        match std::mem::replace(self, Self::Empty) {
            Self::H1(answer) => answer.finish(),
            Self::Tampered(mut tampered) => tampered.finish(),
            _ => {}
        }
    }

    /// Whether the request is still being sent while it is answered.
    pub(crate) fn is_sending(&self) -> bool {
        match self {
            Self::H1(answer) => answer.is_sending(),
            Self::H2(answer) => answer.sending.is_some(),
            Self::Kept(tee) => tee.is_sending(),
            Self::Tampered(tampered) => tampered.is_sending(),
            Self::Empty | Self::Whole(_) | Self::Upgraded(..) | Self::Reset => false,
        }
    }

    /// Whether it has been read to its end without waiting.
    pub(crate) fn is_complete(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(data) => data.is_empty(),
            Self::H1(answer) => answer.reader.is_done(),
            Self::Tampered(tampered) => tampered.is_complete(),
            Self::H2(_) | Self::Kept(_) | Self::Upgraded(..) | Self::Reset => false,
        }
    }
}

impl H1Answer {
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Part<'_>),
    ) -> Poll<Result<Step, BrokenOff>> {
        self.send_request(cx);
        loop {
            let unread = self.connected.buffer.unread();
            match self.reader.next(unread).map_err(|_| BrokenOff)? {
                Next::Data { consumed, data } => {
                    sink(Part::Slice(&unread[consumed - data..consumed]));
                    self.connected.buffer.consume(consumed);
                    return Poll::Ready(Ok(Step::Data));
                }
                Next::End { consumed, trailers } => {
                    self.connected.buffer.consume(consumed);
                    return Poll::Ready(Ok(Step::End(trailers)));
                }
                Next::More { consumed } => self.connected.buffer.consume(consumed),
            }
            match ready!(self.connected.poll_fill(cx)) {
                Ok(1..) => {}
                Ok(0) if self.reader == BodyReader::UntilClose => {
                    self.reader = BodyReader::Done;
                    return Poll::Ready(Ok(Step::End(None)));
                }
                _ => return Poll::Ready(Err(BrokenOff)),
            }
        }
    }

    /// A client may send while it is answered: what fails there shows in the answer, or at its end.
    fn send_request(&mut self, cx: &mut Context<'_>) {
        if self.is_sending() && matches!(self.connected.poll_send(cx, &mut self.outflow), Poll::Ready(Err(_)))
        {
            self.keeps_alive = false;
        }
    }

    /// Whether some of the request is still to be sent.
    const fn is_sending(&self) -> bool {
        !self.outflow.is_done() || self.connected.has_unsent()
    }

    /// Gives the connection back, if the answer was read to its end and nothing is left to be sent.
    pub(crate) fn finish(self) {
        if self.keeps_alive && self.reader.is_done() && !self.is_sending() {
            self.in_flight.endpoint().keep(self.connected);
        }
    }
}

impl H2Answer {
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Part<'_>),
    ) -> Poll<Result<Step, BrokenOff>> {
        self.send_request(cx);
        let step = ready!(self.receiving.poll_next(cx, sink)).map_err(|_| BrokenOff)?;
        if let Step::End(Some(trailers)) = &step
            && trailers.named("grpc-status").is_some_and(|status| status == b"14")
        {
            // Unavailable: what an answer of 503 is elsewhere.
            self.in_flight.fails_late();
        }
        Poll::Ready(Ok(step))
    }

    fn send_request(&mut self, cx: &mut Context<'_>) {
        if let Some(sending) = &mut self.sending
            && sending.poll(cx).is_ready()
        {
            self.sending = None;
        }
    }
}
