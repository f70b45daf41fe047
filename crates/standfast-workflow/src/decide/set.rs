//! `set`: yields data.

use super::{Begin, Deciding};
use crate::program::Form;
use crate::run::Problem;

pub(super) fn begin(deciding: &mut Deciding<'_>, begin: Begin<'_>, form: &Form) -> Result<(), Problem> {
    let output = deciding.fill(form, &begin.input, &begin.sight)?;
    deciding.done(begin, output, None)
}
