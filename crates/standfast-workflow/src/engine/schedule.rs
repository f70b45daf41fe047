//! Runs that begin by themselves. Where each schedule stands is in the store; each run is started by a key of its schedule and the time
//! at which it was due, so that a crash between the start and the note about it makes no second one.
//!
//! **Stop.** The task of a schedule ends when its workflow is defined anew or removed, and with the engine.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use standfast_model::Stamp;
use standfast_runtime::OnStop;
use standfast_store::{Batch, Space};
use tokio::sync::watch;

use super::{Engine, JournalError, Refused, drive};
use crate::decide::{event_key, gather, nothing_yet};
use crate::program::{Program, Schedule, WorkflowName, after};
use crate::run::{Digest, Listening, Run, RunId};

/// By workflow: where its schedule stands.
const SCHEDULES: Space = Space::Table("workflow-schedules");
/// After a failure to start a run it is tried again after this.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Most events that a schedule remembers having seen.
const SEEN_MAX: usize = 1_000;
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

#[derive(Debug)]
struct Active {
    /// Dropped when it is not in force any more.
    in_force: watch::Sender<()>,
    gathering: Option<Arc<Gathering>>,
}

impl Active {
    /// Ends it. After this it writes nothing any more.
    async fn end(self) {
        let Self { in_force, gathering } = self;
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
        so_far: Listening,
        /// The keys of those that were looked at, the latest last.
        seen: VecDeque<Digest>,
    },
}

impl Schedule {
    /// Where a schedule stands that comes into force now. `after` has no run before its first, which is due at once.
    fn begins(&self, now: Stamp) -> Standing {
        match self {
            Self::Every(period) => Standing::Due(Some(after(now, *period))),
            Self::Cron(cron) => Standing::Due(cron.next(now)),
            Self::After(_) => Standing::Due(Some(now)),
            Self::On(events) => Standing::Gathering { so_far: nothing_yet(events), seen: VecDeque::new() },
        }
    }

    /// When the one after `due` is due.
    fn following(&self, due: Stamp) -> Option<Stamp> {
        match self {
            Self::Every(period) => Some(after(due, *period)),
            Self::Cron(cron) => cron.next(due),
            Self::After(_) | Self::On(_) => None,
        }
    }

    /// The last time that was due by now, of those from `due` on: those before it were missed, and are made good by this one.
    fn last_due(&self, due: Stamp, now: Stamp) -> Stamp {
        let mut last = due;
        if let Self::Every(period) = self
            && period.months == 0
            && !period.rest.is_zero()
        {
            let missed = now.since(due).as_micros() / period.rest.as_micros();
            last =
                due.plus(Duration::from_micros(u64::try_from(missed * period.rest.as_micros()).unwrap_or(0)));
        }
        while let Some(next) = self.following(last).filter(|next| *next <= now && *next > last) {
            last = next;
        }
        last
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
        let active = Active { in_force, gathering: gathering.clone() };
        self.schedules().lock().insert(place, active);
        if let Some(gathering) = gathering {
            // What came while nobody looked.
            for event in self.events_since(kept.since) {
                self.offer(&gathering, &event).await?;
            }
        } else {
            let engine = self.clone();
            let driving = async move { engine.keep_time(program, key, kept, ends).await };
            self.0.tasks.spawn("workflow schedule", OnStop::Abort, driving);
        }
        Ok(())
    }

    /// Where it stood when the process before ended; a new or changed one begins.
    async fn schedule_standing(&self, program: &Program, key: &str) -> Result<Kept, Refused> {
        let Some(schedule) = &program.schedule else { return Err(Refused::Wrong("no schedule".to_owned())) };
        let digest = Digest::of(program.part("/schedule").to_string().as_bytes());
        let found =
            self.journal().store().get(&SCHEDULES, key.as_bytes()).await.map_err(JournalError::from)?;
        if let Some(entry) = found {
            let kept: Kept = serde_json::from_slice(&entry.value)
                .map_err(|why| JournalError::Unreadable(format!("a schedule: {why}")))?;
            if kept.v == FORMAT && kept.schedule == digest {
                return Ok(kept);
            }
        }
        let now = self.clock().now();
        let kept = Kept { v: FORMAT, schedule: digest, since: now, standing: schedule.begins(now) };
        self.keep_schedule(key, &kept).await?;
        Ok(kept)
    }

