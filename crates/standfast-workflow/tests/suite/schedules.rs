//! Runs that begin by themselves: at their times, once each, also over crashes.

use std::time::Duration;

use serde_json::{Value, json};

use super::quiet::Quiet;

const NOTHING: &str = "do: [ one: { set: '${ . }' } ]\n";

fn with(schedule: &str) -> String {
    format!("schedule: {schedule}\n{NOTHING}")
}

fn event(id: &str, kind: &str) -> Value {
    json!({"id": id, "source": "s", "type": kind, "data": id})
}

#[tokio::test(start_paused = true)]
async fn each_interval_starts_one_run_and_not_before_it_is_over() {
    let quiet = Quiet::new().await;
    quiet.define("often", &with("{ every: PT10S }")).await;
    quiet.pass(9).await;
    assert!(quiet.starts_of("often").await.is_empty());
    quiet.pass(27).await;
    assert_eq!(quiet.starts_of("often").await, [10, 20, 30]);
    assert_eq!(*quiet.runs_of("often").await[0].input, json!({}));
}

#[tokio::test(start_paused = true)]
async fn times_that_were_missed_are_made_good_by_one_run() {
    let quiet = Quiet::new().await;
    quiet.define("often", &with("{ every: PT10S }")).await;
    quiet.pass(12).await;
    let quiet = quiet.crash(Duration::from_secs(33)).await; // 20, 30 and 40 are missed
    quiet.define("often", &with("{ every: PT10S }")).await;
    quiet.pass(8).await;
    assert_eq!(quiet.starts_of("often").await, [10, 45, 50]);
}

#[tokio::test(start_paused = true)]
async fn crashes_at_any_moment_double_and_lose_no_run() {
    let mut quiet = Quiet::new().await;
    for _ in 0..30 {
        quiet.define("often", &with("{ every: PT2S }")).await;
        quiet.clock.sleep(Duration::from_millis(1_500)).await;
        quiet = quiet.crash(Duration::ZERO).await;
    }
    let starts = quiet.starts_of("often").await;
    let expected: Vec<u64> = (1..=starts.len() as u64).map(|number| number * 2).collect();
    assert_eq!(starts, expected);
    assert!(starts.len() >= 22, "{starts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_changed_schedule_takes_the_place_of_the_old_one_and_a_removed_one_ends() {
    let quiet = Quiet::new().await;
    quiet.define("often", &with("{ every: PT10S }")).await;
    quiet.pass(11).await;
    // The same schedule again changes nothing.
    quiet.define("often", &with("{ every: PT10S }")).await;
    quiet.pass(10).await;
    quiet.define("often", &with("{ every: PT4S }")).await;
    quiet.pass(9).await;
    assert_eq!(quiet.starts_of("often").await, [10, 20, 25, 29]);
    quiet.define("often", NOTHING).await;
    quiet.pass(60).await;
    assert_eq!(quiet.starts_of("often").await.len(), 4);
    let name = quiet.define("often", &with("{ every: PT4S }")).await;
    quiet.pass(5).await;
    quiet.engine.remove(&name).await.unwrap();
    quiet.pass(60).await;
    assert_eq!(quiet.starts_of("often").await.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn cron_starts_runs_at_its_minutes() {
    let quiet = Quiet::new().await;
    quiet.define("nightly", &with("{ cron: '30 6 * * *' }")).await;
    quiet.pass(2 * 86_400).await;
    assert_eq!(quiet.starts_of("nightly").await, [23_400, 86_400 + 23_400]);
}

#[tokio::test(start_paused = true)]
async fn the_next_run_begins_some_time_after_the_last_has_ended() {
    let quiet = Quiet::new().await;
    let document = "schedule: { after: PT10S }\ndo: [ rest: { wait: PT5S } ]\n";
    quiet.define("again", document).await;
    quiet.pass(17).await;
    assert_eq!(quiet.starts_of("again").await, [0, 15]);
    let quiet = quiet.crash(Duration::from_secs(1)).await;
    quiet.define("again", document).await;
    quiet.pass(14).await;
    assert_eq!(quiet.starts_of("again").await, [0, 15, 30]);
}

#[tokio::test(start_paused = true)]
async fn each_event_starts_one_run_by_itself() {
    let quiet = Quiet::new().await;
    quiet.define("reacts", &with("{ on: { one: { with: { type: a } } } }")).await;
    for id in ["1", "2", "2", "3"] {
        quiet.publish(event(id, "a")).await;
    }
    quiet.publish(event("4", "b")).await;
    let quiet = quiet.crash(Duration::from_secs(1)).await;
    quiet.define("reacts", &with("{ on: { one: { with: { type: a } } } }")).await;
    quiet.publish(event("3", "a")).await;
    quiet.pass(1).await;
    let mut inputs: Vec<Value> =
        quiet.runs_of("reacts").await.iter().map(|run| run.input[0]["data"].clone()).collect();
    inputs.sort_by_key(Value::to_string);
    assert_eq!(inputs, ["1", "2", "3"]);
}

#[tokio::test(start_paused = true)]
async fn events_are_gathered_over_a_crash() {
    let schedule = with("{ on: { all: [ { with: { type: a } }, { with: { type: b } } ] } }");
    let quiet = Quiet::new().await;
    quiet.define("pairs", &schedule).await;
    quiet.publish(event("1", "a")).await;
    let quiet = quiet.crash(Duration::from_secs(1)).await;
    // What comes before anybody looks is looked at then.
    quiet.publish(event("2", "b")).await;
    quiet.define("pairs", &schedule).await;
    quiet.publish(event("3", "b")).await;
    quiet.publish(event("4", "a")).await;
    quiet.pass(1).await;
    let mut inputs: Vec<Value> =
        quiet.runs_of("pairs").await.iter().map(|run| Value::clone(&run.input)).collect();
    // Both were started in the same moment.
    inputs.sort_by_key(Value::to_string);
    assert_eq!(
        inputs,
        [json!([event("1", "a"), event("2", "b")]), json!([event("3", "b"), event("4", "a")])]
    );
}
