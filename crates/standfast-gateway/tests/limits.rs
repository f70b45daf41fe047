//! What is refused.

use std::time::Duration;

use standfast_gateway::{Config, Limits};
use standfast_runtime::Net;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::replica::Replica;
use crate::rig::{Rig, endpoints, eventually, get, one_worker, raw, snapshot, with};

fn limited(limits: Limits, replica: &Replica) -> Rig {
    Rig::start_with(Config { limits, ..one_worker() }, snapshot(endpoints(&[replica])))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heads_that_are_too_long_or_have_too_many_fields_are_refused() {
    let a = Replica::start().await;
    let rig = limited(Limits { header_bytes_max: 8 << 10, header_count_max: 20, ..Limits::default() }, &a);
    let long = with(get("/"), "x-long", &"x".repeat(10_000));
    assert_eq!(rig.client().await.send(long).await.status, 431);
    let fields: String = (0..30).map(|n| format!("x-{n}: 1\r\n")).collect();
    let many = format!("GET / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
    assert!(raw(rig.public, many.as_bytes()).await.starts_with("HTTP/1.1 431"));
    assert_eq!(a.seen_count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_two_could_read_differently_are_refused_and_their_connection_closed() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let smuggled = "0\r\n\r\nGET /evil HTTP/1.1\r\nhost: a\r\n\r\n";
    for head in [
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +5\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: identity\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\r\nhost : a\r\n\r\n",
    ] {
        let answer = raw(rig.public, format!("{head}{smuggled}").as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{head}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{head}: {answer}");
    }
    assert_eq!(a.seen_count(), 0);
    let connect = raw(rig.public, b"CONNECT a:80 HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(connect.starts_with("HTTP/1.1 501"), "{connect}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_with_a_host_counts_more_than_the_field() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    raw(rig.public, b"GET http://real.test/x?y HTTP/1.1\r\nhost: other\r\nconnection: close\r\n\r\n").await;
    let seen = a.seen();
    assert_eq!((seen[0].target.as_str(), &seen[0].headers["host"]), ("/x?y", &"real.test".parse().unwrap()));
    let old = raw(rig.public, b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.1 200") && old.contains("connection: close"), "{old}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_heads_idle_connections_and_stuck_bodies_are_closed() {
    let a = Replica::start().await;
    let limit = Duration::from_millis(100);
    let limits =
        Limits { header_read_max: limit, client_idle_max: limit, body_stall_max: limit, ..Limits::default() };
    let rig = limited(limits, &a);
    for (begun, what) in [
        ("", "an idle connection"),
        ("GET / HTT", "half a head"),
        ("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf", "half a body"),
        ("PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf", "half a body that would be kept"),
    ] {
        assert_eq!(raw(rig.public, begun.as_bytes()).await, "", "{what}");
    }
    // The replica stops in the middle of its answer.
    let mut stuck = rig.client().await;
    assert!(stuck.try_send(get("/parts")).await.is_err());
    eventually("the replica is told", || a.running() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_limit_wait_while_all_others_are_busy() {
    let a = Replica::start().await;
    let rig = limited(Limits { connections_max: 2, ..Limits::default() }, &a);
    let (mut first, mut second) = (rig.client().await, rig.client().await);
    let (one, two) = (first.get("/gated"), second.get("/gated"));
    let ((), one, two) = tokio::join!(
        async {
            eventually("both are there", || a.seen_count() == 2).await;
            let mut third = Net::real().connect_tcp(rig.public).await.unwrap();
            third.write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
            a.open_gate();
            // One of the first two lies idle now, and makes room.
            let mut answer = String::new();
            third.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            a.open_gate();
        },
        one,
        two
    );
    assert_eq!((one.status, two.status), (200, 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_been_idle_for_longest_makes_room() {
    let a = Replica::start().await;
    let rig = limited(Limits { connections_max: 2, ..Limits::default() }, &a);
    let mut idle = Net::real().connect_tcp(rig.public).await.unwrap();
    eventually("it is accepted", || rig.gateway.stats().connections == 1).await;
    let mut second = rig.client().await;
    assert_eq!(second.get("/").await.status, 200);
    let mut third = rig.client().await;
    assert_eq!(third.get("/").await.status, 200);
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0, "closed");
    assert_eq!(second.get("/").await.status, 200, "not closed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_so_many_requests_may_wait_for_a_replica() {
    let a = Replica::start().await;
    let config = Config { limits: Limits { held_max: 1, ..Limits::default() }, ..one_worker() };
    let rig = Rig::start_with(config, snapshot(vec![]));
    let (mut one, mut two) = (rig.client().await, rig.client().await);
    let (held, ()) = tokio::join!(one.get("/"), async {
        eventually("one waits", || rig.stats().held == 1).await;
        let refused = two.get("/").await;
        assert_eq!((refused.status, refused.header("standfast-reason")), (503, Some("too-many-held")));
        rig.publish_endpoints(|all| *all = endpoints(&[&a])).await;
    });
    assert_eq!(held.status, 200);
}
