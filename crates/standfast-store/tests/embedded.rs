//! What only the embedded store promises: opening, locking, formats, sharing an fsync, refusing when its queue is full.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use standfast_model::Stamp;
use standfast_runtime::Clock;
use standfast_store::{
    Batch, CommitError, EmbeddedOptions, EmbeddedStore, FORMAT_VERSION, OpenError, Scan, Space, Store,
    Version,
};
use tempfile::TempDir;

const A: Space = Space::Table("a");

/// A folder whose fsync costs nothing, where there is one: for tests that open stores by the thousand.
pub(crate) fn memory_folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

async fn open(folder: &Path) -> Result<EmbeddedStore, OpenError> {
    EmbeddedStore::open(folder, Clock::system(), EmbeddedOptions::default()).await
}

fn sqlite(folder: &Path, sql: &str) {
    rusqlite::Connection::open(folder.join("store.db")).unwrap().execute_batch(sql).unwrap();
}

fn text(error: &OpenError, folder: &Path) -> String {
    error.to_string().replace(&folder.display().to_string(), "FOLDER")
}

#[tokio::test]
async fn what_was_committed_is_there_after_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a/b/c");
    let store = open(&deep).await.unwrap();
    store.commit(Batch::new().put(&A, "k", "v")).await.unwrap();
    let version = store.commit(Batch::new().delete(&A, "gone")).await.unwrap().version;
    drop(store);
    let store = open(&deep).await.unwrap();
    assert_eq!(store.version(), version);
    assert_eq!(store.get(&A, b"k").await.unwrap().unwrap().value, "v");
    assert_eq!(store.commit(Batch::new().put(&A, "k", "w")).await.unwrap().version, Version(version.0 + 1));
}

#[tokio::test]
async fn a_store_in_use_is_not_opened_twice_and_opens_when_it_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).await.unwrap();
    let error = open(folder.path()).await.unwrap_err();
    assert_eq!(
        text(&error, folder.path()),
        "the store in `FOLDER` is in use by another process (waited 0 ms); stop that process, or give this one another data folder"
    );
    let waits = EmbeddedOptions { lock_wait_max: Duration::from_secs(20), ..EmbeddedOptions::default() };
    let path = folder.path().to_owned();
    let second = tokio::task::LocalSet::new();
    second
        .run_until(async {
            let second =
                tokio::task::spawn_local(
                    async move { EmbeddedStore::open(&path, Clock::system(), waits).await },
                );
            tokio::task::yield_now().await;
            drop(first);
            second.await.unwrap().unwrap();
        })
        .await;
}

#[tokio::test]
async fn files_of_others_are_refused_and_left_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).await.unwrap());
    sqlite(folder.path(), "PRAGMA user_version = 7");
    let error = open(folder.path()).await.unwrap_err();
    assert_eq!(
        text(&error, folder.path()),
        format!(
            "the store in `FOLDER` has format 7, and this standfast reads format {FORMAT_VERSION}; use the standfast \
             release that wrote it, or move the folder away to begin with an empty store"
        )
    );
    for spoil in [
        "PRAGMA user_version = 1; PRAGMA application_id = 3",
        "PRAGMA application_id = 0; PRAGMA user_version = 0",
    ] {
        sqlite(folder.path(), spoil);
        let error = open(folder.path()).await.unwrap_err();
        assert!(matches!(error, OpenError::NotAStore { .. }), "{error:?}");
    }
    let plain = tempfile::tempdir().unwrap();
    let letter = "Dear diary, this is no database. ".repeat(99);
    std::fs::write(plain.path().join("store.db"), &letter).unwrap();
    let error = open(plain.path()).await.unwrap_err();
    assert_eq!(
        text(&error, plain.path()),
        "`FOLDER/store.db` is not a standfast store; give another data folder, or move that file away"
    );
    assert_eq!(std::fs::read_to_string(plain.path().join("store.db")).unwrap(), letter);
    let error = open(&plain.path().join("store.db")).await.unwrap_err();
    assert!(matches!(error, OpenError::Io { action: "make the folder", .. }), "{error:?}");
}

#[tokio::test]
async fn a_damaged_file_stops_the_store_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let options = EmbeddedOptions { checkpoint_pages: 1, cache_kib: 1, ..EmbeddedOptions::default() };
    let store = EmbeddedStore::open(folder.path(), Clock::system(), options).await.unwrap();
    for n in 0..200 {
        store.commit(Batch::new().put(&A, format!("{n:03}"), vec![b'v'; 900])).await.unwrap();
    }
    drop(store);
    let file = folder.path().join("store.db");
    let mut bytes = std::fs::read(&file).unwrap();
    assert!(bytes.len() > 100_000, "the log was carried into the file");
    bytes[4_096 * 4..].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
    std::fs::remove_file(folder.path().join("store.db-wal")).unwrap();
    let store = open(folder.path()).await.unwrap();
    let error = store.scan(&Scan::of(A, "")).await.unwrap_err();
    assert!(error.to_string().starts_with("the store has stopped: cannot read: "), "{error}");
    let later = store.commit(Batch::new().put(&A, "k", "v")).await.unwrap_err();
    assert!(matches!(&later, CommitError::Stopped { .. }) && later.may_repeat() && later.was_not_done());
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_harms_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let options =
        EmbeddedOptions { queue_batches_max: 4, queue_bytes_max: 1_000, ..EmbeddedOptions::default() };
    let store = Arc::new(EmbeddedStore::open(folder.path(), Clock::system(), options).await.unwrap());
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..500 {
        let store = Arc::clone(&store);
        calls.spawn(async move { store.commit(Batch::new().put(&A, format!("{n}"), vec![0; 100])).await });
    }
    let results = calls.join_all().await;
    let done = results.iter().filter(|result| result.is_ok()).count();
    let busy = results.iter().filter(|result| **result == Err(CommitError::Busy)).count();
    assert_eq!(done + busy, 500, "{results:?}");
    assert!(done >= 4 && busy > 0, "{done} done, {busy} refused");
    assert_eq!(store.scan(&Scan::of(A, "")).await.unwrap().entries.len(), done);
    assert_eq!(store.commit(Batch::new().put(&A, "k", vec![0; 1_000])).await, Err(CommitError::Busy));
    store.commit(Batch::new().put(&A, "k", "fits again")).await.unwrap();
}

#[tokio::test]
async fn expired_entries_are_removed_from_the_file_in_bounded_steps() {
    let folder = memory_folder();
    let store = open(folder.path()).await.unwrap();
    let past = Some(Stamp::EPOCH);
    for first in (0..1_000).step_by(250) {
        let batch =
            (first..first + 250).fold(Batch::new(), |b, n| b.put_until(&A, format!("{n}"), "v", past));
        store.commit(batch).await.unwrap();
    }
    store.commit(Batch::new().put(&A, "stays", "v")).await.unwrap();
    drop(store);
    let connection = rusqlite::Connection::open(folder.path().join("store.db")).unwrap();
    let left: i64 = connection.query_row("SELECT count(*) FROM entry", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 1);
    let plan: String = connection
        .query_row("EXPLAIN QUERY PLAN SELECT space, key FROM entry WHERE expires_at <= 5 ORDER BY expires_at LIMIT 9", [], |row| row.get(3))
        .unwrap();
    assert!(plan.contains("entry_ending"), "{plan}");
}
