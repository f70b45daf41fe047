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

/// What is beside a schedule, and a run that takes so long.
fn beside(options: &str, schedule: &str, takes: &str) -> String {
    format!(
        "  metadata: {{ standfast: {{ schedule: {{ {options} }} }} }}\nschedule: {{ {schedule} }}\ndo: [ rest: {{ wait: {takes} }} ]\n"
    )
}

#[tokio::test(start_paused = true)]
async fn cron_counts_by_the_clocks_of_its_zone_and_says_so() {
    let quiet = Quiet::new().await;
    quiet.define("early", &beside("timeZone: America/New_York", "cron: '30 6 * * *'", "PT1S")).await;
    let told = quiet.engine.scheduled();
    assert_eq!(told[0].next_there.as_deref(), Some("2026-01-01T06:30:00-05:00[America/New_York]"));
    assert_eq!(
        (told[0].next.unwrap().to_string().as_str(), told[0].last),
        ("2026-01-01T11:30:00.000Z", None)
    );
    quiet.pass(86_400).await;
    assert_eq!(quiet.starts_of("early").await, [41_400]);
    let told = quiet.engine.scheduled();
    assert_eq!(told[0].next_there.as_deref(), Some("2026-01-02T06:30:00-05:00[America/New_York]"));
    assert_eq!(told[0].last, Some(quiet.runs_of("early").await[0].id));
}

#[tokio::test(start_paused = true)]
async fn what_is_done_when_the_run_before_goes_on_is_as_the_document_says() {
    for (overlap, takes, expected) in [
        ("allowAll", "PT25S", &[10, 20, 30, 40, 50, 60][..]),
        ("skip", "PT25S", &[10, 40]),
        ("bufferOne", "PT25S", &[10, 35, 60]),
        ("bufferAll", "PT15S", &[10, 25, 40, 55]),
        ("cancelOther", "PT25S", &[10, 20, 30, 40, 50, 60]),
    ] {
        let quiet = Quiet::new().await;
        quiet.define("often", &beside(&format!("overlap: {overlap}"), "every: PT10S", takes)).await;
        quiet.pass(61).await;
        assert_eq!(quiet.starts_of("often").await, expected, "{overlap}");
        let statuses: Vec<&str> = quiet.runs_of("often").await.iter().map(|run| run.status.word()).collect();
        let cancelled = statuses.iter().filter(|status| **status == "cancelled").count();
        assert_eq!(cancelled, if overlap == "cancelOther" { expected.len() - 1 } else { 0 }, "{overlap}");
    }
}

#[tokio::test(start_paused = true)]
async fn runs_that_are_undone_when_they_are_cancelled_are_waited_for() {
    let document = "  metadata: { standfast: { schedule: { overlap: cancelOther } } }\nschedule: { every: PT10S }\ndo:\n  - one: { set: { a: 1 }, metadata: { standfast: { compensate: [ { undo: { wait: PT4S } } ] } } }\n  - rest: { wait: PT1H }\n";
    let quiet = Quiet::new().await;
    quiet.define("careful", document).await;
    quiet.pass(39).await;
    // Each begins when the one before is undone.
    assert_eq!(quiet.starts_of("careful").await, [10, 24, 34]);
}

#[tokio::test(start_paused = true)]
async fn times_that_were_missed_are_made_good_as_far_back_as_the_document_says() {
    for (catch_up, expected) in [
        ("latest", &[10, 65, 70][..]),
        ("none", &[10, 65, 70]),
        ("all", &[10, 65, 65, 65, 65, 65, 70]),
        ("PT25S", &[10, 65, 65, 65, 70]),
    ] {
        let document = beside(&format!("catchUp: {catch_up}"), "every: PT10S", "PT1S");
        let quiet = Quiet::new().await;
        quiet.define("often", &document).await;
        quiet.pass(12).await;
        let quiet = quiet.crash(Duration::from_secs(53)).await; // 20 to 60 are missed
        quiet.define("often", &document).await;
        quiet.pass(8).await;
        assert_eq!(quiet.starts_of("often").await, expected, "{catch_up}");
    }
    // Too late by more than 10 s.
    let document = beside("catchUp: none", "every: PT30S", "PT1S");
    let quiet = Quiet::new().await;
    quiet.define("seldom", &document).await;
    let quiet = quiet.crash(Duration::from_secs(45)).await;
    quiet.define("seldom", &document).await;
    quiet.pass(20).await;
    assert_eq!(quiet.starts_of("seldom").await, [60]);
}

