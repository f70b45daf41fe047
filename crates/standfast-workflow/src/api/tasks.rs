//! Tasks that people do.

use ::http::{Response, StatusCode};
use bytes::Bytes;
use serde_json::{Value, json};

use super::Asked;
use super::answer::{Answer, bad, body, data, problem, refused};
use super::routes::LIMIT_MAX;
use super::runs::key;
use crate::engine::{BadTaskRef, OpenTask, TaskFilter, TaskRef};

/// Tasks in one answer, unless asked for another number.
const LIMIT: usize = 100;

pub(super) async fn list(asked: &Asked<'_>) -> Answer {
    let text = |name: &str| asked.parameter(name).map(str::to_owned);
    let filter = TaskFilter { group: text("for"), workflow: text("workflow") };
    let limit = match asked.parameter("limit").map(str::parse) {
        None => LIMIT,
        Some(Ok(limit @ 1..=LIMIT_MAX)) => limit,
        Some(_) => return Err(bad(format!("`limit` is a number from 1 to {LIMIT_MAX}"))),
    };
    let after = match asked.parameter("after").map(str::parse) {
        None => None,
        Some(Ok(after)) => Some(after),
        Some(Err(why)) => return Err(not_one(&why)),
    };
    let found = asked.engine.open_tasks(&filter, after, limit).await;
    let (tasks, next) = found.map_err(|why| refused(&why))?;
    let tasks: Vec<Value> = tasks.iter().map(as_value).collect();
    Ok(data(StatusCode::OK, &json!({"tasks": tasks, "next": next})))
}

pub(super) async fn show(asked: &Asked<'_>) -> Answer {
    let (task, form) = asked.engine.open_task(asked.task()?).await.map_err(|why| refused(&why))?;
    let mut value = as_value(&task);
    if let Some(form) = form {
        value["form"] = Value::clone(&form);
    }
    Ok(data(StatusCode::OK, &value))
}

pub(super) async fn answer(asked: &Asked<'_>) -> Answer {
    let (key, given, by) = (key(asked.request)?, body(asked.request)?, asked.parameter("by"));
    let answered = asked.engine.answer_task(asked.task()?, given, by, key.as_deref()).await;
    let run = answered.map_err(|why| refused(&why))?;
    Ok(data(StatusCode::ACCEPTED, &json!({"id": run.id, "status": run.status})))
}

fn as_value(task: &OpenTask) -> Value {
    json!({
        "id": task.id, "run": task.id.run, "workflow": task.workflow, "task": &*task.task, "title": task.human.title,
        "for": task.human.groups, "since": task.since.to_string(), "until": task.until.map(|until| until.to_string()),
    })
}

fn not_one(why: &BadTaskRef) -> Box<Response<Bytes>> {
    Box::new(problem(StatusCode::NOT_FOUND, &why.to_string()))
}

impl Asked<'_> {
    /// The task that its path names.
    fn task(&self) -> Result<TaskRef, Box<Response<Bytes>>> {
        self.variables.first().copied().unwrap_or_default().parse().map_err(|why| not_one(&why))
    }
}
