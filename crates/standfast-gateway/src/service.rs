//! The gateway's handle.

use std::io;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use standfast_runtime::{Clock, Rng};
use tokio::sync::{mpsc, oneshot, watch};

use crate::call::{CALLS_MAX, Caller};
use crate::config::Config;
use crate::error::Error;
use crate::explain::{self, Filter, Record, Records};
use crate::fault::Faults;
use crate::kept::Stores;
use crate::listener::ListenerInput;
use crate::snapshot::Snapshot;
use crate::stats::{Stats, WorkerCounters, merged};
use crate::view::RouteStates;
use crate::worker::{self, Command, Setup, Socket};

/// Commands that may wait for a worker; a caller with one more waits.
const COMMANDS_MAX: usize = 8;

/// A running gateway. Dropping it ends its threads and cuts off what runs; [`Gateway::drain`] does so gently.
#[derive(Debug)]
pub struct Gateway {
    workers: Vec<Handle>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    faults: Faults,
    calls: Caller,
}

#[derive(Debug)]
struct Handle {
    commands: mpsc::Sender<Command>,
    counters: Arc<WorkerCounters>,
    records: Records,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drained {
    /// Client connections and tunnels that were not finished in time and were cut off.
    pub cut_off: usize,
}

impl Gateway {
    /// Starts the workers. They work with the newest value of `snapshot`; when its sender is dropped, with the last.
    ///
    /// `seed` decides every random choice. The sockets are put into non-blocking mode, also for whoever shares them.
    ///
    /// # Errors
    /// [`Error::Socket`], [`Error::Worker`].
    pub fn start(
        config: Config,
        listeners: Vec<ListenerInput>,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        clock: Clock,
        seed: u64,
    ) -> Result<Self, Error> {
        let count = config.workers.max(1);
        let shares = shared_out(listeners, count).map_err(|source| Error::Socket { source })?;
        let mut rng = Rng::seeded(seed);
        let route_states = Arc::new(RouteStates::new(rng.bits()));
        let kept = Arc::<Stores>::default();
        let faults = Faults::new(clock);
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..count).map(|_| mpsc::channel(CALLS_MAX)).unzip();
        let mut gateway = Self {
            calls: Caller::new(senders),
            workers: Vec::with_capacity(count),
            snapshot: snapshot.clone(),
            threads: Mutex::default(),
            faults: faults.clone(),
        };
        for (worker, (sockets, calls)) in shares.into_iter().zip(receivers).enumerate() {
            let (sender, commands) = mpsc::channel(COMMANDS_MAX);
            let counters = Arc::<WorkerCounters>::default();
            let records = Records::default();
            let setup = Setup {
                config: config.clone(),
                sockets,
                snapshot: snapshot.clone(),
                clock,
                rng: rng.fork(&format!("gateway worker {worker}")),
                commands,
                calls,
                counters: Arc::clone(&counters),
                records: records.clone(),
                route_states: Arc::clone(&route_states),
                kept: Arc::clone(&kept),
                faults: faults.clone(),
            };
            let thread = start_thread(worker, setup).map_err(|source| Error::Worker { worker, source })?;
            gateway.workers.push(Handle { commands: sender, counters, records });
            gateway.threads.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(gateway)
    }

    /// Makes `listeners` the ones that are accepted from: new ones begin, missing ones end, and a socket that was given before
    /// goes on as it is. Open connections are not touched, whatever they came in by.
    ///
    /// # Errors
    /// [`Error::Socket`], with nothing changed; [`Error::Ended`].
    ///
    /// # Cancellation
    /// Not cancel safe: when dropped midway, some workers have the new listeners and some the old.
    pub async fn set_listeners(&self, listeners: Vec<ListenerInput>) -> Result<(), Error> {
        let shares = shared_out(listeners, self.workers.len()).map_err(|source| Error::Socket { source })?;
        for (worker, sockets) in self.workers.iter().zip(shares) {
            let (done, is_done) = oneshot::channel();
            worker.commands.send(Command::Listen(sockets, done)).await.map_err(|_| Error::Ended)?;
            is_done.await.map_err(|_| Error::Ended)?;
        }
        Ok(())
    }

