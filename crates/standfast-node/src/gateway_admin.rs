//! What a gateway tells over HTTP: metrics, whether it takes requests, what it counted, and what became of single requests. It changes
//! nothing. Requests are told at loopback addresses only, since they show paths and clients' addresses.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use standfast_gateway::{Exposition, Filter, Gateway};
use standfast_model::{Instance, ReplicaId};
use standfast_runtime::http::{Listener, ServerLimits, json, plain, serve};
use standfast_runtime::{Clock, Net, OnStop, Tasks};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::answers::ErrorAnswer;

/// Connections at a time; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// From one try to listen to the next.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);
/// Records in one answer.
const RECENT_MAX: usize = 1_000;
/// Records in an answer when no number is asked for.
const RECENT: usize = 20;
/// Paths before and at records.
pub(crate) const REQUESTS: &str = "/requests";
/// What records can be asked for by.
const KEYS: &str = "service, route, status, reason, replica, marked, limit";

/// Whether a gateway takes requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not yet.
    Starting,
    /// It does.
    Serving,
    /// Those under way end, and no more are taken.
    Draining,
}

/// What is told to whoever asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// All there is.
    Everything,
    /// Metrics, and whether requests are taken: nothing of single requests.
    Metrics,
}

impl Scope {
    /// What may be told at an address.
    pub(crate) const fn at(address: SocketAddr) -> Self {
        if address.ip().is_loopback() { Self::Everything } else { Self::Metrics }
    }
}

/// What the interface speaks for.
pub(crate) struct GatewayAdmin {
    pub(crate) gateway: Arc<Gateway>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) scope: Scope,
}

/// Serves it until the tasks end.
pub(crate) fn start(tasks: &Tasks, admin: GatewayAdmin, listener: TcpListener, clock: Clock) {
    let admin = Arc::new(admin);
    let handler = move |request| handle(Arc::clone(&admin), request);
    let limits =
        ServerLimits { connections_max: CONNECTIONS_MAX, body_bytes_max: 0, ..ServerLimits::default() };
    let serving = serve(Listener::Tcp(listener), handler, limits, clock, tasks.stop());
    tasks.spawn("the gateway's metrics", OnStop::Abort, serving);
}

/// Gives a node's metrics at an address, as soon as that can be had: a node does not fail for want of it.
pub(crate) async fn give_metrics(
    address: SocketAddr,
    gateway: Arc<Gateway>,
    tasks: Tasks,
    net: Net,
    clock: Clock,
) {
    let mut is_told = false;
    let listener = loop {
        match net.listen_tcp(address).await {
            Ok(listener) => break listener,
            Err(error) if !std::mem::replace(&mut is_told, true) => {
                tracing::error!(%address, %error, "metrics cannot be given; it is tried again each second");
            }
            Err(_) => {}
        }
        clock.sleep(LISTEN_AGAIN).await;
    };
    // Whether the stack is ready is `status`' to tell; a node that answers takes requests.
    let (_phases, phase) = watch::channel(Phase::Serving);
    start(&tasks, GatewayAdmin { gateway, phase, scope: Scope::Metrics }, listener, clock);
}

/// Answers one request. Every failure is an answer.
pub(crate) async fn handle(admin: Arc<GatewayAdmin>, request: Request<Bytes>) -> Response<Bytes> {
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    if request.method() != Method::GET {
        return refusal(StatusCode::METHOD_NOT_ALLOWED, "refused", "only GET is answered here");
    }
    match path {
        "/metrics" => return metrics(&admin.gateway, &request),
        "/healthz" => return admin.health(),
        _ => {}
    }
    if admin.scope == Scope::Metrics {
        let message =
            format!("there is no {path} here: only /metrics and /healthz are told beyond this machine");
        return refusal(StatusCode::NOT_FOUND, "refused", message);
    }
    if !is_for_this_machine(&request) {
        // A page in a browser here whose name was made to mean this address.
        let message = "ask for it by an IP address or `localhost`";
        return refusal(StatusCode::MISDIRECTED_REQUEST, "refused", message);
    }
    match path.strip_prefix(REQUESTS) {
        Some("") => admin.recent(query),
        Some(id) if id.starts_with('/') => admin.why(&decoded(&id[1..])),
        _ if path == "/stats" => json(StatusCode::OK, &admin.gateway.stats()),
        _ => {
            let message =
                format!("there is no {path} here: /metrics, /healthz, /stats, /requests, /requests/ID");
            refusal(StatusCode::NOT_FOUND, "refused", message)
        }
    }
}

/// What Prometheus reads.
pub(crate) fn metrics(gateway: &Gateway, request: &Request<Bytes>) -> Response<Bytes> {
    let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let form = Exposition::wanted(accept.unwrap_or_default());
    let mut answer = Response::new(Bytes::from(form.write(&gateway.stats())));
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    answer
}

