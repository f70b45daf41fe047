use std::time::Duration;

use serde_json::{Value, json};

use super::environment::{EnvFile, Variable, env_files, environment, path};
use super::traffic::TrafficDraft;
use super::{compose, health, traffic};
use crate::diagnostics::shown;
use crate::id::ServiceName;
use crate::shape::{
    Bytes, Choice, Context, Cores, Fields, FromText, Keyed, Kinds, List, Loose, NameKeys, Object, Referent,
    Refers, Shape, Text, Time, Whole, or_variable,
};
use crate::source::{At, Span};
use crate::stack::{
    Dependency, DependsOn, HealthCheck, Limits, RestartCondition, RestartPolicy, UpdateConfig, UpdateOrder,
};
use crate::words;
use crate::yaml::Kind;

/// Most replicas of a service, and most that are exchanged at a time.
const REPLICAS_MAX: u32 = 1_000;
/// Most starts in a row.
const ATTEMPTS_MAX: u32 = 1_000_000;
/// Longest time from SIGTERM to SIGKILL.
const STOP_GRACE_MAX: Duration = Duration::from_secs(3_600);
/// Most cores of a replica.
const CORES_MAX: u32 = 1_024;
/// Least and most memory of a replica.
const MEMORY_MIN: u64 = 1 << 20;
const MEMORY_MAX: u64 = 64 << 40;
/// Most processes and threads of a replica.
const PIDS_MAX: u32 = 4_194_304;
/// Longest command in one string, in bytes.
const COMMAND_BYTES_MAX: usize = 128 << 10;

const DEFAULT_UPDATE: UpdateConfig = UpdateConfig { parallelism: 1, order: UpdateOrder::StartFirst };
const DEFAULT_RESTART: RestartPolicy = RestartPolicy { condition: RestartCondition::Any, max_attempts: None };
const DEFAULT_STOP_GRACE: Duration = Duration::from_secs(10);

/// A service without its name; paths are as they were written.
pub(crate) struct ServiceDraft {
    pub(crate) build: Option<BuildDraft>,
    pub(crate) command: Vec<String>,
    pub(crate) working_dir: Option<String>,
    pub(crate) environment: Vec<Variable>,
    pub(crate) env_files: Vec<EnvFile>,
    pub(crate) depends_on: Vec<(At<ServiceName>, Dependency)>,
    pub(crate) healthcheck: HealthCheck,
    pub(crate) replicas: u32,
    pub(crate) limits: Limits,
    pub(crate) update: UpdateConfig,
    pub(crate) restart: RestartPolicy,
    pub(crate) stop_grace_period: Duration,
    pub(crate) ports: Vec<At<u16>>,
    pub(crate) traffic: TrafficDraft,
}

pub(crate) struct BuildDraft {
    pub(crate) command: Vec<String>,
    pub(crate) working_dir: Option<String>,
}

pub(crate) const SERVICE: Object<ServiceDraft> =
    Object { doc: "A service: a program of which replicas run.", read: service };

fn service(f: &mut Fields<'_, '_>) -> Option<ServiceDraft> {
    let build = f.optional("build", "How to build the program before it can start.", BUILD);
    let command = f.required(
        "command",
        "The program and its arguments: a list, or one string that is split at blanks as in a shell. The program is looked \
         up in `PATH` unless it has a `/`, and then from `working_dir`.",
        command(),
    );
    let working_dir =
        f.optional("working_dir", "Where it runs, from the stack's folder. Default: that folder.", path());
    let variables = f.optional(
        "environment",
        "Variables for the replicas: a mapping or a list of `NAME=value`. One without a value is passed on from the \
         caller's environment. They win over `env_file`.",
        environment(),
    );
    let env_files = f.optional(
        "env_file",
        "Files of `NAME=value` lines, from the stack's folder; later ones win.",
        env_files(),
    );
    let depends_on =
        f.optional("depends_on", "Services that must be there before this one starts.", depends_on());
    let healthcheck = f.or("healthcheck", health::HEALTHCHECK.doc, health::HEALTHCHECK, health::DEFAULT);
    let deploy = f.optional("deploy", "Replicas, limits, update and restart rules.", DEPLOY);
    let restart = f.optional(
        "restart",
        "When an ended replica is started again. `always` and `unless-stopped` are the same here. Default: always.",
        Restart,
    );
    let stop_grace_period = f.or(
        "stop_grace_period",
        "From SIGTERM to SIGKILL.",
        Time { min: Duration::ZERO, max: STOP_GRACE_MAX },
        DEFAULT_STOP_GRACE,
    );
    let ports = f.optional(
        "ports",
        "Ports of 127.0.0.1 at which the gateway offers this service: `9000`, `\"9000:8080\"`, or Compose's long form. A \
         replica itself listens on the port in its `PORT`.",
        List { item: port(), min: 0 },
    );
    let traffic = f.optional("traffic", traffic::TRAFFIC.doc, traffic::TRAFFIC);
    f.refused(compose::SERVICE_REFUSED);
    f.ignored(compose::SERVICE_IGNORED);

    let deploy = deploy.unwrap_or_default();
    if let (Some(place), Some(_)) = (f.place_of("restart"), &deploy.restart)
        && let Some((_, cx)) = f.reading()
    {
        let message = "`restart` has no effect beside `deploy.restart_policy`";
        cx.reports.warning(place, message, "keep one of them");
    }
    Some(ServiceDraft {
        build,
        command: command?,
        working_dir: working_dir.map(|path| path.value),
        environment: variables.unwrap_or_default(),
        env_files: env_files.unwrap_or_default(),
        depends_on: depends_on.unwrap_or_default(),
        healthcheck,
        replicas: deploy.replicas,
        limits: deploy.limits,
        update: deploy.update,
        restart: deploy.restart.or(restart).unwrap_or(DEFAULT_RESTART),
        stop_grace_period,
        ports: ports.unwrap_or_default(),
        traffic: traffic.unwrap_or_default(),
    })
}

