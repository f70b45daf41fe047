//! One replica from its start, or its adoption, to its end and the last trace of it.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use standfast_model::{Generation, Instance, Probe, Stamp};
use standfast_runtime::OnStop;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::cgroup::Group;
use super::core::{Core, Supervised};
use super::environment::{Given, environment};
use super::health::{Health, Outcome, Verdict};
use super::probe;
use super::process::{Process, SpawnOrder};
use super::state::Held;
use crate::{ExitReason, Launch, ReplicaState};

/// After SIGKILL a process ends unless the kernel holds it; we go on without it then.
const KILLED_WITHIN: Duration = Duration::from_secs(10);

/// Why supervision comes to its end.
enum Why {
    Itself,
    Ordered,
    Unhealthy(String),
}

/// What does not change about a supervised instance.
struct Subject {
    core: Core,
    instance: Instance,
    writer: String,
    generation: Generation,
    launch: Arc<Launch>,
    process: Process,
}

/// Supervises a process that runs for `instance`.
pub(crate) async fn replica(core: Core, instance: Instance, process: Process, supervised: Supervised) {
    let Some((launch, generation, mut stop)) = ({
        let state = core.state();
        state.held.get(&instance).map(|held| (held.launch.clone(), held.generation, held.stop.subscribe()))
    }) else {
        let _nothing_holds_it = process.signal(Signal::KILL);
        return;
    };
    let group = join_group(&core, &instance, &process, &launch);
    let subject = Subject { writer: instance.to_string(), core, instance, generation, launch, process };
    let why = tokio::select! {
        biased;
        () = subject.process.ended() => Why::Itself,
        () = asked_to_stop(&mut stop) => Why::Ordered,
        reason = examine(&subject) => Why::Unhealthy(reason),
    };
    end(subject, why, group, supervised).await;
}

async fn asked_to_stop(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|asked| *asked).await.is_err() {
        // Forgotten without being stopped cannot happen to what runs; if it does, its end is still waited for.
        std::future::pending::<()>().await;
    }
}

/// Puts the process into its control groups beside everything else: it takes the kernel some milliseconds.
fn join_group(core: &Core, instance: &Instance, process: &Process, launch: &Launch) -> JoinHandle<Group> {
    let (core, name, id, limits) = (core.clone(), instance.to_string(), process.id(), launch.limits);
    tokio::task::spawn_blocking(move || {
        let (group, limitations) = core.groups().join(&name, id, &limits);
        note_limitations(&core, limitations);
        group
    })
}

fn note_limitations(core: &Core, limitations: BTreeSet<String>) {
    if !limitations.is_empty() {
        core.change(|state| {
            let known = state.limitations.len();
            state.limitations.extend(limitations);
            ((), state.limitations.len() > known)
        });
    }
}

async fn end(subject: Subject, why: Why, group: JoinHandle<Group>, supervised: Supervised) {
    let Subject { core, instance, process, launch, .. } = &subject;
    let reason = match why {
        Why::Itself => process.exit_reason(),
        Why::Ordered => {
            stop_gracefully(core, process, launch.stop_grace_period).await;
            ExitReason::Stopped
        }
        Why::Unhealthy(reason) => {
            tracing::warn!(%instance, reason, "a replica is killed as unhealthy");
            kill(core, process).await;
            ExitReason::Unhealthy(reason)
        }
    };
    process.kill_rest_of_group();
    let is_ordered = reason == ExitReason::Stopped;
    if !is_ordered {
        // The planner needs to know at once; what is left of the replica is cleared away meanwhile.
        publish(&subject, reason.clone()).await;
    }
    let mark = core.mark(instance, subject.generation);
    let escaped = process.sweep(mark).await;
    if escaped > 0 {
        tracing::warn!(%instance, escaped, "processes that had left their group were killed");
    }
    process.reap();
    let (groups, writer, clock) = (group.await.unwrap_or_default(), subject.writer.clone(), core.clock());
    if is_ordered {
        publish(&subject, reason).await;
    }
    let logs = core.logs().clone();
    let tidied = tokio::task::spawn_blocking(move || {
        groups.kill_and_remove(clock);
        logs.close(&writer, clock.now());
    });
    if let Err(error) = tidied.await {
        tracing::error!(%error, "tidying up after a replica failed");
    }
    drop(supervised);
}

