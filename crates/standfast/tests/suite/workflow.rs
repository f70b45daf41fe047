//! `standfast workflow check`, as its user sees it.

use super::world::{World, kill};

const GOOD: &str = "document: {dsl: 1.0.3, namespace: shop, name: checkout, version: 1.0.0}
do:
  - reserve: {call: http, with: {method: post, endpoint: 'http://inventory.example/{sku}'}}
  - pause: {wait: PT1S}
";

#[test]
fn good_documents_are_named_and_bad_ones_told_with_their_places() {
    let world = World::new();
    std::fs::create_dir(world.stack().join("workflows")).unwrap();
    world.write("workflows/checkout.yaml", GOOD);
    world.write("workflows/notes.txt", "no document");
    let ran = world.run(&["workflow", "check"]).expect(0);
    assert_eq!(ran.stdout, "ok workflows/checkout.yaml: shop checkout 1.0.0, 2 tasks\n");

    world.write(
        "workflows/refund.yaml",
        &GOOD.replace("wait: PT1S", "wait: soon, then: resreve, if: '.a | frist'"),
    );
    let ran = world.run(&["workflow", "check"]).expect(2);
    assert!(ran.stdout.contains("ok workflows/checkout.yaml"), "{}", ran.stdout);
    ran.says(&[
        "workflows/refund.yaml:4:19",
        "workflows/refund.yaml:4:31",
        "did you mean `reserve`?",
        "there is no function `frist`",
        "3 errors in 1 document",
    ]);
    let answer: serde_json::Value =
        serde_json::from_str(&world.run(&["workflow", "check", "--json"]).expect(2).stdout).unwrap();
    assert_eq!((answer["valid"].as_bool(), answer["files"].as_array().unwrap().len()), (Some(false), 2));
    assert_eq!(answer["files"][0]["tasks"], 2);
    assert_eq!(answer["files"][1]["diagnostics"].as_array().unwrap().len(), 3, "{answer}");
}

#[test]
fn a_good_document_is_drawn_and_a_bad_one_is_not() {
    let world = World::new();
    world.write("checkout.yaml", GOOD);
    let ran = world.run(&["workflow", "render", "checkout.yaml"]).expect(0);
    for part in
        ["flowchart TD", "reserve<br>POST http://inventory.example/{sku}", "t1 --> t2", "finish([\"end\"])"]
    {
        assert!(ran.stdout.contains(part), "`{part}` is missing in:\n{}", ran.stdout);
    }
    world.write("checkout.yaml", &GOOD.replace("PT1S", "soon"));
    let ran = world.run(&["workflow", "render", "checkout.yaml"]).expect(2);
    assert_eq!(ran.stdout, "");
    ran.says(&[
        "checkout.yaml:4:19",
        "the document cannot be drawn",
        "standfast workflow check checkout.yaml",
    ]);
}

/// Whoever redirects the answer must learn that it is not there.
#[test]
fn an_answer_that_finds_no_room_is_an_error() {
    let world = World::with_quick("");
    world.write("checkout.yaml", GOOD);
    for arguments in [
        &["workflow", "render", "checkout.yaml"][..],
        &["workflow", "check", "checkout.yaml"],
        &["check", "--json"],
        &["schema"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let ran = world.command(arguments).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(3), "{arguments:?}: {said}");
        assert!(said.contains("No space left on device"), "{arguments:?}: {said}");
    }
}

#[test]
fn what_is_called_like_a_document_and_is_none_is_told() {
    let world = World::new();
    let folder = world.stack().join("workflows");
    std::fs::create_dir_all(folder.join("folder.yaml")).unwrap();
    world.write("workflows/checkout.yaml", GOOD);
    world.run(&["workflow", "check"]).expect(0);
    std::os::unix::fs::symlink("/nonexistent", folder.join("refund.yaml")).unwrap();
    let ran = world.run(&["workflow", "check"]).expect(2);
    assert!(ran.stdout.contains("ok workflows/checkout.yaml"), "{}", ran.stdout);
    ran.says(&["cannot read workflows/refund.yaml: there is no such file", "hint"]);
}

