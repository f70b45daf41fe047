//! The client's journal: what was asked and what was answered, kept outside the system under test.
//!
//! Why judging from it is sound, whenever the writer may die:
//! - **An acknowledgement counts only when it is durable here.** The file is read back before it is judged; a line that did
//!   not reach the disk leaves its request "unknown", which claims less, never more.
//! - **No request is sent whose number is not durably reserved.** Numbers are reserved in blocks of [`RESERVE_BLOCK`], with
//!   an fsync *before* the first of them is sent. In a journal without its end line any reserved number is a possible cause
//!   of an effect; so a cut-off journal never turns a request that was sent into an "effect without cause", and no request
//!   waits for a disk.
//! - Intents and outcomes are committed in groups, about every [`GROUP_COMMIT`]. The `end` line holds their numbers, so that
//!   a file that lost lines in its middle is not judged at all.
//!
//! The format is JSON lines, version [`JOURNAL_VERSION`]; only the last line may be torn.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use standfast_model::{EffectSource, LoadName, StackName, Stamp};
use standfast_runtime::Disk;

use crate::outcome::Outcome;
use crate::target::Effect;

mod writer;

pub(crate) use writer::Writer;

/// The version of the format that is written. Readers refuse a higher one.
pub const JOURNAL_VERSION: u32 = 1;
/// Request numbers reserved at a time, for each load.
pub const RESERVE_BLOCK: u64 = 4_096;
/// From the first line of a group to its fsync.
pub const GROUP_COMMIT: Duration = Duration::from_millis(20);

/// What stands at the beginning of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// The format's version.
    pub version: u32,
    /// The run, which is part of each request's id.
    pub run: String,
    /// The stack.
    pub stack: StackName,
    /// The seed.
    pub seed: u64,
    /// When.
    pub at: Stamp,
    /// The loads; lines name them by their place here.
    pub loads: Vec<LoadName>,
    /// The sources of effects; lines name them by their place here.
    pub sources: Vec<EffectSource>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "line")]
enum Line {
    Begin(Begin),
    Reserve {
        below: u64,
    },
    Intend {
        load: usize,
        number: u64,
        id: String,
        due: Stamp,
    },
    Outcome {
        load: usize,
        number: u64,
        at: Stamp,
        outcome: Outcome,
    },
    /// A source was read, and this many effects of it follow.
    Effects {
        source: usize,
        count: u64,
    },
    Effect {
        source: usize,
        key: String,
        value: Value,
    },
    End {
        intents: u64,
        outcomes: u64,
        effects: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Value {
    Text(String),
    Bytes(Vec<u8>),
}

/// A journal that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The file could not be written; what is in it up to then is good.
    #[error("cannot write the journal {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Lines came faster than the disk took them, or the writer has ended.
    #[error("the journal {} failed: {reason}", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// The file could not be read.
    #[error("cannot read the journal {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line that is not the last cannot be understood.
    #[error("line {line} of the journal is damaged")]
    Damaged {
        /// Its number, from 1.
        line: usize,
        /// What the parser said.
        source: serde_json::Error,
    },
    /// The lines do not make a whole.
    #[error("the journal is not whole: {0}")]
    NotWhole(String),
    /// It was written by a newer version.
    #[error("the journal has version {0}, and this program reads up to {JOURNAL_VERSION}")]
    TooNew(u32),
}

/// A journal as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journal {
    /// Its beginning.
    pub begin: Begin,
    /// All requests that were intended, in order of when they were due.
    pub requests: Vec<Request>,
    /// The effects found at the end, by source; a source that was not read is not there.
    pub effects: BTreeMap<EffectSource, Vec<Effect>>,
    /// Request numbers below this may have been sent.
    pub reserved_below: u64,
    /// Whether it has its end line: without one, the writer died.
    pub is_complete: bool,
}

/// One request of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The index of its load.
    pub load: usize,
    /// Its number within the load.
    pub number: u64,
    /// Its id.
    pub id: String,
    /// When it was to be sent.
    pub due: Stamp,
    /// What became of it, and when; `None` when that was not written.
    pub outcome: Option<(Stamp, Outcome)>,
}

impl Request {
    /// Whether it was acknowledged.
    pub fn is_acknowledged(&self) -> bool {
        matches!(self.outcome, Some((_, Outcome::Acknowledged { .. })))
    }

    /// From when it was due to its end.
    pub fn latency(&self) -> Option<Duration> {
        self.outcome.as_ref().map(|(at, _)| at.since(self.due))
    }
}

impl Journal {
    /// Reads a journal's file.
    ///
    /// # Errors
    /// See [`JournalError`]: a damaged journal is not judged.
    pub fn read(disk: &dyn Disk, path: &Path) -> Result<Self, JournalError> {
        let bytes = disk.read(path).map_err(|source| JournalError::Read { path: path.to_owned(), source })?;
        Self::parse(&bytes)
    }

