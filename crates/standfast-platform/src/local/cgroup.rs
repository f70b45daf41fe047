//! Control groups, version 1 or 2, where this machine lets us make them: limits on what a replica may use, and a kill
//! that nothing escapes. Without them the rest works, and the inventory says what is not enforced.
//!
//! A group is `standfast/<stack>-<fingerprint>/<instance>` below the hierarchy's root or, where that is not ours to
//! write, below our own group.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use standfast_model::{Limits, StackName};
use standfast_runtime::Clock;

use super::procfs::{self, ProcessId};

/// The period over which a share of a core is counted.
const CPU_PERIOD_MICROS: u64 = 100_000;
/// A group can be removed when its last process is gone, which takes a moment after its kill.
const REMOVE_TRIES: u32 = 100;
const REMOVE_GAP: Duration = Duration::from_millis(5);
/// The controllers that limits need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

/// Where control groups can be made here.
#[derive(Debug, Default)]
pub(crate) struct ControlGroups {
    /// Our folder in the unified hierarchy (version 2).
    unified: Option<PathBuf>,
    /// Our folder in each version 1 controller's hierarchy.
    version1: BTreeMap<&'static str, PathBuf>,
    /// Controllers that version 2 can give our groups.
    delegated: BTreeSet<&'static str>,
    /// Whether they were passed down to our folder, which is done with the first group.
    is_passed_down: OnceLock<()>,
}

/// The control groups of one instance.
#[derive(Debug, Default)]
pub(crate) struct Group(Vec<PathBuf>);

impl ControlGroups {
    /// Looks where groups can be made. Nothing is made yet.
    pub(crate) fn find(stack: &StackName, fingerprint: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let folder = PathBuf::from("standfast").join(format!("{stack}-{fingerprint}"));
        let mut found = Self::default();
        for mount in mounts.lines().filter_map(Mount::read) {
            if mount.version == 2 {
                found.unified = mount.place(&own, "", &folder).or(found.unified.take());
                continue;
            }
            for controller in CONTROLLERS.into_iter().filter(|controller| mount.has(controller)) {
                if let Some(place) = mount.place(&own, controller, &folder) {
                    found.version1.insert(controller, place);
                }
            }
        }
        if let Some(unified) = &found.unified {
            found.delegated = base_of(unified).map(offered).unwrap_or_default();
        }
        found
    }

