//! `up`: run the stack on this machine.

use standfast_node::{LaunchOptions, Running, StatusAnswer, launch};
use standfast_runtime::{Clock, Net};

use super::running::{Place, admin_failure, launch_failure};
use super::status::describe;
use super::{Call, down};
use crate::args::UpArgs;
use crate::build::{self, BuildFailure};
use crate::exit;
use crate::failure::Failure;
use crate::output::{Paint, Progress, for_people};

/// Brings the stack up, or attaches to the one that runs.
pub(crate) fn up(args: UpArgs, call: &Call) -> Result<u8, Failure> {
    let place = call.place(&args.stack)?;
    call.block_on(async {
        let attached = place.running_if_any().await?.is_some_and(|(_, info)| !info.going_down);
        if !attached && !args.no_build {
            build::build(&place.stack, call.output).map_err(|failure| build_failure(&failure))?;
        }
        let running = tokio::select! {
            biased;
            ready = start(&place, &args, attached, call) => match ready {
                Ok(running) => running,
                Err(failure) => {
                    if !attached && let Ok(Some(_)) = place.running_if_any().await {
                        down::stop(&place, call).await?;
                    }
                    return Err(failure);
                }
            },
            _ = tokio::signal::ctrl_c() => {
                if !attached {
                    down::stop(&place, call).await?;
                }
                return Ok(exit::INTERRUPTED);
            }
        };
        if args.detach {
            call.output
                .note(format!("it goes on in the background; to end it: standfast down {}", place.named));
            return Ok(exit::DONE);
        }
        follow(&place, &running, attached, call).await
    })
}

/// A build that failed, with its output.
pub(crate) fn build_failure(failure: &BuildFailure) -> Failure {
    let names: Vec<&str> = failure.services.iter().map(standfast_model::ServiceName::as_str).collect();
    Failure::input(format!("cannot build {}: {}", names.join(", "), failure.outcome))
        .detail(failure.output.join("\n"))
        .hint(format!(
            "run it by hand: cd {} && {}",
            failure.build.working_dir.display(),
            failure.build.command.join(" ")
        ))
}

async fn start(place: &Place, args: &UpArgs, attached: bool, call: &Call) -> Result<Running, Failure> {
    let clock = Clock::system();
    let started = clock.now();
    let workflow_keys: Vec<_> =
        args.workflow_key.iter().map(|file| call.surroundings.working_dir.join(file)).collect();
    super::workflow_secrets::read_keys(&workflow_keys)?;
    let options = LaunchOptions {
        state_dir: place.state_dir.clone(),
        executable: call.surroundings.executable.clone(),
        public: args.listen,
        metrics: args.metrics,
        otlp: call.otlp(),
        workflow_keys,
        environment: call.surroundings.variables.clone(),
        scratch: None,
        plant: None,
    };
    let mut progress = call.output.progress(format!("starting {}", place.stack.name));
    let running = launch(&place.stack, &options, Net::real(), clock)
        .await
        .map_err(|error| launch_failure(place, &error))?;
    if attached {
        let plan = running.node.plan(&place.stack).await;
        let plan =
            plan.map_err(|error| admin_failure("the stack runs, but its node does not answer", &error))?;
        let changes = plan.changes.len();
        drop(progress);
        call.output.note(format!("stack `{}` runs already: attached", place.stack.name));
        if args.metrics.is_some() {
            call.output.note("--metrics has no effect: it is for the start");
        }
        if !args.workflow_key.is_empty() {
            call.output.note("--workflow-key has no effect: it is for the start");
        }
        if changes > 0 {
            let hint = format!("standfast plan {}", place.named);
            call.output
                .note(format!("its files differ from what runs in {changes} places; see them: {hint}"));
        }
        return Ok(running);
    }
    let applied = running.node.apply(&place.stack, None, &call.surroundings.user(), "up").await;
    applied.map_err(|error| admin_failure("cannot start the stack", &error))?;
    let status = running
        .wait_ready(args.wait, |status| progress.set(summary(status), false))
        .await
        .map_err(|error| admin_failure("the node does not answer", &error))?;
    drop(progress);
    if let Err(failure) = call.output.data(&describe(&status, call.output)) {
        failure.print(call.output); // It runs all the same.
    }
    if !status.all_ready {
        return Err(Failure::new(1, "the stack did not become ready")
            .hint("the reasons are above; what the services printed was kept until now: see `last output`, or run the command by hand"));
    }
    call.output.note(format!(
        "\n{} in {}",
        call.output.paint(Paint::Good, "up"),
        for_people(clock.now().since(started))
    ));
    Ok(running)
}

fn summary(status: &StatusAnswer) -> String {
    let parts: Vec<String> = status
        .services
        .iter()
        .map(|(name, service)| format!("{name} {}/{}", service.ready, service.wanted))
        .collect();
    format!("starting {}: {}", status.stack, parts.join(", "))
}

/// Stays until Ctrl-C (which takes the stack down, unless another `up` had brought it up) or until it is taken down elsewhere.
async fn follow(place: &Place, running: &Running, attached: bool, call: &Call) -> Result<u8, Failure> {
    let ending = if attached { "Ctrl-C detaches" } else { "Ctrl-C stops it" };
    call.output.note(format!("{ending}; see it with: standfast status {}", place.named));
    let clock = Clock::system();
    let mut progress = call.output.is_interactive().then(|| call.output.progress("running"));
    let watch = async {
        loop {
            if running.agent_info().await.is_none() {
                // One look may fall into the moment in which a new agent takes over.
                clock.sleep(std::time::Duration::from_secs(2)).await;
                if running.agent_info().await.is_none() {
                    return;
                }
            }
            if let (Some(progress), Ok(status)) = (&mut progress, running.node.status().await) {
                show(progress, &status);
            }
            clock.sleep(std::time::Duration::from_secs(1)).await;
        }
    };
    tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {}
        () = watch => {
            call.output.note("the stack was taken down");
            return Ok(exit::DONE);
        }
    }
    drop(progress);
    if attached {
        return Ok(exit::DONE);
    }
    down::stop(place, call).await?;
    Ok(exit::DONE)
}

fn show(progress: &mut Progress, status: &StatusAnswer) {
    let parts: Vec<String> = status
        .services
        .iter()
        .map(|(name, service)| {
            format!("{name} {}/{} ({} requests)", service.ready, service.wanted, service.requests.total)
        })
        .collect();
    progress.set(parts.join(" · "), false);
}
