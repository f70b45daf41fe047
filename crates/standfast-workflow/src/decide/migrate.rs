//! Whether a run can go over to another version of its document, and what becomes of it then: every task that the run names must be
//! found in the other by the names that lead to it, and be of the same kind. What was not reached yet may differ freely.
//!
//! **Invariant.** What is done again after that, by another attempt or after a crash, is named as it was before.

use std::collections::BTreeSet;
use std::mem::discriminant;
use std::sync::Arc;

use serde_json::Value;
use standfast_model::Stamp;

use super::flow::{Tasks, tasks_of};
use super::{Turn, World, nothing_yet};
use crate::program::{
    AROUND, Events, Failures, For, ListId, Listen, Paths, Program, Shapes, Step, Task, TaskId, Try, Until,
};
use crate::run::{Event, Listening, Migrated, Record, Run, Scope, ScopeId, State, undone_by};

/// What is to be said of a task when a run goes over to another version of its document.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// The task, by its place in the document that the run has now; of one that is new, in the other.
    pub task: Arc<str>,
    /// What of it.
    pub why: String,
}

/// Whether a run can go over, and what becomes of it then.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Verdict {
    /// Why not; nothing when it can.
    pub(crate) reasons: Vec<Remark>,
    /// What to know, if it can.
    pub(crate) notes: Vec<Remark>,
    /// What changes, if it can.
    pub(crate) migrated: Migrated,
}

/// Judges a run that goes on by one program and is to go on by another.
pub(crate) fn judge(run: &Run, before: &Program, after: &Program) -> Verdict {
    let migrated = Migrated {
        definition: after.digest.clone(),
        version: after.name.version.as_str().into(),
        places: std::collections::BTreeMap::new(),
        listening: std::collections::BTreeMap::new(),
    };
    let verdict = Verdict { reasons: Vec::new(), notes: Vec::new(), migrated };
    let mut judging = Judging { run, before, after, paths: Paths::of(after), verdict };
    for (id, scope) in &run.scopes {
        judging.scope(*id, scope);
    }
    judging.owed();
    let mut verdict = judging.verdict;
    for remarks in [&mut verdict.reasons, &mut verdict.notes] {
        remarks.sort();
        remarks.dedup();
    }
    verdict
}

/// What becomes of a run that is to go over: nothing when it cannot, or has.
pub(super) fn turn(world: &World<'_>, mut run: Run, to: &Program, now: Stamp) -> Turn {
    let unchanged = run.status.is_final() || run.definition == to.digest;
    let verdict = (!unchanged).then(|| judge(&run, world.program, to));
    let Some(verdict) = verdict.filter(|verdict| verdict.reasons.is_empty()) else {
        return Turn { record: None, run, is_unfinished: false };
    };
    let event = Event::Migrated(verdict.migrated);
    let number = run.records;
    run.evolve(&event, now);
    run.close(now);
    let record = Record { run: run.id, number, at: now, events: vec![event] };
    // What there is to do now is decided by the other program.
    Turn { record: Some(record), run, is_unfinished: true }
}

struct Judging<'p> {
    run: &'p Run,
    before: &'p Program,
    after: &'p Program,
    paths: Paths<'p>,
    verdict: Verdict,
}

impl<'p> Judging<'p> {
    fn refuse(&mut self, task: &str, why: impl Into<String>) {
        let task = task.split(AROUND).next().unwrap_or(task);
        self.verdict.reasons.push(Remark { task: task.into(), why: why.into() });
    }

    fn note(&mut self, task: &str, why: impl Into<String>) {
        let task = task.split(AROUND).next().unwrap_or(task);
        self.verdict.notes.push(Remark { task: task.into(), why: why.into() });
    }

    fn version(&self) -> String {
        self.after.name.version.clone()
    }

    /// Where a task stands in the other document, if it does.
    fn find(&mut self, pointer: &Arc<str>) -> Option<(TaskId, &'p Task)> {
        let (id, task) = self.paths.find(pointer)?;
        if task.pointer != *pointer {
            self.verdict.migrated.places.insert(Arc::clone(pointer), Arc::clone(&task.pointer));
        }
        Some((id, task))
    }

    /// The same of one that must be there.
    fn must_find(&mut self, pointer: &Arc<str>, what: &str) -> Option<(TaskId, &'p Task)> {
        let found = self.find(pointer);
        if found.is_none() {
            let why = format!("{what}, and version {} has no task of that name there", self.version());
            self.refuse(pointer, why);
        }
        found
    }

