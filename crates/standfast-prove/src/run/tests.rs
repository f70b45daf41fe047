use std::path::PathBuf;
use std::sync::Mutex;

use standfast_model::Fault;
use standfast_runtime::{RealDisk, SimulatedDisk, StopSource, Tasks};

use super::fake_shop::{Bug, FakeShop};
use super::*;
use crate::fixtures;
use crate::judge::{Judgement, judge};
use crate::verdict::Weight;

const MS: fn(u64) -> Duration = Duration::from_millis;

fn options() -> Options {
    let mut options = Options::seeded(7, PathBuf::from("/journal.jsonl"));
    let pace = &mut options.pace;
    (pace.warm_up, pace.steady_window, pace.poll, pace.settle) = (MS(300), MS(80), MS(8), MS(60));
    (pace.verify_max, pace.restore_max, pace.heal_max, pace.steady_max) =
        (MS(80), MS(120), MS(700), MS(2_000));
    (pace.quiet_window, pace.quiet_max) = (MS(60), MS(500));
    let thresholds = &mut options.thresholds;
    (thresholds.grace, thresholds.grace_node, thresholds.slice) = (MS(150), MS(150), MS(100));
    (thresholds.slow_floor, thresholds.probe_slack) = (MS(350), MS(100));
    // The machine that runs the tests may be busy with other things.
    (thresholds.lag_noise, thresholds.lag_p99_max) = (MS(100), MS(2_000));
    options
}

fn kill(times: u32) -> Fault {
    Fault::ReplicaKill { service: Some("orders".parse().unwrap()), times, every: MS(100) }
}

fn freeze() -> Fault {
    Fault::ReplicaFreeze { service: None, lasts: MS(450) }
}

async fn prove(bug: Bug, faults: Vec<Fault>) -> (Evidence, Judgement) {
    let (tasks, clock, folder) = (Tasks::new(), Clock::system(), tempfile::tempdir().unwrap());
    let shop = FakeShop::start(bug, clock, &tasks).await;
    let proof = Proof::new(clock, Net::real(), Arc::new(RealDisk));
    let (_source, stop) = StopSource::new();
    let stack = fixtures::stack(200.0, faults);
    let options = Options { journal: folder.path().join("runs/1/journal.jsonl"), ..options() };
    let evidence = proof.run(&shop, &stack, &options, &stop, &|_| {}).await.unwrap();
    tasks.shutdown(&clock, MS(500)).await;
    let judgement = judge(&evidence.record, &evidence.journal);
    (evidence, judgement)
}

fn says(judgement: &Judgement, text: &str) -> bool {
    judgement.reasons.iter().any(|reason| reason.text.contains(text))
}

#[tokio::test]
async fn a_shop_that_holds_is_said_to_hold() {
    let zone_loss = Fault::ZoneLoss { zone: Some("b".parse().unwrap()), lasts: MS(200) };
    let (evidence, judgement) = prove(Bug::None, vec![kill(2), freeze(), zone_loss, Fault::NodeKill]).await;
    assert_eq!(judgement.verdict, Verdict::Held, "{:#?}", judgement.reasons);
    assert_eq!(evidence.record.faults.len(), 5);
    for fault in &evidence.record.faults {
        assert!(fault.bite.bit && fault.restored_at.is_some() && fault.healed_at.is_some(), "{fault:#?}");
    }
    assert!(evidence.journal.is_complete);
    assert_eq!(evidence.record.effects_before, 1, "an earlier run's effect is not judged");
    let finding = &judgement.findings[0];
    assert_eq!(finding.effects, finding.acknowledged);
    assert!(finding.acknowledged > 100, "{finding:?}");
    let read_again: Record = serde_json::from_slice(&serde_json::to_vec(&evidence.record).unwrap()).unwrap();
    assert_eq!(
        judge(&read_again, &evidence.journal).verdict,
        Verdict::Held,
        "a record is judged again from its file"
    );
}

#[tokio::test]
async fn lost_doubled_unasked_and_denied_work_is_found() {
    let (lost, doubled, denied, unasked) = tokio::join!(
        prove(Bug::Loses, Vec::new()),
        prove(Bug::Doubles, Vec::new()),
        prove(Bug::RefusesAndDoes, Vec::new()),
        prove(Bug::Invents, Vec::new()),
    );
    for ((_, judgement), text) in [
        (lost, "acknowledged and lost"),
        (doubled, "done more often"),
        (denied, "refused and done"),
        (unasked, "without being asked for"),
    ] {
        assert_eq!(judgement.verdict, Verdict::Broke, "{text}: {:#?}", judgement.reasons);
        assert_eq!(judgement.reasons[0].weight, Weight::Unsafe, "{text}");
        assert!(says(&judgement, text), "{text}: {:#?}", judgement.reasons);
    }
}

