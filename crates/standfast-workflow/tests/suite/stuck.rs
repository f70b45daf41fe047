//! Runs that do not go on are found and named within a minute.

use std::time::Duration;

use serde_json::json;
use standfast_workflow::{EngineConfig, RunId, Status, StuckKind};

use super::quiet::Quiet;

/// What is said of a run: of what kind its trouble is, and the sentence.
fn said(quiet: &Quiet, id: RunId) -> Option<(StuckKind, String)> {
    let found = quiet.engine.stuck().into_iter().find(|stuck| stuck.id == id)?;
    Some((found.kind, found.why))
}

fn listen(kind: &str, more: &str) -> String {
    format!("do: [ await: {{ listen: {{ to: {{ one: {{ with: {{ type: {kind} }} }} }} }} {more} }} ]\n")
}

#[tokio::test(start_paused = true)]
async fn a_run_that_waits_for_what_nobody_sends_is_named_and_no_other() {
    let quiet = Quiet::new().await;
    let lost = quiet.define("lost", &listen("nobody.sends", "")).await;
    let limited = quiet.define("limited", &listen("nobody.sends", ", timeout: { after: PT1H }")).await;
    let heard = quiet.define("heard", &listen("has.come", "")).await;
    let emitted = quiet.define("emitted", &listen("is.emitted", "")).await;
    quiet
        .define("emits", "do: [ a: { emit: { event: { with: { source: s, type: is.emitted } } } } ]\n")
        .await;
    quiet.publish(json!({"id": "1", "source": "s", "type": "has.come"})).await;
    let lost = quiet.start(&lost, json!({})).await;
    let mut others = Vec::new();
    for name in [limited, heard, emitted] {
        others.push(quiet.start(&name, json!({})).await);
    }
    quiet.pass(20).await;
    assert_eq!(said(&quiet, lost), None, "it may come yet");
    quiet.pass(30).await;
    let (kind, why) = said(&quiet, lost).expect("it is named within a minute");
    assert_eq!(kind, StuckKind::Unheard);
    assert!(why.contains("`nobody.sends`") && why.contains("no workflow here emits one"), "{why}");
    for id in others {
        assert_eq!(said(&quiet, id), None);
    }
    // Also of one that another process put to sleep.
    let quiet = quiet.crash(Duration::from_secs(2)).await;
    quiet.define("emits", "do: [ a: { set: { b: 1 } } ]\n").await;
    quiet.pass(1).await;
    assert_eq!(said(&quiet, lost).map(|(kind, _)| kind), Some(StuckKind::Unheard));
    quiet.publish(json!({"id": "2", "source": "s", "type": "nobody.sends"})).await;
    assert_eq!(quiet.engine.wait(lost).await.unwrap().status, Status::Completed);
    assert_eq!(said(&quiet, lost), None);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_while_a_workflow_computes_what_it_emits() {
    let quiet = Quiet::new().await;
    let lost = quiet.define("lost", &listen("nobody.sends", "")).await;
    quiet
        .define("emits", "do: [ a: { emit: { event: { with: { source: s, type: '${ .kind }' } } } } ]\n")
        .await;
    let lost = quiet.start(&lost, json!({})).await;
    quiet.pass(60).await;
    assert_eq!(said(&quiet, lost), None);
}

#[tokio::test(start_paused = true)]
async fn a_run_for_which_there_is_no_room_is_named() {
    let config = EngineConfig { awake_max: 1, ..EngineConfig::default() };
    let quiet = Quiet::with(config).await;
    // What is asked is never answered.
    let asks = quiet
        .define("asks", "do: [ a: { call: http, with: { method: get, endpoint: http://a.example/ } } ]\n")
        .await;
    let first = quiet.start(&asks, json!({})).await;
    let second = quiet.start(&asks, json!({})).await;
    quiet.pass(50).await;
    assert_eq!(said(&quiet, first), None, "it is asking");
    let (kind, why) = said(&quiet, second).expect("it is named within a minute");
    assert_eq!(kind, StuckKind::Overdue);
    assert!(why.contains("there is no room for it"), "{why}");
}
