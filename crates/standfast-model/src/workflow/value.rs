//! What keys of all kinds of tasks share: expressions, values that hold some, addresses, files, schemas.

use serde_json::{Map, Number, Value, json};

use super::auth::{AUTHENTICATION, Authentication};
use crate::diagnostics::shown;
use crate::shape::{ByKey, Context, Count, Fields as Keys, FromText, Kinds, Loose, Object, Referent, Shape};
use crate::yaml::{self, Kind, Node};

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Expressions may ask for these.
pub(crate) const ARGUMENTS: [&str; 8] =
    ["context", "input", "output", "secrets", "authorization", "task", "workflow", "runtime"];

/// A runtime expression in jq, without the `${ }` around it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Expression(String);

impl Expression {
    /// What is to be compiled.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// What stands between `${` and `}`; `None` for any other text.
    fn of(text: &str) -> Option<Self> {
        let inner = text.trim().strip_prefix("${")?.strip_suffix('}')?;
        (!inner.trim().is_empty()).then(|| Self(inner.to_owned()))
    }
}

/// A value that the document gives, or has computed.
#[derive(Debug, Clone, PartialEq)]
pub enum Template {
    /// Without any expression in it.
    Value(Value),
    /// What the expression yields.
    Expression(Expression),
    /// A list of which at least one item is computed.
    List(Vec<Template>),
    /// An object of which at least one value is computed, in the order of its keys.
    Object(Vec<(String, Template)>),
}

/// What a task is given, yields or exports: an expression, or an object with expressions in it.
pub type Data = Template;

/// A definition in place, or the name of one under `use`.
#[derive(Debug, Clone, PartialEq)]
pub enum Named<T> {
    /// In place.
    Here(T),
    /// By name.
    Use(String),
}

/// An address: a URI template (RFC 6570) or an expression that yields a URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uri {
    /// Its variables are taken from the task's input.
    Template(String),
    /// Computed.
    Expression(Expression),
}

/// Where something is, and how to be let in.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    /// The address.
    pub uri: Uri,
    /// As whom.
    pub authentication: Option<Named<Authentication>>,
}

/// A file outside of the document.
#[derive(Debug, Clone, PartialEq)]
pub struct Resource {
    /// What it is called.
    pub name: Option<String>,
    /// Where it is.
    pub endpoint: Endpoint,
}

/// What data must look like.
#[derive(Debug, Clone, PartialEq)]
pub struct Schema {
    /// `json`, or another format, perhaps with its version behind a colon.
    pub format: String,
    /// The schema itself, or where it is.
    pub source: SchemaSource,
}

/// Where a schema is.
#[derive(Debug, Clone, PartialEq)]
pub enum SchemaSource {
    /// In the document.
    Here(Value),
    /// In a file.
    Resource(Resource),
}

/// What happens to data before a task or a workflow begins.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Input {
    /// What the raw input must look like.
    pub schema: Option<Schema>,
    /// What the task sees of it; by default all.
    pub from: Option<Data>,
}

/// What happens to data after a task, or what of it goes into the context.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Output {
    /// What the result must look like.
    pub schema: Option<Schema>,
    /// The result; by default all.
    pub filter: Option<Data>,
}

/// A text that may be no expression.
pub(crate) const NAME: NameText = NameText;

#[derive(Clone, Copy)]
pub(crate) struct NameText;

impl FromText for NameText {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, Option<String>> {
        if text.len() > NAME_BYTES_MAX {
            return Err(Some(format!("at most {NAME_BYTES_MAX} bytes")));
        }
        if text.trim().is_empty() { Err(None) } else { Ok(text.to_owned()) }
    }

    fn expected(&self) -> String {
        "a name".to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"type": "string", "minLength": 1})
    }
}

/// Any text, also an empty one.
pub(crate) const TEXT: Loose = Loose { what: "a text" };

/// An expression where nothing else may be, so that `${ }` around it may be left out.
#[derive(Clone, Copy)]
pub(crate) struct Condition;

