//! What the gateway needs for TLS to replicas, read from files and again when they change.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use standfast_gateway::{ReplicaTlsConfig, TlsError};
use standfast_model::{Protocol, ReplicaTls, ServiceName, Stack, Traffic};
use standfast_runtime::{Clock, Disk, RealDisk, Stop};
use tokio::sync::watch;

/// From one look at the files to the next.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// The configuration of each service that wants TLS.
pub(crate) type Configs = BTreeMap<ServiceName, Arc<ReplicaTlsConfig>>;

/// Makes configurations, each once for as long as its settings and files stay.
#[derive(Debug, Default)]
pub(crate) struct Keeper {
    held: BTreeMap<ServiceName, Held>,
    /// The files as they were when the configurations were made.
    files: u64,
}

#[derive(Debug)]
struct Held {
    settings: (ReplicaTls, Protocol),
    config: Arc<ReplicaTlsConfig>,
}

impl Keeper {
    /// The configurations of a stack's services; `files` counts changes of files. What cannot be used is reported, and in its place
    /// goes what the service had before with the same settings, if anything.
    pub(crate) fn of(&mut self, stack: &Stack, files: u64) -> Configs {
        let is_stale = std::mem::replace(&mut self.files, files) != files;
        let mut held = BTreeMap::new();
        for (name, traffic) in wanting_tls(stack) {
            let Some(tls) = &traffic.tls else { continue };
            let settings = (tls.clone(), traffic.protocol);
            let known = self.held.remove(name).filter(|known| known.settings == settings);
            let known = match known {
                Some(known) if !is_stale => Some(known),
                known => match load(tls, traffic.protocol) {
                    Ok(config) => Some(Held { settings, config }),
                    Err(error) => {
                        tracing::error!(service = %name, %error, "TLS to a service's replicas is not renewed");
                        known
                    }
                },
            };
            held.extend(known.map(|known| (name.clone(), known)));
        }
        self.held = held;
        self.held.iter().map(|(name, held)| (name.clone(), Arc::clone(&held.config))).collect()
    }
}

/// The configuration that a service's files give now.
///
/// # Errors
/// [`TlsError`], which names the file.
pub(crate) fn load(tls: &ReplicaTls, protocol: Protocol) -> Result<Arc<ReplicaTlsConfig>, TlsError> {
    ReplicaTlsConfig::new(tls, protocol, &|path| RealDisk.read(path))
}

fn wanting_tls(stack: &Stack) -> impl Iterator<Item = (&ServiceName, &Traffic)> {
    let own = stack.services.iter().map(|(name, service)| (name, &service.traffic));
    let external = stack.externals.iter().map(|(name, external)| (name, &external.traffic));
    own.chain(external).filter(|(_, traffic)| traffic.tls.is_some())
}

/// Counts changes of the files that services' TLS is made of.
pub(crate) async fn follow(
    mut stacks: watch::Receiver<Option<Arc<Stack>>>,
    changes: watch::Sender<u64>,
    clock: Clock,
    stop: Stop,
) {
    let mut last = None;
    loop {
        let stack = stacks.borrow_and_update().clone();
        let current: Vec<_> = stack.iter().flat_map(|stack| wanting_tls(stack).flat_map(contents)).collect();
        let has_any = !current.is_empty();
        if last.as_ref().is_some_and(|last| *last != current) {
            changes.send_modify(|count| *count += 1);
        }
        last = Some(current);
        tokio::select! {
            biased;
            () = stop.requested() => return,
            changed = stacks.changed() => if changed.is_err() { return },
            () = clock.sleep(LOOK_EVERY), if has_any => {}
        }
    }
}

/// What a service's files hold; `None` for one that cannot be read.
fn contents((_, traffic): (&ServiceName, &Traffic)) -> Vec<Option<Vec<u8>>> {
    let read = |path: &Path| RealDisk.read(path).ok();
    let Some(tls) = &traffic.tls else { return Vec::new() };
    let own = tls.certificate.iter().flat_map(|own| [read(&own.cert), read(&own.key)]);
    own.chain([tls.ca.as_deref().and_then(read)]).collect()
}
