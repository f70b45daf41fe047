//! Runs, for people.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use standfast_model::Stamp;
use standfast_workflow::{Event, Record, Run, ScopeId, State, undone_by};

use crate::output::{Output, Paint};

/// Longest value that is shown in one line, in characters.
const VALUE_MAX: usize = 100;
/// What the name of what undoes a task begins with.
const UNDOING: &str = "undoing ";

/// What a run is doing now, in one line.
pub(super) fn doing(run: &Run, now: Stamp) -> String {
    let leaves = run.scopes.values().filter_map(|scope| {
        let what = match &scope.state {
            State::Asking => "asks".to_owned(),
            State::Waiting { until } | State::Pausing { until, .. } => {
                format!("waits another {}", shown_time(until.since(now)))
            }
            State::Listening(_) => "waits for events".to_owned(),
            _ => return None,
        };
        Some(format!("{} {what} (for {})", scope.task, shown_time(now.since(scope.at))))
    });
    let leaves: Vec<String> = leaves.take(3).collect();
    if leaves.is_empty() { run.status.word().to_owned() } else { leaves.join("; ") }
}

/// All that happened, a line for each thing.
pub(super) fn timeline(records: &[Record], output: Output) -> String {
    let mut text = String::new();
    let begin = records.first().map_or(Stamp::EPOCH, |record| record.at);
    let mut tasks: HashMap<ScopeId, Arc<str>> = HashMap::from([(ScopeId::ROOT, "".into())]);
    for record in records {
        for event in &record.events {
            if let Event::Entered { scope, task, state, .. } = event {
                tasks.insert(*scope, named(task, state));
            }
            if let Event::Migrated(migrated) = event {
                let stands = |task: &Arc<str>| migrated.places.get(task).cloned();
                tasks.values_mut().for_each(|task| *task = stands(task).unwrap_or_else(|| Arc::clone(task)));
            }
            let Some((paint, what)) = line(event, &tasks) else { continue };
            let what = paint.map_or_else(|| what.clone(), |paint| output.paint(paint, &what));
            let after = format!("+{}", shown_time(record.at.since(begin)));
            let _infallible = writeln!(text, "{after:>10}  {what}");
        }
    }
    text
}

/// What a scope is called: its task's place, or what it is instead of a task.
fn named(task: &Arc<str>, state: &State) -> Arc<str> {
    match state {
        State::Round => format!("a round of {task}").into(),
        State::Compensating { .. } => format!("{UNDOING}{}", undone_by(task).unwrap_or(task)).into(),
        _ => Arc::clone(task),
    }
}

fn line(event: &Event, tasks: &HashMap<ScopeId, Arc<str>>) -> Option<(Option<Paint>, String)> {
    let of = |scope: &ScopeId| tasks.get(scope).map_or("?", |task| &**task);
    let plain = |text: String| Some((None, text));
    match event {
        Event::Started { input, .. } => plain(format!("started with {}", short(input))),
        Event::Admitted { within: None } => plain("is let in".to_owned()),
        Event::Admitted { within: Some(run) } => plain(format!("is let in, in the slot of the run {run}")),
        Event::Continued { run } => {
            let from = run.origin.as_ref().map_or(run.id, |origin| origin.run);
            plain(format!("goes on from the run {from}"))
        }
        Event::Entered { task, state, .. } => plain(match state {
            State::Waiting { until } => format!("{task} waits until {until}"),
            State::Listening(_) => format!("{task} waits for events"),
            State::Loop { items, .. } => format!("{task} begins with {} items", items.len()),
            State::Join { items, .. } => format!("{task} begins with {} items, side by side", items.len()),
            State::Round => format!("a round of {task} begins"),
            State::Compensating { .. } => format!("{} is undone", undone_by(task).unwrap_or(task)),
            State::Asking => format!("{task} asks"),
            _ => format!("{task} begins"),
        }),
        Event::Skipped { task, .. } => plain(format!("{task} is passed over")),
        Event::Done { task, output, .. } => plain(match output {
            Some(output) => format!("{task} yields {}", short(output)),
            None => format!("{task} is done"),
        }),
        Event::Left { scope, .. } if of(scope).starts_with(UNDOING) => {
            plain(format!("{} was undone", &of(scope)[UNDOING.len()..]))
        }
        Event::Faulted { scope, problem } if of(scope).starts_with(UNDOING) => {
            let task = &of(scope)[UNDOING.len()..];
            Some((Some(Paint::Bad), format!("{task} could not be undone: {problem}")))
        }
        Event::Left { scope, output, .. } => plain(format!("{} yields {}", of(scope), short(output))),
        Event::Failed { task, problem, .. } => Some((Some(Paint::Bad), format!("{task} fails: {problem}"))),
        Event::Faulted { scope, problem } => {
            Some((Some(Paint::Bad), format!("{} fails: {problem}", of(scope))))
        }
        Event::Changed { .. } | Event::Iterated { .. } | Event::Handled { .. } | Event::Exported { .. } => {
            None
        }
        Event::Restarted { scope, state } => plain(match state {
            State::Pausing { failed, until, .. } => {
                format!("{} is tried again at {until} (failed {failed} times)", of(scope))
            }
            State::Trying { .. } => format!("{} is tried again", of(scope)),
            State::Catching { .. } => format!("{} catches", of(scope)),
            State::Undoing { problem, .. } => {
                let what = if *scope == ScopeId::ROOT { "the run" } else { of(scope) };
                format!("{what} is undone, since {problem}")
            }
            _ => return None,
        }),
        Event::Emitted { event } => plain(format!("publishes {}", short(event))),
        Event::Consumed { scope, .. } => plain(format!("{} takes an event", of(scope))),
        Event::Acknowledged { scope, keys } => {
            let s = if keys.len() == 1 { "" } else { "s" };
            plain(format!("the broker will not send {} message{s} of {} again", keys.len(), of(scope)))
        }
        Event::Signalled { signal } => plain(format!("is told {}", short(&signal.event))),
        Event::Migrated(migrated) => plain(format!("goes on by version {}", migrated.version)),
        Event::Held => plain("is held".to_owned()),
        Event::Parked { why } => {
            plain(format!("is parked: {why}; `standfast workflow resume` takes it up again"))
        }
        Event::Resumed => plain("goes on".to_owned()),
        Event::Ended { status, output, problem } => {
            let rest = match (output, problem) {
                (Some(output), _) => format!(": {}", short(output)),
                (None, Some(problem)) => format!(": {problem}"),
                (None, None) => String::new(),
            };
            let paint = if problem.is_some() { Paint::Bad } else { Paint::Good };
            Some((Some(paint), format!("{}{rest}", status.word())))
        }
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= VALUE_MAX {
        return text;
    }
    let cut: String = text.chars().take(VALUE_MAX).collect();
    format!("{cut}…")
}

/// A time in at most two units: `12ms`, `3.2s`, `4m05s`, `3h12m`, `5d03h`.
pub(super) fn shown_time(time: Duration) -> String {
    let (millis, seconds) = (time.as_millis(), time.as_secs());
    match seconds {
        0 => format!("{millis}ms"),
        1..60 => format!("{:.1}s", time.as_secs_f64()),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}
