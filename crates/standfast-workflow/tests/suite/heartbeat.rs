//! Steps that are given up when there is no sign of life for too long.

use std::time::Duration;

use serde_json::{Value, json};
use standfast_workflow::Status;

use super::rig::{PATIENCE, Rig};

const EVERY: &str = "metadata: { standfast: { heartbeat: { milliseconds: 600 } } }";
/// Long enough for a busy machine.
const LONG: &str = "metadata: { standfast: { heartbeat: { seconds: 2 } } }";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_writes_lives_and_one_that_is_silent_is_given_up() {
    let rig = Rig::new().await;
    // Longer than it may be silent, in all.
    let talks = "do:\n  - it: { run: { shell: { command: 'for n in 1 2 3 4 5; do echo $n; sleep 0.6; done' } }, EVERY }\n";
    let talks = rig.define("talks", &talks.replace("EVERY", LONG)).await;
    let id = rig.start(&talks, Value::Null).await;
    let ended = rig.end(id).await;
    assert_eq!((ended.status, ended.problem), (Status::Completed, None));
    assert_eq!(*ended.output.unwrap(), json!("1\n2\n3\n4\n5"));
    let silent = "do:\n  - it: { run: { shell: { command: 'echo begun; sleep 1000' } }, EVERY }\n";
    let silent = rig.define("silent", &silent.replace("EVERY", EVERY)).await;
    let id = rig.start(&silent, Value::Null).await;
    let problem = rig.end(id).await.problem.unwrap();
    assert_eq!((problem.kind.rsplit('/').next(), problem.status), (Some("timeout"), 408));
    assert!(problem.detail.unwrap().contains("no sign of life for 0.6 s"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_called_tells_that_it_lives_by_the_key_that_it_was_given() {
    let rig = Rig::new().await;
    let held = "do:\n  - it: { call: http, with: { method: post, endpoint: SERVICE/held/a }, metadata: { standfast: { key: order-7, heartbeat: { seconds: 2 } } } }\n";
    let held = rig.define("held", held).await;
    let id = rig.start(&held, Value::Null).await;
    let waits = async {
        while rig.engine.beat("order-7") == 0 {
            tokio::task::yield_now().await;
        }
    };
    rig.clock.timeout(PATIENCE, waits).await.expect("it is asked");
    let over = rig.clock.now().plus(Duration::from_millis(2_500));
    while rig.clock.now() < over {
        assert_eq!(rig.engine.beat("order-7"), 1, "it is waited for");
        rig.clock.sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(rig.engine.show(id).await.unwrap().summary.status, Status::Running);
    rig.service.answers();
    let ended = rig.end(id).await;
    assert_eq!((ended.status, ended.problem), (Status::Completed, None));
    assert_eq!(rig.engine.beat("order-7"), 0, "nobody waits for it any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_service_is_asked_again() {
    let rig = Rig::new().await;
    let again = "do:
  - all:
      try:
        - it: { call: http, with: { method: post, endpoint: SERVICE/held/b }, metadata: { standfast: { heartbeat: '${ .silent }' } } }
      catch: { errors: { with: { status: 408 } }, retry: { delay: { milliseconds: 1 }, limit: { attempt: { count: 50 } } } }
";
    let again = rig.define("again", again).await;
    let id = rig.start(&again, json!({"silent": "PT0.2S"})).await;
    let asked = async {
        while rig.service.seen(|seen| seen.requests.get("/held/b").copied()) < Some(2) {
            tokio::task::yield_now().await;
        }
    };
    rig.clock.timeout(PATIENCE, asked).await.expect("it is asked again");
    rig.service.answers();
    let ended = rig.end(id).await;
    assert_eq!((ended.status, ended.problem), (Status::Completed, None));
    assert_eq!(rig.service.seen(|seen| seen.effects.len()), 1, "by the same key");
}

#[tokio::test]
async fn it_is_refused_where_it_means_nothing() {
    for (task, says) in [
        ("it: { wait: PT1S, EVERY }", "only what a `call` or a `run` asks gives signs of life"),
        (
            "it: { run: { workflow: { namespace: a, name: b, version: '1.0.0' } }, EVERY }",
            "of a run of another workflow",
        ),
        ("it: { run: { await: false, shell: { command: ls } }, EVERY }", "of what is not waited for"),
    ] {
        let text = format!(
            "document: {{ dsl: '1.0.3', namespace: t, name: n, version: '1.0.0' }}\ndo:\n  - {}\n",
            task.replace("EVERY", EVERY)
        );
        let found = match standfast_workflow::Definition::of_text("n", &text) {
            Ok(_) => panic!("{task} is taken"),
            Err(why) => super::rig::told(why),
        };
        assert!(found.contains(says), "{found}");
    }
}
