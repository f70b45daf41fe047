//! Faults that are injected towards clients, and by tokens.

use std::sync::Arc;
use std::time::Duration;

use standfast_gateway::{AccessLog, Fault, FaultKey, FaultState, FaultStatus, Filter, ListenerKind, Record};
use standfast_model::{AccessFormat, AccessLog as AccessSettings};
use standfast_runtime::{Clock, Net};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::h2::speaks_h2;
use crate::h2_rig::{self, H2, H2Replica};
use crate::replica::Replica;
use crate::rig::{Answer, Rig, endpoints, eventually, get, one_worker, post, raw, snapshot, up, with};

pub(crate) fn fault(text: &str) -> Fault {
    text.parse().unwrap()
}

/// Puts a fault named `x` in force.
pub(crate) fn put(rig: &Rig, text: &str) {
    rig.gateway.faults().put(Some("x"), fault(text)).unwrap();
}

/// How the fault named `x` is.
pub(crate) fn status(rig: &Rig) -> FaultStatus {
    rig.gateway.faults().list().into_iter().find(|one| one.id == "x").unwrap()
}

/// What is remembered of a request: that is written once its answer has gone.
pub(crate) async fn record(rig: &Rig, answer: &Answer) -> Record {
    let id = answer.header("standfast-request-id").unwrap();
    eventually("it is remembered", || rig.gateway.why(id).is_some()).await;
    rig.gateway.why(id).unwrap()
}

/// What is remembered of the newest request, the `count`th.
async fn newest(rig: &Rig, count: usize) -> Record {
    eventually("it is remembered", || rig.gateway.recent(count, &Filter::default()).len() == count).await;
    rig.gateway.recent(1, &Filter::default()).remove(0)
}

/// The record names the fault, and nothing else does.
#[track_caller]
pub(crate) fn is_told(record: &Record) {
    let names: Vec<&str> = record.injected.iter().map(|one| one.id.as_str()).collect();
    assert_eq!((record.marks.injected, names), (true, vec!["x"]), "{record:?}");
    assert!(record.sentence().contains("Injected on purpose: fault `x`"), "{}", record.sentence());
}

