//! Runs over a store, with a real service.

use serde_json::{Value, json};
use standfast_workflow::Status;

use super::rig::Rig;

#[tokio::test]
async fn three_steps_by_http_are_done_one_after_the_other() {
    let rig = Rig::new().await;
    let ended = rig
        .run(
            r#"
do:
  - reserve:
      call: http
      with: { method: post, endpoint: 'SERVICE/reserve/{order}', body: { order: '${ .order }' } }
      output: { as: '{order: .body.order, reserved: true}' }
      export: { as: '{reserved: .order}' }
  - charge:
      call: http
      with: { method: post, endpoint: SERVICE/charge, query: { a: '${ .order }' } }
      output: { as: '$input + {charged: .query}' }
  - ship:
      set: { order: '${ .order }', charged: '${ .charged }', context: '${ $context }', task: '${ $task.reference }' }
"#,
            json!({"order": "o-1"}),
        )
        .await;
    assert_eq!(ended.problem, None);
    assert_eq!(
        *ended.output.unwrap(),
        json!({"order": "o-1", "charged": "a=o-1", "context": {"reserved": "o-1"}, "task": "/do/2/ship"})
    );
    assert_eq!(ended.status, Status::Completed);
    let shown = rig.engine.show(ended.id).await.unwrap();
    assert_eq!(shown.records.len(), 3, "{:#?}", shown.records);
    assert_eq!(rig.service.seen(|seen| seen.effects.values().copied().collect::<Vec<_>>()), [1, 1]);
}

#[tokio::test]
async fn a_failed_call_is_tried_again_by_the_same_key() {
    let rig = Rig::new().await;
    let ended = rig
        .run(
            r#"
do:
  - pay:
      try:
        - charge:
            call: http
            with: { method: post, endpoint: SERVICE/fails/2 }
      catch:
        errors: { with: { status: 503 } }
        retry: { delay: { milliseconds: 1 }, limit: { attempt: { count: 3 } } }
"#,
            json!({}),
        )
        .await;
    assert_eq!(ended.problem, None);
    assert_eq!(rig.service.seen(|seen| (seen.requests["/fails/2"], seen.effects.len())), (3, 1));
    let key = rig.service.seen(|seen| seen.effects.keys().next().cloned().unwrap());
    assert_eq!(key, format!("\"{}.0.0/do/0/pay/try/0/charge\"", ended.id));
}

#[tokio::test]
async fn what_fails_says_what_where_and_why() {
    let rig = Rig::new().await;
    let ended = rig
        .run(
            "do:\n  - pay:\n      call: http\n      with: { method: get, endpoint: SERVICE/status/404 }\n",
            Value::Null,
        )
        .await;
    let problem = ended.problem.unwrap();
    assert_eq!(ended.status, Status::Faulted);
    assert_eq!((problem.status, problem.instance.as_deref()), (404, Some("/do/0/pay")));
    assert_eq!(problem.title.as_deref(), Some("Not Found"));
    assert!(problem.detail.unwrap().ends_with("/status/404 was answered with 404 Not Found: {\"said\":404}"));
}

/// A loop's items are written once, and what each step costs does not grow with how many there were.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cost_of_a_step_does_not_grow() {
    let rig = Rig::new().await;
    let document = "do:\n  - f:\n      for: { in: '[range($workflow.input)]' }\n      do:\n        - s: { set: '${ . + 1 }' }\n      input: { from: '${ 0 }' }\n";
    let name = rig.define("steps", document).await;
    let mut per_step = Vec::new();
    for steps in [100_usize, 10_000] {
        let id = rig.start(&name, json!(steps)).await;
        assert_eq!(rig.end(id).await.output.as_deref(), Some(&json!(steps)));
        let records = rig.engine.show(id).await.unwrap().records;
        let bytes: usize = records.iter().map(|record| serde_json::to_vec(record).unwrap().len()).sum();
        per_step.push(bytes / steps);
    }
    // Numbers get longer, nothing else.
    assert!(per_step[1] <= per_step[0] + 8, "bytes a step: {per_step:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tasks_without_end_are_ended() {
    let rig = Rig::over(
        std::sync::Arc::new(standfast_store::MemoryStore::new(standfast_runtime::Clock::system())),
        standfast_workflow::EngineConfig { steps_max: 5_000, ..Default::default() },
    )
    .await;
    let ended =
        rig.run("do:\n  - a: { set: { n: 1 } }\n  - b: { set: { n: 2 }, then: a }\n", Value::Null).await;
    assert_eq!(ended.status, Status::Faulted);
    let detail = ended.problem.unwrap().detail.unwrap();
    assert_eq!(detail, "it took 5000 steps without coming to an end");
}
