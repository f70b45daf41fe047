//! Keeps an answer while it streams to the client.

use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::StatusCode;
use standfast_runtime::Clock;

use crate::attempt::Answer;
use crate::body::{AnswerBody, BrokenOff};
use crate::kept::store::{Flight, KeptAnswer};
use crate::trace::RequestId;
use crate::wire::{Framing, Known, Part, ResponseHead, Step, digits};
use crate::worker::Worker;

/// How long the rest of an answer is read whose client has left.
const READ_ON_MAX: Duration = Duration::from_secs(30);

/// The body of an answer that is kept when it has come to its end. Dropped before, it is read on without its client.
pub(crate) struct Tee {
    taking: Taking,
    worker: Rc<Worker>,
}

/// A body, and what is made of it.
struct Taking {
    body: AnswerBody,
    recording: Option<Recording>,
}

/// An answer as far as it has come.
struct Recording {
    flight: Flight,
    first: RequestId,
    head: ResponseHead,
    data: Vec<u8>,
    bytes_max: usize,
    clock: Clock,
}

/// Has an answer kept, now or when it has come to its end. One that is not worth it, or too long, frees its key.
pub(crate) fn record(worker: &Rc<Worker>, flight: Flight, first: RequestId, answer: Answer) -> Answer {
    let bytes_max = flight.store().bytes_max();
    if !is_decided(&answer.head) || is_too_long(&answer.head, bytes_max) {
        return answer;
    }
    let Answer { head, body } = answer;
    let clock = worker.clock;
    let recording = Recording { flight, first, head: head.clone(), data: Vec::new(), bytes_max, clock };
    if head.framing == Framing::None {
        recording.keep();
        return Answer { head, body };
    }
    let tee = Tee { taking: Taking { body, recording: Some(recording) }, worker: Rc::clone(worker) };
    Answer { head, body: AnswerBody::Kept(Box::new(tee)) }
}

/// Whether the service has decided, and would say the same again: not when it has failed (5xx), could not now (408, 425, 429, or any
/// error that says when to come again), or begins something without an end.
fn is_decided(head: &ResponseHead) -> bool {
    let status = head.status;
    let is_later =
        matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS)
            || status.is_client_error() && head.fields.has(Known::RetryAfter);
    let is_stream =
        head.fields.named("content-type").is_some_and(|kind| kind.starts_with(b"text/event-stream"));
    let is_final = status.is_success() || status.is_redirection() || status.is_client_error();
    is_final && !is_later && !is_stream
}

fn is_too_long(head: &ResponseHead, bytes_max: usize) -> bool {
    head.fields.get(Known::ContentLength).and_then(digits).is_some_and(|length| length > bytes_max as u64)
}

impl Recording {
    /// Takes a part of the body. Returns whether there was room.
    fn take(&mut self, part: &[u8]) -> bool {
        let fits = self.data.len() + part.len() <= self.bytes_max && self.flight.grow(part.len());
        if fits {
            self.data.extend_from_slice(part);
        }
        fits
    }

    fn keep(self) {
        let Self { flight, first, head, data, clock, .. } = self;
        let data = data.into_boxed_slice().into();
        flight.keep(KeptAnswer { first, head, data }, clock.now());
    }
}

impl Taking {
    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Part<'_>),
    ) -> Poll<Result<Step, BrokenOff>> {
        let recording = &mut self.recording;
        let polled = self.body.poll_next(cx, &mut |part| {
            if recording.as_mut().is_some_and(|recording| !recording.take(part.as_slice())) {
                *recording = None;
            }
            sink(part);
        });
        match &polled {
            Poll::Ready(Ok(Step::End(None))) => {
                if let Some(recording) = self.recording.take() {
                    recording.keep();
                }
            }
            // Trailers are not given again, and half an answer is none.
            Poll::Ready(Ok(Step::End(Some(_))) | Err(_)) => self.recording = None,
            Poll::Ready(Ok(Step::Data)) | Poll::Pending => {}
        }
        polled
    }

    /// Reads the rest for nobody but those who come with the same key, until it is kept or not worth it.
    async fn read_on(mut self) {
        let Some(clock) = self.recording.as_ref().map(|recording| recording.clock) else { return };
        let reading = std::future::poll_fn(|cx| {
            while self.recording.is_some() {
                match self.poll_next(cx, &mut |_| {}) {
                    Poll::Ready(Ok(Step::Data)) => {}
                    Poll::Ready(_) => break,
                    Poll::Pending => return Poll::Pending,
                }
            }
            Poll::Ready(())
        });
        let _kept_or_over = clock.timeout(READ_ON_MAX, reading).await;
    }
}

impl Tee {
    /// Reads on, and keeps what is read.
    pub(crate) fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut dyn FnMut(Part<'_>),
    ) -> Poll<Result<Step, BrokenOff>> {
        self.taking.poll_next(cx, sink)
    }

    pub(crate) fn send_request(&mut self, cx: &mut Context<'_>) {
        self.taking.body.send_request(cx);
    }

    pub(crate) fn is_sending(&self) -> bool {
        self.taking.body.is_sending()
    }
}

impl Drop for Tee {
    fn drop(&mut self) {
        let Some(recording) = self.taking.recording.take() else { return };
        let Some(goes_on) = recording.flight.go_on() else { return };
        let body = std::mem::replace(&mut self.taking.body, AnswerBody::Empty);
        let rest = Taking { body, recording: Some(recording) };
        self.worker.spawn(async move {
            rest.read_on().await;
            drop(goes_on);
        });
    }
}

/// Has the answer to a request kept whose client has left.
pub(crate) async fn record_alone(worker: &Rc<Worker>, flight: Flight, first: RequestId, answer: Answer) {
    if let AnswerBody::Kept(mut tee) = record(worker, flight, first, answer).body {
        let body = std::mem::replace(&mut tee.taking.body, AnswerBody::Empty);
        let rest = Taking { body, recording: tee.taking.recording.take() };
        drop(tee);
        rest.read_on().await;
    }
}
