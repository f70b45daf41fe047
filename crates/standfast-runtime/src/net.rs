use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Connections that may wait in the kernel's queue of a socket.
const BACKLOG: i32 = 4_096;

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Peer {
    /// A TCP address.
    Tcp(SocketAddr),
    /// A Unix socket's path.
    Unix(PathBuf),
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP, with Nagle's algorithm off.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// The network: the only way to sockets, so that a simulated one can stand in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Net(());

impl Net {
    /// The machine's network.
    pub const fn real() -> Self {
        Self(())
    }

    /// Opens a connection. There is no limit in time: wrap it in `Clock::timeout`.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn connect(&self, peer: &Peer) -> io::Result<Stream> {
        match peer {
            Peer::Tcp(address) => self.connect_tcp(*address).await.map(Stream::Tcp),
            Peer::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
        }
    }

    /// Opens a TCP connection with Nagle's algorithm off.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn connect_tcp(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Listens on a TCP address.
    ///
    /// # Errors
    /// What the operating system says, for example that the address is in use.
    pub async fn listen_tcp(&self, address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(address).await
    }

    /// Listens on a TCP address with as many sockets as wanted, among which the kernel shares connections out
    /// (`SO_REUSEPORT`). With port 0 all get the same free port. All are bound before one listens, so that a group that cannot
    /// be whole gets no connection. The sockets do not block.
    ///
    /// # Errors
    /// What the operating system says; that the address is in use also when another program of this user holds it with
    /// `SO_REUSEPORT`, which the kernel would silently let us share.
    pub fn listen_group(&self, address: SocketAddr, count: usize) -> io::Result<Vec<std::net::TcpListener>> {
        let new = || {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            Ok::<_, io::Error>(socket)
        };
        if address.port() != 0 {
            new()?.bind(&address.into())?;
        }
        self.join_group(address, count)
    }

    /// [`Net::listen_group`] at an address that others of ours may hold: who takes over from a process that is about to end.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn join_group(&self, address: SocketAddr, count: usize) -> io::Result<Vec<std::net::TcpListener>> {
        let mut address = address;
        let mut sockets = Vec::with_capacity(count);
        for _ in 0..count {
            let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            let bound = socket.local_addr()?.as_socket();
            address.set_port(bound.map_or(address.port(), |bound| bound.port()));
            sockets.push(socket);
        }
        sockets.iter().try_for_each(|socket| socket.listen(BACKLOG))?;
        Ok(sockets.into_iter().map(std::net::TcpListener::from).collect())
    }

    /// Listens on a Unix socket; a socket file that nobody listens on any more must be removed before.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn listen_unix(&self, path: &std::path::Path) -> io::Result<UnixListener> {
        UnixListener::bind(path)
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
