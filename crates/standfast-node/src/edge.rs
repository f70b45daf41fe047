//! What the gateway needs for clients from outside: certificates, read from files and again when they change, and the access log.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use standfast_gateway::{AccessLog, TlsError, tls_config};
use standfast_model::{Stack, Tls};
use standfast_runtime::{Clock, Disk, RealDisk, Stop};
use tokio::sync::watch;

/// From one look at the files to the next.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The configuration that the certificates' files give now.
///
/// # Errors
/// [`TlsError`], which names the file.
pub(crate) fn load(tls: &Tls) -> Result<Arc<ServerConfig>, TlsError> {
    tls_config(tls, &|path| RealDisk.read(path))
}

/// Renews the configuration when the stack or a file changes. One that cannot be used is reported and the last one kept.
pub(crate) async fn follow(
    mut stacks: watch::Receiver<Option<Arc<Stack>>>,
    configs: watch::Sender<Option<Arc<ServerConfig>>>,
    clock: Clock,
    stop: Stop,
) {
    let mut last = None;
    loop {
        let tls = stacks.borrow_and_update().as_ref().and_then(|stack| stack.edge.tls.clone());
        let current = tls.as_ref().map(|tls| (tls.clone(), contents(tls)));
        if current != last {
            match tls.as_ref().map(load).transpose() {
                Ok(config) => {
                    configs.send_replace(config);
                }
                Err(error) => tracing::error!(%error, "the certificates are not exchanged"),
            }
            last = current;
        }
        tokio::select! {
            biased;
            () = stop.requested() => return,
            changed = stacks.changed() => if changed.is_err() { return },
            () = clock.sleep(LOOK_EVERY), if tls.is_some() => {}
        }
    }
}

/// What the files hold; `None` for one that cannot be read.
fn contents(tls: &Tls) -> Vec<Option<Vec<u8>>> {
    let read = |path: &Path| RealDisk.read(path).ok();
    let of_certificates = tls.certificates.iter().flat_map(|one| [read(&one.cert), read(&one.key)]);
    of_certificates.chain(tls.client_ca.iter().map(|path| read(path))).collect()
}

/// The access log that a stack asks for: one writer for as long as the settings stay.
#[derive(Debug)]
pub(crate) struct AccessLogs {
    clock: Clock,
    current: Option<(standfast_model::AccessLog, Arc<AccessLog>)>,
}

impl AccessLogs {
    pub(crate) const fn new(clock: Clock) -> Self {
        Self { clock, current: None }
    }

    /// The log for these settings.
    pub(crate) fn of(&mut self, wanted: Option<&standfast_model::AccessLog>) -> Option<Arc<AccessLog>> {
        if self.current.as_ref().map(|(settings, _)| settings) != wanted {
            self.current = wanted.and_then(|settings| match AccessLog::start(settings.clone(), self.clock) {
                Ok(log) => Some((settings.clone(), Arc::new(log))),
                Err(error) => {
                    tracing::error!(%error, "there is no access log");
                    None
                }
            });
        }
        self.current.as_ref().map(|(_, log)| Arc::clone(log))
    }

    /// Has the file opened anew.
    pub(crate) fn reopen(&self) {
        if let Some((_, log)) = &self.current {
            log.reopen();
        }
    }
}
