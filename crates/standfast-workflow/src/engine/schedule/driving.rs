//! Starts the runs of schedules of times.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use standfast_model::Stamp;
use tokio::sync::watch;

use super::super::{Engine, Refused};
use super::times::{Times, Turn, turn};
use super::{Kept, Standing};
use crate::program::{Overlap, Program, Schedule, after};
use crate::run::RunId;

/// After a failure to start a run it is tried again after this.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

impl Engine {
    /// Starts the runs of a schedule of times, as long as it is in force.
    pub(super) async fn keep_time(
        self,
        program: Arc<Program>,
        key: String,
        mut kept: Kept,
        shown: Arc<Mutex<Kept>>,
        mut ends: watch::Receiver<()>,
    ) {
        loop {
            let next = self.next_scheduled(&program, &kept);
            let next = tokio::select! {
                biased;
                _ = ends.changed() => return,
                next = next => next,
            };
            let kept_so = match next {
                Ok(next) => {
                    kept = next;
                    self.keep_schedule(&key, &kept).await.map_err(Refused::from)
                }
                Err(why) => Err(why),
            };
            match kept_so {
                Ok(()) => shown.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&kept),
                Err(Refused::Stopped(_)) => return,
                Err(why) => {
                    tracing::warn!(workflow = %program.name(), %why, "a run of a schedule was not started, and will be");
                    self.clock().sleep(TRY_AGAIN_AFTER).await;
                }
            }
        }
    }

    /// Waits for what is next of a schedule of times and does it; where it stands then. Cancel safe: what was done is found again
    /// by its key.
    async fn next_scheduled(&self, program: &Arc<Program>, kept: &Kept) -> Result<Kept, Refused> {
        let (Some(schedule), Some(times)) = (&program.schedule, Times::of(program)) else {
            return std::future::pending().await;
        };
        let standing = match (schedule, &kept.standing) {
            (Schedule::Every(_) | Schedule::Cron(..), Standing::Due(due)) => {
                return self.next_of_times(program, &times, kept, *due).await;
            }
            (Schedule::After(_), Standing::Due(Some(due))) => {
                self.until(*due).await;
                Standing::Running(self.start_due(program, kept, *due).await?)
            }
            (Schedule::After(period), Standing::Running(run)) => {
                let ended_at = self.ended_at(*run).await?;
                Standing::Due(Some(after(ended_at, *period).max(kept.since)))
            }
            _ => return std::future::pending().await,
        };
        Ok(Kept { standing, ..kept.clone() })
    }

    async fn next_of_times(
        &self,
        program: &Arc<Program>,
        times: &Times<'_>,
        kept: &Kept,
        due: Option<Stamp>,
    ) -> Result<Kept, Refused> {
        let is_due = async {
            match due {
                Some(due) => self.until(times.begins_at(due)).await,
                None => std::future::pending().await,
            }
        };
        if let Some(first) = kept.waiting.front() {
            if program.schedule_options.overlap == Overlap::CancelOther {
                self.cancel_for_next(kept.last).await?;
            }
            tokio::select! {
                biased;
                ended = self.until_ended(kept.last) => {
                    ended?;
                    let run = self.start_due(program, kept, *first).await?;
                    let mut next = Kept { last: Some(run), ..kept.clone() };
                    next.waiting.pop_front();
                    return Ok(next);
                }
                () = is_due => {}
            }
        } else {
            is_due.await;
        }
        let Some(due) = due else { return std::future::pending().await };
        self.turn_of(program, times, kept, due).await
    }

    /// What is done about a time that has come: it begins, waits or is left out.
    async fn turn_of(
        &self,
        program: &Arc<Program>,
        times: &Times<'_>,
        kept: &Kept,
        due: Stamp,
    ) -> Result<Kept, Refused> {
        let mut next = Kept { standing: Standing::Due(times.following(due)), ..kept.clone() };
        // The process before may have ended between the start and the note about it.
        let key = Self::start_key(program.name(), Some(&due_key(kept, due)))?.unwrap_or_default();
        if let Some(run) = self.journal().started_by(&key).await? {
            next.last = Some(run);
            return Ok(next);
        }
        let due_next = times.next(due, self.clock().now());
        if due_next != Some(due) {
            // It is written first, so that after a crash it is known which one was begun.
            let to = due_next.map_or_else(|| "never".to_owned(), |next| next.to_string());
            tracing::warn!(workflow = %program.name(), from = %due, %to, "times of a schedule were missed and are left out");
            return Ok(Kept { standing: Standing::Due(due_next), ..kept.clone() });
        }
        let goes_on = kept.last.is_some_and(|last| self.runs().is_awake(last).is_some());
        match turn(program.schedule_options.overlap, goes_on, kept.waiting.len()) {
            Turn::Start => next.last = Some(self.start_due(program, kept, due).await?),
            Turn::LeaveOut => {
                tracing::info!(workflow = %program.name(), %due, "a run of a schedule is left out: the one before goes on");
            }
            Turn::Wait => next.waiting.push_back(due),
            Turn::WaitAlone => next.waiting = [due].into(),
        }
        Ok(next)
    }

    async fn start_due(&self, program: &Arc<Program>, kept: &Kept, due: Stamp) -> Result<RunId, Refused> {
        let input = Arc::new(Value::Object(serde_json::Map::new()));
        self.start(program.name(), input, Some(&due_key(kept, due))).await
    }

    async fn until(&self, at: Stamp) {
        while self.clock().now() < at {
            self.clock().sleep_until(at).await;
        }
    }

    async fn until_ended(&self, run: Option<RunId>) -> Result<(), Refused> {
        match run {
            Some(run) => self.ended_at(run).await.map(drop),
            None => Ok(()),
        }
    }

    /// Waits for the end of a run. One of which nothing is known any more ended long ago.
    async fn ended_at(&self, run: RunId) -> Result<Stamp, Refused> {
        match self.wait(run).await {
            Ok(summary) => Ok(summary.changed_at),
            Err(Refused::NoRun(_)) => Ok(Stamp::EPOCH),
            Err(why) => Err(why),
        }
    }

    /// Once more changes nothing.
    async fn cancel_for_next(&self, run: Option<RunId>) -> Result<(), Refused> {
        let Some(run) = run else { return Ok(()) };
        match self.cancel(run, "the next run of its schedule is due").await {
            Ok(_) | Err(Refused::Ended(_) | Refused::NoRun(_)) => Ok(()),
            Err(why) => Err(why),
        }
    }
}

/// What names the start of the run that is due then.
fn due_key(kept: &Kept, due: Stamp) -> String {
    format!("schedule/{}/{}", kept.schedule, due.as_micros())
}
