//! WebSockets over HTTP/2 (RFC 8441): a client's extended CONNECT becomes the upgrade that replicas know from HTTP/1.1 (RFC 6455), and
//! its stream a tunnel.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, StatusCode};
use standfast_runtime::Rng;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, copy_bidirectional};

use crate::flood::Traffic;
use crate::upstream::h1::Connected;
use crate::wire::{Fields, Known, ResponseHead};

/// What is added to a key before it is hashed (RFC 6455, 1.3).
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The most that is put into one DATA frame's room at a time.
const WRITE_BYTES_MAX: usize = 16 << 10;

/// A WebSocket that a client asks for, and what its replica must answer.
#[derive(Debug)]
pub(crate) struct Opening {
    accept: String,
}

/// Whether a request is an extended CONNECT for a WebSocket.
pub(crate) fn is_asked(request: &Request<RecvStream>) -> bool {
    let protocol = request.extensions().get::<Protocol>();
    *request.method() == Method::CONNECT
        && protocol.is_some_and(|protocol| protocol.as_str().eq_ignore_ascii_case("websocket"))
}

impl Opening {
    /// Makes of a client's fields those of an upgrade.
    pub(crate) fn new(fields: &mut Fields, rng: &mut Rng) -> Self {
        let nonce = [rng.bits().to_be_bytes(), rng.bits().to_be_bytes()].concat();
        let key = base64(&nonce);
        fields.set(Known::Connection, "connection", b"upgrade");
        fields.set(Known::Upgrade, "upgrade", b"websocket");
        fields.set(Known::Other, "sec-websocket-key", key.as_bytes());
        Self { accept: accept_of(&key) }
    }

    /// Whether a replica's answer opens it.
    pub(crate) fn is_opened_by(&self, head: &ResponseHead) -> bool {
        head.status == StatusCode::SWITCHING_PROTOCOLS
            && head.fields.has_token(Known::Upgrade, "websocket")
            && head.fields.named("sec-websocket-accept") == Some(self.accept.as_bytes())
    }
}

/// Makes of the answer to an upgrade one to a CONNECT.
pub(crate) fn opened(head: &mut ResponseHead) {
    head.status = StatusCode::OK;
    head.fields.remove_named(b"sec-websocket-accept");
    for known in [Known::Connection, Known::Upgrade, Known::TransferEncoding, Known::ContentLength] {
        head.fields.remove(known);
    }
}

fn accept_of(key: &str) -> String {
    let mut hash = ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key.as_bytes());
    hash.update(ACCEPT_SUFFIX);
    base64(hash.finish().as_ref())
}

/// RFC 4648, 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// Passes bytes on between a client's stream and the replica that has agreed, until both sides have ended it or one breaks off.
/// Returns how many went to the client.
pub(crate) async fn run(
    body: RecvStream,
    stream: SendStream<Bytes>,
    connected: Connected,
    traffic: Rc<Traffic>,
) -> u64 {
    let stream = Rc::new(RefCell::new(stream));
    let sent = Rc::new(Cell::new(0));
    let (mut replica, early) = connected.into_parts();
    let mut client =
        Duplex { body, stream: Rc::clone(&stream), ahead: Bytes::new(), traffic, sent: Rc::clone(&sent) };
    let copied = {
        let mut copying = pin!(async {
            client.write_all(early.unread()).await?;
            drop(early);
            copy_bidirectional(&mut client, &mut replica).await
        });
        // A client that has said all may still break off.
        std::future::poll_fn(|cx| {
            let is_reset = stream.borrow_mut().poll_reset(cx).is_ready();
            if is_reset { Poll::Ready(Err(gone())) } else { copying.as_mut().poll(cx) }
        })
        .await
    };
    if let Err(error) = copied {
        tracing::debug!(%error, "a WebSocket broke off");
        stream.borrow_mut().send_reset(Reason::CANCEL);
    }
    sent.get()
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// A client's stream as a stream of bytes.
struct Duplex {
    body: RecvStream,
    stream: Rc<RefCell<SendStream<Bytes>>>,
    /// What came and was not taken yet.
    ahead: Bytes,
    traffic: Rc<Traffic>,
    sent: Rc<Cell<u64>>,
}

impl AsyncRead for Duplex {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.ahead.is_empty() {
            match ready!(this.body.poll_data(cx)) {
                Some(Ok(data)) => this.ahead = data,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = this.ahead.len().min(buf.remaining());
        buf.put_slice(&this.ahead.split_to(count));
        let _gone_if_not = this.body.flow_control().release_capacity(count);
        this.traffic.useful(count as u64);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut stream = self.stream.borrow_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let wanted = bytes.len().min(WRITE_BYTES_MAX);
        loop {
            stream.reserve_capacity(wanted);
            let room = match stream.capacity() {
                0 => match ready!(stream.poll_capacity(cx)) {
                    Some(room) => room.map_err(io::Error::other)?,
                    None => return Poll::Ready(Err(gone())),
                },
                room => room,
            };
            let count = room.min(wanted);
            if count == 0 {
                continue;
            }
            stream.send_data(Bytes::copy_from_slice(&bytes[..count]), false).map_err(io::Error::other)?;
            self.traffic.useful(count as u64);
            self.sent.set(self.sent.get() + count as u64);
            return Poll::Ready(Ok(count));
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = self.stream.borrow_mut().send_data(Bytes::new(), true);
        Poll::Ready(ended.map_err(io::Error::other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_answered_as_the_rfc_says() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
        assert_eq!(accept_of("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
