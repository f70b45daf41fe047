//! Healing: a replica that ended or was lost gets a new attempt in its slot, unless its restart rules say otherwise.

use std::sync::Arc;
use std::time::Duration;

use standfast_model::{RestartCondition, RestartPolicy, Revision, Stamp};
use standfast_platform::ReplicaState;

use super::group::{Condition, Gone, Group, How, Member, Notes, Want, World, is_current, replicas};
use super::{CrashLoop, StepKind};
use crate::blueprint::{Ending, Failure, PlannedIntent, PlannedReplica};
use crate::config::{CRASH_LOOP, RESTART};

/// What becomes of a replica that is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It did its work.
    Complete,
    /// It is not started again.
    GiveUp,
    /// A new attempt.
    Again { failures: u32 },
}

impl Group<'_> {
    /// Replaces what is gone.
    pub(super) fn heal(&mut self, world: &World<'_>, notes: &mut Notes) {
        let Some(want) = self.want else { return };
        for index in 0..self.members.len() {
            let member = &self.members[index];
            let Condition::Gone(gone) = &member.condition else { continue };
            if !member.planned.shall_run() {
                continue;
            }
            match fate(&want.service.deploy.restart, &member.planned, gone) {
                Fate::Complete => self.end(index, true, world, notes),
                Fate::GiveUp => self.end(index, false, world, notes),
                Fate::Again { failures } => self.try_again(index, want, failures, world, notes),
            }
        }
        self.replace_outdated_endings(want, world, notes);
    }

    /// A new attempt in the slot of a member that is gone.
    fn try_again(
        &mut self,
        index: usize,
        want: Want<'_>,
        failures: u32,
        world: &World<'_>,
        notes: &mut Notes,
    ) {
        let member = &self.members[index];
        let Condition::Gone(gone) = &member.condition else { return };
        let (reason, output) = (format!("{} {}", member.planned.instance, gone.reason), gone.output.clone());
        let revision = self.revision_for_new_attempt(index, want, failures);
        let failures = if revision == member.planned.revision { failures } else { 0 };
        let failure = Failure {
            instance: member.planned.instance.clone(),
            at: world.now,
            reason: gone.reason.clone(),
            last_output: output,
        };
        let wait = wait_after(failures);
        if !self.renew(index, revision, failures, world.now.plus(wait), &reason, world) {
            return;
        }
        self.ledger.restarts += 1;
        self.ledger.last_failure = Some(failure);
        let delay = if wait.is_zero() { String::new() } else { format!(", after a wait of {wait:?}") };
        let impact = format!("{}{delay}", self.capacity());
        notes.step(StepKind::Heal, &self.members[index].planned, reason, impact);
    }

    /// Puts a new attempt into a member's slot, in the zone that keeps the spread. Says whether there was a zone for it.
    pub(super) fn renew(
        &mut self,
        index: usize,
        revision: Revision,
        failures: u32,
        not_before: Stamp,
        why: &str,
        world: &World<'_>,
    ) -> bool {
        let before = &self.members[index].planned;
        let zone = self.choose_zone(world, &revision, Some(index));
        let Some(zone) = zone else { return false };
        let mut instance = before.instance.clone();
        let highest = if self.has_strangers { self.ledger.attempts_floor } else { 0 };
        instance.attempt = instance.attempt.max(highest) + 1;
        let (intent, why) = (PlannedIntent::Run, why.to_owned());
        let planned =
            PlannedReplica { instance, revision, zone, intent, not_before, failures, replace: false, why };
        let is_current = is_current(world, self.want.as_ref(), &planned);
        self.members[index] = Member { planned: planned.into(), condition: Condition::Ordered, is_current };
        true
    }

    /// What a new attempt in place of a member that is gone runs. In a rollout the old revision comes back as long as the new
    /// one has not shown that it can serve, unless the old one cannot either.
    fn revision_for_new_attempt(&self, index: usize, want: Want<'_>, failures: u32) -> Revision {
        let member = &self.members[index];
        let is_wanted = member.is_current || self.goes_on_to_new(failures);
        if is_wanted { want.revision.clone() } else { member.planned.revision.clone() }
    }

    /// Whether an old replica that ended, after so many failures, makes way for the new revision.
    pub(super) fn goes_on_to_new(&self, failures: u32) -> bool {
        let new_one_serves = || self.members.iter().any(|other| other.is_current && other.is_settled());
        !self.is_paused() && (failures > 0 || new_one_serves())
    }

    /// Whether the new revision cannot get ready, so that what serves is kept as it is.
    pub(super) fn is_paused(&self) -> bool {
        self.members.iter().any(|member| member.counts() && !member.is_current)
            && self.members.iter().any(|member| member.is_current && is_failing(member))
    }

    /// Ends a member for good.
    fn end(&mut self, index: usize, success: bool, world: &World<'_>, notes: &mut Notes) {
        let member = &mut self.members[index];
        let Condition::Gone(gone) = std::mem::replace(&mut member.condition, Condition::Ended) else {
            return;
        };
        let reason = format!("{} {}", member.planned.instance, gone.reason);
        Arc::make_mut(&mut member.planned).intent = PlannedIntent::Ended(Ending {
            success,
            at: world.now,
            reason: gone.reason.clone(),
            last_output: gone.output.clone(),
        });
        if success {
            let impact = "it did its work and is not started again".to_owned();
            notes.step(StepKind::Complete, &self.members[index].planned, reason, impact);
        } else {
            let instance = member.planned.instance.clone();
            self.ledger.last_failure =
                Some(Failure { instance, at: world.now, reason: gone.reason, last_output: gone.output });
            let impact = format!("its restart rules allow no more attempts; {}", self.capacity());
            notes.step(StepKind::GiveUp, &self.members[index].planned, reason, impact);
        }
    }

    /// What has ended and is out of date serves nobody: it makes room for the current revision at once, within the wanted number.
    fn replace_outdated_endings(&mut self, want: Want<'_>, world: &World<'_>, notes: &mut Notes) {
        let mut index = 0;
        while index < self.members.len() {
            let member = &self.members[index];
            if member.condition != Condition::Ended || member.is_current {
                index += 1;
                continue;
            }
            let reason = format!("{} has ended and is out of date", member.planned.instance);
            let takes_room =
                |m: &&Member| m.condition != Condition::Ended && (m.counts() || !want.starts_first());
            let leaving = if want.starts_first() { 0 } else { self.leaving };
            let has_room = self.members.iter().filter(takes_room).count() + leaving < want.count;
            if !has_room {
                self.let_go(index, &reason, world, notes); // it does not run: it is removed, and the next one is at `index`
                continue;
            }
            if self.renew(index, want.revision.clone(), 0, world.now, &reason, world) {
                let impact = "nothing that serves is touched".to_owned();
                notes.step(StepKind::Update, &self.members[index].planned, reason, impact);
            }
            index += 1;
        }
    }

    /// Takes over what runs under an order that this history does not know.
    pub(super) fn adopt(&mut self, world: &World<'_>, notes: &mut Notes) {
        let Some(want) = self.want.filter(|_| world.order_is_unknown) else { return };
        for seen in world.seen_of(self.name) {
            let is_alive = matches!(
                seen.state,
                ReplicaState::Starting { .. } | ReplicaState::Serving { .. } | ReplicaState::Unready { .. }
            );
            let slot = self.members.iter().position(|m| m.planned.instance.replica == seen.instance.replica);
            let slot_is_free = slot.is_none_or(|index| {
                self.members[index].is_gone()
                    && self.members[index].planned.instance.attempt < seen.instance.attempt
            });
            if !is_alive || !slot_is_free || seen.revision != *want.revision || world.is_lost(&seen.zone) {
                continue;
            }
            if let Some(index) = slot {
                self.remove(index);
            }
            let planned = PlannedReplica {
                instance: seen.instance.clone(),
                revision: seen.revision.clone(),
                zone: seen.zone.clone(),
                intent: PlannedIntent::Run,
                not_before: world.now,
                failures: 0,
                replace: false,
                why: "ran already under an order that is not known".into(),
            };
            notes.step(StepKind::Adopt, &planned, planned.why.clone(), "it is not touched".into());
            let condition = match seen.state {
                ReplicaState::Serving { .. } => Condition::Serving { is_settled: true },
                ReplicaState::Unready { .. } => Condition::Unready,
                _ => Condition::Starting,
            };
            let is_current = is_current(world, Some(&want), &planned);
            self.members.push(Member { planned: planned.into(), condition, is_current });
            self.ledger.started = true;
        }
        self.members.sort_by_key(|member| member.planned.instance.replica.slot);
    }

    /// Notes the replicas in a crash loop, and when to look at those that serve again.
    pub(super) fn note_waits(&self, world: &World<'_>, notes: &mut Notes) {
        for member in &self.members {
            let planned = &member.planned;
            if member.condition == (Condition::Serving { is_settled: false }) {
                notes.wake_at(self.settles_at(member, world));
            }
            let given_up = matches!(&planned.intent, PlannedIntent::Ended(ending) if !ending.success);
            if given_up || (planned.shall_run() && planned.failures >= CRASH_LOOP && !member.is_settled()) {
                notes.report.crash_loops.push(self.crash_loop(planned));
            }
        }
        let gone = self.count(Member::is_gone);
        if gone > 0 && world.zones.is_empty() {
            notes.wait(format!("{} of `{}` wait for a zone: none is available", replicas(gone), self.name));
        }
        let starting = self.count(|member| member.planned.failures < CRASH_LOOP && member.is_not_up_yet());
        if starting > 0 {
            notes.wait(format!("{} of `{}` must get ready", replicas(starting), self.name));
        }
    }

    fn crash_loop(&self, planned: &PlannedReplica) -> CrashLoop {
        let (next_try, reason, last_output) = match (&planned.intent, &self.ledger.last_failure) {
            (PlannedIntent::Ended(ending), _) => (None, ending.reason.clone(), ending.last_output.clone()),
            (_, Some(last)) => (Some(planned.not_before), last.reason.clone(), last.last_output.clone()),
            (_, None) => (Some(planned.not_before), planned.why.clone(), Vec::new()),
        };
        CrashLoop {
            replica: planned.instance.clone(),
            failures: planned.failures,
            next_try,
            reason,
            last_output,
        }
    }

    fn settles_at(&self, member: &Member, world: &World<'_>) -> Stamp {
        let seen = world.seen_of(self.name).iter().find(|seen| seen.instance == member.planned.instance);
        match seen.map(|seen| &seen.state) {
            Some(ReplicaState::Serving { since, .. }) => since.plus(crate::config::QUICK),
            _ => world.now.plus(crate::config::QUICK),
        }
    }
}

