use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::{Clock, with_causes};

/// A request to stop that many can see. It is level-triggered: once made, it stays.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// The one who may ask for the stop.
#[derive(Debug)]
pub struct StopSource(watch::Sender<bool>);

impl StopSource {
    /// A source and its first token.
    pub fn new() -> (Self, Stop) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Stop(receiver))
    }

    /// Asks all holders of a token to stop.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Returns once a stop was asked for, or its source is gone. Cancel safe.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        let _source_is_gone = receiver.wait_for(|asked| *asked).await.is_err();
    }

    /// Whether a stop was asked for.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow()
    }
}

/// What a task's error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnError {
    /// It is logged; the rest goes on.
    Log,
    /// The owner must stop: [`Tasks::failed`] returns it.
    Stop,
}

/// What happens to a task when its owner stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStop {
    /// It sees the stop token and ends by itself; it is waited for.
    Wait,
    /// It is dropped where it stands.
    Abort,
}

/// A task that ended with an error and whose owner must stop.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task `{task}` failed: {reason}")]
pub struct TaskFailure {
    /// The task's name.
    pub task: &'static str,
    /// The whole chain of its error.
    pub reason: String,
}

/// The tasks of one owner: each has a name and a kind, and all end when the owner does. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tasks(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    waited: Mutex<JoinSet<()>>,
    aborted: Mutex<JoinSet<()>>,
    source: StopSource,
    stop: Stop,
    failure: watch::Sender<Option<TaskFailure>>,
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

impl Tasks {
    /// No tasks yet.
    pub fn new() -> Self {
        let (source, stop) = StopSource::new();
        Self(Arc::new(Inner {
            waited: Mutex::default(),
            aborted: Mutex::default(),
            source,
            stop,
            failure: watch::Sender::new(None),
        }))
    }

    /// The token that these tasks see.
    pub fn stop(&self) -> Stop {
        self.0.stop.clone()
    }

    /// Starts a task that cannot fail.
    pub fn spawn(
        &self,
        name: &'static str,
        on_stop: OnStop,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        self.spawn_fallible(name, OnError::Log, on_stop, async move {
            work.await;
            Ok::<(), std::convert::Infallible>(())
        });
    }

    /// Starts a task that can fail.
    pub fn spawn_fallible<E: std::error::Error + Send>(
        &self,
        name: &'static str,
        on_error: OnError,
        on_stop: OnStop,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let failure = self.0.failure.clone();
        let task = async move {
            let Err(error) = work.await else { return };
            let reason = with_causes(&error);
            tracing::error!(task = name, %reason, "task failed");
            if on_error == OnError::Stop {
                failure.send_replace(Some(TaskFailure { task: name, reason }));
            }
        };
        let set = match on_stop {
            OnStop::Wait => &self.0.waited,
            OnStop::Abort => &self.0.aborted,
        };
        let mut set = set.lock().unwrap_or_else(PoisonError::into_inner);
        while set.try_join_next().is_some() {} // forget those that have ended, or a long life would collect them
        set.spawn(task);
    }

    /// Returns when a task whose error means stop has failed. Cancel safe.
    pub async fn failed(&self) -> TaskFailure {
        let mut failures = self.0.failure.subscribe();
        match failures.wait_for(Option::is_some).await {
            Ok(failure) => failure.clone().unwrap_or(TaskFailure { task: "unknown", reason: String::new() }),
            Err(_) => std::future::pending().await, // the sender lives as long as `self`
        }
    }

    /// Asks all tasks to stop, waits for those that end by themselves up to `limit`, and drops the rest. Returns how many of
    /// the waited-for had to be dropped.
    ///
    /// # Cancellation
    /// Not cancel safe: when dropped midway, all tasks are dropped with it.
    pub async fn shutdown(&self, clock: &Clock, limit: Duration) -> usize {
        self.0.source.stop();
        let mut aborted = taken(&self.0.aborted);
        aborted.shutdown().await;
        let mut waited = taken(&self.0.waited);
        let drain = async { while waited.join_next().await.is_some() {} };
        match clock.timeout(limit, drain).await {
            Ok(()) => 0,
            Err(_) => {
                let left = waited.len();
                waited.shutdown().await;
                left
            }
        }
    }
}

/// The tasks of a set, which is empty afterwards.
fn taken(set: &Mutex<JoinSet<()>>) -> JoinSet<()> {
    std::mem::take(&mut *set.lock().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stop_waits_for_those_that_end_by_themselves_and_drops_the_rest() {
        let (tasks, clock) = (Tasks::new(), Clock::system());
        let stop = tasks.stop();
        tasks.spawn("ends by itself", OnStop::Wait, async move { stop.requested().await });
        tasks.spawn("never ends", OnStop::Abort, std::future::pending());
        assert_eq!(tasks.shutdown(&clock, Duration::from_secs(1)).await, 0);
        tasks.spawn("is stuck", OnStop::Wait, std::future::pending());
        assert_eq!(tasks.shutdown(&clock, Duration::from_secs(1)).await, 1);
    }

    #[tokio::test]
    async fn an_error_that_means_stop_reaches_the_owner() {
        let tasks = Tasks::new();
        let error = std::io::Error::other("no disk");
        tasks.spawn_fallible("writer", OnError::Stop, OnStop::Wait, async move { Err(error) });
        assert_eq!(tasks.failed().await, TaskFailure { task: "writer", reason: "no disk".into() });
    }
}
