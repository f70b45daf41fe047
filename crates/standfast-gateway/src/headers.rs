//! What the gateway changes in header fields.

use std::net::IpAddr;
use std::time::Duration;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};

use crate::error::Refusal;

/// Milliseconds that a request has left, decimal.
pub(crate) static DEADLINE: HeaderName = HeaderName::from_static("standfast-deadline");
/// Why the gateway answered itself, as a word.
pub(crate) static REASON: HeaderName = HeaderName::from_static("standfast-reason");
static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The longest deadline that is believed, in milliseconds: an hour.
const DEADLINE_MILLIS_MAX: u64 = 3_600_000;

/// What one pass over a request's header fields found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    hosts: usize,
    has_hop_by_hop: bool,
    has_forwarded: bool,
    has_expect: bool,
    pub(crate) has_transfer_encoding: bool,
    pub(crate) wants_upgrade: bool,
    pub(crate) has_idempotency_key: bool,
    /// What `Standfast-Deadline` says.
    pub(crate) left: Option<Duration>,
}

impl Found {
    /// Reads the header fields once.
    ///
    /// # Errors
    /// A request whose meaning two parties could see differently.
    pub(crate) fn in_request(headers: &HeaderMap, is_http_11: bool) -> Result<Self, Refusal> {
        let mut found = Self::default();
        for (name, value) in headers {
            match name.as_str() {
                "host" => found.hosts += 1,
                "connection" | "keep-alive" | "proxy-connection" | "te" | "proxy-authorization" => {
                    found.has_hop_by_hop = true;
                }
                "transfer-encoding" => {
                    (found.has_hop_by_hop, found.has_transfer_encoding) = (true, true);
                }
                "upgrade" => {
                    found.has_hop_by_hop = true;
                    // Nothing but WebSocket: an upgrade to h2c would carry requests past all checks.
                    found.wants_upgrade = value.as_bytes().eq_ignore_ascii_case(b"websocket");
                }
                "expect" => found.has_expect = true,
                "idempotency-key" => found.has_idempotency_key = !value.is_empty(),
                "standfast-deadline" => found.left = Some(parse_deadline(value)?),
                "forwarded" | "x-real-ip" => found.has_forwarded = true,
                other if other.starts_with("x-forwarded-") => found.has_forwarded = true,
                _ => {}
            }
        }
        if found.hosts > 1 {
            return Err(Refusal::BadRequest("the request names its host more than once"));
        }
        if found.hosts == 0 && is_http_11 {
            return Err(Refusal::BadRequest("the request names no host"));
        }
        found.wants_upgrade &= has_token(headers, &header::CONNECTION, "upgrade");
        Ok(found)
    }

    /// Takes out what is between this client and us only, and, for a listener that is open to anyone (`is_public`), what only
    /// a gateway may say.
    pub(crate) fn strip(&self, headers: &mut HeaderMap, is_public: bool) {
        if self.has_expect {
            headers.remove(header::EXPECT);
        }
        if self.has_hop_by_hop {
            let takes_trailers = has_token(headers, &header::TE, "trailers");
            let upgrade = if self.wants_upgrade { headers.get(header::UPGRADE).cloned() } else { None };
            strip_hop_by_hop(headers);
            if takes_trailers {
                headers.insert(header::TE, HeaderValue::from_static("trailers"));
            }
            if let Some(upgrade) = upgrade {
                headers.insert(header::UPGRADE, upgrade);
                headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            }
        }
        if is_public && self.has_forwarded {
            let spoofed: Vec<HeaderName> = headers
                .keys()
                .filter(|name| {
                    let name = name.as_str();
                    name.starts_with("x-forwarded-") || matches!(name, "forwarded" | "x-real-ip")
                })
                .cloned()
                .collect();
            for name in spoofed {
                headers.remove(name);
            }
        }
    }
}

/// Fields that mean something to the next hop only (RFC 9110, 7.6.1), besides those that `Connection` names.
static HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::TE,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
];

/// Takes the fields for the next hop out of a request or an answer.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let mut is_present = [false; HOP_BY_HOP.len()];
    let mut names_others = false;
    for (name, value) in &*headers {
        if let Some(index) = HOP_BY_HOP.iter().position(|hop| hop == name) {
            is_present[index] = true;
            let is_usual = [&b"keep-alive"[..], b"close"]
                .iter()
                .any(|usual| value.as_bytes().eq_ignore_ascii_case(usual));
            names_others |= index == 0 && !is_usual;
        }
    }
    if names_others {
        for name in named_by_connection(headers) {
            headers.remove(name);
        }
    }
    for (name, _) in HOP_BY_HOP.iter().zip(is_present).filter(|(_, is_present)| *is_present) {
        headers.remove(name);
    }
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    // What decides where a message ends, whom it is for and whether it may be repeated cannot be declared away.
    let is_needed =
        |name: &HeaderName| matches!(name.as_str(), "host" | "content-length" | "idempotency-key");
    headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| !is_needed(name))
        .collect()
}

