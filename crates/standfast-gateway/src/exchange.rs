//! One request of a client: from its head to its answer's head.

use std::rc::Rc;

use http::header::{self, HeaderValue};
use http::uri::{PathAndQuery, Uri};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use standfast_model::Stamp;

use crate::attempt::{self, Answer, Call, Outgoing};
use crate::body::{RequestBody, ResponseBody};
use crate::client::{Busy, Client};
use crate::error::Refusal;
use crate::headers::{self, Found};
use crate::listener::ListenerKind;
use crate::pool::Service;
use crate::tunnel;
use crate::worker::Worker;

/// Answers one request.
///
/// # Errors
/// The client broke off in mid-body: there is nobody to answer.
///
/// # Cancellation
/// When the client leaves, the attempt that is running is broken off with its connection.
pub(crate) async fn exchange(
    worker: Rc<Worker>,
    client: Rc<Client>,
    mut request: Request<Incoming>,
) -> hyper::Result<Response<ResponseBody>> {
    let busy = client.activity.begin();
    let started = worker.clock.now();
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    let (call, outgoing) = match accept(&worker, &client, request, started).await? {
        Ok(accepted) => accepted,
        Err(refusal) => {
            worker.counters.refused.add(1);
            return Ok(refused(&refusal, busy));
        }
    };
    let tally = Tally::new(&call.service, started);
    match attempt::carry(&call, outgoing).await {
        Ok(answer) => {
            tally.finish(answer.response.status(), worker.clock.now());
            Ok(pass_on(&call, answer, upgrade, busy))
        }
        Err(refusal) => {
            let counters = &call.service.counters;
            match refusal {
                Refusal::Deadline(_) => counters.deadline.add(1),
                Refusal::Broken(_) => counters.broken.add(1),
                _ => counters.no_replica.add(1),
            }
            tally.finish(refusal.status(), worker.clock.now());
            Ok(refused(&refusal, busy))
        }
    }
}

/// Makes of a client's request one for a service, or says why not.
async fn accept(
    worker: &Rc<Worker>,
    client: &Rc<Client>,
    request: Request<Incoming>,
    started: Stamp,
) -> hyper::Result<Result<(Call, Outgoing), Refusal>> {
    let (mut head, body) = request.into_parts();
    let is_public = matches!(*client.kind, ListenerKind::Public);
    let checked = check(&mut head, client, is_public);
    let (found, uri) = match checked {
        Ok(checked) => checked,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let (service, zone) = match worker.route(&client.kind, &head.headers, uri.path()) {
        Ok(routed) => routed,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if !head.headers.contains_key(header::HOST)
        && let Ok(host) = HeaderValue::from_str(service.name.as_str())
    {
        // HTTP/1.0 needs none, the replica does.
        head.headers.insert(header::HOST, host);
    }
    let timeout = service.policy.get().timeout;
    let allowed = match found.left {
        Some(left) if is_public => left.min(timeout),
        Some(left) => left,
        None => timeout,
    };
    let is_repeatable = headers::is_repeatable(&head.method, found.has_idempotency_key);
    let body = if is_repeatable {
        RequestBody::kept(body, &client.activity, worker.limits.replay_bytes_max).await?
    } else {
        RequestBody::streamed(body, &client.activity)
    };
    let is_repeatable = is_repeatable && !matches!(body, RequestBody::Streamed { .. });
    let outgoing = Outgoing { method: head.method, uri, headers: head.headers, body, is_repeatable };
    let call = Call { worker: Rc::clone(worker), service, zone, deadline: started.plus(allowed) };
    Ok(Ok((call, outgoing)))
}

/// Refuses what is ambiguous, takes out what is not for the replica, adds what the gateway knows, and brings the target into
/// origin form.
fn check(head: &mut http::request::Parts, client: &Client, is_public: bool) -> Result<(Found, Uri), Refusal> {
    if head.method == Method::CONNECT {
        return Err(Refusal::Connect);
    }
    let found = Found::in_request(&head.headers, head.version == Version::HTTP_11)?;
    if found.has_transfer_encoding && client.activity.head_has_content_length() {
        return Err(Refusal::BadRequest("the request has both a content-length and a transfer-encoding"));
    }
    found.strip(&mut head.headers, is_public);
    let uri = match head.uri.authority() {
        None => std::mem::take(&mut head.uri),
        Some(authority) => {
            // The target's authority counts, whatever the header field says (RFC 9112, 3.2.2).
            let host = HeaderValue::from_str(authority.as_str())
                .ok()
                .filter(|_| !authority.as_str().contains('@'))
                .ok_or(Refusal::BadRequest("the target's authority is not a host"))?;
            head.headers.insert(header::HOST, host);
            origin_form(&head.uri)
        }
    };
    if is_public {
        client.forwarded.borrow_mut().set(&mut head.headers)?;
    }
    Ok((found, uri))
}

fn origin_form(uri: &Uri) -> Uri {
    let path = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    Uri::from(path)
}

/// A replica's answer as it goes to the client.
fn pass_on(call: &Call, answer: Answer, upgrade: Option<OnUpgrade>, busy: Busy) -> Response<ResponseBody> {
    let (mut head, incoming) = answer.response.into_parts();
    headers::strip_answer(&mut head.headers, head.status);
    let mut response = if head.status == StatusCode::SWITCHING_PROTOCOLS {
        let Some(upgrade) = upgrade else {
            return refused(&Refusal::Broken(call.service.name.clone()), busy);
        };
        tunnel::start(&call.worker, upgrade, answer.upstream);
        Response::new(ResponseBody::whole("", busy))
    } else {
        Response::new(ResponseBody::upstream(incoming, answer.upstream, busy))
    };
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response
}

/// An answer that the gateway makes itself: a word for programs in `Standfast-Reason`, a sentence for people in the body.
fn refused(refusal: &Refusal, busy: Busy) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::whole(format!("standfast: {refusal}\n"), busy));
    *response.status_mut() = refusal.status();
    let fields = response.headers_mut();
    fields.insert(&headers::REASON, HeaderValue::from_static(refusal.reason()));
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if matches!(refusal, Refusal::BadRequest(_) | Refusal::Connect) {
        // Where its next request begins cannot be trusted.
        fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Counts a request, also when its client leaves before the answer.
struct Tally {
    service: Rc<Service>,
    started: Stamp,
    is_finished: bool,
}

impl Tally {
    fn new(service: &Rc<Service>, started: Stamp) -> Self {
        service.counters.requests.add(1);
        service.counters.in_flight.add(1);
        Self { service: Rc::clone(service), started, is_finished: false }
    }

    fn finish(mut self, status: StatusCode, now: Stamp) {
        self.is_finished = true;
        self.service.counters.answered.count(status);
        self.service.counters.latency_sum_micros.add_micros(now.since(self.started));
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.service.counters.in_flight.take_one();
        if !self.is_finished {
            self.service.counters.abandoned.add(1);
        }
    }
}
