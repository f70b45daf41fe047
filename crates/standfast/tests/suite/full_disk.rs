//! The disk of the state folder is full, and then not any more.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use super::lifecycle::pids;
use super::world::{Load, Ran, World, kill, request};

/// Writes of one small value that the store's files still have room for, at most, when the disk has none.
const LAST_WRITES_MAX: usize = 2_000;

/// Replicas killed until what is kept for healing was used, at most.
const ROUNDS_MAX: usize = 20;

/// Runs the test below where it may mount a disk.
#[test]
fn a_full_disk_stops_no_service_and_no_healing_and_is_over_when_there_is_room() {
    for how in [&["-m"][..], &["-r", "-m"]] {
        let is_allowed =
            Command::new("unshare").args(how).args(["sh", "-c", "mount -t tmpfs tmpfs /mnt"]).output();
        if !is_allowed.is_ok_and(|ran| ran.status.success()) {
            continue;
        }
        let ran = Command::new("unshare")
            .args(how)
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "suite::full_disk::child_with_a_small_disk", "--ignored", "--nocapture"])
            .output();
        let ran = Ran::of(ran.unwrap()).expect(0);
        assert!(ran.stdout.contains("1 passed"), "{}", ran.stdout);
        ran.stdout.lines().filter(|line| line.starts_with("FULL")).for_each(|line| println!("{line}"));
        return;
    }
    println!("mounting is not permitted here: only the store's tests see a full disk");
}

/// Takes all room that is left.
fn fill(world: &World, name: &str) {
    let mut ballast = std::fs::File::create(world.state().join(name)).unwrap();
    for size in [1 << 20, 1 << 12, 1] {
        while ballast.write_all(&vec![1; size]).is_ok() {}
    }
}

fn put(api: SocketAddr, key: &str) -> (u16, String) {
    request(api, "PUT", &format!("/v1/quick/keys/{key}"), None).unwrap()
}

/// Writes until one is refused; gives the refusal and how many went through before.
fn put_until_refused(api: SocketAddr) -> (u16, String, usize) {
    for number in 0..LAST_WRITES_MAX {
        let (status, body) = put(api, &format!("{number}"));
        if status != 200 {
            return (status, body, number);
        }
    }
    panic!("the disk is never full");
}

fn ours(status: &Value) -> (u64, u64) {
    (status["node_pid"].as_u64().unwrap(), status["agent_pid"].as_u64().unwrap())
}

fn kill_one(world: &World) {
    let victim = pids(&world.status())[0];
    kill(victim, "-9");
    world.wait_for("its replacement", |status| {
        status["all_ready"] == true && pids(status).len() == 3 && !pids(status).contains(&victim)
    });
}

#[test]
#[ignore = "runs as a child on a small disk"]
fn child_with_a_small_disk() {
    let world = World::with_small_disk("24m");
    world.up().expect(0);
    let (before, public) = (world.status(), world.public());
    let api: SocketAddr = before["state_api"].as_str().unwrap().parse().unwrap();
    assert_eq!(put(api, "early").0, 200);
    let load = Load::start(public, "GET", "/who", false);

    fill(&world, "ballast");
    let (status, body, written) = put_until_refused(api);
    println!("\nFULL after {written} more writes: {status} {body}");
    assert_eq!(status, 507, "{body}");
    assert!(body.contains("disk_full") && body.contains("\"retry\":true"), "{body}");
    assert_eq!(request(api, "GET", "/v1/quick/keys/early", None).unwrap().0, 200, "reads go on");
    let full = world.status();
    assert_eq!(full["all_ready"], true, "{full:#}");
    for round in 1..=3 {
        let began = std::time::Instant::now();
        kill_one(&world);
        println!("FULL and healed for the {round}. time, in {:?}", began.elapsed());
        let (status, body, written) = put_until_refused(api);
        println!("FULL after {written} more writes");
        assert_eq!(status, 507, "{body}");
    }
    let said = world.status()["limitations"].to_string();
    assert!(said.contains("disk") && said.contains("full"), "{said}");
    let plan = world.run(&["plan"]).expect(0);
    assert!(plan.stdout.contains("nothing to do"), "{}", plan.stdout);

    // Others take what healing was to have: then what dies stays dead, the rest goes on, and it is said why.
    let is_given_away = || std::fs::metadata(world.state().join("reserve")).unwrap().len() == 0;
    (0..ROUNDS_MAX).take_while(|_| !is_given_away()).for_each(|_| kill_one(&world));
    assert!(is_given_away());
    fill(&world, "more ballast");
    while put(api, "last").0 == 200 {}
    let victim = pids(&world.status())[0];
    kill(victim, "-9");
    let without = world.wait_for("the reason", |status| status["waiting"].to_string().contains("full"));
    println!("FULL and nothing kept: {}", without["waiting"]);
    assert_eq!(pids(&without).iter().filter(|pid| **pid != victim).count(), 2, "{without:#}");

    for ballast in ["ballast", "more ballast"] {
        std::fs::remove_file(world.state().join(ballast)).unwrap();
    }
    world
        .wait_for("its replacement", |status| status["all_ready"] == true && !pids(status).contains(&victim));
    assert_eq!(put(api, "late").0, 200, "writes come back by themselves");
    kill_one(&world);
    let after = world.status();
    assert!(!after["limitations"].to_string().contains("full"), "{after:#}");
    assert_eq!(ours(&after), ours(&before), "node and agent stayed up");
    let (sent, failed) = load.finish();
    assert!(failed.is_empty(), "{} of {sent} failed: {:?}", failed.len(), &failed[..failed.len().min(5)]);
    println!("FULL and all of {sent} requests were answered");
    world.run(&["down"]).expect(0);
    assert!(world.processes().is_empty(), "{:?}", world.processes());
}