#[tokio::test]
async fn a_fault_that_does_nothing_is_no_proof() {
    let ((_, idle), (_, absent)) = tokio::join!(
        prove(Bug::FaultDoesNothing, vec![kill(1), freeze()]),
        prove(Bug::None, vec![Fault::AgentKill]),
    );
    assert_eq!(idle.verdict, Verdict::FaultDidNotBite, "{:#?}", idle.reasons);
    assert_eq!(absent.verdict, Verdict::FaultDidNotBite, "{:#?}", absent.reasons);
    assert!(says(&absent, "no agent"), "{:#?}", absent.reasons);
}

#[tokio::test]
async fn a_shop_that_never_heals_broke_and_one_that_never_thaws_is_not_restored() {
    let ((evidence, ill), (_, frozen)) =
        tokio::join!(prove(Bug::NeverHeals, vec![kill(2)]), prove(Bug::NeverThaws, vec![freeze()]));
    assert_eq!(ill.verdict, Verdict::Broke, "{:#?}", ill.reasons);
    assert!(says(&ill, "did not heal") && says(&ill, "has 2 of 3"), "{:#?}", ill.reasons);
    assert_eq!(evidence.record.faults.len(), 1, "no more is broken in a stack that did not heal");
    assert_eq!(frozen.verdict, Verdict::NotRestored, "{:#?}", frozen.reasons);
}

#[tokio::test]
async fn a_health_check_that_always_passes_is_found() {
    let (_, judgement) = prove(Bug::AlwaysHealthy, vec![freeze()]).await;
    assert_eq!(judgement.verdict, Verdict::Broke, "{:#?}", judgement.reasons);
    assert!(says(&judgement, "passes although the replica is frozen"), "{:#?}", judgement.reasons);
}

#[tokio::test]
async fn a_balancer_that_keeps_a_dead_replica_is_found() {
    let ((_, frozen), (_, dead)) =
        tokio::join!(prove(Bug::KeepsFrozen, vec![freeze()]), prove(Bug::FailsOnKill, vec![kill(1)]));
    assert_eq!(frozen.verdict, Verdict::Broke, "{:#?}", frozen.reasons);
    assert!(says(&frozen, "requests still failed"), "{:#?}", frozen.reasons);
    assert_eq!(dead.verdict, Verdict::Broke, "{:#?}", dead.reasons);
    assert!(says(&dead, "a repeat could have saved"), "{:#?}", dead.reasons);
}

#[tokio::test]
async fn a_stop_undoes_all_faults_and_returns_what_there_is() {
    let (tasks, clock) = (Tasks::new(), Clock::system());
    let shop = FakeShop::start(Bug::None, clock, &tasks).await;
    let proof = Proof::new(clock, Net::real(), Arc::new(SimulatedDisk::default()));
    let (source, stop) = StopSource::new();
    let source = Mutex::new(Some(source));
    let stop_when_frozen = |event: Progress| {
        if matches!(event, Progress::Verified { bit: true, .. }) {
            source.lock().unwrap().as_ref().unwrap().stop();
        }
    };
    let stack = fixtures::stack(100.0, vec![Fault::ReplicaFreeze { service: None, lasts: MS(60_000) }]);
    let evidence = proof.run(&shop, &stack, &options(), &stop, &stop_when_frozen).await.unwrap();
    assert_eq!(evidence.record.ended, Ended::Stopped);
    assert!(evidence.record.faults[0].restored_at.is_some(), "{:#?}", evidence.record.faults);
    assert!(shop.survey().await.unwrap().all_ready);
    let judgement = judge(&evidence.record, &evidence.journal);
    assert_eq!(judgement.verdict, Verdict::NotRun, "{:#?}", judgement.reasons);
    tasks.shutdown(&clock, MS(500)).await;
}

#[tokio::test]
async fn a_disk_that_fails_makes_no_proof_and_loses_no_truth() {
    let (tasks, clock) = (Tasks::new(), Clock::system());
    let shop = FakeShop::start(Bug::None, clock, &tasks).await;
    let disk = Arc::new(SimulatedDisk::default());
    disk.fail_after(6);
    let proof = Proof::new(clock, Net::real(), Arc::clone(&disk) as Arc<dyn Disk>);
    let (_source, stop) = StopSource::new();
    let stack = fixtures::stack(100.0, vec![kill(1)]);
    let evidence = proof.run(&shop, &stack, &options(), &stop, &|_| {}).await.unwrap();
    let judgement = judge(&evidence.record, &evidence.journal);
    assert_eq!(judgement.verdict, Verdict::NotRun, "{:#?}", judgement.reasons);
    assert!(!evidence.journal.is_complete);
    tasks.shutdown(&clock, MS(500)).await;
}

#[test]
fn two_runs_of_one_seed_share_no_id() {
    let at = Stamp::from_micros(1_772_357_399_000_000);
    assert_ne!(run_name(7, at), run_name(7, at.plus(MS(1))));
    assert!(run_name(u64::MAX, at).len() < 40);
}
