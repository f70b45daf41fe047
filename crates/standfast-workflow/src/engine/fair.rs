//! Runs that wait for their turn: the most urgent first; among these each share in its turn, however many each has waiting; of a share
//! the run that was started first. Start-time fair queueing with equal weights (Goyal, Vin and Cheng 1996). Runs that share with nobody
//! in particular are one share.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use standfast_model::{Priority, Stamp};

use crate::run::RunId;

/// With whom turns are shared; `None` of all that have no key.
type Share = Option<Arc<str>>;

/// Where a run waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) priority: Priority,
    pub(super) share: Share,
    /// Since when.
    pub(super) since: Stamp,
    pub(super) id: RunId,
}

/// All that wait.
#[derive(Debug, Default)]
pub(super) struct Fair {
    levels: BTreeMap<Reverse<Priority>, Level>,
    count: usize,
}

/// Those of one priority.
#[derive(Debug, Default)]
struct Level {
    /// The turn of the share that was served last.
    now: u64,
    shares: BTreeMap<Share, Waiting>,
    /// The same, by turn.
    order: BTreeSet<(u64, Share)>,
    count: usize,
}

#[derive(Debug)]
struct Waiting {
    /// When it is the share's turn: one more each time.
    turn: u64,
    runs: BTreeSet<(Stamp, RunId)>,
}

impl Fair {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn insert(&mut self, turn: Turn) {
        let level = self.levels.entry(Reverse(turn.priority)).or_default();
        let next = level.now + 1;
        let order = &mut level.order;
        let waiting = level.shares.entry(turn.share).or_insert_with_key(|share| {
            order.insert((next, share.clone()));
            Waiting { turn: next, runs: BTreeSet::new() }
        });
        if waiting.runs.insert((turn.since, turn.id)) {
            level.count += 1;
            self.count += 1;
        }
    }

    /// Takes one out: since it is served, or since it leaves, which costs its share no turn. False when it does not wait.
    pub(super) fn remove(&mut self, turn: &Turn, is_served: bool) -> bool {
        let Some(level) = self.levels.get_mut(&Reverse(turn.priority)) else { return false };
        let Some(waiting) = level.shares.get_mut(&turn.share) else { return false };
        if !waiting.runs.remove(&(turn.since, turn.id)) {
            return false;
        }
        self.count -= 1;
        level.count -= 1;
        let is_empty = waiting.runs.is_empty();
        if is_empty || is_served {
            level.order.remove(&(waiting.turn, turn.share.clone()));
        }
        if is_served {
            level.now = level.now.max(waiting.turn);
            waiting.turn += 1;
        }
        match is_empty {
            true => drop(level.shares.remove(&turn.share)),
            false => drop(level.order.insert((waiting.turn, turn.share.clone()))),
        }
        true
    }

    /// Those whose turn is next, in order, of priorities that are meant.
    pub(super) fn next(
        &self,
        is_meant: impl Fn(Priority) -> bool,
        max: usize,
        is_free: impl Fn(&RunId) -> bool,
    ) -> Vec<RunId> {
        let mut found = Vec::new();
        for level in self.levels.iter().filter(|(priority, _)| is_meant(priority.0)).map(|(_, level)| level) {
            let mut fresh = level.order.iter().peekable();
            // Shares that had a turn here, and when they have the next.
            let mut again = BTreeMap::new();
            while found.len() < max {
                let first_again = again.first_key_value().map(|(at, _): (&(u64, &Share), _)| *at);
                let is_fresh = match (fresh.peek(), first_again) {
                    (Some((turn, share)), Some(again)) => (*turn, share) < again,
                    (fresh, _) => fresh.is_some(),
                };
                let taken = if is_fresh {
                    fresh.next().map(|(turn, share)| ((*turn, share), level.shares[share].runs.iter()))
                } else {
                    again.pop_first()
                };
                let Some(((turn, share), mut runs)) = taken else { break };
                let Some((_, id)) = runs.find(|(_, id)| is_free(id)) else { continue };
                found.push(*id);
                again.insert((turn + 1, share), runs);
            }
        }
        found
    }

