//! Tasks that people do: they are listed as long as they are open, also over crashes, and each has one answer.

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use serde_json::{Value, json};
use standfast_runtime::Clock;
use standfast_store::{MemoryStore, Store};
use standfast_workflow::{EngineConfig, OpenTask, Refused, Status, TaskFilter};

use super::crash::Mortal;
use super::migrate::{at, begun};
use super::rig::{PATIENCE, Rig, Service};

const REFUND: &str = "do:
  - each:
      for: { each: refund, in: .refunds }
      metadata: { standfast: { concurrency: 5 } }
      do:
        - approve:
            listen: { to: { one: { with: { type: io.standfast.signal.approve } } }, read: envelope }
            output: { as: '.[0] | {by, ok: .data.ok, refund: $refund.id}' }
            metadata:
              standfast:
                humanTask:
                  title: '${ \"Refund \\($refund.id)\" }'
                  for: '${ $refund.for }'
                  form: { type: object, required: [ ok ], properties: { ok: { type: boolean } } }
";
const BRIEF: &str = "do:
  - ask:
      listen: { to: { one: { with: { type: io.standfast.signal.go } } } }
      timeout: { after: { milliseconds: 50 } }
      metadata: { standfast: { humanTask: { title: Soon over } } }
";

fn refunds() -> Value {
    json!({"refunds": [{"id": "a", "for": ["leads", "ada"]}, {"id": "b", "for": "ada"}, {"id": "c", "for": null}]})
}

async fn open(rig: &Rig, group: Option<&str>) -> Vec<OpenTask> {
    let filter = TaskFilter { group: group.map(str::to_owned), workflow: None };
    rig.engine.open_tasks(&filter, None, 100).await.unwrap().0
}

