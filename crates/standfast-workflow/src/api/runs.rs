//! Starting runs, looking at them, changing them.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::LOCATION;
use ::http::{HeaderValue, Request, Response, StatusCode};
use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, bad, body, data, parameter, query, refused};
use crate::engine::{Engine, Refused, Summary};
use crate::program::WorkflowName;
use crate::run::{Run, RunId, State};

/// Longest that a request waits for the end of a run.
const WAIT_MAX: Duration = Duration::from_secs(60);

pub(super) async fn start(
    engine: &Engine,
    request: &Request<Bytes>,
    (namespace, name, version): (&str, &str, &str),
) -> Answer {
    let query = query(request, &["wait"])?;
    let wait = wait(&query)?;
    let input = Arc::new(body(request)?);
    let key = key(request)?;
    let workflow = WorkflowName { namespace: namespace.into(), name: name.into(), version: version.into() };
    let id = engine.start(&workflow, input, key.as_deref()).await.map_err(|why| refused(&why))?;
    let ended = match wait {
        Some(wait) => engine.wait_for(id, wait).await.map_err(|why| refused(&why))?,
        None => None,
    };
    let mut answer = match &ended {
        Some(summary) => data(StatusCode::OK, &as_value(summary)),
        None => data(StatusCode::ACCEPTED, &json!({"id": id, "workflow": workflow})),
    };
    if let Ok(place) = HeaderValue::from_str(&format!("/v1/runs/{id}")) {
        answer.headers_mut().insert(LOCATION, place);
    }
    Ok(answer)
}

/// What names a start: a text, or a string of structured fields in quotes.
fn key(request: &Request<Bytes>) -> Result<Option<String>, Box<Response<Bytes>>> {
    let Some(value) = request.headers().get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().map_err(|_| bad("`Idempotency-Key` must be visible ASCII"))?.trim();
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if bare.is_empty() { Err(bad("`Idempotency-Key` is empty")) } else { Ok(Some(bare.to_owned())) }
}

fn wait(query: &[(String, String)]) -> Result<Option<Duration>, Box<Response<Bytes>>> {
    let Some(text) = parameter(query, "wait") else { return Ok(None) };
    let wrong = || bad(format!("`wait={text}` is no time up to 60s: write `wait=30s`"));
    let wait = standfast_model::parse_duration(text).map_err(|_| wrong())?;
    if wait > WAIT_MAX { Err(wrong()) } else { Ok(Some(wait)) }
}

pub(super) async fn end(engine: &Engine, request: &Request<Bytes>, id: RunId) -> Answer {
    let query = query(request, &["wait"])?;
    let wait = wait(&query)?.unwrap_or_default();
    match engine.wait_for(id, wait).await.map_err(|why| refused(&why))? {
        Some(summary) => Ok(data(StatusCode::OK, &as_value(&summary))),
        None => Ok(data(StatusCode::ACCEPTED, &json!({"id": id}))),
    }
}

pub(super) async fn show(engine: &Engine, id: RunId) -> Answer {
    let shown = engine.show(id).await.map_err(|why| refused(&why))?;
    let mut value = as_value(&shown.summary);
    if let Some(run) = &shown.run {
        value["waitsFor"] = waits_for(run);
    }
    Ok(data(StatusCode::OK, &value))
}

pub(super) async fn history(engine: &Engine, id: RunId) -> Answer {
    let shown = engine.show(id).await.map_err(|why| refused(&why))?;
    Ok(data(StatusCode::OK, &json!({"id": id, "records": shown.records})))
}

pub(super) async fn change(engine: &Engine, request: &Request<Bytes>, id: RunId, verb: &str) -> Answer {
    let body = body(request)?;
    let changed = match verb {
        "cancel" => {
            let reason = body.get("reason").and_then(Value::as_str).unwrap_or("it was cancelled");
            engine.cancel(id, reason).await
        }
        "hold" => engine.hold(id).await,
        _ => engine.resume(id).await,
    };
    let run: Run = changed.map_err(|why: Refused| refused(&why))?;
    Ok(data(StatusCode::OK, &json!({"id": id, "status": run.status})))
}

pub(super) fn as_value(summary: &Summary) -> Value {
    let mut value = serde_json::to_value(summary).unwrap_or_default();
    // Stamps are numbers where they are kept; here they are read by people.
    value["startedAt"] = summary.started_at.to_string().into();
    value["changedAt"] = summary.changed_at.to_string().into();
    value
}

/// What a run waits for, task by task.
fn waits_for(run: &Run) -> Value {
    let waits = run.scopes.values().filter_map(|scope| {
        let (kind, until) = match &scope.state {
            State::Asking => ("answer", scope.deadline),
            State::Waiting { until } => ("time", Some(*until)),
            State::Pausing { until, .. } => ("retry", Some(*until)),
            State::Listening(_) => ("event", scope.deadline),
            _ => return None,
        };
        let until = until.map(|until| until.to_string());
        Some(json!({"task": &*scope.task, "for": kind, "since": scope.at.to_string(), "until": until}))
    });
    waits.collect()
}