    /// How many are served before one, if nobody else comes; `None` when it does not wait.
    pub(super) fn before(&self, turn: &Turn) -> Option<usize> {
        let level = self.levels.get(&Reverse(turn.priority))?;
        let own = level.shares.get(&turn.share)?;
        if !own.runs.contains(&(turn.since, turn.id)) {
            return None;
        }
        let urgent = self.levels.iter().take_while(|(priority, _)| priority.0 > turn.priority);
        let urgent: usize = urgent.map(|(_, level)| level.count).sum();
        let place = own.runs.range(..(turn.since, turn.id)).count();
        let at = own.turn + place as u64;
        let others = level.shares.iter().filter(|(share, _)| **share != turn.share);
        let others = others.map(|(share, waiting)| {
            let turns = (at + u64::from(*share < turn.share)).saturating_sub(waiting.turn);
            waiting.runs.len().min(usize::try_from(turns).unwrap_or(usize::MAX))
        });
        Some(urgent + place + others.sum::<usize>())
    }

    /// All of them, and since when each waits, in no order that matters.
    pub(super) fn all(&self) -> impl Iterator<Item = (Stamp, RunId)> + '_ {
        self.levels
            .values()
            .flat_map(|level| level.shares.values())
            .flat_map(|waiting| waiting.runs.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(priority: Priority, share: &str, since: u64) -> Turn {
        let share = (!share.is_empty()).then(|| share.into());
        let id = RunId::new(Stamp::EPOCH, u128::from(since));
        Turn { priority, share, since: Stamp::from_micros(since), id }
    }

    /// Serves all, and says who came when; each was told before how many come before it.
    fn served(fair: &mut Fair, mut all: Vec<Turn>) -> Vec<u64> {
        all.iter().for_each(|turn| fair.insert(turn.clone()));
        let ids = fair.next(|_| true, usize::MAX, |_| true);
        for turn in &all {
            let at = ids.iter().position(|id| *id == turn.id);
            assert_eq!(fair.before(turn), at, "{turn:?}");
        }
        let mut order = Vec::new();
        while let Some(id) = fair.next(|_| true, 1, |_| true).pop() {
            let at = all.iter().position(|turn| turn.id == id).unwrap();
            let turn = all.remove(at);
            assert!(fair.remove(&turn, true));
            order.push(turn);
        }
        assert_eq!((fair.len(), all.len()), (0, 0));
        assert_eq!(
            order.iter().map(|turn| turn.id).collect::<Vec<_>>(),
            ids,
            "looked at and done are the same"
        );
        order.iter().map(|turn| turn.since.as_micros()).collect()
    }

    #[test]
    fn the_urgent_come_first_and_shares_take_turns() {
        use Priority::{High, Low, Normal};
        let all = vec![
            turn(Normal, "a", 1),
            turn(Normal, "a", 2),
            turn(Normal, "a", 3),
            turn(Normal, "b", 4),
            turn(Low, "c", 5),
            turn(High, "d", 6),
            turn(Normal, "b", 7),
            turn(Normal, "", 8),
        ];
        assert_eq!(served(&mut Fair::default(), all), [6, 8, 1, 4, 2, 7, 3, 5]);
    }

    #[test]
    fn a_single_run_waits_for_one_of_ten_thousand_others_at_most() {
        let mut fair = Fair::default();
        (0..10_000).for_each(|n| fair.insert(turn(Priority::Normal, "crowd", n)));
        for n in 0..500 {
            assert!(fair.remove(&turn(Priority::Normal, "crowd", n), true));
        }
        let single = turn(Priority::Normal, "single", 20_000);
        fair.insert(single.clone());
        assert!(fair.before(&single).unwrap() <= 1);
    }

    #[test]
    fn who_leaves_costs_its_share_no_turn() {
        let mut fair = Fair::default();
        let all: Vec<Turn> = (0..10).map(|n| turn(Priority::Normal, "a", n)).collect();
        all.iter().for_each(|turn| fair.insert(turn.clone()));
        all[..9].iter().for_each(|turn| assert!(fair.remove(turn, false)));
        assert!(!fair.remove(&all[0], false), "it left before");
        fair.insert(turn(Priority::Normal, "b", 20));
        assert_eq!(fair.before(&all[9]), Some(0));
    }
}
