//! What a durable commit costs on this machine's disk.
//!
//! `cargo run --release -p standfast-store --example commit_bench -- [FOLDER] [SECONDS]`
//!
//! Offers batches of one 300-byte value in an open loop (a late answer does not slow the offer), then in a closed loop of
//! more and more callers, and reads all the while. CPU is that of the whole process, callers included.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use standfast_runtime::{Clock, Rng, Stop, StopSource};
use standfast_store::{Batch, EmbeddedOptions, EmbeddedStore, Space, Store};
use tokio::task::JoinSet;

const SPACE: Space = Space::Table("bench");
/// Keys that are written and read.
const KEYS: usize = 20_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder =
        arguments.next().map_or_else(|| std::env::temp_dir().join("standfast-commit-bench"), PathBuf::from);
    let seconds = arguments.next().map_or(Ok(5), |text| text.parse())?;
    if folder.join("store.db").exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    let clock = Clock::system();
    let store = Arc::new(EmbeddedStore::open(&folder, clock, EmbeddedOptions::default()).await?);
    println!("folder {}", folder.display());
    for rate in [1_500.0, 5_000.0] {
        measure(&format!("open loop {rate}/s"), &store, clock, async |store, latencies| {
            open_loop(store, clock, rate, seconds, latencies).await;
        })
        .await;
    }
    for callers in [1, 16, 64, 256] {
        measure(&format!("closed loop {callers}"), &store, clock, async |store, latencies| {
            closed_loop(store, clock, callers, seconds, latencies).await;
        })
        .await;
    }
    drop(store);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

/// Latencies in microseconds.
type Latencies = Arc<std::sync::Mutex<Vec<u64>>>;

async fn measure(
    name: &str,
    store: &Arc<EmbeddedStore>,
    clock: Clock,
    work: impl AsyncFnOnce(Arc<EmbeddedStore>, Latencies),
) {
    let (writes, reads) = (Latencies::default(), Latencies::default());
    let (source, stop) = StopSource::new();
    let mut reader = JoinSet::new();
    reader.spawn(read_all_the_while(Arc::clone(store), clock, Arc::clone(&reads), stop));
    let (stats, cpu, began) = (store.stats(), cpu_seconds(), clock.now());
    work(Arc::clone(store), Arc::clone(&writes)).await;
    let wall = clock.now().since(began).as_secs_f64();
    let cpu = cpu_seconds() - cpu;
    source.stop();
    reader.join_all().await;
    let now = store.stats();
    let batches = now.batches - stats.batches;
    let commits = now.commits - stats.commits;
    println!(
        "{name:18} commits/s {:7.0}  fsyncs/commit {:.3} ({} checkpoints)  commit ms {}  read ms {}  cpu s/s {:.2}  cpu us/commit {:.0}",
        batches as f64 / wall,
        commits as f64 / batches as f64,
        now.checkpoints - stats.checkpoints,
        quantiles(&writes),
        quantiles(&reads),
        cpu / wall,
        cpu * 1e6 / batches as f64,
    );
}

async fn write_one(
    store: &EmbeddedStore,
    clock: Clock,
    key: usize,
    latencies: &Latencies,
    failed: &AtomicU64,
) {
    let began = clock.now();
    if store.commit(Batch::new().put(&SPACE, format!("key/{key:06}"), vec![b'v'; 300])).await.is_err() {
        failed.fetch_add(1, Ordering::Relaxed);
    }
    note(latencies, clock.now().since(began));
}

async fn open_loop(store: Arc<EmbeddedStore>, clock: Clock, rate: f64, seconds: u64, latencies: Latencies) {
    let (mut rng, mut calls, failed) = (Rng::seeded(1), JoinSet::new(), Arc::new(AtomicU64::new(0)));
    let (mut due, end) = (clock.now(), clock.now().plus(Duration::from_secs(seconds)));
    while due < end {
        clock.sleep_until(due).await;
        let (store, latencies, failed, key) =
            (Arc::clone(&store), Arc::clone(&latencies), Arc::clone(&failed), rng.below(KEYS));
        calls.spawn(async move { write_one(&store, clock, key, &latencies, &failed).await });
        while calls.try_join_next().is_some() {}
        due = due.plus(Duration::from_secs_f64(rng.exponential() / rate));
    }
    calls.join_all().await;
    report_failed(&failed);
}

async fn closed_loop(
    store: Arc<EmbeddedStore>,
    clock: Clock,
    callers: u64,
    seconds: u64,
    latencies: Latencies,
) {
    let (mut calls, failed) = (JoinSet::new(), Arc::new(AtomicU64::new(0)));
    let end = clock.now().plus(Duration::from_secs(seconds));
    for caller in 0..callers {
        let (store, latencies, failed, mut rng) =
            (Arc::clone(&store), Arc::clone(&latencies), Arc::clone(&failed), Rng::seeded(caller));
        calls.spawn(async move {
            while clock.now() < end {
                write_one(&store, clock, rng.below(KEYS), &latencies, &failed).await;
            }
        });
    }
    calls.join_all().await;
    report_failed(&failed);
}

async fn read_all_the_while(store: Arc<EmbeddedStore>, clock: Clock, latencies: Latencies, stop: Stop) {
    let mut rng = Rng::seeded(2);
    while !stop.is_requested() {
        let began = clock.now();
        if let Err(error) = store.get(&SPACE, format!("key/{:06}", rng.below(KEYS)).as_bytes()).await {
            eprintln!("a read failed: {error}");
        }
        note(&latencies, clock.now().since(began));
        clock.sleep(Duration::from_millis(1)).await;
    }
}

fn report_failed(failed: &AtomicU64) {
    let failed = failed.load(Ordering::Relaxed);
    if failed > 0 {
        eprintln!("{failed} batches were refused");
    }
}

fn note(latencies: &Latencies, took: Duration) {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    latencies.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(micros);
}

fn quantiles(latencies: &Latencies) -> String {
    let mut latencies = latencies.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    latencies.sort_unstable();
    let at = |share: f64| {
        let index = (latencies.len() as f64 * share) as usize;
        latencies.get(index).or(latencies.last()).map_or(0.0, |micros| *micros as f64 / 1e3)
    };
    format!("p50 {:.2} p99 {:.2} max {:.1}", at(0.5), at(0.99), at(1.0))
}

/// CPU time of this process and its threads so far, in seconds (Linux).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
