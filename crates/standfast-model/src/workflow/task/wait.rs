//! `wait`: waits for a time.

use super::Kind;
use crate::shape::Fields;
use crate::workflow::period::delay;

pub(super) fn read(f: &mut Fields<'_, '_>) -> Option<Kind> {
    Some(Kind::Wait(f.required("wait", "For how long.", delay())?))
}
