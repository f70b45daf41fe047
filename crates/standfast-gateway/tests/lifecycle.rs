//! Listeners come and go, the gateway ends.

use std::time::Duration;

use standfast_gateway::{ListenerInput, ListenerKind};
use standfast_runtime::Net;

use crate::replica::Replica;
use crate::rig::{Client, Rig, eventually, get, socket, up};

fn input(kind: ListenerKind, socket: &std::net::TcpListener) -> ListenerInput {
    ListenerInput { kind, sockets: vec![socket.try_clone().unwrap()] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_come_and_go_without_touching_open_connections() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let mut old = rig.client().await;
    assert_eq!(old.get("/").await.status, 200);
    let inner = socket();
    let service = || ListenerKind::Service { service: up(), caller_zone: None };
    let both = vec![input(ListenerKind::Public, &rig.socket), input(service(), &inner)];
    rig.gateway.set_listeners(both).await.unwrap();
    let mut new = Client::connect(inner.local_addr().unwrap()).await;
    assert_eq!((old.get("/").await.status, new.get("/").await.status), (200, 200));
    assert_eq!(rig.client().await.get("/").await.status, 200);
    rig.gateway.set_listeners(vec![input(service(), &inner)]).await.unwrap();
    assert_eq!((old.get("/").await.status, new.get("/").await.status), (200, 200));
    // The agent still holds the socket: who connects now waits for whoever accepts next.
    let mut waiting = rig.client().await;
    let (answer, ()) = tokio::join!(waiting.get("/"), async {
        rig.gateway.set_listeners(vec![input(ListenerKind::Public, &rig.socket)]).await.unwrap();
    });
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_running_requests_and_then_the_threads() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let (mut running, mut idle) = (rig.client().await, rig.client().await);
    assert_eq!(idle.get("/").await.status, 200);
    let (answer, drained, ()) = tokio::join!(
        running.get("/gated"),
        async {
            eventually("it runs", || a.running() == 1).await;
            rig.gateway.drain(Duration::from_secs(10)).await
        },
        async {
            eventually("idle connections are closed", || idle.is_closed()).await;
            a.open_gate();
        }
    );
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    assert_eq!(drained.cut_off, 0);
    // The sockets are the agent's: the kernel still takes connections.
    Net::real().connect_tcp(rig.public).await.unwrap();
    assert_eq!(rig.gateway.drain(Duration::ZERO).await.cut_off, 0);
    assert!(rig.gateway.set_listeners(vec![]).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_cuts_off_what_does_not_end_in_time() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let mut running = rig.client().await;
    let (answer, drained) = tokio::join!(running.try_send(get("/gated")), async {
        eventually("it runs", || a.running() == 1).await;
        rig.gateway.drain(Duration::from_millis(20)).await
    });
    assert!(answer.is_err());
    assert_eq!(drained.cut_off, 1);
    eventually("the replica is told", || a.running() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_takes_its_request_with_it() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let mut leaving = rig.client().await;
    tokio::select! {
        biased;
        _ = leaving.get("/gated") => panic!("nobody opened the gate"),
        () = eventually("it runs", || a.running() == 1) => {}
    }
    drop(leaving);
    eventually("the replica is told", || a.running() == 0).await;
    eventually("it is counted", || rig.stats().abandoned == 1).await;
    assert_eq!((rig.stats().in_flight, rig.endpoint_stats(&a).in_flight), (0, 0));
}
