//! A child process that evaluates, as the engine has it.
//!
//! One thread for each child writes what it is asked and reads what it answers, so that whoever asks can stop waiting. Whatever goes
//! wrong, the child is killed: it is never asked again. The thread is not waited for. It ends when the pipes are closed, which the
//! death of the child and its process group does.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use super::failure::{ExpressionFailed, Fault};
use super::frame::{self, Answer, Asked, Begin, Ready, VERSION, answer_bytes_max};
use super::pool::EvaluatorConfig;

/// How much address space the allocator of a child reserves at a time, in KiB, if it is mimalloc.
const ARENA_KIB: &str = "65536";
/// How long a child may take to start and to limit itself. It is no part of an evaluation's time.
const START_MAX: Duration = Duration::from_secs(10);
/// How much of what a dead child said on standard error is read.
const LAST_WORDS_BYTES_MAX: u64 = 4 << 10;
/// How much longer a child may compute than its answer is waited for: a limit for when the engine itself is dead.
const PROCESSOR_SLACK: Duration = Duration::from_secs(2);

/// A running child.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    requests: SyncSender<Vec<u8>>,
    answers: Receiver<io::Result<Vec<u8>>>,
    errors: Option<ChildStderr>,
    next_id: u64,
}

impl Worker {
    /// Starts a child, and waits until it has limited itself.
    pub(super) fn start(config: &EvaluatorConfig) -> io::Result<Self> {
        let mut child = Command::new(&config.program)
            .args(&config.arguments)
            .env_clear()
            // The program's allocator reserves more address space at its start than a child may have, unless told otherwise.
            .env("MIMALLOC_ARENA_RESERVE", ARENA_KIB)
            .current_dir("/")
            // Ctrl-C at a terminal is for the engine, which may have to evaluate on while it drains.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (requests, asked) = sync_channel::<Vec<u8>>(1);
        let (answered, answers) = sync_channel::<io::Result<Vec<u8>>>(1);
        // From here on it is killed when anything fails.
        let mut worker = Self { child, requests, answers, errors: None, next_id: 0 };
        let (Some(mut to), Some(mut from), Some(errors)) = pipes else {
            return Err(io::Error::other("the child has no pipes"));
        };
        fcntl_setfl(&errors, OFlags::NONBLOCK)?;
        worker.errors = Some(errors);
        let bytes_max = answer_bytes_max(config.output_bytes_max);
        thread::Builder::new().name("evaluator".to_owned()).spawn(move || {
            for request in asked {
                let answer = frame::write(&mut to, &request).and_then(|()| frame::read(&mut from, bytes_max));
                let answer = answer.and_then(|read| read.ok_or_else(|| io::ErrorKind::UnexpectedEof.into()));
                let is_last = answer.is_err();
                if answered.send(answer).is_err() || is_last {
                    return;
                }
            }
        })?;
        worker.begin(config)?;
        Ok(worker)
    }

    fn begin(&mut self, config: &EvaluatorConfig) -> io::Result<()> {
        let begin = serde_json::to_vec(&Begin { memory_max: config.memory_max })?;
        let ready = match self.exchange(begin, START_MAX) {
            Ok(answer) => serde_json::from_slice::<Ready>(&answer)?,
            Err(None) => return Err(io::ErrorKind::TimedOut.into()),
            Err(Some(why)) => return Err(io::Error::other(format!("{why}: {}", self.cause_of_death()))),
        };
        if ready.version == VERSION {
            Ok(())
        } else {
            let message = format!("it speaks version {} and not {VERSION}", ready.version);
            Err(io::Error::new(io::ErrorKind::InvalidData, message))
        }
    }

    /// Whether the child lives, as far as can be seen. One may die while it has nothing to do, and that is no expression's fault.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Evaluates. After an error of the outer result the child is of no use.
    pub(super) fn evaluate(
        &mut self,
        question: &Question<'_>,
        config: &EvaluatorConfig,
    ) -> Result<Result<Value, Fault>, ExpressionFailed> {
        self.next_id += 1;
        let ended = |why: &dyn std::fmt::Display| ExpressionFailed::Ended { how: why.to_string() };
        let asked = Asked {
            id: self.next_id,
            text: question.text,
            variables: question.variables,
            input: question.input,
            values: question.values,
            now_us: question.now_us,
            output_bytes_max: config.output_bytes_max,
            processor_s_max: config.time_max.saturating_add(PROCESSOR_SLACK).as_secs(),
        };
        let asked = serde_json::to_vec(&asked).map_err(|why| ended(&why))?;
        let answer = match self.exchange(asked, config.time_max) {
            Ok(answer) => answer,
            Err(None) => return Err(ExpressionFailed::Late { after: config.time_max }),
            Err(Some(why)) if why.kind() == io::ErrorKind::InvalidData => return Err(ended(&why)),
            Err(Some(_)) => return Err(ExpressionFailed::Ended { how: self.cause_of_death() }),
        };
        match serde_json::from_slice::<Answer>(&answer) {
            Ok(answer) if answer.id == self.next_id => Ok(answer.outcome),
            Ok(_) => Err(ended(&"the child answered another request")),
            Err(_) => Err(ended(&"the child's answer cannot be read")),
        }
    }

    /// Sends a frame and waits for one. None as the error: it took too long.
    fn exchange(&mut self, request: Vec<u8>, time_max: Duration) -> Result<Vec<u8>, Option<io::Error>> {
        let broken = || Some(io::Error::from(io::ErrorKind::BrokenPipe));
        // There is room for it: each request is answered before the next.
        self.requests.send(request).map_err(|_| broken())?;
        match self.answers.recv_timeout(time_max) {
            Ok(answer) => answer.map_err(Some),
            Err(RecvTimeoutError::Timeout) => Err(None),
            Err(RecvTimeoutError::Disconnected) => Err(broken()),
        }
    }

    /// Ends the child, and says what it had died of. A child that is on its way out already keeps its own cause.
    fn cause_of_death(&mut self) -> String {
        let status = match self.end() {
            Ok(status) => status,
            Err(why) => return format!("its process is gone: {why}"),
        };
        let mut said = Vec::new();
        if let Some(errors) = &mut self.errors {
            // It reads until nothing more is there, which is an error on a pipe that does not block.
            let _until_empty = errors.take(LAST_WORDS_BYTES_MAX).read_to_end(&mut said);
        }
        let said = String::from_utf8_lossy(&said);
        if said.contains("overflowed its stack") {
            "it ran out of stack".to_owned()
        } else if said.contains("memory allocation of") || said.contains("capacity overflow") {
            "it ran out of memory".to_owned()
        } else {
            format!("its process ended ({status})")
        }
    }

    fn end(&mut self) -> io::Result<std::process::ExitStatus> {
        // The group is the child's own, and exists at least until the child has been waited for.
        if self.child.try_wait()?.is_none()
            && let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
        {
            // It may be dead by now, which is what is wanted.
            let _dead_already = kill_process_group(group, Signal::KILL);
        }
        self.child.wait()
    }

    #[cfg(feature = "trial")]
    pub(super) fn process_id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Nobody is left who could be told.
        let _ended = self.end();
    }
}

/// What a child is asked.
pub(super) struct Question<'a> {
    pub(super) text: &'a str,
    pub(super) variables: &'a [String],
    pub(super) input: &'a Value,
    pub(super) values: &'a [&'a Value],
    pub(super) now_us: u64,
}
