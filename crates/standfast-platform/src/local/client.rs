use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use standfast_model::Generation;
use standfast_runtime::http::{Client, ClientError};
use standfast_runtime::{Clock, Net, Peer, Stream};

use super::api::{
    AgentInfo, BoundListener, ChangeBody, DownReport, ErrorBody, ErrorCode, FaultOrder, FaultSeen,
    ListenerSpec, LogPage, LogQuery,
};
use super::config::StateDir;
use super::sockets::{self, SocketGroup, SocketsAnswer, SocketsRequest};
use crate::{Applied, Inventory, PlatformError, Wanted};

/// The longest that an ordinary call may take; an order waits for the disk.
const CALL_MAX: Duration = Duration::from_secs(10);
/// The longest that the agent holds a wait for a change, and what the answer may take on top.
pub(crate) const LONG_POLL_MAX: Duration = Duration::from_secs(30);
/// The longest that taking everything down may take: grace periods, and some.
const DOWN_MAX: Duration = Duration::from_secs(180);
/// Unix socket paths have room for 107 bytes; longer ones go through the folder's descriptor.
const SOCKET_PATH_MAX: usize = 100;

/// A call to the agent that did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// There is no agent, or it did not answer.
    #[error("the agent of `{}` does not answer", state_dir.display())]
    Unreachable {
        /// Its state folder.
        state_dir: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another process has the port.
    #[error("{0}")]
    PortInUse(String),
    /// Faults are not allowed here.
    #[error("{0}")]
    Forbidden(String),
    /// No such thing.
    #[error("{0}")]
    NotFound(String),
    /// The order is older than the one held.
    #[error("order refused: order {held} is held")]
    Stale {
        /// The order held.
        held: Generation,
    },
    /// The agent could not write it down.
    #[error("the agent could not write its ledger: {0}")]
    Ledger(String),
    /// Anything else that it would not do, in its words.
    #[error("{0}")]
    Refused(String),
}

impl AgentError {
    /// Whether the same call may succeed later: the agent was away, going, or its disk was full.
    pub const fn may_be_retried(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Ledger(_))
    }
}

/// Sockets taken from the agent: what they are for, where they listen, and the sockets.
pub type TakenSockets = Vec<(String, SocketAddr, Vec<TcpListener>)>;

/// A client of the agent of one state folder. Cheap to clone. It outlives agents: each call goes to whichever runs now.
#[derive(Debug, Clone)]
pub struct AgentClient {
    state: StateDir,
    http: Client,
    net: Net,
    clock: Clock,
}

impl AgentClient {
    /// A client; there need not be an agent yet.
    pub fn new(state_dir: impl Into<PathBuf>, net: Net, clock: Clock) -> Self {
        Self { state: StateDir::new(state_dir), http: Client::new(net, clock), net, clock }
    }

    /// The state folder.
    pub fn state_dir(&self) -> &Path {
        self.state.root()
    }

