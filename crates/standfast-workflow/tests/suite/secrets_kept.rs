//! What is secret is in nothing that is kept, shown or told, whatever becomes of a run; and runs wait until it is known.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use serde_json::{Value, json};
use standfast_runtime::Clock;
use standfast_store::{MemoryStore, Store};
use standfast_workflow::{EngineConfig, Refused, Secrets, Status, Summary};

use super::crash::{Mortal, effects};
use super::rig::{PATIENCE, Rig, Service, all_bytes, embedded};

/// What no file may hold.
const VALUE: &str = "hunter2-hunter2";

fn secrets(value: &str) -> Secrets {
    let all = json!({"key": value, "login": {"username": "ada", "password": "engine-of-1843"}});
    all.as_object().unwrap().clone().into()
}

fn knowing() -> EngineConfig {
    EngineConfig { secrets: Some(secrets(VALUE)), ..EngineConfig::default() }
}

/// Sends the secret; the service says all of it again.
const SENDS: &str = "use: { secrets: [key] }
do:
  - first: { call: http, with: { method: post, endpoint: SERVICE/first, headers: { x-key: '${ $secrets.key }' }, body: { key: '${ $secrets.key }' } } }
  - pause: { wait: { milliseconds: 5 } }
  - second: { call: http, with: { method: post, endpoint: SERVICE/second, headers: { x-key: '${ $secrets.key }' }, body: '${ . }' } }
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_secret_that_a_service_says_again_is_in_no_file_of_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let rig = Rig::over(embedded(folder.path()).await, knowing()).await;
    let name = rig.define("sends", SENDS).await;
    let id = rig.start(&name, Value::Null).await;
    let ended = rig.end(id).await;
    assert_eq!((ended.status, &ended.problem), (Status::Completed, &None));
    let output = ended.output.unwrap();
    assert_eq!(output["headers"]["x-key"], "[secret key]", "it was sent, and is not kept");
    assert_eq!(output["body"]["body"]["key"], "[secret key]");
    let shown = serde_json::to_string(&rig.engine.show(id).await.unwrap().records).unwrap();
    assert!(!shown.contains(VALUE), "{shown}");
    rig.crash().await;
    let bytes = all_bytes(folder.path());
    let holds = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(holds("[secret key]"), "the records are not found: is the store packed?");
    assert!(!holds(VALUE), "the secret is in a file of the store");
}

#[tokio::test]
async fn a_secret_that_would_be_kept_fails_its_task_by_name() {
    let places = [
        ("set", "do:\n  - a: { set: { k: '${ $secrets.key }' } }\n"),
        ("input", "do:\n  - a: { input: { from: '${ {k: $secrets.key} }' }, set: { a: 1 } }\n"),
        ("output", "do:\n  - a: { set: { a: 1 }, output: { as: '${ \"x \" + $secrets.key }' } }\n"),
        ("export", "do:\n  - a: { set: { a: 1 }, export: { as: '${ $secrets }' } }\n"),
        (
            "the workflow's output",
            "output: { as: '${ $secrets.login.password }' }\ndo:\n  - a: { set: { a: 1 } }\n",
        ),
        (
            "emit",
            "do:\n  - a: { emit: { event: { with: { source: 'https://x.example', type: t, data: '${ $secrets.key }' } } } }\n",
        ),
        (
            "raise",
            "do:\n  - a: { raise: { error: { type: 'https://x.example/e', status: 500, detail: '${ $secrets.key }' } } }\n",
        ),
        ("a list of rounds", "do:\n  - a: { for: { in: '[$secrets.key]' }, do: [ b: { set: { a: 1 } } ] }\n"),
        ("an expression that fails", "do:\n  - a: { set: { a: '${ $secrets.key | error }' } }\n"),
        (
            "another run",
            "do:\n  - a: { run: { workflow: { namespace: tests, name: test, version: '1.0.0', input: { k: '${ $secrets.key }' } } } }\n",
        ),
    ];
    for (place, text) in places {
        let rig = Rig::over(Arc::new(MemoryStore::new(Clock::system())), knowing()).await;
        let ended = rig.run(&format!("use: {{ secrets: [key, login] }}\n{text}"), Value::Null).await;
        let all = format!("{ended:?} {:?}", rig.engine.show(ended.id).await.unwrap().records);
        assert!(!all.contains(VALUE) && !all.contains("engine-of-1843"), "{place}: {all}");
        let problem = ended.problem.expect(place);
        if place != "an expression that fails" {
            let detail = problem.detail.clone().unwrap_or_default();
            assert_eq!(problem.status, 403, "{place}: {problem:?}");
            assert!(detail.contains("holds the secret `"), "{place}: {detail}");
        }
    }
}

