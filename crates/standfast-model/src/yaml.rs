//! YAML text to a tree in which every key and value knows its place.
//!
//! The tree is built from the parser's events without recursion. Aliases share the node that they name; what they would
//! expand to is counted, so that a bomb is refused before anything grows.

use std::collections::HashSet;
use std::rc::Rc;

use granit_parser::{Event, Parser, ScalarStyle, Tag};

use crate::diagnostics::{Reports, shown};
use crate::source::{Span, offset};

/// Nodes of a file, each alias counted as what it names.
pub(crate) const NODES_MAX: usize = 20_000;
/// Bytes of text in a file's scalars, each alias counted as what it names.
const TEXT_BYTES_MAX: usize = 4 << 20;
/// Levels of lists and mappings within each other.
const DEPTH_MAX: usize = 64;

/// A shared node: an alias and its anchor are one.
pub(crate) type Node = Rc<NodeData>;

/// A value and its place.
#[derive(Debug)]
pub(crate) struct NodeData {
    pub(crate) span: Span,
    pub(crate) value: Value,
    weight: Weight,
}

#[derive(Debug)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Mapping(Vec<Entry>),
}

#[derive(Debug)]
pub(crate) struct Scalar {
    pub(crate) text: Box<str>,
    /// Written without quotes, so that it may be a number, a truth value or null.
    pub(crate) plain: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: Key,
    pub(crate) value: Node,
}

#[derive(Debug, Clone)]
pub(crate) struct Key {
    pub(crate) text: Rc<str>,
    pub(crate) span: Span,
}

/// What a plain scalar is under YAML's core schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Integer,
    Float,
    Text,
}

impl Kind {
    pub(crate) fn of_plain(text: &str) -> Self {
        match text {
            "" | "~" | "null" | "Null" | "NULL" => Self::Null,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Self::Bool,
            ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" | ".nan" | ".NaN" | ".NAN" => Self::Float,
            _ => Self::of_number(text),
        }
    }

    fn of_number(text: &str) -> Self {
        let all = |digits: &str, allowed: fn(&u8) -> bool| {
            !digits.is_empty() && digits.bytes().all(|b| allowed(&b))
        };
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let hex = text.strip_prefix("0x").is_some_and(|digits| all(digits, u8::is_ascii_hexdigit));
        let octal = text.strip_prefix("0o").is_some_and(|digits| all(digits, |b| (b'0'..=b'7').contains(b)));
        if hex || octal || all(unsigned, u8::is_ascii_digit) {
            Self::Integer
        } else if unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && unsigned.contains(|c: char| c.is_ascii_digit())
            && unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'))
            && unsigned.parse::<f64>().is_ok()
        {
            Self::Float
        } else {
            Self::Text
        }
    }
}

impl NodeData {
    /// The scalar's kind; none for lists and mappings.
    pub(crate) fn kind(&self) -> Option<Kind> {
        match &self.value {
            Value::Scalar(scalar) if scalar.plain => Some(Kind::of_plain(&scalar.text)),
            Value::Scalar(_) => Some(Kind::Text),
            Value::List(_) | Value::Mapping(_) => None,
        }
    }

    pub(crate) fn is_null(&self) -> bool {
        self.kind() == Some(Kind::Null)
    }
}

/// What a node would be with all its aliases written out.
#[derive(Debug, Clone, Copy)]
struct Weight {
    nodes: usize,
    bytes: usize,
    height: usize,
}

impl Weight {
    const ONE: Self = Self { nodes: 1, bytes: 0, height: 1 };

    fn above<'a>(children: impl Iterator<Item = &'a Node>) -> Self {
        children.fold(Self::ONE, |sum, child| Self {
            nodes: sum.nodes.saturating_add(child.weight.nodes),
            bytes: sum.bytes.saturating_add(child.weight.bytes),
            height: sum.height.max(child.weight.height.saturating_add(1)),
        })
    }
}

