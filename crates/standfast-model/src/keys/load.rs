use std::time::Duration;

use serde_json::{Value, json};

use super::environment::path;
use super::http::{FIELD_NAMES, METHODS, is_path};
use crate::diagnostics::shown;
use crate::interpolate;
use crate::shape::{
    Context, Count, Fields, Flag, Keyed, Kinds, Loose, Object, Pattern, Rate, Shape, Text, Time,
};
use crate::source::At;
use crate::stack::Body;
use crate::yaml::{self, Kind, Node};

/// Highest rate of one load.
const RATE_PER_SECOND_MAX: f64 = 1_000_000.0;
/// Longest wait for an answer.
const TIMEOUT_MAX: Duration = Duration::from_secs(3_600);
/// What a client waits when the stack says nothing.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// Header fields that follow from the body.
const CLIENT_HEADERS: [&str; 2] = ["content-length", "transfer-encoding"];

/// A load without its name, whose body may be in a file.
pub(crate) struct LoadDraft {
    pub(crate) method: String,
    pub(crate) path: Option<At<String>>,
    pub(crate) workflow: Option<At<String>>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Option<BodyDraft>,
    pub(crate) idempotency_key: bool,
    pub(crate) rate_per_second: f64,
    pub(crate) timeout: Duration,
}

/// A body, or the file that holds it.
pub(crate) enum BodyDraft {
    Inline(Body),
    File(At<String>),
}

pub(crate) const LOAD: Object<LoadDraft> =
    Object { doc: "One kind of request that `prove` sends.", read: load };

fn load(f: &mut Fields<'_, '_>) -> Option<LoadDraft> {
    let workflow = f.optional(
        "workflow",
        "The workflow of which each request starts a run, `NAMESPACE/NAME` or `NAMESPACE/NAME/VERSION`, in place of `path`. The body, \
         which must hold `${id}`, is the input; the id is the `Idempotency-Key`.",
        Pattern {
            what: "a workflow like `shop/checkout`",
            pattern: r"^[a-z0-9-]+/[a-z0-9-]+(/[0-9A-Za-z.+-]+)?$",
            matches: is_workflow,
        }
        .at(),
    );
    let method = f.optional("method", "The HTTP method. Default: POST with a body, GET without.", METHODS);
    let path = f.optional(
        "path",
        "The path and query, from `/`. It must fall under a route. Needed without `workflow`.",
        Pattern { what: "a path that begins with `/`", pattern: r"^/[!-~]*$", matches: is_path }.at(),
    );
    let headers = f.optional("headers", "Header fields.", headers());
    let body = f.optional(
        "body",
        "The body: a text, a mapping or list that is sent as JSON, or `{file: load/order.json}`.",
        body(),
    );
    let idempotency_key =
        f.or("idempotency_key", "Whether each request carries its id as `Idempotency-Key`.", Flag, false);
    let rate = f.required(
        "rate",
        "Arrivals: `250/s`, `15000/m`, or a number a second.",
        Rate { per_second_max: RATE_PER_SECOND_MAX },
    );
    let timeout = f.or(
        "timeout",
        "How long the client waits for the whole answer.",
        Time { min: Duration::from_millis(1), max: TIMEOUT_MAX },
        DEFAULT_TIMEOUT,
    );
    f.count(Count::One, &["path", "workflow"]);
    let usual = if body.is_some() { "POST" } else { "GET" };
    Some(LoadDraft {
        method: method.unwrap_or(usual).to_owned(),
        path,
        workflow,
        headers: headers.unwrap_or_default(),
        body,
        idempotency_key,
        rate_per_second: rate?,
        timeout,
    })
}

fn is_workflow(text: &str) -> bool {
    let is_name = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let is_version = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b".+-".contains(&b))
    };
    match text.split('/').collect::<Vec<_>>().as_slice() {
        [namespace, name] => is_name(namespace) && is_name(name),
        [namespace, name, version] => is_name(namespace) && is_name(name) && is_version(version),
        _ => false,
    }
}

