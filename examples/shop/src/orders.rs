//! Orders: reserve, charge, record. A repeat walks the same three steps and finds each one done.
//!
//! There is no "has this order been placed?" at the beginning: it would cost a read for each new order, and would still not tell
//! what an attempt that died half-way had done. Each step answers that for itself.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::{BytesRejection, PathRejection};
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::client::{Call, Client};
use crate::config::{BadConfig, Config, required};
use crate::deadline::Deadline;
use crate::inventory::{Reservation, ReservationRequest};
use crate::payments::{Charge, ChargeRequest};
use crate::problem::{Problem, check_name, check_quantity, json_text, parse, to_json};
use crate::state::{Batch, Commit, State};

const KEY_CHARS_MAX: usize = 255;

/// What `POST /orders` takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OrderRequest {
    /// The order's name, chosen by the customer's side, so that a repeat is recognised.
    pub order_id: String,
    /// Of what.
    pub item: String,
    /// How many pieces.
    pub quantity: u32,
}

/// What it answers, and what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The order's name.
    pub order_id: String,
    /// Of what.
    pub item: String,
    /// How many pieces.
    pub quantity: u32,
    /// What was charged.
    pub amount_cents: u64,
    /// The charge's name at payments.
    pub charge_id: String,
}

struct Orders {
    client: Client,
    state: State,
    inventory_url: String,
    payments_url: String,
}

/// The service's routes.
pub fn routes(config: &Config) -> Result<Router, BadConfig> {
    let client = Client::new();
    let orders = Orders {
        state: State::new(client.clone(), &config.state_url),
        client,
        inventory_url: required("INVENTORY_URL", config.inventory_url.clone())?,
        payments_url: required("PAYMENTS_URL", config.payments_url.clone())?,
    };
    Ok(Router::new()
        .route("/orders", post(place))
        .route("/orders/{id}", get(show))
        .with_state(Arc::new(orders)))
}

async fn place(
    Shared(orders): Shared<Arc<Orders>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let deadline = Deadline::of_request(&headers);
    let asked: OrderRequest = parse(body)?;
    check_name("order_id", &asked.order_id)?;
    check_name("item", &asked.item)?;
    check_quantity(asked.quantity)?;
    if let Some(key) = idempotency_key(&headers)?
        && key != asked.order_id
    {
        orders.claim_key(deadline, &key, &asked.order_id).await?;
    }

    let reservation = orders.reserve(deadline, &asked).await?;
    let amount_cents = reservation.unit_price_cents.saturating_mul(u64::from(reservation.quantity));
    let charge = orders.charge(deadline, &asked.order_id, amount_cents).await?;
    let order = Order {
        order_id: asked.order_id,
        item: reservation.item,
        quantity: reservation.quantity,
        amount_cents: charge.amount_cents,
        charge_id: charge.charge_id,
    };
    orders.record(deadline, &order).await
}

async fn show(
    Shared(orders): Shared<Arc<Orders>>,
    headers: HeaderMap,
    order_id: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(order_id) = order_id.map_err(|rejection| Problem::malformed(rejection.body_text()))?;
    check_name("order_id", &order_id)?;
    match orders.state.get(Deadline::of_request(&headers), &order_key(&order_id)).await? {
        Some(entry) => Ok(json_text(StatusCode::OK, entry.value)),
        None => Err(Problem::not_found(format!("there is no order `{order_id}`"))),
    }
}

impl Orders {
    /// Binds an `Idempotency-Key` that is not the order's own name to the order, before anything is done for it.
    async fn claim_key(&self, deadline: Deadline, key: &str, order_id: &str) -> Result<(), Problem> {
        let key = format!("keys/{key}");
        let batch = |_: &str| Batch::default().if_absent(&key).put(&key, order_id);
        if let Commit::Done { .. } = self.state.commit(deadline, batch).await? {
            return Ok(());
        }
        if self.state.get_written(deadline, &key).await?.value == order_id.as_bytes() {
            return Ok(());
        }
        let message = "this Idempotency-Key was used for another order";
        Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "key_reused", message))
    }

    async fn reserve(&self, deadline: Deadline, asked: &OrderRequest) -> Result<Reservation, Problem> {
        let url = format!("{}/reservations", self.inventory_url);
        let OrderRequest { order_id, item, quantity } = asked.clone();
        let body = ReservationRequest { order_id, item, quantity };
        self.ask("inventory", deadline, &url, &asked.order_id, &body).await
    }

    async fn charge(&self, deadline: Deadline, order_id: &str, amount_cents: u64) -> Result<Charge, Problem> {
        let url = format!("{}/charges", self.payments_url);
        let body = ChargeRequest { order_id: order_id.to_owned(), amount_cents };
        self.ask("payments", deadline, &url, order_id, &body).await
    }

    /// Asks another service to do something once for an order.
    async fn ask<T: DeserializeOwned>(
        &self,
        peer: &str,
        deadline: Deadline,
        url: &str,
        order_id: &str,
        body: &impl Serialize,
    ) -> Result<T, Problem> {
        let body = Bytes::from(to_json(body)?);
        let call = || Call {
            method: Method::POST,
            url: url.to_owned(),
            idempotency_key: Some(order_id.to_owned()),
            body: body.clone(),
        };
        let answer = self.client.call(peer, deadline, call).await?;
        match answer.status {
            StatusCode::OK | StatusCode::CREATED => answer.json(peer),
            StatusCode::CONFLICT => Err(Problem::conflict("refused", refusal(peer, &answer.body))),
            status => Err(Problem::bad_answer(format!("{peer} answered {status}"))),
        }
    }

    /// Records the order and answers with what is recorded: 201 for the first, 200 with the same body for all others.
    async fn record(&self, deadline: Deadline, order: &Order) -> Result<Response, Problem> {
        let key = order_key(&order.order_id);
        let text = to_json(order)?;
        match self.state.commit(deadline, |_| Batch::default().if_absent(&key).put(&key, &text)).await? {
            Commit::Done { .. } => Ok(json_text(StatusCode::CREATED, text)),
            Commit::Refused { .. } => {
                Ok(json_text(StatusCode::OK, self.state.get_written(deadline, &key).await?.value))
            }
        }
    }
}

fn order_key(order_id: &str) -> String {
    format!("orders/{order_id}")
}

/// The `Idempotency-Key` of a request that has one: a text, or a string of structured fields in quotes.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let bare = |key: &'_ str| {
        let inner = key.strip_prefix('"').and_then(|key| key.strip_suffix('"'));
        inner.unwrap_or(key).to_owned()
    };
    match value.to_str().map(bare) {
        Ok(key) if (1..=KEY_CHARS_MAX).contains(&key.len()) => Ok(Some(key)),
        _ => Err(Problem::malformed(format!(
            "`Idempotency-Key` must have 1 to {KEY_CHARS_MAX} visible ASCII characters"
        ))),
    }
}

fn refusal(peer: &str, body: &[u8]) -> String {
    let told: Option<String> = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|body| Some(body.pointer("/error/message")?.as_str()?.to_owned()));
    format!("{peer} refused: {}", told.as_deref().unwrap_or("no reason given"))
}
