//! Figures, not promises: `cargo test -p standfast-platform --test main figures -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use standfast_platform::local::ProcessId;

use crate::harness::{World, kill};

/// Processor time of a process in clock ticks, and its resident memory in KiB.
fn usage(process: ProcessId) -> (u64, u64) {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid)).unwrap();
    let fields: Vec<&str> = stat[stat.rfind(')').unwrap() + 2..].split(' ').collect();
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
    (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap(), resident)
}

#[tokio::test]
#[ignore = "measures for a minute"]
async fn an_idle_agent_with_nine_replicas() {
    let mut world = World::new().await;
    let mut instances = Vec::new();
    for service in ["orders", "stock", "payments"] {
        for (slot, zone) in (0..).zip(["a", "b", "c"]) {
            instances.push(world.add(service, slot, zone, &[]));
        }
    }
    let applied = Instant::now();
    world.apply().await;
    println!("order taken after {:?}", applied.elapsed());
    for instance in &instances {
        world.serving(instance).await;
    }
    println!("nine replicas serve after {:?}", applied.elapsed());
    let agent = world.client.info().await.unwrap().process;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (before, _) = usage(agent);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let (after, resident) = usage(agent);
    println!("{:.3} % of a core, {resident} KiB resident", (after - before) as f64 / 60.0);
    let down = Instant::now();
    world.client.down().await.unwrap();
    println!("down after {:?}", down.elapsed());
}

#[tokio::test]
#[ignore = "measures"]
async fn healing_one_of_nine() {
    let mut world = World::new().await;
    let mut instances = Vec::new();
    for slot in 0..9 {
        instances.push(world.add("orders", slot, ["a", "b", "c"][slot as usize % 3], &[]));
    }
    world.apply().await;
    for instance in &instances {
        world.serving(instance).await;
    }
    let (mut shows, mut taken, mut heals) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..40 {
        let victim = world.find(&world.wanted.replicas[round % 9].instance).await.unwrap();
        let change = world.client.change_after(0).await.unwrap();
        let client = world.client.clone();
        let waiter = tokio::spawn(async move {
            client.change_after(change).await.unwrap();
            client.inventory().await.unwrap()
        });
        tokio::time::sleep(Duration::from_millis(30)).await;
        let killed = Instant::now();
        kill(victim.pid.unwrap());
        let seen = waiter.await.unwrap();
        shows.push(killed.elapsed());
        assert!(seen.replicas.iter().any(|seen| seen.instance == victim.instance && seen.has_exited()));
        let next = &mut world.wanted.replicas[round % 9].instance;
        next.attempt += 1;
        let next = next.clone();
        let ordered = Instant::now();
        world.apply().await;
        taken.push(ordered.elapsed());
        world.serving(&next).await;
        heals.push(killed.elapsed());
    }
    for (name, mut figures) in [("end visible", shows), ("order taken", taken), ("healed", heals)] {
        figures.sort();
        println!("{name}: median {:?}, p90 {:?}, worst {:?}", figures[20], figures[36], figures[39]);
    }
}

#[tokio::test]
#[ignore = "measures"]
async fn a_new_agent_after_a_kill() {
    let mut world = World::new().await;
    for slot in 0..9 {
        world.add("orders", slot, "a", &[]);
    }
    world.apply().await;
    for replica in &world.wanted.replicas {
        world.serving(&replica.instance).await;
    }
    let mut figures = Vec::new();
    for _ in 0..10 {
        world.kill_agent().await;
        let began = Instant::now();
        world.spawn_agent().await;
        figures.push(began.elapsed());
    }
    figures.sort();
    println!("a new agent answers after: median {:?}, worst {:?}", figures[5], figures[9]);
}
