use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{FallocateFlags, fallocate};
use standfast_model::Stamp;

use super::file::{LogFile, LogName};
use super::query;
use super::record::{Record, source_of};
use crate::local::api::{LogPage, LogQuery, LogSource, LogStream};
use crate::local::config::{LogLimits, StateDir};

/// A line longer than this is cut into several.
const LINE_BYTES_MAX: usize = 16 << 10;
/// Read at a time.
const CHUNK_BYTES: usize = 256 << 10;
/// Chunks of one spool in one round, so that a chatty replica does not keep the others' lines waiting.
const CHUNKS_PER_ROUND: usize = 16;
/// Consumed bytes after which space is given back.
const PUNCH_BYTES: u64 = 64 << 10;
/// The lines that an ended instance is remembered by.
const LAST_LINES: usize = 20;

/// The logs of one state folder. Cheap to clone. All calls block for file I/O.
#[derive(Debug, Clone)]
pub(crate) struct Logs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    logs: PathBuf,
    spool: PathBuf,
    limits: LogLimits,
    collected: Mutex<Collected>,
}

#[derive(Debug, Default)]
struct Collected {
    spools: BTreeMap<(String, LogStream), Spool>,
    files: BTreeMap<LogSource, LogFile>,
    tails: BTreeMap<String, VecDeque<String>>,
    cannot_punch: bool,
}

/// A file that one process writes one of its outputs to.
#[derive(Debug)]
struct Spool {
    path: PathBuf,
    file: File,
    /// All before has got into the log.
    offset: u64,
    /// All before was given back.
    punched: u64,
    /// The size when it was read the last time: the same size means nothing new, even when a line is unfinished.
    looked_at: u64,
}

impl Logs {
    /// The logs of a folder, going on where a predecessor stopped.
    pub(crate) fn open(state: &StateDir, limits: LogLimits) -> io::Result<Self> {
        let (logs, spool) = (state.logs(), state.spool());
        fs::create_dir_all(&spool)?;
        fs::create_dir_all(logs.join("services"))?;
        let mut collected = Collected::default();
        for entry in fs::read_dir(&spool)?.flatten() {
            let Some(key) = entry.file_name().to_str().and_then(key_of) else { continue };
            collected.spools.insert(key, Spool::open(entry.path())?);
        }
        let inner = Inner { logs, spool, limits, collected: Mutex::new(collected) };
        inner.restore_offsets()?;
        Ok(Self(Arc::new(inner)))
    }

    /// New files for the output of `writer`, for it to write to.
    pub(crate) fn open_spool(&self, writer: &str) -> io::Result<(File, File)> {
        let open = |stream| {
            let path = self.0.spool.join(format!("{writer}.{}", suffix(stream)));
            let end = File::options().append(true).create(true).mode(0o600).open(&path)?;
            self.0.lock().spools.entry((writer.to_owned(), stream)).or_insert(Spool::open(path)?);
            Ok::<_, io::Error>(end)
        };
        Ok((open(LogStream::Out)?, open(LogStream::Err)?))
    }

    /// Whether something was written since the last look.
    pub(crate) fn has_news(&self) -> bool {
        self.0.lock().spools.values().any(|spool| spool.size() != spool.looked_at)
    }

    /// Brings what is new into the logs.
    pub(crate) fn collect(&self, now: Stamp) {
        let keys: Vec<_> = self.0.lock().spools.keys().cloned().collect();
        for key in keys {
            self.0.report(&key.0, self.0.collect_one(&key, now, false));
        }
    }

    /// The last lines of a writer, everything collected that it has written so far (within what one round takes).
    pub(crate) fn last_lines(&self, writer: &str, now: Stamp) -> Vec<String> {
        for stream in [LogStream::Out, LogStream::Err] {
            self.0.report(writer, self.0.collect_one(&(writer.to_owned(), stream), now, true));
        }
        self.0.lock().tails.get(writer).map(|tail| tail.iter().cloned().collect()).unwrap_or_default()
    }

    /// The same without waiting for anything: `None` when the logs are busy or there is much to read.
    pub(crate) fn last_lines_at_once(&self, writer: &str, now: Stamp) -> Option<Vec<String>> {
        let mut collected = self.0.collected.try_lock().ok()?;
        let keys = [LogStream::Out, LogStream::Err].map(|stream| (writer.to_owned(), stream));
        let unread = |key| {
            collected.spools.get(key).map_or(0, |spool: &Spool| spool.size().saturating_sub(spool.offset))
        };
        if keys.iter().map(unread).sum::<u64>() > CHUNK_BYTES as u64 {
            return None;
        }
        for key in &keys {
            self.0.report(writer, self.0.collect_from(&mut collected, key, now, true));
        }
        Some(collected.tails.get(writer).map(|tail| tail.iter().cloned().collect()).unwrap_or_default())
    }

