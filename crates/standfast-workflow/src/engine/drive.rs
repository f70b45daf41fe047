//! One run, driven: decide, write, ask; wait for what happens next; again. When nothing but time or an event can happen to it, it is
//! put to sleep, and takes no memory but its place among those that are due.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use standfast_model::Stamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::human;
use super::journal::{Beside, JournalError, Sleeper};
use super::limited::Begun;
use super::runs::Crowd;
use super::values::Effect;
use super::within::Patient;
use super::{Engine, Refused};
use crate::ask::{self, Answer, BuiltInRequest, Request};
use crate::decide::{Cause, Turn, World, decide, has_no_room, is_full};
use crate::program::Program;
use crate::run::{Event, Problem, Record, Run, RunId, ScopeId, Standard, State};

/// A run is kept in a snapshot after so many records, so that a recovery reads few of them.
const SNAPSHOT_RECORDS: u64 = 256;
/// And when nothing has happened to it for so long.
const SNAPSHOT_AFTER: Duration = Duration::from_secs(10);

/// Something that happens to a run, and whom to tell when it is written.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) cause: Cause,
    pub(super) told: Option<oneshot::Sender<Result<Run, Refused>>>,
}

/// A run that is driven.
pub(super) struct Driving {
    engine: Engine,
    program: Arc<Program>,
    run: Run,
    /// Where its last record is.
    last: Option<u64>,
    /// How many records its snapshot holds, if there is one.
    kept: Option<u64>,
    /// When the snapshot says that it is due.
    kept_due: Option<Option<Stamp>>,
    /// Where the first of its records is that is not in a snapshot, or before; `u64::MAX` when all are.
    first_unkept: Arc<AtomicU64>,
    inbox: mpsc::Receiver<Input>,
    asking: JoinSet<(ScopeId, Answered)>,
    asked: HashMap<ScopeId, AbortHandle>,
    /// What is written with the end of the task that was answered last.
    effect: Option<Effect>,
    /// There was no room for it when it was started: it is put to sleep as soon as it is written.
    is_crowded: bool,
    stopped: watch::Receiver<Option<Refused>>,
}

/// Tells the engine when a task that drives a run breaks: nobody else would drive the run, or know that nobody does.
struct Guard {
    engine: Engine,
    run: RunId,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.engine.gave_up(self.run, &Refused::Failed("what drives it broke: see the log".to_owned()));
        }
    }
}

impl Driving {
    pub(super) fn new(
        engine: Engine,
        program: Arc<Program>,
        run: Run,
        first_unkept: Arc<AtomicU64>,
        inbox: mpsc::Receiver<Input>,
    ) -> Self {
        let stopped = engine.stopped();
        Self {
            engine,
            program,
            run,
            last: None,
            kept: None,
            kept_due: None,
            first_unkept,
            inbox,
            asking: JoinSet::new(),
            asked: HashMap::new(),
            effect: None,
            is_crowded: false,
            stopped,
        }
    }

    /// The same, read back: where its last record is, and how much of it a snapshot holds.
    pub(super) fn read_back(mut self, last: Option<u64>, kept: Option<u64>) -> Self {
        (self.last, self.kept) = (last, kept);
        self
    }

    /// How many records it has.
    pub(super) fn records(&self) -> u64 {
        self.run.records
    }

    /// The same, woken: its snapshot is as it is, and says that it is due then.
    pub(super) fn woken(mut self, due: Option<Stamp>) -> Self {
        self.kept_due = Some(due);
        self
    }

    /// The same, for which there may be no room in memory.
    pub(super) fn crowded(mut self, is_crowded: bool) -> Self {
        self.is_crowded = is_crowded;
        self
    }