/// Takes the fields for the next hop out of an answer. An upgrade keeps what makes it one.
pub(crate) fn strip_answer(headers: &mut HeaderMap, status: StatusCode) {
    let is_upgrade = status == StatusCode::SWITCHING_PROTOCOLS;
    let upgrade = if is_upgrade { headers.get(header::UPGRADE).cloned() } else { None };
    strip_hop_by_hop(headers);
    if let Some(upgrade) = upgrade {
        headers.insert(header::UPGRADE, upgrade);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
}

/// What the gateway says of a client's connection to the replica, made once for a connection.
#[derive(Debug)]
pub(crate) struct Forwarded {
    address: IpAddr,
    forwarded_for: HeaderValue,
    /// The value of `Forwarded` for the host that it was made for.
    last: Option<(HeaderValue, HeaderValue)>,
}

impl Forwarded {
    pub(crate) fn new(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let text = address.to_string();
        let forwarded_for = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("unknown"));
        Self { address, forwarded_for, last: None }
    }

    /// Sets `X-Forwarded-For`, `-Host`, `-Proto` and `Forwarded` (RFC 7239).
    ///
    /// # Errors
    /// The host cannot be one.
    pub(crate) fn set(&mut self, headers: &mut HeaderMap) -> Result<(), Refusal> {
        // These four and the deadline, in one go.
        headers.reserve(5);
        headers.insert(&FORWARDED_FOR, self.forwarded_for.clone());
        headers.insert(&FORWARDED_PROTO, HeaderValue::from_static("http"));
        let Some(host) = headers.get(header::HOST).cloned() else { return Ok(()) };
        let forwarded = match &self.last {
            Some((last_host, forwarded)) if *last_host == host => forwarded.clone(),
            _ => {
                let forwarded = forwarded_value(self.address, &host)?;
                self.last = Some((host.clone(), forwarded.clone()));
                forwarded
            }
        };
        headers.insert(&FORWARDED_HOST, host);
        headers.insert(header::FORWARDED, forwarded);
        Ok(())
    }
}

fn forwarded_value(address: IpAddr, host: &HeaderValue) -> Result<HeaderValue, Refusal> {
    let is_host_byte = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(byte);
    let bad = Refusal::BadRequest("the host is not a name or address");
    let host = host.to_str().map_err(|_| bad.clone())?;
    if !host.as_bytes().iter().all(is_host_byte) {
        return Err(bad);
    }
    let address = match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    HeaderValue::try_from(format!("for={address};host=\"{host}\";proto=http")).map_err(|_| bad)
}

/// Whether carrying out the request twice means no more than once (RFC 9110, 9.2.2), or its key lets the service see to that.
pub(crate) fn is_repeatable(method: &Method, has_idempotency_key: bool) -> bool {
    method.is_idempotent() || has_idempotency_key
}

/// What `Retry-After` says, when it is a number of seconds.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The value of `Standfast-Deadline` for the time left.
pub(crate) fn deadline_value(left: Duration) -> HeaderValue {
    HeaderValue::from(u64::try_from(left.as_millis()).unwrap_or(DEADLINE_MILLIS_MAX))
}

fn parse_deadline(value: &HeaderValue) -> Result<Duration, Refusal> {
    let millis = value
        .to_str()
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .map(str::parse::<u64>);
    match millis {
        Some(Ok(millis)) => Ok(Duration::from_millis(millis.min(DEADLINE_MILLIS_MAX))),
        _ => Err(Refusal::BadRequest("standfast-deadline is not a number of milliseconds")),
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.split(';').next().unwrap_or(part).trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        headers.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn fields_for_the_next_hop_only_are_taken_out_and_trailers_stay_wanted() {
        let mut headers = map(&[
            ("host", "a"),
            ("connection", "keep-alive, x-secret, host"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers, deflate"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        Found::in_request(&headers, true).unwrap().strip(&mut headers, true);
        assert_eq!(names(&headers), ["host", "accept", "te"]);
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn what_a_client_says_of_itself_is_replaced_on_a_public_listener_only() {
        let fields = [
            ("host", "a:80"),
            ("x-forwarded-for", "6.6.6.6"),
            ("forwarded", "for=6.6.6.6"),
            ("x-real-ip", "6"),
        ];
        let mut inner = map(&fields);
        Found::in_request(&inner, true).unwrap().strip(&mut inner, false);
        assert_eq!(inner.len(), 4);
        let mut outer = map(&fields);
        Found::in_request(&outer, true).unwrap().strip(&mut outer, true);
        assert_eq!(names(&outer), ["host"]);
        Forwarded::new("::ffff:10.0.0.1".parse().unwrap()).set(&mut outer).unwrap();
        assert_eq!(outer["x-forwarded-for"], "10.0.0.1");
        assert_eq!(outer["x-forwarded-host"], "a:80");
        assert_eq!(outer["forwarded"], "for=10.0.0.1;host=\"a:80\";proto=http");
    }

    #[test]
    fn ambiguous_requests_are_refused() {
        assert!(Found::in_request(&map(&[("host", "a"), ("host", "a")]), true).is_err());
        assert!(Found::in_request(&map(&[]), true).is_err());
        assert!(Found::in_request(&map(&[]), false).is_ok());
        assert!(Found::in_request(&map(&[("host", "a"), ("standfast-deadline", "+5")]), true).is_err());
        assert!(Forwarded::new(IpAddr::from([1, 1, 1, 1])).set(&mut map(&[("host", "a\"b")])).is_err());
    }

    #[test]
    fn an_upgrade_keeps_its_two_fields() {
        let mut headers = map(&[("host", "a"), ("connection", "Upgrade"), ("upgrade", "websocket")]);
        let found = Found::in_request(&headers, true).unwrap();
        assert!(found.wants_upgrade);
        found.strip(&mut headers, true);
        assert_eq!(
            (&headers["connection"], &headers["upgrade"]),
            (&"upgrade".parse().unwrap(), &"websocket".parse().unwrap())
        );
    }
}
