//! `raise`: fails.

use super::{Begin, Deciding};
use crate::program::{Form, Raise};
use crate::run::Problem;

pub(super) fn begin(deciding: &mut Deciding<'_>, begin: &Begin<'_>, raise: &Raise) -> Result<(), Problem> {
    let text = |form: &Option<Form>| match form {
        Some(form) => deciding.text(form, &begin.input, &begin.sight).map(Some),
        None => Ok(None),
    };
    Err(Problem {
        kind: deciding.text(&raise.kind, &begin.input, &begin.sight)?,
        status: raise.status,
        instance: text(&raise.instance)?,
        title: text(&raise.title)?,
        detail: text(&raise.detail)?,
    })
}
