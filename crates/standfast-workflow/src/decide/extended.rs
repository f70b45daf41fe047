//! Extensions: tasks before and after a task, and perhaps in its place.

use std::sync::Arc;

use super::{Begin, Deciding};
use crate::program::Extended;
use crate::run::{Event, Phase, Problem, ScopeId, State};

/// Begins a task with what is done around it, or without that when it does not apply.
pub(super) fn begin(
    deciding: &mut Deciding<'_>,
    begin: &Begin<'_>,
    extended: Extended,
) -> Result<(), Problem> {
    let applies = !is_within(deciding, begin.parent)
        && match extended.when {
            Some(when) => deciding.holds(when, &begin.raw, &begin.sight)?,
            None => true,
        };
    if !applies {
        deciding.enter(begin.parent, extended.inner);
        return Ok(());
    }
    let is_first = deciding.world.program.list(extended.before).is_empty();
    let phase = if is_first { Phase::Inner } else { Phase::Before };
    deciding.enter_scope(begin, State::Extended { phase, output: None, then: None })
}

/// Whether a scope belongs to an extension: nothing is done around what is done around something, functions included.
fn is_within(deciding: &Deciding<'_>, id: ScopeId) -> bool {
    deciding
        .run
        .holders(id)
        .any(|(_, scope)| matches!(scope.state, State::Extended { phase: Phase::Before | Phase::After, .. }))
}

/// The tasks of a phase were done.
pub(super) fn phase_ends(deciding: &mut Deciding<'_>, id: ScopeId) {
    let Some(scope) = deciding.run.scopes.get(&id) else { return };
    let State::Extended { phase, output, then } = scope.state.clone() else { return };
    match phase {
        // What was done before it does not change what it is given.
        Phase::Before => {
            let state = State::Extended { phase: Phase::Inner, output: None, then: None };
            deciding.note(Event::Restarted { scope: id, state });
            deciding.look_at(id);
        }
        Phase::Inner => {
            let output = Some(Arc::clone(&scope.data));
            let then = scope.last.as_ref().and_then(|last| last.then.clone());
            deciding.note(Event::Changed {
                scope: id,
                state: State::Extended { phase: Phase::After, output, then },
            });
            deciding.look_at(id);
        }
        // Nor does what was done after it change what it yielded.
        Phase::After => deciding.leave_for(id, output.unwrap_or_default(), then),
    }
}

/// A task before it has said `exit`: the task itself is not done, and yields what that one set.
pub(super) fn replaced(deciding: &mut Deciding<'_>, id: ScopeId) {
    if let Some(scope) = deciding.run.scopes.get(&id) {
        let data = Arc::clone(&scope.data);
        deciding.leave(id, data);
    }
}
