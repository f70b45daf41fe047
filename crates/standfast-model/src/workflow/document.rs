//! The document as a whole.

use serde_json::{Map, Value, json};

use super::auth::{Authentication, POLICY};
use super::event::{ANY_KEY, Events, Strategy};
use super::options::{self, Metadata, WorkflowOptions};
use super::period::{Period, period};
use super::policy::{RETRY, Retry, TIMEOUT, Timeout, timeout};
use super::task::{self, ERROR, ErrorDefinition, TASKS, Task, single_entry};
use super::value::{
    Condition, Endpoint, Expression, INPUT, Input, NAME, Named, OUTPUT, Output, TEXT, endpoint, open_object,
};
use crate::diagnostics::shown;
use crate::shape::{Choice, Context, Count, Fields, FromText, Keyed, List, Object, Shape};
use crate::source::{At, Span};
use crate::yaml::{self, Node};

/// A workflow.
#[derive(Debug, Clone)]
pub struct Document {
    /// The version of the language.
    pub dsl: String,
    /// Where its name counts.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What people call it.
    pub title: Option<String>,
    /// What it is for, in Markdown.
    pub summary: Option<String>,
    /// What it is found by.
    pub tags: Map<String, Value>,
    /// What others want to know about it; what is under `standfast` is read, too.
    pub metadata: Map<String, Value>,
    /// What `metadata.standfast` says.
    pub options: WorkflowOptions,
    /// What a run is given.
    pub input: Input,
    /// What a run yields.
    pub output: Output,
    /// After which time a run is given up.
    pub timeout: Option<Named<Timeout>>,
    /// When runs begin by themselves.
    pub schedule: Option<Schedule>,
    /// How expressions are told from texts.
    pub evaluate: Evaluate,
    /// What tasks may name.
    pub reusable: Reusable,
    /// The tasks.
    pub tasks: Vec<Task>,
    /// The document as it is written, as data.
    pub definition: Value,
}

impl Document {
    /// How many tasks it has, those within others and those of functions and extensions included.
    pub fn task_count(&self) -> usize {
        self.all_tasks().len()
    }

    /// The variables that its expressions may ask for: the language's own and those that tasks name.
    pub fn variables(&self) -> Vec<String> {
        super::check::variables(self)
    }

    /// All its tasks, in no particular order.
    pub(crate) fn all_tasks(&self) -> Vec<&Task> {
        let extensions = self.reusable.extensions.iter();
        let around = extensions.flat_map(|extension| extension.before.iter().chain(&extension.after));
        let mut all: Vec<&Task> = around.chain(&self.reusable.functions).chain(&self.tasks).collect();
        let mut next = 0;
        while let Some(task) = all.get(next) {
            let within: Vec<&Task> = task.lists().into_iter().flatten().collect();
            all.extend(within);
            next += 1;
        }
        all
    }
}

/// How expressions are read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evaluate {
    /// Whether they need `${ }`.
    pub mode: Mode,
}

/// Whether expressions need `${ }`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// They do, except where nothing else may be.
    #[default]
    Strict,
}

/// When runs begin by themselves.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// Each time so much has passed.
    Every(Period),
    /// By five fields of cron.
    Cron(String),
    /// So long after the last has ended.
    After(Period),
    /// When these events have come.
    On(Events),
}

/// What tasks may name.
#[derive(Debug, Clone, Default)]
pub struct Reusable {
    /// As whom something is called.
    pub authentications: Vec<(String, Authentication)>,
    /// Where functions are found.
    pub catalogs: Vec<(String, Endpoint)>,
    /// Errors.
    pub errors: Vec<(String, ErrorDefinition)>,
    /// Tasks around tasks, in this order.
    pub extensions: Vec<Extension>,
    /// Tasks that are called by name.
    pub functions: Vec<Task>,
    /// When something is tried again.
    pub retries: Vec<(String, Retry)>,
    /// Secrets that expressions may read.
    pub secrets: Vec<String>,
    /// After which time something is given up.
    pub timeouts: Vec<(String, Timeout)>,
    /// What could not be read: who names it is not wrong.
    pub(crate) unread: Unread,
}

