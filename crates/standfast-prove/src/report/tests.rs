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

/// The width of a fault's band.
fn band_width(page: &str, fault: u32) -> f64 {
    let (_, group) = page.split_once(&format!("data-fault=\"{fault}\"")).unwrap();
    let (_, rect) = group.split_once("<rect class=\"band\"").unwrap();
    let (_, width) = rect.split_once("width=\"").unwrap();
    width.split_once('"').unwrap().0.parse().unwrap()
}

#[test]
fn a_band_ends_with_the_undo_or_the_healing_whichever_is_later() {
    let (mut record, judgement) = judged(false);
    let width_when = |healed_after: u64, undone_after: u64, record: &mut Record| {
        let zone_loss = &mut record.faults[3];
        let after = |seconds| Some(zone_loss.injected_at.plus(std::time::Duration::from_secs(seconds)));
        (zone_loss.healed_at, zone_loss.undone_at) = (after(healed_after), after(undone_after));
        band_width(&html(record, &judgement), 4)
    };
    let (short, long) = (width_when(2, 2, &mut record), width_when(6, 6, &mut record));
    assert!((long / short - 3.0).abs() < 0.1, "{short} and {long}");
    assert_eq!(width_when(2, 6, &mut record), long, "healed although the zone was still lost");
    assert_eq!(width_when(6, 2, &mut record), long, "healed after the zone was back");
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
