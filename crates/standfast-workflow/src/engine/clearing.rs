//! Clears up what steps left outside and no process of ours holds: containers. It is looked for when something is written of a run
//! whose document has such steps, also by the process before. What belongs to runs that this store does not know is left alone: it is
//! somebody else's.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{Engine, Left, Refused, Settled};
use crate::run::{Problem, RunId, ScopeId};

/// From one look to the next, at least.
const PAUSE: Duration = Duration::from_millis(200);
/// The same when the last look failed.
const FAILED_PAUSE: Duration = Duration::from_secs(10);
/// How long after something was written it is looked again, besides at once: who was given up that moment may have begun something
/// that is only there a little later.
const LOOKS_AGAIN: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(30)];
/// Most that are settled at a time.
const SETTLED_MAX: usize = 16;

impl Engine {
    /// Clears up for as long as the engine goes on.
    pub(super) async fn clear_up(&self) {
        self.0.clearing.notified().await;
        let mut looks = LOOKS_AGAIN.into_iter();
        loop {
            let next = match self.clear_once(false).await {
                Ok(next) => next,
                Err(why) => {
                    tracing::warn!(%why, "what steps left behind is looked for again later");
                    Some(FAILED_PAUSE)
                }
            };
            self.0.clock.sleep(PAUSE).await;
            let again = looks.next();
            let next = again.into_iter().chain(next).min();
            tokio::select! {
                biased;
                () = self.0.clearing.notified() => looks = LOOKS_AGAIN.into_iter(),
                () = self.0.clock.sleep(next.unwrap_or_default()), if next.is_some() => {}
            }
        }
    }

    /// Ends and clears away what steps left outside that are over, for who ends before that is done by itself; with `all` what steps
    /// of this store have that go on, too, since nobody will come back to it. What is to be removed some time later stays, as does what
    /// nobody waits for.
    pub async fn clear_up_now(&self, all: bool) {
        let may_be_left = self.definitions().programs().any(|program| program.runs_containers());
        if may_be_left && let Err(why) = self.clear_once(all).await {
            tracing::warn!(%why, "what steps left behind cannot be cleared up");
        }
    }

    /// Something was written of a run that may have left something outside.
    pub(super) fn clears_up(&self) {
        self.0.clearing.notify_one();
    }

    /// Settles what can be; after so long there is something to be done again, if there is.
    async fn clear_once(&self, all: bool) -> Result<Option<Duration>, Problem> {
        let mut left = self.0.invoke.left().await?.into_iter();
        let (mut settling, mut next) = (JoinSet::new(), None::<Duration>);
        loop {
            while settling.len() < SETTLED_MAX
                && let Some(one) = left.next()
            {
                let engine = self.clone();
                settling.spawn(async move { engine.settle(&one, all).await });
            }
            match settling.join_next().await {
                None => return Ok(next),
                Some(Ok(Ok(Settled::Done))) => {}
                Some(Ok(Ok(Settled::Later(after)))) => next = Some(next.unwrap_or(after).min(after)),
                Some(Ok(Err(why))) => {
                    tracing::warn!(%why, "what a step left behind is not cleared up yet");
                    next = Some(next.unwrap_or(FAILED_PAUSE).min(FAILED_PAUSE));
                }
                Some(Err(why)) => tracing::error!(%why, "what clears up behind a step broke"),
            }
        }
    }

    async fn settle(&self, left: &Left, all: bool) -> Result<Settled, Problem> {
        match self.is_over(left.step, all).await {
            Ok(true) => self.0.invoke.settle(left).await,
            Ok(false) => Ok(Settled::Done),
            // Who is read or driven back this moment is looked at again.
            Err(_) => Ok(Settled::Later(FAILED_PAUSE)),
        }
    }

    /// Whether the attempt of a step is over, as it is written, or of `all` of a run. A run that is not known here is somebody else's,
    /// who knows.
    async fn is_over(&self, (run, scope): (RunId, ScopeId), all: bool) -> Result<bool, Refused> {
        match self.look(run).await {
            Ok((run, _)) => Ok(all || !run.asking().any(|asking| asking == scope)),
            // What is not driven has ended, this very moment perhaps, or never was.
            Err(Refused::NoRun(_) | Refused::Ended(_)) => Ok(self.0.journal.ended(run).await?.is_some()),
            Err(why) => Err(why),
        }
    }
}
