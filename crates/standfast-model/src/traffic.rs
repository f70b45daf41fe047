//! What the gateway is told about traffic. Words follow the Kubernetes Gateway API where it has them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{ServiceName, ZoneName};
use crate::otlp::Otlp;
use crate::stack::{HealthCheck, PublishedPort, Target};

/// A service that is not started here: requests go to addresses that others run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct External {
    /// Its name, unique among all services.
    pub name: ServiceName,
    /// Where it is, at least one, each once, in the order written.
    pub addresses: Vec<ExternalAddress>,
    /// Ports at which the gateway offers it to this machine, besides the routes.
    #[serde(default)]
    pub ports: Vec<PublishedPort>,
    /// How to see that an address is ready: a probe over HTTP or TCP; `None` when only its answers tell.
    pub healthcheck: Option<HealthCheck>,
    /// How its requests are treated.
    pub traffic: Traffic,
}

/// One address of an external service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalAddress {
    /// A host name in lower case, or an IP address in its usual form (IPv6 without brackets).
    pub host: String,
    /// The port.
    pub port: u16,
    /// The zone that it is in, if that is known.
    pub zone: Option<ZoneName>,
}

/// As a URL has it: `db.internal:80`, `[fd00::1]:80`.
impl fmt::Display for ExternalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, .. } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// How the requests for one service are treated (`services.*.traffic`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Traffic {
    /// What its replicas speak.
    pub protocol: Protocol,
    /// From the request's head to the answer's head, all attempts together. A shorter `Standfast-Deadline` wins; a longer one
    /// wins only between services, since from outside anyone could write it.
    pub timeout: Duration,
    /// How often one request may be *sent*, the first time included; at least 1. Attempts in which nothing was sent are free.
    pub attempts: u32,
    /// How long one request waits, all its waits together, while no replica can take it; then it is answered with 503.
    pub hold: Duration,
    /// Whether a GET that takes longer than 95 % of its kind is sent to a second replica.
    pub hedge: bool,
    /// How a replica is chosen.
    pub balance: Balance,
    /// How long a new replica is given less than its share; zero is not at all.
    pub slow_start: Duration,
    /// How many requests its replicas are given at a time.
    pub concurrency: Concurrency,
    /// Whether the first answer to a request with an `Idempotency-Key` is kept and given again; `None` is not at all.
    pub keep_answers: Option<KeepAnswers>,
    /// How its replicas prove who they are; `None` where connections to them are plain.
    pub tls: Option<ReplicaTls>,
}

/// Which answers to requests with an `Idempotency-Key` are kept, and how long. All limits are those of one gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct KeepAnswers {
    /// How long one is kept, counted from its end.
    pub keep_for: Duration,
    /// The longest body of an answer that is kept, in bytes.
    pub bytes_max: u64,
    /// Most keys at a time, those whose requests are under way included.
    pub keys_max: u32,
    /// What all kept answers may take up, in bytes.
    pub memory_max: u64,
    /// The header fields that callers are told apart by, lower case: nobody is given the answer to somebody else.
    pub callers: Vec<String>,
}

impl Default for KeepAnswers {
    fn default() -> Self {
        Self {
            keep_for: Duration::from_secs(600),
            bytes_max: 1 << 20,
            keys_max: 10_000,
            memory_max: 64 << 20,
            callers: ["authorization", "cookie", "x-api-key"].map(str::to_owned).into(),
        }
    }
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            protocol: Protocol::Http1,
            timeout: Duration::from_secs(10),
            attempts: 3,
            hold: Duration::from_secs(5),
            hedge: true,
            balance: Balance::LeastLoaded,
            slow_start: Duration::ZERO,
            concurrency: Concurrency::Adaptive,
            keep_answers: None,
            tls: None,
        }
    }
}

/// TLS to a service's replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaTls {
    /// Whom their certificates must be for, which is also what is asked for (SNI): a host name in lower case, or an IP address.
    pub server_name: String,
    /// Who signs their certificates (PEM, absolute); the authorities that the machine knows when absent.
    pub ca: Option<PathBuf>,
    /// What the gateway shows of itself, where they want to see something.
    pub certificate: Option<Certificate>,
}

/// What a service's replicas speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 with prior knowledge; also gRPC.
    Http2,
    /// Bytes: connections are passed on as they are. Such a service has published ports, and no routes.
    Tcp,
}

/// How a replica is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Balance {
    /// The one where an answer is likely to come first: requests in flight × decayed peak latency × penalty for failures.
    #[default]
    LeastLoaded,
    /// One after the other.
    RoundRobin,
    /// The same key to the same replica as long as that one has room (consistent hashing with bounded loads).
    Hash(HashKey),
}

/// What the same replica is chosen by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HashKey {
    /// A header field, lower case. Requests without it go to the least loaded.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// The path without its query.
    Path,
    /// The client's address.
    Client,
}

