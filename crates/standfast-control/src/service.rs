//! The loop: observe, plan, check, commit, execute, and again.
//!
//! It wakes without data and reads everything again. Any number of loops may run over one store and one platform: a blueprint
//! becomes the target only while its parent is, and the platform refuses orders that are older than what it holds. It stops
//! between two ticks; nothing that it started stops with it.

use std::sync::Arc;

use standfast_model::{Generation, Stack, Stamp};
use standfast_platform::{Inventory, Platform, PlatformError};
use standfast_runtime::{Clock, Stop, with_causes};
use standfast_store::{Store, Version};
use tokio::sync::{mpsc, watch};

use crate::blueprint::Blueprint;
use crate::check::check;
use crate::config::{COMMANDS_MAX, PERIOD, PLATFORM_TIMEOUT, RACES_MAX, RETRY};
use crate::error::{HistoryError, ReachError, RequestError, RunError, TickError};
use crate::execute::order;
use crate::handle::{Command, Done, Handle, Request};
use crate::history::{History, Proposal, Target};
use crate::plan::{Occasion, Plan, Report, RestartTarget, plan_for};
use crate::policy::Policy;
use crate::status::{PlanId, PlanPreview, Status};

/// What a control is made of.
#[derive(Clone)]
pub struct Parts {
    /// Time.
    pub clock: Clock,
    /// Where decisions are kept.
    pub store: Arc<dyn Store>,
    /// Where replicas run.
    pub platform: Arc<dyn Platform>,
    /// Gets the stack that holds, before the first order for it goes to the platform.
    pub stack: watch::Sender<Option<Arc<Stack>>>,
}

/// The control loop.
pub struct Control {
    clock: Clock,
    history: History,
    platform: Arc<dyn Platform>,
    stack: watch::Sender<Option<Arc<Stack>>>,
    status: watch::Sender<Arc<Status>>,
    commands: mpsc::Receiver<Command>,
    /// The target as last read or written.
    known: Option<Known>,
    /// An order of this number was refused, or one above it is held: the next one must be higher.
    refused: Option<Generation>,
    /// An order was given since this loop began. The first is given in any case, since an adapter on the way may have forgotten.
    has_ordered: bool,
    failures: u32,
}

#[derive(Clone)]
struct Known {
    target: Target,
    blueprint: Arc<Blueprint>,
    policy: Policy,
}

/// What a tick is for.
enum Task<'a> {
    /// Keep what is wanted.
    Keep,
    /// Something was asked for.
    Change { policy: Option<&'a Policy>, shown: Option<&'a PlanId>, occasion: Occasion },
}

/// What came of a tick.
struct Ticked {
    plan: Plan,
    changed: bool,
    problem: Option<TickError>,
}

impl Control {
    /// A control and the way to it. Nothing happens before [`Control::run`].
    pub fn new(parts: Parts) -> (Self, Handle) {
        let (sender, commands) = mpsc::channel(COMMANDS_MAX);
        let status = watch::Sender::new(Arc::new(Status::default()));
        let handle = Handle { commands: sender, status: status.subscribe(), clock: parts.clock };
        let control = Self {
            clock: parts.clock,
            history: History::new(parts.store),
            platform: parts.platform,
            stack: parts.stack,
            status,
            commands,
            known: None,
            refused: None,
            has_ordered: false,
            failures: 0,
        };
        (control, handle)
    }

    /// Runs until asked to stop.
    ///
    /// # Errors
    /// When the store has stopped, or holds what this release cannot read.
    ///
    /// # Cancellation
    /// Dropping it is as safe as the end of the process: the next loop goes on from the store.
    pub async fn run(mut self, stop: Stop) -> Result<(), RunError> {
        let mut changes = self.platform.changes();
        let mut targets = self.history.changes();
        loop {
            let wake_at = self.look().await?;
            let known = self.known.as_ref().map_or(Version::ZERO, |known| known.target.version);
            let is_behind = *targets.borrow_and_update() > known && self.known.is_some();
            let wake_at = if is_behind { self.clock.now() } else { wake_at };
            tokio::select! {
                biased;
                () = stop.requested() => return Ok(()),
                Some(command) = self.commands.recv() => self.serve(command).await?,
                Ok(()) = changes.changed() => {}
                Ok(()) = targets.changed() => {}
                () = self.clock.sleep_until(wake_at) => {}
            }
        }
    }

