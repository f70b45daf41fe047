//! How many requests a service is given at a time, found from how long its answers take. Pure.
//!
//! The rule is Gradient2 of Netflix' concurrency-limits (<https://github.com/Netflix/concurrency-limits>, 2018): a limit that is
//! used grows by about half its root as long as answers take no more than [`TOLERANCE`] times what they take without load, and
//! shrinks in proportion to what they take beyond. Three things differ.
//! - An answer's time without load is learned when few requests happen to be in flight, never by letting less in for a moment.
//! - Whether a higher latency comes from the load is tried out, in the spirit of Uber's Cinnamon (2023), which looks at the
//!   covariance of the number in flight and the throughput: with a third more in flight a saturated service takes a third longer,
//!   and one that is merely slow takes as long as before. Then the latency is its own, and accepted. A trial lets in *more* for a
//!   moment and compares with the time before and after; it begins by the clock on the wall, so that all workers and gateways do
//!   it together and see their common effect. Until one has shown that the load is to blame, the limit at most halves.
//! - Logarithms are averaged: one slow answer in twenty hardly shows, a delay that all have does.

use std::time::Duration;

use standfast_model::Stamp;

/// How much longer than without load answers may take before the limit shrinks…
const TOLERANCE: f64 = 1.3;
/// …or by how many microseconds, if that is more: scheduling on a busy machine takes as long.
const SLACK_MICROS: f64 = 2_000.0;
/// The grain of measuring, and the least time of a window. Windows end on multiples of it.
const GRAIN_MICROS: u64 = 100_000;
const GRAIN: Duration = Duration::from_micros(GRAIN_MICROS);
/// The longest time of a window in which there was an answer.
const WINDOW_MAX: Duration = Duration::from_secs(2);
/// So many times an answer's time a window lasts at least.
const WINDOW_LATENCIES: f64 = 1.5;
/// Windows with fewer answers last longer.
const SAMPLES_MIN: u32 = 20;
/// Windows last longer while their mean is known less well than this (standard error of the logarithm), but not…
const ERROR_MAX: f64 = 0.05;
/// …for longer than this.
const WINDOW_USUAL_MAX: Duration = Duration::from_secs(1);
/// What no mean is trusted beyond.
const ERROR_MIN: f64 = 0.01;
/// The time constant at which a latency that is higher at few in flight is learned.
const LEARNING: Duration = Duration::from_secs(5);
/// "Few in flight" is below this share of the limit.
const FEW: f64 = 0.6;
/// Below this share of the limit its use proves nothing and the limit stays.
const USED: f64 = 0.85;
/// What the limit shrinks to at most in one window.
const SHRINK_MAX: f64 = 0.7;
/// What a window with overload failures multiplies the limit by…
const BACKOFF: f64 = 0.9;
/// …when they are more than this share of all.
const FAILED_SHARE: f64 = 0.05;
/// Trials begin at multiples of this, or of this doubled until it is long enough for a trial.
const TRIAL_PERIOD_MICROS: u64 = 1_000_000;
/// So many times an answer's time a period must be.
const TRIAL_LATENCIES: f64 = 9.0;
/// How many times more are let in.
const TRIAL: f64 = 1.3;
/// What is left of the older trials' weight at each new one.
const TRIAL_MEMORY: f64 = 0.7;
/// How far latency follows the number in flight (1 is in proportion) when it is the load's.
const FOLLOWS: f64 = 0.5;
/// The limit shrinks to at most this share while no trial has shown that the load is to blame.
const UNTRIED_SHRINK: f64 = 0.5;
/// What a base that was never seen with few in flight is multiplied by when a trial shows that the service was saturated.
const UNPROVEN: f64 = 0.8;
/// All workers' limits together never go below so many for each replica, about…
const FLOOR_PER_REPLICA: f64 = 2.0;
/// …nor one below this…
const FLOOR: f64 = 3.0;
/// …nor above this.
const CEILING: f64 = 100_000.0;
/// What all workers' limits together start at for each replica…
const FIRST_PER_REPLICA: f64 = 8.0;
/// …and one at least.
const FIRST: f64 = 6.0;
/// So many times its root a limit grows in a window, and is too high all the time.
const GROWTH: f64 = 0.5;
/// What a limit is multiplied by while it has not yet been too high.
const STARTING: f64 = 2.0;

