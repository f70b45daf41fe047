//! What waits for the sink is sent: one request at a time, again until it is taken.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use standfast_model::{Priority, Stamp};
use standfast_runtime::{Backoff, Rng};
use standfast_store::{BATCH_WRITES_MAX, Batch};

use super::{Row, Sink};
use crate::ask::{Answer, Asked, HttpRequest, Request};
use crate::engine::journal::OUTBOX;
use crate::engine::{Engine, JournalError, Refused};
use crate::run::Digest;

/// Most bytes of one request, and at most one event more.
const REQUEST_BYTES_MAX: usize = 512 << 10;
/// How long a sink may take to answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);
/// Between requests that the sink did not take.
const AGAIN: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(30) };
/// What the sink has taken is removed after so long at the latest, when more is sent.
const REMOVE_AFTER: Duration = Duration::from_secs(1);
/// Most of a sink's error that is shown, in characters.
const ERROR_CHARS_MAX: usize = 300;

impl Engine {
    /// Sends what waits, as long as this process drives runs.
    pub(in crate::engine) async fn send_lifecycle(self) {
        let mut sending = Sending {
            engine: self,
            rows: Vec::new(),
            sent: 0,
            sent_of_next: 0,
            removed_at: Stamp::EPOCH,
            failures: 0,
            most: usize::MAX,
        };
        loop {
            match sending.step().await {
                Ok(()) => {}
                Err(why) => {
                    let why = Refused::from(why);
                    tracing::warn!(%why, "lifecycle events are not sent");
                    if matches!(why, Refused::Stopped(_)) {
                        return sending.engine.stop(&why);
                    }
                    sending.rest(None).await;
                }
            }
        }
    }
}

/// What is being sent.
struct Sending {
    engine: Engine,
    /// What was read and not removed yet, in order.
    rows: Vec<(Vec<u8>, Row)>,
    /// How many of these the sink has taken wholly; they are removed many at a time, since each commit takes its time.
    sent: usize,
    /// How many events of the row after these it has taken.
    sent_of_next: usize,
    /// When rows were removed last.
    removed_at: Stamp,
    failures: u32,
    /// Most events in a request, since more were too large for the sink.
    most: usize,
}

impl Sending {
    /// Sends one request, or waits for something to send.
    async fn step(&mut self) -> Result<(), JournalError> {
        let engine = self.engine.clone();
        let outbox = engine.outbox();
        if self.rows.is_empty() {
            let written = outbox.written();
            self.rows = engine.journal().outbox(false).await?;
            outbox.found(&self.rows, written);
            if self.rows.is_empty() {
                // What was written since the look has left a mark.
                outbox.changed.notified().await;
                return Ok(());
            }
        }
        let sink = outbox.lock().sink.clone();
        let Some(sink) = sink else {
            // Nobody is to be told any more.
            (self.sent, self.sent_of_next) = (self.rows.len(), 0);
            return self.remove().await;
        };
        let (rows, events, body) = self.request(sink.batch.min(self.most));
        match self.post(&sink, body, events).await {
            Ok(()) => {
                self.engine.outbox().sent.fetch_add(events as u64, Ordering::SeqCst);
                self.engine.outbox().lock().error = None;
                (self.failures, self.most) = (0, self.most.saturating_mul(2));
                self.sent_of_next = self.left_over(rows, events);
                self.sent += rows;
                let is_late = engine.clock().now().since(self.removed_at) >= REMOVE_AFTER;
                match is_late || self.sent >= BATCH_WRITES_MAX || self.sent == self.rows.len() {
                    true => self.remove().await,
                    false => Ok(()),
                }
            }
            Err(Failed { is_too_large, why }) => {
                let why: String = why.chars().take(ERROR_CHARS_MAX).collect();
                if self.failures == 0 {
                    tracing::warn!(sink = %sink.uri, %why, "lifecycle events are not taken: they are sent again");
                }
                self.engine.outbox().lock().error = Some(why);
                if is_too_large && events > 1 {
                    self.most = events / 2;
                    return Ok(());
                }
                self.remove().await?;
                self.rest(Some(&sink)).await;
                Ok(())
            }
        }
    }

    /// How many events of the row after them are sent, when so many more rows are wholly sent with so many events.
    fn left_over(&self, rows: usize, events: usize) -> usize {
        let whole = self.rows[self.sent..][..rows].iter().map(|(_, row)| row.events.len());
        self.sent_of_next + events - whole.sum::<usize>()
    }

