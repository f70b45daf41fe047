//! Runs in memory: how they are taken up, told what happens, put to sleep and let go.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use standfast_model::Stamp;
use standfast_runtime::OnStop;
use tokio::sync::{mpsc, oneshot};

use super::drive::{Driving, Input};
use super::journal::Sleeper;
use super::runs::{self, Awake, Crowd};
use super::{Engine, Refused, Summary};
use crate::decide::Cause;
use crate::program::{Program, WorkflowName};
use crate::run::{Run, RunId};

/// Most that may happen to a run while it is busy with something that happened before.
const INBOX_MAX: usize = 256;
/// How long who tells a run something waits for room on the disk.
pub(super) const FULL_PATIENCE: Duration = Duration::from_secs(1);

/// Tells how a run is, once what it was told is written.
pub(super) type Answer = oneshot::Receiver<Result<Run, Refused>>;

impl Engine {
    /// Puts a run among those in memory; `first_unkept` is where the first of its records is that is not in a snapshot.
    pub(super) fn take_up(&self, run: Run, program: Arc<Program>, first_unkept: u64) -> Driving {
        let (inbox, messages) = mpsc::channel(INBOX_MAX);
        let first_unkept = Arc::new(AtomicU64::new(first_unkept));
        self.runs().wakes(run.id, Awake { inbox, first_unkept: Arc::clone(&first_unkept) });
        Driving::new(self.clone(), program, run, first_unkept, messages)
    }

    pub(super) fn spawn(&self, driving: Driving, input: Input) {
        self.0.tasks.spawn("workflow run", OnStop::Abort, driving.drive(input));
    }

    /// Tells a run what happens to it, and waits until that is written.
    pub(super) async fn tell(&self, id: RunId, cause: Cause) -> Result<Run, Refused> {
        let answer = self.send(id, cause).await?;
        self.answered(id, answer).await
    }

    /// Tells a run what happens to it.
    pub(super) async fn send(&self, id: RunId, cause: Cause) -> Result<Answer, Refused> {
        let (told, answer) = oneshot::channel();
        let input = Input { cause, told: Some(told) };
        let sent = self.runs().send(id, input);
        match sent {
            runs::Sent::Awake => {}
            runs::Sent::Full => return Err(Refused::Busy(id)),
            runs::Sent::Asleep(input) => self.wake(id, input)?,
            runs::Sent::Unknown => {
                return Err(match self.0.journal.ended(id).await? {
                    Some(_) => Refused::Ended(id),
                    None => self.not_there(id),
                });
            }
        }
        Ok(answer)
    }

    /// How the run is when what it was told is written.
    pub(super) async fn answered(&self, id: RunId, answer: Answer) -> Result<Run, Refused> {
        self.answered_within(id, answer, FULL_PATIENCE).await
    }

    /// The same; of a store without room it is waited for so long.
    pub(super) async fn answered_within(
        &self,
        id: RunId,
        answer: Answer,
        patience: Duration,
    ) -> Result<Run, Refused> {
        tokio::select! {
            biased;
            answer = answer => match answer {
                Ok(told) => told,
                // It ended before it read this, or it is not driven any more.
                Err(_) => Err(self.why_gone(id).await),
            },
            () = self.journal().is_full_for(patience) => Err(Refused::Delayed),
        }
    }

    /// Has a run read back and driven on with what happens to it. A task of its own does that: a caller who goes away would leave
    /// a run that neither sleeps nor is driven.
    pub(super) fn wake(&self, id: RunId, input: Input) -> Result<(), Refused> {
        let (inbox, messages) = mpsc::channel(INBOX_MAX);
        let first_unkept = Arc::new(AtomicU64::new(u64::MAX));
        let awake = Awake { inbox, first_unkept: Arc::clone(&first_unkept) };
        // It is read when nobody else can: a snapshot that somebody else goes on from would be an old one.
        let claim = self.runs().claim(id, awake, input);
        let input = match claim {
            runs::Claim::Taken(input) => input,
            runs::Claim::Sent(runs::Sent::Awake) => return Ok(()),
            runs::Claim::Sent(runs::Sent::Unknown) => return Err(Refused::NoRun(id)),
            runs::Claim::Sent(_) => return Err(Refused::Busy(id)),
        };
        let engine = self.clone();
        self.0.tasks.spawn("workflow run", OnStop::Abort, async move {
            let read_back = async {
                let sleeper = engine.0.journal.sleeper(id).await?.ok_or(Refused::NoRun(id))?;
                let program = engine.program_of(&sleeper.run).await?;
                if engine.is_trying()
                    && matches!(input.cause, Cause::Event { .. } | Cause::Kept { .. } | Cause::Signal { .. })
                {
                    engine.0.journal.put_woken(id).await?;
                }
                Ok((sleeper, program))
            };
            match read_back.await {
                Ok((Sleeper { run, last, due, .. }, program)) => {
                    let driving = Driving::new(engine, program, run, first_unkept, messages);
                    let kept = driving.records();
                    driving.read_back(last, Some(kept)).woken(due).drive(input).await;
                }
                Err(why) => {
                    engine.gave_up(id, &why);
                    if let Some(told) = input.told {
                        let _nobody_waits = told.send(Err(why));
                    }
                }
            }
        });
        Ok(())
    }

    /// Where a run that goes on stands, and where its last record is.
    pub(super) async fn look(&self, id: RunId) -> Result<(Run, Option<u64>), Refused> {
        let is_awake = match self.runs().is_awake(id) {
            Some(is_awake) => is_awake,
            None => return Err(Refused::NoRun(id)),
        };
        if is_awake {
            let run = self.tell(id, Cause::Continue).await?;
            let last = self.runs().last_of(id);
            return Ok((run, last));
        }
        match self.0.journal.sleeper(id).await? {
            Some(sleeper) => Ok((sleeper.run, sleeper.last)),
            None => Err(Refused::NoRun(id)),
        }
    }

