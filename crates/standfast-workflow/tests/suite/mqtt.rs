//! Messages that are sent to a real broker and received from it, as `AsyncAPI` documents have them.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use standfast_runtime::{Clock, Net};
use standfast_store::{MemoryStore, Store};
use standfast_workflow::{Definition, EngineConfig, FolderAndNetwork, RunId, Status, WorkflowName};

use super::rig::{PATIENCE, Rig, Service};

const DOCUMENT: &str = "
asyncapi: 3.0.0
servers:
  broker: { host: 'HOST:1883', protocol: mqtt }
channels:
  orders: { address: 'shop/{shop}/orders' }
operations:
  order: { action: send, channel: { $ref: '#/channels/orders' } }
  keep: { action: send, channel: { $ref: '#/channels/orders' }, bindings: { mqtt: { qos: 2, retain: true } } }
  take: { action: receive, channel: { $ref: '#/channels/orders' } }
  once: { action: receive, channel: { $ref: '#/channels/orders' }, bindings: { mqtt: { qos: 2 } } }
";

/// A broker of its own, on an address that nobody else has.
struct Broker {
    child: Child,
    host: String,
    folder: tempfile::TempDir,
}

impl Broker {
    async fn start(more: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let (pid, next) = (std::process::id(), NEXT.fetch_add(1, Ordering::SeqCst));
        let host = format!("127.{}.{}.{}", 64 + (pid >> 8) % 64, pid % 256, next);
        let folder = tempfile::tempdir().unwrap();
        let kept = folder.path().join("broker");
        std::fs::create_dir(&kept).unwrap();
        let config = format!(
            "listener 1883 {host}\npersistence true\npersistence_location {}/\nuser root\n{more}\n",
            kept.display()
        )
        .replace("FOLDER", &folder.path().display().to_string());
        std::fs::write(folder.path().join("broker.conf"), config).unwrap();
        std::fs::write(folder.path().join("shop.yaml"), DOCUMENT.replace("HOST", &host)).unwrap();
        let child = spawn(folder.path());
        let broker = Self { child, host, folder };
        broker.is_there().await;
        broker
    }

    async fn is_there(&self) {
        let connecting = async {
            let address = format!("{}:1883", self.host).parse().unwrap();
            while Net::real().connect_tcp(address).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        Clock::system().timeout(PATIENCE, connecting).await.expect("the broker listens");
    }

    /// Ends it as its administrator would: what it promised to keep, it keeps.
    fn stop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }

    async fn start_again(&mut self) {
        self.child = spawn(self.folder.path());
        self.is_there().await;
    }

    async fn define(&self, rig: &Rig, name: &str, tasks: &str) -> WorkflowName {
        let reader = FolderAndNetwork::new(Some(self.folder.path().to_owned()), Clock::system());
        let text = format!(
            "document: {{ dsl: '1.0.3', namespace: tests, name: {name}, version: '1.0.0' }}\ndo:\n{tasks}"
        );
        let definition = Definition::read(name, &text, &reader).await.unwrap_or_else(|why| match why {
            standfast_workflow::BadDefinition::Wrong(found) => panic!("{found}"),
            other => panic!("{other}"),
        });
        let name = definition.program.name().clone();
        rig.engine.define(definition).await.unwrap();
        name
    }

    /// A workflow that sends its input's `text`.
    async fn sender(&self, rig: &Rig, operation: &str) -> WorkflowName {
        let tasks = format!(
            "  - say: {{ call: asyncapi, with: {{ document: {{ endpoint: 'file://shop.yaml' }}, operation: {operation}, server: {{ name: broker, variables: {{ shop: '${{ .shop }}' }} }}, message: {{ payload: {{ text: '${{ .text }}' }}, headers: {{ X-Kind: test }} }} }} }}\n"
        );
        self.define(rig, operation, &tasks).await
    }

