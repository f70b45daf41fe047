//! `try`: tasks, and what is done when they fail.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use standfast_model::Stamp;

use super::{Begin, Deciding, Sight, undo};
use crate::program::{Backoff, Catch, Form, Length, Retry, Step, Task, Try, WAIT_MAX, after};
use crate::run::{Event, Problem, ScopeId, State};

pub(super) fn begin(deciding: &mut Deciding<'_>, begin: &Begin<'_>, attempt: &Try) -> Result<(), Problem> {
    let until = attempt_ends(deciding, &attempt.catch, &begin.input, &begin.sight)?;
    deciding.enter_scope(begin, State::Trying { failed: 0, since: deciding.now, until })
}

/// The tasks, or what was done on an error, came to their end.
pub(super) fn succeeded(deciding: &mut Deciding<'_>, id: ScopeId, data: Arc<Value>) {
    deciding.leave(id, data);
}

/// An attempt failed: it is made again, something else is done, or the task fails too.
pub(super) fn failed(deciding: &mut Deciding<'_>, id: ScopeId, problem: Problem) {
    match judge(deciding, id, &problem) {
        Ok(Judgement::Again(state)) => {
            deciding.note(Event::Restarted { scope: id, state });
            // With no time in between the next attempt begins at once.
            if let Some(State::Pausing { until, .. }) = deciding.run.scopes.get(&id).map(|scope| &scope.state)
                && *until <= deciding.now
            {
                try_again(deciding, id);
            }
        }
        // What was done within it is undone first; an attempt that is made again does it again, by the same keys.
        Ok(Judgement::Caught) => {
            if !undo::begin(deciding, id, &problem, None) {
                catches(deciding, id, &problem);
            }
        }
        Ok(Judgement::Fails) => deciding.fail(id, problem),
        Err(other) => {
            let task = deciding.run.scopes.get(&id).map(|scope| Arc::clone(&scope.task)).unwrap_or_default();
            deciding.fail(id, other.at(&task));
        }
    }
}

/// What the document says is done about an error; without that it is forgotten.
pub(super) fn catches(deciding: &mut Deciding<'_>, id: ScopeId, problem: &Problem) {
    let Some(scope) = deciding.run.scopes.get(&id) else { return };
    let (input, pointer) = (Arc::clone(&scope.input), Arc::clone(&scope.task));
    let has_list = attempt_of(deciding, &pointer).is_some_and(|(_, attempt)| attempt.catch.list.is_some());
    if !has_list {
        return deciding.leave(id, input);
    }
    let problem = Arc::new(problem.to_value());
    deciding.note(Event::Restarted { scope: id, state: State::Catching { problem } });
    deciding.look_at(id);
}

/// The time between two attempts is over.
pub(super) fn try_again(deciding: &mut Deciding<'_>, id: ScopeId) {
    let Some(scope) = deciding.run.scopes.get(&id) else { return };
    let State::Pausing { failed, since, .. } = scope.state else { return };
    let (input, pointer) = (Arc::clone(&scope.input), Arc::clone(&scope.task));
    let Some((task, attempt)) = attempt_of(deciding, &pointer) else { return };
    let Some(parent) = scope.parent else { return };
    let sight = Sight::of_scope(parent, task, scope);
    match attempt_ends(deciding, &attempt.catch, &input, &sight) {
        Ok(until) => {
            deciding.note(Event::Restarted { scope: id, state: State::Trying { failed, since, until } });
            deciding.look_at(id);
        }
        Err(problem) => deciding.fail(id, problem.at(&pointer)),
    }
}

enum Judgement {
    /// This is done first: a pause.
    Again(State),
    /// What the document says is done instead, if anything.
    Caught,
    Fails,
}

fn attempt_of<'w>(deciding: &Deciding<'w>, pointer: &str) -> Option<(&'w Task, &'w Try)> {
    let program = deciding.world.program;
    let task = program.task(program.find(pointer)?);
    match &task.step {
        Step::Try(attempt) => Some((task, attempt)),
        _ => None,
    }
}

fn judge(deciding: &Deciding<'_>, id: ScopeId, problem: &Problem) -> Result<Judgement, Problem> {
    let Some(scope) = deciding.run.scopes.get(&id) else { return Ok(Judgement::Fails) };
    let (State::Trying { failed, since, .. }, Some(parent)) = (&scope.state, scope.parent) else {
        return Ok(Judgement::Fails);
    };
    let Some((task, attempt)) = attempt_of(deciding, &scope.task) else { return Ok(Judgement::Fails) };
    let catch = &attempt.catch;
    let mut sight = Sight::of_scope(parent, task, scope);
    sight.extra = vec![(&catch.variable, problem.to_value())];
    if !is_caught(deciding, catch, problem, &scope.input, &sight)? {
        return Ok(Judgement::Fails);
    }
    if let Some(retry) = &catch.retry
        && let Some(until) = next_attempt(deciding, id, retry, *failed, *since, &scope.input, &sight)?
    {
        return Ok(Judgement::Again(State::Pausing { failed: failed + 1, since: *since, until }));
    }
    Ok(match (&catch.list, &catch.retry) {
        (Some(_), _) => Judgement::Caught,
        // Who only asked for more attempts did not ask for the error to be forgotten.
        (None, Some(_)) => Judgement::Fails,
        (None, None) => Judgement::Caught,
    })
}

