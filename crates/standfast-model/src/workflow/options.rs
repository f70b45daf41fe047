//! `metadata.standfast`: what the language lacks and leaves room for. Unlike the rest of `metadata` it is checked: an unknown key, or
//! one in a place where it means nothing, is an error.

use serde_json::{Map, Value};

use super::limits::{CONCURRENCY, ConcurrencyLimit, FAIRNESS, RATE, StartRate};
use super::period::{Delay, delay};
use super::schedule::{SCHEDULE, ScheduleOptions};
use super::task::{PROTOCOLS, TASKS, Task};
use super::value::{AnyTemplate, Condition, Expression, Template, TextTemplate, open_object};
use crate::Priority;
use crate::shape::{Choice, Context, Fields, Keyed, Object, Shape, TextKeys, Whole, decode_object};
use crate::source::Span;
use crate::yaml::{self, Entry, Node};

/// Most rounds of a loop side by side.
const CONCURRENCY_MAX: u32 = 1_000;
/// Longest key of a step that a document may give, in bytes: services often keep no more than 255, and what tells a second time
/// from the first must fit, too.
pub const STEP_KEY_BYTES_MAX: usize = 200;

/// What `metadata.standfast` of a task says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TaskOptions {
    /// What names the step to who is called, in place of the run's id and the task's place.
    pub key: Option<Template>,
    /// Rounds of a loop side by side.
    pub parallel: Option<Parallel>,
    /// What undoes the task.
    pub compensate: Vec<Task>,
    /// It waits for a person.
    pub human: Option<HumanTask>,
    /// It is given up when there is no sign of life from what it asks for so long.
    pub heartbeat: Option<Delay>,
}

/// What a person is asked to do.
#[derive(Debug, Clone, PartialEq)]
pub struct HumanTask {
    /// What is to be done, in a line.
    pub title: Template,
    /// For whom: a text or a list of texts; nobody in particular if it is left out.
    pub groups: Option<Template>,
    /// What an answer must be: a JSON Schema.
    pub form: Option<Value>,
}

/// Rounds of a loop side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parallel {
    /// At most so many at a time.
    pub concurrency: u32,
    /// What becomes of the others when one fails.
    pub failures: Failures,
}

/// What becomes of the others when a round of a loop fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Failures {
    /// They are cancelled, and the loop fails.
    #[default]
    Stop,
    /// They go on, and the loop tells of each how it ended.
    Collect,
}

/// What `metadata.standfast` of a workflow says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WorkflowOptions {
    /// How much time a run has.
    pub deadline: Option<Delay>,
    /// Whose turn it is first when there is no room for all.
    pub priority: Priority,
    /// How many of its runs go on at a time.
    pub concurrency: Option<ConcurrencyLimit>,
    /// How often its runs begin.
    pub rate: Option<StartRate>,
    /// How long a run may wait before it begins.
    pub queue_timeout: Option<Delay>,
    /// Between whom its runs take turns.
    pub fairness: Option<Template>,
    /// What can be asked about its runs, by name.
    pub queries: Vec<(String, Expression)>,
    /// What the language's `schedule` leaves open.
    pub schedule: ScheduleOptions,
}

/// Why a text is no key of a step, as the end of a sentence; `None` when it is one.
pub fn bad_step_key(text: &str) -> Option<String> {
    let is_odd = |c: char| !c.is_ascii_graphic() || matches!(c, '"' | '\\');
    if text.is_empty() {
        return Some("is empty".to_owned());
    }
    if text.len() > STEP_KEY_BYTES_MAX {
        return Some(format!("has {} bytes, at most {STEP_KEY_BYTES_MAX} are allowed", text.len()));
    }
    let odd = text.chars().find(|c| is_odd(*c))?;
    Some(format!("holds {odd:?}: visible ASCII without quotes and `\\` is allowed"))
}

/// `metadata`: anything, and what is under `standfast`.
pub(super) struct Metadata<S>(pub(super) S);

impl<S: Shape> Shape for Metadata<S> {
    type Value = (Map<String, Value>, Option<S::Value>);

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Self::Value> {
        let all = open_object().decode(node, cx)?;
        let yaml::Value::Mapping(entries) = &node.value else { return Some((all, None)) };
        let ours = entries.iter().find(|entry| &*entry.key.text == "standfast");
        let ours = ours.and_then(|entry| {
            let subject = "`metadata.standfast`".to_owned();
            cx.within(subject, entry.key.span, |cx| self.0.decode(&entry.value, cx))
        });
        Some((all, ours))
    }

