//! Events on their way to runs: kept in the store before anybody is given them, for those that begin to wait later; given only to runs
//! that could want them.
//!
//! **Invariant.** What is put among the kept and who is looked up for it happens under one lock, as does what a run is given of the
//! kept and its entry among those that wait: no event falls between the two.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use standfast_model::Stamp;
use standfast_store::{BATCH_WRITES_MAX, Batch, Scan, Space};

use super::awake::{Answer, FULL_PATIENCE};
use super::refused::{check_event, check_limits};
use super::waiters::Waiters;
use super::{Engine, JournalError, Refused};
use crate::decide::{Cause, Interest, SIGNAL_TYPE, event_key, interests, size_of};
use crate::program::Program;
use crate::run::{Digest, Run, RunId, ScopeId};

/// By time and number: events.
const EVENTS: Space = Space::Table("workflow-events");
/// How long an event is kept for runs that begin to wait for it later, unless told otherwise.
pub const EVENTS_KEPT_FOR: Duration = Duration::from_secs(3_600);
/// Most events that are kept; the oldest go when there are more.
const EVENTS_MAX: usize = 100_000;
/// Most bytes of events that are kept; the oldest go when there are more.
const EVENTS_BYTES_MAX: usize = 64 << 20;

/// Most bytes of events that are written at once, and at most one event more.
const EVENTS_COMMIT_BYTES_MAX: usize = 1 << 20;

/// Most types of events of which it is remembered that there are such.
const HEARD_MAX: usize = 10_000;

/// Events that are kept, and who waits for which.
#[derive(Debug, Default)]
pub(super) struct Events(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    kept: BTreeMap<u64, Kept>,
    keys: HashSet<Digest>,
    bytes: usize,
    next: u64,
    waiting: HashMap<RunId, Waiting>,
    waiters: Waiters,
    /// Types of events that have come, at most [`HEARD_MAX`].
    heard: HashSet<Arc<str>>,
    /// Events of runs that are not given out yet, by where their records are.
    outbox: BTreeMap<u64, usize>,
}

#[derive(Debug)]
struct Kept {
    at: Stamp,
    key: Option<Digest>,
    event: Arc<Value>,
}

/// A run that waits for events.
#[derive(Debug, Default)]
struct Waiting {
    /// What for.
    interests: Vec<Interest>,
    /// The latest of its tasks that was given what is kept.
    offered: Option<ScopeId>,
}

impl Inner {
    fn put(&mut self, at: Stamp, key: Option<Digest>, event: Arc<Value>) {
        if let Some(key) = &key
            && !self.keys.insert(key.clone())
        {
            return; // it came before
        }
        if let Some(kind) = event.get("type").and_then(Value::as_str)
            && self.heard.len() < HEARD_MAX
            && !self.heard.contains(kind)
        {
            self.heard.insert(kind.into());
        }
        self.bytes += size_of(&event);
        self.kept.insert(self.next, Kept { at, key, event });
        self.next += 1;
        while self.kept.len() > EVENTS_MAX || self.bytes > EVENTS_BYTES_MAX {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some((_, oldest)) = self.kept.pop_first() else { return };
        self.bytes -= size_of(&oldest.event);
        if let Some(key) = &oldest.key {
            self.keys.remove(key);
        }
    }

    fn forget_before(&mut self, at: Stamp) {
        while self.kept.first_key_value().is_some_and(|(_, oldest)| oldest.at < at) {
            self.drop_oldest();
        }
    }

    fn waits(&mut self, id: RunId, waiting: Waiting) {
        if self.waiting.get(&id).is_none_or(|known| known.interests != waiting.interests) {
            self.forget(id);
            waiting.interests.iter().for_each(|interest| self.waiters.add(id, interest));
        }
        self.waiting.insert(id, waiting);
    }

    fn forget(&mut self, id: RunId) {
        let Some(gone) = self.waiting.remove(&id) else { return };
        gone.interests.iter().for_each(|interest| self.waiters.remove(id, interest));
    }
}

impl Events {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run that waits, of which nothing else is known: it sleeps since another process put it to sleep.
    pub(super) fn may_want_any(&self, id: RunId) {
        let any = Waiting { interests: vec![Interest::default()], offered: None };
        self.lock().waits(id, any);
    }

