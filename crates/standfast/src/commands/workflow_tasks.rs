//! `workflow tasks` and `workflow answer`: what people are to do.

use http::Method;
use serde_json::{Value, json};

use super::Call;
use super::workflow_list::encoded;
use super::workflow_live::{ANSWER_MAX, ask, plain};
use super::workflow_run::read_input;
use crate::args::{WorkflowAnswerArgs, WorkflowTasksArgs};
use crate::exit;
use crate::failure::Failure;

/// Tasks that are asked for at once.
const PAGE_MAX: usize = 1_000;

pub(super) fn tasks(args: &WorkflowTasksArgs, call: &Call) -> Result<u8, Failure> {
    if let Some(task) = &args.task {
        let path = format!("/v1/tasks/{}", plain(task, "task")?);
        call.output.json(&ask(&args.stack, Method::GET, &path, None, None, ANSWER_MAX, call)?)?;
        return Ok(exit::DONE);
    }
    let mut query = String::new();
    for (name, value) in [("for", &args.group), ("workflow", &args.workflow)] {
        value.iter().for_each(|value| query.push_str(&format!("&{name}={}", encoded(value))));
    }
    let (mut tasks, mut next): (Vec<Value>, Option<String>) = (Vec::new(), None);
    while tasks.len() < args.limit {
        let limit = PAGE_MAX.min(args.limit - tasks.len());
        let after = next.map_or(String::new(), |next| format!("&after={next}"));
        let path = format!("/v1/tasks?limit={limit}{query}{after}");
        let mut page = ask(&args.stack, Method::GET, &path, None, None, ANSWER_MAX, call)?;
        tasks.extend(page["tasks"].as_array_mut().map(std::mem::take).unwrap_or_default());
        next = page["next"].as_str().map(str::to_owned);
        if next.is_none() {
            break;
        }
    }
    if args.json {
        call.output.json(&json!({"tasks": tasks, "next": next}))?;
        return Ok(exit::DONE);
    }
    if tasks.is_empty() {
        call.output.note("no task waits for a person");
        return Ok(exit::DONE);
    }
    let mut text = format!("{:29}  {:24}  {:20}  WHAT\n", "TASK", "SINCE", "FOR");
    for task in tasks {
        let of = |field: &str| task[field].as_str().unwrap_or_default();
        let groups: Vec<&str> =
            task["for"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let groups = if groups.is_empty() { "-".to_owned() } else { groups.join(", ") };
        // What a document computes may hold anything.
        let title: String = of("title").chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        text.push_str(&format!("{:29}  {:24}  {groups:20}  {title}\n", of("id"), of("since")));
    }
    call.output.data(&text)?;
    Ok(exit::DONE)
}

pub(super) fn answer(args: &WorkflowAnswerArgs, call: &Call) -> Result<u8, Failure> {
    let data = match (&args.data, &args.data_file) {
        (None, None) => Value::Null,
        (data, file) => read_input(data.as_ref(), file.as_ref())?,
    };
    let by = args.by.as_ref().map_or(String::new(), |by| format!("?by={}", encoded(by)));
    let path = format!("/v1/tasks/{}/answer{by}", plain(&args.task, "task")?);
    let answer = ask(&args.stack, Method::POST, &path, args.key.as_deref(), Some(&data), ANSWER_MAX, call)?;
    match args.json {
        true => call.output.json(&answer)?,
        false => {
            let of = |field: &str| answer[field].as_str().unwrap_or_default();
            call.output.data(&format!("{} {}\n", of("id"), of("status")))?;
        }
    }
    Ok(exit::DONE)
}
