//! Operations of `OpenAPI` documents.

use std::sync::Arc;

use serde_json::{Value, json};
use standfast_runtime::Clock;
use standfast_store::MemoryStore;
use standfast_workflow::{Definition, EngineConfig, FolderAndNetwork, Summary};

use super::peer::{Peer, Seen, ok, status};
use super::rig::Rig;

const HEAD: &str = "document: { dsl: '1.0.3', namespace: tests, name: api, version: '1.0.0' }\n";

const NEW: &str = r##"
openapi: 3.1.0
info: { title: shop, version: '1' }
servers:
  - url: 'HOST/{stage}/'
    variables: { stage: { default: v1 } }
paths:
  /orders/{id}/items:
    parameters:
      - { name: id, in: path, required: true, schema: { type: string } }
      - $ref: '#/components/parameters/trace'
    get:
      operationId: listItems
      parameters:
        - { name: status, in: query, schema: { type: array } }
        - { name: tags, in: query, explode: false, schema: { type: array } }
        - { name: filter, in: query, style: deepObject, schema: { type: object } }
        - { name: raw, in: query, content: { application/json: {} } }
        - { name: session, in: cookie, schema: { type: string } }
      responses: { '200': { content: { application/json: {} } } }
    post:
      operationId: addItem
      requestBody: { $ref: '#/components/requestBodies/item' }
  /moved:
    get: { operationId: moved }
  /form:
    post:
      operationId: form
      requestBody: { content: { application/x-www-form-urlencoded: {} } }
components:
  parameters:
    trace: { name: X-Trace, in: header, schema: { type: string } }
  requestBodies:
    item: { required: true, content: { application/xml: {}, application/json: {} } }
"##;

const OLD: &str = r#"{
  "swagger": "2.0", "info": {"title": "pets", "version": "1"}, "host": "HOST", "basePath": "/v2", "schemes": ["http"],
  "consumes": ["application/json"], "produces": ["application/json"],
  "paths": {
    "/pet/{petId}": {"get": {"operationId": "getPetById", "parameters": [{"name": "petId", "in": "path", "required": true, "type": "integer"}]}},
    "/pet/findByStatus": {"get": {"operationId": "findPetsByStatus", "parameters": [{"name": "status", "in": "query", "required": true, "type": "array", "collectionFormat": "multi"}]}},
    "/pet": {"post": {"operationId": "addPet", "parameters": [{"name": "pet", "in": "body", "required": true}]}}
  }
}"#;

struct Shop {
    peer: Peer,
    folder: tempfile::TempDir,
}

impl Shop {
    async fn new() -> Self {
        let peer = Peer::new(|seen, _| match seen.path.as_str() {
            "/v1/moved" => {
                let mut answer = status(302, &json!({}));
                answer.headers_mut().insert("location", "http://elsewhere.example/".parse().unwrap());
                answer
            }
            _ => ok(&json!({"path": seen.path, "query": seen.query, "body": seen.json()})),
        })
        .await;
        let folder = tempfile::tempdir().unwrap();
        let host = peer.url.trim_start_matches("http://");
        std::fs::write(folder.path().join("new.yaml"), NEW.replace("HOST", &peer.url)).unwrap();
        std::fs::write(folder.path().join("old.json"), OLD.replace("HOST", host)).unwrap();
        Self { peer, folder }
    }

    async fn define(&self, file: &str, rest: &str) -> Result<Definition, String> {
        let reader = FolderAndNetwork::new(Some(self.folder.path().to_owned()), Clock::system());
        let text = format!(
            "{HEAD}do:\n  - ask:\n      call: openapi\n      with: {{ document: {{ endpoint: 'file://{file}' }}, {rest} }}\n"
        );
        Definition::read("api", &text, &reader).await.map_err(|why| match why {
            standfast_workflow::BadDefinition::Wrong(found) => panic!("{found}"),
            other => other.to_string(),
        })
    }

    async fn run(&self, file: &str, rest: &str) -> Summary {
        let definition = self.define(file, rest).await.unwrap();
        let name = definition.program.name().clone();
        let secrets = json!({"login": {"username": "ada", "password": "p"}});
        let config = EngineConfig {
            secrets: Some(secrets.as_object().unwrap().clone().into()),
            ..EngineConfig::default()
        };
        let rig = Rig::over(Arc::new(MemoryStore::new(Clock::system())), config).await;
        rig.engine.define(definition).await.unwrap();
        let run = rig.start(&name, json!({"id": "a/b", "name": "Rex"})).await;
        rig.end(run).await
    }

    async fn output(&self, file: &str, rest: &str) -> Value {
        let ended = self.run(file, rest).await;
        assert_eq!(ended.problem, None);
        Value::clone(&*ended.output.unwrap())
    }

    fn last(&self, path: &str) -> Seen {
        self.peer.seen(path).pop().unwrap()
    }
}