/// What a request came to, as far as the limit is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was answered; its time counts.
    Answered,
    /// It was answered with 429 or 503, or not in time: there are too many.
    Overloaded,
    /// Its client left, no connection could be made, or the like: that tells nothing about how many there should be.
    Ignored,
}

/// A limit for requests in flight that is measured all the time.
#[derive(Debug, Clone)]
pub(crate) struct Limiter {
    limit: f64,
    replicas: u32,
    workers: u32,
    /// An answer's time without load, logarithm of microseconds.
    base: Option<f64>,
    /// The base was seen with few in flight, or else found to be the service's own.
    is_base_proven: bool,
    /// It grows fast until it has shrunk for the first time.
    is_starting: bool,
    window: Window,
    /// The limit when latency began to hold it down, or when a trial last showed that rightly so.
    held_from: Option<f64>,
    trial: Option<Trial>,
    evidence: Evidence,
    /// What of an answer's time may be this gateway's own.
    own: Duration,
    /// The last window's mean, microseconds.
    latency_micros: f64,
    throughput: f64,
}

/// What is summed up from one look at the limit to the next.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    start: Stamp,
    /// Before that it is not looked whether it is over.
    next_look: Stamp,
    last: Stamp,
    in_flight: u32,
    /// In flight × microseconds.
    area: f64,
    in_flight_max: u32,
    /// Somebody had to wait.
    was_full: bool,
    answers: u32,
    sum: f64,
    sum_of_squares: f64,
    overloaded: u32,
}

/// What a window showed; logarithms.
#[derive(Debug, Clone, Copy)]
struct Seen {
    in_flight: f64,
    latency: f64,
    error: f64,
}

/// A trial: the limit as it is, more, and as it was. The windows in between are for settling.
#[derive(Debug, Clone, Copy)]
enum Trial {
    Before { limit: f64 },
    Rising { limit: f64, before: Seen },
    More { limit: f64, before: Seen },
    Falling { limit: f64, before: Seen, more: Seen },
    After { limit: f64, before: Seen, more: Seen },
}

impl Trial {
    const fn limit(self) -> f64 {
        match self {
            Self::Before { limit }
            | Self::Rising { limit, .. }
            | Self::More { limit, .. }
            | Self::Falling { limit, .. }
            | Self::After { limit, .. } => limit,
        }
    }
}

/// How far latency follows the number in flight, by all recent trials: a regression through the origin.
#[derive(Debug, Clone, Copy, Default)]
struct Evidence {
    product: f64,
    square: f64,
}

impl Evidence {
    fn add(&mut self, step: f64, answer: f64, error: f64) {
        let weight = error.powi(-2);
        self.product = self.product * TRIAL_MEMORY + step * answer * weight;
        self.square = self.square * TRIAL_MEMORY + step * step * weight;
    }

    /// `Some(true)` when latency clearly follows, `Some(false)` when it clearly does not.
    fn verdict(&self) -> Option<bool> {
        let (slope, error) = (self.product / self.square, self.square.sqrt().recip());
        match slope - FOLLOWS {
            above if above > 2.0 * error => Some(true),
            below if below < -2.0 * error => Some(false),
            _ => None,
        }
    }
}

impl Limiter {
    /// For one of so many workers of a gateway.
    pub(crate) fn new(replicas: u32, workers: u32, now: Stamp) -> Self {
        let mut limiter = Self {
            limit: 0.0,
            replicas,
            workers: workers.max(1),
            base: None,
            is_base_proven: false,
            is_starting: true,
            window: Window::starting(now, 0),
            held_from: None,
            trial: None,
            evidence: Evidence::default(),
            own: Duration::ZERO,
            latency_micros: 0.0,
            throughput: 0.0,
        };
        limiter.limit = limiter.share(FIRST_PER_REPLICA).max(FIRST);
        limiter
    }

    /// How many may be in flight.
    pub(crate) const fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// What answers take now, and what they take without load, once that is known.
    pub(crate) fn latency(&self) -> Option<(Duration, Duration)> {
        let base = self.base?;
        Some((micros(self.latency_micros), micros(base.exp())))
    }

