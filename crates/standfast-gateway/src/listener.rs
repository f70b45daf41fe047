//! Accepting connections and serving them.

use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use standfast_model::{ServiceName, ZoneName};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{Client, Order};
use crate::proxy_protocol::{self, Header};
use crate::stats::{BAD_PROXY_HEADER, TOO_MANY_CONNECTIONS};
use crate::wire::{Buffer, Stream};
use crate::worker::Worker;
use crate::{kept, serve_h1, serve_h2, tcp};

/// As much of HTTP/2's preface as no HTTP/1.1 request begins with.
const PREFACE_BYTES: usize = 4;
/// The longest header of the PROXY protocol that is read.
const PROXY_BYTES_MAX: usize = 4_200;

/// After an accept that failed for a reason of this machine (no descriptors left, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Whom a listener is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenerKind {
    /// Requests from outside: the snapshot's routes choose the service, and what clients say of forwarding is replaced.
    Public,
    /// The same through TLS, with the snapshot's certificates.
    PublicTls,
    /// Requests of other services: the listener itself names the service.
    Service {
        /// The service that requests are for.
        service: ServiceName,
        /// The zone of those who call here; the gateway's own when absent. Replicas there come first.
        caller_zone: Option<ZoneName>,
    },
}

impl ListenerKind {
    /// The service that it names.
    pub(crate) const fn service(&self) -> Option<&ServiceName> {
        match self {
            Self::Public | Self::PublicTls => None,
            Self::Service { service, .. } => Some(service),
        }
    }

    /// The zone of those who call here, if it says.
    pub(crate) const fn caller_zone(&self) -> Option<&ZoneName> {
        match self {
            Self::Public | Self::PublicTls => None,
            Self::Service { caller_zone, .. } => caller_zone.as_ref(),
        }
    }

    /// Whether anyone may connect.
    pub(crate) const fn is_public(&self) -> bool {
        matches!(self, Self::Public | Self::PublicTls)
    }

    pub(crate) const fn scheme(&self) -> &'static str {
        match self {
            Self::PublicTls => "https",
            _ => "http",
        }
    }
}

/// A listener and its sockets, all bound to one address.
#[derive(Debug)]
pub struct ListenerInput {
    /// Whom it is for.
    pub kind: ListenerKind,
    /// The listening sockets, best as many as workers and with `SO_REUSEPORT`, so that the kernel shares connections out. With
    /// fewer, workers share one. The gateway works on these descriptors; whoever duplicated them keeps the sockets open.
    /// A socket with `SO_REUSEPORT` that is given no longer must be closed by everybody: the kernel goes on queueing for it.
    pub sockets: Vec<std::net::TcpListener>,
}

