//! One evaluation: a filter of jaq, its data, and at most one value out of it.

use std::fmt::{self, Write};

use jaq_core::{Ctx, Vars};
use jaq_json::Val;
use serde_json::Value;
use standfast_model::Stamp;

use super::failure::Fault;
use super::functions::{Kind, Scope};
use super::value::{from_jaq, to_jaq};

/// Longest message of an error that jq raises, in bytes; it ends in `…` when it was longer.
const MESSAGE_BYTES_MAX: usize = 1 << 10;

/// Evaluates a filter: its value, or null when it yields none. It is not run beyond its second output.
pub(super) fn evaluate<'v>(
    filter: &jaq_core::Filter<Kind>,
    input: &Value,
    values: impl Iterator<Item = &'v Value>,
    now: Stamp,
    output_bytes_max: usize,
) -> Result<Value, Fault> {
    let scope = Scope { lut: &filter.lut, now };
    let context = Ctx::<Kind>::new(scope, Vars::new(values.map(to_jaq)));
    let mut outputs = filter.id.run((context, to_jaq(input)));
    match outputs.next() {
        None => Ok(Value::Null),
        Some(Err(exception)) => Err(raised(exception)),
        Some(Ok(first)) => match outputs.next() {
            None => from_jaq(&first, output_bytes_max),
            Some(Ok(_)) => Err(Fault::Several),
            Some(Err(exception)) => Err(raised(exception)),
        },
    }
}

/// What was raised, as a message: a text as it is, anything else as JSON.
fn raised(exception: jaq_core::Exn<'_, Val>) -> Fault {
    let Ok(error) = exception.get_err() else {
        return Fault::Raised("it broke out of itself".to_owned());
    };
    let mut message = Message::default();
    // A message that is full says so by an error, which ends the writing early.
    let _full = write!(message, "{error}");
    if message.text.starts_with('"') {
        // Messages of jaq itself never begin with a quote: this is a text that was raised.
        if let Val::TStr(bytes) = error.into_val() {
            message = Message::default();
            for chunk in bytes.utf8_chunks() {
                if message.write_str(chunk.valid()).is_err() {
                    break;
                }
            }
        }
    }
    Fault::Raised(message.text)
}

/// A text that takes what fits into it.
#[derive(Default)]
struct Message {
    text: String,
}

impl Write for Message {
    fn write_str(&mut self, more: &str) -> fmt::Result {
        let room = MESSAGE_BYTES_MAX.saturating_sub(self.text.len());
        if more.len() <= room {
            self.text.push_str(more);
            return Ok(());
        }
        self.text.push_str(&more[..more.floor_char_boundary(room)]);
        if !self.text.ends_with('…') {
            self.text.push('…');
        }
        Err(fmt::Error)
    }
}
