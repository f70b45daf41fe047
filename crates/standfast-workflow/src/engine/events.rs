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
use standfast_store::{Batch, Scan, Space};

use super::refused::{check_event, check_limits};
use super::{Engine, JournalError, Refused};
use crate::decide::{Cause, event_key, size_of, wants};
use crate::program::{Program, Step};
use crate::run::{Digest, Run, RunId, ScopeId, State};

/// By time and number: events.
const EVENTS: Space = Space::Table("workflow-events");
/// How long an event is kept for runs that begin to wait for it later, unless told otherwise.
pub const EVENTS_KEPT_FOR: Duration = Duration::from_secs(3_600);
/// Most events that are kept; the oldest go when there are more.
const EVENTS_MAX: usize = 10_000;
/// Most bytes of events that are kept; the oldest go when there are more.
const EVENTS_BYTES_MAX: usize = 64 << 20;

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
    /// Runs by the types that they wait for.
    by_type: HashMap<Arc<str>, BTreeSet<RunId>>,
    /// Runs that any event may be for.
    any: BTreeSet<RunId>,
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
    /// `None` when any event may be for it.
    types: Option<BTreeSet<Arc<str>>>,
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
        self.forget(id);
        match &waiting.types {
            None => drop(self.any.insert(id)),
            Some(types) => {
                for kind in types {
                    self.by_type.entry(Arc::clone(kind)).or_default().insert(id);
                }
            }
        }
        self.waiting.insert(id, waiting);
    }

    fn forget(&mut self, id: RunId) {
        let Some(gone) = self.waiting.remove(&id) else { return };
        self.any.remove(&id);
        for kind in gone.types.into_iter().flatten() {
            if let Some(runs) = self.by_type.get_mut(&kind) {
                runs.remove(&id);
                if runs.is_empty() {
                    self.by_type.remove(&kind);
                }
            }
        }
    }

    fn could_want(&self, event: &Value) -> Vec<RunId> {
        let named = event.get("type").and_then(Value::as_str).and_then(|kind| self.by_type.get(kind));
        let mut all: BTreeSet<RunId> = self.any.clone();
        all.extend(named.into_iter().flatten());
        all.into_iter().collect()
    }
}

impl Events {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A run that waits, of which nothing else is known: it sleeps since another process put it to sleep.
    pub(super) fn may_want_any(&self, id: RunId) {
        self.lock().waits(id, Waiting::default());
    }

    /// A run has ended, or is not driven on.
    pub(super) fn forget(&self, id: RunId) {
        self.lock().forget(id);
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
        self.check_driven()?;
        check_limits("the event", &event)?;
        check_event(&event)?;
        let (could_want, is_known) = self.keep_event(&event).await?;
        // One that comes again is not given to a task of a run of which another task took it.
        let cause = match is_known {
            true => Cause::Kept { events: vec![Arc::clone(&event)] },
            false => Cause::Event { event: Arc::clone(&event) },
        };
        self.offer_to_schedules(&event).await?;
        let (mut given, mut refused) = (0, None);
        for id in could_want {
            match self.tell(id, cause.clone()).await {
                Ok(_) => given += 1,
                Err(Refused::NoRun(_) | Refused::Ended(_)) => {}
                Err(why @ Refused::Stopped(_)) => return Err(why),
                // One that cannot take it keeps it from no other.
                Err(why) => refused = Some(why),
            }
        }
        refused.map_or(Ok(given), Err)
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
            let (_, types) = waits_for(&sleeper.run, &program);
            let mut inner = self.events().lock();
            // One that was woken meanwhile has said so itself.
            if inner.waiting.get(&id).is_some_and(|waiting| waiting.offered.is_none()) {
                inner.waits(id, Waiting { types, offered: None });
            }
        }
    }

    /// Keeps an event, once: written when this returns. Returns the runs that could want it, and whether it came before.
    pub(super) async fn keep_event(&self, event: &Arc<Value>) -> Result<(Vec<RunId>, bool), JournalError> {
        let (now, key) = (self.clock().now(), event_key(event));
        let kept_for = self.events_kept_for();
        self.events().lock().forget_before(now.minus(kept_for));
        let is_known = key.as_ref().is_some_and(|key| self.events().lock().keys.contains(key));
        if !is_known {
            // Whatever comes in the same microsecond has another key; the same event twice is one again when it is read.
            let name = key.as_ref().map_or("", Digest::as_str);
            let place = [&now.as_micros().to_be_bytes()[..], name.as_bytes()].concat();
            let batch = Batch::new().put_until(&EVENTS, place, event.to_string(), Some(now.plus(kept_for)));
            self.journal().commit(batch).await?;
        }
        let mut inner = self.events().lock();
        inner.put(now, key, Arc::clone(event));
        Ok((inner.could_want(event), is_known))
    }

    /// Events that came before a task of a run began to wait, and after the run was started; each task is given them once.
    /// Notes what the run waits for now.
    pub(super) fn kept_events(&self, run: &Run, program: &Program) -> Vec<Arc<Value>> {
        let (newest, types) = waits_for(run, program);
        let mut inner = self.events().lock();
        let Some(newest) = newest else {
            inner.forget(run.id);
            return Vec::new();
        };
        let offered = inner.waiting.get(&run.id).and_then(|waiting| waiting.offered);
        let fits = |kept: &Kept| {
            let kind = kept.event.get("type").and_then(Value::as_str).unwrap_or_default();
            kept.at >= run.started_at && types.as_ref().is_none_or(|types| types.contains(kind))
        };
        let is_new = offered.is_none_or(|offered| offered < newest);
        let oldest = self.clock().now().minus(self.events_kept_for());
        inner.forget_before(oldest);
        let kept =
            inner.kept.values().filter(|kept| is_new && fits(kept)).map(|kept| Arc::clone(&kept.event));
        let kept = kept.collect();
        inner.waits(run.id, Waiting { types, offered: Some(newest) });
        kept
    }

    /// All events that are kept and came at a time or later.
    pub(super) fn events_since(&self, at: Stamp) -> Vec<Arc<Value>> {
        let inner = self.events().lock();
        inner.kept.values().filter(|kept| kept.at >= at).map(|kept| Arc::clone(&kept.event)).collect()
    }
}

/// The latest task of a run that waits, and for which types its tasks do; `None` when it is any.
fn waits_for(run: &Run, program: &Program) -> (Option<ScopeId>, Option<BTreeSet<Arc<str>>>) {
    let (mut newest, mut types) = (None, Some(BTreeSet::new()));
    for (id, scope) in &run.scopes {
        if !matches!(scope.state, State::Listening(_)) {
            continue;
        }
        newest = Some(*id);
        let wanted = match program.find(&scope.task).map(|task| &program.task(task).step) {
            Some(Step::Listen(listen)) => wants(&listen.to),
            _ => None,
        };
        types = types.zip(wanted).map(|(all, more)| &all | &more);
    }
    (newest, types)
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
        let types = Some(BTreeSet::from(["a".into(), "b".into()]));
        events.lock().waits(run(1), Waiting { types, offered: None });
        events.may_want_any(run(2));
        let could_want = |kind| events.lock().could_want(&event(1, kind));
        assert_eq!(could_want("a"), [run(1), run(2)]);
        assert_eq!(could_want("c"), [run(2)]);
        events.lock().waits(run(2), Waiting { types: Some(BTreeSet::from(["c".into()])), offered: None });
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
