//! Who is let in to a service, who waits, and who is turned away, when there are more requests than it carries. Pure.
//!
//! Up to the limit (`limiter` finds it, or it is given) requests go straight through. Beyond it they wait in a bounded queue, one
//! line for each priority. A line follows Facebook's adaptation of `CoDel` ("Fail at Scale", ACM Queue 2015): as long as it has been
//! empty a moment ago it is a burst, or the service has stood still, and waiting is allowed; if not, it is under pressure, and
//! waiting is allowed only for a few milliseconds. A short line is empty now and then by chance, so pressure also lasts for a
//! moment after the last that was turned away. First come, first served, unless the line is long or under pressure: then the
//! newest goes first, since its client has waited least. Higher lines go first. So the lowest priority bears the pressure, and the
//! highest never sees it as long as it fits in alone.
//!
//! The caller drives it: after [`Admission::left`], [`Admission::cancel`] and [`Admission::tick`] it takes [`Admission::next`]
//! until that is `None`.

use std::collections::VecDeque;
use std::time::Duration;

use standfast_model::{Concurrency, Priority, Stamp};

use crate::limiter::{Limiter, Outcome};

/// The least interval.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The longest interval. In between it is what an answer takes: who waits a second for an answer can wait a second for a place.
const INTERVAL_MAX: Duration = Duration::from_secs(2);
/// The interval while nothing has been answered yet.
const INTERVAL_UNKNOWN: Duration = Duration::from_secs(1);
/// Under pressure this part of the interval may be waited: 5 ms of 100.
const PRESSED: u32 = 20;
/// A line that has not been empty for so long, or for an interval if that is longer, is under pressure: services stand still for
/// moments, for a garbage collection or a busy machine.
const BURST_MIN: Duration = Duration::from_millis(500);
/// How many wait at most, all lines together; one more, and the lowest line's oldest goes.
const WAITING_MAX: usize = 1_024;
/// How many of the last requests the mean waiting time is of, about.
const WAIT_MEMORY: f64 = 64.0;
/// The time constant by which the mean waiting time falls while nobody comes.
const WAIT_FADE: Duration = Duration::from_secs(5);
/// Clients are told to come again after at most this.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Shorter lines than this are served in order.
const LONG_MIN: usize = 4;
const LINES: usize = 3;

/// Names one waiter until it is let in, turned away or cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    line: usize,
    number: u64,
}

/// What a request finds at the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// It is in, and must be reported by [`Admission::left`].
    Entered,
    /// It is to wait: [`Admission::enqueue`].
    Wait,
    /// It is turned away.
    Shed(Shed),
}

/// Why a request is turned away, and when it may come again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shed {
    pub(crate) reason: ShedReason,
    /// Whole seconds, at least one.
    pub(crate) retry_after: Duration,
}

/// Why a request is turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ShedReason {
    /// It has waited for as long as the service's load allows.
    WaitedTooLong,
    /// As many wait as may wait, none of a lower priority.
    QueueFull,
    /// It waited, and one of a higher priority took its place.
    Displaced,
}

/// What becomes of a waiter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Woken<T> {
    /// It is in, and must be reported by [`Admission::left`] even if it has gone away meanwhile.
    Enter(T),
    /// It is turned away.
    Shed(T, Shed),
}

/// Numbers for the outside: pages, metrics, the autoscaler.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Load {
    /// `None` when there is none.
    pub(crate) limit: Option<u32>,
    pub(crate) in_flight: u32,
    pub(crate) waiting: usize,
    /// What requests wait on average before they are let in or turned away, those that do not wait included.
    pub(crate) wait: Duration,
    /// By priority, lowest first, since the beginning.
    pub(crate) shed: [u64; LINES],
}

