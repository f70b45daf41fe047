//! Runs go over to another version of their document: one, those that are named, or those that fit.

use ::http::StatusCode;
use serde_json::{Value, json};

use super::Asked;
use super::answer::{Answer, bad, data, problem_with, refused};
use super::routes::BULK_MAX;
use crate::decide::Remark;
use crate::engine::{Filter, Migration, Refused};
use crate::run::RunId;

/// Runs that have not ended.
const LIVE: [&str; 5] = ["pending", "running", "waiting", "suspended", "parked"];

pub(super) async fn one(asked: &Asked<'_>, id: RunId) -> Answer {
    let (to, is_dry) = (version(asked)?, asked.flag("dryRun")?);
    let migration = asked.engine.migrate(id, to, is_dry).await.map_err(|why| refused(&why))?;
    let told = as_value(&migration);
    if migration.goes() || is_dry {
        return Ok(data(StatusCode::OK, &told));
    }
    let detail = why(&migration);
    Err(Box::new(problem_with(StatusCode::CONFLICT, &detail, "migration", told)))
}

/// A page of the runs that fit, or those that are named.
pub(super) async fn many(asked: &Asked<'_>) -> Answer {
    let (to, is_dry) = (version(asked)?, asked.flag("dryRun")?);
    let (ids, next) = which(asked).await?;
    let mut told: Vec<Value> = Vec::new();
    for (id, is_named) in ids {
        match asked.engine.migrate(id, to, is_dry).await {
            // Of runs that are looked for, those that are left are meant.
            Ok(migration) if migration.is_done_before() && !is_named => {}
            Ok(migration) => told.push(as_value(&migration)),
            Err(why @ Refused::Stopped(_)) => return Err(refused(&why)),
            Err(Refused::Ended(_)) if !is_named => {}
            // One that ended, or whose workflow has no such version, keeps it from no other.
            Err(why) => told.push(json!({"id": id, "refused": why.to_string()})),
        }
    }
    Ok(data(StatusCode::OK, &json!({"runs": told, "next": next})))
}

/// The runs that are meant, each with whether it was named, and where to go on.
async fn which(
    asked: &Asked<'_>,
) -> Result<(Vec<(RunId, bool)>, Option<RunId>), Box<::http::Response<bytes::Bytes>>> {
    let (limit, after) = asked.page(BULK_MAX, BULK_MAX)?;
    let is_all = asked.flag("all")?;
    let mut filter = asked.filter()?;
    filter.definition = asked.parameter("from").map(str::to_owned);
    let named = asked.query.iter().filter(|(name, _)| name == "run").map(|(_, id)| id.parse::<RunId>());
    let named: Vec<RunId> = named.collect::<Result<_, _>>().map_err(|why| bad(why.to_string()))?;
    if !named.is_empty() {
        if filter != Filter::default() || is_all {
            return Err(bad("runs are named, and said which are meant: say one of the two"));
        }
        if named.len() > BULK_MAX {
            return Err(bad(format!("at most {BULK_MAX} runs are named at a time")));
        }
        return Ok((named.into_iter().map(|id| (id, true)).collect(), None));
    }
    if filter == Filter::default() && !is_all {
        return Err(bad("say which runs are meant: `run=ID`, `workflow=NAME&from=VERSION`, or `all=true`"));
    }
    match filter.statuses.is_empty() {
        true => filter.statuses = LIVE.map(str::to_owned).into(),
        false => filter.statuses.retain(|status| LIVE.contains(&status.as_str())),
    }
    if filter.statuses.is_empty() {
        let live = LIVE.join(", ");
        return Err(bad(format!("a run that has ended does not go over: ask for {live}")));
    }
    let found = asked.engine.search(&filter, after, limit).await.map_err(|why| refused(&why))?;
    Ok((found.runs.into_iter().map(|summary| (summary.id, false)).collect(), found.next))
}

fn version<'a>(asked: &'a Asked<'_>) -> Result<&'a str, Box<::http::Response<bytes::Bytes>>> {
    let to = asked.parameter("to").filter(|to| !to.is_empty());
    to.ok_or_else(|| bad("`to` names the version to go over to: `to=2.0.0`, or `to=latest`"))
}

fn as_value(migration: &Migration) -> Value {
    let remarks = |all: &[Remark]| -> Vec<Value> {
        all.iter().map(|remark| json!({"task": remark.task, "why": remark.why})).collect()
    };
    let verdict = match (migration.is_done_before(), migration.goes()) {
        (true, _) => "already",
        (false, true) => "goes",
        (false, false) => "refused",
    };
    json!({
        "id": migration.id,
        "workflow": migration.workflow,
        "status": migration.status,
        "definition": migration.definition,
        "to": {"version": migration.version, "definition": migration.to},
        "verdict": verdict,
        "reasons": remarks(&migration.reasons),
        "notes": remarks(&migration.notes),
        "places": migration.places,
    })
}

/// Why a run does not go over, as a sentence.
fn why(migration: &Migration) -> String {
    let reasons = migration.reasons.iter().map(|Remark { task, why }| format!("{task}: {why}"));
    let reasons: Vec<String> = reasons.collect();
    format!(
        "the run {} does not go over to version {}: {}",
        migration.id,
        migration.version,
        reasons.join("; ")
    )
}
