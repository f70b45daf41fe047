//! Schedules that wait for events.

use std::sync::Arc;

use serde_json::Value;

use super::super::{Engine, Refused, drive};
use super::{Gathering, Kept, Standing};
use crate::decide::{event_key, gather, nothing_yet};
use crate::program::Schedule;
use crate::run::{Digest, Listening, Run, RunId};

/// Most events that a schedule remembers having seen.
const SEEN_MAX: usize = 1_000;

impl Engine {
    /// Gives an event to all schedules that wait for events.
    pub(in crate::engine) async fn offer_to_schedules(&self, event: &Arc<Value>) -> Result<(), Refused> {
        let all: Vec<Arc<Gathering>> =
            self.schedules().lock().values().filter_map(|active| active.gathering.clone()).collect();
        for gathering in all {
            self.offer(&gathering, event).await?;
        }
        Ok(())
    }

    /// Looks at one event, and starts a run when there are enough of them.
    pub(super) async fn offer(&self, gathering: &Gathering, event: &Arc<Value>) -> Result<(), Refused> {
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
        kept.standing = Standing::Gathering { so_far: Box::new(so_far), seen };
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
