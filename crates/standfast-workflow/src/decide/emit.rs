//! `emit`: publishes an event.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::{Begin, Deciding};
use crate::program::Form;
use crate::run::{Event, Problem};

pub(super) fn begin(
    deciding: &mut Deciding<'_>,
    begin: Begin<'_>,
    with: &[(String, Form)],
) -> Result<(), Problem> {
    let mut event = Map::new();
    event.insert("specversion".to_owned(), "1.0".into());
    event.insert("id".to_owned(), id(deciding, &begin).into());
    event.insert("time".to_owned(), deciding.now.to_string().into());
    for (name, form) in with {
        let value = deciding.fill(form, &begin.input, &begin.sight)?;
        if !value.is_null() {
            event.insert(name.clone(), Value::clone(&value));
        }
    }
    if event.contains_key("data") {
        event.entry("datacontenttype").or_insert_with(|| "application/json".into());
    }
    let event = Arc::new(Value::Object(event));
    super::sight::within_limits("the event", &event)?;
    // What is written is published: an event is never published without its run having gone on, nor the other way round.
    deciding.note(Event::Emitted { event: Arc::clone(&event) });
    deciding.done(begin, event, None)
}

/// The same whenever this step is decided anew, so that whoever gets the event twice can tell.
fn id(deciding: &Deciding<'_>, begin: &Begin<'_>) -> String {
    let ordinal = deciding.run.scopes.get(&begin.parent).map_or(0, |scope| scope.begun);
    let task = &deciding.world.program.task(begin.id).pointer;
    let name = deciding.run.name_within(begin.parent, task);
    let run = &deciding.run;
    let id = format!("{}{}#{ordinal}{name}", run.key(begin.parent), run.round(begin.parent));
    // One that was undone and is published again is another event.
    match deciding.run.times_undone(begin.parent, &deciding.run.place(begin.parent, ordinal, task)) {
        0 => id,
        times => format!("{id}*{}", times + 1),
    }
}
