//! The whole of a proof: what was there before, load, faults, quiet, effects, and the journal read back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use standfast_model::{EffectSource, Stack, Stamp};
use standfast_runtime::{Clock, Disk, Net, Peer, Stop};

use crate::config::Options;
use crate::course::{Course, limited, shortage};
use crate::journal::{Begin, JOURNAL_VERSION, Journal, JournalError, Writer};
use crate::load::{Generator, GeneratorLoad, LoadError, Setup};
use crate::meter::Measured;
use crate::progress::Progress;
use crate::record::{Ended, LoadFacts, Quiet, RECORD_VERSION, Record, ServiceFacts, millis};
use crate::schedule;
use crate::starts::{self, Runs};
use crate::target::{Effect, Survey, Target};
use crate::verdict::{EXIT_BAD_INPUT, Verdict};

/// Runs proofs. It holds only the seams to the machine.
#[derive(Debug, Clone)]
pub struct Proof {
    clock: Clock,
    net: Net,
    disk: Arc<dyn Disk>,
}

/// What a run leaves: the record, and the journal as read back from the disk.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// What happened.
    pub record: Record,
    /// What was asked and answered, and the effects.
    pub journal: Journal,
}

/// A proof that left no evidence.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The stack under test could not be examined before the load.
    #[error("cannot begin the proof: {0}")]
    Target(String),
    /// The journal could not be written or read back: there is nothing to judge by.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The load generator could not start.
    #[error(transparent)]
    Load(#[from] LoadError),
}

impl ProofError {
    /// The process's exit code: 2 when the stack's load is not legal, else 3 (not run).
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Load(LoadError::Bad(_)) => EXIT_BAD_INPUT,
            _ => Verdict::NotRun.exit_code(),
        }
    }
}

/// The effects of each source that was read.
type Effects = BTreeMap<EffectSource, Vec<Effect>>;

impl Proof {
    /// A runner on these seams.
    pub fn new(clock: Clock, net: Net, disk: Arc<dyn Disk>) -> Self {
        Self { clock, net, disk }
    }

    /// Loads, breaks and examines the running stack. A stop ends it early: all faults are undone, and what there is by
    /// then is returned.
    ///
    /// # Errors
    /// See [`ProofError`]. Whatever the *stack* does is no error but part of the evidence.
    ///
    /// # Cancellation
    /// Not cancel safe: faults would stay until their time to live is over. Use the stop token.
    pub async fn run(
        &self,
        target: &dyn Target,
        stack: &Stack,
        options: &Options,
        stop: &Stop,
        progress: &(dyn Fn(Progress) + Send + Sync),
    ) -> Result<Evidence, ProofError> {
        let started_at = self.clock.now();
        let plan = schedule::plan(stack, options.seed);
        let run = run_name(options.seed, started_at);
        let first = self.first_survey(target, options, stop).await?;
        let sources: BTreeSet<EffectSource> =
            stack.invariants.iter().map(|invariant| invariant.effects.clone()).collect();
        let before = self.effects_before(target, &sources).await?;
        let begin = begin(stack, options, &run, &sources, started_at);
        let (journal, thread) = Writer::start(Arc::clone(&self.disk), self.clock, &options.journal, begin)?;
        let loads = stack.load.values().cloned().collect();
        let setup = Setup::new(&run, loads, options.seed, options.arrival, Peer::Tcp(first.public));
        let setup = Setup { starts: Peer::Tcp(first.starts), ..setup };
        let generator = Generator::start(setup, self.clock, self.net, journal.clone())?;
        let load_from = generator.from();
        progress(Progress::Began {
            run: run.clone(),
            seed: options.seed,
            faults: plan.steps.len(),
            expected_ms: millis(plan.expected(&options.pace)),
        });
        let rate = stack.load.values().map(|load| load.rate_per_second.max(0.0)).sum();
        let mut course = Course {
            clock: self.clock,
            target,
            options,
            run: &run,
            stop,
            deadline: load_from.plus(plan.deadline(&options.pace)),
            generator: &generator,
            journal: &journal,
            progress,
            rate,
            slow: Duration::MAX,
            next_tick: load_from,
            faults: Vec::new(),
            active: Vec::new(),
        };
        let mut ended = Box::pin(course.follow(&plan)).await;
        course.undo_all().await;
        let faults = std::mem::take(&mut course.faults);
        drop(course);
        let load_until = self.clock.now();
        let (measured, generator) = finish(generator, &mut ended).await;
        progress(Progress::LoadEnded);
        let started = starts::workflows(stack);
        let (quiet, effects, runs) = self.quiet(target, &sources, &started, options, &ended).await;
        progress(Progress::Quiet { is_reached: quiet.is_reached, after_ms: quiet.after_ms });
        let effects_before = write_effects(&journal, &sources, effects, &before).await;
        if let Err(error) = journal.close(thread).await {
            // What is in the file is good; what is not in it counts as unknown.
            ended = Ended::Failed { reason: error.to_string() };
        }
        let journal = Journal::read(&*self.disk, &options.journal)?;
        let workflows = starts::facts(stack, &journal, &runs);
        let record = Record {
            version: RECORD_VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            run,
            stack: stack.name.clone(),
            options: options.clone(),
            plan,
            loads: LoadFacts::of(stack),
            services: ServiceFacts::of(stack, &options.thresholds),
            invariants: stack.invariants.clone(),
            started_at,
            load_from,
            load_until,
            ended_at: self.clock.now(),
            faults,
            measured,
            generator,
            quiet,
            effects_before,
            workflows,
            ended,
        };
        Ok(Evidence { record, journal })
    }

