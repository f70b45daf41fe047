//! The arguments: what can be asked for, with examples.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use crate::fault_args::{
    FaultAddArgs, FaultArgs, FaultCommand, FaultRemoveArgs, FaultSpec, FaultTokenArgs, NamedStack,
};
pub(crate) use crate::migrate_args::WorkflowMigrateArgs;
pub(crate) use crate::workflow_args::{
    WorkflowArgs, WorkflowChangeArgs, WorkflowCheckArgs, WorkflowCommand, WorkflowEventArgs,
    WorkflowFilterArgs, WorkflowListArgs, WorkflowManyArgs, WorkflowOneArgs, WorkflowQueryArgs,
    WorkflowRedoArgs, WorkflowRenderArgs, WorkflowRetryArgs, WorkflowRunArgs, WorkflowSchedulesArgs,
    WorkflowSignalArgs, WorkflowStartArgs, WorkflowStuckArgs, WorkflowTestArgs,
};

/// Runs services so that they hold under load and failure, and proves it before production does.
#[derive(Debug, Parser)]
#[command(
    name = "standfast",
    version,
    propagate_version = true,
    disable_help_subcommand = true,
    max_term_width = 110,
    after_help = "Examples:\n  \
        standfast prove examples/shop    bring it up, load it, break it, judge it\n  \
        standfast up examples/shop       run it here until Ctrl-C\n  \
        standfast status examples/shop   how it is\n\n\
        Exit codes: 0 done or held, 1 the system under test broke, 2 bad input, 3 failed or not run,\n\
        4 a fault did not bite, 5 not restored, 130 ended by Ctrl-C."
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Colour on the terminal.
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, env = "STANDFAST_COLOUR", hide_env = true)]
    pub(crate) colour: Colour,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Bring the stack up in a scratch place, load it, break it, and say whether it held and whether anything was lost
    #[command(after_help = PROVE_EXAMPLES)]
    Prove(ProveArgs),
    /// Run the stack on this machine: start, heal, balance
    #[command(after_help = UP_EXAMPLES)]
    Up(UpArgs),
    /// Stop a running stack
    #[command(
        after_help = "Examples:\n  standfast down\n  standfast down examples/shop\n  standfast down examples/shop --forget   also remove its data and logs"
    )]
    Down(DownArgs),
    /// Show how a running stack is: wanted and ready per service and zone, restarts, the last reason
    #[command(
        after_help = "Examples:\n  standfast status\n  standfast status examples/shop --json | jq .services"
    )]
    Status(StackJsonArgs),
    /// Show what the services print
    #[command(
        after_help = "Examples:\n  standfast logs examples/shop\n  standfast logs -f --service orders\n  standfast logs --since 10m"
    )]
    Logs(LogsArgs),
    /// Replace running replicas one by one, each new one ready before the old one stops
    #[command(
        after_help = "Examples:\n  standfast restart --service orders\n  standfast restart examples/shop     all services"
    )]
    Restart(RestartArgs),
    /// Show what `apply` would change in a running stack, or what `up` would start: why, and each step's impact
    #[command(
        after_help = "Examples:\n  standfast plan examples/shop\n  standfast plan examples/shop --json"
    )]
    Plan(StackJsonArgs),
    /// Carry out what `plan` showed; refuses when the world moved since
    #[command(
        after_help = "Examples:\n  standfast plan examples/shop             prints the plan's number\n  standfast apply examples/shop --plan 3f2a91c0\n  standfast apply examples/shop --yes      plan and apply in one go"
    )]
    Apply(ApplyArgs),
    /// Why a request got its answer: which replicas were tried, and what came of it
    #[command(
        after_help = "Examples:\n  standfast why-request 01937c2e-…              by the answer's Standfast-Request-Id\n  standfast why-request                          the newest that failed, were repeated, hedged, shed or slow\n  standfast why-request --service orders --status 503 --json\n  standfast why-request --gateway http://127.0.0.1:9464     of a gateway that runs by itself"
    )]
    WhyRequest(WhyArgs),
    /// Have things go wrong in the gateway on purpose: delays, aborts, resets and the like, for a while
    Fault(Box<FaultArgs>),
    /// Run the gateway by itself, in front of services that others run (`external`)
    #[command(
        after_help = "Examples:\n  standfast gateway edge/\n  standfast gateway edge/ --listen 0.0.0.0:80 --workers 4\n  kill -HUP PID     reads the stack again; open connections go on\n  standfast gateway edge/ --admin 127.0.0.1:9464     then: curl http://127.0.0.1:9464/metrics"
    )]
    Gateway(GatewayArgs),
    /// Check a stack's files: all errors at once
    #[command(
        after_help = "Examples:\n  standfast check\n  standfast check examples/shop\n  standfast check examples/shop --json"
    )]
    Check(StackJsonArgs),
    /// Workflow documents: check, draw, test and run them
    Workflow(WorkflowArgs),
    /// Print the JSON Schema of standfast.yaml, for editors
    #[command(
        after_help = "Examples:\n  standfast schema > standfast.schema.json\n\n  and as the first line of standfast.yaml:\n  # yaml-language-server: $schema=./standfast.schema.json"
    )]
    Schema,
    /// Print completions for a shell
    #[command(
        after_help = "Examples:\n  standfast completions bash > /etc/bash_completion.d/standfast\n  standfast completions zsh > ~/.zfunc/_standfast"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// The process that owns replicas and sockets; started by `up` and `prove`
    #[command(hide = true)]
    Agent(ProcessArgs),
    /// The process that plans, balances and keeps state; started by the agent
    #[command(hide = true)]
    Node(ProcessArgs),
    /// The process that evaluates expressions of workflows; started by what drives runs
    #[command(hide = true)]
    ServeExpressions,
}

