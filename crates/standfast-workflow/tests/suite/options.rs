//! What `metadata.standfast` asks for, over crashes.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use serde_json::Value;
use standfast_runtime::Clock;
use standfast_store::{MemoryStore, Store};
use standfast_workflow::{EngineConfig, Refused, Status, Summary};

use super::crash::{Mortal, effects};
use super::rig::{PATIENCE, Rig, Service};

/// Fails, in a list of tasks that begins here.
const RAISE: &str = "- r: { raise: { error: { type: 'https://x.example/e', status: 418 } } }";
/// One attempt more, at once.
const RETRY: &str = "retry: { delay: { milliseconds: 1 }, limit: { attempt: { count: 1 } } }";

/// What is tried by crashes, by name.
pub(super) fn documents() -> Vec<(&'static str, String)> {
    let (a, b, c) = (undoable("a"), undoable("b"), undoable("c"));
    let deep = |levels: usize, text: &str| -> String {
        text.lines().map(|line| format!("{}{line}\n", "  ".repeat(levels))).collect()
    };
    let fails = "b: { if: $i == 2, raise: { error: { type: 'https://x.example/e', status: 418 } } }";
    vec![
        ("key", "do:\n  - f:\n      for: { each: i, in: '[1, 2]' }\n      do:\n        - a:\n            call: http\n            with: { method: post, endpoint: SERVICE/effect }\n            metadata: { standfast: { key: '${ \"k-\\($i)\" }' } }\n            output: { as: .body }\n".to_owned()),
        ("a slot within a slot", format!("  metadata: {{ standfast: {{ concurrency: {{ limit: 1 }}, rate: {{ limit: 9, every: PT1S }} }} }}\ndo:\n{a}  - s: {{ if: $workflow.input.go, run: {{ workflow: {{ namespace: tests, name: crash, version: '1.0.0', input: {{ go: false }} }} }}, output: {{ as: '{{}}' }} }}\n  - e: {{ set: {{ done: true }} }}\n")),
        ("deadline", format!("  metadata: {{ standfast: {{ deadline: PT1H }} }}\ndo:\n{a}{b}  - end: {{ set: {{ done: true }} }}\n")),
        ("parallel for", format!("do:\n{}", parallel(2, "stop", "b: { set: '${ $i }' }"))),
        ("parallel for that collects", format!("do:\n{}", parallel(2, "collect", fails))),
        ("parallel for that stops", format!("do:\n{a}{}", parallel(1, "stop", fails))),
        ("undo", format!("do:\n{a}  - f:\n      fork:\n        branches:\n{}{}  {RAISE}\n", deep(4, &b), deep(4, &c))),
        ("undo that fails", format!("do:\n{a}{}{c}  {RAISE}\n", b.replace("undo-b", "status/409"))),
        ("undo that is caught", format!("do:\n{a}  - t:\n      try:\n{}          {RAISE}\n      catch:\n        {RETRY}\n        do:\n          - c: {{ call: http, with: {{ method: post, endpoint: SERVICE/instead }}, output: {{ as: .path }} }}\n", deep(4, &b))),
        ("undo that is tried again", format!("do:\n  - o:\n      try:\n        - t:\n            try:\n{}              {RAISE}\n            catch: {{}}\n        {RAISE}\n      catch:\n        {RETRY}\n        do:\n          - c: {{ set: {{ gave: up }} }}\n", deep(6, &b))),
    ]
}

/// A call, and a call that undoes it.
fn undoable(name: &str) -> String {
    let undo = format!(
        "call: http, with: {{ method: post, endpoint: SERVICE/undo-{name}, body: '${{ .output.path }}' }}"
    );
    format!(
        "  - {name}:\n      call: http\n      with: {{ method: post, endpoint: SERVICE/{name} }}\n      metadata: {{ standfast: {{ compensate: [{{ u: {{ {undo} }} }}] }} }}\n"
    )
}

