//! Whether this machine can run a stack and a proof, asked before anything is started.

use std::path::Path;

use rustix::process::{Pid, PidfdFlags, Resource, getrlimit, pidfd_open};
use standfast_model::{Limits, Stack};

/// Descriptors that the agent and the node need beside those of replicas and listeners.
const DESCRIPTORS_BASE: u64 = 512;
/// Descriptors per replica: spools, process handle, connections.
const DESCRIPTORS_PER_REPLICA: u64 = 16;
/// Room that a proof's store, logs and journal may take, in bytes.
const ROOM_MIN: u64 = 256 << 20;
/// Memory that Standfast itself and the load generator take, in bytes.
const MEMORY_MIN: u64 = 256 << 20;

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    /// Why nothing can run here, in sentences.
    pub obstacles: Vec<String>,
    /// What will be different here, in sentences.
    pub notes: Vec<String>,
}

/// Looks at the machine with a stack in mind. `scratch` is where files would go.
pub fn examine(stack: &Stack, scratch: &Path) -> Findings {
    let mut found = Findings::default();
    let replicas: u64 = stack.services.values().map(|service| u64::from(service.deploy.replicas)).sum();
    let listeners = stack.services.len() as u64 * stack.zones.len() as u64 * 2 * 8;
    let needed = DESCRIPTORS_BASE + replicas * DESCRIPTORS_PER_REPLICA + listeners;
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if descriptors < needed {
        found
            .obstacles
            .push(format!("{needed} open files are needed, {descriptors} are allowed: ulimit -n {needed}"));
    }
    if let Err(error) = pidfd_open(own(), PidfdFlags::empty()) {
        found.obstacles.push(format!(
            "the kernel has no process descriptors (pidfd_open: {error}); Linux 5.3 or newer is needed"
        ));
    }
    // A zone's subnet: any address of 127.0.0.0/8 can be bound on Linux.
    if let Err(error) = std::net::TcpListener::bind("127.77.1.1:0") {
        found.obstacles.push(format!("loopback addresses beyond 127.0.0.1 cannot be used: {error}"));
    }
    match rustix::fs::statvfs(scratch) {
        Ok(room) if room.f_bavail.saturating_mul(room.f_frsize) < ROOM_MIN => found.obstacles.push(format!(
            "{} has less than {} MiB of free space; set TMPDIR to a folder with more",
            scratch.display(),
            ROOM_MIN >> 20
        )),
        Ok(_) => {}
        Err(error) => found.obstacles.push(format!("{} cannot be used: {error}", scratch.display())),
    }
    if let Some(available) = available_memory()
        && available < MEMORY_MIN
    {
        found.obstacles.push(format!(
            "{} MiB of memory are free, {} are needed",
            available >> 20,
            MEMORY_MIN >> 20
        ));
    }
    let has_limits = stack.services.values().any(|service| service.deploy.limits != Limits::default());
    found.notes.extend(has_limits.then(limits_limitation).flatten());
    found
}

/// Why resource limits are not enforced here, in a sentence; `None` when they are.
pub fn limits_limitation() -> Option<String> {
    standfast_platform::local::limits_limitation()
}

fn own() -> Pid {
    rustix::process::getpid()
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib << 10)
}