const BUILD: Object<BuildDraft> = Object { doc: "A command that makes the service's program.", read: build };

fn build(f: &mut Fields<'_, '_>) -> Option<BuildDraft> {
    let command = f.required("command", "The program and its arguments.", command());
    let working_dir =
        f.optional("working_dir", "Where it runs, from the stack's folder. Default: that folder.", path());
    f.refused(compose::BUILD_REFUSED);
    f.ignored(compose::BUILD_IGNORED);
    Some(BuildDraft { command: command?, working_dir: working_dir.map(|path| path.value) })
}

/// A program and its arguments.
pub(crate) fn command() -> impl Shape<Value = Vec<String>> {
    let line = Text { what: "a command", bytes_max: COMMAND_BYTES_MAX };
    Kinds::new("a list of texts, or one text")
        .text(line.and_then(|line, span, cx: &mut Context<'_>| match words::split(&line) {
            Ok(words) if words.is_empty() => {
                names_no_program(span, cx);
                None
            }
            Ok(words) => program(words, span, cx),
            Err(why) => {
                let message = format!("{} is not a command: {why}", cx.subject());
                cx.reports.error_hint(span, message, "write it as a list");
                None
            }
        }))
        .list(List { item: Loose { what: "a text" }, min: 1 }.and_then(program))
}

/// No words at all is for the caller: they were reported one by one.
fn program(words: Vec<String>, span: Span, cx: &mut Context<'_>) -> Option<Vec<String>> {
    if words.first()?.is_empty() {
        names_no_program(span, cx);
        return None;
    }
    Some(words)
}

fn names_no_program(span: Span, cx: &mut Context<'_>) {
    let message = format!("{} names no program", cx.subject());
    cx.reports.error(span, message);
}

fn depends_on() -> impl Shape<Value = Vec<(At<ServiceName>, Dependency)>> {
    let started = Dependency { condition: DependsOn::ServiceStarted };
    let name = || Refers::<ServiceName>::new("a service name", Referent::Dependency);
    Kinds::new("a list of services, or a mapping of services to conditions")
        .list(List { item: name().at(), min: 0 }.and_then(move |names: Vec<At<ServiceName>>, _, _| {
            Some(names.into_iter().map(|name| (name, started)).collect())
        }))
        .mapping(
            Keyed { keys: NameKeys::<ServiceName>::new("a service name"), item: DEPENDENCY, min: 0 }
                .and_then(|pairs, _, cx: &mut Context<'_>| {
                    let known = |(name, dependency): (At<ServiceName>, Option<Dependency>)| {
                        cx.refer(Referent::Dependency, &name.value, name.span);
                        Some((name, dependency?))
                    };
                    Some(pairs.into_iter().filter_map(known).collect())
                }),
        )
}

const DEPENDENCY: Object<Dependency> =
    Object { doc: "When the other service counts as there.", read: dependency };

