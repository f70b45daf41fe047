use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;
use standfast_model::Stamp;
use tokio::sync::{mpsc, oneshot};

use super::shared::Shared;
use super::table;
use crate::{Entry, Page, ReadError, Scan, Space};

/// One read and whom to answer.
#[derive(Debug)]
pub(super) enum Read {
    Get { space: Space, key: Box<[u8]>, now: Stamp, reply: oneshot::Sender<Result<Option<Entry>, ReadError>> },
    Scan { scan: Scan, now: Stamp, reply: oneshot::Sender<Result<Page, ReadError>> },
}

/// The reads that wait; the readers take turns to wait at it.
pub(super) type Reads = Arc<Mutex<mpsc::Receiver<Read>>>;

/// Answers reads until the store is dropped.
pub(super) fn run(connection: &Connection, reads: &Reads, shared: &Shared) {
    loop {
        let next = reads.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        // A caller that has gone away wants no answer, so a failed send is fine in both cases.
        match next {
            None => return,
            Some(Read::Get { space, key, now, reply }) if !reply.is_closed() => {
                let _gone = reply.send(read(shared, || table::get(connection, &space, &key, now)));
            }
            Some(Read::Scan { scan, now, reply }) if !reply.is_closed() => {
                let _gone = reply.send(read(shared, || table::scan(connection, &scan, now)));
            }
            Some(_) => {}
        }
    }
}

fn read<T>(shared: &Shared, query: impl FnOnce() -> rusqlite::Result<T>) -> Result<T, ReadError> {
    if let Some(reason) = shared.stopped() {
        return Err(ReadError::Stopped { reason });
    }
    query().map_err(|error| match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => ReadError::Busy,
        // What cannot be read once is not to be trusted any more: neither what else is read, nor what conditions see.
        _ => ReadError::Stopped { reason: shared.stop(&format!("cannot read: {error}")) },
    })
}
