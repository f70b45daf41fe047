use standfast_model::LoadName;

use super::*;
use crate::fixtures::sample;
use crate::journal::Request;
use crate::outcome::Doubt;
use crate::record::Readiness;
use crate::verdict::EXIT_BAD_INPUT;

/// A run that held, with something changed.
fn judged(change: impl FnOnce(&mut Record, &mut Journal)) -> Judgement {
    let (mut record, mut journal) = sample(false);
    change(&mut record, &mut journal);
    judge(&record, &journal)
}

fn says(judgement: &Judgement, text: &str) -> bool {
    judgement.reasons.iter().any(|reason| reason.text.contains(text))
}

/// The requests that were due in a span after a fault's injection.
fn after<'a>(
    record: &Record,
    journal: &'a mut Journal,
    fault: usize,
    span: std::ops::Range<u64>,
) -> impl Iterator<Item = &'a mut Request> {
    let at = record.faults[fault].injected_at;
    let (from, until) =
        (at.plus(Duration::from_millis(span.start)), at.plus(Duration::from_millis(span.end)));
    journal.requests.iter_mut().filter(move |request| (from..until).contains(&request.due))
}

fn slow_down(request: &mut Request) {
    let at = request.due.plus(Duration::from_millis(1_500));
    request.outcome = request.outcome.map(|(_, outcome)| (at, outcome));
}

fn fail(request: &mut Request) {
    request.outcome = Some((request.due, Outcome::Unknown { why: Doubt::TimedOut }));
}

#[test]
fn what_is_left_alone_holds() {
    let judgement = judged(|_, _| {});
    assert_eq!((judgement.verdict, judgement.reasons.len()), (Verdict::Held, 0), "{:#?}", judgement.reasons);
    assert!(judgement.normal_p99_us.is_some());
}

#[test]
fn exit_codes_are_as_documented() {
    let all =
        [Verdict::Held, Verdict::Broke, Verdict::NotRun, Verdict::FaultDidNotBite, Verdict::NotRestored];
    assert_eq!(all.map(Verdict::exit_code), [0, 1, 3, 4, 5]);
    assert_eq!(EXIT_BAD_INPUT, 2);
}

#[test]
fn a_run_that_shows_nothing_is_not_run() {
    let lag = |record: &mut Record, _: &mut Journal| record.measured.lag.p99_us = 200_000;
    let dropped = |record: &mut Record, _: &mut Journal| record.measured.dropped = 1;
    let stopped = |record: &mut Record, _: &mut Journal| record.ended = Ended::Stopped;
    let died = |record: &mut Record, _: &mut Journal| record.generator = None;
    let unread = |_: &mut Record, journal: &mut Journal| journal.effects.clear();
    let idle = |record: &mut Record, _: &mut Journal| record.loads.clear();
    let changes: [fn(&mut Record, &mut Journal); 6] = [lag, dropped, stopped, died, unread, idle];
    for (index, change) in changes.into_iter().enumerate() {
        assert_eq!(judged(change).verdict, Verdict::NotRun, "change {index}");
    }
    let cut = judged(|record, _| drop(record.faults.pop()));
    assert_eq!(cut.verdict, Verdict::NotRun);
    assert!(says(&cut, "1 of 5 faults were not brought about"));
}

#[test]
fn lost_work_outranks_everything_and_an_undone_fault_outranks_slowness() {
    let judgement = judged(|record, journal| {
        record.ended = Ended::Stopped;
        record.faults[2].restored_at = None;
        journal.effects.values_mut().for_each(|effects| drop(effects.pop()));
    });
    assert_eq!(judgement.verdict, Verdict::Broke);
    let weights: Vec<Weight> = judgement.reasons.iter().map(|reason| reason.weight).collect();
    assert_eq!(weights, [Weight::Unsafe, Weight::Void, Weight::NotRestored]);
    let judgement = judged(|record, _| {
        record.faults[2].restored_at = None;
        record.faults[2].healed_at = None;
    });
    assert_eq!(judgement.verdict, Verdict::NotRestored);
}

#[test]
fn requests_may_fail_within_the_grace_only() {
    let early = judged(|record, journal| after(record, journal, 3, 0..350).for_each(fail));
    assert!(!says(&early, "still failed"), "{:#?}", early.reasons);
    let late = judged(|record, journal| after(record, journal, 3, 2_500..2_600).for_each(fail));
    assert_eq!(late.verdict, Verdict::Broke);
    assert!(says(&late, "more than 2 s later requests still failed"), "{:#?}", late.reasons);
    let stray = judged(|record, journal| after(record, journal, 3, 2_000..3_000).take(1).for_each(fail));
    assert_eq!(stray.verdict, Verdict::Held, "{:#?}", stray.reasons);
    let node = judged(|record, journal| {
        record.options.thresholds.availability_min = 0.0;
        after(record, journal, 4, 2_000..2_500).for_each(fail);
    });
    assert_eq!(node.verdict, Verdict::Held, "a node has a longer grace: {:#?}", node.reasons);
}

