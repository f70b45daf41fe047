//! The engine's API, as plain requests and answers: whoever serves it brings the sockets. `docs/workflow-api.md` is the contract.
//!
//! Errors are problem details (RFC 9457).

mod answer;
mod events;
mod list;
mod runs;

use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;

use self::answer::{Answer, not_allowed, problem};
use crate::engine::Engine;
use crate::run::RunId;

/// Longest body of a request, in bytes: an input with room for its blanks.
pub const API_BODY_BYTES_MAX: usize = 1 << 20;

/// Answers a request to a path below `/v1`. Every failure is an answer.
pub async fn answer(engine: &Engine, request: Request<Bytes>) -> Response<Bytes> {
    if request.body().len() > API_BODY_BYTES_MAX {
        let detail = format!("a body has at most {API_BODY_BYTES_MAX} bytes");
        return problem(StatusCode::PAYLOAD_TOO_LARGE, &detail);
    }
    let path = request.uri().path().to_owned();
    let segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let answered = match segments.as_slice() {
        ["v1", "workflows"] => only(&request, &Method::GET, || Ok(list::workflows(engine))),
        ["v1", "workflows", namespace, name, "runs"] => {
            post(runs::start(engine, &request, (namespace, name, "latest")), &request).await
        }
        ["v1", "workflows", namespace, name, version, "runs"] => {
            post(runs::start(engine, &request, (namespace, name, version)), &request).await
        }
        ["v1", "runs"] => get(list::runs(engine, &request), &request).await,
        ["v1", "events"] => post(events::publish(engine, &request), &request).await,
        ["v1", "runs", id] => get(with(id, |id| runs::show(engine, id)), &request).await,
        ["v1", "runs", id, "history"] => get(with(id, |id| runs::history(engine, id)), &request).await,
        ["v1", "runs", id, "end"] => get(with(id, |id| runs::end(engine, &request, id)), &request).await,
        ["v1", "runs", id, verb @ ("cancel" | "hold" | "resume")] => {
            post(with(id, |id| runs::change(engine, &request, id, verb)), &request).await
        }
        _ => Ok(problem(StatusCode::NOT_FOUND, &format!("there is no {} {path} here", request.method()))),
    };
    answered.unwrap_or_else(|refusal| *refusal)
}

async fn get(answering: impl Future<Output = Answer>, request: &Request<Bytes>) -> Answer {
    match request.method() {
        &Method::GET | &Method::HEAD => answering.await,
        _ => Ok(not_allowed("GET, HEAD")),
    }
}

async fn post(answering: impl Future<Output = Answer>, request: &Request<Bytes>) -> Answer {
    match request.method() {
        &Method::POST => answering.await,
        _ => Ok(not_allowed("POST")),
    }
}

fn only(request: &Request<Bytes>, method: &Method, work: impl FnOnce() -> Answer) -> Answer {
    if request.method() == method { work() } else { Ok(not_allowed(method.as_str())) }
}

/// Does something with the run of a path.
async fn with<F: Future<Output = Answer>>(id: &str, work: impl FnOnce(RunId) -> F) -> Answer {
    match id.parse() {
        Ok(id) => work(id).await,
        Err(why) => {
            let why: crate::run::BadRunId = why;
            Ok(problem(StatusCode::NOT_FOUND, &why.to_string()))
        }
    }
}
