//! Files of tests: what a workflow is given, what is answered, and what must come of it.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::event::ANY_KEY;
use super::period::{Period, period};
use super::value::{AnyValue, NAME, TEXT, open_object};
use crate::Stamp;
use crate::diagnostics::Diagnostics;
use crate::files::{Disk, FILE_BYTES_MAX, Files};
use crate::load::{not_text, unreadable};
use crate::shape::{Choice, Context, Count, Dialect, Fields, FromText, Keyed, List, Object, Shape, Whole};
use crate::source::Source;
use crate::stamp::BadStamp;
use crate::yaml;

/// Tests of a workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct TestFile {
    /// The document, relative to this file.
    pub workflow: String,
    /// What is tried, by name, in order.
    pub cases: Vec<(String, TestCase)>,
    /// When runs are due.
    pub schedule: Option<TestSchedule>,
}

/// When runs of a schedule are due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestSchedule {
    /// From when on it is looked.
    pub after: Stamp,
    /// The times that follow, all of them up to the last one named.
    pub due: Vec<Stamp>,
}

/// One test.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TestCase {
    /// What the run is given.
    pub input: Value,
    /// What `$secrets` is.
    pub secrets: Map<String, Value>,
    /// What is answered to tasks that ask something outside.
    pub answers: Vec<TestAnswer>,
    /// Events that come in.
    pub events: Vec<TestEvent>,
    /// What must come of it.
    pub expect: Expected,
}

/// What is answered to a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TestAnswer {
    /// The task, by name or by its place in the document.
    pub task: String,
    /// How long the answer takes.
    pub after: Period,
    /// The answer.
    pub answer: Prepared,
}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Prepared {
    /// By HTTP.
    Http {
        /// The status.
        status: u16,
        /// Header fields.
        headers: Map<String, Value>,
        /// The body: a text as it is, anything else as JSON.
        body: Value,
    },
    /// By a process.
    Process {
        /// Its exit code.
        code: i32,
        /// What it wrote to its standard output.
        stdout: String,
        /// What it wrote to its standard error.
        stderr: String,
    },
    /// By whatever it was: what the task makes of it.
    Output(Value),
    /// It failed by this.
    Error(Map<String, Value>),
}

/// An event that comes in.
#[derive(Debug, Clone, PartialEq)]
pub struct TestEvent {
    /// How long after the start.
    pub after: Period,
    /// The event, as `CloudEvents` has it.
    pub event: Map<String, Value>,
}

/// What must come of a run. What is not said may be anything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Expected {
    /// How it ends.
    pub status: Option<String>,
    /// What it yields.
    pub output: Option<Value>,
    /// What it fails by: these fields of the error.
    pub error: Option<Map<String, Value>>,
    /// The names of the tasks that were done, in this order.
    pub ran: Option<Vec<String>>,
    /// The names of the tasks that were undone, in this order.
    pub undone: Option<Vec<String>>,
    /// What was asked outside, in this order: these fields of each.
    pub asked: Option<Vec<Map<String, Value>>>,
    /// Events that were published, in this order: these fields of each.
    pub emitted: Option<Vec<Map<String, Value>>>,
    /// How long it took.
    pub took: Option<Period>,
}

/// Reads a file of tests.
///
/// # Errors
/// All that is wrong.
pub fn load_tests(file: &Path) -> Result<TestFile, Diagnostics> {
    const NO_FILE: &str = "name a file of tests: standfast workflow test checkout.test.yaml";
    let bytes = Disk.read(file, FILE_BYTES_MAX).map_err(|why| unreadable(file, &why, NO_FILE))?;
    let text = String::from_utf8(bytes).map_err(|why| not_text(file, &why))?;
    let environment = std::collections::BTreeMap::new();
    let mut cx = Context::of(Dialect::Workflow, &environment);
    let source = cx.reports.sources.add(Source::new(file.to_string_lossy().into_owned(), text));
    let hint = "a file of tests has `workflow` and `cases`: see docs/workflows.md";
    let root = yaml::parse(source, &mut cx.reports, hint);
    let tests = root.and_then(|root| TESTS.decode(&root, &mut cx));
    let has_errors = cx.reports.errors() > 0;
    let diagnostics = cx.reports.finish();
    match tests {
        Some(tests) if !has_errors => Ok(tests),
        _ => Err(diagnostics),
    }
}

const TESTS: Object<TestFile> = Object {
    doc: "Tests of a workflow.",
    read: |f: &mut Fields<'_, '_>| {
        let workflow = f.required("workflow", "The document, relative to this file.", NAME);
        let cases = f.optional("cases", "What is tried.", Keyed { keys: ANY_KEY, item: CASE, min: 1 });
        let schedule = f.optional("schedule", "When runs are due.", SCHEDULE);
        f.count(Count::Some, &["cases", "schedule"]);
        let cases =
            cases.unwrap_or_default().into_iter().filter_map(|(name, case)| Some((name.value, case?)));
        Some(TestFile { workflow: workflow?, cases: cases.collect(), schedule })
    },
};

