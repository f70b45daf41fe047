//! Runs that are let in before they begin.

use std::sync::Arc;

use standfast_model::workflow::Period;

use super::Deciding;
use super::sight::Sight;
use crate::program::Form;
use crate::run::{Event, Limits, Problem, RateLimit, RunId, ScopeId, SlotHeld, SlotLimit, Standard};

/// What a run fails by that was not let in for too long.
const QUEUE_TIMEOUT: &str = "urn:standfast:error:queue-timeout";
/// Largest key, in bytes.
const KEY_BYTES_MAX: usize = 256;
/// Where the document says so.
const PLACE: &str = "/document/metadata/standfast";

impl Deciding<'_> {
    /// What limits the run besides itself.
    pub(super) fn limits(
        &self,
        around: &[SlotHeld],
        sight: &Sight<'_>,
    ) -> Result<Option<Box<Limits>>, Problem> {
        let program = self.world.program;
        let mut limits = Limits::new(Arc::clone(&program.share), program.priority);
        limits.around = around.to_vec();
        let Some(said) = &program.limits else {
            return Ok((!around.is_empty()).then(|| Box::new(limits)));
        };
        if let Some((limit, key)) = &said.slots {
            limits.slot =
                Some(SlotLimit { key: self.run_key(key.as_ref(), "concurrency", sight)?, limit: *limit });
        }
        if let Some((limit, every, key)) = &said.rate {
            let key = self.run_key(key.as_ref(), "rate", sight)?;
            let every_micros = u64::try_from(every.as_micros()).unwrap_or(u64::MAX);
            limits.rate = Some(RateLimit { key, limit: *limit, every_micros });
        }
        limits.share = self.run_key(said.fairness.as_ref(), "fairness", sight)?;
        let until = self.deadline(said.queue_timeout, sight);
        limits.until = until.map_err(|problem| problem.at(&format!("{PLACE}/queueTimeout")))?;
        Ok(Some(Box::new(limits)))
    }

    fn run_key(&self, key: Option<&Form>, of: &str, sight: &Sight<'_>) -> Result<Option<Arc<str>>, Problem> {
        let Some(key) = key else { return Ok(None) };
        let dot = sight.input.clone().unwrap_or_default();
        let text = self.text(key, &dot, sight).and_then(|text| match text.len() {
            0..=KEY_BYTES_MAX => Ok(text.into()),
            found => {
                let why = format!("the key has {found} bytes, at most {KEY_BYTES_MAX} are allowed");
                Err(Standard::Validation.problem(why))
            }
        });
        text.map(Some).map_err(|problem| problem.at(&format!("{PLACE}/{of}/key")))
    }

    /// It is let in.
    pub(super) fn admit(&mut self, within: Option<RunId>) {
        if !self.run.is_queued() || self.queue_timed_out() {
            return;
        }
        self.note(Event::Admitted { within });
        self.look_at(ScopeId::ROOT);
    }

    /// Ends it if it was not let in for too long.
    pub(super) fn queue_timed_out(&mut self) -> bool {
        let Some(limits) = self.run.limits.as_deref().filter(|_| self.run.is_queued()) else { return false };
        if limits.until.is_none_or(|until| until > self.now) {
            return false;
        }
        let waited = self.now.since(self.run.started_at).as_secs_f64();
        let detail = format!("it waited {waited:.1} s {}, longer than its queueTimeout", waited_for(limits));
        let problem = Problem {
            kind: QUEUE_TIMEOUT.to_owned(),
            title: Some("Queue Timeout".to_owned()),
            ..Standard::Timeout.problem(detail)
        };
        self.end_by(problem.at(&format!("{PLACE}/queueTimeout")));
        true
    }
}

/// What a run is let in by.
pub(crate) fn waited_for(limits: &Limits) -> String {
    match (&limits.slot, &limits.rate) {
        (Some(slot), _) => for_slot(slot),
        (None, Some(rate)) => for_rate(rate),
        (None, None) => "for room".to_owned(),
    }
}

pub(crate) fn for_slot(slot: &SlotLimit) -> String {
    let what =
        if slot.limit == 1 { "the only slot".to_owned() } else { format!("one of {} slots", slot.limit) };
    format!("for {what} of {}", whose(slot.key.as_deref()))
}

pub(crate) fn for_rate(rate: &RateLimit) -> String {
    let every = Period { months: 0, rest: rate.every() };
    format!("for its turn to begin ({} in {every} of {})", rate.limit, whose(rate.key.as_deref()))
}

fn whose(key: Option<&str>) -> String {
    key.map_or_else(|| "the workflow".to_owned(), |key| format!("key `{key}`"))
}