    /// Answers a second in the last window.
    pub(crate) const fn throughput(&self) -> f64 {
        self.throughput
    }

    /// So many replicas may be chosen now: each carries as many as the others.
    pub(crate) fn set_replicas(&mut self, replicas: u32) {
        if replicas == self.replicas || replicas == 0 {
            return;
        }
        if self.replicas == 0 {
            self.replicas = replicas;
            self.limit = self.limit.max(self.share(FIRST_PER_REPLICA));
        } else {
            self.limit *= f64::from(replicas) / f64::from(self.replicas);
            self.replicas = replicas;
        }
        // What was seen before was seen of other replicas.
        self.trial = None;
        self.is_loaded_again();
        self.clamp();
    }

    /// The number in flight is `in_flight` from `now` on.
    pub(crate) fn changed(&mut self, in_flight: u32, now: Stamp) {
        self.window.pass(now, in_flight);
    }

    /// Somebody had to wait.
    pub(crate) const fn was_full(&mut self) {
        self.window.was_full = true;
    }

    /// To be called every few dozen milliseconds. As long as nothing was ever answered nothing is known, least of all that there
    /// are too many: whoever keeps requests open for long (long polling) gets more and more of them.
    pub(crate) fn tick(&mut self, now: Stamp) {
        let window = &mut self.window;
        let is_unknown = self.base.is_none() && window.answers == 0 && window.overloaded == 0;
        if is_unknown && window.was_full && now >= window.next_look {
            window.next_look = next_grain(now);
            self.limit *= STARTING;
            self.clamp();
        }
    }

    /// Takes in what a request that left showed; `sample` is the time to its answer's head.
    pub(crate) fn observe(&mut self, sample: Option<Duration>, outcome: Outcome, in_flight: u32, now: Stamp) {
        match (outcome, sample) {
            (Outcome::Answered, Some(sample)) => self.window.add(self.of_the_service(sample)),
            (Outcome::Overloaded, _) => self.window.overloaded += 1,
            _ => {}
        }
        if self.is_window_over(now) {
            self.turn(in_flight, now);
        }
    }

    /// So long is what a gateway that is itself the bottleneck may take between an answer's arrival and its reading.
    pub(crate) const fn set_own(&mut self, own: Duration) {
        self.own = own;
    }

    /// An answer's time without what may be the gateway's own, but no less than it takes without load: a gateway that is busy makes
    /// no service look slow, nor a slow one look fast.
    fn of_the_service(&self, sample: Duration) -> Duration {
        match self.base {
            Some(base) if !self.own.is_zero() => {
                sample.saturating_sub(self.own).max(sample.min(micros(base.exp())))
            }
            _ => sample,
        }
    }

    /// Drops what was measured while the gateway itself stood still.
    pub(crate) fn forget_window(&mut self, in_flight: u32, now: Stamp) {
        self.window = Window::starting(now, in_flight);
        if let Some(trial) = self.trial.take() {
            self.limit = trial.limit();
        }
    }

    /// The end of a window is looked for at grains only, so that all workers turn together.
    fn is_window_over(&mut self, now: Stamp) -> bool {
        let window = &mut self.window;
        if now < window.next_look {
            return false;
        }
        window.next_look = next_grain(now);
        let elapsed = now.since(window.start);
        let seen = window.answers + window.overloaded;
        if seen == 0 {
            return false;
        }
        let usual = micros(self.latency_micros * if self.is_starting { 1.0 } else { WINDOW_LATENCIES });
        let is_long = elapsed >= usual && elapsed * 2 >= GRAIN;
        let is_known = seen >= SAMPLES_MIN && (window.error() <= ERROR_MAX || elapsed >= WINDOW_USUAL_MAX);
        is_long && is_known || elapsed >= WINDOW_MAX.max(usual)
    }

