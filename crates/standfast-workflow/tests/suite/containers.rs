//! Containers, run by a real Podman of the test's own over the Docker API.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use serde_json::{Value, json};
use standfast_runtime::{Clock, Net, Peer};
use standfast_store::{MemoryStore, Store};
use standfast_workflow::{
    ContainerConfig, Direct, EngineConfig, JournalError, Refused, RunId, Status, Summary,
};

use super::crash::Mortal;
use super::rig::{PATIENCE, Rig, Service};

/// The tests' image.
const IMAGE: &str = "local/box:1";
/// Programs in it.
const PROGRAMS: [&str; 9] = ["sh", "cat", "echo", "sleep", "env", "wc", "yes", "head", "id"];

/// A Podman that nobody else uses, and a folder that its containers see as `/data`.
struct Podman {
    service: Child,
    folder: tempfile::TempDir,
}

impl Podman {
    /// `None`, said aloud, where containers cannot be run at all: a machine within a container often may not.
    async fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::create_dir_all(path.join("image/bin")).unwrap();
        std::fs::create_dir_all(path.join("stack/data")).unwrap();
        std::fs::copy(busybox(), path.join("image/bin/busybox")).unwrap();
        for program in PROGRAMS {
            std::os::unix::fs::symlink("busybox", path.join("image/bin").join(program)).unwrap();
        }
        // As it works also where cgroups are of both versions and limits cannot be raised.
        let config = "[engine]\nruntime = \"runc\"\nevents_logger = \"file\"\ncgroup_manager = \"cgroupfs\"\n[containers]\nnetns = \"none\"\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n";
        std::fs::write(path.join("containers.conf"), config).unwrap();
        let archive = path.join("image.tar");
        let packed =
            Command::new("tar").arg("-C").arg(path.join("image")).arg("-cf").arg(&archive).arg(".").status();
        assert!(packed.unwrap().success());
        done(&podman(path).arg("import").arg(&archive).arg(IMAGE).output().unwrap());
        let one = podman(path).args(["run", "--rm", IMAGE, "/bin/echo", "works"]).output().unwrap();
        if !one.status.success() {
            let why = String::from_utf8_lossy(&one.stderr).into_owned();
            // Not by `eprintln!`, which is only shown of tests that fail.
            let told = format!("NOT TESTED: podman runs no containers on this machine: {why}\n");
            std::io::stderr().write_all(told.as_bytes()).unwrap();
            return None;
        }
        let service = podman(path)
            .args(["system", "service", "--time=0"])
            .arg(format!("unix://{}", path.join("podman.sock").display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Self { service, folder };
        let peer = Peer::Unix(started.folder.path().join("podman.sock"));
        let connecting = async {
            while Net::real().connect(&peer).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        Clock::system().timeout(PATIENCE, connecting).await.expect("podman listens");
        Some(started)
    }

    fn config(&self) -> ContainerConfig {
        let host = format!("unix://{}", self.folder.path().join("podman.sock").display());
        ContainerConfig {
            host: Some(host),
            folder: Some(self.folder.path().join("stack")),
            ..ContainerConfig::default()
        }
    }

    async fn try_rig(&self, store: &Arc<dyn Store>, service: Service) -> Result<Rig, JournalError> {
        let invoke = Arc::new(Direct::new(Clock::system()).with_containers(self.config()));
        Rig::try_through(Arc::clone(store), EngineConfig::default(), service, invoke).await
    }

    async fn rig(&self) -> Rig {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
        self.try_rig(&store, Service::start().await).await.unwrap()
    }

    /// The containers that there are, by name, each with whether it runs.
    fn containers(&self) -> Vec<(String, bool)> {
        let listed =
            podman(self.folder.path()).args(["ps", "-a", "--format", "{{.Names}} {{.State}}"]).output();
        let text = done(&listed.unwrap());
        text.lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, state)| (name.to_owned(), state == "running" || state.starts_with("Up")))
            .collect()
    }