/// Reads the one document of a source; `empty_hint` is what to do about an empty one. `None` means that it has none that could be decoded, and why was reported.
pub(crate) fn parse(source: u32, reports: &mut Reports, empty_hint: &str) -> Option<Node> {
    let held = reports.sources.get(source).cloned()?;
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        block_nesting_limit: DEPTH_MAX,
        flow_nesting_limit: DEPTH_MAX,
    };
    let mut builder = Builder {
        source,
        reports,
        anchors: Vec::new(),
        open: Vec::new(),
        root: None,
        documents: 0,
        total: Weight { nodes: 0, ..Weight::ONE },
    };
    for event in Parser::new_from_str_with_options(held.text(), options) {
        match event {
            Ok((event, span)) => builder.take(event, span)?,
            Err(error) => {
                let at = offset(error.marker().byte_offset().unwrap_or(0));
                let span = Span { source, start: at, end: at.saturating_add(1) };
                builder.reports.error(span, format!("this is not YAML: {}", error.info()));
                return None;
            }
        }
    }
    if builder.root.is_none() {
        let span = Span { source, start: 0, end: 0 };
        builder.reports.error_hint(span, "the file is empty", empty_hint);
    }
    builder.root
}

struct Builder<'a> {
    source: u32,
    reports: &'a mut Reports,
    /// By the parser's anchor number, which counts from 1; `None` while the anchored node is still open.
    anchors: Vec<Option<Node>>,
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    /// What all nodes so far would be with their aliases written out.
    total: Weight,
}

/// A list or mapping whose end has not come yet.
struct Open {
    span: Span,
    anchor: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Mapping { entries: Vec<Entry>, merged: Vec<Entry>, seen: HashSet<Rc<str>>, key: Pending },
}

/// The key whose value comes next.
enum Pending {
    None,
    /// Reported as unusable; its value is read and dropped.
    Refused,
    Key(Key),
    /// `<<`.
    Merge(Span),
}

impl Builder<'_> {
    /// Takes one event; `None` ends the reading.
    fn take(&mut self, event: Event<'_>, span: granit_parser::Span) -> Option<()> {
        let span = self.span(span);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.reports.error(span, "a second document begins here; a file holds one");
                    return None;
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && !self.is_text(tag.as_deref(), span);
                let scalar = Scalar { text: text.into_owned().into(), plain };
                let weight = Weight { bytes: scalar.text.len(), ..Weight::ONE };
                self.charge(weight, span)?;
                self.complete(Rc::new(NodeData { span, value: Value::Scalar(scalar), weight }), anchor)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.is_text(tag.as_deref(), span);
                self.begin(span, anchor, OpenKind::List(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.is_text(tag.as_deref(), span);
                let kind = OpenKind::Mapping {
                    entries: Vec::new(),
                    merged: Vec::new(),
                    seen: HashSet::new(),
                    key: Pending::None,
                };
                self.begin(span, anchor, kind)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span)?,
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(anchor).cloned().flatten() else {
                    self.reports.error(span, "this alias names a node that it is part of");
                    return None;
                };
                self.charge(node.weight, span)?;
                self.complete(node, 0)?;
            }
            Event::UnresolvedAlias(name) => {
                self.reports.error_hint(
                    span,
                    format!("there is no anchor `&{}` above this alias", shown(&name)),
                    "put the text in quotes if it is not meant as an alias",
                );
                self.charge(Weight::ONE, span)?;
                let value = Value::Scalar(Scalar { text: "".into(), plain: true });
                self.complete(Rc::new(NodeData { span, value, weight: Weight::ONE }), 0)?;
            }
            _ => {}
        }
        Some(())
    }

    fn span(&self, span: granit_parser::Span) -> Span {
        let start = offset(span.start.byte_offset().unwrap_or(0));
        let end = offset(span.end.byte_offset().unwrap_or(0));
        Span { source: self.source, start, end: end.max(start) }
    }

    /// Whether a tag makes its scalar a text. Tags of the core schema that say what is so anyway are accepted.
    fn is_text(&mut self, tag: Option<&Tag>, span: Span) -> bool {
        let Some(tag) = tag else { return false };
        match tag.core_suffix() {
            Some("str") => return true,
            Some("int" | "float" | "bool" | "null" | "seq" | "map") => {}
            _ => {
                let message = format!("the tag `{}` is not supported", shown(&tag.original()));
                self.reports.error_hint(span, message, "remove the tag");
            }
        }
        false
    }

    fn charge(&mut self, weight: Weight, span: Span) -> Option<()> {
        self.total.nodes = self.total.nodes.saturating_add(weight.nodes);
        self.total.bytes = self.total.bytes.saturating_add(weight.bytes);
        let hint = "split it, or repeat less through aliases";
        if self.total.nodes > NODES_MAX {
            let message = format!("the file holds more than {NODES_MAX} values with its aliases written out");
            self.reports.error_hint(span, message, hint);
            return None;
        }
        if self.total.bytes > TEXT_BYTES_MAX {
            let message = format!(
                "the file holds more than {} MiB of text with its aliases written out",
                TEXT_BYTES_MAX >> 20
            );
            self.reports.error_hint(span, message, hint);
            return None;
        }
        self.deep(self.open.len() + weight.height, span)
    }

    fn deep(&mut self, depth: usize, span: Span) -> Option<()> {
        if depth > DEPTH_MAX {
            self.reports.error(span, format!("more than {DEPTH_MAX} levels within each other"));
            return None;
        }
        Some(())
    }

    fn begin(&mut self, span: Span, anchor: usize, kind: OpenKind) -> Option<()> {
        self.charge(Weight::ONE, span)?;
        self.reserve(anchor);
        self.open.push(Open { span, anchor, kind });
        Some(())
    }

    fn end(&mut self, end: Span) -> Option<()> {
        let open = self.open.pop()?;
        let span = Span { end: end.end.max(open.span.end), ..open.span };
        let value = match open.kind {
            OpenKind::List(items) => Value::List(items),
            OpenKind::Mapping { mut entries, merged, mut seen, .. } => {
                entries.extend(merged.into_iter().filter(|entry| seen.insert(entry.key.text.clone())));
                Value::Mapping(entries)
            }
        };
        let weight = match &value {
            Value::List(items) => Weight::above(items.iter()),
            Value::Mapping(entries) => Weight::above(entries.iter().map(|entry| &entry.value)),
            Value::Scalar(_) => Weight::ONE,
        };
        self.complete(Rc::new(NodeData { span, value, weight }), open.anchor)
    }

    fn reserve(&mut self, anchor: usize) {
        // The parser numbers anchors one by one, so this grows by one node at a time.
        if anchor > 0 && self.anchors.len() <= anchor {
            self.anchors.resize(anchor + 1, None);
        }
        if let Some(slot) = self.anchors.get_mut(anchor) {
            *slot = None;
        }
    }

    /// Puts a finished node where it belongs.
    fn complete(&mut self, node: Node, anchor: usize) -> Option<()> {
        if anchor > 0 {
            self.reserve(anchor);
            if let Some(slot) = self.anchors.get_mut(anchor) {
                *slot = Some(node.clone());
            }
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return Some(());
        };
        match &mut open.kind {
            OpenKind::List(items) => items.push(node),
            OpenKind::Mapping { entries, merged, seen, key } => match std::mem::replace(key, Pending::None) {
                Pending::None => *key = pending(&node, seen, self.reports),
                Pending::Refused => {}
                Pending::Key(key) => entries.push(Entry { key, value: node }),
                Pending::Merge(span) => merge(&node, span, merged, self.reports),
            },
        }
        Some(())
    }
}

