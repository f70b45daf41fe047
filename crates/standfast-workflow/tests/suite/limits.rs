//! Limits of runs: how many go on at a time, how often they begin, how long they wait for that, and between whom they take turns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicI64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use standfast_model::Stamp;
use standfast_runtime::{Clock, Tasks};
use standfast_store::{MemoryStore, Store};
use standfast_workflow::{
    Answer, Asked, Engine, EngineConfig, Event, Invoke, Problem, Refused, RunId, Status, Summary,
};

use super::crash::Mortal;
use super::rig::{PATIENCE, Rig, Service, definition, evaluator};

/// Ends when it is told to.
const WAITS: &str = "do:\n  - w: { listen: { to: { one: { with: { type: io.standfast.signal.go } } } } }\n";

fn limited(options: &str, tasks: &str) -> String {
    format!("  metadata: {{ standfast: {{ {options} }} }}\n{tasks}")
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(Clock::system()))
}

async fn go(rig: &Rig, id: RunId) {
    rig.engine.signal(id, "go", Value::Null, None).await.unwrap();
}

async fn status(rig: &Rig, id: RunId) -> Status {
    rig.engine.show(id).await.unwrap().summary.status
}

/// Waits until a run stands so.
async fn stands(rig: &Rig, id: RunId, expected: Status) {
    let stands = async {
        while status(rig, id).await != expected {
            tokio::task::yield_now().await;
        }
    };
    rig.clock.timeout(PATIENCE, stands).await.expect("it stands so in time");
}

/// When runs were let in and when they ended, by the records of all of them.
pub(crate) async fn spans(engine: &Engine, ids: &[RunId]) -> Vec<(Stamp, Option<Stamp>)> {
    let mut spans = Vec::new();
    for id in ids {
        let shown = engine.show(*id).await.unwrap();
        let at = |is_it: fn(&Event) -> bool| {
            shown.records.iter().find(|record| record.events.iter().any(is_it)).map(|record| record.at)
        };
        let ended = at(|event| matches!(event, Event::Ended { .. }));
        // One that goes on in the slot of another takes none.
        spans.extend(
            at(|event| matches!(event, Event::Admitted { within: None })).map(|begun| (begun, ended)),
        );
    }
    spans
}

