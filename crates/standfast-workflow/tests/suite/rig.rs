//! An engine over a store, and a service that answers as a test says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use serde_json::{Value, json};
use standfast_runtime::http::{Listener, ServerLimits, json as answer_json, serve};
use standfast_runtime::{Clock, Net, OnStop, Tasks};
use standfast_store::{EmbeddedOptions, EmbeddedStore, MemoryStore, Store};
use standfast_workflow::{
    BadDefinition, Definition, Direct, Engine, EngineConfig, Evaluator, EvaluatorConfig, JournalError,
    Refused, RunId, Summary, WorkflowName,
};
use tokio::sync::watch;

/// Longest that a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A service that does an effect once for each key, and tells which it did. It outlives engines.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    /// What is asked below `/held/` is done, and answered when this is true.
    answers: watch::Sender<bool>,
    /// It ends with its last clone.
    _tasks: Tasks,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Requests by path.
    pub(crate) requests: BTreeMap<String, usize>,
    /// Effects by key.
    pub(crate) effects: BTreeMap<String, usize>,
    /// Events that were sent to `/sink`, in the order in which they came.
    pub(crate) told: Vec<Value>,
    /// How they came: the type of what was sent, and as whom, each once.
    pub(crate) told_as: BTreeSet<String>,
    /// `/sink` takes nothing at the moment.
    pub(crate) is_deaf: bool,
    /// `/sink` takes no more events in one request.
    pub(crate) takes_max: Option<usize>,
}

impl Service {
    pub(crate) async fn start() -> Self {
        let (clock, tasks, seen) = (Clock::system(), Tasks::new(), Arc::<Mutex<Seen>>::default());
        let listener = Net::real().listen_tcp("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let answering = Arc::clone(&seen);
        let answers = watch::Sender::new(false);
        let held = answers.clone();
        let handler = move |request: Request<Bytes>| {
            let (answering, mut held) = (Arc::clone(&answering), held.subscribe());
            async move {
                let answer = answer(&mut answering.lock().unwrap(), &request);
                if request.uri().path().starts_with("/held/") {
                    let _it_ends = held.wait_for(|answers| *answers).await.is_err();
                }
                answer
            }
        };
        let stop = tasks.stop();
        tasks.spawn("service", OnStop::Abort, async move {
            serve(Listener::Tcp(listener), handler, ServerLimits::default(), clock, stop).await;
        });
        Self { address, seen, answers, _tasks: tasks }
    }

    /// What is asked below `/held/` is answered from now on.
    pub(crate) fn answers(&self) {
        self.answers.send_replace(true);
    }

    /// From now on `/sink` takes events, or does not.
    pub(crate) fn is_deaf(&self, is_deaf: bool) {
        self.seen.lock().unwrap().is_deaf = is_deaf;
    }

    /// From now on `/sink` takes no more events in one request.
    pub(crate) fn takes_max(&self, max: usize) {
        self.seen.lock().unwrap().takes_max = Some(max);
    }

    pub(crate) fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap())
    }
}

/// An engine and what it needs.
pub(crate) struct Rig {
    pub(crate) engine: Engine,
    pub(crate) clock: Clock,
    tasks: Tasks,
    pub(crate) service: Service,
}

impl Rig {
    pub(crate) async fn new() -> Self {
        let clock = Clock::system();
        Self::over(Arc::new(MemoryStore::new(clock)), EngineConfig::default()).await
    }

    pub(crate) async fn over(store: Arc<dyn Store>, config: EngineConfig) -> Self {
        Self::beside(store, config, Service::start().await).await
    }

    pub(crate) async fn beside(store: Arc<dyn Store>, config: EngineConfig, service: Service) -> Self {
        Self::try_beside(store, config, service).await.unwrap()
    }

    /// The same, where the store may not let it begin.
    pub(crate) async fn try_beside(
        store: Arc<dyn Store>,
        config: EngineConfig,
        service: Service,
    ) -> Result<Self, JournalError> {
        Self::try_through(store, config, service, Arc::new(Direct::new(Clock::system()))).await
    }

    /// The same, where requests go by this.
    pub(crate) async fn try_through(
        store: Arc<dyn Store>,
        config: EngineConfig,
        service: Service,
        invoke: Arc<Direct>,
    ) -> Result<Self, JournalError> {
        let (clock, tasks) = (Clock::system(), Tasks::new());
        let opened = Engine::open(store, clock, tasks.clone(), evaluator(), invoke, config).await;
        match opened {
            Ok(engine) => Ok(Self { engine, clock, tasks, service }),
            Err(why) => {
                tasks.shutdown(&clock, Duration::ZERO).await;
                Err(why)
            }
        }
    }

    /// Defines a workflow of these tasks, in which `SERVICE` is the service's address.
    pub(crate) async fn define(&self, name: &str, rest: &str) -> WorkflowName {
        self.try_define(name, rest).await.unwrap()
    }

