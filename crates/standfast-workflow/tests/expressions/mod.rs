//! Expressions: what they yield, and that none can do harm, with real children.

mod bombs;
mod children;
mod random;
mod table;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;
use standfast_workflow::{EvaluatorConfig, ExpressionFailed, Trial};

/// The program that evaluates, as an evaluator starts it.
fn config() -> EvaluatorConfig {
    EvaluatorConfig {
        program: PathBuf::from(env!("CARGO_BIN_EXE_standfast-expressions")),
        arguments: Vec::new(),
        // Long enough that only what never ends is late, however busy the machine is.
        time_max: Duration::from_secs(20),
        ..EvaluatorConfig::default()
    }
}

/// An outcome as a text: the value as JSON, or the error.
fn told(outcome: Result<Value, ExpressionFailed>) -> String {
    match outcome {
        Ok(value) => value.to_string(),
        Err(ExpressionFailed::Raised(message)) => format!("raised: {message}"),
        Err(why) => format!("error: {why}"),
    }
}

/// The same with the program as it is after a bomb: it must evaluate on.
fn works(trial: &Trial) -> bool {
    trial.evaluate_in_child(".a + 1", &serde_json::json!({"a": 1}), &[]).ok() == Some(serde_json::json!(2))
}
