//! Calls of gRPC services: HTTP/2, with the status behind the messages
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, Request};
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use standfast_model::Stamp;
use standfast_runtime::with_causes;

use super::caller::Caller;
use super::http::{HttpError, IDLE_MAX, tcp};

use crate::ask::{ANSWER_BYTES_MAX, GrpcRequest, HttpRequest, MESSAGES_MAX, without_query};
use crate::run::{Problem, Standard};

const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";
/// The longest time that can be said, in milliseconds: eight digits.
const TIMEOUT_MS_MAX: u128 = 99_999_999;
/// Most of what a service says that a problem tells, in characters.
const EXCERPT_MAX: usize = 300;
/// Bytes before each message: whether it is packed, and its length.
const PREFIX: usize = 5;
/// The code by which a service says that it does not know who asks.
const UNAUTHENTICATED: u16 = 16;
/// The codes, each with its name and the status that HTTP has for it.
const CODES: [(&str, u16); 17] = [
    ("OK", 200),
    ("CANCELLED", 499),
    ("UNKNOWN", 500),
    ("INVALID_ARGUMENT", 400),
    ("DEADLINE_EXCEEDED", 408),
    ("NOT_FOUND", 404),
    ("ALREADY_EXISTS", 409),
    ("PERMISSION_DENIED", 403),
    ("RESOURCE_EXHAUSTED", 429),
    ("FAILED_PRECONDITION", 400),
    ("ABORTED", 409),
    ("OUT_OF_RANGE", 400),
    ("UNIMPLEMENTED", 501),
    ("INTERNAL", 500),
    ("UNAVAILABLE", 503),
    ("DATA_LOSS", 500),
    ("UNAUTHENTICATED", 401),
];

/// Sends requests by HTTP/2. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub(super) struct GrpcSender(Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, String>);

impl GrpcSender {
    pub(super) fn new() -> Self {
        let tls = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider());
        Self(tls.map_err(|why| why.to_string()).map(|tls| {
            let connector = tls.https_or_http().enable_http2().wrap_connector(tcp());
            let mut builder = Client::builder(TokioExecutor::new());
            builder.http2_only(true).pool_timer(TokioTimer::new()).pool_idle_timeout(IDLE_MAX);
            builder.build(connector)
        }))
    }
}

/// Calls, and returns the messages that were answered.
pub(super) async fn ask(
    sender: &GrpcSender,
    caller: &Caller,
    request: &GrpcRequest,
    deadline: Stamp,
) -> Result<Vec<Bytes>, Problem> {
    let shown = caller.shown(&request.http, deadline).await?;
    let left = deadline.since(caller.clock().now());
    let place = format!("the service at {}", without_query(&shown.uri));
    match call(sender, &shown, left, &place).await {
        Err(Refused { code: Some(UNAUTHENTICATED), problem }) => {
            caller.refused(&request.http, &shown).await;
            Err(problem)
        }
        answered => answered.map_err(|refused| refused.problem),
    }
}

/// Why there is no answer.
struct Refused {
    code: Option<u16>,
    problem: Problem,
}

impl From<Problem> for Refused {
    fn from(problem: Problem) -> Self {
        Self { code: None, problem }
    }
}

