//! The gateway: carries each request to a healthy replica within its policy, from outside and between services.
//!
//! In the order of a request: `listener` accepts a connection, `exchange` checks a request, `routes` names its service,
//! `attempt` drives it (choose, try, judge, repeat or finish), `pool` holds what is known of the replicas, `balance` chooses
//! one, `outlier` leaves one out, `budget` bounds repeats, `upstream` is a connection to a replica, `body` what streams through.
//!
//! Each worker is one thread with a runtime, sockets, connections and scores of its own (`worker`); workers share nothing but
//! the [`Snapshot`], which is replaced as a whole and never changed. There are no locks on the request's path but hyper's own.
//! Times of connections are kept by one sweep per worker instead of timers (`client`).
//!
//! It stops by [`Gateway::drain`]: no more connections, running requests end, threads end.

mod attempt;
mod balance;
mod body;
mod budget;
mod client;
mod config;
mod error;
mod exchange;
mod headers;
mod latency;
mod listener;
mod outlier;
mod pool;
mod routes;
mod service;
mod snapshot;
mod stats;
mod tunnel;
mod upstream;
mod worker;

#[cfg(feature = "planted-bugs")]
pub use config::Plant;
pub use config::{Config, Limits, SWEEP_PERIOD};
pub use error::Error;
pub use listener::{ListenerInput, ListenerKind};
pub use service::{Drained, Gateway};
pub use snapshot::{Endpoint, EndpointState, Policy, Pool, Snapshot};
pub use stats::{Answered, EndpointStats, ServiceStats, Stats};