    /// The public address must be known before anything can be sent.
    async fn first_survey(
        &self,
        target: &dyn Target,
        options: &Options,
        stop: &Stop,
    ) -> Result<Survey, ProofError> {
        let until = self.clock.now().plus(options.pace.steady_max);
        loop {
            match limited(&self.clock, target.survey()).await {
                Ok(survey) => return Ok(survey),
                Err(error) if self.clock.now() >= until || stop.is_requested() => {
                    return Err(ProofError::Target(error));
                }
                Err(_) => self.clock.sleep(options.pace.poll).await,
            }
        }
    }

    /// What earlier runs left must not count as effects without cause.
    async fn effects_before(
        &self,
        target: &dyn Target,
        sources: &BTreeSet<EffectSource>,
    ) -> Result<BTreeMap<EffectSource, BTreeSet<Effect>>, ProofError> {
        let mut before = BTreeMap::new();
        for source in sources {
            let effects = limited(&self.clock, target.effects(source)).await.map_err(ProofError::Target)?;
            before.insert(source.clone(), effects.into_iter().collect());
        }
        Ok(before)
    }

    /// Waits until all is ready, all runs have ended and no effect is added any more. Returns what was last read.
    async fn quiet(
        &self,
        target: &dyn Target,
        sources: &BTreeSet<EffectSource>,
        workflows: &BTreeSet<String>,
        options: &Options,
        ended: &Ended,
    ) -> (Quiet, Effects, Runs) {
        let (clock, pace) = (self.clock, &options.pace);
        // Who stopped the run does not want to wait long for it.
        let limit = if *ended == Ended::Stopped { pace.quiet_window * 3 } else { pace.quiet_max };
        let began = clock.now();
        let (mut effects, mut since, mut counts) = (Effects::new(), None, None);
        let mut runs = Runs::new();
        loop {
            let now = clock.now();
            let mut amiss = match limited(&clock, target.survey()).await {
                Ok(survey) => shortage(&survey, &[]),
                Err(error) => Some(error),
            };
            for source in sources {
                match limited(&clock, target.effects(source)).await {
                    Ok(read) => {
                        effects.insert(source.clone(), read);
                    }
                    Err(error) => amiss = Some(format!("the effects cannot be read: {error}")),
                }
            }
            for workflow in workflows {
                match limited(&clock, target.runs(workflow)).await {
                    Ok(read) => {
                        let open = read.iter().filter(|run| !run.has_ended()).count();
                        if open > 0 {
                            amiss.get_or_insert_with(|| format!("{open} runs of `{workflow}` go on"));
                        }
                        runs.insert(workflow.clone(), read);
                    }
                    Err(error) => amiss = Some(format!("the runs cannot be read: {error}")),
                }
            }
            let seen: Vec<usize> = effects.values().map(Vec::len).collect();
            if counts.as_ref().is_some_and(|counts| *counts != seen) {
                amiss.get_or_insert_with(|| "effects are still being added".to_owned());
            }
            counts = Some(seen);
            if amiss.is_some() {
                since = None;
            }
            let after_ms = millis(now.since(began));
            match amiss {
                None if now.since(*since.get_or_insert(now)) >= pace.quiet_window => {
                    return (Quiet { is_reached: true, after_ms, amiss: String::new() }, effects, runs);
                }
                Some(amiss) if now.since(began) >= limit => {
                    return (Quiet { is_reached: false, after_ms, amiss }, effects, runs);
                }
                _ => clock.sleep(pace.poll.max(pace.quiet_window / 4)).await,
            }
        }
    }
}

fn begin(stack: &Stack, options: &Options, run: &str, sources: &BTreeSet<EffectSource>, at: Stamp) -> Begin {
    Begin {
        version: JOURNAL_VERSION,
        run: run.to_owned(),
        stack: stack.name.clone(),
        seed: options.seed,
        at,
        loads: stack.load.keys().cloned().collect(),
        sources: sources.iter().cloned().collect(),
    }
}

/// Ends the load; a generator that died leaves nothing but that.
async fn finish(generator: Generator, ended: &mut Ended) -> (Measured, Option<GeneratorLoad>) {
    match generator.finish().await {
        Ok((meter, told)) => (meter.measured(), Some(told)),
        Err(error) => {
            *ended = Ended::Failed { reason: error.to_string() };
            (Measured::default(), None)
        }
    }
}

/// Writes the effects that are new since the beginning; returns how many were old.
async fn write_effects(
    journal: &Writer,
    sources: &BTreeSet<EffectSource>,
    mut effects: Effects,
    before: &BTreeMap<EffectSource, BTreeSet<Effect>>,
) -> u64 {
    let mut old = 0;
    for (index, source) in sources.iter().enumerate() {
        let Some(mut read) = effects.remove(source) else { continue };
        let count = read.len();
        if let Some(before) = before.get(source) {
            read.retain(|effect| !before.contains(effect));
        }
        old += (count - read.len()) as u64;
        read.sort();
        journal.effects(index, read).await;
    }
    old
}

/// Two runs of one seed must not share ids: the second's keys would be known to the system, and its work found done.
fn run_name(seed: u64, at: Stamp) -> String {
    format!("p{}-{}", base36(seed), base36(at.as_millis()))
}

fn base36(mut number: u64) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut text = Vec::new();
    loop {
        text.push(char::from(DIGITS[(number % 36) as usize]));
        number /= 36;
        if number == 0 {
            return text.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod fake_shop;
#[cfg(test)]
mod tests;
