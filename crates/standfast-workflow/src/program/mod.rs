//! What a document becomes before it is run: tasks in one list, names resolved, expressions compiled. Nothing of the language's own
//! types reaches a journal: records name tasks by their pointer into the document.

mod asyncapi;
mod compile;
mod cron;
mod form;
mod limits;
mod openapi;
mod path;
mod period;
mod resources;
mod shape;
mod zone;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use standfast_model::Priority;
pub(crate) use standfast_model::workflow::{
    Await, CatchUp, Failures, HttpOutput, Overlap, Parallel, Period, Read, ScheduleOptions,
};

pub(crate) use asyncapi::{Channel, Wire};
pub use compile::{Incomplete, Unsupported, compile, compile_with};
pub(crate) use cron::Cron;
pub(crate) use form::{Address, Form};
pub(crate) use limits::RunLimits;
pub(crate) use openapi::{Operation, Parameter, Place, Style};
pub(crate) use path::Paths;
pub(crate) use period::{Length, after};
pub use resources::Resources;
pub(crate) use shape::Shapes;
pub(crate) use zone::Zone;

use crate::expression::Filter;
use crate::run::Digest;

/// A task of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TaskId(pub(crate) u32);

/// A list of tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ListId(pub(crate) u32);

/// An expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FilterId(pub(crate) u32);

/// A workflow, ready to be run.
#[derive(Debug)]
pub struct Program {
    /// What it is called.
    pub(crate) name: WorkflowName,
    /// Of the document.
    pub(crate) digest: Digest,
    /// The document, as data.
    pub(crate) definition: Arc<Value>,
    /// Functions of other files, each by the pointer that its tasks begin with.
    pub(crate) foreign: Vec<(String, Arc<Value>)>,
    pub(crate) input: Intake,
    pub(crate) output: Outlet,
    pub(crate) timeout: Option<Length>,
    /// How much time a run has besides.
    pub(crate) deadline: Option<Length>,
    /// Whose turn it is first when there is no room for all.
    pub(crate) priority: Priority,
    /// What limits runs besides themselves.
    pub(crate) limits: Option<Box<RunLimits>>,
    /// The same text for all versions: whose share it is of what all runs share.
    pub(crate) share: Arc<str>,
    pub(crate) schedule: Option<Schedule>,
    pub(crate) schedule_options: ScheduleOptions,
    pub(crate) root: ListId,
    pub(crate) tasks: Vec<Task>,
    pub(crate) lists: Vec<Vec<TaskId>>,
    pub(crate) filters: Vec<Filter>,
    /// What can be asked about runs, by name. No run waits for these, so they are no [`Program::filters`].
    pub(crate) queries: BTreeMap<String, Filter>,
    pub(crate) schemas: Vec<Check>,
    by_pointer: HashMap<Arc<str>, TaskId>,
}

/// When runs begin by themselves.
#[derive(Debug)]
pub(crate) enum Schedule {
    /// Each time so much has passed.
    Every(Period),
    /// At these times, by the clocks of a zone or in UTC.
    Cron(Cron, Option<Zone>),
    /// So long after the last has ended.
    After(Period),
    /// When these events have come.
    On(Events),
}

/// The name of a workflow, with the version that is meant.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
pub struct WorkflowName {
    /// Where the name counts.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// The version.
    pub version: String,
}

impl std::fmt::Display for WorkflowName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}:{}", self.namespace, self.name, self.version)
    }
}

/// A task.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) name: Arc<str>,
    /// Its place in the document, a JSON pointer: `/do/0/charge`.
    pub(crate) pointer: Arc<str>,
    /// The list that it stands in, and where; a function stands in none.
    pub(crate) place: Option<(ListId, usize)>,
    pub(crate) condition: Option<FilterId>,
    pub(crate) input: Intake,
    pub(crate) output: Outlet,
    pub(crate) export: Outlet,
    pub(crate) timeout: Option<Length>,
    pub(crate) then: Next,
    pub(crate) step: Step,
    /// What names it to who is called, if the document says so.
    pub(crate) key: Option<Form>,
    /// It waits for a person.
    pub(crate) human: Option<Human>,
    /// How long what it asks may be silent.
    pub(crate) heartbeat: Option<Length>,
    /// What undoes it.
    pub(crate) compensate: Option<TaskId>,
}

/// What the pointer of an extended task ends with, and a number: `~a` is no escape of JSON pointers, so no task of the document can
/// have such a place.
pub(crate) const AROUND: &str = "/~around";

impl Task {
    /// Its place in the document as people know it.
    pub(crate) fn reference(&self) -> &str {
        self.pointer.split(AROUND).next().unwrap_or(&self.pointer)
    }
}

/// What comes after a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Continue,
    Exit,
    End,
    Task(TaskId),
}

