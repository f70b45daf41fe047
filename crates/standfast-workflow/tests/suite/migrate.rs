//! Runs that go over to another version of their document: what was begun is found in it by name, or the run stays as it is.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use standfast_runtime::Clock;
use standfast_store::{MemoryStore, Store};
use standfast_workflow::{EngineConfig, Event, Migration, Refused, Run, RunId, Status};

use super::rig::{PATIENCE, Rig};

/// Defines both versions, starts a run of the first, and waits until it stands as it is to.
pub(super) async fn begun(rig: &Rig, one: &str, other: &str, stands: impl Fn(&Run) -> bool) -> RunId {
    let name = rig.try_define_version("moves", "1.0.0", one).await.unwrap();
    rig.try_define_version("moves", "2.0.0", other).await.unwrap();
    let id = rig.start(&name, json!({"go": true})).await;
    until(rig, id, stands).await;
    id
}

/// Waits until a run stands as it is to.
pub(super) async fn until(rig: &Rig, id: RunId, stands: impl Fn(&Run) -> bool) {
    let waiting = async {
        loop {
            let shown = rig.engine.show(id).await.unwrap();
            let run = shown.run.unwrap_or_else(|| panic!("it ended: {:?}", shown.summary));
            if stands(&run) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    rig.clock.timeout(PATIENCE, waiting).await.expect("it comes there");
}

/// Whether a task of this name is under way.
pub(super) fn at(name: &str) -> impl Fn(&Run) -> bool {
    let end = format!("/{name}");
    move |run| run.scopes.values().any(|scope| scope.task.ends_with(&end) && scope.active == 0)
}

fn listen(name: &str) -> String {
    format!("{name}: {{ listen: {{ to: {{ one: {{ with: {{ type: io.standfast.signal.{name} }} }} }} }} }}")
}

fn call(name: &str) -> String {
    format!("{name}: {{ call: http, with: {{ method: post, endpoint: SERVICE/{name} }} }}")
}

/// A list of tasks, each a line.
fn tasks(all: &[&str]) -> String {
    all.iter().fold("do:\n".to_owned(), |text, task| format!("{text}  - {task}\n"))
}

pub(super) fn keys(rig: &Rig) -> Vec<String> {
    let key = |key: &String| key.trim_matches('"').to_owned();
    let mut keys: Vec<String> = rig.service.seen(|seen| seen.effects.keys().map(key).collect());
    keys.sort();
    keys
}

/// Waits until the service was asked so often.
async fn until_asked(rig: &Rig, path: &str, times: usize) {
    let asked = async {
        while rig.service.seen(|seen| seen.requests.get(path).is_none_or(|asked| *asked < times)) {
            tokio::task::yield_now().await;
        }
    };
    rig.clock.timeout(PATIENCE, asked).await.expect("it is asked");
}

fn told(migration: &Migration) -> Vec<String> {
    let reasons = migration.reasons.iter().map(|reason| format!("{}: {}", reason.task, reason.why));
    reasons.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_goes_on_by_the_new_version_from_where_it_stands() {
    let rig = Rig::new().await;
    let (reserve, go, charge) = (call("reserve"), listen("go"), call("charge"));
    let one = tasks(&[&reserve, &go, &charge]);
    let other = tasks(&["audit: { set: { audited: true } }", &reserve, &go, &call("verify"), &charge]);
    let id = begun(&rig, &one, &other, at("go")).await;
    let before = rig.engine.show(id).await.unwrap();

    let dry = rig.engine.migrate(id, "2.0.0", true).await.unwrap();
    assert!(dry.goes() && !dry.is_done_before(), "{dry:?}");
    assert_eq!(dry.places, [("/do/1/go".into(), "/do/2/go".into())].into());
    let notes: Vec<(&str, &str)> = dry.notes.iter().map(|note| (&*note.task, note.why.as_str())).collect();
    assert_eq!(
        notes,
        [("/do/0/audit", "stands before what is reached in version 2.0.0, and is passed over")]
    );
    assert_eq!(rig.engine.show(id).await.unwrap(), before, "a dry run changes nothing");

    assert_eq!(rig.engine.migrate(id, "2.0.0", false).await.unwrap(), dry);
    let shown = rig.engine.show(id).await.unwrap();
    assert_eq!((shown.summary.workflow.version.as_str(), &shown.summary.definition), ("2.0.0", &dry.to));
    assert!(matches!(&shown.records.last().unwrap().events[..], [Event::Migrated(_)]), "{:?}", shown.records);
    let mut replayed = Run::new(id);
    shown.records.iter().for_each(|record| replayed.apply(record));
    assert_eq!(Some(replayed), shown.run);
    assert!(rig.engine.migrate(id, "2.0.0", false).await.unwrap().is_done_before());

    rig.engine.signal(id, "go", Value::Null, None).await.unwrap();
    assert_eq!(rig.end(id).await.status, Status::Completed);
    let expected = ["0/do/0/reserve", "2/do/3/verify", "3/do/4/charge"].map(|place| format!("{id}.{place}"));
    assert_eq!(keys(&rig), expected);
    assert_eq!(rig.engine.migrate(id, "1.0.0", true).await.unwrap_err(), Refused::Ended(id));
    assert_eq!(rig.engine.migrate(id, "1.0.0", false).await.unwrap_err(), Refused::Ended(id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_go_over_stays_as_it_is_and_is_told_why() {
    let go = listen("go");
    let undo = "metadata: { standfast: { compensate: [ { u: { set: { n: 1 } } } ] } }";
    let nested = |inner: &str| tasks(&[&format!("d: {{ do: [ {inner} ] }}")]);
    let tried = |inner: &str| {
        let retry = "catch: { retry: { delay: PT1H, limit: { attempt: { count: 3 } } } }";
        tasks(&[&format!("t: {{ try: [ {inner} ], {retry} }}")])
    };
    let fork = |branches: &str| tasks(&[&format!("f: {{ fork: {{ branches: [ {branches} ] }} }}")]);
    let each = |inner: &str, more: &str| {
        tasks(&[&format!("f: {{ for: {{ each: i, in: '[1, 2]' }}, do: [ {inner} ]{more} }}")])
    };
    let all = |count: usize| {
        let one = |n: usize| format!("{{ with: {{ type: io.standfast.signal.go{n} }} }}");
        let patterns: Vec<String> = (0..count).map(one).collect();
        tasks(&[&format!("go: {{ listen: {{ to: {{ all: [ {} ] }} }} }}", patterns.join(", "))])
    };
    let (plain, goes) = (tasks(&[&go]), format!("{{ {go} }}"));
    let set = "{ a: { set: { n: 1 } } }";
    let cases = [
        (
            plain.clone(),
            tasks(&["gone: { set: { n: 1 } }"]),
            vec!["/do/0/go: it is under way, and version 2.0.0 has no task of that name there"],
        ),
        (
            plain.clone(),
            tasks(&["go: { set: { n: 1 } }"]),
            vec!["/do/0/go: it is under way, and in version 2.0.0 it is `set`, not `listen`"],
        ),
        (
            plain.clone(),
            nested(&goes),
            vec!["/do/0/go: it is under way, and version 2.0.0 has no task of that name there"],
        ),
        (
            nested(&goes),
            plain.clone(),
            vec![
                "/do/0/d: it is under way, and version 2.0.0 has no task of that name there",
                "/do/0/d/do/0/go: it is under way, and version 2.0.0 has no task of that name there",
            ],
        ),
        (
            tasks(&["a: { set: { n: 1 } }", &go]),
            tasks(&[&go, "a: { set: { n: 1 } }"]),
            vec![
                "/do/0/a: it is passed already, and would come again: in version 2.0.0 it stands behind what is reached",
            ],
        ),
        (
            tasks(&[&format!("a: {{ set: {{ n: 1 }}, {undo} }}"), &go]),
            tasks(&["a: { set: { n: 1 } }", &go]),
            vec!["/do/0/a: it was done and is undone if the run fails, and version 2.0.0 does not say how"],
        ),
        (
            tasks(&[&format!("a: {{ set: {{ n: 1 }}, {undo} }}"), &go]),
            plain.clone(),
            vec![
                "/do/0/a: it was done and is undone if the run fails, and version 2.0.0 has no task of that name there",
            ],
        ),
        (
            tried(&format!("{set}, {goes}")),
            tried(&format!("{{ b: {{ set: {{ n: 1 }} }} }}, {set}, {goes}")),
            vec![
                "/do/0/t/try/0/a: another attempt of /do/0/t may do it again, and version 2.0.0 would name its effects otherwise: it is `b` there",
            ],
        ),
        (
            fork(&format!("{set}, {goes}")),
            fork(&goes),
            vec!["/do/0/f: its branches are under way, and version 2.0.0 has others, or in another order"],
        ),
        (
            each(&goes, ""),
            each(&goes, ", metadata: { standfast: { concurrency: 2 } }"),
            vec![
                "/do/0/f: its rounds are under way, and version 2.0.0 has them side by side, one after the other, or collects their errors otherwise",
            ],
        ),
    ];
    for (one, other, expected) in cases {
        let rig = Rig::new().await;
        let id = begun(&rig, &one, &other, at("go")).await;
        let before = rig.engine.show(id).await.unwrap();
        let dry = rig.engine.migrate(id, "2.0.0", true).await.unwrap();
        assert_eq!(told(&dry), expected, "{one}{other}");
        assert_eq!(rig.engine.migrate(id, "2.0.0", false).await.unwrap(), dry);
        assert_eq!(rig.engine.show(id).await.unwrap(), before, "{one}{other}");
    }
    let rig = Rig::new().await;
    let id = begun(&rig, &all(2), &all(3), at("go")).await;
    assert!(rig.engine.migrate(id, "2.0.0", true).await.unwrap().goes(), "it has taken nothing yet");
    rig.engine.signal(id, "go0", Value::Null, None).await.unwrap();
    let refused = rig.engine.migrate(id, "2.0.0", false).await.unwrap();
    assert_eq!(
        told(&refused),
        ["/do/0/go: it has taken events, and version 2.0.0 waits for others, or takes them otherwise"]
    );
    let unknown = rig.engine.migrate(id, "3.0.0", false).await.unwrap_err();
    assert!(unknown.to_string().contains("there is no workflow tests/moves:3.0.0"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_differ_lets_a_run_go_over() {
    let go = listen("go");
    let each = |inner: &str| tasks(&[&format!("f: {{ for: {{ each: i, in: '[1, 2]' }}, do: [ {inner} ] }}")]);
    let tried =
        |inner: &str, catch: &str| tasks(&[&format!("t: {{ try: [ {inner} ], catch: {{ {catch} }} }}")]);
    let retry = "retry: { delay: PT1H, limit: { attempt: { count: 3 } } }";
    let (set, goes) = ("{ a: { set: { n: 1 } } }", format!("{{ {go} }}"));
    let after = "{ z: { raise: { error: { type: 'https://x.example/e', status: 418 } } } }";
    let cases = [
        // A task that was done and on which nothing depends is gone.
        (tasks(&["a: { set: { n: 1 } }", &go]), tasks(&[&go, "z: { set: { n: 2 } }"])),
        (each(&format!("{set}, {goes}")), each(&format!("{{ b: {{ set: {{ n: 2 }} }} }}, {goes}, {after}"))),
        (
            tried(&format!("{set}, {goes}"), retry),
            tried(
                &format!("{{ a: {{ set: {{ n: 2 }} }} }}, {goes}, {after}"),
                "do: [ { c: { set: { n: 1 } } } ]",
            ),
        ),
        (tried(&format!("{set}, {goes}"), ""), tried(&goes, "")),
        (
            format!("use:\n  functions:\n    f: {{ do: [ {goes} ] }}\n{}", tasks(&["a: { call: f }"])),
            format!(
                "use:\n  functions:\n    f: {{ do: [ {set}, {goes} ] }}\n{}",
                tasks(&["b: { set: { n: 1 } }", "a: { call: f }"])
            ),
        ),
    ];
    for (one, other) in cases {
        let rig = Rig::new().await;
        let id = begun(&rig, &one, &other, at("go")).await;
        let migration = rig.engine.migrate(id, "2.0.0", false).await.unwrap();
        assert!(migration.goes(), "{one}{other}{:?}", migration.reasons);
        until(&rig, id, at("go")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_under_way_is_answered_or_asked_again_by_its_key() {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
    let rig = Rig::over(Arc::clone(&memory), EngineConfig::default()).await;
    let held = "{ call: http, with: { method: post, endpoint: SERVICE/held/a, body: N } }";
    let one = tasks(&[&format!("d: {{ do: [ {{ a: {} }} ] }}", held.replace('N', "1"))]);
    let other = tasks(&[
        "first: { set: { n: 1 } }",
        &format!("d: {{ do: [ {{ x: {{ set: {{ n: 1 }} }} }}, {{ a: {} }} ] }}", held.replace('N', "2")),
        &call("then"),
    ]);
    let id = begun(&rig, &one, &other, at("a")).await;
    until_asked(&rig, "/held/a", 1).await;
    let migration = rig.engine.migrate(id, "2.0.0", false).await.unwrap();
    assert!(
        migration.goes() && migration.notes.iter().any(|note| note.why.contains("asks otherwise")),
        "{migration:?}"
    );
    assert_eq!(rig.service.seen(|seen| seen.requests["/held/a"]), 1, "it is not asked twice");
    let service = rig.crash().await;
    service.answers();
    let rig = Rig::beside(memory, EngineConfig::default(), service).await;
    assert_eq!(rig.end(id).await.status, Status::Completed);
    assert_eq!(keys(&rig), [format!("{id}.0.0/do/0/d/do/0/a"), format!("{id}.1/do/2/then")]);
    assert_eq!(rig.service.seen(|seen| seen.requests["/held/a"]), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_attempt_does_the_same_effects_though_the_document_is_another() {
    let rig = Rig::new().await;
    let raise = "{ r: { raise: { error: { type: 'https://x.example/e', status: 418 } } } }";
    let attempt = |after: &str| {
        let retry = "catch: { retry: { delay: { milliseconds: 1 }, limit: { attempt: { count: 1 } } } }";
        format!("t: {{ try: [ {{ {} }}, {{ {} }}, {raise}{after} ], {retry} }}", call("a"), listen("go"))
    };
    let one = tasks(&[&attempt("")]);
    let other = tasks(&["x: { set: { n: 1 } }", &attempt(", { z: { set: { n: 1 } } }")]);
    let id = begun(&rig, &one, &other, at("go")).await;
    assert!(rig.engine.migrate(id, "2.0.0", false).await.unwrap().goes());
    rig.engine.signal(id, "go", Value::Null, Some("1")).await.unwrap();
    until_asked(&rig, "/a", 2).await;
    rig.engine.signal(id, "go", Value::Null, Some("2")).await.unwrap();
    assert_eq!(rig.end(id).await.status, Status::Faulted);
    assert_eq!(keys(&rig), [format!("{id}.0.0/do/0/t/try/0/a")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_done_is_undone_as_the_new_version_has_it_by_the_key_that_it_had() {
    let rig = Rig::new().await;
    let undoable = |undo: &str| {
        format!(
            "a: {{ call: http, with: {{ method: post, endpoint: SERVICE/a }}, metadata: {{ standfast: {{ compensate: [ {{ u: {{ call: http, with: {{ method: post, endpoint: SERVICE/{undo} }} }} }} ] }} }} }}"
        )
    };
    let raise = "r: { raise: { error: { type: 'https://x.example/e', status: 418 } } }";
    let one = tasks(&[&undoable("wrong"), &listen("go"), raise]);
    let other = tasks(&["x: { set: { n: 1 } }", &undoable("right"), &listen("go"), raise]);
    let id = begun(&rig, &one, &other, at("go")).await;
    assert!(rig.engine.migrate(id, "2.0.0", false).await.unwrap().goes());
    rig.engine.signal(id, "go", Value::Null, None).await.unwrap();
    assert_eq!(rig.end(id).await.status, Status::Faulted);
    let requests = rig.service.seen(|seen| seen.requests.clone());
    assert_eq!((requests.get("/wrong"), requests.get("/right")), (None, Some(&1)));
    let key = format!("{id}.0/do/0/a");
    assert_eq!(keys(&rig), [key.clone(), format!("{key}!0/0/u")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wait_for_the_wrong_event_is_mended_though_the_right_one_has_come() {
    let config = EngineConfig { sleep_after: Duration::ZERO, ..EngineConfig::default() };
    let rig = Rig::over(Arc::new(MemoryStore::new(Clock::system())), config).await;
    let wait = |kind: &str| {
        tasks(&[&format!("go: {{ listen: {{ to: {{ one: {{ with: {{ type: {kind} }} }} }} }} }}")])
    };
    let id = begun(&rig, &wait("payed"), &wait("paid"), at("go")).await;
    let event = json!({"specversion": "1.0", "id": "1", "source": "/t", "type": "paid", "data": 7});
    assert_eq!(rig.engine.publish(Arc::new(event)).await.unwrap(), 0);
    rig.engine.hold(id).await.unwrap();
    let held = rig.engine.migrate(id, "2.0.0", false).await.unwrap();
    assert_eq!((held.goes(), held.status), (true, Status::Suspended));
    rig.engine.resume(id).await.unwrap();
    assert_eq!(rig.end(id).await.output.as_deref(), Some(&json!([7])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_is_being_undone_goes_on_with_that_by_the_new_version() {
    let rig = Rig::new().await;
    let raise = "r: { raise: { error: { type: 'https://x.example/e', status: 418 } } }";
    let undoable = |undo: &str| {
        let undo = format!("{{ {} }}, {{ {} }}{undo}", call("first"), listen("go"));
        format!("a: {{ set: {{ n: 1 }}, metadata: {{ standfast: {{ compensate: [ {undo} ] }} }} }}")
    };
    let one = tasks(&[&undoable(""), raise]);
    let other = tasks(&["x: { set: { n: 1 } }", &undoable(&format!(", {{ {} }}", call("more"))), raise]);
    let id = begun(&rig, &one, &other, at("go")).await;
    let migration = rig.engine.migrate(id, "2.0.0", false).await.unwrap();
    assert!(migration.goes(), "{migration:?}");
    rig.engine.signal(id, "go", Value::Null, None).await.unwrap();
    assert_eq!(rig.end(id).await.status, Status::Faulted);
    assert_eq!(keys(&rig), [format!("{id}.0/do/0/a!0/0/first"), format!("{id}.0/do/0/a!2/2/more")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branches_and_rounds_side_by_side_go_over_with_what_is_done_around_their_tasks() {
    let go = listen("go");
    let document = |first: &str, inner: &str| {
        let extend = "use:\n  extensions:\n    - log: { extend: listen, before: [ { note: { set: { n: 1 } } } ], after: [ { noted: { set: { n: 1 } } } ] }\n";
        let rounds = "metadata: { standfast: { concurrency: 2 } }";
        let each = format!(
            "f: {{ for: {{ each: i, in: '[1, 2]' }}, do: [ {inner}{{ {go} }}, {{ {} }} ], {rounds} }}",
            call("a")
        );
        let fork = format!(
            "s: {{ fork: {{ branches: [ {{ {each} }}, {{ b: {{ wait: {{ minutes: 10 }} }} }} ], compete: true }} }}"
        );
        format!("{extend}do:\n{first}  - {fork}\n")
    };
    let one = document("", "");
    let other = document("  - x: { set: { n: 1 } }\n", "{ y: { set: { n: 1 } } }, ");
    let rig = Rig::new().await;
    let both = |run: &Run| {
        run.scopes.values().filter(|scope| scope.task.ends_with("/go") && scope.active == 0).count() == 2
    };
    let id = begun(&rig, &one, &other, both).await;
    let migration = rig.engine.migrate(id, "2.0.0", false).await.unwrap();
    assert!(migration.goes(), "{migration:?}");
    rig.engine.signal(id, "go", Value::Null, None).await.unwrap();
    assert_eq!(rig.end(id).await.status, Status::Completed);
    let key = |round: usize| format!("{id}.0.0.{round}.1/do/0/s/fork/branches/0/f/do/2/a");
    assert_eq!(keys(&rig), [key(0), key(1)]);
}
