mod access;
mod calls;
mod grpc;
mod human;
mod outside;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde_json::Value;
use standfast_model::workflow as language;
use standfast_model::workflow::{
    Call, Delay, Document, Endpoint, Expression, Kind, Named, RunKind, Schema, SchemaSource, ScriptSource,
    Template, Then, Uri,
};

use super::{
    AROUND, Access, Address, Backoff, Case, Catch, Check, Cron, EVERY_MIN, Events, Extended, FilterId, For,
    ForEach, Fork, Form, Http, Intake, Language, Length, ListId, Listen, Match, Next, Outlet, Pattern,
    Process, Program, Raise, Resources, Retry, RunLimits, Runs, Schedule, SchemaId, Step, Subflow, Task,
    TaskId, Try, Until, WorkflowName, Zone,
};
use crate::expression::Compiler;
use crate::run::{COMPENSATE, Digest};

/// What a document asks for and cannot be run yet.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at {pointer} cannot be run yet")]
pub struct Unsupported {
    /// Where, a JSON pointer.
    pub pointer: String,
    /// What.
    pub what: String,
}

/// Why a document is no program yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incomplete {
    /// It asks for what cannot be run.
    Unsupported(Vec<Unsupported>),
    /// It names files that are not at hand, by these addresses.
    Missing(BTreeSet<String>),
}

/// Makes a program of a checked document that names nothing outside of itself.
///
/// # Errors
/// All that it asks for and that cannot be run.
pub fn compile(document: &Document) -> Result<Program, Vec<Unsupported>> {
    compile_with(document, &Resources::default()).map_err(|why| match why {
        Incomplete::Unsupported(all) => all,
        Incomplete::Missing(addresses) => addresses
            .into_iter()
            .map(|address| Unsupported {
                pointer: "/".to_owned(),
                what: format!("what is not read: {address},"),
            })
            .collect(),
    })
}

/// Makes a program of a checked document and of the files that it names.
///
/// # Errors
/// See [`Incomplete`]: which files are missing is known step by step, since files name files.
pub fn compile_with(document: &Document, resources: &Resources) -> Result<Program, Incomplete> {
    let mut text = document.definition.to_string();
    if !resources.is_empty() {
        // Two documents that say the same are two programs when the files that they name do not.
        text.push_str(&serde_json::to_string(resources).unwrap_or_default());
    }
    let mut compiler = Building {
        document: Arc::new(document.clone()),
        resources,
        missing: BTreeSet::new(),
        is_from_network: false,
        expressions: Compiler::new(),
        variables: document.variables(),
        known: HashMap::new(),
        functions: HashMap::new(),
        extensions: Vec::new(),
        foreign: HashMap::new(),
        unsupported: Vec::new(),
        program: Program {
            name: WorkflowName {
                namespace: document.namespace.clone(),
                name: document.name.clone(),
                version: document.version.clone(),
            },
            digest: Digest::of(text.as_bytes()),
            definition: Arc::new(document.definition.clone()),
            foreign: Vec::new(),
            input: Intake::default(),
            output: Outlet::default(),
            timeout: None,
            deadline: None,
            priority: document.options.priority,
            limits: None,
            share: format!("{}/{}", document.namespace, document.name).into(),
            schedule: None,
            schedule_options: document.options.schedule.clone(),
            root: ListId(0),
            tasks: Vec::new(),
            lists: Vec::new(),
            filters: Vec::new(),
            queries: BTreeMap::new(),
            schemas: Vec::new(),
            by_pointer: HashMap::new(),
        },
    };
    compiler.document();
    let Building { unsupported, missing, program, .. } = compiler;
    match (unsupported.is_empty(), missing.is_empty()) {
        (true, true) => Ok(program),
        (true, false) => Err(Incomplete::Missing(missing)),
        (false, _) => Err(Incomplete::Unsupported(unsupported)),
    }
}

struct Building<'r> {
    /// What is compiled now: the workflow, or a function of another file.
    document: Arc<Document>,
    resources: &'r Resources,
    missing: BTreeSet<String>,
    /// Whether what is compiled now came over the network.
    is_from_network: bool,
    expressions: Compiler,
    variables: Vec<String>,
    known: HashMap<Expression, FilterId>,
    /// Functions of the document by name.
    functions: HashMap<String, TaskId>,
    /// What is done around tasks; of an extension's own tasks nothing yet, so that nothing is done around them.
    extensions: Vec<Around>,
    /// Functions of other files by address.
    foreign: HashMap<String, TaskId>,
    unsupported: Vec<Unsupported>,
    program: Program,
}