fn headers() -> impl Shape<Value = Vec<(String, String)>> {
    let value = Loose { what: "a text" }.and_then(|text, span, cx: &mut Context<'_>| {
        let visible = text.chars().all(|c| c == '\t' || !c.is_control());
        if !visible {
            let message = format!("{} holds a line break or another control character", cx.subject());
            cx.reports.error(span, message);
        }
        visible.then_some(text)
    });
    Keyed { keys: FIELD_NAMES, item: value, min: 0 }.and_then(|pairs, _, cx: &mut Context<'_>| {
        let mut headers: Vec<(String, String)> = Vec::with_capacity(pairs.len());
        for (name, value) in pairs {
            if CLIENT_HEADERS.iter().any(|own| name.value.eq_ignore_ascii_case(own)) {
                let message =
                    format!("the header field `{}` is set by the client itself", shown(&name.value));
                cx.reports.error_hint(name.span, message, "remove it");
            }
            if headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(&name.value)) {
                let message = format!("the header field `{}` is there twice", shown(&name.value));
                cx.reports.error_hint(name.span, message, "names of header fields do not tell cases apart");
            }
            headers.extend(value.map(|value| (name.value, value)));
        }
        Some(headers)
    })
}

fn body() -> impl Shape<Value = BodyDraft> {
    let text = Text { what: "a text", bytes_max: crate::FILE_BYTES_MAX };
    Kinds::new("a text, a mapping or a list")
        .text(text.and_then(|text, _, _| {
            Some(BodyDraft::Inline(Body { text, content_type: "text/plain; charset=utf-8".to_owned() }))
        }))
        .list(Json)
        .mapping(Json)
}

/// A mapping or list that is sent as JSON; a mapping with nothing but `file` names the file that holds the body.
struct Json;

impl Shape for Json {
    type Value = BodyDraft;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<BodyDraft> {
        if let yaml::Value::Mapping(entries) = &node.value
            && let [entry] = entries.as_slice()
            && &*entry.key.text == "file"
            && matches!(entry.value.value, yaml::Value::Scalar(_))
        {
            let file =
                cx.within("`file`".to_owned(), entry.key.span, |cx| path().decode(&entry.value, cx))?;
            return Some(BodyDraft::File(file));
        }
        let text = json_of(node, cx)?.to_string();
        if text.len() > crate::FILE_BYTES_MAX {
            cx.reports
                .error(node.span, format!("the body is larger than {} MiB", crate::FILE_BYTES_MAX >> 20));
            return None;
        }
        Some(BodyDraft::Inline(Body { text, content_type: "application/json".to_owned() }))
    }

    fn schema(&self) -> Value {
        json!({"type": ["object", "array"]})
    }
}

/// A node as JSON, with its variables replaced. Recursion ends with the tree, whose depth is limited.
fn json_of(node: &Node, cx: &mut Context<'_>) -> Option<Value> {
    Some(match &node.value {
        yaml::Value::List(items) => Value::Array(items.iter().filter_map(|item| json_of(item, cx)).collect()),
        yaml::Value::Mapping(entries) => {
            let pair = |entry: &yaml::Entry, cx: &mut Context<'_>| {
                Some((entry.key.text.to_string(), json_of(&entry.value, cx)?))
            };
            Value::Object(entries.iter().filter_map(|entry| pair(entry, cx)).collect())
        }
        yaml::Value::Scalar(scalar) => {
            let (text, kind) = cx.scalar(node)??;
            // A plain `${QUANTITY}` is the number that it becomes.
            let kind = if scalar.plain && interpolate::concerns(&scalar.text) {
                Kind::of_plain(&text)
            } else {
                kind
            };
            match kind {
                Kind::Null => Value::Null,
                Kind::Bool => Value::Bool(text.eq_ignore_ascii_case("true")),
                Kind::Integer | Kind::Float => number(&text).or_else(|| {
                    let message = format!("`{}` is no number that JSON knows", shown(&text));
                    cx.reports.error_hint(node.span, message, "put it in quotes to send it as a text");
                    None
                })?,
                Kind::Text => Value::String(text.into_owned()),
            }
        }
    })
}

fn number(text: &str) -> Option<Value> {
    let radix =
        |prefix, radix| text.strip_prefix(prefix).and_then(|digits| u64::from_str_radix(digits, radix).ok());
    if let Some(number) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return Some(number.into());
    }
    if let Ok(number) = text.parse::<i64>() {
        return Some(number.into());
    }
    if let Ok(number) = text.parse::<u64>() {
        return Some(number.into());
    }
    serde_json::Number::from_f64(text.parse().ok()?).map(Value::Number)
}
