//! The course of a run: one fault after another, each from a steady state to a steady state.
//!
//! All waiting goes through `Course::pause`, which ends the course on a stop, on the deadline, and when the journal or the
//! generator fails. Whatever ends it, [`Course::undo_all`] comes after.

use std::future::Future;
use std::time::Duration;

use standfast_model::{Instance, Stamp};
use standfast_runtime::{Clock, Stop, with_causes};

use crate::config::Options;
use crate::journal::Writer;
use crate::judge::slow_above;
use crate::load::Generator;
use crate::progress::Progress;
use crate::record::{Ended, FaultRecord, Readiness, millis};
use crate::schedule::{Plan, Step, aim};
use crate::target::{Act, Bite, CALL_MAX, Injection, InjectionId, Survey, Target, TargetError};

/// Tries of an undo before it is given up and left to the fault's time to live.
const UNDO_TRIES: u32 = 5;

/// Why a course cannot go on.
#[derive(Debug)]
struct Over(Ended);

pub(crate) struct Course<'a> {
    pub(crate) clock: Clock,
    pub(crate) target: &'a dyn Target,
    pub(crate) options: &'a Options,
    pub(crate) run: &'a str,
    pub(crate) stop: &'a Stop,
    pub(crate) deadline: Stamp,
    pub(crate) generator: &'a Generator,
    pub(crate) journal: &'a Writer,
    pub(crate) progress: &'a (dyn Fn(Progress) + Send + Sync),
    /// Arrivals a second of all loads.
    pub(crate) rate: f64,
    pub(crate) slow: Duration,
    pub(crate) next_tick: Stamp,
    pub(crate) faults: Vec<FaultRecord>,
    pub(crate) active: Vec<Injection>,
}

