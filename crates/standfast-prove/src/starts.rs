//! What became of the runs that a load started. Pure: a journal and the runs in, facts out.
//!
//! A run belongs to the start whose id its input holds. For a load of starts:
//! - an acknowledged start without a run is **lost**;
//! - a start with more than one run is **doubled**, since all its repeats carry one key;
//! - a run that goes on when the stack has come to rest is **open**.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use standfast_model::{LoadName, Stack};

use crate::journal::Journal;
use crate::oracle::Cases;
use crate::target::RunSeen;

/// The runs of each workflow that was read.
pub(crate) type Runs = BTreeMap<String, Vec<RunSeen>>;

/// What became of the runs of one load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowFacts {
    /// The load.
    pub load: LoadName,
    /// The workflow: `NAMESPACE/NAME`, or `NAMESPACE/NAME/VERSION`.
    pub workflow: String,
    /// Whether the runs could be read.
    pub is_judged: bool,
    /// Starts that were acknowledged.
    pub acknowledged: u64,
    /// Runs that there are.
    pub started: u64,
    /// Those that have ended, however.
    pub ended: u64,
    /// Those that have not ended.
    pub open: Cases,
    /// Those that have ended by a fault or were cancelled.
    pub failed: Cases,
    /// Acknowledged starts without a run.
    pub lost: Cases,
    /// Starts with more than one run.
    pub doubled: Cases,
    /// Half of the runs took at most this long from their start to their end, in microseconds.
    pub p50_us: u64,
    /// 99 % of the runs took at most this long, in microseconds.
    pub p99_us: u64,
    /// The longest of them, in microseconds.
    pub max_us: u64,
    /// The longest time in which a run was there and none ended, in microseconds.
    pub standstill_us: u64,
}

/// The workflows that a stack's loads start.
pub(crate) fn workflows(stack: &Stack) -> BTreeSet<String> {
    stack.load.values().filter_map(|load| load.workflow.clone()).collect()
}

/// What became of the runs of each load that starts some.
pub(crate) fn facts(stack: &Stack, journal: &Journal, runs: &Runs) -> Vec<WorkflowFacts> {
    let of = |load: &standfast_model::Load| {
        let workflow = load.workflow.clone()?;
        Some(examine(&load.name, &workflow, journal, runs.get(&workflow).map(Vec::as_slice)))
    };
    stack.load.values().filter_map(of).collect()
}

fn examine(load: &LoadName, workflow: &str, journal: &Journal, runs: Option<&[RunSeen]>) -> WorkflowFacts {
    let index = journal.begin.loads.iter().position(|name| name == load);
    let starts = || journal.requests.iter().filter(|request| Some(request.load) == index);
    let ids: BTreeSet<&str> = starts().map(|request| request.id.as_str()).collect();
    let mut of_start: BTreeMap<&str, Vec<&RunSeen>> = BTreeMap::new();
    for run in runs.into_iter().flatten() {
        if let Some(id) = id_in(&run.input, &ids) {
            of_start.entry(id).or_default().push(run);
        }
    }
    let mut facts = WorkflowFacts {
        load: load.clone(),
        workflow: workflow.to_owned(),
        is_judged: runs.is_some(),
        acknowledged: 0,
        started: of_start.values().map(|runs| runs.len() as u64).sum(),
        ended: 0,
        open: Cases::default(),
        failed: Cases::default(),
        lost: Cases::default(),
        doubled: Cases::default(),
        p50_us: 0,
        p99_us: 0,
        max_us: 0,
        standstill_us: 0,
    };
    for start in starts() {
        facts.acknowledged += u64::from(start.is_acknowledged());
        match of_start.get(start.id.as_str()).map_or(0, Vec::len) {
            0 if start.is_acknowledged() && facts.is_judged => facts.lost.add(&start.id),
            0 | 1 => {}
            _ => facts.doubled.add(&start.id),
        }
    }
    let mut ended = Vec::new();
    for run in of_start.values().flatten() {
        match run.status.as_str() {
            _ if !run.has_ended() => facts.open.add(&run.id),
            "completed" => ended.push(*run),
            _ => {
                facts.failed.add(&run.id);
                ended.push(*run);
            }
        }
    }
    facts.ended = ended.len() as u64;
    time(&mut facts, &mut ended);
    facts
}

fn time(facts: &mut WorkflowFacts, ended: &mut [&RunSeen]) {
    let micros = |time: std::time::Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let mut took: Vec<u64> = ended.iter().map(|run| micros(run.changed_at.since(run.started_at))).collect();
    took.sort_unstable();
    let Some(last) = took.len().checked_sub(1) else { return };
    (facts.p50_us, facts.p99_us, facts.max_us) = (took[last / 2], took[last * 99 / 100], took[last]);
    // Between an end and the next, the standstill begins when the first of the runs that have not ended by then was there.
    ended.sort_by_key(|run| run.changed_at);
    let mut earliest = None;
    for (index, run) in ended.iter().enumerate().rev() {
        let open_since = earliest.map_or(run.started_at, |at: standfast_model::Stamp| at.min(run.started_at));
        earliest = Some(open_since);
        let before = index.checked_sub(1).map(|index| ended[index].changed_at);
        let from = before.map_or(open_since, |before| before.max(open_since));
        facts.standstill_us = facts.standstill_us.max(micros(run.changed_at.since(from)));
    }
}

/// The id of the start, somewhere in the input. Recursion ends with the value, whose depth its reader limits.
fn id_in<'i>(input: &Value, ids: &BTreeSet<&'i str>) -> Option<&'i str> {
    match input {
        Value::String(text) => ids.get(text.as_str()).copied(),
        Value::Array(items) => items.iter().find_map(|item| id_in(item, ids)),
        Value::Object(fields) => fields.values().find_map(|value| id_in(value, ids)),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
