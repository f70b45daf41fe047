//! Rollout: replicas that are out of date are exchanged within the service's update rules.
//!
//! Start-first never goes below the wanted number of ready replicas and at most `parallelism` above the wanted number;
//! stop-first never goes above it and at most `parallelism` below. A replica lost meanwhile counts against the same budget,
//! since only what is ready counts.

use super::StepKind;
use super::group::{Condition, Group, Member, Notes, Want, World, replicas};

impl Group<'_> {
    /// Exchanges what is out of date.
    pub(super) fn roll_out(&mut self, world: &World<'_>, notes: &mut Notes) {
        let Some(want) = self.want else { return };
        let outdated = self.count(|member| !member.is_current);
        if outdated == 0 {
            return;
        }
        if self.is_paused() {
            return self.hold(want, world, notes);
        }
        self.exchange_what_is_not_up(want, world, notes);
        if want.starts_first() {
            self.start_first(want, world, notes);
        } else {
            self.stop_first(want, world, notes);
        }
        let left = self.count(|member| !member.is_current);
        if left > 0 {
            notes.wait(format!("{} of `{}` must still be exchanged", replicas(left), self.name));
        }
    }

    /// The new revision cannot get ready: what serves stays, within the wanted number.
    fn hold(&mut self, want: Want<'_>, world: &World<'_>, notes: &mut Notes) {
        let mut beyond = self.count(|m| !m.is_current && m.is_settled()).saturating_sub(want.count);
        while beyond > 0 && !world.suspects_observer {
            let Some(index) = self.next_to_go(world, Member::is_serving) else { break };
            self.let_go(index, &format!("wanted: {}", replicas(want.count)), world, notes);
            beyond -= 1;
        }
        let old = self.count(|member| !member.is_current && member.is_serving());
        let reason =
            self.ledger.last_failure.as_ref().map_or("it does not get ready", |last| last.reason.as_str());
        notes.wait(format!(
            "the rollout of `{}` is paused: revision {} fails again and again ({reason}); {} of the old revision still serve",
            self.name,
            want.revision,
            replicas(old)
        ));
    }

    /// Old replicas that are not up yet serve nobody. When nothing serves at all, they are all exchanged at once.
    fn exchange_what_is_not_up(&mut self, want: Want<'_>, world: &World<'_>, notes: &mut Notes) {
        let something_serves = self.members.iter().any(Member::is_settled);
        let in_flight = self.count(|member| member.is_current && member.is_alive() && !member.is_settled());
        let mut left = if something_serves { want.parallelism.saturating_sub(in_flight) } else { usize::MAX };
        let mut index = 0;
        while index < self.members.len() {
            let member = &self.members[index];
            if member.is_current || !member.is_not_up_yet() || left == 0 {
                index += 1;
                continue;
            }
            left -= 1;
            let reason = format!("{} is out of date and was not ready yet", member.planned.instance);
            let is_needed = self.count(|member| member.is_current) < want.count;
            if !is_needed || !want.starts_first() {
                self.let_go(index, &reason, world, notes); // not up: it is removed, and the next one is at `index`
                continue;
            }
            if self.renew(index, want.revision.clone(), 0, world.now, &reason, world) {
                let impact = "no request is refused: it was not serving".to_owned();
                notes.step(StepKind::Update, &self.members[index].planned, reason, impact);
            }
            index += 1;
        }
    }

    fn start_first(&mut self, want: Want<'_>, world: &World<'_>, notes: &mut Notes) {
        let room = (want.count + want.parallelism).saturating_sub(self.members.len());
        let wanted = want.count.saturating_sub(self.count(|member| member.is_current));
        for _ in 0..room.min(wanted) {
            let reason = self.update_reason(want);
            let impact =
                "no request is refused: the old replica serves until the new one is ready".to_owned();
            self.start(world, want.revision.clone(), StepKind::Update, reason, impact, notes);
        }
        if world.suspects_observer {
            return;
        }
        let mut beyond = self.count(Member::is_settled).saturating_sub(want.count);
        while beyond > 0 {
            let Some(index) = self.next_to_go(world, Member::is_serving) else { break };
            self.let_go(index, &self.update_reason(want), world, notes);
            beyond -= 1;
        }
        let new_one_serves = self.members.iter().any(|member| member.is_current && member.is_settled());
        while (new_one_serves || want.count == 0) && self.count(|_| true) > want.count {
            let Some(index) = self.next_to_go(world, |member| member.condition == Condition::Unready) else {
                break;
            };
            self.let_go(index, &self.update_reason(want), world, notes);
        }
    }

    fn stop_first(&mut self, want: Want<'_>, world: &World<'_>, notes: &mut Notes) {
        if world.suspects_observer {
            return;
        }
        let lowest = want.count.saturating_sub(want.parallelism);
        let mut beyond = self.count(Member::is_settled).saturating_sub(lowest);
        while beyond > 0 {
            let Some(index) = self.next_to_go(world, Member::is_serving) else { break };
            self.let_go(index, &self.update_reason(want), world, notes);
            beyond -= 1;
        }
        let on_the_way =
            |member: &&Member| member.is_draining() || (member.is_current && !member.is_settled());
        while self.members.iter().filter(on_the_way).count() < want.parallelism {
            let Some(index) = self.next_to_go(world, |member| member.condition == Condition::Unready) else {
                break;
            };
            self.let_go(index, &self.update_reason(want), world, notes);
        }
    }

    fn update_reason(&self, want: Want<'_>) -> String {
        let only_marked = self.members.iter().all(|member| member.planned.revision == *want.revision);
        if only_marked {
            "a restart was asked for".into()
        } else {
            format!("revision {} is wanted", want.revision)
        }
    }

    /// The outdated member of a kind in the zone with the most replicas; the lowest slot of those.
    fn next_to_go(&self, world: &World<'_>, is: impl Fn(&Member) -> bool) -> Option<usize> {
        let crowd = |member: &Member| {
            self.members.iter().filter(|m| m.is_alive() && m.planned.zone == member.planned.zone).count()
        };
        let is_candidate = |member: &Member| !member.is_current && member.planned.shall_run() && is(member);
        let candidates = self.members.iter().enumerate().filter(|(_, member)| is_candidate(member));
        let key = |member: &Member| {
            let is_declared = world.is_declared(&member.planned.zone);
            (is_declared, std::cmp::Reverse(crowd(member)), member.planned.instance.replica.slot)
        };
        candidates.min_by_key(|(_, member)| key(member)).map(|(index, _)| index)
    }
}
