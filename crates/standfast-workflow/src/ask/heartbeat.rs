//! Signs of life of what a step asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use standfast_model::Stamp;

/// When there was a sign of life last. Clones share it.
#[derive(Debug, Clone)]
pub struct Heartbeat(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    every: Duration,
    /// In microseconds.
    last: AtomicU64,
    /// How many know why nothing can be heard now.
    excused: AtomicUsize,
}

/// As long as this lives nothing can be heard: what is asked has not been sent.
#[derive(Debug)]
pub struct Excused(Heartbeat);

impl Heartbeat {
    pub(crate) fn new(every: Duration, now: Stamp) -> Self {
        let last = AtomicU64::new(now.as_micros());
        Self(Arc::new(Inner { every, last, excused: AtomicUsize::new(0) }))
    }

    /// How long there may be none.
    pub(crate) fn every(&self) -> Duration {
        self.0.every
    }

    /// Whether both are of the same step.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// There was one.
    pub fn beat(&self, now: Stamp) {
        self.0.last.fetch_max(now.as_micros(), Ordering::SeqCst);
    }

    /// Silence means nothing until that is dropped; then it is counted from the next [`Heartbeat::beat`] on, which should follow.
    #[must_use]
    pub fn excuse(&self) -> Excused {
        self.0.excused.fetch_add(1, Ordering::SeqCst);
        Excused(self.clone())
    }

    /// When it has been silent for too long, if nothing is heard until then.
    pub(crate) fn due(&self, now: Stamp) -> Stamp {
        let since = match self.0.excused.load(Ordering::SeqCst) {
            0 => Stamp::from_micros(self.0.last.load(Ordering::SeqCst)),
            _ => now,
        };
        since.plus(self.0.every)
    }
}

impl Drop for Excused {
    fn drop(&mut self) {
        self.0.0.excused.fetch_sub(1, Ordering::SeqCst);
    }
}
