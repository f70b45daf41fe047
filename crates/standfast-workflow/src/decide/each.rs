//! `for`: tasks for each item of a list, one after the other; side by side they are in `join`.

use std::sync::Arc;

use serde_json::Value;

use super::{Begin, Deciding, Sight, join};
use crate::program::{For, Step};
use crate::run::{Event, Problem, ScopeId, Standard, State};

pub(super) fn begin(deciding: &mut Deciding<'_>, begin: Begin<'_>, each: &For) -> Result<(), Problem> {
    let found = deciding.value(each.items, &begin.input, &begin.sight)?;
    let items = match found {
        Value::Array(items) => items,
        Value::Null => Vec::new(),
        other => {
            let found = super::sight::kind_of(&other);
            return Err(Standard::Expression.problem(format!("`for.in` must yield a list, not {found}")));
        }
    };
    if let Some(found) = super::sight::over_limits(&Value::Array(items.clone())) {
        return Err(Standard::Validation.problem(format!("what `for.in` yields {found}")));
    }
    if each.parallel.is_some() {
        return join::begin(deciding, begin, items);
    }
    let state = State::Loop { items: Arc::new(items), index: 0 };
    if !goes_on(deciding, &state, each, &begin.input, &begin.sight)? {
        let output = Arc::clone(&begin.input);
        return deciding.done(begin, output, None);
    }
    deciding.enter_scope(&begin, state)
}

/// The tasks were done for an item.
pub(super) fn iterated(deciding: &mut Deciding<'_>, id: ScopeId) {
    let Some(scope) = deciding.run.scopes.get(&id) else { return };
    let State::Loop { items, index } = &scope.state else { return };
    let next = State::Loop { items: Arc::clone(items), index: index + 1 };
    let (data, pointer) = (Arc::clone(&scope.data), Arc::clone(&scope.task));
    let program = deciding.world.program;
    let Some(task) = program.find(&pointer).map(|task| program.task(task)) else { return };
    let (Step::For(each), Some(parent)) = (&task.step, scope.parent) else { return };
    let sight = Sight::of_scope(parent, task, scope);
    match goes_on(deciding, &next, each, &data, &sight) {
        Ok(true) => {
            deciding.note(Event::Iterated { scope: id });
            deciding.look_at(id);
        }
        Ok(false) => deciding.leave(id, data),
        Err(problem) => deciding.fail(id, problem.at(&pointer)),
    }
}

/// Whether there is another item, and `while` lets it be.
fn goes_on(
    deciding: &Deciding<'_>,
    state: &State,
    each: &For,
    data: &Arc<Value>,
    sight: &Sight<'_>,
) -> Result<bool, Problem> {
    let State::Loop { items, index } = state else { return Ok(false) };
    let Some(item) = items.get(*index) else { return Ok(false) };
    let Some(condition) = each.condition else { return Ok(true) };
    let mut sight = sight.clone();
    sight.extra = vec![(&each.each, item.clone()), (&each.at, Value::from(*index))];
    deciding.holds(condition, data, &sight)
}
