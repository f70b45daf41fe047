//! `prove`: the main job. Bring the stack up in a scratch place, load it, break it, judge it, leave nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use standfast_model::{Experiment, Fault, LifecycleSink, Stack};
use standfast_node::{LaunchOptions, LocalTarget, Running, Scratch, StatusAnswer, launch, machine};
use standfast_prove::{Evidence, Judgement, Options, Progress, Proof, judge, report};
use standfast_runtime::{Clock, Net, OnStop, RealDisk, Rng, Stop, StopSource, Tasks};

use super::Call;
use super::running::{Place, admin_failure, launch_failure};
use super::up::build_failure;
use crate::args::{FaultKind, ProveArgs};
use crate::build;
use crate::exit;
use crate::failure::Failure;
use crate::output::{Output, Paint, for_people};

/// A stack under test ends by itself when `prove` has not renewed its lease for so long.
const LEASE: Duration = Duration::from_secs(10);
/// How often the lease is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(2);
/// How long the stack may take to be ready.
const READY_MAX: Duration = Duration::from_secs(60);
/// How long an interrupted proof may take to undo its faults.
const UNDO_MAX: Duration = Duration::from_secs(20);

/// Proves a stack.
pub(crate) fn prove(args: ProveArgs, call: &Call) -> Result<u8, Failure> {
    let mut stack = call.load(&args.stack)?;
    select(&mut stack, &args)?;
    tell_nobody_outside(&mut stack, call);
    check_machine(&stack, call)?;
    make_room_for_reports(&args)?;
    if !args.no_build {
        build::build(&stack, call.output).map_err(|failure| build_failure(&failure))?;
    }
    adopt_orphans();
    let done = call.block_on(async {
        let (source, stop) = StopSource::new();
        let work = Box::pin(run(&stack, &args, &stop, call));
        tokio::pin!(work);
        tokio::select! {
            biased;
            done = work.as_mut() => return done,
            _ = tokio::signal::ctrl_c() => {}
        }
        call.output.note("\nstopping: undoing faults, taking the stack down …");
        source.stop();
        match Clock::system().timeout(UNDO_MAX, work).await {
            Ok(Ok(_)) => Ok(exit::INTERRUPTED),
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::ours("could not clean up in time")
                .hint(format!("what is left ends by itself within {}", for_people(LEASE)))),
        }
    });
    bury_orphans();
    done
}

/// Replicas whose agent was killed become children of this process instead of the machine's first one, which in a container often
/// buries nobody: their remains would stay in the process table.
fn adopt_orphans() {
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        tracing::debug!(%error, "the remains of killed processes are left to the machine's first process");
    }
}

/// Takes the remains of all that has ended out of the process table.
fn bury_orphans() {
    use rustix::process::{WaitOptions, wait};
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}

/// Leaves the experiments that were asked for, and makes sure that there is something to prove.
fn select(stack: &mut Stack, args: &ProveArgs) -> Result<(), Failure> {
    if stack.load.is_empty() {
        return Err(Failure::input("the stack declares no load, so there is nothing to prove")
            .hint("add to standfast.yaml, for example: load: {visits: {path: /, rate: 100/s}}"));
    }
    if !args.only.is_empty() {
        stack.experiments.retain(|experiment| args.only.contains(&kind_of(experiment)));
        if stack.experiments.is_empty() {
            return Err(Failure::input("the stack has no experiment of the kinds given with --only")
                .hint("see `experiments:` in its standfast.yaml"));
        }
    }
    Ok(())
}

const fn kind_of(experiment: &Experiment) -> FaultKind {
    match experiment.fault {
        Fault::ReplicaKill { .. } => FaultKind::ReplicaKill,
        Fault::ReplicaFreeze { .. } => FaultKind::ReplicaFreeze,
        Fault::ZoneLoss { .. } => FaultKind::ZoneLoss,
        Fault::NodeKill => FaultKind::NodeKill,
        Fault::AgentKill => FaultKind::AgentKill,
    }
}

fn check_machine(stack: &Stack, call: &Call) -> Result<(), Failure> {
    let findings = machine::examine(stack, &call.surroundings.temporary);
    for note in &findings.notes {
        call.output.note(format!("{} {note}", call.output.paint(Paint::Dim, "machine:")));
    }
    if findings.obstacles.is_empty() {
        return Ok(());
    }
    let detail: Vec<String> = findings.obstacles.iter().map(|obstacle| format!("  - {obstacle}")).collect();
    Err(Failure::ours("this machine cannot run the proof")
        .detail(detail.join("\n"))
        .hint("mend what is listed and try again"))
}

