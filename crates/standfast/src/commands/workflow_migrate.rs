//! `workflow migrate`: runs go over to another version of their document, or it is told why not.

use std::fmt::Write;

use http::Method;
use serde_json::{Value, json};

use super::Call;
use super::workflow_list::{encoded, query};
use super::workflow_live::{ANSWER_MAX, asked};
use crate::args::{StackArgs, WorkflowFilterArgs, WorkflowMigrateArgs};
use crate::exit;
use crate::failure::Failure;
use crate::output::{Output, Paint};

/// Runs that are named in one request.
const NAMED_MAX: usize = 100;

pub(super) fn migrate(args: &WorkflowMigrateArgs, call: &Call) -> Result<u8, Failure> {
    let is_named = !args.runs.is_empty();
    let is_dry = args.dry_run || !is_named && !args.yes;
    let queries = queries(args)?;
    let stack = StackArgs { stack: args.stack.stack.clone(), state: args.stack.state.clone() };
    let place = call.place_despite_workflows(&stack)?;
    let to = encoded(&args.to);
    let (runs, is_whole) = call.block_on(async {
        let (running, _) = place.running().await?;
        let mut runs: Vec<Value> = Vec::new();
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        for query in &queries {
            let mut after = String::new();
            loop {
                let path = format!("/v1/bulk/migrate?to={to}&dryRun={is_dry}{query}{after}");
                // A page is waited for, so that all that was done is told.
                let mut page = asked(&running.node, Method::POST, &path, None, None, ANSWER_MAX * 4).await?;
                runs.extend(page["runs"].as_array_mut().map(std::mem::take).unwrap_or_default());
                tokio::select! {
                    biased;
                    _ = &mut interrupted => return Ok((runs, false)),
                    () = std::future::ready(()) => {}
                }
                match page["next"].as_str() {
                    Some(next) => after = format!("&after={next}"),
                    None => break,
                }
            }
        }
        Ok((runs, true))
    })?;
    if args.json {
        call.output.json(&json!({"dryRun": is_dry, "whole": is_whole, "runs": runs}))?;
    } else {
        show(&runs, call.output)?;
    }
    let refused = runs.iter().filter(|run| goes(run) == Goes::Not).count();
    let count = if runs.len() == 1 { "1 run".to_owned() } else { format!("{} runs", runs.len()) };
    if !is_whole {
        let failure = Failure::new(exit::INTERRUPTED, format!("interrupted: {count} so far"));
        return Err(failure.hint("the same command goes on with those that are left"));
    }
    if is_dry && !args.dry_run && runs.len() > refused {
        let failure =
            Failure::input(format!("nothing is done yet: {} of {count} can go over", runs.len() - refused));
        return Err(failure.hint("if these are meant, say so: add --yes"));
    }
    if refused > 0 {
        let what = if is_dry { "cannot go over" } else { "did not go over" };
        let failure = Failure::new(exit::UNDER_TEST, format!("{refused} of {count} {what}"));
        return Err(failure.hint("the reasons stand beside the runs; those runs go on as they were"));
    }
    call.output.note(match is_dry {
        true => format!("{count} can go over; nothing is done"),
        false => format!("{count}: gone over"),
    });
    Ok(exit::DONE)
}

/// Which runs are meant, each request by itself.
fn queries(args: &WorkflowMigrateArgs) -> Result<Vec<String>, Failure> {
    if !args.runs.is_empty() {
        let chunk = |runs: &[String]| runs.iter().map(|run| format!("&run={}", encoded(run))).collect();
        return Ok(args.runs.chunks(NAMED_MAX).map(chunk).collect());
    }
    let filter = WorkflowFilterArgs {
        status: args.status.clone(),
        workflow: args.workflow.clone(),
        started_after: args.started_after.clone(),
        started_before: args.started_before.clone(),
        input: args.input.clone(),
        error: None,
    };
    let mut query = query(&filter)?;
    if let Some(from) = &args.from {
        query.push_str(&format!("&from={}", encoded(from)));
    }
    if args.all {
        query.push_str("&all=true");
    }
    if query.is_empty() {
        let hint = "standfast workflow migrate RUN --to VERSION, or say which: --workflow NAME --from VERSION, --all";
        return Err(Failure::input("it is not said which runs are meant").hint(hint));
    }
    Ok(vec![query])
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goes {
    Over,
    Already,
    Not,
}

fn goes(run: &Value) -> Goes {
    match run["verdict"].as_str() {
        Some("goes") => Goes::Over,
        Some("already") => Goes::Already,
        _ => Goes::Not,
    }
}

fn show(runs: &[Value], output: Output) -> Result<(), Failure> {
    let mut text = String::new();
    let of = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    for run in runs {
        let (from, to) = (of(&run["workflow"], "version"), of(&run["to"], "version"));
        let word = match goes(run) {
            Goes::Over => output.paint_data(Paint::Good, "goes over"),
            Goes::Already => "goes by it already".to_owned(),
            Goes::Not => output.paint_data(Paint::Bad, "stays"),
        };
        let which = match run["refused"].as_str() {
            Some(why) => why.to_owned(),
            None => format!("{}:{from} -> {to}", of(&run["workflow"], "name")),
        };
        let _infallible = writeln!(text, "{}  {word}  {which}", of(run, "id"));
        for (field, sign) in [("reasons", "!"), ("notes", "-")] {
            for remark in run[field].as_array().into_iter().flatten() {
                let _infallible = writeln!(text, "  {sign} {}: {}", of(remark, "task"), of(remark, "why"));
            }
        }
    }
    output.data(&text)
}
