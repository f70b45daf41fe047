//! When a replica is left out because of what its answers show (passive ejection). Pure.
//!
//! Hard evidence (nobody listens there) needs no second look, soft evidence (silence, broken connections, 502–504) does, and both
//! are capped, so that the gateway's own trouble or a fault that all replicas share never empties a pool.

use std::time::Duration;

use standfast_model::Stamp;

/// Failures in a row after which a replica is left out.
const FAILURES_MAX: u32 = 3;
/// How long the first time.
const OUT_FIRST: Duration = Duration::from_millis(250);
/// How long at most; each time in a row doubles it.
const OUT_MAX: Duration = Duration::from_secs(10);

/// What one attempt showed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// It answered, and with none of 502, 503, 504.
    Answered,
    /// No connection could be made.
    Refused,
    /// It was silent for the whole attempt, to everybody.
    Silent,
    /// This answer did not come in time, though others did.
    Slow,
    /// The connection broke before an answer, or the answer was 502, 503 or 504.
    Failed,
}

/// Whether a replica may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It may.
    In,
    /// It may not.
    Out,
    /// Its time is over: one request that can be repeated may try it.
    Trial,
}

/// How many are in a pool, and how many of them are left out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    pub(crate) pool: usize,
    pub(crate) out: usize,
    /// The worker's own loop lags so much that silence proves nothing.
    pub(crate) lagging: bool,
}

impl Room {
    /// Hard evidence may leave out all but one, soft evidence half.
    const fn has_place(&self, evidence: Evidence) -> bool {
        match evidence {
            Evidence::Refused => self.out + 1 < self.pool,
            _ => !self.lagging && (self.out + 1) * 2 <= self.pool,
        }
    }
}

/// One replica's record.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Health {
    failures_in_a_row: u32,
    times_out_in_a_row: u32,
    out: Option<Out>,
}

#[derive(Debug, Clone, Copy)]
struct Out {
    until: Stamp,
    /// It takes no connections: a probe, not a user's request, finds out when it does.
    awaits_probe: bool,
}

impl Health {
    /// Takes in what an attempt showed; `true` when the replica is left out from now on and was not before.
    pub(crate) fn judge(&mut self, evidence: Evidence, now: Stamp, room: Room) -> bool {
        if evidence == Evidence::Answered {
            let was_out = self.out.take().is_some();
            self.failures_in_a_row = 0;
            // The count of times falls only with answers after the trial's, so that a replica that comes and goes stays
            // out longer and longer.
            if !was_out {
                self.times_out_in_a_row = 0;
            }
            return false;
        }
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        let enough = match evidence {
            Evidence::Refused | Evidence::Silent => true,
            _ => self.failures_in_a_row >= FAILURES_MAX,
        };
        let was_out = self.out.is_some();
        if !(was_out || enough && room.has_place(evidence)) {
            return false;
        }
        // What fails while it is out was in flight before, and tells nothing new.
        if was_out && self.standing(now) == Standing::Out {
            if let Some(out) = &mut self.out {
                out.awaits_probe |= evidence == Evidence::Refused;
            }
            return false;
        }
        let wait = OUT_FIRST
            .saturating_mul(1_u32.checked_shl(self.times_out_in_a_row).unwrap_or(u32::MAX))
            .min(OUT_MAX);
        self.times_out_in_a_row = self.times_out_in_a_row.saturating_add(1);
        self.out = Some(Out { until: now.plus(wait), awaits_probe: evidence == Evidence::Refused });
        !was_out
    }

    pub(crate) fn standing(&self, now: Stamp) -> Standing {
        match self.out {
            None => Standing::In,
            Some(out) if now < out.until || out.awaits_probe => Standing::Out,
            Some(_) => Standing::Trial,
        }
    }

    /// Whether a trial has been due for so long that requests which cannot be repeated may be it: a service may have no others.
    pub(crate) fn is_overdue(&self, now: Stamp) -> bool {
        self.out.is_some_and(|out| !out.awaits_probe && now.since(out.until) > OUT_MAX)
    }

    /// Whether it is time to see if connections are taken again.
    pub(crate) fn wants_probe(&self, now: Stamp) -> bool {
        self.out.is_some_and(|out| out.awaits_probe && now >= out.until)
    }

    /// A probe's connection was taken, or refused again.
    pub(crate) fn probed(&mut self, connected: bool, now: Stamp) {
        let Some(out) = &mut self.out else { return };
        if connected {
            *out = Out { until: now, awaits_probe: false };
        } else {
            // The same pace for ever: connecting costs next to nothing, and a replica that is back should be used at once.
            out.until = now.plus(OUT_FIRST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Stamp = Stamp::from_micros(1_000_000);
    const THREE: Room = Room { pool: 3, out: 0, lagging: false };

    fn later(millis: u64) -> Stamp {
        NOW.plus(Duration::from_millis(millis))
    }

    #[test]
    fn a_refused_connection_or_silence_is_enough_failures_need_three() {
        for evidence in [Evidence::Refused, Evidence::Silent] {
            let mut health = Health::default();
            assert!(health.judge(evidence, NOW, THREE));
            assert_eq!(health.standing(NOW), Standing::Out);
        }
        let mut health = Health::default();
        assert!(!health.judge(Evidence::Failed, NOW, THREE));
        assert!(!health.judge(Evidence::Answered, NOW, THREE));
        assert!(!health.judge(Evidence::Failed, NOW, THREE));
        assert!(!health.judge(Evidence::Slow, NOW, THREE));
        assert!(health.judge(Evidence::Failed, NOW, THREE));
    }

    #[test]
    fn half_of_the_pool_stays_in_and_of_dead_ones_one() {
        let soft =
            |pool, out| Health::default().judge(Evidence::Silent, NOW, Room { pool, out, lagging: false });
        assert!(!soft(1, 0) && soft(2, 0) && soft(3, 0) && !soft(3, 1) && soft(4, 1));
        let hard =
            |pool, out| Health::default().judge(Evidence::Refused, NOW, Room { pool, out, lagging: false });
        assert!(!hard(1, 0) && hard(2, 0) && hard(3, 1) && !hard(3, 2));
    }

    #[test]
    fn a_lagging_gateway_blames_nobody_for_silence() {
        let lagging = Room { lagging: true, ..THREE };
        assert!(!Health::default().judge(Evidence::Silent, NOW, lagging));
        assert!(Health::default().judge(Evidence::Refused, NOW, lagging));
    }

    #[test]
    fn a_trial_follows_and_each_failed_one_doubles_the_time_out() {
        let mut health = Health::default();
        health.judge(Evidence::Silent, NOW, THREE);
        assert_eq!(health.standing(later(249)), Standing::Out);
        assert_eq!(health.standing(later(250)), Standing::Trial);
        assert!(!health.judge(Evidence::Silent, later(300), THREE));
        assert_eq!(health.standing(later(799)), Standing::Out);
        assert_eq!(health.standing(later(800)), Standing::Trial);
        health.judge(Evidence::Answered, later(801), THREE);
        assert_eq!(health.standing(later(801)), Standing::In);
    }

    #[test]
    fn who_takes_no_connections_waits_for_a_probe() {
        let mut health = Health::default();
        health.judge(Evidence::Refused, NOW, THREE);
        assert_eq!(health.standing(later(9_000)), Standing::Out);
        assert!(health.wants_probe(later(250)));
        health.probed(false, later(250));
        assert!(!health.wants_probe(later(251)));
        health.probed(true, later(600));
        assert_eq!(health.standing(later(600)), Standing::Trial);
    }
}
