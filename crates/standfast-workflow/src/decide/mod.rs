//! What comes next for a run: a plain function of its program, what became of it so far, and what has just happened. Nothing is
//! done here; what is to be asked outside follows from the run ([`Run::asking`]). One file for each kind of task.

mod catch;
mod each;
mod emit;
mod extended;
mod flow;
mod fork;
mod function;
mod interest;
mod join;
mod length;
mod limits;
mod listen;
mod migrate;
mod raise;
mod receive;
mod set;
mod sight;
mod signal;
mod switch;
mod undo;
mod wait;

use std::sync::Arc;

use serde_json::Value;
use standfast_model::Stamp;
use standfast_model::workflow::bad_step_key;

pub(crate) use interest::{Interest, at, interests, sign};
pub(crate) use limits::{for_rate, for_slot};
pub(crate) use listen::{event_key, gather, is_full, nothing_yet};
pub use migrate::Remark;
pub(crate) use migrate::{Verdict, judge};
pub(crate) use receive::{ACKNOWLEDGED, OVER, RECEIVED};
pub use sight::World;
pub(crate) use sight::{Seeing, Sight, as_text, kept_secret, kind_of, mistakes, over_limits, size_of};
pub(crate) use signal::{ANSWERS, answers, has_no_room};
pub use standfast_model::workflow::SIGNAL_TYPE;
pub use undo::UNDO_BYTES_MAX;

use crate::program::{Form, Next, Outlet, Program, Step, Task, TaskId};
use crate::run::{Event, Problem, Record, Run, RunId, Scope, ScopeId, SlotHeld, Standard, State, Status};

/// Most events of one record; what more is to be done follows in the next.
const RECORD_EVENTS_MAX: usize = 256;
/// About as many bytes of data in one record, and at most one value more.
const RECORD_BYTES_MAX: usize = 256 << 10;
/// Most events in a run's life, unless told otherwise.
pub const STEPS_MAX: u64 = 1_000_000;
/// Most tasks within each other, functions included.
const DEPTH_MAX: usize = 100;
/// Largest value that a task may be given or yield, in bytes of JSON.
pub const VALUE_BYTES_MAX: usize = 256 << 10;

/// What has happened to a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Cause {
    /// It is started by this.
    Start {
        /// Its input.
        input: Arc<Value>,
        /// The key of who starts it, if it gave one.
        key: Option<Arc<str>>,
        /// Slots of runs that wait for it.
        around: Vec<SlotHeld>,
    },
    /// It is let in.
    Admit {
        /// In the slot of this run, if not in its own.
        within: Option<RunId>,
    },
    /// It goes on from where another run stood.
    Again {
        /// That run.
        run: Arc<Run>,
    },
    /// What was begun in the last record goes on, or it was read back from the store.
    Continue,
    /// Time has passed.
    Time,
    /// What a task asked outside was answered.
    Answer {
        /// By which.
        scope: ScopeId,
        /// What it yields, or why it failed.
        answer: Result<Arc<Value>, Problem>,
    },
    /// An event came in.
    Event {
        /// In the form of `CloudEvents`.
        event: Arc<Value>,
    },
    /// Events that came before one of its tasks began to wait.
    Kept {
        /// In the order in which they came.
        events: Vec<Arc<Value>>,
    },
    /// Somebody tells it something.
    Signal {
        /// In the form of `CloudEvents`.
        event: Arc<Value>,
    },
    /// Somebody has it go on by another version of its document, if it can.
    Migrate {
        /// That document.
        to: Arc<Program>,
    },
    /// Somebody holds it.
    Hold,
    /// Somebody lets it go on.
    Resume,
    /// It cannot go on.
    Fail {
        /// Why.
        problem: Problem,
    },
    /// Somebody ends it.
    Cancel {
        /// Why.
        reason: String,
    },
}

