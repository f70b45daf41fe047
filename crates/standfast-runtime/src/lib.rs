//! Time, chance, disk, sockets and tasks: the seams through which everything above meets the machine.
//!
//! The rest of the workspace may not call `Instant::now`, `tokio::spawn` and their like (`clippy.toml` denies them), so that a
//! whole node can be run on simulated time, disk and chance. Handles are cheap to clone and are passed in, never global.
#![expect(clippy::disallowed_methods, reason = "this crate is what the denied calls are replaced by")]

mod backoff;
mod causes;
mod clock;
mod disk;
pub mod http;
mod net;
mod open_files;
mod rng;
mod tasks;

pub use backoff::Backoff;
pub use causes::with_causes;
pub use clock::{Clock, Elapsed};
pub use disk::{Disk, RealDisk, SimulatedDisk};
pub use net::{Net, Peer, Stream};
pub use open_files::OpenFiles;
pub use rng::Rng;
pub use tasks::{OnError, OnStop, Stop, StopSource, TaskFailure, Tasks};