/// Sends a request and reads to the end or error of the connection.
async fn read_until_end(rig: &Rig, request: &str) -> (Vec<u8>, std::io::Result<usize>) {
    let mut stream = Net::real().connect_tcp(rig.public).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    let end = h2_rig::soon("the end", stream.read_to_end(&mut read)).await;
    (read, end)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_is_seen_counted_told_and_over_when_it_is_removed() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let (mut client, clock) = (rig.client().await, Clock::system());
    put(&rig, "delay=150ms;service=up;header=x-slow;for=1m");
    let began = clock.now();
    let slow = client.send(with(get("/"), "x-slow", "1")).await;
    assert!(clock.now().since(began) >= Duration::from_millis(150));
    assert_eq!((slow.status, a.seen_count()), (200, 1));
    is_told(&record(&rig, &slow).await);
    client.get("/").await;
    let counted = status(&rig);
    assert_eq!((counted.seen, counted.applied, counted.acting, counted.state), (1, 1, 0, FaultState::Active));
    rig.gateway.faults().remove("x").unwrap();
    let quick = client.send(with(get("/"), "x-slow", "1")).await;
    assert!(rig.gateway.why(quick.header("standfast-request-id").unwrap()).is_none_or(|r| !r.marks.injected));
    assert_eq!((status(&rig).seen, status(&rig).state), (1, FaultState::Removed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_is_marked_as_such_and_says_whether_the_service_has_done_its_work() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let mut client = rig.client().await;
    for (text, seen) in [("abort=503;for=1m", 0), ("abort=429;at=answer;for=1m", 1)] {
        put(&rig, text);
        let answer = client.send(post("/pay", "1")).await;
        let status = text[6..9].parse::<u16>().unwrap();
        assert_eq!((answer.status, answer.header("standfast-reason")), (status, Some("injected-fault")));
        assert_eq!(a.seen_count(), seen);
        assert!(answer.text().contains("on purpose"), "{}", answer.text());
        let told = record(&rig, &answer).await;
        is_told(&told);
        assert_eq!(told.reason.as_deref(), Some("injected-fault"));
        client = rig.client().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_of_requests_is_hit_and_the_rest_is_not() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let mut client = rig.client().await;
    put(&rig, "abort=500;share=0.3;route=*/;for=1m");
    let mut aborted = 0;
    for _ in 0..300 {
        aborted += u64::from(client.get("/").await.status == 500);
    }
    let counted = status(&rig);
    assert_eq!((counted.seen, counted.applied), (300, aborted));
    assert!((50..=130).contains(&aborted), "{aborted} of 300");
    assert_eq!(a.seen_count() as u64, 300 - aborted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_ends_in_the_gateway_although_nobody_removes_it() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let mut client = rig.client().await;
    put(&rig, "blackhole;for=300ms");
    let clock = Clock::system();
    let began = clock.now();
    // It is let go at the end, and then served.
    assert_eq!(client.get("/").await.status, 200);
    assert!(clock.now().since(began) >= Duration::from_millis(290));
    let ended = status(&rig);
    assert_eq!((ended.state, ended.left_ms, ended.applied, ended.acting), (FaultState::Expired, 0, 1, 0));
    client.get("/").await;
    assert_eq!(status(&rig).seen, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_holds_until_the_deadline_or_until_it_is_removed() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    put(&rig, "blackhole;for=1m");
    let late = rig.client().await.send(with(get("/"), "standfast-deadline", "100")).await;
    assert_eq!((late.status, late.header("standfast-reason")), (504, Some("injected-fault")));
    assert_eq!(a.seen_count(), 0);
    let mut client = rig.client().await;
    let removing = async {
        eventually("it is held", || status(&rig).acting == 1).await;
        rig.gateway.faults().remove("x").unwrap();
    };
    let (answer, ()) = tokio::join!(client.get("/"), removing);
    assert_eq!(answer.status, 200);
    is_told(&record(&rig, &answer).await);
    // Who does not wait is not held.
    put(&rig, "blackhole;for=1m");
    let mut leaving = rig.client().await;
    tokio::select! {
        answer = leaving.get("/") => panic!("{answer:?}"),
        () = eventually("it is held", || status(&rig).acting == 1) => drop(leaving),
    }
    eventually("it is let go", || status(&rig).acting == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_resets_the_connection_before_or_after_the_service_has_worked() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    for (text, seen, count) in [("reset;for=1m", 0, 1), ("reset;at=answer;for=1m", 1, 2)] {
        put(&rig, text);
        let (read, end) = read_until_end(&rig, "GET / HTTP/1.1\r\nhost: shop.test\r\n\r\n").await;
        assert!(read.is_empty());
        assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset, "{text}");
        assert_eq!(a.seen_count(), seen);
        let told = newest(&rig, count).await;
        assert_eq!((told.status, told.reason.as_deref()), (None, Some("injected-fault")));
        is_told(&told);
        assert!(told.sentence().contains("reset"), "{}", told.sentence());
    }
    // Over HTTP/2 the stream, and nothing else of the connection.
    put(&rig, "reset;header=x-bad;for=1m");
    let client = H2::connect(rig.public).await;
    let broken = client.try_send(h2_rig::with(h2_rig::get("/"), "x-bad", "1"), "", None).await;
    assert_eq!(broken.unwrap_err().reason(), Some(::h2::Reason::INTERNAL_ERROR));
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_body_comes_whole_but_slowly() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let clock = Clock::system();
    let body = "0123456789".repeat(1_000);
    put(&rig, "throttle=25000;for=1m");
    for is_h2 in [false, true] {
        let began = clock.now();
        let read = if is_h2 {
            H2::connect(rig.public).await.send(h2_rig::post("/"), body.clone()).await.body
        } else {
            rig.client().await.send(post("/", body.clone())).await.body.to_vec()
        };
        let took = clock.now().since(began);
        assert!(took >= Duration::from_millis(340), "{took:?}");
        assert_eq!(read, body.as_bytes());
    }
    assert_eq!(status(&rig).applied, 2);
    // Once it is over the rest comes at once.
    put(&rig, "throttle=1000;for=1m");
    let mut client = rig.client().await;
    let removing = async {
        eventually("it is slow", || status(&rig).acting == 1).await;
        rig.gateway.faults().remove("x").unwrap();
    };
    let began = clock.now();
    let (answer, ()) = tokio::join!(client.send(post("/", body.clone())), removing);
    assert_eq!(answer.body, body);
    assert!(clock.now().since(began) < Duration::from_secs(8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncated_body_breaks_off_where_it_is_told_to() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let request = |body: &str| {
        format!("POST / HTTP/1.1\r\nhost: shop.test\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    for (after, count) in [(0, 1), (4, 2)] {
        put(&rig, &format!("truncate={after};for=1m"));
        let (read, _ended) = read_until_end(&rig, &request("0123456789")).await;
        let read = String::from_utf8(read).unwrap();
        let (head, body) = read.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("content-length: 10"), "{head}");
        assert_eq!(body, &"0123456789"[..after]);
        let told = newest(&rig, count).await;
        is_told(&told);
        assert!(told.marks.failed);
    }
    let broken = H2::connect(rig.public).await.try_send(h2_rig::post("/"), "0123456789", None).await;
    assert_eq!(broken.unwrap_err().reason(), Some(::h2::Reason::INTERNAL_ERROR));
    // A body that is shorter is not hit, and that is not counted.
    let applied = status(&rig).applied;
    assert_eq!(rig.client().await.send(post("/", "0123")).await.text(), "0123");
    assert_eq!((status(&rig).applied, status(&rig).seen), (applied, applied + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupted_body_has_its_length_and_a_share_of_other_bytes() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let body = vec![b'x'; 100_000];
    for (share, most) in [(0.1, 11_000), (1.0, 100_000)] {
        put(&rig, &format!("corrupt={share};for=1m"));
        let answer = rig.client().await.send(post("/", body.clone())).await;
        assert_eq!((answer.status, answer.body.len()), (200, body.len()));
        let changed = answer.body.iter().filter(|byte| **byte != b'x').count();
        assert!(changed <= most && changed * 10 >= most * 8, "{changed}");
        is_told(&record(&rig, &answer).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_head_dribbles_out() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let clock = Clock::system();
    put(&rig, "slow-head=2ms;for=1m");
    let mut stream = Net::real().connect_tcp(rig.public).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n").await.unwrap();
    let began = clock.now();
    let (mut read, mut part, mut parts) = (Vec::new(), [0; 1_024], 0);
    while let count @ 1.. = stream.read(&mut part).await.unwrap() {
        read.extend_from_slice(&part[..count]);
        parts += 1;
    }
    let took = clock.now().since(began);
    assert!(String::from_utf8_lossy(&read).starts_with("HTTP/1.1 200 OK\r\n"));
    assert!(parts > 20 && took >= Duration::from_millis(200), "{parts} parts in {took:?}");
    let began = clock.now();
    assert_eq!(H2::connect(rig.public).await.get("/").await.status, 200);
    assert!(clock.now().since(began) >= Duration::from_millis(200));
    assert_eq!(status(&rig).applied, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_grpc_is_given_a_status_of_grpc() {
    let replica = H2Replica::start().await;
    let rig = Rig::start(speaks_h2(&[replica.address]));
    let client = H2::connect(rig.public).await;
    let call = || h2_rig::with(h2_rig::post("/call"), "content-type", "application/grpc");
    for (text, grpc) in [("abort=grpc:9;for=1m", "9"), ("abort=503;for=1m", "14")] {
        put(&rig, text);
        let got = client.send(call(), "hi").await;
        assert_eq!((got.status, got.header("grpc-status")), (200, Some(grpc)));
        assert_eq!(got.header("standfast-reason"), Some("injected-fault"));
    }
    put(&rig, "abort=grpc:9;for=1m");
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(status(&rig).seen, 0);
}

fn key() -> Arc<FaultKey> {
    Arc::new(FaultKey::new(b"a key of thirty-two bytes or so..").unwrap())
}

fn token(text: &str) -> String {
    key().token(&fault(text), Clock::system().now())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_hits_the_request_that_carries_it() {
    let a = Replica::start().await;
    let mut world = snapshot(endpoints(&[&a]));
    world.fault_key = Some(key());
    let rig = Rig::start(world);
    let mut client = rig.client().await;
    let aborted = client.send(with(get("/"), "standfast-fault", &token("abort=418;for=1m"))).await;
    assert_eq!((aborted.status, aborted.header("standfast-reason")), (418, Some("injected-fault")));
    let told = record(&rig, &aborted).await;
    assert_eq!((told.marks.injected, told.injected[0].id.as_str()), (true, "token"));
    assert_eq!(client.get("/").await.status, 200);
    // One that has acted here goes no further; one for another hop does.
    client.send(with(get("/"), "standfast-fault", &token("delay=1ms;for=1m"))).await;
    let elsewhere = token("abort=500;service=other;for=1m");
    assert_eq!(client.send(with(get("/"), "standfast-fault", &elsewhere)).await.status, 200);
    let seen: Vec<Option<_>> =
        a.seen().into_iter().map(|seen| seen.headers.get("standfast-fault").cloned()).collect();
    assert_eq!(seen, [None, None, Some(elsewhere.parse().unwrap())]);
    assert!(rig.gateway.faults().list().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_not_good_is_refused_from_outside_and_taken_out_within() {
    let a = Replica::start().await;
    let mut world = snapshot(endpoints(&[&a]));
    world.fault_key = Some(key());
    let rig = Rig::start(world.clone());
    let long_ago = key().token(&fault("reset;for=1m"), standfast_model::Stamp::from_micros(0));
    let forged = token("reset;for=1m").replace("reset", "delay=1s");
    let bad = [("forged", forged.as_str()), ("expired", &long_ago), ("malformed", "x")];
    for (what, token) in bad {
        let answer = rig.client().await.send(with(get("/"), "standfast-fault", token)).await;
        let told = (answer.status, answer.header("standfast-reason"));
        assert_eq!(told, (400, Some("bad-fault-token")), "{what}");
    }
    assert_eq!((rig.gateway.stats().bad_fault_tokens, a.seen_count()), (3, 0));
    let token = token("delay=1ms;for=1m");
    let twice = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nstandfast-fault: {token}\r\nstandfast-fault: {token}\r\n\r\n"
    );
    assert!(raw(rig.public, twice.as_bytes()).await.starts_with("HTTP/1.1 400 "));
    // Within the stack it may have expired on the way.
    let kind = ListenerKind::Service { service: up(), caller_zone: None };
    let inner = Rig::start_as(kind, one_worker(), world);
    for (_, token) in bad {
        assert_eq!(inner.client().await.send(with(get("/"), "standfast-fault", token)).await.status, 200);
    }
    assert!(a.seen().iter().all(|seen| !seen.headers.contains_key("standfast-fault")));
    let good = self::token("abort=418;service=up;for=1m");
    assert_eq!(inner.client().await.send(with(get("/"), "standfast-fault", &good)).await.status, 418);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_key_nobody_is_obeyed_and_nothing_gets_in() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let answer = rig.client().await.send(with(get("/"), "standfast-fault", &token("abort=500;for=1m"))).await;
    assert_eq!(answer.status, 200);
    assert!(!a.seen()[0].headers.contains_key("standfast-fault"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_log_names_the_fault() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let settings = AccessSettings { path: path.clone(), format: AccessFormat::Json, sample: 1_000_000 };
    let a = Replica::start().await;
    let mut world = snapshot(endpoints(&[&a]));
    world.access_log = Some(Arc::new(AccessLog::start(settings, Clock::system()).unwrap()));
    let rig = Rig::start(world);
    put(&rig, "delay=1ms;for=1m");
    rig.client().await.get("/").await;
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    eventually("it is written", || lines().lines().count() == 1).await;
    let told: serde_json::Value = serde_json::from_str(&lines()).unwrap();
    assert_eq!((&told["injected"], &told["faults"]), (&true.into(), &"x".into()));
}
