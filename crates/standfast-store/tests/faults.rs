//! Disks that fail, fill up, and processes that are killed: with real files, and the kernel's own errors.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use standfast_runtime::{Clock, Rng};
use standfast_store::{
    Batch, CommitError, EmbeddedOptions, EmbeddedStore, Health, OpenError, ReadError, Scan, Space, Store,
};

use crate::crash::{FOLDER_VARIABLE, folder_of_child};

const A: Space = Space::Table("a");
/// Batches of a child.
const BATCHES: usize = 60;

async fn open(folder: &Path) -> Result<EmbeddedStore, OpenError> {
    let options = EmbeddedOptions { checkpoint_pages: 30, readers: 1, ..EmbeddedOptions::default() };
    EmbeddedStore::open(&folder.join("store"), Clock::system(), options).await
}

fn batch(number: usize) -> Batch {
    let value = vec![number as u8; 2_000];
    Batch::new().put(&A, format!("{number:03}/1"), value.clone()).put(&A, format!("{number:03}/2"), value)
}

/// How many of a batch's two entries are there.
async fn entries_of(store: &EmbeddedStore, number: usize) -> usize {
    store.scan(&Scan::of(A, format!("{number:03}/"))).await.unwrap().entries.len()
}

fn run(program: &str, arguments: &[&str], test: &str, folder: &Path) -> Output {
    Command::new(program)
        .args(arguments)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--nocapture", "--test-threads=1"])
        .env(FOLDER_VARIABLE, folder)
        .output()
        .unwrap_or_else(|error| panic!("{program} runs (install it): {error}"))
}

fn said(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}

/// Runs a child on `folder` with an error in system calls of each of its threads.
fn with_error(calls: &str, error: &str, when: &str, test: &str, folder: &Path) -> String {
    let inject = format!("inject={calls}:error={error}:when={when}");
    said(&run("strace", &["-f", "-qq", "-o", "/dev/null", "-e", "signal=none", "-e", &inject], test, folder))
}

#[tokio::test]
async fn an_error_of_the_disk_stops_the_store_and_loses_nothing() {
    let (mut tried, mut stopped, mut unknown) = (0, 0, 0);
    let syncs = (1..40).step_by(2).map(|when| ("fsync,fdatasync", when));
    let writes = (1..400).step_by(23).map(|when| ("pwrite64", when));
    let reads = (8..40).step_by(5).map(|when| ("pread64", when));
    for (calls, when) in syncs.chain(writes).chain(reads) {
        let folder = crate::embedded::memory_folder();
        let said =
            with_error(calls, "EIO", &when.to_string(), "faults::child_on_a_failing_disk", folder.path());
        tried += 1;
        stopped += usize::from(said.contains("STOPPED"));
        unknown += usize::from(said.contains("UNKNOWN"));
        let store = open(folder.path()).await.expect("it opens again when the disk does not fail");
        for number in 0..BATCHES {
            let there = entries_of(&store, number).await;
            let is = |word: &str| said.lines().any(|line| line == format!("{word} {number}"));
            let allowed: &[usize] = if is("DONE") {
                &[2]
            } else if is("UNKNOWN") {
                &[0, 2]
            } else {
                &[0]
            };
            assert!(
                allowed.contains(&there),
                "{calls} {when}: batch {number} has {there} entries, not {allowed:?}:\n{said}"
            );
        }
        store.commit(batch(BATCHES)).await.expect("it works again");
    }
    println!(
        "{tried} failing system calls: {stopped} stopped an open store, {unknown} of them in mid-commit"
    );
    assert!(
        stopped >= 20 && unknown >= 10,
        "only {stopped} of {tried} errors reached the store, {unknown} in mid-commit"
    );
}

/// Only checkpoints sync the database file of a store that is there already. Their errors are the ones that SQLite by itself
/// would drop.
#[tokio::test]
async fn an_error_of_a_checkpoint_stops_the_store_too() {
    let folder = crate::embedded::memory_folder();
    drop(open(folder.path()).await.unwrap());
    let file = folder.path().join("store/store.db").display().to_string();
    let arguments =
        ["-f", "-qq", "-o", "/dev/null", "-P", &file, "-e", "inject=fsync,fdatasync:error=EIO:when=1"];
    let said = said(&run("strace", &arguments, "faults::child_on_a_failing_disk", folder.path()));
    assert!(said.contains("STOPPED the store has stopped: cannot checkpoint: disk I/O error"), "{said}");
    let store = open(folder.path()).await.unwrap();
    for number in 0..said.matches("DONE").count() {
        assert_eq!(entries_of(&store, number).await, 2, "{said}");
    }
}

