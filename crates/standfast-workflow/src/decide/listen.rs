//! `listen`: waits for events.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use standfast_model::Stamp;

use super::sight::as_text;
use super::{Begin, Deciding, Sight, World};
use crate::program::{Events, ForEach, Listen, Match, Pattern, Read, Step, Task, Until};
use crate::run::{Digest, Event, Listening, Problem, Run, RunId, ScopeId, State};

/// Most events that wait until what is done for those before them is done.
const QUEUE_MAX: usize = 1_000;

pub(super) fn begin(deciding: &mut Deciding<'_>, begin: &Begin<'_>, listen: &Listen) -> Result<(), Problem> {
    let nothing = nothing_yet(&listen.to);
    let state = if listen.channel.is_some() { State::Receiving(nothing) } else { State::Listening(nothing) };
    deciding.enter_scope(begin, state)
}

/// A wait for events of which none has come.
pub(crate) fn nothing_yet(to: &Events) -> Listening {
    let met = match to {
        Events::All(patterns) => vec![false; patterns.len()],
        _ => Vec::new(),
    };
    let ended = match to {
        Events::Any { until: Some(Until::Events(events)), .. } => match &**events {
            Events::All(patterns) => vec![false; patterns.len()],
            _ => Vec::new(),
        },
        _ => Vec::new(),
    };
    Listening { met, ended, ..Listening::default() }
}

/// What names an event: its source and its id.
pub(crate) fn event_key(event: &Value) -> Option<Digest> {
    let text = |name: &str| event.get(name).and_then(Value::as_str);
    Some(Digest::of(format!("{}\0{}", text("source")?, text("id")?).as_bytes()))
}

/// What an event changes in a wait that is not a run's but a schedule's. `None` when it has no part in it.
pub(crate) fn gather(
    world: &World<'_>,
    to: &Events,
    so_far: &Listening,
    event: &Arc<Value>,
    now: Stamp,
) -> Result<Option<Listening>, Problem> {
    let run = Run::new(RunId::new(now, 0));
    let deciding = Deciding { world, run, now, events: Vec::new(), bytes: 0, ready: Vec::new() };
    let (input, mut next) = (Arc::default(), so_far.clone());
    let sight = Sight::of_workflow(&input);
    let asking = Asking { deciding: &deciding, event, input: &input, sight: &sight };
    if asking.take(to, &mut next)? {
        next.consumed.push(Arc::clone(event));
        asking.ends_by_condition(to, &mut next)?;
    }
    Ok((next != *so_far).then_some(next))
}

/// Whether one of the tasks that wait has no room for another event until it has done something for those before.
pub(crate) fn is_full(run: &Run) -> bool {
    run.scopes.values().any(|scope| match &scope.state {
        State::Listening(listening) => listening.queued.len() >= QUEUE_MAX,
        _ => false,
    })
}

/// An event came in: every task that waits looks at it. One that was kept, since it came before a task began to wait, is not given
/// to a run that took it already.
pub(super) fn arrives(deciding: &mut Deciding<'_>, event: &Arc<Value>, is_kept: bool) {
    let key = event_key(event);
    if is_kept && key.as_ref().is_some_and(|key| deciding.run.has_taken(key, None)) {
        return;
    }
    let waiting = deciding.run.scopes.iter().filter(|(_, scope)| matches!(scope.state, State::Listening(_)));
    let waiting: Vec<ScopeId> = waiting.map(|(id, _)| *id).collect();
    for id in waiting {
        let task = deciding.run.scopes.get(&id).map(|scope| Arc::clone(&scope.task));
        // The same event may come twice: it counts once for each task.
        if key.as_ref().is_some_and(|key| deciding.run.has_taken(key, Some(id))) {
            continue;
        }
        if let Err(problem) = consider(deciding, id, event, key.as_ref()) {
            deciding.fail(id, problem.at(&task.unwrap_or_default()));
        }
    }
}

pub(super) fn listen_of<'w>(deciding: &Deciding<'w>, pointer: &str) -> Option<(&'w Task, &'w Listen)> {
    let program = deciding.world.program;
    let task = program.task(program.find(pointer)?);
    match &task.step {
        Step::Listen(listen) => Some((task, listen)),
        _ => None,
    }
}

