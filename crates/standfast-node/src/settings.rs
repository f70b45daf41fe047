//! How this running stack's nodes run: written once by `up` or `prove`, read by every node that starts later.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use standfast_model::Otlp;
use standfast_runtime::Disk;
use standfast_workflow::ContainerConfig;

/// The version of the state folder's layout. A folder of another version is refused.
pub const LAYOUT_VERSION: u32 = 1;

/// The name of the settings' file in a state folder.
const FILE: &str = "node.json";

/// What does not change while a stack runs. (What the agent must know is in its own configuration beside it.)
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// [`LAYOUT_VERSION`] of whoever wrote it.
    pub version: u32,
    /// The stack's folder, for `status`.
    pub root: PathBuf,
    /// The address at which the gateway takes requests from outside.
    pub public_address: IpAddr,
    /// The port there; any free one when absent.
    pub public_port: Option<u16>,
    /// Gateway threads, and sockets per listening address.
    pub workers: u16,
    /// Where metrics are given to whoever asks; nowhere when absent. Since 0.1.0.
    #[serde(default)]
    pub metrics: Option<SocketAddr>,
    /// Where spans go when the stack says nothing of that. Since 0.1.0.
    #[serde(default)]
    pub otlp: Option<Otlp>,
    /// Files of the keys by which records of workflows are sealed, absolute: the first one seals. Since 0.1.0.
    #[serde(default)]
    pub workflow_keys: Vec<PathBuf>,
    /// Where workflows run containers, and what of this machine they may be given. Since 0.1.0.
    #[serde(default)]
    pub containers: ContainerConfig,
    /// A planted bug; only test builds know any.
    pub plant: Option<String>,
}

/// Why a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// There is none, or it cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It was written by another version.
    #[error("the state folder {} has layout {found}, this program has layout {LAYOUT_VERSION}", .folder.display())]
    OtherVersion {
        /// The folder.
        folder: PathBuf,
        /// The version found.
        found: u64,
    },
    /// It is not what we write.
    #[error("{} is damaged", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
}

impl Settings {
    /// Reads the settings of a state folder.
    ///
    /// # Errors
    /// See [`SettingsError`]; a folder without settings is `Read` with `NotFound` as its source.
    pub fn read(disk: &dyn Disk, folder: &Path) -> Result<Self, SettingsError> {
        let path = folder.join(FILE);
        let bytes = disk.read(&path).map_err(|source| SettingsError::Read { path: path.clone(), source })?;
        let damaged = |source| SettingsError::Damaged { path: path.clone(), source };
        let value: serde_json::Value = serde_json::from_slice(&bytes).map_err(damaged)?;
        let found = value["version"].as_u64().unwrap_or(0);
        if found != u64::from(LAYOUT_VERSION) {
            return Err(SettingsError::OtherVersion { folder: folder.to_owned(), found });
        }
        serde_json::from_value(value).map_err(damaged)
    }

    /// Writes the settings into a state folder, which is made when absent.
    ///
    /// # Errors
    /// [`SettingsError::Write`].
    pub fn write(&self, disk: &dyn Disk, folder: &Path) -> Result<(), SettingsError> {
        let path = folder.join(FILE);
        let wrong = |source| SettingsError::Write { path: path.clone(), source };
        disk.make_folder(folder).map_err(wrong)?;
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| wrong(error.into()))?;
        disk.replace(&path, &bytes).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use standfast_runtime::SimulatedDisk;

    #[test]
    fn settings_come_back_and_another_version_is_refused() {
        let (disk, folder) = (SimulatedDisk::default(), Path::new("/state"));
        let settings = Settings {
            version: LAYOUT_VERSION,
            root: "/shop".into(),
            public_address: [127, 0, 0, 1].into(),
            public_port: Some(8080),
            workers: 2,
            metrics: Some(([127, 0, 0, 1], 9464).into()),
            otlp: None,
            workflow_keys: vec!["/keys/a".into()],
            containers: ContainerConfig { folder: Some("/shop".into()), ..ContainerConfig::default() },
            plant: None,
        };
        settings.write(&disk, folder).unwrap();
        assert_eq!(Settings::read(&disk, folder).unwrap(), settings);
        Settings { version: 9, ..settings }.write(&disk, folder).unwrap();
        assert!(matches!(Settings::read(&disk, folder), Err(SettingsError::OtherVersion { found: 9, .. })));
    }

    #[test]
    fn settings_of_before_there_were_metrics_are_read() {
        let (disk, folder) = (SimulatedDisk::default(), Path::new("/state"));
        let old = r#"{"version": 1, "root": "/shop", "public_address": "127.0.0.1", "public_port": null, "workers": 2, "plant": null}"#;
        disk.make_folder(folder).unwrap();
        disk.replace(&folder.join(FILE), old.as_bytes()).unwrap();
        let settings = Settings::read(&disk, folder).unwrap();
        assert_eq!((settings.metrics, settings.otlp), (None, None));
        assert!(settings.workflow_keys.is_empty());
        assert_eq!(settings.containers, ContainerConfig::default());
    }
}
