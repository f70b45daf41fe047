//! The form of the table. `== name` begins a case, `#` is a remark. `> KIND FLAGS STREAM PAYLOAD…` is a frame: flags are `-` or some of
//! `ES`, `EH`, `ACK`, `PAD`, `PRIO` with `+` between; the payload is any of
//!
//! - `get`, `post`: the four pseudo-fields of a request; `[name: value]`: a field; all as literals that enter no table
//! - `<00 ff>`: bytes; `u32=5`: four bytes; `zeros=100`; `x=100`: as many `x`; `"text"`
//!
//! `raw "text"` are bytes without a frame, `await KIND` reads until such a frame comes. Then what is expected:
//!
//! - `about: N`: the stream that is looked at (1); 0 is the connection
//! - `expect:` `answered STATUS` or `reset CODE` on that stream, `goaway CODE`, `closed`, `alive` (a PING behind it is answered)
//! - `rfc:` where the gateway (the crate `h2`) does otherwise than the RFC says, what the RFC says; with `why:` that it is safe
//! - `seen:` how many requests the replica may see; none unless one is answered
//! - `bare:` nothing is said before the frames; `cut:` no PING follows

use h2::Reason;

use crate::corpus::unescape;
use crate::h2_rig::{block, frame};

/// One case.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) steps: Vec<Step>,
    pub(crate) about: u32,
    pub(crate) expected: Reaction,
    pub(crate) by_rfc: Vec<Reaction>,
    pub(crate) has_remark: bool,
    pub(crate) seen_max: usize,
    pub(crate) is_bare: bool,
    pub(crate) is_cut: bool,
}

/// What is done.
pub(crate) enum Step {
    Write(Vec<u8>),
    /// Reads until a frame of this kind comes.
    Await(u8),
}

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reaction {
    Answered(u16),
    Reset(Reason),
    GoAway(Reason),
    Closed,
    Alive,
    /// Neither: what no case expects.
    Silent,
}

impl Reaction {
    /// Whether the connection must go on.
    pub(crate) fn leaves_the_connection(self) -> bool {
        !matches!(self, Self::GoAway(_) | Self::Closed)
    }
}

const KINDS: [&str; 10] = [
    "DATA",
    "HEADERS",
    "PRIORITY",
    "RST_STREAM",
    "SETTINGS",
    "PUSH_PROMISE",
    "PING",
    "GOAWAY",
    "WINDOW_UPDATE",
    "CONTINUATION",
];
const FLAGS: [(&str, u8); 6] = [("-", 0), ("ES", 1), ("ACK", 1), ("EH", 4), ("PAD", 8), ("PRIO", 0x20)];
const CODES: [&str; 14] = [
    "NO_ERROR",
    "PROTOCOL_ERROR",
    "INTERNAL_ERROR",
    "FLOW_CONTROL_ERROR",
    "SETTINGS_TIMEOUT",
    "STREAM_CLOSED",
    "FRAME_SIZE_ERROR",
    "REFUSED_STREAM",
    "CANCEL",
    "COMPRESSION_ERROR",
    "CONNECT_ERROR",
    "ENHANCE_YOUR_CALM",
    "INADEQUATE_SECURITY",
    "HTTP_1_1_REQUIRED",
];

/// Reads the table.
pub(crate) fn read(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix("== ") {
            cases.push(Case {
                name: name.to_owned(),
                steps: Vec::new(),
                about: 1,
                expected: Reaction::Silent,
                by_rfc: Vec::new(),
                has_remark: false,
                seen_max: 0,
                is_bare: false,
                is_cut: false,
            });
            continue;
        }
        let case = cases.last_mut().unwrap_or_else(|| panic!("no case before {line:?}"));
        if let Some(step) = line.strip_prefix("> ") {
            case.steps.push(Step::Write(bytes(step)));
        } else if let Some(kind) = line.strip_prefix("await ") {
            case.steps.push(Step::Await(place(&KINDS, kind)));
        } else {
            say(case, line);
        }
    }
    cases
}

