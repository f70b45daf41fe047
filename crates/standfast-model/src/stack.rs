use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::id::{LoadName, Revision, ServiceName, StackName, ZoneName};
use crate::lifecycle::LifecycleSink;
use crate::secret::Secret;
use crate::traffic::{Edge, External, Route, Traffic};

/// A checked stack: every name resolves, every number is in its range, every file that it names was read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stack {
    /// The stack's name.
    pub name: StackName,
    /// The folder that holds `standfast.yaml`, absolute.
    pub root: PathBuf,
    /// The zones, in the order written; at least one (`a` when none is declared).
    pub zones: Vec<ZoneName>,
    /// The services by name.
    pub services: BTreeMap<ServiceName, Service>,
    /// Services that are not started here, by name; none of `services` has such a name.
    #[serde(default)]
    pub externals: BTreeMap<ServiceName, External>,
    /// The routes from outside, in the order written.
    pub routes: Vec<Route>,
    /// How the gateway meets clients from outside.
    #[serde(default)]
    pub edge: Edge,
    /// What `prove` sends, by name.
    pub load: BTreeMap<LoadName, Load>,
    /// What must hold whatever happens.
    pub invariants: Vec<Invariant>,
    /// What `prove` breaks, in this order.
    pub experiments: Vec<Experiment>,
    /// The workflows, in the order of their files.
    #[serde(default)]
    pub workflows: Vec<WorkflowFile>,
    /// Where the secrets are found that workflows may count on, by name.
    #[serde(default)]
    pub secrets: BTreeMap<String, Secret>,
    /// Where the lifecycle events of workflows are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifecycle: Option<LifecycleSink>,
}

/// A document of the folder `workflows`, as it is written: who runs it checks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowFile {
    /// Its file, relative to the stack's folder.
    pub file: String,
    /// Its text.
    pub text: String,
}

/// One service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// How to build it before it can start.
    pub build: Option<Build>,
    /// The program and its arguments; the program is looked up in `PATH` unless it has a `/`, and then relative to `working_dir`.
    pub command: Vec<String>,
    /// Where it runs: absolute.
    pub working_dir: PathBuf,
    /// Its environment: `env_file` entries overlaid by `environment`, interpolated.
    pub environment: BTreeMap<String, String>,
    /// What must be there before it starts.
    pub depends_on: BTreeMap<ServiceName, Dependency>,
    /// How to see that it is alive and ready. Without one, an open port is the probe.
    pub healthcheck: HealthCheck,
    /// Replicas, limits, update and restart rules.
    pub deploy: Deploy,
    /// From SIGTERM to SIGKILL.
    pub stop_grace_period: Duration,
    /// Ports at which the gateway offers this service to this machine, besides the routes.
    pub ports: Vec<PublishedPort>,
    /// How its requests are treated.
    #[serde(default)]
    pub traffic: Traffic,
}

impl Service {
    /// The fingerprint of all that makes a running replica out of date when it changes: everything but `build`, the number
    /// of replicas, how updates are paced and how requests are treated.
    pub fn revision(&self) -> Revision {
        let launch = (
            &self.command,
            &self.working_dir,
            &self.environment,
            &self.healthcheck,
            &self.deploy.limits,
            &self.stop_grace_period,
        );
        Revision::of(&serde_json::to_vec(&launch).unwrap_or_default())
    }
}

/// A command that makes the service's program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Where it runs: absolute.
    pub working_dir: PathBuf,
}

/// A dependency on another service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// When the other counts as there.
    pub condition: DependsOn,
}

/// Compose's `depends_on` conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DependsOn {
    /// One replica's process was started.
    ServiceStarted,
    /// One replica is ready.
    ServiceHealthy,
    /// A replica ran to its end with exit code 0.
    ServiceCompletedSuccessfully,
}

/// How a replica is examined. Readiness (may traffic come?) follows each probe; liveness (restart?) needs `retries` failures in a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// From one probe to the next, once ready.
    pub interval: Duration,
    /// How long one probe may take.
    pub timeout: Duration,
    /// Failures in a row after which the replica counts as dead and is replaced.
    pub retries: u32,
    /// After the start: failures do not count.
    pub start_period: Duration,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// `GET path` answers 2xx or 3xx.
    Http {
        /// The path, with its leading `/`.
        path: String,
    },
    /// The port accepts a connection.
    Tcp,
    /// The command, run with the replica's environment, exits with 0.
    Command {
        /// The program and its arguments.
        command: Vec<String>,
    },
    /// The process runs.
    None,
}

