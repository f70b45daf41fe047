//! What an expression sees, and what becomes of data on its way through a task.

use std::sync::Arc;

use serde_json::{Map, Value, json};
use standfast_model::Stamp;

use super::{Deciding, VALUE_BYTES_MAX};
use crate::expression::{Evaluator, Filter};
use crate::program::{FilterId, Form, Intake, Outlet, Program, SchemaId, Step, Task};
use crate::run::{Phase, Problem, Run, Scope, ScopeId, Standard, State};
use crate::secrets::Secrets;

/// Most of an expression that a problem shows, in characters.
const EXCERPT_MAX: usize = 80;
/// Most mistakes of data that one problem tells.
const MISTAKES_MAX: usize = 8;

/// What is the same for all decisions about runs of one program.
#[derive(Debug, Clone, Copy)]
pub struct World<'w> {
    /// What is run.
    pub program: &'w Program,
    /// Where expressions are evaluated.
    pub evaluator: &'w Evaluator,
    /// What `$secrets` is.
    pub secrets: &'w Secrets,
    /// What `$runtime` is.
    pub runtime: &'w Value,
    /// Most events in a run's life, so that an endless loop ends.
    pub steps_max: u64,
}

/// From where an expression looks.
#[derive(Clone)]
pub(crate) struct Sight<'a> {
    /// The scope that holds the task; `None` for the workflow's own expressions.
    holder: Option<ScopeId>,
    task: Option<&'a Task>,
    raw: Arc<Value>,
    pub(crate) input: Option<Arc<Value>>,
    raw_output: Option<Arc<Value>>,
    output: Option<Arc<Value>>,
    at: Stamp,
    /// Variables besides those of the scopes around.
    pub(crate) extra: Vec<(&'a str, Value)>,
}

impl<'a> Sight<'a> {
    pub(crate) fn of_workflow(input: &Arc<Value>) -> Self {
        Self {
            holder: None,
            task: None,
            raw: Arc::clone(input),
            input: None,
            raw_output: None,
            output: None,
            at: Stamp::EPOCH,
            extra: Vec::new(),
        }
    }

    /// Of a task that is about to begin.
    pub(crate) fn of_task(holder: ScopeId, task: &'a Task, raw: &Arc<Value>, at: Stamp) -> Self {
        Self { holder: Some(holder), task: Some(task), at, ..Self::of_workflow(raw) }
    }

    /// Of a task that was begun.
    pub(crate) fn of_scope(holder: ScopeId, task: &'a Task, scope: &Scope) -> Self {
        let input = Some(Arc::clone(&scope.input));
        Self { input, ..Self::of_task(holder, task, &scope.raw, scope.at) }
    }
}

/// What evaluates expressions about a run, while a decision is made or a request is written.
pub(crate) struct Seeing<'s> {
    pub(crate) world: &'s World<'s>,
    pub(crate) run: &'s Run,
    pub(crate) now: Stamp,
    /// Whether what expressions yield is kept with the run; else it is sent.
    pub(crate) is_kept: bool,
}

impl<'s> Seeing<'s> {
    /// What an expression yields.
    pub(crate) fn value(&self, id: FilterId, dot: &Value, sight: &Sight<'_>) -> Result<Value, Problem> {
        self.ask(self.world.program.filter(id), dot, sight)
    }

    /// The same of an expression that is no part of what runs do.
    pub(crate) fn ask(&self, filter: &Filter, dot: &Value, sight: &Sight<'_>) -> Result<Value, Problem> {
        let secrets = filter.variables().iter().any(|name| name == "secrets").then_some(self.world.secrets);
        if secrets.is_some() {
            self.check_secrets(filter.text())?;
        }
        let values: Vec<Arc<Value>> =
            filter.variables().iter().map(|name| self.variable(name, sight)).collect();
        let values: Vec<&Value> = values.iter().map(AsRef::as_ref).collect();
        let excerpt = || filter.text().chars().take(EXCERPT_MAX).collect::<String>();
        let yielded = self.world.evaluator.evaluate(filter, dot, &values, self.now).map_err(|why| {
            let why = standfast_runtime::with_causes(&why);
            let why = secrets.map_or_else(|| why.as_str().into(), |secrets| secrets.without_in_text(&why));
            Standard::Expression.problem(format!("`{}`: {why}", excerpt()))
        })?;
        match secrets.filter(|_| self.is_kept).and_then(|secrets| secrets.found_in(&yielded)) {
            Some(name) => Err(kept_secret(name, &format!("what `{}` yields", excerpt()))),
            None => Ok(yielded),
        }
    }

