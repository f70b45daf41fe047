//! Header fields and bodies on their way through.

use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use standfast_runtime::Net;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::replica::Replica;
use crate::rig::{Rig, get, post, with};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_between_neighbours_stay_there_and_forwarding_is_the_gateways_word() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let mut request = get("/");
    for (name, value) in [
        ("connection", "x-mine"),
        ("x-mine", "1"),
        ("keep-alive", "timeout=9"),
        ("x-forwarded-for", "6.6.6.6"),
        ("forwarded", "for=6.6.6.6"),
        ("x-end-to-end", "1"),
    ] {
        request = with(request, name, value);
    }
    let answer = rig.client().await.send(request).await;
    let seen = a.seen()[0].headers.clone();
    for gone in ["connection", "x-mine", "keep-alive"] {
        assert!(!seen.contains_key(gone), "{gone}");
    }
    assert_eq!(seen["x-end-to-end"], "1");
    assert_eq!(seen["host"], "shop.test");
    assert_eq!(seen["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen["x-forwarded-proto"], "http");
    assert_eq!(seen["forwarded"], "for=127.0.0.1;host=\"shop.test\";proto=http");
    assert_eq!(answer.header("x-replica"), Some("1"));
    for gone in ["x-hop", "keep-alive", "connection"] {
        assert_eq!(answer.header(gone), None);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_of_any_size_pass_whole() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let mut client = rig.client().await;
    for size in [0, 1, 1_000, 64 << 10, (64 << 10) + 1, 3 << 20] {
        let body = Bytes::from(vec![b'x'; size]);
        assert_eq!(client.send(post("/", body.clone())).await.body.len(), size);
        assert_eq!(client.send(with(post("/", body.clone()), "idempotency-key", "k")).await.body.len(), size);
        let put = Request::put("/").header("host", "a").body(Full::new(body)).unwrap();
        assert_eq!(client.send(put).await.body.len(), size);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_of_unknown_length_streams() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let mut client = rig.client().await;
    let mut answer = client.begin(get("/parts")).await.unwrap();
    for part in ["one", "two", "three"] {
        // The next part is not made before this one was received.
        a.open_gate();
        let frame = answer.body_mut().frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), part);
    }
    assert!(answer.body_mut().frame().await.is_none());
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(a.connections(), 1, "and its connection is used again");
}

/// A request body of unknown length with trailers.
struct WithTrailers(Vec<http_body::Frame<Bytes>>);

impl http_body::Body for WithTrailers {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.pop().map(Ok))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_pass_in_both_directions() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    for key in [None, Some("k")] {
        let stream = Net::real().connect_tcp(rig.public).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), "42".parse().unwrap())]);
        let frames =
            vec![http_body::Frame::trailers(trailers), http_body::Frame::data(Bytes::from_static(b"body"))];
        let mut request = Request::post("/trailers").header("host", "a").header("te", "trailers");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.header("trailer", "x-sum").body(WithTrailers(frames)).unwrap();
        let answer = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
        assert_eq!(a.seen().last().unwrap().trailers.as_ref().unwrap()["x-sum"], "42");
        assert_eq!(answer.trailers().unwrap()["x-sum"], "42", "{key:?}");
        assert_eq!(answer.to_bytes(), "body");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_passes_and_a_drain_waits_for_it() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let mut stream = Net::real().connect_tcp(rig.public).await.unwrap();
    stream
        .write_all(b"GET /chat HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n")
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap().to_lowercase();
    assert!(head.starts_with("http/1.1 101") && head.contains("upgrade: websocket"), "{head}");
    for word in [b"hello", b"again"] {
        stream.write_all(word).await.unwrap();
        let mut echoed = [0; 5];
        stream.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, word);
    }
    let drained = rig.gateway.drain(std::time::Duration::from_millis(20)).await;
    assert_eq!(drained.cut_off, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_closes_its_connection_is_whole_and_the_next_gets_another() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let mut client = rig.client().await;
    for _ in 0..3 {
        assert_eq!(client.send(post("/bye", "last words")).await.body, "last words");
    }
    assert_eq!((a.connections(), rig.gateway.stats().accepted), (3, 1));
}
