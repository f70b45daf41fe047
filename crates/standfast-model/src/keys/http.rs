//! The words of HTTP that several keys take: methods, hosts, paths, header fields.

use serde_json::{Value, json};

use crate::shape::{Choice, Context, FromText, Loose, Pattern, Shape, TextKeys, or_variable};

/// Longest path or prefix, in bytes.
const PATH_BYTES_MAX: usize = 8 << 10;
/// Longest value of a header field, in bytes.
const VALUE_BYTES_MAX: usize = 8 << 10;

pub(crate) const METHODS: Choice<&'static str> = Choice(&[
    ("GET", "GET"),
    ("HEAD", "HEAD"),
    ("POST", "POST"),
    ("PUT", "PUT"),
    ("PATCH", "PATCH"),
    ("DELETE", "DELETE"),
    ("OPTIONS", "OPTIONS"),
]);

pub(crate) const HOST: Pattern = Pattern {
    what: "a host name without a port",
    pattern: r"^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$",
    matches: is_host,
};

pub(crate) const HOST_OR_WILDCARD: Pattern = Pattern {
    what: "a host name without a port, or `*.` before one",
    pattern: r"^(\*\.)?[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$",
    matches: |text| is_host(text.strip_prefix("*.").unwrap_or(text)),
};

/// A path as routes know it: without a query.
pub(crate) const PATH: Pattern = Pattern {
    what: "a path that begins with `/`, without a query",
    pattern: r#"^/[!-"$->@-~]*$"#,
    matches: |text| is_path(text) && !text.contains(['?', '#']),
};

/// Names of header fields as keys.
pub(crate) const FIELD_NAMES: TextKeys =
    TextKeys { what: "the name of a header field", pattern: TOKEN_PATTERN, matches: is_token };

const TOKEN_PATTERN: &str = r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$";

pub(crate) fn is_host(text: &str) -> bool {
    let label = |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
    text.len() <= 253
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'))
        && text.split('.').all(label)
}

pub(crate) fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.len() <= PATH_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic())
}

/// A token (RFC 9110): the name of a header field or a cookie.
fn is_token(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(token)
}

/// A token as a value.
pub(crate) struct Token {
    /// What it is, for messages.
    pub(crate) what: &'static str,
    /// Whether its case tells nothing; then it becomes lower case.
    pub(crate) is_lowered: bool,
}

/// The name of a header field, in lower case once read.
pub(crate) const FIELD_NAME: Token = Token { what: "the name of a header field", is_lowered: true };

impl FromText for Token {
    type Value = String;

    fn parse(&self, text: &str) -> Result<String, Option<String>> {
        if !is_token(text) {
            return Err(None);
        }
        Ok(if self.is_lowered { text.to_ascii_lowercase() } else { text.to_owned() })
    }

    fn expected(&self) -> String {
        self.what.to_owned()
    }

    fn json_schema(&self) -> Value {
        json!({"type": "string", "pattern": or_variable(TOKEN_PATTERN)})
    }
}

/// A value that every receiver of a header field takes: visible ASCII characters, blanks and tabs.
pub(crate) fn field_value() -> impl Shape<Value = String> {
    Loose { what: "a text" }.and_then(|text, span, cx: &mut Context<'_>| {
        let is_legal = text.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b));
        if !is_legal {
            let message = format!("{} holds a character that no header field may hold", cx.subject());
            cx.reports.error_hint(span, message, "use visible ASCII characters, blanks and tabs");
        } else if text.len() > VALUE_BYTES_MAX {
            cx.reports.error(span, format!("{} is longer than {VALUE_BYTES_MAX} bytes", cx.subject()));
        }
        (is_legal && text.len() <= VALUE_BYTES_MAX).then_some(text)
    })
}
