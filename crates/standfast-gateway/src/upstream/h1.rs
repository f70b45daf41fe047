//! One connection to a replica that speaks HTTP/1.1. Whoever waits for the answer does the I/O: no task, no wake-up in between.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use standfast_model::Stamp;
use standfast_runtime::Net;
use tokio::io::AsyncWrite;

use crate::body::Outflow;
use crate::client::BodyError;
use crate::upstream::transport::Transport;
use crate::wire::{
    BadAnswer, Buffer, BufferPool, Framing, RequestHead, ResponseHead, Scanner, Step, Stream, write_chunk,
    write_last_chunk,
};

/// The head of an answer.
const HEAD_BYTES_MAX: usize = 128 << 10;
/// Interim answers (1xx) before the answer; who sends more is not well.
const INTERIM_MAX: u32 = 16;
/// What may remain allocated for what was sent last.
const OUT_BYTES_KEPT: usize = 4 << 10;

/// A connection that is in use or idle, and belongs to one worker.
#[derive(Debug)]
pub(crate) struct Connected {
    stream: Stream,
    pub(crate) buffer: Buffer,
    out: Vec<u8>,
    written: usize,
    /// Some of the request's bytes were taken by the kernel.
    has_sent: bool,
    scanner: Scanner,
    interim: u32,
    /// The request asks for another protocol.
    upgrades: bool,
    /// Since when it has been idle, when it is.
    pub(crate) idle_since: Stamp,
}

/// A request without an answer.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// None of it was written: it may be sent again whatever it is.
    Unsent(io::Error),
    /// The replica is well, and says that it did not look at it: it goes away, or takes no more at the moment. `is_lost` when it cannot be
    /// sent again all the same, since some of its body is gone.
    Declined { error: io::Error, is_lost: bool },
    /// It was or may have been sent.
    Broken(io::Error),
    /// What came back is no answer.
    Bad(BadAnswer),
    /// The client's part failed.
    Client(BodyError),
}

/// Why a request cannot be sent on.
#[derive(Debug)]
pub(crate) enum SendError {
    Replica(io::Error),
    Client(BodyError),
}

impl Connected {
    /// Opens a connection. It takes as long as the operating system lets it: wrap it in a time limit.
    ///
    /// # Errors
    /// What the operating system says.
    pub(crate) async fn open(
        transport: Transport,
        net: Net,
        address: SocketAddr,
        pool: &Rc<BufferPool>,
    ) -> io::Result<Box<Self>> {
        Ok(Self::over(transport.open(net, address).await?, pool))
    }

    fn over(stream: Stream, pool: &Rc<BufferPool>) -> Box<Self> {
        Box::new(Self {
            stream,
            buffer: Buffer::new(pool),
            out: Vec::new(),
            written: 0,
            has_sent: false,
            scanner: Scanner::default(),
            interim: 0,
            upgrades: false,
            idle_since: Stamp::EPOCH,
        })
    }

    /// Puts down a request's head, to be written by [`Connected::poll_answer`].
    pub(crate) fn begin(&mut self, head: &RequestHead, framing: Framing, deadline_millis: u64) {
        (self.has_sent, self.interim, self.written) = (false, 0, 0);
        self.upgrades = head.upgrades;
        self.out.clear();
        write_request(&mut self.out, head, framing, deadline_millis);
    }

