//! What every platform must do, as a suite that each implementation runs. A violation panics with what was promised.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use standfast_model::{Generation, Instance, ReplicaId, Revision, ServiceName, Stamp, ZoneName};
use standfast_runtime::Clock;

use crate::{
    Applied, ExitReason, Intent, Inventory, Launch, Platform, PlatformError, ReplicaState, SeenReplica,
    Wanted, WantedReplica,
};

/// A platform under test, and what the suite needs to do behind its back.
#[async_trait]
pub trait Subject: Sync {
    /// The platform: fresh, holding no order, with zones `a` and `b`.
    fn platform(&self) -> &dyn Platform;
    /// Its time.
    fn clock(&self) -> Clock;
    /// A launch whose replicas get ready and stay so.
    fn launch(&self) -> Launch;
    /// Ends a running replica from outside.
    async fn crash(&self, seen: &SeenReplica);
    /// Loses a zone, or gives it back.
    async fn set_zone(&self, zone: &ZoneName, is_lost: bool);
}

/// How long the suite waits for anything.
const LONG: Duration = Duration::from_secs(30);

/// Runs the whole suite, one promise after the other, on one platform.
///
/// # Panics
/// When a promise is broken.
pub async fn all(subject: &dyn Subject) {
    let mut suite = Suite { subject, held: Wanted::default(), attempts: 0 };
    suite.an_order_is_carried_out_and_the_same_again_changes_nothing().await;
    suite.an_older_or_other_order_of_the_same_number_is_refused().await;
    suite.a_malformed_order_is_refused_and_leaves_the_old_one().await;
    suite.an_ended_replica_is_told_and_not_started_again().await;
    suite.a_replica_is_not_started_before_its_time().await;
    suite.a_lost_zone_loses_its_replicas_and_starts_none().await;
    suite.draining_goes_on_serving().await;
    suite.what_is_not_listed_is_stopped_and_forgotten().await;
}

struct Suite<'a> {
    subject: &'a dyn Subject,
    held: Wanted,
    attempts: u64,
}

