//! The load generator: open model, on a thread of its own.
//!
//! Requests are due when the schedule says so, whether or not earlier ones were answered; each is timed from when it was
//! due. Nothing is tried again because it failed; but of the acknowledged requests that carry a key, one in [`REPEAT_EVERY`]
//! is sent a second time, as by a client that lost the answer: it must change nothing. What the generator cannot send since [`IN_FLIGHT_MAX`] are on their way is counted as
//! dropped, never left out silently, and its own lag and use of the processor show whether it was the bottleneck.
//!
//! It stops on its token: no further arrivals, then what is on its way ends, each within its load's timeout.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use standfast_model::{Load, Stamp};
use standfast_runtime::http::Client;
use standfast_runtime::{Clock, Net, Peer, Stop, StopSource};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::{Arrival, IN_FLIGHT_MAX};
use crate::journal::{RESERVE_BLOCK, Writer};
use crate::meter::Meter;
use crate::outcome::Outcome;
use crate::request::{self, BadLoad};
use crate::schedule::Arrivals;

/// An answer longer than this is not read.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// One acknowledged request in so many is sent once more with the same `Idempotency-Key`. Few enough to be no load of their
/// own, many enough that a service without idempotency fails within a second at 50 requests a second.
const REPEAT_EVERY: u64 = 50;
/// Beyond the longest timeout, before what is still on its way is given up.
const DRAIN_SLACK: Duration = Duration::from_secs(2);

/// What a generator sends, and where to.
#[derive(Debug)]
pub(crate) struct Setup {
    pub(crate) run: String,
    pub(crate) loads: Vec<Load>,
    pub(crate) arrival: Arrival,
    pub(crate) seed: u64,
    pub(crate) peer: Peer,
    /// Where starts of workflows go.
    pub(crate) starts: Peer,
    pub(crate) in_flight_max: usize,
}

impl Setup {
    /// Everything but the loads and the peer by default.
    pub(crate) fn new(run: &str, loads: Vec<Load>, seed: u64, arrival: Arrival, peer: Peer) -> Self {
        let starts = peer.clone();
        Self { run: run.to_owned(), loads, arrival, seed, peer, starts, in_flight_max: IN_FLIGHT_MAX }
    }
}

/// What the generator says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct GeneratorLoad {
    /// The share of one core that it used, from 0 to 1.
    pub cpu_share: f64,
    /// Requests that it gave up at the end, since they did not end by their own timeout.
    pub given_up: u64,
    /// Acknowledged requests that it sent a second time with the same key.
    #[serde(default)]
    pub repeated: u64,
}

/// A running generator.
#[derive(Debug)]
pub(crate) struct Generator {
    from: Stamp,
    meter: Arc<Meter>,
    stop: StopSource,
    done: watch::Receiver<Option<GeneratorLoad>>,
    thread: JoinHandle<()>,
}

