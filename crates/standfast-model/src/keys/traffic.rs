use std::time::Duration;

use serde_json::{Value, json};

use super::edge::{CERTIFICATE, CertificateDraft};
use super::environment::path;
use super::http::{FIELD_NAME, Token, is_host};
use super::kept::keep_answers;
use crate::shape::{Choice, Count, Fields, Flag, FromText, Kinds, Object, Shape, Time, Whole, or_variable};
use crate::source::{At, Span};
use crate::traffic::{Balance, Concurrency, HashKey, Protocol, Traffic};
use crate::yaml::Kind;

/// Longest time that a request may take, be held, or that a replica may be spared.
pub(crate) const TIMEOUT_MAX: Duration = Duration::from_secs(3_600);
/// Shortest time that a request may take.
pub(crate) const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// Most times that one request is sent.
const ATTEMPTS_MAX: u32 = 100;
/// Most requests at a time that a limit may name.
pub(crate) const CONCURRENCY_MAX: u32 = 1_000_000;

/// `traffic`; paths are as they were written.
#[derive(Default)]
pub(crate) struct TrafficDraft {
    pub(crate) policy: Traffic,
    pub(crate) tls: Option<ReplicaTlsDraft>,
}

pub(crate) struct ReplicaTlsDraft {
    /// Where it stands.
    pub(crate) span: Span,
    pub(crate) server_name: Option<String>,
    pub(crate) ca: Option<At<String>>,
    pub(crate) certificate: Option<CertificateDraft>,
}

pub(crate) const TRAFFIC: Object<TrafficDraft> =
    Object { doc: "How the requests for the service are treated.", read: traffic };

fn traffic(f: &mut Fields<'_, '_>) -> Option<TrafficDraft> {
    let default = Traffic::default();
    let protocols = Choice(&[("http1", Protocol::Http1), ("http2", Protocol::Http2), ("tcp", Protocol::Tcp)]);
    let protocol = f.or(
        "protocol",
        "What it speaks: HTTP/1.1, HTTP/2 with prior knowledge (gRPC too), or bytes, whose connections are passed on.",
        protocols,
        default.protocol,
    );
    let timeout = f.or(
        "timeout",
        "From a request's head to its answer's head, all attempts together.",
        Time { min: TIMEOUT_MIN, max: TIMEOUT_MAX },
        default.timeout,
    );
    let attempts = f.or(
        "attempts",
        "How often one request may be sent, the first time included. Attempts in which nothing was sent are free.",
        Whole { min: 1, max: ATTEMPTS_MAX },
        default.attempts,
    );
    let up_to_an_hour = Time { min: Duration::ZERO, max: TIMEOUT_MAX };
    let hold = f.or(
        "hold",
        "How long one request waits while no replica can take it; then it is answered with 503.",
        up_to_an_hour,
        default.hold,
    );
    let hedge = f.or(
        "hedge",
        "Whether a GET that takes longer than 95 % of its kind is sent to a second replica.",
        Flag,
        default.hedge,
    );
    let balance = f.optional(
        "balance",
        "How a replica is chosen: `least-loaded`, `round-robin`, or `{hash: …}`: by a header field, a cookie, the path or \
         the client's address. Default: least-loaded.",
        balance(),
    );
    let slow_start = f.or(
        "slow_start",
        "How long a new replica is given less than its share; 0s is not at all.",
        up_to_an_hour,
        default.slow_start,
    );
    let concurrency = f.or(
        "concurrency",
        "How many requests its replicas are given at a time: `adaptive`, as many as they carry without getting slower; so \
         many in all; or `unlimited`.",
        ConcurrencyLimit,
        default.concurrency,
    );
    let keep_answers = f.optional(
        "keep_answers",
        "How long the first answer to a request with an `Idempotency-Key` is kept and given again, or a mapping. Default: \
         not at all.",
        keep_answers(),
    );
    let balance = balance.unwrap_or_default();
    if protocol == Protocol::Tcp {
        without_requests(f, &balance);
    }
    let tls = f.optional("tls", REPLICA_TLS.doc, REPLICA_TLS);
    let policy = Traffic {
        protocol,
        timeout,
        attempts,
        hold,
        hedge,
        balance,
        slow_start,
        concurrency,
        keep_answers,
        tls: None,
    };
    Some(TrafficDraft { policy, tls })
}

