//! The door of a service on one worker: requests go through `admit`, and those that must wait do so here.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use standfast_model::{Concurrency, Priority, Stamp};
use standfast_runtime::Clock;

use crate::admit::{Admission, Entry, Load, Shed, Ticket, Woken};
use crate::limiter::Outcome;
use crate::pool::Service;

/// The admission of one service, with the tasks that wait for it.
pub(crate) struct Door {
    admission: RefCell<Admission<Rc<Waiter>>>,
    concurrency: Cell<Concurrency>,
}

/// A request before the door.
pub(crate) struct Waiter {
    verdict: Cell<Option<Result<(), Shed>>>,
    waker: RefCell<Option<Waker>>,
}

/// The right to be worked on, until it is given back.
pub(crate) struct Inside {
    service: Rc<Service>,
    since: Stamp,
    /// How long it took to get in.
    pub(crate) waited: Duration,
    is_out: bool,
    clock: Clock,
}

impl Door {
    pub(crate) fn new(workers: u32, now: Stamp) -> Self {
        let concurrency = Concurrency::Adaptive;
        Self {
            admission: RefCell::new(Admission::new(concurrency, 0, workers, now)),
            concurrency: Cell::new(concurrency),
        }
    }

    /// Takes the rule, and how many replicas carry requests.
    pub(crate) fn set(&self, concurrency: Concurrency, replicas: u32, now: Stamp) {
        let mut admission = self.admission.borrow_mut();
        if self.concurrency.replace(concurrency) == concurrency {
            admission.set_replicas(replicas);
        } else {
            admission.set_concurrency(concurrency, replicas, now);
        }
        drop(admission);
        self.call_in(now);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.admission.borrow().is_full()
    }

    pub(crate) fn load(&self) -> Load {
        self.admission.borrow().load()
    }

    /// To be called every few dozen milliseconds. `own` is how long an answer may lie in this process before it is read.
    pub(crate) fn tick(&self, now: Stamp, own_lag: Duration, own: Duration) {
        let mut admission = self.admission.borrow_mut();
        admission.tick(now, own_lag);
        admission.set_own(own);
        drop(admission);
        self.call_in(now);
    }

    /// Tells those whose time has come.
    fn call_in(&self, now: Stamp) {
        loop {
            let (waiter, verdict) = match self.admission.borrow_mut().next(now) {
                None => return,
                Some(Woken::Enter(waiter)) => (waiter, Ok(())),
                Some(Woken::Shed(waiter, shed)) => (waiter, Err(shed)),
            };
            waiter.verdict.set(Some(verdict));
            if let Some(waker) = waiter.waker.take() {
                waker.wake();
            }
        }
    }
}

impl Inside {
    /// Goes in, at once or after a while.
    ///
    /// # Errors
    /// It is turned away.
    ///
    /// # Cancellation
    /// Who leaves while waiting takes nobody's place.
    pub(crate) async fn enter(
        service: &Rc<Service>,
        priority: Priority,
        clock: Clock,
        now: Stamp,
    ) -> Result<Self, Shed> {
        let door = &service.door;
        let entry = door.admission.borrow_mut().enter(priority, now);
        let since = match entry {
            Entry::Entered => now,
            Entry::Shed(shed) => return Err(shed),
            Entry::Wait => {
                let waiter = Rc::new(Waiter { verdict: Cell::new(None), waker: RefCell::default() });
                let ticket = door.admission.borrow_mut().enqueue(priority, Rc::clone(&waiter), now);
                let place = Place { service, waiter, ticket, clock };
                door.call_in(now);
                place.wait().await?;
                clock.now()
            }
        };
        Ok(Self { service: Rc::clone(service), since, waited: since.since(now), is_out: false, clock })
    }

    /// It has its answer's head, or none. What it waited for a replica meanwhile is not the service's time.
    pub(crate) fn leave(mut self, outcome: Outcome, is_pure: bool, now: Stamp, is_lagging: bool) {
        let sample = is_pure.then(|| now.since(self.since));
        self.out(sample, outcome, now, is_lagging);
    }

    fn out(&mut self, sample: Option<Duration>, outcome: Outcome, now: Stamp, is_lagging: bool) {
        if !std::mem::replace(&mut self.is_out, true) {
            let door = &self.service.door;
            door.admission.borrow_mut().left(sample, outcome, now, is_lagging);
            door.call_in(now);
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if !self.is_out {
            self.out(None, Outcome::Ignored, self.clock.now(), false);
        }
    }
}

/// A place before the door.
struct Place<'a> {
    service: &'a Rc<Service>,
    waiter: Rc<Waiter>,
    ticket: Ticket,
    clock: Clock,
}

impl Place<'_> {
    async fn wait(&self) -> Result<(), Shed> {
        let door = &self.service.door;
        loop {
            let now = self.clock.now();
            let due =
                door.admission.borrow().next_due(now).map_or(Duration::from_secs(1), |due| due.since(now));
            let told = std::future::poll_fn(|cx| match self.waiter.verdict.take() {
                Some(verdict) => Poll::Ready(verdict),
                None => {
                    *self.waiter.waker.borrow_mut() = Some(cx.waker().clone());
                    Poll::Pending
                }
            });
            match self.clock.timeout(due.max(Duration::from_millis(1)), told).await {
                Ok(verdict) => return verdict,
                Err(_) => door.call_in(self.clock.now()),
            }
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let door = &self.service.door;
        let now = self.clock.now();
        let is_waiting = door.admission.borrow_mut().cancel(self.ticket).is_some();
        // Let in, and gone before it heard of it.
        if !is_waiting && self.waiter.verdict.take() == Some(Ok(())) {
            door.admission.borrow_mut().left(None, Outcome::Ignored, now, false);
        }
        door.call_in(now);
    }
}