    /// A run has ended, or is not driven on.
    pub(super) fn forget(&self, id: RunId) {
        self.lock().forget(id);
    }

    /// Runs that wait for types only of which none has come and which are not among these; and for which they do.
    pub(super) fn unheard(&self, known: &BTreeSet<Arc<str>>) -> Vec<(RunId, BTreeSet<Arc<str>>)> {
        let inner = self.lock();
        if inner.heard.len() >= HEARD_MAX {
            return Vec::new();
        }
        // A signal comes from outside, and to one run: none has come so far says nothing.
        let is_unheard = |kind: &Arc<str>| {
            !known.contains(kind) && !inner.heard.contains(kind) && !kind.starts_with(SIGNAL_TYPE)
        };
        let mut found = Vec::new();
        for (id, waiting) in &inner.waiting {
            let kinds = waiting.interests.iter().map(|interest| interest.kind.clone());
            let kinds: Option<BTreeSet<Arc<str>>> = kinds.collect();
            if let Some(kinds) = kinds
                && !kinds.is_empty()
                && kinds.iter().all(is_unheard)
            {
                found.push((*id, kinds));
            }
        }
        found
    }

    /// Events of a run were written at this place of the journal and are to be given out.
    pub(super) fn sends(&self, at: u64) {
        *self.lock().outbox.entry(at).or_default() += 1;
    }

    /// They were.
    pub(super) fn sent(&self, at: u64) {
        self.lock().outbox.remove(&at);
    }

    /// Where the first record is of which events are not given out yet: a recovery must read it.
    pub(super) fn first_unsent(&self) -> u64 {
        self.lock().outbox.first_key_value().map_or(u64::MAX, |(at, _)| *at)
    }

    /// How many are kept.
    #[cfg(test)]
    fn count(&self) -> usize {
        self.lock().kept.len()
    }
}

impl Engine {
    /// Keeps an event and gives it to the runs and schedules that could want it; done when all that took it have written so. Returns
    /// to how many runs it was given. The same event (by source and id) may be published again: each task takes it once.
    ///
    /// # Errors
    /// See [`Refused`]: some runs may have taken it. Publish it again.
    pub async fn publish(&self, event: Arc<Value>) -> Result<usize, Refused> {
        let given = self.publish_all(std::slice::from_ref(&event)).await?;
        Ok(given.into_iter().sum())
    }

    /// Publishes events in this order, as [`Engine::publish`] does each, but side by side where they are for different runs. Returns
    /// to how many runs each was given.
    ///
    /// # Errors
    /// See [`Refused`]: some runs may have taken some. Publish them again.
    pub async fn publish_all(&self, events: &[Arc<Value>]) -> Result<Vec<usize>, Refused> {
        self.check_driven()?;
        for event in events {
            check_limits("the event", event)?;
            check_event(event)?;
        }
        let kept = self.keep_events(events).await?;
        let mut giving =
            Giving { engine: self, given: vec![0; events.len()], refused: None, told: Vec::new() };
        for (at, (event, (could_want, is_known))) in events.iter().zip(kept).enumerate() {
            self.offer_to_schedules(event).await?;
            // One that comes again is not given to a task of a run of which another task took it.
            let cause = match is_known {
                true => Cause::Kept { events: vec![Arc::clone(event)] },
                false => Cause::Event { event: Arc::clone(event) },
            };
            for id in could_want {
                giving.give(at, id, &cause).await?;
            }
        }
        giving.answers().await?;
        giving.refused.map_or(Ok(giving.given), Err)
    }

