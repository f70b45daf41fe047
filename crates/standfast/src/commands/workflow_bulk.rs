//! `workflow cancel`, `hold`, `resume` and `retry` of many runs: shown first, then done page by page.

use http::Method;
use serde_json::{Value, json};

use super::Call;
use super::workflow_list::query;
use super::workflow_live::{ANSWER_MAX, asked};
use crate::args::{NamedStack, StackArgs, WorkflowManyArgs};
use crate::exit;
use crate::failure::Failure;
use crate::output::Output;

/// Does it to all runs that fit, or shows which these are.
pub(super) fn change(
    args: &WorkflowManyArgs,
    verb: &str,
    stack: &NamedStack,
    as_json: bool,
    call: &Call,
) -> Result<u8, Failure> {
    let mut query = query(&args.filter)?;
    if args.all {
        query.push_str("&all=true");
    }
    if query.is_empty() {
        let hint = format!("standfast workflow {verb} RUN, or say which: --workflow NAME, --all; see --help");
        return Err(Failure::input("it is not said which runs are meant").hint(hint));
    }
    let is_dry = !args.yes;
    let place =
        call.place_despite_workflows(&StackArgs { stack: stack.stack.clone(), state: stack.state.clone() })?;
    let (runs, is_whole) = call.block_on(async {
        let (running, _) = place.running().await?;
        let mut progress = (!is_dry).then(|| call.output.progress(format!("{verb}: looking for runs")));
        let (mut runs, mut next): (Vec<Value>, Option<String>) = (Vec::new(), None);
        let interrupted = tokio::signal::ctrl_c();
        tokio::pin!(interrupted);
        loop {
            let after = next.map_or(String::new(), |next| format!("&after={next}"));
            let path = format!("/v1/bulk/{verb}?dryRun={is_dry}{query}{after}");
            // A page is waited for, so that all that was done is told.
            let mut page = asked(&running.node, Method::POST, &path, None, None, ANSWER_MAX * 4).await?;
            runs.extend(page["runs"].as_array_mut().map(std::mem::take).unwrap_or_default());
            if let Some(progress) = &mut progress {
                progress.set(format!("{verb}: {} runs", runs.len()), false);
            }
            next = page["next"].as_str().map(str::to_owned);
            if next.is_none() {
                return Ok((runs, true));
            }
            tokio::select! {
                biased;
                _ = &mut interrupted => return Ok((runs, false)),
                () = std::future::ready(()) => {}
            }
        }
    })?;
    let refused = runs.iter().filter(|run| run["refused"].is_string()).count();
    if as_json {
        call.output.json(&json!({"dryRun": is_dry, "whole": is_whole, "runs": runs}))?;
    } else {
        show(&runs, call.output)?;
    }
    let count = if runs.len() == 1 { "1 run".to_owned() } else { format!("{} runs", runs.len()) };
    if !is_whole {
        let failure = Failure::new(exit::INTERRUPTED, format!("interrupted: {verb} of {count} so far"));
        return Err(failure.hint("the same command goes on with those that are left"));
    }
    if is_dry && !args.dry_run && !runs.is_empty() {
        let failure = Failure::input(format!("nothing is done yet: {verb} is for {count}"));
        return Err(failure.hint("if all these are meant, say so: add --yes"));
    }
    if refused > 0 {
        return Err(Failure::new(exit::UNDER_TEST, format!("{verb} of {refused} of {count} was refused")));
    }
    call.output.note(if is_dry {
        format!("{verb} is for {count}; nothing is done")
    } else {
        format!("{verb} of {count}: done")
    });
    Ok(exit::DONE)
}

/// A run that is named is not looked for.
pub(super) fn is_of_one(args: &WorkflowManyArgs) -> Result<(), Failure> {
    match query(&args.filter)?.is_empty() {
        true => Ok(()),
        false => {
            let hint = "name the run alone, or leave it out for all runs that fit";
            Err(Failure::input("a run is named, and said which runs are meant").hint(hint))
        }
    }
}

fn show(runs: &[Value], output: Output) -> Result<(), Failure> {
    let mut text = String::new();
    for run in runs {
        let of = |field: &str| run[field].as_str().unwrap_or_default();
        let workflow = run["workflow"]["name"].as_str().unwrap_or_default();
        text.push_str(&format!("{}  {:9}  {:24}  {workflow}", of("id"), of("status"), of("startedAt")));
        for field in ["became", "retriedBy", "refused"] {
            if let Some(what) = run[field].as_str() {
                text.push_str(&format!("  {field} {what}"));
            }
        }
        text.push('\n');
    }
    output.data(&text)
}
