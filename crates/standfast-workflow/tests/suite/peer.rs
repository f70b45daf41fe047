//! A server that answers as a test says, and remembers what it was asked.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use serde_json::{Map, Value};
use standfast_runtime::http::{Listener, ServerLimits, json as answer_json, serve};
use standfast_runtime::{Clock, Net, StopSource};

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// A body that is written as a form.
    pub(crate) fn form(&self) -> Map<String, Value> {
        let text = String::from_utf8_lossy(&self.body).into_owned();
        let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
        let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
        pairs.map(|(name, value)| (decode(name), decode(value).into())).collect()
    }
}

/// A server of its own.
pub(crate) struct Peer {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    // It serves until this is dropped.
    _stop: StopSource,
}

impl Peer {
    /// Answers by a function of the request and of how many came before.
    pub(crate) async fn new(
        answer: impl Fn(&Seen, usize) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        let listener = Net::real().listen_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (source, stop) = StopSource::new();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (known, answer) = (Arc::clone(&seen), Arc::new(answer));
        let handler = move |request: Request<Bytes>| {
            let (known, answer) = (Arc::clone(&known), Arc::clone(&answer));
            async move {
                let (head, body) = request.into_parts();
                let one = Seen {
                    method: head.method.to_string(),
                    path: head.uri.path().to_owned(),
                    query: head.uri.query().unwrap_or("").to_owned(),
                    headers: head.headers,
                    body,
                };
                let before = {
                    let mut known = known.lock().unwrap();
                    known.push(one.clone());
                    known.len() - 1
                };
                answer(&one, before)
            }
        };
        #[expect(clippy::disallowed_methods, reason = "the test's runtime ends it with the test")]
        tokio::spawn(serve(Listener::Tcp(listener), handler, ServerLimits::default(), Clock::system(), stop));
        Self { url, seen, _stop: source }
    }

    /// What came to this path.
    pub(crate) fn seen(&self, path: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.path == path).cloned().collect()
    }
}

pub(crate) fn ok(value: &Value) -> Response<Bytes> {
    answer_json(StatusCode::OK, value)
}

pub(crate) fn status(status: u16, value: &Value) -> Response<Bytes> {
    answer_json(StatusCode::from_u16(status).unwrap(), value)
}
