//! Crashes at every point: whatever was written before, a run comes to the same end, and each effect happens once for each key.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use serde_json::{Value, json};
use standfast_runtime::Clock;
use standfast_store::{
    Batch, CommitError, Committed, Entry, Health, MemoryStore, Page, ReadError, Scan, Space, Store, Version,
};
use standfast_workflow::{EngineConfig, Refused, Status, Summary};
use tokio::sync::watch;

use super::options;
use super::rig::{PATIENCE, Rig, Service};

/// A store that stops for good at one of its commits: before it is done, or after, when nobody is told.
#[derive(Debug)]
pub(crate) struct Mortal {
    pub(crate) inner: Arc<dyn Store>,
    /// Commits that are still done.
    pub(crate) left: AtomicI64,
    /// Whether the one that kills it is done.
    pub(crate) is_done: bool,
}

impl Mortal {
    fn stopped() -> CommitError {
        CommitError::Unknown { reason: "the machine lost its power".into() }
    }
}

#[async_trait]
impl Store for Mortal {
    async fn commit(&self, batch: Batch) -> Result<Committed, CommitError> {
        match self.left.fetch_sub(1, Ordering::SeqCst) {
            1.. => self.inner.commit(batch).await,
            0 if self.is_done => {
                self.inner.commit(batch).await?;
                Err(Self::stopped())
            }
            _ => Err(Self::stopped()),
        }
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

const CALL: &str = "call: http\n      with: { method: post, endpoint: 'SERVICE/effect', body: '${ . }' }";

/// What is tried, by name: every kind of task that has anything to lose.
pub(crate) fn documents() -> Vec<(&'static str, String)> {
    let call = |name: &str| format!("  - {name}:\n      {CALL}\n");
    let plain = |body: &str| format!("do:\n{body}");
    vec![
        ("set", plain("  - a:\n      set: { n: 1 }\n  - b:\n      set: { n: '${ .n + 1 }' }\n")),
        ("switch", plain(&format!("  - s:\n      switch:\n        - x: {{ when: '.go', then: b }}\n{}{}", call("a"), call("b")))),
        ("raise", plain(&format!("{}  - r:\n      raise: {{ error: {{ type: 'https://x.example/e', status: 418 }} }}\n", call("a")))),
        ("wait", plain(&format!("  - w:\n      wait: {{ milliseconds: 30 }}\n{}", call("a")))),
        ("three calls", plain(&format!("{}{}{}", call("a"), call("b"), call("c")))),
        ("for", plain("  - f:\n      for: { each: i, in: '[1, 2, 3]' }\n      do:\n        - a:\n            call: http\n            with: { method: post, endpoint: 'SERVICE/effect', body: { i: '${ $i }' } }\n")),
        ("fork", plain("  - f:\n      fork:\n        branches:\n          - a: { call: http, with: { method: post, endpoint: SERVICE/a } }\n          - b: { call: http, with: { method: post, endpoint: SERVICE/b } }\n          - c: { set: { c: 1 } }\n      output: { as: 'length' }\n")),
        ("try", plain("  - t:\n      try:\n        - a: { call: http, with: { method: post, endpoint: SERVICE/first } }\n        - b: { raise: { error: { type: 'https://x.example/e', status: 500 } } }\n      catch:\n        as: e\n        do:\n          - c: { call: http, with: { method: post, endpoint: SERVICE/second, body: '${ $e.status }' } }\n      output: { as: '.body' }\n")),
        ("retry", plain("  - t:\n      try:\n        - a: { call: http, with: { method: post, endpoint: SERVICE/first } }\n        - b:\n            raise: { error: { type: 'https://x.example/e', status: 500 } }\n      catch:\n        retry: { delay: { milliseconds: 1 }, limit: { attempt: { count: 2 } } }\n        do:\n          - c: { set: { gave: up } }\n")),
        ("do and function", "use:\n  functions:\n    pay: { call: http, with: { method: post, endpoint: SERVICE/pay, body: '${ .sum }' } }\ndo:\n  - d:\n      do:\n        - a: { call: pay, with: { sum: 3 } }\n        - b: { call: pay, with: { sum: 4 } }\n      output: { as: '.body' }\n".to_owned()),
        ("emit", plain(&format!("  - e:\n      emit: {{ event: {{ with: {{ source: 'https://x.example', type: t, data: {{ a: 1 }} }} }} }}\n      output: {{ as: .data }}\n{}", call("a")))),
        ("shell", plain("  - s:\n      run: { shell: { command: 'echo $1', arguments: [ hello ] } }\n  - a:\n      set: { said: '${ . }' }\n")),
        ("values", plain(&format!("  - s: {{ call: 'standfast.kv:1.0.0@default', with: {{ operation: set, key: n, value: 5 }} }}\n{}  - f:\n      for: {{ each: i, in: '[1, 2, 3]' }}\n      do:\n        - a: {{ call: 'standfast.kv:1.0.0@default', with: {{ operation: increment, key: n, by: '${{ $i }}' }} }}\n  - g:\n      fork:\n        branches:\n          - a: {{ call: 'standfast.kv:1.0.0@default', with: {{ operation: increment, key: n }} }}\n          - b: {{ call: 'standfast.kv:1.0.0@default', with: {{ operation: increment, key: n }} }}\n      output: {{ as: length }}\n  - c: {{ call: 'standfast.kv:1.0.0@default', with: {{ operation: compareAndSet, key: n, expected: 13, value: {{ all: 13 }} }} }}\n", call("a")))),
        ("locks", plain(&format!("  - l: {{ call: 'standfast.lock:1.0.0@default', with: {{ name: one }} }}\n{}  - again: {{ call: 'standfast.lock:1.0.0@default', with: {{ name: one }} }}\n  - g:\n      fork:\n        branches:\n          - a: {{ call: 'standfast.lock:1.0.0@default', with: {{ name: two, permits: 3 }} }}\n          - b: {{ call: 'standfast.unlock:1.0.0@default', with: {{ name: one }} }}\n      output: {{ as: length }}\n{}  - u: {{ call: 'standfast.unlock:1.0.0@default', with: {{ name: two }} }}\n", call("a"), call("b")))),
        ("context", plain("  - a:\n      set: { n: 1 }\n      export: { as: '{kept: .n}' }\n  - b:\n      call: http\n      with: { method: post, endpoint: SERVICE/x, body: '${ $context }' }\n      output: { as: .body }\n")),
    ]
}

/// Output without what tells runs apart.
pub(crate) fn comparable(summary: &Summary) -> (Status, Option<Value>, Option<u16>) {
    fn without_headers(value: Value) -> Value {
        match value {
            Value::Object(fields) => fields
                .into_iter()
                .filter(|(name, _)| name != "headers")
                .map(|(name, value)| (name, without_headers(value)))
                .collect(),
            Value::Array(items) => items.into_iter().map(without_headers).collect(),
            other => other,
        }
    }
    let output = summary.output.as_deref().cloned().map(without_headers);
    (summary.status, output, summary.problem.as_ref().map(|problem| problem.status))
}

/// Lets `commits` commits through, crashes, and lets the run end over what was kept. `None` when it ended before the crash.
pub(crate) async fn with_crash(
    document: &str,
    memory: Arc<dyn Store>,
    commits: i64,
    is_done: bool,
    service: Service,
) -> (bool, Option<Summary>, Service) {
    let left = AtomicI64::new(commits);
    let mortal = Arc::new(Mortal { inner: Arc::clone(&memory), left, is_done });
    let config = EngineConfig::default();
    let Ok(rig) = Rig::try_beside(mortal, config.clone(), service.clone()).await else {
        return (true, None, service);
    };
    let Ok(name) = rig.try_define("crash", document).await else { return (true, None, rig.crash().await) };
    let started = rig.engine.start(&name, Arc::new(json!({"go": true})), Some("the-key")).await;
    let ended = match started {
        Ok(id) => rig.clock.timeout(PATIENCE, rig.engine.wait(id)).await.expect("it ends or stops"),
        Err(why) => Err(why),
    };
    match ended {
        Ok(summary) => (false, Some(summary), rig.crash().await),
        Err(Refused::Stopped(_)) => (true, None, rig.crash().await),
        Err(other) => panic!("{other}"),
    }
}

/// Starts by the same key once more and waits for the end, as a client does that was told nothing.
pub(crate) async fn finish(document: &str, memory: Arc<dyn Store>, service: Service) -> (Summary, Service) {
    let (_, summary, service) = with_crash(document, memory, i64::MAX, false, service).await;
    (summary.expect("nothing stops it"), service)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_commit_changes_neither_the_end_nor_the_effects() {
    let mut crashes = 0;
    for (name, document) in documents().into_iter().chain(options::documents()) {
        let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
        let (whole, service) = finish(&document, memory, Service::start().await).await;
        let (expected, effects) = (comparable(&whole), effects(&service));
        for is_done in [false, true] {
            for commits in 0.. {
                let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
                let service = Service::start().await;
                let (crashed, ended, service) =
                    with_crash(&document, Arc::clone(&memory), commits, is_done, service).await;
                if !crashed {
                    let ended = ended.expect("it ended");
                    assert_eq!(comparable(&ended), expected, "{name}");
                    break;
                }
                crashes += 1;
                let (summary, service) = finish(&document, memory, service).await;
                let case = format!("{name}, a crash at commit {commits}, done: {is_done}");
                assert_eq!(comparable(&summary), expected, "{case}");
                assert_eq!(self::effects(&service), effects, "{case}");
            }
        }
    }
    assert!(crashes > 100, "only {crashes} crashes were tried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_crash_while_the_first_is_recovered_changes_nothing_either() {
    let mut pairs = 0;
    const TRIED: [&str; 5] = ["three calls", "fork", "parallel for", "undo", "undo that is tried again"];
    let all = documents().into_iter().chain(options::documents());
    let documents = all.filter(|(name, _)| TRIED.contains(name));
    for (name, document) in documents {
        let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
        let (whole, service) = finish(&document, memory, Service::start().await).await;
        let (expected, effects) = (comparable(&whole), effects(&service));
        'first: for first in 0.. {
            for second in 0.. {
                let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
                // The first time nobody is told of what was done, the second time it was not done.
                let service = Service::start().await;
                let (crashed, _, service) =
                    with_crash(&document, Arc::clone(&memory), first, true, service).await;
                if !crashed {
                    break 'first;
                }
                let (crashed, _, service) =
                    with_crash(&document, Arc::clone(&memory), second, false, service).await;
                let (summary, service) = finish(&document, memory, service).await;
                let case = format!("{name}, crashes at the commits {first} and {second}");
                assert_eq!(comparable(&summary), expected, "{case}");
                assert_eq!(self::effects(&service), effects, "{case}");
                pairs += 1;
                if !crashed {
                    break;
                }
            }
        }
    }
    assert!(pairs > 30, "only {pairs} pairs were tried");
}

/// How many effects there were, none of them twice for one key.
pub(crate) fn effects(service: &Service) -> usize {
    service.seen(|seen| seen.effects.len())
}

#[tokio::test]
async fn who_opened_the_store_last_is_the_only_one_who_writes() {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
    let first = Rig::over(Arc::clone(&memory), EngineConfig::default()).await;
    let name = first.define("wait", "do:\n  - w:\n      wait: { milliseconds: 50 }\n").await;
    let id = first.start(&name, Value::Null).await;
    let second = Rig::over(memory, EngineConfig::default()).await;
    assert_eq!(second.end(id).await.status, Status::Completed);
    let refused = first.engine.start(&name, Arc::default(), None).await.unwrap_err();
    assert!(matches!(&refused, Refused::Stopped(why) if why.contains("taken over")), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_key_is_one_run_however_many_start_it_at_once() {
    let rig = Arc::new(Rig::new().await);
    let name =
        rig.define("once", "do:\n  - a: { call: http, with: { method: post, endpoint: SERVICE/x } }\n").await;
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let (rig, name) = (Arc::clone(&rig), name.clone());
        starts.spawn(async move { rig.engine.start(&name, Arc::default(), Some("k")).await.unwrap() });
    }
    let ids = starts.join_all().await;
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    rig.end(ids[0]).await;
    assert_eq!(rig.service.seen(|seen| seen.requests["/x"]), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_runs_than_there_is_room_for_take_turns() {
    let config =
        EngineConfig { awake_max: 2, sleep_after: std::time::Duration::ZERO, ..EngineConfig::default() };
    let rig = Rig::over(Arc::new(MemoryStore::new(Clock::system())), config).await;
    let document = "do:\n  - w: { wait: { milliseconds: 20 } }\n  - a: { call: http, with: { method: post, endpoint: SERVICE/x } }\n  - v: { wait: { milliseconds: 20 } }\n";
    let name = rig.define("many", document).await;
    let mut ids = Vec::new();
    for _ in 0..100 {
        ids.push(rig.start(&name, Value::Null).await);
    }
    for id in ids {
        let ended = rig.end(id).await;
        assert_eq!(ended.status, Status::Completed, "{:?}", ended.problem);
    }
    assert_eq!(rig.service.seen(|seen| (seen.requests["/x"], seen.effects.len())), (100, 100));
    assert_eq!(rig.engine.counts(), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_held_over_a_crash_stays_held_and_goes_on_when_it_is_let() {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
    let rig = Rig::over(Arc::clone(&memory), EngineConfig::default()).await;
    let document = "do:\n  - w: { wait: { milliseconds: 50 } }\n  - a: { call: http, with: { method: post, endpoint: SERVICE/x } }\n";
    let name = rig.define("held", document).await;
    let id = rig.start(&name, Value::Null).await;
    assert_eq!(rig.engine.hold(id).await.unwrap().status, Status::Suspended);
    let service = rig.crash().await;
    let rig = Rig::beside(memory, EngineConfig::default(), service).await;
    assert_eq!(rig.engine.show(id).await.unwrap().summary.status, Status::Suspended);
    rig.engine.resume(id).await.unwrap();
    assert_eq!(rig.end(id).await.status, Status::Completed);
    let again = rig.engine.resume(id).await.unwrap_err();
    assert_eq!(again, Refused::Ended(id));
}

#[tokio::test]
async fn a_run_that_is_cancelled_ends_at_once_and_what_it_asked_is_given_up() {
    let rig = Rig::new().await;
    let name = rig.define("long", "do:\n  - s: { run: { shell: { command: 'sleep 600' } } }\n").await;
    let id = rig.start(&name, Value::Null).await;
    let run = rig.engine.cancel(id, "nobody wants it").await.unwrap();
    assert_eq!(run.status, Status::Cancelled);
    let ended = rig.end(id).await;
    assert_eq!(ended.problem.and_then(|problem| problem.detail).as_deref(), Some("nobody wants it"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_reaches_all_that_wait_asleep_or_not() {
    let config = EngineConfig { sleep_after: std::time::Duration::ZERO, ..EngineConfig::default() };
    let rig = Rig::over(Arc::new(MemoryStore::new(Clock::system())), config).await;
    let document = "do:\n  - l:\n      listen: { to: { one: { with: { type: paid, subject: '${ . == $input.order }' } } } }\n      output: { as: '.[0]' }\n";
    let document = document.replace("'${ . == $input.order }'", "'${ . != null }'");
    let name = rig.define("listen", &document).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(rig.start(&name, Value::Null).await);
    }
    let event = |kind: &str| json!({"specversion": "1.0", "id": "1", "source": "/t", "type": kind, "subject": "s", "data": {"n": 7}});
    rig.engine.publish(Arc::new(event("refunded"))).await.unwrap();
    let mut paid = event("paid");
    paid["id"] = "2".into();
    // Those that have only just begun to wait take it from what is kept.
    assert!(rig.engine.publish(Arc::new(paid)).await.unwrap() <= ids.len());
    for id in ids {
        assert_eq!(rig.end(id).await.output.as_deref(), Some(&json!({"n": 7})));
    }
}