impl Course<'_> {
    /// Warms up and carries out the plan.
    ///
    /// # Cancellation
    /// Not cancel safe: faults would stay until their time to live is over. Use the stop token.
    pub(crate) async fn follow(&mut self, plan: &Plan) -> Ended {
        match self.steps(plan).await {
            Ok(()) => Ended::Planned,
            Err(Over(ended)) => ended,
        }
    }

    async fn steps(&mut self, plan: &Plan) -> Result<(), Over> {
        self.idle(self.options.pace.warm_up).await?;
        self.slow = slow_above(self.generator.meter().ok_p99(), &self.options.thresholds);
        self.generator.meter().set_slow(self.slow);
        self.tell(Progress::WarmedUp { slow_ms: millis(self.slow) });
        for step in &plan.steps {
            if let Some(before) = self.faults.last().map(|fault| fault.injected_at) {
                let wait = before.plus(step.after).since(self.clock.now());
                self.idle(wait).await?;
            }
            let survey = self.steady().await?;
            self.step(step, &survey).await?;
        }
        // What the last fault left behind would otherwise be seen by nobody.
        self.steady().await?;
        Ok(())
    }

    /// Waits for a steady state: all ready and no request bad for a while.
    async fn steady(&mut self) -> Result<Survey, Over> {
        let (pace, began) = (&self.options.pace, self.clock.now());
        let mut since = None;
        loop {
            let now = self.clock.now();
            let (survey, amiss) = match self.survey().await {
                Ok(survey) => {
                    let amiss = shortage(&survey, &[]).or_else(|| self.traffic_amiss(now));
                    (Some(survey), amiss)
                }
                Err(error) => (None, Some(error)),
            };
            match (survey, amiss) {
                (Some(survey), None) => {
                    let since = *since.get_or_insert(now);
                    if now.since(since) >= pace.steady_window {
                        return Ok(survey);
                    }
                }
                (_, amiss) => {
                    since = None;
                    if now.since(began) >= pace.steady_max {
                        let amiss = amiss.unwrap_or_default();
                        self.tell(Progress::NotSteady { amiss: amiss.clone() });
                        let is_first = self.faults.is_empty();
                        return Err(Over(if is_first {
                            Ended::NeverSteady { amiss }
                        } else {
                            Ended::NotHealed { amiss }
                        }));
                    }
                }
            }
            self.pause().await?;
        }
    }

    async fn step(&mut self, step: &Step, survey: &Survey) -> Result<(), Over> {
        let act = match aim(step, survey) {
            Ok(act) => act,
            Err(nothing) => {
                let bite = Bite { bit: false, evidence: nothing.to_string() };
                self.tell(Progress::Verified {
                    number: step.number,
                    bit: false,
                    evidence: bite.evidence.clone(),
                });
                let record = FaultRecord::new(step.clone(), None, self.clock.now(), bite);
                self.faults.push(record);
                return Ok(());
            }
        };
        let injection = Injection {
            id: InjectionId(format!("{}-fault-{}", self.run, step.number)),
            act,
            ttl: step.lasts + self.options.pace.ttl_margin,
        };
        self.tell(Progress::Injected {
            number: step.number,
            verb: injection.act.verb().to_owned(),
            object: injection.act.object(),
        });
        // It counts as active before it is ordered: an order whose answer is lost may have been carried out.
        self.active.push(injection.clone());
        let unseen = Bite { bit: false, evidence: "it was not looked for".to_owned() };
        let record = FaultRecord::new(step.clone(), Some(injection.clone()), self.clock.now(), unseen);
        self.faults.push(record);
        self.inject(&injection).await?;
        if self.record().bite.bit {
            let until = self.record().injected_at.plus(step.lasts);
            while self.clock.now() < until {
                self.look(&injection).await;
                self.pause().await?;
            }
        }
        self.undo(&injection).await;
        let now = self.clock.now();
        let record = self.record();
        record.over_at = now;
        if record.restored_at.is_none() {
            return Err(Over(Ended::NotRestored));
        }
        if record.bite.bit {
            self.heal(&injection).await?;
            if step.is_last {
                self.idle(self.options.pace.settle).await?;
            }
        }
        let now = self.clock.now();
        self.record().over_at = now;
        Ok(())
    }

    /// Orders the fault and looks until it is there or its time is over.
    async fn inject(&mut self, injection: &Injection) -> Result<(), Over> {
        if let Err(error) = self.call(self.target.inject(injection)).await {
            self.record().bite.evidence = format!("it could not be injected: {error}");
        } else {
            let until = self.record().injected_at.plus(self.options.pace.verify_max);
            loop {
                let bite = match self.call(self.target.verify(injection)).await {
                    Ok(bite) => bite,
                    Err(error) => Bite { bit: false, evidence: error },
                };
                let now = self.clock.now();
                let record = self.record();
                record.bite = bite;
                if record.bite.bit {
                    record.bit_at = Some(now);
                    break;
                }
                if now >= until {
                    break;
                }
                self.pause().await?;
            }
        }
        let record = self.record();
        let (number, bite) = (record.step.number, record.bite.clone());
        self.tell(Progress::Verified { number, bit: bite.bit, evidence: bite.evidence });
        Ok(())
    }

    /// Waits until all is well after a fault.
    async fn heal(&mut self, injection: &Injection) -> Result<(), Over> {
        let record = self.record();
        let limit = record.undone_at.unwrap_or(record.injected_at).plus(self.options.pace.heal_max);
        loop {
            let amiss = self.look(injection).await;
            let now = self.clock.now();
            let record = self.record();
            if let Some(after) = record.time_to_heal() {
                let number = record.step.number;
                self.tell(Progress::Healed { number, after_ms: millis(after) });
                return Ok(());
            }
            if now >= limit {
                record.over_at = now;
                let amiss = amiss.unwrap_or_else(|| "it was whole too late".to_owned());
                self.tell(Progress::NotSteady { amiss: amiss.clone() });
                return Err(Over(Ended::NotHealed { amiss }));
            }
            self.pause().await?;
        }
    }

    /// Surveys once and writes down what that says of the current fault. Returns what is amiss.
    async fn look(&mut self, injection: &Injection) -> Option<String> {
        let at = self.clock.now();
        let survey = match self.survey().await {
            Ok(survey) => survey,
            Err(error) => return Some(error),
        };
        let traffic = self.traffic_amiss(at);
        let bad_at = self.generator.meter().traffic().bad_at;
        let window = self.options.pace.steady_window;
        let record = self.record();
        let is_there = injection.act.kills_its_victims() || record.undone_at.is_none();
        let victims = if is_there { injection.act.victims() } else { &[] };
        if is_there {
            record.readiness.note(at, victims, &survey);
        }
        let missing = shortage(&survey, victims).or_else(|| unreplaced(&injection.act, &survey));
        if missing.is_some() {
            record.whole_at = None;
        } else {
            record.whole_at.get_or_insert(at);
        }
        let is_long_enough = at.since(record.injected_at) >= window;
        if let Some(whole_at) = record.whole_at
            && traffic.is_none()
            && is_long_enough
            && record.healed_at.is_none()
        {
            let bad_at = bad_at.filter(|bad_at| *bad_at > record.injected_at);
            record.healed_at = Some(bad_at.map_or(whole_at, |bad_at| bad_at.max(whole_at)));
        }
        missing.or(traffic)
    }

    /// Undoes a fault and looks until that is done or its time is over. It does not end on a stop: it is what a stop needs.
    async fn undo(&mut self, injection: &Injection) {
        let began = self.clock.now();
        let until = began.plus(self.options.pace.restore_max);
        let mut restored_at = None;
        for attempt in 1..=UNDO_TRIES {
            if self.call(self.target.heal(&injection.id)).await.is_ok() {
                break;
            }
            if attempt < UNDO_TRIES {
                self.clock.sleep(self.options.pace.poll).await;
            }
        }
        while restored_at.is_none() && self.clock.now() < until {
            match self.call(self.target.is_restored(injection)).await {
                Ok(true) => restored_at = Some(self.clock.now()),
                Ok(false) | Err(_) => self.clock.sleep(self.options.pace.poll).await,
            }
        }
        if restored_at.is_some() {
            self.active.retain(|active| active.id != injection.id);
        }
        let record = self.faults.iter_mut().find(|fault| fault.injection.as_ref() == Some(injection));
        if let Some(record) = record {
            record.undone_at.get_or_insert(began);
            record.restored_at = restored_at;
            let number = record.step.number;
            self.tell(Progress::Undone { number, is_restored: restored_at.is_some() });
        }
    }

    /// Undoes all that is not seen to be undone.
    pub(crate) async fn undo_all(&mut self) {
        for injection in std::mem::take(&mut self.active) {
            self.undo(&injection).await;
        }
        let now = self.clock.now();
        if let Some(fault) = self.faults.last_mut()
            && fault.over_at == fault.injected_at
            && fault.injection.is_some()
        {
            fault.over_at = now; // it was cut short
        }
    }

    /// The fault that goes on.
    fn record(&mut self) -> &mut FaultRecord {
        self.faults.last_mut().expect("a step pushes its record before anything else")
    }

    /// What is wrong with the traffic at the moment.
    fn traffic_amiss(&self, now: Stamp) -> Option<String> {
        if self.rate <= 0.0 {
            return None;
        }
        let (traffic, window) = (self.generator.meter().traffic(), self.options.pace.steady_window);
        if traffic.bad_at.is_some_and(|at| now.since(at) < window) {
            return Some("requests fail or are slow".to_owned());
        }
        if traffic.oldest_due.is_some_and(|due| now.since(due) > self.slow) {
            return Some("a request hangs".to_owned());
        }
        // Gaps of ten mean gaps between independent arrivals are rarer than one in 20,000.
        let gap = window.max(Duration::from_secs_f64((10.0 / self.rate).min(3_600.0)));
        if traffic.good_at.is_none_or(|at| now.since(at) > gap) {
            return Some("no request was answered lately".to_owned());
        }
        None
    }

    pub(crate) async fn survey(&self) -> Result<Survey, String> {
        self.call(self.target.survey()).await
    }

    /// One call to the target, with a limit in time.
    async fn call<T>(&self, work: impl Future<Output = Result<T, TargetError>>) -> Result<T, String> {
        limited(&self.clock, work).await
    }

    async fn idle(&mut self, duration: Duration) -> Result<(), Over> {
        let until = self.clock.now().plus(duration);
        while self.clock.now() < until {
            self.pause().await?;
        }
        Ok(())
    }

    async fn pause(&mut self) -> Result<(), Over> {
        tokio::select! {
            biased;
            () = self.stop.requested() => return Err(Over(Ended::Stopped)),
            () = self.clock.sleep(self.options.pace.poll) => {}
        }
        let now = self.clock.now();
        if now >= self.next_tick {
            self.next_tick = now.plus(Duration::from_secs(1));
            let traffic = self.generator.meter().traffic();
            let at_ms = millis(now.since(self.generator.from()));
            self.tell(Progress::Tick { at_ms, ok: traffic.ok, failed: traffic.failed });
        }
        if let Some(reason) = self.journal.failure() {
            return Err(Over(Ended::Failed { reason: format!("the journal cannot be written: {reason}") }));
        }
        if self.generator.has_ended() {
            return Err(Over(Ended::Failed { reason: "the load generator ended early".to_owned() }));
        }
        if now >= self.deadline { Err(Over(Ended::Deadline)) } else { Ok(()) }
    }

    fn tell(&self, event: Progress) {
        (self.progress)(event);
    }
}

