//! Services whose connections are passed on as they are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use standfast_gateway::{ListenerKind, Snapshot};
use standfast_model::Protocol;
use standfast_runtime::{Clock, Net};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::h2_rig::soon;
use crate::rig::{Rig, endpoint, eventually, listen_and_hold, one_worker, raw, snapshot, up, zone};

/// Says hello, sends back what comes, and says goodbye after the client's end. It dies when dropped.
struct Echo {
    address: SocketAddr,
    open: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
    _port: socket2::Socket,
}

impl Echo {
    async fn start() -> Self {
        let (listener, port) = listen_and_hold(([127, 0, 0, 1], 0).into()).await;
        let (address, open) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
        let mut tasks = JoinSet::new();
        let count = Arc::clone(&open);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let count = Arc::clone(&count);
                connections.spawn(async move {
                    count.fetch_add(1, Ordering::SeqCst);
                    let _broken_off = serve(&mut stream).await;
                    count.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, open, tasks, _port: port }
    }

    fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

async fn serve(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"hello").await?;
    let (mut from, mut to) = stream.split();
    tokio::io::copy(&mut from, &mut to).await?;
    to.write_all(b"goodbye").await?;
    to.shutdown().await
}

fn passing(addresses: &[SocketAddr], hold: Duration) -> Snapshot {
    let all = addresses.iter().zip(0..).map(|(address, slot)| endpoint(slot, *address)).collect();
    let mut snapshot = snapshot(all);
    let policy = &mut snapshot.services.get_mut(&up()).unwrap().policy;
    (policy.protocol, policy.hold) = (Protocol::Tcp, hold);
    snapshot
}

fn rig(addresses: &[SocketAddr], hold: Duration) -> Rig {
    let kind = ListenerKind::Service { service: up(), caller_zone: None };
    Rig::start_as(kind, one_worker(), passing(addresses, hold))
}

const HOLD: Duration = Duration::from_secs(5);

/// A connection whose replica has said hello.
async fn greeted(rig: &Rig) -> TcpStream {
    let mut stream = Net::real().connect_tcp(rig.public).await.unwrap();
    let mut hello = [0; 5];
    soon("hello", stream.read_exact(&mut hello)).await.unwrap();
    assert_eq!(&hello, b"hello");
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_pass_both_ways_until_both_sides_have_ended() {
    let replica = Echo::start().await;
    let rig = rig(&[replica.address], HOLD);
    // The replica speaks first, the client ends first.
    let mut stream = greeted(&rig).await;
    let sent: Vec<u8> = (0..2_u32 << 20).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let (mut from, mut to) = stream.split();
    let mut came = Vec::new();
    let (written, read) = soon("all", async {
        let writing = async {
            to.write_all(&sent).await?;
            to.shutdown().await
        };
        tokio::join!(writing, from.read_to_end(&mut came))
    })
    .await;
    written.unwrap();
    read.unwrap();
    assert!(came.strip_suffix(b"goodbye") == Some(&sent), "{} of {}", came.len(), sent.len());
    eventually("it is over", || {
        rig.gateway.stats().connections == 0 && rig.endpoint_stats_at(replica.address).in_flight == 0
    })
    .await;
    assert_eq!(rig.stats().requests, 1);
    // A client that breaks off takes the replica's end with it.
    let stream = greeted(&rig).await;
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    eventually("the replica is told", || replica.open() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_one_with_the_fewest_connections_is_taken() {
    let mut seen = Vec::new();
    // Connecting takes microseconds here: a machine that stands still in the middle of one makes a replica look slow by orders of
    // magnitude, and it is then rightly passed over for a while. That does not happen every time.
    for _ in 0..5 {
        let (a, b) = (Echo::start().await, Echo::start().await);
        let rig = rig(&[a.address, b.address], HOLD);
        let mut open = Vec::new();
        for _ in 0..10 {
            open.push(greeted(&rig).await);
        }
        assert_eq!(a.open() + b.open(), 10);
        assert_eq!(rig.endpoint_stats_at(a.address).in_flight, a.open() as u64);
        seen.push(a.open());
        if (3..=7).contains(&a.open()) {
            return;
        }
    }
    panic!("of 10 connections one of two replicas had {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_replica_is_passed_over_and_breaks_what_it_had() {
    let (mut a, b) = (Echo::start().await, Echo::start().await);
    let rig = rig(&[a.address, b.address], HOLD);
    let mut open = Vec::new();
    while a.open() == 0 {
        open.push(greeted(&rig).await);
    }
    a.tasks.shutdown().await;
    let mut broken = 0;
    for stream in &mut open {
        stream.write_all(b"x").await.unwrap();
        broken += usize::from(!matches!(soon("a byte or the end", stream.read(&mut [0; 1])).await, Ok(1)));
    }
    assert_eq!(broken, open.len() - b.open());
    // It is tried, if not at once: a machine that stood still may have made it look slow.
    let is_tried = async {
        while rig.endpoint_stats_at(a.address).refused == 0 {
            greeted(&rig).await;
        }
    };
    soon("the dead one is tried and passed over", is_tried).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_waits_for_a_replica_but_not_for_ever() {
    let replica = Echo::start().await;
    let waiting = rig(&[], HOLD);
    let (_stream, ()) = tokio::join!(greeted(&waiting), async {
        eventually("it waits", || waiting.stats().requests == 1).await;
        waiting.publish_endpoints(|all| all.push(endpoint(0, replica.address))).await;
    });
    let hold = Duration::from_millis(100);
    let empty = rig(&[], hold);
    let (clock, began) = (Clock::system(), Clock::system().now());
    assert_eq!(raw(empty.public, b"").await, "");
    assert!(clock.now().since(began) >= hold);
    assert_eq!(empty.stats().no_replica, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_waits_for_connections_and_then_cuts_them_off() {
    let replica = Echo::start().await;
    let rig = rig(&[replica.address], HOLD);
    let (mut stays, leaves) = (greeted(&rig).await, greeted(&rig).await);
    let (drained, ()) = tokio::join!(rig.gateway.drain(Duration::from_millis(50)), async {
        drop(leaves);
        // Until it is cut off it works.
        stays.write_all(b"x").await.unwrap();
        assert!(stays.read(&mut [0; 1]).await.is_ok());
    });
    assert_eq!(drained.cut_off, 1);
    assert!(!matches!(soon("the end", stays.read(&mut [0; 1])).await, Ok(1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_say_where_it_is_is_where_the_gateway_is() {
    let (here, there) = (Echo::start().await, Echo::start().await);
    let mut world = passing(&[here.address, there.address], HOLD);
    world.gateway_zone = Some(zone("b"));
    world.services.get_mut(&up()).unwrap().endpoints[0].zone = zone("b");
    let kind = ListenerKind::Service { service: up(), caller_zone: None };
    let rig = Rig::start_as(kind, one_worker(), world);
    for _ in 0..6 {
        drop(greeted(&rig).await);
        eventually("it is over", || rig.gateway.stats().connections == 0).await;
    }
    assert_eq!(
        (rig.endpoint_stats_at(here.address).attempts, rig.endpoint_stats_at(there.address).attempts),
        (6, 0)
    );
}
