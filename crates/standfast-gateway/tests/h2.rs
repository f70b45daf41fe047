//! HTTP/2 on either side.

use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use http::{Method, Request};
use standfast_gateway::{Config, Limits, Snapshot};
use standfast_model::Protocol;
use standfast_runtime::Net;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::h2_rig::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, Got, H2, H2Replica, HEADERS, PING, PREFACE,
    RST_STREAM, Raw, SETTINGS, block, frame, get, get_block, listener, map, part, post, read_all, request,
    send_data, soon, with,
};
use crate::replica::{Mood, Replica};
use crate::rig::{self, Rig, endpoint, endpoints, eventually, one_worker, raw, snapshot, up};
use crate::tls::TlsRig;

/// A snapshot in which [`up`] speaks HTTP/2 at these addresses.
pub(crate) fn speaks_h2(addresses: &[std::net::SocketAddr]) -> Snapshot {
    let all = addresses.iter().zip(0..).map(|(address, slot)| endpoint(slot, *address)).collect();
    let mut snapshot = snapshot(all);
    snapshot.services.get_mut(&up()).unwrap().policy.protocol = Protocol::Http2;
    snapshot
}

fn limited(limits: Limits, snapshot: Snapshot) -> Rig {
    Rig::start_with(Config { limits, ..one_worker() }, snapshot)
}

