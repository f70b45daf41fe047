//! What a task asks outside: the request is written when it is sent, not when it is decided on, so that no secret in it reaches a
//! journal; the answer becomes what the task yields.

mod access;
mod agent;
mod asyncapi;
mod built_in;
mod grpc;
mod heartbeat;
mod http;
mod mcp;
mod openapi;
mod process;
mod subflow;
mod uri;

pub(crate) use self::access::sensitive;
pub use self::access::{Client, Credential, Hidden, TokenWanted};
pub(crate) use self::built_in::apply as apply_to_value;
pub use self::built_in::{BuiltInRequest, VALUE_KEY_BYTES_MAX, ValueOperation};
pub use self::heartbeat::Heartbeat;
pub(crate) use self::http::refused;
pub(crate) use self::uri::{form, of_http, without_query};

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderMap, Method, StatusCode, Uri};
use bytes::Bytes;
use serde_json::Value;
use standfast_model::{Priority, Stamp};

use crate::decide::{Seeing, Sight, kept_secret, unknown_task};
use crate::program::{HttpOutput, Language, Step, WAIT_MAX, WorkflowName, after};
use crate::run::{Digest, Problem, Run, ScopeId};
use crate::{World, decide::VALUE_BYTES_MAX};

/// How long a task may wait for an answer when nothing else limits it.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(300);
/// Longest answer that is read, in bytes.
pub const ANSWER_BYTES_MAX: usize = VALUE_BYTES_MAX;
/// Most messages that are sent or read in one stream.
pub(crate) const MESSAGES_MAX: usize = 1_000;

/// What a task asks outside.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What names this step in all its attempts.
    pub key: String,
    /// When it is given up.
    pub deadline: Stamp,
    /// Whose turn it is first when there is no room for all.
    pub priority: Priority,
    /// Whose share of the room it takes: one text for each workflow, or for each of its keys of fairness.
    pub share: Arc<str>,
    /// When the run was started that asks.
    pub since: Stamp,
    /// By what it is seen that it is still being done, if that is looked at.
    pub heartbeat: Option<Heartbeat>,
    /// What is asked.
    pub request: Request,
}

/// What is asked outside.
#[derive(Debug, Clone)]
pub enum Request {
    /// An HTTP resource.
    Http(HttpRequest),
    /// An agent.
    Agent(AgentRequest),
    /// A server of the Model Context Protocol.
    Mcp(McpRequest),
    /// A gRPC service.
    Grpc(GrpcRequest),
    /// A broker of messages.
    Mqtt(Box<MqttRequest>),
    /// A process.
    Process(ProcessRequest),
    /// Another run.
    Run(RunRequest),
    /// A function of ours.
    BuiltIn(BuiltInRequest),
}

impl Request {
    /// Whether it asks for messages, which may be long in coming.
    pub(crate) fn waits_for_messages(&self) -> bool {
        matches!(self, Self::Mqtt(request) if matches!(request.does, MqttDoes::Receive { .. }))
    }
}

/// A request by HTTP.
#[derive(Debug, Clone)]
pub struct HttpRequest {
    /// The method.
    pub method: Method,
    /// Where to, with its scheme and its host.
    pub uri: Uri,
    /// Header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// What is shown besides, which is only had by asking for it.
    pub credential: Option<Credential>,
}