    /// A workflow that receives.
    async fn receiver(&self, rig: &Rig, name: &str, operation: &str, rest: &str) -> WorkflowName {
        let tasks = format!(
            "  - hear: {{ call: asyncapi, with: {{ document: {{ endpoint: 'file://shop.yaml' }}, operation: {operation}, server: {{ name: broker, variables: {{ shop: '${{ .shop }}' }} }}, subscription: {{ {rest} }} }} }}\n"
        );
        self.define(rig, name, &tasks).await
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _it_has_ended = self.child.kill();
        let _it_has_ended = self.child.wait();
    }
}

fn spawn(folder: &Path) -> Child {
    let outside = Path::new("/usr/sbin/mosquitto");
    let program = if outside.is_file() { outside } else { Path::new("mosquitto") };
    let child = Command::new(program)
        .arg("-c")
        .arg(folder.join("broker.conf"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    child.expect("a broker is needed: cargo xtask test installs mosquitto")
}

async fn say(rig: &Rig, name: &WorkflowName, shop: &str, text: &str) {
    let id = rig.start(name, json!({"shop": shop, "text": text})).await;
    let ended = rig.end(id).await;
    assert_eq!((ended.status, &ended.problem), (Status::Completed, &None));
}

fn texts(output: &Value) -> Vec<&str> {
    output.as_array().unwrap().iter().map(|message| message["payload"]["text"].as_str().unwrap()).collect()
}

/// Returns once a run has taken so many messages.
async fn has_taken(rig: &Rig, id: RunId, count: usize) {
    let taking = async {
        loop {
            let run = rig.engine.show(id).await.unwrap().run.unwrap();
            let consumed = serde_json::to_value(&run.scopes).unwrap();
            let taken = consumed
                .as_object()
                .unwrap()
                .values()
                .filter_map(|scope| scope.pointer("/state/receiving/consumed")?.as_array().map(Vec::len))
                .sum::<usize>();
            if taken >= count {
                return;
            }
        }
    };
    rig.clock.timeout(PATIENCE, taking).await.expect("it takes them in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_is_received_and_filtered() {
    let (broker, rig) = (Broker::start("allow_anonymous true").await, Rig::new().await);
    let (keep, order) = (broker.sender(&rig, "keep").await, broker.sender(&rig, "order").await);
    let rest = "filter: '${ .payload.text != \"no\" }', consume: { amount: 2 }";
    let take = broker.receiver(&rig, "take", "take", rest).await;
    say(&rig, &keep, "a", "first").await;
    say(&rig, &keep, "b", "of another").await;
    let id = rig.start(&take, json!({"shop": "a"})).await;
    has_taken(&rig, id, 1).await;
    assert_eq!(rig.engine.show(id).await.unwrap().summary.status, Status::Waiting);
    for text in ["no", "second", "third"] {
        say(&rig, &order, "a", text).await;
    }
    let output = rig.end(id).await.output.unwrap();
    assert_eq!(texts(&output), ["first", "second"]);
    assert_eq!(output[0]["channel"], "shop/a/orders");
    let headers = &output[0]["headers"];
    assert_eq!((&headers["content-type"], &headers["x-kind"]), (&json!("application/json"), &json!("test")));
    assert!(headers["idempotency-key"].as_str().unwrap().contains("/do/0/say"), "{headers}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn something_is_done_for_each_until_there_are_enough() {
    let (broker, rig) = (Broker::start("allow_anonymous true").await, Rig::new().await);
    let (keep, order) = (broker.sender(&rig, "keep").await, broker.sender(&rig, "order").await);
    let each = "consume: { while: '${ length < 3 }' }, foreach: { item: order, at: number, do: [ { book: { call: http, with: { method: post, endpoint: SERVICE/book }, output: { as: '${ $order.payload.text + ($number | tostring) }' } } } ] }"
        .replace("SERVICE", &format!("http://{}", rig.service.address));
    let take = broker.receiver(&rig, "take", "once", &each).await;
    say(&rig, &keep, "a", "x").await;
    let id = rig.start(&take, json!({"shop": "a"})).await;
    has_taken(&rig, id, 1).await;
    for text in ["y", "z"] {
        say(&rig, &order, "a", text).await;
    }
    assert_eq!(*rig.end(id).await.output.unwrap(), json!(["x0", "y1", "z2"]));
    assert_eq!(rig.service.seen(|seen| seen.effects.len()), 3);
    let until = "consume: { until: '${ length == 1 }', for: { seconds: 60 } }";
    let until = broker.receiver(&rig, "until", "take", until).await;
    let id = rig.start(&until, json!({"shop": "a"})).await;
    assert_eq!(texts(rig.end(id).await.output.as_ref().unwrap()), ["x"], "it needs no other one to end");
    let brief =
        broker.receiver(&rig, "brief", "take", "consume: { amount: 9, for: { milliseconds: 300 } }").await;
    let id = rig.start(&brief, json!({"shop": "nobody's"})).await;
    assert_eq!(*rig.end(id).await.output.unwrap(), json!([]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_outlive_crashes_of_the_engine_and_of_the_broker() {
    let mut broker = Broker::start("allow_anonymous true").await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
    let rig = Rig::over(Arc::clone(&store), EngineConfig::default()).await;
    let keep = broker.sender(&rig, "keep").await;
    let take = broker.receiver(&rig, "take", "take", "consume: { amount: 25 }").await;
    say(&rig, &keep, "a", "0").await;
    let id = rig.start(&take, json!({"shop": "a"})).await;
    has_taken(&rig, id, 1).await;
    let mut service: Service = rig.crash().await;
    // While nobody of ours receives, another sends: an engine of its own.
    let other = Rig::new().await;
    let away = broker.sender(&other, "order").await;
    for number in 1..=21 {
        say(&other, &away, "a", &number.to_string()).await;
    }
    for round in 0..3 {
        let rig = Rig::beside(Arc::clone(&store), EngineConfig::default(), service).await;
        has_taken(&rig, id, 22 + round).await;
        if round == 1 {
            broker.stop();
            broker.start_again().await;
        }
        say(&other, &away, "a", &(22 + round).to_string()).await;
        service = rig.crash().await;
    }
    let rig = Rig::beside(store, EngineConfig::default(), service).await;
    let wanted: Vec<String> = (0..25).map(|number| number.to_string()).collect();
    assert_eq!(texts(rig.end(id).await.output.as_ref().unwrap()), wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_not_let_in_or_finds_nobody_is_told() {
    let mut broker = Broker::start("allow_anonymous false").await;
    let rig = Rig::new().await;
    let order = broker.sender(&rig, "order").await;
    let sends = || async {
        let id = rig.start(&order, json!({"shop": "a", "text": "x"})).await;
        rig.end(id).await.problem.unwrap()
    };
    let problem = sends().await;
    assert_eq!(problem.kind.rsplit('/').next(), Some("authorization"), "{problem:?}");
    assert!(problem.detail.as_deref().unwrap().contains(&broker.host), "{problem:?}");
    broker.stop();
    let problem = sends().await;
    assert_eq!(problem.kind.rsplit('/').next(), Some("communication"), "{problem:?}");
    let late =
        broker.receiver(&rig, "late", "take", "consume: { amount: 1, for: { milliseconds: 200 } }").await;
    let id = rig.start(&late, json!({"shop": "a"})).await;
    assert_eq!(
        *rig.end(id).await.output.unwrap(),
        json!([]),
        "its time is over, and the broker may come back"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nests_too_deep_is_a_text_and_harms_nobody() {
    let broker = Broker::start("allow_anonymous true").await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
    let rig = Rig::over(Arc::clone(&store), EngineConfig::default()).await;
    // More than a run may hold, and no more than a reader of JSON follows.
    let (open, close) = ("{ a: ".repeat(26), " }".repeat(26));
    let tasks = format!(
        "  - say: {{ call: asyncapi, with: {{ document: {{ endpoint: 'file://shop.yaml' }}, operation: keep, server: {{ name: broker, variables: {{ shop: a }} }}, message: {{ payload: {open}'${{ .deep }}'{close} }} }} }}\n"
    );
    let deep = broker.define(&rig, "deep", &tasks).await;
    let input = (0..90).fold(json!("x"), |deep, _| json!([deep]));
    let id = rig.start(&deep, json!({"deep": input})).await;
    let sent = rig.end(id).await;
    assert_eq!((sent.status, &sent.problem), (Status::Completed, &None));
    let take = broker.receiver(&rig, "take", "take", "consume: { amount: 2 }").await;
    let id = rig.start(&take, json!({"shop": "a"})).await;
    has_taken(&rig, id, 1).await;
    let service = rig.crash().await;
    let rig = Rig::beside(store, EngineConfig::default(), service).await;
    let order = broker.sender(&rig, "order").await;
    say(&rig, &order, "a", "flat").await;
    let output = rig.end(id).await.output.unwrap();
    assert_eq!(output[0]["payload"].as_str().map(|text| text.matches('[').count()), Some(90), "{output}");
    assert_eq!(output[1]["payload"]["text"], "flat");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_broker_kept_counts_though_the_time_is_over() {
    let broker = Broker::start("allow_anonymous true").await;
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new(Clock::system()));
    let rig = Rig::over(Arc::clone(&store), EngineConfig::default()).await;
    let keep = broker.sender(&rig, "keep").await;
    say(&rig, &keep, "a", "0").await;
    let rest = "consume: { amount: 99, for: { seconds: 1 } }";
    let take = broker.receiver(&rig, "take", "take", rest).await;
    let id = rig.start(&take, json!({"shop": "a"})).await;
    has_taken(&rig, id, 1).await;
    let over = rig.clock.now().plus(Duration::from_secs(1));
    let service = rig.crash().await;
    let other = Rig::new().await;
    let away = broker.sender(&other, "order").await;
    for number in 1..=25 {
        say(&other, &away, "a", &number.to_string()).await;
    }
    other.clock.sleep_until(over).await;
    let rig = Rig::beside(store, EngineConfig::default(), service).await;
    let wanted: Vec<String> = (0..=25).map(|number| number.to_string()).collect();
    assert_eq!(texts(rig.end(id).await.output.as_ref().unwrap()), wanted);
}

/// Each has a message of its own as effect, by the keys of its messages, also when an earlier attempt took others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_attempt_is_given_what_the_one_before_had_not_done() {
    let (broker, rig) = (Broker::start("allow_anonymous true").await, Rig::new().await);
    let (keep, order) = (broker.sender(&rig, "keep").await, broker.sender(&rig, "order").await);
    let hear = "{ call: asyncapi, with: { document: { endpoint: 'file://shop.yaml' }, operation: take, server: { name: broker, variables: { shop: a } }, subscription: { consume: { while: '${ last.payload.text != \"end\" }' }, foreach: { item: order, do: [ { book: { if: '${ $order.payload.text != \"bad\" }', call: http, with: { method: post, endpoint: SERVICE/book } } }, { judge: { if: '${ $order.payload.text == \"bad\" }', call: http, with: { method: post, endpoint: SERVICE/fails/1 } } } ] } } } }"
        .replace("SERVICE", &format!("http://{}", rig.service.address));
    let tasks = format!(
        "  - work:\n      try:\n        - hear: {hear}\n      catch: {{ retry: {{ delay: {{ milliseconds: 1 }}, limit: {{ attempt: {{ count: 5 }} }} }} }}\n"
    );
    let work = broker.define(&rig, "work", &tasks).await;
    say(&rig, &keep, "a", "first").await;
    let id = rig.start(&work, json!({})).await;
    let effects = |count: usize| {
        let rig = &rig;
        async move {
            let coming = async {
                while rig.service.seen(|seen| seen.effects.len()) < count {
                    tokio::task::yield_now().await;
                }
            };
            rig.clock.timeout(PATIENCE, coming).await.expect("it is done in time");
        }
    };
    effects(1).await;
    say(&rig, &order, "a", "bad").await;
    effects(2).await;
    say(&rig, &order, "a", "last").await;
    effects(3).await;
    say(&rig, &order, "a", "end").await;
    let ended = rig.end(id).await;
    assert_eq!((ended.status, &ended.problem), (Status::Completed, &None));
    let (effects, tried) =
        rig.service.seen(|seen| (seen.effects.clone(), seen.requests.get("/fails/1").copied()));
    assert_eq!((effects.len(), tried), (4, Some(2)), "{effects:?}");
    assert!(effects.values().all(|times| *times == 1), "{effects:?}");
}
