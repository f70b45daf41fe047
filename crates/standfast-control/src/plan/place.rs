//! Placing: which slot, which zone, and whether it is time.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use standfast_model::{DependsOn, Instance, ReplicaId, Revision, ServiceName, ZoneName};

use super::StepKind;
use super::group::{Condition, Group, Member, Notes, Want, World, is_current, replicas};
use super::heal::is_failing;
use crate::blueprint::{Fingerprint, PlannedIntent, PlannedReplica};

/// What services that others depend on have come to. Empty when no service waits for its first start.
#[derive(Debug)]
pub(super) struct Gates<'a>(BTreeMap<&'a ServiceName, Reached>);

#[derive(Debug, Clone, Copy)]
struct Reached {
    started: bool,
    healthy: bool,
    completed: bool,
}

impl<'a> Gates<'a> {
    pub(super) fn of(groups: &[Group<'a>]) -> Self {
        if groups.iter().all(|group| group.ledger.started) {
            return Self(BTreeMap::new());
        }
        let reached = |group: &Group<'_>| Reached {
            started: group.members.iter().any(|member| member.condition != Condition::Ordered),
            healthy: group.members.iter().any(Member::is_serving),
            completed: group.members.iter().any(|member| member.planned.has_completed()),
        };
        Self(groups.iter().map(|group| (group.name, reached(group))).collect())
    }

    /// What a service that was never started waits for, in sentences.
    fn closed_for(&self, want: &Want<'_>) -> Vec<String> {
        let mut sentences = Vec::new();
        for (name, dependency) in &want.service.depends_on {
            let reached = self.0.get(name);
            let (is_there, words) = match dependency.condition {
                DependsOn::ServiceStarted => (reached.is_some_and(|r| r.started), "start"),
                DependsOn::ServiceHealthy => (reached.is_some_and(|r| r.healthy), "be ready"),
                DependsOn::ServiceCompletedSuccessfully => {
                    (reached.is_some_and(|r| r.completed), "end with success")
                }
            };
            if !is_there {
                sentences.push(format!("`{}` waits for `{name}` to {words}", want.service.name));
            }
        }
        sentences
    }
}

