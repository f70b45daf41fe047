use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use standfast_model::{Revision, StackName, ZoneName};
use standfast_runtime::Disk;

/// The format of the state folder. A folder of another format is refused, never guessed at.
pub const STATE_VERSION: u32 = 1;

/// Variables that replicas inherit from whoever started the stack. Everything else comes from the order, so that a
/// stack behaves the same from whichever shell it was started.
const BASIC_VARIABLES: [&str; 14] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TZ",
    "TMPDIR",
    "TERM",
    "XDG_RUNTIME_DIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "LD_LIBRARY_PATH",
];

/// How an agent is to be. It is kept in the state folder, so that a node can start the agent again with nothing but the
/// folder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// Where everything is kept; absolute.
    pub state_dir: PathBuf,
    /// Whose replicas these are.
    pub stack: StackName,
    /// The zones in their order, which gives each its subnet: the n-th is `127.A.n.0/24`. Zones that first appear in an
    /// order come after.
    pub zones: Vec<ZoneName>,
    /// The command that runs this agent, `standfast agent --state DIR`.
    pub agent_command: Vec<String>,
    /// The node to keep alive; none when absent.
    pub node_command: Option<Vec<String>>,
    /// What every replica and the node inherit: see [`basic_environment`].
    pub base_environment: BTreeMap<String, String>,
    /// Whether faults may be injected here. Otherwise each attempt is refused.
    pub faults_allowed: bool,
    /// Without a renewal for so long the agent takes everything down. `None`: it stays until told.
    pub lease_ttl: Option<Duration>,
    /// Whether the state folder is removed at the end.
    pub ephemeral: bool,
    /// How much of the logs is kept.
    pub logs: LogLimits,
    /// Whether replicas get control groups, where the machine lets us: limits, and a way to kill that nothing escapes.
    pub control_groups: bool,
    /// Bugs to have, to show that `prove` finds them.
    #[cfg(feature = "planted-bugs")]
    #[serde(default)]
    pub planted: Vec<PlantedBug>,
}

/// A bug that a build with the feature `planted-bugs` can be told to have.
#[cfg(feature = "planted-bugs")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlantedBug {
    /// Replicas are reported as ready without being asked, and never as anything else.
    AlwaysHealthy,
    /// Faults are recorded and reported as done, but not carried out.
    FaultDoesNothing,
}

/// How much of one service's log is kept: a file is closed at the first of its limits, and the oldest goes at the first
/// of theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogLimits {
    /// The size at which a file is closed.
    pub file_bytes_max: u64,
    /// Files per service, the open one included.
    pub files_max: usize,
    /// Closed files last written longer ago are removed.
    pub age_max: Duration,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { file_bytes_max: 8 << 20, files_max: 5, age_max: Duration::from_secs(7 * 24 * 3_600) }
    }
}

impl AgentConfig {
    /// The usual agent for a stack: no node, no faults, no lease, kept state.
    ///
    /// `program` is the `standfast` binary; `state_dir` must be absolute.
    pub fn new(state_dir: impl Into<PathBuf>, stack: StackName, program: impl AsRef<Path>) -> Self {
        let state_dir = state_dir.into();
        let text = |path: &Path| path.to_string_lossy().into_owned();
        Self {
            agent_command: vec![text(program.as_ref()), "agent".into(), "--state".into(), text(&state_dir)],
            state_dir,
            stack,
            zones: Vec::new(),
            node_command: None,
            base_environment: BTreeMap::new(),
            faults_allowed: false,
            lease_ttl: None,
            ephemeral: false,
            logs: LogLimits::default(),
            control_groups: true,
            #[cfg(feature = "planted-bugs")]
            planted: Vec::new(),
        }
    }

    /// The configuration kept in a state folder.
    ///
    /// # Errors
    /// `NotFound` when none was kept there, `InvalidData` when it is not one of ours.
    pub fn read(disk: &dyn Disk, state_dir: &Path) -> io::Result<Self> {
        let bytes = disk.read(&StateDir::new(state_dir).config())?;
        serde_json::from_slice(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }

    /// Keeps the configuration in its state folder, which is made when absent, for this user only.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        disk.make_folder(&self.state_dir)?;
        std::fs::set_permissions(&self.state_dir, std::fs::Permissions::from_mode(0o700))?;
        disk.replace(&StateDir::new(&self.state_dir).config(), &serde_json::to_vec_pretty(self)?)
    }

    #[cfg(feature = "planted-bugs")]
    pub(crate) fn has_planted(&self, bug: PlantedBug) -> bool {
        self.planted.contains(&bug)
    }
}

/// Picks from the variables of a process those that replicas inherit: the way to programs, home, language, time zone,
/// certificates.
pub fn basic_environment(variables: impl IntoIterator<Item = (String, String)>) -> BTreeMap<String, String> {
    variables
        .into_iter()
        .filter(|(name, _)| BASIC_VARIABLES.contains(&name.as_str()) || name.starts_with("LC_"))
        .collect()
}

/// The places in a state folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The places in `root`.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// The folder's format.
    pub fn version(&self) -> PathBuf {
        self.0.join("version")
    }

    /// How the agent is to be.
    pub fn config(&self) -> PathBuf {
        self.0.join("config.json")
    }

    /// Held by the running agent.
    pub fn lock(&self) -> PathBuf {
        self.0.join("agent.lock")
    }

    /// What the agent holds and has done.
    pub fn ledger(&self) -> PathBuf {
        self.0.join("agent.json")
    }

    /// Where the agent answers.
    pub fn socket(&self) -> PathBuf {
        self.0.join("agent.sock")
    }

    /// Where listening sockets change hands.
    pub fn sockets(&self) -> PathBuf {
        self.0.join("sockets.sock")
    }

    /// The logs.
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// What the agent itself writes.
    pub fn agent_log(&self) -> PathBuf {
        self.logs().join("agent.log")
    }

    /// Output that replicas wrote and the agent has not read yet.
    pub(crate) fn spool(&self) -> PathBuf {
        self.logs().join("spool")
    }

    /// What tells this folder's processes from all others on the machine: 16 hexadecimal digits of its real path.
    pub fn fingerprint(&self) -> String {
        let real = std::fs::canonicalize(&self.0).unwrap_or_else(|_| self.0.clone());
        Revision::of(real.as_os_str().as_bytes()).as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use standfast_runtime::SimulatedDisk;

    use super::*;

    #[test]
    fn a_kept_configuration_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let (disk, mut config) = (
            standfast_runtime::RealDisk,
            AgentConfig::new(folder.path(), "shop".parse().unwrap(), "/usr/bin/standfast"),
        );
        config.lease_ttl = Some(Duration::from_secs(30));
        config.write(&disk).unwrap();
        assert_eq!(AgentConfig::read(&disk, folder.path()).unwrap(), config);
        let absent = AgentConfig::read(&SimulatedDisk::default(), folder.path()).unwrap_err();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn replicas_inherit_the_basics_only() {
        let all =
            [("PATH", "/bin"), ("LC_ALL", "C"), ("AWS_SECRET_ACCESS_KEY", "x"), ("STANDFAST_INSTANCE", "y")];
        let kept = basic_environment(all.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(kept.into_keys().collect::<Vec<_>>(), ["LC_ALL", "PATH"]);
    }
}
