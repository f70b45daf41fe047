//! When a replica is left out because it is much slower than the others (gray failure: "the Achilles' heel of cloud-scale
//! systems", Huang et al., HotOS 2017). Pure.
//!
//! There is no limit in milliseconds to be tuned: slow is slow beside the others. A replica is compared with the middle one of its
//! peers' paces. A pace is a mean of the logarithms of recent answers' times, so that a few slow requests do not make a slow
//! replica; where answers stay away although several requests are waiting, the silence counts as their time. It comes back by a
//! trickle, one request at a time, and after each relapse it stays out twice as long.

use std::time::Duration;

use standfast_model::Stamp;

use crate::outlier::Standing;
use crate::slow_start;

/// How many times its peers' pace is slow…
const SLOW_RATIO: f64 = 5.0;
/// …and by how much more at least: below that nobody notices.
pub(crate) const SLOW_MARGIN: Duration = Duration::from_millis(20);
/// It must have been slow for so many answers…
const SLOW_ANSWERS: u32 = 20;
/// …or for so long.
const SLOW_TIME: Duration = Duration::from_millis(500);
/// One slow request alone is no silence, nor is a short one.
const SILENT_REQUESTS: u32 = 2;
const SILENCE_MIN: Duration = Duration::from_millis(100);
/// How many of the last answers a pace is the mean of, about.
const PACE_MEMORY: f64 = 10.0;
/// A pace that nobody has seen for so long is not known any more.
const PACE_AGE_MAX: Duration = Duration::from_secs(10);
/// Fewer answers make no pace.
const PACE_ANSWERS: u32 = 5;
/// So many peers must have a pace.
const PEERS_MIN: usize = 2;
/// How many peers are looked at, at most.
const PEERS_MAX: usize = 32;
/// Who comes back must answer so many at a usual pace, one after the other.
const TRIALS: u32 = 5;
/// How long it is left out the first time; each relapse doubles it…
const OUT_FIRST: Duration = Duration::from_secs(1);
/// …up to this. After so long without a relapse it begins anew.
const OUT_MAX: Duration = Duration::from_secs(60);
/// A trial that nobody could be for so long is anybody's.
const OVERDUE: Duration = Duration::from_secs(10);
/// Back in, it has its whole share after this.
const RAMP: Duration = Duration::from_secs(5);

/// How fast one replica is.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    /// Mean logarithm of microseconds.
    mean: f64,
    answers: u32,
    answered_at: Stamp,
    in_flight: u32,
    /// Since when it has been asked without any answer.
    quiet_since: Option<Stamp>,
    /// Requests that were given up since then.
    given_up: u32,
}

impl Pace {
    /// A request is sent to it.
    pub(crate) const fn sent(&mut self, now: Stamp) {
        if self.quiet_since.is_none() {
            self.quiet_since = Some(now);
        }
        self.in_flight += 1;
    }

    /// It has answered a request that was sent so long ago.
    pub(crate) fn answered(&mut self, sample: Duration, now: Stamp) {
        self.take(sample, now);
        self.in_flight = self.in_flight.saturating_sub(1);
        self.quiet_since = (self.in_flight > 0).then_some(now);
        self.given_up = 0;
    }

