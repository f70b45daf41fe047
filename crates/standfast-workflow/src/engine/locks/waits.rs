//! Who waits for whom, and who waits in vain.

use std::collections::BTreeSet;

use standfast_model::Stamp;

use super::super::Engine;
use super::name_of;
use crate::run::RunId;

/// A task that waits for a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockWait {
    /// Which run waits.
    pub run: RunId,
    /// Since when.
    pub since: Stamp,
    /// For which lock; `None`: for the end of a run that it began.
    pub lock: Option<String>,
    /// Who holds it, or the run that is waited for.
    pub held_by: Vec<RunId>,
}

/// A run that waits for the end of another, as long as this lives.
pub(in crate::engine) struct WaitsWithin<'e> {
    engine: &'e Engine,
    runs: (RunId, RunId),
}

impl<'e> WaitsWithin<'e> {
    pub(in crate::engine) fn new(engine: &'e Engine, run: RunId, other: RunId) -> Self {
        let now = engine.clock().now();
        engine.0.locks.state().within.entry((run, other)).or_insert((now, 0)).1 += 1;
        Self { engine, runs: (run, other) }
    }
}

impl Drop for WaitsWithin<'_> {
    fn drop(&mut self) {
        let mut state = self.engine.0.locks.state();
        if let Some((_, count)) = state.within.get_mut(&self.runs) {
            *count -= 1;
            if *count == 0 {
                state.within.remove(&self.runs);
            }
        }
    }
}

impl Engine {
    /// Tasks that wait for locks, and runs that wait for others.
    pub(in crate::engine) fn lock_waits(&self) -> Vec<LockWait> {
        let state = self.0.locks.state();
        let all = state.waiting.iter().flat_map(|(place, waiting)| {
            waiting.iter().map(|((since, run, _), awaited)| LockWait {
                run: *run,
                since: *since,
                lock: Some(name_of(place)),
                held_by: awaited.holders.clone(),
            })
        });
        let within = state.within.iter().map(|((run, other), (since, _))| LockWait {
            run: *run,
            since: *since,
            lock: None,
            held_by: vec![*other],
        });
        all.chain(within).collect()
    }

    /// For which locks a run waits.
    pub fn waits_for_locks(&self, run: RunId) -> Vec<LockWait> {
        self.lock_waits().into_iter().filter(|wait| wait.run == run && wait.lock.is_some()).collect()
    }
}

/// Those that wait for each other: none of them can go on unless one is given up. Who waits for a lock that somebody holds who does
/// not wait is none of them.
pub(in crate::engine) fn deadlocked(waits: Vec<LockWait>) -> Vec<LockWait> {
    let mut waiting: BTreeSet<RunId> = waits.iter().map(|wait| wait.run).collect();
    loop {
        let can_go_on = |wait: &LockWait| {
            wait.held_by.is_empty() || wait.held_by.iter().any(|holder| !waiting.contains(holder))
        };
        let live: Vec<RunId> = waits
            .iter()
            .filter(|wait| waiting.contains(&wait.run) && can_go_on(wait))
            .map(|wait| wait.run)
            .collect();
        if live.is_empty() {
            break;
        }
        waiting.retain(|run| !live.contains(run));
    }
    waits.into_iter().filter(|wait| waiting.contains(&wait.run)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(all: &[(u64, &str, &[u64])]) -> Vec<LockWait> {
        let id = |number: u64| RunId::new(Stamp::from_micros(number * 1_000), 0);
        all.iter()
            .map(|(run, lock, holders)| LockWait {
                run: id(*run),
                since: Stamp::EPOCH,
                lock: Some((*lock).to_owned()),
                held_by: holders.iter().map(|holder| id(*holder)).collect(),
            })
            .collect()
    }

    #[test]
    fn runs_that_wait_for_each_other_are_found_and_no_others() {
        let count = |all: &[(u64, &str, &[u64])]| deadlocked(waits(all)).len();
        assert_eq!(count(&[(1, "a", &[2]), (2, "b", &[1])]), 2);
        assert_eq!(count(&[(1, "a", &[2]), (2, "b", &[3]), (3, "c", &[1]), (4, "a", &[2])]), 4);
        // 2 goes on, and with it all.
        assert_eq!(count(&[(1, "a", &[2]), (3, "c", &[1])]), 0);
        // One of two that hold it does not wait.
        assert_eq!(count(&[(1, "a", &[2, 5]), (2, "b", &[1])]), 0);
        assert_eq!(count(&[(1, "a", &[2, 3]), (2, "b", &[1]), (3, "b", &[1])]), 3);
    }
}
