//! What a user meets: good stacks, every mistake with its place, and inputs that are meant to hurt.

mod hostile;
mod load;
mod mistakes;
mod reference;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use standfast_model::{Diagnostics, Loaded};

/// Checks a text in a folder `/stack` with no other files and no environment.
fn parse(text: &str) -> Result<Loaded, Diagnostics> {
    parse_with(text, &[], &[])
}

fn parse_with(text: &str, files: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Loaded, Diagnostics> {
    let root = Path::new("/stack");
    let files: BTreeMap<PathBuf, String> =
        files.iter().map(|(path, text)| (root.join(path), (*text).to_owned())).collect();
    let variables: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    standfast_model::parse(text, root, &files, &variables)
}

/// `line:column message (hint)` for each.
fn brief(found: &Diagnostics) -> Vec<String> {
    let one = |item: &standfast_model::Diagnostic| {
        let place = item.place.as_ref().map_or_else(String::new, |place| {
            let file =
                if place.file() == "standfast.yaml" { String::new() } else { format!("{}:", place.file()) };
            format!("{file}{}:{} ", place.line(), place.column())
        });
        let kind = if item.severity == standfast_model::Severity::Warning { "warning: " } else { "" };
        let hint = item.hint.as_ref().map_or_else(String::new, |hint| format!(" ({hint})"));
        format!("{place}{kind}{}{hint}", item.message)
    };
    found.iter().map(one).collect()
}

fn corpus(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}
