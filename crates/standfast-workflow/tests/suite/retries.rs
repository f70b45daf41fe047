//! Pauses between attempts that are scattered.

use std::collections::BTreeSet;
use std::time::Duration;

use standfast_model::workflow::TestCase;
use standfast_workflow::{Event, State, rehearse};

use super::rig::{definition, evaluator};

#[test]
fn jitter_lengthens_each_pause_within_its_bounds_and_differently() {
    let definition = definition(
        "scattered",
        r"
do:
  - attempt:
      try: [ fail: { raise: { error: { type: https://x.example/e, status: 400 } } } ]
      catch: { retry: { delay: PT1S, jitter: { from: PT2S, to: PT4S }, limit: { attempt: { count: 50 } } } }
",
    );
    let rehearsed = rehearse(&definition.program, &TestCase::default(), &evaluator());
    let pauses = rehearsed.records.iter().flat_map(|record| {
        record.events.iter().filter_map(|event| match event {
            Event::Restarted { state: State::Pausing { until, .. }, .. } => Some(until.since(record.at)),
            _ => None,
        })
    });
    let pauses: Vec<Duration> = pauses.collect();
    assert_eq!(pauses.len(), 50);
    let bounds = Duration::from_secs(3)..=Duration::from_secs(5);
    assert!(pauses.iter().all(|pause| bounds.contains(pause)), "{pauses:?}");
    let different: BTreeSet<&Duration> = pauses.iter().collect();
    assert!(different.len() > 40, "{pauses:?}");
    let (least, most) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
    assert!(most.saturating_sub(*least) > Duration::from_secs(1), "they fill their bounds: {pauses:?}");
}
