//! Servers of the Model Context Protocol: a conversation is begun, one thing is asked, and it is ended.

mod over_http;
mod over_stdio;

use async_trait::async_trait;
use serde_json::{Value, json};
use standfast_model::Stamp;

use super::caller::Caller;
use super::rpc;
use crate::ask::{Answer, McpRequest, McpTransport};
use crate::run::{Problem, Standard};

/// Versions of the protocol in which what is asked here is the same.
const VERSIONS: [&str; 4] = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"];

/// How a conversation begins.
const BEGIN: &str = "initialize";

/// What a conversation goes over.
#[async_trait]
trait Wire: Send {
    /// Asks, and waits for the answer.
    async fn ask(&mut self, id: u64, message: &Value) -> Result<Value, Problem>;
    /// Tells what is not answered.
    async fn tell(&mut self, message: &Value) -> Result<(), Problem>;
    /// From now on both speak this version.
    fn agreed(&mut self, version: &str) -> Result<(), Problem>;
    /// Ends it, as far as that is possible.
    async fn end(self: Box<Self>);
}

pub(super) async fn ask(caller: &Caller, request: &McpRequest, deadline: Stamp) -> Result<Answer, Problem> {
    let mut wire: Box<dyn Wire> = match &request.transport {
        McpTransport::Http(http) => Box::new(over_http::Http::new(caller, http, deadline)),
        McpTransport::Stdio { command, arguments, environment } => {
            Box::new(over_stdio::Stdio::start(command, arguments, environment, *caller.clock())?)
        }
    };
    let answered = converse(&mut *wire, request).await;
    wire.end().await;
    answered.map(Answer::Value)
}

async fn converse(wire: &mut dyn Wire, request: &McpRequest) -> Result<Value, Problem> {
    let (name, version) = &request.client;
    let hello = json!({
        "protocolVersion": request.version, "capabilities": {}, "clientInfo": {"name": name, "version": version},
    });
    let greeted = wire.ask(1, &rpc::request(1, BEGIN, Some(&hello))).await?;
    let version = greeted.get("protocolVersion").and_then(Value::as_str).unwrap_or("none");
    if version != request.version && !VERSIONS.contains(&version) {
        let detail = format!("the server speaks the version `{version}` of the protocol, which is not known");
        return Err(Standard::Communication.problem(detail));
    }
    wire.agreed(version)?;
    wire.tell(&rpc::notification("notifications/initialized")).await?;
    wire.ask(2, &rpc::request(2, request.method, request.params.as_ref())).await
}