#[tokio::test]
async fn what_is_made_of_a_secret_and_does_not_hold_it_is_data() {
    let rig = Rig::over(Arc::new(MemoryStore::new(Clock::system())), knowing()).await;
    let text = "use: { secrets: [key] }
do:
  - a: { if: '${ $secrets.key != \"\" }', set: { long: '${ $secrets.key | length }' } }
";
    let ended = rig.run(text, Value::Null).await;
    assert_eq!(*ended.output.unwrap(), json!({"long": VALUE.len()}));
}

#[tokio::test]
async fn a_secret_that_is_not_there_is_named_and_a_new_value_is_sent_from_then_on() {
    let config = EngineConfig { secrets: Some(Secrets::default()), ..EngineConfig::default() };
    let rig = Rig::over(Arc::new(MemoryStore::new(Clock::system())), config).await;
    let name = rig.define("sends", SENDS).await;
    let id = rig.start(&name, Value::Null).await;
    let problem = rig.end(id).await.problem.unwrap();
    assert_eq!((problem.status, problem.instance.as_deref()), (403, Some("/do/0/first")), "{problem:?}");
    assert!(problem.detail.as_deref().unwrap().contains("there is no secret `key`"), "{problem:?}");
    // A value too short to be looked for shows which one was sent.
    let echo = "use: { secrets: [key] }\ndo:\n  - a: { call: http, with: { method: post, endpoint: SERVICE/a, headers: { x-key: '${ $secrets.key }' } } }\n";
    for value in ["one", "two"] {
        rig.engine.set_secrets(secrets(value));
        assert_eq!(rig.run(echo, Value::Null).await.output.unwrap()["headers"]["x-key"], value);
    }
}

/// Lets `commits` commits through and crashes; the secrets are told only after the engine has taken over what it found.
async fn with_crash(
    memory: Arc<dyn Store>,
    commits: i64,
    is_done: bool,
    service: Service,
) -> (Option<Summary>, Service) {
    let mortal = Arc::new(Mortal { inner: memory, left: AtomicI64::new(commits), is_done });
    let config = EngineConfig { secrets: None, ..EngineConfig::default() };
    let Ok(rig) = Rig::try_beside(mortal, config, service.clone()).await else { return (None, service) };
    let Ok(name) = rig.try_define("crash", SENDS).await else { return (None, rig.crash().await) };
    let (engine, clock) = (rig.engine.clone(), rig.clock);
    let ends = async {
        let id = engine.start(&name, Arc::new(json!({"go": true})), Some("the-key")).await?;
        clock.timeout(PATIENCE, engine.wait(id)).await.expect("it ends or stops")
    };
    let (ended, ()) = tokio::join!(ends, async {
        tokio::task::yield_now().await;
        rig.engine.set_secrets(secrets(VALUE));
    });
    match ended {
        Ok(summary) => (Some(summary), rig.crash().await),
        Err(Refused::Stopped(_)) => (None, rig.crash().await),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_commit_changes_nothing_for_a_run_that_sends_secrets() {
    let memory = || -> Arc<dyn Store> { Arc::new(MemoryStore::new(Clock::system())) };
    let (whole, service) = with_crash(memory(), i64::MAX, false, Service::start().await).await;
    let whole = whole.expect("nothing stops it");
    assert_eq!((whole.status, effects(&service)), (Status::Completed, 2));
    let mut crashes = 0;
    for is_done in [false, true] {
        for commits in 0.. {
            let memory = memory();
            let service = Service::start().await;
            let (ended, service) = with_crash(Arc::clone(&memory), commits, is_done, service).await;
            if ended.is_some() {
                break;
            }
            crashes += 1;
            let (ended, service) = with_crash(memory, i64::MAX, false, service).await;
            let ended = ended.expect("nothing stops it");
            let case = format!("a crash at commit {commits}, done: {is_done}");
            assert_eq!((ended.status, &ended.problem), (Status::Completed, &None), "{case}");
            assert_eq!(effects(&service), 2, "{case}");
            assert_eq!(ended.output.unwrap()["headers"]["x-key"], "[secret key]", "{case}");
        }
    }
    assert!(crashes > 6, "only {crashes} crashes were tried");
}