#[test]
fn a_folder_without_documents_is_told() {
    let world = World::new();
    world.run(&["workflow", "check"]).expect(2).says(&["cannot read workflows: there is no such file"]);
    std::fs::create_dir(world.stack().join("workflows")).unwrap();
    world.write("workflows/notes.txt", "");
    world.run(&["workflow", "check"]).expect(2).says(&["there is no workflow in workflows", "hint"]);
}

const COUNTS: &str = "document: {dsl: 1.0.3, namespace: tests, name: count, version: 1.0.0}
do:
  - ask: {call: http, with: {method: get, endpoint: 'http://count.example/{n}'}}
  - wait: {wait: {days: 1}}
  - sum: {set: '${ {sum: ([limit(.body.n; repeat(2))] | add)} }'}
";

const CASES: &str = "workflow: count.yaml
cases:
  counts:
    input: {n: 3}
    answers: [{task: ask, http: {body: {body: {n: 3}}}}]
    expect: {output: {sum: 6}, took: P1D, asked: [{uri: 'http://count.example/3'}]}
  is wrong:
    input: {n: 3}
    answers: [{task: ask, http: {body: {body: {n: 4}}}}]
    expect: {output: {sum: 6}}
";

const NIGHTLY: &str = "document:
  dsl: 1.0.3
  namespace: tests
  name: nightly
  version: 1.0.0
  metadata: {standfast: {schedule: {timeZone: Europe/Berlin}}}
schedule: {cron: '30 2 * * *'}
do: [a: {set: {a: 1}}]
";

const NIGHTS: &str = "workflow: nightly.yaml
schedule:
  after: 2026-03-28T12:00:00+01:00
  due: ['2026-03-29T03:00:00+02:00', '2026-03-30T02:30:00+02:00']
";

#[test]
fn schedules_are_tested_in_their_time_zones() {
    let world = World::new();
    world.write("nightly.yaml", NIGHTLY);
    world.write("nightly.test.yaml", NIGHTS);
    world.run(&["workflow", "test", "nightly.test.yaml"]).expect(0).says(&["1 case, all as expected"]);
    world.write("nightly.yaml", &NIGHTLY.replace("30 2", "0 2"));
    world.run(&["workflow", "test", "nightly.test.yaml"]).expect(1);
    world.write("nightly.yaml", &NIGHTLY.replace("30 2", "31 2"));
    let ran = world.run(&["workflow", "test", "nightly.test.yaml"]).expect(1);
    assert!(
        ran.stdout.contains(
            "found    2026-03-29T03:00:00+02:00[Europe/Berlin], 2026-03-30T02:31:00+02:00[Europe/Berlin]"
        ),
        "{}",
        ran.stdout
    );
    world.write("nightly.test.yaml", "workflow: nightly.yaml\nschedule: {after: yesterday, due: []}\n");
    world
        .run(&["workflow", "test", "nightly.test.yaml"])
        .expect(2)
        .says(&["nightly.test.yaml:2:19", "nightly.test.yaml:2:35"]);
    world.write("nightly.yaml", &NIGHTLY.replace("Berlin", "Berln"));
    world
        .run(&["workflow", "check", "nightly.yaml"])
        .expect(2)
        .says(&["nightly.yaml:6:47", "did you mean `Europe/Berlin`?"]);
}

#[test]
fn documents_are_tested_on_faked_time_with_recorded_answers() {
    let world = World::new();
    world.write("count.yaml", COUNTS);
    world.write("count.test.yaml", CASES);
    let ran = world.run(&["workflow", "test", "count.test.yaml"]).expect(1);
    assert!(ran.stdout.contains("ok count.test.yaml: counts (3 tasks, 1d00h of its time)"), "{}", ran.stdout);
    assert!(ran.stdout.contains("expected {\"sum\":6}\n       found    {\"sum\":8}"), "{}", ran.stdout);
    ran.says(&["1 of 2 cases not as expected"]);
    world.run(&["workflow", "test", "count.test.yaml", "--case", "counts"]).expect(0);
    world.write("count.test.yaml", &CASES.replace("answers:", "answer:"));
    world
        .run(&["workflow", "test", "count.test.yaml"])
        .expect(2)
        .says(&["count.test.yaml:5:5", "did you mean `answers`?"]);
}

