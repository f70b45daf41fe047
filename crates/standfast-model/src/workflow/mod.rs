//! Workflow documents: the Open Workflow DSL 1.0.3 of the CNCF (<https://github.com/open-workflow-specification/specification>,
//! until 2026 the Serverless Workflow DSL), a text in, a checked [`Document`] or all that is wrong with it out.
//!
//! `document` and `task` describe the keys (with the means of `shape`) and say what they become, one file for each
//! kind of task; `value` has what they share; `check` resolves names: where `then` goes, and what of `use` is meant. Expressions
//! are found here and compiled by the caller, which is asked whether each can be.

mod auth;
mod cases;
mod check;
mod document;
mod event;
mod limits;
mod options;
mod outside;
mod period;
mod policy;
mod schedule;
mod task;
mod value;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

pub use auth::{
    Authentication, ClientAuthentication, Credentials, Grant, OAuth2, OAuth2Client, OAuth2Endpoints, Token,
    TokenRequest, UserPassword,
};
pub use cases::{Expected, Prepared, TestAnswer, TestCase, TestEvent, TestFile, TestSchedule, load_tests};
pub use document::{Document, Evaluate, Extended, Extension, Mode, Reusable, Schedule};
pub use event::{Correlation, EventFilter, Events, ForEachEvent, SIGNAL_TYPE, Until};
pub use limits::{ConcurrencyLimit, StartRate};
pub use options::{
    Failures, HumanTask, Parallel, STEP_KEY_BYTES_MAX, TaskOptions, WorkflowOptions, bad_step_key,
};
pub use outside::{parse_data, parse_function};
pub use period::{Delay, Period};
pub use policy::{Attempts, Backoff, Jitter, Retry, Timeout};
pub use schedule::{CATCH_UP_MIN, CatchUp, JITTER_MAX, Overlap, ScheduleOptions, TimeZoneName};
pub use task::{
    A2a, AgentMethod, AsyncApi, AsyncOperation, Await, Call, Case, Catch, Cleanup, Consume, Container, Emit,
    ErrorDefinition, ErrorFilter, For, Fork, Function, Grpc, Http, HttpOutput, Kind, Lifetime, Listen, Mcp,
    McpMethod, McpTransport, Message, OpenApi, PullPolicy, Read, Run, RunKind, Script, ScriptSource, Shell,
    Subflow, Subscription, Switch, Task, Then, Try,
};
pub use value::{
    Data, Endpoint, Expression, Input, Named, Output, Resource, Schema, SchemaSource, Template, Uri,
};

use crate::diagnostics::{Diagnostic, Diagnostics, Place, Severity, shown};
use crate::files::{Disk, FILE_BYTES_MAX, Files};
use crate::load::{not_text, unreadable};
use crate::shape::{Context, Dialect, Shape};
use crate::source::Source;
use crate::{suggest, yaml};

/// What to do when there is no document.
const NO_DOCUMENT: &str = "name a document, or a folder of documents: standfast workflow check FILE";

/// A checked document, and what its writer should know about it.
#[derive(Debug, Clone)]
pub struct LoadedDocument {
    /// The document.
    pub document: Document,
    /// Warnings only.
    pub warnings: Diagnostics,
    /// The secrets that it counts on, and where it says so.
    secrets: Vec<(String, Option<Place>)>,
}

impl LoadedDocument {
    /// One error for each secret that the document counts on and that is not among those that `known` has.
    pub fn missing_secrets(&self, known: &BTreeSet<&str>) -> Diagnostics {
        let missing = self.secrets.iter().filter(|(name, _)| !known.contains(name.as_str()));
        let items = missing.map(|(name, place)| Diagnostic {
            severity: Severity::Error,
            message: format!("there is no secret `{}`", shown(name)),
            hint: Some(match suggest::nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!(
                    "a stack has it in standfast.yaml, `secrets: {{{0}: {{file: FILE}}}}`; `workflow run` takes `--secret {0}=@FILE`",
                    shown(name)
                ),
            }),
            place: place.clone(),
        });
        Diagnostics { items: items.collect(), omitted: 0 }
    }
}

/// Why an expression cannot be compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadExpression {
    /// What is wrong, as the end of a sentence: "expected `then`".
    pub message: String,
    /// Where in the expression, a byte offset.
    pub at: usize,
}

/// Says whether an expression can be compiled where these variables are known (without their `$`).
pub type CompileExpression<'a> = dyn FnMut(&Expression, &[String]) -> Result<(), BadExpression> + 'a;

/// Reads and checks a file.
///
/// # Errors
/// All that is wrong, warnings included.
pub fn load_document(
    file: &Path,
    compile: &mut CompileExpression<'_>,
) -> Result<LoadedDocument, Diagnostics> {
    let bytes = Disk.read(file, FILE_BYTES_MAX).map_err(|why| unreadable(file, &why, NO_DOCUMENT))?;
    let text = String::from_utf8(bytes).map_err(|why| not_text(file, &why))?;
    parse_document(&file.to_string_lossy(), text, compile)
}

/// Checks a text; `name` is what diagnostics call it.
///
/// # Errors
/// All that is wrong, warnings included.
pub fn parse_document(
    name: &str,
    text: String,
    compile: &mut CompileExpression<'_>,
) -> Result<LoadedDocument, Diagnostics> {
    let environment = BTreeMap::new();
    let mut cx = Context::of(Dialect::Workflow, &environment);
    let source = cx.reports.sources.add(Source::new(name.to_owned(), text));
    let root =
        yaml::parse(source, &mut cx.reports, "a workflow has `document` and `do`: see docs/workflows.md");
    let mut document = root.as_ref().and_then(|root| document::DOCUMENT.decode(root, &mut cx));
    if let (Some(document), Some(root), 0) = (&mut document, &root, cx.reports.errors()) {
        document.definition = value::AnyValue.decode(root, &mut cx).unwrap_or_default();
    }
    finish(document, cx, compile)
}

/// Checks what was decoded.
fn finish(
    document: Option<Document>,
    mut cx: Context<'_>,
    compile: &mut CompileExpression<'_>,
) -> Result<LoadedDocument, Diagnostics> {
    if let Some(document) = &document {
        check::check(document, &mut cx);
    }
    let variables = document.as_ref().map(check::variables).unwrap_or_default();
    for found in std::mem::take(&mut cx.expressions) {
        if document.is_none() {
            break; // The variables are not known.
        }
        let known = found.named.map(|named| check::known_where(&named));
        if let Err(bad) = compile(&found.expression, known.as_ref().unwrap_or(&variables)) {
            let place = cx.within_text(found.span, found.expression.text(), bad.at);
            let is_elsewhere = |name: &&String| bad.message == format!("there is no variable `${name}`");
            if let Some(name) = variables.iter().find(is_elsewhere) {
                let hint = "it is known only within the `for`, `catch` or `foreach` that names it";
                cx.reports.error_hint(place, format!("`${name}` is not known here"), hint);
            } else {
                cx.reports.error(place, format!("this is not a jq expression: {}", bad.message));
            }
        }
    }
    let has_errors = cx.reports.errors() > 0;
    let secrets = std::mem::take(&mut cx.secrets).into_iter();
    let secrets = secrets.map(|at| (at.value, cx.reports.place(at.span))).collect();
    let diagnostics = cx.reports.finish();
    match document {
        Some(document) if !has_errors => Ok(LoadedDocument { document, warnings: diagnostics, secrets }),
        _ => Err(diagnostics),
    }
}
