//! Runs on faked time with answers that were prepared: what `standfast workflow test` does. The same `decide` as everywhere, without a
//! store, sockets or processes.

use std::collections::HashMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use standfast_model::Stamp;
use standfast_model::workflow::{Expected, Period, Prepared, TestCase};

use crate::ask::{
    self, Answer, Asked, BuiltInRequest, ContainerRequest, HttpAnswer, HttpRequest, McpTransport, MqttDoes,
    ProcessAnswer, ProcessProgram, Request,
};
use crate::decide::{Cause, STEPS_MAX, World, decide};
use crate::expression::Evaluator;
use crate::program::{AROUND, Program, after};
use crate::run::{Event, Problem, Record, Run, RunId, ScopeId, Standard, State, Status, undone_by};
use crate::secrets::Secrets;

/// When faked time begins: 2026-01-01T00:00:00Z.
const BEGIN: Stamp = Stamp::from_micros(1_767_225_600_000_000);
/// Most that may happen in one rehearsal.
const TURNS_MAX: usize = 100_000;

/// What came of a rehearsal.
#[derive(Debug, Clone)]
pub struct Rehearsed {
    /// The run as it was in the end.
    pub run: Run,
    /// All that happened.
    pub records: Vec<Record>,
    /// What was asked outside, as `expect.asked` has it.
    pub asked: Vec<Value>,
    /// Why it could not go on, if it could not.
    pub stuck: Option<String>,
}

/// What is not as the test expects it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// What.
    pub what: String,
    /// What was expected.
    pub expected: String,
    /// What came.
    pub found: String,
}

/// Runs a program on faked time.
pub fn rehearse(program: &Program, case: &TestCase, evaluator: &Evaluator) -> Rehearsed {
    let secrets = Secrets::from(case.secrets.clone());
    let runtime = json!({"name": "standfast", "version": env!("CARGO_PKG_VERSION"), "metadata": {}});
    let world = World { program, evaluator, secrets: &secrets, runtime: &runtime, steps_max: STEPS_MAX };
    let mut rehearsal = Rehearsal {
        world,
        case,
        now: BEGIN,
        run: Run::new(RunId::new(BEGIN, 0)),
        records: Vec::new(),
        asked: Vec::new(),
        answers: HashMap::new(),
        used: HashMap::new(),
        values: HashMap::new(),
        events: case.events.iter().map(|event| after(BEGIN, event.after)).zip(&case.events).collect(),
        past: Vec::new(),
        offered: None,
        stuck: None,
    };
    // Events of one time come in their order.
    rehearsal.events.sort_by_key(|(at, _)| *at);
    rehearsal.go();
    let Rehearsal { run, records, asked, stuck, .. } = rehearsal;
    Rehearsed { run, records, asked, stuck }
}

type Awaited = (Stamp, Result<Arc<Value>, Problem>);

struct Rehearsal<'r> {
    world: World<'r>,
    case: &'r TestCase,
    now: Stamp,
    run: Run,
    records: Vec<Record>,
    asked: Vec<Value>,
    /// What is answered, and when.
    answers: HashMap<ScopeId, Awaited>,
    /// How many of the prepared answers each task has had.
    used: HashMap<String, usize>,
    /// The values of keys; there are none at first.
    values: HashMap<String, Value>,
    events: Vec<(Stamp, &'r standfast_model::workflow::TestEvent)>,
    /// Those that have come.
    past: Vec<Arc<Value>>,
    /// The latest task that waits and was given these.
    offered: Option<ScopeId>,
    stuck: Option<String>,
}

/// What happens next.
enum Next {
    Answer(ScopeId),
    Event,
    Time,
}

