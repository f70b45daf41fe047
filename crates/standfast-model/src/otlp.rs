//! Where spans go: OTLP over HTTP, as the OpenTelemetry exporters are told.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::keys::is_host;

/// What a collector's address is followed by for spans (OTLP 1.0, "OTLP/HTTP Request").
const SPANS_PATH: &str = "/v1/traces";
/// The longest address, in bytes.
const BYTES_MAX: usize = 512;

/// Where and how many spans are sent (`gateway.otlp`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Otlp {
    /// The collector.
    pub endpoint: OtlpEndpoint,
    /// The share of traces that begin here and are sampled, from 0 to 1. Those that others began are sampled as their beginners said.
    pub sample: f64,
}

/// The address of a collector that takes OTLP over HTTP: `http://127.0.0.1:4318`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OtlpEndpoint {
    /// A host name, or an IP address without brackets.
    pub host: String,
    /// The port; 80 where the address names none, as in any URL.
    pub port: u16,
    /// The whole path that spans are posted to.
    pub path: String,
}

/// An address that spans cannot be sent to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{address}` is no address that spans can be sent to: {why}")]
pub struct BadEndpoint {
    /// What was given.
    pub address: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl OtlpEndpoint {
    /// A collector's address, to which `/v1/traces` is added: what `OTEL_EXPORTER_OTLP_ENDPOINT` holds.
    ///
    /// # Errors
    /// [`BadEndpoint`].
    pub fn of_collector(address: &str) -> Result<Self, BadEndpoint> {
        let mut endpoint: Self = address.parse()?;
        endpoint.path = format!("{}{SPANS_PATH}", endpoint.path.trim_end_matches('/'));
        Ok(endpoint)
    }
}

/// The whole address, path included: what `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` holds.
impl FromStr for OtlpEndpoint {
    type Err = BadEndpoint;

    fn from_str(address: &str) -> Result<Self, BadEndpoint> {
        let bad = |why| BadEndpoint { address: address.chars().take(64).collect(), why };
        if address.len() > BYTES_MAX {
            return Err(bad("it is too long"));
        }
        if address.starts_with("https://") {
            return Err(bad("TLS is not spoken to collectors; run one on this machine that passes spans on"));
        }
        let rest = address.strip_prefix("http://").ok_or(bad("it does not begin with `http://`"))?;
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        if authority.contains('@') {
            return Err(bad("a name and password are not sent to collectors"));
        }
        if path.contains(['?', '#']) || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(bad("its path has a query, or characters that no path has"));
        }
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':').or(port.is_empty().then_some("80"))),
            None => {
                let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
                (host, Some(port))
            }
        };
        let port = port.and_then(|port| port.parse().ok()).filter(|port| *port > 0);
        let port = port.ok_or(bad("its port is no number from 1 to 65535"))?;
        let is_address = if authority.starts_with('[') {
            host.parse::<Ipv6Addr>().is_ok()
        } else {
            host.parse::<Ipv4Addr>().is_ok() || is_host(&host.to_ascii_lowercase())
        };
        if !is_address {
            return Err(bad("its host is no name and no IP address"));
        }
        Ok(Self { host: host.to_ascii_lowercase(), port, path: path.to_owned() })
    }
}

impl fmt::Display for OtlpEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, path } = self;
        if host.contains(':') {
            write!(f, "http://[{host}]:{port}{path}")
        } else {
            write!(f, "http://{host}:{port}{path}")
        }
    }
}

impl TryFrom<String> for OtlpEndpoint {
    type Error = BadEndpoint;

    fn try_from(address: String) -> Result<Self, BadEndpoint> {
        address.parse()
    }
}

impl From<OtlpEndpoint> for String {
    fn from(endpoint: OtlpEndpoint) -> Self {
        endpoint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_posted_to_where_otlp_says() {
        let shown = |address| OtlpEndpoint::of_collector(address).map(|endpoint| endpoint.to_string());
        assert_eq!(shown("http://127.0.0.1:4318").unwrap(), "http://127.0.0.1:4318/v1/traces");
        assert_eq!(shown("http://Otel.Internal/").unwrap(), "http://otel.internal:80/v1/traces");
        assert_eq!(shown("http://[fd00::1]:4318/a/").unwrap(), "http://[fd00::1]:4318/a/v1/traces");
        let whole: OtlpEndpoint = "http://otel:4318/own".parse().unwrap();
        assert_eq!(whole.path, "/own");
        let text = serde_json::to_string(&whole).unwrap();
        assert_eq!(
            (text.as_str(), serde_json::from_str(&text).unwrap()),
            ("\"http://otel:4318/own\"", whole)
        );
    }

    #[test]
    fn what_cannot_be_posted_to_is_refused() {
        for address in [
            "127.0.0.1:4318",
            "https://otel:4318",
            "grpc://otel:4317",
            "http://",
            "http://a b",
            "http://me:secret@otel:4318",
            "http://otel:0",
            "http://otel:70000",
            "http://[fd00::1:4318",
            "http://[::g]:4318",
            "http://otel/a?b",
            "http://otel/\u{e4}",
        ] {
            assert!(address.parse::<OtlpEndpoint>().is_err(), "{address}");
        }
    }
}