/// One call to a target, with a limit in time; the error as text with its causes.
pub(crate) async fn limited<T>(
    clock: &Clock,
    work: impl Future<Output = Result<T, TargetError>>,
) -> Result<T, String> {
    match clock.timeout(CALL_MAX, work).await {
        Ok(answer) => answer.map_err(|error| with_causes(&error)),
        Err(elapsed) => Err(format!("the stack under test did not answer: {elapsed}")),
    }
}

/// Which service has too few ready replicas besides the victims, in a sentence.
pub(crate) fn shortage(survey: &Survey, victims: &[Instance]) -> Option<String> {
    if survey.is_whole_without(victims) {
        return None;
    }
    let short: Vec<String> = survey
        .wanted
        .iter()
        .filter_map(|(service, wanted)| {
            let is_ready = |replica: &&crate::target::SurveyedReplica| {
                replica.instance.replica.service == *service
                    && replica.is_serving
                    && !victims.contains(&replica.instance)
            };
            let ready = survey.replicas.iter().filter(is_ready).count();
            (ready < *wanted as usize).then(|| format!("`{service}` has {ready} of {wanted} replicas ready"))
        })
        .collect();
    Some(if short.is_empty() { "the system says that it is not ready".to_owned() } else { short.join(", ") })
}

/// Whether a killed node or agent was not started again yet.
fn unreplaced(act: &Act, survey: &Survey) -> Option<String> {
    let (killed, now, what) = match act {
        Act::KillNode { pid } => (pid, survey.node_pid, "node"),
        Act::KillAgent { pid } => (pid, survey.agent_pid, "agent"),
        _ => return None,
    };
    (now.is_none() || now == *killed).then(|| format!("the {what} was not started again"))
}

impl FaultRecord {
    fn new(step: Step, injection: Option<Injection>, at: Stamp, bite: Bite) -> Self {
        Self {
            step,
            injection,
            injected_at: at,
            bite,
            bit_at: None,
            undone_at: None,
            restored_at: None,
            whole_at: None,
            healed_at: None,
            over_at: at,
            readiness: Readiness::default(),
        }
    }
}

impl Readiness {
    fn note(&mut self, at: Stamp, victims: &[Instance], survey: &Survey) {
        self.surveys += 1;
        self.last_survey_at = Some(at);
        if let Some(victim) = victims.iter().find(|victim| survey.is_serving(victim)) {
            self.last_called_ready_at = Some(at);
            self.victim = Some(victim.clone());
        }
    }
}