impl Building<'_> {
    fn document(&mut self) {
        let document = Arc::clone(&self.document);
        self.program.input = self.intake(&document.input, "/input");
        self.program.output = self.outlet(&document.output, "/output");
        self.program.timeout = self.timeout(document.timeout.as_ref());
        self.program.deadline = document.options.deadline.as_ref().map(|deadline| self.length(deadline));
        self.program.limits = self.run_limits(&document.options);
        self.program.schedule = document.schedule.as_ref().and_then(|schedule| self.schedule(schedule));
        for (name, query) in &document.options.queries {
            match self.expressions.filter(query.text(), &self.variables) {
                Ok(filter) => drop(self.program.queries.insert(name.clone(), filter)),
                Err(bad) => self.refuse("/document/metadata/standfast/queries", bad.message),
            }
        }
        self.extensions = self.extensions();
        // Functions that extensions call are not extended; those of tasks are, so they are compiled anew.
        self.functions.clear();
        self.program.root = self.list(&document.tasks, "/do");
    }

    fn run_limits(&mut self, options: &language::WorkflowOptions) -> Option<Box<RunLimits>> {
        let (slots, rate) = (options.concurrency.as_ref(), options.rate.as_ref());
        let limits = RunLimits {
            slots: slots.map(|slots| (slots.limit, self.optional(slots.key.as_ref()))),
            rate: rate.map(|rate| (rate.limit, rate.every.rest, self.optional(rate.key.as_ref()))),
            queue_timeout: options.queue_timeout.as_ref().map(|timeout| self.length(timeout)),
            fairness: self.optional(options.fairness.as_ref()),
        };
        let RunLimits { slots, rate, queue_timeout, fairness } = &limits;
        let is_any = slots.is_some() || rate.is_some() || queue_timeout.is_some() || fairness.is_some();
        is_any.then(|| Box::new(limits))
    }

    fn refuse(&mut self, pointer: &str, what: impl Into<String>) {
        self.unsupported.push(Unsupported { pointer: pointer.to_owned(), what: what.into() });
    }

    /// Tasks of a list; `then` may name those that come later, so all get their numbers first.
    fn list(&mut self, tasks: &[language::Task], pointer: &str) -> ListId {
        let list = ListId(self.program.lists.len() as u32);
        let ids: Vec<TaskId> = tasks.iter().map(|task| self.reserve(task)).collect();
        self.program.lists.push(ids.clone());
        for (at, (task, id)) in tasks.iter().zip(&ids).enumerate() {
            let names: Vec<(&str, TaskId)> =
                tasks.iter().map(|task| task.name.as_str()).zip(ids.iter().copied()).collect();
            let pointer = format!("{pointer}/{at}/{}", escape(&task.name));
            self.task(task, *id, Some((list, at)), &names, &pointer);
        }
        list
    }

    /// A number for a task that is described later.
    fn reserve(&mut self, task: &language::Task) -> TaskId {
        let id = TaskId(self.program.tasks.len() as u32);
        self.program.tasks.push(blank(task.name.as_str().into(), "".into(), Step::Switch(Vec::new())));
        id
    }

    fn task(
        &mut self,
        task: &language::Task,
        id: TaskId,
        place: Option<(ListId, usize)>,
        names: &[(&str, TaskId)],
        pointer: &str,
    ) {
        let step = self.step(task, names, pointer);
        let compensate = self.compensation(task, pointer);
        let mut described = Task {
            name: task.name.as_str().into(),
            pointer: pointer.into(),
            place,
            condition: task.condition.as_ref().map(|condition| self.filter(condition)),
            input: self.intake(&task.input, pointer),
            output: self.outlet(&task.output, pointer),
            export: self.outlet(&task.export, pointer),
            timeout: self.timeout(task.timeout.as_ref()),
            then: next(&task.then, names),
            step,
            key: self.optional(task.options.key.as_ref()),
            human: self.human(task, pointer),
            heartbeat: self.heartbeat(task, pointer),
            compensate,
        };
        let around: Vec<Around> =
            self.extensions.iter().filter(|around| around.extends(&task.kind)).copied().collect();
        if !around.is_empty() {
            described = self.extended(described, &around);
        }
        self.describe(id, described);
    }

    fn heartbeat(&mut self, task: &language::Task, pointer: &str) -> Option<Length> {
        let heartbeat = task.options.heartbeat.as_ref()?;
        let whom = match &task.kind {
            Kind::Run(run) if matches!(run.kind, RunKind::Workflow(_)) => "of a run of another workflow",
            Kind::Run(run) if !run.awaited => "of what is not waited for",
            Kind::Call(call) if matches!(**call, Call::AsyncApi(_)) => "of messages",
            _ => return Some(self.length(heartbeat)),
        };
        self.refuse(pointer, format!("the `heartbeat` {whom}"));
        None
    }

    /// What undoes a task: tasks one after the other, below the task's own place.
    fn compensation(&mut self, task: &language::Task, pointer: &str) -> Option<TaskId> {
        let tasks = &task.options.compensate;
        if tasks.is_empty() {
            return None;
        }
        let pointer = format!("{pointer}{COMPENSATE}");
        let id = self.reserve(task);
        let step = Step::Do(self.list(tasks, &pointer));
        self.describe(id, blank(task.name.as_str().into(), pointer.into(), step));
        Some(id)
    }

    fn describe(&mut self, id: TaskId, described: Task) {
        self.program.by_pointer.insert(Arc::clone(&described.pointer), id);
        self.program.tasks[id.0 as usize] = described;
    }

    fn schedule(&mut self, schedule: &language::Schedule) -> Option<Schedule> {
        Some(match schedule {
            language::Schedule::Every(period) if period.months == 0 && period.rest < EVERY_MIN => {
                self.refuse("/schedule/every", "a schedule of more than one run in a second");
                return None;
            }
            language::Schedule::Every(period) => Schedule::Every(*period),
            language::Schedule::After(period) => Schedule::After(*period),
            language::Schedule::On(events) => Schedule::On(self.events(events)),
            language::Schedule::Cron(fields) => match Cron::parse(fields) {
                Some(cron) => {
                    let named = self.document.options.schedule.time_zone.as_ref();
                    let zone = named.and_then(Zone::named);
                    if named.is_some() != zone.is_some() {
                        self.refuse("/document/metadata/standfast/schedule/timeZone", "this time zone");
                    }
                    Schedule::Cron(cron, zone)
                }
                None => {
                    self.refuse("/schedule/cron", format!("`{fields}`"));
                    return None;
                }
            },
        })
    }

    fn extensions(&mut self) -> Vec<Around> {
        let document = Arc::clone(&self.document);
        let extensions = document.reusable.extensions.iter().enumerate();
        extensions
            .map(|(at, extension)| {
                let pointer = format!("/use/extensions/{at}/{}", escape(&extension.name));
                Around {
                    extend: extension.extend,
                    when: extension.when.as_ref().map(|when| self.filter(when)),
                    before: self.list(&extension.before, &format!("{pointer}/before")),
                    after: self.list(&extension.after, &format!("{pointer}/after")),
                }
            })
            .collect()
    }

    /// A task with all that is done around it, the first extension outermost. Whether it is done at all, and what comes next, is
    /// decided for the whole; its own place stays that of the task itself, so that errors and journals name it as they always do.
    fn extended(&mut self, mut inner: Task, around: &[Around]) -> Task {
        let condition = inner.condition.take();
        let pointer = Arc::clone(&inner.pointer);
        for (number, Around { when, before, after, .. }) in around.iter().enumerate().rev() {
            let id = TaskId(self.program.tasks.len() as u32);
            let step = Step::Extended(Extended { when: *when, before: *before, inner: id, after: *after });
            let around = format!("{pointer}{AROUND}{number}").into();
            let outer =
                Task { place: inner.place, then: inner.then, ..blank(Arc::clone(&inner.name), around, step) };
            let extended = std::mem::replace(&mut inner, outer);
            self.program.by_pointer.insert(Arc::clone(&extended.pointer), id);
            self.program.tasks.push(extended);
        }
        inner.condition = condition;
        inner
    }

    fn step(&mut self, task: &language::Task, names: &[(&str, TaskId)], pointer: &str) -> Step {
        match &task.kind {
            Kind::Do(tasks) => Step::Do(self.list(tasks, &format!("{pointer}/do"))),
            Kind::Set(data) => Step::Set(self.form(data)),
            Kind::Wait(delay) => Step::Wait(self.length(delay)),
            Kind::Switch(switch) => Step::Switch(
                switch
                    .cases
                    .iter()
                    .map(|case| Case {
                        when: case.when.as_ref().map(|when| self.filter(when)),
                        then: next(&case.then, names),
                    })
                    .collect(),
            ),
            Kind::Raise(error) => Step::Raise(self.raise(error)),
            Kind::For(each) => Step::For(For {
                each: each.each.as_str().into(),
                at: each.at.as_str().into(),
                items: self.filter(&each.list),
                condition: each.condition.as_ref().map(|condition| self.filter(condition)),
                list: self.list(&each.tasks, &format!("{pointer}/do")),
                parallel: task.options.parallel,
            }),
            Kind::Fork(fork) => {
                let list = self.list(&fork.branches, &format!("{pointer}/fork/branches"));
                let branches = self.program.list(list).to_vec();
                for branch in &branches {
                    // Nothing comes after a branch in its list: they run side by side.
                    self.program.tasks[branch.0 as usize].place = None;
                }
                Step::Fork(Fork { branches, compete: fork.compete })
            }
            Kind::Try(attempt) => Step::Try(Box::new(Try {
                list: self.list(&attempt.tasks, &format!("{pointer}/try")),
                catch: self.catch(&attempt.catch, &format!("{pointer}/catch")),
            })),
            Kind::Emit(emit) => {
                Step::Emit(emit.with.iter().map(|(name, value)| (name.clone(), self.form(value))).collect())
            }
            Kind::Listen(listen) => Step::Listen(Box::new(self.listen(listen, pointer))),
            Kind::Call(call) => self.call(call, pointer),
            Kind::Run(run) => self.run(run, pointer),
        }
    }

    fn raise(&mut self, error: &Named<language::ErrorDefinition>) -> Raise {
        let document = Arc::clone(&self.document);
        let error = match error {
            Named::Here(error) => error,
            Named::Use(name) => lookup(&document.reusable.errors, name),
        };
        Raise {
            kind: match &error.kind {
                Uri::Template(text) => Form::Value(Arc::new(text.as_str().into())),
                Uri::Expression(expression) => Form::Filter(self.filter(expression)),
            },
            status: error.status,
            title: self.optional(error.title.as_ref()),
            detail: self.optional(error.detail.as_ref()),
            instance: self.optional(error.instance.as_ref()),
        }
    }

    fn catch(&mut self, catch: &language::Catch, pointer: &str) -> Catch {
        let document = Arc::clone(&self.document);
        let retry = catch.retry.as_ref().map(|retry| match retry {
            Named::Here(retry) => retry,
            Named::Use(name) => lookup(&document.reusable.retries, name),
        });
        Catch {
            kind: self.optional(catch.errors.kind.as_ref()),
            status: catch.errors.status,
            instance: self.optional(catch.errors.instance.as_ref()),
            title: self.optional(catch.errors.title.as_ref()),
            detail: self.optional(catch.errors.detail.as_ref()),
            variable: catch.variable.as_str().into(),
            when: catch.when.as_ref().map(|when| self.filter(when)),
            except_when: catch.except_when.as_ref().map(|when| self.filter(when)),
            retry: retry.map(|retry| self.retry(retry)),
            list: (!catch.tasks.is_empty()).then(|| self.list(&catch.tasks, &format!("{pointer}/do"))),
        }
    }

    fn retry(&mut self, retry: &language::Retry) -> Retry {
        let mut length = |delay: &Option<Delay>| delay.as_ref().map(|delay| self.length(delay));
        let (each_max, total_max) = (length(&retry.limit.each), length(&retry.limit.total));
        let delay = length(&retry.delay);
        let backoff = match &retry.backoff {
            language::Backoff::Constant => Backoff::Constant,
            language::Backoff::Linear { increment, max } => {
                Backoff::Linear { increment: length(increment), max: length(max) }
            }
            language::Backoff::Exponential { factor, max } => {
                Backoff::Exponential { factor: *factor, max: length(max) }
            }
        };
        let jitter = retry.jitter.as_ref().map(|jitter| (self.length(&jitter.from), self.length(&jitter.to)));
        Retry {
            when: retry.when.as_ref().map(|when| self.filter(when)),
            except_when: retry.except_when.as_ref().map(|when| self.filter(when)),
            delay,
            backoff,
            attempts_max: retry.limit.count,
            each_max,
            total_max,
            jitter,
        }
    }

    fn listen(&mut self, listen: &language::Listen, pointer: &str) -> Listen {
        let each = listen.for_each.as_ref().map(|each| self.for_each(each, pointer, "foreach/do"));
        Listen { to: self.events(&listen.to), read: listen.read, each, channel: None }
    }

    /// What is done for each event; its tasks stand there below the task.
    fn for_each(&mut self, each: &language::ForEachEvent, pointer: &str, tasks: &str) -> ForEach {
        ForEach {
            item: each.item.as_str().into(),
            at: each.at.as_str().into(),
            list: self.list(&each.tasks, &format!("{pointer}/{tasks}")),
            output: self.outlet(&each.output, pointer),
            export: self.outlet(&each.export, pointer),
        }
    }

    fn events(&mut self, events: &language::Events) -> Events {
        let mut patterns =
            |filters: &[language::EventFilter]| filters.iter().map(|filter| self.pattern(filter)).collect();
        match events {
            language::Events::One(filter) => Events::One(self.pattern(filter)),
            language::Events::All(filters) => Events::All(patterns(filters)),
            language::Events::Any { filters, until } => Events::Any {
                patterns: patterns(filters),
                until: until.as_ref().map(|until| match until {
                    language::Until::Condition(condition) => Until::Condition(self.filter(condition)),
                    language::Until::Events(events) => Until::Events(Box::new(self.events(events))),
                }),
            },
        }
    }

    fn pattern(&mut self, filter: &language::EventFilter) -> Pattern {
        let with = filter.with.iter().map(|(name, value)| {
            let wanted = match value {
                Template::Expression(expression) => Match::Filter(self.filter(expression)),
                Template::Value(value) => Match::Value(Arc::new(value.clone()), regex_of(value)),
                other => Match::Value(Arc::new(as_written(other)), None),
            };
            (name.clone(), wanted)
        });
        let with = with.collect();
        let correlate = filter.correlate.iter().map(|(name, correlation)| {
            let expect = correlation.expect.as_ref().map(|expect| self.form(expect));
            (name.clone(), self.filter(&correlation.from), expect)
        });
        Pattern { with, correlate: correlate.collect() }
    }

    fn call(&mut self, call: &Call, pointer: &str) -> Step {
        match call {
            Call::Http(http) => {
                let (address, access) = self.endpoint(&http.endpoint, pointer);
                Step::Http(Box::new(Http {
                    method: self.form(&http.method),
                    address,
                    access,
                    headers: self.optional(http.headers.as_ref()),
                    query: self.optional(http.query.as_ref()),
                    body: self.optional(http.body.as_ref()),
                    output: http.output,
                    redirect: http.redirect,
                }))
            }
            Call::Function(function) => self.function(function, pointer),
            Call::Grpc(call) => self.grpc(call, pointer).unwrap_or(Step::Switch(Vec::new())),
            Call::OpenApi(call) => self.open_api(call, pointer).unwrap_or(Step::Switch(Vec::new())),
            Call::AsyncApi(call) => self.async_api(call, pointer).unwrap_or(Step::Switch(Vec::new())),
            Call::A2a(call) => self.agent(call, pointer).unwrap_or(Step::Switch(Vec::new())),
            Call::Mcp(call) => self.mcp(call, pointer),
        }
    }

    pub(super) fn cannot(&mut self, pointer: &str, what: &str) -> Step {
        self.refuse(pointer, what);
        Step::Switch(Vec::new())
    }

    /// A function of the document is compiled once, where it is called first.
    fn function(&mut self, function: &language::Function, pointer: &str) -> Step {
        let document = Arc::clone(&self.document);
        let Some(found) = document.reusable.functions.iter().find(|task| task.name == function.name) else {
            return self.foreign(function, pointer);
        };
        let with = self.optional(function.with.as_ref());
        let task = match self.functions.get(&function.name) {
            Some(task) => *task,
            None => {
                let task = self.reserve(found);
                self.functions.insert(function.name.clone(), task);
                self.task(found, task, None, &[], &format!("/use/functions/{}", escape(&function.name)));
                task
            }
        };
        Step::Function { task, with }
    }

    fn run(&mut self, run: &language::Run, pointer: &str) -> Step {
        let result = run.result;
        match &run.kind {
            RunKind::Container(_) => self.cannot(pointer, "a container"),
            RunKind::Workflow(subflow) => Step::Subflow(Box::new(Subflow {
                name: WorkflowName {
                    namespace: subflow.namespace.clone(),
                    name: subflow.name.clone(),
                    version: subflow.version.clone(),
                },
                input: self.optional(subflow.input.as_ref()),
                awaited: run.awaited,
            })),
            RunKind::Shell(shell) => Step::Process(Box::new(Process {
                program: Runs::Shell(self.form(&shell.command)),
                stdin: self.optional(shell.stdin.as_ref()),
                arguments: self.optional(shell.arguments.as_ref()),
                environment: self.optional(shell.environment.as_ref()),
                awaited: run.awaited,
                result,
            })),
            RunKind::Script(script) => {
                let code = match &script.source {
                    ScriptSource::Code(code) => code.as_str().into(),
                    ScriptSource::Resource(resource) => match self.resource(resource, pointer) {
                        Some(code) => code,
                        None => return Step::Switch(Vec::new()),
                    },
                };
                let language = match script.language.as_str() {
                    word if word.starts_with("python") => Language::Python,
                    _ => Language::JavaScript,
                };
                Step::Process(Box::new(Process {
                    program: Runs::Script { language, code },
                    stdin: self.optional(script.stdin.as_ref()),
                    arguments: self.optional(script.arguments.as_ref()),
                    environment: self.optional(script.environment.as_ref()),
                    awaited: run.awaited,
                    result,
                }))
            }
        }
    }

    fn endpoint(&mut self, endpoint: &Endpoint, pointer: &str) -> (Address, Option<Access>) {
        let address = self.address(&endpoint.uri);
        (address, self.access(endpoint.authentication.as_ref(), pointer))
    }

    fn intake(&mut self, input: &language::Input, pointer: &str) -> Intake {
        Intake {
            schema: input.schema.as_ref().and_then(|schema| self.schema(schema, pointer)),
            from: self.optional(input.from.as_ref()),
        }
    }

    fn outlet(&mut self, output: &language::Output, pointer: &str) -> Outlet {
        Outlet {
            schema: output.schema.as_ref().and_then(|schema| self.schema(schema, pointer)),
            filter: self.optional(output.filter.as_ref()),
        }
    }

    fn schema(&mut self, schema: &Schema, pointer: &str) -> Option<SchemaId> {
        if schema.format != "json" && !schema.format.starts_with("json:") {
            self.refuse(pointer, format!("a schema in the format `{}`", schema.format));
            return None;
        }
        let outside;
        let document = match &schema.source {
            SchemaSource::Here(document) => document,
            SchemaSource::Resource(resource) => {
                outside = self.data(resource, pointer)?;
                &outside
            }
        };
        match jsonschema::validator_for(document) {
            Ok(validator) => {
                self.program.schemas.push(Check(validator));
                Some(SchemaId(self.program.schemas.len() as u32 - 1))
            }
            Err(why) => {
                self.refuse(pointer, format!("this schema ({why})"));
                None
            }
        }
    }

    fn timeout(&mut self, timeout: Option<&Named<language::Timeout>>) -> Option<Length> {
        let document = Arc::clone(&self.document);
        let timeout = match timeout? {
            Named::Here(timeout) => timeout,
            Named::Use(name) => lookup(&document.reusable.timeouts, name),
        };
        Some(self.length(&timeout.after))
    }

    fn length(&mut self, delay: &Delay) -> Length {
        match delay {
            Delay::Fixed(period) => Length::Fixed(*period),
            Delay::Computed(expression) => Length::Filter(self.filter(expression)),
        }
    }

    fn optional(&mut self, template: Option<&Template>) -> Option<Form> {
        template.map(|template| self.form(template))
    }

    fn form(&mut self, template: &Template) -> Form {
        match template {
            Template::Value(value) => Form::Value(Arc::new(value.clone())),
            Template::Expression(expression) => Form::Filter(self.filter(expression)),
            Template::List(items) => Form::List(items.iter().map(|item| self.form(item)).collect()),
            Template::Object(fields) => {
                Form::Object(fields.iter().map(|(name, value)| (name.clone(), self.form(value))).collect())
            }
        }
    }

    fn filter(&mut self, expression: &Expression) -> FilterId {
        if let Some(id) = self.known.get(expression) {
            return *id;
        }
        let id = self.filter_of(expression.text());
        self.known.insert(expression.clone(), id);
        id
    }

    fn filter_of(&mut self, text: &str) -> FilterId {
        match self.expressions.filter(text, &self.variables) {
            Ok(filter) => self.program.filters.push(filter),
            // The document was checked; only one that was made otherwise comes here.
            Err(bad) => self.refuse("", format!("the expression `{text}` ({})", bad.message)),
        }
        FilterId(self.program.filters.len().saturating_sub(1) as u32)
    }
}

