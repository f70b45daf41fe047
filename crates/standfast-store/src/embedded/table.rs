//! The statements: how entries are kept in rows.

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};
use standfast_model::Stamp;

use crate::{Batch, Entry, Failed, Page, Scan, Space, Version, Write};

/// SQLite's integers are signed; stamps and versions stay far below that, and a stamp beyond it is as good as never.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn version_of(number: i64) -> Version {
    Version(number.unsigned_abs())
}

/// The conditions of `batch` that do not hold at `now`.
pub(super) fn failed_conditions(
    connection: &Connection,
    batch: &Batch,
    now: Stamp,
) -> rusqlite::Result<Vec<Failed>> {
    let mut failed = Vec::new();
    if batch.conditions.is_empty() {
        return Ok(failed);
    }
    let mut statement = connection.prepare_cached(
        "SELECT version FROM entry WHERE space = ?1 AND key = ?2 AND (expires_at IS NULL OR expires_at > ?3)",
    )?;
    for (index, condition) in batch.conditions.iter().enumerate() {
        let values = params![condition.space.to_string(), &condition.key[..], signed(now.as_micros())];
        let found = statement.query_row(values, |row| row.get(0)).optional()?.map(version_of);
        if !condition.is.holds(found) {
            failed.push(Failed { index, found });
        }
    }
    Ok(failed)
}

/// Makes the writes of a batch.
pub(super) fn write(connection: &Connection, writes: &[Write], version: Version) -> rusqlite::Result<()> {
    for write in writes {
        match write {
            Write::Put { space, key, value, expires_at } => {
                let mut statement = connection.prepare_cached(
                    "INSERT INTO entry(space, key, version, expires_at, value) VALUES(?1, ?2, ?3, ?4, ?5)
                     ON CONFLICT(space, key) DO UPDATE
                     SET version = excluded.version, expires_at = excluded.expires_at, value = excluded.value",
                )?;
                let expires_at = expires_at.map(|at| signed(at.as_micros()));
                statement.execute(params![
                    space.to_string(),
                    &key[..],
                    signed(version.0),
                    expires_at,
                    &value[..]
                ])?;
            }
            Write::Delete { space, key } => {
                let mut statement =
                    connection.prepare_cached("DELETE FROM entry WHERE space = ?1 AND key = ?2")?;
                statement.execute(params![space.to_string(), &key[..]])?;
            }
        }
    }
    Ok(())
}

/// Removes at most `max` entries that have expired.
pub(super) fn sweep(connection: &Connection, now: Stamp, max: usize) -> rusqlite::Result<usize> {
    let mut statement = connection.prepare_cached(
        "DELETE FROM entry WHERE (space, key) IN
         (SELECT space, key FROM entry WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
    )?;
    statement.execute(params![signed(now.as_micros()), signed(max as u64)])
}

/// Notes the version of the last batch.
pub(super) fn set_version(connection: &Connection, version: Version) -> rusqlite::Result<()> {
    connection
        .prepare_cached("UPDATE meta SET value = ?1 WHERE name = 'version'")?
        .execute([signed(version.0)])?;
    Ok(())
}

fn entry_of(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        key: Bytes::from(row.get::<_, Vec<u8>>(0)?),
        version: version_of(row.get(1)?),
        expires_at: row.get::<_, Option<i64>>(2)?.map(|at| Stamp::from_micros(at.unsigned_abs())),
        value: Bytes::from(row.get::<_, Vec<u8>>(3)?),
    })
}

/// Reads one entry.
pub(super) fn get(
    connection: &Connection,
    space: &Space,
    key: &[u8],
    now: Stamp,
) -> rusqlite::Result<Option<Entry>> {
    let mut statement = connection.prepare_cached(
        "SELECT key, version, expires_at, value FROM entry
         WHERE space = ?1 AND key = ?2 AND (expires_at IS NULL OR expires_at > ?3)",
    )?;
    statement.query_row(params![space.to_string(), key, signed(now.as_micros())], entry_of).optional()
}

/// Reads a page of entries, in one statement and so of one moment.
pub(super) fn scan(connection: &Connection, scan: &Scan, now: Stamp) -> rusqlite::Result<Page> {
    let bounds = scan.bounds();
    // Eight fixed texts, so that each is prepared once.
    let from = if bounds.from_is_included { ">=" } else { ">" };
    let until = if bounds.until.is_some() { "AND key < ?3" } else { "AND ?3 IS NULL" };
    let order = if scan.reverse { "DESC" } else { "ASC" };
    let mut statement = connection.prepare_cached(&format!(
        "SELECT key, version, expires_at, value FROM entry
         WHERE space = ?1 AND key {from} ?2 {until} AND (expires_at IS NULL OR expires_at > ?4)
         ORDER BY key {order} LIMIT ?5"
    ))?;
    // One more than the page holds, to know whether there is a next page.
    let limit = signed(scan.entries_max() as u64 + 1);
    let values = params![
        scan.space.to_string(),
        &bounds.from[..],
        bounds.until.as_deref(),
        signed(now.as_micros()),
        limit
    ];
    Page::fill(scan, statement.query_map(values, entry_of)?)
}

/// How much of the log there is, and how much of it is in the database file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checkpointed {
    pub(super) log_pages: i64,
    pub(super) done_pages: i64,
}

/// Carries the log into the database file; readers may keep it from finishing. With `waits_for_readers` it waits for them
/// (up to SQLite's busy time) so that the log begins anew.
pub(super) fn checkpoint(connection: &Connection, waits_for_readers: bool) -> rusqlite::Result<Checkpointed> {
    let mode = if waits_for_readers { "RESTART" } else { "PASSIVE" };
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| {
        Ok(Checkpointed { log_pages: row.get(1)?, done_pages: row.get(2)? })
    })
}
