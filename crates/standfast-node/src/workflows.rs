//! Workflows of a node: its engine over the node's store, the stack's documents in it, its API.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderValue, RETRY_AFTER};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri};
use standfast_model::{LifecycleSink, Stack, Stamp, WORKFLOWS, WorkflowFile};
use standfast_runtime::http::plain;
use standfast_runtime::{Clock, Stop, Tasks, with_causes};
use standfast_store::Store;
use standfast_workflow::{
    Definition, Engine, EngineConfig, Evaluator, EvaluatorConfig, FolderAndNetwork, JournalError, Sink,
    SinkStatus,
};
use tokio::sync::watch;

use crate::calls::ThroughGateway;
use crate::stack_secrets::StackSecrets;

/// Below this the API is found on the state API's listener and on the admin interface.
pub(crate) const PREFIX: &str = "/workflows";

/// How long a request about workflows waits for a node that has just begun.
const DEFINED_WITHIN: Duration = Duration::from_secs(3);

/// A sink that is so far behind is told of.
const LATE: Duration = Duration::from_secs(10);

/// From one look at the files of secrets to the next.
const SECRETS_EVERY: Duration = Duration::from_secs(2);

/// The engine of a node, and what is wrong with the documents of its stack.
#[derive(Debug, Clone)]
pub(crate) struct Workflows {
    engine: Engine,
    clock: Clock,
    troubles: Arc<Mutex<Vec<String>>>,
    secret_troubles: Arc<Mutex<Vec<String>>>,
    /// Whether the documents of the stack were taken over since this node began: before, none would be known.
    defined: Arc<watch::Sender<bool>>,
}

impl Workflows {
    /// Takes over the runs in the store and drives them on.
    pub(crate) async fn open(
        store: Arc<dyn Store>,
        calls: ThroughGateway,
        program: PathBuf,
        clock: Clock,
        tasks: Tasks,
        plant: Option<&str>,
    ) -> Result<Self, JournalError> {
        let evaluator = Evaluator::new(EvaluatorConfig { program, ..EvaluatorConfig::default() });
        #[cfg_attr(not(feature = "planted-bugs"), expect(unused_mut, reason = "only test builds change it"))]
        let mut invoke = calls;
        #[cfg(feature = "planted-bugs")]
        {
            invoke.changes_keys = crate::plant::changes_keys(plant);
        }
        let _only_used_by_test_builds = plant;
        let invoke = Arc::new(invoke);
        // What the stack's secrets are is known with the stack.
        let config = EngineConfig { secrets: None, ..EngineConfig::default() };
        let engine = Engine::open(store, clock, tasks, evaluator, invoke, config).await?;
        Ok(Self {
            engine,
            clock,
            troubles: Arc::default(),
            secret_troubles: Arc::default(),
            defined: Arc::new(watch::Sender::new(false)),
        })
    }

    /// Answers a request whose path begins with [`PREFIX`].
    pub(crate) async fn handle(&self, request: Request<Bytes>) -> Response<Bytes> {
        match without_prefix(request) {
            Some(request) if is_about_documents(&request) && !self.are_defined().await => {
                let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, "the workflows are not known yet\n");
                answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                answer
            }
            Some(request) => standfast_workflow::api::answer(&self.engine, request).await,
            None => plain(StatusCode::NOT_FOUND, "there is nothing here\n"),
        }
    }

    /// Waits for the documents of the stack, which a node that has just begun does not know yet.
    async fn are_defined(&self) -> bool {
        let mut defined = self.defined.subscribe();
        let known = defined.wait_for(|defined| *defined);
        self.clock.timeout(DEFINED_WITHIN, known).await.is_ok_and(|known| known.is_ok())
    }

    /// What is wrong with documents of the stack, for people.
    pub(crate) fn troubles(&self) -> Vec<String> {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner).clone();
        troubles.extend(self.secret_troubles.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned());
        troubles.extend(behind(&self.engine.sink_status(), self.clock.now()));
        troubles
    }

    /// Makes the workflows of the stack startable, now and whenever the stack changes.
    pub(crate) async fn follow(self, mut stacks: watch::Receiver<Option<Arc<Stack>>>, stop: Stop) {
        let (mut known, mut sink) = (None, None);
        let mut secrets = StackSecrets::default();
        loop {
            let stack = stacks.borrow_and_update().clone();
            let has_secrets = stack.as_ref().is_some_and(|stack| !stack.secrets.is_empty());
            if let Some(stack) = &stack
                && secrets.read(stack)
            {
                self.engine.set_secrets(secrets.known.clone().into());
                *self.secret_troubles.lock().unwrap_or_else(PoisonError::into_inner) =
                    secrets.troubles.clone();
            }
            if let Some(stack) = &stack
                && sink.as_ref() != Some(&stack.lifecycle)
            {
                match self.engine.set_sink(stack.lifecycle.as_ref().map(sink_of)).await {
                    Ok(()) => sink = Some(stack.lifecycle.clone()),
                    Err(why) => {
                        tracing::error!(why = %with_causes(&why), "the sink of lifecycle events is not changed")
                    }
                }
            }
            if let Some(stack) = stack
                && known.as_ref() != Some(&stack.workflows)
            {
                self.define(&stack).await;
                self.defined.send_replace(true);
                known = Some(stack.workflows.clone());
            }
            tokio::select! {
                biased;
                () = stop.requested() => return,
                changed = stacks.changed() => if changed.is_err() { return },
                () = self.clock.sleep(SECRETS_EVERY), if has_secrets => {}
            }
        }
    }

    async fn define(&self, stack: &Arc<Stack>) {
        let mut troubles = Vec::new();
        let mut definitions = Vec::new();
        for number in 0..stack.workflows.len() {
            let found = &stack.workflows[number];
            let reader = FolderAndNetwork::new(Some(stack.root.join(WORKFLOWS)), self.clock);
            match Definition::read(&found.file, &found.text, &reader).await {
                Ok(definition) => definitions.push(definition),
                Err(why) => troubles.push(format!("{} cannot be run: {}", found.file, with_causes(&why))),
            }
        }
        if let Err(why) = self.engine.define_all(definitions).await {
            troubles.push(format!("workflows cannot be kept: {}", with_causes(&why)));
        }
        for why in &troubles {
            tracing::error!(%why, "a workflow of the stack is left out");
        }
        *self.troubles.lock().unwrap_or_else(PoisonError::into_inner) = troubles;
    }
}

