//! Which runs there are: those in memory, those that sleep, when these are due, and who waits for an end.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use standfast_model::{Priority, Stamp};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot};

use super::drive::Input;
use super::fair::{Fair, Turn};
use super::gate::Gate;
use super::journal::Summary;
use crate::decide::Cause;
use crate::run::{Limits, Run, RunId};

/// Most runs that are woken at once; more follow as these have done what was due.
const WAKE_MAX: usize = 256;

/// Most runs around a run, each of which a task of the next began.
const NESTED_MAX: usize = 64;
/// Most runs that go on at a time and that one run began, or those that it began.
const FAMILY_MAX: usize = 10_000;

/// Most runs of which it is remembered why they are not driven on.
const BROKEN_MAX: usize = 10_000;

/// A run in memory.
#[derive(Debug)]
pub(super) struct Awake {
    pub(super) inbox: mpsc::Sender<Input>,
    /// Where the first of its records is that is not in a snapshot.
    pub(super) first_unkept: Arc<AtomicU64>,
}

/// A run that sleeps.
#[derive(Debug, Clone, Copy)]
struct Asleep {
    due: Option<Stamp>,
    /// Of one for which there was no room.
    crowded: Option<Priority>,
}

/// Whose turn it is among those for which there is no room.
#[derive(Debug, Clone)]
pub(super) struct Crowd {
    pub(super) priority: Priority,
    /// With whom it shares its turns.
    pub(super) share: Option<Arc<str>>,
}

impl Crowd {
    pub(super) fn of(priority: Priority, limits: Option<&Limits>) -> Self {
        Self { priority, share: limits.and_then(Limits::turns_with) }
    }
}

/// All runs that have not ended.
#[derive(Debug, Default)]
pub(super) struct Runs {
    awake: HashMap<RunId, Awake>,
    /// Those that sleep, and when each is due.
    asleep: HashMap<RunId, Asleep>,
    due: BTreeSet<(Stamp, RunId)>,
    /// Those for which there was no room when they were started, the highest priority first.
    crowded: Fair,
    /// With whom they take turns, of those that say so.
    shares: HashMap<RunId, Arc<str>>,
    /// Runs that are let in before they begin, or were.
    pub(super) gate: Gate,
    /// How many places in memory have become free.
    freed: u64,
    /// Those that are not driven on: since when, and why.
    broken: BTreeMap<RunId, (Stamp, String)>,
    /// Those that sleep and wait for nothing.
    endless: BTreeMap<RunId, Stamp>,
    /// Those that sleep and are parked: since when, and why.
    parked: BTreeMap<RunId, (Stamp, Arc<str>)>,
    /// Those that sleep and are not woken by time before they are tried.
    held_back: BTreeSet<RunId>,
    /// Those that were taken up and have not got on since.
    on_trial: BTreeSet<RunId>,
    /// The last of these has got on.
    all_got_on: Arc<Notify>,
    /// Where the last record of a run in memory is.
    last: HashMap<RunId, u64>,
    waiting: HashMap<RunId, Vec<oneshot::Sender<Summary>>>,
    /// Those in memory that wait for other runs, and for how many each.
    patient: HashMap<RunId, usize>,
    /// Runs that tasks of other runs began, and the outermost of these of each.
    nested: HashMap<RunId, Nested>,
    /// How many go on that one run began, and those that it began, and so on.
    families: HashMap<RunId, usize>,
    /// Where the first record is of a run that is not driven on and that only the journal knows: the next process tries again.
    given_up: Option<u64>,
}

/// A run that a task of another began.
#[derive(Debug, Clone, Copy)]
struct Nested {
    /// How many there are around it.
    depth: usize,
    outermost: RunId,
}

/// Who wakes a run.
pub(super) enum Claim {
    /// Who asked.
    Taken(Input),
    /// Somebody else did before.
    Sent(Sent),
}

/// What became of a message.
pub(super) enum Sent {
    /// It will be read.
    Awake,
    /// The run sleeps and must be woken for it.
    Asleep(Input),
    /// Too many wait before it.
    Full,
    /// There is no such run.
    Unknown,
}

impl Runs {
    pub(super) fn wakes(&mut self, id: RunId, awake: Awake) {
        self.stops_sleeping(id, true);
        self.awake.insert(id, awake);
    }

