//! The streamable transport: each message is a request, whose answer is JSON or a stream that holds the answer.

use std::time::Duration;

use ::http::{HeaderName, HeaderValue, Method, StatusCode};
use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use standfast_model::Stamp;

use super::{BEGIN, Wire};
use crate::ask::MESSAGES_MAX;
use crate::ask::{ANSWER_BYTES_MAX, HttpRequest, refused, without_query};
use crate::perform::caller::Caller;
use crate::perform::http::collect;
use crate::perform::messages::Messages;
use crate::perform::rpc::{Meaning, meaning};
use crate::run::{Problem, Standard};

const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");
const KEY: HeaderName = HeaderName::from_static("idempotency-key");
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// Longest that the end of a session is waited for: the server ends it by itself too.
const END_MAX: Duration = Duration::from_secs(2);

pub(super) struct Http<'c> {
    caller: &'c Caller,
    /// With the header fields of all requests of this conversation.
    request: HttpRequest,
    /// What names the step. Only what the step is about carries it: what else is said here is no attempt of it.
    key: Option<HeaderValue>,
    deadline: Stamp,
    whom: String,
}

impl<'c> Http<'c> {
    pub(super) fn new(caller: &'c Caller, request: &HttpRequest, deadline: Stamp) -> Self {
        let whom = format!("the server at {}", without_query(&request.uri));
        let mut request = request.clone();
        let key = request.headers.remove(&KEY);
        Self { caller, request, key, deadline, whom }
    }

    async fn post(&mut self, message: &Value, is_step: bool) -> Result<Messages, Problem> {
        let mut request = HttpRequest { body: Bytes::from(message.to_string()), ..self.request.clone() };
        if let (true, Some(key)) = (is_step, &self.key) {
            request.headers.insert(KEY, key.clone());
        }
        let answer = self.caller.open(&request, self.deadline).await?;
        if !answer.status().is_success() {
            let answer = collect(answer, ANSWER_BYTES_MAX).await.map_err(|why| why.into_problem(&request))?;
            return Err(refused(&request, &answer));
        }
        if let Some(session) = answer.headers().get(&SESSION) {
            self.request.headers.insert(SESSION, session.clone());
        }
        Ok(Messages::of(answer))
    }
}

#[async_trait]
impl Wire for Http<'_> {
    async fn ask(&mut self, id: u64, message: &Value) -> Result<Value, Problem> {
        let id = Value::from(id);
        let mut messages = self.post(message, message["method"] != BEGIN).await?;
        for _ in 0..MESSAGES_MAX {
            let Some(message) = messages.next().await? else { break };
            match meaning(&message, &id, &self.whom) {
                Meaning::Answer(answer) => return answer,
                Meaning::Asks(answer) => self.tell(&answer).await?,
                Meaning::Other => {}
            }
        }
        Err(Standard::Communication.problem(format!("{} did not answer what it was asked", self.whom)))
    }

    async fn tell(&mut self, message: &Value) -> Result<(), Problem> {
        self.post(message, false).await.map(drop)
    }

    fn agreed(&mut self, version: &str) -> Result<(), Problem> {
        let value = HeaderValue::from_str(version)
            .map_err(|_| Standard::Communication.problem("the server's version is more than one line"))?;
        self.request.headers.insert(VERSION, value);
        Ok(())
    }

    async fn end(self: Box<Self>) {
        if !self.request.headers.contains_key(SESSION) {
            return;
        }
        let request = HttpRequest { method: Method::DELETE, body: Bytes::new(), ..self.request };
        let clock = self.caller.clock();
        let ending = self.caller.send(&request, clock.now().plus(END_MAX));
        match clock.timeout(END_MAX, ending).await {
            Ok(Ok(answer))
                if answer.status.is_success() || answer.status == StatusCode::METHOD_NOT_ALLOWED => {}
            // The answer is had, and a server ends sessions that nobody uses.
            other => tracing::debug!(?other, "a session of MCP was not ended"),
        }
    }
}