fn say(case: &mut Case, line: &str) {
    let (key, value) = line.split_once(':').unwrap_or_else(|| panic!("no key in {line:?}"));
    let value = value.trim();
    match key {
        "about" => case.about = value.parse().unwrap(),
        "expect" => {
            case.expected = reaction(value);
            if case.by_rfc.is_empty() {
                case.by_rfc = vec![case.expected];
            }
            if let Reaction::Answered(200) = case.expected {
                case.seen_max = case.seen_max.max(1);
            }
        }
        "rfc" => case.by_rfc = value.split(" | ").map(reaction).collect(),
        "why" => case.has_remark = true,
        "seen" => case.seen_max = value.parse().unwrap(),
        "bare" => case.is_bare = true,
        "cut" => case.is_cut = true,
        _ => panic!("no such key: {line:?}"),
    }
}

fn reaction(text: &str) -> Reaction {
    let code = |name: &str| Reason::from(u32::from(place(&CODES, name)));
    match text.split_once(' ') {
        Some(("answered", status)) => Reaction::Answered(status.parse().unwrap()),
        Some(("reset", name)) => Reaction::Reset(code(name)),
        Some(("goaway", name)) => Reaction::GoAway(code(name)),
        None if text == "closed" => Reaction::Closed,
        None if text == "alive" => Reaction::Alive,
        _ => panic!("no reaction: {text:?}"),
    }
}

fn place(names: &[&str], name: &str) -> u8 {
    let place = names.iter().position(|known| *known == name);
    u8::try_from(place.unwrap_or_else(|| panic!("nothing is called {name:?}"))).unwrap()
}

/// The bytes of a frame.
fn bytes(line: &str) -> Vec<u8> {
    if let Some(text) = line.strip_prefix("raw ") {
        return payload(text);
    }
    let mut words = line.splitn(4, ' ');
    let (kind, flags, stream) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
    let kind = match kind.strip_prefix("0x") {
        Some(digits) => u8::from_str_radix(digits, 16).unwrap(),
        None => place(&KINDS, kind),
    };
    let flag = |name: &str| FLAGS.iter().find(|(known, _)| *known == name).map(|(_, bit)| *bit);
    let flags =
        flags.split('+').fold(0, |sum, name| sum | flag(name).unwrap_or_else(|| panic!("no flag: {line}")));
    frame(kind, flags, stream.parse().unwrap(), &payload(words.next().unwrap_or_default()))
}

fn payload(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.trim_start());
    while !rest.is_empty() {
        let end = match rest.as_bytes()[0] {
            b'[' => rest.find(']').unwrap() + 1,
            b'<' => rest.find('>').unwrap() + 1,
            b'"' => rest[1..].find('"').unwrap() + 2,
            _ => rest.find(' ').unwrap_or(rest.len()),
        };
        bytes.extend(part(&rest[..end]));
        rest = rest[end..].trim_start();
    }
    bytes
}

fn part(word: &str) -> Vec<u8> {
    let inner = || &word[1..word.len() - 1];
    let request = |method| {
        block(&[(":method", method), (":scheme", "http"), (":path", "/"), (":authority", "shop.test")])
    };
    match (word.as_bytes()[0], word.split_once('=')) {
        (b'[', _) => {
            let (name, value) = inner().split_once(": ").unwrap();
            let (name, value) =
                (String::from_utf8(unescape(name)).unwrap(), String::from_utf8(unescape(value)).unwrap());
            block(&[(name.as_str(), value.as_str())])
        }
        (b'<', _) => inner().split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect(),
        (b'"', _) => unescape(inner()),
        (_, Some(("u32", number))) => number.parse::<u32>().unwrap().to_be_bytes().to_vec(),
        (_, Some(("zeros", count))) => vec![0; count.parse().unwrap()],
        (_, Some(("x", count))) => vec![b'x'; count.parse().unwrap()],
        (_, None) if word == "get" => request("GET"),
        (_, None) if word == "post" => request("POST"),
        _ => panic!("no payload: {word:?}"),
    }
}
