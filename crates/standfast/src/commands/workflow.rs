//! `workflow check` and `workflow render`: what can be said of documents without running them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use serde_json::json;
use standfast_model::Diagnostics;
use standfast_workflow::{check_document, mermaid};

use super::Call;
use crate::args::{WorkflowArgs, WorkflowCheckArgs, WorkflowCommand, WorkflowRenderArgs};
use crate::exit;
use crate::failure::Failure;
use crate::output::Paint;

/// One of the commands about workflows.
pub(crate) fn workflow(args: &WorkflowArgs, call: &Call) -> Result<u8, Failure> {
    match &args.command {
        WorkflowCommand::Check(args) => check(args, call),
        WorkflowCommand::Render(args) => render(args, call),
        WorkflowCommand::Run(args) => super::workflow_run::run(args, call),
        WorkflowCommand::Start(args) => super::workflow_live::start(args, call),
        WorkflowCommand::Stuck(args) => super::workflow_list::stuck(args, call),
        WorkflowCommand::Schedules(args) => super::workflow_list::schedules(args, call),
        WorkflowCommand::List(args) => super::workflow_list::list(args, call),
        WorkflowCommand::Show(args) => super::workflow_live::show(args, call),
        WorkflowCommand::Cancel(args) => super::workflow_live::change(args, "cancel", call),
        WorkflowCommand::Hold(args) => super::workflow_live::change(args, "hold", call),
        WorkflowCommand::Resume(args) => super::workflow_live::change(args, "resume", call),
        WorkflowCommand::Retry(args) => super::workflow_live::retry(args, call),
        WorkflowCommand::Redo(args) => super::workflow_live::redo(args, call),
        WorkflowCommand::Migrate(args) => super::workflow_migrate::migrate(args, call),
        WorkflowCommand::Event(args) => super::workflow_live::event(args, call),
        WorkflowCommand::Signal(args) => super::workflow_live::signal(args, call),
        WorkflowCommand::Query(args) => super::workflow_live::query(args, call),
        WorkflowCommand::Test(args) => super::workflow_test::test(args, call),
    }
}

fn check(args: &WorkflowCheckArgs, call: &Call) -> Result<u8, Failure> {
    let mut files = Vec::new();
    for path in &args.paths {
        files.extend(documents(path)?);
    }
    let mut answers = Vec::new();
    let (mut errors, mut wrong) = (0, 0);
    for file in &files {
        let (document, found) = match check_document(file) {
            Ok(loaded) => match super::workflow_secrets::missing_beside(file, &loaded, call) {
                missing if missing.is_empty() => (Some(loaded.document), loaded.warnings),
                missing => (None, missing.and(loaded.warnings)),
            },
            Err(found) => (None, found),
        };
        errors += count(&found);
        wrong += usize::from(document.is_none());
        if args.json {
            answers.push(json!({
                "file": file.to_string_lossy(),
                "valid": document.is_some(),
                "namespace": document.as_ref().map(|document| &document.namespace),
                "name": document.as_ref().map(|document| &document.name),
                "version": document.as_ref().map(|document| &document.version),
                "tasks": document.as_ref().map(|document| document.task_count()),
                "diagnostics": found.to_json(),
            }));
            continue;
        }
        if !found.is_empty() {
            call.output.note(call.rendered(&found).trim_end());
        }
        if let Some(document) = document {
            call.output.data(&format!(
                "{} {}: {} {} {}, {} tasks\n",
                call.output.paint_data(Paint::Good, "ok"),
                file.display(),
                document.namespace,
                document.name,
                document.version,
                document.task_count(),
            ))?;
        }
    }
    if args.json {
        let answer = json!({"version": 1, "valid": wrong == 0, "files": answers});
        call.output.json(&answer)?;
        return Ok(if wrong == 0 { exit::DONE } else { exit::INPUT });
    }
    if wrong == 0 {
        return Ok(exit::DONE);
    }
    let number = |count, one: &str| if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") };
    Err(Failure::input(format!("{} in {}", number(errors, "error"), number(wrong, "document"))))
}

fn render(args: &WorkflowRenderArgs, call: &Call) -> Result<u8, Failure> {
    match check_document(&args.file) {
        Ok(loaded) => {
            call.output.data(&mermaid(&loaded.document))?;
            Ok(exit::DONE)
        }
        Err(found) => {
            let hint = format!("mend it first: standfast workflow check {}", args.file.display());
            Err(Failure::input("the document cannot be drawn").detail(call.rendered(&found)).hint(hint))
        }
    }
}

fn count(found: &Diagnostics) -> usize {
    let shown = found.iter().filter(|one| one.severity == standfast_model::Severity::Error).count();
    shown + if shown > 0 { found.omitted() } else { 0 }
}

/// Whether a file is called like one of tests.
pub(super) fn is_test(path: &Path) -> bool {
    let name = path.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    [".test.yaml", ".test.yml", ".test.json"].iter().any(|ending| name.ends_with(ending))
}

/// The documents that a path stands for, in the order of their names. What is called like one and cannot be read is told of when
/// it is checked.
fn documents(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let unreadable = |error| Failure::input(format!("cannot read {}", path.display())).because(&error);
    let is_document = |path: &Path| {
        ["yaml", "yml", "json"].iter().any(|ending| path.extension() == Some(OsStr::new(ending)))
            && !path.is_dir()
            && !is_test(path)
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        files.push(entry.map_err(unreadable)?.path());
    }
    files.retain(|file| is_document(file));
    files.sort();
    if files.is_empty() {
        let hint = "a workflow is a .yaml, .yml or .json file: standfast workflow check FILE";
        return Err(Failure::input(format!("there is no workflow in {}", path.display())).hint(hint));
    }
    Ok(files)
}