async fn call(
    sender: &GrpcSender,
    request: &HttpRequest,
    left: Duration,
    place: &str,
) -> Result<Vec<Bytes>, Refused> {
    let failed = |why: HttpError| Refused::from(why.into_problem(request));
    let client = sender.0.as_ref().map_err(|why| failed(HttpError::Wrong(why.clone())))?;
    let mut sent = Request::new(Full::new(request.body.clone()));
    *sent.method_mut() = request.method.clone();
    *sent.uri_mut() = request.uri.clone();
    *sent.headers_mut() = request.headers.clone();
    let millis = left.as_millis().min(TIMEOUT_MS_MAX);
    if let Ok(value) = HeaderValue::from_str(&format!("{millis}m")) {
        sent.headers_mut().insert(TIMEOUT, value);
    }
    let answer = client.request(sent).await.map_err(|why| failed(HttpError::Failed(why)))?;
    let (head, mut body) = answer.into_parts();
    if !head.status.is_success() {
        let detail = format!("{place} was answered with {}", head.status);
        return Err(Standard::Communication.problem(detail).with_status(head.status.as_u16()).into());
    }
    // A call that failed before it began says so at once.
    if head.headers.contains_key(STATUS) {
        check(&head.headers, place)?;
    }
    let (messages, trailers) = read(&mut body, place).await?;
    match trailers {
        Some(trailers) => check(&trailers, place)?,
        None if head.headers.contains_key(STATUS) => {}
        None => return Err(communication(format!("{place} ended its answer without a status")).into()),
    }
    Ok(messages)
}

async fn read(body: &mut Incoming, place: &str) -> Result<(Vec<Bytes>, Option<HeaderMap>), Problem> {
    let (mut bytes, mut messages, mut trailers, mut read) = (BytesMut::new(), Vec::new(), None, 0);
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|why| communication(format!("{place}: the answer broke off: {}", with_causes(&why))))?;
        match frame.into_data() {
            Ok(data) => {
                read += data.len();
                if read > ANSWER_BYTES_MAX {
                    let detail = format!("{place}: the answer is longer than {} KiB", ANSWER_BYTES_MAX >> 10);
                    return Err(communication(detail));
                }
                bytes.extend_from_slice(&data);
                while let Some(message) = message(&mut bytes, place)? {
                    messages.push(message);
                }
                if messages.len() > MESSAGES_MAX {
                    return Err(communication(format!("{place} sent more than {MESSAGES_MAX} messages")));
                }
            }
            Err(frame) => trailers = frame.into_trailers().ok().or(trailers),
        }
    }
    if !bytes.is_empty() {
        return Err(communication(format!("{place}: the answer ended within a message")));
    }
    Ok((messages, trailers))
}

/// The next message, if it is all there.
fn message(bytes: &mut BytesMut, place: &str) -> Result<Option<Bytes>, Problem> {
    if bytes.len() < PREFIX {
        return Ok(None);
    }
    if bytes[0] != 0 {
        return Err(communication(format!("{place} packed its answer, which was not asked for")));
    }
    let length = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
    if length > ANSWER_BYTES_MAX {
        return Err(communication(format!(
            "{place}: the answer is longer than {} KiB",
            ANSWER_BYTES_MAX >> 10
        )));
    }
    if bytes.len() < PREFIX + length {
        return Ok(None);
    }
    bytes.advance(PREFIX);
    Ok(Some(bytes.split_to(length).freeze()))
}

/// Whether a call did what it was to do.
fn check(headers: &HeaderMap, place: &str) -> Result<(), Refused> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let code = text(STATUS).parse::<u16>().unwrap_or(2);
    if code == 0 {
        return Ok(());
    }
    let (name, status) = CODES.get(usize::from(code)).copied().unwrap_or(CODES[2]);
    let said = percent_encoding::percent_decode_str(text(MESSAGE)).decode_utf8_lossy().into_owned();
    let said: String = said.chars().take(EXCERPT_MAX).collect();
    let detail = match said.trim() {
        "" => format!("{place} was answered with {name}"),
        said => format!("{place} was answered with {name}: {said}"),
    };
    let kind = match name {
        "UNAUTHENTICATED" => Standard::Authentication,
        "PERMISSION_DENIED" => Standard::Authorization,
        "DEADLINE_EXCEEDED" => Standard::Timeout,
        _ => Standard::Communication,
    };
    let mut problem = kind.problem(detail).with_status(status);
    if kind == Standard::Communication {
        problem.title = Some(name.to_owned());
    }
    Err(Refused { code: Some(code), problem })
}

fn communication(detail: String) -> Problem {
    Standard::Communication.problem(detail)
}
