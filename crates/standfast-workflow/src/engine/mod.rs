//! The engine: starts runs, drives them, and takes over those that another process left behind.
//!
//! **Flow.** `start` → a task for the run (`drive`): `decide` (pure) → one record into the journal, in the commit that all runs share →
//! what it asks is asked, by its key → what is answered is the next cause. A crash anywhere repeats from the fold of the journal.
//!
//! **Invariants.** Nothing is asked, answered or shown of a run that is not written. Who opened the store last is the only one who
//! writes. A run is in memory while something is asked for it or is about to happen; else it sleeps in the store.
//!
//! **Stop.** Runs are dropped where they stand: what they asked is asked again, by the same keys.

mod definitions;
mod drive;
mod events;
mod invoke;
mod journal;
mod lifecycle;
mod runs;
mod schedule;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use standfast_model::Stamp;
use standfast_runtime::{Backoff, Clock, OnStop, Rng, Tasks, with_causes};
use standfast_store::Store;
use tokio::sync::{Notify, mpsc, oneshot, watch};

pub use definitions::{BadDefinition, Definition};
pub use events::EVENTS_KEPT_FOR;
pub use invoke::Invoke;
pub use journal::{JournalError, KEPT_FOR, RUN_BYTES_MAX, Summary};
pub use lifecycle::{LIFECYCLE_MAX, Lifecycle, Told};

use self::definitions::Definitions;
use self::drive::{Driving, Input};
use self::journal::{Journal, Sleeper};
use self::runs::{Awake, Runs};
use crate::World;
use crate::ask::{Answer, Asked, RunRequest};
use crate::decide::{Cause, STEPS_MAX, VALUE_BYTES_MAX, over_limits, size_of};
use crate::expression::Evaluator;
use crate::program::{Program, WorkflowName};
use crate::run::{Digest, Problem, Record, Run, RunId, Standard, Status};

/// Most that may happen to a run while it is busy with something that happened before.
const INBOX_MAX: usize = 256;
/// How often it is noted how far back a recovery must read.
const MARK_PERIOD: Duration = Duration::from_secs(1);
/// Between attempts to give an event of a run to those that are too busy for it.
const GIVE_AGAIN: Backoff = Backoff { base: Duration::from_millis(20), cap: Duration::from_secs(1) };
/// Longest key of a start, in bytes.
const START_KEY_BYTES_MAX: usize = 256;

/// How an engine runs.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Most runs in memory; those that are started or due beyond it wait for their turn in the store.
    pub awake_max: usize,
    /// How long a run for which nothing is asked stays in memory.
    pub sleep_after: Duration,
    /// How long what is known of a run that has ended is kept.
    pub kept_for: Duration,
    /// How long an event is kept for runs that begin to wait for it later.
    pub events_kept_for: Duration,
    /// What `$secrets` is.
    pub secrets: Value,
    /// Most events in a run's life, so that an endless loop ends.
    pub steps_max: u64,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            awake_max: 10_000,
            sleep_after: Duration::from_secs(2),
            kept_for: KEPT_FOR,
            events_kept_for: EVENTS_KEPT_FOR,
            secrets: Value::Object(serde_json::Map::new()),
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
    runtime: Value,
    definitions: Mutex<Definitions>,
    runs: Mutex<Runs>,
    events: events::Events,
    schedules: schedule::Schedules,
    lifecycle: lifecycle::Channel,
    rng: Mutex<Rng>,
    /// Something may be due earlier, or there is room for another run.
    changed: Notify,
    /// This process was told which workflows there are.
    is_told: AtomicBool,
    /// Why nothing is driven any more.
    stopped: watch::Sender<Option<Refused>>,
}

