//! Bookings: what the trip of `examples/trip` consists of. The same program is its flights, its hotels and its cars.
//!
//! A booking is one batch: if neither `booked/<booking>` nor `cancelled/<booking>` is there, write it and a ledger entry. Cancelling
//! is one, too, also for a booking that never arrived: one that is late then finds itself cancelled, and is not made.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::{delete, post};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::client::Client;
use crate::config::{BadConfig, Config};
use crate::deadline::Deadline;
use crate::problem::{Problem, check_name, json_text, parse, to_json};
use crate::state::{Batch, Commit, State};

/// What is never to be had, so that a trip can be seen to fail.
const SOLD_OUT: &str = "sold-out";

/// What `POST /bookings` takes and answers, and what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Booking {
    /// Its name, by which it is made once.
    pub booking_id: String,
    /// What is booked.
    pub what: String,
}

/// The service's routes.
pub fn routes(config: &Config) -> Result<Router, BadConfig> {
    let state = Arc::new(State::new(Client::new(), &config.state_url));
    let routes = Router::new().route("/bookings", post(book)).route("/bookings/{booking_id}", delete(cancel));
    Ok(routes.with_state(state))
}

async fn book(
    Shared(state): Shared<Arc<State>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let deadline = Deadline::of_request(&headers);
    let booking: Booking = parse(body)?;
    check_name("booking_id", &booking.booking_id)?;
    if booking.what == SOLD_OUT {
        return Err(Problem::conflict("sold_out", "there is none left"));
    }
    let text = to_json(&booking)?;
    let [booked, cancelled] = keys(&booking.booking_id);
    let batch = |attempt_id: &str| {
        let entry = json!({"booking_id": booking.booking_id, "did": "book"}).to_string();
        let batch = Batch::default().if_absent(&booked).if_absent(&cancelled);
        batch.put(&booked, &text).put(&format!("ledger/{attempt_id}"), &entry)
    };
    match state.commit(deadline, batch).await? {
        Commit::Done { .. } => Ok(json_text(StatusCode::CREATED, text)),
        Commit::Refused { failed } if failed.contains(&1) => {
            Err(Problem::conflict("cancelled", "this booking was cancelled"))
        }
        Commit::Refused { .. } => {
            let stored = state.get_written(deadline, &booked).await?.value;
            if stored != text.as_bytes() {
                return Err(Problem::conflict(
                    "booked_differently",
                    "something else was booked by this name",
                ));
            }
            Ok(json_text(StatusCode::OK, stored))
        }
    }
}

async fn cancel(
    Shared(state): Shared<Arc<State>>,
    Path(booking_id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let deadline = Deadline::of_request(&headers);
    check_name("booking_id", &booking_id)?;
    let [_, cancelled] = keys(&booking_id);
    let batch = |attempt_id: &str| {
        let entry = json!({"booking_id": booking_id, "did": "cancel"}).to_string();
        let batch = Batch::default().if_absent(&cancelled);
        batch.put(&cancelled, "{}").put(&format!("ledger/{attempt_id}"), &entry)
    };
    // Whoever cancelled it, it is cancelled.
    state.commit(deadline, batch).await?;
    Ok(json_text(StatusCode::OK, json!({"booking_id": booking_id}).to_string()))
}

/// Where it is written that a booking was made, and that it was cancelled.
fn keys(booking_id: &str) -> [String; 2] {
    [format!("booked/{booking_id}"), format!("cancelled/{booking_id}")]
}
