//! What the shop promises: an order is charged and reserved exactly once, whatever happens on the way.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed; clippy knows only `#[test]` functions by itself"
)]

mod stop;
mod support;

use std::collections::BTreeSet;

use axum::http::StatusCode;
use serde_json::json;

use support::fake_state::Calls;
use support::{Shop, serve_bookings, serve_inventory, serve_orders};

/// Runs all at once and gives their results.
async fn all<T: Send + 'static>(
    tasks: impl Iterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let tasks: Vec<_> = tasks.map(tokio::spawn).collect();
    let mut results = Vec::new();
    for task in tasks {
        results.push(task.await.unwrap());
    }
    results
}

#[tokio::test]
async fn an_order_is_reserved_charged_and_recorded() {
    let shop = Shop::open().await;
    let placed = shop.order("o-1").await;
    assert_eq!(placed.status, StatusCode::CREATED, "{placed:?}");
    assert_eq!(placed.body["amount_cents"], 500);
    shop.assert_one_effect_each("o-1");
    let shown = shop.get(&format!("{}/orders/o-1", shop.orders)).await;
    assert_eq!((shown.status, &shown.body), (StatusCode::OK, &placed.body));
    assert_eq!(shop.get(&format!("{}/orders/o-2", shop.orders)).await.code(), "not_found");
    assert_eq!(shop.get(&format!("{}/healthz", shop.orders)).await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_same_key_twice_is_one_order_with_the_same_answer() {
    let shop = Shop::open().await;
    let first = shop.order("o-1").await;
    let second = shop.order("o-1").await;
    let without_key = shop.order_with("o-1", &[]).await;
    assert_eq!((first.status, second.status), (StatusCode::CREATED, StatusCode::OK));
    assert_eq!((&first.body, &first.body), (&second.body, &without_key.body));
    shop.assert_one_effect_each("o-1");
}

#[tokio::test]
async fn twenty_at_once_are_one_order() {
    let shop = std::sync::Arc::new(Shop::open().await);
    let replies = all((0..20).map(|_| {
        let shop = shop.clone();
        async move { shop.order("o-1").await }
    }))
    .await;
    assert!(replies.iter().all(|reply| reply.status.is_success()), "{replies:?}");
    assert!(replies.iter().all(|reply| reply.body == replies[0].body), "{replies:?}");
    shop.assert_one_effect_each("o-1");
}

#[tokio::test]
async fn an_answer_lost_after_the_commit_loses_and_doubles_nothing() {
    let shop = Shop::open().await;
    for lost in 1..=3 {
        let order = format!("o-{lost}");
        shop.state.hang_up_after(lost); // Of the reservation; of the charge too; of the order too.
        let placed = shop.order(&order).await;
        assert!(placed.status.is_success(), "{placed:?}");
        shop.assert_one_effect_each(&order);
        let charges = shop.state.values("payments", "ledger/");
        let stored = shop.state.values("payments", &format!("charge/{order}"));
        assert_eq!(stored[0]["charge_id"], placed.body["charge_id"]);
        assert_eq!(charges.len(), lost);
    }
    assert_eq!(left_in_stock(&shop), 64 * 1_000_000 - 3 * 2);
}

#[tokio::test]
async fn a_state_api_that_is_away_for_a_while_is_waited_for() {
    let shop = Shop::open().await;
    shop.state.refuse(6, 0);
    assert_eq!(shop.order("o-1").await.status, StatusCode::CREATED);
    shop.assert_one_effect_each("o-1");
}

#[tokio::test]
async fn a_retry_after_beyond_the_deadline_is_passed_on_at_once() {
    let shop = Shop::open().await;
    shop.state.refuse(usize::MAX, 1);
    let charge = json!({"order_id": "o-1", "amount_cents": 500}).to_string();
    let refused =
        shop.post(&format!("{}/charges", shop.payments), &[("standfast-deadline", "900")], charge).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::SERVICE_UNAVAILABLE, "unavailable"));
    assert_eq!(refused.headers["retry-after"], "1");
    assert_eq!(refused.body["error"]["retry"], true);
}

