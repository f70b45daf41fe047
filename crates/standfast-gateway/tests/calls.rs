//! Calls from within the process: what a client at a listener is promised, without a socket.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use standfast_gateway::{CallError, Caller};

use crate::replica::Replica;
use crate::rig::{Rig, eventually, snapshot, up};

/// Longest answer that these tests take.
const BYTES_MAX: usize = 1 << 16;

fn request(method: Method, path: &str, body: &'static str) -> Request<Bytes> {
    Request::builder().method(method).uri(format!("http://up{path}")).body(body.into()).unwrap()
}

async fn call(caller: &Caller, request: Request<Bytes>) -> Result<Response<Bytes>, CallError> {
    caller.call(&up(), request, BYTES_MAX).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_is_a_request_like_others() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let caller = rig.gateway.caller();
    let mut asked = request(Method::POST, "/x?q=1", "{}");
    for (name, value) in
        [("idempotency-key", "k"), ("connection", "close"), ("host", "elsewhere"), ("content-length", "99")]
    {
        asked.headers_mut().append(name, value.parse().unwrap());
    }
    let answer = call(&caller, asked).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.headers().contains_key("standfast-request-id"));
    let seen = &a.seen()[0];
    assert_eq!(seen.target, "/x?q=1");
    assert_eq!(
        (&seen.headers["host"], &seen.headers["content-length"]),
        (&"up".parse().unwrap(), &"2".parse().unwrap())
    );
    assert_eq!(seen.headers["idempotency-key"], "k");
    eventually("it is counted", || rig.stats().requests == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_gateway_refuses_is_an_answer_with_its_reason() {
    let rig = Rig::start(snapshot(Vec::new()));
    let answer = call(&rig.gateway.caller(), request(Method::GET, "/", "")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.headers()["standfast-reason"], "no-replica-ready");
    let strange = Request::get("http://up/").header("standfast-deadline", "soon").body(Bytes::new()).unwrap();
    let answer = call(&rig.gateway.caller(), strange).await.unwrap();
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_too_long_is_not_kept() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let asked = request(Method::POST, "/", "abc");
    let answer = rig.gateway.caller().call(&up(), asked, 2).await;
    assert_eq!(answer.unwrap_err(), CallError::TooLong(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_who_leaves_has_the_request_given_up() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let caller = rig.gateway.caller();
    let calling = tokio::spawn(async move { call(&caller, request(Method::POST, "/gated", "x")).await });
    eventually("the replica has it", || a.running() == 1).await;
    calling.abort();
    eventually("the replica is left", || a.running() == 0).await;
    eventually("it is told", || rig.stats().abandoned == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_after_the_end_are_told_so() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    let caller = rig.gateway.caller();
    rig.gateway.drain(std::time::Duration::from_secs(1)).await;
    assert_eq!(call(&caller, request(Method::GET, "/", "")).await.unwrap_err(), CallError::Ended);
}