#[test]
fn one_slow_slice_is_a_hiccup_two_are_a_replica_and_a_noisy_machine_is_no_witness() {
    let hiccup = judged(|record, journal| after(record, journal, 3, 3_100..3_900).for_each(slow_down));
    assert_eq!(hiccup.verdict, Verdict::Held, "{:#?}", hiccup.reasons);
    let a_third = |record: &mut Record, journal: &mut Journal| {
        after(record, journal, 3, 2_000..6_000).step_by(3).for_each(slow_down);
    };
    let kept = judged(a_third);
    assert_eq!(kept.verdict, Verdict::Broke);
    assert!(says(&kept, "still took longer than 500 ms"), "{:#?}", kept.reasons);
    let noisy = judged(|record, journal| {
        a_third(record, journal);
        record.measured.seconds.iter_mut().for_each(|second| second.lag_p99_us = 60_000);
    });
    assert_eq!(noisy.verdict, Verdict::Held, "{:#?}", noisy.reasons);
}

#[test]
fn the_kill_of_one_of_several_replicas_may_fail_nothing_that_a_repeat_saves() {
    let one =
        |record: &mut Record, journal: &mut Journal| after(record, journal, 0, 0..500).take(1).for_each(fail);
    let judgement = judged(one);
    assert_eq!(judgement.verdict, Verdict::Broke);
    assert!(says(&judgement, "a repeat could have saved"), "{:#?}", judgement.reasons);
    let unkeyed = judged(|record, journal| {
        one(record, journal);
        record.loads[0].is_repeatable = false;
    });
    assert_eq!(unkeyed.verdict, Verdict::Held, "{:#?}", unkeyed.reasons);
    let single = judged(|record, journal| {
        one(record, journal);
        record.services[0].replicas = 1;
    });
    assert_eq!(single.verdict, Verdict::Held, "{:#?}", single.reasons);
}

#[test]
fn readiness_must_tell_the_truth_where_the_probe_can_see_it() {
    let lies = |record: &mut Record, _: &mut Journal| {
        let fault = &mut record.faults[2];
        let at = fault.bit_at.unwrap().plus(Duration::from_millis(3_000));
        fault.readiness =
            Readiness { surveys: 30, last_called_ready_at: Some(at), victim: None, last_survey_at: Some(at) };
    };
    assert!(says(&judged(lies), "passes although the replica is frozen"));
    // While the machine stands still nobody notices anything.
    let still = judged(|record, journal| {
        lies(record, journal);
        record.measured.seconds.iter_mut().for_each(|second| second.lag_p99_us = 60_000_000);
    });
    assert!(!says(&still, "passes although the replica is frozen"), "{:#?}", still.reasons);
    let by_port = judged(|record, journal| {
        lies(record, journal);
        record.services[0].probe_sees_a_freeze = false;
    });
    assert_eq!(by_port.verdict, Verdict::Held);
    assert!(
        by_port.notes.iter().any(|note| note.contains("cannot see a frozen process")),
        "{:?}",
        by_port.notes
    );
    let short = judged(|record, _| record.services[0].ready_lag_max_ms = Some(60_000));
    assert!(short.notes.iter().any(|note| note.contains("too short to judge")), "{:?}", short.notes);
}

#[test]
fn a_fault_that_did_not_bite_is_not_held_against_the_system_but_against_the_proof() {
    let judgement = judged(|record, journal| {
        after(record, journal, 0, 0..500).take(1).for_each(fail);
        record.faults[0].bite.bit = false;
        record.faults[0].healed_at = None;
    });
    assert_eq!(judgement.verdict, Verdict::FaultDidNotBite, "{:#?}", judgement.reasons);
}

#[test]
fn a_stack_that_healed_and_fell_ill_again_broke() {
    let judgement = judged(|record, _| {
        record.ended = Ended::NotHealed { amiss: "requests fail or are slow".to_owned() };
        record.faults.truncate(3);
    });
    assert_eq!(judgement.verdict, Verdict::Broke);
    assert!(
        says(&judgement, "was not steady again") && says(&judgement, "2 of 5 faults"),
        "{:#?}",
        judgement.reasons
    );
}

#[test]
fn an_invariant_of_a_load_that_nobody_sent_loses_nothing() {
    let judgement = judged(|record, _| record.invariants[0].load = "browse".parse::<LoadName>().unwrap());
    assert_eq!(judgement.findings[0].acknowledged, 0);
    assert_eq!(judgement.findings[0].without_cause.count, 0, "another load's requests are a cause too");
}
