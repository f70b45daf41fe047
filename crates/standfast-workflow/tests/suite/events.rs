//! Events on their way to runs: none is lost, none counts twice.

use std::sync::Arc;
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
    assert_eq!(types.len(), 8, "{types:?}");
    for _ in 0..LIFECYCLE_MAX / 9 + 1 {
        quiet.start(&one, json!({})).await;
    }
    assert!(matches!(sleeps.next().await, Some(Told::Lost(_))));
    assert!(matches!(sleeps.next().await, Some(Told::Event(_))));
}

/// Waits for an event about its order, which is told by `FROM` and expected as `EXPECT`.
const ABOUT: &str = "do:
  - know: { set: '${ . }', export: { as: '${ . }' } }
  - await: { listen: { to: { one: { with: { type: paid }, correlate: { order: { from: FROM, expect: EXPECT } } } } } }
";

fn paid(id: &str, order: &Value) -> Value {
    json!({"id": id, "source": "s", "type": "paid", "subject": "17", "data": {"order": order}})
}

#[tokio::test(start_paused = true)]
async fn an_event_is_given_only_to_the_runs_that_expect_it() {
    let ways = ["'${ .order }'", "'${ $input.order }'", "'${ $context.order }'"];
    for (at, expect) in ways.into_iter().enumerate() {
        let quiet = Quiet::new().await;
        let document = ABOUT.replace("FROM", "'${ .data.order }'").replace("EXPECT", expect);
        let about = quiet.define("about", &document).await;
        let mut runs = Vec::new();
        for order in 0..20 {
            runs.push(quiet.start(&about, json!({"order": order})).await);
        }
        quiet.pass(u64::from(at == 1)).await; // asleep, and not
        assert_eq!(quiet.publish(paid("a", &json!(7))).await, 1, "{expect}");
        assert_eq!(quiet.publish(paid("b", &json!("7"))).await, 0, "{expect}: another type of value");
        assert_eq!(quiet.publish(paid("c", &json!({"a": 7}))).await, 0, "{expect}: not a plain value");
        assert_eq!(quiet.publish(paid("d", &json!(8))).await, 1, "{expect}");
        assert_eq!(quiet.engine.wait(runs[7]).await.unwrap().status, Status::Completed, "{expect}");
        assert_eq!(quiet.engine.wait(runs[8]).await.unwrap().status, Status::Completed, "{expect}");
        // Those that another process put to sleep are looked up again.
        let quiet = quiet.crash(Duration::from_secs(2)).await;
        quiet.pass(1).await;
        assert_eq!(quiet.publish(paid("e", &json!(9))).await, 1, "{expect}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_is_given_to_a_run_that_computes_what_it_expects() {
    let quiet = Quiet::new().await;
    let document =
        ABOUT.replace("FROM", "'${ .data.order | tostring }'").replace("EXPECT", "'${ \"\\(.order)\" }'");
    let about = quiet.define("about", &document).await;
    let id = quiet.start(&about, json!({"order": 7})).await;
    quiet.publish(paid("a", &json!(6))).await;
    quiet.publish(paid("b", &json!(7))).await;
    let ended = quiet.engine.wait(id).await.unwrap();
    assert_eq!(*ended.output.unwrap(), json!([{"order": 7}]));
}

#[tokio::test(start_paused = true)]
async fn an_event_in_which_the_place_cannot_be_harms_nobody() {
    let quiet = Quiet::new().await;
    let document = ABOUT.replace("FROM", "'${ .data.order.number + 0 }'").replace("EXPECT", "'${ .order }'");
    let about = quiet.define("about", &document).await;
    let id = quiet.start(&about, json!({"order": 7})).await;
    quiet.publish(paid("a", &json!("text"))).await;
    quiet.publish(paid("b", &json!({"number": 7}))).await;
    let ended = quiet.engine.wait(id).await.unwrap();
    assert_eq!(*ended.output.unwrap(), json!([{"order": {"number": 7}}]));
}

#[tokio::test(start_paused = true)]
async fn many_events_at_once_are_taken_in_their_order() {
    let quiet = Quiet::new().await;
    let all = "do: [ await: { listen: { to: { any: [ { with: { type: a } } ], until: '${ length == 600 }' } } } ]\n";
    let all = quiet.define("all", all).await;
    let id = quiet.start(&all, json!({})).await;
    let names: Vec<String> = (0..600).map(|number| number.to_string()).collect();
    let events: Vec<Arc<Value>> = names.iter().map(|name| Arc::new(event(name, "a"))).collect();
    let given = quiet.engine.publish_all(&events).await.unwrap();
    assert_eq!(given, vec![1; 600]);
    let ended = quiet.engine.wait(id).await.unwrap();
    assert_eq!(*ended.output.unwrap(), json!(names));
}
