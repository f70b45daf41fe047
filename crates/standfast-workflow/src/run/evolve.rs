use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde_json::Value;
use standfast_model::Stamp;

use crate::decide::answers;

use super::{Admitted, Digest, Event, Last, Record, Run, RunId, Scope, ScopeId, State, Status, Taken};

/// Most events that a run remembers having taken. One that comes twice with more than so many others in between counts twice.
const TAKEN_MAX: usize = 1_000;

impl Run {
    /// A run of which nothing is known yet.
    pub fn new(id: RunId) -> Self {
        Self {
            id,
            definition: Digest::default(),
            status: Status::Pending,
            records: 0,
            steps: 0,
            started_at: Stamp::EPOCH,
            changed_at: Stamp::EPOCH,
            input: Arc::default(),
            key: None,
            context: Arc::new(Value::Object(serde_json::Map::new())),
            output: None,
            problem: None,
            is_held: false,
            parked: None,
            origin: None,
            limits: None,
            taken: VecDeque::new(),
            signals: Vec::new(),
            undo: Vec::new(),
            undone: Vec::new(),
            scopes: BTreeMap::new(),
            next_scope: 1,
        }
    }

    /// Folds a record in.
    pub fn apply(&mut self, record: &Record) {
        for event in &record.events {
            self.evolve(event, record.at);
        }
        self.close(record.at);
    }

    /// Ends what a record began: its number is used, and the status follows from what goes on.
    pub(crate) fn close(&mut self, at: Stamp) {
        self.records += 1;
        self.changed_at = at;
        // An answer is for its task alone.
        let scopes = &self.scopes;
        self.signals.retain(|signal| answers(&signal.event).is_none_or(|id| scopes.contains_key(&id)));
        if !self.status.is_final() {
            self.status = self.current_status();
        }
    }

    fn current_status(&self) -> Status {
        if self.parked.is_some() {
            return Status::Parked;
        }
        if self.is_held {
            return Status::Suspended;
        }
        if self.is_queued() {
            return Status::Pending;
        }
        let mut leaves = self.scopes.values().filter(|scope| {
            matches!(
                scope.state,
                State::Asking
                    | State::Waiting { .. }
                    | State::Pausing { .. }
                    | State::Listening(_)
                    | State::Receiving(_)
            )
        });
        let is_idle = |scope: &Scope| {
            matches!(scope.state, State::Waiting { .. } | State::Listening(_) | State::Receiving(_))
        };
        let mut has_leaf = false;
        let all_idle = leaves.all(|scope| {
            has_leaf = true;
            is_idle(scope)
        });
        if all_idle && has_leaf { Status::Waiting } else { Status::Running }
    }

