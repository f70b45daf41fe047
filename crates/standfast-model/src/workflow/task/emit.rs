//! `emit`: publishes an event.

use super::{Kind, object};
use crate::shape::{Fields, Object};
use crate::workflow::event::attributes;
use crate::workflow::value::Template;

/// An event that is published.
#[derive(Debug, Clone, PartialEq)]
pub struct Emit {
    /// Its attributes and its data, by name.
    pub with: Vec<(String, Template)>,
}

pub(super) fn read(f: &mut Fields<'_, '_>) -> Option<Kind> {
    const EVENT: Object<Emit> = object("An event.", |f| {
        let with = f.required("with", "Its attributes and its data.", attributes())?;
        for name in ["source", "type"] {
            if !with.iter().any(|(known, _)| known == name)
                && let Some((place, cx)) = f.reading()
            {
                let message = format!("the event has no `{name}`");
                cx.reports.error_hint(place, message, "CloudEvents wants a `source`, a URI, and a `type`");
                return None;
            }
        }
        Some(Emit { with })
    });
    const EMIT: Object<Emit> = object("What is published.", |f| f.required("event", "The event.", EVENT));
    Some(Kind::Emit(f.required("emit", "What is published.", EMIT)?))
}
