use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::diagnostics::{Diagnostics, Reports, shown};
use crate::interpolate::{self, Problem, Rules};
use crate::source::{At, Span, offset};
use crate::workflow::Expression;
use crate::yaml::{Kind, Node, NodeData, Value};

/// Bytes of text that interpolation may make for one stack.
const INTERPOLATED_BYTES_MAX: usize = 8 << 20;

/// Which language a file is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// A stack, with Compose's rules: `${NAME}` is a variable of the environment, and keys that begin with `x-` are anybody's.
    Stack,
    /// A workflow: `${ .field }` is an expression for when it runs, and every key must be known.
    Workflow,
}

/// What decoding needs and gathers besides the values.
pub(crate) struct Context<'e> {
    pub(crate) reports: Reports,
    /// Names that must resolve once all is decoded.
    pub(crate) references: Vec<Reference>,
    /// Expressions that must compile once all is decoded.
    pub(crate) expressions: Vec<Noted>,
    /// Variables that the value being decoded may ask for, besides those of the language.
    pub(crate) named: Vec<String>,
    /// Secrets that a workflow counts on.
    pub(crate) secrets: Vec<At<String>>,
    /// Secrets of a stack whose files cannot be used.
    pub(crate) unusable_secrets: Diagnostics,
    /// What is being decoded may be used anywhere, so that it may ask for any variable of the document.
    pub(crate) is_anywhere: bool,
    dialect: Dialect,
    environment: &'e BTreeMap<String, String>,
    keeps_id: bool,
    interpolated_bytes: usize,
    /// What messages call the value that is being decoded: "`replicas`".
    subject: String,
    /// Where its key is.
    subject_span: Option<Span>,
}

/// An expression that must compile.
pub(crate) struct Noted {
    pub(crate) expression: Expression,
    pub(crate) span: Span,
    /// The variables that are named around it; `None` when it may be used around any.
    pub(crate) named: Option<Vec<String>>,
}

/// A name that must resolve.
pub(crate) struct Reference {
    pub(crate) to: Referent,
    pub(crate) name: String,
    pub(crate) span: Span,
}

/// What a name may refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Referent {
    /// A service that requests go to: one of the stack's own, or an external one.
    Target,
    /// A service that is waited for: one of the stack's own.
    Dependency,
    /// A service that the stack runs.
    Service,
    Zone,
    Load,
    /// Something that a workflow has under this key of `use`.
    Use(&'static str),
}

impl<'e> Context<'e> {
    pub(crate) fn new(environment: &'e BTreeMap<String, String>) -> Self {
        Self::of(Dialect::Stack, environment)
    }

    /// For a file of this dialect.
    pub(crate) fn of(dialect: Dialect, environment: &'e BTreeMap<String, String>) -> Self {
        Self {
            reports: Reports::default(),
            references: Vec::new(),
            expressions: Vec::new(),
            named: Vec::new(),
            secrets: Vec::new(),
            unusable_secrets: Diagnostics::default(),
            is_anywhere: false,
            dialect,
            environment,
            keeps_id: false,
            interpolated_bytes: 0,
            subject: "the file".to_owned(),
            subject_span: None,
        }
    }