    /// Drives it until it has ended or sleeps.
    pub(super) async fn drive(mut self, first: Input) {
        let _guard = Guard { engine: self.engine.clone(), run: self.run.id };
        let mut input = first;
        loop {
            let has_no_room = match input.cause {
                Cause::Event { .. } | Cause::Kept { .. } => is_full(&self.run),
                Cause::Signal { .. } => has_no_room(&self.run),
                _ => false,
            };
            if has_no_room && let Some(told) = input.told.take() {
                // Who sent it is not told that it was taken, and sends it again.
                let _nobody_waits = told.send(Err(Refused::Busy(self.run.id)));
                input = Input { cause: Cause::Continue, told: None };
            }
            let turn = match &input.cause {
                Cause::Migrate { to } => self.migrate(&Arc::clone(to)).await,
                cause => self.turn(cause).await.map(|is_unfinished| (Ok(self.run.clone()), is_unfinished)),
            };
            // Written, or not done: from now on others may be at what it is about.
            self.effect = None;
            let told = input.told.take();
            let is_unfinished = match turn {
                Ok((answer, is_unfinished)) => {
                    if let Some(told) = told {
                        let _nobody_waits = told.send(answer);
                    }
                    is_unfinished
                }
                Err(why) => {
                    let why = Refused::from(why);
                    // First this: who is told may ask for the run at once.
                    self.engine.gave_up(self.run.id, &why);
                    if let Some(told) = told {
                        let _nobody_waits = told.send(Err(why));
                    }
                    return;
                }
            };
            if self.run.status.is_final() {
                self.asking.shutdown().await;
                self.engine.ended(&self.run, self.program.name());
                let (engine, run) = (self.engine.clone(), self.run.id);
                // Who asks for the run this very moment learns that it is gone, and does not wait for what comes.
                drop(self);
                return engine.let_go(run).await;
            }
            let is_crowded = std::mem::take(&mut self.is_crowded);
            if self.run.is_queued() && !self.run.stands_still() {
                match self.let_in(is_crowded).await {
                    Ok(Some(next)) => input = next,
                    Ok(None) => return,
                    Err(why) => return self.engine.gave_up(self.run.id, &why.into()),
                }
                continue;
            }
            if is_crowded {
                let crowd = Crowd::of(self.program.priority, self.run.limits.as_deref());
                let due = Some(self.run.changed_at);
                if self.engine.falls_asleep(self.run.id, due, Some(crowd), &mut self.inbox) {
                    return;
                }
            }
            if is_unfinished {
                input = Input { cause: Cause::Continue, told: None };
                continue;
            }
            let kept = match self.run.parked {
                Some(_) => Vec::new(),
                None => self.engine.kept_events(&self.run, &self.program),
            };
            if !kept.is_empty() {
                input = Input { cause: Cause::Kept { events: kept }, told: None };
                continue;
            }
            self.ask();
            if self.asked.is_empty() {
                self.engine.may_have_got_on(&self.run);
            }
            match self.next().await {
                Ok(Some(next)) => input = next,
                Ok(None) => return,
                Err(why) => return self.engine.gave_up(self.run.id, &why.into()),
            }
        }
    }

    /// What happens next to a run that has not been let in; `None` when it sleeps until it is.
    async fn let_in(&mut self, is_crowded: bool) -> Result<Option<Input>, JournalError> {
        if let Some(within) = self.engine.is_let_in(&self.run)
            && !is_crowded
        {
            return Ok(Some(Input { cause: Cause::Admit { within }, told: None }));
        }
        if self.kept != Some(self.run.records) {
            match self.engine.journal().put_to_sleep(&self.snapshot(&self.run)).await {
                Ok(()) => self.keep(self.run.records),
                Err(why) => return is_too_large(why).map(Some),
            }
        }
        if self.engine.queues(&self.run, &self.inbox) {
            return Ok(None);
        }
        Ok(self.inbox.recv().await)
    }

    /// One step of the fold: decided, written, then true.
    async fn turn(&mut self, cause: &Cause) -> Result<bool, JournalError> {
        let now = self.engine.clock().now();
        let Turn { record, run, is_unfinished } = self.decide(cause, now).await;
        let Some(record) = record else { return Ok(is_unfinished) };
        let events = emitted(&record);
        match self.write(&run, record).await {
            Ok(()) => {
                self.run = run;
                self.engine.published(events, self.last);
                Ok(is_unfinished)
            }
            // One that cannot even be started is refused.
            Err(JournalError::RunTooLarge { found, max }) if self.run.records > 0 => {
                // It ends, after what it did is undone.
                let Turn { record, run, is_unfinished } = self.decide(&too_large(found, max), now).await;
                if let Some(record) = record {
                    self.write(&run, record).await?;
                }
                self.run = run;
                Ok(is_unfinished)
            }
            Err(other) => Err(other),
        }
    }

