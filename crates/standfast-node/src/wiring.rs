//! Addresses and sockets: which listeners a stack needs, how replicas learn of them, and how the gateway gets them.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use standfast_gateway::{Caller, Gateway, ListenerInput, ListenerKind};
use standfast_model::{ServiceName, Stack, ZoneName};
use standfast_platform::local::{AgentClient, AgentError, BoundListener, ListenerSpec, TakenSockets};
use standfast_platform::{Applied, Inventory, Platform, PlatformError, Wanted};
use tokio::sync::watch;

use crate::reserve::Reserve;
use crate::settings::Settings;

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// What a listener is for; its text is its name at the agent.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Purpose {
    /// Requests from outside.
    Public,
    /// The same through TLS, at this port.
    PublicTls(u16),
    /// The state API.
    State,
    /// Requests of replicas in a zone for a service.
    Service(ServiceName, ZoneName),
    /// A published port of a service.
    Published(ServiceName, u16),
}

impl Purpose {
    fn name(&self) -> String {
        match self {
            Self::Public => "public".into(),
            Self::PublicTls(port) => format!("public-tls/{port}"),
            Self::State => "state".into(),
            Self::Service(service, zone) => format!("service/{service}/{zone}"),
            Self::Published(service, port) => format!("port/{service}/{port}"),
        }
    }

    fn kind(&self) -> Option<ListenerKind> {
        match self {
            Self::Public => Some(ListenerKind::Public),
            Self::PublicTls(_) => Some(ListenerKind::PublicTls),
            Self::State => None,
            Self::Service(service, zone) => {
                Some(ListenerKind::Service { service: service.clone(), caller_zone: Some(zone.clone()) })
            }
            Self::Published(service, _) => {
                Some(ListenerKind::Service { service: service.clone(), caller_zone: None })
            }
        }
    }
}

/// Holds the sockets that the agent lends, and knows where each listens.
#[derive(Debug)]
pub(crate) struct Wiring {
    agent: AgentClient,
    settings: Settings,
    gateway: Arc<Gateway>,
    held: Mutex<BTreeMap<String, (SocketAddr, Vec<std::net::TcpListener>)>>,
    /// One change at a time; taken before `held`.
    turn: tokio::sync::Mutex<Turn>,
}

#[derive(Debug, Default)]
struct Turn {
    /// The listeners that the agent has and that are held here.
    ensured: Option<Vec<Purpose>>,
    /// Whether the gateway accepts.
    is_open: bool,
}

impl Wiring {
    pub(crate) fn new(agent: AgentClient, settings: Settings, gateway: Arc<Gateway>) -> Self {
        Self { agent, settings, gateway, held: Mutex::default(), turn: tokio::sync::Mutex::default() }
    }

    /// Gets the listeners that every node needs. Those of services that a living agent holds for a dead node's successor are left alone.
    pub(crate) async fn ensure_base(&self) -> Result<(), AgentError> {
        let base = [Purpose::Public.name(), Purpose::State.name()];
        let names: Vec<&str> = base.iter().map(String::as_str).collect();
        match self.agent.take_sockets(&names).await {
            Ok(taken) if taken.len() == names.len() => {
                self.held()
                    .extend(taken.into_iter().map(|(name, address, sockets)| (name, (address, sockets))));
                Ok(())
            }
            Ok(_) | Err(AgentError::NotFound(_) | AgentError::Refused(_)) => self.ensure(None).await,
            Err(error) => Err(error),
        }
    }

    /// Makes sure that all listeners of a stack are there, and that the gateway has them once it is open. Open connections are not
    /// touched.
    pub(crate) async fn ensure(&self, stack: Option<&Stack>) -> Result<(), AgentError> {
        let mut turn = self.turn.lock().await;
        let purposes = purposes(stack);
        if turn.ensured.as_ref() == Some(&purposes) {
            return Ok(());
        }
        let specs: Vec<ListenerSpec> = purposes.iter().map(|purpose| self.spec(purpose)).collect();
        let bound = self.agent.listen(&specs).await?;
        let missing: Vec<&str> = {
            let held = self.held();
            let is_held =
                |one: &BoundListener| held.get(&one.name).is_some_and(|(address, _)| *address == one.address);
            bound.iter().filter(|one| !is_held(one)).map(|one| one.name.as_str()).collect()
        };
        let taken = if missing.is_empty() { Vec::new() } else { self.agent.take_sockets(&missing).await? };
        {
            let mut held = self.held();
            held.extend(taken.into_iter().map(|(name, address, sockets)| (name, (address, sockets))));
            held.retain(|name, _| bound.iter().any(|one| one.name == *name));
        }
        turn.ensured = Some(purposes);
        if turn.is_open { self.give_to_gateway(&turn).await } else { Ok(()) }
    }

