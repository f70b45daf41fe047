//! Expressions that would take for ever, or all memory, or all of the stack.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use standfast_workflow::{EvaluatorConfig, Trial};

use super::{config, told, works};

/// How long an evaluation may take here.
const TIME_MAX: Duration = Duration::from_millis(700);
/// How much longer than that an outcome may take to arrive, on a busy machine: a child is started, and one is ended.
const SLACK: Duration = Duration::from_secs(10);

fn limited() -> Trial {
    Trial::new(EvaluatorConfig { time_max: TIME_MAX, memory_max: 256 << 20, ..config() })
}

/// What each of them ends with, one or the other: how fast the machine is decides what runs out first.
const ENDINGS: [&str; 5] = [
    "error: it did not end within 700 ms",
    "error: its evaluation broke off: it ran out of memory",
    "error: its evaluation broke off: it ran out of stack",
    "error: it is given, or yields, more than 1048576 bytes",
    "error: it is given, or yields, values within more than 100 others",
];

const BOMBS: &[&str] = &[
    "[range(1e12)]",
    "[range(0; 1; 0)]",
    "def f: f; f",
    "def f: [f]; f",
    "def f: {a: f}; f",
    "def f: f + 1; f",
    "def f(x): f(x | x); f(. + 1)",
    "def f: ., (. | f); [f]",
    "\"a\" * 10000000000",
    "\"abcdefgh\" * 100000 * 100000",
    "[repeat(.)]",
    "repeat(empty)",
    "[limit(1e9; repeat(1))]",
    "last(repeat(1))",
    "until(false; .)",
    "[while(true; . + 1)]",
    "0 | [recurse(. + 1)]",
    "0 | until(false; . + 1)",
    "reduce range(1e10) as $i (0; . + 1)",
    "reduce range(1e6) as $i (.; [.])",
    "reduce range(1e6) as $i (.; {a: .})",
    "reduce range(1e6) as $i (.; [.]) | tojson",
    "reduce range(200) as $i (.; [.])",
    "reduce range(60) as $i (\"x\"; . + .)",
    "reduce range(60) as $i ([1]; [., .])",
    "[foreach repeat(1) as $i (0; . + 1)]",
    "label $out | repeat(1) | select(false)",
    "[range(100000)] | [.[] as $a | .[] as $b | .[] as $c | $a + $b + $c] | length",
    "[range(30)] as $x | [[$x, $x, $x, $x, $x, $x] | combinations] | length",
    "[range(1e5)] | [.[] | [limit(1e5; repeat(1))]] | add | length",
    "\"\\(\"[\" * 10000000)\" | fromjson",
    "(\"[\" * 1000000) + (\"]\" * 1000000) | fromjson",
    "(\"9\" * 3000000) | fromjson | . * . | tostring | length",
    "[range(1e7)] | sort_by(-.) | group_by(. % 2) | [range(1e9)]",
    "[splits(\"a\"; null)?, range(1e10)]",
    "0 | [.[]?, (range(1e9) | tojson)]",
    "[., .] | walk([., .]) | walk([., .]) | walk([., .]) | walk([., .]) | walk([., .]) | walk([., .]) | [range(1e9)]",
    "{} | .a |= repeat(.) | [range(1e10)]",
    "[range(1e6)] | .[] += (\"x\" * 1000000 | length) | map(tojson * 1000) | add",
    "try error(\"x\" * 1e9) catch [range(1e10)]",
    "def f: def g: f; g; [f]",
    "now | [limit(1e12; .)] | [range(1e12)]",
    "\"x\" * 50000 | [test(\"(x+x+)+y\"), scan(\"(x+)+$\"), [range(1e10)]]",
    "[range(3000)] | map(tostring) | [combinations(10)?]",
];

/// Look like bombs, and are none: jaq repeats texts by integers only, and its regular expressions take no more time than their text
/// is long.
const DUDS: &[&str] = &[
    "\"a\" * 1e10",
    "[1] | implode * 1e9 | explode",
    "\"a\" * 200000 | [match(\"(a|b|ab)*?c\"; \"g\")]",
    "\"a\" * 30000 | test(\"(a*)*b\")",
    "\"a\" | test(\"((a{200}){200}){200}\")",
    "[limit(100000; repeat(\"(a{1000}\"))] | add as $re | \"a\" | test($re)",
    "range(1e12)",
    "[.[]?, 1, (2, 3)] | first(repeat(.))",
];