#[test]
fn a_document_is_run_here_and_now_and_goes_on_by_its_key() {
    let world = World::new();
    let document = "document: {dsl: 1.0.3, namespace: tests, name: here, version: 1.0.0}
do:
  - say: {run: {shell: {command: 'echo $1', arguments: ['${ .who }']}}}
  - end: {set: {said: '${ . }'}}
";
    world.write("here.yaml", document);
    let run = ["workflow", "run", "here.yaml", "--input", "{\"who\": \"you\"}"];
    let ran = world.run(&run).expect(0);
    assert_eq!(ran.stdout, "{\n  \"said\": \"you\"\n}\n");
    let kept = [&run[..], &["--store", "kept", "--key", "k", "--json"]].concat();
    let id = |ran: &str| serde_json::from_str::<serde_json::Value>(ran).unwrap()["run"]["id"].clone();
    let first = id(&world.run(&kept).expect(0).stdout);
    assert_eq!(id(&world.run(&kept).expect(0).stdout), first, "the same key is the same run");
    world.write("here.yaml", &document.replace("echo $1", "echo broken >&2; exit 3"));
    world.run(&run).expect(1).says(&["/do/0/say", "ended with code 3: broken", "add --timeline"]);
    world.run(&["workflow", "run", "here.yaml", "--input", "{"]).expect(2).says(&["the input is not JSON"]);
}

#[test]
fn a_timeline_tells_what_was_undone_and_what_could_not_be() {
    let world = World::new();
    world.write(
        "saga.yaml",
        "document: {dsl: 1.0.3, namespace: tests, name: saga, version: 1.0.0}
do:
  - one: {run: {shell: {command: echo one}}, metadata: {standfast: {compensate: [{undo: {run: {shell: {command: echo undone}}}}]}}}
  - two: {set: {a: 1}, metadata: {standfast: {compensate: [{undo: {run: {shell: {command: exit 3}}}}]}}}
  - all:
      for: {in: '[1, 2]'}
      metadata: {standfast: {concurrency: 2}}
      do: [{each: {set: '${ $item }'}}]
  - three: {run: {shell: {command: exit 4}}}
",
    );
    world.run(&["workflow", "run", "saga.yaml", "--timeline"]).expect(1).says(&[
        "/do/2/all begins with 2 items, side by side",
        "a round of /do/2/all yields 1",
        "the run is undone, since runtime",
        "/do/1/two could not be undone: runtime",
        "/do/0/one was undone",
        "not undone: /do/1/two",
    ]);
}

