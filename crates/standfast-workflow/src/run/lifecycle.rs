//! What the language tells others about runs and their tasks: `CloudEvents` of the types `io.serverlessworkflow.*.v1`, derived from
//! records alone, so that they can be made again from a journal and are the same then, their ids included.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Event, Problem, Record, Run, Scope, ScopeId, State, Status};
use crate::program::{AROUND, WorkflowName};

/// What a record tells others, in order; `before` is the run as it was before that record.
pub fn lifecycle(before: &Run, workflow: &WorkflowName, record: &Record) -> Vec<Value> {
    lifecycle_of(before, workflow, record, &|_| true)
}

/// The same of those types only that are wanted, by what is in their middle (`task.completed`). Each has the id that it has among all.
pub(crate) fn lifecycle_of(
    before: &Run,
    workflow: &WorkflowName,
    record: &Record,
    wants: &dyn Fn(&str) -> bool,
) -> Vec<Value> {
    let mut telling = Telling { run: before.clone(), workflow, record, wants, count: 0, told: Vec::new() };
    for event in &record.events {
        telling.event(event);
    }
    telling.run.close(record.at);
    if telling.run.status != before.status {
        let word = match telling.run.status {
            Status::Parked => Status::Suspended.word(),
            status => status.word(),
        };
        telling.of_run("status-changed", "updatedAt", [("status", word.into())]);
    }
    telling.told
}

struct Telling<'r> {
    run: Run,
    workflow: &'r WorkflowName,
    record: &'r Record,
    wants: &'r dyn Fn(&str) -> bool,
    /// How many there were, those included that are not wanted.
    count: usize,
    told: Vec<Value>,
}