/// What the engine is asked and does not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// There is no such workflow.
    #[error("there is no workflow {name}; known are: {known}")]
    NoWorkflow {
        /// What was asked for.
        name: WorkflowName,
        /// What there is.
        known: String,
    },
    /// There is no such run.
    #[error("there is no run {0}, or it ended so long ago that it is not kept any more")]
    NoRun(RunId),
    /// It has ended.
    #[error("the run {0} has ended")]
    Ended(RunId),
    /// Too much happens to the run at the same time. Repeat it after a moment.
    #[error("too much happens to the run {0} at the moment")]
    Busy(RunId),
    /// What was given is too large.
    #[error("{what} is larger than {max} bytes")]
    TooLarge {
        /// What.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// This run is not driven on, or cannot be read.
    #[error("the run is not driven on: {0}")]
    Failed(String),
    /// What was given is wrong.
    #[error("{0}")]
    Wrong(String),
    /// A run with this key was started before.
    #[error("a run was started with this key before")]
    StartedBefore,
    /// Nothing is driven any more.
    #[error("runs are not driven any more: {0}")]
    Stopped(String),
}

impl From<JournalError> for Refused {
    fn from(why: JournalError) -> Self {
        match why {
            JournalError::StartedBefore => Self::StartedBefore,
            // Of one run; the others go on.
            JournalError::RunTooLarge { .. } | JournalError::Unreadable(_) => Self::Failed(with_causes(&why)),
            why => Self::Stopped(with_causes(&why)),
        }
    }
}

