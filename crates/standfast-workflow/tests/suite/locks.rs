//! Locks: one run at a time has one, in the order in which they asked, over crashes, until it lets go of it or ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};
use standfast_runtime::Clock;
use standfast_store::{MemoryStore, Store};
use standfast_workflow::{Status, StuckKind, Summary};

use super::quiet::{BEGIN, Quiet};
use super::rig::definition;

const KV: &str = "call: 'standfast.kv:1.0.0@default', with";

fn lock(name: &str, rest: &str) -> String {
    format!("  - lock-{name}: {{ call: 'standfast.lock:1.0.0@default', with: {{ name: {name}{rest} }} }}\n")
}

fn unlock(name: &str) -> String {
    format!("  - unlock-{name}: {{ call: 'standfast.unlock:1.0.0@default', with: {{ name: {name} }} }}\n")
}

/// Fails when others are within, and notes in which order runs came in.
fn alone(rest: &str, takes: &str) -> String {
    format!(
        "do:\n{}  - enter: {{ {KV}: {{ operation: increment, key: within }}, output: {{ as: .value }}, export: {{ as: '{{within: .}}' }} }}\n  - many: {{ if: $context.within > 1, raise: {{ error: {{ type: 'https://x.example/e', status: 409 }} }} }}\n  - order: {{ {KV}: {{ operation: increment, key: entered }} }}\n  - rest: {{ wait: {takes} }}\n  - leave: {{ {KV}: {{ operation: increment, key: within, by: -1 }} }}\n{}",
        lock("door", rest),
        unlock("door")
    )
}

/// When runs ended, in seconds, in the order of their starts.
fn ends(runs: &[Summary]) -> Vec<(Status, u64)> {
    runs.iter().map(|run| (run.status, run.changed_at.since(BEGIN).as_secs())).collect()
}

#[tokio::test(start_paused = true)]
async fn one_run_at_a_time_has_a_lock_in_the_order_in_which_they_came() {
    let quiet = Quiet::new().await;
    let name = quiet.define("alone", &alone("", "PT5S")).await;
    for _ in 0..4 {
        quiet.start(&name, Value::Null).await;
        quiet.pass(1).await;
    }
    quiet.pass(30).await;
    let done = |second| (Status::Completed, second);
    assert_eq!(ends(&quiet.runs_of("alone").await), [done(5), done(10), done(15), done(20)]);
    assert_eq!(quiet.engine.value("tests", "within").await.unwrap().unwrap().value, json!(0));
}

