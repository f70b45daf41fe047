//! The state API: what a service keeps, over plain HTTP/1.1. `docs/state-api.md` is the contract.
//!
//! It is a function from request to answer. Whoever serves it (the node, a test) brings the sockets and allows bodies of
//! [`BODY_BYTES_MAX`].

mod answer;
mod api;
mod base64;
mod request;
mod wire;

pub use answer::unavailable;
pub use api::StateApi;

/// The longest request body, in bytes: the JSON text of a batch of [`crate::BATCH_BYTES_MAX`] with room for its escapes.
pub const BODY_BYTES_MAX: usize = 16 << 20;
