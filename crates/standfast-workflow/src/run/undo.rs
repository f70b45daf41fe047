//! What names the steps of a run to others, and which of them are to be undone if it fails.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Digest, Problem, Run, ScopeId, State};
use crate::decide::size_of;

/// How much of the digest of an event's key names what is done for the event.
const ROUND_LEN: usize = 16;

/// A task that was done, and is undone if what it is a part of fails.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Undo {
    /// Its place in the document.
    pub task: Arc<str>,
    /// Its place in the run.
    pub place: Arc<str>,
    /// What named it to others, unless the document gave another name: what undoes it has names made of this one.
    pub key: Arc<str>,
    /// What it was given.
    pub input: Arc<Value>,
    /// What it yielded.
    pub output: Arc<Value>,
    /// About how many bytes these take.
    pub bytes: usize,
    /// What it was a part of, from within to the workflow itself.
    pub within: Vec<ScopeId>,
}

/// A place in a run whose task was undone, and may be done again by another attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    /// The place in the run.
    pub place: Arc<str>,
    /// How often.
    pub times: u32,
    /// What may make another attempt.
    pub within: ScopeId,
}

/// A task that could not be undone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NotUndone {
    /// Its place in the document.
    pub task: Arc<str>,
    /// Why.
    pub problem: Problem,
}

/// What the place of what undoes a task ends with, after that of the task.
pub(crate) const COMPENSATE: &str = "/metadata/standfast/compensate";

/// The task that is undone by what stands at this place of the document, if that undoes one.
pub fn undone_by(pointer: &str) -> Option<&str> {
    pointer.strip_suffix(COMPENSATE)
}

impl Run {
    /// What names an effect of a scope: the same for every attempt of the same step, over retries, recovery and other machines,
    /// and another one for every other step. What was undone and is done again is another step.
    pub fn key(&self, id: ScopeId) -> String {
        let Some(scope) = self.scopes.get(&id) else { return format!("{}.", self.keys_of()) };
        let Some(parent) = scope.parent else { return format!("{}.", self.keys_of()) };
        if let State::Compensating { key } = &scope.state {
            return format!("{key}!");
        }
        let Some(place) = self.place_of(id) else { return format!("{}.", self.keys_of()) };
        let times = self.times_undone(parent, &place);
        let named = scope.key.as_ref().map_or(place, ToString::to_string);
        numbered(named, times)
    }

    /// The place in the run of a task that a scope is about to begin: the numbers of the steps that led to it, and its place in the
    /// document.
    pub(crate) fn place(&self, holder: ScopeId, ordinal: u32, task: &str) -> String {
        self.place_by(holder, ordinal, &self.name_within(holder, task))
    }

    /// The same of a task that was begun.
    pub(super) fn place_of(&self, id: ScopeId) -> Option<String> {
        let scope = self.scopes.get(&id)?;
        Some(self.place_by(scope.parent?, scope.ordinal, &self.name_of(id)))
    }

    /// The place in the document by which a task's effects are named: the one that it had when it was begun, though the run has gone
    /// over to another document since.
    pub(super) fn name_of(&self, id: ScopeId) -> Arc<str> {
        let Some(scope) = self.scopes.get(&id) else { return Arc::default() };
        match (&scope.named, scope.parent) {
            (Some(named), _) => Arc::clone(named),
            (None, Some(parent)) => self.name_within(parent, &scope.task),
            (None, None) => Arc::clone(&scope.task),
        }
    }

    /// The same of a task that is begun within a scope: what is done again by another attempt is named as it was before.
    pub(crate) fn name_within(&self, holder: ScopeId, task: &str) -> Arc<str> {
        let named = self.holders(holder).find_map(|(_, scope)| {
            let (named, rest) = (scope.named.as_ref()?, task.strip_prefix(&*scope.task)?);
            (rest.is_empty() || rest.starts_with('/')).then(|| format!("{named}{rest}"))
        });
        named.map_or_else(|| task.into(), Into::into)
    }

