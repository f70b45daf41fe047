//! What is told of runs and their tasks, from their records alone.

use serde_json::Value;
use standfast_model::workflow::TestCase;
use standfast_workflow::{Run, lifecycle, rehearse};

use super::rig::{definition, evaluator};

/// All that is told of a rehearsed run.
fn told(rest: &str) -> Vec<Value> {
    let definition = definition("told", rest);
    let rehearsed = rehearse(&definition.program, &TestCase::default(), &evaluator());
    let mut run = Run::new(rehearsed.run.id);
    let mut told = Vec::new();
    for record in &rehearsed.records {
        told.extend(lifecycle(&run, definition.program.name(), record));
        run.apply(record);
    }
    assert_eq!(run, rehearsed.run, "the fold of the records is the run");
    told
}

/// `workflow.started`, `task.created /do/0/one`.
fn lines(told: &[Value]) -> Vec<String> {
    let line = |event: &Value| {
        let kind = event["type"].as_str().unwrap();
        let kind = kind.strip_prefix("io.serverlessworkflow.").unwrap().strip_suffix(".v1").unwrap();
        match (event["data"]["task"].as_str(), event["data"]["status"].as_str()) {
            (Some(task), Some(status)) => format!("{kind} {task} {status}"),
            (Some(detail), None) | (None, Some(detail)) => format!("{kind} {detail}"),
            _ => kind.to_owned(),
        }
    };
    told.iter().map(line).collect()
}

#[test]
fn a_run_and_its_tasks_tell_what_becomes_of_them() {
    let told = told("do:\n  - one: { set: { a: 1 } }\n  - rest: { wait: PT1S }\n");
    let expected = [
        "workflow.started",
        "task.created /do/0/one",
        "task.status-changed /do/0/one pending",
        "task.started /do/0/one",
        "task.status-changed /do/0/one running",
        "task.completed /do/0/one",
        "task.status-changed /do/0/one completed",
        "task.created /do/1/rest",
        "task.status-changed /do/1/rest pending",
        "task.started /do/1/rest",
        "task.status-changed /do/1/rest running",
        "workflow.status-changed waiting",
        "task.completed /do/1/rest",
        "task.status-changed /do/1/rest completed",
        "workflow.completed",
        "workflow.status-changed completed",
    ];
    assert_eq!(lines(&told), expected);
    assert_eq!(told[5]["data"]["output"], serde_json::json!({"a": 1}));
    let mut ids: Vec<&str> = told.iter().map(|event| event["id"].as_str().unwrap()).collect();
    ids.dedup();
    assert_eq!(ids.len(), told.len(), "each has an id of its own");
    let name = told[0]["data"]["name"].as_str().unwrap();
    assert!(name.starts_with("told-") && name.ends_with(".tests"), "{name}");
}

#[test]
fn failures_repetitions_and_what_ends_with_others_are_told() {
    let told = told(
        r"
do:
  - attempt:
      try:
        - side:
            fork: { branches: [ rest: { wait: PT1H }, bad: { raise: { error: { type: https://x.example/e, status: 400 } } } ] }
      catch: { retry: { delay: PT1S, limit: { attempt: { count: 1 } } } }
",
    );
    let once = [
        "task.created /do/0/attempt/try/0/side",
        "task.started /do/0/attempt/try/0/side",
        "task.created /do/0/attempt/try/0/side/fork/branches/0/rest",
        "task.started /do/0/attempt/try/0/side/fork/branches/0/rest",
        "task.created /do/0/attempt/try/0/side/fork/branches/1/bad",
        "task.started /do/0/attempt/try/0/side/fork/branches/1/bad",
        "task.faulted /do/0/attempt/try/0/side/fork/branches/1/bad",
        "task.cancelled /do/0/attempt/try/0/side/fork/branches/0/rest",
        "task.faulted /do/0/attempt/try/0/side",
    ];
    let mut expected = vec!["workflow.started", "task.created /do/0/attempt", "task.started /do/0/attempt"];
    expected.extend(once);
    expected.extend(["workflow.status-changed running", "task.retried /do/0/attempt"]);
    expected.extend(once);
    expected.extend(["task.faulted /do/0/attempt", "workflow.faulted", "workflow.status-changed faulted"]);
    let lines = lines(&told);
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let without = |all: &[&str]| -> Vec<String> {
        all.iter().filter(|line| !line.contains(".status-changed")).map(|line| (*line).to_owned()).collect()
    };
    assert_eq!(without(&lines), without(&expected));
}
