//! A client of a running node's admin interface.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use standfast_gateway::{Fault, FaultStatus, Filter, Record};
use standfast_model::Stack;
use standfast_runtime::http::Client;
use standfast_runtime::{Clock, Net, Peer};

use crate::answers::{ErrorAnswer, FaultsAnswer, PlanAnswer, StatusAnswer};

/// The longest that a call may take.
const CALL_MAX: Duration = Duration::from_secs(10);

/// The name of the admin socket in a state folder.
pub(crate) const SOCKET: &str = "node.sock";

/// A call to the node that did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// There is no node, or it did not answer.
    #[error("the node does not answer at {}", .socket.display())]
    Unreachable {
        /// Its socket.
        socket: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There is no gateway that tells, or it did not answer.
    #[error("no gateway answers at {address}")]
    NoGateway {
        /// Where it was asked.
        address: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answered that it will not or cannot do it.
    #[error("{}", .0.message)]
    Refused(ErrorAnswer),
}

impl AdminError {
    /// Whether the node refused since the world moved after the plan was shown.
    pub fn has_moved(&self) -> bool {
        matches!(self, Self::Refused(answer) if answer.code == "moved")
    }
}

/// A client of the node of one state folder. Cheap to clone; it outlives nodes.
#[derive(Debug, Clone)]
pub struct AdminClient {
    socket: PathBuf,
    http: Client,
    clock: Clock,
}

/// What is sent to have a stack applied.
#[derive(Debug, Serialize, serde::Deserialize)]
pub(crate) struct ApplyRequest {
    pub(crate) stack: Stack,
    pub(crate) plan: Option<String>,
    pub(crate) author: String,
    pub(crate) reason: String,
}

/// The path before a request's id.
pub(crate) const REQUESTS: &str = "/v1/requests/";

/// What is sent to see the newest requests that are remembered.
#[derive(Debug, Serialize, serde::Deserialize)]
pub(crate) struct RecentRequest {
    pub(crate) limit: usize,
    pub(crate) filter: Filter,
}

/// The path of all faults; that of one has its name after a `/`.
pub(crate) const FAULTS: &str = "/v1/faults";

/// What is sent to have a fault injected.
#[derive(Debug, Serialize, serde::Deserialize)]
pub(crate) struct FaultRequest {
    /// Its name; a new one when absent.
    pub(crate) id: Option<String>,
    pub(crate) fault: Fault,
}

/// What is sent to have replicas replaced.
#[derive(Debug, Serialize, serde::Deserialize)]
pub(crate) struct RestartRequest {
    pub(crate) service: Option<String>,
}

impl AdminClient {
    /// A client; there need not be a node yet.
    pub fn new(state_dir: &Path, net: Net, clock: Clock) -> Self {
        Self { socket: state_dir.join(SOCKET), http: Client::new(net, clock), clock }
    }

    /// How the stack is.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn status(&self) -> Result<StatusAnswer, AdminError> {
        self.call(Method::GET, "/v1/status", &()).await
    }

    /// Waits until a node answers, for at most `limit`.
    ///
    /// # Errors
    /// The last [`AdminError`].
    pub async fn wait_until_up(&self, limit: Duration) -> Result<StatusAnswer, AdminError> {
        let deadline = self.clock.now().plus(limit);
        loop {
            match self.status().await {
                Err(_) if self.clock.now() < deadline => self.clock.sleep(Duration::from_millis(10)).await,
                answer => return answer,
            }
        }
    }

    /// What would change.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn plan(&self, stack: &Stack) -> Result<PlanAnswer, AdminError> {
        self.call(Method::POST, "/v1/plan", stack).await
    }

    /// Makes a stack the wanted one.
    ///
    /// # Errors
    /// [`AdminError::has_moved`] when `plan` is no longer what would be done.
    pub async fn apply(
        &self,
        stack: &Stack,
        plan: Option<String>,
        author: &str,
        reason: &str,
    ) -> Result<PlanAnswer, AdminError> {
        let request =
            ApplyRequest { stack: stack.clone(), plan, author: author.to_owned(), reason: reason.to_owned() };
        self.call(Method::POST, "/v1/apply", &request).await
    }

    /// Has all replicas, or those of one service, replaced one by one.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn restart(&self, service: Option<&str>) -> Result<PlanAnswer, AdminError> {
        let request = RestartRequest { service: service.map(str::to_owned) };
        self.call(Method::POST, "/v1/restart", &request).await
    }

    /// Makes nothing the wanted stack: all replicas are stopped.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn down(&self) -> Result<PlanAnswer, AdminError> {
        self.call(Method::POST, "/v1/down", &()).await
    }

    /// What became of a request, by its `Standfast-Request-Id`, what its client calls it, or its trace.
    ///
    /// # Errors
    /// [`AdminError::Refused`] when nothing is remembered of it.
    pub async fn why(&self, id: &str) -> Result<Record, AdminError> {
        self.call(Method::GET, &format!("{REQUESTS}{}", legal(id)), &()).await
    }

    /// The newest requests that are remembered, newest first.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn recent(&self, limit: usize, filter: &Filter) -> Result<Vec<Record>, AdminError> {
        let request = RecentRequest { limit, filter: filter.clone() };
        self.call(Method::POST, "/v1/requests", &request).await
    }

    /// Has the gateway inject a fault from now on, for as long as it lasts, under this name or a new one.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn add_fault(&self, id: Option<&str>, fault: &Fault) -> Result<FaultStatus, AdminError> {
        let request = FaultRequest { id: id.map(str::to_owned), fault: fault.clone() };
        self.call(Method::POST, FAULTS, &request).await
    }

    /// Ends a fault; the answer is how it was.
    ///
    /// # Errors
    /// [`AdminError::Refused`] when none of this name is in force.
    pub async fn remove_fault(&self, id: &str) -> Result<FaultStatus, AdminError> {
        self.call(Method::DELETE, &format!("{FAULTS}/{}", legal(id)), &()).await
    }

    /// The faults in force, and those that ended lately.
    ///
    /// # Errors
    /// See [`AdminError`].
    pub async fn faults(&self) -> Result<FaultsAnswer, AdminError> {
        self.call(Method::GET, FAULTS, &()).await
    }

    /// Asks the API of workflows (`docs/workflow-api.md`), `path` from `/v1` on: the status and what was answered. `limit` is how long
    /// the answer may take.
    ///
    /// # Errors
    /// [`AdminError::Unreachable`]; what the API refuses is an answer.
    pub async fn workflows(
        &self,
        method: Method,
        path: &str,
        key: Option<&str>,
        body: Option<&serde_json::Value>,
        limit: Duration,
    ) -> Result<(StatusCode, serde_json::Value), AdminError> {
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| AdminError::Unreachable {
            socket: self.socket.clone(),
            source,
        };
        let body = body.map_or_else(Bytes::new, |body| Bytes::from(body.to_string()));
        let mut request =
            Request::builder().method(method).uri(format!("{}{path}", crate::workflows::PREFIX));
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(body).map_err(|error| unreachable(error.into()))?;
        let (socket, _folder) = standfast_platform::local::reachable_socket(&self.socket)
            .map_err(|error| unreachable(error.into()))?;
        let answer = self.http.send(&Peer::Unix(socket), request, limit).await;
        let answer = answer.map_err(|error| unreachable(error.into()))?;
        let value = serde_json::from_slice(answer.body()).map_err(|error| unreachable(error.into()))?;
        Ok((answer.status(), value))
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, AdminError> {
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| AdminError::Unreachable {
            socket: self.socket.clone(),
            source,
        };
        let bytes = serde_json::to_vec(body).map_err(|error| unreachable(error.into()))?;
        let bytes = if method == Method::GET { Bytes::new() } else { Bytes::from(bytes) };
        let request = Request::builder().method(method).uri(path).body(bytes);
        let request = request.map_err(|error| unreachable(error.into()))?;
        let (path, _folder) = standfast_platform::local::reachable_socket(&self.socket)
            .map_err(|error| unreachable(error.into()))?;
        let answer = self.http.send(&Peer::Unix(path), request, CALL_MAX).await;
        let answer = answer.map_err(|error| unreachable(error.into()))?;
        if answer.status() == StatusCode::OK {
            return serde_json::from_slice(answer.body()).map_err(|error| unreachable(error.into()));
        }
        let refusal = serde_json::from_slice(answer.body());
        Err(refusal.map_or_else(|error| unreachable(error.into()), AdminError::Refused))
    }
}

/// An id as it gets into a path: only what it may consist of; anything else is unknown in any case.
fn legal(id: &str) -> String {
    id.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect()
}
