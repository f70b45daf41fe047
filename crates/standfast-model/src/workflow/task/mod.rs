//! Tasks: what all kinds share, and which kind one is. Each kind has a file of its own.

mod call;
mod emit;
mod fork;
mod listen;
mod loops;
mod raise;
mod run;
mod set;
mod switch;
mod try_catch;
mod wait;

use serde_json::{Map, Value, json};

pub use call::{
    A2a, AgentMethod, AsyncApi, AsyncOperation, Call, Consume, Function, Grpc, Http, HttpOutput, Mcp,
    McpMethod, McpTransport, Message, OpenApi, Subscription,
};
pub use emit::Emit;
pub use fork::Fork;
pub use listen::{Listen, Read};
pub use loops::For;
pub use raise::ErrorDefinition;
pub use run::{
    Await, Cleanup, Container, Lifetime, PullPolicy, Run, RunKind, Script, ScriptSource, Shell, Subflow,
};
pub use switch::{Case, Switch};
pub use try_catch::{Catch, ErrorFilter, Try};

pub(crate) use call::PROTOCOLS;
pub(crate) use raise::ERROR;

use super::event::{Events, SIGNAL_TYPE};
use super::options::{Metadata, OfTask, TaskOptions, place_of};
use super::period::Delay;
use super::policy::{Timeout, timeout};
use super::value::{Condition, Expression, INPUT, Input, NAME, Named, OUTPUT, Output, Template};
use crate::diagnostics::shown;
use crate::shape::{Context, Fields, FromText, Object, Shape, decode_object};
use crate::source::{At, Span};
use crate::suggest;
use crate::yaml::{self, Entry, Node};

/// Most tasks in one list.
const LIST_MAX: usize = 10_000;

/// A task.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// What it is called in its list.
    pub name: String,
    /// It is passed over unless this yields true.
    pub condition: Option<Expression>,
    /// What it is given.
    pub input: Input,
    /// What it yields.
    pub output: Output,
    /// What of that goes into the context.
    pub export: Output,
    /// After which time it is given up.
    pub timeout: Option<Named<Timeout>>,
    /// What comes next.
    pub then: Then,
    /// What others want to know about it; what is under `standfast` is read, too.
    pub metadata: Map<String, Value>,
    /// What `metadata.standfast` says.
    pub options: TaskOptions,
    /// What it does.
    pub kind: Kind,
    pub(crate) places: Places,
}

/// Where a task's parts are, for checks that need the whole document. Two tasks are equal wherever they stand.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    pub(crate) name: Span,
    pub(crate) then: Option<Span>,
    pub(crate) compensate: Option<Span>,
}

impl PartialEq for Places {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// What comes next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Then {
    /// The next task of the list, or the end of it.
    #[default]
    Continue,
    /// The list is left.
    Exit,
    /// The workflow ends.
    End,
    /// A task of the same list.
    Task(String),
}

/// What a task does.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Asks a service, a function, an agent.
    Call(Box<Call>),
    /// Tasks, one after the other.
    Do(Vec<Task>),
    /// Publishes an event.
    Emit(Emit),
    /// Tasks for each item of a list.
    For(Box<For>),
    /// Tasks side by side.
    Fork(Fork),
    /// Waits for events.
    Listen(Box<Listen>),
    /// Fails.
    Raise(Box<Named<ErrorDefinition>>),
    /// Runs a process or another workflow.
    Run(Box<Run>),
    /// Yields data.
    Set(Template),
    /// Goes on at one of several tasks.
    Switch(Switch),
    /// Tasks, and what is done when they fail.
    Try(Box<Try>),
    /// Waits for a time.
    Wait(Delay),
}

impl Task {
    /// The lists of tasks within it, and of those that undo it.
    pub fn lists(&self) -> Vec<&[Task]> {
        let mut lists = self.kind.lists();
        lists.extend((!self.options.compensate.is_empty()).then_some(self.options.compensate.as_slice()));
        lists
    }
}

impl Kind {
    /// The lists of tasks within it.
    pub fn lists(&self) -> Vec<&[Task]> {
        match self {
            Self::Do(tasks) => vec![tasks],
            Self::For(each) => vec![&each.tasks],
            Self::Fork(fork) => vec![&fork.branches],
            Self::Listen(listen) => listen.for_each.iter().map(|each| each.tasks.as_slice()).collect(),
            Self::Try(attempt) => vec![&attempt.tasks, &attempt.catch.tasks],
            Self::Call(call) => call.for_each().map(|each| each.tasks.as_slice()).into_iter().collect(),
            _ => Vec::new(),
        }
    }
}

/// Reads the keys of one kind.
type ReadKind = fn(&mut Fields<'_, '_>) -> Option<Kind>;

