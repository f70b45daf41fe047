//! The PROXY protocol before plain connections and before TLS.

use standfast_gateway::{ListenerKind, Snapshot};
use standfast_model::Edge;
use standfast_runtime::Net;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::h2_rig::{H2, soon};
use crate::replica::Replica;
use crate::rig::{Rig, endpoints, eventually, one_worker, raw, snapshot};
use crate::tls::{TlsRig, ask, client, handshake};

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 443\r\n";
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: shop.test\r\nconnection: close\r\n\r\n";

/// With an extension of three bytes.
fn v2() -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x27".to_vec();
    let addresses: [&str; 2] = ["2001:db8::7", "2001:db8::1"];
    for address in addresses {
        bytes.extend_from_slice(&address.parse::<std::net::Ipv6Addr>().unwrap().octets());
    }
    bytes.extend_from_slice(&[0xdc, 4, 1, 0xbb, 4, 0, 0]);
    bytes
}

fn expecting(replica: &Replica) -> Snapshot {
    let edge = Edge { proxy_protocol: true, ..Edge::default() };
    Snapshot { edge: Some(edge), ..snapshot(endpoints(&[replica])) }
}

fn forwarded_for(replica: &Replica) -> String {
    replica.seen().last().unwrap().headers["x-forwarded-for"].to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_address_that_the_balancer_says_is_the_clients() {
    let replica = Replica::start().await;
    let rig = Rig::start(expecting(&replica));
    for (header, address) in [
        (V1.to_vec(), "203.0.113.7"),
        (v2(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(), "127.0.0.1"),
    ] {
        let answer = raw(rig.public, &[header, REQUEST.to_vec()].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(forwarded_for(&replica), address);
    }
    // HTTP/2 with prior knowledge.
    let mut stream = Net::real().connect_tcp(rig.public).await.unwrap();
    stream.write_all(V1).await.unwrap();
    assert_eq!(H2::over(stream).await.get("/").await.status, 200);
    assert_eq!(forwarded_for(&replica), "203.0.113.7");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_header_comes_before_tls() {
    let replica = Replica::start().await;
    let rig = TlsRig::start(expecting(&replica));
    for header in [V1.to_vec(), v2()] {
        let mut stream = Net::real().connect_tcp(rig.rig.public).await.unwrap();
        stream.write_all(&header).await.unwrap();
        let mut stream = handshake(stream, "shop.test", client(&[], None)).await.unwrap();
        assert!(ask(&mut stream).await.unwrap().starts_with("HTTP/1.1 200"));
    }
    assert_eq!(forwarded_for(&replica), "2001:db8::7");
    assert!(rig.connect("shop.test", &[]).await.is_err(), "without the header");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_may_come_byte_by_byte() {
    let replica = Replica::start().await;
    let rig = Rig::start(expecting(&replica));
    for (header, address) in [(V1.to_vec(), "203.0.113.7"), (v2(), "2001:db8::7")] {
        let mut stream = Net::real().connect_tcp(rig.public).await.unwrap();
        for byte in header {
            stream.write_all(&[byte]).await.unwrap();
            // A look at something else lets the gateway see the byte by itself.
            raw(rig.public, b"x").await;
        }
        stream.write_all(REQUEST).await.unwrap();
        let mut answer = String::new();
        soon("the answer", stream.read_to_string(&mut answer)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(forwarded_for(&replica), address);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_legal_header_nothing_is_served() {
    let replica = Replica::start().await;
    let rig = Rig::start(expecting(&replica));
    let bad: [&[u8]; 6] = [
        REQUEST,
        b"PROXY TCP4 nobody 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 203.0.113.7 192.0.2.1 1 2\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        &[b'P'; 200],
    ];
    for header in bad {
        let answer = raw(rig.public, &[header, REQUEST].concat()).await;
        assert_eq!(answer, "", "{}", String::from_utf8_lossy(header));
    }
    let long = [b"PROXY UNKNOWN ", &[b'x'; 200][..], b"\r\n", REQUEST].concat();
    assert_eq!(raw(rig.public, &long).await, "");
    assert_eq!((replica.seen_count(), rig.gateway.stats().refused), (0, 7));
    // Where none is expected none is read, nor between services.
    let open = Rig::before(&[&replica]);
    let answer = raw(open.public, &[V1, REQUEST].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 505"), "{answer}");
    let kind = ListenerKind::Service { service: crate::rig::up(), caller_zone: None };
    let inner = Rig::start_as(kind, one_worker(), expecting(&replica));
    assert!(raw(inner.public, REQUEST).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancers_connections_count_for_whom_they_speak() {
    let replica = Replica::start().await;
    let mut world = expecting(&replica);
    world.edge.as_mut().unwrap().limits.connections_per_client_max = 2;
    let rig = Rig::start(world);
    let of = |last: u8| format!("PROXY TCP4 203.0.113.{last} 192.0.2.1 1 2\r\n");
    const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut open = Vec::new();
    // Far more than two of one balancer, two of each client.
    for number in 0..8 {
        let mut stream = Net::real().connect_tcp(rig.public).await.unwrap();
        stream.write_all(&[of(number / 2).as_bytes(), ASK].concat()).await.unwrap();
        let mut start = [0; 12];
        soon("an answer", stream.read_exact(&mut start)).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200", "{number}");
        open.push(stream);
    }
    assert_eq!(raw(rig.public, &[of(1).as_bytes(), ASK].concat()).await, "");
    // One that leaves makes room for its own client, and for no other.
    drop(open.remove(2));
    eventually("it has left", || rig.gateway.stats().connections == 7).await;
    assert_eq!(raw(rig.public, &[of(2).as_bytes(), ASK].concat()).await, "");
    let answer = raw(rig.public, &[of(1).as_bytes(), REQUEST].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(open);
    eventually("nothing is left", || rig.gateway.stats().connections == 0).await;
}
