//! Going: replicas that are no longer wanted get no new requests, then some time, and then are left out of the order.

use std::sync::Arc;

use standfast_model::ZoneName;

use super::StepKind;
use super::group::{Condition, Group, Member, Notes, World, replicas};
use super::place::skew;
use crate::blueprint::PlannedIntent;
use crate::config::DRAIN;

impl Group<'_> {
    /// Leaves out those whose drain is over.
    pub(super) fn finish_drains(&mut self, world: &World<'_>, notes: &mut Notes) {
        for index in (0..self.members.len()).rev() {
            let PlannedIntent::Drain { until } = self.members[index].planned.intent else { continue };
            let is_over = until <= world.now || self.members[index].is_gone();
            if is_over {
                let member = self.remove(index);
                let impact = format!("none: it has had no new requests for {DRAIN:?}");
                let reason = format!("{} has been drained", member.planned.instance);
                notes.step(StepKind::Stop, &member.planned, reason, impact);
            } else {
                notes.wake_at(until);
                notes.wait(format!("{} finishes what it has", self.members[index].planned.instance));
            }
        }
    }

    /// Lets a member go: one that served is drained first.
    pub(super) fn let_go(&mut self, index: usize, reason: &str, world: &World<'_>, notes: &mut Notes) {
        let has_requests =
            matches!(self.members[index].condition, Condition::Serving { .. } | Condition::Unready);
        if has_requests {
            let until = world.now.plus(DRAIN);
            notes.wake_at(until);
            Arc::make_mut(&mut self.members[index].planned).intent = PlannedIntent::Drain { until };
            let impact = format!(
                "no request is refused: it ends what it has within {DRAIN:?}, and {}",
                self.capacity()
            );
            notes.step(StepKind::Drain, &self.members[index].planned, reason.to_owned(), impact);
        } else {
            let member = self.remove(index);
            let impact = "none: it was not serving".to_owned();
            notes.step(StepKind::Stop, &member.planned, reason.to_owned(), impact);
        }
    }

    /// A service that is no longer wanted: all its replicas go. When the whole stack goes, nobody sends requests any more.
    pub(super) fn retire_all(&mut self, world: &World<'_>, notes: &mut Notes) {
        let is_down = world.policy.stack().is_none();
        for index in (0..self.members.len()).rev() {
            if self.members[index].is_draining() && !is_down {
                continue;
            }
            if is_down {
                let member = self.remove(index);
                let impact = format!("`{}` stops", self.name);
                notes.step(StepKind::Stop, &member.planned, "the stack goes down".into(), impact);
            } else {
                self.let_go(index, "the stack has this service no more", world, notes);
            }
        }
        self.finish_drains(world, notes);
        self.ledger.started = false;
        self.ledger.wanted = 0;
        self.ledger.last_failure = None;
    }

    /// What is gone is not replaced when there are more than enough places.
    pub(super) fn drop_dead_surplus(&mut self, world: &World<'_>, notes: &mut Notes) {
        let Some(want) = self.want else { return };
        while self.count(|_| true) > want.count {
            let is_dead = |member: &Member| member.planned.shall_run() && member.is_gone();
            let beyond_surge = self.count(|_| true) > want.count + want.surge();
            let goes = |member: &Member| beyond_surge || self.goes_on_to_new(member.planned.failures);
            let outdated = self.members.iter().rposition(|m| is_dead(m) && !m.is_current && goes(m));
            let spare = || {
                (0..self.members.len()).rev().find(|i| is_dead(&self.members[*i]) && self.is_spare(*i, world))
            };
            let Some(index) = outdated.or_else(spare) else { return };
            self.let_go(index, "it has ended, and enough others are planned", world, notes);
        }
    }

    /// Fewer current replicas are wanted than planned: from the fullest zone, the newest, those that do not serve first; and of
    /// those that serve only as many as are ready beyond the wanted number. When none of these can go, one that does not serve
    /// goes from the fullest zone that has one, so that no emptier zone gets emptier than where this plan has just healed.
    pub(super) fn scale_down(&mut self, world: &World<'_>, notes: &mut Notes) {
        let Some(want) = self.want else { return };
        while self.count(|member| member.is_current) > want.count {
            let is_idle = |member: &Member| {
                let is_doubtful = member.condition == Condition::Unready && world.suspects_observer;
                member.is_alive() && !member.is_serving() && !is_doubtful
            };
            let may_drain = self.count(Member::is_settled) > want.count && !world.suspects_observer;
            let ended = self.members.iter().rposition(|m| m.is_current && m.condition == Condition::Ended);
            let victim = ended
                .or_else(|| self.in_fullest_zone(world, is_idle))
                .or_else(|| if may_drain { self.in_fullest_zone(world, Member::is_serving) } else { None })
                .or_else(|| self.spare_in_fullest_zone(world, is_idle));
            let Some(index) = victim else {
                let more = self.count(|member| member.is_current) - want.count;
                return notes.wait(format!(
                    "{} of `{}` can go when enough others are ready",
                    replicas(more),
                    self.name
                ));
            };
            self.let_go(index, &format!("wanted: {}", replicas(want.count)), world, notes);
        }
    }

    /// The newest that is one too many, of a kind, in the fullest of the zones that have one.
    fn spare_in_fullest_zone(&self, world: &World<'_>, is: impl Fn(&Member) -> bool) -> Option<usize> {
        let newest_in = |zone: &&ZoneName| {
            self.members.iter().rposition(|m| m.is_current && m.planned.zone == **zone && is(m))
        };
        let crowd = |index: &usize| {
            let zone = &self.members[*index].planned.zone;
            self.count(|m| m.is_current && m.is_alive() && m.planned.zone == *zone)
        };
        let newest = world.zones.iter().filter_map(newest_in);
        newest.filter(|index| self.is_spare(*index, world)).max_by_key(crowd)
    }

    /// Whether a current member is one too many, and not the one that a move between zones has just brought.
    fn is_spare(&self, index: usize, world: &World<'_>) -> bool {
        let Some(want) = self.want else { return true };
        let current = self.count(|member| member.is_current);
        let may_be_moving = want.starts_first() && current <= want.count + 1;
        self.members[index].is_current
            && current > want.count
            && (!may_be_moving || skew(&self.spread(world, Some(index))) <= 1)
    }
}
