//! Runs that go on from others: what had finished is not done again, what is asked again is asked by the right key.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use serde_json::{Value, json};
use standfast_runtime::Clock;
use standfast_store::{MemoryStore, Store};
use standfast_workflow::{EngineConfig, Refused, RunId, Status, Summary};

use super::crash::Mortal;
use super::rig::{PATIENCE, Rig, Service};

/// Its second task fails once: by the first request to `/fails/1`.
const CHARGE: &str = "do:
  - reserve: { call: http, with: { method: post, endpoint: SERVICE/reserve, body: '${ . }' }, output: { as: .body } }
  - charge: { call: http, with: { method: post, endpoint: SERVICE/fails/1, body: '${ . }' }, output: { as: .body } }
  - ship: { call: http, with: { method: post, endpoint: SERVICE/ship, body: '${ . }' }, output: { as: .body } }
";

async fn faulted(rig: &Rig, document: &str, input: Value) -> RunId {
    let name = rig.define("again", document).await;
    let id = rig.start(&name, input).await;
    let ended = rig.end(id).await;
    assert_eq!(ended.status, Status::Faulted, "{:?}", ended.output);
    id
}

fn keys(rig: &Rig) -> Vec<String> {
    rig.service.seen(|seen| seen.effects.keys().cloned().collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retried_run_goes_on_from_what_failed_by_the_same_keys() {
    let rig = Rig::new().await;
    let id = faulted(&rig, CHARGE, json!({"sum": 3})).await;
    let again = rig.engine.retry(id).await.unwrap();
    let ended = rig.end(again).await;
    assert_eq!((ended.problem, ended.output.as_deref()), (None, Some(&json!({"sum": 3}))));
    let requests = rig.service.seen(|seen| seen.requests.clone());
    assert_eq!((requests["/reserve"], requests["/fails/1"], requests["/ship"]), (1, 2, 1));
    let expected =
        ["0/do/0/reserve", "1/do/1/charge", "2/do/2/ship"].map(|place| format!("\"{id}.{place}\""));
    assert_eq!(keys(&rig), expected);
    assert_eq!(rig.engine.retry(id).await.unwrap(), again, "a second retry is the same run");
    let shown = rig.engine.show(id).await.unwrap();
    assert_eq!((shown.summary.status, shown.retried_by), (Status::Faulted, Some(again)));
    let origin = rig.engine.show(again).await.unwrap().summary.origin.unwrap();
    assert_eq!((origin.run, &*origin.task), (id, "/do/1/charge"));
    let refused = rig.engine.retry(again).await.unwrap_err();
    assert!(matches!(&refused, Refused::Unfit(why) if why.contains("is completed")), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_key_of_a_start_names_the_run_that_retries_it() {
    let rig = Rig::new().await;
    let name = rig.define("keyed", CHARGE).await;
    let id = rig.engine.start(&name, Arc::default(), Some("o-1")).await.unwrap();
    assert_eq!(rig.end(id).await.status, Status::Faulted);
    let retries = (rig.engine.retry(id), rig.engine.retry(id));
    let (one, other) = tokio::join!(retries.0, retries.1);
    assert_eq!(one, other, "two at once are one");
    let again = one.unwrap();
    assert_eq!(rig.engine.start(&name, Arc::default(), Some("o-1")).await.unwrap(), again);
    assert_eq!(rig.end(again).await.status, Status::Completed);
    assert_eq!(rig.engine.start(&name, Arc::default(), Some("o-1")).await.unwrap(), again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_went_on_beside_a_failure_and_what_it_was_part_of_goes_on_too() {
    let rig = Rig::new().await;
    let document = "do:
  - outer:
      try:
        - side:
            fork:
              branches:
                - bad: { call: http, with: { method: post, endpoint: SERVICE/fails/2 }, timeout: { after: PT1M } }
                - good: { call: http, with: { method: post, endpoint: SERVICE/good } }
                - each: { for: { each: i, in: '[1, 2]' }, do: [ { step: { call: http, with: { method: post, endpoint: SERVICE/step, body: '${ $i }' } } } ] }
      catch: { errors: { with: { status: 418 } } }
      output: { as: length }
";
    let id = faulted(&rig, document, Value::Null).await;
    let again = rig.engine.retry(id).await.unwrap();
    assert_eq!(rig.end(again).await.status, Status::Faulted);
    let third = rig.engine.retry(again).await.unwrap();
    let ended = rig.end(third).await;
    assert_eq!((ended.problem, ended.output.as_deref()), (None, Some(&json!(3))));
    let place = "/do/0/outer/try/0/side/fork/branches/";
    assert!(
        keys(&rig).iter().all(|key| key.starts_with(&format!("\"{id}.")) && key.contains(place)),
        "{:?}",
        keys(&rig)
    );
    assert_eq!(keys(&rig).len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_within_is_retried_with_the_one_that_holds_it() {
    let rig = Rig::new().await;
    rig.define("inner", CHARGE).await;
    let outer = "do:\n  - s: { run: { workflow: { namespace: tests, name: inner, version: '1.0.0', input: { sum: 4 } } } }\n";
    let id = faulted(&rig, outer, Value::Null).await;
    let again = rig.engine.retry(id).await.unwrap();
    let ended = rig.end(again).await;
    assert_eq!((ended.problem, ended.output.as_deref()), (None, Some(&json!({"sum": 4}))));
    assert_eq!(rig.service.seen(|seen| (seen.requests["/reserve"], seen.effects.len())), (1, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redone_run_takes_what_was_before_and_asks_by_new_keys() {
    let rig = Rig::new().await;
    let id = faulted(&rig, CHARGE, json!({"sum": 3})).await;
    let input = Some(Arc::new(json!({"sum": 2})));
    let again = rig.engine.redo(id, "/do/1/charge", input, Some("redo")).await.unwrap();
    assert_eq!(rig.end(again).await.output.as_deref(), Some(&json!({"sum": 2})));
    let expected = [
        format!("\"{id}.0/do/0/reserve\""),
        format!("\"{again}.1/do/1/charge\""),
        format!("\"{again}.2/do/2/ship\""),
    ];
    assert_eq!(keys(&rig), expected);
    assert_eq!(rig.engine.redo(id, "/do/1/charge", None, Some("redo")).await.unwrap(), again);
    // One that came to its end is done again as well.
    let third = rig.engine.redo(again, "/do/2/ship", None, None).await.unwrap();
    assert_eq!(rig.end(third).await.output.as_deref(), Some(&json!({"sum": 2})));
    assert_eq!(rig.service.seen(|seen| seen.requests["/ship"]), 2);
    let refused = rig.engine.redo(id, "/do/2/ship", None, None).await.unwrap_err();
    assert!(
        matches!(&refused, Refused::Unfit(why) if why.ends_with("it began: /do/0/reserve, /do/1/charge")),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_gone_on_from_is_refused() {
    let rig = Rig::new().await;
    let waits = rig.define("waits", "do:\n  - w: { wait: { minutes: 10 } }\n").await;
    let id = rig.start(&waits, Value::Null).await;
    let refused = rig.engine.retry(id).await.unwrap_err();
    assert!(matches!(&refused, Refused::Unfit(why) if why.contains("has not ended")), "{refused}");
    let strict = "input: { schema: { document: { type: string } } }\ndo:\n  - a: { set: { n: 1 } }\n";
    let id = faulted(&rig, strict, json!(1)).await;
    let refused = rig.engine.retry(id).await.unwrap_err();
    assert!(matches!(&refused, Refused::Unfit(why) if why.contains("before its first task")), "{refused}");
    let nobody = "01m83nkhpppkbm2skfgs2bd4h9".parse().unwrap();
    assert_eq!(rig.engine.retry(nobody).await.unwrap_err(), Refused::NoRun(nobody));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_undone_is_not_taken_as_done() {
    let rig = Rig::new().await;
    let document = "do:
  - reserve: { call: http, with: { method: post, endpoint: SERVICE/reserve }, metadata: { standfast: { compensate: [ { free: { call: http, with: { method: post, endpoint: SERVICE/free } } } ] } } }
  - charge: { call: http, with: { method: post, endpoint: SERVICE/fails/1 }, output: { as: .path } }
";
    let id = faulted(&rig, document, Value::Null).await;
    assert_eq!(rig.service.seen(|seen| seen.requests["/free"]), 1);
    let refused = rig.engine.retry(id).await.unwrap_err();
    assert!(
        matches!(&refused, Refused::Unfit(why) if why.contains("was undone: start another")),
        "{refused}"
    );
    let refused = rig.engine.redo(id, "/do/1/charge", None, None).await.unwrap_err();
    assert!(matches!(&refused, Refused::Unfit(why) if why.contains("`/do/0/reserve`, which")), "{refused}");
    let again = rig.engine.redo(id, "/do/0/reserve", None, None).await.unwrap();
    assert_eq!(rig.end(again).await.output.as_deref(), Some(&json!("/fails/1")));
    assert_eq!(rig.service.seen(|seen| seen.requests["/reserve"]), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retried_run_outlives_a_crash() {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
    let rig = Rig::over(Arc::clone(&memory), EngineConfig::default()).await;
    let document = format!("{CHARGE}  - w: {{ wait: {{ milliseconds: 100 }} }}\n");
    let id = faulted(&rig, &document, json!({"sum": 3})).await;
    let again = rig.engine.retry(id).await.unwrap();
    let service = rig.crash().await;
    let rig = Rig::beside(memory, EngineConfig::default(), service).await;
    assert_eq!(rig.end(again).await.output.as_deref(), Some(&json!({"sum": 3})));
    assert_eq!(rig.service.seen(|seen| (seen.requests["/reserve"], seen.effects.len())), (1, 3));
    assert_eq!(rig.engine.retry(id).await.unwrap(), again);
}

/// Retries over a store, and waits for the end; `None` when the store stopped before.
async fn retried(store: Arc<dyn Store>, service: Service, id: RunId) -> (Option<Summary>, Service) {
    let opened = Rig::try_beside(store, EngineConfig::default(), service.clone()).await;
    let Ok(rig) = opened else { return (None, service) };
    let ended = match rig.engine.retry(id).await {
        Ok(again) => rig.clock.timeout(PATIENCE, rig.engine.wait(again)).await.expect("it ends or stops"),
        Err(why) => Err(why),
    };
    match ended {
        Ok(summary) => (Some(summary), rig.crash().await),
        Err(Refused::Stopped(_)) => (None, rig.crash().await),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_commit_of_a_retry_changes_neither_its_end_nor_its_effects() {
    let mut crashes = 0;
    for is_done in [false, true] {
        for commits in 0.. {
            let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
            let rig = Rig::over(Arc::clone(&memory), EngineConfig::default()).await;
            let id = faulted(&rig, CHARGE, json!({"sum": 3})).await;
            let service = rig.crash().await;
            let left = AtomicI64::new(commits);
            let mortal = Arc::new(Mortal { inner: Arc::clone(&memory), left, is_done });
            let (ended, service) = retried(mortal, service, id).await;
            let is_over = ended.is_some();
            crashes += usize::from(!is_over);
            // Whoever was told nothing asks once more.
            let (ended, service) = retried(memory, service, id).await;
            let ended = ended.expect("nothing stops it");
            let case = format!("a crash at commit {commits}, done: {is_done}");
            assert_eq!((ended.problem, ended.output.as_deref()), (None, Some(&json!({"sum": 3}))), "{case}");
            let seen = service.seen(|seen| (seen.requests["/reserve"], seen.effects.len()));
            assert_eq!(seen, (1, 3), "{case}");
            if is_over {
                break;
            }
        }
    }
    assert!(crashes >= 6, "only {crashes} crashes were tried");
}
