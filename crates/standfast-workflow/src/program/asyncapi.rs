//! An operation of an `AsyncAPI` document (2.x, 3.x) by which messages are sent over HTTP, or sent and received by MQTT. Read when
//! the definition is made.

use serde_json::Value;

use super::openapi::Document;

/// Where messages go to or come from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Channel {
    /// The server's address, with its variables in braces.
    pub(crate) server: String,
    /// The channel's own: a path or a topic, with its variables in braces.
    pub(crate) place: String,
    /// What variables are that are not given.
    pub(crate) defaults: Vec<(String, String)>,
    /// What a message is written as.
    pub(crate) kind: String,
    /// How it is reached.
    pub(crate) wire: Wire,
}

/// A protocol, and what the operation's binding says of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wire {
    Http {
        /// In capitals.
        method: String,
    },
    Mqtt {
        /// 0, 1 or 2.
        qos: u8,
        /// Whether the broker keeps the message for those that come later.
        retain: bool,
    },
}

/// What is done with messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Send,
    Receive,
}

/// What of a document is used.
pub(super) struct Wanted<'w> {
    pub(super) direction: Direction,
    /// An operation of version 3.
    pub(super) operation: Option<&'w str>,
    /// A channel of version 2.
    pub(super) channel: Option<&'w str>,
    pub(super) server: Option<&'w str>,
    pub(super) protocol: Option<&'w str>,
}

/// Finds how messages are sent or received.
pub(super) fn find(document: &Value, wanted: &Wanted<'_>) -> Result<Channel, String> {
    let whole = Document(document);
    let (place, operation, servers) = match (whole.text("asyncapi"), wanted.operation, wanted.channel) {
        (Some(version), Some(name), _) if version.starts_with("3.") => operation(whole, name)?,
        (Some(version), _, Some(name)) if version.starts_with("2.") => {
            channel(whole, name, wanted.direction)?
        }
        (Some(version), ..) if version.starts_with("3.") => {
            return Err("version 3 needs `operation`".to_owned());
        }
        (Some(version), ..) if version.starts_with("2.") => {
            return Err("version 2 needs `channel`".to_owned());
        }
        _ => return Err("it is neither AsyncAPI 2 nor 3".to_owned()),
    };
    let Server { address, is_http, defaults } = server(whole, wanted, &servers)?;
    let bound = |pointer: &str| operation.pointer(pointer);
    let wire = if is_http {
        let method = bound("/bindings/http/method").and_then(Value::as_str);
        Wire::Http { method: method.unwrap_or("POST").to_ascii_uppercase() }
    } else {
        let qos = match bound("/bindings/mqtt/qos").map(Value::as_u64) {
            None => 1,
            Some(Some(qos @ 0..=2)) => qos as u8,
            Some(_) => return Err("the `qos` of its operation is neither 0, 1 nor 2".to_owned()),
        };
        Wire::Mqtt { qos, retain: bound("/bindings/mqtt/retain").and_then(Value::as_bool).unwrap_or(false) }
    };
    if is_http && wanted.direction == Direction::Receive {
        return Err("messages are received by MQTT only".to_owned());
    }
    let kind = whole.text("defaultContentType").unwrap_or("application/json").to_owned();
    Ok(Channel { server: address, place, defaults, kind, wire })
}

/// A path, what is done there, and the names of the servers where it may be done; all, if there are none.
type Found<'d> = (String, &'d Value, Vec<String>);

fn operation<'d>(document: Document<'d>, name: &str) -> Result<Found<'d>, String> {
    let operation =
        document.member("operations", name).ok_or_else(|| format!("it has no operation `{name}`"))?;
    let operation = document.target(operation)?;
    let channel = document.target(operation.get("channel").ok_or("its operation has no channel")?)?;
    let path = channel.get("address").and_then(Value::as_str).unwrap_or("").to_owned();
    let servers = channel.get("servers").and_then(Value::as_array).into_iter().flatten();
    let names =
        servers.filter_map(|server| server.get("$ref")?.as_str()?.rsplit('/').next().map(str::to_owned));
    Ok((path, operation, names.collect()))
}

fn channel<'d>(document: Document<'d>, name: &str, direction: Direction) -> Result<Found<'d>, String> {
    let channel = document.member("channels", name).ok_or_else(|| format!("it has no channel `{name}`"))?;
    let channel = document.target(channel)?;
    let operation = match direction {
        Direction::Send => {
            channel.get("publish").ok_or_else(|| format!("nothing can be published to `{name}`"))?
        }
        Direction::Receive => {
            channel.get("subscribe").ok_or_else(|| format!("`{name}` cannot be subscribed to"))?
        }
    };
    let servers = channel.get("servers").and_then(Value::as_array).into_iter().flatten();
    Ok((name.to_owned(), operation, servers.filter_map(|name| name.as_str().map(str::to_owned)).collect()))
}

/// A server that can be reached.
struct Server {
    address: String,
    is_http: bool,
    /// What its variables usually are.
    defaults: Vec<(String, String)>,
}

fn server(document: Document<'_>, wanted: &Wanted<'_>, allowed: &[String]) -> Result<Server, String> {
    let servers = document.0.get("servers").and_then(Value::as_object).ok_or("it has no `servers`")?;
    let mut others = Vec::new();
    for (name, server) in servers {
        let server = document.target(server)?;
        let text = |key: &str| server.get(key).and_then(Value::as_str);
        let protocol = text("protocol").unwrap_or("");
        let fits = match (wanted.server, wanted.protocol) {
            (Some(wanted), _) => wanted == name,
            (None, Some(wanted)) => {
                wanted == protocol
                    || (wanted == "http" && protocol == "https")
                    || (wanted.starts_with("mqtt") && is_mqtt(protocol))
            }
            (None, None) => allowed.is_empty() || allowed.contains(name),
        };
        let is_http = matches!(protocol, "http" | "https");
        if !fits || !(is_http || is_mqtt(protocol)) {
            others.push(format!("`{name}` ({protocol})"));
            continue;
        }
        let place = match (text("url"), text("host")) {
            (Some(url), _) => url.to_owned(),
            (None, Some(host)) => format!("{host}{}", text("pathname").unwrap_or("")),
            (None, None) => return Err(format!("its server `{name}` has no address")),
        };
        let address = if place.contains("://") { place } else { format!("{protocol}://{place}") };
        let variables = server.get("variables").and_then(Value::as_object).into_iter().flatten();
        let defaults = variables.filter_map(|(name, variable)| {
            let variable = document.target(variable).ok()?;
            Some((name.clone(), variable.get("default")?.as_str()?.to_owned()))
        });
        return Ok(Server { address, is_http, defaults: defaults.collect() });
    }
    Err(format!(
        "none of its servers is both the one that is meant and reached by HTTP or MQTT: {}",
        others.join(", ")
    ))
}

fn is_mqtt(protocol: &str) -> bool {
    matches!(protocol, "mqtt" | "mqtt5" | "mqtts" | "secure-mqtt")
}