    /// Folds one event in. Plain data in, plain data out: no clock, no chance, nothing computed that an event could hold.
    pub(crate) fn evolve(&mut self, event: &Event, at: Stamp) {
        self.steps += 1;
        match event {
            Event::Started { definition, input, given, key, deadline, limits } => {
                self.key.clone_from(key);
                self.limits.clone_from(limits);
                self.definition = definition.clone();
                self.start(input, given.as_ref(), *deadline, at);
            }
            Event::Admitted { within } => {
                if let Some(limits) = &mut self.limits {
                    limits.admitted = Some(Admitted { within: *within });
                }
            }
            Event::Continued { run } => {
                *self = Self { id: self.id, records: self.records, steps: self.steps, ..Self::clone(run) };
            }
            Event::Entered { scope, parent, task, input, deadline, state, key } => {
                let (ordinal, raw) = self.begin(*parent);
                if let Some(holder) = self.scopes.get_mut(parent) {
                    holder.active += 1;
                }
                let input = input.clone().unwrap_or_else(|| Arc::clone(&raw));
                self.next_scope = self.next_scope.max(scope.0 + 1);
                let entered = Scope {
                    parent: Some(*parent),
                    task: Arc::clone(task),
                    ordinal,
                    at,
                    deadline: *deadline,
                    raw,
                    data: Arc::clone(&input),
                    input,
                    begun: 0,
                    active: 0,
                    last: None,
                    state: state.clone(),
                    key: key.clone(),
                    named: None,
                };
                self.scopes.insert(*scope, entered);
            }
            Event::Failed { parent, .. } => {
                self.begin(*parent);
            }
            Event::Skipped { parent, task } => {
                let (ordinal, raw) = self.begin(*parent);
                let last = Last { task: Arc::clone(task), then: Some("continue".into()) };
                self.yielded(*parent, ordinal, last, raw, None);
            }
            Event::Done { parent, task, output, context, then, owed } => {
                let (ordinal, raw) = self.begin(*parent);
                let last = Last { task: Arc::clone(task), then: then.clone() };
                let output = output.clone().unwrap_or(raw);
                if let Some(input) = owed {
                    let place = self.place(*parent, ordinal, task);
                    self.owe(*parent, place, task, input, &output);
                }
                self.yielded(*parent, ordinal, last, output, context.as_ref());
            }
            Event::Consumed { scope: id, read, is_queued, met, ended, shared, is_complete, key } => {
                if let Some(listening) = self.scopes.get_mut(id).and_then(|scope| scope.state.listening_mut())
                {
                    if *is_queued {
                        listening.keys.resize(listening.queued.len(), None);
                        listening.queued.extend(read.clone());
                        listening.keys.extend(read.iter().map(|_| key.clone()));
                    }
                    listening.consumed.extend(read.clone());
                    for (places, changed) in [(&mut listening.met, met), (&mut listening.ended, ended)] {
                        if !changed.is_empty() {
                            places.clone_from(changed);
                        }
                    }
                    listening.shared.extend(shared.clone());
                    listening.is_complete = *is_complete;
                }
                if let Some(key) = key {
                    self.signals.retain(|signal| signal.key != *key);
                    if self.taken.len() >= TAKEN_MAX {
                        self.taken.pop_front();
                    }
                    self.taken.push_back(Taken { key: key.clone(), scope: *id });
                }
            }
            Event::Acknowledged { scope, keys } => {
                self.taken.retain(|taken| taken.scope != *scope || !keys.contains(&taken.key));
            }
            Event::Handled { scope: id, output } => {
                self.remove_within(*id);
                // Counted anew: what is done for the next event has keys of its own by that event's.
                if let Some(scope) = self.scopes.get_mut(id) {
                    (scope.begun, scope.active, scope.last) = (0, 0, None);
                    scope.data = Arc::clone(&scope.input);
                    if let Some(listening) = scope.state.listening_mut() {
                        listening.index += 1;
                        listening.outputs.push(Arc::clone(output));
                        if !listening.queued.is_empty() {
                            listening.queued.remove(0);
                            listening.keys.drain(..listening.keys.len().min(1));
                        }
                    }
                }
            }
            Event::Iterated { scope } => {
                if let Some(scope) = self.scopes.get_mut(scope) {
                    scope.last = None;
                    if let State::Loop { index, .. } = &mut scope.state {
                        *index += 1;
                    }
                }
            }
            Event::Changed { scope, state } => {
                if let Some(scope) = self.scopes.get_mut(scope) {
                    scope.state = state.clone();
                    scope.last = None;
                }
            }
            Event::Restarted { scope: id, state } => {
                self.remove_within(*id);
                if let Some(scope) = self.scopes.get_mut(id) {
                    scope.begun = 0;
                    scope.active = 0;
                    scope.last = None;
                    scope.data = Arc::clone(&scope.input);
                    scope.state = state.clone();
                    // What undoes a run has its own time.
                    if matches!(state, State::Undoing { ends: Some(_), .. }) {
                        scope.deadline = None;
                    }
                }
            }
            Event::Left { scope, output, context, then, is_owed } => {
                if let (true, Some(left)) = (*is_owed, self.scopes.get(scope))
                    && let (Some(parent), Some(place)) = (left.parent, self.place_of(*scope))
                {
                    let (task, input) = (Arc::clone(&left.task), Arc::clone(&left.input));
                    self.owe(parent, place, &task, &input, output);
                }
                self.undoing_ends(*scope, None);
                if let Some(Scope { parent: Some(parent), ordinal, task, .. }) = self.remove(*scope) {
                    let last = Last { task, then: then.clone() };
                    self.yielded(parent, ordinal, last, Arc::clone(output), context.as_ref());
                }
            }
            Event::Faulted { scope, problem } => {
                self.undoing_ends(*scope, Some(problem));
                self.remove(*scope);
            }
            Event::Emitted { .. } => {}
            Event::Exported { context } => self.context = Arc::clone(context),
            Event::Signalled { signal } => self.signals.push(signal.clone()),
            Event::Migrated(migrated) => self.goes_over(migrated),
            Event::Held => self.is_held = true,
            Event::Parked { why } => self.parked = Some(Arc::clone(why)),
            Event::Resumed => (self.is_held, self.parked) = (false, None),
            Event::Ended { status, output, problem } => {
                self.status = *status;
                self.output.clone_from(output);
                self.problem.clone_from(problem);
                self.scopes.clear();
                self.undo.clear();
                self.undone.clear();
                self.signals.clear();
            }
        }
    }

