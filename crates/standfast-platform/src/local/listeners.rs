//! The listening sockets: the agent opens and keeps them, nodes accept on copies. So connections wait in the kernel,
//! unrefused, while one node is replaced by the next.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::sync::watch;

use super::address::Ports;
use super::api::{BoundListener, ListenerSpec, SOCKETS_MAX};
use super::core::Core;
use super::ledger::{LedgerError, ListenerRecord};
use super::procfs;
use super::sockets::SocketGroup;

/// How long a living node has, after its agent was killed, to give the sockets to the next one.
const HANDOVER_MAX: Duration = Duration::from_secs(3);

/// Sockets and what is written about them. A predecessor's are there without sockets until these come back.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) record: ListenerRecord,
    pub(crate) sockets: Vec<TcpListener>,
}

/// Why sockets were not opened or handed out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("port {port} of {address}, for `{name}`, is taken{}", by(holder))]
    InUse { name: String, address: std::net::IpAddr, port: u16, holder: Option<String> },
    #[error("`{name}` cannot listen on {address}")]
    Bind { name: String, address: SocketAddr, source: io::Error },
    #[error("{0}")]
    Malformed(String),
    #[error("there is no listener `{0}`")]
    NotFound(String),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

fn by(holder: &Option<String>) -> String {
    holder.as_ref().map(|holder| format!(" by {holder}")).unwrap_or_default()
}

/// Who may open sockets when.
#[derive(Debug)]
pub(crate) struct Listeners {
    core: Core,
    /// One change at a time.
    gate: tokio::sync::Mutex<()>,
    /// Whether a predecessor's sockets are still expected from its node.
    expects: watch::Sender<bool>,
}

impl Listeners {
    /// `is_node_alive`: whether a node of a predecessor lives, which can give the sockets back.
    pub(crate) fn new(core: Core, is_node_alive: bool) -> Self {
        let has_records = !core.state().listeners.is_empty();
        Self {
            core,
            gate: tokio::sync::Mutex::default(),
            expects: watch::Sender::new(is_node_alive && has_records),
        }
    }

    /// Waits for the predecessor's sockets, then opens those that did not come.
    pub(crate) async fn restore(&self) {
        self.wait_for_handover().await;
        self.expects.send_replace(false);
        let _gate = self.gate.lock().await;
        let missing: Vec<ListenerRecord> = {
            let state = self.core.state();
            state
                .listeners
                .values()
                .filter(|held| held.sockets.is_empty())
                .map(|held| held.record.clone())
                .collect()
        };
        for record in missing {
            // The old node may still hold the port, which shares it: then both get connections until the node is
            // replaced.
            match self.core.net().join_group(record.address, usize::from(record.spec.sockets)) {
                Ok(sockets) => self.hold(record, sockets),
                Err(error) => {
                    tracing::error!(%error, name = record.spec.name, "a listener cannot be opened again")
                }
            }
        }
    }

    async fn wait_for_handover(&self) {
        let mut expects = self.expects.subscribe();
        let over = expects.wait_for(|expects| !*expects);
        if self.core.clock().timeout(HANDOVER_MAX, over).await.is_err() {
            tracing::warn!("the node did not give its sockets back in time");
        }
    }

    /// Makes the listeners exactly `specs`; what is there already stays as it is.
    pub(crate) async fn set(&self, specs: Vec<ListenerSpec>) -> Result<Vec<BoundListener>, ListenError> {
        check(&specs)?;
        self.wait_for_handover().await;
        let _gate = self.gate.lock().await;
        let names: BTreeSet<&String> = specs.iter().map(|spec| &spec.name).collect();
        self.core.state().listeners.retain(|name, _| names.contains(name));
        for spec in &specs {
            if !self.is_held(spec) {
                let (record, sockets) = self.open(spec)?;
                self.hold(record, sockets);
            }
        }
        let (bound, number) = self.core.change(|state| {
            let bound = state.listeners.values().map(|held| BoundListener {
                name: held.record.spec.name.clone(),
                address: held.record.address,
            });
            (bound.collect(), false)
        });
        self.core.durable(number).await?;
        Ok(bound)
    }

    fn is_held(&self, spec: &ListenerSpec) -> bool {
        self.core.state().listeners.get(&spec.name).is_some_and(|held| {
            let had = &held.record;
            !held.sockets.is_empty()
                && had.address.ip() == spec.address
                && had.spec.sockets == spec.sockets
                && spec.port.is_none_or(|port| port == 0 || port == had.address.port())
        })
    }

