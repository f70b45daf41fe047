//! Where runs are kept: records in the order in which they were written, whatever run they are of, so that runs side by side fill the
//! same pages of the store; a snapshot of each run that sleeps; a summary of each that has ended.

mod kept;
mod recover;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use standfast_model::{Priority, Stamp};
use standfast_runtime::{Backoff, Clock, Rng};
use standfast_store::{
    BATCH_BYTES_MAX, Batch, CommitError, Health, Is, Page, ReadError, Scan, Space, Store, Version,
};

use super::human::{OpenTask, TaskRef};
use super::limited::{Begun, Limited};
use super::outbox::{Row, Sink};
use crate::program::WorkflowName;
use crate::run::{Again, Digest, Limits, Origin, Problem, Record, Run, RunId, Status, given};

/// By sequence: records.
const JOURNAL: Space = Space::Table("workflow-journal");
/// By run: what became of one that sleeps.
const SLEEPING: Space = Space::Table("workflow-sleeping");
/// By run: how one ended.
const ENDED: Space = Space::Table("workflow-ended");
/// By digest: documents.
const DEFINITIONS: Space = Space::Table("workflow-definitions");
/// By workflow and version: the digest of its document.
const NAMES: Space = Space::Table("workflow-names");
/// By workflow and key: which run a start made.
const STARTS: Space = Space::Table("workflow-starts");
/// By run: the run that goes on from it by a retry.
const RETRIED: Space = Space::Table("workflow-retried");
/// By run and scope: tasks that a person is to do.
const TASKS: Space = Space::Table("workflow-tasks");
/// Who drives runs, and how far back a recovery must read.
const OWNER: Space = Space::Table("workflow-owner");

/// By sequence and number: what records tell others and nobody has taken yet.
pub(super) const OUTBOX: Space = Space::Table("workflow-lifecycle");

const SINK_KEY: &[u8] = b"lifecycle-sink";
const OWNER_KEY: &[u8] = b"owner";
const MARK_KEY: &[u8] = b"mark";

/// Largest part of a value under one key of the store; what is larger is kept in several.
const PART_BYTES_MAX: usize = 768 << 10;
/// Most that one run may hold, in bytes of its snapshot: what a batch of the store can carry, with room for the rest.
pub const RUN_BYTES_MAX: usize = 3 << 20;
/// Bytes of a batch that are left for what the store adds to it.
const BATCH_REST: usize = 64 << 10;
/// How long what is known of a run that has ended is kept, unless told otherwise.
pub const KEPT_FOR: Duration = Duration::from_secs(7 * 86_400);
/// Records of one process have the upper bits of their sequence of their own. So no sequence is ever used again, though the last
/// records may be so old that they are not kept any more: a lower one would be taken for one that a recovery need not read.
const EPOCH_SHIFT: u32 = 40;
/// Between attempts to write or read while the store is busy or its disk full.
const RETRY: Backoff = Backoff { base: Duration::from_millis(20), cap: Duration::from_secs(1) };

/// The journal of all runs that this process drives.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    store: Arc<dyn Store>,
    clock: Clock,
    /// What every write asks for: that nobody else has taken over since.
    fence: Version,
    sequence: Arc<AtomicU64>,
    kept_for: Duration,
}

/// Runs cannot be written or read any more.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another process drives the runs of this store now.
    #[error("another process has taken over the runs of this store")]
    TakenOver,
    /// A run was started with this key before.
    #[error("a run was started with this key before")]
    StartedBefore,
    /// There is no room on the disk: nothing was written.
    #[error("the disk is full")]
    Full,
    /// The run holds too much.
    #[error("the run holds {found} bytes, at most {max} are allowed")]
    RunTooLarge {
        /// How much it holds.
        found: usize,
        /// How much it may.
        max: usize,
    },
    /// The store did not write.
    #[error("the journal cannot be written")]
    Commit(#[from] CommitError),
    /// The store did not read.
    #[error("the journal cannot be read")]
    Read(#[from] ReadError),
    /// What was read makes no sense.
    #[error("the journal holds what this release cannot read: {0}")]
    Unreadable(String),
}

/// What is written of a record.
#[derive(Debug, Serialize, Deserialize)]
struct Written {
    /// Of the format.
    v: u32,
    /// Where the record before of the same run is.
    before: Option<u64>,
    record: Record,
}

/// The format of what is written.
const FORMAT: u32 = 1;

/// A run that sleeps, as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Sleeper {
    v: u32,
    /// When it is due by itself.
    pub(super) due: Option<Stamp>,
    /// Whether it waits for events.
    pub(super) listens: bool,
    /// Of one for which there was no room.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) crowded: Option<Priority>,
    /// Where its last record is.
    pub(super) last: Option<u64>,
    pub(super) workflow: WorkflowName,
    pub(super) run: Run,
}

