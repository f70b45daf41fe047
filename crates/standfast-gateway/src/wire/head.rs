//! Heads of HTTP/1.1 messages (RFC 9112), read strictly: what two parties could read differently is refused, not repaired.

use std::mem::MaybeUninit;

use http::{Method, StatusCode};

use super::fields::{Fields, Known};
use crate::error::Refusal;

/// Where a message's body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// After the last chunk and its trailers.
    Chunked,
    /// When the connection is closed: answers only.
    UntilClose,
}

/// A name longer than this is refused whatever the limit for the whole head is.
const NAME_BYTES_MAX: usize = 4 << 10;
/// Fields of an answer; one with more is not believed.
const ANSWER_FIELDS_MAX: usize = 128;
/// Fields that can be read without an allocation.
const FIELDS_ON_STACK: usize = 100;

/// Looks for the end of a head in bytes that arrive bit by bit, each of them once.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Scanner {
    seen: usize,
}

impl Scanner {
    /// How long the head in `bytes` is, once it is complete. A connection may begin with empty lines.
    ///
    /// # Errors
    /// A line that ends without CR, or a first byte that begins no request.
    pub(crate) fn end_of_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, &'static str> {
        if let Some(first) = bytes.first()
            && !is_token_byte(*first)
        {
            return Err("this does not begin as an HTTP request");
        }
        while let Some(found) = memchr::memchr(b'\n', &bytes[self.seen..]) {
            let at = self.seen + found;
            self.seen = at + 1;
            if at == 0 || bytes[at - 1] != b'\r' {
                return Err("a line ends without a carriage return");
            }
            if at >= 3 && bytes[at - 3..at - 1] == *b"\r\n" {
                return Ok(Some(at + 1));
            }
        }
        self.seen = bytes.len();
        Ok(None)
    }
}

/// A request's head.
#[derive(Debug, Clone)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    /// Where in the fields' text the target lies, in origin form (or `*`).
    target: (usize, usize),
    pub(crate) is_http_11: bool,
    /// What it came by: `HTTP/1.1`.
    pub(crate) protocol: &'static str,
    pub(crate) fields: Fields,
    pub(crate) framing: Framing,
    /// The connection ends after this request.
    pub(crate) wants_close: bool,
    pub(crate) expects_continue: bool,
    /// Another protocol is asked for, one that may be passed on.
    pub(crate) upgrades: bool,
}