impl Group<'_> {
    /// Fills the places that nothing is in.
    pub(super) fn start_missing(&mut self, world: &World<'_>, gates: &Gates<'_>, notes: &mut Notes) {
        let Some(want) = self.want else { return };
        if !self.ledger.started {
            let closed = gates.closed_for(&want);
            if !closed.is_empty() {
                notes.report.waiting.extend(closed);
                return;
            }
        }
        let is_first_start = !self.ledger.started;
        let mut missing = want.count.saturating_sub(self.count(|_| true));
        if self.is_paused() {
            // What fails takes no place from what serves, as far as the update rules leave room.
            let of_use = self.count(|member| !(member.is_current && is_failing(member)));
            let room = (want.count + want.surge()).saturating_sub(self.members.len());
            missing = want.count.saturating_sub(of_use).min(room);
        }
        if !want.starts_first() {
            let still_there = self.members.len() + self.leaving;
            let room = want.count.saturating_sub(still_there);
            if room < missing && !is_first_start {
                let more = replicas(missing - room);
                notes.wait(format!("{more} of `{}` can start when others have stopped", self.name));
                missing = room;
            }
        }
        if missing > 0 && world.zones.is_empty() {
            return notes.wait(format!(
                "{} of `{}` wait for a zone: none is available",
                replicas(missing),
                self.name
            ));
        }
        let revision = self.revision_to_add(want);
        let reason = if is_first_start { "first start" } else { "more replicas are wanted than planned" };
        for _ in 0..missing {
            let capacity = self.capacity();
            if !self.start(world, revision.clone(), StepKind::Start, reason.to_owned(), capacity, notes) {
                return;
            }
        }
        self.ledger.started = true;
        self.ledger.wanted = u32::try_from(want.count).unwrap_or(u32::MAX);
    }

    /// While the new revision cannot get ready, more of what serves.
    fn revision_to_add(&self, want: Want<'_>) -> Revision {
        let old = || self.members.iter().filter(|member| member.counts() && !member.is_current);
        match old().find(|member| member.is_serving()).or_else(|| old().next()) {
            Some(member) if self.is_paused() => member.planned.revision.clone(),
            _ => want.revision.clone(),
        }
    }

    /// Plans a replica in the lowest free slot. Says whether there was a zone for it.
    pub(super) fn start(
        &mut self,
        world: &World<'_>,
        revision: Revision,
        kind: StepKind,
        reason: String,
        impact: String,
        notes: &mut Notes,
    ) -> bool {
        let Some(zone) = self.choose_zone(world, &revision, None) else { return false };
        let taken = |index: usize| {
            self.members.get(index).is_some_and(|m| m.planned.instance.replica.slot as usize == index)
        };
        let index = (0..=self.members.len()).find(|index| !taken(*index)).unwrap_or_default();
        let slot = u32::try_from(index).unwrap_or(u32::MAX);
        let replica = ReplicaId { service: self.name.clone(), slot };
        let planned = PlannedReplica {
            instance: Instance { replica, attempt: self.ledger.attempts_floor + 1 },
            revision,
            zone,
            intent: PlannedIntent::Run,
            not_before: world.now,
            failures: 0,
            replace: false,
            why: reason.clone(),
        };
        notes.step(kind, &planned, reason, impact);
        let is_current = is_current(world, self.want.as_ref(), &planned);
        self.members
            .insert(index, Member { planned: planned.into(), condition: Condition::Ordered, is_current });
        true
    }

    /// The available zone with the fewest replicas of a kind, then the fewest at all, then the zone before, then the first from
    /// a place that depends on the service, so that services with few replicas do not all meet in the first zone.
    pub(super) fn choose_zone(
        &self,
        world: &World<'_>,
        revision: &Revision,
        instead_of: Option<usize>,
    ) -> Option<ZoneName> {
        let is_wanted = self.want.is_some_and(|want| want.revision == revision);
        let is_same_kind = |member: &Member| {
            if is_wanted { member.is_current } else { member.planned.revision == *revision }
        };
        let mut counts = vec![(0_usize, 0_usize); world.zones.len()];
        for (index, member) in self.members.iter().enumerate() {
            let place = world.zones.iter().position(|zone| **zone == member.planned.zone);
            if let Some(place) = place.filter(|_| member.is_alive() && Some(index) != instead_of) {
                counts[place].0 += usize::from(is_same_kind(member));
                counts[place].1 += 1;
            }
        }
        let before = instead_of.map(|index| &self.members[index].planned.zone);
        let (zones, first) = (world.zones.len(), self.first_zone(world.zones.len()));
        let best = (0..zones).min_by_key(|index| {
            let is_other = before.is_some_and(|before| before != world.zones[*index]);
            (counts[*index], is_other, (index + zones - first) % zones)
        });
        best.map(|index| world.zones[index].clone())
    }

    fn first_zone(&self, zones: usize) -> usize {
        let mut hash = Fingerprint::default();
        self.name.hash(&mut hash);
        (hash.finish() % zones.max(1) as u64) as usize
    }

    /// How many current members each available zone has; one member may be thought away.
    pub(super) fn spread(&self, world: &World<'_>, without: Option<usize>) -> Vec<usize> {
        let mut counts = vec![0; world.zones.len()];
        for (index, member) in self.members.iter().enumerate() {
            let place = world.zones.iter().position(|zone| **zone == member.planned.zone);
            if let Some(place) =
                place.filter(|_| member.is_current && member.is_alive() && Some(index) != without)
            {
                counts[place] += 1;
            }
        }
        counts
    }

    /// One replica at a time moves from the fullest zone to the emptiest, when all is quiet: after a lost zone came back.
    pub(super) fn rebalance(&mut self, world: &World<'_>, notes: &mut Notes) {
        let Some(want) = self.want else { return };
        let is_quiet =
            self.members.len() == want.count && self.members.iter().all(|m| m.is_current && m.is_serving());
        if !is_quiet || world.suspects_observer || self.count(Member::is_settled) < want.count {
            return;
        }
        let counts = self.spread(world, None);
        let (Some(most), Some(least)) = (counts.iter().max(), counts.iter().min()) else { return };
        if skew(&counts) <= 1 {
            return;
        }
        let reason = format!("one zone has {most} replicas and another {least}");
        if want.starts_first() {
            let impact = "no request is refused: the new replica comes before another goes".to_owned();
            self.start(world, want.revision.clone(), StepKind::Rebalance, reason, impact, notes);
        } else if let Some(index) = self.in_fullest_zone(world, Member::is_serving) {
            self.let_go(index, &reason, world, notes);
        }
    }

    /// The member with the highest slot in the zone with the most current members.
    pub(super) fn in_fullest_zone(&self, world: &World<'_>, is: impl Fn(&Member) -> bool) -> Option<usize> {
        let counts = self.spread(world, None);
        let most = counts.iter().max()?;
        let is_in_fullest = |member: &Member| {
            let place = world.zones.iter().position(|zone| **zone == member.planned.zone);
            place.is_some_and(|place| counts[place] == *most)
        };
        self.members.iter().rposition(|m| m.is_current && m.counts() && is_in_fullest(m) && is(m))
    }
}

/// From the emptiest to the fullest.
pub(super) fn skew(counts: &[usize]) -> usize {
    counts.iter().max().zip(counts.iter().min()).map_or(0, |(most, least)| most - least)
}