impl Rehearsal<'_> {
    fn go(&mut self) {
        let mut cause =
            Cause::Start { input: Arc::new(self.case.input.clone()), key: None, around: Vec::new() };
        for _ in 0..TURNS_MAX {
            let turn = decide(&self.world, self.run.clone(), &cause, self.now);
            self.run = turn.run;
            self.records.extend(turn.record);
            if self.run.status.is_final() {
                return;
            }
            if self.run.is_queued() {
                cause = Cause::Admit { within: None }; // It is alone.
                continue;
            }
            if turn.is_unfinished {
                cause = Cause::Continue;
                continue;
            }
            if let Err(why) = self.ask() {
                self.stuck = Some(why);
                return;
            }
            if let Some(kept) = self.kept() {
                cause = kept;
                continue;
            }
            match self.next() {
                Some(next) => cause = next,
                None => return,
            }
        }
        self.stuck = Some(format!("it does not end: {TURNS_MAX} things have happened to it"));
    }

    /// Events that came before a task began to wait for them.
    fn kept(&mut self) -> Option<Cause> {
        let waiting = self.run.scopes.iter().filter(|(_, scope)| matches!(scope.state, State::Listening(_)));
        let newest = waiting.map(|(id, _)| *id).max().filter(|id| Some(*id) > self.offered)?;
        self.offered = Some(newest);
        (!self.past.is_empty()).then(|| Cause::Kept { events: self.past.clone() })
    }

    fn ask(&mut self) -> Result<(), String> {
        let asking: Vec<ScopeId> = self.run.asking().collect();
        self.answers.retain(|scope, _| asking.contains(scope));
        for scope in asking {
            if !self.answers.contains_key(&scope) {
                let awaited = self.ask_one(scope)?;
                self.answers.insert(scope, awaited);
            }
        }
        Ok(())
    }

    fn ask_one(&mut self, scope: ScopeId) -> Result<Awaited, String> {
        let asked = match ask::request(&self.world, &self.run, scope, self.now) {
            Ok(asked) => asked,
            Err(problem) => return Ok((self.now, Err(problem))),
        };
        let pointer = self.run.scopes.get(&scope).map(|scope| scope.task.to_string()).unwrap_or_default();
        let name = pointer.rsplit('/').next().unwrap_or_default().to_owned();
        self.asked.push(described(&name, &asked));
        let prepared: Vec<_> =
            self.case.answers.iter().filter(|answer| answer.task == name || answer.task == pointer).collect();
        let used = self.used.entry(pointer.clone()).or_default();
        // The last one stands for all that follow.
        let Some(answer) = prepared.get(*used).or(prepared.last()) else {
            if let Request::BuiltIn(request) = &asked.request {
                return Ok((self.now, built_in(&mut self.values, request)));
            }
            let what = summary(&asked);
            return Err(format!(
                "the task `{name}` ({pointer}) asks {what}, and no answer is prepared: add `- task: {name}` with `http`, `process`, `output` or `error` under `answers`"
            ));
        };
        *used += 1;
        let at = after(self.now, answer.after);
        let yielded = match &answer.answer {
            Prepared::Output(value) => Ok(Arc::new(value.clone())),
            Prepared::Error(fields) => Err(problem(fields)),
            prepared => ask::answered(&self.world, &self.run, scope, &asked, reply(prepared)?),
        };
        Ok((at, yielded))
    }

    /// Moves time on to what happens next.
    fn next(&mut self) -> Option<Cause> {
        let answer = self.answers.iter().map(|(scope, (at, _))| (*at, *scope)).min();
        let candidates = [
            answer.map(|(at, scope)| (at, Next::Answer(scope))),
            self.events.first().map(|(at, _)| (*at, Next::Event)),
            self.run.due().map(|at| (at, Next::Time)),
        ];
        let (at, next) = candidates.into_iter().flatten().min_by_key(|(at, _)| *at)?;
        self.now = self.now.max(at);
        Some(match next {
            Next::Answer(scope) => {
                let (_, answer) = self.answers.remove(&scope)?;
                Cause::Answer { scope, answer }
            }
            Next::Event => {
                let (_, event) = self.events.remove(0);
                let event = Arc::new(Value::Object(event.event.clone()));
                self.past.push(Arc::clone(&event));
                Cause::Event { event }
            }
            Next::Time => Cause::Time,
        })
    }
}

