//! What the agent writes down, so that a successor goes on where it was killed.
//!
//! The rule is write-ahead: an order, a replica's place, a fault and a listener are in the file before anything is done
//! about them. What happened (a process number, an end) follows as soon as it can; a crash before it is made good by
//! looking at `/proc`.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use standfast_model::{Generation, Instance, Revision, ZoneName};
use standfast_runtime::Disk;

use super::api::{ListenerSpec, NodeInfo};
use super::config::STATE_VERSION;
use super::core::Core;
use super::faults::FaultRecord;
use super::procfs::ProcessId;
use super::state::State;
use crate::{Launch, ReplicaState, Wanted};

/// After a failed write, until the next try.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The file's content.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ledger {
    pub(crate) version: u32,
    /// The machine's start in which the process numbers hold.
    pub(crate) boot: String,
    /// The folder that it was written for: a copied folder must not adopt the processes of the original.
    pub(crate) fingerprint: String,
    pub(crate) zones: Vec<ZoneName>,
    pub(crate) wanted: Wanted,
    /// Those that still run but are in no order any more.
    pub(crate) old_launches: BTreeMap<Revision, Arc<Launch>>,
    pub(crate) replicas: Vec<ReplicaRecord>,
    pub(crate) listeners: Vec<ListenerRecord>,
    pub(crate) node: Option<NodeInfo>,
    pub(crate) nodes_started: u64,
    pub(crate) faults: Vec<FaultRecord>,
    /// Where the ports given out have come to.
    pub(crate) ports: u64,
    pub(crate) going_down: bool,
}

/// One start of a replica.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReplicaRecord {
    pub(crate) instance: Instance,
    pub(crate) revision: Revision,
    pub(crate) zone: ZoneName,
    pub(crate) generation: Generation,
    pub(crate) address: SocketAddr,
    /// Absent from the decision to start until shortly after the start.
    pub(crate) process: Option<ProcessId>,
    pub(crate) state: ReplicaState,
    pub(crate) served: Option<Duration>,
}

/// Listening sockets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ListenerRecord {
    pub(crate) spec: ListenerSpec,
    pub(crate) address: SocketAddr,
}

impl Ledger {
    pub(crate) fn of(state: &State, boot: &str, fingerprint: &str) -> Self {
        let replicas = state.held.iter().map(|(instance, held)| ReplicaRecord {
            instance: instance.clone(),
            revision: held.revision.clone(),
            zone: held.zone.clone(),
            generation: held.generation,
            address: held.address,
            process: held.process,
            state: held.state.clone(),
            served: held.served,
        });
        let is_old =
            |(revision, _): &(&Revision, &Arc<Launch>)| !state.wanted.launches.contains_key(*revision);
        Self {
            version: STATE_VERSION,
            boot: boot.to_owned(),
            fingerprint: fingerprint.to_owned(),
            zones: state.zones.clone(),
            wanted: state.wanted.clone(),
            old_launches: state.launches.iter().filter(is_old).map(|(r, l)| (r.clone(), l.clone())).collect(),
            replicas: replicas.collect(),
            listeners: state.listeners.values().map(|listening| listening.record.clone()).collect(),
            node: state.node.info,
            nodes_started: state.node.started,
            faults: state.faults.values().cloned().collect(),
            ports: state.ports.cursor(),
            going_down: state.going_down,
        }
    }

    /// The ledger in a file; `None` when there is none yet.
    pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<Self>> {
        match disk.read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// How far the writing has come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written {
    /// All changes up to this one are on disk.
    pub(crate) durable: u64,
    /// All changes up to this one were tried.
    pub(crate) tried: u64,
    pub(crate) error: Option<String>,
}

/// The ledger could not be written.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the ledger cannot be written: {0}")]
pub(crate) struct LedgerError(pub(crate) String);

/// Writes the ledger whenever it changed; changes made during one write go together in the next.
pub(crate) async fn write_changes(core: Core) {
    let mut changes = core.ledger_changes();
    let mut last_written: Option<Vec<u8>> = None;
    loop {
        let upto = *changes.borrow_and_update();
        let ledger = core.ledger_now();
        let (disk, path) = (core.disk(), core.state_dir().ledger());
        let previous = last_written.take();
        let work = tokio::task::spawn_blocking(move || {
            let bytes = serde_json::to_vec(&ledger)?;
            if previous.as_ref() != Some(&bytes) {
                disk.replace(&path, &bytes)?;
            }
            Ok::<_, io::Error>(bytes)
        });
        let failed = match work.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
            Ok(bytes) => {
                last_written = Some(bytes);
                None
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(error) = &failed {
            tracing::error!(%error, "the ledger cannot be written");
        }
        core.ledger_was_written(upto, failed.clone());
        tokio::select! {
            biased;
            changed = changes.changed() => if changed.is_err() { return },
            () = core.sleep(RETRY_AFTER), if failed.is_some() => {}
        }
    }
}
