//! `run: workflow`.

use std::sync::Arc;

use super::{RunRequest, Writing};
use crate::program::Subflow;
use crate::run::Problem;

pub(super) fn request(writing: &Writing<'_>, subflow: &Subflow) -> Result<RunRequest, Problem> {
    let input = match &subflow.input {
        Some(form) => writing.fill(form)?,
        None => Arc::clone(writing.input),
    };
    Ok(RunRequest { workflow: subflow.name.clone(), input, awaited: subflow.awaited })
}
