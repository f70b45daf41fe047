//! Where expressions are evaluated: here when they are cheap, else by one of a few children, for which callers wait in line.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use standfast_model::Stamp;

use super::cheap::CHEAP_DEPTH_MAX;
use super::compile::Filter;
use super::evaluate::evaluate;
use super::failure::{ExpressionFailed, Fault};
use super::frame::INPUT_SIZE_MAX;
use super::value::{DEPTH_MAX, Extent, measure};
use super::worker::{Question, Worker};

/// As many callers may wait in line; one more is told that the evaluators are busy.
const LINE_MAX: usize = 1_024;
/// So long a caller waits in line, before it is told that the evaluators are busy.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// How expressions are evaluated.
#[derive(Debug, Clone)]
pub struct EvaluatorConfig {
    /// The program that is started to evaluate, which calls [`serve_expressions`](crate::serve_expressions). An absolute path: it is
    /// started in `/`.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// How many of it run at most. They are started when they are needed.
    pub children_max: usize,
    /// How long one evaluation may take.
    pub time_max: Duration,
    /// How much memory each may have, in bytes of address space, of which 64 MiB are for its stack.
    pub memory_max: u64,
    /// How large a result may be, in about as many bytes as it has as JSON.
    pub output_bytes_max: usize,
}

impl Default for EvaluatorConfig {
    fn default() -> Self {
        Self {
            program: PathBuf::from("/proc/self/exe"),
            arguments: vec![OsString::from("serve-expressions")],
            children_max: 2,
            time_max: Duration::from_secs(1),
            memory_max: 512 << 20,
            output_bytes_max: 1 << 20,
        }
    }
}

/// Evaluates expressions. Clones are the same evaluator; when the last is gone, so are its children.
#[derive(Debug, Clone)]
pub struct Evaluator {
    pool: Arc<Pool>,
}

#[derive(Debug)]
struct Pool {
    config: EvaluatorConfig,
    line: Mutex<Line>,
}

/// A right to have one child; the child itself, when it has been started already.
type Seat = Option<Box<Worker>>;

/// Who waits, and what is free. When a seat is free nobody waits.
#[derive(Debug)]
struct Line {
    free: Vec<Seat>,
    waiting: VecDeque<(u64, SyncSender<Seat>)>,
    next_ticket: u64,
}

impl Evaluator {
    /// An evaluator. Nothing is started yet.
    pub fn new(config: EvaluatorConfig) -> Self {
        let free = (0..config.children_max.max(1)).map(|_| None).collect();
        let line = Mutex::new(Line { free, waiting: VecDeque::new(), next_ticket: 0 });
        Self { pool: Arc::new(Pool { config, line }) }
    }

    /// Evaluates an expression: its value, or null when it has none. Blocks. `values` are those of `filter.variables()`, in their
    /// order; `now` is what the expression takes for the present.
    ///
    /// # Errors
    /// It has no value, or too many; it took too long, or too much memory; nobody was free to evaluate it.
    pub(crate) fn evaluate(
        &self,
        filter: &Filter,
        input: &Value,
        values: &[&Value],
        now: Stamp,
    ) -> Result<Value, ExpressionFailed> {
        assert_eq!(values.len(), filter.variables().len(), "one value for each variable");
        let extent = extent_of(input, values)?;
        let output_bytes_max = self.pool.config.output_bytes_max;
        let outcome = match filter.cheap() {
            Some(cheap) if extent.size <= cheap.size_max && extent.depth <= CHEAP_DEPTH_MAX => {
                evaluate(&cheap.filter, input, values.iter().copied(), now, output_bytes_max)
            }
            _ => self.pool.evaluate(&Question {
                text: filter.text(),
                variables: filter.variables(),
                input,
                values,
                now_us: now.as_micros(),
            })?,
        };
        outcome.map_err(|fault| fault.of_output(output_bytes_max))
    }

    /// The same by a child, however cheap it is.
    #[cfg(feature = "trial")]
    pub(super) fn evaluate_in_child(
        &self,
        filter: &Filter,
        input: &Value,
        values: &[&Value],
        now: Stamp,
    ) -> Result<Value, ExpressionFailed> {
        extent_of(input, values)?;
        let (text, variables, now_us) = (filter.text(), filter.variables(), now.as_micros());
        let outcome = self.pool.evaluate(&Question { text, variables, input, values, now_us })?;
        outcome.map_err(|fault| fault.of_output(self.pool.config.output_bytes_max))
    }

