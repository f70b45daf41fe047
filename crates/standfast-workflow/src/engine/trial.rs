//! Runs that may break the process: a run that does so each time it is taken up would break every process that comes, and with it all
//! other runs. It is found out and parked.
//!
//! **Flow.** A process that begins notes that it takes up what was left behind, and takes the note away when all of that has got on. One
//! that finds the note of another begins with care: a sixteenth of the runs at a time, then a sixteenth of those among whom it must be, down
//! to one. One with which alone the process ended [`ALONE_MAX`] times is parked.
//!
//! **Cost.** Two writes for each start of a process that finds anything to do; none while it goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use standfast_runtime::OnStop;
use standfast_store::{Batch, Scan, Space};

use super::drive::{Input, listens};
use super::journal::{Beside, Journal, Left, Sleeper};
use super::{Engine, JournalError, Refused};
use crate::decide::Cause;
use crate::program::WorkflowName;
use crate::run::{Event, Record, Run, RunId};

/// The note of a trial; by run: those that a message woke meanwhile.
const TRIALS: Space = Space::Table("workflow-trials");
const TRIAL_KEY: &[u8] = b"trial";
/// The format of the note.
const FORMAT: u32 = 1;
/// Into so many groups those are parted among whom one breaks the process.
const GROUPS: usize = 16;
/// How often a process may end with one run on trial alone before that is parked.
const ALONE_MAX: u32 = 3;
/// What has not broken the process for so long after it was taken up counts as harmless.
const TRIED_FOR: Duration = Duration::from_secs(2);
/// Most runs that are tried; more are taken up by themselves.
const SUSPECTS_MAX: usize = 10_000;

/// What a process noted when it took up what was left behind.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Trial {
    v: u32,
    /// Which runs it took up and did not see get on; all that were left behind when empty.
    group: Vec<RunId>,
    /// With which runs alone processes ended, and how often.
    alone: BTreeMap<RunId, u32>,
    /// Runs that a message woke meanwhile.
    #[serde(skip)]
    woken: BTreeSet<RunId>,
}

impl Trial {
    /// Which run is to be parked, now that the process that noted this has ended.
    fn culprit(&mut self) -> Option<RunId> {
        let [only] = self.group[..] else { return None };
        let count = self.alone.entry(only).or_default();
        *count += 1;
        (*count >= ALONE_MAX).then_some(only)
    }

    /// Those that are tried, in groups: first those among whom it must be.
    fn groups(&self, suspects: &BTreeSet<RunId>) -> Vec<Vec<RunId>> {
        let is_named = |id: &&RunId| self.group.contains(id) || self.woken.contains(id);
        let (first, others): (Vec<RunId>, Vec<RunId>) = suspects.iter().partition(is_named);
        let parted = |all: &[RunId]| -> Vec<Vec<RunId>> {
            all.chunks(all.len().div_ceil(GROUPS).max(1)).map(<[RunId]>::to_vec).collect()
        };
        [parted(&first), parted(&others)].concat()
    }
}

impl Journal {
    /// What a process noted that ended before all it took up had got on.
    pub(super) async fn trial(&self) -> Result<Option<Trial>, JournalError> {
        let page = self.scan(&Scan::of(TRIALS, "")).await?;
        let mut trial: Option<Trial> = None;
        let mut woken = BTreeSet::new();
        for entry in &page.entries {
            match <[u8; 16]>::try_from(&entry.key[..]) {
                Ok(id) => drop(woken.insert(RunId::from_bytes(id))),
                // One that cannot be read is of no use, and of no harm: care is taken.
                Err(_) => trial = Some(serde_json::from_slice(&entry.value).unwrap_or_default()),
            }
        }
        Ok(trial.map(|trial| Trial { woken, ..trial }))
    }

    async fn put_trial(&self, trial: &Trial) -> Result<(), JournalError> {
        let bytes = serde_json::to_vec(&Trial { v: FORMAT, ..trial.clone() });
        let bytes = bytes.map_err(|why| JournalError::Unreadable(why.to_string()))?;
        self.commit(Batch::new().put(&TRIALS, TRIAL_KEY, bytes)).await
    }

    /// A message wakes a run while others are on trial: it may be this one that breaks the process.
    pub(super) async fn put_woken(&self, id: RunId) -> Result<(), JournalError> {
        self.commit(Batch::new().put(&TRIALS, id.to_bytes().to_vec(), Vec::new())).await
    }

    async fn end_trial(&self) -> Result<(), JournalError> {
        loop {
            let page = self.scan(&Scan::of(TRIALS, "").limit(100)).await?;
            if page.entries.is_empty() {
                return Ok(());
            }
            let keys = page.entries.iter();
            self.commit(keys.fold(Batch::new(), |batch, entry| batch.delete(&TRIALS, entry.key.clone())))
                .await?;
        }
    }
}