    fn schema(&self) -> Value {
        open_object().schema()
    }
}

const PRIORITY: Choice<Priority> =
    Choice(&[("low", Priority::Low), ("normal", Priority::Normal), ("high", Priority::High)]);

/// Of a workflow.
pub(super) const WORKFLOW: Object<WorkflowOptions> = Object {
    doc: "What the language lacks.",
    read: |f: &mut Fields<'_, '_>| {
        let deadline = f.optional("deadline", "How much time a run has.", delay());
        let priority =
            f.optional("priority", "Whose turn it is first when there is no room for all.", PRIORITY);
        let concurrency = f.optional("concurrency", "How many of its runs go on at a time.", CONCURRENCY);
        let rate = f.optional("rate", "How often its runs begin.", RATE);
        let queue_timeout = f.optional("queueTimeout", "How long a run may wait before it begins.", delay());
        let fairness = f.optional("fairness", "Between whom its runs take turns.", FAIRNESS);
        let queries = f.optional("queries", "What can be asked about its runs, by name.", QUERIES);
        let queries = queries.unwrap_or_default().into_iter();
        let queries = queries.filter_map(|(name, query)| Some((name.value, query?))).collect();
        let schedule = f.optional("schedule", "What the language's `schedule` leaves open.", SCHEDULE);
        f.excluded(
            ["key", "failures", "compensate", "humanTask", "heartbeat"],
            "a workflow",
            "put it at a task",
        );
        let (priority, schedule) = (priority.unwrap_or_default(), schedule.unwrap_or_default());
        Some(WorkflowOptions {
            deadline,
            priority,
            concurrency,
            rate,
            queue_timeout,
            fairness,
            queries,
            schedule,
        })
    },
};

/// Of a task.
pub(super) struct OfTask {
    /// The key that makes it what it is.
    pub(super) kind: &'static str,
    /// Of a `call`: what is called.
    pub(super) callee: Option<String>,
}

impl Shape for OfTask {
    type Value = TaskOptions;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<TaskOptions> {
        decode_object(node, cx, |f| Some(self.read(f)))
    }

    fn schema(&self) -> Value {
        open_object().schema()
    }
}

impl OfTask {
    fn read(&self, f: &mut Fields<'_, '_>) -> TaskOptions {
        let whom = match (self.kind, &self.callee) {
            ("call", Some(name)) if !PROTOCOLS.contains(&name.as_str()) => "a function".to_owned(),
            (kind, _) => format!("`{kind}`"),
        };
        let key = if whom == "`call`" {
            f.optional("key", "What names the step to who is called.", StepKey)
        } else {
            let hint = match whom.as_str() {
                "a function" => "put it at the calls within the function",
                _ => "only a `call` sends one",
            };
            f.excluded(["key"], &whom, hint);
            None
        };
        let parallel = if self.kind == "for" {
            parallel(f)
        } else {
            f.excluded(["concurrency", "failures"], &whom, "only the rounds of `for` can be side by side");
            None
        };
        let human = if self.kind == "listen" {
            f.optional("humanTask", "It waits for a person.", HUMAN_TASK)
        } else {
            f.excluded(["humanTask"], &whom, "a person's answer is waited for by `listen`");
            None
        };
        let heartbeat = match whom.as_str() {
            "`call`" | "`run`" => f.optional("heartbeat", "How long it may be silent.", delay()),
            _ => {
                f.excluded(["heartbeat"], &whom, "only what a `call` or a `run` asks gives signs of life");
                None
            }
        };
        let compensate = match self.kind {
            "raise" | "switch" => {
                f.excluded(["compensate"], &whom, "it does nothing that could be undone");
                Vec::new()
            }
            _ => compensate(f),
        };
        f.excluded(
            ["deadline"],
            "a task",
            "a task has `timeout: {after: PT30S}`; a deadline is for the workflow",
        );
        f.excluded(
            ["priority", "queries", "rate", "queueTimeout", "fairness", "schedule"],
            "a task",
            "put it at the workflow's own `document`",
        );
        TaskOptions { key, parallel, compensate, human, heartbeat }
    }
}

