//! What must be the same of tasks that are done again by another attempt: which there are and in which order, since that names
//! their effects. What they are given and what they send may differ.

use std::collections::BTreeSet;
use std::mem::discriminant;
use std::sync::Arc;

use super::{AROUND, ListId, Next, Program, Step, Task, TaskId};

/// Compares tasks of two programs.
pub(crate) struct Shapes<'p> {
    before: &'p Program,
    after: &'p Program,
    /// Functions that are being compared or were: they may call each other.
    functions: BTreeSet<TaskId>,
}

/// The first task that differs, by its place in the first program, and how.
pub(crate) type Differs = (Arc<str>, String);

impl<'p> Shapes<'p> {
    pub(crate) fn new(before: &'p Program, after: &'p Program) -> Self {
        Self { before, after, functions: BTreeSet::new() }
    }

    /// A list must have the tasks of the other, in their order; more may follow.
    pub(crate) fn list(&mut self, before: ListId, after: ListId) -> Result<(), Differs> {
        let now = self.after.list(after);
        for (at, id) in self.before.list(before).iter().enumerate() {
            let task = self.before.task(*id);
            let Some(other) = now.get(at) else {
                return Err((place(task), "is gone".to_owned()));
            };
            self.task(task, self.after.task(*other))?;
        }
        Ok(())
    }

    fn task(&mut self, before: &Task, after: &Task) -> Result<(), Differs> {
        let differs = |how: String| Err((place(before), how));
        if before.name != after.name {
            return differs(format!("is `{}` there", after.name));
        }
        if discriminant(&before.step) != discriminant(&after.step) {
            return differs(format!("is `{}` there, not `{}`", after.step.word(), before.step.word()));
        }
        if !self.leads_the_same(before.then, after.then) {
            return differs("leads elsewhere (`then`)".to_owned());
        }
        let key = |program: &Program, task: &Task| {
            program.part(&format!("{}/metadata/standfast/key", task.reference())).clone()
        };
        if key(self.before, before) != key(self.after, after) {
            return differs("has another `key`".to_owned());
        }
        match (&before.step, &after.step) {
            (Step::Do(one), Step::Do(other)) => self.list(*one, *other),
            (Step::For(one), Step::For(other)) if one.parallel.is_some() != other.parallel.is_some() => {
                differs("has its rounds side by side in one of the two".to_owned())
            }
            (Step::For(one), Step::For(other)) => self.list(one.list, other.list),
            (Step::Fork(one), Step::Fork(other)) => {
                if one.branches.len() != other.branches.len() || one.compete != other.compete {
                    return differs("has other branches".to_owned());
                }
                for (one, other) in one.branches.iter().zip(&other.branches) {
                    self.task(self.before.task(*one), self.after.task(*other))?;
                }
                Ok(())
            }
            (Step::Try(one), Step::Try(other)) => {
                self.list(one.list, other.list)?;
                self.lists(before, one.catch.list, other.catch.list)
            }
            (Step::Listen(one), Step::Listen(other)) => {
                let list = |listen: &super::Listen| listen.each.as_ref().map(|each| each.list);
                self.lists(before, list(one), list(other))
            }
            (Step::Switch(one), Step::Switch(other)) => {
                let same = one.len() == other.len()
                    && one.iter().zip(other).all(|(one, other)| self.leads_the_same(one.then, other.then));
                if same { Ok(()) } else { differs("has cases that lead elsewhere".to_owned()) }
            }
            (Step::Subflow(one), Step::Subflow(other)) => {
                let same = one.name.namespace == other.name.namespace && one.name.name == other.name.name;
                if same { Ok(()) } else { differs("runs another workflow".to_owned()) }
            }
            (Step::Function { task: one, .. }, Step::Function { task: other, .. }) => {
                self.function(before, *one, *other)
            }
            (Step::Extended(one), Step::Extended(other)) => {
                self.extension(before, one.before, other.before)?;
                self.extension(before, one.after, other.after)?;
                self.task(self.before.task(one.inner), self.after.task(other.inner))
            }
            _ => Ok(()),
        }
    }

    fn lists(&mut self, of: &Task, before: Option<ListId>, after: Option<ListId>) -> Result<(), Differs> {
        match (before, after) {
            (Some(before), Some(after)) => self.list(before, after),
            (None, _) => Ok(()),
            (Some(_), None) => Err((place(of), "does nothing there".to_owned())),
        }
    }

    /// What a function does is named by the function alone, wherever it is called.
    fn function(&mut self, of: &Task, before: TaskId, after: TaskId) -> Result<(), Differs> {
        let (one, other) = (self.before.task(before), self.after.task(after));
        if one.reference() != other.reference() {
            return Err((place(of), "calls another function".to_owned()));
        }
        if self.functions.insert(before) { self.task(one, other) } else { Ok(()) }
    }

    /// What an extension does is named by its own place.
    fn extension(&mut self, of: &Task, before: ListId, after: ListId) -> Result<(), Differs> {
        let pointers = |program: &Program, list| -> Vec<Arc<str>> {
            let tasks = program.list(list).iter();
            tasks.map(|id| Arc::from(program.task(*id).reference())).collect()
        };
        let (one, other) = (pointers(self.before, before), pointers(self.after, after));
        if !other.starts_with(&one) {
            return Err((place(of), "is extended by something else".to_owned()));
        }
        self.list(before, after)
    }

    fn leads_the_same(&self, before: Next, after: Next) -> bool {
        match (before, after) {
            (Next::Task(one), Next::Task(other)) => self.before.task(one).name == self.after.task(other).name,
            (one, other) => one == other,
        }
    }
}

fn place(task: &Task) -> Arc<str> {
    if task.pointer.contains(AROUND) { task.reference().into() } else { Arc::clone(&task.pointer) }
}
