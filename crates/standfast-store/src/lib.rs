//! Durable state: atomic conditional batches over ordered keys, ordered scans, watches and entries that end by themselves.
//!
//! [`Store`] is the port. [`EmbeddedStore`] keeps one SQLite file in a folder of this machine, [`MemoryStore`] keeps nothing
//! over the process's end and serves simulations. `http` is the state API that services use, as plain requests and answers.
//! Every implementation runs the same suite (`conformance`).

mod batch;
#[cfg(feature = "conformance")]
pub mod conformance;
mod embedded;
mod entry;
mod error;
pub mod http;
mod memory;
mod port;
mod watches;

pub use batch::{
    BATCH_BYTES_MAX, BATCH_CONDITIONS_MAX, BATCH_WRITES_MAX, Batch, Condition, Is, KEY_BYTES_MAX,
    VALUE_BYTES_MAX, Write,
};
#[cfg(feature = "planted-bugs")]
pub use embedded::Plant;
pub use embedded::{
    EmbeddedOptions, EmbeddedStats, EmbeddedStore, FORMAT_VERSION, GROUP_BATCHES_MAX, GROUP_BYTES_MAX,
    GROUP_WRITES_MAX,
};
pub use entry::{Entry, Page, SCAN_BYTES_MAX, SCAN_LIMIT_MAX, Scan, Space, Version};
pub use error::{CommitError, Failed, OpenError, ReadError, TooLarge};
pub use memory::{Fault, MemoryStore};
pub use port::{Committed, Health, Store};
