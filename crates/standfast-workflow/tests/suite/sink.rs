//! Lifecycle events that are sent out: all of them, in the order of each run, over crashes, whether the sink is there or not.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use serde_json::{Map, Value, json};
use standfast_runtime::Clock;
use standfast_store::{MemoryStore, Store};
use standfast_workflow::{EngineConfig, Refused, RunId, Secrets, Sink, SinkStatus, Status, lifecycle};

use super::crash::Mortal;
use super::rig::{PATIENCE, Rig, Service};

const DOCUMENT: &str = "do:
  - a: { call: http, with: { method: post, endpoint: SERVICE/a } }
  - t:
      try:
        - f: { fork: { branches: [ { b: { call: http, with: { method: post, endpoint: SERVICE/b } } }, { c: { set: { n: 1 } } } ] } }
        - r: { raise: { error: { type: 'https://x.example/e', status: 418 } } }
      catch: { do: [ { d: { set: { n: 2 } } } ] }
";

fn sink(service: &Service) -> Sink {
    Sink { uri: format!("http://{}/sink", service.address), types: BTreeSet::new(), batch: 100, bearer: None }
}

/// What a run tells, as its records have it.
async fn derived(rig: &Rig, id: RunId) -> Vec<Value> {
    let shown = rig.engine.show(id).await.unwrap();
    let mut run = standfast_workflow::Run::new(id);
    let mut told = Vec::new();
    for record in &shown.records {
        told.extend(lifecycle(&run, &shown.summary.workflow, record));
        run.apply(record);
    }
    told
}

/// What the sink was told of a run, of what came twice the first.
fn heard(service: &Service, id: RunId) -> Vec<Value> {
    let mut ids = BTreeSet::new();
    let subject = id.to_string();
    let told = service.seen(|seen| seen.told.clone());
    told.into_iter()
        .filter(|event| event["subject"] == subject.as_str() && ids.insert(event["id"].to_string()))
        .collect()
}

/// Runs that are held, let go on, cancelled and retried, and one that fails.
async fn of_all_kinds(rig: &Rig) -> [RunId; 3] {
    let listens = "do:\n  - l: { listen: { to: { one: { with: { type: io.standfast.signal.go } } } } }\n";
    let listens = rig.define("listens", listens).await;
    let (one, other) = (rig.start(&listens, Value::Null).await, rig.start(&listens, Value::Null).await);
    rig.engine.hold(one).await.unwrap();
    rig.engine.resume(one).await.unwrap();
    rig.engine.signal(one, "go", Value::Null, None).await.unwrap();
    rig.engine.cancel(other, "no need").await.unwrap();
    let fails = "do:\n  - t:\n      try: [ { r: { raise: { error: { type: 'https://x.example/e', status: 418 } } } } ]\n      catch: { retry: { delay: { milliseconds: 1 }, limit: { attempt: { count: 1 } } } }\n";
    let fails = rig.define("fails", fails).await;
    let third = rig.start(&fails, Value::Null).await;
    for id in [one, other, third] {
        rig.end(id).await;
    }
    [one, other, third]
}

