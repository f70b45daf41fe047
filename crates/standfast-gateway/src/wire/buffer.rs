//! Read buffers, which connections have only while something is in them: ten thousand idle ones need none.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::stream::Stream;

/// What one buffer holds unless a head is longer.
const BYTES: usize = 16 << 10;
/// Unused buffers kept by a worker.
const POOLED_MAX: usize = 64;

/// The unused buffers of one worker.
#[derive(Debug, Default)]
pub(crate) struct BufferPool(RefCell<Vec<Vec<u8>>>);

/// Bytes that were read and not used yet.
#[derive(Debug)]
pub(crate) struct Buffer {
    pool: Rc<BufferPool>,
    /// Empty, or initialised as a whole.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    pub(crate) fn new(pool: &Rc<BufferPool>) -> Self {
        Self { pool: Rc::clone(pool), bytes: Vec::new(), start: 0, end: 0 }
    }

    pub(crate) fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Takes the first `count` bytes away.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Reads more, behind what is there; grows to `bytes_max` when it is full. 0 is the end of the stream, or a full buffer.
    pub(crate) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
        bytes_max: usize,
    ) -> Poll<io::Result<usize>> {
        if self.bytes.is_empty() {
            // No buffer before there is something for it.
            ready!(stream.poll_readable(cx))?;
        }
        self.make_room();
        if self.end == self.bytes.len() {
            let larger = (self.bytes.len() * 2).min(bytes_max);
            if larger <= self.bytes.len() {
                return Poll::Ready(Ok(0));
            }
            self.bytes.resize(larger, 0);
        }
        let polled = stream.poll_read(cx, &mut self.bytes[self.end..]);
        match polled {
            Poll::Ready(Ok(count)) => self.end += count,
            _ => self.release(),
        }
        polled
    }

    /// Gives the memory back when nothing is in it.
    pub(crate) fn release(&mut self) {
        if self.is_empty() && !self.bytes.is_empty() {
            let bytes = std::mem::take(&mut self.bytes);
            let mut pooled = self.pool.0.borrow_mut();
            if bytes.len() == BYTES && pooled.len() < POOLED_MAX {
                pooled.push(bytes);
            }
        }
    }

    fn make_room(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = self.pool.0.borrow_mut().pop().unwrap_or_else(|| vec![0; BYTES]);
            (self.start, self.end) = (0, 0);
        } else if self.start > 0 && self.end == self.bytes.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        (self.start, self.end) = (0, 0);
        self.release();
    }
}