/// A proof whose report could not be written would have been for nothing.
fn make_room_for_reports(args: &ProveArgs) -> Result<(), Failure> {
    std::fs::create_dir_all(&args.report).map_err(|error| {
        Failure::input(format!("cannot make the report's folder {}", args.report.display()))
            .because(&error)
            .hint("name another folder with --report DIR")
    })?;
    may_write_in(&args.report, "--report DIR")?;
    let junit = args.junit.as_deref().and_then(Path::parent);
    junit.map_or(Ok(()), |folder| {
        may_write_in(if folder.as_os_str().is_empty() { Path::new(".") } else { folder }, "--junit FILE")
    })
}

fn may_write_in(folder: &Path, option: &str) -> Result<(), Failure> {
    use rustix::fs::{Access, access};
    access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
        Failure::input(format!("cannot write reports into {}", folder.display()))
            .because(&error)
            .hint(format!("name another place with {option}"))
    })
}

/// What becomes of the runs of a proof is nobody's business but the stack's own.
fn tell_nobody_outside(stack: &mut Stack, call: &Call) {
    let is_own = |sink: &LifecycleSink| {
        let uri = sink.sink.parse::<http::Uri>().ok();
        let host = uri.as_ref().filter(|uri| uri.port().is_none()).and_then(http::Uri::host);
        stack.services.keys().any(|name| Some(name.as_str()) == host)
    };
    if let Some(sink) = stack.lifecycle.as_ref().filter(|sink| !is_own(sink)) {
        call.output.note(format!("lifecycle events of workflows are not sent to {} in a proof", sink.sink));
        stack.lifecycle = None;
    }
}

async fn run(stack: &Stack, args: &ProveArgs, stop: &Stop, call: &Call) -> Result<u8, Failure> {
    let clock = Clock::system();
    let scratch = ScratchFolder::make(&call.surroundings.temporary, stack)?;
    let place =
        Place { stack: stack.clone(), state_dir: scratch.0.clone(), named: args.stack.display().to_string() };
    let options = LaunchOptions {
        state_dir: scratch.0.clone(),
        executable: call.surroundings.executable.clone(),
        public: ([127, 0, 0, 1], 0).into(),
        metrics: None,
        workflow_keys: Vec::new(),
        otlp: None,
        environment: call.surroundings.variables.clone(),
        scratch: Some(Scratch { lease: LEASE }),
        plant: plant(args),
    };
    let tasks = Tasks::new();
    let proved = prove_running(&place, &options, args, stop, &tasks, call).await;
    tasks.shutdown(&clock, Duration::from_secs(1)).await;
    let running = place.interfaces();
    take_down(&running, &scratch).await?;
    match proved? {
        None => Ok(exit::INTERRUPTED),
        Some(evidence) => conclude(&evidence, args, call),
    }
}

/// Brings the stack up and runs the proof; `None` when it was stopped before the load.
async fn prove_running(
    place: &Place,
    options: &LaunchOptions,
    args: &ProveArgs,
    stop: &Stop,
    tasks: &Tasks,
    call: &Call,
) -> Result<Option<Evidence>, Failure> {
    let clock = Clock::system();
    let mut progress = call.output.progress(format!("starting {}", place.stack.name));
    let running = launch(&place.stack, options, Net::real(), clock)
        .await
        .map_err(|error| launch_failure(place, &error))?;
    tasks.spawn("lease", OnStop::Abort, renew(running.clone(), clock));
    let applied = running.node.apply(&place.stack, None, "prove", "a proof").await;
    applied.map_err(|error| admin_failure("cannot start the stack", &error))?;
    let started = clock.now();
    let ready = running.wait_ready(READY_MAX, |status| progress.set(summary(status), false));
    let status = tokio::select! {
        biased;
        () = stop.requested() => return Ok(None),
        ready = ready => ready.map_err(|error| admin_failure("the node does not answer", &error))?,
    };
    drop(progress);
    if !status.all_ready {
        let detail = super::status::describe(&status, call.output);
        return Err(Failure::ours("the stack did not become ready, so nothing was proved")
            .detail(detail)
            .hint(format!("standfast up {}", place.named)));
    }
    call.output.note(format!("{} ready in {}", summary(&status), for_people(clock.now().since(started))));
    let seed = args.seed.unwrap_or_else(|| Rng::from_entropy().bits() % 1_000_000);
    let mut proof = Options::seeded(seed, args.report.join("journal.jsonl"));
    proof.repeat = format!("standfast prove {} --seed {seed}", place.named);
    let target = target(&running, args);
    let shown = std::sync::Mutex::new(call.output.progress("load begins"));
    let tell = |event: Progress| {
        let mut shown = shown.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shown.set(event.to_string(), !matches!(event, Progress::Tick { .. }));
    };
    let runner = Proof::new(clock, Net::real(), Arc::new(RealDisk));
    let evidence = runner.run(&target, &place.stack, &proof, stop, &tell).await.map_err(|error| {
        let failure = Failure::new(error.exit_code(), "the proof could not be run").because(&error);
        failure.hint(format!("standfast up {}", place.named))
    })?;
    Ok(Some(evidence))
}

