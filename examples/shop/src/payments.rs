//! Payments: charges once for each `Idempotency-Key`, as payment services do; without one, once for each order.
//!
//! A charge is one batch: if `charge/<key>` is absent, write it and a ledger entry. Whatever is repeated, by whomever and
//! at which replica ever, the condition lets one batch through; all others find the stored charge and answer with that.

use std::sync::Arc;

use axum::Router;
use axum::extract::State as Shared;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::client::Client;
use crate::config::{BadConfig, Config};
use crate::deadline::Deadline;
use crate::orders::idempotency_key;
use crate::problem::{Problem, check_name, json_text, parse, to_json};
use crate::state::{Batch, Commit, State};

/// What `POST /charges` takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChargeRequest {
    /// The order, which is charged once.
    pub order_id: String,
    /// How much.
    pub amount_cents: u64,
}

/// What it answers, and what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// The order charged.
    pub order_id: String,
    /// How much.
    pub amount_cents: u64,
    /// This charge's own name; its ledger entry has it too.
    pub charge_id: String,
}

struct Payments {
    state: State,
    zone: String,
    replica: String,
}

/// The service's routes.
pub fn routes(config: &Config) -> Result<Router, BadConfig> {
    let payments = Payments {
        state: State::new(Client::new(), &config.state_url),
        zone: config.zone.clone(),
        replica: config.replica.clone(),
    };
    Ok(Router::new().route("/charges", post(charge)).with_state(Arc::new(payments)))
}

async fn charge(
    Shared(payments): Shared<Arc<Payments>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let deadline = Deadline::of_request(&headers);
    let asked: ChargeRequest = parse(body)?;
    check_name("order_id", &asked.order_id)?;
    if asked.amount_cents == 0 {
        return Err(Problem::malformed("`amount_cents` must be above 0"));
    }

    let key = idempotency_key(&headers)?.unwrap_or_else(|| asked.order_id.clone());
    let key = format!("charge/{key}");
    let charged = |attempt_id: &str| Charge {
        order_id: asked.order_id.clone(),
        amount_cents: asked.amount_cents,
        charge_id: attempt_id.to_owned(),
    };
    let batch = |attempt_id: &str| {
        let charge = json!(charged(attempt_id)).to_string();
        Batch::default()
            .if_absent(&key)
            .put(&key, &charge)
            .put(&format!("ledger/{attempt_id}"), &payments.ledger_entry(&asked))
    };
    match payments.state.commit(deadline, batch).await? {
        Commit::Done { attempt_id, .. } => {
            Ok(json_text(StatusCode::CREATED, to_json(&charged(&attempt_id))?))
        }
        Commit::Refused { .. } => {
            let stored = payments.state.get_written(deadline, &key).await?.value;
            let charge: Charge = serde_json::from_slice(&stored).map_err(|error| {
                Problem::bad_answer(format!("the stored `{key}` is not legible: {error}"))
            })?;
            if charge.order_id != asked.order_id {
                let message = "this Idempotency-Key was used for another order";
                return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "key_reused", message));
            }
            if charge.amount_cents != asked.amount_cents {
                return Err(Problem::conflict(
                    "charged_differently",
                    "this order was charged another amount",
                ));
            }
            Ok(json_text(StatusCode::OK, stored))
        }
    }
}

impl Payments {
    /// The record of one real application, which a proof counts.
    fn ledger_entry(&self, asked: &ChargeRequest) -> String {
        json!({
            "order_id": asked.order_id, "amount_cents": asked.amount_cents,
            "zone": self.zone, "replica": self.replica,
        })
        .to_string()
    }
}