    /// Lets the gateway accept: not before it knows where the replicas are, since until then it would refuse what it could carry a
    /// moment later. Connections wait in the kernel's queue meanwhile.
    pub(crate) async fn open(&self) -> Result<(), AgentError> {
        let mut turn = self.turn.lock().await;
        if turn.is_open || turn.ensured.is_none() {
            return Ok(());
        }
        self.give_to_gateway(&turn).await?;
        turn.is_open = true;
        Ok(())
    }

    async fn give_to_gateway(&self, turn: &Turn) -> Result<(), AgentError> {
        let inputs = inputs(turn.ensured.as_deref().unwrap_or_default(), &self.held()).map_err(refused)?;
        self.gateway.set_listeners(inputs).await.map_err(refused)
    }

    /// Gives all sockets to an agent that has none.
    pub(crate) async fn return_sockets(&self) -> Result<(), AgentError> {
        let _turn = self.turn.lock().await;
        let copies: std::io::Result<TakenSockets> = self
            .held()
            .iter()
            .map(|(name, (address, sockets))| {
                let copies =
                    sockets.iter().map(std::net::TcpListener::try_clone).collect::<Result<_, _>>()?;
                Ok((name.clone(), *address, copies))
            })
            .collect();
        self.agent.return_sockets(&copies.map_err(refused)?).await
    }

    /// A socket of the state API.
    pub(crate) fn state_socket(&self) -> Option<std::io::Result<std::net::TcpListener>> {
        self.held()
            .get(&Purpose::State.name())
            .and_then(|(_, sockets)| sockets.first())
            .map(|s| s.try_clone())
    }

    pub(crate) fn public(&self) -> Option<SocketAddr> {
        self.address(&Purpose::Public)
    }

    pub(crate) fn state(&self) -> Option<SocketAddr> {
        self.address(&Purpose::State)
    }

    /// What calls services through the gateway.
    pub(crate) fn caller(&self) -> Caller {
        self.gateway.caller()
    }

    /// Where the gateway takes requests for a service of the stack, in any zone; `None` when there is no such service.
    pub(crate) fn service(&self, name: &str) -> Option<SocketAddr> {
        let prefix = format!("service/{name}/");
        let held = self.held();
        let found = held.iter().find(|(purpose, _)| purpose.starts_with(&prefix));
        found.map(|(_, (address, _))| *address)
    }

    fn address(&self, purpose: &Purpose) -> Option<SocketAddr> {
        self.held().get(&purpose.name()).map(|(address, _)| *address)
    }

    /// Adds to an order how replicas find the other services and their state.
    fn complete(&self, wanted: &mut Wanted, stack: &Stack) {
        for zone in &stack.zones {
            let urls = stack.services.keys().chain(stack.externals.keys()).filter_map(|service| {
                let address = self.address(&Purpose::Service(service.clone(), zone.clone()))?;
                Some((url_variable(service), format!("http://{address}")))
            });
            wanted.zone_environment.insert(zone.clone(), urls.collect());
        }
        if let Some(state) = self.state() {
            for service in stack.services.keys() {
                let url = format!("http://{state}/v1/{service}");
                let workflows = format!("http://{state}{}/v1", crate::workflows::PREFIX);
                let variables = BTreeMap::from([
                    ("STANDFAST_STATE_URL".to_owned(), url),
                    ("STANDFAST_WORKFLOWS_URL".to_owned(), workflows),
                ]);
                wanted.service_environment.insert(service.clone(), variables);
            }
        }
    }