fn dependency(f: &mut Fields<'_, '_>) -> Option<Dependency> {
    let conditions = Choice(&[
        ("service_started", DependsOn::ServiceStarted),
        ("service_healthy", DependsOn::ServiceHealthy),
        ("service_completed_successfully", DependsOn::ServiceCompletedSuccessfully),
    ]);
    let condition = f.required("condition", "When the other service counts as there.", conditions);
    f.ignored(compose::DEPENDENCY_IGNORED);
    Some(Dependency { condition: condition? })
}

/// What `deploy` says; the service's own `restart` stands in for an absent restart policy.
struct DeployDraft {
    replicas: u32,
    limits: Limits,
    update: UpdateConfig,
    restart: Option<RestartPolicy>,
}

impl Default for DeployDraft {
    fn default() -> Self {
        Self { replicas: 1, limits: Limits::default(), update: DEFAULT_UPDATE, restart: None }
    }
}

const DEPLOY: Object<DeployDraft> = Object { doc: "Replicas and their rules.", read: deploy };

fn deploy(f: &mut Fields<'_, '_>) -> Option<DeployDraft> {
    let replicas = f.or("replicas", "How many copies run.", Whole { min: 0, max: REPLICAS_MAX }, 1);
    let resources = f.optional("resources", "What one replica may use.", RESOURCES);
    let update = f.optional("update_config", "How a change is rolled out.", UPDATE);
    let restart = f.optional("restart_policy", "When an ended replica is started again.", RESTART);
    f.or("mode", "Only `replicated`.", Choice(&[("replicated", ())]), ());
    f.ignored(compose::DEPLOY_IGNORED);
    Some(DeployDraft {
        replicas,
        limits: resources.unwrap_or_default(),
        update: update.unwrap_or(DEFAULT_UPDATE),
        restart,
    })
}

const RESOURCES: Object<Limits> = Object {
    doc: "What one replica may use.",
    read: |f| {
        let limits = f.optional("limits", "Limits of one replica.", LIMITS);
        f.ignored(compose::RESOURCES_IGNORED);
        Some(limits.unwrap_or_default())
    },
};

const LIMITS: Object<Limits> = Object { doc: "Limits of one replica.", read: limits };

fn limits(f: &mut Fields<'_, '_>) -> Option<Limits> {
    let cpu_millis =
        f.optional("cpus", "Processor cores: \"0.5\". Default: no limit.", Cores { max: CORES_MAX });
    let memory_bytes = f.optional(
        "memory",
        "Memory: 256M, 1gb; units are powers of 1024. Default: no limit.",
        Bytes { of: "memory", min: MEMORY_MIN, max: MEMORY_MAX },
    );
    let pids =
        f.optional("pids", "Processes and threads. Default: no limit.", Whole { min: 1, max: PIDS_MAX });
    f.refused(compose::LIMITS_REFUSED);
    Some(Limits { cpu_millis, memory_bytes, pids })
}

const UPDATE: Object<UpdateConfig> = Object { doc: "How a change is rolled out.", read: update };

fn update(f: &mut Fields<'_, '_>) -> Option<UpdateConfig> {
    let parallelism = f.or(
        "parallelism",
        "How many replicas are exchanged at a time.",
        Whole { min: 1, max: REPLICAS_MAX },
        DEFAULT_UPDATE.parallelism,
    );
    let orders = Choice(&[("start-first", UpdateOrder::StartFirst), ("stop-first", UpdateOrder::StopFirst)]);
    let order = f.or(
        "order",
        "Whether the new replica is ready before the old one is drained. (Compose's default is stop-first.)",
        orders,
        DEFAULT_UPDATE.order,
    );
    f.ignored(compose::UPDATE_IGNORED);
    Some(UpdateConfig { parallelism, order })
}

const RESTART: Object<RestartPolicy> =
    Object { doc: "When an ended replica is started again.", read: restart_policy };

fn restart_policy(f: &mut Fields<'_, '_>) -> Option<RestartPolicy> {
    let conditions = Choice(&[
        ("any", RestartCondition::Any),
        ("on-failure", RestartCondition::OnFailure),
        ("none", RestartCondition::None),
    ]);
    let condition = f.or("condition", "After which ends.", conditions, DEFAULT_RESTART.condition);
    let max_attempts = f.optional(
        "max_attempts",
        "Starts in a row that failed after which no more is tried. Default: no end.",
        Whole { min: 1, max: ATTEMPTS_MAX },
    );
    f.ignored(compose::RESTART_IGNORED);
    Some(RestartPolicy { condition, max_attempts })
}

/// Compose's short `restart`.
struct Restart;

impl FromText for Restart {
    type Value = RestartPolicy;