/// What an extension does around tasks.
#[derive(Debug, Clone, Copy)]
struct Around {
    extend: language::Extended,
    when: Option<FilterId>,
    before: ListId,
    after: ListId,
}

impl Around {
    fn extends(&self, kind: &Kind) -> bool {
        let word = match kind {
            Kind::Do(_) => "do",
            Kind::Fork(_) => "fork",
            Kind::Call(_) => "call",
            Kind::Emit(_) => "emit",
            Kind::For(_) => "for",
            Kind::Listen(_) => "listen",
            Kind::Raise(_) => "raise",
            Kind::Run(_) => "run",
            Kind::Set(_) => "set",
            Kind::Switch(_) => "switch",
            Kind::Try(_) => "try",
            Kind::Wait(_) => "wait",
        };
        match self.extend {
            language::Extended::All => true,
            language::Extended::Composite => matches!(word, "do" | "fork"),
            language::Extended::Kind(wanted) => wanted == word,
        }
    }
}

/// A task of which nothing else is said.
fn blank(name: Arc<str>, pointer: Arc<str>, step: Step) -> Task {
    Task {
        name,
        pointer,
        place: None,
        condition: None,
        input: Intake::default(),
        output: Outlet::default(),
        export: Outlet::default(),
        timeout: None,
        then: Next::Continue,
        step,
        key: None,
        human: None,
        heartbeat: None,
        compensate: None,
    }
}

