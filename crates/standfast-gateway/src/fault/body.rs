//! An answer that was tampered with on its way: slower, shorter, or not the same. One fault each; several lie in each other.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use standfast_model::Stamp;
use standfast_runtime::{Clock, Rng};

use super::inject::{Acting, Injected};
use super::set::Active;
use super::what::Act;
use crate::body::{AnswerBody, BrokenOff};
use crate::client::Conn;
use crate::wire::{Part, ResponseHead, Step};

/// A body at so many bytes a second comes in parts of so long, or byte by byte.
const PART_EVERY: Duration = Duration::from_millis(50);
/// The longest that is slept at a time, so that a fault that ends is noticed.
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// A body that one fault changes.
pub(crate) struct Tampered {
    inner: AnswerBody,
    tamper: Tamper,
    active: Arc<Active>,
    injected: Rc<Injected>,
    clock: Clock,
    rng: Rng,
    /// Since it has hit.
    acting: Option<Acting>,
}

enum Tamper {
    /// The head, not the body.
    SlowHead(Duration),
    Throttle {
        bytes_per_second: u64,
        /// What may not go yet.
        held: Bytes,
        /// When more may go.
        due: Stamp,
        sleep: Option<Pin<Box<dyn Future<Output = ()>>>>,
    },
    Truncate {
        bytes_left: u64,
    },
    Corrupt {
        share: f64,
        /// Bytes before the next one that is changed.
        skip: u64,
    },
}

impl Tampered {
    pub(super) fn new(
        inner: AnswerBody,
        active: Arc<Active>,
        injected: Rc<Injected>,
        clock: Clock,
        mut rng: Rng,
    ) -> Self {
        let tamper = match *active.fault.act() {
            Act::Throttle(bytes_per_second) => {
                Tamper::Throttle { bytes_per_second, held: Bytes::new(), due: clock.now(), sleep: None }
            }
            Act::Corrupt(share) => Tamper::Corrupt { share, skip: skip(share, &mut rng) },
            Act::Truncate(bytes_left) => Tamper::Truncate { bytes_left },
            Act::SlowHead(every) => Tamper::SlowHead(every),
            Act::Delay(..) | Act::Abort(..) | Act::Reset(_) | Act::Blackhole(_) => {
                // They are done before there is a body.
                Tamper::Truncate { bytes_left: u64::MAX }
            }
        };
        Self { inner, tamper, active, injected, clock, rng, acting: None }
    }

