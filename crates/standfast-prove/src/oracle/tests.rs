use proptest::prelude::*;
use standfast_model::Stamp;

use super::*;
use crate::fixtures;
use crate::journal::{Begin, JOURNAL_VERSION};
use crate::outcome::{Doubt, Refusal};

/// What is planted for one request: its outcome and how many effects it has.
#[derive(Debug, Clone, Copy)]
struct Planted {
    outcome: Option<Outcome>,
    effects: u64,
}

fn journal(planted: &[Planted], is_complete: bool) -> Journal {
    let id = |number: usize| format!("run-checkout-{number}");
    let request = |(number, planted): (usize, &Planted)| Request {
        load: 0,
        number: number as u64,
        id: id(number),
        due: Stamp::from_micros(number as u64),
        outcome: planted.outcome.map(|outcome| (Stamp::from_micros(number as u64 + 5), outcome)),
    };
    let effect = |(number, copy): (usize, u64)| Effect {
        key: format!("ledger/{number}-{copy}"),
        value: format!(r#"{{"order_id": "{}"}}"#, id(number)).into_bytes(),
    };
    let copies = |(number, planted): (usize, &Planted)| (0..planted.effects).map(move |copy| (number, copy));
    Journal {
        begin: Begin {
            version: JOURNAL_VERSION,
            run: "run".to_owned(),
            stack: "shop".parse().unwrap(),
            seed: 1,
            at: Stamp::EPOCH,
            loads: vec!["checkout".parse().unwrap()],
            sources: vec![fixtures::source()],
        },
        requests: planted.iter().enumerate().map(request).collect(),
        effects: BTreeMap::from([(
            fixtures::source(),
            planted.iter().enumerate().flat_map(copies).map(effect).collect(),
        )]),
        reserved_below: 4_096,
        is_complete,
    }
}

fn any_outcome() -> impl Strategy<Value = Option<Outcome>> {
    prop_oneof![
        6 => Just(Some(Outcome::Acknowledged { status: 201 })),
        1 => Just(Some(Outcome::Refused { why: Refusal::Status(409) })),
        1 => Just(Some(Outcome::Unknown { why: Doubt::TimedOut })),
        1 => Just(None),
    ]
}

proptest! {
    #[test]
    fn whatever_is_planted_is_counted_exactly(
        planted in prop::collection::vec((any_outcome(), 0_u64..4), 0..80),
        exactly in 1_u32..3,
        strangers in 0_usize..4,
    ) {
        let planted: Vec<Planted> =
            planted.into_iter().map(|(outcome, effects)| Planted { outcome, effects }).collect();
        let mut journal = journal(&planted, true);
        let ledger = journal.effects.get_mut(&fixtures::source()).unwrap();
        for stranger in 0..strangers {
            let value = format!(r#"{{"order_id":"stranger-{stranger}"}}"#).into_bytes();
            ledger.push(Effect { key: format!("x/{stranger}"), value });
        }
        let found = find(&Invariant { exactly, ..fixtures::invariant() }, &journal);
        let count = |holds: &dyn Fn(&Planted) -> bool| planted.iter().filter(|planted| holds(planted)).count() as u64;
        let exactly = u64::from(exactly);
        let is_acknowledged = |planted: &Planted| planted.outcome.is_some_and(|outcome| outcome.is_acknowledged());
        let is_refused = |planted: &Planted| matches!(planted.outcome, Some(Outcome::Refused { .. }));
        prop_assert_eq!(found.lost.count, count(&|p| is_acknowledged(p) && p.effects < exactly));
        prop_assert_eq!(found.doubled.count, count(&|p| p.effects > exactly));
        prop_assert_eq!(found.refused_and_done.count, count(&|p| is_refused(p) && p.effects > 0));
        prop_assert_eq!(found.without_cause.count, strangers as u64);
        prop_assert_eq!(found.acknowledged, count(&is_acknowledged));
        prop_assert_eq!(found.unknown, count(&|p| !is_acknowledged(p) && !is_refused(p)));
        prop_assert!(found.lost.examples.len() as u64 <= found.lost.count);
    }

    #[test]
    fn a_bound_is_never_told_smaller_than_it_is(of in 3_u64..100_000_000) {
        let sentence = bound_sentence(0, of, "lost");
        let told: f64 = sentence.split("under ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
        let exact = 300.0 / of as f64;
        prop_assert!(told >= exact * (1.0 - 1e-9) && told <= exact * 1.11, "{}", sentence);
    }
}

#[test]
fn bounds_are_sentences() {
    assert_eq!(
        bound_sentence(0, 9_214, "acknowledged lost"),
        "0 of 9,214 acknowledged lost: under 0.033 % at 95 %"
    );
    assert_eq!(bound_sentence(0, 10_000, "kills"), "0 of 10,000 kills: under 0.03 % at 95 %");
    assert_eq!(bound_sentence(12, 9_214, "lost"), "12 of 9,214 lost (0.14 %)");
    assert_eq!(bound_sentence(0, 0, "lost"), "nothing to judge: 0 of 0 lost");
    assert_eq!(bound_sentence(0, 2, "lost"), "0 of 2 lost: too few to say more");
    assert_eq!(bound_sentence(0, 3, "lost"), "0 of 3 lost: under 100 % at 95 %");
}

#[test]
fn an_effect_without_a_legible_id_is_malformed() {
    let mut journal = journal(&[], true);
    let values: [&[u8]; 5] = [b"no json", b"{}", br#"{"order_id":null}"#, br#"{"order_id":1.5}"#, b"\xff"];
    let effects = values.iter().map(|value| Effect { key: "k".to_owned(), value: value.to_vec() });
    journal.effects.insert(fixtures::source(), effects.collect());
    assert_eq!(find(&fixtures::invariant(), &journal).malformed.count, 5);
}

#[test]
fn a_cut_off_journal_never_calls_a_sent_request_an_effect_without_cause() {
    let acknowledged = Planted { outcome: Some(Outcome::Acknowledged { status: 201 }), effects: 1 };
    let mut journal = journal(&[acknowledged], false);
    let ledger = journal.effects.get_mut(&fixtures::source()).unwrap();
    for id in ["run-checkout-4095", "run-checkout-4096", "other-checkout-7"] {
        ledger.push(Effect { key: id.to_owned(), value: format!(r#"{{"order_id":"{id}"}}"#).into_bytes() });
    }
    let found = find(&fixtures::invariant(), &journal);
    assert_eq!(found.without_cause.examples, ["other-checkout-7", "run-checkout-4096"]);
    journal.is_complete = true;
    assert_eq!(find(&fixtures::invariant(), &journal).without_cause.count, 3);
}

#[test]
fn effects_that_were_not_read_lose_nothing_and_hold_nothing() {
    let acknowledged = Planted { outcome: Some(Outcome::Acknowledged { status: 201 }), effects: 0 };
    let mut journal = journal(&[acknowledged], true);
    journal.effects.clear();
    let found = find(&fixtures::invariant(), &journal);
    assert_eq!(found.lost.count, 0);
    assert!(!found.is_judged && !found.holds());
}
