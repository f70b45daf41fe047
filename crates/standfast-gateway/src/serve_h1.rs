//! A client's connection that speaks HTTP/1.1: one request after the other.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use tokio::io::AsyncWrite;

use crate::body::{AnswerBody, Inflow, Source};
use crate::client::{Client, Conn, NoRequest};
use crate::error::Refusal;
use crate::exchange::{Reply, exchange};
use crate::tunnel;
use crate::wire::{Buffer, Framing, Known, RequestHead, Step, Stream, write_chunk, write_last_chunk};
use crate::worker::Worker;

/// How much of an answer is gathered before it is written.
const GATHER_BYTES: usize = 64 << 10;
/// After a refusal: how long what the client still sends is read, so that it sees the answer and not a reset…
const LINGER_MAX: Duration = Duration::from_secs(1);
/// …and how much.
const LINGER_BYTES_MAX: usize = 256 << 10;

/// Serves a connection until either side ends it or the worker orders so.
pub(crate) async fn serve(worker: Rc<Worker>, client: Rc<Client>, stream: Stream, buffer: Buffer) {
    let conn = Rc::new(RefCell::new(Conn::new(stream, buffer)));
    requests(&worker, &client, &conn).await;
    // TLS says when it ends, if that can be written at once; it may have been said before.
    if conn.borrow().stream.is_tls() && !conn.borrow().is_reset() {
        let _said_or_not = std::future::poll_fn(|cx| {
            Poll::Ready(std::pin::Pin::new(&mut conn.borrow_mut().stream).poll_shutdown(cx))
        })
        .await;
    }
}

async fn requests(worker: &Rc<Worker>, client: &Rc<Client>, conn: &Rc<RefCell<Conn>>) {
    loop {
        let limits = worker.limits.get();
        let read = std::future::poll_fn(|cx| {
            let mut conn = conn.borrow_mut();
            match conn.poll_head(cx, &client.activity, &limits) {
                Poll::Pending if client.is_finishing() && conn.buffer.is_empty() => {
                    Poll::Ready(Err(NoRequest::Closed))
                }
                polled => polled,
            }
        });
        let head = match read.await {
            Ok(head) => head,
            Err(NoRequest::Closed) => return,
            Err(NoRequest::Refused(refusal)) => {
                worker.counters.refuse(refusal.reason());
                refuse(conn, client, &refusal).await;
                return linger(worker, conn).await;
            }
        };
        client.activity.begins();
        let goes_on = request(worker, client, conn, head).await;
        client.activity.ends();
        if !goes_on {
            return linger(worker, conn).await;
        }
        conn.borrow_mut().rest();
    }
}

/// How an answer's body is framed towards the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Out {
    Nothing,
    AsItIs,
    Chunked,
}

/// Answers one request. Returns whether another may follow.
async fn request(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    conn: &Rc<RefCell<Conn>>,
    head: RequestHead,
) -> bool {
    let (method, is_http_11, wants_close) = (head.method.clone(), head.is_http_11, head.wants_close);
    let source = match head.framing {
        Framing::None | Framing::Length(0) => Source::Empty,
        framing => Source::unread(Inflow::H1(Rc::clone(conn), Rc::clone(client)), framing),
    };
    let gone = |cx: &mut Context<'_>| conn.borrow_mut().poll_gone(cx);
    let Some(mut reply) = exchange(worker, client, head, source, gone).await else { return false };
    if reply.head.status == StatusCode::SWITCHING_PROTOCOLS {
        let AnswerBody::Upgraded(connected, in_flight) =
            std::mem::replace(&mut reply.body, AnswerBody::Empty)
        else {
            return false;
        };
        write_head(&mut conn.borrow_mut().out, &reply, is_http_11, Out::Nothing, false);
        if std::future::poll_fn(|cx| conn.borrow_mut().poll_write_out(cx)).await.is_ok() {
            tunnel::run(conn, *connected).await;
        }
        drop(in_flight);
        if let Some(story) = reply.story.take() {
            story.end(worker, 0, true);
        }
        return false;
    }
    if matches!(reply.body, AnswerBody::Reset) {
        conn.borrow_mut().reset();
        if let Some(story) = reply.story.take() {
            story.end(worker, 0, false);
        }
        return false;
    }
    if !reply.body.is_sending() {
        // Else it is the replica's, which would take the end of the truncated body for the end of the body.
        conn.borrow_mut().skip_read_body();
    }
    let mut closes =
        wants_close || reply.ends_connection || client.is_finishing() || !conn.borrow().is_body_read();
    let has_no_body = reply.has_no_body(&method);
    let out = match reply.head.framing {
        _ if has_no_body => Out::Nothing,
        Framing::None => Out::Nothing,
        Framing::Length(_) => Out::AsItIs,
        // Over HTTP/2 a length may be said as well.
        _ if reply.head.fields.has(Known::ContentLength) => Out::AsItIs,
        _ if is_http_11 => Out::Chunked,
        _ => {
            closes = true;
            Out::AsItIs
        }
    };
    if !has_no_body && out == Out::Nothing && !reply.head.fields.has(Known::ContentLength) {
        reply.head.fields.push(Known::ContentLength, "content-length", b"0");
    }
    write_head(&mut conn.borrow_mut().out, &reply, is_http_11, out, closes);
    conn.borrow_mut().owe_no_continue();
    let mut sent = 0;
    let has_head_gone = match reply.body.slow_head() {
        None => true,
        Some(slow) => Box::pin(slow.dribble(conn)).await.is_ok(),
    };
    let is_whole = has_head_gone && relay(client, conn, &mut reply.body, out, &mut sent).await;
    worker.counters.count_bodies(conn.borrow().body_bytes_read(), sent);
    if let Some(story) = reply.story.take() {
        story.end(worker, sent, is_whole);
    }
    is_whole && !closes && conn.borrow().is_body_read()
}

