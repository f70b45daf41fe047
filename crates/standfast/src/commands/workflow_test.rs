//! `workflow test`: documents on faked time, with recorded answers.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use standfast_model::Stamp;
use standfast_model::workflow::{TestCase, TestFile, TestSchedule, load_tests};
use standfast_runtime::Clock;
use standfast_workflow::{BadDefinition, Definition, Evaluator, FolderAndNetwork, Mismatch, rehearse};

use super::Call;
use super::workflow::is_test;
use super::workflow_run::evaluator;
use crate::args::WorkflowTestArgs;
use crate::exit;
use crate::failure::Failure;
use crate::output::Paint;

/// Tries all cases of all files.
pub(super) fn test(args: &WorkflowTestArgs, call: &Call) -> Result<u8, Failure> {
    let mut files = Vec::new();
    for path in &args.paths {
        files.extend(tests_in(path)?);
    }
    let evaluator = evaluator(call);
    let (mut tried, mut failed, mut answers) = (0, 0, Vec::new());
    for file in &files {
        let (tests, definition) = load(file, call)?;
        let is_meant = |name: &str| args.case.as_ref().is_none_or(|wanted| name.contains(wanted.as_str()));
        let schedule = tests.schedule.iter().map(|schedule| ("schedule", Tried::Schedule(schedule)));
        let cases = tests.cases.iter().map(|(name, case)| (name.as_str(), Tried::Case(case)));
        for (name, tried_now) in schedule.chain(cases).filter(|(name, _)| is_meant(name)) {
            let outcome = match tried_now {
                Tried::Schedule(schedule) => try_schedule(&definition, schedule),
                Tried::Case(case) => try_one(&definition, case, &evaluator),
            };
            tried += 1;
            failed += usize::from(!outcome.mismatches.is_empty());
            if args.json {
                answers.push(outcome.to_json(file, name));
            } else {
                outcome.print(file, name, call)?;
            }
        }
    }
    if args.json {
        call.output.json(&json!({"version": 1, "tried": tried, "failed": failed, "cases": answers}))?;
    }
    let cases = |count: usize| if count == 1 { "1 case".to_owned() } else { format!("{count} cases") };
    match (tried, failed) {
        (0, _) => {
            let hint = "see what there is: standfast workflow test --json";
            Err(Failure::input("no case has such a name").hint(hint))
        }
        (_, 0) => {
            call.output.note(format!("{}, all as expected", cases(tried)));
            Ok(exit::DONE)
        }
        _ => {
            call.output.note(format!("{failed} of {} not as expected", cases(tried)));
            Ok(exit::UNDER_TEST)
        }
    }
}