/// What was left behind, before it is taken up.
pub(super) struct Takeover {
    /// What the process before noted, if it ended too early.
    trial: Option<Trial>,
    /// Which run is parked now.
    culprit: Option<RunId>,
    /// Which runs are tried.
    suspects: BTreeSet<RunId>,
}

impl Takeover {
    /// Those that wait in the store and are tried before they are woken.
    pub(super) fn suspects(&mut self, ids: impl IntoIterator<Item = RunId>) {
        let room = SUSPECTS_MAX.saturating_sub(self.suspects.len());
        self.suspects.extend(ids.into_iter().take(room));
    }
}

impl Engine {
    /// Begins to take up what was left behind. `is_any`: whether there is anything.
    pub(super) async fn take_over(&self, is_any: bool) -> Result<Takeover, JournalError> {
        let mut trial = self.journal().trial().await?;
        let culprit = trial.as_mut().and_then(Trial::culprit);
        if trial.is_none() && is_any {
            self.journal().put_trial(&Trial::default()).await?;
        }
        Ok(Takeover { trial, culprit, suspects: BTreeSet::new() })
    }

    /// What went on when the process before ended: parked, if it was that; put to sleep until it is tried, if care is needed.
    /// `None` when that is done; else it is to be taken up.
    pub(super) async fn with_care(
        &self,
        takeover: &mut Takeover,
        left: Left,
        workflow: &WorkflowName,
    ) -> Result<Option<Left>, JournalError> {
        let id = left.run.id;
        if takeover.culprit == Some(id) {
            let Left { run, last, kept, .. } = left;
            self.park(run, workflow, Some(last), kept.is_some()).await?;
            return Ok(None);
        }
        takeover.suspects([id]);
        if takeover.trial.is_none() || !takeover.suspects.contains(&id) {
            return Ok(Some(left));
        }
        let due = Some(left.run.changed_at);
        let sleeper = Sleeper::of(&left.run, workflow, Some(left.last), listens(&left.run), due);
        match self.journal().put_to_sleep(&sleeper).await {
            Ok(()) => {}
            Err(JournalError::RunTooLarge { .. }) => return Ok(Some(left)),
            Err(other) => return Err(other),
        }
        if sleeper.listens {
            self.events().may_want_any(id);
        }
        self.runs().falls_asleep(id, due, None);
        Ok(None)
    }

    /// Tries what was left behind, if that is needed. Until then time wakes none of it.
    pub(super) async fn begin_trial(&self, takeover: Takeover) -> Result<(), JournalError> {
        let Takeover { trial, culprit, mut suspects } = takeover;
        // One that sleeps may break the process as soon as it is woken.
        if let Some(id) = culprit
            && self.runs().is_awake(id) == Some(false)
            && let Some(sleeper) = self.journal().sleeper(id).await?
            && sleeper.run.parked.is_none()
        {
            self.park(sleeper.run, &sleeper.workflow, sleeper.last, true).await?;
            suspects.remove(&id);
        }
        if let Some(trial) = &trial {
            let known = self.runs();
            let is_there = |id: &&RunId| known.is_awake(**id).is_some() && Some(**id) != culprit;
            let named: Vec<RunId> =
                trial.group.iter().chain(&trial.woken).filter(is_there).copied().collect();
            drop(known);
            suspects.extend(named);
        }
        let engine = self.clone();
        let groups = match &trial {
            Some(trial) => {
                self.runs().hold_back(suspects.iter().copied());
                trial.groups(&suspects)
            }
            None => {
                let suspects: Vec<RunId> = suspects.into_iter().collect();
                self.runs().tries(&suspects);
                Vec::new()
            }
        };
        self.0.is_trying.store(true, Ordering::SeqCst);
        self.0.tasks.spawn("workflow trial", OnStop::Abort, async move {
            if let Err(why) = engine.try_out(trial.unwrap_or_default(), groups).await {
                tracing::warn!(%why, "the trial of runs that were left behind was not noted");
                if let why @ Refused::Stopped(_) = Refused::from(why) {
                    engine.stop(&why);
                }
            }
        });
        Ok(())
    }