const PROVE_EXAMPLES: &str = "Examples:
  standfast prove examples/shop
  standfast prove examples/shop --seed 7              the same targets, times and arrivals again
  standfast prove examples/shop --only zone-loss      one kind of fault
  standfast prove examples/shop --json > proof.json
  standfast prove examples/shop --report out/ --junit out/junit.xml

Exit codes: 0 held, 1 broke, 2 bad input, 3 not run, 4 a fault did not bite, 5 not restored.";

const UP_EXAMPLES: &str = "Examples:
  standfast up                       the stack in this folder, until Ctrl-C
  standfast up examples/shop -d      in the background; `standfast down examples/shop` ends it
  standfast up examples/shop --listen 127.0.0.1:8080";

/// Which stack.
#[derive(Debug, Clone, Args)]
pub(crate) struct StackArgs {
    /// The stack: a folder with standfast.yaml, or the file itself
    #[arg(default_value = ".", value_name = "STACK")]
    pub(crate) stack: PathBuf,
    /// Where the running stack keeps its state [default: a folder of its own under ~/.local/state/standfast]
    #[arg(long, value_name = "DIR", env = "STANDFAST_STATE", hide_env = true)]
    pub(crate) state: Option<PathBuf>,
}

/// A stack, and JSON instead of text.
#[derive(Debug, Args)]
pub(crate) struct StackJsonArgs {
    #[command(flatten)]
    pub(crate) stack: StackArgs,
    /// JSON on stdout instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// `prove`.
#[derive(Debug, Args)]
pub(crate) struct ProveArgs {
    /// The stack: a folder with standfast.yaml, or the file itself
    #[arg(default_value = ".", value_name = "STACK")]
    pub(crate) stack: PathBuf,
    /// Repeats targets, times and arrivals of an earlier run [default: a new one, which is printed]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,
    /// Only experiments of this kind; may be repeated
    #[arg(long, value_name = "FAULT", value_enum)]
    pub(crate) only: Vec<FaultKind>,
    /// JSON on stdout instead of text
    #[arg(long)]
    pub(crate) json: bool,
    /// Folder for the report: report.html, report.json and the client's journal
    #[arg(long, value_name = "DIR", default_value = "standfast-report")]
    pub(crate) report: PathBuf,
    /// Also write the result as JUnit XML
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Do not run the services' build commands
    #[arg(long)]
    pub(crate) no_build: bool,
    /// A bug to plant (test builds only)
    #[cfg(feature = "planted-bugs")]
    #[arg(long, value_name = "BUG")]
    pub(crate) plant: Option<String>,
}

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FaultKind {
    /// kill -9 of one replica, repeated
    ReplicaKill,
    /// SIGSTOP of one replica
    ReplicaFreeze,
    /// All replicas of a zone at once
    ZoneLoss,
    /// kill -9 of the node
    NodeKill,
    /// kill -9 of the agent
    AgentKill,
}

/// `up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    #[command(flatten)]
    pub(crate) stack: StackArgs,
    /// Return once everything is ready; the stack goes on in the background
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Where the gateway takes requests from outside
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: std::net::SocketAddr,
    /// Where Prometheus is given the gateway's metrics, at /metrics [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics: Option<std::net::SocketAddr>,
    /// A file with the key by which records of workflows are sealed: 64 hexadecimal digits. May be given more than once: the first one
    /// seals, the others open what they sealed before [default: they are not sealed]
    #[arg(long, value_name = "FILE")]
    pub(crate) workflow_key: Vec<PathBuf>,
    /// Do not run the services' build commands
    #[arg(long)]
    pub(crate) no_build: bool,
    /// How long to wait for everything to be ready
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = standfast_model::parse_duration)]
    pub(crate) wait: Duration,
}

