//! What is kept beside the records: who ended, what is open, what is told, documents.

use super::*;

impl Journal {
    /// What waits for the sink, from the first on, as much as a page of the store holds; or the last alone.
    pub(in crate::engine) async fn outbox(&self, is_last: bool) -> Result<Vec<(Vec<u8>, Row)>, JournalError> {
        let scan = match is_last {
            true => Scan::of(OUTBOX, "").reverse().limit(1),
            false => Scan::of(OUTBOX, ""),
        };
        let page = self.scan(&scan).await?;
        let row = |bytes: &[u8]| read::<Row>(bytes)?.readable();
        page.entries.iter().map(|entry| Ok((entry.key.to_vec(), row(&entry.value)?))).collect()
    }

    /// Where lifecycle events are sent.
    pub(in crate::engine) async fn sink(&self) -> Result<Option<Sink>, JournalError> {
        let Some(bytes) = self.get(&OWNER, SINK_KEY).await? else { return Ok(None) };
        serde_json::from_slice(&bytes).map_err(|why| JournalError::Unreadable(format!("the sink: {why}")))
    }

    pub(in crate::engine) async fn put_sink(&self, sink: Option<&Sink>) -> Result<(), JournalError> {
        self.commit(match sink {
            Some(sink) => Batch::new().put(&OWNER, SINK_KEY, json(sink)?),
            None => Batch::new().delete(&OWNER, SINK_KEY),
        })
        .await
    }

    /// How a run ended, and where its last record is.
    pub(in crate::engine) async fn ended(
        &self,
        id: RunId,
    ) -> Result<Option<(Summary, Option<u64>)>, JournalError> {
        let Some(bytes) = self.get(&ENDED, &id.to_bytes()).await? else { return Ok(None) };
        let ended: Ended = read(&bytes)?;
        Ok(Some((ended.summary, ended.last)))
    }

    /// The records of a run, from its first to the one that is there.
    pub(in crate::engine) async fn history(&self, last: Option<u64>) -> Result<Vec<Record>, JournalError> {
        let (mut records, mut next) = (Vec::new(), last);
        while let Some(at) = next {
            let Some(bytes) = self.get(&JOURNAL, &at.to_be_bytes()).await? else { break };
            let written: Written = read(&bytes)?;
            records.push(written.record);
            next = written.before;
        }
        records.reverse();
        Ok(records)
    }

    /// Runs that have ended, the latest first, after `after`.
    pub(in crate::engine) async fn ended_before(
        &self,
        after: Option<RunId>,
        limit: usize,
    ) -> Result<Vec<Summary>, JournalError> {
        let mut scan = Scan::of(ENDED, "").reverse().limit(limit);
        if let Some(after) = after {
            scan = scan.after(after.to_bytes().to_vec());
        }
        let mut found = Vec::new();
        loop {
            let page = self.scan(&scan).await?;
            for entry in page.entries {
                // Parts of what is kept in several follow their first.
                if let Ok(bytes) = <[u8; 16]>::try_from(&entry.key[..])
                    && found.len() < limit
                {
                    let id = RunId::from_bytes(bytes);
                    match entry.value.len() {
                        // In several parts, which sort behind it.
                        PART_BYTES_MAX => found.extend(self.ended(id).await?.map(|(summary, _)| summary)),
                        _ => found.push(read::<Ended>(&entry.value)?.summary),
                    }
                }
            }
            match page.next {
                Some(next) if found.len() < limit => scan = scan.after(next),
                _ => return Ok(found),
            }
        }
    }

    /// Some of the tasks that people are to do, and whether there are no more.
    pub(in crate::engine) async fn open_tasks(
        &self,
        after: Option<TaskRef>,
    ) -> Result<(Vec<OpenTask>, bool), JournalError> {
        let mut scan = Scan::of(TASKS, "");
        if let Some(after) = after {
            scan = scan.after(after.to_bytes());
        }
        let page = self.scan(&scan).await?;
        let tasks = page.entries.iter().map(|entry| read(&entry.value)).collect::<Result<_, _>>()?;
        Ok((tasks, page.next.is_none()))
    }

    /// A task that a person is to do.
    pub(in crate::engine) async fn open_task(&self, id: TaskRef) -> Result<Option<OpenTask>, JournalError> {
        self.get(&TASKS, &id.to_bytes()).await?.map(|value| read(&value)).transpose()
    }

    /// Which run retries this one.
    pub(in crate::engine) async fn retried_by(&self, id: RunId) -> Result<Option<RunId>, JournalError> {
        let entry = self.get(&RETRIED, &id.to_bytes()).await?;
        Ok(entry.and_then(|value| Some(RunId::from_bytes(<[u8; 16]>::try_from(&value[..]).ok()?))))
    }

    /// Which run a start with this key made.
    pub(in crate::engine) async fn started_by(&self, key: &str) -> Result<Option<RunId>, JournalError> {
        let entry = self.get(&STARTS, key.as_bytes()).await?;
        Ok(entry.and_then(|value| Some(RunId::from_bytes(<[u8; 16]>::try_from(&value[..]).ok()?))))
    }

    /// Keeps a document, and that this is what its name means.
    pub(in crate::engine) async fn put_definition(
        &self,
        name: &WorkflowName,
        digest: &Digest,
        text: &str,
    ) -> Result<(), JournalError> {
        let key = format!("{}{}", before_version(name), name.version);
        let is_kept = self.get(&DEFINITIONS, digest.as_str().as_bytes()).await?.is_some();
        let is_named = self.get(&NAMES, key.as_bytes()).await?.as_deref() == Some(digest.as_str().as_bytes());
        if is_kept && is_named {
            return self.check().await;
        }
        let mut batch = Batch::new().put(&NAMES, key, digest.as_str().as_bytes().to_vec());
        for (key, part) in parts(digest.as_str().as_bytes(), text.as_bytes().to_vec()) {
            batch = batch.put(&DEFINITIONS, key, part);
        }
        self.commit(batch).await
    }

    /// From now on this name means nothing.
    pub(in crate::engine) async fn forget_name(&self, name: &WorkflowName) -> Result<(), JournalError> {
        let key = format!("{}{}", before_version(name), name.version);
        self.commit(Batch::new().delete(&NAMES, key)).await
    }

    /// The versions of a workflow, each with the digest of its document, as this process or those before were told.
    pub(in crate::engine) async fn versions(
        &self,
        name: &WorkflowName,
    ) -> Result<Vec<(String, Digest)>, JournalError> {
        let prefix = before_version(name);
        let page = self.scan(&Scan::of(NAMES, prefix.clone())).await?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let found = page.entries.iter();
        Ok(found
            .map(|entry| (text(&entry.key[prefix.len()..]), Digest::from_text(&text(&entry.value))))
            .collect())
    }

    /// A document that was kept.
    pub(in crate::engine) async fn definition(
        &self,
        digest: &Digest,
    ) -> Result<Option<String>, JournalError> {
        let bytes = self.get(&DEFINITIONS, digest.as_str().as_bytes()).await?;
        Ok(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }
}
