//! Tasks by their names: what stays the same of a place in a document when tasks are inserted before it.

use super::{AROUND, Program, Task, TaskId};
use std::collections::HashMap;

/// A place in a document without the numbers of the lists that lead there: `/do/charge` of `/do/2/charge`. Names of tasks may be
/// numbers and words of the language, so what is a number of a list is told by where it stands.
pub(crate) fn path(pointer: &str) -> String {
    let (pointer, around) = pointer.find(AROUND).map_or((pointer, ""), |at| pointer.split_at(at));
    let parts: Vec<&str> = pointer.split('/').skip(1).collect();
    let mut path = String::with_capacity(pointer.len() + around.len());
    let mut at = 0;
    let take = |path: &mut String, count: usize, at: &mut usize| {
        for part in parts.iter().skip(*at).take(count) {
            path.push('/');
            path.push_str(part);
        }
        *at += count;
    };
    match parts.as_slice() {
        ["use", "functions" | "catalogs", ..] => take(&mut path, 3, &mut at),
        ["use", "extensions", ..] => {
            take(&mut path, 2, &mut at);
            at += 1;
            take(&mut path, 1, &mut at);
        }
        _ => {}
    }
    while at < parts.len() {
        // The words of a list, its number, and the name of a task.
        let words = match &parts[at..] {
            ["catch" | "foreach", "do", ..] | ["fork", "branches", ..] => 2,
            ["metadata", "standfast", "compensate", ..] => 3,
            _ => 1,
        };
        take(&mut path, words, &mut at);
        at += 1;
        take(&mut path, 1, &mut at);
    }
    path.push_str(around);
    path
}

/// The tasks of a program by their [`path`].
pub(crate) struct Paths<'p> {
    program: &'p Program,
    tasks: HashMap<String, TaskId>,
}

impl<'p> Paths<'p> {
    pub(crate) fn of(program: &'p Program) -> Self {
        let tasks = program.tasks.iter().map(|task| &task.pointer);
        let tasks = tasks.filter_map(|pointer| Some((path(pointer), program.find(pointer)?)));
        Self { program, tasks: tasks.collect() }
    }

    /// The task that stands where one of another program does, by names.
    pub(crate) fn find(&self, pointer: &str) -> Option<(TaskId, &'p Task)> {
        self.tasks.get(&path(pointer)).map(|id| (*id, self.program.task(*id)))
    }
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn a_path_has_all_names_and_no_number_of_a_list() {
        let cases = [
            ("/do/0/a", "/do/a"),
            ("/do/3/do/do/1/0", "/do/do/do/0"),
            ("/do/0/t/try/2/b/catch/do/0/c", "/do/t/try/b/catch/do/c"),
            ("/do/1/catch/do/0/do", "/do/catch/do/do"),
            ("/do/1/f/fork/branches/0/x/do/4/y", "/do/f/fork/branches/x/do/y"),
            ("/do/1/l/foreach/do/0/x", "/do/l/foreach/do/x"),
            ("/do/1/a/metadata/standfast/compensate", "/do/a/metadata/standfast/compensate"),
            ("/do/1/a/metadata/standfast/compensate/0/b", "/do/a/metadata/standfast/compensate/b"),
            ("/use/functions/pay/do/1/x", "/use/functions/pay/do/x"),
            ("/use/catalogs/f:1.0.0@c~1d/do/1/x", "/use/catalogs/f:1.0.0@c~1d/do/x"),
            ("/use/extensions/2/log/before/0/x/do/1/y", "/use/extensions/log/before/x/do/y"),
            ("/do/1/a/~around0", "/do/a/~around0"),
            ("", ""),
        ];
        for (pointer, expected) in cases {
            assert_eq!(path(pointer), expected);
        }
    }
}
