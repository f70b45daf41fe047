//! The store in one SQLite file of this machine.
//!
//! **Flow.** Callers put batches into a bounded queue. One thread, the committer, takes what waits, checks each batch's
//! conditions and makes its writes in one shared transaction, commits once (one fsync), wakes the watches, then answers all.
//! The next group forms meanwhile, so groups grow with the load and nobody waits for a timer. Readers have connections of
//! their own: SQLite shows them a transaction only after its log is synced, so a read sees all that was acknowledged and
//! nothing that a crash could undo, and waits for no fsync.
//!
//! **Invariants.** An error of the disk other than "full" stops the store for good, since a failed fsync may have dropped
//! the pages that it did not write. Checkpoints are run here and never by SQLite itself, which drops their errors, be it
//! after a commit or on closing. So closing writes nothing, and a store that was closed and one that was killed are opened
//! in the same way: by reading the log.
//!
//! **Stop.** Dropping the store ends its threads after the group at hand and gives the lock on its folder back.

mod checkpoint;
mod committer;
mod connection;
mod open;
#[cfg(feature = "planted-bugs")]
mod plant;
mod reader;
mod shared;
mod store;
mod table;

pub use committer::{GROUP_BATCHES_MAX, GROUP_BYTES_MAX, GROUP_WRITES_MAX};
pub use connection::FORMAT_VERSION;
pub use open::EmbeddedOptions;
#[cfg(feature = "planted-bugs")]
pub use plant::Plant;
pub use shared::EmbeddedStats;
pub use store::EmbeddedStore;
