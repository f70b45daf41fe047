//! `set`: yields data.

use super::Kind;
use crate::shape::Fields;
use crate::workflow::value::data;

pub(super) fn read(f: &mut Fields<'_, '_>) -> Option<Kind> {
    Some(Kind::Set(f.required("set", "The data.", data())?))
}