    fn spec(&self, purpose: &Purpose) -> ListenerSpec {
        let (address, port, sockets) = match purpose {
            Purpose::Public => {
                (self.settings.public_address, self.settings.public_port, self.settings.workers)
            }
            Purpose::PublicTls(port) => {
                (self.settings.public_address, Some(*port).filter(|port| *port != 0), self.settings.workers)
            }
            Purpose::State => (LOOPBACK, None, 1),
            Purpose::Service(..) => (LOOPBACK, None, self.settings.workers),
            Purpose::Published(_, port) => (LOOPBACK, Some(*port), self.settings.workers),
        };
        ListenerSpec { name: purpose.name(), address, port, sockets }
    }

    fn held(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, (SocketAddr, Vec<std::net::TcpListener>)>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `INVENTORY_URL`, `PAYMENT_GATEWAY_URL`.
fn url_variable(service: &ServiceName) -> String {
    format!("{}_URL", service.as_str().to_ascii_uppercase().replace('-', "_"))
}

fn purposes(stack: Option<&Stack>) -> Vec<Purpose> {
    let mut purposes = vec![Purpose::Public, Purpose::State];
    let Some(stack) = stack else { return purposes };
    purposes.extend(stack.edge.tls.iter().map(|tls| Purpose::PublicTls(tls.port)));
    for external in stack.externals.values() {
        let in_zone = |zone: &ZoneName| Purpose::Service(external.name.clone(), zone.clone());
        purposes.extend(stack.zones.iter().map(in_zone));
        let published =
            external.ports.iter().map(|port| Purpose::Published(external.name.clone(), port.published));
        purposes.extend(published);
    }
    for service in stack.services.values() {
        let in_zone = |zone: &ZoneName| Purpose::Service(service.name.clone(), zone.clone());
        purposes.extend(stack.zones.iter().map(in_zone));
        purposes.extend(
            service.ports.iter().map(|port| Purpose::Published(service.name.clone(), port.published)),
        );
    }
    purposes
}

/// Copies of all sockets for the gateway's workers; the originals stay here, for the next agent.
fn inputs(
    purposes: &[Purpose],
    held: &BTreeMap<String, (SocketAddr, Vec<std::net::TcpListener>)>,
) -> std::io::Result<Vec<ListenerInput>> {
    let with_kind = purposes.iter().filter_map(|purpose| Some((purpose.kind()?, held.get(&purpose.name())?)));
    with_kind
        .map(|(kind, (_, sockets))| {
            let sockets = sockets.iter().map(std::net::TcpListener::try_clone).collect::<Result<_, _>>()?;
            Ok(ListenerInput { kind, sockets })
        })
        .collect()
}

fn refused(error: impl std::error::Error) -> AgentError {
    AgentError::Refused(error.to_string())
}

/// The local platform with its wiring: an order leaves here with the addresses that its replicas need, and its listeners are there
/// before its replicas.
pub(crate) struct WiredPlatform {
    pub(crate) inner: Arc<dyn Platform>,
    pub(crate) wiring: Arc<Wiring>,
    pub(crate) stack: watch::Receiver<Option<Arc<Stack>>>,
    pub(crate) reserve: Arc<Reserve>,
}

#[async_trait]
impl Platform for WiredPlatform {
    async fn observe(&self) -> Result<Inventory, PlatformError> {
        self.inner.observe().await
    }

    async fn apply(&self, wanted: &Wanted) -> Result<Applied, PlatformError> {
        let stack = self.stack.borrow().clone();
        let mut wanted = wanted.clone();
        if let Some(stack) = stack {
            self.wiring.ensure(Some(&stack)).await?;
            self.wiring.complete(&mut wanted, &stack);
        }
        match self.inner.apply(&wanted).await {
            // The agent found no room to write the order down.
            Err(PlatformError::Ledger(_)) if self.reserve.release() => self.inner.apply(&wanted).await,
            applied => applied,
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_found_by_a_variable_of_its_name() {
        assert_eq!(url_variable(&"payment-gateway".parse().unwrap()), "PAYMENT_GATEWAY_URL");
    }
}