    /// Returns once the containers are as they shall be.
    async fn has(&self, fits: impl Fn(&[(String, bool)]) -> bool) {
        let looking = async {
            while !fits(&self.containers()) {
                tokio::task::yield_now().await;
            }
        };
        let waited = Clock::system().timeout(PATIENCE, looking).await;
        assert!(waited.is_ok(), "{:?}", self.containers());
    }

    fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join("stack/data").join(name)
    }

    /// Returns once a container has written a file of this length at least.
    async fn wrote(&self, name: &str, length: usize) {
        let looking = async {
            while std::fs::read(self.data(name)).map_or(0, |bytes| bytes.len()) < length {
                tokio::task::yield_now().await;
            }
        };
        Clock::system().timeout(PATIENCE, looking).await.expect("the container writes");
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _nothing_is_left = podman(self.folder.path()).args(["rm", "-fa", "-t", "0"]).output();
        let _it_has_ended = self.service.kill();
        let _it_has_ended = self.service.wait();
        let _nothing_is_left = podman(self.folder.path()).args(["rmi", "-fa"]).output();
    }
}

fn podman(folder: &Path) -> Command {
    let mut command = Command::new("podman");
    command.env("CONTAINERS_CONF", folder.join("containers.conf"));
    command.arg("--root").arg(folder.join("root")).arg("--runroot").arg(folder.join("run"));
    command.arg("--tmpdir").arg(folder.join("tmp"));
    command
}

