//! `for` with `concurrency`: rounds side by side. Each round is a scope of its own at the place of the loop itself; its number among
//! the loop's is that of its item.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Begin, Deciding, undo};
use crate::program::{Failures, For, Step};
use crate::run::{Event, Problem, ScopeId, State};

pub(super) fn begin(deciding: &mut Deciding<'_>, begin: Begin<'_>, items: Vec<Value>) -> Result<(), Problem> {
    if items.is_empty() {
        return deciding.done(begin, Arc::new(Value::Array(Vec::new())), None);
    }
    let outputs = vec![None; items.len()];
    deciding.enter_scope(&begin, State::Join { items: Arc::new(items), outputs })
}

/// Begins the next round when there is room for it, or ends when all have ended.
pub(super) fn step(deciding: &mut Deciding<'_>, id: ScopeId) {
    let Some(scope) = deciding.run.scopes.get(&id) else { return };
    let State::Join { items, outputs } = &scope.state else { return };
    let Some(parallel) = each_of(deciding, id).and_then(|each| each.parallel) else { return };
    if (scope.begun as usize) < items.len() {
        if scope.active < parallel.concurrency {
            let round = ScopeId(deciding.run.next_scope);
            let task = Arc::clone(&scope.task);
            deciding.note(Event::Entered {
                scope: round,
                parent: id,
                task,
                input: None,
                deadline: None,
                state: State::Round,
                key: None,
            });
            // It is looked at again after the round has done what it can do at once.
            deciding.look_at(id);
            deciding.look_at(round);
        }
    } else if scope.active == 0 {
        let all: Value = outputs.iter().flatten().map(|output| Value::clone(output)).collect();
        deciding.leave(id, Arc::new(all));
    }
}

/// The tasks of a round were done.
pub(super) fn round_ends(deciding: &mut Deciding<'_>, id: ScopeId) {
    let Some(scope) = deciding.run.scopes.get(&id) else { return };
    let output = match collects(deciding, id) {
        true => Arc::new(json!({"output": *scope.data})),
        false => Arc::clone(&scope.data),
    };
    leave(deciding, id, output);
}

/// A task of a round failed.
pub(super) fn round_fails(deciding: &mut Deciding<'_>, id: ScopeId, problem: Problem) {
    if !collects(deciding, id) {
        return deciding.fail(id, problem);
    }
    // To collect an error is to catch it.
    if !undo::begin(deciding, id, &problem, None) {
        collected(deciding, id, &problem);
    }
}

/// A round ends by an error, and the others go on.
pub(super) fn collected(deciding: &mut Deciding<'_>, id: ScopeId, problem: &Problem) {
    leave(deciding, id, Arc::new(json!({"error": problem.to_value()})));
}

fn leave(deciding: &mut Deciding<'_>, id: ScopeId, output: Arc<Value>) {
    let parent = deciding.run.scopes.get(&id).and_then(|scope| scope.parent);
    deciding.note(Event::Left { scope: id, output, context: None, then: None, is_owed: false });
    parent.into_iter().for_each(|parent| deciding.look_at(parent));
}

fn each_of<'w>(deciding: &Deciding<'w>, id: ScopeId) -> Option<&'w For> {
    let program = deciding.world.program;
    match &program.task(program.find(&deciding.run.scopes.get(&id)?.task)?).step {
        Step::For(each) => Some(each),
        _ => None,
    }
}

fn collects(deciding: &Deciding<'_>, id: ScopeId) -> bool {
    let parallel = each_of(deciding, id).and_then(|each| each.parallel);
    parallel.is_some_and(|parallel| parallel.failures == Failures::Collect)
}