/// A generator that could not start or ended too early.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A load is not legal.
    #[error(transparent)]
    Bad(#[from] BadLoad),
    /// There is no thread or no event queue for it.
    #[error("cannot start the load generator")]
    Start(#[source] io::Error),
    /// Its thread panicked.
    #[error("the load generator ended early")]
    Ended,
}

impl Generator {
    /// Starts sending now.
    pub(crate) fn start(setup: Setup, clock: Clock, net: Net, journal: Writer) -> Result<Self, LoadError> {
        for load in &setup.loads {
            request::request(load, &request::request_id(&setup.run, load, 0))?;
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(LoadError::Start)?;
        let from = clock.now();
        let meter = Arc::new(Meter::new(from));
        let (source, stop) = StopSource::new();
        let (finished, done) = watch::channel(None);
        let sender = Arc::new(Sender {
            client: Client::with_answer_limit(net, clock, ANSWER_BYTES_MAX),
            clock,
            meter: Arc::clone(&meter),
            journal,
            setup,
            repeated: AtomicU64::new(0),
        });
        let thread = std::thread::Builder::new()
            .name("prove-load".to_owned())
            .spawn(move || {
                let given_up = runtime.block_on(Arc::clone(&sender).run(from, stop));
                let cpu_share = cpu_share(clock.now().since(from));
                let repeated = sender.repeated.load(Ordering::Relaxed);
                finished.send_replace(Some(GeneratorLoad { cpu_share, given_up, repeated }));
            })
            .map_err(LoadError::Start)?;
        Ok(Self { from, meter, stop: source, done, thread })
    }

    /// When the first second began.
    pub(crate) fn from(&self) -> Stamp {
        self.from
    }

    /// What it measures.
    pub(crate) fn meter(&self) -> &Meter {
        &self.meter
    }

    /// Whether its thread has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Ends the arrivals and waits for what is on its way.
    ///
    /// # Cancellation
    /// Dropping it leaves the thread to end by itself within the longest timeout.
    pub(crate) async fn finish(mut self) -> Result<(Arc<Meter>, GeneratorLoad), LoadError> {
        self.stop.stop();
        let told = match self.done.wait_for(Option::is_some).await {
            Ok(told) => *told,
            Err(_) => None,
        };
        if self.thread.join().is_err() {
            return Err(LoadError::Ended);
        }
        Ok((self.meter, told.ok_or(LoadError::Ended)?))
    }
}

#[derive(Debug)]
struct Sender {
    setup: Setup,
    client: Client,
    clock: Clock,
    meter: Arc<Meter>,
    journal: Writer,
    repeated: AtomicU64,
}

impl Sender {
    /// Sends until stopped; returns how many requests were given up.
    async fn run(self: Arc<Self>, from: Stamp, stop: Stop) -> u64 {
        let mut on_their_way = JoinSet::new();
        let mut reserved = RESERVE_BLOCK;
        for arrival in Arrivals::new(&self.setup.loads, self.setup.arrival, self.setup.seed) {
            let due = from.plus(arrival.at);
            tokio::select! {
                biased;
                () = stop.requested() => break,
                () = self.clock.sleep_until(due) => {}
            }
            while on_their_way.try_join_next().is_some() {}
            self.meter.due(due);
            if on_their_way.len() >= self.setup.in_flight_max {
                self.meter.dropped(due);
                continue;
            }
            if arrival.number + RESERVE_BLOCK / 2 >= reserved {
                reserved += RESERVE_BLOCK;
                self.journal.reserve(reserved);
            }
            self.journal.until_reserved(arrival.number).await;
            if self.journal.has_failed() {
                break; // an effect of a request whose number is not reserved would be without cause
            }
            let load = arrival.load;
            let id = request::request_id(&self.setup.run, &self.setup.loads[load], arrival.number);
            self.journal.intend(load, arrival.number, &id, due);
            on_their_way.spawn(Arc::clone(&self).send(load, arrival.number, id, due));
        }
        let longest = self.setup.loads.iter().map(|load| load.timeout).max().unwrap_or_default();
        let drain = async { while on_their_way.join_next().await.is_some() {} };
        // Twice, for those that are repeated.
        if self.clock.timeout(2 * longest + DRAIN_SLACK, drain).await.is_ok() {
            return 0;
        }
        let given_up = on_their_way.len() as u64;
        on_their_way.shutdown().await;
        given_up
    }

    async fn send(self: Arc<Self>, load: usize, number: u64, id: String, due: Stamp) {
        let declared = &self.setup.loads[load];
        let Ok(request) = request::request(declared, &id) else {
            // Each load was tried before the start, and an id has only letters, digits and `-`.
            tracing::error!(load = %declared.name, %id, "a request could not be made");
            return;
        };
        self.meter.sent(due, load, number, self.clock.now());
        let answer = self.client.send(self.peer(declared), request, declared.timeout).await;
        let (at, outcome) = (self.clock.now(), Outcome::of(&answer));
        self.journal.outcome(load, number, at, outcome);
        self.meter.ended(due, load, number, at, outcome);
        let is_repeated = declared.idempotency_key && number.is_multiple_of(REPEAT_EVERY);
        if is_repeated && outcome.is_acknowledged() {
            self.repeat(declared, &id).await;
        }
    }

    fn peer(&self, load: &Load) -> &Peer {
        if load.workflow.is_some() { &self.setup.starts } else { &self.setup.peer }
    }

    /// Sends what was acknowledged once more. Whatever the answer is, what counts is that the effects stay as they are.
    async fn repeat(&self, load: &Load, id: &str) {
        if let Ok(request) = request::request(load, id) {
            let answer = self.client.send(self.peer(load), request, load.timeout).await;
            self.repeated.fetch_add(1, Ordering::Relaxed);
            tracing::trace!(%id, is_answered = answer.is_ok(), "repeated");
        }
    }
}

/// The share of one core that the calling thread used of a time.
fn cpu_share(wall: Duration) -> f64 {
    let used = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(used.tv_sec).unwrap_or_default();
    let used = Duration::new(seconds, u32::try_from(used.tv_nsec).unwrap_or_default());
    if wall.is_zero() { 0.0 } else { used.as_secs_f64() / wall.as_secs_f64() }
}

#[cfg(test)]
mod tests;