    /// Collects the rest of a writer that is gone, and removes its spools.
    pub(crate) fn close(&self, writer: &str, now: Stamp) {
        for stream in [LogStream::Out, LogStream::Err] {
            let key = (writer.to_owned(), stream);
            while let Ok(true) = self.0.collect_one(&key, now, true) {}
            let mut collected = self.0.lock();
            if let Some(spool) = collected.spools.remove(&key)
                && let Err(error) = fs::remove_file(&spool.path)
            {
                tracing::warn!(%error, spool = %spool.path.display(), "a spool cannot be removed");
            }
            collected.tails.remove(writer);
        }
    }

    /// Writers that a predecessor left and that are not in `live`.
    pub(crate) fn strays(&self, live: &BTreeSet<String>) -> BTreeSet<String> {
        self.0
            .lock()
            .spools
            .keys()
            .map(|(writer, _)| writer.clone())
            .filter(|writer| !live.contains(writer))
            .collect()
    }

    /// Removes what is beyond the limits of number and age.
    pub(crate) fn prune(&self, now: Stamp) {
        self.0.lock().files.values().for_each(|file| file.prune(now));
    }

    /// A sentence when space of spools cannot be given back here.
    pub(crate) fn limitation(&self) -> Option<String> {
        self.0.lock().cannot_punch.then(|| {
            "the file system of the state folder cannot free parts of a file: a replica's output takes space until it ends".into()
        })
    }

    /// Reads a log.
    pub(crate) fn query(&self, query: &LogQuery) -> io::Result<LogPage> {
        query::answer(&self.0.logs, query)
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, writer: &str, outcome: io::Result<bool>) {
        if let Err(error) = outcome {
            // Nothing is lost: the spool keeps it until it can be collected, at the next write or the next look at everything.
            tracing::warn!(%error, writer, "output cannot be collected");
        }
    }

    /// One round over one spool. Says whether there is more. With `is_end` an unfinished line counts as a line.
    fn collect_one(&self, key: &(String, LogStream), now: Stamp, is_end: bool) -> io::Result<bool> {
        let mut collected = self.lock();
        let outcome = self.collect_from(&mut collected, key, now, is_end);
        if outcome.is_err()
            && let Some(spool) = collected.spools.get_mut(key)
        {
            spool.looked_at = spool.size();
        }
        outcome
    }

    fn collect_from(
        &self,
        collected: &mut Collected,
        key: &(String, LogStream),
        now: Stamp,
        is_end: bool,
    ) -> io::Result<bool> {
        let Collected { spools, files, tails, cannot_punch } = collected;
        let (Some(spool), Some(source)) = (spools.get_mut(key), source_of(&key.0)) else { return Ok(false) };
        let size = spool.size();
        let tail = tails.entry(key.0.clone()).or_default();
        let mut chunks = 0;
        while spool.offset < size && chunks < CHUNKS_PER_ROUND {
            let Some((lines, offset)) = spool.next_lines(&key.0, key.1, now, is_end, tail)? else { break };
            let file = match files.entry(source.clone()) {
                std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(LogFile::open(LogName::of(&self.logs, &source), self.limits)?)
                }
            };
            file.append(&lines)?;
            spool.offset = offset;
            chunks += 1;
        }
        let has_more = chunks == CHUNKS_PER_ROUND && spool.offset < size;
        spool.looked_at = if has_more { spool.offset } else { size };
        *cannot_punch |= !spool.give_back();
        if files.get(&source).is_some_and(LogFile::is_full) {
            let head = positions(spools, &source, now);
            if let Some(file) = files.get_mut(&source) {
                file.rotate(&head)?;
                file.prune(now);
            }
        }
        Ok(has_more)
    }

    /// Finds in the logs how far each spool was read.
    fn restore_offsets(&self) -> io::Result<()> {
        let mut guard = self.lock();
        let sources: BTreeSet<LogSource> =
            guard.spools.keys().filter_map(|(writer, _)| source_of(writer)).collect();
        for source in sources {
            let open: BTreeSet<_> = guard
                .spools
                .keys()
                .filter(|(writer, _)| source_of(writer).as_ref() == Some(&source))
                .cloned()
                .collect();
            let name = LogName::of(&self.logs, &source);
            // Opening cuts a torn line off, so that what follows is not joined to it.
            guard.files.insert(source, LogFile::open(name.clone(), self.limits)?);
            let found = std::cell::RefCell::new(BTreeMap::<(String, LogStream), u64>::new());
            let note = |record: &Record<'_>| {
                let key = (record.writer.to_owned(), record.stream);
                if open.contains(&key) {
                    let mut found = found.borrow_mut();
                    let offset = found.entry(key).or_default();
                    *offset = record.offset.max(*offset);
                }
            };
            query::newest_first(&name, note, || found.borrow().len() == open.len())?;
            for (key, offset) in found.into_inner() {
                if let Some(spool) = guard.spools.get_mut(&key) {
                    (spool.offset, spool.punched) = (offset, 0);
                }
            }
        }
        Ok(())
    }
}

