//! Runs that begin by themselves. Where each schedule stands is in the store; each run is started by a key of its schedule and the time
//! at which it was due, so that a crash between the start and the note about it makes no second one.
//!
//! **Stop.** The task of a schedule ends when its workflow is defined anew or removed, and with the engine.

mod driving;
mod gather;
mod shown;
mod times;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use standfast_model::Stamp;
use standfast_runtime::OnStop;
use standfast_store::{Batch, Space};
use tokio::sync::watch;

pub use self::shown::Scheduled;
use self::times::Times;
use super::{Engine, JournalError, Refused};
use crate::decide::nothing_yet;
use crate::program::{Program, Schedule, WorkflowName};
use crate::run::{Digest, Listening, RunId};

/// By workflow: where its schedule stands.
const SCHEDULES: Space = Space::Table("workflow-schedules");
/// The format of what is written.
const FORMAT: u32 = 1;

/// The schedules that are in force, by namespace and name.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    active: Mutex<BTreeMap<Name, Active>>,
    /// One change after the other: each begins where the one before has ended.
    changing: tokio::sync::Mutex<()>,
}

type Name = (String, String);

/// A schedule that is in force.
#[derive(Debug)]
struct Active {
    /// Dropped when it is not in force any more.
    in_force: watch::Sender<()>,
    program: Arc<Program>,
    /// Where it stands, as it was written last; of one that waits for events where it stood when it came into force.
    shown: Arc<Mutex<Kept>>,
    gathering: Option<Arc<Gathering>>,
}

impl Active {
    /// Ends it. After this it writes nothing any more.
    async fn end(self) {
        let Self { in_force, gathering, .. } = self;
        if let Some(gathering) = gathering {
            gathering.kept.lock().await.standing = Standing::Due(None);
        }
        // Its task holds the other side until it has ended.
        let _told = in_force.send(());
        in_force.closed().await;
    }
}

/// A schedule that waits for events.
#[derive(Debug)]
struct Gathering {
    program: Arc<Program>,
    /// One event after the other: each builds on what became of the one before.
    kept: tokio::sync::Mutex<Kept>,
}

/// Where a schedule stands, as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Kept {
    v: u32,
    /// Which schedule: one that was changed begins anew.
    schedule: Digest,
    /// Since when it is in force.
    since: Stamp,
    standing: Standing,
    /// The run that it began last, also under another schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<RunId>,
    /// What was due and waits for the end of that run, in order.
    #[serde(default, skip_serializing_if = "VecDeque::is_empty")]
    waiting: VecDeque<Stamp>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Standing {
    /// The next run is due then, or never.
    Due(Option<Stamp>),
    /// The next is due some time after this has ended.
    Running(RunId),
    /// Events are gathered.
    Gathering {
        so_far: Box<Listening>,
        /// The keys of those that were looked at, the latest last.
        seen: VecDeque<Digest>,
    },
}

/// Where a schedule stands that comes into force now. `after` has no run before its first, which is due at once.
fn begins(times: &Times<'_>, schedule: &Schedule, now: Stamp) -> Standing {
    match schedule {
        Schedule::Every(_) | Schedule::Cron(..) => Standing::Due(times.following(now)),
        Schedule::After(_) => Standing::Due(Some(now)),
        Schedule::On(events) => {
            Standing::Gathering { so_far: Box::new(nothing_yet(events)), seen: VecDeque::new() }
        }
    }
}