fn is_caught(
    deciding: &Deciding<'_>,
    catch: &Catch,
    problem: &Problem,
    input: &Arc<Value>,
    sight: &Sight<'_>,
) -> Result<bool, Problem> {
    let is = |wanted: &Option<Form>, found: &Option<String>| match wanted {
        Some(form) => Ok(found.as_deref() == Some(deciding.text(form, input, sight)?.as_str())),
        None => Ok::<_, Problem>(true),
    };
    if let Some(kind) = &catch.kind
        && !problem.is_of(&deciding.text(kind, input, sight)?)
    {
        return Ok(false);
    }
    Ok(catch.status.is_none_or(|status| status == problem.status)
        && is(&catch.instance, &problem.instance)?
        && is(&catch.title, &problem.title)?
        && is(&catch.detail, &problem.detail)?
        && allows(deciding, catch.when, catch.except_when, input, sight)?)
}

fn allows(
    deciding: &Deciding<'_>,
    when: Option<crate::program::FilterId>,
    except_when: Option<crate::program::FilterId>,
    input: &Arc<Value>,
    sight: &Sight<'_>,
) -> Result<bool, Problem> {
    if let Some(when) = when
        && !deciding.holds(when, input, sight)?
    {
        return Ok(false);
    }
    match except_when {
        Some(except) => Ok(!deciding.holds(except, input, sight)?),
        None => Ok(true),
    }
}

/// When the next attempt begins; `None` when there is none.
fn next_attempt(
    deciding: &Deciding<'_>,
    id: ScopeId,
    retry: &Retry,
    failed: u32,
    since: Stamp,
    input: &Arc<Value>,
    sight: &Sight<'_>,
) -> Result<Option<Stamp>, Problem> {
    let is_over = retry.attempts_max.is_some_and(|most| failed >= most);
    if is_over || !allows(deciding, retry.when, retry.except_when, input, sight)? {
        return Ok(None);
    }
    let length = |length: Length| -> Result<Duration, Problem> {
        let period = deciding.period(length, input, sight)?;
        Ok(after(deciding.now, period).since(deciding.now))
    };
    let optional = |wanted: Option<Length>| wanted.map(length).transpose();
    let base = optional(retry.delay)?.unwrap_or_default();
    let (grown, most) = match &retry.backoff {
        Backoff::Constant => (base, None),
        Backoff::Linear { increment, max } => {
            let increment = optional(*increment)?.unwrap_or(base);
            (base.saturating_add(increment.saturating_mul(failed)), optional(*max)?)
        }
        Backoff::Exponential { factor, max } => {
            let exponent = i32::try_from(failed).unwrap_or(i32::MAX);
            let seconds = base.as_secs_f64() * factor.powi(exponent);
            (Duration::try_from_secs_f64(seconds).unwrap_or(WAIT_MAX), optional(*max)?)
        }
    };
    let mut pause = grown.min(most.unwrap_or(WAIT_MAX)).min(WAIT_MAX);
    if let Some((from, to)) = retry.jitter {
        let (from, to) = (length(from)?, length(to)?);
        pause += from + to.saturating_sub(from).mul_f64(chance(&deciding.run.key(id), failed));
    }
    let at = deciding.now.plus(pause);
    match retry.total_max {
        Some(total) if at > since.plus(length(total)?) => Ok(None),
        _ => Ok(Some(at)),
    }
}

/// When an attempt that begins now is given up.
fn attempt_ends(
    deciding: &Deciding<'_>,
    catch: &Catch,
    input: &Arc<Value>,
    sight: &Sight<'_>,
) -> Result<Option<Stamp>, Problem> {
    match catch.retry.as_ref().and_then(|retry| retry.each_max) {
        Some(length) => Ok(Some(after(deciding.now, deciding.period(length, input, sight)?))),
        None => Ok(None),
    }
}

/// A number from 0 to 1 that looks like chance and is the same whenever the same attempt is decided anew (FNV-1a, by which
/// attempts of different runs are scattered well enough).
fn chance(key: &str, attempt: u32) -> f64 {
    let bytes = key.bytes().chain(attempt.to_be_bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The attempt's number comes last and reached only the lower bits: these are spread over all (the end of MurmurHash3).
    let hash = (hash ^ hash >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ hash >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    let hash = hash ^ hash >> 33;
    // 53 bits are what a float holds.
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}
