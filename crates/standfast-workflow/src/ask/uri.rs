//! Addresses: templates of RFC 6570 (level 4), and query parameters.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};

use http::Uri;

use super::Writing;
use crate::decide::{as_text, kind_of};
use crate::program::Address;
use crate::run::{Problem, Standard};

/// All but what RFC 3986 calls unreserved.
const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// All but what RFC 3986 calls unreserved and reserved.
const RESERVED: AsciiSet = CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'%')
    .add(b'<')
    .add(b'>')
    .add(b'\\')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// How an expression of a template is written: RFC 6570, appendix A.
struct Style {
    first: &'static str,
    between: &'static str,
    is_named: bool,
    if_empty: &'static str,
    allowed: &'static AsciiSet,
}

fn style(operator: Option<char>) -> Style {
    let style =
        |first, between, is_named, if_empty, allowed| Style { first, between, is_named, if_empty, allowed };
    match operator {
        Some('+') => style("", ",", false, "", &RESERVED),
        Some('#') => style("#", ",", false, "", &RESERVED),
        Some('.') => style(".", ".", false, "", &UNRESERVED),
        Some('/') => style("/", "/", false, "", &UNRESERVED),
        Some(';') => style(";", ";", true, "", &UNRESERVED),
        Some('?') => style("?", "&", true, "=", &UNRESERVED),
        Some('&') => style("&", "&", true, "=", &UNRESERVED),
        _ => style("", ",", false, "", &UNRESERVED),
    }
}

/// Puts data into a template. Variables are top-level fields; one that is not there is left out.
pub(super) fn expand(template: &str, data: &Value) -> Result<String, Problem> {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, from)) = rest.split_once('{') {
        out.push_str(before);
        let Some((expression, after)) = from.split_once('}') else {
            return Err(Standard::Configuration.problem(format!("`{template}`: `{{` without `}}`")));
        };
        expand_one(expression, data, &mut out)?;
        rest = after;
    }
    out.push_str(rest);
    Ok(out)
}

fn expand_one(expression: &str, data: &Value, out: &mut String) -> Result<(), Problem> {
    let operator = expression.chars().next().filter(|first| "+#./;?&".contains(*first));
    let style = style(operator);
    let names = &expression[operator.map_or(0, char::len_utf8)..];
    let mut is_first = true;
    for part in names.split(',') {
        let (part, explodes) = part.strip_suffix('*').map_or((part, false), |part| (part, true));
        let (name, length) = match part.split_once(':') {
            Some((name, length)) => (name, length.parse::<usize>().ok()),
            None => (part, None),
        };
        let value = data.get(name).unwrap_or(&Value::Null);
        let pieces = pieces(name, value, explodes, length, &style)?;
        for piece in pieces {
            out.push_str(if is_first { style.first } else { style.between });
            out.push_str(&piece);
            is_first = false;
        }
    }
    Ok(())
}

/// What a variable becomes: nothing, one piece, or one for each item.
fn pieces(
    name: &str,
    value: &Value,
    explodes: bool,
    length: Option<usize>,
    style: &Style,
) -> Result<Vec<String>, Problem> {
    let encode = |text: &str| utf8_percent_encode(text, style.allowed).to_string();
    let text = |value: &Value| {
        as_text(value).ok_or_else(|| {
            Standard::Configuration.problem(format!("`{name}` cannot stand in an address: it nests"))
        })
    };
    let named = |text: String| match (style.is_named, text.is_empty()) {
        (false, _) => text,
        (true, true) => format!("{}{}", encode(name), style.if_empty),
        (true, false) => format!("{}={text}", encode(name)),
    };
    Ok(match value {
        Value::Null => Vec::new(),
        Value::Array(items) => {
            let items: Vec<String> =
                items.iter().map(|item| Ok(encode(&text(item)?))).collect::<Result<_, Problem>>()?;
            match (items.is_empty(), explodes) {
                (true, _) => Vec::new(),
                (false, true) => items.into_iter().map(named).collect(),
                (false, false) => vec![named(items.join(","))],
            }
        }
        Value::Object(fields) => {
            let pairs: Vec<(String, String)> = fields
                .iter()
                .map(|(key, value)| Ok((encode(key), encode(&text(value)?))))
                .collect::<Result<_, Problem>>()?;
            match (pairs.is_empty(), explodes) {
                (true, _) => Vec::new(),
                (false, true) => pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect(),
                (false, false) => {
                    let flat: Vec<String> = pairs.into_iter().flat_map(|(key, value)| [key, value]).collect();
                    vec![named(flat.join(","))]
                }
            }
        }
        one => {
            let whole = text(one)?;
            let text: Cow<'_, str> = match length {
                Some(length) => whole.chars().take(length).collect::<String>().into(),
                None => whole.as_str().into(),
            };
            vec![named(encode(&text))]
        }
    })
}

/// An address as a document has it, with its variables from the task's input.
pub(super) fn written(writing: &Writing<'_>, address: &Address) -> Result<String, Problem> {
    match address {
        Address::Template(template) => expand(template, writing.input),
        Address::Filter(filter) => {
            let value = writing.seeing.value(*filter, writing.input, &writing.sight)?;
            as_text(&value)
                .ok_or_else(|| Standard::Configuration.problem(format!("{} is no address", kind_of(&value))))
        }
    }
}

