//! `switch`: goes on at one of several tasks.

use std::sync::Arc;

use super::{Begin, Deciding};
use crate::program::Case;
use crate::run::Problem;

pub(super) fn begin(deciding: &mut Deciding<'_>, begin: Begin<'_>, cases: &[Case]) -> Result<(), Problem> {
    let mut found = None;
    for case in cases {
        let fits = match case.when {
            Some(when) => deciding.holds(when, &begin.input, &begin.sight)?,
            None => true,
        };
        if fits {
            found = Some(case.then);
            break;
        }
    }
    let output = Arc::clone(&begin.input);
    deciding.done(begin, output, found)
}
