//! The command line from outside: the real binary, real processes, real sockets.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "tests are outside the seams, and may fail by panic"
)]

mod suite {
    pub(crate) mod bad_input;
    pub(crate) mod fault;
    pub(crate) mod full_disk;
    pub(crate) mod gateway;
    pub(crate) mod lifecycle;
    pub(crate) mod permission;
    pub(crate) mod proof;
    pub(crate) mod secrets;
    pub(crate) mod workflow;
    pub(crate) mod world;
}
