use std::time::Duration;

use serde_json::Value;

use super::external::EXTERNAL_SERVICE as EXTERNAL;
use super::{compose, service};
use crate::shape::{Fields, Flag, Kinds, List, Loose, Object, Pattern, Shape, Text, Time, Whole};
use crate::stack::{HealthCheck, Probe};

/// Shortest time between two probes.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Longest time between two probes, and longest probe.
const INTERVAL_MAX: Duration = Duration::from_secs(3_600);
/// Longest start.
const START_PERIOD_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Most failures in a row.
const RETRIES_MAX: u32 = 1_000;
/// Longest probe command or path, in bytes.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// What counts when the stack says nothing.
pub(crate) const DEFAULT: HealthCheck = HealthCheck {
    probe: Probe::Tcp,
    interval: Duration::from_secs(1),
    timeout: Duration::from_secs(1),
    retries: 3,
    start_period: Duration::from_secs(30),
};

pub(crate) const HEALTHCHECK: Object<HealthCheck> = Object {
    doc: "How to see that a replica is alive and ready. Give one of `http`, `tcp`, `command`, `test` or `disable`; \
          without one, an open port is the probe.",
    read: healthcheck,
};

fn healthcheck(f: &mut Fields<'_, '_>) -> Option<HealthCheck> {
    let http =
        f.optional("http", "Ready when `GET` of this path at the replica's port answers 2xx or 3xx.", path());
    let tcp =
        f.optional("tcp", "Ready when the replica's port accepts a connection. This is the default.", Flag);
    let command = f.optional(
        "command",
        "Ready when this command, run with the replica's environment, exits with 0.",
        service::command(),
    );
    let test = f.optional(
        "test",
        "Compose's form of `command`: [CMD, program, …], [CMD-SHELL, line], [NONE], or a line for the shell.",
        test(),
    );
    let disable = f.optional("disable", "Ready as long as the process runs.", Flag);
    let (interval, timeout, retries) = times(f);
    let start_period = f.or(
        "start_period",
        "After the start: for so long failures do not count.",
        Time { min: Duration::ZERO, max: START_PERIOD_MAX },
        DEFAULT.start_period,
    );
    f.ignored(compose::HEALTH_IGNORED);

    one_probe(f, [("tcp", tcp), ("disable", disable)]);
    let probe = match (http, command, test, disable) {
        (Some(path), ..) => Probe::Http { path },
        (_, Some(command), ..) => Probe::Command { command },
        (_, _, Some(probe), _) => probe,
        (.., Some(true)) => Probe::None,
        _ => Probe::Tcp,
    };
    Some(HealthCheck { probe, interval, timeout, retries, start_period })
}

/// How to see that an address of an external service is ready: what of a health check needs no process of ours.
pub(crate) const EXTERNAL_HEALTHCHECK: Object<Option<HealthCheck>> = Object {
    doc: "How to see that an address is ready. Give one of `http`, `tcp` or `disable`; without one, an open port is the \
          probe. Default: no probe, only its answers tell.",
    read: external_healthcheck,
};

fn external_healthcheck(f: &mut Fields<'_, '_>) -> Option<Option<HealthCheck>> {
    let http = f.optional("http", "Ready when `GET` of this path at the address answers 2xx or 3xx.", path());
    let tcp = f.optional("tcp", "Ready when the address accepts a connection. This is the default.", Flag);
    let disable = f.optional("disable", "Not probed: only its answers tell.", Flag);
    let (interval, timeout, retries) = times(f);
    f.excluded(["command", "test"], EXTERNAL, "no process of it is ours; use `http` or `tcp`");
    f.excluded(["start_period", "start_interval"], EXTERNAL, "it is not started here");
    one_probe(f, [("tcp", tcp), ("disable", disable)]);
    let probe = match (http, disable) {
        (Some(path), _) => Probe::Http { path },
        (None, Some(true)) => return Some(None),
        (None, _) => Probe::Tcp,
    };
    Some(Some(HealthCheck { probe, interval, timeout, retries, start_period: Duration::ZERO }))
}

