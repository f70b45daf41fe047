use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::{brief, corpus, parse, parse_with};

/// Far above what any of these takes, for machines that are busy with something else.
const BOUND: Duration = Duration::from_secs(2);

#[expect(clippy::disallowed_methods, reason = "the time that reading takes is what is tested")]
fn timed<T>(run: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = run();
    (value, start.elapsed())
}

/// Refused quickly; the first error is returned.
fn refused(text: &str) -> String {
    let (result, took) = timed(|| parse(text));
    assert!(took < BOUND, "{took:?}");
    brief(&result.expect_err("hostile")).swap_remove(0)
}

#[test]
fn an_alias_bomb_is_refused_before_it_grows() {
    let mut bomb = "x-0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..40 {
        let names = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("x-{level}: &a{level} [{names}]\n"));
    }
    bomb.push_str("services: {a: {command: *a39}}\n");
    let (result, took) = timed(|| parse(&bomb));
    assert!(took < Duration::from_millis(500), "{took:?}"); // 1 ms on an idle machine; the promise is 50.
    assert!(brief(&result.expect_err("a bomb"))[0].contains("more than 20000 values"));
}

#[test]
fn a_merge_bomb_is_refused() {
    let keys: String = (0..1_000).map(|n| format!("k{n}: 1, ")).collect();
    let bomb = format!("x-a: &a {{{keys}}}\nx-b:\n{}", "  - <<: [*a, *a, *a]\n".repeat(5_000));
    assert!(refused(&bomb).contains("more than 20000 values"));
}

#[test]
fn a_text_bomb_is_refused() {
    let bomb = format!("x-a: &a {}\nx-b: [{}]\n", "x".repeat(500_000), "*a, ".repeat(10_000));
    assert!(refused(&bomb).contains("more than 4 MiB of text"));
}

#[test]
fn an_alias_of_itself_is_refused() {
    assert!(refused("services: &s {a: *s}\n").contains("part of"));
}

#[test]
fn depth_is_refused() {
    for text in ["[".repeat(200_000), "- ".repeat(200_000), "{a: ".repeat(10_000), "? ".repeat(10_000)] {
        refused(&text);
    }
    let levels: String = (0..70).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    refused(&levels);
}

#[test]
fn deep_aliases_are_refused() {
    let nested = |inner: &str| format!("{}{inner}{}", "[".repeat(40), "]".repeat(40));
    assert!(refused(&format!("x-a: &a {}\nx-b: {}\n", nested("1"), nested("*a"))).contains("64 levels"));
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    assert!(refused(&"x".repeat(standfast_model::FILE_BYTES_MAX + 1)).contains("larger than 1 MiB"));
}

#[test]
fn two_thousand_services_in_a_chain_and_in_a_ring_are_checked() {
    let chain = |last: &str| {
        let links: String =
            (0..1_999).map(|n| format!("  s{n}: {{command: x, depends_on: [s{}]}}\n", n + 1)).collect();
        format!("services:\n{links}  s1999: {{command: x{last}}}\n")
    };
    let (result, took) = timed(|| parse(&chain("")));
    assert!(result.is_ok() && took < BOUND, "{took:?}");
    assert!(refused(&chain(", depends_on: [s0]")).contains("services wait for each other"));
}

#[test]
fn interpolation_cannot_fill_the_memory() {
    let long = "x".repeat(100_000);
    let text = format!("services: {{a: {{command: [{}]}}}}\n", "$LONG, ".repeat(5_000));
    let (result, took) = timed(|| parse_with(&text, &[], &[("LONG", &long)]));
    assert!(took < BOUND, "{took:?}");
    assert!(brief(&result.expect_err("too much")).iter().any(|line| line.contains("too much text")));
}

#[test]
fn files_named_a_thousand_times_cannot_fill_the_memory() {
    let file = "A=x\n".repeat(200_000);
    let text = format!("services: {{a: {{command: x, env_file: [{}]}}}}\n", ".env, ".repeat(1_000));
    let found = parse_with(&text, &[(".env", &file)], &[]).expect_err("too much");
    assert!(brief(&found).iter().any(|line| line.contains("hold more than 16 MiB")), "{:?}", brief(&found));
}

#[test]
fn regular_expressions_cannot_take_all_day() {
    let routes = |path: &str| -> String {
        (0..600).map(|n| format!("  - {{path: {{regex: '/{n}{path}'}}, to: a}}\n")).collect()
    };
    let loads: String =
        (0..300).map(|n| format!("  l{n}: {{path: /{n}x/{}, rate: 1}}\n", "a".repeat(2_000))).collect();
    // Each becomes a machine near the largest that is taken.
    let text = format!(
        "services: {{a: {{command: x}}}}\nroutes:\n{}load:\n{loads}",
        routes("(x/|y?)((a|b?){14}){14}")
    );
    let (result, took) = timed(|| parse(&text));
    assert!(took < BOUND, "{took:?}");
    result.unwrap_or_else(|found| panic!("{:?}", brief(&found).first()));
    let text = format!("services: {{a: {{command: x}}}}\nroutes:\n{}", routes("((a{100}){100}){100}"));
    assert!(refused(&text).contains("must be a regular expression"));
}

const PIECES: &[&str] = &[
    "&a ", "*a", "<<: *a\n", "${", "}", "[", "]", "{", "}", "- ", ": ", "\t", "\n", "\u{0}", "\u{feff}", "'",
    "\"", "|\n", "é",
];

/// A text with pieces of it removed, repeated, or replaced.
fn mutated() -> impl Strategy<Value = String> {
    let change = (any::<prop::sample::Index>(), 0_usize..40, proptest::sample::select(PIECES), 0_usize..200);
    (0_usize..3, prop::collection::vec(change, 1..6)).prop_map(|(base, changes)| {
        let mut text: Vec<char> =
            corpus(["good/shop.yaml", "good/small.yaml", "refused/meaning.yaml"][base]).chars().collect();
        for (at, length, piece, times) in changes {
            let at = at.index(text.len() + 1);
            let end = (at + length).min(text.len());
            let _ = text.splice(at..end, piece.repeat(times).chars().collect::<Vec<_>>());
        }
        text.into_iter().collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_mutation_of_a_good_stack_panics(text in mutated()) {
        if let Err(found) = parse(&text) {
            prop_assert!(!found.is_empty());
            let _ = (found.to_string(), found.graphical(true), found.narrated(), found.to_json());
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        if let Err(found) = parse(&String::from_utf8_lossy(&bytes)) {
            let _ = (found.to_string(), found.graphical(true), found.narrated(), found.to_json());
        }
    }
}
