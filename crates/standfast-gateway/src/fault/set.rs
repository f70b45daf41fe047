//! The faults that are in force, and what became of them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use standfast_model::Stamp;
use standfast_runtime::Clock;
use tokio::sync::watch;

use super::what::Fault;

/// Faults in force at a time; one more is refused.
pub const FAULTS_MAX: usize = 64;
/// Faults that have ended and are still told of; the oldest make way.
const ENDED_MAX: usize = 64;
/// The longest name of a fault.
const ID_BYTES_MAX: usize = 64;

/// A fault in force; its counters are shared by all workers.
#[derive(Debug)]
pub(crate) struct Active {
    pub(super) id: Box<str>,
    pub(super) fault: Fault,
    until: Stamp,
    pub(super) seen: AtomicU64,
    pub(super) applied: AtomicU64,
    pub(super) acting: AtomicU64,
    /// It was taken away before its time.
    is_removed: watch::Sender<bool>,
}

impl Active {
    pub(super) fn new(id: &str, fault: Fault, until: Stamp) -> Arc<Self> {
        Arc::new(Self {
            id: id.into(),
            fault,
            until,
            seen: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            acting: AtomicU64::new(0),
            is_removed: watch::Sender::new(false),
        })
    }

    pub(super) fn is_over(&self, now: Stamp) -> bool {
        now >= self.until || *self.is_removed.borrow()
    }

    /// Waits for so long, or until the fault is over.
    ///
    /// # Cancellation
    /// Cancel safe.
    pub(super) async fn hold(&self, clock: Clock, time: Duration) {
        let left = self.until.since(clock.now());
        let mut removed = self.is_removed.subscribe();
        let _over_or_removed =
            clock.timeout(time.min(left), removed.wait_for(|is_removed| *is_removed)).await;
    }

    fn status(&self, now: Stamp) -> FaultStatus {
        let state = match (*self.is_removed.borrow(), now >= self.until) {
            (true, _) => FaultState::Removed,
            (false, true) => FaultState::Expired,
            (false, false) => FaultState::Active,
        };
        let left = if state == FaultState::Active { self.until.since(now) } else { Duration::ZERO };
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        FaultStatus {
            id: self.id.to_string(),
            fault: self.fault.clone(),
            state,
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            seen: count(&self.seen),
            applied: count(&self.applied),
            acting: count(&self.acting),
        }
    }
}

/// How a fault is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultStatus {
    /// Its name.
    pub id: String,
    /// What it is.
    pub fault: Fault,
    /// Whether it is in force.
    pub state: FaultState,
    /// For how long still, in milliseconds.
    pub left_ms: u64,
    /// Requests that it fits, before its share was drawn; towards replicas: attempts.
    pub seen: u64,
    /// Those that it has hit.
    pub applied: u64,
    /// Those that it holds or changes right now.
    pub acting: u64,
}

/// Whether a fault is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultState {
    /// It is.
    Active,
    /// Its time is over.
    Expired,
    /// It was removed, or another took its name.
    Removed,
}

/// Why a fault was not put in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// There are as many as there may be.
    #[error("{FAULTS_MAX} faults are in force already; remove one, or wait until one ends")]
    TooMany,
    /// It has no usable name.
    #[error("`{0}` is no name for a fault: take up to {ID_BYTES_MAX} letters, digits, `-`, `_` and `.`")]
    BadId(String),
}

/// The faults in force, shared with all workers. Clones are handles to the same ones.
#[derive(Debug, Clone)]
pub struct Faults(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Clock,
    known: Mutex<Known>,
    in_force: watch::Sender<Arc<[Arc<Active>]>>,
}

#[derive(Debug, Default)]
struct Known {
    active: Vec<Arc<Active>>,
    ended: VecDeque<Arc<Active>>,
    numbered: u64,
}

impl Known {
    /// Takes those out of force that `is_to_end` names. Returns whether there were any.
    fn end(&mut self, is_to_end: impl Fn(&Active) -> bool) -> bool {
        let before = self.active.len();
        let (ended, active) = std::mem::take(&mut self.active).into_iter().partition(|one| is_to_end(one));
        self.active = active;
        self.ended.extend::<Vec<_>>(ended);
        while self.ended.len() > ENDED_MAX {
            self.ended.pop_front();
        }
        self.active.len() < before
    }
}

impl Faults {
    pub(crate) fn new(clock: Clock) -> Self {
        let in_force = watch::Sender::new(Arc::from([]));
        Self(Arc::new(Shared { clock, known: Mutex::default(), in_force }))
    }

    /// Puts a fault in force, from now on for as long as it lasts, and returns its name: `id`, or a new one. A fault of the same
    /// name ends; counts begin at 0.
    ///
    /// # Errors
    /// See [`PutError`].
    pub fn put(&self, id: Option<&str>, fault: Fault) -> Result<String, PutError> {
        let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if let Some(id) = id
            && (id.is_empty() || id.len() > ID_BYTES_MAX || !id.bytes().all(is_legal))
        {
            return Err(PutError::BadId(id.chars().take(ID_BYTES_MAX).collect()));
        }
        let now = self.0.clock.now();
        let mut known = self.known();
        known.end(|one| one.is_over(now));
        let id = match id {
            Some(id) => id.to_owned(),
            None => loop {
                known.numbered += 1;
                let id = format!("fault-{}", known.numbered);
                if !known.active.iter().any(|one| *one.id == id) {
                    break id;
                }
            },
        };
        if known.active.iter().filter(|one| *one.id != id).count() >= FAULTS_MAX {
            return Err(PutError::TooMany);
        }
        remove(&mut known, &id);
        let until = now.plus(fault.lasts);
        known.active.push(Active::new(&id, fault, until));
        self.publish(&known);
        Ok(id)
    }

