//! What is told of requests afterwards.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use standfast_gateway::{AccessLog, AttemptEnd, Filter, Record};
use standfast_model::{AccessFormat, AccessLog as AccessSettings};
use standfast_runtime::Clock;

use crate::h2_rig::H2;
use crate::replica::{Mood, Replica};
use crate::rig::{Load, Rig, endpoints, eventually, get, post, snapshot, with};

fn ends(record: &Record) -> Vec<(AttemptEnd, Option<u16>)> {
    record.attempts.iter().map(|attempt| (attempt.end, attempt.status)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_request_tells_which_answer_was_passed_on() {
    let (a, b) = (Replica::start().await, Replica::start().await);
    let rig = Rig::before(&[&a, &b]);
    a.set(Mood::Status(StatusCode::SERVICE_UNAVAILABLE, Vec::new()));
    let mut client = rig.client().await;
    let mut repeated = None;
    for _ in 0..20 {
        let answer = client.send(with(post("/pay", "12345"), "idempotency-key", "k")).await;
        assert_eq!(answer.status, 200);
        if rig.endpoint_stats(&a).answered.server_error > 0 {
            repeated = Some(answer.header("standfast-request-id").unwrap().to_owned());
            break;
        }
    }
    let id = repeated.expect("one went to the one that is unavailable first");
    // It is told a moment after the answer.
    eventually("it is told", || rig.gateway.why(&id).is_some()).await;
    let told = rig.gateway.why(&id).unwrap();
    assert_eq!(ends(&told), [(AttemptEnd::Dropped, Some(503)), (AttemptEnd::Answered, Some(200))]);
    assert_eq!((told.status, told.bytes_in, told.bytes_out, told.method.as_str()), (Some(200), 5, 5, "POST"));
    assert!(told.sentence().contains("503"), "{}", told.sentence());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_left_is_told_as_such_and_nothing_else_as_its_fault() {
    let a = Replica::start().await;
    let rig = Rig::before(&[&a]);
    a.set(Mood::Frozen);
    let mut client = rig.client().await;
    tokio::select! {
        answer = client.get("/slow") => panic!("{answer:?}"),
        () = eventually("the replica has it", || a.running() == 1) => drop(client),
    }
    let recent = || rig.gateway.recent(10, &Filter { is_marked: true, ..Filter::default() });
    eventually("it is told", || recent().len() == 1).await;
    let told = recent().remove(0);
    assert_eq!(
        (told.status, told.path.as_str(), ends(&told)),
        (None, "/slow", vec![(AttemptEnd::Abandoned, None)])
    );
    assert_eq!(rig.stats().abandoned, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_get_that_takes_longer_than_its_kind_is_hedged_and_told() {
    let (a, b) = (Replica::start().await, Replica::start().await);
    let rig = Rig::before(&[&a, &b]);
    for replica in [&a, &b] {
        replica.set(Mood::Slow(Duration::from_millis(5)));
    }
    let load = Load::start(rig.public, 4, |_| get("/"));
    load.more(400).await;
    b.set(Mood::Slow(Duration::from_secs(2)));
    load.more(100).await;
    let sent = load.finish().await;
    assert!(sent.iter().all(crate::rig::Sent::is_ok));
    let recent = rig.gateway.recent(100, &Filter { is_marked: true, ..Filter::default() });
    let hedged = recent.iter().find(|record| record.marks.hedged).expect("one was hedged");
    assert!(hedged.attempts.iter().any(|attempt| attempt.is_hedge), "{hedged:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_access_log_has_a_line_for_each_request_whatever_it_came_by() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("access.log");
    let settings = AccessSettings { path: path.clone(), format: AccessFormat::Json, sample: 1 };
    let a = Replica::start().await;
    let mut world = snapshot(endpoints(&[&a]));
    world.access_log = Some(Arc::new(AccessLog::start(settings, Clock::system()).unwrap()));
    let rig = Rig::start(world);
    rig.client().await.send(post("/one?secret=1", "body")).await;
    H2::connect(rig.public).await.get("/two").await;
    let lines = || std::fs::read_to_string(&path).unwrap_or_default();
    eventually("both are written", || lines().lines().count() == 2).await;
    let read = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
    let told: Vec<_> = lines().lines().map(read).collect();
    let of = |index: usize, key: &str| told[index][key].clone();
    assert_eq!(
        (of(0, "protocol"), of(0, "bytes_in"), of(0, "status")),
        ("HTTP/1.1".into(), 4.into(), 200.into())
    );
    assert_eq!(
        (of(1, "protocol"), of(1, "target"), of(1, "method")),
        ("HTTP/2.0".into(), "/two".into(), "GET".into())
    );
}
