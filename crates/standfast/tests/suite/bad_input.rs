//! Mistakes of users: each is told with its place and the next step.

use super::world::World;

#[test]
fn a_stack_with_ten_mistakes_prints_all_ten_with_line_and_column() {
    let world = World::new();
    world.write(
        "standfast.yaml",
        "name: Shop
zones: [a, a]
services:
  orders:
    comand: [x]
    deploy: {replicas: many}
    depends_on: [inventry]
    stop_grace_period: soon
  inventory:
    command: [y]
    healthcheck: {http: healthz}
    deploy: {replica: 3}
routes:
  - {path: orders, to: orders}
  - {path: /x, to: nobody}
",
    );
    let ran = world.run(&["check", "--json"]).expect(2);
    let answer: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    let errors: Vec<(u64, u64)> = answer["diagnostics"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["severity"] == "error")
        .map(|one| (one["line"].as_u64().unwrap(), one["column"].as_u64().unwrap()))
        .collect();
    for expected in
        [(1, 7), (2, 12), (5, 5), (6, 24), (7, 18), (8, 24), (11, 25), (12, 14), (14, 12), (15, 20)]
    {
        assert!(errors.contains(&expected), "no error at {expected:?}: {errors:?}\n{}", ran.stdout);
    }
    let text = world.run(&["check"]).expect(2);
    for part in [
        "standfast.yaml:12:14",
        "did you mean `replicas`",
        "did you mean `inventory`",
        "standfast.yaml:15:20",
    ] {
        assert!(text.stderr.contains(part), "`{part}` is missing in:\n{}", text.stderr);
    }
}

#[test]
fn no_stack_is_an_error_that_says_where_one_was_looked_for() {
    let world = World::new();
    world.run(&["check"]).expect(2).says(&["standfast.yaml", "hint"]);
}

#[test]
fn a_stack_that_does_not_run_is_told_with_the_command_that_starts_it() {
    let world = World::with_quick("");
    world.run(&["status"]).expect(2).says(&["does not run", "standfast up"]);
    world.run(&["down"]).expect(0).says(&["does not run"]);
}

#[test]
fn a_build_that_fails_shows_its_output_and_how_to_run_it_by_hand() {
    let world = World::new();
    world.write(
        "standfast.yaml",
        "name: broken
services:
  one:
    build: {command: [sh, -c, 'echo the compiler is unhappy; exit 3']}
    command: [sleep, '1']
",
    );
    world.up().expect(2).says(&["cannot build one", "the compiler is unhappy", "by hand"]);
}

#[test]
fn a_missing_program_and_a_service_that_ends_at_once_are_told_by_name() {
    let world = World::new();
    world.write(
        "standfast.yaml",
        "name: broken
services:
  absent: {command: [/nowhere/to/be/found]}
  quits: {command: [sh, -c, 'echo I cannot go on; exit 7']}
",
    );
    let ran = world.up().expect(1);
    for part in ["/nowhere/to/be/found", "code 7", "I cannot go on"] {
        assert!(ran.stdout.contains(part), "`{part}` is missing in:\n{}\n{}", ran.stdout, ran.stderr);
    }
    assert!(world.processes().is_empty(), "{:?}", world.processes());
}

#[test]
fn a_port_in_use_is_named() {
    let world = World::with_quick("");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = world.run(&["up", "-d", "--listen", &address]).expect(2);
    let ran = ran.says(&["in use", "--listen"]);
    assert!(ran.stderr.contains(&taken.local_addr().unwrap().port().to_string()), "{}", ran.stderr);
    assert!(world.processes().is_empty(), "{:?}", world.processes());
}

#[test]
fn a_state_folder_of_another_version_is_refused() {
    let world = World::with_quick("");
    world.up().expect(0);
    world.run(&["down"]).expect(0);
    std::fs::write(world.state().join("node.json"), r#"{"version": 99}"#).unwrap();
    world.up().expect(2).says(&["99", "hint"]);
}

#[test]
fn a_state_folder_that_cannot_be_made_is_told() {
    let world = World::with_quick("");
    std::fs::write(world.state(), "a file, no folder").unwrap();
    world.up().expect(2).says(&["cannot use the state folder", "--state"]);
}
