use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use standfast_model::Stamp;
use standfast_runtime::Clock;
use tokio::sync::watch;

use crate::watches::Watches;
use crate::{Health, Version};

/// What a store has done since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EmbeddedStats {
    /// Batches that were answered from a transaction, those included whose conditions did not hold.
    pub batches: u64,
    /// Transactions that wrote, and so fsyncs of the log.
    pub commits: u64,
    /// Checkpoints, each of which is another fsync or two.
    pub checkpoints: u64,
}

/// What the store's handle and its threads both see.
#[derive(Debug)]
pub(super) struct Shared {
    clock: Clock,
    /// The latest stamp that a caller or the committer has seen, in microseconds: what was expired for one is for all.
    now: AtomicU64,
    /// The version of the last batch that is durable.
    version: AtomicU64,
    /// What the batches in the queue weigh together.
    pub(super) queued_bytes: AtomicUsize,
    pub(super) batches: AtomicU64,
    pub(super) commits: AtomicU64,
    pub(super) checkpoints: AtomicU64,
    pub(super) watches: Watches,
    pub(super) health: watch::Sender<Health>,
}

impl Shared {
    pub(super) fn new(clock: Clock, version: Version) -> Self {
        Self {
            clock,
            now: AtomicU64::new(0),
            version: AtomicU64::new(version.0),
            queued_bytes: AtomicUsize::new(0),
            batches: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            watches: Watches::default(),
            health: watch::Sender::new(Health::Serving),
        }
    }

    /// The store's time, moved on by the caller's clock. Threads use [`Shared::now_seen`], so that simulated time, which only
    /// tasks see, holds for them too.
    pub(super) fn now(&self) -> Stamp {
        let now = self.clock.now().as_micros();
        Stamp::from_micros(self.now.fetch_max(now, Ordering::SeqCst).max(now))
    }

    /// The store's time as callers have moved it.
    pub(super) fn now_seen(&self) -> Stamp {
        Stamp::from_micros(self.now.load(Ordering::SeqCst))
    }

    pub(super) fn version(&self) -> Version {
        Version(self.version.load(Ordering::SeqCst))
    }

    pub(super) fn set_version(&self, version: Version) {
        self.version.store(version.0, Ordering::SeqCst);
    }

    pub(super) fn stats(&self) -> EmbeddedStats {
        EmbeddedStats {
            batches: self.batches.load(Ordering::Relaxed),
            commits: self.commits.load(Ordering::Relaxed),
            checkpoints: self.checkpoints.load(Ordering::Relaxed),
        }
    }

    /// Why it has stopped, if it has.
    pub(super) fn stopped(&self) -> Option<Arc<str>> {
        match &*self.health.borrow() {
            Health::Stopped(reason) => Some(Arc::clone(reason)),
            Health::Serving | Health::Full => None,
        }
    }

    /// Stops the store for good; the first reason stays. Returns the reason that holds.
    pub(super) fn stop(&self, reason: &str) -> Arc<str> {
        let reason: Arc<str> = reason.into();
        let is_first = self.health.send_if_modified(|health| {
            let is_first = !matches!(health, Health::Stopped(_));
            if is_first {
                *health = Health::Stopped(Arc::clone(&reason));
            }
            is_first
        });
        if is_first {
            tracing::error!(%reason, "the store has stopped; it must be opened again");
        }
        self.stopped().unwrap_or(reason)
    }

    /// Notes whether there is room on the disk.
    pub(super) fn set_full(&self, is_full: bool) {
        let changed = self.health.send_if_modified(|health| {
            let wanted = if is_full { Health::Full } else { Health::Serving };
            let changes = !matches!(health, Health::Stopped(_)) && *health != wanted;
            if changes {
                *health = wanted;
            }
            changes
        });
        match (changed, is_full) {
            (false, _) => {}
            (true, true) => {
                tracing::error!("the store's disk is full: writes are refused until there is room")
            }
            (true, false) => tracing::warn!("the store's disk has room again"),
        }
    }
}
