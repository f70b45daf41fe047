//! Tasks that people do.

use std::sync::Arc;

use serde_json::Value;
use standfast_model::workflow as language;
use standfast_model::workflow::{Kind, Schema, SchemaSource, Template};

use super::Building;
use crate::program::Human;

impl Building<'_> {
    /// What a person is asked to do; the document was checked, so that one signal is waited for.
    pub(super) fn human(&mut self, task: &language::Task, pointer: &str) -> Option<Human> {
        let human = task.options.human.as_ref()?;
        let Kind::Listen(listen) = &task.kind else { return None };
        let language::Events::One(filter) = &listen.to else { return None };
        let signal = filter.with.iter().find_map(|(name, value)| match value {
            Template::Value(Value::String(text)) if name == "type" => {
                text.strip_prefix(language::SIGNAL_TYPE)
            }
            _ => None,
        });
        let form = human.form.as_ref().and_then(|form| {
            let source = SchemaSource::Here(form.clone());
            let schema = self.schema(&Schema { format: "json".to_owned(), source }, pointer)?;
            Some((Arc::new(form.clone()), schema))
        });
        Some(Human {
            title: self.form(&human.title),
            groups: self.optional(human.groups.as_ref()),
            signal: signal?.to_owned(),
            form,
        })
    }
}
