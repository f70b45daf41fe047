//! The writer of a journal: a thread of its own, so that no request waits for the disk.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use standfast_model::Stamp;
use standfast_runtime::{Clock, Disk};
use tokio::sync::{oneshot, watch};

use super::{Begin, GROUP_COMMIT, JournalError, Line, RESERVE_BLOCK, Value};
use crate::outcome::Outcome;
use crate::target::Effect;

/// Lines that wait for the disk. When more do, the journal fails and with it the proof: lines are never left out silently.
const QUEUE_MAX: usize = 65_536;

/// What the writer has done so far.
#[derive(Debug, Clone, Default)]
struct Progress {
    reserved_below: u64,
    failure: Option<String>,
    has_ended: bool,
}

enum Message {
    Line(Line),
    Flush(oneshot::Sender<()>),
    Close,
}

/// Writes a journal from a thread of its own, so that no request waits for the disk. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Writer(Arc<WriterInner>);

#[derive(Debug)]
struct WriterInner {
    path: PathBuf,
    queue: SyncSender<Message>,
    progress: watch::Sender<Progress>,
}

impl Writer {
    /// Makes the file, in the place of an older one, and starts the thread. The first block of numbers is reserved.
    pub(crate) fn start(
        disk: Arc<dyn Disk>,
        clock: Clock,
        path: &Path,
        begin: Begin,
    ) -> Result<(Self, JoinHandle<()>), JournalError> {
        let failed = |source| JournalError::Write { path: path.to_owned(), source };
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            disk.make_folder(folder).map_err(failed)?;
        }
        let mut head = Vec::new();
        for line in [Line::Begin(begin), Line::Reserve { below: RESERVE_BLOCK }] {
            write_line(&mut head, &line).map_err(|error| failed(io::Error::other(error)))?;
        }
        disk.replace(path, &head).map_err(failed)?;
        let (queue, lines) = sync_channel(QUEUE_MAX);
        let progress = watch::Sender::new(Progress { reserved_below: RESERVE_BLOCK, ..Progress::default() });
        let inner = Arc::new(WriterInner { path: path.to_owned(), queue, progress });
        let worker = Worker { disk, clock, path: path.to_owned(), progress: inner.progress.clone() };
        let thread = std::thread::Builder::new()
            .name("prove-journal".to_owned())
            .spawn(move || worker.run(&lines))
            .map_err(failed)?;
        Ok((Self(inner), thread))
    }

    pub(crate) fn intend(&self, load: usize, number: u64, id: &str, due: Stamp) {
        self.send(Message::Line(Line::Intend { load, number, id: id.to_owned(), due }));
    }

    pub(crate) fn outcome(&self, load: usize, number: u64, at: Stamp, outcome: Outcome) {
        self.send(Message::Line(Line::Outcome { load, number, at, outcome }));
    }

    /// Writes down all effects that a source holds.
    ///
    /// # Cancellation
    /// Not cancel safe: some of them may be missing, and the journal then fails to be read as a whole.
    pub(crate) async fn effects(&self, source: usize, effects: Vec<Effect>) {
        self.send(Message::Line(Line::Effects { source, count: effects.len() as u64 }));
        for chunk in effects.chunks(QUEUE_MAX / 4) {
            for effect in chunk {
                let value = match String::from_utf8(effect.value.clone()) {
                    Ok(text) => Value::Text(text),
                    Err(bytes) => Value::Bytes(bytes.into_bytes()),
                };
                self.send(Message::Line(Line::Effect { source, key: effect.key.clone(), value }));
            }
            self.durable().await;
        }
    }

    /// Returns once all that was sent before is durable, or the journal has failed.
    async fn durable(&self) {
        let (told, durable) = oneshot::channel();
        self.send(Message::Flush(told));
        // A journal that failed drops the sender: the failure is kept and told at the end.
        let _failed = durable.await.is_err();
    }

    /// Asks for numbers below `below`; [`Writer::until_reserved`] tells when they may be used.
    pub(crate) fn reserve(&self, below: u64) {
        self.send(Message::Line(Line::Reserve { below }));
    }

    /// Returns once `number` may be sent, or the journal has failed. Cancel safe.
    pub(crate) async fn until_reserved(&self, number: u64) {
        let mut progress = self.0.progress.subscribe();
        let usable =
            |seen: &Progress| number < seen.reserved_below || seen.failure.is_some() || seen.has_ended;
        // The sender lives as long as `self`, so there is no other end to this wait.
        let _sender_is_gone = progress.wait_for(usable).await.is_err();
    }

    /// Whether the journal is not being written any more.
    pub(crate) fn has_failed(&self) -> bool {
        self.0.progress.borrow().failure.is_some()
    }

    /// Why the journal is not being written any more.
    pub(crate) fn failure(&self) -> Option<String> {
        self.0.progress.borrow().failure.clone()
    }

    /// Writes the end line and waits until all is durable.
    ///
    /// # Cancellation
    /// Not cancel safe: the journal may then end without its end line, which readers accept.
    pub(crate) async fn close(self, thread: JoinHandle<()>) -> Result<(), JournalError> {
        self.send(Message::Close);
        let mut progress = self.0.progress.subscribe();
        let _sender_is_gone = progress.wait_for(|seen| seen.has_ended).await.is_err();
        let panicked = thread.join().is_err();
        let reason = self.failure().or(panicked.then(|| "its thread panicked".to_owned()));
        match reason {
            None => Ok(()),
            Some(reason) => Err(JournalError::Failed { path: self.0.path.clone(), reason }),
        }
    }

    fn send(&self, message: Message) {
        let reason = match self.0.queue.try_send(message) {
            Ok(()) => return,
            Err(TrySendError::Full(Message::Close)) => {
                // The writer sees the flag when it has emptied its queue.
                "the disk did not keep up at the end".to_owned()
            }
            Err(TrySendError::Full(_)) => format!("the disk did not keep up: {QUEUE_MAX} lines waited"),
            Err(TrySendError::Disconnected(_)) => "its thread has ended".to_owned(),
        };
        self.0.progress.send_modify(|progress| {
            progress.failure.get_or_insert(reason);
        });
    }
}

