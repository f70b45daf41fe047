use std::sync::Arc;

use serde_json::Value;

use super::FilterId;

/// A value, of which parts may be computed.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    Value(Arc<Value>),
    Filter(FilterId),
    List(Vec<Form>),
    Object(Vec<(String, Form)>),
}

/// An address.
#[derive(Debug, Clone)]
pub(crate) enum Address {
    /// A template of RFC 6570: its variables are taken from the task's input.
    Template(String),
    /// Computed.
    Filter(FilterId),
}
