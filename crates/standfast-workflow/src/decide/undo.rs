//! What was done is undone: in reverse order, by what its tasks name as their compensation, before an error is caught or ends the run.

use std::sync::Arc;

use serde_json::json;

use super::{Deciding, catch, join, unknown_task};
use crate::program::{Step, Task};
use crate::run::{Event, NotUndone, Problem, Run, ScopeId, Standard, State, Status};

/// Most that a run may keep of what its tasks were given and yielded, for undoing them, in bytes of JSON.
pub const UNDO_BYTES_MAX: usize = 1 << 20;
/// The kind of the problem when it is more.
const UNDO_TOO_LARGE: &str = "urn:standfast:error:undo-too-large";
/// Most tasks that could not be undone which a problem names.
const NAMED_MAX: usize = 8;
/// Most of the reason that it tells of each, in characters.
const REASON_CHARS_MAX: usize = 200;

/// Whether a run is undone, and ends then.
pub(super) fn ends(run: &Run) -> bool {
    run.scopes.get(&ScopeId::ROOT).is_some_and(|root| matches!(root.state, State::Undoing { .. }))
}

/// Whether a scope is a part of what undoes a task.
pub(super) fn is_within(run: &Run, id: ScopeId) -> bool {
    run.holders(id).any(|(_, scope)| matches!(scope.state, State::Compensating { .. }))
}

/// Whether a task of this scope is to be undone later.
pub(super) fn is_owed(deciding: &Deciding<'_>, parent: ScopeId, task: &Task) -> bool {
    task.compensate.is_some() && !is_within(&deciding.run, parent)
}

/// Why no more can be kept for undoing, if it is too much now. The task that was too much is kept, so that it is undone with the others.
pub(super) fn too_much(run: &Run) -> Option<Problem> {
    let undone = run.undone.iter().map(|undone| undone.place.len());
    let kept: usize = run.undo.iter().map(|undo| undo.bytes).chain(undone).sum();
    if kept <= UNDO_BYTES_MAX {
        return None;
    }
    let max = UNDO_BYTES_MAX >> 10;
    let detail = format!(
        "the inputs and outputs of tasks with `compensate` take {} KiB, at most {max} KiB are kept for undoing a run",
        kept >> 10
    );
    let problem = Standard::Runtime.problem(detail);
    Some(Problem {
        kind: UNDO_TOO_LARGE.to_owned(),
        title: Some("Undo Data Too Large".to_owned()),
        ..problem
    })
}

/// Undoes what was done within a scope before anything else becomes of the problem. False when nothing is to be undone.
pub(super) fn begin(
    deciding: &mut Deciding<'_>,
    id: ScopeId,
    problem: &Problem,
    ends: Option<Status>,
) -> bool {
    if !deciding.run.undo.iter().any(|undo| undo.within.contains(&id)) {
        return false;
    }
    let state = State::Undoing { problem: problem.clone(), failed: Vec::new(), ends };
    deciding.note(Event::Restarted { scope: id, state });
    deciding.look_at(id);
    true
}

/// Undoes what was done last and is not undone yet.
pub(super) fn step(deciding: &mut Deciding<'_>, id: ScopeId) {
    let Some(scope) = deciding.run.scopes.get(&id) else { return };
    if scope.active > 0 {
        return;
    }
    let Some(undo) = deciding.run.undo.iter().rev().find(|undo| undo.within.contains(&id)) else {
        return all_undone(deciding, id);
    };
    let program = deciding.world.program;
    let undoes = program.find(&undo.task).and_then(|task| program.task(task).compensate);
    let pointer = undoes.map_or(&undo.task, |task| &program.task(task).pointer);
    let input = json!({"input": *undo.input, "output": *undo.output});
    let entered = Event::Entered {
        scope: ScopeId(deciding.run.next_scope),
        parent: id,
        task: Arc::clone(pointer),
        input: Some(Arc::new(input)),
        deadline: None,
        state: State::Compensating { key: Arc::clone(&undo.key) },
        key: None,
    };
    let (child, task) = (ScopeId(deciding.run.next_scope), Arc::clone(&undo.task));
    deciding.note(entered);
    match undoes {
        Some(_) => {
            deciding.look_at(id);
            deciding.look_at(child);
        }
        None => deciding.fail(child, unknown_task(&task)),
    }
}

/// What undoes a task was done.
pub(super) fn ended(deciding: &mut Deciding<'_>, id: ScopeId) {
    let Some(scope) = deciding.run.scopes.get(&id) else { return };
    let (output, parent) = (Arc::clone(&scope.data), scope.parent);
    deciding.note(Event::Left { scope: id, output, context: None, then: None, is_owed: false });
    parent.into_iter().for_each(|parent| deciding.look_at(parent));
}

fn all_undone(deciding: &mut Deciding<'_>, id: ScopeId) {
    let Some(scope) = deciding.run.scopes.get(&id) else { return };
    let State::Undoing { problem, failed, ends } = &scope.state else { return };
    let (is_all, ends, problem) = (failed.is_empty(), *ends, told(problem, failed));
    if let Some(status) = ends {
        return deciding.note(Event::Ended { status, output: None, problem: Some(problem) });
    }
    let program = deciding.world.program;
    match program.find(&scope.task).map(|task| &program.task(task).step) {
        Some(Step::Try(_)) if is_all => catch::catches(deciding, id, &problem),
        Some(Step::For(_)) => join::collected(deciding, id, &problem),
        // What is done on an error counts on all being undone.
        _ => deciding.fail(id, problem),
    }
}

/// The run ends now, whatever is not undone yet.
pub(super) fn cut_short(deciding: &mut Deciding<'_>, why: &Problem) -> bool {
    let Some(scope) = deciding.run.scopes.get(&ScopeId::ROOT) else { return false };
    let State::Undoing { problem, failed, ends } = &scope.state else { return false };
    let mut failed = failed.clone();
    failed.extend(
        deciding
            .run
            .undo
            .iter()
            .rev()
            .map(|undo| NotUndone { task: Arc::clone(&undo.task), problem: why.clone() }),
    );
    let (status, problem) = (ends.unwrap_or(Status::Faulted), told(problem, &failed));
    deciding.note(Event::Ended { status, output: None, problem: Some(problem) });
    true
}

/// A problem that tells what could not be undone.
fn told(problem: &Problem, failed: &[NotUndone]) -> Problem {
    if failed.is_empty() {
        return problem.clone();
    }
    let named = failed.iter().take(NAMED_MAX).map(|NotUndone { task, problem }| {
        let reason: String = problem.to_string().chars().take(REASON_CHARS_MAX).collect();
        format!("{} ({reason})", task.split(crate::program::AROUND).next().unwrap_or(task))
    });
    let mut named: Vec<String> = named.collect();
    if failed.len() > NAMED_MAX {
        named.push(format!("{} others", failed.len() - NAMED_MAX));
    }
    let first = problem.detail.as_ref().or(problem.title.as_ref()).unwrap_or(&problem.kind);
    let detail = format!("{first}; not undone: {}", named.join(", "));
    Problem { detail: Some(detail), ..problem.clone() }
}