#[derive(Debug)]
struct Worker {
    disk: Arc<dyn Disk>,
    clock: Clock,
    path: PathBuf,
    progress: watch::Sender<Progress>,
}

/// What one group of lines holds.
#[derive(Debug, Default)]
struct Group {
    bytes: Vec<u8>,
    reserve: u64,
    waiting: Vec<oneshot::Sender<()>>,
    is_urgent: bool,
    closes: bool,
}

impl Worker {
    /// Ends on [`Message::Close`], and when all who could send lines are gone. A disk that failed is not tried again.
    fn run(&self, lines: &Receiver<Message>) {
        let mut counts = [0_u64; 3];
        loop {
            let Ok(first) = lines.recv() else { break };
            let mut group = Group::default();
            self.take(&mut group, &mut counts, first);
            if !group.is_urgent {
                self.clock.block(GROUP_COMMIT);
            }
            while !group.closes
                && let Ok(next) = lines.try_recv()
            {
                self.take(&mut group, &mut counts, next);
            }
            self.commit(group.reserve, &group.bytes);
            let has_failed = self.progress.borrow().failure.is_some();
            if group.closes || has_failed {
                break;
            }
            for waiter in group.waiting {
                let _left = waiter.send(()).is_err();
            }
        }
        self.progress.send_modify(|progress| progress.has_ended = true);
    }

    fn take(&self, group: &mut Group, counts: &mut [u64; 3], message: Message) {
        let line = match message {
            Message::Line(line) => line,
            Message::Flush(waiter) => {
                group.waiting.push(waiter);
                group.is_urgent = true;
                return;
            }
            Message::Close => {
                group.closes = true;
                group.is_urgent = true;
                Line::End { intents: counts[0], outcomes: counts[1], effects: counts[2] }
            }
        };
        match &line {
            Line::Intend { .. } => counts[0] += 1,
            Line::Outcome { .. } => counts[1] += 1,
            Line::Effect { .. } => counts[2] += 1,
            Line::Reserve { below } => {
                group.reserve = group.reserve.max(*below);
                group.is_urgent = true;
            }
            Line::Begin(_) | Line::Effects { .. } | Line::End { .. } => {}
        }
        if let Err(error) = write_line(&mut group.bytes, &line) {
            self.fail(&error);
        }
    }

    fn commit(&self, reserved: u64, bytes: &[u8]) {
        if self.progress.borrow().failure.is_some() {
            return;
        }
        match self.disk.append(&self.path, bytes) {
            Ok(()) => self.progress.send_modify(|progress| {
                progress.reserved_below = progress.reserved_below.max(reserved);
            }),
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&self, error: &dyn std::error::Error) {
        tracing::error!(path = %self.path.display(), %error, "the journal cannot be written");
        self.progress.send_modify(|progress| {
            progress.failure.get_or_insert_with(|| error.to_string());
        });
    }
}

fn write_line(bytes: &mut Vec<u8>, line: &Line) -> Result<(), serde_json::Error> {
    serde_json::to_writer(&mut *bytes, line)?;
    bytes.push(b'\n');
    Ok(())
}
