//! `workflow kv`: values that workflows keep by keys.

use http::Method;
use serde_json::{Value, json};

use super::Call;
use super::workflow_list::encoded;
use super::workflow_live::{ANSWER_MAX, ask};
use crate::args::WorkflowKvCommand;
use crate::exit;
use crate::failure::Failure;

/// Values that are asked for at once.
const PAGE_MAX: usize = 1_000;

pub(super) fn kv(command: &WorkflowKvCommand, call: &Call) -> Result<u8, Failure> {
    match command {
        WorkflowKvCommand::List { namespace, prefix, limit, json: as_json, stack } => {
            let (mut values, mut next): (Vec<Value>, Option<String>) = (Vec::new(), None);
            while values.len() < *limit {
                let number = PAGE_MAX.min(limit - values.len());
                let after = next.map_or(String::new(), |next| format!("&after={}", encoded(&next)));
                let (namespace, prefix) = (encoded(namespace), encoded(prefix));
                let path = format!("/v1/namespaces/{namespace}/values?limit={number}&prefix={prefix}{after}");
                let mut page = ask(stack, Method::GET, &path, None, None, ANSWER_MAX, call)?;
                values.extend(page["values"].as_array_mut().map(std::mem::take).unwrap_or_default());
                next = page["next"].as_str().map(str::to_owned);
                if next.is_none() {
                    break;
                }
            }
            if *as_json {
                call.output.json(&json!({"values": values, "next": next}))?;
                return Ok(exit::DONE);
            }
            if values.is_empty() {
                call.output.note("no values");
            }
            let line =
                |one: &Value| format!("{}  {}\n", one["key"].as_str().unwrap_or_default(), one["value"]);
            call.output.data(&values.iter().map(line).collect::<String>())?;
        }
        WorkflowKvCommand::Get { namespace, key, json: as_json, stack } => {
            let path = format!("/v1/namespaces/{}/value?key={}", encoded(namespace), encoded(key));
            let found = ask(stack, Method::GET, &path, None, None, ANSWER_MAX, call)?;
            match as_json {
                true => call.output.json(&found)?,
                false => call.output.data(&format!("{}\n", found["value"]))?,
            }
        }
    }
    Ok(exit::DONE)
}
