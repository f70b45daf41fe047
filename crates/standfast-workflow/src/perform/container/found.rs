//! A container as it is made and as it is found again: what it is for stands in its labels.

use std::time::Duration;

use serde_json::{Value, json};
use standfast_model::Stamp;
use standfast_model::workflow::Cleanup;

use super::api::ApiError;
use crate::ask::{ContainerPort, ContainerRequest};
use crate::run::{RunId, ScopeId};

/// What a container wrote is kept in two files of this length at most, in bytes, written as JSON.
const LOG_BYTES_MAX: &str = "33554432";
/// Labels of our containers.
pub(super) const RUN: &str = "standfast.run";
const STEP: &str = "standfast.step";
const KEY: &str = "standfast.key";
pub(super) const CLEANUP: &str = "standfast.cleanup";
const AWAITED: &str = "standfast.awaited";

/// A container as it stands.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) phase: Phase,
    pub(super) ended_at: Option<Stamp>,
    /// For which attempt of which step, if it is one of ours.
    pub(super) step: Option<(RunId, ScopeId)>,
    pub(super) awaited: bool,
    pub(super) cleanup: Cleanup,
    /// How long after its end.
    pub(super) after: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// It has not begun.
    New,
    Running,
    Ended,
}

/// How a container is made, as the API has it.
pub(super) fn body_of(request: &ContainerRequest, key: &str, mounts: Vec<Value>) -> Value {
    let inside = |port: &ContainerPort| format!("{}/{}", port.inside, port.protocol);
    let mut exposed = serde_json::Map::new();
    let mut bound = serde_json::Map::new();
    for port in &request.ports {
        exposed.insert(inside(port), json!({}));
        let here = json!({"HostIp": "127.0.0.1", "HostPort": port.outside.to_string()});
        if let Value::Array(all) = bound.entry(inside(port)).or_insert_with(|| json!([])) {
            all.push(here);
        }
    }
    let cleanup = match request.cleanup {
        Cleanup::Always => "always".to_owned(),
        Cleanup::Never => "never".to_owned(),
        Cleanup::Eventually => format!("after {}", request.after.as_millis()),
    };
    let is_fed = !request.stdin.is_empty();
    let environment: Vec<String> =
        request.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut body = json!({
        "Image": request.image, "Env": environment, "ExposedPorts": exposed,
        "AttachStdin": is_fed, "OpenStdin": is_fed, "StdinOnce": is_fed, "Tty": false,
        "Labels": {
            RUN: request.step.0.to_string(), STEP: request.step.1.0.to_string(), KEY: key, CLEANUP: cleanup,
            AWAITED: request.awaited.to_string(),
        },
        "HostConfig": {
            "Mounts": mounts, "PortBindings": bound,
            // What it wrote is read here, whatever is usual on this machine.
            "LogConfig": {"Type": "json-file", "Config": {"max-size": LOG_BYTES_MAX, "max-file": "2"}},
        },
    });
    if !request.entrypoint.is_empty() {
        body["Entrypoint"] = json!(request.entrypoint);
    }
    if !request.entrypoint.is_empty() || !request.arguments.is_empty() {
        body["Cmd"] = json!(request.arguments);
    }
    body
}

/// For which attempt of which step a container with these labels is.
pub(super) fn step_of(labels: &Value) -> Option<(RunId, ScopeId)> {
    let run = labels[RUN].as_str()?.parse().ok()?;
    Some((run, ScopeId(labels[STEP].as_str()?.parse().ok()?)))
}

impl Found {
    /// As the API tells of it.
    pub(super) fn of(told: &Value) -> Result<Self, ApiError> {
        let text = |value: &Value, what: &str| match value.as_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(ApiError::Unfit(format!("a container has no `{what}`"))),
        };
        let labels = &told["Config"]["Labels"];
        let (cleanup, after) = match labels[CLEANUP].as_str().unwrap_or("never") {
            "always" => (Cleanup::Always, Duration::ZERO),
            "never" => (Cleanup::Never, Duration::ZERO),
            other => {
                let millis = other.strip_prefix("after ").and_then(|millis| millis.parse().ok());
                (Cleanup::Eventually, Duration::from_millis(millis.unwrap_or(0)))
            }
        };
        let phase = match text(&told["State"]["Status"], "State.Status")?.as_str() {
            "created" | "configured" | "initialized" => Phase::New,
            "exited" | "dead" | "stopped" => Phase::Ended,
            _ => Phase::Running,
        };
        let ended_at =
            told["State"]["FinishedAt"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
        Ok(Self {
            id: text(&told["Id"], "Id")?,
            name: text(&told["Name"], "Name")?.trim_start_matches('/').to_owned(),
            phase,
            ended_at: ended_at.and_then(|at| u64::try_from(at.as_microsecond()).ok()).map(Stamp::from_micros),
            step: step_of(labels),
            awaited: labels[AWAITED] != "false",
            cleanup,
            after,
        })
    }
}