/// What becomes of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// What is to be written; `None` when nothing changed.
    pub record: Option<Record>,
    /// The run as it is then.
    pub run: Run,
    /// There is more to be done at once, by [`Cause::Continue`].
    pub is_unfinished: bool,
}

/// What comes next for a run.
pub fn decide(world: &World<'_>, run: Run, cause: &Cause, now: Stamp) -> Turn {
    if let Cause::Migrate { to } = cause {
        return migrate::turn(world, run, to, now);
    }
    let number = run.records;
    let mut deciding = Deciding { world, run, now, events: Vec::new(), bytes: 0, ready: Vec::new() };
    deciding.happen(cause);
    let mut is_unfinished = deciding.settle();
    while !is_unfinished && signal::give(&mut deciding) {
        is_unfinished = deciding.settle();
    }
    let Deciding { mut run, events, .. } = deciding;
    let record = (!events.is_empty()).then(|| {
        run.close(now);
        Record { run: run.id, number, at: now, events }
    });
    Turn { record, run, is_unfinished }
}

/// A decision while it is made: events are folded in as they are found.
pub(crate) struct Deciding<'w> {
    pub(crate) world: &'w World<'w>,
    pub(crate) run: Run,
    pub(crate) now: Stamp,
    events: Vec<Event>,
    bytes: usize,
    /// Scopes that may have something to do, the next one last.
    ready: Vec<ScopeId>,
}

