//! Files that documents name: read once, when the definition is made, and kept with it.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use standfast_runtime::Clock;
use standfast_workflow::{BadDefinition, Definition, EngineConfig, FolderAndNetwork, Status};

use super::peer::{Peer, ok, status};
use super::rig::{Rig, embedded};

const HEAD: &str = "document: { dsl: '1.0.3', namespace: tests, name: files, version: '1.0.0' }\n";

async fn read(folder: &Path, rest: &str) -> Result<Definition, BadDefinition> {
    let reader = FolderAndNetwork::new(Some(folder.to_owned()), Clock::system());
    Definition::read("files", &format!("{HEAD}{rest}"), &reader).await
}

fn write(folder: &Path, path: &str, text: &str) {
    let file = folder.join(path);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

const ALL: &str = "
input:
  schema: { resource: { endpoint: 'file://schemas/order.yaml' } }
use:
  catalogs:
    here: { endpoint: 'file://catalog' }
do:
  - shout:
      call: shout:1.0.0@here
      with: { text: '${ .name }' }
  - script:
      run:
        script: { language: python, source: { endpoint: 'file://scripts/twice.py' }, arguments: [ '${ . }' ] }
  - own:
      call: plain:2.0.0@default
      with: { said: '${ . }' }
";

fn fill(folder: &Path) {
    write(folder, "schemas/order.yaml", "type: object\nrequired: [ name ]\n");
    write(folder, "scripts/twice.py", "import sys\nprint(sys.argv[1] * 2)\n");
    write(
        folder,
        "catalog/functions/shout/1.0.0/function.yaml",
        "do:\n  - each:\n      for: { each: letter, in: '[.text]' }\n      do:\n        - up:\n            set: '${ $letter | ascii_upcase }'\n",
    );
    write(
        folder,
        "functions/plain/2.0.0/function.yaml",
        "input: { schema: { resource: { endpoint: 'file://schemas/said.json' } } }\nset: { said: '${ .said }', where: '${ $task.definition.set.said }' }\n",
    );
    write(folder, "schemas/said.json", r#"{"type": "object", "required": ["said"]}"#);
}

#[tokio::test]
async fn schemas_scripts_and_functions_of_files_are_run_though_the_files_are_gone() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(folder.path());
    let definition = read(folder.path(), ALL).await.unwrap();
    let name = definition.program.name().clone();
    assert_eq!(definition.resources.len(), 5);
    let store = embedded(disk.path()).await;
    let rig = Rig::over(Arc::clone(&store), EngineConfig::default()).await;
    rig.engine.define(definition).await.unwrap();
    let waiting = rig.start(&name, json!({"name": "ada"})).await;
    assert_eq!(*rig.end(waiting).await.output.unwrap(), json!({"said": "ADAADA", "where": "${ .said }"}));
    let refused = rig.start(&name, json!({})).await;
    let problem = rig.end(refused).await.problem.unwrap();
    assert!(problem.kind.ends_with("/validation"), "{problem:?}");
}

#[tokio::test]
async fn a_run_is_recovered_without_any_of_the_files() {
    let (folder, disk) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fill(folder.path());
    let text = format!("{ALL}  - later: {{ wait: {{ milliseconds: 600 }} }}\n")
        .replace("do:\n  - shout", "do:\n  - first: { wait: { milliseconds: 600 } }\n  - shout");
    let definition = read(folder.path(), &text).await.unwrap();
    let name = definition.program.name().clone();
    let store = embedded(disk.path()).await;
    let rig = Rig::over(Arc::clone(&store), EngineConfig::default()).await;
    rig.engine.define(definition).await.unwrap();
    let run = rig.start(&name, json!({"name": "ada"})).await;
    rig.crash().await;
    folder.close().unwrap();
    let rig = Rig::over(store, EngineConfig::default()).await;
    let ended = rig.end(run).await;
    assert_eq!((ended.status, ended.problem), (Status::Completed, None));
    assert_eq!(ended.output.unwrap()["said"], "ADAADA");
}

#[tokio::test]
async fn another_file_is_another_definition() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let first = read(folder.path(), ALL).await.unwrap();
    write(folder.path(), "scripts/twice.py", "print(2)\n");
    let second = read(folder.path(), ALL).await.unwrap();
    assert_ne!(first.program.digest(), second.program.digest());
}

