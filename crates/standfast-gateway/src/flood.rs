//! What a client's HTTP/2 connection may cost, held against what it is for.
//!
//! PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, requests that are refused: such frames cost a client next to nothing and us a
//! look each. Whoever sends little else is thrown out (nginx has had the same rule since CVE-2019-9512 and its like), and nobody holds
//! the worker for longer than some frames take.

use std::cell::Cell;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;

/// What is read of one connection before others have their turn.
const TURN_BYTES: usize = 64 << 10;
/// So much may be read that is of no use, whatever else is read: more than a connection's window, since a body counts when it is taken…
const USELESS_BYTES_MAX: u64 = 4 << 20;
/// …and so many times as much as what is of use.
const USELESS_TIMES_MAX: u64 = 8;
/// What a request counts for, its fields and all that belongs to it.
const REQUEST_BYTES: u64 = 1 << 10;

/// What was read of one connection, and what of that was of use.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    read: Cell<u64>,
    useful: Cell<u64>,
    in_turn: Cell<usize>,
}

impl Traffic {
    /// A request came.
    pub(crate) fn request(&self) {
        self.useful(REQUEST_BYTES);
    }

    /// So much of a body came or went.
    pub(crate) fn useful(&self, bytes: u64) {
        self.useful.set(self.useful.get().saturating_add(bytes));
    }

    /// Whether most of it serves nothing.
    pub(crate) fn is_flood(&self) -> bool {
        let allowed = self.useful.get().saturating_mul(USELESS_TIMES_MAX).saturating_add(USELESS_BYTES_MAX);
        self.read.get() > allowed
    }

    /// The connection's task waits: its next turn begins when it is woken.
    pub(crate) fn rests(&self) {
        self.in_turn.set(0);
    }

    /// Reads by `read`, as long as it is this connection's turn.
    pub(crate) fn poll_read(
        &self,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
        read: impl FnOnce(&mut Context<'_>, &mut ReadBuf<'_>) -> Poll<std::io::Result<()>>,
    ) -> Poll<std::io::Result<()>> {
        if self.in_turn.get() >= TURN_BYTES {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        ready!(read(cx, buf))?;
        let count = buf.filled().len().saturating_sub(before);
        self.in_turn.set(self.in_turn.get().saturating_add(count));
        self.read.set(self.read.get().saturating_add(count as u64));
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Reads until it is others' turn.
    fn turn(traffic: &Traffic) -> usize {
        let (mut all, mut bytes) = (0, [0; 10_000]);
        loop {
            let mut buf = ReadBuf::new(&mut bytes);
            let polled = traffic.poll_read(&mut Context::from_waker(Waker::noop()), &mut buf, |_, buf| {
                buf.set_filled(buf.capacity());
                Poll::Ready(Ok(()))
            });
            if polled.is_pending() {
                traffic.rests();
                return all;
            }
            all += buf.filled().len();
        }
    }

    #[test]
    fn a_turn_ends_and_the_next_begins_with_the_next_wake() {
        let traffic = Traffic::default();
        for _ in 0..3 {
            assert!((TURN_BYTES..TURN_BYTES + 10_000).contains(&turn(&traffic)));
        }
    }

    #[test]
    fn a_flood_is_what_serves_nothing_and_not_what_is_large() {
        let useless = Traffic::default();
        let turns = (0..1_000).take_while(|_| turn(&useless) > 0 && !useless.is_flood()).count();
        assert!((55..65).contains(&turns), "{turns}");
        let upload = Traffic::default();
        for _ in 0..1_000 {
            upload.useful(turn(&upload) as u64);
            assert!(!upload.is_flood());
        }
        let requests = Traffic::default();
        for _ in 0..1_000 {
            // What a request of usual size and its acknowledgements come to.
            turn(&requests);
            (0..30).for_each(|_| requests.request());
            assert!(!requests.is_flood());
        }
    }
}
