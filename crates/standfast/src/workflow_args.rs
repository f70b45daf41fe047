//! The arguments of `workflow`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

const CHECK_EXAMPLES: &str = "Examples:
  standfast workflow check                         all documents in workflows/
  standfast workflow check checkout.yaml refund.yaml
  standfast workflow check shop/workflows --json | jq '.files[] | select(.valid | not) | .file'

A folder stands for the .yaml, .yml and .json files in it. Exit codes: 0 all are right, 2 one is not.";

const RENDER_EXAMPLES: &str = "Examples:
  standfast workflow render workflows/checkout.yaml > checkout.mmd
  (echo '```mermaid'; standfast workflow render checkout.yaml; echo '```') >> README.md     drawn by most forges";

/// `workflow`.
#[derive(Debug, Args)]
pub(crate) struct WorkflowArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: WorkflowCommand,
}

/// The commands about workflows.
#[derive(Debug, Subcommand)]
pub(crate) enum WorkflowCommand {
    /// Check documents of the Open Workflow DSL 1.0: all errors at once, expressions included
    #[command(after_help = CHECK_EXAMPLES)]
    Check(WorkflowCheckArgs),
    /// Draw a document's tasks and ways as a flowchart, in the language of Mermaid
    #[command(after_help = RENDER_EXAMPLES)]
    Render(WorkflowRenderArgs),
}

/// `workflow render`.
#[derive(Debug, Args)]
pub(crate) struct WorkflowRenderArgs {
    /// The document
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// `workflow check`.
#[derive(Debug, Args)]
pub(crate) struct WorkflowCheckArgs {
    /// Documents, or folders of documents
    #[arg(value_name = "PATH", default_value = "workflows")]
    pub(crate) paths: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}
