//! `workflow start`, `show` and what else is said to a running stack about its runs.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::{Value, json};
use standfast_node::AdminClient;
use standfast_workflow::Record;

use super::Call;
use super::workflow_run::{parse_json, read_input};
use super::{workflow_bulk, workflow_text};
use crate::args::{
    NamedStack, StackArgs, WorkflowChangeArgs, WorkflowEventArgs, WorkflowOneArgs, WorkflowQueryArgs,
    WorkflowRedoArgs, WorkflowRetryArgs, WorkflowSignalArgs, WorkflowStartArgs,
};
use crate::exit;
use crate::failure::Failure;

/// How long an answer may take, besides what it is asked to wait.
pub(super) const ANSWER_MAX: Duration = Duration::from_secs(15);

pub(super) fn start(args: &WorkflowStartArgs, call: &Call) -> Result<u8, Failure> {
    let input = read_input(args.input.as_ref(), args.input_file.as_ref())?;
    let (query, limit) = waiting(args.wait.as_ref())?;
    let name = full_name(&args.workflow, &args.stack, call)?;
    let path = format!("/v1/workflows/{name}/runs{query}");
    let answer = ask(&args.stack, Method::POST, &path, args.key.as_deref(), Some(&input), limit, call)?;
    begun(&answer, args.json, call)
}

/// What is asked for to wait so long, and how long the answer may take then.
fn waiting(wait: Option<&String>) -> Result<(String, Duration), Failure> {
    let Some(text) = wait else { return Ok((String::new(), ANSWER_MAX)) };
    let time = standfast_model::parse_duration(text);
    let time = time.map_err(|hint| Failure::input("--wait is no time").hint(hint))?;
    Ok((format!("?wait={text}"), time.saturating_add(ANSWER_MAX)))
}

pub(super) fn retry(args: &WorkflowRetryArgs, call: &Call) -> Result<u8, Failure> {
    let Some(run) = &args.run else {
        return workflow_bulk::change(&args.many, "retry", &args.stack, args.json, call);
    };
    workflow_bulk::is_of_one(&args.many)?;
    let (query, limit) = waiting(args.wait.as_ref())?;
    let path = format!("/v1/runs/{run}/retry{query}");
    let answer = ask(&args.stack, Method::POST, &path, None, None, limit, call)?;
    begun(&answer, args.json, call)
}

pub(super) fn redo(args: &WorkflowRedoArgs, call: &Call) -> Result<u8, Failure> {
    let (query, limit) = waiting(args.wait.as_ref())?;
    let mut body = json!({"from": args.from});
    if args.input.is_some() || args.input_file.is_some() {
        body["input"] = read_input(args.input.as_ref(), args.input_file.as_ref())?;
    }
    let path = format!("/v1/runs/{}/redo{query}", args.run);
    let answer = ask(&args.stack, Method::POST, &path, args.key.as_deref(), Some(&body), limit, call)?;
    begun(&answer, args.json, call)
}

/// Tells of a run that was begun, and how it ended if that was waited for.
fn begun(answer: &Value, as_json: bool, call: &Call) -> Result<u8, Failure> {
    let status = answer.get("status").and_then(Value::as_str).unwrap_or_default().to_owned();
    if as_json {
        call.output.json(answer)?;
    } else {
        let id = answer.get("id").and_then(Value::as_str).unwrap_or_default();
        let rest =
            answer.get("output").or(answer.get("problem")).map_or(String::new(), |value| format!(" {value}"));
        call.output.data(&format!("{id} {status}{rest}\n").replace("  ", " "))?;
    }
    Ok(if matches!(status.as_str(), "faulted" | "cancelled") { exit::UNDER_TEST } else { exit::DONE })
}

/// `NAMESPACE/NAME` or `NAMESPACE/NAME/VERSION`, of what the user wrote.
fn full_name(text: &str, stack: &NamedStack, call: &Call) -> Result<String, Failure> {
    let (name, version) = text.split_once(':').map_or((text, None), |(name, version)| (name, Some(version)));
    let name = match name.contains('/') {
        true => name.to_owned(),
        false => {
            let answer = ask(stack, Method::GET, "/v1/workflows", None, None, ANSWER_MAX, call)?;
            let known = answer["workflows"].as_array().cloned().unwrap_or_default();
            let of = |field: &str, value: &Value| value[field].as_str().unwrap_or_default().to_owned();
            let found: Vec<&Value> = known.iter().filter(|one| of("name", one) == name).collect();
            let names: Vec<String> =
                known.iter().map(|one| format!("{}/{}", of("namespace", one), of("name", one))).collect();
            match found.first() {
                Some(one) => format!("{}/{name}", of("namespace", one)),
                None => {
                    let hint = match names.is_empty() {
                        true => "put its document into the stack's folder `workflows`".to_owned(),
                        false => format!("there are {}", names.join(", ")),
                    };
                    return Err(
                        Failure::input(format!("there is no workflow `{name}` in the stack")).hint(hint)
                    );
                }
            }
        }
    };
    Ok(version.map_or_else(|| name.clone(), |version| format!("{name}/{version}")))
}