/// It is in a crash loop or was given up.
pub(super) fn is_failing(member: &Member) -> bool {
    let fails_now = match &member.condition {
        Condition::Gone(gone) => {
            matches!(gone.how, How::Failed { quickly: true } | How::Done { quickly: true })
        }
        _ => false,
    };
    match &member.planned.intent {
        PlannedIntent::Run => {
            member.planned.failures + u32::from(fails_now) >= CRASH_LOOP && !member.is_settled()
        }
        PlannedIntent::Ended(ending) => !ending.success,
        PlannedIntent::Drain { .. } => false,
    }
}

fn fate(rules: &RestartPolicy, planned: &PlannedReplica, gone: &Gone) -> Fate {
    let quickly = match (gone.how, rules.condition) {
        (How::Stopped, _) => return Fate::Again { failures: planned.failures },
        (How::Done { .. }, RestartCondition::OnFailure | RestartCondition::None) => return Fate::Complete,
        (_, RestartCondition::None) => return Fate::GiveUp,
        (How::Lost, _) => return Fate::Again { failures: planned.failures },
        (How::Done { quickly } | How::Failed { quickly }, _) => quickly,
    };
    let failures = if quickly { planned.failures.saturating_add(1) } else { 0 };
    if quickly && rules.max_attempts.is_some_and(|max| failures >= max) {
        return Fate::GiveUp;
    }
    Fate::Again { failures }
}

/// No wait after the first quick failure: most are single events.
fn wait_after(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        more => RESTART.ceiling(more - 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_nothing_to_half_a_minute() {
        let waits: Vec<u128> = (0..6).map(|failures| wait_after(failures).as_millis()).collect();
        assert_eq!(waits, [0, 0, 100, 200, 400, 800]);
        assert_eq!(wait_after(40), Duration::from_secs(30));
    }
}
