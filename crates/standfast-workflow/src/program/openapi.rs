//! An operation of an `OpenAPI` document (Swagger 2.0, OpenAPI 3.x), as far as a request needs it. Read when the definition is made.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::resources::resolve;

/// Most references that lead to one another.
const REFERENCES_MAX: usize = 16;
/// What operations are called by.
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];
/// Types of bodies that can be written, the best first.
const WRITABLE: [fn(&str) -> bool; 4] = [
    |kind| kind == "application/json",
    |kind| kind.ends_with("+json"),
    |kind| kind == "application/x-www-form-urlencoded",
    |kind| kind.starts_with("text/") || kind == "application/octet-stream",
];

/// An operation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Operation {
    /// In capitals.
    pub(crate) method: String,
    /// Where its service is, without a slash at its end.
    pub(crate) server: String,
    /// Its path, with its parameters in braces.
    pub(crate) path: String,
    pub(crate) parameters: Vec<Parameter>,
    pub(crate) body: Option<Body>,
    pub(crate) answers_json: bool,
}

/// A parameter.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parameter {
    pub(crate) name: String,
    pub(crate) place: Place,
    pub(crate) is_required: bool,
    pub(crate) style: Style,
    pub(crate) explodes: bool,
}

/// Where a parameter stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Path,
    Query,
    Header,
    Cookie,
}

/// How lists and objects are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// `a,b`
    Simple,
    /// `;x=a;x=b`
    Matrix,
    /// `.a.b`
    Label,
    /// `x=a&x=b`
    Form,
    /// Between their items stands this.
    Between(&'static str),
    /// `x[name]=value`
    DeepObject,
    /// As JSON.
    Json,
}

/// A body.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Body {
    /// The parameter that it is; `None` where documents have no name for it.
    pub(crate) name: Option<String>,
    pub(crate) kind: String,
    pub(crate) is_required: bool,
}

/// Finds an operation; `at` is where the document was read.
pub(super) fn find(document: &Value, id: &str, at: &str) -> Result<Operation, String> {
    let document = Document(document);
    let is_old = match (document.text("swagger"), document.text("openapi")) {
        (Some(version), _) if version.starts_with("2.") => true,
        (_, Some(version)) if version.starts_with("3.") => false,
        _ => return Err("it is neither Swagger 2.0 nor OpenAPI 3".to_owned()),
    };
    let paths = document.0.get("paths").and_then(Value::as_object).ok_or("it has no `paths`")?;
    let mut known = Vec::new();
    for (path, item) in paths {
        let item = document.target(item)?;
        for method in METHODS {
            let Some(operation) = item.get(method) else { continue };
            let found = operation.get("operationId").and_then(Value::as_str);
            if found == Some(id) {
                let server = document.server(item, operation, is_old, at)?;
                let whole = Described { document, item, operation, is_old };
                return whole.read(method, server, path);
            }
            known.extend(found);
        }
    }
    known.truncate(20);
    Err(format!("it has no operation `{id}`; known are: {}", known.join(", ")))
}

/// A document, in which references lead somewhere.
#[derive(Clone, Copy)]
pub(super) struct Document<'d>(pub(super) &'d Value);

