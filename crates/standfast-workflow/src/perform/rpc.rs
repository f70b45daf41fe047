//! JSON-RPC 2.0: what is asked, and what answers it.

use serde_json::{Value, json};

use crate::run::{Problem, Standard};

/// Most of an error's text that a problem tells, in characters.
const EXCERPT_MAX: usize = 300;
/// There is no such method.
const NO_METHOD: i64 = -32_601;

pub(super) fn request(id: u64, method: &str, params: Option<&Value>) -> Value {
    let mut message = json!({"jsonrpc": "2.0", "id": id, "method": method});
    if let Some(params) = params {
        message["params"] = params.clone();
    }
    message
}

pub(super) fn notification(method: &str) -> Value {
    json!({"jsonrpc": "2.0", "method": method})
}

/// What a message means to who waits for the answer to a request.
#[derive(Debug)]
pub(super) enum Meaning {
    /// The answer.
    Answer(Result<Value, Problem>),
    /// It wants to be answered itself, by this.
    Asks(Value),
    /// It is for somebody else.
    Other,
}

/// What a message means to who asked by this id.
pub(super) fn meaning(message: &Value, id: &Value, whom: &str) -> Meaning {
    let is_call = message.get("method").is_some();
    match (message.get("id"), is_call) {
        (Some(theirs), true) if message["method"] == "ping" => {
            Meaning::Asks(json!({"jsonrpc": "2.0", "id": theirs, "result": {}}))
        }
        (Some(theirs), true) => Meaning::Asks(json!({
            "jsonrpc": "2.0", "id": theirs, "error": {"code": NO_METHOD, "message": "a workflow answers nothing"},
        })),
        (Some(ours), false) if ours == id => Meaning::Answer(answer(message, whom)),
        // What cannot be read is answered without an id.
        (Some(Value::Null) | None, false) if message.get("error").is_some() => {
            Meaning::Answer(answer(message, whom))
        }
        _ => Meaning::Other,
    }
}

fn answer(message: &Value, whom: &str) -> Result<Value, Problem> {
    if let Some(error) = message.get("error").filter(|error| !error.is_null()) {
        let code = error.get("code").and_then(Value::as_i64).unwrap_or_default();
        let text = error.get("message").and_then(Value::as_str).unwrap_or("without a reason");
        let text: String = text.chars().take(EXCERPT_MAX).collect();
        return Err(Standard::Runtime.problem(format!("{whom} answered with the error {code}: {text}")));
    }
    match message.get("result") {
        Some(result) => Ok(result.clone()),
        None => Err(Standard::Runtime.problem(format!("{whom} answered with neither a result nor an error"))),
    }
}
