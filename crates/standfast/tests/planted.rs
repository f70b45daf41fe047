//! The prover is proven: each planted bug must make `prove` fail, and for the right reason.
#![cfg(feature = "planted-bugs")]
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests are outside the seams, and may fail by panic"
)]

#[path = "suite/world.rs"]
#[allow(dead_code, reason = "the other tests use the rest of it")]
mod world;

use serde_json::Value;
use world::World;

fn stack(experiments: &str) -> String {
    format!(
        "
load:
  work: {{method: POST, path: /do, idempotency_key: true, rate: 200/s, timeout: 5s}}
invariants:
  - {{name: every request has one effect, load: work, effects: {{service: quick, prefix: ledger/}}, per: id, exactly: 1}}
experiments: [{experiments}]
"
    )
}

/// Runs a proof with a planted bug and gives its exit code and all its reasons in one text.
fn prove(plant: Option<&str>, experiments: &str) -> (i32, String) {
    let world = World::with_quick(&stack(experiments));
    let mut arguments = vec!["prove", "--seed", "7", "--json"];
    if let Some(plant) = plant {
        arguments.extend(["--plant", plant]);
    }
    let ran = world.run(&arguments);
    let report: Value =
        serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("no report: {}", ran.stderr));
    let reasons = report["judgement"]["reasons"].to_string();
    assert!(world.processes().is_empty(), "left behind: {:?}", world.processes());
    (ran.code, reasons)
}

#[track_caller]
fn is_caught(plant: &str, experiments: &str, code: i32, reason: &str) {
    let (seen, reasons) = prove(Some(plant), experiments);
    assert!(seen == code && reasons.contains(reason), "exit code {seen}, reasons: {reasons}");
    println!("caught `{plant}`: {reasons}");
}

/// A workflow whose only step has had its effect for a while before it is answered.
fn pays() -> (&'static str, &'static str) {
    let stack = "
load:
  work: {method: POST, path: /do, idempotency_key: true, rate: 200/s, timeout: 5s}
  paid: {workflow: test/pay, rate: 40/s, timeout: 5s, body: {id: \"${id}\"}}
invariants:
  - {name: every run pays once, load: paid, effects: {service: quick, prefix: ledger/}, per: id, exactly: 1}
experiments: [{fault: node-kill}, {fault: node-kill}]
";
    let workflow = "
document: {dsl: '1.0.3', namespace: test, name: pay, version: '1.0.0'}
do:
  - pay:
      call: http
      with: {method: post, endpoint: http://quick/do/300, headers: {x-id: '${ .id }'}, output: response}
";
    (stack, workflow)
}

/// Runs a proof of runs and gives its exit code and its report.
fn prove_runs(plant: Option<&str>) -> (i32, Value) {
    let (stack, workflow) = pays();
    let world = World::with_quick(stack);
    std::fs::create_dir(world.stack().join("workflows")).unwrap();
    world.write("workflows/pay.yaml", workflow);
    let mut arguments = vec!["prove", "--seed", "7", "--json"];
    if let Some(plant) = plant {
        arguments.extend(["--plant", plant]);
    }
    let ran = world.run(&arguments);
    let report = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("no report: {}", ran.stderr));
    assert!(world.processes().is_empty(), "left behind: {:?}", world.processes());
    (ran.code, report)
}

#[test]
fn without_a_bug_runs_pay_once_over_two_kills_of_the_node() {
    let (code, report) = prove_runs(None);
    assert_eq!(code, 0, "{}", report["judgement"]["reasons"]);
    let facts = &report["record"]["workflows"][0];
    assert!(facts["ended"].as_u64() >= Some(100) && facts["ended"] == facts["started"], "{facts}");
}

#[test]
fn a_key_that_changes_with_each_attempt_is_caught_as_doubled_work() {
    let (code, report) = prove_runs(Some("new-key-per-attempt"));
    let reasons = report["judgement"]["reasons"].to_string();
    assert!(
        code == 1 && reasons.contains("every run pays once") && reasons.contains("more often than once"),
        "{code}: {reasons}"
    );
    println!("caught `new-key-per-attempt`: {reasons}");
}

const KILLS: &str = "{fault: replica-kill, times: 3, every: 500ms}";
const FREEZE: &str = "{fault: replica-freeze, lasts: 5s}";

#[test]
fn without_a_bug_the_same_stack_holds() {
    let (code, reasons) = prove(None, &format!("{KILLS}, {FREEZE}, {{fault: node-kill}}"));
    assert_eq!(code, 0, "{reasons}");
}

#[test]
fn acknowledging_before_the_commit_is_caught_as_lost_work() {
    is_caught("acknowledge-before-commit", "{fault: node-kill}, {fault: node-kill}", 1, "lost");
}

#[test]
fn dropping_one_write_in_a_thousand_is_caught_as_lost_work() {
    is_caught("drop-one-write", &format!("{KILLS}, {FREEZE}"), 1, "lost");
}

#[test]
fn applying_a_retry_twice_is_caught_as_doubled_work() {
    is_caught("apply-retry-twice", &format!("{FREEZE}, {KILLS}"), 1, "more often than once");
}

#[test]
fn a_health_check_that_always_passes_is_caught() {
    is_caught("always-healthy", FREEZE, 1, "ready");
}

#[test]
fn a_balancer_that_keeps_a_dead_replica_is_caught() {
    is_caught("keep-dead-replica", KILLS, 1, "fail");
}

#[test]
fn a_fault_that_does_nothing_is_caught() {
    is_caught("fault-does-nothing", KILLS, 4, "did not bite");
}
