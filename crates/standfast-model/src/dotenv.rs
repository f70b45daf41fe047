//! Files of variables, as Compose reads them: `NAME=value` lines, `export` before them, `#` comments, values in single quotes
//! (taken as they are) or double quotes (with `\n`, `\t`, `\"`, `\\`, and over several lines).

use crate::keys::is_variable;

/// One line's variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) name: String,
    /// Absent when the line holds only a name: the variable is passed on.
    pub(crate) value: Option<String>,
    /// Whether `$` means something in the value.
    pub(crate) interpolated: bool,
    /// Where the name stands, in bytes.
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) message: &'static str,
}

/// Reads all lines, good and bad.
pub(crate) fn read(text: &str) -> (Vec<Line>, Vec<Problem>) {
    let (mut lines, mut problems) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let line_end = at + rest.find('\n').unwrap_or(rest.len());
        let line = &text[at..line_end];
        let content = line.trim_start();
        let mut start = at + (line.len() - content.len());
        let mut next = line_end + 1;
        if !content.trim_end().is_empty() && !content.starts_with('#') {
            if let Some(name) = content.strip_prefix("export ") {
                start += content.len() - name.trim_start().len();
            }
            match variable(text, start, line_end) {
                Ok((line, end)) => {
                    lines.push(line);
                    next = end;
                }
                Err(problem) => problems.push(problem),
            }
        }
        at = next;
    }
    (lines, problems)
}

/// The variable whose name begins at `start`, and where the next line begins.
fn variable(text: &str, start: usize, line_end: usize) -> Result<(Line, usize), Problem> {
    let line = &text[start..line_end];
    let equals = line.find('=');
    let name = line[..equals.unwrap_or(line.len())].trim_end();
    let end = start + name.len();
    if !is_variable(name) {
        return Err(Problem { start, end: line_end, message: "this is neither `NAME=value` nor `NAME`" });
    }
    let made = |value, interpolated| Line { name: name.to_owned(), value, interpolated, start, end };
    let Some(equals) = equals else {
        return Ok((made(None, false), line_end + 1));
    };
    let raw = &line[equals + 1..];
    let value = raw.trim_start_matches([' ', '\t']);
    let quote_at = start + equals + 1 + (raw.len() - value.len());
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => {
            let unclosed = Problem { start: quote_at, end: line_end, message: "this quote is not closed" };
            let (value, after) = quoted(&text[quote_at + 1..], quote).ok_or(unclosed)?;
            let after = quote_at + 1 + after;
            let end_of_last = after + text[after..].find('\n').unwrap_or(text.len() - after);
            let tail = text[after..end_of_last].trim();
            if !tail.is_empty() && !tail.starts_with('#') {
                return Err(Problem {
                    start: after,
                    end: end_of_last,
                    message: "text after the closing quote",
                });
            }
            Ok((made(Some(value), quote == '"'), end_of_last + 1))
        }
        _ => {
            let comment = value.find(" #").or_else(|| value.find("\t#")).unwrap_or(value.len());
            let value = if value.starts_with('#') { "" } else { value[..comment].trim_end() };
            Ok((made(Some(value.to_owned()), true), line_end + 1))
        }
    }
}

/// The text up to the closing quote, and where the text after it begins.
fn quoted(text: &str, quote: char) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Some((out, at + 1)),
            '\\' if quote == '"' => match chars.next()?.1 {
                'n' => out.push('\n'),
                'r' => out.push('\r'),
                't' => out.push('\t'),
                c @ ('"' | '\\') => out.push(c),
                '$' => out.push_str("$$"),
                c => out.extend(['\\', c]),
            },
            c => out.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_as_compose_reads_them() {
        let text = "# comment\n\nA=1\nexport B = two words # gone\nC='$raw \\n' # c\nD=\"x\\n${A}\ny\"\nE\nF=\nG=a#b\r\n";
        let (lines, problems) = read(text);
        assert_eq!(problems, []);
        let seen: Vec<_> =
            lines.iter().map(|line| (line.name.as_str(), line.value.as_deref(), line.interpolated)).collect();
        assert_eq!(
            seen,
            [
                ("A", Some("1"), true),
                ("B", Some("two words"), true),
                ("C", Some("$raw \\n"), false),
                ("D", Some("x\n${A}\ny"), true),
                ("E", None, false),
                ("F", Some(""), true),
                ("G", Some("a#b"), true),
            ]
        );
        assert_eq!(&text[lines[1].start..lines[1].end], "B");
    }

    #[test]
    fn every_bad_line_is_found() {
        let (lines, problems) = read("ok=1\na b=2\n=3\nC='x\nD=\"y\" z\nlast=9");
        assert_eq!(lines.iter().map(|line| line.name.as_str()).collect::<Vec<_>>(), ["ok", "last"]);
        let messages: Vec<_> = problems.iter().map(|problem| (problem.start, problem.message)).collect();
        assert_eq!(messages.len(), 4, "{messages:?}");
        assert_eq!(problems[2].message, "this quote is not closed");
    }
}
