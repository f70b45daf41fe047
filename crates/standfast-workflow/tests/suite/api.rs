//! The API: every route is answered, and as its own description says.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use serde_json::{Value, json};
use standfast_model::Stamp;
use standfast_workflow::api;

use super::rig::Rig;

/// Asks, and reads the answer.
async fn ask(rig: &Rig, method: &str, path: &str, body: Option<&Value>) -> (StatusCode, Value) {
    let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
    let request = Request::builder().method(method).uri(path).body(body).unwrap();
    let answer = api::answer(&rig.engine, request).await;
    (answer.status(), serde_json::from_slice(answer.body()).unwrap())
}

async fn get(rig: &Rig, path: &str) -> Value {
    let (status, value) = ask(rig, "GET", path, None).await;
    assert_eq!(status, StatusCode::OK, "{path}: {value}");
    value
}

/// The schema of what an operation answers with a status.
fn schema(description: &Value, path: &str, method: &str, status: u16) -> Value {
    let answers = &description["paths"][path][method.to_ascii_lowercase()]["responses"];
    let content = &answers[status.to_string()]["content"];
    let kind = if status < 400 { "application/json" } else { "application/problem+json" };
    let schema = &content[kind]["schema"];
    assert!(schema.is_object(), "{method} {path} may be answered with {status}, which is not described");
    json!({"allOf": [schema], "components": description["components"]})
}