/// Writes status line and fields. What belongs to the connection with the client is decided here.
fn write_head(out: &mut Vec<u8>, reply: &Reply, is_http_11: bool, framing: Out, closes: bool) {
    out.clear();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(reply.head.status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(reply.head.reason());
    out.extend_from_slice(b"\r\n");
    reply.head.fields.write(out);
    if framing == Out::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    match (closes, is_http_11) {
        (true, _) => out.extend_from_slice(b"connection: close\r\n"),
        (false, false) => out.extend_from_slice(b"connection: keep-alive\r\n"),
        (false, true) => {}
    }
    out.extend_from_slice(b"\r\n");
}

/// Passes an answer's body on, behind the head that is to be written. Returns whether it arrived whole.
async fn relay(
    client: &Client,
    conn: &RefCell<Conn>,
    body: &mut AnswerBody,
    framing: Out,
    sent: &mut u64,
) -> bool {
    let mut is_read = framing == Out::Nothing;
    if is_read {
        body.finish();
    }
    let whole =
        std::future::poll_fn(|cx| poll_relay(cx, client, conn, body, framing, &mut is_read, sent)).await;
    client.activity.waits_for_body(false);
    client.activity.waits_for_write(false);
    whole
}

fn poll_relay(
    cx: &mut Context<'_>,
    client: &Client,
    conn: &RefCell<Conn>,
    body: &mut AnswerBody,
    framing: Out,
    is_read: &mut bool,
    sent: &mut u64,
) -> Poll<bool> {
    loop {
        // The body may read from the client, so nothing of the connection is borrowed meanwhile.
        let mut out = std::mem::take(&mut conn.borrow_mut().out);
        let mut is_waiting = false;
        let mut is_broken = false;
        while !*is_read && out.len() < GATHER_BYTES {
            let step = body.poll_next(cx, &mut |part| {
                *sent += part.as_slice().len() as u64;
                match framing {
                    Out::Chunked => write_chunk(&mut out, part.as_slice()),
                    _ => out.extend_from_slice(part.as_slice()),
                }
            });
            match step {
                Poll::Ready(Ok(Step::Data)) => {}
                Poll::Ready(Ok(Step::End(trailers))) => {
                    *is_read = true;
                    if framing == Out::Chunked {
                        write_last_chunk(&mut out, trailers.as_ref());
                    }
                }
                Poll::Ready(Err(_)) => {
                    is_broken = true;
                    break;
                }
                Poll::Pending => {
                    is_waiting = true;
                    break;
                }
            }
        }
        let mut conn = conn.borrow_mut();
        conn.out = out;
        client.activity.waits_for_body(is_waiting);
        let written = conn.poll_write_out(cx);
        client.activity.waits_for_write(written.is_pending());
        match written {
            Poll::Ready(Ok(())) if is_broken => return Poll::Ready(false),
            Poll::Ready(Ok(())) if *is_read => return Poll::Ready(true),
            Poll::Ready(Ok(())) if is_waiting => return conn.poll_gone(cx).map(|()| false),
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(false),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// Answers what could not be read as a request.
async fn refuse(conn: &Rc<RefCell<Conn>>, client: &Client, refusal: &Refusal) {
    let mut reply = Reply::refused(refusal, false);
    client.activity.begins();
    write_head(&mut conn.borrow_mut().out, &reply, true, Out::AsItIs, true);
    let _gone_or_not = relay(client, conn, &mut reply.body, Out::AsItIs, &mut 0).await;
}

/// Ends the connection so that the client sees what was written: what it still sends is read for a while.
async fn linger(worker: &Worker, conn: &RefCell<Conn>) {
    if conn.borrow().is_reset() {
        return;
    }
    let mut read = 0;
    let lingering = std::future::poll_fn(|cx| {
        let mut conn = conn.borrow_mut();
        let Conn { stream, buffer, .. } = &mut *conn;
        std::task::ready!(std::pin::Pin::new(&mut *stream).poll_shutdown(cx))?;
        loop {
            let unread = buffer.unread().len();
            buffer.consume(unread);
            match std::task::ready!(buffer.poll_fill(cx, stream, usize::MAX)) {
                Ok(count @ 1..) if read < LINGER_BYTES_MAX => read += count,
                Ok(_) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    });
    let _gone_or_over = worker.clock.timeout(LINGER_MAX, lingering).await;
}