#[test]
fn runs_of_a_stack_go_on_when_the_node_is_killed() {
    let world = World::with_quick("");
    std::fs::create_dir_all(world.stack().join("workflows")).unwrap();
    world.write(
        "workflows/pause.yaml",
        "document: {dsl: 1.0.3, namespace: tests, name: pause, version: 1.0.0}
do:
  - hold: {listen: {to: {one: {with: {type: go}}}}, output: {as: '.[0]'}}
",
    );
    world.write(
        "workflows/asked.yaml",
        "document: {dsl: 1.0.3, namespace: tests, name: asked, version: 1.0.0, metadata: {standfast: {queries: {order: .input.order}}}}
do:
  - ask: {listen: {to: {one: {with: {type: io.standfast.signal.approve}}}}}
",
    );
    world.write(
        "workflows/sum.yaml",
        "document: {dsl: 1.0.3, namespace: tests, name: sum, version: 1.0.0}
do:
  - a: {set: {n: '${ .n + 1 }'}}
",
    );
    world.up().expect(0);
    let ran = world.run(&["workflow", "start", "pause", "--key", "k"]).expect(0);
    let id = ran.stdout.split_whitespace().next().unwrap().to_owned();
    let node = world.status()["node_pid"].as_u64().unwrap();
    kill(node, "-9");
    world.wait_for("another node", |status| status["node_pid"].as_u64().is_some_and(|pid| pid != node));
    let shown = world.run(&["workflow", "show", &id]).expect(0);
    assert!(shown.stdout.contains("/do/0/hold waits for event"), "{}", shown.stdout);
    let again = world.run(&["workflow", "start", "pause", "--key", "k"]).expect(0);
    assert!(again.stdout.starts_with(&id), "{}", again.stdout);
    world
        .run(&["workflow", "event", r#"{"id": "1", "source": "/t", "type": "go", "data": {"n": 1}}"#])
        .expect(0);
    let ended = world.run(&["workflow", "start", "pause", "--key", "k", "--wait", "30s"]).expect(0);
    assert!(ended.stdout.contains("completed {\"n\":1}"), "{}", ended.stdout);
    let listed = world.run(&["workflow", "list", "--status", "completed"]).expect(0);
    assert!(listed.stdout.contains(&id), "{}", listed.stdout);
    world.run(&["workflow", "cancel", &id]).expect(2).says(&["has ended"]);
    world.run(&["workflow", "retry", &id]).expect(2).says(&["only a faulted one is retried"]);
    let redone = world.run(&["workflow", "redo", &id, "--from", "/do/0/hold", "--wait", "30s"]).expect(0);
    assert!(
        redone.stdout.contains("completed {\"n\":1}") && !redone.stdout.starts_with(&id),
        "{}",
        redone.stdout
    );
    world.run(&["workflow", "start", "pause", "--input", "{\"who\": \"me\"}"]).expect(0);
    let found = ["workflow", "list", "--input", "who=me", "--started-after", "1h", "--json"];
    let found: serde_json::Value = serde_json::from_str(&world.run(&found).expect(0).stdout).unwrap();
    assert_eq!(found["runs"].as_array().unwrap().len(), 1, "{found}");
    let cancel = ["workflow", "cancel", "--workflow", "pause"];
    world.run(&cancel).expect(2).says(&["nothing is done yet: cancel is for 1 run", "--yes"]);
    world.run(&[&cancel[..], &["--dry-run"]].concat()).expect(0).says(&["is for 1 run; nothing is done"]);
    let ran = world.run(&[&cancel[..], &["--yes"]].concat()).expect(0);
    assert!(ran.stdout.contains("became cancelled"), "{}", ran.stdout);
    world.run(&cancel[..2]).expect(2).says(&["it is not said which runs are meant"]);
    world.run(&[&cancel[..], &[&id]].concat()).expect(2).says(&["name the run alone"]);
    world
        .run(&["workflow", "start", "nobody"])
        .expect(2)
        .says(&["there are tests/asked, tests/pause, tests/sum"]);
    world.run(&["workflow", "event", "nope"]).expect(2).says(&[r#"hint: write JSON: '{"id": "7", "source""#]);
    tells_and_asks(&world);
    redoes(&world);
    migrates(&world);
    world.write("workflows/broken.yaml", "do: []\n");
    world.run(&["check"]).expect(2).says(&["workflows/broken.yaml"]);
    // Without it the stack can be taken down again.
    std::fs::remove_file(world.stack().join("workflows/broken.yaml")).unwrap();
}

/// Signals and queries of a run of the stack that runs.
fn tells_and_asks(world: &World) {
    let started = world.run(&["workflow", "start", "asked", "--input", r#"{"order": "o-1"}"#]).expect(0);
    let id = started.stdout.split_whitespace().next().unwrap();
    let asked = world.run(&["workflow", "query", id, "order"]).expect(0);
    assert_eq!(asked.stdout.trim(), "\"o-1\"");
    world.run(&["workflow", "query", id, "nothing"]).expect(2).says(&["no query `nothing`; it has order"]);
    world.run(&["workflow", "signal", id, "a/b"]).expect(2).says(&["`a/b` is no signal"]);
    let told = ["workflow", "signal", id, "approve", "--data", r#"{"by": "me"}"#, "--key", "k", "--json"];
    let told: serde_json::Value = serde_json::from_str(&world.run(&told).expect(0).stdout).unwrap();
    assert_eq!(told["id"], id);
    let shown = world.run(&["workflow", "show", id]).expect(0);
    assert!(shown.stdout.contains("is told {"), "{}", shown.stdout);
    world.run(&["workflow", "signal", id, "approve"]).expect(2).says(&["has ended"]);
    let ended = ["workflow", "query", id, "order", "--json"];
    let ended: serde_json::Value = serde_json::from_str(&world.run(&ended).expect(0).stdout).unwrap();
    assert_eq!(ended, serde_json::json!({"id": id, "query": "order", "value": "o-1"}));
    world.run(&["workflow", "list", "--status", "parked"]).expect(0);
}

/// A task of a run that has ended is done again with something else.
fn redoes(world: &World) {
    let started =
        world.run(&["workflow", "start", "sum", "--input", r#"{"n": 1}"#, "--wait", "30s"]).expect(0);
    assert!(started.stdout.contains("completed {\"n\":2}"), "{}", started.stdout);
    let redo = ["workflow", "redo", started.stdout.split_whitespace().next().unwrap(), "--from", "/do/0/a"];
    let redone = world.run(&[&redo[..], &["--input", r#"{"n": 5}"#, "--wait", "30s"]].concat()).expect(0);
    assert!(redone.stdout.contains("completed {\"n\":6}"), "{}", redone.stdout);
    std::fs::write(world.stack().join("seven.json"), r#"{"n": 7}"#).unwrap();
    let file = world.stack().join("seven.json");
    let file = ["--input-file", file.to_str().unwrap(), "--wait", "30s", "--json"];
    let redone = world.run(&[&redo[..], &file].concat()).expect(0);
    let redone: serde_json::Value = serde_json::from_str(&redone.stdout).unwrap();
    assert_eq!(redone["output"], serde_json::json!({"n": 8}));
    world.run(&[&redo[..], &["--input", "nope"]].concat()).expect(2).says(&["the input is not JSON"]);
}

/// Runs go over to a version of their document that came later.
fn migrates(world: &World) {
    let version = |version: &str, tasks: &str| {
        format!("document: {{dsl: 1.0.3, namespace: tests, name: moves, version: {version}}}\ndo:\n{tasks}")
    };
    let wait = "  - w: {wait: {days: 1}}\n";
    world.write("workflows/moves.yaml", &version("1.0.0", wait));
    world.run(&["apply", "--yes"]).expect(0);
    let id = |ran: &str| ran.split_whitespace().next().unwrap().to_owned();
    let one = id(&world.run(&["workflow", "start", "moves"]).expect(0).stdout);
    let other = id(&world.run(&["workflow", "start", "moves"]).expect(0).stdout);
    world.write("workflows/moves.yaml", &version("2.0.0", &format!("  - a: {{set: {{n: 1}}}}\n{wait}")));
    world.write("workflows/moves3.yaml", &version("3.0.0", "  - b: {set: {n: 1}}\n"));
    world.run(&["apply", "--yes"]).expect(0);
    let stays = world.run(&["workflow", "migrate", &one, "--to", "3.0.0"]).expect(1);
    let why = "! /do/0/w: it is under way, and version 3.0.0 has no task of that name there";
    assert!(stays.stdout.contains(why), "{}", stays.stdout);
    stays.says(&["1 of 1 run did not go over"]);
    let gone = world.run(&["workflow", "migrate", &one, "--to", "2.0.0"]).expect(0);
    assert!(gone.stdout.contains("goes over  moves:1.0.0 -> 2.0.0"), "{}", gone.stdout);
    assert!(gone.stdout.contains("- /do/0/a: stands before what is reached"), "{}", gone.stdout);
    let many = ["workflow", "migrate", "--workflow", "tests/moves", "--from", "1.0.0", "--to", "latest"];
    world.run(&many).expect(1).says(&["1 of 1 run cannot go over"]);
    let many = [&many[..7], &["2.0.0"]].concat();
    world.run(&many).expect(2).says(&["nothing is done yet: 1 of 1 run can go over", "--yes"]);
    let dry = world.run(&[&many[..], &["--dry-run", "--json"]].concat()).expect(0);
    let dry: serde_json::Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!((&dry["runs"][0]["id"], &dry["runs"][0]["verdict"]), (&other.into(), &"goes".into()));
    world.run(&[&many[..], &["--yes"]].concat()).expect(0).says(&["1 run: gone over"]);
    let shown = world.run(&["workflow", "show", &one]).expect(0);
    for part in ["goes on by version 2.0.0", "/do/1/w waits for time"] {
        assert!(shown.stdout.contains(part), "`{part}` is missing in:\n{}", shown.stdout);
    }
    world.run(&["workflow", "migrate", "--to", "2.0.0"]).expect(2).says(&["it is not said which runs"]);
    world.run(&["workflow", "migrate", &one, "--to", "9.0.0"]).expect(1).says(&["1 of 1 run did not"]);
}

/// Whoever wants to stop a stack need not first mend what it does not need for that.
#[test]
fn a_changed_document_is_named_by_the_plan_and_a_broken_one_stops_neither_status_nor_down() {
    let world = World::with_quick("");
    std::fs::create_dir(world.stack().join("workflows")).unwrap();
    world.write("workflows/checkout.yaml", GOOD);
    assert!(world.run(&["check"]).expect(0).stdout.contains("1 workflows"));
    world.up().expect(0);

    world.write("workflows/checkout.yaml", &GOOD.replace("PT1S", "PT2S"));
    world.write("workflows/refund.yaml", &GOOD.replace("checkout", "refund"));
    let said = ["update workflows/checkout.yaml", "add workflows/refund.yaml"];
    for command in [&["plan"][..], &["apply", "--yes"]] {
        let ran = world.run(command).expect(0);
        for part in said {
            assert!(ran.stdout.contains(part), "`{part}` is missing in:\n{}", ran.stdout);
        }
    }
    let ran = world.run(&["apply", "--yes"]).expect(0);
    assert!(ran.stdout.contains("nothing to do"), "{}", ran.stdout);

    world.write("workflows/refund.yaml", "do: soon");
    world.run(&["apply", "--yes"]).expect(2);
    world.run(&["status"]).expect(0).says(&["warning:", "workflows/refund.yaml"]);
    std::fs::write(world.stack().join("workflows/refund.yaml"), b"do: \xff\xfe").unwrap();
    let said = "workflows/refund.yaml is not UTF-8: see byte 4";
    world.run(&["check"]).expect(2).says(&[said]);
    world.run(&["status"]).expect(0).says(&["warning:", said]);
    world.run(&["down"]).expect(0).says(&["warning:", said, "down"]);
    assert!(world.processes().is_empty(), "{:?}", world.processes());
}

#[test]
fn a_load_of_a_workflow_that_is_not_there_is_told() {
    let load = "load: {paid: {workflow: test/pya, rate: 1, body: {id: \"${id}\"}}}\n";
    let world = World::with_quick(load);
    std::fs::create_dir(world.stack().join("workflows")).unwrap();
    world.write("workflows/checkout.yaml", GOOD);
    world.run(&["check"]).expect(2).says(&["`paid`", "`test/pya`", "there is shop/checkout"]);
    world.write(
        "standfast.yaml",
        &super::world::quick_stack(3, "one", &load.replace("{id: \"${id}\"}", "{id: one}")),
    );
    world.run(&["check"]).expect(2).says(&["the input of the runs holds no `${id}`", "standfast.yaml:"]);
}