    pub(super) fn falls_asleep(
        &self,
        id: RunId,
        due: Option<Stamp>,
        crowd: Option<Crowd>,
        inbox: &mut mpsc::Receiver<Input>,
    ) -> bool {
        let mut runs = self.runs();
        // Who sends holds this lock: what is not in the inbox now never will be.
        if !inbox.is_empty() {
            return false;
        }
        runs.falls_asleep(id, due, crowd);
        drop(runs);
        self.0.changed.notify_one();
        true
    }

    /// Whether a run is let in now, and in whose slot if not in its own; else it waits for that.
    pub(super) fn is_let_in(&self, run: &Run) -> Option<Option<RunId>> {
        let is_let_in = self.runs().is_let_in(run, self.0.clock.now());
        self.0.changed.notify_one();
        is_let_in
    }

    /// It was written that a run was let in.
    pub(super) fn admitted(&self, run: RunId, at: Stamp) {
        let (mut runs, now) = (self.runs(), self.0.clock.now());
        runs.gate.admitted(run, at, now);
        runs.let_in(now);
        drop(runs);
        self.0.changed.notify_one();
    }

    /// A run that is not let in sleeps.
    pub(super) fn queues(&self, run: &Run, inbox: &mpsc::Receiver<Input>) -> bool {
        let mut runs = self.runs();
        if !inbox.is_empty() {
            return false;
        }
        runs.queues(run, self.0.clock.now());
        drop(runs);
        self.0.changed.notify_one();
        true
    }

    /// What a run waits for before it begins, as the end of a sentence; `None` when it does not.
    pub fn waits_in_line(&self, id: RunId) -> Option<String> {
        self.runs().waits_in_line(id)
    }

    /// A run sleeps and waits for nothing, unless somebody woke it this very moment.
    pub(super) fn is_endless(&self, id: RunId, since: Stamp) {
        let mut runs = self.runs();
        if runs.is_without_limit(id) {
            runs.is_endless(id, since);
        }
    }

    /// A run that is parked sleeps.
    pub(super) fn is_parked(&self, id: RunId, since: Stamp, why: &Arc<str>) {
        self.runs().is_parked(id, since, Arc::clone(why));
    }

    /// What a run waits for is found out anew.
    pub(super) fn forget_waits(&self, id: RunId) {
        self.events().forget(id);
    }

    pub(super) fn wrote(&self, id: RunId, at: u64) {
        self.runs().wrote(id, at);
    }

    pub(super) fn ended(&self, run: &Run, workflow: &WorkflowName) {
        self.events().forget(run.id);
        self.runs().ended(run.id, &Summary::of(run, workflow), self.0.clock.now());
        self.0.changed.notify_one();
    }

    /// A run that cannot be written is not driven on: what is true of it is in the journal, and the next process tries again.
    pub(super) fn gave_up(&self, id: RunId, why: &Refused) {
        match why {
            // First this, so that who finds the run gone finds out why.
            Refused::Stopped(_) => self.stop(why),
            Refused::StartedBefore | Refused::NoRun(_) | Refused::Full => {}
            _ => tracing::error!(run = %id, %why, "the run is not driven on"),
        }
        self.events().forget(id);
        match why {
            Refused::StartedBefore | Refused::NoRun(_) | Refused::Full => {
                let mut runs = self.runs();
                runs.leaves_gate(id, self.0.clock.now());
                runs.forget(id);
            }
            Refused::Stopped(_) => self.runs().gives_up(id),
            why => {
                let (mut runs, now) = (self.runs(), self.0.clock.now());
                runs.gives_up(id);
                runs.is_broken(id, now, why.to_string());
            }
        }
        self.0.changed.notify_one();
    }

    /// From now on nothing is driven, nothing asked and nothing promised.
    pub(super) fn stop(&self, why: &Refused) {
        let is_first = self.0.stopped.send_if_modified(|stopped| {
            let is_first = stopped.is_none();
            stopped.get_or_insert_with(|| why.clone());
            is_first
        });
        if is_first {
            tracing::error!(%why, "no run is driven on");
        }
    }

    /// Why a run that was driven does not answer.
    pub(super) async fn why_gone(&self, id: RunId) -> Refused {
        // First this: what the store of a stopped engine shows is no promise.
        if let Err(why) = self.check_driven() {
            return why;
        }
        match self.0.journal.ended(id).await {
            Ok(Some(_)) => Refused::Ended(id),
            Ok(None) if self.runs().is_awake(id).is_some() => self.why_stopped(),
            Ok(None) => Refused::Failed("see the log".to_owned()),
            Err(why) => why.into(),
        }
    }

    /// Why a run is not known: it never was, or nothing is driven any more.
    pub(super) fn not_there(&self, id: RunId) -> Refused {
        self.0.stopped.borrow().clone().unwrap_or(Refused::NoRun(id))
    }

    pub(super) fn why_stopped(&self) -> Refused {
        self.0.stopped.borrow().clone().unwrap_or_else(|| Refused::Stopped("the process stops".to_owned()))
    }

    /// Nothing is promised once nothing is driven any more.
    pub(super) fn check_driven(&self) -> Result<(), Refused> {
        match &*self.0.stopped.borrow() {
            Some(why) => Err(why.clone()),
            None => Ok(()),
        }
    }
}
