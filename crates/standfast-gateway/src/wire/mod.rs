//! HTTP/1.1 on the wire (RFC 9112): heads, bodies, buffers and streams. No policy.

mod buffer;
mod chunked;
mod fields;
#[cfg(any(test, feature = "fuzzing"))]
mod fuzz;
mod head;
mod stream;

pub(crate) use buffer::{Buffer, BufferPool};
pub(crate) use chunked::{BodyReader, Next, Part, Step, write_chunk, write_last_chunk};
pub(crate) use fields::{Fields, Known};
#[cfg(feature = "fuzzing")]
pub use fuzz::fuzz_http;
pub(crate) use head::{BadAnswer, Framing, RequestHead, ResponseHead, Scanner, digits, is_host};
pub(crate) use stream::Stream;