    /// The controllers that cannot be had here.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let is_there = |one: &&str| {
            (self.unified.is_some() && self.delegated.contains(one)) || self.version1.contains_key(one)
        };
        CONTROLLERS.into_iter().filter(|one| !is_there(one)).collect()
    }

    /// Puts a process into groups of its own with its limits; sentences about what could not be done.
    pub(crate) fn join(&self, name: &str, process: ProcessId, limits: &Limits) -> (Group, BTreeSet<String>) {
        let (mut group, mut limitations) = (Group::default(), BTreeSet::new());
        if let Some(folder) = &self.unified {
            self.is_passed_down.get_or_init(|| pass_down(folder, &self.delegated));
            let joined = join_folder(&folder.join(name), process, &self.version2_settings(limits));
            match joined {
                Ok(made) => group.0.push(made),
                Err(error) => {
                    if !self.version2_settings(limits).is_empty() && process.is_alive() {
                        limitations.insert(format!("limits are not enforced: {error}"));
                    }
                    tracing::debug!(%error, name, "no control group");
                }
            }
        }
        for (controller, settings) in version1_settings(limits) {
            if self.unified.is_some() && self.delegated.contains(controller) {
                continue;
            }
            let joined = match self.version1.get(controller) {
                Some(folder) => join_folder(&folder.join(name), process, &settings),
                None => {
                    Err(io::Error::other(format!("no `{controller}` control group can be written to here")))
                }
            };
            match joined {
                Ok(made) => group.0.push(made),
                // A process that has ended already needs no limits.
                Err(_) if !process.is_alive() => {}
                Err(error) => {
                    limitations.insert(format!("{controller} limits are not enforced: {error}"));
                }
            }
        }
        (group, limitations)
    }

    /// The groups that an instance has.
    pub(crate) fn of(&self, name: &str) -> Group {
        Group(self.folders().map(|folder| folder.join(name)).filter(|folder| folder.is_dir()).collect())
    }

    /// Names of instances that have groups: those left by a predecessor among them.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        let in_folder = |folder: &Path| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries
                .filter(|entry| entry.path().is_dir())
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect::<Vec<_>>()
        };
        self.folders().flat_map(|folder| in_folder(folder)).collect()
    }

    /// Removes our folders, when they are empty.
    pub(crate) fn remove(&self) {
        for folder in self.folders() {
            let _others_may_still_use_it = fs::remove_dir(folder);
            let _others_may_use_it_too = folder.parent().map(fs::remove_dir);
        }
    }

    fn folders(&self) -> impl Iterator<Item = &PathBuf> {
        self.unified.iter().chain(self.version1.values())
    }

    fn version2_settings(&self, limits: &Limits) -> Vec<(&'static str, String)> {
        let cpu = limits.cpu_millis.map(|millis| {
            (
                "cpu",
                "cpu.max",
                format!("{} {CPU_PERIOD_MICROS}", u64::from(millis) * CPU_PERIOD_MICROS / 1_000),
            )
        });
        let memory = limits.memory_bytes.map(|bytes| ("memory", "memory.max", bytes.to_string()));
        let pids = limits.pids.map(|pids| ("pids", "pids.max", pids.to_string()));
        let all = [cpu, memory, pids].into_iter().flatten();
        all.filter(|(controller, ..)| self.delegated.contains(controller))
            .map(|(_, file, value)| (file, value))
            .collect()
    }
}

impl Group {
    /// Kills whatever is in the groups and removes them. Blocks.
    pub(crate) fn kill_and_remove(self, clock: Clock) {
        for folder in self.0 {
            for _ in 0..REMOVE_TRIES {
                if fs::remove_dir(&folder).is_ok() || !folder.exists() {
                    break;
                }
                kill_all(&folder);
                clock.block(REMOVE_GAP);
            }
        }
    }
}

fn kill_all(folder: &Path) {
    if fs::write(folder.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let pids = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    for id in pids.lines().filter_map(|pid| pid.parse().ok()).filter_map(ProcessId::of) {
        procfs::kill(id);
    }
}

fn version1_settings(limits: &Limits) -> Vec<(&'static str, Vec<(&'static str, String)>)> {
    let cpu = limits.cpu_millis.map(|millis| {
        let quota = (u64::from(millis) * CPU_PERIOD_MICROS / 1_000).max(1_000);
        let period = ("cpu.cfs_period_us", CPU_PERIOD_MICROS.to_string());
        ("cpu", vec![period, ("cpu.cfs_quota_us", quota.to_string())])
    });
    let memory =
        limits.memory_bytes.map(|bytes| ("memory", vec![("memory.limit_in_bytes", bytes.to_string())]));
    let pids = limits.pids.map(|pids| ("pids", vec![("pids.max", pids.to_string())]));
    [cpu, memory, pids].into_iter().flatten().collect()
}

fn join_folder(folder: &Path, process: ProcessId, settings: &[(&str, String)]) -> io::Result<PathBuf> {
    fs::create_dir_all(folder)?;
    let joined = settings
        .iter()
        .try_for_each(|(file, value)| fs::write(folder.join(file), value))
        .and_then(|()| fs::write(folder.join("cgroup.procs"), process.pid.to_string()));
    if joined.is_err() {
        let _left_empty = fs::remove_dir(folder);
    }
    joined.map(|()| folder.to_path_buf())
}

/// The hierarchy's folder that ours, `standfast/<stack>-<fingerprint>`, is in.
fn base_of(folder: &Path) -> Option<&Path> {
    folder.ancestors().nth(2)
}

