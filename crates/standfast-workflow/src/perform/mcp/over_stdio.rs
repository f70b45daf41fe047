//! The stdio transport: the server is a process in a group of its own, each message a line. The group is killed at the end, and
//! when this is dropped.

use std::process::Stdio as Pipe;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use standfast_runtime::Clock;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use super::Wire;
use crate::ask::ANSWER_BYTES_MAX;
use crate::ask::MESSAGES_MAX;
use crate::perform::process::{Group, enclose};
use crate::perform::rpc::{Meaning, meaning};
use crate::run::{Problem, Standard};

/// How long a server may take to end by itself once it is told nothing more.
const END_MAX: Duration = Duration::from_secs(1);
/// Most of what a server complains that a problem tells, in bytes.
const COMPLAINT_MAX: usize = 300;

pub(super) struct Stdio {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    errors: ChildStderr,
    complaint: Vec<u8>,
    /// Bytes that it wrote.
    read: usize,
    clock: Clock,
    whom: String,
    // Dropped last: all that is left of it is killed.
    _group: Group,
}

impl Stdio {
    pub(super) fn start(
        program: &str,
        arguments: &[String],
        environment: &[(String, String)],
        clock: Clock,
    ) -> Result<Self, Problem> {
        let wrong =
            |why: String| Standard::Configuration.problem(format!("`{program}` cannot be started: {why}"));
        let mut command = Command::new(program);
        command.args(arguments);
        enclose(&mut command, environment);
        command.stdin(Pipe::piped()).stdout(Pipe::piped()).stderr(Pipe::piped());
        let mut child = command.spawn().map_err(|why| wrong(why.to_string()))?;
        let group = Group::of(&child);
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(errors)) = pipes else {
            return Err(wrong("it has no pipes".to_owned()));
        };
        Ok(Self {
            child,
            input,
            output: BufReader::new(output),
            errors,
            complaint: Vec::new(),
            read: 0,
            clock,
            whom: format!("the server `{program}`"),
            _group: group,
        })
    }

    async fn write(&mut self, message: &Value) -> Result<(), Problem> {
        let line = format!("{message}\n");
        let Self { input, errors, complaint, .. } = self;
        let written = tokio::select! {
            biased;
            written = async { input.write_all(line.as_bytes()).await?; input.flush().await } => written,
            () = drain(errors, complaint) => Ok(()),
        };
        match written {
            Ok(()) => Ok(()),
            Err(_) => Err(self.ended()),
        }
    }

    /// The next line; whatever it complains meanwhile is read, so that it need not wait.
    async fn line(&mut self) -> Result<String, Problem> {
        let left = (ANSWER_BYTES_MAX.saturating_sub(self.read) + 1) as u64;
        let mut bytes = Vec::new();
        let Self { child, output, errors, complaint, .. } = self;
        let mut limited = output.take(left);
        let read = tokio::select! {
            biased;
            read = limited.read_until(b'\n', &mut bytes) => read,
            () = drain(errors, complaint) => Ok(0),
            // Its own children may hold its output open for ever.
            _ = child.wait() => Ok(0),
        };
        self.read += bytes.len();
        if self.read > ANSWER_BYTES_MAX {
            let detail = format!("{} wrote more than {} KiB", self.whom, ANSWER_BYTES_MAX >> 10);
            return Err(Standard::Communication.problem(detail));
        }
        match read {
            Ok(count) if count > 0 => Ok(String::from_utf8_lossy(&bytes).into_owned()),
            _ => Err(self.ended()),
        }
    }

    fn ended(&self) -> Problem {
        let complaint = String::from_utf8_lossy(&self.complaint);
        let complaint = match complaint.trim() {
            "" => String::new(),
            said => format!(": {said}"),
        };
        Standard::Communication.problem(format!("{} ended before it answered{complaint}", self.whom))
    }
}

/// Reads what a server complains for as long as it may; never ends.
async fn drain(errors: &mut ChildStderr, complaint: &mut Vec<u8>) {
    let mut bytes = [0_u8; 4_096];
    while let Ok(count @ 1..) = errors.read(&mut bytes).await {
        let room = COMPLAINT_MAX.saturating_sub(complaint.len());
        complaint.extend_from_slice(&bytes[..count.min(room)]);
    }
    std::future::pending().await
}

#[async_trait]
impl Wire for Stdio {
    async fn ask(&mut self, id: u64, message: &Value) -> Result<Value, Problem> {
        let id = Value::from(id);
        self.write(message).await?;
        for _ in 0..MESSAGES_MAX {
            let line = self.line().await?;
            if line.trim().is_empty() {
                continue;
            }
            let message: Value = serde_json::from_str(&line).map_err(|why| {
                Standard::Communication.problem(format!("{} wrote a line that is not JSON: {why}", self.whom))
            })?;
            match meaning(&message, &id, &self.whom) {
                Meaning::Answer(answer) => return answer,
                Meaning::Asks(answer) => self.write(&answer).await?,
                Meaning::Other => {}
            }
        }
        let detail = format!("{} sent more than {MESSAGES_MAX} messages and no answer", self.whom);
        Err(Standard::Communication.problem(detail))
    }

    async fn tell(&mut self, message: &Value) -> Result<(), Problem> {
        self.write(message).await
    }

    fn agreed(&mut self, _: &str) -> Result<(), Problem> {
        Ok(())
    }

    async fn end(self: Box<Self>) {
        let Self { mut child, input, clock, _group, .. } = *self;
        drop(input);
        // Whether it ended by itself or not, nothing of it is left when its group is dropped.
        let _ended = clock.timeout(END_MAX, child.wait()).await;
    }
}
