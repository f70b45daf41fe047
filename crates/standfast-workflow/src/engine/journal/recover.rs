//! What a process finds that takes over.

use super::*;

impl Journal {
    /// What the process before left behind.
    pub(in crate::engine) async fn recover(&self) -> Result<Found, JournalError> {
        let mut found = Found::default();
        let mut sleepers = BTreeMap::new();
        let mut scan = Scan::of(SLEEPING, "");
        loop {
            let page = self.scan(&scan).await?;
            for entry in &page.entries {
                let Ok(id) = <[u8; 16]>::try_from(&entry.key[..]) else { continue };
                let (id, head) = (RunId::from_bytes(id), Head::read(&entry.value)?);
                if head.is_limited {
                    let sleeper = match entry.value.len() {
                        PART_BYTES_MAX => self.sleeper(id).await?,
                        _ => Some(read::<Sleeper>(&entry.value)?),
                    };
                    found.limited.extend(sleeper.and_then(|sleeper| Limited::of(&sleeper.run)));
                }
                sleepers.insert(id, head);
            }
            let Some(next) = page.next else { break };
            scan = scan.after(next);
        }
        let mut awake: BTreeMap<RunId, Left> = BTreeMap::new();
        let mark = self.get(&OWNER, MARK_KEY).await?.map_or(0, |value| sequence_of(&value));
        let mut scan = Scan::of(JOURNAL, "");
        if let Some(before) = mark.checked_sub(1) {
            // Parts of the record before sort behind it, and before the next.
            scan = scan.after([&before.to_be_bytes()[..], &[u8::MAX; 4]].concat());
        }
        loop {
            let page = self.scan(&scan).await?;
            for entry in &page.entries {
                if entry.key.len() == 8 {
                    let at = sequence_of(&entry.key);
                    let Some(bytes) = self.get(&JOURNAL, &entry.key).await? else { continue };
                    let written: Written = read(&bytes)?;
                    found.emitted.extend(super::super::drive::emitted(&written.record));
                    self.fold(at, &written.record, &sleepers, &mut awake).await?;
                }
            }
            let Some(next) = page.next else { break };
            scan = scan.after(next);
        }
        for (id, head) in sleepers {
            // What happened after it was put to sleep is in the journal.
            if !awake.contains_key(&id) {
                let Head { due, listens, crowded, .. } = head;
                found.sleeping.push(Sleeping { id, due, listens, crowded });
                found.parked.extend(head.is_parked.then_some(id));
            }
        }
        found.begun = self.begun().await?;
        found.awake = awake.into_values().filter(|left| !left.run.status.is_final()).collect();
        Ok(found)
    }

    async fn fold(
        &self,
        at: u64,
        record: &Record,
        sleepers: &BTreeMap<RunId, Head>,
        awake: &mut BTreeMap<RunId, Left>,
    ) -> Result<(), JournalError> {
        let id = record.run;
        let kept = sleepers.get(&id).map(|head| head.records);
        if kept.is_some_and(|kept| record.number < kept) {
            return Ok(()); // it is in the snapshot
        }
        let left = match awake.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            // Its beginning is from before the mark and there is no snapshot: it has ended.
            Entry::Vacant(_) if kept.is_none() && record.number > 0 => return Ok(()),
            Entry::Vacant(place) => {
                let sleeper = match kept {
                    Some(_) => self.sleeper(id).await?,
                    None => None,
                };
                let run = sleeper.map_or_else(|| Run::new(id), |sleeper| sleeper.run);
                place.insert(Left { run, first: at, last: at, kept })
            }
        };
        // Records of one run are written one after the other, so they are in order.
        if record.number == left.run.records {
            left.run.apply(record);
            left.last = at;
        }
        Ok(())
    }
}
