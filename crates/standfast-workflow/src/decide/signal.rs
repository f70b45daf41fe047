//! Signals: what somebody tells one run. It is kept in the run until a task takes it, so it is neither lost nor too early.

use std::sync::Arc;

use serde_json::Value;

use super::{Deciding, RECORD_EVENTS_MAX, event_key, interests, is_full, listen, size_of};
use crate::run::{Event, Run, ScopeId, Signal};

/// Most signals that a run keeps until it listens for them.
const SIGNALS_MAX: usize = 100;
/// Most bytes of these.
const SIGNALS_BYTES_MAX: usize = 1 << 20;

/// The attribute of an answer to a task that a person does: the number of its scope.
pub(crate) const ANSWERS: &str = "standfasttask";

/// Which task an event is the answer to, if to one.
pub(crate) fn answers(event: &Value) -> Option<ScopeId> {
    let number = event.get(ANSWERS)?.as_str()?.parse().unwrap_or(u32::MAX);
    Some(ScopeId(number))
}

/// Whether a run has no room for another signal before it has taken some.
pub(crate) fn has_no_room(run: &Run) -> bool {
    let bytes: usize = run.signals.iter().map(|signal| size_of(&signal.event)).sum();
    run.signals.len() >= SIGNALS_MAX || bytes >= SIGNALS_BYTES_MAX
}

/// A signal came in. One that came before changes nothing, nor does an answer to a task that waits no more.
pub(super) fn arrives(deciding: &mut Deciding<'_>, event: &Arc<Value>) {
    let Some(key) = event_key(event) else { return };
    let answers = answers(event);
    if answers.is_some_and(|id| deciding.run.human_tasks().all(|(open, _)| open != id)) {
        return;
    }
    // One is enough: the second could never be taken.
    let is_same =
        |signal: &Signal| signal.key == key || answers.is_some() && self::answers(&signal.event) == answers;
    let is_kept = deciding.run.signals.iter().any(is_same);
    if !is_kept && !deciding.run.has_taken(&key, None) {
        deciding.note(Event::Signalled { signal: Signal { key, event: Arc::clone(event) } });
    }
}

/// Gives what is kept to the tasks that wait for it, in the order in which it came. True when that changed anything: more may be
/// done now.
pub(super) fn give(deciding: &mut Deciding<'_>) -> bool {
    if deciding.run.signals.is_empty() || deciding.run.parked.is_some() {
        return false;
    }
    let Some((_, interests)) = interests(&deciding.run, deciding.world.program) else { return false };
    let fits = |signal: &&Signal| interests.iter().any(|interest| interest.fits(&signal.event));
    let wanted: Vec<Arc<Value>> =
        deciding.run.signals.iter().filter(fits).map(|signal| Arc::clone(&signal.event)).collect();
    for event in wanted {
        if is_full(&deciding.run) || deciding.events.len() >= RECORD_EVENTS_MAX {
            return false;
        }
        let before = deciding.events.len();
        listen::arrives(deciding, &event, false);
        if deciding.events.len() > before {
            return true;
        }
    }
    false
}
