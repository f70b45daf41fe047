//! `run`: runs a process or another workflow.

use super::{Kind, object};
use crate::shape::{Choice, Count, Fields, Flag, Kinds, List, Object, Shape};
use crate::workflow::period::{Delay, delay};
use crate::workflow::value::{NAME, RESOURCE, Resource, TEXT, Template, TextTemplate, object_template};

/// What is run.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// What.
    pub kind: RunKind,
    /// Whether its end is waited for.
    pub awaited: bool,
    /// What the task yields.
    pub result: Await,
}

/// What a process or a workflow yields.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Await {
    /// Its standard output, or the workflow's output.
    #[default]
    Stdout,
    /// Its standard error.
    Stderr,
    /// Its exit code.
    Code,
    /// All of these.
    All,
    /// What the task was given.
    None,
}

/// What is run.
#[derive(Debug, Clone, PartialEq)]
pub enum RunKind {
    /// A container.
    Container(Container),
    /// A script.
    Script(Script),
    /// A command of the shell.
    Shell(Shell),
    /// Another workflow.
    Workflow(Subflow),
}

/// A container.
#[derive(Debug, Clone, PartialEq)]
pub struct Container {
    /// The image.
    pub image: Template,
    /// What it is called.
    pub name: Option<Template>,
    /// The command in it.
    pub command: Option<Template>,
    /// Ports of the machine and of the container.
    pub ports: Option<Template>,
    /// Folders of the machine and of the container.
    pub volumes: Option<Template>,
    /// Its environment.
    pub environment: Option<Template>,
    /// Its standard input.
    pub stdin: Option<Template>,
    /// Arguments of the command.
    pub arguments: Vec<Template>,
    /// When it is removed.
    pub lifetime: Lifetime,
    /// Whether the image is fetched.
    pub pull: PullPolicy,
}

/// When a container is removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// When.
    pub cleanup: Cleanup,
    /// How long after its end; only with [`Cleanup::Eventually`].
    pub after: Option<Delay>,
}

/// When a container is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cleanup {
    /// At its end.
    Always,
    /// Not by us.
    #[default]
    Never,
    /// Some time after its end.
    Eventually,
}

/// Whether an image is fetched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PullPolicy {
    /// If it is not there.
    #[default]
    IfNotPresent,
    /// Each time.
    Always,
    /// Not at all.
    Never,
}

/// A script.
#[derive(Debug, Clone, PartialEq)]
pub struct Script {
    /// Its language: `javascript` or `python`, perhaps with a version.
    pub language: String,
    /// The script, or where it is.
    pub source: ScriptSource,
    /// Its standard input.
    pub stdin: Option<Template>,
    /// Its arguments: a list, or an expression that yields one.
    pub arguments: Option<Template>,
    /// Its environment.
    pub environment: Option<Template>,
}

/// Where a script is.
#[derive(Debug, Clone, PartialEq)]
pub enum ScriptSource {
    /// In the document.
    Code(String),
    /// In a file.
    Resource(Resource),
}

/// A command of the shell.
#[derive(Debug, Clone, PartialEq)]
pub struct Shell {
    /// The command.
    pub command: Template,
    /// Its standard input.
    pub stdin: Option<Template>,
    /// Its arguments.
    pub arguments: Option<Template>,
    /// Its environment.
    pub environment: Option<Template>,
}

/// Another workflow.
#[derive(Debug, Clone, PartialEq)]
pub struct Subflow {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its version, or `latest`.
    pub version: String,
    /// What it is given.
    pub input: Option<Template>,
}

pub(super) fn read(f: &mut Fields<'_, '_>) -> Option<Kind> {
    const RUN: Object<Run> = object("What is run.", |f| {
        const RESULTS: Choice<Await> = Choice(&[
            ("stdout", Await::Stdout),
            ("stderr", Await::Stderr),
            ("code", Await::Code),
            ("all", Await::All),
            ("none", Await::None),
        ]);
        let container = f.optional("container", "A container.", object("A container.", container));
        let script = f.optional("script", "A script.", object("A script.", script));
        let shell = f.optional("shell", "A command of the shell.", object("A command.", shell));
        let workflow = f.optional("workflow", "Another workflow.", object("A workflow.", workflow));
        f.count(Count::One, &["container", "script", "shell", "workflow"]);
        let awaited = f.or("await", "Whether its end is waited for.", Flag, true);
        let result = f.optional("return", "What the task yields.", RESULTS).unwrap_or_default();
        let kind = container
            .map(RunKind::Container)
            .or(script.map(RunKind::Script))
            .or(shell.map(RunKind::Shell))
            .or(workflow.map(RunKind::Workflow));
        Some(Run { kind: kind?, awaited, result })
    });
    Some(Kind::Run(Box::new(f.required("run", "What is run.", RUN)?)))
}

