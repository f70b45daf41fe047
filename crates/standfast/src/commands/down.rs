//! `down`: stop a running stack.

use super::Call;
use super::running::Place;
use crate::args::DownArgs;
use crate::exit;
use crate::failure::Failure;
use crate::output::{Paint, for_people};
use standfast_runtime::Clock;

/// Stops a running stack; one that does not run is fine.
pub(crate) fn down(args: &DownArgs, call: &Call) -> Result<u8, Failure> {
    let place = call.place_despite_workflows(&args.stack)?;
    call.block_on(stop(&place, call))?;
    if args.forget {
        match std::fs::remove_dir_all(&place.state_dir) {
            Ok(()) => call.output.note(format!("removed {}", place.state_dir.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                let what = format!("cannot remove {}", place.state_dir.display());
                return Err(if error.kind() == std::io::ErrorKind::PermissionDenied {
                    Failure::input(what).because(&error).hint("use the account that started the stack")
                } else {
                    Failure::because_of(what, &error)
                });
            }
        }
    }
    Ok(exit::DONE)
}

/// Stops all replicas, the node and the agent.
pub(crate) async fn stop(place: &Place, call: &Call) -> Result<(), Failure> {
    let Some((running, info)) = place.running_if_any().await? else {
        call.output.note(format!("stack `{}` does not run", place.stack.name));
        return Ok(());
    };
    let clock = Clock::system();
    let started = clock.now();
    let progress = call.output.progress(format!("stopping {}", info.stack));
    let report = running.stop().await.map_err(|error| {
        Failure::because_of("cannot stop the stack", &error)
            .hint(format!("its agent is process {}; kill -9 leaves replicas running", info.process.pid))
    })?;
    drop(progress);
    call.output.note(format!(
        "{} {}: {} replicas stopped in {}",
        call.output.paint(Paint::Good, "down"),
        info.stack,
        report.stopped,
        for_people(clock.now().since(started))
    ));
    Ok(())
}