impl GatewayAdmin {
    fn health(&self) -> Response<Bytes> {
        match *self.phase.borrow() {
            Phase::Serving => plain(StatusCode::OK, "ok\n"),
            Phase::Starting => plain(StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
            Phase::Draining => plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        }
    }

    fn why(&self, id: &str) -> Response<Bytes> {
        match self.gateway.why(id) {
            Some(record) => json(StatusCode::OK, &record),
            None => {
                let message = format!("no request is remembered by the id `{id}`");
                refusal(StatusCode::NOT_FOUND, "unknown_request", message)
            }
        }
    }

    fn recent(&self, query: &str) -> Response<Bytes> {
        match wanted(query) {
            Ok((limit, filter)) => json(StatusCode::OK, &self.gateway.recent(limit.min(RECENT_MAX), &filter)),
            Err(message) => refusal(StatusCode::BAD_REQUEST, "refused", message),
        }
    }
}

fn refusal(status: StatusCode, code: &str, message: impl Into<String>) -> Response<Bytes> {
    json(status, &ErrorAnswer { code: code.into(), message: message.into(), causes: Vec::new() })
}

/// Whether it names this machine as only those on it do.
fn is_for_this_machine(request: &Request<Bytes>) -> bool {
    let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let name = match host.rsplit_once(':') {
        Some((name, port)) if is_port(port) => name,
        _ => host,
    };
    let bare = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || bare.parse::<IpAddr>().is_ok()
}

/// Which records, and how many at most.
fn wanted(query: &str) -> Result<(usize, Filter), String> {
    let (mut limit, mut filter) = (RECENT, Filter::default());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = value.replace('+', " ");
        let value = decoded(&value);
        let wrong = |what: &str| format!("`{key}` is to be {what}, and is `{value}`");
        match key {
            "service" => filter.service = Some(value.parse().map_err(|_| wrong("a service's name"))?),
            "route" => filter.route = Some(value.into_owned()),
            "status" => filter.status = Some(value.parse().map_err(|_| wrong("a status"))?),
            "reason" => filter.reason = Some(value.into_owned()),
            "replica" => {
                filter.instance =
                    Some(instance(&value).ok_or_else(|| wrong("a replica such as `orders-0.3`"))?)
            }
            "marked" => filter.is_marked = value.parse().map_err(|_| wrong("`true` or `false`"))?,
            "limit" => limit = value.parse().map_err(|_| wrong("a number"))?,
            _ => return Err(format!("`{key}` is not known here; known are {KEYS}")),
        }
    }
    Ok((limit, filter))
}

/// The way back from [`wanted`].
pub(crate) fn query(limit: usize, filter: &Filter) -> String {
    let Filter { service, route, status, reason, instance, is_marked } = filter;
    let pairs = [
        Some(("limit", limit.to_string())),
        service.as_ref().map(|service| ("service", service.to_string())),
        route.clone().map(|route| ("route", route)),
        status.map(|status| ("status", status.to_string())),
        reason.clone().map(|reason| ("reason", reason)),
        instance.as_ref().map(|instance| ("replica", instance.to_string())),
        is_marked.then(|| ("marked", "true".to_owned())),
    ];
    let pairs = pairs.into_iter().flatten().map(|(key, value)| format!("{key}={}", encoded(&value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// A replica's start as it is written: `orders-0.3`.
fn instance(text: &str) -> Option<Instance> {
    let (replica, attempt) = text.rsplit_once('.')?;
    let (service, slot) = replica.rsplit_once('-')?;
    let replica = ReplicaId { service: service.parse().ok()?, slot: slot.parse().ok()? };
    Some(Instance { replica, attempt: attempt.parse().ok()? })
}

/// With `%XX` for all that a path or query may not hold.
pub(crate) fn encoded(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    let one = |byte: u8| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    text.bytes().map(one).collect()
}

fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let digit = |at: usize| text.as_bytes().get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (mut bytes, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(byte) = text.as_bytes().get(at) {
        let pair = (*byte == b'%').then(|| digit(at + 1).zip(digit(at + 2))).flatten();
        match pair.and_then(|(high, low)| u8::try_from(high << 4 | low).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                at += 2;
            }
            None => bytes.push(*byte),
        }
        at += 1;
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_goes_through_a_query_and_back() {
        let filter = Filter {
            service: Some("orders".parse().unwrap()),
            route: Some("/a b+c%".to_owned()),
            status: Some(503),
            reason: Some("overloaded".to_owned()),
            instance: instance("orders-0.3"),
            is_marked: true,
        };
        assert_eq!(wanted(&query(7, &filter)), Ok((7, filter)));
        assert_eq!(wanted(""), Ok((RECENT, Filter::default())));
        assert_eq!(wanted("route=a+b").unwrap().1.route.as_deref(), Some("a b"));
        for wrong in ["status=abc", "servce=orders", "limit=-1", "marked", "replica=orders"] {
            assert!(wanted(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_name_of_somebody_elses_is_not_this_machine() {
        let asks = |host: &str| {
            let request = Request::get("/stats").header("host", host).body(Bytes::new()).unwrap();
            is_for_this_machine(&request)
        };
        for host in ["127.0.0.1:9464", "localhost:9464", "localhost", "[::1]:9464", "[::1]"] {
            assert!(asks(host), "{host}");
        }
        for host in ["evil.example", "evil.example:9464", "localhost.evil.example", ""] {
            assert!(!asks(host), "{host}");
        }
    }
}
