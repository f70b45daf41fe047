//! The node's half of mutual care: when the agent is gone, start another one and hand it the sockets.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use standfast_platform::local::{AgentClient, respawn_agent};
use standfast_runtime::{Backoff, Clock, OpenFiles, RealDisk, Rng, Stop};

use crate::wiring::Wiring;

/// How long a new agent may take to answer before another one is started. A second one does no harm: it finds the folder locked
/// and ends. Without it, the stack has no agent for this long if the first one fails.
const START_MAX: Duration = Duration::from_secs(2);
/// Between starts that failed.
const AGAIN: Backoff = Backoff { base: Duration::from_millis(20), cap: Duration::from_secs(5) };

/// Keeps an agent alive until the stop.
///
/// An agent that takes everything down stops this node first, so the stop is seen before the agent is missed.
pub(crate) async fn guard(
    agent: AgentClient,
    wiring: Arc<Wiring>,
    open_files: OpenFiles,
    clock: Clock,
    mut rng: Rng,
    stop: Stop,
) {
    let state_dir: PathBuf = agent.state_dir().to_path_buf();
    let mut failures = 0;
    loop {
        tokio::select! {
            biased;
            () = stop.requested() => return,
            () = agent.gone() => {}
        }
        // Whoever takes the stack away removes its folder last: nothing is left to keep.
        if stop.is_requested() || !state_dir.exists() {
            return;
        }
        tracing::warn!("the agent is gone; starting another one");
        match respawn_agent(&state_dir, &RealDisk) {
            // Services get the limit from it that they had before.
            Ok(pid) => pid.into_iter().for_each(|pid| open_files.restore_for(pid)),
            Err(error) => tracing::error!(%error, "cannot start an agent"),
        }
        match agent.wait_until_up(START_MAX).await {
            Ok(info) => {
                failures = 0;
                match wiring.return_sockets().await {
                    Ok(()) => tracing::info!(pid = info.process.pid, "a new agent holds the sockets"),
                    Err(error) => tracing::error!(%error, "the new agent did not take the sockets"),
                }
            }
            Err(error) => {
                tracing::error!(%error, "the new agent does not answer");
                clock.sleep(AGAIN.wait(failures, &mut rng)).await;
                failures = failures.saturating_add(1);
            }
        }
    }
}