/// What a function of ours does where nothing is kept.
fn built_in(values: &mut HashMap<String, Value>, request: &BuiltInRequest) -> Result<Arc<Value>, Problem> {
    let (key, operation) = match request {
        BuiltInRequest::Value { key, operation, .. } => (key, operation),
        // There is no other run.
        BuiltInRequest::Lock { name, permits, .. } => {
            return Ok(Arc::new(json!({"lock": name, "permits": permits})));
        }
        BuiltInRequest::Unlock { name, .. } => {
            return Ok(Arc::new(json!({"lock": name, "released": true})));
        }
    };
    let value = values.entry(key.clone()).or_default();
    let applied = ask::apply_to_value(operation, value)?;
    if let Some(after) = applied.after {
        *value = after;
    }
    Ok(Arc::new(applied.answer))
}

fn reply(prepared: &Prepared) -> Result<Answer, String> {
    Ok(match prepared {
        Prepared::Http { status, headers: fields, body } => {
            let mut headers = HeaderMap::new();
            for (name, value) in fields {
                let bad = || format!("`{name}: {value}` is no header field");
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let key: HeaderName = name.parse().map_err(|_| bad())?;
                headers.insert(key, HeaderValue::from_str(&text).map_err(|_| bad())?);
            }
            let body = match body {
                Value::Null => Bytes::new(),
                Value::String(text) if !headers.is_empty() => Bytes::from(text.clone()),
                value => {
                    let kind = HeaderValue::from_static("application/json");
                    headers.entry(::http::header::CONTENT_TYPE).or_insert(kind);
                    Bytes::from(value.to_string())
                }
            };
            let status = StatusCode::from_u16(*status).map_err(|why| why.to_string())?;
            Answer::Http(HttpAnswer { status, headers, body })
        }
        Prepared::Process { code, stdout, stderr } => {
            Answer::Process(ProcessAnswer { code: *code, stdout: stdout.clone(), stderr: stderr.clone() })
        }
        Prepared::Output(_) | Prepared::Error(_) => Answer::Begun,
    })
}

fn problem(fields: &Map<String, Value>) -> Problem {
    let text = |name: &str| fields.get(name).and_then(Value::as_str).map(str::to_owned);
    let status = fields.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
    let other = Standard::Communication.problem("");
    Problem {
        kind: text("type").unwrap_or(other.kind),
        status: status.unwrap_or(other.status),
        instance: text("instance"),
        title: text("title"),
        detail: text("detail"),
    }
}

/// What was asked, for `expect.asked`.
fn described(task: &str, asked: &Asked) -> Value {
    let mut value = match &asked.request {
        Request::Http(request) => by_http(request),
        Request::Agent(request) => by_http(&request.http),
        Request::Grpc(request) => by_http(&request.http),
        Request::Mcp(request) => {
            let mut value = match &request.transport {
                McpTransport::Http(request) => by_http(request),
                McpTransport::Stdio { command, arguments, .. } => {
                    json!({"command": command, "arguments": arguments})
                }
            };
            value["method"] = request.method.into();
            value["parameters"] = request.params.clone().unwrap_or_default();
            value
        }
        Request::Process(request) => {
            let (kind, text) = match &request.program {
                ProcessProgram::Shell(text) => ("shell", text.as_str()),
                ProcessProgram::JavaScript(text) => ("javascript", &**text),
                ProcessProgram::Python(text) => ("python", &**text),
            };
            let environment = named(&request.environment);
            json!({kind: text, "arguments": request.arguments, "environment": environment, "stdin": request.stdin})
        }
        Request::Container(request) => by_container(request),
        Request::Mqtt(request) => {
            let broker = format!("{}:{}", request.host, request.port);
            match &request.does {
                MqttDoes::Send { topic, body, .. } => {
                    let text = || String::from_utf8_lossy(body).into();
                    let payload: Value = serde_json::from_slice(body).unwrap_or_else(|_| text());
                    json!({"broker": broker, "topic": topic, "payload": payload})
                }
                MqttDoes::Receive { topic, .. } => json!({"broker": broker, "receives": topic}),
                MqttDoes::Leave => json!({"broker": broker, "leaves": true}),
            }
        }
        Request::Run(request) => json!({"workflow": request.workflow.to_string(), "input": *request.input}),
        Request::BuiltIn(BuiltInRequest::Value { key, operation, .. }) => {
            json!({"key": key, "operation": operation.word()})
        }
        Request::BuiltIn(BuiltInRequest::Lock { name, permits, .. }) => {
            json!({"lock": name, "permits": permits})
        }
        Request::BuiltIn(BuiltInRequest::Unlock { name, .. }) => json!({"unlock": name}),
    };
    value["task"] = task.into();
    value
}

