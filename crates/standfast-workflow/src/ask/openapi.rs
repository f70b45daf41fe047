//! `call: openapi`: an operation and its parameters become a request by HTTP.

use ::http::header::{ACCEPT, CONTENT_TYPE, COOKIE};
use ::http::{HeaderMap, HeaderValue, Method};
use bytes::Bytes;
use serde_json::{Map, Value};

use super::uri::{encode, of_http};
use super::{HttpRequest, Writing, access, http};
use crate::decide::as_text;
use crate::program::{OpenApi, Parameter, Place, Style};
use crate::run::{Problem, Standard};

/// The parameter that is the body where documents have no name for it.
const BODY: &str = "body";

pub(super) fn request(writing: &Writing<'_>, call: &OpenApi) -> Result<HttpRequest, Problem> {
    let operation = &call.operation;
    let given = match &call.parameters {
        Some(form) => Value::clone(&*writing.fill(form)?),
        None => Value::Null,
    };
    let mut given = match given {
        Value::Object(fields) => fields,
        Value::Null => Map::new(),
        _ => return Err(wrong("`parameters` must be an object")),
    };
    let mut parts = Parts { path: operation.path.clone(), ..Parts::default() };
    for parameter in &operation.parameters {
        match given.remove(&parameter.name).filter(|value| !value.is_null()) {
            Some(value) => parts.put(parameter, &value)?,
            None if parameter.is_required => {
                return Err(invalid(format!("the parameter `{}` is required", parameter.name)));
            }
            None => {}
        }
    }
    let mut headers = HeaderMap::new();
    http::add_headers(&mut headers, &Value::Object(std::mem::take(&mut parts.headers)))?;
    if !parts.cookies.is_empty() {
        let text = parts.cookies.join("; ");
        let value = HeaderValue::from_str(&text).map_err(|_| invalid("a cookie holds more than one line"))?;
        headers.append(COOKIE, value);
    }
    let body = body(call, given, &mut headers)?;
    if operation.answers_json {
        headers.entry(ACCEPT).or_insert(HeaderValue::from_static("application/json"));
    }
    let credential = match &call.access {
        Some(access) => access::show(writing, access, &mut headers)?,
        None => None,
    };
    http::name_step(writing, &mut headers)?;
    let question = if parts.query.is_empty() { "" } else { "?" };
    let uri = of_http(&format!("{}{}{question}{}", operation.server, parts.path, parts.query.join("&")))?;
    let method = Method::from_bytes(operation.method.as_bytes()).map_err(|_| wrong("it has no method"))?;
    Ok(HttpRequest { method, uri, headers, body, credential })
}

fn wrong(detail: &str) -> Problem {
    Standard::Configuration.problem(detail)
}

fn invalid(detail: impl Into<String>) -> Problem {
    Standard::Validation.problem(detail)
}

/// What is left of the parameters is the body, or was meant for another operation.
fn body(call: &OpenApi, mut given: Map<String, Value>, headers: &mut HeaderMap) -> Result<Bytes, Problem> {
    let unknown = |given: &Map<String, Value>| match given.keys().next() {
        Some(name) => Err(invalid(format!("the operation has no parameter `{name}`"))),
        None => Ok(()),
    };
    let Some(body) = &call.operation.body else {
        unknown(&given)?;
        return Ok(Bytes::new());
    };
    let named = body.name.as_deref().and_then(|name| given.remove(name)).or_else(|| given.remove(BODY));
    let value = match (named, given.is_empty()) {
        (Some(value), _) => {
            unknown(&given)?;
            value
        }
        (None, false) => Value::Object(given),
        (None, true) if body.is_required => return Err(invalid("the operation needs a `body`")),
        (None, true) => return Ok(Bytes::new()),
    };
    let kind = HeaderValue::from_str(&body.kind).map_err(|_| wrong("the body's type is no type"))?;
    headers.insert(CONTENT_TYPE, kind);
    Ok(http::body(&value, headers))
}

/// The parts of a request that parameters go into.
#[derive(Default)]
struct Parts {
    path: String,
    query: Vec<String>,
    headers: Map<String, Value>,
    cookies: Vec<String>,
}

