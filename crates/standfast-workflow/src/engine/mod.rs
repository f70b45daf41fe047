//! The engine: starts runs, drives them, and takes over those that another process left behind.
//!
//! **Flow.** `start` → a task for the run (`drive`): `decide` (pure) → one record into the journal, in the commit that all runs share →
//! what it asks is asked, by its key → what is answered is the next cause. A crash anywhere repeats from the fold of the journal.
//!
//! **Invariants.** Nothing is asked, answered or shown of a run that is not written. Who opened the store last is the only one who
//! writes. A run is in memory while something is asked for it or is about to happen; else it sleeps in the store.
//!
//! **Stop.** Runs are dropped where they stand: what they asked is asked again, by the same keys.

mod admission;
mod awake;
mod beats;
mod definitions;
mod drive;
mod events;
mod fair;
mod gate;
mod human;
mod invoke;
mod journal;
mod keeping;
mod lifecycle;
mod limited;
mod locks;
mod migrate;
mod operate;
mod outbox;
mod programs;
mod query;
mod refused;
mod runs;
mod schedule;
mod search;
mod shown;
mod signal;
mod trial;
mod values;
mod waiters;
mod watchdog;
mod within;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use standfast_model::Priority;
use standfast_runtime::{Clock, OnStop, Rng, Tasks};
use standfast_store::Store;
use tokio::sync::{Notify, oneshot, watch};

pub use definitions::{BadDefinition, Definition};
pub use events::EVENTS_KEPT_FOR;
pub use human::{BadTaskRef, OpenTask, TaskFilter, TaskRef};
pub use invoke::Invoke;
pub use journal::{JournalError, KEPT_FOR, RUN_BYTES_MAX, STATUS_WORDS, Summary};
pub use lifecycle::{LIFECYCLE_MAX, Lifecycle, Told};
pub use locks::LockWait;
pub use migrate::Migration;
pub use outbox::{SINK_BATCH, Sink, SinkStatus};
pub use refused::Refused;
pub use schedule::Scheduled;
pub use search::{Filter, Found};
pub use shown::Shown;
pub(crate) use shown::waits_for;
pub use values::KeptValue;
pub(crate) use values::VALUES_LISTED_MAX;
pub use watchdog::{Stuck, StuckKind};

use self::admission::Admission;
use self::definitions::Definitions;
use self::drive::Input;
use self::journal::Journal;
use self::refused::check_limits;
use self::runs::Runs;
use crate::World;
use crate::ask::{Answer, Asked};
use crate::decide::{Cause, STEPS_MAX};
use crate::expression::Evaluator;
use crate::program::{Program, WorkflowName};
use crate::run::{Problem, Run, RunId, SlotHeld};
use crate::secrets::Secrets;

/// Longest key of a start, in bytes.
const START_KEY_BYTES_MAX: usize = 256;

/// A run of which a task begins another.
struct Holder {
    run: RunId,
    /// What it keeps while it waits for the other.
    slots: Vec<SlotHeld>,
}

/// How an engine runs.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Most runs in memory; those that are started or due beyond it wait for their turn in the store.
    pub awake_max: usize,
    /// How long a run that is started may have to wait for its turn, as far as that is known; one that would have to for longer is
    /// refused. A fifth of it for those of low priority, ten times of it for those of high priority.
    pub start_wait_max: Duration,
    /// How long a run for which nothing is asked stays in memory.
    pub sleep_after: Duration,
    /// How long what is known of a run that has ended is kept.
    pub kept_for: Duration,
    /// How long an event is kept for runs that begin to wait for it later.
    pub events_kept_for: Duration,
    /// What `$secrets` is; `None` until [`Engine::set_secrets`] says so, and runs that read it wait till then.
    pub secrets: Option<Secrets>,
    /// Most events in a run's life, so that an endless loop ends.
    pub steps_max: u64,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            awake_max: 10_000,
            start_wait_max: Duration::from_secs(30),
            sleep_after: Duration::from_secs(2),
            kept_for: KEPT_FOR,
            events_kept_for: EVENTS_KEPT_FOR,
            secrets: Some(Secrets::default()),
            steps_max: STEPS_MAX,
        }
    }
}

