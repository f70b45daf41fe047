//! One process group of a replica or the node: start it, notice its end at once, signal it, and leave nothing of it
//! behind.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use process_wrap::std::{CommandWrap, ProcessSession};
use rustix::process::{PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::procfs::{self, ProcessId};
use crate::ExitReason;

/// How often a sweep looks again for processes that were made while it looked.
const SWEEP_ROUNDS: u32 = 8;

/// What is started.
#[derive(Debug)]
pub(crate) struct SpawnOrder<'a> {
    pub(crate) command: &'a [String],
    pub(crate) working_dir: &'a Path,
    /// All of its environment.
    pub(crate) environment: &'a BTreeMap<String, String>,
    pub(crate) out: File,
    pub(crate) err: File,
}

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SpawnError {
    #[error("its folder `{0}` is not there")]
    NoFolder(String),
    #[error("the program `{program}` is not in PATH ({path})")]
    NotInPath { program: String, path: String },
    #[error("there is no program `{0}`")]
    NoProgram(String),
    #[error("`{0}` is not executable")]
    NotExecutable(String),
    #[error("`{program}` could not be run: {source}{}", hint(source))]
    Exec { program: String, source: io::Error },
}

fn hint(error: &io::Error) -> &'static str {
    const ENOEXEC: i32 = 8;
    if error.raw_os_error() == Some(ENOEXEC) {
        " (a script needs a first line such as `#!/bin/sh`)"
    } else {
        ""
    }
}

/// A process that is the leader of its group and that we watch. It may be a child of ours, or one of a dead
/// predecessor.
#[derive(Debug)]
pub(crate) struct Process {
    id: ProcessId,
    end: AsyncFd<OwnedFd>,
    is_child: bool,
}

impl Process {
    /// Starts a process in a session and group of its own. It holds none of our descriptors but its outputs.
    pub(crate) fn spawn(order: SpawnOrder<'_>) -> Result<Self, SpawnError> {
        let program = resolve(order.command, order.working_dir, order.environment.get("PATH"))?;
        let failed = |source| SpawnError::Exec { program: program.display().to_string(), source };
        let [name, arguments @ ..] = order.command else { return Err(SpawnError::NoProgram(String::new())) };
        let mut command = Command::new(&program);
        command
            .arg0(name)
            .args(arguments)
            .current_dir(order.working_dir)
            .env_clear()
            .envs(order.environment)
            .stdin(Stdio::null())
            .stdout(order.out)
            .stderr(order.err);
        // A session of its own and not only a group: when we die, the kernel would send SIGHUP to groups of our session
        // in which something is stopped, and so a frozen replica would die with us.
        let child = CommandWrap::from(command).wrap(ProcessSession).spawn().map_err(failed)?;
        // Not reaped by anyone but us, so that the number stays its own until then, even when it has ended already.
        let watched = || {
            let id = ProcessId::of(child.id()).ok_or(io::ErrorKind::NotFound)?;
            Self::watch(id, true)
        };
        watched().map_err(|error| {
            let _best_effort =
                procfs::pid_of(child.id()).map(|group| kill_process_group(group, Signal::KILL));
            failed(error)
        })
    }

    /// Watches a process that is there already; `None` when it is gone.
    pub(crate) fn adopt(id: ProcessId) -> io::Result<Option<Self>> {
        match Self::watch(id, false) {
            // The descriptor was opened first, so a number that was reused shows in the start time now.
            Ok(process) => Ok(id.is_alive().then_some(process)),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn watch(id: ProcessId, is_child: bool) -> io::Result<Self> {
        let pid = procfs::pid_of(id.pid).ok_or(io::ErrorKind::InvalidInput)?;
        let end = readable(pidfd_open(pid, PidfdFlags::empty())?)?;
        Ok(Self { id, end, is_child })
    }

    /// Whether a predecessor started it.
    pub(crate) fn is_adopted(&self) -> bool {
        !self.is_child
    }

    pub(crate) fn id(&self) -> ProcessId {
        self.id
    }

    /// Returns once the process has ended. Cancel safe.
    pub(crate) async fn ended(&self) {
        let _readable_means_ended = self.end.readable().await;
    }

    /// Why it ended, once it has. A child stays a zombie until [`Process::reap`], so that its group's number stays
    /// ours.
    pub(crate) fn exit_reason(&self) -> ExitReason {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        match waitid(WaitId::PidFd(self.end.as_fd()), options) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => ExitReason::Code(code),
                (None, Some(signal)) => ExitReason::Signal(signal),
                (None, None) => ExitReason::Unknown,
            },
            Ok(None) | Err(_) => ExitReason::Unknown,
        }
    }

