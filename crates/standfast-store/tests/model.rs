//! Random histories, against the plainest store there is: a sorted map.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use standfast_model::Stamp;
use standfast_runtime::Clock;
use standfast_store::{
    Batch, CommitError, Condition, EmbeddedOptions, EmbeddedStore, Entry, Failed, Is, MemoryStore, Scan,
    Space, Store, Version, Write,
};

/// One act of a history.
#[derive(Debug, Clone)]
enum Act {
    Commit(Vec<(Key, Expected)>, Vec<(Key, Change)>),
    Get(Key),
    /// Prefix, page size, direction, and where to begin.
    Scan(Key, usize, bool, Option<Key>),
    Wait(u64),
    Reopen,
}

/// A space and a key from few, so that histories meet.
type Key = (bool, Vec<u8>);

#[derive(Debug, Clone)]
enum Expected {
    Absent,
    Present,
    /// The version that the key has, or had, give or take.
    Near(u64),
}

#[derive(Debug, Clone)]
enum Change {
    Put(Vec<u8>, Option<u64>),
    Delete,
}

fn key() -> impl Strategy<Value = Key> {
    (any::<bool>(), prop::collection::vec(prop::sample::select(&[0_u8, b'a', b'/', 254, 255]), 1..4))
}

fn act() -> impl Strategy<Value = Act> {
    let expected =
        prop_oneof![Just(Expected::Absent), Just(Expected::Present), (0_u64..2).prop_map(Expected::Near)];
    let value = prop::collection::vec(any::<u8>(), 0..40);
    let put =
        (value, prop::option::weighted(0.3, 0_u64..50)).prop_map(|(value, ttl)| Change::Put(value, ttl));
    let change = prop_oneof![3 => put, 1 => Just(Change::Delete)];
    let conditions = prop::collection::vec((key(), expected), 0..3);
    let changes = prop::collection::vec((key(), change), 0..5);
    prop_oneof![
        8 => (conditions, changes).prop_map(|(conditions, changes)| Act::Commit(conditions, changes)),
        2 => key().prop_map(Act::Get),
        4 => (key(), 1_usize..5, any::<bool>(), prop::option::of(key())).prop_map(|(mut prefix, limit, reverse, after)| {
            prefix.1.truncate(limit - 1);
            Act::Scan(prefix, limit, reverse, after)
        }),
        2 => (0_u64..40).prop_map(Act::Wait),
        1 => Just(Act::Reopen),
    ]
}

/// The map, and the version of the last batch.
#[derive(Debug, Default)]
struct Model {
    entries: BTreeMap<Key, (Bytes, Version, Option<Stamp>)>,
    version: Version,
}

impl Model {
    fn at(&self, key: &Key, now: Stamp) -> Option<Entry> {
        let (value, version, expires_at) = self.entries.get(key)?.clone();
        let entry = Entry { key: key.1.clone().into(), value, version, expires_at };
        entry.expires_at.is_none_or(|at| now < at).then_some(entry)
    }

    fn commit(&mut self, batch: &Batch, now: Stamp) -> Result<Version, Vec<Failed>> {
        let key_of = |space: &Space, key: &Bytes| (*space == space_of(true), key.to_vec());
        let mut failed = Vec::new();
        for (index, condition) in batch.conditions.iter().enumerate() {
            let found = self.at(&key_of(&condition.space, &condition.key), now).map(|entry| entry.version);
            let holds = match condition.is {
                Is::Absent => found.is_none(),
                Is::Present => found.is_some(),
                Is::Version(version) => found == Some(version),
            };
            if !holds {
                failed.push(Failed { index, found });
            }
        }
        if !failed.is_empty() {
            return Err(failed);
        }
        if !batch.writes.is_empty() {
            self.version = self.version.next();
        }
        for write in &batch.writes {
            match write {
                Write::Put { space, key, value, expires_at } => {
                    self.entries.insert(key_of(space, key), (value.clone(), self.version, *expires_at));
                }
                Write::Delete { space, key } => drop(self.entries.remove(&key_of(space, key))),
            }
        }
        Ok(self.version)
    }