/// Drives runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    journal: Journal,
    clock: Clock,
    tasks: Tasks,
    evaluator: Evaluator,
    invoke: Arc<dyn Invoke>,
    config: EngineConfig,
    /// `None` while they are not known.
    secrets: watch::Sender<Option<Secrets>>,
    admission: Admission,
    runtime: Value,
    definitions: Mutex<Definitions>,
    runs: Mutex<Runs>,
    events: events::Events,
    schedules: schedule::Schedules,
    values: values::Values,
    locks: locks::Locks,
    lifecycle: lifecycle::Channel,
    outbox: outbox::Outbox,
    rng: Mutex<Rng>,
    /// Something may be due earlier, or there is room for another run.
    changed: Notify,
    beats: beats::Beats,
    /// This process was told which workflows there are.
    is_told: AtomicBool,
    /// What was left behind by the process before has not all got on yet.
    is_trying: AtomicBool,
    /// Why nothing is driven any more.
    stopped: watch::Sender<Option<Refused>>,
}

impl Engine {
    /// Takes over the runs of a store and drives them on. Those of workflows that `definitions` lack go on by the documents with
    /// which they began.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn open(
        store: Arc<dyn Store>,
        clock: Clock,
        tasks: Tasks,
        evaluator: Evaluator,
        invoke: Arc<dyn Invoke>,
        config: EngineConfig,
    ) -> Result<Self, JournalError> {
        let journal = Journal::take_over(store, clock, config.kept_for).await?;
        let runtime =
            serde_json::json!({"name": "standfast", "version": env!("CARGO_PKG_VERSION"), "metadata": {}});
        let secrets = watch::Sender::new(config.secrets.clone());
        let engine = Self(Arc::new(Inner {
            journal,
            clock,
            tasks,
            evaluator,
            invoke,
            config,
            secrets,
            admission: Admission::default(),
            runtime,
            definitions: Mutex::default(),
            runs: Mutex::default(),
            events: events::Events::default(),
            schedules: schedule::Schedules::default(),
            values: values::Values::default(),
            locks: locks::Locks::default(),
            lifecycle: lifecycle::Channel::default(),
            outbox: outbox::Outbox::default(),
            rng: Mutex::new(Rng::from_entropy()),
            changed: Notify::new(),
            beats: beats::Beats::default(),
            is_told: AtomicBool::new(false),
            is_trying: AtomicBool::new(false),
            stopped: watch::Sender::new(None),
        }));
        engine.read_outbox().await?;
        engine.read_events().await?;
        engine.read_locks().await?;
        engine.recover().await?;
        let waking = engine.clone();
        engine.0.tasks.spawn("workflow timers", OnStop::Abort, async move { waking.wake_the_due().await });
        let watching = engine.clone();
        engine.0.tasks.spawn("workflow watchdog", OnStop::Abort, async move { watching.watch().await });
        let sending = engine.clone();
        engine.0.tasks.spawn(
            "workflow lifecycle",
            OnStop::Abort,
            async move { sending.send_lifecycle().await },
        );
        let marking = engine.clone();
        engine.0.tasks.spawn("workflow mark", OnStop::Abort, async move { marking.keep_marking().await });
        Ok(engine)
    }

    /// From now on runs of this workflow can be started, and begin by themselves if the newest version has a schedule. Runs that go
    /// on keep the document with which they began.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub async fn define(&self, definition: Definition) -> Result<(), Refused> {
        let name = definition.program.name().clone();
        self.0.journal.put_definition(&name, definition.program.digest(), &definition.kept()).await?;
        self.definitions().add(definition);
        self.schedule(&name).await
    }

    /// From now on no run of this version can be started, and none begins by itself. Runs that go on do so.
    ///
    /// # Errors
    /// When its schedule cannot be removed.
    pub async fn remove(&self, name: &WorkflowName) -> Result<(), Refused> {
        self.journal().forget_name(name).await?;
        self.definitions().remove(name);
        self.schedule(name).await
    }

    /// From now on runs of these workflows can be started, and of no others. Runs that go on keep the documents with which they
    /// began.
    ///
    /// # Errors
    /// When one cannot be kept: then some may have changed.
    pub async fn define_all(&self, all: Vec<Definition>) -> Result<(), Refused> {
        let wanted: Vec<&WorkflowName> = all.iter().map(|definition| definition.program.name()).collect();
        let gone: Vec<WorkflowName> =
            self.workflows().into_iter().filter(|name| !wanted.contains(&name)).collect();
        for definition in all {
            self.define(definition).await?;
        }
        for name in gone {
            self.remove(&name).await?;
        }
        self.0.is_told.store(true, Ordering::SeqCst);
        Ok(())
    }

    /// From now on this is what `$secrets` is, also for what runs that go on ask next.
    pub fn set_secrets(&self, secrets: Secrets) {
        self.0.secrets.send_replace(Some(secrets));
    }

    /// The workflows that can be started.
    pub fn workflows(&self) -> Vec<WorkflowName> {
        self.definitions().names()
    }

    /// Starts a run; done when that is written. A second start of the workflow with the same key is the same run.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn start(
        &self,
        workflow: &WorkflowName,
        input: Arc<Value>,
        key: Option<&str>,
    ) -> Result<RunId, Refused> {
        let program = self.program_named(workflow)?;
        self.start_program(program, input, key, None).await
    }

    /// What names a start in the store.
    fn start_key(name: &WorkflowName, key: Option<&str>) -> Result<Option<Arc<str>>, Refused> {
        match key {
            Some(key) if key.len() > START_KEY_BYTES_MAX => {
                Err(Refused::TooLarge { what: "the key", max: START_KEY_BYTES_MAX })
            }
            Some(key) => Ok(Some(format!("{}/{}/{key}", name.namespace, name.name).into())),
            None => Ok(None),
        }
    }

    /// Starts a run, for a task of another run or nobody's.
    async fn start_program(
        &self,
        program: Arc<Program>,
        input: Arc<Value>,
        key: Option<&str>,
        holder: Option<Holder>,
    ) -> Result<RunId, Refused> {
        self.check_driven()?;
        check_limits("the input", &input)?;
        let name = program.name();
        let key = Self::start_key(name, key)?;
        if let Some(key) = &key
            && let Some(id) = self.0.journal.started_by(key).await?
        {
            return Ok(id);
        }
        let priority = program.priority;
        let crowded = self.runs().crowded();
        // A run that was let in must be able to run those that it consists of.
        if holder.is_none() {
            let backlog = crowded + self.0.invoke.waiting();
            self.0.admission.check(priority, backlog, self.0.config.start_wait_max)?;
        }
        let id = self.new_id();
        let (told, answer) = oneshot::channel();
        let room = self.room();
        let is_crowded = room == 0 || room <= crowded && priority != Priority::High;
        // A task of its own drives it, so that a caller who goes away leaves nothing half begun. One for which there is no room is
        // written, put to sleep, and waits behind those that are due before it.
        let driving = self.take_up(Run::new(id), program, u64::MAX).crowded(is_crowded);
        let mut around = Vec::new();
        if let Some(holder) = holder {
            self.runs().nests(id, holder.run);
            around = holder.slots;
        }
        let cause = Cause::Start { input, key: key.clone(), around };
        self.spawn(driving, Input { cause, told: Some(told) });
        match (answer.await.unwrap_or_else(|_| Err(self.why_stopped())), &key) {
            (Ok(_), _) => Ok(id),
            // Somebody else started it by the same key in the same moment.
            (Err(Refused::StartedBefore), Some(key)) => {
                self.0.journal.started_by(key).await?.ok_or(Refused::StartedBefore)
            }
            (Err(why), _) => Err(why),
        }
    }

    /// Waits until a run has ended. Cancel safe.
    ///
    /// # Errors
    /// When there is no such run, or runs are not driven any more.
    pub async fn wait(&self, id: RunId) -> Result<Summary, Refused> {
        let waits = self.runs().wait(id);
        let Some(ends) = waits else {
            return match self.0.journal.ended(id).await? {
                Some((summary, _)) => Ok(summary),
                None => Err(self.not_there(id)),
            };
        };
        let mut stopped = self.0.stopped.subscribe();
        tokio::select! {
            biased;
            summary = ends => match summary {
                Ok(summary) => Ok(summary),
                Err(_) => Err(self.why_gone(id).await),
            },
            () = drive::is_stopped(&mut stopped) => Err(self.why_stopped()),
        }
    }

    /// Waits for the end of a run, but no longer than this; `None` when it goes on. Cancel safe.
    ///
    /// # Errors
    /// As of [`Engine::wait`].
    pub async fn wait_for(&self, id: RunId, limit: Duration) -> Result<Option<Summary>, Refused> {
        match self.0.clock.timeout(limit, self.wait(id)).await {
            Ok(ended) => ended.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Ends a run before its end.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn cancel(&self, id: RunId, reason: &str) -> Result<Run, Refused> {
        self.tell(id, Cause::Cancel { reason: reason.to_owned() }).await
    }

    /// Holds a run: what was asked is answered, nothing new is begun.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn hold(&self, id: RunId) -> Result<Run, Refused> {
        self.tell(id, Cause::Hold).await
    }

    /// Lets a run that is held go on.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn resume(&self, id: RunId) -> Result<Run, Refused> {
        self.tell(id, Cause::Resume).await
    }

    /// How many runs are in memory, and how many sleep.
    pub fn counts(&self) -> (usize, usize) {
        self.runs().counts()
    }
}

