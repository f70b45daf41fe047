//! Starting a stack on this machine, finding one that runs, and making sure that nothing is left of one that ended.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use standfast_model::{Otlp, Stack};
use standfast_platform::local::{
    AgentClient, AgentConfig, AgentError, AgentInfo, DownReport, INSTANCE_VARIABLE, StateDir,
    basic_environment, listener_of, spawn_agent,
};
use standfast_runtime::{Clock, Net, RealDisk};
use standfast_workflow::ContainerConfig;

use crate::answers::StatusAnswer;
use crate::client::{AdminClient, AdminError};
use crate::settings::{LAYOUT_VERSION, Settings, SettingsError};

/// How long an agent may take to answer after its start.
const AGENT_START_MAX: Duration = Duration::from_secs(15);
/// How long a node may take to answer after its agent does.
const NODE_START_MAX: Duration = Duration::from_secs(30);
/// How long a stop may be tried.
const STOP_MAX: Duration = Duration::from_secs(30);
/// How long processes may take to be gone after the stop.
const GONE_MAX: Duration = Duration::from_secs(5);
/// How long to wait between two looks at whether all is ready.
const LOOK_EVERY: Duration = Duration::from_millis(25);
/// How much of a log is told of one that did not come up.
const LAST_LINES: usize = 6;

/// How a stack is to be started.
#[derive(Debug, Clone)]
pub struct LaunchOptions {
    /// Where it keeps its state; absolute.
    pub state_dir: PathBuf,
    /// This program.
    pub executable: PathBuf,
    /// Where the gateway takes requests from outside; port 0 is any free one.
    pub public: SocketAddr,
    /// Where metrics are given to whoever asks; `None` is nowhere but at the admin socket.
    pub metrics: Option<SocketAddr>,
    /// Where spans go when the stack says nothing of that.
    pub otlp: Option<Otlp>,
    /// Files of the keys by which records of workflows are sealed, absolute: the first one seals.
    pub workflow_keys: Vec<PathBuf>,
    /// The caller's environment, of which replicas get the basics.
    pub environment: BTreeMap<String, String>,
    /// For a stack that is there for a proof only.
    pub scratch: Option<Scratch>,
    /// A planted bug; only test builds know any.
    pub plant: Option<String>,
}

/// A stack that is there for a proof only: faults are allowed, and nothing is left of it.
#[derive(Debug, Clone, Copy)]
pub struct Scratch {
    /// Everything ends by itself when nobody has renewed the lease for so long.
    pub lease: Duration,
}

/// Why a stack could not be started or found.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The state folder cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// A port that the stack needs belongs to another process.
    #[error("port {} of {} is in use{}", .address.port(), .address.ip(), .holder.as_ref().map(|who| format!(" by {who}")).unwrap_or_default())]
    PortInUse {
        /// The address.
        address: SocketAddr,
        /// Whose it is, when that can be told.
        holder: Option<String>,
    },
    /// A port that the stack needs cannot be opened.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The agent cannot be configured or started.
    #[error("cannot start an agent in {}", .state_dir.display())]
    Spawn {
        /// The state folder.
        state_dir: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The agent ended, or does not answer.
    #[error("the agent did not come up; its last words: {last_words}")]
    Agent {
        /// The end of its log.
        last_words: String,
        /// Why.
        source: AgentError,
    },
    /// The node ended, or does not answer.
    #[error("the node did not come up; its last words: {last_words}")]
    Node {
        /// The end of its log.
        last_words: String,
        /// Why.
        source: AdminError,
    },
}

/// A stack that runs.
#[derive(Debug, Clone)]
pub struct Running {
    /// Its agent.
    pub agent: AgentClient,
    /// Its node.
    pub node: AdminClient,
    clock: Clock,
}

impl Running {
    /// The interfaces of a state folder, whether anything runs there or not.
    pub fn at(state_dir: &Path, net: Net, clock: Clock) -> Self {
        let agent = AgentClient::new(state_dir, net, clock);
        Self { agent, node: AdminClient::new(state_dir, net, clock), clock }
    }

    /// The agent, if one runs there.
    pub async fn agent_info(&self) -> Option<AgentInfo> {
        self.agent.info().await.ok().filter(|info| !info.going_down)
    }