/// What happens to data before a task.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    pub(crate) schema: Option<SchemaId>,
    pub(crate) from: Option<Form>,
}

/// What happens to data after a task.
#[derive(Debug, Default)]
pub(crate) struct Outlet {
    pub(crate) filter: Option<Form>,
    pub(crate) schema: Option<SchemaId>,
}

/// A schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SchemaId(pub(crate) u32);

/// A compiled schema.
pub(crate) struct Check(pub(crate) jsonschema::Validator);

impl std::fmt::Debug for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Check")
    }
}

/// What a task does.
#[derive(Debug)]
pub(crate) enum Step {
    Do(ListId),
    Set(Form),
    Switch(Vec<Case>),
    Raise(Raise),
    Wait(Length),
    For(For),
    Fork(Fork),
    Try(Box<Try>),
    /// A function's task is done with these as its input.
    Function {
        task: TaskId,
        with: Option<Form>,
    },
    Emit(Vec<(String, Form)>),
    /// Another task, and what an extension does around it.
    Extended(Extended),
    Listen(Box<Listen>),
    Http(Box<Http>),
    OpenApi(Box<OpenApi>),
    Publish(Box<Publish>),
    Agent(Box<Agent>),
    Mcp(Box<Mcp>),
    Grpc(Box<Grpc>),
    Process(Box<Process>),
    Subflow(Box<Subflow>),
    BuiltIn(Box<BuiltIn>),
}

/// A call of a function of ours.
#[derive(Debug)]
pub(crate) struct BuiltIn {
    pub(crate) function: BuiltInFunction,
    pub(crate) with: Option<Form>,
}

/// Functions of ours, in the catalog `default`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BuiltInFunction {
    /// Values by keys.
    Values,
    /// Takes a lock.
    Lock,
    /// Lets go of a lock.
    Unlock,
}

impl BuiltInFunction {
    /// As it is called.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Values => "call: standfast.kv",
            Self::Lock => "call: standfast.lock",
            Self::Unlock => "call: standfast.unlock",
        }
    }
}

impl Step {
    /// What it is, in the language's words.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::Do(_) => "do",
            Self::Set(_) => "set",
            Self::Switch(_) => "switch",
            Self::Raise(_) => "raise",
            Self::Wait(_) => "wait",
            Self::For(_) => "for",
            Self::Fork(_) => "fork",
            Self::Try(_) => "try",
            Self::Function { .. } => "call of a function",
            Self::Emit(_) => "emit",
            Self::Extended(_) => "extended",
            Self::Listen(_) => "listen",
            Self::Http(_) => "call: http",
            Self::OpenApi(_) => "call: openapi",
            Self::Publish(_) => "call: asyncapi",
            Self::Agent(_) => "call: a2a",
            Self::Mcp(_) => "call: mcp",
            Self::Grpc(_) => "call: grpc",
            Self::Process(_) => "run: shell or script",
            Self::Subflow(_) => "run: workflow",
            Self::BuiltIn(call) => call.function.word(),
        }
    }
}

/// A task, and what an extension does around it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extended {
    pub(crate) when: Option<FilterId>,
    pub(crate) before: ListId,
    pub(crate) inner: TaskId,
    pub(crate) after: ListId,
}

/// A case of a switch.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) when: Option<FilterId>,
    pub(crate) then: Next,
}

/// An error that is raised.
#[derive(Debug)]
pub(crate) struct Raise {
    pub(crate) kind: Form,
    pub(crate) status: u16,
    pub(crate) title: Option<Form>,
    pub(crate) detail: Option<Form>,
    pub(crate) instance: Option<Form>,
}

/// Tasks for each item of a list.
#[derive(Debug)]
pub(crate) struct For {
    pub(crate) each: Arc<str>,
    pub(crate) at: Arc<str>,
    pub(crate) items: FilterId,
    pub(crate) condition: Option<FilterId>,
    pub(crate) list: ListId,
    /// Rounds side by side.
    pub(crate) parallel: Option<Parallel>,
}

/// Tasks side by side.
#[derive(Debug)]
pub(crate) struct Fork {
    pub(crate) branches: Vec<TaskId>,
    pub(crate) compete: bool,
}

/// Tasks, and what is done when they fail.
#[derive(Debug)]
pub(crate) struct Try {
    pub(crate) list: ListId,
    pub(crate) catch: Catch,
}

/// What is done when tasks fail.
#[derive(Debug)]
pub(crate) struct Catch {
    pub(crate) kind: Option<Form>,
    pub(crate) status: Option<u16>,
    pub(crate) instance: Option<Form>,
    pub(crate) title: Option<Form>,
    pub(crate) detail: Option<Form>,
    pub(crate) variable: Arc<str>,
    pub(crate) when: Option<FilterId>,
    pub(crate) except_when: Option<FilterId>,
    pub(crate) retry: Option<Retry>,
    /// `None` when the document has no `do` here.
    pub(crate) list: Option<ListId>,
}

