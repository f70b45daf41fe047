//! The state API over real sockets, as docs/state-api.md promises it.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use standfast_model::ServiceName;
use standfast_runtime::http::{Client, Listener, ServerLimits, serve};
use standfast_runtime::{Clock, Net, OnStop, Peer, StopSource, Tasks};
use standfast_store::http::{BODY_BYTES_MAX, StateApi, unavailable};
use standfast_store::{BATCH_BYTES_MAX, Fault, MemoryStore, VALUE_BYTES_MAX};

/// A state API on a port of its own, over a store that can be made to fail.
struct Server {
    store: Arc<MemoryStore>,
    client: Client,
    peer: Peer,
    _tasks: Tasks,
    _stop: StopSource,
}

impl Server {
    async fn start() -> Self {
        let (net, clock, tasks) = (Net::real(), Clock::system(), Tasks::new());
        let store = Arc::new(MemoryStore::new(clock));
        let services = ["orders", "stock"].map(|name| name.parse::<ServiceName>().unwrap());
        let api = StateApi::for_services(Arc::<MemoryStore>::clone(&store), clock, services);
        let listener = net.listen_tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let peer = Peer::Tcp(listener.local_addr().unwrap());
        let limits = ServerLimits { body_bytes_max: BODY_BYTES_MAX, ..ServerLimits::default() };
        let (source, stop) = StopSource::new();
        let handler = move |request| {
            let api = api.clone();
            async move { api.handle(request).await }
        };
        tasks.spawn("state api", OnStop::Abort, serve(Listener::Tcp(listener), handler, limits, clock, stop));
        Self { store, client: Client::new(net, clock), peer, _tasks: tasks, _stop: source }
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(format!("/v1/orders{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send_raw(request.body(body.into()).unwrap()).await
    }

    async fn send_raw(&self, request: Request<Bytes>) -> Answer {
        Answer(self.client.send(&self.peer, request, Duration::from_secs(20)).await.unwrap())
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    async fn put(&self, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        self.send(Method::PUT, path, headers, body).await
    }

    async fn batch(&self, body: impl Into<Bytes>) -> Answer {
        self.send(Method::POST, "/batch", &[], body).await
    }
}

struct Answer(Response<Bytes>);

impl Answer {
    fn status(&self) -> u16 {
        self.0.status().as_u16()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.0.headers().get(name).map(|value| value.to_str().unwrap())
    }

    fn text(&self) -> &str {
        std::str::from_utf8(self.0.body()).unwrap()
    }

    fn json(&self) -> serde_json::Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_slice(self.0.body()).unwrap()
    }

    /// Status, code and message of an error.
    fn error(&self) -> (u16, String, String) {
        let error = &self.json()["error"];
        let text = |field: &str| error[field].as_str().unwrap().to_owned();
        assert!(error["retry"].is_boolean());
        (self.status(), text("code"), text("message"))
    }
}

#[tokio::test]
async fn a_value_of_any_bytes_comes_back_with_its_version() {
    let server = Server::start().await;
    let every: Vec<u8> = (0..=255).collect();
    for (number, value) in [every, vec![], vec![0; VALUE_BYTES_MAX]].into_iter().enumerate() {
        let etag = format!("\"{}\"", number + 1);
        let put = server.put("/keys/a%2Fb/%c3%A9+", &[], value.clone()).await;
        assert_eq!((put.status(), put.header("etag"), put.text()), (200, Some(&*etag), ""));
        let got = server.get("/keys/a/b%2F%C3%A9+").await;
        assert_eq!((got.status(), got.header("etag")), (200, Some(&*etag)));
        assert_eq!(got.header("content-type"), Some("application/octet-stream"));
        assert_eq!(got.0.body(), &value);
    }
    let deleted = server.send(Method::DELETE, "/keys/a/b/%C3%A9+", &[], "").await;
    assert_eq!((deleted.status(), deleted.header("etag"), deleted.text()), (204, None, ""));
    assert_eq!(server.get("/keys/a/b/%C3%A9+").await.error().0, 404);
    assert_eq!(server.send(Method::DELETE, "/keys/never", &[], "").await.status(), 204);
}

#[tokio::test]
async fn conditions_in_headers_hold_or_nothing_is_done() {
    let server = Server::start().await;
    let absent = [("if-none-match", "*")];
    assert_eq!(server.put("/keys/k", &[("if-match", "*")], "x").await.status(), 412);
    assert_eq!(server.put("/keys/k", &[("if-match", "\"1\"")], "x").await.header("etag"), None);
    assert_eq!(server.put("/keys/k", &absent, "first").await.header("etag"), Some("\"1\""));
    let lost = server.put("/keys/k", &absent, "second").await;
    assert_eq!((lost.status(), lost.header("etag")), (412, Some("\"1\"")));
    assert!(lost.json().get("failed").is_none());
    assert_eq!(server.put("/keys/k", &[("if-match", "\"1\"")], "third").await.header("etag"), Some("\"2\""));
    assert_eq!(server.put("/keys/k", &[("if-match", "*")], "fourth").await.status(), 200);
    let stale = server.send(Method::DELETE, "/keys/k", &[("if-match", "\"2\"")], "").await;
    assert_eq!((stale.status(), stale.header("etag")), (412, Some("\"3\"")));
    assert_eq!(server.get("/keys/k").await.text(), "fourth");
    assert_eq!(server.send(Method::DELETE, "/keys/k", &[("if-match", "\"3\"")], "").await.status(), 204);
    for (headers, method) in [
        (&[("if-match", "42")][..], Method::PUT),
        (&[("if-match", "W/\"42\"")], Method::PUT),
        (&[("if-match", "\"1\", \"2\"")], Method::PUT),
        (&[("if-match", "\"1\""), ("if-match", "\"2\"")], Method::PUT),
        (&[("if-match", "\"1\""), ("if-none-match", "*")], Method::PUT),
        (&[("if-none-match", "\"1\"")], Method::PUT),
        (&[("if-none-match", "*")], Method::DELETE),
    ] {
        let answer = server.send(method, "/keys/new", headers, "x").await;
        assert_eq!(answer.error().1, "malformed", "{headers:?}");
    }
    assert_eq!(
        server.get("/keys/new").await.status(),
        404,
        "a condition that is not understood is not ignored"
    );
}

#[tokio::test]
async fn a_batch_is_done_wholly_or_not_at_all() {
    let server = Server::start().await;
    let done = server
        .batch(r#"{"do": [{"put": "a", "value": "é"}, {"put": "b", "value_base64": "AP8="}, {"put": "c", "value": ""}]}"#)
        .await;
    assert_eq!((done.status(), done.text()), (200, r#"{"version":1}"#));
    let refused = server
        .batch(
            r#"{"if": [{"key": "a", "is": "present"}, {"key": "a", "is": "absent"}, {"key": "x", "is": {"version": 1}},
                       {"key": "b", "is": {"version": 1}}],
                "do": [{"delete": "a"}, {"put": "d", "value": "x"}]}"#,
        )
        .await;
    assert_eq!(refused.error().1, "precondition_failed");
    assert_eq!(refused.json()["failed"], serde_json::json!([1, 2]));
    assert_eq!((refused.status(), refused.header("etag")), (412, None));
    let all = r#"{"entries":[{"key":"a","version":1,"value":"é"},{"key":"b","version":1,"value_base64":"AP8="},{"key":"c","version":1,"value":""}],"next":null}"#;
    assert_eq!(server.get("/keys").await.text(), all);
    let done = server.batch(r#"{"if": [{"key": "a", "is": {"version": 1}}], "do": [{"delete": "a"}, {"delete": "b"}, {"delete": "c"}]}"#).await;
    assert_eq!(done.text(), r#"{"version":2}"#);
    assert_eq!(server.get("/keys").await.text(), r#"{"entries":[],"next":null}"#);
    assert_eq!(server.batch("{}").await.text(), r#"{"version":2}"#);
}

#[tokio::test]
async fn what_is_malformed_is_refused_with_its_place() {
    let server = Server::start().await;
    for (body, message) in [
        ("", "the body is not a batch: EOF while parsing a value at line 1 column 0"),
        ("{\n  \"do\": [oops]}", "the body is not a batch: expected value at line 2 column 10"),
        (
            r#"{"if": [{"key": "k", "is": "here"}]}"#,
            "the body is not a batch: unknown variant `here`, expected one of `absent`, `present`, `version` at line 1 column 33",
        ),
        (
            r#"{"if": [{"key": "k", "is": {"version": -1}}]}"#,
            "the body is not a batch: invalid value: integer `-1`, expected u64 at line 1 column 41",
        ),
        (
            r#"{"iff": []}"#,
            "the body is not a batch: unknown field `iff`, expected `if` or `do` at line 1 column 6",
        ),
        (
            r#"{"do": [{"delete": "k"}, {"put": "k"}]}"#,
            "the write do[1] needs either `value` or `value_base64`",
        ),
        (
            r#"{"do": [{"put": "k", "value": "", "value_base64": ""}]}"#,
            "the write do[0] needs either `value` or `value_base64`",
        ),
        (
            r#"{"do": [{"put": "k", "value_base64": "A"}]}"#,
            "the write do[0] has a `value_base64` that is not base64",
        ),
        (
            r#"{"do": [{"put": "k", "delete": "k", "value": ""}]}"#,
            "the write do[0] needs either `put` or `delete`",
        ),
        (r#"{"do": [{"value": ""}]}"#, "the write do[0] needs either `put` or `delete`"),
        (
            r#"{"do": [{"delete": "k", "ttl_ms": 5}]}"#,
            "the write do[0] deletes, so it has no value and no `ttl_ms`",
        ),
        (
            r#"{"do": [{"put": "k", "value": "", "ttl_ms": 0}]}"#,
            "the write do[0] has a `ttl_ms` of 0; the least is 1",
        ),
        (r#"{"do": [{"put": "", "value": ""}]}"#, "the key is empty"),
    ] {
        let answer = server.batch(body).await;
        assert_eq!(answer.error(), (400, "malformed".into(), message.into()), "{body}");
    }
    for (path, message) in [
        ("/keys/%zz", "the key has a `%` without two hexadecimal digits at byte 1; write `%25` for a `%`"),
        ("/keys/a%ff", "the key is not UTF-8 at byte 2 of its decoded form"),
        ("/keys/", "the key is empty"),
        ("/keys/k?ttl_ms=1", "unknown parameter `ttl_ms` (known: there is none here)"),
        ("/keys?limit=0", "parameter `limit` must be a whole number from 1 to 1000"),
        ("/keys?limit=1001", "parameter `limit` must be a whole number from 1 to 1000"),
        ("/keys?limit=%2B1", "parameter `limit` must be a whole number from 1 to 1000"),
        ("/keys?reverse=yes", "parameter `reverse` must be `true` or `false`"),
        (
            "/keys?prefix=%",
            "the parameter `prefix` has a `%` without two hexadecimal digits at byte 1; write `%25` for a `%`",
        ),
        ("/keys?prefix=a&prefix=b", "parameter `prefix` is given twice"),
        ("/keys?prefx=a", "unknown parameter `prefx` (known: prefix, limit, after, reverse)"),
    ] {
        assert_eq!(server.get(path).await.error(), (400, "malformed".into(), message.into()), "{path}");
    }
    for ttl in ["0", "-1", "1.5", "", "99999999999999999999"] {
        assert_eq!(server.put(&format!("/keys/k?ttl_ms={ttl}"), &[], "v").await.error().0, 400, "{ttl}");
    }
}

#[tokio::test]
async fn what_is_not_there_says_what_is() {
    let server = Server::start().await;
    for (path, code) in [
        ("/v1/unknown/keys/k", "no_such_service"),
        ("/v1/..%2Forders/keys/k", "no_such_service"),
        ("/v1/orders", "no_such_path"),
        ("/v1/orders/key/k", "no_such_path"),
        ("/v1/orders/batch/x", "no_such_path"),
        ("/v2/orders/keys/k", "no_such_path"),
        ("/", "no_such_path"),
    ] {
        let answer = server.send_raw(Request::get(path).body(Bytes::new()).unwrap()).await;
        assert_eq!((answer.status(), answer.error().1), (404, code.into()), "{path}");
    }
    for (method, path, allow) in [
        (Method::POST, "/keys/k", "GET, PUT, DELETE"),
        (Method::HEAD, "/keys", "GET"),
        (Method::DELETE, "/keys", "GET"),
        (Method::GET, "/batch", "POST"),
    ] {
        let answer = server.send(method, path, &[], "").await;
        assert_eq!((answer.status(), answer.header("allow")), (405, Some(allow)), "{path}");
    }
    server.put("/keys/k", &[], "of orders").await;
    let of_stock = server.send_raw(Request::get("/v1/stock/keys/k").body(Bytes::new()).unwrap()).await;
    assert_eq!(of_stock.status(), 404, "each service has its own keys");
}

#[tokio::test]
async fn limits_are_kept_and_named() {
    let server = Server::start().await;
    let key = "k".repeat(1_024);
    assert_eq!(server.put(&format!("/keys/{key}"), &[], "v").await.status(), 200);
    let over = |message: &str| (413, "too_large".to_owned(), message.to_owned());
    let too_long = "1025 bytes of key, at most 1024 are allowed";
    assert_eq!(server.put(&format!("/keys/{key}k"), &[], "v").await.error(), over(too_long));
    assert_eq!(server.get(&format!("/keys/{key}k")).await.error(), over(too_long));
    let value = vec![0; VALUE_BYTES_MAX + 1];
    assert_eq!(
        server.put("/keys/k", &[], value).await.error(),
        over("1048577 bytes of value, at most 1048576 are allowed")
    );
    let writes = |count: usize, value: &str| {
        let write = serde_json::json!({"put": "k", "value": value});
        serde_json::json!({"do": vec![write; count]}).to_string()
    };
    assert_eq!(server.batch(writes(256, "v")).await.status(), 200);
    assert_eq!(server.batch(writes(257, "v")).await.error(), over("257 writes, at most 256 are allowed"));
    let value = "v".repeat(BATCH_BYTES_MAX / 256);
    assert_eq!(
        server.batch(writes(256, &value)).await.error(),
        over("4194560 bytes of batch, at most 4194304 are allowed")
    );
    let too_long = vec![b' '; BODY_BYTES_MAX + 1];
    assert_eq!(server.batch(too_long).await.status(), 413);
}

#[tokio::test]
async fn an_entry_ends_with_its_time() {
    let (server, clock) = (Server::start().await, Clock::system());
    server.put("/keys/a?ttl_ms=300", &[], "v").await;
    server.batch(r#"{"do": [{"put": "b", "value": "v", "ttl_ms": 300}, {"put": "c", "value": "v", "ttl_ms": 3600000}]}"#).await;
    server.put("/keys/d?ttl_ms=300", &[], "v").await;
    server.put("/keys/d", &[], "stays").await;
    assert_eq!(server.get("/keys/a").await.status(), 200);
    clock.sleep(Duration::from_millis(350)).await;
    assert_eq!(server.get("/keys/a").await.status(), 404);
    let there: Vec<_> = server.get("/keys").await.json()["entries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|e| e["key"].clone())
        .collect();
    assert_eq!(there, ["c", "d"]);
    assert_eq!(server.put("/keys/a", &[("if-none-match", "*")], "again").await.status(), 200);
}

#[tokio::test]
async fn pages_together_are_the_whole() {
    let server = Server::start().await;
    let keys: Vec<String> = (0..250).map(|n| format!("item/{n:03} &é")).collect();
    let writes: Vec<_> = keys.iter().map(|key| serde_json::json!({"put": key, "value": "v"})).collect();
    assert_eq!(server.batch(serde_json::json!({"do": writes}).to_string()).await.status(), 200);
    assert_eq!(server.get("/keys").await.json()["entries"].as_array().unwrap().len(), 100);
    for reverse in [false, true] {
        let (mut found, mut after, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page =
                server.get(&format!("/keys?prefix=item%2F&limit=60&reverse={reverse}{after}")).await.json();
            found.extend(
                page["entries"].as_array().unwrap().iter().map(|e| e["key"].as_str().unwrap().to_owned()),
            );
            pages += 1;
            let Some(next) = page["next"].as_str() else { break };
            let encoded: String = next.bytes().map(|byte| format!("%{byte:02x}")).collect();
            after = format!("&after={encoded}");
        }
        if reverse {
            found.reverse();
        }
        assert_eq!((found, pages), (keys.clone(), 5));
    }
}

#[tokio::test]
async fn a_store_that_cannot_says_whether_to_repeat() {
    let server = Server::start().await;
    server.put("/keys/k", &[], "v").await;
    let retry = |answer: &Answer| answer.json()["error"]["retry"].as_bool().unwrap();
    server.store.set_fault(Some(Fault::Full));
    let full = server.put("/keys/k", &[], "w").await;
    assert_eq!((full.status(), full.error().1, retry(&full)), (507, "disk_full".into(), true));
    assert_eq!(server.get("/keys/k").await.text(), "v", "reads go on");
    for (fault, code) in [(Fault::Busy, "busy"), (Fault::Stopped("secret path".into()), "stopped")] {
        server.store.set_fault(Some(fault));
        let answers = [
            server.put("/keys/k", &[], "w").await,
            server.get("/keys/k").await,
            server.batch("{}").await,
            server.get("/keys").await,
        ];
        for answer in answers {
            assert_eq!((answer.status(), answer.error().1, retry(&answer)), (503, code.into(), true));
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert!(!answer.text().contains("secret"), "callers do not see the operator's reasons");
        }
    }
    server.store.set_fault(None);
    assert_eq!(server.put("/keys/k", &[], "w").await.status(), 200);
    let starting = unavailable();
    assert_eq!(starting.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(starting.headers()["retry-after"], "1");
}

/// Runs each command of the page's `console` blocks in a shell and compares what it prints with what the page says.
#[tokio::test]
async fn every_example_of_the_page_is_true() {
    let server = Server::start().await;
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/state-api.md"))
        .unwrap();
    let url = format!("http://{}/v1/orders", server.peer);
    let mut tried = 0;
    for block in page.split("```console\n").skip(1) {
        let block = block.split("```").next().unwrap();
        for example in block.split("$ ").skip(1) {
            let (command, expected) = example.split_once('\n').unwrap();
            let (command, url) = (command.to_owned(), url.clone());
            let shown = command.clone();
            let run =
                move || Command::new("sh").args(["-c", &command]).env("STANDFAST_STATE_URL", url).output();
            let output = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
            let printed = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success(), "{shown}: {} (curl is needed)", output.status);
            assert_eq!(printed.trim_end(), expected.trim_end(), "{shown}");
            tried += 1;
        }
    }
    assert!(tried >= 15, "only {tried} examples were found");
}
