//! Mutated requests and answers through the parsers: whatever arrives, however it is split, means one thing or is refused.

#[expect(dead_code, reason = "the corpus' own test uses the rest")]
#[path = "../../tests/corpus/format.rs"]
mod format;
#[path = "../../tests/corpus/strict.rs"]
mod strict;

use super::{
    BodyReader, Fields, Framing, Known, Next, RequestHead, ResponseHead, Scanner, write_chunk,
    write_last_chunk,
};
use crate::headers;
use crate::upstream::h1::write_request;

const FIELDS_MAX: usize = 100;
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Largest input that is made.
const INPUT_BYTES_MAX: usize = 96 << 10;

const PIECES: &[&str] = &[
    "\r\n",
    "\n",
    "\r",
    "\r\n\r\n",
    " ",
    "\t",
    ":",
    ",",
    ";",
    "\0",
    "\u{b}",
    "\u{c}",
    "\u{7f}",
    "é",
    "0",
    "5",
    "f",
    "0\r\n\r\n",
    "5\r\nhello\r\n",
    "5;a=b\r\n",
    "GET / HTTP/1.1\r\n",
    "POST /x HTTP/1.0\r\n",
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.1 100 \r\n\r\n",
    "HTTP/1.1 204 X\r\n",
    "HTTP/1.0",
    "Host: a\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "content-length:",
    "Transfer-Encoding: chunked\r\n",
    "transfer-encoding:",
    "chunked",
    "identity",
    "Connection: close\r\n",
    "Connection: ",
    "keep-alive",
    "upgrade",
    "Upgrade: h2c\r\n",
    "Upgrade: websocket\r\n",
    "Expect: 100-continue\r\n",
    "TE: trailers\r\n",
    "Trailer: x\r\n",
    "X: y\r\n",
    "http://b",
    "*",
    "OPTIONS ",
    "CONNECT ",
    "HEAD ",
    "%0d%0a",
    "99999999999999999999",
    "-1",
    "+1",
];

/// One change of an input: what, where, how much, and with which piece.
pub(crate) type Edit = (u8, u16, u16, u16);

/// The raw bytes of the corpus: requests, then answers.
pub(crate) fn corpus() -> (Vec<Vec<u8>>, Vec<Vec<u8>>) {
    let bytes = |text| format::read(text).into_iter().map(|case| case.bytes).collect();
    (
        bytes(include_str!("../../tests/corpus/requests.txt")),
        bytes(include_str!("../../tests/corpus/answers.txt")),
    )
}

/// Changes an input of the corpus, in which `other` is another one.
pub(crate) fn mutate(input: &[u8], other: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut input = input.to_vec();
    for &(kind, at, length, piece) in edits {
        let at = usize::from(at) % (input.len() + 1);
        let end = (at + usize::from(length) % 48).min(input.len());
        let piece = PIECES[usize::from(piece) % PIECES.len()].bytes();
        match kind % 8 {
            0 if at < input.len() => input[at] ^= 1 << (length % 8),
            1 => drop(input.drain(at..end)),
            2..=4 => drop(input.splice(at..at, piece)),
            5 => drop(input.splice(at..end, piece)),
            6 => {
                let from = usize::from(length) % (other.len() + 1);
                let to = (from + 200).min(other.len());
                input.splice(at..at, other[from..to].iter().copied());
            }
            _ => {
                let piece = input[at..end].to_vec();
                input.splice(at..at, piece.repeat(1 << (length % 6)));
            }
        }
        input.truncate(INPUT_BYTES_MAX);
    }
    input
}

/// One message and its body.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Message {
    /// Method and target, or status.
    what: String,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    framing: Framing,
    body: Vec<u8>,
    trailers: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

/// How reading a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// At the end of what came.
    There,
    /// Within a head, or a body.
    Within,
    /// Why may depend on how much was there: two faults, and either is found first.
    Refused,
    /// A message came that is the last.
    Last,
}

fn listed(fields: &Fields) -> Vec<(Vec<u8>, Vec<u8>)> {
    fields.iter().map(|(_, name, value)| (name.to_vec(), value.to_vec())).collect()
}

/// A connection as the codec reads it: bytes that are there, and those still to come, in pieces.
struct Wire<'a> {
    bytes: &'a [u8],
    at: usize,
    there: usize,
    splits: &'a [u16],
    turn: usize,
}

