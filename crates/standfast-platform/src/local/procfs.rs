//! What `/proc` says about processes: who is alive, since when, in which group, and with which of our marks.

use std::collections::BTreeSet;
use std::fs;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// The variable that marks every process of a replica: `<stack>/<instance>/<generation>/<fingerprint of the state
/// folder>`.
pub const INSTANCE_VARIABLE: &str = "STANDFAST_INSTANCE";

/// A process, told from a later one with the same number by its start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number.
    pub pid: u32,
    /// When it started: clock ticks since the machine's.
    pub started_ticks: u64,
}

impl ProcessId {
    /// The process that has this number now.
    pub fn of(pid: u32) -> Option<Self> {
        stat(pid).map(|seen| Self { pid, started_ticks: seen.started_ticks })
    }

    /// Whether it lives: there, the same one, and no zombie.
    pub fn is_alive(self) -> bool {
        self.state().is_some_and(|state| !matches!(state, 'Z' | 'X'))
    }

    /// Its state's letter (`R`, `S`, `T`, `Z`, …), when it is still there.
    pub fn state(self) -> Option<char> {
        stat(self.pid).filter(|seen| seen.started_ticks == self.started_ticks).map(|seen| seen.state)
    }
}

/// A line of `/proc/PID/stat`, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) state: char,
    pub(crate) group: u32,
    pub(crate) session: u32,
    pub(crate) started_ticks: u64,
}

/// What the kernel says about a process.
pub(crate) fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Fields 3, 5, 6 and 22. The second is the program's name in parentheses and may hold anything, spaces and parentheses
/// too.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    let group = fields.nth(1)?.parse().ok()?;
    let session = fields.next()?.parse().ok()?;
    let started_ticks = fields.nth(15)?.parse().ok()?;
    Some(Stat { state, group, session, started_ticks })
}

/// The machine's start: process numbers and start times of another one mean nothing.
pub(crate) fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// A process that carries our mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Marked {
    pub(crate) id: ProcessId,
    pub(crate) group: u32,
    pub(crate) mark: String,
}

/// All living processes whose mark ends with `suffix`, except this one.
///
/// A process that rewrote its environment area is not found; its process group and control group are the other nets.
pub(crate) fn marked(suffix: &str) -> Vec<Marked> {
    pids().filter_map(|pid| marked_process(pid, suffix)).collect()
}

fn marked_process(pid: u32, suffix: &str) -> Option<Marked> {
    let mark = environment_value(pid, INSTANCE_VARIABLE).filter(|mark| mark.ends_with(suffix))?;
    let seen = stat(pid).filter(|seen| !matches!(seen.state, 'Z' | 'X'))?;
    Some(Marked { id: ProcessId { pid, started_ticks: seen.started_ticks }, group: seen.group, mark })
}

fn environment_value(pid: u32, name: &str) -> Option<String> {
    let block = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let value = block
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(name.as_bytes()).and_then(|rest| rest.strip_prefix(b"=")))?;
    String::from_utf8(value.to_vec()).ok()
}

/// The living processes that carry exactly this mark, or are of the session or group that an ended `leader` led.
pub(crate) fn related(mark: &str, leader: Option<ProcessId>) -> Vec<ProcessId> {
    // While a session or group has members its number is not given to a process; if one has it, it is a later one, and
    // none of ours is left.
    let leader = leader
        .filter(|leader| stat(leader.pid).is_none_or(|seen| seen.started_ticks == leader.started_ticks));
    let is_led =
        |seen: &Stat| leader.is_some_and(|leader| seen.session == leader.pid || seen.group == leader.pid);
    let is_related = |pid: u32| {
        let seen = stat(pid).filter(|seen| !matches!(seen.state, 'Z' | 'X'))?;
        let is_ours =
            is_led(&seen) || environment_value(pid, INSTANCE_VARIABLE).is_some_and(|found| found == mark);
        is_ours.then_some(ProcessId { pid, started_ticks: seen.started_ticks })
    };
    pids().filter_map(is_related).collect()
}

fn pids() -> impl Iterator<Item = u32> {
    let own = std::process::id();
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(move |pid| *pid != own)
}

/// Sends SIGKILL to every [`related`] process until none is left, at most `rounds` times: one that forks while it is
/// being hunted is met in the next round. Returns how many were hit.
pub(crate) fn sweep(mark: &str, leader: Option<ProcessId>, rounds: u32) -> usize {
    let mut hit = BTreeSet::new();
    for _ in 0..rounds {
        let found = related(mark, leader);
        if found.is_empty() {
            break;
        }
        hit.extend(found.into_iter().filter(|id| kill(*id)));
    }
    hit.len()
}

/// Sends SIGKILL to this very process; false when it is gone or not ours.
pub(crate) fn kill(id: ProcessId) -> bool {
    // The descriptor pins the process: if the number was reused before this line, the start time tells; after it, it
    // cannot be.
    let Some(Ok(pinned)) = pid_of(id.pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else {
        return false;
    };
    id.is_alive() && pidfd_send_signal(pinned, Signal::KILL).is_ok()
}

pub(crate) fn pid_of(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// The process that listens on a TCP port, as `name (pid)`, as far as this user may see it.
pub fn listener_of(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| table.lines().filter_map(|line| listening_inode(line, port)).collect::<Vec<_>>())
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let holds = |pid: &u32| {
        fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten().any(|entry| {
            fs::read_link(entry.path())
                .is_ok_and(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()))
        })
    };
    let pid = pids().chain([std::process::id()]).find(|pid| !inodes.is_empty() && holds(pid))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("{} (process {pid})", name.trim()))
}

/// The inode of a line of `/proc/net/tcp` that is a listening socket (state 0A) on `port`.
fn listening_inode(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let local = fields.get(1)?.rsplit(':').next()?;
    let is_it = u16::from_str_radix(local, 16).ok()? == port && *fields.get(3)? == "0A";
    is_it.then(|| fields.get(9).map(|inode| (*inode).to_owned())).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_parentheses_does_not_shift_the_fields() {
        let line = "42 (a) b ( c) S 1 77 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 123456 1000 10 18446744073709551615";
        assert_eq!(
            parse_stat(line),
            Some(Stat { state: 'S', group: 77, session: 42, started_ticks: 123_456 })
        );
        assert_eq!(parse_stat("nonsense"), None);
    }

    #[test]
    fn this_process_is_alive_and_another_start_time_is_not_it() {
        let own = ProcessId::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(!ProcessId { started_ticks: own.started_ticks + 1, ..own }.is_alive());
    }

    #[test]
    fn the_listener_of_a_port_is_named() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let name = listener_of(port).unwrap();
        assert!(name.contains(&std::process::id().to_string()), "{name}");
    }

    #[test]
    fn a_table_line_gives_its_inode_only_when_it_listens_there() {
        let line = "   0: 0100007F:4E20 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 5555 1";
        assert_eq!(listening_inode(line, 20_000).as_deref(), Some("5555"));
        assert_eq!(listening_inode(line, 20_001), None);
        assert_eq!(listening_inode(&line.replace(" 0A ", " 01 "), 20_000), None);
    }
}
