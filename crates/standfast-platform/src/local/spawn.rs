use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;

use standfast_runtime::Disk;

use super::config::{AgentConfig, StateDir};
use super::procfs::INSTANCE_VARIABLE;

/// The agent's own log is begun anew at its start when it is larger; one old one is kept.
const AGENT_LOG_BYTES_MAX: u64 = 4 << 20;
/// Keeps `config` in its state folder and starts the agent there, detached from this process and its terminal. It is up
/// when it answers ([`AgentClient::wait_until_up`](super::AgentClient::wait_until_up)); if it never does, `logs/agent.log` says why. Must be called within
/// a runtime.
///
/// # Errors
/// What the operating system says about the folder or the program.
pub fn spawn_agent(config: &AgentConfig, disk: &dyn Disk) -> io::Result<()> {
    config.write(disk)?;
    start(config).map(|_pid| ())
}

/// Starts the agent of a state folder again, as it was configured there. The result is its process, unless that has ended already.
///
/// # Errors
/// `NotFound` when the folder was removed; what the operating system says.
pub fn respawn_agent(state_dir: &std::path::Path, disk: &dyn Disk) -> io::Result<Option<u32>> {
    start(&AgentConfig::read(disk, state_dir)?)
}

fn start(config: &AgentConfig) -> io::Result<Option<u32>> {
    let state = StateDir::new(&config.state_dir);
    std::fs::create_dir_all(state.logs())?;
    let log = state.agent_log();
    if std::fs::metadata(&log).is_ok_and(|found| found.len() > AGENT_LOG_BYTES_MAX) {
        std::fs::rename(&log, log.with_extension("log.1"))?;
    }
    let log = File::options().create(true).append(true).mode(0o600).open(log)?;
    let [program, arguments @ ..] = config.agent_command.as_slice() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the agent's command is empty"));
    };
    // The agent leaves our session by itself, first thing. A child that tokio's runtime was not told to wait for is
    // reaped by it all the same.
    let child = tokio::process::Command::new(program)
        .args(arguments)
        .current_dir("/")
        .env_remove(INSTANCE_VARIABLE) // ours, when a node starts it: with it the agent would be swept away with the node
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    Ok(child.id())
}
