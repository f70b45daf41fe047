//! Runs that have ended are gone on from, by other runs that name them.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::oneshot;

use super::drive::Input;
use super::refused::check_limits;
use super::{Engine, Refused, Summary};
use crate::decide::Cause;
use crate::run::{
    Again, Record, Run, RunId, SlotHeld, Status, before_fault, before_task, tasks, undone_since,
};

/// Tasks that are named to who asks for one that was never begun.
const NAMED_MAX: usize = 20;

impl Engine {
    /// Goes on with a faulted run from the task that failed: another run that takes what had finished as it is, and asks again by
    /// the same keys. A second retry of a run is the same run. One that is parked is resumed.
    ///
    /// # Errors
    /// See [`Refused`]; [`Refused::Unfit`] when it is not faulted, or what happened to it is not kept any more.
    pub async fn retry(&self, id: RunId) -> Result<RunId, Refused> {
        self.retry_within(id, &[]).await
    }

    async fn retry_within(&self, id: RunId, slots: &[SlotHeld]) -> Result<RunId, Refused> {
        self.check_driven()?;
        if let Some(again) = self.journal().retried_by(id).await? {
            return Ok(again);
        }
        // One that is parked has not ended: it goes on itself.
        if let Ok((run, _)) = self.look(id).await
            && run.parked.is_some()
        {
            return self.resume(id).await.map(|run| run.id);
        }
        let (summary, records) = self.ended_history(id).await?;
        if summary.status != Status::Faulted {
            let why = format!("the run {id} is {}: only a faulted one is retried", summary.status.word());
            return Err(Refused::Unfit(why));
        }
        let run = before_fault(&records).ok_or_else(|| {
            Refused::Unfit(format!("the run {id} failed before its first task: start another"))
        })?;
        if run.is_undoing() {
            return Err(Refused::Unfit(format!("what the run {id} had done was undone: start another")));
        }
        let failed = summary.problem.and_then(|problem| problem.instance).unwrap_or_default();
        let mut run = run.again(id, Again::Retry, &failed, self.clock().now());
        if let Some(limits) = &mut run.limits {
            limits.around = slots.to_vec();
        }
        // Its key names this run from now on, unless it was forgotten meanwhile and names yet another.
        if let Some(key) = &run.key
            && self.journal().started_by(key).await?.is_some_and(|named| named != id)
        {
            run.key = None;
        }
        match self.go_on(run).await {
            // Somebody else retried it in the same moment.
            Err(Refused::StartedBefore) => self.journal().retried_by(id).await?.ok_or(Refused::StartedBefore),
            other => other,
        }
    }

    /// Which run retries this one, if one does.
    ///
    /// # Errors
    /// When that cannot be read.
    pub async fn retried_by(&self, id: RunId) -> Result<Option<RunId>, Refused> {
        Ok(self.journal().retried_by(id).await?)
    }

    /// Begins another run from a task of one that has ended, by its place in the document: what was done before the task was begun
    /// for the last time is taken as it is, everything from there on is done again by new keys. `input` is given to the task in
    /// place of what it was given.
    ///
    /// # Errors
    /// See [`Refused`]; [`Refused::Unfit`] when it has not ended, never came to the task, or what happened to it is not kept any more.
    pub async fn redo(
        &self,
        id: RunId,
        task: &str,
        input: Option<Arc<Value>>,
        key: Option<&str>,
    ) -> Result<RunId, Refused> {
        self.check_driven()?;
        let (summary, records) = self.ended_history(id).await?;
        let Some(run) = before_task(&records, task) else {
            let known: Vec<&str> = tasks(&records).into_iter().take(NAMED_MAX).collect();
            let why = format!("the run {id} never began `{task}`; it began: {}", known.join(", "));
            return Err(Refused::Unfit(why));
        };
        if let Some(undone) = undone_since(&run, &records) {
            let why = format!("`{undone}`, which comes before `{task}`, was undone: redo it from there");
            return Err(Refused::Unfit(why));
        }
        let mut run = run.again(id, Again::Redo, task, self.clock().now());
        if let Some(input) = input {
            check_limits("the input", &input)?;
            if !run.give(&records, task, &input) {
                let why = format!("`{task}` is a branch, which is given what all are: redo it from the fork");
                return Err(Refused::Unfit(why));
            }
        }
        run.key = Self::start_key(&summary.workflow, key)?;
        if let Some(key) = &run.key
            && let Some(known) = self.journal().started_by(key).await?
        {
            return Ok(known);
        }
        let key = run.key.clone();
        match (self.go_on(run).await, key) {
            (Err(Refused::StartedBefore), Some(key)) => {
                self.journal().started_by(&key).await?.ok_or(Refused::StartedBefore)
            }
            (done, _) => done,
        }
    }

    /// How a run ended, and all that happened to it.
    pub(super) async fn ended_history(&self, id: RunId) -> Result<(Summary, Vec<Record>), Refused> {
        if self.runs().is_awake(id).is_some() {
            return Err(Refused::Unfit(format!("the run {id} has not ended: cancel it first")));
        }
        let (summary, last) = self.journal().ended(id).await?.ok_or_else(|| self.not_there(id))?;
        let records = self.journal().history(last).await?;
        if records.first().is_none_or(|record| record.number != 0) {
            let why = format!("what happened to the run {id} is not kept any more: start another");
            return Err(Refused::Unfit(why));
        }
        Ok((summary, records))
    }

    /// Begins a run that goes on from another; done when that is written.
    async fn go_on(&self, run: Run) -> Result<RunId, Refused> {
        let program = self.program_of(&run).await?;
        let id = self.new_id();
        let (told, answer) = oneshot::channel();
        let is_crowded = self.room() == 0;
        let driving = self.take_up(Run::new(id), program, u64::MAX).crowded(is_crowded);
        self.spawn(driving, Input { cause: Cause::Again { run: Arc::new(run) }, told: Some(told) });
        answer.await.unwrap_or_else(|_| Err(self.why_stopped())).map(|_| id)
    }

    /// What a retried run had failed by in another run is retried too, so that it is not done from its beginning again; returns the
    /// run to wait for.
    pub(super) async fn retried_within(
        &self,
        holder: &Run,
        id: RunId,
        slots: &[SlotHeld],
    ) -> Result<RunId, Refused> {
        let mut id = id;
        while holder.origin.as_ref().is_some_and(|origin| origin.by == Again::Retry)
            && let Some((summary, _)) = self.journal().ended(id).await?
            && summary.status == Status::Faulted
            && summary.changed_at <= holder.started_at
        {
            id = self.retry_within(id, slots).await?;
        }
        Ok(id)
    }
}
