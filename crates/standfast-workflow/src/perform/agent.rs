//! Agents by the Agent2Agent protocol: JSON-RPC by HTTP, streams collected to their end.

use serde_json::Value;
use standfast_model::Stamp;

use super::caller::Caller;
use super::http::collect;
use super::messages::Messages;
use super::rpc::{Meaning, meaning};
use crate::ask::MESSAGES_MAX;
use crate::ask::{ANSWER_BYTES_MAX, AgentRequest, Answer, refused, without_query};
use crate::run::{Problem, Standard};

pub(super) async fn ask(caller: &Caller, request: &AgentRequest, deadline: Stamp) -> Result<Answer, Problem> {
    let http = &request.http;
    let answer = caller.open(http, deadline).await?;
    if !answer.status().is_success() {
        let answer = collect(answer, ANSWER_BYTES_MAX).await.map_err(|why| why.into_problem(http))?;
        return Err(refused(http, &answer));
    }
    let whom = format!("the agent at {}", without_query(&http.uri));
    let mut messages = Messages::of(answer);
    let mut results = Vec::new();
    while let Some(message) = messages.next().await? {
        let Meaning::Answer(result) = meaning(&message, &request.id, &whom) else { continue };
        let result = result?;
        if !request.streams {
            return Ok(Answer::Value(result));
        }
        if results.len() >= MESSAGES_MAX {
            let detail = format!("{whom} sent more than {MESSAGES_MAX} messages");
            return Err(Standard::Communication.problem(detail));
        }
        let is_last = result.get("final").and_then(Value::as_bool) == Some(true);
        results.push(result);
        if is_last {
            break;
        }
    }
    if request.streams && !results.is_empty() {
        return Ok(Answer::Value(Value::Array(results)));
    }
    Err(Standard::Communication.problem(format!("{whom} did not answer what it was asked")))
}