fn parallel(f: &mut Fields<'_, '_>) -> Option<Parallel> {
    const FAILURES: Choice<Failures> = Choice(&[("stop", Failures::Stop), ("collect", Failures::Collect)]);
    let width = Whole { min: 1, max: CONCURRENCY_MAX };
    let concurrency = f.optional("concurrency", "At most so many rounds at a time.", width);
    let failures = f.optional("failures", "What becomes of the others when one fails.", FAILURES);
    if let (None, Some(place)) = (f.place_of("concurrency"), f.place_of("failures"))
        && let Some((_, cx)) = f.reading()
    {
        let message =
            "`failures` without `concurrency`: rounds one after the other end with the first that fails";
        cx.reports.error_hint(place, message, "add `concurrency: 8`, or leave it out");
    }
    Some(Parallel { concurrency: concurrency?, failures: failures.unwrap_or_default() })
}

fn compensate(f: &mut Fields<'_, '_>) -> Vec<Task> {
    // It is done when what is around the task has ended, so that no variable of that is known.
    let around = f.reading().map(|(_, cx)| std::mem::take(&mut cx.named));
    let tasks = f.optional("compensate", "What undoes the task.", TASKS);
    if let (Some(around), Some((_, cx))) = (around, f.reading()) {
        cx.named = around;
    }
    if let (Some([]), Some(place)) = (tasks.as_deref(), f.place_of("compensate"))
        && let Some((_, cx)) = f.reading()
    {
        cx.reports.error_hint(
            place,
            "`compensate` needs at least one task",
            "leave it out if nothing is to be undone",
        );
    }
    tasks.unwrap_or_default()
}

const HUMAN_TASK: Object<HumanTask> = Object {
    doc: "What a person is asked to do.",
    read: |f: &mut Fields<'_, '_>| {
        let title = f.required("title", "What is to be done, in a line.", TextTemplate);
        let groups = f.optional("for", "For whom: a text or a list of texts.", AnyTemplate);
        let form = f.optional("form", "What an answer must be: a JSON Schema.", open_object());
        Some(HumanTask { title: title?, groups, form: form.map(Value::Object) })
    },
};

/// Where one of our keys stands in a task's `metadata`, if it does.
pub(super) fn place_of(metadata: &Node, key: &str) -> Option<Span> {
    fn within<'n>(node: &'n Node, key: &str) -> Option<&'n Entry> {
        let yaml::Value::Mapping(entries) = &node.value else { return None };
        entries.iter().find(|entry| &*entry.key.text == key)
    }
    Some(within(&within(metadata, "standfast")?.value, key)?.key.span)
}

/// What can be asked about runs, by names that stand in addresses as they are.
const QUERIES: Keyed<TextKeys, Query> = Keyed {
    keys: TextKeys {
        what: "a name of letters, digits, `-`, `_` and `.`",
        pattern: "^[A-Za-z0-9._-]{1,100}$",
        matches: |text| {
            let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
            (1..=100).contains(&text.len()) && text.bytes().all(is_plain)
        },
    },
    item: Query,
    min: 1,
};

/// An expression about a run, whose value whoever may ask is told.
struct Query;

impl Shape for Query {
    type Value = Expression;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Expression> {
        let query = Condition.decode(node, cx)?;
        if query.text().contains("$secrets") {
            let message = "a query cannot name `$secrets`: what it yields is told to whoever asks";
            cx.reports.error_hint(node.span, message, "ask for something else of the run: `.status`");
            return None;
        }
        Some(query)
    }

    fn schema(&self) -> Value {
        Condition.schema()
    }
}

/// A key of a step, or what yields it.
struct StepKey;

impl Shape for StepKey {
    type Value = Template;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Template> {
        let key = TextTemplate.decode(node, cx)?;
        if let Template::Value(Value::String(text)) = &key
            && let Some(why) = bad_step_key(text)
        {
            let hint = "a text that is the same whenever the same is meant: `${ \"order-\\(.id)\" }`";
            cx.reports.error_hint(node.span, format!("the key {why}"), hint);
            return None;
        }
        Some(key)
    }

    fn schema(&self) -> Value {
        TextTemplate.schema()
    }
}
