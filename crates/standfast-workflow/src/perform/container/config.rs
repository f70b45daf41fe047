//! Where containers are run, and what of this machine they may be given.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::run::{Problem, Standard};

/// Sockets that are tried when nothing is said, around those of the user; the first that is there counts.
const DOCKER: &str = "/var/run/docker.sock";
const PODMAN: &str = "/run/podman/podman.sock";
/// There is nobody to run containers.
const NO_ENGINE: &str = "urn:standfast:error:no-container-engine";

/// Where containers are run, and what of this machine they may be given. By default on the usual sockets, without volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerConfig {
    /// The Docker API's address, as `DOCKER_HOST` has it: `unix:///run/docker.sock`.
    pub host: Option<String>,
    /// The folder of the user's sockets, as `XDG_RUNTIME_DIR` has it.
    pub sockets: Option<PathBuf>,
    /// Relative volumes are below this folder.
    pub folder: Option<PathBuf>,
    /// Absolute volumes are below one of these.
    pub shared: Vec<PathBuf>,
}

impl ContainerConfig {
    /// As the environment says: `DOCKER_HOST`, `XDG_RUNTIME_DIR`, `STANDFAST_CONTAINER_VOLUMES` (folders, parted by colons), with
    /// relative volumes below a folder.
    pub fn of(variables: &BTreeMap<String, String>, folder: Option<PathBuf>) -> Self {
        let variable = |name: &str| variables.get(name).filter(|value| !value.is_empty());
        let shared = variable("STANDFAST_CONTAINER_VOLUMES").map(String::as_str).unwrap_or_default();
        Self {
            host: variable("DOCKER_HOST").cloned(),
            sockets: variable("XDG_RUNTIME_DIR").map(PathBuf::from),
            folder,
            shared: shared.split(':').filter(|path| !path.is_empty()).map(PathBuf::from).collect(),
        }
    }

    /// The socket of who runs containers.
    pub(super) fn socket(&self) -> Result<PathBuf, Problem> {
        let missing = |detail: String| {
            let mut problem = Standard::Configuration.problem(detail).with_status(503);
            problem.kind = NO_ENGINE.to_owned();
            problem
        };
        if let Some(host) = &self.host {
            let path = host.strip_prefix("unix://").filter(|path| path.starts_with('/')).ok_or_else(|| {
                missing(format!("DOCKER_HOST is `{host}`; only a socket of this machine will do, like `unix:///run/docker.sock`"))
            })?;
            return match Path::new(path).exists() {
                true => Ok(path.into()),
                false => Err(missing(format!(
                    "there is no socket {path}, which DOCKER_HOST names; start Docker or `podman system service`, or set DOCKER_HOST"
                ))),
            };
        }
        let own = self.sockets.as_ref();
        let own = own.map(|folder| [folder.join("podman/podman.sock"), folder.join("docker.sock")]);
        let all: Vec<PathBuf> =
            [DOCKER.into()].into_iter().chain(own.into_iter().flatten()).chain([PODMAN.into()]).collect();
        if let Some(found) = all.iter().find(|path| path.exists()) {
            return Ok(found.clone());
        }
        let all: Vec<String> = all.iter().map(|path| path.display().to_string()).collect();
        Err(missing(format!(
            "nobody runs containers here: there is none of the sockets {}; install Docker, or Podman and `systemctl enable --now podman.socket`, or set DOCKER_HOST",
            all.join(", ")
        )))
    }

    /// Where a volume is on this machine, if a container may be given it.
    pub(super) fn volume(&self, outside: &Path) -> Result<PathBuf, Problem> {
        let refused = |why: String| {
            Standard::Configuration.problem(format!("the volume `{}` {why}", outside.display()))
        };
        let real = |path: &Path| {
            path.canonicalize().map_err(|why| refused(format!("cannot be given: {} ({why})", path.display())))
        };
        if outside.is_absolute() {
            let found = real(outside)?;
            let is_shared = self
                .shared
                .iter()
                .filter_map(|folder| folder.canonicalize().ok())
                .any(|folder| found.starts_with(folder));
            return match is_shared {
                true => Ok(found),
                false => Err(refused(
                    "is not one that containers may be given; name it, or a folder around it, in STANDFAST_CONTAINER_VOLUMES, or use a path below the stack's folder".to_owned(),
                )),
            };
        }
        let Some(folder) = &self.folder else {
            return Err(refused("is relative, and there is no folder that it could be in".to_owned()));
        };
        let found = real(&folder.join(outside))?;
        match found.starts_with(real(folder)?) {
            true => Ok(found),
            false => Err(refused(format!("leads out of {}", folder.display()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_below_the_folder_or_one_that_is_shared() {
        let folder = tempfile::tempdir().unwrap();
        let (stack, shared) = (folder.path().join("stack"), folder.path().join("shared"));
        for path in [stack.join("data"), shared.join("x"), folder.path().join("other")] {
            std::fs::create_dir_all(path).unwrap();
        }
        std::os::unix::fs::symlink(folder.path().join("other"), stack.join("out")).unwrap();
        let variables = [("STANDFAST_CONTAINER_VOLUMES".to_owned(), format!(":{}", shared.display()))];
        let config = ContainerConfig::of(&variables.into(), Some(stack.clone()));
        assert_eq!(config.volume(Path::new("data")).unwrap(), stack.join("data").canonicalize().unwrap());
        assert!(config.volume(Path::new(".")).is_ok());
        assert!(config.volume(&shared.join("x")).is_ok());
        for outside in ["..", "data/../../other", "out", "absent"] {
            assert!(config.volume(Path::new(outside)).is_err(), "{outside}");
        }
        let problem = config.volume(&folder.path().join("other")).unwrap_err();
        assert!(problem.detail.unwrap().contains("STANDFAST_CONTAINER_VOLUMES"));
        assert!(config.volume(&shared.join("../other")).is_err());
        assert!(ContainerConfig::default().volume(Path::new("data")).is_err());
    }

    #[test]
    fn who_runs_containers_is_found_or_it_is_said_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("d.sock");
        let of = |host: String| ContainerConfig { host: Some(host), ..ContainerConfig::default() };
        let named = of(format!("unix://{}", socket.display()));
        let problem = named.socket().unwrap_err();
        assert_eq!((problem.kind.as_str(), problem.status), (NO_ENGINE, 503));
        std::fs::write(&socket, "").unwrap();
        assert_eq!(named.socket().unwrap(), socket);
        assert!(
            of("tcp://127.0.0.1:2375".to_owned()).socket().unwrap_err().detail.unwrap().contains("unix://")
        );
    }
}
