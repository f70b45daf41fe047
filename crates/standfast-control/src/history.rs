//! What was decided, in the store: the target, blueprints, stacks and events.
//!
//! A blueprint becomes the target in one batch that holds only while its parent still is: this takes the place of electing a
//! leader. Rows besides the target are written once and are removed when they are old.

use std::sync::Arc;

use bytes::Bytes;
use standfast_model::{Generation, Stack};
use standfast_store::{Batch, CommitError, Is, ReadError, Scan, Store, Version};
use tokio::sync::watch;

use crate::blueprint::Blueprint;
use crate::config::{EVENT_STEPS_MAX, HISTORY_MAX};
use crate::error::HistoryError;
use crate::plan::Report;
use crate::policy::StackDigest;
use crate::tables::{
    CHUNK_BYTES_MAX, Event, FORMAT, StackName, StackRow, TARGET, TargetRow, blueprint_key, event_key,
    generation_of, space, stack_key,
};

/// What one batch writes at most besides the target: below the store's limit, and well within one transaction.
const BATCH_BYTES: usize = 3 << 20;
/// Old rows are looked for whenever so many blueprints have come.
const FORGET_EVERY: u64 = 16;
/// Old rows of a kind that one look removes at most.
const FORGET_MAX: usize = 250;

/// The control's rows in a store. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct History {
    store: Arc<dyn Store>,
}

/// The target as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) version: Version,
    pub(crate) row: TargetRow,
}

/// A blueprint that is to become the target.
#[derive(Debug)]
pub(crate) struct Proposal<'a> {
    /// What was read; `None` when there was no target.
    pub(crate) before: Option<&'a Target>,
    pub(crate) blueprint: &'a Blueprint,
    pub(crate) report: &'a Report,
    /// The stack that comes with it.
    pub(crate) new_stack: Option<&'a Stack>,
}

impl History {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Wakes when the target changed.
    pub(crate) fn changes(&self) -> watch::Receiver<Version> {
        self.store.watch(&space(), TARGET)
    }

    pub(crate) async fn target(&self) -> Result<Option<Target>, HistoryError> {
        let Some(entry) = self.store.get(&space(), TARGET).await.map_err(HistoryError::Read)? else {
            return Ok(None);
        };
        check_format(&entry.value, "target")?;
        let row = parse(&entry.value, "target")?;
        Ok(Some(Target { version: entry.version, row }))
    }

    pub(crate) async fn blueprint(&self, row: &TargetRow) -> Result<Blueprint, HistoryError> {
        let key = |chunk| blueprint_key(row.generation, &row.blueprint, chunk);
        let json = self.join(row.blueprint_chunks, key, "the target").await?;
        Ok(Blueprint::from_json(&json)?)
    }

    pub(crate) async fn stack(&self, name: &StackName) -> Result<StackRow, HistoryError> {
        let json = self.join(name.chunks, |chunk| stack_key(name, chunk), "the target").await?;
        check_format(&json, "stack")?;
        parse(&json, "stack")
    }

    /// Makes a blueprint the target if its parent still is; `None` when another was faster.
    ///
    /// # Cancellation
    /// Not cancel safe: dropped midway, it may have been done or not. The target tells.
    pub(crate) async fn commit(&self, proposal: &Proposal<'_>) -> Result<Option<Target>, HistoryError> {
        let blueprint = proposal.blueprint;
        let damaged = |source| HistoryError::Damaged { what: "new blueprint".into(), source };
        let chunks = cut(&blueprint.to_json().map_err(damaged)?);
        let mut writes: Vec<(Bytes, Bytes)> = Vec::new();
        let key = |chunk| blueprint_key(blueprint.generation, &blueprint.id, chunk);
        let blueprint_chunks = chunks.len();
        writes.extend(chunks.into_iter().enumerate().map(|(index, chunk)| (key(index), chunk)));
        let stack = self.stack_rows(proposal, &mut writes)?;
        let event = serde_json::to_vec(&event_of(proposal)).map_err(damaged)?;
        writes.push((event_key(blueprint.generation), event.into()));
        let row = TargetRow {
            format: FORMAT,
            generation: blueprint.generation,
            blueprint: blueprint.id.clone(),
            blueprint_chunks,
            stack,
        };
        let is = proposal.before.map_or(Is::Absent, |target| Is::Version(target.version));
        let json = serde_json::to_vec(&row).map_err(damaged)?;
        let last = self.write_ahead(writes).await?.when(&space(), TARGET, is).put(&space(), TARGET, json);
        match self.store.commit(last).await {
            Ok(done) => {
                let target = Target { version: done.version, row };
                self.forget_old(&target).await;
                Ok(Some(target))
            }
            Err(CommitError::Conditions { .. }) => Ok(None),
            Err(error) => Err(HistoryError::Commit(error)),
        }
    }

    /// The latest events, the newest first.
    pub(crate) async fn events(&self, limit: usize) -> Result<Vec<Event>, HistoryError> {
        let scan = Scan::of(space(), "event/").reverse().limit(limit);
        let page = self.store.scan(&scan).await.map_err(HistoryError::Read)?;
        page.entries.iter().map(|entry| parse(&entry.value, "event")).collect()
    }

    /// The stack that the blueprint of a generation brought; `None` when it brought none, or it is too long ago.
    pub(crate) async fn stack_of(&self, generation: Generation) -> Result<Option<Stack>, HistoryError> {
        let prefix = format!("stack/{:020}/", generation.0);
        let page = self.store.scan(&Scan::of(space(), prefix)).await.map_err(HistoryError::Read)?;
        let json: Vec<u8> = page.entries.iter().flat_map(|entry| entry.value.iter().copied()).collect();
        if json.is_empty() {
            return Ok(None);
        }
        check_format(&json, "stack")?;
        parse::<StackRow>(&json, "stack").map(|row| Some(row.stack))
    }

