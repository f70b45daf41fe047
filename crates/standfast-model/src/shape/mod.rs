//! Shapes: what a value may look like. One description of a key serves three ends, so that they cannot differ: decoding it,
//! finding unknown keys, and the JSON Schema.

mod containers;
mod context;
mod fields;
mod scalars;

pub(crate) use containers::{ByKey, Keyed, Kinds, List, NameKeys, Pairs, TextKeys};
pub(crate) use context::{Context, Dialect, Reference, Referent};
pub(crate) use fields::{Count, Fields, Object, Tagged, Variant, decode_object};
pub(crate) use scalars::{
    Bytes, Choice, Cores, Flag, FromText, Loose, Name, Pattern, Percent, Rate, Refers, Text, Time, Whole,
    or_variable,
};

use serde_json::Value;

use crate::source::{At, Span};
use crate::yaml::Node;

/// What a value may look like, and what it then is.
pub(crate) trait Shape {
    /// What the value is once decoded.
    type Value;

    /// Decodes a node. `None` means that an error was reported.
    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Self::Value>;

    /// The shape as JSON Schema.
    fn schema(&self) -> Value;

    /// A value as the user would write it, for defaults in the schema; null when there is no short way.
    fn show(&self, _value: &Self::Value) -> Value {
        Value::Null
    }

    /// The same shape with a further step, which may refuse the value; it then reports why.
    fn and_then<T, F>(self, step: F) -> AndThen<Self, F>
    where
        Self: Sized,
        F: Fn(Self::Value, Span, &mut Context<'_>) -> Option<T>,
    {
        AndThen { shape: self, step }
    }

    /// The same shape, whose value keeps its place.
    fn at(self) -> Placed<Self>
    where
        Self: Sized,
    {
        Placed(self)
    }
}

/// See [`Shape::and_then`].
pub(crate) struct AndThen<S, F> {
    shape: S,
    step: F,
}

impl<S: Shape, T, F: Fn(S::Value, Span, &mut Context<'_>) -> Option<T>> Shape for AndThen<S, F> {
    type Value = T;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<T> {
        let value = self.shape.decode(node, cx)?;
        (self.step)(value, node.span, cx)
    }

    fn schema(&self) -> Value {
        self.shape.schema()
    }
}

/// See [`Shape::at`].
pub(crate) struct Placed<S>(S);

impl<S: Shape> Shape for Placed<S> {
    type Value = At<S::Value>;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<At<S::Value>> {
        let span = cx.place(node);
        Some(At { value: self.0.decode(node, cx)?, span })
    }

    fn schema(&self) -> Value {
        self.0.schema()
    }

    fn show(&self, value: &At<S::Value>) -> Value {
        self.0.show(&value.value)
    }
}

/// A shape within which `${id}` is left alone.
pub(crate) struct KeepsId<S>(pub(crate) S);

impl<S: Shape> Shape for KeepsId<S> {
    type Value = S::Value;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<S::Value> {
        cx.keeping_id(|cx| self.0.decode(node, cx))
    }

    fn schema(&self) -> Value {
        self.0.schema()
    }
}
