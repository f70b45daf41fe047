//! `logs`: what the services print.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use standfast_model::ServiceName;
use standfast_platform::local::{AgentClient, LogCursor, LogLine, LogQuery, LogSource, LogStream};
use standfast_runtime::Clock;

use super::Call;
use super::running::Place;
use crate::args::LogsArgs;
use crate::exit;
use crate::failure::Failure;
use crate::output::Paint;

/// Lines shown of each service when no time is given.
const LAST_LINES: usize = 50;
/// Lines asked for at a time.
const PAGE_LINES: usize = 1_000;
/// How often new lines are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(150);

/// Shows what the services print.
pub(crate) fn logs(args: &LogsArgs, call: &Call) -> Result<u8, Failure> {
    let place = call.place_despite_workflows(&args.stack)?;
    let services = chosen(&place, args.service.as_deref())?;
    call.block_on(async {
        let (running, _) = place.running().await?;
        let work = show(&running.agent, &services, args, call);
        if !args.follow {
            return work.await.map(|()| exit::DONE);
        }
        tokio::select! {
            biased;
            ended = work => ended.map(|()| exit::DONE),
            _ = tokio::signal::ctrl_c() => Ok(exit::DONE),
        }
    })
}

fn chosen(place: &Place, service: Option<&str>) -> Result<Vec<ServiceName>, Failure> {
    let known = || place.stack.services.keys().cloned();
    let Some(wanted) = service else { return Ok(known().collect()) };
    known().find(|name| name.as_str() == wanted).map(|name| vec![name]).ok_or_else(|| {
        let names: Vec<String> = known().map(String::from).collect();
        Failure::input(format!("no service `{wanted}` in the stack"))
            .hint(format!("one of: {}", names.join(", ")))
    })
}

async fn show(
    agent: &AgentClient,
    services: &[ServiceName],
    args: &LogsArgs,
    call: &Call,
) -> Result<(), Failure> {
    let clock = Clock::system();
    let since = args.since.map(|ago| clock.now().minus(ago));
    let mut cursors: BTreeMap<&ServiceName, LogCursor> = BTreeMap::new();
    let mut is_first = true;
    loop {
        let mut lines: Vec<(&ServiceName, LogLine)> = Vec::new();
        let mut is_more = false;
        for service in services {
            let after = cursors.get(service).copied();
            let limit = if after.is_none() && since.is_none() { LAST_LINES } else { PAGE_LINES };
            let source = LogSource::Service(service.clone());
            let query = LogQuery { source, since: if after.is_none() { since } else { None }, after, limit };
            match agent.logs(&query).await {
                Ok(page) => {
                    is_more |= (after.is_some() || since.is_some()) && page.lines.len() == PAGE_LINES;
                    cursors.insert(service, page.next);
                    lines.extend(page.lines.into_iter().map(|line| (service, line)));
                }
                // An agent that is being replaced is back in a moment; one that never answered is an error.
                Err(error) if args.follow && !is_first && error.may_be_retried() => {}
                Err(error) => return Err(Failure::because_of("cannot read the logs", &error)),
            }
        }
        lines.sort_by_key(|(_, line)| line.at);
        for (service, line) in &lines {
            print(service, line, args.json, call)?;
        }
        is_first = false;
        if !args.follow && !is_more {
            return Ok(());
        }
        if !is_more {
            clock.sleep(LOOK_EVERY).await;
        }
    }
}

fn print(service: &ServiceName, line: &LogLine, as_json: bool, call: &Call) -> Result<(), Failure> {
    if as_json {
        let value = json!({
            "at": line.at.to_string(), "service": service, "instance": line.writer,
            "stream": line.stream, "line": line.text,
        });
        let text = serde_json::to_string(&value)
            .map_err(|error| Failure::because_of("cannot write a line as JSON", &error))?;
        return call.output.data(&format!("{text}\n"));
    }
    let at = line.at.to_string();
    let time = at.get(11..23).unwrap_or(&at);
    let writer = format!("{:<14}", line.writer);
    let paint = if line.stream == LogStream::Err { Paint::Warn } else { Paint::Hint };
    call.output.data(&format!(
        "{} {} {}\n",
        call.output.paint_data(Paint::Dim, time),
        call.output.paint_data(paint, &writer),
        line.text
    ))
}