    fn turn(&mut self, in_flight: u32, now: Stamp) {
        self.window.pass(now, in_flight);
        let window = std::mem::replace(&mut self.window, Window::starting(now, in_flight));
        let elapsed = now.since(window.start).as_secs_f64();
        self.throughput = f64::from(window.answers) / elapsed;
        let failed = f64::from(window.overloaded) / f64::from(window.overloaded + window.answers);
        if failed > FAILED_SHARE {
            self.limit = self.trial.take().map_or(self.limit, Trial::limit) * BACKOFF;
            self.is_starting = false;
            self.clamp();
            return;
        }
        if window.answers == 0 {
            return;
        }
        let in_flight = window.area / (elapsed * 1e6);
        let seen = Seen {
            in_flight: in_flight.max(0.01).ln(),
            latency: window.mean(),
            error: window.error().max(ERROR_MIN),
        };
        self.latency_micros = seen.latency.exp();
        let is_full = window.was_full && in_flight > self.limit * FEW;
        let base = self.learn(seen, !window.was_full && in_flight < self.limit * FEW, elapsed);
        if let Some(trial) = self.trial.take() {
            if is_full {
                self.go_on(trial, seen, base);
            } else {
                self.limit = trial.limit();
            }
            self.clamp();
            return;
        }
        let is_slow = self.latency_micros > ceiling(base);
        if !(is_full && is_slow) {
            self.is_loaded_again();
        }
        if window.was_full || f64::from(window.in_flight_max) >= self.limit * USED {
            self.step(base, failed, &window);
            self.clamp();
        }
        if is_full && (is_slow || !self.is_base_proven) && self.is_trial_due(window.start, now) {
            self.trial = Some(Trial::Before { limit: self.limit });
        }
    }

    /// What was found out about the load is of the past.
    fn is_loaded_again(&mut self) {
        (self.held_from, self.evidence) = (None, Evidence::default());
    }

    /// Keeps the latency without load up to date, and returns it.
    fn learn(&mut self, seen: Seen, has_few: bool, elapsed: f64) -> f64 {
        let base = match self.base {
            None => seen.latency,
            // Of many windows one is low by chance: only a part of the way at a time.
            Some(base) if seen.latency < base => base + (seen.latency - base) * 0.25,
            Some(base) if has_few => {
                base + (seen.latency - base) * (1.0 - (-elapsed / LEARNING.as_secs_f64()).exp())
            }
            Some(base) => base,
        };
        self.base = Some(base);
        self.is_base_proven |= has_few;
        base
    }

    fn is_trial_due(&self, since: Stamp, now: Stamp) -> bool {
        let mut period = TRIAL_PERIOD_MICROS;
        while (period as f64) < self.latency_micros * TRIAL_LATENCIES {
            period *= 2;
        }
        now.as_micros() / period != since.as_micros() / period
    }

    /// A window of a trial is over.
    fn go_on(&mut self, trial: Trial, seen: Seen, base: f64) {
        let next = match trial {
            Trial::Before { limit } => Trial::Rising { limit, before: seen },
            Trial::Rising { limit, before } => Trial::More { limit, before },
            Trial::More { limit, before } => Trial::Falling { limit, before, more: seen },
            Trial::Falling { limit, before, more } => Trial::After { limit, before, more },
            Trial::After { limit, before, more } => {
                self.limit = limit;
                self.conclude(before, more, seen, base);
                return;
            }
        };
        let is_more = matches!(next, Trial::Rising { .. } | Trial::More { .. });
        self.limit = next.limit() * if is_more { TRIAL } else { 1.0 };
        self.trial = Some(next);
    }

    fn conclude(&mut self, before: Seen, more: Seen, after: Seen, base: f64) {
        let step = more.in_flight - before.in_flight.midpoint(after.in_flight);
        let answer = more.latency - before.latency.midpoint(after.latency);
        // A trend counts as uncertainty.
        let error =
            more.error.hypot(before.error.hypot(after.error) / 2.0).hypot(before.latency - after.latency);
        if step < TRIAL.ln() / 2.0 {
            return;
        }
        self.evidence.add(step, answer, error);
        match self.evidence.verdict() {
            Some(true) => {
                self.held_from = Some(self.limit);
                if !self.is_base_proven && self.limit > self.floor() {
                    // It is saturated, so what was taken for an unloaded answer's time is none.
                    self.base = Some(base + UNPROVEN.ln());
                    (self.is_starting, self.evidence) = (false, Evidence::default());
                }
            }
            Some(false) => {
                self.is_base_proven = true;
                if after.latency > base {
                    self.base = Some(after.latency);
                    self.limit = self.held_from.unwrap_or(self.limit).max(self.limit);
                    self.is_loaded_again();
                    self.is_starting = true;
                }
            }
            None => {}
        }
    }

