use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use standfast_runtime::Clock;
use tokio::sync::{mpsc, oneshot};

use super::checkpoint::{self, Checkpointer};
use super::committer::Committer;
use super::connection::{open_reader, open_second_writer, open_writer};
use super::reader;
use super::shared::Shared;
use super::store::EmbeddedStore;
use crate::OpenError;

/// Whoever holds the lock on this file has the folder.
const LOCK_NAME: &str = "store.lock";
/// How often a held lock is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(10);

/// How an [`EmbeddedStore`] runs.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// How long to wait for another process that has the store open. A killed process's lock is free at once.
    pub lock_wait_max: Duration,
    /// Batches that may wait; further ones are refused as [`crate::CommitError::Busy`].
    pub queue_batches_max: usize,
    /// Keys and values that may wait, in bytes; further batches are refused as [`crate::CommitError::Busy`].
    pub queue_bytes_max: usize,
    /// Reads that may wait; further ones are refused as [`crate::ReadError::Busy`].
    pub queue_reads_max: usize,
    /// Threads that read.
    pub readers: usize,
    /// Pages (of 4 KiB) that the log may gain before it is carried into the database file.
    pub checkpoint_pages: u32,
    /// What each connection keeps of the file in memory, in KiB. There are two more connections than readers.
    pub cache_kib: u32,
    /// What is wrong with the store on purpose.
    #[cfg(feature = "planted-bugs")]
    pub plant: Option<super::Plant>,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            lock_wait_max: Duration::ZERO,
            queue_batches_max: 4_096,
            queue_bytes_max: 64 << 20,
            queue_reads_max: 4_096,
            readers: 2,
            checkpoint_pages: 2_000,
            cache_kib: 8 << 10,
            #[cfg(feature = "planted-bugs")]
            plant: None,
        }
    }
}

impl EmbeddedStore {
    /// Opens the store in `folder`, which is made when absent and may hold nothing else of importance.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(folder: &Path, clock: Clock, options: EmbeddedOptions) -> Result<Self, OpenError> {
        make_folder(folder).map_err(|source| io_error("make the folder", folder, source))?;
        let lock = lock_folder(folder, &clock, options.lock_wait_max).await?;
        let (opened, ready) = oneshot::channel();
        let folder_of_thread = folder.to_owned();
        // Reading the log of a killed process may take a while, so even opening is done off the caller's thread.
        let opener = spawn("store-commit", folder, move || {
            let committer = open_files(&folder_of_thread, clock, options);
            match committer {
                Ok((committer, rest)) => {
                    if opened.send(Ok(rest)).is_ok() {
                        committer.run();
                    }
                }
                Err(error) => drop(opened.send(Err(error))),
            }
        })?;
        let ended = || io_error("open the store in", folder, io::Error::other("its thread ended"));
        let parts = ready.await.unwrap_or_else(|_| Err(ended()))?;
        let mut threads = vec![opener];
        let reads = Arc::new(Mutex::new(parts.reads_receiver));
        for connection in parts.readers {
            let (reads, shared) = (Arc::clone(&reads), Arc::clone(&parts.shared));
            threads.push(spawn("store-read", folder, move || reader::run(&connection, &reads, &shared))?);
        }
        let (connection, checkpointer) = parts.checkpointer;
        let shared = Arc::clone(&parts.shared);
        threads
            .push(spawn("store-log", folder, move || checkpoint::run(&connection, checkpointer, &shared))?);
        Ok(Self::new(parts.queue, parts.reads, parts.shared, parts.queue_bytes_max, threads, lock))
    }
}

/// What the caller's side gets from opening.
struct Parts {
    queue: mpsc::Sender<super::committer::Request>,
    reads: mpsc::Sender<reader::Read>,
    reads_receiver: mpsc::Receiver<reader::Read>,
    readers: Vec<rusqlite::Connection>,
    checkpointer: (rusqlite::Connection, Checkpointer),
    shared: Arc<Shared>,
    queue_bytes_max: usize,
}

fn open_files(
    folder: &Path,
    clock: Clock,
    options: EmbeddedOptions,
) -> Result<(Committer, Parts), OpenError> {
    let (connection, version) = open_writer(folder, &options)?;
    let readers =
        (0..options.readers.max(1)).map(|_| open_reader(folder, &options)).collect::<Result<_, _>>()?;
    let (checkpoints, checkpointer) = checkpoint::pair();
    let checkpointer = (open_second_writer(folder, &options)?, checkpointer);
    let shared = Arc::new(Shared::new(clock, version));
    let (queue, queue_receiver) = mpsc::channel(options.queue_batches_max.max(1));
    let (reads, reads_receiver) = mpsc::channel(options.queue_reads_max.max(1));
    let parts = Parts {
        queue,
        reads,
        reads_receiver,
        readers,
        checkpointer,
        shared: Arc::clone(&shared),
        queue_bytes_max: options.queue_bytes_max,
    };
    let committer = Committer {
        connection,
        queue: queue_receiver,
        shared,
        version,
        log_pages: options.checkpoint_pages as usize, // what the last process left in the log is carried over first
        options,
        checkpoints,
        #[cfg(feature = "planted-bugs")]
        batches: 0,
        #[cfg(feature = "planted-bugs")]
        clock,
    };
    Ok((committer, parts))
}

/// Makes the folder so that its name outlives the loss of power; SQLite does that for what is in it.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        make_folder(parent)?;
        fs::create_dir_all(folder)?;
        return File::open(parent)?.sync_all();
    }
    fs::create_dir_all(folder)
}

async fn lock_folder(folder: &Path, clock: &Clock, wait_max: Duration) -> Result<File, OpenError> {
    let path = folder.join(LOCK_NAME);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(|source| io_error("open", &path, source))?;
    let began = clock.now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(io_error("lock", &path, source)),
            Err(TryLockError::WouldBlock) => {
                let waited = clock.now().since(began);
                if waited >= wait_max {
                    return Err(OpenError::Locked { folder: folder.into(), waited });
                }
                clock.sleep(LOCK_RETRY.min(wait_max - waited)).await;
            }
        }
    }
}

fn spawn(
    name: &str,
    folder: &Path,
    work: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, OpenError> {
    let thread = thread::Builder::new().name(name.into()).spawn(work);
    thread.map_err(|source| io_error("start a thread for the store in", folder, source))
}

fn io_error(action: &'static str, path: &Path, source: io::Error) -> OpenError {
    OpenError::Io { action, path: path.into(), source: source.into() }
}
