//! The form of the corpus: `== name` begins a case, `> ` a line of its raw bytes (with CRLF behind it unless it ends with `\`),
//! `key: value` says what is expected, `#` is a remark. Escapes: `\r \n \t \\ \0 \xHH`, and `\*3{ab}` for `ababab`.

/// One case: raw bytes and what is said of them.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    keys: Vec<(String, String)>,
}

impl Case {
    /// All values of a key.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.keys.iter().filter(move |(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    pub(crate) fn get<'a>(&'a self, key: &'a str) -> Option<&'a str> {
        self.all(key).next()
    }
}

/// Reads a file of cases.
pub(crate) fn read(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("== ") {
            cases.push(Case { name: name.to_owned(), bytes: Vec::new(), keys: Vec::new() });
            continue;
        }
        let case = cases.last_mut().unwrap_or_else(|| panic!("no case before {line:?}"));
        if let Some(raw) = line.strip_prefix('>') {
            let raw = raw.strip_prefix(' ').unwrap_or(raw);
            match raw.strip_suffix('\\') {
                Some(raw) => case.bytes.extend(unescape(raw)),
                None => case.bytes.extend(unescape(raw).into_iter().chain(*b"\r\n")),
            }
        } else {
            let (key, value) = line.split_once(':').unwrap_or_else(|| panic!("no key in {line:?}"));
            case.keys.push((key.to_owned(), value.trim().to_owned()));
        }
    }
    cases
}

/// The bytes that a text with escapes stands for.
pub(crate) fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        rest = more;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let (kind, more) = rest.split_first().unwrap_or_else(|| panic!("a lone backslash ends {text:?}"));
        rest = more;
        match kind {
            b'r' => out.push(b'\r'),
            b'n' => out.push(b'\n'),
            b't' => out.push(b'\t'),
            b'0' => out.push(0),
            b'\\' => out.push(b'\\'),
            b'x' => {
                let digits = std::str::from_utf8(&rest[..2]).unwrap_or_default();
                out.push(
                    u8::from_str_radix(digits, 16).unwrap_or_else(|_| panic!("no hex byte in {text:?}")),
                );
                rest = &rest[2..];
            }
            b'*' => {
                let inner = String::from_utf8_lossy(rest);
                let parts =
                    inner.split_once('{').and_then(|(times, rest)| Some((times, rest.split_once('}')?.0)));
                let (times, piece) = parts.unwrap_or_else(|| panic!("no braces in {text:?}"));
                let count = times.parse().unwrap_or_else(|_| panic!("no number in {text:?}"));
                out.extend(unescape(piece).repeat(count));
                rest = &rest[times.len() + piece.len() + 2..];
            }
            other => panic!("no escape `{}` in {text:?}", char::from(*other)),
        }
    }
    out
}
