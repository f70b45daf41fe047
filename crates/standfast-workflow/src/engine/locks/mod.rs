//! Locks that runs of a namespace take: who holds one and who waits for it is in the store, in the order in which they came.
//!
//! **Invariants.** That a run holds a lock is written in one commit with the end of the task that took it, and so is that it let go of it. A
//! claim of a run that has ended counts for nothing, so that the end of a run frees its locks, however it ended and whatever
//! happens to the process then; the claim itself is removed afterwards.

mod waits;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use standfast_model::Stamp;
use standfast_store::{Batch, Scan, Space};
use tokio::sync::{Notify, OwnedMutexGuard};

pub use self::waits::LockWait;
pub(super) use self::waits::{WaitsWithin, deadlocked};
use super::journal::Change;
use super::values::Effect;
use super::within::Patient;
use super::{Engine, JournalError, Refused};
use crate::run::{Problem, RunId, ScopeId, Standard, State};

/// By namespace and name: who holds a lock, and who waits for it.
const LOCKS: Space = Space::Table("workflow-locks");
/// Most runs that hold one lock or wait for it.
const CLAIMS_MAX: usize = 1_000;
/// So many are woken when something has changed: it is the turn of one, but that one may be about to be given up.
const WOKEN: usize = 3;
/// Who waits looks again after this, though nobody woke it: another may have ended in a way that nobody was told of.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// A run of which is asked where it stands is given so long to say so.
const LOOK_MAX: Duration = Duration::from_secs(1);
/// Locks that are read at once when the store is opened.
const PAGE: usize = 1_000;
/// The format of what is written.
const FORMAT: u32 = 1;

/// Who waits for locks now.
#[derive(Debug, Default)]
pub(super) struct Locks {
    /// Who looks at locks or changes them does so alone.
    alone: Arc<tokio::sync::Mutex<()>>,
    state: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// By run: the locks with claims of it, perhaps more.
    claimed: BTreeMap<RunId, BTreeSet<Vec<u8>>>,
    /// By lock: tasks that wait for it, in the order of their claims.
    waiting: BTreeMap<Vec<u8>, BTreeMap<Waiter, Awaited>>,
    /// Runs that wait for the end of another, which they began: since when, and how often.
    within: BTreeMap<(RunId, RunId), (Stamp, usize)>,
}

/// A task that waits: since when its claim is there, and which it is.
type Waiter = (Stamp, RunId, ScopeId);

#[derive(Debug)]
struct Awaited {
    /// It may be its turn.
    turn: Arc<Notify>,
    /// Who held the lock when it looked last.
    holders: Vec<RunId>,
}

/// Who holds a lock and who waits for it, as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    v: u32,
    /// In the order in which they came.
    claims: Vec<Claim>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Claim {
    run: RunId,
    /// The task that takes it.
    scope: ScopeId,
    since: Stamp,
    /// It holds the lock; else it waits for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    holds: bool,
}

impl Locks {
    fn state(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It may be the turn of the first ones that wait.
    pub(super) fn wake(&self, place: &[u8]) {
        if let Some(waiting) = self.state().waiting.get(place) {
            waiting.values().take(WOKEN).for_each(|one| one.turn.notify_one());
        }
    }

    fn claims(&self, run: RunId, place: &[u8]) {
        self.state().claimed.entry(run).or_default().insert(place.to_vec());
    }

    fn is_waiting(&self, place: &[u8], claim: &Claim) -> bool {
        let waiter = (claim.since, claim.run, claim.scope);
        self.state().waiting.get(place).is_some_and(|waiting| waiting.contains_key(&waiter))
    }
}

/// A task that waits, as long as this lives.
struct Waiting<'e> {
    engine: &'e Engine,
    place: Vec<u8>,
    waiter: Waiter,
    turn: Arc<Notify>,
}

impl<'e> Waiting<'e> {
    fn new(engine: &'e Engine, place: &[u8], waiter: Waiter, holders: Vec<RunId>) -> Self {
        let turn = Arc::new(Notify::new());
        let awaited = Awaited { turn: Arc::clone(&turn), holders };
        engine.0.locks.state().waiting.entry(place.to_vec()).or_default().insert(waiter, awaited);
        Self { engine, place: place.to_vec(), waiter, turn }
    }

