//! An engine over a folder that starts runs until it is killed: for the test that kills it. It says of each start that it was
//! acknowledged.
//!
//! `runs_until_killed FOLDER DOCUMENT EVALUATOR FIRST LAST`: starts one run for each number from FIRST to LAST, by that key, 32 at a
//! time, then waits until all have ended.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use standfast_runtime::{Clock, Tasks};
use standfast_store::{EmbeddedOptions, EmbeddedStore};
use standfast_workflow::{Definition, Direct, Engine, EngineConfig, Evaluator, EvaluatorConfig};
use tokio::task::JoinSet;

/// Starts under way at a time.
const AT_A_TIME: usize = 32;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, folder, document, evaluator, first, last] = &arguments[..] else {
        return Err("five arguments are needed".into());
    };
    let (clock, tasks) = (Clock::system(), Tasks::new());
    let store = EmbeddedStore::open(Path::new(folder), clock, EmbeddedOptions::default()).await?;
    let evaluator =
        EvaluatorConfig { program: evaluator.into(), arguments: Vec::new(), ..EvaluatorConfig::default() };
    let (evaluator, invoke) = (Evaluator::new(evaluator), Arc::new(Direct::new(clock)));
    let config = EngineConfig::default();
    let engine = Engine::open(Arc::new(store), clock, tasks, evaluator, invoke, config).await?;
    let definition = Definition::of_text("document", &std::fs::read_to_string(document)?)?;
    let name = definition.program.name().clone();
    engine.define(definition).await?;
    let mut runs = JoinSet::new();
    for number in first.parse::<usize>()?..=last.parse()? {
        if runs.len() >= AT_A_TIME {
            runs.join_next().await;
        }
        let (engine, name) = (engine.clone(), name.clone());
        runs.spawn(async move {
            let key = number.to_string();
            let id = engine.start(&name, Arc::new(json!({"number": number})), Some(&key)).await?;
            println!("{number} {id}");
            let ended = engine.wait(id).await?;
            println!("{number} {id} {}", ended.status.word());
            Ok::<_, standfast_workflow::Refused>(())
        });
    }
    while let Some(ended) = runs.join_next().await {
        ended??;
    }
    println!("done");
    Ok(())
}
