//! Spans as OTLP has them, in its JSON form (OTLP 1.x: ids in hexadecimal, 64-bit numbers as texts), with the attributes of
//! OpenTelemetry's semantic conventions for HTTP, and ours under `standfast.`. Pure.

use serde_json::{Value, json};
use standfast_model::Stamp;

use crate::explain::{Attempt, AttemptEnd, Record};
use crate::spans::{RequestSpans, SpanId};
use crate::trace::{TraceContext, hex_of};

const SCOPE: &str = "standfast.gateway";
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Kinds of spans.
const SERVER: u8 = 2;
const CLIENT: u8 = 3;
/// The status of a span that failed.
const ERROR: u8 = 2;
/// Of a span's flags: it is known whether the parent is of another process…
const HAS_IS_REMOTE: u32 = 0x100;
/// …and it is.
const IS_REMOTE: u32 = 0x200;

/// Who sends spans.
#[derive(Debug, Clone)]
pub struct Sender {
    /// The stack that the gateway works for: `service.namespace`.
    pub stack: String,
    /// Tells this process from others of its kind: `service.instance.id`.
    pub instance: String,
}

/// The body of a request that exports these spans.
pub(crate) fn encode(requests: &[RequestSpans], sender: &Sender) -> Vec<u8> {
    let spans: Vec<Value> = requests.iter().flat_map(spans_of).collect();
    let resource = [
        text("service.name", "standfast-gateway"),
        text("service.namespace", &sender.stack),
        text("service.instance.id", &sender.instance),
        text("service.version", VERSION),
    ];
    let whole = json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{"scope": {"name": SCOPE, "version": VERSION}, "spans": spans}],
    }]});
    whole.to_string().into_bytes()
}

/// How many spans a collector says in its answer that it refused.
pub(crate) fn refused(answer: &[u8]) -> u64 {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let refused = &answer["partialSuccess"]["rejectedSpans"];
    // A 64-bit number, so rather a text.
    refused.as_u64().or_else(|| refused.as_str()?.parse().ok()).unwrap_or(0)
}

fn spans_of(request: &RequestSpans) -> impl Iterator<Item = Value> {
    let attempts = request.record.attempts.iter().zip(&request.attempts).enumerate();
    let attempts = attempts.map(|(number, (attempt, id))| of_attempt(request, attempt, *id, number));
    std::iter::once(of_request(request)).chain(attempts)
}

/// The gateway's own span: from the request's head to the end of its answer.
fn of_request(request: &RequestSpans) -> Value {
    let RequestSpans { trace, parent, record, .. } = request;
    let name = match &record.route {
        Some(route) => format!("{} {route}", record.method),
        None => record.method.clone(),
    };
    let remote = if parent.is_some() { HAS_IS_REMOTE | IS_REMOTE } else { HAS_IS_REMOTE };
    let mut span = span(request, trace.span_id, *parent, remote, SERVER, &name);
    times(&mut span, record.at, 0.0, record.took_ms);
    let (host, port) = host_and_port(&request.host);
    let (version, error) = (request.protocol.trim_start_matches("HTTP/"), error_of_request(record));
    let attributes = [
        Some(text("http.request.method", &record.method)),
        Some(text("url.path", &record.path)),
        Some(text("server.address", host)),
        port.map(|port| number("server.port", port)),
        Some(text("client.address", &record.client.to_string())),
        Some(text("network.protocol.version", version.trim_end_matches(".0"))),
        record.route.as_deref().map(|route| text("http.route", route)),
        record.status.map(|status| number("http.response.status_code", status.into())),
        request.user_agent.as_deref().map(|agent| text("user_agent.original", agent)),
        error.as_deref().map(|error| text("error.type", error)),
        Some(number("http.request.body.size", record.bytes_in)),
        Some(number("http.response.body.size", record.bytes_out)),
        Some(text("standfast.request_id", &record.id)),
        record.service.as_ref().map(|service| text("standfast.service", service.as_str())),
        record.reason.as_deref().map(|reason| text("standfast.reason", reason)),
        Some(fraction("standfast.waited_ms", record.waited_ms)),
    ];
    finish(span, attributes.into_iter().flatten().collect(), error)
}

/// `Host` in its parts.
fn host_and_port(authority: &str) -> (&str, Option<u64>) {
    let parts = authority.rsplit_once(':').filter(|(host, _)| !host.contains(':') || host.ends_with(']'));
    match parts.map(|(host, port)| (host, port.parse())) {
        Some((host, Ok(port))) => (host, Some(port)),
        _ => (authority, None),
    }
}

