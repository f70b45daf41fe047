//! What is told to one run, and what is asked about it.

use ::http::StatusCode;
use serde_json::json;

use super::Asked;
use super::answer::{Answer, bad, body, data, refused};
use super::runs::key;
use crate::run::RunId;

pub(super) async fn tell(asked: &Asked<'_>, id: RunId, name: &str) -> Answer {
    let (key, told) = (key(asked.request)?, body(asked.request)?);
    let run = asked.engine.signal(id, name, told, key.as_deref()).await.map_err(|why| refused(&why))?;
    Ok(data(StatusCode::ACCEPTED, &json!({"id": run.id, "status": run.status})))
}

/// What a step asked for is still being done.
pub(super) fn beat(asked: &Asked<'_>) -> Answer {
    let key = match asked.parameter("key") {
        Some(key) => Some(key.to_owned()),
        None => key(asked.request)?,
    };
    let Some(key) = key else {
        return Err(bad("`Idempotency-Key` is missing: send the one with which you were asked"));
    };
    Ok(data(StatusCode::OK, &json!({"steps": asked.engine.beat(&key)})))
}

pub(super) async fn query(asked: &Asked<'_>, id: RunId, name: &str) -> Answer {
    let value = asked.engine.query(id, name).await.map_err(|why| refused(&why))?;
    Ok(data(StatusCode::OK, &json!({"id": id, "query": name, "value": value})))
}