    /// A request was given up after so long, so its answer would have taken longer.
    pub(crate) fn gave_up(&mut self, waited: Duration, now: Stamp) {
        if self.mean.exp() < waited.as_secs_f64() * 1e6 {
            self.take(waited, now);
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        self.given_up = self.given_up.saturating_add(1);
    }

    /// A request ended in a way that tells nothing about the pace: refused, broken off.
    pub(crate) const fn lost(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if self.in_flight == 0 && self.given_up == 0 {
            self.quiet_since = None;
        }
    }

    fn take(&mut self, sample: Duration, now: Stamp) {
        let log = (sample.as_secs_f64() * 1e6).max(1.0).ln();
        if now.since(self.answered_at) > PACE_AGE_MAX {
            self.answers = 0;
        }
        let memory = PACE_MEMORY.min(f64::from(self.answers) + 1.0);
        self.mean += (log - self.mean) / memory;
        self.answers = self.answers.saturating_add(1);
        self.answered_at = now;
    }

    /// Microseconds; `None` when too little is known.
    fn micros(&self, now: Stamp) -> Option<f64> {
        let silence = self
            .quiet_since
            .filter(|_| self.in_flight.saturating_add(self.given_up) >= SILENT_REQUESTS)
            .map(|since| now.since(since))
            .filter(|silence| *silence >= SILENCE_MIN)
            .map(|silence| silence.as_secs_f64() * 1e6);
        let is_known = self.answers >= PACE_ANSWERS && now.since(self.answered_at) <= PACE_AGE_MAX;
        let usual = is_known.then(|| self.mean.exp());
        match (usual, silence) {
            (Some(usual), Some(silence)) => Some(usual.max(silence)),
            (one, other) => one.or(other),
        }
    }
}

/// What a pool's replicas usually take, seen from one of them: the middle one of the others.
pub(crate) fn peers_pace(peers: impl Iterator<Item = Pace>, now: Stamp) -> Option<Duration> {
    let mut paces = [0.0; PEERS_MAX];
    let mut count = 0;
    for (place, micros) in paces.iter_mut().zip(peers.filter_map(|pace| pace.micros(now))) {
        *place = micros;
        count += 1;
    }
    if count < PEERS_MIN {
        return None;
    }
    let paces = &mut paces[..count];
    let (_, middle, _) = paces.select_nth_unstable_by((count - 1) / 2, f64::total_cmp);
    Some(Duration::from_secs_f64(*middle / 1e6))
}

/// Who may be left out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    /// Replicas that are ready.
    pub(crate) pool: usize,
    /// Those of them that are left out, for whatever reason.
    pub(crate) out: usize,
    /// The gateway's own loop lags: what it measures proves nothing.
    pub(crate) lagging: bool,
}

impl Room {
    /// Half of the pool stays, and of two none goes: the slower of two is half of the capacity.
    const fn has_place(self) -> bool {
        self.pool > 2 && (self.out + 1) * 2 <= self.pool
    }
}

/// One replica's standing as far as its pace goes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Gray {
    state: State,
    /// Times out since it was last well for long.
    times_out: u32,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// `back` is when it was let in again.
    In {
        slow: Option<Slow>,
        back: Stamp,
    },
    Out {
        until: Stamp,
        trials: u32,
    },
}

impl Default for State {
    fn default() -> Self {
        Self::In { slow: None, back: Stamp::EPOCH }
    }
}

#[derive(Debug, Clone, Copy)]
struct Slow {
    since: Stamp,
    answers: u32,
}

impl Gray {
    /// Whether it may be chosen; [`Standing::Trial`] means by one request at a time.
    pub(crate) fn standing(&self, now: Stamp) -> Standing {
        match self.state {
            State::In { .. } => Standing::In,
            State::Out { until, .. } if now < until => Standing::Out,
            State::Out { .. } => Standing::Trial,
        }
    }

    /// Whether a trial has been due for so long that a request which cannot be repeated may be it.
    pub(crate) fn is_overdue(&self, now: Stamp) -> bool {
        matches!(self.state, State::Out { until, .. } if now.since(until) > OVERDUE)
    }

    /// The share of its requests that it is given: less than 1 for a while after it was left out.
    pub(crate) fn share(&self, now: Stamp) -> f64 {
        match self.state {
            State::In { back, .. } => slow_start::share(now.since(back), RAMP),
            State::Out { .. } => 1.0,
        }
    }