/// The kinds, by the key that makes a task one of them. Where a task has several, the first makes it what it is: `for` has `do`
/// beside it.
const KINDS: [(&str, ReadKind); 12] = [
    ("call", call::read),
    ("emit", emit::read),
    ("for", loops::read),
    ("fork", fork::read),
    ("listen", listen::read),
    ("raise", raise::read),
    ("run", run::read),
    ("set", set::read),
    ("switch", switch::read),
    ("try", try_catch::read),
    ("wait", wait::read),
    ("do", |f| Some(Kind::Do(f.required("do", "The tasks.", TASKS)?))),
];

/// A list of named tasks.
pub(crate) const TASKS: TaskList = TaskList;

#[derive(Clone, Copy)]
pub(crate) struct TaskList;

impl Shape for TaskList {
    type Value = Vec<Task>;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Vec<Task>> {
        let yaml::Value::List(items) = &node.value else {
            let hint = "write `- name:` and below it the task".to_owned();
            cx.mismatch(node, "a list of named tasks", Some(hint));
            return None;
        };
        if items.len() > LIST_MAX {
            cx.reports.error(node.span, format!("a list has at most {LIST_MAX} tasks"));
            return None;
        }
        let subject = format!("an entry of {}", cx.subject());
        let read = |item: &Node| cx.within(subject.clone(), item.span, |cx| named_task(item, cx));
        Some(items.iter().filter_map(read).collect())
    }

    fn schema(&self) -> Value {
        json!({"type": "array"})
    }
}

fn named_task(item: &Node, cx: &mut Context<'_>) -> Option<Task> {
    let (name, node) = single_entry(item, "a task", cx)?;
    Some(task(name, &node, cx))
}

/// The one key of a mapping, and its value.
pub(crate) fn single_entry(node: &Node, what: &str, cx: &mut Context<'_>) -> Option<(At<String>, Node)> {
    let yaml::Value::Mapping(entries) = &node.value else {
        cx.mismatch(
            node,
            &format!("{what} with its name before it"),
            Some("write `- name:` and below it what it is".into()),
        );
        return None;
    };
    match entries.as_slice() {
        [entry] => named(entry, cx),
        [] => {
            cx.reports.error(node.span, format!("{what} is missing here"));
            None
        }
        [first, second, ..] => {
            let (one, other) = (shown(&first.key.text), shown(&second.key.text));
            cx.reports.error_hint(
                second.key.span,
                format!("`{other}` stands beside `{one}` in one entry"),
                format!("begin it with `- {other}:` if it is one of its own, or indent it if it belongs to `{one}`"),
            );
            named(first, cx)
        }
    }
}

fn named(entry: &Entry, cx: &mut Context<'_>) -> Option<(At<String>, Node)> {
    let name = At { value: entry.key.text.to_string(), span: entry.key.span };
    if let Err(hint) = NAME.parse(&name.value) {
        let message = format!("`{}` is no name", shown(&name.value));
        cx.reports.push(crate::Severity::Error, Some(name.span), message, hint);
        return None;
    }
    Some((name, entry.value.clone()))
}

/// A task, of a list or of `use.functions`. One that is wrong was reported and stands there all the same: who names it is not
/// wrong. A document with such a task is not given out.
pub(crate) fn task(name: At<String>, node: &Node, cx: &mut Context<'_>) -> Task {
    let subject = format!("the task `{}`", shown(&name.value));
    let errors = cx.reports.errors();
    let read = cx.within(subject, name.span, |cx| read_task(&name, node, cx));
    if read.is_none() && cx.reports.errors() == errors {
        cx.reports.error(name.span, format!("the task `{}` cannot be read", shown(&name.value)));
    }
    let mut task = read.unwrap_or_else(|| Task {
        name: String::new(),
        condition: None,
        input: Input::default(),
        output: Output::default(),
        export: Output::default(),
        timeout: None,
        then: Then::Continue,
        metadata: Map::new(),
        options: TaskOptions::default(),
        kind: unreadable(),
        places: Places { name: name.span, then: None, compensate: None },
    });
    task.name = name.value;
    task
}

/// What stands for a kind that could not be read.
fn unreadable() -> Kind {
    Kind::Set(Template::Value(Value::Null))
}

