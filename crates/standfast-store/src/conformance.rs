//! What every [`Store`] promises, as checks that any implementation runs in its tests. A broken promise panics and says which.
//!
//! The clock must be the store's own. Under tokio's paused time the waits in here take no time.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use standfast_model::Stamp;
use standfast_runtime::Clock;

use crate::{
    BATCH_WRITES_MAX, Batch, CommitError, Committed, Entry, Failed, Health, Is, KEY_BYTES_MAX, Page,
    ReadError, SCAN_BYTES_MAX, Scan, Space, Store, TooLarge, VALUE_BYTES_MAX, Version,
};

/// How long an entry of these checks lives.
const TTL: Duration = Duration::from_millis(200);

/// Runs every check, each on a fresh store from `fresh`.
///
/// # Panics
/// When a promise is broken.
pub async fn all<F: AsyncFn() -> Arc<dyn Store>>(fresh: F, clock: Clock) {
    reads_see_what_was_acknowledged(&*fresh().await).await;
    conditions_hold_or_nothing_is_done(&*fresh().await).await;
    versions_grow_with_every_batch_that_writes(&*fresh().await).await;
    the_last_write_to_a_key_wins(&*fresh().await).await;
    spaces_do_not_meet(&*fresh().await).await;
    an_expired_entry_is_absent(&*fresh().await, clock).await;
    scans_are_ordered_and_paged(&*fresh().await).await;
    a_page_is_bounded_in_bytes(&*fresh().await).await;
    a_page_goes_on_whatever_is_written_meanwhile(&*fresh().await).await;
    limits_are_kept(&*fresh().await).await;
    of_many_who_compare_and_set_one_wins(fresh().await).await;
    concurrent_increments_all_count(fresh().await).await;
    a_watch_never_misses_the_last(fresh().await).await;
}

const A: Space = Space::Table("a");
const B: Space = Space::Table("b");

async fn commit(store: &dyn Store, batch: Batch) -> Version {
    store.commit(batch).await.expect("the batch is done").version
}

async fn get(store: &dyn Store, space: &Space, key: &'static str) -> Option<Entry> {
    store.get(space, key.as_bytes()).await.expect("the key is read")
}

async fn value(store: &dyn Store, space: &Space, key: &'static str) -> Option<Bytes> {
    get(store, space, key).await.map(|entry| entry.value)
}

async fn keys(store: &dyn Store, scan: Scan) -> (Vec<String>, Option<Bytes>) {
    let Page { entries, next } = store.scan(&scan).await.expect("the page is read");
    (entries.iter().map(|entry| String::from_utf8_lossy(&entry.key).into_owned()).collect(), next)
}

async fn reads_see_what_was_acknowledged(store: &dyn Store) {
    assert_eq!(get(store, &A, "k").await, None, "an empty store has no entries");
    assert_eq!(*store.health().borrow(), Health::Serving);
    let version = commit(store, Batch::new().put(&A, "k", &b"\0\xff"[..])).await;
    let entry = Entry { key: "k".into(), value: Bytes::from_static(b"\0\xff"), version, expires_at: None };
    assert_eq!(get(store, &A, "k").await, Some(entry.clone()));
    assert_eq!(store.scan(&Scan::of(A, "")).await, Ok(Page { entries: vec![entry], next: None }));
    commit(store, Batch::new().delete(&A, "k").delete(&A, "was never there")).await;
    assert_eq!(get(store, &A, "k").await, None);
    commit(store, Batch::new().put(&A, "empty", "")).await;
    assert_eq!(value(store, &A, "empty").await, Some(Bytes::new()), "an empty value is a value");
}

async fn conditions_hold_or_nothing_is_done(store: &dyn Store) {
    let first = commit(store, Batch::new().when(&A, "k", Is::Absent).put(&A, "k", "1")).await;
    let second = commit(store, Batch::new().when(&A, "k", Is::Version(first)).put(&A, "k", "2")).await;
    commit(store, Batch::new().when(&A, "k", Is::Present).put(&A, "other", "x")).await;
    let mixed = Batch::new()
        .when(&A, "k", Is::Version(first))
        .when(&A, "k", Is::Present)
        .when(&A, "k", Is::Absent)
        .when(&A, "none", Is::Version(first))
        .when(&A, "none", Is::Present)
        .when(&B, "k", Is::Absent)
        .put(&A, "k", "3")
        .delete(&A, "other");
    let failed = [(0, Some(second)), (2, Some(second)), (3, None), (4, None)];
    let failed = failed.map(|(index, found)| Failed { index, found }).to_vec();
    assert_eq!(store.commit(mixed).await, Err(CommitError::Conditions { failed }));
    assert_eq!(value(store, &A, "k").await, Some("2".into()), "a refused batch writes nothing");
    assert_eq!(value(store, &A, "other").await, Some("x".into()), "a refused batch deletes nothing");
    let own = Batch::new().when(&A, "new", Is::Absent).put(&A, "new", "1").when(&A, "new", Is::Absent);
    commit(store, own).await; // conditions are checked before the batch's own writes
}