    fn parse(&self, text: &str) -> Result<RestartPolicy, Option<String>> {
        let policy = |condition, max_attempts| Ok(RestartPolicy { condition, max_attempts });
        match text.split_once(':') {
            None => match text {
                "always" | "unless-stopped" => policy(RestartCondition::Any, None),
                "on-failure" => policy(RestartCondition::OnFailure, None),
                "no" => policy(RestartCondition::None, None),
                _ => Err(None),
            },
            Some(("on-failure", attempts)) => {
                let attempts = Whole { min: 1, max: ATTEMPTS_MAX }.parse(attempts)?;
                policy(RestartCondition::OnFailure, Some(attempts))
            }
            Some(_) => Err(None),
        }
    }

    fn expected(&self) -> String {
        "`always`, `unless-stopped`, `on-failure`, `on-failure:5` or `no`".to_owned()
    }

    fn json_schema(&self) -> Value {
        let pattern = or_variable("^(always|unless-stopped|no|on-failure(:0*[1-9][0-9]*)?)$");
        json!({"type": "string", "pattern": pattern})
    }
}

pub(crate) fn port() -> impl Shape<Value = At<u16>> {
    Kinds::new("a port, `\"9000:8080\"`, or a mapping with `published`")
        .text(ShortPort.and_then(|(published, target), span, cx: &mut Context<'_>| {
            if let Some(target) = target {
                unused_target(&target, span, cx);
            }
            Some(At { value: published, span })
        }))
        .mapping(PORT.and_then(|published, span, _| Some(At { value: published, span })))
}

fn unused_target(target: &str, span: Span, cx: &mut Context<'_>) {
    let message = format!(
        "the target port {} has no effect: a replica listens on the port in its `PORT`",
        shown(target)
    );
    cx.reports.warning(span, message, "write the published port alone, and let the program read `PORT`");
}

const PORT: Object<u16> =
    Object { doc: "A port of 127.0.0.1 at which the gateway offers the service.", read: long_port };

fn long_port(f: &mut Fields<'_, '_>) -> Option<u16> {
    let number = || Whole { min: 1, max: u16::MAX.into() };
    let published = f.required("published", "The port on 127.0.0.1.", number());
    let target =
        f.optional("target", "Has no effect: a replica listens on the port in its `PORT`.", number().at());
    f.or("protocol", "Only `tcp`.", Choice(&[("tcp", ())]), ());
    f.or("host_ip", "Only `127.0.0.1`.", Choice(&[("127.0.0.1", ())]), ());
    f.ignored(compose::PORT_IGNORED);
    if let (Some(target), Some((_, cx))) = (target, f.reading()) {
        unused_target(&target.value.to_string(), target.span, cx);
    }
    u16::try_from(published?).ok()
}

/// `9000`, `9000:8080`, `127.0.0.1:9000:8080/tcp`: the published port, and the target as it was written.
struct ShortPort;

impl FromText for ShortPort {
    type Value = (u16, Option<String>);

    fn parse(&self, text: &str) -> Result<Self::Value, Option<String>> {
        let hint = |text: &str| Err(Some(text.to_owned()));
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        if protocol != "tcp" {
            return hint("only TCP ports are honoured");
        }
        let (published, target) = match ports.split(':').collect::<Vec<_>>().as_slice() {
            [published] => (*published, None),
            [published, target] | ["127.0.0.1", published, target] => (*published, Some(*target)),
            [_, _, ..] => return hint("the gateway listens on 127.0.0.1 only"),
            [] => return Err(None),
        };
        if ports.contains('-') {
            return hint("ranges of ports are not honoured: list them one by one");
        }
        let number = |text: &str| match (Whole { min: 1, max: u16::MAX.into() }).parse(text) {
            Ok(port) => u16::try_from(port).map_err(|_| None),
            Err(_) => Err(Some(format!("ports are numbers from 1 to {}", u16::MAX))),
        };
        target.map(number).transpose()?;
        Ok((number(published)?, target.map(str::to_owned)))
    }

    fn expected(&self) -> String {
        "a port of 127.0.0.1: `9000` or `\"9000:8080\"`".to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"anyOf": [
            {"type": "integer", "minimum": 1, "maximum": u16::MAX},
            {"type": "string", "pattern": or_variable(r"^(127\.0\.0\.1:[0-9]+:[0-9]+|[0-9]+(:[0-9]+)?)(/tcp)?$")},
        ]})
    }

    fn accepts(&self, kind: Kind) -> bool {
        matches!(kind, Kind::Integer | Kind::Text)
    }
}
