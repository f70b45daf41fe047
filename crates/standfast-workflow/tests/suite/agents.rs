//! Servers of the Model Context Protocol and agents by Agent2Agent.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use standfast_runtime::Clock;
use standfast_workflow::{Definition, FolderAndNetwork, Summary};

use super::peer::{Peer, Seen, ok, status};
use super::rig::Rig;

const HEAD: &str = "document: { dsl: '1.0.3', namespace: tests, name: agents, version: '1.0.0' }\n";

async fn run(peer: &Peer, text: &str) -> Summary {
    let rig = Rig::new().await;
    rig.run(&text.replace("PEER", &peer.url), json!({"who": "Ada"})).await
}

fn kind(summary: &Summary) -> (&str, String) {
    let problem = summary.problem.as_ref().expect("it fails");
    (problem.kind.rsplit('/').next().unwrap_or(""), problem.detail.clone().unwrap_or_default())
}

fn stream(events: &[&Value]) -> Response<Bytes> {
    let text: String = events.iter().map(|event| format!("event: message\ndata: {event}\n\n")).collect();
    let mut answer = Response::new(Bytes::from(text));
    answer.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
    answer
}

/// A server with one tool, which greets; it wants its session back, and streams what it answers to calls.
fn greets(seen: &Seen, _: usize) -> Response<Bytes> {
    let message = seen.json();
    let answer = |result: Value| json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
    let is_known =
        seen.header("mcp-session-id") == "s-1" && seen.header("mcp-protocol-version") == "2025-03-26";
    match message["method"].as_str() {
        Some("initialize") => {
            let mut greeted =
                ok(&answer(json!({"protocolVersion": "2025-03-26", "capabilities": {}, "serverInfo": {}})));
            greeted.headers_mut().insert("mcp-session-id", HeaderValue::from_static("s-1"));
            greeted
        }
        _ if !is_known => status(400, &json!({})),
        Some("notifications/initialized") => {
            Response::builder().status(StatusCode::ACCEPTED).body(Bytes::new()).unwrap()
        }
        Some("tools/call") if message["params"]["name"] == "greet" => {
            let text = format!("hello {}", message["params"]["arguments"]["who"].as_str().unwrap());
            let progress = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": {}});
            let ping = json!({"jsonrpc": "2.0", "id": "p", "method": "ping"});
            stream(&[&progress, &ping, &answer(json!({"content": [{"type": "text", "text": text}]}))])
        }
        Some("tools/call") => ok(
            &json!({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32602, "message": "unknown tool"}}),
        ),
        Some("prompts/list") => ok(&answer(json!({"prompts": []}))),
        _ => ok(&json!({})),
    }
}

#[tokio::test]
async fn a_tool_is_called_over_http_within_a_session() {
    let peer = Peer::new(greets).await;
    let text = "
do:
  - ask:
      call: mcp
      with:
        method: tools/call
        parameters: { name: greet, arguments: { who: '${ .who }' } }
        transport: { http: { endpoint: { uri: PEER/mcp, authentication: { bearer: { token: t } } }, headers: { X-One: a } } }
";
    let ended = run(&peer, text).await;
    assert_eq!(ended.problem, None);
    assert_eq!(ended.output.unwrap()["content"][0]["text"], "hello Ada");
    let seen = peer.seen("/mcp");
    let methods: Vec<Value> = seen.iter().map(|seen| seen.json()["method"].clone()).collect();
    assert_eq!(
        methods,
        [
            json!("initialize"),
            json!("notifications/initialized"),
            json!("tools/call"),
            Value::Null,
            Value::Null
        ]
    );
    assert_eq!(
        (seen[3].json(), seen[4].method.as_str()),
        (json!({"jsonrpc": "2.0", "id": "p", "result": {}}), "DELETE")
    );
    let keys: Vec<bool> =
        seen.iter().map(|one| one.header("idempotency-key").ends_with("/do/0/ask\"")).collect();
    assert_eq!(keys, [false, false, true, false, false], "only the call itself is an attempt of the step");
    for one in &seen {
        assert_eq!((one.header("authorization"), one.header("x-one")), ("Bearer t", "a"));
    }
}