#[tokio::test]
async fn functions_come_from_a_catalog_over_the_network() {
    let peer = Peer::new(|seen, _| match seen.path.as_str() {
        "/functions/add/1.2.3/function.yaml" | "/single/function.yaml" => {
            ok(&json!({"set": {"sum": "${ .a + .b }"}}))
        }
        _ => status(404, &json!({})),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let text = "
use: { catalogs: { far: { endpoint: PEER } } }
do:
  - one: { call: 'add:1.2.3@far', with: { a: 1, b: 2 } }
  - two: { call: PEER/single, with: { a: '${ .sum }', b: 4 } }
"
    .replace("PEER", &peer.url);
    let definition = read(folder.path(), &text).await.unwrap();
    let name = definition.program.name().clone();
    let rig = Rig::new().await;
    rig.engine.define(definition).await.unwrap();
    let run = rig.start(&name, Value::Null).await;
    assert_eq!(*rig.end(run).await.output.unwrap(), json!({"sum": 7}));
    let missing = read(folder.path(), &text.replace("1.2.3", "9.9.9")).await.unwrap_err().to_string();
    assert!(
        missing.ends_with("/functions/add/9.9.9/function.yaml: it was answered with 404 Not Found"),
        "{missing}"
    );
}

#[tokio::test]
async fn what_may_not_or_cannot_be_read_is_told_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let inside = folder.path().join("stack");
    std::fs::create_dir(&inside).unwrap();
    fill(&inside);
    write(folder.path(), "secret.py", "print('secret')\n");
    std::os::unix::fs::symlink(folder.path().join("secret.py"), inside.join("link.py")).unwrap();
    write(&inside, "catalog/functions/bad/1.0.0/function.yaml", "set: '${ . | | }'\n");
    write(&inside, "long.py", &"#".repeat(5 << 20));
    let script = |address: &str| {
        format!(
            "do:\n  - it: {{ run: {{ script: {{ language: python, source: {{ endpoint: '{address}' }} }} }} }}\n"
        )
    };
    let far = Peer::new(|_, _| {
        ok(&json!({"run": {"script": {"language": "python", "source": {"endpoint": "file://scripts/twice.py"}}}}))
    })
    .await;
    let secret = folder.path().join("secret.py");
    for (text, says) in [
        (script("file://../secret.py"), "it is not in"),
        (script(&format!("file://{}", secret.display())), "it is not in"),
        (script("file://link.py"), "it is not in"),
        (script("file://nobody.py"), "No such file"),
        (script("file://scripts"), "not a file"),
        (script("file://long.py"), "too large"),
        (script("ftp://host/x.py"), "a file at `ftp://host/x.py`"),
        (script("http://127.0.0.1:1/x.py"), "Connection refused"),
        (script("http://user:pass@127.0.0.1/x.py"), "use `authentication`"),
        (script("http://host/{name}.py"), "an address that is computed"),
        (format!("do:\n  - it: {{ call: '{}/f' }}\n", far.url), "named by a function from elsewhere"),
        (
            "use: { catalogs: { here: { endpoint: 'file://catalog' } } }\ndo:\n  - it: { call: 'bad:1.0.0@here' }\n".to_owned(),
            "this is not a jq expression",
        ),
        ("do:\n  - it: { call: 'bad:..@default' }\n".to_owned(), "the function `bad:..@default`"),
    ] {
        let found = read(&inside, &text).await.unwrap_err().to_string();
        assert!(found.contains(says), "{text}: {found}");
    }
    let found =
        Definition::of_text("none", &format!("{HEAD}{}", script("file://scripts/twice.py"))).unwrap_err();
    assert!(found.to_string().contains("what is not read: file://scripts/twice.py"), "{found}");
}

#[tokio::test]
async fn files_without_end_are_given_up() {
    // Each function calls another one, for ever.
    let peer = Peer::new(|seen, _| {
        let depth = seen.path.matches('x').count();
        ok(&json!({"do": [{"next": {"call": format!("http://{}/{}", seen.header("host"), "x".repeat(depth + 1))}}]}))
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let found = read(folder.path(), &format!("do:\n  - it: {{ call: {}/x }}\n", peer.url)).await.unwrap_err();
    assert!(found.to_string().starts_with("the document names more than 64 files"), "{found}");
}
