//! An agent of a temporary folder, and orders for it. Whatever a test leaves behind is killed when it ends.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use standfast_model::{
    HealthCheck, Instance, Limits, Probe, ReplicaId, Revision, ServiceName, Stamp, ZoneName,
};
use standfast_platform::local::{AgentClient, AgentConfig, ProcessId, StateDir, spawn_agent};
use standfast_platform::{Intent, Inventory, Launch, ReplicaState, SeenReplica, Wanted, WantedReplica};
use standfast_runtime::{Clock, Net, RealDisk};

/// Far beyond anything that should take so long, for a machine that does ten things at once.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) fn example(name: &str) -> PathBuf {
    let own = std::env::current_exe().unwrap();
    own.parent().and_then(Path::parent).unwrap().join("examples").join(name)
}

pub(crate) struct World {
    pub(crate) client: AgentClient,
    pub(crate) config: AgentConfig,
    pub(crate) wanted: Wanted,
    folder: tempfile::TempDir,
}

impl World {
    /// An agent that is up, after `change` to its configuration.
    pub(crate) async fn with(change: impl FnOnce(&mut AgentConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config =
            AgentConfig::new(folder.path().join("state"), "shop".parse().unwrap(), example("test_agent"));
        config.zones = ["a", "b", "c"].map(zone).to_vec();
        config.base_environment.insert("PATH".into(), "/usr/bin:/bin".into());
        config.faults_allowed = true;
        change(&mut config);
        let client = AgentClient::new(&config.state_dir, Net::real(), Clock::system());
        let world = Self { client, config, wanted: Wanted::default(), folder };
        world.spawn_agent().await;
        world
    }

    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn spawn_agent(&self) -> ProcessId {
        spawn_agent(&self.config, &RealDisk).unwrap();
        self.client.wait_until_up(LONG).await.unwrap().process
    }

    pub(crate) async fn kill_agent(&self) {
        let agent = self.client.info().await.unwrap().process;
        kill(agent.pid);
        until("the agent is gone", || async { (!agent.is_alive()).then_some(()) }).await;
    }

    /// Adds a replica of `service` in `zone` to the order; `environment` sets what the test service does.
    pub(crate) fn add(
        &mut self,
        service: &str,
        slot: u32,
        zone: &str,
        environment: &[(&str, &str)],
    ) -> Instance {
        self.add_with(service, slot, zone, environment, |_| {})
    }

    pub(crate) fn add_with(
        &mut self,
        service: &str,
        slot: u32,
        in_zone: &str,
        environment: &[(&str, &str)],
        change: impl FnOnce(&mut Launch),
    ) -> Instance {
        let mut launch = launch(environment);
        change(&mut launch);
        let revision = Revision::of(&serde_json::to_vec(&launch).unwrap());
        self.wanted.launches.insert(revision.clone(), launch);
        let instance = instance(service, slot, 1);
        self.wanted.replicas.push(WantedReplica {
            instance: instance.clone(),
            revision,
            zone: zone(in_zone),
            not_before: Stamp::EPOCH,
            intent: Intent::Run,
        });
        instance
    }

    /// Sends the order under the next number.
    pub(crate) async fn apply(&mut self) {
        self.wanted.generation = self.wanted.generation.next();
        self.client.apply(&self.wanted).await.unwrap();
    }

    pub(crate) async fn inventory(&self) -> Inventory {
        self.client.inventory().await.unwrap()
    }

    pub(crate) async fn find(&self, instance: &Instance) -> Option<SeenReplica> {
        let inventory = self.client.inventory().await.ok()?;
        inventory.replicas.into_iter().find(|seen| seen.instance == *instance)
    }

    /// Waits until the replica serves.
    pub(crate) async fn serving(&self, instance: &Instance) -> SeenReplica {
        let seen = std::cell::RefCell::new(None);
        let serving = until_or(
            || format!("{instance} serves; it is {:?}", seen.borrow()),
            || async {
                seen.replace(self.find(instance).await);
                seen.borrow().clone().filter(SeenReplica::is_serving)
            },
        );
        serving.await
    }

    /// Waits until the replica has exited.
    pub(crate) async fn exited(&self, instance: &Instance) -> ReplicaState {
        until(&format!("{instance} has exited"), || async {
            self.find(instance).await.filter(SeenReplica::has_exited)
        })
        .await
        .state
    }

    /// The processes that carry this folder's mark.
    pub(crate) fn processes(&self) -> Vec<u32> {
        marked(&StateDir::new(&self.config.state_dir).fingerprint())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let state = StateDir::new(&self.config.state_dir);
        let lock = std::fs::read(state.lock()).unwrap_or_default();
        if std::thread::panicking() {
            eprintln!("agent.log:\n{}", std::fs::read_to_string(state.agent_log()).unwrap_or_default());
        }
        // The node first, or it would start the next agent.
        let fingerprint = state.fingerprint();
        for _ in 0..50 {
            let agent: Option<ProcessId> =
                serde_json::from_slice(&std::fs::read(state.lock()).unwrap_or(lock.clone())).ok();
            let left: Vec<u32> = marked(&fingerprint)
                .into_iter()
                .chain(agent.filter(|a| a.is_alive()).map(|a| a.pid))
                .collect();
            if left.is_empty() {
                break;
            }
            left.into_iter().for_each(kill);
            std::thread::sleep(Duration::from_millis(10));
        }
        remove_groups(&format!("shop-{fingerprint}"));
    }
}

/// Removes the control groups that a killed agent left.
fn remove_groups(stack: &str) {
    let hierarchies =
        std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten().map(|entry| entry.path());
    for ours in hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|root| root.join("standfast")) {
        let folder = ours.join(stack);
        let groups = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
        for group in groups.filter(|group| group.is_dir()).chain([folder.clone(), ours]) {
            let _others_may_use_it = std::fs::remove_dir(group);
        }
    }
}

