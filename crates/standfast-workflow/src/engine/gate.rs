//! Who is let in: runs of workflows with `concurrency` or `rate` wait at a gate before they begin.
//!
//! **Promise.** A run has a slot from the record that lets it in to the record that ends it, whatever it does in between. Who has one is
//! counted from these records when a process begins, before anybody is let in; so there are never more than the limit, also not over
//! crashes. A turn that is given here and not yet written is lost with the process, and given anew.
//!
//! A run whose caller waits for it and has a slot of the same place goes on in that slot: waiting for another would be for ever. The slot
//! is free when all that are in it have ended.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use standfast_model::Stamp;

use super::fair::{Fair, Turn};
use crate::decide::{for_rate, for_slot};
use crate::run::{Digest, Limits, RunId};

/// All gates.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// Runs that wait, or have a slot.
    members: HashMap<RunId, Member>,
    /// By place: see [`Limits::slot_place`].
    slots: HashMap<Arc<str>, Slots>,
    /// By the digest of the place: see [`rate_key`].
    windows: HashMap<Digest, Window>,
    /// When to look at a window again.
    timers: BTreeSet<(Stamp, Digest)>,
    /// Nobody is let in before it is known who is.
    is_open: bool,
    /// Those that were let in and nobody was told of yet.
    let_in: Vec<RunId>,
}

#[derive(Debug)]
enum Member {
    Waiting(Box<Waiting>),
    /// It was let in, in the slot of this run.
    Holding {
        place: Arc<str>,
        holder: RunId,
    },
}

#[derive(Debug)]
struct Waiting {
    limits: Limits,
    turn: Turn,
    stage: Stage,
    /// In whose slot, once it has one.
    holder: Option<RunId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Slot,
    Rate,
    LetIn,
}

#[derive(Debug, Default)]
struct Slots {
    /// By who took it: how many runs are in it.
    held: BTreeMap<RunId, usize>,
    line: Fair,
}

#[derive(Debug, Default)]
struct Window {
    /// When runs began, the latest last; those that are too long ago are forgotten.
    begun: VecDeque<Stamp>,
    /// The longest of the windows of runs that were seen.
    every: Duration,
    /// How many were let in and have not begun.
    pending: usize,
    line: Fair,
    timer: Option<Stamp>,
}

impl Window {
    /// Records of runs side by side may be written in another order than that of their times.
    fn began(&mut self, at: Stamp) {
        let place = self.begun.partition_point(|before| *before <= at);
        self.begun.insert(place, at);
    }
}

/// What names a window in the store: a digest, since keys of the store are readable there.
pub(super) fn rate_key(limits: &Limits) -> Option<Digest> {
    limits.rate_place().map(|place| Digest::of(place.as_bytes()))
}

impl Gate {
    /// A run that has not ended, with its limits as they are written. Asked again it changes nothing.
    pub(super) fn joins(&mut self, id: RunId, limits: &Limits, since: Stamp, now: Stamp) {
        if self.members.contains_key(&id) {
            return;
        }
        if let Some(admitted) = limits.admitted {
            if let Some(place) = limits.slot_place() {
                let holder = admitted.within.unwrap_or(id);
                *self.slots.entry(Arc::clone(&place)).or_default().held.entry(holder).or_default() += 1;
                self.members.insert(id, Member::Holding { place, holder });
            }
            return;
        }
        let turn = Turn { priority: limits.priority, share: limits.turns_with(), since, id };
        let waiting = Waiting { limits: limits.clone(), turn, stage: Stage::Slot, holder: None };
        self.members.insert(id, Member::Waiting(Box::new(waiting)));
        self.asks_for_slot(id, now);
    }

    fn waiting(&mut self, id: RunId) -> Option<&mut Waiting> {
        match self.members.get_mut(&id) {
            Some(Member::Waiting(waiting)) => Some(waiting),
            _ => None,
        }
    }

    fn asks_for_slot(&mut self, id: RunId, now: Stamp) {
        let Some(waiting) = self.waiting(id) else { return };
        let Some(place) = waiting.limits.slot_place() else { return self.asks_for_rate(id, now) };
        let turn = waiting.turn.clone();
        self.slots.entry(Arc::clone(&place)).or_default().line.insert(turn);
        if !self.goes_on_within(id, &place, now) {
            self.fill(&place, now);
        }
    }