impl RequestHead {
    /// Reads a complete head.
    ///
    /// # Errors
    /// Why it is refused.
    pub(crate) fn parse(bytes: &[u8], fields_max: usize) -> Result<Self, Refusal> {
        let mut on_stack = [const { MaybeUninit::uninit() }; FIELDS_ON_STACK];
        let mut on_heap = Vec::new();
        let slots = if fields_max <= FIELDS_ON_STACK {
            &mut on_stack[..fields_max]
        } else {
            on_heap.resize_with(fields_max, MaybeUninit::uninit);
            &mut on_heap[..]
        };
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(bytes, slots) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            Ok(_) => return Err(Refusal::BadRequest("the head does not end where it seems to")),
            Err(error) => return Err(refusal_of(error)),
        }
        let (Some(method), Some(target), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
            return Err(Refusal::BadRequest("the request line is not complete"));
        };
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| Refusal::BadRequest("the method is not one"))?;
        let is_http_11 = version == 1;
        if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(Refusal::BadRequest("the target holds a byte that none may have"));
        }
        let mut fields = Fields::over(bytes, parsed.headers.len());
        let place = |part: &[u8]| part.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
        for header in &*parsed.headers {
            if header.name.len() > NAME_BYTES_MAX {
                return Err(Refusal::HeadTooLarge);
            }
            let (name, value) = (header.name.as_bytes(), header.value.trim_ascii());
            let value_at = if value.is_empty() { 0 } else { place(value) };
            fields.note(place(name), name, value_at, value);
        }
        let target_at = place(target.as_bytes());
        let mut head = Self {
            method,
            target: (target_at, target_at + target.len()),
            is_http_11,
            protocol: if is_http_11 { "HTTP/1.1" } else { "HTTP/1.0" },
            fields,
            framing: Framing::None,
            wants_close: !is_http_11,
            expects_continue: false,
            upgrades: false,
        };
        head.examine()?;
        head.split_target()?;
        Ok(head)
    }

    /// A head that came over HTTP/2, whose framing is that protocol's business.
    pub(crate) fn of_parts(method: Method, target: &str, fields: Fields, framing: Framing) -> Self {
        let mut head = Self {
            method,
            target: (0, 0),
            is_http_11: true,
            protocol: "HTTP/2.0",
            fields,
            framing,
            wants_close: false,
            expects_continue: false,
            upgrades: false,
        };
        head.set_target(target);
        head
    }

    /// One pass over what the fields say of the message itself.
    fn examine(&mut self) -> Result<(), Refusal> {
        let (mut hosts, mut lengths, mut codings) = (0, 0, 0);
        let (mut length, mut upgrades, mut has_upgrade) = (0, 0, false);
        let mut closes = false;
        for (known, _, value) in self.fields.iter() {
            match known {
                Known::Host => {
                    hosts += 1;
                    if !is_host(value) {
                        return Err(Refusal::BadRequest("the host is not a name or address"));
                    }
                }
                Known::ContentLength => {
                    lengths += 1;
                    length =
                        digits(value).ok_or(Refusal::BadRequest("the content-length is not a number"))?;
                }
                Known::TransferEncoding => {
                    codings += 1;
                    if !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Refusal::BadRequest("the transfer-encoding is not `chunked`"));
                    }
                }
                Known::Connection => {
                    for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                        closes |= token.eq_ignore_ascii_case(b"close");
                        self.wants_close &= !token.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                Known::Upgrade => {
                    upgrades += 1;
                    has_upgrade = is_passable_upgrade(value);
                }
                Known::Expect => {
                    if !value.eq_ignore_ascii_case(b"100-continue") {
                        return Err(Refusal::Expectation);
                    }
                    self.expects_continue = self.is_http_11;
                }
                _ => {}
            }
        }
        match (codings, lengths) {
            (0, 0) => {}
            (0, 1) => self.framing = Framing::Length(length),
            (1, 0) if self.is_http_11 => self.framing = Framing::Chunked,
            (1, 0) => return Err(Refusal::BadRequest("HTTP/1.0 knows no transfer-encoding")),
            (0, _) => return Err(Refusal::BadRequest("the content-length is there more than once")),
            (_, 0) => return Err(Refusal::BadRequest("the transfer-encoding is there more than once")),
            _ => {
                return Err(Refusal::BadRequest(
                    "the request has both a content-length and a transfer-encoding",
                ));
            }
        }
        if hosts > 1 {
            return Err(Refusal::BadRequest("the request names its host more than once"));
        }
        if hosts == 0 && self.is_http_11 {
            return Err(Refusal::BadRequest("the request names no host"));
        }
        self.wants_close |= closes;
        // Of several the one that was looked at might not be the one that is passed on.
        self.upgrades = has_upgrade
            && upgrades == 1
            && self.is_http_11
            && self.framing == Framing::None
            && self.fields.has_token(Known::Connection, "upgrade");
        Ok(())
    }

    /// Brings the target into origin form. Its authority counts, whatever the header field says (RFC 9112, 3.2.2).
    fn split_target(&mut self) -> Result<(), Refusal> {
        let text = self.target();
        if self.method == Method::CONNECT {
            return Err(Refusal::Connect);
        }
        if text.starts_with('/') {
            return Ok(());
        }
        if text == "*" && self.method == Method::OPTIONS {
            return Ok(());
        }
        let scheme = ["http://", "https://"]
            .into_iter()
            .find(|scheme| text.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)));
        let rest =
            scheme.map(|scheme| &text[scheme.len()..]).ok_or(Refusal::BadRequest("the target is no path"))?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.is_empty() || !is_host(authority.as_bytes()) {
            return Err(Refusal::BadRequest("the target's authority is not a host"));
        }
        let authority = authority.as_bytes().to_vec();
        let target = match path {
            "" if self.method == Method::OPTIONS => "*".to_owned(), // RFC 9112, 3.2.4
            path if path.starts_with('/') => path.to_owned(),
            query => format!("/{query}"),
        };
        self.fields.set(Known::Host, "host", &authority);
        self.set_target(&target);
        Ok(())
    }

    /// Path and query, or `*`.
    pub(crate) fn target(&self) -> &str {
        // Only ASCII gets here.
        std::str::from_utf8(&self.fields.text()[self.target.0..self.target.1]).unwrap_or_default()
    }

    /// Whether it is a gRPC call.
    pub(crate) fn is_grpc(&self) -> bool {
        self.fields.named("content-type").is_some_and(|kind| kind.starts_with(b"application/grpc"))
    }

    /// Another path and query.
    pub(crate) fn set_target(&mut self, target: &str) {
        self.target = self.fields.keep(target.as_bytes());
    }

    /// The target without its query; `*` is the whole server, `/`.
    pub(crate) fn path(&self) -> &str {
        let target = match self.target() {
            "*" => "/",
            target => target,
        };
        target.split_once('?').map_or(target, |(path, _)| path)
    }

    pub(crate) fn query(&self) -> Option<&str> {
        self.target().split_once('?').map(|(_, query)| query)
    }

    /// The host as the client wrote it, perhaps with a port; empty when there is none.
    pub(crate) fn host(&self) -> &str {
        self.fields.get(Known::Host).and_then(|host| std::str::from_utf8(host).ok()).unwrap_or_default()
    }
}