#[tokio::test]
async fn parameters_stand_where_the_document_puts_them() {
    let shop = Shop::new().await;
    let rest = "operationId: listItems, parameters: { id: '${ .id }', X-Trace: t-1, status: [ new, 'a b' ], tags: [ x, y ], filter: { min: 1 }, raw: { deep: [ 1 ] }, session: s1 }, authentication: { basic: { username: u, password: p } }";
    let output = shop.output("new.yaml", rest).await;
    assert_eq!(output["path"], "/v1/orders/a%2Fb/items");
    assert_eq!(
        output["query"],
        "filter%5Bmin%5D=1&raw=%7B%22deep%22%3A%5B1%5D%7D&status=new&status=a%20b&tags=x,y"
    );
    let seen = shop.last("/v1/orders/a%2Fb/items");
    assert_eq!((seen.header("x-trace"), seen.header("cookie")), ("t-1", "session=s1"));
    assert_eq!((seen.header("authorization"), seen.header("accept")), ("Basic dTpw", "application/json"));
    assert!(!seen.header("idempotency-key").is_empty());
}

#[tokio::test]
async fn bodies_are_written_by_their_type() {
    let shop = Shop::new().await;
    let output = shop
        .output("new.yaml", "operationId: addItem, parameters: { id: 1, body: { name: '${ .name }' } }")
        .await;
    assert_eq!(output["body"], json!({"name": "Rex"}));
    let output =
        shop.output("new.yaml", "operationId: addItem, parameters: { id: 1, name: Tom, size: 2 }").await;
    assert_eq!(output["body"], json!({"name": "Tom", "size": 2}));
    shop.output("new.yaml", "operationId: form, parameters: { a: 'x y' }").await;
    assert_eq!(Value::Object(shop.last("/v1/form").form()), json!({"a": "x y"}));
}

#[tokio::test]
async fn documents_of_version_two_are_read_too() {
    let shop = Shop::new().await;
    let output = shop.output("old.json", "operationId: getPetById, parameters: { petId: 7 }").await;
    assert_eq!(output["path"], "/v2/pet/7");
    let output =
        shop.output("old.json", "operationId: findPetsByStatus, parameters: { status: [ a, b ] }").await;
    assert_eq!(output["query"], "status=a&status=b");
    let output = shop.output("old.json", "operationId: addPet, parameters: { pet: { name: Rex } }").await;
    assert_eq!(output["body"], json!({"name": "Rex"}));
    let answer =
        shop.output("old.json", "operationId: getPetById, parameters: { petId: 7 }, output: response").await;
    assert_eq!((&answer["statusCode"], &answer["content"]["path"]), (&json!(200), &json!("/v2/pet/7")));
}

#[tokio::test]
async fn a_redirect_is_an_error_or_an_answer_and_is_never_followed() {
    let shop = Shop::new().await;
    assert_eq!(shop.run("new.yaml", "operationId: moved").await.problem.unwrap().status, 302);
    let answer = shop.output("new.yaml", "operationId: moved, redirect: true, output: response").await;
    assert_eq!(answer["headers"]["location"], "http://elsewhere.example/");
}

#[tokio::test]
async fn what_does_not_fit_the_document_is_told() {
    let shop = Shop::new().await;
    for (file, text, says) in [
        ("new.yaml", NEW.replace("HOST", "http://h"), "no operation `nobody`; known are: "),
        ("new.yaml", NEW.replace("HOST", "ftp://h"), "`ftp://h/v1/`, which is no address of HTTP"),
        ("new.yaml", NEW.replace("3.1.0", "4.0"), "neither Swagger 2.0 nor OpenAPI 3"),
        ("new.yaml", NEW.replace("'#/components/parameters/trace'", "'other.yaml#/x'"), "in another file"),
        ("new.yaml", NEW.replace("'#/components/parameters/trace'", "'#/nowhere'"), "leads nowhere"),
        (
            "new.yaml",
            NEW.replace(
                "trace: { name: X-Trace, in: header, schema: { type: string } }",
                "trace: { $ref: '#/components/parameters/trace' }",
            ),
            "without end",
        ),
        ("new.yaml", "a: [".to_owned(), "this file ("),
        ("new.yaml", "[]".to_owned(), "neither"),
    ] {
        std::fs::write(shop.folder.path().join(file), text.replace("HOST", "http://h")).unwrap();
        let operation = if says.contains("nobody") { "nobody" } else { "listItems" };
        let found = shop.define(file, &format!("operationId: {operation}")).await.unwrap_err();
        assert!(found.contains(says), "{found}");
    }
    let shop = Shop::new().await;
    for (rest, says) in [
        ("operationId: listItems", "the parameter `id` is required"),
        ("operationId: listItems, parameters: { id: '..' }", "it is part of a path"),
        ("operationId: listItems, parameters: { id: 1, other: 2 }", "no parameter `other`"),
        ("operationId: addItem, parameters: { id: 1 }", "needs a `body`"),
        ("operationId: listItems, parameters: { id: 1, X-Trace: \"a\\r\\nb: c\" }", "must be one line"),
    ] {
        let problem = shop.run("new.yaml", rest).await.problem.unwrap();
        assert!(problem.status == 400 && problem.detail.as_ref().unwrap().contains(says), "{problem:?}");
    }
}
