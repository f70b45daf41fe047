//! `call: asyncapi`: a message that is sent by HTTP.

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderValue, Method};
use bytes::Bytes;
use serde_json::Value;

use super::uri::{encode, of_http};
use super::{HttpRequest, Writing, access, http};
use crate::decide::as_text;
use crate::program::Publish;
use crate::run::{Problem, Standard};

pub(super) fn request(writing: &Writing<'_>, call: &Publish) -> Result<HttpRequest, Problem> {
    let wrong = |detail: String| Standard::Configuration.problem(detail);
    let variables = match &call.variables {
        Some(form) => Value::clone(&*writing.fill(form)?),
        None => Value::Null,
    };
    let mut address = call.publication.address.clone();
    for (name, value) in variables.as_object().into_iter().flatten() {
        let value = as_text(value).ok_or_else(|| wrong(format!("the variable `{name}` must be a text")))?;
        address = address.replace(&format!("{{{name}}}"), &encode(&value));
    }
    for (name, value) in &call.publication.defaults {
        address = address.replace(&format!("{{{name}}}"), value);
    }
    if let Some((_, rest)) = address.split_once('{') {
        let name = rest.split('}').next().unwrap_or(rest);
        return Err(wrong(format!("the variable `{name}` is missing: give it under `server.variables`")));
    }
    let mut headers = HeaderMap::new();
    if let Some(form) = &call.headers {
        http::add_headers(&mut headers, &*writing.fill(form)?)?;
    }
    let kind = HeaderValue::from_str(&call.publication.kind)
        .map_err(|_| wrong("the message's type is no type".to_owned()))?;
    headers.entry(CONTENT_TYPE).or_insert(kind);
    let body = match &call.payload {
        Some(form) => http::body(&*writing.fill(form)?, &mut headers),
        None => Bytes::new(),
    };
    let credential = match &call.access {
        Some(access) => access::show(writing, access, &mut headers)?,
        None => None,
    };
    http::name_step(writing, &mut headers)?;
    let method = &call.publication.method;
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| wrong(format!("`{method}` is no method of HTTP")))?;
    Ok(HttpRequest { method, uri: of_http(&address)?, headers, body, credential })
}
