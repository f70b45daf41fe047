//! What there is.

use ::http::{Request, Response, StatusCode};
use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, bad, data, parameter, query, refused};
use super::runs::as_value;
use crate::engine::Engine;
use crate::run::RunId;

/// Runs in one answer, unless asked for another number, and at most.
const LIMIT: usize = 100;
const LIMIT_MAX: usize = 1_000;
/// Runs that are looked at for one answer; where to go on is told.
const LOOKED_AT_MAX: usize = 5_000;

pub(super) fn workflows(engine: &Engine) -> Response<Bytes> {
    data(StatusCode::OK, &json!({"workflows": engine.workflows()}))
}

/// Runs that go on, then those that have ended, the latest of each first.
pub(super) async fn runs(engine: &Engine, request: &Request<Bytes>) -> Answer {
    let query = query(request, &["status", "workflow", "limit", "after"])?;
    let limit = match parameter(&query, "limit").map(str::parse::<usize>) {
        None => LIMIT,
        Some(Ok(limit @ 1..=LIMIT_MAX)) => limit,
        Some(_) => return Err(bad(format!("`limit` is a number from 1 to {LIMIT_MAX}"))),
    };
    let mut after = match parameter(&query, "after").map(str::parse::<RunId>) {
        None => None,
        Some(Ok(id)) => Some(id),
        Some(Err(why)) => return Err(bad(format!("`after`: {why}"))),
    };
    let (status, workflow) = (parameter(&query, "status"), parameter(&query, "workflow"));
    if let Some(status) = status
        && !["pending", "running", "waiting", "suspended", "cancelled", "faulted", "completed"]
            .contains(&status)
    {
        return Err(bad(format!("`{status}` is no status")));
    }
    let (mut found, mut looked_at): (Vec<Value>, usize) = (Vec::new(), 0);
    let mut next = None;
    'pages: while looked_at < LOOKED_AT_MAX {
        let page = engine.list(after, LIMIT_MAX.min(limit * 2)).await.map_err(|why| refused(&why))?;
        if page.is_empty() {
            next = None;
            break;
        }
        for summary in page {
            looked_at += 1;
            after = Some(summary.id);
            next = after;
            let fits = status.is_none_or(|status| status == summary.status.word())
                && workflow.is_none_or(|name| name == summary.workflow.name);
            if fits {
                found.push(as_value(&summary));
                if found.len() == limit {
                    break 'pages;
                }
            }
        }
    }
    Ok(data(StatusCode::OK, &json!({"runs": found, "next": next})))
}
