//! An engine on paused time, over a store that outlives it; what it asks outside is never answered.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use standfast_model::Stamp;
use standfast_runtime::{Clock, Tasks};
use standfast_store::{MemoryStore, Store};
use standfast_workflow::{
    Answer, Asked, Definition, Engine, EngineConfig, Invoke, JournalError, Problem, RunId, Summary,
    WorkflowName,
};

use super::crash::Mortal;
use super::rig::{definition, evaluator};

/// When paused time begins: 2026-01-01T00:00:00Z.
const BEGIN: Stamp = Stamp::from_micros(1_767_225_600_000_000);
/// Most runs that a test looks at.
const RUNS_MAX: usize = 1_000;

#[derive(Debug)]
struct Nobody;

#[async_trait]
impl Invoke for Nobody {
    async fn invoke(&self, _: &Asked) -> Result<Answer, Problem> {
        std::future::pending().await
    }
}

/// An engine and what it stands on.
pub(crate) struct Quiet {
    pub(crate) engine: Engine,
    pub(crate) clock: Clock,
    store: Arc<dyn Store>,
    tasks: Tasks,
}

impl Quiet {
    pub(crate) async fn new() -> Self {
        let clock = Clock::starting_at(BEGIN);
        Self::over(Arc::new(MemoryStore::new(clock)), clock).await
    }

    /// Runs as this says.
    pub(crate) async fn with(config: EngineConfig) -> Self {
        let clock = Clock::starting_at(BEGIN);
        Self::open(Arc::new(MemoryStore::new(clock)), clock, config).await
    }

    async fn over(store: Arc<dyn Store>, clock: Clock) -> Self {
        let config = EngineConfig { sleep_after: Duration::from_millis(100), ..EngineConfig::default() };
        Self::open(store, clock, config).await
    }

    async fn open(store: Arc<dyn Store>, clock: Clock, config: EngineConfig) -> Self {
        Self::try_open(store, clock, config).await.unwrap()
    }

    async fn try_open(
        store: Arc<dyn Store>,
        clock: Clock,
        config: EngineConfig,
    ) -> Result<Self, JournalError> {
        let tasks = Tasks::new();
        let opened =
            Engine::open(Arc::clone(&store), clock, tasks.clone(), evaluator(), Arc::new(Nobody), config);
        Ok(Self { engine: opened.await?, clock, store, tasks })
    }

    /// Over a store that stops for good after so many commits, for so long; then anew over what was kept. Whether it stopped.
    pub(crate) async fn mortal(
        commits: i64,
        is_done: bool,
        lives: Duration,
        define: (&str, &str),
    ) -> (bool, Self) {
        let clock = Clock::starting_at(BEGIN);
        let memory: Arc<dyn Store> = Arc::new(MemoryStore::new(clock));
        let left = Arc::new(Mortal { inner: Arc::clone(&memory), left: commits.into(), is_done });
        let config = EngineConfig { sleep_after: Duration::from_millis(100), ..EngineConfig::default() };
        if let Ok(first) = Self::try_open(Arc::clone(&left) as Arc<dyn Store>, clock, config).await {
            let _it_may_stop = first.engine.define(definition(define.0, define.1)).await;
            clock.sleep(lives).await;
            first.tasks.shutdown(&clock, Duration::ZERO).await;
        }
        let stopped = left.left.load(Ordering::SeqCst) < 0;
        clock.sleep(BEGIN.plus(lives).since(clock.now())).await;
        let quiet = Self::over(memory, clock).await;
        quiet.define(define.0, define.1).await;
        (stopped, quiet)
    }

    /// Ends all that goes on.
    pub(crate) async fn end(self) {
        self.tasks.shutdown(&self.clock, Duration::ZERO).await;
    }

    /// Ends all that goes on, is away for a time, and begins anew over the same store. Nothing is defined then.
    pub(crate) async fn crash(self, away: Duration) -> Self {
        let Self { engine, clock, store, tasks } = self;
        tasks.shutdown(&clock, Duration::ZERO).await;
        drop(engine);
        clock.sleep(away).await;
        Self::over(store, clock).await
    }

    /// Ends all that goes on, and begins anew when the machine's clock was set back by so much.
    pub(crate) async fn crash_and_set_back(self, by: Duration) -> Self {
        let Self { engine, clock, store, tasks } = self;
        tasks.shutdown(&clock, Duration::ZERO).await;
        drop(engine);
        Self::over(store, Clock::starting_at(clock.now().minus(by))).await
    }

    pub(crate) async fn define(&self, name: &str, rest: &str) -> WorkflowName {
        let made: Definition = definition(name, rest);
        let name = made.program.name().clone();
        self.engine.define(made).await.unwrap();
        name
    }

    pub(crate) async fn start(&self, name: &WorkflowName, input: Value) -> RunId {
        self.engine.start(name, Arc::new(input), None).await.unwrap()
    }

    pub(crate) async fn publish(&self, event: Value) -> usize {
        self.engine.publish(Arc::new(event)).await.unwrap()
    }

    /// Lets time pass.
    pub(crate) async fn pass(&self, seconds: u64) {
        self.clock.sleep(Duration::from_secs(seconds)).await;
    }

    /// All runs of a workflow, in the order of their starts.
    pub(crate) async fn runs_of(&self, name: &str) -> Vec<Summary> {
        let mut found = self.engine.list(None, RUNS_MAX).await.unwrap();
        found.retain(|run| run.workflow.name == name);
        found.sort_by_key(|run| run.started_at);
        found
    }

    /// When they were started, in whole seconds since paused time began; a start is never before its second.
    pub(crate) async fn starts_of(&self, name: &str) -> Vec<u64> {
        let runs = self.runs_of(name).await;
        runs.iter().map(|run| run.started_at.since(BEGIN).as_secs()).collect()
    }
}
