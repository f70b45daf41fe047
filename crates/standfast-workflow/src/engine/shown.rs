//! What is told of runs.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Engine, Refused, Summary};
use crate::run::{Record, Run, RunId, State};

/// Where a run stands, and what it went through.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// How it stands.
    pub summary: Summary,
    /// Which run retries it, if one does.
    pub retried_by: Option<RunId>,
    /// The run itself, while it goes on.
    pub run: Option<Run>,
    /// All that happened, as far as it is kept.
    pub records: Vec<Record>,
}

impl Engine {
    /// Where a run stands, and all that happened to it.
    ///
    /// # Errors
    /// When there is no such run.
    pub async fn show(&self, id: RunId) -> Result<Shown, Refused> {
        match self.look(id).await {
            Ok((run, last)) => {
                let program = self.program_of(&run).await?;
                let records = self.0.journal.history(last).await?;
                Ok(Shown {
                    summary: Summary::of(&run, program.name()),
                    retried_by: None,
                    run: Some(run),
                    records,
                })
            }
            // What is not driven has ended, this very moment perhaps, or never was.
            Err(Refused::NoRun(_) | Refused::Ended(_)) => {
                let ended = self.0.journal.ended(id).await?;
                let (summary, last) = ended.ok_or_else(|| self.not_there(id))?;
                let records = self.0.journal.history(last).await?;
                let retried_by = self.0.journal.retried_by(id).await?;
                Ok(Shown { summary, retried_by, run: None, records })
            }
            Err(why) => Err(why),
        }
    }

    /// Runs, the latest first, whether they go on or have ended; at most `limit`, `after` one that was shown before. Page by page
    /// each is shown once, though runs end meanwhile.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn list(&self, after: Option<RunId>, limit: usize) -> Result<Vec<Summary>, Refused> {
        // First those that go on: one that ends meanwhile is among those that have ended.
        let mut live = self.runs().ids();
        live.retain(|id| after.is_none_or(|after| *id < after));
        live.sort_unstable_by(|one, other| other.cmp(one));
        live.truncate(limit);
        let ended = self.0.journal.ended_before(after, limit).await?;
        let mut found: BTreeMap<RunId, Summary> =
            ended.into_iter().map(|summary| (summary.id, summary)).collect();
        for id in live {
            if found.len() >= limit && found.first_key_value().is_some_and(|(oldest, _)| id < *oldest) {
                break; // all others are older than what is shown
            }
            if found.contains_key(&id) {
                continue;
            }
            let summary = match self.look(id).await {
                Ok((run, _)) => Some(Summary::of(&run, self.program_of(&run).await?.name())),
                Err(Refused::NoRun(_) | Refused::Ended(_)) => {
                    self.0.journal.ended(id).await?.map(|(summary, _)| summary)
                }
                Err(why) => return Err(why),
            };
            found.extend(summary.map(|summary| (id, summary)));
            while found.len() > limit {
                found.pop_first();
            }
        }
        Ok(found.into_values().rev().collect())
    }
}

/// What a run waits for, task by task.
pub(crate) fn waits_for(run: &Run) -> Value {
    let waits = run.scopes.values().filter_map(|scope| {
        let (kind, until) = match &scope.state {
            State::Asking => ("answer", scope.deadline),
            State::Waiting { until } => ("time", Some(*until)),
            State::Pausing { until, .. } => ("retry", Some(*until)),
            State::Listening(_) => ("event", scope.deadline),
            State::Receiving(_) => ("message", scope.deadline),
            _ => return None,
        };
        let until = until.map(|until| until.to_string());
        Some(json!({"task": &*scope.task, "for": kind, "since": scope.at.to_string(), "until": until}))
    });
    waits.collect()
}