const REPLICA_TLS: Object<ReplicaTlsDraft> = Object {
    doc: "TLS to its replicas. The files are read again when they change. Default: connections to them are plain.",
    read: |f| {
        let server_name = f.optional(
            "server_name",
            "Whom its certificate must be for: a host name or an IP address. Default: the host of an external service's address.",
            ServerName,
        );
        let ca = f.optional(
            "ca",
            "Who signs its certificate, a PEM file, from the stack's folder. Default: the authorities that this machine knows.",
            path(),
        );
        let certificate =
            f.optional("certificate", "What the gateway shows of itself. Default: nothing.", CERTIFICATE);
        let (span, _) = f.reading()?;
        Some(ReplicaTlsDraft { span, server_name, ca, certificate })
    },
};

/// A host name in lower case, or an IP address.
struct ServerName;

impl FromText for ServerName {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, Option<String>> {
        if text.parse::<std::net::IpAddr>().is_ok() || is_host(text) {
            Ok(text.to_ascii_lowercase())
        } else {
            Err(text.contains(':').then(|| "leave the port out".to_owned()))
        }
    }

    fn expected(&self) -> String {
        "a host name or an IP address".to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"type": "string", "pattern": or_variable("^[0-9A-Za-z:]([0-9A-Za-z.:-]*[0-9A-Za-z:])?$")})
    }
}

/// Says what has no effect on connections that are passed on as they are.
fn without_requests(f: &mut Fields<'_, '_>, balance: &Balance) {
    for name in ["timeout", "attempts", "hedge", "keep_answers"] {
        if let (Some(place), Some((_, cx))) = (f.place_of(name), f.reading()) {
            let message = format!("`{name}` has no effect: with `protocol: tcp` there are no requests");
            cx.reports.warning(place, message, "remove it");
        }
    }
    let needs_request = matches!(balance, Balance::Hash(key) if *key != HashKey::Client);
    if let (true, Some(place), Some((_, cx))) = (needs_request, f.place_of("balance"), f.reading()) {
        let message = "this hash needs a request, and with `protocol: tcp` there are only connections";
        cx.reports.error_hint(place, message, "write `balance: {hash: client}`");
    }
}

fn balance() -> impl Shape<Value = Balance> {
    let words = Choice(&[("least-loaded", Balance::LeastLoaded), ("round-robin", Balance::RoundRobin)])
        .or("a mapping with `hash`");
    Kinds::new("`least-loaded`, `round-robin` or a mapping with `hash`").text(words).mapping(HASH)
}

const HASH: Object<Balance> = Object {
    doc: "The same key goes to the same replica as long as that one has room.",
    read: |f| {
        let key = f.required(
            "hash",
            "What the same replica is chosen by: `path`, `client`, `{header: x-user}` or `{cookie: session}`.",
            Kinds::new("`path`, `client` or a mapping with `header` or `cookie`")
                .text(
                    Choice(&[("path", HashKey::Path), ("client", HashKey::Client)])
                        .or("a mapping with `header` or `cookie`"),
                )
                .mapping(HASH_KEY),
        );
        Some(Balance::Hash(key?))
    },
};

const HASH_KEY: Object<HashKey> = Object {
    doc: "A header field or a cookie.",
    read: |f| {
        let header = f.optional(
            "header",
            "A header field. Requests without it go to the least loaded replica.",
            FIELD_NAME,
        );
        let cookie = f.optional(
            "cookie",
            "A cookie. Requests without it go to the least loaded replica.",
            Token { what: "the name of a cookie", is_lowered: false },
        );
        f.count(Count::One, &["header", "cookie"]);
        header.map(HashKey::Header).or(cookie.map(HashKey::Cookie))
    },
};

/// `adaptive`, `unlimited`, or a number.
struct ConcurrencyLimit;

impl FromText for ConcurrencyLimit {
    type Value = Concurrency;

    fn parse(&self, text: &str) -> Result<Concurrency, Option<String>> {
        match text {
            "adaptive" => Ok(Concurrency::Adaptive),
            "unlimited" => Ok(Concurrency::Unlimited),
            "0" => Err(Some("for no limit write `unlimited`".to_owned())),
            _ => Whole { min: 1, max: CONCURRENCY_MAX }.parse(text).map(Concurrency::Fixed),
        }
    }

    fn expected(&self) -> String {
        format!("`adaptive`, `unlimited` or a whole number from 1 to {CONCURRENCY_MAX}")
    }

    fn json_schema(&self) -> Value {
        json!({"anyOf": [
            {"type": "integer", "minimum": 1, "maximum": CONCURRENCY_MAX},
            {"type": "string", "pattern": or_variable("^(adaptive|unlimited|[0-9]+)$")},
        ]})
    }

    fn accepts(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Integer | Kind::Text)
    }

    fn shown(&self, value: &Concurrency) -> Value {
        match value {
            Concurrency::Adaptive => "adaptive".into(),
            Concurrency::Unlimited => "unlimited".into(),
            Concurrency::Fixed(number) => (*number).into(),
        }
    }
}
