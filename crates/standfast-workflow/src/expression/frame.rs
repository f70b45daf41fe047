//! What goes over the pipes between the engine and the children that evaluate: frames, each a length in four bytes (big-endian) and
//! as many bytes of JSON. The engine sends [`Begin`], the child answers [`Ready`]; from then on each [`Request`] gets one [`Answer`].
//! Both ends are the same program, so a version that differs ends the connection.

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::failure::Fault;

/// The version of what is said here.
pub(super) const VERSION: u32 = 1;
/// The most that a request's values may be, measured as `value::measure` does.
pub(super) const INPUT_SIZE_MAX: usize = 16 << 20;
/// Longest request in bytes: in JSON a byte of a text takes up to six.
pub(super) const REQUEST_BYTES_MAX: usize = 6 * INPUT_SIZE_MAX + (1 << 20);

/// The first that the engine says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Begin {
    /// How much memory the child lets itself have, in bytes of address space.
    pub(super) memory_max: u64,
}

/// The first that the child says, when it has limited itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ready {
    pub(super) version: u32,
}

/// An evaluation, as the engine writes it.
#[derive(Debug, Serialize)]
pub(super) struct Asked<'a> {
    pub(super) id: u64,
    pub(super) text: &'a str,
    pub(super) variables: &'a [String],
    pub(super) input: &'a Value,
    pub(super) values: &'a [&'a Value],
    pub(super) now_us: u64,
    pub(super) output_bytes_max: usize,
    pub(super) processor_s_max: u64,
}

/// An evaluation, as the child reads it.
#[derive(Debug, Deserialize)]
pub(super) struct Request {
    /// Names the request in its answer.
    pub(super) id: u64,
    pub(super) text: String,
    pub(super) variables: Vec<String>,
    pub(super) input: Value,
    pub(super) values: Vec<Value>,
    pub(super) now_us: u64,
    pub(super) output_bytes_max: usize,
    /// How much of a processor's time the evaluation may take, in seconds: the backstop when the engine has died and nobody kills.
    pub(super) processor_s_max: u64,
}

/// What became of a request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) id: u64,
    pub(super) outcome: Result<Value, Fault>,
}

/// Longest answer in bytes, when its value may count `output_bytes_max` bytes: a byte of a text takes up to six in JSON, a number up
/// to three times what it counts.
pub(super) fn answer_bytes_max(output_bytes_max: usize) -> usize {
    output_bytes_max.saturating_mul(6).saturating_add(16 << 10)
}

/// Writes a frame.
pub(super) fn write(to: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(bytes)?;
    to.flush()
}

/// Reads a frame; none, when there is nothing more.
pub(super) fn read(from: &mut impl Read, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut length = Vec::with_capacity(4);
    from.by_ref().take(4).read_to_end(&mut length)?;
    if length.is_empty() {
        return Ok(None);
    }
    let length: [u8; 4] = length.try_into().map_err(|_| io::Error::from(io::ErrorKind::UnexpectedEof))?;
    let length = u32::from_be_bytes(length);
    if usize::try_from(length).map_or(true, |length| length > bytes_max) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    // The buffer grows with what arrives: a length alone takes no memory.
    let mut bytes = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == u64::from(length) {
        Ok(Some(bytes))
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_as_they_were_written() {
        let mut pipe = Vec::new();
        write(&mut pipe, b"one").unwrap();
        write(&mut pipe, b"").unwrap();
        let mut from = pipe.as_slice();
        assert_eq!(read(&mut from, 3).unwrap().unwrap(), b"one");
        assert_eq!(read(&mut from, 3).unwrap().unwrap(), b"");
        assert!(read(&mut from, 3).unwrap().is_none());
    }

    #[test]
    fn what_is_no_frame_is_an_error() {
        let kind = |bytes: &[u8]| read(&mut &*bytes, 100).unwrap_err().kind();
        assert_eq!(kind(b"<html>"), io::ErrorKind::InvalidData);
        assert_eq!(kind(&[0, 0, 0, 101]), io::ErrorKind::InvalidData);
        assert_eq!(kind(&[0, 0, 0]), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(&[0, 0, 0, 5, b'x']), io::ErrorKind::UnexpectedEof);
    }
}
