//! From a record and its journal to a verdict. Pure: the same files give the same verdict.
//!
//! The order of verdicts, from the strongest. Evidence that work was lost, doubled or done unasked stands whatever else went
//! wrong (**broke**). Then a run that shows nothing is called so (**not run**): the generator was the bottleneck, arrivals were
//! dropped, the stack was never steady, the run was stopped. Then a fault that could not be undone (**not restored**), since
//! someone must act. Then what else broke, then a fault that did not bite. All reasons are listed, whichever decides.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use standfast_model::Stamp;

use crate::journal::{Journal, Request};
use crate::oracle::{self, Finding, thousands};
use crate::outcome::{Outcome, Refusal};
use crate::record::{Ended, FaultRecord, Record, millis};
use crate::target::Act;
use crate::verdict::{Reason, Verdict, Weight};

/// The version of [`Judgement`] that is written.
pub const JUDGEMENT_VERSION: u32 = 1;

/// What the requests around a fault were like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultFacts {
    /// The fault's number.
    pub number: u32,
    /// Requests due from the injection to the end of its settling, and those on their way when it began.
    pub requests: u64,
    /// Those of them that were not acknowledged.
    pub failed: u64,
    /// Those of the failed that a keyed retry could have saved.
    pub failed_repeatable: u64,
    /// How they failed, and how often.
    pub failures: BTreeMap<String, u64>,
    /// The longest latency of an acknowledged one, in microseconds.
    pub worst_us: u64,
    /// From the injection to the end of the last bad request (failed or slow), in milliseconds; 0 when there was none.
    pub disturbed_ms: u64,
}

/// A verdict with all that it rests on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The format's version.
    pub version: u32,
    /// The verdict.
    pub verdict: Verdict,
    /// The reasons, the weightiest first; none when it held.
    pub reasons: Vec<Reason>,
    /// What a reader should know that changes nothing: what was not judged, and why.
    pub notes: Vec<String>,
    /// By invariant, in the record's order.
    pub findings: Vec<Finding>,
    /// By fault, in the record's order.
    pub faults: Vec<FaultFacts>,
    /// Requests of the journal.
    pub requests: u64,
    /// Those acknowledged.
    pub acknowledged: u64,
    /// The acknowledged share of all that were due, from 0 to 1.
    pub availability: f64,
    /// The warm-up's 99th percentile, in microseconds; `None` with fewer than [`WARM_UP_MIN`] requests.
    pub normal_p99_us: Option<u64>,
    /// Above this a request counted as slow, in microseconds.
    pub slow_us: u64,
}

/// Requests of the warm-up below which its percentiles mean nothing.
pub const WARM_UP_MIN: usize = 20;

/// Above which latency a request is slow, from the warm-up's 99th percentile.
pub(crate) fn slow_above(normal_p99: Option<Duration>, thresholds: &crate::config::Thresholds) -> Duration {
    let scaled = normal_p99.map_or(0.0, |p99| p99.as_secs_f64() * thresholds.slow_factor);
    Duration::from_secs_f64(scaled.clamp(0.0, 3_600.0)).max(thresholds.slow_floor)
}

