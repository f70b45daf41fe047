//! Every point at which a process can be killed or the power can go, of one scripted history on a real store.
//!
//! A child process runs the script under strace. From the system calls the files are rebuilt as they were after each one: as a
//! killed process leaves them (all that was written), and as a power cut leaves them (what was synced, and by chance sectors of
//! what was not; names only when their folder was synced). Each of these is opened as a store and compared with the model.

mod disk;
pub(crate) mod script;
mod trace;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use standfast_runtime::{Clock, Rng};
use standfast_store::{Batch, EmbeddedOptions, EmbeddedStore, Scan, Store, Version};

use self::disk::SimulatedFiles;
#[cfg(feature = "planted-bugs")]
pub(crate) use self::script::run as run_script;
pub(crate) use self::script::{FOLDER_VARIABLE, folder_of_child};
use self::script::{History, SPACE, State};
use self::trace::{Event, Mark};
use crate::embedded::memory_folder;

/// Fewer points than these mean that the test does not see what it should.
const KILL_POINTS_MIN: usize = 800;
const POWER_POINTS_MIN: usize = 1_000;

/// Runs `test` (an ignored test of this binary) on `folder` under strace and returns what it did.
pub(crate) fn traced_child(test: &str, folder: &Path) -> Vec<Event> {
    let trace = folder.join("trace");
    let output = Command::new("strace")
        .args(["-f", "-qq", "-xx", "-s", "70000", "-e", "signal=none", "-e"])
        .arg("trace=openat,open,creat,close,write,pwrite64,pwritev,writev,ftruncate,fallocate,fsync,fdatasync,unlink,unlinkat,rename,renameat,renameat2,mkdir")
        .arg("-o")
        .arg(&trace)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .env(FOLDER_VARIABLE, folder)
        .output()
        .expect("strace runs (install it: apt-get install strace)");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "the child is there under its name: {said}");
    trace::parse(&std::fs::read_to_string(trace).unwrap(), folder)
}

/// What a crash at one point must leave: all that was acknowledged, and nothing that had not begun.
struct Limits {
    acknowledged: Version,
    begun: usize,
}

/// Opens what a crash left, compares it with the history, and goes on with it.
async fn verdict(
    files: &BTreeMap<String, Vec<u8>>,
    history: &History,
    limits: &Limits,
) -> Result<(), String> {
    let folder = memory_folder();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content).unwrap();
    }
    // Other tests start processes meanwhile, which have the lock's file open for a moment.
    let lock_wait_max = Duration::from_secs(5);
    let options = EmbeddedOptions { readers: 1, lock_wait_max, ..EmbeddedOptions::default() };
    let open = async || {
        let opened = EmbeddedStore::open(folder.path(), Clock::system(), options.clone()).await;
        opened.map_err(|error| format!("cannot be opened: {error}: {:?}", std::error::Error::source(&error)))
    };
    let store = open().await?;
    let version = store.version();
    let found = contents(&store).await?;
    if version < limits.acknowledged {
        return Err(format!("version {} was acknowledged, {version} is there", limits.acknowledged));
    }
    let state = history.at(version).ok_or_else(|| format!("version {version} was never given"))?;
    if found != *state {
        return Err(format!(
            "at version {version} there are {} entries that differ",
            differences(&found, state)
        ));
    }
    if let Some(early) = history.batches_up_to(version).find(|batch| *batch >= limits.begun) {
        return Err(format!("batch {early} is there and had not begun"));
    }
    let next = store
        .commit(Batch::new().put(&SPACE, "after the crash", "v"))
        .await
        .map_err(|error| error.to_string())?;
    if next.version != version.next() {
        return Err(format!("the version after {version} is {}", next.version));
    }
    drop(store);
    let went_on = open().await?.get(&SPACE, b"after the crash").await.map_err(|error| error.to_string())?;
    if went_on.is_none() { Err("what is written after the crash is lost".into()) } else { Ok(()) }
}

