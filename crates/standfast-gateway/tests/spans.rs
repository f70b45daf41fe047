//! What a collector is told of requests.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use standfast_gateway::{Exposition, SpanCounts, SpanSender, Spans, export_spans};
use standfast_model::OtlpEndpoint;
use standfast_runtime::http::{Listener, ServerLimits, serve};
use standfast_runtime::{Clock, Net, StopSource};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::replica::{Mood, Replica};
use crate::rig::{Load, Rig, Sent, endpoints, eventually, get, post, snapshot, with};
use crate::scrape::Scrape;

const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// A collector that keeps what it is told.
struct Collector {
    address: SocketAddr,
    /// What it answers; `None` is never.
    answer: watch::Sender<Option<StatusCode>>,
    told: Arc<Mutex<Vec<Value>>>,
    asked: Arc<Mutex<u64>>,
    _serving: JoinSet<()>,
    _stop: StopSource,
}

impl Collector {
    async fn start() -> Self {
        let listener = Net::real().listen_tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, answers) = watch::channel(Some(StatusCode::OK));
        let (told, asked) = (Arc::<Mutex<Vec<Value>>>::default(), Arc::<Mutex<u64>>::default());
        let (stop, stopped) = StopSource::new();
        let (keep, count) = (Arc::clone(&told), Arc::clone(&asked));
        let handler = move |request: Request<Bytes>| {
            let (keep, count, answer) = (Arc::clone(&keep), Arc::clone(&count), *answers.borrow());
            async move {
                assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
                assert_eq!(request.headers()["content-type"], "application/json");
                *count.lock().unwrap() += 1;
                let Some(status) = answer else { return std::future::pending().await };
                if status.is_success() {
                    keep.lock().unwrap().push(serde_json::from_slice(request.body()).unwrap());
                }
                Response::builder().status(status).body(Bytes::from_static(b"{}")).unwrap()
            }
        };
        let mut serving = JoinSet::new();
        serving.spawn(serve(
            Listener::Tcp(listener),
            handler,
            ServerLimits::default(),
            Clock::system(),
            stopped,
        ));
        Self { address, answer, told, asked, _serving: serving, _stop: stop }
    }

    fn spans(&self) -> Vec<Value> {
        let told = self.told.lock().unwrap();
        let scopes = told.iter().flat_map(|one| one["resourceSpans"][0]["scopeSpans"].as_array().unwrap());
        scopes.flat_map(|scope| scope["spans"].as_array().unwrap().clone()).collect()
    }

    async fn wait_for(&self, count: usize) -> Vec<Value> {
        eventually("spans have come", || self.spans().len() >= count).await;
        self.spans()
    }
}

/// A gateway that sends its spans to an address.
struct Traced {
    rig: Rig,
    spans: Arc<Spans>,
    exporting: JoinSet<()>,
    stop: StopSource,
}

impl Traced {
    fn start(replicas: &[&Replica], sample: f64, collector: SocketAddr) -> Self {
        let (spans, queue) = Spans::new(sample);
        let spans = Arc::new(spans);
        let mut world = snapshot(endpoints(replicas));
        world.spans = Some(Arc::clone(&spans));
        let (stop, stopped) = StopSource::new();
        let endpoint = OtlpEndpoint::of_collector(&format!("http://{collector}")).unwrap();
        let sender = SpanSender { stack: "shop".into(), instance: "1".into() };
        let mut exporting = JoinSet::new();
        exporting.spawn(export_spans(queue, endpoint, sender, Net::real(), Clock::system(), stopped));
        Self { rig: Rig::start(world), spans, exporting, stop }
    }
}

fn attribute<'a>(span: &'a Value, key: &str) -> Option<&'a str> {
    let all = span["attributes"].as_array().unwrap();
    let value = &all.iter().find(|one| one["key"] == key)?["value"];
    value["stringValue"].as_str().or_else(|| value["intValue"].as_str())
}