/// Where a run stands, and what it went through.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// How it stands.
    pub summary: Summary,
    /// The run itself, while it goes on.
    pub run: Option<Run>,
    /// All that happened, as far as it is kept.
    pub records: Vec<Record>,
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
        let engine = Self(Arc::new(Inner {
            journal,
            clock,
            tasks,
            evaluator,
            invoke,
            config,
            runtime,
            definitions: Mutex::default(),
            runs: Mutex::default(),
            events: events::Events::default(),
            schedules: schedule::Schedules::default(),
            lifecycle: lifecycle::Channel::default(),
            rng: Mutex::new(Rng::from_entropy()),
            changed: Notify::new(),
            is_told: AtomicBool::new(false),
            stopped: watch::Sender::new(None),
        }));
        engine.read_events().await?;
        engine.recover().await?;
        let waking = engine.clone();
        engine.0.tasks.spawn("workflow timers", OnStop::Abort, async move { waking.wake_the_due().await });
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
        self.start_program(program, input, key).await
    }

    async fn start_program(
        &self,
        program: Arc<Program>,
        input: Arc<Value>,
        key: Option<&str>,
    ) -> Result<RunId, Refused> {
        self.check_driven()?;
        check_limits("the input", &input)?;
        let name = program.name();
        let key: Option<Arc<str>> = match key {
            Some(key) if key.len() > START_KEY_BYTES_MAX => {
                return Err(Refused::TooLarge { what: "the key", max: START_KEY_BYTES_MAX });
            }
            Some(key) => Some(format!("{}/{}/{key}", name.namespace, name.name).into()),
            None => None,
        };
        if let Some(key) = &key
            && let Some(id) = self.0.journal.started_by(key).await?
        {
            return Ok(id);
        }
        let id = self.new_id();
        let (told, answer) = oneshot::channel();
        let is_crowded = self.room() == 0;
        // A task of its own drives it, so that a caller who goes away leaves nothing half begun. One for which there is no room is
        // written, put to sleep, and waits behind those that are due before it.
        let driving = self.take_up(Run::new(id), program, u64::MAX).crowded(is_crowded);
        self.spawn(driving, Input { cause: Cause::Start { input, key: key.clone() }, told: Some(told) });
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

    /// Where a run stands, and all that happened to it.
    ///
    /// # Errors
    /// When there is no such run.
    pub async fn show(&self, id: RunId) -> Result<Shown, Refused> {
        match self.look(id).await {
            Ok((run, last)) => {
                let program = self.program_of(&run).await?;
                let records = self.0.journal.history(last).await?;
                Ok(Shown { summary: Summary::of(&run, program.name()), run: Some(run), records })
            }
            // What is not driven has ended, this very moment perhaps, or never was.
            Err(Refused::NoRun(_) | Refused::Ended(_)) => {
                let ended = self.0.journal.ended(id).await?;
                let (summary, last) = ended.ok_or_else(|| self.not_there(id))?;
                let records = self.0.journal.history(last).await?;
                Ok(Shown { summary, run: None, records })
            }
            Err(why) => Err(why),
        }
    }

    /// Runs, the latest first, whether they go on or have ended; at most `limit`, `after` one that was shown before. Page by page
    /// each is shown once, though runs end meanwhile.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn list(&self, after: Option<RunId>, limit: usize) -> Result<Vec<Summary>, Refused> {
        // First those that go on: one that ends meanwhile is among those that have ended.
        let mut live = self.runs().ids();
        live.retain(|id| after.is_none_or(|after| *id < after));
        live.sort_unstable_by(|one, other| other.cmp(one));
        live.truncate(limit);
        let ended = self.0.journal.ended_before(after, limit).await?;
        let mut found: BTreeMap<RunId, Summary> =
            ended.into_iter().map(|summary| (summary.id, summary)).collect();
        for id in live {
            if found.len() >= limit && found.first_key_value().is_some_and(|(oldest, _)| id < *oldest) {
                break; // all others are older than what is shown
            }
            if found.contains_key(&id) {
                continue;
            }
            let summary = match self.look(id).await {
                Ok((run, _)) => Some(Summary::of(&run, self.program_of(&run).await?.name())),
                Err(Refused::NoRun(_) | Refused::Ended(_)) => {
                    self.0.journal.ended(id).await?.map(|(summary, _)| summary)
                }
                Err(why) => return Err(why),
            };
            found.extend(summary.map(|summary| (id, summary)));
            while found.len() > limit {
                found.pop_first();
            }
        }
        Ok(found.into_values().rev().collect())
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

    /// Keeps an event and gives it to the runs and schedules that could want it; done when all that took it have written so. Returns
    /// to how many runs it was given. The same event (by source and id) may be published again: each task takes it once.
    ///
    /// # Errors
    /// See [`Refused`]: some runs may have taken it. Publish it again.
    pub async fn publish(&self, event: Arc<Value>) -> Result<usize, Refused> {
        self.check_driven()?;
        check_limits("the event", &event)?;
        check_event(&event)?;
        let (could_want, is_known) = self.keep_event(&event).await?;
        // One that comes again is not given to a task of a run of which another task took it.
        let cause = match is_known {
            true => Cause::Kept { events: vec![Arc::clone(&event)] },
            false => Cause::Event { event: Arc::clone(&event) },
        };
        self.offer_to_schedules(&event).await?;
        let (mut given, mut refused) = (0, None);
        for id in could_want {
            match self.tell(id, cause.clone()).await {
                Ok(_) => given += 1,
                Err(Refused::NoRun(_) | Refused::Ended(_)) => {}
                Err(why @ Refused::Stopped(_)) => return Err(why),
                // One that cannot take it keeps it from no other.
                Err(why) => refused = Some(why),
            }
        }
        refused.map_or(Ok(given), Err)
    }

    /// How many runs are in memory, and how many sleep.
    pub fn counts(&self) -> (usize, usize) {
        self.runs().counts()
    }
}