    /// Lets one in that goes on in the slot of who waits for it, if that has one.
    fn goes_on_within(&mut self, id: RunId, place: &Arc<str>, now: Stamp) -> bool {
        let Some(Member::Waiting(waiting)) = self.members.get_mut(&id) else { return false };
        let holder = waiting.limits.around.iter().rev().find(|held| held.place == *place);
        let Some(holder) = holder.map(|held| held.run).filter(|_| self.is_open) else { return false };
        let Some(slots) = self.slots.get_mut(place) else { return false };
        let Some(count) = slots.held.get_mut(&holder) else { return false };
        *count += 1;
        slots.line.remove(&waiting.turn, false);
        waiting.holder = Some(holder);
        self.asks_for_rate(id, now);
        true
    }

    fn asks_for_rate(&mut self, id: RunId, now: Stamp) {
        let Some(waiting) = self.waiting(id) else { return };
        let Some((key, rate)) = rate_key(&waiting.limits).zip(waiting.limits.rate.as_ref()) else {
            waiting.stage = Stage::LetIn;
            return self.let_in.push(id);
        };
        waiting.stage = Stage::Rate;
        let (turn, every) = (waiting.turn.clone(), rate.every());
        let window = self.windows.entry(key.clone()).or_default();
        window.every = window.every.max(every);
        window.line.insert(turn);
        self.begin(&key, now);
    }

    /// Gives free slots to those whose turn it is.
    fn fill(&mut self, place: &Arc<str>, now: Stamp) {
        if !self.is_open {
            return;
        }
        loop {
            let Some(slots) = self.slots.get_mut(place) else { return };
            let Some(id) = slots.line.next(|_| true, 1, |_| true).pop() else { break };
            let Some(Member::Waiting(waiting)) = self.members.get_mut(&id) else { break };
            let limit = waiting.limits.slot.as_ref().map_or(usize::MAX, |slot| slot.limit as usize);
            if slots.held.len() >= limit {
                break;
            }
            slots.line.remove(&waiting.turn, true);
            slots.held.insert(id, 1);
            waiting.holder = Some(id);
            self.asks_for_rate(id, now);
        }
        if self.slots.get(place).is_some_and(|slots| slots.held.is_empty() && slots.line.len() == 0) {
            self.slots.remove(place);
        }
    }

    /// Lets as many begin as may now.
    fn begin(&mut self, key: &Digest, now: Stamp) {
        if !self.is_open {
            return;
        }
        let Some(window) = self.windows.get_mut(key) else { return };
        while window.begun.front().is_some_and(|at| at.plus(window.every) <= now) {
            window.begun.pop_front();
        }
        let mut timer = window.begun.back().map(|at| at.plus(window.every));
        while let Some(id) = window.line.next(|_| true, 1, |_| true).pop() {
            let Some(Member::Waiting(waiting)) = self.members.get_mut(&id) else { break };
            let Some(rate) = &waiting.limits.rate else { break };
            let (limit, every) = (rate.limit as usize, rate.every());
            let within = window.begun.len() - window.begun.partition_point(|at| at.plus(every) <= now);
            if within + window.pending >= limit {
                // What has not begun yet says when it has.
                let over = window.begun.len().checked_sub(limit.saturating_sub(window.pending));
                timer = over.and_then(|at| window.begun.get(at)).map(|at| at.plus(every)).or(timer);
                break;
            }
            window.line.remove(&waiting.turn, true);
            window.pending += 1;
            waiting.stage = Stage::LetIn;
            self.let_in.push(id);
        }
        if let Some(timer) = window.timer {
            self.timers.remove(&(timer, key.clone()));
        }
        window.timer = timer;
        match timer {
            Some(timer) => drop(self.timers.insert((timer, key.clone()))),
            None if window.pending == 0 && window.line.len() == 0 => drop(self.windows.remove(key)),
            None => {}
        }
    }

    /// It was written that a run was let in.
    pub(super) fn admitted(&mut self, id: RunId, at: Stamp, now: Stamp) {
        if self.is_let_in(id).is_none() {
            return;
        }
        let Some(Member::Waiting(waiting)) = self.members.remove(&id) else { return };
        if let (Some(place), Some(holder)) = (waiting.limits.slot_place(), waiting.holder) {
            self.members.insert(id, Member::Holding { place, holder });
        }
        if let Some(key) = rate_key(&waiting.limits) {
            if let Some(window) = self.windows.get_mut(&key) {
                window.pending = window.pending.saturating_sub(1);
                window.began(at);
            }
            self.begin(&key, now);
        }
    }

