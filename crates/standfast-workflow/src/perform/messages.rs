//! JSON messages of an answer by HTTP as they come: one document, lines of JSON, or a stream of events (server-sent events).

use ::http::header::CONTENT_TYPE;
use ::http::{HeaderMap, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;

use crate::ask::ANSWER_BYTES_MAX;
use crate::run::{Problem, Standard};

/// The messages of an answer.
#[derive(Debug)]
pub(super) struct Messages {
    body: Incoming,
    decoder: Decoder,
    /// Bytes that came.
    read: usize,
    is_ended: bool,
}

impl Messages {
    /// By the answer's type.
    pub(super) fn of(answer: Response<Incoming>) -> Self {
        let (head, body) = answer.into_parts();
        Self { body, decoder: Decoder::of(&head.headers), read: 0, is_ended: false }
    }

    /// The next message; `None` at the end.
    ///
    /// # Cancellation
    /// Nothing is lost: what came is kept until it is a message.
    pub(super) async fn next(&mut self) -> Result<Option<Value>, Problem> {
        loop {
            if let Some(text) = self.decoder.take(self.is_ended) {
                return match serde_json::from_str(&text) {
                    Ok(value) => Ok(Some(value)),
                    Err(why) => Err(broken(format!("a message of the answer is not JSON: {why}"))),
                };
            }
            if self.is_ended {
                return Ok(None);
            }
            match self.body.frame().await {
                None => self.is_ended = true,
                Some(Err(why)) => return Err(broken(format!("the answer broke off: {why}"))),
                Some(Ok(frame)) => {
                    let Ok(bytes) = frame.into_data() else { continue };
                    self.read += bytes.len();
                    if self.read > ANSWER_BYTES_MAX {
                        return Err(broken(format!(
                            "the answer is longer than {} KiB",
                            ANSWER_BYTES_MAX >> 10
                        )));
                    }
                    self.decoder.bytes.extend_from_slice(&bytes);
                }
            }
        }
    }
}

fn broken(detail: String) -> Problem {
    Standard::Communication.problem(detail)
}

/// What tells messages apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Whole,
    Lines,
    Events,
}

/// What has come and is no message yet.
#[derive(Debug)]
struct Decoder {
    way: Way,
    bytes: Vec<u8>,
    /// The data of the event that has begun.
    data: Option<String>,
}

impl Decoder {
    fn of(headers: &HeaderMap) -> Self {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
        let way = match kind.split(';').next().unwrap_or("").trim().to_ascii_lowercase().as_str() {
            "text/event-stream" => Way::Events,
            "application/x-ndjson"
            | "application/jsonl"
            | "application/json-seq"
            | "application/stream+json" => Way::Lines,
            _ => Way::Whole,
        };
        Self { way, bytes: Vec::new(), data: None }
    }

    /// The next message, if it is all there.
    fn take(&mut self, is_ended: bool) -> Option<String> {
        match self.way {
            Way::Whole => {
                if !is_ended {
                    return None;
                }
                let text = text_of(&std::mem::take(&mut self.bytes));
                (!text.trim().is_empty()).then_some(text)
            }
            Way::Lines => loop {
                let line = self.line(is_ended)?;
                // A sequence of JSON texts (RFC 7464) begins each with this sign.
                let line = line.trim_start_matches('\u{1e}').trim();
                if !line.is_empty() {
                    return Some(line.to_owned());
                }
            },
            Way::Events => loop {
                let line = self.line(is_ended)?;
                if line.is_empty() {
                    match self.data.take() {
                        Some(data) if !data.trim().is_empty() => return Some(data),
                        _ => continue,
                    }
                }
                let (name, value) = line.split_once(':').unwrap_or((&line, ""));
                if name == "data" {
                    let value = value.strip_prefix(' ').unwrap_or(value);
                    match &mut self.data {
                        Some(data) => {
                            data.push('\n');
                            data.push_str(value);
                        }
                        None => self.data = Some(value.to_owned()),
                    }
                }
            },
        }
    }

    /// A line without its end, which is `\n`, `\r\n` or `\r`.
    fn line(&mut self, is_ended: bool) -> Option<String> {
        let found = self.bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
        let (end, next) = match found {
            // What follows `\r` tells whether it is an end of its own.
            Some(at) if self.bytes[at] == b'\r' => match self.bytes.get(at + 1) {
                Some(b'\n') => (at, at + 2),
                Some(_) => (at, at + 1),
                None if is_ended => (at, at + 1),
                None => return None,
            },
            Some(at) => (at, at + 1),
            // An event that is not ended by an empty line is none; a last line of JSON is one.
            None if is_ended && !self.bytes.is_empty() => (self.bytes.len(), self.bytes.len()),
            None => return None,
        };
        let line = text_of(&self.bytes[..end]);
        self.bytes.drain(..next);
        Some(line)
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever pieces it comes in, it is the same messages.
    fn messages(way: Way, text: &str) -> Vec<String> {
        let taken = |piece: usize| {
            let mut decoder = Decoder { way, bytes: Vec::new(), data: None };
            let mut found = Vec::new();
            for part in text.as_bytes().chunks(piece) {
                decoder.bytes.extend_from_slice(part);
                found.extend(std::iter::from_fn(|| decoder.take(false)));
            }
            found.extend(std::iter::from_fn(|| decoder.take(true)));
            found
        };
        let whole = taken(text.len().max(1));
        for piece in 1..8 {
            assert_eq!(taken(piece), whole, "{text:?} in pieces of {piece}");
        }
        whole
    }

    #[test]
    fn messages_are_told_apart_however_they_come() {
        assert_eq!(messages(Way::Whole, "{\n}"), ["{\n}"]);
        assert_eq!(messages(Way::Whole, " "), Vec::<String>::new());
        assert_eq!(messages(Way::Lines, "1\n\n2\r\n\u{1e}3"), ["1", "2", "3"]);
        let events = ": hello\r\nevent: a\r\ndata: {\r\ndata: }\r\n\r\ndata:1\n\nid: 7\rdata: 2\r\rdata\n\ndata: not ended";
        assert_eq!(messages(Way::Events, events), ["{\n}", "1", "2"]);
    }
}