async fn versions_grow_with_every_batch_that_writes(store: &dyn Store) {
    let mut last = commit(store, Batch::new().put(&A, "a", "1").put(&B, "b", "1")).await;
    assert!(last > Version::ZERO);
    let (a, b) = (get(store, &A, "a").await, get(store, &B, "b").await);
    assert_eq!(a.map(|e| e.version), Some(last), "all writes of a batch have its version");
    assert_eq!(b.map(|e| e.version), Some(last), "all writes of a batch have its version");
    for batch in [
        Batch::new().put(&A, "a", "1"),
        Batch::new().delete(&A, "never there"),
        Batch::new().delete(&A, "a"),
        Batch::new().put(&A, "a", "1"),
    ] {
        let version = commit(store, batch).await;
        assert!(version > last, "{version} comes after {last}");
        last = version;
    }
    let asked = store.commit(Batch::new().when(&A, "a", Is::Version(last))).await;
    assert_eq!(asked, Ok(Committed { version: last }), "a batch without writes has no version of its own");
    assert!(store.commit(Batch::new().when(&A, "a", Is::Absent)).await.is_err());
}

async fn the_last_write_to_a_key_wins(store: &dyn Store) {
    commit(store, Batch::new().put(&A, "k", "1").delete(&A, "k").put(&A, "k", "2")).await;
    assert_eq!(value(store, &A, "k").await, Some("2".into()));
    commit(store, Batch::new().put(&A, "k", "3").delete(&A, "k")).await;
    assert_eq!(value(store, &A, "k").await, None);
}

async fn spaces_do_not_meet(store: &dyn Store) {
    let service = Space::Service("a".parse().expect("a name"));
    commit(
        store,
        Batch::new().put(&A, "k", "table a").put(&B, "k", "table b").put(&service, "k", "service a"),
    )
    .await;
    assert_eq!(value(store, &A, "k").await, Some("table a".into()));
    assert_eq!(value(store, &service, "k").await, Some("service a".into()));
    commit(store, Batch::new().delete(&A, "k")).await;
    assert_eq!(keys(store, Scan::of(A, "")).await.0, [""; 0]);
    assert_eq!(keys(store, Scan::of(B, "")).await.0, ["k"]);
}

async fn an_expired_entry_is_absent(store: &dyn Store, clock: Clock) {
    let ends = clock.now().plus(TTL);
    let put = |key: &'static str, ends| Batch::new().put_until(&A, key, "v", Some(ends));
    let version = commit(store, put("k", ends)).await;
    assert_eq!(get(store, &A, "k").await.and_then(|e| e.expires_at), Some(ends));
    commit(store, put("past", Stamp::EPOCH)).await;
    assert_eq!(get(store, &A, "past").await, None, "an entry can be born expired");
    commit(store, put("stays", ends)).await;
    commit(store, Batch::new().put(&A, "stays", "v")).await; // a later put without a stamp takes the end away
    clock.sleep_until(ends).await;
    assert_eq!(get(store, &A, "k").await, None, "from its stamp on an entry is absent");
    assert_eq!(keys(store, Scan::of(A, "")).await.0, ["stays"]);
    let failed = vec![Failed { index: 0, found: None }];
    let at_version = Batch::new().when(&A, "k", Is::Version(version)).put(&A, "k", "w");
    assert_eq!(store.commit(at_version).await, Err(CommitError::Conditions { failed: failed.clone() }));
    let present = Batch::new().when(&A, "k", Is::Present);
    assert_eq!(store.commit(present).await, Err(CommitError::Conditions { failed }));
    commit(store, Batch::new().when(&A, "k", Is::Absent).put(&A, "k", "w")).await;
    assert_eq!(value(store, &A, "k").await, Some("w".into()));
    clock.sleep(TTL).await;
    commit(store, Batch::new().put(&A, "z", "sweeps")).await;
    assert_eq!(
        keys(store, Scan::of(A, "")).await.0,
        ["k", "stays", "z"],
        "sweeping takes only what has expired"
    );
}