impl crate::routes::RequestView for RequestHead {
    fn method(&self) -> &str {
        self.method.as_str()
    }

    fn host(&self) -> &str {
        Self::host(self)
    }

    fn path(&self) -> &str {
        Self::path(self)
    }

    fn query(&self) -> Option<&str> {
        Self::query(self)
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        self.fields.named(name)
    }
}

/// An answer's head.
#[derive(Debug, Clone)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    /// Where the reason phrase lies in the text.
    reason: (usize, usize),
    pub(crate) fields: Fields,
    pub(crate) framing: Framing,
    /// The connection can serve another request after this one.
    pub(crate) keeps_alive: bool,
}

/// An answer that cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadAnswer(pub(crate) &'static str);

impl ResponseHead {
    /// About how long it is as HTTP/1.1 writes it.
    pub(crate) fn bytes(&self) -> u32 {
        /// The status line and the empty line.
        const LINES: usize = 19;
        let fields: usize = self.fields.iter().map(|(_, name, value)| name.len() + value.len() + 4).sum();
        u32::try_from(LINES + fields).unwrap_or(u32::MAX)
    }

    /// Reads a complete head; `to_head_request` when it answers a HEAD.
    ///
    /// # Errors
    /// Why it cannot be believed.
    pub(crate) fn parse(bytes: &[u8], to_head_request: bool) -> Result<Self, BadAnswer> {
        let mut slots = [const { MaybeUninit::uninit() }; ANSWER_FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut parsed, bytes, &mut slots) {
            Ok(httparse::Status::Complete(length)) if length == bytes.len() => {}
            _ => return Err(BadAnswer("its head is not one of HTTP/1.1")),
        }
        let (Some(code), Some(version)) = (parsed.code, parsed.version) else {
            return Err(BadAnswer("its status line is not complete"));
        };
        let status = StatusCode::from_u16(code).map_err(|_| BadAnswer("its status is none"))?;
        let place = |part: &[u8]| part.as_ptr().addr().wrapping_sub(bytes.as_ptr().addr());
        let reason = parsed.reason.unwrap_or_default();
        let reason_at = if reason.is_empty() { 0 } else { place(reason.as_bytes()) };
        let mut fields = Fields::over(bytes, parsed.headers.len());
        for header in &*parsed.headers {
            if header.name.len() > NAME_BYTES_MAX {
                return Err(BadAnswer("the name of one of its fields is too long"));
            }
            let (name, value) = (header.name.as_bytes(), header.value.trim_ascii());
            let value_at = if value.is_empty() { 0 } else { place(value) };
            fields.note(place(name), name, value_at, value);
        }
        let mut head = Self {
            status,
            reason: (reason_at, reason_at + reason.len()),
            fields,
            framing: Framing::None,
            keeps_alive: version == 1,
        };
        head.examine(to_head_request)?;
        Ok(head)
    }

