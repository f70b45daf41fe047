//! Messages that are sent as `AsyncAPI` documents have it.

use http::StatusCode;
use serde_json::json;
use standfast_runtime::Clock;
use standfast_workflow::{Definition, FolderAndNetwork, Summary};

use super::peer::{Peer, ok, status};
use super::rig::Rig;

const NEW: &str = "
asyncapi: 3.0.0
servers:
  broker: { host: 'kafka:9092', protocol: kafka }
  web: { host: 'HOST', pathname: '/{stage}', protocol: http, variables: { stage: { default: v1 } } }
channels:
  chat: { address: 'rooms/{room}', servers: [ { $ref: '#/servers/web' } ] }
operations:
  say: { action: send, channel: { $ref: '#/channels/chat' }, bindings: { http: { method: put } } }
  far: { action: send, channel: { address: x, servers: [ { $ref: '#/servers/broker' } ] } }
";
const OLD: &str = "
asyncapi: 2.6.0
defaultContentType: text/plain
servers: { web: { url: 'HOST/base', protocol: http } }
channels:
  hello: { publish: { operationId: hi } }
  quiet: { subscribe: {} }
";

struct Chat(Peer, tempfile::TempDir);

impl Chat {
    async fn new() -> Self {
        let peer = Peer::new(|seen, _| match seen.path.as_str() {
            "/base/hello" => {
                status(StatusCode::ACCEPTED.as_u16(), &json!({"body": String::from_utf8_lossy(&seen.body)}))
            }
            _ => ok(&json!({"method": seen.method, "path": seen.path, "body": seen.json()})),
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let host = peer.url.trim_start_matches("http://");
        std::fs::write(folder.path().join("new.yaml"), NEW.replace("HOST", host)).unwrap();
        std::fs::write(folder.path().join("old.yaml"), OLD.replace("HOST", host)).unwrap();
        Self(peer, folder)
    }

    async fn define(&self, rest: &str) -> Result<Definition, String> {
        let reader = FolderAndNetwork::new(Some(self.1.path().to_owned()), Clock::system());
        let text = format!(
            "document: {{ dsl: '1.0.3', namespace: tests, name: chat, version: '1.0.0' }}\ndo:\n  - ask:\n      call: asyncapi\n      with: {{ {rest} }}\n"
        );
        Definition::read("chat", &text, &reader).await.map_err(|why| match why {
            standfast_workflow::BadDefinition::Wrong(found) => panic!("{found}"),
            other => other.to_string(),
        })
    }

    async fn run(&self, rest: &str) -> Summary {
        let definition = self.define(rest).await.unwrap();
        let (rig, name) = (Rig::new().await, definition.program.name().clone());
        rig.engine.define(definition).await.unwrap();
        let run = rig.start(&name, json!({"room": "a/b", "text": "hi"})).await;
        rig.end(run).await
    }
}

#[tokio::test]
async fn a_message_is_sent_by_http_as_either_version_has_it() {
    let chat = Chat::new().await;
    let ended = chat.run("document: { endpoint: 'file://new.yaml' }, operation: say, server: { name: web, variables: { room: '${ .room }' } }, message: { payload: { text: '${ .text }' }, headers: { X-One: a } }").await;
    assert_eq!(ended.problem, None);
    assert_eq!(
        *ended.output.unwrap(),
        json!({"method": "PUT", "path": "/v1/rooms/a%2Fb", "body": {"text": "hi"}})
    );
    let seen = &chat.0.seen("/v1/rooms/a%2Fb")[0];
    assert!(seen.header("x-one") == "a" && seen.header("idempotency-key").ends_with("/do/0/ask\""));
    let ended = chat.run("document: { endpoint: 'file://old.yaml' }, channel: hello, protocol: http, message: { payload: { text: '${ .text }' } }").await;
    assert_eq!(ended.problem, None);
    assert_eq!(*ended.output.unwrap(), json!({"body": "{\"text\":\"hi\"}"}));
    assert_eq!(chat.0.seen("/base/hello")[0].header("content-type"), "text/plain");
}

#[tokio::test]
async fn what_cannot_be_sent_is_told() {
    let chat = Chat::new().await;
    let message = "message: { payload: { a: 1 } }";
    for (rest, says) in [
        (format!("document: {{ endpoint: 'file://new.yaml' }}, operation: far, {message}"), "`broker` (kafka)"),
        (format!("document: {{ endpoint: 'file://new.yaml' }}, operation: none, {message}"), "no operation `none`"),
        (format!("document: {{ endpoint: 'file://new.yaml' }}, channel: chat, {message}"), "version 3 needs `operation`"),
        (format!("document: {{ endpoint: 'file://old.yaml' }}, channel: quiet, {message}"), "nothing can be published"),
        (
            "document: { endpoint: 'file://old.yaml' }, channel: quiet, subscription: { consume: { amount: 1 } }".to_owned(),
            "messages are received by MQTT only",
        ),
    ] {
        let found = chat.define(&rest).await.unwrap_err();
        assert!(found.contains(says), "{found}");
    }
    let problem = chat
        .run(&format!("document: {{ endpoint: 'file://new.yaml' }}, operation: say, {message}"))
        .await
        .problem
        .unwrap();
    assert!(problem.detail.unwrap().contains("the variable `room` is missing"));
}
