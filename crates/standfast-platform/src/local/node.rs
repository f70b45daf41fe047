//! Keeps the node alive: started, watched, started again at once.

use std::time::Duration;

use rustix::process::Signal;
use standfast_runtime::Backoff;

use super::api::NodeInfo;
use super::core::{Core, Down};
use super::process::{Process, SpawnOrder};
use super::procfs::INSTANCE_VARIABLE;

/// Between starts of a node that does not stay up; the first is at once.
const BACKOFF: Backoff = Backoff { base: Duration::from_millis(50), cap: Duration::from_secs(5) };
/// A node that stayed up so long has not failed to start.
const STAYED_UP: Duration = Duration::from_secs(10);
/// From SIGTERM to SIGKILL.
const GRACE: Duration = Duration::from_secs(5);

/// Keeps a node running until the agent goes down. `adopted` is one that a predecessor started.
pub(crate) async fn keep(core: Core, command: Vec<String>, mut adopted: Option<Process>) {
    let supervised = core.supervise();
    let (mut down, mut failures) = (core.down(), 0_u32);
    while *down.borrow() == Down::No {
        let process = match adopted.take() {
            Some(process) => Some(process),
            None => start(&core, &command),
        };
        let began = core.clock().now();
        if let Some(process) = process {
            tokio::select! {
                biased;
                () = process.ended() => {}
                () = asked(&mut down) => stop(&core, &process).await,
            }
            tidy(&core, process);
        }
        failures = if core.clock().now().since(began) >= STAYED_UP { 0 } else { failures.saturating_add(1) };
        if failures > 1 {
            let pause = BACKOFF.ceiling(failures - 2).mul_f64(0.5 + core.jitter() / 2.0);
            tokio::select! {
                biased;
                () = asked(&mut down) => {}
                () = core.sleep(pause) => {}
            }
        }
    }
    drop(supervised);
}

async fn asked(down: &mut tokio::sync::watch::Receiver<Down>) {
    let _the_agent_is_gone_too = down.wait_for(|down| *down != Down::No).await.is_err();
}

/// How the output of the n-th node is called.
pub(crate) fn writer(number: u64) -> String {
    format!("_node.{number}")
}

/// The mark of the n-th node.
pub(crate) fn mark(core: &Core, number: u64) -> String {
    format!("{}/{}/0/{}", core.config().stack, writer(number), core.fingerprint())
}

fn start(core: &Core, command: &[String]) -> Option<Process> {
    let (number, _) = core.change(|state| {
        state.node.started += 1;
        (state.node.started, false)
    });
    let mut environment = core.config().base_environment.clone();
    environment.insert(INSTANCE_VARIABLE.into(), mark(core, number));
    let started =
        core.logs().open_spool(&writer(number)).map_err(|error| error.to_string()).and_then(|(out, err)| {
            let working_dir = core.state_dir().root();
            let order = SpawnOrder { command, working_dir, environment: &environment, out, err };
            Process::spawn(order).map_err(|error| error.to_string())
        });
    match started {
        Ok(process) => {
            let info = NodeInfo { process: process.id(), since: core.clock().now(), restarts: number - 1 };
            core.change(|state| (state.node.info.replace(info), false));
            Some(process)
        }
        Err(error) => {
            tracing::error!(error, "the node cannot be started");
            core.logs().close(&writer(number), core.clock().now());
            None
        }
    }
}

async fn stop(core: &Core, process: &Process) {
    let _it_may_have_ended = process.signal(Signal::TERM);
    if core.clock().timeout(GRACE, process.ended()).await.is_err() {
        let _it_may_have_ended = process.signal(Signal::KILL);
        process.ended().await;
    }
}

fn tidy(core: &Core, process: Process) {
    let number = core.state().node.started;
    let reason = process.exit_reason();
    tracing::warn!(pid = process.id().pid, %reason, "the node ended");
    process.kill_rest_of_group();
    core.change(|state| (state.node.info.take(), false));
    // The next node need not wait for what is left of this one.
    let core = core.clone();
    let (writer, mark, supervised) = (writer(number), mark(&core, number), core.supervise());
    core.clone().tasks().spawn("tidy up after a node", standfast_runtime::OnStop::Wait, async move {
        process.sweep(mark).await;
        process.reap();
        let (logs, now) = (core.logs().clone(), core.clock().now());
        if let Err(error) = tokio::task::spawn_blocking(move || logs.close(&writer, now)).await {
            tracing::error!(%error, "the node's last output could not be collected");
        }
        drop(supervised);
    });
}