async fn renew(running: Running, clock: Clock) {
    loop {
        // An agent that is being replaced has a fresh lease; a failed renewal is tried again long before the lease is over.
        let _tried_again_soon = running.agent.renew_lease().await.is_err();
        clock.sleep(RENEW_EVERY).await;
    }
}

fn summary(status: &StatusAnswer) -> String {
    let parts: Vec<String> =
        status.services.iter().map(|(name, one)| format!("{name} {}/{}", one.ready, one.wanted)).collect();
    format!("{}: {}", status.stack, parts.join(", "))
}

/// Takes the stack under test down and makes sure that nothing of it is left.
async fn take_down(running: &Running, scratch: &ScratchFolder) -> Result<(), Failure> {
    let left = running.stop_and_look().await;
    if let Err(error) = std::fs::remove_dir_all(&scratch.0)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(Failure::because_of(format!("cannot remove {}", scratch.0.display()), &error));
    }
    if left.is_empty() {
        return Ok(());
    }
    let list: Vec<String> = left.iter().map(|(pid, what)| format!("  {pid}  {what}")).collect();
    Err(Failure::ours("processes of the stack under test are left")
        .detail(list.join("\n"))
        .hint("this is a defect of Standfast; end them with kill, and please report it"))
}

/// A folder of its own for a stack under test, short enough for socket paths.
struct ScratchFolder(PathBuf);

impl ScratchFolder {
    fn make(temporary: &Path, stack: &Stack) -> Result<Self, Failure> {
        let name = format!("standfast-prove-{}-{:08x}", stack.name, Rng::from_entropy().bits() as u32);
        let folder = temporary.join(name);
        std::fs::create_dir_all(&folder).map_err(|error| {
            Failure::input(format!("cannot make the scratch folder {}", folder.display()))
                .because(&error)
                .hint("set TMPDIR to a folder that you may write to")
        })?;
        Ok(Self(folder))
    }
}

#[cfg(not(feature = "planted-bugs"))]
const fn plant(_: &ProveArgs) -> Option<String> {
    None
}

#[cfg(feature = "planted-bugs")]
fn plant(args: &ProveArgs) -> Option<String> {
    args.plant.clone()
}

fn target(running: &Running, args: &ProveArgs) -> LocalTarget {
    let target = LocalTarget::new(running.agent.clone(), running.node.clone(), Net::real(), Clock::system());
    #[cfg(feature = "planted-bugs")]
    if args.plant.as_deref() == Some("fault-does-nothing") {
        return target.doing_nothing();
    }
    let _only_used_by_test_builds = args;
    target
}

/// Judges, writes the reports, prints the verdict.
fn conclude(evidence: &Evidence, args: &ProveArgs, call: &Call) -> Result<u8, Failure> {
    let Evidence { record, journal } = evidence;
    let judgement: Judgement = judge(record, journal);
    let page = args.report.join("report.html");
    let json = report::json(record, &judgement)
        .map_err(|error| Failure::because_of("cannot write the report as JSON", &error))?;
    write(&page, &report::html(record, &judgement))?;
    write(&args.report.join("report.json"), &json)?;
    if let Some(junit) = &args.junit {
        write(junit, &report::junit(record, &judgement))?;
    }
    let colour = if call.output.stdout_colour() { report::Colour::On } else { report::Colour::Off };
    let shown = if args.json {
        call.output.data(&json)
    } else {
        call.output.data(&report::terminal(record, &judgement, colour))
    };
    note_where(call.output, &page);
    shown?;
    Ok(judgement.verdict.exit_code())
}

fn note_where(output: Output, page: &Path) {
    output.note(format!("report: {}", page.display()));
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(file, text).map_err(|error| {
        Failure::because_of(format!("cannot write {}", file.display()), &error)
            .hint("name another folder with --report DIR")
    })
}
