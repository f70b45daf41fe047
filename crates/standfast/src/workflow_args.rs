//! The arguments of `workflow`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::fault_args::NamedStack;
use crate::migrate_args::{MIGRATE_EXAMPLES, WorkflowMigrateArgs};

const CHECK_EXAMPLES: &str = "Examples:
  standfast workflow check                         all documents in workflows/
  standfast workflow check checkout.yaml refund.yaml
  standfast workflow check shop/workflows --json | jq '.files[] | select(.valid | not) | .file'

A folder stands for the .yaml, .yml and .json files in it. Exit codes: 0 all are right, 2 one is not.";

const RENDER_EXAMPLES: &str = "Examples:
  standfast workflow render workflows/checkout.yaml > checkout.mmd
  (echo '```mermaid'; standfast workflow render checkout.yaml; echo '```') >> README.md     drawn by most forges";

const RUN_EXAMPLES: &str = "Examples:
  standfast workflow run checkout.yaml --input '{\"order\": \"o-1\"}'
  standfast workflow run checkout.yaml --input-file order.json --timeline
  standfast workflow run report.yaml --secret api_key=@api.key --secret DB_PASSWORD
  standfast workflow run nightly.yaml --store /var/lib/nightly --key 2026-01-31    goes on after a crash: call it again

The output is printed as JSON. Exit codes: 0 completed, 1 faulted or cancelled, 2 the document or the input is wrong.";

const START_EXAMPLES: &str = "Examples:
  standfast workflow start checkout --input '{\"order\": \"o-1\"}' --stack examples/shop
  standfast workflow start checkout --key o-1 --wait 30s     the same key is the same run; prints how it ended";

const LIST_EXAMPLES: &str = "Examples:
  standfast workflow list --status faulted,cancelled --started-after 2h
  standfast workflow list --workflow checkout --input order_id=o-1
  standfast workflow list --status faulted --error 503 --started-after 2026-03-01T09:00:00Z --started-before 2026-03-01T10:00:00Z
  standfast workflow list --workflow checkout --limit 1000 --json | jq -r '.runs[].id'";

const STUCK_EXAMPLES: &str = "Examples:
  standfast workflow stuck --stack examples/shop
  standfast workflow stuck --json | jq -r '.runs[] | select(.kind == \"unheard\") | .id'

Exit codes: 0 there is none, 1 there are some.";

const SCHEDULES_EXAMPLES: &str = "Examples:
  standfast workflow schedules --stack examples/shop
  standfast workflow schedules --json | jq -r '.schedules[] | [.workflow.name, .next] | @tsv'";

const CANCEL_EXAMPLES: &str = "Examples:
  standfast workflow cancel 01m83nkhpppkbm2skfgs2bd4h9
  standfast workflow cancel --workflow checkout --started-before 2h --dry-run     which, and how many
  standfast workflow cancel --workflow checkout --started-before 2h --yes

Ctrl-C between two pages of 100 runs: the same command goes on with those that are left.";

const HOLD_EXAMPLES: &str = "Examples:
  standfast workflow hold 01m83nkhpppkbm2skfgs2bd4h9
  standfast workflow hold --workflow checkout --dry-run
  standfast workflow hold --workflow checkout --yes";

const RESUME_EXAMPLES: &str = "Examples:
  standfast workflow resume 01m83nkhpppkbm2skfgs2bd4h9
  standfast workflow resume --all --yes                all that are held
  standfast workflow list --status parked              runs that ended the process again and again; `show` tells why
  standfast workflow resume --status parked --dry-run  those are resumed only when they are named";

const RETRY_EXAMPLES: &str = "Examples:
  standfast workflow retry 01m83nkhpppkbm2skfgs2bd4h9
  standfast workflow retry 01m83nkhpppkbm2skfgs2bd4h9 --wait 30s     prints how it ended
  standfast workflow retry --error 503 --started-after 2h --dry-run
  standfast workflow retry --error 503 --started-after 2h --yes

What had finished is not done again. A run that is parked goes on itself. A second retry of a run is the same run.";

