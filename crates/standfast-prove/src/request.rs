//! A declared load made into requests: the id takes the place of `${id}`.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Method, Request, Uri};
use standfast_model::Load;

/// What stands for a request's own id.
const ID: &str = "${id}";
/// The header that carries the id as a key.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A load whose requests cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("load `{load}` makes no legal request: its {part} is not legal")]
pub struct BadLoad {
    /// Which load.
    pub load: String,
    /// Which part of it.
    pub part: &'static str,
    /// Why not.
    pub source: http::Error,
}

/// The name of one request: unique in the run, and across runs by the run's own name.
pub(crate) fn request_id(run: &str, load: &Load, number: u64) -> String {
    format!("{run}-{}-{number}", load.name)
}

/// Makes one request of a load.
pub(crate) fn request(load: &Load, id: &str) -> Result<Request<Bytes>, BadLoad> {
    let bad = |part: &'static str, source: http::Error| BadLoad { load: load.name.to_string(), part, source };
    let fill = |text: &str| text.replace(ID, id);
    let method = Method::from_bytes(load.method.as_bytes()).map_err(|error| bad("method", error.into()))?;
    let path: Uri = fill(&load.path).parse().map_err(|error| bad("path", http::Error::from(error)))?;
    let body = load.body.as_ref().map(|body| fill(&body.text)).unwrap_or_default();
    let mut request = Request::new(Bytes::from(body));
    *request.method_mut() = method;
    *request.uri_mut() = path;
    let headers = request.headers_mut();
    if let Some(body) = &load.body {
        let value = HeaderValue::from_str(&body.content_type);
        headers.insert(CONTENT_TYPE, value.map_err(|error| bad("content type", error.into()))?);
    }
    for (name, value) in &load.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|e| bad("header name", e.into()))?;
        let value = HeaderValue::from_str(&fill(value)).map_err(|e| bad("header value", e.into()))?;
        headers.insert(name, value);
    }
    if load.idempotency_key {
        let value = HeaderValue::from_str(id).map_err(|error| bad("id", error.into()))?;
        headers.insert(IDEMPOTENCY_KEY, value);
    }
    Ok(request)
}

/// Whether a request of this load may be repeated without a second effect: by its method, or since it carries a key.
pub(crate) fn is_repeatable(load: &Load) -> bool {
    load.idempotency_key
        || matches!(load.method.as_str(), "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    #[test]
    fn the_id_takes_its_place_everywhere() {
        let load = fixtures::load("checkout", 10.0);
        let made = request(&load, "run-checkout-7").unwrap();
        assert_eq!(made.uri(), "/orders?id=run-checkout-7");
        assert_eq!(made.headers()["x-order"], "run-checkout-7");
        assert_eq!(made.headers()["idempotency-key"], "run-checkout-7");
        assert_eq!(made.body().as_ref(), br#"{"order_id":"run-checkout-7"}"#);
    }

    #[test]
    fn an_illegal_load_is_refused_before_anything_is_sent() {
        let mut load = fixtures::load("checkout", 10.0);
        load.path = "/a b".to_owned();
        assert_eq!(request(&load, "x").unwrap_err().part, "path");
        load.path = "/".to_owned();
        load.headers.insert("x".to_owned(), "line\nfeed".to_owned());
        assert_eq!(request(&load, "x").unwrap_err().part, "header value");
    }
}
