//! The arguments of `fault`. What a fault may be is said by its text, which [`FaultSpec::text`] makes of the flags.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

const ADD_EXAMPLES: &str = "Examples:
  standfast fault add --service orders --delay 300ms --share 0.5 --for 1m
  standfast fault add --service orders --delay pareto:50ms,1.5,2s --for 5m      a heavy tail, cut at 2 s
  standfast fault add --service payments --abort 503 --header x-test=1 --for 1m  for requests with this header only
  standfast fault add --service payments --reset --at answer --for 30s          the work is done, and nobody learns of it
  standfast fault add --replica orders-0 --delay 2s --for 1m                    as if that replica were slow
  standfast fault add --from-zone a --to-zone b --blackhole --for 20s           no way from zone a to zone b
  standfast fault add --route '*/orders' --throttle 10KiB --id slow --for 1m

Delays: TIME, uniform:MIN,MAX, normal:MEAN,DEVIATION[,MAX], exponential:MEAN[,MAX], pareto:MIN,SHAPE[,MAX].
Faults end by themselves, and with the node. What they have hit: standfast fault list.";

const TOKEN_EXAMPLES: &str = "Examples:
  curl -H \"Standfast-Fault: $(standfast fault token --delay 2s --for 5m)\" localhost:8080/orders
  standfast fault token --service payments --abort 503 --for 10m   for the hop to payments: services must pass the header on
  standfast fault token --key-file faults.key --reset --for 1m";

/// `fault`.
#[derive(Debug, Args)]
pub(crate) struct FaultArgs {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: FaultCommand,
}

/// The commands about faults.
#[derive(Debug, Subcommand)]
pub(crate) enum FaultCommand {
    /// Have something go wrong in the gateway of a running stack, for a while
    #[command(after_help = ADD_EXAMPLES)]
    Add(FaultAddArgs),
    /// Show the faults in force and those that ended lately: what they fitted, what they hit, whom they hold now
    #[command(
        after_help = "Examples:\n  standfast fault list\n  standfast fault list --json | jq '.faults[] | {id, applied}'"
    )]
    List(FaultListArgs),
    /// End a fault; requests that it holds go on
    #[command(after_help = "Examples:\n  standfast fault remove fault-1")]
    Remove(FaultRemoveArgs),
    /// Make a token that has one request hit by a fault, signed with the stack's key (`gateway.fault_key_file`)
    #[command(after_help = TOKEN_EXAMPLES)]
    Token(FaultTokenArgs),
}

/// Which stack, where the position is for something else.
#[derive(Debug, Clone, Args)]
pub(crate) struct NamedStack {
    /// The stack: a folder with standfast.yaml, or the file itself
    #[arg(long, default_value = ".", value_name = "STACK")]
    pub(crate) stack: PathBuf,
    /// Where the running stack keeps its state [default: a folder of its own under ~/.local/state/standfast]
    #[arg(long, value_name = "DIR", env = "STANDFAST_STATE", hide_env = true)]
    pub(crate) state: Option<PathBuf>,
}

