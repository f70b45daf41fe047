//! `standfast workflow check`, as its user sees it.

use super::world::World;

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
