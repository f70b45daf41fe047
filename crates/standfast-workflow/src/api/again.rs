//! Going on from runs that have ended.

use std::sync::Arc;

use serde_json::{Value, json};

use super::Asked;
use super::answer::{Answer, bad, body, refused};
use super::runs::{begun, key, wait};
use crate::run::RunId;

pub(super) async fn retry(asked: &Asked<'_>, of: RunId) -> Answer {
    let wait = wait(asked)?;
    let id = asked.engine.retry(of).await.map_err(|why| refused(&why))?;
    begun(asked, id, wait, &json!({"id": id, "from": of})).await
}

pub(super) async fn redo(asked: &Asked<'_>, of: RunId) -> Answer {
    let (wait, key) = (wait(asked)?, key(asked.request)?);
    let mut body = body(asked.request)?;
    let example = r#"write {"from": "/do/2/charge"}, with "input" or without"#;
    let Value::Object(fields) = &mut body else {
        return Err(bad(format!("the body names no task: {example}")));
    };
    let (task, input) = (fields.remove("from"), fields.remove("input"));
    if let Some(unknown) = fields.keys().next() {
        return Err(bad(format!("there is no `{unknown}`: {example}")));
    }
    let Some(Value::String(task)) = task else { return Err(bad(format!("`from` names no task: {example}"))) };
    let id = asked.engine.redo(of, &task, input.map(Arc::new), key.as_deref()).await;
    let id = id.map_err(|why| refused(&why))?;
    begun(asked, id, wait, &json!({"id": id, "from": of})).await
}