/// How a run ended, or where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Which.
    pub id: RunId,
    /// Of which workflow.
    pub workflow: WorkflowName,
    /// By which document.
    pub definition: Digest,
    /// Where it stands.
    pub status: Status,
    /// When it was started.
    #[serde(rename = "startedAt")]
    pub started_at: Stamp,
    /// When something last happened to it.
    #[serde(rename = "changedAt")]
    pub changed_at: Stamp,
    /// What it was given.
    pub input: Arc<Value>,
    /// From which run it goes on, if from one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Box<Origin>>,
    /// What it yielded.
    #[serde(default, deserialize_with = "given", skip_serializing_if = "Option::is_none")]
    pub output: Option<Arc<Value>>,
    /// What it failed by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// How runs may stand, for those who look for some.
pub const STATUS_WORDS: [&str; 8] =
    ["pending", "running", "waiting", "suspended", "parked", "cancelled", "faulted", "completed"];

impl Summary {
    /// How it stands, in one word of [`STATUS_WORDS`].
    pub const fn word(&self) -> &'static str {
        self.status.word()
    }

    pub(super) fn of(run: &Run, workflow: &WorkflowName) -> Self {
        Self {
            id: run.id,
            workflow: workflow.clone(),
            definition: run.definition.clone(),
            status: run.status,
            started_at: run.started_at,
            changed_at: run.changed_at,
            input: Arc::clone(&run.input),
            origin: run.origin.clone(),
            output: run.output.clone(),
            problem: run.problem.clone(),
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Ended {
    v: u32,
    last: Option<u64>,
    summary: Summary,
}

/// What is found when a store is taken over.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Runs that sleep.
    pub(super) sleeping: Vec<Sleeping>,
    /// Those of them that wait to be let in, or have a slot.
    pub(super) limited: BTreeMap<RunId, Limited>,
    /// Runs that began lately, by what limits how often.
    pub(super) begun: Vec<Begun>,
    /// Those of them that are parked.
    pub(super) parked: Vec<RunId>,
    /// Runs to which something happened since they were put to sleep, or that never were.
    pub(super) awake: Vec<Left>,
    /// Events of runs that may not have been given out yet.
    pub(super) emitted: Vec<Arc<Value>>,
}

/// A run that sleeps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sleeping {
    pub(super) id: RunId,
    /// When it is due.
    pub(super) due: Option<Stamp>,
    /// Whether it waits for events.
    pub(super) listens: bool,
    /// Of one for which there was no room.
    pub(super) crowded: Option<Priority>,
}

/// A run that went on when the process before ended.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) run: Run,
    /// Where the first of its records is that is not in a snapshot.
    pub(super) first: u64,
    /// Where its last record is.
    pub(super) last: u64,
    /// How many records its snapshot holds, if there is one.
    pub(super) kept: Option<u64>,
}

/// What goes into one write beside a record.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// The run sleeps from now on.
    pub(super) sleeper: Option<Sleeper>,
    /// There is a snapshot of it.
    pub(super) has_slept: bool,
    /// Tasks that a person is to do: opened, or open no more.
    pub(super) tasks: Vec<(TaskRef, Option<OpenTask>)>,
    /// What else is written.
    pub(super) change: Option<Change>,
    /// What it tells others, as it is kept until somebody has taken it.
    pub(super) told: Vec<Vec<u8>>,
    /// It begins now, and that counts for a while.
    pub(super) begun: Option<Begun>,
}

/// What is put where; nothing: it is removed.
#[derive(Debug, Clone)]
pub(super) struct Change {
    pub(super) space: &'static Space,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
}

