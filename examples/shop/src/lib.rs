//! The shop: three small services that hold, because nothing that matters lives in a process.
//!
//! `orders` takes an order, has `inventory` reserve the stock and `payments` charge the customer, and records the order.
//! Each service is stateless: its replicas share a space of the state API, and each effect is one conditional batch in it,
//! so that repeating a request is always safe. Read on in [`orders`], then [`inventory`] and [`payments`];
//! [`state`] and [`client`] are what the three share.

pub mod bookings;
pub mod client;
pub mod config;
pub mod deadline;
pub mod inventory;
mod log;
pub mod orders;
pub mod payments;
pub mod problem;
mod random;
pub mod service;
pub mod state;
pub mod stock;
