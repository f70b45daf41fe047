//! WebSockets from clients that speak HTTP/2 (RFC 8441).

use bytes::Bytes;
use h2::ext::Protocol;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::h2::speaks_h2;
use crate::h2_rig::{H2, H2Replica, listener, part, read_all, send_data, soon};
use crate::replica::Replica;
use crate::rig::{Rig, endpoint, eventually, snapshot};

/// What answers a key (RFC 6455, 4.2.2).
pub(crate) fn accept_of(key: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hash = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, text.as_bytes());
    let bits: Vec<u8> =
        hash.as_ref().iter().flat_map(|byte| (0..8).rev().map(move |at| byte >> at & 1)).collect();
    let digit = |bits: &[u8]| {
        let value =
            (0..6).fold(0, |sum, at| sum * 2 + usize::from(bits.get(at).copied().unwrap_or_default()));
        char::from(ALPHABET[value])
    };
    bits.chunks(6).map(digit).chain(['=']).collect()
}

fn connect(protocol: &'static str) -> Request<()> {
    let request = Request::builder().method(Method::CONNECT).uri("http://shop.test/chat?room=1");
    let request = request.header("sec-websocket-version", "13").header("sec-websocket-protocol", "soup");
    request.extension(Protocol::from_static(protocol)).body(()).unwrap()
}

async fn ask(client: &H2) -> (Response<RecvStream>, SendStream<Bytes>) {
    let (answer, stream) = client.begin(connect("websocket"), false).await.unwrap();
    (soon("an answer", answer).await.unwrap(), stream)
}

