use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Largest file that a stack consists of or names, in bytes.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// Where the files that a stack names come from.
pub trait Files {
    /// The bytes of a file of at most `max` bytes; a larger one is an error of kind [`io::ErrorKind::FileTooLarge`].
    ///
    /// # Errors
    /// Whatever keeps the file from being read.
    fn read(&self, path: &Path, max: usize) -> io::Result<Vec<u8>>;

    /// Whether others than its owner may do anything with a file; those that are on no disk are nobody else's.
    ///
    /// # Errors
    /// Whatever keeps that from being known.
    fn is_open_to_others(&self, path: &Path) -> io::Result<bool> {
        let _is_on_no_disk = path;
        Ok(false)
    }
}

/// The machine's disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path, max: usize) -> io::Result<Vec<u8>> {
        // A device or a pipe may never end, so the kind is asked before the file is opened.
        if !std::fs::metadata(path)?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a file"));
        }
        let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
        let mut bytes = Vec::new();
        File::open(path)?.take(limit).read_to_end(&mut bytes)?;
        within(bytes, max)
    }

    fn is_open_to_others(&self, path: &Path) -> io::Result<bool> {
        Ok(std::fs::metadata(path)?.permissions().mode() & 0o077 != 0)
    }
}

/// Files held in memory, for tests.
impl Files for BTreeMap<PathBuf, String> {
    fn read(&self, path: &Path, max: usize) -> io::Result<Vec<u8>> {
        let text = self.get(path).ok_or(io::ErrorKind::NotFound)?;
        within(text.clone().into_bytes(), max)
    }
}

fn within(bytes: Vec<u8>, max: usize) -> io::Result<Vec<u8>> {
    if bytes.len() > max { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}
