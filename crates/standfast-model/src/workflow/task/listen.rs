//! `listen`: waits for events.

use super::{Kind, object};
use crate::shape::{Choice, Fields, Object};
use crate::workflow::event::{Events, FOR_EACH, ForEachEvent, Strategy};

/// A wait for events.
#[derive(Debug, Clone, PartialEq)]
pub struct Listen {
    /// Which.
    pub to: Events,
    /// What of them the task yields.
    pub read: Read,
    /// What is done for each.
    pub for_each: Option<ForEachEvent>,
}

/// What of an event is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Read {
    /// Its data.
    #[default]
    Data,
    /// Its attributes and its data.
    Envelope,
    /// It as it came.
    Raw,
}

pub(super) fn read(f: &mut Fields<'_, '_>) -> Option<Kind> {
    const LISTEN: Object<(Events, Read)> = object("What is waited for.", |f| {
        const READ: Choice<Read> =
            Choice(&[("data", Read::Data), ("envelope", Read::Envelope), ("raw", Read::Raw)]);
        let to = f.required("to", "Which events.", Strategy);
        let read = f.optional("read", "What of them the task yields.", READ).unwrap_or_default();
        Some((to?, read))
    });
    let listen = f.required("listen", "What is waited for.", LISTEN);
    let for_each = f.optional("foreach", "What is done for each.", FOR_EACH);
    let (to, read) = listen?;
    Some(Kind::Listen(Box::new(Listen { to, read, for_each })))
}