    /// The same, where the store may have stopped.
    pub(crate) async fn try_define(&self, name: &str, rest: &str) -> Result<WorkflowName, Refused> {
        self.try_define_version(name, "1.0.0", rest).await
    }

    pub(crate) async fn try_define_version(
        &self,
        name: &str,
        version: &str,
        rest: &str,
    ) -> Result<WorkflowName, Refused> {
        let rest = rest.replace("SERVICE", &format!("http://{}", self.service.address));
        let definition = definition_of(name, version, &rest);
        let name = definition.program.name().clone();
        self.engine.define(definition).await?;
        Ok(name)
    }

    pub(crate) async fn start(&self, name: &WorkflowName, input: Value) -> RunId {
        self.engine.start(name, Arc::new(input), None).await.unwrap()
    }

    pub(crate) async fn end(&self, id: RunId) -> Summary {
        self.clock.timeout(PATIENCE, self.engine.wait(id)).await.expect("it ends in time").unwrap()
    }

    /// Defines, starts and waits.
    pub(crate) async fn run(&self, rest: &str, input: Value) -> Summary {
        let name = self.define("test", rest).await;
        let id = self.start(&name, input).await;
        self.end(id).await
    }

    /// Ends all that goes on in this process, as a crash would: nothing is finished.
    pub(crate) async fn crash(self) -> Service {
        self.tasks.shutdown(&self.clock, Duration::ZERO).await;
        self.service
    }
}

pub(crate) fn evaluator() -> Evaluator {
    Evaluator::new(EvaluatorConfig {
        program: env!("CARGO_BIN_EXE_standfast-expressions").into(),
        arguments: Vec::new(),
        ..EvaluatorConfig::default()
    })
}

pub(crate) fn definition(name: &str, rest: &str) -> Definition {
    definition_of(name, "1.0.0", rest)
}

fn definition_of(name: &str, version: &str, rest: &str) -> Definition {
    let text = format!(
        "document:\n  dsl: '1.0.3'\n  namespace: tests\n  name: {name}\n  version: '{version}'\n{rest}"
    );
    Definition::of_text(name, &text).unwrap_or_else(|why| panic!("{}", told(why)))
}

/// What is wrong with a document, for whoever reads the test's output.
pub(crate) fn told(why: BadDefinition) -> String {
    match why {
        BadDefinition::Wrong(found) => found.to_string(),
        other => other.to_string(),
    }
}

pub(crate) async fn embedded(folder: &Path) -> Arc<dyn Store> {
    Arc::new(EmbeddedStore::open(folder, Clock::system(), EmbeddedOptions::default()).await.unwrap())
}

/// Answers `/status/503` with that status, `/echo` with the request, all else with what it did.
fn answer(seen: &mut Seen, request: &Request<Bytes>) -> Response<Bytes> {
    let path = request.uri().path().to_owned();
    let header = |name: &str| {
        request.headers().get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let key = header("idempotency-key").unwrap_or_default();
    let count = seen.requests.entry(path.clone()).or_default();
    *count += 1;
    let count = *count;
    if path == "/sink" {
        let told = match serde_json::from_slice(request.body()).unwrap() {
            Value::Array(told) => told,
            one => vec![one],
        };
        if seen.is_deaf {
            return answer_json(StatusCode::SERVICE_UNAVAILABLE, &json!({}));
        }
        if seen.takes_max.is_some_and(|max| told.len() > max) {
            return answer_json(StatusCode::PAYLOAD_TOO_LARGE, &json!({}));
        }
        seen.told.extend(told);
        seen.told_as.extend(header("content-type"));
        seen.told_as.extend(header("authorization"));
        return answer_json(StatusCode::OK, &json!({}));
    }
    if let Some(status) = path.strip_prefix("/status/") {
        let status = StatusCode::from_bytes(status.as_bytes()).unwrap();
        return answer_json(status, &json!({"said": status.as_u16()}));
    }
    if let Some(most) = path.strip_prefix("/fails/").and_then(|most| most.parse::<usize>().ok())
        && count <= most
    {
        return answer_json(StatusCode::SERVICE_UNAVAILABLE, &json!({"attempt": count}));
    }
    *seen.effects.entry(key.clone()).or_default() += 1;
    let body: Value = serde_json::from_slice(request.body()).unwrap_or(Value::Null);
    let headers: serde_json::Map<String, Value> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into()))
        .collect();
    let told = json!({
        "method": request.method().as_str(), "path": path, "query": request.uri().query(), "body": body,
        "headers": headers,
    });
    answer_json(StatusCode::OK, &told)
}

/// What all files of a folder hold.
pub(crate) fn all_bytes(folder: &Path) -> Vec<u8> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        all.extend(if path.is_dir() { all_bytes(&path) } else { std::fs::read(&path).unwrap() });
    }
    all
}
