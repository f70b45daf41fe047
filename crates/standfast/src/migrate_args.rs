//! The arguments of `workflow migrate`.

use clap::Args;

use crate::fault_args::NamedStack;

pub(crate) const MIGRATE_EXAMPLES: &str = "Examples:
  standfast workflow migrate 01m83nkhpppkbm2skfgs2bd4h9 --to 2.0.0 --dry-run     whether it can, and if not, why
  standfast workflow migrate 01m83nkhpppkbm2skfgs2bd4h9 --to 2.0.0
  standfast workflow migrate --workflow shop/checkout --from 1.0.0 --to 2.0.0 --dry-run
  standfast workflow migrate --workflow shop/checkout --from 1.0.0 --to 2.0.0 --yes

Tasks are found in the new version by their names. What was begun must be there and be of the same kind; what was not reached may
differ. A run that cannot go over stays as it is. Exit codes: 0 all did or can, 1 some do not.";

/// `workflow migrate`.
#[derive(Debug, Args)]
pub(crate) struct WorkflowMigrateArgs {
    /// The runs' ids; without them all runs that fit what is said
    #[arg(value_name = "RUN", conflicts_with_all = ["workflow", "from", "status", "started_after", "started_before", "input", "all", "yes"])]
    pub(crate) runs: Vec<String>,
    /// The version of their workflow that they go over to; `latest` is the newest
    #[arg(long, value_name = "VERSION")]
    pub(crate) to: String,
    /// Only runs of this workflow: its name, or `NAMESPACE/NAME`, with `:VERSION` or without
    #[arg(long, value_name = "WORKFLOW")]
    pub(crate) workflow: Option<String>,
    /// Only runs that go by this document: its version, or its digest or the first 8 digits of it
    #[arg(long, value_name = "VERSION")]
    pub(crate) from: Option<String>,
    /// Only runs that stand so: pending, running, waiting, suspended, parked; or several with commas between
    #[arg(long, value_name = "STATUS")]
    pub(crate) status: Option<String>,
    /// Only runs that were started then or later: a time (RFC 3339), or how long ago: `2h`
    #[arg(long, value_name = "TIME")]
    pub(crate) started_after: Option<String>,
    /// Only runs that were started before: a time, or how long ago
    #[arg(long, value_name = "TIME")]
    pub(crate) started_before: Option<String>,
    /// Only runs whose input has this in a field: `order_id=o-1`. May be given more than once
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) input: Vec<String>,
    /// All runs that have not ended
    #[arg(long)]
    pub(crate) all: bool,
    /// Change nothing, only tell which runs can go over and why others cannot
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Have all go over that fit and can
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) yes: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stack: NamedStack,
}
