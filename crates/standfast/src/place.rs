//! Where a running stack keeps its state.

use std::path::{Path, PathBuf};

use standfast_model::{Revision, StackName};

/// The environment, read once in `main`.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// All variables, for the stack's interpolation.
    pub(crate) variables: std::collections::BTreeMap<String, String>,
    /// Where this program is.
    pub(crate) executable: PathBuf,
    /// Where we were called.
    pub(crate) working_dir: PathBuf,
    /// Where temporary files go.
    pub(crate) temporary: PathBuf,
}

impl Surroundings {
    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Whether colour was turned off for all programs (<https://no-color.org>).
    pub(crate) fn no_colour(&self) -> bool {
        self.variable("NO_COLOR").is_some() || self.variable("TERM") == Some("dumb")
    }

    /// Who calls, for the history.
    pub(crate) fn user(&self) -> String {
        self.variable("USER").or_else(|| self.variable("LOGNAME")).unwrap_or("unknown").to_owned()
    }

    /// The state folder of a stack: one per folder, so that two checkouts of the same stack do not meet.
    ///
    /// # Errors
    /// A sentence when there is no home to put it in.
    pub(crate) fn state_folder(&self, name: &StackName, root: &Path) -> Result<PathBuf, String> {
        let base = self
            .variable("XDG_STATE_HOME")
            .map(PathBuf::from)
            .or_else(|| self.variable("HOME").map(|home| Path::new(home).join(".local/state")))
            .ok_or("neither HOME nor XDG_STATE_HOME is set, so there is no place for the stack's state")?;
        let mark = Revision::of(root.as_os_str().as_encoded_bytes());
        Ok(base.join("standfast").join(format!("{name}-{}", &mark.as_str()[..8])))
    }
}
