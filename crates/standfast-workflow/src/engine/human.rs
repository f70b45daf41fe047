//! Tasks that a person does: a list of those that are open, written together with what opens and ends them, and their answers.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use standfast_model::Stamp;

use super::refused::check_limits;
use super::{Engine, Refused};
use crate::decide::{ANSWERS, Cause, SIGNAL_TYPE, event_key, mistakes};
use crate::program::{Human, Program, WorkflowName};
use crate::run::{Digest, HumanTask, Run, RunId, ScopeId};

/// Tasks that are looked at for one page; where to go on is told.
const LOOKED_AT_MAX: usize = 5_000;
/// Longest name of who answers, in bytes.
const BY_BYTES_MAX: usize = 200;

/// Which task of which run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskRef {
    /// The run.
    pub run: RunId,
    /// The task, by the number that it has in the run.
    pub scope: ScopeId,
}

/// A text names no task that a person does.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no task: its id is a run's with a number behind it, as `standfast workflow tasks` shows them"
)]
pub struct BadTaskRef(String);

/// A task that a person is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenTask {
    /// Which.
    pub id: TaskRef,
    /// Its place in the document.
    pub task: Arc<str>,
    /// Of which workflow.
    pub workflow: WorkflowName,
    /// What is asked, and of whom.
    #[serde(flatten)]
    pub human: HumanTask,
    /// Since when.
    pub since: Stamp,
    /// When it is given up, if that is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Stamp>,
}

/// Which tasks are meant: those that fit all that is said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TaskFilter {
    /// For these, or for nobody in particular.
    pub group: Option<String>,
    /// Of which workflow, by its name.
    pub workflow: Option<String>,
}

impl TaskRef {
    /// As a key of a store: those of older runs first.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        [&self.run.to_bytes()[..], &self.scope.0.to_be_bytes()].concat()
    }
}

impl fmt::Display for TaskRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.run, self.scope.0)
    }
}

impl FromStr for TaskRef {
    type Err = BadTaskRef;

    fn from_str(text: &str) -> Result<Self, BadTaskRef> {
        let parts = text.rsplit_once('-');
        let found = parts.and_then(|(run, scope)| {
            Some(Self { run: run.parse().ok()?, scope: ScopeId(scope.parse().ok()?) })
        });
        found.ok_or_else(|| BadTaskRef(text.chars().take(100).collect()))
    }
}

impl Serialize for TaskRef {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TaskRef {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

impl TaskFilter {
    fn fits(&self, task: &OpenTask) -> bool {
        let groups = &task.human.groups;
        self.group.as_ref().is_none_or(|group| groups.is_empty() || groups.contains(group))
            && self.workflow.as_ref().is_none_or(|name| task.workflow.name == *name)
    }
}

/// What changes in the list of open tasks when a run becomes another: what is opened, and what is open no more.
pub(super) fn changes(
    before: &Run,
    after: &Run,
    workflow: &WorkflowName,
) -> Vec<(TaskRef, Option<OpenTask>)> {
    let run = after.id;
    let is_open = |id: ScopeId| after.human_tasks().any(|(open, _)| open == id);
    // Of another version of the document it may stand elsewhere.
    let is_as_before = |id: ScopeId, human: &Arc<HumanTask>| {
        before.definition == after.definition
            && before.human_tasks().any(|(open, asked)| open == id && asked == human)
    };
    let opened = after.human_tasks().filter(|(id, human)| !is_as_before(*id, human));
    let opened = opened.filter_map(|(scope, human)| {
        let id = TaskRef { run, scope };
        let scope = after.scopes.get(&scope)?;
        let (task, human) = (Arc::clone(&scope.task), HumanTask::clone(human));
        let open =
            OpenTask { id, task, workflow: workflow.clone(), human, since: scope.at, until: scope.deadline };
        Some((id, Some(open)))
    });
    let over = before.human_tasks().map(|(id, _)| id).filter(|id| !is_open(*id));
    opened.chain(over.map(|scope| (TaskRef { run, scope }, None))).collect()
}

impl Engine {
    /// A page of the open tasks that fit, those of the oldest runs first: at most `limit`, `after` one that was shown before. And
    /// after which to go on; `None` when there are no more.
    ///
    /// # Errors
    /// When they cannot be read.
    pub async fn open_tasks(
        &self,
        filter: &TaskFilter,
        mut after: Option<TaskRef>,
        limit: usize,
    ) -> Result<(Vec<OpenTask>, Option<TaskRef>), Refused> {
        let (mut found, mut looked_at) = (Vec::new(), 0);
        loop {
            let (page, is_last) = self.journal().open_tasks(after).await?;
            for task in page {
                looked_at += 1;
                after = Some(task.id);
                if filter.fits(&task) {
                    found.push(task);
                    if found.len() >= limit {
                        return Ok((found, after));
                    }
                }
            }
            if is_last {
                return Ok((found, None));
            }
            if looked_at >= LOOKED_AT_MAX {
                return Ok((found, after));
            }
        }
    }