impl Spool {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file =
            File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        Ok(Self { path, file, offset: 0, punched: 0, looked_at: 0 })
    }

    fn size(&self) -> u64 {
        self.file.metadata().map_or(0, |found| found.len())
    }

    /// The next whole lines as log records, and the offset behind them; `None` when there is no whole line.
    fn next_lines(
        &self,
        writer: &str,
        stream: LogStream,
        now: Stamp,
        is_end: bool,
        tail: &mut VecDeque<String>,
    ) -> io::Result<Option<(String, u64)>> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = self.file.read_at(&mut chunk, self.offset)?;
        chunk.truncate(read);
        let (mut records, mut offset, mut rest) =
            (String::with_capacity(read + read / 2), self.offset, &chunk[..]);
        while !rest.is_empty() {
            let (line, taken) = match rest.iter().position(|byte| *byte == b'\n') {
                Some(end) if end <= LINE_BYTES_MAX => (&rest[..end], end + 1),
                None if rest.len() < LINE_BYTES_MAX && (!is_end || read == CHUNK_BYTES) => break,
                _ => {
                    let cut = cut_at(rest);
                    (&rest[..cut], cut)
                }
            };
            (offset, rest) = (offset + taken as u64, &rest[taken..]);
            let text = String::from_utf8_lossy(line);
            let text = text.trim_end_matches('\r').replace('\n', " ");
            Record { at: now, writer, stream, offset, text: Some(&text) }.write(&mut records);
            if tail.len() == LAST_LINES {
                tail.pop_front();
            }
            tail.push_back(text);
        }
        Ok((offset > self.offset).then_some((records, offset)))
    }

    /// Gives consumed space back; false when the file system cannot.
    fn give_back(&mut self) -> bool {
        if self.offset - self.punched < PUNCH_BYTES {
            return true;
        }
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        let is_done = fallocate(&self.file, hole, self.punched, self.offset - self.punched).is_ok();
        self.punched = self.offset;
        is_done
    }
}

/// Where an over-long line is cut: at most at the limit, and not within a character.
fn cut_at(line: &[u8]) -> usize {
    let most = line.len().min(LINE_BYTES_MAX);
    if most == line.len() {
        return most;
    }
    (most.saturating_sub(3)..=most).rev().find(|at| line[*at] & 0xC0 != 0x80).unwrap_or(most)
}

/// Position records of all open spools of a log, for the head of a file: what they had before may be in a file that is
/// removed.
fn positions(spools: &BTreeMap<(String, LogStream), Spool>, source: &LogSource, now: Stamp) -> String {
    let mut head = String::new();
    for ((writer, stream), spool) in
        spools.iter().filter(|((writer, _), _)| source_of(writer).as_ref() == Some(source))
    {
        Record { at: now, writer, stream: *stream, offset: spool.offset, text: None }.write(&mut head);
    }
    head
}

const fn suffix(stream: LogStream) -> &'static str {
    match stream {
        LogStream::Out => "out",
        LogStream::Err => "err",
    }
}

/// `orders-0.3.out` → writer and stream.
fn key_of(name: &str) -> Option<(String, LogStream)> {
    let (writer, end) = name.rsplit_once('.')?;
    let stream = match end {
        "out" => LogStream::Out,
        "err" => LogStream::Err,
        _ => return None,
    };
    source_of(writer).map(|_| (writer.to_owned(), stream))
}

#[cfg(test)]
#[path = "collect_tests.rs"]
mod tests;
