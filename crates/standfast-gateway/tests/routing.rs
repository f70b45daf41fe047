//! Where requests go.

use std::time::Duration;

use standfast_gateway::{Config, EndpointState, ListenerInput, ListenerKind, Pool};
use standfast_model::{PathMatch, Route, Target};

use crate::replica::{Mood, Replica};
use crate::rig::{Client, Load, Rig, endpoint, endpoints, eventually, get, snapshot, socket, up, zone};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_kept_on_both_sides() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let mut client = rig.client().await;
    for _ in 0..50 {
        let answer = client.get("/a?b=c").await;
        assert_eq!((answer.status, answer.header("x-replica")), (200, Some("1")));
    }
    assert_eq!((a.connections(), a.seen_count()), (1, 50));
    assert_eq!(a.seen()[0].target, "/a?b=c");
    let stats = rig.gateway.stats();
    assert_eq!((stats.accepted, stats.connections), (1, 1));
    let service = rig.stats();
    assert_eq!((service.requests, service.answered.ok, service.in_flight), (50, 50, 0));
    assert_eq!(rig.endpoint_stats(&a).attempts, 50);
    assert!(service.latency_sum > Duration::ZERO);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_and_paths_choose_the_service_and_none_is_a_404() {
    let (shop, other) = (Replica::start().await, Replica::start().await);
    let mut world = snapshot(endpoints(&[&shop]));
    world.services.insert(
        "other".parse().unwrap(),
        Pool { endpoints: vec![endpoint(9, other.address)], ..Pool::default() },
    );
    let target = |name: &str| vec![Target { service: name.parse().unwrap(), weight: 1 }];
    world.routes = vec![
        Route { host: Some("shop.test".into()), ..Route::prefix("/", target("up")) },
        Route { host: Some("shop.test".into()), ..Route::prefix("/other", target("other")) },
    ];
    let rig = Rig::start(world);
    let mut client = rig.client().await;
    client.get("/x").await;
    client.get("/other/1").await;
    assert_eq!((shop.seen_count(), other.seen_count()), (1, 1));
    let mut elsewhere = get("/");
    elsewhere.headers_mut().insert("host", "nowhere.test".parse().unwrap());
    let answer = client.send(elsewhere).await;
    assert_eq!((answer.status, answer.header("standfast-reason")), (404, Some("no-route")));
    assert_eq!(rig.gateway.stats().refused, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_replicas_share_the_load() {
    let replicas = [Replica::start().await, Replica::start().await, Replica::start().await];
    let rig = Rig::before(&replicas.each_ref());
    let load = Load::start(rig.public, 6, |_| get("/"));
    load.more(300).await;
    load.finish().await;
    for replica in &replicas {
        assert!(replica.seen_count() > 30, "{:?}", replicas.each_ref().map(Replica::seen_count));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_callers_zone_comes_first_and_others_take_over_when_it_is_slow() {
    let (here, there) = (Replica::start().await, Replica::start().await);
    let mut all = endpoints(&[&here, &there]);
    all[0].zone = zone("b");
    let rig = Rig::start(snapshot(all));
    let inner = socket();
    let address = inner.local_addr().unwrap();
    let kind = ListenerKind::Service { service: up(), caller_zone: Some(zone("b")) };
    let listeners = vec![ListenerInput { kind, sockets: vec![inner] }];
    rig.gateway.set_listeners(listeners).await.unwrap();
    let mut client = Client::connect(address).await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert_eq!((here.seen_count(), there.seen_count()), (50, 0));
    here.set(Mood::Slow(Duration::from_millis(100)));
    let load = Load::start(address, 8, |_| get("/"));
    load.more(100).await;
    load.finish().await;
    assert!(there.seen_count() > 50, "{}", there.seen_count());
    here.kill().await;
    assert_eq!(client.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_replica_ends_its_request_and_gets_no_other() {
    let (a, b) = (Replica::start().await, Replica::start().await);
    let rig = Rig::before(&[&a]);
    let mut running = rig.client().await;
    let (answer, ()) = tokio::join!(running.get("/gated"), async {
        eventually("it runs", || a.running() == 1).await;
        rig.publish_endpoints(|all| {
            *all = endpoints(&[&a, &b]);
            all[0].state = EndpointState::Draining;
        })
        .await;
        let mut client = rig.client().await;
        for _ in 0..20 {
            client.get("/").await;
        }
        rig.publish_endpoints(|all| drop(all.remove(0))).await;
        client.get("/").await;
        assert_eq!((a.seen_count(), b.seen_count()), (1, 21));
        a.open_gate();
    });
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_snapshot_touches_no_open_connection() {
    let (a, b) = (Replica::start().await, Replica::start().await);
    let rig = Rig::before(&[&a]);
    let mut client = rig.client().await;
    assert_eq!(client.get("/").await.status, 200);
    for round in 0..200 {
        rig.publish(|world| {
            let endpoints = if round % 2 == 0 { endpoints(&[&b]) } else { endpoints(&[&a]) };
            world.services.get_mut(&up()).unwrap().endpoints = endpoints;
            world.routes[0].path = PathMatch::Prefix(if round % 2 == 0 { "/" } else { "/x" }.into());
        })
        .await;
        assert_eq!(client.get("/x/y").await.status, 200);
    }
    assert_eq!(rig.gateway.stats().accepted, 1);
    assert_eq!((a.seen_count(), b.seen_count()), (101, 100));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_workers_share_the_connections_of_one_socket() {
    let a = Replica::start().await;
    let config = Config { workers: 3, ..Config::default() };
    let rig = Rig::start_with(config, snapshot(endpoints(&[&a])));
    let load = Load::start(rig.public, 12, |_| get("/"));
    load.more(200).await;
    let sent = load.finish().await;
    assert!(sent.iter().all(crate::rig::Sent::is_ok));
    assert_eq!(rig.stats().requests, u64::try_from(sent.len()).unwrap());
}