/// What was found under a name of `use`: the document was checked, so it is there.
fn lookup<'u, T>(definitions: &'u [(String, T)], name: &str) -> &'u T {
    let found = definitions.iter().find(|(known, _)| known == name);
    &found.expect("names of `use` are resolved when a document is checked").1
}

fn next(then: &Then, names: &[(&str, TaskId)]) -> Next {
    match then {
        Then::Continue => Next::Continue,
        Then::Exit => Next::Exit,
        Then::End => Next::End,
        Then::Task(name) => {
            names.iter().find(|(known, _)| known == name).map_or(Next::Continue, |(_, id)| Next::Task(*id))
        }
    }
}

/// The regular expression that a text is: only one that holds what no plain name or address does, so that the dot of
/// `com.example.order` means a dot. It must fit the whole attribute.
fn regex_of(value: &Value) -> Option<regex_lite::Regex> {
    let text = value.as_str().filter(|text| text.contains(['*', '+', '[', '(', '|', '^', '$', '\\']))?;
    regex_lite::Regex::new(&format!("^(?:{text})$")).ok()
}

/// A name as a part of a JSON pointer (RFC 6901).
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// A template that must be a value: expressions in it are texts.
fn as_written(template: &Template) -> Value {
    match template {
        Template::Value(value) => value.clone(),
        Template::Expression(expression) => format!("${{{}}}", expression.text()).into(),
        Template::List(items) => items.iter().map(as_written).collect(),
        Template::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), as_written(value))).collect())
        }
    }
}