    /// Gradient2's step.
    fn step(&mut self, base: f64, failed: f64, window: &Window) {
        let gradient = (ceiling(base) / self.latency_micros).min(1.0);
        let target = self.limit * gradient + self.limit.sqrt() * GROWTH;
        if target >= self.limit {
            if failed == 0.0 {
                let is_free = self.is_starting && window.was_full && gradient >= 1.0;
                self.limit = if is_free { target.max(self.limit * STARTING) } else { target };
            }
        } else {
            self.is_starting = false;
            let held_from = *self.held_from.get_or_insert(self.limit);
            let in_use = if window.was_full { 0.0 } else { f64::from(window.in_flight_max) };
            let lowest = (held_from * UNTRIED_SHRINK).max(self.limit * SHRINK_MAX).max(in_use);
            self.limit = self.limit.min(self.limit.midpoint(target).max(lowest));
        }
    }

    fn clamp(&mut self) {
        self.limit = self.limit.clamp(self.floor(), CEILING);
    }

    fn floor(&self) -> f64 {
        self.share(FLOOR_PER_REPLICA).max(FLOOR)
    }

    /// This worker's share of so many for each replica.
    fn share(&self, per_replica: f64) -> f64 {
        f64::from(self.replicas) * per_replica / f64::from(self.workers)
    }
}

impl Window {
    const fn starting(now: Stamp, in_flight: u32) -> Self {
        Self {
            start: now,
            next_look: next_grain(now),
            last: now,
            in_flight,
            area: 0.0,
            in_flight_max: in_flight,
            was_full: false,
            answers: 0,
            sum: 0.0,
            sum_of_squares: 0.0,
            overloaded: 0,
        }
    }

    /// From `now` on so many are in flight.
    fn pass(&mut self, now: Stamp, in_flight: u32) {
        let micros = now.as_micros().saturating_sub(self.last.as_micros());
        self.area += f64::from(self.in_flight) * micros as f64;
        (self.last, self.in_flight) = (now, in_flight);
        self.in_flight_max = self.in_flight_max.max(in_flight);
    }

    fn add(&mut self, sample: Duration) {
        let log = (sample.as_secs_f64() * 1e6).max(1.0).ln();
        self.answers += 1;
        self.sum += log;
        self.sum_of_squares += log * log;
    }

    fn mean(&self) -> f64 {
        self.sum / f64::from(self.answers)
    }

    /// The standard error of the mean.
    fn error(&self) -> f64 {
        let answers = f64::from(self.answers);
        if self.answers == 0 {
            return 0.0;
        }
        let variance = (self.sum_of_squares / answers - (self.sum / answers).powi(2)).max(0.0);
        (variance / answers).sqrt()
    }
}

const fn next_grain(now: Stamp) -> Stamp {
    Stamp::from_micros((now.as_micros() / GRAIN_MICROS + 1) * GRAIN_MICROS)
}

/// What answers may take, microseconds, before the limit shrinks.
fn ceiling(base: f64) -> f64 {
    let base = base.exp();
    (base * TOLERANCE).max(base + SLACK_MICROS)
}

fn micros(micros: f64) -> Duration {
    Duration::from_secs_f64(micros / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_is_the_bottleneck_makes_no_service_look_slow_nor_fast() {
        let mut limiter = Limiter::new(3, 1, Stamp::EPOCH);
        let millis = Duration::from_millis;
        assert_eq!(limiter.of_the_service(millis(9)), millis(9));
        limiter.base = Some(10_000_f64.ln());
        assert_eq!(limiter.of_the_service(millis(40)), millis(40));
        limiter.set_own(millis(16));
        let about = |sample, wanted: Duration| limiter.of_the_service(sample).abs_diff(wanted) < millis(1);
        assert!(about(millis(40), millis(24)), "its own part is not the service's");
        assert!(about(millis(20), millis(10)), "but what it takes without load is");
        assert!(about(millis(4), millis(4)), "and a faster answer is one");
    }
}
