use serde_json::{Value, json};

use super::compose;
use crate::shape::{
    Context, Fields, Flag, FromText, Keyed, Kinds, List, Loose, Object, Shape, Text, TextKeys, or_variable,
};
use crate::source::{At, Span};
use crate::yaml::Node;

/// Longest path of a file, in bytes.
const PATH_BYTES_MAX: usize = 4_096;

/// What the name of a variable is made of: the system takes all but `=` and NUL; blanks are mistakes.
const VARIABLE_PATTERN: &str = r"^[^\s=\u0000]+$";

/// A variable for the replicas. Without a value it is passed on from the caller's environment, as in Compose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Variable {
    pub(crate) name: String,
    pub(crate) value: Option<String>,
    pub(crate) span: Span,
}

/// A file of variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EnvFile {
    pub(crate) path: At<String>,
    pub(crate) required: bool,
}

/// `environment`: a mapping, or a list of `NAME=value`.
pub(crate) fn environment() -> impl Shape<Value = Vec<Variable>> {
    let keys = TextKeys { what: "a variable's name", pattern: VARIABLE_PATTERN, matches: is_variable };
    Kinds::new("a mapping or a list of `NAME=value`")
        .mapping(Keyed { keys, item: VariableValue, min: 0 }.and_then(|pairs, _, _| {
            let variable = |(name, value): (At<String>, Option<Option<String>>)| {
                Some(Variable { name: name.value, value: value?, span: name.span })
            };
            Some(pairs.into_iter().filter_map(variable).collect())
        }))
        .list(List { item: Assignment.at(), min: 0 }.and_then(
            |items: Vec<At<(String, Option<String>)>>, _, _| {
                let variable = |At { value: (name, value), span }| Variable { name, value, span };
                Some(items.into_iter().map(variable).collect())
            },
        ))
}

pub(crate) fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(|c: char| c == '=' || c == '\0' || c.is_whitespace())
}

/// Any scalar; null passes the variable on.
struct VariableValue;

impl Shape for VariableValue {
    type Value = Option<String>;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Option<String>> {
        if node.is_null() {
            return Some(None);
        }
        Loose { what: "a text, a number or a truth value" }.decode(node, cx).map(Some)
    }

    fn schema(&self) -> Value {
        json!({"type": ["string", "number", "boolean", "null"]})
    }
}

/// `NAME=value` or `NAME`.
struct Assignment;

impl FromText for Assignment {
    type Value = (String, Option<String>);

    fn parse(&self, text: &str) -> Result<Self::Value, Option<String>> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if is_variable(name) { Ok((name.to_owned(), value)) } else { Err(None) }
    }

    fn expected(&self) -> String {
        "`NAME=value` or `NAME`".to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"type": "string", "pattern": or_variable(r"^[^\s=\u0000]+(=|$)")})
    }
}

/// `env_file`: a path, or a list of paths and mappings.
pub(crate) fn env_files() -> impl Shape<Value = Vec<EnvFile>> {
    let one = || path().and_then(|path, _, _| Some(EnvFile { path, required: true }));
    let entry = Kinds::new("a path or a mapping with `path`").text(one()).mapping(ENV_FILE);
    Kinds::new("a path, a mapping with `path`, or a list of these")
        .text(one().and_then(|file, _, _| Some(vec![file])))
        .mapping(ENV_FILE.and_then(|file, _, _| Some(vec![file])))
        .list(List { item: entry, min: 0 })
}

const ENV_FILE: Object<EnvFile> = Object { doc: "A file of variables.", read: env_file };

fn env_file(f: &mut Fields<'_, '_>) -> Option<EnvFile> {
    let path = f.required("path", "The file, from the stack's folder.", path());
    let required = f.or("required", "Whether it is an error that the file is absent.", Flag, true);
    f.refused(compose::ENV_FILE_REFUSED);
    Some(EnvFile { path: path?, required })
}

/// A path, from the stack's folder.
pub(crate) fn path() -> impl Shape<Value = At<String>> {
    Text { what: "a path", bytes_max: PATH_BYTES_MAX }.at()
}