    /// Waits until every service is ready, telling each status seen, for at most `limit`; gives the last status.
    ///
    /// # Errors
    /// The last error when no status could be had.
    pub async fn wait_ready(
        &self,
        limit: Duration,
        mut tell: impl FnMut(&StatusAnswer),
    ) -> Result<StatusAnswer, AdminError> {
        let deadline = self.clock.now().plus(limit);
        loop {
            let answer = self.node.status().await;
            if let Ok(status) = &answer {
                tell(status);
            }
            let is_done = answer.as_ref().is_ok_and(|status| status.all_ready || is_hopeless(status));
            if is_done || self.clock.now() >= deadline {
                return answer;
            }
            self.clock.sleep(LOOK_EVERY).await;
        }
    }

    /// Stops everything: nothing is wanted any more, all replicas end within their grace periods, and agent and node end.
    ///
    /// # Errors
    /// [`AgentError`] when the agent could not be told; a stack that does not run is an [`AgentError::Unreachable`].
    pub async fn stop(&self) -> Result<DownReport, AgentError> {
        let running = match self.agent.inventory().await {
            Ok(seen) => seen.replicas.iter().filter(|replica| !replica.has_exited()).count(),
            Err(error) => return Err(error),
        };
        // The next `up` starts from "nothing is wanted" rather than from what was wanted last. Without a node the agent stops
        // everything all the same.
        if let Err(error) = self.node.down().await {
            tracing::debug!(%error, "the node could not be told");
        }
        let report = self.agent.down().await?;
        Ok(DownReport { stopped: report.stopped.max(running) })
    }

    /// Stops everything, by a new agent if the last one is gone, and looks what is left: processes that carry the stack's mark.
    pub async fn stop_and_look(&self) -> Vec<(u32, String)> {
        let deadline = self.clock.now().plus(STOP_MAX);
        while self.clock.now() < deadline {
            match self.stop().await {
                Ok(_) => break,
                Err(error) if error.may_be_retried() && self.agent.state_dir().exists() => {
                    // An agent that was killed a moment ago is being replaced by its node; one that has ended takes its folder along.
                    if marked(self.agent.state_dir()).is_empty() {
                        break;
                    }
                    self.clock.sleep(LOOK_EVERY).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the stack could not be stopped");
                    break;
                }
            }
        }
        let until = self.clock.now().plus(GONE_MAX);
        loop {
            let left = marked(self.agent.state_dir());
            if left.is_empty() || self.clock.now() >= until {
                return left;
            }
            self.clock.sleep(LOOK_EVERY).await;
        }
    }
}

/// What the agent or the node of a state folder last said in its own log: the error with which it last ended if that is the last of it,
/// else the last lines.
pub fn last_words(state_dir: &Path, log: &str) -> String {
    let path = state_dir.join("logs").join(log);
    let text =
        std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().map(without_frame).collect();
    let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
    if last.is_empty() {
        return "none".into();
    }
    match last.iter().rposition(|line| line.starts_with("error: ")) {
        Some(at) => last[at..].join("; "),
        None => last.join(" | "),
    }
}

/// A line of a log without what the agent puts before it: the time, who said it, where, and how long it is.
fn without_frame(line: &str) -> &str {
    let mut parts = line.splitn(5, ' ');
    let frame = (parts.next(), parts.next(), parts.next(), parts.next(), parts.next());
    match frame {
        (Some(_), Some(_), Some("err" | "out"), Some(length), Some(said))
            if length.parse::<u64>().is_ok() =>
        {
            said.trim()
        }
        _ => line,
    }
}

/// Living processes whose arguments or environment name a state folder, without this one.
fn marked(state_dir: &Path) -> Vec<(u32, String)> {
    let fingerprint = StateDir::new(state_dir).fingerprint();
    let folder = state_dir.to_string_lossy().into_owned();
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers =
        entries.flatten().filter_map(|entry| entry.file_name().to_string_lossy().parse::<u32>().ok());
    let look = |pid: u32| {
        let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let environment = read("environ");
        let environment = String::from_utf8_lossy(&environment);
        let is_replica = environment.split('\0').any(|variable| {
            variable.starts_with(INSTANCE_VARIABLE) && variable.ends_with(fingerprint.as_str())
        });
        (is_replica || arguments.contains(&folder)).then_some((pid, arguments))
    };
    numbers.filter(|pid| *pid != std::process::id()).filter_map(look).collect()
}

/// Whether waiting is of no use: something never came up and fails again and again.
fn is_hopeless(status: &StatusAnswer) -> bool {
    status
        .services
        .values()
        .any(|service| service.ready == 0 && service.replicas.iter().any(|r| r.failures >= 4))
}