/// Judges a run by its record and its journal.
pub fn judge(record: &Record, journal: &Journal) -> Judgement {
    let normal_p99 = normal_p99(record, journal);
    let mut court = Court {
        record,
        journal,
        slow: slow_above(normal_p99, &record.options.thresholds),
        reasons: Vec::new(),
        notes: Vec::new(),
    };
    let findings: Vec<Finding> =
        record.invariants.iter().map(|invariant| oracle::find(invariant, journal)).collect();
    court.judge_safety(&findings);
    court.judge_starts();
    court.judge_validity(&findings);
    let availability = court.judge_availability();
    let mut faults = Vec::new();
    for fault in &record.faults {
        let facts = court.facts(fault);
        court.judge_course(fault);
        court.judge_requests(fault, &facts);
        court.judge_readiness(fault);
        faults.push(facts);
    }
    court.judge_end();
    court.reasons.sort_by_key(|reason| reason.weight);
    let slow_us = u64::try_from(court.slow.as_micros()).unwrap_or(u64::MAX);
    let verdict = court.reasons.first().map_or(Verdict::Held, |reason| reason.weight.verdict());
    Judgement {
        version: JUDGEMENT_VERSION,
        verdict,
        reasons: court.reasons,
        notes: court.notes,
        findings,
        faults,
        requests: journal.requests.len() as u64,
        acknowledged: journal.requests.iter().filter(|request| request.is_acknowledged()).count() as u64,
        availability,
        normal_p99_us: normal_p99.map(|p99| u64::try_from(p99.as_micros()).unwrap_or(u64::MAX)),
        slow_us,
    }
}

/// The 99th percentile of what was acknowledged before the first fault, without the load's first second, in which
/// connections are made.
fn normal_p99(record: &Record, journal: &Journal) -> Option<Duration> {
    let from = record.load_from.plus(Duration::from_secs(1).min(record.options.pace.warm_up / 3));
    let until = record.faults.first().map_or(record.load_until, |fault| fault.injected_at);
    let mut latencies: Vec<Duration> = journal
        .requests
        .iter()
        .filter(|request| request.is_acknowledged() && request.due >= from)
        .filter_map(|request| request.outcome.filter(|(at, _)| *at <= until).and(request.latency()))
        .collect();
    latencies.sort_unstable();
    let last = latencies.len().checked_sub(1)?;
    (latencies.len() >= WARM_UP_MIN).then(|| latencies[last * 99 / 100])
}

struct Court<'a> {
    record: &'a Record,
    journal: &'a Journal,
    slow: Duration,
    reasons: Vec<Reason>,
    notes: Vec<String>,
}