impl Deciding<'_> {
    fn happen(&mut self, cause: &Cause) {
        if self.run.status.is_final() {
            return;
        }
        // Whatever it is that broke the process, it is not done again before somebody says so.
        let goes_by_itself = matches!(
            cause,
            Cause::Admit { .. }
                | Cause::Continue
                | Cause::Time
                | Cause::Answer { .. }
                | Cause::Event { .. }
                | Cause::Kept { .. }
        );
        if self.run.parked.is_some() && goes_by_itself {
            return;
        }
        match cause {
            Cause::Start { input, key, around } => self.start(input, key.as_ref(), around),
            Cause::Admit { within } => self.admit(*within),
            Cause::Again { run } => {
                self.note(Event::Continued { run: Arc::clone(run) });
                if self.run.is_queued() {
                    return;
                }
                self.ready = self.run.scopes.keys().rev().copied().collect();
                self.time_passes();
            }
            Cause::Continue => self.ready = self.run.scopes.keys().rev().copied().collect(),
            Cause::Time => {
                self.ready = self.run.scopes.keys().rev().copied().collect();
                self.time_passes();
            }
            Cause::Answer { scope, answer } => self.answered(*scope, answer),
            Cause::Event { event } => listen::arrives(self, event, false),
            Cause::Kept { events } => events.iter().for_each(|event| listen::arrives(self, event, true)),
            Cause::Signal { event } => signal::arrives(self, event),
            Cause::Hold if !self.run.is_held => self.note(Event::Held),
            // It is decided alone: what follows is for the other document to say.
            Cause::Hold | Cause::Migrate { .. } => {}
            Cause::Resume => {
                if self.run.stands_still() {
                    self.note(Event::Resumed);
                }
                self.ready = self.run.scopes.keys().rev().copied().collect();
                self.time_passes();
            }
            Cause::Fail { problem } if undo::fits(&self.run) => self.end_by(problem.clone()),
            Cause::Fail { problem } => undo::end_without(self, problem),
            // One that is being undone ends so anyway: asking twice changes nothing.
            Cause::Cancel { .. } if undo::ends(&self.run) => {}
            Cause::Cancel { reason } => {
                let problem = Standard::Runtime.problem(reason.clone());
                if self.run.stands_still() {
                    self.note(Event::Resumed); // What is held is not undone.
                }
                self.end_with(Status::Cancelled, problem);
            }
        }
    }

    /// Does what can be done at once. True when there is more of it than one record holds.
    fn settle(&mut self) -> bool {
        while let Some(scope) = self.ready.pop() {
            if self.run.is_queued() || self.run.stands_still() || self.run.status.is_final() {
                return false;
            }
            if self.events.len() >= RECORD_EVENTS_MAX || self.bytes >= RECORD_BYTES_MAX {
                return true;
            }
            let most = self.steps_max();
            if self.run.steps >= most {
                let detail = format!("it took {most} steps without coming to an end");
                self.end_by(Standard::Runtime.problem(detail));
                continue;
            }
            flow::step(self, scope);
        }
        false
    }

    /// Most events in the run's life. What undoes it may take as many again.
    fn steps_max(&self) -> u64 {
        if undo::ends(&self.run) { self.world.steps_max.saturating_mul(2) } else { self.world.steps_max }
    }

    /// Notes what happened, and that it did.
    pub(crate) fn note(&mut self, event: Event) {
        self.run.evolve(&event, self.now);
        self.bytes += bytes_of(&event);
        self.events.push(event);
    }

    /// Looks at this scope next.
    pub(crate) fn look_at(&mut self, scope: ScopeId) {
        self.ready.push(scope);
    }

    fn start(&mut self, input: &Arc<Value>, key: Option<&Arc<str>>, around: &[SlotHeld]) {
        let program = self.world.program;
        let mut sight = Sight::of_workflow(input);
        let taken = self.take_in(&program.input, input, &sight);
        sight.input = taken.as_ref().ok().map(Arc::clone);
        let deadline = self.deadline(program.timeout, &sight).and_then(|timeout| {
            let deadline = self.deadline(program.deadline, &sight)?;
            Ok([timeout, deadline].into_iter().flatten().min())
        });
        let limits = match &taken {
            Ok(_) => self.limits(around, &sight),
            Err(_) => Ok(None),
        };
        let (given, problem) = match (taken, deadline, limits) {
            (Ok(given), Ok(deadline), Ok(limits)) => (Some((given, deadline, limits)), None),
            (Err(problem), ..) | (_, Err(problem), _) | (.., Err(problem)) => (None, Some(problem)),
        };
        let (given, deadline, limits) = given.unwrap_or((Arc::clone(input), None, None));
        let given = (given != *input).then_some(given);
        let definition = program.digest.clone();
        self.note(Event::Started {
            definition,
            input: Arc::clone(input),
            given,
            key: key.cloned(),
            deadline,
            limits,
        });
        match problem {
            Some(problem) => self.end_by(problem.at("/input")),
            None => self.look_at(ScopeId::ROOT),
        }
    }

    fn time_passes(&mut self) {
        if self.queue_timed_out() {
            return;
        }
        let due = |scope: &Scope, now| scope.deadline.is_some_and(|deadline| deadline <= now);
        let scopes: Vec<ScopeId> = self.run.scopes.keys().copied().collect();
        for id in scopes {
            let Some(scope) = self.run.scopes.get(&id) else { continue };
            if due(scope, self.now) {
                self.give_up(id);
                continue;
            }
            match scope.state {
                State::Waiting { until } if until <= self.now && !self.run.is_held => wait::is_over(self, id),
                State::Trying { until: Some(until), .. } if until <= self.now => {
                    let problem = Standard::Timeout.problem("this attempt took too long");
                    let task = Arc::clone(&scope.task);
                    catch::failed(self, id, problem.at(&task));
                }
                State::Pausing { until, .. } if until <= self.now && !self.run.is_held => {
                    catch::try_again(self, id);
                }
                _ => {}
            }
        }
    }

    /// What took too long fails.
    fn give_up(&mut self, id: ScopeId) {
        let Some(scope) = self.run.scopes.get(&id) else { return };
        let task = Arc::clone(&scope.task);
        let took = self.now.since(scope.at).as_secs_f64();
        let what = if id == ScopeId::ROOT { "the workflow" } else { "the task" };
        let problem = Standard::Timeout.problem(format!("{what} was given up after {took:.1} s"));
        if id == ScopeId::ROOT {
            self.end_by(problem.at("/"));
        } else {
            self.fail(id, problem.at(&task));
        }
    }

    fn answered(&mut self, id: ScopeId, answer: &Result<Arc<Value>, Problem>) {
        match self.run.scopes.get(&id) {
            Some(scope) if matches!(scope.state, State::Receiving(_)) => receive::answered(self, id, answer),
            Some(scope) if scope.state == State::Asking => match answer {
                Ok(raw) => self.leave(id, Arc::clone(raw)),
                Err(problem) => {
                    let task = Arc::clone(&scope.task);
                    self.fail(id, problem.clone().at(&task));
                }
            },
            // It was given up meanwhile.
            _ => {}
        }
    }

    /// Begins the next task of a scope.
    pub(crate) fn enter(&mut self, parent: ScopeId, id: TaskId) {
        let task = self.world.program.task(id);
        if let Err(problem) = self.try_enter(parent, id) {
            let problem = problem.at(&task.pointer);
            self.note(Event::Failed { parent, task: Arc::clone(&task.pointer), problem: problem.clone() });
            self.spread(parent, problem);
        }
    }

    fn try_enter(&mut self, parent: ScopeId, id: TaskId) -> Result<(), Problem> {
        let task = self.world.program.task(id);
        let raw = Arc::clone(&self.run.scopes[&parent].data);
        if self.run.holders(parent).count() > DEPTH_MAX {
            return Err(Standard::Runtime.problem(format!("tasks nest deeper than {DEPTH_MAX}")));
        }
        let mut sight = Sight::of_task(parent, task, &raw, self.now);
        if let Some(condition) = task.condition
            && !self.holds(condition, &raw, &sight)?
        {
            self.note(Event::Skipped { parent, task: Arc::clone(&task.pointer) });
            self.look_at(parent);
            return Ok(());
        }
        let input = self.take_in(&task.input, &raw, &sight)?;
        sight.input = Some(Arc::clone(&input));
        let begin = Begin { parent, id, raw, input, sight };
        match &task.step {
            Step::Set(form) => set::begin(self, begin, form),
            Step::Switch(cases) => switch::begin(self, begin, cases),
            Step::Raise(raise) => raise::begin(self, &begin, raise),
            Step::Emit(with) => emit::begin(self, begin, with),
            Step::Wait(length) => wait::begin(self, &begin, *length),
            Step::Do(_) => self.enter_scope(&begin, State::List),
            Step::For(each) => each::begin(self, begin, each),
            Step::Fork(fork) => fork::begin(self, &begin, fork),
            Step::Try(attempt) => catch::begin(self, &begin, attempt),
            Step::Extended(extended) => extended::begin(self, &begin, *extended),
            Step::Function { with, .. } => function::begin(self, begin, with.as_ref()),
            Step::Listen(listen) => listen::begin(self, &begin, listen),
            Step::Http(_)
            | Step::OpenApi(_)
            | Step::Publish(_)
            | Step::Agent(_)
            | Step::Mcp(_)
            | Step::Grpc(_)
            | Step::Process(_)
            | Step::Container(_)
            | Step::Subflow(_)
            | Step::BuiltIn(_) => self.enter_scope(&begin, State::Asking),
        }
    }

    /// Notes that a task was begun which takes its time.
    pub(crate) fn enter_scope(&mut self, begin: &Begin<'_>, state: State) -> Result<(), Problem> {
        let task = self.world.program.task(begin.id);
        let deadline = self.deadline(task.timeout, &begin.sight)?;
        let key = task.key.as_ref().map(|key| self.step_key(key, begin)).transpose()?;
        let scope = ScopeId(self.run.next_scope);
        let input = (begin.input != begin.raw).then(|| Arc::clone(&begin.input));
        self.note(Event::Entered {
            scope,
            parent: begin.parent,
            task: Arc::clone(&task.pointer),
            input,
            deadline,
            state,
            key,
        });
        self.look_at(begin.parent);
        self.look_at(scope);
        Ok(())
    }

    /// What names a step to who is called.
    fn step_key(&self, key: &Form, begin: &Begin<'_>) -> Result<Arc<str>, Problem> {
        let text = self.text(key, &begin.input, &begin.sight)?;
        match bad_step_key(&text) {
            Some(why) => Err(Standard::Validation.problem(format!("the key {why}"))),
            None => Ok(text.into()),
        }
    }

    /// Ends a task that took no time.
    pub(crate) fn done(
        &mut self,
        begin: Begin<'_>,
        output: Arc<Value>,
        then: Option<Next>,
    ) -> Result<(), Problem> {
        let task = self.world.program.task(begin.id);
        let Begin { parent, raw, input, mut sight, .. } = begin;
        let (output, context) = self.put_out(&task.output, &task.export, output, &mut sight)?;
        let yielded = Arc::clone(&output);
        let output = (output != raw).then_some(output);
        let then = then.map(|then| match then {
            Next::Continue => "continue".into(),
            Next::Exit => "exit".into(),
            Next::End => "end".into(),
            Next::Task(id) => Arc::clone(&self.world.program.task(id).pointer),
        });
        let ends = fork::is_ended_by(self, parent, task, then.as_deref());
        let owed = undo::is_owed(self, parent, task).then_some(input);
        let is_owed = owed.is_some();
        self.note(Event::Done { parent, task: Arc::clone(&task.pointer), output, context, then, owed });
        self.goes_on(parent, task, is_owed, ends.then_some(&yielded));
        Ok(())
    }

    /// Ends a task that took its time.
    pub(crate) fn leave(&mut self, id: ScopeId, raw: Arc<Value>) {
        self.leave_for(id, raw, None);
    }

    /// The same, when it was decided by data where it leads.
    pub(crate) fn leave_for(&mut self, id: ScopeId, raw: Arc<Value>, then: Option<Arc<str>>) {
        let Some(scope) = self.run.scopes.get(&id) else { return };
        let Some(parent) = scope.parent else { return };
        let Some(task) = self.world.program.find(&scope.task).map(|task| self.world.program.task(task))
        else {
            return self.fail(id, unknown_task(&scope.task));
        };
        let mut sight = Sight::of_scope(parent, task, scope);
        match self.put_out(&task.output, &task.export, raw, &mut sight) {
            Ok((output, context)) => {
                let ends = fork::is_ended_by(self, parent, task, then.as_deref());
                let is_owed = undo::is_owed(self, parent, task);
                self.note(Event::Left { scope: id, output: Arc::clone(&output), context, then, is_owed });
                self.goes_on(parent, task, is_owed, ends.then_some(&output));
            }
            Err(problem) => self.fail(id, problem.at(&task.pointer)),
        }
    }

    /// A task was done: the next one comes, or the run ends with what this one yielded.
    fn goes_on(&mut self, parent: ScopeId, task: &Task, is_owed: bool, ends: Option<&Arc<Value>>) {
        if is_owed && let Some(problem) = undo::too_much(&self.run) {
            return self.spread(parent, problem.at(&task.pointer));
        }
        match ends {
            Some(output) => self.complete(output),
            None => self.look_at(parent),
        }
    }

    /// A task fails, with all that goes on within it.
    pub(crate) fn fail(&mut self, id: ScopeId, problem: Problem) {
        let Some(parent) = self.run.scopes.get(&id).and_then(|scope| scope.parent) else {
            return self.end_by(problem);
        };
        self.note(Event::Faulted { scope: id, problem: problem.clone() });
        self.spread(parent, problem);
    }

    /// A scope is told that one of its tasks failed: it catches that, or fails too.
    pub(crate) fn spread(&mut self, id: ScopeId, problem: Problem) {
        match self.run.scopes.get(&id).map(|scope| &scope.state) {
            Some(State::Trying { .. }) => catch::failed(self, id, problem),
            Some(State::Round) => join::round_fails(self, id, problem),
            // It is known by the event what could not be undone.
            Some(State::Undoing { .. }) => self.look_at(id),
            Some(_) => self.fail(id, problem),
            None => {}
        }
    }

    pub(crate) fn end_by(&mut self, problem: Problem) {
        self.end_with(Status::Faulted, problem);
    }

    /// Ends the run so, after what was done is undone; one that is being undone ends at once.
    fn end_with(&mut self, status: Status, problem: Problem) {
        if undo::cut_short(self, &problem) || undo::begin(self, ScopeId::ROOT, &problem, Some(status)) {
            return;
        }
        self.note(Event::Ended { status, output: None, problem: Some(problem) });
    }

    /// The workflow has come to its end.
    pub(crate) fn complete(&mut self, output: &Arc<Value>) {
        let program = self.world.program;
        let input = Arc::clone(&self.run.input);
        let mut sight = Sight::of_workflow(&input);
        match self.put_out(&program.output, &Outlet::default(), Arc::clone(output), &mut sight) {
            Ok((output, _)) => {
                self.note(Event::Ended { status: Status::Completed, output: Some(output), problem: None });
            }
            Err(problem) => self.end_by(problem.at("/output")),
        }
    }
}

