use standfast_model::Stamp;

use super::*;
use crate::fixtures;
use crate::judge::judge;
use crate::report;
use crate::verdict::Verdict;

fn run(id: &str, status: &str, from_ms: u64, to_ms: u64) -> RunSeen {
    RunSeen {
        id: format!("run-of-{id}"),
        input: serde_json::json!({"order": {"order_id": id}}),
        status: status.to_owned(),
        started_at: Stamp::from_micros(from_ms * 1_000),
        changed_at: Stamp::from_micros(to_ms * 1_000),
    }
}

fn examined(runs: &[RunSeen]) -> WorkflowFacts {
    let (_, mut journal) = fixtures::sample(false);
    journal.requests.truncate(3);
    let load = journal.begin.loads[0].clone();
    examine(&load, "shop/checkout", &journal, Some(runs))
}

fn ids() -> Vec<String> {
    fixtures::sample(false).1.requests.iter().take(3).map(|request| request.id.clone()).collect()
}

#[test]
fn each_start_that_has_one_run_that_ended_is_fine() {
    let ids = ids();
    let runs: Vec<RunSeen> = ids.iter().map(|id| run(id, "completed", 10, 30)).collect();
    let facts = examined(&runs);
    assert_eq!((facts.acknowledged, facts.started, facts.ended), (3, 3, 3));
    assert_eq!([&facts.lost, &facts.doubled, &facts.open, &facts.failed].map(|cases| cases.count), [0; 4]);
}

#[test]
fn lost_doubled_open_and_failed_runs_are_told_apart() {
    let ids = ids();
    let runs = [
        run(&ids[0], "completed", 0, 1),
        run(&ids[0], "faulted", 0, 1),
        run(&ids[1], "waiting", 0, 1),
        run("of-somebody-else", "waiting", 0, 1),
    ];
    let facts = examined(&runs);
    assert_eq!((facts.started, facts.ended), (3, 2));
    assert_eq!(facts.lost.examples, [ids[2].clone()]);
    assert_eq!(facts.doubled.examples, [ids[0].clone()]);
    assert_eq!((facts.open.count, facts.failed.count), (1, 1));
}

#[test]
fn a_standstill_counts_only_while_there_is_a_run() {
    let ids = ids();
    // Nothing is there from 30 to 500 ms; then a run takes 70 ms, and one beside it ends 40 ms before it.
    let runs = [
        run(&ids[0], "completed", 0, 30),
        run(&ids[1], "completed", 500, 530),
        run(&ids[2], "completed", 500, 570),
    ];
    let facts = examined(&runs);
    assert_eq!((facts.standstill_us, facts.p50_us, facts.max_us), (40_000, 30_000, 70_000));
}

#[test]
fn the_verdict_and_the_reports_name_the_runs() {
    let (mut record, journal) = fixtures::sample(false);
    let ids = ids();
    record.workflows = vec![examined(&[run(&ids[0], "completed", 0, 30), run(&ids[1], "completed", 0, 30)])];
    let judgement = judge(&record, &journal);
    assert_eq!(judgement.verdict, Verdict::Broke);
    assert!(judgement.reasons[0].text.contains("shop/checkout: 1 starts acknowledged and lost"));
    for page in [
        report::terminal(&record, &judgement, report::Colour::Off),
        report::html(&record, &judgement),
        report::json(&record, &judgement).unwrap(),
    ] {
        assert!(page.contains("shop/checkout"), "{page}");
    }
    record.workflows[0].lost = Cases::default();
    let judgement = judge(&record, &journal);
    assert_eq!(judgement.verdict, Verdict::Held, "{:?}", judgement.reasons);
}