const REDO_EXAMPLES: &str = "Examples:
  standfast workflow redo 01m83nkhpppkbm2skfgs2bd4h9 --from /do/2/charge
  standfast workflow redo 01m83nkhpppkbm2skfgs2bd4h9 --from /do/2/charge --input '{\"sum\": 3}' --wait 30s

What was done before that task was begun for the last time is taken as it is. `show` names a run's tasks.";

const EVENT_EXAMPLES: &str = "Examples:
  standfast workflow event '{\"id\": \"7\", \"source\": \"/bank\", \"type\": \"paid\", \"data\": {\"order\": \"o-1\"}}'";

const SIGNAL_EXAMPLES: &str = "Examples:
  standfast workflow signal 01m83nkhpppkbm2skfgs2bd4h9 approve --data '{\"by\": \"me\"}'
  standfast workflow signal 01m83nkhpppkbm2skfgs2bd4h9 approve --key mail-17     the same key is told once

A task that listens for an event of the type `io.standfast.signal.NAME` takes it, now or when it begins to.";

const QUERY_EXAMPLES: &str = "Examples:
  standfast workflow query 01m83nkhpppkbm2skfgs2bd4h9 progress
  standfast workflow query 01m83nkhpppkbm2skfgs2bd4h9 progress --json | jq .value.done

What can be asked stands in the document: `metadata.standfast.queries: {progress: '${ .context.done }'}`.";

const TEST_EXAMPLES: &str = "Examples:
  standfast workflow test                          all *.test.yaml files in workflows/
  standfast workflow test checkout.test.yaml --case 'pays and ships'

Runs documents on faked time with the answers that the test gives: nothing is asked outside.
Exit codes: 0 all is as expected, 1 something is not, 2 a file is wrong.";

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
    /// Run a document here and now, and print what it yields
    #[command(after_help = RUN_EXAMPLES)]
    Run(WorkflowRunArgs),
    /// Start a run of a workflow of a running stack
    #[command(after_help = START_EXAMPLES)]
    Start(WorkflowStartArgs),
    /// List runs: those that go on, then those that have ended, the latest of each first
    #[command(after_help = LIST_EXAMPLES)]
    List(WorkflowListArgs),
    /// List runs that do not go on, and why
    #[command(after_help = STUCK_EXAMPLES)]
    Stuck(WorkflowStuckArgs),
    /// List schedules: when the next run of each begins, and which run was the last
    #[command(after_help = SCHEDULES_EXAMPLES)]
    Schedules(WorkflowSchedulesArgs),
    /// Show where a run stands, and all that happened to it
    #[command(after_help = "Examples:\n  standfast workflow show 01m83nkhpppkbm2skfgs2bd4h9")]
    Show(WorkflowOneArgs),
    /// End a run before its end, or all that fit
    #[command(after_help = CANCEL_EXAMPLES)]
    Cancel(WorkflowChangeArgs),
    /// Hold a run, or all that fit: what was asked is answered, nothing new is begun
    #[command(after_help = HOLD_EXAMPLES)]
    Hold(WorkflowChangeArgs),
    /// Let a run that is held or parked go on, or all that fit
    #[command(after_help = RESUME_EXAMPLES)]
    Resume(WorkflowChangeArgs),
    /// Go on with a faulted run from the task that failed: another run, by the same Idempotency-Keys
    #[command(after_help = RETRY_EXAMPLES)]
    Retry(WorkflowRetryArgs),
    /// Begin another run from a task of one that has ended: what comes from there on is done again, by new Idempotency-Keys
    #[command(after_help = REDO_EXAMPLES)]
    Redo(WorkflowRedoArgs),
    /// Have runs go on by another version of their document, or tell why they cannot
    #[command(after_help = MIGRATE_EXAMPLES)]
    Migrate(WorkflowMigrateArgs),
    /// Give an event (CloudEvents 1.0, as JSON) to the runs that wait for it
    #[command(after_help = EVENT_EXAMPLES)]
    Event(WorkflowEventArgs),
    /// Tell a run something; it keeps that until it listens for it
    #[command(after_help = SIGNAL_EXAMPLES)]
    Signal(WorkflowSignalArgs),
    /// Ask about a run what its document lets be asked; nothing is changed
    #[command(after_help = QUERY_EXAMPLES)]
    Query(WorkflowQueryArgs),
    /// Test documents: recorded answers, faked time, what must come of it
    #[command(after_help = TEST_EXAMPLES)]
    Test(WorkflowTestArgs),
}

