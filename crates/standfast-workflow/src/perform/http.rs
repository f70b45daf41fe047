use std::time::Duration;

use ::http::{HeaderName, HeaderValue, Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use standfast_runtime::with_causes;

use crate::ask::{ANSWER_BYTES_MAX, HttpAnswer, HttpRequest};
use crate::run::{Problem, Standard};

/// Longest time to a connection.
const CONNECT_MAX: Duration = Duration::from_secs(10);
/// How long a connection is kept that nobody uses: less than most servers keep theirs.
pub(super) const IDLE_MAX: Duration = Duration::from_secs(4);
/// Idle connections that are kept for one host.
const IDLE_CONNECTIONS_MAX: usize = 256;
/// Milliseconds that are left for a request, as the gateway and services beside it understand it.
const DEADLINE: HeaderName = HeaderName::from_static("standfast-deadline");

/// Sends requests by HTTP/1.1, over TLS too. Cheap to clone; clones share connections.
#[derive(Debug, Clone)]
pub struct HttpSender(Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>, String>);

/// A request that got no whole answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// It could not be sent, or its answer did not come.
    #[error("the request failed")]
    Failed(#[source] hyper_util::client::legacy::Error),
    /// Its answer broke off.
    #[error("the answer broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Its answer is too long.
    #[error("the answer is longer than {} KiB", .0 >> 10)]
    TooLong(usize),
    /// It cannot be written.
    #[error("the request cannot be written: {0}")]
    Wrong(String),
}

impl HttpError {
    /// As the problem of the task.
    pub(crate) fn into_problem(self, request: &HttpRequest) -> Problem {
        let place = format!("{} {}", request.method, crate::ask::without_query(&request.uri));
        let kind = match self {
            Self::Wrong(_) => Standard::Configuration,
            _ => Standard::Communication,
        };
        kind.problem(format!("{place}: {}", with_causes(&self)))
    }
}

impl Default for HttpSender {
    fn default() -> Self {
        Self::new()
    }
}

impl HttpSender {
    /// A sender without connections, which trusts the certificates that the machine does.
    pub fn new() -> Self {
        let tcp = tcp();
        let tls = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider());
        Self(tls.map_err(|why| why.to_string()).map(|tls| {
            let connector = tls.https_or_http().enable_http1().wrap_connector(tcp);
            let mut builder = Client::builder(TokioExecutor::new());
            builder.pool_timer(TokioTimer::new());
            builder.pool_idle_timeout(IDLE_MAX).pool_max_idle_per_host(IDLE_CONNECTIONS_MAX);
            builder.build(connector)
        }))
    }

    /// Sends a request that has `left` to be answered, and reads the whole answer. Any status is an answer.
    ///
    /// # Errors
    /// See [`HttpError`].
    ///
    /// # Cancellation
    /// Dropping it closes the connection; the effect is then unknown.
    pub async fn send(&self, request: &HttpRequest, left: Duration) -> Result<HttpAnswer, HttpError> {
        self.send_up_to(request, left, ANSWER_BYTES_MAX).await
    }

    /// The same for an answer of at most so many bytes.
    pub(super) async fn send_up_to(
        &self,
        request: &HttpRequest,
        left: Duration,
        bytes_max: usize,
    ) -> Result<HttpAnswer, HttpError> {
        collect(self.open(request, left).await?, bytes_max).await
    }

    /// Sends a request, and returns its answer as soon as that begins.
    pub(super) async fn open(
        &self,
        request: &HttpRequest,
        left: Duration,
    ) -> Result<Response<Incoming>, HttpError> {
        let client = self.0.as_ref().map_err(|why| HttpError::Wrong(why.clone()))?;
        let mut sent = Request::new(Full::new(request.body.clone()));
        *sent.method_mut() = request.method.clone();
        *sent.uri_mut() = request.uri.clone();
        *sent.headers_mut() = request.headers.clone();
        sent.headers_mut().entry(DEADLINE).or_insert_with(|| HeaderValue::from(left.as_millis() as u64));
        client.request(sent).await.map_err(HttpError::Failed)
    }
}

/// What makes connections.
pub(super) fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_MAX));
    tcp
}

/// Reads a whole answer of at most so many bytes.
pub(super) async fn collect(answer: Response<Incoming>, bytes_max: usize) -> Result<HttpAnswer, HttpError> {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, bytes_max).collect().await.map_err(|why| {
        if why.is::<LengthLimitError>() { HttpError::TooLong(bytes_max) } else { HttpError::Broken(why) }
    })?;
    Ok(HttpAnswer { status: head.status, headers: head.headers, body: body.to_bytes() })
}