    /// The children that have nothing to do.
    #[cfg(feature = "trial")]
    pub(super) fn idle_process_ids(&self) -> Vec<u32> {
        self.pool.line().free.iter().flatten().map(|worker| worker.process_id()).collect()
    }

    /// How many wait in line.
    #[cfg(feature = "trial")]
    pub(super) fn waiting(&self) -> usize {
        self.pool.line().waiting.len()
    }
}

fn extent_of(input: &Value, values: &[&Value]) -> Result<Extent, ExpressionFailed> {
    let mut all = Extent::default();
    for value in std::iter::once(&input).chain(values) {
        let extent = measure(value);
        all.size = all.size.saturating_add(extent.size);
        all.depth = all.depth.max(extent.depth);
    }
    if all.depth > DEPTH_MAX {
        return Err(ExpressionFailed::TooDeep { max: DEPTH_MAX });
    }
    if all.size > INPUT_SIZE_MAX {
        return Err(ExpressionFailed::TooLarge { max: INPUT_SIZE_MAX });
    }
    Ok(all)
}

impl Pool {
    /// Evaluates by a child. The outer error is that of the child, or of the line.
    fn evaluate(&self, question: &Question<'_>) -> Result<Result<Value, Fault>, ExpressionFailed> {
        let mut taken = Taken { pool: self, seat: self.take()? };
        // One that died while it had nothing to do is replaced.
        let mut worker = match taken.seat.take().and_then(alive) {
            Some(worker) => worker,
            None => Box::new(Worker::start(&self.config).map_err(ExpressionFailed::CannotStart)?),
        };
        // After an error the child is killed by its drop, and the seat goes back empty.
        let outcome = worker.evaluate(question, &self.config)?;
        taken.seat = Some(worker);
        Ok(outcome)
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // No code that could panic runs under it, so a poisoned one is whole as well.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a seat, in the order of coming.
    fn take(&self) -> Result<Seat, ExpressionFailed> {
        let (ticket, turn) = {
            let mut line = self.line();
            if let Some(seat) = line.take_free() {
                return Ok(seat);
            }
            line.enter().ok_or(ExpressionFailed::Busy)?
        };
        match turn.recv_timeout(WAIT_MAX) {
            Ok(seat) => Ok(seat),
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                self.line().leave(ticket);
                // It may have been this caller's turn while it gave up.
                turn.try_recv().map_err(|_| ExpressionFailed::Busy)
            }
        }
    }
}

impl Line {
    /// A child that runs already, rather than one that would have to be started.
    fn take_free(&mut self) -> Option<Seat> {
        let at = self.free.iter().position(Option::is_some).unwrap_or(0);
        (at < self.free.len()).then(|| self.free.swap_remove(at))
    }

    fn enter(&mut self) -> Option<(u64, Receiver<Seat>)> {
        if self.waiting.len() >= LINE_MAX {
            return None;
        }
        // With room for the seat, so that giving it never blocks.
        let (turn, seat) = sync_channel(1);
        self.next_ticket += 1;
        self.waiting.push_back((self.next_ticket, turn));
        Some((self.next_ticket, seat))
    }

    fn leave(&mut self, ticket: u64) {
        self.waiting.retain(|(waiting, _)| *waiting != ticket);
    }

    /// Gives a seat to who has waited longest, or keeps it.
    fn give(&mut self, mut seat: Seat) {
        while let Some((_, turn)) = self.waiting.pop_front() {
            match turn.send(seat) {
                Ok(()) => return,
                // A caller that panicked: the next one.
                Err(refused) => seat = refused.0,
            }
        }
        self.free.push(seat);
    }
}

fn alive(mut worker: Box<Worker>) -> Option<Box<Worker>> {
    worker.is_alive().then_some(worker)
}

/// A seat that goes back to the line, whatever happens.
struct Taken<'a> {
    pool: &'a Pool,
    seat: Seat,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let seat = self.seat.take();
        self.pool.line().give(seat);
    }
}