    /// The run goes on by another program from the moment that this is written, if it can. Answers with the run as it stood then,
    /// so that it can be told why not. What is asked at that moment is not given up.
    async fn migrate(&mut self, to: &Arc<Program>) -> Result<(Result<Run, Refused>, bool), JournalError> {
        let (before, now) = (self.run.clone(), self.engine.clock().now());
        let Turn { record, run, is_unfinished } =
            self.decide(&Cause::Migrate { to: Arc::clone(to) }, now).await;
        let Some(record) = record else { return Ok((Ok(before), is_unfinished)) };
        let old = std::mem::replace(&mut self.program, Arc::clone(to));
        match self.write(&run, record).await {
            Ok(()) => {
                self.run = run;
                // What tasks wait for may be something else: they are given what is kept anew.
                self.engine.forget_waits(self.run.id);
                Ok((Ok(before), is_unfinished))
            }
            Err(why @ JournalError::RunTooLarge { .. }) => {
                self.program = old;
                Ok((Err(why.into()), true))
            }
            Err(other) => Err(other),
        }
    }

    async fn decide(&self, cause: &Cause, now: Stamp) -> Turn {
        let cause = cause.clone();
        in_world(&self.engine, &self.program, &self.run, move |world, run| {
            decide(world, run.clone(), &cause, now)
        })
        .await
    }

    async fn write(&mut self, run: &Run, record: Record) -> Result<(), JournalError> {
        let told = self.engine.lifecycle_of(&self.run, self.program.name(), &record);
        let journal = self.engine.journal();
        self.first_unkept.fetch_min(journal.next(), Ordering::SeqCst);
        let is_due =
            self.is_crowded || run.records.saturating_sub(self.kept.unwrap_or(0)) >= SNAPSHOT_RECORDS;
        let sleeper = (is_due && !run.status.is_final()).then(|| self.snapshot(run));
        let tasks = match self.program.asks_people() || self.run.human_tasks().next().is_some() {
            true => human::changes(&self.run, run, self.program.name()),
            false => Vec::new(),
        };
        let effect = self.effect.take().filter(|effect| effect.is_of(&record));
        let change = effect.as_ref().and_then(|effect| effect.change.clone());
        let is_admitted = record.events.iter().any(|event| matches!(event, Event::Admitted { .. }));
        let begun = if is_admitted { Begun::of(run, record.at) } else { None };
        let admitted_at = is_admitted.then_some(record.at);
        let (rows, many) = self.engine.outbox().rows(record.at, &told);
        let beside = Beside { sleeper, has_slept: self.kept.is_some(), change, tasks, told: rows, begun };
        let written = journal.append(run, self.program.name(), record, self.last, beside).await;
        self.engine.outbox().was_written(many, written.is_ok());
        let (at, is_kept) = written?;
        if let Some(effect) = effect {
            effect.written(&self.engine);
        }
        self.last = Some(at);
        self.engine.wrote(run.id, at);
        if let Some(at) = admitted_at {
            self.engine.admitted(run.id, at);
        }
        self.engine.tell_lifecycle(told);
        if is_kept {
            self.keep(run.records);
        }
        Ok(())
    }

    /// A run as it is, to go on from at once when it is read back.
    fn snapshot(&self, run: &Run) -> Sleeper {
        let crowded = self.is_crowded.then_some(self.program.priority);
        let due = if run.is_queued() { run.due() } else { Some(run.changed_at) };
        Sleeper::of(run, self.program.name(), self.last, listens(run), due).crowded(crowded)
    }

    fn keep(&mut self, records: u64) {
        (self.kept, self.kept_due) = (Some(records), None);
        self.first_unkept.store(u64::MAX, Ordering::SeqCst);
    }

    /// Asks what is to be asked and is not asked yet, and gives up what is not needed any more.
    fn ask(&mut self) {
        let asking: Vec<ScopeId> = self.run.asking().collect();
        self.asked.retain(|scope, handle| {
            let is_needed = asking.contains(scope);
            if !is_needed {
                handle.abort();
            }
            is_needed
        });
        if self.run.stands_still() {
            return;
        }
        // All that is asked now is asked of the same run: a copy for each of many branches would be the square of them.
        let mut seen: Option<Arc<Run>> = None;
        for scope in asking {
            if self.asked.contains_key(&scope) {
                continue;
            }
            let run = Arc::clone(seen.get_or_insert_with(|| Arc::new(self.run.clone())));
            let (engine, program) = (self.engine.clone(), Arc::clone(&self.program));
            let handle = self.asking.spawn(async move {
                let (answer, effect) = match ask_one(&engine, &program, &run, scope).await {
                    Ok((answer, effect)) => (Ok(answer), effect),
                    Err(problem) => (Err(problem), None),
                };
                (scope, (engine.without_secrets(&program, answer), effect))
            });
            self.asked.insert(scope, handle);
        }
    }