fn busybox() -> PathBuf {
    let found = ["/bin/busybox", "/usr/bin/busybox", "/usr/sbin/busybox"].map(PathBuf::from);
    found.into_iter().find(|path| path.is_file()).expect("cargo xtask test installs busybox")
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A task that runs a container.
fn task(name: &str, rest: &str, more: &str) -> String {
    format!(
        "  - {name}:\n      run:\n        container: {{ image: '{IMAGE}', pullPolicy: never, {rest} }}\n{more}"
    )
}

fn document(rest: &str, more: &str) -> String {
    format!("do:\n{}", task("box", rest, more))
}

fn kind(summary: &Summary) -> (String, String) {
    let problem = summary.problem.clone().unwrap_or_else(|| panic!("{:?}", summary.output));
    (problem.kind.rsplit(['/', ':']).next().unwrap().to_owned(), problem.detail.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_given_what_the_task_says_and_yields_what_it_wrote() {
    let Some(podman) = Podman::start().await else { return };
    std::fs::write(podman.data("given"), "from the stack").unwrap();
    let rig = podman.rig().await;
    let all = "        return: all\n";
    for (rest, more, expected) in [
        ("command: 'echo hello'", "", json!("hello")),
        ("command: echo, arguments: [ 'a b', '${ .n }' ]", "", json!("a b 1")),
        ("arguments: [ '/bin/echo', plain ]", "", json!("plain")),
        (
            "command: 'echo \"$1 $NAME\"; echo two >&2; exit 3', arguments: [ one ], environment: { NAME: '${ .n }' }",
            all,
            json!({"code": 3, "stdout": "one 1", "stderr": "two"}),
        ),
        ("command: 'exit 4'", "        return: code\n", json!(4)),
        (
            "command: 'echo x >&2; cat /data/given', volumes: { data: '/data:ro' }",
            all,
            json!({"code": 0, "stdout": "from the stack", "stderr": "x"}),
        ),
        (
            "command: 'echo x > /data/given', volumes: { data: '/data:ro' }",
            "        return: code\n",
            json!(1),
        ),
        ("command: 'wc -c', stdin: '${ .long }'", "", json!("200000")),
        ("command: 'echo unread', stdin: '${ .long }'", "", json!("unread")),
        ("command: 'cat', stdin: '${ .n }'", "", json!("1")),
        ("command: 'echo x'", "        return: none\n      output: { as: .n }\n", json!(1)),
    ] {
        let input = json!({"n": 1, "long": "x".repeat(200_000)});
        let ended = rig.run(&document(rest, more), input).await;
        assert_eq!(ended.output.as_deref(), Some(&expected), "{rest}: {:?}", ended.problem);
    }
    for (rest, expected, says) in [
        ("command: 'echo no >&2; exit 5'", "runtime", "the container ended with code 5: no"),
        ("command: 'yes x'", "runtime", "wrote more than 256 KiB"),
        ("command: '/no/such/program'", "runtime", "/no/such/program"),
        ("volumes: { '../..': /data }", "configuration", "leads out of"),
        ("volumes: { /etc: /data }", "configuration", "STANDFAST_CONTAINER_VOLUMES"),
        ("volumes: { absent: /data }", "configuration", "absent"),
        ("ports: { '0': 80 }", "configuration", "`ports`"),
        ("name: 'a/b'", "configuration", "`name`"),
    ] {
        let ended = rig.run(&document(rest, ""), json!({"n": 1})).await;
        let (kind, detail) = kind(&ended);
        assert_eq!(kind, expected, "{rest}: {detail}");
        assert!(detail.contains(says), "{rest}: {detail}");
    }
    let never = "do:\n  - b: { run: { container: { image: 'local/none:1', pullPolicy: never } } }\n";
    let (found, detail) = kind(&rig.run(never, json!({})).await);
    assert_eq!(found, "configuration", "{detail}");
    assert!(detail.contains("local/none:1") && detail.contains("pullPolicy"), "{detail}");
    let nowhere = "do:\n  - b: { run: { container: { image: '127.0.0.1:1/none:1' } } }\n";
    let (found, detail) = kind(&rig.run(nowhere, json!({})).await);
    assert_eq!(found, "communication", "{detail}");
    // What wrote too much was given up.
    podman.has(|all| all.iter().all(|(_, runs)| !runs)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_is_removed_when_its_task_says() {
    let Some(podman) = Podman::start().await else { return };
    let rig = podman.rig().await;
    for (name, lifetime) in [
        ("by-default", ""),
        ("never", "lifetime: { cleanup: never }"),
        ("always", "lifetime: { cleanup: always }"),
        ("failed", "command: 'exit 1', lifetime: { cleanup: always }"),
        ("soon", "lifetime: { cleanup: eventually, after: { milliseconds: 500 } }"),
        ("late", "lifetime: { cleanup: eventually, after: { hours: 1 } }"),
    ] {
        let command = if lifetime.contains("command") { "" } else { "command: 'echo x', " };
        rig.run(&document(&format!("name: {name}, {command}{lifetime}"), ""), json!({})).await;
    }
    podman
        .has(|all| all.iter().all(|(name, _)| ["by-default", "never", "late"].contains(&name.as_str())))
        .await;
    assert_eq!(podman.containers().len(), 3);
    // Rounds and attempts of the same name follow each other.
    let again = "name: same, volumes: { data: /data }, command: 'echo x >> /data/tries; [ $(wc -l < /data/tries) -ge 3 ]'";
    for lifetime in ["always", "never"] {
        let tried = format!(
            "do:\n  - t:\n      try:\n{}      catch: {{ retry: {{ delay: {{ milliseconds: 1 }}, limit: {{ attempt: {{ count: 5 }} }} }} }}\n",
            task("box", &format!("{again}, lifetime: {{ cleanup: {lifetime} }}"), "")
                .replace("\n", "\n    ")
                .replacen("  - box", "      - box", 1)
                .trim_end()
                .to_owned()
                + "\n"
        );
        let ended = rig.run(&tried, json!({})).await;
        assert_eq!((ended.status, &ended.problem), (Status::Completed, &None), "{tried}");
        assert_eq!(std::fs::read_to_string(podman.data("tries")).unwrap().lines().count(), 3);
        std::fs::remove_file(podman.data("tries")).unwrap();
    }
    // Another's container is not touched.
    let taken = rig.run(&document("name: never, command: 'echo x'", ""), json!({})).await;
    let (found, detail) = kind(&taken);
    assert_eq!((found.as_str(), taken.problem.unwrap().status), ("configuration", 409), "{detail}");
}

/// Waits for a file, and writes down that it was begun and that it ended.
const GATED: &str = "volumes: { data: /data }, lifetime: { cleanup: always }, command: 'echo begun >> /data/log; while [ ! -e /data/go ]; do sleep 0.05; done; cat | wc -c; echo ended >> /data/log'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_goes_on_without_the_engine_and_the_next_one_takes_its_end() {
    let Some(podman) = Podman::start().await else { return };
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
    let rig = podman.try_rig(&store, Service::start().await).await.unwrap();
    let name = rig.define("gated", &document(GATED, "")).await;
    let id = rig.start(&name, json!({})).await;
    podman.wrote("log", 6).await;
    let service = rig.crash().await;
    // It ends while nobody is there.
    std::fs::write(podman.data("go"), "").unwrap();
    podman.wrote("log", 12).await;
    let rig = podman.try_rig(&store, service).await.unwrap();
    let ended = rig.end(id).await;
    assert_eq!(ended.output.as_deref(), Some(&json!("0")), "{:?}", ended.problem);
    assert_eq!(std::fs::read_to_string(podman.data("log")).unwrap(), "begun\nended\n");
    podman.has(<[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_got_part_of_its_input_is_begun_anew() {
    let Some(podman) = Podman::start().await else { return };
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
    let rig = podman.try_rig(&store, Service::start().await).await.unwrap();
    let fed = format!("{GATED}, stdin: '${{ .long }}'");
    let name = rig.define("fed", &document(&fed, "")).await;
    let id = rig.start(&name, json!({"long": "x".repeat(250_000)})).await;
    podman.wrote("log", 6).await;
    let service = rig.crash().await;
    std::fs::write(podman.data("go"), "").unwrap();
    let rig = podman.try_rig(&store, service).await.unwrap();
    let ended = rig.end(id).await;
    assert_eq!(ended.output.as_deref(), Some(&json!("250000")), "{:?}", ended.problem);
    podman.has(<[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_is_not_needed_any_more_is_ended_and_removed() {
    let Some(podman) = Podman::start().await else { return };
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
    let rig = podman.try_rig(&store, Service::start().await).await.unwrap();
    let name = rig.define("gated", &document(GATED, "")).await;
    let cancelled = rig.start(&name, json!({})).await;
    let goes_on = rig.start(&name, json!({})).await;
    podman.has(|all| all.iter().filter(|(_, runs)| *runs).count() == 2).await;
    rig.engine.cancel(cancelled, "nobody wants it").await.unwrap();
    let kept = format!("standfast-{goes_on}-");
    podman.has(|all| all.len() == 1 && all[0].0.starts_with(&kept) && all[0].1).await;
    let late = document(GATED, "      timeout: { after: { seconds: 1 } }\n");
    let (found, detail) = kind(&rig.run(&late, json!({})).await);
    assert_eq!(found, "timeout", "{detail}");
    podman.has(|all| all.len() == 1 && all[0].0.starts_with(&kept)).await;
    let silent = document(
        "command: 'echo x; exec sleep 600', lifetime: { cleanup: always }",
        "      metadata: { standfast: { heartbeat: PT1S } }\n",
    );
    let (found, detail) = kind(&rig.run(&silent, json!({})).await);
    assert_eq!(found, "timeout", "{detail}");
    podman.has(|all| all.len() == 1 && all[0].0.starts_with(&kept)).await;
    // Of a run that nobody knows here nothing is touched, and what was cancelled is found by the next engine.
    let other = podman.rig().await;
    let ended = other.run(&document("command: 'echo x', lifetime: { cleanup: always }", ""), json!({})).await;
    assert_eq!(ended.output.as_deref(), Some(&json!("x")));
    podman.has(|all| all.len() == 1 && all[0].0.starts_with(&kept) && all[0].1).await;
    rig.engine.cancel(goes_on, "nor this").await.unwrap();
    let service = rig.crash().await;
    let rig = podman.try_rig(&store, service).await.unwrap();
    rig.define("gated", &document(GATED, "")).await;
    podman.has(<[_]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_not_waited_for_goes_on() {
    let Some(podman) = Podman::start().await else { return };
    let rig = podman.rig().await;
    let ended = rig.run(&document(GATED, "        await: false\n"), json!({"n": 1})).await;
    assert_eq!(ended.output.as_deref(), Some(&json!({"n": 1})), "{:?}", ended.problem);
    podman.wrote("log", 6).await;
    std::fs::write(podman.data("go"), "").unwrap();
    podman.wrote("log", 12).await;
    podman.has(<[_]>::is_empty).await;
}

/// Lets `commits` commits through, crashes, and returns the end if it came before.
async fn until_crash(
    podman: &Podman,
    document: &str,
    store: Arc<dyn Store>,
    (commits, is_done): (i64, bool),
    service: &Service,
) -> Option<Summary> {
    let mortal: Arc<dyn Store> = Arc::new(Mortal { inner: store, left: AtomicI64::new(commits), is_done });
    let rig = podman.try_rig(&mortal, service.clone()).await.ok()?;
    let Ok(name) = rig.try_define("crash", document).await else {
        rig.crash().await;
        return None;
    };
    let started: Result<RunId, Refused> = rig.engine.start(&name, Arc::new(Value::Null), Some("key")).await;
    let ended = match started {
        Ok(id) => rig.clock.timeout(PATIENCE, rig.engine.wait(id)).await.expect("it ends or stops"),
        Err(why) => Err(why),
    };
    rig.crash().await;
    ended.ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_commit_runs_no_container_twice() {
    let Some(podman) = Podman::start().await else { return };
    let say = |text: &str| {
        let rest = format!(
            "volumes: {{ data: /data }}, lifetime: {{ cleanup: always }}, command: 'echo {text} >> /data/log; cat', stdin: '{text}'"
        );
        task(text, &rest, "")
    };
    let document = format!("do:\n{}{}", say("one"), say("two"));
    let service = Service::start().await;
    let mut crashes = 0;
    for is_done in [false, true] {
        for commits in 0.. {
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
            let first =
                until_crash(&podman, &document, Arc::clone(&store), (commits, is_done), &service).await;
            let has_crashed = first.is_none();
            crashes += usize::from(has_crashed);
            let ended = until_crash(&podman, &document, store, (i64::MAX, false), &service).await;
            let ended = ended.expect("nothing stops it");
            let case = format!("a crash at commit {commits}, done: {is_done}");
            assert_eq!(ended.output.as_deref(), Some(&json!("two")), "{case}: {:?}", ended.problem);
            assert_eq!(std::fs::read_to_string(podman.data("log")).unwrap(), "one\ntwo\n", "{case}");
            std::fs::remove_file(podman.data("log")).unwrap();
            if !has_crashed {
                break;
            }
        }
    }
    assert!(crashes > 6, "only {crashes} crashes were tried");
}

#[tokio::test]
async fn where_nobody_runs_containers_it_is_said_what_to_do() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
    let config = ContainerConfig {
        host: Some("unix:///nowhere/docker.sock".to_owned()),
        ..ContainerConfig::default()
    };
    let invoke = Arc::new(Direct::new(Clock::system()).with_containers(config));
    let rig = Rig::try_through(store, EngineConfig::default(), Service::start().await, invoke).await.unwrap();
    let ended = rig.run(&document("command: 'echo x'", ""), json!({})).await;
    let problem = ended.problem.unwrap();
    assert_eq!((problem.kind.as_str(), problem.status), ("urn:standfast:error:no-container-engine", 503));
    assert!(problem.detail.unwrap().contains("podman system service"));
}