    fn scope(&mut self, id: ScopeId, scope: &'p Scope) {
        let Some(_) = scope.parent else { return self.list(id, scope, None, None) };
        let what = match &scope.state {
            State::Compensating { .. } => "it is being undone",
            _ => "it is under way",
        };
        let task = Arc::from(undone_by(&scope.task).unwrap_or(&scope.task));
        // What undoes a task is named by that task.
        let found = match &scope.state {
            State::Compensating { .. } if self.paths.find(&scope.task).is_none() => {
                let version = self.version();
                return self.refuse(&task, format!("{what}, and version {version} does not say how"));
            }
            _ => self.must_find(&scope.task, what),
        };
        let (Some((now, after)), Some(was)) = (found, self.before.find(&scope.task)) else { return };
        let before = self.before.task(was);
        if discriminant(&before.step) != discriminant(&after.step) {
            let (there, here, version) = (after.step.word(), before.step.word(), self.version());
            return self
                .refuse(&task, format!("{what}, and in version {version} it is `{there}`, not `{here}`"));
        }
        self.state(id, scope, before, after);
        self.list(id, scope, Some(was), Some(now));
    }

    /// What a task that is under way has kept must fit what it is in the other document.
    fn state(&mut self, id: ScopeId, scope: &Scope, before: &Task, after: &Task) {
        let version = self.version();
        match (&scope.state, &before.step, &after.step) {
            (_, Step::For(one), Step::For(other)) if rounds(one) != rounds(other) => {
                let why = format!(
                    "its rounds are under way, and version {version} has them side by side, one after the other, or collects their errors otherwise"
                );
                self.refuse(&scope.task, why);
            }
            (State::Fork { .. }, Step::Fork(one), Step::Fork(other)) => {
                let names = |program: &Program, branches: &[TaskId]| -> Vec<Arc<str>> {
                    branches.iter().map(|id| Arc::clone(&program.task(*id).name)).collect()
                };
                if names(self.before, &one.branches) != names(self.after, &other.branches)
                    || one.compete != other.compete
                {
                    let why = format!(
                        "its branches are under way, and version {version} has others, or in another order"
                    );
                    self.refuse(&scope.task, why);
                }
            }
            (State::Trying { failed, .. }, Step::Try(one), Step::Try(other))
                if *failed > 0 || scope.begun > 0 =>
            {
                self.tried(&scope.task, one, other);
            }
            (State::Pausing { .. }, Step::Try(one), Step::Try(other)) => self.tried(&scope.task, one, other),
            (State::Catching { .. }, Step::Try(_), Step::Try(other)) if other.catch.list.is_none() => {
                let why =
                    format!("what is done on an error is under way, and version {version} does nothing then");
                self.refuse(&scope.task, why);
            }
            (State::Listening(_), _, Step::Listen(other)) if other.channel.is_some() => {
                let why = format!("it waits for events, and version {version} for messages of a channel");
                self.refuse(&scope.task, why);
            }
            (State::Listening(listening), Step::Listen(one), Step::Listen(other)) => {
                self.listens(id, &scope.task, listening, one, (other, after.human.is_some()));
            }
            (State::Receiving(_), ..) if self.differs(before, after) => {
                let why = format!("it receives messages, and version {version} does that otherwise");
                self.refuse(&scope.task, why);
            }
            (State::Asking, Step::Subflow(one), Step::Subflow(other))
                if (&one.name.namespace, &one.name.name) != (&other.name.namespace, &other.name.name) =>
            {
                let why = format!("its run is under way, and version {version} runs another workflow");
                self.refuse(&scope.task, why);
            }
            (State::Asking, _, _) if self.differs(before, after) => {
                let why = format!(
                    "is under way, and version {version} asks otherwise: if it must be asked again, after a crash, then as that version has it, by the same key"
                );
                self.note(&scope.task, why);
            }
            (State::Waiting { until }, _, _) if self.differs(before, after) => {
                self.note(&scope.task, format!("goes on waiting until {until}, as it was begun"));
            }
            _ => {}
        }
    }

    /// Whether what a task does differs, by what its documents say.
    fn differs(&self, before: &Task, after: &Task) -> bool {
        const ABOUT: [&str; 7] = ["if", "input", "output", "export", "timeout", "then", "metadata"];
        let part = |program: &Program, task: &Task| {
            let mut part = program.part(task.reference()).clone();
            if let Value::Object(fields) = &mut part {
                fields.retain(|name, _| !ABOUT.contains(&name.as_str()));
            }
            part
        };
        part(self.before, before) != part(self.after, after)
    }

    /// Tasks that another attempt does again must be named as they were.
    fn tried(&mut self, task: &str, before: &Try, after: &Try) {
        if before.catch.retry.is_none() && after.catch.retry.is_none() {
            return;
        }
        if let Err((differs, how)) = Shapes::new(self.before, self.after).list(before.list, after.list) {
            let version = self.version();
            let why = format!(
                "another attempt of {task} may do it again, and version {version} would name its effects otherwise: it {how}"
            );
            self.refuse(&differs, why);
        }
    }