impl Parts {
    fn put(&mut self, parameter: &Parameter, value: &Value) -> Result<(), Problem> {
        let Parameter { name, place, style, explodes, .. } = parameter;
        let pieces = Pieces::of(name, value, *style)?;
        match place {
            Place::Path => {
                let text = pieces.in_path(name, *style, *explodes);
                // A path of dots alone would lead elsewhere.
                if text.is_empty() || text.chars().all(|letter| letter == '.') {
                    return Err(invalid(format!(
                        "the parameter `{name}` cannot be {value}: it is part of a path"
                    )));
                }
                self.path = self.path.replace(&format!("{{{name}}}"), &text);
            }
            Place::Query => self.query.extend(pieces.in_form(name, *style, *explodes, encode)),
            Place::Header => {
                self.headers.insert(name.clone(), pieces.joined(",", *explodes, str::to_owned).into());
            }
            Place::Cookie => self.cookies.extend(pieces.in_form(name, *style, *explodes, encode)),
        }
        Ok(())
    }
}

/// A value in the parts that it is written in.
enum Pieces {
    One(String),
    List(Vec<String>),
    Object(Vec<(String, String)>),
}

impl Pieces {
    fn of(name: &str, value: &Value, style: Style) -> Result<Self, Problem> {
        let text = |value: &Value| {
            as_text(value)
                .ok_or_else(|| invalid(format!("the parameter `{name}` nests too deep to be written")))
        };
        Ok(match value {
            value if style == Style::Json => Self::One(value.to_string()),
            Value::Array(items) => Self::List(items.iter().map(text).collect::<Result<_, _>>()?),
            Value::Object(fields) => Self::Object(
                fields
                    .iter()
                    .map(|(key, value)| Ok((key.clone(), text(value)?)))
                    .collect::<Result<_, _>>()?,
            ),
            one => Self::One(text(one)?),
        })
    }

    /// `a,b`, `k,v,l,w` or, exploded, `k=v,l=w`.
    fn joined(&self, between: &str, explodes: bool, encode: impl Fn(&str) -> String) -> String {
        match self {
            Self::One(text) => encode(text),
            Self::List(items) => items.iter().map(|item| encode(item)).collect::<Vec<_>>().join(between),
            Self::Object(fields) => {
                let sign = if explodes { "=" } else { between };
                let pairs =
                    fields.iter().map(|(key, value)| format!("{}{sign}{}", encode(key), encode(value)));
                pairs.collect::<Vec<_>>().join(between)
            }
        }
    }

    fn in_path(&self, name: &str, style: Style, explodes: bool) -> String {
        match style {
            Style::Label => format!(".{}", self.joined(if explodes { "." } else { "," }, explodes, encode)),
            Style::Matrix => match (self, explodes) {
                (Self::List(items), true) => {
                    items.iter().map(|item| format!(";{name}={}", encode(item))).collect()
                }
                (Self::Object(fields), true) => {
                    fields.iter().map(|(key, value)| format!(";{}={}", encode(key), encode(value))).collect()
                }
                _ => format!(";{name}={}", self.joined(",", false, encode)),
            },
            _ => self.joined(",", explodes, encode),
        }
    }

    fn in_form(&self, name: &str, style: Style, explodes: bool, encode: fn(&str) -> String) -> Vec<String> {
        match (self, style) {
            (Self::Object(fields), Style::DeepObject) => fields
                .iter()
                .map(|(key, value)| format!("{}={}", encode(&format!("{name}[{key}]")), encode(value)))
                .collect(),
            (Self::List(items), _) if explodes => {
                items.iter().map(|item| format!("{}={}", encode(name), encode(item))).collect()
            }
            (Self::Object(fields), _) if explodes => {
                fields.iter().map(|(key, value)| format!("{}={}", encode(key), encode(value))).collect()
            }
            (_, Style::Between(sign)) => {
                vec![format!("{}={}", encode(name), self.joined(&encode(sign), false, encode))]
            }
            _ => vec![format!("{}={}", encode(name), self.joined(",", false, encode))],
        }
    }
}
