//! The agent's two sockets: requests as JSON over HTTP, and listening sockets in exchange for their names.

use std::future::Future;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use standfast_model::Generation;
use standfast_runtime::{OnStop, Stop};
use tokio::net::{UnixListener, UnixStream};

use super::address::ZONES_MAX;
use super::api::{ChangeBody, DownReport, ErrorBody, ErrorCode, ErrorDetail, LogQuery};
use super::client::LONG_POLL_MAX;
use super::core::{Core, Down};
use super::faults::{self, FaultError};
use super::keeper;
use super::listeners::{ListenError, Listeners};
use super::sockets::{self, SocketsAnswer, SocketsRequest};
use crate::decide::malformed;
use crate::{Applied, Wanted};

/// What one exchange of sockets may take.
const EXCHANGE_MAX: Duration = Duration::from_secs(10);
/// After a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A refusal on its way out.
struct Refusal {
    status: StatusCode,
    code: ErrorCode,
    message: String,
    held: Option<Generation>,
}

impl Refusal {
    fn new(status: StatusCode, code: ErrorCode, message: impl ToString) -> Self {
        Self { status, code, message: message.to_string(), held: None }
    }

    fn malformed(message: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, ErrorCode::Malformed, message)
    }
}

type Answer = Result<Vec<u8>, Refusal>;

/// Answers one request.
pub(crate) async fn handle(
    core: Core,
    listeners: Arc<Listeners>,
    stop: Stop,
    request: Request<Bytes>,
) -> Response<Bytes> {
    let answer = route(&core, &listeners, stop, request).await;
    let (status, body) = match answer {
        Ok(body) => (StatusCode::OK, body),
        Err(refusal) => (refusal.status, refusal.body()),
    };
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

async fn route(core: &Core, listeners: &Listeners, stop: Stop, request: Request<Bytes>) -> Answer {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_matches('/').split('/').skip(1).collect();
    let body = request.body();
    match (request.method(), parts.as_slice()) {
        (&Method::GET, ["info"]) => encode(&core.info()),
        (&Method::GET, ["inventory"]) => encode(&core.state().inventory(core.clock().now())),
        (&Method::GET, ["changes", seen]) => change_after(core, seen, stop).await,
        (&Method::GET, ["alive"]) => alive(core, stop).await,
        (&Method::PUT, ["wanted"]) => apply(core, decode(body)?).await,
        (&Method::PUT, ["listeners"]) => encode(&listeners.set(decode(body)?).await?),
        (&Method::POST, ["logs"]) => logs(core, decode(body)?).await,
        (&Method::POST, ["faults"]) => {
            in_own_task(core, {
                let (core, order) = (core.clone(), decode(body)?);
                async move { Ok(faults::inject(&core, order).await?) }
            })
            .await
        }
        (&Method::GET, ["faults"]) => encode(&faults::all(core)),
        (&Method::GET, ["faults", id]) => encode(&faults::verify(core, id)?),
        (&Method::DELETE, ["faults", id]) => {
            in_own_task(core, {
                let (core, id) = (core.clone(), (*id).to_owned());
                async move { Ok(faults::heal(&core, &id).await?) }
            })
            .await
        }
        (&Method::POST, ["lease"]) => {
            core.renew_lease();
            encode(&core.info())
        }
        (&Method::POST, ["down"]) => down(core).await,
        _ => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            ErrorCode::NotFound,
            format!("there is no {} {path}", request.method()),
        )),
    }
}

/// A request whose work must be finished though the caller leaves.
async fn in_own_task<T: Serialize + Send + 'static>(
    core: &Core,
    work: impl Future<Output = Result<T, Refusal>> + Send + 'static,
) -> Answer {
    let (sender, answer) = tokio::sync::oneshot::channel();
    core.tasks().spawn("request", OnStop::Wait, async move {
        let _the_caller_may_have_left = sender.send(work.await);
    });
    match answer.await {
        Ok(done) => encode(&done?),
        Err(_) => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::GoingDown, "the agent ends")),
    }
}

fn decode<T: DeserializeOwned>(body: &Bytes) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::malformed(format!("not understood: {error}")))
}

fn encode(value: &impl Serialize) -> Answer {
    serde_json::to_vec(value).map_err(Refusal::malformed)
}

async fn change_after(core: &Core, seen: &str, stop: Stop) -> Answer {
    let seen: u64 = seen.parse().map_err(|_| Refusal::malformed(format!("`{seen}` is not a number")))?;
    let mut changes = core.changes();
    {
        // A number from another agent, or none: whatever differs is news.
        let changed = async { changes.wait_for(|change| *change != seen).await.is_ok() };
        tokio::select! {
            biased;
            _ = changed => {}
            () = stop.requested() => {}
            () = core.sleep(LONG_POLL_MAX) => {}
        }
    }
    let change = *core.changes().borrow();
    encode(&ChangeBody { change })
}

/// Holds the request: whoever waits for the answer learns of this agent's death by the connection's end.
async fn alive(core: &Core, stop: Stop) -> Answer {
    tokio::select! {
        biased;
        () = stop.requested() => {}
        () = core.sleep(LONG_POLL_MAX) => {}
    }
    encode(&ChangeBody { change: *core.changes().borrow() })
}

