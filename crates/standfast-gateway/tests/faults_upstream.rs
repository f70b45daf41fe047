//! Faults that are injected between the gateway and replicas: it reacts to them as to really bad replicas.

use std::time::Duration;

use standfast_gateway::{AttemptEnd, ListenerKind};
use standfast_runtime::Clock;

use crate::faults::{is_told, put, record, status};
use crate::h2::speaks_h2;
use crate::h2_rig::{self, H2, H2Replica};
use crate::replica::{Mood, Replica};
use crate::rig::{Load, Rig, Sent, endpoints, get, one_worker, post, snapshot, up, with, zone};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_slow_on_purpose_is_hedged_around_and_avoided() {
    let (a, b, c) = (Replica::start().await, Replica::start().await, Replica::start().await);
    let rig = Rig::before(&[&a, &b, &c]);
    for replica in [&a, &b, &c] {
        replica.set(Mood::Slow(Duration::from_millis(5)));
    }
    let load = Load::start(rig.public, 4, |_| get("/"));
    load.more(300).await;
    put(&rig, "delay=2s;replica=up-1;for=1m");
    load.more(400).await;
    let sent = load.finish().await;
    assert!(sent.iter().all(Sent::is_ok));
    let worst = sent.iter().map(|sent| sent.took).max().unwrap();
    assert!(worst < Duration::from_millis(1_500), "{worst:?}");
    let counted = status(&rig);
    assert!(counted.applied > 0 && counted.applied == counted.seen, "{counted:?}");
    // Not every third request goes there any more.
    assert!(counted.applied < 60, "{counted:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delay_counts_as_the_replicas_time_on_a_new_connection_too() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    rig.client().await.get("/bye").await;
    for text in ["delay=120ms;replica=up-0.1;for=1m", "delay=120ms;at=answer;service=up;side=upstream;for=1m"]
    {
        let before = rig.endpoint_stats(&a).latency_sum;
        put(&rig, text);
        // The connection is closed after this answer, so the next one is new.
        let answer = rig.client().await.get("/bye").await;
        assert_eq!(answer.status, 200);
        is_told(&record(&rig, &answer).await);
        let took = rig.endpoint_stats(&a).latency_sum - before;
        assert!(took >= Duration::from_millis(120), "{text}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_before_anything_was_sent_costs_no_request() {
    let (a, b) = (Replica::start().await, Replica::start().await);
    let rig = Rig::before(&[&a, &b]);
    put(&rig, "reset;replica=up-0;for=1m");
    let mut client = rig.client().await;
    for _ in 0..20 {
        assert_eq!(client.send(post("/pay", "1")).await.status, 200);
    }
    assert_eq!((a.seen_count(), b.seen_count()), (0, 20));
    assert!(rig.endpoint_stats(&a).refused >= 1 && status(&rig).applied >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_is_repeated_only_where_that_does_no_harm() {
    let (a, b) = (Replica::start().await, Replica::start().await);
    let rig = Rig::before(&[&a, &b]);
    put(&rig, "reset;at=answer;replica=up-0;for=1m");
    let (mut broken, mut repeated) = (0, 0);
    for number in 0..20 {
        let plain = rig.client().await.send(post("/pay", "1")).await;
        broken += u64::from(plain.status == 502);
        let before = status(&rig).applied;
        let keyed = with(post("/pay", "1"), "idempotency-key", &number.to_string());
        let keyed = rig.client().await.send(keyed).await;
        assert_eq!(keyed.status, 200);
        if status(&rig).applied > before {
            repeated += 1;
            let told = record(&rig, &keyed).await;
            let ends: Vec<_> = told.attempts.iter().map(|attempt| attempt.end).collect();
            assert_eq!(ends, [AttemptEnd::Broken, AttemptEnd::Answered]);
        }
    }
    // It has done its work each time: that is what makes this fault worth having.
    assert_eq!((status(&rig).applied, a.seen_count() as u64), (broken + repeated, broken + repeated));
    assert!(broken + repeated > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_of_a_replica_is_repeated_elsewhere_and_marked_when_it_is_passed_on() {
    let (a, b) = (Replica::start().await, Replica::start().await);
    let rig = Rig::before(&[&a, &b]);
    put(&rig, "abort=503;replica=up-0;for=1m");
    let mut client = rig.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!(a.seen_count(), 0);
    assert!(status(&rig).applied > 0 && rig.endpoint_stats(&a).answered.server_error > 0);
    put(&rig, "abort=503;service=up;side=upstream;at=answer;for=1m");
    let answer = client.send(post("/", "1")).await;
    assert_eq!((answer.status, answer.header("standfast-reason")), (503, Some("injected-fault")));
    is_told(&record(&rig, &answer).await);
    assert_eq!(a.seen_count() + b.seen_count(), 21);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pair_of_zones_is_cut_off_from_each_other_and_from_nobody_else() {
    let (a, b) = (Replica::start().await, Replica::start().await);
    let mut world = snapshot(endpoints(&[&a, &b]));
    world.services.get_mut(&up()).unwrap().endpoints[1].zone = zone("b");
    let caller = |name: &str| ListenerKind::Service { service: up(), caller_zone: Some(zone(name)) };
    for (from, seen) in [("a", (0, 10)), ("b", (0, 20))] {
        let rig = Rig::start_as(caller(from), one_worker(), world.clone());
        put(&rig, "reset;from-zone=a;to-zone=a;for=1m");
        let mut client = rig.client().await;
        for _ in 0..10 {
            assert_eq!(client.get("/").await.status, 200);
        }
        assert_eq!((a.seen_count(), b.seen_count()), seen, "from {from}");
        assert_eq!(status(&rig).applied > 0, from == "a");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_at_a_replica_costs_time_and_no_answer() {
    let (a, b) = (Replica::start().await, Replica::start().await);
    let rig = Rig::before(&[&a, &b]);
    let load = Load::start(rig.public, 4, |_| get("/"));
    load.more(200).await;
    put(&rig, "blackhole;replica=up-0;for=1m");
    load.more(300).await;
    let sent = load.finish().await;
    assert!(sent.iter().all(Sent::is_ok));
    assert!(status(&rig).applied > 0);
    let left = Clock::system();
    let began = left.now();
    crate::rig::eventually("nobody is held", || status(&rig).acting == 0).await;
    assert!(left.now().since(began) < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_speak_http2_are_no_exception() {
    let (a, b) = (H2Replica::start().await, H2Replica::start().await);
    let rig = Rig::start(speaks_h2(&[a.address, b.address]));
    let client = H2::connect(rig.public).await;
    let call = || h2_rig::with(h2_rig::post("/call"), "content-type", "application/grpc");
    put(&rig, "abort=grpc:14;replica=up-0;at=answer;for=1m");
    let (mut fine, mut unavailable) = (0, 0);
    for _ in 0..20 {
        let got = client.send(call(), "hi").await;
        fine += usize::from(got.trailer("grpc-status") == Some("0"));
        unavailable += usize::from(got.header("grpc-status") == Some("14"));
    }
    // The one that is unavailable is asked once, and then left out for a while.
    assert_eq!(fine + unavailable, 20);
    assert!((1..=5).contains(&unavailable), "{unavailable}");
    assert_eq!((status(&rig).applied, a.seen().len()), (unavailable as u64, unavailable));
    put(&rig, "truncate=1;service=up;side=upstream;for=1m");
    let broken = client.try_send(h2_rig::post("/echo"), "0123456789", None).await;
    assert_eq!(broken.unwrap_err().reason(), Some(::h2::Reason::INTERNAL_ERROR));
}