/// The door of one service on one worker.
#[derive(Debug)]
pub(crate) struct Admission<T> {
    rule: Rule,
    workers: u32,
    in_flight: u32,
    lines: [Line<T>; LINES],
    waiting: usize,
    /// Those that were displaced and not told yet.
    displaced: VecDeque<(T, Shed)>,
    next_number: u64,
    wait_micros: f64,
    wait_at: Stamp,
    shed: [u64; LINES],
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one for each service, and the big one is the usual one")]
enum Rule {
    Adaptive(Limiter),
    Fixed(u32),
    Unlimited,
}

/// The waiters of one priority, oldest first.
#[derive(Debug)]
struct Line<T> {
    waiters: VecDeque<Waiter<T>>,
    /// Since when it has not been empty.
    busy_since: Stamp,
    /// When somebody was turned away for waiting too long.
    shed_at: Option<Stamp>,
}

#[derive(Debug)]
struct Waiter<T> {
    number: u64,
    since: Stamp,
    handle: T,
}

impl<T> Admission<T> {
    /// For a service that has so many replicas that may be chosen, on one of so many workers.
    pub(crate) fn new(concurrency: Concurrency, replicas: u32, workers: u32, now: Stamp) -> Self {
        let line = || Line { waiters: VecDeque::new(), busy_since: now, shed_at: None };
        Self {
            rule: Rule::new(concurrency, replicas, workers, now),
            workers,
            in_flight: 0,
            lines: [line(), line(), line()],
            waiting: 0,
            displaced: VecDeque::new(),
            next_number: 0,
            wait_micros: 0.0,
            wait_at: now,
            shed: [0; LINES],
        }
    }

    /// Takes another rule. What a limiter has learned is kept while it stays adaptive.
    pub(crate) fn set_concurrency(&mut self, concurrency: Concurrency, replicas: u32, now: Stamp) {
        match (&mut self.rule, concurrency) {
            (Rule::Adaptive(limiter), Concurrency::Adaptive) => limiter.set_replicas(replicas),
            (rule, concurrency) => {
                *rule = Rule::new(concurrency, replicas, self.workers, now);
                if let Rule::Adaptive(limiter) = rule {
                    limiter.changed(self.in_flight, now);
                }
            }
        }
    }

    /// So many replicas may be chosen now.
    pub(crate) fn set_replicas(&mut self, replicas: u32) {
        if let Rule::Adaptive(limiter) = &mut self.rule {
            limiter.set_replicas(replicas);
        }
    }

    /// A request comes.
    pub(crate) fn enter(&mut self, priority: Priority, now: Stamp) -> Entry {
        let line = line_of(priority);
        let is_free = self.waiting == 0 || self.lines[line..].iter().all(|line| line.waiters.is_empty());
        if is_free && self.in_flight < self.limit() {
            self.grant(now);
            self.waited(Duration::ZERO);
            return Entry::Entered;
        }
        if let Rule::Adaptive(limiter) = &mut self.rule {
            limiter.was_full();
        }
        let is_lowest = self.lines[..line].iter().all(|lower| lower.waiters.is_empty());
        if self.waiting >= WAITING_MAX && is_lowest {
            return Entry::Shed(self.turned_away(line, ShedReason::QueueFull, now));
        }
        Entry::Wait
    }

    /// Lets a request wait that was told to. The handle comes back by [`Admission::next`].
    pub(crate) fn enqueue(&mut self, priority: Priority, handle: T, now: Stamp) -> Ticket {
        if self.waiting >= WAITING_MAX {
            self.displace(now);
        }
        let line = line_of(priority);
        let number = self.next_number;
        self.next_number += 1;
        let queue = &mut self.lines[line];
        if queue.waiters.is_empty() {
            queue.busy_since = now;
        }
        queue.waiters.push_back(Waiter { number, since: now, handle });
        self.waiting += 1;
        Ticket { line, number }
    }

    /// A waiter's client has left. `None` when the waiter has been let in or turned away already.
    pub(crate) fn cancel(&mut self, ticket: Ticket) -> Option<T> {
        let waiters = &mut self.lines[ticket.line].waiters;
        let at = waiters.binary_search_by_key(&ticket.number, |waiter| waiter.number).ok()?;
        let waiter = waiters.remove(at)?;
        self.waiting -= 1;
        Some(waiter.handle)
    }