    /// Takes it from those that sleep, for who will read it back: what is sent to it waits for that. When it does not sleep, the
    /// message goes where it belongs.
    pub(super) fn claim(&mut self, id: RunId, awake: Awake, input: Input) -> Claim {
        let is_its_turn = matches!(input.cause, Cause::Time);
        if self.stops_sleeping(id, is_its_turn) {
            self.awake.insert(id, awake);
            return Claim::Taken(input);
        }
        Claim::Sent(self.send(id, input))
    }

    /// True when it slept until now.
    fn stops_sleeping(&mut self, id: RunId, is_its_turn: bool) -> bool {
        let Some(Asleep { due, crowded }) = self.asleep.remove(&id) else { return false };
        self.endless.remove(&id);
        self.parked.remove(&id);
        match (due, crowded) {
            (Some(since), Some(priority)) => {
                let turn = Turn { priority, share: self.shares.remove(&id), since, id };
                self.crowded.remove(&turn, is_its_turn);
            }
            (Some(due), None) => drop(self.due.remove(&(due, id))),
            (None, _) => {}
        }
        true
    }

    /// From now on it sleeps; as one of a crowd, since there is no room for it.
    pub(super) fn falls_asleep(&mut self, id: RunId, due: Option<Stamp>, crowd: Option<Crowd>) {
        self.frees(id, crowd.is_none());
        self.got_on(id);
        self.last.remove(&id);
        self.sleeps(id, due, crowd);
    }

    fn sleeps(&mut self, id: RunId, due: Option<Stamp>, crowd: Option<Crowd>) {
        let crowded = crowd.as_ref().map(|crowd| crowd.priority);
        self.asleep.insert(id, Asleep { due, crowded });
        match (due, crowd) {
            (Some(since), Some(Crowd { priority, share })) => {
                self.shares.extend(share.clone().map(|share| (id, share)));
                self.crowded.insert(Turn { priority, share, since, id });
            }
            (Some(due), None) => drop(self.due.insert((due, id))),
            (None, _) => {}
        }
    }

    /// Whether a run is let in, and in whose slot if not in its own; else it waits for that.
    pub(super) fn is_let_in(&mut self, run: &Run, now: Stamp) -> Option<Option<RunId>> {
        let limits = run.limits.as_deref()?;
        self.gate.joins(run.id, limits, run.started_at, now);
        self.let_in(now);
        self.gate.is_let_in(run.id)
    }

    /// One that waits to be let in sleeps, unless it was let in this very moment: then it waits for room.
    pub(super) fn queues(&mut self, run: &Run, now: Stamp) {
        match (self.gate.is_let_in(run.id), run.limits.as_deref()) {
            (Some(_), Some(limits)) => {
                self.falls_asleep(run.id, Some(now), Some(Crowd::of(limits.priority, Some(limits))));
            }
            _ => self.falls_asleep(run.id, run.due(), None),
        }
    }

    /// Those that were let in begin as soon as there is room.
    pub(super) fn let_in(&mut self, now: Stamp) {
        for turn in self.gate.take_let_in(now) {
            let Turn { priority, share, since, id } = turn;
            if self.stops_sleeping(id, false) {
                self.sleeps(id, Some(since), Some(Crowd { priority, share }));
            }
        }
    }

    /// What a run waits for before it begins, as the end of a sentence.
    pub(super) fn waits_in_line(&self, id: RunId) -> Option<String> {
        self.gate.waits(id).or_else(|| {
            let asleep = self.asleep.get(&id)?;
            let share = self.shares.get(&id).cloned();
            let turn = Turn { priority: asleep.crowded?, share, since: asleep.due?, id };
            Some(format!("for room; {} before it", self.crowded.before(&turn)?))
        })
    }

    fn frees(&mut self, id: RunId, is_done: bool) {
        if self.awake.remove(&id).is_some() && is_done {
            self.freed += 1;
        }
    }

    /// How many places in memory have become free, since runs ended or have nothing to do for a while.
    pub(super) fn freed(&self) -> u64 {
        self.freed
    }

    /// How many wait until there is room for them.
    pub(super) fn crowded(&self) -> usize {
        self.crowded.len()
    }

    pub(super) fn wrote(&mut self, id: RunId, at: u64) {
        self.last.insert(id, at);
        self.got_on(id);
    }

    /// It is parked, and sleeps.
    pub(super) fn is_parked(&mut self, id: RunId, at: Stamp, why: Arc<str>) {
        if self.asleep.contains_key(&id) {
            self.parked.insert(id, (at, why));
        }
    }