#[tokio::test]
async fn what_a_server_answers_wrongly_is_a_problem_of_the_task() {
    let text = |tool: &str| {
        format!(
            "do:\n  - ask: {{ call: mcp, with: {{ method: tools/call, parameters: {{ name: {tool} }}, transport: {{ http: {{ endpoint: PEER/mcp }} }} }} }}\n"
        )
    };
    let ended = run(&Peer::new(greets).await, &text("other")).await;
    let (found, detail) = kind(&ended);
    assert_eq!(found, "runtime");
    assert!(detail.ends_with("/mcp answered with the error -32602: unknown tool"), "{detail}");
    let cases: Vec<(Response<Bytes>, &str, &str)> = vec![
        (status(401, &json!({})), "authentication", "401"),
        (Response::new(Bytes::from_static(b"{")), "communication", "not JSON"),
        (Response::new(Bytes::new()), "communication", "did not answer"),
        (stream(&[&json!({"jsonrpc": "2.0", "id": 7, "result": {}})]), "communication", "did not answer"),
        (ok(&json!({"jsonrpc": "2.0", "id": 1})), "runtime", "neither a result nor an error"),
        (
            ok(&json!({"jsonrpc": "2.0", "id": 1, "result": {"protocolVersion": "1999"}})),
            "communication",
            "`1999`",
        ),
        (Response::new(Bytes::from(vec![b' '; 300 << 10])), "communication", "longer than 256 KiB"),
    ];
    for (answer, wanted, says) in cases {
        let peer = Peer::new(move |_, _| answer.clone()).await;
        let ended = run(&peer, &text("greet")).await;
        let (found, detail) = kind(&ended);
        assert!(found == wanted && detail.contains(says), "{wanted}: {detail}");
    }
}

/// Greets as the one above, says something else first, and notes where it ran.
const SERVER: &str = r#"
import json, os, sys
print("starting", file=sys.stderr)
for line in sys.stdin:
    m = json.loads(line)
    def say(x): print(json.dumps({"jsonrpc": "2.0", **x}), flush=True)
    if m.get("method") == "initialize":
        say({"method": "notifications/message"})
        say({"id": m["id"], "result": {"protocolVersion": m["params"]["protocolVersion"], "serverInfo": m["params"]["clientInfo"]}})
    elif m.get("method") == "tools/list":
        say({"id": 99, "method": "roots/list"})
        answer = json.loads(sys.stdin.readline())
        say({"id": m["id"], "result": {"tools": [os.environ.get("TOKEN"), sys.argv[1]], "error": answer["error"]["code"], "home": os.environ.get("HOME")}})
    elif m.get("method") == "tools/call":
        os.system("sleep 300 & echo $! > " + m["params"]["file"])
        if m["params"]["how"] == "flood":
            while True: print("x" * 1000, flush=True)
        if m["params"]["how"] == "die":
            sys.exit("no more")
        if m["params"]["how"] == "hang":
            import time; time.sleep(300)
        say({"id": m["id"], "result": {}})
"#;

fn by_stdio(folder: &std::path::Path, rest: &str) -> String {
    let script = folder.join("server.py");
    std::fs::write(&script, SERVER).unwrap();
    format!(
        "do:\n  - ask: {{ call: mcp, with: {{ {rest}, client: {{ name: me, version: '2' }}, transport: {{ stdio: {{ command: python3, arguments: [ '{}', '${{ .who }}' ], environment: {{ TOKEN: secret }} }} }} }} }}\n",
        script.display()
    )
}

#[tokio::test]
async fn a_server_is_a_process_with_nothing_of_our_environment() {
    let (peer, folder) = (Peer::new(greets).await, tempfile::tempdir().unwrap());
    let ended = run(&peer, &by_stdio(folder.path(), "method: tools/list")).await;
    assert_eq!(ended.problem, None);
    assert_eq!(*ended.output.unwrap(), json!({"tools": ["secret", "Ada"], "error": -32601, "home": null}));
}

fn is_alive(file: &std::path::Path) -> bool {
    let pid = std::fs::read_to_string(file).unwrap();
    let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    !state.is_empty() && !state.contains(") Z")
}