impl<'d> Document<'d> {
    /// One of those under a key.
    pub(super) fn member(self, key: &str, name: &str) -> Option<&'d Value> {
        self.0.get(key)?.get(name)
    }

    pub(super) fn text(self, name: &str) -> Option<&'d str> {
        self.0.get(name).and_then(Value::as_str)
    }

    /// What a reference leads to; all else is what it is.
    pub(super) fn target(self, value: &'d Value) -> Result<&'d Value, String> {
        let mut value = value;
        for _ in 0..REFERENCES_MAX {
            let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return Ok(value) };
            let pointer =
                reference.strip_prefix('#').ok_or_else(|| format!("`{reference}` is in another file"))?;
            let pointer = percent_encoding::percent_decode_str(pointer).decode_utf8_lossy();
            value = self.0.pointer(&pointer).ok_or_else(|| format!("`{reference}` leads nowhere"))?;
        }
        Err("references lead to one another without end".to_owned())
    }

    /// Where an operation's service is.
    fn server(self, item: &Value, operation: &Value, is_old: bool, at: &str) -> Result<String, String> {
        let address = if is_old { self.old_server(at) } else { self.new_server(item, operation, at)? };
        let is_http = address.starts_with("http://") || address.starts_with("https://");
        if !is_http || address.contains(['{', '?', '#']) {
            return Err(format!("it says that its service is at `{address}`, which is no address of HTTP"));
        }
        Ok(address.trim_end_matches('/').to_owned())
    }

    fn old_server(self, at: &str) -> String {
        let schemes: Vec<&str> = self
            .0
            .get("schemes")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let (from, rest) = at.split_once("://").unwrap_or(("https", ""));
        let scheme = match (schemes.contains(&"https"), schemes.contains(&"http")) {
            (true, _) => "https",
            (false, true) => "http",
            (false, false) if from == "http" => "http",
            (false, false) => "https",
        };
        let host = self.text("host").unwrap_or_else(|| rest.split('/').next().unwrap_or(""));
        let base = self.text("basePath").unwrap_or("").trim_start_matches('/');
        format!("{scheme}://{host}/{base}")
    }

    fn new_server(self, item: &Value, operation: &Value, at: &str) -> Result<String, String> {
        let first = |value: &'_ Value| value.get("servers").and_then(|all| all.get(0)).cloned();
        let server = first(operation).or_else(|| first(item)).or_else(|| first(self.0));
        let Some(server) = server else { return Ok(resolve(at, "/")) };
        let mut address = server.get("url").and_then(Value::as_str).unwrap_or("/").to_owned();
        let variables = server.get("variables").and_then(Value::as_object);
        for (name, variable) in variables.into_iter().flatten() {
            let value = variable.get("default").and_then(Value::as_str);
            let value = value.ok_or_else(|| format!("the variable `{name}` of its server has no default"))?;
            address = address.replace(&format!("{{{name}}}"), value);
        }
        Ok(resolve(at, &address))
    }
}

/// An operation as its document has it.
struct Described<'d> {
    document: Document<'d>,
    item: &'d Value,
    operation: &'d Value,
    is_old: bool,
}

impl<'d> Described<'d> {
    fn read(&self, method: &str, server: String, path: &str) -> Result<Operation, String> {
        let (mut parameters, mut body, mut has_fields) = (BTreeMap::new(), None, false);
        // Those of the operation take the place of those of its path.
        for value in list(self.item, "parameters").chain(list(self.operation, "parameters")) {
            let value = self.document.target(value)?;
            let text = |name: &str| value.get(name).and_then(Value::as_str);
            let name = text("name").ok_or("one of its parameters has no name")?;
            match text("in") {
                Some("body") => body = Some((name, is_true(value, "required"))),
                Some("formData") => has_fields = true,
                Some(place) => {
                    let parameter = self.parameter(name, place, value)?;
                    parameters.insert((place, name), parameter);
                }
                None => return Err(format!("it does not say where the parameter `{name}` stands")),
            }
        }
        let body = match self.is_old {
            true => self.old_body(body, has_fields)?,
            false => self.new_body()?,
        };
        Ok(Operation {
            method: method.to_ascii_uppercase(),
            server,
            path: path.to_owned(),
            parameters: parameters.into_values().collect(),
            body,
            answers_json: self.answers_json(),
        })
    }

