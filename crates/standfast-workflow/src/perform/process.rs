use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};

use crate::ask::{Answer, ProcessAnswer, ProcessProgram, ProcessRequest};
use crate::run::{Problem, Standard};

/// Most that a process may write to its standard output or error, in bytes.
const OUTPUT_BYTES_MAX: u64 = 256 << 10;
/// What a process finds its programs by; nothing else of our environment reaches it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a process in a group of its own, which is killed when this is dropped.
/// What it writes is a sign of life.
pub(super) async fn run(
    request: &ProcessRequest,
    beat: &(dyn Fn() + Send + Sync),
) -> Result<Answer, Problem> {
    let mut command = command(request);
    enclose(&mut command, &request.environment);
    if !request.awaited {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(false);
        let _begun = command.spawn().map_err(|why| cannot_start(request, &why))?;
        return Ok(Answer::Begun);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|why| cannot_start(request, &why))?;
    let group = Group::of(&child);
    let finished = finish(&mut child, request.stdin.as_bytes(), beat).await;
    drop(group);
    finished.map(Answer::Process)
}

/// Gives a process a group of its own, and nothing of our environment.
pub(super) fn enclose(command: &mut Command, environment: &[(String, String)]) {
    command.env_clear().env("PATH", PATH).env("LANG", "C.UTF-8");
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.current_dir("/").process_group(0).kill_on_drop(true);
}

/// A group of processes, killed with all in it when this is dropped.
pub(super) struct Group(Option<Pid>);

impl Group {
    /// Of a process that was started as the first of its group.
    pub(super) fn of(child: &Child) -> Self {
        Self(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            // When nothing of it is left there is nobody to be told.
            let _all_gone = kill_process_group(pid, Signal::KILL);
        }
    }
}

fn command(request: &ProcessRequest) -> Command {
    let mut command = match &request.program {
        // `$0` is the shell's name, `$1` the first argument.
        ProcessProgram::Shell(text) => {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", text.as_str(), "sh"]);
            command
        }
        ProcessProgram::Python(code) => {
            let mut command = Command::new("python3");
            command.args(["-c", code]);
            command
        }
        // What follows `-` would be taken for the script's own text on standard input, which is the task's; the script is given
        // as text and sees its arguments from the third on, as one of a file does.
        ProcessProgram::JavaScript(code) => {
            let mut command = Command::new("node");
            command.args(["-e", &format!("process.argv.splice(1, 0, \"script\");\n{code}"), "--"]);
            command
        }
    };
    command.args(&request.arguments);
    command
}

fn cannot_start(request: &ProcessRequest, why: &std::io::Error) -> Problem {
    let program = match request.program {
        ProcessProgram::Shell(_) => "/bin/sh",
        ProcessProgram::Python(_) => "python3",
        ProcessProgram::JavaScript(_) => "node",
    };
    let hint = match why.kind() {
        std::io::ErrorKind::NotFound => format!("; install {program} where Standfast runs"),
        _ => String::new(),
    };
    Standard::Configuration.problem(format!("`{program}` cannot be started: {why}{hint}"))
}

async fn finish(
    child: &mut Child,
    stdin: &[u8],
    beat: &(dyn Fn() + Send + Sync),
) -> Result<ProcessAnswer, Problem> {
    let broken = |why: std::io::Error| Standard::Runtime.problem(format!("the process broke off: {why}"));
    let (mut input, output, error) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let writing = async {
        if let Some(mut input) = input.take() {
            // A process need not read what it is given.
            let _not_read = input.write_all(stdin).await;
        }
    };
    let ((), stdout, stderr) = tokio::join!(writing, read(output, beat), read(error, beat));
    let status = child.wait().await.map_err(broken)?;
    Ok(ProcessAnswer { code: code_of(status), stdout: stdout?, stderr: stderr? })
}

async fn read(
    from: Option<impl AsyncRead + Unpin>,
    beat: &(dyn Fn() + Send + Sync),
) -> Result<String, Problem> {
    let Some(from) = from else { return Ok(String::new()) };
    let (mut from, mut bytes) = (from.take(OUTPUT_BYTES_MAX + 1), Vec::new());
    let broken = |why: std::io::Error| {
        Standard::Runtime.problem(format!("what the process wrote cannot be read: {why}"))
    };
    while from.read_buf(&mut bytes).await.map_err(broken)? > 0 {
        beat();
    }
    if bytes.len() as u64 > OUTPUT_BYTES_MAX {
        let detail = format!("the process wrote more than {} KiB", OUTPUT_BYTES_MAX >> 10);
        return Err(Standard::Runtime.problem(detail));
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// As a shell has it.
fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}
