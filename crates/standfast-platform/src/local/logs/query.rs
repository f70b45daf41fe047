//! Reading a log.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::file::LogName;
use super::record::Record;
use crate::local::api::{LOG_LINES_MAX, LogCursor, LogLine, LogPage, LogQuery};

/// Answers from the files alone, beside the collector.
pub(crate) fn answer(logs: &Path, query: &LogQuery) -> io::Result<LogPage> {
    let files = LogName::of(logs, &query.source).files();
    let limit = query.limit.clamp(1, LOG_LINES_MAX);
    if query.after.is_some() || query.since.is_some() {
        return onwards(&files, query, limit);
    }
    // The last lines: as many files from the newest back as it takes.
    let mut page = LogPage { lines: Vec::new(), next: LogCursor { file: 1, offset: 0 } };
    for first in (0..files.len()).rev() {
        page = last_of(&files[first..], limit)?;
        if page.lines.len() >= limit {
            break;
        }
    }
    Ok(page)
}

fn onwards(files: &[(u64, PathBuf)], query: &LogQuery, limit: usize) -> io::Result<LogPage> {
    let mut next =
        query.after.unwrap_or(LogCursor { file: files.first().map_or(1, |(number, _)| *number), offset: 0 });
    let mut lines = Vec::new();
    let first = next.file;
    for (number, path) in files.iter().filter(|(number, _)| *number >= first) {
        let from = if *number == next.file { next.offset } else { 0 };
        let offset = read_lines(path, from, |line| {
            if query.since.is_none_or(|since| line.at >= since) {
                lines.push(line);
            }
            lines.len() < limit
        })?;
        next = LogCursor { file: *number, offset };
        if lines.len() >= limit {
            break;
        }
    }
    Ok(LogPage { lines, next })
}

fn last_of(files: &[(u64, PathBuf)], limit: usize) -> io::Result<LogPage> {
    let (mut lines, mut next) = (VecDeque::new(), LogCursor { file: 1, offset: 0 });
    for (number, path) in files {
        let offset = read_lines(path, 0, |line| {
            if lines.len() == limit {
                lines.pop_front();
            }
            lines.push_back(line);
            true
        })?;
        next = LogCursor { file: *number, offset };
    }
    Ok(LogPage { lines: lines.into(), next })
}

/// Gives the lines from `offset` on until `take` says enough; returns where it stopped. A line that is still being
/// written is left.
fn read_lines(path: &Path, offset: u64, mut take: impl FnMut(LogLine) -> bool) -> io::Result<u64> {
    let mut file = match File::open(path) {
        // Removed since the folder was read: what was in it is gone, what follows is not.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(offset),
        opened => opened?,
    };
    let mut at = file.seek(SeekFrom::Start(offset))?;
    let mut reader = BufReader::with_capacity(64 << 10, file);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        let read = reader.read_until(b'\n', &mut bytes)?;
        let Some(line) = bytes.strip_suffix(b"\n") else { return Ok(at) };
        at += read as u64;
        let text = String::from_utf8_lossy(line);
        let goes_on = Record::read(&text).and_then(|record| record.line()).is_none_or(&mut take);
        if !goes_on {
            return Ok(at);
        }
    }
}

/// The last position that a log's newest files give for each spool; `take` sees every record of one file after the
/// other, newest file first, and says whether an older file is needed.
pub(crate) fn newest_first(
    name: &LogName,
    mut take: impl FnMut(&Record<'_>),
    is_enough: impl Fn() -> bool,
) -> io::Result<()> {
    for (_, path) in name.files().iter().rev() {
        let mut reader = BufReader::with_capacity(64 << 10, File::open(path)?);
        let mut bytes = Vec::new();
        while reader.read_until(b'\n', &mut bytes)? > 0 {
            let text = String::from_utf8_lossy(bytes.strip_suffix(b"\n").unwrap_or(&bytes));
            if let Some(record) = Record::read(&text) {
                take(&record);
            }
            bytes.clear();
        }
        if is_enough() {
            break;
        }
    }
    Ok(())
}
