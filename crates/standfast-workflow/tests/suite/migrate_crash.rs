//! Crashes at every commit of a run that goes over to another version of its document: it comes to the end that the other version has,
//! and each effect has the key that it has without a crash.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use serde_json::json;
use standfast_runtime::Clock;
use standfast_store::{MemoryStore, Store};
use standfast_workflow::{EngineConfig, Refused, RunId, Summary};

use super::crash::{Mortal, comparable};
use super::migrate::{at, keys};
use super::rig::{PATIENCE, Rig, Service};

const GO: &str = "go: { listen: { to: { one: { with: { type: io.standfast.signal.go } } } } }";
const RAISE: &str = "r: { raise: { error: { type: 'https://x.example/e', status: 418 } } }";

/// Versions of documents, each of which waits for a signal once: before that it goes over.
fn documents() -> Vec<(&'static str, String, String)> {
    let call =
        |name: &str| format!("{name}: {{ call: http, with: {{ method: post, endpoint: SERVICE/{name} }} }}");
    let (a, b, c) = (call("a"), call("b"), call("c"));
    let set = "x: { set: { n: 1 } }";
    let fork = |more: &str| {
        format!(
            "f: {{ fork: {{ branches: [ {{ one: {{ do: [ {{ {a} }}, {{ {GO} }}{more} ] }} }}, {{ two: {{ {} }} }} ] }}, output: {{ as: length }} }}",
            &b["b: { ".len()..b.len() - 2]
        )
    };
    let retry = "catch: { retry: { delay: { milliseconds: 1 }, limit: { attempt: { count: 1 } } }, do: [ { c: { set: { gave: up } } } ] }";
    let tried = |more: &str| format!("t: {{ try: [ {{ {a} }}, {{ {GO} }}, {{ {RAISE} }}{more} ], {retry} }}");
    let undone = |undo: &str| {
        format!(
            "{}, metadata: {{ standfast: {{ compensate: [ {{ u: {{ call: http, with: {{ method: post, endpoint: SERVICE/{undo} }} }} }} ] }} }} }}",
            &a[..a.len() - 2]
        )
    };
    let list = |all: &[&str]| all.iter().fold("do:\n".to_owned(), |text, task| format!("{text}  - {task}\n"));
    let last = "last: { set: { by: VERSION } }";
    let both = |one: &[&str], other: &[&str]| {
        (list(one).replace("VERSION", "1"), list(other).replace("VERSION", "2"))
    };
    let cases = [
        ("plain", both(&[&a, GO, &c, last], &[set, &a, GO, &b, &c, last])),
        ("fork", both(&[&fork(""), last], &[set, &fork(&format!(", {{ {c} }}")), last])),
        ("retry", both(&[&tried(""), last], &[set, &tried(&format!(", {{ {c} }}")), &b, last])),
        ("undo", both(&[&undone("wrong"), GO, RAISE], &[set, &undone("right"), GO, RAISE])),
    ];
    cases.into_iter().map(|(name, (one, other))| (name, one, other)).collect()
}

/// Starts the run, or finds it, has it go over when it waits, and lets it come to its end.
async fn goes(rig: &Rig, one: &str, other: &str) -> Result<Summary, Refused> {
    let name = rig.try_define_version("moves", "1.0.0", one).await?;
    rig.try_define_version("moves", "2.0.0", other).await?;
    let id = rig.engine.start(&name, Arc::new(json!({"go": true})), Some("the-key")).await?;
    if !has_ended(rig, id).await? {
        match rig.engine.migrate(id, "2.0.0", false).await {
            Ok(migration) => assert!(migration.goes(), "{migration:?}"),
            Err(Refused::Ended(_)) => {}
            Err(why) => return Err(why),
        }
        for key in ["1", "2"] {
            match rig.engine.signal(id, "go", json!(key), Some(key)).await {
                Ok(_) | Err(Refused::Ended(_)) => {}
                Err(why) => return Err(why),
            }
        }
    }
    rig.engine.wait(id).await
}

/// Waits until a run can go over, has, or has ended.
async fn has_ended(rig: &Rig, id: RunId) -> Result<bool, Refused> {
    loop {
        let shown = rig.engine.show(id).await?;
        let Some(run) = shown.run else { return Ok(true) };
        if at("go")(&run) || shown.summary.workflow.version == "2.0.0" {
            return Ok(false);
        }
        tokio::task::yield_now().await;
    }
}

/// What becomes of it over a store; `None` when that stopped before.
async fn moved(
    store: Arc<dyn Store>,
    service: Service,
    one: &str,
    other: &str,
) -> (Option<(Summary, Vec<String>)>, Service) {
    let opened = Rig::try_beside(store, EngineConfig::default(), service.clone()).await;
    let Ok(rig) = opened else { return (None, service) };
    let ended = rig.clock.timeout(PATIENCE, goes(&rig, one, other)).await.expect("it ends or stops");
    match ended {
        Ok(summary) => {
            let id = summary.id.to_string();
            let keys = keys(&rig).into_iter().map(|key| key.replace(&id, "")).collect();
            (Some((summary, keys)), rig.crash().await)
        }
        Err(Refused::Stopped(_)) => (None, rig.crash().await),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_commit_round_a_migration_changes_neither_its_end_nor_its_keys() {
    let mut crashes = 0;
    for (name, one, other) in documents() {
        let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
        let (whole, _) = moved(memory, Service::start().await, &one, &other).await;
        let (whole, expected) = whole.expect("nothing stops it");
        assert_eq!(whole.workflow.version, "2.0.0", "{name}");
        for is_done in [false, true] {
            for commits in 0.. {
                let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
                let mortal = Mortal { inner: Arc::clone(&memory), left: AtomicI64::new(commits), is_done };
                let (ended, service) = moved(Arc::new(mortal), Service::start().await, &one, &other).await;
                let is_over = ended.is_some();
                crashes += usize::from(!is_over);
                // Whoever was told nothing asks once more.
                let (ended, _) = moved(memory, service, &one, &other).await;
                let (summary, keys) = ended.expect("nothing stops it");
                let case = format!("{name}, a crash at commit {commits}, done: {is_done}");
                assert_eq!(comparable(&summary), comparable(&whole), "{case}");
                assert_eq!((summary.workflow.version.as_str(), keys), ("2.0.0", expected.clone()), "{case}");
                if is_over {
                    break;
                }
            }
        }
    }
    assert!(crashes > 60, "only {crashes} crashes were tried");
}
