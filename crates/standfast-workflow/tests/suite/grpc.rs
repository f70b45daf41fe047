//! Methods of gRPC services, against a service that speaks HTTP/2 by hand.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Response};
use serde_json::{Value, json};
use standfast_runtime::{Clock, Net};
use standfast_workflow::{Definition, FolderAndNetwork, Summary};

use super::rig::Rig;

const PROTO: &str = r#"
syntax = "proto3";
package greet.v1;
import "common/mood.proto";
import "google/protobuf/timestamp.proto";
message HelloRequest { string name = 1; int64 big = 2; common.Mood mood = 3; }
message HelloReply { string said = 1; int64 count = 2; bool is_last = 3; google.protobuf.Timestamp at = 4; }
service Greeter {
  rpc SayHello (HelloRequest) returns (HelloReply);
  rpc Count (HelloRequest) returns (stream HelloReply);
  rpc Upload (stream HelloRequest) returns (HelloReply);
  rpc Chat (stream HelloRequest) returns (stream HelloReply);
}
"#;
const MOOD: &str = "syntax = \"proto3\"; package common; enum Mood { UNKNOWN = 0; GLAD = 1; }\n";

/// What came: paths, header fields, messages.
type Seen = Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>;

struct Service {
    port: u16,
    seen: Seen,
    folder: tempfile::TempDir,
}

/// A message of one text field with the number 1.
fn text(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x0a, u8::try_from(text.len()).unwrap()];
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).unwrap());
    bytes.put_slice(message);
    bytes.freeze()
}

impl Service {
    /// Answers as the request's name says.
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("protos/common")).unwrap();
        std::fs::write(folder.path().join("protos/greet.proto"), PROTO).unwrap();
        std::fs::write(folder.path().join("protos/common/mood.proto"), MOOD).unwrap();
        let listener = Net::real().listen_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Seen::default();
        let known = Arc::clone(&seen);
        #[expect(clippy::disallowed_methods, reason = "the test's runtime ends it with the test")]
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let known = Arc::clone(&known);
                tokio::spawn(async move {
                    let mut connection = h2::server::handshake(stream).await.unwrap();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(answer(request, respond, Arc::clone(&known)));
                    }
                });
            }
        });
        Self { port, seen, folder }
    }

    async fn define(&self, rest: &str) -> Result<Definition, String> {
        let reader = FolderAndNetwork::new(Some(self.folder.path().to_owned()), Clock::system());
        let text = format!(
            "document: {{ dsl: '1.0.3', namespace: tests, name: rpc, version: '1.0.0' }}
do:
  - ask:
      call: grpc
      timeout: {{ after: {{ seconds: 5 }} }}
      with:
        proto: {{ endpoint: 'file://protos/greet.proto' }}
        service: {{ name: greet.v1.Greeter, host: 127.0.0.1, port: {}, authentication: {{ bearer: {{ token: t }} }} }}
{rest}",
            self.port
        );
        Definition::read("rpc", &text, &reader).await.map_err(|why| match why {
            standfast_workflow::BadDefinition::Wrong(found) => panic!("{found}"),
            other => other.to_string(),
        })
    }

    async fn run(&self, rest: &str, name: &str) -> Summary {
        let definition = self.define(rest).await.unwrap();
        let (rig, known) = (Rig::new().await, definition.program.name().clone());
        rig.engine.define(definition).await.unwrap();
        let run = rig.start(&known, json!({"name": name})).await;
        rig.end(run).await
    }
}