    /// What happens to it next; `None` when it sleeps from now on.
    async fn next(&mut self) -> Result<Option<Input>, JournalError> {
        let clock = *self.engine.clock();
        let mut may_sleep_at = clock.now().plus(self.engine.sleep_after());
        let snapshot_at = clock.now().plus(SNAPSHOT_AFTER);
        loop {
            let due = self.run.due();
            let has_asked = !self.asked.is_empty();
            let is_unkept = self.first_unkept.load(Ordering::SeqCst) != u64::MAX;
            tokio::select! {
                biased;
                // Nothing is asked any more, and nothing written.
                () = is_stopped(&mut self.stopped) => return Ok(None),
                input = self.inbox.recv() => return Ok(input), // `None` when the engine is gone
                // Also of what is not needed any more: others wait for what it has for itself.
                ended = self.asking.join_next_with_id(), if !self.asking.is_empty() => {
                    if let Some(ended) = ended
                        && let Some((scope, (answer, effect))) = self.answered(ended)
                    {
                        self.effect = effect;
                        return Ok(Some(Input { cause: Cause::Answer { scope, answer }, told: None }));
                    }
                }
                () = until(&clock, due) => return Ok(Some(Input { cause: Cause::Time, told: None })),
                () = clock.sleep_until(may_sleep_at), if !has_asked => {
                    match self.fall_asleep().await {
                        Ok(true) => return Ok(None),
                        Ok(false) => may_sleep_at = clock.now().plus(self.engine.sleep_after()),
                        Err(why) => return is_too_large(why).map(Some),
                    }
                }
                () = clock.sleep_until(snapshot_at), if has_asked && is_unkept => {
                    let snapshot = self.snapshot(&self.run);
                    match self.engine.journal().put_to_sleep(&snapshot).await {
                        Ok(()) => self.keep(self.run.records),
                        Err(why) => return is_too_large(why).map(Some),
                    }
                }
            }
        }
    }

    /// Which scope was answered, and what; `None` when it is not needed any more.
    fn answered(&mut self, ended: Ended) -> Option<(ScopeId, Answered)> {
        match ended {
            Ok((_, (scope, answer))) => self.asked.remove(&scope).map(|_| (scope, answer)),
            Err(broken) => {
                let (scope, _) = self.asked.iter().find(|(_, handle)| handle.id() == broken.id())?;
                let scope = *scope;
                self.asked.remove(&scope);
                let problem = Standard::Runtime.problem("what asked for it broke: see the log");
                Some((scope, (Err(problem), None)))
            }
        }
    }

    /// Keeps it in the store alone. False when something has happened to it meanwhile.
    async fn fall_asleep(&mut self) -> Result<bool, JournalError> {
        let (run, due) = (&self.run, self.run.due());
        if self.kept != Some(run.records) || self.kept_due != Some(due) {
            let sleeper = Sleeper::of(run, self.program.name(), self.last, listens(run), due);
            self.engine.journal().put_to_sleep(&sleeper).await?;
            self.keep(self.run.records);
            self.kept_due = Some(due);
        }
        let sleeps = self.engine.falls_asleep(self.run.id, due, None, &mut self.inbox);
        match &self.run.parked {
            Some(why) if sleeps => self.engine.is_parked(self.run.id, self.run.changed_at, why),
            None if sleeps && due.is_none() && !self.run.is_held && !listens(&self.run) => {
                self.engine.is_endless(self.run.id, self.run.changed_at);
            }
            _ => {}
        }
        Ok(sleeps)
    }
}

/// What became of asking: by which task, and what was answered.
type Ended = Result<(tokio::task::Id, (ScopeId, Answered)), tokio::task::JoinError>;

/// What was answered, and what is written with that.
type Answered = (Result<Arc<Value>, Problem>, Option<Effect>);

fn too_large(found: usize, max: usize) -> Cause {
    let problem = format!("the run holds {found} bytes, at most {max} are allowed");
    Cause::Fail { problem: Standard::Runtime.problem(problem) }
}