/// What of `use` was reported and left out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unread {
    /// All of it.
    pub(crate) all: bool,
    /// All of these keys.
    pub(crate) keys: Vec<&'static str>,
    /// Single definitions, each with its key.
    pub(crate) names: Vec<(&'static str, String)>,
}

impl Reusable {
    /// The names under a key.
    pub(crate) fn names(&self, key: &str) -> Vec<&str> {
        fn first<T>(pairs: &[(String, T)]) -> Vec<&str> {
            pairs.iter().map(|(name, _)| name.as_str()).collect()
        }
        match key {
            "authentications" => first(&self.authentications),
            "catalogs" => first(&self.catalogs),
            "errors" => first(&self.errors),
            "functions" => self.functions.iter().map(|function| function.name.as_str()).collect(),
            "retries" => first(&self.retries),
            "secrets" => self.secrets.iter().map(String::as_str).collect(),
            "timeouts" => first(&self.timeouts),
            _ => Vec::new(),
        }
    }

    /// Whether it is not known what a name under a key is, since that was wrong.
    pub(crate) fn is_unread(&self, key: &str, name: &str) -> bool {
        let Unread { all, keys, names } = &self.unread;
        *all || keys.contains(&key) || names.iter().any(|(of, unread)| *of == key && unread == name)
    }
}

/// Tasks around tasks.
#[derive(Debug, Clone, PartialEq)]
pub struct Extension {
    /// What it is called.
    pub name: String,
    /// Around which.
    pub extend: Extended,
    /// Only if this yields true.
    pub when: Option<Expression>,
    /// What is done before.
    pub before: Vec<Task>,
    /// What is done after.
    pub after: Vec<Task>,
}

/// What kinds of tasks something is done around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extended {
    /// All.
    All,
    /// Those that consist of tasks: `do` and `fork`.
    Composite,
    /// Those with this key.
    Kind(&'static str),
}

/// The whole document.
pub(crate) const DOCUMENT: Object<Document> = Object { doc: "A workflow.", read: document };

fn document(f: &mut Fields<'_, '_>) -> Option<Document> {
    let head = f.required("document", "What the workflow is called.", HEAD);
    let input = f.optional("input", "What a run is given.", INPUT).unwrap_or_default();
    let output = f.optional("output", "What a run yields.", OUTPUT).unwrap_or_default();
    let timeout = f.optional("timeout", "After which time a run is given up.", timeout());
    let schedule = f.optional("schedule", "When runs begin by themselves.", SCHEDULE);
    let evaluate = f.optional("evaluate", "How expressions are read.", EVALUATE).unwrap_or_default();
    let has_use = f.place_of("use").is_some();
    // Functions, policies and extensions are used where variables are known that are not where they stand.
    let is_anywhere =
        |f: &mut Fields<'_, '_>, is: bool| f.reading().into_iter().for_each(|(_, cx)| cx.is_anywhere = is);
    is_anywhere(f, true);
    let reusable = f.optional("use", "What tasks may name.", REUSABLE);
    is_anywhere(f, false);
    let reusable = reusable.unwrap_or_else(|| {
        let unread = Unread { all: has_use, ..Unread::default() };
        Reusable { unread, ..Reusable::default() }
    });
    let tasks = f.required("do", "The tasks.", TASKS);
    // Without a head or tasks the document is not given out, but what else is wrong with it is told at the same time.
    let Head { dsl, namespace, name, version, title, summary, tags, metadata, options } =
        head.unwrap_or_default();
    Some(Document {
        dsl,
        namespace,
        name,
        version,
        title,
        summary,
        tags,
        metadata,
        options,
        input,
        output,
        timeout,
        schedule,
        evaluate,
        reusable,
        tasks: tasks.unwrap_or_default(),
        definition: Value::Null,
    })
}

#[derive(Default)]
struct Head {
    dsl: String,
    namespace: String,
    name: String,
    version: String,
    title: Option<String>,
    summary: Option<String>,
    tags: Map<String, Value>,
    metadata: Map<String, Value>,
    options: WorkflowOptions,
}

