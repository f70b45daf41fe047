//! What runs hold is in no file in the clear when there is a key; without the right key nothing is touched.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use standfast_runtime::Clock;
use standfast_store::{Batch, MemoryStore, Scan, Space, Store};
use standfast_workflow::{EngineConfig, Keys, SealError, Status, sealed};

use super::crash::{comparable, documents, effects, finish, with_crash};
use super::rig::{Rig, Service, all_bytes, embedded};

/// What no file may hold.
const PAYLOAD: &str = "a-payload-that-is-nobodys-business";

/// A folder of key files.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        for (name, byte) in [("old", 17_u8), ("new", 34)] {
            files.write(name, &format!("{byte:02x}").repeat(32), 0o600);
        }
        files
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        std::fs::write(self.path(name), text).unwrap();
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn keys(&self, names: &[&str]) -> Option<Keys> {
        Keys::read(&names.iter().map(|name| self.path(name)).collect::<Vec<_>>()).unwrap()
    }
}

fn memory() -> Arc<dyn Store> {
    Arc::new(MemoryStore::new(Clock::system()))
}

fn holds(folder: &Path, text: &str) -> bool {
    all_bytes(folder).windows(text.len()).any(|part| part == text.as_bytes())
}

/// A run that holds the payload as input, context, answer, event and error, and one that waits with it.
async fn live(store: Arc<dyn Store>) {
    let rig = Rig::over(store, EngineConfig::default()).await;
    let text = "do:
  - keep: { set: '${ . }', export: { as: '${ . }' } }
  - ask: { call: http, with: { method: post, endpoint: SERVICE/x, body: '${ . }' }, output: { as: .body } }
  - tell: { emit: { event: { with: { source: 'https://x.example', type: told, data: '${ . }' } } } }
  - fail: { raise: { error: { type: 'https://x.example/e', status: 500, detail: '${ $context.p }' } } }
";
    let input = json!({"p": PAYLOAD});
    let ended = rig.run(text, input.clone()).await;
    assert_eq!(ended.problem.unwrap().detail.as_deref(), Some(PAYLOAD));
    let waits = "do:\n  - hold: { listen: { to: { one: { with: { type: go } } } } }\n";
    let name = rig.define("waits", waits).await;
    rig.engine.start(&name, Arc::new(input), Some("k")).await.unwrap();
    rig.crash().await;
}