async fn scans_are_ordered_and_paged(store: &dyn Store) {
    let all = ["a", "a/", "a/1", "a/10", "a/2", "a0", "b", "é"];
    let batch = all.iter().rev().fold(Batch::new(), |batch, key| batch.put(&A, *key, "v"));
    commit(store, batch.put(&A, &b"a/\xff"[..], "v")).await;
    commit(store, Batch::new().put(&A, &b"\xff\xff"[..], "v")).await;
    commit(store, Batch::new().delete(&A, &b"\xff\xff"[..]).delete(&A, &b"a/\xff"[..])).await;
    let scan = |prefix: &'static str| Scan::of(A, prefix);
    assert_eq!(keys(store, scan("")).await, (all.map(String::from).to_vec(), None));
    assert_eq!(keys(store, scan("a/")).await.0, ["a/", "a/1", "a/10", "a/2"]);
    assert_eq!(keys(store, scan("a/").reverse()).await.0, ["a/2", "a/10", "a/1", "a/"]);
    assert_eq!(keys(store, scan("zz")).await.0, [""; 0]);
    assert_eq!(keys(store, scan("a/").after("a/1")).await.0, ["a/10", "a/2"]);
    assert_eq!(keys(store, scan("a/").after("a/1").reverse()).await.0, ["a/"]);
    assert_eq!(keys(store, scan("a/").after("a/15")).await.0, ["a/2"], "`after` need not be there");
    assert_eq!(
        keys(store, scan("a/").after("0")).await.0,
        ["a/", "a/1", "a/10", "a/2"],
        "`after` before the prefix"
    );
    assert_eq!(keys(store, scan("a/").after("0").reverse()).await.0, [""; 0]);
    assert_eq!(keys(store, scan("a/").after("z")).await.0, [""; 0]);
    assert_eq!(keys(store, scan("a/").after("z").reverse()).await.0, ["a/2", "a/10", "a/1", "a/"]);
    for (first, is_reverse) in [(scan("").limit(3), false), (scan("").limit(3).reverse(), true)] {
        let (mut page, mut seen) = (keys(store, first.clone()).await, Vec::new());
        loop {
            assert!(page.0.len() <= 3);
            seen.append(&mut page.0);
            let Some(next) = page.1 else { break };
            page = keys(store, first.clone().after(next)).await;
        }
        if is_reverse {
            seen.reverse();
        }
        assert_eq!(seen, all, "pages together are the whole");
    }
    assert_eq!(keys(store, scan("").limit(8)).await.1, None, "a full page that is the last says so");
    assert_eq!(keys(store, scan("").limit(0)).await.0.len(), 1, "a limit of 0 counts as 1");
}

async fn a_page_is_bounded_in_bytes(store: &dyn Store) {
    let big = Bytes::from(vec![7; VALUE_BYTES_MAX]);
    for key in ["1", "2", "3", "4", "5", "6"] {
        commit(store, Batch::new().put(&A, key, big.clone())).await;
    }
    let (first, next) = keys(store, Scan::of(A, "")).await;
    assert_eq!(first.len(), SCAN_BYTES_MAX / (VALUE_BYTES_MAX + 1));
    let next = next.expect("there is more");
    assert_eq!(keys(store, Scan::of(A, "").after(next)).await.0.len() + first.len(), 6);
}

async fn a_page_goes_on_whatever_is_written_meanwhile(store: &dyn Store) {
    commit(store, ["1", "3", "5"].iter().fold(Batch::new(), |batch, key| batch.put(&A, *key, "v"))).await;
    let (first, next) = keys(store, Scan::of(A, "").limit(2)).await;
    assert_eq!(first, ["1", "3"]);
    commit(store, Batch::new().delete(&A, "3").put(&A, "2", "v").put(&A, "4", "v")).await;
    assert_eq!(keys(store, Scan::of(A, "").after(next.expect("more"))).await.0, ["4", "5"]);
}