/// Replicas and their rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deploy {
    /// How many copies run.
    pub replicas: u32,
    /// What one copy may use.
    pub limits: Limits,
    /// How a change is rolled out.
    pub update: UpdateConfig,
    /// When an ended copy is started again.
    pub restart: RestartPolicy,
}

/// Resource limits of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Thousandths of a core.
    pub cpu_millis: Option<u32>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u32>,
}

/// How a change is rolled out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpdateConfig {
    /// How many replicas are exchanged at a time; at least 1.
    pub parallelism: u32,
    /// Which comes first.
    pub order: UpdateOrder,
}

/// Which comes first in an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// The new replica is ready before the old one is drained: up to `parallelism` above the wanted number, never below it.
    StartFirst,
    /// The old replica is stopped first: up to `parallelism` below the wanted number, never above it.
    StopFirst,
}

/// When an ended replica is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// After which ends.
    pub condition: RestartCondition,
    /// Starts in a row that failed after which no more is tried; `None` is for ever.
    pub max_attempts: Option<u32>,
}

/// Compose's restart conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartCondition {
    /// Whatever the exit code.
    Any,
    /// After a non-zero exit code or a signal.
    OnFailure,
    /// Never.
    None,
}

/// A port of this machine at which the gateway offers a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The port on 127.0.0.1.
    pub published: u16,
}

/// A service and its share of a route's requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The service.
    pub service: ServiceName,
    /// Its share relative to the other targets' weights.
    pub weight: u32,
}

/// What `prove` sends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// Its name.
    pub name: LoadName,
    /// The HTTP method, upper case.
    pub method: String,
    /// The path and query. `${id}` stands for the request's own id. Of the node's own interface for a load with a `workflow`.
    pub path: String,
    /// The workflow of which each request starts a run: `NAMESPACE/NAME`, or `NAMESPACE/NAME/VERSION`.
    #[serde(default)]
    pub workflow: Option<String>,
    /// Header fields. `${id}` is replaced in the values.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Option<Body>,
    /// Whether each request carries its id as `Idempotency-Key`.
    pub idempotency_key: bool,
    /// Arrivals a second.
    pub rate_per_second: f64,
    /// How long the client waits for the whole answer.
    pub timeout: Duration,
}

/// A request body: text in which `${id}` is replaced, and its content type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Body {
    /// The text, at most 1 MiB.
    pub text: String,
    /// The content type.
    pub content_type: String,
}

/// What must hold: each acknowledged request of a load has exactly so many effects, and no effect is without a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invariant {
    /// A sentence for the report.
    pub name: String,
    /// Whose requests cause the effects.
    pub load: LoadName,
    /// Where the effects are recorded.
    pub effects: EffectSource,
    /// The field of the effect's JSON value that holds the request's id.
    pub per: String,
    /// How many effects one acknowledged request has.
    pub exactly: u32,
}

/// Entries of the state API that record effects: all keys of a service's space that begin with a prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EffectSource {
    /// The service whose state space it is.
    pub service: ServiceName,
    /// The key prefix.
    pub prefix: String,
}

/// One thing that `prove` breaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Experiment {
    /// Its name in the report.
    pub name: String,
    /// What is done.
    pub fault: Fault,
}

/// A fault. Targets that are not named are chosen by the seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "fault")]
pub enum Fault {
    /// `kill -9` of one replica, repeated.
    ReplicaKill {
        /// Whose replica; any service's when absent.
        service: Option<ServiceName>,
        /// How often.
        times: u32,
        /// From one kill to the next.
        every: Duration,
    },
    /// SIGSTOP of one replica, SIGCONT at the end.
    ReplicaFreeze {
        /// Whose replica; any service's when absent.
        service: Option<ServiceName>,
        /// How long.
        lasts: Duration,
    },
    /// All replicas of a zone are killed at once and none may start there until the end.
    ZoneLoss {
        /// Which zone; any when absent.
        zone: Option<ZoneName>,
        /// How long.
        lasts: Duration,
    },
    /// `kill -9` of the node.
    NodeKill,
    /// `kill -9` of the agent.
    AgentKill,
}
