//! `try`: tasks, and what is done when they fail.

use super::{Kind, TASKS, Task, object};
use crate::shape::{Fields, Object, Whole};
use crate::workflow::policy::{Retry, retry};
use crate::workflow::value::{Condition, Expression, NAME, Named, Template, TextTemplate};

/// Tasks, and what is done when they fail.
#[derive(Debug, Clone, PartialEq)]
pub struct Try {
    /// The tasks.
    pub tasks: Vec<Task>,
    /// What is done when they fail.
    pub catch: Catch,
}

/// What is done when tasks fail.
#[derive(Debug, Clone, PartialEq)]
pub struct Catch {
    /// Only for these errors.
    pub errors: ErrorFilter,
    /// The error's variable; `error` by default.
    pub variable: String,
    /// Only if this yields true.
    pub when: Option<Expression>,
    /// Only if this does not yield true.
    pub except_when: Option<Expression>,
    /// When they are tried again.
    pub retry: Option<Named<Retry>>,
    /// Tasks for when they are not, or not any more.
    pub tasks: Vec<Task>,
}

/// Which errors are caught: those with all of these.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ErrorFilter {
    /// The kind; of the standard ones the last segment counts.
    pub kind: Option<Template>,
    /// The status.
    pub status: Option<u16>,
    /// Where it arose.
    pub instance: Option<Template>,
    /// What its kind means.
    pub title: Option<Template>,
    /// What happened.
    pub detail: Option<Template>,
}

pub(super) fn read(f: &mut Fields<'_, '_>) -> Option<Kind> {
    let tasks = f.required("try", "The tasks.", TASKS);
    let catch = f.required("catch", "What is done when they fail.", CATCH);
    Some(Kind::Try(Box::new(Try { tasks: tasks?, catch: catch? })))
}

const CATCH: Object<Catch> = object("What is done when tasks fail.", |f| {
    const ERRORS: Object<ErrorFilter> =
        object("Which errors.", |f| f.optional("with", "All of these.", FILTER));
    let variable = f.or("as", "The error's variable.", NAME, "error".to_owned());
    let catch = f.naming(&[&variable], |f| Catch {
        errors: f.optional("errors", "Only for these errors.", ERRORS).unwrap_or_default(),
        variable: variable.clone(),
        when: f.optional("when", "Only if this yields true.", Condition),
        except_when: f.optional("exceptWhen", "Only if this does not yield true.", Condition),
        retry: f.optional("retry", "When they are tried again.", retry()),
        tasks: f.optional("do", "Tasks for when they are not.", TASKS).unwrap_or_default(),
    });
    Some(catch)
});

const FILTER: Object<ErrorFilter> = object("Which errors.", |f| {
    let kind = f.optional("type", "The kind.", TextTemplate);
    let status = f.optional("status", "The status.", Whole { min: 100, max: 599 });
    let instance = f.optional("instance", "Where it arose.", TextTemplate);
    let title = f.optional("title", "What its kind means.", TextTemplate);
    let details = f.optional("details", "What happened.", TextTemplate);
    let detail = f.optional("detail", "The same, as errors themselves have it.", TextTemplate);
    let status = status.and_then(|status| u16::try_from(status).ok());
    Some(ErrorFilter { kind, status, instance, title, detail: details.or(detail) })
});