impl Shape for Condition {
    type Value = Expression;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Expression> {
        let text = match cx.scalar(node) {
            Some(scalar) => scalar.filter(|(_, kind)| *kind != Kind::Null && *kind != Kind::Integer),
            None => None,
        };
        let expression = text
            .filter(|(text, _)| !text.trim().is_empty())
            .map(|(text, _)| Expression::of(&text).unwrap_or_else(|| Expression(text.into_owned())));
        match expression {
            Some(expression) => Some(cx.note_expression(expression, node.span)),
            None => {
                cx.mismatch(node, "an expression: `.total > 100`", None);
                None
            }
        }
    }

    fn schema(&self) -> Value {
        json!({"type": "string"})
    }
}

/// Any value, with expressions in it.
#[derive(Clone, Copy)]
pub(crate) struct AnyTemplate;

impl Shape for AnyTemplate {
    type Value = Template;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Template> {
        template(node, cx, true)
    }

    fn schema(&self) -> Value {
        json!({})
    }
}

/// Reads a value; where nothing `computes`, what looks like an expression is a text.
fn template(node: &Node, cx: &mut Context<'_>, computes: bool) -> Option<Template> {
    match &node.value {
        yaml::Value::Scalar(_) => scalar(node, cx, computes),
        yaml::Value::List(items) => {
            let items: Vec<Template> =
                items.iter().map(|item| template(item, cx, computes)).collect::<Option<_>>()?;
            if items.iter().all(|item| matches!(item, Template::Value(_))) {
                let values = items.into_iter().filter_map(into_value).collect();
                return Some(Template::Value(Value::Array(values)));
            }
            Some(Template::List(items))
        }
        yaml::Value::Mapping(entries) => {
            let mut fields = Vec::with_capacity(entries.len());
            for entry in entries {
                let subject = format!("`{}`", shown(&entry.key.text));
                let value = cx.within(subject, entry.key.span, |cx| template(&entry.value, cx, computes))?;
                fields.push((entry.key.text.to_string(), value));
            }
            if fields.iter().all(|(_, value)| matches!(value, Template::Value(_))) {
                let fields = fields.into_iter().filter_map(|(name, value)| Some((name, into_value(value)?)));
                return Some(Template::Value(Value::Object(Map::from_iter(fields))));
            }
            Some(Template::Object(fields))
        }
    }
}

fn into_value(template: Template) -> Option<Value> {
    match template {
        Template::Value(value) => Some(value),
        _ => None,
    }
}

fn scalar(node: &Node, cx: &mut Context<'_>, computes: bool) -> Option<Template> {
    let (text, kind) = cx.scalar(node)??;
    if kind == Kind::Text && computes {
        if let Some(expression) = Expression::of(&text) {
            return Some(Template::Expression(cx.note_expression(expression, node.span)));
        }
        warn_of_argument(&text, node, cx);
        return Some(Template::Value(text.into_owned().into()));
    }
    match number(&text, kind) {
        Some(value) => Some(Template::Value(value)),
        None => {
            cx.mismatch(node, "a value that JSON can hold", Some("put it in quotes".to_owned()));
            None
        }
    }
}

/// `$error` alone is a text: who wrote it meant `${ $error }`.
fn warn_of_argument(text: &str, node: &Node, cx: &mut Context<'_>) {
    let Some(name) = text.trim().strip_prefix('$') else { return };
    let word: String = name.chars().take_while(char::is_ascii_alphanumeric).collect();
    if ARGUMENTS.contains(&word.as_str()) || (!word.is_empty() && word.len() == name.len()) {
        cx.reports.warning(
            node.span,
            format!("`{}` is a text here, no expression", shown(text)),
            format!("write `${{ {} }}` if its value is meant", shown(text.trim())),
        );
    }
}

/// A scalar of YAML's core schema as JSON; `None` for what JSON has no word for.
fn number(text: &str, kind: Kind) -> Option<Value> {
    let radix = |prefix, radix| {
        text.strip_prefix(prefix).and_then(|digits| u64::from_str_radix(digits, radix).ok()).map(Value::from)
    };
    match kind {
        Kind::Null => Some(Value::Null),
        Kind::Bool => Some(text.eq_ignore_ascii_case("true").into()),
        Kind::Text => Some(text.into()),
        Kind::Integer => radix("0x", 16)
            .or_else(|| radix("0o", 8))
            .or_else(|| text.strip_prefix('+').unwrap_or(text).parse::<i64>().ok().map(Value::from))
            .or_else(|| text.parse::<u64>().ok().map(Value::from))
            .or_else(|| text.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number)),
        Kind::Float => text.parse::<f64>().ok().and_then(Number::from_f64).map(Value::Number),
    }
}

