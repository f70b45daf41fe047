//! Which task of a scope comes next.

use std::sync::Arc;

use super::{Deciding, catch, each, extended, fork, function, join, listen, undo};
use crate::program::{ListId, Next, Program, Step, TaskId};
use crate::run::{Last, Phase, ScopeId, State};

/// Does one thing that a scope can do at once, if there is any.
pub(super) fn step(deciding: &mut Deciding<'_>, id: ScopeId) {
    let Some(scope) = deciding.run.scopes.get(&id) else { return };
    match scope.state {
        State::Fork { .. } => return fork::step(deciding, id),
        State::Join { .. } => return join::step(deciding, id),
        State::Undoing { .. } => return undo::step(deciding, id),
        _ => {}
    }
    if scope.active > 0 {
        return;
    }
    let program = deciding.world.program;
    let task = scope.parent.and_then(|_| program.find(&scope.task));
    if scope.parent.is_some() && task.is_none() {
        return;
    }
    let Some(tasks) = tasks_of(program, task, &scope.state) else { return };
    let next = match (&scope.last, &scope.state) {
        (None, _) => first(deciding, tasks),
        // Where it leads is followed when what is done after it is done, too.
        (Some(_), State::Extended { phase: Phase::Inner, .. }) => After::ListEnds,
        (Some(last), _) => following(deciding, last),
    };
    match (next, &scope.state) {
        (After::Task(task), _) => deciding.enter(id, task),
        (After::Exit, State::Extended { phase: Phase::Before, .. }) => extended::replaced(deciding, id),
        (After::Exit | After::ListEnds, _) => list_ends(deciding, id),
        (After::RunEnds, _) if undo::is_within(&deciding.run, id) => list_ends(deciding, id),
        (After::RunEnds, _) => {
            let output = Arc::clone(&scope.data);
            deciding.complete(&output);
        }
    }
}

/// Tasks that a scope does one after the other.
pub(super) enum Tasks {
    List(ListId),
    /// A function's one task, or the one that is extended.
    One(TaskId),
}

/// The tasks that a scope does one after the other, if it is doing so now: one of this task, or the workflow itself.
pub(super) fn tasks_of(program: &Program, task: Option<TaskId>, state: &State) -> Option<Tasks> {
    let Some(task) = task else { return Some(Tasks::List(program.root)) };
    match (state, &program.task(task).step) {
        (State::List, Step::Do(list)) => Some(Tasks::List(*list)),
        (State::List, Step::Function { task, .. }) => Some(Tasks::One(*task)),
        (State::Loop { .. } | State::Round, Step::For(each)) => Some(Tasks::List(each.list)),
        (State::Compensating { .. }, Step::Do(list)) => Some(Tasks::List(*list)),
        (State::Extended { phase, .. }, Step::Extended(extended)) => Some(match phase {
            Phase::Before => Tasks::List(extended.before),
            Phase::Inner => Tasks::One(extended.inner),
            Phase::After => Tasks::List(extended.after),
        }),
        (State::Trying { .. }, Step::Try(attempt)) => Some(Tasks::List(attempt.list)),
        (State::Catching { .. }, Step::Try(attempt)) => attempt.catch.list.map(Tasks::List),
        (State::Listening(listening) | State::Receiving(listening), Step::Listen(listen)) => {
            listen.each.as_ref().filter(|_| listening.is_at_work()).map(|each| Tasks::List(each.list))
        }
        _ => None,
    }
}

enum After {
    Task(TaskId),
    /// The list ends before its end.
    Exit,
    ListEnds,
    RunEnds,
}

fn first(deciding: &Deciding<'_>, tasks: Tasks) -> After {
    match tasks {
        Tasks::One(task) => After::Task(task),
        Tasks::List(list) => {
            deciding.world.program.list(list).first().map_or(After::ListEnds, |task| After::Task(*task))
        }
    }
}

fn following(deciding: &Deciding<'_>, last: &Last) -> After {
    let program = deciding.world.program;
    let Some(ended) = program.find(&last.task) else { return After::ListEnds };
    let next = match last.then.as_deref() {
        None => program.task(ended).then,
        Some("continue") => Next::Continue,
        Some("exit") => Next::Exit,
        Some("end") => Next::End,
        Some(pointer) => program.find(pointer).map_or(Next::Exit, Next::Task),
    };
    match next {
        Next::Task(task) => After::Task(task),
        Next::Exit => After::Exit,
        Next::End => After::RunEnds,
        Next::Continue => program.following(ended).map_or(After::ListEnds, After::Task),
    }
}

/// The tasks of a scope are done.
fn list_ends(deciding: &mut Deciding<'_>, id: ScopeId) {
    let Some(scope) = deciding.run.scopes.get(&id) else { return };
    let data = Arc::clone(&scope.data);
    match &scope.state {
        _ if scope.parent.is_none() => deciding.complete(&data),
        State::Loop { .. } => each::iterated(deciding, id),
        State::Round => join::round_ends(deciding, id),
        State::Compensating { .. } => undo::ended(deciding, id),
        State::Listening(_) | State::Receiving(_) => listen::handled(deciding, id),
        State::Extended { .. } => extended::phase_ends(deciding, id),
        State::Trying { .. } | State::Catching { .. } => catch::succeeded(deciding, id, data),
        _ => function::ended(deciding, id, data),
    }
}
