use super::*;
use crate::fixtures::{HOSTILE, sample};
use crate::judge::{Judgement, judge};
use crate::record::Record;
use crate::verdict::Verdict;

fn judged(is_broken: bool) -> (Record, Judgement) {
    let (record, journal) = sample(is_broken);
    let judgement = judge(&record, &journal);
    (record, judgement)
}

#[test]
fn every_report_tells_the_verdict_and_the_seed() {
    let (record, judgement) = judged(false);
    assert_eq!(judgement.verdict, Verdict::Held, "{:#?}", judgement.reasons);
    let text = terminal(&record, &judgement, Colour::Off);
    for part in [
        "HELD",
        "0 of",
        "at 95 %",
        "seed 7",
        "standfast prove examples/shop --seed 7",
        "orders-0",
        "pid 4711 is gone",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    assert!(!text.contains('\u{1b}'));
    let page = html(&record, &judgement);
    for part in ["Held", "Seed 7", "standfast prove examples/shop --seed 7", "prefers-color-scheme"] {
        assert!(page.contains(part), "{part} is missing");
    }
    let file = read_json(&json(&record, &judgement).unwrap()).unwrap();
    assert_eq!((file.exit_code, &file.judgement, &file.record), (0, &judgement, &record));
}

#[test]
fn the_page_has_a_band_for_each_fault_and_needs_nothing_from_elsewhere() {
    let (record, judgement) = judged(false);
    let page = html(&record, &judgement);
    for number in 1..=5 {
        assert!(page.contains(&format!("data-fault=\"{number}\"")), "fault {number} has no band");
    }
    assert_eq!(page.matches("class=\"band\"").count(), 5);
    for foreign in ["<script", "<link", "src=", "@import", "url("] {
        assert!(!page.contains(foreign), "{foreign}");
    }
    // Balanced elements: what is opened is closed.
    for element in ["section", "table", "tr", "svg", "g", "ol", "ul", "details"] {
        let opened =
            page.matches(&format!("<{element} ")).count() + page.matches(&format!("<{element}>")).count();
        assert_eq!(opened, page.matches(&format!("</{element}>")).count(), "{element}");
    }
}

#[test]
fn a_strangers_text_stays_text_in_each_format() {
    let (record, judgement) = judged(true);
    assert_eq!(judgement.verdict, Verdict::Broke);
    let page = html(&record, &judgement);
    assert!(!page.contains("<script") && !page.contains(HOSTILE) && page.contains("&lt;script&gt;"));
    let xml = junit(&record, &judgement);
    assert!(!xml.contains("<script") && xml.contains("&lt;script&gt;") && !xml.contains('\u{1b}'));
    assert!(!terminal(&record, &judgement, Colour::Off).contains('\u{1b}'));
}

#[test]
fn junit_has_a_case_for_each_fault_each_invariant_and_the_run() {
    let (record, judgement) = judged(true);
    let xml = junit(&record, &judgement);
    assert_eq!(xml.matches("<testcase ").count(), 5 + 1 + 1);
    assert!(xml.contains(r#"tests="7""#) && xml.contains("<failure type=\"unsafe\""), "{xml}");
    let closed = xml.matches("</testcase>").count() + xml.matches("\"/>\n").count() - 2; // two properties
    assert_eq!(closed, 7, "{xml}");
}
