//! The files of one log: numbered, each closed at its size, the oldest removed. A number never comes again, so a place
//! in a log stays what it is.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use standfast_model::Stamp;

use crate::local::api::LogSource;
use crate::local::config::LogLimits;

/// How far back a torn last line is looked for.
const TORN_BYTES_MAX: u64 = 64 << 10;

/// Where a log's files are and how they are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogName {
    folder: PathBuf,
    stem: String,
}

impl LogName {
    pub(crate) fn of(logs: &Path, source: &LogSource) -> Self {
        match source {
            LogSource::Service(service) => Self { folder: logs.join("services"), stem: service.to_string() },
            LogSource::Node => Self { folder: logs.to_path_buf(), stem: "node".to_owned() },
        }
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{}.{number:06}.log", self.stem))
    }

    /// Its files by number, oldest first.
    pub(crate) fn files(&self) -> Vec<(u64, PathBuf)> {
        let number = |name: &str| -> Option<u64> {
            name.strip_prefix(&self.stem)?.strip_prefix('.')?.strip_suffix(".log")?.parse().ok()
        };
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut files: Vec<(u64, PathBuf)> =
            entries.filter_map(|entry| Some((number(entry.file_name().to_str()?)?, entry.path()))).collect();
        files.sort();
        files
    }
}

/// The open file of a log.
#[derive(Debug)]
pub(crate) struct LogFile {
    name: LogName,
    limits: LogLimits,
    number: u64,
    file: File,
    size: u64,
}

impl LogFile {
    /// Goes on with the newest file, or begins the first. A last line that a crash tore is cut off: its writer's spool
    /// still has it.
    pub(crate) fn open(name: LogName, limits: LogLimits) -> io::Result<Self> {
        fs::create_dir_all(&name.folder)?;
        let number = name.files().last().map_or(1, |(number, _)| *number);
        let mut file = File::options().create(true).read(true).append(true).open(name.path(number))?;
        let size = cut_torn_line(&mut file)?;
        let log = Self { name, limits, number, file, size };
        log.point_at_newest()?;
        Ok(log)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.size >= self.limits.file_bytes_max
    }

    /// Begins the next file, with `head` in it.
    pub(crate) fn rotate(&mut self, head: &str) -> io::Result<()> {
        let number = self.number + 1;
        let file = File::options().create(true).read(true).append(true).open(self.name.path(number))?;
        (self.number, self.file, self.size) = (number, file, 0);
        self.append(head)?;
        self.point_at_newest()
    }

    /// Appends whole lines, all or none: what a full disk cut off would be joined to what comes next.
    pub(crate) fn append(&mut self, lines: &str) -> io::Result<()> {
        if let Err(error) = self.file.write_all(lines.as_bytes()) {
            let _a_torn_line_at_worst = self.file.set_len(self.size);
            return Err(error);
        }
        self.size += lines.len() as u64;
        Ok(())
    }

    /// Removes what is beyond the limits of number and age.
    pub(crate) fn prune(&self, now: Stamp) {
        let mut closed = self.name.files();
        closed.retain(|(number, _)| *number != self.number);
        let surplus = (closed.len() + 1).saturating_sub(self.limits.files_max.max(1));
        for (index, (_, path)) in closed.iter().enumerate() {
            let is_beyond = index < surplus || is_older(path, now.minus(self.limits.age_max));
            if is_beyond && let Err(error) = fs::remove_file(path) {
                tracing::warn!(%error, file = %path.display(), "an old log file cannot be removed");
            }
        }
    }

    /// `orders.log` leads to the newest file, for those who look into the folder.
    fn point_at_newest(&self) -> io::Result<()> {
        let (link, temporary) = (format!("{}.log", self.name.stem), format!("{}.log.new", self.name.stem));
        let (link, temporary) = (self.name.folder.join(link), self.name.folder.join(temporary));
        let target = self.name.path(self.number);
        let Some(target) = target.file_name() else { return Ok(()) };
        if fs::read_link(&link).is_ok_and(|now| now.as_os_str() == target) {
            return Ok(());
        }
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::os::unix::fs::symlink(target, &temporary)?;
        fs::rename(&temporary, &link)
    }
}

fn is_older(path: &Path, limit: Stamp) -> bool {
    let written = fs::metadata(path).and_then(|found| found.modified()).ok();
    written.and_then(|at| at.duration_since(UNIX_EPOCH).ok()).is_some_and(|at| Stamp::EPOCH.plus(at) < limit)
}

/// Cuts what follows the last end of a line, and returns the size.
fn cut_torn_line(file: &mut File) -> io::Result<u64> {
    let size = file.metadata()?.len();
    let from = size.saturating_sub(TORN_BYTES_MAX);
    file.seek(SeekFrom::Start(from))?;
    let mut tail = Vec::new();
    file.read_to_end(&mut tail)?;
    let whole = tail.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last as u64 + 1);
    if from + whole < size && (whole > 0 || from == 0) {
        file.set_len(from + whole)?;
        return Ok(from + whole);
    }
    Ok(size)
}
