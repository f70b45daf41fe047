//! The output of replicas and of the node: nothing they write is lost, and nothing they do depends on a reader.
//!
//! A process writes to a *spool*, a file opened for appending, and never learns whether anybody reads it. The collector
//! reads what is new, writes it line by line into the *log* of the service, and gives the spool's consumed part back to
//! the file system (a hole: the file is never cut, so no write can fall between a copy and a cut). Each line in the log
//! says how far its spool has been read by it. So the log itself is the record of what was collected: after a crash the
//! collector goes on exactly behind the last line that got into it.

mod collect;
mod file;
mod news;
mod query;
mod record;

pub(crate) use collect::Logs;
pub(crate) use news::News;