    fn start(&mut self, input: &Arc<Value>, given: Option<&Arc<Value>>, deadline: Option<Stamp>, at: Stamp) {
        let given = given.unwrap_or(input);
        self.status = Status::Running;
        self.started_at = at;
        self.input = Arc::clone(input);
        // As the language's picture of the data flow has it: until a task exports something, the context is what the first is given.
        self.context = Arc::clone(given);
        self.scopes.insert(
            ScopeId::ROOT,
            Scope {
                parent: None,
                task: "".into(),
                ordinal: 0,
                at,
                deadline,
                raw: Arc::clone(input),
                input: Arc::clone(given),
                data: Arc::clone(given),
                begun: 0,
                active: 0,
                last: None,
                state: State::List,
                key: None,
                named: None,
            },
        );
    }

    /// Counts one more task of a scope: its number, and what it is given.
    fn begin(&mut self, parent: ScopeId) -> (u32, Arc<Value>) {
        match self.scopes.get_mut(&parent) {
            Some(scope) => {
                let ordinal = scope.begun;
                scope.begun += 1;
                (ordinal, Arc::clone(&scope.data))
            }
            None => (0, Arc::default()),
        }
    }

    /// A task of a scope has yielded something.
    fn yielded(
        &mut self,
        parent: ScopeId,
        ordinal: u32,
        last: Last,
        output: Arc<Value>,
        context: Option<&Arc<Value>>,
    ) {
        if let Some(context) = context {
            self.context = Arc::clone(context);
        }
        let Some(scope) = self.scopes.get_mut(&parent) else { return };
        match &mut scope.state {
            State::Fork { outputs } | State::Join { outputs, .. } => {
                if let Some(place) = outputs.get_mut(ordinal as usize) {
                    *place = Some(output);
                }
            }
            _ => {
                scope.data = output;
                scope.last = Some(last);
            }
        }
    }

    /// Removes a scope and all that goes on within it.
    fn remove(&mut self, id: ScopeId) -> Option<Scope> {
        self.remove_within(id);
        let gone = self.scopes.remove(&id)?;
        self.no_more_attempts();
        if let Some(holder) = gone.parent.and_then(|parent| self.scopes.get_mut(&parent)) {
            holder.active = holder.active.saturating_sub(1);
        }
        Some(gone)
    }

    /// Forgets what was undone and cannot be done again any more.
    fn no_more_attempts(&mut self) {
        let scopes = &self.scopes;
        self.undone.retain(|undone| scopes.contains_key(&undone.within));
    }

    /// Removes all that goes on within a scope. Children have greater numbers than their parents, so one pass finds them all.
    fn remove_within(&mut self, scope: ScopeId) {
        let mut gone = vec![scope];
        let within = self.scopes.range(scope..).filter_map(|(id, found)| Some((*id, found.parent?)));
        for (id, parent) in within {
            if gone.contains(&parent) {
                gone.push(id);
            }
        }
        for id in &gone[1..] {
            self.scopes.remove(id);
        }
        self.no_more_attempts();
    }
}