fn titles(tasks: &[OpenTask]) -> Vec<&str> {
    tasks.iter().map(|task| task.human.title.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_task_is_listed_for_whom_it_is_and_has_its_own_answer() {
    let rig = Rig::new().await;
    let name = rig.define("refund", REFUND).await;
    let id = rig.start(&name, refunds()).await;
    while open(&rig, None).await.len() < 3 {}
    assert_eq!(titles(&open(&rig, None).await), ["Refund a", "Refund b", "Refund c"]);
    assert_eq!(titles(&open(&rig, Some("leads")).await), ["Refund a", "Refund c"]);
    let tasks = open(&rig, Some("ada")).await;
    assert_eq!(titles(&tasks), ["Refund a", "Refund b", "Refund c"]);
    let (_, form) = rig.engine.open_task(tasks[1].id).await.unwrap();
    assert_eq!(form.unwrap()["required"], json!(["ok"]));
    let (page, next) = rig.engine.open_tasks(&TaskFilter::default(), Some(tasks[0].id), 1).await.unwrap();
    assert_eq!((titles(&page), next), (vec!["Refund b"], Some(tasks[1].id)));
    let wrong = rig.engine.answer_task(tasks[1].id, json!({"ok": "yes"}), None, None).await.unwrap_err();
    assert!(
        matches!(&wrong, Refused::Wrong(why) if why.contains("/ok: \"yes\" is not of type")),
        "{wrong:?}"
    );
    rig.engine.answer_task(tasks[1].id, json!({"ok": false}), Some("ada"), Some("k")).await.unwrap();
    assert_eq!(titles(&open(&rig, None).await), ["Refund a", "Refund c"]);
    let twice = rig.engine.answer_task(tasks[1].id, json!({"ok": true}), None, None).await.unwrap_err();
    assert_eq!(twice, Refused::NoTask(tasks[1].id));
    for task in [&tasks[2], &tasks[0]] {
        rig.engine.answer_task(task.id, json!({"ok": true}), None, None).await.unwrap();
    }
    let ended = rig.end(id).await;
    let wanted = json!([
        {"by": null, "ok": true, "refund": "a"}, {"by": "ada", "ok": false, "refund": "b"}, {"by": null, "ok": true, "refund": "c"}
    ]);
    assert_eq!(*ended.output.unwrap(), wanted);
    let again = rig.engine.answer_task(tasks[1].id, json!({"ok": false}), Some("ada"), Some("k")).await;
    assert_eq!(again.unwrap().status, Status::Completed, "the same answer once more");
    assert!(open(&rig, None).await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_given_up_is_listed_no_more() {
    let rig = Rig::new().await;
    let name = rig.define("brief", BRIEF).await;
    let id = rig.start(&name, Value::Null).await;
    while open(&rig, None).await.is_empty()
        && rig.engine.show(id).await.unwrap().summary.status != Status::Faulted
    {}
    assert_eq!(rig.end(id).await.problem.unwrap().status, 408);
    assert!(open(&rig, None).await.is_empty());
    let name = rig.define("refund", REFUND).await;
    let id = rig.start(&name, refunds()).await;
    while open(&rig, None).await.len() < 3 {}
    let task = open(&rig, None).await[0].id;
    rig.engine.cancel(id, "no more").await.unwrap();
    assert!(open(&rig, None).await.is_empty());
    let late = rig.engine.answer_task(task, json!({"ok": true}), None, None).await.unwrap_err();
    assert_eq!(late, Refused::NoTask(task));
}

/// Starts, answers all and waits; `None` when the store stopped before.
async fn answered(
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
        let name = rig.try_define("refund", REFUND).await?;
        let id = rig.engine.start(&name, Arc::new(refunds()), Some("k")).await?;
        loop {
            let (tasks, _) = rig.engine.open_tasks(&TaskFilter::default(), None, 100).await?;
            for task in &tasks {
                match rig.engine.answer_task(task.id, json!({"ok": true}), None, Some("k")).await {
                    Ok(_) | Err(Refused::NoTask(_)) => {}
                    Err(why) => return Err(why),
                }
            }
            if let Some(ended) = rig.engine.wait_for(id, std::time::Duration::from_millis(1)).await? {
                let (left, _) = rig.engine.open_tasks(&TaskFilter::default(), None, 100).await?;
                assert_eq!(left, []);
                return Ok(ended);
            }
        }
    };
    match rig.clock.timeout(PATIENCE, doing).await.expect("it ends or stops") {
        Ok(summary) => (summary.output.as_deref().cloned(), rig.crash().await),
        Err(Refused::Stopped(_)) => (None, rig.crash().await),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_commit_leaves_the_list_as_the_run_is() {
    let wanted = ["a", "b", "c"].map(|id| json!({"by": null, "ok": true, "refund": id}));
    for is_done in [false, true] {
        for commits in 0.. {
            let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
            let (ended, service) = answered(&memory, commits, is_done, Service::start().await).await;
            if ended.is_some() {
                assert!(commits > 4, "it crashed at some commits");
                break;
            }
            let (ended, _) = answered(&memory, i64::MAX, false, service).await;
            assert_eq!(ended, Some(json!(wanted)), "a crash at commit {commits}, done: {is_done}");
        }
    }
}

/// A version that moves the task, and then one that asks nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_follows_a_run_to_another_version() {
    const ASK: &str = "listen: { to: { one: { with: { type: io.standfast.signal.go } } } }";
    const HUMAN: &str = "metadata: { standfast: { humanTask: { title: Go } } }";
    let rig = Rig::new().await;
    let versions = [
        ("1.0.0", format!("do:\n  - ask: {{ {ASK}, {HUMAN} }}\n")),
        ("2.0.0", format!("do:\n  - log: {{ set: {{ a: 1 }} }}\n  - ask: {{ {ASK}, {HUMAN} }}\n")),
        ("3.0.0", format!("do:\n  - log: {{ set: {{ a: 1 }} }}\n  - ask: {{ {ASK} }}\n")),
    ];
    let id = begun(&rig, &versions[0].1, &versions[1].1, at("ask")).await;
    rig.try_define_version("moves", "3.0.0", &versions[2].1).await.unwrap();
    rig.engine.migrate(id, "2.0.0", false).await.unwrap();
    let listed = open(&rig, None).await;
    assert_eq!((&*listed[0].task, listed[0].workflow.version.as_str()), ("/do/1/ask", "2.0.0"));
    rig.engine.migrate(id, "3.0.0", false).await.unwrap();
    assert!(open(&rig, None).await.is_empty(), "nobody is asked any more");
    rig.engine.signal(id, "go", json!({}), None).await.unwrap();
    assert_eq!(rig.end(id).await.status, Status::Completed);
}
