//! The way to the loop from elsewhere in the process.

use std::sync::Arc;
use std::time::Duration;

use standfast_model::{Generation, Stack};
use standfast_runtime::Clock;
use tokio::sync::{mpsc, oneshot, watch};

use crate::blueprint::BlueprintId;
use crate::error::{NotReady, RequestError};
use crate::plan::{Report, RestartTarget};
use crate::status::{PlanId, PlanPreview, Status};
use crate::tables::Event;

/// Who asks for a change, and why: both are kept in the history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// Who.
    pub author: String,
    /// Why, in a sentence; made up from the steps when absent.
    pub reason: Option<String>,
}

/// A change that is decided and durable. Carrying it out goes on; the status shows how far it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The blueprint that holds.
    pub blueprint: BlueprintId,
    /// Its number.
    pub generation: Generation,
    /// What it does first.
    pub report: Report,
    /// Whether it differs from what held before.
    pub changed: bool,
    /// Why the platform has not taken the order yet; it is given again.
    pub problem: Option<String>,
}

pub(crate) type Reply<T> = oneshot::Sender<Result<T, RequestError>>;

/// What the loop can be asked.
#[derive(Debug)]
pub(crate) enum Command {
    Preview { stack: Arc<Stack>, reply: Reply<PlanPreview> },
    Apply { stack: Arc<Stack>, plan: Option<PlanId>, request: Request, reply: Reply<Done> },
    Restart { target: RestartTarget, request: Request, reply: Reply<Done> },
    Down { request: Request, reply: Reply<Done> },
    Events { limit: usize, reply: Reply<Vec<Event>> },
    StackOf { generation: Generation, reply: Reply<Option<Stack>> },
}

/// Asks a control loop. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) status: watch::Receiver<Arc<Status>>,
    pub(crate) clock: Clock,
}

impl Handle {
    /// How all is.
    pub fn status(&self) -> Arc<Status> {
        self.status.borrow().clone()
    }

    /// Changes whenever the status says something else.
    pub fn changes(&self) -> watch::Receiver<Arc<Status>> {
        self.status.clone()
    }

    /// What applying a stack would do.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn plan_for(&self, stack: Arc<Stack>) -> Result<PlanPreview, RequestError> {
        self.ask(|reply| Command::Preview { stack, reply }).await
    }

    /// Makes a stack what shall run, by the plan that was shown. The decision is durable when this returns.
    ///
    /// # Errors
    /// [`RequestError::WorldMoved`] when that plan is not what would be done now.
    ///
    /// # Cancellation
    /// Dropping it does not take the request back.
    pub async fn apply(
        &self,
        stack: Arc<Stack>,
        plan: PlanId,
        request: Request,
    ) -> Result<Done, RequestError> {
        self.ask(|reply| Command::Apply { stack, plan: Some(plan), request, reply }).await
    }

    /// Makes a stack what shall run, whatever that takes: for callers that need not show a plan.
    ///
    /// # Errors
    /// See [`RequestError`].
    ///
    /// # Cancellation
    /// Dropping it does not take the request back.
    pub async fn apply_unseen(&self, stack: Arc<Stack>, request: Request) -> Result<Done, RequestError> {
        self.ask(|reply| Command::Apply { stack, plan: None, request, reply }).await
    }

    /// Exchanges replicas for new ones of the same revision, by the update rules of their service.
    ///
    /// # Errors
    /// [`RequestError::Unknown`] when there is no such service or replica.
    ///
    /// # Cancellation
    /// Dropping it does not take the request back.
    pub async fn restart(&self, target: RestartTarget, request: Request) -> Result<Done, RequestError> {
        self.ask(|reply| Command::Restart { target, request, reply }).await
    }

    /// Stops everything.
    ///
    /// # Errors
    /// See [`RequestError`].
    ///
    /// # Cancellation
    /// Dropping it does not take the request back.
    pub async fn down(&self, request: Request) -> Result<Done, RequestError> {
        self.ask(|reply| Command::Down { request, reply }).await
    }

    /// What was decided, the newest first.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn events(&self, limit: usize) -> Result<Vec<Event>, RequestError> {
        self.ask(|reply| Command::Events { limit, reply }).await
    }

    /// The stack that came with the blueprint of a generation; see [`Event::is_new_stack`].
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn stack_of(&self, generation: Generation) -> Result<Option<Stack>, RequestError> {
        self.ask(|reply| Command::StackOf { generation, reply }).await
    }

    /// Returns once all services are as wanted.
    ///
    /// # Errors
    /// [`NotReady`] after `limit`, or as soon as waiting is of no use.
    pub async fn wait_ready(&self, limit: Duration) -> Result<Arc<Status>, NotReady> {
        let mut changes = self.status.clone();
        let settled = |status: &Arc<Status>| status.is_ready() || !status.given_up().is_empty();
        let waited = self
            .clock
            .timeout(limit, changes.wait_for(settled))
            .await
            .map(|seen| seen.map(|s| Arc::clone(&s)));
        match waited {
            Ok(Ok(status)) if status.is_ready() => Ok(status),
            Ok(Ok(status)) => Err(NotReady::GivenUp { reasons: status.given_up() }),
            Ok(Err(_)) => Err(NotReady::Stopped),
            Err(_) => {
                let status = self.status();
                let mut missing = status.missing();
                missing.extend(status.problem.clone());
                Err(NotReady::TimedOut { missing })
            }
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T, RequestError> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(command(reply)).await.map_err(|_| RequestError::Stopped)?;
        answer.await.map_err(|_| RequestError::Stopped)?
    }
}