impl Journal {
    /// Takes over the runs of a store: from now on nobody else can write them.
    pub(super) async fn take_over(
        store: Arc<dyn Store>,
        clock: Clock,
        kept_for: Duration,
    ) -> Result<Self, JournalError> {
        let epoch = match store.get(&OWNER, OWNER_KEY).await? {
            Some(entry) => String::from_utf8_lossy(&entry.value).parse::<u64>().unwrap_or(0) + 1,
            None => 1,
        };
        let fence = store.commit(Batch::new().put(&OWNER, OWNER_KEY, epoch.to_string())).await?.version;
        let last = store.scan(&Scan::of(JOURNAL, "").reverse().limit(1)).await?;
        let after = last.entries.first().map_or(0, |entry| sequence_of(&entry.key) + 1);
        let next = after.max(epoch << EPOCH_SHIFT);
        Ok(Self { store, clock, fence, sequence: Arc::new(AtomicU64::new(next)), kept_for })
    }

    /// Where all is kept.
    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Where the next record will be, or later.
    pub(super) fn next(&self) -> u64 {
        self.sequence.load(Ordering::SeqCst)
    }

    /// Writes a record and what belongs to it: done when this returns. Returns where it is, and whether the snapshot was written: when
    /// what is told leaves no room for one the next record has it.
    pub(super) async fn append(
        &self,
        run: &Run,
        workflow: &WorkflowName,
        record: Record,
        before: Option<u64>,
        beside: Beside,
    ) -> Result<(u64, bool), JournalError> {
        let at = self.sequence.fetch_add(1, Ordering::SeqCst);
        let kept_until = Some(record.at.plus(self.kept_for));
        let (is_first, is_last) = (record.number == 0, run.status.is_final());
        let written = json(&Written { v: FORMAT, before, record })?;
        let mut batch = Batch::new();
        for (key, part) in parts(&at.to_be_bytes(), written) {
            batch = batch.put_until(&JOURNAL, key, part, kept_until);
        }
        if is_last {
            let ended = Ended { v: FORMAT, last: Some(at), summary: Summary::of(run, workflow) };
            for (key, part) in parts(&run.id.to_bytes(), json(&ended)?) {
                batch = batch.put_until(&ENDED, key, part, kept_until);
            }
            if beside.has_slept {
                batch = batch.delete(&SLEEPING, run.id.to_bytes().to_vec());
            }
        }
        let origin = run.origin.as_ref().filter(|origin| origin.by == Again::Retry);
        let retries = origin.map(|origin| origin.run);
        if let Some(retried) = retries.filter(|_| is_first) {
            // It goes after the run that was retried.
            batch = batch.when(&RETRIED, retried.to_bytes().to_vec(), Is::Absent).put_until(
                &RETRIED,
                retried.to_bytes().to_vec(),
                run.id.to_bytes().to_vec(),
                kept_until,
            );
        }
        if let Some(key) = &run.key {
            let key = key.as_bytes().to_vec();
            if is_first {
                let is = match &retries {
                    Some(retried) => self.named(&key, *retried).await?,
                    None => Is::Absent,
                };
                batch = batch.when(&STARTS, key.clone(), is);
            }
            // As long as it goes on there is no second run by this key, however long that is.
            if is_first || is_last {
                let until = kept_until.filter(|_| is_last);
                batch = batch.put_until(&STARTS, key, run.id.to_bytes().to_vec(), until);
            }
        }
        for (id, task) in beside.tasks {
            batch = match task {
                Some(task) => batch.put(&TASKS, id.to_bytes(), json(&task)?),
                None => batch.delete(&TASKS, id.to_bytes()),
            };
        }
        batch = match beside.change {
            Some(Change { space, key, value: Some(value) }) => batch.put(space, key, value),
            Some(Change { space, key, value: None }) => batch.delete(space, key),
            None => batch,
        };
        let told: usize = beside.told.iter().map(Vec::len).sum();
        for (number, row) in (0_u32..).zip(beside.told) {
            batch = batch.put_until(&OUTBOX, part_key(&at.to_be_bytes(), number), row, kept_until);
        }
        if let Some(begun) = beside.begun {
            batch = begun.put(batch, run.id);
        }
        let mut is_kept = false;
        if let Some(mut sleeper) = beside.sleeper {
            sleeper.last = Some(at);
            let whole = put_sleeper(batch.clone(), &sleeper)?;
            is_kept = told == 0 || whole.bytes() + BATCH_REST < BATCH_BYTES_MAX;
            batch = if is_kept { whole } else { batch };
        }
        // What goes on waits for room; what would begin is refused, and its caller may go elsewhere.
        if is_first {
            self.try_commit_with(batch, told).await?;
        } else {
            self.commit_with(batch, told).await?;
        }
        Ok((at, is_kept))
    }