fn container(f: &mut Fields<'_, '_>) -> Option<Container> {
    const PULLS: Choice<PullPolicy> = Choice(&[
        ("ifNotPresent", PullPolicy::IfNotPresent),
        ("always", PullPolicy::Always),
        ("never", PullPolicy::Never),
    ]);
    let image = f.required("image", "The image.", TextTemplate);
    let name = f.optional("name", "What it is called.", TextTemplate);
    let command = f.optional("command", "The command in it.", TextTemplate);
    let ports = f.optional("ports", "Ports of the machine and of the container.", object_template());
    let volumes = f.optional("volumes", "Folders of the machine and of the container.", object_template());
    let environment = f.optional("environment", "Its environment.", object_template());
    let stdin = f.optional("stdin", "Its standard input.", TextTemplate);
    let arguments = f.optional("arguments", "Arguments of the command.", List { item: TextTemplate, min: 0 });
    let lifetime = f.optional("lifetime", "When it is removed.", LIFETIME).unwrap_or_default();
    let pull = f.optional("pullPolicy", "Whether the image is fetched.", PULLS).unwrap_or_default();
    let arguments = arguments.unwrap_or_default();
    Some(Container {
        image: image?,
        name,
        command,
        ports,
        volumes,
        environment,
        stdin,
        arguments,
        lifetime,
        pull,
    })
}

const LIFETIME: Object<Lifetime> = object("When a container is removed.", |f| {
    const CLEANUPS: Choice<Cleanup> = Choice(&[
        ("always", Cleanup::Always),
        ("never", Cleanup::Never),
        ("eventually", Cleanup::Eventually),
    ]);
    let cleanup = f.required("cleanup", "When.", CLEANUPS);
    let after = f.optional("after", "How long after its end.", delay());
    let lifetime = Lifetime { cleanup: cleanup?, after };
    let fits = (lifetime.cleanup == Cleanup::Eventually) == lifetime.after.is_some();
    if !fits && let Some((place, cx)) = f.reading() {
        cx.reports.error(place, "`after` belongs to `cleanup: eventually`, and to no other");
    }
    Some(lifetime)
});

fn arguments() -> impl Shape<Value = Template> {
    let texts = List { item: TextTemplate, min: 0 };
    Kinds::new("a list, or an expression that yields one").text(TextTemplate).list(texts.and_then(
        |items, _, _| {
            Some(Template::List(items)) // Each may be computed.
        },
    ))
}

fn script(f: &mut Fields<'_, '_>) -> Option<Script> {
    let language = f.required("language", "Its language.", NAME);
    let code = f.optional("code", "The script.", TEXT).map(ScriptSource::Code);
    let source = f.optional("source", "Where the script is.", RESOURCE).map(ScriptSource::Resource);
    f.count(Count::One, &["code", "source"]);
    let stdin = f.optional("stdin", "Its standard input.", TextTemplate);
    let arguments = f.optional("arguments", "Its arguments.", arguments());
    let environment = f.optional("environment", "Its environment.", object_template());
    Some(Script { language: language?, source: code.or(source)?, stdin, arguments, environment })
}

fn shell(f: &mut Fields<'_, '_>) -> Option<Shell> {
    let command = f.required("command", "The command.", TextTemplate);
    let stdin = f.optional("stdin", "Its standard input.", TextTemplate);
    let arguments = f.optional("arguments", "Its arguments.", arguments());
    let environment = f.optional("environment", "Its environment.", object_template());
    Some(Shell { command: command?, stdin, arguments, environment })
}

fn workflow(f: &mut Fields<'_, '_>) -> Option<Subflow> {
    let namespace = f.required("namespace", "Its namespace.", NAME);
    let name = f.required("name", "Its name.", NAME);
    let version = f.required("version", "Its version, or `latest`.", NAME);
    let input = f.optional("input", "What it is given.", object_template());
    Some(Subflow { namespace: namespace?, name: name?, version: version?, input })
}