    /// The body of the next request: how many rows are wholly sent by it, how many events it has.
    fn request(&self, most: usize) -> (usize, usize, Vec<u8>) {
        let most = most.max(1);
        let (mut rows, mut events, mut body) = (0, 0, vec![b'[']);
        'all: for (at, (_, row)) in self.rows[self.sent..].iter().enumerate() {
            let skip = if at == 0 { self.sent_of_next } else { 0 };
            for event in &row.events[skip.min(row.events.len())..] {
                let text = event.to_string();
                if events == most || events > 0 && body.len() + text.len() > REQUEST_BYTES_MAX {
                    break 'all;
                }
                if events > 0 {
                    body.push(b',');
                }
                body.extend_from_slice(text.as_bytes());
                events += 1;
            }
            rows += 1;
        }
        body.push(b']');
        (rows, events, body)
    }

    async fn post(&self, sink: &Sink, mut body: Vec<u8>, events: usize) -> Result<(), Failed> {
        const KEY: HeaderName = HeaderName::from_static("idempotency-key");
        let failed = |why: String| Failed { is_too_large: false, why };
        let mut headers = HeaderMap::new();
        // A sink that takes one event at a time is sent it alone.
        let kind = match sink.batch {
            1 => {
                body.pop();
                body.remove(0);
                "application/cloudevents+json"
            }
            _ => "application/cloudevents-batch+json",
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let key = format!("lifecycle-{}", Digest::of(&body));
        let quoted = HeaderValue::from_str(&format!("\"{key}\"")).map_err(|why| failed(why.to_string()))?;
        headers.insert(KEY, quoted);
        if let Some(name) = &sink.bearer {
            headers.insert(AUTHORIZATION, self.engine.bearer(name).map_err(failed)?);
        }
        let uri: Uri = sink.uri.parse().map_err(|_| failed(format!("`{}` is no address", sink.uri)))?;
        let now = self.engine.clock().now();
        let http =
            HttpRequest { method: Method::POST, uri, headers, body: Bytes::from(body), credential: None };
        let asked = Asked {
            key,
            deadline: now.plus(ANSWERS_WITHIN),
            priority: Priority::Normal,
            share: "lifecycle".into(),
            since: now,
            heartbeat: None,
            request: Request::Http(http),
        };
        let answering = self.engine.clock().timeout(ANSWERS_WITHIN, self.engine.invoke(&asked));
        let answer = match answering.await {
            Ok(answer) => answer.map_err(|problem| failed(problem.to_string()))?,
            Err(_) => return Err(failed(format!("no answer within {} s", ANSWERS_WITHIN.as_secs()))),
        };
        match answer {
            Answer::Http(answer) if answer.status.is_success() => Ok(()),
            Answer::Http(answer) => Err(Failed {
                is_too_large: answer.status == StatusCode::PAYLOAD_TOO_LARGE,
                why: format!("{events} events were answered with {}", answer.status),
            }),
            _ => Err(failed("it did not answer by HTTP".to_owned())),
        }
    }

    /// Forgets rows that are wholly sent; written when this returns.
    async fn remove(&mut self) -> Result<(), JournalError> {
        while self.sent > 0 {
            let some = self.sent.min(BATCH_WRITES_MAX);
            let mut batch = Batch::new();
            for (at, _) in &self.rows[..some] {
                batch = batch.delete(&OUTBOX, at.clone());
            }
            self.engine.journal().commit(batch).await?;
            for (_, row) in self.rows.drain(..some) {
                self.engine.outbox().removed(&row);
            }
            self.sent -= some;
        }
        self.removed_at = self.engine.clock().now();
        Ok(())
    }

    /// Pauses before the next attempt; another sink ends that.
    async fn rest(&mut self, sink: Option<&Sink>) {
        let mut rng = Rng::seeded(self.engine.journal().next() ^ self.engine.clock().now().as_micros());
        let until = self.engine.clock().now().plus(AGAIN.wait(self.failures, &mut rng));
        self.failures = self.failures.saturating_add(1);
        let outbox = self.engine.outbox();
        loop {
            let changed = outbox.changed.notified();
            if sink.is_some() && outbox.lock().sink.as_deref() != sink {
                return;
            }
            tokio::select! {
                biased;
                () = self.engine.clock().sleep_until(until) => return,
                () = changed => {}
            }
        }
    }
}

/// A request that the sink did not take.
struct Failed {
    is_too_large: bool,
    why: String,
}
