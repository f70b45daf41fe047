use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::http::is_host;
use super::traffic::TrafficDraft;
use super::{compose, health, service, traffic};
use crate::diagnostics::shown;
use crate::id::ZoneName;
use crate::shape::{Context, Fields, FromText, Kinds, List, Object, Referent, Refers, Shape, or_variable};
use crate::source::{At, Span};
use crate::stack::HealthCheck;
use crate::traffic::ExternalAddress;

/// What messages call it.
pub(crate) const EXTERNAL_SERVICE: &str = "an external service";

/// An external service without its name.
pub(crate) struct ExternalDraft {
    pub(crate) addresses: Vec<ExternalAddress>,
    pub(crate) ports: Vec<At<u16>>,
    pub(crate) healthcheck: Option<HealthCheck>,
    pub(crate) traffic: TrafficDraft,
}

pub(crate) const EXTERNAL: Object<ExternalDraft> = Object {
    doc: "A service that is not started here: requests go to addresses that others run.",
    read: external,
};

fn external(f: &mut Fields<'_, '_>) -> Option<ExternalDraft> {
    let addresses = f.required(
        "external",
        "Where it is: `10.0.0.5:8080`, a mapping with `address` and `zone`, or a list of these.",
        addresses(),
    );
    let healthcheck =
        f.optional("healthcheck", health::EXTERNAL_HEALTHCHECK.doc, health::EXTERNAL_HEALTHCHECK);
    let ports = f.optional(
        "ports",
        "Ports of 127.0.0.1 at which the gateway offers this service: `9000`, or Compose's long form.",
        List { item: service::port(), min: 0 },
    );
    let traffic = f.optional("traffic", traffic::TRAFFIC.doc, traffic::TRAFFIC);
    let started = compose::SERVICE_STARTED.iter().copied();
    let refused = compose::SERVICE_REFUSED.iter().map(|(name, _)| *name);
    f.excluded(started.chain(refused), EXTERNAL_SERVICE, "it is not started here");
    f.ignored(compose::SERVICE_IGNORED);
    Some(ExternalDraft {
        addresses: addresses?,
        ports: ports.unwrap_or_default(),
        healthcheck: healthcheck.flatten(),
        traffic: traffic.unwrap_or_default(),
    })
}

fn addresses() -> impl Shape<Value = Vec<ExternalAddress>> {
    let bare = |(host, port), _: Span, _: &mut Context<'_>| Some(ExternalAddress { host, port, zone: None });
    let one = Kinds::new("an address, or a mapping with `address` and `zone`")
        .text(Address.and_then(bare))
        .mapping(ADDRESS);
    Kinds::new("an address, a mapping with `address` and `zone`, or a list of these")
        .text(Address.and_then(bare).and_then(|address, _, _| Some(vec![address])))
        .mapping(ADDRESS.and_then(|address, _, _| Some(vec![address])))
        .list(List { item: one.at(), min: 1 }.and_then(distinct))
}

/// Each address once.
fn distinct(
    addresses: Vec<At<ExternalAddress>>,
    _: Span,
    cx: &mut Context<'_>,
) -> Option<Vec<ExternalAddress>> {
    let mut seen = BTreeSet::new();
    for At { value, span } in &addresses {
        if !seen.insert((&value.host, value.port)) {
            let message = format!("the address `{}` is there twice", shown(&value.to_string()));
            cx.reports.error_hint(*span, message, "remove one of them");
        }
    }
    (!addresses.is_empty()).then(|| addresses.into_iter().map(|address| address.value).collect())
}

const ADDRESS: Object<ExternalAddress> = Object {
    doc: "An address and its zone.",
    read: |f| {
        let address = f.required(
            "address",
            "A host name or an IP address, and a port: `db.internal:80`, `\"[fd00::1]:80\"`.",
            Address,
        );
        let zone = f.optional(
            "zone",
            "The zone that it is in. Default: not known.",
            Refers::<ZoneName>::new("a zone name", Referent::Zone),
        );
        let (host, port) = address?;
        Some(ExternalAddress { host, port, zone })
    },
};

/// `10.0.0.5:8080`, `db.internal:80`, `[fd00::1]:80`: the host in its usual form, and the port.
struct Address;

impl FromText for Address {
    type Value = (String, u16);

    fn parse(&self, text: &str) -> Result<(String, u16), Option<String>> {
        let hint = |text: &str| Err(Some(text.to_owned()));
        if text.contains("://") {
            return hint("leave the scheme out; `traffic.protocol` says what it speaks");
        }
        if text.contains('/') {
            return hint("leave the path out; a route can rewrite paths");
        }
        let Some((host, port)) = text.rsplit_once(':') else {
            return hint("add the port: `db.internal:80`");
        };
        let host = if let Some(inner) = host.strip_prefix('[') {
            let address = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
            address.ok_or(None)?.to_string()
        } else if host.contains(':') {
            return hint("put an IPv6 address in brackets: `\"[fd00::1]:80\"`");
        } else if host.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            host.parse::<Ipv4Addr>().map_err(|_| None)?.to_string()
        } else if is_host(host) {
            host.to_ascii_lowercase()
        } else {
            return Err(None);
        };
        let is_number = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let port = if is_number { port.parse::<u16>().ok().filter(|port| *port > 0) } else { None };
        port.map(|port| (host, port)).ok_or_else(|| Some(format!("ports are numbers from 1 to {}", u16::MAX)))
    }

    fn expected(&self) -> String {
        "a host name or an IP address, and a port".to_owned()
    }

    fn json_schema(&self) -> Value {
        let pattern = r"^(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z]([0-9A-Za-z.-]*[0-9A-Za-z])?):[0-9]+$";
        json!({"type": "string", "pattern": or_variable(pattern)})
    }
}