    /// Sends what is left of a request.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Outflow,
    ) -> Poll<Result<(), SendError>> {
        loop {
            while self.written < self.out.len() {
                match ready!(self.stream.poll_write_some(cx, &self.out[self.written..])) {
                    Ok(0) => return Poll::Ready(Err(SendError::Replica(io::ErrorKind::WriteZero.into()))),
                    Ok(count) => {
                        self.written += count;
                        self.has_sent = true;
                    }
                    Err(error) => return Poll::Ready(Err(SendError::Replica(error))),
                }
            }
            if self.stream.is_tls() && !self.out.is_empty() {
                // What it has encrypted may still be here.
                if let Err(error) = ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
                    return Poll::Ready(Err(SendError::Replica(error)));
                }
            }
            (self.written, _) = (0, self.out.clear());
            let out = &mut self.out;
            match body {
                Outflow::Done => return Poll::Ready(Ok(())),
                Outflow::Kept { data, trailers } => {
                    match trailers {
                        None => out.extend_from_slice(data),
                        Some(trailers) => {
                            write_chunk(out, data);
                            write_last_chunk(out, Some(trailers));
                        }
                    }
                    *body = Outflow::Done;
                }
                Outflow::Streamed { ahead, inflow, is_chunked } => {
                    let is_chunked = *is_chunked;
                    let mut put = |data: &[u8]| {
                        if is_chunked { write_chunk(out, data) } else { out.extend_from_slice(data) }
                    };
                    if !ahead.is_empty() {
                        put(&std::mem::take(ahead));
                        continue;
                    }
                    match ready!(inflow.poll_next(cx, &mut |part| put(part.as_slice()))) {
                        Ok(Step::Data) => {}
                        Ok(Step::End(trailers)) => {
                            if is_chunked {
                                write_last_chunk(out, trailers.as_ref());
                            }
                            *body = Outflow::Done;
                        }
                        Err(error) => {
                            *body = Outflow::Done;
                            return Poll::Ready(Err(SendError::Client(error)));
                        }
                    }
                }
            }
        }
    }

    /// Puts a small body behind the head, so that both go in one packet.
    pub(crate) fn join(&mut self, body: &mut Outflow) {
        if let Outflow::Kept { data, trailers: None } = body {
            self.out.extend_from_slice(data);
            *body = Outflow::Done;
        }
    }

    /// Sends the request and waits for the answer's head.
    pub(crate) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        body: &mut Outflow,
        to_head_request: bool,
    ) -> Poll<Result<ResponseHead, Unanswered>> {
        let mut failed = None;
        match self.poll_send(cx, body) {
            Poll::Ready(Err(SendError::Client(error))) => return Poll::Ready(Err(Unanswered::Client(error))),
            // It may have answered before it closed.
            Poll::Ready(Err(SendError::Replica(error))) => failed = Some(error),
            _ => {}
        }
        if !self.has_sent {
            return match failed {
                Some(error) => Poll::Ready(Err(Unanswered::Unsent(error))),
                None => Poll::Pending,
            };
        }
        loop {
            match self.take_head(to_head_request) {
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => {}
                Err(bad) => return Poll::Ready(Err(Unanswered::Bad(bad))),
            }
            match self.poll_fill(cx) {
                Poll::Ready(Ok(1..)) => {}
                Poll::Ready(Ok(0)) => {
                    let error = failed.unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into());
                    return Poll::Ready(Err(Unanswered::Broken(error)));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Unanswered::Broken(error))),
                Poll::Pending => match failed {
                    Some(error) => return Poll::Ready(Err(Unanswered::Broken(error))),
                    None => return Poll::Pending,
                },
            }
        }
    }

    /// The answer's head, once it is there. Interim answers are passed over.
    fn take_head(&mut self, to_head_request: bool) -> Result<Option<ResponseHead>, BadAnswer> {
        loop {
            let unread = self.buffer.unread();
            if unread.is_empty() {
                return Ok(None);
            }
            let Some(length) = self.scanner.end_of_head(unread).map_err(BadAnswer)? else {
                return if unread.len() < HEAD_BYTES_MAX {
                    Ok(None)
                } else {
                    Err(BadAnswer("its head is too long"))
                };
            };
            self.scanner = Scanner::default();
            let head = ResponseHead::parse(&unread[..length], to_head_request)?;
            self.buffer.consume(length);
            let switches = head.status == http::StatusCode::SWITCHING_PROTOCOLS;
            if switches && !self.upgrades {
                // What the client sends next would pass unread.
                return Err(BadAnswer("it switches to a protocol that nobody asked for"));
            }
            if !head.status.is_informational() || switches {
                return Ok(Some(head));
            }
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err(BadAnswer("it sends interim answers without end"));
            }
        }
    }

    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.buffer.poll_fill(cx, &mut self.stream, HEAD_BYTES_MAX)
    }

    /// It is idle from now on.
    pub(crate) fn rest(&mut self, now: Stamp) {
        self.idle_since = now;
        if self.out.capacity() > OUT_BYTES_KEPT {
            self.out = Vec::new();
        }
        self.buffer.release();
    }

    /// Whether bytes of the request are still here.
    pub(crate) const fn has_unsent(&self) -> bool {
        !self.out.is_empty()
    }

    /// Whether the next request may be put on it: all of the last one went, and nothing came over it while it lay idle, not even
    /// its end.
    pub(crate) fn is_reusable(&mut self) -> bool {
        !self.has_unsent() && self.buffer.is_empty() && self.stream.is_quiet()
    }

    /// The same, as exactly as can be known, right before it is used: a late answer must never become the next request's.
    pub(crate) fn is_still_reusable(&mut self) -> bool {
        !self.has_unsent() && self.buffer.is_empty() && self.stream.is_silent()
    }

    /// After an answer that switches protocols: the bare connection, and what was read beyond the answer.
    pub(crate) fn into_parts(self) -> (Stream, Buffer) {
        (self.stream, self.buffer)
    }
}

/// Writes the head of a request as a replica gets it. What the fields said of the framing is out of them.
pub(crate) fn write_request(out: &mut Vec<u8>, head: &RequestHead, framing: Framing, deadline_millis: u64) {
    use std::io::Write as _;
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.target().as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    head.fields.write(out);
    // A vector takes everything.
    let _written = match framing {
        Framing::Length(length) => write!(out, "content-length: {length}\r\n"),
        Framing::Chunked => out.write_all(b"transfer-encoding: chunked\r\n"),
        // Some want to be told that there is nothing.
        Framing::None if head.framing == Framing::Length(0) => out.write_all(b"content-length: 0\r\n"),
        Framing::None | Framing::UntilClose => Ok(()),
    };
    let _written = write!(out, "standfast-deadline: {deadline_millis}\r\n\r\n");
}
