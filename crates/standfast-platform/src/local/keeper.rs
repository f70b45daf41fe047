//! The loop that makes what runs equal to what is wanted: it wakes without data, looks at everything, and starts what
//! has its place in the ledger.

use std::time::Duration;

use standfast_model::Instance;
use standfast_runtime::OnStop;

use super::core::Core;
use super::environment::{Given, environment};
use super::process::{Process, SpawnOrder};
use super::supervise;
use crate::ExitReason;
use crate::decide::Life;

/// Without any event the keeper looks again after so long.
const PERIOD: Duration = Duration::from_secs(5);
/// After the ledger could not be written, until starts are tried again.
const LEDGER_PAUSE: Duration = Duration::from_millis(500);

pub(crate) async fn keep(core: Core) {
    loop {
        let again_at = advance(&core).0;
        let unstarted = core.state().unstarted();
        if !unstarted.is_empty() {
            let number = *core.ledger_changes().borrow();
            if core.durable(number).await.is_err() {
                core.clock().sleep(LEDGER_PAUSE).await;
                continue;
            }
            unstarted.iter().for_each(|instance| start(&core, instance));
            continue;
        }
        let now = core.clock().now();
        let pause = again_at.map_or(PERIOD, |at| at.since(now).min(PERIOD));
        tokio::select! {
            biased;
            () = core.keeper_woken() => {}
            () = core.sleep(pause) => {}
        }
    }
}

/// One step of the state. Returns when to look again though nothing happens, and the change's number.
pub(crate) fn advance(core: &Core) -> (Option<standfast_model::Stamp>, u64) {
    let now = core.clock().now();
    core.change_if(|state| {
        let (decision, is_visible) = state.advance(core.fingerprint(), now);
        (decision.again_at, is_visible)
    })
}

/// Starts the process of an instance whose place is in the ledger.
fn start(core: &Core, instance: &Instance) {
    let is_unwanted = core.state().held.get(instance).is_some_and(|held| held.life() == Life::Stops);
    if is_unwanted {
        let now = core.clock().now();
        core.change_held(instance, |held| held.turn_exited(now, ExitReason::Stopped, Vec::new()));
        return;
    }
    let process = match spawn(core, instance) {
        Ok(Some(process)) => process,
        Ok(None) => return,
        Err(reason) => {
            tracing::warn!(%instance, reason, "a replica could not be started");
            let (now, last) = (core.clock().now(), Vec::new());
            core.change_held(instance, |held| held.turn_exited(now, ExitReason::NotStarted(reason), last));
            core.logs().close(&instance.to_string(), now);
            return;
        }
    };
    let id = process.id();
    let zone = core.change_held(instance, |held| {
        held.process = Some(id);
        held.zone.clone()
    });
    // A zone that was lost while its replica was being started must not get it.
    if zone.is_some_and(|zone| core.state().lost_zones().contains(&zone)) {
        let _it_may_have_ended = process.signal(rustix::process::Signal::KILL);
    }
    let supervised = core.supervise();
    core.tasks().spawn(
        "replica",
        OnStop::Abort,
        supervise::replica(core.clone(), instance.clone(), process, supervised),
    );
}

fn spawn(core: &Core, instance: &Instance) -> Result<Option<Process>, String> {
    let (launch, environment) = {
        let state = core.state();
        let Some(held) = state.held.get(instance) else { return Ok(None) };
        let mark = core.mark(instance, held.generation);
        let given = Given {
            stack: &core.config().stack,
            instance,
            zone: &held.zone,
            address: held.address,
            mark: &mark,
        };
        (
            held.launch.clone(),
            environment(&core.config().base_environment, &state.wanted, &held.launch, given),
        )
    };
    let (out, err) =
        core.logs().open_spool(&instance.to_string()).map_err(|error| format!("its output file: {error}"))?;
    let order = SpawnOrder {
        command: &launch.command,
        working_dir: &launch.working_dir,
        environment: &environment,
        out,
        err,
    };
    Process::spawn(order).map(Some).map_err(|error| error.to_string())
}