/// How many requests a service's replicas are given at a time by one gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Concurrency {
    /// As many as they carry without getting slower: measured all the time, never told.
    #[default]
    Adaptive,
    /// So many in all.
    Fixed(u32),
    /// No limit.
    Unlimited,
}

/// The pattern by which a text matches one of a route's regular expressions as a whole, and not only in part.
pub fn whole(regex: &str) -> String {
    format!("^(?:{regex})$")
}

/// Which paths a route is for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathMatch {
    /// A prefix on segment boundaries: `/orders` matches `/orders` and `/orders/1`, not `/ordersX`.
    Prefix(String),
    /// The whole path.
    Exact(String),
    /// A regular expression that the whole path must match (syntax of the Rust crate `regex-lite`: linear time, ASCII classes).
    Regex(String),
}

impl PathMatch {
    /// Whether a request path (without its query) falls under a prefix: also where it ends with `/`.
    pub fn is_under(prefix: &str, path: &str) -> bool {
        let prefix = prefix.trim_end_matches('/');
        path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether a request path (without its query) matches. A regular expression is compiled anew each time: for checking, not
    /// for traffic. One that is not legal matches nothing.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Prefix(prefix) => Self::is_under(prefix, path),
            Self::Exact(exact) => exact == path,
            Self::Regex(regex) => {
                regex_lite::Regex::new(&whole(regex)).is_ok_and(|regex| regex.is_match(path))
            }
        }
    }

    /// The text, whatever its kind.
    pub fn text(&self) -> &str {
        match self {
            Self::Prefix(text) | Self::Exact(text) | Self::Regex(text) => text,
        }
    }
}

/// What a header field or a query parameter must be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FieldMatch {
    /// Its name: of a header field in lower case, of a query parameter as it is.
    pub name: String,
    /// Its value.
    pub value: ValueMatch,
}

/// What a value must be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ValueMatch {
    /// This text, case and all.
    Exact(String),
    /// A text that the regular expression matches as a whole.
    Regex(String),
    /// Anything, as long as it is there.
    Present,
}

/// What a route does to its requests and answers (Gateway API's filters).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Filters {
    /// Changes of the request's header fields.
    pub request_headers: HeaderChanges,
    /// Changes of the answer's header fields.
    pub response_headers: HeaderChanges,
    /// Another host, path or prefix for the service.
    pub rewrite: Option<Rewrite>,
    /// The answer is a redirect, and no service is asked.
    pub redirect: Option<Redirect>,
    /// A copy of a share of the requests goes to another service, whose answers are dropped.
    pub mirror: Option<Mirror>,
}

/// Changes of header fields, in this order. Names are in lower case, and none is one that the gateway sets itself; values
/// are visible ASCII characters, blanks and tabs.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HeaderChanges {
    /// Taken out.
    pub remove: Vec<String>,
    /// Put in place of all of that name.
    pub set: BTreeMap<String, String>,
    /// Put beside those of that name.
    pub add: BTreeMap<String, String>,
}

impl HeaderChanges {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

/// A change of what a request asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrite {
    /// The host that the service sees, lower case, without a port.
    pub host: Option<String>,
    /// The path that the service sees.
    pub path: Option<PathRewrite>,
}

/// Another path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathRewrite {
    /// The whole path is this one; the query stays.
    Full(String),
    /// This takes the place of the route's path prefix; the route's path is one.
    Prefix(String),
}

/// An answer that sends the client elsewhere: at least one of scheme, host, port and path is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// `http` or `https`; the request's own when absent.
    pub scheme: Option<String>,
    /// The request's own when absent.
    pub host: Option<String>,
    /// The scheme's usual one when absent and the scheme is given, else the request's own.
    pub port: Option<u16>,
    /// The request's own when absent.
    pub path: Option<PathRewrite>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// A copy of requests for another service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mirror {
    /// Which service.
    pub to: ServiceName,
    /// The share of requests that is copied, from 0 to 100.
    pub percent: f64,
}

/// Which requests are let in last when there are too many; between services `Standfast-Priority` carries it on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Priority {
    /// First to be shed.
    Low,
    /// Unless said otherwise.
    #[default]
    Normal,
    /// Shed when nothing lower is left.
    High,
}

/// At most so many requests of a kind in a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Requests a second, above 0.
    pub rate_per_second: f64,
    /// How many may come at once; at least 1.
    pub burst: u32,
    /// What is counted by itself.
    pub per: RatePer,
}

/// What a rate limit counts by itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RatePer {
    /// All requests of the route together.
    #[default]
    Route,
    /// Each client address.
    Client,
    /// Each value of a header field, lower case; requests without it count together.
    Header(String),
}