    async fn try_out(&self, mut trial: Trial, groups: Vec<Vec<RunId>>) -> Result<(), JournalError> {
        let begun = self.clock().now();
        let is_careful = !groups.is_empty();
        if is_careful {
            let runs: usize = groups.iter().map(Vec::len).sum();
            tracing::warn!(runs, "the process before ended too early: runs are taken up a few at a time");
        } else {
            self.have_got_on().await;
        }
        for group in groups {
            trial.group.clone_from(&group);
            self.journal().put_trial(&trial).await?;
            self.runs().tries(&group);
            for id in &group {
                // One that a message woke meanwhile is awake, and one that ended is gone.
                if self.runs().is_awake(*id) == Some(true) || self.wake(*id, time()).is_err() {
                    self.runs().got_on(*id);
                }
            }
            self.have_got_on().await;
            for id in &group {
                trial.alone.remove(id);
            }
        }
        if is_careful {
            // What ends the process from now on is none of them alone.
            self.journal().put_trial(&Trial::default()).await?;
        }
        // Messages that were under way when the process before ended wake runs in the first moments.
        self.clock().sleep_until(begun.plus(TRIED_FOR)).await;
        self.0.is_trying.store(false, Ordering::SeqCst);
        self.runs().tries(&[]);
        self.journal().end_trial().await
    }

    /// Waits until all that are tried have got on, or were given time enough.
    async fn have_got_on(&self) {
        let until = self.clock().now().plus(TRIED_FOR);
        loop {
            let (left, all_got_on) = self.runs().on_trial();
            if left == 0 {
                return;
            }
            tokio::select! {
                biased;
                () = all_got_on.notified() => {}
                () = self.clock().sleep_until(until) => return,
            }
        }
    }

    /// Whether runs are tried at the moment: a note of that is in the store.
    pub(super) fn is_trying(&self) -> bool {
        self.0.is_trying.load(Ordering::SeqCst)
    }

    /// Nothing is asked for a run: it has got on, unless something is due soon.
    pub(super) fn may_have_got_on(&self, run: &Run) {
        if self.is_trying() && run.due().is_none_or(|due| due > self.clock().now().plus(TRIED_FOR)) {
            self.runs().got_on(run.id);
        }
    }

    /// From now on it is not driven on, until somebody resumes it.
    async fn park(
        &self,
        mut run: Run,
        workflow: &WorkflowName,
        last: Option<u64>,
        has_slept: bool,
    ) -> Result<(), JournalError> {
        let now = self.clock().now();
        let why: Arc<str> =
            format!("the process ended {ALONE_MAX} times while this run alone was taken up").into();
        tracing::error!(run = %run.id, %why, "the run is parked");
        let event = Event::Parked { why: Arc::clone(&why) };
        let record = Record { run: run.id, number: run.records, at: now, events: vec![event] };
        let told = self.lifecycle_of(&run, workflow, &record);
        run.apply(&record);
        let sleeper = Sleeper::of(&run, workflow, last, false, None);
        let beside = Beside { sleeper: Some(sleeper), has_slept, begun: None };
        self.journal().append(&run, workflow, record, last, beside).await?;
        self.tell_lifecycle(told);
        self.events().forget(run.id);
        let mut runs = self.runs();
        runs.forget(run.id);
        runs.falls_asleep(run.id, None, None);
        runs.is_parked(run.id, now, why);
        Ok(())
    }
}

fn time() -> Input {
    Input { cause: Cause::Time, told: None }
}

#[cfg(test)]
mod tests {
    use standfast_model::Stamp;

    use super::*;

    fn run(number: u128) -> RunId {
        RunId::new(Stamp::EPOCH, number)
    }

    /// Begins processes until none ends any more: one that takes up `bad` does.
    fn begins(all: &BTreeSet<RunId>, bad: RunId) -> (usize, Vec<RunId>) {
        let mut noted: Option<Trial> = None;
        let mut parked = Vec::new();
        for begun in 1.. {
            parked.extend(noted.as_mut().and_then(Trial::culprit));
            let left: BTreeSet<RunId> = all.iter().filter(|id| !parked.contains(id)).copied().collect();
            let Some(trial) = &mut noted else {
                noted = Some(Trial::default());
                continue;
            };
            let Some(group) = trial.groups(&left).into_iter().find(|group| group.contains(&bad)) else {
                return (begun, parked);
            };
            trial.group = group;
        }
        unreachable!("it is found")
    }

    #[test]
    fn the_one_that_breaks_the_process_is_found_among_many_and_no_other_is_parked() {
        for (count, most) in [(1, 5), (16, 5), (100, 6), (10_000, 8)] {
            let all: BTreeSet<RunId> = (0..count).map(run).collect();
            for bad in [run(0), run(count / 2), run(count - 1)] {
                let (begun, parked) = begins(&all, bad);
                assert_eq!(parked, [bad]);
                assert!(begun <= most, "{count} runs: {begun} processes");
            }
        }
    }

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let trial = Trial {
            v: FORMAT,
            group: vec![run(1)],
            alone: BTreeMap::from([(run(1), ALONE_MAX - 1)]),
            ..Trial::default()
        };
        let text = serde_json::to_string(&trial).unwrap();
        let mut read: Trial = serde_json::from_str(&text).unwrap();
        assert_eq!(read.culprit(), Some(run(1)), "{text}");
    }
}