const SCHEDULE: Object<TestSchedule> = Object {
    doc: "When runs of a schedule are due.",
    read: |f: &mut Fields<'_, '_>| {
        let after = f.required("after", "From when on it is looked.", Time);
        let due = f.required("due", "The times that follow.", List { item: Time, min: 1 });
        Some(TestSchedule { after: after?, due: due? })
    },
};

/// An instant.
struct Time;

impl FromText for Time {
    type Value = Stamp;

    fn parse(&self, text: &str) -> Result<Stamp, Option<String>> {
        text.parse().map_err(|why: BadStamp| Some(why.to_string()))
    }

    fn expected(&self) -> String {
        "a time: `2026-03-29T03:00:00+02:00`".to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"type": "string", "format": "date-time"})
    }
}

const CASE: Object<TestCase> = Object {
    doc: "A test.",
    read: |f: &mut Fields<'_, '_>| {
        let input = f.optional("input", "What the run is given.", AnyValue).unwrap_or_default();
        let secrets = f.optional("secrets", "What `$secrets` is.", open_object()).unwrap_or_default();
        let answers = f.optional("answers", "What is answered.", List { item: ANSWER, min: 0 });
        let events = f.optional("events", "Events that come in.", List { item: EVENT, min: 0 });
        let expect = f.required("expect", "What must come of it.", EXPECT);
        Some(TestCase {
            input,
            secrets,
            answers: answers.unwrap_or_default(),
            events: events.unwrap_or_default(),
            expect: expect?,
        })
    },
};

const ANSWER: Object<TestAnswer> = Object {
    doc: "What is answered to a task.",
    read: |f: &mut Fields<'_, '_>| {
        let task = f.required("task", "The task, by name or place.", NAME);
        let after = f.optional("after", "How long it takes.", period()).unwrap_or_default();
        let http = f.optional("http", "An answer by HTTP.", HTTP);
        let process = f.optional("process", "How a process ended.", PROCESS);
        let output = f.optional("output", "What the task makes of it.", AnyValue).map(Prepared::Output);
        let error = f.optional("error", "What it failed by.", open_object()).map(Prepared::Error);
        f.count(Count::One, &["http", "process", "output", "error"]);
        let answer = http.or(process).or(output).or(error);
        Some(TestAnswer { task: task?, after, answer: answer? })
    },
};

const HTTP: Object<Prepared> = Object {
    doc: "An answer by HTTP.",
    read: |f: &mut Fields<'_, '_>| {
        let status = f.or("status", "The status.", Whole { min: 100, max: 599 }, 200);
        let headers = f.optional("headers", "Header fields.", open_object()).unwrap_or_default();
        let body = f.optional("body", "A text as it is, anything else as JSON.", AnyValue);
        let status = u16::try_from(status).ok()?;
        Some(Prepared::Http { status, headers, body: body.unwrap_or_default() })
    },
};

const PROCESS: Object<Prepared> = Object {
    doc: "How a process ended.",
    read: |f: &mut Fields<'_, '_>| {
        let code = f.or("code", "Its exit code.", Whole { min: 0, max: 255 }, 0);
        let stdout = f.optional("stdout", "What it wrote.", TEXT).unwrap_or_default();
        let stderr = f.optional("stderr", "What it wrote as errors.", TEXT).unwrap_or_default();
        Some(Prepared::Process { code: i32::try_from(code).ok()?, stdout, stderr })
    },
};

const EVENT: Object<TestEvent> = Object {
    doc: "An event that comes in.",
    read: |f: &mut Fields<'_, '_>| {
        let after = f.optional("after", "How long after the start.", period()).unwrap_or_default();
        let event = f.required("event", "The event, as CloudEvents has it.", open_object());
        Some(TestEvent { after, event: event? })
    },
};

const EXPECT: Object<Expected> = Object {
    doc: "What must come of it.",
    read: |f: &mut Fields<'_, '_>| {
        const STATUS: Choice<&str> = Choice(&[
            ("completed", "completed"),
            ("faulted", "faulted"),
            ("cancelled", "cancelled"),
            ("waiting", "waiting"),
            ("running", "running"),
        ]);
        let status = f.optional("status", "How it ends.", STATUS).map(str::to_owned);
        let output = f.optional("output", "What it yields.", AnyValue);
        let error = f.optional("error", "What it fails by.", open_object());
        let ran = f.optional("ran", "The tasks that were done, in order.", List { item: NAME, min: 0 });
        let undone =
            f.optional("undone", "The tasks that were undone, in order.", List { item: NAME, min: 0 });
        let asked = f.optional("asked", "What was asked outside.", List { item: open_object(), min: 0 });
        let emitted =
            f.optional("emitted", "Events that were published.", List { item: open_object(), min: 0 });
        let took = f.optional("took", "How long it took.", period());
        Some(Expected { status, output, error, ran, undone, asked, emitted, took })
    },
};