    /// The whole of what a scan means, not paged.
    fn scan(&self, prefix: &Key, reverse: bool, after: Option<&Key>, now: Stamp) -> Vec<Entry> {
        let mut entries: Vec<_> = self
            .entries
            .keys()
            .filter(|key| key.0 == prefix.0 && key.1.starts_with(&prefix.1))
            .filter(|key| after.is_none_or(|after| if reverse { key.1 < after.1 } else { key.1 > after.1 }))
            .filter_map(|key| self.at(key, now))
            .collect();
        if reverse {
            entries.reverse();
        }
        entries
    }
}

const fn space_of(is_first: bool) -> Space {
    Space::Table(if is_first { "first" } else { "second" })
}

fn batch_of(model: &Model, now: Stamp, conditions: &[(Key, Expected)], changes: &[(Key, Change)]) -> Batch {
    let condition = |(key, expected): &(Key, Expected)| {
        let is = match expected {
            Expected::Absent => Is::Absent,
            Expected::Present => Is::Present,
            Expected::Near(off) => {
                let version = model.entries.get(key).map_or(0, |entry| entry.1.0);
                Is::Version(Version(version + off))
            }
        };
        Condition { space: space_of(key.0), key: key.1.clone().into(), is }
    };
    let write = |(key, change): &(Key, Change)| {
        let (space, key) = (space_of(key.0), key.1.clone().into());
        match change {
            Change::Delete => Write::Delete { space, key },
            Change::Put(value, ttl) => {
                let expires_at = ttl.map(|ttl| now.plus(Duration::from_millis(ttl)));
                Write::Put { space, key, value: value.clone().into(), expires_at }
            }
        }
    };
    Batch {
        conditions: conditions.iter().map(condition).collect(),
        writes: changes.iter().map(write).collect(),
    }
}

/// Runs a history on a store and on the model side by side.
async fn compare(acts: &[Act], clock: Clock, open: impl AsyncFn() -> Arc<dyn Store>, can_reopen: bool) {
    let (mut store, mut model) = (open().await, Model::default());
    for act in acts {
        let now = clock.now();
        match act {
            Act::Commit(conditions, changes) => {
                let batch = batch_of(&model, now, conditions, changes);
                let expected = model.commit(&batch, now);
                let found = match store.commit(batch).await {
                    Ok(committed) => Ok(committed.version),
                    Err(CommitError::Conditions { failed }) => Err(failed),
                    Err(error) => panic!("{error}"),
                };
                assert_eq!(found, expected);
            }
            Act::Get(key) => {
                assert_eq!(store.get(&space_of(key.0), &key.1).await.unwrap(), model.at(key, now))
            }
            Act::Scan(prefix, limit, reverse, after) => {
                let expected = model.scan(prefix, *reverse, after.as_ref(), now);
                let mut scan = Scan::of(space_of(prefix.0), prefix.1.clone()).limit(*limit);
                scan.reverse = *reverse;
                scan.after = after.clone().map(|after| after.1.into());
                let mut found = Vec::new();
                loop {
                    let mut page = store.scan(&scan).await.unwrap();
                    assert!(page.entries.len() == *limit || page.next.is_none());
                    found.append(&mut page.entries);
                    scan.after = page.next;
                    if scan.after.is_none() {
                        break;
                    }
                }
                assert_eq!(found, expected);
            }
            Act::Wait(millis) => clock.sleep(Duration::from_millis(*millis)).await,
            Act::Reopen if can_reopen => {
                drop(store);
                store = open().await;
            }
            Act::Reopen => {}
        }
    }
}

fn in_paused_time(work: impl Future<Output = ()>) {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(work);
}

async fn open_in(folder: &Path, clock: Clock) -> Arc<dyn Store> {
    let options = EmbeddedOptions { checkpoint_pages: 20, ..EmbeddedOptions::default() };
    Arc::new(EmbeddedStore::open(folder, clock, options).await.unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_memory_store_is_a_sorted_map(acts in prop::collection::vec(act(), 1..80)) {
        in_paused_time(async {
            let clock = Clock::starting_at(Stamp::from_micros(1_000_000_000));
            compare(&acts, clock, async || Arc::new(MemoryStore::new(clock)) as Arc<dyn Store>, false).await;
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_embedded_store_is_a_sorted_map(acts in prop::collection::vec(act(), 1..60)) {
        let folder = crate::embedded::memory_folder();
        in_paused_time(async {
            let clock = Clock::starting_at(Stamp::from_micros(1_000_000_000));
            compare(&acts, clock, async || open_in(folder.path(), clock).await, true).await;
        });
    }
}