    fn sees(&self, holders: Vec<RunId>) {
        let mut state = self.engine.0.locks.state();
        let awaited = state.waiting.get_mut(&self.place).and_then(|waiting| waiting.get_mut(&self.waiter));
        if let Some(awaited) = awaited {
            awaited.holders = holders;
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut state = self.engine.0.locks.state();
        if let Some(waiting) = state.waiting.get_mut(&self.place) {
            waiting.remove(&self.waiter);
            if waiting.is_empty() {
                state.waiting.remove(&self.place);
            }
        }
        drop(state);
        // If it was given up, others may be next.
        self.engine.0.locks.wake(&self.place);
    }
}

impl Kept {
    fn holders(&self) -> Vec<RunId> {
        self.claims.iter().filter(|claim| claim.holds).map(|claim| claim.run).collect()
    }

    fn written(&self, place: &[u8]) -> Result<Change, JournalError> {
        let value = match self.claims.is_empty() {
            true => None,
            false => Some(serde_json::to_vec(self).map_err(|why| JournalError::Unreadable(why.to_string()))?),
        };
        Ok(Change { space: &LOCKS, key: place.to_vec(), value })
    }
}

fn place(namespace: &str, name: &str) -> Vec<u8> {
    // A namespace is a label, and has no `/`.
    format!("{namespace}/{name}").into_bytes()
}

fn name_of(place: &[u8]) -> String {
    let text = String::from_utf8_lossy(place);
    text.split_once('/').map_or_else(|| text.to_string(), |(_, name)| name.to_owned())
}

fn failed(name: &str, why: &dyn std::fmt::Display) -> Problem {
    Standard::Runtime.problem(format!("the lock `{name}` cannot be had: {why}"))
}

impl Engine {
    /// Finds out which runs have claims: their end frees the locks.
    pub(super) async fn read_locks(&self) -> Result<(), JournalError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let mut scan = Scan::of(LOCKS, "").limit(PAGE);
            if let Some(after) = &after {
                scan = scan.after(after.clone());
            }
            let page = self.journal().store().scan(&scan).await?;
            for entry in &page.entries {
                let kept = read(&entry.value)?;
                kept.claims.iter().for_each(|claim| self.0.locks.claims(claim.run, &entry.key));
            }
            match page.entries.last() {
                Some(last) if page.entries.len() == PAGE => after = Some(last.key.to_vec()),
                _ => return Ok(()),
            }
        }
    }

    /// Takes a lock for a run, when it is its turn: what the task yields, and what is written with its end.
    pub(super) async fn take_lock(
        &self,
        (run, scope): (RunId, ScopeId),
        (namespace, name): (&str, &str),
        permits: usize,
    ) -> Result<(Value, Effect), Problem> {
        let place = place(namespace, name);
        let answer = json!({"lock": name, "permits": permits});
        let (mut waiting, mut patient): (Option<Waiting<'_>>, Option<Patient<'_>>) = (None, None);
        loop {
            let alone = Arc::clone(&self.0.locks.alone).lock_owned().await;
            let read = self.unless_stopped(self.kept_lock(&place).await.map_err(Refused::from)).await;
            let mut kept = read.map_err(|why| failed(name, &why))?;
            // A run holds a lock or does not, however often it takes it.
            if kept.claims.iter().any(|claim| claim.run == run && claim.holds) {
                return Ok((answer, Effect::new(scope, None, alone)));
            }
            let had = kept.claims.clone();
            self.drop_void(&place, &mut kept, (run, scope)).await;
            let mine = match kept.claims.iter().position(|claim| (claim.run, claim.scope) == (run, scope)) {
                Some(mine) => mine,
                None if kept.claims.len() >= CLAIMS_MAX => {
                    return Err(failed(name, &format!("{CLAIMS_MAX} runs hold it or wait for it")));
                }
                None => {
                    kept.claims.push(Claim { run, scope, since: self.clock().now(), holds: false });
                    kept.claims.len() - 1
                }
            };
            self.0.locks.claims(run, &place);
            let holders = kept.holders();
            let ahead = kept.claims[..mine].iter().filter(|claim| !claim.holds).count();
            if holders.len() + ahead < permits {
                kept.claims[mine].holds = true;
                let change = kept.written(&place).map_err(|why| failed(name, &why))?;
                // Other tasks of this run have it then, too.
                return Ok((answer, Effect::new(scope, Some(change), alone).wakes(place)));
            }
            let since = kept.claims[mine].since;
            if kept.claims != had {
                let written = self.write_lock(&place, &kept).await.map_err(Refused::from);
                self.unless_stopped(written).await.map_err(|why| failed(name, &why))?;
            }
            // Before others may change anything, so that nobody misses that it waits.
            match &waiting {
                Some(waiting) => waiting.sees(holders),
                None => waiting = Some(Waiting::new(self, &place, (since, run, scope), holders)),
            }
            patient.get_or_insert_with(|| Patient::new(self, run));
            drop(alone);
            if let Some(waiting) = &waiting {
                let _nobody_woke_it =
                    self.clock().timeout(LOOK_AGAIN_AFTER, waiting.turn.notified()).await.is_err();
            }
        }
    }

    /// Lets go of a lock for a task: what it yields, and what is written with its end.
    pub(super) async fn release_lock(
        &self,
        (run, scope): (RunId, ScopeId),
        (namespace, name): (&str, &str),
    ) -> Result<(Value, Effect), Problem> {
        let place = place(namespace, name);
        let alone = Arc::clone(&self.0.locks.alone).lock_owned().await;
        let read = self.unless_stopped(self.kept_lock(&place).await.map_err(Refused::from)).await;
        let mut kept = read.map_err(|why| failed(name, &why))?;
        let had = kept.claims.len();
        kept.claims.retain(|claim| claim.run != run || !claim.holds);
        let released = kept.claims.len() < had;
        let change = released.then(|| kept.written(&place)).transpose().map_err(|why| failed(name, &why))?;
        let answer = json!({"lock": name, "released": released});
        Ok((answer, Effect::new(scope, change, alone).wakes(place)))
    }

    /// Removes the claims of a run that has ended: they count for nothing any more, and others may be next.
    pub(super) async fn let_go(&self, run: RunId) {
        let Some(places) = self.0.locks.state().claimed.remove(&run) else { return };
        for place in places {
            let alone: OwnedMutexGuard<()> = Arc::clone(&self.0.locks.alone).lock_owned().await;
            let removed = async {
                let mut kept = self.kept_lock(&place).await?;
                let had = kept.claims.len();
                kept.claims.retain(|claim| claim.run != run);
                if kept.claims.len() < had { self.write_lock(&place, &kept).await } else { Ok(()) }
            };
            if let Err(why) = removed.await {
                // Who takes the lock next finds out that the run has ended.
                tracing::warn!(%run, lock = name_of(&place), %why, "a claim of a run that has ended stays for now");
            }
            drop(alone);
            self.0.locks.wake(&place);
        }
    }

    async fn kept_lock(&self, place: &[u8]) -> Result<Kept, JournalError> {
        match self.journal().store().get(&LOCKS, place).await? {
            Some(entry) => read(&entry.value),
            None => Ok(Kept { v: FORMAT, claims: Vec::new() }),
        }
    }

    async fn write_lock(&self, place: &[u8], kept: &Kept) -> Result<(), JournalError> {
        let Change { space, key, value } = kept.written(place)?;
        let batch = match value {
            Some(value) => Batch::new().put(space, key, value),
            None => Batch::new().delete(space, key),
        };
        self.journal().commit(batch).await
    }

    /// Drops claims that count for nothing, of those before this task's: their run has ended, or their task waits no more.
    async fn drop_void(&self, place: &[u8], kept: &mut Kept, (run, scope): (RunId, ScopeId)) {
        let mut valid = Vec::with_capacity(kept.claims.len());
        let mut is_before = true;
        for claim in std::mem::take(&mut kept.claims) {
            is_before = is_before && (claim.run, claim.scope) != (run, scope);
            if !is_before || self.counts_still(place, &claim).await {
                valid.push(claim);
            }
        }
        kept.claims = valid;
    }

    /// When that cannot be found out, it does.
    async fn counts_still(&self, place: &[u8], claim: &Claim) -> bool {
        let goes_on = self.runs().is_awake(claim.run).is_some();
        if !goes_on && matches!(self.journal().ended(claim.run).await, Ok(Some(_))) {
            return false;
        }
        if claim.holds || self.0.locks.is_waiting(place, claim) {
            return true;
        }
        // After a restart its task is not asked for yet, or it was given up before.
        match self.clock().timeout(LOOK_MAX, self.look(claim.run)).await {
            Ok(Ok((run, _))) => {
                run.scopes.get(&claim.scope).is_some_and(|scope| scope.state == State::Asking)
            }
            Ok(Err(Refused::Ended(_))) => false,
            _ => true,
        }
    }
}

fn read(bytes: &[u8]) -> Result<Kept, JournalError> {
    let kept: Kept =
        serde_json::from_slice(bytes).map_err(|why| JournalError::Unreadable(format!("a lock: {why}")))?;
    if kept.v != FORMAT {
        return Err(JournalError::Unreadable(format!("a lock: format {}", kept.v)));
    }
    Ok(kept)
}
