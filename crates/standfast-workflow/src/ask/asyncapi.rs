//! `call: asyncapi`: messages that are sent by HTTP, or sent and received by MQTT.

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, HeaderValue, Method};
use bytes::Bytes;
use serde_json::{Value, json};

use super::uri::{encode, of_http};
use super::{HttpRequest, MqttDoes, MqttRequest, Received, Request, Writing, access, http};
use crate::decide::{ACKNOWLEDGED, OVER, RECEIVED, as_text};
use crate::program::{Access, Channel, Form, Publish, Subscription, Wire, after};
use crate::run::{Digest, Problem, Run, Scope, ScopeId, Standard};

/// Longest text of a packet, in bytes: its length has two (MQTT 5, 1.5.4).
const TEXT_BYTES_MAX: usize = 65_535;
/// Of brokers, unless their address says otherwise.
const PORT: u16 = 1883;
const TLS_PORT: u16 = 8883;
/// How much of a step's key names it to a broker: names have 23 bytes at least (MQTT 5, 3.1.3.1).
const CLIENT_LEN: usize = 20;

fn wrong(detail: impl Into<String>) -> Problem {
    Standard::Configuration.problem(detail)
}

/// Writes a message.
pub(super) fn request(writing: &Writing<'_>, call: &Publish) -> Result<Request, Problem> {
    let channel = &call.channel;
    let mut headers = HeaderMap::new();
    if let Some(form) = &call.headers {
        http::add_headers(&mut headers, &*writing.fill(form)?)?;
    }
    let kind = HeaderValue::from_str(&channel.kind).map_err(|_| wrong("the message's type is no type"))?;
    headers.entry(CONTENT_TYPE).or_insert(kind);
    let body = match &call.payload {
        Some(form) => http::body(&*writing.fill(form)?, &mut headers),
        None => Bytes::new(),
    };
    let variables = variables(writing, call.variables.as_ref())?;
    match &channel.wire {
        Wire::Http { method } => {
            let credential = match &call.access {
                Some(access) => access::show(writing, access, &mut headers)?,
                None => None,
            };
            http::name_step(writing, &mut headers)?;
            let method = Method::from_bytes(method.as_bytes())
                .map_err(|_| wrong(format!("`{method}` is no method of HTTP")))?;
            let (server, place) =
                (channel.server.trim_end_matches('/'), channel.place.trim_start_matches('/'));
            let address = filled(&format!("{server}/{place}"), &variables, channel, encode)?;
            Ok(Request::Http(HttpRequest { method, uri: of_http(&address)?, headers, body, credential }))
        }
        Wire::Mqtt { qos, retain } => {
            http::name_step(writing, &mut headers)?;
            let topic = filled(&channel.place, &variables, channel, str::to_owned)?;
            if topic.is_empty() || topic.len() > TEXT_BYTES_MAX || topic.contains(['+', '#', '\0']) {
                let topic: String = topic.chars().take(200).collect();
                return Err(wrong(format!("`{topic}` is no topic that messages can be sent to")));
            }
            if let Some((name, _)) = headers.iter().find(|(_, value)| value.len() > TEXT_BYTES_MAX) {
                let detail =
                    format!("the header `{name}` has more than {TEXT_BYTES_MAX} bytes, MQTT allows no more");
                return Err(wrong(detail));
            }
            let does = MqttDoes::Send { topic, qos: *qos, retain: *retain, headers, body };
            mqtt(writing, channel, call.access.as_ref(), &variables, does)
        }
    }
}

/// Writes what is asked of a channel whose messages are received: more of them, or to be left.
pub(super) fn receive(
    writing: &Writing<'_>,
    from: &Subscription,
    (run, id, scope): (&Run, ScopeId, &Scope),
) -> Result<Request, Problem> {
    let variables = variables(writing, from.variables.as_ref())?;
    let channel = &from.channel;
    let is_complete = scope.state.listening().is_some_and(|listening| listening.is_complete);
    let does = if is_complete {
        MqttDoes::Leave
    } else {
        let topic = filled(&channel.place, &variables, channel, str::to_owned)?;
        let Wire::Mqtt { qos, .. } = channel.wire else {
            return Err(wrong("messages are received by MQTT only"));
        };
        let until = match from.period {
            Some(length) => {
                Some(after(scope.at, writing.seeing.period(length, writing.input, &writing.sight)?))
            }
            None => None,
        };
        let keys = |is_own| {
            let taken = run.taken.iter().filter(|taken| (taken.scope == id) == is_own);
            taken.map(|taken| taken.key.clone()).collect()
        };
        MqttDoes::Receive { topic, qos, taken: keys(true), seen: keys(false), until }
    };
    mqtt(writing, channel, from.access.as_ref(), &variables, does)
}

/// What came, as it is journalled.
pub(super) fn received(found: Received) -> Value {
    let messages = found.messages.into_iter().map(|(key, message)| match key {
        Some(key) => json!([key.as_str(), message]),
        None => message,
    });
    let acknowledged: Vec<&str> = found.acknowledged.iter().map(Digest::as_str).collect();
    json!({RECEIVED: messages.collect::<Vec<_>>(), ACKNOWLEDGED: acknowledged, OVER: found.is_over})
}

fn mqtt(
    writing: &Writing<'_>,
    channel: &Channel,
    access: Option<&Access>,
    variables: &Value,
    does: MqttDoes,
) -> Result<Request, Problem> {
    let address = filled(&channel.server, variables, channel, str::to_owned)?;
    let bad = || wrong(format!("`{address}` is no address of a broker: `mqtt://HOST:PORT` is one"));
    let (protocol, rest) = address.split_once("://").ok_or_else(bad)?;
    let is_sealed = matches!(protocol, "mqtts" | "secure-mqtt");
    let authority: ::http::uri::Authority = rest.trim_end_matches('/').parse().map_err(|_| bad())?;
    let login = match access {
        Some(Access::Basic { user, password }) => {
            Some((writing.text(user)?, access::Hidden(writing.text(password)?)))
        }
        _ => None,
    };
    let client = Digest::of(writing.key.as_bytes());
    Ok(Request::Mqtt(Box::new(MqttRequest {
        host: authority.host().trim_matches(['[', ']']).to_owned(),
        port: authority.port_u16().unwrap_or(if is_sealed { TLS_PORT } else { PORT }),
        is_sealed,
        login,
        client: format!("sf-{}", client.as_str().chars().take(CLIENT_LEN).collect::<String>()),
        does,
    })))
}

fn variables(writing: &Writing<'_>, form: Option<&Form>) -> Result<Value, Problem> {
    form.map_or(Ok(Value::Null), |form| Ok(Value::clone(&*writing.fill(form)?)))
}

/// An address with its variables filled in.
fn filled(
    address: &str,
    variables: &Value,
    channel: &Channel,
    written: impl Fn(&str) -> String,
) -> Result<String, Problem> {
    let mut address = address.to_owned();
    for (name, value) in variables.as_object().into_iter().flatten() {
        let value = as_text(value).ok_or_else(|| wrong(format!("the variable `{name}` must be a text")))?;
        address = address.replace(&format!("{{{name}}}"), &written(&value));
    }
    for (name, value) in &channel.defaults {
        address = address.replace(&format!("{{{name}}}"), value);
    }
    if let Some((_, rest)) = address.split_once('{') {
        let name = rest.split('}').next().unwrap_or(rest);
        return Err(wrong(format!("the variable `{name}` is missing: give it under `server.variables`")));
    }
    Ok(address)
}