impl Court<'_> {
    fn rule(&mut self, weight: Weight, fault: Option<&FaultRecord>, text: String) {
        let fault = fault.map(|fault| fault.step.number);
        self.reasons.push(Reason { weight, fault, invariant: None, text });
    }

    fn judge_safety(&mut self, findings: &[Finding]) {
        for (index, finding) in findings.iter().enumerate() {
            let kinds = [
                (&finding.lost, "acknowledged and lost"),
                (&finding.doubled, "done more often than once asked"),
                (&finding.without_cause, "done without being asked for"),
                (&finding.refused_and_done, "refused and done all the same"),
                (&finding.malformed, "recorded without a legible id"),
            ];
            for (cases, what) in kinds.iter().filter(|(cases, _)| cases.count > 0) {
                let text = format!(
                    "{}: {} {what}, for example {}",
                    finding.invariant,
                    thousands(cases.count),
                    cases.examples.iter().take(3).cloned().collect::<Vec<_>>().join(", ")
                );
                self.reasons.push(Reason {
                    weight: Weight::Unsafe,
                    fault: None,
                    invariant: Some(index),
                    text,
                });
            }
        }
    }

    /// Whether each acknowledged start of a workflow has one run, which ended well.
    fn judge_starts(&mut self) {
        for facts in &self.record.workflows {
            if !facts.is_judged {
                let text = format!("{}: the runs could not be read, so they were not judged", facts.workflow);
                self.rule(Weight::Void, None, text);
            }
            let kinds = [
                (&facts.lost, "starts acknowledged and lost", Weight::Unsafe),
                (&facts.doubled, "starts with more than one run", Weight::Unsafe),
                (&facts.open, "runs without an end", Weight::Broke),
                (&facts.failed, "runs ended by a fault", Weight::Broke),
            ];
            for (cases, what, weight) in kinds.into_iter().filter(|(cases, ..)| cases.count > 0) {
                let examples = cases.examples.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
                let text =
                    format!("{}: {} {what}, for example {examples}", facts.workflow, thousands(cases.count));
                self.rule(weight, None, text);
            }
        }
    }

    /// Whether the run can prove anything at all.
    fn judge_validity(&mut self, findings: &[Finding]) {
        let (record, thresholds) = (self.record, &self.record.options.thresholds);
        let measured = &record.measured;
        let mut void = |text: String| self.rule(Weight::Void, None, text);
        match &record.ended {
            Ended::Planned | Ended::NotHealed { .. } | Ended::NotRestored => {}
            Ended::Stopped => void("the run was stopped before its end".to_owned()),
            Ended::NeverSteady { amiss } => {
                void(format!("the stack was never steady, so nothing was broken: {amiss}"));
            }
            Ended::Deadline => void("the run's overall deadline passed".to_owned()),
            Ended::Failed { reason } => void(format!("the run failed: {reason}")),
        }
        if record.loads.is_empty() {
            void("the stack declares no load, so nothing was asked of it".to_owned());
        }
        if measured.dropped > 0 {
            let (dropped, of) = (thousands(measured.dropped), thousands(measured.offered));
            void(format!("{dropped} of {of} arrivals were dropped: too many requests were on their way"));
        }
        if measured.out_of_sockets > 0 {
            let count = thousands(measured.out_of_sockets);
            void(format!("{count} requests found no socket on this machine: raise its limit of open files"));
        }
        let lag = Duration::from_micros(measured.lag.p99_us);
        if lag > thresholds.lag_p99_max {
            let (is, max) = (millis(lag), millis(thresholds.lag_p99_max));
            void(format!("the generator was the bottleneck: its own lag was {is} ms at p99, above {max} ms"));
        }
        match record.generator {
            None => void("the generator died".to_owned()),
            Some(generator) if generator.cpu_share > thresholds.cpu_share_max => {
                let share = 100.0 * generator.cpu_share;
                void(format!("the generator was the bottleneck: it used {share:.0} % of a core"));
            }
            Some(_) => {}
        }
        for finding in findings.iter().filter(|finding| !finding.is_judged) {
            void(format!("{}: the effects could not be read, so it was not judged", finding.invariant));
        }
        if !self.journal.is_complete {
            self.notes.push(
                "the journal has no end line: its writer died, and what it had not written counts as unknown"
                    .to_owned(),
            );
        }
        if record.invariants.is_empty() {
            self.notes.push(
                "no invariant is declared: whether anything was lost or doubled was not judged".to_owned(),
            );
        }
        if record.plan.steps.is_empty() {
            self.notes.push("no experiment is declared: nothing was broken".to_owned());
        }
    }

    fn judge_availability(&mut self) -> f64 {
        let acknowledged = self.journal.requests.iter().filter(|request| request.is_acknowledged()).count();
        let due = self.journal.requests.len() as u64 + self.record.measured.dropped;
        if due == 0 {
            if !self.record.loads.is_empty() {
                self.rule(Weight::Void, None, "no request was due".to_owned());
            }
            return 0.0;
        }
        let availability = acknowledged as f64 / due as f64;
        let least = self.record.options.thresholds.availability_min;
        if availability < least {
            let text = format!(
                "{:.2} % of all requests were acknowledged, below {:.2} %",
                percent_down(availability),
                100.0 * least
            );
            self.rule(Weight::Broke, None, text);
        }
        availability
    }

    /// Requests that a fault may have touched: due while it was looked for, or on their way when it began.
    fn touched<'b>(&'b self, fault: &'b FaultRecord) -> impl Iterator<Item = &'b Request> {
        self.journal.requests.iter().filter(move |request| {
            let ended = request.outcome.map_or(Stamp::from_micros(u64::MAX), |(at, _)| at);
            request.due <= fault.over_at && ended >= fault.injected_at
        })
    }

    fn is_slow(&self, request: &Request) -> bool {
        request.latency().is_none_or(|latency| latency > self.slow)
    }

    fn facts(&self, fault: &FaultRecord) -> FaultFacts {
        let mut facts = FaultFacts {
            number: fault.step.number,
            requests: 0,
            failed: 0,
            failed_repeatable: 0,
            failures: BTreeMap::new(),
            worst_us: 0,
            disturbed_ms: 0,
        };
        if fault.injection.is_none() {
            return facts;
        }
        for request in self.touched(fault) {
            facts.requests += 1;
            let latency = request.latency().unwrap_or_default();
            if request.is_acknowledged() {
                facts.worst_us = facts.worst_us.max(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
            } else {
                facts.failed += 1;
                let is_repeatable =
                    self.record.loads.get(request.load).is_some_and(|load| load.is_repeatable);
                facts.failed_repeatable += u64::from(is_repeatable);
                let how = request
                    .outcome
                    .map_or_else(|| "no outcome written".to_owned(), |(_, outcome)| outcome.to_string());
                *facts.failures.entry(how).or_default() += 1;
            }
            if !request.is_acknowledged() || self.is_slow(request) {
                let at = request.outcome.map_or(fault.over_at, |(at, _)| at);
                facts.disturbed_ms = facts.disturbed_ms.max(millis(at.since(fault.injected_at)));
            }
        }
        facts
    }

    /// Whether the fault was there, went away, and was healed.
    fn judge_course(&mut self, fault: &FaultRecord) {
        let what = format!("{} {}", fault.verb(), fault.object());
        if !fault.bite.bit {
            self.rule(
                Weight::DidNotBite,
                Some(fault),
                format!("{what} did not bite: {}", fault.bite.evidence),
            );
        }
        if fault.injection.is_some() && fault.restored_at.is_none() && fault.undone_at.is_some() {
            let text =
                format!("{what} could not be seen to be undone; it ends by itself after its time to live");
            self.rule(Weight::NotRestored, Some(fault), text);
        }
        let was_waited_for = !matches!(self.record.ended, Ended::Stopped | Ended::Failed { .. });
        if fault.bite.bit && fault.healed_at.is_none() && was_waited_for {
            let amiss = match &self.record.ended {
                Ended::NotHealed { amiss } => format!(": {amiss}"),
                _ => String::new(),
            };
            let limit = self.record.options.pace.heal_max.as_secs_f64();
            let text = format!("the system did not heal within {limit:.0} s after {what}{amiss}");
            self.rule(Weight::Broke, Some(fault), text);
        }
    }

    /// What clients saw of a fault. Only a fault that bit is held against the system.
    fn judge_requests(&mut self, fault: &FaultRecord, facts: &FaultFacts) {
        let Some(injection) = fault.injection.as_ref().filter(|_| fault.bite.bit) else { return };
        let what = format!("{} {}", fault.verb(), fault.object());
        if let Act::KillInstance { instance, .. } = &injection.act {
            let service = &instance.replica.service;
            let replicas = self.record.services.iter().find(|facts| facts.name == *service);
            let replicas = replicas.map_or(0, |facts| facts.replicas);
            if replicas >= 2 && facts.failed_repeatable > 0 {
                let text = format!(
                    "{what}: {} requests failed that a repeat could have saved, although `{service}` has {replicas} replicas",
                    thousands(facts.failed_repeatable)
                );
                self.rule(Weight::Broke, Some(fault), text);
            }
        }
        let slices = self.slices(fault, &injection.act);
        let thresholds = &self.record.options.thresholds;
        let grace = self.grace(&injection.act).as_secs_f64();
        let (slow_max, slow) = (thresholds.slow_slices_max as usize, millis(self.slow));
        let failing: Vec<String> = slices
            .iter()
            .filter(|slice| slice.fails)
            .map(|slice| format!("{} of {} at +{:.0} s", slice.failed, slice.requests, slice.at_s))
            .collect();
        let slow_slices: Vec<String> = slices
            .iter()
            .filter(|slice| slice.is_slow)
            .map(|slice| format!("{} of {} at +{:.0} s", slice.slow, slice.requests, slice.at_s))
            .collect();
        if !failing.is_empty() {
            let list = abridged(&failing);
            let text = format!("{what}: more than {grace:.0} s later requests still failed ({list})");
            self.rule(Weight::Broke, Some(fault), text);
        }
        if slow_slices.len() > slow_max {
            let list = abridged(&slow_slices);
            let text = format!(
                "{what}: more than {grace:.0} s later requests still took longer than {slow} ms ({list})"
            );
            self.rule(Weight::Broke, Some(fault), text);
        }
    }

    fn grace(&self, act: &Act) -> Duration {
        match act {
            Act::KillNode { .. } => self.record.options.thresholds.grace_node,
            _ => self.record.options.thresholds.grace,
        }
    }

    /// The slices of time after a fault's grace, each with its requests by when they were due.
    fn slices(&self, fault: &FaultRecord, act: &Act) -> Vec<Slice> {
        let thresholds = &self.record.options.thresholds;
        let length = thresholds.slice.max(Duration::from_millis(1));
        let from = fault.injected_at.plus(self.grace(act));
        let mut slices: Vec<Slice> = Vec::new();
        let judged = self
            .journal
            .requests
            .iter()
            .filter(|request| request.due >= from && request.due <= fault.over_at);
        for request in judged {
            let index = (request.due.since(from).as_micros() / length.as_micros()) as usize;
            while slices.len() <= index {
                let start = from.plus(length.saturating_mul(u32::try_from(slices.len()).unwrap_or(u32::MAX)));
                slices.push(Slice::new(start.since(fault.injected_at), self.is_noisy(start, length)));
            }
            let slice = &mut slices[index];
            slice.requests += 1;
            slice.failed += u64::from(!request.is_acknowledged());
            slice.slow += u64::from(request.is_acknowledged() && self.is_slow(request));
        }
        for slice in &mut slices {
            let allowed = |share: f64| (slice.requests as f64 * share).max(1.0);
            let fails = slice.failed as f64 > allowed(thresholds.failed_share_max);
            let is_slow = slice.slow as f64 > allowed(thresholds.slow_share_max) && !slice.is_noisy;
            (slice.fails, slice.is_slow) = (fails, is_slow);
        }
        slices
    }

    /// Whether the generator itself was late in a slice, so that its latencies are the machine's and not the system's.
    fn is_noisy(&self, start: Stamp, length: Duration) -> bool {
        !self.late_by(start, start.plus(length)).is_zero()
    }

    /// By how much the generator was late in the seconds from one moment to another in which it was: as far as is known so long
    /// the machine stood still, and nobody on it did anything.
    fn late_by(&self, from: Stamp, to: Stamp) -> Duration {
        let first = from.since(self.record.load_from).as_secs();
        let last = to.since(self.record.load_from).as_secs();
        let limit = u64::try_from(self.record.options.thresholds.lag_noise.as_micros()).unwrap_or(u64::MAX);
        let index = |second: u64| usize::try_from(second).unwrap_or(usize::MAX);
        let seconds =
            self.record.measured.seconds.iter().take(index(last).saturating_add(1)).skip(index(first));
        Duration::from_micros(seconds.map(|second| second.lag_p99_us).filter(|lag| *lag > limit).sum())
    }

    /// Whether the system's own word on readiness was true.
    fn judge_readiness(&mut self, fault: &FaultRecord) {
        let (Some(injection), Some(bit_at)) = (&fault.injection, fault.bit_at) else { return };
        let is_freeze = matches!(injection.act, Act::FreezeInstance { .. });
        let (Act::KillInstance { instance, .. } | Act::FreezeInstance { instance, .. }) = &injection.act
        else {
            return;
        };
        let service = &instance.replica.service;
        let facts = self.record.services.iter().find(|facts| facts.name == *service);
        let Some(facts) = facts else { return };
        let Some(lag_max) = facts.ready_lag_max_ms.map(Duration::from_millis) else {
            self.notes.push(format!("`{service}` has no probe, so its readiness was not judged"));
            return;
        };
        if is_freeze && !facts.probe_sees_a_freeze {
            self.notes.push(format!(
                "the probe of `{service}` cannot see a frozen process; an HTTP health check could"
            ));
            return;
        }
        let readiness = &fault.readiness;
        let looked_to = readiness.last_called_ready_at.unwrap_or(bit_at).max(bit_at);
        let limit = bit_at.plus(lag_max).plus(self.late_by(bit_at, looked_to));
        if readiness.last_called_ready_at.is_some_and(|at| at > limit) {
            let state = if is_freeze { "frozen" } else { "dead" };
            let text = format!(
                "the health check of `{service}` passes although the replica is {state}: {} counted as ready more than {:.1} s after {}",
                instance.replica,
                lag_max.as_secs_f64(),
                fault.bite.evidence
            );
            self.rule(Weight::Broke, Some(fault), text);
        } else if is_freeze && readiness.last_survey_at.is_none_or(|at| at <= limit) {
            self.notes.push(format!(
                "the freeze of {} was too short to judge its health check: that takes more than {:.1} s",
                instance.replica,
                lag_max.as_secs_f64()
            ));
        }
    }

    fn judge_end(&mut self) {
        let was_waited_for = !matches!(self.record.ended, Ended::Failed { .. });
        if !self.record.quiet.is_reached && was_waited_for {
            let limit = self.record.options.pace.quiet_max.as_secs_f64();
            let text = format!(
                "the stack did not come to rest within {limit:.0} s after the load: {}",
                self.record.quiet.amiss
            );
            let is_ours = matches!(self.record.ended, Ended::Stopped | Ended::NeverSteady { .. });
            self.rule(if is_ours { Weight::Void } else { Weight::Broke }, None, text);
        }
        let bit = |fault: &&FaultRecord| fault.bite.bit;
        if let Ended::NotHealed { amiss } = &self.record.ended
            && self.record.faults.iter().filter(bit).all(|fault| fault.healed_at.is_some())
        {
            let limit = self.record.options.pace.steady_max.as_secs_f64();
            let text = format!("healed once, the stack was not steady again within {limit:.0} s: {amiss}");
            self.rule(Weight::Broke, self.record.faults.last(), text);
        }
        let (done, planned) = (self.record.faults.len(), self.record.plan.steps.len());
        if done < planned {
            let weight = if self.reasons.is_empty() { Weight::Void } else { Weight::DidNotBite };
            self.rule(weight, None, format!("{} of {planned} faults were not brought about", planned - done));
        }
        let own = Outcome::Refused { why: Refusal::OutOfSockets };
        let own =
            self.journal.requests.iter().filter(|request| request.outcome.is_some_and(|(_, o)| o == own));
        if own.count() > 0 {
            self.notes
                .push("some requests failed by this machine's own limits, not by the system".to_owned());
        }
    }
}

struct Slice {
    at_s: f64,
    is_noisy: bool,
    requests: u64,
    failed: u64,
    slow: u64,
    fails: bool,
    is_slow: bool,
}

impl Slice {
    fn new(at: Duration, is_noisy: bool) -> Self {
        let at_s = at.as_secs_f64();
        Self { at_s, is_noisy, requests: 0, failed: 0, slow: 0, fails: false, is_slow: false }
    }
}

/// A share in percent with two digits, rounded down: what is not quite 99 % must not be told as 99 %.
pub(crate) fn percent_down(share: f64) -> f64 {
    (share * 10_000.0).floor() / 100.0
}

/// The first few of a list, and how many more there are.
fn abridged(items: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown = items.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    match items.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown}, and {more} more"),
    }
}

#[cfg(test)]
mod tests;
