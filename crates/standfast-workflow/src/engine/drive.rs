//! One run, driven: decide, write, ask; wait for what happens next; again. When nothing but time or an event can happen to it, it is
//! put to sleep, and takes no memory but its place among those that are due.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use standfast_model::Stamp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};

use super::journal::{Beside, JournalError, Sleeper};
use super::{Engine, Refused};
use crate::ask::{self, Answer, Request};
use crate::decide::{Cause, Turn, World, decide};
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
    asking: JoinSet<(ScopeId, Result<Arc<Value>, Problem>)>,
    asked: HashMap<ScopeId, AbortHandle>,
    start_key: Option<String>,
}

impl Driving {
    pub(super) fn new(
        engine: Engine,
        program: Arc<Program>,
        run: Run,
        first_unkept: Arc<AtomicU64>,
        inbox: mpsc::Receiver<Input>,
    ) -> Self {
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
            start_key: None,
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

    /// The same, started by a key: a second start by it is the same run.
    pub(super) fn started_by(mut self, key: Option<String>) -> Self {
        self.start_key = key;
        self
    }

    /// Drives it until it has ended or sleeps.
    pub(super) async fn drive(mut self, first: Input) {
        let mut input = first;
        loop {
            let turn = self.turn(&input.cause).await;
            let told = input.told.take();
            let is_unfinished = match turn {
                Ok(is_unfinished) => {
                    if let Some(told) = told {
                        let _nobody_waits = told.send(Ok(self.run.clone()));
                    }
                    is_unfinished
                }
                Err(why) => {
                    let why = Refused::from(why);
                    if let Some(told) = told {
                        let _nobody_waits = told.send(Err(why.clone()));
                    }
                    return self.engine.gave_up(self.run.id, &why);
                }
            };
            if self.run.status.is_final() {
                self.asking.shutdown().await;
                return self.engine.ended(&self.run, self.program.name());
            }
            if is_unfinished {
                input = Input { cause: Cause::Continue, told: None };
                continue;
            }
            let kept = self.engine.kept_events(&self.run, &self.program);
            if !kept.is_empty() {
                input = Input { cause: Cause::Kept { events: kept }, told: None };
                continue;
            }
            self.ask();
            match self.next().await {
                Ok(Some(next)) => input = next,
                Ok(None) => return,
                Err(why) => return self.engine.gave_up(self.run.id, &why.into()),
            }
        }
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
            Err(JournalError::RunTooLarge { found, max }) => {
                let problem = Standard::Runtime
                    .problem(format!("the run holds {found} bytes, at most {max} are allowed"));
                let Turn { record, run, .. } = self.decide(&Cause::Fail { problem }, now).await;
                if let Some(record) = record {
                    self.write(&run, record).await?;
                }
                self.run = run;
                Ok(false)
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
        let start = self.start_key.take().map(|key| (key, run.id));
        let is_due = run.records.saturating_sub(self.kept.unwrap_or(0)) >= SNAPSHOT_RECORDS;
        let sleeper = (is_due && !run.status.is_final()).then(|| self.snapshot(run));
        let beside = Beside { sleeper, has_slept: self.kept.is_some(), start };
        let is_kept = beside.sleeper.is_some();
        let at = journal.append(run, self.program.name(), record, self.last, beside).await?;
        self.last = Some(at);
        self.engine.wrote(run.id, at);
        self.engine.tell_lifecycle(told);
        if is_kept {
            self.keep(run.records);
        }
        Ok(())
    }

    /// A run as it is, to go on from at once when it is read back.
    fn snapshot(&self, run: &Run) -> Sleeper {
        Sleeper::of(run, self.program.name(), self.last, listens(run), Some(run.changed_at))
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
        for scope in asking {
            if self.asked.contains_key(&scope) || self.run.is_held {
                continue;
            }
            let (engine, program, run) = (self.engine.clone(), Arc::clone(&self.program), self.run.clone());
            let handle = self.asking.spawn(async move {
                let answer = ask_one(&engine, &program, &run, scope).await;
                (scope, answer)
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
                input = self.inbox.recv() => match input {
                    Some(input) => return Ok(Some(input)),
                    None => return Ok(None), // the engine is gone
                },
                answer = self.asking.join_next(), if has_asked => {
                    if let Some(Ok((scope, answer))) = answer
                        && self.asked.remove(&scope).is_some()
                    {
                        return Ok(Some(Input { cause: Cause::Answer { scope, answer }, told: None }));
                    }
                }
                () = until(&clock, due) => return Ok(Some(Input { cause: Cause::Time, told: None })),
                () = clock.sleep_until(may_sleep_at), if !has_asked => {
                    if self.fall_asleep().await? {
                        return Ok(None);
                    }
                    may_sleep_at = clock.now().plus(self.engine.sleep_after());
                }
                () = clock.sleep_until(snapshot_at), if has_asked && is_unkept => {
                    let snapshot = self.snapshot(&self.run);
                    self.engine.journal().put_to_sleep(&snapshot).await?;
                    self.keep(self.run.records);
                }
            }
        }
    }

    /// Keeps it in the store alone. False when something has happened to it meanwhile.
    async fn fall_asleep(&mut self) -> Result<bool, JournalError> {
        let (run, due) = (&self.run, self.run.due());
        if self.kept != Some(run.records) || self.kept_due != Some(due) {
            let sleeper = Sleeper::of(run, self.program.name(), self.last, listens(run), due);
            match self.engine.journal().put_to_sleep(&sleeper).await {
                Ok(()) => {
                    self.keep(self.run.records);
                    self.kept_due = Some(due);
                }
                // It stays in memory then, and its next record tells.
                Err(JournalError::RunTooLarge { .. }) => return Ok(false),
                Err(other) => return Err(other),
            }
        }
        Ok(self.engine.falls_asleep(self.run.id, due, &mut self.inbox))
    }
}

/// Whether a run waits for events.
pub(super) fn listens(run: &Run) -> bool {
    run.scopes.values().any(|scope| matches!(scope.state, State::Listening(_)))
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
) -> Result<Arc<Value>, Problem> {
    let now = engine.clock().now();
    let asked =
        in_world(engine, program, run, move |world, run| ask::request(world, run, scope, now)).await?;
    let limit = asked.deadline.since(now);
    let answering = async {
        match &asked.request {
            Request::Run(request) => engine.run_within(request, &asked.key, run.id).await,
            _ => engine.invoke(&asked).await,
        }
    };
    let answer: Answer = match engine.clock().timeout(limit, answering).await {
        Ok(answer) => answer?,
        Err(_) => {
            let detail = format!("there was no answer within {:.1} s", limit.as_secs_f64());
            return Err(Standard::Timeout.problem(detail));
        }
    };
    engine.with_world(program, |world| ask::answered(world, run, scope, &asked, answer))
}

/// Evaluates expressions: here if they are cheap, else where they are in nobody's way, since they may take as long as the evaluator
/// allows.
pub(super) async fn in_world<T: Send + 'static>(
    engine: &Engine,
    program: &Arc<Program>,
    run: &Run,
    work: impl FnOnce(&World<'_>, &Run) -> T + Send + 'static,
) -> T {
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