const HEAD: Object<Head> = Object {
    doc: "What the workflow is called.",
    read: |f: &mut Fields<'_, '_>| {
        let dsl = f.required("dsl", "The version of the language.", DslVersion);
        let namespace = f.required("namespace", "Where its name counts.", Label);
        let name = f.required("name", "Its name.", Label);
        let version = f.required("version", "Its version.", SemanticVersion);
        let title = f.optional("title", "What people call it.", TEXT);
        let summary = f.optional("summary", "What it is for, in Markdown.", TEXT);
        let tags = f.optional("tags", "What it is found by.", open_object()).unwrap_or_default();
        let metadata =
            f.optional("metadata", "What others want to know about it.", Metadata(options::WORKFLOW));
        let (metadata, options) = metadata.unwrap_or_default();
        Some(Head {
            dsl: dsl?,
            namespace: namespace?,
            name: name?,
            version: version?,
            title,
            summary,
            tags,
            metadata,
            options: options.unwrap_or_default(),
        })
    },
};

/// A label of up to 63 letters, digits and `-`.
struct Label;

impl FromText for Label {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, Option<String>> {
        let is_edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let fits = text.len() <= 63
            && is_edge(text.chars().next())
            && is_edge(text.chars().next_back())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let hint = "use 1 to 63 letters, digits and `-`, beginning and ending with a letter or digit";
        if fits { Ok(text.to_owned()) } else { Err(Some(hint.to_owned())) }
    }

    fn expected(&self) -> String {
        "a short name".to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"type": "string", "pattern": "^[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?$"})
    }
}

/// A version as semver.org has it.
struct SemanticVersion;

impl FromText for SemanticVersion {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, Option<String>> {
        if is_semantic(text) {
            Ok(text.to_owned())
        } else {
            Err(Some("three numbers: `1.0.0`, `0.2.1-beta.1`".to_owned()))
        }
    }

    fn expected(&self) -> String {
        "a semantic version".to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"type": "string"})
    }
}

fn is_semantic(text: &str) -> bool {
    let is_number = |part: &str| {
        part.bytes().all(|b| b.is_ascii_digit())
            && !part.is_empty()
            && (part == "0" || !part.starts_with('0'))
    };
    let is_word =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, before) = rest.split_once('-').map_or((rest, None), |(core, before)| (core, Some(before)));
    let is_before =
        |part: &str| is_word(part) && (!part.bytes().all(|b| b.is_ascii_digit()) || is_number(part));
    core.split('.').count() == 3
        && core.split('.').all(is_number)
        && before.is_none_or(|before| before.split('.').all(is_before))
        && build.is_none_or(|build| build.split('.').all(is_word))
}

/// A version of the language that is understood here.
struct DslVersion;

impl FromText for DslVersion {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, Option<String>> {
        if is_semantic(text) && text.starts_with("1.0.") {
            return Ok(text.to_owned());
        }
        let hint = if text.starts_with("0.") {
            "the language was written anew for 1.0: a document of 0.x must be, too"
        } else {
            "write `1.0.3`"
        };
        Err(Some(hint.to_owned()))
    }

    fn expected(&self) -> String {
        "a version of the language that is understood here, 1.0.x".to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"type": "string"})
    }
}

const EVALUATE: Object<Evaluate> = Object {
    doc: "How expressions are read.",
    read: |f: &mut Fields<'_, '_>| {
        const LANGUAGES: Choice<()> = Choice(&[("jq", ())]);
        const MODES: Choice<Mode> = Choice(&[("strict", Mode::Strict)]);
        f.optional("language", "The language of expressions.", LANGUAGES);
        Some(Evaluate { mode: f.optional("mode", "Whether they need `${ }`.", MODES).unwrap_or_default() })
    },
};

const SCHEDULE: Object<Schedule> = Object {
    doc: "When runs begin by themselves.",
    read: |f: &mut Fields<'_, '_>| {
        let every = f.optional("every", "Each time so much has passed.", period()).map(Schedule::Every);
        let cron = f.optional("cron", "By five fields of cron.", Cron).map(Schedule::Cron);
        let after = f.optional("after", "So long after the last has ended.", period()).map(Schedule::After);
        let on = f.optional("on", "When these events have come.", Strategy).map(Schedule::On);
        f.count(Count::One, &["every", "cron", "after", "on"]);
        every.or(cron).or(after).or(on)
    },
};