impl Wire<'_> {
    fn unread(&self) -> &[u8] {
        &self.bytes[self.at..self.there]
    }

    /// Whether more came.
    fn fill(&mut self) -> bool {
        let step = match self.splits {
            [] => usize::MAX,
            splits => usize::from(splits[self.turn % splits.len()]) + 1,
        };
        self.turn += 1;
        let before = self.there;
        self.there = self.there.saturating_add(step).min(self.bytes.len());
        self.there > before
    }

    /// The next head, as [`crate::client::Conn::poll_head`] looks for it.
    fn head(&mut self, skips_lines: bool) -> Result<Vec<u8>, End> {
        let mut scanner = Scanner::default();
        loop {
            while skips_lines && self.unread().starts_with(b"\r\n") {
                self.at += 2;
            }
            let unread = self.unread();
            if !matches!(unread, [] | [b'\r']) {
                match scanner.end_of_head(unread) {
                    Err(_) => return Err(End::Refused),
                    Ok(Some(length)) if length <= HEAD_BYTES_MAX => {
                        let head = unread[..length].to_vec();
                        self.at += length;
                        return Ok(head);
                    }
                    Ok(None) if unread.len() < HEAD_BYTES_MAX => {}
                    Ok(_) => return Err(End::Refused),
                }
            }
            if !self.fill() {
                return Err(if self.unread().is_empty() { End::There } else { End::Within });
            }
        }
    }

    fn body(&mut self, framing: Framing) -> Result<(Vec<u8>, Option<Fields>), End> {
        let (mut reader, mut body) = (BodyReader::new(framing), Vec::new());
        loop {
            match reader.next(self.unread()).map_err(|_| End::Refused)? {
                Next::Data { consumed, data } => {
                    assert!(data > 0 && consumed >= data);
                    body.extend_from_slice(&self.unread()[consumed - data..consumed]);
                    self.at += consumed;
                }
                Next::End { consumed, trailers } => {
                    self.at += consumed;
                    return Ok((body, trailers));
                }
                Next::More { consumed } => {
                    self.at += consumed;
                    if !self.fill() {
                        return if framing == Framing::UntilClose {
                            Ok((body, None))
                        } else {
                            Err(End::Within)
                        };
                    }
                }
            }
        }
    }
}

fn wire<'a>(bytes: &'a [u8], splits: &'a [u16]) -> Wire<'a> {
    Wire { bytes, at: 0, there: 0, splits, turn: 0 }
}

/// All requests of a connection, each with what a replica would get of it.
fn requests(bytes: &[u8], splits: &[u16]) -> (Vec<(Message, Vec<u8>)>, End) {
    let (mut wire, mut all) = (wire(bytes, splits), Vec::new());
    let end = loop {
        let head = match wire.head(true) {
            Ok(bytes) => RequestHead::parse(&bytes, FIELDS_MAX).map_err(|_| End::Refused),
            Err(end) => Err(end),
        };
        let head = match head {
            Ok(head) => head,
            Err(end) => break end,
        };
        let (body, trailers) = match wire.body(head.framing) {
            Ok(body) => body,
            Err(end) => break end,
        };
        let closes = head.wants_close;
        let message = Message {
            what: format!("{} {}", head.method, head.target()),
            fields: listed(&head.fields),
            framing: head.framing,
            body,
            trailers: trailers.as_ref().map(listed),
        };
        let sent = sent_on(head, &message.body, trailers.as_ref());
        all.push((message, sent));
        if closes {
            break End::Last;
        }
    };
    (all, end)
}

/// What a replica would get, or nothing when the gateway refuses it for what it says to the gateway.
fn sent_on(mut head: RequestHead, body: &[u8], trailers: Option<&Fields>) -> Vec<u8> {
    let mut out = Vec::new();
    if headers::take_in(&mut head, true).is_err() {
        return out;
    }
    if !head.fields.has(Known::Host) {
        head.fields.push(Known::Host, "host", b"up");
    }
    head.fields.remove(Known::ContentLength);
    let framing = if head.framing == Framing::Length(0) { Framing::None } else { head.framing };
    write_request(&mut out, &head, framing, 1_000);
    if framing == Framing::Chunked {
        for piece in body.chunks(7) {
            write_chunk(&mut out, piece);
        }
        write_last_chunk(&mut out, trailers);
    } else {
        out.extend_from_slice(body);
    }
    out
}

