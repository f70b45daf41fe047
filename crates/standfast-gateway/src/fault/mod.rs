//! Faults on purpose, for experiments and for people who want to see what happens when…
//!
//! A [`Fault`] says what is done (`what`), to which requests, on which side and for how long; `text` is how it is written. [`Faults`]
//! (`set`) is the handle by which faults come and go while requests run: all workers share one list, which is replaced as a whole;
//! while it is empty, a request costs one atomic read. A fault ends by itself when its time is over, whatever became of who asked
//! for it, and lets go of the requests that it holds. `token` lets one request carry a fault of its own, signed.
//!
//! A fault towards the client (`side=client`) acts once for a request, around all attempts (`exchange`). A fault towards replicas
//! (`side=upstream`) acts in each attempt that it fits, and the gateway takes it for the replica's own behaviour: it balances,
//! repeats, hedges and leaves replicas out by it (`attempt`). `inject` decides what hits a request and does it, `body` is an answer's
//! body that was tampered with.

mod body;
mod inject;
mod latency;
mod set;
mod text;
mod token;
mod what;

pub(crate) use body::{SlowHead, Tampered};
pub(crate) use inject::{Injected, of_request};
pub use latency::Latency;
pub(crate) use set::Watched;
pub use set::{FAULTS_MAX, FaultState, FaultStatus, Faults, PutError};
pub use text::BadFault;
pub use token::{BadKey, FaultKey};
pub use what::{Abort, Act, Fault, LASTS_MAX, Moment, Place, ReplicaName, Side};
