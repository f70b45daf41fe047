//! `call: a2a`: what an agent is asked.

use ::http::header::{ACCEPT, CONTENT_TYPE};
use ::http::{HeaderMap, HeaderValue, Method};
use ring::digest::{SHA256, digest};
use serde_json::{Map, Value, json};

use super::{AgentRequest, HttpRequest, Writing, access, http, uri};
use crate::program::Agent;
use crate::run::{Problem, Standard};

pub(super) fn request(writing: &Writing<'_>, agent: &Agent) -> Result<AgentRequest, Problem> {
    let mut params = match &agent.parameters {
        Some(form) => Value::clone(&*writing.fill(form)?),
        None => Value::Null,
    };
    if params.is_null() {
        params = Value::Object(Map::new());
    }
    if !params.is_object() {
        return Err(Standard::Configuration.problem("`parameters` must be an object"));
    }
    if agent.sends {
        complete(&mut params, writing.key);
    }
    let id = Value::from(id_of(writing.key));
    let body = json!({"jsonrpc": "2.0", "id": id, "method": agent.method, "params": params});
    let accepted = if agent.streams { "text/event-stream" } else { "application/json" };
    let mut headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (ACCEPT, HeaderValue::from_static(accepted)),
    ]);
    let credential = match &agent.access {
        Some(access) => access::show(writing, access, &mut headers)?,
        None => None,
    };
    http::name_step(writing, &mut headers)?;
    let uri = uri::of_http(&uri::written(writing, &agent.address)?)?;
    let http = HttpRequest { method: Method::POST, uri, headers, body: body.to_string().into(), credential };
    Ok(AgentRequest { http, id, streams: agent.streams })
}

/// A message has a name and says who speaks. Its name is the step's, so that an agent that is asked again knows it.
fn complete(params: &mut Value, key: &str) {
    let message = &mut params["message"];
    if message.is_null() {
        *message = json!({});
    }
    let Some(fields) = message.as_object_mut() else { return };
    fields.entry("messageId").or_insert_with(|| id_of(key).into());
    fields.entry("role").or_insert_with(|| "user".into());
    fields.entry("kind").or_insert_with(|| "message".into());
}

/// A UUID (version 8) that is always the same for the same step.
fn id_of(key: &str) -> String {
    let hash = digest(&SHA256, key.as_bytes());
    let mut bytes = [0_u8; 16];
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = |range: std::ops::Range<usize>| -> String {
        bytes[range].iter().map(|byte| format!("{byte:02x}")).collect()
    };
    format!("{}-{}-{}-{}-{}", hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_has_one_id_that_is_a_uuid() {
        let id = id_of("run/do/0/ask");
        assert_eq!((id.len(), id_of("run/do/0/ask") == id, id_of("other") == id), (36, true, false));
        assert_eq!(&id[14..15], "8");
    }
}