/// Five fields: minute, hour, day of the month, month, day of the week.
struct Cron;

impl FromText for Cron {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, Option<String>> {
        match bad_cron(text) {
            None => Ok(text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")),
            Some(why) => Err(Some(why)),
        }
    }

    fn expected(&self) -> String {
        "five fields of cron: minute, hour, day, month, weekday".to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"type": "string"})
    }
}

/// Why a text is no schedule of cron.
fn bad_cron(text: &str) -> Option<String> {
    const FIELDS: [(&str, u32, u32, &[&str]); 5] = [
        ("minute", 0, 59, &[]),
        ("hour", 0, 23, &[]),
        ("day of the month", 1, 31, &[]),
        (
            "month",
            1,
            12,
            &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"],
        ),
        ("day of the week", 0, 7, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
    ];
    let fields: Vec<&str> = text.split_ascii_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Some(format!("`0 6 * * mon` is six o'clock on Mondays; here are {} fields", fields.len()));
    }
    for (field, (name, min, max, words)) in fields.iter().zip(FIELDS) {
        let number = |text: &str| {
            let lower = text.to_ascii_lowercase();
            let word = words.iter().position(|word| *word == lower).and_then(|at| u32::try_from(at).ok());
            let value = word.map(|at| at + min.min(1)).or_else(|| {
                let is_digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
                if is_digits { text.parse().ok() } else { None }
            });
            value.filter(|value| (min..=max).contains(value))
        };
        let is_good = |part: &str| {
            let (range, step) =
                part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
            let is_step =
                step.is_none_or(|step| step.parse::<u32>().is_ok_and(|step| step >= 1 && step <= max));
            let is_range = range == "*"
                || number(range).is_some()
                || range.split_once('-').is_some_and(
                    |(from, to)| matches!((number(from), number(to)), (Some(a), Some(b)) if a <= b),
                );
            is_step && is_range
        };
        if !field.split(',').all(is_good) {
            return Some(format!("`{}` is no {name}: it goes from {min} to {max}", shown(field)));
        }
    }
    None
}

const REUSABLE: Object<Reusable> = Object {
    doc: "What tasks may name.",
    read: |f: &mut Fields<'_, '_>| {
        let mut unread = Unread::default();
        let out = &mut unread;
        Some(Reusable {
            authentications: named_all(f, "authentications", "As whom something is called.", POLICY, out),
            catalogs: named_all(f, "catalogs", "Where functions are found.", CATALOG, out),
            errors: named_all(f, "errors", "Errors.", ERROR, out),
            extensions: f.optional("extensions", "Tasks around tasks.", Extensions).unwrap_or_default(),
            functions: whole(f, "functions", "Tasks that are called by name.", Functions, out),
            retries: named_all(f, "retries", "When something is tried again.", RETRY, out),
            secrets: whole(f, "secrets", "Secrets.", List { item: NAME.and_then(noted), min: 0 }, out),
            timeouts: named_all(f, "timeouts", "After which time something is given up.", TIMEOUT, out),
            unread,
        })
    },
};

/// Notes where the document counts on a secret.
fn noted(name: String, span: Span, cx: &mut Context<'_>) -> Option<String> {
    cx.secrets.push(At { value: name.clone(), span });
    Some(name)
}

const CATALOG: Object<Endpoint> = Object {
    doc: "Where functions are found.",
    read: |f: &mut Fields<'_, '_>| f.required("endpoint", "Where.", endpoint()),
};

fn named_all<S: Shape>(
    f: &mut Fields<'_, '_>,
    key: &'static str,
    doc: &str,
    item: S,
    unread: &mut Unread,
) -> Vec<(String, S::Value)> {
    let mut named = Vec::new();
    for (name, value) in whole(f, key, doc, Keyed { keys: ANY_KEY, item, min: 0 }, unread) {
        match value {
            Some(value) => named.push((name.value, value)),
            None => unread.names.push((key, name.value)),
        }
    }
    named
}

