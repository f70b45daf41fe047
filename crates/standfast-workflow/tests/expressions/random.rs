//! What is called cheap is cheap, on the worst data that it may be given, and on a small stack.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};
use standfast_workflow::Trial;

use super::{config, told};

/// Half of the stack that a thread of the engine has.
const STACK_BYTES: usize = 1 << 20;
/// No cheap evaluation takes so long, in a build without optimisation, on a busy machine.
const TIME_MAX: Duration = Duration::from_secs(5);

fn on_a_small_stack<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, run).unwrap().join().unwrap()
    })
}

/// Data of many shapes that measures as much as it may.
fn worst(size_max: usize) -> Vec<Value> {
    let (node, half) = (16, size_max / 2);
    let many = |each: usize, make: &dyn Fn(usize) -> Value| {
        Value::Array((0..(size_max - node) / each).map(make).collect())
    };
    let text = |bytes: usize| "a".repeat(bytes);
    let object = |count: usize| -> Value {
        let entries = (0..count).map(|number| (format!("{number:04}"), json!(number)));
        Value::Object(entries.collect())
    };
    vec![
        Value::Null,
        json!(-1.5),
        many(16, &|number| json!(number)),
        many(16, &|number| json!(1.0 / number as f64)),
        many(16, &|_| json!(null)),
        many(16, &|_| json!([])),
        many(17, &|_| json!("x")),
        many(20, &|number| json!(format!("{number:04}"))),
        many(52, &|number| json!({"key": number})),
        many(72, &|number| json!({"key": "a", "value": number})),
        many(32, &|number| json!([number])),
        json!(text(size_max - node)),
        json!("\u{1}".repeat(size_max - node)),
        json!("\"<".repeat(half - node)),
        json!("é".repeat(half - node)),
        json!("7".repeat(size_max - node)),
        json!([text(half - node), many(16, &|number| json!(number)).as_array().unwrap()[..half / node - 2]]),
        json!([object(half / 36 - 2), vec![object(1); half / 72]]),
        object(size_max / 36 - 1),
        json!({"items": vec![json!({"sku": "a", "price": 2.5, "count": 3}); size_max / 110 - 1]}),
        json!([object(half / 36 - 2), object(half / 36 - 2)]),
        json!(vec![vec![1; half.isqrt() / 4]; half.isqrt() / 8]),
        (0..(size_max / 32).min(63)).fold(json!([]), |inner, _| json!([inner])),
        (0..(size_max / 40).min(63)).fold(json!({}), |inner, _| json!({"a": inner})),
    ]
}

/// Evaluates on all of the worst data, and says how long the slowest took.
#[expect(clippy::disallowed_methods, reason = "the time that really passes is what is tested")]
fn slowest(trial: &Trial, text: &str) -> Option<Duration> {
    let size_max = trial.cheap_size_max(text, &[]).unwrap()?;
    let mut slowest = Duration::ZERO;
    for data in worst(size_max) {
        let begun = Instant::now();
        let outcome = trial.evaluate_here(text, &data, &[]);
        slowest = slowest.max(begun.elapsed());
        drop(outcome);
    }
    Some(slowest)
}

