//! Who is first with a key, who waits, and who is given what is kept.
//!
//! A key is free, under way or answered. Free: the request goes to the service and is *first*. Under way: the next one waits until the
//! first is over, and looks again. Answered: it is given the answer, until that is older than `keep_for` or has to make way. A
//! first one that comes to no answer worth keeping frees its key again.
//!
//! Bounds: keys and bytes, those under way included. When either is used up the oldest answers make way, and never a key that is
//! under way; where all are, a further one is not kept and counted. The lock is held for a few map operations, never across a wait;
//! what makes way is freed after it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use standfast_model::{KeepAnswers, ServiceName, Stamp, Traffic};
use tokio::sync::watch;

use crate::attempt::Answer;
use crate::body::AnswerBody;
use crate::kept::key::{Digest, Fingerprint};
use crate::stats::ServiceCounters;
use crate::trace::RequestId;
use crate::wire::{Known, ResponseHead};

/// What a key takes up besides its answer, roughly.
const KEY_BYTES: usize = 1 << 10;
/// What a header field takes up besides its text.
const FIELD_BYTES: usize = 16;
/// Requests of one service that go on although their clients have left; further ones are broken off.
pub(crate) const GOING_ON_MAX: usize = 256;

/// An answer that is given again.
#[derive(Debug)]
pub(crate) struct KeptAnswer {
    /// Of the request that it was made for.
    pub(crate) first: RequestId,
    pub(crate) head: ResponseHead,
    pub(crate) data: Bytes,
}

impl KeptAnswer {
    /// The answer for another request with the same key.
    pub(crate) fn again(&self) -> Answer {
        let mut head = self.head.clone();
        head.fields.set(Known::Other, "idempotency-replayed", b"true");
        let body =
            if self.data.is_empty() { AnswerBody::Empty } else { AnswerBody::Whole(self.data.clone()) };
        Answer { head, body }
    }

    fn bytes(&self) -> usize {
        let fields = &self.head.fields;
        self.data.len() + fields.text().len() + fields.iter().count() * FIELD_BYTES
    }
}

/// The stores of all services that have one.
#[derive(Debug, Default)]
pub(crate) struct Stores(Mutex<BTreeMap<ServiceName, Weak<Store>>>);

impl Stores {
    /// The store of a service, by what its policy says now. Where nothing is to be kept any more, what was kept is forgotten.
    pub(crate) fn of(&self, service: &ServiceName, policy: &Traffic) -> Option<Arc<Store>> {
        let limits = policy.keep_answers.as_ref();
        let mut stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        stores.retain(|_, store| store.strong_count() > 0);
        let Some(limits) = limits else {
            stores.remove(service);
            return None;
        };
        match stores.get(service).and_then(Weak::upgrade) {
            Some(store) => {
                store.room().limits = limits.clone();
                Some(store)
            }
            None => {
                let store = Arc::new(Store::new(limits.clone()));
                stores.insert(service.clone(), Arc::downgrade(&store));
                Some(store)
            }
        }
    }
}

/// What is kept for one service, in all workers together.
#[derive(Debug)]
pub(crate) struct Store {
    room: Mutex<Room>,
    going_on: AtomicUsize,
}

#[derive(Debug)]
struct Room {
    limits: KeepAnswers,
    entries: HashMap<Digest, Entry>,
    /// Those that are answered, oldest first.
    answered: VecDeque<Digest>,
    /// Of all keys…
    bytes: usize,
    /// …and of those that are answered, which can make way.
    bytes_answered: usize,
}

#[derive(Debug)]
struct Entry {
    fingerprint: Fingerprint,
    bytes: usize,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Its sender is dropped when it is over.
    UnderWay(watch::Receiver<()>),
    Answered {
        at: Stamp,
        answer: Arc<KeptAnswer>,
    },
}

/// What a request is to do.
#[derive(Debug)]
pub(crate) enum Turn {
    /// Go to the service.
    First(Flight),
    /// Wait until the sender is dropped, then ask again.
    Wait(watch::Receiver<()>),
    /// Be answered with this.
    Again(Arc<KeptAnswer>),
    /// Be refused: the key was used for something else.
    Reused,
    /// Go to the service, and nothing is kept: there is no room.
    NoRoom,
}

impl Store {
    pub(crate) fn new(limits: KeepAnswers) -> Self {
        let room = Room {
            limits,
            entries: HashMap::default(),
            answered: VecDeque::new(),
            bytes: 0,
            bytes_answered: 0,
        };
        Self { room: Mutex::new(room), going_on: AtomicUsize::new(0) }
    }

    /// Whose turn it is.
    pub(crate) fn begin(
        self: &Arc<Self>,
        scope: Digest,
        fingerprint: Fingerprint,
        now: Stamp,
        counters: &Arc<ServiceCounters>,
    ) -> Turn {
        let mut room = self.room();
        let expired = room.expire(now);
        if let Some(entry) = room.entries.get(&scope) {
            return match &entry.state {
                _ if !entry.fingerprint.fits(fingerprint) => Turn::Reused,
                State::UnderWay(over) => Turn::Wait(over.clone()),
                State::Answered { answer, .. } => Turn::Again(Arc::clone(answer)),
            };
        }
        let evicted = room.make_room(1, KEY_BYTES);
        counters.kept.evicted.add(evicted.gone.len() as u64);
        if evicted.is_enough {
            let (sender, over) = watch::channel(());
            room.bytes += KEY_BYTES;
            room.entries.insert(scope, Entry { fingerprint, bytes: KEY_BYTES, state: State::UnderWay(over) });
            drop(room);
            drop((expired, evicted));
            let flight = Flight {
                store: Arc::clone(self),
                scope,
                counters: Arc::clone(counters),
                is_kept: false,
                _over: sender,
            };
            return Turn::First(flight);
        }
        drop(room);
        drop((expired, evicted));
        counters.kept.no_room.add(1);
        Turn::NoRoom
    }

