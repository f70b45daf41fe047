//! What is asked about a run by a name that its document gives an expression. Nothing is written.

use std::sync::Arc;

use serde_json::{Value, json};

use super::shown::waits_for;
use super::{Engine, Refused};
use crate::decide::{SIGNAL_TYPE, Seeing, Sight, World};
use crate::program::Program;
use crate::run::{Run, RunId};
use crate::secrets::Secrets;

impl Engine {
    /// What a query of the run's document yields about the run as it is, or as it ended.
    ///
    /// # Errors
    /// See [`Refused`]: there is no such run or query, what happened to the run is not kept any more, or the expression fails.
    pub async fn query(&self, id: RunId, name: &str) -> Result<Value, Refused> {
        let run = match self.look(id).await {
            Ok((run, _)) => run,
            // What is not driven has ended, this very moment perhaps, or never was.
            Err(Refused::NoRun(_) | Refused::Ended(_)) => self.ended_run(id).await?,
            Err(why) => return Err(why),
        };
        let program = self.program_of(&run).await?;
        if !program.queries.contains_key(name) {
            let names: Vec<&str> = program.queries.keys().map(String::as_str).collect();
            let known = match names.is_empty() {
                true => "its document has none under `metadata.standfast.queries`".to_owned(),
                false => format!("it has {}", names.join(", ")),
            };
            return Err(Refused::NoQuery { workflow: program.name().clone(), name: name.to_owned(), known });
        }
        let (engine, name) = (self.clone(), name.to_owned());
        // It may take as long as the evaluator allows.
        let asking = tokio::task::spawn_blocking(move || engine.ask_about(&program, &run, &name));
        asking.await.unwrap_or_else(|_| Err(self.why_stopped()))
    }

    fn ask_about(&self, program: &Program, run: &Run, name: &str) -> Result<Value, Refused> {
        let Some(filter) = program.queries.get(name) else { return Ok(Value::Null) };
        let dot = seen(run, program);
        let mut sight = Sight::of_workflow(&run.input);
        sight.input = Some(Arc::clone(&run.input));
        self.with_world(program, |world| {
            let none = Secrets::default();
            let world = World { secrets: &none, ..*world };
            let seeing = Seeing { world: &world, run, now: self.clock().now(), is_kept: false };
            let value = seeing.ask(filter, &dot, &sight);
            value.map_err(|why| Refused::Unfit(format!("the query `{name}` failed: {why}")))
        })
    }

    /// A run that has ended, as its records tell it.
    pub(super) async fn ended_run(&self, id: RunId) -> Result<Run, Refused> {
        let (_, records) = self.ended_history(id).await?;
        let mut run = Run::new(id);
        records.iter().for_each(|record| run.apply(record));
        Ok(run)
    }
}

/// What a query is asked about.
fn seen(run: &Run, program: &Program) -> Value {
    let mut value = json!({
        "id": run.id,
        "workflow": program.name(),
        "status": run.status,
        "startedAt": run.started_at.to_string(),
        "changedAt": run.changed_at.to_string(),
        "input": *run.input,
        "context": *run.context,
        "waitsFor": waits_for(run),
        "signals": run.signals.iter().filter_map(|signal| signal.name(SIGNAL_TYPE)).collect::<Vec<_>>(),
    });
    if let Some(output) = &run.output {
        value["output"] = Value::clone(output);
    }
    if let Some(problem) = &run.problem {
        value["problem"] = problem.to_value();
    }
    value
}
