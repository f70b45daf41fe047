//! The API's own description, made of the table from which requests are dispatched: OpenAPI 3.1 (<https://spec.openapis.org/oas/v3.1.0>).

use serde_json::{Map, Value, json};

use super::routes::{Body, Kind, Parameter, ROUTES, Route};
use crate::engine::STATUS_WORDS;

/// With what any request may be refused.
const REFUSED: [u16; 4] = [400, 429, 500, 503];

/// The description; paths are below wherever the API is found.
pub(super) fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let item = paths.entry(route.path.to_owned()).or_insert_with(|| json!({}));
        item[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Standfast workflows",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Starts durable workflows, shows what became of them and changes it",
        },
        "paths": paths,
        "components": {"schemas": schemas()},
    })
}

fn operation(route: &Route) -> Value {
    let parts = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let variables =
        parts.map(|name| json!({"name": name, "in": "path", "required": true, "schema": variable(name)}));
    let query = route.query.iter().map(|one| described(one, "query"));
    let headers = route.headers.iter().map(|one| described(one, "header"));
    let parameters: Vec<Value> = variables.chain(query).chain(headers).collect();
    let mut answers = Map::new();
    for status in route.done {
        let answer =
            json!({"description": meaning(*status), "content": content("application/json", route.answer)});
        answers.insert(status.to_string(), answer);
    }
    for status in route.refused.iter().chain(&REFUSED) {
        let answer = json!({"description": meaning(*status), "content": content("application/problem+json", "Problem")});
        answers.insert(status.to_string(), answer);
    }
    let mut value = json!({
        "operationId": route.name, "summary": route.summary, "parameters": parameters, "responses": answers,
    });
    let body = match route.body {
        Body::None => None,
        Body::Input => Some(json!({"application/json": {"schema": {}}})),
        Body::Of(name) => Some(content("application/json", name)),
        Body::Events => Some(json!({
            "application/cloudevents+json": {"schema": reference("Event")},
            "application/json": {"schema": reference("Event")},
            "application/cloudevents-batch+json": {"schema": {"type": "array", "items": reference("Event")}},
        })),
    };
    if let Some(content) = body {
        value["requestBody"] = json!({"content": content, "required": route.body == Body::Events});
    }
    value
}

fn described(parameter: &Parameter, place: &str) -> Value {
    let schema = match parameter.kind {
        Kind::Text | Kind::Length => json!({"type": "string"}),
        Kind::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Kind::Number { max } => json!({"type": "integer", "minimum": 1, "maximum": max}),
        Kind::Flag => json!({"type": "boolean"}),
        Kind::Time => json!({"type": "string", "format": "date-time"}),
        Kind::RunId => reference("RunId"),
    };
    json!({"name": parameter.name, "in": place, "description": parameter.meaning, "schema": schema})
}

fn variable(name: &str) -> Value {
    if name == "id" { reference("RunId") } else { json!({"type": "string"}) }
}

fn content(kind: &str, schema: &str) -> Value {
    json!({kind: {"schema": reference(schema)}})
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

const fn meaning(status: u16) -> &'static str {
    match status {
        200 => "done",
        202 => "it goes on",
        400 => "what was sent is wrong",
        404 => "there is no such workflow, run or value",
        409 => "the run has ended, or stands so that this cannot be done",
        413 => "the input, event or body is too large",
        429 => "too much happens to this run at the moment: again after `Retry-After`",
        503 => "runs are not driven at the moment: again after `Retry-After`",
        _ => "it failed: see the log",
    }
}

/// An object of these fields, of which the first `required` are always there.
fn object(fields: &[(&str, Value)], required: usize) -> Value {
    let names: Vec<&str> = fields[..required].iter().map(|(name, _)| *name).collect();
    let fields: Map<String, Value> =
        fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({"type": "object", "properties": fields, "required": names})
}

