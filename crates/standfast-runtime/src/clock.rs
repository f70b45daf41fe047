use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use standfast_model::Stamp;
use tokio::time::Instant;

/// Where time comes from: wall time at the start of the process, carried on by the monotonic clock, so that stamps of one
/// process never go backwards. Under tokio's paused time it is simulated.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Stamp,
    started: Instant,
}

/// The time allowed was over before the work was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not done within {0:?}")]
pub struct Elapsed(pub Duration);

impl Clock {
    /// The machine's time.
    pub fn system() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::starting_at(Stamp::EPOCH.plus(since_epoch))
    }

    /// A clock that shows `origin` now: for tests under paused time.
    pub fn starting_at(origin: Stamp) -> Self {
        Self { origin, started: Instant::now() }
    }

    /// What time it is.
    pub fn now(&self) -> Stamp {
        self.origin.plus(self.started.elapsed())
    }

    /// Waits.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    /// Waits until `at`; not at all when that is past.
    pub async fn sleep_until(&self, at: Stamp) {
        tokio::time::sleep_until(self.started + at.since(self.origin)).await;
    }

    /// Runs `work` for at most `limit`; after that it is dropped.
    ///
    /// # Errors
    /// [`Elapsed`] when the limit passed first.
    pub async fn timeout<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Result<T, Elapsed> {
        tokio::time::timeout(limit, work).await.map_err(|_| Elapsed(limit))
    }

    /// Blocks the calling thread: only for threads that run no async code.
    pub fn block(&self, duration: Duration) {
        std::thread::sleep(duration);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn paused_time_moves_only_by_sleeping() {
        let clock = Clock::starting_at(Stamp::from_micros(5));
        clock.sleep(Duration::from_secs(3_600)).await;
        assert_eq!(clock.now(), Stamp::from_micros(3_600_000_005));
        let late = clock.timeout(Duration::from_millis(2), std::future::pending::<()>()).await;
        assert_eq!(late, Err(Elapsed(Duration::from_millis(2))));
    }
}