/// Waits for a person.
const ASKS: &str = "do:
  - a:
      listen: { to: { one: { with: { type: io.standfast.signal.go } } } }
      metadata: { standfast: { humanTask: { title: Go? } } }
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_is_answered_as_it_is_described() {
    let rig = Rig::new().await;
    let text = "document: { dsl: '1.0.3', namespace: tests, name: w, version: '1.0.0', metadata: { standfast: { queries: { status: .status } } } }
do:\n  - l: { listen: { to: { one: { with: { type: go } } } } }\n";
    rig.engine.define(standfast_workflow::Definition::of_text("w", text).unwrap()).await.unwrap();
    let fails = rig
        .define("f", "do:\n  - a: { raise: { error: { type: 'https://x.example/e', status: 418 } } }\n")
        .await;
    rig.run(
        "do:\n  - a: { call: 'standfast.kv:1.0.0@default', with: { operation: set, key: k, value: [ 1 ] } }\n",
        Value::Null,
    )
    .await;
    let asks = rig.define("asks", ASKS).await;
    let description = get(&rig, "/v1/openapi.json").await;
    let mut operations = 0;
    for (path, item) in description["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            operations += 1;
            let (_, begun) = ask(&rig, "POST", "/v1/workflows/tests/w/runs", None).await;
            let name = operation["operationId"].as_str().unwrap();
            let mut id = begun["id"].as_str().unwrap().to_owned();
            if ["retryRun", "redoRun"].contains(&name) {
                let faulted = rig.start(&fails, Value::Null).await;
                id = rig.end(faulted).await.id.to_string();
            }
            let body = match name {
                "redoRun" => Some(json!({"from": "/do/0/a"})),
                "publishEvents" => Some(json!({"id": "1", "source": "/t", "type": "other"})),
                _ => None,
            };
            let mut task = String::new();
            if path.contains("{task}") {
                let run = rig.start(&asks, Value::Null).await;
                task = format!("{run}-1");
                while !ask(&rig, "GET", &format!("/v1/tasks/{task}"), None).await.0.is_success() {}
            }
            let good = path
                .replace("{task}", &task)
                .replace("{id}", &id)
                .replace("{namespace}", "tests")
                .replace("queries/{name}", "queries/status")
                .replace("{name}", "w")
                .replace("{version}", "1.0.0");
            let nobody = "01m83nkhpppkbm2skfgs2bd4h9";
            let bad = path.replace("{id}", nobody).replace("{task}", nobody).replace("{name}", "nobody");
            let (good, bad) = match name {
                _ if path.starts_with("/v1/bulk") => {
                    (format!("{good}?all=true&limit=2"), format!("{bad}?status=completed"))
                }
                "showValue" => (format!("{good}?key=k"), format!("{bad}?key=nothing")),
                "listValues" => (format!("{good}?limit=1"), format!("{bad}?limit=0")),
                _ => (good, bad),
            };
            let good = match name {
                "migrateRun" => format!("{good}?to=latest"),
                "migrateRuns" => format!("{good}&to=latest"),
                "tellHeartbeat" => format!("{good}?key=k"),
                _ => good,
            };
            let unknown = format!("{path}?nothing=1");
            for (asked, body) in [(&good, body.as_ref()), (&bad, body.as_ref()), (&unknown, None)] {
                let (status, value) = ask(&rig, &method.to_uppercase(), asked, body).await;
                assert!(asked != &good || status.is_success(), "{method} {asked}: {status} {value}");
                let schema = schema(&description, path, method, status.as_u16());
                let schema = jsonschema::validator_for(&schema).unwrap();
                let wrong: Vec<String> = schema.iter_errors(&value).map(|why| why.to_string()).collect();
                assert!(wrong.is_empty(), "{method} {asked}: {value}: {wrong:?}");
            }
            let (status, value) = ask(&rig, "PATCH", path, None).await;
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{value}");
        }
    }
    assert!(operations >= 18, "{operations}");
    let (status, _) = ask(&rig, "GET", "/v1/nothing", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_are_found_by_what_is_said_of_them_page_by_page() {
    let rig = Rig::new().await;
    let fails = rig
        .define(
            "fails",
            "do:\n  - a: { raise: { error: { type: 'https://x.example/errors/broken', status: 418 } } }\n",
        )
        .await;
    let works = rig.define("works", "do:\n  - a: { set: { n: 1 } }\n").await;
    let mut started = Vec::new();
    for number in 0..10 {
        for name in [&fails, &works] {
            let id = rig.start(name, json!({"n": number, "even": number % 2 == 0, "who": "me"})).await;
            started.push((id, rig.end(id).await.started_at));
        }
    }
    let count = async |query: &str| {
        let (mut ids, mut after) = (std::collections::BTreeSet::new(), String::new());
        loop {
            let page = get(&rig, &format!("/v1/runs?limit=3&{query}{after}")).await;
            for run in page["runs"].as_array().unwrap() {
                assert!(ids.insert(run["id"].to_string()), "{run} is there twice");
            }
            let Some(next) = page["next"].as_str() else { return ids.len() };
            after = format!("&after={next}");
        }
    };
    // As it is written, in milliseconds.
    let middle: Stamp = started[10].1.to_string().parse().unwrap();
    let before = started.iter().filter(|(_, at)| *at < middle).count();
    assert_eq!(count("").await, 20);
    assert_eq!(count("status=faulted").await, 10);
    assert_eq!(count("status=faulted,completed&workflow=tests/works:1.0.0").await, 10);
    assert_eq!(count("error=418").await, 10);
    assert_eq!(count("error=broken&input=even=true").await, 5);
    assert_eq!(count("input=who=me&input=n=3").await, 2);
    assert_eq!(count("input=who=you").await, 0);
    assert_eq!(count(&format!("startedBefore={middle}")).await, before);
    assert_eq!(count(&format!("startedAfter={middle}")).await, 20 - before);
    let later = started[19].1.plus(Duration::from_secs(1));
    assert_eq!(count(&format!("startedBefore={later}")).await, 20);
    assert_eq!(count(&format!("startedAfter={later}")).await, 0);
    for (bad, why) in [
        ("status=lost", "`lost` is no status"),
        ("startedAfter=yesterday", "2026-03-01T09:30:00Z"),
        ("input=who", "input=order_id=o-1"),
        ("limit=0", "from 1 to 1000"),
        ("limit=3&limit=4", "`limit` is there twice"),
        ("colour=red", "there is no parameter `colour` here, only status"),
    ] {
        let (status, value) = ask(&rig, "GET", &format!("/v1/runs?{bad}"), None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}");
        assert!(value["detail"].as_str().unwrap().contains(why), "{bad}: {value}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_done_to_many_runs_is_shown_before_and_done_page_by_page() {
    let rig = Rig::new().await;
    let waits = rig.define("waits", "do:\n  - w: { wait: { minutes: 10 } }\n").await;
    let fails = rig
        .define("fails", "do:\n  - a: { call: http, with: { method: post, endpoint: SERVICE/fails/3 } }\n")
        .await;
    for number in 0..7 {
        rig.start(&waits, json!({"even": number % 2 == 0})).await;
    }
    for _ in 0..3 {
        let id = rig.start(&fails, Value::Null).await;
        rig.end(id).await;
    }
    let all = async |path: &str| {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let (status, page) = ask(&rig, "POST", &format!("/v1/bulk/{path}&limit=2{after}"), None).await;
            assert_eq!(status, StatusCode::OK, "{page}");
            assert!(page["runs"].as_array().unwrap().len() <= 2);
            found.extend(page["runs"].as_array().unwrap().clone());
            let Some(next) = page["next"].as_str() else { return found };
            after = format!("&after={next}");
        }
    };
    let count = |found: &[Value], field: &str, is: &str| found.iter().filter(|run| run[field] == is).count();
    for _ in 0..2 {
        let shown = all("hold?input=even=true&dryRun=true").await;
        assert_eq!((shown.len(), count(&shown, "status", "waiting")), (4, 4), "nothing is done");
    }
    let held = all("hold?input=even=true").await;
    assert_eq!(count(&held, "became", "suspended"), 4);
    assert_eq!(all("hold?input=even=true").await.len(), 0, "those that are done fit no more");
    assert_eq!(count(&all("resume?workflow=waits").await, "became", "waiting"), 4);
    assert_eq!(count(&all("cancel?workflow=waits").await, "became", "cancelled"), 7);
    let retried = all("retry?error=503").await;
    assert_eq!(retried.iter().filter(|run| run["retriedBy"].is_string()).count(), 3);
    for run in &retried {
        let id = run["retriedBy"].as_str().unwrap().parse().unwrap();
        assert_eq!(rig.end(id).await.status, standfast_workflow::Status::Completed);
    }
    assert!(all("retry?all=true").await.is_empty(), "each is retried once");
    for (bad, why) in
        [("cancel", "say which runs"), ("retry?status=completed", "is for runs that are faulted")]
    {
        let (status, value) = ask(&rig, "POST", &format!("/v1/bulk/{bad}"), None).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert!(value["detail"].as_str().unwrap().contains(why), "{value}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_go_over_by_name_or_by_what_is_said_and_are_told_why_not() {
    let rig = Rig::new().await;
    let wait = |name: &str| format!("do:\n  - {name}: {{ wait: {{ minutes: 10 }} }}\n");
    let one = rig.try_define_version("moves", "1.0.0", &wait("w")).await.unwrap();
    rig.try_define_version("moves", "2.0.0", &format!("{}  - x: {{ set: {{ n: 1 }} }}\n", wait("w")))
        .await
        .unwrap();
    rig.try_define_version("moves", "3.0.0", &wait("other")).await.unwrap();
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(rig.start(&one, Value::Null).await.to_string());
    }
    let post = async |path: &str| ask(&rig, "POST", path, None).await;
    let (status, value) = post(&format!("/v1/runs/{}/migrate?to=3.0.0", ids[0])).await;
    assert_eq!(status, StatusCode::CONFLICT, "{value}");
    let why = "/do/0/w: it is under way, and version 3.0.0 has no task of that name there";
    assert!(value["detail"].as_str().unwrap().ends_with(why), "{value}");
    let (status, dry) = post(&format!("/v1/runs/{}/migrate?to=3.0.0&dryRun=true", ids[0])).await;
    assert_eq!((status, &dry), (StatusCode::OK, &value["migration"]));
    let (_, gone) = post(&format!("/v1/runs/{}/migrate?to=2.0.0", ids[0])).await;
    assert_eq!((&gone["verdict"], &gone["to"]["version"]), (&json!("goes"), &json!("2.0.0")));

    let verdicts = |page: &Value| -> Vec<String> {
        page["runs"].as_array().unwrap().iter().map(|run| run["verdict"].to_string()).collect()
    };
    let bulk = format!(
        "/v1/bulk/migrate?to=2.0.0&workflow=tests/moves&from={}",
        gone["definition"].as_str().unwrap()
    );
    let (_, page) = post(&format!("{bulk}&dryRun=true")).await;
    assert_eq!(verdicts(&page), ["\"goes\""; 4], "{page}");
    let (_, page) = post(&format!("{bulk}&limit=3")).await;
    assert_eq!(verdicts(&page), ["\"goes\""; 3]);
    let (_, page) = post(&bulk).await;
    assert_eq!(verdicts(&page), ["\"goes\""], "those that went are not meant any more");
    let (_, page) =
        post(&format!("/v1/bulk/migrate?to=2.0.0&run={}&run=01m83nkhpppkbm2skfgs2bd4h9", ids[0])).await;
    assert_eq!(page["runs"][0]["verdict"], "already");
    assert!(page["runs"][1]["refused"].as_str().unwrap().contains("there is no run"), "{page}");
    for (bad, why) in [
        ("all=true", "`to` names the version"),
        ("to=2.0.0", "say which runs are meant"),
        ("to=2.0.0&workflow=moves&status=completed", "a run that has ended does not go over"),
        ("to=2.0.0&all=true&run=01m83nkhpppkbm2skfgs2bd4h9", "say one of the two"),
    ] {
        let (status, value) = post(&format!("/v1/bulk/migrate?{bad}")).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{value}");
        assert!(value["detail"].as_str().unwrap().contains(why), "{value}");
    }
}