fn consider(
    deciding: &mut Deciding<'_>,
    id: ScopeId,
    event: &Arc<Value>,
    key: Option<&Digest>,
) -> Result<(), Problem> {
    let Some(scope) = deciding.run.scopes.get(&id) else { return Ok(()) };
    let (State::Listening(listening), Some(parent)) = (&scope.state, scope.parent) else { return Ok(()) };
    if listening.is_complete {
        return Ok(());
    }
    let Some((task, listen)) = listen_of(deciding, &scope.task) else { return Ok(()) };
    let sight = Sight::of_scope(parent, task, scope);
    let input = Arc::clone(&scope.input);
    let mut next = listening.clone();
    let asking = Asking { deciding, event, input: &input, sight: &sight };
    let is_taken = asking.take(&listen.to, &mut next)?;
    // An event may also bring the end of the wait nearer without being taken.
    if !is_taken && next == *listening {
        return Ok(());
    }
    let read = is_taken.then(|| match listen.read {
        Read::Data => Arc::new(event.get("data").cloned().unwrap_or_default()),
        Read::Envelope | Read::Raw => Arc::clone(event),
    });
    if let Some(read) = &read {
        next.consumed.push(Arc::clone(read));
        asking.ends_by_condition(&listen.to, &mut next)?;
    }
    let unless_same = |now: Vec<bool>, before: &[bool]| if now == before { Vec::new() } else { now };
    let met = unless_same(next.met, &listening.met);
    let ended = unless_same(next.ended, &listening.ended);
    let mut shared = next.shared;
    shared.retain(|name, value| listening.shared.get(name) != Some(value));
    let (is_queued, is_complete, key) = (listen.each.is_some(), next.is_complete, key.cloned());
    deciding.note(Event::Consumed { scope: id, read, is_queued, met, ended, shared, is_complete, key });
    settle(deciding, id);
    Ok(())
}

/// Ends the wait when it is over and nothing waits to be done.
pub(super) fn settle(deciding: &mut Deciding<'_>, id: ScopeId) {
    let Some(scope) = deciding.run.scopes.get(&id) else { return };
    let Some(listening) = scope.state.listening() else { return };
    if listening.is_at_work() {
        return deciding.look_at(id);
    }
    // A channel is left first.
    if listening.is_complete && matches!(scope.state, State::Listening(_)) {
        finish(deciding, id);
    }
}

/// Yields what came.
pub(super) fn finish(deciding: &mut Deciding<'_>, id: ScopeId) {
    let Some(scope) = deciding.run.scopes.get(&id) else { return };
    let Some(listening) = scope.state.listening() else { return };
    let is_each = listen_of(deciding, &scope.task).is_some_and(|(_, listen)| listen.each.is_some());
    let outputs = if is_each { &listening.outputs } else { &listening.consumed };
    let outputs: Value = outputs.iter().map(|value| Value::clone(value)).collect();
    deciding.leave(id, Arc::new(outputs));
}

/// The tasks for an event were done.
pub(super) fn handled(deciding: &mut Deciding<'_>, id: ScopeId) {
    let Some(scope) = deciding.run.scopes.get(&id) else { return };
    let (Some(listening), Some(parent)) = (scope.state.listening(), scope.parent) else { return };
    let Some((task, listen)) = listen_of(deciding, &scope.task) else { return };
    let Some(ForEach { output, export, .. }) = &listen.each else { return };
    let pointer = Arc::clone(&scope.task);
    // Without tasks the event itself is what each round yields.
    let data = match (&scope.last, listening.queued.first()) {
        (None, Some(event)) => Arc::clone(event),
        _ => Arc::clone(&scope.data),
    };
    let mut sight = Sight::of_scope(parent, task, scope);
    match deciding.put_out(output, export, data, &mut sight) {
        Ok((output, context)) => {
            if let Some(context) = context {
                deciding.note(Event::Exported { context });
            }
            deciding.note(Event::Handled { scope: id, output });
            settle(deciding, id);
        }
        Err(problem) => deciding.fail(id, problem.at(&pointer)),
    }
}

impl Listening {
    /// Whether something is to be done for an event.
    pub(crate) fn is_at_work(&self) -> bool {
        !self.queued.is_empty()
    }
}

