//! The same for many runs: those that fit, a page at a time, each by itself.

use ::http::StatusCode;
use serde_json::{Value, json};

use super::Asked;
use super::answer::{Answer, bad, data, refused};
use super::routes::BULK_MAX;
use super::runs::{as_value, reason};
use crate::engine::{Filter, Refused, Summary};

/// What is done to many runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bulk {
    Cancel,
    Hold,
    Resume,
    Retry,
}

impl Bulk {
    const fn word(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Hold => "hold",
            Self::Resume => "resume",
            Self::Retry => "retry",
        }
    }

    /// How runs stand to which it can be done.
    const fn statuses(self) -> &'static [&'static str] {
        match self {
            Self::Cancel => &["pending", "running", "waiting", "suspended", "parked"],
            Self::Hold => &["pending", "running", "waiting"],
            Self::Resume => &["suspended", "parked"],
            Self::Retry => &["faulted"],
        }
    }

    /// Of these those that are meant when nothing is said: what broke the process is taken up again only by name.
    fn meant(self) -> impl Iterator<Item = &'static str> {
        let can = self.statuses().iter().copied();
        can.filter(move |status| self != Self::Resume || *status != "parked")
    }
}

/// Does it to a page of the runs that fit, or only tells which these are.
pub(super) async fn change(asked: &Asked<'_>, bulk: Bulk) -> Answer {
    let (limit, after) = asked.page(BULK_MAX, BULK_MAX)?;
    let (is_all, is_dry) = (asked.flag("all")?, asked.flag("dryRun")?);
    let mut filter = asked.filter()?;
    if filter == Filter::default() && !is_all {
        return Err(bad("say which runs are meant, or `all=true`"));
    }
    let can = bulk.statuses();
    match filter.statuses.is_empty() {
        true => filter.statuses = bulk.meant().map(str::to_owned).collect(),
        false => filter.statuses.retain(|status| can.contains(&status.as_str())),
    }
    if filter.statuses.is_empty() {
        let (word, can) = (bulk.word(), can.join(", "));
        return Err(bad(format!(
            "`{word}` is for runs that are {can}: ask for one of these, or leave `status` out"
        )));
    }
    let reason = if bulk == Bulk::Cancel { reason(asked)? } else { String::new() };
    let found = asked.engine.search(&filter, after, limit).await.map_err(|why| refused(&why))?;
    let mut told: Vec<Value> = Vec::new();
    for summary in &found.runs {
        if bulk == Bulk::Retry
            && asked.engine.retried_by(summary.id).await.map_err(|why| refused(&why))?.is_some()
        {
            continue; // it was before
        }
        let mut value = as_value(summary);
        let fields =
            ["id", "workflow", "status", "startedAt"].map(|name| (name.to_owned(), value[name].take()));
        let mut value: Value = fields.into_iter().collect::<serde_json::Map<_, _>>().into();
        if !is_dry {
            match done(asked, bulk, summary, &reason).await {
                Ok((name, became)) => value[name] = became,
                Err(why @ Refused::Stopped(_)) => return Err(refused(&why)),
                // One that ended meanwhile keeps it from no other.
                Err(why) => value["refused"] = why.to_string().into(),
            }
        }
        told.push(value);
    }
    Ok(data(StatusCode::OK, &json!({"runs": told, "next": found.next})))
}

/// Does it to one run: what there is to tell, and its name.
async fn done(
    asked: &Asked<'_>,
    bulk: Bulk,
    summary: &Summary,
    reason: &str,
) -> Result<(&'static str, Value), Refused> {
    let (engine, id) = (asked.engine, summary.id);
    let run = match bulk {
        Bulk::Cancel => engine.cancel(id, reason).await?,
        Bulk::Hold => engine.hold(id).await?,
        Bulk::Resume => engine.resume(id).await?,
        Bulk::Retry => return Ok(("retriedBy", engine.retry(id).await?.to_string().into())),
    };
    Ok(("became", run.status.word().into()))
}