impl Suite<'_> {
    async fn an_order_is_carried_out_and_the_same_again_changes_nothing(&mut self) {
        let mut changes = self.subject.platform().changes();
        changes.mark_unchanged();
        let (one, other) = (self.replica(0, "a"), self.replica(1, "b"));
        assert_eq!(self.apply(vec![one.clone(), other.clone()]).await, Applied::Taken);
        let waits = self.subject.clock().timeout(LONG, changes.changed()).await;
        assert!(matches!(waits, Ok(Ok(()))), "an order that changes what is there wakes those who wait");
        let inventory = self.until("both serve", |seen| serving(seen) == 2).await;
        assert_eq!(inventory.generation, self.held.generation);
        assert!(inventory.zones.len() >= 2 && inventory.zones.values().all(|zone| zone.available));
        assert!(inventory.replicas.is_sorted_by(|one, other| one.instance < other.instance));
        for (seen, wanted) in inventory.replicas.iter().zip([&one, &other]) {
            assert_eq!(
                (&seen.instance, &seen.zone, &seen.revision),
                (&wanted.instance, &wanted.zone, &wanted.revision)
            );
            assert_eq!(seen.generation, self.held.generation, "the order that started it");
        }
        let again = self.subject.platform().apply(&self.held).await.expect("the same order again");
        assert_eq!(again, Applied::Unchanged);
        assert_eq!(self.pids().await, inventory.replicas.iter().map(|seen| seen.pid).collect::<Vec<_>>());
        // A newer order with the same content is taken, and nothing is restarted for it.
        let before = self.pids().await;
        assert_eq!(self.apply(self.held.replicas.clone()).await, Applied::Taken);
        assert_eq!(self.pids().await, before);
    }

    async fn an_older_or_other_order_of_the_same_number_is_refused(&mut self) {
        let held = self.held.generation;
        let older = Wanted { generation: Generation(held.0 - 1), ..self.held.clone() };
        let other = Wanted { replicas: Vec::new(), ..self.held.clone() };
        for wanted in [older, other] {
            match self.subject.platform().apply(&wanted).await {
                Err(PlatformError::Stale { sent, held: told }) => {
                    assert_eq!((sent, told), (wanted.generation, held))
                }
                answer => panic!("a stale order is refused, not {answer:?}"),
            }
        }
        assert_eq!(serving(&self.observe().await), 2);
    }

    async fn a_malformed_order_is_refused_and_leaves_the_old_one(&mut self) {
        let mut wanted = Wanted { generation: self.held.generation.next(), ..self.held.clone() };
        wanted.launches = BTreeMap::new();
        let answer = self.subject.platform().apply(&wanted).await;
        assert!(matches!(answer, Err(PlatformError::Refused(_))), "a revision without a launch: {answer:?}");
        assert_eq!(self.observe().await.generation, self.held.generation);
    }

    async fn an_ended_replica_is_told_and_not_started_again(&mut self) {
        let victim = self.observe().await.replicas.remove(0);
        let mut changes = self.subject.platform().changes();
        changes.mark_unchanged();
        self.subject.crash(&victim).await;
        let waits = self.subject.clock().timeout(LONG, changes.changed()).await;
        assert!(matches!(waits, Ok(Ok(()))), "an end wakes those who wait");
        let inventory =
            self.until("the end is told", |seen| seen.replicas.iter().any(SeenReplica::has_exited)).await;
        let ended =
            find(&inventory, &victim.instance).expect("an ended replica stays until an order leaves it out");
        let ReplicaState::Exited { reason, served, .. } = &ended.state else { panic!("{ended:?}") };
        assert!(!matches!(reason, ExitReason::Stopped) && served.is_some(), "{ended:?}");
        self.subject.clock().sleep(Duration::from_millis(300)).await;
        let later = self.observe().await;
        assert!(
            find(&later, &victim.instance).is_some_and(SeenReplica::has_exited),
            "it is not started again by itself"
        );
        // A new attempt is another instance, and is started.
        let next = self.replica(0, "a");
        let kept = self.held.replicas[1].clone();
        self.apply(vec![next.clone(), kept]).await;
        let inventory = self.until("the new attempt serves", |seen| serving(seen) == 2).await;
        assert!(find(&inventory, &victim.instance).is_none(), "what ended and is left out is forgotten");
    }

    async fn a_replica_is_not_started_before_its_time(&mut self) {
        let not_before = self.subject.clock().now().plus(Duration::from_millis(400));
        let late = WantedReplica { not_before, ..self.replica(2, "a") };
        let mut replicas = self.held.replicas.clone();
        replicas.push(late.clone());
        self.apply(replicas).await;
        let inventory = self.observe().await;
        let pending = find(&inventory, &late.instance).expect("what waits is in the inventory");
        if inventory.at < not_before {
            assert!(matches!(pending.state, ReplicaState::Pending { .. }), "{pending:?}");
        }
        let inventory = self
            .until("it serves", |seen| find(seen, &late.instance).is_some_and(SeenReplica::is_serving))
            .await;
        assert!(inventory.at >= not_before);
    }

    async fn a_lost_zone_loses_its_replicas_and_starts_none(&mut self) {
        let zone = zone("b");
        self.subject.set_zone(&zone, true).await;
        let lost = self.held.replicas[1].instance.clone();
        let inventory = self
            .until("its replicas are gone", |seen| find(seen, &lost).is_some_and(SeenReplica::has_exited))
            .await;
        assert!(!inventory.zones[&zone].available && inventory.zones[&zone].reason.is_some());
        let next = self.replica(1, "b");
        let mut replicas = self.held.replicas.clone();
        replicas[1] = next.clone();
        self.apply(replicas).await;
        self.subject.clock().sleep(Duration::from_millis(200)).await;
        let inventory = self.observe().await;
        let state = &find(&inventory, &next.instance).expect("it waits").state;
        assert!(matches!(state, ReplicaState::Pending { .. }), "{state:?}");
        self.subject.set_zone(&zone, false).await;
        let inventory = self
            .until("it serves", |seen| find(seen, &next.instance).is_some_and(SeenReplica::is_serving))
            .await;
        assert!(inventory.zones[&zone].available);
    }

    async fn draining_goes_on_serving(&mut self) {
        let before = self.pids().await;
        let mut replicas = self.held.replicas.clone();
        replicas[0].intent = Intent::Drain;
        self.apply(replicas).await;
        self.subject.clock().sleep(Duration::from_millis(100)).await;
        assert_eq!(self.pids().await, before, "what drains goes on until an order leaves it out");
    }

    async fn what_is_not_listed_is_stopped_and_forgotten(&mut self) {
        let kept = self.held.replicas[1].clone();
        self.apply(vec![kept.clone()]).await;
        let inventory = self.until("only the listed is left", |seen| seen.replicas.len() == 1).await;
        assert_eq!(inventory.replicas[0].instance, kept.instance);
        assert!(inventory.replicas[0].is_serving());
        self.apply(Vec::new()).await;
        self.until("nothing is left", |seen| seen.replicas.is_empty()).await;
    }

    /// A replica under an attempt that never was.
    fn replica(&mut self, slot: u32, in_zone: &str) -> WantedReplica {
        self.attempts += 1;
        let launch = self.subject.launch();
        WantedReplica {
            instance: Instance { replica: ReplicaId { service: service(), slot }, attempt: self.attempts },
            revision: Revision::of(format!("{launch:?}").as_bytes()),
            zone: zone(in_zone),
            not_before: Stamp::EPOCH,
            intent: Intent::Run,
        }
    }

    async fn apply(&mut self, replicas: Vec<WantedReplica>) -> Applied {
        let launch = self.subject.launch();
        let launches = replicas.iter().map(|replica| (replica.revision.clone(), launch.clone())).collect();
        self.held =
            Wanted { generation: self.held.generation.next(), launches, replicas, ..Wanted::default() };
        self.subject.platform().apply(&self.held).await.expect("a newer order is taken")
    }

    async fn observe(&self) -> Inventory {
        self.subject.platform().observe().await.expect("the platform answers")
    }

    async fn pids(&self) -> Vec<Option<u32>> {
        self.observe().await.replicas.iter().map(|seen| seen.pid).collect()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Inventory) -> bool) -> Inventory {
        let deadline = self.subject.clock().now().plus(LONG);
        loop {
            let inventory = self.observe().await;
            if is_so(&inventory) {
                return inventory;
            }
            assert!(self.subject.clock().now() < deadline, "not within {LONG:?}: {what}: {inventory:#?}");
            self.subject.clock().sleep(Duration::from_millis(5)).await;
        }
    }
}

fn service() -> ServiceName {
    "conformance".parse().expect("a name")
}

fn zone(name: &str) -> ZoneName {
    name.parse().expect("a name")
}

fn serving(inventory: &Inventory) -> usize {
    inventory.replicas.iter().filter(|seen| seen.is_serving()).count()
}

fn find<'a>(inventory: &'a Inventory, instance: &Instance) -> Option<&'a SeenReplica> {
    inventory.replicas.iter().find(|seen| seen.instance == *instance)
}