/// A rule for requests from outside. Of the routes whose conditions are all met the most specific wins: one for the request's scheme
/// (what a listener's own routes are to the Gateway API), and then as the Gateway API orders them: host, exact path, longest prefix, regular expression, method, most header fields, most query parameters, first written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// The scheme it is for, `http` or `https`: how the gateway itself is asked. Either when absent.
    #[serde(default)]
    pub scheme: Option<String>,
    /// The host it is for, lower case, without a port; `*.example.org` for any host under it, however deep; any when absent.
    pub host: Option<String>,
    /// The paths it is for.
    pub path: PathMatch,
    /// The method, upper case; any when absent.
    pub method: Option<String>,
    /// Header fields that must be there.
    pub headers: Vec<FieldMatch>,
    /// Query parameters that must be there.
    pub query: Vec<FieldMatch>,
    /// Where requests go, each service once: at least one with a weight above 0, or none where the route redirects.
    pub to: Vec<Target>,
    /// What is changed.
    pub filters: Filters,
    /// In place of the service's own.
    pub timeout: Option<Duration>,
    /// Of its requests. What clients say in `Standfast-Priority` counts only up to this.
    pub priority: Priority,
    /// Rate limits; all of them count.
    pub rate_limits: Vec<RateLimit>,
    /// Requests of this route at a time (a bulkhead); further ones are answered with 503.
    pub concurrency_max: Option<u32>,
}

impl Route {
    /// Whether it is for a host, given in lower case and without a port.
    pub fn is_for_host(&self, host: Option<&str>) -> bool {
        match (self.host.as_deref(), host) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(host)) => match own.strip_prefix('*') {
                Some(parent) => host.len() > parent.len() && host.ends_with(parent),
                None => own == host,
            },
        }
    }

    /// A route for a prefix and nothing else.
    pub fn prefix(path: &str, to: Vec<Target>) -> Self {
        Self {
            scheme: None,
            host: None,
            path: PathMatch::Prefix(path.to_owned()),
            method: None,
            headers: Vec::new(),
            query: Vec::new(),
            to,
            filters: Filters::default(),
            timeout: None,
            priority: Priority::default(),
            rate_limits: Vec::new(),
            concurrency_max: None,
        }
    }
}

/// The shortest key that faults of single requests are signed by, in bytes.
pub const FAULT_KEY_BYTES_MIN: usize = 16;

/// How the gateway meets clients from outside (`gateway`).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Edge {
    /// Certificates by which it proves who it is; with one, it speaks TLS on `tls.port`.
    pub tls: Option<Tls>,
    /// Whether connections begin with a PROXY protocol header, version 1 or 2, whose address is believed.
    pub proxy_protocol: bool,
    /// Where requests are written down; `None` is nowhere.
    pub access_log: Option<AccessLog>,
    /// Where spans are sent; `None` is nowhere, unless the process was told.
    pub otlp: Option<Otlp>,
    /// The file, absolute, of the key by which faults of single requests are signed; `None` obeys nobody's.
    pub fault_key_file: Option<PathBuf>,
    /// Limits for clients.
    pub limits: EdgeLimits,
}

/// TLS to clients.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// The port; 0 takes a free one.
    pub port: u16,
    /// Certificate chains with their keys; the first is for clients that name no host or one that no other is for.
    pub certificates: Vec<Certificate>,
    /// Who signs clients' certificates (PEM): clients must then show one.
    pub client_ca: Option<PathBuf>,
}

/// A certificate chain and its key, PEM files that are read again when they change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The chain, absolute.
    pub cert: PathBuf,
    /// The private key, absolute.
    pub key: PathBuf,
}

/// Where and how requests are written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessLog {
    /// The file, absolute.
    pub path: PathBuf,
    /// How.
    pub format: AccessFormat,
    /// One in so many requests is written; failed, retried and slow ones always. At least 1.
    pub sample: u32,
}

/// The form of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// Apache's combined format.
    Combined,
}

/// Limits for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EdgeLimits {
    /// Bytes of a request's head; a longer one is answered with 431.
    pub header_bytes_max: usize,
    /// Header fields of a request; more are answered with 431.
    pub header_count_max: usize,
    /// Bytes of a request's body; a longer one is answered with 413.
    pub body_bytes_max: u64,
    /// Connections of one client address at a time; further ones are closed.
    pub connections_per_client_max: usize,
    /// Streams of one HTTP/2 connection at a time.
    pub streams_max: u32,
    /// From the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// How long a connection may lie idle.
    pub idle_timeout: Duration,
    /// How long a body may make no progress in either direction.
    pub stall_timeout: Duration,
}

impl Default for EdgeLimits {
    fn default() -> Self {
        Self {
            header_bytes_max: 64 << 10,
            header_count_max: 100,
            body_bytes_max: 1 << 30,
            connections_per_client_max: 16_384,
            streams_max: 256,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            stall_timeout: Duration::from_secs(60),
        }
    }
}