/// All answers of a connection.
fn answers(bytes: &[u8], splits: &[u16], to_head_request: bool) -> (Vec<Message>, End) {
    let (mut wire, mut all) = (wire(bytes, splits), Vec::new());
    let end = loop {
        let head = match wire.head(false) {
            Ok(bytes) => ResponseHead::parse(&bytes, to_head_request).map_err(|_| End::Refused),
            Err(end) => Err(end),
        };
        let head = match head {
            Ok(head) => head,
            Err(end) => break end,
        };
        let reason = head.reason();
        assert!(reason.iter().all(|byte| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f), "{reason:?}");
        let (body, trailers) = match wire.body(head.framing) {
            Ok(body) => body,
            Err(end) => break end,
        };
        all.push(Message {
            what: head.status.to_string(),
            fields: listed(&head.fields),
            framing: head.framing,
            body,
            trailers: trailers.as_ref().map(listed),
        });
        if !head.keeps_alive && !head.status.is_informational() {
            break End::Last;
        }
    };
    (all, end)
}

/// Names and values that can be lines of their own and nothing more.
fn assert_plain(fields: &[(Vec<u8>, Vec<u8>)]) {
    for (name, value) in fields {
        let is_name = !name.is_empty()
            && name.iter().all(|byte| byte.is_ascii_graphic() && !b":,;\"(){}[]<>@/\\=?".contains(byte));
        let is_value = value.iter().all(|byte| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f);
        assert!(is_name && is_value, "{name:?}: {value:?}");
    }
}

/// What is accepted means the same however it arrives, and to a replica that reads it for itself. Returns the requests: method,
/// target and body, before the first that was refused.
///
/// # Panics
/// It does not.
pub(crate) fn check_requests(bytes: &[u8], splits: &[u16]) -> Vec<(String, Vec<u8>)> {
    let whole = requests(bytes, &[]);
    assert_eq!(whole, requests(bytes, splits), "in one piece and in several");
    for (message, sent) in &whole.0 {
        assert_plain(&message.fields);
        if sent.is_empty() {
            continue;
        }
        let read = strict::read(sent);
        let strict::Read::Whole(seen, length) = read else {
            panic!("a replica reads {read:?} of {message:?}")
        };
        assert_eq!(length, sent.len(), "something is left behind {message:?}");
        let framing = match message.framing {
            Framing::None | Framing::UntilClose => "none",
            Framing::Length(_) => "length",
            Framing::Chunked => "chunked",
        };
        assert_eq!((seen.framing, &seen.body), (framing, &message.body));
        assert_eq!(format!("{} {}", seen.method, seen.target), message.what);
        assert!(seen.field("host").is_some());
        assert!(
            seen.field("upgrade").is_none_or(|to| !to.to_ascii_lowercase().starts_with(b"h2")),
            "{seen:?}"
        );
        for name in ["host", "content-length", "transfer-encoding", "connection", "authorization"] {
            assert_eq!(seen.trailer(name), None);
        }
    }
    whole.0.into_iter().map(|(message, _)| (message.what, message.body)).collect()
}

/// The same for answers.
///
/// # Panics
/// What is accepted depends on how it arrives, or is not plain.
pub(crate) fn check_answers(bytes: &[u8], splits: &[u16], to_head_request: bool) -> usize {
    let whole = answers(bytes, &[], to_head_request);
    assert_eq!(whole, answers(bytes, splits, to_head_request), "in one piece and in several");
    for message in &whole.0 {
        assert_plain(&message.fields);
        let lengths =
            message.fields.iter().filter(|(name, _)| Known::of(name) == Known::ContentLength).count();
        assert!(lengths <= 1, "{message:?}");
    }
    whole.0.len()
}

/// `SplitMix64` (Steele, Lea, Flood 2014).
#[cfg(feature = "fuzzing")]
struct Rng(u64);

#[cfg(feature = "fuzzing")]
impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn small(&mut self) -> u16 {
        (self.next() >> 48) as u16
    }
}

