//! An operation of an `AsyncAPI` document (2.x, 3.x) by which a message is sent over HTTP. Read when the definition is made.

use serde_json::Value;

use super::openapi::Document;

/// What is sent, and where.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Publication {
    /// The address, with its variables in braces.
    pub(crate) address: String,
    /// What variables are that are not given.
    pub(crate) defaults: Vec<(String, String)>,
    /// In capitals.
    pub(crate) method: String,
    /// What a message is written as.
    pub(crate) kind: String,
}

/// What of a document is used.
pub(super) struct Wanted<'w> {
    /// An operation of version 3.
    pub(super) operation: Option<&'w str>,
    /// A channel of version 2.
    pub(super) channel: Option<&'w str>,
    pub(super) server: Option<&'w str>,
    pub(super) protocol: Option<&'w str>,
}

/// Finds how a message is sent.
pub(super) fn find(document: &Value, wanted: &Wanted<'_>) -> Result<Publication, String> {
    let whole = Document(document);
    let (path, operation, servers) = match (whole.text("asyncapi"), wanted.operation, wanted.channel) {
        (Some(version), Some(name), _) if version.starts_with("3.") => sends(whole, name)?,
        (Some(version), _, Some(name)) if version.starts_with("2.") => published(whole, name)?,
        (Some(version), ..) if version.starts_with("3.") => {
            return Err("version 3 needs `operation`".to_owned());
        }
        (Some(version), ..) if version.starts_with("2.") => {
            return Err("version 2 needs `channel`".to_owned());
        }
        _ => return Err("it is neither AsyncAPI 2 nor 3".to_owned()),
    };
    let (address, defaults) = server(whole, wanted, &servers)?;
    let text = |pointer: &str| operation.pointer(pointer).and_then(Value::as_str);
    Ok(Publication {
        address: format!("{}/{}", address.trim_end_matches('/'), path.trim_start_matches('/')),
        defaults,
        method: text("/bindings/http/method").unwrap_or("POST").to_ascii_uppercase(),
        kind: whole.text("defaultContentType").unwrap_or("application/json").to_owned(),
    })
}

/// A path, what is done there, and the names of the servers where it may be done; all, if there are none.
type Found<'d> = (String, &'d Value, Vec<String>);

fn sends<'d>(document: Document<'d>, name: &str) -> Result<Found<'d>, String> {
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

fn published<'d>(document: Document<'d>, name: &str) -> Result<Found<'d>, String> {
    let channel = document.member("channels", name).ok_or_else(|| format!("it has no channel `{name}`"))?;
    let channel = document.target(channel)?;
    let operation = channel.get("publish").ok_or_else(|| format!("nothing can be published to `{name}`"))?;
    let servers = channel.get("servers").and_then(Value::as_array).into_iter().flatten();
    Ok((name.to_owned(), operation, servers.filter_map(|name| name.as_str().map(str::to_owned)).collect()))
}

/// A server that is reached by HTTP, and what its variables usually are.
fn server(
    document: Document<'_>,
    wanted: &Wanted<'_>,
    allowed: &[String],
) -> Result<(String, Vec<(String, String)>), String> {
    let servers = document.0.get("servers").and_then(Value::as_object).ok_or("it has no `servers`")?;
    let mut others = Vec::new();
    for (name, server) in servers {
        let server = document.target(server)?;
        let text = |key: &str| server.get(key).and_then(Value::as_str);
        let protocol = text("protocol").unwrap_or("");
        let fits = match (wanted.server, wanted.protocol) {
            (Some(wanted), _) => wanted == name,
            (None, Some(wanted)) => wanted == protocol || (wanted == "http" && protocol == "https"),
            (None, None) => allowed.is_empty() || allowed.contains(name),
        };
        if !fits || !matches!(protocol, "http" | "https") {
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
        return Ok((address, defaults.collect()));
    }
    Err(format!(
        "none of its servers is both the one that is meant and reached by HTTP: {}",
        others.join(", ")
    ))
}