#[expect(clippy::disallowed_methods, reason = "the time that really passes is what is tested")]
#[test]
fn every_bomb_ends_in_time_and_the_next_expression_is_evaluated() {
    let trial = limited();
    let mut wrong = String::new();
    for bomb in BOMBS {
        let begun = Instant::now();
        let outcome = told(trial.evaluate(bomb, &Value::Null, &[]));
        let took = begun.elapsed();
        let is_named = ENDINGS.contains(&outcome.as_str());
        if !is_named || took > TIME_MAX + SLACK || !works(&trial) {
            let outcome: String = outcome.chars().take(200).collect();
            wrong.push_str(&format!("{bomb}\n  {outcome} after {took:?}\n"));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn every_dud_has_an_outcome_of_its_own() {
    let trial = Trial::new(config());
    for dud in DUDS {
        let outcome = told(trial.evaluate(dud, &Value::Null, &[]));
        assert!(!ENDINGS.contains(&outcome.as_str()), "{dud}: {outcome}");
    }
    assert!(works(&trial));
}

#[test]
fn what_runs_out_is_named() {
    let trial = Trial::new(EvaluatorConfig { memory_max: 256 << 20, ..config() });
    let outcome = |text: &str| told(trial.evaluate(text, &Value::Null, &[]));
    assert_eq!(outcome("\"a\" * 1000000000"), "error: its evaluation broke off: it ran out of memory");
    assert_eq!(
        outcome("\"abc\" * 9223372036854775807"),
        "error: its evaluation broke off: it ran out of memory"
    );
    assert_eq!(outcome("def f: 1 + f; f"), "error: its evaluation broke off: it ran out of stack");
    assert_eq!(
        outcome("(\"[\" * 1000000) + (\"]\" * 1000000) | fromjson"),
        "error: its evaluation broke off: it ran out of stack"
    );
    assert!(works(&trial));
}

#[test]
fn others_are_evaluated_while_one_explodes() {
    let trial = Trial::new(EvaluatorConfig { time_max: Duration::from_secs(3), ..config() });
    std::thread::scope(|scope| {
        let bomb = scope.spawn(|| told(trial.evaluate("until(false; .)", &Value::Null, &[])));
        let others: Vec<_> = (0..8)
            .map(|number| {
                let trial = &trial;
                scope.spawn(move || {
                    let input = json!({"n": number});
                    (0..20).all(|_| {
                        trial.evaluate("[range(.n)] | length", &input, &[]).ok() == Some(json!(number))
                    })
                })
            })
            .collect();
        assert!(others.into_iter().all(|other| other.join().unwrap()));
        assert_eq!(bomb.join().unwrap(), "error: it did not end within 3000 ms");
    });
}

/// Of each, the cheap part is what counts: it is not cheap at all, or not for this much data.
#[test]
fn what_could_grow_is_not_cheap() {
    let trial = Trial::new(config());
    let size_max = |text: &str| trial.cheap_size_max(text, &[]).unwrap();
    let doubled = vec![".+."; 40].join("|");
    let indices = (0..40).fold(".".to_owned(), |inner, _| format!(".[({inner})?:]?"));
    let products = "[.[] as $a | .[] as $b | .[] as $c | 1]";
    let nested = format!("{}.{}", "[".repeat(64), "]".repeat(64));
    for text in [
        "\"a\" * .n",
        ".n * \"a\"",
        "def f: 1; f",
        "reduce .[] as $x (0; . + $x)",
        "..",
        "[range(3)]",
        "[limit(3; repeat(1))]",
        ".a |= 1",
        ".a = 1",
        "fromjson",
        "test(\"a\")",
        "implode",
        "@sh",
        "flatten",
        "getpath([\"a\"])",
        "label $x | break $x",
        &doubled,
        // Each level is evaluated twice.
        &indices,
        products,
        &nested,
        "map(map(map(map(map(1)))))| map(map(map(sort_by(map(sort)))))",
    ] {
        assert!(
            size_max(text).is_none_or(|size| size <= 1 << 10 && text == products),
            "{text}: {:?}",
            size_max(text)
        );
    }
    assert_eq!(size_max("{id: .id, total: ([.items[].price] | add)}"), Some(64 << 10));
    let square = size_max("[.[] as $a | .[] as $b | 1]").unwrap();
    assert!((1 << 10..=16 << 10).contains(&square), "{square}");
}