/// A client that knows that it may ask.
async fn client(rig: &Rig) -> H2 {
    let client = H2::connect(rig.public).await;
    client.get("/warm").await;
    assert!(client.send.is_extended_connect_protocol_enabled());
    client
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_over_http_2_becomes_an_upgrade_and_a_tunnel() {
    let replica = Replica::start().await;
    let rig = Rig::before(&[&replica]);
    let client = client(&rig).await;
    let (answer, mut stream) = ask(&client).await;
    assert_eq!(answer.status(), 200);
    for gone in ["connection", "upgrade", "sec-websocket-accept", "content-length"] {
        assert!(!answer.headers().contains_key(gone), "{gone}");
    }
    let seen = replica.seen().pop().unwrap();
    assert_eq!(seen.target, "/chat?room=1");
    for (name, value) in [
        ("host", "shop.test"),
        ("upgrade", "websocket"),
        ("connection", "upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-protocol", "soup"),
    ] {
        assert_eq!(seen.headers[name], value, "{name}");
    }
    assert_eq!(seen.headers["sec-websocket-key"].len(), 24);
    let mut body = answer.into_body();
    for round in 0..20 {
        let message = Bytes::from(format!("message {round}"));
        stream.send_data(message.clone(), false).unwrap();
        assert_eq!(soon("the echo", part(&mut body)).await.unwrap().unwrap(), message);
    }
    // More than all windows hold, both ways at a time; requests go beside it.
    let much: Bytes = (0..3_u32 << 20).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let sending = async { send_data(&mut stream, much.clone(), true).await.unwrap() };
    let (other, ((), back)) = tokio::join!(
        client.get("/beside"),
        soon("all of it", async { tokio::join!(sending, read_all(body)) })
    );
    assert!(back.unwrap().0 == much);
    assert_eq!(other.status, 200);
    // Both ends have ended: nothing is left.
    eventually("it is over", || rig.endpoint_stats(&replica).in_flight == 0).await;
    assert_eq!(rig.stats().abandoned, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_side_may_break_a_websocket_off() {
    let (listener, address) = listener().await;
    let rig = Rig::start(snapshot(vec![endpoint(0, address)]));
    let client = H2::connect(rig.public).await;
    // The client, also after it has said all.
    for has_ended in [false, true] {
        let opening = client.begin(connect("websocket"), false);
        let (answer, mut stream) = opening.await.unwrap();
        let mut replica = upgraded(&listener, "101 Switching Protocols", accept_of).await;
        assert_eq!(soon("an answer", answer).await.unwrap().status(), 200);
        stream.send_data("last words".into(), has_ended).unwrap();
        soon("the words", replica.read_exact(&mut [0; 10])).await.unwrap();
        stream.send_reset(Reason::CANCEL);
        let _reset_or_end = soon("the replica is told", replica.read(&mut [0; 1])).await;
        eventually("it is over", || rig.endpoint_stats_at(address).in_flight == 0).await;
    }
    // The replica, at once behind its answer.
    let (answer, _stream) = client.begin(connect("websocket"), false).await.unwrap();
    let mut replica = upgraded(&listener, "101 Switching Protocols", accept_of).await;
    replica.write_all(b"bye").await.unwrap();
    let answer = soon("an answer", answer).await.unwrap();
    socket2::SockRef::from(&replica).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    let mut body = answer.into_body();
    assert_eq!(soon("its words", part(&mut body)).await.unwrap().unwrap(), "bye");
    drop(replica);
    let error = soon("the reset", read_all(body)).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::CANCEL));
    eventually("it is over", || rig.stats().in_flight == 0).await;
}

/// Takes a connection and answers its upgrade.
async fn upgraded(
    listener: &tokio::net::TcpListener,
    status: &str,
    accept: impl Fn(&str) -> String,
) -> TcpStream {
    let (mut stream, _) = soon("a connection", listener.accept()).await.unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        head.push(soon("the request", stream.read_u8()).await.unwrap().into());
    }
    let key = head.lines().find_map(|line| line.strip_prefix("sec-websocket-key: ")).unwrap();
    let accept = accept(key);
    let fields = format!("upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: {accept}\r\n");
    let length = if status.starts_with("101") { "" } else { "content-length: 2\r\n" };
    let answer = format!("HTTP/1.1 {status}\r\n{fields}{length}\r\n");
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_agrees_to_no_websocket_looks_like_none() {
    let (listener, address) = listener().await;
    let rig = Rig::start(snapshot(vec![endpoint(0, address)]));
    let client = H2::connect(rig.public).await;
    for (status, right_key, expected) in [
        ("101 Switching Protocols", false, 502),
        ("200 OK", true, 502),
        ("403 Forbidden", true, 403),
        ("426 Upgrade Required", true, 426),
    ] {
        let (answer, _stream) = client.begin(connect("websocket"), false).await.unwrap();
        let of =
            |key: &str| if right_key { accept_of(key) } else { "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned() };
        let mut replica = upgraded(&listener, status, of).await;
        let _gone_or_not = replica.write_all(b"no").await;
        let answer = soon("an answer", answer).await.unwrap();
        assert_eq!(answer.status(), expected, "{status}");
        let reason =
            answer.headers().get("standfast-reason").map(|reason| reason.to_str().unwrap().to_owned());
        assert_eq!(reason.as_deref(), (expected == 502).then_some("no-websocket"), "{status}");
        if expected != 502 {
            assert_eq!(soon("the body", read_all(answer.into_body())).await.unwrap().0, b"no");
        }
        drop(replica);
        eventually("it is over", || rig.endpoint_stats_at(address).in_flight == 0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_tunnels_are_refused() {
    let (old, new) = (Replica::start().await, H2Replica::start().await);
    let rig = Rig::before(&[&old]);
    let client_of_old = client(&rig).await;
    let before = old.seen_count();
    for request in [connect("connect-udp"), Request::connect("shop.test:80").body(()).unwrap()] {
        let (answer, _stream) = client_of_old.begin(request, false).await.unwrap();
        assert_eq!(soon("an answer", answer).await.unwrap().status(), 501);
    }
    assert_eq!(old.seen_count(), before);
    // A replica that speaks HTTP/2 is not asked for one yet: whatever it answers is no tunnel.
    let rig = Rig::start(speaks_h2(&[new.address]));
    let (answer, _stream) = ask(&client(&rig).await).await;
    assert_eq!(answer.status(), 502);
}
