//! `prove` from outside, on a small stack.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::world::{Ran, World, kill, wait};

/// A load of keyed writes, what must hold, and a few faults.
const PROOF: &str = "
load:
  work: {method: POST, path: /do, idempotency_key: true, rate: 60/s, timeout: 5s}
invariants:
  - {name: every request has one effect, load: work, effects: {service: quick, prefix: ledger/}, per: id, exactly: 1}
experiments:
  - {fault: replica-kill, times: 2, every: 500ms}
  - {fault: zone-loss, lasts: 1s}
  - {fault: node-kill}
  - {fault: agent-kill}
";

fn start(world: &World) -> Child {
    let mut command = world.command(&["prove", "--seed", "7"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Processes of the stack under test: all that carry the world's mark but `prove` itself.
fn of_the_stack(world: &World, prove: &Child) -> Vec<(u32, String)> {
    world.processes().into_iter().filter(|(pid, _)| *pid != prove.id()).collect()
}

fn scratch_folders(world: &World) -> Vec<String> {
    let names = std::fs::read_dir(world.path()).unwrap().flatten();
    names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|n| n.contains("prove"))
        .collect()
}

/// The page as a real browser understands it.
fn in_a_browser(world: &World, page: &str) -> String {
    let url = format!("file://{}", world.stack().join(page).display());
    let profile = format!("--user-data-dir={}", world.path().join("browser").display());
    let mut arguments =
        vec!["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"];
    arguments.extend(["--disable-background-networking", "--disable-component-update", "--disable-sync"]);
    arguments.extend([profile.as_str(), "--dump-dom", url.as_str()]);
    let browsers = ["chromium", "chromium-browser", "google-chrome"];
    let ran = browsers.iter().find_map(|browser| Command::new(browser).args(&arguments).output().ok());
    let output = ran.expect("a browser is needed: cargo xtask test installs chromium");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_sound_stack_holds_and_nothing_is_left() {
    let world = World::with_quick(PROOF);
    let output = world.command(&["prove", "--seed", "7", "--json", "--junit", "junit.xml"]).output().unwrap();
    let ran = Ran::of(output).expect(0);
    let report: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!(report["record"]["options"]["seed"], 7);
    assert!(world.processes().is_empty(), "{:?}", world.processes());
    assert!(scratch_folders(&world).is_empty(), "{:?}", scratch_folders(&world));
    let page = in_a_browser(&world, "standfast-report/report.html");
    for part in ["Held", "every request has one effect", "<svg", "lose zone", "kill node", "kill agent"] {
        assert!(page.contains(part), "the page shows no `{part}`");
    }
    let junit = std::fs::read_to_string(world.stack().join("junit.xml")).unwrap();
    assert!(junit.contains("every request has one effect"), "{junit}");
}

#[test]
fn ctrl_c_ends_a_proof_and_leaves_nothing() {
    let world = World::with_quick(PROOF);
    let mut prove = start(&world);
    wait("replicas", || (of_the_stack(&world, &prove).len() >= 5).then_some(()));
    kill(prove.id().into(), "-INT");
    let code = prove.wait().unwrap().code();
    assert_eq!(code, Some(130));
    assert!(world.processes().is_empty(), "{:?}", world.processes());
    assert!(scratch_folders(&world).is_empty());
}

#[test]
fn a_proof_that_is_killed_leaves_nothing_once_its_lease_is_over() {
    let world = World::with_quick(PROOF);
    let mut prove = start(&world);
    wait("replicas", || (of_the_stack(&world, &prove).len() >= 5).then_some(()));
    prove.kill().unwrap();
    prove.wait().unwrap();
    wait("everything to end by itself", || world.processes().is_empty().then_some(()));
    wait("the scratch folder to go", || scratch_folders(&world).is_empty().then_some(()));
}

#[test]
fn a_stack_that_cannot_be_proven_says_what_is_missing() {
    let world = World::with_quick("");
    world.run(&["prove"]).expect(2).says(&["load", "hint"]);
}
