//! What stands outside of the document: files, and functions of catalogs.

use std::sync::Arc;

use serde_json::Value;
use standfast_model::workflow::{self as language, Resource, Uri};

use super::{Building, escape};
use crate::expression::Compiler;
use crate::program::resources::{address_of, function_at, function_of};
use crate::program::{BuiltIn, BuiltInFunction, Step, TaskId};

/// Where functions of the catalog `default` are, unless the document says otherwise.
const DEFAULT_CATALOG: &str = "file://.";
/// What names of functions of ours begin with.
const OURS: &str = "standfast.";
/// Functions of ours, as they are called.
const BUILT_IN: [(&str, BuiltInFunction); 3] = [
    ("standfast.kv:1.0.0@default", BuiltInFunction::Values),
    ("standfast.lock:1.0.0@default", BuiltInFunction::Lock),
    ("standfast.unlock:1.0.0@default", BuiltInFunction::Unlock),
];

impl Building<'_> {
    /// The text of a file; `None` when it is not at hand, or cannot be had, and that was noted.
    pub(super) fn resource(&mut self, resource: &Resource, pointer: &str) -> Option<Arc<str>> {
        if resource.endpoint.authentication.is_some() {
            self.refuse(pointer, "a file that is only given to who says who he is");
            return None;
        }
        let address = match &resource.endpoint.uri {
            Uri::Template(text) if !text.contains('{') => address_of(text),
            _ => {
                self.refuse(pointer, "a file at an address that is computed");
                return None;
            }
        };
        self.text_at(address, pointer)
    }

    fn text_at(&mut self, address: String, pointer: &str) -> Option<Arc<str>> {
        let is_file = address.starts_with("file://");
        if !is_file && !address.starts_with("http://") && !address.starts_with("https://") {
            self.refuse(pointer, format!("a file at `{address}`"));
            return None;
        }
        // Who publishes a function has no say over files of this machine.
        if is_file && self.is_from_network {
            self.refuse(pointer, format!("`{address}`, named by a function from elsewhere,"));
            return None;
        }
        match self.resources.get(&address) {
            Some(text) => Some(Arc::clone(text)),
            None => {
                self.missing.insert(address);
                None
            }
        }
    }

    /// The data in a file.
    pub(super) fn data(&mut self, resource: &Resource, pointer: &str) -> Option<Value> {
        let text = self.resource(resource, pointer)?;
        if let Ok(value) = serde_json::from_str(&text) {
            return Some(value);
        }
        match language::parse_data("the file", text.to_string()) {
            Ok(value) => Some(value),
            Err(found) => {
                self.refuse(pointer, format!("this file ({})", first(&found)));
                None
            }
        }
    }

    /// Calls a function that is not in the document.
    pub(super) fn foreign(&mut self, function: &language::Function, pointer: &str) -> Step {
        if function.name.starts_with(OURS) {
            return self.built_in(function, pointer);
        }
        let Some(address) = self.find(&function.name, pointer) else { return Step::Switch(Vec::new()) };
        let with = self.optional(function.with.as_ref());
        let known = self.foreign.get(&address).copied();
        match known.or_else(|| self.fetched(&address, &function.name, pointer)) {
            Some(task) => Step::Function { task, with },
            None => Step::Switch(Vec::new()),
        }
    }

    fn built_in(&mut self, function: &language::Function, pointer: &str) -> Step {
        let Some((_, found)) = BUILT_IN.into_iter().find(|(name, _)| *name == function.name) else {
            let names = BUILT_IN.map(|(name, _)| format!("`{name}`")).join(", ");
            return self
                .cannot(pointer, &format!("the function `{}` (of ours there are {names})", function.name));
        };
        // Who publishes a function has no say over what workflows here keep.
        if self.is_from_network {
            return self
                .cannot(pointer, &format!("`{}`, called by a function from elsewhere,", function.name));
        }
        Step::BuiltIn(Box::new(BuiltIn { function: found, with: self.optional(function.with.as_ref()) }))
    }

    /// Where a function is.
    fn find(&mut self, name: &str, pointer: &str) -> Option<String> {
        if name.contains("://") {
            return Some(function_at(name));
        }
        let parts = name.split_once('@').and_then(|(function, catalog)| {
            let (function, version) = function.split_once(':')?;
            Some((function, version, catalog))
        });
        let document = Arc::clone(&self.document);
        let found = parts.and_then(|(function, version, catalog)| {
            let known = document.reusable.catalogs.iter().find(|(known, _)| known == catalog);
            let root = match known.map(|(_, endpoint)| endpoint) {
                Some(endpoint) if endpoint.authentication.is_some() => None,
                Some(endpoint) => match &endpoint.uri {
                    Uri::Template(text) if !text.contains('{') => Some(text.as_str()),
                    _ => None,
                },
                None => Some(DEFAULT_CATALOG),
            };
            function_of(root?, function, version)
        });
        if found.is_none() {
            self.refuse(pointer, format!("the function `{name}`"));
        }
        found
    }

    /// Compiles a function of another file, once.
    fn fetched(&mut self, address: &str, name: &str, pointer: &str) -> Option<TaskId> {
        let text = self.text_at(address.to_owned(), pointer)?;
        let compiler = Compiler::new();
        let mut check = |expression: &_, variables: &[String]| compiler.check(expression, variables);
        let found = match language::parse_function(name, text.to_string(), &mut check) {
            Ok(found) => Arc::new(found.document),
            Err(found) => {
                self.refuse(pointer, format!("the function `{name}` ({})", first(&found)));
                return None;
            }
        };
        let function = found.reusable.functions.first()?;
        let task = self.reserve(function);
        self.foreign.insert(address.to_owned(), task);
        let root = format!("/use/catalogs/{}", escape(name));
        self.program.foreign.push((root.clone(), Arc::new(found.definition.clone())));
        self.variables.extend(found.variables());
        self.variables.sort();
        self.variables.dedup();
        let outer = std::mem::replace(&mut self.document, Arc::clone(&found));
        let was_from_network = self.is_from_network;
        self.is_from_network |= !address.starts_with("file://");
        self.task(function, task, None, &[], &root);
        self.is_from_network = was_from_network;
        self.document = outer;
        Some(task)
    }
}

/// The first of what is wrong, for people.
fn first(found: &standfast_model::Diagnostics) -> String {
    found.iter().next().map_or_else(String::new, |one| one.message.clone())
}
