//! After an answer that switches protocols (WebSocket): bytes in both directions until either side ends.

use std::cell::RefCell;

use tokio::io::{AsyncWriteExt, copy_bidirectional};

use crate::client::Conn;
use crate::upstream::h1::Connected;
use crate::wire::Stream;

/// Passes bytes on between a client that has got the answer and the replica that gave it.
pub(crate) async fn run(conn: &RefCell<Conn>, connected: Connected) {
    let (mut replica, early) = connected.into_parts();
    let mut client = Borrowed(conn);
    let copied = async {
        client.write_all(early.unread()).await?;
        drop(early);
        let sent_ahead = {
            let mut conn = conn.borrow_mut();
            let bytes = conn.buffer.unread().to_vec();
            conn.buffer.consume(bytes.len());
            conn.rest();
            bytes
        };
        replica.write_all(&sent_ahead).await?;
        copy_bidirectional(&mut client, &mut replica).await
    };
    if let Err(error) = copied.await {
        tracing::debug!(%error, "a tunnel broke off");
    }
}

/// The stream of a connection that others hold as well.
struct Borrowed<'a>(&'a RefCell<Conn>);

impl Borrowed<'_> {
    fn with<T>(&self, act: impl FnOnce(std::pin::Pin<&mut Stream>) -> T) -> T {
        act(std::pin::Pin::new(&mut self.0.borrow_mut().stream))
    }
}

impl tokio::io::AsyncRead for Borrowed<'_> {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        self.with(|stream| stream.poll_read(cx, buf))
    }
}

impl tokio::io::AsyncWrite for Borrowed<'_> {
    fn poll_write(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        self.with(|stream| stream.poll_write(cx, buf))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        self.with(|stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        self.with(|stream| stream.poll_shutdown(cx))
    }
}
