//! A place for one test: a stack folder, a state folder, and the certainty that nothing is left at the end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The longest wait for anything; a machine under load is slow, never this slow.
const WAIT_MAX: Duration = Duration::from_secs(60);

pub(crate) struct World {
    folder: tempfile::TempDir,
    has_own_disk: bool,
}

/// What a command printed, and its exit code.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails the test unless the command ended with `code`.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Fails the test unless stderr holds all of `parts`.
    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "`{part}` is missing in:\n{}", self.stderr);
        }
        self
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap(), has_own_disk: false };
        std::fs::create_dir_all(world.stack()).unwrap();
        world
    }

    /// A world with the usual stack whose state folder is a disk of its own, of `size` as `mount` takes it. Only in a mount namespace
    /// of the test's own.
    pub(crate) fn with_small_disk(size: &str) -> Self {
        let mut world = Self::with_quick("");
        std::fs::create_dir(world.state()).unwrap();
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(world.state()).output();
        assert!(mounted.as_ref().is_ok_and(|ran| ran.status.success()), "{mounted:?}");
        world.has_own_disk = true;
        world
    }

    /// A world with the usual stack: three replicas of `quick` over three zones.
    pub(crate) fn with_quick(extra: &str) -> Self {
        let world = Self::new();
        world.write("standfast.yaml", &quick_stack(3, "one", extra));
        world
    }

    pub(crate) fn stack(&self) -> PathBuf {
        self.folder.path().join("stack")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.stack().join(name), text).unwrap();
    }

    /// The command line, in this world.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_standfast"));
        command
            .args(arguments)
            .current_dir(self.stack())
            .env("STANDFAST_STATE", self.state())
            .env("TMPDIR", self.folder.path())
            .env_remove("NO_COLOR")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    /// Brings the stack up on a free port.
    pub(crate) fn up(&self) -> Ran {
        self.run(&["up", "-d", "--listen", "127.0.0.1:0"])
    }

    pub(crate) fn status(&self) -> Value {
        let ran = self.run(&["status", "--json"]).expect(0);
        serde_json::from_str(&ran.stdout).unwrap()
    }

    /// Waits until a status is as wanted.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        wait(what, || {
            let ran = self.run(&["status", "--json"]);
            let status: Value = serde_json::from_str(&ran.stdout).ok()?;
            is_so(&status).then_some(status)
        })
    }

    pub(crate) fn public(&self) -> SocketAddr {
        self.status()["public"].as_str().unwrap().parse().unwrap()
    }

    /// All processes that carry this world's mark in their environment or arguments, zombies left out.
    pub(crate) fn processes(&self) -> Vec<(u32, String)> {
        processes_naming(&self.folder.path().to_string_lossy())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _down = self.run(&["down"]);
        // Only what a failed test left, and only our own: the folder's name is unique to this world.
        for (pid, _) in self.processes() {
            let _gone_already = Command::new("kill").args(["-9", &pid.to_string()]).output();
        }
        if self.has_own_disk {
            let _gone_with_the_namespace = Command::new("umount").arg("-l").arg(self.state()).output();
        }
    }
}

/// Processes whose arguments or environment hold `mark`, without this one.
pub(crate) fn processes_naming(mark: &str) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        if pid == std::process::id() {
            continue;
        }
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        let environment = String::from_utf8_lossy(&read("environ")).into_owned();
        if arguments.contains(mark) || environment.contains(mark) {
            found.push((pid, arguments));
        }
    }
    found
}

/// The stack that most tests use.
pub(crate) fn quick_stack(replicas: u32, version: &str, extra: &str) -> String {
    format!(
        "name: quick
zones: [a, b, c]
services:
  quick:
    command: [{}]
    environment: {{VERSION: {version}}}
    healthcheck: {{http: /healthz, interval: 250ms, timeout: 1s}}
    stop_grace_period: 2s
    deploy: {{replicas: {replicas}}}
routes:
  - {{path: /, to: quick}}
{extra}",
        quick_program().display()
    )
}

/// The service `examples/quick.rs`, which `cargo test` builds beside the tests.
fn quick_program() -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    let program = deps.parent().and_then(Path::parent).unwrap().join("examples/quick");
    assert!(program.is_file(), "{} is not built", program.display());
    program
}

/// Waits for something to be there.
#[track_caller]
pub(crate) fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(started.elapsed() < WAIT_MAX, "waited {WAIT_MAX:?} for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One request on a connection of its own; `Err` says what went wrong with it.
pub(crate) fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    key: Option<&str>,
) -> Result<(u16, String), String> {
    let text = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).map_err(text)?;
    stream.set_read_timeout(Some(Duration::from_secs(15))).map_err(text)?;
    let key = key.map(|key| format!("idempotency-key: {key}\r\n")).unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: 0\r\n{key}\r\n"
    )
    .map_err(text)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(text)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    status.zip(body).ok_or_else(|| format!("no HTTP answer: {answer:?}"))
}

/// Requests one after another on several threads until told to stop; gives how many were sent and what failed.
pub(crate) struct Load {
    stop: std::sync::Arc<std::sync::atomic::AtomicBool>,
    threads: Vec<std::thread::JoinHandle<(u64, Vec<String>)>>,
}

impl Load {
    pub(crate) fn start(address: SocketAddr, method: &'static str, path: &'static str, keyed: bool) -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let threads = (0..4)
            .map(|thread| {
                let stop = std::sync::Arc::clone(&stop);
                std::thread::spawn(move || {
                    let (mut sent, mut failed) = (0, Vec::new());
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let key = keyed.then(|| format!("key-{thread}-{sent}"));
                        sent += 1;
                        match request(address, method, path, key.as_deref()) {
                            Ok((200..300, _)) => {}
                            Ok((status, body)) => failed.push(format!("{status}: {body}")),
                            Err(error) => failed.push(error),
                        }
                    }
                    (sent, failed)
                })
            })
            .collect();
        Self { stop, threads }
    }

    pub(crate) fn finish(self) -> (u64, Vec<String>) {
        self.stop.store(true, std::sync::atomic::Ordering::Relaxed);
        self.threads.into_iter().map(|thread| thread.join().unwrap()).fold(
            (0, Vec::new()),
            |(sent, mut failed), (more, failures)| {
                failed.extend(failures);
                (sent + more, failed)
            },
        )
    }
}

pub(crate) fn kill(pid: u64, signal: &str) {
    let done = Command::new("kill").args([signal, &pid.to_string()]).output().unwrap();
    assert!(done.status.success(), "kill {signal} {pid}: {}", String::from_utf8_lossy(&done.stderr));
}
