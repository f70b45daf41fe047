//! Compose's interpolation: `$NAME`, `${NAME}`, `${NAME:-default}`, `${NAME-default}`, `${NAME:?message}`, `${NAME?message}`,
//! `${NAME:+other}`, `${NAME+other}`, and `$$` for a dollar sign. Defaults, messages and others may hold more of the same.

use crate::diagnostics::shown;

/// Levels of `${A:-${B:-…}}`.
const DEPTH_MAX: usize = 16;
/// Variables without a value that are named for one text, each once.
const UNSET_MAX: usize = 20;

/// What keeps a text from being interpolated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where in the text, in bytes.
    pub(crate) at: usize,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

/// A variable without a value or a default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unset {
    /// Where in the text, in bytes.
    pub(crate) at: usize,
    pub(crate) name: String,
}

/// How to interpolate.
pub(crate) struct Rules<'a> {
    /// The value of a variable.
    pub(crate) lookup: &'a dyn Fn(&str) -> Option<String>,
    /// Whether `${id}` stays as it is, because each request of a load has its own.
    pub(crate) keeps_id: bool,
    /// Longest result in bytes.
    pub(crate) bytes_max: usize,
}

/// Whether interpolation would change the text.
pub(crate) fn concerns(text: &str) -> bool {
    text.contains('$')
}

/// The text with its variables replaced, and those that have no value: Compose puts nothing in their place.
pub(crate) fn interpolate(text: &str, rules: &Rules<'_>) -> Result<(String, Vec<Unset>), Problem> {
    let mut run = Run { rules, unset: Vec::new(), bytes: 0 };
    let out = run.expand(text, 0, 0)?;
    Ok((out, run.unset))
}

struct Run<'a> {
    rules: &'a Rules<'a>,
    unset: Vec<Unset>,
    bytes: usize,
}

impl Run<'_> {
    /// `base` is where `text` begins in the whole text.
    fn expand(&mut self, text: &str, base: usize, depth: usize) -> Result<String, Problem> {
        if depth > DEPTH_MAX {
            return Err(problem(base, format!("more than {DEPTH_MAX} variables within each other"), None));
        }
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(dollar) = rest.find('$') {
            self.put(&mut out, &rest[..dollar], base)?;
            let at = base + (text.len() - rest.len()) + dollar;
            let after = &rest[dollar + 1..];
            if let Some(next) = after.strip_prefix('$') {
                self.put(&mut out, "$", at)?;
                rest = next;
            } else if let Some(inner) = after.strip_prefix('{') {
                let end = closing(inner).ok_or_else(|| {
                    problem(at, "`${` has no `}` after it".to_owned(), Some("write `$$` for a dollar sign"))
                })?;
                let value = self.braced(&inner[..end], at, depth)?;
                self.put(&mut out, &value, at)?;
                rest = &inner[end + 1..];
            } else {
                let length = name_length(after);
                if length == 0 {
                    let message = "a `$` without a variable's name after it".to_owned();
                    return Err(problem(at, message, Some("write `$$` for a dollar sign")));
                }
                let value = self.plain(&after[..length], at);
                self.put(&mut out, &value, at)?;
                rest = &after[length..];
            }
        }
        self.put(&mut out, rest, base)?;
        Ok(out)
    }

    /// What stands between the braces.
    fn braced(&mut self, inner: &str, at: usize, depth: usize) -> Result<String, Problem> {
        let (name, operator) = inner.split_at(name_length(inner));
        if name.is_empty() {
            let message = format!("`${{{}}}` does not begin with a variable's name", shown(inner));
            return Err(problem(at, message, Some("write `$$` for a dollar sign")));
        }
        if operator.is_empty() {
            let kept = self.rules.keeps_id && name == "id";
            return Ok(if kept { "${id}".to_owned() } else { self.plain(name, at) });
        }
        let (or_empty, operator) = match operator.strip_prefix(':') {
            Some(rest) => (true, rest),
            None => (false, operator),
        };
        let value = (self.rules.lookup)(name).filter(|value| !or_empty || !value.is_empty());
        let argument = operator.get(1..).unwrap_or("");
        let argument_at = at + 2 + (inner.len() - argument.len());
        match (operator.chars().next(), value) {
            (Some('-'), Some(value)) | (Some('?'), Some(value)) => Ok(value),
            (Some('-'), None) | (Some('+'), Some(_)) => self.expand(argument, argument_at, depth + 1),
            (Some('+'), None) => Ok(String::new()),
            (Some('?'), None) => {
                let why = self.expand(argument, argument_at, depth + 1)?;
                let why = if why.is_empty() { String::new() } else { format!(": {}", shown(&why)) };
                let hint = format!("set `{}` in the environment", shown(name));
                Err(problem(at, format!("the variable `{}` is required{why}", shown(name)), Some(&hint)))
            }
            _ => {
                let message = format!("`${{{}}}` is not an interpolation", shown(inner));
                Err(problem(at, message, Some("write `${NAME:-default}`, or `$$` for a dollar sign")))
            }
        }
    }

    fn plain(&mut self, name: &str, at: usize) -> String {
        (self.rules.lookup)(name).unwrap_or_else(|| {
            if self.unset.len() < UNSET_MAX && self.unset.iter().all(|unset| unset.name != name) {
                self.unset.push(Unset { at, name: name.to_owned() });
            }
            String::new()
        })
    }

    fn put(&mut self, out: &mut String, piece: &str, at: usize) -> Result<(), Problem> {
        self.bytes = self.bytes.saturating_add(piece.len());
        if self.bytes > self.rules.bytes_max {
            return Err(problem(at, "interpolation makes too much text".to_owned(), None));
        }
        out.push_str(piece);
        Ok(())
    }
}