/// A run that is too large to be kept ends by that: kept in memory alone it would hold up the mark for ever.
fn is_too_large(why: JournalError) -> Result<Input, JournalError> {
    match why {
        JournalError::RunTooLarge { found, max } => Ok(Input { cause: too_large(found, max), told: None }),
        other => Err(other),
    }
}

/// Whether a run waits for events.
pub(super) fn listens(run: &Run) -> bool {
    run.parked.is_none() && run.scopes.values().any(|scope| matches!(scope.state, State::Listening(_)))
}

pub(super) fn emitted(record: &Record) -> Vec<Arc<Value>> {
    let events = record.events.iter();
    events
        .filter_map(|event| match event {
            Event::Emitted { event } => Some(Arc::clone(event)),
            _ => None,
        })
        .collect()
}

/// Returns when nothing is driven any more.
pub(super) async fn is_stopped(stopped: &mut watch::Receiver<Option<Refused>>) {
    let _the_engine_is_gone = stopped.wait_for(Option::is_some).await.is_err();
}

async fn until(clock: &standfast_runtime::Clock, due: Option<Stamp>) {
    match due {
        Some(due) => clock.sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Asks for one scope: the request is written now, and what is secret in it is nowhere else.
async fn ask_one(
    engine: &Engine,
    program: &Arc<Program>,
    run: &Run,
    scope: ScopeId,
) -> Result<(Arc<Value>, Option<Effect>), Problem> {
    let now = engine.clock().now();
    let asked =
        in_world(engine, program, run, move |world, run| ask::request(world, run, scope, now)).await?;
    let limit = asked.deadline.since(now);
    let answering = async {
        match &asked.request {
            Request::Run(request) => Ok((engine.run_within(request, &asked.key, run).await?, None)),
            Request::BuiltIn(BuiltInRequest::Value { namespace, key, operation }) => {
                let (value, effect) = engine.at_value((run.id, scope), namespace, key, operation).await?;
                Ok((Answer::Value(value), Some(effect)))
            }
            Request::BuiltIn(BuiltInRequest::Lock { namespace, name, permits }) => {
                let lock = (namespace.as_str(), name.as_str());
                let (value, effect) = engine.take_lock((run.id, scope), lock, *permits).await?;
                Ok((Answer::Value(value), Some(effect)))
            }
            Request::BuiltIn(BuiltInRequest::Unlock { namespace, name }) => {
                let (value, effect) = engine.release_lock((run.id, scope), (namespace, name)).await?;
                Ok((Answer::Value(value), Some(effect)))
            }
            request if request.waits_for_messages() => {
                // They come when they come; meanwhile others have its room in memory.
                let _patient = Patient::new(engine, run.id);
                Ok((engine.invoke(&asked).await?, None))
            }
            _ => Ok((engine.unless_silent(&asked, engine.invoke(&asked)).await?, None)),
        }
    };
    let (answer, effect) = match engine.clock().timeout(limit, answering).await {
        Ok(answer) => answer?,
        Err(_) => {
            let detail = format!("there was no answer within {:.1} s", limit.as_secs_f64());
            return Err(Standard::Timeout.problem(detail));
        }
    };
    let answered = engine.with_world(program, |world| ask::answered(world, run, scope, &asked, answer))?;
    Ok((answered, effect))
}

/// Evaluates expressions: here if they are cheap, else where they are in nobody's way, since they may take as long as the evaluator
/// allows.
pub(super) async fn in_world<T: Send + 'static>(
    engine: &Engine,
    program: &Arc<Program>,
    run: &Run,
    work: impl FnOnce(&World<'_>, &Run) -> T + Send + 'static,
) -> T {
    engine.knows_secrets(program).await;
    if program.is_cheap() {
        return engine.with_world(program, |world| work(world, run));
    }
    let (engine, program, run) = (engine.clone(), Arc::clone(program), run.clone());
    let working = tokio::task::spawn_blocking(move || engine.with_world(&program, |world| work(world, &run)));
    match working.await {
        Ok(done) => done,
        Err(why) => match why.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => std::future::pending().await,
        },
    }
}

/// An id that nobody else has: its time and chance.
pub(super) fn new_id(at: Stamp, high: u64, low: u64) -> RunId {
    RunId::new(at, u128::from(high) << 64 | u128::from(low))
}
