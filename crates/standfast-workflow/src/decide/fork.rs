//! `fork`: tasks side by side.

use std::sync::Arc;

use serde_json::Value;

use super::{Begin, Deciding, undo};
use crate::program::{Fork, Next, Step, Task};
use crate::run::{Problem, ScopeId, State};

pub(super) fn begin(deciding: &mut Deciding<'_>, begin: &Begin<'_>, fork: &Fork) -> Result<(), Problem> {
    deciding.enter_scope(begin, State::Fork { outputs: vec![None; fork.branches.len()] })
}

/// Whether a task is a branch that ends the whole run: `then: end`. Nothing else comes after a branch.
pub(super) fn is_ended_by(deciding: &Deciding<'_>, parent: ScopeId, task: &Task, then: Option<&str>) -> bool {
    let holder = deciding.run.scopes.get(&parent).filter(|_| !undo::is_within(&deciding.run, parent));
    let ends = then.map_or(task.then == Next::End, |then| then == "end");
    ends && holder.is_some_and(|scope| matches!(scope.state, State::Fork { .. }))
}

/// Begins the next branch, or ends when enough of them have.
pub(super) fn step(deciding: &mut Deciding<'_>, id: ScopeId) {
    let Some(scope) = deciding.run.scopes.get(&id) else { return };
    let program = deciding.world.program;
    let Some(Step::Fork(fork)) = program.find(&scope.task).map(|task| &program.task(task).step) else {
        return;
    };
    let State::Fork { outputs } = &scope.state else { return };
    let ended = || outputs.iter().flatten();
    if fork.compete
        && let Some(winner) = ended().next()
    {
        let winner = Arc::clone(winner);
        return deciding.leave(id, winner);
    }
    if let Some(branch) = fork.branches.get(scope.begun as usize) {
        // It is looked at again after the branch has done what it can do at once.
        deciding.look_at(id);
        return deciding.enter(id, *branch);
    }
    if ended().count() == outputs.len() {
        let all: Value = ended().map(|output| Value::clone(output)).collect();
        deciding.leave(id, Arc::new(all));
    }
}