    /// A process before let one begin then.
    pub(super) fn began(&mut self, key: Digest, at: Stamp, every: Duration) {
        let window = self.windows.entry(key).or_default();
        window.every = window.every.max(every);
        window.began(at);
    }

    /// A run has ended, or never was.
    pub(super) fn leaves(&mut self, id: RunId, now: Stamp) {
        let (place, holder) = match self.members.remove(&id) {
            None => return,
            Some(Member::Holding { place, holder }) => (Some(place), Some(holder)),
            Some(Member::Waiting(waiting)) => {
                let place = waiting.limits.slot_place();
                match (waiting.stage, &place, rate_key(&waiting.limits)) {
                    (Stage::Slot, Some(place), _) => {
                        if let Some(slots) = self.slots.get_mut(place) {
                            slots.line.remove(&waiting.turn, false);
                        }
                    }
                    (stage, _, Some(key)) => {
                        if let Some(window) = self.windows.get_mut(&key) {
                            window.line.remove(&waiting.turn, false);
                            window.pending -= usize::from(stage == Stage::LetIn && window.pending > 0);
                        }
                        self.begin(&key, now);
                    }
                    _ => {}
                }
                (place, waiting.holder)
            }
        };
        let Some(place) = place else { return };
        if let (Some(slots), Some(holder)) = (self.slots.get_mut(&place), holder)
            && let Some(count) = slots.held.get_mut(&holder)
        {
            *count -= 1;
            if *count == 0 {
                slots.held.remove(&holder);
            }
        }
        self.fill(&place, now);
    }

    /// From now on runs are let in: all that a process before let in have joined.
    pub(super) fn opens(&mut self, now: Stamp) {
        self.is_open = true;
        let places: BTreeSet<Arc<str>> = self.slots.keys().cloned().collect();
        for place in &places {
            let ids: Vec<RunId> = self
                .slots
                .get(place)
                .map(|slots| slots.line.all().map(|(_, id)| id).collect())
                .unwrap_or_default();
            for id in ids {
                self.goes_on_within(id, place, now);
            }
        }
        places.iter().for_each(|place| self.fill(place, now));
        let keys: BTreeSet<Digest> = self.windows.keys().cloned().collect();
        keys.iter().for_each(|key| self.begin(key, now));
    }

    /// Lets those in that wait for time alone.
    pub(super) fn time_passes(&mut self, now: Stamp) {
        while let Some((at, key)) = self.timers.first().cloned()
            && at <= now
        {
            self.timers.remove(&(at, key.clone()));
            if let Some(window) = self.windows.get_mut(&key) {
                window.timer = None;
            }
            self.begin(&key, now);
        }
    }

    /// When time alone lets the next one in, or something can be forgotten.
    pub(super) fn due(&self) -> Option<Stamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whether it was let in, and in whose slot if not in its own.
    pub(super) fn is_let_in(&self, id: RunId) -> Option<Option<RunId>> {
        match self.members.get(&id) {
            Some(Member::Waiting(waiting)) if waiting.stage == Stage::LetIn => {
                Some(waiting.holder.filter(|holder| *holder != id))
            }
            _ => None,
        }
    }

    /// Those that were let in since this was asked last, and where each stands among those without room.
    pub(super) fn take_let_in(&mut self, now: Stamp) -> Vec<Turn> {
        let let_in = std::mem::take(&mut self.let_in);
        let turns = let_in.into_iter().filter_map(|id| match self.members.get(&id) {
            Some(Member::Waiting(waiting)) => Some(Turn { since: now, ..waiting.turn.clone() }),
            _ => None,
        });
        turns.collect()
    }

    /// What a run waits for at its gate, as the end of a sentence; `None` when it does not.
    pub(super) fn waits(&self, id: RunId) -> Option<String> {
        let Some(Member::Waiting(waiting)) = self.members.get(&id) else { return None };
        let before =
            |line: Option<&Fair>| line.and_then(|line| line.before(&waiting.turn)).unwrap_or_default();
        match waiting.stage {
            Stage::Slot => {
                let place = waiting.limits.slot_place()?;
                let before = before(self.slots.get(&place).map(|slots| &slots.line));
                Some(format!("{}; {before} before it", for_slot(waiting.limits.slot.as_ref()?)))
            }
            Stage::Rate => {
                let before = before(self.windows.get(&rate_key(&waiting.limits)?).map(|window| &window.line));
                Some(format!("{}; {before} before it", for_rate(waiting.limits.rate.as_ref()?)))
            }
            Stage::LetIn => None,
        }
    }
}