fn read_task(name: &At<String>, node: &Node, cx: &mut Context<'_>) -> Option<Task> {
    let yaml::Value::Mapping(entries) = &node.value else {
        cx.mismatch(node, "a mapping with what the task does", None);
        return None;
    };
    let has = |key: &str| entries.iter().find(|entry| &*entry.key.text == key);
    let words = || KINDS.iter().map(|(word, _)| *word);
    let found = KINDS.iter().find(|(word, _)| has(word).is_some());
    let Some((word, read)) = found.copied() else {
        let misspelt =
            entries.iter().find_map(|entry| Some((entry, suggest::nearest(&entry.key.text, words())?)));
        match misspelt {
            Some((entry, near)) => {
                let message = format!("unknown key `{}`", shown(&entry.key.text));
                cx.reports.error_hint(entry.key.span, message, format!("did you mean `{near}`?"));
            }
            None => {
                let message = format!("{} does nothing", cx.subject());
                let hint = format!("a task has one of {}", words().collect::<Vec<_>>().join(", "));
                cx.reports.error_hint(name.span, message, hint);
            }
        }
        return None;
    };
    let place_of_ours = |key: &str| has("metadata").and_then(|metadata| place_of(&metadata.value, key));
    let (compensate, human) = (place_of_ours("compensate"), place_of_ours("humanTask"));
    let mut others = words().filter(|other| *other != word && !(word == "for" && *other == "do"));
    if let Some(other) = others.find_map(has) {
        let message = format!("`{}` beside `{word}`: a task does one thing", other.key.text);
        let hint = "make two tasks of it, one after the other, or a `do` with both";
        cx.reports.error_hint(other.key.span, message, hint);
        return None;
    }
    let (mut is_read, errors) = (true, cx.reports.errors());
    let task = decode_object(node, cx, |f| {
        let condition = f.optional("if", "It is passed over unless this yields true.", Condition);
        let input = f.optional("input", "What it is given.", INPUT).unwrap_or_default();
        let output = f.optional("output", "What it yields.", OUTPUT).unwrap_or_default();
        let export = f.optional("export", "What of that goes into the context.", OUTPUT).unwrap_or_default();
        let timeout = f.optional("timeout", "After which time it is given up.", timeout());
        let then_place = f.value_place_of("then");
        let then = f.optional("then", "What comes next.", THEN).unwrap_or_default();
        let options = Metadata(OfTask { kind: word, callee: text_of(has("call")) });
        let metadata = f.optional("metadata", "What others want to know about it.", options);
        let (metadata, options) = metadata.unwrap_or_default();
        let options = options.unwrap_or_default();
        if let (Some(_), Some(place)) = (options.parallel, f.place_of("while")) {
            side_by_side(f, place);
        }
        let kind = read(f);
        is_read = kind.is_some();
        if let (Some(kind), Some(_), Some(place)) = (&kind, &options.human, human)
            && !listens_for_one_signal(kind)
            && let Some((_, cx)) = f.reading()
        {
            let message = "`humanTask` at a `listen` that waits for something else than one signal";
            let hint = "what a person answers comes as a signal: `listen: {to: {one: {with: {type: io.standfast.signal.NAME}}}}`";
            cx.reports.error_hint(place, message, hint);
        }
        Some(Task {
            name: String::new(),
            condition,
            input,
            output,
            export,
            timeout,
            then,
            metadata,
            options,
            kind: kind.unwrap_or_else(unreadable),
            places: Places { name: name.span, then: then_place, compensate },
        })
    });
    // What is missing is reported when all keys were read, so only now it is known whether the reason was told.
    if is_read || cx.reports.errors() > errors { task } else { None }
}

/// Whether it waits for one event, which is a signal of a certain name.
fn listens_for_one_signal(kind: &Kind) -> bool {
    let Kind::Listen(listen) = kind else { return false };
    let Events::One(filter) = &listen.to else { return false };
    filter.with.iter().any(|(name, value)| {
        let Template::Value(Value::String(text)) = value else { return false };
        name == "type" && text.strip_prefix(SIGNAL_TYPE).is_some_and(|name| !name.is_empty())
    })
}

fn text_of(entry: Option<&Entry>) -> Option<String> {
    match &entry?.value.value {
        yaml::Value::Scalar(scalar) => Some(scalar.text.to_string()),
        _ => None,
    }
}

/// Rounds side by side have nothing that one could tell the next.
fn side_by_side(f: &mut Fields<'_, '_>, place: Span) {
    if let Some((_, cx)) = f.reading() {
        let message = "`while` beside `concurrency`: of rounds side by side none comes after another";
        let hint =
            "leave one of them out; each round is given the input of the `for`, not what another yielded";
        cx.reports.error_hint(place, message, hint);
    }
}

/// A flow directive.
pub(crate) const THEN: ThenText = ThenText;

#[derive(Clone, Copy)]
pub(crate) struct ThenText;

impl FromText for ThenText {
    type Value = Then;

    fn parse(&self, text: &str) -> Result<Then, Option<String>> {
        Ok(match text {
            "continue" => Then::Continue,
            "exit" => Then::Exit,
            "end" => Then::End,
            name => Then::Task(NAME.parse(name)?),
        })
    }

    fn expected(&self) -> String {
        "`continue`, `exit`, `end` or the name of a task of the same list".to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"type": "string"})
    }
}

/// An object whose keys a kind of task reads.
pub(crate) const fn object<T>(doc: &'static str, read: fn(&mut Fields<'_, '_>) -> Option<T>) -> Object<T> {
    Object { doc, read }
}