/// The span of one attempt: until the head of the replica's answer.
fn of_attempt(request: &RequestSpans, attempt: &Attempt, id: SpanId, resends: usize) -> Value {
    let record = &request.record;
    let parent = Some(request.trace.span_id);
    let mut span = span(request, id, parent, HAS_IS_REMOTE, CLIENT, &record.method);
    times(&mut span, record.at, attempt.started_after_ms, attempt.took_ms);
    let error = match (attempt.end, attempt.status) {
        // To a client 4xx is a failure too.
        (_, Some(status)) if status >= 400 => Some(status.to_string()),
        (AttemptEnd::Answered | AttemptEnd::Dropped | AttemptEnd::Beaten, _) => None,
        (end, _) => Some(end.word().to_owned()),
    };
    let attributes = [
        Some(text("http.request.method", &record.method)),
        Some(text("server.address", &attempt.address.ip().to_string())),
        Some(number("server.port", attempt.address.port().into())),
        attempt.status.map(|status| number("http.response.status_code", status.into())),
        (resends > 0).then(|| number("http.request.resend_count", resends as u64)),
        error.as_deref().map(|error| text("error.type", error)),
        record.service.as_ref().map(|service| text("standfast.service", service.as_str())),
        Some(text("standfast.replica", &attempt.instance.to_string())),
        Some(text("standfast.zone", attempt.zone.as_str())),
        Some(text("standfast.end", attempt.end.word())),
        attempt.is_hedge.then(|| json!({"key": "standfast.hedge", "value": {"boolValue": true}})),
    ];
    finish(span, attributes.into_iter().flatten().collect(), error)
}

/// To a server only its own failures are failures.
fn error_of_request(record: &Record) -> Option<String> {
    match (&record.reason, record.status) {
        (Some(reason), Some(500..)) => Some(reason.to_string()),
        (_, Some(status @ 500..)) => Some(status.to_string()),
        (_, Some(_)) => None,
        (_, None) => Some("client-left".to_owned()),
    }
}

fn span(
    request: &RequestSpans,
    id: SpanId,
    parent: Option<SpanId>,
    remote: u32,
    kind: u8,
    name: &str,
) -> Value {
    let TraceContext { trace_id, flags, .. } = &request.trace;
    let mut span = json!({
        "traceId": hex_of(trace_id),
        "spanId": hex_of(&id),
        "flags": u32::from(*flags) | remote,
        "name": name,
        "kind": kind,
    });
    if let Some(parent) = parent {
        span["parentSpanId"] = hex_of(&parent).into();
    }
    if let Some(state) = &request.state {
        span["traceState"] = state.as_str().into();
    }
    span
}

fn times(span: &mut Value, at: Stamp, after_ms: f64, took_ms: f64) {
    let nanos = |millis: f64| u128::from(at.as_micros()) * 1_000 + (millis.max(0.0) * 1e6) as u128;
    span["startTimeUnixNano"] = nanos(after_ms).to_string().into();
    span["endTimeUnixNano"] = nanos(after_ms + took_ms).to_string().into();
}

fn finish(mut span: Value, attributes: Vec<Value>, error: Option<String>) -> Value {
    span["attributes"] = attributes.into();
    if error.is_some() {
        span["status"] = json!({"code": ERROR});
    }
    span
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn number(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

fn fraction(key: &str, value: f64) -> Value {
    json!({"key": key, "value": {"doubleValue": value}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_told_without_its_port() {
        assert_eq!(host_and_port("shop.test:8080"), ("shop.test", Some(8_080)));
        assert_eq!(host_and_port("[fd00::1]:80"), ("[fd00::1]", Some(80)));
        for alone in ["shop.test", "[fd00::1]", "shop.test:", ""] {
            assert_eq!(host_and_port(alone), (alone, None));
        }
    }

    #[test]
    fn what_a_collector_refused_is_read_from_its_answer() {
        assert_eq!(refused(b"{}"), 0);
        assert_eq!(refused(b""), 0);
        assert_eq!(refused(br#"{"partialSuccess": {"rejectedSpans": "3", "errorMessage": "no"}}"#), 3);
        assert_eq!(refused(br#"{"partialSuccess": {"rejectedSpans": 4}}"#), 4);
    }
}