/// When tasks are tried again.
#[derive(Debug)]
pub(crate) struct Retry {
    pub(crate) when: Option<FilterId>,
    pub(crate) except_when: Option<FilterId>,
    pub(crate) delay: Option<Length>,
    pub(crate) backoff: Backoff,
    pub(crate) attempts_max: Option<u32>,
    pub(crate) each_max: Option<Length>,
    pub(crate) total_max: Option<Length>,
    pub(crate) jitter: Option<(Length, Length)>,
}

/// How the time between attempts grows.
#[derive(Debug)]
pub(crate) enum Backoff {
    Constant,
    Linear { increment: Option<Length>, max: Option<Length> },
    Exponential { factor: f64, max: Option<Length> },
}

/// What a person is asked to do.
#[derive(Debug)]
pub(crate) struct Human {
    pub(crate) title: Form,
    pub(crate) groups: Option<Form>,
    /// The signal that is the answer.
    pub(crate) signal: String,
    /// What the answer must be: as it is written, and what checks it.
    pub(crate) form: Option<(Arc<Value>, SchemaId)>,
}

/// Events that are waited for.
#[derive(Debug)]
pub(crate) struct Listen {
    pub(crate) to: Events,
    pub(crate) read: Read,
    pub(crate) each: Option<ForEach>,
    /// Where they come from, if they are messages of a channel.
    pub(crate) channel: Option<Box<Subscription>>,
}

/// A channel whose messages are received.
#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) channel: Channel,
    pub(crate) variables: Option<Form>,
    pub(crate) access: Option<Access>,
    /// Which messages count.
    pub(crate) filter: Option<FilterId>,
    pub(crate) enough: Enough,
    /// For how long.
    pub(crate) period: Option<Length>,
}

/// How many messages are received.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Enough {
    Amount(u32),
    /// As long as this holds of all that were taken, asked after each.
    While(FilterId),
    /// Until this holds of all that were taken, asked before each.
    Until(FilterId),
}

/// Which events.
#[derive(Debug)]
pub(crate) enum Events {
    One(Pattern),
    All(Vec<Pattern>),
    Any { patterns: Vec<Pattern>, until: Option<Until> },
}

/// When a wait for any event ends.
#[derive(Debug)]
pub(crate) enum Until {
    Condition(FilterId),
    Events(Box<Events>),
}

/// Which event.
#[derive(Debug)]
pub(crate) struct Pattern {
    pub(crate) with: Vec<(String, Match)>,
    pub(crate) correlate: Vec<(String, FilterId, Option<Form>)>,
}

/// What an attribute must be.
#[derive(Debug)]
pub(crate) enum Match {
    /// Equal to this, or fitted by the regular expression that it is.
    Value(Arc<Value>, Option<regex_lite::Regex>),
    /// Asked about the attribute's value.
    Filter(FilterId),
}

/// What is done for each event.
#[derive(Debug)]
pub(crate) struct ForEach {
    pub(crate) item: Arc<str>,
    pub(crate) at: Arc<str>,
    pub(crate) list: ListId,
    pub(crate) output: Outlet,
    pub(crate) export: Outlet,
}

/// An HTTP request.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) method: Form,
    pub(crate) address: Address,
    pub(crate) access: Option<Access>,
    pub(crate) headers: Option<Form>,
    pub(crate) query: Option<Form>,
    pub(crate) body: Option<Form>,
    pub(crate) output: HttpOutput,
    pub(crate) redirect: bool,
}

/// A call of an operation of an `OpenAPI` document.
#[derive(Debug)]
pub(crate) struct OpenApi {
    pub(crate) operation: Operation,
    pub(crate) parameters: Option<Form>,
    pub(crate) access: Option<Access>,
    pub(crate) output: HttpOutput,
    pub(crate) redirect: bool,
}

/// A message that is sent as an `AsyncAPI` document has it.
#[derive(Debug)]
pub(crate) struct Publish {
    pub(crate) channel: Channel,
    pub(crate) variables: Option<Form>,
    pub(crate) payload: Option<Form>,
    pub(crate) headers: Option<Form>,
    pub(crate) access: Option<Access>,
}

/// A call of an agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) address: Address,
    pub(crate) access: Option<Access>,
    pub(crate) method: &'static str,
    pub(crate) parameters: Option<Form>,
    /// Whether it sends a message.
    pub(crate) sends: bool,
    /// Whether it is answered by a stream.
    pub(crate) streams: bool,
}