/// Accepts until it is dropped; at the worker's limit of connections one more waits here until another ends, and further ones in
/// the kernel's queue.
///
/// # Cancellation
/// Cancel safe: a connection that was accepted is served, unless it still waits.
pub(crate) async fn accept(worker: Rc<Worker>, listener: TcpListener, kind: Rc<ListenerKind>) {
    loop {
        match listener.accept().await {
            // A balancer's connections count for whom they speak, once that is known.
            Ok((_, peer)) if !speaks_for_others(&worker, &kind) && !worker.has_place_for(peer.ip()) => {
                worker.counters.refuse(TOO_MANY_CONNECTIONS);
            }
            Ok((stream, peer)) => {
                worker.has_place_for_client().await;
                let client = Rc::new(Client::new(Rc::clone(&kind), peer, &worker.coarse_clock));
                // Before its task runs, or more could be accepted than there is place for.
                let registered = worker.register(&client);
                let served = serve(Rc::clone(&worker), stream, client);
                worker.spawn(async move {
                    served.await;
                    drop(registered);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                worker.clock.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Whether connections begin with the word of a balancer.
fn speaks_for_others(worker: &Worker, kind: &ListenerKind) -> bool {
    kind.is_public() && worker.expects_proxy_protocol()
}

/// Serves one connection until either side ends it or the worker orders so.
async fn serve(worker: Rc<Worker>, stream: TcpStream, client: Rc<Client>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a client left before it was served");
        return;
    }
    let mut speaking = pin!(speak(worker, stream, Rc::clone(&client)));
    std::future::poll_fn(|cx| match client.order(cx) {
        Order::Abort => Poll::Ready(()),
        _ => speaking.as_mut().poll(cx),
    })
    .await;
}

/// Finds out what a client speaks, and speaks it.
async fn speak(worker: Rc<Worker>, stream: TcpStream, client: Rc<Client>) {
    let limits = worker.limits.get();
    if speaks_for_others(&worker, &client.kind) {
        let reading = read_proxy_protocol(&stream, &client);
        if worker.clock.timeout(limits.header_read_max, reading).await != Ok(true) {
            worker.counters.refuse(BAD_PROXY_HEADER);
            return;
        }
        let is_told = client.address() != client.counted_for.get();
        if is_told && !worker.counts_for(&client, client.address()) {
            worker.counters.refuse(TOO_MANY_CONNECTIONS);
            return;
        }
    }
    if let Some(service) = worker.tcp_service(&client.kind) {
        return tcp::serve(worker, client, stream, service).await;
    }
    let (stream, speaks_h2) = if *client.kind == ListenerKind::PublicTls {
        let Some(acceptor) = worker.tls_acceptor() else { return };
        client.activity.reads_head();
        let stream = match acceptor.accept(stream).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, client = %client.address(), "a client and we do not agree on TLS");
                return;
            }
        };
        client.activity.ends();
        client.certificate.set(kept::certificate(stream.get_ref().1));
        let speaks_h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        (Stream::Tls(Box::new(stream.into())), Some(speaks_h2))
    } else {
        (Stream::Tcp(stream), None)
    };
    let mut stream = stream;
    let mut buffer = Buffer::new(&worker.buffers);
    let speaks_h2 = match speaks_h2 {
        Some(known) => known,
        None => {
            let sniffed = std::future::poll_fn(|cx| poll_preface(cx, &client, &mut stream, &mut buffer));
            match sniffed.await {
                Some(is_h2) => is_h2,
                None => return,
            }
        }
    };
    if speaks_h2 {
        serve_h2::serve(worker, client, stream, buffer).await;
    } else {
        serve_h1::serve(worker, client, stream, buffer).await;
    }
}

/// Whether a connection begins as HTTP/2 with prior knowledge does; `None` when it ends before.
fn poll_preface(
    cx: &mut Context<'_>,
    client: &Client,
    stream: &mut Stream,
    buffer: &mut Buffer,
) -> Poll<Option<bool>> {
    loop {
        let unread = buffer.unread();
        let common = unread.len().min(PREFACE_BYTES);
        if unread[..common] != serve_h2::PREFACE[..common] {
            return Poll::Ready(Some(false));
        }
        if common == PREFACE_BYTES {
            return Poll::Ready(Some(true));
        }
        if common > 0 {
            client.activity.reads_head();
        }
        match buffer.poll_fill(cx, stream, usize::MAX) {
            Poll::Ready(Ok(1..)) => {}
            Poll::Ready(_) => return Poll::Ready(None),
            Poll::Pending if client.is_finishing() => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// Reads the header that a balancer before us puts before everything, and not a byte more.
async fn read_proxy_protocol(stream: &TcpStream, client: &Client) -> bool {
    let mut bytes = vec![0; PROXY_BYTES_MAX];
    let mut taken = 0;
    loop {
        // Looked at before it is taken: what follows the header is not ours.
        let seen = match stream.peek(&mut bytes[taken..]).await {
            Ok(count @ 1..) => taken + count,
            _ => return false,
        };
        let (length, address) = match proxy_protocol::read(&bytes[..seen]) {
            Header::Bad => return false,
            // All of it belongs to the header. Taken, it does not wake us again.
            Header::Partial => (seen, None),
            Header::Complete(length, address) => (length, Some(address)),
        };
        while taken < length {
            match stream.try_read(&mut bytes[taken..length]) {
                Ok(count @ 1..) => taken += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    if stream.readable().await.is_err() {
                        return false;
                    }
                }
                _ => return false,
            }
        }
        if let Some(address) = address {
            if let Some(address) = address {
                client.speaks_for(address);
            }
            return true;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use standfast_model::Stamp;
    use standfast_runtime::Net;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn half_a_proxy_header_is_waited_for_without_work() {
        let listener = Net::real().listen_tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let mut balancer = Net::real().connect_tcp(listener.local_addr().unwrap()).await.unwrap();
        let (mut stream, peer) = listener.accept().await.unwrap();
        let client = Client::new(Rc::new(ListenerKind::Public), peer, &Rc::new(Cell::new(Stamp::EPOCH)));
        let polls = Rc::new(Cell::new(0));
        let (task_polls, task_client) = (Rc::clone(&polls), Rc::new(client));
        let client = Rc::clone(&task_client);
        let mut tasks = tokio::task::JoinSet::new();
        let local = tokio::task::LocalSet::new();
        // A task of its own, so that nothing but the socket wakes it.
        tasks.spawn_local_on(
            async move {
                let mut reading = Box::pin(read_proxy_protocol(&stream, &task_client));
                let is_read = std::future::poll_fn(|cx| {
                    task_polls.set(task_polls.get() + 1);
                    reading.as_mut().poll(cx)
                });
                assert!(is_read.await);
                drop(reading);
                let mut rest = [0; 3];
                stream.read_exact(&mut rest).await.unwrap();
                assert_eq!(&rest, b"GET");
            },
            &local,
        );
        let writing = async {
            for part in ["PROXY TCP4 203.0.", "113.7 192.0.2.1 ", "1 2\r\nGET"] {
                balancer.write_all(part.as_bytes()).await.unwrap();
                for _ in 0..1_000 {
                    tokio::task::yield_now().await;
                }
            }
            tasks.join_next().await.unwrap().unwrap();
        };
        local.run_until(writing).await;
        assert!(polls.get() < 20, "{} polls", polls.get());
        assert_eq!(client.address().to_string(), "203.0.113.7");
    }
}