/// Starts agent and node in a state folder, or leaves those alone that run there; the caller applies the stack.
///
/// # Errors
/// See [`LaunchError`].
pub async fn launch(
    stack: &Stack,
    options: &LaunchOptions,
    net: Net,
    clock: Clock,
) -> Result<Running, LaunchError> {
    let running = Running::at(&options.state_dir, net, clock);
    if running.agent_info().await.is_none() {
        check_ports(stack, options)?;
        start(stack, options)?;
    }
    let last_words = |log: &str| last_words(&options.state_dir, log);
    if let Err(source) = running.agent.wait_until_up(AGENT_START_MAX).await {
        return Err(LaunchError::Agent { last_words: last_words("agent.log"), source });
    }
    if let Err(source) = running.node.wait_until_up(NODE_START_MAX).await {
        return Err(LaunchError::Node { last_words: last_words("node.log"), source });
    }
    Ok(running)
}

/// A port that cannot be had is told before anything is started. Another process may still be faster; then the node's log says so.
fn check_ports(stack: &Stack, options: &LaunchOptions) -> Result<(), LaunchError> {
    let published = stack.services.values().flat_map(|service| &service.ports);
    let published = published.map(|port| SocketAddr::from(([127, 0, 0, 1], port.published)));
    for address in published.chain([options.public]).chain(options.metrics) {
        match std::net::TcpListener::bind(address) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                return Err(LaunchError::PortInUse { address, holder: listener_of(address.port()) });
            }
            Err(source) => return Err(LaunchError::Listen { address, source }),
        }
    }
    Ok(())
}

/// Writes how agent and node are to be and starts the agent. A state folder of another layout is refused before anything is touched.
fn start(stack: &Stack, options: &LaunchOptions) -> Result<(), LaunchError> {
    let disk = RealDisk;
    if let Err(error @ SettingsError::OtherVersion { .. }) = Settings::read(&disk, &options.state_dir) {
        return Err(error.into());
    }
    let port = options.public.port();
    let settings = Settings {
        version: LAYOUT_VERSION,
        root: stack.root.clone(),
        public_address: options.public.ip(),
        public_port: (port != 0).then_some(port),
        workers: workers(),
        metrics: options.metrics,
        otlp: options.otlp.clone(),
        workflow_keys: options.workflow_keys.clone(),
        containers: ContainerConfig::of(&options.environment, Some(stack.root.clone())),
        plant: options.plant.clone(),
    };
    settings.write(&disk, &options.state_dir)?;
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut config = AgentConfig::new(&options.state_dir, stack.name.clone(), &options.executable);
    config.zones = stack.zones.clone();
    config.node_command =
        Some(vec![text(&options.executable), "node".into(), "--state".into(), text(&options.state_dir)]);
    config.base_environment = basic_environment(options.environment.clone());
    if let Some(scratch) = options.scratch {
        config.faults_allowed = true;
        config.ephemeral = true;
        config.lease_ttl = Some(scratch.lease);
    }
    #[cfg(feature = "planted-bugs")]
    crate::plant::into_agent(options.plant.as_deref(), &mut config);
    let state_dir = options.state_dir.clone();
    spawn_agent(&config, &disk).map_err(|source| LaunchError::Spawn { state_dir, source })
}

/// Gateway threads: one per core, at least two so that one busy thread does not hold up the other's connections, at most eight.
fn workers() -> u16 {
    std::thread::available_parallelism()
        .map_or(2, |cores| u16::try_from(cores.get()).unwrap_or(8).clamp(2, 8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_the_last_error_without_what_stands_around_it() {
        let folder = tempfile::tempdir().unwrap();
        let said = |text: &str| {
            std::fs::create_dir_all(folder.path().join("logs")).unwrap();
            std::fs::write(folder.path().join("logs/node.log"), text).unwrap();
            last_words(folder.path(), "node.log")
        };
        assert_eq!(last_words(folder.path(), "node.log"), "none");
        let ended = "2026-11-23T23:26:59.335Z _node.27 err 24 error: the node stopped\n\
                     2026-11-23T23:26:59.335Z _node.27 err 80   because: the key is missing\n";
        assert_eq!(said(&ended.repeat(3)), "error: the node stopped; because: the key is missing");
        assert_eq!(said("first\nsecond\n"), "first | second");
    }
}