/// A loop of three rounds with a call in each and something after it.
fn parallel(concurrency: u32, failures: &str, after: &str) -> String {
    let call = "call: http, with: { method: post, endpoint: SERVICE/effect, body: { i: '${ $i }' } }";
    format!(
        "  - f:\n      for: {{ each: i, in: '[1, 2, 3]' }}\n      metadata: {{ standfast: {{ concurrency: {concurrency}, failures: {failures} }} }}\n      do:\n        - a: {{ {call} }}\n        - {after}\n"
    )
}

/// Cancels a run that waits, over a store that stops after so many commits; `None` when it stopped.
async fn cancelled(memory: Arc<dyn Store>, commits: i64, service: Service) -> (Option<Summary>, Service) {
    let document = format!("do:\n{}{}  - w: {{ wait: PT1H }}\n", undoable("a"), undoable("b"));
    let mortal = Arc::new(Mortal { inner: memory, left: AtomicI64::new(commits), is_done: true });
    let Ok(rig) = Rig::try_beside(mortal, EngineConfig::default(), service.clone()).await else {
        return (None, service);
    };
    let ending = async {
        let name = rig.try_define("cancelled", &document).await?;
        let id = rig.engine.start(&name, Arc::default(), Some("the-key")).await?;
        loop {
            match rig.engine.show(id).await?.run.map(|run| run.status) {
                None => break,
                // Asked twice, by who was told nothing the first time, it is undone once.
                Some(Status::Waiting) => {
                    rig.engine.cancel(id, "no need").await?;
                    match rig.engine.cancel(id, "no need").await {
                        Ok(_) | Err(Refused::Ended(_)) => break,
                        Err(why) => return Err(why),
                    }
                }
                Some(_) => tokio::task::yield_now().await,
            }
        }
        rig.engine.wait(id).await
    };
    match rig.clock.timeout(PATIENCE, ending).await.expect("it ends or stops") {
        Ok(summary) => (Some(summary), rig.crash().await),
        Err(Refused::Stopped(_)) => (None, rig.crash().await),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_run_is_undone_once_over_crashes() {
    for commits in 0.. {
        let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
        let (ended, service) = cancelled(Arc::clone(&memory), commits, Service::start().await).await;
        let crashed = ended.is_none();
        let (summary, service) = match ended {
            Some(summary) => (summary, service),
            None => {
                let (summary, service) = cancelled(memory, i64::MAX, service).await;
                (summary.expect("nothing stops it"), service)
            }
        };
        assert_eq!(summary.status, Status::Cancelled, "a crash at commit {commits}");
        assert_eq!(effects(&service), 4, "a crash at commit {commits}");
        if !crashed {
            assert!(commits > 6, "only {commits} crashes were tried");
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_is_kept_over_a_crash_and_is_never_early() {
    const DEADLINE: Duration = Duration::from_millis(400);
    let document =
        "  metadata: { standfast: { deadline: { milliseconds: 400 } } }\ndo:\n  - w: { wait: PT1H }\n";
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
    let first = Rig::over(Arc::clone(&memory), EngineConfig::default()).await;
    let name = first.define("late", document).await;
    let id = first.start(&name, Value::Null).await;
    let service = first.crash().await;
    let second = Rig::beside(memory, EngineConfig::default(), service).await;
    let summary = second.end(id).await;
    assert_eq!(summary.problem.as_ref().map(|problem| problem.status), Some(408));
    let took = summary.changed_at.since(summary.started_at);
    assert!(took >= DEADLINE, "it ended after {took:?}");
}

#[tokio::test]
async fn a_held_run_that_is_cancelled_is_undone() {
    let rig = Rig::new().await;
    let document = format!("do:\n{}  - w: {{ wait: PT1H }}\n", undoable("a"));
    let name = rig.define("held", &document).await;
    let id = rig.start(&name, Value::Null).await;
    while effects(&rig.service) == 0 {
        tokio::task::yield_now().await;
    }
    rig.engine.hold(id).await.unwrap();
    let undone = loop {
        // The answer to the call may still be on its way when the run is held: a task that is not done is not undone.
        let shown = rig.engine.show(id).await.unwrap();
        if let Some(run) = shown.run.filter(|run| !run.undo.is_empty()) {
            break run.undo.len();
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(undone, 1);
    rig.engine.cancel(id, "no need").await.unwrap();
    assert_eq!(rig.end(id).await.status, Status::Cancelled);
    assert_eq!(rig.service.seen(|seen| seen.requests["/undo-a"]), 1);
}

#[tokio::test]
async fn a_run_that_holds_too_much_is_undone_all_the_same() {
    let config = EngineConfig { sleep_after: Duration::ZERO, ..EngineConfig::default() };
    let rig = Rig::over(Arc::new(MemoryStore::new(Clock::system())), config).await;
    let large = |n: u32| {
        format!(
            "          - b{n}: {{ do: [{{ s: {{ set: '${{ \"x\" * 250000 }}' }} }}, {{ w: {{ wait: PT1M }} }}] }}\n"
        )
    };
    let branches: String = (0..14).map(large).collect();
    let document = format!("do:\n{}  - f:\n      fork:\n        branches:\n{branches}", undoable("a"));
    let summary = rig.run(&document, Value::Null).await;
    let detail = summary.problem.and_then(|problem| problem.detail).unwrap_or_default();
    assert!(summary.status == Status::Faulted && detail.starts_with("the run holds"), "{detail}");
    assert_eq!(rig.service.seen(|seen| seen.requests["/undo-a"]), 1);
}

/// What is kept for undoing takes six times as many bytes when it is written: there is no room for it when the run is too large.
#[tokio::test]
async fn what_cannot_even_be_kept_for_undoing_is_named() {
    let config = EngineConfig { sleep_after: Duration::ZERO, ..EngineConfig::default() };
    let rig = Rig::over(Arc::new(MemoryStore::new(Clock::system())), config).await;
    let keep = |n: u32| {
        let undo = "metadata: { standfast: { compensate: [{ u: { set: { undone: true } } }] } }";
        format!(
            "  - k{n}:\n      input: {{ from: '{{}}' }}\n      set: '${{ \"\\u0001\" * 200000 }}'\n      {undo}\n"
        )
    };
    let document = format!("do:\n{}{}{}  - w: {{ wait: PT1M }}\n", keep(1), keep(2), keep(3));
    let summary = rig.run(&document, Value::Null).await;
    let detail = summary.problem.and_then(|problem| problem.detail).unwrap_or_default();
    assert_eq!(summary.status, Status::Faulted);
    assert!(detail.contains("not undone: /do/2/k3 (") && detail.contains("/do/0/k1 ("), "{detail}");
}

/// Documents of the crash tests that did nothing would pass them.
#[tokio::test]
async fn each_effect_happens_as_often_as_it_must() {
    let expected = [
        ("key", Status::Completed, 2),
        // The other is run by the crash test alone, which gives it an input.
        ("a slot within a slot", Status::Completed, 1),
        ("deadline", Status::Completed, 2),
        ("parallel for", Status::Completed, 3),
        ("parallel for that collects", Status::Completed, 3),
        ("parallel for that stops", Status::Faulted, 4),
        ("undo", Status::Faulted, 6),
        ("undo that fails", Status::Faulted, 5),
        ("undo that is caught", Status::Completed, 4),
        ("undo that is tried again", Status::Completed, 4),
    ];
    assert_eq!(expected.len(), documents().len());
    for ((name, document), (expected, status, count)) in documents().into_iter().zip(expected) {
        let rig = Rig::new().await;
        let summary = rig.run(&document, Value::Null).await;
        assert_eq!((name, summary.status, effects(&rig.service)), (expected, status, count));
    }
}
