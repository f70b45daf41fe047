//! Reads the files that documents name, when a definition is made: of one folder, and over the network.

use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use ::http::{HeaderMap, Method};
use async_trait::async_trait;
use bytes::Bytes;
use standfast_model::{Disk, Files};
use standfast_runtime::{Clock, with_causes};

use super::http::HttpSender;
use crate::ask::{HttpRequest, of_http};

/// Largest file that is read, in bytes.
pub const RESOURCE_BYTES_MAX: usize = 4 << 20;
/// Longest time in which one is read.
const READ_MAX: Duration = Duration::from_secs(30);

/// A file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {address}: {why}")]
pub struct BadResource {
    /// Where it was said to be.
    pub address: String,
    /// Why not.
    pub why: String,
}

/// What reads the files that documents name.
#[async_trait]
pub trait ReadResource: Send + Sync {
    /// The text at this address, `file://`, `http://` or `https://`.
    ///
    /// # Errors
    /// Why there is none.
    async fn read(&self, address: &str) -> Result<String, BadResource>;
}

/// Reads files of a folder, and what is answered to `GET` over the network.
#[derive(Debug, Clone)]
pub struct FolderAndNetwork {
    folder: Option<PathBuf>,
    http: HttpSender,
    clock: Clock,
}

impl FolderAndNetwork {
    /// Paths are those below `folder`; without one there are no files.
    pub fn new(folder: Option<PathBuf>, clock: Clock) -> Self {
        Self { folder, http: HttpSender::new(), clock }
    }

    fn of_folder(&self, path: &str) -> Result<Vec<u8>, String> {
        let folder = self.folder.as_deref().ok_or("there is no folder that it could be in")?;
        let folder = folder.canonicalize().map_err(|why| format!("{}: {why}", folder.display()))?;
        let outside = || format!("it is not in {}", folder.display());
        let path = Path::new(path);
        if !path.is_absolute() && path.components().any(|part| part == Component::ParentDir) {
            return Err(outside());
        }
        // A link may lead out of the folder too, so what counts is where it ends.
        let found = folder.join(path).canonicalize().map_err(|why| why.to_string())?;
        if !found.starts_with(&folder) {
            return Err(outside());
        }
        Disk.read(&found, RESOURCE_BYTES_MAX).map_err(|why| why.to_string())
    }

    async fn over_network(&self, address: &str) -> Result<Vec<u8>, String> {
        let uri = of_http(address).map_err(|problem| problem.detail.unwrap_or_default())?;
        let request = HttpRequest {
            method: Method::GET,
            uri,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            credential: None,
        };
        let sending = self.http.send_up_to(&request, READ_MAX, RESOURCE_BYTES_MAX);
        let answer = self.clock.timeout(READ_MAX, sending).await;
        let answer = answer.map_err(|_| format!("there was no answer within {} s", READ_MAX.as_secs()))?;
        let answer = answer.map_err(|why| with_causes(&why))?;
        if !answer.status.is_success() {
            return Err(format!("it was answered with {}", answer.status));
        }
        Ok(answer.body.to_vec())
    }
}

#[async_trait]
impl ReadResource for FolderAndNetwork {
    async fn read(&self, address: &str) -> Result<String, BadResource> {
        let bytes = match address.strip_prefix("file://") {
            Some(path) => self.of_folder(path),
            None => self.over_network(address).await,
        };
        let text = bytes.and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()));
        text.map_err(|why| BadResource { address: address.to_owned(), why })
    }
}