    /// Reads what was kept when the process before ended.
    pub(super) async fn read_events(&self) -> Result<(), JournalError> {
        let mut scan = Scan::of(EVENTS, "");
        loop {
            let page = self.journal().store().scan(&scan).await?;
            for entry in &page.entries {
                let at = entry.key.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                let event: Value = serde_json::from_slice(&entry.value)
                    .map_err(|why| JournalError::Unreadable(format!("an event: {why}")))?;
                self.events().lock().put(Stamp::from_micros(at), event_key(&event), Arc::new(event));
            }
            let Some(next) = page.next else { return Ok(()) };
            scan = scan.after(next);
        }
    }

    /// Finds out what runs wait for that another process put to sleep: until then any event wakes them.
    pub(super) async fn look_at_sleepers(self, sleepers: Vec<RunId>) {
        for id in sleepers {
            let found = self.journal().sleeper(id).await;
            let Ok(Some(sleeper)) = found else { continue };
            let Ok(program) = self.program_of(&sleeper.run).await else { continue };
            let Some((_, interests)) = interests(&sleeper.run, &program) else { continue };
            let mut inner = self.events().lock();
            // One that was woken meanwhile has said so itself.
            if inner.waiting.get(&id).is_some_and(|waiting| waiting.offered.is_none()) {
                inner.waits(id, Waiting { interests, offered: None });
            }
        }
    }

    /// Keeps events, each once: written when this returns. Returns of each the runs that could want it, and whether it came before.
    pub(super) async fn keep_events(
        &self,
        events: &[Arc<Value>],
    ) -> Result<Vec<(Vec<RunId>, bool)>, JournalError> {
        let kept_for = self.events_kept_for();
        let mut found = Vec::with_capacity(events.len());
        let mut rest = events;
        while !rest.is_empty() {
            let now = self.clock().now();
            self.events().lock().forget_before(now.minus(kept_for));
            let (mut batch, mut bytes, mut new) = (Batch::new(), 0, HashSet::new());
            let mut keys = Vec::new();
            for event in rest {
                let (key, text) = (event_key(event), event.to_string());
                let is_full = bytes + text.len() > EVENTS_COMMIT_BYTES_MAX || new.len() == BATCH_WRITES_MAX;
                if is_full && bytes > 0 {
                    break;
                }
                let came_before = |key: &Digest| self.events().lock().keys.contains(key);
                let is_known = key.as_ref().is_some_and(|key| came_before(key) || !new.insert(key.clone()));
                if !is_known {
                    bytes += text.len();
                    // Whatever comes in the same microsecond has another key; the same event twice is one again when it is read.
                    let name = key.as_ref().map_or("", Digest::as_str);
                    let place = [&now.as_micros().to_be_bytes()[..], name.as_bytes()].concat();
                    batch = batch.put_until(&EVENTS, place, text, Some(now.plus(kept_for)));
                }
                keys.push((key, is_known));
            }
            if bytes > 0 {
                self.journal().try_commit(batch).await?;
            }
            let (taken, others) = rest.split_at(keys.len());
            let mut inner = self.events().lock();
            for (event, (key, is_known)) in taken.iter().zip(keys) {
                inner.put(now, key, Arc::clone(event));
                found.push((inner.waiters.of(event), is_known));
            }
            rest = others;
        }
        Ok(found)
    }

    /// Events that came before a task of a run began to wait, and after the run was started; each task is given them once.
    /// Notes what the run waits for now.
    pub(super) fn kept_events(&self, run: &Run, program: &Program) -> Vec<Arc<Value>> {
        let found = interests(run, program);
        let mut inner = self.events().lock();
        let Some((newest, interests)) = found else {
            inner.forget(run.id);
            return Vec::new();
        };
        let offered = inner.waiting.get(&run.id).and_then(|waiting| waiting.offered);
        let is_new = offered.is_none_or(|offered| offered < newest);
        let oldest = self.clock().now().minus(self.events_kept_for());
        inner.forget_before(oldest);
        let since = run.origin.as_ref().map_or(run.started_at, |origin| origin.since);
        let fits =
            |kept: &Kept| kept.at >= since && interests.iter().any(|interest| interest.fits(&kept.event));
        let kept = inner.kept.values().filter(|kept| is_new && fits(kept));
        let kept = kept.map(|kept| Arc::clone(&kept.event)).collect();
        inner.waits(run.id, Waiting { interests, offered: Some(newest) });
        kept
    }

