//! What goes on in the background: recovery, timers, the mark of a recovery, events of runs on their way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use standfast_runtime::{Backoff, OnStop, Rng, with_causes};

use super::drive::Input;
use super::limited::Limited;
use super::runs::Crowd;
use super::{Engine, JournalError, Refused, journal};
use crate::decide::Cause;
use crate::run::RunId;

/// How often it is noted how far back a recovery must read.
const MARK_PERIOD: Duration = Duration::from_secs(1);
/// Between attempts to give an event of a run to those that are too busy for it.
const GIVE_AGAIN: Backoff = Backoff { base: Duration::from_millis(20), cap: Duration::from_secs(1) };

impl Engine {
    pub(super) async fn recover(&self) -> Result<(), JournalError> {
        let found = self.0.journal.recover().await?;
        let now = self.0.clock.now();
        let mut due =
            found.sleeping.iter().filter(|asleep| asleep.due.is_some_and(|due| due <= now)).peekable();
        let is_any = !found.awake.is_empty() || !found.emitted.is_empty() || due.peek().is_some();
        let mut takeover = self.take_over(is_any).await?;
        takeover.suspects(due.map(|asleep| asleep.id));
        let mut listening = Vec::new();
        let left_awake: BTreeSet<RunId> = found.awake.iter().map(|left| left.run.id).collect();
        for journal::Sleeping { id, due, listens, crowded } in found.sleeping {
            if listens {
                self.events().may_want_any(id);
                listening.push(id);
            }
            let limited = found.limited.get(&id);
            let mut runs = self.runs();
            match limited {
                // It sleeps until it is let in once more: that it was is not written.
                Some(limited) if limited.is_queued => runs.falls_asleep(id, limited.due, None),
                limited => {
                    let limits = limited.map(|limited| &limited.limits);
                    runs.falls_asleep(id, due, crowded.map(|priority| Crowd::of(priority, limits)));
                }
            }
        }
        {
            let mut runs = self.runs();
            for begun in found.begun {
                runs.gate.began(begun.key, begun.at, begun.every);
            }
            let awake = found.awake.iter().filter_map(|left| Limited::of(&left.run));
            let awake: BTreeMap<RunId, Limited> = awake.collect();
            // Of a run that is in both, the journal knows what happened last.
            let asleep = found.limited.iter().filter(|(id, _)| !left_awake.contains(id));
            for (id, limited) in asleep.chain(&awake) {
                runs.gate.joins(*id, &limited.limits, limited.started_at, now);
            }
        }
        for id in found.parked {
            if let Some(run) = self.0.journal.sleeper(id).await?.map(|sleeper| sleeper.run)
                && let Some(why) = &run.parked
            {
                self.is_parked(id, run.changed_at, why);
            }
        }
        let mut taken_up = Vec::new();
        for left in found.awake {
            let (run, first) = (&left.run, left.first);
            let program = match self.program_of(run).await {
                Ok(program) => program,
                Err(why) => {
                    // The mark must not pass it: another release may know how to go on.
                    let mut runs = self.runs();
                    runs.keeps_from(first);
                    runs.is_broken(run.id, self.0.clock.now(), why.to_string());
                    drop(runs);
                    tracing::error!(run = %run.id, %why, "the run cannot be driven on");
                    continue;
                }
            };
            let left = self.with_care(&mut takeover, left, program.name()).await?;
            if let Some(journal::Left { run, first, last, kept }) = left {
                let id = run.id;
                taken_up.push(self.take_up(run, program, first).read_back(Some(last), kept));
                self.wrote(id, last);
            }
        }
        self.begin_trial(takeover).await?;
        {
            // First all that had a slot, then who gets those that are free.
            let mut runs = self.runs();
            runs.gate.opens(now);
            runs.let_in(now);
        }
        for driving in taken_up {
            self.spawn(driving, Input { cause: Cause::Time, told: None });
        }
        self.published(found.emitted, None);
        let looking = self.clone();
        self.0.tasks.spawn("workflow listeners", OnStop::Abort, looking.look_at_sleepers(listening));
        Ok(())
    }

    /// Wakes runs when they are due, as long as there is room for them.
    pub(super) async fn wake_the_due(self) {
        loop {
            let now = self.0.clock.now();
            let (due, next) = {
                let mut runs = self.runs();
                runs.gate.time_passes(now);
                runs.let_in(now);
                runs.due(now, self.0.config.awake_max)
            };
            for id in due {
                // Whoever woke it meanwhile knows what time it is, and who cannot read it back says so.
                let _woken_by_another = self.wake(id, Input { cause: Cause::Time, told: None });
            }
            let sleep = async {
                match next {
                    Some(next) => self.0.clock.sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = self.0.changed.notified() => {}
                () = sleep => {}
            }
        }
    }

    pub(super) async fn keep_marking(self) {
        let mut marked = 0;
        loop {
            self.0.clock.sleep(MARK_PERIOD).await;
            let freed = self.runs().freed();
            self.0.admission.note(freed, self.0.clock.now());
            // First this: what is begun after it is behind it.
            let next = self.0.journal.next();
            let mark = self.runs().first_unkept().min(self.events().first_unsent()).min(next);
            let journal = &self.0.journal;
            // With nothing to note it is asked whether another process has taken over, so that an idle one finds out too.
            let done = if mark == marked { journal.check().await } else { journal.mark(mark).await };
            match done {
                Ok(()) => marked = mark,
                Err(why) => {
                    tracing::warn!(why = %with_causes(&why), "how far back a recovery must read was not noted");
                    if let why @ Refused::Stopped(_) = Refused::from(why) {
                        return self.stop(&why);
                    }
                }
            }
        }
    }

    /// Events of runs are given to those that wait. Until that is done a recovery reads the record at `written` again.
    pub(super) fn published(&self, events: Vec<Arc<Value>>, written: Option<u64>) {
        if events.is_empty() {
            return;
        }
        written.iter().for_each(|at| self.events().sends(*at));
        let engine = self.clone();
        self.0.tasks.spawn("workflow events", OnStop::Abort, async move {
            for event in events {
                let mut failures = 0;
                while let Err(why) = engine.publish(Arc::clone(&event)).await {
                    match why {
                        Refused::Busy(_) | Refused::Full | Refused::Delayed => {}
                        // The next process reads the record again.
                        Refused::Stopped(_) => return,
                        why => {
                            tracing::warn!(%why, "an event of a run was not given to all that wait");
                            break;
                        }
                    }
                    let mut rng = Rng::seeded(written.unwrap_or_default());
                    engine.0.clock.sleep(GIVE_AGAIN.wait(failures, &mut rng)).await;
                    failures += 1;
                }
            }
            written.iter().for_each(|at| engine.events().sent(*at));
        });
    }
}
