//! The processes: that none hangs, that none is blamed for another, and that none is left.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use standfast_workflow::{EvaluatorConfig, Trial};

use super::{config, told, works};

/// Waits for something that is bound to happen.
#[expect(clippy::disallowed_methods, reason = "the time that really passes is what is tested")]
fn until(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it has not happened");
        std::thread::yield_now();
    }
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(id.try_into().unwrap()).unwrap()
}

fn exists(id: u32) -> bool {
    test_kill_process(pid(id)).is_ok()
}

/// A shell that is no evaluator.
fn shell(script: &str) -> Trial {
    Trial::new(EvaluatorConfig {
        program: PathBuf::from("/bin/sh"),
        arguments: vec![OsString::from("-c"), OsString::from(script)],
        time_max: Duration::from_secs(2),
        ..config()
    })
}

#[test]
fn no_child_is_started_for_what_is_cheap_and_none_is_left_behind() {
    let trial = Trial::new(config());
    assert_eq!(told(trial.evaluate(".a", &json!({"a": 1}), &[])), "1");
    assert!(trial.idle_process_ids().is_empty());
    assert!(works(&trial) && works(&trial));
    let ids = trial.idle_process_ids();
    assert_eq!(ids.len(), 1, "one caller needs one child");
    assert!(exists(ids[0]));
    drop(trial);
    assert!(!exists(ids[0]));
}

#[test]
fn a_child_that_is_killed_fails_its_own_expression_only() {
    let trial = Trial::new(EvaluatorConfig { children_max: 1, ..config() });
    assert!(works(&trial));
    let id = trial.idle_process_ids()[0];
    std::thread::scope(|scope| {
        let evaluation = scope.spawn(|| told(trial.evaluate("until(false; .)", &Value::Null, &[])));
        until(|| trial.idle_process_ids().is_empty());
        kill_process(pid(id), Signal::KILL).unwrap();
        let outcome = evaluation.join().unwrap();
        assert_eq!(outcome, "error: its evaluation broke off: its process ended (signal: 9 (SIGKILL))");
    });
    assert!(works(&trial));
    assert_ne!(trial.idle_process_ids(), [id]);
}

#[test]
fn a_child_that_dies_idle_is_replaced_and_nobody_notices() {
    let trial = Trial::new(config());
    assert!(works(&trial));
    let id = trial.idle_process_ids()[0];
    kill_process(pid(id), Signal::KILL).unwrap();
    // It can be waited for, which the next evaluation does, when all of its threads are gone and the first is what is left of it.
    let is_dead = || {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let threads = std::fs::read_dir(format!("/proc/{id}/task")).unwrap().count();
        status.contains("zombie") && threads == 1
    };
    until(is_dead);
    assert!(works(&trial));
}

#[test]
fn a_stopped_child_is_late() {
    let trial = Trial::new(EvaluatorConfig { time_max: Duration::from_millis(500), ..config() });
    assert!(works(&trial));
    kill_process(pid(trial.idle_process_ids()[0]), Signal::STOP).unwrap();
    // More than fits into a pipe, so that even asking it cannot end.
    let large = json!(vec!["x"; 100_000]);
    let outcome = told(trial.evaluate_in_child("length", &large, &[]));
    assert_eq!(outcome, "error: it did not end within 500 ms");
    assert!(works(&trial));
}

#[test]
fn callers_wait_in_line_and_all_are_served() {
    let trial = Trial::new(EvaluatorConfig { children_max: 1, ..config() });
    std::thread::scope(|scope| {
        let first = scope.spawn(|| told(trial.evaluate("[range(300000)] | length", &Value::Null, &[])));
        let others: Vec<_> = (0..16).map(|_| scope.spawn(|| works(&trial))).collect();
        assert!(others.into_iter().all(|other| other.join().unwrap()));
        assert_eq!(first.join().unwrap(), "300000");
    });
    assert_eq!(trial.waiting(), 0);
    assert_eq!(trial.idle_process_ids().len(), 1);
}

#[test]
fn a_child_ends_with_its_input() {
    let mut child =
        Command::new(config().program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let begin = br#"{"memory_max":536870912}"#;
    let mut to = child.stdin.take().unwrap();
    to.write_all(&(begin.len() as u32).to_be_bytes()).unwrap();
    to.write_all(begin).unwrap();
    let mut ready = [0; 4 + br#"{"version":1}"#.len()];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    assert_eq!(&ready[4..], br#"{"version":1}"#);
    drop(to);
    assert!(child.wait().unwrap().success());
}

#[expect(clippy::disallowed_methods, reason = "the time that really passes is what is tested")]
#[test]
fn what_is_no_evaluator_is_told_and_hangs_nobody() {
    let cannot_start = |trial: Trial| {
        let begun = Instant::now();
        assert_eq!(
            told(trial.evaluate_in_child(".", &Value::Null, &[])),
            "error: cannot start the process that evaluates expressions"
        );
        assert!(begun.elapsed() < Duration::from_secs(30));
    };
    cannot_start(shell("exit 3"));
    cannot_start(shell("echo '<html>hello</html>'; exec sleep 1000"));
    cannot_start(shell("yes | head -c 1000000; exec sleep 1000"));
    cannot_start(shell("printf '\\0\\0\\0\\002{}'; exec sleep 1000"));
    cannot_start(Trial::new(EvaluatorConfig { program: PathBuf::from("/nowhere/at/all"), ..config() }));
}

/// After it has begun well, it writes what is no answer.
#[test]
fn garbage_instead_of_an_answer_ends_the_evaluation() {
    let ready = r#"printf '\0\0\0\015{"version":1}'"#;
    for (garbage, told_as) in [
        ("yes", "a frame of 2030729482 bytes"),
        ("printf '\\0\\0\\0\\003abc'", "the child's answer cannot be read"),
        (r#"printf '\0\0\0\033{"id":7,"outcome":{"Ok":1}}'"#, "the child answered another request"),
        ("printf '\\0\\0\\0\\003a'; exec 1>&-; exec sleep 1000", "its process ended (signal: 9 (SIGKILL))"),
        ("exit 3", "its process ended (exit status: 3)"),
    ] {
        // The request is read first: its answer cannot come before it.
        let trial = shell(&format!("{ready}; head -c 40 > /dev/null; {garbage}; exec sleep 1000"));
        let outcome = told(trial.evaluate_in_child(".", &Value::Null, &[]));
        assert_eq!(outcome, format!("error: its evaluation broke off: {told_as}"), "{garbage}");
    }
    let silent = shell(&format!("{ready}; exec sleep 1000"));
    let outcome = told(silent.evaluate_in_child(".", &Value::Null, &[]));
    assert_eq!(outcome, "error: it did not end within 2000 ms");
}
