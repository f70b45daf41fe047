//! Keeps watch over an HTTP/2 connection to a replica: one that stays silent while requests wait is asked by PING whether it lives.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use standfast_runtime::Clock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::wire::Stream;

/// How much was heard of a connection: anything but the same number means that it lives.
pub(crate) type Heard = Rc<Cell<u64>>;

/// A connection's bytes, noted as they come.
pub(crate) struct Listened {
    pub(crate) stream: Stream,
    pub(crate) heard: Heard,
}

/// Returns when a connection on which streams run has said nothing for `silence_max`, nor to a PING for as long again.
pub(crate) async fn is_dead(
    mut pings: PingPong,
    heard: Heard,
    streams: Rc<Cell<u32>>,
    silence_max: Duration,
    clock: Clock,
) {
    loop {
        let before = heard.get();
        clock.sleep(silence_max).await;
        if heard.get() != before || streams.get() == 0 {
            continue;
        }
        let asked = clock.timeout(silence_max, pings.ping(Ping::opaque())).await;
        if matches!(asked, Ok(Err(_))) {
            // The last one is still on its way.
            clock.sleep(silence_max).await;
        }
        if heard.get() == before {
            return;
        }
    }
}

impl AsyncRead for Listened {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buf))?;
        this.heard.set(this.heard.get().wrapping_add(1));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Listened {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, parts)
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
