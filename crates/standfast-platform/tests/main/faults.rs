use std::time::Duration;

use standfast_model::Stamp;
use standfast_platform::ReplicaState;
use standfast_platform::local::{AgentError, FaultKind, FaultOrder, ProcessId};
use standfast_runtime::Clock;

use crate::harness::{World, instance, until, zone};

fn order(id: &str, kind: FaultKind, lasts: Duration) -> FaultOrder {
    FaultOrder { id: id.into(), kind, until: Clock::system().now().plus(lasts) }
}

#[tokio::test]
async fn a_kill_bites_and_says_so() {
    let mut world = World::new().await;
    let replica = world.add("orders", 0, "a", &[]);
    world.apply().await;
    let pid = world.serving(&replica).await.pid;
    let order = order("k1", FaultKind::KillInstance { instance: replica.clone() }, Duration::ZERO);
    let seen = world.client.inject(&order).await.unwrap();
    assert!(seen.bit && seen.ended.is_some(), "{seen:?}");
    assert_eq!(Some(seen.targets[0].process.pid), pid);
    assert!(seen.targets[0].hit.is_some());
    world.exited(&replica).await;
    assert_eq!(world.client.inject(&order).await.unwrap(), seen, "the same order again changes nothing");
    let other = FaultOrder { kind: FaultKind::LoseZone { zone: zone("a") }, ..order };
    assert!(matches!(world.client.inject(&other).await, Err(AgentError::Refused(_))));
}

#[tokio::test]
async fn a_freeze_ends_at_its_time_even_when_the_agent_was_killed() {
    let mut world = World::new().await;
    let replica =
        world.add_with("orders", 0, "a", &[], |launch| launch.healthcheck.timeout = Duration::from_secs(60));
    world.apply().await;
    let seen = world.serving(&replica).await;
    let process = ProcessId::of(seen.pid.unwrap()).unwrap();
    let kind = FaultKind::FreezeInstance { instance: replica.clone() };
    let fault = world.client.inject(&order("f1", kind, Duration::from_secs(2))).await.unwrap();
    assert!(fault.bit && fault.ended.is_none(), "{fault:?}");
    assert_eq!(process.state(), Some('T'));
    world.kill_agent().await;
    assert_eq!(process.state(), Some('T'));
    world.spawn_agent().await;
    until("it runs again", || async { (process.state() != Some('T')).then_some(()) }).await;
    let ended = until("the fault's end is noted", || async {
        world.client.verify("f1").await.ok().filter(|seen| seen.ended.is_some())
    })
    .await;
    assert!(ended.bit && ended.ended >= Some(fault.order.until), "{ended:?}");
    assert!(world.serving(&replica).await.pid == seen.pid);
}

#[tokio::test]
async fn a_lost_zone_is_empty_and_starts_nothing_until_it_is_healed() {
    let mut world = World::new().await;
    let lost = [world.add("orders", 0, "b", &[]), world.add("stock", 0, "b", &[])];
    let kept = world.add("orders", 1, "a", &[]);
    world.apply().await;
    for replica in lost.iter().chain([&kept]) {
        world.serving(replica).await;
    }
    let fault = order("z1", FaultKind::LoseZone { zone: zone("b") }, Duration::from_secs(600));
    let seen = world.client.inject(&fault).await.unwrap();
    assert!(seen.bit && seen.targets.len() == 2, "{seen:?}");
    for replica in &lost {
        world.exited(replica).await;
    }
    for replica in world.wanted.replicas.iter_mut().filter(|replica| replica.zone == zone("b")) {
        replica.instance.attempt = 2;
    }
    world.apply().await;
    let inventory = world.inventory().await;
    assert!(!inventory.zones[&zone("b")].available && inventory.zones[&zone("a")].available);
    let pending = world.find(&instance("orders", 0, 2)).await.unwrap().state;
    assert!(
        matches!(&pending, ReplicaState::Pending { reason } if reason.contains("zone `b` is lost")),
        "{pending:?}"
    );
    world.kill_agent().await;
    world.spawn_agent().await;
    let seen = world.client.verify("z1").await.unwrap();
    assert!(seen.bit && seen.starts_refused == 2, "{seen:?}");
    assert!(world.find(&kept).await.unwrap().is_serving());
    world.client.heal("z1").await.unwrap();
    for replica in &lost {
        let mut next = replica.clone();
        next.attempt = 2;
        world.serving(&next).await;
    }
    assert!(world.inventory().await.zones[&zone("b")].available);
}

#[tokio::test]
async fn faults_need_leave_a_target_and_an_end() {
    let mut world = World::with(|config| config.faults_allowed = false).await;
    let replica = world.add("orders", 0, "a", &[]);
    let kind = FaultKind::KillInstance { instance: replica };
    let refused = world.client.inject(&order("k", kind.clone(), Duration::ZERO)).await;
    assert!(matches!(refused, Err(AgentError::Forbidden(_))), "{refused:?}");
    let world = World::new().await;
    let refused = world.client.inject(&order("k", kind.clone(), Duration::ZERO)).await;
    assert!(matches!(refused, Err(AgentError::NotFound(_))), "{refused:?}");
    let endless = FaultOrder { id: "k".into(), kind, until: Stamp::from_micros(u64::MAX) };
    assert!(matches!(world.client.inject(&endless).await, Err(AgentError::Refused(_))));
}

#[cfg(feature = "planted-bugs")]
#[tokio::test]
async fn planted_bugs_are_visible_to_who_looks() {
    use standfast_platform::local::PlantedBug;
    let mut world =
        World::with(|config| config.planted = vec![PlantedBug::AlwaysHealthy, PlantedBug::FaultDoesNothing])
            .await;
    let replica = world.add("orders", 0, "a", &[("TEST_SLOW_START_MS", "600000")]);
    world.apply().await;
    let seen = world.serving(&replica).await;
    let kill = order("k", FaultKind::KillInstance { instance: replica.clone() }, Duration::ZERO);
    let fault = world.client.inject(&kill).await.unwrap();
    assert!(!fault.bit && fault.ended.is_some(), "{fault:?}");
    let loss = order("z", FaultKind::LoseZone { zone: zone("a") }, Duration::from_secs(60));
    assert!(!world.client.inject(&loss).await.unwrap().bit);
    assert_eq!(world.find(&replica).await.unwrap().pid, seen.pid);
}
