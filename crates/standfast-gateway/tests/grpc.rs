//! gRPC, which is HTTP/2 with a status in the trailers.

use std::time::Duration;

use bytes::Bytes;
use standfast_gateway::Snapshot;
use standfast_model::Traffic;

use crate::h2::speaks_h2;
use crate::h2_rig::{Got, H2, H2Replica, map, part, post, read_all, soon, with};
use crate::rig::{Rig, eventually, up};

fn call(path: &str) -> http::Request<()> {
    with(with(post(path), "content-type", "application/grpc"), "te", "trailers")
}

fn changed(mut snapshot: Snapshot, change: impl FnOnce(&mut Traffic)) -> Snapshot {
    change(&mut snapshot.services.get_mut(&up()).unwrap().policy);
    snapshot
}

/// An answer that has only trailers, which then are its head.
fn refused(got: &Got) -> Option<&str> {
    assert_eq!((got.status, got.header("content-type")), (200, Some("application/grpc")));
    assert!(got.body.is_empty() && got.trailers.is_none() && got.headers.contains_key("grpc-message"));
    got.header("grpc-status")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_pass_with_their_status() {
    let replica = H2Replica::start().await;
    let rig = Rig::start(speaks_h2(&[replica.address]));
    let client = H2::connect(rig.public).await;
    let message = Bytes::from_static(b"\0\0\0\0\x02hi");
    for status in ["0", "5"] {
        replica.set_grpc_status(status);
        let got = client.send(call("/call"), message.clone()).await;
        assert_eq!(
            (got.status, got.header("content-type"), got.body.as_slice()),
            (200, Some("application/grpc"), &message[..])
        );
        assert_eq!(
            (got.trailer("grpc-status"), got.trailer("grpc-message")),
            (Some(status), Some("as told"))
        );
        let got = client.send(call("/refused-call"), message.clone()).await;
        assert_eq!(
            (got.status, got.header("grpc-status"), got.trailers.is_none()),
            (200, Some(status), true)
        );
    }
    assert_eq!(replica.seen()[0].headers["te"], "trailers");
    // A conversation.
    let (answer, mut stream) = client.begin(call("/chat"), false).await.unwrap();
    let mut body = soon("the head", answer).await.unwrap().into_body();
    for _ in 0..10 {
        stream.send_data(message.clone(), false).unwrap();
        assert_eq!(soon("the echo", part(&mut body)).await.unwrap().unwrap(), message);
    }
    stream.send_trailers(map(&[("grpc-status", "0")])).unwrap();
    assert_eq!(soon("the end", read_all(body)).await.unwrap().1.unwrap()["grpc-status"], "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_refuses_calls_as_grpc_has_it() {
    let nobody = changed(speaks_h2(&[]), |policy| policy.hold = Duration::from_millis(50));
    let rig = Rig::start(nobody);
    let client = H2::connect(rig.public).await;
    let got = client.send(call("/call"), "hi").await;
    assert_eq!((refused(&got), got.header("standfast-reason")), (Some("14"), Some("no-replica-ready")));
    let replica = H2Replica::start().await;
    let rig = Rig::start(speaks_h2(&[replica.address]));
    let client = H2::connect(rig.public).await;
    let got = client.send(with(call("/frozen"), "grpc-timeout", "80m"), "hi").await;
    assert_eq!((refused(&got), got.header("standfast-reason")), (Some("4"), Some("deadline")));
    eventually("the replica is told", || replica.running() == 0).await;
    let got = client.send(with(call("/call"), "expect", "miracles"), "hi").await;
    assert_eq!(refused(&got), Some("13"));
    let got = client.send(with(call("/call"), "grpc-timeout", "soon"), "hi").await;
    assert_eq!(refused(&got), Some("13"));
    rig.publish(|snapshot| snapshot.routes.clear()).await;
    assert_eq!(refused(&client.send(call("/call"), "hi").await), Some("12"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_replica_is_told_how_much_time_is_left() {
    let replica = H2Replica::start().await;
    let rig = Rig::start(changed(speaks_h2(&[replica.address]), |policy| {
        policy.timeout = Duration::from_millis(1_500)
    }));
    let client = H2::connect(rig.public).await;
    for (asked, most) in [("10S", 1_500_000), ("1H", 1_500_000), ("900m", 900_000), ("900000u", 900_000)] {
        client.send(with(call("/call"), "grpc-timeout", asked), "hi").await;
        let headers = replica.seen().last().unwrap().headers.clone();
        let told =
            headers["grpc-timeout"].to_str().unwrap().strip_suffix('u').unwrap().parse::<u64>().unwrap();
        assert!((most / 3..=most).contains(&told), "{asked}: {told}");
        let millis: u64 = headers["standfast-deadline"].to_str().unwrap().parse().unwrap();
        assert_eq!(millis, told / 1_000);
    }
    client.send(call("/call"), "hi").await;
    assert!(!replica.seen().last().unwrap().headers.contains_key("grpc-timeout"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_unavailable_is_repeated_elsewhere_when_it_has_a_key() {
    for (key, repeats) in [(Some("k"), true), (None, false)] {
        let (well, ill) = (H2Replica::start().await, H2Replica::start().await);
        ill.set_grpc_status("14");
        let rig = Rig::start(speaks_h2(&[well.address, ill.address]));
        let client = H2::connect(rig.public).await;
        let mut unavailable = 0;
        for number in 0..40 {
            let mut request = call("/refused-call");
            if let Some(key) = key {
                let key = format!("{key}-{number}").parse().unwrap();
                request.headers_mut().insert("idempotency-key", key);
            }
            let got = client.send(request, "hi").await;
            unavailable += usize::from(got.header("grpc-status") == Some("14"));
        }
        let seen = ill.seen().len();
        assert!(seen > 0, "it was never asked");
        assert_eq!(unavailable, if repeats { 0 } else { seen }, "of {seen}");
        assert_eq!(well.seen().len(), if repeats { 40 } else { 40 - seen });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_says_unavailable_is_chosen_less() {
    for path in ["/refused-call", "/call"] {
        let (well, ill) = (H2Replica::start().await, H2Replica::start().await);
        ill.set_grpc_status("14");
        let rig = Rig::start(speaks_h2(&[well.address, ill.address]));
        let client = H2::connect(rig.public).await;
        for _ in 0..100 {
            let got = client.send(call(path), "hi").await;
            let status = got.header("grpc-status").or(got.trailer("grpc-status"));
            assert!(matches!(status, Some("0" | "14")));
        }
        assert!((1..25).contains(&ill.seen().len()), "{path}: {}", ill.seen().len());
    }
}
