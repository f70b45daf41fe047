//! Messages of a channel (`call: asyncapi` with a `subscription`): they come as answers, some at a time, and the channel is asked for
//! more until there are enough. Once that is so it is left: the answer to that is the last.

use std::sync::Arc;

use serde_json::Value;

use super::sight::within_limits;
use super::{Deciding, Sight, listen};
use crate::program::{Enough, Subscription, Task};
use crate::run::{Digest, Event, Listening, Problem, ScopeId};

/// In an answer: what was received, each with its key; the keys of what is not sent again; and whether the time for more is over.
pub(crate) const RECEIVED: &str = "received";
pub(crate) const ACKNOWLEDGED: &str = "acknowledged";
pub(crate) const OVER: &str = "over";

pub(super) fn answered(deciding: &mut Deciding<'_>, id: ScopeId, answer: &Result<Arc<Value>, Problem>) {
    let Some(scope) = deciding.run.scopes.get(&id) else { return };
    let is_left = scope.state.listening().is_some_and(|listening| listening.is_complete);
    let task = Arc::clone(&scope.task);
    let taken = match answer {
        // What there was to do is done: a broker that is down now keeps the run from nothing.
        _ if is_left => return listen::finish(deciding, id),
        Ok(answer) => take_all(deciding, id, answer),
        Err(problem) => Err(problem.clone()),
    };
    match taken {
        Ok(()) => listen::settle(deciding, id),
        Err(problem) => deciding.fail(id, problem.at(&task)),
    }
}

fn take_all(deciding: &mut Deciding<'_>, id: ScopeId, answer: &Value) -> Result<(), Problem> {
    let acknowledged = answer.get(ACKNOWLEDGED).and_then(Value::as_array).into_iter().flatten();
    let keys = acknowledged.filter_map(Value::as_str).map(Digest::from_text);
    let keys: Vec<Digest> = keys.filter(|key| deciding.run.has_taken(key, Some(id))).collect();
    if !keys.is_empty() {
        deciding.note(Event::Acknowledged { scope: id, keys });
    }
    // A recorded answer may be the messages alone.
    let messages = answer.get(RECEIVED).unwrap_or(answer).as_array().map_or(&[][..], Vec::as_slice);
    for message in messages {
        let (key, message) = match message.as_array().map(Vec::as_slice) {
            Some([Value::String(key), message]) => (Some(Digest::from_text(key)), message),
            _ => (None, message),
        };
        if key.as_ref().is_some_and(|key| deciding.run.has_taken(key, Some(id))) {
            continue;
        }
        if take(deciding, id, &Arc::new(message.clone()), key)? {
            return Ok(());
        }
    }
    if answer.get(OVER).and_then(Value::as_bool) == Some(true) {
        consumed(deciding, id, None, None, true);
    }
    Ok(())
}

/// Takes a message, or passes it over. Returns whether there are enough.
fn take(
    deciding: &mut Deciding<'_>,
    id: ScopeId,
    message: &Arc<Value>,
    key: Option<Digest>,
) -> Result<bool, Problem> {
    let Some(scope) = deciding.run.scopes.get(&id) else { return Ok(true) };
    let (Some(listening), Some(parent)) = (scope.state.listening(), scope.parent) else { return Ok(true) };
    let Some((task, subscription)) = subscription_of(deciding, &scope.task) else { return Ok(true) };
    let sight = Sight::of_scope(parent, task, scope);
    within_limits("a message", message)?;

    if let Some(filter) = subscription.filter
        && !deciding.holds(filter, message, &sight)?
    {
        // It is noted nevertheless, so that it need not be looked at again.
        consumed(deciding, id, None, key, false);
        return Ok(false);
    }
    let all = |listening: &Listening, more: Option<&Arc<Value>>| -> Value {
        listening.consumed.iter().chain(more).map(|value| Value::clone(value)).collect()
    };
    if let Enough::Until(condition) = subscription.enough
        && deciding.holds(condition, &all(listening, None), &sight)?
    {
        consumed(deciding, id, None, None, true);
        return Ok(true);
    }
    let is_enough = match subscription.enough {
        Enough::Amount(amount) => listening.consumed.len() + 1 >= amount as usize,
        Enough::While(condition) => !deciding.holds(condition, &all(listening, Some(message)), &sight)?,
        Enough::Until(condition) => deciding.holds(condition, &all(listening, Some(message)), &sight)?,
    };
    consumed(deciding, id, Some(Arc::clone(message)), key, is_enough);
    Ok(is_enough)
}

fn subscription_of<'w>(deciding: &Deciding<'w>, pointer: &str) -> Option<(&'w Task, &'w Subscription)> {
    let (task, listen) = listen::listen_of(deciding, pointer)?;
    Some((task, listen.channel.as_deref()?))
}

fn consumed(
    deciding: &mut Deciding<'_>,
    id: ScopeId,
    read: Option<Arc<Value>>,
    key: Option<Digest>,
    is_complete: bool,
) {
    let pointer = deciding.run.scopes.get(&id).map(|scope| Arc::clone(&scope.task)).unwrap_or_default();
    let is_each = listen::listen_of(deciding, &pointer).is_some_and(|(_, listen)| listen.each.is_some());
    deciding.note(Event::Consumed {
        scope: id,
        is_queued: is_each && read.is_some(),
        read,
        met: Vec::new(),
        ended: Vec::new(),
        shared: std::collections::BTreeMap::new(),
        is_complete,
        key,
    });
}