/// `workflow start`.
#[derive(Debug, Args)]
pub(crate) struct WorkflowStartArgs {
    /// The workflow: its name, or `NAMESPACE/NAME` with `:VERSION` or without
    #[arg(value_name = "WORKFLOW")]
    pub(crate) workflow: String,
    /// The input, as JSON
    #[arg(long, value_name = "JSON", conflicts_with = "input_file")]
    pub(crate) input: Option<String>,
    /// A file that holds the input as JSON; `-` is the standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) input_file: Option<PathBuf>,
    /// What names the start: the same key is the same run
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Wait for the end, at most so long (up to 60s)
    #[arg(long, value_name = "TIME")]
    pub(crate) wait: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stack: NamedStack,
}

/// `workflow list`.
#[derive(Debug, Args)]
pub(crate) struct WorkflowListArgs {
    #[command(flatten)]
    pub(crate) filter: WorkflowFilterArgs,
    /// At most so many
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    pub(crate) limit: usize,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stack: NamedStack,
}

/// Which runs are meant: those that fit all that is said.
#[derive(Debug, Args)]
pub(crate) struct WorkflowFilterArgs {
    /// Only runs that stand so: pending, running, waiting, suspended, parked, completed, faulted, cancelled; or several with commas between
    #[arg(long, value_name = "STATUS")]
    pub(crate) status: Option<String>,
    /// Only runs of this workflow: its name, or `NAMESPACE/NAME`, with `:VERSION` or without
    #[arg(long, value_name = "WORKFLOW")]
    pub(crate) workflow: Option<String>,
    /// Only runs that were started then or later: a time (RFC 3339), or how long ago: `2h`
    #[arg(long, value_name = "TIME")]
    pub(crate) started_after: Option<String>,
    /// Only runs that were started before: a time, or how long ago
    #[arg(long, value_name = "TIME")]
    pub(crate) started_before: Option<String>,
    /// Only runs whose input has this in a field: `order_id=o-1`. May be given more than once
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) input: Vec<String>,
    /// Only runs that failed by this: a kind (`communication`, or the whole address) or a status (`503`)
    #[arg(long, value_name = "ERROR")]
    pub(crate) error: Option<String>,
}

/// A run, or those that fit.
#[derive(Debug, Args)]
pub(crate) struct WorkflowChangeArgs {
    /// The run's id; without it all runs that fit what is said
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
    #[command(flatten)]
    pub(crate) many: WorkflowManyArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stack: NamedStack,
}

/// Many runs.
#[derive(Debug, Args)]
pub(crate) struct WorkflowManyArgs {
    #[command(flatten)]
    pub(crate) filter: WorkflowFilterArgs,
    /// All runs to which it can be done
    #[arg(long, conflicts_with = "run")]
    pub(crate) all: bool,
    /// Only show to which runs it would be done, and how many there are
    #[arg(long, conflicts_with = "run")]
    pub(crate) dry_run: bool,
    /// Do it to all that fit
    #[arg(long, conflicts_with_all = ["run", "dry_run"])]
    pub(crate) yes: bool,
}

/// `workflow stuck`.
#[derive(Debug, Args)]
pub(crate) struct WorkflowStuckArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stack: NamedStack,
}

/// `workflow schedules`.
#[derive(Debug, Args)]
pub(crate) struct WorkflowSchedulesArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stack: NamedStack,
}

/// A run.
#[derive(Debug, Args)]
pub(crate) struct WorkflowOneArgs {
    /// The run's id
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stack: NamedStack,
}

/// `workflow retry`.
#[derive(Debug, Args)]
pub(crate) struct WorkflowRetryArgs {
    /// The run's id; without it all faulted runs that fit what is said and were not retried before
    #[arg(value_name = "RUN")]
    pub(crate) run: Option<String>,
    #[command(flatten)]
    pub(crate) many: WorkflowManyArgs,
    /// Wait for the end, at most so long (up to 60s)
    #[arg(long, value_name = "TIME", requires = "run")]
    pub(crate) wait: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stack: NamedStack,
}

