//! `wait`: waits for a time.

use std::sync::Arc;

use super::{Begin, Deciding};
use crate::program::{Length, after};
use crate::run::{Problem, ScopeId, State};

pub(super) fn begin(deciding: &mut Deciding<'_>, begin: &Begin<'_>, length: Length) -> Result<(), Problem> {
    let period = deciding.period(length, &begin.input, &begin.sight)?;
    deciding.enter_scope(begin, State::Waiting { until: after(deciding.now, period) })
}

pub(super) fn is_over(deciding: &mut Deciding<'_>, id: ScopeId) {
    if let Some(scope) = deciding.run.scopes.get(&id) {
        let input = Arc::clone(&scope.input);
        deciding.leave(id, input);
    }
}
