//! Accepting connections and serving them.

use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use standfast_model::{ServiceName, ZoneName};
use tokio::net::{TcpListener, TcpStream};

use crate::client::{Client, Order, Watched};
use crate::exchange::exchange;
use crate::worker::Worker;

/// After an accept that failed for a reason of this machine (no descriptors left, for example).
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// Whom a listener is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenerKind {
    /// Requests from outside: the snapshot's routes choose the service, and what clients say of forwarding is replaced.
    Public,
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
            Self::Public => None,
            Self::Service { service, .. } => Some(service),
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

/// Accepts until it is dropped; at the worker's limit of connections it leaves further ones in the kernel's queue.
///
/// # Cancellation
/// Cancel safe: a connection that was accepted is served.
pub(crate) async fn accept(worker: Rc<Worker>, listener: TcpListener, kind: Rc<ListenerKind>) {
    loop {
        worker.has_place_for_client().await;
        match listener.accept().await {
            Ok((stream, peer)) => {
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

/// Serves one connection until either side ends it or the worker orders so.
async fn serve(worker: Rc<Worker>, stream: TcpStream, client: Rc<Client>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a client left before it was served");
        return;
    }
    let service = {
        let (worker, client) = (Rc::clone(&worker), Rc::clone(&client));
        service_fn(move |request| exchange(Rc::clone(&worker), Rc::clone(&client), request))
    };
    let watched = Watched { stream, activity: std::sync::Arc::clone(&client.activity) };
    let mut connection = pin!(worker.server.serve_connection(TokioIo::new(watched), service).with_upgrades());
    let mut is_finishing = false;
    let ended = std::future::poll_fn(|cx| {
        match client.order(cx) {
            Order::Abort => return Poll::Ready(Ok(())),
            Order::Finish if !is_finishing => {
                is_finishing = true;
                connection.as_mut().graceful_shutdown();
            }
            _ => {}
        }
        connection.as_mut().poll(cx)
    });
    if let Err(error) = ended.await {
        tracing::debug!(%error, "a client's connection ended early");
    }
}