    /// A request that was in has its answer's head, or none. `sample` is the time from when it was sent; it is not believed while
    /// the gateway lags.
    pub(crate) fn left(&mut self, sample: Option<Duration>, outcome: Outcome, now: Stamp, is_lagging: bool) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Rule::Adaptive(limiter) = &mut self.rule {
            limiter.changed(self.in_flight, now);
            let outcome = if is_lagging { Outcome::Ignored } else { outcome };
            limiter.observe(sample, outcome, self.in_flight, now);
        }
    }

    /// What becomes of a waiter now; `None` when all others go on waiting.
    pub(crate) fn next(&mut self, now: Stamp) -> Option<Woken<T>> {
        if self.waiting == 0 && self.displaced.is_empty() {
            return None;
        }
        if let Some((handle, shed)) = self.displaced.pop_front() {
            return Some(Woken::Shed(handle, shed));
        }
        let interval = self.interval();
        for index in 0..LINES {
            let line = &mut self.lines[index];
            let allowed = line.allowed(interval, now);
            let is_due = |waiter: &mut Waiter<T>| now.since(waiter.since) >= allowed;
            if let Some(waiter) = line.waiters.pop_front_if(is_due) {
                line.shed_at = Some(now);
                self.waiting -= 1;
                self.waited(now.since(waiter.since));
                let shed = self.turned_away(index, ShedReason::WaitedTooLong, now);
                return Some(Woken::Shed(waiter.handle, shed));
            }
        }
        if self.in_flight >= self.limit() {
            return None;
        }
        // Where half as many wait as are worked on, the oldest has already waited for half an answer's time.
        let is_long = |line: &Line<T>| line.waiters.len() > (self.in_flight as usize / 2).max(LONG_MIN);
        let line = self.lines.iter().rposition(|line| !line.waiters.is_empty())?;
        let newest_first = is_long(&self.lines[line]) || self.lines[line].is_pressed(interval, now);
        let waiters = &mut self.lines[line].waiters;
        let waiter = if newest_first { waiters.pop_back() } else { waiters.pop_front() }?;
        self.waiting -= 1;
        self.waited(now.since(waiter.since));
        self.grant(now);
        Some(Woken::Enter(waiter.handle))
    }

    /// To be called every few dozen milliseconds. The time that the gateway itself stood still is nobody's waiting time.
    pub(crate) fn tick(&mut self, now: Stamp, own_lag: Duration) {
        let faded = (-now.since(self.wait_at).as_secs_f64() / WAIT_FADE.as_secs_f64()).exp();
        (self.wait_micros, self.wait_at) = (self.wait_micros * faded, now);
        if let Rule::Adaptive(limiter) = &mut self.rule {
            limiter.tick(now);
        }
        if own_lag.is_zero() {
            return;
        }
        for line in &mut self.lines {
            line.busy_since = line.busy_since.plus(own_lag).min(now);
            for waiter in &mut line.waiters {
                waiter.since = waiter.since.plus(own_lag).min(now);
            }
        }
        if let Rule::Adaptive(limiter) = &mut self.rule {
            limiter.forget_window(self.in_flight, now);
        }
    }

    /// How long an answer may lie here before it is read.
    pub(crate) const fn set_own(&mut self, own: Duration) {
        if let Rule::Adaptive(limiter) = &mut self.rule {
            limiter.set_own(own);
        }
    }

    /// When the next waiter will have waited for too long, if nothing else happens.
    pub(crate) fn next_due(&self, now: Stamp) -> Option<Stamp> {
        let interval = self.interval();
        let due = |line: &Line<T>| {
            let oldest = line.waiters.front()?;
            let (burst, pressed) =
                (oldest.since.plus(burst_of(interval)), oldest.since.plus(interval / PRESSED));
            let is_pressed = line.is_pressed(interval, now);
            let pressed_from = line.busy_since.plus(burst_of(interval));
            Some(if is_pressed { pressed } else { burst.min(pressed.max(pressed_from)) })
        };
        self.lines.iter().filter_map(due).min()
    }