    fn open(&self, spec: &ListenerSpec) -> Result<(ListenerRecord, Vec<TcpListener>), ListenError> {
        let old = self.core.state().listeners.remove(&spec.name).map(|held| held.record.address);
        let bind = |port| {
            let address = SocketAddr::new(spec.address, port);
            let opened = self.core.net().listen_group(address, usize::from(spec.sockets));
            opened.map(|sockets| (address, sockets))
        };
        let failed = |source: io::Error, port: u16| {
            let name = spec.name.clone();
            if source.kind() == io::ErrorKind::AddrInUse {
                ListenError::InUse { name, address: spec.address, port, holder: procfs::listener_of(port) }
            } else {
                ListenError::Bind { name, address: SocketAddr::new(spec.address, port), source }
            }
        };
        let opened = match spec.port.filter(|port| *port != 0) {
            Some(port) => bind(port).map_err(|error| failed(error, port)),
            None => match old.map(|old| bind(old.port())) {
                Some(Ok(opened)) => Ok(opened),
                _ => {
                    let port = self.free_port().unwrap_or_default();
                    bind(port).map_err(|error| failed(error, port))
                }
            },
        };
        opened.map(|(address, sockets)| (ListenerRecord { spec: spec.clone(), address }, sockets))
    }

    fn free_port(&self) -> Option<u16> {
        let mut state = self.core.state();
        let mut taken: BTreeSet<u16> = state.held.values().map(|held| held.address.port()).collect();
        taken.extend(state.listeners.values().map(|held| held.record.address.port()));
        Ports::next_free(&mut state.ports, &taken)
    }

    fn hold(&self, record: ListenerRecord, sockets: Vec<TcpListener>) {
        let name = record.spec.name.clone();
        self.core.change(|state| (state.listeners.insert(name, Listening { record, sockets }), false));
    }

    /// Copies of the sockets of these listeners.
    pub(crate) async fn take(
        &self,
        names: Vec<String>,
    ) -> Result<Vec<(SocketGroup, Vec<TcpListener>)>, ListenError> {
        self.wait_for_handover().await;
        let state = self.core.state();
        let copy = |name: String| {
            let held = state.listeners.get(&name).filter(|held| !held.sockets.is_empty());
            let held = held.ok_or_else(|| ListenError::NotFound(name.clone()))?;
            let sockets = held.sockets.iter().map(TcpListener::try_clone).collect::<io::Result<Vec<_>>>();
            let address = held.record.address;
            let sockets =
                sockets.map_err(|source| ListenError::Bind { name: name.clone(), address, source })?;
            Ok((SocketGroup { name, address, count: sockets.len() }, sockets))
        };
        names.into_iter().map(copy).collect()
    }

    /// Takes back what a node got from a predecessor. Sockets that are held already, or are not what they are said to
    /// be, are let go.
    pub(crate) fn take_back(&self, groups: Vec<(SocketGroup, Vec<OwnedFd>)>) -> Vec<String> {
        let mut taken = Vec::new();
        for (group, descriptors) in groups {
            let sockets: Vec<TcpListener> = descriptors.into_iter().map(TcpListener::from).collect();
            let is_genuine =
                |socket: &TcpListener| socket.local_addr().is_ok_and(|address| address == group.address);
            let has_none = |name: &String| {
                self.core.state().listeners.get(name).is_none_or(|held| held.sockets.is_empty())
            };
            if sockets.is_empty() || !sockets.iter().all(is_genuine) || !has_none(&group.name) {
                continue;
            }
            let record = self.core.state().listeners.get(&group.name).map(|held| held.record.clone());
            let record =
                record.filter(|record| record.address == group.address).unwrap_or_else(|| ListenerRecord {
                    spec: ListenerSpec {
                        name: group.name.clone(),
                        address: group.address.ip(),
                        port: None,
                        sockets: u16::try_from(sockets.len()).unwrap_or(SOCKETS_MAX),
                    },
                    address: group.address,
                });
            taken.push(group.name);
            self.hold(record, sockets);
        }
        let is_complete = self.core.state().listeners.values().all(|held| !held.sockets.is_empty());
        if is_complete {
            self.expects.send_replace(false);
        }
        taken
    }
}

/// The records of a predecessor, without sockets.
pub(crate) fn expected(records: Vec<ListenerRecord>) -> BTreeMap<String, Listening> {
    let without =
        |record: ListenerRecord| (record.spec.name.clone(), Listening { record, sockets: Vec::new() });
    records.into_iter().map(without).collect()
}

fn check(specs: &[ListenerSpec]) -> Result<(), ListenError> {
    let mut names = BTreeSet::new();
    for spec in specs {
        if !(1..=SOCKETS_MAX).contains(&spec.sockets) {
            return Err(ListenError::Malformed(format!(
                "`{}` asks for {} sockets; 1 to {SOCKETS_MAX} are possible",
                spec.name, spec.sockets
            )));
        }
        if !names.insert(&spec.name) {
            return Err(ListenError::Malformed(format!("listener `{}` is listed twice", spec.name)));
        }
    }
    Ok(())
}