/// Makes the end visible, with the last lines of output.
async fn publish(subject: &Subject, reason: ExitReason) {
    let (core, now) = (&subject.core, subject.core.clock().now());
    let last = match core.logs().last_lines_at_once(&subject.writer, now) {
        Some(last) => last,
        None => {
            let (logs, writer) = (core.logs().clone(), subject.writer.clone());
            tokio::task::spawn_blocking(move || logs.last_lines(&writer, now)).await.unwrap_or_default()
        }
    };
    tracing::info!(instance = %subject.instance, %reason, "a replica ended");
    core.change_held(&subject.instance, |held| held.turn_exited(now, reason, last));
    core.wake_keeper();
}

async fn stop_gracefully(core: &Core, process: &Process, grace: Duration) {
    let _it_may_have_ended = process.signal(Signal::TERM);
    if core.clock().timeout(grace, process.ended()).await.is_err() {
        kill(core, process).await;
    }
}

async fn kill(core: &Core, process: &Process) {
    let _it_may_have_ended = process.signal(Signal::KILL);
    if core.clock().timeout(KILLED_WITHIN, process.ended()).await.is_err() {
        tracing::error!(pid = process.id().pid, "a process does not end after SIGKILL");
    }
}

/// Probes until the replica counts as dead, and returns why.
async fn examine(subject: &Subject) -> String {
    let Subject { core, instance, launch, .. } = subject;
    let check = &launch.healthcheck;
    let Some((mut endpoint, mut health)) = begin(core, instance) else { return std::future::pending().await };
    if check.probe == Probe::None || is_always_healthy(core) {
        let now = core.clock().now();
        core.change_held(instance, |held| {
            if !matches!(held.state, ReplicaState::Serving { .. }) {
                held.turn_ready(now, endpoint);
            }
        });
        return std::future::pending().await;
    }
    let mut is_eager = subject.process.is_adopted();
    loop {
        // The first look at an adopted replica is at once: what the ledger says of it is old.
        let gap =
            if is_eager { Duration::ZERO } else { health.gap(check, core.clock().now(), core.jitter()) };
        is_eager = false;
        core.clock().sleep(gap).await;
        let outcome = ask(subject, endpoint).await;
        if matches!(outcome, Outcome::No(_))
            && !health.was_ready()
            && let Some(local) = elsewhere(subject, endpoint).await
        {
            endpoint = local;
            is_eager = true;
            continue;
        }
        let now = core.clock().now();
        let verdict = health.observe(check, outcome, now);
        note_silence(core, instance, health.is_silent(), now);
        match verdict {
            Verdict::Same => {}
            Verdict::Ready => note(core, instance, |held| held.turn_ready(now, endpoint)),
            Verdict::Unready(reason) => note(core, instance, |held| held.turn_unready(now, reason)),
            // When the others answer again, it has as much time for that as if it had been silent from then on.
            Verdict::Dead(_) if health.is_silent() && is_doubted(core, health.failing_since(), now) => {
                health.forgive(now);
            }
            Verdict::Dead(reason) => return reason,
        }
    }
}

fn note(core: &Core, instance: &Instance, change: impl FnOnce(&mut Held)) {
    let _forgotten_meanwhile = core.change_held(instance, change).is_none();
}

/// Where the instance listens and how it was when last looked at.
fn begin(core: &Core, instance: &Instance) -> Option<(SocketAddr, Health)> {
    let state = core.state();
    let held = state.held.get(instance)?;
    let (started, ready_since) = match held.state {
        ReplicaState::Serving { since, .. } => (since, Some(since)),
        ReplicaState::Starting { since, .. } | ReplicaState::Unready { since, .. } => (since, None),
        _ => return None,
    };
    Some((held.endpoint(), Health::new(started, ready_since, held.served.is_some())))
}

fn is_always_healthy(core: &Core) -> bool {
    #[cfg(feature = "planted-bugs")]
    {
        core.config().has_planted(super::config::PlantedBug::AlwaysHealthy)
    }
    #[cfg(not(feature = "planted-bugs"))]
    {
        let _ = core;
        false
    }
}