    /// Whether an expression yields true, or anything but false and null.
    pub(crate) fn holds(&self, id: FilterId, dot: &Value, sight: &Sight<'_>) -> Result<bool, Problem> {
        Ok(!matches!(self.value(id, dot, sight)?, Value::Null | Value::Bool(false)))
    }

    /// A value with its computed parts.
    pub(crate) fn fill(
        &self,
        form: &Form,
        dot: &Arc<Value>,
        sight: &Sight<'_>,
    ) -> Result<Arc<Value>, Problem> {
        match form {
            Form::Value(value) => Ok(Arc::clone(value)),
            // What passes data through gives the same data, not a copy.
            Form::Filter(id) if self.world.program.filter(*id).text().trim() == "." => Ok(Arc::clone(dot)),
            Form::Filter(id) => self.value(*id, dot, sight).map(Arc::new),
            Form::List(items) => {
                let items = items.iter().map(|item| Ok(Value::clone(&*self.fill(item, dot, sight)?)));
                Ok(Arc::new(Value::Array(items.collect::<Result<_, Problem>>()?)))
            }
            Form::Object(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, form)| Ok((name.clone(), Value::clone(&*self.fill(form, dot, sight)?))));
                Ok(Arc::new(Value::Object(fields.collect::<Result<Map<_, _>, Problem>>()?)))
            }
        }
    }

    /// A text with its computed parts; a number or a truth value is what it is written as.
    pub(crate) fn text(&self, form: &Form, dot: &Arc<Value>, sight: &Sight<'_>) -> Result<String, Problem> {
        let value = self.fill(form, dot, sight)?;
        as_text(&value).ok_or_else(|| {
            let found = kind_of(&value);
            Standard::Expression.problem(format!("a text is needed, an expression yields {found}"))
        })
    }

    fn variable(&self, name: &str, sight: &Sight<'_>) -> Arc<Value> {
        let null = Arc::default;
        match name {
            "context" => Arc::clone(&self.run.context),
            "input" => sight.input.clone().unwrap_or_else(null),
            "output" => sight.output.clone().unwrap_or_else(null),
            "secrets" => Arc::clone(self.world.secrets.value()),
            "runtime" => Arc::new(self.world.runtime.clone()),
            "workflow" => Arc::new(self.workflow(sight)),
            "task" => Arc::new(self.task(sight)),
            "authorization" => Arc::new(self.authorization(sight)),
            _ => {
                if let Some((_, value)) = sight.extra.iter().find(|(known, _)| *known == name) {
                    return Arc::new(value.clone());
                }
                let holders = sight.holder.map(|holder| self.run.holders(holder));
                let mut found =
                    holders.into_iter().flatten().filter_map(|(_, scope)| self.named(scope, name));
                found.next().unwrap_or_else(null)
            }
        }
    }

    /// Whether there are the secrets that an expression names, of those that the document counts on.
    fn check_secrets(&self, text: &str) -> Result<(), Problem> {
        let counted_on = self.world.program.part("/use/secrets").as_array().into_iter().flatten();
        let mut named = counted_on.filter_map(Value::as_str).filter(|name| text.contains(*name));
        match named.find(|name| !self.world.secrets.has(name)) {
            Some(name) => Err(Standard::Authorization.problem(format!("there is no secret `{name}` here"))),
            None => Ok(()),
        }
    }

    /// As whom a task calls: the scheme alone. What it is let in by would get into the journal with whatever is made of it.
    fn authorization(&self, sight: &Sight<'_>) -> Value {
        let Some(task) = sight.task else { return Value::Null };
        let known = |access: &'s Value| match access.get("use").and_then(Value::as_str) {
            Some(name) => self.world.program.part("/use/authentications").get(name).unwrap_or(&Value::Null),
            None => access,
        };
        let with = format!("{}/with", task.reference());
        let places = [format!("{with}/endpoint/authentication"), format!("{with}/authentication")];
        let access = places.iter().map(|place| known(self.world.program.part(place)));
        let schemes = [
            ("basic", "Basic"),
            ("bearer", "Bearer"),
            ("digest", "Digest"),
            ("oauth2", "Bearer"),
            ("oidc", "Bearer"),
        ];
        let scheme = access.into_iter().find_map(|access| {
            schemes.iter().find(|(word, _)| access.get(*word).is_some()).map(|(_, scheme)| *scheme)
        });
        scheme.map_or(Value::Null, |scheme| json!({"scheme": scheme}))
    }

    /// What a scope calls by this name.
    fn named(&self, scope: &Scope, name: &str) -> Option<Arc<Value>> {
        let program = self.world.program;
        let step = &program.task(program.find(&scope.task)?).step;
        match (&scope.state, step) {
            (State::Loop { items, index }, Step::For(each)) => {
                if *each.each == *name {
                    return items.get(*index).cloned().map(Arc::new);
                }
                (*each.at == *name).then(|| Arc::new(Value::from(*index)))
            }
            (State::Round, Step::For(each)) => {
                let State::Join { items, .. } = &self.run.scopes.get(&scope.parent?)?.state else {
                    return None;
                };
                if *each.each == *name {
                    return items.get(scope.ordinal as usize).cloned().map(Arc::new);
                }
                (*each.at == *name).then(|| Arc::new(Value::from(scope.ordinal)))
            }
            (State::Catching { problem }, Step::Try(attempt)) => {
                (*attempt.catch.variable == *name).then(|| Arc::clone(problem))
            }
            (State::Listening(listening) | State::Receiving(listening), Step::Listen(listen)) => {
                let each = listen.each.as_ref()?;
                if *each.item == *name {
                    return listening.queued.first().cloned();
                }
                (*each.at == *name).then(|| Arc::new(Value::from(listening.index)))
            }
            _ => None,
        }
    }

    fn workflow(&self, sight: &Sight<'_>) -> Value {
        let is_started = self.run.started_at != Stamp::EPOCH;
        // Before it is started, what it is given is all that there is.
        let input = if is_started { &self.run.input } else { &sight.raw };
        json!({
            "id": self.run.id.to_string(),
            "definition": *self.world.program.definition,
            "input": **input,
            "startedAt": date(if is_started { self.run.started_at } else { self.now }),
        })
    }

    fn task(&self, sight: &Sight<'_>) -> Value {
        // What an extension does is about the task around which it is done.
        let around = sight.holder.and_then(|holder| self.extended(holder));
        let (task, raw, at, output) = match around {
            Some((task, scope, output)) => (task, &scope.raw, scope.at, output),
            None => match sight.task {
                Some(task) => (task, &sight.raw, sight.at, sight.raw_output.as_ref()),
                None => return Value::Null,
            },
        };
        let definition = self.world.program.part(task.reference());
        let mut value = json!({
            "name": &*task.name,
            "reference": task.reference(),
            "definition": definition,
            "input": **raw,
            "startedAt": date(at),
        });
        if let Some(output) = output {
            value["output"] = Value::clone(output);
        }
        // The language's own examples of `when` write `$task.call`, not `$task.definition.call`.
        if let (Step::Extended(_), Value::Object(fields), Value::Object(known)) =
            (&task.step, definition, &mut value)
        {
            for (name, field) in fields {
                known.entry(name.as_str()).or_insert_with(|| field.clone());
            }
        }
        value
    }

    /// The task around which something is done, if this scope is a part of that.
    fn extended(&self, holder: ScopeId) -> Option<(&'s Task, &'s Scope, Option<&'s Arc<Value>>)> {
        let (_, scope) = self.run.holders(holder).find(|(_, scope)| {
            matches!(scope.state, State::Extended { phase: Phase::Before | Phase::After, .. })
        })?;
        let State::Extended { output, .. } = &scope.state else { return None };
        let program = self.world.program;
        Some((program.task(program.find(&scope.task)?), scope, output.as_ref()))
    }

    fn check(&self, schema: SchemaId, value: &Value, what: &str) -> Result<(), Problem> {
        let mistakes = self.world.program.schema(schema).iter_errors(value).take(MISTAKES_MAX);
        let mistakes: Vec<String> = mistakes
            .map(|mistake| match mistake.instance_path().to_string().as_str() {
                "" => mistake.to_string(),
                path => format!("{path}: {mistake}"),
            })
            .collect();
        if mistakes.is_empty() {
            return Ok(());
        }
        let detail = format!("{what} is not as its schema wants it: {}", mistakes.join("; "));
        Err(Standard::Validation.problem(detail))
    }

    /// What a task sees of what it is given.
    pub(crate) fn take_in(
        &self,
        intake: &Intake,
        raw: &Arc<Value>,
        sight: &Sight<'_>,
    ) -> Result<Arc<Value>, Problem> {
        if let Some(schema) = intake.schema {
            self.check(schema, raw, "the input")?;
        }
        let Some(from) = &intake.from else { return Ok(Arc::clone(raw)) };
        let taken = self.fill(from, raw, sight)?;
        within_limits("the input", &taken)?;
        Ok(taken)
    }

    /// What a task yields of what it did, and the context that it leaves, if that is another one.
    pub(crate) fn put_out(
        &self,
        output: &Outlet,
        export: &Outlet,
        raw: Arc<Value>,
        sight: &mut Sight<'_>,
    ) -> Result<(Arc<Value>, Option<Arc<Value>>), Problem> {
        sight.raw_output = Some(Arc::clone(&raw));
        let yielded = match &output.filter {
            Some(filter) => self.fill(filter, &raw, sight)?,
            None => raw,
        };
        within_limits("the output", &yielded)?;
        if let Some(schema) = output.schema {
            self.check(schema, &yielded, "the output")?;
        }
        sight.output = Some(Arc::clone(&yielded));
        let Some(filter) = &export.filter else {
            // Without `as` the context stays, and must be as its schema wants it all the same.
            if let Some(schema) = export.schema {
                self.check(schema, &self.run.context, "the context")?;
            }
            return Ok((yielded, None));
        };
        let context = self.fill(filter, &yielded, sight)?;
        within_limits("the context", &context)?;
        if let Some(schema) = export.schema {
            self.check(schema, &context, "the context")?;
        }
        Ok((yielded, (context != self.run.context).then_some(context)))
    }
}

