//! `raise`: fails, by an error in the form of RFC 7807.

use super::{Kind, object};
use crate::shape::{Fields, Object, Shape, Whole};
use crate::workflow::value::{Named, Template, TextTemplate, Uri, UriText, named};

/// An error.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorDefinition {
    /// Its kind.
    pub kind: Uri,
    /// Its status, as HTTP has it.
    pub status: u16,
    /// Where it arose, a JSON pointer; by default the task.
    pub instance: Option<Template>,
    /// What its kind means.
    pub title: Option<Template>,
    /// What happened.
    pub detail: Option<Template>,
}

pub(crate) const ERROR: Object<ErrorDefinition> = object("An error.", |f| {
    let kind = f.required("type", "Its kind, a URI.", UriText);
    let status = f.required("status", "Its status, as HTTP has it.", Whole { min: 100, max: 599 });
    let instance = f.optional("instance", "Where it arose, a JSON pointer.", TextTemplate);
    let title = f.optional("title", "What its kind means.", TextTemplate);
    let detail = f.optional("detail", "What happened.", TextTemplate);
    let status = u16::try_from(status?).ok()?;
    Some(ErrorDefinition { kind: kind?, status, instance, title, detail })
});

pub(super) fn read(f: &mut Fields<'_, '_>) -> Option<Kind> {
    const RAISE: Object<Named<ErrorDefinition>> =
        object("What is raised.", |f| f.required("error", "The error.", error()));
    Some(Kind::Raise(Box::new(f.required("raise", "What is raised.", RAISE)?)))
}

fn error() -> impl Shape<Value = Named<ErrorDefinition>> {
    named("a mapping with `type` and `status`, or the name of one under `use.errors`", "errors", ERROR)
}
