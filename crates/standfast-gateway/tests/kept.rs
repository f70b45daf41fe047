//! The first answer to a request with a key is kept and given again.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use standfast_gateway::{
    AccessLog, AttemptEnd, Config, Filter, Gateway, KeptStats, Limits, ListenerInput, ListenerKind, Pool,
    Record, Snapshot, tls_config,
};
use standfast_model::{
    AccessFormat, AccessLog as AccessSettings, KeepAnswers, Protocol, Route, ServiceName, Target, Traffic,
};
use standfast_runtime::{Clock, Net};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::h2_rig::{self, H2, H2Replica};
use crate::replica::{Mood, Replica};
use crate::rig::{Answer, Client, Rig, endpoint, endpoints, eventually, post, snapshot, socket, up, with};
use crate::tls::{self, TlsRig};

fn keeping(limits: KeepAnswers) -> Traffic {
    Traffic { keep_answers: Some(limits), ..Traffic::default() }
}

fn world(replicas: &[&Replica], limits: KeepAnswers) -> Snapshot {
    let mut world = snapshot(endpoints(replicas));
    world.services.get_mut(&up()).unwrap().policy = keeping(limits);
    world
}

/// A gateway that keeps answers, before these.
fn rig(replicas: &[&Replica]) -> Rig {
    Rig::start(world(replicas, KeepAnswers::default()))
}

fn keyed(path: &str, body: &'static str, key: &str) -> Request<Full<Bytes>> {
    with(post(path, body), "idempotency-key", key)
}

fn is_replayed(answer: &Answer) -> bool {
    answer.header("idempotency-replayed") == Some("true")
}

fn stats(rig: &Rig) -> KeptStats {
    rig.stats().kept
}