    fn examine(&mut self, to_head_request: bool) -> Result<(), BadAnswer> {
        let (mut length, mut lengths, mut is_chunked) = (None, 0, false);
        let is_http_11 = self.keeps_alive;
        let mut closes = false;
        for (known, _, value) in self.fields.iter() {
            match known {
                Known::ContentLength => {
                    let this = digits(value).ok_or(BadAnswer("its content-length is not a number"))?;
                    if length.is_some_and(|other| other != this) {
                        return Err(BadAnswer("it has two lengths"));
                    }
                    length = Some(this);
                    lengths += 1;
                }
                Known::TransferEncoding => {
                    if is_chunked || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(BadAnswer("its transfer-encoding is not `chunked`"));
                    }
                    is_chunked = true;
                }
                Known::Connection => {
                    for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                        closes |= token.eq_ignore_ascii_case(b"close");
                        self.keeps_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                _ => {}
            }
        }
        let has_no_body = to_head_request
            || self.status.is_informational()
            || matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        self.framing = match (length, is_chunked) {
            _ if has_no_body => Framing::None,
            (Some(_), true) => return Err(BadAnswer("it has both a content-length and a transfer-encoding")),
            (_, true) => Framing::Chunked,
            (Some(0), false) => Framing::None,
            (Some(length), false) => Framing::Length(length),
            (None, false) => Framing::UntilClose,
        };
        // Equal lengths become one; one where no body can be is left out, since some would wait for that body (RFC 9110, 8.6).
        let is_never_long = self.status.is_informational() || self.status == StatusCode::NO_CONTENT;
        match length {
            Some(_) if is_never_long => self.fields.remove(Known::ContentLength),
            Some(length) if lengths > 1 => {
                self.fields.set(Known::ContentLength, "content-length", length.to_string().as_bytes());
            }
            _ => {}
        }
        // Who says that a 204 has a body may send one, and chunks are unknown to HTTP/1.0.
        let is_odd = is_never_long && length.is_some_and(|length| length > 0)
            || is_chunked && (is_never_long || !is_http_11);
        self.keeps_alive &= !closes && !is_odd && self.framing != Framing::UntilClose;
        Ok(())
    }

    /// A head that came over HTTP/2.
    pub(crate) const fn of_parts(status: StatusCode, fields: Fields, framing: Framing) -> Self {
        Self { status, reason: (0, 0), fields, framing, keeps_alive: true }
    }

    /// The reason phrase: the replica's own, or the usual one.
    pub(crate) fn reason(&self) -> &[u8] {
        match &self.fields.text()[self.reason.0..self.reason.1] {
            [] => self.status.canonical_reason().unwrap_or_default().as_bytes(),
            own => own,
        }
    }
}

fn refusal_of(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal::HeadTooLarge,
        httparse::Error::Version => Refusal::Version,
        httparse::Error::HeaderName => Refusal::BadRequest("the name of a header field is not one"),
        httparse::Error::HeaderValue => Refusal::BadRequest("the value of a header field is not one"),
        _ => Refusal::BadRequest("the head is not one of HTTP/1.1"),
    }
}

/// A decimal number without sign, spaces or excess (RFC 9110, 8.6).
pub(crate) fn digits(value: &[u8]) -> Option<u64> {
    let is_number = (1..=19).contains(&value.len()) && value.iter().all(u8::is_ascii_digit);
    is_number.then(|| value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')))
}

/// A byte of a token (RFC 9110, 5.6.2).
const fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// A host with or without port: what can stand in a `Host` field (RFC 3986, 3.2.2).
pub(crate) fn is_host(host: &[u8]) -> bool {
    host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~:[]%!$&'()*+,;=".contains(byte))
}

/// Whether an upgrade may be passed on: not to another HTTP, which would carry requests past all checks.
fn is_passable_upgrade(value: &[u8]) -> bool {
    let starts =
        |word: &str| value.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()));
    !value.is_empty()
        && value.iter().all(|byte| is_token_byte(*byte) || *byte == b'/')
        && !starts("h2")
        && !starts("http")
        && !starts("tls")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answers_body_is_framed_as_it_says() {
        let framing =
            |text: &str, is_head| ResponseHead::parse(text.as_bytes(), is_head).map(|head| head.framing);
        assert_eq!(
            framing("HTTP/1.0 404 File not found\r\nContent-Length: 335\r\n\r\n", false),
            Ok(Framing::Length(335))
        );
        assert_eq!(framing("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", true), Ok(Framing::None));
        assert_eq!(framing("HTTP/1.1 204 No\r\ncontent-length: 5\r\n\r\n", false), Ok(Framing::None));
        assert_eq!(framing("HTTP/1.1 200 OK\r\n\r\n", false), Ok(Framing::UntilClose));
        assert_eq!(
            framing("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n", false),
            Ok(Framing::Chunked)
        );
        for bad in [
            "content-length: 5\r\ntransfer-encoding: chunked",
            "content-length: 5\r\ncontent-length: 6",
            "transfer-encoding: gzip, chunked",
        ] {
            assert!(framing(&format!("HTTP/1.1 200 OK\r\n{bad}\r\n\r\n"), false).is_err(), "{bad}");
        }
    }
}
