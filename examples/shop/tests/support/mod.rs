//! What the tests stand on: a state API in memory that can misbehave, and the services in this process on free ports.

pub(crate) mod fake_state;

use axum::Router;
use axum::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};
use shop::config::Config;
use tokio::net::TcpListener;

use fake_state::FakeState;

/// The three services around one state API.
pub(crate) struct Shop {
    pub(crate) state: FakeState,
    pub(crate) orders: String,
    pub(crate) inventory: String,
    pub(crate) payments: String,
    http: Client<HttpConnector, Full<Bytes>>,
}

/// An answer as it came.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Shop {
    pub(crate) async fn open() -> Self {
        let state = FakeState::start().await;
        let inventory = serve_inventory(&state).await;
        let payments = serve("payments", shop::payments::routes(&config(&state, "payments")).unwrap()).await;
        let orders = serve_orders(&state, &inventory, &payments).await;
        Self { state, orders, inventory, payments, http: http() }
    }

    pub(crate) async fn order(&self, order_id: &str) -> Reply {
        self.order_with(order_id, &[("idempotency-key", order_id)]).await
    }

    pub(crate) async fn order_with(&self, order_id: &str, headers: &[(&str, &str)]) -> Reply {
        let body = json!({"order_id": order_id, "item": "apple", "quantity": 2});
        self.post(&format!("{}/orders", self.orders), headers, body.to_string()).await
    }

    pub(crate) async fn post(&self, url: &str, headers: &[(&str, &str)], body: String) -> Reply {
        self.send(Method::POST, url, headers, body).await
    }

    pub(crate) async fn get(&self, url: &str) -> Reply {
        self.send(Method::GET, url, &[], String::new()).await
    }

    pub(crate) async fn delete(&self, url: &str) -> Reply {
        self.send(Method::DELETE, url, &[], String::new()).await
    }

    async fn send(&self, method: Method, url: &str, headers: &[(&str, &str)], body: String) -> Reply {
        let mut request = Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, body) =
            self.http.request(request.body(Full::from(body)).unwrap()).await.unwrap().into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_else(|_| panic!("not JSON: {body:?}"));
        Reply { status: head.status, headers: head.headers, body }
    }

    /// How often an effect at a service was really applied for an order.
    pub(crate) fn effects(&self, service: &str, order_id: &str) -> usize {
        let ledger = self.state.values(service, "ledger/");
        ledger.iter().filter(|entry| entry["order_id"] == order_id).count()
    }

    pub(crate) fn assert_one_effect_each(&self, order_id: &str) {
        for service in ["inventory", "payments"] {
            assert_eq!(self.effects(service, order_id), 1, "effects of {order_id} at {service}");
        }
    }
}

/// One more replica of the orders.
pub(crate) async fn serve_orders(state: &FakeState, inventory: &str, payments: &str) -> String {
    let config = Config {
        inventory_url: Some(inventory.to_owned()),
        payments_url: Some(payments.to_owned()),
        ..config(state, "orders")
    };
    serve("orders", shop::orders::routes(&config).unwrap()).await
}

/// A replica of what trips are made of.
pub(crate) async fn serve_bookings(state: &FakeState) -> String {
    serve("bookings", shop::bookings::routes(&config(state, "bookings")).unwrap()).await
}

/// One more replica of the inventory.
pub(crate) async fn serve_inventory(state: &FakeState) -> String {
    serve("inventory", shop::inventory::routes(&config(state, "inventory")).unwrap()).await
}

fn config(state: &FakeState, service: &str) -> Config {
    Config {
        host: "127.0.0.1".to_owned(),
        port: 0,
        zone: "a".to_owned(),
        replica: format!("{service}-1"),
        state_url: state.url(service),
        inventory_url: None,
        payments_url: None,
    }
}

async fn serve(service: &'static str, routes: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = shop::service::app_for(service, routes);
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

fn http() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

impl Reply {
    pub(crate) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or("no error")
    }
}
