//! Whether names lead anywhere: where `then` goes, what of `use` is meant, and whether every task can be reached.

use std::collections::BTreeSet;

use super::auth::Authentication;
use super::document::{Document, Reusable};
use super::policy::Retry;
use super::task::{Call, Kind, McpTransport, Task, Then};
use super::value::{ARGUMENTS, Endpoint, Named};
use crate::diagnostics::shown;
use crate::shape::Context;
use crate::source::Span;
use crate::suggest;

/// Checks a document that was decoded.
pub(crate) fn check(document: &Document, cx: &mut Context<'_>) {
    let mut checker = Checker { reusable: &document.reusable, cx };
    if let (Some(Named::Use(name)), Some(place)) = (&document.timeout, document.timeout_place) {
        checker.timeout(name, place);
    }
    for function in &document.reusable.functions {
        checker.task(function, &[]);
    }
    for extension in &document.reusable.extensions {
        checker.list(&extension.before);
        checker.list(&extension.after);
    }
    checker.list(&document.tasks);
}

struct Checker<'a, 'c, 'e> {
    reusable: &'a Reusable,
    cx: &'c mut Context<'e>,
}

impl Checker<'_, '_, '_> {
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
        if let (Some(Named::Use(name)), Some(place)) = (&task.timeout, task.places.timeout) {
            self.timeout(name, place);
        }
        let place = task.places.kind;
        match &task.kind {
            Kind::Call(call) => self.call(call, place),
            Kind::Raise(error) => {
                if let Named::Use(name) = &**error {
                    let known = self.reusable.errors.iter().map(|(name, _)| name.as_str());
                    self.resolve("error", "errors", name, place, known.collect());
                }
            }
            Kind::Switch(switch) => {
                for case in &switch.cases {
                    self.then(&case.then, case.place, list);
                }
            }
            Kind::Try(attempt) => {
                if let Some(Named::Use(name)) = &attempt.catch.retry {
                    let known: Vec<&str> = self
                        .reusable
                        .retries
                        .iter()
                        .map(|(name, _): &(String, Retry)| name.as_str())
                        .collect();
                    self.resolve("retry policy", "retries", name, place, known);
                }
            }
            Kind::Fork(fork) => return self.branches(&fork.branches),
            _ => {}
        }
        for (_, tasks) in task.kind.lists() {
            self.list(tasks);
        }
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
        let Then::Task(name) = then else { return };
        if list.iter().any(|task| task.name == *name) {
            return;
        }
        let known: Vec<&str> =
            list.iter().map(|task| task.name.as_str()).chain(["continue", "exit", "end"]).collect();
        let message = format!("there is no task `{}` in this list", shown(name));
        self.cx.reports.error_hint(place, message, suggest::hint(name, known));
    }

    fn timeout(&mut self, name: &str, place: Span) {
        let known = self.reusable.timeouts.iter().map(|(name, _)| name.as_str()).collect();
        self.resolve("timeout", "timeouts", name, place, known);
    }

    fn call(&mut self, call: &Call, place: Span) {
        match call {
            Call::Http(http) => self.endpoint(&http.endpoint, place),
            Call::Grpc(grpc) => {
                self.endpoint(&grpc.proto.endpoint, place);
                self.authentication(grpc.authentication.as_ref(), place);
            }
            Call::OpenApi(open) => {
                self.endpoint(&open.document.endpoint, place);
                self.authentication(open.authentication.as_ref(), place);
            }
            Call::AsyncApi(call) => {
                self.endpoint(&call.document.endpoint, place);
                self.authentication(call.authentication.as_ref(), place);
            }
            Call::A2a(agent) => {
                let card = agent.agent_card.as_ref().map(|card| &card.endpoint);
                for endpoint in card.into_iter().chain(&agent.server) {
                    self.endpoint(endpoint, place);
                }
            }
            Call::Mcp(mcp) => {
                if let McpTransport::Http { endpoint, .. } = &mcp.transport {
                    self.endpoint(endpoint, place);
                }
            }
            Call::Function(function) => self.function(&function.name, place),
        }
    }

    /// A function of the document, of a catalog, or at an address.
    fn function(&mut self, name: &str, place: Span) {
        if name.contains("://") {
            return;
        }
        if let Some((function, catalog)) = name.split_once('@') {
            if !function.contains(':') {
                let message = format!("`{}` lacks a version", shown(name));
                self.cx.reports.error_hint(
                    place,
                    message,
                    format!("write `{}:1.0.0@{}`", shown(function), shown(catalog)),
                );
            }
            if catalog != "default" {
                let known = self.reusable.catalogs.iter().map(|(name, _)| name.as_str()).collect();
                self.resolve("catalog", "catalogs", catalog, place, known);
            }
            return;
        }
        let known = self.reusable.functions.iter().map(|task| task.name.as_str());
        let protocols = ["http", "grpc", "openapi", "asyncapi", "a2a", "mcp"];
        if let Some(near) = suggest::nearest(name, protocols)
            && !known.clone().any(|known| known == name)
        {
            let message = format!("there is no function `{}` under `use.functions`", shown(name));
            self.cx.reports.error_hint(place, message, format!("did you mean `{near}`?"));
            return;
        }
        self.resolve("function", "functions", name, place, known.collect());
    }

    fn endpoint(&mut self, endpoint: &Endpoint, place: Span) {
        self.authentication(endpoint.authentication.as_ref(), place);
    }

    fn authentication(&mut self, authentication: Option<&Named<Authentication>>, place: Span) {
        if let Some(Named::Use(name)) = authentication {
            let known = self.reusable.authentications.iter().map(|(name, _)| name.as_str()).collect();
            self.resolve("authentication", "authentications", name, place, known);
        }
    }

    fn resolve(&mut self, what: &str, key: &str, name: &str, place: Span, known: Vec<&str>) {
        let is_unread = self.reusable.unread.iter().any(|(of, unread)| *of == key && unread == name);
        if !is_unread && !known.contains(&name) {
            let message = format!("there is no {what} `{}` under `use.{key}`", shown(name));
            self.cx.reports.error_hint(place, message, suggest::hint(name, known));
        }
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
