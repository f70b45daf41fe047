//! `call: mcp`: what a server of the Model Context Protocol is asked, and how it is reached.

use ::http::header::{ACCEPT, CONTENT_TYPE};
use ::http::{HeaderMap, HeaderValue, Method};
use bytes::Bytes;
use serde_json::Value;

use super::process::{arguments, environment};
use super::{HttpRequest, McpRequest, McpTransport, Writing, access, http, uri};
use crate::program::{Mcp, Reaches};
use crate::run::{Problem, Standard};

pub(super) fn request(writing: &Writing<'_>, mcp: &Mcp) -> Result<McpRequest, Problem> {
    let params = match &mcp.parameters {
        Some(form) => Value::clone(&*writing.fill(form)?),
        None => Value::Null,
    };
    if !matches!(params, Value::Null | Value::Object(_)) {
        return Err(Standard::Configuration.problem("`parameters` must be an object"));
    }
    let transport = match &mcp.reaches {
        Reaches::Http { address, access, headers } => {
            McpTransport::Http(Box::new(by_http(writing, address, access.as_ref(), headers.as_ref())?))
        }
        Reaches::Stdio { command, arguments: given, environment: around } => McpTransport::Stdio {
            command: writing.text(command)?,
            arguments: arguments(&*writing.fill(given)?)?,
            environment: match around {
                Some(form) => environment(&*writing.fill(form)?)?,
                None => Vec::new(),
            },
        },
    };
    Ok(McpRequest {
        version: mcp.version.clone(),
        client: mcp.client.clone(),
        method: mcp.method,
        params: Some(params).filter(|params| !params.is_null()),
        transport,
    })
}

fn by_http(
    writing: &Writing<'_>,
    address: &crate::program::Address,
    shown: Option<&crate::program::Access>,
    given: Option<&crate::program::Form>,
) -> Result<HttpRequest, Problem> {
    let mut headers = HeaderMap::new();
    if let Some(form) = given {
        http::add_headers(&mut headers, &*writing.fill(form)?)?;
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    let credential = match shown {
        Some(access) => access::show(writing, access, &mut headers)?,
        None => None,
    };
    http::name_step(writing, &mut headers)?;
    let uri = uri::of_http(&uri::written(writing, address)?)?;
    Ok(HttpRequest { method: Method::POST, uri, headers, body: Bytes::new(), credential })
}