/// A call of a method of a gRPC service.
#[derive(Debug)]
pub(crate) struct Grpc {
    /// The service's address, without a path.
    pub(crate) server: String,
    pub(crate) method: prost_reflect::MethodDescriptor,
    pub(crate) access: Option<Access>,
    pub(crate) arguments: Option<Form>,
}

/// A call of a server of the Model Context Protocol.
#[derive(Debug)]
pub(crate) struct Mcp {
    pub(crate) version: String,
    /// Who asks: a name and a version.
    pub(crate) client: (String, String),
    pub(crate) method: &'static str,
    pub(crate) parameters: Option<Form>,
    pub(crate) timeout: Option<Length>,
    pub(crate) reaches: Reaches,
}

/// How a server is reached.
#[derive(Debug)]
pub(crate) enum Reaches {
    Http { address: Address, access: Option<Access>, headers: Option<Form> },
    Stdio { command: Form, arguments: Form, environment: Option<Form> },
}

/// As whom something is called.
#[derive(Debug)]
pub(crate) enum Access {
    Basic {
        user: Form,
        password: Form,
    },
    Bearer(Form),
    Digest {
        user: Form,
        password: Form,
    },
    /// A token of an authority (OAuth 2, OpenID Connect).
    Token(Box<TokenAccess>),
}

/// How a token is had.
#[derive(Debug)]
pub(crate) struct TokenAccess {
    /// An object with the keys that the language has, from the document or from a secret.
    pub(crate) settings: Form,
    /// Where, if the document says so.
    pub(crate) authority: Option<Address>,
    /// Whether the authority says itself where tokens are had.
    pub(crate) is_discovered: bool,
}

/// A process that is run.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) program: Runs,
    pub(crate) stdin: Option<Form>,
    pub(crate) arguments: Option<Form>,
    pub(crate) environment: Option<Form>,
    pub(crate) awaited: bool,
    pub(crate) result: Await,
}

/// What a process runs.
#[derive(Debug)]
pub(crate) enum Runs {
    Shell(Form),
    Script { language: Language, code: Arc<str> },
}

/// The languages of scripts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    JavaScript,
    Python,
}

/// Another workflow.
#[derive(Debug)]
pub(crate) struct Subflow {
    pub(crate) name: WorkflowName,
    pub(crate) input: Option<Form>,
    pub(crate) awaited: bool,
}

/// Two that were made of the same document are the same.
impl PartialEq for Program {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl Program {
    /// Which document it was made of.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Whether all its expressions can be evaluated where they are: none takes long enough to be in the way of others.
    pub(crate) fn is_cheap(&self) -> bool {
        self.filters.iter().all(Filter::is_cheap)
    }

    /// Whether any of its expressions reads `$secrets`.
    pub(crate) fn reads_secrets(&self) -> bool {
        self.filters.iter().any(|filter| filter.variables().iter().any(|name| name == "secrets"))
    }

    /// What the workflow is called.
    pub fn name(&self) -> &WorkflowName {
        &self.name
    }

    pub(crate) fn task(&self, id: TaskId) -> &Task {
        &self.tasks[id.0 as usize]
    }

    pub(crate) fn list(&self, id: ListId) -> &[TaskId] {
        &self.lists[id.0 as usize]
    }

    pub(crate) fn filter(&self, id: FilterId) -> &Filter {
        &self.filters[id.0 as usize]
    }

    /// Whether a task of it waits for a person.
    pub(crate) fn asks_people(&self) -> bool {
        self.signals().next().is_some()
    }

    /// The signals that are answers of people.
    pub(crate) fn signals(&self) -> impl Iterator<Item = &str> {
        self.tasks.iter().filter_map(|task| Some(task.human.as_ref()?.signal.as_str()))
    }

    pub(crate) fn schema(&self, id: SchemaId) -> &jsonschema::Validator {
        &self.schemas[id.0 as usize].0
    }

    /// The task at this place of the document; `None` when a record is of another document.
    pub(crate) fn find(&self, pointer: &str) -> Option<TaskId> {
        self.by_pointer.get(pointer).copied()
    }

    /// The task after this one in its list.
    pub(crate) fn following(&self, id: TaskId) -> Option<TaskId> {
        let (list, at) = self.task(id).place?;
        self.list(list).get(at + 1).copied()
    }

    /// A part of the document, by its pointer.
    pub(crate) fn part(&self, pointer: &str) -> &Value {
        let foreign = self.foreign.iter().find_map(|(root, definition)| {
            let rest = pointer.strip_prefix(root.as_str())?;
            definition.pointer(rest)
        });
        foreign.or_else(|| self.definition.pointer(pointer)).unwrap_or(&Value::Null)
    }
}

/// The shortest time between two runs of a schedule.
pub(crate) const EVERY_MIN: Duration = Duration::from_secs(1);

/// The longest time that anything is waited for, so that stamps cannot overflow.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(100 * 366 * 86_400);