    fn listens(
        &mut self,
        id: ScopeId,
        task: &str,
        listening: &Listening,
        before: &Listen,
        (after, asks): (&Listen, bool),
    ) {
        let human = listening.human.clone();
        // What no person is asked any more nobody could answer.
        let still = human.clone().filter(|_| asks);
        let has_taken = *listening != Listening { human, ..nothing_yet(&before.to) };
        let so_far = if has_taken { listening.clone() } else { nothing_yet(&after.to) };
        let anew = Listening { human: still, ..so_far };
        if anew != *listening {
            self.verdict.migrated.listening.insert(id, anew);
        }
        if !has_taken {
            return;
        }
        let each = |listen: &Listen| listen.each.is_some();
        if form(&before.to) != form(&after.to) || before.read != after.read || each(before) != each(after) {
            let version = self.version();
            let why = format!(
                "it has taken events, and version {version} waits for others, or takes them otherwise"
            );
            self.refuse(task, why);
        }
    }

    /// Where a scope is among its tasks must be a place among those of the other document.
    fn list(&mut self, id: ScopeId, scope: &'p Scope, was: Option<TaskId>, now: Option<TaskId>) {
        match &scope.state {
            // What it does is in no list, or each of its tasks stands for itself.
            State::Undoing { .. } | State::Fork { .. } | State::Join { .. } => return,
            State::Extended { then: Some(then), .. } => self.leads(then),
            _ => {}
        }
        let tasks = (tasks_of(self.before, was, &scope.state), tasks_of(self.after, now, &scope.state));
        let active = self.run.scopes.values().find(|active| active.parent == Some(id));
        let reached = match (active, &scope.last) {
            (Some(active), _) => Some(&active.task),
            (None, Some(last)) => {
                last.then.iter().for_each(|then| self.leads(then));
                self.must_find(&last.task, "it was done last");
                Some(&last.task)
            }
            (None, None) => None,
        };
        let Some(reached) = reached else { return };
        let (Some(was), Some((now, after))) = (self.before.find(reached), self.find(reached)) else { return };
        let version = self.version();
        match tasks {
            (Some(Tasks::One(_)), Some(Tasks::One(one)))
                if self.after.task(one).reference() != after.reference() =>
            {
                self.refuse(
                    &scope.task,
                    format!("it is under way, and version {version} calls something else"),
                );
            }
            (Some(Tasks::List(before)), Some(Tasks::List(list))) => match after.place {
                Some((stands, _)) if stands == list => self.order(before, was, list, now),
                _ => self.refuse(
                    reached,
                    format!("it is reached, and stands in another list in version {version}"),
                ),
            },
            _ => {}
        }
    }

    fn leads(&mut self, then: &Arc<str>) {
        if then.starts_with('/') {
            self.must_find(then, "the run goes on with it");
        }
    }

    /// What was done before must not come again; what comes before the place that is reached is not done any more.
    fn order(&mut self, before: ListId, was: TaskId, after: ListId, now: TaskId) {
        let place = |program: &Program, id: TaskId| program.task(id).place.map_or(0, |(_, at)| at);
        let (was, now) = (place(self.before, was), place(self.after, now));
        let names = |program: &'p Program, list: &[TaskId]| -> BTreeSet<&'p str> {
            list.iter().map(|id| &*program.task(*id).name).collect()
        };
        let passed = names(self.before, &self.before.list(before)[..was]);
        let (version, there) = (self.version(), self.after.list(after));
        for (at, id) in there.iter().enumerate() {
            let task = self.after.task(*id);
            let is_passed = passed.contains(&*task.name);
            if at > now && is_passed {
                let again = self.before.list(before)[..was].iter().map(|id| self.before.task(*id));
                let task = again
                    .filter(|known| known.name == task.name)
                    .map(|task| Arc::clone(&task.pointer))
                    .next();
                let why = format!(
                    "it is passed already, and would come again: in version {version} it stands behind what is reached"
                );
                self.refuse(&task.unwrap_or_default(), why);
            } else if at < now && !is_passed {
                let why = format!("stands before what is reached in version {version}, and is passed over");
                self.note(&task.pointer, why);
            }
        }
    }

    /// What is to be undone if the run fails must be there, and what undoes it.
    fn owed(&mut self) {
        let run = self.run;
        for undo in &run.undo {
            let what = "it was done and is undone if the run fails";
            if let Some((_, task)) = self.must_find(&undo.task, what)
                && task.compensate.is_none()
            {
                let version = self.version();
                self.refuse(&undo.task, format!("{what}, and version {version} does not say how"));
            }
        }
    }
}

/// How rounds are done, and what is made of their errors.
fn rounds(each: &For) -> Option<Failures> {
    each.parallel.map(|parallel| parallel.failures)
}

/// How events are counted.
fn form(events: &Events) -> (u8, usize, Option<(u8, usize)>) {
    match events {
        Events::One(_) => (0, 1, None),
        Events::All(patterns) => (1, patterns.len(), None),
        Events::Any { until, .. } => {
            let until = until.as_ref().map(|until| match until {
                Until::Condition(_) => (3, 0),
                Until::Events(events) => {
                    let (kind, count, _) = form(events);
                    (kind, count)
                }
            });
            (2, 0, until)
        }
    }
}