    /// An open task, and what its answer must be, if that is said: a JSON Schema.
    ///
    /// # Errors
    /// When it is not open, or cannot be read.
    pub async fn open_task(&self, id: TaskRef) -> Result<(OpenTask, Option<Arc<Value>>), Refused> {
        let task = self.journal().open_task(id).await?.ok_or(Refused::NoTask(id))?;
        let (run, _) = self.look(id.run).await.map_err(|why| gone(why, id))?;
        let program = self.program_of(&run).await?;
        let form = asked(&program, &run, id).and_then(|human| human.form.as_ref());
        Ok((task, form.map(|(form, _)| Arc::clone(form))))
    }

    /// Answers a task; done when that is written. An answer that came before by the same key changes nothing.
    ///
    /// # Errors
    /// See [`Refused`]: it is not open, or the answer is not what is asked for.
    pub async fn answer_task(
        &self,
        id: TaskRef,
        answer: Value,
        by: Option<&str>,
        key: Option<&str>,
    ) -> Result<Run, Refused> {
        self.check_driven()?;
        check_limits("the answer", &answer)?;
        if by.is_some_and(|by| by.is_empty() || by.len() > BY_BYTES_MAX) {
            return Err(Refused::Wrong(format!("who answers is named by 1 to {BY_BYTES_MAX} bytes")));
        }
        let key = key.map_or_else(|| self.new_id().to_string(), str::to_owned);
        let name = |signal: &str| format!("{signal}/{}/{key}", id.scope.0);
        // No signal has this source: none can be taken for an answer.
        let source = format!("/runs/{}/tasks/{}", id.run, id.scope.0);
        let run = match self.look(id.run).await {
            Ok((run, _)) => run,
            Err(Refused::NoRun(_) | Refused::Ended(_)) => self.ended_run(id.run).await?,
            Err(why) => return Err(why),
        };
        let program = self.program_of(&run).await?;
        let Some(human) = asked(&program, &run, id) else {
            // Perhaps by this very answer.
            return if was_answered(&run, &program, &source, name) {
                Ok(run)
            } else {
                Err(Refused::NoTask(id))
            };
        };
        check_form(&program, human, &answer)?;
        let mut event = json!({
            "specversion": "1.0",
            "id": name(&human.signal),
            "source": source,
            "type": format!("{SIGNAL_TYPE}{}", human.signal),
            "subject": id.run.to_string(),
            "time": self.clock().now().to_string(),
            "datacontenttype": "application/json",
            ANSWERS: id.scope.0.to_string(),
            "data": answer,
        });
        if let Some(by) = by {
            event["by"] = by.into();
        }
        let Some(answered) = event_key(&event) else { return Err(Refused::NoTask(id)) };
        let told = self.tell(id.run, Cause::Signal { event: Arc::new(event) }).await;
        let run = told.map_err(|why| gone(why, id))?;
        // Another answer may have come in the same moment.
        if has_come(&run, &answered) { Ok(run) } else { Err(Refused::NoTask(id)) }
    }
}

/// A run that is gone has no open task.
fn gone(why: Refused, id: TaskRef) -> Refused {
    match why {
        Refused::NoRun(_) | Refused::Ended(_) => Refused::NoTask(id),
        why => why,
    }
}

/// What is asked by a task, if it is open.
fn asked<'p>(program: &'p Program, run: &Run, id: TaskRef) -> Option<&'p Human> {
    run.human_tasks().find(|(open, _)| *open == id.scope)?;
    let task = program.find(&run.scopes.get(&id.scope)?.task)?;
    program.task(task).human.as_ref()
}

/// Whether an answer came: it was taken, or is kept.
fn has_come(run: &Run, key: &Digest) -> bool {
    run.has_taken(key, None) || run.signals.iter().any(|signal| signal.key == *key)
}

fn was_answered(run: &Run, program: &Program, source: &str, name: impl Fn(&str) -> String) -> bool {
    program.signals().any(|signal| {
        event_key(&json!({"source": source, "id": name(signal)})).is_some_and(|key| has_come(run, &key))
    })
}

fn check_form(program: &Program, human: &Human, answer: &Value) -> Result<(), Refused> {
    let Some((_, schema)) = &human.form else { return Ok(()) };
    let mistakes = mistakes(program.schema(*schema), answer);
    match mistakes.is_empty() {
        true => Ok(()),
        false => Err(Refused::Wrong(format!("the answer is not what is asked for: {}", mistakes.join("; ")))),
    }
}
