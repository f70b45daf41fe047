//! Events that come in: `CloudEvents` 1.0 over HTTP, structured, in binary mode, or many in one body
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md>).

use std::sync::Arc;

use ::http::header::CONTENT_TYPE;
use ::http::{Request, Response, StatusCode};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::answer::{Answer, bad, body, data, refused};
use crate::engine::Engine;

/// Most events in one body.
const EVENTS_MAX: usize = 1_000;

pub(super) async fn publish(engine: &Engine, request: &Request<Bytes>) -> Answer {
    let events = read(request)?;
    let events: Vec<Arc<Value>> = events.into_iter().map(Arc::new).collect();
    let given = engine.publish_all(&events).await.map_err(|why| refused(&why))?;
    let given: Vec<Value> = given.into_iter().map(|runs| json!({"runs": runs})).collect();
    Ok(data(StatusCode::OK, &json!({"events": given})))
}

fn read(request: &Request<Bytes>) -> Result<Vec<Value>, Box<Response<Bytes>>> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if request.headers().contains_key("ce-type") {
        return Ok(vec![binary(request, &kind)?]);
    }
    match (kind.as_str(), body(request)?) {
        ("application/cloudevents-batch+json", Value::Array(events)) if events.len() <= EVENTS_MAX => {
            Ok(events)
        }
        ("application/cloudevents-batch+json", _) => {
            Err(bad(format!("a batch is a list of at most {EVENTS_MAX} events")))
        }
        (_, event @ Value::Object(_)) => Ok(vec![event]),
        _ => Err(bad(
            "an event is an object with `id`, `source` and `type`, or has them in `ce-` header fields",
        )),
    }
}

/// Attributes in header fields, the data as the body.
fn binary(request: &Request<Bytes>, kind: &str) -> Result<Value, Box<Response<Bytes>>> {
    let mut event = Map::new();
    for (name, value) in request.headers() {
        if let Some(name) = name.as_str().strip_prefix("ce-") {
            let text = value.to_str().map_err(|_| bad(format!("`ce-{name}` must be visible ASCII")))?;
            let text = percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
            event.insert(name.to_owned(), text.into());
        }
    }
    if !request.body().is_empty() {
        let value = match kind.is_empty() || kind.ends_with("json") {
            true => body(request)?,
            false => String::from_utf8_lossy(request.body()).into_owned().into(),
        };
        event.insert("data".to_owned(), value);
    }
    Ok(Value::Object(event))
}
