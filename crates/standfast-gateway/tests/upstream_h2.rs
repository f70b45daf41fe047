//! Connections to replicas that speak HTTP/2: what is held against a replica, and when a connection has had its time.

use std::time::Duration;

use h2::Reason;
use standfast_gateway::{Config, Limits};

use crate::h2::speaks_h2;
use crate::h2_rig::{GOAWAY, H2, H2Replica, HEADERS, PING, Raw, frame, get, listener, post, read_all, soon};
use crate::rig::{Rig, eventually, one_worker};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_a_replica_refuses_are_not_held_against_it() {
    let (listener, address) = listener().await;
    let well = H2Replica::start().await;
    let rig = Rig::start(speaks_h2(&[address, well.address]));
    let client = H2::connect(rig.public).await;
    let mut replica = None;
    let mut refused = 0;
    while refused < 20 {
        let (answer, _) = client.begin(post("/"), true).await.unwrap();
        let mut answer = Box::pin(answer);
        let mut raw = match replica.take() {
            Some(raw) => raw,
            None => tokio::select! {
                biased;
                raw = Raw::accept(&listener) => raw,
                // The other one was chosen.
                answer = &mut answer => {
                    assert_eq!(answer.unwrap().status(), 200);
                    continue;
                }
            },
        };
        let answered = tokio::select! {
            biased;
            head = raw.next(HEADERS) => {
                raw.reset(head.unwrap().stream, Reason::REFUSED_STREAM).await;
                refused += 1;
                soon("the other one answers", &mut answer).await
            }
            answer = &mut answer => answer,
        };
        assert_eq!(answered.unwrap().status(), 200);
        replica = Some(raw);
    }
    let stats = rig.endpoint_stats_at(address);
    assert_eq!((stats.refused, stats.broken, stats.ejections), (20, 0, 0));
    // It leaves with good manners before it has looked at anything, again and again, on new connections too.
    let mut raw = replica.take().unwrap();
    raw.go_away(0).await;
    drop(raw);
    let mut left = 0;
    while left < 5 {
        let (answer, _) = client.begin(post("/"), true).await.unwrap();
        let mut answer = Box::pin(answer);
        // It stays until then: closed with something unread it would be reset, and its goodbye with it.
        let _leaving = tokio::select! {
            biased;
            mut raw = Raw::accept(&listener) => {
                raw.go_away(0).await;
                left += 1;
                raw
            }
            answer = &mut answer => {
                assert_eq!(answer.unwrap().status(), 200);
                continue;
            }
        };
        assert_eq!(soon("the other one answers", answer).await.unwrap().status(), 200);
    }
    assert_eq!(rig.endpoint_stats_at(address).ejections, 0);
}

fn limited(limits: Limits, replica: &H2Replica) -> Rig {
    Rig::start_with(Config { limits, ..one_worker() }, speaks_h2(&[replica.address]))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_lies_idle_is_closed_and_one_that_is_used_is_not() {
    let replica = H2Replica::start().await;
    let limits = Limits { upstream_idle_max: Duration::from_millis(100), ..Limits::default() };
    let rig = limited(limits, &replica);
    let client = H2::connect(rig.public).await;
    let (answer, _) = client.begin(get("/gated"), true).await.unwrap();
    eventually("it runs", || replica.running() == 1).await;
    let closed = || replica.closed() as u64;
    let clock = standfast_runtime::Clock::system();
    // Twice as long as from one sweep to the next: it is in use.
    clock.sleep(standfast_gateway::SWEEP_PERIOD * 2 + Duration::from_millis(200)).await;
    assert_eq!((closed(), replica.connections()), (0, 1));
    replica.open_gate();
    assert_eq!(soon("the answer", answer).await.unwrap().status(), 200);
    eventually("it is closed", || closed() == 1).await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(replica.connections(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_stays_silent_is_asked_and_given_up_when_it_says_nothing() {
    let (listener, address) = listener().await;
    let limits = Limits { upstream_silence_max: Duration::from_millis(200), ..Limits::default() };
    let rig = Rig::start_with(Config { limits, ..one_worker() }, speaks_h2(&[address]));
    let client = H2::connect(rig.public).await;
    let (answer, _) = client.begin(post("/"), true).await.unwrap();
    let mut raw = Raw::accept(&listener).await;
    let head = raw.next(HEADERS).await.unwrap();
    // As long as it answers, it is only slow.
    for _ in 0..3 {
        let ping = raw.next(PING).await.unwrap();
        assert_eq!((ping.flags, ping.stream), (0, 0));
        raw.write(&frame(PING, 1, 0, &ping.payload)).await;
    }
    raw.answer(head.stream).await;
    let answer = soon("the answer", answer).await.unwrap();
    assert_eq!(answer.status(), 200);
    read_all(answer.into_body()).await.unwrap();
    let (answer, _) = client.begin(post("/"), true).await.unwrap();
    raw.next(HEADERS).await.unwrap();
    raw.next(PING).await.unwrap();
    assert_eq!(soon("it is given up", answer).await.unwrap().status(), 502);
    while raw.read().await.is_some_and(|frame| frame.kind != GOAWAY) {}
    assert_eq!(rig.endpoint_stats_at(address).broken, 1);
}
