//! `status`: how a running stack is.

use std::fmt::Write as _;

use standfast_node::{ServiceAnswer, StatusAnswer};

use super::Call;
use super::running::admin_failure;
use crate::args::StackJsonArgs;
use crate::exit;
use crate::failure::Failure;
use crate::output::{Output, Paint, table};

/// Shows how a running stack is.
pub(crate) fn status(args: &StackJsonArgs, call: &Call) -> Result<u8, Failure> {
    let place = call.place_despite_workflows(&args.stack)?;
    let status = call.block_on(async {
        let (running, _) = place.running().await?;
        running.node.status().await.map_err(|error| admin_failure("the node does not answer", &error))
    })?;
    if args.json {
        call.output.json(&status)?;
    } else {
        call.output.data(&describe(&status, call.output))?;
    }
    Ok(exit::DONE)
}

/// A status for people.
pub(crate) fn describe(status: &StatusAnswer, output: Output) -> String {
    let mut text = String::new();
    let state = if status.all_ready {
        output.paint_data(Paint::Good, "all ready")
    } else {
        output.paint_data(Paint::Warn, "not all ready")
    };
    let agent = status.agent_pid.map_or_else(|| "none".into(), |pid| pid.to_string());
    let _infallible = writeln!(
        text,
        "{}  {state}  http://{}  (node {}, agent {agent})\n",
        output.paint_data(Paint::Strong, status.stack.as_str()),
        status.public,
        status.node_pid,
    );
    let mut rows = vec![heading(status, output)];
    for (name, service) in &status.services {
        rows.push(row(name.as_str(), service, status, output));
    }
    text.push_str(&table(&rows));
    for (name, service) in &status.services {
        for replica in service.replicas.iter().filter(|replica| replica.failures >= 3) {
            let failing = format!(
                "{name}: {} fails again and again ({} times in a row)",
                replica.replica, replica.failures
            );
            let _infallible = writeln!(text, "\n{}", output.paint_data(Paint::Bad, &failing));
            for line in &replica.last_output {
                let _infallible = writeln!(text, "  | {line}");
            }
        }
    }
    let lost = status.zones.iter().filter(|(_, zone)| !zone.available);
    for (name, zone) in lost {
        let reason = zone.reason.as_deref().unwrap_or("no reason known");
        let line = format!("zone {name} is lost: {reason}");
        let _infallible = writeln!(text, "\n{}", output.paint_data(Paint::Bad, &line));
    }
    for line in &status.waiting {
        let _infallible = writeln!(text, "\nwaiting: {line}");
    }
    for line in &status.limitations {
        let _infallible = writeln!(text, "\n{} {line}", output.paint_data(Paint::Dim, "note:"));
    }
    text
}

fn heading(status: &StatusAnswer, output: Output) -> Vec<String> {
    let mut cells = vec!["SERVICE".to_owned(), "READY".to_owned()];
    cells.extend(status.zones.keys().map(|zone| format!("ZONE {zone}")));
    cells.extend(["RESTARTS", "REQUESTS", "FAILED", "LAST REASON"].map(str::to_owned));
    cells.into_iter().map(|cell| output.paint_data(Paint::Dim, &cell)).collect()
}

fn row(name: &str, service: &ServiceAnswer, status: &StatusAnswer, output: Output) -> Vec<String> {
    let ready = format!("{}/{}", service.ready, service.wanted);
    let paint = if service.ready >= service.wanted { Paint::Good } else { Paint::Warn };
    let mut cells = vec![name.to_owned(), output.paint_data(paint, &ready)];
    cells.extend(status.zones.keys().map(|zone| service.zones.get(zone).copied().unwrap_or(0).to_string()));
    cells.push(service.restarts.to_string());
    cells.push(service.requests.total.to_string());
    cells.push(service.requests.failed.to_string());
    cells.push(service.last_reason.clone().unwrap_or_else(|| "–".into()));
    cells
}
