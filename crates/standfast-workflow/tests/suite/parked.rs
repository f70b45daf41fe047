//! A run that ends the process at each attempt is found out and parked; no other run is harmed.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use serde_json::{Value, json};
use standfast_runtime::Clock;
use standfast_store::{MemoryStore, Store};
use standfast_workflow::{EngineConfig, Status};

use super::crash::Mortal;
use super::rig::Rig;

/// Most processes that are begun.
const PROCESSES_MAX: usize = 12;

/// Begins one process: what it said, `None` when it broke.
fn begin(folder: &Path, mode: &str) -> Option<Vec<String>> {
    let program = std::env::current_exe().unwrap();
    let program = program.parent().unwrap().parent().unwrap().join("examples/runs_that_break");
    assert!(program.is_file(), "{} is not built: run all of this crate's tests", program.display());
    let ended = Command::new(&program)
        .args([folder, Path::new(env!("CARGO_BIN_EXE_standfast-expressions")), Path::new(mode)])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).lines().map(str::to_owned).collect();
    ended.status.success().then_some(said)
}

fn all(third: &str) -> Vec<String> {
    (1..=8).map(|number| format!("{number} {}", if number == 3 { third } else { "completed" })).collect()
}

#[test]
fn a_run_that_breaks_the_process_again_and_again_is_parked_and_all_others_end() {
    for mode in ["breaks", "breaks-asleep"] {
        let folder = tempfile::tempdir().unwrap();
        let mut broken = 0;
        let said = loop {
            match begin(folder.path(), mode) {
                Some(said) => break said,
                None => broken += 1,
            }
            assert!(broken < PROCESSES_MAX, "it is not parked");
        };
        assert_eq!(said, all("parked"), "{mode}");
        // The first, one that took all up as usual, and three with this run alone.
        assert_eq!(broken, 5, "{mode}");
        assert_eq!(begin(folder.path(), mode), Some(all("parked")), "nobody takes it up again by himself");
        assert_eq!(begin(folder.path(), "cured"), Some(all("completed")), "who resumes it does");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_that_are_only_there_when_processes_end_early_are_not_parked() {
    let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
    let document = "do:\n  - w: { wait: { milliseconds: 1 } }\n  - a: { set: { n: 1 } }\n";
    let mut ids = Vec::new();
    // Each process may write a few times more than the one before.
    for commits in 0..40 {
        let mortal = Mortal { inner: Arc::clone(&memory), left: AtomicI64::new(commits), is_done: true };
        let Ok(rig) =
            Rig::try_beside(Arc::new(mortal), EngineConfig::default(), super::rig::Service::start().await)
                .await
        else {
            continue;
        };
        if let Ok(name) = rig.try_define("many", document).await {
            for _ in 0..3 {
                ids.extend(rig.engine.start(&name, Arc::new(json!({})), None).await);
            }
        }
        rig.crash().await;
    }
    assert!(ids.len() > 3, "{} runs were started", ids.len());
    let rig = Rig::over(memory, EngineConfig::default()).await;
    for id in ids {
        assert_eq!(rig.end(id).await.status, Status::Completed);
    }
    let name = rig.define("after", document).await;
    let id = rig.start(&name, Value::Null).await;
    assert_eq!(rig.end(id).await.status, Status::Completed);
}