fn schemas() -> Value {
    let (text, number) = (json!({"type": "string"}), json!({"type": "integer"}));
    let list = |of: Value| json!({"type": "array", "items": of});
    let time = || json!({"type": "string", "format": "date-time"});
    let id = || reference("RunId");
    let lock = [("lock", text.clone()), ("since", time()), ("heldBy", list(id()))];
    let run = [
        ("id", id()),
        ("workflow", reference("WorkflowName")),
        ("definition", text.clone()),
        ("status", reference("Status")),
        ("startedAt", time()),
        ("changedAt", time()),
        ("input", json!({})),
        ("output", json!({})),
        ("problem", reference("Problem")),
        ("origin", reference("Origin")),
        ("retriedBy", id()),
        ("waitsFor", list(reference("Wait"))),
        ("waitsForLocks", list(object(&lock, 3))),
        // What it waits for before it begins, as the end of a sentence.
        ("waits", text.clone()),
    ];
    let name = [("namespace", text.clone()), ("name", text.clone()), ("version", text.clone())];
    let wait = [
        ("task", text.clone()),
        ("for", json!({"enum": ["answer", "time", "retry", "event", "message"]})),
        ("since", time()),
        ("until", json!({"type": ["string", "null"]})),
    ];
    let origin = [("run", id()), ("by", json!({"enum": ["retry", "redo"]})), ("task", text.clone())];
    let problem = [
        ("type", text.clone()),
        ("status", number.clone()),
        ("title", text.clone()),
        ("detail", text.clone()),
        ("instance", text.clone()),
    ];
    let changed = [
        ("id", id()),
        ("workflow", reference("WorkflowName")),
        ("status", reference("Status")),
        ("startedAt", time()),
        ("became", reference("Status")),
        ("retriedBy", id()),
        ("refused", text.clone()),
    ];
    let remark = [("task", text.clone()), ("why", text.clone())];
    let target = [("version", text.clone()), ("definition", text.clone())];
    let migrated = [
        ("id", id()),
        ("workflow", reference("WorkflowName")),
        ("status", reference("Status")),
        ("definition", text.clone()),
        ("to", object(&target, 2)),
        ("verdict", json!({"enum": ["goes", "already", "refused"]})),
        ("reasons", list(reference("Remark"))),
        ("notes", list(reference("Remark"))),
        ("places", json!({"type": "object", "additionalProperties": {"type": "string"}})),
    ];
    let not_migrated = object(&[("id", id()), ("refused", text.clone())], 2);
    let migrated_one = json!({"anyOf": [reference("Migrated"), not_migrated]});
    let or_null = |kind: &str| json!({"type": [kind, "null"]});
    let sink = [
        ("sink", or_null("string")),
        ("waiting", number.clone()),
        ("since", or_null("string")),
        ("sent", number.clone()),
        ("lost", number.clone()),
        ("error", or_null("string")),
    ];
    let begun = [("id", id()), ("workflow", reference("WorkflowName"))];
    let record =
        [("run", id()), ("number", number.clone()), ("at", number.clone()), ("events", list(json!({})))];
    let event = [
        ("id", text.clone()),
        ("source", text.clone()),
        ("type", text.clone()),
        ("specversion", json!({"const": "1.0"})),
    ];
    let kinds = json!({"enum": ["broken", "parked", "deadlocked", "endless", "overdue", "unheard"]});
    let stuck = [
        ("id", id()),
        ("since", text.clone()),
        ("kind", kinds),
        ("why", text.clone()),
        ("hint", text.clone()),
    ];
    let value = [("key", text.clone()), ("value", json!({})), ("changedAt", time()), ("changedBy", id())];
    let schedule = [
        ("workflow", reference("WorkflowName")),
        ("schedule", text.clone()),
        ("overlap", json!({"enum": ["allowAll", "skip", "bufferOne", "bufferAll", "cancelOther"]})),
        ("catchUp", text.clone()),
        ("next", json!({"type": ["string", "null"]})),
        ("waiting", number.clone()),
        ("timeZone", text.clone()),
        ("nextThere", text.clone()),
        ("last", id()),
    ];
    let task = [
        ("id", text.clone()),
        ("run", id()),
        ("workflow", reference("WorkflowName")),
        ("task", text.clone()),
        ("title", text.clone()),
        ("for", list(text.clone())),
        ("since", time()),
        ("until", json!({"type": ["string", "null"]})),
        ("form", json!({"type": "object"})),
    ];
    let tasks = [("tasks", list(reference("Task"))), ("next", json!({"type": ["string", "null"]}))];
    let given = object(&[("runs", number)], 1);
    let next = json!({"anyOf": [id(), {"type": "null"}]});
    json!({
        "RunId": {"type": "string", "pattern": "^[0-7][0-9a-hjkmnp-tv-zA-HJKMNP-TV-Z]{25}$"},
        "Status": {"enum": STATUS_WORDS},
        "WorkflowName": object(&name, 3),
        "Workflows": object(&[("workflows", list(reference("WorkflowName")))], 1),
        "Origin": object(&origin, 3),
        "From": object(&[("from", text.clone()), ("input", json!({}))], 1),
        "WentOn": {"anyOf": [reference("Run"), object(&[("id", id()), ("from", id())], 2)]},
        "Wait": object(&wait, 3),
        "Problem": object(&problem, 2),
        "Run": object(&run, 7),
        "ChangedOne": object(&changed, 4),
        "ChangedMany": object(&[("runs", list(reference("ChangedOne"))), ("next", next.clone())], 2),
        "Sink": object(&sink, 6),
        "Remark": object(&remark, 2),
        "Migrated": object(&migrated, 9),
        "MigratedMany": object(&[("runs", list(migrated_one)), ("next", next.clone())], 2),
        "Runs": object(&[("runs", list(reference("Run"))), ("next", next)], 2),
        "Begun": object(&begun, 2),
        "Started": {"anyOf": [reference("Run"), reference("Begun")]},
        "Record": object(&record, 4),
        "History": object(&[("id", id()), ("records", list(reference("Record")))], 2),
        "Ended": {"anyOf": [reference("Run"), object(&[("id", id())], 1)]},
        "Stuck": object(&stuck, 5),
        "StuckRuns": object(&[("runs", list(reference("Stuck")))], 1),
        "Value": object(&value, 4),
        "Values": object(&[("values", list(reference("Value"))), ("next", json!({"type": ["string", "null"]}))], 2),
        "Schedule": object(&schedule, 6),
        "Schedules": object(&[("schedules", list(reference("Schedule")))], 1),
        "Task": object(&task, 8),
        "Tasks": object(&tasks, 2),
        "Reason": object(&[("reason", text.clone())], 0),
        "Queried": object(&[("id", id()), ("query", text.clone()), ("value", json!({}))], 3),
        "Changed": object(&[("id", id()), ("status", reference("Status"))], 2),
        "Event": object(&event, 3),
        "Published": object(&[("events", list(given))], 1),
        "Beaten": object(&[("steps", json!({"type": "integer"}))], 1),
        "Description": object(&[("openapi", text), ("info", json!({})), ("paths", json!({"type": "object"}))], 3),
    })
}
