//! What a step costs does not grow with the steps before it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use standfast_runtime::Clock;
use standfast_store::{
    Batch, CommitError, Committed, Entry, Health, MemoryStore, Page, ReadError, Scan, Space, Store, Version,
};
use standfast_workflow::{EngineConfig, Status};
use tokio::sync::watch;

use super::rig::Rig;

/// A store that counts what is written.
#[derive(Debug)]
struct Counting {
    inner: MemoryStore,
    bytes: AtomicU64,
}

#[async_trait]
impl Store for Counting {
    async fn commit(&self, batch: Batch) -> Result<Committed, CommitError> {
        self.bytes.fetch_add(batch.bytes() as u64, Ordering::SeqCst);
        self.inner.commit(batch).await
    }

    async fn get(&self, space: &Space, key: &[u8]) -> Result<Option<Entry>, ReadError> {
        self.inner.get(space, key).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page, ReadError> {
        self.inner.scan(scan).await
    }

    fn watch(&self, space: &Space, prefix: &[u8]) -> watch::Receiver<Version> {
        self.inner.watch(space, prefix)
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.inner.health()
    }
}

async fn counting() -> (Arc<Counting>, Rig) {
    let store = Arc::new(Counting { inner: MemoryStore::new(Clock::system()), bytes: AtomicU64::new(0) });
    let config = EngineConfig { sleep_after: Duration::from_secs(60), ..EngineConfig::default() };
    let rig = Rig::over(Arc::clone(&store) as Arc<dyn Store>, config).await;
    (store, rig)
}

/// Bytes written for each of `count` steps of a document that is started with that number.
async fn bytes_a_step(document: &str, count: u64) -> u64 {
    let (store, rig) = counting().await;
    let name = rig.define("steps", document).await;
    let before = store.bytes.load(Ordering::SeqCst);
    let id = rig.start(&name, json!({"count": count})).await;
    let ended = rig.end(id).await;
    assert_eq!(ended.status, Status::Completed, "{:?}", ended.problem);
    (store.bytes.load(Ordering::SeqCst) - before) / count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_iteration_costs_the_same_however_many_there_are() {
    let items = "do:\n  - f:\n      for: { each: i, in: '[range(.count)]' }\n      do:\n        - a: { set: { count: 0 } }\n";
    let chain = "do:\n  - a: { set: { count: '${ .count - 1 }' } }\n  - s: { switch: [ { more: { when: '.count > 0', then: a } } ] }\n";
    for (what, document) in [("for", items), ("then", chain)] {
        let (few, many) = (bytes_a_step(document, 100).await, bytes_a_step(document, 5_000).await);
        println!("{what}: {few} bytes a step of 100, {many} of 5,000");
        assert!(many < 2 * few, "{what}: {few} bytes a step of 100, {many} of 5,000");
    }
}

async fn bytes_an_event(count: u64) -> u64 {
    let (store, rig) = counting().await;
    let document = format!(
        "do:\n  - l:\n      listen: {{ to: {{ any: [ {{ with: {{ type: t }} }} ], until: '${{ length == {count} }}' }} }}\n      output: {{ as: length }}\n"
    );
    let name = rig.define("events", &document).await;
    let id = rig.start(&name, Value::Null).await;
    let before = store.bytes.load(Ordering::SeqCst);
    for number in 0..count {
        let event = json!({"id": number.to_string(), "source": "/t", "type": "t", "data": {"n": number}});
        rig.engine.publish(Arc::new(event)).await.unwrap();
    }
    assert_eq!(rig.end(id).await.output.as_deref(), Some(&json!(count)));
    (store.bytes.load(Ordering::SeqCst) - before) / count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_costs_the_same_however_many_came_before() {
    let (few, many) = (bytes_an_event(20).await, bytes_an_event(200).await);
    println!("{few} bytes an event of 20, {many} of 200");
    assert!(many < 2 * few, "{few} bytes an event of 20, {many} of 200");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_branches_end_and_an_endless_loop_ends_with_its_problem() {
    let branches: String = (0..500).map(|n| format!("          - b{n}: {{ set: {{ n: {n} }} }}\n")).collect();
    let document =
        format!("do:\n  - f:\n      fork:\n        branches:\n{branches}      output: {{ as: length }}\n");
    let ended = Rig::new().await.run(&document, Value::Null).await;
    assert_eq!((ended.problem, ended.output.as_deref()), (None, Some(&json!(500))));
    let config = EngineConfig { steps_max: 2_000, ..EngineConfig::default() };
    let rig = Rig::over(Arc::new(MemoryStore::new(Clock::system())), config).await;
    let ended = rig
        .run("do:\n  - a: { set: { x: 1 }, then: b }\n  - b: { set: { x: 2 }, then: a }\n", Value::Null)
        .await;
    let problem = ended.problem.unwrap();
    assert!(problem.detail.as_deref().unwrap().contains("2000 steps without coming to an end"), "{problem}");
}

/// Figures, not a test: `cargo test --release -- --ignored sleepers --nocapture`. `STANDFAST_SLEEPERS` says how many.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures, and takes minutes"]
async fn figures_of_sleepers() {
    #[expect(clippy::disallowed_methods, reason = "a test has no main that could read it")]
    let count =
        std::env::var("STANDFAST_SLEEPERS").ok().and_then(|text| text.parse().ok()).unwrap_or(100_000_usize);
    let resident = || -> u64 {
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
        pages.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap() * 4_096
    };
    let folder = tempfile::tempdir().unwrap();
    let config = EngineConfig { sleep_after: Duration::ZERO, ..EngineConfig::default() };
    let rig = Arc::new(Rig::over(super::rig::embedded(folder.path()).await, config.clone()).await);
    let long = rig.define("long", "do:\n  - w: { wait: { days: 10 } }\n").await;
    let before = resident();
    let began = rig.clock.now();
    let mut starting = tokio::task::JoinSet::new();
    for _ in 0..count {
        if starting.len() >= 512 {
            starting.join_next().await;
        }
        let (rig, long) = (Arc::clone(&rig), long.clone());
        starting.spawn(async move { rig.start(&long, json!({"order": "o-1", "sum": 12.5})).await });
    }
    starting.join_all().await;
    while rig.engine.counts().0 > 0 {
        rig.clock.sleep(Duration::from_millis(10)).await;
    }
    println!(
        "{count} started and asleep in {:?}; {} bytes of memory each",
        rig.clock.now().since(began),
        (resident() - before) / count as u64
    );
    let Ok(rig) = Arc::try_unwrap(rig) else { panic!("all tasks have ended") };
    let service = rig.crash().await;
    let clock = Clock::system();
    // The folder is free when the last of the tasks that had it is gone.
    let store = loop {
        match standfast_store::EmbeddedStore::open(
            folder.path(),
            clock,
            standfast_store::EmbeddedOptions::default(),
        )
        .await
        {
            Ok(store) => break Arc::new(store),
            Err(_) => clock.sleep(Duration::from_millis(10)).await,
        }
    };
    let began = clock.now();
    let rig = Rig::beside(store, config, service).await;
    println!("opened in {:?}", clock.now().since(began));
    let soon = rig.define("soon", "do:\n  - w: { wait: '${ {milliseconds: .ms} }' }\n").await;
    let at = rig.clock.now().plus(Duration::from_secs(10));
    let mut ids = Vec::new();
    for _ in 0..1_000 {
        let left = at.since(rig.clock.now()).as_millis() as u64;
        ids.push(rig.start(&soon, json!({"ms": left})).await);
    }
    for id in ids {
        rig.end(id).await;
    }
    println!("1,000 timers of one moment: the last run had ended {:?} after it", rig.clock.now().since(at));
}
