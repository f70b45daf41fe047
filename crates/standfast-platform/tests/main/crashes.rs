use std::time::Duration;

use standfast_platform::local::{AgentError, LocalPlatform, spawn_agent};
use standfast_platform::{ExitReason, Platform, ReplicaState};
use standfast_runtime::{Clock, RealDisk, Rng, Tasks};

use crate::harness::{LONG, World, kill, until};

#[tokio::test]
async fn a_second_agent_adopts_what_the_first_left_and_still_sees_its_end() {
    let mut world = World::new().await;
    let instances =
        [world.add("orders", 0, "a", &[]), world.add("orders", 1, "b", &[]), world.add("stock", 0, "c", &[])];
    world.apply().await;
    let mut before = Vec::new();
    for instance in &instances {
        before.push(world.serving(instance).await);
    }
    until("the ledger has them as ready", || async {
        let ledger = std::fs::read_to_string(world.config.state_dir.join("agent.json")).ok()?;
        (ledger.matches("\"is\":\"serving\"").count() == 3).then_some(())
    })
    .await;
    world.kill_agent().await;
    kill(before[2].pid.unwrap());
    world.spawn_agent().await;
    for seen in &before[..2] {
        let now = world.serving(&seen.instance).await;
        assert_eq!((now.pid, now.endpoint()), (seen.pid, seen.endpoint()));
    }
    let state = world.exited(&instances[2]).await;
    assert!(
        matches!(state, ReplicaState::Exited { reason: ExitReason::Unknown, served: Some(_), .. }),
        "{state:?}"
    );
    kill(before[0].pid.unwrap());
    let state = world.exited(&instances[0]).await;
    assert!(matches!(state, ReplicaState::Exited { reason: ExitReason::Unknown, .. }), "{state:?}");
    assert_eq!(world.client.apply(&world.wanted).await.unwrap(), standfast_platform::Applied::Unchanged);
    assert_eq!(world.client.down().await.unwrap().stopped, 1);
    assert!(world.processes().is_empty());
}

#[tokio::test]
async fn an_agent_killed_at_any_moment_of_an_order_neither_loses_nor_doubles_a_replica() {
    let mut world = World::new().await;
    for slot in 0..6 {
        world.add("orders", slot, "a", &[]);
    }
    for round in 0..6_u64 {
        world.wanted.generation = world.wanted.generation.next();
        for replica in &mut world.wanted.replicas {
            replica.instance.attempt += 1;
        }
        let (client, wanted) = (world.client.clone(), world.wanted.clone());
        let order = tokio::spawn(async move { client.apply(&wanted).await });
        tokio::time::sleep(Duration::from_millis(round * 3)).await;
        world.kill_agent().await;
        let _it_may_have_been_cut_off = order.await;
        world.spawn_agent().await;
        let again = world.client.apply(&world.wanted).await;
        assert!(again.is_ok(), "{again:?}");
        until("each replica serves or was noted as ended", || async {
            let inventory = world.client.inventory().await.ok()?;
            let settled =
                inventory.replicas.iter().filter(|seen| seen.is_serving() || seen.has_exited()).count();
            (settled == 6 && inventory.replicas.len() == 6).then_some(())
        })
        .await;
        until("only what serves runs", || async {
            let inventory = world.client.inventory().await.ok()?;
            let mut serving: Vec<u32> = inventory.replicas.iter().filter_map(|seen| seen.pid).collect();
            let mut running = world.processes();
            serving.sort_unstable();
            running.sort_unstable();
            (serving == running).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_second_agent_beside_a_living_one_is_refused() {
    let world = World::new().await;
    let first = world.client.info().await.unwrap();
    spawn_agent(&world.config, &RealDisk).unwrap();
    let log = world.config.state_dir.join("logs/agent.log");
    until("the second says why", || async {
        let text = std::fs::read_to_string(&log).ok()?;
        text.contains(&format!(
            "runs already for `{}` (process {})",
            world.config.state_dir.display(),
            first.process.pid
        ))
        .then_some(())
    })
    .await;
    assert_eq!(world.client.info().await.unwrap().process, first.process);
}

#[tokio::test]
async fn two_stacks_do_not_touch_each_other() {
    let (mut one, mut other) = (World::new().await, World::new().await);
    let (first, second) = (one.add("orders", 0, "a", &[]), other.add("orders", 0, "a", &[]));
    one.apply().await;
    other.apply().await;
    one.serving(&first).await;
    let kept = other.serving(&second).await;
    one.kill_agent().await;
    one.spawn_agent().await;
    one.client.down().await.unwrap();
    assert!(one.processes().is_empty());
    assert_eq!(other.serving(&second).await.pid, kept.pid);
    assert_eq!(other.processes(), [kept.pid.unwrap()]);
}

#[tokio::test]
async fn a_lease_that_runs_out_leaves_nothing() {
    let mut world = World::with(|config| {
        config.lease_ttl = Some(Duration::from_millis(1_500));
        config.ephemeral = true;
        config.node_command = Some(vec!["sleep".into(), "100000".into()]);
    })
    .await;
    let instance = world.add("orders", 0, "a", &[("TEST_ESCAPEE", "1")]);
    world.apply().await;
    world.serving(&instance).await;
    let agent = world.client.info().await.unwrap().process;
    let until_then = world.client.renew_lease().await.unwrap().lease_until.unwrap();
    until("the agent is gone", || async { (!agent.is_alive()).then_some(()) }).await;
    assert!(Clock::system().now() >= until_then);
    assert!(world.processes().is_empty());
    assert!(!world.config.state_dir.exists());
    assert!(world.folder().exists());
}

#[tokio::test]
async fn the_platform_goes_on_over_an_agents_death() {
    let mut world = World::new().await;
    let instance = world.add("orders", 0, "a", &[]);
    let tasks = Tasks::new();
    let platform = LocalPlatform::connect(world.client.clone(), Clock::system(), Rng::seeded(1), &tasks);
    world.wanted.generation = world.wanted.generation.next();
    platform.apply(&world.wanted).await.unwrap();
    world.serving(&instance).await;
    let mut changes = platform.changes();
    changes.mark_unchanged();
    world.kill_agent().await;
    assert!(matches!(world.client.info().await, Err(AgentError::Unreachable { .. })));
    assert!(platform.observe().await.is_err());
    world.spawn_agent().await;
    tokio::time::timeout(LONG, changes.changed()).await.unwrap().unwrap();
    until("it still serves", || async {
        platform.observe().await.ok()?.replicas[0].is_serving().then_some(())
    })
    .await;
    tasks.shutdown(&Clock::system(), LONG).await;
}

#[tokio::test]
async fn a_folder_of_another_version_is_refused() {
    let world = World::new().await;
    world.client.down().await.unwrap();
    std::fs::write(world.config.state_dir.join("version"), "99\n").unwrap();
    spawn_agent(&world.config, &RealDisk).unwrap();
    let log = world.config.state_dir.join("logs/agent.log");
    until("it says why", || async {
        std::fs::read_to_string(&log)
            .ok()?
            .contains("has state of format 99; this program reads 1")
            .then_some(())
    })
    .await;
}