/// Bytes that show when some are lost or doubled.
fn pattern(bytes: usize) -> Bytes {
    (0..bytes).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

async fn bodies_pass(client: &H2) {
    assert_eq!(client.get("/").await.status, 200);
    for bytes in [0, 1, (64 << 10) + 1, 3 << 20] {
        let body = pattern(bytes);
        for request in [post("/"), request("PUT", "/"), with(post("/"), "content-length", &bytes.to_string())]
        {
            let got = client.send(request, body.clone()).await;
            assert_eq!(got.status, 200);
            assert!(got.body == body, "{bytes}: {} came back", got.body.len());
        }
    }
    let head = client.send(request("HEAD", "/"), Bytes::new()).await;
    assert_eq!((head.status, head.body.len()), (200, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_all_sizes_pass_both_ways() {
    let (old, new) = (Replica::start().await, H2Replica::start().await);
    let before_old = Rig::before(&[&old]);
    bodies_pass(&H2::connect(before_old.public).await).await;
    let before_new = Rig::start(speaks_h2(&[new.address]));
    bodies_pass(&H2::connect(before_new.public).await).await;
    // A client that speaks HTTP/1.1 before a replica that does not.
    for bytes in [0, 1, (64 << 10) + 1, 3 << 20] {
        // An answer that begins before its request ends also ends the connection.
        let answer = before_new.client().await.send(rig::post("/", pattern(bytes))).await;
        assert!(answer.status == 200 && answer.body == pattern(bytes), "{bytes}");
    }
    assert_eq!(new.seen().last().unwrap().headers["content-length"], (3 << 20).to_string());
    assert_eq!((new.connections(), before_new.stats().retries), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_pass_through_tls_as_well() {
    let (old, new) = (Replica::start().await, H2Replica::start().await);
    for snapshot in [snapshot(endpoints(&[&old])), speaks_h2(&[new.address])] {
        let rig = TlsRig::start(snapshot);
        let stream = rig.connect("shop.test", &[b"h2"]).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        bodies_pass(&H2::over(stream).await).await;
    }
    assert_eq!(new.seen()[0].headers["x-forwarded-proto"], "https");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_streams_run_on_one_connection() {
    let replica = H2Replica::start().await;
    let mut world = speaks_h2(&[replica.address]);
    // How many a service carries would have to be found out first.
    world.services.get_mut(&up()).unwrap().policy.concurrency = standfast_model::Concurrency::Unlimited;
    let rig = Rig::start(world);
    let client = H2::connect(rig.public).await;
    assert_eq!(client.get("/").await.status, 200);
    let mut all = JoinSet::new();
    for number in 0..200 {
        let client = client.send.clone();
        all.spawn(async move {
            let (answer, _) =
                client.ready().await.unwrap().send_request(get(&format!("/gated?{number}")), true).unwrap();
            answer.await.unwrap().status().as_u16()
        });
    }
    eventually("all run at a time", || replica.running() == 200).await;
    assert_eq!((rig.gateway.stats().connections, rig.endpoint_stats_at(replica.address).in_flight), (1, 200));
    assert!((2..=4).contains(&replica.connections()), "{}", replica.connections());
    replica.open_gate();
    while let Some(status) = soon("answers", all.join_next()).await {
        assert_eq!(status.unwrap(), 200);
    }
    assert_eq!(replica.seen().len(), 201, "nothing was sent twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_few_streams_is_given_more_connections() {
    let replica = H2Replica::start_with(h2::server::Builder::new().max_concurrent_streams(5)).await;
    let rig = Rig::start(speaks_h2(&[replica.address]));
    let client = H2::connect(rig.public).await;
    assert_eq!(client.get("/").await.status, 200);
    let mut waiting = Vec::new();
    for _ in 0..5 {
        waiting.push(client.begin(get("/gated"), true).await.unwrap());
    }
    eventually("the connection is full", || replica.running() == 5).await;
    assert_eq!(client.get("/").await.status, 200);
    replica.open_gate();
    for (answer, _) in waiting {
        assert_eq!(soon("an answer", answer).await.unwrap().status(), 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_pass_both_ways() {
    let (old, new) = (Replica::start().await, H2Replica::start().await);
    let sum = || Some(map(&[("x-sum", "9"), ("content-length", "7"), ("host", "evil.test")]));
    let before_old = Rig::before(&[&old]);
    let client = H2::connect(before_old.public).await;
    for path in ["/trailers", "/trailers?again"] {
        let got = client.try_send(with(post(path), "te", "trailers"), "abc", sum()).await.unwrap();
        assert_eq!((got.body.as_slice(), got.trailer("x-sum")), (&b"abc"[..], Some("9")));
        let seen = old.seen().last().unwrap().trailers.clone().unwrap();
        assert_eq!((seen["x-sum"].to_str().unwrap(), seen.len()), ("9", 1));
        assert_eq!(old.seen().last().unwrap().headers["te"], "trailers");
    }
    let before_new = Rig::start(speaks_h2(&[new.address]));
    let client = H2::connect(before_new.public).await;
    let got = client.try_send(post("/"), "abc", sum()).await.unwrap();
    assert_eq!((got.body.as_slice(), got.trailer("x-sum")), (&b"abc"[..], Some("9")));
    assert_eq!((got.trailers.unwrap().len(), new.seen()[0].trailers.clone().unwrap().len()), (1, 1));
    let only = client.try_send(post("/"), Bytes::new(), sum()).await.unwrap();
    assert_eq!((only.body.len(), only.trailer("x-sum")), (0, Some("9")));
    let chunked = "POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n\
                   3\r\nabc\r\n0\r\nx-sum: 8\r\n\r\n";
    let answer = raw(before_new.public, chunked.as_bytes()).await;
    assert!(answer.ends_with("3\r\nabc\r\n0\r\nx-sum: 8\r\n\r\n"), "{answer}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_directions_stream_at_the_same_time() {
    let replica = H2Replica::start().await;
    let rig = Rig::start(speaks_h2(&[replica.address]));
    let client = H2::connect(rig.public).await;
    let (answer, mut stream) = client.begin(post("/"), false).await.unwrap();
    let mut body = soon("the head before the request's end", answer).await.unwrap().into_body();
    for round in 0..30 {
        let message = format!("message {round}");
        stream.send_data(message.clone().into(), false).unwrap();
        let echo = soon("the echo", part(&mut body)).await.unwrap().unwrap();
        assert_eq!(echo, message);
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(soon("the end", read_all(body)).await.unwrap().0.len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_goes_on_while_nobody_takes_its_answer() {
    let replica = H2Replica::start().await;
    let rig = Rig::start(speaks_h2(&[replica.address]));
    let client = H2::connect(rig.public).await;
    let (answer, mut stream) = client.begin(post("/early"), false).await.unwrap();
    let answer = soon("the head", answer).await.unwrap().into_body();
    soon("all is taken", send_data(&mut stream, pattern(2 << 20), true)).await.unwrap();
    let (body, _) = soon("the answer", read_all(answer)).await.unwrap();
    assert!(body[1 << 20..] == *b"2097152");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_holds_the_replica_back_and_a_slow_replica_the_client() {
    let replica = H2Replica::start().await;
    let rig = Rig::start(speaks_h2(&[replica.address]));
    let client = H2::connect(rig.public).await;
    let (answer, _) = client.begin(get("/flood"), true).await.unwrap();
    let answer = soon("the head", answer).await.unwrap().into_body();
    let (_frozen, mut stream) = client.begin(post("/frozen"), false).await.unwrap();
    let mut taken = 0;
    // Each of these lets what can move move.
    for _ in 0..200 {
        stream.reserve_capacity(1 << 20);
        let room = stream.capacity();
        if room > 0 {
            stream.send_data(vec![0; room].into(), false).unwrap();
            taken += room;
        }
        assert_eq!(client.get("/").await.status, 200);
    }
    assert!((64 << 10..2 << 20).contains(&replica.moved()), "{}", replica.moved());
    assert!((64 << 10..2 << 20).contains(&taken), "{taken}");
    let (body, _) = soon("the flood", read_all(answer)).await.unwrap();
    assert_eq!(body.len(), 16 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_do_not_hold_up_others_on_a_replicas_connection() {
    let replica = H2Replica::start().await;
    let rig = Rig::start(speaks_h2(&[replica.address]));
    // One that leaves much unread and allows for it, and one that does not.
    let mut builder = h2::client::Builder::new();
    builder.data_frame_budget(16 << 20).initial_connection_window_size(8 << 20);
    let slow = H2::with(&builder, Net::real().connect_tcp(rig.public).await.unwrap()).await;
    let quick = H2::connect(rig.public).await;
    let mut unread = Vec::new();
    for path in ["/flood"; 20].into_iter().chain(["/drops"]) {
        let (answer, _) = slow.begin(get(path), true).await.unwrap();
        unread.push(soon("the head", answer).await.unwrap().into_body());
    }
    for _ in 0..50 {
        let got = quick.send(post("/"), pattern(100 << 10)).await;
        assert!(got.body == pattern(100 << 10));
    }
    let drops = unread.pop().unwrap();
    assert_eq!(soon("all drops", read_all(drops)).await.unwrap().0.len(), 200_000);
    assert_eq!((replica.connections(), replica.running()), (1, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_small_messages_may_wait_for_a_slow_replica() {
    // It has a budget of its own for small frames, which is not the matter here.
    let replica = H2Replica::start_with(h2::server::Builder::new().data_frame_budget(16 << 20)).await;
    let rig = Rig::start(speaks_h2(&[replica.address]));
    let client = H2::connect(rig.public).await;
    let (_frozen, mut stream) = client.begin(post("/frozen"), false).await.unwrap();
    // More than the replica's window of 64 KiB takes.
    for _ in 0..10_000 {
        soon("room", send_data(&mut stream, Bytes::from_static(b"0123456789"), false)).await.unwrap();
    }
    for _ in 0..50 {
        assert_eq!(client.get("/").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_the_client_resets_is_cancelled_at_the_replica() {
    let (old, new) = (Replica::start().await, H2Replica::start().await);
    let before_old = Rig::before(&[&old]);
    let before_new = Rig::start(speaks_h2(&[new.address]));
    for rig in [&before_old, &before_new] {
        let client = H2::connect(rig.public).await;
        let running = || old.running() + new.running() as u64;
        let (_answer, mut stream) = client.begin(post("/gated"), false).await.unwrap();
        stream.send_data(Bytes::new(), true).unwrap();
        eventually("it runs", || running() == 1).await;
        stream.send_reset(Reason::CANCEL);
        eventually("the replica is told", || running() == 0).await;
        eventually("it is counted", || rig.stats().abandoned == 1).await;
        assert_eq!((client.get("/").await.status, rig.stats().in_flight), (200, 0));
    }
    // In the middle of an answer.
    let client = H2::connect(before_new.public).await;
    let (answer, mut stream) = client.begin(get("/flood"), true).await.unwrap();
    let _body = soon("the head", answer).await.unwrap();
    stream.send_reset(Reason::CANCEL);
    eventually("the replica is told", || new.running() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_leaving_replica_did_not_look_at_goes_over_another_connection_and_nothing_goes_twice() {
    let (listener, address) = listener().await;
    let rig = Rig::start(speaks_h2(&[address]));
    let client = H2::connect(rig.public).await;
    // One runs, one comes too late, one comes after the word.
    let (running, _) = client.begin(post("/running"), true).await.unwrap();
    let mut first = Raw::accept(&listener).await;
    assert_eq!(first.next(HEADERS).await.unwrap().stream, 1);
    let (late, _) = client.begin(post("/late"), true).await.unwrap();
    assert_eq!(first.next(HEADERS).await.unwrap().stream, 3);
    first.go_away(1).await;
    let mut second = Raw::accept(&listener).await;
    assert_eq!(second.next(HEADERS).await.unwrap().stream, 1);
    let (after, _) = client.begin(post("/after"), true).await.unwrap();
    assert_eq!(second.next(HEADERS).await.unwrap().stream, 3);
    first.answer(1).await;
    second.answer(1).await;
    second.answer(3).await;
    for answer in [running, late, after] {
        assert_eq!(soon("an answer", answer).await.unwrap().status(), 200);
    }
    let stats = rig.endpoint_stats_at(address);
    assert_eq!((stats.refused, stats.ejections, stats.broken, stats.attempts), (0, 0, 0, 3));
    // What it had looked at is not sent again when it leaves all the same.
    let (lost, _) = client.begin(post("/lost"), true).await.unwrap();
    assert_eq!(second.next(HEADERS).await.unwrap().stream, 5);
    second.go_away(5).await;
    drop(second);
    assert_eq!(soon("an answer", lost).await.unwrap().status(), 502);
    assert_eq!(rig.stats().retries, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_stream_is_repeated_unless_its_body_is_gone() {
    let (listener, address) = listener().await;
    let rig = Rig::start(speaks_h2(&[address]));
    let client = H2::connect(rig.public).await;
    let (answer, _) = client.begin(post("/"), true).await.unwrap();
    let mut replica = Raw::accept(&listener).await;
    assert_eq!(replica.next(HEADERS).await.unwrap().stream, 1);
    replica.reset(1, Reason::REFUSED_STREAM).await;
    assert_eq!(replica.next(HEADERS).await.unwrap().stream, 3);
    replica.answer(3).await;
    assert_eq!(soon("an answer", answer).await.unwrap().status(), 200);
    // The half that was sent is nowhere any more: to send the other half would be a lie.
    let (answer, mut stream) = client.begin(post("/"), false).await.unwrap();
    stream.send_data("half".into(), false).unwrap();
    assert_eq!(replica.next(DATA).await.unwrap().payload, b"half");
    replica.reset(5, Reason::REFUSED_STREAM).await;
    assert_eq!(soon("an answer", answer).await.unwrap().status(), 502);
    assert_eq!(rig.stats().retries, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_is_seen_to() {
    let new = H2Replica::start().await;
    let before_new = Rig::start(speaks_h2(&[new.address]));
    let client = H2::connect(before_new.public).await;
    let (answer, _) = client.begin(get("/half"), true).await.unwrap();
    let mut body = soon("the head", answer).await.unwrap().into_body();
    assert_eq!(soon("half", part(&mut body)).await.unwrap().unwrap(), "half");
    // And a client that speaks HTTP/1.1.
    let mut plain = Net::real().connect_tcp(before_new.public).await.unwrap();
    plain.write_all(b"GET /half HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with("4\r\nhalf\r\n") {
        answer.push(soon("half", plain.read_u8()).await.unwrap().into());
    }
    new.open_gate();
    let error = soon("the reset", read_all(body)).await.unwrap_err();
    assert_eq!((error.is_reset(), error.reason()), (true, Some(Reason::INTERNAL_ERROR)));
    assert_eq!(
        soon("the end", plain.read_to_string(&mut answer)).await.unwrap(),
        0,
        "no last chunk: {answer}"
    );
    // A replica that speaks HTTP/1.1 and leaves in the middle.
    let (listener, address) = listener().await;
    let before_old = Rig::start(snapshot(vec![endpoint(0, address)]));
    let client = H2::connect(before_old.public).await;
    for begun in ["content-length: 10\r\n\r\nhalf", "transfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n"] {
        let (answer, _) = client.begin(get("/"), true).await.unwrap();
        let (mut replica, _) = soon("a connection", listener.accept()).await.unwrap();
        soon("the request", replica.read(&mut [0; 1_000])).await.unwrap();
        replica.write_all(format!("HTTP/1.1 200 OK\r\n{begun}").as_bytes()).await.unwrap();
        let mut body = soon("the head", answer).await.unwrap().into_body();
        assert_eq!(soon("half", part(&mut body)).await.unwrap().unwrap(), "half");
        drop(replica);
        assert!(soon("the reset", read_all(body)).await.unwrap_err().is_reset());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_resets_ends_the_connection_and_no_other() {
    let replica = H2Replica::start().await;
    let rig = Rig::start(speaks_h2(&[replica.address]));
    let other = H2::connect(rig.public).await;
    assert_eq!(other.get("/").await.status, 200);
    let flood = |from: u32, count: u32| -> Vec<u8> {
        let one = |number| {
            let stream = number * 2 + 1;
            let head = frame(HEADERS, END_HEADERS | END_STREAM, stream, &get_block(&[]));
            [head, frame(RST_STREAM, 0, stream, &u32::from(Reason::CANCEL).to_be_bytes())].concat()
        };
        (from..from + count).flat_map(one).collect()
    };
    // All at once…
    let mut raw = Raw::connect(rig.public).await;
    let _cut_off_or_not = raw.0.write_all(&flood(0, 5_000)).await;
    if let Some(reason) = raw.reason(GOAWAY).await {
        assert_eq!(reason, Reason::ENHANCE_YOUR_CALM);
    }
    // …and a few at a time, with a look at each.
    let mut raw = Raw::connect(rig.public).await;
    let mut sent = 0;
    loop {
        let ping = frame(PING, 0, 0, &[0; 8]);
        if raw.0.write_all(&[flood(sent, 10), ping].concat()).await.is_err() {
            break;
        }
        sent += 10;
        let mut came = raw.read().await;
        while came.as_ref().is_some_and(|frame| frame.kind != PING && frame.kind != GOAWAY) {
            came = raw.read().await;
        }
        if came.is_none_or(|frame| frame.kind == GOAWAY) {
            break;
        }
        assert!(sent < 5_000, "it goes on for ever");
    }
    assert!(sent > 300, "{sent}");
    assert_eq!(other.get("/").await.status, 200);
    eventually("nothing is left", || rig.gateway.stats().connections == 1 && rig.stats().in_flight == 0)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_without_end_and_heads_that_are_too_long_are_refused() {
    let replica = Replica::start().await;
    let limits = Limits { header_bytes_max: 16 << 10, header_count_max: 20, ..Limits::default() };
    let rig = limited(limits, snapshot(endpoints(&[&replica])));
    let client = H2::connect(rig.public).await;
    let long = client.send(with(get("/"), "x-long", &"x".repeat(17_000)), "").await;
    assert_eq!(long.status, 431);
    let mut many = get("/");
    for number in 0..30 {
        many = with(many, "x-many", &number.to_string());
    }
    let many = client.send(many, "").await;
    assert_eq!((many.status, many.header("standfast-reason")), (431, Some("head-too-large")));
    assert_eq!(client.get("/").await.status, 200);
    let mut raw = Raw::connect(rig.public).await;
    raw.write(&frame(HEADERS, END_STREAM, 1, &get_block(&[]))).await;
    let part = frame(CONTINUATION, 0, 1, &block(&[("x-flood", &"x".repeat(100))]));
    let mut count = 0;
    while count < 100_000 && raw.0.write_all(&part).await.is_ok() {
        count += 1;
    }
    assert!(count < 100_000, "it takes without end");
    assert_eq!((replica.seen_count(), client.get("/").await.status), (1, 200));
}

/// What comes back for a head of these bytes, on a connection of its own: a status, or the reason why there is none.
async fn ask(rig: &Rig, flags: u8, head: &[u8]) -> Result<u16, Reason> {
    let mut raw = Raw::connect(rig.public).await;
    raw.write(&frame(HEADERS, flags | END_HEADERS, 1, head)).await;
    outcome(&mut raw).await
}

async fn outcome(raw: &mut Raw) -> Result<u16, Reason> {
    loop {
        let frame = raw.read().await.expect("an answer, a reset or a word before the end");
        let code =
            |at: usize| Reason::from(u32::from_be_bytes(frame.payload[at..at + 4].try_into().unwrap()));
        match frame.kind {
            HEADERS => return Ok(status_of(&frame.payload)),
            RST_STREAM => return Err(code(0)),
            GOAWAY => return Err(code(4)),
            _ => {}
        }
    }
}

/// The status of an answer's head: `:status` of the static table, or a literal with that name.
pub(crate) fn status_of(payload: &[u8]) -> u16 {
    match payload[0] {
        0x88 => 200,
        0x8c => 400,
        0x8d => 404,
        _ => std::str::from_utf8(&huffman_free(payload)).unwrap().parse().unwrap(),
    }
}

/// The three digits of a status that is in no static table: with Huffman coding (5 or 6 bits for a digit) or without.
fn huffman_free(payload: &[u8]) -> Vec<u8> {
    const FIVE: &[u8] = b"012";
    const SIX: &[u8] = b"3456789";
    let length = usize::from(payload[1] & 0x7f);
    let value = &payload[2..2 + length];
    if payload[1] & 0x80 == 0 {
        return value.to_vec();
    }
    let bits: Vec<u8> = value.iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let number = |from: usize, count: usize| {
        bits[from..from + count].iter().fold(0, |sum, bit| sum * 2 + usize::from(*bit))
    };
    let (mut at, mut digits) = (0, Vec::new());
    while digits.len() < 3 {
        match number(at, 5) {
            short @ 0..3 => {
                digits.push(FIVE[short]);
                at += 5;
            }
            _ => {
                digits.push(SIX[number(at, 6) - 0x19]);
                at += 6;
            }
        }
    }
    digits
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_two_could_read_differently_are_refused() {
    let replica = Replica::start().await;
    let rig = Rig::before(&[&replica]);
    let only = |fields: &[(&str, &str)]| block(fields);
    let pseudo = [(":method", "GET"), (":scheme", "http"), (":path", "/")];
    let without_host = |more: &[(&str, &str)]| only(&[&pseudo[..], more].concat());
    for (what, head) in [
        ("no host", without_host(&[])),
        ("two hosts", without_host(&[("host", "a"), ("host", "b")])),
        ("two that differ", get_block(&[("host", "evil.test")])),
        ("a host that is none", without_host(&[("host", "a\"b")])),
        ("a host with a user", without_host(&[("host", "me@shop.test")])),
        ("an authority with a user", without_host(&[(":authority", "me@shop.test")])),
        ("no path", only(&[(":method", "GET"), (":scheme", "http"), (":path", "*"), (":authority", "a")])),
        ("two lengths", get_block(&[("content-length", "0"), ("content-length", "00")])),
        ("no time", get_block(&[("standfast-deadline", "soon")])),
    ] {
        assert_eq!(ask(&rig, END_STREAM, &head).await, Ok(400), "{what}");
    }
    for (what, head) in [
        ("upper case", get_block(&[("X-Name", "1")])),
        ("a space in a name", get_block(&[("x name", "1")])),
        ("a line break", get_block(&[("x-a", "1\r\nx-b: 2")])),
        ("a field for the connection", get_block(&[("connection", "keep-alive")])),
        ("a coding", get_block(&[("transfer-encoding", "chunked")])),
        ("an upgrade", get_block(&[("upgrade", "websocket")])),
        ("more than trailers", get_block(&[("te", "gzip")])),
        ("no method", only(&[(":scheme", "http"), (":path", "/"), (":authority", "a")])),
        ("no target", only(&[(":method", "GET"), (":scheme", "http"), (":authority", "a")])),
        ("a pseudo-field that is none", get_block(&[(":other", "1")])),
        ("a length and no body", get_block(&[("content-length", "5")])),
        ("a length that is none", get_block(&[("content-length", "+5")])),
    ] {
        assert_eq!(ask(&rig, END_STREAM, &head).await, Err(Reason::PROTOCOL_ERROR), "{what}");
    }
    assert_eq!(ask(&rig, END_STREAM, &get_block(&[("expect", "miracles")])).await, Ok(417));
    let connect = only(&[(":method", "CONNECT"), (":authority", "a:80")]);
    assert_eq!(ask(&rig, 0, &connect).await, Ok(501));
    assert_eq!(replica.seen_count(), 0);
    assert_eq!(ask(&rig, END_STREAM, &without_host(&[("host", "shop.test")])).await, Ok(200));
    assert_eq!(ask(&rig, END_STREAM, &get_block(&[("host", "SHOP.test")])).await, Ok(200));
    assert!(replica.seen().iter().all(|seen| seen.headers["host"] == "shop.test"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_must_be_as_long_as_it_says() {
    let (old, new) = (Replica::start().await, H2Replica::start().await);
    let before_old = Rig::before(&[&old]);
    let before_new = Rig::start(speaks_h2(&[new.address]));
    for rig in [&before_old, &before_new] {
        for data in ["four", "sixsix"] {
            let mut raw = Raw::connect(rig.public).await;
            let fields = [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", "/"),
                (":authority", "a"),
                ("content-length", "5"),
            ];
            let (head, data) = (
                frame(HEADERS, END_HEADERS, 1, &block(&fields)),
                frame(DATA, END_STREAM, 1, data.as_bytes()),
            );
            raw.write(&[head, data].concat()).await;
            assert_eq!(outcome(&mut raw).await, Err(Reason::PROTOCOL_ERROR));
        }
    }
    assert_eq!(old.seen_count(), 0);
    let limits = Limits { body_bytes_max: 1_000, ..Limits::default() };
    let rig = limited(limits, snapshot(endpoints(&[&old])));
    let client = H2::connect(rig.public).await;
    assert_eq!(client.send(post("/"), pattern(1_001)).await.status, 413);
    assert_eq!(client.send(post("/"), pattern(1_000)).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_told_to_leave_and_stuck_streams_are_reset() {
    let (old, new) = (Replica::start().await, H2Replica::start().await);
    let limit = Duration::from_millis(150);
    let limits =
        Limits { header_read_max: limit, client_idle_max: limit, body_stall_max: limit, ..Limits::default() };
    let before_old = limited(limits, snapshot(endpoints(&[&old])));
    let before_new = limited(limits, speaks_h2(&[new.address]));
    let mut idle = H2::connect(before_old.public).await;
    // It does not acknowledge anything, as one that is gone.
    let mut dead = Raw::connect(before_old.public).await;
    for rig in [&before_old, &before_new] {
        for request in [post("/"), with(request("PUT", "/"), "content-length", "9")] {
            let client = H2::connect(rig.public).await;
            let (answer, mut stream) = client.begin(request, false).await.unwrap();
            stream.send_data("half".into(), false).unwrap();
            let reset = soon("the reset", async {
                match answer.await {
                    Ok(begun) => read_all(begun.into_body()).await.unwrap_err(),
                    Err(error) => error,
                }
            });
            assert_eq!(reset.await.reason(), Some(Reason::CANCEL));
        }
    }
    // The replica stops in the middle of its answer.
    let client = H2::connect(before_old.public).await;
    let (answer, _) = client.begin(get("/parts"), true).await.unwrap();
    let body = soon("the head", answer).await.unwrap().into_body();
    assert!(soon("the reset", read_all(body)).await.unwrap_err().is_reset());
    // The client takes nothing.
    let client = H2::connect(before_new.public).await;
    let (answer, _) = client.begin(get("/flood"), true).await.unwrap();
    let body = soon("the head", answer).await.unwrap().into_body();
    eventually("it is given up", || new.running() == 0).await;
    drop(body);
    idle.ended().await.unwrap();
    assert_eq!(dead.reason(GOAWAY).await, Some(Reason::NO_ERROR));
    while dead.read().await.is_some() {}
    // A connection that says nothing at all, or not enough, is closed.
    assert_eq!(raw(before_old.public, b"PRI").await, "");
    raw(before_old.public, &PREFACE[..20]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_preface_may_come_in_pieces() {
    let replica = Replica::start().await;
    let limits = Limits { header_read_max: Duration::from_secs(2), ..Limits::default() };
    let rig = limited(limits, snapshot(endpoints(&[&replica])));
    let mut stream = Net::real().connect_tcp(rig.public).await.unwrap();
    for byte in PREFACE {
        stream.write_all(&[*byte]).await.unwrap();
        // A look at something else lets the gateway see the byte by itself.
        rig.client().await.get("/").await;
    }
    let mut client = Raw(stream);
    client.write(&frame(SETTINGS, 0, 0, &[])).await;
    client.next(SETTINGS).await.unwrap();
    // Nothing is owed any more: this one is closed for half a head, ours stays.
    assert_eq!(raw(rig.public, b"GET / HTT").await, "");
    assert_eq!(raw(rig.public, b"GET / HTT").await, "");
    client.write(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &get_block(&[]))).await;
    assert_eq!(outcome(&mut client).await, Ok(200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_says_goodbye_and_lets_running_streams_end() {
    let replica = H2Replica::start().await;
    let rig = Rig::start(speaks_h2(&[replica.address]));
    let (mut busy, mut idle) = (H2::connect(rig.public).await, H2::connect(rig.public).await);
    assert_eq!(idle.get("/").await.status, 200);
    let (answer, _) = busy.begin(get("/gated"), true).await.unwrap();
    eventually("it runs", || replica.running() == 1).await;
    let (drained, ()) = tokio::join!(rig.gateway.drain(Duration::from_secs(10)), async {
        idle.ended().await.unwrap();
        // The running stream goes on, and no other begins.
        assert!(busy.try_send(get("/"), "", None).await.is_err());
        replica.open_gate();
        assert_eq!(soon("the answer", answer).await.unwrap().status(), 200);
        busy.ended().await.unwrap();
    });
    assert_eq!(drained.cut_off, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_are_fitted_to_the_other_protocol() {
    let (old, new) = (Replica::start().await, H2Replica::start().await);
    let before_old = Rig::before(&[&old]);
    let client = H2::connect(before_old.public).await;
    let crumbs = with(with(get("/x?y"), "cookie", "a=1"), "cookie", "b=2");
    let got = client.send(crumbs.clone(), "").await;
    for hop in ["connection", "keep-alive", "x-hop", "transfer-encoding", "upgrade"] {
        assert_eq!(got.header(hop), None, "{hop}");
    }
    assert_eq!((got.header("x-replica"), old.seen()[0].target.as_str()), (Some("1"), "/x?y"));
    let seen = old.seen()[0].headers.clone();
    assert_eq!((seen["cookie"].to_str().unwrap(), seen.get_all("cookie").iter().count()), ("a=1; b=2", 1));
    assert_eq!(
        (seen["host"].to_str().unwrap(), seen["x-forwarded-for"].to_str().unwrap()),
        ("shop.test", "127.0.0.1")
    );
    assert_eq!(
        (seen["x-forwarded-proto"].to_str().unwrap(), seen["x-forwarded-host"].to_str().unwrap()),
        ("http", "shop.test")
    );
    let before_new = Rig::start(speaks_h2(&[new.address]));
    let mut client = before_new.client().await;
    let hops = rig::with(rig::with(rig::get("/x?y"), "connection", "x-hop"), "x-hop", "1");
    assert_eq!(client.send(rig::with(hops, "te", "trailers")).await.status, 200);
    let seen = &new.seen()[0];
    assert_eq!(seen.target, "http://shop.test/x?y");
    for hop in ["connection", "x-hop", "host"] {
        assert!(!seen.headers.contains_key(hop), "{hop}");
    }
    assert_eq!(
        (&seen.headers["te"], &seen.headers["x-forwarded-host"]),
        (&"trailers".parse().unwrap(), &"shop.test".parse().unwrap())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_cannot_be_said_in_http_2_is_not_the_replicas_fault() {
    let replica = H2Replica::start().await;
    let rig = Rig::start(speaks_h2(&[replica.address]));
    for head in [
        "GET / HTTP/1.1\r\nhost: a:b:c\r\n",
        "GET / HTTP/1.1\r\nhost: [a\r\n",
        "GET /<\\ HTTP/1.1\r\nhost: a\r\n",
    ] {
        let answer = raw(rig.public, format!("{head}connection: close\r\n\r\n").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{head}: {answer}");
    }
    let stats = rig.endpoint_stats_at(replica.address);
    assert_eq!((stats.refused, stats.ejections), (0, 0));
    assert_eq!(rig.client().await.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_for_a_word_before_its_body_gets_it() {
    let replica = Replica::start().await;
    let rig = Rig::before(&[&replica]);
    let client = H2::connect(rig.public).await;
    let (mut answer, mut stream) =
        client.begin(with(post("/"), "expect", "100-continue"), false).await.unwrap();
    let word =
        soon("the word", std::future::poll_fn(|cx| answer.poll_informational(cx))).await.unwrap().unwrap();
    assert_eq!(word.status(), 100);
    stream.send_data("body".into(), true).unwrap();
    let body = soon("the answer", answer).await.unwrap().into_body();
    assert_eq!(read_all(body).await.unwrap().0, b"body");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_fail_are_made_good_for_over_http_2_too() {
    let (mut a, b) = (H2Replica::start().await, H2Replica::start().await);
    let rig = Rig::start(speaks_h2(&[a.address, b.address]));
    let client = H2::connect(rig.public).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert!(!a.seen().is_empty() && !b.seen().is_empty());
    a.kill().await;
    for number in 0..50 {
        let request = Request::builder().method(Method::PUT).uri("http://shop.test/").body(()).unwrap();
        let Got { status, .. } = client.send(request, Bytes::from(format!("{number}"))).await;
        assert_eq!(status, 200);
    }
    let (old, other) = (Replica::start().await, Replica::start().await);
    let rig = Rig::before(&[&old, &other]);
    old.set(Mood::Breaks);
    let client = H2::connect(rig.public).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }
}
