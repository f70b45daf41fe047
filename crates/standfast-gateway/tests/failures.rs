//! Replicas die, freeze and fail.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;
use standfast_gateway::EndpointState;
use standfast_model::Traffic;
use standfast_runtime::Clock;

use crate::replica::{Mood, Replica};
use crate::rig::{Load, Rig, Sent, endpoint, endpoints, eventually, get, post, snapshot, up, with};

async fn three() -> [Replica; 3] {
    [Replica::start().await, Replica::start().await, Replica::start().await]
}

fn failed(sent: &[Sent]) -> Vec<&Sent> {
    sent.iter().filter(|sent| !sent.is_ok()).collect()
}

/// How often each `x-id` was seen by any replica.
fn effects(replicas: &[&Replica]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for seen in replicas.iter().flat_map(|replica| replica.seen()) {
        if let Some(id) = seen.headers.get("x-id") {
            *counts.entry(id.to_str().unwrap().to_owned()).or_default() += 1;
        }
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_a_replica_under_load_fails_no_request_that_may_be_repeated() {
    let [a, b, c] = three().await;
    let rig = Rig::before(&[&a, &b, &c]);
    for replica in [&a, &b, &c] {
        replica.set(Mood::Slow(Duration::from_millis(5)));
    }
    let gets = Load::start(rig.public, 4, |id| with(get("/"), "x-id", &format!("g{id}")));
    let keyed = Load::start(rig.public, 4, |id| with(post("/", "pay"), "idempotency-key", id));
    gets.more(100).await;
    b.kill().await;
    gets.more(100).await;
    keyed.more(100).await;
    c.kill().await;
    gets.more(100).await;
    keyed.more(100).await;
    for load in [gets, keyed] {
        let sent = load.finish().await;
        assert!(failed(&sent).is_empty(), "{:?}", failed(&sent));
    }
    // The dead are not asked over and over.
    let tried = rig.endpoint_stats(&b).refused + rig.endpoint_stats(&b).broken;
    assert!(tried <= 20, "{tried}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_may_not_be_repeated_is_never_sent_twice() {
    let [a, b, c] = three().await;
    let rig = Rig::before(&[&a, &b, &c]);
    for replica in [&a, &b, &c] {
        replica.set(Mood::Slow(Duration::from_millis(5)));
    }
    let load = Load::start(rig.public, 6, |id| with(post("/", "pay"), "x-id", id));
    load.more(100).await;
    b.kill().await;
    load.more(200).await;
    let sent = load.finish().await;
    let failed = failed(&sent);
    assert!(failed.len() <= 6, "only what was in flight there: {failed:?}");
    for one in failed {
        assert_eq!(one.result, Ok((502, Some("replica-broke-off".into()))), "{}", one.id);
    }
    let twice: Vec<_> = effects(&[&a, &b, &c]).into_iter().filter(|(_, count)| *count > 1).collect();
    assert!(twice.is_empty(), "{twice:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_replica_costs_a_few_requests_some_time_and_is_avoided() {
    let [a, b, c] = three().await;
    let rig = Rig::before(&[&a, &b, &c]);
    for replica in [&a, &b, &c] {
        replica.set(Mood::Slow(Duration::from_millis(5)));
    }
    let load = Load::start(rig.public, 4, |_| get("/"));
    load.more(200).await;
    let warm = load.finish().await;
    let slowest = warm.iter().map(|sent| sent.took).max().unwrap();
    b.set(Mood::Frozen);
    let load = Load::start(rig.public, 4, |_| get("/"));
    load.more(400).await;
    let sent = load.finish().await;
    assert!(failed(&sent).is_empty(), "{:?}", failed(&sent));
    // On a machine that is itself slow the usual latency is long, and so is the patience.
    let worst = sent.iter().map(|sent| sent.took).max().unwrap();
    let bound = Duration::from_millis(300).max(slowest * 6);
    assert!(worst < bound, "{worst:?}, before the freeze {slowest:?}");
    // It cost a few requests one attempt each, not every third.
    assert!(rig.endpoint_stats(&b).timed_out <= 20, "{:?}", rig.endpoint_stats(&b));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_back_gets_requests_again() {
    let [a, b, _c] = three().await;
    let rig = Rig::before(&[&a, &b]);
    let mut client = rig.client().await;
    let address = b.address;
    b.kill().await;
    while rig.endpoint_stats(&b).ejections == 0 {
        assert_eq!(client.get("/").await.status, 200);
    }
    let back = Replica::start_at(address).await;
    let clock = Clock::system();
    let began = clock.now();
    while back.seen_count() == 0 {
        assert!(clock.now().since(began) < Duration::from_secs(10), "{:?}", rig.stats());
        assert_eq!(client.get("/").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_every_replica_looks_dead_all_are_tried() {
    let [a, b, _] = three().await;
    let rig = Rig::before(&[&a, &b]);
    let mut client = rig.client().await;
    for replica in [&a, &b] {
        replica.set(Mood::Status(StatusCode::BAD_GATEWAY, vec![]));
    }
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 502);
    }
    for replica in [&a, &b] {
        replica.set(Mood::Well);
    }
    for _ in 0..5 {
        assert_eq!(client.get("/").await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeats_stay_within_their_budget_when_everything_fails() {
    let [a, b, c] = three().await;
    let rig = Rig::before(&[&a, &b, &c]);
    for replica in [&a, &b, &c] {
        replica.set(Mood::Status(StatusCode::SERVICE_UNAVAILABLE, vec![]));
    }
    let (clock, requests) = (Clock::system(), 500);
    let (mut client, began) = (rig.client().await, clock.now());
    for _ in 0..requests {
        assert_eq!(client.get("/").await.status, 503);
    }
    let seconds = clock.now().since(began).as_secs_f64();
    let attempts = a.seen_count() + b.seen_count() + c.seen_count();
    // 20 %, and the floor of 10 a second with one second saved up.
    let allowed = f64::from(requests) * 1.2 + 10.0 * (seconds + 1.0) + 1.0;
    #[expect(clippy::cast_precision_loss, reason = "far below 2⁵²")]
    let made = attempts as f64;
    assert!(made <= allowed, "{made} attempts, {allowed} allowed");
    assert!(rig.stats().retries > 50 && rig.stats().budget_empty > 100, "{:?}", rig.stats());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn temporary_failures_are_repeated_elsewhere_and_lasting_ones_passed_on() {
    let [a, b, _] = three().await;
    let rig = Rig::before(&[&a, &b]);
    let mut client = rig.client().await;
    a.set(Mood::Status(StatusCode::SERVICE_UNAVAILABLE, vec![]));
    b.set(Mood::Breaks);
    assert_eq!(client.send(post("/", "x")).await.status / 100, 5);
    b.set(Mood::Well);
    for _ in 0..4 {
        assert_eq!(client.get("/").await.status, 200);
        assert_eq!(client.send(with(post("/", "x"), "idempotency-key", "k")).await.status, 200);
    }
    for replica in [&a, &b] {
        replica.set(Mood::Status(StatusCode::INTERNAL_SERVER_ERROR, vec![]));
    }
    let before = a.seen_count() + b.seen_count();
    assert_eq!(client.get("/").await.status, 500);
    assert_eq!(a.seen_count() + b.seen_count(), before + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_replica_is_asked_again_when_it_says_so_within_the_deadline() {
    let only = Replica::start().await;
    let rig = Rig::before(&[&only]);
    let mut client = rig.client().await;
    only.set(Mood::Status(StatusCode::SERVICE_UNAVAILABLE, vec![("retry-after", "60")]));
    assert_eq!(client.get("/").await.status, 503);
    assert_eq!(only.seen_count(), 1, "a minute is more than there is");
    only.set(Mood::Status(StatusCode::SERVICE_UNAVAILABLE, vec![("retry-after", "1")]));
    let (answer, ()) = tokio::join!(client.get("/"), async {
        eventually("it was asked", || only.seen_count() == 2).await;
        only.set(Mood::Well);
    });
    assert_eq!((answer.status, only.seen_count()), (200, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_is_passed_on_and_ends_the_wait() {
    let [a, _, _] = three().await;
    let rig = Rig::before(&[&a]);
    let mut client = rig.client().await;
    let seen_deadline = |a: &Replica| {
        a.seen().last().unwrap().headers["standfast-deadline"].to_str().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(client.get("/").await.status, 200);
    assert!((9_000..=10_000).contains(&seen_deadline(&a)));
    client.send(with(get("/"), "standfast-deadline", "700")).await;
    assert!(seen_deadline(&a) <= 700);
    client.send(with(get("/"), "standfast-deadline", "99000")).await;
    assert!(seen_deadline(&a) <= 10_000, "from outside nobody may ask for more");
    a.set(Mood::Frozen);
    let answer = client.send(with(post("/", "x"), "standfast-deadline", "80")).await;
    assert_eq!((answer.status, answer.header("standfast-reason")), (504, Some("deadline")));
    assert!(answer.text().contains("`up`"), "{}", answer.text());
    assert_eq!(client.send(with(get("/"), "standfast-deadline", "soon")).await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_waits_for_the_first_replica_to_be_ready() {
    let a = Replica::start().await;
    let rig = Rig::start(snapshot(vec![]));
    let mut client = rig.client().await;
    let (answer, ()) = tokio::join!(client.send(post("/", "x")), async {
        eventually("it waits", || rig.stats().held == 1).await;
        rig.publish_endpoints(|all| {
            let mut unready = endpoint(0, a.address);
            unready.state = EndpointState::Unready;
            all.push(unready);
        })
        .await;
        assert_eq!(a.seen_count(), 0);
        rig.publish_endpoints(|all| all[0].state = EndpointState::Ready).await;
    });
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wait_for_a_replica_is_bounded() {
    let mut empty = snapshot(vec![]);
    empty.services.get_mut(&up()).unwrap().policy =
        Traffic { hold: Duration::from_millis(60), ..Traffic::default() };
    let rig = Rig::start(empty);
    let answer = rig.client().await.get("/").await;
    assert_eq!((answer.status, answer.header("standfast-reason")), (503, Some("no-replica-ready")));
    assert_eq!(answer.text(), "standfast: no replica of `up` is ready\n");
    assert_eq!(rig.stats().no_replica, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_replica_may_be_replaced_while_requests_wait() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let load = Load::start(rig.public, 3, |id| with(post("/", "pay"), "idempotency-key", id));
    load.more(30).await;
    a.kill().await;
    eventually("a request waits", || rig.stats().held >= 3).await;
    let b = Replica::start().await;
    rig.publish_endpoints(|all| {
        *all = endpoints(&[&b]);
        all[0].instance.attempt = 2;
    })
    .await;
    load.more(30).await;
    let sent = load.finish().await;
    assert!(failed(&sent).is_empty(), "{:?}", failed(&sent));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_the_replica_closed_while_idle_costs_nothing() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let mut client = rig.client().await;
    assert_eq!(client.get("/").await.status, 200);
    let address = a.address;
    a.kill().await;
    let back = Replica::start_at(address).await;
    // Not repeatable, and the pooled connection is dead: it must be seen that nothing was sent.
    assert_eq!(client.send(post("/", "x")).await.status, 200);
    assert_eq!((back.seen_count(), rig.stats().retries), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_big_pool_avoids_its_dead() {
    let mut replicas = Vec::new();
    for _ in 0..20 {
        replicas.push(Replica::start().await);
    }
    let all: Vec<&Replica> = replicas.iter().collect();
    let rig = Rig::before(&all);
    for dead in &replicas[..5] {
        dead.kill().await;
    }
    let load = Load::start(rig.public, 4, |id| with(get("/"), "x-id", id));
    load.more(600).await;
    let sent = load.finish().await;
    assert!(failed(&sent).is_empty(), "{:?}", failed(&sent));
    let used = replicas.iter().filter(|replica| replica.seen_count() > 0).count();
    assert_eq!(used, 15);
}

#[cfg(feature = "planted-bugs")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_planted_bug_loses_requests() {
    use standfast_gateway::{Config, Plant};
    let [a, b, _] = three().await;
    let config = Config { workers: 1, plant: Some(Plant::KeepDeadReplica), ..Config::default() };
    let rig = Rig::start_with(config, snapshot(endpoints(&[&a, &b])));
    let mut client = rig.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }
    b.kill().await;
    rig.publish_endpoints(|all| all.truncate(1)).await;
    let mut lost = 0;
    for _ in 0..100 {
        lost += usize::from(client.get("/").await.status != 200);
    }
    assert!(lost > 10, "{lost}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_no_replica_has_taken_is_said_to_be_undone() {
    let a = Replica::start().await;
    let mut world = snapshot(endpoints(&[&a]));
    let policy = &mut world.services.get_mut(&up()).unwrap().policy;
    (policy.timeout, policy.hold) = (Duration::from_millis(200), Duration::from_secs(5));
    let rig = Rig::start(world);
    let mut client = rig.client().await;
    assert_eq!(client.get("/").await.status, 200);
    a.kill().await;
    let answer = client.send(post("/", "x")).await;
    assert_eq!((answer.status, answer.header("standfast-reason")), (503, Some("no-replica-ready")));
}
