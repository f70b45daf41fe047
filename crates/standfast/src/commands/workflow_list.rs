//! `workflow list`: runs that are looked for, page by page.

use http::Method;
use serde_json::{Value, json};
use standfast_model::Stamp;
use standfast_runtime::Clock;

use super::Call;
use super::workflow_live::{ANSWER_MAX, ask};
use crate::args::{WorkflowFilterArgs, WorkflowListArgs, WorkflowSchedulesArgs, WorkflowStuckArgs};
use crate::exit;
use crate::failure::Failure;
use crate::output::Paint;

/// Runs that are asked for at once.
const PAGE_MAX: usize = 1_000;

pub(super) fn list(args: &WorkflowListArgs, call: &Call) -> Result<u8, Failure> {
    let query = query(&args.filter)?;
    let (mut runs, mut next): (Vec<Value>, Option<String>) = (Vec::new(), None);
    while runs.len() < args.limit {
        let limit = PAGE_MAX.min(args.limit - runs.len());
        let after = next.map_or(String::new(), |next| format!("&after={next}"));
        let path = format!("/v1/runs?limit={limit}{query}{after}");
        let mut page = ask(&args.stack, Method::GET, &path, None, None, ANSWER_MAX, call)?;
        runs.extend(page["runs"].as_array_mut().map(std::mem::take).unwrap_or_default());
        next = page["next"].as_str().map(str::to_owned);
        if next.is_none() {
            break;
        }
    }
    if args.json {
        call.output.json(&json!({"runs": runs, "next": next}))?;
        return Ok(exit::DONE);
    }
    if runs.is_empty() {
        call.output.note("no runs");
        return Ok(exit::DONE);
    }
    let mut text = format!("{:26}  {:9}  {:24}  WORKFLOW\n", "RUN", "STATUS", "STARTED");
    for run in runs {
        let of = |field: &str| run[field].as_str().unwrap_or_default().to_owned();
        let status = format!("{:9}", of("status"));
        let status = match of("status").as_str() {
            "faulted" => call.output.paint_data(Paint::Bad, &status),
            "completed" => call.output.paint_data(Paint::Good, &status),
            _ => status,
        };
        let workflow = run["workflow"]["name"].as_str().unwrap_or_default();
        let version = run["workflow"]["version"].as_str().unwrap_or_default();
        let waits = run["waits"].as_str().map(|waits| format!("  waits {waits}")).unwrap_or_default();
        text.push_str(&format!(
            "{}  {status}  {:24}  {workflow}:{version}{waits}\n",
            of("id"),
            of("startedAt")
        ));
    }
    call.output.data(&text)?;
    Ok(exit::DONE)
}

pub(super) fn stuck(args: &WorkflowStuckArgs, call: &Call) -> Result<u8, Failure> {
    let answer = ask(&args.stack, Method::GET, "/v1/stuck", None, None, ANSWER_MAX, call)?;
    let runs = answer["runs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let code = if runs.is_empty() { exit::DONE } else { exit::UNDER_TEST };
    if args.json {
        call.output.json(&answer)?;
        return Ok(code);
    }
    if runs.is_empty() {
        call.output.note("no run is stuck");
        return Ok(code);
    }
    let mut text = String::new();
    for run in runs {
        let of = |field: &str| run[field].as_str().unwrap_or_default();
        let kind = call.output.paint_data(Paint::Bad, of("kind"));
        let (id, why, since, hint) = (of("id"), of("why"), of("since"), of("hint"));
        text.push_str(&format!("{id}  {kind}  since {since}: {why}\n{:26}  {hint}\n", ""));
    }
    call.output.data(&text)?;
    Ok(code)
}

pub(super) fn schedules(args: &WorkflowSchedulesArgs, call: &Call) -> Result<u8, Failure> {
    let answer = ask(&args.stack, Method::GET, "/v1/schedules", None, None, ANSWER_MAX, call)?;
    if args.json {
        call.output.json(&answer)?;
        return Ok(exit::DONE);
    }
    let all = answer["schedules"].as_array().map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        call.output.note("no workflow has a schedule");
        return Ok(exit::DONE);
    }
    let mut text = format!("{:40}  {:26}  {:16}  WORKFLOW\n", "NEXT", "LAST RUN", "SCHEDULE");
    for one in all {
        let of = |field: &str| one[field].as_str();
        let schedule = of("schedule").unwrap_or_default();
        let next = of("nextThere").or(of("next")).unwrap_or(match schedule.split(' ').next() {
            Some("on") => "when its events have come",
            Some("after") => "after the end of the last run",
            _ => "never",
        });
        let last = of("last").unwrap_or("-");
        let workflow = &one["workflow"];
        let name = |field: &str| workflow[field].as_str().unwrap_or_default();
        let waiting = match one["waiting"].as_u64() {
            None | Some(0) => String::new(),
            Some(waiting) => format!("  ({waiting} due, after the end of the last run)"),
        };
        text.push_str(&format!(
            "{next:40}  {last:26}  {schedule:16}  {}:{}{waiting}\n",
            name("name"),
            name("version")
        ));
    }
    call.output.data(&text)?;
    Ok(exit::DONE)
}

/// What the filter is in a query, each parameter with an `&` before it.
pub(super) fn query(filter: &WorkflowFilterArgs) -> Result<String, Failure> {
    let mut query = String::new();
    let mut add = |name: &str, value: &str| {
        query.push_str(&format!("&{name}={}", encoded(value)));
    };
    let plain = [("status", &filter.status), ("workflow", &filter.workflow), ("error", &filter.error)];
    for (name, value) in plain {
        value.iter().for_each(|value| add(name, value));
    }
    for pair in &filter.input {
        add("input", pair);
    }
    let times = [
        ("startedAfter", "--started-after", &filter.started_after),
        ("startedBefore", "--started-before", &filter.started_before),
    ];
    for (name, option, text) in times {
        if let Some(text) = text {
            add(name, &time(text, option)?.to_string());
        }
    }
    Ok(query)
}

/// A time, or how long ago one was.
fn time(text: &str, option: &str) -> Result<Stamp, Failure> {
    if let Ok(ago) = standfast_model::parse_duration(text)
        && !text.is_empty()
    {
        return Ok(Clock::system().now().minus(ago));
    }
    text.parse().map_err(|why: standfast_model::BadStamp| {
        let hint = format!("or say how long ago: {option} 2h");
        Failure::input(format!("{option} is no time")).because(&why).hint(hint)
    })
}

/// A text as it stands in a query.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                encoded.push(char::from(byte))
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_parameter_is_encoded() {
        let filter = WorkflowFilterArgs {
            status: Some("faulted".into()),
            workflow: None,
            started_after: Some("2026-03-01T09:30:00+01:00".into()),
            started_before: None,
            input: vec!["name=a&b é".into()],
            error: None,
        };
        let expected =
            "&status=faulted&input=name%3Da%26b%20%C3%A9&startedAfter=2026-03-01T08%3A30%3A00.000Z";
        assert_eq!(query(&filter).unwrap(), expected);
        assert!(time("soon", "--started-after").is_err());
    }
}