    /// What has happened since the start.
    pub fn stats(&self) -> Stats {
        let mut stats = merged(self.workers.iter().map(|worker| &*worker.counters));
        let snapshot = self.snapshot.borrow();
        stats.access_log = snapshot.access_log.as_ref().map(|log| log.counts());
        stats.spans = snapshot.spans.as_ref().map(|spans| spans.counts());
        stats
    }

    /// What calls services from within this process. It does not keep the gateway alive.
    pub fn caller(&self) -> Caller {
        self.calls.clone()
    }

    /// The faults that are injected, by which they come and go.
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// What became of a request, if it is remembered: by its `Standfast-Request-Id`, what its client calls it, or its trace.
    pub fn why(&self, id: &str) -> Option<Record> {
        explain::find(self.workers.iter().map(|worker| &worker.records), id)
    }

    /// The newest records that fit, newest first.
    pub fn recent(&self, limit: usize, filter: &Filter) -> Vec<Record> {
        explain::recent(self.workers.iter().map(|worker| &worker.records), limit, filter)
    }

    /// Accepts no more, lets running requests end for at most `limit`, tells clients to close, and ends the threads. Tunnels
    /// (WebSockets) are running requests too. A second call does nothing.
    ///
    /// # Cancellation
    /// Not cancel safe: when dropped midway, the drain goes on but the threads are joined by [`Drop`].
    pub async fn drain(&self, limit: Duration) -> Drained {
        let mut answers = Vec::new();
        for worker in &self.workers {
            let (done, is_done) = oneshot::channel();
            if worker.commands.send(Command::Drain(limit, done)).await.is_ok() {
                answers.push(is_done);
            }
        }
        let mut cut_off = 0;
        for answer in answers {
            cut_off += answer.await.unwrap_or(0);
        }
        self.join();
        Drained { cut_off }
    }

    /// Waits for the threads, which have been told to end.
    fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads {
            if thread.join().is_err() {
                tracing::error!("a gateway worker panicked");
            }
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Without senders the workers end.
        self.workers.clear();
        self.join();
    }
}

/// So many tasks run until the kernel is asked again for news. Under load what is in the queue then is worked off as one batch: with
/// 256 connections that is a tenth more requests a second than with tokio's 61.
const EVENT_INTERVAL: u32 = 256;

fn start_thread(worker: usize, setup: Setup) -> io::Result<JoinHandle<()>> {
    let (started, has_started) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name(format!("gateway-{worker}")).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .event_interval(EVENT_INTERVAL)
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default());
        match runtime {
            Ok(runtime) => {
                let _starter_waits = started.send(Ok(()));
                runtime.block_on(worker::run(setup));
            }
            Err(error) => {
                let _starter_waits = started.send(Err(error));
            }
        }
    })?;
    has_started.recv().map_err(io::Error::other)??;
    Ok(thread)
}

/// Gives each worker its sockets. With more sockets than workers none is left out, since a socket that nobody accepts from
/// would swallow its share of connections.
fn shared_out(listeners: Vec<ListenerInput>, workers: usize) -> io::Result<Vec<Vec<Socket>>> {
    let mut shares: Vec<Vec<Socket>> = (0..workers).map(|_| Vec::new()).collect();
    for ListenerInput { kind, sockets } in listeners {
        if sockets.is_empty() {
            continue;
        }
        for turn in 0..sockets.len().max(workers) {
            let socket = &sockets[turn % sockets.len()];
            socket.set_nonblocking(true)?;
            shares[turn % workers].push(Socket {
                kind: kind.clone(),
                identity: identity(socket)?,
                listener: socket.try_clone()?,
            });
        }
    }
    Ok(shares)
}

/// A number that a socket's duplicates share and no other socket has.
#[cfg(target_os = "linux")]
fn identity(socket: &TcpListener) -> io::Result<u64> {
    socket2::SockRef::from(socket).cookie()
}

/// Elsewhere the address stands for the socket: there is no `SO_COOKIE`.
#[cfg(not(target_os = "linux"))]
fn identity(socket: &TcpListener) -> io::Result<u64> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    socket.local_addr()?.hash(&mut hasher);
    Ok(hasher.finish())
}