/// Waits until the sink is so far behind.
async fn until(rig: &Rig, is_so: impl Fn(&SinkStatus) -> bool) -> SinkStatus {
    let waiting = async {
        loop {
            let status = rig.engine.sink_status();
            if is_so(&status) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    };
    rig.clock.timeout(PATIENCE, waiting).await.expect("it comes to that")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_becomes_of_runs_is_told_in_their_order() {
    let rig = Rig::new().await;
    rig.engine.set_sink(Some(sink(&rig.service))).await.unwrap();
    let name = rig.define("told", DOCUMENT).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        ids.push(rig.start(&name, Value::Null).await);
    }
    for id in &ids {
        assert_eq!(rig.end(*id).await.status, Status::Completed);
    }
    ids.extend(of_all_kinds(&rig).await);
    let status = until(&rig, |status| status.waiting == 0).await;
    assert_eq!((status.lost, status.error, status.since), (0, None, None));
    for id in ids {
        let expected = derived(&rig, id).await;
        assert_eq!(heard(&rig.service, id), expected);
    }
    let kinds: BTreeSet<String> =
        rig.service.seen(|seen| seen.told.iter().map(|event| event["type"].to_string()).collect());
    assert_eq!(kinds.len(), 18, "{kinds:?}");
    assert_eq!(
        rig.service.seen(|seen| seen.told_as.clone()),
        ["application/cloudevents-batch+json".to_owned()].into()
    );
    assert!(rig.service.seen(|seen| seen.requests["/sink"] < seen.told.len() / 4), "many at a time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_that_is_down_holds_up_no_run_and_is_told_later_even_by_another_process() {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
    let rig = Rig::over(Arc::clone(&memory), EngineConfig::default()).await;
    rig.service.is_deaf(true);
    rig.engine.set_sink(Some(sink(&rig.service))).await.unwrap();
    let name = rig.define("told", DOCUMENT).await;
    let id = rig.start(&name, Value::Null).await;
    assert_eq!(rig.end(id).await.status, Status::Completed);
    let expected = derived(&rig, id).await;
    let status = until(&rig, |status| status.error.is_some()).await;
    assert_eq!((status.waiting, status.sent), (expected.len() as u64, 0));
    assert!(status.since.is_some() && status.error.unwrap().contains("503"));
    let service = rig.crash().await;

    let rig = Rig::beside(Arc::clone(&memory), EngineConfig::default(), service).await;
    assert_eq!(rig.engine.sink_status().waiting, expected.len() as u64, "it is known from the beginning");
    rig.service.takes_max(7);
    rig.service.is_deaf(false);
    until(&rig, |status| status.waiting == 0).await;
    assert_eq!(heard(&rig.service, id), expected);

    // To nobody: what waits is forgotten, and what comes is not kept.
    rig.service.is_deaf(true);
    let name = rig.define("told", DOCUMENT).await;
    let second = rig.start(&name, Value::Null).await;
    rig.end(second).await;
    until(&rig, |status| status.waiting > 0).await;
    rig.engine.set_sink(None).await.unwrap();
    until(&rig, |status| status.waiting == 0).await;
    let third = rig.start(&name, Value::Null).await;
    rig.end(third).await;
    assert_eq!(
        rig.engine.sink_status(),
        SinkStatus {
            sent: expected.len() as u64,
            error: rig.engine.sink_status().error,
            ..SinkStatus::default()
        }
    );
    let bad = Sink { uri: "ftp://x".into(), ..sink(&rig.service) };
    assert!(matches!(rig.engine.set_sink(Some(bad)).await, Err(Refused::Wrong(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sink_is_told_what_it_wants_one_by_one_by_who_may() {
    let rig = Rig::new().await;
    let secrets: Map<String, Value> = [("token".to_owned(), json!("abcdefgh"))].into_iter().collect();
    rig.engine.set_secrets(Secrets::from(secrets));
    let types = ["workflow.completed", "task.status-changed"].map(str::to_owned).into();
    let wanted = Sink { types, batch: 1, bearer: Some("token".into()), ..sink(&rig.service) };
    rig.engine.set_sink(Some(wanted)).await.unwrap();
    let ended = rig.run("do:\n  - a: { set: { n: 1 } }\n", Value::Null).await;
    until(&rig, |status| status.waiting == 0).await;
    let told = heard(&rig.service, ended.id);
    let statuses: Vec<&str> = told.iter().filter_map(|event| event["data"]["status"].as_str()).collect();
    assert_eq!(statuses, ["pending", "running", "completed"]);
    assert_eq!(
        (told.len(), told[3]["type"].as_str()),
        (4, Some("io.serverlessworkflow.workflow.completed.v1"))
    );
    assert_eq!(rig.service.seen(|seen| seen.requests["/sink"]), 4);
    let told_as = ["Bearer abcdefgh", "application/cloudevents+json"].map(str::to_owned).into();
    assert_eq!(rig.service.seen(|seen| seen.told_as.clone()), told_as);
}

/// Starts a run, or finds it, and waits until all of it is told; `None` when the store stopped before.
async fn told(store: Arc<dyn Store>, service: Service) -> (Option<(RunId, Vec<Value>)>, Service) {
    let opened = Rig::try_beside(store, EngineConfig::default(), service.clone()).await;
    let Ok(rig) = opened else { return (None, service) };
    let ending = async {
        rig.engine.set_sink(Some(sink(&rig.service))).await?;
        let name = rig.try_define("told", DOCUMENT).await?;
        let id = rig.engine.start(&name, Arc::default(), Some("the-key")).await?;
        let summary = rig.engine.wait(id).await?;
        while rig.engine.sink_status().waiting > 0 {
            rig.engine.wait(id).await?;
            if let Err(why @ Refused::Stopped(_)) = rig.engine.retry(id).await {
                return Err(why);
            }
            tokio::task::yield_now().await;
        }
        Ok::<_, Refused>((summary.id, derived(&rig, id).await))
    };
    match rig.clock.timeout(PATIENCE, ending).await.expect("it ends or stops") {
        Ok(told) => (Some(told), rig.crash().await),
        Err(Refused::Stopped(_)) => (None, rig.crash().await),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_commit_loses_no_event_and_changes_no_order() {
    let mut crashes = 0;
    for is_done in [false, true] {
        for commits in 0.. {
            let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
            let mortal = Mortal { inner: Arc::clone(&memory), left: AtomicI64::new(commits), is_done };
            let (whole, service) = told(Arc::new(mortal), Service::start().await).await;
            crashes += usize::from(whole.is_none());
            // Whoever was told nothing asks once more.
            let (found, service) = told(memory, service).await;
            let (id, expected) = found.expect("nothing stops it");
            let case = format!("a crash at commit {commits}, done: {is_done}");
            assert_eq!(heard(&service, id), expected, "{case}");
            if whole.is_some() {
                break;
            }
        }
    }
    assert!(crashes > 15, "only {crashes} crashes were tried");
}