fn named(environment: &[(String, String)]) -> Map<String, Value> {
    environment.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect()
}

fn by_container(request: &ContainerRequest) -> Value {
    let ports = request.ports.iter();
    let ports: Map<String, Value> = ports
        .map(|port| (port.outside.to_string(), format!("{}/{}", port.inside, port.protocol).into()))
        .collect();
    let volumes = request.volumes.iter();
    let volumes: Map<String, Value> = volumes
        .map(|volume| {
            let end = if volume.is_read_only { ":ro" } else { "" };
            (volume.outside.display().to_string(), format!("{}{end}", volume.inside).into())
        })
        .collect();
    json!({
        "image": request.image, "name": request.name, "command": request.entrypoint, "arguments": request.arguments,
        "environment": named(&request.environment), "ports": ports, "volumes": volumes, "stdin": request.stdin,
    })
}

fn by_http(request: &HttpRequest) -> Value {
    let headers: Map<String, Value> = request
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let body: Value = serde_json::from_slice(&request.body)
        .unwrap_or_else(|_| String::from_utf8_lossy(&request.body).into());
    json!({"method": request.method.as_str(), "uri": request.uri.to_string(), "headers": headers, "body": body})
}

fn summary(asked: &Asked) -> String {
    match &asked.request {
        Request::Http(request) => format!("{} {}", request.method, request.uri),
        Request::Agent(request) => format!("the agent at {}", request.http.uri),
        Request::Grpc(request) => format!("the service at {}", request.http.uri),
        Request::Mcp(request) => format!("a server for {}", request.method),
        Request::Mqtt(request) => format!("the broker at {}:{}", request.host, request.port),
        Request::Process(_) => "for a process".to_owned(),
        Request::Container(request) => format!("for a container of {}", request.image),
        Request::Run(request) => format!("for a run of {}", request.workflow),
        Request::BuiltIn(BuiltInRequest::Value { key, .. }) => format!("for the value of `{key}`"),
        Request::BuiltIn(BuiltInRequest::Lock { name, .. } | BuiltInRequest::Unlock { name, .. }) => {
            format!("for the lock `{name}`")
        }
    }
}

impl Rehearsed {
    /// The names of the tasks that came to their end, in that order.
    pub fn ran(&self) -> Vec<String> {
        let mut tasks = HashMap::new();
        let mut ran = Vec::new();
        for event in self.records.iter().flat_map(|record| &record.events) {
            let ended = match event {
                // Rounds are no tasks, and what undoes a task is told by its own tasks.
                Event::Entered { state: State::Round | State::Compensating { .. }, .. } => None,
                Event::Entered { scope, task, .. } => {
                    tasks.insert(*scope, Arc::clone(task));
                    None
                }
                Event::Done { task, .. } => Some(Arc::clone(task)),
                Event::Left { scope, .. } => tasks.get(scope).cloned(),
                _ => None,
            };
            // What is done around a task is told by its own tasks.
            let ended = ended.filter(|task| !task.contains(AROUND));
            ran.extend(ended.map(|task| task.rsplit('/').next().unwrap_or_default().to_owned()));
        }
        ran
    }

