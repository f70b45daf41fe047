use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;

use bytes::Bytes;
use http::{Request, StatusCode};
use standfast_runtime::http::{Listener, ServerLimits, plain, serve};
use standfast_runtime::{Disk, OnStop, SimulatedDisk, Tasks};

use super::*;
use crate::fixtures;
use crate::journal::{Begin, JOURNAL_VERSION, Journal};
use crate::meter::Measured;

const PATH: &str = "/journal.jsonl";

/// A server that stalls: between `from` and `until` after its first request it answers nobody, and then all at once.
#[derive(Debug, Clone, Copy)]
struct Stall {
    from: Duration,
    until: Duration,
}

async fn server(clock: Clock, tasks: &Tasks, stall: Option<Stall>) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = Net::real().listen_tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let keys: Arc<Mutex<Vec<String>>> = Arc::default();
    let (seen, first) = (Arc::clone(&keys), Arc::new(Mutex::new(None)));
    let handler = move |request: Request<Bytes>| {
        let key = request.headers()["idempotency-key"].to_str().unwrap().to_owned();
        seen.lock().unwrap().push(key);
        let first = *first.lock().unwrap().get_or_insert_with(|| clock.now());
        async move {
            if let Some(stall) = stall
                && clock.now() >= first.plus(stall.from)
            {
                clock.sleep_until(first.plus(stall.until)).await;
            }
            plain(StatusCode::CREATED, "done")
        }
    };
    let limits = ServerLimits::default();
    tasks.spawn(
        "server",
        OnStop::Abort,
        serve(Listener::Tcp(listener), handler, limits, clock, tasks.stop()),
    );
    (address, keys)
}

/// Sends to `peer` for a time, and returns what was measured and written.
async fn generate(
    clock: Clock,
    peer: SocketAddr,
    rate: f64,
    lasts: Duration,
    shape: impl FnOnce(&mut Setup),
) -> (Measured, Journal) {
    let disk = Arc::new(SimulatedDisk::default());
    let mut load = fixtures::load("checkout", rate);
    load.timeout = Duration::from_secs(3);
    let begin = Begin {
        version: JOURNAL_VERSION,
        run: "run".to_owned(),
        stack: "shop".parse().unwrap(),
        seed: 7,
        at: clock.now(),
        loads: vec![load.name.clone()],
        sources: Vec::new(),
    };
    let (journal, thread) =
        Writer::start(Arc::clone(&disk) as Arc<dyn Disk>, clock, Path::new(PATH), begin).unwrap();
    let mut setup = Setup::new("run", vec![load], 7, Arrival::Poisson, Peer::Tcp(peer));
    shape(&mut setup);
    let generator = Generator::start(setup, clock, Net::real(), journal.clone()).unwrap();
    clock.sleep(lasts).await;
    let (meter, told) = generator.finish().await.unwrap();
    assert_eq!(told.given_up, 0);
    journal.close(thread).await.unwrap();
    (meter.measured(), Journal::read(&*disk, Path::new(PATH)).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_declared_rate_is_sent_and_each_request_is_written_down_once() {
    let (clock, tasks) = (Clock::system(), Tasks::new());
    let (address, keys) = server(clock, &tasks, None).await;
    let (measured, journal) = generate(clock, address, 400.0, Duration::from_millis(800), |_| {}).await;
    tasks.shutdown(&clock, Duration::from_millis(100)).await;
    assert!((230..=420).contains(&measured.offered), "{measured:?}");
    assert_eq!((measured.sent, measured.dropped, measured.failed.count), (measured.offered, 0, 0));
    assert_eq!(measured.ok.count, measured.offered);
    assert_eq!(measured.seconds.iter().map(|second| second.ok).sum::<u64>(), measured.offered);
    let ids: BTreeSet<&str> = journal.requests.iter().map(|request| request.id.as_str()).collect();
    let keys = keys.lock().unwrap();
    let distinct: BTreeSet<&str> = keys.iter().map(String::as_str).collect();
    assert_eq!((distinct.len() as u64, &distinct), (measured.offered, &ids));
    assert_eq!(
        keys.len() as u64,
        measured.offered + measured.offered.div_ceil(REPEAT_EVERY),
        "one in {REPEAT_EVERY} is sent twice"
    );
    assert!(journal.is_complete && journal.requests.iter().all(|request| request.is_acknowledged()));
}

/// Coordinated omission: a closed-loop client would see one slow request here; the requests that were due meanwhile waited too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_shows_in_all_requests_that_were_due_in_it() {
    let (clock, tasks) = (Clock::system(), Tasks::new());
    let stall = Stall { from: Duration::from_millis(200), until: Duration::from_millis(700) };
    let (address, _) = server(clock, &tasks, Some(stall)).await;
    let (measured, journal) = generate(clock, address, 200.0, Duration::from_millis(900), |_| {}).await;
    tasks.shutdown(&clock, Duration::from_millis(100)).await;
    // A uniform part of the stall's 100 requests waited longer than each time within it.
    let waited = |least: u64| {
        let least = Duration::from_millis(least);
        journal
            .requests
            .iter()
            .filter(|request| request.latency().is_some_and(|latency| latency > least))
            .count()
    };
    assert!(waited(250) >= 25, "{} of {} waited", waited(250), journal.requests.len());
    assert!(measured.ok.p99_us > 400_000, "{:?}", measured.ok);
    assert_eq!(measured.dropped, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_sent_is_counted_as_dropped() {
    let (clock, tasks) = (Clock::system(), Tasks::new());
    let stall = Stall { from: Duration::ZERO, until: Duration::from_millis(500) };
    let (address, keys) = server(clock, &tasks, Some(stall)).await;
    let (measured, journal) =
        generate(clock, address, 200.0, Duration::from_millis(400), |setup| setup.in_flight_max = 10).await;
    tasks.shutdown(&clock, Duration::from_millis(100)).await;
    assert_eq!((measured.sent, measured.in_flight_peak), (10, 10));
    assert!(measured.dropped > 20, "{measured:?}");
    assert_eq!(measured.offered, measured.sent + measured.dropped);
    assert_eq!(
        (journal.requests.len(), keys.lock().unwrap().len()),
        (10, 11),
        "dropped requests are not intended, and the first is repeated"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_there_is_a_refusal_and_not_a_doubt() {
    let clock = Clock::system();
    let listener = Net::real().listen_tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (measured, journal) = generate(clock, address, 200.0, Duration::from_millis(200), |_| {}).await;
    assert_eq!(measured.ok.count, 0);
    let refused = Outcome::Refused { why: crate::outcome::Refusal::NotConnected };
    assert!(!journal.requests.is_empty());
    assert!(
        journal.requests.iter().all(|request| request.outcome.is_some_and(|(_, outcome)| outcome == refused))
    );
}