/// Each function, and each way to put expressions together.
const FORMS: &[&str] = &[
    ".",
    ".[]",
    "[.[]]",
    "[.[][]?]",
    "[.[]?]",
    ".[0]",
    ".[1:]",
    ".a",
    "[.[] | .a?]",
    "length",
    "not",
    "type",
    "tostring",
    "tojson",
    "tonumber",
    "toboolean",
    "keys",
    "keys_unsorted",
    "add",
    "any",
    "all",
    "first",
    "last",
    "min",
    "max",
    "sort",
    "unique",
    "reverse",
    "to_entries",
    "from_entries",
    "with_entries(.)",
    "with_entries(select(.value))",
    "map(.)",
    "map(.a?)",
    "map(length)",
    "map_values(.)",
    "select(.)",
    "map(select(.))",
    "map(tojson)",
    "tojson | tojson",
    "sort_by(.)",
    "sort_by(.a?)",
    "group_by(.)",
    "unique_by(.)",
    "min_by(.)",
    "max_by(.)",
    "any(.[]; .)",
    "all(.[]?; .)",
    "first(.[])",
    "last(.[])",
    "[limit(5; .[])]",
    "isempty(.[])",
    "contains(.)",
    "inside(.)",
    "has(0)",
    "has(\"a\")",
    "in(.)",
    "index(.)",
    "indices(.)",
    "rindex(.)",
    "index(\"a\")",
    "indices(\"a\")",
    "indices(1)",
    "split(\"\")",
    "split(.)",
    "split(\"a\")",
    "join(\"\")",
    "join(.[0])",
    "join(\"-\")",
    "startswith(.)",
    "endswith(.)",
    "ltrimstr(.)",
    "ascii_downcase",
    "ascii_upcase",
    "trim",
    "ltrim",
    "rtrim",
    "@text",
    "@json",
    "@html",
    "@uri",
    "@base64",
    "\"\\(.)\\(.)\"",
    "@html \"\\(.)\"",
    ". + .",
    ". - .",
    ". / .",
    ". % .",
    ". * 3",
    ". == .",
    ". < .",
    ". // .",
    "[.[] + 1]",
    "[.[]? // 1]",
    "[.[] | . + .]",
    "{a: ., b: .}",
    "[.[] | {a: ., b: 1}]",
    "{a: .[]}",
    "[{a: .[]}]",
    "[.[] as $x | $x]",
    "[.[] as $x | .[] as $y | 1]",
    "[.[] as [$x] | $x]",
    ". as $x | [.[] | $x]",
    ".[length - 1]?",
    "[.[.[]?]?]",
    "[.[] == .[]]",
    "[.[], .[]]",
    "try error catch .",
    "try error(.) catch .",
    "[.[] | try error catch .]",
    "try (.a.b) catch .",
    "try (. - {}) catch .",
    "[.[] | try (. - {}) catch .]",
    "if . then . else . end",
    "[.[] | if . then 1 else 2 end]",
    "[.[] | . and .]",
    "fromdate",
    "todate",
    "IN(1, 2)",
    "IN(.[])",
    "[.[] | IN(1, 2)]",
    "[.items[].price] | add",
    "[.items[] | {sku, total: (.price + .count)}]",
    "map(tostring) | join(\",\")",
    "[.[] | tostring] | sort",
    "[.[] | tojson | length] | add",
    "toarray",
    "add(.[])",
    "map(-.)",
    "map(floor)",
    "pow(.; .)",
    ".[]?",
    "[.[] | .[]?]",
    "[.[][]?] | add",
    "map([.]) | add",
    "map({a: .}) | add",
    "map([.]) | sort",
    "nth(1)",
];

#[test]
fn every_form_is_quick_on_the_worst_data() {
    on_a_small_stack(|| {
        let trial = Trial::new(config());
        let mut times: Vec<(Duration, &str)> =
            FORMS.iter().filter_map(|form| Some((slowest(&trial, form)?, *form))).collect();
        times.sort();
        let (longest, form) = times[times.len() - 1];
        assert!(times.len() > FORMS.len() * 9 / 10, "{} of {} are cheap", times.len(), FORMS.len());
        assert!(longest < TIME_MAX, "{form}: {longest:?}");
    });
}

/// What is around `X`, again and again. Each level of it is a level of the term, or more.
const WRAPPERS: &[&str] = &[
    "[X]",
    "{a: X}",
    "-X",
    "(X)?",
    "try X catch 1",
    "try 1 catch X",
    "if . then X else . end",
    "if X then . else . end",
    "X | .",
    ". | X",
    "X // 1",
    "null // X",
    "X + 1",
    "1 + X",
    "X == 1",
    "X and true",
    "X, 1",
    "\"\\(X)\"",
    ".[X]?",
    "X[0]?",
    ".[X:]?",
    ". as $x | X",
    "X as $x | $x",
    "X as [$x] | $x",
    "map(X)",
    "map_values(X)",
    "select(X)",
    "any(X)",
    "all(X)",
    "any(X; .)",
    "any(.; X)",
    "sort_by(X)",
    "group_by(X)",
    "unique_by(X)",
    "min_by(X)",
    "first(X)",
    "last(X)",
    "limit(1; X)",
    "limit(X; .)",
    "isempty(X)",
    "add(X)",
    "IN(X)",
    "has(X)",
    "in(X)",
    "inside(X)",
    "contains(X)",
    "join(X)",
    "split(X)",
    "startswith(X)",
    "index(X)",
    "error(X)",
    "with_entries(X)",
    "[.[]? | X]",
    "[X] | sort",
    "pow(X; 1)",
];

