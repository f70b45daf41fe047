use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::source::{Source, Sources, Span};

/// Diagnostics kept of one load; the rest is counted only.
pub const DIAGNOSTICS_MAX: usize = 100;

/// How much a diagnostic weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The stack cannot be used.
    Error,
    /// The stack can be used, but something in it has no effect or another one than its writer may think.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// A range of a file that was read.
#[derive(Debug, Clone)]
pub struct Place {
    pub(crate) source: Arc<Source>,
    pub(crate) span: Span,
    line: usize,
    column: usize,
}

impl Place {
    fn new(source: Arc<Source>, span: Span) -> Self {
        let (line, column) = source.position(span.start);
        Self { source, span, line, column }
    }

    /// The file as the user would name it.
    pub fn file(&self) -> &str {
        self.source.name()
    }

    /// The line, counted from 1.
    pub fn line(&self) -> usize {
        self.line
    }

    /// The column in characters, counted from 1.
    pub fn column(&self) -> usize {
        self.column
    }

    /// The range in bytes of the file.
    pub fn bytes(&self) -> std::ops::Range<usize> {
        self.span.start as usize..self.span.end as usize
    }
}

/// One thing that is wrong with a stack.
#[derive(Debug, Clone)]
pub struct Diagnostic {
    /// Whether it forbids the stack's use.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where; absent when a file could not be read at all.
    pub place: Option<Place>,
}

impl Diagnostic {
    /// `{"severity", "message", "hint", "file", "line", "column"}`; absent parts are null.
    pub fn to_json(&self) -> Value {
        json!({
            "severity": self.severity.to_string(),
            "message": self.message,
            "hint": self.hint,
            "file": self.place.as_ref().map(Place::file),
            "line": self.place.as_ref().map(Place::line),
            "column": self.place.as_ref().map(Place::column),
        })
    }
}

/// All that is wrong with a stack, in the order of its files and lines.
///
/// `Display` prints every one of them plainly, with its place and the line it is about; see also
/// [`graphical`](Self::graphical) and [`narrated`](Self::narrated).
#[derive(Debug, Clone, Default)]
pub struct Diagnostics {
    pub(crate) items: Vec<Diagnostic>,
    pub(crate) omitted: usize,
}

impl std::error::Error for Diagnostics {}

impl Diagnostics {
    /// One error that has no place.
    pub fn of_error(message: String, hint: Option<String>) -> Self {
        let error = Diagnostic { severity: Severity::Error, message, hint, place: None };
        Self { items: vec![error], omitted: 0 }
    }

    /// These and those, these first.
    #[must_use]
    pub fn and(mut self, those: Self) -> Self {
        self.items.extend(those.items);
        self.omitted += those.omitted;
        self
    }

    /// The diagnostics, at most [`DIAGNOSTICS_MAX`].
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.items.iter()
    }

    /// How many are listed.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there is nothing to report.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// How many more there were than are listed.
    pub fn omitted(&self) -> usize {
        self.omitted
    }

    /// Whether one of them is an error.
    pub fn has_errors(&self) -> bool {
        self.items.iter().any(|item| item.severity == Severity::Error)
    }

    /// One JSON object for each; see [`Diagnostic::to_json`].
    pub fn to_json(&self) -> Vec<Value> {
        self.items.iter().map(Diagnostic::to_json).collect()
    }
}

/// Collects diagnostics while a stack is read.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    pub(crate) sources: Sources,
    found: Vec<Found>,
    /// A node that is reached by several aliases is reported once.
    seen: BTreeSet<(Option<Span>, String)>,
    omitted: usize,
    errors: usize,
}

#[derive(Debug)]
struct Found {
    severity: Severity,
    message: String,
    hint: Option<String>,
    span: Option<Span>,
}

impl Reports {
    /// Whether no more are kept: work for a better wording is in vain.
    pub(crate) fn is_full(&self) -> bool {
        self.found.len() >= DIAGNOSTICS_MAX
    }

    /// Whether something was reported at exactly this place.
    pub(crate) fn has_any_at(&self, span: Span) -> bool {
        let first = self.seen.range((Some(span), String::new())..).next();
        first.is_some_and(|(place, _)| *place == Some(span))
    }

    pub(crate) fn errors(&self) -> usize {
        self.errors
    }

    pub(crate) fn error(&mut self, span: Span, message: impl Into<String>) -> &mut Self {
        self.push(Severity::Error, Some(span), message.into(), None)
    }

    pub(crate) fn error_hint(
        &mut self,
        span: Span,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) -> &mut Self {
        self.push(Severity::Error, Some(span), message.into(), Some(hint.into()))
    }

    pub(crate) fn warning(&mut self, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Severity::Warning, Some(span), message.into(), Some(hint.into()));
    }

    pub(crate) fn push(
        &mut self,
        severity: Severity,
        span: Option<Span>,
        message: String,
        hint: Option<String>,
    ) -> &mut Self {
        self.errors += usize::from(severity == Severity::Error);
        // A warning gives way to an error: a full list must still say why the stack is refused.
        if self.is_full() && severity == Severity::Error {
            let last_warning = self.found.iter().rposition(|found| found.severity == Severity::Warning);
            if let Some(index) = last_warning {
                self.found.remove(index);
                self.omitted += 1;
            }
        }
        if self.is_full() {
            self.omitted += 1;
        } else if self.seen.insert((span, message.clone())) {
            self.found.push(Found { severity, message, hint, span });
        }
        self
    }

    /// The place of a span.
    pub(crate) fn place(&self, span: Span) -> Option<Place> {
        Some(Place::new(self.sources.get(span.source)?.clone(), span))
    }

    pub(crate) fn finish(mut self) -> Diagnostics {
        self.found.sort_by_key(|found| found.span.map(|span| (span.source, span.start)));
        let sources = self.sources;
        let place = |span: Span| Some(Place::new(sources.get(span.source)?.clone(), span));
        let items = self.found.into_iter().map(|found| Diagnostic {
            severity: found.severity,
            message: found.message,
            hint: found.hint,
            place: found.span.and_then(place),
        });
        Diagnostics { items: items.collect(), omitted: self.omitted }
    }
}

/// Longest piece of the user's text that a message repeats, in characters.
const SHOWN_CHARS_MAX: usize = 60;

/// The user's text as a message may repeat it: short, on one line and without control characters.
pub(crate) fn shown(text: &str) -> String {
    let mut out: String = text.chars().take(SHOWN_CHARS_MAX).map(printable).collect();
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

/// A character that leaves the terminal as it is: no control characters, no marks that turn the direction of writing.
pub(crate) fn printable(c: char) -> char {
    let turns =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    if c == '\t' {
        ' '
    } else if c.is_control() || turns {
        '\u{fffd}'
    } else {
        c
    }
}