    /// One tick to keep what is wanted. Says when to look again.
    async fn look(&mut self) -> Result<Stamp, RunError> {
        let now = self.clock.now();
        match self.tick(Task::Keep).await {
            Ok(Some(Ticked { plan, problem: None, .. })) => {
                self.failures = 0;
                let at_the_latest = now.plus(PERIOD);
                Ok(plan.wake_at.map_or(at_the_latest, |at| at.min(at_the_latest)))
            }
            Ok(None) => {
                self.failures = 0;
                Ok(now.plus(PERIOD))
            }
            Ok(Some(Ticked { problem: Some(error), .. })) | Err(RequestError::Tick(error)) => {
                self.note_failure(error)
            }
            Err(_) => Ok(now.plus(PERIOD)), // only changes that were asked for end otherwise
        }
    }

    /// Shows why a tick failed. Says when to try again.
    fn note_failure(&mut self, error: TickError) -> Result<Stamp, RunError> {
        let wait = RETRY.ceiling(self.failures);
        self.failures = self.failures.saturating_add(1);
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            ?wait,
            "the control loop could not finish its round"
        );
        self.show_problem(&error);
        match error {
            TickError::History(error) if error.is_final() => Err(RunError(error)),
            _ => Ok(self.clock.now().plus(wait)),
        }
    }

    async fn serve(&mut self, command: Command) -> Result<(), RunError> {
        match command {
            Command::Preview { stack, reply } => {
                let preview = self.preview(&Policy::of(stack)).await;
                let _caller_is_gone = reply.send(preview).is_err();
            }
            Command::Apply { stack, plan, request, reply } => {
                let policy = Policy::of(stack);
                let occasion = occasion_of(request);
                let done = self.change(Some(&policy), plan.as_ref(), occasion).await;
                let _caller_is_gone = reply.send(done).is_err();
            }
            Command::Restart { target, request, reply } => {
                let done = self.restart(target, request).await;
                let _caller_is_gone = reply.send(done).is_err();
            }
            Command::Down { request, reply } => {
                let done = self.change(Some(&Policy::down()), None, occasion_of(request)).await;
                let _caller_is_gone = reply.send(done).is_err();
            }
            Command::Events { limit, reply } => {
                let events = self.history.events(limit).await.map_err(|e| RequestError::Tick(e.into()));
                let _caller_is_gone = reply.send(events).is_err();
            }
            Command::StackOf { generation, reply } => {
                let stack = self.history.stack_of(generation).await.map_err(|e| RequestError::Tick(e.into()));
                let _caller_is_gone = reply.send(stack).is_err();
            }
        }
        Ok(())
    }

    async fn restart(&mut self, target: RestartTarget, request: Request) -> Result<Done, RequestError> {
        self.load().await.map_err(TickError::from)?;
        let known = self.known.as_ref();
        let is_there = known.is_some_and(|known| match &target {
            RestartTarget::Service(name) => known.policy.launch(name).is_some(),
            RestartTarget::Replica(id) => known.blueprint.replicas.contains_key(id),
        });
        if !is_there {
            return Err(RequestError::Unknown(target.to_string()));
        }
        let mut occasion = occasion_of(request);
        occasion.reason.get_or_insert_with(|| format!("a restart of {target} was asked for"));
        occasion.restarts.insert(target);
        self.change(None, None, occasion).await
    }

    async fn preview(&mut self, policy: &Policy) -> Result<PlanPreview, RequestError> {
        let seen = self.observe().await.map_err(TickError::from)?;
        self.load().await.map_err(TickError::from)?;
        let (genesis, now) = (Blueprint::genesis(), self.clock.now());
        let parent = self.known.as_ref().map_or(&genesis, |known| &known.blueprint);
        Ok(preview_of(policy, &seen, parent, now))
    }

    async fn change(
        &mut self,
        policy: Option<&Policy>,
        shown: Option<&PlanId>,
        occasion: Occasion,
    ) -> Result<Done, RequestError> {
        let ticked = self.tick(Task::Change { policy, shown, occasion }).await?;
        let Some(Ticked { plan, changed, problem }) = ticked else {
            let genesis = Blueprint::genesis();
            let (blueprint, generation) = (genesis.id, genesis.generation);
            return Ok(Done {
                blueprint,
                generation,
                report: Report::default(),
                changed: false,
                problem: None,
            });
        };
        Ok(Done {
            blueprint: plan.blueprint.id,
            generation: plan.blueprint.generation,
            report: plan.report,
            changed,
            problem: problem.as_ref().map(|error| with_causes(error)),
        })
    }

    /// One round; `None` when nothing was ever applied. It begins again when another control was faster.
    async fn tick(&mut self, task: Task<'_>) -> Result<Option<Ticked>, RequestError> {
        for _ in 0..RACES_MAX {
            let mut seen = self.observe().await.map_err(TickError::from)?;
            self.load().await.map_err(TickError::from)?;
            seen.generation = seen.generation.max(self.refused.unwrap_or_default());
            let Some((policy, parent)) = self.starting_point(&task) else {
                self.show_idle(&seen);
                return Ok(None);
            };
            let now = self.clock.now();
            let keep = Occasion::default();
            let (shown, occasion) = match &task {
                Task::Keep => (None, &keep),
                Task::Change { shown, occasion, .. } => (*shown, occasion),
            };
            if let Some(shown) = shown.filter(|shown| **shown != PlanId::of(&policy, &seen, &parent)) {
                let now = Box::new(preview_of(&policy, &seen, &parent, now));
                return Err(RequestError::WorldMoved { shown: shown.to_string(), now });
            }
            self.show(&policy, &parent, &seen, None);
            let plan = plan_for(&policy, &seen, &parent, now, occasion);
            let changed = plan.blueprint.id != parent.id;
            if changed {
                check(&policy, &seen, &parent, &plan.blueprint).map_err(TickError::from)?;
                if !self.commit(&policy, &plan).await.map_err(TickError::from)? {
                    continue;
                }
            }
            let problem = match self.execute(&plan.blueprint, &seen).await {
                Ok(()) => None,
                Err(ReachError::Failed { source: PlatformError::Stale { sent, held }, .. }) => {
                    // Another control's order, which the target will show, or one that this history does not know.
                    self.refused = Some(if held > sent { held } else { sent.next() });
                    tracing::info!(%sent, %held, "the platform holds another order");
                    if matches!(task, Task::Keep) {
                        continue;
                    }
                    None
                }
                Err(error) => Some(TickError::from(error)),
            };
            self.show(&policy, &plan.blueprint, &seen, Some(&plan.report));
            return Ok(Some(Ticked { plan, changed, problem }));
        }
        Err(TickError::Races(RACES_MAX).into())
    }

    /// What is wanted, and what the plan starts from.
    fn starting_point(&self, task: &Task<'_>) -> Option<(Policy, Arc<Blueprint>)> {
        let asked = match task {
            Task::Change { policy: Some(policy), .. } => Some((*policy).clone()),
            _ => None,
        };
        match &self.known {
            Some(known) => {
                Some((asked.unwrap_or_else(|| known.policy.clone()), Arc::clone(&known.blueprint)))
            }
            // Going down from nothing is nothing; what runs already belongs to nobody known.
            None => asked
                .filter(|policy| policy.stack().is_some())
                .map(|policy| (policy, Arc::new(Blueprint::genesis()))),
        }
    }

    async fn observe(&self) -> Result<Inventory, ReachError> {
        let did = "observed";
        match self.clock.timeout(PLATFORM_TIMEOUT, self.platform.observe()).await {
            Ok(Ok(mut seen)) => {
                if !seen.replicas.is_sorted_by(|a, b| a.instance <= b.instance) {
                    seen.replicas.sort_by(|a, b| a.instance.cmp(&b.instance));
                }
                Ok(seen)
            }
            Ok(Err(source)) => Err(ReachError::Failed { did, source }),
            Err(source) => Err(ReachError::Silent { did, source }),
        }
    }

    /// Reads the target, if it is another than the one known.
    async fn load(&mut self) -> Result<(), HistoryError> {
        let Some(target) = self.history.target().await? else {
            self.known = None;
            return Ok(());
        };
        if self.known.as_ref().is_some_and(|known| known.target == target) {
            return Ok(());
        }
        let blueprint = self.history.blueprint(&target.row).await?;
        let before = self.known.as_ref().map(|known| &known.policy);
        let policy = match (&target.row.stack, before) {
            (None, _) => Policy::down(),
            (Some(name), Some(before)) if before.digest() == Some(&name.digest) => before.clone(),
            (Some(name), _) => Policy::of(Arc::new(self.history.stack(name).await?.stack)),
        };
        self.know(Known { target, blueprint: Arc::new(blueprint), policy });
        Ok(())
    }

    /// Makes a plan's blueprint the target; `false` when another control was faster.
    async fn commit(&mut self, policy: &Policy, plan: &Plan) -> Result<bool, HistoryError> {
        let before = self.known.as_ref().map(|known| known.policy.digest());
        let is_new = policy.digest().is_some() && before != Some(policy.digest());
        let proposal = Proposal {
            before: self.known.as_ref().map(|known| &known.target),
            blueprint: &plan.blueprint,
            report: &plan.report,
            new_stack: policy.stack().filter(|_| is_new).map(AsRef::as_ref),
        };
        let Some(target) = self.history.commit(&proposal).await? else { return Ok(false) };
        let blueprint = &plan.blueprint;
        tracing::info!(blueprint = %blueprint.id, steps = plan.report.steps.len(), reason = blueprint.reason, "new target");
        self.know(Known { target, blueprint: Arc::new(plan.blueprint.clone()), policy: policy.clone() });
        Ok(true)
    }

    fn know(&mut self, known: Known) {
        let stack = known.policy.stack().cloned();
        self.stack.send_if_modified(|before| {
            let is_other = match (before.as_ref(), stack.as_ref()) {
                (Some(before), Some(stack)) => !Arc::ptr_eq(before, stack) && before != stack,
                (before, stack) => before.is_some() != stack.is_some(),
            };
            if is_other {
                *before = stack;
            }
            is_other
        });
        self.known = Some(known);
    }

    /// Gives the order, unless the platform holds it already.
    async fn execute(&mut self, blueprint: &Blueprint, seen: &Inventory) -> Result<(), ReachError> {
        if seen.generation == blueprint.generation && self.has_ordered {
            return Ok(());
        }
        let (did, wanted) = ("given an order", order(blueprint));
        match self.clock.timeout(PLATFORM_TIMEOUT, self.platform.apply(&wanted)).await {
            Ok(Ok(_)) => {
                self.has_ordered = true;
                self.refused = None;
                Ok(())
            }
            Ok(Err(source)) => Err(ReachError::Failed { did, source }),
            Err(source) => Err(ReachError::Silent { did, source }),
        }
    }

    fn show(&self, policy: &Policy, blueprint: &Blueprint, seen: &Inventory, report: Option<&Report>) {
        let before = self.status.borrow().clone();
        let kept;
        let report = match report {
            Some(report) => report,
            None => {
                // The plan is still to be made: what it said before holds until then.
                let loops = before.services.values().flat_map(|service| service.crash_loops.iter().cloned());
                kept = Report {
                    waiting: before.waiting.clone(),
                    crash_loops: loops.collect(),
                    ..Report::default()
                };
                &kept
            }
        };
        self.publish(Status::of(policy, blueprint, seen, report));
    }

    fn show_idle(&self, seen: &Inventory) {
        let (zones, limitations) = (seen.zones.clone(), seen.limitations.clone());
        self.publish(Status { at: seen.at, zones, limitations, ..Status::default() });
    }

    fn show_problem(&self, error: &TickError) {
        let mut status = Status::clone(&self.status.borrow());
        status.problem = Some(with_causes(error));
        self.publish(status);
    }

    fn publish(&self, status: Status) {
        self.status.send_if_modified(|before| {
            let is_news = !before.says_the_same(&status);
            *before = Arc::new(status);
            is_news
        });
    }
}

fn preview_of(policy: &Policy, seen: &Inventory, parent: &Blueprint, now: Stamp) -> PlanPreview {
    let plan = plan_for(policy, seen, parent, now, &Occasion::default());
    PlanPreview {
        plan: PlanId::of(policy, seen, parent),
        changes_anything: plan.blueprint.id != parent.id,
        report: plan.report,
    }
}

fn occasion_of(request: Request) -> Occasion {
    Occasion { author: Some(request.author), reason: request.reason, ..Occasion::default() }
}