#[test]
fn the_deepest_cheap_expressions_fit_on_a_small_stack() {
    let deep = (0..64).fold(json!(1), |inner, level| {
        if level % 2 == 0 { json!([inner]) } else { json!({"a": inner, "b": [1, 2, 3]}) }
    });
    on_a_small_stack(|| {
        let trial = Trial::new(config());
        let mut deepest = 0;
        for wrapper in WRAPPERS {
            let wrap = |levels: usize| {
                (0..levels).fold(".".to_owned(), |inner, _| wrapper.replace('X', &format!("({inner})")))
            };
            let is_cheap = |levels: &usize| {
                let text = wrap(*levels);
                text.len() <= 8 << 10 && trial.cheap_size_max(&text, &[]).is_ok_and(|size| size.is_some())
            };
            // A term has at most 64 levels: a wrapper is one, or several, or as many as a function counts.
            let cheap = [63, 62, 32, 31, 21, 16, 12, 9, 8, 7, 5, 4, 3, 2, 1].into_iter().find(is_cheap);
            let levels = cheap.unwrap_or_else(|| panic!("{wrapper} is not cheap"));
            deepest = deepest.max(levels);
            for data in [&Value::Null, &json!([[1, "a"]]), &json!({"a": 1}), &deep] {
                assert!(trial.evaluate_here(&wrap(levels), data, &[]).is_some());
            }
        }
        assert!(deepest > 50, "{deepest}");
    });
}

/// An expression made of the forms above, and of what puts them together.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(FORMS).prop_map(str::to_owned);
    leaf.prop_recursive(4, 24, 3, |inner| {
        let wrapped = (prop::sample::select(WRAPPERS), inner.clone());
        let joined =
            (inner.clone(), prop::sample::select(&["|", "+", "-", "//", ",", "==", "and", "/"][..]), inner);
        prop_oneof![
            wrapped.prop_map(|(wrapper, inner)| wrapper.replace('X', &format!("({inner})"))),
            joined.prop_map(|(left, operator, right)| format!("({left}) {operator} ({right})")),
        ]
    })
}

/// Any data, of at most some hundred values.
fn data() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop::sample::select(&[0, 1, -1, 2, i64::MIN, i64::MAX][..]).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ab\"\\\\\u{1}é]{0,5}".prop_map(Value::from),
        "[0-9]{1,30}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 100, 8, |inner| {
        let key = prop::sample::select(&["a", "b", "key", "value", "items", "price", "0"][..])
            .prop_map(str::to_owned);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..5)
                .prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the time that really passes is what is tested")]
fn what_is_random_and_cheap_ends_and_yields_what_a_child_yields() {
    on_a_small_stack(|| {
        let trial = Trial::new(config());
        let mut runner = TestRunner::new(ProptestConfig {
            cases: 200,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        let mut cheap = 0;
        let seen = std::cell::RefCell::new(&mut cheap);
        runner
            .run(&(expression(), data()), |(text, data)| {
                let begun = Instant::now();
                let Some(here) = trial.evaluate_here(&text, &data, &[]) else { return Ok(()) };
                prop_assert!(begun.elapsed() < TIME_MAX, "{text}: {:?}", begun.elapsed());
                prop_assert_eq!(told(here), told(trial.evaluate_in_child(&text, &data, &[])));
                **seen.borrow_mut() += 1;
                Ok(())
            })
            .unwrap();
        assert!(cheap > 50, "{cheap}");
    });
}

#[test]
fn what_is_random_and_cheap_is_quick_on_the_worst_data() {
    on_a_small_stack(|| {
        let trial = Trial::new(config());
        let mut runner = TestRunner::new(ProptestConfig {
            cases: 60,
            failure_persistence: None,
            ..ProptestConfig::default()
        });
        runner
            .run(&expression(), |text| {
                let slowest = slowest(&trial, &text).unwrap_or_default();
                prop_assert!(slowest < TIME_MAX, "{text}: {slowest:?}");
                Ok(())
            })
            .unwrap();
    });
}
