//! `plan`, `apply` and `restart`: changes of a running stack, and the plan of a first start.

use std::fmt::Write as _;

use standfast_node::{PlanAnswer, first_start};
use standfast_runtime::Clock;

use super::Call;
use super::running::admin_failure;
use super::up::build_failure;
use crate::args::{ApplyArgs, RestartArgs, StackJsonArgs};
use crate::build;
use crate::exit;
use crate::failure::Failure;
use crate::output::{Output, Paint, table};

/// Shows what `apply` would do, or `up` when the stack does not run.
pub(crate) fn plan(args: &StackJsonArgs, call: &Call) -> Result<u8, Failure> {
    let place = call.place(&args.stack)?;
    let plan = call.block_on(async {
        let Some((running, _)) = place.running_if_any().await? else {
            return Ok(first_start(place.stack.clone(), Clock::system().now()));
        };
        running.node.plan(&place.stack).await.map_err(|error| admin_failure("cannot plan", &error))
    })?;
    show(&plan, args.json, call)?;
    if !plan.running {
        let name = &place.stack.name;
        call.output
            .note(format!("\nstack `{name}` does not run; to carry this out: standfast up {}", place.named));
    } else if !args.json && !is_empty(&plan) {
        call.output.note(format!("\nto do this: standfast apply {} --plan {}", place.named, plan.plan));
    }
    Ok(exit::DONE)
}

/// Does what a plan says.
pub(crate) fn apply(args: &ApplyArgs, call: &Call) -> Result<u8, Failure> {
    if args.plan.is_none() && !args.yes {
        return Err(Failure::input("say which plan is to be carried out").hint(
            "standfast plan shows it and its number, then: standfast apply --plan NUMBER (or --yes for both in one go)",
        ));
    }
    let place = call.place(&args.stack)?;
    if !args.no_build {
        build::build(&place.stack, call.output).map_err(|failure| build_failure(&failure))?;
    }
    let author = call.surroundings.user();
    let done = call.block_on(async {
        let (running, _) = place.running().await?;
        let answer = running.node.apply(&place.stack, args.plan.clone(), &author, &args.reason).await;
        answer.map_err(|error| admin_failure("cannot apply", &error))
    })?;
    show(&done, args.json, call)?;
    if !args.json && !is_empty(&done) {
        call.output.note(format!("under way; watch it with: standfast status {}", place.named));
    }
    Ok(exit::DONE)
}

/// Replaces running replicas one by one.
pub(crate) fn restart(args: &RestartArgs, call: &Call) -> Result<u8, Failure> {
    let place = call.place(&args.stack)?;
    let done = call.block_on(async {
        let (running, _) = place.running().await?;
        let answer = running.node.restart(args.service.as_deref()).await;
        answer.map_err(|error| admin_failure("cannot restart", &error))
    })?;
    show(&done, false, call)?;
    call.output.note(format!("under way; watch it with: standfast status {}", place.named));
    Ok(exit::DONE)
}

fn is_empty(plan: &PlanAnswer) -> bool {
    plan.steps.is_empty() && plan.changes.is_empty()
}

fn show(plan: &PlanAnswer, as_json: bool, call: &Call) -> Result<(), Failure> {
    if as_json {
        return call.output.json(plan);
    }
    call.output.data(&describe(plan, call.output))
}

fn describe(plan: &PlanAnswer, output: Output) -> String {
    let mut text = String::new();
    if is_empty(plan) {
        text.push_str("nothing to do: what runs is what the stack says\n");
    } else {
        let _infallible = writeln!(text, "plan {}", output.paint_data(Paint::Strong, &plan.plan));
    }
    for change in &plan.changes {
        let _infallible = writeln!(text, "  {} {change}", output.paint_data(Paint::Warn, "~"));
    }
    let rows: Vec<Vec<String>> = plan
        .steps
        .iter()
        .map(|step| {
            vec![
                format!("  {}", output.paint_data(Paint::Good, &step.act)),
                step.what.clone(),
                step.reason.clone(),
                output.paint_data(Paint::Dim, &step.impact),
            ]
        })
        .collect();
    text.push_str(&table(&rows));
    for line in &plan.waiting {
        let _infallible = writeln!(text, "  waiting: {line}");
    }
    text
}