async fn answer(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    seen: Seen,
) {
    let (head, mut body) = request.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(Ok(part)) = body.data().await {
        let _more = body.flow_control().release_capacity(part.len());
        bytes.extend_from_slice(&part);
    }
    let bytes = bytes.freeze();
    let name = String::from_utf8_lossy(&bytes).into_owned();
    seen.lock().unwrap().push((head.uri.path().to_owned(), head.headers, bytes));
    let says = |word: &str| name.contains(word);
    let mut answer = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    let trailers = |code: &'static str, said: &'static str| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(code));
        trailers.insert("grpc-message", HeaderValue::from_static(said));
        trailers
    };
    if says("nobody") {
        answer.headers_mut().extend(trailers("5", "no%20such one"));
        respond.send_response(answer, true).unwrap();
        return;
    }
    if says("gone") {
        *answer.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
        respond.send_response(answer, true).unwrap();
        return;
    }
    let mut stream = respond.send_response(answer, false).unwrap();
    if says("slow") {
        Clock::system().sleep(Duration::from_secs(30)).await;
    }
    if says("huge") {
        stream.send_data(Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff]), false).unwrap();
    } else if says("half") {
        stream.send_data(Bytes::from_static(&[0, 0, 0, 0, 9, 1]), false).unwrap();
    } else if says("packed") {
        stream.send_data(Bytes::from_static(&[1, 0, 0, 0, 0]), false).unwrap();
    } else if says("broken") {
        stream.send_data(framed(&[0x0a, 0x7f]), false).unwrap();
    } else if says("flood") {
        let part: Bytes = framed(&text("x")).repeat(2_000).into();
        stream.send_data(part, false).unwrap();
    } else {
        let mut first = text("hello");
        first.extend_from_slice(&[0x10, 0x07, 0x22, 0x02, 0x08, 0x01]); // count: 7, at: one second
        stream.send_data(framed(&first), false).unwrap();
        if head.uri.path().ends_with("/Count") || head.uri.path().ends_with("/Chat") {
            stream.send_data(framed(&text("again")), false).unwrap();
        }
    }
    let trailers = match () {
        () if says("denied") => trailers("7", ""),
        () if says("unknown") => trailers("16", "who"),
        () if says("odd") => trailers("99", ""),
        () => trailers("0", ""),
    };
    if says("silent") {
        stream.send_data(Bytes::new(), true).unwrap();
        return;
    }
    stream.send_trailers(trailers).unwrap();
}

const HELLO: &str = "        method: SayHello\n        arguments: { name: '${ .name }', big: '9007199254740993', mood: GLAD }\n";

#[tokio::test]
async fn a_method_is_called_with_data_and_yields_data() {
    let service = Service::new().await;
    let ended = service.run(HELLO, "Ada").await;
    assert_eq!(ended.problem, None);
    let wanted = json!({"said": "hello", "count": "7", "isLast": false, "at": "1970-01-01T00:00:01Z"});
    assert_eq!(*ended.output.unwrap(), wanted);
    let (path, headers, bytes) = service.seen.lock().unwrap()[0].clone();
    assert_eq!(path, "/greet.v1.Greeter/SayHello");
    let mut message = text("Ada");
    message.extend_from_slice(&[0x10, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10, 0x18, 0x01]);
    assert_eq!(bytes, framed(&message));
    assert_eq!(
        (&headers["authorization"], &headers["te"]),
        (&"Bearer t".parse().unwrap(), &"trailers".parse().unwrap())
    );
    let left = headers["grpc-timeout"].to_str().unwrap();
    assert!(left.ends_with('m') && left.trim_end_matches('m').parse::<u64>().unwrap() <= 5_000, "{left}");
    assert!(headers["idempotency-key"].to_str().unwrap().ends_with("/do/0/ask\""));
}

#[tokio::test]
async fn what_a_service_streams_is_a_list() {
    let service = Service::new().await;
    let ended = service.run("        method: Count\n", "Ada").await;
    assert_eq!(ended.problem, None);
    let said: Vec<Value> =
        ended.output.unwrap().as_array().unwrap().iter().map(|one| one["said"].clone()).collect();
    assert_eq!(said, ["hello", "again"]);
}