pub(crate) fn zone(name: &str) -> ZoneName {
    name.parse().unwrap()
}

pub(crate) fn service(name: &str) -> ServiceName {
    name.parse().unwrap()
}

pub(crate) fn instance(name: &str, slot: u32, attempt: u64) -> Instance {
    Instance { replica: ReplicaId { service: service(name), slot }, attempt }
}

pub(crate) fn launch(environment: &[(&str, &str)]) -> Launch {
    Launch {
        command: vec![example("test_service").to_string_lossy().into_owned()],
        working_dir: "/".into(),
        environment: environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        healthcheck: HealthCheck {
            probe: Probe::Http { path: "/healthz".into() },
            interval: Duration::from_millis(500),
            timeout: Duration::from_secs(5),
            retries: 3,
            start_period: Duration::from_secs(30),
        },
        limits: Limits::default(),
        stop_grace_period: Duration::from_secs(5),
    }
}

/// Asks again and again until there is an answer, within [`LONG`].
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, ask: impl FnMut() -> F) -> T {
    until_or(|| what.to_owned(), ask).await
}

/// The same, with what is said at the end of the time.
async fn until_or<T, F: Future<Output = Option<T>>>(
    what: impl Fn() -> String,
    mut ask: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + LONG;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {LONG:?}: {}", what());
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

pub(crate) fn kill(pid: u32) {
    signal(pid, rustix::process::Signal::KILL);
}

pub(crate) fn signal(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) {
        let _it_may_be_gone = rustix::process::kill_process(pid, signal);
    }
}

fn marked(fingerprint: &str) -> Vec<u32> {
    let pids = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let needle = format!("/{fingerprint}");
    pids.filter(|pid| {
        let environ = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let is_marked = environ
            .split(|b| *b == 0)
            .any(|entry| entry.starts_with(b"STANDFAST_INSTANCE=") && entry.ends_with(needle.as_bytes()));
        is_marked && ProcessId::of(*pid).is_some_and(ProcessId::is_alive)
    })
    .collect()
}

/// What the test service answers, as name and value.
pub(crate) async fn environment_of(seen: &SeenReplica) -> BTreeMap<String, String> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = Net::real().connect_tcp(seen.endpoint().unwrap()).await.unwrap();
    stream.write_all(b"GET /env HTTP/1.1\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.lines().filter_map(|line| line.split_once('=')).map(|(n, v)| (n.to_owned(), v.to_owned())).collect()
}