async fn ask(subject: &Subject, endpoint: SocketAddr) -> Outcome {
    let check = &subject.launch.healthcheck;
    match &check.probe {
        Probe::Command { command } => ask_command(subject, command).await,
        other => probe::ask(subject.core.net(), subject.core.clock(), other, endpoint, check.timeout).await,
    }
}

/// The other place where a replica that ignores `HOST` listens; noted as a limitation.
async fn elsewhere(subject: &Subject, endpoint: SocketAddr) -> Option<SocketAddr> {
    let Subject { core, instance, launch, .. } = subject;
    if endpoint.ip() == std::net::Ipv4Addr::LOCALHOST
        || matches!(launch.healthcheck.probe, Probe::Command { .. })
    {
        return None;
    }
    let timeout = launch.healthcheck.timeout;
    let local = probe::on_localhost_only(core.net(), core.clock(), endpoint, timeout).await?;
    let service = instance.replica.service.clone();
    core.change(|state| ((), state.localhost_only.insert(service)));
    Some(local)
}

fn note_silence(core: &Core, instance: &Instance, is_silent: bool, now: Stamp) {
    let mut state = core.state();
    if let Some(held) = state.held.get_mut(instance) {
        held.is_silent = is_silent;
    }
    if !is_silent && state.doubt.since().is_some() && !state.most_are_silent() {
        drop(state);
        core.change(|state| {
            state.doubt.end(now);
            ((), true)
        });
    }
}

/// Whether a death by silence that began at `failing_since` may be our own fault.
fn is_doubted(core: &Core, failing_since: Stamp, now: Stamp) -> bool {
    core.change(|state| {
        let before = state.doubt.since();
        let most_are_silent = state.most_are_silent();
        let is_excused = state.doubt.excuses(most_are_silent, failing_since, now);
        (is_excused, state.doubt.since() != before)
    })
    .0
}

/// Runs a probe's command in a task of its own, so that it is ended whatever becomes of the replica.
async fn ask_command(subject: &Subject, command: &[String]) -> Outcome {
    let core = subject.core.clone();
    let launch = subject.launch.clone();
    let (command, environment) = (command.to_vec(), subject.environment());
    let (sender, answer) = oneshot::channel();
    core.clone().tasks().spawn("probe command", OnStop::Wait, async move {
        let outcome = run_command(&core, &launch, &command, &environment).await;
        let _nobody_may_be_waiting = sender.send(outcome);
    });
    answer.await.unwrap_or(Outcome::Unsure)
}

async fn run_command(
    core: &Core,
    launch: &Launch,
    command: &[String],
    environment: &std::collections::BTreeMap<String, String>,
) -> Outcome {
    let null = || std::fs::File::options().write(true).open("/dev/null");
    let (Ok(out), Ok(err)) = (null(), null()) else { return Outcome::Unsure };
    let order = SpawnOrder { command, working_dir: &launch.working_dir, environment, out, err };
    let probe = match Process::spawn(order) {
        Ok(probe) => probe,
        Err(error) => return Outcome::No(error.to_string()),
    };
    let (began, timeout) = (core.clock().now(), launch.healthcheck.timeout);
    let in_time = core.clock().timeout(timeout, probe.ended()).await.is_ok();
    let outcome = if in_time {
        match probe.exit_reason() {
            ExitReason::Code(0) => Outcome::Yes,
            other => Outcome::No(format!("`{}` {other}", command.join(" "))),
        }
    } else {
        let took = core.clock().now().since(began);
        kill(core, &probe).await;
        probe::silence(format_args!("`{}`", command.join(" ")), timeout, took)
    };
    probe.kill_rest_of_group();
    probe.reap();
    outcome
}

impl Subject {
    fn environment(&self) -> std::collections::BTreeMap<String, String> {
        let state = self.core.state();
        let mark = self.core.mark(&self.instance, self.generation);
        let Some(held) = state.held.get(&self.instance) else { return std::collections::BTreeMap::new() };
        let given = Given {
            stack: &self.core.config().stack,
            instance: &self.instance,
            zone: &held.zone,
            address: held.address,
            mark: &mark,
        };
        environment(&self.core.config().base_environment, &state.wanted, &self.launch, given)
    }
}