    /// Compares its pace with its peers', at each answer and now and then; `true` when it is left out from now on.
    pub(crate) fn judge(&mut self, pace: &Pace, peers: Option<Duration>, now: Stamp, room: Room) -> bool {
        let State::In { slow, back } = self.state else { return false };
        let is_slow = peers.zip(pace.micros(now)).is_some_and(|(peers, own)| is_slow(own, peers));
        if !is_slow || room.lagging {
            self.state = State::In { slow: None, back };
            if now.since(back) > OUT_MAX {
                self.times_out = 0;
            }
            return false;
        }
        let Some(slow) = slow else {
            self.state = State::In { slow: Some(Slow { since: now, answers: pace.answers }), back };
            return false;
        };
        let answers = pace.answers.saturating_sub(slow.answers);
        let is_enough = answers >= SLOW_ANSWERS || now.since(slow.since) >= SLOW_TIME;
        if !(is_enough && room.has_place()) {
            return false;
        }
        self.leave_out(now);
        true
    }

    /// A request that tried whether it is well again took so long, or longer, if it has no answer.
    pub(crate) fn tried(&mut self, took: Duration, peers: Option<Duration>, now: Stamp, pace: &mut Pace) {
        let State::Out { until, trials } = self.state else { return };
        if now < until {
            return;
        }
        if peers.is_some_and(|peers| is_slow(took.as_secs_f64() * 1e6, peers)) {
            self.leave_out(now);
        } else if trials + 1 < TRIALS {
            self.state = State::Out { until, trials: trials + 1 };
        } else {
            self.state = State::In { slow: None, back: now };
            // The slow answers of before are no pace of today's.
            (pace.answers, pace.quiet_since, pace.given_up) = (0, None, 0);
        }
    }

    fn leave_out(&mut self, now: Stamp) {
        let wait = OUT_FIRST.saturating_mul(1 << self.times_out.min(16)).min(OUT_MAX);
        self.times_out = self.times_out.saturating_add(1);
        self.state = State::Out { until: now.plus(wait), trials: 0 };
    }
}