/// The controllers that groups below `base` can be given. Version 2 wants processes in leaves only, except at its root.
fn offered(base: &Path) -> BTreeSet<&'static str> {
    let is_root = !base.join("cgroup.type").exists();
    let is_bare = fs::read_to_string(base.join("cgroup.procs")).is_ok_and(|pids| pids.is_empty());
    if !(is_root || is_bare) || !is_writable(&base.join("cgroup.subtree_control")) {
        return BTreeSet::new();
    }
    let there = fs::read_to_string(base.join("cgroup.controllers")).unwrap_or_default();
    CONTROLLERS
        .into_iter()
        .filter(|controller| there.split_whitespace().any(|one| one == *controller))
        .collect()
}

/// Lets groups in `folder` have the controllers. What is refused shows when a limit cannot be set.
fn pass_down(folder: &Path, controllers: &BTreeSet<&'static str>) {
    if controllers.is_empty() || fs::create_dir_all(folder).is_err() {
        return;
    }
    let levels: Vec<&Path> = folder.ancestors().take(3).collect();
    for (level, controller) in
        levels.iter().rev().flat_map(|level| controllers.iter().map(move |one| (level, one)))
    {
        let _shows_later = fs::write(level.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    version: u8,
    options: String,
}

impl Mount {
    /// From a line of `/proc/self/mountinfo`.
    fn read(line: &str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let point = before.split(' ').nth(4)?.into();
        let mut after = after.split(' ');
        let version = match after.next()? {
            "cgroup" => 1,
            "cgroup2" => 2,
            _ => return None,
        };
        Some(Self { point, version, options: after.nth(1).unwrap_or_default().to_owned() })
    }

    fn has(&self, controller: &str) -> bool {
        self.options.split(',').any(|option| option == controller)
    }

    /// Our folder in this hierarchy: at its root as Docker does, else below our own group (`own`: `/proc/self/cgroup`).
    fn place(&self, own: &str, controller: &str, folder: &Path) -> Option<PathBuf> {
        let is_own = |line: &&str| {
            line.split(':').nth(1).is_some_and(|names| names.split(',').any(|name| name == controller))
        };
        let path = own.lines().find(is_own).and_then(|line| line.splitn(3, ':').nth(2)).unwrap_or("/");
        let below_own = self.point.join(path.trim_start_matches('/'));
        [self.point.clone(), below_own]
            .into_iter()
            .find(|base| is_writable(base))
            .map(|base| base.join(folder))
    }
}

fn is_writable(folder: &Path) -> bool {
    use rustix::fs::{Access, access};
    access(folder, Access::WRITE_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_read_from_the_mounts() {
        let v1 = "31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct";
        let mount = Mount::read(v1).unwrap();
        assert_eq!((mount.version, mount.point.as_path()), (1, Path::new("/sys/fs/cgroup/cpu,cpuacct")));
        assert!(mount.has("cpu") && !mount.has("memory"));
        let v2 = "35 24 0:31 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate";
        assert_eq!(Mount::read(v2).unwrap().version, 2);
        assert_eq!(Mount::read("21 1 8:1 / / rw - ext4 /dev/vda rw"), None);
    }

    #[test]
    fn limits_become_settings() {
        let limits = Limits { cpu_millis: Some(500), memory_bytes: Some(1 << 20), pids: None };
        let settings = version1_settings(&limits);
        assert_eq!(settings.len(), 2);
        assert_eq!(settings[0].1[1], ("cpu.cfs_quota_us", "50000".to_owned()));
        let groups = ControlGroups { delegated: CONTROLLERS.into(), ..ControlGroups::default() };
        assert_eq!(groups.version2_settings(&limits)[0], ("cpu.max", "50000 100000".to_owned()));
    }

    #[test]
    fn a_machine_without_groups_says_what_is_not_enforced() {
        let own = ProcessId::of(std::process::id()).unwrap();
        let limits = Limits { memory_bytes: Some(1 << 30), ..Limits::default() };
        let (group, limitations) = ControlGroups::default().join("orders-0.1", own, &limits);
        assert!(group.0.is_empty());
        assert!(limitations.first().unwrap().starts_with("memory limits are not enforced"));
    }
}
