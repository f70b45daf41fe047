//! A run for a task of another run.

use std::sync::Arc;
use std::time::Duration;

use super::locks::WaitsWithin;
use super::{Engine, Holder, Refused};
use crate::ask::{Answer, RunRequest};
use crate::run::{Digest, Problem, Run, RunId, Standard, Status};

/// Between attempts to begin a run for a task while the disk is full.
const FULL_AGAIN: Duration = Duration::from_secs(1);

impl Engine {
    /// Runs a workflow for a task of another run: the task's key is the start's, so that asking twice starts one.
    pub(super) async fn run_within(
        &self,
        request: &RunRequest,
        key: &str,
        run: &Run,
    ) -> Result<Answer, Problem> {
        let failed =
            |why: Refused| Standard::Runtime.problem(format!("the workflow {}: {why}", request.workflow));
        let program = match self.program_named(&request.workflow) {
            Ok(program) => program,
            Err(unknown) => {
                let kept = self.unless_stopped(self.program_kept(&request.workflow).await).await;
                kept.map_err(failed)?.ok_or_else(|| failed(unknown))?
            }
        };
        let holder = run.id;
        let key = format!("{}.{}", run.keys_of(), Digest::of(key.as_bytes()));
        let may_nest = self.runs().may_nest(holder);
        may_nest.map_err(|why| failed(Refused::Wrong(format!("it is not run: {why}"))))?;
        // Only who waits for it is held up by it.
        let held = run.limits.as_deref().filter(|_| request.awaited).map(|limits| limits.held(holder));
        let slots = held.unwrap_or_default();
        // A run that has begun waits for room, also for what it consists of.
        let begun = loop {
            let begun = async {
                let (program, input) = (Arc::clone(&program), Arc::clone(&request.input));
                let around = Holder { run: holder, slots: slots.clone() };
                let id = self.start_program(program, input, Some(&key), Some(around)).await?;
                self.retried_within(run, id, &slots).await
            };
            match begun.await {
                Err(Refused::Full | Refused::Delayed | Refused::Busy(_)) => {
                    self.clock().sleep(FULL_AGAIN).await
                }
                begun => break begun,
            }
        };
        let id = self.unless_stopped(begun).await.map_err(failed)?;
        // If it was begun by a process before, nothing is known yet of whose it is.
        self.runs().nests(id, holder);
        if !request.awaited {
            return Ok(Answer::Begun);
        }
        let patient = Patient::new(self, holder);
        let waits = WaitsWithin::new(self, holder, id);
        let ended = self.wait(id).await;
        drop((patient, waits));
        let summary = self.unless_stopped(ended).await.map_err(failed)?;
        match (summary.status, summary.problem) {
            (Status::Completed, _) => Ok(Answer::Run(summary.output.unwrap_or_default())),
            (_, Some(problem)) => Err(Problem { instance: None, ..problem }),
            (status, None) => Err(failed(Refused::Wrong(format!("it is {}", status.word())))),
        }
    }

    /// What became of something, unless the process stops or runs are not driven any more: that is no problem of a task.
    pub(super) async fn unless_stopped<T>(&self, found: Result<T, Refused>) -> Result<T, Refused> {
        match found {
            Err(Refused::Stopped(_)) => std::future::pending().await,
            found => found,
        }
    }
}

/// A run that waits for another, as long as this lives.
pub(super) struct Patient<'e> {
    engine: &'e Engine,
    run: RunId,
}

impl<'e> Patient<'e> {
    pub(super) fn new(engine: &'e Engine, run: RunId) -> Self {
        engine.runs().is_patient(run);
        engine.0.changed.notify_one();
        Self { engine, run }
    }
}

impl Drop for Patient<'_> {
    fn drop(&mut self) {
        self.engine.runs().is_impatient(self.run);
    }
}
