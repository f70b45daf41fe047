//! What the tools of the gateway benchmark share.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// `--name VALUE` and `--switch` words of a command line.
#[derive(Debug, Default)]
pub struct Words {
    values: BTreeMap<String, Vec<String>>,
}

impl Words {
    /// Takes the words apart; those in `switches` have no value, those in `valued` have one, and there are no others.
    ///
    /// # Errors
    /// With another word, or a missing value.
    pub fn parse(words: impl Iterator<Item = String>, switches: &[&str], valued: &[&str]) -> Result<Self> {
        let mut parsed = Self::default();
        let mut words = words;
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix("--") else { bail!("`{word}` is no option") };
            let value = match name {
                _ if switches.contains(&name) => String::new(),
                _ if valued.contains(&name) => {
                    words.next().with_context(|| format!("`{word}` needs a value"))?
                }
                _ => bail!("unknown option `{word}`; known: {switches:?} {valued:?}"),
            };
            parsed.values.entry(name.to_owned()).or_default().push(value);
        }
        Ok(parsed)
    }

    /// Whether it was given.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// All values given under this name.
    pub fn all(&self, name: &str) -> &[String] {
        self.values.get(name).map_or(&[], Vec::as_slice)
    }

    /// The last value given, or this one.
    ///
    /// # Errors
    /// When it does not read as a `T`.
    pub fn get<T: FromStr<Err: Display>>(&self, name: &str, default: T) -> Result<T> {
        match self.all(name).last() {
            None => Ok(default),
            Some(text) => match text.parse() {
                Ok(value) => Ok(value),
                Err(error) => bail!("`--{name} {text}`: {error}"),
            },
        }
    }
}

/// An answer's head, read as far as the benchmark needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Bytes of head and body together.
    pub bytes: usize,
    /// Whether the server ends the connection with it.
    pub closes: bool,
}

/// The answer that `bytes` begin with, when all of it is there; `Err` when it is no HTTP/1.1 answer.
///
/// # Errors
/// [`NotHttp`].
pub fn whole_answer(bytes: &[u8]) -> Result<Option<Answer>, NotHttp> {
    let Some(head_bytes) = find(bytes, b"\r\n\r\n").map(|at| at + 4) else { return Ok(None) };
    let head = str::from_utf8(&bytes[..head_bytes]).map_err(|_| NotHttp)?;
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.get(9..12)?.parse().ok()).ok_or(NotHttp)?;
    let (mut length, mut is_chunked, mut closes) = (0, false, false);
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") {
            length = value.parse().map_err(|_| NotHttp)?;
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            is_chunked = value.eq_ignore_ascii_case("chunked");
        } else if name.eq_ignore_ascii_case("connection") {
            closes = value.eq_ignore_ascii_case("close");
        }
    }
    let body = if is_chunked { chunks(&bytes[head_bytes..])? } else { Some(length) };
    let whole = body.map(|body| head_bytes + body).filter(|bytes_needed| *bytes_needed <= bytes.len());
    Ok(whole.map(|bytes| Answer { status, bytes, closes }))
}

/// The bytes were no HTTP/1.1 answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotHttp;

/// The bytes of a chunked body, when all of it is there.
fn chunks(body: &[u8]) -> Result<Option<usize>, NotHttp> {
    let mut at = 0;
    loop {
        let Some(line) = find(&body[at..], b"\r\n") else { return Ok(None) };
        let text = str::from_utf8(&body[at..at + line]).map_err(|_| NotHttp)?;
        let size = text.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(|_| NotHttp)?;
        at += line + 2 + size + 2;
        if at > body.len() {
            return Ok(None);
        }
        if size == 0 {
            return Ok(Some(at));
        }
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_whole_only_with_their_body() {
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        let whole = Answer { status: 200, bytes: plain.len(), closes: true };
        assert_eq!(whole_answer(plain), Ok(Some(whole)));
        assert_eq!(whole_answer(&plain[..plain.len() - 1]), Ok(None));
        let chunked = b"HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        let whole = Answer { status: 503, bytes: chunked.len(), closes: false };
        assert_eq!(whole_answer(chunked), Ok(Some(whole)));
        assert_eq!(whole_answer(&chunked[..chunked.len() - 1]), Ok(None));
        assert_eq!(whole_answer(b"SSH-2.0\r\n\r\n"), Err(NotHttp));
    }
}