#[tokio::test]
#[ignore = "runs as a child on a disk that fails"]
async fn child_on_a_failing_disk() {
    println!();
    match open(&folder_of_child()).await {
        Err(error) => println!("not opened: {error}: {:?}", std::error::Error::source(&error)),
        Ok(store) => {
            for number in 0..BATCHES {
                match store.commit(batch(number)).await {
                    Ok(_) => println!("DONE {number}"),
                    Err(error) => {
                        assert!(error.may_repeat(), "{error:?}");
                        if !error.was_not_done() {
                            println!("UNKNOWN {number}");
                        }
                        return stays_stopped(&store, &error).await;
                    }
                }
            }
        }
    }
}

/// Once stopped, all calls say so, and why.
async fn stays_stopped(store: &EmbeddedStore, first: &CommitError) {
    let (CommitError::Stopped { reason } | CommitError::Unknown { reason }) = first else {
        panic!("{first:?}")
    };
    println!("STOPPED {first}");
    let later = store.commit(batch(0)).await.unwrap_err();
    assert_eq!(later, CommitError::Stopped { reason: reason.clone() });
    assert_eq!(store.get(&A, b"k").await, Err(ReadError::Stopped { reason: reason.clone() }));
    assert_eq!(*store.health().borrow(), Health::Stopped(reason.clone()));
}

#[test]
fn a_full_disk_refuses_writes_until_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("store")).unwrap();
    let mount = "mount -t tmpfs -o size=2m tmpfs \"$0\" && exec \"$@\"";
    let store = folder.path().join("store").display().to_string();
    for how in [&["-m"][..], &["-r", "-m"]] {
        let arguments: Vec<&str> = how.iter().copied().chain(["sh", "-c", mount, &store]).collect();
        if Command::new("unshare").args(&arguments).arg("true").status().is_ok_and(|status| status.success())
        {
            let said = said(&run("unshare", &arguments, "faults::child_on_a_small_disk", folder.path()));
            println!("with a file system of 2 MiB (unshare {}):", how.join(" "));
            said.lines().filter(|line| line.starts_with("FULL")).for_each(|line| println!("  {line}"));
            return;
        }
    }
    println!("mounting is not permitted here: only with injected errors");
}

#[tokio::test]
#[ignore = "runs as a child on a small disk"]
async fn child_on_a_small_disk() {
    let folder = folder_of_child();
    let ballast = folder.join("store/ballast");
    std::fs::write(&ballast, vec![1; 700 << 10]).unwrap();
    let store = open(&folder).await.unwrap();
    let mut done = fill(&store, 0).await;
    println!("\nFULL after {done} batches of 4 kB");
    assert!(done > 50, "only {done}");
    assert_eq!(*store.health().borrow(), Health::Full);
    assert_eq!(entries_of(&store, 0).await, 2, "reads go on");
    assert_eq!(entries_of(&store, done).await, 0, "nothing of the refused batch is there");
    store
        .commit(Batch::new().when(&A, "000/1", standfast_store::Is::Present))
        .await
        .expect("asking is no write");
    std::fs::remove_file(&ballast).unwrap();
    store.commit(batch(done)).await.expect("writes come back by themselves");
    assert_eq!(*store.health().borrow(), Health::Serving);
    done = fill(&store, done + 1).await;
    println!("FULL again after {done} batches");
    drop(store);
    let store = open(&folder).await.expect("a full disk keeps nobody from opening");
    for number in 0..done {
        assert_eq!(entries_of(&store, number).await, 2, "batch {number} was acknowledged");
    }
    let delete =
        (0..done).fold(Batch::new(), |b, n| if n < 100 { b.delete(&A, format!("{n:03}/1")) } else { b });
    let deleted = store.commit(delete).await;
    println!(
        "FULL disk, deleting 100 entries: {}",
        deleted.map_or_else(|error| error.to_string(), |_| "done".into())
    );
}