/// An address that can be asked by HTTP: nothing else is.
pub(crate) fn of_http(address: &str) -> Result<Uri, Problem> {
    let wrong = |detail: String| Standard::Configuration.problem(detail);
    let shown = address.split('?').next().unwrap_or(address);
    let uri: Uri = address.parse().map_err(|why| wrong(format!("`{shown}` is no address: {why}")))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err(wrong(format!("`{shown}` is no address of HTTP: begin with http:// or https://")));
    }
    // What stands there would be sent in the clear and told in problems.
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(wrong("an address holds no name and password: use `authentication`".to_owned()));
    }
    Ok(uri)
}

/// Adds query parameters; a list repeats its name, nothing is left out.
pub(super) fn with_query(address: &str, query: &Value) -> String {
    let Value::Object(fields) = query else { return address.to_owned() };
    let (address, fragment) = match address.split_once('#') {
        Some((address, fragment)) => (address, format!("#{fragment}")),
        None => (address, String::new()),
    };
    let form = form(fields);
    let joint = match (form.is_empty(), address.contains('?')) {
        (true, _) => "",
        (false, true) => "&",
        (false, false) => "?",
    };
    format!("{address}{joint}{form}{fragment}")
}

/// A text as a part of a query.
pub(super) fn encode(text: &str) -> String {
    utf8_percent_encode(text, &UNRESERVED).to_string()
}

/// Fields as `a=1&b=2`.
pub(crate) fn form(fields: &Map<String, Value>) -> String {
    let encode = |text: &str| utf8_percent_encode(text, &UNRESERVED).to_string();
    let mut pairs = Vec::new();
    for (name, value) in fields {
        let values = match value {
            Value::Null => continue,
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            let text = as_text(value).unwrap_or_else(|| value.to_string());
            pairs.push(format!("{}={}", encode(name), encode(&text)));
        }
    }
    pairs.join("&")
}

/// An address for people: what stands behind `?` may be secret.
pub(crate) fn without_query(uri: &http::Uri) -> String {
    let text = uri.to_string();
    text.split('?').next().unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The examples of RFC 6570, section 3.2, as far as they do not ask for an order of keys.
    #[test]
    fn templates_expand_as_the_rfc_has_it() {
        let data = json!({
            "count": ["one", "two", "three"], "var": "value", "hello": "Hello World!", "half": "50%",
            "path": "/foo/bar", "empty": "", "empty_list": [], "x": 1024, "y": 768, "who": "fred",
            "list": ["red", "green", "blue"], "keys": {"comma": ",", "dot": ".", "semi": ";"},
            "base": "http://example.com/home/", "v": "6",
        });
        for (template, expanded) in [
            ("{var}", "value"),
            ("{hello}", "Hello%20World%21"),
            ("{half}", "50%25"),
            ("O{empty}X", "OX"),
            ("O{undef}X", "OX"),
            ("{x,y}", "1024,768"),
            ("?{x,empty}", "?1024,"),
            ("?{undef,y}", "?768"),
            ("{var:3}", "val"),
            ("{var:30}", "value"),
            ("{list}", "red,green,blue"),
            ("{list*}", "red,green,blue"),
            ("{keys}", "comma,%2C,dot,.,semi,%3B"),
            ("{keys*}", "comma=%2C,dot=.,semi=%3B"),
            ("{+hello}", "Hello%20World!"),
            ("{+path}/here", "/foo/bar/here"),
            ("here?ref={+path}", "here?ref=/foo/bar"),
            ("{+x,hello,y}", "1024,Hello%20World!,768"),
            ("{#path:6}here", "#/foo/bhere"),
            ("{#x,hello,y}", "#1024,Hello%20World!,768"),
            ("X{.var}", "X.value"),
            ("X{.empty}", "X."),
            ("X{.undef}", "X"),
            ("X{.list*}", "X.red.green.blue"),
            ("{/who,who}", "/fred/fred"),
            ("{/var,empty}", "/value/"),
            ("{/var:1,var}", "/v/value"),
            ("{/list*}", "/red/green/blue"),
            ("{;x,y,empty}", ";x=1024;y=768;empty"),
            ("{;list*}", ";list=red;list=green;list=blue"),
            ("{?x,y,undef}", "?x=1024&y=768"),
            ("{?x,y,empty}", "?x=1024&y=768&empty="),
            ("{?var:3}", "?var=val"),
            ("{?list*}", "?list=red&list=green&list=blue"),
            ("{?keys*}", "?comma=%2C&dot=.&semi=%3B"),
            ("?fixed=yes{&x}", "?fixed=yes&x=1024"),
            ("{empty_list}", ""),
            ("{?empty_list}", ""),
        ] {
            assert_eq!(expand(template, &data).unwrap(), expanded, "{template}");
        }
        assert!(expand("{deep}", &json!({"deep": [{}]})).is_err());
    }

    #[test]
    fn query_parameters_are_added_before_the_fragment() {
        let query = json!({"a": "x y", "b": [1, 2], "c": null, "d": true});
        assert_eq!(with_query("http://h/p", &query), "http://h/p?a=x%20y&b=1&b=2&d=true");
        assert_eq!(with_query("http://h/p?z=1#f", &query), "http://h/p?z=1&a=x%20y&b=1&b=2&d=true#f");
        assert_eq!(with_query("http://h/p", &json!({})), "http://h/p");
    }
}
