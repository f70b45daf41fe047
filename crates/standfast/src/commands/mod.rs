//! One module per command, or per few that belong together.

pub(crate) mod change;
pub(crate) mod check;
pub(crate) mod down;
pub(crate) mod fault;
pub(crate) mod gateway;
pub(crate) mod logs;
pub(crate) mod processes;
pub(crate) mod prove;
mod running;
pub(crate) mod status;
pub(crate) mod up;
pub(crate) mod why;
pub(crate) mod workflow;
mod workflow_bulk;
mod workflow_list;
mod workflow_live;
mod workflow_migrate;
mod workflow_run;
mod workflow_secrets;
mod workflow_test;
mod workflow_text;

use std::path::Path;

use standfast_model::{Loaded, Otlp, Stack};
use standfast_workflow::Definition;

use crate::failure::Failure;
use crate::output::Output;
use crate::place::Surroundings;

/// What every command is given.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) output: Output,
    pub(crate) surroundings: Surroundings,
}

impl Call {
    /// Reads and checks a stack and its workflows; warnings go to stderr.
    pub(crate) fn load(&self, stack: &Path) -> Result<Stack, Failure> {
        let found = self.load_with_secrets(stack)?;
        if found.secrets.has_errors() {
            let why = "the stack has secrets that cannot be used";
            return Err(Failure::input(why).detail(self.rendered(&found.secrets)));
        }
        self.check_workflows(stack, &found.stack)?;
        Ok(found.stack)
    }

    /// Checks the documents of a stack's workflows.
    pub(crate) fn check_workflows(&self, path: &Path, stack: &Stack) -> Result<(), Failure> {
        let mut known = Vec::new();
        for found in &stack.workflows {
            let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
            let file = folder.join(&found.file);
            known.push(workflow_test::check(&file, &found.text, self)?);
            self.refuse_missing(&file, &workflow_secrets::missing(&file, &found.text, &stack.secrets))?;
        }
        workflows_of_loads(stack, &known)
    }

    /// Reads and checks a stack but for the documents of its workflows and its secrets, for commands that need neither: why documents
    /// cannot be read is told beside; warnings go to stderr.
    pub(crate) fn load_despite_workflows(&self, stack: &Path) -> Result<(Stack, Option<Failure>), Failure> {
        let (loaded, unread) = self.load_despite(stack)?;
        Ok((loaded.stack, unread))
    }

    /// The same for those that need them, with what is wrong with its secrets.
    fn load_with_secrets(&self, stack: &Path) -> Result<Loaded, Failure> {
        let (loaded, unread) = self.load_despite(stack)?;
        unread.map_or(Ok(loaded), Err)
    }

    fn load_despite(&self, stack: &Path) -> Result<(Loaded, Option<Failure>), Failure> {
        let loaded = standfast_model::load_despite_workflows(stack, &self.surroundings.variables);
        let (loaded, unread) = loaded.map_err(|found| self.wrong(&found))?;
        if !loaded.warnings.is_empty() {
            self.output.note(self.rendered(&loaded.warnings).trim_end());
        }
        Ok((loaded, unread.map(|found| self.wrong(&found))))
    }

    fn wrong(&self, found: &standfast_model::Diagnostics) -> Failure {
        let shown = found.iter().filter(|one| one.severity == standfast_model::Severity::Error).count();
        let errors = shown + found.omitted();
        let count = if errors == 1 { "1 error".to_owned() } else { format!("{errors} errors") };
        Failure::input(format!("{count} in the stack")).detail(self.rendered(found))
    }

    /// With a drawn snippet on a terminal, as plain lines that programs can take apart elsewhere.
    pub(crate) fn rendered(&self, found: &standfast_model::Diagnostics) -> String {
        if self.output.is_interactive() {
            found.graphical(self.output.stderr_colour())
        } else {
            found.to_string()
        }
    }

    /// Where spans go when the stack says nothing of that: what the environment says, if it can be done.
    pub(crate) fn otlp(&self) -> Option<Otlp> {
        standfast_node::otlp_of(&self.surroundings.variables).unwrap_or_else(|why| {
            self.output.note(format!("no spans are sent: {why}"));
            None
        })
    }

    /// A runtime for commands that talk to running processes.
    pub(crate) fn block_on<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| Failure::because_of("cannot start the runtime", &error))?
            .block_on(work)
    }
}

/// Each load that starts a workflow needs it.
fn workflows_of_loads(stack: &Stack, known: &[Definition]) -> Result<(), Failure> {
    for load in stack.load.values() {
        let Some(wanted) = &load.workflow else { continue };
        let names = |found: &Definition| {
            let name = found.program.name();
            let short = format!("{}/{}", name.namespace, name.name);
            [format!("{short}/{}", name.version), short]
        };
        if known.iter().any(|found| names(found).contains(wanted)) {
            continue;
        }
        let names: Vec<String> = known.iter().map(|found| names(found)[1].clone()).collect();
        let hint = match names.as_slice() {
            [] => "put its document into the stack's folder `workflows`".to_owned(),
            names => format!("there is {}", names.join(", ")),
        };
        let text = format!("load `{}` starts a workflow that is not there: `{wanted}`", load.name);
        return Err(Failure::input(text).hint(hint));
    }
    Ok(())
}