/// Writes until the disk is full; the number of the batch that was refused.
async fn fill(store: &EmbeddedStore, first: usize) -> usize {
    for number in first..1_000 {
        match store.commit(batch(number)).await {
            Ok(_) => {}
            Err(CommitError::Full) => return number,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the disk is never full");
}

#[test]
fn no_room_for_a_while_is_survived_at_every_write() {
    let mut refused = 0;
    for first in (60..500).step_by(29) {
        let when = format!("{first}..{}", first + 12);
        let folder = crate::embedded::memory_folder();
        let said = with_error(
            "pwrite64",
            "ENOSPC",
            &when,
            "faults::child_on_a_disk_full_for_a_while",
            folder.path(),
        );
        refused += said.matches("REFUSED").count();
    }
    println!("{refused} batches were refused and done later");
    assert!(refused >= 20, "only {refused} refused");
}

#[tokio::test]
#[ignore = "runs as a child on a disk that is full for a while"]
async fn child_on_a_disk_full_for_a_while() {
    let folder = folder_of_child();
    let store = open(&folder).await.unwrap();
    for number in 0..BATCHES {
        let mut tries = 0;
        while let Err(error) = store.commit(batch(number)).await {
            assert_eq!(error, CommitError::Full);
            println!("REFUSED {number}");
            assert_eq!(entries_of(&store, number).await, 0);
            assert!(number == 0 || entries_of(&store, number - 1).await == 2, "reads go on");
            tries += 1;
            assert!(tries < 50, "it never comes back");
        }
    }
    drop(store);
    let store = open(&folder).await.unwrap();
    for number in 0..BATCHES {
        assert_eq!(entries_of(&store, number).await, 2);
    }
}

#[tokio::test]
async fn a_killed_process_leaves_all_it_acknowledged_and_its_lock() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, mut rng, mut longest) = (Clock::system(), Rng::seeded(5), Duration::ZERO);
    let mut acknowledged = 0;
    for _ in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "faults::child_that_is_killed", "--ignored", "--nocapture"])
            .env(FOLDER_VARIABLE, folder.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let before = acknowledged;
        for _ in 0..1_000 {
            acknowledged = last_acknowledged(folder.path());
            if acknowledged > before + 5 {
                break;
            }
            clock.sleep(Duration::from_millis(5)).await;
        }
        assert!(acknowledged > before, "the child works");
        clock.sleep(Duration::from_millis(rng.below(30) as u64)).await;
        child.kill().unwrap();
        let began = clock.now();
        let options =
            EmbeddedOptions { lock_wait_max: Duration::from_secs(10), ..EmbeddedOptions::default() };
        let store = EmbeddedStore::open(&folder.path().join("store"), clock, options).await.unwrap();
        longest = longest.max(clock.now().since(began));
        acknowledged = last_acknowledged(folder.path());
        for number in 0..acknowledged {
            assert!(
                store.get(&A, format!("{number}").as_bytes()).await.unwrap().is_some(),
                "{number} is lost"
            );
        }
        drop(store);
        child.wait().unwrap();
    }
    println!("killed 8 times, {acknowledged} acknowledged, opened again after {longest:?} at most");
}

fn log_of_child(folder: &Path) -> PathBuf {
    folder.join("acknowledged")
}

/// The number after the last that was acknowledged.
fn last_acknowledged(folder: &Path) -> usize {
    let text = std::fs::read_to_string(log_of_child(folder)).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().last().map_or(0, |line| line.parse::<usize>().unwrap() + 1)
}

#[tokio::test]
#[ignore = "runs as a child that is killed"]
async fn child_that_is_killed() {
    let folder = folder_of_child();
    let mut log = std::fs::File::options().create(true).append(true).open(log_of_child(&folder)).unwrap();
    let first = last_acknowledged(&folder);
    let store = open(&folder).await.unwrap();
    for number in first..first + 1_000_000 {
        store.commit(Batch::new().put(&A, format!("{number}"), "v")).await.unwrap();
        log.write_all(format!("{number}\n").as_bytes()).unwrap();
    }
}
