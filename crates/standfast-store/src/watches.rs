use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::watch;

use crate::{Space, Version, Write};

/// Who waits for which keys. Watches of the same prefix share one channel; their number is bounded by the program, since users
/// cannot open one.
#[derive(Debug, Default)]
pub(crate) struct Watches(Mutex<BTreeMap<Space, Prefixes>>);

type Prefixes = BTreeMap<Box<[u8]>, watch::Sender<Version>>;

impl Watches {
    /// A receiver for keys that begin with `prefix`, which shows `now` until one is written.
    pub(crate) fn subscribe(&self, space: &Space, prefix: &[u8], now: Version) -> watch::Receiver<Version> {
        let mut spaces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for prefixes in spaces.values_mut() {
            prefixes.retain(|_, sender| !sender.is_closed());
        }
        let prefixes = spaces.entry(space.clone()).or_default();
        prefixes.entry(prefix.into()).or_insert_with(|| watch::Sender::new(now)).subscribe()
    }

    /// Wakes those who wait for what `writes` wrote.
    pub(crate) fn wake(&self, writes: &[Write], version: Version) {
        let spaces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for write in writes {
            let Some(prefixes) = spaces.get(write.space()) else { continue };
            for (prefix, sender) in prefixes {
                if write.key().starts_with(prefix) {
                    sender.send_if_modified(|seen| {
                        let is_new = *seen < version;
                        *seen = version.max(*seen);
                        is_new
                    });
                }
            }
        }
    }
}
