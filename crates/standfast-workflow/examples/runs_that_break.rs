//! An engine over a folder with one run among others that ends the process at each attempt: for the test that looks what becomes of it.
//!
//! `runs_that_break FOLDER EVALUATOR breaks`: starts eight runs, or finds them; the process is aborted when the third does its last
//! task. Says how each stands when none goes on by itself any more. With `breaks-asleep` it is woken from the store for that. With `cured`
//! nothing is aborted, and what is parked is taken up again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use standfast_runtime::{Clock, Tasks};
use standfast_store::{
    Batch, CommitError, Committed, EmbeddedOptions, EmbeddedStore, Entry, Health, Page, ReadError, Scan,
    Space, Store, Version, Write,
};
use standfast_workflow::{
    Definition, Direct, Engine, EngineConfig, Evaluator, EvaluatorConfig, RunId, StuckKind,
};
use tokio::sync::watch;

const DOCUMENT: &str = "document: { dsl: '1.0.3', namespace: tests, name: breaks, version: '1.0.0' }
do:
  - pause: { wait: { milliseconds: 20 } }
  - say: { set: { said: '${ if $workflow.input.number == 3 then \"break\" + \"s-it\" else \"fine\" end }' } }
";
const RUNS: usize = 8;
/// Runs that wait leave memory at once.
const ASLEEP: &str = "breaks-asleep";
/// How long an end is waited for before it is looked whether the run is parked.
const LOOK: Duration = Duration::from_millis(50);

/// A store that aborts the process when this is to be written.
#[derive(Debug)]
struct Breaking {
    inner: EmbeddedStore,
    is_cured: bool,
}

#[async_trait]
impl Store for Breaking {
    async fn commit(&self, batch: Batch) -> Result<Committed, CommitError> {
        let breaks = |write: &Write| match write {
            Write::Put { space: Space::Table("workflow-journal"), value, .. } => {
                String::from_utf8_lossy(value).contains("breaks-it")
            }
            _ => false,
        };
        if !self.is_cured && batch.writes.iter().any(breaks) {
            std::process::abort();
        }
        self.inner.commit(batch).await
    }

    async fn get(&self, space: &Space, key: &[u8]) -> Result<Option<Entry>, ReadError> {
        self.inner.get(space, key).await
    }

    async fn scan(&self, scan: &Scan) -> Result<Page, ReadError> {
        self.inner.scan(scan).await
    }

    fn watch(&self, space: &Space, prefix: &[u8]) -> watch::Receiver<Version> {
        self.inner.watch(space, prefix)
    }

    fn health(&self) -> watch::Receiver<Health> {
        self.inner.health()
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, evaluator, mode] = &arguments[..] else {
        return Err("three arguments are needed".into());
    };
    let (clock, tasks, is_cured) = (Clock::system(), Tasks::new(), mode == "cured");
    let inner = EmbeddedStore::open(Path::new(folder), clock, EmbeddedOptions::default()).await?;
    let evaluator =
        EvaluatorConfig { program: evaluator.into(), arguments: Vec::new(), ..EvaluatorConfig::default() };
    let (evaluator, invoke) = (Evaluator::new(evaluator), Arc::new(Direct::new(clock)));
    let store = Arc::new(Breaking { inner, is_cured });
    let mut config = EngineConfig::default();
    if mode == ASLEEP {
        config.sleep_after = Duration::ZERO;
    }
    let engine = Engine::open(store, clock, tasks, evaluator, invoke, config).await?;
    let definition = Definition::of_text("document", DOCUMENT)?;
    let name = definition.program.name().clone();
    engine.define(definition).await?;
    let mut runs = Vec::new();
    for number in 1..=RUNS {
        let key = number.to_string();
        runs.push((number, engine.start(&name, Arc::new(json!({"number": number})), Some(&key)).await?));
    }
    for (number, id) in runs {
        if is_cured && is_parked(&engine, id) {
            assert_eq!(engine.retry(id).await?, id, "it goes on itself");
        }
        let status = loop {
            match engine.wait_for(id, LOOK).await? {
                Some(ended) => break ended.status.word(),
                None if is_parked(&engine, id) => break engine.show(id).await?.summary.word(),
                None => {}
            }
        };
        println!("{number} {status}");
    }
    Ok(())
}

fn is_parked(engine: &Engine, id: RunId) -> bool {
    engine.stuck().iter().any(|stuck| stuck.id == id && stuck.kind == StuckKind::Parked)
}