    /// Ends a fault; requests that it holds go on. Returns how it was, or `None` when none of this name is in force.
    pub fn remove(&self, id: &str) -> Option<FaultStatus> {
        let mut known = self.known();
        let removed = remove(&mut known, id)?;
        self.publish(&known);
        Some(removed.status(self.0.clock.now()))
    }

    /// The faults in force, in the order in which they came, and then those that have ended, the newest first.
    pub fn list(&self) -> Vec<FaultStatus> {
        let now = self.0.clock.now();
        let known = self.known();
        let (active, over): (Vec<_>, Vec<_>) = known.active.iter().partition(|one| !one.is_over(now));
        let ended = over.into_iter().chain(known.ended.iter().rev());
        active.into_iter().chain(ended).map(|one| one.status(now)).collect()
    }

    /// Takes those out of the workers' sight whose time is over, so that requests cost nothing again.
    pub(crate) fn sweep(&self, now: Stamp) {
        if self.0.in_force.borrow().iter().any(|one| one.is_over(now)) {
            let mut known = self.known();
            if known.end(|one| one.is_over(now)) {
                self.publish(&known);
            }
        }
    }

    /// What one worker sees of them.
    pub(crate) fn watched(&self) -> Watched {
        let mut receiver = self.0.in_force.subscribe();
        receiver.mark_changed();
        Watched { receiver: RefCell::new(receiver), current: RefCell::default() }
    }

    fn publish(&self, known: &Known) {
        self.0.in_force.send_replace(known.active.clone().into());
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove(known: &mut Known, id: &str) -> Option<Arc<Active>> {
    let found = known.active.iter().find(|one| *one.id == *id).map(Arc::clone)?;
    found.is_removed.send_replace(true);
    known.end(|one| *one.id == *id);
    Some(found)
}

/// The faults as one worker sees them.
#[derive(Debug)]
pub(crate) struct Watched {
    receiver: RefCell<watch::Receiver<Arc<[Arc<Active>]>>>,
    current: RefCell<Option<Arc<[Arc<Active>]>>>,
}

impl Watched {
    /// The newest ones; `None` when there are none, which costs one atomic read to find out.
    pub(crate) fn current(&self) -> Option<Arc<[Arc<Active>]>> {
        if self.receiver.borrow().has_changed().unwrap_or(false) {
            let newest = Arc::clone(&self.receiver.borrow_mut().borrow_and_update());
            *self.current.borrow_mut() = Some(newest).filter(|newest| !newest.is_empty());
        }
        self.current.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> Fault {
        text.parse().unwrap()
    }

    fn states(faults: &Faults) -> Vec<(String, FaultState)> {
        faults.list().into_iter().map(|one| (one.id, one.state)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_fault_ends_by_itself_and_is_told_of_afterwards() {
        let clock = Clock::starting_at(Stamp::EPOCH);
        let faults = Faults::new(clock);
        let watched = faults.watched();
        assert!(watched.current().is_none());
        faults.put(Some("short"), fault("reset;for=1s")).unwrap();
        faults.put(None, fault("reset;for=1h")).unwrap();
        assert_eq!(watched.current().unwrap().len(), 2);
        clock.sleep(Duration::from_secs(1)).await;
        // Nobody has swept yet.
        assert!(watched.current().unwrap()[0].is_over(clock.now()));
        let ended = [("fault-1".to_owned(), FaultState::Active), ("short".to_owned(), FaultState::Expired)];
        assert_eq!(states(&faults), ended);
        faults.sweep(clock.now());
        assert_eq!(watched.current().unwrap().len(), 1);
        assert_eq!(states(&faults), ended);
        assert_eq!(faults.remove("fault-1").unwrap().state, FaultState::Removed);
        assert_eq!((faults.remove("fault-1"), faults.remove("short")), (None, None));
        assert!(watched.current().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_let_go_when_the_fault_is_removed_replaced_or_over() {
        let clock = Clock::starting_at(Stamp::EPOCH);
        let faults = Faults::new(clock);
        let watched = faults.watched();
        let held = |faults: &Faults| {
            faults.put(Some("x"), fault("blackhole;for=10s")).unwrap();
            let active = Arc::clone(&watched.current().unwrap()[0]);
            async move { active.hold(clock, Duration::from_secs(3_600)).await }
        };
        let began = clock.now();
        let removing = async { faults.remove("x") };
        tokio::join!(biased; held(&faults), removing);
        let replacing = async { faults.put(Some("x"), fault("reset;for=1s")) };
        let _replaced = tokio::join!(biased; held(&faults), replacing);
        assert_eq!(clock.now().since(began), Duration::ZERO);
        held(&faults).await;
        assert_eq!(clock.now().since(began), Duration::from_secs(10));
    }

    #[test]
    fn there_are_only_so_many_and_they_have_names() {
        let faults = Faults::new(Clock::system());
        for _ in 0..FAULTS_MAX {
            faults.put(None, fault("reset;for=1m")).unwrap();
        }
        assert_eq!(faults.put(None, fault("reset;for=1m")), Err(PutError::TooMany));
        faults.put(Some("fault-7"), fault("reset;for=1m")).expect("in place of another");
        for bad in ["", "a b", "ä", &"x".repeat(65)] {
            assert!(matches!(faults.put(Some(bad), fault("reset;for=1m")), Err(PutError::BadId(_))), "{bad}");
        }
        for _ in 0..2 * ENDED_MAX {
            faults.put(Some("fault-7"), fault("reset;for=1m")).unwrap();
        }
        assert_eq!(faults.list().len(), FAULTS_MAX + ENDED_MAX);
    }
}