/// `fault add`.
#[derive(Debug, Args)]
pub(crate) struct FaultAddArgs {
    #[command(flatten)]
    pub(crate) fault: FaultSpec,
    /// Its name; a fault of the same name ends [default: a new one, which is printed]
    #[arg(long, value_name = "NAME")]
    pub(crate) id: Option<String>,
    #[command(flatten)]
    pub(crate) stack: NamedStack,
    /// JSON on stdout instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// `fault list`.
#[derive(Debug, Args)]
pub(crate) struct FaultListArgs {
    #[command(flatten)]
    pub(crate) stack: NamedStack,
    /// JSON on stdout instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// `fault remove`.
#[derive(Debug, Args)]
pub(crate) struct FaultRemoveArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) stack: NamedStack,
    /// JSON on stdout instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// `fault token`.
#[derive(Debug, Args)]
pub(crate) struct FaultTokenArgs {
    #[command(flatten)]
    pub(crate) fault: FaultSpec,
    /// The stack, for its key: a folder with standfast.yaml, or the file itself
    #[arg(long, default_value = ".", value_name = "STACK", conflicts_with = "key_file")]
    pub(crate) stack: PathBuf,
    /// The file of the key [default: the stack's `gateway.fault_key_file`]
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    /// JSON on stdout instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

/// A fault, flag by flag.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("act").required(true)))]
pub(crate) struct FaultSpec {
    /// It takes so much longer, up to 10m: a time, or a distribution (see below)
    #[arg(long, value_name = "DELAY", group = "act")]
    delay: Option<String>,
    /// It is answered with this: 400 to 599, or `grpc:` and a status of gRPC
    #[arg(long, value_name = "STATUS", group = "act")]
    abort: Option<String>,
    /// The connection is reset
    #[arg(long, group = "act")]
    reset: bool,
    /// There is no answer until the request's time is over
    #[arg(long, group = "act")]
    blackhole: bool,
    /// The answer's body comes at so many bytes a second
    #[arg(long, value_name = "BYTES", group = "act")]
    throttle: Option<String>,
    /// The answer's body breaks off after so many bytes
    #[arg(long, value_name = "BYTES", group = "act")]
    truncate: Option<String>,
    /// This share of the answer's body is changed, byte by byte; its length stays
    #[arg(long, value_name = "SHARE", group = "act")]
    corrupt: Option<String>,
    /// Each byte of the answer's head takes so long, up to 10s
    #[arg(long, value_name = "TIME", group = "act")]
    slow_head: Option<String>,
    /// For --delay, --abort, --reset and --blackhole: at the `request`, before the service has seen it, or at the `answer`, when it has done its work [default: request]
    #[arg(long, value_name = "MOMENT")]
    at: Option<String>,
    /// Only requests by the route of this name, as why-request shows it
    #[arg(long, value_name = "ROUTE")]
    route: Option<String>,
    /// Only requests for this service
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Only at this replica (orders-0), or one start of it (orders-0.3)
    #[arg(long, value_name = "REPLICA")]
    replica: Option<String>,
    /// Only from callers in this zone
    #[arg(long, value_name = "ZONE")]
    from_zone: Option<String>,
    /// Only to replicas in this zone
    #[arg(long, value_name = "ZONE")]
    to_zone: Option<String>,
    /// Only requests with this header field, or with this value of it
    #[arg(long, value_name = "NAME[=VALUE]")]
    header: Option<String>,
    /// Of those, this share: 0.5, 50% [default: all]
    #[arg(long, value_name = "SHARE")]
    share: Option<String>,
    /// Who is to see it: the `client`, once a request; or `upstream`, the gateway itself, in each attempt, as a replica's behaviour [default: upstream with --replica or --to-zone, else client]
    #[arg(long, value_name = "SIDE")]
    side: Option<String>,
    /// How long, up to 1h: then it ends by itself
    #[arg(long = "for", value_name = "DURATION", required = true)]
    lasts: String,
}

impl FaultSpec {
    /// The fault as it is written.
    pub(crate) fn text(&self) -> String {
        let flags = [("reset", self.reset), ("blackhole", self.blackhole)];
        let flags = flags.into_iter().filter(|(_, is_set)| *is_set).map(|(key, _)| key.to_owned());
        let lasts = Some(self.lasts.clone());
        let values = [
            ("delay", &self.delay),
            ("abort", &self.abort),
            ("throttle", &self.throttle),
            ("truncate", &self.truncate),
            ("corrupt", &self.corrupt),
            ("slow-head", &self.slow_head),
            ("at", &self.at),
            ("route", &self.route),
            ("service", &self.service),
            ("replica", &self.replica),
            ("from-zone", &self.from_zone),
            ("to-zone", &self.to_zone),
            ("header", &self.header),
            ("share", &self.share),
            ("side", &self.side),
            ("for", &lasts),
        ];
        let escaped = |value: &str| value.replace('%', "%25").replace(';', "%3b");
        let values = values
            .into_iter()
            .filter_map(|(key, value)| Some(format!("{key}={}", escaped(value.as_deref()?))));
        flags.chain(values).collect::<Vec<_>>().join(";")
    }
}