async fn contents(store: &EmbeddedStore) -> Result<State, String> {
    let (mut scan, mut found) = (Scan::of(SPACE, ""), State::new());
    loop {
        let page = store.scan(&scan).await.map_err(|error| error.to_string())?;
        found.extend(page.entries.into_iter().map(|entry| (entry.key, (entry.value, entry.version))));
        scan.after = page.next;
        if scan.after.is_none() {
            return Ok(found);
        }
    }
}

fn differences(found: &State, expected: &State) -> usize {
    let missing = expected.iter().filter(|(key, entry)| found.get(*key) != Some(entry)).count();
    missing + found.keys().filter(|key| !expected.contains_key(*key)).count()
}

/// How many points were tried, and what was wrong at which.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    pub(crate) kill_points: usize,
    pub(crate) power_points: usize,
    pub(crate) wrong: Vec<String>,
}

/// Which points of a trace to try.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// A disk that says "synced" and does not.
    pub(crate) disk_lies: bool,
    pub(crate) with_power_cuts: bool,
    /// Stop at the first that is wrong.
    pub(crate) first_only: bool,
}

/// Crashes at every point of a trace.
pub(crate) fn crash_everywhere(events: &[Event], plan: Plan) -> Findings {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let history = History::of(events);
    let mut files = SimulatedFiles::new(plan.disk_lies);
    let (mut findings, mut rng) = (Findings::default(), Rng::seeded(7));
    let mut limits = Limits { acknowledged: Version::ZERO, begun: 0 };
    let (mut last_killed, mut last_cut) = (None, None);
    for (place, event) in events.iter().enumerate() {
        match event {
            Event::Mark(Mark::Begin(batch)) => limits.begun = limits.begun.max(batch + 1),
            Event::Mark(Mark::Done(_, version)) => limits.acknowledged = limits.acknowledged.max(*version),
            Event::Mark(Mark::Refused) => {}
            Event::File(call) => files.apply(call),
        }
        let mut images = vec![("kill", files.after_kill())];
        if plan.with_power_cuts {
            images.push(("power cut", files.after_power_cut(&mut rng, 0.0)));
            // An acknowledgement changes no file, but the most that may be lost.
            images.push(("power cut, sectors by chance", files.after_power_cut(&mut rng, 0.5)));
        }
        for (number, (what, image)) in images.into_iter().enumerate() {
            let last = if number == 0 { &mut last_killed } else { &mut last_cut };
            let seen = (image, limits.acknowledged);
            if number < 2 && last.as_ref() == Some(&seen) {
                continue;
            }
            if number == 0 {
                findings.kill_points += 1
            } else {
                findings.power_points += 1
            }
            if let Err(wrong) = runtime.block_on(verdict(&seen.0, &history, &limits)) {
                findings
                    .wrong
                    .push(format!("{what} after event {place} of {} ({event}): {wrong}", events.len()));
                if plan.first_only {
                    return findings;
                }
            }
            if number < 2 {
                *last = Some(seen);
            }
        }
    }
    findings
}

#[test]
fn no_crash_loses_what_was_acknowledged_or_halves_a_batch() {
    let folder = tempfile::tempdir().unwrap();
    let events = traced_child("crash::script::child", folder.path());
    let honest = Plan { disk_lies: false, with_power_cuts: true, first_only: false };
    let findings = crash_everywhere(&events, honest);
    println!(
        "{} system calls and marks, {} batches: {} kill points, {} power cuts",
        events.len(),
        History::of(&events).batches(),
        findings.kill_points,
        findings.power_points
    );
    assert!(findings.wrong.is_empty(), "{} wrong:\n{}", findings.wrong.len(), findings.wrong.join("\n"));
    assert!(findings.kill_points >= KILL_POINTS_MIN, "only {} kill points", findings.kill_points);
    assert!(findings.power_points >= POWER_POINTS_MIN, "only {} power cuts", findings.power_points);
    // The same eyes see it when the disk lies about what it has synced.
    let lying = Plan { disk_lies: true, with_power_cuts: true, first_only: true };
    let findings = crash_everywhere(&events, lying);
    assert!(
        !findings.wrong.is_empty(),
        "a lying disk goes unnoticed in {} power cuts",
        findings.power_points
    );
}