fn is_slow(own_micros: f64, peers: Duration) -> bool {
    let peers = peers.as_secs_f64() * 1e6;
    own_micros > peers * SLOW_RATIO && own_micros > peers + SLOW_MARGIN.as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: Room = Room { pool: 3, out: 0, lagging: false };

    fn at(millis: u64) -> Stamp {
        Stamp::from_micros(1_795_000_000_000_000 + millis * 1_000)
    }

    fn pace(millis: u64, now: Stamp) -> Pace {
        let mut pace = Pace::default();
        for _ in 0..30 {
            pace.sent(now);
            pace.answered(Duration::from_millis(millis), now);
        }
        pace
    }

    fn usual(now: Stamp) -> Option<Duration> {
        peers_pace([pace(10, now), pace(11, now)].into_iter(), now)
    }

    /// Judges a pace that stays what it is, every 10 ms; after which time it was left out.
    fn left_out_after(own: Pace, peers: Option<Duration>, room: Room) -> Option<u64> {
        let mut gray = Gray::default();
        (0..3_000).step_by(10).find(|millis| gray.judge(&own, peers, at(*millis), room))
    }

    #[test]
    fn five_times_as_slow_and_noticeably_so() {
        let now = at(0);
        assert_eq!(left_out_after(pace(60, now), usual(now), THREE), Some(500));
        assert_eq!(left_out_after(pace(40, now), usual(now), THREE), None);
        let quick = peers_pace([pace(1, now), pace(1, now)].into_iter(), now);
        assert_eq!(left_out_after(pace(15, now), quick, THREE), None, "fifteen times, but who notices");
        assert_eq!(left_out_after(pace(60, now), None, THREE), None, "no peers, no comparison");
    }

    #[test]
    fn twenty_slow_answers_are_enough_and_a_few_are_not() {
        let now = at(0);
        let (mut gray, mut own) = (Gray::default(), pace(10, now));
        let slow = |own: &mut Pace| {
            own.sent(now);
            own.answered(Duration::from_secs(1), now);
        };
        for _ in 0..3 {
            slow(&mut own);
            assert!(!gray.judge(&own, usual(now), now, THREE));
        }
        let more = (0..100).take_while(|_| {
            slow(&mut own);
            !gray.judge(&own, usual(now), now, THREE)
        });
        assert!((20..30).contains(&more.count()));
    }

    #[test]
    fn silence_counts_when_several_wait() {
        let mut one = pace(10, at(0));
        one.sent(at(0));
        assert!(one.micros(at(400)).unwrap() < 20_000.0);
        one.sent(at(0));
        assert!(one.micros(at(50)).unwrap() < 20_000.0);
        assert!(one.micros(at(400)).unwrap() > 390_000.0);
        let mut gray = Gray::default();
        let out = (0..3_000).step_by(10).find(|t| gray.judge(&one, usual(at(0)), at(*t), THREE));
        assert_eq!(out, Some(600), "100 ms are no silence, then half a second");
    }

    #[test]
    fn who_is_always_given_up_is_slow_and_not_unknown() {
        let mut given_up = pace(10, at(0));
        for millis in (0..1_000).step_by(100) {
            given_up.sent(at(millis));
            given_up.gave_up(Duration::from_millis(50), at(millis + 50));
        }
        assert!(given_up.micros(at(1_000)).unwrap() > 900_000.0);
        given_up.sent(at(1_000));
        given_up.answered(Duration::from_millis(10), at(1_010));
        assert!(given_up.micros(at(2_000)).unwrap() < 50_000.0);
        let mut quiet = pace(10, at(0));
        quiet.sent(at(10));
        quiet.lost();
        quiet.sent(at(5_000));
        quiet.sent(at(5_000));
        assert!(quiet.micros(at(5_010)).unwrap() < 11_000.0, "nobody asked it in between");
    }

    #[test]
    fn half_of_the_pool_stays_and_a_lagging_gateway_blames_nobody() {
        let now = at(0);
        let out = |pool, out, lagging| {
            left_out_after(pace(1_000, now), usual(now), Room { pool, out, lagging }).is_some()
        };
        assert!(!out(1, 0, false) && !out(2, 0, false) && out(3, 0, false) && !out(3, 1, false));
        assert!(out(4, 1, false) && !out(4, 2, false) && out(10, 4, false) && !out(10, 5, false));
        assert!(!out(10, 0, true));
    }

    #[test]
    fn it_comes_back_by_a_trickle_and_relapses_cost_more_and_more() {
        let (mut gray, mut own) = (Gray::default(), pace(1_000, at(0)));
        let peers = Some(Duration::from_millis(10));
        let out = (0..1_000).step_by(10).any(|t| gray.judge(&own, peers, at(t), THREE));
        assert!(out);
        assert_eq!(gray.standing(at(1_499)), Standing::Out);
        assert_eq!(gray.standing(at(1_500)), Standing::Trial);
        gray.tried(Duration::from_millis(900), peers, at(2_000), &mut own);
        assert_eq!(gray.standing(at(3_999)), Standing::Out);
        assert_eq!(gray.standing(at(4_000)), Standing::Trial);
        for trial in 0..TRIALS {
            assert_eq!(gray.standing(at(4_000)), Standing::Trial, "{trial}");
            gray.tried(Duration::from_millis(12), peers, at(4_000), &mut own);
        }
        assert_eq!(gray.standing(at(4_000)), Standing::In);
        assert!(gray.share(at(4_000)) < 0.2 && gray.share(at(9_000)) >= 1.0);
        assert!(!gray.judge(&own, peers, at(4_100), THREE), "what it was is forgotten");
        // A relapse: out for twice as long again.
        let mut own = pace(1_000, at(5_000));
        let out = (5_000..6_000).step_by(10).find(|t| gray.judge(&own, peers, at(*t), THREE));
        assert_eq!(out, Some(5_500));
        assert_eq!(gray.standing(at(9_499)), Standing::Out);
        assert_eq!(gray.standing(at(9_500)), Standing::Trial);
        gray.tried(Duration::from_secs(1), None, at(9_000), &mut own);
    }
}