    /// Reads on; the sink is called once at most.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Part<'_>),
    ) -> Poll<Result<Step, BrokenOff>> {
        match self.tamper {
            Tamper::SlowHead(_) => self.inner.poll_next(cx, sink),
            Tamper::Throttle { .. } => self.poll_throttled(cx, sink),
            Tamper::Truncate { .. } => self.poll_truncated(cx, sink),
            Tamper::Corrupt { .. } => self.poll_corrupted(cx, sink),
        }
    }

    fn hit(&mut self) {
        if self.acting.is_none() {
            self.acting = Some(self.injected.hit(&self.active));
        }
    }

    fn poll_throttled(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Part<'_>),
    ) -> Poll<Result<Step, BrokenOff>> {
        let Tamper::Throttle { bytes_per_second, held, due, sleep } = &mut self.tamper else {
            return Poll::Ready(Err(BrokenOff));
        };
        let (rate, clock) = (*bytes_per_second as f64, self.clock);
        loop {
            if let Some(sleeping) = sleep {
                ready!(sleeping.as_mut().poll(cx));
                *sleep = None;
            }
            let now = clock.now();
            let is_over = self.active.is_over(now);
            if !is_over && now < *due {
                let pause = due.since(now).min(SLEEP_MAX);
                *sleep = Some(Box::pin(async move { clock.sleep(pause).await }));
                continue;
            }
            if held.is_empty() {
                let step = ready!(self.inner.poll_next(cx, &mut |part| *held = part.into_bytes()));
                match step {
                    Ok(Step::Data) if held.is_empty() => continue,
                    Ok(Step::Data) => {}
                    other => return Poll::Ready(other),
                }
            }
            if is_over {
                sink(Part::Whole(std::mem::take(held)));
                return Poll::Ready(Ok(Step::Data));
            }
            let most = (rate * PART_EVERY.as_secs_f64()).max(1.0) as usize;
            let part = held.split_to(held.len().min(most));
            *due = (*due).max(now).plus(Duration::from_secs_f64(part.len() as f64 / rate));
            sink(Part::Whole(part));
            self.hit();
            return Poll::Ready(Ok(Step::Data));
        }
    }

    fn poll_truncated(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Part<'_>),
    ) -> Poll<Result<Step, BrokenOff>> {
        if self.acting.is_some() {
            return Poll::Ready(Err(BrokenOff));
        }
        let is_over = self.active.is_over(self.clock.now());
        let Tamper::Truncate { bytes_left } = &mut self.tamper else { return Poll::Ready(Err(BrokenOff)) };
        let (mut is_cut, mut is_empty) = (false, false);
        let step = ready!(self.inner.poll_next(cx, &mut |part| {
            let mut bytes = part.into_bytes();
            if !is_over && bytes.len() as u64 > *bytes_left {
                is_cut = true;
                // Not more than a length in memory.
                bytes.truncate(*bytes_left as usize);
            }
            *bytes_left = bytes_left.saturating_sub(bytes.len() as u64);
            is_empty = bytes.is_empty();
            sink(Part::Whole(bytes));
        }));
        if is_cut {
            self.hit();
            // Its connection is broken with it.
            self.inner = AnswerBody::Empty;
            if is_empty {
                return Poll::Ready(Err(BrokenOff));
            }
        }
        Poll::Ready(step)
    }

    fn poll_corrupted(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Part<'_>),
    ) -> Poll<Result<Step, BrokenOff>> {
        let is_over = self.active.is_over(self.clock.now());
        let Tamper::Corrupt { share, skip: skipped } = &mut self.tamper else {
            return Poll::Ready(Err(BrokenOff));
        };
        let rng = &mut self.rng;
        let mut has_hit = false;
        let step = ready!(self.inner.poll_next(cx, &mut |part| {
            let length = part.as_slice().len() as u64;
            if is_over || *skipped >= length {
                *skipped = skipped.saturating_sub(length);
                return sink(part);
            }
            has_hit = true;
            let mut bytes = part.as_slice().to_vec();
            while let Some(byte) = usize::try_from(*skipped).ok().and_then(|at| bytes.get_mut(at)) {
                // Never the same as before.
                *byte ^= 1 + (rng.bits() % 255) as u8;
                *skipped = skipped.saturating_add(1).saturating_add(skip(*share, rng));
            }
            *skipped -= length;
            sink(Part::Whole(bytes.into()));
        }));
        if has_hit {
            self.hit();
        }
        Poll::Ready(step)
    }

    pub(crate) fn send_request(&mut self, cx: &mut Context<'_>) {
        self.inner.send_request(cx);
    }

    pub(crate) fn finish(&mut self) {
        self.inner.finish();
    }

    pub(crate) fn is_sending(&self) -> bool {
        self.inner.is_sending()
    }

    pub(crate) fn is_complete(&self) -> bool {
        self.inner.is_complete() && !matches!(&self.tamper, Tamper::Throttle { held, .. } if !held.is_empty())
    }

    /// How slowly the head is to come, if it is.
    pub(crate) fn slow_head(&self) -> Option<SlowHead> {
        match self.tamper {
            Tamper::SlowHead(every) => Some(SlowHead {
                every,
                active: Arc::clone(&self.active),
                injected: Rc::clone(&self.injected),
                clock: self.clock,
            }),
            _ => self.inner.slow_head(),
        }
    }
}

/// How many bytes stay as they are before the next one that does not: each is hit with the same chance.
fn skip(share: f64, rng: &mut Rng) -> u64 {
    if share >= 1.0 {
        return 0;
    }
    // As floating point numbers become integers, the largest are cut.
    (rng.exponential() / -(-share).ln_1p()) as u64
}

/// An answer's head that comes byte by byte.
pub(crate) struct SlowHead {
    every: Duration,
    active: Arc<Active>,
    injected: Rc<Injected>,
    clock: Clock,
}

impl SlowHead {
    /// Writes what is to be written to a client that speaks HTTP/1.1, one byte at a time; what is left when the fault is over stays to
    /// be written.
    ///
    /// # Errors
    /// The client is gone.
    pub(crate) async fn dribble(self, conn: &RefCell<Conn>) -> io::Result<()> {
        let _acting = self.injected.hit(&self.active);
        let head = std::mem::take(&mut conn.borrow_mut().out);
        let mut left = head.as_slice();
        while let Some((byte, after)) = left.split_first()
            && !self.active.is_over(self.clock.now())
        {
            conn.borrow_mut().out.push(*byte);
            std::future::poll_fn(|cx| conn.borrow_mut().poll_write_out(cx)).await?;
            left = after;
            self.active.hold(self.clock, self.every).await;
        }
        conn.borrow_mut().out.extend_from_slice(left);
        Ok(())
    }

    /// For HTTP/2, which has no such thing as half a head: waits as long as it would have taken.
    pub(crate) async fn wait(self, head: &ResponseHead) {
        let _acting = self.injected.hit(&self.active);
        self.active.hold(self.clock, self.every.saturating_mul(head.bytes())).await;
    }
}