/// What is tried of a file.
enum Tried<'t> {
    Schedule(&'t TestSchedule),
    Case(&'t TestCase),
}

#[derive(Default)]
struct Outcome {
    mismatches: Vec<Mismatch>,
    steps: usize,
    took: std::time::Duration,
    ran: Vec<String>,
    asked: Vec<Value>,
    output: Option<Value>,
    status: &'static str,
}

fn try_one(definition: &Definition, case: &TestCase, evaluator: &Evaluator) -> Outcome {
    let rehearsed = rehearse(&definition.program, case, evaluator);
    let ran = rehearsed.ran();
    Outcome {
        mismatches: rehearsed.compare(&case.expect),
        steps: ran.len(),
        took: rehearsed.took(),
        ran,
        asked: rehearsed.asked.clone(),
        output: rehearsed.run.output.as_deref().cloned(),
        status: rehearsed.run.status.word(),
    }
}

/// Whether runs are due when they should be.
fn try_schedule(definition: &Definition, expected: &TestSchedule) -> Outcome {
    let program = &definition.program;
    let found = program.next_due(expected.after, expected.due.len());
    let shown = |all: &[Stamp]| match all {
        [] => "never".to_owned(),
        _ => all.iter().map(|at| program.shown_there(*at)).collect::<Vec<_>>().join(", "),
    };
    let mut outcome = Outcome { status: "completed", ..Outcome::default() };
    if found != expected.due {
        let what = format!("due after {}", program.shown_there(expected.after));
        outcome.mismatches.push(Mismatch { what, expected: shown(&expected.due), found: shown(&found) });
    }
    outcome
}

impl Outcome {
    fn print(&self, file: &Path, name: &str, call: &Call) -> Result<(), Failure> {
        let tasks = if self.steps == 1 { "1 task".to_owned() } else { format!("{} tasks", self.steps) };
        let took = super::workflow_text::shown_time(self.took);
        let (paint, word) = match self.mismatches.is_empty() {
            true => (Paint::Good, "ok"),
            false => (Paint::Bad, "failed"),
        };
        let word = call.output.paint_data(paint, word);
        let mut text = format!("{word} {}: {name} ({tasks}, {took} of its time)\n", file.display());
        for mismatch in &self.mismatches {
            let Mismatch { what, expected, found } = mismatch;
            text.push_str(&format!("     {what}\n       expected {expected}\n       found    {found}\n"));
        }
        if !self.mismatches.is_empty() && !self.ran.is_empty() {
            text.push_str(&format!("     ran {}\n", self.ran.join(", ")));
        }
        call.output.data(&text)
    }

    fn to_json(&self, file: &Path, name: &str) -> Value {
        let mismatches: Vec<Value> = self
            .mismatches
            .iter()
            .map(|found| json!({"what": found.what, "expected": found.expected, "found": found.found}))
            .collect();
        json!({
            "file": file.to_string_lossy(),
            "name": name,
            "ok": self.mismatches.is_empty(),
            "status": self.status,
            "output": self.output,
            "tookMs": self.took.as_millis() as u64,
            "ran": self.ran,
            "asked": self.asked,
            "mismatches": mismatches,
        })
    }
}

fn load(file: &Path, call: &Call) -> Result<(TestFile, Definition), Failure> {
    let tests = load_tests(file).map_err(|found| {
        Failure::input(format!("{} is no file of tests", file.display())).detail(call.rendered(&found))
    })?;
    let document = file.parent().unwrap_or(Path::new("")).join(&tests.workflow);
    Ok((tests, definition(&document, call)?))
}

/// Reads a document and makes a program of it.
pub(super) fn definition(file: &Path, call: &Call) -> Result<Definition, Failure> {
    let text = std::fs::read_to_string(file).map_err(|why| {
        let hint = "name a document of the Open Workflow DSL: standfast workflow check FILE";
        Failure::input(format!("cannot read {}", file.display())).because(&why).hint(hint)
    })?;
    check(file, &text, call)
}

/// Makes a program of a document's text.
pub(super) fn check(file: &Path, text: &str, call: &Call) -> Result<Definition, Failure> {
    let folder = file.parent().map(|folder| call.surroundings.working_dir.join(folder));
    let reader = FolderAndNetwork::new(folder, Clock::system());
    let name = file.to_string_lossy();
    let read = call.block_on(async { Ok(Definition::read(&name, text, &reader).await) })?;
    read.map_err(|why| match why {
        BadDefinition::Wrong(found) => {
            Failure::input(format!("{} cannot be run", file.display())).detail(call.rendered(&found))
        }
        other => {
            let hint = "docs/workflows.md says what can be run so far";
            Failure::input(format!("{} cannot be run", file.display())).because(&other).hint(hint)
        }
    })
}

fn tests_in(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = |error| Failure::input(format!("cannot read {}", path.display())).because(&error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        files.push(entry.map_err(unreadable)?.path());
    }
    files.retain(|file| is_test(file) && !file.is_dir());
    files.sort();
    if files.is_empty() {
        let hint = "call a file of tests like `checkout.test.yaml`: docs/workflows.md has an example";
        return Err(Failure::input(format!("there are no tests in {}", path.display())).hint(hint));
    }
    Ok(files)
}
