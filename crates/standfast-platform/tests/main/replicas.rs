use std::time::{Duration, Instant};

use standfast_model::{Limits, Probe};
use standfast_platform::{ExitReason, ReplicaState};

use crate::harness::{World, environment_of, kill, signal, until};

#[tokio::test]
async fn a_replica_gets_its_place_and_its_environment_and_serves() {
    let mut world = World::new().await;
    let instance = world.add("orders", 0, "b", &[("GREETING", "hello")]);
    let variables = [("SHIPPING_URL".to_owned(), "http://127.0.0.1:1".to_owned())];
    world.wanted.zone_environment.insert("b".parse().unwrap(), variables.into());
    world.apply().await;
    let seen = world.serving(&instance).await;
    let address = seen.endpoint().unwrap();
    assert!(address.to_string().starts_with("127.") && address.to_string().contains(".2.1:"), "{address}");
    let environment = environment_of(&seen).await;
    let value = |name: &str| environment.get(name).map(String::as_str).unwrap_or_default();
    assert_eq!(
        (value("STANDFAST_REPLICA"), value("STANDFAST_ZONE"), value("GREETING")),
        ("orders-0", "b", "hello")
    );
    assert_eq!(
        (value("SHIPPING_URL"), value("PORT")),
        ("http://127.0.0.1:1", address.port().to_string().as_str())
    );
    assert!(value("STANDFAST_INSTANCE").starts_with("shop/orders-0.1/1/"));
    assert_eq!(value("CARGO_MANIFEST_DIR"), "", "what the agent's starter had must not leak");
    assert_eq!(world.client.down().await.unwrap().stopped, 1);
    assert!(world.processes().is_empty());
}