    /// All events that are kept and came at a time or later.
    pub(super) fn events_since(&self, at: Stamp) -> Vec<Arc<Value>> {
        let inner = self.events().lock();
        inner.kept.values().filter(|kept| kept.at >= at).map(|kept| Arc::clone(&kept.event)).collect()
    }
}

/// Events on their way to runs: each run is told of them in their order, and not waited for before the next is.
struct Giving<'e> {
    engine: &'e Engine,
    /// To how many runs each event was given.
    given: Vec<usize>,
    refused: Option<Refused>,
    told: Vec<(usize, RunId, Answer)>,
}

impl Giving<'_> {
    async fn give(&mut self, at: usize, id: RunId, cause: &Cause) -> Result<(), Refused> {
        let mut sent = self.engine.send(id, cause.clone()).await;
        if matches!(sent, Err(Refused::Busy(_))) && !self.told.is_empty() {
            // Perhaps by what it was given here.
            self.answers().await?;
            sent = self.engine.send(id, cause.clone()).await;
        }
        match sent {
            Ok(answer) => self.told.push((at, id, answer)),
            Err(why) => self.note(why)?,
        }
        Ok(())
    }

    async fn answers(&mut self) -> Result<(), Refused> {
        let mut patience = FULL_PATIENCE;
        for (at, id, answer) in std::mem::take(&mut self.told) {
            match self.engine.answered_within(id, answer, patience).await {
                Ok(_) => self.given[at] += 1,
                Err(why) => {
                    // Once for all of them.
                    if why == Refused::Delayed {
                        patience = Duration::ZERO;
                    }
                    self.note(why)?;
                }
            }
        }
        Ok(())
    }

    fn note(&mut self, why: Refused) -> Result<(), Refused> {
        match why {
            Refused::NoRun(_) | Refused::Ended(_) => Ok(()),
            Refused::Stopped(_) => Err(why),
            // One that cannot take it keeps it from no other.
            why => {
                self.refused = Some(why);
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(id: usize, kind: &str) -> Arc<Value> {
        Arc::new(json!({"id": id.to_string(), "source": "s", "type": kind}))
    }

    fn run(number: u128) -> RunId {
        RunId::new(Stamp::EPOCH, number)
    }

    #[test]
    fn an_event_is_for_those_that_wait_for_its_type_or_for_any() {
        let events = Events::default();
        let waits = |id, kinds: &[&str]| {
            let of = |kind: &&str| Interest { kind: Some((*kind).into()), mark: None };
            let interests = kinds.iter().map(of).collect();
            events.lock().waits(id, Waiting { interests, offered: None });
        };
        waits(run(1), &["a", "b"]);
        events.may_want_any(run(2));
        let could_want = |kind| events.lock().waiters.of(&event(1, kind));
        assert_eq!(could_want("a"), [run(1), run(2)]);
        assert_eq!(could_want("c"), [run(2)]);
        waits(run(2), &["c"]);
        assert_eq!(could_want("a"), [run(1)]);
        assert_eq!(could_want("c"), [run(2)]);
        events.forget(run(1));
        assert!(could_want("b").is_empty());
    }

    #[test]
    fn an_event_is_kept_once_and_the_oldest_go_first() {
        let events = Events::default();
        for number in 0..EVENTS_MAX + 5 {
            for _ in 0..2 {
                let event = event(number, "a");
                events.lock().put(Stamp::from_micros(number as u64), event_key(&event), event);
            }
        }
        assert_eq!(events.count(), EVENTS_MAX);
        events.lock().forget_before(Stamp::from_micros(10));
        assert_eq!(events.count(), EVENTS_MAX - 5);
        let first = events.lock().kept.first_key_value().map(|(_, kept)| kept.at);
        assert_eq!(first, Some(Stamp::from_micros(10)));
    }
}
