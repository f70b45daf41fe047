//! Where a run that has ended can be gone on from: the run as it stood at some moment of its history, made anew.

use std::sync::Arc;

use serde_json::Value;
use standfast_model::Stamp;

use super::{Again, Event, Origin, Record, Run, RunId, State, Status, Undo};

/// The run as it stood before the task that it faulted by: all that had finished is done. `None` when nothing was begun, or it
/// was no fault.
pub(crate) fn before_fault(records: &[Record]) -> Option<Run> {
    let (last, before) = records.split_last()?;
    // The task that failed, those that it was a part of, and the run with them.
    let is_fault = |event: &&Event| {
        matches!(event, Event::Failed { .. } | Event::Faulted { .. })
            || matches!(event, Event::Ended { status: Status::Faulted, .. })
    };
    let kept = last.events.len() - last.events.iter().rev().take_while(is_fault).count();
    // An input that is refused is not accepted by asking again.
    let is_refused = before.is_empty()
        && last.events.len() == 2
        && matches!(last.events.first(), Some(Event::Started { .. }));
    (kept < last.events.len() && !is_refused).then(|| fold(before, last, kept))
}

/// The run as it stood before a task was begun for the last time; `None` when it never was.
pub(crate) fn before_task(records: &[Record], task: &str) -> Option<Run> {
    let place = records.iter().enumerate().rev().find_map(|(number, record)| {
        let found = record.events.iter().rposition(|event| begun(event) == Some(task))?;
        Some((number, found))
    });
    let (number, event) = place?;
    Some(fold(&records[..number], &records[number], event))
}

/// Which task that such a run takes as done was undone later.
pub(crate) fn undone_since<'r>(run: &'r Run, records: &[Record]) -> Option<&'r str> {
    let is_undone = |undo: &&Undo| {
        records.iter().flat_map(|record| &record.events).any(|event| {
            matches!(event, Event::Entered { state: State::Compensating { key }, .. } if *key == undo.key)
        })
    };
    run.undo.iter().find(is_undone).map(|undo| &*undo.task)
}

/// The tasks that were begun, in the order in which they first were.
pub(crate) fn tasks(records: &[Record]) -> Vec<&str> {
    let mut tasks = Vec::new();
    for task in records.iter().flat_map(|record| &record.events).filter_map(begun) {
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    tasks
}

fn begun(event: &Event) -> Option<&str> {
    match event {
        // It stands at the place of its loop.
        Event::Entered { state: State::Round, .. } => None,
        Event::Entered { task, .. } | Event::Done { task, .. } | Event::Failed { task, .. } => Some(task),
        _ => None,
    }
}

fn fold(before: &[Record], last: &Record, events: usize) -> Run {
    let mut run = Run::new(last.run);
    before.iter().for_each(|record| run.apply(record));
    last.events[..events].iter().for_each(|event| run.evolve(event, last.at));
    run
}

impl Run {
    /// The same, to be gone on from now by another run. Times that tasks may take, and attempts, begin anew; times that are waited
    /// for do not.
    pub(crate) fn again(mut self, of: RunId, by: Again, task: &str, now: Stamp) -> Self {
        let began = self.started_at;
        let anew = |until: Stamp, since: Stamp| now.plus(until.since(since.max(began)));
        for scope in self.scopes.values_mut() {
            scope.deadline = scope.deadline.map(|deadline| anew(deadline, scope.at));
            if let State::Trying { failed, since, until } = &mut scope.state {
                *until = until.map(|until| anew(until, *since));
                (*failed, *since) = (0, now);
            }
        }
        let keys = match by {
            Again::Retry => Some(self.keys_of()),
            Again::Redo => None,
        };
        let since = self.origin.as_ref().map_or(began, |origin| origin.since);
        self.origin = Some(Box::new(Origin { run: of, by, task: task.into(), keys, since }));
        (self.status, self.started_at, self.is_held) = (Status::Running, now, false);
        self.parked = None;
        if let Some(limits) = &mut self.limits {
            limits.until = limits.until.map(|until| anew(until, began));
            limits.admitted = None;
            limits.around.clear();
        }
        (self.output, self.problem) = (None, None);
        self
    }

    /// Gives the task that comes next something else. False when it cannot be said what that would mean: a branch shares what it
    /// is given with the others.
    pub(crate) fn give(&mut self, records: &[Record], task: &str, input: &Arc<Value>) -> bool {
        let parents = records.iter().flat_map(|record| &record.events).rev();
        let parent = parents.filter(|event| begun(event) == Some(task)).find_map(|event| match event {
            Event::Entered { parent, .. } | Event::Done { parent, .. } | Event::Failed { parent, .. } => {
                Some(*parent)
            }
            _ => None,
        });
        let Some(scope) = parent.and_then(|parent| self.scopes.get_mut(&parent)) else { return false };
        if matches!(scope.state, State::Fork { .. }) {
            return false;
        }
        scope.data = Arc::clone(input);
        // Another attempt of a list begins with what its first task was given.
        if scope.last.is_none() && matches!(scope.state, State::Trying { .. }) {
            scope.input = Arc::clone(input);
        }
        true
    }

    /// Whether what it had done is being undone, or was.
    pub(crate) fn is_undoing(&self) -> bool {
        self.scopes.values().any(|scope| matches!(scope.state, State::Undoing { .. }))
    }

    /// Whose keys name its effects.
    pub(crate) fn keys_of(&self) -> RunId {
        self.origin.as_ref().and_then(|origin| origin.keys).unwrap_or(self.id)
    }
}