/// What the parts of the engine ask each other.
impl Engine {
    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.0.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn definitions(&self) -> MutexGuard<'_, Definitions> {
        self.0.definitions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn events(&self) -> &events::Events {
        &self.0.events
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

    /// Nothing is promised once nothing is driven any more.
    fn check_driven(&self) -> Result<(), Refused> {
        match &*self.0.stopped.borrow() {
            Some(why) => Err(why.clone()),
            None => Ok(()),
        }
    }

    /// Why a run that was driven does not answer.
    async fn why_gone(&self, id: RunId) -> Refused {
        // First this: what the store of a stopped engine shows is no promise.
        if let Err(why) = self.check_driven() {
            return why;
        }
        match self.0.journal.ended(id).await {
            Ok(Some(_)) => Refused::Ended(id),
            Ok(None) if self.runs().is_awake(id).is_some() => self.why_stopped(),
            Ok(None) => Refused::Failed("see the log".to_owned()),
            Err(why) => why.into(),
        }
    }

    fn new_id(&self) -> RunId {
        let mut rng = self.0.rng.lock().unwrap_or_else(PoisonError::into_inner);
        drive::new_id(self.0.clock.now(), rng.bits(), rng.bits())
    }

    /// Why a run is not known: it never was, or nothing is driven any more.
    fn not_there(&self, id: RunId) -> Refused {
        self.0.stopped.borrow().clone().unwrap_or(Refused::NoRun(id))
    }

    fn why_stopped(&self) -> Refused {
        self.0.stopped.borrow().clone().unwrap_or_else(|| Refused::Stopped("the process stops".to_owned()))
    }

    fn program_named(&self, name: &WorkflowName) -> Result<Arc<Program>, Refused> {
        let definitions = self.definitions();
        match definitions.find(name) {
            Some(definition) => Ok(Arc::clone(&definition.program)),
            None => {
                let known: Vec<String> = definitions.names().iter().map(ToString::to_string).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                Err(Refused::NoWorkflow { name: name.clone(), known })
            }
        }
    }

    /// The program with which a run began.
    async fn program_of(&self, run: &Run) -> Result<Arc<Program>, Refused> {
        self.program_by(&run.definition).await
    }

    async fn program_by(&self, digest: &Digest) -> Result<Arc<Program>, Refused> {
        if let Some(program) = self.definitions().by_digest(digest) {
            return Ok(program);
        }
        let text = self.0.journal.definition(digest).await?;
        let text = text.ok_or_else(|| Refused::Failed(format!("its document ({digest}) is not kept")))?;
        let definition = Definition::of_kept("the run's document", &text)
            .map_err(|why| Refused::Failed(format!("its document ({digest}): {}", with_causes(&why))))?;
        self.definitions().keep(Arc::clone(&definition.program));
        Ok(definition.program)
    }

    fn with_world<T>(&self, program: &Program, work: impl FnOnce(&World<'_>) -> T) -> T {
        work(&World {
            program,
            evaluator: &self.0.evaluator,
            secrets: &self.0.config.secrets,
            runtime: &self.0.runtime,
            steps_max: self.0.config.steps_max,
        })
    }

    async fn invoke(&self, asked: &Asked) -> Result<Answer, Problem> {
        self.0.invoke.invoke(asked).await
    }

    /// Runs a workflow for a task of another run: the task's key is the start's, so that asking twice starts one.
    async fn run_within(&self, request: &RunRequest, key: &str, holder: RunId) -> Result<Answer, Problem> {
        let failed =
            |why: Refused| Standard::Runtime.problem(format!("the workflow {}: {why}", request.workflow));
        let program = match self.program_named(&request.workflow) {
            Ok(program) => program,
            Err(unknown) => {
                let kept = self.unless_stopped(self.program_kept(&request.workflow).await).await;
                kept.map_err(failed)?.ok_or_else(|| failed(unknown))?
            }
        };
        let key = format!("{holder}.{}", Digest::of(key.as_bytes()));
        let started = self.start_program(program, Arc::clone(&request.input), Some(&key)).await;
        let id = self.unless_stopped(started).await.map_err(failed)?;
        if !request.awaited {
            return Ok(Answer::Begun);
        }
        let patient = Patient::new(self, holder);
        let ended = self.wait(id).await;
        drop(patient);
        let summary = self.unless_stopped(ended).await.map_err(failed)?;
        match (summary.status, summary.problem) {
            (Status::Completed, _) => Ok(Answer::Run(summary.output.unwrap_or_default())),
            (_, Some(problem)) => Err(Problem { instance: None, ..problem }),
            (status, None) => Err(failed(Refused::Wrong(format!("it is {}", status.word())))),
        }
    }

    /// What became of something, unless the process stops or runs are not driven any more: that is no problem of a task.
    async fn unless_stopped<T>(&self, found: Result<T, Refused>) -> Result<T, Refused> {
        match found {
            Err(Refused::Stopped(_)) => std::future::pending().await,
            found => found,
        }
    }

    /// What a name meant to the process before. Runs go on before this one is told which workflows there are; those that ask for
    /// another meanwhile must not fail by that.
    async fn program_kept(&self, name: &WorkflowName) -> Result<Option<Arc<Program>>, Refused> {
        if self.0.is_told.load(Ordering::SeqCst) {
            return Ok(None);
        }
        let versions = self.0.journal.versions(name).await?;
        let is_any = matches!(name.version.as_str(), "latest" | "");
        let found = versions.into_iter().filter(|(version, _)| is_any || *version == name.version);
        match found.max_by_key(|(version, _)| definitions::order_of(version)) {
            Some((_, digest)) => self.program_by(&digest).await.map(Some),
            None => Ok(None),
        }
    }

    /// Puts a run among those in memory; `first_unkept` is where the first of its records is that is not in a snapshot.
    fn take_up(&self, run: Run, program: Arc<Program>, first_unkept: u64) -> Driving {
        let (inbox, messages) = mpsc::channel(INBOX_MAX);
        let first_unkept = Arc::new(AtomicU64::new(first_unkept));
        self.runs().wakes(run.id, Awake { inbox, first_unkept: Arc::clone(&first_unkept) });
        Driving::new(self.clone(), program, run, first_unkept, messages)
    }

    fn spawn(&self, driving: Driving, input: Input) {
        self.0.tasks.spawn("workflow run", OnStop::Abort, driving.drive(input));
    }

    /// Tells a run what happens to it, and waits until that is written.
    async fn tell(&self, id: RunId, cause: Cause) -> Result<Run, Refused> {
        let (told, answer) = oneshot::channel();
        let input = Input { cause, told: Some(told) };
        let sent = self.runs().send(id, input);
        match sent {
            runs::Sent::Awake => {}
            runs::Sent::Full => return Err(Refused::Busy(id)),
            runs::Sent::Asleep(input) => self.wake(id, input)?,
            runs::Sent::Unknown => {
                return Err(match self.0.journal.ended(id).await? {
                    Some(_) => Refused::Ended(id),
                    None => self.not_there(id),
                });
            }
        }
        match answer.await {
            Ok(told) => told,
            // It ended before it read this, or it is not driven any more.
            Err(_) => Err(self.why_gone(id).await),
        }
    }

    /// Has a run read back and driven on with what happens to it. A task of its own does that: a caller who goes away would leave
    /// a run that neither sleeps nor is driven.
    fn wake(&self, id: RunId, input: Input) -> Result<(), Refused> {
        let (inbox, messages) = mpsc::channel(INBOX_MAX);
        let first_unkept = Arc::new(AtomicU64::new(u64::MAX));
        let awake = Awake { inbox, first_unkept: Arc::clone(&first_unkept) };
        // It is read when nobody else can: a snapshot that somebody else goes on from would be an old one.
        let claim = self.runs().claim(id, awake, input);
        let input = match claim {
            runs::Claim::Taken(input) => input,
            runs::Claim::Sent(runs::Sent::Awake) => return Ok(()),
            runs::Claim::Sent(runs::Sent::Unknown) => return Err(Refused::NoRun(id)),
            runs::Claim::Sent(_) => return Err(Refused::Busy(id)),
        };
        let engine = self.clone();
        self.0.tasks.spawn("workflow run", OnStop::Abort, async move {
            let read_back = async {
                let sleeper = engine.0.journal.sleeper(id).await?.ok_or(Refused::NoRun(id))?;
                let program = engine.program_of(&sleeper.run).await?;
                Ok((sleeper, program))
            };
            match read_back.await {
                Ok((Sleeper { run, last, due, .. }, program)) => {
                    let driving = Driving::new(engine, program, run, first_unkept, messages);
                    let kept = driving.records();
                    driving.read_back(last, Some(kept)).woken(due).drive(input).await;
                }
                Err(why) => {
                    engine.gave_up(id, &why);
                    if let Some(told) = input.told {
                        let _nobody_waits = told.send(Err(why));
                    }
                }
            }
        });
        Ok(())
    }

    /// Where a run that goes on stands, and where its last record is.
    async fn look(&self, id: RunId) -> Result<(Run, Option<u64>), Refused> {
        let is_awake = match self.runs().is_awake(id) {
            Some(is_awake) => is_awake,
            None => return Err(Refused::NoRun(id)),
        };
        if is_awake {
            let run = self.tell(id, Cause::Continue).await?;
            let last = self.runs().last_of(id);
            return Ok((run, last));
        }
        match self.0.journal.sleeper(id).await? {
            Some(sleeper) => Ok((sleeper.run, sleeper.last)),
            None => Err(Refused::NoRun(id)),
        }
    }

    fn falls_asleep(&self, id: RunId, due: Option<Stamp>, inbox: &mut mpsc::Receiver<Input>) -> bool {
        let mut runs = self.runs();
        // Who sends holds this lock: what is not in the inbox now never will be.
        if !inbox.is_empty() {
            return false;
        }
        runs.falls_asleep(id, due);
        drop(runs);
        self.0.changed.notify_one();
        true
    }

    fn wrote(&self, id: RunId, at: u64) {
        self.runs().wrote(id, at);
    }

    fn ended(&self, run: &Run, workflow: &WorkflowName) {
        self.events().forget(run.id);
        self.runs().ended(run.id, &Summary::of(run, workflow));
        self.0.changed.notify_one();
    }

    /// A run that cannot be written is not driven on: what is true of it is in the journal, and the next process tries again.
    fn gave_up(&self, id: RunId, why: &Refused) {
        match why {
            // First this, so that who finds the run gone finds out why.
            Refused::Stopped(_) => self.stop(why),
            Refused::StartedBefore | Refused::NoRun(_) => {}
            _ => tracing::error!(run = %id, %why, "the run is not driven on"),
        }
        self.events().forget(id);
        match why {
            Refused::StartedBefore | Refused::NoRun(_) => self.runs().forget(id),
            _ => self.runs().gives_up(id),
        }
        self.0.changed.notify_one();
    }

    /// From now on nothing is driven, nothing asked and nothing promised.
    fn stop(&self, why: &Refused) {
        let is_first = self.0.stopped.send_if_modified(|stopped| {
            let is_first = stopped.is_none();
            stopped.get_or_insert_with(|| why.clone());
            is_first
        });
        if is_first {
            tracing::error!(%why, "no run is driven on");
        }
    }

    /// Events of runs are given to those that wait. Until that is done a recovery reads the record at `written` again.
    fn published(&self, events: Vec<Arc<Value>>, written: Option<u64>) {
        if events.is_empty() {
            return;
        }
        written.iter().for_each(|at| self.events().sends(*at));
        let engine = self.clone();
        self.0.tasks.spawn("workflow events", OnStop::Abort, async move {
            for event in events {
                let mut failures = 0;
                while let Err(why) = engine.publish(Arc::clone(&event)).await {
                    match why {
                        Refused::Busy(_) => {}
                        // The next process reads the record again.
                        Refused::Stopped(_) => return,
                        why => {
                            tracing::warn!(%why, "an event of a run was not given to all that wait");
                            break;
                        }
                    }
                    let mut rng = Rng::seeded(written.unwrap_or_default());
                    engine.0.clock.sleep(GIVE_AGAIN.wait(failures, &mut rng)).await;
                    failures += 1;
                }
            }
            written.iter().for_each(|at| engine.events().sent(*at));
        });
    }

    async fn recover(&self) -> Result<(), JournalError> {
        let found = self.0.journal.recover().await?;
        let mut listening = Vec::new();
        for (id, due, listens) in found.sleeping {
            if listens {
                self.events().may_want_any(id);
                listening.push(id);
            }
            self.runs().falls_asleep(id, due);
        }
        for journal::Left { run, first, last, kept } in found.awake {
            let program = match self.program_of(&run).await {
                Ok(program) => program,
                Err(why) => {
                    // The mark must not pass it: another release may know how to go on.
                    self.runs().keeps_from(first);
                    tracing::error!(run = %run.id, %why, "the run cannot be driven on");
                    continue;
                }
            };
            let id = run.id;
            let driving = self.take_up(run, program, first).read_back(Some(last), kept);
            self.wrote(id, last);
            self.spawn(driving, Input { cause: Cause::Time, told: None });
        }
        self.published(found.emitted, None);
        let looking = self.clone();
        self.0.tasks.spawn("workflow listeners", OnStop::Abort, looking.look_at_sleepers(listening));
        Ok(())
    }

    /// Wakes runs when they are due, as long as there is room for them.
    async fn wake_the_due(self) {
        loop {
            let now = self.0.clock.now();
            let (due, next) = self.runs().due(now, self.0.config.awake_max);
            for id in due {
                // Whoever woke it meanwhile knows what time it is, and who cannot read it back says so.
                let _woken_by_another = self.wake(id, Input { cause: Cause::Time, told: None });
            }
            let sleep = async {
                match next {
                    Some(next) => self.0.clock.sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.0.changed.notified() => {}
                () = sleep => {}
            }
        }
    }

    async fn keep_marking(self) {
        let mut marked = 0;
        loop {
            self.0.clock.sleep(MARK_PERIOD).await;
            // First this: what is begun after it is behind it.
            let next = self.0.journal.next();
            let mark = self.runs().first_unkept().min(self.events().first_unsent()).min(next);
            let journal = &self.0.journal;
            // With nothing to note it is asked whether another process has taken over, so that an idle one finds out too.
            let done = if mark == marked { journal.check().await } else { journal.mark(mark).await };
            match done {
                Ok(()) => marked = mark,
                Err(why) => {
                    tracing::warn!(why = %with_causes(&why), "how far back a recovery must read was not noted");
                    if let why @ Refused::Stopped(_) = Refused::from(why) {
                        return self.stop(&why);
                    }
                }
            }
        }
    }
}

/// A run that waits for another, as long as this lives.
struct Patient<'e> {
    engine: &'e Engine,
    run: RunId,
}

impl<'e> Patient<'e> {
    fn new(engine: &'e Engine, run: RunId) -> Self {
        engine.runs().is_patient(run);
        engine.0.changed.notify_one();
        Self { engine, run }
    }
}

impl Drop for Patient<'_> {
    fn drop(&mut self) {
        self.engine.runs().is_impatient(self.run);
    }
}

fn check_limits(what: &'static str, value: &Value) -> Result<(), Refused> {
    if size_of(value) > VALUE_BYTES_MAX {
        return Err(Refused::TooLarge { what, max: VALUE_BYTES_MAX });
    }
    match over_limits(value) {
        Some(found) => Err(Refused::Wrong(format!("{what} {found}"))),
        None => Ok(()),
    }
}

/// An event has what `CloudEvents` 1.0 demands.
fn check_event(event: &Value) -> Result<(), Refused> {
    for name in ["id", "source", "type"] {
        if event.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err(Refused::Wrong(format!("an event has a text `{name}` (CloudEvents 1.0)")));
        }
    }
    match event.get("specversion").and_then(Value::as_str) {
        None | Some("1.0") => Ok(()),
        Some(other) => Err(Refused::Wrong(format!("`specversion` is `{other}`, only 1.0 is known"))),
    }
}
