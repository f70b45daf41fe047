//! A stack's life: up, found again, changed, killed in part, down.

use serde_json::Value;

use super::world::{Load, World, kill, quick_stack, request, wait};

pub(crate) fn pids(status: &Value) -> Vec<u64> {
    let replicas = status["services"]["quick"]["replicas"].as_array().unwrap();
    let mut pids: Vec<u64> = replicas.iter().filter_map(|replica| replica["pid"].as_u64()).collect();
    pids.sort_unstable();
    pids
}

#[test]
fn a_stack_comes_up_serves_is_found_again_and_leaves_nothing() {
    let world = World::with_quick("");
    let up = world.up().expect(0);
    assert!(up.stdout.contains("3/3"), "{}", up.stdout);
    let status = world.status();
    assert_eq!(status["all_ready"], true);
    for zone in ["a", "b", "c"] {
        assert_eq!(status["services"]["quick"]["zones"][zone], 1, "{status:#}");
    }
    let (code, who) = request(world.public(), "GET", "/who", None).unwrap();
    assert_eq!(code, 200);
    assert!(who.starts_with("quick-"), "{who}");
    let (_, url) = request(world.public(), "GET", "/env/QUICK_URL", None).unwrap();
    let inner = url.strip_prefix("http://").unwrap().parse().unwrap();
    assert_eq!(request(inner, "GET", "/who", None).unwrap().0, 200);

    world.run(&["up", "-d"]).expect(0).says(&["runs already"]);
    assert_eq!(pids(&world.status()), pids(&status), "a second `up` must leave everything alone");
    wait("log lines", || world.run(&["logs"]).stdout.contains("serving version one in zone b").then_some(()));

    world.run(&["down"]).expect(0);
    assert!(world.processes().is_empty(), "{:?}", world.processes());
    assert!(request(status["public"].as_str().unwrap().parse().unwrap(), "GET", "/", None).is_err());
}

#[test]
fn a_change_is_planned_and_rolled_out_without_a_failed_request() {
    let world = World::with_quick("");
    world.up().expect(0);
    world.run(&["plan"]).expect(0);
    let old = pids(&world.status());
    world.write("standfast.yaml", &quick_stack(3, "two", ""));
    let plan: Value = serde_json::from_str(&world.run(&["plan", "--json"]).expect(0).stdout).unwrap();
    assert!(!plan["steps"].as_array().unwrap().is_empty(), "{plan:#}");
    world.run(&["apply", "--plan", "0000"]).expect(2).says(&["plan"]);

    let load = Load::start(world.public(), "GET", "/who", false);
    world.run(&["apply", "--plan", plan["plan"].as_str().unwrap()]).expect(0);
    world.wait_for("all replicas to be new", |status| {
        status["all_ready"] == true
            && pids(status).len() == 3
            && pids(status).iter().all(|pid| !old.contains(pid))
    });
    let (sent, failed) = load.finish();
    assert!(failed.is_empty(), "{} of {sent} failed: {:?}", failed.len(), &failed[..failed.len().min(5)]);
    assert!(request(world.public(), "GET", "/who", None).unwrap().1.ends_with("two"));

    let before = pids(&world.status());
    world.run(&["restart", "--service", "quick"]).expect(0);
    world.wait_for("all replicas to be replaced", |status| {
        status["all_ready"] == true
            && pids(status).len() == 3
            && pids(status).iter().all(|pid| !before.contains(pid))
    });
    world.write("standfast.yaml", &quick_stack(1, "two", ""));
    world.run(&["apply", "--yes"]).expect(0);
    world.wait_for("one replica", |status| status["all_ready"] == true && pids(status).len() == 1);
}

#[test]
fn the_plan_of_a_stack_that_does_not_run_is_its_first_start() {
    let world = World::with_quick("");
    let text = world.run(&["plan"]).expect(0).says(&["does not run", "standfast up"]);
    for part in ["add quick", "start", "quick-0 in zone", "quick-2 in zone"] {
        assert!(text.stdout.contains(part), "`{part}` is missing in:\n{}", text.stdout);
    }
    let first: Value = serde_json::from_str(&world.run(&["plan", "--json"]).expect(0).stdout).unwrap();
    assert_eq!(first["running"], false);
    assert_eq!(first["steps"].as_array().unwrap().len(), 3, "{first:#}");
    assert!(first["steps"].as_array().unwrap().iter().all(|step| step["act"] == "start"), "{first:#}");
    assert!(world.processes().is_empty() && !world.state().exists(), "a plan does nothing");
    world.run(&["apply", "--yes"]).expect(2).says(&["does not run", "standfast up"]);

    world.up().expect(0);
    let then: Value = serde_json::from_str(&world.run(&["plan", "--json"]).expect(0).stdout).unwrap();
    assert_eq!(
        (&then["running"], then["steps"].as_array().unwrap().len()),
        (&Value::Bool(true), 0),
        "{then:#}"
    );
    let placed: Vec<String> = world.status()["services"]["quick"]["replicas"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} in zone {}", one["replica"].as_str().unwrap(), one["zone"].as_str().unwrap()))
        .collect();
    for step in first["steps"].as_array().unwrap() {
        let what = step["what"].as_str().unwrap();
        assert!(placed.iter().any(|one| one == what), "`{what}` was planned, and it became {placed:?}");
    }
}