#[tokio::test(start_paused = true)]
async fn the_order_is_the_same_after_a_crash_and_who_holds_it_still_does() {
    let quiet = Quiet::new().await;
    let document = alone("", "PT5S");
    let name = quiet.define("alone", &document).await;
    for _ in 0..3 {
        quiet.start(&name, Value::Null).await;
        quiet.pass(1).await;
    }
    let quiet = quiet.crash(Duration::from_secs(60)).await; // the first is over its wait at 63 s
    quiet.define("alone", &document).await;
    quiet.start(&name, Value::Null).await;
    quiet.pass(30).await;
    let done = |second| (Status::Completed, second);
    assert_eq!(ends(&quiet.runs_of("alone").await), [done(63), done(68), done(73), done(78)]);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_run_frees_its_locks_however_it_ends() {
    let quiet = Quiet::new().await;
    let keeps = format!("do:\n{}  - rest: {{ wait: PT5S }}\n", lock("door", ""));
    let breaks =
        format!("{keeps}  - r: {{ raise: {{ error: {{ type: 'https://x.example/e', status: 418 }} }} }}\n");
    let (keeps, breaks) = (quiet.define("keeps", &keeps).await, quiet.define("breaks", &breaks).await);
    let first = quiet.start(&breaks, Value::Null).await;
    quiet.pass(1).await;
    let second = quiet.start(&keeps, Value::Null).await;
    quiet.pass(1).await;
    let third = quiet.start(&keeps, Value::Null).await;
    quiet.pass(5).await; // 7 s: the second has it since 5 s
    let waits = quiet.engine.waits_for_locks(third);
    assert_eq!((waits[0].lock.as_deref(), &waits[0].held_by), (Some("door"), &vec![second]));
    assert!(quiet.engine.waits_for_locks(first).is_empty());
    let request = http::Request::get(format!("/v1/runs/{third}")).body(bytes::Bytes::new()).unwrap();
    let shown = standfast_workflow::api::answer(&quiet.engine, request).await;
    let shown: Value = serde_json::from_slice(shown.body()).unwrap();
    let waits = json!([{"lock": "door", "since": "2026-01-01T00:00:02.000Z", "heldBy": [second]}]);
    assert_eq!(shown["waitsForLocks"], waits, "{shown}");
    quiet.engine.cancel(second, "enough").await.unwrap();
    quiet.pass(10).await;
    let ended = quiet.engine.wait(third).await.unwrap();
    assert_eq!((ended.status, ended.changed_at.since(BEGIN).as_secs()), (Status::Completed, 12));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_given_up_keeps_nobody_waiting_also_after_a_crash() {
    for crashes in [false, true] {
        let quiet = Quiet::new().await;
        let keeps = format!("do:\n{}  - rest: {{ wait: PT20S }}\n", lock("door", ""));
        let impatient =
            format!("do:\n{}", lock("door", "").replace("with:", "timeout: { after: PT5S }, with:"));
        let keeps_name = quiet.define("keeps", &keeps).await;
        let impatient_name = quiet.define("impatient", &impatient).await;
        quiet.start(&keeps_name, Value::Null).await;
        quiet.pass(1).await;
        let gives_up = quiet.start(&impatient_name, Value::Null).await;
        quiet.pass(1).await;
        let last = quiet.start(&keeps_name, Value::Null).await;
        quiet.pass(8).await;
        assert_eq!(quiet.engine.wait(gives_up).await.unwrap().status, Status::Faulted);
        let quiet = match crashes {
            true => quiet.crash(Duration::from_secs(1)).await,
            false => quiet,
        };
        quiet.pass(40).await;
        let ended = quiet.engine.wait(last).await.unwrap();
        assert_eq!(
            (ended.status, ended.changed_at.since(BEGIN).as_secs()),
            (Status::Completed, 40),
            "{crashes}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn as_many_as_there_are_permits_have_it_at_a_time() {
    let quiet = Quiet::new().await;
    let document = format!("do:\n{}  - rest: {{ wait: PT10S }}\n", lock("seats", ", permits: 3"));
    let name = quiet.define("seated", &document).await;
    for _ in 0..7 {
        quiet.start(&name, Value::Null).await;
    }
    quiet.pass(60).await;
    let mut ended: Vec<u64> = ends(&quiet.runs_of("seated").await).into_iter().map(|(_, at)| at).collect();
    ended.sort_unstable();
    assert_eq!(ended, [10, 10, 10, 20, 20, 20, 30]);
}

#[tokio::test(start_paused = true)]
async fn runs_that_wait_for_each_other_are_told_to_be_stuck() {
    let quiet = Quiet::new().await;
    let takes = |first: &str, second: &str| {
        format!("do:\n{}  - rest: {{ wait: PT1S }}\n{}", lock(first, ""), lock(second, ""))
    };
    let one = quiet.define("one", &takes("a", "b")).await;
    let other = quiet.define("other", &takes("b", "a")).await;
    let (one, other) = (quiet.start(&one, Value::Null).await, quiet.start(&other, Value::Null).await);
    quiet.pass(20).await;
    assert!(quiet.engine.stuck().is_empty());
    quiet.pass(20).await;
    let stuck = quiet.engine.stuck();
    let mut runs: Vec<_> = stuck.iter().map(|run| (run.id, run.kind)).collect();
    runs.sort();
    let mut expected = [(one, StuckKind::Deadlocked), (other, StuckKind::Deadlocked)];
    expected.sort();
    assert_eq!(runs, expected);
    assert!(stuck[0].why.contains("waits for the lock"), "{}", stuck[0].why);
    quiet.engine.cancel(one, "one of them").await.unwrap();
    quiet.pass(1).await;
    assert_eq!(quiet.engine.wait(other).await.unwrap().status, Status::Completed);
    assert!(quiet.engine.stuck().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_holds_what_a_run_within_it_wants_is_told_to_be_stuck() {
    let quiet = Quiet::new().await;
    quiet.define("inner", &format!("do:\n{}", lock("a", ""))).await;
    let outer = format!(
        "do:\n{}  - sub: {{ run: {{ workflow: {{ namespace: tests, name: inner, version: latest }} }} }}\n",
        lock("a", "")
    );
    let outer = quiet.define("outer", &outer).await;
    let id = quiet.start(&outer, Value::Null).await;
    quiet.pass(60).await;
    let stuck = quiet.engine.stuck();
    assert_eq!(stuck.len(), 2, "{stuck:?}");
    assert!(stuck.iter().all(|run| run.kind == StuckKind::Deadlocked), "{stuck:?}");
    quiet.engine.cancel(id, "it cannot go on").await.unwrap();
    quiet.pass(5).await;
    assert_eq!(quiet.runs_of("inner").await[0].status, Status::Completed);
    assert!(quiet.engine.stuck().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_commit_lets_no_two_runs_in_and_keeps_none_out() {
    let document = alone("", "PT2S");
    let mut crashes = 0;
    for is_done in [false, true] {
        for commits in 0.. {
            let clock = Clock::starting_at(BEGIN);
            let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(clock));
            let mut stopped = true;
            if let Some((quiet, mortal)) = Quiet::dying(&memory, clock, commits, is_done).await {
                starts(&quiet, &document).await;
                quiet.pass(12).await;
                stopped = mortal.left.load(Ordering::SeqCst) < 0;
                quiet.end().await;
            }
            let quiet = Quiet::over(memory, clock).await;
            starts(&quiet, &document).await;
            quiet.pass(60).await;
            let runs = quiet.runs_of("alone").await;
            let case = format!("a crash at commit {commits}, done: {is_done}: {runs:?}");
            assert!(runs.len() == 3 && runs.iter().all(|run| run.status == Status::Completed), "{case}");
            for (key, value) in [("within", 0), ("entered", 3)] {
                let kept = quiet.engine.value("tests", key).await.unwrap().unwrap();
                assert_eq!(kept.value, json!(value), "{key} after {case}");
            }
            quiet.end().await;
            if !stopped {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 40, "only {crashes} crashes were tried");
}

/// Starts three runs, as far as that can be.
async fn starts(quiet: &Quiet, document: &str) {
    let made = definition("alone", document);
    let name = made.program.name().clone();
    let _it_may_stop = quiet.engine.define(made).await;
    for key in ["1", "2", "3"] {
        let _it_may_stop = quiet.engine.start(&name, Arc::default(), Some(key)).await;
    }
}
