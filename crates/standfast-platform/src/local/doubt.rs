//! Whether silence is the replicas' fault or ours. Pure.
//!
//! When most replicas are silent at once the observer is the likeliest culprit: its machine stood still, or it has no CPU. Nobody is
//! killed for silence then, for a while. When most answer again, what was counted before proves nothing, also against those that
//! are heard last.

use std::time::Duration;

use standfast_model::Stamp;

/// How long kills for silence may be put off.
const DOUBT_MAX: Duration = Duration::from_secs(60);

/// Doubt in what is observed here.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Doubt {
    since: Option<Stamp>,
    /// When it was over the last time, unless it had lasted too long to be believed.
    over: Option<Stamp>,
}

impl Doubt {
    /// Since when there is doubt.
    pub(crate) fn since(&self) -> Option<Stamp> {
        self.since
    }

    /// Whether a death by silence that began at `failing_since` is not to be believed, while most replicas are silent or not.
    pub(crate) fn excuses(&mut self, most_are_silent: bool, failing_since: Stamp, now: Stamp) -> bool {
        if !most_are_silent {
            self.end(now);
            return self.over.is_some_and(|over| failing_since <= over);
        }
        now.since(*self.since.get_or_insert(now)) < DOUBT_MAX
    }

    /// Most replicas answer.
    pub(crate) fn end(&mut self, now: Stamp) {
        if let Some(since) = self.since.take()
            && now.since(since) < DOUBT_MAX
        {
            self.over = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Stamp {
        Stamp::from_micros((1_000_000 + seconds) * 1_000_000)
    }

    #[test]
    fn who_is_silent_alone_is_not_excused() {
        let mut doubt = Doubt::default();
        assert!(!doubt.excuses(false, at(1), at(3)));
        assert_eq!(doubt.since(), None);
    }

    #[test]
    fn the_last_to_be_heard_again_is_not_killed_for_what_was_counted_before() {
        let mut doubt = Doubt::default();
        assert!(doubt.excuses(true, at(1), at(3)), "most are silent");
        doubt.end(at(5));
        assert!(doubt.excuses(false, at(1), at(6)), "its silence is older than the end of the doubt");
        assert!(doubt.excuses(false, at(5), at(6)));
        assert!(!doubt.excuses(false, at(7), at(9)), "silent since after it, alone");
    }

    #[test]
    fn doubt_ends_with_the_question_too_and_begins_anew() {
        let mut doubt = Doubt::default();
        assert!(doubt.excuses(true, at(1), at(3)));
        assert!(doubt.excuses(false, at(2), at(4)));
        assert_eq!(doubt.since(), None);
        assert!(doubt.excuses(true, at(8), at(9)));
        assert_eq!(doubt.since(), Some(at(9)));
    }

    #[test]
    fn doubt_that_lasts_too_long_is_believed_no_more() {
        let mut doubt = Doubt::default();
        assert!(doubt.excuses(true, at(1), at(3)));
        assert!(doubt.excuses(true, at(1), at(62)));
        assert!(!doubt.excuses(true, at(1), at(63)));
        assert!(!doubt.excuses(false, at(1), at(64)), "nor is anybody excused after it");
    }
}
