//! Short waits of many requests, behind one timer of the runtime.
//!
//! Nearly every attempt is answered long before its patience ends, so what counts is what a wait costs that never ends: here a place
//! in a heap. A timer of the runtime costs more, since one that is due before all others wakes the runtime's thread up (a write to
//! an eventfd and a turn of the poll that finds nothing): two more system calls for most requests of a gateway that is not busy.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::future::Future;
use std::task::{Poll, Waker};
use std::time::Duration;

use standfast_model::Stamp;
use tokio::sync::Notify;

/// Waits from this on are no alarms: a heap forgets what was given up only when its time comes.
pub(crate) const ALARM_MAX: Duration = Duration::from_millis(20);
/// From one look at what is due to the next: how much later than its time an alarm may ring.
const GRAIN: Duration = Duration::from_millis(1);

/// The alarms of one worker. They ring as long as somebody sleeps until [`Alarms::next`] and calls [`Alarms::ring`].
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    inner: RefCell<Inner>,
    earlier: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    due: BinaryHeap<Reverse<(Stamp, Id)>>,
    places: Vec<Place>,
    free: Vec<usize>,
    /// Until when the one who rings sleeps.
    asleep_until: Stamp,
    rung: Stamp,
}

#[derive(Debug, Default)]
struct Place {
    /// How many alarms had this place before.
    uses: u64,
    waker: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    place: usize,
    uses: u64,
}

/// One wait; given up when it is dropped.
struct Alarm<'a> {
    alarms: &'a Alarms,
    id: Id,
}

impl Alarms {
    /// Runs `work` until `at`; `None` when that came first, up to a millisecond late.
    pub(crate) async fn until<T>(&self, at: Stamp, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut alarm = None;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            match &alarm {
                None => alarm = Some(self.set(at, cx.waker())),
                Some(alarm) if alarm.has_rung(cx.waker()) => return Poll::Ready(None),
                Some(_) => {}
            }
            Poll::Pending
        })
        .await
    }

    /// When to ring next, if that is before `tick`.
    pub(crate) fn next(&self, tick: Stamp) -> Stamp {
        let inner = &mut *self.inner.borrow_mut();
        let due = inner.due.peek().map_or(tick, |Reverse((at, _))| (*at).max(inner.rung.plus(GRAIN)));
        inner.asleep_until = due.min(tick);
        inner.asleep_until
    }

    /// Waits for an alarm that is due before [`Alarms::next`].
    pub(crate) async fn earlier(&self) {
        self.earlier.notified().await;
    }

    /// Wakes those whose time has come.
    pub(crate) fn ring(&self, now: Stamp) {
        let inner = &mut *self.inner.borrow_mut();
        inner.rung = now;
        while inner.due.peek().is_some_and(|Reverse((at, _))| *at <= now) {
            let Some(Reverse((_, id))) = inner.due.pop() else { break };
            // To wake one only puts it into a queue: nothing here is asked again before this is over.
            if let Some(place) = inner.places.get_mut(id.place).filter(|place| place.uses == id.uses)
                && let Some(waker) = place.waker.take()
            {
                waker.wake();
            }
        }
    }

    fn set(&self, at: Stamp, waker: &Waker) -> Alarm<'_> {
        let inner = &mut *self.inner.borrow_mut();
        let place = inner.free.pop().unwrap_or_else(|| {
            inner.places.push(Place::default());
            inner.places.len() - 1
        });
        inner.places[place].waker = Some(waker.clone());
        let id = Id { place, uses: inner.places[place].uses };
        inner.due.push(Reverse((at, id)));
        if at < inner.asleep_until {
            self.earlier.notify_one();
        }
        Alarm { alarms: self, id }
    }
}

impl Alarm<'_> {
    /// Whether it has rung; if not it will wake `waker`.
    fn has_rung(&self, waker: &Waker) -> bool {
        let place = &mut self.alarms.inner.borrow_mut().places[self.id.place];
        let Some(kept) = &mut place.waker else { return true };
        kept.clone_from(waker);
        false
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        let inner = &mut *self.alarms.inner.borrow_mut();
        let place = &mut inner.places[self.id.place];
        place.uses += 1;
        place.waker = None;
        inner.free.push(self.id.place);
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Wake};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn at(millis: u64) -> Stamp {
        Stamp::from_micros(1_000_000 + millis * 1_000)
    }

    #[test]
    fn an_alarm_rings_at_its_time_and_not_before() {
        let (alarms, woken) = (Alarms::default(), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let cx = &mut Context::from_waker(&waker);
        let mut late = pin!(alarms.until(at(5), std::future::pending::<()>()));
        let mut soon = pin!(alarms.until(at(3), std::future::pending::<()>()));
        assert!(late.as_mut().poll(cx).is_pending() && soon.as_mut().poll(cx).is_pending());
        assert_eq!(alarms.next(at(20)), at(3));
        alarms.ring(at(2));
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        alarms.ring(at(3));
        assert_eq!(woken.0.load(Ordering::SeqCst), 1);
        assert_eq!(soon.as_mut().poll(cx), Poll::Ready(None));
        assert!(late.as_mut().poll(cx).is_pending());
        alarms.ring(at(9));
        assert_eq!(late.as_mut().poll(cx), Poll::Ready(None));
    }

    #[test]
    fn one_that_was_given_up_wakes_nobody_and_its_place_is_used_again() {
        let (alarms, woken) = (Alarms::default(), Arc::new(Woken::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let cx = &mut Context::from_waker(&waker);
        for millis in 0..100 {
            let mut given_up = pin!(alarms.until(at(3), std::future::pending::<()>()));
            assert!(given_up.as_mut().poll(cx).is_pending(), "{millis}");
        }
        assert_eq!(pin!(alarms.until(at(1), std::future::ready(7))).poll(cx), Poll::Ready(Some(7)));
        let mut kept = pin!(alarms.until(at(4), std::future::pending::<()>()));
        assert!(kept.as_mut().poll(cx).is_pending());
        // Each of the hundred was pinned to the end of its round, so one place did for all of them.
        assert_eq!(alarms.inner.borrow().places.len(), 1);
        alarms.ring(at(3));
        assert_eq!(woken.0.load(Ordering::SeqCst), 0);
        assert!(kept.as_mut().poll(cx).is_pending());
        alarms.ring(at(4));
        assert_eq!(kept.as_mut().poll(cx), Poll::Ready(None));
        assert!(alarms.inner.borrow().due.is_empty());
    }

    #[test]
    fn who_rings_is_told_of_an_earlier_one_and_looks_once_a_millisecond_at_most() {
        let alarms = Alarms::default();
        let cx = &mut Context::from_waker(Waker::noop());
        assert_eq!(alarms.next(at(20)), at(20));
        let mut told = pin!(alarms.earlier());
        assert!(told.as_mut().poll(cx).is_pending());
        let mut first = pin!(alarms.until(at(3), std::future::pending::<()>()));
        assert!(first.as_mut().poll(cx).is_pending());
        assert!(told.as_mut().poll(cx).is_ready());
        assert_eq!(alarms.next(at(20)), at(3));
        let mut told = pin!(alarms.earlier());
        let mut second = pin!(alarms.until(at(4), std::future::pending::<()>()));
        assert!(second.as_mut().poll(cx).is_pending() && told.as_mut().poll(cx).is_pending());
        alarms.ring(Stamp::from_micros(1_003_900));
        assert_eq!(alarms.next(at(20)), Stamp::from_micros(1_004_900));
    }
}