/// Any value as it is written: what looks like an expression is none.
#[derive(Clone, Copy)]
pub(crate) struct AnyValue;

impl Shape for AnyValue {
    type Value = Value;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Value> {
        into_value(template(node, cx, false)?)
    }

    fn schema(&self) -> Value {
        json!({})
    }
}

/// A mapping with any keys, without expressions.
pub(crate) fn open_object() -> impl Shape<Value = Map<String, Value>> {
    Kinds::new("a mapping").mapping(AnyValue.and_then(|value, _, _| match value {
        Value::Object(fields) => Some(fields),
        _ => None,
    }))
}

/// A mapping with any keys and expressions in it.
pub(crate) fn object_template() -> impl Shape<Value = Template> {
    Kinds::new("a mapping").mapping(AnyTemplate)
}

/// Texts by name, or one expression.
pub(crate) fn text_fields() -> impl Shape<Value = Template> {
    Kinds::new("a mapping, or an expression: `${ .headers }`").mapping(AnyTemplate).text(ExpressionOnly)
}

/// An expression, whose `${ }` may be left out, or a mapping with expressions in it.
pub(crate) fn data() -> impl Shape<Value = Data> {
    Kinds::new("an expression, or a mapping with expressions in it")
        .mapping(AnyTemplate)
        .text(Condition.and_then(|expression, _, _| Some(Template::Expression(expression))))
}

/// A text that must be an expression, with `${ }`.
#[derive(Clone, Copy)]
struct ExpressionOnly;

impl Shape for ExpressionOnly {
    type Value = Template;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Template> {
        let (text, _) = cx.scalar(node)??;
        let Some(expression) = Expression::of(&text) else {
            cx.mismatch(node, "an expression in `${ }`", None);
            return None;
        };
        Some(Template::Expression(cx.note_expression(expression, node.span)))
    }

    fn schema(&self) -> Value {
        json!({"type": "string"})
    }
}

/// A text, or an expression that yields it.
#[derive(Clone, Copy)]
pub(crate) struct TextTemplate;

impl Shape for TextTemplate {
    type Value = Template;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Template> {
        match scalar_of_text(node, cx) {
            Some(template) => Some(template),
            None => {
                cx.mismatch(node, "a text or an expression", None);
                None
            }
        }
    }

    fn schema(&self) -> Value {
        json!({"type": "string"})
    }
}

fn scalar_of_text(node: &Node, cx: &mut Context<'_>) -> Option<Template> {
    let (text, kind) = cx.scalar(node)??;
    match kind {
        Kind::Null => None,
        // A number or a truth value where a text belongs is what is written.
        Kind::Text => match Expression::of(&text) {
            Some(expression) => Some(Template::Expression(cx.note_expression(expression, node.span))),
            None => Some(Template::Value(text.into_owned().into())),
        },
        _ => Some(Template::Value(text.into_owned().into())),
    }
}

/// An address.
#[derive(Clone, Copy)]
pub(crate) struct UriText;

impl Shape for UriText {
    type Value = Uri;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<Uri> {
        match scalar_of_text(node, cx) {
            Some(Template::Expression(expression)) => Some(Uri::Expression(expression)),
            Some(Template::Value(Value::String(text))) if has_scheme(&text) => match bad_template(&text) {
                None => Some(Uri::Template(text)),
                Some(why) => {
                    let message = format!("`{}` is not a URI template: {why}", shown(&text));
                    cx.reports.error_hint(node.span, message, "variables are names in braces: `{orderId}`");
                    None
                }
            },
            _ => {
                let hint = "begin with a scheme: `https://shop.example/orders/{orderId}`".to_owned();
                cx.mismatch(node, "an address or an expression", Some(hint));
                None
            }
        }
    }

    fn schema(&self) -> Value {
        json!({"type": "string"})
    }
}

/// Whether a text begins as the schema of the language wants it: a scheme and `://`.
fn has_scheme(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    })
}