/// `workflow redo`.
#[derive(Debug, Args)]
pub(crate) struct WorkflowRedoArgs {
    /// The run's id
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// The task, by its place in the document
    #[arg(long, value_name = "TASK")]
    pub(crate) from: String,
    /// What the task is given, as JSON [default: what it was given]
    #[arg(long, value_name = "JSON", conflicts_with = "input_file")]
    pub(crate) input: Option<String>,
    /// A file that holds it as JSON; `-` is the standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) input_file: Option<PathBuf>,
    /// What names the start: the same key is the same run
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Wait for the end, at most so long (up to 60s)
    #[arg(long, value_name = "TIME")]
    pub(crate) wait: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stack: NamedStack,
}

/// `workflow event`.
#[derive(Debug, Args)]
pub(crate) struct WorkflowEventArgs {
    /// The event, as JSON
    #[arg(value_name = "JSON")]
    pub(crate) event: String,
    #[command(flatten)]
    pub(crate) stack: NamedStack,
}

/// `workflow signal`.
#[derive(Debug, Args)]
pub(crate) struct WorkflowSignalArgs {
    /// The run's id
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// The signal's name
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// What it is told, as JSON [default: null]
    #[arg(long, value_name = "JSON", conflicts_with = "data_file")]
    pub(crate) data: Option<String>,
    /// A file that holds it as JSON; `-` is the standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) data_file: Option<PathBuf>,
    /// What names the signal: the same key for the same run and name is told once
    #[arg(long, value_name = "KEY")]
    pub(crate) key: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stack: NamedStack,
}

/// `workflow query`.
#[derive(Debug, Args)]
pub(crate) struct WorkflowQueryArgs {
    /// The run's id
    #[arg(value_name = "RUN")]
    pub(crate) run: String,
    /// What is asked, by the name that the document gives it
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Print JSON with the run and the name beside the value
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) stack: NamedStack,
}

/// `workflow run`.
#[derive(Debug, Args)]
pub(crate) struct WorkflowRunArgs {
    /// The document
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The input, as JSON
    #[arg(long, value_name = "JSON", conflicts_with = "input_file")]
    pub(crate) input: Option<String>,
    /// A file that holds the input as JSON; `-` is the standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) input_file: Option<PathBuf>,
    /// A file that holds `$secrets` as a JSON object
    #[arg(long, value_name = "FILE")]
    pub(crate) secrets: Option<PathBuf>,
    /// One of `$secrets`: `NAME=@FILE` is what the file holds, as a text; `NAME` is the environment's variable of that name. May be
    /// given more than once, and wins over --secrets
    #[arg(long, value_name = "NAME[=@FILE]")]
    pub(crate) secret: Vec<String>,
    /// Other documents that this one runs
    #[arg(long, value_name = "FILE")]
    pub(crate) with: Vec<PathBuf>,
    /// Keep the run in this folder, so that it goes on after a crash. Without it nothing is kept
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,
    /// A file with the key by which what is kept is sealed: 64 hexadecimal digits. May be given more than once: the first one seals
    #[arg(long, value_name = "FILE", requires = "store")]
    pub(crate) workflow_key: Vec<PathBuf>,
    /// Which run is meant: the same key is the same run. Only of use with --store
    #[arg(long, value_name = "KEY", requires = "store")]
    pub(crate) key: Option<String>,
    /// Show all that happened, step by step
    #[arg(long)]
    pub(crate) timeline: bool,
    /// Print JSON: how the run ended and all that happened
    #[arg(long)]
    pub(crate) json: bool,
}

/// `workflow test`.
#[derive(Debug, Args)]
pub(crate) struct WorkflowTestArgs {
    /// Files of tests, or folders with *.test.yaml files
    #[arg(value_name = "PATH", default_value = "workflows")]
    pub(crate) paths: Vec<PathBuf>,
    /// Only cases whose name holds this
    #[arg(long, value_name = "TEXT")]
    pub(crate) case: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
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
