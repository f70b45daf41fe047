//! `call: http`.

use std::sync::Arc;

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{HttpAnswer, HttpRequest, Writing};
use super::{access, uri};
use crate::decide::as_text;
use crate::program::{Http, HttpOutput};
use crate::run::{Problem, Standard};

/// What names a step to who is asked, so that it does it once however often it is asked
/// (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Most of an answer's body that a problem tells, in characters.
const EXCERPT_MAX: usize = 300;

pub(super) fn request(writing: &Writing<'_>, http: &Http) -> Result<HttpRequest, Problem> {
    let method = writing.text(&http.method)?;
    let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes())
        .map_err(|_| wrong(format!("`{method}` is no method of HTTP")))?;
    let address = uri::written(writing, &http.address)?;
    let query = http.query.as_ref().map(|query| writing.fill(query)).transpose()?;
    let address = match &query {
        Some(query) => uri::with_query(&address, query),
        None => address,
    };
    let uri = uri::of_http(&address)?;
    let mut headers = HeaderMap::new();
    if let Some(form) = &http.headers {
        add_headers(&mut headers, &*writing.fill(form)?)?;
    }
    let credential = match &http.access {
        Some(access) => access::show(writing, access, &mut headers)?,
        None => None,
    };
    name_step(writing, &mut headers)?;
    let body = match &http.body {
        Some(form) => body(&*writing.fill(form)?, &mut headers),
        None => Bytes::new(),
    };
    Ok(HttpRequest { method, uri, headers, body, credential })
}

fn wrong(detail: String) -> Problem {
    Standard::Configuration.problem(detail)
}

pub(super) fn add_headers(headers: &mut HeaderMap, found: &Value) -> Result<(), Problem> {
    let Value::Object(fields) = found else {
        return Err(wrong("`headers` must be an object".to_owned()));
    };
    for (name, value) in fields {
        let key: HeaderName =
            name.parse().map_err(|_| wrong(format!("`{name}` is no name of a header field")))?;
        let values = match value {
            Value::Null => continue,
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            let text = as_text(value);
            let value = text.as_deref().and_then(|text| HeaderValue::from_str(text).ok());
            let value =
                value.ok_or_else(|| wrong(format!("the header field `{name}` must be one line of text")))?;
            headers.append(&key, value);
        }
    }
    Ok(())
}

/// Puts the step's key into the header fields, unless who wrote the task has one of his own.
pub(super) fn name_step(writing: &Writing<'_>, headers: &mut HeaderMap) -> Result<(), Problem> {
    if !headers.contains_key(IDEMPOTENCY_KEY) {
        headers.insert(IDEMPOTENCY_KEY, idempotency_key(writing.key)?);
    }
    Ok(())
}

/// The key as a string of structured fields (RFC 8941): in quotes.
fn idempotency_key(key: &str) -> Result<HeaderValue, Problem> {
    let visible: String =
        key.chars().map(|c| if c.is_ascii_graphic() && c != '"' && c != '\\' { c } else { '_' }).collect();
    HeaderValue::from_str(&format!("\"{visible}\""))
        .map_err(|_| wrong("the task's name is too odd".to_owned()))
}

pub(super) fn body(value: &Value, headers: &mut HeaderMap) -> Bytes {
    let is_json = |kind: &str| kind.contains("json");
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    match (kind, value) {
        // Who says that it is no JSON means the text itself.
        (Some(kind), Value::String(text)) if !is_json(kind) => Bytes::from(text.clone()),
        (Some(kind), Value::Object(fields)) if kind.starts_with("application/x-www-form-urlencoded") => {
            Bytes::from(uri::form(fields))
        }
        (kind, value) => {
            if kind.is_none() {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
            Bytes::from(value.to_string())
        }
    }
}

pub(super) fn answered(
    output: HttpOutput,
    redirect: bool,
    request: &HttpRequest,
    answer: &HttpAnswer,
) -> Result<Arc<Value>, Problem> {
    let status = answer.status.as_u16();
    let last = if redirect { 399 } else { 299 };
    if !(200..=last).contains(&status) {
        return Err(refused(request, answer));
    }
    let value = match output {
        HttpOutput::Raw => BASE64.encode(&answer.body).into(),
        HttpOutput::Content => content(answer)?,
        HttpOutput::Response => json!({
            "request": {
                "method": request.method.as_str(),
                "uri": request.uri.to_string(),
                "headers": as_value(&request.headers),
            },
            "statusCode": status,
            "headers": as_value(&answer.headers),
            "content": content(answer)?,
        }),
    };
    Ok(Arc::new(value))
}

pub(crate) fn refused(request: &HttpRequest, answer: &HttpAnswer) -> Problem {
    let said: String = String::from_utf8_lossy(&answer.body).chars().take(EXCERPT_MAX).collect();
    let place = format!("{} {}", request.method, super::without_query(&request.uri));
    let detail = match said.trim() {
        "" => format!("{place} was answered with {}", answer.status),
        said => format!("{place} was answered with {}: {said}", answer.status),
    };
    let kind = match answer.status {
        StatusCode::UNAUTHORIZED => Standard::Authentication,
        StatusCode::FORBIDDEN => Standard::Authorization,
        _ => Standard::Communication,
    };
    let mut problem = kind.problem(detail).with_status(answer.status.as_u16());
    if let (Standard::Communication, Some(title)) = (kind, answer.status.canonical_reason()) {
        problem.title = Some(title.to_owned());
    }
    problem
}

/// The body by its type: JSON as what it says, text as text, anything else in base 64.
fn content(answer: &HttpAnswer) -> Result<Value, Problem> {
    if answer.body.is_empty() {
        return Ok(Value::Null);
    }
    let kind = answer.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if kind.ends_with("/json") || kind.ends_with("+json") {
        return serde_json::from_slice(&answer.body).map_err(|why| {
            Standard::Communication.problem(format!("the answer says that it is JSON, but is not: {why}"))
        });
    }
    Ok(match std::str::from_utf8(&answer.body) {
        Ok(text) => {
            serde_json::from_str(text).ok().filter(|_| kind.is_empty()).unwrap_or_else(|| text.into())
        }
        Err(_) => BASE64.encode(&answer.body).into(),
    })
}

fn as_value(headers: &HeaderMap) -> Value {
    let mut fields = Map::new();
    for (name, value) in headers {
        let text =
            if value.is_sensitive() { "***".into() } else { String::from_utf8_lossy(value.as_bytes()) };
        match fields.get_mut(name.as_str()) {
            Some(Value::String(all)) => {
                all.push_str(", ");
                all.push_str(&text);
            }
            _ => {
                fields.insert(name.as_str().to_owned(), text.into());
            }
        }
    }
    Value::Object(fields)
}
