//! Which runs there are: those in memory, those that sleep, when these are due, and who waits for an end.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use standfast_model::Stamp;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};

use super::drive::Input;
use super::journal::Summary;
use crate::run::RunId;

/// Most runs that are woken at once; more follow as these have done what was due.
const WAKE_MAX: usize = 256;

/// Most runs around a run, each of which a task of the next began.
const NESTED_MAX: usize = 64;
/// Most runs that go on at a time and that one run began, or those that it began.
const FAMILY_MAX: usize = 10_000;

/// A run in memory.
#[derive(Debug)]
pub(super) struct Awake {
    pub(super) inbox: mpsc::Sender<Input>,
    /// Where the first of its records is that is not in a snapshot.
    pub(super) first_unkept: Arc<AtomicU64>,
}

/// All runs that have not ended.
#[derive(Debug, Default)]
pub(super) struct Runs {
    awake: HashMap<RunId, Awake>,
    /// Those that sleep, and when each is due.
    asleep: HashMap<RunId, Option<Stamp>>,
    due: BTreeSet<(Stamp, RunId)>,
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
        self.stops_sleeping(id);
        self.awake.insert(id, awake);
    }

    /// Takes it from those that sleep, for who will read it back: what is sent to it waits for that. When it does not sleep, the
    /// message goes where it belongs.
    pub(super) fn claim(&mut self, id: RunId, awake: Awake, input: Input) -> Claim {
        if self.stops_sleeping(id) {
            self.awake.insert(id, awake);
            return Claim::Taken(input);
        }
        Claim::Sent(self.send(id, input))
    }

    /// True when it slept until now.
    fn stops_sleeping(&mut self, id: RunId) -> bool {
        let Some(due) = self.asleep.remove(&id) else { return false };
        if let Some(due) = due {
            self.due.remove(&(due, id));
        }
        true
    }

    pub(super) fn falls_asleep(&mut self, id: RunId, due: Option<Stamp>) {
        self.awake.remove(&id);
        self.last.remove(&id);
        self.asleep.insert(id, due);
        if let Some(due) = due {
            self.due.insert((due, id));
        }
    }

    pub(super) fn wrote(&mut self, id: RunId, at: u64) {
        self.last.insert(id, at);
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
        self.stops_sleeping(id);
        self.awake.remove(&id);
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

    pub(super) fn ended(&mut self, id: RunId, summary: &Summary) {
        let waiting = self.waiting.remove(&id).unwrap_or_default();
        self.forget(id);
        for waits in waiting {
            let _gone_away = waits.send(summary.clone());
        }
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
        let room = self.room(awake_max).min(WAKE_MAX);
        let due = self.due.iter().take_while(|(at, _)| *at <= now).take(room);
        let due: Vec<RunId> = due.map(|(_, id)| *id).collect();
        let next = self.due.iter().nth(due.len()).map(|(at, _)| *at);
        // Without room the next is woken when another run ends or falls asleep.
        (due, next.filter(|_| room > 0))
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