/// What an answer's fields say, but for those that tell a replay from its first.
fn fields(headers: &HeaderMap) -> Vec<(String, String)> {
    let mut all: Vec<_> = headers
        .iter()
        .filter(|(name, _)| !["standfast-request-id", "idempotency-replayed"].contains(&name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    all.sort();
    all
}

/// An answer of three parts, none of which is made before the one before it was received; and whether it is a replay.
async fn in_parts(client: &mut Client, replica: &Replica, key: &str) -> (String, bool) {
    let mut answer = client.begin(keyed("/parts", "x", key)).await.unwrap();
    let mut all = String::new();
    for _ in 0..3 {
        replica.open_gate();
        let part = answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        all += std::str::from_utf8(&part).unwrap();
    }
    assert!(answer.body_mut().frame().await.is_none());
    (all, answer.headers().contains_key("idempotency-replayed"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_is_given_the_first_answer_whatever_it_comes_by_and_the_service_is_not_asked() {
    let a = Replica::start().await;
    let rig = rig(&[&a]);
    let mut client = rig.client().await;
    let first = client.send(keyed("/pay?x=1", "12345", "k")).await;
    assert_eq!((first.status, first.text(), is_replayed(&first)), (200, "12345", false));
    assert_eq!(first.header("x-replica"), Some("1"));
    // What the service would say now does not matter.
    a.set(Mood::Status(StatusCode::INTERNAL_SERVER_ERROR, Vec::new()));
    let again = client.send(keyed("/pay?x=1", "12345", "k")).await;
    assert_eq!((again.status, again.text(), is_replayed(&again)), (200, "12345", true));
    assert_eq!(fields(&again.headers), fields(&first.headers));
    assert_ne!(again.header("standfast-request-id"), first.header("standfast-request-id"));
    let request = h2_rig::with(h2_rig::post("/pay?x=1"), "idempotency-key", "k");
    let over_h2 = H2::connect(rig.public).await.send(request, "12345").await;
    assert_eq!((over_h2.status, &over_h2.body[..]), (200, &b"12345"[..]));
    assert_eq!(over_h2.header("idempotency-replayed"), Some("true"));
    assert_eq!(fields(&over_h2.headers), fields(&first.headers));
    assert_eq!((a.seen_count(), stats(&rig).kept, stats(&rig).replayed), (1, 1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_tells_whose_answer_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let settings = AccessSettings { path: path.clone(), format: AccessFormat::Json, sample: 1 };
    let a = Replica::start().await;
    let mut world = world(&[&a], KeepAnswers::default());
    world.access_log = Some(Arc::new(AccessLog::start(settings, Clock::system()).unwrap()));
    let rig = Rig::start(world);
    let mut client = rig.client().await;
    let id = |answer: &Answer| answer.header("standfast-request-id").unwrap().to_owned();
    let first = id(&client.send(keyed("/pay", "x", "k")).await);
    let again = id(&client.send(keyed("/pay", "x", "k")).await);
    eventually("it is told", || rig.gateway.why(&again).is_some()).await;
    let told = rig.gateway.why(&again).unwrap();
    assert!(told.marks.replayed && told.attempts.is_empty(), "{told:?}");
    assert_eq!((told.replay_of.as_ref(), told.bytes_out), (Some(&first), 1));
    assert!(told.sentence().contains(&format!("kept of request {first}")), "{}", told.sentence());
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    eventually("both are written", || lines().lines().count() == 2).await;
    let line: serde_json::Value = serde_json::from_str(lines().lines().last().unwrap()).unwrap();
    assert_eq!((&line["replayed"], &line["replay_of"]), (&true.into(), &first.into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_while_the_first_is_under_way_waits_and_is_given_its_answer() {
    let a = Replica::start().await;
    let rig = rig(&[&a]);
    let (mut one, mut two, mut three) = (rig.client().await, rig.client().await, rig.client().await);
    let first = one.send(keyed("/gated", "x", "k"));
    let second = async {
        eventually("the first runs", || a.running() == 1).await;
        two.send(keyed("/gated", "x", "k")).await
    };
    let third = async {
        eventually("the second waits", || stats(&rig).waited == 1).await;
        // Another key waits for nobody.
        assert_eq!(three.send(keyed("/other", "x", "other")).await.status, 200);
        a.open_gate();
    };
    let (first, second, ()) = tokio::join!(first, second, third);
    assert_eq!((first.text(), is_replayed(&first)), ("x", false));
    assert_eq!((second.text(), is_replayed(&second)), ("x", true));
    assert_eq!(a.seen_count(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_time_to_wait_is_told_to_come_again() {
    let a = Replica::start().await;
    let rig = rig(&[&a]);
    let (mut one, mut two) = (rig.client().await, rig.client().await);
    let (first, ()) = tokio::join!(one.send(keyed("/gated", "x", "k")), async {
        eventually("the first runs", || a.running() == 1).await;
        let hasty = with(keyed("/gated", "x", "k"), "standfast-deadline", "40");
        let refused = two.send(hasty).await;
        assert_eq!((refused.status, refused.header("standfast-reason")), (409, Some("key-in-use")));
        assert_eq!(refused.header("retry-after"), Some("1"));
        a.open_gate();
    });
    assert_eq!(first.status, 200);
    let again = two.send(keyed("/gated", "x", "k")).await;
    assert!(is_replayed(&again) && again.text() == "x");
    assert_eq!((a.seen_count(), stats(&rig).in_use), (1, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_with_another_body_is_refused_also_while_the_first_is_under_way() {
    let a = Replica::start().await;
    let rig = rig(&[&a]);
    let (mut one, mut two) = (rig.client().await, rig.client().await);
    let is_refused =
        |answer: &Answer| (answer.status, answer.header("standfast-reason")) == (422, Some("key-reused"));
    let (first, ()) = tokio::join!(one.send(keyed("/gated", "10 EUR", "k")), async {
        eventually("the first runs", || a.running() == 1).await;
        assert!(is_refused(&two.send(keyed("/gated", "99 EUR", "k")).await));
        a.open_gate();
    });
    assert_eq!(first.status, 200);
    let refused = two.send(keyed("/gated", "99 EUR", "k")).await;
    assert!(is_refused(&refused), "{refused:?}");
    let told = rig.gateway.recent(1, &Filter { reason: Some("key-reused".into()), ..Filter::default() });
    assert!(told.is_empty(), "it is the client's mistake, and nothing to look into");
    // Framed in another way it is the same.
    let mut stream = Net::real().connect_tcp(rig.public).await.unwrap();
    let chunked = "POST /gated HTTP/1.1\r\nhost: shop.test\r\nidempotency-key: k\r\nconnection: close\r\n\
                   transfer-encoding: chunked\r\n\r\n3\r\n10 \r\n3\r\nEUR\r\n0\r\n\r\n";
    stream.write_all(chunked.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("idempotency-replayed: true") && answer.ends_with("10 EUR"), "{answer}");
    assert_eq!((a.seen_count(), stats(&rig).reused), (1, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_too_long_to_be_held_is_told_apart_by_its_length() {
    let a = Replica::start().await;
    let rig = rig(&[&a]);
    let long = |length: usize| with(post("/", vec![b'x'; length]), "idempotency-key", "k");
    assert_eq!(rig.client().await.send(long(200 << 10)).await.body.len(), 200 << 10);
    let again = rig.client().await.send(long(200 << 10)).await;
    assert_eq!((is_replayed(&again), again.body.len()), (true, 200 << 10));
    assert_eq!(rig.client().await.send(long((200 << 10) + 1)).await.status, 422);
    assert_eq!(a.seen_count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_for_one_caller_host_method_and_target() {
    let a = Replica::start().await;
    let rig = rig(&[&a]);
    let mut client = rig.client().await;
    let of = |name: &'static str, value: &str| with(keyed("/pay", "x", "k"), name, value);
    let patch = {
        let mut request = keyed("/pay", "x", "k");
        *request.method_mut() = http::Method::PATCH;
        request
    };
    let all = [
        keyed("/pay", "x", "k"),
        keyed("/pay?y", "x", "k"),
        keyed("/pay", "x", "l"),
        patch,
        of("host", "other.test"),
        of("authorization", "Bearer a"),
        of("authorization", "Bearer b"),
        of("cookie", "session=1"),
        of("x-api-key", "1"),
    ];
    for (count, request) in all.into_iter().enumerate() {
        assert!(!is_replayed(&client.send(request.clone()).await), "{request:?}");
        assert_eq!(a.seen_count(), count + 1, "{request:?}");
        assert!(is_replayed(&client.send(request.clone()).await), "{request:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stack_says_what_callers_are_told_apart_by() {
    let a = Replica::start().await;
    let rig =
        Rig::start(world(&[&a], KeepAnswers { callers: vec!["x-tenant".into()], ..KeepAnswers::default() }));
    let mut client = rig.client().await;
    let mut send = async |tenant: &str, cookie: &str| {
        let request = with(with(keyed("/pay", "x", "k"), "x-tenant", tenant), "cookie", cookie);
        is_replayed(&client.send(request).await)
    };
    assert!(!send("a", "1").await);
    assert!(send("a", "2").await, "its cookie may change");
    assert!(!send("b", "1").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_certificate_is_a_caller() {
    let a = Replica::start().await;
    let settings = tls::settings(&["shop"], Some("authority.pem"));
    // Trusted are those that the authority has signed, and one that nobody has.
    let read = |path: &Path| {
        let mut text = std::fs::read(path)?;
        if path.ends_with("authority.pem") {
            text.extend(std::fs::read(tls::file("client-alone.pem"))?);
        }
        Ok(text)
    };
    let server = tls_config(&settings, &read).unwrap();
    let rig = TlsRig::start_with(Limits::default(), world(&[&a], KeepAnswers::default()), server);
    let ask = async |identity| {
        let stream = Net::real().connect_tcp(rig.rig.public).await.unwrap();
        let mut stream = tls::handshake(stream, "shop.test", tls::client(&[], Some(identity))).await.unwrap();
        let request = "POST / HTTP/1.1\r\nhost: shop.test\r\nidempotency-key: k\r\nconnection: close\r\n\
                       content-length: 1\r\n\r\nx";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        answer.contains("idempotency-replayed: true")
    };
    assert!(!ask("client").await);
    assert!(ask("client").await);
    assert!(!ask("client-alone").await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_the_service_has_decided_is_kept() {
    let a = Replica::start().await;
    let rig = rig(&[&a]);
    let mut client = rig.client().await;
    let later = ("retry-after", "1");
    for (status, fields, is_kept) in [
        (201, vec![("location", "/pay/1")], true),
        (204, vec![], true),
        (303, vec![("location", "/pay/1")], true),
        (404, vec![], true),
        (422, vec![], true),
        (409, vec![later], false),
        (408, vec![], false),
        (425, vec![], false),
        (429, vec![], false),
        (500, vec![], false),
        (503, vec![], false),
        (200, vec![("content-type", "text/event-stream")], false),
    ] {
        a.set(Mood::Status(StatusCode::from_u16(status).unwrap(), fields.clone()));
        let key = format!("{status}{fields:?}").replace('"', "");
        let seen = a.seen_count();
        for turn in 0..2 {
            let answer = client.send(keyed("/", "x", &key)).await;
            assert_eq!((answer.status, is_replayed(&answer)), (status, is_kept && turn == 1), "{key}");
            for (name, value) in &fields {
                assert_eq!(answer.header(name), Some(*value), "{key}");
            }
        }
        assert_eq!(a.seen_count() - seen, if is_kept { 1 } else { 2 }, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_answer_is_forgotten_after_its_time() {
    let a = Replica::start().await;
    let keep_for = Duration::from_millis(60);
    let rig = Rig::start(world(&[&a], KeepAnswers { keep_for, ..KeepAnswers::default() }));
    let (mut client, clock) = (rig.client().await, Clock::system());
    let mut began = clock.now();
    assert!(!is_replayed(&client.send(keyed("/", "x", "k")).await));
    for _ in 0..2 {
        began = loop {
            let sent = clock.now();
            if !is_replayed(&client.send(keyed("/", "x", "k")).await) {
                assert!(clock.now().since(began) >= keep_for, "it came too early");
                break sent;
            }
        };
    }
    assert_eq!(a.seen_count(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_answers_make_way_and_requests_under_way_never_do() {
    let a = Replica::start().await;
    let rig = Rig::start(world(&[&a], KeepAnswers { keys_max: 2, ..KeepAnswers::default() }));
    let (mut client, mut gated) = (rig.client().await, rig.client().await);
    let mut send = async |key: &str| is_replayed(&client.send(keyed("/", "x", key)).await);
    assert!(!send("a").await && !send("b").await && send("a").await && send("b").await);
    assert!(!send("c").await, "a makes way");
    assert!(send("b").await && send("c").await && !send("a").await);
    let (held, ()) = tokio::join!(gated.send(keyed("/gated", "x", "held")), async {
        eventually("it runs", || a.running() == 1).await;
        assert!(!send("d").await && send("d").await && !send("e").await && !send("d").await);
        assert_eq!(stats(&rig).no_room, 0);
        a.open_gate();
    });
    assert_eq!(held.status, 200);
    assert!(stats(&rig).evicted >= 5, "{:?}", stats(&rig));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_finds_no_room_passes_and_is_counted() {
    let a = Replica::start().await;
    let rig = Rig::start(world(&[&a], KeepAnswers { keys_max: 1, ..KeepAnswers::default() }));
    let (mut client, mut gated) = (rig.client().await, rig.client().await);
    let (held, ()) = tokio::join!(gated.send(keyed("/gated", "x", "held")), async {
        eventually("it runs", || a.running() == 1).await;
        for _ in 0..2 {
            let answer = client.send(keyed("/", "x", "other")).await;
            assert_eq!((answer.text(), is_replayed(&answer)), ("x", false));
        }
        a.open_gate();
    });
    assert_eq!((held.status, stats(&rig).no_room, a.seen_count()), (200, 2, 3));
    assert!(!is_replayed(&client.send(keyed("/", "x", "other")).await), "there is room again");
    assert!(is_replayed(&client.send(keyed("/", "x", "other")).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_too_long_to_be_kept_pass_whole() {
    let a = Replica::start().await;
    let rig = Rig::start(world(&[&a], KeepAnswers { bytes_max: 8, ..KeepAnswers::default() }));
    let mut client = rig.client().await;
    for (body, is_kept) in [("12345678", true), ("123456789", false)] {
        assert_eq!(client.send(keyed("/", body, body)).await.text(), body);
        let again = client.send(keyed("/", body, body)).await;
        assert_eq!((again.text(), is_replayed(&again)), (body, is_kept));
    }
    // Of unknown length, and the service need not have said all before its key is free.
    for _ in 0..2 {
        assert_eq!(in_parts(&mut client, &a, "parts").await, ("onetwothree".to_owned(), false));
    }
    assert_eq!(a.seen_count(), 5);
    assert_eq!(stats(&rig).kept, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_before_its_answer_finds_it_when_it_comes_again() {
    let a = Replica::start().await;
    let rig = rig(&[&a]);
    for is_h2 in [false, true] {
        let (path, seen) = ("/gated", a.seen_count());
        let key = if is_h2 { "h2" } else { "h1" };
        if is_h2 {
            let leaving = H2::connect(rig.public).await;
            let request = h2_rig::with(h2_rig::post(path), "idempotency-key", key);
            tokio::select! {
                answer = leaving.send(request, "x") => panic!("{answer:?}"),
                () = eventually("the replica has it", || a.seen_count() == seen + 1) => {}
            }
        } else {
            let mut leaving = rig.client().await;
            tokio::select! {
                answer = leaving.send(keyed(path, "x", key)) => panic!("{answer:?}"),
                () = eventually("the replica has it", || a.seen_count() == seen + 1) => {}
            }
        }
        let gone_on = u64::from(is_h2) + 1;
        // Each is counted by its own task.
        let counted = || (stats(&rig).gone_on, rig.stats().abandoned) == (gone_on, gone_on);
        eventually("it goes on alone", counted).await;
        assert_eq!(a.running(), 1);
        let told = || rig.gateway.recent(1, &Filter { is_marked: true, ..Filter::default() });
        let goes_on = |record: &Record| record.attempts.iter().any(|one| one.end == AttemptEnd::GoesOn);
        eventually("that is told", || told().iter().any(|one| one.status.is_none() && goes_on(one))).await;
        a.open_gate();
        let again = rig.client().await.send(keyed(path, "x", key)).await;
        assert_eq!((again.text(), is_replayed(&again), a.seen_count()), ("x", true, seen + 1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_in_its_answer_finds_it_whole_when_it_comes_again() {
    let a = Replica::start().await;
    let rig = rig(&[&a]);
    let mut leaving = rig.client().await;
    let mut answer = leaving.begin(keyed("/parts", "x", "k")).await.unwrap();
    a.open_gate();
    assert_eq!(answer.body_mut().frame().await.unwrap().unwrap().into_data().unwrap(), "one");
    drop((answer, leaving));
    eventually("it is read on", || stats(&rig).gone_on == 1).await;
    a.open_gate();
    let mut client = rig.client().await;
    let (again, ()) = tokio::join!(client.send(keyed("/parts", "x", "k")), async {
        eventually("the repeat waits", || stats(&rig).waited == 1).await;
        a.open_gate();
    });
    assert_eq!((again.text(), is_replayed(&again), a.seen_count()), ("onetwothree", true, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_is_not_kept() {
    let listener = Net::real().listen_tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
    let mut world = snapshot(vec![endpoint(0, listener.local_addr().unwrap())]);
    world.services.get_mut(&up()).unwrap().policy = keeping(KeepAnswers::default());
    let mut replica = JoinSet::new();
    replica.spawn(async move {
        for body in ["half", "whole"] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\nx") {
                stream.read_buf(&mut request).await.unwrap();
            }
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
        listener
    });
    let rig = Rig::start(world);
    assert!(rig.client().await.try_send(keyed("/", "x", "k")).await.is_err());
    let whole = rig.client().await.send(keyed("/", "x", "k")).await;
    assert_eq!((whole.text(), is_replayed(&whole)), ("whole", false));
    assert!(is_replayed(&rig.client().await.send(keyed("/", "x", "k")).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_repeats_nothing_that_may_have_been_carried_out() {
    let (a, b) = (Replica::start().await, Replica::start().await);
    let rig = rig(&[&a, &b]);
    let mut client = rig.client().await;
    let seen = || a.seen_count() + b.seen_count();
    for replica in [&a, &b] {
        replica.set(Mood::Breaks);
    }
    let broken = client.send(keyed("/", "x", "k")).await;
    assert_eq!((broken.status, broken.header("standfast-reason")), (502, Some("replica-broke-off")));
    assert_eq!(seen(), 1);
    for replica in [&a, &b] {
        replica.set(Mood::Well);
    }
    // Whoever sends it again wants it done.
    let again = client.send(keyed("/", "x", "k")).await;
    assert_eq!((again.status, is_replayed(&again), seen()), (200, false, 2));
    assert!(is_replayed(&client.send(keyed("/", "x", "k")).await));
    // PUT says itself that it may be repeated.
    a.set(Mood::Breaks);
    for number in 0..6 {
        let mut put = keyed("/", "x", &format!("put-{number}"));
        *put.method_mut() = http::Method::PUT;
        assert_eq!(client.send(put).await.status, 200);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_workers_share_what_is_kept() {
    let a = Replica::start().await;
    let (_snapshots, receiver) = watch::channel(Arc::new(world(&[&a], KeepAnswers::default())));
    // As many as workers, so that each accepts from its own.
    let sockets = [socket(), socket()];
    let addresses = sockets.each_ref().map(|socket| socket.local_addr().unwrap());
    let input = ListenerInput { kind: ListenerKind::Public, sockets: sockets.into() };
    let config = Config { workers: 2, ..Config::default() };
    let gateway = Gateway::start(config, vec![input], receiver, Clock::system(), 7).unwrap();
    let (mut one, mut two) = (Client::connect(addresses[0]).await, Client::connect(addresses[1]).await);
    // The port is part of the host.
    let (first, (second, ())) = tokio::join!(one.send(keyed("/gated", "x", "k")), async {
        eventually("the first runs", || a.running() == 1).await;
        tokio::join!(two.send(keyed("/gated", "x", "k")), async {
            let waited = || gateway.stats().services[&up()].kept.waited == 1;
            eventually("the second waits", waited).await;
            a.open_gate();
        })
    });
    assert_eq!((is_replayed(&first), is_replayed(&second), second.text()), (false, true, "x"));
    assert!(is_replayed(&one.send(keyed("/gated", "x", "k")).await));
    assert_eq!(a.seen_count(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_key_of_the_stack_or_of_the_request_nothing_is_kept() {
    let a = Replica::start().await;
    let plain = Rig::before(&[&a]);
    let keeps = rig(&[&a]);
    let get = with(crate::rig::get("/"), "idempotency-key", "k");
    for (rig, request) in [
        (&plain, keyed("/", "x", "k")),
        (&keeps, post("/", "x")),
        (&keeps, keyed("/", "x", "")),
        (&keeps, get),
    ] {
        let seen = a.seen_count();
        for _ in 0..2 {
            let answer = rig.client().await.send(request.clone()).await;
            assert_eq!((answer.status, is_replayed(&answer)), (200, false), "{request:?}");
        }
        assert_eq!(a.seen_count() - seen, 2, "{request:?}");
    }
    assert_eq!(stats(&plain), KeptStats::default());
    assert_eq!(stats(&keeps), KeptStats::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_speaks_http_2_is_asked_once_and_a_call_of_grpc_each_time() {
    let a = H2Replica::start().await;
    let mut world = snapshot(vec![endpoint(0, a.address)]);
    world.services.get_mut(&up()).unwrap().policy =
        Traffic { protocol: Protocol::Http2, ..keeping(KeepAnswers::default()) };
    let rig = Rig::start(world);
    let client = H2::connect(rig.public).await;
    for body in ["body", ""] {
        let request =
            || h2_rig::with(h2_rig::post("/pay"), "idempotency-key", if body.is_empty() { "e" } else { "k" });
        let seen = a.seen().len();
        let first = client.send(request(), body).await;
        let again = client.send(request(), body).await;
        assert_eq!((&again.body[..], again.header("idempotency-replayed")), (body.as_bytes(), Some("true")));
        assert_eq!(fields(&again.headers), fields(&first.headers));
        assert_eq!(a.seen().len() - seen, 1);
    }
    for _ in 0..2 {
        let call = h2_rig::with(h2_rig::post("/call"), "content-type", "application/grpc");
        let got = client.send(h2_rig::with(call, "idempotency-key", "k"), "call").await;
        assert_eq!((got.trailer("grpc-status"), got.header("idempotency-replayed")), (Some("0"), None));
    }
    assert_eq!(a.seen().len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_to_several_services_sends_a_repeat_where_the_first_went() {
    let (a, b) = (Replica::start().await, Replica::start().await);
    let next: ServiceName = "next".parse().unwrap();
    let mut world = world(&[&a], KeepAnswers::default());
    let pool = Pool { endpoints: endpoints(&[&b]), policy: keeping(KeepAnswers::default()) };
    world.services.insert(next.clone(), pool);
    let to = vec![Target { service: up(), weight: 1 }, Target { service: next, weight: 1 }];
    world.routes = vec![Route::prefix("/", to)];
    let rig = Rig::start(world);
    let mut client = rig.client().await;
    for key in 0..40 {
        let key = key.to_string();
        assert!(!is_replayed(&client.send(keyed("/", "x", &key)).await));
        assert!(is_replayed(&client.send(keyed("/", "x", &key)).await));
    }
    assert_eq!(a.seen_count() + b.seen_count(), 40);
    assert!(a.seen_count() >= 10 && b.seen_count() >= 10, "{} and {}", a.seen_count(), b.seen_count());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_time_in_the_stack_keeps_what_is_kept_and_none_forgets_it() {
    let a = Replica::start().await;
    let rig = rig(&[&a]);
    let mut client = rig.client().await;
    let mut send = async || is_replayed(&client.send(keyed("/", "x", "k")).await);
    let set = async |keep: Option<KeepAnswers>| {
        rig.publish(|world| world.services.get_mut(&up()).unwrap().policy.keep_answers = keep).await;
    };
    assert!(!send().await);
    set(Some(KeepAnswers { keep_for: Duration::from_secs(3_600), ..KeepAnswers::default() })).await;
    assert!(send().await);
    set(None).await;
    assert!(!send().await);
    set(Some(KeepAnswers::default())).await;
    assert!(!send().await && send().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_ends_although_requests_go_on_in_it() {
    let a = Replica::start().await;
    let rig = rig(&[&a]);
    let mut leaving = rig.client().await;
    tokio::select! {
        answer = leaving.send(keyed("/gated", "x", "gone")) => panic!("{answer:?}"),
        () = eventually("the replica has it", || a.running() == 1) => drop(leaving),
    }
    eventually("it goes on alone", || stats(&rig).gone_on == 1).await;
    let mut staying = rig.client().await;
    let mut stays = JoinSet::new();
    stays.spawn(async move { staying.try_send(keyed("/gated", "x", "there")).await });
    eventually("the replica has both", || a.running() == 2).await;
    assert_eq!(rig.gateway.drain(Duration::ZERO).await.cut_off, 1);
    assert!(stays.join_next().await.unwrap().unwrap().is_err());
    eventually("the replica is let go", || a.running() == 0).await;
}