#[test]
fn a_killed_replica_fails_no_request_and_is_replaced() {
    let world = World::with_quick("");
    world.up().expect(0);
    for (method, path, keyed) in [("GET", "/slow/3", false), ("POST", "/do", true)] {
        let load = Load::start(world.public(), method, path, keyed);
        for _ in 0..4 {
            let status = world.wait_for("all to be ready", |status| status["all_ready"] == true);
            let victim = pids(&status)[0];
            kill(victim, "-9");
            world.wait_for("its replacement", |status| {
                status["all_ready"] == true && !pids(status).contains(&victim)
            });
        }
        let (sent, failed) = load.finish();
        assert!(
            failed.is_empty(),
            "{} of {sent} {method} failed: {:?}",
            failed.len(),
            &failed[..failed.len().min(5)]
        );
    }
    let restarts = world.status()["services"]["quick"]["restarts"].as_u64().unwrap();
    assert!(restarts >= 8, "{restarts}");
}

#[test]
fn a_killed_node_refuses_no_connection_and_stops_no_replica() {
    let world = World::with_quick("");
    world.up().expect(0);
    let before = world.status();
    let (public, node) = (world.public(), before["node_pid"].as_u64().unwrap());
    let load = Load::start(public, "GET", "/who", false);
    kill(node, "-9");
    let after = world.wait_for("another node", |status| {
        status["node_pid"].as_u64().is_some_and(|pid| pid != node) && status["all_ready"] == true
    });
    let (sent, failed) = load.finish();
    assert_eq!(pids(&after), pids(&before));
    // What was under way in the node is cut off, as four clients can have it; none may be refused.
    assert!(failed.len() <= 4, "{} of {sent}: {failed:?}", failed.len());
    assert!(!failed.iter().any(|why| why.contains("refused")), "{failed:?}");
    assert_eq!(world.public(), public);
}

#[test]
fn a_killed_agent_fails_no_request_and_the_next_one_adopts_the_replicas() {
    let world = World::with_quick("");
    world.up().expect(0);
    let before = world.status();
    let agent = before["agent_pid"].as_u64().unwrap();
    let load = Load::start(world.public(), "GET", "/who", false);
    kill(agent, "-9");
    let after = world.wait_for("another agent", |status| {
        status["agent_pid"].as_u64().is_some_and(|pid| pid != agent) && status["all_ready"] == true
    });
    assert_eq!(pids(&after), pids(&before));
    assert_eq!(after["node_pid"], before["node_pid"]);
    let victim = pids(&after)[0];
    kill(victim, "-9");
    world.wait_for("the adopted replica's replacement", |status| {
        status["all_ready"] == true && !pids(status).contains(&victim) && pids(status).len() == 3
    });
    let (sent, failed) = load.finish();
    assert!(failed.is_empty(), "{} of {sent} failed: {:?}", failed.len(), &failed[..failed.len().min(5)]);
    let node = after["node_pid"].as_u64().unwrap();
    kill(node, "-9");
    world.wait_for("a node of the new agent", |status| {
        status["node_pid"].as_u64().is_some_and(|pid| pid != node) && status["all_ready"] == true
    });
    world.run(&["down"]).expect(0);
    assert!(world.processes().is_empty(), "{:?}", world.processes());
}

#[test]
fn what_is_left_after_all_of_ours_was_killed_is_adopted_by_the_next_up() {
    let world = World::with_quick("");
    world.up().expect(0);
    let before = world.status();
    kill(before["agent_pid"].as_u64().unwrap(), "-STOP"); // so that neither can start the other again
    kill(before["node_pid"].as_u64().unwrap(), "-9");
    kill(before["agent_pid"].as_u64().unwrap(), "-9");
    world.up().expect(0);
    assert_eq!(pids(&world.status()), pids(&before));
}
