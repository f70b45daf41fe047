//! Values by keys: what a task does to one is done once, and only by a task that came to its end.

use serde_json::{Value, json};
use standfast_workflow::Status;

use super::rig::{Rig, told};

/// A task that does this to a value.
fn task(name: &str, with: &str) -> String {
    format!("  - {name}: {{ call: 'standfast.kv:1.0.0@default', with: {{ {with} }} }}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_many_runs_add_to_a_value_is_all_there() {
    let rig = Rig::new().await;
    let add = |name: &str| task(name, "operation: increment, key: count");
    let name = rig.define("adds", &format!("do:\n{}{}", add("a"), add("b"))).await;
    let mut runs = Vec::new();
    for _ in 0..50 {
        runs.push(rig.start(&name, Value::Null).await);
    }
    let mut yielded = Vec::new();
    for run in runs {
        let ended = rig.end(run).await;
        assert_eq!(ended.status, Status::Completed, "{:?}", ended.problem);
        yielded.push(ended.output.unwrap()["value"].as_i64().unwrap());
    }
    let kept = rig.engine.value("tests", "count").await.unwrap().unwrap();
    assert_eq!(kept.value, json!(100));
    yielded.sort_unstable();
    yielded.dedup();
    assert_eq!(yielded.len(), 50, "no two of them saw the same");
    assert_eq!(rig.engine.value("others", "count").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_failed_has_changed_nothing() {
    let rig = Rig::new().await;
    // The value is added to before it is known that what the task yields cannot be made.
    let document = "do:
  - t:
      try:
        - a:
            call: standfast.kv:1.0.0@default
            with: { operation: increment, key: tries }
            output: { as: '${ if .value < 2 and $task.name == \"a\" and ($context.go | not) then error(\"not yet\") else . end }' }
      catch:
        do: [ go: { set: { go: true }, export: { as: '{go: true}' } } ]
  - b: { call: 'standfast.kv:1.0.0@default', with: { operation: increment, key: tries } }
";
    let ended = rig.run(document, Value::Null).await;
    assert_eq!(ended.status, Status::Completed, "{:?}", ended.problem);
    assert_eq!(ended.output.as_deref(), Some(&json!({"value": 1, "before": null, "changed": true})));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_are_compared_replaced_and_removed() {
    let rig = Rig::new().await;
    let run = async |with: &str| {
        let ended = rig.run(&format!("do:\n{}", task("a", with)), Value::Null).await;
        match ended.output.as_deref() {
            Some(output) => output.clone(),
            None => json!([ended.problem.as_ref().unwrap().status, ended.problem.unwrap().detail]),
        }
    };
    let told = |value: Value, before: Value, changed: bool| json!({"value": value, "before": before, "changed": changed});
    let swap = "operation: compareAndSet, key: k, expected: null, value: [ 1 ]";
    assert_eq!(run(swap).await, told(json!([1]), Value::Null, true));
    assert_eq!(run(swap).await, told(json!([1]), json!([1]), false));
    assert_eq!(run("operation: get, key: k").await, told(json!([1]), json!([1]), false));
    assert!(run("operation: increment, key: k").await.to_string().contains("no whole number"));
    assert_eq!(run("operation: delete, key: k").await, told(Value::Null, json!([1]), true));
    assert_eq!(run("operation: get, key: k").await, told(Value::Null, Value::Null, false));
    let long = "operation: set, key: k, value: '${ \"x\" * 300000 }'";
    assert!(run(long).await.to_string().contains("larger than 262144 bytes"));
    assert!(run("operation: set, key: 'a b', value: 1").await.to_string().contains("visible ASCII"));
    for key in ["a/1", "a/2", "a/3", "b"] {
        run(&format!("operation: set, key: {key}, value: 1")).await;
    }
    let keys = async |prefix: &str, after: Option<&str>, limit: usize| -> Vec<String> {
        let found = rig.engine.values("tests", prefix, after, limit).await.unwrap();
        found.into_iter().map(|kept| kept.key).collect()
    };
    assert_eq!(keys("a/", None, 10).await, ["a/1", "a/2", "a/3"]);
    assert_eq!(keys("", Some("a/1"), 2).await, ["a/2", "a/3"]);
}

#[test]
fn of_functions_that_are_not_there_those_that_are_are_told() {
    let text = "document: { dsl: '1.0.3', namespace: tests, name: w, version: '1.0.0' }\ndo:\n  - a: { call: 'standfast.kv:2.0.0@default' }\n";
    let why = told(standfast_workflow::Definition::of_text("w", text).unwrap_err());
    assert!(
        why.contains("standfast.kv:2.0.0@default") && why.contains("standfast.kv:1.0.0@default"),
        "{why}"
    );
}