fn of_kind(spans: &[Value], kind: u64) -> Vec<&Value> {
    spans.iter().filter(|span| span["kind"] == kind).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sampled_request_is_a_span_with_one_below_it_for_each_attempt() {
    let (a, b, collector) = (Replica::start().await, Replica::start().await, Collector::start().await);
    let traced = Traced::start(&[&a, &b], 0.0, collector.address);
    a.set(Mood::Status(StatusCode::SERVICE_UNAVAILABLE, Vec::new()));
    let mut client = traced.rig.client().await;
    let mut repeated = None;
    for _ in 0..20 {
        let request = with(with(post("/pay", "12345"), "idempotency-key", "k"), "traceparent", PARENT);
        let answer = client.send(with(request, "tracestate", "vendor=1")).await;
        assert_eq!(answer.status, 200);
        let id = answer.header("standfast-request-id").unwrap().to_owned();
        if traced.rig.endpoint_stats(&a).answered.server_error > 0 {
            repeated = Some(id);
            break;
        }
    }
    let id = repeated.expect("one went to the one that is unavailable first");
    eventually("its span has come", || {
        collector.spans().iter().any(|span| attribute(span, "standfast.request_id") == Some(&id))
    })
    .await;
    let spans = collector.spans();
    let server = spans.iter().find(|span| attribute(span, "standfast.request_id") == Some(&id)).unwrap();
    assert_eq!(
        (server["traceId"].as_str(), server["parentSpanId"].as_str(), server["kind"].as_u64()),
        (Some("4bf92f3577b34da6a3ce929d0e0e4736"), Some("00f067aa0ba902b7"), Some(2))
    );
    assert_eq!((server["name"].as_str(), server["traceState"].as_str()), (Some("POST */"), Some("vendor=1")));
    for (key, value) in [
        ("http.request.method", "POST"),
        ("url.path", "/pay"),
        ("http.response.status_code", "200"),
        ("http.request.body.size", "5"),
        ("standfast.service", "up"),
        ("network.protocol.version", "1.1"),
    ] {
        assert_eq!(attribute(server, key), Some(value), "{key}");
    }
    let below: Vec<&Value> =
        of_kind(&spans, 3).into_iter().filter(|span| span["parentSpanId"] == server["spanId"]).collect();
    let statuses: Vec<_> = below.iter().map(|span| attribute(span, "http.response.status_code")).collect();
    assert_eq!(statuses, [Some("503"), Some("200")]);
    assert_eq!(below.iter().filter(|span| span["status"]["code"] == 2).count(), 1);
    // Each replica works under the span of its own attempt.
    for (replica, span) in [(&a, below[0]), (&b, below[1])] {
        let id = span["spanId"].as_str().unwrap();
        let expected = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{id}-01");
        assert!(
            replica.seen().iter().any(|seen| seen.headers["traceparent"] == expected.as_str()),
            "{expected}"
        );
    }
    let ids: BTreeSet<&str> = spans.iter().map(|span| span["spanId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), spans.len());
    for span in &spans {
        let nanos = |key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
        assert!(
            nanos("startTimeUnixNano") <= nanos("endTimeUnixNano") && nanos("startTimeUnixNano") > 1 << 60
        );
    }
    let resource = collector.told.lock().unwrap()[0]["resourceSpans"][0]["resource"].clone();
    assert_eq!(attribute(&resource, "service.name"), Some("standfast-gateway"));
    assert_eq!(attribute(&resource, "service.namespace"), Some("shop"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_began_a_trace_decides_whether_it_is_sampled() {
    let (a, collector) = (Replica::start().await, Collector::start().await);
    let none = Traced::start(&[&a], 0.0, collector.address);
    let mut client = none.rig.client().await;
    client.get("/root").await;
    client.send(with(get("/not"), "traceparent", &format!("{}00", &PARENT[..53]))).await;
    client.send(with(get("/sampled"), "traceparent", PARENT)).await;
    let spans = collector.wait_for(2).await;
    let paths: Vec<_> = of_kind(&spans, 2).iter().filter_map(|span| attribute(span, "url.path")).collect();
    assert_eq!((paths, spans.len()), (vec!["/sampled"], 2));
    let flags = |target: &str| {
        let seen = a.seen().into_iter().find(|seen| seen.target == target).unwrap();
        seen.headers["traceparent"].to_str().unwrap()[53..].to_owned()
    };
    // 02: its id is random, as level 2 of the specification says; only those that begin here are known to be.
    assert_eq!((flags("/root"), flags("/not"), flags("/sampled")), ("02".into(), "00".into(), "01".into()));

    let all = Traced::start(&[&a], 1.0, collector.address);
    all.rig.client().await.get("/all").await;
    let spans = collector.wait_for(4).await;
    let root =
        of_kind(&spans, 2).into_iter().find(|span| attribute(span, "url.path") == Some("/all")).unwrap();
    assert_eq!((root.get("parentSpanId"), flags("/all").as_str()), (None, "03"));
    let page = Exposition::OpenMetrics.write(&all.rig.gateway.stats());
    let exemplars = &Scrape::of(&page).exemplars["standfast_gateway_request_duration_seconds"];
    assert_eq!(exemplars.as_slice(), [root["traceId"].as_str().unwrap()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_comes_back_gets_what_it_missed() {
    let (a, collector) = (Replica::start().await, Collector::start().await);
    collector.answer.send_replace(Some(StatusCode::SERVICE_UNAVAILABLE));
    let traced = Traced::start(&[&a], 1.0, collector.address);
    traced.rig.client().await.get("/").await;
    eventually("it was asked in vain", || *collector.asked.lock().unwrap() > 0).await;
    assert_eq!(collector.spans().len(), 0);
    collector.answer.send_replace(Some(StatusCode::OK));
    assert_eq!(collector.wait_for(2).await.len(), 2);
    let sent = SpanCounts { sent: 2, ..SpanCounts::default() };
    eventually("they are counted", || traced.spans.counts() == sent).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_collector_will_never_take_is_given_up() {
    let (a, collector) = (Replica::start().await, Collector::start().await);
    collector.answer.send_replace(Some(StatusCode::BAD_REQUEST));
    let traced = Traced::start(&[&a], 1.0, collector.address);
    traced.rig.client().await.get("/").await;
    eventually("it is counted", || traced.rig.gateway.stats().spans.unwrap().failed == 2).await;
    assert_eq!(*collector.asked.lock().unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_never_answers_holds_up_nothing_and_fills_no_memory() {
    /// More than wait to be sent, and are being sent.
    const REQUESTS: usize = 2_048 + 256 + 200;
    let (a, collector) = (Replica::start().await, Collector::start().await);
    collector.answer.send_replace(None);
    let traced = Traced::start(&[&a], 1.0, collector.address);
    let load = Load::start(traced.rig.public, 4, |_| get("/"));
    let clock = Clock::system();
    let all = clock.timeout(Duration::from_secs(60), async {
        while load.count.load(std::sync::atomic::Ordering::SeqCst) < REQUESTS {
            clock.sleep(Duration::from_millis(5)).await;
        }
    });
    all.await.expect("requests go on");
    let sent = load.finish().await;
    assert!(sent.iter().all(Sent::is_ok));
    // What is neither dropped nor given up is kept: at most the queue and one batch, each with two spans.
    let kept = || {
        let SpanCounts { dropped, failed, .. } = traced.spans.counts();
        2 * sent.len() as u64 - dropped - failed
    };
    // The last of them are told a moment after their answers.
    eventually("no more is kept than may be", || kept() <= 2 * (2_048 + 256)).await;
    let counts = traced.spans.counts();
    assert!(counts.sent == 0 && counts.dropped > 0, "{counts:?}");
    // A stop does not wait for it either.
    let began = clock.now();
    traced.stop.stop();
    let mut exporting = traced.exporting;
    exporting.join_next().await.unwrap().unwrap();
    assert!(clock.now().since(began) < Duration::from_secs(4), "{:?}", clock.now().since(began));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_nobody_listens_requests_go_on_and_the_last_spans_are_counted_as_lost() {
    let a = Replica::start().await;
    // Held, so that no other test gets the port, and not listened at.
    let held = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    held.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let nobody = held.local_addr().unwrap().as_socket().unwrap();
    let traced = Traced::start(&[&a], 1.0, nobody);
    let mut client = traced.rig.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.status, 200);
    }
    // The last spans are told a moment after their answer.
    drop(client);
    eventually("the connection is over", || traced.rig.gateway.stats().connections == 0).await;
    traced.stop.stop();
    let mut exporting = traced.exporting;
    exporting.join_next().await.unwrap().unwrap();
    let counts = traced.spans.counts();
    assert_eq!((counts.sent, counts.dropped + counts.failed), (0, 20), "{counts:?}");
}