fn times(f: &mut Fields<'_, '_>) -> (Duration, Duration, u32) {
    let interval = f.or(
        "interval",
        "From one probe to the next.",
        Time { min: INTERVAL_MIN, max: INTERVAL_MAX },
        DEFAULT.interval,
    );
    let timeout = f.or(
        "timeout",
        "How long one probe may take.",
        Time { min: Duration::from_millis(1), max: INTERVAL_MAX },
        DEFAULT.timeout,
    );
    let retries = f.or(
        "retries",
        "Failures in a row after which the replica counts as dead: one of ours is replaced.",
        Whole { min: 1, max: RETRIES_MAX },
        DEFAULT.retries,
    );
    (interval, timeout, retries)
}

/// Reports a second probe. A flag that is off is none.
fn one_probe(f: &mut Fields<'_, '_>, flags: [(&str, Option<bool>); 2]) {
    let is_off = |name: &str| flags.iter().any(|(flag, value)| *flag == name && *value == Some(false));
    let given: Vec<_> = ["http", "tcp", "command", "test", "disable"]
        .into_iter()
        .filter(|name| !is_off(name))
        .filter_map(|name| Some((name, f.place_of(name)?)))
        .collect();
    if let ([(first, _), (second, place), ..], Some((_, cx))) = (given.as_slice(), f.reading()) {
        let message = format!("`{second}` beside `{first}`: a replica has one probe");
        cx.reports.error_hint(*place, message, "keep one of them");
    }
}

fn path() -> Pattern {
    Pattern { what: "a path that begins with `/`", pattern: r"^/[!-~]*$", matches: is_path }
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.len() <= TEXT_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic())
}

/// Compose's `test`.
fn test() -> impl Shape<Value = Probe> {
    let line = Text { what: "a command", bytes_max: TEXT_BYTES_MAX };
    Kinds::new("a list that begins with CMD, CMD-SHELL or NONE, or a line for the shell")
        .text(line.and_then(|line, _, _| Some(shell(line))))
        .list(TestList)
}

fn shell(line: String) -> Probe {
    Probe::Command { command: vec!["/bin/sh".to_owned(), "-c".to_owned(), line] }
}

/// The list form of Compose's `test`, whose first entry says what the others are.
struct TestList;

impl Shape for TestList {
    type Value = Probe;

    fn decode(&self, node: &crate::yaml::Node, cx: &mut crate::shape::Context<'_>) -> Option<Probe> {
        let mut words = List { item: Loose { what: "a text" }, min: 1 }.decode(node, cx)?.into_iter();
        let kind = words.next();
        let mut rest: Vec<String> = words.collect();
        match (kind.as_deref(), rest.len()) {
            (Some("NONE"), 0) => return Some(Probe::None),
            (Some("CMD"), 1..) => return Some(Probe::Command { command: rest }),
            (Some("CMD-SHELL"), 1) => return rest.pop().map(shell),
            _ => {}
        }
        cx.reports.error_hint(
            node.span,
            "`test` is none of Compose's forms",
            "write [CMD, program, argument…], [CMD-SHELL, line] or [NONE]",
        );
        None
    }

    fn schema(&self) -> Value {
        let words = |first: &str, min: usize, max: Option<usize>| {
            let word = serde_json::json!({"type": ["string", "number", "boolean"]});
            let mut schema = serde_json::json!({
                "type": "array", "items": [{"const": first}], "additionalItems": word, "minItems": min,
            });
            if let Some(max) = max {
                schema["maxItems"] = max.into();
            }
            schema
        };
        let variable = serde_json::json!({"type": "array", "items": [{"type": "string", "pattern": r"\$"}]});
        serde_json::json!({"anyOf": [
            words("CMD", 2, None), words("CMD-SHELL", 2, Some(2)), words("NONE", 1, Some(1)), variable,
        ]})
    }
}
