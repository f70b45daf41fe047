//! Requests from within this process: as a client of a service's listener would send them, but without a socket and without being
//! written and read as HTTP.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use bytes::Bytes;
use http::{Method, Request, Response};
use standfast_model::ServiceName;
use tokio::sync::{mpsc, oneshot};

use crate::body::{AnswerBody, Source};
use crate::client::Client;
use crate::error::Refusal;
use crate::exchange::{Reply, exchange};
use crate::listener::ListenerKind;
use crate::wire::{Fields, Framing, Known, RequestHead, Step};
use crate::worker::Worker;

/// Calls that may wait for a worker to begin them; a caller with one more waits.
pub(crate) const CALLS_MAX: usize = 1_024;
/// Where calls come from.
const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Sends requests to services through the gateway: with its balancing, limits, budget for repeats and records. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller {
    workers: Arc<[mpsc::Sender<Incoming>]>,
    next: Arc<AtomicUsize>,
}

/// A call has no whole answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The gateway is being stopped, or it broke: what became of the request is unknown.
    #[error("the gateway ended before the answer came")]
    Ended,
    /// The answer ended before its end.
    #[error("the answer broke off")]
    Broken,
    /// The answer is too long.
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

impl Caller {
    pub(crate) fn new(workers: Vec<mpsc::Sender<Incoming>>) -> Self {
        Self { workers: workers.into(), next: Arc::default() }
    }

    /// Has a request answered by a service; what the gateway refuses is an answer with `Standfast-Reason`, as for every client. Header
    /// fields that are of a connection, `Host` and `Content-Length` are the gateway's own. An answer has at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`CallError`].
    ///
    /// # Cancellation
    /// Dropping it gives the request up as a client does who leaves.
    pub async fn call(
        &self,
        service: &ServiceName,
        request: Request<Bytes>,
        bytes_max: usize,
    ) -> Result<Response<Bytes>, CallError> {
        let worker = self.next.fetch_add(1, Ordering::Relaxed) % self.workers.len().max(1);
        let worker = self.workers.get(worker).ok_or(CallError::Ended)?;
        let (answer, answered) = oneshot::channel();
        let incoming = Incoming { service: service.clone(), request, bytes_max, answer };
        worker.send(incoming).await.map_err(|_| CallError::Ended)?;
        answered.await.unwrap_or(Err(CallError::Ended))
    }
}

/// A call on its way to a worker.
#[derive(Debug)]
pub(crate) struct Incoming {
    service: ServiceName,
    request: Request<Bytes>,
    bytes_max: usize,
    answer: oneshot::Sender<Result<Response<Bytes>, CallError>>,
}

/// Answers a call.
pub(crate) async fn serve(worker: Rc<Worker>, incoming: Incoming) {
    let Incoming { service, request, bytes_max, mut answer } = incoming;
    let method = request.method().clone();
    let kind = ListenerKind::Service { service, caller_zone: None };
    let length = request.body().len() as u64;
    let reply = match read(&worker, &kind, request) {
        Ok((head, source)) => {
            let client = Rc::new(Client::new(Rc::new(kind), PEER, &worker.coarse_clock));
            exchange(&worker, &client, head, source, |cx| answer.poll_closed(cx)).await
        }
        Err(refusal) => {
            worker.counters.refuse(refusal.reason());
            Some(Reply::refused(&refusal, false))
        }
    };
    let Some(mut reply) = reply else { return };
    let body = collect(&worker, &method, &mut reply, bytes_max, &mut answer).await;
    let received = body.as_ref().map_or(0, |body| body.len() as u64);
    worker.counters.count_bodies(length, received);
    if let Some(story) = reply.story.take() {
        story.end(&worker, received, body.is_ok());
    }
    let answered = body.map(|body| {
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = reply.head.status;
        *response.headers_mut() = reply.head.fields.to_map();
        response
    });
    let _caller_may_have_left = answer.send(answered);
}

/// A request as the rest of the gateway sees it.
fn read(
    worker: &Worker,
    kind: &ListenerKind,
    request: Request<Bytes>,
) -> Result<(RequestHead, Source), Refusal> {
    let limits = worker.limits.get();
    let (parts, body) = request.into_parts();
    if parts.headers.len() > limits.header_count_max {
        return Err(Refusal::HeadTooLarge);
    }
    if body.len() as u64 > limits.body_bytes_max {
        return Err(Refusal::BodyTooLarge);
    }
    let mut fields = Fields::from_map(&parts.headers);
    for known in
        [Known::Connection, Known::TransferEncoding, Known::Upgrade, Known::ContentLength, Known::Expect]
    {
        fields.remove(known);
    }
    let host = kind.service().map_or("", ServiceName::as_str);
    fields.set(Known::Host, "host", host.as_bytes());
    let (framing, source) = match body.len() {
        0 => (Framing::None, Source::Empty),
        length => (Framing::Length(length as u64), Source::Kept { data: body, trailers: None }),
    };
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    Ok((RequestHead::of_parts(parts.method, target, fields, framing), source))
}

/// Reads an answer's body whole.
async fn collect(
    worker: &Worker,
    method: &Method,
    reply: &mut Reply,
    bytes_max: usize,
    answer: &mut oneshot::Sender<Result<Response<Bytes>, CallError>>,
) -> Result<Vec<u8>, CallError> {
    // Nobody can have asked for another protocol.
    if reply.head.status.is_informational() || matches!(reply.body, AnswerBody::Reset) {
        return Err(CallError::Broken);
    }
    if let Some(slow) = reply.body.slow_head() {
        slow.wait(&reply.head).await;
    }
    let mut body = Vec::new();
    if reply.has_no_body(method) {
        reply.body.finish();
        return Ok(body);
    }
    let stall_max = worker.limits.get().body_stall_max;
    loop {
        let step = std::future::poll_fn(|cx| {
            if answer.poll_closed(cx).is_ready() {
                return Poll::Ready(Err(CallError::Ended));
            }
            let polled = reply.body.poll_next(cx, &mut |part| body.extend_from_slice(part.as_slice()));
            polled.map_err(|_| CallError::Broken)
        });
        match worker.clock.timeout(stall_max, step).await {
            Ok(Ok(Step::Data)) if body.len() > bytes_max => return Err(CallError::TooLong(bytes_max)),
            Ok(Ok(Step::Data)) => {}
            Ok(Ok(Step::End(_))) => return Ok(body),
            Ok(Err(why)) => return Err(why),
            Err(_) => return Err(CallError::Broken),
        }
    }
}
