//! The engine's API, as plain requests and answers: whoever serves it brings the sockets. `docs/workflow-api.md` is the contract.
//!
//! Errors are problem details (RFC 9457).

mod again;
mod answer;
mod bulk;
mod events;
mod list;
mod migrate;
mod openapi;
mod routes;
mod runs;
mod signals;
mod tasks;
mod values;

use ::http::{Method, Request, Response, StatusCode};
use bytes::Bytes;

use self::answer::{Answer, data, not_allowed, problem, query};
use self::routes::{Operation, ROUTES, Route};
use crate::engine::Engine;
use crate::run::{BadRunId, RunId};

/// Longest body of a request, in bytes: an input with room for its blanks.
pub const API_BODY_BYTES_MAX: usize = 1 << 20;

/// A request that is answered: what was asked, and what stood in its path and its query.
struct Asked<'a> {
    engine: &'a Engine,
    request: &'a Request<Bytes>,
    variables: Vec<&'a str>,
    query: Vec<(String, String)>,
}

/// Answers a request to a path below `/v1`. Every failure is an answer.
pub async fn answer(engine: &Engine, request: Request<Bytes>) -> Response<Bytes> {
    if request.body().len() > API_BODY_BYTES_MAX {
        let detail = format!("a body has at most {API_BODY_BYTES_MAX} bytes");
        return problem(StatusCode::PAYLOAD_TOO_LARGE, &detail);
    }
    let path = request.uri().path();
    let mut methods: Vec<&Method> = Vec::new();
    for route in ROUTES {
        let Some(variables) = route.variables(path) else { continue };
        if !route.takes(request.method()) {
            methods.push(&route.method);
            continue;
        }
        let answered = match query(&request, route) {
            Ok(query) => perform(route, Asked { engine, request: &request, variables, query }).await,
            Err(refusal) => Err(refusal),
        };
        return answered.unwrap_or_else(|refusal| *refusal);
    }
    if methods.is_empty() {
        return problem(StatusCode::NOT_FOUND, &format!("there is no {} {path} here", request.method()));
    }
    let head = methods.contains(&&Method::GET).then_some("HEAD");
    let methods: Vec<&str> = methods.into_iter().map(Method::as_str).chain(head).collect();
    not_allowed(&methods.join(", "))
}

async fn perform(route: &Route, asked: Asked<'_>) -> Answer {
    match route.operation {
        Operation::Describe => Ok(data(StatusCode::OK, &openapi::document())),
        Operation::Workflows => Ok(list::workflows(asked.engine)),
        Operation::Start => runs::start(&asked, "latest").await,
        Operation::StartVersion => runs::start(&asked, asked.variables[2]).await,
        Operation::Runs => list::runs(&asked).await,
        Operation::Stuck => Ok(list::stuck(asked.engine)),
        Operation::Sink => Ok(list::sink(asked.engine)),
        Operation::Schedules => Ok(list::schedules(asked.engine)),
        Operation::Values => values::list(&asked, asked.variables[0]).await,
        Operation::Value => values::show(&asked, asked.variables[0]).await,
        Operation::Run => runs::show(&asked, asked.run()?).await,
        Operation::History => runs::history(&asked, asked.run()?).await,
        Operation::End => runs::end(&asked, asked.run()?).await,
        Operation::Cancel => runs::cancel(&asked, asked.run()?).await,
        Operation::Hold => runs::hold(&asked, asked.run()?).await,
        Operation::Resume => runs::resume(&asked, asked.run()?).await,
        Operation::Retry => again::retry(&asked, asked.run()?).await,
        Operation::Redo => again::redo(&asked, asked.run()?).await,
        Operation::Migrate => migrate::one(&asked, asked.run()?).await,
        Operation::MigrateMany => migrate::many(&asked).await,
        Operation::Signal => signals::tell(&asked, asked.run()?, asked.variables[1]).await,
        Operation::Query => signals::query(&asked, asked.run()?, asked.variables[1]).await,
        Operation::Tasks => tasks::list(&asked).await,
        Operation::Task => tasks::show(&asked).await,
        Operation::Answer => tasks::answer(&asked).await,
        Operation::Bulk(bulk) => bulk::change(&asked, bulk).await,
        Operation::Beat => signals::beat(&asked),
        Operation::Publish => events::publish(asked.engine, asked.request).await,
    }
}

impl Asked<'_> {
    /// The run that its path names.
    fn run(&self) -> Result<RunId, Box<Response<Bytes>>> {
        let id = self.variables.first().copied().unwrap_or_default();
        id.parse().map_err(|why: BadRunId| Box::new(problem(StatusCode::NOT_FOUND, &why.to_string())))
    }

    /// A parameter of its query.
    fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}
