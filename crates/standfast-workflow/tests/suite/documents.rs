//! Documents from the outside: what is right is taken, what is wrong is told with its place.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use standfast_workflow::check_document;

fn documents() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documents");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn every_key_of_the_language_is_taken() {
    let files = documents();
    assert!(files.len() >= 6, "{files:?}");
    for file in files {
        let loaded = check_document(&file).unwrap_or_else(|found| panic!("{found}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        assert!(!loaded.document.name.is_empty());
    }
}

/// One case for each paragraph of `mistakes.txt`, which begins with its name.
#[test]
fn all_mistakes_are_told_at_once_with_their_places() {
    let folder = tempfile::tempdir().unwrap();
    let text = include_str!("../mistakes.txt").strip_prefix("# ").unwrap();
    let mut told = String::new();
    for (number, case) in text.split("\n# ").enumerate() {
        let (name, body) = case.split_once('\n').unwrap_or((case, ""));
        let file = folder.path().join(format!("{number}.yaml"));
        std::fs::write(&file, body).unwrap();
        let found = match check_document(&file) {
            Ok(loaded) => loaded.warnings,
            Err(found) => found,
        };
        writeln!(told, "# {name}").unwrap();
        for one in found.iter() {
            let place = one.place.as_ref().map(|place| format!("{}:{}", place.line(), place.column()));
            write!(told, "{} {}: {}", place.unwrap_or_default(), one.severity, one.message).unwrap();
            match &one.hint {
                Some(hint) => writeln!(told, " [{hint}]").unwrap(),
                None => told.push('\n'),
            }
        }
    }
    insta::assert_snapshot!(told);
}

/// A picture of every kind of task; its text was drawn and looked at.
#[test]
fn a_document_is_drawn_as_a_flowchart() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/documents");
    for name in ["flow", "calls"] {
        let loaded = check_document(&folder.join(format!("{name}.yaml"))).unwrap();
        insta::assert_snapshot!(name, standfast_workflow::mermaid(&loaded.document));
    }
}

/// Whatever is done to a good document, it is taken or refused, and nothing panics.
#[test]
fn damaged_documents_do_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("damaged.yaml");
    for document in documents() {
        let text = std::fs::read_to_string(document).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for at in 0..lines.len() {
            let without: Vec<&str> =
                lines.iter().enumerate().filter(|(line, _)| *line != at).map(|(_, line)| *line).collect();
            let halved = &lines[at]
                [..lines[at].char_indices().nth(lines[at].chars().count() / 2).map_or(0, |(at, _)| at)];
            let cut: Vec<&str> =
                lines[..at].iter().copied().chain([halved]).chain(lines[at + 1..].iter().copied()).collect();
            for damaged in [without, cut] {
                std::fs::write(&file, damaged.join("\n")).unwrap();
                if let Err(found) = check_document(&file) {
                    assert!(found.has_errors(), "refused without a reason");
                }
            }
        }
    }
}

#[test]
fn what_is_no_document_is_told_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let told = |path: &Path| check_document(path).unwrap_err().to_string();
    assert!(told(&folder.path().join("nobody.yaml")).contains("there is no such file"));
    assert!(told(folder.path()).contains("it is not a file"));
    let binary = folder.path().join("binary.yaml");
    std::fs::write(&binary, [0xff, 0xfe]).unwrap();
    assert!(told(&binary).contains("is not UTF-8"));
    let long = folder.path().join("long.yaml");
    std::fs::write(&long, vec![b'a'; 2 << 20]).unwrap();
    assert!(told(&long).contains("larger than"));
    let deep = folder.path().join("deep.yaml");
    std::fs::write(&deep, format!("do: {}", "[".repeat(100_000))).unwrap();
    assert!(check_document(&deep).is_err());
}