/// Whether the run that waits is there, with all it holds.
async fn goes_on(store: Arc<dyn Store>) {
    let rig = Rig::over(store, EngineConfig::default()).await;
    let waits = "do:\n  - hold: { listen: { to: { one: { with: { type: go } } } } }\n";
    let name = rig.define("waits", waits).await;
    let id = rig.engine.start(&name, Arc::default(), Some("k")).await.unwrap();
    let run = rig.engine.show(id).await.unwrap().run.expect("it waits");
    assert_eq!(*run.input, json!({"p": PAYLOAD}));
    rig.crash().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_payload_is_in_a_file_of_the_store_and_without_a_key_all_are() {
    let files = Files::new();
    for names in [&[][..], &["new"]] {
        let folder = tempfile::tempdir().unwrap();
        live(sealed(embedded(folder.path()).await, files.keys(names)).await.unwrap()).await;
        assert_eq!(holds(folder.path(), PAYLOAD), names.is_empty(), "{names:?}");
    }
}

#[tokio::test]
async fn what_was_there_before_a_key_and_under_an_older_key_goes_on() {
    let (files, store) = (Files::new(), memory());
    live(Arc::clone(&store)).await;
    for names in [&["old"][..], &["old"], &["new", "old"], &["old", "new"]] {
        goes_on(sealed(Arc::clone(&store), files.keys(names)).await.unwrap()).await;
    }
    // The keys that are needed stay needed: records of both are there.
    for (names, needs) in [(&["old"][..], "OtherKey"), (&["new"], "OtherKey"), (&[], "NoKey")] {
        let refused = sealed(Arc::clone(&store), files.keys(names)).await.unwrap_err();
        assert!(format!("{refused:?}").starts_with(needs), "{names:?}: {refused:?}");
        assert!(refused.to_string().contains("are sealed by the key"), "{refused}");
    }
    goes_on(sealed(store, files.keys(&["new", "old"])).await.unwrap()).await;
}

#[tokio::test]
async fn a_wrong_key_is_told_and_changes_nothing() {
    let (files, store) = (Files::new(), memory());
    live(sealed(Arc::clone(&store), files.keys(&["old"])).await.unwrap()).await;
    let refused = sealed(Arc::clone(&store), files.keys(&["new"])).await.unwrap_err();
    assert!(matches!(&refused, SealError::OtherKey { needed, given } if needed != given), "{refused:?}");
    let refused = sealed(Arc::clone(&store), None).await.unwrap_err();
    assert!(refused.to_string().contains("--workflow-key FILE"), "{refused}");
    goes_on(sealed(store, files.keys(&["old"])).await.unwrap()).await;
}

#[tokio::test]
async fn an_entry_that_is_damaged_or_moved_is_not_believed() {
    let (files, inner) = (Files::new(), memory());
    let store = sealed(Arc::clone(&inner), files.keys(&["new"])).await.unwrap();
    let table = Space::Table("workflow-journal");
    store.commit(Batch::new().put(&table, "a", "1").put(&table, "b", "")).await.unwrap();
    assert_eq!(store.get(&table, b"a").await.unwrap().unwrap().value, "1");
    let read = store.scan(&Scan::of(table.clone(), "")).await.unwrap();
    assert_eq!(read.entries.iter().map(|entry| &entry.value[..]).collect::<Vec<_>>(), [&b"1"[..], b""]);
    let kept = inner.get(&table, b"a").await.unwrap().unwrap().value;
    assert_ne!(kept, inner.get(&table, b"b").await.unwrap().unwrap().value);
    for at in 4..kept.len() {
        let mut damaged = kept.to_vec();
        damaged[at] ^= 1;
        inner.commit(Batch::new().put(&table, "a", damaged)).await.unwrap();
        let refused = store.get(&table, b"a").await.unwrap_err();
        assert!(refused.to_string().contains("table:workflow-journal is damaged or was moved"), "{refused}");
    }
    inner.commit(Batch::new().put(&table, "b", kept.clone())).await.unwrap();
    assert!(store.get(&table, b"b").await.is_err(), "the entry of another key");
    inner.commit(Batch::new().put(&table, "a", kept.slice(..20))).await.unwrap();
    assert!(store.get(&table, b"a").await.is_err(), "a part of an entry");
}

#[test]
fn a_key_file_that_is_none_is_named() {
    let files = Files::new();
    files.write("short", &"ab".repeat(31), 0o600);
    files.write("odd", &"a".repeat(63), 0o600);
    files.write("words", &"zz".repeat(32), 0o600);
    files.write("open", &"ab".repeat(32), 0o644);
    for (name, says) in [
        ("short", "64 hexadecimal digits"),
        ("odd", "64 hexadecimal digits"),
        ("words", "64 hexadecimal digits"),
        ("open", "others than its owner may read it"),
        ("none", "it cannot be read"),
    ] {
        let why = Keys::read(&[files.path("new"), files.path(name)]).unwrap_err();
        assert!(why.to_string().contains(&files.path(name).display().to_string()), "{why}");
        assert!(why.source.to_string().contains(says), "{name}: {}", why.source);
    }
    assert!(Keys::read(&[]).unwrap().is_none());
    assert!(!format!("{:?}", files.keys(&["old"])).contains("1111"), "nothing shows a key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_commit_changes_nothing_for_sealed_runs() {
    let files = Files::new();
    let mut crashes = 0;
    for (name, document) in documents() {
        let sealed_by = async |store: &Arc<dyn Store>, names: &[&str]| {
            sealed(Arc::clone(store), files.keys(names)).await.unwrap()
        };
        let (whole, service) = finish(&document, memory(), Service::start().await).await;
        let (expected, all) = (comparable(&whole), effects(&service));
        for commits in 0.. {
            let (inner, service) = (memory(), Service::start().await);
            let store = sealed_by(&inner, &["old"]).await;
            // Whether the commit was done alternates: both are tried at every second one.
            let (crashed, _, service) =
                with_crash(&document, store, commits, commits % 2 == 0, service).await;
            if !crashed {
                break;
            }
            crashes += 1;
            // The key is another one when it goes on.
            let store = sealed_by(&inner, &["new", "old"]).await;
            let (summary, service) = finish(&document, store, service).await;
            let case = format!("{name}, a crash at commit {commits}");
            assert_eq!(comparable(&summary), expected, "{case}");
            assert_eq!(effects(&service), all, "{case}");
            assert_ne!((summary.status, summary.output.is_none()), (Status::Completed, true), "{case}");
        }
    }
    assert!(crashes > 50, "only {crashes} crashes were tried");
}
