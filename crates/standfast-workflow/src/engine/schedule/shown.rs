//! Schedules as people see them.

use std::sync::PoisonError;

use standfast_model::Stamp;

use super::super::Engine;
use super::times::Times;
use super::{Kept, Standing};
use crate::program::{Program, Schedule, WorkflowName};
use crate::run::RunId;

/// A schedule that is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scheduled {
    /// Of which workflow; the version is the newest.
    pub workflow: WorkflowName,
    /// What the document says: `cron 0 6 * * *`.
    pub schedule: String,
    /// The time zone by whose clocks it counts, if the document names one.
    pub time_zone: Option<String>,
    /// What is done when the run before goes on.
    pub overlap: &'static str,
    /// What becomes of times that were missed.
    pub catch_up: String,
    /// When the next run begins, jitter included; `None` when that depends on events or on the end of a run, and for never.
    pub next: Option<Stamp>,
    /// The same, by the clocks of the zone.
    pub next_there: Option<String>,
    /// The run that it began last.
    pub last: Option<RunId>,
    /// How many were due and wait for the end of that run.
    pub waiting: usize,
}

impl Engine {
    /// The schedules that are in force, by workflow.
    pub fn scheduled(&self) -> Vec<Scheduled> {
        let all = self.schedules().lock();
        let told = all.values().filter_map(|active| {
            let kept = active.shown.lock().unwrap_or_else(PoisonError::into_inner);
            scheduled(&active.program, &kept)
        });
        told.collect()
    }
}

impl Program {
    /// The next times of its schedule after `from`, at most so many, without jitter. Empty when runs begin by events or after others.
    pub fn next_due(&self, from: Stamp, most: usize) -> Vec<Stamp> {
        let Some(times) = Times::of(self) else { return Vec::new() };
        let due = std::iter::successors(times.following(from), |due| times.following(*due));
        due.take(most).collect()
    }

    /// A time by the clocks of the zone in which its schedule counts: `2026-03-29T03:00:00+02:00[Europe/Berlin]`; without one in UTC.
    pub fn shown_there(&self, at: Stamp) -> String {
        let zone = match &self.schedule {
            Some(Schedule::Cron(_, zone)) => zone.as_ref(),
            _ => None,
        };
        zone.and_then(|zone| zone.shown(at)).unwrap_or_else(|| at.to_string())
    }
}

fn scheduled(program: &Program, kept: &Kept) -> Option<Scheduled> {
    let times = Times::of(program)?;
    let schedule = program.schedule.as_ref()?;
    let text = |key: &str| match program.part(&format!("/schedule/{key}")) {
        serde_json::Value::String(text) => format!("{key} {text}"),
        other => format!("{key} {other}"),
    };
    let (key, zone) = match schedule {
        Schedule::Every(_) => ("every", None),
        Schedule::Cron(_, zone) => ("cron", zone.as_ref()),
        Schedule::After(_) => ("after", None),
        Schedule::On(_) => ("on", None),
    };
    let next = match &kept.standing {
        Standing::Due(due) => due.map(|due| times.begins_at(due)),
        Standing::Running(_) | Standing::Gathering { .. } => None,
    };
    let last = match &kept.standing {
        Standing::Running(run) => Some(*run),
        _ => kept.last,
    };
    let options = &program.schedule_options;
    Some(Scheduled {
        workflow: program.name().clone(),
        schedule: text(key),
        time_zone: options.time_zone.as_ref().map(|zone| zone.as_str().to_owned()),
        overlap: options.overlap.word(),
        catch_up: options.catch_up.to_string(),
        next,
        next_there: next.and_then(|next| zone?.shown(next)),
        last,
        waiting: kept.waiting.len(),
    })
}