fn problem(at: usize, message: String, hint: Option<&str>) -> Problem {
    Problem { at, message, hint: hint.map(str::to_owned) }
}

/// Bytes of the variable name that the text begins with.
fn name_length(text: &str) -> usize {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return 0;
    }
    text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count()
}

/// Where the brace is that closes the one before `text`.
fn closing(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut open = 1_usize;
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'$' if bytes.get(at + 1) == Some(&b'$') => at += 1,
            b'$' if bytes.get(at + 1) == Some(&b'{') => {
                open += 1;
                at += 1;
            }
            b'}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lookup(name: &str) -> Option<String> {
        match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        }
    }

    fn run(text: &str) -> Result<(String, Vec<Unset>), Problem> {
        interpolate(text, &Rules { lookup: &lookup, keeps_id: false, bytes_max: 1_000 })
    }

    #[test]
    fn each_form_does_what_compose_does() {
        for (text, expected) in [
            ("x", "x"),
            ("$A-${A}", "1-1"),
            ("${NONE:-d}|${NONE-d}|${EMPTY:-d}|${EMPTY-d}|${A:-d}", "d|d|d||1"),
            ("${A:+y}|${EMPTY:+y}|${EMPTY+y}|${NONE+y}", "y||y|"),
            ("${NONE:-${ALSO:-deep}}", "deep"),
            ("${NONE:-a$$b}", "a$b"),
            ("${A:?must}", "1"),
            ("$$A $${A}", "$A ${A}"),
            ("ä${A}ö", "ä1ö"),
            ("${NONE:-{}}", "{}"),
        ] {
            assert_eq!(run(text).map(|(out, _)| out).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_variable_without_value_is_named_with_its_place() {
        let (out, unset) = run("ab $NONE ${ALSO}").unwrap();
        assert_eq!(out, "ab  ");
        let expected = [(3, "NONE"), (9, "ALSO")].map(|(at, name)| Unset { at, name: name.to_owned() });
        assert_eq!(unset, expected);
    }

    #[test]
    fn what_is_no_interpolation_is_refused_at_its_place() {
        for (text, at) in [
            ("a $", 2),
            ("a $5", 2),
            ("${", 0),
            ("x${}", 1),
            ("${A", 0),
            ("${A!b}", 0),
            ("ab${EMPTY:?say ${A}}", 2),
            ("${NONE:-x${}}", 9),
        ] {
            assert_eq!(run(text).map_err(|problem| problem.at), Err(at), "{text}");
        }
        assert_eq!(run("${EMPTY:?say ${A}}").unwrap_err().message, "the variable `EMPTY` is required: say 1");
        assert!(run(&"${A:-".repeat(1_000)).is_err());
        assert!(run(&("${B:-".repeat(1_000) + &"}".repeat(1_000))).is_err());
        assert!(run(&"$A".repeat(1_001)).is_err());
    }

    #[test]
    fn a_loads_id_is_left_alone() {
        let rules = Rules { lookup: &lookup, keeps_id: true, bytes_max: 1_000 };
        assert_eq!(interpolate("/o/${id}?a=$A", &rules).unwrap().0, "/o/${id}?a=1");
    }
}