    /// What the agent says about itself.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn info(&self) -> Result<AgentInfo, AgentError> {
        self.call(Method::GET, "/v1/info", &(), CALL_MAX).await
    }

    /// Waits until an agent answers, for at most `limit`.
    ///
    /// # Errors
    /// The last [`AgentError::Unreachable`].
    pub async fn wait_until_up(&self, limit: Duration) -> Result<AgentInfo, AgentError> {
        let deadline = self.clock.now().plus(limit);
        loop {
            match self.call::<AgentInfo>(Method::GET, "/v1/info", &(), Duration::from_secs(1)).await {
                Err(AgentError::Unreachable { .. }) if self.clock.now() < deadline => {}
                answer => return answer,
            }
            self.clock.sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns when the agent that answers now is gone; at once when none does. Cancel safe.
    pub async fn gone(&self) {
        loop {
            let held = self.call::<ChangeBody>(Method::GET, "/v1/alive", &(), LONG_POLL_MAX + CALL_MAX).await;
            if let Err(AgentError::Unreachable { source, .. }) = held {
                // An agent that is merely slow is not gone: starting a second one would only find the lock held.
                if !matches!(source.downcast_ref(), Some(ClientError::TimedOut { .. })) {
                    return;
                }
            }
        }
    }

    /// What runs now.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn inventory(&self) -> Result<Inventory, AgentError> {
        self.call(Method::GET, "/v1/inventory", &(), CALL_MAX).await
    }

    /// Waits until the inventory is a later one than number `seen`, for at most half a minute; gives the number of the
    /// present one.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn change_after(&self, seen: u64) -> Result<u64, AgentError> {
        let path = format!("/v1/changes/{seen}");
        self.call::<ChangeBody>(Method::GET, &path, &(), LONG_POLL_MAX + CALL_MAX)
            .await
            .map(|body| body.change)
    }

    /// Gives the agent an order.
    ///
    /// # Errors
    /// [`AgentError::Stale`] and the others.
    pub async fn apply(&self, wanted: &Wanted) -> Result<Applied, AgentError> {
        self.call(Method::PUT, "/v1/wanted", wanted, CALL_MAX).await
    }

    /// Lets the agent hold exactly these listening sockets; those it has already stay.
    ///
    /// # Errors
    /// [`AgentError::PortInUse`] and the others.
    pub async fn listen(&self, listeners: &[ListenerSpec]) -> Result<Vec<BoundListener>, AgentError> {
        self.call(Method::PUT, "/v1/listeners", &listeners, CALL_MAX).await
    }

    /// Gets the named listening sockets; the agent keeps its hold on them. They are in non-blocking mode.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn take_sockets(&self, names: &[&str]) -> Result<TakenSockets, AgentError> {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let (answer, descriptors) = self.exchange(&SocketsRequest::Take(names), &[]).await?;
        let SocketsAnswer::Taken(groups) = answer else { return Err(unexpected(answer)) };
        let dealt = sockets::deal(groups, descriptors).map_err(|error| self.unreachable(error.into()))?;
        Ok(dealt
            .into_iter()
            .map(|(group, own)| (group.name, group.address, own.into_iter().map(TcpListener::from).collect()))
            .collect())
    }

    /// Gives sockets to an agent whose predecessor, which had opened them, was killed. It holds them instead of opening
    /// others.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn return_sockets(&self, held: &TakenSockets) -> Result<(), AgentError> {
        let groups = held
            .iter()
            .map(|(name, address, own)| SocketGroup {
                name: name.clone(),
                address: *address,
                count: own.len(),
            })
            .collect();
        let descriptors: Vec<_> = held.iter().flat_map(|(_, _, own)| own.iter().map(AsFd::as_fd)).collect();
        match self.exchange(&SocketsRequest::Return(groups), &descriptors).await?.0 {
            SocketsAnswer::Returned(_) => Ok(()),
            other => Err(unexpected(other)),
        }
    }

    /// Lines of output.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn logs(&self, query: &LogQuery) -> Result<LogPage, AgentError> {
        self.call(Method::POST, "/v1/logs", query, CALL_MAX).await
    }

    /// Injects a fault and says what it did. The same order again changes nothing.
    ///
    /// # Errors
    /// [`AgentError::Forbidden`] where faults are not allowed, [`AgentError::NotFound`] when the target does not run.
    pub async fn inject(&self, fault: &FaultOrder) -> Result<FaultSeen, AgentError> {
        self.call(Method::POST, "/v1/faults", fault, CALL_MAX).await
    }

    /// All faults that the agent remembers, ended ones too, each looked at anew.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn faults(&self) -> Result<Vec<FaultSeen>, AgentError> {
        self.call(Method::GET, "/v1/faults", &(), CALL_MAX).await
    }

    /// One fault, looked at anew.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn verify(&self, fault: &str) -> Result<FaultSeen, AgentError> {
        self.call(Method::GET, &format!("/v1/faults/{fault}"), &(), CALL_MAX).await
    }

    /// Ends a fault now.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn heal(&self, fault: &str) -> Result<FaultSeen, AgentError> {
        self.call(Method::DELETE, &format!("/v1/faults/{fault}"), &(), CALL_MAX).await
    }

    /// Renews the lease.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn renew_lease(&self) -> Result<AgentInfo, AgentError> {
        self.call(Method::POST, "/v1/lease", &(), CALL_MAX).await
    }

    /// Stops the node, all replicas and the agent, and returns when all are gone.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub async fn down(&self) -> Result<DownReport, AgentError> {
        let info = self.info().await?;
        let report = self.call(Method::POST, "/v1/down", &(), DOWN_MAX).await?;
        let deadline = self.clock.now().plus(CALL_MAX);
        while info.process.is_alive() && self.clock.now() < deadline {
            self.clock.sleep(Duration::from_millis(2)).await;
        }
        Ok(report)
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, AgentError> {
        let body = if method == Method::GET { Bytes::new() } else { Bytes::from(self.encoded(body)?) };
        let request = Request::builder().method(method).uri(path).body(body);
        let request = request.map_err(|error| self.unreachable(error.into()))?;
        let (peer, _folder) =
            self.peer(&self.state.socket()).map_err(|error| self.unreachable(error.into()))?;
        let answer =
            self.http.send(&peer, request, limit).await.map_err(|error| self.unreachable(error.into()))?;
        if answer.status().is_success() {
            return serde_json::from_slice(answer.body()).map_err(|error| self.unreachable(error.into()));
        }
        match serde_json::from_slice::<ErrorBody>(answer.body()) {
            Ok(body) => Err(self.refusal(body)),
            Err(_) => Err(AgentError::Refused(format!("the agent answered {}", answer.status()))),
        }
    }

    fn encoded(&self, body: &impl Serialize) -> Result<Vec<u8>, AgentError> {
        serde_json::to_vec(body).map_err(|error| self.unreachable(error.into()))
    }

    fn refusal(&self, body: ErrorBody) -> AgentError {
        let detail = body.error;
        match detail.code {
            ErrorCode::Stale => AgentError::Stale { held: detail.held.unwrap_or_default() },
            ErrorCode::PortInUse => AgentError::PortInUse(detail.message),
            ErrorCode::Forbidden => AgentError::Forbidden(detail.message),
            ErrorCode::NotFound => AgentError::NotFound(detail.message),
            ErrorCode::Ledger => AgentError::Ledger(detail.message),
            ErrorCode::GoingDown => self.unreachable(detail.message.into()),
            ErrorCode::Malformed | ErrorCode::Conflict => AgentError::Refused(detail.message),
        }
    }

    fn unreachable(&self, source: Box<dyn std::error::Error + Send + Sync>) -> AgentError {
        AgentError::Unreachable { state_dir: self.state.root().to_path_buf(), source }
    }

    async fn exchange(
        &self,
        request: &SocketsRequest,
        descriptors: &[std::os::fd::BorrowedFd<'_>],
    ) -> Result<(SocketsAnswer, Vec<std::os::fd::OwnedFd>), AgentError> {
        let work = async {
            let (peer, _folder) = self.peer(&self.state.sockets())?;
            let Stream::Unix(stream) = self.net.connect(&peer).await? else {
                return Err(std::io::ErrorKind::Unsupported.into());
            };
            sockets::send(&stream, request, descriptors).await?;
            sockets::receive::<SocketsAnswer>(&stream).await
        };
        match self.clock.timeout(CALL_MAX, work).await {
            Ok(answer) => answer.map_err(|error| self.unreachable(error.into())),
            Err(elapsed) => Err(self.unreachable(elapsed.into())),
        }
    }

    /// The socket as a peer, and what must be kept until the connection stands.
    fn peer(&self, socket: &Path) -> std::io::Result<(Peer, Option<File>)> {
        let (path, folder) = reachable(socket)?;
        Ok((Peer::Unix(path), folder))
    }
}

/// A path for a Unix socket that is short enough for the kernel: the path itself, or one through its folder's
/// descriptor, which must be kept open meanwhile.
///
/// # Errors
/// `InvalidInput` for a path without a folder; what the operating system says about the folder.
pub fn reachable(socket: &Path) -> std::io::Result<(PathBuf, Option<File>)> {
    let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    if socket.as_os_str().len() <= SOCKET_PATH_MAX {
        return Ok((socket.to_path_buf(), None));
    }
    let folder = File::open(folder)?;
    Ok((Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name), Some(folder)))
}

fn unexpected(answer: SocketsAnswer) -> AgentError {
    match answer {
        SocketsAnswer::Refused(why) => AgentError::Refused(why),
        other => AgentError::Refused(format!("the agent gave an answer to another question: {other:?}")),
    }
}

impl From<AgentError> for PlatformError {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Ledger(why) => Self::Ledger(std::io::Error::other(why)),
            AgentError::Refused(why)
            | AgentError::Forbidden(why)
            | AgentError::NotFound(why)
            | AgentError::PortInUse(why) => Self::Refused(why),
            other => Self::Unreachable(other.into()),
        }
    }
}
