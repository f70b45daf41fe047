//! The part of `docs/state-api.md` that the shop uses, in memory, with the misbehaviour that tests ask for.
//! It stands on bare hyper because a handler must be able to commit and then hang up without a word.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A running state API; each service has its space below a path of its own.
pub(crate) struct FakeState {
    address: String,
    shared: Arc<Shared>,
}

struct Shared {
    store: Mutex<Store>,
    /// While true, requests are taken but not worked on.
    held: watch::Sender<bool>,
    /// Requests that wait because of `held`.
    waiting: watch::Sender<usize>,
}

#[derive(Default)]
struct Store {
    entries: BTreeMap<(String, String), (u64, String)>,
    version: u64,
    calls: Calls,
    hang_ups: usize,
    refusals: usize,
    refuse_seconds: u32,
}

/// How often it was asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Calls {
    pub(crate) reads: usize,
    pub(crate) batches: usize,
}

/// The connection ends without an answer.
#[derive(Debug)]
struct HangUp;

impl std::fmt::Display for HangUp {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        to.write_str("hung up")
    }
}

impl std::error::Error for HangUp {}

type Answer = Result<Response<Full<Bytes>>, HangUp>;

impl FakeState {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            store: Mutex::default(),
            held: watch::channel(false).0,
            waiting: watch::channel(0).0,
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&serving);
                let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(socket), service),
                );
            }
        });
        Self { address, shared }
    }

    pub(crate) fn url(&self, service: &str) -> String {
        format!("http://{}/{service}", self.address)
    }

    /// The next `commits` batches are done, but their answers never come.
    pub(crate) fn hang_up_after(&self, commits: usize) {
        self.shared.store.lock().unwrap().hang_ups = commits;
    }

    /// The next `requests` are answered 503.
    pub(crate) fn refuse(&self, requests: usize, retry_after_seconds: u32) {
        let mut store = self.shared.store.lock().unwrap();
        (store.refusals, store.refuse_seconds) = (requests, retry_after_seconds);
    }

    /// Takes requests without working on them, or goes on.
    pub(crate) fn hold(&self, held: bool) {
        self.shared.held.send_replace(held);
    }

    /// Waits until as many requests are held.
    pub(crate) async fn until_waiting(&self, requests: usize) {
        self.shared.waiting.subscribe().wait_for(|waiting| *waiting >= requests).await.unwrap();
    }

    pub(crate) fn put(&self, service: &str, key: &str, value: &str) {
        let mut store = self.shared.store.lock().unwrap();
        store.version += 1;
        let version = store.version;
        store.entries.insert((service.to_owned(), key.to_owned()), (version, value.to_owned()));
    }

    /// The JSON values below a prefix.
    pub(crate) fn values(&self, service: &str, prefix: &str) -> Vec<Value> {
        let store = self.shared.store.lock().unwrap();
        let below =
            store.entries.iter().filter(|((space, key), _)| space == service && key.starts_with(prefix));
        below.map(|(_, (_, value))| serde_json::from_str(value).unwrap()).collect()
    }

    /// How often it was asked since the last time.
    pub(crate) fn take_calls(&self) -> Calls {
        std::mem::take(&mut self.shared.store.lock().unwrap().calls)
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| HangUp)?.to_bytes();
    shared.wait_while_held().await;
    let mut store = shared.store.lock().unwrap();
    if store.refusals > 0 {
        store.refusals -= 1;
        let mut refusal = error(StatusCode::SERVICE_UNAVAILABLE, "starting");
        refusal.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(store.refuse_seconds));
        return Ok(refusal);
    }
    let path = head.uri.path().trim_start_matches('/').to_owned();
    let (space, rest) = path.split_once('/').expect("a space and a path");
    match (&head.method, rest) {
        (&Method::POST, "batch") => store.batch(space, &serde_json::from_slice(&body).unwrap()),
        (&Method::GET, "keys") => Ok(store.list(space, head.uri.query().unwrap_or_default())),
        (&Method::GET, rest) => Ok(store.get(space, rest.strip_prefix("keys/").expect("a key"))),
        other => panic!("the shop does not use {other:?}"),
    }
}

impl Shared {
    async fn wait_while_held(&self) {
        let mut held = self.held.subscribe();
        if *held.borrow_and_update() {
            self.waiting.send_modify(|waiting| *waiting += 1);
            held.wait_for(|held| !held).await.unwrap();
            self.waiting.send_modify(|waiting| *waiting -= 1);
        }
    }
}

impl Store {
    fn get(&mut self, space: &str, key: &str) -> Response<Full<Bytes>> {
        self.calls.reads += 1;
        match self.entries.get(&(space.to_owned(), decoded(key))) {
            Some((version, value)) => Response::builder()
                .header(header::ETAG, format!("\"{version}\""))
                .body(Full::from(value.clone()))
                .unwrap(),
            None => error(StatusCode::NOT_FOUND, "not_found"),
        }
    }

    fn list(&mut self, space: &str, query: &str) -> Response<Full<Bytes>> {
        self.calls.reads += 1;
        let query: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
        let prefix = decoded(query["prefix"]);
        let limit: usize = query["limit"].parse().unwrap();
        let below = self.entries.iter().filter(|((of, key), _)| of == space && key.starts_with(&prefix));
        let entries: Vec<_> = below
            .take(limit)
            .map(|((_, key), (version, value))| json!({"key": key, "version": version, "value": value}))
            .collect();
        json_answer(StatusCode::OK, &json!({"entries": entries, "next": null}))
    }

    fn batch(&mut self, space: &str, batch: &Value) -> Answer {
        self.calls.batches += 1;
        let entry = |value: &Value| (space.to_owned(), value.as_str().expect("a key").to_owned());
        let conditions = batch["if"].as_array().unwrap();
        let holds = |condition: &Value| match (&condition["is"], self.entries.get(&entry(&condition["key"])))
        {
            (Value::String(is), found) if is == "absent" => found.is_none(),
            (Value::Object(is), found) => found.is_some_and(|(version, _)| is["version"] == *version),
            other => panic!("the shop does not use {other:?}"),
        };
        let failed: Vec<usize> = (0..conditions.len()).filter(|index| !holds(&conditions[*index])).collect();
        if !failed.is_empty() {
            let body = json!({"error": {"code": "precondition_failed", "message": "", "retry": false}, "failed": failed});
            return Ok(json_answer(StatusCode::PRECONDITION_FAILED, &body));
        }
        self.version += 1;
        for write in batch["do"].as_array().unwrap() {
            let value = write["value"].as_str().expect("a text value").to_owned();
            self.entries.insert(entry(&write["put"]), (self.version, value));
        }
        if self.hang_ups > 0 {
            self.hang_ups -= 1;
            return Err(HangUp);
        }
        Ok(json_answer(StatusCode::OK, &json!({"version": self.version})))
    }
}

fn error(status: StatusCode, code: &str) -> Response<Full<Bytes>> {
    json_answer(status, &json!({"error": {"code": code, "message": "", "retry": true}}))
}

fn json_answer(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    Response::builder().status(status).body(Full::from(body.to_string())).unwrap()
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next().unwrap(), rest.next().unwrap()];
        bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
    }
    String::from_utf8(bytes).unwrap()
}
