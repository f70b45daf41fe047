//! What a crash, a full house or an odd value could do to a run, and must not.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use standfast_runtime::Clock;
use standfast_store::{MemoryStore, Store};
use standfast_workflow::{EngineConfig, Refused, RunId, Status};

use super::rig::{PATIENCE, Rig};

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(Clock::system()))
}

/// Runs sleep as soon as nothing is asked for them.
fn sleepy() -> EngineConfig {
    EngineConfig { sleep_after: Duration::ZERO, ..EngineConfig::default() }
}

/// Starts a run that waits a moment, crashes while it does, and returns how it ends over what was kept.
async fn ends_over_a_crash(document: &str, config: EngineConfig) -> standfast_workflow::Summary {
    let memory = memory();
    let rig = Rig::over(Arc::clone(&memory), config.clone()).await;
    let name = rig.define("crash", document).await;
    let id = rig.start(&name, json!({"n": 1})).await;
    let service = rig.crash().await;
    let rig = Rig::beside(memory, config, service).await;
    rig.end(id).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn null_stays_null_over_a_crash() {
    let list = "do:\n  - a: { set: { x: 1 }, output: { as: '${ null }' } }\n  - w: { wait: { milliseconds: 60 } }\n  - b: { set: { got: '${ . }' } }\n";
    let fork = "do:\n  - f:\n      fork:\n        branches:\n          - a: { set: { x: 1 }, output: { as: '${ null }' } }\n          - w: { wait: { milliseconds: 60 } }\n      output: { as: '.[0]' }\n  - b: { set: { got: '${ . }' } }\n";
    for document in [list, fork] {
        for config in [EngineConfig::default(), sleepy()] {
            let ended = ends_over_a_crash(document, config).await;
            assert_eq!(ended.output.as_deref(), Some(&json!({"got": null})), "{document}");
        }
    }
    let ended = Rig::new()
        .await
        .run("do:\n  - a: { set: { x: 1 }, output: { as: '${ null }' } }\n", Value::Null)
        .await;
    let text = serde_json::to_string(&ended).unwrap();
    assert_eq!(serde_json::from_str::<standfast_workflow::Summary>(&text).unwrap(), ended);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_number_is_the_same_over_a_crash() {
    // Of these digits a reader that is fast, but not exact, makes another number.
    let document = "do:\n  - a: { set: { x: '${ 1.0715660391465826e-71 }', y: '${ 0.1 + 0.2 }' } }\n  - w: { wait: { milliseconds: 60 } }\n";
    let whole = Rig::new().await.run(document, Value::Null).await.output;
    assert_eq!(ends_over_a_crash(document, sleepy()).await.output, whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_could_not_be_read_back_is_not_written() {
    let memory = memory();
    let rig = Rig::over(Arc::clone(&memory), EngineConfig::default()).await;
    let name = rig
        .define("deep", "do:\n  - f:\n      for: { each: i, in: '[range(200)]' }\n      do:\n        - a: { set: { deeper: '${ . }' } }\n")
        .await;
    let id = rig.start(&name, json!({})).await;
    let problem = rig.end(id).await.problem.unwrap();
    assert!(problem.detail.as_deref().unwrap().contains("nests deeper than 100"), "{problem}");
    let deep = (0..150).fold(json!(1), |inner, _| json!([inner]));
    let refused = rig.engine.start(&name, Arc::new(deep.clone()), None).await.unwrap_err();
    assert!(matches!(refused, Refused::Wrong(_)), "{refused:?}");
    let event = json!({"id": "1", "source": "/t", "type": "t", "data": deep});
    assert!(rig.engine.publish(Arc::new(event)).await.is_err());
    let service = rig.crash().await;
    assert!(Rig::try_beside(memory, EngineConfig::default(), service).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_context_is_written_in_several_records() {
    // 200 contexts of 30 KB are more than one batch of the store holds, and the run holds but one of them.
    let document = "do:\n  - f:\n      for: { each: i, in: '[range(200)]' }\n      do:\n        - a: { set: { i: '${ $i }' }, export: { as: '${ {i: $i, text: (\"x\" * 30000)} }' } }\n";
    let ended = Rig::new().await.run(document, Value::Null).await;
    assert_eq!(ended.problem, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_that_something_is_done_for_has_keys_of_its_own() {
    let rig = Rig::new().await;
    let document = "do:\n  - l:\n      listen: { to: { any: [ { with: { type: paid } } ], until: '${ length == 3 }' } }\n      foreach:\n        item: e\n        do:\n          - a: { call: http, with: { method: post, endpoint: SERVICE/x } }\n";
    let name = rig.define("each", document).await;
    let id = rig.start(&name, Value::Null).await;
    for number in 0..3 {
        let event = json!({"id": number.to_string(), "source": "/t", "type": "paid"});
        rig.engine.publish(Arc::new(event)).await.unwrap();
    }
    assert_eq!(rig.end(id).await.status, Status::Completed);
    assert_eq!(rig.service.seen(|seen| (seen.requests["/x"], seen.effects.len())), (3, 3));
}

/// What was started long ago is not kept any more, and neither are the last records: those that follow come after them all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_after_all_records_have_expired_outlives_a_crash() {
    let config = EngineConfig { kept_for: Duration::from_millis(50), ..EngineConfig::default() };
    let memory = memory();
    let mut rig = Rig::over(Arc::clone(&memory), config.clone()).await;
    let name = rig.define("quick", "do:\n  - a: { set: { x: 1 } }\n").await;
    for _ in 0..5 {
        let id = rig.start(&name, Value::Null).await;
        let _expired_perhaps = rig.engine.wait(id).await;
    }
    // The mark is noted once a second; it is far enough when a recovery has nothing to read.
    rig.clock.sleep(Duration::from_millis(1_500)).await;
    let service = rig.crash().await;
    rig = Rig::beside(Arc::clone(&memory), EngineConfig::default(), service).await;
    let name = rig.define("slow", "do:\n  - w: { wait: { milliseconds: 200 } }\n").await;
    let id = rig.start(&name, Value::Null).await;
    let service = rig.crash().await;
    rig = Rig::beside(memory, EngineConfig::default(), service).await;
    assert_eq!(rig.end(id).await.status, Status::Completed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_wait_for_others_leave_these_room() {
    let config = EngineConfig { awake_max: 2, ..sleepy() };
    let rig = Rig::over(memory(), config).await;
    rig.define("inner", "do:\n  - w: { wait: { milliseconds: 20 } }\n  - a: { set: { done: true } }\n").await;
    let outer = "do:\n  - s: { run: { workflow: { namespace: tests, name: inner, version: '1.0.0' } } }\n";
    let name = rig.define("outer", outer).await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(rig.start(&name, Value::Null).await);
    }
    for id in ids {
        assert_eq!(rig.end(id).await.output.as_deref(), Some(&json!({"done": true})));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_room_keeps_its_priority_over_a_crash() {
    let config = EngineConfig { awake_max: 1, ..EngineConfig::default() };
    let memory = memory();
    let rig = Rig::over(Arc::clone(&memory), config.clone()).await;
    // It takes connections and never answers: who asks it keeps its place in memory.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/", silent.local_addr().unwrap());
    let asks = format!("do:\n  - a: {{ call: http, with: {{ method: get, endpoint: '{endpoint}' }} }}\n");
    let holds = rig.define("holds", &asks).await;
    let quick = |priority: &str| {
        let call = "call: http, with: { method: post, endpoint: SERVICE/x }";
        format!("  metadata: {{ standfast: {{ priority: {priority} }} }}\ndo:\n  - a: {{ {call} }}\n")
    };
    let mut names = Vec::new();
    for priority in ["low", "normal", "high"] {
        names.push(rig.define(priority, &quick(priority)).await);
    }
    let first = rig.start(&holds, Value::Null).await;
    let mut ids = Vec::new();
    for name in &names {
        ids.push(rig.start(name, Value::Null).await);
    }
    let service = rig.crash().await;
    let rig = Rig::beside(memory, config, service).await;
    assert_eq!(rig.engine.counts(), (1, 3));
    rig.engine.cancel(first, "room is needed").await.unwrap();
    let mut ended = Vec::new();
    for id in ids {
        ended.push(rig.end(id).await.changed_at);
    }
    let [low, normal, high] = ended[..] else { panic!("{ended:?}") };
    assert!(high < normal && normal < low, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_asks_for_another_before_the_new_process_is_told_which_there_are() {
    let memory = memory();
    let rig = Rig::over(Arc::clone(&memory), EngineConfig::default()).await;
    rig.define("inner", "do:\n  - a: { set: { done: true } }\n").await;
    let outer = "do:\n  - w: { wait: { milliseconds: 60 } }\n  - s: { run: { workflow: { namespace: tests, name: inner, version: latest } } }\n";
    let name = rig.define("outer", outer).await;
    let id = rig.start(&name, Value::Null).await;
    let service = rig.crash().await;
    let rig = Rig::beside(memory, EngineConfig::default(), service).await;
    let ended = rig.end(id).await;
    assert_eq!((ended.problem, ended.output.as_deref()), (None, Some(&json!({"done": true}))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_start_by_the_key_of_a_run_that_goes_on_is_that_run_however_long_it_does() {
    let config = EngineConfig { kept_for: Duration::from_millis(20), ..EngineConfig::default() };
    let rig = Rig::over(memory(), config).await;
    let name = rig.define("long", "do:\n  - w: { wait: { minutes: 10 } }\n").await;
    let first = rig.engine.start(&name, Arc::default(), Some("k")).await.unwrap();
    rig.clock.sleep(Duration::from_millis(60)).await;
    assert_eq!(rig.engine.start(&name, Arc::default(), Some("k")).await.unwrap(), first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_run_is_listed_once_though_runs_end_between_two_pages() {
    let rig = Rig::over(memory(), sleepy()).await;
    let name = rig.define("list", "do:\n  - w: { wait: { minutes: 10 } }\n").await;
    let mut started = Vec::new();
    for _ in 0..12 {
        started.push(rig.start(&name, Value::Null).await);
    }
    let (mut listed, mut after): (Vec<RunId>, _) = (Vec::new(), None);
    loop {
        let page = rig.engine.list(after, 5).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        listed.extend(page.iter().map(|summary| summary.id));
        rig.engine.cancel(last.id, "between two pages").await.unwrap();
    }
    started.sort_unstable_by(|one, other| other.cmp(one));
    assert_eq!(listed, started);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_goes_away_while_a_run_is_woken_leaves_it_driven() {
    // What this store reads takes a while, so that the caller goes away in the midst of it.
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::over(super::rig::embedded(folder.path()).await, sleepy()).await;
    let name = rig.define("left", "do:\n  - w: { wait: { milliseconds: 300 } }\n").await;
    let mut ids = Vec::new();
    for _ in 0..50 {
        ids.push(rig.start(&name, Value::Null).await);
    }
    for id in &ids {
        // Polled once and dropped, wherever it stands.
        let mut asking = Box::pin(rig.engine.hold(*id));
        tokio::select! { biased; _ = &mut asking => {} () = std::future::ready(()) => {} }
        drop(asking);
        let resumed = rig.clock.timeout(PATIENCE, rig.engine.resume(*id)).await.unwrap();
        // On a busy machine its time may be over before it is its turn here.
        assert!(matches!(resumed, Ok(_) | Err(Refused::Ended(_))), "{resumed:?}");
    }
    for id in ids {
        assert_eq!(rig.end(id).await.status, Status::Completed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_engine_finds_out_that_another_has_taken_over() {
    let memory = memory();
    let first = Rig::over(Arc::clone(&memory), EngineConfig::default()).await;
    let name = first.define("wait", "do:\n  - w: { wait: { minutes: 10 } }\n").await;
    let id = first.start(&name, Value::Null).await;
    let _second = Rig::over(memory, EngineConfig::default()).await;
    let why = first.clock.timeout(PATIENCE, first.engine.wait(id)).await.expect("it is told in time");
    assert!(matches!(&why, Err(Refused::Stopped(why)) if why.contains("taken over")), "{why:?}");
    assert!(matches!(
        first.engine.publish(Arc::new(json!({"id": "1", "source": "/", "type": "t"}))).await,
        Err(Refused::Stopped(_))
    ));
}

#[tokio::test]
async fn a_workflow_that_runs_itself_ends_by_a_named_error() {
    let rig = Rig::new().await;
    let own = "do:\n  - s: { run: { workflow: { namespace: tests, name: own, version: '1.0.0' } } }\n";
    let own = rig.define("own", own).await;
    let summary = rig.end(rig.start(&own, json!({})).await).await;
    assert_eq!(summary.status, Status::Faulted);
    let problem = summary.problem.unwrap();
    let detail = problem.detail.unwrap_or_default();
    assert!(detail.contains("64 runs around it"), "{detail}");
    // Nobody else is harmed.
    let other = rig.run("do: [ a: { set: { b: 1 } } ]\n", json!({})).await;
    assert_eq!(other.status, Status::Completed);
}

#[tokio::test]
async fn a_workflow_that_runs_itself_twice_fills_neither_memory_nor_store() {
    let rig = Rig::new().await;
    let task = "run: { await: false, workflow: { namespace: tests, name: twins, version: '1.0.0' } }";
    let twins = format!("do:\n  - a: {{ {task} }}\n  - b: {{ {task} }}\n  - c: {{ wait: PT10M }}\n");
    let twins = rig.define("twins", &twins).await;
    rig.start(&twins, json!({})).await;
    let faulted = rig.clock.timeout(PATIENCE, async {
        loop {
            let (awake, asleep) = rig.engine.counts();
            assert!(awake + asleep <= 10_010, "{awake} and {asleep} runs go on");
            let runs = rig.engine.list(None, 200).await.unwrap();
            if let Some(run) = runs.into_iter().find(|run| run.status == Status::Faulted) {
                break run;
            }
            rig.clock.sleep(Duration::from_millis(50)).await;
        }
    });
    let problem = faulted.await.expect("one is refused in time").problem.unwrap();
    let detail = problem.detail.unwrap_or_default();
    assert!(detail.contains("runs around it") || detail.contains("10000 runs go on"), "{detail}");
}