fn whole<T: Default, S: Shape<Value = T>>(
    f: &mut Fields<'_, '_>,
    key: &'static str,
    doc: &str,
    shape: S,
    unread: &mut Unread,
) -> T {
    let is_there = f.place_of(key).is_some();
    f.optional(key, doc, shape).unwrap_or_else(|| {
        unread.keys.extend(is_there.then_some(key));
        T::default()
    })
}

/// Tasks by name.
struct Functions;

impl Shape for Functions {
    type Value = Vec<Task>;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Vec<Task>> {
        let yaml::Value::Mapping(entries) = &node.value else {
            cx.mismatch(node, "a mapping of functions by name", None);
            return None;
        };
        let read = entries.iter().map(|entry| {
            let name = At { value: entry.key.text.to_string(), span: entry.key.span };
            task::task(name, &entry.value, cx)
        });
        Some(read.collect())
    }

    fn schema(&self) -> Value {
        json!({"type": "object"})
    }
}

/// A list of named extensions.
struct Extensions;

impl Shape for Extensions {
    type Value = Vec<Extension>;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Vec<Extension>> {
        const EXTENSION: Object<Extension> = Object { doc: "Tasks around tasks.", read: extension };
        let yaml::Value::List(items) = &node.value else {
            cx.mismatch(node, "a list of named extensions", None);
            return None;
        };
        let read = items.iter().filter_map(|item| {
            let (name, node) = single_entry(item, "an extension", cx)?;
            let subject = format!("the extension `{}`", shown(&name.value));
            let extension = cx.within(subject, name.span, |cx| EXTENSION.decode(&node, cx))?;
            Some(Extension { name: name.value, ..extension })
        });
        Some(read.collect())
    }

    fn schema(&self) -> Value {
        json!({"type": "array"})
    }
}

fn extension(f: &mut Fields<'_, '_>) -> Option<Extension> {
    const KINDS: Choice<Extended> = Choice(&[
        ("all", Extended::All),
        ("composite", Extended::Composite),
        ("call", Extended::Kind("call")),
        ("emit", Extended::Kind("emit")),
        ("for", Extended::Kind("for")),
        ("listen", Extended::Kind("listen")),
        ("raise", Extended::Kind("raise")),
        ("run", Extended::Kind("run")),
        ("set", Extended::Kind("set")),
        ("switch", Extended::Kind("switch")),
        ("try", Extended::Kind("try")),
        ("wait", Extended::Kind("wait")),
    ]);
    let extend = f.required("extend", "Around which kind of tasks.", KINDS);
    let when = f.optional("when", "Only if this yields true.", Condition);
    let before = f.optional("before", "What is done before.", TASKS).unwrap_or_default();
    let after = f.optional("after", "What is done after.", TASKS).unwrap_or_default();
    Some(Extension { name: String::new(), extend: extend?, when, before, after })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_semantic() {
        for text in ["1.0.0", "0.0.1", "1.2.3-alpha.1", "1.0.0+build.7", "1.0.0-x-y+a-b"] {
            assert!(is_semantic(text), "{text}");
        }
        for text in ["1", "1.0", "1.0.0.0", "01.0.0", "1.0.0-", "1.0.0-01", "1.0.0+", "v1.0.0", ""] {
            assert!(!is_semantic(text), "{text}");
        }
    }

    #[test]
    fn cron_has_five_fields_within_their_bounds() {
        for text in ["* * * * *", "0 6 * * mon", "*/5 0-8,18-23 1 jan,Jul 1-5", "59 23 31 12 7"] {
            assert_eq!(bad_cron(text), None, "{text}");
        }
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "* 24 * * *",
            "* * 0 * *",
            "* * * 13 *",
            "* * * * 8",
            "*/0 * * * *",
            "5-1 * * * *",
            "a * * * *",
            "1, * * * *",
        ] {
            assert!(bad_cron(text).is_some(), "{text}");
        }
    }
}
