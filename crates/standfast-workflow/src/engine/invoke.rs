use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;

use crate::ask::{Answer, Asked};
use crate::run::{Problem, RunId, ScopeId};

/// Something that stands outside for a step and outlives the process that asked for it: a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    /// What it is called outside.
    pub id: String,
    /// For which attempt of which step.
    pub step: (RunId, ScopeId),
}

/// What became of something that a step left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is as it should be for good.
    Done,
    /// It is looked at again after so long.
    Later(Duration),
}

/// What carries requests of runs outside: to services, by processes.
///
/// What an implementation promises: it asks at most once each time it is called, ends by the deadline, and leaves nothing behind
/// when its future is dropped, but what [`Invoke::left`] tells of. It may be called again for the same key: after a crash nobody
/// knows whether it was asked before.
#[async_trait]
pub trait Invoke: Send + Sync + Debug {
    /// Asks, and returns what was answered.
    ///
    /// # Errors
    /// Why there is no answer, as the task's problem.
    async fn invoke(&self, asked: &Asked) -> Result<Answer, Problem>;

    /// How many requests wait for their turn since there is no room for them where they go: new runs would wait behind them.
    fn waiting(&self) -> usize {
        0
    }

    /// What stands outside for steps, whether they go on or not.
    ///
    /// # Errors
    /// When that cannot be found out now.
    async fn left(&self) -> Result<Vec<Left>, Problem> {
        Ok(Vec::new())
    }

    /// The step of this is over, and that is written: ends it, and clears it away if its task says so. Twice is as good as once.
    ///
    /// # Errors
    /// When it cannot be done now.
    async fn settle(&self, left: &Left) -> Result<Settled, Problem> {
        let _nothing_is_left = left;
        Ok(Settled::Done)
    }
}
