//! The real thing, killed again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use standfast_runtime::Rng;
use standfast_workflow::{EngineConfig, RunId};
use tokio::runtime::Runtime;

use super::limits::{most_at_once, spans};
use super::rig::{PATIENCE, Rig, Service, embedded};

/// How often it is killed; `STANDFAST_KILLS` says otherwise.
const KILLS: usize = 8;
/// Runs for each kill.
const RUNS_A_KILL: usize = 60;

const DOCUMENT: &str = "document: { dsl: '1.0.3', namespace: tests, name: kill, version: '1.0.0' }
do:
  - reserve: { call: http, with: { method: post, endpoint: 'SERVICE/reserve', body: '${ .number }' } }
  - charge: { call: http, with: { method: post, endpoint: 'SERVICE/charge' } }
  - pause: { wait: { milliseconds: 5 } }
  - ship: { call: http, with: { method: post, endpoint: 'SERVICE/ship' } }
";

fn start(folder: &Path, document: &Path, first: usize, last: usize) -> (Child, mpsc::Receiver<String>) {
    let program = std::env::current_exe().unwrap();
    let program = program.parent().unwrap().parent().unwrap().join("examples/runs_until_killed");
    assert!(program.is_file(), "{} is not built: run all of this crate's tests", program.display());
    let mut child = Command::new(&program)
        .args([folder, document, Path::new(env!("CARGO_BIN_EXE_standfast-expressions"))])
        .args([first.to_string(), last.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (said, heard) = mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| said.send(line)));
    (child, heard)
}

#[test]
fn runs_survive_being_killed_again_and_again() {
    killed(DOCUMENT, |_, _, _| {});
}

#[test]
fn limits_hold_while_processes_are_killed_again_and_again() {
    const LIMIT: usize = 3;
    let limits = "metadata: { standfast: { concurrency: { limit: 3, key: '${ .number % 4 }' } } } }";
    killed(&DOCUMENT.replacen(" }", &format!(", {limits}"), 1), |runtime, store, acknowledged| {
        let histories = async {
            let (store, config) = (embedded(store).await, EngineConfig::default());
            let rig = Rig::over(store, config).await;
            for key in 0..4 {
                let ids = acknowledged.iter().filter(|(number, _)| *number % 4 == key);
                let ids: Vec<RunId> = ids.map(|(_, id)| id.parse().unwrap()).collect();
                let spans = spans(&rig.engine, &ids).await;
                assert_eq!(spans.len(), ids.len(), "each run was let in once");
                let most = most_at_once(&spans);
                assert!((1..=LIMIT).contains(&most), "{most} runs of one key went on at a time");
            }
            rig.crash().await;
        };
        runtime.block_on(histories);
    });
}

/// Kills processes that drive such runs until all have ended; then looks at what is in the store.
fn killed(document_text: &str, look: impl FnOnce(&Runtime, &Path, &BTreeMap<usize, String>)) {
    #[expect(clippy::disallowed_methods, reason = "a test has no main that could read it")]
    let kills = std::env::var("STANDFAST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let service = runtime.block_on(Service::start());
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("kill.yaml");
    std::fs::write(&document, document_text.replace("SERVICE", &format!("http://{}", service.address)))
        .unwrap();
    let store = folder.path().join("store");
    let mut rng = Rng::seeded(20_261_123);
    // Which run each number was acknowledged as.
    let mut acknowledged: BTreeMap<usize, String> = BTreeMap::new();
    let mut ended = BTreeSet::new();
    let mut first = 1;
    for kill in 0..=kills {
        let is_last = kill == kills;
        let last = RUNS_A_KILL * (kill + 1).min(kills);
        let (mut child, heard) = start(&store, &document, first, last);
        let mut left = if is_last { usize::MAX } else { rng.below(2 * RUNS_A_KILL) };
        let mut is_done = false;
        // It is killed after so many words, or a moment later, when nobody expects it.
        while left > 0 {
            let Ok(line) = heard.recv_timeout(PATIENCE) else { break };
            left -= 1;
            is_done |= line == "done";
            note(&line, &mut acknowledged, &mut ended);
        }
        if !is_last {
            let _quiet = heard.recv_timeout(Duration::from_micros(rng.below(20_000) as u64));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        heard.iter().for_each(|line| note(&line, &mut acknowledged, &mut ended));
        assert!(is_done || !is_last, "the last one was not killed and did not end");
        // Next time all that was not seen to end is started again, by the same keys.
        first = (1..=last).find(|number| !ended.contains(number)).unwrap_or(last);
    }
    let all: BTreeSet<usize> = (1..=RUNS_A_KILL * kills).collect();
    assert_eq!(ended, all, "every run ended");
    let (effects, twice) = service.seen(|seen| {
        let twice = seen.effects.values().filter(|count| **count > 1).count();
        (seen.effects.len(), twice)
    });
    assert_eq!(
        effects,
        3 * all.len(),
        "three effects for each run, by keys of their own: none for a run twice"
    );
    println!(
        "{kills} kills, {} runs, {effects} effects, {twice} of them asked for more than once",
        all.len()
    );
    look(&runtime, &store, &acknowledged);
}

fn note(line: &str, acknowledged: &mut BTreeMap<usize, String>, ended: &mut BTreeSet<usize>) {
    let mut words = line.split(' ');
    let (Some(Ok(number)), Some(id)) = (words.next().map(str::parse::<usize>), words.next()) else { return };
    let known = acknowledged.entry(number).or_insert_with(|| id.to_owned());
    assert_eq!(known, id, "the start {number} was acknowledged as two runs");
    if let Some(status) = words.next() {
        assert_eq!(status, "completed");
        ended.insert(number);
    }
}
