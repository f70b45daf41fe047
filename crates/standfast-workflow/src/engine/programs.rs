//! Which program a name or a run means.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use standfast_runtime::with_causes;

use super::definitions::{self, Definition};
use super::{Engine, Refused};
use crate::program::{Program, WorkflowName};
use crate::run::{Digest, Run};

impl Engine {
    pub(super) fn program_named(&self, name: &WorkflowName) -> Result<Arc<Program>, Refused> {
        let definitions = self.definitions();
        match definitions.find(name) {
            Some(definition) => Ok(Arc::clone(&definition.program)),
            None => {
                let known: Vec<String> = definitions.names().iter().map(ToString::to_string).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(Refused::NoWorkflow { name: name.clone(), known })
            }
        }
    }

    /// The program with which a run began.
    pub(super) async fn program_of(&self, run: &Run) -> Result<Arc<Program>, Refused> {
        self.program_by(&run.definition).await
    }

    pub(super) async fn program_by(&self, digest: &Digest) -> Result<Arc<Program>, Refused> {
        if let Some(program) = self.definitions().by_digest(digest) {
            return Ok(program);
        }
        let text = self.0.journal.definition(digest).await?;
        let text = text.ok_or_else(|| Refused::Failed(format!("its document ({digest}) is not kept")))?;
        let definition = Definition::of_kept("the run's document", &text)
            .map_err(|why| Refused::Failed(format!("its document ({digest}): {}", with_causes(&why))))?;
        self.definitions().keep(Arc::clone(&definition.program));
        Ok(definition.program)
    }

    /// What a name meant to the process before. Runs go on before this one is told which workflows there are; those that ask for
    /// another meanwhile must not fail by that.
    pub(super) async fn program_kept(&self, name: &WorkflowName) -> Result<Option<Arc<Program>>, Refused> {
        if self.0.is_told.load(Ordering::SeqCst) {
            return Ok(None);
        }
        let versions = self.0.journal.versions(name).await?;
        let is_any = matches!(name.version.as_str(), "latest" | "");
        let found = versions.into_iter().filter(|(version, _)| is_any || *version == name.version);
        match found.max_by_key(|(version, _)| definitions::order_of(version)) {
            Some((_, digest)) => self.program_by(&digest).await.map(Some),
            None => Ok(None),
        }
    }
}
