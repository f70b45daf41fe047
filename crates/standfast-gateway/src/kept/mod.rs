//! Kept answers: the first answer to a request with an `Idempotency-Key` is kept and given to whoever sends the request again, so that
//! a service that does not know keys itself is asked once for each, as far as a gateway can promise that.
//!
//! After draft-ietf-httpapi-idempotency-key-header-07 (422 for a key with another payload, 409 while the first is under way) and
//! what Stripe does (replays are marked; keys belong to their caller). In the order of a request:
//! - `key`: what makes two requests the same one: host, method, target, key and caller; and the fingerprint of the body.
//! - `store`: who is first, who waits, who is given what is kept. One store for each service, shared by all workers.
//! - `carry`: has the first one answered, and goes on with that when its client leaves; the others wait.
//! - `tee`: keeps an answer while it streams to the client.
//!
//! Only requests with a key for a service with `keep_answers` come here; the others pay one branch. All is in the memory of this process
//! and ends with it.

mod carry;
mod key;
mod store;
mod tee;

pub(crate) use carry::{carry, may_repeat};
pub(crate) use key::{Digest, Key, certificate, same_target};
pub(crate) use store::{Store, Stores};
pub(crate) use tee::Tee;