/// An answer by HTTP.
#[derive(Debug, Clone)]
pub struct HttpAnswer {
    /// The status.
    pub status: StatusCode,
    /// Header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// What an agent is asked, by JSON-RPC.
#[derive(Debug, Clone)]
pub struct AgentRequest {
    /// As it is sent.
    pub http: HttpRequest,
    /// What names the request in its answers.
    pub id: Value,
    /// Whether it is answered by a stream, which is collected to its end.
    pub streams: bool,
}

/// What a server of the Model Context Protocol is asked.
#[derive(Debug, Clone)]
pub struct McpRequest {
    /// The version of the protocol that is offered.
    pub version: String,
    /// Who asks: a name and a version.
    pub client: (String, String),
    /// The method.
    pub method: &'static str,
    /// Its parameters, an object.
    pub params: Option<Value>,
    /// How the server is reached.
    pub transport: McpTransport,
}

/// How a server of the Model Context Protocol is reached.
#[derive(Debug, Clone)]
pub enum McpTransport {
    /// By requests like this one, each with a message as its body.
    Http(Box<HttpRequest>),
    /// By the standard streams of a process.
    Stdio {
        /// The program.
        command: String,
        /// Its arguments.
        arguments: Vec<String>,
        /// Its environment, besides what every process gets.
        environment: Vec<(String, String)>,
    },
}

/// A call of a gRPC service.
#[derive(Debug, Clone)]
pub struct GrpcRequest {
    /// As it is sent, by HTTP/2.
    pub http: HttpRequest,
    /// Whether it is answered by several messages.
    pub streams: bool,
}

/// What a broker of messages is asked, by MQTT 5.
#[derive(Debug, Clone)]
pub struct MqttRequest {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether what is said is sealed (TLS).
    pub is_sealed: bool,
    /// As whom: a name and a password.
    pub login: Option<(String, Hidden)>,
    /// What names the step to the broker, in all its attempts.
    pub client: String,
    /// What.
    pub does: MqttDoes,
}

/// What is done with a broker.
#[derive(Debug, Clone)]
pub enum MqttDoes {
    /// A message is sent.
    Send {
        /// Where to.
        topic: String,
        /// How surely: 0 (perhaps), 1 (at least once), 2 (once).
        qos: u8,
        /// Whether the broker keeps it for those that come later.
        retain: bool,
        /// What is said of it, `content-type` among it.
        headers: HeaderMap,
        /// It.
        body: Bytes,
    },
    /// Messages are received.
    Receive {
        /// From where; `+` and `#` stand for any.
        topic: String,
        /// How surely.
        qos: u8,
        /// By their keys, those that were taken and may be sent again.
        taken: Vec<Digest>,
        /// The same of what other steps took, or earlier attempts at this one.
        seen: Vec<Digest>,
        /// Until when, if that is said.
        until: Option<Stamp>,
    },
    /// No more messages are received.
    Leave,
}

/// Messages that came.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Received {
    /// Each with what names it, if it may come again.
    pub messages: Vec<(Option<Digest>, Value)>,
    /// What names messages that were taken before, and that do not come again from now on: others may be named so.
    pub acknowledged: Vec<Digest>,
    /// Whether the time for messages is over.
    pub is_over: bool,
}

/// A process to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessRequest {
    /// What it runs.
    pub program: ProcessProgram,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its environment, besides what every process gets.
    pub environment: Vec<(String, String)>,
    /// What it reads.
    pub stdin: String,
    /// Whether its end is waited for.
    pub awaited: bool,
}

/// What a process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProcessProgram {
    /// A command of the shell.
    Shell(String),
    /// JavaScript.
    JavaScript(Arc<str>),
    /// Python.
    Python(Arc<str>),
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessAnswer {
    /// Its exit code; of one that was ended by a signal 128 and the signal.
    pub code: i32,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

/// A run to be started.
#[derive(Debug, Clone, PartialEq)]
pub struct RunRequest {
    /// Of which workflow; the version may be `latest`.
    pub workflow: WorkflowName,
    /// Its input.
    pub input: Arc<Value>,
    /// Whether its end is waited for.
    pub awaited: bool,
}

/// What was answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// By HTTP.
    Http(HttpAnswer),
    /// By a process.
    Process(ProcessAnswer),
    /// By a run: what it yielded.
    Run(Arc<Value>),
    /// By a protocol whose answers are data.
    Value(Value),
    /// By a gRPC service: messages as they are encoded.
    Grpc(Vec<Bytes>),
    /// By a broker: messages.
    Received(Received),
    /// It was begun; its end is not waited for.
    Begun,
}