#[tokio::test]
async fn a_deadline_ends_the_wait_and_a_repeat_completes_the_order_once() {
    let shop = Shop::open().await;
    shop.state.hold(true);
    let late = shop.order_with("o-1", &[("standfast-deadline", "150")]).await;
    assert_eq!((late.status, late.code()), (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"));
    shop.state.hold(false);
    assert!(shop.order("o-1").await.status.is_success());
    shop.assert_one_effect_each("o-1");
}

#[tokio::test]
async fn an_order_broken_off_half_way_is_completed_by_a_repeat_at_another_replica() {
    let shop = Shop::open().await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cut_off = serve_orders(&shop.state, &shop.inventory, &format!("http://{nobody}")).await;
    let body = json!({"order_id": "o-1", "item": "apple", "quantity": 2}).to_string();
    let headers = [("standfast-deadline", "200")];
    let broken = shop.post(&format!("{cut_off}/orders"), &headers, body).await;
    assert_eq!((broken.status, broken.code()), (StatusCode::SERVICE_UNAVAILABLE, "unavailable"));
    assert_eq!((shop.effects("inventory", "o-1"), shop.effects("payments", "o-1")), (1, 0));
    assert_eq!(shop.order("o-1").await.status, StatusCode::CREATED);
    shop.assert_one_effect_each("o-1");
}

#[tokio::test]
async fn no_time_left_means_nothing_is_begun() {
    let shop = Shop::open().await;
    let late = shop.order_with("o-1", &[("standfast-deadline", "0")]).await;
    assert_eq!((late.status, late.code()), (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"));
    assert_eq!(shop.state.take_calls(), Calls::default());
}

#[tokio::test]
async fn an_order_costs_three_batches_and_no_read() {
    let shop = Shop::open().await;
    assert_eq!(shop.order("warm-up").await.status, StatusCode::CREATED);
    shop.state.take_calls();
    for order in 0..10 {
        assert_eq!(shop.order(&format!("o-{order}")).await.status, StatusCode::CREATED);
    }
    assert_eq!(shop.state.take_calls(), Calls { reads: 0, batches: 30 });
}

#[tokio::test]
async fn replicas_that_take_from_one_item_take_each_piece_once() {
    let shop = std::sync::Arc::new(Shop::open().await);
    let replicas =
        [shop.inventory.clone(), serve_inventory(&shop.state).await, serve_inventory(&shop.state).await];
    let replies =
        all((0..150).map(|order| {
            let (shop, replica) = (shop.clone(), replicas[order % replicas.len()].clone());
            async move {
                reserve(&shop, &replica, &format!("o-{order}"), 1, &[("standfast-deadline", "20000")]).await
            }
        }))
        .await;
    assert!(replies.iter().all(|reply| reply.status == StatusCode::CREATED), "{replies:?}");
    let orders: BTreeSet<_> =
        shop.state.values("inventory", "ledger/").iter().map(|entry| entry["order_id"].to_string()).collect();
    assert_eq!((orders.len(), shop.state.values("inventory", "ledger/").len()), (150, 150));
    assert_eq!(left_in_stock(&shop), 64 * 1_000_000 - 150);
}

#[tokio::test]
async fn replicas_at_the_same_bin_collide_and_get_through() {
    let shop = std::sync::Arc::new(Shop::open().await);
    for bin in 0..64 {
        let left = if bin == 7 { "1000" } else { "0" };
        shop.state.put("inventory", &format!("stock/apple/{bin:02}"), left);
    }
    let replicas =
        [shop.inventory.clone(), serve_inventory(&shop.state).await, serve_inventory(&shop.state).await];
    let replies = all(replicas.into_iter().enumerate().map(|(number, replica)| {
        let shop = shop.clone();
        async move {
            let mut replies = Vec::new();
            for order in 0..20 {
                replies.push(reserve(&shop, &replica, &format!("o-{number}-{order}"), 1, &[]).await);
            }
            replies
        }
    }))
    .await;
    assert!(replies.iter().flatten().all(|reply| reply.status == StatusCode::CREATED), "{replies:?}");
    assert_eq!(left_in_stock(&shop), 1_000 - 60);
}

#[tokio::test]
async fn what_is_sold_out_is_refused_but_a_repeat_still_finds_its_reservation() {
    let shop = Shop::open().await;
    for bin in 0..64 {
        let left = if bin == 7 { "3" } else { "1" };
        shop.state.put("inventory", &format!("stock/apple/{bin:02}"), left);
    }
    assert_eq!(reserve(&shop, &shop.inventory, "o-1", 2, &[]).await.status, StatusCode::CREATED);
    let refused = reserve(&shop, &shop.inventory, "o-2", 2, &[]).await;
    assert_eq!((refused.status, refused.code()), (StatusCode::CONFLICT, "out_of_stock"));
    assert_eq!(reserve(&shop, &shop.inventory, "o-1", 2, &[]).await.status, StatusCode::OK);
    let told = shop.order("o-3").await;
    assert_eq!((told.status, told.code()), (StatusCode::CONFLICT, "refused"));
    assert_eq!(told.body["error"]["message"], "inventory refused: `apple` is sold out");
    assert_eq!(shop.effects("payments", "o-3"), 0);
}

#[tokio::test]
async fn a_key_is_bound_to_its_order() {
    let shop = Shop::open().await;
    let first = shop.order_with("o-1", &[("idempotency-key", "a key/of mine")]).await;
    assert_eq!(first.status, StatusCode::CREATED, "{first:?}");
    let again = shop.order_with("o-1", &[("idempotency-key", "a key/of mine")]).await;
    assert_eq!((again.status, again.body), (StatusCode::OK, first.body));
    let other = shop.order_with("o-2", &[("idempotency-key", "a key/of mine")]).await;
    assert_eq!((other.status, other.code()), (StatusCode::UNPROCESSABLE_ENTITY, "key_reused"));
    assert_eq!((shop.effects("inventory", "o-2"), shop.effects("payments", "o-2")), (0, 0));
}

#[tokio::test]
async fn an_order_cannot_change_its_mind() {
    let shop = Shop::open().await;
    shop.order("o-1").await;
    let body = json!({"order_id": "o-1", "item": "apple", "quantity": 3}).to_string();
    let changed = shop.post(&format!("{}/orders", shop.orders), &[], body).await;
    assert_eq!((changed.status, changed.code()), (StatusCode::CONFLICT, "refused"));
    let body = json!({"order_id": "o-1", "amount_cents": 1}).to_string();
    let changed = shop.post(&format!("{}/charges", shop.payments), &[], body).await;
    assert_eq!((changed.status, changed.code()), (StatusCode::CONFLICT, "charged_differently"));
    shop.assert_one_effect_each("o-1");
}

#[tokio::test]
async fn bad_input_is_answered_with_what_is_wrong() {
    let shop = Shop::open().await;
    let orders = format!("{}/orders", shop.orders);
    for bad in [
        "",
        "no JSON",
        "[]",
        r#"{"order_id": "o-1"}"#,
        r#"{"order_id": "o-1", "item": "apple", "quantity": -1}"#,
        r#"{"order_id": "o-1", "item": "apple", "quantity": 0}"#,
        r#"{"order_id": "o-1", "item": "apple", "quantity": 4294967295}"#,
        r#"{"order_id": "../o", "item": "apple", "quantity": 1}"#,
        r#"{"order_id": "o-1", "item": "", "quantity": 1}"#,
        "{\"order_id\": \"\u{1F34F}\", \"item\": \"apple\", \"quantity\": 1}",
    ] {
        let reply = shop.post(&orders, &[], bad.to_owned()).await;
        assert_eq!((reply.status, reply.code()), (StatusCode::BAD_REQUEST, "malformed"), "{bad}: {reply:?}");
        assert_eq!(reply.body["error"]["retry"], false);
    }
    assert_eq!(shop.order_with("o-1", &[("idempotency-key", "")]).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(shop.post(&orders, &[], "x".repeat(100_000)).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(shop.get(&orders).await.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(shop.get(&format!("{}/nowhere", shop.orders)).await.status, StatusCode::NOT_FOUND);
    assert_eq!(shop.get(&format!("{}/orders/%FF", shop.orders)).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(shop.state.take_calls(), Calls::default());
}

async fn reserve(
    shop: &Shop,
    replica: &str,
    order_id: &str,
    quantity: u32,
    headers: &[(&str, &str)],
) -> support::Reply {
    let body = json!({"order_id": order_id, "item": "apple", "quantity": quantity}).to_string();
    shop.post(&format!("{replica}/reservations"), headers, body).await
}

/// All apples, counting the bins that nobody has used yet.
fn left_in_stock(shop: &Shop) -> u64 {
    let bins = shop.state.values("inventory", "stock/apple/");
    let unused = 64 - u64::try_from(bins.len()).unwrap();
    unused * 1_000_000 + bins.iter().map(|left| left.as_u64().unwrap()).sum::<u64>()
}

#[tokio::test]
async fn a_booking_is_made_once_and_cancelled_once_in_whatever_order_they_arrive() {
    let shop = Shop::open().await;
    let bookings = serve_bookings(&shop.state).await;
    let book = async |id: &str, what: &str| {
        let body = json!({"booking_id": id, "what": what}).to_string();
        shop.post(&format!("{bookings}/bookings"), &[], body).await
    };
    let cancel = async |id: &str| shop.delete(&format!("{bookings}/bookings/{id}")).await.status;
    assert_eq!(book("b-1", "a car").await.status, StatusCode::CREATED);
    assert_eq!(book("b-1", "a car").await.status, StatusCode::OK);
    assert_eq!(book("b-1", "another").await.code(), "booked_differently");
    assert_eq!(book("b-2", "sold-out").await.code(), "sold_out");
    assert_eq!((cancel("b-1").await, cancel("b-1").await), (StatusCode::OK, StatusCode::OK));
    assert_eq!(cancel("b-3").await, StatusCode::OK);
    assert_eq!(book("b-3", "a car").await.code(), "cancelled");
    let ledger = shop.state.values("bookings", "ledger/");
    let count = |id: &str| ledger.iter().filter(|entry| entry["booking_id"] == id).count();
    assert_eq!((count("b-1"), count("b-2"), count("b-3")), (2, 0, 1));
}