#[tokio::test]
async fn a_method_that_takes_a_stream_is_sent_a_list() {
    let service = Service::new().await;
    let stream = |method: &str, messages: &str| {
        format!("        method: {method}\n        arguments: {{ messages: {messages} }}\n")
    };
    let some = "[ { name: '${ .name }' }, { name: Bo } ]";
    let ended = service.run(&stream("Upload", some), "Ada").await;
    assert_eq!((&ended.problem, &ended.output.unwrap()["said"]), (&None, &json!("hello")));
    let ended = service.run(&stream("Chat", "'${ [range(3) | {name: \"n\\(.)\"}] }'"), "Ada").await;
    assert_eq!((&ended.problem, ended.output.unwrap().as_array().map(Vec::len)), (&None, Some(2)));
    let ended = service.run(&stream("Upload", "[]"), "Ada").await;
    assert_eq!(ended.problem, None);
    let sent: Vec<Bytes> = service.seen.lock().unwrap().iter().map(|(_, _, bytes)| bytes.clone()).collect();
    let framed = |names: &[&str]| Bytes::from_iter(names.iter().flat_map(|name| framed(&text(name))));
    assert_eq!(sent, [framed(&["Ada", "Bo"]), framed(&["n0", "n1", "n2"]), Bytes::new()]);
    for (arguments, says) in [
        ("{ name: Ada }", "hold `name` beside or in place of `messages`"),
        ("{ messages: 1 }", "hold `messages` that are no list"),
        ("{}", "hold no `messages`"),
        ("{ messages: [ { nmae: Ada } ] }", "are no `greet.v1.HelloRequest`"),
        ("{ messages: '${ [range(1001) | {}] }' }", "at most 1000 are sent"),
    ] {
        let call = format!("        method: Upload\n        arguments: {arguments}\n");
        let problem = service.run(&call, "Ada").await.problem.unwrap();
        assert!(problem.kind.ends_with("validation"), "{problem:?}");
        assert!(problem.detail.as_ref().unwrap().contains(says), "{problem:?}");
    }
}

#[tokio::test]
async fn codes_and_broken_answers_are_problems_of_the_task() {
    let service = Service::new().await;
    for (name, kind, status, says) in [
        ("nobody", "communication", 404, "NOT_FOUND: no such one"),
        ("gone", "communication", 503, "503"),
        ("denied", "authorization", 403, "PERMISSION_DENIED"),
        ("unknown", "authentication", 401, "UNAUTHENTICATED: who"),
        ("odd", "communication", 500, "UNKNOWN"),
        ("huge", "communication", 500, "longer than 256 KiB"),
        ("half", "communication", 500, "within a message"),
        ("packed", "communication", 500, "packed its answer"),
        ("broken", "communication", 500, "is no `greet.v1.HelloReply`"),
        ("flood", "communication", 500, "more than 1000 messages"),
        ("silent", "communication", 500, "without a status"),
        ("slow", "timeout", 408, ""),
    ] {
        let problem =
            service.run(HELLO, name).await.problem.unwrap_or_else(|| panic!("{name} is no problem"));
        assert!(problem.kind.ends_with(kind) && problem.status == status, "{name}: {problem:?}");
        assert!(problem.detail.as_ref().unwrap().contains(says), "{name}: {problem:?}");
    }
    let refused = service
        .run("        method: SayHello\n        arguments: { nmae: x }\n", "Ada")
        .await
        .problem
        .unwrap();
    assert!(refused.kind.ends_with("validation") && refused.detail.unwrap().contains("nmae"));
}

#[tokio::test]
async fn what_the_files_do_not_say_is_told_when_it_is_defined() {
    let service = Service::new().await;
    for (rest, says) in
        [("        method: Nothing\n", "`Nothing` (known are: SayHello, Count, Upload, Chat)")]
    {
        let found = service.define(rest).await.unwrap_err();
        assert!(found.contains(says), "{found}");
    }
    let file = service.folder.path().join("protos/greet.proto");
    for (text, says) in [
        (PROTO.replace("Greeter", "Other"), "known are: greet.v1.Other"),
        (PROTO.replace("HelloReply {", "HelloReply { nothing"), "this file ("),
        (PROTO.replace("common/mood.proto", "../../secret.proto"), "this file (greet.proto:4:8"),
        (PROTO.replace("common/mood.proto", "none.proto"), "protos/none.proto"),
    ] {
        std::fs::write(&file, &text).unwrap();
        let found = service.define(HELLO).await.unwrap_err();
        assert!(found.contains(says), "{text}: {found}");
    }
}