    /// A variable of the environment that was given.
    pub(crate) fn variable(&self, name: &str) -> Option<&'e str> {
        self.environment.get(name).map(String::as_str)
    }

    pub(crate) fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// What messages call the value that is being decoded.
    pub(crate) fn subject(&self) -> &str {
        &self.subject
    }

    /// Notes a name that must resolve once all is decoded.
    pub(crate) fn refer(&mut self, to: Referent, name: &impl ToString, span: Span) {
        self.references.push(Reference { to, name: name.to_string(), span });
    }

    /// Notes an expression that must compile once all is decoded, and returns it.
    pub(crate) fn note_expression(&mut self, expression: Expression, span: Span) -> Expression {
        let named = (!self.is_anywhere).then(|| self.named.clone());
        self.expressions.push(Noted { expression: expression.clone(), span, named });
        expression
    }

    /// A place within a text that a scalar at `span` holds: the whole scalar where escapes or folded lines make it another.
    pub(crate) fn within_text(&self, span: Span, text: &str, at: usize) -> Span {
        let Some(begin) = self.reports.sources.slice(span).find(text) else { return span };
        let start = span.start.saturating_add(offset(begin + at));
        Span { start, end: start.saturating_add(1).min(span.end).max(start), ..span }
    }

    /// Where the key of the value is that is being decoded.
    pub(crate) fn subject_place(&self) -> Option<Span> {
        self.subject_span
    }

    /// Decodes something that messages shall call `subject`, whose key is at `span`.
    pub(crate) fn within<T>(
        &mut self,
        subject: String,
        span: Span,
        decode: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let subject = std::mem::replace(&mut self.subject, subject);
        let subject_span = self.subject_span.replace(span);
        let value = decode(self);
        self.subject = subject;
        self.subject_span = subject_span;
        value
    }

    pub(crate) fn keeping_id<T>(&mut self, decode: impl FnOnce(&mut Self) -> T) -> T {
        let before = std::mem::replace(&mut self.keeps_id, true);
        let value = decode(self);
        self.keeps_id = before;
        value
    }

    /// Where to point for a node: an absent value has no place of its own, so its key stands for it.
    pub(crate) fn place(&self, node: &NodeData) -> Span {
        if node.span.is_empty() && node.is_null() {
            self.subject_span.unwrap_or(node.span)
        } else {
            node.span
        }
    }

    /// Reports that a node is not what its shape expects.
    pub(crate) fn mismatch(&mut self, node: &NodeData, expected: &str, hint: Option<String>) {
        let place = self.place(node);
        if node.is_null() && self.reports.has_any_at(place) {
            return; // An alias of nothing: it was reported, and stands where a value should be.
        }
        let subject = &self.subject;
        let message = if node.is_null() {
            format!("{subject} has no value; it must be {expected}")
        } else {
            format!("{subject} must be {expected}, not {}", found(node))
        };
        self.reports.push(crate::Severity::Error, Some(place), message, hint);
    }

    /// A scalar's text, interpolated, and its kind. `None` when it is no scalar, which is for the caller to report, or
    /// `Some(None)` when its interpolation failed, which was reported.
    pub(crate) fn scalar<'n>(&mut self, node: &'n Node) -> Option<Option<(Cow<'n, str>, Kind)>> {
        let Value::Scalar(scalar) = &node.value else { return None };
        if self.dialect == Dialect::Workflow || !interpolate::concerns(&scalar.text) {
            let kind = node.kind().unwrap_or(Kind::Text);
            return Some(Some((Cow::Borrowed(&*scalar.text), kind)));
        }
        let text = self.interpolate(&scalar.text, node.span, self.keeps_id, &|_| None);
        Some(text.map(|text| (Cow::Owned(text), Kind::Text)))
    }

    /// A text with its variables replaced: by `own` if that knows them, else by the environment.
    pub(crate) fn interpolate(
        &mut self,
        text: &str,
        span: Span,
        keeps_id: bool,
        own: &dyn Fn(&str) -> Option<String>,
    ) -> Option<String> {
        let environment = self.environment;
        let rules = Rules {
            lookup: &|name| own(name).or_else(|| environment.get(name).cloned()),
            keeps_id,
            bytes_max: INTERPOLATED_BYTES_MAX - self.interpolated_bytes,
        };
        let outcome = interpolate::interpolate(text, &rules);
        // Escapes and folded lines make a scalar's text and its source differ; then every place in it is the scalar's.
        let begin = match &outcome {
            Ok((_, unset)) if unset.is_empty() => None,
            _ => self.reports.sources.slice(span).find(text),
        };
        let inside = |at: usize| {
            begin.map_or(span, |begin| {
                let start = span.start.saturating_add(offset(begin + at));
                Span { start, end: start.saturating_add(2).min(span.end).max(start), ..span }
            })
        };
        match outcome {
            Ok((out, unset)) => {
                self.interpolated_bytes += out.len();
                for variable in unset {
                    let name = shown(&variable.name);
                    self.reports.warning(
                        inside(variable.at),
                        format!("the variable `{name}` is not set; nothing is put in its place"),
                        format!("set it, or write `${{{name}:-default}}`"),
                    );
                }
                Some(out)
            }
            Err(Problem { at, message, hint }) => {
                self.reports.push(crate::Severity::Error, Some(inside(at)), message, hint);
                None
            }
        }
    }
}

/// A node as a message names it.
pub(crate) fn found(node: &NodeData) -> String {
    match &node.value {
        Value::Scalar(scalar) if scalar.text.is_empty() => "an empty text".to_owned(),
        Value::Scalar(scalar) => {
            let text = shown(&scalar.text);
            match node.kind() {
                Some(Kind::Bool) => format!("the truth value `{text}`"),
                Some(Kind::Integer | Kind::Float) => format!("the number `{text}`"),
                _ => format!("`{text}`"),
            }
        }
        Value::List(_) => "a list".to_owned(),
        Value::Mapping(_) => "a mapping".to_owned(),
    }
}