    /// The names of the tasks that were undone, in that order.
    pub fn undone(&self) -> Vec<String> {
        let mut undoing = HashMap::new();
        let mut undone = Vec::new();
        for event in self.records.iter().flat_map(|record| &record.events) {
            match event {
                Event::Entered { scope, task, state: State::Compensating { .. }, .. } => {
                    undoing.insert(*scope, Arc::clone(task));
                }
                Event::Left { scope, .. } => undone.extend(undoing.get(scope).cloned()),
                _ => {}
            }
        }
        let task =
            |pointer: &str| undone_by(pointer).unwrap_or(pointer).split(AROUND).next().map(str::to_owned);
        let name = |task: String| task.rsplit('/').next().map(str::to_owned);
        undone.iter().filter_map(|pointer| task(pointer).and_then(name)).collect()
    }

    /// The events that it published.
    pub fn emitted(&self) -> Vec<Value> {
        let events = self.records.iter().flat_map(|record| &record.events);
        events
            .filter_map(|event| match event {
                Event::Emitted { event } => Some(Value::clone(event)),
                _ => None,
            })
            .collect()
    }

    /// How long it took, in its own time.
    pub fn took(&self) -> Duration {
        self.run.changed_at.since(BEGIN)
    }

    /// What is not as it was expected.
    pub fn compare(&self, expected: &Expected) -> Vec<Mismatch> {
        let mut found = Vec::new();
        let mut differ = |what: &str, expected: String, came: String| {
            if expected != came {
                found.push(Mismatch { what: what.to_owned(), expected, found: came });
            }
        };
        if let Some(why) = &self.stuck {
            differ("the run", "an end".to_owned(), why.clone());
        }
        if let Some(status) = &expected.status {
            let mut came = self.run.status.word().to_owned();
            if let Some(problem) = self.run.problem.as_ref().filter(|_| *status != came) {
                let _ = write!(came, ": {problem}");
            }
            differ("status", status.clone(), came);
        } else if expected.error.is_none() && self.stuck.is_none() && self.run.status != Status::Completed {
            let came = self.run.problem.as_ref().map_or_else(String::new, |problem| format!(": {problem}"));
            differ("status", "completed".to_owned(), format!("{}{came}", self.run.status.word()));
        }
        if let Some(output) = &expected.output {
            let came = self.run.output.as_deref().unwrap_or(&Value::Null);
            if *output != *came {
                differ("output", output.to_string(), came.to_string());
            }
        }
        if let Some(error) = &expected.error {
            let came = self.run.problem.as_ref().map_or(Value::Null, Problem::to_value);
            compare_part("error", &Value::Object(error.clone()), &came, &mut differ);
        }
        if let Some(ran) = &expected.ran {
            differ("ran", ran.join(", "), self.ran().join(", "));
        }
        if let Some(undone) = &expected.undone {
            differ("undone", undone.join(", "), self.undone().join(", "));
        }
        if let Some(asked) = &expected.asked {
            compare_list("asked", asked, &self.asked, &mut differ);
        }
        if let Some(emitted) = &expected.emitted {
            compare_list("emitted", emitted, &self.emitted(), &mut differ);
        }
        if let Some(took) = expected.took {
            let came = Period { months: 0, rest: self.took() };
            let wanted = Period { months: 0, rest: after(BEGIN, took).since(BEGIN) };
            differ("took", wanted.to_string(), came.to_string());
        }
        found
    }
}

fn compare_list(
    what: &str,
    expected: &[Map<String, Value>],
    found: &[Value],
    differ: &mut impl FnMut(&str, String, String),
) {
    differ(&format!("{what}: how many"), expected.len().to_string(), found.len().to_string());
    for (number, (expected, found)) in expected.iter().zip(found).enumerate() {
        compare_part(&format!("{what}[{number}]"), &Value::Object(expected.clone()), found, differ);
    }
}

/// Objects are compared by the fields that are expected, everything else as a whole.
fn compare_part(what: &str, expected: &Value, found: &Value, differ: &mut impl FnMut(&str, String, String)) {
    match (expected, found) {
        (Value::Object(fields), Value::Object(_)) => {
            for (name, value) in fields {
                compare_part(
                    &format!("{what}.{name}"),
                    value,
                    found.get(name).unwrap_or(&Value::Null),
                    differ,
                );
            }
        }
        (expected, found) if expected != found => differ(what, expected.to_string(), found.to_string()),
        _ => {}
    }
}
