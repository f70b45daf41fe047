//! Connections to replicas.

pub(crate) mod h1;
pub(crate) mod h2;
pub(crate) mod transport;
pub(crate) mod watch;
