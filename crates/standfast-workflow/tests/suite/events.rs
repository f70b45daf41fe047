//! Events on their way to runs: none is lost, none counts twice.

use std::time::Duration;

use serde_json::{Value, json};
use standfast_workflow::{LIFECYCLE_MAX, Status, Told};

use super::quiet::Quiet;

/// Does something else first, then waits for an event of the type `a`.
const LATE: &str =
    "do: [ rest: { wait: PT5S }, await: { listen: { to: { one: { with: { type: a } } } } } ]\n";

fn event(id: &str, kind: &str) -> Value {
    json!({"id": id, "source": "s", "type": kind, "data": id})
}

#[tokio::test(start_paused = true)]
async fn what_came_before_a_task_began_to_wait_is_given_to_it() {
    let quiet = Quiet::new().await;
    let late = quiet.define("late", LATE).await;
    quiet.publish(event("0", "a")).await; // before the run: not for it
    quiet.pass(1).await;
    let id = quiet.start(&late, json!({})).await;
    quiet.publish(event("1", "b")).await;
    quiet.publish(event("2", "a")).await;
    let ended = quiet.engine.wait(id).await.unwrap();
    assert_eq!(*ended.output.unwrap(), json!(["2"]));
}

#[tokio::test(start_paused = true)]
async fn what_was_published_is_not_lost_in_a_crash() {
    let quiet = Quiet::new().await;
    let late = quiet.define("late", LATE).await;
    let id = quiet.start(&late, json!({})).await;
    quiet.publish(event("1", "a")).await;
    let quiet = quiet.crash(Duration::from_secs(2)).await;
    let ended = quiet.engine.wait(id).await.unwrap();
    assert_eq!(*ended.output.unwrap(), json!(["1"]));
}

#[tokio::test(start_paused = true)]
async fn it_is_kept_for_its_time_only() {
    let quiet = Quiet::new().await;
    let late = quiet.define("late", &LATE.replace("PT5S", "PT2H")).await;
    let id = quiet.start(&late, json!({})).await;
    quiet.publish(event("1", "a")).await;
    quiet.pass(7_300).await;
    let shown = quiet.engine.show(id).await.unwrap();
    assert_eq!(shown.summary.status, Status::Waiting);
    quiet.publish(event("2", "a")).await;
    assert_eq!(*quiet.engine.wait(id).await.unwrap().output.unwrap(), json!(["2"]));
}

#[tokio::test(start_paused = true)]
async fn the_same_event_counts_once_for_a_task_and_once_for_tasks_after_each_other() {
    let quiet = Quiet::new().await;
    let twice = quiet
        .define(
            "twice",
            r"
do:
  - both: { listen: { to: { all: [ { with: { type: a } }, { with: { type: a } } ] } } }
  - more: { listen: { to: { one: { with: { type: a } } } }, output: { as: '$input + .' } }
",
        )
        .await;
    let id = quiet.start(&twice, json!({})).await;
    for number in ["1", "1", "1", "2", "2"] {
        quiet.publish(event(number, "a")).await;
        quiet.pass(1).await;
    }
    assert_eq!(quiet.engine.show(id).await.unwrap().summary.status, Status::Waiting);
    quiet.publish(event("3", "a")).await;
    assert_eq!(*quiet.engine.wait(id).await.unwrap().output.unwrap(), json!(["1", "2", "3"]));
}

#[tokio::test(start_paused = true)]
async fn an_event_wakes_only_runs_that_could_want_it() {
    let quiet = Quiet::new().await;
    let of = |kind: &str| {
        format!("do: [ await: {{ listen: {{ to: {{ one: {{ with: {{ type: {kind} }} }} }} }} }} ]\n")
    };
    let (a, b) = (quiet.define("a", &of("a")).await, quiet.define("b", &of("b")).await);
    for _ in 0..3 {
        quiet.start(&a, json!({})).await;
        quiet.start(&b, json!({})).await;
    }
    quiet.pass(1).await;
    assert_eq!(quiet.engine.counts(), (0, 6));
    assert_eq!(quiet.publish(event("1", "a")).await, 3);
    assert_eq!(quiet.publish(event("2", "c")).await, 0);
    quiet.pass(1).await;
    assert_eq!(quiet.engine.counts(), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn what_a_run_publishes_reaches_others_also_over_a_crash() {
    let quiet = Quiet::new().await;
    let late = quiet.define("late", LATE).await;
    let says = quiet
        .define("says", "do: [ tell: { emit: { event: { with: { source: 'https://s.example', type: a, data: 7 } } } } ]\n")
        .await;
    let id = quiet.start(&late, json!({})).await;
    quiet.start(&says, json!({})).await;
    // Nothing else was done since it was written that it was published.
    let quiet = quiet.crash(Duration::ZERO).await;
    assert_eq!(*quiet.engine.wait(id).await.unwrap().output.unwrap(), json!([7]));
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_runs_is_told_and_who_is_slow_is_told_what_was_lost() {
    let quiet = Quiet::new().await;
    let one = quiet.define("one", "do: [ one: { set: { a: 1 } } ]\n").await;
    let (mut reads, mut sleeps) = (quiet.engine.lifecycle(), quiet.engine.lifecycle());
    quiet.start(&one, json!({})).await;
    let mut types = Vec::new();
    while types.last() != Some(&"io.serverlessworkflow.workflow.completed.v1".to_owned()) {
        match reads.next().await.unwrap() {
            Told::Event(event) => types.push(event["type"].as_str().unwrap().to_owned()),
            Told::Lost(lost) => panic!("{lost} were lost"),
        }
    }
    assert_eq!(types.len(), 5, "{types:?}");
    for _ in 0..LIFECYCLE_MAX / 6 + 1 {
        quiet.start(&one, json!({})).await;
    }
    assert!(matches!(sleeps.next().await, Some(Told::Lost(_))));
    assert!(matches!(sleeps.next().await, Some(Told::Event(_))));
}