#[tokio::test]
async fn nothing_of_a_server_is_left_however_it_ends() {
    let (peer, clock) = (Peer::new(greets).await, Clock::system());
    for (how, timeout, wanted, says) in [
        ("well", "", "", ""),
        ("flood", "", "communication", "not JSON"),
        ("die", "", "communication", "ended before it answered: starting\nno more"),
        ("hang", ", timeout: { milliseconds: 1500 }", "timeout", "no answer within 1.5 s"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("child");
        let rest =
            format!("method: tools/call, parameters: {{ how: {how}, file: '{}' }}{timeout}", file.display());
        let ended = run(&peer, &by_stdio(folder.path(), &rest)).await;
        match wanted {
            "" => assert_eq!(ended.problem, None),
            wanted => {
                let (found, detail) = kind(&ended);
                assert!(found == wanted && detail.contains(says), "{how}: {detail}");
            }
        }
        let until = clock.now().plus(Duration::from_secs(10));
        while is_alive(&file) {
            assert!(clock.now() < until, "{how}: its child is still there");
            clock.sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test]
async fn a_program_that_is_not_there_is_told() {
    let peer = Peer::new(greets).await;
    let text = "do:\n  - ask: { call: mcp, with: { method: tools/list, transport: { stdio: { command: no-such-program } } } }\n";
    let ended = run(&peer, text).await;
    let (found, detail) = kind(&ended);
    assert_eq!(found, "configuration");
    assert!(detail.starts_with("`no-such-program` cannot be started"), "{detail}");
}

/// An agent with a card at its usual place.
fn agent(seen: &Seen, _: usize) -> Response<Bytes> {
    if seen.path == "/.well-known/agent-card.json" {
        let host = seen.header("host");
        return ok(&json!({
            "name": "writer", "url": format!("http://{host}/grpc"), "preferredTransport": "GRPC",
            "additionalInterfaces": [{"transport": "JSONRPC", "url": format!("http://{host}/rpc")}],
        }));
    }
    let message = seen.json();
    let result = |result: Value| json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
    match message["method"].as_str() {
        Some("message/send") => ok(&result(message["params"]["message"].clone())),
        Some("message/stream") => stream(&[
            &result(json!({"kind": "task", "id": "t"})),
            &result(json!({"kind": "status-update", "final": true})),
            &result(json!({"kind": "late"})),
        ]),
        _ => ok(
            &json!({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32001, "message": "no such task"}}),
        ),
    }
}

#[tokio::test]
async fn an_agent_is_found_by_its_card_and_asked_by_the_same_message_each_time() {
    let peer = Peer::new(agent).await;
    let folder = tempfile::tempdir().unwrap();
    let reader = FolderAndNetwork::new(Some(folder.path().to_owned()), Clock::system());
    let text = format!(
        "{HEAD}do:
  - ask:
      call: a2a
      with:
        method: message/send
        agentCard: {{ endpoint: {{ uri: {}/.well-known/agent-card.json, authentication: {{ bearer: {{ token: t }} }} }} }}
        parameters: {{ message: {{ parts: [ {{ kind: text, text: '${{ .who }}' }} ] }} }}
",
        peer.url
    );
    let definition = Definition::read("agents", &text, &reader).await.unwrap();
    let (rig, name) = (Rig::new().await, definition.program.name().clone());
    rig.engine.define(definition).await.unwrap();
    let run = rig.start(&name, json!({"who": "Ada"})).await;
    let ended = rig.end(run).await;
    assert_eq!(ended.problem, None);
    let message = ended.output.unwrap();
    assert_eq!((&message["role"], &message["parts"][0]["text"]), (&json!("user"), &json!("Ada")));
    let seen = &peer.seen("/rpc")[0];
    assert_eq!(seen.json()["id"], message["messageId"]);
    assert_eq!(seen.header("authorization"), "Bearer t");
    assert!(peer.seen("/.well-known/agent-card.json")[0].header("authorization").is_empty());
}

#[tokio::test]
async fn a_stream_is_collected_to_its_end_and_an_error_is_a_problem() {
    let peer = Peer::new(agent).await;
    let text = |method: &str| {
        format!(
            "do:\n  - ask: {{ call: a2a, with: {{ method: {method}, server: PEER/rpc, parameters: {{ id: '${{ .who }}' }} }} }}\n"
        )
    };
    let ended = run(&peer, &text("message/stream")).await;
    assert_eq!(ended.problem, None);
    let kinds: Vec<Value> =
        ended.output.unwrap().as_array().unwrap().iter().map(|one| one["kind"].clone()).collect();
    assert_eq!(kinds, ["task", "status-update"]);
    let ended = run(&peer, &text("tasks/get")).await;
    let (found, detail) = kind(&ended);
    assert_eq!(found, "runtime");
    assert!(detail.ends_with("answered with the error -32001: no such task"), "{detail}");
    assert_eq!(peer.seen("/rpc")[1].json()["params"], json!({"id": "Ada"}));
}

/// A server that never comes to an end of what it says.
#[tokio::test]
async fn a_stream_without_end_is_given_up_by_its_length_or_its_time() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    for (pause, wanted) in [(Duration::ZERO, "communication"), (Duration::from_millis(100), "timeout")] {
        let listener =
            standfast_runtime::Net::real().listen_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        #[expect(clippy::disallowed_methods, reason = "the test's runtime ends it with the test")]
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _request = stream.read(&mut [0; 8_192]).await.unwrap();
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            let events = "data: {\"jsonrpc\": \"2.0\", \"id\": 0, \"result\": {}}\n\n"
                .repeat(if pause.is_zero() { 1_000 } else { 1 });
            while stream.write_all(events.as_bytes()).await.is_ok() {
                Clock::system().sleep(pause).await;
            }
        });
        let peer = Peer::new(agent).await;
        let text = format!(
            "do:\n  - ask: {{ call: a2a, timeout: {{ after: {{ seconds: 2 }} }}, with: {{ method: message/stream, server: '{url}' }} }}\n"
        );
        let ended = run(&peer, &text).await;
        assert_eq!(kind(&ended).0, wanted);
    }
}