/// `why-request`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// The request: its Standfast-Request-Id, the id that its client gave it, or its trace id [default: the newest that something happened to]
    #[arg(value_name = "ID")]
    pub(crate) id: Option<String>,
    /// The stack: a folder with standfast.yaml, or the file itself
    #[arg(long, default_value = ".", value_name = "STACK")]
    pub(crate) stack: PathBuf,
    /// Where the running stack keeps its state [default: a folder of its own under ~/.local/state/standfast]
    #[arg(long, value_name = "DIR", env = "STANDFAST_STATE", hide_env = true)]
    pub(crate) state: Option<PathBuf>,
    /// Ask a gateway that runs by itself, where its --admin is: http://127.0.0.1:9464
    #[arg(long, value_name = "URL", conflicts_with = "stack")]
    pub(crate) gateway: Option<String>,
    /// Only requests for this service
    #[arg(long, value_name = "SERVICE", conflicts_with = "id")]
    pub(crate) service: Option<standfast_model::ServiceName>,
    /// Only requests answered with this status
    #[arg(long, value_name = "STATUS", conflicts_with = "id")]
    pub(crate) status: Option<u16>,
    /// How many
    #[arg(long, value_name = "NUMBER", default_value_t = 10, conflicts_with = "id")]
    pub(crate) limit: usize,
    /// JSON on stdout instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// `gateway`.
#[derive(Debug, Args)]
pub(crate) struct GatewayArgs {
    /// The stack: a folder with standfast.yaml, or the file itself
    #[arg(default_value = ".", value_name = "STACK")]
    pub(crate) stack: PathBuf,
    /// Where it takes requests from outside
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    pub(crate) listen: std::net::SocketAddr,
    /// Threads that carry requests [default: one for each core]
    #[arg(long, value_name = "NUMBER", value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1024))]
    pub(crate) workers: Option<usize>,
    /// Where it tells what happens: /metrics for Prometheus, /healthz, /stats, /requests; beyond loopback the first two only [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) admin: Option<std::net::SocketAddr>,
    /// The addresses as JSON on stdout
    #[arg(long)]
    pub(crate) json: bool,
}

/// `down`.
#[derive(Debug, Args)]
pub(crate) struct DownArgs {
    #[command(flatten)]
    pub(crate) stack: StackArgs,
    /// Also remove the stack's state and logs
    #[arg(long)]
    pub(crate) forget: bool,
}

/// `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) stack: StackArgs,
    /// Go on as lines come
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only this service
    #[arg(long, value_name = "SERVICE")]
    pub(crate) service: Option<String>,
    /// Only lines of this last while (90s, 10m, 2h)
    #[arg(long, value_name = "DURATION", value_parser = standfast_model::parse_duration)]
    pub(crate) since: Option<Duration>,
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// `restart`.
#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    pub(crate) stack: StackArgs,
    /// Only this service
    #[arg(long, value_name = "SERVICE")]
    pub(crate) service: Option<String>,
}

/// `apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) stack: StackArgs,
    /// The plan that was shown; a world that moved since is refused
    #[arg(long, value_name = "PLAN", conflicts_with = "yes")]
    pub(crate) plan: Option<String>,
    /// Plan and apply in one go
    #[arg(long)]
    pub(crate) yes: bool,
    /// Why, for the history
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// Do not run the services' build commands
    #[arg(long)]
    pub(crate) no_build: bool,
    /// JSON on stdout instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// The hidden processes.
#[derive(Debug, Args)]
pub(crate) struct ProcessArgs {
    /// The state folder
    #[arg(long, value_name = "DIR")]
    pub(crate) state: PathBuf,
}
