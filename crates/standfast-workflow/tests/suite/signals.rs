//! Signals reach one run, early or late and over crashes, once; queries tell of a run and change nothing.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use serde_json::{Value, json};
use standfast_runtime::Clock;
use standfast_store::{MemoryStore, Store};
use standfast_workflow::{EngineConfig, Refused, RunId};

use super::crash::Mortal;
use super::rig::{Rig, Service};

const APPROVAL: &str = "do:
  - wait: { wait: { milliseconds: 5 } }
  - ask: { listen: { to: { one: { with: { type: io.standfast.signal.approve } } } }, output: { as: '.[0]' } }
  - book: { call: http, with: { method: post, endpoint: SERVICE/book, body: '${ . }' }, output: { as: .body } }
";

/// Runs of which each waits for two signals, one for each branch and round.
const ROUNDS: &str = "do:
  - all:
      for: { each: i, in: '[1, 2, 3]' }
      do:
        - one: { listen: { to: { one: { with: { type: io.standfast.signal.go } } } }, output: { as: '.[0]' } }
        - say: { set: '${ $context + [$workflow.input.before + .n] }', export: { as: . } }
      output: { as: $context }
input: { from: '[]' }
";

async fn listens(rig: &Rig, id: RunId) -> bool {
    let run = rig.engine.show(id).await.unwrap().run.unwrap();
    serde_json::to_string(&run.scopes).unwrap().contains("\"listening\"")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_reaches_its_run_alone_whether_it_listens_already_or_not() {
    let config = EngineConfig { sleep_after: Duration::ZERO, ..EngineConfig::default() };
    let rig = Rig::over(Arc::new(MemoryStore::new(Clock::system())), config).await;
    let name = rig.define("approval", APPROVAL).await;
    let (one, other) = (rig.start(&name, Value::Null).await, rig.start(&name, Value::Null).await);
    // As soon as it is started it does not listen yet.
    rig.engine.signal(one, "approve", json!({"by": "me"}), None).await.unwrap();
    assert_eq!(rig.end(one).await.output.as_deref(), Some(&json!({"by": "me"})));
    // It waits for time first.
    while !listens(&rig, other).await {}
    rig.engine.signal(other, "refuse", json!({"by": "him"}), None).await.unwrap();
    let run = rig.engine.show(other).await.unwrap().run.unwrap();
    assert_eq!(run.signals.len(), 1, "nobody listens for it");
    let run = rig.engine.signal(other, "approve", json!({"by": "you"}), None).await.unwrap();
    assert_eq!(run.signals.len(), 1);
    assert_eq!(rig.end(other).await.output.as_deref(), Some(&json!({"by": "you"})));
    let late = rig.engine.signal(other, "approve", json!({}), None).await.unwrap_err();
    assert_eq!(late, Refused::Ended(other));
    let nobody = RunId::new(standfast_model::Stamp::EPOCH, 7);
    let unknown = rig.engine.signal(nobody, "approve", json!({}), None).await.unwrap_err();
    assert_eq!(unknown, Refused::NoRun(nobody));
    let odd = rig.engine.signal(nobody, "a/b", json!({}), None).await.unwrap_err();
    assert!(matches!(&odd, Refused::Wrong(why) if why.contains("`a/b`")), "{odd:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_are_taken_in_their_order_and_one_key_is_one_signal() {
    let rig = Rig::new().await;
    let name = rig.define("rounds", ROUNDS).await;
    let id = rig.start(&name, json!({"before": 10})).await;
    for (number, key) in [(1, "a"), (5, "a"), (2, "b"), (7, "b"), (3, "c")] {
        let sent = rig.engine.signal(id, "go", json!({"n": number}), Some(key)).await;
        assert!(sent.is_ok() || sent == Err(Refused::Ended(id)), "{sent:?}");
    }
    assert_eq!(rig.end(id).await.output.as_deref(), Some(&json!([11, 12, 13])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_keeps_so_many_signals_and_refuses_more() {
    let rig = Rig::new().await;
    let name = rig.define("waits", "do: [ w: { wait: { minutes: 10 } } ]\n").await;
    let id = rig.start(&name, Value::Null).await;
    for _ in 0..100 {
        rig.engine.signal(id, "go", Value::Null, None).await.unwrap();
    }
    assert_eq!(rig.engine.signal(id, "go", Value::Null, None).await.unwrap_err(), Refused::Busy(id));
    let other = rig.start(&name, Value::Null).await;
    let large = json!("x".repeat(200 << 10));
    let mut sent = 0;
    while rig.engine.signal(other, "go", large.clone(), None).await.is_ok() {
        sent += 1;
    }
    assert_eq!(sent, 6, "a little more than a MiB");
}

/// Starts, signals and waits; `None` when the store stopped before.
async fn approve(
    memory: &Arc<dyn Store>,
    commits: i64,
    is_done: bool,
    service: Service,
) -> (Option<Value>, Service) {
    let mortal = Mortal { inner: Arc::clone(memory), left: AtomicI64::new(commits), is_done };
    let Ok(rig) = Rig::try_beside(Arc::new(mortal), EngineConfig::default(), service.clone()).await else {
        return (None, service);
    };
    let doing = async {
        let name = rig.try_define("approval", APPROVAL).await?;
        let id = rig.engine.start(&name, Arc::default(), Some("k")).await?;
        match rig.engine.signal(id, "approve", json!({"by": "me"}), Some("s")).await {
            Ok(_) | Err(Refused::Ended(_)) => {}
            Err(why) => return Err(why),
        }
        rig.engine.wait(id).await
    };
    match rig.clock.timeout(super::rig::PATIENCE, doing).await.expect("it ends or stops") {
        Ok(summary) => (summary.output.as_deref().cloned(), rig.crash().await),
        Err(Refused::Stopped(_)) => (None, rig.crash().await),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_commit_neither_loses_nor_doubles_a_signal() {
    let mut crashes = 0;
    for is_done in [false, true] {
        for commits in 0.. {
            let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
            let (ended, service) = approve(&memory, commits, is_done, Service::start().await).await;
            let has_crashed = ended.is_none();
            let (ended, service) = match ended {
                Some(ended) => (Some(ended), service),
                None => approve(&memory, i64::MAX, false, service).await,
            };
            assert_eq!(ended, Some(json!({"by": "me"})), "a crash at commit {commits}, done: {is_done}");
            assert_eq!(super::crash::effects(&service), 1);
            if !has_crashed {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes >= 10, "only {crashes} crashes were tried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_tells_of_a_run_as_it_is_and_as_it_ended_and_writes_nothing() {
    let rig = Rig::new().await;
    let text = "document:
  dsl: '1.0.3'
  namespace: tests
  name: asked
  version: '1.0.0'
  metadata:
    standfast:
      queries:
        progress: '${ {status, done: ($context.done // 0), waits: [.waitsFor[].task], of: $input.order, o: .output} }'
        endless: '[range(1e9)] | length'
do:
  - a: { set: { done: 1 }, export: { as: . } }
  - w: { listen: { to: { one: { with: { type: io.standfast.signal.go } } } } }
  - b: { set: { done: 2 }, export: { as: . } }
";
    let definition = standfast_workflow::Definition::of_text("asked", text).unwrap();
    let name = definition.program.name().clone();
    rig.engine.define(definition).await.unwrap();
    let id = rig.start(&name, json!({"order": "o-1"})).await;
    let before = rig.engine.show(id).await.unwrap().records;
    let told = rig.engine.query(id, "progress").await.unwrap();
    let waits = json!({"status": "waiting", "done": 1, "waits": ["/do/1/w"], "of": "o-1", "o": null});
    assert_eq!(told, waits);
    let failed = rig.engine.query(id, "endless").await.unwrap_err();
    assert!(matches!(&failed, Refused::Unfit(why) if why.contains("`endless` failed")), "{failed:?}");
    let unknown = rig.engine.query(id, "nothing").await.unwrap_err().to_string();
    assert!(unknown.ends_with("has no query `nothing`; it has endless, progress"), "{unknown}");
    assert_eq!(rig.engine.show(id).await.unwrap().records, before);
    rig.engine.signal(id, "go", Value::Null, None).await.unwrap();
    rig.end(id).await;
    let told = rig.engine.query(id, "progress").await.unwrap();
    assert_eq!(told, json!({"status": "completed", "done": 2, "waits": [], "of": "o-1", "o": {"done": 2}}));
}
