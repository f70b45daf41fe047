//! Inventory: reserves stock for each order once.
//!
//! A reservation is one batch: if `reservations/<order>` is absent and a bin of stock is as it was last seen, write the
//! reservation, the bin's new amount and a ledger entry. An item's stock lies in many bins ([`crate::stock`]), so that replicas
//! rarely meet at the same one; when they do, one is refused, looks again and repeats.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State as Shared;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{sleep, timeout_at};

use crate::client::Client;
use crate::config::{BadConfig, Config};
use crate::deadline::Deadline;
use crate::problem::{Problem, check_name, check_quantity, json_text, parse};
use crate::random;
use crate::state::{Batch, Commit, State};
use crate::stock::{BINS, Pick, Seen, Taken, Warehouse, bin_key, bin_prefix};

/// Everything costs the same in this shop.
const UNIT_PRICE_CENTS: u64 = 250;
/// Looks and batches for one reservation.
const TRIES_MAX: u32 = 24;
const COLLISION_PAUSE: Duration = Duration::from_millis(4);

/// What `POST /reservations` takes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReservationRequest {
    /// The order, which reserves once.
    pub order_id: String,
    /// Of what.
    pub item: String,
    /// How many pieces.
    pub quantity: u32,
}

/// What it answers, and what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// The order that it is for.
    pub order_id: String,
    /// Of what.
    pub item: String,
    /// How many pieces.
    pub quantity: u32,
    /// What one piece costs.
    pub unit_price_cents: u64,
}

struct Inventory {
    state: State,
    warehouse: Warehouse,
    zone: String,
    replica: String,
}

/// What one batch came to.
enum Tried {
    Reserved,
    AlreadyReserved,
    Collided,
}

/// The service's routes.
pub fn routes(config: &Config) -> Result<Router, BadConfig> {
    let inventory = Inventory {
        state: State::new(Client::new(), &config.state_url),
        warehouse: Warehouse::default(),
        zone: config.zone.clone(),
        replica: config.replica.clone(),
    };
    Ok(Router::new().route("/reservations", post(reserve)).with_state(Arc::new(inventory)))
}

async fn reserve(
    Shared(inventory): Shared<Arc<Inventory>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let deadline = Deadline::of_request(&headers);
    let asked: ReservationRequest = parse(body)?;
    check_name("order_id", &asked.order_id)?;
    check_name("item", &asked.item)?;
    check_quantity(asked.quantity)?;

    let reservation = Reservation {
        order_id: asked.order_id,
        item: asked.item,
        quantity: asked.quantity,
        unit_price_cents: UNIT_PRICE_CENTS,
    };
    if inventory.take_stock(deadline, &reservation).await? {
        return Ok(json_text(StatusCode::CREATED, json!(reservation).to_string()));
    }
    let key = reservation_key(&reservation);
    let stored = inventory.state.get_written(deadline, &key).await?.value;
    let found: Reservation = serde_json::from_slice(&stored)
        .map_err(|error| Problem::bad_answer(format!("the stored `{key}` is not legible: {error}")))?;
    if found.item != reservation.item || found.quantity != reservation.quantity {
        return Err(Problem::conflict("reserved_differently", "this order has reserved other goods"));
    }
    Ok(json_text(StatusCode::OK, stored))
}

impl Inventory {
    /// Makes the reservation. `false`: the order has one already.
    async fn take_stock(&self, deadline: Deadline, reservation: &Reservation) -> Result<bool, Problem> {
        let lane = timeout_at(deadline.moment(), self.warehouse.lane()).await;
        let Ok(_lane) = lane else {
            return Err(Problem::out_of_time("no time was left after the wait for a turn"));
        };
        let mut looked = false;
        for _ in 0..TRIES_MAX {
            match self.warehouse.pick(&reservation.item, u64::from(reservation.quantity)) {
                Pick::Bin(bin) => match self.try_bin(deadline, reservation, bin).await? {
                    Tried::Reserved => return Ok(true),
                    Tried::AlreadyReserved => return Ok(false),
                    Tried::Collided => sleep(random::jittered(COLLISION_PAUSE)).await,
                },
                Pick::AllBusy => sleep(random::jittered(COLLISION_PAUSE)).await,
                Pick::TooLittle if looked => {
                    return self.sold_out(deadline, reservation).await;
                }
                Pick::Unseen | Pick::TooLittle => {
                    self.look(deadline, &reservation.item).await?;
                    looked = true;
                }
            }
        }
        Err(Problem::unavailable(format!("too many reservations of `{}` at once", reservation.item)))
    }

    async fn try_bin(
        &self,
        deadline: Deadline,
        reservation: &Reservation,
        bin: Taken<'_>,
    ) -> Result<Tried, Problem> {
        const RESERVATION: usize = 0; // The conditions' order in the batch.
        const STOCK: usize = 1;
        let key = reservation_key(reservation);
        let before = bin.seen();
        let left = before.left.saturating_sub(u64::from(reservation.quantity));
        let batch = |attempt_id: &str| {
            let absent = Batch::default().if_absent(&key);
            let unchanged = match before.version {
                Some(version) => absent.if_version(bin.key(), version),
                None => absent.if_absent(bin.key()),
            };
            unchanged
                .put(&key, &json!(reservation).to_string())
                .put(bin.key(), &left.to_string())
                .put(&format!("ledger/{attempt_id}"), &self.ledger_entry(reservation))
        };
        match self.state.commit(deadline, batch).await? {
            Commit::Done { version, .. } => {
                bin.put_back(Seen { version: Some(version), left });
                Ok(Tried::Reserved)
            }
            Commit::Refused { failed } => {
                if !failed.contains(&STOCK) {
                    bin.put_back(before);
                }
                if failed.contains(&RESERVATION) { Ok(Tried::AlreadyReserved) } else { Ok(Tried::Collided) }
            }
        }
    }

    /// Reads an item's stock.
    async fn look(&self, deadline: Deadline, item: &str) -> Result<(), Problem> {
        let mut found = vec![Seen::NEVER_USED; BINS];
        for entry in self.state.list(deadline, &bin_prefix(item), BINS).await? {
            let index = (0..BINS).find(|index| bin_key(item, *index) == entry.key);
            let left = entry.value.as_deref().and_then(|value| value.parse().ok());
            if let (Some(index), Some(left)) = (index, left) {
                found[index] = Seen { version: Some(entry.version), left };
            }
        }
        self.warehouse.learn(item, &found);
        Ok(())
    }

    /// What to answer when no bin holds enough: the order may have its reservation from an earlier attempt.
    async fn sold_out(&self, deadline: Deadline, reservation: &Reservation) -> Result<bool, Problem> {
        match self.state.get(deadline, &reservation_key(reservation)).await? {
            Some(_) => Ok(false),
            None => Err(Problem::conflict("out_of_stock", format!("`{}` is sold out", reservation.item))),
        }
    }

    /// The record of one real application, which a proof counts.
    fn ledger_entry(&self, reservation: &Reservation) -> String {
        json!({
            "order_id": reservation.order_id, "item": reservation.item, "quantity": reservation.quantity,
            "zone": self.zone, "replica": self.replica,
        })
        .to_string()
    }
}

fn reservation_key(reservation: &Reservation) -> String {
    format!("reservations/{}", reservation.order_id)
}
