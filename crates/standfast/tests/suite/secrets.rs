//! Secrets of a stack, as its user meets them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::world::{World, kill};

/// What no file of Standfast may hold.
const VALUE: &str = "hunter2-hunter2";

/// Waits for an event, then sends the secret to a file by the shell, which says it again.
const SENDS: &str = "document: {dsl: 1.0.3, namespace: tests, name: sends, version: 1.0.0}
use: {secrets: [api_key]}
do:
  - hold: {listen: {to: {one: {with: {type: go}}}}}
  - send: {run: {shell: {command: 'printf %s \"$KEY\" | tee OUT', environment: {KEY: '${ $secrets.api_key }'}}}}
";

fn world(extra: &str) -> World {
    let world = World::with_quick(extra);
    fs::create_dir_all(world.stack().join("workflows")).unwrap();
    let out = world.path().join("out").display().to_string();
    world.write("workflows/sends.yaml", &SENDS.replace("OUT", &out));
    world
}

fn write_secret(world: &World, text: &str, mode: u32) {
    world.write("api.key", text);
    fs::set_permissions(world.stack().join("api.key"), Permissions::from_mode(mode)).unwrap();
}

/// Files below a folder that hold a text.
fn holding(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            found.extend(holding(&path, text));
        } else if kind.is_file() {
            let bytes = fs::read(&path).unwrap();
            if bytes.windows(text.len()).any(|part| part == text.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}

#[test]
fn a_secret_of_the_stack_is_sent_after_a_crash_and_is_in_no_file_of_the_state_folder() {
    let world = world("secrets: {api_key: {file: api.key}}\n");
    write_secret(&world, &format!("{VALUE}\n"), 0o600);
    world.up().expect(0);
    let ran = world.run(&["workflow", "start", "sends", "--key", "k"]).expect(0);
    let id = ran.stdout.split_whitespace().next().unwrap().to_owned();
    let node = world.status()["node_pid"].as_u64().unwrap();
    kill(node, "-9");
    world.wait_for("another node", |status| status["node_pid"].as_u64().is_some_and(|pid| pid != node));
    world.run(&["workflow", "event", r#"{"id": "1", "source": "/t", "type": "go"}"#]).expect(0);
    let ended = world.run(&["workflow", "start", "sends", "--key", "k", "--wait", "30s"]).expect(0);
    assert!(ended.stdout.contains("completed \"[secret api_key]\""), "{}", ended.stdout);
    assert_eq!(fs::read_to_string(world.path().join("out")).unwrap(), VALUE);
    let shown = world.run(&["workflow", "show", &id, "--json"]).expect(0);
    let logs = world.run(&["logs"]);
    for text in [&shown.stdout, &shown.stderr, &logs.stdout, &logs.stderr] {
        assert!(!text.contains(VALUE), "{text}");
    }
    assert_eq!(holding(&world.state(), VALUE), [""; 0]);
    assert!(!holding(&world.state(), "[secret api_key]").is_empty(), "the records are not found");
}

#[test]
fn a_secret_that_changes_is_sent_as_it_is_now_and_one_that_goes_is_named() {
    let world = world("secrets: {api_key: {file: api.key}}\n");
    write_secret(&world, VALUE, 0o600);
    world.up().expect(0);
    fs::set_permissions(world.stack().join("api.key"), Permissions::from_mode(0o644)).unwrap();
    let file = world.stack().join("api.key").display().to_string();
    world.wait_for("the node to name it", |status| {
        let said = status["limitations"].to_string();
        said.contains("the secret `api_key` of") && said.contains(&file) && said.contains("chmod 600")
    });
    world.run(&["workflow", "start", "sends", "--key", "k"]).expect(0);
    world.run(&["workflow", "event", r#"{"id": "1", "source": "/t", "type": "go"}"#]).expect(0);
    let ended = world.run(&["workflow", "start", "sends", "--key", "k", "--wait", "30s"]).expect(1);
    let all = ended.stdout + &ended.stderr;
    assert!(all.contains("there is no secret `api_key`"), "{all}");
}

#[test]
fn a_secret_that_is_missing_is_named_with_its_place_before_anything_runs() {
    let world = world("");
    for arguments in [
        &["check"][..],
        &["workflow", "check"],
        &["workflow", "check", "workflows/sends.yaml"],
        &["up", "-d"],
    ] {
        let ran = world.run(arguments).expect(2);
        ran.says(&["workflows/sends.yaml:2:17", "there is no secret `api_key`", "--secret api_key=@FILE"]);
    }
    let json = world.run(&["check", "--json"]).expect(2).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["valid"], &json["diagnostics"][0]["column"]), (&false.into(), &17.into()), "{json}");
    world.write(
        "standfast.yaml",
        &super::world::quick_stack(1, "one", "secrets: {api_kye: {file: api.key}}\n"),
    );
    world.run(&["check"]).expect(2).says(&[
        "standfast.yaml:12:27",
        "api.key",
        "there is no such file",
        "umask 077",
    ]);
    write_secret(&world, VALUE, 0o640);
    world.run(&["check"]).expect(2).says(&[
        "standfast.yaml:12:27",
        "others than its owner",
        "chmod 600 api.key",
    ]);
    write_secret(&world, VALUE, 0o600);
    world.run(&["check"]).expect(2).says(&["workflows/sends.yaml:2:17", "did you mean `api_kye`?"]);
    world.write(
        "standfast.yaml",
        &super::world::quick_stack(1, "one", "secrets: {api_key: {file: api.key}}\n"),
    );
    world.run(&["check"]).expect(0);
    world.run(&["workflow", "check"]).expect(0);
    let environment = "secrets: {api_key: {environment: KEY}}\n";
    world.write("standfast.yaml", &super::world::quick_stack(1, "one", environment));
    world.run(&["check"]).expect(2).says(&["write the secret into a file"]);
}

#[test]
fn a_document_here_and_now_takes_secrets_from_files_and_the_environment() {
    let world = World::new();
    let out = world.path().join("out").display().to_string();
    let text = SENDS.replace("OUT", &out);
    let text: String =
        text.lines().filter(|line| !line.contains("listen")).map(|line| format!("{line}\n")).collect();
    world.write("sends.yaml", &text);
    let run = ["workflow", "run", "sends.yaml"];
    let with = |more: &[&str]| world.run(&[&run[..], more].concat());
    with(&[]).expect(2).says(&["sends.yaml:2:17", "--secret api_key=@FILE"]);
    write_secret(&world, &format!("{VALUE}\n"), 0o600);
    let ran = with(&["--secret", "api_key=@api.key", "--timeline", "--store", "kept"]).expect(0);
    assert_eq!(ran.stdout.trim(), "\"[secret api_key]\"");
    assert!(!ran.stderr.contains(VALUE), "{}", ran.stderr);
    assert_eq!(fs::read_to_string(&out).unwrap(), VALUE);
    assert_eq!(holding(&world.stack().join("kept"), VALUE), [""; 0]);
    let mut command = world.command(&[&run[..], &["--secret", "api_key"]].concat());
    let ran = command.env("api_key", "from-the-environment").output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(fs::read_to_string(&out).unwrap(), "from-the-environment");
    with(&["--secret", "api_key"]).expect(2).says(&["no variable `api_key`"]);
    with(&["--secret", "api_key=@none"]).expect(2).says(&["cannot read the secret `api_key` from none"]);
    let ran = with(&["--secret", &format!("api_key={VALUE}")]).expect(2);
    assert!(!ran.stderr.contains(VALUE), "{}", ran.stderr);
    ran.says(&["cannot be given on the command line", "--secret api_key=@FILE"]);
}

#[test]
fn what_runs_hold_is_sealed_on_disk_and_a_wrong_key_loses_nothing() {
    let world = World::with_quick("");
    fs::create_dir_all(world.stack().join("workflows")).unwrap();
    let hold = SENDS.lines().filter(|line| !line.contains("secrets")).map(|line| format!("{line}\n"));
    let hold: String = hold.filter(|line| !line.contains("send:")).collect();
    world.write(
        "workflows/sends.yaml",
        &hold.replace("{type: go}}}}}", "{type: go}}}}, output: {as: '$input'}}"),
    );
    for (name, byte) in [("old.key", "17"), ("new.key", "2a")] {
        world.write(name, &byte.repeat(32));
        fs::set_permissions(world.stack().join(name), Permissions::from_mode(0o600)).unwrap();
    }
    let up = |keys: &[&str]| {
        let keys: Vec<&str> = keys.iter().flat_map(|key| ["--workflow-key", key]).collect();
        world.run(&[&["up", "-d", "--listen", "127.0.0.1:0"][..], &keys].concat())
    };
    up(&["none.key"]).expect(2).says(&["none.key", "openssl rand -hex 32"]);
    up(&["old.key"]).expect(0);
    let input = format!("{{\"word\": \"{VALUE}\"}}");
    world.run(&["workflow", "start", "sends", "--key", "k", "--input", &input]).expect(0);
    let node = world.status()["node_pid"].as_u64().unwrap();
    kill(node, "-9");
    world.wait_for("another node", |status| status["node_pid"].as_u64().is_some_and(|pid| pid != node));
    assert_eq!(holding(&world.state(), VALUE), [""; 0]);
    world.run(&["down"]).expect(0);

    let ran = up(&["new.key"]);
    assert_ne!(ran.code, 0);
    ran.says(&["are sealed by the key", "give its file too, after the new one"]);
    let ran = up(&[]);
    assert_ne!(ran.code, 0);
    ran.says(&["are sealed by the key", "--workflow-key FILE"]);

    up(&["new.key", "old.key"]).expect(0);
    world.run(&["workflow", "event", r#"{"id": "1", "source": "/t", "type": "go"}"#]).expect(0);
    let ended = world.run(&["workflow", "start", "sends", "--key", "k", "--wait", "30s"]).expect(0);
    assert!(ended.stdout.contains(VALUE), "{}", ended.stdout);
    assert_eq!(holding(&world.state(), VALUE), [""; 0]);
}