    pub(super) fn parked(&self, max: usize) -> Vec<(RunId, (Stamp, Arc<str>))> {
        self.parked.iter().take(max).map(|(id, why)| (*id, why.clone())).collect()
    }

    /// Until they are tried, time wakes none of them.
    pub(super) fn hold_back(&mut self, ids: impl IntoIterator<Item = RunId>) {
        self.held_back.extend(ids);
    }

    /// These are taken up, and may break the process.
    pub(super) fn tries(&mut self, ids: &[RunId]) {
        for id in ids {
            self.held_back.remove(id);
        }
        self.on_trial = ids.iter().copied().collect();
    }

    /// Waits for those that are tried; they have all got on when there is none.
    pub(super) fn on_trial(&self) -> (usize, Arc<Notify>) {
        (self.on_trial.len(), Arc::clone(&self.all_got_on))
    }

    /// What it did since it was taken up did not break the process.
    pub(super) fn got_on(&mut self, id: RunId) {
        if self.on_trial.remove(&id) && self.on_trial.is_empty() {
            self.all_got_on.notify_one();
        }
    }

    /// Why a run cannot be driven on.
    pub(super) fn is_broken(&mut self, id: RunId, at: Stamp, why: String) {
        if self.broken.len() < BROKEN_MAX {
            self.broken.insert(id, (at, why));
        }
    }

    /// A run is asleep that waits for nothing.
    pub(super) fn is_endless(&mut self, id: RunId, at: Stamp) {
        self.endless.insert(id, at);
    }

    pub(super) fn broken(&self, max: usize) -> Vec<(RunId, (Stamp, String))> {
        self.broken.iter().take(max).map(|(id, why)| (*id, why.clone())).collect()
    }

    pub(super) fn endless(&self, max: usize) -> Vec<(RunId, Stamp)> {
        self.endless.iter().take(max).map(|(id, since)| (*id, *since)).collect()
    }

    /// Those that were due before a time, or were started before it and found no room.
    pub(super) fn overdue(&self, before: Stamp, max: usize) -> Vec<(RunId, Stamp)> {
        let due = self.due.iter().take_while(|(at, _)| *at < before).map(|(at, id)| (*id, *at));
        let crowded = self.crowded.all().filter(|(at, _)| *at < before).map(|(at, id)| (id, at));
        due.chain(crowded).take(max).collect()
    }

    /// Whether it sleeps, and no time ends that.
    pub(super) fn is_without_limit(&self, id: RunId) -> bool {
        self.asleep.get(&id).is_some_and(|asleep| asleep.due.is_none())
    }

    /// The run is not driven on, but not at its end either.
    pub(super) fn gives_up(&mut self, id: RunId) {
        if let Some(awake) = self.awake.get(&id) {
            self.keeps_from(awake.first_unkept.load(Ordering::SeqCst));
        }
        self.forget(id);
    }

    /// Records from here on are kept for the next process.
    pub(super) fn keeps_from(&mut self, first: u64) {
        self.given_up = Some(self.given_up.map_or(first, |known| known.min(first)));
    }

    /// From now on it waits for another run.
    pub(super) fn is_patient(&mut self, id: RunId) {
        *self.patient.entry(id).or_default() += 1;
    }

    pub(super) fn is_impatient(&mut self, id: RunId) {
        if let Some(count) = self.patient.get_mut(&id) {
            *count -= 1;
            if *count == 0 {
                self.patient.remove(&id);
            }
        }
    }

    /// Whether a task of a run may begin another; why not, otherwise. Without bounds a workflow that runs itself would fill the store.
    pub(super) fn may_nest(&self, holder: RunId) -> Result<(), String> {
        let (depth, outermost) = self.nest_within(holder);
        if depth > NESTED_MAX {
            return Err(format!(
                "there are {NESTED_MAX} runs around it, each of a task of the next, the outermost {outermost}"
            ));
        }
        match self.families.get(&outermost) {
            Some(count) if *count >= FAMILY_MAX => {
                Err(format!("{FAMILY_MAX} runs go on that {outermost} began, and those that it began"))
            }
            _ => Ok(()),
        }
    }

    /// A task of `holder` began a run, or asks for it again.
    pub(super) fn nests(&mut self, id: RunId, holder: RunId) {
        if self.is_awake(id).is_none() || self.nested.contains_key(&id) {
            return;
        }
        let (depth, outermost) = self.nest_within(holder);
        self.nested.insert(id, Nested { depth, outermost });
        *self.families.entry(outermost).or_default() += 1;
    }