    /// Keeps what became of a run, so that it need not be in memory.
    pub(super) async fn put_to_sleep(&self, sleeper: &Sleeper) -> Result<(), JournalError> {
        self.commit(put_sleeper(Batch::new(), sleeper)?).await
    }

    /// Whether this process is still the one that writes.
    pub(super) async fn check(&self) -> Result<(), JournalError> {
        match self.try_commit(Batch::new()).await {
            // It was refused with others that would write.
            Err(JournalError::Full) => match self.store.get(&OWNER, OWNER_KEY).await {
                Ok(Some(owner)) if owner.version == self.fence => Ok(()),
                Ok(_) => Err(JournalError::TakenOver),
                Err(why) => Err(why.into()),
            },
            other => other,
        }
    }

    /// Waits until the store has been without room for so long; for ever if that does not happen. Cancel safe.
    pub(super) async fn is_full_for(&self, length: Duration) {
        let mut health = self.store.health();
        while health.wait_for(|health| *health == Health::Full).await.is_ok() {
            let has_room = health.wait_for(|health| *health != Health::Full);
            if self.clock.timeout(length, has_room).await.is_err() {
                return;
            }
        }
        std::future::pending().await
    }

    /// A run that sleeps; `None` when it does not.
    pub(super) async fn sleeper(&self, id: RunId) -> Result<Option<Sleeper>, JournalError> {
        match self.get(&SLEEPING, &id.to_bytes()).await? {
            Some(bytes) => Ok(Some(read(&bytes)?)),
            None => Ok(None),
        }
    }

    /// What must be true of a key for it to pass from one run to the one that retries it.
    async fn named(&self, key: &[u8], run: RunId) -> Result<Is, JournalError> {
        let entry = self.store.get(&STARTS, key).await?;
        Ok(match entry {
            Some(entry) if entry.value[..] == run.to_bytes() => Is::Version(entry.version),
            _ => Is::Absent,
        })
    }

    /// Notes that no run needs records from before `sequence` to be known.
    pub(super) async fn mark(&self, sequence: u64) -> Result<(), JournalError> {
        self.commit(Batch::new().put(&OWNER, MARK_KEY, sequence.to_be_bytes().to_vec())).await
    }

    async fn get(&self, space: &Space, key: &[u8]) -> Result<Option<Vec<u8>>, JournalError> {
        let mut failures = 0;
        let entry = loop {
            match self.store.get(space, key).await {
                Ok(entry) => break entry,
                Err(ReadError::Busy) => self.pause(&mut failures).await,
                Err(other) => return Err(other.into()),
            }
        };
        let Some(entry) = entry else { return Ok(None) };
        if entry.value.len() != PART_BYTES_MAX {
            return Ok(Some(entry.value.to_vec()));
        }
        // All parts are of one moment: another value may be written meanwhile.
        let page = self.scan(&Scan::of(space.clone(), key.to_vec())).await?;
        let mut bytes = Vec::new();
        for (part, entry) in (0_u32..).zip(&page.entries) {
            let expected = if part == 0 { key.to_vec() } else { part_key(key, part) };
            if entry.key != expected || bytes.len() != PART_BYTES_MAX * part as usize {
                break; // what is left of a longer value
            }
            bytes.extend_from_slice(&entry.value);
        }
        Ok(Some(bytes))
    }

    /// A page of a scan. Waits as long as the store is too busy to read: what is not read now would not be driven on.
    pub(super) async fn scan(&self, scan: &Scan) -> Result<Page, JournalError> {
        let mut failures = 0;
        loop {
            match self.store.scan(scan).await {
                Ok(page) => return Ok(page),
                Err(ReadError::Busy) => self.pause(&mut failures).await,
                Err(other) => return Err(other.into()),
            }
        }
    }

    async fn pause(&self, failures: &mut u32) {
        let mut rng = Rng::seeded(self.next() ^ self.clock.now().as_micros());
        self.clock.sleep(RETRY.wait(*failures, &mut rng)).await;
        *failures += 1;
    }

