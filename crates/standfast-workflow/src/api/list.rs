//! What there is.

use ::http::{Response, StatusCode};
use bytes::Bytes;
use serde_json::{Value, json};
use standfast_model::Stamp;

use super::Asked;
use super::answer::{Answer, bad, data, refused};
use super::routes::LIMIT_MAX;
use super::runs::{as_value, in_line};
use crate::engine::{Engine, Filter, STATUS_WORDS, Scheduled, SinkStatus, Stuck, Summary};
use crate::run::RunId;

/// Runs in one answer, unless asked for another number.
const LIMIT: usize = 100;

pub(super) fn workflows(engine: &Engine) -> Response<Bytes> {
    data(StatusCode::OK, &json!({"workflows": engine.workflows()}))
}

pub(super) fn stuck(engine: &Engine) -> Response<Bytes> {
    let told = |run: Stuck| {
        let Stuck { id, since, kind, why, hint } = run;
        json!({"id": id, "since": since.to_string(), "kind": kind.word(), "why": why, "hint": hint})
    };
    let runs: Vec<Value> = engine.stuck().into_iter().map(told).collect();
    data(StatusCode::OK, &json!({"runs": runs}))
}

pub(super) fn sink(engine: &Engine) -> Response<Bytes> {
    let SinkStatus { uri, waiting, since, sent, lost, error } = engine.sink_status();
    let since = since.map(|since| since.to_string());
    let told =
        json!({"sink": uri, "waiting": waiting, "since": since, "sent": sent, "lost": lost, "error": error});
    data(StatusCode::OK, &told)
}

pub(super) fn schedules(engine: &Engine) -> Response<Bytes> {
    let told = |one: Scheduled| {
        let mut value = json!({
            "workflow": one.workflow, "schedule": one.schedule, "overlap": one.overlap, "catchUp": one.catch_up,
            "next": one.next.map(|next| next.to_string()), "waiting": one.waiting,
        });
        let others = [
            ("timeZone", one.time_zone),
            ("nextThere", one.next_there),
            ("last", one.last.map(|run| run.to_string())),
        ];
        for (name, other) in others {
            if let Some(other) = other {
                value[name] = other.into();
            }
        }
        value
    };
    let all: Vec<Value> = engine.scheduled().into_iter().map(told).collect();
    data(StatusCode::OK, &json!({"schedules": all}))
}

/// Runs that fit, the latest first.
pub(super) async fn runs(asked: &Asked<'_>) -> Answer {
    let (filter, (limit, after)) = (asked.filter()?, asked.page(LIMIT, LIMIT_MAX)?);
    let found = asked.engine.search(&filter, after, limit).await.map_err(|why| refused(&why))?;
    let with_line = |summary: &Summary| {
        let mut value = as_value(summary);
        in_line(asked, summary.id, &mut value);
        value
    };
    let runs: Vec<Value> = found.runs.iter().map(with_line).collect();
    Ok(data(StatusCode::OK, &json!({"runs": runs, "next": found.next})))
}

impl Asked<'_> {
    /// Which runs are meant.
    pub(super) fn filter(&self) -> Result<Filter, Box<Response<Bytes>>> {
        let text = |name: &str| self.parameter(name).map(str::to_owned);
        let statuses: Vec<String> = self
            .parameter("status")
            .into_iter()
            .flat_map(|all| all.split(','))
            .map(|status| status.trim().to_owned())
            .collect();
        if let Some(unknown) = statuses.iter().find(|status| !STATUS_WORDS.contains(&status.as_str())) {
            return Err(bad(format!("`{unknown}` is no status: one of {}", STATUS_WORDS.join(", "))));
        }
        let inputs = self.query.iter().filter(|(name, _)| name == "input");
        let inputs = inputs.map(|(_, pair)| match pair.split_once('=') {
            Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
            None => Err(bad(format!("`input={pair}` names no value: write `input=order_id=o-1`"))),
        });
        Ok(Filter {
            statuses,
            workflow: text("workflow"),
            started_from: self.time("startedAfter")?,
            started_before: self.time("startedBefore")?,
            input: inputs.collect::<Result<_, _>>()?,
            error: text("error"),
            definition: None,
        })
    }

    /// Whether something is asked for.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Box<Response<Bytes>>> {
        match self.parameter(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(bad(format!("`{name}` is true or false"))),
        }
    }

    fn time(&self, name: &str) -> Result<Option<Stamp>, Box<Response<Bytes>>> {
        let time = self.parameter(name).map(str::parse::<Stamp>).transpose();
        time.map_err(|why| bad(format!("`{name}`: {why}")))
    }

    /// How many runs at most, and after which.
    pub(super) fn page(
        &self,
        usual: usize,
        max: usize,
    ) -> Result<(usize, Option<RunId>), Box<Response<Bytes>>> {
        let limit = match self.parameter("limit").map(str::parse::<usize>) {
            None => usual,
            Some(Ok(limit)) if (1..=max).contains(&limit) => limit,
            Some(_) => return Err(bad(format!("`limit` is a number from 1 to {max}"))),
        };
        let after = self.parameter("after").map(str::parse::<RunId>).transpose();
        Ok((limit, after.map_err(|why| bad(format!("`after`: {why}")))?))
    }
}
