//! `check`, `schema` and `completions`: what needs no running stack.

use clap::CommandFactory;
use serde_json::json;

use super::Call;
use crate::args::{Cli, StackJsonArgs};
use crate::exit;
use crate::failure::Failure;
use crate::output::Paint;

/// Checks a stack's files.
pub(crate) fn check(args: &StackJsonArgs, call: &Call) -> Result<u8, Failure> {
    if args.json {
        let (diagnostics, is_good) =
            match standfast_model::load(&args.stack.stack, &call.surroundings.variables) {
                Ok(loaded) => {
                    let found = loaded.secrets.and(call.missing_secrets(&args.stack.stack, &loaded.stack));
                    let is_good = found.is_empty();
                    (found.and(loaded.warnings), is_good)
                }
                Err(found) => (found, false),
            };
        let answer = json!({"version": 1, "valid": is_good, "diagnostics": diagnostics.to_json()});
        call.output.json(&answer)?;
        return Ok(if is_good { exit::DONE } else { exit::INPUT });
    }
    let stack = call.load(&args.stack.stack)?;
    let replicas: u32 = stack.services.values().map(|service| service.deploy.replicas).sum();
    call.output.data(&format!(
        "{} {}: {} services, {replicas} replicas over {} zones, {} external, {} routes, {} workflows, {} invariants, {} experiments\n",
        call.output.paint_data(Paint::Good, "ok"),
        stack.name,
        stack.services.len(),
        stack.zones.len(),
        stack.externals.len(),
        stack.routes.len(),
        stack.workflows.len(),
        stack.invariants.len(),
        stack.experiments.len(),
    ))?;
    let has_limits =
        stack.services.values().any(|service| service.deploy.limits != standfast_model::Limits::default());
    if let Some(limitation) = has_limits.then(standfast_node::limits_limitation).flatten() {
        call.output.note(format!("{} {limitation}", call.output.paint(Paint::Warn, "note:")));
    }
    Ok(exit::DONE)
}

/// Prints the JSON Schema.
pub(crate) fn schema(call: &Call) -> Result<u8, Failure> {
    call.output.json(&standfast_model::schema())?;
    Ok(exit::DONE)
}

/// Prints completions for a shell.
pub(crate) fn completions(shell: clap_complete::Shell, call: &Call) -> Result<u8, Failure> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "standfast", &mut text);
    call.output.data(&String::from_utf8_lossy(&text))?;
    Ok(exit::DONE)
}
