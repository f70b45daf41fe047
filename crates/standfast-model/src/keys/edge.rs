use std::time::Duration;

use super::environment::path;
use super::otlp::OTLP;
use crate::otlp::Otlp;
use crate::shape::{Bytes, Choice, Context, Fields, Flag, Kinds, List, Object, Shape, Time, Whole};
use crate::source::{At, Span};
use crate::traffic::{AccessFormat, EdgeLimits};

/// The TLS port when the stack names none.
const TLS_PORT: u32 = 8_443;
/// Least and most bytes of a request's head.
const HEADER_BYTES: (u64, u64) = (1 << 10, 1 << 20);
/// Most header fields of a request.
const HEADERS_MAX: u32 = 1_000;
/// Most bytes of a request's body.
const BODY_BYTES_MAX: u64 = 1 << 40;
/// Most connections of one client address.
const CONNECTIONS_MAX: u32 = 1_000_000;
/// Most streams of one HTTP/2 connection.
const STREAMS_MAX: u32 = 10_000;
/// Shortest and longest time that a client may take.
const TIMES: Time = Time { min: Duration::from_millis(100), max: Duration::from_secs(24 * 3_600) };
/// The rarest that requests are written down.
const SAMPLE_MAX: u32 = 1_000_000;

/// `gateway`; paths are as they were written.
#[derive(Default)]
pub(crate) struct EdgeDraft {
    pub(crate) tls: Option<TlsDraft>,
    pub(crate) proxy_protocol: bool,
    pub(crate) access_log: Option<AccessLogDraft>,
    pub(crate) otlp: Option<Otlp>,
    pub(crate) fault_key_file: Option<At<String>>,
    pub(crate) limits: EdgeLimits,
}

pub(crate) struct TlsDraft {
    pub(crate) port: At<u16>,
    pub(crate) certificates: Vec<CertificateDraft>,
    pub(crate) client_ca: Option<At<String>>,
}

pub(crate) struct CertificateDraft {
    pub(crate) cert: At<String>,
    pub(crate) key: At<String>,
}

pub(crate) struct AccessLogDraft {
    pub(crate) path: String,
    pub(crate) format: AccessFormat,
    pub(crate) sample: u32,
}

pub(crate) const EDGE: Object<EdgeDraft> =
    Object { doc: "How the gateway meets clients from outside.", read: edge };

fn edge(f: &mut Fields<'_, '_>) -> Option<EdgeDraft> {
    let tls = f.optional("tls", TLS.doc, TLS);
    let proxy_protocol = f.or(
        "proxy_protocol",
        "Whether connections begin with a PROXY protocol header, version 1 or 2, whose address is believed.",
        Flag,
        false,
    );
    let access_log = f.optional(
        "access_log",
        "Where requests are written down: a file, or a mapping with `path`. Default: nowhere.",
        access_log(),
    );
    let otlp = f.optional("otlp", OTLP.doc, OTLP);
    let fault_key_file = f.optional(
        "fault_key_file",
        "The key by which faults of single requests (`Standfast-Fault`) are signed, a file of 16 bytes at least, from the stack's folder. It is \
         read again when it changes. Default: nobody's are obeyed.",
        path(),
    );
    let limits = f.optional("limits", LIMITS.doc, LIMITS);
    let limits = limits.unwrap_or_default();
    Some(EdgeDraft { tls, proxy_protocol, access_log, otlp, fault_key_file, limits })
}

const TLS: Object<TlsDraft> = Object { doc: "TLS to clients.", read: tls };

fn tls(f: &mut Fields<'_, '_>) -> Option<TlsDraft> {
    let port =
        f.or("port", "The port; 0 takes a free one.", Whole { min: 0, max: u16::MAX.into() }, TLS_PORT);
    let place = f.place_of("port").or_else(|| f.reading().map(|(place, _)| place));
    let certificates = f.required(
        "certificates",
        "Certificate chains with their keys. The first is for clients that name no host, or one that no other is for.",
        List { item: CERTIFICATE, min: 1 },
    );
    let client_ca = f.optional(
        "client_ca",
        "Who signs clients' certificates, a PEM file: clients must then show one. Default: they need none.",
        path(),
    );
    let port = At { value: u16::try_from(port).ok()?, span: place? };
    Some(TlsDraft { port, certificates: certificates?, client_ca })
}