/// How many went on at the same time, at most.
pub(crate) fn most_at_once(spans: &[(Stamp, Option<Stamp>)]) -> usize {
    let mut changes: Vec<(Stamp, bool)> = Vec::new();
    for (begun, ended) in spans {
        changes.push((*begun, true));
        changes.extend(ended.map(|ended| (ended, false)));
    }
    changes.sort_unstable();
    let (mut now, mut most) = (0_usize, 0);
    for (_, begins) in changes {
        now = if begins { now + 1 } else { now - 1 };
        most = most.max(now);
    }
    most
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_with_one_key_wait_for_slots_and_others_do_not() {
    let rig = Rig::new().await;
    let options = "concurrency: { limit: 2, key: '${ .customer }' }";
    let name = rig.define("slots", &limited(options, WAITS)).await;
    let mut acme = Vec::new();
    for _ in 0..5 {
        acme.push(rig.start(&name, json!({"customer": "acme"})).await);
    }
    let other = rig.start(&name, json!({"customer": "other"})).await;
    for id in [acme[0], acme[1], other] {
        stands(&rig, id, Status::Waiting).await;
        assert_eq!(rig.engine.waits_in_line(id), None);
    }
    let waits = |id| rig.engine.waits_in_line(id);
    for (before, id) in acme[2..].iter().enumerate() {
        stands(&rig, *id, Status::Pending).await;
        assert_eq!(waits(*id), Some(format!("for one of 2 slots of key `acme`; {before} before it")));
    }
    // A place in the line is given up by whoever leaves it.
    rig.engine.cancel(acme[2], "no need").await.unwrap();
    rig.end(acme[2]).await;
    assert_eq!(waits(acme[3]).as_deref(), Some("for one of 2 slots of key `acme`; 0 before it"));
    go(&rig, acme[0]).await;
    assert_eq!(rig.end(acme[0]).await.status, Status::Completed);
    stands(&rig, acme[3], Status::Waiting).await;
    // What was told to one that waits is not lost.
    go(&rig, acme[4]).await;
    assert_eq!(status(&rig, acme[4]).await, Status::Pending);
    go(&rig, acme[1]).await;
    assert_eq!(rig.end(acme[4]).await.status, Status::Completed);
    assert_eq!(most_at_once(&spans(&rig.engine, &acme).await), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_is_kept_by_who_sleeps_and_over_a_crash_and_the_line_stays_in_order() {
    let memory = memory();
    let config = EngineConfig { sleep_after: Duration::ZERO, ..EngineConfig::default() };
    let rig = Rig::over(Arc::clone(&memory), config.clone()).await;
    let name = rig.define("bulkhead", &limited("concurrency: { limit: 1 }", WAITS)).await;
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(rig.start(&name, Value::Null).await);
    }
    stands(&rig, ids[0], Status::Waiting).await;
    let service = rig.crash().await;
    let rig = Rig::beside(memory, config, service).await;
    for (at, id) in ids.iter().enumerate().skip(1) {
        let expected = format!("for the only slot of the workflow; {} before it", at - 1);
        assert_eq!(rig.engine.waits_in_line(*id), Some(expected));
    }
    for id in &ids {
        stands(&rig, *id, Status::Waiting).await;
        go(&rig, *id).await;
        assert_eq!(rig.end(*id).await.status, Status::Completed);
    }
    assert_eq!(most_at_once(&spans(&rig.engine, &ids).await), 1);
    assert_eq!(rig.engine.counts(), (0, 0));
}

/// Starts runs by keys and lets them end, over a store that stops after so many commits; `None` when it stopped.
async fn all_end(
    document: &str,
    memory: Arc<dyn Store>,
    commits: i64,
    is_done: bool,
    service: Service,
) -> (Option<Vec<Summary>>, Service, Option<Rig>) {
    let mortal = Arc::new(Mortal { inner: memory, left: AtomicI64::new(commits), is_done });
    let config = EngineConfig { sleep_after: Duration::ZERO, ..EngineConfig::default() };
    let Ok(rig) = Rig::try_beside(mortal, config, service.clone()).await else {
        return (None, service, None);
    };
    let ending = async {
        let name = rig.try_define("limited", document).await?;
        let mut ids = Vec::new();
        for number in 0..RUNS {
            let input = Arc::new(json!({"customer": number % 2}));
            ids.push(rig.engine.start(&name, input, Some(&format!("k{number}"))).await?);
        }
        let mut ended = Vec::new();
        for id in ids {
            ended.push(rig.engine.wait(id).await?);
        }
        Ok::<_, Refused>(ended)
    };
    match rig.clock.timeout(PATIENCE, ending).await.expect("all end, or the store stops") {
        Ok(ended) => (Some(ended), service, Some(rig)),
        Err(Refused::Stopped(_)) => (None, rig.crash().await, None),
        Err(other) => panic!("{other}"),
    }
}

const RUNS: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_commit_lets_no_more_in_than_the_limit_and_forgets_nobody() {
    let tasks = "do:\n  - a: { call: http, with: { method: post, endpoint: SERVICE/a } }\n  - b: { call: http, with: { method: post, endpoint: SERVICE/b } }\n";
    for (options, most) in [
        ("concurrency: { limit: 1, key: '${ .customer }' }", 1),
        ("concurrency: { limit: 2 }, fairness: { key: '${ .customer }' }", 2),
    ] {
        let document = limited(options, tasks);
        let mut crashes = 0;
        for is_done in [false, true] {
            for commits in 0.. {
                let memory = memory();
                let first =
                    all_end(&document, Arc::clone(&memory), commits, is_done, Service::start().await).await;
                let (crashed, (ended, service, rig)) = match first {
                    (None, service, _) => (true, all_end(&document, memory, i64::MAX, false, service).await),
                    whole => (false, whole),
                };
                let case = format!("{options}, a crash at commit {commits}, done: {is_done}");
                let (ended, rig) = (ended.expect("nothing stops it"), rig.unwrap());
                assert!(ended.iter().all(|summary| summary.status == Status::Completed), "{case}");
                let mut by_key: BTreeMap<String, Vec<RunId>> = BTreeMap::new();
                for summary in &ended {
                    let key = if most == 1 { summary.input["customer"].clone() } else { Value::Null };
                    by_key.entry(key.to_string()).or_default().push(summary.id);
                }
                for ids in by_key.values() {
                    let spans = spans(&rig.engine, ids).await;
                    assert_eq!(spans.len(), ids.len(), "{case}: each was let in once");
                    assert!(most_at_once(&spans) <= most, "{case}: {spans:?}");
                }
                assert_eq!(service.seen(|seen| seen.effects.len()), 2 * RUNS, "{case}");
                rig.crash().await;
                if !crashed {
                    break;
                }
                crashes += 1;
            }
        }
        assert!(crashes > 40, "only {crashes} crashes were tried");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_waited_for_goes_on_in_the_slot_of_who_waits() {
    let rig = Rig::new().await;
    let child = "run: { workflow: { namespace: tests, name: deep, version: '1.0.0', input: { left: '${ $workflow.input.left - 1 }', customer: a } } }";
    let document = limited(
        "concurrency: { limit: 1, key: '${ .customer }' }",
        &format!(
            "do:\n  - s: {{ if: $workflow.input.left > 0, {child} }}\n  - a: {{ call: http, with: {{ method: post, endpoint: SERVICE/a }} }}\n"
        ),
    );
    let name = rig.define("deep", &document).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(rig.start(&name, json!({"left": 3, "customer": "a"})).await);
    }
    for id in &ids {
        let ended = rig.end(*id).await;
        assert_eq!((ended.problem, ended.status), (None, Status::Completed));
    }
    assert_eq!(rig.service.seen(|seen| seen.effects.len()), 12);
    assert_eq!(most_at_once(&spans(&rig.engine, &ids).await), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_too_long_fails_by_name_and_may_be_retried() {
    const TIMEOUT: Duration = Duration::from_millis(200);
    let options = "concurrency: { limit: 1, key: '${ .customer }' }, queueTimeout: { milliseconds: 200 }";
    let memory = memory();
    let rig = Rig::over(Arc::clone(&memory), EngineConfig::default()).await;
    let name = rig.define("timeout", &limited(options, WAITS)).await;
    let first = rig.start(&name, json!({"customer": "acme"})).await;
    stands(&rig, first, Status::Waiting).await;
    let waits = rig.start(&name, json!({"customer": "acme"})).await;
    let over_a_crash = rig.start(&name, json!({"customer": "acme"})).await;
    let ended = rig.end(waits).await;
    let service = rig.crash().await;
    let rig = Rig::beside(memory, EngineConfig::default(), service).await;
    for ended in [ended, rig.end(over_a_crash).await] {
        let took = ended.changed_at.since(ended.started_at);
        assert!(took >= TIMEOUT, "it was given up after {took:?}");
        let problem = ended.problem.unwrap();
        assert_eq!((problem.kind.as_str(), problem.status), ("urn:standfast:error:queue-timeout", 408));
        assert_eq!(problem.instance.as_deref(), Some("/document/metadata/standfast/queueTimeout"));
        let detail = problem.detail.unwrap();
        assert!(detail.contains("for the only slot of key `acme`, longer than its queueTimeout"), "{detail}");
    }
    // It held up nobody, and who was let in is not given up.
    assert_eq!(status(&rig, first).await, Status::Waiting);
    go(&rig, first).await;
    rig.end(first).await;
    let again = rig.engine.retry(waits).await.unwrap();
    go(&rig, again).await;
    assert_eq!(rig.end(again).await.status, Status::Completed);
}

/// How many of these ended before one.
async fn ended_before(rig: &Rig, ids: &[RunId], one: RunId) -> usize {
    let at = rig.end(one).await.changed_at;
    let mut before = 0;
    for id in ids {
        before += usize::from(rig.end(*id).await.changed_at < at);
    }
    before
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_run_of_one_tenant_does_not_wait_behind_all_of_another() {
    const CROWD: usize = 200;
    let tasks = "do:\n  - a: { call: http, with: { method: post, endpoint: SERVICE/x } }\n";
    let fair = "fairness: { key: '${ .tenant }' }";
    for (case, options, most) in [
        ("room", fair.to_owned(), 2),
        ("slots", format!("{fair}, concurrency: {{ limit: 1 }}"), 2),
        ("none", "priority: normal".to_owned(), CROWD),
    ] {
        let config = EngineConfig { awake_max: 1, ..EngineConfig::default() };
        let memory = memory();
        let rig = Rig::over(Arc::clone(&memory), config.clone()).await;
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}/", silent.local_addr().unwrap());
        let asks = format!("do:\n  - a: {{ call: http, with: {{ method: get, endpoint: '{endpoint}' }} }}\n");
        let holds = rig.define("holds", &asks).await;
        let name = rig.define("fair", &limited(&options, tasks)).await;
        let first = rig.start(&holds, Value::Null).await;
        let mut crowd = Vec::new();
        for _ in 0..CROWD {
            crowd.push(rig.start(&name, json!({"tenant": "crowd"})).await);
        }
        let single = rig.start(&name, json!({"tenant": "single"})).await;
        // The same after a crash as before it.
        let service = rig.crash().await;
        let rig = Rig::beside(memory, config, service).await;
        rig.engine.cancel(first, "room is needed").await.unwrap();
        let before = ended_before(&rig, &crowd, single).await;
        if case == "none" {
            assert!(before > most / 2, "without fairness {before} were served before it");
        } else {
            assert!(before <= most, "{case}: {before} of the crowd were served before it");
        }
    }
}

/// Notes whose share of the room requests take.
#[derive(Debug, Default)]
struct Noting(Mutex<BTreeSet<String>>);

#[async_trait]
impl Invoke for Noting {
    async fn invoke(&self, asked: &Asked) -> Result<Answer, Problem> {
        self.0.lock().unwrap().insert(asked.share.to_string());
        Ok(Answer::Begun)
    }
}

#[tokio::test]
async fn calls_take_turns_by_the_same_key() {
    let (clock, tasks, noting) = (Clock::system(), Tasks::new(), Arc::new(Noting::default()));
    let invoke = Arc::clone(&noting) as Arc<dyn Invoke>;
    let config = EngineConfig::default();
    let engine = Engine::open(memory(), clock, tasks.clone(), evaluator(), invoke, config).await.unwrap();
    let asks = "do:\n  - s: { run: { shell: { command: 'true' }, await: false } }\n";
    for (name, options) in [("plain", "priority: normal"), ("fair", "fairness: { key: '${ .tenant }' }")] {
        let definition = definition(name, &limited(options, asks));
        let name = definition.program.name().clone();
        engine.define(definition).await.unwrap();
        for tenant in ["a", "b", "a"] {
            let id = engine.start(&name, Arc::new(json!({"tenant": tenant})), None).await.unwrap();
            clock.timeout(PATIENCE, engine.wait(id)).await.unwrap().unwrap();
        }
    }
    let shares: Vec<String> = noting.0.lock().unwrap().iter().cloned().collect();
    assert_eq!(shares, ["tests/fair\na", "tests/fair\nb", "tests/plain"]);
    tasks.shutdown(&clock, Duration::ZERO).await;
}

/// Whether there were never more than so many within any window.
fn keeps_rate(spans: &[(Stamp, Option<Stamp>)], limit: usize, every: Duration) -> bool {
    let mut begun: Vec<Stamp> = spans.iter().map(|(begun, _)| *begun).collect();
    begun.sort_unstable();
    begun.windows(limit + 1).all(|window| window[limit].since(window[0]) >= every)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_runs_begin_within_a_window_than_may_also_over_a_crash() {
    const EVERY: Duration = Duration::from_millis(300);
    let options = "rate: { limit: 3, every: { milliseconds: 300 }, key: '${ .customer }' }";
    let memory = memory();
    let rig = Rig::over(Arc::clone(&memory), EngineConfig::default()).await;
    let document = limited(options, "do:\n  - a: { set: { done: true } }\n");
    let name = rig.define("rate", &document).await;
    let mut ids = Vec::new();
    for _ in 0..10 {
        ids.push(rig.start(&name, json!({"customer": "acme"})).await);
    }
    let other = rig.start(&name, json!({"customer": "other"})).await;
    let ended = rig.end(other).await;
    assert!(ended.changed_at.since(ended.started_at) < EVERY, "another key does not wait");
    let waits = rig.engine.waits_in_line(ids[9]).unwrap();
    assert!(waits.starts_with("for its turn to begin (3 in 300ms of key `acme`); "), "{waits}");
    // Those that began have ended; the process that comes next must know all the same.
    rig.end(ids[2]).await;
    let service = rig.crash().await;
    let rig = Rig::beside(memory, EngineConfig::default(), service).await;
    for id in &ids {
        assert_eq!(rig.end(*id).await.status, Status::Completed);
    }
    let spans = spans(&rig.engine, &ids).await;
    assert!(spans.len() == 10 && keeps_rate(&spans, 3, EVERY), "{spans:?}");
    let took = rig.end(ids[9]).await.changed_at.since(spans[0].0);
    assert!(took >= EVERY * 3, "ten begin in four windows, not in {took:?}");
}

#[tokio::test]
async fn a_slot_of_who_leaves_while_it_waits_for_its_turn_is_for_the_next() {
    let rig = Rig::new().await;
    let options = "concurrency: { limit: 1 }, rate: { limit: 1, every: PT1H }";
    let name = rig.define("both", &limited(options, "do:\n  - a: { set: { done: true } }\n")).await;
    let first = rig.start(&name, Value::Null).await;
    rig.end(first).await;
    let (second, third) = (rig.start(&name, Value::Null).await, rig.start(&name, Value::Null).await);
    let turn = Some("for its turn to begin (1 in 1h of the workflow); 0 before it".to_owned());
    let slot = Some("for the only slot of the workflow; 0 before it".to_owned());
    assert_eq!((rig.engine.waits_in_line(second), rig.engine.waits_in_line(third)), (turn.clone(), slot));
    rig.engine.cancel(second, "no need").await.unwrap();
    rig.end(second).await;
    assert_eq!(rig.engine.waits_in_line(third), turn);
}

#[tokio::test]
async fn a_run_that_is_held_before_it_is_let_in_keeps_its_place_and_begins_when_it_is_let_go_on() {
    let config = EngineConfig { sleep_after: Duration::ZERO, ..EngineConfig::default() };
    let rig = Rig::over(memory(), config).await;
    let name = rig.define("held", &limited("concurrency: { limit: 1 }", WAITS)).await;
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(rig.start(&name, Value::Null).await);
    }
    stands(&rig, ids[0], Status::Waiting).await;
    assert_eq!(rig.engine.hold(ids[1]).await.unwrap().status, Status::Suspended);
    go(&rig, ids[0]).await;
    rig.end(ids[0]).await;
    let slot = Some("for the only slot of the workflow; 0 before it".to_owned());
    assert_eq!(rig.engine.waits_in_line(ids[2]), slot);
    assert_eq!(status(&rig, ids[1]).await, Status::Suspended);
    rig.engine.resume(ids[1]).await.unwrap();
    stands(&rig, ids[1], Status::Waiting).await;
    for id in &ids[1..] {
        stands(&rig, *id, Status::Waiting).await;
        go(&rig, *id).await;
        assert_eq!(rig.end(*id).await.status, Status::Completed);
    }
}

#[tokio::test]
async fn the_api_says_what_a_run_waits_for_before_it_begins() {
    let rig = Rig::new().await;
    let name = rig.define("told", &limited("concurrency: { limit: 1, key: '${ .customer }' }", WAITS)).await;
    let first = rig.start(&name, json!({"customer": "acme"})).await;
    stands(&rig, first, Status::Waiting).await;
    let second = rig.start(&name, json!({"customer": "acme"})).await;
    for path in [format!("/v1/runs/{second}"), "/v1/runs?status=pending".to_owned()] {
        let request = http::Request::get(&path).body(bytes::Bytes::new()).unwrap();
        let answer = standfast_workflow::api::answer(&rig.engine, request).await;
        let told: Value = serde_json::from_slice(answer.body()).unwrap();
        let run = told.pointer("/runs/0").unwrap_or(&told);
        assert_eq!((&run["status"], &run["id"]), (&json!("pending"), &json!(second)), "{told}");
        assert_eq!(run["waits"], "for the only slot of key `acme`; 0 before it", "{told}");
    }
}

#[tokio::test]
async fn a_key_that_is_none_fails_the_run_by_its_place() {
    let rig = Rig::new().await;
    let document = limited("concurrency: { limit: 1, key: '${ .customer }' }", WAITS);
    for customer in [json!(["no", "text"]), json!("x".repeat(300))] {
        let summary = rig.run(&document, json!({"customer": customer})).await;
        let problem = summary.problem.unwrap();
        assert_eq!(problem.instance.as_deref(), Some("/document/metadata/standfast/concurrency/key"));
        assert_eq!((summary.status, problem.status), (Status::Faulted, 400));
    }
}
