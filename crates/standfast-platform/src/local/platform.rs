use std::time::Duration;

use async_trait::async_trait;
use standfast_runtime::{Backoff, Clock, OnStop, Rng, Stop, Tasks};
use tokio::sync::watch;

use super::client::{AgentClient, AgentError};
use crate::{Applied, Inventory, Platform, PlatformError, Wanted};

/// Between attempts to reach an agent that is being replaced.
const RECONNECT: Backoff = Backoff { base: Duration::from_millis(5), cap: Duration::from_millis(250) };

/// This machine as a [`Platform`]: the agent does it, whichever runs now.
#[derive(Debug, Clone)]
pub struct LocalPlatform {
    client: AgentClient,
    changes: watch::Receiver<u64>,
}

impl LocalPlatform {
    /// The platform that an agent keeps. A task of `tasks` waits for its changes; there need not be an agent yet.
    pub fn connect(client: AgentClient, clock: Clock, rng: Rng, tasks: &Tasks) -> Self {
        let (sender, changes) = watch::channel(0);
        tasks.spawn(
            "platform changes",
            OnStop::Abort,
            follow(client.clone(), clock, rng, sender, tasks.stop()),
        );
        Self { client, changes }
    }

    /// The agent itself.
    pub fn agent(&self) -> &AgentClient {
        &self.client
    }
}

/// Wakes those who wait whenever the agent's inventory changes, and once when another agent answers: its numbers begin
/// higher.
async fn follow(client: AgentClient, clock: Clock, mut rng: Rng, sender: watch::Sender<u64>, stop: Stop) {
    let mut failures = 0;
    while !stop.is_requested() {
        let seen = *sender.borrow();
        match client.change_after(seen).await {
            Ok(change) => {
                failures = 0;
                sender.send_if_modified(|held| std::mem::replace(held, change) != change);
            }
            Err(error) => {
                tracing::debug!(%error, "the agent does not answer");
                clock.sleep(RECONNECT.wait(failures, &mut rng)).await;
                failures = failures.saturating_add(1);
            }
        }
    }
}

#[async_trait]
impl Platform for LocalPlatform {
    async fn observe(&self) -> Result<Inventory, PlatformError> {
        Ok(self.client.inventory().await?)
    }

    async fn apply(&self, wanted: &Wanted) -> Result<Applied, PlatformError> {
        self.client.apply(wanted).await.map_err(|error| match error {
            AgentError::Stale { held } => PlatformError::Stale { sent: wanted.generation, held },
            other => other.into(),
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}
