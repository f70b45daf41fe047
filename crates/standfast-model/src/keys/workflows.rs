use serde_json::{Value, json};

use crate::keys::is_host;
use crate::lifecycle::{LIFECYCLE_BATCH, LIFECYCLE_TYPES, LifecycleSink};
use crate::shape::{FromText, List, Object, Pattern, Shape, Whole};
use crate::source::At;
use crate::suggest;

/// Most events in one request.
const BATCH_MAX: u32 = 1_000;
/// Longest address, in bytes.
const ADDRESS_BYTES_MAX: usize = 2_048;

/// `workflows.lifecycle`; its secret may not exist.
pub(crate) struct LifecycleDraft {
    pub(crate) sink: LifecycleSink,
    pub(crate) bearer: Option<At<String>>,
}

/// What is said of all workflows of the stack. The documents themselves are in the folder of that name.
pub(crate) const WORKFLOWS: Object<Option<LifecycleDraft>> = Object {
    doc: "What holds for all workflows of the stack.",
    read: |f| {
        Some(f.optional(
            "lifecycle",
            "Where the lifecycle events of runs and their tasks are sent.",
            LIFECYCLE,
        ))
    },
};

const LIFECYCLE: Object<LifecycleDraft> = Object {
    doc: "Where the lifecycle events of runs and their tasks are sent, as CloudEvents over HTTP.",
    read: |f| {
        let sink = f.required(
            "sink",
            "The address that they are posted to; `http://SERVICE/PATH` is a service of the stack.",
            ADDRESS,
        );
        let types = f.optional(
            "types",
            "Which, such as `workflow.completed`. Default: all.",
            List { item: EventType, min: 1 },
        );
        let batch = f.or(
            "batch",
            "Most events in one request; with 1 each is sent by itself.",
            Whole { min: 1, max: BATCH_MAX },
            LIFECYCLE_BATCH,
        );
        let bearer = f.optional(
            "bearer",
            "The secret of the stack (a text) that is sent as a bearer token.",
            SECRET_NAME.at(),
        );
        let sink = LifecycleSink {
            sink: sink?,
            types: types.unwrap_or_default(),
            batch,
            bearer: bearer.as_ref().map(|name| name.value.clone()),
        };
        Some(LifecycleDraft { sink, bearer })
    },
};

const ADDRESS: Pattern = Pattern {
    what: "an address that events are posted to: `http://HOST/PATH` or `https://HOST/PATH`",
    pattern: "^https?://[^/@?#]+(/[^#]*)?$",
    matches: is_address,
};

const SECRET_NAME: Pattern = Pattern {
    what: "the name of a secret",
    pattern: "^[A-Za-z0-9_.-]{1,64}$",
    matches: |text| !text.is_empty(),
};

fn is_address(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let Some(rest) = rest.filter(|_| text.len() <= ADDRESS_BYTES_MAX) else { return false };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, Some(port.strip_prefix(':').unwrap_or("none"))),
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    let is_named = match authority.starts_with('[') {
        true => host.parse::<std::net::Ipv6Addr>().is_ok(),
        false => is_host(host),
    };
    is_named && port.is_none_or(is_port) && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
}

/// A type of lifecycle events, whole or its middle.
struct EventType;

impl FromText for EventType {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, Option<String>> {
        let word = text.strip_prefix("io.serverlessworkflow.").and_then(|text| text.strip_suffix(".v1"));
        let word = word.unwrap_or(text);
        match LIFECYCLE_TYPES.contains(&word) {
            true => Ok(word.to_owned()),
            false => Err(Some(suggest::nearest(word, LIFECYCLE_TYPES).map_or_else(
                || format!("there are {}", LIFECYCLE_TYPES.join(", ")),
                |near| format!("did you mean `{near}`?"),
            ))),
        }
    }

    fn expected(&self) -> String {
        "a type of lifecycle events, such as `workflow.completed`".to_owned()
    }

    fn json_schema(&self) -> Value {
        let whole = LIFECYCLE_TYPES.iter().map(|word| format!("io.serverlessworkflow.{word}.v1"));
        let all: Vec<String> = LIFECYCLE_TYPES.iter().map(|word| (*word).to_owned()).chain(whole).collect();
        json!({"anyOf": [{"enum": all}, {"type": "string", "pattern": r"\$"}]})
    }
}