    /// Reads a journal's content.
    ///
    /// # Errors
    /// See [`JournalError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, JournalError> {
        // What follows the last line feed was torn off by the writer's death, or is nothing.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let mut lines =
            bytes[..whole].split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).enumerate();
        let parse = |(index, line): (usize, &[u8])| {
            serde_json::from_slice::<Line>(line)
                .map_err(|source| JournalError::Damaged { line: index + 1, source })
        };
        let begin = match lines.next().map(&parse).transpose()? {
            Some(Line::Begin(begin)) if begin.version > JOURNAL_VERSION => {
                return Err(JournalError::TooNew(begin.version));
            }
            Some(Line::Begin(begin)) => begin,
            _ => return Err(JournalError::NotWhole("it does not begin with a `begin` line".to_owned())),
        };
        let mut reader = Reader::default();
        for line in lines {
            reader.take(parse(line)?, &begin)?;
        }
        reader.finish(begin)
    }

    /// Whether a request with this id may have been sent.
    pub fn may_have_caused(&self, id: &str) -> bool {
        let number = |load: &LoadName| {
            id.strip_prefix(self.begin.run.as_str())?
                .strip_prefix('-')?
                .strip_prefix(load.as_str())?
                .strip_prefix('-')?
                .parse::<u64>()
                .ok()
        };
        self.begin.loads.iter().filter_map(number).any(|number| number < self.reserved_below)
    }
}

#[derive(Debug, Default)]
struct Reader {
    requests: BTreeMap<(usize, u64), Request>,
    effects: BTreeMap<EffectSource, Vec<Effect>>,
    reserved_below: u64,
    counts: [u64; 3],
    announced: BTreeMap<EffectSource, u64>,
    end: Option<[u64; 3]>,
    ids: BTreeSet<String>,
}

impl Reader {
    fn take(&mut self, line: Line, begin: &Begin) -> Result<(), JournalError> {
        let whole = |holds: bool, what: &str| {
            if holds { Ok(()) } else { Err(JournalError::NotWhole(what.to_owned())) }
        };
        whole(self.end.is_none(), "there are lines after its `end` line")?;
        match line {
            Line::Begin(_) => whole(false, "it begins twice")?,
            Line::Reserve { below } => self.reserved_below = self.reserved_below.max(below),
            Line::Intend { load, number, id, due } => {
                self.counts[0] += 1;
                whole(load < begin.loads.len(), "a request belongs to no load")?;
                whole(self.ids.insert(id.clone()), "an id is there twice")?;
                let request = Request { load, number, id, due, outcome: None };
                whole(self.requests.insert((load, number), request).is_none(), "a number is there twice")?;
            }
            Line::Outcome { load, number, at, outcome } => {
                self.counts[1] += 1;
                let request = self.requests.get_mut(&(load, number));
                let request = request.filter(|request| request.outcome.is_none());
                whole(request.is_some(), "an outcome belongs to no open request")?;
                if let Some(request) = request {
                    request.outcome = Some((at, outcome));
                }
            }
            Line::Effects { source, count } => {
                let name = begin.sources.get(source);
                whole(name.is_some(), "an effect belongs to no source")?;
                if let Some(name) = name {
                    whole(self.announced.insert(name.clone(), count).is_none(), "a source was read twice")?;
                    self.effects.entry(name.clone()).or_default();
                }
            }
            Line::Effect { source, key, value } => {
                self.counts[2] += 1;
                let name = begin.sources.get(source);
                whole(name.is_some(), "an effect belongs to no source")?;
                let value = match value {
                    Value::Text(text) => text.into_bytes(),
                    Value::Bytes(bytes) => bytes,
                };
                if let Some(name) = name {
                    self.effects.entry(name.clone()).or_default().push(Effect { key, value });
                }
            }
            Line::End { intents, outcomes, effects } => self.end = Some([intents, outcomes, effects]),
        }
        Ok(())
    }

    fn finish(self, begin: Begin) -> Result<Journal, JournalError> {
        if let Some(end) = self.end
            && end != self.counts
        {
            let text =
                format!("it tells of {end:?} intents, outcomes and effects, and has {:?}", self.counts);
            return Err(JournalError::NotWhole(text));
        }
        let mut requests: Vec<Request> = self.requests.into_values().collect();
        requests.sort_by_key(|request| (request.due, request.load, request.number));
        let is_complete = self.end.is_some();
        // Too few effects would look like lost ones.
        let mut effects = self.effects;
        let announced = self.announced;
        let has_all = |source: &EffectSource, effects: &Vec<Effect>| {
            announced.get(source).is_some_and(|count| *count == effects.len() as u64)
        };
        if is_complete && !effects.iter().all(|(source, effects)| has_all(source, effects)) {
            return Err(JournalError::NotWhole("a source has not as many effects as it tells of".to_owned()));
        }
        effects.retain(|source, effects| has_all(source, effects));
        Ok(Journal { begin, requests, effects, reserved_below: self.reserved_below, is_complete })
    }
}

#[cfg(test)]
mod tests;