impl Schedules {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Active>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Puts the schedule of a workflow's newest version into force, in place of any before.
    pub(super) async fn schedule(&self, name: &WorkflowName) -> Result<(), Refused> {
        let _one_at_a_time = self.schedules().changing.lock().await;
        let place = (name.namespace.clone(), name.name.clone());
        let before = self.schedules().lock().remove(&place);
        if let Some(before) = before {
            before.end().await;
        }
        let key = format!("{}/{}", place.0, place.1);
        let newest = WorkflowName { version: "latest".to_owned(), ..name.clone() };
        let program = self.definitions().find(&newest).map(|definition| Arc::clone(&definition.program));
        let Some(program) = program.filter(|program| program.schedule.is_some()) else {
            return Ok(self.journal().commit(Batch::new().delete(&SCHEDULES, key)).await?);
        };
        let kept = self.schedule_standing(&program, &key).await?;
        let (in_force, ends) = watch::channel(());
        let gathering = match &kept.standing {
            Standing::Gathering { .. } => {
                let kept = tokio::sync::Mutex::new(kept.clone());
                Some(Arc::new(Gathering { program: Arc::clone(&program), kept }))
            }
            _ => None,
        };
        let shown = Arc::new(Mutex::new(kept.clone()));
        let active = Active {
            in_force,
            program: Arc::clone(&program),
            shown: Arc::clone(&shown),
            gathering: gathering.clone(),
        };
        self.schedules().lock().insert(place, active);
        if let Some(gathering) = gathering {
            // What came while nobody looked.
            for event in self.events_since(kept.since) {
                self.offer(&gathering, &event).await?;
            }
        } else {
            let engine = self.clone();
            let driving = async move { engine.keep_time(program, key, kept, shown, ends).await };
            self.0.tasks.spawn("workflow schedule", OnStop::Abort, driving);
        }
        Ok(())
    }

    /// Where it stood when the process before ended; a new or changed one begins, and knows which run is the last one.
    async fn schedule_standing(&self, program: &Program, key: &str) -> Result<Kept, Refused> {
        let (Some(schedule), Some(times)) = (&program.schedule, Times::of(program)) else {
            return Err(Refused::Wrong("no schedule".to_owned()));
        };
        let digest = digest(program);
        let found =
            self.journal().store().get(&SCHEDULES, key.as_bytes()).await.map_err(JournalError::from)?;
        let mut last = None;
        if let Some(entry) = found {
            let kept: Kept = serde_json::from_slice(&entry.value)
                .map_err(|why| JournalError::Unreadable(format!("a schedule: {why}")))?;
            if kept.v == FORMAT && kept.schedule == digest {
                return Ok(kept);
            }
            last = kept.last;
        }
        let now = self.clock().now();
        let standing = begins(&times, schedule, now);
        let kept = Kept { v: FORMAT, schedule: digest, since: now, standing, last, waiting: VecDeque::new() };
        self.keep_schedule(key, &kept).await?;
        Ok(kept)
    }

    async fn keep_schedule(&self, key: &str, kept: &Kept) -> Result<(), JournalError> {
        let bytes = serde_json::to_vec(kept).map_err(|why| JournalError::Unreadable(why.to_string()))?;
        self.journal().commit(Batch::new().put(&SCHEDULES, key.to_owned(), bytes)).await
    }
}

/// Which schedule it is: its text, and what the document says beside it. One with nothing beside it has the digest of its text alone.
fn digest(program: &Program) -> Digest {
    let text = program.part("/schedule").to_string();
    match program.part("/document/metadata/standfast/schedule") {
        Value::Null => Digest::of(text.as_bytes()),
        options => Digest::of(format!("{text}\n{options}").as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::compile;

    /// As releases before the options of schedules wrote it.
    #[test]
    fn where_a_schedule_stood_before_there_were_options_is_read_and_goes_on() {
        let old = r#"{"v":1,"schedule":"d","since":5,"standing":{"due":7}}"#;
        let kept: Kept = serde_json::from_str(old).unwrap();
        assert!(matches!(kept.standing, Standing::Due(Some(due)) if due == Stamp::from_micros(7)));
        assert_eq!((kept.last, kept.waiting.len()), (None, 0));
        assert_eq!(serde_json::to_string(&kept).unwrap(), old);
        let digest_of = |options: &str| {
            let text = format!(
                "document: {{dsl: '1.0.3', namespace: test, name: timed, version: 0.1.0{options}}}\nschedule: {{every: PT10S}}\ndo: [a: {{set: {{a: 1}}}}]\n"
            );
            let read = standfast_model::workflow::parse_document("timed.yaml", text, &mut |_, _| Ok(()));
            digest(&compile(&read.unwrap_or_else(|all| panic!("{all}")).document).unwrap())
        };
        assert_eq!(digest_of(""), Digest::of(br#"{"every":"PT10S"}"#));
        let [skip, jitter] = ["overlap: skip", "jitter: PT1S"]
            .map(|option| digest_of(&format!(", metadata: {{standfast: {{schedule: {{{option}}}}}}}")));
        assert!(skip != jitter && skip != digest_of(""));
    }
}
