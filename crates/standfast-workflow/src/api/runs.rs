//! Starting runs, looking at them, changing them.

use std::sync::Arc;
use std::time::Duration;

use ::http::header::LOCATION;
use ::http::{HeaderValue, Request, Response, StatusCode};
use bytes::Bytes;
use serde_json::{Value, json};

use super::Asked;
use super::answer::{Answer, bad, body, data, refused};
use crate::engine::{Refused, Summary, waits_for};
use crate::program::WorkflowName;
use crate::run::{Run, RunId};

/// Longest that a request waits for the end of a run.
const WAIT_MAX: Duration = Duration::from_secs(60);

pub(super) async fn start(asked: &Asked<'_>, version: &str) -> Answer {
    let wait = wait(asked)?;
    let input = Arc::new(body(asked.request)?);
    let key = key(asked.request)?;
    let (namespace, name) = (asked.variables[0], asked.variables[1]);
    let workflow = WorkflowName { namespace: namespace.into(), name: name.into(), version: version.into() };
    let started = asked.engine.start(&workflow, input, key.as_deref()).await;
    let id = started.map_err(|why| refused(&why))?;
    begun(asked, id, wait, &json!({"id": id, "workflow": workflow})).await
}

/// What is answered of a run that was begun: how it ended, if that is waited for.
pub(super) async fn begun(asked: &Asked<'_>, id: RunId, wait: Option<Duration>, begun: &Value) -> Answer {
    let ended = match wait {
        Some(wait) => asked.engine.wait_for(id, wait).await.map_err(|why| refused(&why))?,
        None => None,
    };
    let mut answer = match &ended {
        Some(summary) => data(StatusCode::OK, &as_value(summary)),
        None => data(StatusCode::ACCEPTED, begun),
    };
    if let Ok(place) = HeaderValue::from_str(&format!("/v1/runs/{id}")) {
        answer.headers_mut().insert(LOCATION, place);
    }
    Ok(answer)
}

/// What names a start: a text, or a string of structured fields in quotes.
pub(super) fn key(request: &Request<Bytes>) -> Result<Option<String>, Box<Response<Bytes>>> {
    let Some(value) = request.headers().get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().map_err(|_| bad("`Idempotency-Key` must be visible ASCII"))?.trim();
    let bare = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    if bare.is_empty() { Err(bad("`Idempotency-Key` is empty")) } else { Ok(Some(bare.to_owned())) }
}

pub(super) fn wait(asked: &Asked<'_>) -> Result<Option<Duration>, Box<Response<Bytes>>> {
    let Some(text) = asked.parameter("wait") else { return Ok(None) };
    let wrong = || bad(format!("`wait={text}` is no time up to 60s: write `wait=30s`"));
    let wait = standfast_model::parse_duration(text).map_err(|_| wrong())?;
    if wait > WAIT_MAX { Err(wrong()) } else { Ok(Some(wait)) }
}

pub(super) async fn end(asked: &Asked<'_>, id: RunId) -> Answer {
    let wait = wait(asked)?.unwrap_or_default();
    match asked.engine.wait_for(id, wait).await.map_err(|why| refused(&why))? {
        Some(summary) => Ok(data(StatusCode::OK, &as_value(&summary))),
        None => Ok(data(StatusCode::ACCEPTED, &json!({"id": id}))),
    }
}

pub(super) async fn show(asked: &Asked<'_>, id: RunId) -> Answer {
    let shown = asked.engine.show(id).await.map_err(|why| refused(&why))?;
    let mut value = as_value(&shown.summary);
    if let Some(retried_by) = shown.retried_by {
        value["retriedBy"] = retried_by.to_string().into();
    }
    if let Some(run) = &shown.run {
        value["waitsFor"] = waits_for(run);
        let locks: Vec<Value> = asked
            .engine
            .waits_for_locks(id)
            .into_iter()
            .map(|wait| json!({"lock": wait.lock, "since": wait.since.to_string(), "heldBy": wait.held_by}))
            .collect();
        if !locks.is_empty() {
            value["waitsForLocks"] = locks.into();
        }
        in_line(asked, id, &mut value);
    }
    Ok(data(StatusCode::OK, &value))
}

/// What a run waits for before it begins.
pub(super) fn in_line(asked: &Asked<'_>, id: RunId, value: &mut Value) {
    if let Some(waits) = asked.engine.waits_in_line(id) {
        value["waits"] = waits.into();
    }
}

pub(super) async fn history(asked: &Asked<'_>, id: RunId) -> Answer {
    let shown = asked.engine.show(id).await.map_err(|why| refused(&why))?;
    Ok(data(StatusCode::OK, &json!({"id": id, "records": shown.records})))
}

pub(super) async fn cancel(asked: &Asked<'_>, id: RunId) -> Answer {
    let reason = reason(asked)?;
    changed(asked.engine.cancel(id, &reason).await)
}

/// Why runs are cancelled, as the body says.
pub(super) fn reason(asked: &Asked<'_>) -> Result<String, Box<Response<Bytes>>> {
    match body(asked.request)?.get("reason") {
        None | Some(Value::Null) => Ok("it was cancelled".to_owned()),
        Some(Value::String(reason)) => Ok(reason.clone()),
        Some(_) => Err(bad("`reason` is a text: {\"reason\": \"nobody wants it\"}")),
    }
}

pub(super) async fn hold(asked: &Asked<'_>, id: RunId) -> Answer {
    changed(asked.engine.hold(id).await)
}

pub(super) async fn resume(asked: &Asked<'_>, id: RunId) -> Answer {
    changed(asked.engine.resume(id).await)
}

fn changed(changed: Result<Run, Refused>) -> Answer {
    let run = changed.map_err(|why| refused(&why))?;
    Ok(data(StatusCode::OK, &json!({"id": run.id, "status": run.status})))
}

pub(super) fn as_value(summary: &Summary) -> Value {
    let mut value = serde_json::to_value(summary).unwrap_or_default();
    // Stamps are numbers where they are kept; here they are read by people.
    value["startedAt"] = summary.started_at.to_string().into();
    value["changedAt"] = summary.changed_at.to_string().into();
    if let Some(origin) = &summary.origin {
        value["origin"] = json!({"run": origin.run, "by": origin.by, "task": origin.task});
    }
    value["status"] = summary.word().into();
    value
}
