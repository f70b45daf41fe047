use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::EmbeddedOptions;
use crate::{OpenError, Version};

/// The format of the file that this release reads and writes, kept in SQLite's `user_version`.
pub const FORMAT_VERSION: i64 = 1;
/// Marks the file as ours, kept in SQLite's `application_id`: `SFst`.
const APPLICATION_ID: i64 = 0x5346_7374;
/// The database's name in the store's folder.
const FILE_NAME: &str = "store.db";
/// Prepared statements that a connection keeps; there are fewer.
const STATEMENTS_MAX: usize = 32;

/// The log is synced in every commit, and both files in every checkpoint. The other two matter on macOS, where a plain fsync
/// leaves the drive's cache.
const DURABLE: &str = "PRAGMA synchronous = FULL; PRAGMA fullfsync = ON; PRAGMA checkpoint_fullfsync = ON;";
/// How long to wait for another program, or a checkpoint for readers, in milliseconds.
const BUSY_MS_MAX: u64 = 1_000;

/// Format 1. A space and a key name an entry; the entries that end are found by when.
const SCHEMA: &str = "
    CREATE TABLE entry(
        space TEXT NOT NULL,
        key BLOB NOT NULL,
        version INTEGER NOT NULL,
        expires_at INTEGER,
        value BLOB NOT NULL,
        PRIMARY KEY(space, key)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX entry_ending ON entry(expires_at) WHERE expires_at IS NOT NULL;
    CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO meta VALUES('version', 0);
";

/// Turns SQLite's errors on opening into ours.
struct Opening {
    file: PathBuf,
}

impl Opening {
    fn failed(&self, source: rusqlite::Error) -> OpenError {
        match source.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => OpenError::NotAStore { file: self.file.clone() },
            Some(ErrorCode::DatabaseCorrupt) => {
                OpenError::Damaged { file: self.file.clone(), source: source.into() }
            }
            _ => OpenError::Io {
                action: "open the store file",
                path: self.file.clone(),
                source: source.into(),
            },
        }
    }
}

/// The one connection that writes, on a file that is made when absent, and the version of the last batch.
pub(super) fn open_writer(
    folder: &Path,
    options: &EmbeddedOptions,
) -> Result<(Connection, Version), OpenError> {
    let opening = Opening { file: folder.join(FILE_NAME) };
    let connection =
        open(&opening.file, OpenFlags::SQLITE_OPEN_CREATE, options).map_err(|e| opening.failed(e))?;
    // Before anything is written: a file of another program or release is left as it is.
    let number = |pragma: &str| {
        connection.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).map_err(|e| opening.failed(e))
    };
    let (application, format) = (number("application_id")?, number("user_version")?);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|e| opening.failed(e))?;
    let is_new = application == 0 && format == 0 && tables == 0;
    if !is_new && application != APPLICATION_ID {
        return Err(OpenError::NotAStore { file: opening.file });
    }
    if !is_new && format != FORMAT_VERSION {
        return Err(OpenError::Format { folder: folder.into(), found: format, supported: FORMAT_VERSION });
    }
    prepare(&connection, is_new).map_err(|e| opening.failed(e))?;
    let version: i64 = connection
        .query_row("SELECT value FROM meta WHERE name = 'version'", [], |row| row.get(0))
        .map_err(|e| opening.failed(e))?;
    Ok((connection, Version(version.unsigned_abs())))
}

/// A connection that carries the log into the file.
pub(super) fn open_second_writer(folder: &Path, options: &EmbeddedOptions) -> Result<Connection, OpenError> {
    let opening = Opening { file: folder.join(FILE_NAME) };
    let connection = open(&opening.file, OpenFlags::empty(), options).map_err(|e| opening.failed(e))?;
    connection.execute_batch(DURABLE).map_err(|e| opening.failed(e))?;
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn open_reader(folder: &Path, options: &EmbeddedOptions) -> Result<Connection, OpenError> {
    let opening = Opening { file: folder.join(FILE_NAME) };
    let connection = open(&opening.file, OpenFlags::empty(), options).map_err(|e| opening.failed(e))?;
    connection.execute_batch("PRAGMA query_only = ON").map_err(|e| opening.failed(e))?;
    #[cfg(feature = "planted-bugs")]
    if options.plant == Some(super::Plant::AckBeforeCommit) {
        connection.execute_batch("PRAGMA read_uncommitted = ON").map_err(|e| opening.failed(e))?;
    }
    Ok(connection)
}

fn open(file: &Path, extra: OpenFlags, options: &EmbeddedOptions) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | extra;
    #[cfg(feature = "planted-bugs")]
    let flags = match options.plant {
        Some(super::Plant::AckBeforeCommit) => flags | OpenFlags::SQLITE_OPEN_SHARED_CACHE,
        _ => flags,
    };
    let connection = Connection::open_with_flags(file, flags)?;
    // SQLite drops the errors of the checkpoints that it makes by itself. After a failed fsync such a checkpoint, repeated on
    // closing, would "succeed" and delete the log that still has what was lost.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection
        .execute_batch("PRAGMA wal_autocheckpoint = 0; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY")?;
    connection.pragma_update(None, "cache_size", -i64::from(options.cache_kib))?;
    connection.busy_timeout(Duration::from_millis(BUSY_MS_MAX))?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

/// Sets what durability rests on, checks that it took, and makes the tables of a new file.
fn prepare(connection: &Connection, is_new: bool) -> rusqlite::Result<()> {
    let journal: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0))?;
    connection.execute_batch(DURABLE)?;
    let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    if journal != "wal" || synchronous != 2 {
        let code = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
        let text = format!("journal_mode is `{journal}` and synchronous is {synchronous}, not `wal` and 2");
        return Err(rusqlite::Error::SqliteFailure(code, Some(text)));
    }
    if is_new {
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {SCHEMA} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT_VERSION}; COMMIT"
        ))?;
    }
    Ok(())
}
