//! What the gateway promises, with real sockets and replicas in this process.
#![expect(clippy::unwrap_used, reason = "helpers of tests count as tests")]

mod bodies;
mod calls;
mod corpus;
mod failures;
mod faults;
mod faults_upstream;
mod grpc;
mod h2;
mod h2_attacks;
mod h2_rig;
mod h2spec;
mod kept;
mod lifecycle;
mod limits;
mod metrics;
mod policies;
mod proxy_protocol;
mod replica;
mod replica_tls;
mod rig;
mod routing;
mod scrape;
mod spans;
mod stories;
mod tcp;
mod tls;
mod upstream_h2;
mod websocket;
