//! Files that documents name: functions of catalogs, and data in YAML or JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::document::{Document, Evaluate, Reusable};
use super::options::WorkflowOptions;
use super::task;
use super::value::{self, Input, Output};
use super::{CompileExpression, LoadedDocument, finish};
use crate::diagnostics::Diagnostics;
use crate::shape::{Context, Dialect, Shape};
use crate::source::{At, Source, Span};
use crate::yaml;

/// Checks a file that holds one function, as catalogs have it: a document whose only function is called `name`. It sees nothing of
/// who calls it: no names of its `use`.
///
/// # Errors
/// All that is wrong, warnings included.
pub fn parse_function(
    name: &str,
    text: String,
    compile: &mut CompileExpression<'_>,
) -> Result<LoadedDocument, Diagnostics> {
    let environment = BTreeMap::new();
    let mut cx = Context::of(Dialect::Workflow, &environment);
    let source = cx.reports.sources.add(Source::new(name.to_owned(), text));
    let root = yaml::parse(source, &mut cx.reports, "a function is a task: see docs/workflows.md");
    let document = root.map(|root| {
        let span = Span { source, start: 0, end: 0 };
        let function = task::task(At { value: name.to_owned(), span }, &root, &mut cx);
        let definition = match cx.reports.errors() {
            0 => value::AnyValue.decode(&root, &mut cx).unwrap_or_default(),
            _ => Value::Null,
        };
        Document {
            dsl: "1.0.3".to_owned(),
            namespace: "functions".to_owned(),
            name: name.to_owned(),
            version: "0.0.0".to_owned(),
            title: None,
            summary: None,
            tags: Map::new(),
            metadata: Map::new(),
            options: WorkflowOptions::default(),
            input: Input::default(),
            output: Output::default(),
            timeout: None,
            schedule: None,
            evaluate: Evaluate::default(),
            reusable: Reusable { functions: vec![function], ..Reusable::default() },
            tasks: Vec::new(),
            definition,
        }
    });
    finish(document, cx, compile)
}

/// Reads data in YAML or JSON.
///
/// # Errors
/// All that is wrong.
pub fn parse_data(name: &str, text: String) -> Result<Value, Diagnostics> {
    let environment = BTreeMap::new();
    let mut cx = Context::of(Dialect::Workflow, &environment);
    let source = cx.reports.sources.add(Source::new(name.to_owned(), text));
    let root = yaml::parse(source, &mut cx.reports, "it must hold data in YAML or JSON");
    let data = root.and_then(|root| value::AnyValue.decode(&root, &mut cx));
    let errors = cx.reports.errors();
    match data {
        Some(data) if errors == 0 => Ok(data),
        _ => Err(cx.reports.finish()),
    }
}