/// Makes a key of a node.
fn pending(node: &Node, seen: &mut HashSet<Rc<str>>, reports: &mut Reports) -> Pending {
    let Value::Scalar(scalar) = &node.value else {
        reports.error_hint(
            node.span,
            "a list or a mapping cannot be a key",
            "put text with `{` or `[` in quotes",
        );
        return Pending::Refused;
    };
    if scalar.plain && &*scalar.text == "<<" {
        return Pending::Merge(node.span);
    }
    if node.is_null() || scalar.text.is_empty() {
        reports.error(node.span, "a key is empty");
        return Pending::Refused;
    }
    let text: Rc<str> = Rc::from(&*scalar.text);
    if !seen.insert(text.clone()) {
        let message = format!("the key `{}` is there twice in this mapping", shown(&text));
        reports.error_hint(node.span, message, "remove one of them");
        return Pending::Refused;
    }
    Pending::Key(Key { text, span: node.span })
}

/// Collects what `<<` brings in: the mapping's own keys win over it, and earlier ones over later ones.
fn merge(node: &Node, span: Span, merged: &mut Vec<Entry>, reports: &mut Reports) {
    let mut refuse = |span| {
        reports.error(span, "`<<` takes a mapping or a list of mappings");
    };
    match &node.value {
        Value::Mapping(entries) => merged.extend(entries.iter().cloned()),
        Value::List(items) => {
            for item in items {
                match &item.value {
                    Value::Mapping(entries) => merged.extend(entries.iter().cloned()),
                    _ => refuse(item.span),
                }
            }
        }
        Value::Scalar(_) => refuse(span),
    }
}
