//! `for`: tasks for each item of a list, one after the other.

use super::{Kind, TASKS, Task, object};
use crate::shape::{Fields, Object};
use crate::workflow::value::{Condition, Expression, NAME};

/// Tasks for each item of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct For {
    /// The item's variable; `item` by default.
    pub each: String,
    /// Yields the list.
    pub list: Expression,
    /// The variable of the item's number; `index` by default.
    pub at: String,
    /// It ends before the first item for which this does not yield true.
    pub condition: Option<Expression>,
    /// The tasks.
    pub tasks: Vec<Task>,
}

pub(super) fn read(f: &mut Fields<'_, '_>) -> Option<Kind> {
    const FOR: Object<(String, Expression, String)> = object("A list and its variables.", |f| {
        let each = f.or("each", "The item's variable.", NAME, "item".to_owned());
        let list = f.required("in", "Yields the list.", Condition);
        let at = f.or("at", "The variable of the item's number.", NAME, "index".to_owned());
        Some((each, list?, at))
    });
    let head = f.required("for", "A list and its variables.", FOR);
    let (each, at) = head.as_ref().map_or(("item", "index"), |(each, _, at)| (each, at));
    let (condition, tasks) = f.naming(&[each, at], |f| {
        let condition = f.optional("while", "As long as this yields true.", Condition);
        (condition, f.required("do", "The tasks.", TASKS))
    });
    let (each, list, at) = head?;
    Some(Kind::For(Box::new(For { each, list, at, condition, tasks: tasks? })))
}