    /// Forgets what is too old. To be called now and then, so that quiet times give memory back.
    pub(crate) fn sweep(&self, now: Stamp) {
        let expired = self.room().expire(now);
        drop(expired);
    }

    /// The longest body that is kept.
    pub(crate) fn bytes_max(&self) -> usize {
        usize::try_from(self.room().limits.bytes_max).unwrap_or(usize::MAX)
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What left to make room.
struct Evicted {
    gone: Vec<Entry>,
    is_enough: bool,
}

impl Room {
    /// Takes out what is too old. They are in the order of their ages, so the first that is not ends it.
    fn expire(&mut self, now: Stamp) -> Vec<Entry> {
        let mut gone = Vec::new();
        while let Some(oldest) = self.answered.front() {
            let is_over = match self.entries.get(oldest).map(|entry| &entry.state) {
                Some(State::Answered { at, .. }) => now >= at.plus(self.limits.keep_for),
                _ => true,
            };
            if !is_over {
                break;
            }
            gone.extend(self.take_oldest());
        }
        gone
    }

    /// Makes room for so many more keys and bytes. Where all answers would not be enough, none makes way.
    fn make_room(&mut self, keys: usize, bytes: usize) -> Evicted {
        let keys_max = usize::try_from(self.limits.keys_max).unwrap_or(usize::MAX);
        let bytes_max = usize::try_from(self.limits.memory_max).unwrap_or(usize::MAX);
        let under_way = self.entries.len() - self.answered.len();
        let is_enough = under_way + keys <= keys_max && self.bytes - self.bytes_answered + bytes <= bytes_max;
        let mut gone = Vec::new();
        while is_enough && (self.entries.len() + keys > keys_max || self.bytes + bytes > bytes_max) {
            match self.take_oldest() {
                Some(oldest) => gone.push(oldest),
                None => break,
            }
        }
        Evicted { gone, is_enough }
    }

    fn take_oldest(&mut self) -> Option<Entry> {
        let oldest = self.answered.pop_front()?;
        let entry = self.entries.remove(&oldest)?;
        self.bytes -= entry.bytes;
        self.bytes_answered -= entry.bytes;
        Some(entry)
    }

    /// Takes so many more bytes for a key, if there is room for them.
    fn grow(&mut self, scope: &Digest, bytes: usize) -> Evicted {
        let evicted = self.make_room(0, bytes);
        if evicted.is_enough
            && let Some(entry) = self.entries.get_mut(scope)
        {
            entry.bytes += bytes;
            self.bytes += bytes;
        }
        evicted
    }
}

/// The right to answer a key, and the duty to free it or have its answer kept. Dropped, it frees it.
#[derive(Debug)]
pub(crate) struct Flight {
    store: Arc<Store>,
    scope: Digest,
    counters: Arc<ServiceCounters>,
    is_kept: bool,
    /// Dropped after the key was freed or answered: then those who wait look again.
    _over: watch::Sender<()>,
}

impl Flight {
    pub(crate) const fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Takes room for so many more bytes of its answer. Returns whether there is.
    pub(crate) fn grow(&self, bytes: usize) -> bool {
        let evicted = self.store.room().grow(&self.scope, bytes);
        self.counters.kept.evicted.add(evicted.gone.len() as u64);
        evicted.is_enough
    }

    /// Keeps its answer, if there is room for that.
    pub(crate) fn keep(mut self, answer: KeptAnswer, now: Stamp) {
        let bytes = KEY_BYTES + answer.bytes();
        let mut room = self.store.room();
        let taken = room.entries.get(&self.scope).map_or(0, |entry| entry.bytes);
        let evicted = room.grow(&self.scope, bytes.saturating_sub(taken));
        if evicted.is_enough
            && let Some(entry) = room.entries.get_mut(&self.scope)
        {
            entry.state = State::Answered { at: now, answer: Arc::new(answer) };
            let bytes = entry.bytes;
            room.bytes_answered += bytes;
            room.answered.push_back(self.scope);
            self.is_kept = true;
            self.counters.kept.kept.add(1);
        }
        drop(room);
        self.counters.kept.evicted.add(evicted.gone.len() as u64);
    }

    /// The right to go on without a client, until it is dropped; `None` when too many do.
    pub(crate) fn go_on(&self) -> Option<GoesOn> {
        let place = GoesOn(Arc::clone(&self.store));
        // Given back when dropped, so it is taken whether there is one or not.
        let others = self.store.going_on.fetch_add(1, Ordering::Relaxed);
        if others < GOING_ON_MAX {
            self.counters.kept.gone_on.add(1);
        }
        (others < GOING_ON_MAX).then_some(place)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.is_kept {
            let mut room = self.store.room();
            let freed = room.entries.remove(&self.scope);
            room.bytes -= freed.as_ref().map_or(0, |entry| entry.bytes);
        }
    }
}

/// A request that goes on although its client has left.
#[derive(Debug)]
pub(crate) struct GoesOn(Arc<Store>);

impl Drop for GoesOn {
    fn drop(&mut self) {
        self.0.going_on.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
