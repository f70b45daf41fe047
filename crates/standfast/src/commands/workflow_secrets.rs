//! Whether there are the secrets that documents count on.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use standfast_model::workflow::LoadedDocument;
use standfast_model::{BadSecret, Diagnostics, STACK_FILE, Stack, WORKFLOWS};
use standfast_workflow::{Keys, WrongKeyFile, check_text};

use super::Call;
use crate::failure::Failure;

/// The secrets that a document counts on and that are not among these. One that is not right is told of elsewhere.
pub(super) fn missing<V>(
    file: &Path,
    text: &str,
    known: &std::collections::BTreeMap<String, V>,
) -> Diagnostics {
    let known: BTreeSet<&str> = known.keys().map(String::as_str).collect();
    check_text(&file.to_string_lossy(), text.to_owned())
        .map_or_else(|_| Diagnostics::default(), |loaded| loaded.missing_secrets(&known))
}

/// The secrets that a document of a stack's folder of workflows counts on and that the stack does not have; none for one that
/// stands elsewhere, or whose stack cannot be read: that is told by `standfast check`.
pub(super) fn missing_beside(file: &Path, loaded: &LoadedDocument, call: &Call) -> Diagnostics {
    let none = Diagnostics::default;
    let Some(stack) = stack_of(file, call) else { return none() };
    loaded.missing_secrets(&stack.secrets.keys().map(String::as_str).collect())
}

/// Reads the keys of these files, of which each must be one.
pub(super) fn read_keys(files: &[PathBuf]) -> Result<Option<Keys>, Failure> {
    Keys::read(files).map_err(|why| {
        let file = why.file.display().to_string();
        let failure = Failure::input("the records of workflows cannot be sealed").because(&why);
        match &why.source {
            missing if missing.is_missing() => {
                failure.hint(format!("make a key: (umask 077; openssl rand -hex 32 > {file})"))
            }
            WrongKeyFile::Secret(BadSecret::Open) => failure.hint(format!("chmod 600 {file}")),
            _ => failure,
        }
    })
}

fn stack_of(file: &Path, call: &Call) -> Option<Stack> {
    let file = call.surroundings.working_dir.join(file);
    let folder = file.parent().filter(|folder| folder.ends_with(WORKFLOWS))?.parent()?;
    let is_stack = folder.join(STACK_FILE).is_file();
    let loaded = is_stack.then(|| standfast_model::load(folder, &call.surroundings.variables))?;
    loaded.ok().map(|loaded| loaded.stack)
}

impl Call {
    /// Refuses a document that counts on secrets which are not among those that are given.
    pub(super) fn refuse_missing_secrets(
        &self,
        file: &Path,
        given: &Map<String, Value>,
    ) -> Result<(), Failure> {
        let Ok(text) = std::fs::read_to_string(file) else { return Ok(()) };
        let known = given.keys().map(|name| (name.clone(), ())).collect();
        let missing = missing(file, &text, &known);
        if missing.is_empty() {
            return Ok(());
        }
        Err(Failure::input(format!("{} counts on secrets that are not given", file.display()))
            .detail(self.rendered(&missing)))
    }

    /// The secrets that documents of a stack count on and that it does not have.
    pub(super) fn missing_secrets(&self, path: &Path, stack: &Stack) -> Diagnostics {
        let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
        let all = stack.workflows.iter();
        let all = all.map(|found| missing(&folder.join(&found.file), &found.text, &stack.secrets));
        all.fold(Diagnostics::default(), Diagnostics::and)
    }

    /// Refuses a document of a stack that counts on these.
    pub(super) fn refuse_missing(&self, file: &Path, missing: &Diagnostics) -> Result<(), Failure> {
        if missing.is_empty() {
            return Ok(());
        }
        Err(Failure::input(format!("{} cannot be run", file.display())).detail(self.rendered(missing)))
    }
}
