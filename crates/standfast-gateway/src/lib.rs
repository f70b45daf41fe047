//! The gateway: carries each request to a healthy replica within its policy, from outside and between services.
//!
//! In the order of a request:
//! - `listener` accepts a connection and finds out what is spoken (`proxy_protocol`, `tls`); `serve_h1`, `serve_h2` and `tcp` speak
//!   it, HTTP/1.1 by the codec in `wire`. `body` is what streams through, whatever it comes and goes by.
//! - `call` takes requests from within the process, without a connection.
//! - `exchange` answers one request: `headers` takes in what it says, `routes` finds its route (`path`, `view`), `filters` is what the
//!   route changes, `rate` what it limits.
//! - `websocket` makes of an extended CONNECT what replicas know; `flood` is what an HTTP/2 connection may cost.
//! - `door` lets it in, waits, or turns it away (`admit` decides, by the limit that `limiter` finds).
//! - `attempt` drives it: choose, try, judge, repeat or finish. `pool` holds what is known of the replicas; `balance`, `ring` and
//!   `slow_start` choose one; `outlier` and `gray` leave one out; `latency` and `quantile` are what answers take; `budget` bounds extra
//!   attempts; `upstream` is a connection to a replica, plain or through TLS.
//! - `kept` keeps answers to requests with an `Idempotency-Key`, where a service asks for it.
//! - `trace` names requests, `story` tells what became of them: to `access`, to `spans` and, when something happened, to `explain`.
//! - `stats` and `histogram` are what is counted, `exposition` is how Prometheus reads it; `export` sends spans, as `otlp` writes them.
//! - `fault` is what goes wrong on purpose, for experiments.
//!
//! Each worker is one thread with a runtime, sockets, connections and scores of its own (`worker`); workers share nothing but
//! the [`Snapshot`], which is replaced as a whole and never changed, and what `kept` and `rate` count. There are no locks on the path of a
//! request that needs neither.
//! Times of connections are kept by one sweep per worker instead of timers (`client`).
//!
//! It stops by [`Gateway::drain`]: no more connections, running requests end, threads end.

mod access;
mod admit;
mod alarms;
mod attempt;
mod balance;
mod body;
mod budget;
mod call;
mod client;
mod config;
mod door;
mod error;
mod exchange;
mod explain;
mod export;
mod exposition;
mod fault;
mod filters;
mod flood;
mod gray;
mod headers;
mod histogram;
mod kept;
mod latency;
mod limiter;
mod listener;
mod otlp;
mod outlier;
mod path;
mod pool;
mod proxy_protocol;
mod quantile;
mod rate;
mod ring;
mod routes;
mod serve_h1;
mod serve_h2;
mod service;
mod slow_start;
mod snapshot;
mod spans;
mod stats;
mod story;
mod tcp;
mod tls;
mod trace;
mod tunnel;
mod upstream;
mod view;
mod websocket;
mod wire;
mod worker;

pub use access::{AccessLog, Counts as AccessCounts};
pub use call::{CallError, Caller};
#[cfg(feature = "planted-bugs")]
pub use config::Plant;
pub use config::{Config, Limits, SWEEP_PERIOD};
pub use error::Error;
pub use explain::{Attempt, AttemptEnd, Filter, Injection, Marks, Record};
pub use export::export_spans;
pub use exposition::Exposition;
pub use fault::{
    Abort, Act, BadFault, BadKey, FAULTS_MAX, Fault, FaultKey, FaultState, FaultStatus, Faults, LASTS_MAX,
    Latency, Moment, Place, PutError, ReplicaName, Side,
};
pub use histogram::{Exemplar, Histogram};
pub use listener::{ListenerInput, ListenerKind};
pub use otlp::Sender as SpanSender;
pub use routes::route_name;
pub use service::{Drained, Gateway};
pub use snapshot::{Endpoint, EndpointState, Pool, Snapshot};
pub use spans::{Counts as SpanCounts, SpanQueue, Spans};
pub use stats::{Answered, EndpointStats, KeptStats, ServiceStats, Stats};
pub use tls::{ReadFile, TlsError, tls_config};
pub use upstream::transport::ReplicaTlsConfig;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use wire::fuzz_http;