    /// Sends a signal to the whole group while its leader lives.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        if !self.is_child && !self.id.is_alive() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let group = procfs::pid_of(self.id.pid).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(kill_process_group(group, signal)?)
    }

    /// After the leader's end: kills what is left of its group, as far as that takes one call and can hit nobody else.
    /// What it misses is for [`Process::sweep`].
    pub(crate) fn kill_rest_of_group(&self) {
        // Somebody else reaps a leader that is no child of ours, and its number is free then.
        if let Some(group) = procfs::pid_of(self.id.pid).filter(|_| self.is_child) {
            let _usually_empty = kill_process_group(group, Signal::KILL);
        }
    }

    /// After the leader's end, before [`Process::reap`]: kills every process with this mark, or of the leader's session
    /// or group, wherever it fled to. Returns how many there were.
    pub(crate) async fn sweep(&self, mark: String) -> usize {
        let leader = self.id;
        tokio::task::spawn_blocking(move || procfs::sweep(&mark, Some(leader), SWEEP_ROUNDS))
            .await
            .unwrap_or(0)
    }

    /// Lets a child go; its number may be reused from then on.
    pub(crate) fn reap(&self) {
        if self.is_child {
            let _gone_either_way =
                waitid(WaitId::PidFd(self.end.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

#[expect(
    deprecated,
    reason = "unsound only for types that may change their descriptor; an OwnedFd cannot, and `unsafe` is forbidden here"
)]
pub(crate) fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}

/// Kills every process with this mark.
pub(crate) async fn sweep(mark: String) -> usize {
    tokio::task::spawn_blocking(move || procfs::sweep(&mark, None, SWEEP_ROUNDS)).await.unwrap_or(0)
}

/// The file of a program: looked up in `path` unless its name has a `/`, and then relative to the working folder.
fn resolve(command: &[String], working_dir: &Path, path: Option<&String>) -> Result<PathBuf, SpawnError> {
    let program = command.first().map(String::as_str).unwrap_or_default();
    if !working_dir.is_dir() {
        return Err(SpawnError::NoFolder(working_dir.display().to_string()));
    }
    if program.contains('/') {
        let file = working_dir.join(program);
        return match std::fs::metadata(&file) {
            Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => Ok(file),
            Ok(_) => Err(SpawnError::NotExecutable(file.display().to_string())),
            Err(_) => Err(SpawnError::NoProgram(file.display().to_string())),
        };
    }
    let path = path.map(String::as_str).unwrap_or_default();
    let is_program = |file: &PathBuf| {
        std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(path)
        .map(|folder| working_dir.join(folder).join(program))
        .find(is_program)
        .ok_or_else(|| SpawnError::NotInPath { program: program.to_owned(), path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn null() -> File {
        File::options().write(true).open("/dev/null").unwrap()
    }

    fn start(command: &[&str]) -> Result<Process, SpawnError> {
        let command: Vec<String> = command.iter().map(|word| (*word).to_owned()).collect();
        let environment = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin".to_owned())]);
        Process::spawn(SpawnOrder {
            command: &command,
            working_dir: Path::new("/"),
            environment: &environment,
            out: null(),
            err: null(),
        })
    }

    #[tokio::test]
    async fn an_end_is_noticed_with_its_reason_and_may_be_asked_for_twice() {
        let process = start(&["sh", "-c", "exit 7"]).unwrap();
        process.ended().await;
        process.ended().await;
        assert_eq!(process.exit_reason(), ExitReason::Code(7));
        assert_eq!(process.exit_reason(), ExitReason::Code(7));
        process.reap();
        assert!(!process.id().is_alive());
    }

    #[tokio::test]
    async fn the_rest_of_a_group_goes_with_its_leader() {
        let process = start(&["sh", "-c", "sleep 1000 & sleep 1000"]).unwrap();
        process.signal(Signal::KILL).unwrap();
        process.ended().await;
        assert_eq!(process.exit_reason(), ExitReason::Signal(9));
        process.kill_rest_of_group();
        process.sweep("no/such/mark".into()).await;
        process.reap();
        for _ in 0..1_000 {
            if procfs::related("no/such/mark", Some(process.id())).is_empty() {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("a member of the group lives");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named_with_the_places_looked_at() {
        let text = |command: &[&str]| start(command).unwrap_err().to_string();
        assert_eq!(
            text(&["no-such-program"]),
            "the program `no-such-program` is not in PATH (/usr/bin:/bin)"
        );
        assert_eq!(text(&["etc/no-such"]), "there is no program `/etc/no-such`");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("notes");
        std::fs::write(&file, "x").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let file = file.to_str().unwrap();
        assert_eq!(text(&[file]), format!("`{file}` is not executable"));
    }
}
