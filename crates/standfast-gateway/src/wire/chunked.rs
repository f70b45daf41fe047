//! Bodies of HTTP/1.1 messages: by length, by chunks (RFC 9112, 7.1) or until the connection closes.

use std::io::Write as _;

use bytes::Bytes;

use super::fields::{Fields, Known};
use super::head::Framing;

/// A chunk's size with its extensions; nobody uses extensions, some smuggle with them.
const SIZE_LINE_BYTES_MAX: usize = 256;
/// All trailers of a body.
const TRAILER_BYTES_MAX: usize = 16 << 10;
const TRAILERS_MAX: usize = 64;
/// Besides those that the gateway knows by sight: who asks, what is asked for, and what the body is.
const NO_TRAILERS: [&str; 11] = [
    "content-type",
    "content-encoding",
    "content-range",
    "authorization",
    "set-cookie",
    "cache-control",
    "max-forwards",
    "range",
    "location",
    "www-authenticate",
    "http2-settings",
];

/// Data of a body on its way, borrowed from a read buffer or owned.
#[derive(Debug)]
pub(crate) enum Part<'a> {
    Slice(&'a [u8]),
    Whole(Bytes),
}

impl Part<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Slice(slice) => slice,
            Self::Whole(bytes) => bytes,
        }
    }

    pub(crate) fn into_bytes(self) -> Bytes {
        match self {
            Self::Slice(slice) => Bytes::copy_from_slice(slice),
            Self::Whole(bytes) => bytes,
        }
    }
}

/// What a step on a body came to.
#[derive(Debug)]
pub(crate) enum Step {
    /// The sink was given data.
    Data,
    /// The body is over.
    End(Option<Fields>),
}

/// A body that is not framed as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadBody(pub(crate) &'static str);

/// What comes next in the bytes that are there.
#[derive(Debug)]
pub(crate) enum Next {
    /// So many bytes are to be taken away, of which the last `data` are the body's.
    Data { consumed: usize, data: usize },
    /// So many bytes end the body.
    End { consumed: usize, trailers: Option<Fields> },
    /// More bytes are needed; so many may be taken away.
    More { consumed: usize },
}

/// Where in a body the reader is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyReader {
    Length(u64),
    UntilClose,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Done,
}

impl BodyReader {
    pub(crate) const fn new(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::ChunkSize,
            Framing::UntilClose => Self::UntilClose,
        }
    }

    pub(crate) const fn is_done(self) -> bool {
        matches!(self, Self::Done)
    }

    /// Reads on in `bytes`, which begin where the last step ended.
    ///
    /// # Errors
    /// The framing is not legal: where the message ends is not known.
    pub(crate) fn next(&mut self, bytes: &[u8]) -> Result<Next, BadBody> {
        let mut consumed = 0;
        loop {
            let left = &bytes[consumed..];
            match *self {
                Self::Done => return Ok(Next::End { consumed, trailers: None }),
                Self::UntilClose if left.is_empty() => return Ok(Next::More { consumed }),
                Self::UntilClose => return Ok(Next::Data { consumed: bytes.len(), data: left.len() }),
                Self::Length(length) => {
                    let data = part(left, length);
                    if data == 0 {
                        return Ok(Next::More { consumed });
                    }
                    let rest = length - data as u64;
                    *self = if rest == 0 { Self::Done } else { Self::Length(rest) };
                    return Ok(Next::Data { consumed: consumed + data, data });
                }
                Self::ChunkSize => {
                    let Some((size, line)) = chunk_size(left)? else { return Ok(Next::More { consumed }) };
                    consumed += line;
                    *self = if size == 0 { Self::Trailers } else { Self::ChunkData(size) };
                }
                Self::ChunkData(size) => {
                    let data = part(left, size);
                    if data == 0 {
                        return Ok(Next::More { consumed });
                    }
                    let rest = size - data as u64;
                    *self = if rest == 0 { Self::ChunkEnd } else { Self::ChunkData(rest) };
                    return Ok(Next::Data { consumed: consumed + data, data });
                }
                Self::ChunkEnd => match left {
                    [] | [b'\r'] => return Ok(Next::More { consumed }),
                    [b'\r', b'\n', ..] => {
                        consumed += 2;
                        *self = Self::ChunkSize;
                    }
                    _ => return Err(BadBody("a chunk is longer than its size")),
                },
                Self::Trailers => {
                    let Some((trailers, length)) = read_trailers(left)? else {
                        return Ok(Next::More { consumed });
                    };
                    *self = Self::Done;
                    return Ok(Next::End { consumed: consumed + length, trailers });
                }
            }
        }
    }
}

fn part(left: &[u8], wanted: u64) -> usize {
    left.len().min(usize::try_from(wanted).unwrap_or(usize::MAX))
}

