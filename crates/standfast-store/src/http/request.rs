//! Reading the parts of a request: path, query and conditional headers.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, Method, header};

use super::answer::Refusal;
use crate::{Is, Version};

/// `%2F` to `/`, and all else as it is; a `+` stands for itself.
///
/// # Errors
/// 400 that says where, when a `%` is without two hexadecimal digits or the bytes are not UTF-8.
pub(super) fn percent_decode(what: &str, text: &str) -> Result<String, Refusal> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = after.get(..2).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
            let byte = digits
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .and_then(|digits| u8::from_str_radix(digits, 16).ok());
            let Some(byte) = byte else {
                let at = text.len() - rest.len() + 1;
                let message = format!(
                    "the {what} has a `%` without two hexadecimal digits at byte {at}; write `%25` for a `%`"
                );
                return Err(Refusal::malformed(message));
            };
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to() + 1;
        Refusal::malformed(format!("the {what} is not UTF-8 at byte {at} of its decoded form"))
    })
}

/// The parameters after the `?`: each one that is allowed, once.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<&'static str, String>);

impl Query {
    pub(super) fn parse(query: Option<&str>, allowed: &[&'static str]) -> Result<Self, Refusal> {
        let mut parameters = BTreeMap::new();
        for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(name) = allowed.iter().find(|allowed| **allowed == name) else {
                let known = if allowed.is_empty() { "there is none here".into() } else { allowed.join(", ") };
                let name = name.chars().take(80).collect::<String>();
                return Err(Refusal::malformed(format!("unknown parameter `{name}` (known: {known})")));
            };
            let value = percent_decode(&format!("parameter `{name}`"), value)?;
            if parameters.insert(*name, value).is_some() {
                return Err(Refusal::malformed(format!("parameter `{name}` is given twice")));
            }
        }
        Ok(Self(parameters))
    }

    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// A whole number between `min` and `max`.
    pub(super) fn number(&mut self, name: &str, min: u64, max: u64) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let digits_only = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse().ok().filter(|number| digits_only && (min..=max).contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(Refusal::malformed(format!(
                "parameter `{name}` must be a whole number from {min} to {max}"
            ))),
        }
    }

    /// `true` or `false`; false when absent.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, Refusal> {
        match self.take(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Refusal::malformed(format!("parameter `{name}` must be `true` or `false`"))),
        }
    }
}

/// What the conditional headers of a write ask for.
pub(super) fn condition(method: &Method, headers: &HeaderMap) -> Result<Option<Is>, Refusal> {
    let if_match = only(headers, &header::IF_MATCH)?;
    let if_none_match = only(headers, &header::IF_NONE_MATCH)?;
    match (if_match, if_none_match) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Refusal::malformed("`If-Match` and `If-None-Match` exclude each other")),
        (Some("*"), None) => Ok(Some(Is::Present)),
        (Some(tag), None) => match version_of(tag) {
            Some(version) => Ok(Some(Is::Version(version))),
            None => {
                Err(Refusal::malformed("`If-Match` must be `*` or one version in quotes, as in `\"42\"`"))
            }
        },
        (None, Some("*")) if *method == Method::PUT => Ok(Some(Is::Absent)),
        (None, Some(_)) => Err(Refusal::malformed("`If-None-Match` must be `*`, and only with PUT")),
    }
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match value.to_str() {
        Ok(text) if values.next().is_none() => Ok(Some(text.trim())),
        _ => Err(Refusal::malformed(format!("header `{name}` must be given once, in ASCII"))),
    }
}

fn version_of(tag: &str) -> Option<Version> {
    let digits = tag.strip_prefix('"')?.strip_suffix('"')?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok().map(Version))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_signs_are_decoded_or_refused_with_their_place() {
        let decode = |text| percent_decode("key", text).map_err(|refusal| refusal.message);
        assert_eq!(decode("a/b%2Fc%20+%c3%A9").unwrap(), "a/b/c +é");
        let wrong = |at| {
            format!("the key has a `%` without two hexadecimal digits at byte {at}; write `%25` for a `%`")
        };
        for (text, at) in [("%", 1), ("ab%2", 3), ("a%zz", 2), ("%20%+1", 4), ("%é", 1)] {
            assert_eq!(decode(text), Err(wrong(at)), "{text}");
        }
        assert_eq!(decode("ab%ff"), Err("the key is not UTF-8 at byte 3 of its decoded form".into()));
    }

    #[test]
    fn versions_are_digits_in_quotes() {
        assert_eq!(version_of("\"42\""), Some(Version(42)));
        for wrong in ["42", "\"\"", "\"", "\"+4\"", "W/\"4\"", "\"4\", \"5\"", "\"99999999999999999999\""] {
            assert_eq!(version_of(wrong), None, "{wrong}");
        }
    }
}