fn sink_of(lifecycle: &LifecycleSink) -> Sink {
    let LifecycleSink { sink, types, batch, bearer } = lifecycle;
    Sink {
        uri: sink.clone(),
        types: types.iter().cloned().collect(),
        batch: *batch as usize,
        bearer: bearer.clone(),
    }
}

/// How far the sink of lifecycle events is behind, when it is, and what was not told it, for people.
fn behind(status: &SinkStatus, now: Stamp) -> Option<String> {
    let SinkStatus { uri: Some(uri), waiting, since, lost, error, .. } = status else { return None };
    let lost = if *lost > 0 {
        format!("; {lost} were not told, since too many waited or for too long")
    } else {
        String::new()
    };
    let late = since.map(|since| now.since(since)).filter(|late| error.is_some() || *late >= LATE);
    match late {
        Some(late) => {
            let why = error.as_ref().map_or(String::new(), |why| format!(": {why}"));
            Some(format!(
                "{waiting} lifecycle events of workflows wait for {uri}, the first for {} s{why}{lost}",
                late.as_secs()
            ))
        }
        None if lost.is_empty() => None,
        None => Some(format!("lifecycle events of workflows for {uri}{lost}")),
    }
}

/// What differs between the documents that are known and those that shall be, in sentences.
pub(crate) fn changes(running: Option<&Stack>, stack: &Stack) -> Vec<String> {
    let mut found = of_documents(running.map(|running| running.workflows.as_slice()), &stack.workflows);
    let known = running.and_then(|running| running.lifecycle.as_ref());
    if known != stack.lifecycle.as_ref() {
        found.push(match &stack.lifecycle {
            Some(lifecycle) => format!("lifecycle events of workflows go to {}", lifecycle.sink),
            None => "lifecycle events of workflows go nowhere: those that wait are forgotten".to_owned(),
        });
    }
    found
}

fn of_documents(known: Option<&[WorkflowFile]>, wanted: &[WorkflowFile]) -> Vec<String> {
    let known = known.unwrap_or_default();
    let of = |all: &[WorkflowFile], file: &str| all.iter().find(|one| one.file == file).cloned();
    let there = wanted.iter().filter_map(|one| match of(known, &one.file) {
        None => Some(format!("add {}: its workflow can be started", one.file)),
        Some(before) if before.text != one.text => {
            Some(format!("update {}: new runs go by it, those under way by the one before", one.file))
        }
        Some(_) => None,
    });
    let gone = known.iter().filter(|one| of(wanted, &one.file).is_none());
    let gone = gone.map(|one| format!("remove {}: runs under way go on", one.file));
    there.chain(gone).collect()
}

/// Whether a request is for workflows.
pub(crate) fn is_for(request: &Request<Bytes>) -> bool {
    request.uri().path().strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a request names workflows, and not runs.
fn is_about_documents(request: &Request<Bytes>) -> bool {
    request.uri().path().starts_with("/v1/workflows")
}

fn without_prefix(mut request: Request<Bytes>) -> Option<Request<Bytes>> {
    let rest = request.uri().path_and_query()?.as_str().strip_prefix(PREFIX)?;
    let path: PathAndQuery = rest.parse().ok()?;
    *request.uri_mut() = Uri::from(path);
    Some(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_that_come_change_and_go_are_named() {
        let file = |name: &str, text: &str| WorkflowFile { file: name.to_owned(), text: text.to_owned() };
        let known = [file("a", "1"), file("b", "1"), file("c", "1")];
        let wanted = [file("a", "1"), file("b", "2"), file("d", "1")];
        let said = of_documents(Some(&known), &wanted);
        let begins: Vec<&str> = said.iter().filter_map(|said| said.split(':').next()).collect();
        assert_eq!(begins, ["update b", "add d", "remove c"]);
        assert!(of_documents(Some(&known), &known).is_empty());
        assert_eq!(of_documents(None, &known).len(), 3);
    }

    #[test]
    fn the_prefix_is_taken_off_and_the_query_stays() {
        let request = |path: &str| Request::builder().uri(path).body(Bytes::new()).unwrap();
        let taken = without_prefix(request("/workflows/v1/runs?limit=3")).unwrap();
        assert_eq!(taken.uri().to_string(), "/v1/runs?limit=3");
        assert!(is_for(&request("/workflows/v1")));
        assert!(!is_for(&request("/workflowsx/v1")) && !is_for(&request("/v1/orders")));
    }
}
