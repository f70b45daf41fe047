//! Documents and what must come of them, on faked time: every folder of `tests/scenarios`.

use std::path::{Path, PathBuf};

use standfast_model::workflow::load_tests;
use standfast_runtime::Clock;
use standfast_workflow::{Definition, FolderAndNetwork, rehearse};

use super::rig::{evaluator, told};

/// How many cases there must be at least: a folder that is not found would pass otherwise.
const CASES_MIN: usize = 150;

#[test]
fn every_scenario_comes_out_as_it_must() {
    let (mut cases, mut failures) = (0, Vec::new());
    for file in test_files(&folder()) {
        if file.parent().is_some_and(|folder| folder.ends_with("conformance")) {
            continue; // these are a test of their own
        }
        let played = play(&file);
        cases += played.cases;
        failures.extend(played.failures);
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(cases >= CASES_MIN, "only {cases} cases were found");
}

#[test]
fn every_example_comes_out_as_its_tests_say() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut cases = 0;
    for name in ["limits", "shop", "trip"] {
        for file in test_files(&examples.join(name).join("workflows")) {
            let played = play(&file);
            cases += played.cases;
            assert!(played.failures.is_empty(), "{}", played.failures.join("\n"));
        }
    }
    assert!(cases >= 10, "only {cases} cases were found");
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

/// All files of tests below a folder, in their order.
pub(crate) fn test_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(test_files(&path));
        } else if path.to_string_lossy().ends_with(".test.yaml") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// What came of the cases of a file.
#[derive(Debug)]
pub(crate) struct Played {
    pub(crate) cases: usize,
    pub(crate) failures: Vec<String>,
}

pub(crate) fn play(file: &Path) -> Played {
    let name = file.strip_prefix(folder()).unwrap_or(file).display().to_string();
    let tests = match load_tests(file) {
        Ok(tests) => tests,
        Err(found) => return Played { cases: 0, failures: vec![format!("{name}: {found}")] },
    };
    let document = file.with_file_name(&tests.workflow);
    let text = std::fs::read_to_string(&document).unwrap();
    let folder = document.parent().map(Path::to_owned);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let reader = FolderAndNetwork::new(folder, Clock::system());
    let definition = match runtime.block_on(Definition::read(&document.to_string_lossy(), &text, &reader)) {
        Ok(definition) => definition,
        Err(why) => return Played { cases: 0, failures: vec![format!("{name}: {}", told(why))] },
    };
    let mut failures = Vec::new();
    for (title, case) in &tests.cases {
        let rehearsed = rehearse(&definition.program, case, &evaluator());
        for mismatch in rehearsed.compare(&case.expect) {
            let (what, expected, found) = (mismatch.what, mismatch.expected, mismatch.found);
            failures.push(format!("{name}: {title}: {what}\n  expected {expected}\n  found    {found}"));
        }
    }
    Played { cases: tests.cases.len(), failures }
}