    fn nest_within(&self, holder: RunId) -> (usize, RunId) {
        self.nested.get(&holder).map_or((1, holder), |around| (around.depth + 1, around.outermost))
    }

    /// For how many more there is room. Those that wait for others do not count: when they had all the room, those that they wait
    /// for would have none, and nothing would go on.
    pub(super) fn room(&self, awake_max: usize) -> usize {
        awake_max.saturating_sub(self.awake.len().saturating_sub(self.patient.len()))
    }

    pub(super) fn forget(&mut self, id: RunId) {
        self.stops_sleeping(id, false);
        self.frees(id, true);
        self.held_back.remove(&id);
        self.got_on(id);
        self.last.remove(&id);
        self.waiting.remove(&id);
        if let Some(nested) = self.nested.remove(&id)
            && let Some(count) = self.families.get_mut(&nested.outermost)
        {
            *count -= 1;
            if *count == 0 {
                self.families.remove(&nested.outermost);
            }
        }
    }

    pub(super) fn ended(&mut self, id: RunId, summary: &Summary, now: Stamp) {
        self.leaves_gate(id, now);
        let waiting = self.waiting.remove(&id).unwrap_or_default();
        self.forget(id);
        for waits in waiting {
            let _gone_away = waits.send(summary.clone());
        }
    }

    /// It has ended, or never was: its slot is for others.
    pub(super) fn leaves_gate(&mut self, id: RunId, now: Stamp) {
        self.gate.leaves(id, now);
        self.let_in(now);
    }

    /// Tells when it ends; `None` when it has ended, or never was.
    pub(super) fn wait(&mut self, id: RunId) -> Option<oneshot::Receiver<Summary>> {
        self.is_awake(id)?;
        let (ends, end) = oneshot::channel();
        let waiting = self.waiting.entry(id).or_default();
        waiting.retain(|waits| !waits.is_closed());
        waiting.push(ends);
        Some(end)
    }

    /// Whether it is in memory; `None` when it is not known.
    pub(super) fn is_awake(&self, id: RunId) -> Option<bool> {
        if self.awake.contains_key(&id) {
            return Some(true);
        }
        self.asleep.contains_key(&id).then_some(false)
    }

    pub(super) fn last_of(&self, id: RunId) -> Option<u64> {
        self.last.get(&id).copied()
    }

    pub(super) fn send(&self, id: RunId, input: Input) -> Sent {
        let Some(awake) = self.awake.get(&id) else {
            return if self.asleep.contains_key(&id) { Sent::Asleep(input) } else { Sent::Unknown };
        };
        match awake.inbox.try_send(input) {
            Ok(()) => Sent::Awake,
            Err(TrySendError::Full(_)) => Sent::Full,
            Err(TrySendError::Closed(_)) => Sent::Unknown,
        }
    }

    /// Runs that are due, as far as there is room for them in memory, and when the next is.
    pub(super) fn due(&self, now: Stamp, awake_max: usize) -> (Vec<RunId>, Option<Stamp>) {
        let room = self.room(awake_max);
        let due = self.due.iter().take_while(|(at, _)| *at <= now).map(|(_, id)| *id);
        // What has begun is brought to its end before more is begun, unless that is more urgent.
        let (max, is_free) = (room.min(WAKE_MAX), |id: &RunId| !self.held_back.contains(id));
        let is_urgent = |priority| priority == Priority::High;
        let mut taken = self.crowded.next(is_urgent, max, is_free);
        taken.extend(due.filter(is_free).take(max - taken.len()));
        taken.extend(self.crowded.next(|priority| !is_urgent(priority), max - taken.len(), is_free));
        let next = if taken.len() < max {
            let due = self.due.iter().map(|(at, _)| *at).find(|at| *at > now);
            due.into_iter().chain(self.gate.due()).min()
        } else {
            // Without room the next is woken when another run ends or falls asleep.
            (room > WAKE_MAX).then_some(now)
        };
        (taken, next)
    }

    pub(super) fn ids(&self) -> Vec<RunId> {
        self.awake.keys().chain(self.asleep.keys()).copied().collect()
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        (self.awake.len(), self.asleep.len())
    }

    /// Where the first record is that only the journal knows.
    pub(super) fn first_unkept(&self) -> u64 {
        let awake = self.awake.values().map(|awake| awake.first_unkept.load(Ordering::SeqCst));
        awake.chain(self.given_up).min().unwrap_or(u64::MAX)
    }
}