    fn place_by(&self, holder: ScopeId, ordinal: u32, name: &str) -> String {
        let mut path = vec![ordinal.to_string()];
        let mut undoes = None;
        for (id, scope) in self.holders(holder) {
            if let State::Compensating { key } = &scope.state {
                undoes = Some((key, self.name_of(id)));
                break;
            }
            if scope.parent.is_some() {
                path.push(format!("{}{}", scope.ordinal, self.round(id)));
            }
        }
        path.reverse();
        let path = path.join(".");
        match undoes {
            None => format!("{}.{path}{name}", self.keys_of()),
            Some((key, undoing)) => format!("{key}!{path}{}", name.strip_prefix(&*undoing).unwrap_or(name)),
        }
    }

    /// What tells the tasks that are done for one event from those for the others; empty for a scope that does nothing for events. An
    /// event is known by its key, also to another attempt that is given it again; what has none is never given again.
    pub(crate) fn round(&self, id: ScopeId) -> String {
        let listening = self.scopes.get(&id).and_then(|scope| scope.state.listening());
        let Some(listening) = listening.filter(|listening| listening.is_at_work()) else {
            return String::new();
        };
        if let Some(Some(key)) = listening.keys.first() {
            let name = Digest::of(key.as_str().as_bytes());
            return format!(":{}", name.as_str().chars().take(ROUND_LEN).collect::<String>());
        }
        let attempts = self.holders(id).filter_map(|(_, scope)| match scope.state {
            State::Trying { failed, .. } => Some(format!("~{failed}")),
            _ => None,
        });
        format!("#{}{}", listening.index, attempts.collect::<String>())
    }

    /// How often a task, or what it is a part of, was undone before.
    pub(crate) fn times_undone(&self, holder: ScopeId, place: &str) -> u32 {
        if self.undone.is_empty() {
            return 0;
        }
        let times = |place: &str| -> u32 {
            self.undone.iter().filter(|undone| *undone.place == *place).map(|undone| undone.times).sum()
        };
        let around = self.holders(holder).filter_map(|(id, _)| Some(times(&self.place_of(id)?)));
        times(place) + around.sum::<u32>()
    }

    /// What is to be undone is known from now on: a task of this scope, by its place in the run.
    pub(super) fn owe(
        &mut self,
        holder: ScopeId,
        place: String,
        task: &Arc<str>,
        input: &Arc<Value>,
        output: &Arc<Value>,
    ) {
        let key: Arc<str> = numbered(place.clone(), self.times_undone(holder, &place)).into();
        let within = self.holders(holder).map(|(id, _)| id).collect();
        // What another attempt has done again is the same effect: it is undone once.
        self.undo.retain(|undo| undo.key != key);
        let bytes = size_of(input) + size_of(output) + place.len();
        let (input, output) = (Arc::clone(input), Arc::clone(output));
        self.undo.push(Undo {
            task: Arc::clone(task),
            place: place.into(),
            key,
            input,
            output,
            bytes,
            within,
        });
    }

    /// What undoes a task has come to its end, if that is what this scope does.
    pub(super) fn undoing_ends(&mut self, id: ScopeId, problem: Option<&Problem>) {
        let Some(scope) = self.scopes.get(&id) else { return };
        let (State::Compensating { key }, Some(parent)) = (&scope.state, scope.parent) else { return };
        let Some(at) = self.undo.iter().position(|undo| undo.key == *key) else { return };
        let Undo { task, place, .. } = self.undo.remove(at);
        if let Some(problem) = problem {
            if let Some(State::Undoing { failed, .. }) =
                self.scopes.get_mut(&parent).map(|scope| &mut scope.state)
            {
                failed.push(NotUndone { task, problem: problem.clone() });
            }
            return;
        }
        let is_trying = |state: &State| matches!(state, State::Trying { .. });
        let outermost = self.holders(parent).filter(|(_, scope)| is_trying(&scope.state)).last();
        let Some((within, _)) = outermost else { return };
        match self.undone.iter_mut().find(|undone| undone.place == place) {
            Some(undone) => undone.times += 1,
            None => self.undone.push(Undone { place, times: 1, within }),
        }
    }
}

/// The name of a step that was undone so often before.
fn numbered(name: String, times: u32) -> String {
    if times == 0 { name } else { format!("{name}*{}", times + 1) }
}
