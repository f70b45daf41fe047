//! What is counted agrees with what was sent.

use std::time::Duration;

use http::StatusCode;
use standfast_gateway::{Config, Exposition};
use standfast_model::Concurrency;

use crate::replica::{Mood, Replica};
use crate::rig::{Rig, endpoints, eventually, get, post, raw, snapshot, up, zone};
use crate::scrape::Scrape;

fn scrape(rig: &Rig) -> Scrape {
    Scrape::of(&Exposition::Text.write(&rig.gateway.stats()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_is_what_is_scraped() {
    let (a, b) = (Replica::start().await, Replica::start().await);
    let mut world = snapshot(endpoints(&[&a, &b]));
    world.services.get_mut(&up()).unwrap().endpoints[1].zone = zone("b");
    world.routes[0].path = standfast_model::PathMatch::Prefix("/api".to_owned());
    let rig = Rig::start_with(Config { workers: 2, ..Config::default() }, world);
    let mut client = rig.client().await;
    for _ in 0..30 {
        assert_eq!(client.send(post("/api", "12345")).await.status, 200);
    }
    for replica in [&a, &b] {
        replica.set(Mood::Status(StatusCode::NOT_FOUND, Vec::new()));
    }
    for _ in 0..7 {
        assert_eq!(client.get("/api").await.status, 404);
    }
    for replica in [&a, &b] {
        replica.set(Mood::Breaks);
    }
    assert_eq!(client.send(post("/api", "")).await.status, 502);
    for replica in [&a, &b] {
        replica.set(Mood::Well);
    }
    for _ in 0..3 {
        assert_eq!(client.get("/elsewhere").await.status, 404);
    }
    raw(rig.public, b"GET / HTTP/1.1\r\nno host\r\n\r\n").await;

    eventually("bodies are counted", || rig.gateway.stats().body_bytes_in == 150).await;
    eventually("a look was taken at the door", || rig.stats().limit.is_some()).await;
    let found = scrape(&rig);
    let of_class = |class| found.sum("requests_total", &[("service", "up"), ("code_class", class)]);
    assert_eq!(["2xx", "3xx", "4xx", "5xx", "none"].map(of_class), [30.0, 0.0, 7.0, 1.0, 0.0], "{found:?}");
    assert_eq!(found.sum("requests_started_total", &[("service", "up")]), 38.0);
    assert_eq!(found.sum("requests_in_flight", &[]), 0.0);
    assert_eq!(found.sum("request_duration_seconds_count", &[("service", "up")]), 38.0);
    assert!(found.sum("request_duration_seconds_sum", &[]) > 0.0);
    assert_eq!(found.sum("refused_total", &[("reason", "no-route")]), 3.0);
    assert_eq!(found.sum("refused_total", &[("reason", "bad-request")]), 1.0);
    assert_eq!(found.sum("refused_total", &[("service", "up"), ("reason", "replica-broke-off")]), 1.0);
    assert_eq!(found.sum("replica_errors_total", &[("kind", "broken")]), 1.0);
    assert_eq!(found.sum("replica_attempts_total", &[("service", "up")]), 38.0);
    assert_eq!(found.sum("replica_answers_total", &[("code_class", "2xx")]), 30.0);
    assert_eq!(found.sum("replica_latency_seconds_count", &[]), 37.0);
    assert_eq!(found.values("replica_attempts_total", "zone"), ["a", "b"]);
    assert_eq!(found.values("replica_info", "address").len(), 2);
    assert_eq!(found.sum("replica_ready", &[]), 2.0);
    assert_eq!(found.sum("connections_accepted_total", &[]), 2.0);
    assert_eq!(found.sum("body_bytes_total", &[("direction", "in")]), 150.0);
    assert!(found.sum("admission_limit", &[("service", "up")]) >= 1.0);
    assert!(found.sum("retry_budget_tokens", &[]) > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_and_a_replica_that_is_left_out_are_seen() {
    let (a, b) = (Replica::start().await, Replica::start().await);
    let rig = Rig::before(&[&a, &b]);
    let mut client = rig.client().await;
    let of_a = ("replica", "up-0.1");
    a.set(Mood::Status(StatusCode::SERVICE_UNAVAILABLE, Vec::new()));
    loop {
        assert_eq!(client.get("/").await.status, 200);
        if rig.endpoint_stats(&a).answered.server_error > 0 {
            break;
        }
    }
    let found = scrape(&rig);
    let failed = found.sum("replica_answers_total", &[of_a, ("code_class", "5xx")]);
    // Each of its answers was made good for by a paid repeat. (On a busy machine a hedge is paid for as well.)
    let [retries, hedges] =
        ["retries_total", "hedges_total"].map(|name| found.sum(name, &[("service", "up")]));
    assert_eq!((failed, retries - hedges), (1.0, 1.0));
    assert_eq!(found.sum("requests_total", &[("code_class", "5xx")]), 0.0);
    assert_eq!(found.sum("replica_left_out", &[]), 0.0);

    a.set(Mood::Well);
    b.kill().await;
    while rig.endpoint_stats(&b).ejections == 0 {
        client.get("/").await;
    }
    eventually("it is seen to be left out", || rig.endpoint_stats(&b).left_out_by == 1).await;
    let found = scrape(&rig);
    let of_b = ("replica", "up-1.1");
    assert_eq!(found.sum("replica_left_out", &[of_b]), 1.0);
    assert_eq!(found.sum("replica_left_out", &[of_a]), 0.0);
    assert!(found.sum("replica_ejections_total", &[of_b]) >= 1.0);
    let refused = found.sum("replica_errors_total", &[of_b, ("kind", "refused")]);
    let broken = found.sum("replica_errors_total", &[of_b, ("kind", "broken")]);
    assert!(refused + broken >= 1.0);
    assert_eq!(found.sum("repeats_unsent_total", &[]), refused);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_at_the_door_is_seen_there() {
    let a = Replica::start().await;
    let mut world = snapshot(endpoints(&[&a]));
    let policy = &mut world.services.get_mut(&up()).unwrap().policy;
    (policy.concurrency, policy.hedge) = (Concurrency::Fixed(1), false);
    let rig = Rig::start(world);
    let (mut first, mut second) = (rig.client().await, rig.client().await);
    first.get("/").await;
    let seen = |name: &'static str| scrape(&rig).sum(name, &[("service", "up")]);
    let ((), (), ()) = tokio::join!(
        async { assert_eq!(first.get("/gated").await.status, 200) },
        async {
            eventually("the first is in", || a.running() == 1).await;
            // The first goes on until this one is seen to wait.
            assert_eq!(second.get("/").await.status, 200);
        },
        async {
            eventually("one waits", || seen("admission_waiting") == 1.0).await;
            assert_eq!((seen("admission_limit"), seen("admission_in_flight")), (1.0, 1.0));
            assert_eq!(seen("requests_in_flight"), 2.0);
            a.open_gate();
        }
    );
    assert_eq!(seen("admission_waited_seconds_count"), 1.0);
    assert!(seen("admission_waited_seconds_sum") > 0.0);
    eventually("nobody waits", || seen("admission_waiting") == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_left_is_counted_and_counts_as_no_latency() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    a.set(Mood::Slow(Duration::from_secs(30)));
    let mut client = rig.client().await;
    tokio::select! {
        answer = client.send(get("/")) => panic!("{answer:?}"),
        () = eventually("the replica has it", || a.running() == 1) => drop(client),
    }
    eventually("it is counted", || rig.stats().abandoned == 1).await;
    let found = scrape(&rig);
    assert_eq!(found.sum("requests_total", &[("code_class", "none")]), 1.0);
    assert_eq!(found.sum("request_duration_seconds_count", &[]), 0.0);
}