    /// Writes, and waits as long as the store cannot: nothing goes on that is not written.
    pub(super) async fn commit(&self, batch: Batch) -> Result<(), JournalError> {
        self.commit_with(batch, 0).await
    }

    /// The same, of which so many bytes are not the run's.
    async fn commit_with(&self, batch: Batch, others: usize) -> Result<(), JournalError> {
        let mut failures = 0;
        loop {
            match self.try_commit_with(batch.clone(), others).await {
                Err(JournalError::Full) => self.pause(&mut failures).await,
                other => return other,
            }
        }
    }

    /// Writes if there is room.
    pub(super) async fn try_commit(&self, batch: Batch) -> Result<(), JournalError> {
        self.try_commit_with(batch, 0).await
    }

    async fn try_commit_with(&self, batch: Batch, others: usize) -> Result<(), JournalError> {
        let bytes = batch.bytes().saturating_sub(others);
        if bytes > RUN_BYTES_MAX + (512 << 10) {
            return Err(JournalError::RunTooLarge { found: bytes, max: RUN_BYTES_MAX });
        }
        let fenced = batch.when(&OWNER, OWNER_KEY, Is::Version(self.fence));
        let fence_at = fenced.conditions.len() - 1;
        let mut failures = 0;
        loop {
            match self.store.commit(fenced.clone()).await {
                Ok(_) => return Ok(()),
                Err(CommitError::Busy) => self.pause(&mut failures).await,
                Err(CommitError::Full) => return Err(JournalError::Full),
                Err(CommitError::Conditions { failed }) if failed.iter().any(|it| it.index == fence_at) => {
                    return Err(JournalError::TakenOver);
                }
                Err(CommitError::Conditions { .. }) => return Err(JournalError::StartedBefore),
                Err(CommitError::TooLarge(_)) => {
                    return Err(JournalError::RunTooLarge { found: bytes, max: RUN_BYTES_MAX });
                }
                Err(other) => return Err(other.into()),
            }
        }
    }
}

impl Sleeper {
    pub(super) fn of(
        run: &Run,
        workflow: &WorkflowName,
        last: Option<u64>,
        listens: bool,
        due: Option<Stamp>,
    ) -> Self {
        let (workflow, run) = (workflow.clone(), run.clone());
        Self { v: FORMAT, due, listens, crowded: None, last, workflow, run }
    }

    /// The same run, for which there was no room.
    pub(super) fn crowded(self, priority: Option<Priority>) -> Self {
        Self { crowded: priority, ..self }
    }
}

/// What is known of a sleeper without reading all of it: 1,000,000 of them are looked at when a process begins.
#[derive(Debug, Clone, Copy)]
struct Head {
    due: Option<Stamp>,
    listens: bool,
    is_parked: bool,
    crowded: Option<Priority>,
    is_limited: bool,
    records: u64,
}

/// Bytes before a sleeper's own: 1 of format, 1 of flags, 8 when it is due, 8 how many records it has.
const HEAD_BYTES: usize = 18;
/// It waits for events.
const LISTENS: u8 = 1;
/// It is parked.
const PARKED: u8 = 2;
/// There was no room for it, and its priority is normal; that or another one stands in these bits.
const CROWDED: u8 = 4;
const CROWDED_HIGH: u8 = 8;
const CROWDED_LOW: u8 = 16;
/// It waits to be let in, has a slot, or takes turns with others: how, it says itself.
const LIMITED: u8 = 32;

impl Head {
    fn read(bytes: &[u8]) -> Result<Self, JournalError> {
        let bad = || JournalError::Unreadable("a run that sleeps".to_owned());
        let (head, _) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or_else(bad)?;
        if u32::from(head[0]) != FORMAT {
            return Err(JournalError::Unreadable(format!("format {} of runs that sleep", head[0])));
        }
        let number = |from: usize| sequence_of(&head[from..from + 8]);
        let due = Some(number(2)).filter(|due| *due != u64::MAX).map(Stamp::from_micros);
        let (listens, is_parked) = (head[1] & LISTENS != 0, head[1] & PARKED != 0);
        let crowded = match head[1] & (CROWDED | CROWDED_HIGH | CROWDED_LOW) {
            CROWDED => Some(Priority::Normal),
            CROWDED_HIGH => Some(Priority::High),
            CROWDED_LOW => Some(Priority::Low),
            _ => None,
        };
        let is_limited = head[1] & LIMITED != 0;
        Ok(Self { due, listens, is_parked, crowded, is_limited, records: number(10) })
    }
}

