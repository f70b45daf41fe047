//! What routes and services say of traffic, as requests see it.

use standfast_gateway::{Pool, Snapshot};
use standfast_model::{
    Balance, Concurrency, Filters, HashKey, HeaderChanges, Mirror, PathMatch, PathRewrite, RateLimit,
    RatePer, Redirect, Rewrite, Route, ServiceName, Target, Traffic,
};
use standfast_runtime::Net;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::replica::{Mood, Replica};
use crate::rig::{Rig, endpoints, eventually, get, post, snapshot, up, with};

fn to_up() -> Vec<Target> {
    vec![Target { service: up(), weight: 1 }]
}

fn by_route(replicas: &[&Replica], route: Route) -> Rig {
    Rig::start(Snapshot { routes: vec![route], ..snapshot(endpoints(replicas)) })
}

fn by_policy(replicas: &[&Replica], policy: Traffic) -> Rig {
    let mut world = snapshot(endpoints(replicas));
    world.services.get_mut(&up()).unwrap().policy = policy;
    Rig::start(world)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_changes_what_the_replica_and_what_the_client_sees() {
    let a = Replica::start().await;
    let pair = |name: &str, value: &str| [(name.to_owned(), value.to_owned())].into();
    let filters = Filters {
        rewrite: Some(Rewrite { host: Some("inner".into()), path: Some(PathRewrite::Prefix("/new".into())) }),
        request_headers: HeaderChanges {
            remove: vec!["x-secret".into()],
            set: pair("x-set", "1"),
            ..HeaderChanges::default()
        },
        response_headers: HeaderChanges {
            remove: vec!["x-replica".into()],
            add: pair("x-edge", "2"),
            ..HeaderChanges::default()
        },
        ..Filters::default()
    };
    let rig = by_route(&[&a], Route { filters, ..Route::prefix("/old", to_up()) });
    let answer = rig.client().await.send(with(get("/old/x?q=1"), "x-secret", "s")).await;
    assert_eq!((answer.header("x-edge"), answer.header("x-replica")), (Some("2"), None));
    let seen = &a.seen()[0];
    assert_eq!((seen.target.as_str(), &seen.headers["host"]), ("/new/x?q=1", &"inner".parse().unwrap()));
    assert!(seen.headers.contains_key("x-set") && !seen.headers.contains_key("x-secret"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirect_asks_no_service() {
    let redirect = Redirect {
        scheme: Some("https".into()),
        host: None,
        port: None,
        path: Some(PathRewrite::Full("/there".into())),
        status: 308,
    };
    let filters = Filters { redirect: Some(redirect), ..Filters::default() };
    let rig = by_route(&[], Route { filters, ..Route::prefix("/", Vec::new()) });
    let answer = rig.client().await.get("/here?q=1").await;
    assert_eq!((answer.status, answer.header("location")), (308, Some("https://shop.test/there?q=1")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rate_limit_counts_each_key_by_itself_and_says_when_to_come_again() {
    let a = Replica::start().await;
    let limit = RateLimit { rate_per_second: 0.1, burst: 2, per: RatePer::Header("x-tenant".into()) };
    let rig = by_route(&[&a], Route { rate_limits: vec![limit], ..Route::prefix("/", to_up()) });
    let mut client = rig.client().await;
    for (tenant, status) in [("a", 200), ("a", 200), ("a", 429), ("b", 200), ("a", 429)] {
        let answer = client.send(with(get("/"), "x-tenant", tenant)).await;
        assert_eq!(answer.status, status, "{tenant}");
        let wait = answer.header("retry-after").map(|wait| wait.parse::<u64>().unwrap());
        assert!(wait.is_some_and(|wait| (1..=10).contains(&wait)) == (status == 429), "{wait:?}");
    }
    assert_eq!(a.seen_count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_routes_places_are_taken_until_its_answers_have_gone() {
    let a = Replica::start().await;
    let rig = by_route(&[&a], Route { concurrency_max: Some(1), ..Route::prefix("/", to_up()) });
    let (mut first, mut second) = (rig.client().await, rig.client().await);
    let (gated, ()) = tokio::join!(first.get("/gated"), async {
        eventually("one runs", || a.running() == 1).await;
        let refused = second.get("/").await;
        assert_eq!((refused.status, refused.header("standfast-reason")), (503, Some("route-full")));
        a.open_gate();
    });
    assert_eq!((gated.status, second.get("/").await.status), (200, 200));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirrored_request_is_copied_and_its_answer_dropped() {
    let (a, copy) = (Replica::start().await, Replica::start().await);
    copy.set(Mood::Status(http::StatusCode::INTERNAL_SERVER_ERROR, Vec::new()));
    let audit: ServiceName = "audit".parse().unwrap();
    let mut world = snapshot(endpoints(&[&a]));
    world.services.insert(audit.clone(), Pool { endpoints: endpoints(&[&copy]), policy: Traffic::default() });
    let filters = Filters { mirror: Some(Mirror { to: audit, percent: 100.0 }), ..Filters::default() };
    world.routes = vec![Route { filters, ..Route::prefix("/", to_up()) }];
    let rig = Rig::start(world);
    let answer = rig.client().await.send(with(post("/pay", "x"), "idempotency-key", "k")).await;
    assert_eq!((answer.status, answer.text()), (200, "x"));
    eventually("the copy arrives", || copy.seen_count() == 1).await;
    assert_eq!((a.seen_count(), copy.seen()[0].target.as_str()), (1, "/pay"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_stays_at_its_replica_until_that_one_dies() {
    let all = [Replica::start().await, Replica::start().await, Replica::start().await];
    let [a, b, c] = &all;
    let hash = Balance::Hash(HashKey::Header("x-user".into()));
    let rig = by_policy(&[a, b, c], Traffic { balance: hash, ..Traffic::default() });
    let mut client = rig.client().await;
    for user in 0..12 {
        for _ in 0..5 {
            assert_eq!(client.send(with(get("/"), "x-user", &user.to_string())).await.status, 200);
        }
    }
    let counts = all.iter().map(Replica::seen_count).collect::<Vec<_>>();
    assert!(counts.iter().all(|count| count % 5 == 0) && counts.iter().sum::<usize>() == 60, "{counts:?}");
    let home = all.iter().position(|replica| replica.seen().iter().any(|seen| seen.headers["x-user"] == "3"));
    all[home.unwrap()].kill().await;
    assert_eq!(client.send(with(get("/"), "x-user", "3")).await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn round_robin_takes_one_after_the_other() {
    let (a, b) = (Replica::start().await, Replica::start().await);
    let rig = by_policy(&[&a, &b], Traffic { balance: Balance::RoundRobin, ..Traffic::default() });
    let mut client = rig.client().await;
    for _ in 0..10 {
        client.get("/").await;
    }
    assert_eq!((a.seen_count(), b.seen_count()), (5, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_finds_no_place_waits_a_little_and_is_then_turned_away() {
    let a = Replica::start().await;
    let rig = by_policy(&[&a], Traffic { concurrency: Concurrency::Fixed(1), ..Traffic::default() });
    let (mut first, mut second) = (rig.client().await, rig.client().await);
    let (gated, ()) = tokio::join!(first.get("/gated"), async {
        eventually("one runs", || a.running() == 1).await;
        let shed = second.get("/").await;
        assert_eq!((shed.status, shed.header("standfast-reason")), (503, Some("overloaded")));
        assert!(shed.header("retry-after").is_some());
        a.open_gate();
    });
    assert_eq!((gated.status, second.get("/").await.status), (200, 200));
    assert_eq!((rig.stats().shed, a.seen_count()), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_of_unknown_length_is_repeated_when_its_request_has_a_key() {
    let (a, b) = (Replica::start().await, Replica::start().await);
    let rig = Rig::before(&[&a, &b]);
    a.set(Mood::Breaks);
    for _ in 0..6 {
        let mut stream = Net::real().connect_tcp(rig.public).await.unwrap();
        let request = "POST /pay HTTP/1.1\r\nhost: a\r\nidempotency-key: k\r\nconnection: close\r\n\
                       transfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("onetwo"), "{answer}");
    }
    assert!(a.seen_count() > 0, "the broken one was tried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_that_hide_where_they_lead_are_refused() {
    let a = Replica::start().await;
    let admin = Route { path: PathMatch::Exact("/admin".into()), ..Route::prefix("/admin", to_up()) };
    let rig = by_route(&[&a], admin);
    for (path, status) in
        [("/x/%2e%2e/admin", 400), ("/../admin", 400), ("/x/../admin", 200), ("/%61dmin", 200)]
    {
        assert_eq!(rig.client().await.get(path).await.status, status, "{path}");
    }
}