    async fn keep_schedule(&self, key: &str, kept: &Kept) -> Result<(), JournalError> {
        let bytes = serde_json::to_vec(kept).map_err(|why| JournalError::Unreadable(why.to_string()))?;
        self.journal().commit(Batch::new().put(&SCHEDULES, key.to_owned(), bytes)).await
    }

    /// Starts the runs of a schedule of times, as long as it is in force.
    async fn keep_time(
        self,
        program: Arc<Program>,
        key: String,
        mut kept: Kept,
        mut ends: watch::Receiver<()>,
    ) {
        loop {
            let next = self.next_scheduled(&program, &kept);
            let standing = tokio::select! {
                biased;
                _ = ends.changed() => return,
                standing = next => standing,
            };
            let kept_so = match standing {
                Ok(standing) => {
                    kept.standing = standing;
                    self.keep_schedule(&key, &kept).await.map_err(Refused::from)
                }
                Err(why) => Err(why),
            };
            if let Err(why) = kept_so {
                if matches!(why, Refused::Stopped(_)) {
                    return;
                }
                tracing::warn!(workflow = %program.name(), %why, "a run of a schedule was not started, and will be");
                self.clock().sleep(TRY_AGAIN_AFTER).await;
            }
        }
    }

    /// Waits for what is next of a schedule of times and does it. Cancel safe: what was done is found again by its key.
    async fn next_scheduled(&self, program: &Arc<Program>, kept: &Kept) -> Result<Standing, Refused> {
        let Some(schedule) = &program.schedule else { return std::future::pending().await };
        match &kept.standing {
            Standing::Due(Some(due)) => {
                while self.clock().now() < *due {
                    self.clock().sleep_until(*due).await;
                }
                let due = schedule.last_due(*due, self.clock().now());
                let key = format!("schedule/{}/{}", kept.schedule, due.as_micros());
                let input = Arc::new(Value::Object(serde_json::Map::new()));
                let run = self.start(program.name(), input, Some(&key)).await?;
                Ok(match schedule {
                    Schedule::After(_) => Standing::Running(run),
                    _ => Standing::Due(schedule.following(due)),
                })
            }
            Standing::Running(run) => {
                let ended_at = match self.wait(*run).await {
                    Ok(summary) => summary.changed_at,
                    // So long ago that nothing is known of it any more.
                    Err(Refused::NoRun(_)) => Stamp::EPOCH,
                    Err(why) => return Err(why),
                };
                let Schedule::After(period) = schedule else { return std::future::pending().await };
                Ok(Standing::Due(Some(after(ended_at, *period).max(kept.since))))
            }
            Standing::Due(None) | Standing::Gathering { .. } => std::future::pending().await,
        }
    }

    /// Gives an event to all schedules that wait for events.
    pub(super) async fn offer_to_schedules(&self, event: &Arc<Value>) -> Result<(), Refused> {
        let all: Vec<Arc<Gathering>> =
            self.schedules().lock().values().filter_map(|active| active.gathering.clone()).collect();
        for gathering in all {
            self.offer(&gathering, event).await?;
        }
        Ok(())
    }

