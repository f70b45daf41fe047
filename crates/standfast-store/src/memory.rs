use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use standfast_model::Stamp;
use standfast_runtime::Clock;
use tokio::sync::watch;

use crate::batch::check_key;
use crate::watches::Watches;
use crate::{
    Batch, CommitError, Committed, Entry, Failed, Health, Page, ReadError, Scan, Space, Store, Version, Write,
};

/// Expired entries that one batch removes at most, besides as many as it writes.
const SWEEP_MAX: usize = 64;

/// A store in memory: for tests and simulations, where the world around it dies and it does not.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Clock,
    state: Mutex<State>,
    watches: Watches,
    health: watch::Sender<Health>,
}

#[derive(Debug, Default)]
struct State {
    spaces: BTreeMap<Space, BTreeMap<Bytes, Entry>>,
    /// Entries that end, by when.
    ending: BTreeMap<(Stamp, Space, Bytes), ()>,
    version: Version,
    fault: Option<Fault>,
}

/// What is wrong with a [`MemoryStore`], on a test's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The disk is full: batches with writes are refused, reads go on.
    Full,
    /// The queues are full: everything is refused.
    Busy,
    /// It has stopped for this reason: everything is refused.
    Stopped(Arc<str>),
}

impl MemoryStore {
    /// An empty store.
    pub fn new(clock: Clock) -> Self {
        let health = watch::Sender::new(Health::Serving);
        Self { clock, state: Mutex::default(), watches: Watches::default(), health }
    }

    /// Makes it fail from now on, or no more.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.health.send_replace(match &fault {
            None | Some(Fault::Busy) => Health::Serving,
            Some(Fault::Full) => Health::Full,
            Some(Fault::Stopped(reason)) => Health::Stopped(Arc::clone(reason)),
        });
        self.state().fault = fault;
    }

    /// How many entries it holds, those included that have expired and are not swept yet.
    pub fn entries_held(&self) -> usize {
        self.state().spaces.values().map(BTreeMap::len).sum()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, if reads are possible.
    fn readable(&self) -> Result<MutexGuard<'_, State>, ReadError> {
        let state = self.state();
        match &state.fault {
            None | Some(Fault::Full) => Ok(state),
            Some(Fault::Busy) => Err(ReadError::Busy),
            Some(Fault::Stopped(reason)) => Err(ReadError::Stopped { reason: Arc::clone(reason) }),
        }
    }
}

impl State {
    fn refuse(&self, batch: &Batch) -> Result<(), CommitError> {
        match &self.fault {
            Some(Fault::Full) if !batch.writes.is_empty() => Err(CommitError::Full),
            None | Some(Fault::Full) => Ok(()),
            Some(Fault::Busy) => Err(CommitError::Busy),
            Some(Fault::Stopped(reason)) => Err(CommitError::Stopped { reason: Arc::clone(reason) }),
        }
    }

    fn live(&self, space: &Space, key: &[u8], now: Stamp) -> Option<&Entry> {
        self.spaces.get(space)?.get(key).filter(|entry| is_live(entry, now))
    }

    fn failed(&self, batch: &Batch, now: Stamp) -> Vec<Failed> {
        let found = |(index, condition): (usize, &crate::Condition)| {
            let found = self.live(&condition.space, &condition.key, now).map(|entry| entry.version);
            (!condition.is.holds(found)).then_some(Failed { index, found })
        };
        batch.conditions.iter().enumerate().filter_map(found).collect()
    }

    fn write(&mut self, write: &Write) {
        let entries = self.spaces.entry(write.space().clone()).or_default();
        let old = match write {
            Write::Delete { key, .. } => entries.remove(key),
            Write::Put { key, value, expires_at, .. } => {
                let version = self.version;
                let entry =
                    Entry { key: key.clone(), value: value.clone(), version, expires_at: *expires_at };
                entries.insert(key.clone(), entry)
            }
        };
        if let Some(Entry { expires_at: Some(at), key, .. }) = old {
            self.ending.remove(&(at, write.space().clone(), key));
        }
        if let Write::Put { space, key, expires_at: Some(at), .. } = write {
            self.ending.insert((*at, space.clone(), key.clone()), ());
        }
    }

    fn sweep(&mut self, now: Stamp, max: usize) {
        for _ in 0..max {
            let Some(due) = self.ending.first_entry().filter(|due| due.key().0 <= now) else { return };
            let ((_, space, key), ()) = due.remove_entry();
            if let Some(entries) = self.spaces.get_mut(&space) {
                entries.remove(&key);
            }
        }
    }
}

fn is_live(entry: &Entry, now: Stamp) -> bool {
    entry.expires_at.is_none_or(|at| at > now)
}

#[async_trait]
impl Store for MemoryStore {
    async fn commit(&self, batch: Batch) -> Result<Committed, CommitError> {
        batch.check().map_err(CommitError::TooLarge)?;
        let mut state = self.state();
        state.refuse(&batch)?;
        let now = self.clock.now();
        let failed = state.failed(&batch, now);
        if !failed.is_empty() {
            return Err(CommitError::Conditions { failed });
        }
        if batch.writes.is_empty() {
            return Ok(Committed { version: state.version });
        }
        state.version = state.version.next();
        for write in &batch.writes {
            state.write(write);
        }
        state.sweep(now, SWEEP_MAX + batch.writes.len());
        let version = state.version;
        self.watches.wake(&batch.writes, version);
        Ok(Committed { version })
    }

    async fn get(&self, space: &Space, key: &[u8]) -> Result<Option<Entry>, ReadError> {
        check_key(key).map_err(ReadError::TooLarge)?;
        let state = self.readable()?;
        Ok(state.live(space, key, self.clock.now()).cloned())
    }

    async fn scan(&self, scan: &Scan) -> Result<Page, ReadError> {
        let state = self.readable()?;
        let (now, bounds) = (self.clock.now(), scan.bounds());
        if bounds.until.as_ref().is_some_and(|until| *until <= bounds.from) {
            return Ok(Page::default());
        }
        let Some(entries) = state.spaces.get(&scan.space) else { return Ok(Page::default()) };
        let from =
            if bounds.from_is_included { Bound::Included(bounds.from) } else { Bound::Excluded(bounds.from) };
        let until = bounds.until.map_or(Bound::Unbounded, Bound::Excluded);
        let range = entries.range((from, until)).map(|(_, entry)| entry).filter(|entry| is_live(entry, now));
        let ok = |entry: &Entry| Ok::<_, ReadError>(entry.clone());
        if scan.reverse { Page::fill(scan, range.rev().map(ok)) } else { Page::fill(scan, range.map(ok)) }
    }

    fn watch(&self, space: &Space, prefix: &[u8]) -> watch::Receiver<Version> {
        let now = self.state().version;
        self.watches.subscribe(space, prefix, now)
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }
}
