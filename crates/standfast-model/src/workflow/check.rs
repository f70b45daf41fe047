//! Whether names lead anywhere: where `then` goes, what of `use` is meant, and whether every task can be reached.

use std::collections::BTreeSet;

use super::document::{Document, Reusable};
use super::task::{Kind, PROTOCOLS, Task, Then};
use super::value::ARGUMENTS;
use crate::diagnostics::shown;
use crate::shape::{Context, Reference, Referent};
use crate::source::Span;
use crate::suggest;

/// Checks a document that was decoded.
pub(crate) fn check(document: &Document, cx: &mut Context<'_>) {
    for reference in std::mem::take(&mut cx.references) {
        if let Referent::Use(key) = reference.to {
            resolve(&document.reusable, key, &reference, cx);
        }
    }
    document.options.schedule.check(document.schedule.as_ref(), cx);
    let mut checker = Checker { cx, is_undoing: false };
    for function in &document.reusable.functions {
        checker.task(function, &[]);
    }
    for extension in &document.reusable.extensions {
        checker.list(&extension.before);
        checker.list(&extension.after);
    }
    checker.list(&document.tasks);
}

fn resolve(reusable: &Reusable, key: &'static str, reference: &Reference, cx: &mut Context<'_>) {
    let known = reusable.names(key);
    let name = reference.name.as_str();
    if known.contains(&name) || reusable.is_unread(key, name) {
        return;
    }
    let what = match key {
        "retries" => "retry policy",
        plural => plural.trim_end_matches('s'),
    };
    // A function may be a protocol misspelt.
    let others: &[&str] = if key == "functions" { &PROTOCOLS } else { &[] };
    let hint = match suggest::nearest(name, known.iter().chain(others).copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => suggest::hint(name, known),
    };
    cx.reports.error_hint(
        reference.span,
        format!("there is no {what} `{}` under `use.{key}`", shown(name)),
        hint,
    );
}

struct Checker<'c, 'e> {
    cx: &'c mut Context<'e>,
    /// Whether the tasks undo another.
    is_undoing: bool,
}

impl Checker<'_, '_> {
    /// The tasks of one list, among which `then` may choose.
    fn list(&mut self, tasks: &[Task]) {
        let mut seen = BTreeSet::new();
        for task in tasks {
            if !seen.insert(&task.name) {
                let message = format!("there are two tasks `{}` in this list", shown(&task.name));
                self.cx.reports.error_hint(
                    task.places.name,
                    message,
                    "`then` could not tell them apart: rename one",
                );
            }
        }
        let errors = self.cx.reports.errors();
        for task in tasks {
            self.task(task, tasks);
        }
        // A way that leads nowhere was meant to lead to one of them.
        if self.cx.reports.errors() == errors {
            self.reachable(tasks);
        }
    }

    fn task(&mut self, task: &Task, list: &[Task]) {
        if let Some(place) = task.places.then {
            self.then(&task.then, place, list);
        }
        match &task.kind {
            Kind::Switch(switch) => {
                for case in &switch.cases {
                    self.then(&case.then, case.place, list);
                }
            }
            Kind::Fork(fork) => {
                self.branches(&fork.branches);
                return self.compensation(task);
            }
            _ => {}
        }
        for tasks in task.kind.lists() {
            self.list(tasks);
        }
        self.compensation(task);
    }

    /// What undoes a task.
    fn compensation(&mut self, task: &Task) {
        let Some(place) = task.places.compensate else { return };
        if self.is_undoing {
            let hint =
                "what undoes a task is repeated until it is done (`try` with `retry`), not undone itself";
            self.cx.reports.error_hint(place, "`compensate` within what undoes a task", hint);
            return;
        }
        self.is_undoing = true;
        self.list(&task.options.compensate);
        self.is_undoing = false;
    }

    /// Branches run side by side: none comes after another.
    fn branches(&mut self, branches: &[Task]) {
        for branch in branches {
            if let (Then::Task(_), Some(place)) = (&branch.then, branch.places.then) {
                let hint = "put the tasks that follow each other into a `do` of one branch";
                self.cx.reports.error_hint(
                    place,
                    "branches run side by side: none comes after another",
                    hint,
                );
            }
            let alone = Task { then: Then::Continue, ..branch.clone() };
            self.task(&alone, &[]);
        }
    }

    fn then(&mut self, then: &Then, place: Span, list: &[Task]) {
        if self.is_undoing && *then == Then::End {
            let hint = "write `exit`: the run ends when all is undone";
            self.cx.reports.error_hint(place, "what undoes a task cannot end the run", hint);
        }
        let Then::Task(name) = then else { return };
        if list.iter().any(|task| task.name == *name) {
            return;
        }
        let known: Vec<&str> =
            list.iter().map(|task| task.name.as_str()).chain(["continue", "exit", "end"]).collect();
        let message = format!("there is no task `{}` in this list", shown(name));
        self.cx.reports.error_hint(place, message, suggest::hint(name, known));
    }

    /// Warns of tasks that no way leads to.
    fn reachable(&mut self, tasks: &[Task]) {
        let mut reached = vec![false; tasks.len()];
        let mut open: Vec<usize> = (!tasks.is_empty()).then_some(0).into_iter().collect();
        let at = |name: &str| tasks.iter().position(|task| task.name == name);
        while let Some(index) = open.pop() {
            if std::mem::replace(&mut reached[index], true) {
                continue;
            }
            let task = &tasks[index];
            let mut ways = vec![&task.then];
            if let Kind::Switch(switch) = &task.kind {
                // Without a case that always fits the switch itself may be passed over.
                if task.condition.is_none() && switch.cases.iter().any(|case| case.when.is_none()) {
                    ways.clear();
                }
                ways.extend(switch.cases.iter().map(|case| &case.then));
            }
            if task.condition.is_some() {
                ways.push(&Then::Continue); // Passed over, it goes on below.
            }
            for way in ways {
                match way {
                    Then::Continue if index + 1 < tasks.len() => open.push(index + 1),
                    Then::Task(name) => open.extend(at(name)),
                    _ => {}
                }
            }
        }
        for (task, _) in tasks.iter().zip(reached).filter(|(_, is_reached)| !is_reached) {
            let message = format!("the task `{}` is never reached", shown(&task.name));
            self.cx.reports.warning(
                task.places.name,
                message,
                "some `then` or case must lead to it, or it is not needed",
            );
        }
    }
}

/// The variables that an expression may ask for where these are named.
pub(crate) fn known_where(named: &[String]) -> Vec<String> {
    let names: BTreeSet<&str> = ARGUMENTS.into_iter().chain(named.iter().map(String::as_str)).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// The variables that expressions of a document may ask for: those of the language, and those that its tasks name.
pub(crate) fn variables(document: &Document) -> Vec<String> {
    let mut names: BTreeSet<String> = ARGUMENTS.iter().map(|name| (*name).to_owned()).collect();
    for task in document.all_tasks() {
        match &task.kind {
            Kind::For(each) => names.extend([each.each.clone(), each.at.clone()]),
            Kind::Try(attempt) => names.extend([attempt.catch.variable.clone()]),
            Kind::Listen(listen) => {
                names.extend(listen.for_each.iter().flat_map(|each| [each.item.clone(), each.at.clone()]));
            }
            Kind::Call(call) => names
                .extend(call.for_each().into_iter().flat_map(|each| [each.item.clone(), each.at.clone()])),
            _ => {}
        }
    }
    names.into_iter().collect()
}