fn put_sleeper(batch: Batch, sleeper: &Sleeper) -> Result<Batch, JournalError> {
    let mut bytes = Vec::with_capacity(1_024);
    bytes.push(FORMAT as u8);
    let is_parked = sleeper.run.parked.is_some();
    let crowded = match sleeper.crowded {
        None => 0,
        Some(Priority::Low) => CROWDED_LOW,
        Some(Priority::Normal) => CROWDED,
        Some(Priority::High) => CROWDED_HIGH,
    };
    let limits = sleeper.run.limits.as_deref();
    let counts =
        |limits: &Limits| limits.slot.is_some() || sleeper.run.is_queued() || sleeper.crowded.is_some();
    let limited = if limits.is_some_and(counts) { LIMITED } else { 0 };
    let flags = if sleeper.listens { LISTENS } else { 0 } | if is_parked { PARKED } else { 0 };
    bytes.push(flags | crowded | limited);
    bytes.extend_from_slice(&sleeper.due.map_or(u64::MAX, Stamp::as_micros).to_be_bytes());
    bytes.extend_from_slice(&sleeper.run.records.to_be_bytes());
    serde_json::to_writer(&mut bytes, sleeper).map_err(|why| JournalError::Unreadable(why.to_string()))?;
    if bytes.len() > RUN_BYTES_MAX {
        return Err(JournalError::RunTooLarge { found: bytes.len(), max: RUN_BYTES_MAX });
    }
    let parts = parts(&sleeper.run.id.to_bytes(), bytes);
    Ok(parts.into_iter().fold(batch, |batch, (key, part)| batch.put(&SLEEPING, key, part)))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, JournalError> {
    serde_json::to_vec(value).map_err(|why| JournalError::Unreadable(why.to_string()))
}

fn read<T: for<'de> Deserialize<'de> + Kept>(bytes: &[u8]) -> Result<T, JournalError> {
    let body = bytes.get(T::HEAD_BYTES..).unwrap_or_default();
    serde_json::from_slice(body).map_err(|why| JournalError::Unreadable(format!("{}: {why}", T::WHAT)))
}

/// What is kept.
trait Kept {
    const WHAT: &'static str;
    const HEAD_BYTES: usize = 0;
}

impl Kept for Written {
    const WHAT: &'static str = "a record";
}

impl Kept for Row {
    const WHAT: &'static str = "what a record tells";
}

impl Kept for Ended {
    const WHAT: &'static str = "how a run ended";
}

impl Kept for OpenTask {
    const WHAT: &'static str = "a task that a person is to do";
}

impl Kept for Sleeper {
    const WHAT: &'static str = "a run that sleeps";
    const HEAD_BYTES: usize = HEAD_BYTES;
}

/// What is too large for one key, in parts: the first has the key itself.
fn parts(key: &[u8], bytes: Vec<u8>) -> Vec<(Vec<u8>, Vec<u8>)> {
    if bytes.len() < PART_BYTES_MAX {
        return vec![(key.to_vec(), bytes)];
    }
    let chunks = bytes.chunks(PART_BYTES_MAX).enumerate();
    let mut all: Vec<(Vec<u8>, Vec<u8>)> = chunks
        .map(|(part, chunk)| match part {
            0 => (key.to_vec(), chunk.to_vec()),
            part => (part_key(key, part as u32), chunk.to_vec()),
        })
        .collect();
    if bytes.len().is_multiple_of(PART_BYTES_MAX) {
        // A full last part would be taken for one that has a successor.
        all.push((part_key(key, all.len() as u32), Vec::new()));
    }
    all
}

fn before_version(name: &WorkflowName) -> String {
    format!("{}/{}/", name.namespace, name.name)
}

fn part_key(key: &[u8], part: u32) -> Vec<u8> {
    [key, &part.to_be_bytes()].concat()
}

pub(super) fn sequence_of(key: &[u8]) -> u64 {
    key.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}