/// The same while a decision is made.
impl Deciding<'_> {
    pub(crate) fn seeing(&self) -> Seeing<'_> {
        Seeing { world: self.world, run: &self.run, now: self.now, is_kept: true }
    }

    pub(crate) fn value(&self, id: FilterId, dot: &Value, sight: &Sight<'_>) -> Result<Value, Problem> {
        self.seeing().value(id, dot, sight)
    }

    pub(crate) fn holds(&self, id: FilterId, dot: &Value, sight: &Sight<'_>) -> Result<bool, Problem> {
        self.seeing().holds(id, dot, sight)
    }

    pub(crate) fn fill(
        &self,
        form: &Form,
        dot: &Arc<Value>,
        sight: &Sight<'_>,
    ) -> Result<Arc<Value>, Problem> {
        self.seeing().fill(form, dot, sight)
    }

    pub(crate) fn text(&self, form: &Form, dot: &Arc<Value>, sight: &Sight<'_>) -> Result<String, Problem> {
        self.seeing().text(form, dot, sight)
    }

    pub(crate) fn take_in(
        &self,
        intake: &Intake,
        raw: &Arc<Value>,
        sight: &Sight<'_>,
    ) -> Result<Arc<Value>, Problem> {
        self.seeing().take_in(intake, raw, sight)
    }

    pub(crate) fn put_out(
        &self,
        output: &Outlet,
        export: &Outlet,
        raw: Arc<Value>,
        sight: &mut Sight<'_>,
    ) -> Result<(Arc<Value>, Option<Arc<Value>>), Problem> {
        self.seeing().put_out(output, export, raw, sight)
    }
}