/// The size that the line at the start of `bytes` says, and how long the line is.
fn chunk_size(bytes: &[u8]) -> Result<Option<(u64, usize)>, BadBody> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        // One more for the carriage return: the same line is taken or not however it arrives.
        if bytes.len() > SIZE_LINE_BYTES_MAX + 1 {
            return Err(BadBody("the line of a chunk's size is too long"));
        }
        return Ok(None);
    };
    let line =
        bytes[..end].strip_suffix(b"\r").ok_or(BadBody("a chunk's size ends without a carriage return"))?;
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    if !(1..=16).contains(&digits) || line.len() > SIZE_LINE_BYTES_MAX {
        return Err(BadBody("a chunk's size is not a number"));
    }
    let is_extension = |rest: &[u8]| {
        let first = rest.trim_ascii_start().first();
        rest.is_empty()
            || first == Some(&b';') && rest.iter().all(|byte| *byte == b'\t' || (b' '..=b'~').contains(byte))
    };
    if !is_extension(&line[digits..]) {
        return Err(BadBody("a chunk's size is followed by something else"));
    }
    let size = line[..digits].iter().fold(0_u64, |size, digit| size << 4 | u64::from(hex(*digit)));
    Ok(Some((size, end + 1)))
}

const fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit - b'A' + 10,
    }
}

/// Trailers and the empty line that ends them. Fields that would change what the message is are dropped (RFC 9110, 6.5.1).
fn read_trailers(bytes: &[u8]) -> Result<Option<(Option<Fields>, usize)>, BadBody> {
    match bytes {
        [b'\r', b'\n', ..] => return Ok(Some((None, 2))),
        [] | [b'\r'] => return Ok(None),
        _ => {}
    }
    let mut slots = [httparse::EMPTY_HEADER; TRAILERS_MAX];
    let is_lined =
        |block: &[u8]| (0..block.len()).all(|at| block[at] != b'\n' || at > 0 && block[at - 1] == b'\r');
    match httparse::parse_headers(bytes, &mut slots) {
        Ok(httparse::Status::Complete((length, _))) if length > TRAILER_BYTES_MAX => {
            Err(BadBody("the trailers are too long"))
        }
        Ok(httparse::Status::Complete((length, headers))) => {
            if !is_lined(&bytes[..length]) {
                return Err(BadBody("a trailer ends without a carriage return"));
            }
            let mut fields = Fields::default();
            for header in headers {
                let known = Known::of(header.name.as_bytes());
                if known == Known::Other
                    && !NO_TRAILERS.iter().any(|name| header.name.eq_ignore_ascii_case(name))
                {
                    fields.push(known, header.name, header.value.trim_ascii());
                }
            }
            Ok(Some((Some(fields), length)))
        }
        Ok(httparse::Status::Partial) if bytes.len() <= TRAILER_BYTES_MAX => Ok(None),
        Ok(httparse::Status::Partial) => Err(BadBody("the trailers are too long")),
        Err(_) => Err(BadBody("the trailers are not header fields")),
    }
}

/// Writes one chunk. Empty data writes nothing, since that would be the end.
pub(crate) fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if !data.is_empty() {
        let _a_vector_takes_everything = write!(out, "{:x}\r\n", data.len());
        out.extend_from_slice(data);
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes the end of a chunked body.
pub(crate) fn write_last_chunk(out: &mut Vec<u8>, trailers: Option<&Fields>) {
    out.extend_from_slice(b"0\r\n");
    if let Some(trailers) = trailers {
        trailers.write(out);
    }
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a body that arrives in steps of `step` bytes; what is left behind it comes last.
    fn read(
        framing: Framing,
        bytes: &[u8],
        step: usize,
    ) -> Result<(Vec<u8>, Option<Fields>, usize), BadBody> {
        let (mut reader, mut body, mut at, mut there) = (BodyReader::new(framing), Vec::new(), 0, 0);
        loop {
            match reader.next(&bytes[at..there])? {
                Next::Data { consumed, data } => {
                    body.extend_from_slice(&bytes[at + consumed - data..at + consumed]);
                    at += consumed;
                }
                Next::End { consumed, trailers } => return Ok((body, trailers, at + consumed)),
                Next::More { consumed } => {
                    at += consumed;
                    if there == bytes.len() {
                        return Err(BadBody("over"));
                    }
                    there = (there + step).min(bytes.len());
                }
            }
        }
    }

    #[test]
    fn chunks_are_joined_however_they_arrive() {
        let bytes = b"4;a=\"b\"\r\nWiki\r\n5\r\npedia\r\n0\r\nx-sum: 9\r\nhost: evil\r\n\r\nGET";
        for step in 1..bytes.len() {
            let (body, trailers, end) = read(Framing::Chunked, bytes, step).unwrap();
            assert_eq!((body.as_slice(), end), (&b"Wikipedia"[..], bytes.len() - 3));
            let trailers = trailers.unwrap();
            assert_eq!((trailers.named("x-sum"), trailers.has(Known::Host)), (Some(&b"9"[..]), false));
        }
        assert_eq!(read(Framing::Length(3), b"abcdef", 2).unwrap().2, 3);
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        for bad in [
            "4\nWiki\r\n0\r\n\r\n",
            "4\r\nWikiX\r\n0\r\n\r\n",
            "4 \r\nWiki\r\n0\r\n\r\n",
            "0x4\r\nWiki\r\n0\r\n\r\n",
            "+4\r\nWiki\r\n0\r\n\r\n",
            "-1\r\n\r\n",
            "\r\nWiki\r\n",
            "11111111111111111\r\nW",
            "4;\0\r\nWiki\r\n0\r\n\r\n",
            "0\r\nbad name: 1\r\n\r\n",
            "0\r\nx: 1\n\r\n",
            "4\r\nWiki\n\n0\r\n\r\n",
        ] {
            assert!(read(Framing::Chunked, bad.as_bytes(), 1_000).is_err_and(|e| e.0 != "over"), "{bad:?}");
        }
    }
}