/// Makes inputs from a seed while `goes_on`, and checks each. Returns how many there were, and how many messages were accepted.
///
/// # Errors
/// The input that broke a promise.
#[cfg(feature = "fuzzing")]
pub fn fuzz_http(seed: u64, mut goes_on: impl FnMut() -> bool) -> Result<(u64, u64), Vec<u8>> {
    let ((requests, answers), mut rng) = (corpus(), Rng(seed));
    let (mut inputs, mut accepted) = (0, 0);
    while goes_on() {
        let is_request = rng.next() % 2 == 0;
        let all = if is_request { &requests } else { &answers };
        let mut one = || &all[usize::from(rng.small()) % all.len()];
        let (input, other) = (one(), one());
        let edits: Vec<Edit> =
            (0..rng.next() % 6).map(|_| (rng.next() as u8, rng.small(), rng.small(), rng.small())).collect();
        let splits: Vec<u16> = (0..rng.next() % 5).map(|_| rng.small() % 40).collect();
        let input = mutate(input, other, &edits);
        let checked = std::panic::catch_unwind(|| {
            if is_request {
                check_requests(&input, &splits).len()
            } else {
                check_answers(&input, &splits, splits.len() % 4 == 3)
            }
        });
        accepted += checked.map_err(|_| input)? as u64;
        inputs += 1;
    }
    Ok((inputs, accepted))
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::{Arc, Mutex};

    use http_body_util::{BodyExt, Empty};
    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// What hyper takes of the same bytes.
    fn hyper_requests(runtime: &tokio::runtime::Runtime, bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let service = hyper::service::service_fn(|request: hyper::Request<hyper::body::Incoming>| {
            let seen = Arc::clone(&seen);
            async move {
                let (head, body) = request.into_parts();
                if let Ok(body) = body.collect().await {
                    let what = format!("{} {}", head.method, head.uri);
                    seen.lock().unwrap().push((what, body.to_bytes().to_vec()));
                }
                Ok::<_, Infallible>(hyper::Response::new(Empty::<bytes::Bytes>::new()))
            }
        });
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(1 << 20);
            client.write_all(bytes).await.unwrap();
            client.shutdown().await.unwrap();
            let serving = hyper::server::conn::http1::Builder::new()
                .max_buf_size(1 << 20)
                .half_close(true)
                .serve_connection(hyper_util::rt::TokioIo::new(server), service);
            let mut answers = Vec::new();
            let (_refused_or_not, _read) = tokio::join!(serving, client.read_to_end(&mut answers));
        });
        std::mem::take(&mut *seen.lock().unwrap())
    }

    fn edits() -> impl Strategy<Value = Vec<Edit>> {
        proptest::collection::vec(any::<Edit>(), 0..6)
    }

    fn config(cases: u32) -> ProptestConfig {
        ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
    }

    #[test]
    fn a_request_is_the_same_however_it_arrives_and_to_whoever_reads_it() {
        let (corpus, _) = corpus();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let index = 0..corpus.len();
        let splits = proptest::collection::vec(0_u16..40, 0..5);
        let compared = std::cell::Cell::new(0);
        proptest!(config(30_000), |(one in index.clone(), other in index, edits in edits(), splits in splits)| {
            let input = mutate(&corpus[one], &corpus[other], &edits);
            let ours = check_requests(&input, &splits);
            // The preface is another protocol's.
            if !input.starts_with(b"PRI ") {
                for (ours, theirs) in ours.iter().zip(&hyper_requests(&runtime, &input)) {
                    let is_origin = theirs.0.split(' ').nth(1).is_some_and(|target| target.starts_with('/'));
                    compared.set(compared.get() + 1);
                    if is_origin {
                        prop_assert_eq!(ours, theirs);
                    } else {
                        prop_assert_eq!(&ours.1, &theirs.1);
                    }
                }
            }
        });
        assert!(compared.get() > 1_000, "hyper took {}", compared.get());
    }

    #[test]
    fn an_answer_is_the_same_however_it_arrives() {
        let (_, corpus) = corpus();
        let index = 0..corpus.len();
        let splits = proptest::collection::vec(0_u16..40, 0..5);
        proptest!(config(30_000), |(one in index.clone(), other in index, edits in edits(), splits in splits, is_head: bool)| {
            check_answers(&mutate(&corpus[one], &corpus[other], &edits), &splits, is_head);
        });
    }

    #[test]
    fn the_corpus_is_the_same_byte_by_byte() {
        let (requests, answers) = corpus();
        for bytes in requests.iter().filter(|bytes| bytes.len() < 5_000) {
            check_requests(bytes, &[0]);
        }
        for bytes in answers.iter().filter(|bytes| bytes.len() < 5_000) {
            check_answers(bytes, &[0], false);
        }
    }
}