async fn limits_are_kept(store: &dyn Store) {
    let longest = vec![b'k'; KEY_BYTES_MAX];
    commit(store, Batch::new().put(&A, longest.clone(), vec![1; VALUE_BYTES_MAX])).await;
    let entry = store.get(&A, &longest).await.expect("read").expect("there");
    assert_eq!(entry.value.len(), VALUE_BYTES_MAX);
    let many = |count: usize| (0..count).fold(Batch::new(), |batch, n| batch.put(&A, format!("{n:03}"), "v"));
    commit(store, many(BATCH_WRITES_MAX)).await;
    for batch in
        [many(BATCH_WRITES_MAX + 1), Batch::new().put(&A, "", "v"), Batch::new().when(&A, "", Is::Absent)]
    {
        let error = store.commit(batch).await.expect_err("over the limits");
        assert!(matches!(error, CommitError::TooLarge(_)) && !error.may_repeat(), "{error:?}");
    }
    assert_eq!(store.get(&A, b"").await, Err(ReadError::TooLarge(TooLarge::EmptyKey)));
    let too_long = vec![b'k'; KEY_BYTES_MAX + 1];
    assert!(matches!(store.get(&A, &too_long).await, Err(ReadError::TooLarge(TooLarge::Over { .. }))));
}

/// Runs `count` calls at once and returns their results in order.
async fn at_once<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    count: u64,
    call: impl Fn(u64) -> F,
) -> Vec<T> {
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..count {
        let call = call(n);
        calls.spawn(call);
    }
    calls.join_all().await
}

async fn of_many_who_compare_and_set_one_wins(store: Arc<dyn Store>) {
    let results = at_once(50, |n| {
        let store = Arc::clone(&store);
        async move {
            store.commit(Batch::new().when(&A, "leader", Is::Absent).put(&A, "leader", n.to_string())).await
        }
    })
    .await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let winner = get(&*store, &A, "leader").await.map(|entry| entry.version);
    let found = results.iter().filter_map(|result| match result {
        Err(CommitError::Conditions { failed }) => Some(failed[0].found),
        _ => None,
    });
    assert!(found.into_iter().all(|found| found == winner), "the losers learn who won");
}

async fn concurrent_increments_all_count(store: Arc<dyn Store>) {
    let increment = |store: Arc<dyn Store>| async move {
        loop {
            let entry = store.get(&A, b"count").await.expect("read");
            let count: u64 = entry
                .as_ref()
                .map_or(0, |e| std::str::from_utf8(&e.value).map_or(0, |v| v.parse().unwrap_or(0)));
            let is = entry.map_or(Is::Absent, |entry| Is::Version(entry.version));
            match store
                .commit(Batch::new().when(&A, "count", is).put(&A, "count", (count + 1).to_string()))
                .await
            {
                Ok(_) => return,
                Err(CommitError::Conditions { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    at_once(20, |_| {
        let store = Arc::clone(&store);
        async move {
            for _ in 0..5 {
                increment(Arc::clone(&store)).await;
            }
        }
    })
    .await;
    assert_eq!(value(&*store, &A, "count").await, Some("100".into()));
}

async fn a_watch_never_misses_the_last(store: Arc<dyn Store>) {
    let mut watch = store.watch(&A, b"jobs/");
    let mut other = store.watch(&B, b"");
    let before = *watch.borrow_and_update();
    commit(&*store, Batch::new().put(&A, "other", "v")).await;
    assert!(!watch.has_changed().expect("the store is there"), "only the prefix wakes");
    let version = commit(&*store, Batch::new().put(&A, "jobs/1", "v")).await;
    assert!(version > before);
    assert!(watch.has_changed().expect("the store is there"), "awake before the answer is there");
    assert_eq!(*watch.borrow_and_update(), version);
    assert!(store.commit(Batch::new().when(&A, "x", Is::Present).put(&A, "jobs/1", "v")).await.is_err());
    assert!(!watch.has_changed().expect("the store is there"), "a refused batch wakes nobody");
    let deleted = commit(&*store, Batch::new().delete(&A, "jobs/1")).await;
    assert_eq!(*watch.borrow_and_update(), deleted, "a delete wakes");
    assert!(!other.has_changed().expect("the store is there"));
    let versions = at_once(100, |n| {
        let store = Arc::clone(&store);
        async move { commit(&*store, Batch::new().put(&A, format!("jobs/{n}"), "v")).await }
    })
    .await;
    let last = versions.into_iter().max();
    assert_eq!(Some(*watch.borrow_and_update()), last, "the last is never missed");
    commit(&*store, Batch::new().put(&B, "k", "v")).await;
    other.changed().await.expect("the store is there");
    drop(store);
    assert!(watch.changed().await.is_err(), "a watch ends with its store");
}
