use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Stdio;
use std::time::Duration;

use standfast_runtime::{Backoff, Clock, Disk, Rng, Stop};

use super::client::{AgentClient, TakenSockets};
use super::config::{AgentConfig, StateDir};
use super::procfs::INSTANCE_VARIABLE;

/// The agent's own log is begun anew at its start when it is larger; one old one is kept.
const AGENT_LOG_BYTES_MAX: u64 = 4 << 20;
/// How long a new agent may take to answer.
const UP_WITHIN: Duration = Duration::from_secs(10);
/// Between attempts to start one.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(20), cap: Duration::from_secs(2) };

/// Keeps `config` in its state folder and starts the agent there, detached from this process and its terminal. It is up
/// when it answers ([`AgentClient::wait_until_up`]); if it never does, `logs/agent.log` says why. Must be called within
/// a runtime.
///
/// # Errors
/// What the operating system says about the folder or the program.
pub fn spawn_agent(config: &AgentConfig, disk: &dyn Disk) -> io::Result<()> {
    config.write(disk)?;
    start(config)
}

/// Starts the agent of a state folder again, as it was configured there.
///
/// # Errors
/// `NotFound` when the folder was removed; what the operating system says.
pub fn respawn_agent(state_dir: &std::path::Path, disk: &dyn Disk) -> io::Result<()> {
    start(&AgentConfig::read(disk, state_dir)?)
}

fn start(config: &AgentConfig) -> io::Result<()> {
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
    drop(child);
    Ok(())
}

/// For a node: whenever the agent dies, starts the next one and gives it the listening sockets. Ends when asked to, or
/// when the state folder is gone.
pub async fn keep_agent_alive(
    client: AgentClient,
    sockets: TakenSockets,
    disk: std::sync::Arc<dyn Disk>,
    clock: Clock,
    mut rng: Rng,
    stop: Stop,
) {
    let mut failures = 0;
    loop {
        tokio::select! {
            biased;
            () = stop.requested() => return,
            () = client.gone() => {}
        }
        if let Err(error) = respawn_agent(client.state_dir(), disk.as_ref()) {
            if error.kind() == io::ErrorKind::NotFound {
                return;
            }
            tracing::error!(%error, "the agent cannot be started again");
        }
        match client.wait_until_up(UP_WITHIN).await {
            Ok(info) => {
                tracing::warn!(pid = info.process.pid, "the agent was gone; there is another");
                failures = 0;
                if let Err(error) = client.return_sockets(&sockets).await {
                    tracing::error!(%error, "the listening sockets could not be given to the new agent");
                }
            }
            Err(error) => {
                tracing::error!(%error, "the new agent does not answer");
                clock.sleep(BACKOFF.wait(failures, &mut rng)).await;
                failures = failures.saturating_add(1);
            }
        }
    }
}