    pub(crate) fn load(&self) -> Load {
        Load {
            limit: (!matches!(self.rule, Rule::Unlimited)).then(|| self.limit()),
            in_flight: self.in_flight,
            waiting: self.waiting,
            wait: Duration::from_secs_f64(self.wait_micros / 1e6),
            shed: self.shed,
        }
    }

    /// Whether the next one would have to wait: no time for hedges.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting > 0 || self.in_flight >= self.limit()
    }

    fn limit(&self) -> u32 {
        match &self.rule {
            Rule::Adaptive(limiter) => limiter.limit(),
            Rule::Fixed(limit) => *limit,
            Rule::Unlimited => u32::MAX,
        }
    }

    fn interval(&self) -> Duration {
        let usual = match &self.rule {
            Rule::Adaptive(limiter) => limiter.latency().map(|(now, _)| now),
            _ => Some(INTERVAL_MIN),
        };
        usual.unwrap_or(INTERVAL_UNKNOWN).clamp(INTERVAL_MIN, INTERVAL_MAX)
    }

    fn grant(&mut self, now: Stamp) {
        self.in_flight += 1;
        if let Rule::Adaptive(limiter) = &mut self.rule {
            limiter.changed(self.in_flight, now);
        }
    }

    fn waited(&mut self, wait: Duration) {
        let micros = if wait.is_zero() { 0.0 } else { wait.as_secs_f64() * 1e6 };
        self.wait_micros += (micros - self.wait_micros) / WAIT_MEMORY;
    }

    /// Makes room at the cost of the oldest of the lowest line.
    fn displace(&mut self, now: Stamp) {
        for index in 0..LINES {
            if let Some(waiter) = self.lines[index].waiters.pop_front() {
                self.waiting -= 1;
                let shed = self.turned_away(index, ShedReason::Displaced, now);
                self.displaced.push_back((waiter.handle, shed));
                return;
            }
        }
    }

    fn turned_away(&mut self, line: usize, reason: ShedReason, now: Stamp) -> Shed {
        self.shed[line] += 1;
        Shed { reason, retry_after: self.retry_after(line, now) }
    }

    /// The longer the pressure lasts, the later clients are told to come again, and not all at the same time.
    fn retry_after(&self, line: usize, now: Stamp) -> Duration {
        let rate = match &self.rule {
            Rule::Adaptive(limiter) => limiter.throughput(),
            _ => 0.0,
        };
        let to_work_off = if rate > 0.0 { self.waiting as f64 / rate } else { 0.0 };
        let pressed = now.since(self.lines[line].busy_since).as_secs_f64();
        let spread = (pressed / 4.0).clamp(1.0, RETRY_MAX.as_secs_f64() / 2.0).round();
        let place = (self.shed[line] % 16) as f64 / 16.0;
        let seconds = (to_work_off + 1.0 + spread * place).floor();
        Duration::from_secs_f64(seconds).clamp(Duration::from_secs(1), RETRY_MAX)
    }
}

impl Rule {
    /// A given limit is for the whole gateway: each worker has its part, rounded up.
    fn new(concurrency: Concurrency, replicas: u32, workers: u32, now: Stamp) -> Self {
        match concurrency {
            Concurrency::Adaptive => Self::Adaptive(Limiter::new(replicas, workers, now)),
            Concurrency::Fixed(limit) => Self::Fixed(limit.div_ceil(workers.max(1)).max(1)),
            Concurrency::Unlimited => Self::Unlimited,
        }
    }
}

impl<T> Line<T> {
    fn is_pressed(&self, interval: Duration, now: Stamp) -> bool {
        now.since(self.busy_since) >= burst_of(interval)
            || self.shed_at.is_some_and(|at| now.since(at) < interval)
    }

    fn allowed(&self, interval: Duration, now: Stamp) -> Duration {
        if self.is_pressed(interval, now) { interval / PRESSED } else { burst_of(interval) }
    }
}

fn burst_of(interval: Duration) -> Duration {
    interval.max(BURST_MIN)
}

const fn line_of(priority: Priority) -> usize {
    match priority {
        Priority::Low => 0,
        Priority::Normal => 1,
        Priority::High => 2,
    }
}

#[cfg(test)]
mod tests;
