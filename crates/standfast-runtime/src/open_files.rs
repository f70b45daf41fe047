//! How many files and sockets this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit of open files, raised as far as it may be. Many systems start programs with 1,024, for the sake of those that use
/// `select`; a gateway has two open for each request.
#[derive(Debug, Clone, Copy)]
pub struct OpenFiles {
    before: Option<u64>,
    now: Option<u64>,
}

impl OpenFiles {
    /// Raises the limit of this process. What it starts inherits that, unless [`OpenFiles::restore_for`] is called.
    pub fn raise() -> Self {
        let Rlimit { current: before, maximum } = getrlimit(Resource::Nofile);
        let now = match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            Ok(()) => maximum,
            Err(error) => {
                tracing::warn!(%error, "the limit of open files stays as it is");
                before
            }
        };
        Self { before, now }
    }

    /// How many may be open; `None` when there is no limit.
    pub const fn limit(self) -> Option<u64> {
        self.now
    }

    /// Gives a process that was just started the limit that was there before. Where that is not possible it keeps the higher one.
    pub fn restore_for(self, pid: u32) {
        #[cfg(target_os = "linux")]
        {
            let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw) else { return };
            let limit = Rlimit { current: self.before, maximum: self.now };
            if let Err(error) = rustix::process::prlimit(Some(pid), Resource::Nofile, limit) {
                tracing::debug!(%error, "a started process keeps the higher limit of open files");
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = pid;
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// What `/proc` says of a process: the soft limit.
    fn soft_limit(pid: u32) -> String {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        line.split_whitespace().nth(3).unwrap().to_owned()
    }

    #[test]
    fn the_limit_is_raised_and_what_is_started_gets_the_old_one() {
        let own = std::process::id();
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(512), maximum }).unwrap();
        let files = OpenFiles::raise();
        assert_eq!(soft_limit(own), maximum.map_or("unlimited".to_owned(), |most| most.to_string()));
        assert_eq!(files.limit(), maximum);
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        files.restore_for(child.id());
        assert_eq!(soft_limit(child.id()), "512");
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
