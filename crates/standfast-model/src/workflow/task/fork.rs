//! `fork`: tasks side by side.

use super::{Kind, TASKS, Task, object};
use crate::shape::{Fields, Flag, Object};

/// Tasks side by side.
#[derive(Debug, Clone, PartialEq)]
pub struct Fork {
    /// The tasks.
    pub branches: Vec<Task>,
    /// Whether the first that ends is all that counts; the others are cancelled.
    pub compete: bool,
}

pub(super) fn read(f: &mut Fields<'_, '_>) -> Option<Kind> {
    const FORK: Object<Fork> = object("Tasks side by side.", |f| {
        let branches = f.required("branches", "The tasks.", TASKS);
        let compete = f.or("compete", "Whether the first that ends is all that counts.", Flag, false);
        Some(Fork { branches: branches?, compete })
    });
    Some(Kind::Fork(f.required("fork", "Tasks side by side.", FORK)?))
}