/// Writes what a scope asks.
///
/// # Errors
/// Why it cannot be asked: the task fails by that.
pub(crate) fn request(world: &World<'_>, run: &Run, id: ScopeId, now: Stamp) -> Result<Asked, Problem> {
    let Some((scope, parent)) = run.scopes.get(&id).and_then(|scope| Some((scope, scope.parent?))) else {
        return Err(unknown_task("?"));
    };
    let program = world.program;
    let Some(task) = program.find(&scope.task).map(|task| program.task(task)) else {
        return Err(unknown_task(&scope.task));
    };
    // Expressions see the time at which the task was begun, so that a repeated request is the same.
    let is_kept = matches!(task.step, Step::BuiltIn(_));
    let seeing = Seeing { world, run, now: scope.at, is_kept };
    let sight = Sight::of_scope(parent, task, scope);
    let key = run.key(id);
    let writing = Writing { seeing, sight, input: &scope.input, key: &key };
    let request = match &task.step {
        Step::Http(http) => Request::Http(http::request(&writing, http)?),
        Step::OpenApi(call) => Request::Http(openapi::request(&writing, call)?),
        Step::Publish(call) => asyncapi::request(&writing, call)?,
        Step::Listen(listen) => match &listen.channel {
            Some(from) => asyncapi::receive(&writing, from, (run, id, scope))?,
            None => return Err(unknown_task(&scope.task)),
        },
        Step::Agent(call) => Request::Agent(agent::request(&writing, call)?),
        Step::Mcp(call) => Request::Mcp(mcp::request(&writing, call)?),
        Step::Grpc(call) => Request::Grpc(grpc::request(&writing, call)?),
        Step::Process(process) => Request::Process(process::request(&writing, process)?),
        Step::Subflow(subflow) => Request::Run(subflow::request(&writing, subflow)?),
        Step::BuiltIn(call) => Request::BuiltIn(built_in::request(&writing, &program.name.namespace, call)?),
        _ => return Err(unknown_task(&scope.task)),
    };
    if let Request::Run(request) = &request
        && let Some(name) = world.secrets.found_in(&request.input)
    {
        return Err(kept_secret(name, "the input of the other run"));
    }
    let deadlines = run.holders(id).filter_map(|(_, scope)| scope.deadline);
    let own = match &task.step {
        Step::Mcp(call) => call.timeout,
        _ => None,
    };
    let longest = match own {
        Some(length) => after(now, writing.seeing.period(length, writing.input, &writing.sight)?),
        // Another run may take as long as it does: it does not hang, it is driven. So does who holds a lock.
        None if matches!(request, Request::Run(_) | Request::BuiltIn(_)) => now.plus(WAIT_MAX),
        // Messages come when they come.
        None if request.waits_for_messages() => now.plus(WAIT_MAX),
        None => now.plus(ANSWER_TIME_MAX),
    };
    let heartbeat = match task.heartbeat {
        Some(length) => {
            let every = after(now, writing.seeing.period(length, writing.input, &writing.sight)?).since(now);
            Some(Heartbeat::new(every, now))
        }
        None => None,
    };
    let deadline = deadlines.fold(longest, Stamp::min);
    Ok(Asked {
        key,
        deadline,
        priority: program.priority,
        share: run
            .limits
            .as_ref()
            .and_then(|limits| limits.turns_with())
            .unwrap_or_else(|| Arc::clone(&program.share)),
        since: run.started_at,
        heartbeat,
        request,
    })
}

/// What a task yields by an answer.
///
/// # Errors
/// What the answer means, if it means that the task failed.
pub(crate) fn answered(
    world: &World<'_>,
    run: &Run,
    id: ScopeId,
    asked: &Asked,
    answer: Answer,
) -> Result<Arc<Value>, Problem> {
    let Some(scope) = run.scopes.get(&id) else { return Ok(Arc::default()) };
    let program = world.program;
    let Some(task) = program.find(&scope.task).map(|task| program.task(task)) else {
        return Err(unknown_task(&scope.task));
    };
    match (&task.step, &asked.request, answer) {
        (Step::Http(http), Request::Http(request), Answer::Http(answer)) => {
            http::answered(http.output, http.redirect, request, &answer)
        }
        (Step::OpenApi(call), Request::Http(request), Answer::Http(answer)) => {
            http::answered(call.output, call.redirect, request, &answer)
        }
        (Step::Publish(_), Request::Http(request), Answer::Http(answer)) => {
            http::answered(HttpOutput::Content, false, request, &answer)
        }
        (Step::Grpc(call), _, Answer::Grpc(messages)) => grpc::answered(call, &messages),
        (Step::Process(process), _, Answer::Process(answer)) => {
            process::answered(process, answer, &scope.input)
        }
        (_, _, Answer::Received(found)) => Ok(Arc::new(asyncapi::received(found))),
        (_, _, Answer::Run(output)) => Ok(output),
        (_, _, Answer::Value(value)) => Ok(Arc::new(value)),
        _ => Ok(Arc::clone(&scope.input)),
    }
}

/// A request while it is written.
struct Writing<'a> {
    seeing: Seeing<'a>,
    sight: Sight<'a>,
    input: &'a Arc<Value>,
    key: &'a str,
}

impl Writing<'_> {
    fn fill(&self, form: &crate::program::Form) -> Result<Arc<Value>, Problem> {
        self.seeing.fill(form, self.input, &self.sight)
    }

    fn text(&self, form: &crate::program::Form) -> Result<String, Problem> {
        self.seeing.text(form, self.input, &self.sight)
    }
}

impl From<(Language, &Arc<str>)> for ProcessProgram {
    fn from((language, code): (Language, &Arc<str>)) -> Self {
        match language {
            Language::JavaScript => Self::JavaScript(Arc::clone(code)),
            Language::Python => Self::Python(Arc::clone(code)),
        }
    }
}
