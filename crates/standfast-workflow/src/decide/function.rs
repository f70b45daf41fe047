//! A function of the document: its task is done with what it is called with. `do` ends the same way.

use std::sync::Arc;

use serde_json::Value;

use super::{Begin, Deciding};
use crate::program::Form;
use crate::run::{Problem, ScopeId, State};

pub(super) fn begin(
    deciding: &mut Deciding<'_>,
    mut begin: Begin<'_>,
    with: Option<&Form>,
) -> Result<(), Problem> {
    if let Some(with) = with {
        begin.input = deciding.fill(with, &begin.input, &begin.sight)?;
        super::sight::within_limits("what the function is called with", &begin.input)?;
    }
    deciding.enter_scope(&begin, State::List)
}

pub(super) fn ended(deciding: &mut Deciding<'_>, id: ScopeId, data: Arc<Value>) {
    deciding.leave(id, data);
}