    /// Looks at one event, and starts a run when there are enough of them.
    async fn offer(&self, gathering: &Gathering, event: &Arc<Value>) -> Result<(), Refused> {
        let Some(Schedule::On(_)) = &gathering.program.schedule else { return Ok(()) };
        let mut kept = gathering.kept.lock().await;
        let Standing::Gathering { so_far, seen } = &kept.standing else { return Ok(()) };
        let key = event_key(event).unwrap_or_default();
        if seen.contains(&key) {
            return Ok(());
        }
        let next = match self.gathered(gathering, so_far, event).await {
            Ok(Some(next)) => next,
            Ok(None) => return Ok(()),
            Err(why) => {
                // The language has it that nobody sees what goes wrong here; whoever operates this does.
                tracing::warn!(workflow = %gathering.program.name(), %why, "an event cannot be looked at by a schedule");
                return Ok(());
            }
        };
        let mut seen = seen.clone();
        if seen.len() >= SEEN_MAX {
            seen.pop_front();
        }
        seen.push_back(key);
        let so_far =
            if next.is_complete { self.start_by_events(gathering, &kept, &next).await? } else { next };
        kept.standing = Standing::Gathering { so_far, seen };
        let name = gathering.program.name();
        Ok(self.keep_schedule(&format!("{}/{}", name.namespace, name.name), &kept).await?)
    }

    async fn gathered(
        &self,
        gathering: &Gathering,
        so_far: &Listening,
        event: &Arc<Value>,
    ) -> Result<Option<Listening>, crate::run::Problem> {
        let now = self.clock().now();
        let (program, so_far, event) = (Arc::clone(&gathering.program), so_far.clone(), Arc::clone(event));
        let run = Run::new(RunId::new(now, 0));
        drive::in_world(self, &gathering.program, &run, move |world, _| match &program.schedule {
            Some(Schedule::On(events)) => gather(world, events, &so_far, &event, now),
            _ => Ok(None),
        })
        .await
    }

    /// Starts a run by the events that were gathered. Returns what is gathered from then on.
    async fn start_by_events(
        &self,
        gathering: &Gathering,
        kept: &Kept,
        complete: &Listening,
    ) -> Result<Listening, Refused> {
        let program = &gathering.program;
        let keys = complete.consumed.iter().filter_map(|event| event_key(event));
        let keys: Vec<String> = keys.map(|key| key.to_string()).collect();
        let key = format!("schedule/{}/{}", kept.schedule, Digest::of(keys.join(".").as_bytes()));
        let input: Value = complete.consumed.iter().map(|event| Value::clone(event)).collect();
        match self.start(program.name(), Arc::new(input), Some(&key)).await {
            Ok(_) => {}
            Err(why @ Refused::TooLarge { .. }) => {
                tracing::warn!(workflow = %program.name(), %why, "events of a schedule start no run");
            }
            Err(why) => return Err(why),
        }
        Ok(match &program.schedule {
            Some(Schedule::On(events)) => nothing_yet(events),
            _ => Listening::default(),
        })
    }
}

#[cfg(test)]
mod tests {
    use standfast_model::workflow::Period;

    use super::*;
    use crate::program::Cron;

    const SECOND: u64 = 1_000_000;

    fn at(seconds: u64) -> Stamp {
        Stamp::from_micros(seconds * SECOND)
    }

    #[test]
    fn of_times_that_were_missed_the_last_one_counts() {
        let every = Schedule::Every(Period { months: 0, rest: Duration::from_secs(10) });
        for (now, last) in [(100, 100), (109, 100), (110, 110), (1_000_005, 1_000_000)] {
            assert_eq!(every.last_due(at(100), at(now)), at(last));
        }
        let cron = Schedule::Cron(Cron::parse("*/5 * * * *").unwrap());
        for (now, last) in [(300, 300), (599, 300), (600, 600), (3_000, 3_000)] {
            assert_eq!(cron.last_due(at(300), at(now)), at(last));
        }
    }

    #[test]
    fn times_of_an_interval_do_not_drift() {
        let every = Schedule::Every(Period { months: 0, rest: Duration::from_secs(10) });
        let Standing::Due(Some(first)) = every.begins(at(5)) else { panic!("a time is due") };
        assert_eq!(first, at(15));
        // A run that is started late changes nothing about the next time.
        assert_eq!(every.following(every.last_due(first, at(18))), Some(at(25)));
    }

    #[test]
    fn months_are_made_good_once() {
        let monthly = Schedule::Every(Period { months: 1, rest: Duration::ZERO });
        let day = 86_400;
        assert_eq!(monthly.last_due(at(31 * day), at(100 * day)), at(90 * day));
    }
}
