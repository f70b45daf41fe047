//! Each plant breaks its promise, and no other, so that a prover that does not notice it is blind.

use std::path::Path;

use standfast_runtime::Clock;
use standfast_store::{Batch, EmbeddedOptions, EmbeddedStore, Is, Plant, Scan, Space, Store};

use crate::crash::{Plan, crash_everywhere, folder_of_child, run_script, traced_child};

const A: Space = Space::Table("a");

async fn open(folder: &Path, plant: Plant) -> EmbeddedStore {
    let options = EmbeddedOptions { plant: Some(plant), ..EmbeddedOptions::default() };
    EmbeddedStore::open(folder, Clock::system(), options).await.unwrap()
}

#[test]
fn acknowledging_before_the_commit_is_found_by_killing() {
    let folder = tempfile::tempdir().unwrap();
    let events = traced_child("planted::child_that_acknowledges_early", folder.path());
    let plan = Plan { disk_lies: false, with_power_cuts: false, first_only: true };
    let findings = crash_everywhere(&events, plan);
    println!("found after {} kill points: {:?}", findings.kill_points, findings.wrong);
    assert!(findings.wrong.iter().any(|wrong| wrong.contains("was acknowledged")), "{:?}", findings.wrong);
}

#[tokio::test]
#[ignore = "runs as a child of the crash test"]
async fn child_that_acknowledges_early() {
    let options = EmbeddedOptions { plant: Some(Plant::AckBeforeCommit), ..EmbeddedOptions::default() };
    run_script(&folder_of_child(), options).await;
}

#[tokio::test]
async fn acknowledging_before_the_commit_shows_in_no_read() {
    let folder = crate::embedded::memory_folder();
    let store = open(folder.path(), Plant::AckBeforeCommit).await;
    for number in 0..50 {
        let key = format!("{number}");
        store.commit(Batch::new().put(&A, key.clone(), "v")).await.unwrap();
        assert!(store.get(&A, key.as_bytes()).await.unwrap().is_some(), "{number}");
    }
    drop(store);
    let store = open(folder.path(), Plant::AckBeforeCommit).await;
    assert_eq!(store.scan(&Scan::of(A, "")).await.unwrap().entries.len(), 50, "an orderly end loses nothing");
}

#[tokio::test]
async fn one_batch_in_a_thousand_is_dropped() {
    let folder = crate::embedded::memory_folder();
    let store = open(folder.path(), Plant::DropOneWriteIn1000).await;
    let mut lost = 0;
    for number in 0..2_100 {
        let key = format!("{number}");
        store.commit(Batch::new().put(&A, key.clone(), "v")).await.unwrap();
        lost += usize::from(store.get(&A, key.as_bytes()).await.unwrap().is_none());
    }
    assert_eq!(lost, 2);
}

#[tokio::test]
async fn ignored_conditions_let_a_repeated_batch_be_done_twice() {
    let folder = crate::embedded::memory_folder();
    let store = open(folder.path(), Plant::IgnoreConditions).await;
    let once = || Batch::new().when(&A, "paid", Is::Absent).put(&A, "paid", "v");
    assert_ne!(store.commit(once()).await.unwrap(), store.commit(once()).await.unwrap());
}