/// About how many bytes an event takes in a record.
fn bytes_of(event: &Event) -> usize {
    /// Names and numbers, but for data.
    const REST: usize = 64;
    let all = |values: &[&Option<Arc<Value>>]| -> usize {
        values.iter().filter_map(|value| value.as_ref()).map(|value| size_of(value)).sum()
    };
    let of_state = |state: &State| match state {
        State::Loop { items, .. } | State::Join { items, .. } => {
            items.iter().map(|item| size_of(item) + 1).sum()
        }
        State::Catching { problem } => size_of(problem),
        State::Extended { output, .. } => all(&[output]),
        _ => 0,
    };
    REST + match event {
        Event::Started { input, given, .. } => size_of(input) + all(&[given]),
        Event::Entered { input, state, .. } => of_state(state) + all(&[input]),
        Event::Done { output, context, owed, .. } => all(&[output, context, owed]),
        Event::Left { output, context, .. } => size_of(output) + all(&[context]),
        Event::Changed { state, .. } | Event::Restarted { state, .. } => of_state(state),
        Event::Consumed { read, shared, .. } => all(&[read]) + shared.values().map(size_of).sum::<usize>(),
        Event::Handled { output, .. } => size_of(output),
        Event::Exported { context } => size_of(context),
        Event::Emitted { event } => size_of(event),
        Event::Signalled { signal } => size_of(&signal.event),
        Event::Ended { output, .. } => all(&[output]),
        // It is what the run holds, and has a limit of its own.
        Event::Admitted { .. }
        | Event::Continued { .. }
        | Event::Skipped { .. }
        | Event::Failed { .. }
        | Event::Iterated { .. }
        | Event::Acknowledged { .. }
        | Event::Faulted { .. }
        | Event::Migrated(_)
        | Event::Held
        | Event::Parked { .. }
        | Event::Resumed => 0,
    }
}

/// A task that is about to begin.
pub(crate) struct Begin<'a> {
    pub(crate) parent: ScopeId,
    pub(crate) id: TaskId,
    /// What it is given.
    pub(crate) raw: Arc<Value>,
    /// What it sees of that.
    pub(crate) input: Arc<Value>,
    pub(crate) sight: Sight<'a>,
}

/// A record names a task that its document does not have.
pub(crate) fn unknown_task(pointer: &str) -> Problem {
    Standard::Runtime.problem(format!("the document has no task at {pointer}"))
}
