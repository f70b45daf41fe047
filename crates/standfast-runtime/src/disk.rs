use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Files, small and whole: ledgers, journals, reports. (The embedded store's database file is SQLite's own business.)
///
/// An error from [`Disk::replace`] or [`Disk::append`] leaves the old or the new content, never a mixture, except that a failed
/// append may leave a torn last record; readers must tell. A failed fsync is final for that file: never retry it, since the
/// kernel may have marked the lost pages clean ("Can Applications Recover from fsync Failures?", ATC 2020).
pub trait Disk: Send + Sync + std::fmt::Debug {
    /// A file's whole content.
    ///
    /// # Errors
    /// `NotFound`, or what the operating system says.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Puts `content` in the place of what the file held, durably: temporary file, fsync, rename, fsync of the folder.
    ///
    /// # Errors
    /// What the operating system says; the old content is then still there.
    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()>;

    /// Adds `content` to the file's end and makes it durable before returning. The file is made when absent.
    ///
    /// # Errors
    /// What the operating system says; the last record may then be torn.
    fn append(&self, path: &Path, content: &[u8]) -> io::Result<()>;

    /// Removes a file, durably; one that is not there is fine.
    ///
    /// # Errors
    /// What the operating system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a folder and those above it.
    ///
    /// # Errors
    /// What the operating system says.
    fn make_folder(&self, path: &Path) -> io::Result<()>;

    /// The names in a folder, sorted.
    ///
    /// # Errors
    /// `NotFound`, or what the operating system says.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;
}

/// The machine's disk.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        fs::read(path)
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut name = path.as_os_str().to_owned();
        name.push(".new");
        let temporary = PathBuf::from(name);
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        sync_folder_of(path)
    }

    fn append(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let is_new = !path.exists();
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(content)?;
        file.sync_data()?;
        if is_new { sync_folder_of(path) } else { Ok(()) }
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Ok(()) => sync_folder_of(path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let mut names = fs::read_dir(path)?
            .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    }
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => File::open(folder)?.sync_all(),
        _ => Ok(()),
    }
}

/// A disk in memory that can fail: full, broken, or cut off from power.
#[derive(Debug, Default)]
pub struct SimulatedDisk(Mutex<Simulated>);

#[derive(Debug, Default)]
struct Simulated {
    files: BTreeMap<PathBuf, Vec<u8>>,
    folders: BTreeSet<PathBuf>,
    capacity: Option<usize>,
    calls_until_error: Option<u64>,
    calls_until_power_cut: Option<u64>,
    dead: bool,
}

impl SimulatedDisk {
    /// From now on the files together may hold `bytes`; `None` is without limit.
    pub fn set_capacity(&self, bytes: Option<usize>) {
        self.state().capacity = bytes;
    }

    /// The write after `calls` more writes fails with an I/O error.
    pub fn fail_after(&self, calls: u64) {
        self.state().calls_until_error = Some(calls);
    }

    /// The power goes in the write after `calls` more writes: that write is torn, and all later calls fail until
    /// [`SimulatedDisk::restart`].
    pub fn cut_power_after(&self, calls: u64) {
        self.state().calls_until_power_cut = Some(calls);
    }

    /// The machine is back; what had been made durable is there.
    pub fn restart(&self) {
        self.state().dead = false;
    }

    fn state(&self) -> std::sync::MutexGuard<'_, Simulated> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Simulated {
    fn alive(&self) -> io::Result<()> {
        if self.dead { Err(io::Error::other("the simulated machine is off")) } else { Ok(()) }
    }

    /// Counts one write and says whether the power goes in it.
    fn count_write(&mut self, adds: usize) -> io::Result<bool> {
        self.alive()?;
        let due = |left: &mut Option<u64>| match left {
            Some(0) => {
                *left = None;
                true
            }
            Some(calls) => {
                *calls -= 1;
                false
            }
            None => false,
        };
        if due(&mut self.calls_until_error) {
            return Err(io::Error::other("simulated I/O error"));
        }
        let used: usize = self.files.values().map(Vec::len).sum();
        if self.capacity.is_some_and(|capacity| used + adds > capacity) {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "simulated disk is full"));
        }
        self.dead = due(&mut self.calls_until_power_cut);
        Ok(self.dead)
    }
}

impl Disk for SimulatedDisk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state();
        state.alive()?;
        state.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        if state.count_write(content.len())? {
            return state.alive(); // before the rename: the old content stays
        }
        state.files.insert(path.into(), content.into());
        Ok(())
    }

    fn append(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let torn = state.count_write(content.len())?;
        let kept = if torn { content.len() / 2 } else { content.len() };
        state.files.entry(path.into()).or_default().extend_from_slice(&content[..kept]);
        state.alive()
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        if !state.count_write(0)? {
            state.files.remove(path);
        }
        state.alive()
    }

    fn make_folder(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.alive()?;
        state.folders.insert(path.into());
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        state.alive()?;
        let names: Vec<String> = state
            .files
            .keys()
            .filter(|file| file.parent() == Some(path))
            .filter_map(|file| file.file_name().map(|name| name.to_string_lossy().into_owned()))
            .collect();
        if names.is_empty() && !state.folders.contains(path) {
            Err(io::ErrorKind::NotFound.into())
        } else {
            Ok(names)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every disk promises.
    fn promises(disk: &dyn Disk, folder: &Path) {
        disk.make_folder(folder).unwrap();
        let file = folder.join("ledger");
        assert_eq!(disk.read(&file).unwrap_err().kind(), io::ErrorKind::NotFound);
        disk.replace(&file, b"one").unwrap();
        disk.replace(&file, b"two").unwrap();
        disk.append(&file, b", three").unwrap();
        assert_eq!(disk.read(&file).unwrap(), b"two, three");
        assert_eq!(disk.list(folder).unwrap(), ["ledger"]);
        disk.remove(&file).unwrap();
        disk.remove(&file).unwrap();
        assert!(disk.list(folder).unwrap().is_empty());
        assert_eq!(disk.list(&folder.join("absent")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_real_disk_keeps_the_promises() {
        let folder = std::env::temp_dir().join(format!("standfast-disk-{}", std::process::id()));
        promises(&RealDisk, &folder);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_simulated_disk_keeps_the_promises() {
        promises(&SimulatedDisk::default(), Path::new("/sim"));
    }

    #[test]
    fn a_full_or_failing_disk_leaves_the_old_content() {
        let (disk, file) = (SimulatedDisk::default(), Path::new("/a"));
        disk.replace(file, b"old").unwrap();
        disk.set_capacity(Some(4));
        assert_eq!(disk.replace(file, b"much longer").unwrap_err().kind(), io::ErrorKind::StorageFull);
        disk.set_capacity(None);
        disk.cut_power_after(0);
        assert!(disk.replace(file, b"new").is_err());
        assert!(disk.read(file).is_err());
        disk.restart();
        assert_eq!(disk.read(file).unwrap(), b"old");
    }
}
