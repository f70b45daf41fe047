use crate::{brief, corpus, parse};

/// Each case of a corpus file with what is said about it.
fn said(file: &str) -> String {
    let text = corpus(file);
    let mut out = String::new();
    for case in text.trim_start_matches("--- # ").split("\n--- # ") {
        let (title, text) = case.split_once('\n').expect("a title and a text");
        let found = parse(&format!("{text}\n")).expect_err(title);
        assert!(found.has_errors(), "{title}");
        out += &format!("{title}:\n");
        out.extend(brief(&found).into_iter().map(|line| format!("  {line}\n")));
    }
    out
}

#[test]
fn every_mistake_of_form_is_named_at_its_place() {
    insta::assert_snapshot!(said("bad/structure.yaml"));
    insta::assert_snapshot!(said("bad/traffic.yaml"));
}

#[test]
fn every_mistake_of_meaning_is_named_at_its_place() {
    insta::assert_snapshot!(said("refused/meaning.yaml"));
    insta::assert_snapshot!(said("refused/traffic.yaml"));
}

#[test]
fn ten_mistakes_are_reported_at_once_each_at_its_place() {
    let found = parse(&corpus("ten/standfast.yaml")).expect_err("ten mistakes");
    insta::assert_snapshot!(brief(&found).join("\n"));
    insta::assert_snapshot!(found.to_string());
}

#[test]
fn a_diagnostic_can_be_drawn_narrated_and_read_by_programs() {
    let found =
        parse("name: shop\nservices: {ä: {command: x, deplöy: {replicas: 3}}}\n").expect_err("two mistakes");
    insta::assert_snapshot!(found.graphical(false));
    insta::assert_snapshot!(found.narrated());
    insta::assert_snapshot!(serde_json::to_string_pretty(&found.to_json()).unwrap());
    assert!(found.graphical(true).contains("\u{1b}["));
}

#[test]
fn nothing_of_a_file_reaches_the_terminal_as_a_command() {
    let found = parse("name: \"\u{202e}\u{85}x\"\n\u{202e}: \"\\e[31m\"\nservices: {a: {command: x, restart: \"\\e[2J\"}}\n")
        .expect_err("control characters");
    for text in [found.to_string(), found.graphical(false), found.narrated()] {
        assert!(!text.contains(['\u{1b}', '\u{202e}', '\u{85}']), "{text:?}");
    }
}

#[test]
fn a_long_line_is_cut_around_its_mark() {
    let found =
        parse(&format!("services: {{a: {{command: [{}], restart: nono}}}}\n", "word, ".repeat(10_000)))
            .expect_err("a wrong restart");
    let text = found.to_string();
    assert!(text.len() < 1_000, "{}", text.len());
    assert!(text.contains("restart: nono"), "{text}");
    assert!(text.contains("--> standfast.yaml:1:60"), "{text}");
}

#[test]
fn more_mistakes_than_anyone_reads_are_counted() {
    let found = parse(&format!(
        "services: {{a: {{command: x}}}}\n{}",
        (0..500).map(|n| format!("k{n}: 1\n")).collect::<String>()
    ))
    .expect_err("five hundred mistakes");
    assert_eq!((found.len(), found.omitted()), (standfast_model::DIAGNOSTICS_MAX, 400));
    assert!(found.to_string().ends_with("and 400 more\n"));
}

#[test]
fn keys_of_compose_that_do_no_harm_are_warnings() {
    let text = "version: '3'\nservices:\n  a:\n    command: x\n    container_name: a\n    ports: ['9000:8080']\n    \
                environment: {PORT: 1, UNSET: $NOBODY}\n    deploy: {placement: {}, restart_policy: {delay: 5s}}\n    restart: always\n";
    let warnings = parse(text).expect("warnings only").warnings;
    insta::assert_snapshot!(brief(&warnings).join("\n"));
}
