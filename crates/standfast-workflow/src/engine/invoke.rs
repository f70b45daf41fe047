use std::fmt::Debug;

use async_trait::async_trait;

use crate::ask::{Answer, Asked};
use crate::run::Problem;

/// What carries requests of runs outside: to services, by processes.
///
/// What an implementation promises: it asks at most once each time it is called, ends by the deadline, and leaves nothing behind
/// when its future is dropped. It may be called again for the same key: after a crash nobody knows whether it was asked before.
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
}