/// Why a text is no URI template of RFC 6570.
fn bad_template(text: &str) -> Option<String> {
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, from) = rest.split_at(at);
        let _literal = before;
        if from.starts_with('}') {
            return Some("`}` without `{`".to_owned());
        }
        let Some((inner, after)) = from[1..].split_once('}') else {
            return Some("`{` without `}`".to_owned());
        };
        let names = inner.strip_prefix(['+', '#', '.', '/', ';', '?', '&']).unwrap_or(inner);
        let is_name = |name: &str| {
            let name = name.strip_suffix('*').unwrap_or(name);
            let name = name.split_once(':').map_or(name, |(name, _)| name);
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'%' | b'-'))
        };
        if !names.split(',').all(is_name) {
            return Some(format!("`{{{}}}` names no variable", shown(inner)));
        }
        rest = after;
    }
    None
}

/// An address, or a mapping with one and how to be let in.
pub(crate) fn endpoint() -> impl Shape<Value = Endpoint> {
    const ENDPOINT: Object<Endpoint> = Object {
        doc: "An address and how to be let in.",
        read: |f: &mut Keys<'_, '_>| {
            let uri = f.required("uri", "The address.", UriText);
            let authentication = f.optional("authentication", "As whom.", AUTHENTICATION);
            Some(Endpoint { uri: uri?, authentication })
        },
    };
    Kinds::new("an address, or a mapping with `uri`")
        .text(UriText.and_then(|uri, _, _| Some(Endpoint { uri, authentication: None })))
        .mapping(ENDPOINT)
}

/// A file outside of the document.
pub(crate) const RESOURCE: Object<Resource> = Object {
    doc: "A file outside of the document.",
    read: |f: &mut Keys<'_, '_>| {
        let name = f.optional("name", "What it is called.", NAME);
        let endpoint = f.required("endpoint", "Where it is.", endpoint());
        Some(Resource { name, endpoint: endpoint? })
    },
};

const SCHEMA: Object<Schema> = Object {
    doc: "What data must look like.",
    read: |f: &mut Keys<'_, '_>| {
        let format = f.or("format", "The schema's format.", NAME, "json".to_owned());
        let document = f.optional("document", "The schema.", AnyValue);
        let resource = f.optional("resource", "Where the schema is.", RESOURCE);
        f.count(Count::One, &["document", "resource"]);
        let source = document.map(SchemaSource::Here).or_else(|| resource.map(SchemaSource::Resource));
        Some(Schema { format, source: source? })
    },
};

/// `input` of a task or a workflow.
pub(crate) const INPUT: Object<Input> = Object {
    doc: "What happens to data before.",
    read: |f: &mut Keys<'_, '_>| {
        let schema = f.optional("schema", "What the raw input must look like.", SCHEMA);
        let from = f.optional("from", "What is seen of it.", data());
        Some(Input { schema, from })
    },
};

/// `output` and `export`.
pub(crate) const OUTPUT: Object<Output> = Object {
    doc: "What happens to data after.",
    read: |f: &mut Keys<'_, '_>| {
        let schema = f.optional("schema", "What the result must look like.", SCHEMA);
        let filter = f.optional("as", "The result.", data());
        Some(Output { schema, filter })
    },
};

/// The name of something under this key of `use`.
#[derive(Clone, Copy)]
pub(crate) struct Use(pub(crate) &'static str);

impl Shape for Use {
    type Value = String;

    fn decode(&self, node: &Node, cx: &mut Context<'_>) -> Option<String> {
        let name = NAME.decode(node, cx)?;
        cx.refer(Referent::Use(self.0), &name, node.span);
        Some(name)
    }

    fn schema(&self) -> Value {
        NAME.schema()
    }
}

/// A definition in place, or as a text the name of one under this key of `use`.
pub(crate) fn named<T: 'static>(
    expected: &'static str,
    key: &'static str,
    here: impl Shape<Value = T> + 'static,
) -> impl Shape<Value = Named<T>> {
    Kinds::new(expected)
        .text(Use(key).and_then(|name, _, _| Some(Named::Use(name))))
        .mapping(here.and_then(|value, _, _| Some(Named::Here(value))))
}

/// A definition in place, or a mapping whose `use` names one.
pub(crate) const fn named_by_use<T: 'static, S: Shape<Value = Named<T>>>(
    reference: Object<Named<T>>,
    here: S,
) -> ByKey<Object<Named<T>>, S> {
    ByKey { key: "use", with: reference, without: here }
}