async fn apply(core: &Core, wanted: Wanted) -> Answer {
    if let Some(why) = malformed(&wanted) {
        return Err(Refusal::malformed(why));
    }
    let sent = wanted.generation;
    let (before, _) = core.change(|state| {
        if state.going_down {
            return (
                Err(Refusal::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    ErrorCode::GoingDown,
                    "the agent takes everything down",
                )),
                false,
            );
        }
        if wanted == state.wanted {
            return (Ok(None), false);
        }
        if sent <= state.wanted.generation {
            let held = state.wanted.generation;
            let message = format!("order {sent} is not newer than order {held}, which is held");
            let refusal = Refusal::new(StatusCode::CONFLICT, ErrorCode::Stale, message);
            return (Err(Refusal { held: Some(held), ..refusal }), false);
        }
        if state.zones_with(&wanted) > ZONES_MAX {
            return (Err(Refusal::malformed(format!("more than {ZONES_MAX} zones"))), false);
        }
        let before = state.wanted.clone();
        state.take(wanted);
        (Ok(Some(before)), true)
    });
    let Some(before) = before? else { return encode(&Applied::Unchanged) };
    // Places for what starts are found in the same breath, so that one write makes order and places durable.
    let (_, number) = keeper::advance(core);
    let durable = core.durable(number).await;
    if let Err(error) = durable {
        core.change(|state| {
            if state.wanted.generation == sent {
                state.take_back(before);
            }
            ((), true)
        });
        return Err(Refusal::new(StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Ledger, error));
    }
    core.wake_keeper();
    encode(&Applied::Taken)
}

async fn logs(core: &Core, query: LogQuery) -> Answer {
    let logs = core.logs().clone();
    let page = tokio::task::spawn_blocking(move || logs.query(&query)).await;
    match page {
        Ok(Ok(page)) => encode(&page),
        Ok(Err(error)) => Err(Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::Conflict,
            format!("the log cannot be read: {error}"),
        )),
        Err(error) => Err(Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, ErrorCode::Conflict, error)),
    }
}

async fn down(core: &Core) -> Answer {
    core.ask_down();
    let mut down = core.down();
    let stopped = match down.wait_for(|down| matches!(down, Down::Done(_))).await.as_deref() {
        Ok(Down::Done(stopped)) => *stopped,
        _ => 0,
    };
    encode(&DownReport { stopped })
}

impl Refusal {
    fn body(self) -> Vec<u8> {
        let retry = matches!(self.code, ErrorCode::Ledger | ErrorCode::GoingDown);
        let error = ErrorDetail { code: self.code, message: self.message, retry, held: self.held };
        serde_json::to_vec(&ErrorBody { error }).unwrap_or_default()
    }
}

impl From<FaultError> for Refusal {
    fn from(error: FaultError) -> Self {
        let (status, code) = match &error {
            FaultError::Forbidden => (StatusCode::FORBIDDEN, ErrorCode::Forbidden),
            FaultError::Malformed(_) => (StatusCode::BAD_REQUEST, ErrorCode::Malformed),
            FaultError::NotFound(_) => (StatusCode::NOT_FOUND, ErrorCode::NotFound),
            FaultError::Conflict(_) => (StatusCode::CONFLICT, ErrorCode::Conflict),
            FaultError::Ledger(_) => (StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Ledger),
        };
        Self::new(status, code, error)
    }
}

impl From<ListenError> for Refusal {
    fn from(error: ListenError) -> Self {
        let (status, code) = match &error {
            ListenError::InUse { .. } => (StatusCode::CONFLICT, ErrorCode::PortInUse),
            ListenError::NotFound(_) => (StatusCode::NOT_FOUND, ErrorCode::NotFound),
            ListenError::Malformed(_) | ListenError::Bind { .. } => {
                (StatusCode::BAD_REQUEST, ErrorCode::Malformed)
            }
            ListenError::Ledger(_) => (StatusCode::INSUFFICIENT_STORAGE, ErrorCode::Ledger),
        };
        let message = match std::error::Error::source(&error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        Self::new(status, code, message)
    }
}

/// Serves `sockets.sock`.
pub(crate) async fn serve_sockets(core: Core, listeners: Arc<Listeners>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (core_, listeners) = (core.clone(), Arc::clone(&listeners));
                core.tasks().spawn("sockets", OnStop::Abort, async move {
                    let exchange = exchange(&listeners, &stream);
                    if let Ok(Err(error)) = core_.clock().timeout(EXCHANGE_MAX, exchange).await {
                        tracing::warn!(%error, "listening sockets could not be exchanged");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for sockets");
                core.clock().sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn exchange(listeners: &Listeners, stream: &UnixStream) -> std::io::Result<()> {
    let (request, descriptors) = sockets::receive::<SocketsRequest>(stream).await?;
    match request {
        SocketsRequest::Take(names) => match listeners.take(names).await {
            Ok(taken) => {
                let descriptors: Vec<_> =
                    taken.iter().flat_map(|(_, own)| own.iter().map(AsFd::as_fd)).collect();
                let groups = taken.iter().map(|(group, _)| group.clone()).collect();
                sockets::send(stream, &SocketsAnswer::Taken(groups), &descriptors).await
            }
            Err(error) => sockets::send(stream, &SocketsAnswer::Refused(error.to_string()), &[]).await,
        },
        SocketsRequest::Return(groups) => {
            let answer = match sockets::deal(groups, descriptors) {
                Ok(dealt) => SocketsAnswer::Returned(listeners.take_back(dealt)),
                Err(error) => SocketsAnswer::Refused(error.to_string()),
            };
            sockets::send(stream, &answer, &[]).await
        }
    }
}