#[tokio::test]
async fn a_kill_shows_within_milliseconds_and_a_new_attempt_starts_at_once() {
    let mut world = World::new().await;
    let instance = world.add("orders", 0, "a", &[]);
    world.apply().await;
    let (mut shows, mut heals) = (Vec::new(), Vec::new());
    let mut current = instance;
    for _ in 0..10 {
        let seen = world.serving(&current).await;
        let change = world.client.change_after(0).await.unwrap();
        let client = world.client.clone();
        let waiter = tokio::spawn(async move { client.change_after(change).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        let killed = Instant::now();
        kill(seen.pid.unwrap());
        waiter.await.unwrap().unwrap();
        shows.push(killed.elapsed());
        current.attempt += 1;
        world.wanted.replicas[0].instance = current.clone();
        world.apply().await;
        world.serving(&current).await;
        heals.push(killed.elapsed());
    }
    shows.sort();
    heals.sort();
    println!("visible {shows:?}\nhealed {heals:?}");
    assert!(
        shows[5] < Duration::from_millis(200) && heals[5] < Duration::from_secs(2),
        "{shows:?} {heals:?}"
    );
}

#[tokio::test]
async fn an_end_by_itself_is_told_with_its_code_and_last_words() {
    let mut world = World::new().await;
    let instance = world.add(
        "orders",
        0,
        "a",
        &[("TEST_EXIT_AFTER_MS", "100"), ("TEST_EXIT_CODE", "7"), ("TEST_LINES", "50")],
    );
    world.apply().await;
    let ReplicaState::Exited { reason, last_output, .. } = world.exited(&instance).await else {
        unreachable!()
    };
    assert_eq!(reason, ExitReason::Code(7));
    assert_eq!(last_output.len(), 20);
    assert!(
        last_output.contains(&"exiting as told".to_owned()) && last_output.contains(&"line 49".to_owned())
    );
}

#[tokio::test]
async fn one_that_ignores_sigterm_dies_with_its_whole_group() {
    let mut world = World::new().await;
    let extra = [("TEST_IGNORE_SIGTERM", "1"), ("TEST_CHILD", "1")];
    let instance = world
        .add_with("orders", 0, "a", &extra, |launch| launch.stop_grace_period = Duration::from_millis(300));
    world.apply().await;
    world.serving(&instance).await;
    assert_eq!(world.processes().len(), 2);
    world.wanted.replicas.clear();
    world.apply().await;
    until("it is gone from the inventory", || async { world.find(&instance).await.is_none().then_some(()) })
        .await;
    assert!(world.processes().is_empty());
}

#[tokio::test]
async fn one_that_fled_from_its_group_is_found() {
    for control_groups in [true, false] {
        let mut world = World::with(|config| config.control_groups = control_groups).await;
        let instance = world.add("orders", 0, "a", &[("TEST_ESCAPEE", "1")]);
        world.apply().await;
        let seen = world.serving(&instance).await;
        until("both processes run", || async { (world.processes().len() == 2).then_some(()) }).await;
        kill(seen.pid.unwrap());
        let state = world.exited(&instance).await;
        assert!(
            matches!(state, ReplicaState::Exited { reason: ExitReason::Signal(9), served: Some(_), .. }),
            "{state:?}"
        );
        until("no process is left", || async { world.processes().is_empty().then_some(()) }).await;
    }
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let mut world = World::new().await;
    let missing =
        world.add_with("orders", 0, "a", &[], |launch| launch.command = vec!["no-such-program".into()]);
    let nowhere =
        world.add_with("orders", 1, "a", &[], |launch| launch.working_dir = "/no/such/folder".into());
    world.apply().await;
    for (instance, part) in
        [(missing, "is not in PATH (/usr/bin:/bin)"), (nowhere, "`/no/such/folder` is not there")]
    {
        let state = world.exited(&instance).await;
        let ReplicaState::Exited { reason: ExitReason::NotStarted(why), served: None, .. } = &state else {
            panic!("{state:?}")
        };
        assert!(why.contains(part), "{why}");
    }
}

#[tokio::test]
async fn one_that_says_no_gets_no_traffic_and_is_killed_after_its_retries() {
    let mut world = World::new().await;
    let instance = world.add_with("orders", 0, "a", &[("TEST_UNHEALTHY_AFTER_MS", "200")], |launch| {
        launch.healthcheck.interval = Duration::from_millis(100);
    });
    world.apply().await;
    until("it is unready or gone", || async {
        let state = world.find(&instance).await?.state;
        matches!(state, ReplicaState::Unready { .. } | ReplicaState::Exited { .. }).then_some(())
    })
    .await;
    let state = world.exited(&instance).await;
    let ReplicaState::Exited { reason: ExitReason::Unhealthy(why), .. } = &state else { panic!("{state:?}") };
    assert_eq!(why, "GET /healthz answered 503");
}

#[tokio::test]
async fn a_frozen_one_is_found_out_by_its_silence() {
    let mut world = World::new().await;
    let instance = world.add_with("orders", 0, "a", &[], |launch| {
        launch.healthcheck.interval = Duration::from_millis(100);
        launch.healthcheck.timeout = Duration::from_millis(300);
    });
    world.apply().await;
    let seen = world.serving(&instance).await;
    signal(seen.pid.unwrap(), rustix::process::Signal::STOP);
    let state = world.exited(&instance).await;
    assert!(matches!(state, ReplicaState::Exited { reason: ExitReason::Unhealthy(_), .. }), "{state:?}");
}

#[tokio::test]
async fn one_that_listens_on_localhost_only_is_found_there() {
    let mut world = World::new().await;
    let instance = world.add("orders", 0, "c", &[("TEST_LOCALHOST", "1"), ("TEST_SLOW_START_MS", "100")]);
    world.apply().await;
    let seen = world.serving(&instance).await;
    assert_eq!(seen.endpoint().unwrap().ip().to_string(), "127.0.0.1");
    let limitations = world.inventory().await.limitations;
    assert!(
        limitations.iter().any(|text| text.contains("`orders` listens on 127.0.0.1 only")),
        "{limitations:?}"
    );
}

#[tokio::test]
async fn probes_by_command_by_port_and_none_all_lead_to_readiness() {
    let mut world = World::new().await;
    let probes = [
        Probe::Tcp,
        Probe::None,
        Probe::Command { command: vec!["sh".into(), "-c".into(), "test -n \"$PORT\"".into()] },
    ];
    let mut instances = Vec::new();
    for (slot, probe) in (0..).zip(probes) {
        instances.push(world.add_with("orders", slot, "a", &[], |launch| launch.healthcheck.probe = probe));
    }
    let failing = Probe::Command { command: vec!["false".into()] };
    let sick = world.add_with("sick", 0, "a", &[], |launch| {
        launch.healthcheck.probe = failing;
        launch.healthcheck.start_period = Duration::ZERO;
        launch.healthcheck.interval = Duration::from_millis(100);
    });
    world.apply().await;
    for instance in &instances {
        world.serving(instance).await;
    }
    let state = world.exited(&sick).await;
    assert!(
        matches!(&state, ReplicaState::Exited { reason: ExitReason::Unhealthy(why), .. } if why.contains("false")),
        "{state:?}"
    );
}

#[tokio::test]
async fn limits_are_enforced_or_said_not_to_be() {
    let mut world = World::new().await;
    let limits = Limits { cpu_millis: Some(500), memory_bytes: Some(64 << 20), pids: Some(20) };
    let instance = world.add_with("orders", 0, "a", &[], |launch| launch.limits = limits);
    world.apply().await;
    let seen = world.serving(&instance).await;
    let limitations = world.inventory().await.limitations;
    let groups =
        || std::fs::read_to_string(format!("/proc/{}/cgroup", seen.pid.unwrap())).unwrap_or_default();
    for controller in ["cpu", "memory", "pids"] {
        let is_said =
            limitations.iter().any(|text| text.starts_with(&format!("{controller} limits are not enforced")));
        if !is_said {
            until("it is in its group", || async { groups().contains("orders-0.1").then_some(()) }).await;
        }
    }
    println!("{limitations:?}\n{}", groups());
    world.client.down().await.unwrap();
    for root in ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/memory", "/sys/fs/cgroup"] {
        let fingerprint = standfast_platform::local::StateDir::new(&world.config.state_dir).fingerprint();
        let left = std::path::Path::new(root).join("standfast").join(format!("shop-{fingerprint}"));
        assert!(!left.exists(), "{}", left.display());
    }
}

#[tokio::test]
async fn when_most_are_silent_at_once_the_observer_is_suspected_and_none_is_killed() {
    let mut world = World::new().await;
    let mut instances = Vec::new();
    for slot in 0..5 {
        instances.push(world.add_with("orders", slot, "a", &[], |launch| {
            launch.healthcheck.interval = Duration::from_millis(200);
            launch.healthcheck.timeout = Duration::from_millis(500);
        }));
    }
    world.apply().await;
    let mut pids = Vec::new();
    for instance in &instances {
        pids.push(world.serving(instance).await.pid.unwrap());
    }
    pids.iter().for_each(|pid| signal(*pid, rustix::process::Signal::STOP));
    let is_suspected = || async {
        let limitations = world.inventory().await.limitations;
        limitations.iter().any(|text| text.contains("the observer is suspected"))
    };
    until("the observer is suspected", || async { is_suspected().await.then_some(()) }).await;
    pids.iter().for_each(|pid| signal(*pid, rustix::process::Signal::CONT));
    for (instance, pid) in instances.iter().zip(pids) {
        assert_eq!(world.serving(instance).await.pid, Some(pid));
    }
    until("the suspicion is over", || async { (!is_suspected().await).then_some(()) }).await;
}