pub(super) fn show(args: &WorkflowOneArgs, call: &Call) -> Result<u8, Failure> {
    let get = |path: &str| ask(&args.stack, Method::GET, path, None, None, ANSWER_MAX, call);
    let summary = get(&format!("/v1/runs/{}", args.run))?;
    let history = get(&format!("/v1/runs/{}/history", args.run))?;
    if args.json {
        call.output.json(&json!({"run": summary, "records": history["records"]}))?;
        return Ok(exit::DONE);
    }
    let records: Vec<Record> = serde_json::from_value(history["records"].clone())
        .map_err(|why| Failure::because_of("the history cannot be read", &why))?;
    let mut text = workflow_text::timeline(&records, call.output);
    if let Some(waits) = summary["waits"].as_str() {
        text.push_str(&format!("       now  it waits {waits}\n"));
    }
    for waits in summary["waitsFor"].as_array().into_iter().flatten() {
        let of = |field: &str| waits[field].as_str().unwrap_or_default().to_owned();
        let until = if of("until").is_empty() { String::new() } else { format!(" until {}", of("until")) };
        text.push_str(&format!(
            "       now  {} waits for {}{until}, since {}\n",
            of("task"),
            of("for"),
            of("since")
        ));
    }
    for waits in summary["waitsForLocks"].as_array().into_iter().flatten() {
        let holders: Vec<&str> =
            waits["heldBy"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        text.push_str(&format!(
            "       now  waits for the lock `{}`, held by {}\n",
            waits["lock"].as_str().unwrap_or_default(),
            if holders.is_empty() { "nobody: others are before it".to_owned() } else { holders.join(", ") }
        ));
    }
    call.output.data(&text)?;
    Ok(exit::DONE)
}

pub(super) fn change(args: &WorkflowChangeArgs, verb: &str, call: &Call) -> Result<u8, Failure> {
    let Some(run) = &args.run else {
        return workflow_bulk::change(&args.many, verb, &args.stack, args.json, call);
    };
    workflow_bulk::is_of_one(&args.many)?;
    let path = format!("/v1/runs/{run}/{verb}");
    let answer = ask(&args.stack, Method::POST, &path, None, None, ANSWER_MAX, call)?;
    match args.json {
        true => call.output.json(&answer)?,
        false => {
            let status = answer["status"].as_str().unwrap_or_default();
            call.output.data(&format!("{run} {status}\n"))?;
        }
    }
    Ok(exit::DONE)
}

pub(super) fn event(args: &WorkflowEventArgs, call: &Call) -> Result<u8, Failure> {
    let example = r#"{"id": "7", "source": "/bank", "type": "paid", "data": {"order": "o-1"}}"#;
    let event = parse_json(&args.event, "the event", example)?;
    let answer = ask(&args.stack, Method::POST, "/v1/events", None, Some(&event), ANSWER_MAX, call)?;
    call.output.json(&answer)?;
    Ok(exit::DONE)
}

pub(super) fn signal(args: &WorkflowSignalArgs, call: &Call) -> Result<u8, Failure> {
    let data = match (&args.data, &args.data_file) {
        (None, None) => Value::Null,
        (data, file) => read_input(data.as_ref(), file.as_ref())?,
    };
    let path = format!("/v1/runs/{}/signals/{}", plain(&args.run, "run")?, plain(&args.name, "signal")?);
    let answer = ask(&args.stack, Method::POST, &path, args.key.as_deref(), Some(&data), ANSWER_MAX, call)?;
    match args.json {
        true => call.output.json(&answer)?,
        false => {
            let status = answer["status"].as_str().unwrap_or_default();
            call.output.data(&format!("{} {status}\n", args.run))?;
        }
    }
    Ok(exit::DONE)
}

pub(super) fn query(args: &WorkflowQueryArgs, call: &Call) -> Result<u8, Failure> {
    let path = format!("/v1/runs/{}/queries/{}", plain(&args.run, "run")?, plain(&args.name, "query")?);
    let answer = ask(&args.stack, Method::GET, &path, None, None, ANSWER_MAX, call)?;
    call.output.json(if args.json { &answer } else { &answer["value"] })?;
    Ok(exit::DONE)
}

/// A name as it stands in an address.
pub(super) fn plain<'t>(text: &'t str, what: &str) -> Result<&'t str, Failure> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match !text.is_empty() && text.chars().all(is_plain) {
        true => Ok(text),
        false => Err(Failure::input(format!("`{text}` is no {what}")).hint(
            "names are of letters, digits, `-`, `_` and `.`; runs are listed by: standfast workflow list",
        )),
    }
}

/// Asks the running stack. What it refuses is the user's.
pub(super) fn ask(
    stack: &NamedStack,
    method: Method,
    path: &str,
    key: Option<&str>,
    body: Option<&Value>,
    limit: Duration,
    call: &Call,
) -> Result<Value, Failure> {
    let place =
        call.place_despite_workflows(&StackArgs { stack: stack.stack.clone(), state: stack.state.clone() })?;
    call.block_on(async {
        let (running, _) = place.running().await?;
        asked(&running.node, method, path, key, body, limit).await
    })
}

/// What a node that runs is asked.
pub(super) async fn asked(
    node: &AdminClient,
    method: Method,
    path: &str,
    key: Option<&str>,
    body: Option<&Value>,
    limit: Duration,
) -> Result<Value, Failure> {
    let answered = node.workflows(method, path, key, body, limit).await;
    let (status, value) = answered.map_err(|why| Failure::because_of("the node does not answer", &why))?;
    if status.is_success() {
        return Ok(value);
    }
    let detail = value["detail"].as_str().unwrap_or("it was refused").to_owned();
    let failure = match status {
        StatusCode::SERVICE_UNAVAILABLE => Failure::ours(detail),
        _ => Failure::input(detail),
    };
    Err(match status {
        StatusCode::NOT_FOUND => failure.hint("see what there is: standfast workflow list"),
        _ => failure,
    })
}
