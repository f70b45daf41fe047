//! Learning that something was written, without looking.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use tokio::io::unix::AsyncFd;

use crate::local::process::readable;

/// Tells of writes to the files of a folder. Without inotify (its instances are limited per user) it never does, and one has to look.
#[derive(Debug)]
pub(crate) struct News(Option<AsyncFd<OwnedFd>>);

impl News {
    pub(crate) fn of(folder: &Path) -> Self {
        let watched = || {
            let events = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
            inotify::add_watch(&events, folder, WatchFlags::MODIFY)?;
            readable(events)
        };
        Self(
            watched()
                .inspect_err(
                    |error: &io::Error| tracing::warn!(%error, "output is looked for, not waited for"),
                )
                .ok(),
        )
    }

    pub(crate) fn is_told(&self) -> bool {
        self.0.is_some()
    }

    /// Returns once something was written since the last time. Cancel safe.
    pub(crate) async fn arrived(&self) {
        let Some(events) = &self.0 else { return std::future::pending().await };
        if let Ok(mut ready) = events.readable().await {
            // What was written where does not matter: all spools are looked at. So the events are only taken away.
            let mut taken = [0_u8; 4_096];
            while rustix::io::read(events.get_ref(), &mut taken).is_ok_and(|count| count > 0) {}
            ready.clear_ready();
        }
    }
}