    /// Adds the rows of a new stack, and says where the stack is.
    fn stack_rows(
        &self,
        proposal: &Proposal<'_>,
        writes: &mut Vec<(Bytes, Bytes)>,
    ) -> Result<Option<StackName>, HistoryError> {
        let blueprint = proposal.blueprint;
        let Some(digest) = &blueprint.stack else { return Ok(None) };
        let Some(stack) = proposal.new_stack else {
            return Ok(proposal.before.and_then(|b| b.row.stack.clone()));
        };
        let row = StackRow {
            format: FORMAT,
            author: blueprint.author.clone(),
            reason: blueprint.reason.clone(),
            at: blueprint.created_at,
            stack: stack.clone(),
        };
        let json = serde_json::to_vec(&row)
            .map_err(|source| HistoryError::Damaged { what: "new stack".into(), source })?;
        let chunks = cut(&json);
        let name = StackName {
            generation: blueprint.generation,
            digest: StackDigest::clone(digest),
            chunks: chunks.len(),
        };
        writes.extend(chunks.into_iter().enumerate().map(|(index, chunk)| (stack_key(&name, index), chunk)));
        Ok(Some(name))
    }

    /// Writes what does not fit into one batch before it: nothing names those rows until the target does. What fits is returned.
    async fn write_ahead(&self, writes: Vec<(Bytes, Bytes)>) -> Result<Batch, HistoryError> {
        let mut batch = Batch::new();
        for (key, value) in writes {
            if batch.bytes() + key.len() + value.len() > BATCH_BYTES {
                self.store.commit(std::mem::take(&mut batch)).await.map_err(HistoryError::Commit)?;
            }
            batch = batch.put(&space(), key, value);
        }
        Ok(batch)
    }

    async fn join(
        &self,
        chunks: usize,
        key: impl Fn(usize) -> Bytes,
        named_by: &'static str,
    ) -> Result<Vec<u8>, HistoryError> {
        let mut json = Vec::new();
        for chunk in 0..chunks {
            let key = key(chunk);
            let entry = self.store.get(&space(), &key).await.map_err(HistoryError::Read)?;
            let entry = entry.ok_or_else(|| {
                let what = format!("row `{}`", String::from_utf8_lossy(&key));
                HistoryError::Missing { what, named_by }
            })?;
            json.extend_from_slice(&entry.value);
        }
        Ok(json)
    }

    /// Removes rows older than the last [`HISTORY_MAX`] blueprints, a bounded number at a time. Failing is harmless: the next
    /// look finds them again.
    async fn forget_old(&self, target: &Target) {
        if !target.row.generation.0.is_multiple_of(FORGET_EVERY) {
            return;
        }
        for kind in ["blueprint/", "stack/", "event/"] {
            if let Err(error) = self.forget_old_of(kind, target).await {
                tracing::warn!(kind, error = &error as &dyn std::error::Error, "old rows were not removed");
            }
        }
    }

    async fn forget_old_of(&self, kind: &'static str, target: &Target) -> Result<(), HistoryError> {
        let oldest = target.row.generation.0.saturating_sub(HISTORY_MAX);
        let in_use = target.row.stack.as_ref().map(|stack| stack.generation);
        let read = |error: ReadError| HistoryError::Read(error);
        let page = self.store.scan(&Scan::of(space(), kind).limit(FORGET_MAX)).await.map_err(read)?;
        let is_old = |key: &[u8]| {
            generation_of(key).is_some_and(|generation| {
                generation.0 <= oldest && (kind != "stack/" || in_use != Some(generation))
            })
        };
        let old = page.entries.iter().filter(|entry| is_old(&entry.key));
        let batch = old.fold(Batch::new(), |batch, entry| batch.delete(&space(), entry.key.clone()));
        if !batch.writes.is_empty() {
            self.store.commit(batch).await.map_err(HistoryError::Commit)?;
        }
        Ok(())
    }
}

fn event_of(proposal: &Proposal<'_>) -> Event {
    let (blueprint, report) = (proposal.blueprint, proposal.report);
    Event {
        format: FORMAT,
        generation: blueprint.generation,
        blueprint: blueprint.id.clone(),
        at: blueprint.created_at,
        author: blueprint.author.clone(),
        reason: blueprint.reason.clone(),
        stack: blueprint.stack.clone(),
        is_new_stack: proposal.new_stack.is_some(),
        steps: report.steps.iter().take(EVENT_STEPS_MAX).cloned().collect(),
        steps_total: report.steps.len(),
        waiting: report.waiting.iter().take(EVENT_STEPS_MAX).cloned().collect(),
    }
}

fn cut(json: &[u8]) -> Vec<Bytes> {
    json.chunks(CHUNK_BYTES_MAX).map(Bytes::copy_from_slice).collect()
}

fn check_format(json: &[u8], what: &str) -> Result<(), HistoryError> {
    #[derive(serde::Deserialize)]
    struct Head {
        format: u32,
    }
    let head: Head = parse(json, what)?;
    if head.format == FORMAT {
        return Ok(());
    }
    Err(HistoryError::Format { what: what.into(), found: head.format, supported: FORMAT })
}

fn parse<T: serde::de::DeserializeOwned>(json: &[u8], what: &str) -> Result<T, HistoryError> {
    serde_json::from_slice(json).map_err(|source| HistoryError::Damaged { what: what.into(), source })
}