    fn parameter(&self, name: &str, place: &str, value: &'d Value) -> Result<Parameter, String> {
        let place = match place {
            "path" => Place::Path,
            "query" => Place::Query,
            "header" => Place::Header,
            "cookie" => Place::Cookie,
            other => return Err(format!("its parameter `{name}` stands in `{other}`")),
        };
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let usual = if matches!(place, Place::Query | Place::Cookie) { Style::Form } else { Style::Simple };
        let (style, explodes) = match (self.is_old, text("collectionFormat"), text("style")) {
            (true, Some("multi"), _) => (Style::Form, true),
            (true, Some("ssv"), _) => (Style::Between(" "), false),
            (true, Some("tsv"), _) => (Style::Between("\t"), false),
            (true, Some("pipes"), _) => (Style::Between("|"), false),
            (true, ..) => (usual, false),
            (false, ..) if value.get("content").is_some() => (Style::Json, false),
            (false, _, Some("matrix")) => (Style::Matrix, false),
            (false, _, Some("label")) => (Style::Label, false),
            (false, _, Some("spaceDelimited")) => (Style::Between(" "), false),
            (false, _, Some("pipeDelimited")) => (Style::Between("|"), false),
            (false, _, Some("deepObject")) => (Style::DeepObject, true),
            (false, ..) => (usual, usual == Style::Form),
        };
        let explodes = value.get("explode").and_then(Value::as_bool).unwrap_or(explodes);
        let is_required = place == Place::Path || is_true(value, "required");
        Ok(Parameter { name: name.to_owned(), place, is_required, style, explodes })
    }

    fn old_body(&self, body: Option<(&str, bool)>, has_fields: bool) -> Result<Option<Body>, String> {
        let consumes = |of: &'d Value| list(of, "consumes").filter_map(Value::as_str).collect::<Vec<_>>();
        let own = consumes(self.operation);
        let kinds = if own.is_empty() { consumes(self.document.0) } else { own };
        match (body, has_fields) {
            (Some((name, is_required)), _) => {
                let kind = if kinds.is_empty() { "application/json".to_owned() } else { best(&kinds)? };
                Ok(Some(Body { name: Some(name.to_owned()), kind, is_required }))
            }
            (None, true) if kinds.iter().all(|kind| kind.starts_with("multipart/")) && !kinds.is_empty() => {
                Err("its body is a form of several parts, which cannot be written".to_owned())
            }
            (None, true) => {
                let kind = "application/x-www-form-urlencoded".to_owned();
                Ok(Some(Body { name: None, kind, is_required: false }))
            }
            (None, false) => Ok(None),
        }
    }

    fn new_body(&self) -> Result<Option<Body>, String> {
        let Some(body) = self.operation.get("requestBody") else { return Ok(None) };
        let body = self.document.target(body)?;
        let kinds: Vec<&str> = body
            .get("content")
            .and_then(Value::as_object)
            .map(Map::keys)
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect();
        Ok(Some(Body { name: None, kind: best(&kinds)?, is_required: is_true(body, "required") }))
    }

    fn answers_json(&self) -> bool {
        let is_json = |kind: &str| kind.contains("json");
        if self.is_old {
            let own = list(self.operation, "produces").chain(list(self.document.0, "produces"));
            return own.filter_map(Value::as_str).any(is_json);
        }
        let answers = self.operation.get("responses").and_then(Value::as_object);
        answers.into_iter().flatten().any(|(_, answer)| {
            let answer = self.document.target(answer).unwrap_or(&Value::Null);
            let content = answer.get("content").and_then(Value::as_object);
            content.is_some_and(|content| content.keys().any(|kind| is_json(kind)))
        })
    }
}

fn list<'v>(value: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

fn is_true(value: &Value, name: &str) -> bool {
    value.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// The type of body that is written.
fn best(kinds: &[&str]) -> Result<String, String> {
    let plain = |kind: &str| kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    if kinds.contains(&"*/*") {
        return Ok("application/json".to_owned());
    }
    let found = WRITABLE.iter().find_map(|fits| kinds.iter().find(|kind| fits(&plain(kind))));
    let found =
        found.ok_or_else(|| format!("its body is of a type that cannot be written: {}", kinds.join(", ")));
    Ok((*found?).to_owned())
}