/// An event that a task is asked about.
struct Asking<'a, 'd> {
    deciding: &'a Deciding<'d>,
    event: &'a Value,
    input: &'a Arc<Value>,
    sight: &'a Sight<'a>,
}

impl Asking<'_, '_> {
    /// Whether it counts, and what it changes.
    fn take(&self, to: &Events, next: &mut Listening) -> Result<bool, Problem> {
        match to {
            Events::One(pattern) => {
                let fits = self.fits(pattern, &mut next.shared)?;
                next.is_complete = fits;
                Ok(fits)
            }
            Events::All(patterns) => {
                let taken = self.take_one_of(patterns, &mut next.met, &mut next.shared)?;
                next.is_complete = next.met.iter().all(|met| *met);
                Ok(taken)
            }
            Events::Any { patterns, until } => {
                if let Some(Until::Events(events)) = until
                    && self.ends(events, next)?
                {
                    next.is_complete = true;
                    return Ok(false);
                }
                let mut fits = patterns.is_empty();
                for pattern in patterns {
                    fits = fits || self.fits(pattern, &mut next.shared)?;
                }
                next.is_complete = fits && until.is_none();
                Ok(fits)
            }
        }
    }

    /// Asks about all that was taken whether that is enough.
    fn ends_by_condition(&self, to: &Events, next: &mut Listening) -> Result<(), Problem> {
        if let Events::Any { until: Some(Until::Condition(condition)), .. } = to {
            let consumed: Value = next.consumed.iter().map(|value| Value::clone(value)).collect();
            next.is_complete = self.deciding.holds(*condition, &consumed, self.sight)?;
        }
        Ok(())
    }

    /// Whether it is the last of those that end the wait.
    fn ends(&self, events: &Events, next: &mut Listening) -> Result<bool, Problem> {
        let mut shared = BTreeMap::new();
        match events {
            Events::One(pattern) => self.fits(pattern, &mut shared),
            Events::All(patterns) => {
                self.take_one_of(patterns, &mut next.ended, &mut shared)?;
                Ok(next.ended.iter().all(|ended| *ended))
            }
            Events::Any { patterns, .. } => {
                for pattern in patterns {
                    if self.fits(pattern, &mut shared)? {
                        return Ok(true);
                    }
                }
                Ok(patterns.is_empty())
            }
        }
    }

    fn take_one_of(
        &self,
        patterns: &[Pattern],
        met: &mut [bool],
        shared: &mut BTreeMap<String, Value>,
    ) -> Result<bool, Problem> {
        for (pattern, met) in patterns.iter().zip(met) {
            if !*met && self.fits(pattern, shared)? {
                *met = true;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn fits(&self, pattern: &Pattern, shared: &mut BTreeMap<String, Value>) -> Result<bool, Problem> {
        for (name, wanted) in &pattern.with {
            let found = self.event.get(name).unwrap_or(&Value::Null);
            let fits = match wanted {
                // Asked about the attribute's value: true, or the value that it must be.
                Match::Filter(filter) => match self.deciding.value(*filter, found, self.sight)? {
                    Value::Bool(truth) => truth,
                    Value::Null => false,
                    other => other == *found,
                },
                Match::Value(value, regex) => {
                    let is_matched = |text| regex.as_ref().is_some_and(|regex| regex.is_match(text));
                    **value == *found || is_same_text(value, found) || found.as_str().is_some_and(is_matched)
                }
            };
            if !fits {
                return Ok(false);
            }
        }
        let mut said = Vec::new();
        for (name, from, expect) in &pattern.correlate {
            // An event in which the place cannot be is not the one that is waited for, and no fault of who waits.
            let Ok(found) = self.deciding.value(*from, self.event, self.sight) else { return Ok(false) };
            let expected = match expect {
                Some(form) => Some(Value::clone(&*self.deciding.fill(form, self.input, self.sight)?)),
                None => shared.get(name).cloned(),
            };
            match expected {
                Some(expected) if expected != found => return Ok(false),
                Some(_) => {}
                None => said.push((name.clone(), found)),
            }
        }
        // Only an event that counts says what others must share with it.
        shared.extend(said);
        Ok(true)
    }
}

/// Attributes of events are texts: a number in the document is what it is written as.
fn is_same_text(wanted: &Value, found: &Value) -> bool {
    found.is_string() && as_text(wanted).as_deref() == found.as_str()
}
