use ::http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use ::http::{HeaderValue, Request, Response, StatusCode};
use bytes::Bytes;
use serde_json::{Value, json};

use super::routes::{Kind, Route};
use crate::engine::Refused;

/// What is answered; on the left what is answered in place of it.
pub(super) type Answer = Result<Response<Bytes>, Box<Response<Bytes>>>;

/// Seconds after which a request that came at a bad moment may be repeated.
const AGAIN_S: u64 = 1;

pub(super) fn data(status: StatusCode, value: &Value) -> Response<Bytes> {
    typed(status, value, "application/json")
}

/// Problem details (RFC 9457).
pub(super) fn problem(status: StatusCode, detail: &str) -> Response<Bytes> {
    let title = status.canonical_reason().unwrap_or("Error");
    let value = json!({"type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail});
    typed(status, &value, "application/problem+json")
}

/// The same, with something more.
pub(super) fn problem_with(status: StatusCode, detail: &str, name: &str, more: Value) -> Response<Bytes> {
    let title = status.canonical_reason().unwrap_or("Error");
    let mut value =
        json!({"type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail});
    value[name] = more;
    typed(status, &value, "application/problem+json")
}

pub(super) fn not_allowed(methods: &str) -> Response<Bytes> {
    let mut answer = problem(StatusCode::METHOD_NOT_ALLOWED, &format!("allowed here: {methods}"));
    if let Ok(methods) = HeaderValue::from_str(methods) {
        answer.headers_mut().insert(ALLOW, methods);
    }
    answer
}

pub(super) fn bad(detail: impl AsRef<str>) -> Box<Response<Bytes>> {
    Box::new(problem(StatusCode::BAD_REQUEST, detail.as_ref()))
}

fn typed(status: StatusCode, value: &Value, kind: &'static str) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from(value.to_string()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}

/// What the engine refuses.
pub(super) fn refused(why: &Refused) -> Box<Response<Bytes>> {
    let status = match why {
        Refused::NoWorkflow { .. } | Refused::NoRun(_) | Refused::NoQuery { .. } => StatusCode::NOT_FOUND,
        Refused::Ended(_) | Refused::Unfit(_) | Refused::StartedBefore => StatusCode::CONFLICT,
        Refused::Busy(_) | Refused::Overloaded { .. } => StatusCode::TOO_MANY_REQUESTS,
        Refused::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Refused::Wrong(_) => StatusCode::BAD_REQUEST,
        Refused::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
        Refused::Full | Refused::Delayed | Refused::Stopped(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut answer = problem(status, &why.to_string());
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        let again_s = match why {
            Refused::Overloaded { again_s, .. } => *again_s,
            _ => AGAIN_S,
        };
        answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(again_s));
    }
    Box::new(answer)
}

/// A body of JSON; an empty one is null.
pub(super) fn body(request: &Request<Bytes>) -> Result<Value, Box<Response<Bytes>>> {
    if request.body().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(request.body()).map_err(|why| bad(format!("the body is not JSON: {why}")))
}

/// The parameters of a query, of which a route knows some.
pub(super) fn query(
    request: &Request<Bytes>,
    route: &Route,
) -> Result<Vec<(String, String)>, Box<Response<Bytes>>> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text)
            .decode_utf8()
            .map(std::borrow::Cow::into_owned)
            .map_err(|_| bad("the query is not UTF-8"))
    };
    let pairs = request.uri().query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
    let mut found: Vec<(String, String)> = Vec::new();
    for pair in pairs {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        let Some(known) = route.query.iter().find(|known| known.name == name) else {
            let known: Vec<&str> = route.query.iter().map(|known| known.name).collect();
            let known =
                if known.is_empty() { "none".to_owned() } else { format!("only {}", known.join(", ")) };
            return Err(bad(format!("there is no parameter `{name}` here, {known}")));
        };
        if known.kind != Kind::Texts && found.iter().any(|(before, _)| *before == name) {
            return Err(bad(format!("`{name}` is there twice")));
        }
        found.push((name, value));
    }
    Ok(found)
}
