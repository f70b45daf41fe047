//! `run: shell` and `run: script`.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{ProcessAnswer, ProcessProgram, ProcessRequest, Writing};
use crate::decide::as_text;
use crate::program::{Await, Process, Runs};
use crate::run::{Problem, Standard};

/// Most of what a process said that a problem tells, in characters.
const EXCERPT_MAX: usize = 300;

pub(super) fn request(writing: &Writing<'_>, process: &Process) -> Result<ProcessRequest, Problem> {
    let program = match &process.program {
        Runs::Shell(command) => ProcessProgram::Shell(writing.text(command)?),
        Runs::Script { language, code } => ProcessProgram::from((*language, code)),
    };
    let arguments = match &process.arguments {
        Some(form) => arguments(&*writing.fill(form)?)?,
        None => Vec::new(),
    };
    let environment = match &process.environment {
        Some(form) => environment(&*writing.fill(form)?)?,
        None => Vec::new(),
    };
    let stdin = match &process.stdin {
        Some(form) => written(&*writing.fill(form)?),
        None => String::new(),
    };
    Ok(ProcessRequest { program, arguments, environment, stdin, awaited: process.awaited })
}

/// A text as it is, anything else as JSON.
pub(super) fn written(value: &Value) -> String {
    as_text(value).unwrap_or_else(|| value.to_string())
}

pub(super) fn arguments(value: &Value) -> Result<Vec<String>, Problem> {
    let wrong = || Standard::Configuration.problem("`arguments` must be a list of texts");
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => Ok(items.iter().map(written).collect()),
        // As the language's older documents have them: by name, `--name value` to the process.
        Value::Object(fields) => {
            Ok(fields.iter().flat_map(|(name, value)| [format!("--{name}"), written(value)]).collect())
        }
        _ => Err(wrong()),
    }
}

pub(super) fn environment(value: &Value) -> Result<Vec<(String, String)>, Problem> {
    let wrong = |what: &str| Standard::Configuration.problem(format!("`environment` {what}"));
    let Value::Object(fields) = value else { return Err(wrong("must be an object")) };
    fields
        .iter()
        .map(|(name, value)| {
            let value = written(value);
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return Err(wrong(&format!("cannot hold `{name}`")));
            }
            Ok((name.clone(), value))
        })
        .collect()
}

pub(super) fn answered(
    what: &str,
    result: Await,
    answer: ProcessAnswer,
    input: &Arc<Value>,
) -> Result<Arc<Value>, Problem> {
    let ProcessAnswer { code, stdout, stderr } = answer;
    // Who asks for the code wants to decide about it; for everybody else a failed process is a failed task.
    if code != 0 && !matches!(result, Await::Code | Await::All) {
        let said: String = stderr.trim().chars().take(EXCERPT_MAX).collect();
        let said = if said.is_empty() { String::new() } else { format!(": {said}") };
        return Err(Standard::Runtime.problem(format!("the {what} ended with code {code}{said}")));
    }
    let line = |text: String| Value::from(text.trim_end_matches('\n'));
    Ok(match result {
        Await::Stdout => Arc::new(line(stdout)),
        Await::Stderr => Arc::new(line(stderr)),
        Await::Code => Arc::new(code.into()),
        Await::All => Arc::new(json!({"code": code, "stdout": line(stdout), "stderr": line(stderr)})),
        Await::None => Arc::clone(input),
    })
}