/// Why a secret's value is not kept with a run.
pub(crate) fn kept_secret(name: &str, what: &str) -> Problem {
    let detail = format!(
        "{what} holds the secret `{name}` and would be kept with the run: read it where it is sent, in the `with` of a call or in \
         `use.authentications`"
    );
    Standard::Authorization.problem(detail)
}

/// A moment as the language describes it.
fn date(at: Stamp) -> Value {
    json!({
        "iso8601": at.to_string(),
        "epoch": {"seconds": at.as_millis() / 1_000, "milliseconds": at.as_millis()},
    })
}

/// Most values within each other: what is deeper could be written to a journal and not be read back, since JSON's reader follows
/// 128, of which records and runs need some for themselves.
const VALUE_DEPTH_MAX: usize = 100;

/// How a value is more than a run may hold, if it is.
pub(crate) fn over_limits(value: &Value) -> Option<String> {
    if is_deeper(value, VALUE_DEPTH_MAX) {
        return Some(format!("nests deeper than {VALUE_DEPTH_MAX}"));
    }
    (size_of(value) > VALUE_BYTES_MAX).then(|| format!("is larger than {} KiB", VALUE_BYTES_MAX >> 10))
}

pub(super) fn within_limits(what: &str, value: &Value) -> Result<(), Problem> {
    match over_limits(value) {
        Some(found) => Err(Standard::Validation.problem(format!("{what} {found}"))),
        None => Ok(()),
    }
}

fn is_deeper(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(items) => depth == 0 || items.iter().any(|item| is_deeper(item, depth - 1)),
        Value::Object(fields) => depth == 0 || fields.values().any(|value| is_deeper(value, depth - 1)),
        _ => false,
    }
}

/// About how many bytes a value takes as JSON.
pub(crate) fn size_of(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|item| size_of(item) + 1).sum::<usize>() + 2,
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| name.len() + size_of(value) + 4).sum::<usize>() + 2
        }
    }
}

/// What a value is, for people.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value that can stand for a text.
pub(crate) fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}