pub(crate) const CERTIFICATE: Object<CertificateDraft> = Object {
    doc: "A certificate chain and its key. The files are read again when they change.",
    read: |f| {
        let cert = f.required("cert", "The chain, a PEM file, from the stack's folder.", path());
        let key = f.required("key", "The private key, a PEM file, from the stack's folder.", path());
        Some(CertificateDraft { cert: cert?, key: key? })
    },
};

fn access_log() -> impl Shape<Value = AccessLogDraft> {
    let plain = |path: At<String>, _: Span, _: &mut Context<'_>| {
        Some(AccessLogDraft { path: path.value, format: AccessFormat::default(), sample: 1 })
    };
    Kinds::new("a path, or a mapping with `path`").text(path().and_then(plain)).mapping(ACCESS_LOG)
}

const ACCESS_LOG: Object<AccessLogDraft> = Object {
    doc: "Where and how requests are written down.",
    read: |f| {
        let path = f.required("path", "The file, from the stack's folder.", path());
        let formats = Choice(&[("json", AccessFormat::Json), ("combined", AccessFormat::Combined)]);
        let format = f.or(
            "format",
            "One JSON object a line, or Apache's combined format.",
            formats,
            AccessFormat::default(),
        );
        let sample = f.or(
            "sample",
            "One in so many requests is written; failed, retried and slow ones always.",
            Whole { min: 1, max: SAMPLE_MAX },
            1,
        );
        Some(AccessLogDraft { path: path?.value, format, sample })
    },
};

const LIMITS: Object<EdgeLimits> = Object { doc: "Limits for clients.", read: limits };

fn limits(f: &mut Fields<'_, '_>) -> Option<EdgeLimits> {
    let default = EdgeLimits::default();
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let header_bytes_max = f.or(
        "header_bytes",
        "Bytes of a request's head; a longer one is answered with 431.",
        Bytes { of: "bytes", min: HEADER_BYTES.0, max: HEADER_BYTES.1 },
        default.header_bytes_max as u64,
    );
    let header_count_max = f.or(
        "headers",
        "Header fields of a request; more are answered with 431.",
        Whole { min: 1, max: HEADERS_MAX },
        count(default.header_count_max),
    );
    let body_bytes_max = f.or(
        "body_bytes",
        "Bytes of a request's body; a longer one is answered with 413.",
        Bytes { of: "bytes", min: 0, max: BODY_BYTES_MAX },
        default.body_bytes_max,
    );
    let connections_per_client_max = f.or(
        "connections_per_client",
        "Connections of one client address at a time; further ones are closed.",
        Whole { min: 1, max: CONNECTIONS_MAX },
        count(default.connections_per_client_max),
    );
    let streams_max = f.or(
        "streams",
        "Streams of one HTTP/2 connection at a time.",
        Whole { min: 1, max: STREAMS_MAX },
        default.streams_max,
    );
    let header_timeout = f.or(
        "header_timeout",
        "From the first byte of a request to the end of its head.",
        TIMES,
        default.header_timeout,
    );
    let idle_timeout =
        f.or("idle_timeout", "How long a connection may lie idle.", TIMES, default.idle_timeout);
    let stall_timeout = f.or(
        "stall_timeout",
        "How long a body may make no progress in either direction.",
        TIMES,
        default.stall_timeout,
    );
    Some(EdgeLimits {
        header_bytes_max: size(header_bytes_max),
        header_count_max: size(header_count_max.into()),
        body_bytes_max,
        connections_per_client_max: size(connections_per_client_max.into()),
        streams_max,
        header_timeout,
        idle_timeout,
        stall_timeout,
    })
}