impl Telling<'_> {
    fn event(&mut self, event: &Event) {
        let before = self.before(event);
        self.run.evolve(event, self.record.at);
        match event {
            Event::Started { .. } | Event::Continued { .. } => {
                let WorkflowName { namespace, name, version } = self.workflow;
                let definition = json!({"name": name, "namespace": namespace, "version": version});
                self.of_run("started", "startedAt", [("definition", definition)]);
            }
            // A round is no task of its own.
            Event::Entered { state: State::Round, .. } => {}
            Event::Entered { task, state, .. } => {
                self.begins(task);
                if state.listening().is_some() {
                    self.of_run("correlation-started", "startedAt", []);
                }
            }
            Event::Done { task, output, parent, .. } => {
                self.begins(task);
                let given = before.get(parent).map(|scope| Arc::clone(&scope.data));
                self.completes(task, output.clone().or(given).as_deref());
            }
            Event::Failed { task, problem, .. } => {
                self.begins(task);
                self.faults(task, problem);
            }
            Event::Restarted { scope, state } => {
                self.cancels(&before, Some(*scope));
                if let (State::Trying { .. }, Some(scope)) = (state, before.get(scope)) {
                    self.of_task("retried", "retriedAt", &scope.task, None);
                }
            }
            Event::Left { scope, output, .. } => self.leaves(&before, *scope, output),
            Event::Faulted { scope, problem } => {
                self.cancels(&before, Some(*scope));
                if let Some(scope) = before.get(scope).filter(|scope| !is_round(&before, scope)) {
                    self.faults(&scope.task, problem);
                }
            }
            Event::Held | Event::Parked { .. } => {
                self.of_run("suspended", "suspendedAt", []);
                self.all_tasks(&before, "suspended", "suspendedAt");
            }
            Event::Resumed => {
                self.of_run("resumed", "resumedAt", []);
                self.all_tasks(&before, "resumed", "resumedAt");
            }
            Event::Ended { status, output, problem } => {
                self.cancels(&before, None);
                self.ends(*status, output.as_deref(), problem.as_ref());
            }
            Event::Admitted { .. }
            | Event::Skipped { .. }
            | Event::Changed { .. }
            | Event::Iterated { .. }
            | Event::Handled { .. }
            | Event::Consumed { .. }
            | Event::Acknowledged { .. }
            | Event::Emitted { .. }
            | Event::Signalled { .. }
            | Event::Migrated(_)
            | Event::Exported { .. } => {}
        }
    }

    /// The scopes that an event may end or say something of, as they are before it. With 10,000 branches under way a copy of all for
    /// each event would hold up the run.
    fn before(&self, event: &Event) -> BTreeMap<ScopeId, Scope> {
        let scopes = &self.run.scopes;
        let from = match event {
            Event::Held | Event::Parked { .. } | Event::Resumed | Event::Ended { .. } => {
                return scopes.clone();
            }
            Event::Done { parent, .. } => {
                return scopes.get(parent).map(|scope| (*parent, scope.clone())).into_iter().collect();
            }
            Event::Left { scope, .. } | Event::Faulted { scope, .. } | Event::Restarted { scope, .. } => {
                *scope
            }
            _ => return BTreeMap::new(),
        };
        let mut within = BTreeMap::new();
        let Some(first) = scopes.get(&from) else { return within };
        // What holds it tells whether it is a round.
        if let Some(parent) = first.parent
            && let Some(holder) = scopes.get(&parent)
        {
            within.insert(parent, holder.clone());
        }
        within.insert(from, first.clone());
        for (id, scope) in scopes.range(from..).skip(1) {
            if scope.parent.is_some_and(|parent| parent >= from && within.contains_key(&parent)) {
                within.insert(*id, scope.clone());
            }
        }
        within
    }

    fn begins(&mut self, task: &str) {
        self.of_task("created", "createdAt", task, None);
        self.of_task("started", "startedAt", task, None);
    }

    fn completes(&mut self, task: &str, output: Option<&Value>) {
        self.of_task("completed", "completedAt", task, output.map(|output| ("output", output.clone())));
    }

    fn faults(&mut self, task: &str, problem: &Problem) {
        self.of_task("faulted", "faultedAt", task, Some(("error", problem.to_value())));
    }

    fn leaves(&mut self, before: &BTreeMap<ScopeId, Scope>, id: ScopeId, output: &Value) {
        self.cancels(before, Some(id));
        let Some(scope) = before.get(&id).filter(|scope| !is_round(before, scope)) else { return };
        if let Some(listening) = scope.state.listening() {
            let keys: Map<String, Value> = listening.shared.clone().into_iter().collect();
            let keys = (!keys.is_empty()).then_some(("correlationKeys", Value::Object(keys)));
            self.of_run("correlation-completed", "completedAt", keys);
        }
        self.completes(&scope.task, Some(output));
    }

    fn ends(&mut self, status: Status, output: Option<&Value>, problem: Option<&Problem>) {
        let output = output.map(|output| ("output", output.clone()));
        let error = problem.map(|problem| ("error", problem.to_value()));
        match status {
            Status::Completed => self.of_run("completed", "completedAt", output),
            Status::Cancelled => self.of_run("cancelled", "cancelledAt", []),
            _ => self.of_run("faulted", "faultedAt", error),
        }
    }

    /// Tasks that ended without an end of their own, since what they were a part of did; from within to without.
    fn cancels(&mut self, before: &BTreeMap<ScopeId, Scope>, except: Option<ScopeId>) {
        let gone = before.iter().rev().filter(|(id, scope)| {
            let is_task = scope.parent.is_some() && !is_round(before, scope);
            is_task && Some(**id) != except && !self.run.scopes.contains_key(id)
        });
        let gone: Vec<Arc<str>> = gone.map(|(_, scope)| Arc::clone(&scope.task)).collect();
        for task in gone {
            self.of_task("cancelled", "cancelledAt", &task, None);
        }
    }

    fn all_tasks(&mut self, before: &BTreeMap<ScopeId, Scope>, what: &str, when: &str) {
        for scope in before.values().filter(|scope| scope.parent.is_some() && !is_round(before, scope)) {
            self.of_task(what, when, &scope.task, None);
        }
    }

    fn of_run<'f>(&mut self, what: &str, when: &str, more: impl IntoIterator<Item = (&'f str, Value)>) {
        self.tell(&format!("workflow.{what}"), |telling| {
            let mut data = json!({"name": telling.name(), when: telling.record.at.to_string()});
            for (name, value) in more {
                data[name] = value;
            }
            data
        });
    }

    fn of_task(&mut self, what: &str, when: &str, task: &str, more: Option<(&str, Value)>) {
        // Of a task with others around it the task itself tells.
        if task.contains(AROUND) {
            return;
        }
        self.tell(&format!("task.{what}"), |telling| {
            let mut data =
                json!({"workflow": telling.name(), "task": task, when: telling.record.at.to_string()});
            if let Some((name, value)) = more {
                data[name] = value;
            }
            data
        });
        let status = match what {
            "created" => Status::Pending.word(),
            "started" | "resumed" | "retried" => Status::Running.word(),
            ended_or_suspended => ended_or_suspended,
        };
        self.tell("task.status-changed", |telling| {
            let at = telling.record.at.to_string();
            json!({"workflow": telling.name(), "task": task, "updatedAt": at, "status": status})
        });
    }

    /// The qualified name of the run, as the language's examples have it.
    fn name(&self) -> String {
        format!("{}-{}.{}", self.workflow.name, self.run.id, self.workflow.namespace)
    }

    fn tell(&mut self, kind: &str, data: impl FnOnce(&Self) -> Value) {
        let number = self.count;
        self.count += 1;
        if !(self.wants)(kind) {
            return;
        }
        let WorkflowName { namespace, name, .. } = self.workflow;
        let event = json!({
            "specversion": "1.0",
            "id": format!("{}-{}-{number}", self.run.id, self.record.number),
            "source": format!("/workflows/{namespace}/{name}"),
            "type": format!("io.serverlessworkflow.{kind}.v1"),
            "subject": self.run.id.to_string(),
            "time": self.record.at.to_string(),
            "datacontenttype": "application/json",
            "data": data(self),
        });
        self.told.push(event);
    }
}

/// Whether a scope is a round of a loop whose rounds go side by side: it stands at the place of the loop itself.
fn is_round(scopes: &BTreeMap<ScopeId, Scope>, scope: &Scope) -> bool {
    let parent = scope.parent.and_then(|parent| scopes.get(&parent));
    parent.is_some_and(|parent| matches!(parent.state, State::Join { .. }))
}
