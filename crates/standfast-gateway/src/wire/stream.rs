//! A connection's bytes, plain or through TLS.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// A connection.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Whether reading would give something: bytes, the end, or an error. Costs no system call.
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            // What TLS has decrypted already is not seen here: it must be read until it is pending.
            Self::Tls(_) => Poll::Ready(Ok(())),
        }
    }

    /// Whether nothing has come and it has not ended, as far as the runtime knows: costs no system call. What TLS has to say for
    /// itself, such as tickets, is taken in.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx).is_pending(),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, &mut ReadBuf::new(&mut [0])).is_pending(),
        }
    }

    /// The same, and of a plain connection the kernel is asked, which knows before the runtime does.
    pub(crate) fn is_silent(&mut self) -> bool {
        match self {
            Self::Tcp(stream) => SockRef::from(&*stream)
                .peek(&mut [MaybeUninit::uninit()])
                .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock),
            Self::Tls(_) => self.is_quiet(),
        }
    }

    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, bytes: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut read = ReadBuf::new(bytes);
        ready!(Pin::new(self).poll_read_into(cx, &mut read))?;
        Poll::Ready(Ok(read.filled().len()))
    }

    fn poll_read_into(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }

    /// Writes what goes; the rest is the caller's to write again.
    pub(crate) fn poll_write_some(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    /// Has the connection reset (RST) when it is dropped: nothing that lies here still is sent.
    pub(crate) fn reset_at_end(&self) -> io::Result<()> {
        let stream = match self {
            Self::Tcp(stream) => stream,
            Self::Tls(stream) => stream.get_ref().0,
        };
        socket2::SockRef::from(stream).set_linger(Some(std::time::Duration::ZERO))
    }

    /// Whether closing must be announced: TLS has a message for it.
    pub(crate) const fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_read_into(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_write_some(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use standfast_runtime::Net;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn what_has_just_come_is_seen_before_the_runtime_knows_of_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = Net::real().connect_tcp(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let mut stream = Stream::Tcp(stream);
        // A read that finds nothing: from here on the runtime waits for the kernel's word.
        let nothing = std::future::poll_fn(|cx| Poll::Ready(stream.poll_read(cx, &mut [0]).is_pending()));
        assert!(nothing.await && stream.is_quiet() && stream.is_silent());
        peer.write_all(b"late").unwrap();
        assert!(stream.is_quiet() && !stream.is_silent());
        stream.read_exact(&mut [0; 4]).await.unwrap();
        let nothing = std::future::poll_fn(|cx| Poll::Ready(stream.poll_read(cx, &mut [0]).is_pending()));
        assert!(nothing.await && stream.is_silent());
        drop(peer);
        assert!(stream.is_quiet() && !stream.is_silent());
    }
}
