//! The key by which faults of single requests are signed: read from its file, and again when that changes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use standfast_gateway::{BadKey, FaultKey};
use standfast_model::Stack;
use standfast_runtime::{Clock, Disk, RealDisk, Stop};
use tokio::sync::watch;

/// From one look at the file to the next.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FaultKeyError {
    /// Its file cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no key.
    #[error("{} is no key", .path.display())]
    Bad {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: BadKey,
    },
}

/// Reads a key.
///
/// # Errors
/// See [`FaultKeyError`].
pub fn read_fault_key(path: &Path) -> Result<FaultKey, FaultKeyError> {
    let bytes =
        RealDisk.read(path).map_err(|source| FaultKeyError::Read { path: path.to_owned(), source })?;
    FaultKey::new(&bytes).map_err(|source| FaultKeyError::Bad { path: path.to_owned(), source })
}

/// Renews the key when the stack or its file changes. Of a key that cannot be used nobody is obeyed: whoever takes it away wants that.
pub(crate) async fn follow(
    mut stacks: watch::Receiver<Option<Arc<Stack>>>,
    keys: watch::Sender<Option<Arc<FaultKey>>>,
    clock: Clock,
    stop: Stop,
) {
    let mut last = None;
    loop {
        let path = stacks.borrow_and_update().as_ref().and_then(|stack| stack.edge.fault_key_file.clone());
        let current = path.as_ref().map(|path| (path.clone(), RealDisk.read(path).ok()));
        if current != last {
            let key = path.as_deref().map(read_fault_key).transpose();
            if let Err(error) = &key {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::error!(%error, cause, "no signed fault is obeyed");
            }
            keys.send_replace(key.ok().flatten().map(Arc::new));
            last = current;
        }
        tokio::select! {
            biased;
            () = stop.requested() => return,
            changed = stacks.changed() => if changed.is_err() { return },
            () = clock.sleep(LOOK_EVERY), if path.is_some() => {}
        }
    }
}
