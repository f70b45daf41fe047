use std::sync::Arc;
use std::thread::JoinHandle;

use standfast_runtime::{Clock, SimulatedDisk};

use super::*;
use crate::fixtures;
use crate::outcome::Doubt;

const PATH: &str = "/run/journal.jsonl";

fn begin() -> Begin {
    Begin {
        version: JOURNAL_VERSION,
        run: "run".to_owned(),
        stack: "shop".parse().unwrap(),
        seed: 7,
        at: Stamp::from_micros(5),
        loads: vec!["checkout".parse().unwrap()],
        sources: vec![fixtures::source()],
    }
}

fn start(disk: &Arc<SimulatedDisk>) -> (Writer, JoinHandle<()>) {
    let disk: Arc<dyn Disk> = Arc::clone(disk) as Arc<dyn Disk>;
    Writer::start(disk, Clock::system(), Path::new(PATH), begin()).unwrap()
}

fn effect(key: &str, value: &[u8]) -> Effect {
    Effect { key: key.to_owned(), value: value.to_vec() }
}

async fn written() -> Vec<u8> {
    let disk = Arc::new(SimulatedDisk::default());
    let (writer, thread) = start(&disk);
    for number in 0..8 {
        writer.intend(0, number, &format!("run-checkout-{number}"), Stamp::from_micros(100 + number));
        let outcome =
            if number == 3 { Outcome::Unknown { why: Doubt::TimedOut } } else { Outcome::of_status(201) };
        if number != 4 {
            writer.outcome(0, number, Stamp::from_micros(500 + number), outcome);
        }
    }
    writer.effects(0, vec![effect("a", b"{}"), effect("b", b"\xff\x00")]).await;
    writer.close(thread).await.unwrap();
    disk.read(Path::new(PATH)).unwrap()
}

#[tokio::test]
async fn what_was_written_is_read() {
    let journal = Journal::parse(&written().await).unwrap();
    assert!(journal.is_complete);
    assert_eq!(journal.begin, begin());
    assert_eq!(journal.requests.len(), 8);
    assert_eq!(journal.requests.iter().filter(|request| request.is_acknowledged()).count(), 6);
    assert_eq!(journal.requests[4].outcome, None);
    assert_eq!(journal.requests[0].latency(), Some(Duration::from_micros(400)));
    assert_eq!(journal.effects[&fixtures::source()], [effect("a", b"{}"), effect("b", b"\xff\x00")]);
}

/// Wherever the writer dies, what is read claims no more than the whole file does.
#[tokio::test]
async fn a_journal_cut_at_any_byte_is_read_and_claims_no_more() {
    let whole = written().await;
    let full = Journal::parse(&whole).unwrap();
    let head = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    for cut in 0..whole.len() {
        if cut < head {
            assert!(Journal::parse(&whole[..cut]).is_err(), "cut at {cut}");
            continue;
        }
        let part = Journal::parse(&whole[..cut]).unwrap();
        assert!(part.effects.is_empty() || part.effects == full.effects, "cut at {cut}");
        assert!(!part.is_complete, "cut at {cut}");
        for request in &part.requests {
            let same = full.requests.iter().find(|other| other.id == request.id).unwrap();
            assert!(request.outcome.is_none() || request.outcome == same.outcome);
        }
        assert!(
            full.requests.iter().all(|request| part.may_have_caused(&request.id) || part.reserved_below == 0)
        );
    }
}

#[tokio::test]
async fn lines_missing_in_the_middle_are_noticed() {
    let whole = written().await;
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    for missing in 2..lines.len() - 1 {
        let rest: Vec<u8> =
            lines.iter().enumerate().filter(|(at, _)| *at != missing).flat_map(|(_, l)| l.to_vec()).collect();
        let error = Journal::parse(&rest).unwrap_err();
        assert!(matches!(error, JournalError::NotWhole(_)), "line {missing}: {error}");
    }
    let mut damaged = lines.concat();
    let half = damaged.len() / 2;
    damaged[half..half + 3].copy_from_slice(b"\x00\x00\x00");
    assert!(matches!(
        Journal::parse(&damaged),
        Err(JournalError::Damaged { .. } | JournalError::NotWhole(_))
    ));
}

#[test]
fn a_journal_of_version_1_stays_legible() {
    let text = concat!(
        r#"{"line":"begin","version":1,"run":"r","stack":"shop","seed":7,"at":5,"loads":["checkout"],"sources":[{"service":"payments","prefix":"ledger/"}]}"#,
        "\n",
        r#"{"line":"reserve","below":4096}"#,
        "\n",
        r#"{"line":"intend","load":0,"number":0,"id":"r-checkout-0","due":10}"#,
        "\n",
        r#"{"line":"outcome","load":0,"number":0,"at":20,"outcome":{"is":"acknowledged","status":201}}"#,
        "\n",
        r#"{"line":"intend","load":0,"number":1,"id":"r-checkout-1","due":11}"#,
        "\n",
        r#"{"line":"outcome","load":0,"number":1,"at":21,"outcome":{"is":"unknown","why":{"status":503}}}"#,
        "\n",
        r#"{"line":"effects","source":0,"count":1}"#,
        "\n",
        r#"{"line":"effect","source":0,"key":"ledger/1","value":{"text":"{}"}}"#,
        "\n",
        r#"{"line":"end","intents":2,"outcomes":2,"effects":1}"#,
        "\n",
    );
    let journal = Journal::parse(text.as_bytes()).unwrap();
    assert!(
        journal.is_complete
            && journal.requests[0].is_acknowledged()
            && !journal.requests[1].is_acknowledged()
    );
    let newer = text.replacen("\"version\":1", "\"version\":2", 1);
    assert!(matches!(Journal::parse(newer.as_bytes()), Err(JournalError::TooNew(2))));
}

#[tokio::test]
async fn numbers_are_usable_only_once_their_reservation_is_durable() {
    let disk = Arc::new(SimulatedDisk::default());
    let (writer, thread) = start(&disk);
    writer.until_reserved(RESERVE_BLOCK - 1).await;
    writer.reserve(2 * RESERVE_BLOCK);
    writer.until_reserved(RESERVE_BLOCK).await;
    let so_far = Journal::parse(&disk.read(Path::new(PATH)).unwrap()).unwrap();
    assert_eq!(so_far.reserved_below, 2 * RESERVE_BLOCK);
    tokio::select! {
        biased;
        () = writer.until_reserved(2 * RESERVE_BLOCK) => panic!("this number was never reserved"),
        () = std::future::ready(()) => {}
    }
    writer.close(thread).await.unwrap();
}

#[tokio::test]
async fn a_failed_write_is_final_and_told() {
    let disk = Arc::new(SimulatedDisk::default());
    let (writer, thread) = start(&disk);
    disk.fail_after(0);
    writer.intend(0, 0, "run-checkout-0", Stamp::EPOCH);
    writer.until_reserved(u64::MAX).await; // returns, since the journal has failed
    assert!(writer.failure().is_some());
    assert!(matches!(writer.close(thread).await, Err(JournalError::Failed { .. })));
    assert!(!Journal::parse(&disk.read(Path::new(PATH)).unwrap()).unwrap().is_complete);
}