/// What the parts of the engine ask each other.
impl Engine {
    fn beats(&self) -> &beats::Beats {
        &self.0.beats
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.0.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn definitions(&self) -> MutexGuard<'_, Definitions> {
        self.0.definitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn events(&self) -> &events::Events {
        &self.0.events
    }

    fn outbox(&self) -> &outbox::Outbox {
        &self.0.outbox
    }

    fn schedules(&self) -> &schedule::Schedules {
        &self.0.schedules
    }

    fn events_kept_for(&self) -> Duration {
        self.0.config.events_kept_for
    }

    fn clock(&self) -> &Clock {
        &self.0.clock
    }

    fn journal(&self) -> &Journal {
        &self.0.journal
    }

    fn sleep_after(&self) -> Duration {
        if self.room() == 0 { Duration::ZERO } else { self.0.config.sleep_after }
    }

    /// For how many more runs there is room in memory.
    fn room(&self) -> usize {
        self.runs().room(self.0.config.awake_max)
    }

    fn stopped(&self) -> watch::Receiver<Option<Refused>> {
        self.0.stopped.subscribe()
    }

    fn new_id(&self) -> RunId {
        let mut rng = self.0.rng.lock().unwrap_or_else(PoisonError::into_inner);
        drive::new_id(self.0.clock.now(), rng.bits(), rng.bits())
    }

    /// Waits for what `$secrets` is, if a program reads it: runs go on before this process is told.
    async fn knows_secrets(&self, program: &Program) {
        if self.0.secrets.borrow().is_some() || !program.reads_secrets() {
            return;
        }
        let _they_are_never_told = self.0.secrets.subscribe().wait_for(Option::is_some).await.is_err();
    }

    /// What was answered without secrets in it, so that it can be kept: a service may say again what it was told.
    fn without_secrets(
        &self,
        program: &Program,
        answer: Result<Arc<Value>, Problem>,
    ) -> Result<Arc<Value>, Problem> {
        let secrets = self.0.secrets.borrow().clone();
        let Some(secrets) = secrets.filter(|secrets| secrets.hides_any() && program.reads_secrets()) else {
            return answer;
        };
        match answer {
            Ok(value) => Ok(secrets.without(value)),
            Err(problem) => Err(secrets.without_in_problem(problem)),
        }
    }

    fn with_world<T>(&self, program: &Program, work: impl FnOnce(&World<'_>) -> T) -> T {
        let secrets = self.0.secrets.borrow().clone().unwrap_or_default();
        work(&World {
            program,
            evaluator: &self.0.evaluator,
            secrets: &secrets,
            runtime: &self.0.runtime,
            steps_max: self.0.config.steps_max,
        })
    }

    async fn invoke(&self, asked: &Asked) -> Result<Answer, Problem> {
        self.0.invoke.invoke(asked).await
    }
}