#[tokio::test(start_paused = true)]
async fn crashes_at_any_moment_change_nothing_about_overlaps() {
    for (overlap, expected) in [
        ("skip", vec![2, 6, 10, 14, 18, 22, 26, 30]),
        ("bufferAll", vec![2, 5, 8, 11, 14, 17, 20, 23, 26, 29]),
        ("cancelOther", (1..=15).map(|number| number * 2).collect()),
    ] {
        let document = beside(&format!("overlap: {overlap}, catchUp: all"), "every: PT2S", "PT3S");
        for step in [1_100, 1_300, 1_900, 2_700] {
            let mut quiet = Quiet::new().await;
            for _ in 0..=32_000 / step {
                quiet.define("often", &document).await;
                quiet.clock.sleep(Duration::from_millis(step)).await;
                quiet = quiet.crash(Duration::ZERO).await;
            }
            let mut starts = quiet.starts_of("often").await;
            starts.retain(|start| *start <= 30);
            assert_eq!(starts, expected, "{overlap}, a crash each {step} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn jitter_moves_each_start_and_a_crash_moves_none_of_them_again() {
    let document = beside("jitter: PT8S, catchUp: all", "every: PT10S", "PT1S");
    let mut all = Vec::new();
    for crashes in [false, true] {
        let mut quiet = Quiet::new().await;
        let name = quiet.define("often", &document).await;
        for _ in 0..100 {
            quiet.pass(1).await;
            if crashes {
                quiet = quiet.crash(Duration::ZERO).await;
                quiet.define(&name.name, &document).await;
            }
        }
        all.push(quiet.starts_of("often").await);
    }
    assert_eq!(all[0], all[1]);
    assert!(all[0].len() >= 9, "{all:?}");
    for (number, start) in (1..).zip(&all[0]) {
        assert!((number * 10..number * 10 + 8).contains(start), "{all:?}");
    }
    assert!(all[0].iter().any(|start| start % 10 != 0), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn options_that_were_changed_make_another_schedule_that_knows_the_last_run() {
    let quiet = Quiet::new().await;
    quiet.define("often", &beside("overlap: allowAll", "every: PT10S", "PT1H")).await;
    quiet.pass(15).await;
    quiet.define("often", &beside("overlap: skip", "every: PT10S", "PT1H")).await;
    quiet.pass(30).await;
    assert_eq!(quiet.starts_of("often").await, [10]);
}

#[tokio::test(start_paused = true)]
async fn a_crash_at_any_commit_neither_loses_nor_doubles_a_run_nor_lets_two_overlap() {
    let mut crashes = 0;
    for (overlap, expected) in
        [("allowAll", Some(6)), ("bufferAll", None), ("skip", None), ("cancelOther", None)]
    {
        let document = beside(&format!("overlap: {overlap}, catchUp: all"), "every: PT10S", "PT12S");
        for is_done in [false, true] {
            for commits in 0.. {
                let lives = Duration::from_secs(33);
                let (stopped, quiet) = Quiet::mortal(commits, is_done, lives, ("often", &document)).await;
                quiet.pass(29).await; // 62 s
                let mut runs = quiet.runs_of("often").await;
                // Some may have begun and ended in the same moment.
                runs.sort_by_key(|run| (run.started_at, run.changed_at));
                let case = format!("{overlap}, a crash at commit {commits}, done: {is_done}: {runs:?}");
                match expected {
                    // One for each time since the schedule came into force: of none is there a second.
                    Some(expected) if commits > 5 => assert_eq!(runs.len(), expected, "{case}"),
                    Some(expected) => assert!(runs.len() <= expected, "{case}"),
                    None => {
                        for pair in runs.windows(2) {
                            assert!(pair[0].status.is_final(), "{case}");
                            assert!(pair[0].changed_at <= pair[1].started_at, "{case}");
                        }
                        assert!(runs.len() > usize::from(commits > 5), "{case}");
                    }
                }
                quiet.end().await;
                if !stopped {
                    break;
                }
                crashes += 1;
            }
        }
    }
    assert!(crashes > 50, "only {crashes} crashes were tried");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_back_starts_no_run_a_second_time() {
    for overlap in ["allowAll", "skip", "bufferAll"] {
        let document = beside(&format!("overlap: {overlap}, catchUp: all"), "every: PT10S", "PT1S");
        let quiet = Quiet::new().await;
        quiet.define("often", &document).await;
        quiet.pass(25).await;
        let quiet = quiet.crash_and_set_back(Duration::from_secs(15)).await;
        quiet.define("often", &document).await;
        // It is 10 s again; the next one is due at 30 s.
        quiet.pass(19).await;
        assert_eq!(quiet.runs_of("often").await.len(), 2, "{overlap}");
        quiet.pass(3).await;
        assert_eq!(quiet.starts_of("often").await, [10, 20, 30], "{overlap}");
    }
}
